//! RP elections (RFC 7761 §4.7): pure functions of the LSAs. All routers with the same LSAs agree.
//!
//! - A group range: candidates first, then by [`Tier`], then the lower centrality in steps of a
//!   quarter, then the lower hash of (range, origin). A stub router is not a candidate.
//! - An announced prefix: of its announcers a candidate first, then a router that is no stub, then
//!   the lower hash of (prefix, origin).
//!
//! A router becomes a candidate by its election, so rendezvous points stay when other routers come.

use std::net::Ipv6Addr;

use librecast::cert::GroupPrefix;
use librecast::id::{OriginId, derive};

use super::advertisement::UNKNOWN_CENTRALITY;

/// Ranges of groups by hash, each with a shared tree.
pub const GROUP_RANGES: u8 = 4;

/// The range of a group without an announced prefix.
pub(super) fn group_range(group: Ipv6Addr) -> u8 {
    derive("lcroute 2026 slot", &[&group.octets()])[0] >> 6
}

/// The order of routers as rendezvous points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// By flag and certificate.
    Core,
    Ordinary,
    /// No paths lead through it: only if no other router is left.
    Stub,
}

/// A router that takes part in elections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Eligible {
    pub origin: OriginId,
    /// Bit n: it is a candidate for range n.
    pub candidacies: u8,
    pub tier: Tier,
    pub centrality: u16,
}

impl Eligible {
    /// Whether it is better placed than the rendezvous point by enough to take over the range.
    pub fn may_challenge(&self, rp: &Self) -> bool {
        if self.tier != rp.tier {
            return self.tier < rp.tier;
        }
        self.centrality != UNKNOWN_CENTRALITY
            && u32::from(self.centrality) * 4 <= u32::from(rp.centrality) * 3
    }

    fn rank(&self) -> (Tier, u8) {
        (self.tier, centrality_step(self.centrality).0)
    }

    fn exact_rank(&self) -> (Tier, u16) {
        (self.tier, self.centrality)
    }
}

/// Logarithm to the base of 1.25 in integers, and the last centrality of this step.
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

/// The outcome for one group range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RpElection {
    /// The rendezvous point.
    pub elected: Option<OriginId>,
    /// The router that would be elected without candidates.
    pub preferred: Option<OriginId>,
}

/// A router's hash for each range: of routers with equal rank, the lowest is elected.
pub(super) type ElectionHashes = [[u8; 32]; GROUP_RANGES as usize];

pub(super) fn election_hashes(origin: OriginId) -> ElectionHashes {
    [0, 1, 2, 3].map(|range: u8| {
        let parts: [&[u8]; 2] = [&[range], &origin.0.to_be_bytes()];
        derive("lcroute 2026 slot root", &parts)
    })
}

/// Elects the rendezvous points of all ranges, of routers and their [`election_hashes`].
pub(super) fn elect_rps(
    routers: &[(Eligible, &ElectionHashes)],
) -> [RpElection; GROUP_RANGES as usize] {
    let best = routers.iter().map(|(r, _)| r.exact_rank()).min();
    let last = best.map(|(tier, centrality)| (tier, centrality_step(centrality).1));
    // routers of the best rank, and candidates
    let counts = |r: &Eligible| r.candidacies != 0 || Some(r.exact_rank()) <= last;
    let ranked = routers.iter().filter(|(r, _)| counts(r));
    let ranked: Vec<_> = ranked.map(|(r, hashes)| (r.rank(), r, hashes)).collect();
    [0, 1, 2, 3].map(|range: u8| {
        let key = |(rank, r, hashes): &((Tier, u8), &Eligible, &&ElectionHashes)| {
            (*rank, hashes[usize::from(range)], r.origin)
        };
        let lowest = |key: Option<((Tier, u8), [u8; 32], OriginId)>| key.map(|(.., origin)| origin);
        let preferred = lowest(ranked.iter().map(key).min());
        let is_candidate = |r: &Eligible| r.candidacies & 1 << range != 0;
        let candidates = ranked.iter().filter(|(_, r, _)| is_candidate(r));
        RpElection {
            elected: lowest(candidates.map(key).min()).or(preferred),
            preferred,
        }
    })
}

/// The order of announcers of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AnnouncerTier {
    Candidate,
    Ordinary,
    Stub,
}

