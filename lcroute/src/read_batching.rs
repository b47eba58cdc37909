//! Decides how many packets one turn reads from lc0. Single packets go on at once, without a
//! second, empty read. Bursts are read to their end first, and leave together.

use std::time::{Duration, Instant};

/// Turns in a row with a single packet, after which the next turn reads one (chosen).
const SINGLES: u32 = 16;

/// Least gap between single packets (chosen: longer than any gap within a burst).
const SINGLE_GAP: Duration = Duration::from_micros(250);

/// Recent arrivals at lc0.
#[derive(Debug, Default)]
pub struct ReadBatching {
    /// Turns in a row that found one packet.
    turns: u32,
    last: Option<Instant>,
}

impl ReadBatching {
    /// Begins a turn; returns whether one packet is most likely.
    pub fn is_single(&mut self, now: Instant) -> bool {
        let far = |last| now.saturating_duration_since(last) >= SINGLE_GAP;
        if !self.last.is_none_or(far) {
            self.turns = 0;
        }
        self.last = Some(now);
        self.turns >= SINGLES
    }

    /// Ends a turn that read this number of packets, and then found none.
    pub fn drained(&mut self, packets: usize) {
        self.turns = if packets == 1 { self.turns + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the prediction after turns, each with the gap before it and its packets.
    fn after(turns: &[(Duration, usize)]) -> bool {
        let (mut batching, mut now) = (ReadBatching::default(), Instant::now());
        for (gap, packets) in turns {
            now += *gap;
            if !batching.is_single(now) {
                batching.drained(*packets);
            }
        }
        batching.is_single(now + SINGLE_GAP)
    }

    #[test]
    fn only_a_row_of_single_packets_counts_and_a_burst_ends_it() {
        let single = (SINGLE_GAP, 1);
        assert!(!after(&[single; 15]));
        assert!(after(&[single; 16]));
        assert!(after(&[single; 100]));
        assert!(!after(&[(SINGLE_GAP, 2); 100]), "two at a time");
        assert!(!after(&[(SINGLE_GAP / 2, 1); 100]), "close to each other");
        assert!(
            !after(&[&[single; 50][..], &[(SINGLE_GAP / 2, 1)]].concat()),
            "one close behind another"
        );
        assert!(!after(&[&[single; 15][..], &[(SINGLE_GAP, 3)]].concat()));
    }
}
