//! The inputs and the answer of a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use crate::graph::{Graph, Guess, direct_rtts};

/// A candidate for a link of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prospect {
    /// The router.
    pub origin: OriginId,
    /// Guessed round trip of a link with it.
    pub rtt: Duration,
    /// Cost of the path, in units of 100 us.
    pub path: u32,
    /// Number of its links.
    pub links: u16,
}

impl Prospect {
    /// All routers that `own` reaches, except stub routers.
    pub fn all(graph: &Arc<Graph>, own: OriginId) -> Vec<Self> {
        let guesses = direct_rtts(graph, own).into_iter();
        guesses
            .filter(|guess| !graph.is_stub(guess.router))
            .map(|Guess { router, rtt, path }| Self {
                origin: router,
                rtt,
                path,
                // bounded by the length of an advertisement
                links: graph.neighbors(router).count() as u16,
            })
            .collect()
    }
}

/// State of another member: reachable in the link state, present on a carrier, or linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The link state reaches it.
    pub reachable: bool,
    /// A carrier of signalling reports it as online.
    pub present: bool,
    /// Attempts at a direct link with it fail.
    pub direct_fails: bool,
    /// The link with it has ended, and no link has come up since.
    pub lost: bool,
    /// No paths lead through it by its last advertisement, so other nodes do not rely on it.
    pub stub: bool,
}

/// A node's request to the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkRequest {
    /// This side does not need the link.
    Release,
    /// The link is on trial: no traffic yet, and it is not advertised.
    Trial,
    /// Keep the link.
    Keep,
}

/// A link that is up.
#[derive(Debug, Clone, Copy)]
pub struct LinkView {
    /// Round trip.
    pub rtt: Option<Duration>,
    /// Time at which it came up.
    pub since: Instant,
}

/// The inputs of a decision.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// This node.
    pub own: OriginId,
    /// All other members that are present.
    pub known: &'a BTreeMap<OriginId, Known>,
    /// Changes with the set of known members; `None`: unknown.
    pub members: Option<u64>,
    /// The links that are up.
    pub links: &'a BTreeMap<OriginId, LinkView>,
    /// Candidates, while the policy is looking for a link.
    pub prospects: &'a [Prospect],
}

/// Members on which the network is built: all except stub routers, if there are any.
pub(super) fn builders(known: &BTreeMap<OriginId, Known>) -> impl Iterator<Item = OriginId> + '_ {
    let all_stubs = known.values().all(|known| known.stub);
    let builds = move |(_, known): &(&OriginId, &Known)| all_stubs || !known.stub;
    known.iter().filter(builds).map(|(origin, _)| *origin)
}

/// How far a policy may rely on a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is part of the network, and a link with it is up or likely.
    Good,
    /// It is online, but not part of the network: it is about to join, or has just died.
    Arriving,
    /// No direct link has come up so far, or all links are lost, its own included.
    Failing,
}

/// Failing members that are tried before a good one. Chosen.
const MAX_FAILING: usize = 2;
/// Arriving members that are tried before a good one. Chosen.
const MAX_ARRIVING: usize = 2;
/// Members examined in search of a good one.
const MAX_WALK: usize = 256;

/// Wants the first good member of `way`. Also tries members before it that may be present: waiting
/// for a dead member that a carrier still shows would isolate this node.
pub(super) fn seek(
    view: &View<'_>,
    way: impl Iterator<Item = OriginId>,
    wanted: &mut BTreeSet<OriginId>,
) {
    let (mut arriving, mut failing) = (0, 0);
    for origin in way.take(MAX_WALK) {
        match view.standing(origin) {
            Some(Standing::Good) => {
                wanted.insert(origin);
                return;
            }
            Some(Standing::Arriving) if arriving < MAX_ARRIVING => {
                wanted.insert(origin);
                arriving += 1;
            }
            Some(Standing::Failing) if failing < MAX_FAILING => {
                wanted.insert(origin);
                failing += 1;
            }
            Some(Standing::Arriving | Standing::Failing) | None => {}
        }
    }
}

impl View<'_> {
    pub(super) fn standing(&self, origin: OriginId) -> Option<Standing> {
        if self.links.contains_key(&origin) {
            return Some(Standing::Good);
        }
        let known = self.known.get(&origin)?;
        Some(match known {
            Known {
                direct_fails: true, ..
            } => Standing::Failing,
            // carriers still show dead or isolated members: others lead back into the network
            Known { lost: true, .. } if self.links.is_empty() => Standing::Failing,
            Known {
                reachable: true, ..
            } => Standing::Good,
            _ => Standing::Arriving,
        })
    }
}

/// Decides on the links of this node. Equal views at equal times give equal links.
pub trait Policy: Debug + Send {
    /// The members with which links are wanted, linked already or not.
    fn wanted(&mut self, view: &View<'_>, now: Instant) -> BTreeSet<OriginId>;

    /// The wanted member that is only on trial.
    fn on_trial(&self) -> Option<OriginId> {
        None
    }

    /// Whether it needs [`View::prospects`] by now.
    fn is_looking(&self, _now: Instant) -> bool {
        false
    }

    /// The time of the next decision, even without a change.
    fn next_timeout(&self) -> Option<Instant>;
}
