//! Repaired packets at the receiver.

use librecast::time::{Duration, Instant};

use bytes::Bytes;

use crate::replay::ReplayWindow;
use crate::window_code::{Decoder, Solved};

/// Words of 64 indices in the window of repaired packets: as long as the replay window.
const WINDOW: usize = 1_024;

/// Delivers each packet's messages once, and solves for lost packets.
#[derive(Debug)]
pub struct Recovery {
    /// Bound of the delay by repair; 0 ignores symbols.
    budget: Duration,
    repaired: Option<Box<ReplayWindow>>,
    decoder: Option<Box<Decoder>>,
    solved: Vec<Solved>,
    /// Number of packets with messages delivered by repair.
    pub count: u64,
}

impl Recovery {
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            repaired: None,
            decoder: None,
            solved: Vec::new(),
            count: 0,
        }
    }

    /// Whether the messages of the received packet `index` have not come by repair.
    pub fn is_new(&self, index: u64) -> bool {
        let repaired = self.repaired.as_ref();
        !repaired.is_some_and(|repaired| repaired.was_seen(index))
    }

    /// Notes repair of packet `index`; returns false if its messages were delivered before.
    pub fn repair(&mut self, index: u64, seen: &ReplayWindow) -> bool {
        let repaired = self
            .repaired
            .get_or_insert_with(|| Box::new(ReplayWindow::new(WINDOW)));
        let new = !seen.was_seen(index) && repaired.is_new(index);
        if new {
            repaired.mark(index);
            self.count += 1;
        }
        new
    }

    /// Keeps the payload of packet `index` while symbols arrive.
    pub fn keep(&mut self, index: u64, payload: &Bytes, now: Instant) {
        self.decoder.take_if(|decoder| decoder.is_idle(now));
        if let Some(decoder) = &mut self.decoder {
            decoder.source(index, payload.clone(), now, &mut self.solved);
        }
    }

    /// Handles a symbol from packet `carrier`; returns an error if it is malformed.
    pub fn symbol(
        &mut self,
        bytes: &[u8],
        carrier: u64,
        seen: &ReplayWindow,
        now: Instant,
    ) -> Result<(), ()> {
        if self.budget.is_zero() {
            return Ok(());
        }
        let decoder = self
            .decoder
            .get_or_insert_with(|| Box::new(Decoder::new(now)));
        let seen = |index| seen.was_seen(index);
        decoder.symbol(bytes, carrier, seen, now, &mut self.solved)
    }

    /// Returns the payload of the next solved packet that is neither too old nor delivered.
    pub fn next(&mut self, seen: &ReplayWindow) -> Option<Bytes> {
        loop {
            let Solved {
                index,
                payload,
                delay,
            } = self.solved.pop()?;
            if delay <= self.budget && self.repair(index, seen) {
                return Some(payload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_delivered_once() {
        let (mut recovery, mut seen) = (Recovery::new(Duration::ZERO), ReplayWindow::new(16));
        (0..10).filter(|i| *i != 4).for_each(|i| seen.mark(i));
        assert!(recovery.is_new(4));
        assert!(!recovery.repair(3, &seen), "came itself");
        assert!(recovery.repair(4, &seen));
        assert!(!recovery.repair(4, &seen), "a second copy");
        assert!(!recovery.is_new(4), "delay");
        assert!(recovery.is_new(5));
        assert_eq!(recovery.count, 1);
    }
}
