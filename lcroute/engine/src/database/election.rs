//! Which router is the root of what: pure functions of the link state, so that all who have the same
//! agree without a word.
//!
//! - A slot: a router that candidacies it goes before one that does not, then `core` before not, then the
//!   lower centrality in steps of a quarter, then the lower hash of (slot, origin).
//! - An announced prefix: of those who announce it the one that candidacies it, then the lower hash of
//!   (prefix, origin).

use std::net::Ipv6Addr;

use librecast::cert::GroupPrefix;
use librecast::id::{OriginId, derive};

use super::advertisement::UNKNOWN_CENTRALITY;

/// Shared trees.
pub const GROUP_RANGES: u8 = 4;

/// The slot of a group that nobody announces.
pub(crate) fn group_range(group: Ipv6Addr) -> u8 {
    derive("lcroute 2026 slot", &[&group.octets()])[0] >> 6
}

/// What counts of a router that may be a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Eligible {
    pub origin: OriginId,
    /// Bit s: it candidacies slot s.
    pub candidacies: u8,
    /// By its flag and its certificate.
    pub core: bool,
    pub centrality: u16,
}

impl Eligible {
    /// Whether it is so much better measured than `root` that it may take the slot from it.
    pub fn may_challenge(&self, root: &Self) -> bool {
        if self.core != root.core {
            return self.core;
        }
        self.centrality != UNKNOWN_CENTRALITY
            && u32::from(self.centrality) * 4 <= u32::from(root.centrality) * 3
    }

    fn rank(&self) -> (bool, u8) {
        (!self.core, centrality_step(self.centrality).0)
    }

    /// The lower, the better measured: within a step of centrality all are alike.
    fn place(&self) -> (bool, u16) {
        (!self.core, self.centrality)
    }
}

/// Logarithm to the base of 1.25, in integers: a router is not better measured for a little. With the last centrality
/// that has the same one.
fn centrality_step(centrality: u16) -> (u8, u16) {
    if centrality == UNKNOWN_CENTRALITY {
        return (u8::MAX, UNKNOWN_CENTRALITY);
    }
    let (mut step, mut limit) = (0, 4u32);
    while u32::from(centrality) > limit {
        limit += limit / 4;
        step += 1;
    }
    (step, limit.min(u32::from(UNKNOWN_CENTRALITY) - 1) as u16)
}

/// The outcome for one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RpElection {
    /// The root.
    pub elected: Option<OriginId>,
    /// Who it would be if nobody candidate anything.
    pub best: Option<OriginId>,
}

/// A router's lot in each slot: of routers that are measured alike, the lowest is the root.
pub(crate) type ElectionHashes = [[u8; 32]; GROUP_RANGES as usize];

/// The election_hashes of a router.
pub(crate) fn election_hashes(origin: OriginId) -> ElectionHashes {
    [0, 1, 2, 3].map(|slot: u8| {
        let parts: [&[u8]; 2] = [&[slot], &origin.0.to_be_bytes()];
        derive("lcroute 2026 slot root", &parts)
    })
}

/// Elects the roots of all slots, of candidates and what [`election_hashes`] computes for each.
pub(crate) fn elect_rps(
    candidates: &[(Eligible, &ElectionHashes)],
) -> [RpElection; GROUP_RANGES as usize] {
    let best = candidates.iter().map(|(c, _)| c.place()).min();
    let last = best.map(|(not_core, centrality)| (not_core, centrality_step(centrality).1));
    // who is measured best without a claim, and who candidacies something
    let counts = |c: &Eligible| c.candidacies != 0 || Some(c.place()) <= last;
    let ranked = candidates.iter().filter(|(c, _)| counts(c));
    let ranked: Vec<_> = ranked
        .map(|(c, election_hashes)| (c.rank(), c, election_hashes))
        .collect();
    [0, 1, 2, 3].map(|slot: u8| {
        let key = |(rank, c, election_hashes): &((bool, u8), &Eligible, &&ElectionHashes)| {
            (*rank, election_hashes[usize::from(slot)], c.origin)
        };
        let candidacies = |c: &Eligible| c.candidacies & 1 << slot != 0;
        let lowest = |key: Option<((bool, u8), [u8; 32], OriginId)>| key.map(|(.., origin)| origin);
        let best = lowest(ranked.iter().map(key).min());
        let claimants = ranked.iter().filter(|(_, c, _)| candidacies(c));
        RpElection {
            elected: lowest(claimants.map(key).min()).or(best),
            best,
        }
    })
}