/// Elects the root of a prefix among its announcers.
pub(super) fn elect_announcer(
    prefix: &GroupPrefix,
    announcers: &[(OriginId, AnnouncerTier)],
) -> Option<OriginId> {
    let hash = |origin: OriginId| {
        let origin = origin.0.to_be_bytes();
        let parts: [&[u8]; 3] = [&prefix.addr().octets(), &[prefix.prefix_len()], &origin];
        derive("lcroute 2026 prefix root", &parts)
    };
    match announcers {
        [(only, _)] => Some(*only),
        _ => announcers
            .iter()
            .min_by_key(|(origin, tier)| (*tier, hash(*origin), *origin))
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
            tier: if core { Tier::Core } else { Tier::Ordinary },
            centrality,
        }
    }

    fn stub(origin: u64) -> Eligible {
        Eligible {
            tier: Tier::Stub,
            ..candidate(origin, 0, false, 1)
        }
    }

    fn elect_range(range: u8, candidates: &[Eligible]) -> RpElection {
        let election_hashes: Vec<ElectionHashes> = candidates
            .iter()
            .map(|c| election_hashes(c.origin))
            .collect();
        let candidates: Vec<_> = candidates.iter().copied().zip(&election_hashes).collect();
        elect_rps(&candidates)[usize::from(range)]
    }

    fn elected(candidates: &[Eligible]) -> u64 {
        elect_range(2, candidates).elected.unwrap().0
    }

    #[test]
    fn candidacy_then_core_then_centrality_decide() {
        let far = candidate(1, 0, false, 900);
        let near = candidate(2, 0, false, 100);
        let core = candidate(3, 0, true, 500);
        let claimant = candidate(4, 0b0100, false, UNKNOWN_CENTRALITY);
        assert_eq!(elected(&[far, near]), 2);
        assert_eq!(elected(&[far, near, core]), 3);
        assert_eq!(elected(&[stub(5), far]), 1, "where there is another");
        assert_eq!(elected(&[stub(5)]), 5);
        let roots = elect_range(2, &[far, near, core, claimant]);
        assert_eq!(roots.elected, Some(OriginId(4)));
        assert_eq!(roots.preferred, Some(OriginId(3)));
        let elsewhere = candidate(4, 0b1011, false, 100);
        assert_eq!(
            elected(&[core, elsewhere]),
            3,
            "a candidate for other ranges"
        );
        assert_eq!(elect_range(0, &[]), RpElection::default());
    }

    #[test]
    fn small_differences_are_left_to_the_hash_which_spreads_rendezvous_points() {
        let candidates: Vec<_> = (0..40)
            .map(|n| candidate(n, 0, true, 1000 + 3 * n as u16))
            .collect();
        let roots: std::collections::BTreeSet<_> = (0..GROUP_RANGES)
            .map(|range| elect_range(range, &candidates).elected)
            .collect();
        assert_eq!(roots.len(), 4, "{roots:?}");
    }

    #[test]
    fn challengers_are_a_quarter_better() {
        let root = candidate(1, 4, false, 400);
        assert!(candidate(2, 0, false, 300).may_challenge(&root));
        assert!(!candidate(2, 0, false, 301).may_challenge(&root));
        assert!(candidate(2, 0, true, 900).may_challenge(&root), "core");
        assert!(root.may_challenge(&stub(3)) && !stub(3).may_challenge(&root));
        let core = candidate(1, 4, true, 400);
        assert!(!candidate(2, 0, false, 1).may_challenge(&core));
        let unknown = candidate(1, 4, true, UNKNOWN_CENTRALITY);
        assert!(candidate(2, 0, true, 400).may_challenge(&unknown));
        assert!(!candidate(2, 0, true, UNKNOWN_CENTRALITY).may_challenge(&unknown));
    }

    #[test]
    fn a_candidacy_keeps_a_prefix() {
        let prefix = "ff1e:1234::/32".parse().unwrap();
        let ordinary = AnnouncerTier::Ordinary;
        let both = [(OriginId(1), ordinary), (OriginId(2), ordinary)];
        let first = elect_announcer(&prefix, &both).unwrap();
        for one in [1, 2].map(OriginId) {
            let with = |tier| both.map(|(o, other)| (o, if o == one { tier } else { other }));
            let elected = |tier| elect_announcer(&prefix, &with(tier));
            assert_eq!(elected(AnnouncerTier::Candidate), Some(one));
            assert_ne!(elected(AnnouncerTier::Stub), Some(one));
        }
        let turned = [both[1], both[0]];
        assert_eq!(elect_announcer(&prefix, &turned), Some(first));
        assert_eq!(elect_announcer(&prefix, &[]), None);
    }

    #[test]
    fn group_ranges_are_used_alike() {
        let mut used = [0; GROUP_RANGES as usize];
        for n in 0..400u16 {
            used[usize::from(group_range(Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)))] += 1;
        }
        assert!(used.iter().all(|n| (60..140).contains(n)), "{used:?}");
    }

    #[test]
    fn ranges_of_groups_are_frozen() {
        // lcradio-core has the same test: it chooses groups of one shared tree
        for (group, range) in [
            ("ff1e::1", 0),
            ("ff1e::2", 2),
            ("ff1e::3", 3),
            ("ff1e::4", 0),
        ] {
            assert_eq!(group_range(group.parse().unwrap()), range, "{group}");
        }
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
            range in 0..GROUP_RANGES,
        ) {
            let mut candidates: Vec<_> = ranks
                .into_iter()
                .map(|(origin, (candidacies, core, centrality))| candidate(origin, candidacies, core, centrality))
                .collect();
            let one = elect_range(range, &candidates);
            candidates.reverse();
            prop_assert_eq!(one, elect_range(range, &candidates));
        }
    }
}
