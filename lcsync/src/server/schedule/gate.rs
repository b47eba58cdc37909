//! An interface behind which packets wait in this host: its channels pause now and then.
//!
//! Held channels keep their place in the order of turns. So they are late, which shows the rate at
//! which symbols leave: no more bursts begin on this interface than fit it.

use librecast::time::Instant;

use super::capacity::Capacity;
use super::sending::MAX_TURN;

/// Most symbols of the first turn. Chosen.
const FIRST_TURN: u32 = 4;

/// An interface that is held, or was.
#[derive(Debug)]
pub(super) struct Gate {
    /// No symbols leave before.
    pub(super) until: Instant,
    pub(super) capacity: Capacity,
    /// Bits per second of its bursts.
    pub(super) load: u64,
    /// Whether a turn is late.
    pub(super) is_behind: bool,
    /// Most symbols of a turn: each may leave in many copies, and none is dropped here.
    pub(super) turn: u32,
}

impl Gate {
    pub(super) fn new(load: u64, now: Instant) -> Self {
        Self {
            until: now,
            capacity: Capacity::new(now),
            load,
            is_behind: false,
            turn: FIRST_TURN,
        }
    }

    /// Holds the channels back. A turn after which packets wait was too long.
    pub(super) fn hold(&mut self, until: Instant, now: Instant) {
        if now >= self.until {
            self.turn = (self.turn / 2).max(1);
        }
        self.until = until;
    }

    /// Takes a turn.
    pub(super) fn take_turn(&mut self) -> u32 {
        self.turn = (self.turn + 1).min(MAX_TURN);
        self.turn - 1
    }

    /// Whether no further burst begins.
    pub(super) fn is_full(&self) -> bool {
        let fits = self.capacity.measured();
        self.is_behind || fits.is_some_and(|fits| self.load >= fits + fits / 10)
    }

    /// Bits per second of its bursts, at most those that leave.
    pub(super) fn leaving(&self) -> u64 {
        self.load.min(self.capacity.measured().unwrap_or(u64::MAX))
    }

    /// Returns when a turn due at `due` may send.
    pub(super) fn opens(&self, due: Instant) -> Instant {
        due.max(self.until)
    }
}
