//! What a policy decides from, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use crate::graph::{Graph, Guess, direct_rtts};

/// A router for a link of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prospect {
    /// The router.
    pub origin: OriginId,
    /// The round trip of a link with it: a guess.
    pub rtt: Duration,
    /// Cost of the path, in units of 100 us.
    pub path: u32,
    /// Links that the router has.
    pub links: u16,
}

impl Prospect {
    /// All routers that `own` reaches. Stub routers are nobody's.
    pub fn all(graph: &Arc<Graph>, own: OriginId) -> Vec<Self> {
        let guesses = direct_rtts(graph, own).into_iter();
        guesses
            .filter(|guess| !graph.is_stub(guess.router))
            .map(|Guess { router, rtt, path }| Self {
                origin: router,
                rtt,
                path,
                // bounded by what an advertisement holds
                links: graph.neighbors(router).count() as u16,
            })
            .collect()
    }
}

/// What is known of another member. It is reachable in the link state, present on a carrier, or linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The link state reaches it.
    pub reachable: bool,
    /// A carrier of signalling says that it is online.
    pub present: bool,
    /// Trials to link with it directly fail.
    pub direct_fails: bool,
    /// The link with it has ended, and none with anybody has come up since.
    pub lost: bool,
    /// No paths lead through it, as the link state said last: others build on nothing there.
    pub stub: bool,
}

/// What a node asks of the other end of a link.
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
    /// Up since then.
    pub since: Instant,
}

/// What a policy decides from.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// This node.
    pub own: OriginId,
    /// All other members that are there.
    pub known: &'a BTreeMap<OriginId, Known>,
    /// Another number whenever others are known than before; `None`: who knows.
    pub members: Option<u64>,
    /// The links that are up.
    pub links: &'a BTreeMap<OriginId, LinkView>,
    /// Where a policy is looking for somebody: who is there.
    pub prospects: &'a [Prospect],
}

/// Those of whom a network is built: all who are no stub routers, where there are any.
pub(super) fn builders(known: &BTreeMap<OriginId, Known>) -> impl Iterator<Item = OriginId> + '_ {
    let all_stubs = known.values().all(|known| known.stub);
    let builds = move |(_, known): &(&OriginId, &Known)| all_stubs || !known.stub;
    known.iter().filter(builds).map(|(origin, _)| *origin)
}

/// How much a policy may build on a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is part of the network, and a link with it is there or likely.
    Good,
    /// It is online, but not part of the network: it is about to come, or has just died.
    Arriving,
    /// No direct link has come about so far, or all links are lost, that with it among them.
    Failing,
}

/// Members without a direct link that are tried on the way to a good one. Chosen.
const MAX_FAILING: usize = 2;
/// Members that are about to come that are tried on the way to a good one. Chosen.
const MAX_ARRIVING: usize = 2;
/// How far to look for a good one.
const MAX_WALK: usize = 256;

/// The first good member along a way is wanted. Those before it that may be there are tried as well: who waited for a
/// dead one that a carrier still shows would be cut off.
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
            // carriers still show who is dead or cut off: the way back into the network leads over others
            Known { lost: true, .. } if self.links.is_empty() => Standing::Failing,
            Known {
                reachable: true, ..
            } => Standing::Good,
            _ => Standing::Arriving,
        })
    }
}

/// Decides which links this node wants. The same views at the same times give the same links.
pub trait Policy: Debug + Send {
    /// Everybody with whom there should be a link, linked already or not.
    fn wanted(&mut self, view: &View<'_>, now: Instant) -> BTreeSet<OriginId>;

    /// Who of them is only tried.
    fn on_trial(&self) -> Option<OriginId> {
        None
    }

    /// Whether it wants to know by now how long round trips with others would be.
    fn is_looking(&self, _now: Instant) -> bool {
        false
    }

    /// When to ask again even if nothing changes.
    fn next_timeout(&self) -> Option<Instant>;
}
