//! An interface behind which packets wait in this host: its channels pause now and then.
//!
//! Held channels keep their place in the order of turns. So they are late, which shows the rate at
//! which symbols leave: no more bursts begin on this interface than fit it.

use librecast::time::Instant;

use super::capacity::Capacity;

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
}

impl Gate {
    pub(super) fn new(load: u64, now: Instant) -> Self {
        Self {
            until: now,
            capacity: Capacity::new(now),
            load,
            is_behind: false,
        }
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
