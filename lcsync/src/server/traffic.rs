//! Bytes and symbols sent of a share: since the start, and recently.

use librecast::time::{Duration, Instant};

/// Resolution of rates.
const SLOT: Duration = Duration::from_millis(250);
/// Slots of the ring: the present one, and ten seconds before it.
const SLOTS: usize = 41;
/// Slots of the present rate: one second.
const PRESENT: usize = 4;

/// Counters of one share.
#[derive(Debug)]
pub struct Traffic {
    started: Instant,
    symbols: u64,
    blocks: u64,
    /// Bytes with headers, in a ring.
    slots: [u64; SLOTS],
    newest: u64,
}

impl Traffic {
    /// Counters of a share that was not sent yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            symbols: 0,
            blocks: 0,
            slots: [0; SLOTS],
            newest: 0,
        }
    }

    /// Counts sent symbols, in packets of `packet` bytes with headers.
    pub fn add(&mut self, symbols: u32, packet: u64, now: Instant) {
        let slot = self.slot_at(now);
        // clears slots since the last packet
        for gone in (self.newest + 1..=slot).rev().take(SLOTS) {
            self.slots[index(gone)] = 0;
        }
        self.newest = self.newest.max(slot);
        self.slots[index(self.newest)] += u64::from(symbols) * packet;
        self.symbols += u64::from(symbols);
    }

    /// Counts whole blocks that begin.
    pub fn begin_blocks(&mut self, count: u32) {
        self.blocks += u64::from(count);
    }

    /// Symbols sent.
    pub fn symbols(&self) -> u64 {
        self.symbols
    }

    /// Whole blocks begun.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bits per second, with headers: over the last second, and over the last ten.
    pub fn rates(&self, now: Instant) -> (u64, u64) {
        (self.rate(PRESENT, now), self.rate(SLOTS - 1, now))
    }

    fn rate(&self, slots: usize, now: Instant) -> u64 {
        let present = self.slot_at(now);
        let first = present.saturating_sub(slots as u64);
        let sent: u64 = (first..=present.min(self.newest))
            .map(|slot| self.slots[index(slot)])
            .sum();
        let begin = self.started + SLOT * u32::try_from(first).unwrap_or(u32::MAX);
        let span = now.saturating_duration_since(begin).max(SLOT);
        (sent as f64 * 8.0 / span.as_secs_f64()) as u64
    }

    fn slot_at(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.started);
        (age.as_millis() / SLOT.as_millis()) as u64
    }
}

fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_seconds_and_totals_stay() {
        let start = Instant::now();
        let mut traffic = Traffic::new(start);
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(traffic.rates(at(0)), (0, 0));
        // 100,000 bytes a second
        for n in 0..200 {
            traffic.add(10, 1_000, at(100 * n));
        }
        let (now, lately) = traffic.rates(at(19_999));
        assert!((750_000..=850_000).contains(&now), "{now}");
        assert!((780_000..=820_000).contains(&lately), "{lately}");
        let (now, lately) = traffic.rates(at(25_000));
        assert_eq!(now, 0, "five seconds of silence");
        assert!((390_000..=420_000).contains(&lately), "{lately}");
        assert_eq!(traffic.rates(at(40_000)), (0, 0));
        traffic.add(1, 1_000, at(3_600_000));
        assert_eq!(traffic.rates(at(3_600_000)), (8_000, 800));
        traffic.begin_blocks(1);
        assert_eq!((traffic.symbols(), traffic.blocks()), (2_001, 1));
    }

    #[test]
    fn who_has_just_begun_is_not_averaged_over_what_was_before() {
        let start = Instant::now();
        let mut traffic = Traffic::new(start);
        traffic.add(10, 1_000, start);
        assert_eq!(
            traffic.rates(start + Duration::from_millis(500)),
            (160_000, 160_000)
        );
    }
}
