//! When packets come one by one, far from each other, each is sent on before the look for more, which
//! would find nothing. Where they come in bursts they are read to the end first, and sent together.

use std::time::{Duration, Instant};

/// So many lone packets in a row make a habit.
const HABIT: u32 = 16;

/// No burst has such gaps.
const FAR: Duration = Duration::from_micros(250);

/// How packets have come from lc0 so far.
#[derive(Debug, Default)]
pub struct Lone {
    /// Turns in a row that found one packet.
    turns: u32,
    last: Option<Instant>,
}

impl Lone {
    /// A turn that reads begins: whether it will most likely find one packet.
    pub fn is_lone(&mut self, now: Instant) -> bool {
        let far = |last| now.saturating_duration_since(last) >= FAR;
        if !self.last.is_none_or(far) {
            self.turns = 0;
        }
        self.last = Some(now);
        self.turns >= HABIT
    }

    /// A turn has found so many, and then nothing.
    pub fn drained(&mut self, packets: usize) {
        self.turns = if packets == 1 { self.turns + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the next packet is taken for a lone one after turns as described: gap before it, packets in it.
    fn after(turns: &[(Duration, usize)]) -> bool {
        let (mut lone, mut now) = (Lone::default(), Instant::now());
        for (gap, packets) in turns {
            now += *gap;
            if !lone.is_lone(now) {
                lone.drained(*packets);
            }
        }
        lone.is_lone(now + FAR)
    }

    #[test]
    fn only_a_habit_counts_and_a_burst_ends_it() {
        let lone = (FAR, 1);
        assert!(!after(&[lone; 15]));
        assert!(after(&[lone; 16]));
        assert!(after(&[lone; 100]));
        assert!(!after(&[(FAR, 2); 100]), "two at a time");
        assert!(!after(&[(FAR / 2, 1); 100]), "close to each other");
        assert!(
            !after(&[&[lone; 50][..], &[(FAR / 2, 1)]].concat()),
            "one close behind another"
        );
        assert!(!after(&[&[lone; 15][..], &[(FAR, 3)]].concat()));
    }
}
