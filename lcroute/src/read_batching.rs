//! How many packets one turn reads from lc0. Packets that come one by one go on at once, without a second read
//! that would find nothing. Bursts are read to their end first, and leave together.

use std::time::{Duration, Instant};

/// Turns in a row with a single packet, after which the next turn reads one (chosen).
const SINGLES: u32 = 16;

/// Least gap between single packets (chosen: longer than any gap within a burst).
const SINGLE_GAP: Duration = Duration::from_micros(250);

/// How packets have come from lc0 so far.
#[derive(Debug, Default)]
pub struct ReadBatching {
    /// Turns in a row that found one packet.
    turns: u32,
    last: Option<Instant>,
}

impl ReadBatching {
    /// A turn that reads begins: whether it will most likely find one packet.
    pub fn is_single(&mut self, now: Instant) -> bool {
        let far = |last| now.saturating_duration_since(last) >= SINGLE_GAP;
        if !self.last.is_none_or(far) {
            self.turns = 0;
        }
        self.last = Some(now);
        self.turns >= SINGLES
    }

    /// A turn has found so many, and then nothing.
    pub fn drained(&mut self, packets: usize) {
        self.turns = if packets == 1 { self.turns + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether one packet is expected after turns as described: gap before it, packets in it.
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
