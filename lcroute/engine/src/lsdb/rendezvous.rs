//! The rendezvous points of group ranges and announced prefixes, as the LSAs elect them.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::cert::GroupPrefix;
use librecast::id::OriginId;

use super::election::{
    AnnouncerTier, GROUP_RANGES, RpElection, Tier, elect_announcer, elect_rps, group_range,
};
use super::store::Store;

/// A group prefix that reachable routers announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedPrefix {
    /// The elected announcer.
    pub root: OriginId,
    /// All announcers, in ascending order.
    pub announcers: Vec<OriginId>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Elected {
    ranges: [RpElection; GROUP_RANGES as usize],
    prefixes: BTreeMap<GroupPrefix, AnnouncedPrefix>,
    /// Lengths of the prefixes, the longest first.
    lengths: Vec<u8>,
}

impl Elected {
    fn rps(&self) -> [Option<OriginId>; GROUP_RANGES as usize] {
        self.ranges.map(|range| range.elected)
    }
}

/// The outcome of all elections.
#[derive(Debug)]
pub(super) struct RendezvousPoints {
    elected: Elected,
    /// LSAs that matter in elections have changed.
    stale: bool,
    version: u64,
}

impl RendezvousPoints {
    pub fn new() -> Self {
        Self {
            elected: Elected::default(),
            stale: true,
            version: 0,
        }
    }

    /// Reachability or an advertisement has changed.
    pub fn invalidate(&mut self) {
        self.stale = true;
    }

    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Elects again if necessary. True: rendezvous points have changed.
    pub fn refresh(&mut self, store: &Store) -> bool {
        if !std::mem::take(&mut self.stale) {
            return false;
        }
        let mut eligible = Vec::with_capacity(store.routers.len());
        let mut announced: BTreeMap<GroupPrefix, Vec<(OriginId, AnnouncerTier)>> = BTreeMap::new();
        for (origin, router) in store.routers.iter() {
            let Some(of_router) = router.eligible(origin) else {
                continue;
            };
            eligible.push((of_router, router.credential.election_hashes()));
            for one in router.announced() {
                let announcers = announced.entry(one.prefix).or_default();
                let tier = match of_router.tier {
                    Tier::Stub => AnnouncerTier::Stub,
                    _ if one.candidate => AnnouncerTier::Candidate,
                    _ => AnnouncerTier::Ordinary,
                };
                announcers.push((origin, tier));
            }
        }
        let mut lengths: Vec<u8> = announced.keys().map(GroupPrefix::prefix_len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let root = |(prefix, announcers): (GroupPrefix, Vec<(OriginId, AnnouncerTier)>)| {
            let root = elect_announcer(&prefix, &announcers)?;
            let announcers = announcers.into_iter().map(|(origin, _)| origin).collect();
            Some((prefix, AnnouncedPrefix { root, announcers }))
        };
        let elected = Elected {
            ranges: elect_rps(&eligible),
            prefixes: announced.into_iter().filter_map(root).collect(),
            lengths,
        };
        let before = std::mem::replace(&mut self.elected, elected);
        let same = before.rps() == self.elected.rps() && before.prefixes == self.elected.prefixes;
        self.version += u64::from(!same);
        !same
    }

    /// Rises with every change of the rendezvous points or of the announcers of a prefix.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The elections of all group ranges.
    pub fn ranges(&self) -> &[RpElection; GROUP_RANGES as usize] {
        &self.elected.ranges
    }

    /// All announced prefixes in ascending order.
    pub fn prefixes(&self) -> &BTreeMap<GroupPrefix, AnnouncedPrefix> {
        &self.elected.prefixes
    }

    /// The rendezvous point of a group range, 0 to 3.
    pub fn rp(&self, range: u8) -> Option<OriginId> {
        self.elected.ranges.get(usize::from(range))?.elected
    }

    /// The longest announced prefix that the group lies in, and the root of its tree.
    pub fn owner(&self, group: Ipv6Addr) -> Option<(GroupPrefix, OriginId)> {
        self.elected.lengths.iter().find_map(|&length| {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            let first = Ipv6Addr::from_bits(group.to_bits() & mask);
            let prefix = GroupPrefix::new(first, length).ok()?;
            let announced = self.elected.prefixes.get(&prefix)?;
            Some((prefix, announced.root))
        })
    }

    /// The root of the shared tree of an any-source group, by announced prefix, else by range.
    pub fn rp_of(&self, group: Ipv6Addr) -> Option<OriginId> {
        match self.owner(group) {
            Some((_, root)) => Some(root),
            None => self.rp(group_range(group)),
        }
    }
}
