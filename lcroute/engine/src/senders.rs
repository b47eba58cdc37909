//! Hosts of a LAN that send: their Ethernet addresses and shares of the rate.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::ethernet::MacAddress;
use librecast::time::{Duration, Instant};

use crate::drops::DropReason;

/// Silence of a source's Ethernet address before another may replace it: a loop changes it.
const STICKY: Duration = Duration::from_secs(10);
/// Silence after which a source is forgotten.
const MEMORY: Duration = Duration::from_secs(60);
/// Most sources of one LAN. Chosen.
const MAX_SOURCES: usize = 4_096;
/// Least time between searches for sources to forget, if there is no room.
const SWEEP: Duration = Duration::from_secs(1);
/// Interval in which shares are computed.
const ROUND: Duration = Duration::from_millis(50);

/// One host that sends.
#[derive(Debug)]
struct Source {
    mac: MacAddress,
    last: Instant,
    /// Bytes that it offered in this round.
    wanted: u64,
    packets: u64,
    bytes: u64,
}

/// A host that sent lately.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SenderSnapshot {
    /// Its address.
    pub address: Ipv6Addr,
    /// Its Ethernet address.
    #[serde(serialize_with = "as_text")]
    pub mac: MacAddress,
    /// Packets that entered the network.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn as_text<S: serde::Serializer>(mac: &MacAddress, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(mac)
}

/// All senders, which share one rate.
#[derive(Debug)]
pub struct Senders {
    sources: BTreeMap<Ipv6Addr, Source>,
    /// Bytes in a round.
    budget: u64,
    /// Bytes sent in this round, and the excess of the last round.
    spent: u64,
    /// Bytes for each source in this round: slower sources leave the rest to faster ones.
    share: u64,
    /// Bytes for each source that may exceed the budget by a quarter.
    equal_part: u64,
    round_ends: Instant,
    swept: Instant,
}

impl Senders {
    /// No senders. `rate`: of all together, in bits a second.
    pub fn new(rate: u64, now: Instant) -> Self {
        let budget = budget(rate);
        Self {
            sources: BTreeMap::new(),
            budget,
            spent: 0,
            share: budget,
            equal_part: budget,
            round_ends: now + ROUND,
            swept: now,
        }
    }

    pub fn set_rate(&mut self, rate: u64) {
        self.budget = budget(rate);
        // bytes sent at another rate are not debt
        self.spent = self.spent.min(self.budget);
    }

    /// Admits a packet of this length.
    pub fn admit(
        &mut self,
        source: Ipv6Addr,
        mac: MacAddress,
        len: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        if now >= self.round_ends {
            self.begin_round(now);
        }
        if !self.sources.contains_key(&source) && !self.has_room(now) {
            return Err(DropReason::LanSourceLimit);
        }
        let known = self.sources.entry(source).or_insert(Source {
            mac,
            last: now,
            wanted: 0,
            packets: 0,
            bytes: 0,
        });
        if known.mac != mac {
            if now < known.last + STICKY {
                return Err(DropReason::LanSourceMoved);
            }
            known.mac = mac;
        }
        known.last = now;
        let len = len as u64;
        known.wanted = known.wanted.saturating_add(len);
        let most = if known.wanted <= self.equal_part {
            self.budget + self.budget / 4
        } else {
            self.budget
        };
        if known.wanted > self.share || self.spent + len > most {
            return Err(DropReason::LanRate);
        }
        self.spent += len;
        known.packets += 1;
        known.bytes += len;
        debug_assert!(self.sources.len() <= MAX_SOURCES, "sources have a bound");
        Ok(())
    }

    /// Divides the budget by the last round's demand: each source gets its demand or an equal part.
    fn begin_round(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.round_ends);
        // one round has ended, and all that passed without a packet
        let rounds = 1 + (late.as_nanos() / ROUND.as_nanos()) as u64;
        self.round_ends =
            now + ROUND - Duration::from_nanos((late.as_nanos() % ROUND.as_nanos()) as u64);
        let sources = self.sources.values_mut();
        let wanted = sources.map(|source| std::mem::take(&mut source.wanted));
        let wanted: Vec<_> = wanted.filter(|wanted| *wanted > 0).collect();
        self.spent = self
            .spent
            .saturating_sub(self.budget.saturating_mul(rounds));
        self.equal_part = self.budget / (wanted.len() as u64 + 1);
        self.share = fair_share(self.budget.saturating_sub(self.spent), wanted);
    }

    fn has_room(&mut self, now: Instant) -> bool {
        if self.sources.len() >= MAX_SOURCES && now >= self.swept + SWEEP {
            self.swept = now;
            self.sources.retain(|_, source| now < source.last + MEMORY);
        }
        self.sources.len() < MAX_SOURCES
    }

    /// The senders of the last minute, in order.
    pub fn snapshot(&self, now: Instant) -> Vec<SenderSnapshot> {
        let recent = self.sources.iter().filter(|(_, s)| now < s.last + MEMORY);
        let snapshot = recent.map(|(address, source)| SenderSnapshot {
            address: *address,
            mac: source.mac,
            packets: source.packets,
            bytes: source.bytes,
        });
        snapshot.collect()
    }
}

