//! What all peers share, handed to each when something happens to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use librecast::drops::Drops;
use librecast::events::{LogLimit, PEER_DOWN, PEER_REFUSED, PEER_UP, TARGET};
use librecast::id::{LinkId, PeerId};
use librecast::time::{Duration, Instant, WallClock};
use tracing::{debug, info, warn};

use crate::config::Limits;
use crate::connections::Connections;
use crate::disclosure::Disclosure;
use crate::drops::DropReason;
use crate::envelope::Refusal;
use crate::event::{EndReason, Event};
use crate::places::Places;
use crate::presence::Reachable;
use crate::random::Random;
use crate::record::RendezvousEpochs;
use crate::revocations::Revocations;
use crate::session::Session;
use crate::straight::Straight;
use crate::suspension::Suspensions;

/// One refusal is logged in this time: a refused peer can try again as often as it likes.
const QUIET: Duration = Duration::from_secs(10);

/// The parts of an overlay, peers apart.
#[derive(Debug)]
pub(crate) struct Parts<C> {
    pub(crate) own: PeerId,
    pub(crate) limits: Limits,
    pub(crate) clock: WallClock,
    pub(crate) now: Instant,
    pub(crate) random: Random,
    pub(crate) connections: C,
    pub(crate) session: Session,
    pub(crate) reachable: Reachable,
    /// Those to which a link is to be made.
    pub(crate) wanted: BTreeSet<PeerId>,
    /// Those of which [`Event::DirectFailure`] said that attempts fail.
    pub(crate) failing: BTreeSet<PeerId>,
    pub(crate) revocations: Revocations,
    pub(crate) suspensions: Suspensions,
    /// To whom each connection leads, authenticated or not.
    pub(crate) links: BTreeMap<LinkId, PeerId>,
    /// How many of them are authenticated.
    pub(crate) links_up: usize,
    pub(crate) disclosure: Disclosure,
    pub(crate) places: Places,
    pub(crate) straight: Straight,
    pub(crate) rendezvous: RendezvousEpochs,
    pub(crate) next_link: u32,
    pub(crate) events: VecDeque<Event>,
    pub(crate) drops: Drops<DropReason>,
    pub(crate) journal: Journal,
    /// Another host with our key keeps its links: this one makes none before.
    pub(crate) stands_back_until: Option<Instant>,
    pub(crate) stopped: bool,
}

impl<C: Connections> Parts<C> {
    /// A number for a connection to `peer`.
    pub(crate) fn new_link(&mut self, peer: PeerId) -> LinkId {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        self.links.insert(link, peer);
        link
    }

    /// Whether another host with our key has the network's links, and this one makes none.
    pub(crate) fn stands_back(&self) -> bool {
        self.stands_back_until.is_some_and(|until| self.now < until)
    }

    pub(crate) fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// The pause after so many failures.
    pub(crate) fn pause(&mut self, failures: u32) -> Duration {
        let (first, longest) = self.limits.backoff;
        self.random.pause(failures, first, longest)
    }

    /// Makes room in the set of those that were told to fail.
    pub(crate) fn forget_failing(&mut self) {
        if self.failing.len() < self.limits.peers {
            return;
        }
        let others = self.failing.iter().find(|id| !self.wanted.contains(id));
        if let Some(peer) = others.or(self.failing.first()).copied() {
            self.set_failing(peer, false);
        }
    }

    /// Attempts to link to a peer fail, or do no longer.
    pub(crate) fn set_failing(&mut self, peer: PeerId, failing: bool) {
        let changed = if failing {
            self.failing.insert(peer)
        } else {
            self.failing.remove(&peer)
        };
        if changed {
            self.events
                .push_back(Event::DirectFailure { peer, failing });
        }
    }

    /// Counts a refusal, and logs one now and then.
    pub(crate) fn note_refusal(&mut self, refusal: Refusal, peer: Option<PeerId>) {
        self.count(refusal.counter());
        self.journal.refusal(refusal, peer, self.now);
    }

    /// A peer is refused for another reason than before.
    pub(crate) fn tell_refused(&mut self, peer: PeerId, reason: &'static str) {
        self.journal.refused(&peer, reason, self.now);
        let peer = Some(peer);
        self.events.push_back(Event::PeerRefused { peer, reason });
    }
}

/// Lines of the log that others can cause, within bounds.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    links: LogLimit,
    panics: LogLimit,
    conflicts: LogLimit,
    warned_at: Option<Instant>,
}

impl Journal {
    fn refusal(&mut self, refusal: Refusal, peer: Option<PeerId>, now: Instant) {
        let reason = refusal.reason();
        let quiet = self.warned_at.is_some_and(|at| now < at + QUIET);
        // one that came late is no attack, and one for an earlier run is what a restart looks like
        let quiet = quiet || matches!(refusal, Refusal::Replayed | Refusal::Session);
        match peer {
            Some(id) if !quiet => warn!(peer = %id, reason, "signalling refused"),
            None if !quiet => warn!(reason, "signalling refused"),
            _ => debug!(?peer, reason, "signalling refused"),
        }
        if !quiet {
            self.warned_at = Some(now);
        }
    }

    fn refused(&mut self, id: &PeerId, reason: &'static str, now: Instant) {
        if self.links.admit(now).is_some() {
            info!(
                target: TARGET, message_id = PEER_REFUSED.id, lcroute_peer = %id, lcroute_reason = reason,
                "no link with {id}: {reason}"
            );
        }
    }

    pub(crate) fn link_up(&mut self, id: &PeerId, name: &str, now: Instant) {
        match self.links.admit(now) {
            Some(left_out) => info!(
                target: TARGET, message_id = PEER_UP.id, lcroute_peer = %id, lcroute_peer_name = name,
                "link up: {name} ({id}){}", untold(left_out)
            ),
            None => debug!(peer = %id, name, "link up"),
        }
    }

    pub(crate) fn link_down(&mut self, id: &PeerId, name: &str, reason: EndReason, now: Instant) {
        let reason = reason.text();
        match self.links.admit(now) {
            Some(left_out) => info!(
                target: TARGET, message_id = PEER_DOWN.id, lcroute_peer = %id, lcroute_peer_name = name,
                lcroute_reason = reason, "link down: {name} ({id}): {reason}{}", untold(left_out)
            ),
            None => debug!(peer = %id, reason, "link down"),
        }
    }

    /// Two hosts run with the key of a peer.
    pub(crate) fn key_conflict(
        &mut self,
        id: &PeerId,
        name: &str,
        [linked, other]: [&[SocketAddr]; 2],
        now: Instant,
    ) {
        match self.conflicts.admit(now) {
            Some(left_out) => warn!(
                peer = %id, name,
                "two hosts have the key of {name}: {}, which has the link, and {}; one of them needs a new key{}",
                list(linked), list(other), untold(left_out)
            ),
            None => debug!(peer = %id, name, "two hosts have one key"),
        }
    }

    /// The stack panicked; `proven`: over what the peer has sent.
    pub(crate) fn panic(
        &mut self,
        id: &PeerId,
        name: &str,
        (panic, proven): (&str, bool),
        now: Instant,
    ) {
        match self.panics.admit(now) {
            Some(left_out) => warn!(
                peer = %id, name, refused = proven,
                "the WebRTC stack panicked, and the link has ended: {panic}{}", untold(left_out)
            ),
            None => debug!(peer = %id, panic, "the WebRTC stack panicked"),
        }
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    match all.is_empty() {
        true => "no address".to_owned(),
        false => all.join(" "),
    }
}

/// How many lines were left out before this one, for its end.
fn untold(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        n => format!(" ({n} such lines left out before)"),
    }
}
