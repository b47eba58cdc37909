//! An interface behind which packets wait in this host: its channels pause now and then.
//!
//! Held channels keep their place in the order of turns. So they are late, which shows the rate at
//! which symbols leave: no more bursts begin on this interface than fit it.

use librecast::time::{Duration, Instant};

use super::capacity::Capacity;
use super::sending::MAX_TURN;

/// Most symbols of the first turn. Chosen.
const FIRST_TURN: u32 = 16;
/// Wait after which a turn was too long. Chosen: links drop at four times as much.
const LONG_WAIT: Duration = Duration::from_millis(20);

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
    turn: u32,
    /// The longest wait since the last turn.
    wait: Duration,
}

impl Gate {
    pub(super) fn new(load: u64, now: Instant) -> Self {
        Self {
            until: now,
            capacity: Capacity::new(now),
            load,
            is_behind: false,
            turn: FIRST_TURN,
            wait: Duration::ZERO,
        }
    }

    /// Holds the channels back, as packets wait for this time.
    pub(super) fn hold(&mut self, wait: Duration, until: Instant) {
        self.wait = self.wait.max(wait);
        self.until = until;
    }

    /// Returns the most symbols of the next turn: half as many after one that was too long.
    pub(super) fn take_turn(&mut self) -> u32 {
        self.turn = match std::mem::take(&mut self.wait) > LONG_WAIT {
            true => (self.turn / 2).max(1),
            false => (self.turn + 1).min(MAX_TURN),
        };
        self.turn
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