fn budget(rate: u64) -> u64 {
    // at least one long packet a round
    (rate / 8 * ROUND.as_millis() as u64 / 1_000).max(2_048)
}

/// The largest share with which all stay within the budget (max-min fairness).
fn fair_share(budget: u64, mut wanted: Vec<u64>) -> u64 {
    wanted.sort_unstable();
    let (mut left, mut count) = (budget, wanted.len() as u64);
    for want in wanted {
        if want > left / count {
            return left / count;
        }
        left -= want;
        count -= 1;
    }
    budget
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    fn source(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n)
    }

    #[test]
    fn a_source_sticks_to_its_first_ethernet_address() {
        let now = start();
        let mut senders = Senders::new(1_000_000_000, now);
        assert_eq!(senders.admit(source(1), MAC, 100, now), Ok(()));
        let soon = now + STICKY / 2;
        let moved = Err(DropReason::LanSourceMoved);
        assert_eq!(senders.admit(source(1), OTHER, 100, soon), moved);
        assert_eq!(senders.admit(source(1), OTHER, 100, now + STICKY), Ok(()));
        assert_eq!(senders.admit(source(1), MAC, 100, now + STICKY), moved);
    }

    #[test]
    fn sources_are_bounded_and_forgotten() {
        let now = start();
        let mut senders = Senders::new(1_000_000_000, now);
        for n in 0..MAX_SOURCES as u16 {
            assert_eq!(senders.admit(source(n), MAC, 1, now), Ok(()));
        }
        let one_more = source(MAX_SOURCES as u16);
        let full = Err(DropReason::LanSourceLimit);
        assert_eq!(senders.admit(one_more, MAC, 1, now + SWEEP), full);
        assert_eq!(senders.admit(one_more, MAC, 1, now + MEMORY), Ok(()));
        assert_eq!(senders.snapshot(now + MEMORY).len(), 1);
    }

    #[test]
    fn a_flood_leaves_the_others_their_part() {
        let now = start();
        // 10 Mbit/s; one source offers 100, nine offer 0.5 each
        let mut senders = Senders::new(10_000_000, now);
        let mut passed = [0u64; 10];
        for step in 0..20_000u64 {
            let at = now + Duration::from_micros(100 * step);
            if senders.admit(source(0), MAC, 1_250, at).is_ok() {
                passed[0] += 1_250;
            }
            for n in 1..10u16 {
                let is_its_turn = (step + u64::from(n) * 20) % 200 == 0;
                if is_its_turn && senders.admit(source(n), MAC, 1_250, at).is_ok() {
                    passed[usize::from(n)] += 1_250;
                }
            }
        }
        // two seconds; the first round has no shares yet
        let all: u64 = passed.iter().sum();
        assert!(all <= 10_000_000 / 8 * 2 + 100_000, "{passed:?}");
        assert!(all >= 10_000_000 / 8 * 2 * 9 / 10, "{passed:?}");
        for n in 1..10 {
            assert!(passed[n] >= 100 * 1_250 * 9 / 10, "{passed:?}");
        }
    }

    #[test]
    fn a_rate_that_is_lowered_under_load_counts_from_then_on() {
        let now = start();
        let mut senders = Senders::new(1_000_000_000, now);
        let pass = |senders: &mut Senders, from: Duration, packets: u32| {
            let at = |n| now + from + Duration::from_micros(100) * n;
            let admitted = |n: &u32| senders.admit(source(1), MAC, 1_250, at(*n)).is_ok();
            (0..packets).filter(admitted).count()
        };
        assert_eq!(pass(&mut senders, Duration::ZERO, 400), 400);
        senders.set_rate(1_000_000);
        pass(&mut senders, ROUND, 10_000);
        // a second at 100 packets a second
        let passed = pass(&mut senders, Duration::from_secs(2), 10_000);
        assert!((80..=110).contains(&passed), "{passed}");
    }

    #[test]
    fn shares_are_max_min_fair() {
        assert_eq!(fair_share(90, vec![]), 90);
        assert_eq!(fair_share(90, vec![10, 20]), 90);
        assert_eq!(fair_share(90, vec![100, 10, 100]), 40);
        assert_eq!(fair_share(90, vec![100, 100, 100]), 30);
    }
}
