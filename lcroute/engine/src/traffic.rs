//! Packets of a group, for `groups`.

use std::net::Ipv6Addr;

use librecast::time::{Duration, Instant};
use smallvec::SmallVec;

/// Senders that are remembered per group.
const MAX_SENDERS: usize = 16;
/// Least time between notes of senders, once the list is full.
const CROWD_GAP: Duration = Duration::from_millis(250);
/// Silence after which a sender is no longer shown.
const SENDER_MEMORY: Duration = Duration::from_secs(60);

/// Counters and senders of a group.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets carried.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of other routers' packets since [`Self::take_others`].
    others: u64,
    /// Most groups have one.
    senders: SmallVec<[(Ipv6Addr, Instant); 1]>,
    /// Time of the last note, once the list is full.
    noted: Option<Instant>,
}

impl Traffic {
    pub fn count(&mut self, source: Ipv6Addr, len: usize, now: Instant) {
        self.packets += 1;
        self.bytes += len as u64;
        if self.noted.is_some_and(|last| now < last + CROWD_GAP) {
            return;
        }
        self.note(source, now);
        let is_crowd = self.senders.len() >= MAX_SENDERS;
        self.noted = is_crowd.then_some(now);
    }

    /// Counts a packet of another router, delivered here or passed on.
    pub fn count_other(&mut self, len: usize) {
        self.others += len as u64;
    }

    /// Bytes of other routers' packets since the last call.
    pub fn take_others(&mut self) -> u64 {
        std::mem::take(&mut self.others)
    }

    fn note(&mut self, source: Ipv6Addr, now: Instant) {
        if let Some((_, last)) = self.senders.iter_mut().find(|(s, _)| *s == source) {
            *last = now;
            return;
        }
        if self.senders.len() >= MAX_SENDERS
            && let Some(oldest) = (0..self.senders.len()).min_by_key(|i| self.senders[*i].1)
        {
            self.senders.swap_remove(oldest);
        }
        self.senders.push((source, now));
    }

    /// The senders of the last minute, in order.
    pub fn senders(&self, now: Instant) -> Vec<Ipv6Addr> {
        let recent = |last: Instant| now.saturating_duration_since(last) < SENDER_MEMORY;
        let mut list: Vec<_> = self
            .senders
            .iter()
            .filter(|(_, last)| recent(*last))
            .map(|(s, _)| *s)
            .collect();
        list.sort_unstable();
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_bounded_and_age() {
        let start = crate::testing::start();
        let mut traffic = Traffic::default();
        for n in 0..100u16 {
            let source = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
            traffic.count(source, 10, start + Duration::from_secs(n.into()));
        }
        assert_eq!((traffic.packets, traffic.bytes), (100, 1000));
        let at = start + Duration::from_secs(99);
        assert_eq!(traffic.senders(at).len(), MAX_SENDERS);
        assert_eq!(traffic.senders(at + Duration::from_secs(50)).len(), 10);
        assert_eq!(traffic.senders(at + SENDER_MEMORY).len(), 0);
    }

    #[test]
    fn of_a_crowd_that_sends_all_the_time_senders_are_shown() {
        let start = crate::testing::start();
        let mut traffic = Traffic::default();
        let mut now = start;
        for n in 0..100_000u32 {
            now += Duration::from_millis(3);
            let source = Ipv6Addr::from_bits(u128::from(n * 7 % 1_000));
            traffic.count(source, 10, now);
        }
        assert_eq!(traffic.packets, 100_000);
        let senders = traffic.senders(now);
        assert_eq!(senders.len(), MAX_SENDERS, "{senders:?}");
    }
}