/// Elects the root of a prefix among those who announce it, and try_originate whether they claim it.
pub(crate) fn elect_announcer(
    prefix: &GroupPrefix,
    announcers: &[(OriginId, bool)],
) -> Option<OriginId> {
    let hash = |origin: OriginId| {
        derive(
            "lcroute 2026 prefix root",
            &[
                &prefix.addr().octets(),
                &[prefix.prefix_len()],
                &origin.0.to_be_bytes(),
            ],
        )
    };
    match announcers {
        [(only, _)] => Some(*only),
        _ => announcers
            .iter()
            .min_by_key(|(origin, candidate)| (!candidate, hash(*origin), *origin))
            .map(|(origin, _)| *origin),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(origin: u64, candidacies: u8, core: bool, centrality: u16) -> Eligible {
        Eligible {
            origin: OriginId(origin),
            candidacies,
            core,
            centrality,
        }
    }

    fn elect_slot(slot: u8, candidates: &[Eligible]) -> RpElection {
        let election_hashes: Vec<ElectionHashes> = candidates
            .iter()
            .map(|c| election_hashes(c.origin))
            .collect();
        let candidates: Vec<_> = candidates.iter().copied().zip(&election_hashes).collect();
        elect_rps(&candidates)[usize::from(slot)]
    }

    fn elected(candidates: &[Eligible]) -> u64 {
        elect_slot(2, candidates).elected.unwrap().0
    }

    #[test]
    fn claim_then_core_then_place_decide() {
        let far = candidate(1, 0, false, 900);
        let near = candidate(2, 0, false, 100);
        let core = candidate(3, 0, true, 500);
        let claimant = candidate(4, 0b0100, false, UNKNOWN_CENTRALITY);
        assert_eq!(elected(&[far, near]), 2);
        assert_eq!(elected(&[far, near, core]), 3);
        let roots = elect_slot(2, &[far, near, core, claimant]);
        assert_eq!(roots.elected, Some(OriginId(4)));
        assert_eq!(roots.best, Some(OriginId(3)));
        let elsewhere = candidate(4, 0b1011, false, 100);
        assert_eq!(elected(&[core, elsewhere]), 3, "candidacies other slots");
        assert_eq!(elect_slot(0, &[]), RpElection::default());
    }

    #[test]
    fn small_differences_are_left_to_the_hash_which_spreads_slots() {
        let candidates: Vec<_> = (0..40)
            .map(|n| candidate(n, 0, true, 1000 + 3 * n as u16))
            .collect();
        let roots: std::collections::BTreeSet<_> = (0..GROUP_RANGES)
            .map(|slot| elect_slot(slot, &candidates).elected)
            .collect();
        assert_eq!(roots.len(), 4, "{roots:?}");
    }

    #[test]
    fn challengers_are_a_quarter_better() {
        let root = candidate(1, 4, false, 400);
        assert!(candidate(2, 0, false, 300).may_challenge(&root));
        assert!(!candidate(2, 0, false, 301).may_challenge(&root));
        assert!(candidate(2, 0, true, 900).may_challenge(&root), "core");
        let core = candidate(1, 4, true, 400);
        assert!(!candidate(2, 0, false, 1).may_challenge(&core));
        let unknown = candidate(1, 4, true, UNKNOWN_CENTRALITY);
        assert!(candidate(2, 0, true, 400).may_challenge(&unknown));
        assert!(!candidate(2, 0, true, UNKNOWN_CENTRALITY).may_challenge(&unknown));
    }

    #[test]
    fn a_claim_keeps_a_prefix() {
        let prefix = "ff1e:1234::/32".parse().unwrap();
        let both = [(OriginId(1), false), (OriginId(2), false)];
        let first = elect_announcer(&prefix, &both).unwrap();
        for claimant in [1, 2] {
            let candidate = both.map(|(origin, _)| (origin, origin.0 == claimant));
            assert_eq!(
                elect_announcer(&prefix, &candidate),
                Some(OriginId(claimant))
            );
        }
        let turned = [both[1], both[0]];
        assert_eq!(elect_announcer(&prefix, &turned), Some(first));
        assert_eq!(elect_announcer(&prefix, &[]), None);
    }

    #[test]
    fn slots_are_used_alike() {
        let mut used = [0; GROUP_RANGES as usize];
        for n in 0..400u16 {
            used[usize::from(group_range(Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)))] += 1;
        }
        assert!(used.iter().all(|n| (60..140).contains(n)), "{used:?}");
    }

    proptest! {
        #[test]
        fn a_quarter_better_is_another_step(root in 8u16..60_000) {
            let better = (u32::from(root) * 3 / 4) as u16;
            prop_assert!(centrality_step(better).0 < centrality_step(root).0);
        }

        #[test]
        fn a_step_ends_where_it_says(centrality in 0..UNKNOWN_CENTRALITY, other: u16) {
            let (step, last) = centrality_step(centrality);
            prop_assert!(centrality <= last);
            for other in [other, last, last + 1] {
                let is_same = centrality_step(other).0 == step;
                prop_assert_eq!(is_same && other >= centrality, (centrality..=last).contains(&other));
            }
        }

        #[test]
        fn order_does_not_matter(
            ranks in prop::collection::btree_map(any::<u64>(), (0u8..16, any::<bool>(), 90u16..150), 1..20),
            slot in 0..GROUP_RANGES,
        ) {
            let mut candidates: Vec<_> = ranks
                .into_iter()
                .map(|(origin, (candidacies, core, centrality))| candidate(origin, candidacies, core, centrality))
                .collect();
            let one = elect_slot(slot, &candidates);
            candidates.reverse();
            prop_assert_eq!(one, elect_slot(slot, &candidates));
        }
    }
}
