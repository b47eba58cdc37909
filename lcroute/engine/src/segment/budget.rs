//! Fair shares of questions: by asking host of this LAN, and by other LAN.
//!
//! A search or a check is paid for as a whole before its first question: none ends unasked. The
//! share of one is no other's, so an asker that exhausts its share slows itself down alone.

use std::collections::{BTreeMap, BTreeSet};

use librecast::bucket::{Bucket, Rate};
use librecast::ethernet::MacAddress;
use librecast::id::LanId;
use librecast::time::{Duration, Instant};

/// Searches of all hosts here. Chosen: two scans of a /24 pass at once.
const HOSTS_RATE: Rate = Rate::per_second(30, 600);
/// Searches of one host here. Chosen: a scan of a /24 passes at once, and a third of
/// [`HOSTS_RATE`] later.
const HOST_RATE: Rate = Rate::per_second(10, 256);
/// Most hosts with a share that is not full. Chosen: above the burst of [`HOSTS_RATE`].
const MAX_HOSTS: usize = 1_024;
/// Time for which a host beyond its share is named, in which most scans end or repeat. Chosen.
const NAMED_TIME: Duration = Duration::from_secs(60);

/// The purpose of another LAN's questions: each has shares of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// It looks for an address.
    Search,
    /// It claims an address of this LAN.
    Dispute,
}

/// Questions for all other LANs together, a second and at once. Each LAN has an equal part, for each
/// purpose. Chosen: all searches of another LAN's hosts pass, if there are few LANs.
const LANS_RATE: (u64, u64) = (100, 600);

/// All shares.
#[derive(Debug)]
pub struct Budget {
    all_hosts: Bucket,
    hosts: BTreeMap<MacAddress, Bucket>,
    /// The host here that went beyond its share last, and the end of the time of its naming.
    scanner: Option<(MacAddress, Instant)>,
    lans: BTreeMap<(LanId, Purpose), Bucket>,
    /// The rate of each other LAN.
    lan_rate: Rate,
}

impl Budget {
    /// Full shares.
    pub fn new(now: Instant) -> Self {
        Self {
            all_hosts: Bucket::full(now),
            hosts: BTreeMap::new(),
            scanner: None,
            lans: BTreeMap::new(),
            lan_rate: Rate::per_second(LANS_RATE.0, LANS_RATE.1),
        }
    }

    /// Sets the other LANs.
    pub fn set_lans(&mut self, lans: &BTreeSet<LanId>) {
        self.lans.retain(|(lan, _), _| lans.contains(lan));
        // at most 64
        let each = (lans.len() as u64).max(1);
        self.lan_rate = Rate::per_second(LANS_RATE.0 / each, LANS_RATE.1 / each);
    }

    /// Returns whether a host here may search once more.
    pub fn host(&mut self, mac: MacAddress, now: Instant) -> bool {
        if self.hosts.len() >= MAX_HOSTS {
            let full = HOST_RATE.burst();
            self.hosts
                .retain(|_, bucket| bucket.left(HOST_RATE, now) < full);
        }
        let has_room = self.hosts.len() < MAX_HOSTS || self.hosts.contains_key(&mac);
        if !has_room {
            return false;
        }
        let bucket = self.hosts.entry(mac).or_insert_with(|| Bucket::full(now));
        if !bucket.take(HOST_RATE, 1, now) {
            self.scanner = Some((mac, now + NAMED_TIME));
            return false;
        }
        self.all_hosts.take(HOSTS_RATE, 1, now)
    }

    /// Returns whether another LAN may cause this many questions.
    pub fn lan(&mut self, lan: LanId, purpose: Purpose, questions: u64, now: Instant) -> bool {
        let bucket = self.lans.entry((lan, purpose));
        let bucket = bucket.or_insert_with(|| Bucket::full(now));
        bucket.take(self.lan_rate, questions, now)
    }

    /// Returns the host here that went beyond its share last.
    pub fn scanner(&self) -> Option<MacAddress> {
        self.scanner.map(|(mac, _)| mac)
    }

    /// Returns the end of the time in which that host is named.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.scanner.map(|(_, until)| until)
    }

    /// Handles the expired timer.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.scanner.take_if(|(_, until)| *until <= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn mac(n: u16) -> MacAddress {
        let [high, low] = n.to_be_bytes();
        MacAddress([2, 0, 0, 0, high, low])
    }

    #[test]
    fn a_host_beyond_its_share_is_named_and_slows_down_no_other() {
        let mut budget = Budget::new(start());
        let passed = (0..1_000).filter(|_| budget.host(mac(1), start())).count();
        assert_eq!(passed as u64, HOST_RATE.burst());
        assert_eq!(budget.scanner(), Some(mac(1)));
        for n in 2..300 {
            assert!(budget.host(mac(n), start()), "{n}");
        }
        let until = budget.next_timeout().unwrap();
        budget.handle_timeout(until);
        assert_eq!((budget.scanner(), budget.next_timeout()), (None, None));
    }

    #[test]
    fn many_hosts_take_a_bounded_table() {
        let mut budget = Budget::new(start());
        for n in 0..u16::MAX {
            budget.host(mac(n), start());
        }
        assert!(budget.hosts.len() <= MAX_HOSTS);
        assert!(budget.host(mac(7), start() + Duration::from_secs(60)));
    }

    #[test]
    fn shares_of_lans_and_purposes_are_apart_and_equal() {
        let mut budget = Budget::new(start());
        let lans = [1, 2, 3].map(LanId);
        budget.set_lans(&lans.into());
        let passed = |budget: &mut Budget, lan, purpose| {
            let asked = (0..1_000).filter(|_| budget.lan(lan, purpose, 1, start()));
            asked.count() as u64
        };
        for lan in lans {
            for purpose in [Purpose::Search, Purpose::Dispute] {
                assert_eq!(passed(&mut budget, lan, purpose), LANS_RATE.1 / 3);
            }
        }
    }
}
