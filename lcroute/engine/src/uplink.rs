//! Packets of leaves to asking groups: which of them a router sends, and how many.
//!
//! ```text
//!   leaf                         router                          members of the group
//!     | -- data packet -----------> | -- as of its own program -----> |
//! ```
//! The router puts its own address in the place of the leaf's. So other routers see a packet of a
//! member, and nobody learns a leaf's address.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::bucket::{Bucket, Rate};
use librecast::time::{Duration, Instant};

/// Packets of one leaf. Chosen: measured, a late reader of a lecture sends 24 in 25 s.
pub const OF_LEAF: Rate = Rate::per_second(2, 8);
/// Packets of all leaves to one group. Chosen: 40 routers send a presenter 640 a second at most.
const OF_GROUP: Rate = Rate::per_second(16, 16);
/// Packets of all leaves. Chosen: four groups at their full rate.
const OF_ROUTER: Rate = Rate::per_second(64, 64);
/// Groups at a time. Each makes routers exchange SourceActive. Chosen: those of eight lectures.
const GROUPS: usize = 64;
/// Time without a packet after which a group gives up its place, as its SourceActive ends.
const IDLE: Duration = Duration::from_secs(60);
/// Longest UDP payload in bytes: a packet of 1,280 bytes.
pub const MAX_DATA: usize = 1_232;

/// Rates of all leaves together.
#[derive(Debug, Default)]
pub struct Uplink {
    router: Option<Bucket>,
    /// Rate of each group, and its last packet.
    groups: BTreeMap<Ipv6Addr, (Bucket, Instant)>,
}

impl Uplink {
    /// Takes a packet's place in the rates. The second half of each rate is for leaves that have
    /// not sent for a while (`is_rested`): leaves that send all the time leave it to them.
    pub fn take(&mut self, group: Ipv6Addr, is_rested: bool, now: Instant) -> bool {
        let full = Bucket::full(now);
        let has_room = |bucket: &Bucket, rate: Rate| {
            let kept = if is_rested { 0 } else { rate.burst() / 2 };
            bucket.left(rate, now) > kept
        };
        let router = self.router.get_or_insert(full);
        if !self.groups.contains_key(&group) && self.groups.len() >= GROUPS {
            let is_used = |last: Instant| now.saturating_duration_since(last) < IDLE;
            self.groups.retain(|_, (_, last)| is_used(*last));
            if self.groups.len() >= GROUPS {
                return false;
            }
        }
        let known = self.groups.get(&group).copied();
        let (mut of_group, _) = known.unwrap_or((full, now));
        if !has_room(router, OF_ROUTER) || !has_room(&of_group, OF_GROUP) {
            return false;
        }
        router.spend(OF_ROUTER, 1, now);
        of_group.spend(OF_GROUP, 1, now);
        self.groups.insert(group, (of_group, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use librecast::time::Duration;

    use super::*;
    use crate::testing::start;

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0x7570, 0, 0, 0, 0, 0, n)
    }

    /// Returns the number of packets taken in 10 s of 1,000 a second.
    fn taken(groups: u16, is_rested: bool) -> u64 {
        let mut uplink = Uplink::default();
        let mut taken = 0;
        for n in 0..10_000_u16 {
            let now = start() + Duration::from_millis(n.into());
            taken += u64::from(uplink.take(group(n % groups), is_rested, now));
            assert!(uplink.groups.len() <= GROUPS);
        }
        taken
    }

    #[test]
    fn a_group_and_a_router_have_a_rate_however_many_ask() {
        let about = |expected: u64| expected - 1..=expected;
        assert!(about(16 + 160).contains(&taken(1, true)));
        assert!(about(64 + 640).contains(&taken(64, true)));
        assert!(about(8 + 160).contains(&taken(1, false)));
        // 64 groups in a minute
        assert_eq!(taken(10_000, true), 64);
    }

    #[test]
    fn who_has_not_asked_is_heard_beside_those_who_ask_all_the_time() {
        let mut uplink = Uplink::default();
        for n in 0..5_000 {
            let now = start() + Duration::from_millis(n);
            uplink.take(group(1), false, now);
            uplink.take(group(2), false, now);
            if n % 500 == 499 {
                assert!(uplink.take(group(1), true, now), "{n}");
            }
        }
    }
}
