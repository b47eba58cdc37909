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
use librecast::id::LinkId;
use librecast::time::{Duration, Instant};

use crate::shares::Shares;

/// Packets of one leaf. Chosen: measured, a late reader of a lecture sends 24 in 25 s.
pub const OF_LEAF: Rate = Rate::per_second(2, 8);
/// Packets of all leaves to one group. Chosen: 40 routers send a presenter 640 a second at most.
const OF_GROUP: Rate = Rate::per_second(16, 16);
/// Packets of all leaves. Chosen: four groups at their full rate.
const OF_ROUTER: Rate = Rate::per_second(64, 64);
/// Groups at a time. Each makes routers exchange SourceActive. Chosen: groups of eight lectures.
const GROUPS: usize = 64;
/// Time without a packet after which a group gives up its place, as its SourceActive ends.
const IDLE: Duration = Duration::from_secs(60);
/// Longest UDP payload in bytes: a packet of 1,280 bytes.
pub const MAX_DATA: usize = 1_232;

/// A group to which leaves have sent.
#[derive(Debug, Clone, Copy)]
struct Asked {
    bucket: Bucket,
    last: Instant,
    /// The leaf that pays for the place; none: it is gone.
    payer: Option<LinkId>,
}

/// Rates of all leaves together.
#[derive(Debug, Default)]
pub struct Uplink {
    router: Option<Bucket>,
    groups: BTreeMap<Ipv6Addr, Asked>,
    /// Places of groups, by payer.
    shares: Shares<Option<LinkId>, Ipv6Addr>,
}

impl Uplink {
    /// Takes a packet's place in the rates. The second half of each rate is for leaves that have
    /// not sent for a while (`is_rested`): leaves that send all the time leave it to them.
    pub fn take(&mut self, link: LinkId, group: Ipv6Addr, is_rested: bool, now: Instant) -> bool {
        let full = Bucket::full(now);
        let has_room = |bucket: &Bucket, rate: Rate| {
            let kept = if is_rested { 0 } else { rate.burst() / 2 };
            bucket.left(rate, now) > kept
        };
        let known = self.groups.get(&group).copied();
        let mut router = self.router.unwrap_or(full);
        let mut bucket = known.map_or(full, |known| known.bucket);
        if !has_room(&router, OF_ROUTER) || !has_room(&bucket, OF_GROUP) {
            return false;
        }
        if known.is_none() && !self.make_room(link, now) {
            return false;
        }
        router.spend(OF_ROUTER, 1, now);
        bucket.spend(OF_GROUP, 1, now);
        self.router = Some(router);
        // a leaf that still asks there pays in the place of one that is gone
        let payer = known.and_then(|known| known.payer).or(Some(link));
        self.shares.remove(None, group);
        self.shares.insert(payer, group);
        let last = now;
        self.groups.insert(
            group,
            Asked {
                bucket,
                last,
                payer,
            },
        );
        debug_assert!(self.groups.len() <= GROUPS, "groups have a bound");
        debug_assert_eq!(
            self.shares.len(),
            self.groups.len(),
            "each group has one payer"
        );
        true
    }

    /// Makes room for a group of this leaf. Leaves choose the groups: places of leaves that are gone
    /// give way first, then those of the largest share, if it is larger than this leaf's.
    fn make_room(&mut self, link: LinkId, now: Instant) -> bool {
        if self.groups.len() < GROUPS {
            return true;
        }
        let shares = &mut self.shares;
        self.groups.retain(|group, asked| {
            let is_used = now.saturating_duration_since(asked.last) < IDLE;
            if !is_used {
                shares.remove(asked.payer, *group);
            }
            is_used
        });
        if self.groups.len() < GROUPS {
            return true;
        }
        let Some(group) = self.victim(link) else {
            return false;
        };
        if let Some(asked) = self.groups.remove(&group) {
            self.shares.remove(asked.payer, group);
        }
        true
    }

    /// Returns the group that gives way to one of this leaf.
    fn victim(&self, link: LinkId) -> Option<Ipv6Addr> {
        let fair = self.shares.of(Some(link)) + 1;
        let payer = match self.shares.of(None) {
            0 => self.shares.largest().filter(|(_, size)| *size > fair)?.0,
            _ => None,
        };
        // one in which others ask, too, stays longest
        let of_payer = self.groups.iter();
        let of_payer = of_payer.filter(|(_, asked)| asked.payer == payer);
        let (group, _) = of_payer.min_by_key(|(_, asked)| asked.last)?;
        Some(*group)
    }

    pub fn link_down(&mut self, link: LinkId) {
        while let Some(group) = self.shares.last(Some(link)) {
            self.shares.remove(Some(link), group);
            self.shares.insert(None, group);
            if let Some(asked) = self.groups.get_mut(&group) {
                asked.payer = None;
            }
        }
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
        let (mut uplink, begun) = (Uplink::default(), start());
        let mut taken = 0;
        for n in 0..10_000_u16 {
            let now = begun + Duration::from_millis(n.into());
            taken += u64::from(uplink.take(LinkId(1), group(n % groups), is_rested, now));
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
        let (mut uplink, begun) = (Uplink::default(), start());
        for n in 0..5_000 {
            let now = begun + Duration::from_millis(n);
            uplink.take(LinkId(1), group(1), false, now);
            uplink.take(LinkId(1), group(2), false, now);
            if n % 500 == 499 {
                assert!(uplink.take(LinkId(2), group(1), true, now), "{n}");
            }
        }
    }

    /// Has a leaf ask in groups from `first` on, two a second; returns the number taken.
    fn ask(
        uplink: &mut Uplink,
        link: u32,
        groups: std::ops::Range<u16>,
        now: &mut Instant,
    ) -> usize {
        let asked = groups.filter(|n| {
            *now += Duration::from_millis(500);
            uplink.take(LinkId(link), group(*n), false, *now)
        });
        asked.count()
    }

    #[test]
    fn a_leaf_that_fills_all_places_gives_way_to_others() {
        let (mut uplink, mut now) = (Uplink::default(), start());
        assert_eq!(ask(&mut uplink, 1, 0..GROUPS as u16, &mut now), GROUPS);
        assert_eq!(ask(&mut uplink, 1, 100..110, &mut now), 0);
        assert_eq!(ask(&mut uplink, 2, 200..202, &mut now), 2);
        assert_eq!(uplink.groups.len(), GROUPS);
        assert_eq!(uplink.shares.len(), GROUPS);
        // places that others share equally stay
        assert_eq!(uplink.shares.of(Some(LinkId(2))), 2);
        assert_eq!(ask(&mut uplink, 1, 100..110, &mut now), 0);
    }

    #[test]
    fn places_of_leaves_that_are_gone_are_taken_first() {
        let (mut uplink, mut now) = (Uplink::default(), start());
        for link in 0..GROUPS as u32 {
            let n = link as u16;
            assert_eq!(ask(&mut uplink, link, n..n + 1, &mut now), 1);
        }
        assert_eq!(ask(&mut uplink, 100, 100..101, &mut now), 0);
        uplink.link_down(LinkId(7));
        assert_eq!(ask(&mut uplink, 100, 100..101, &mut now), 1);
        assert!(!uplink.groups.contains_key(&group(7)));
        assert_eq!(uplink.shares.of(None), 0);
        // a leaf that asks there keeps the place of one that is gone
        uplink.link_down(LinkId(8));
        assert_eq!(ask(&mut uplink, 9, 8..9, &mut now), 1);
        assert_eq!(ask(&mut uplink, 101, 101..102, &mut now), 1);
        assert!(uplink.groups.contains_key(&group(8)));
    }
}
