//! What goes out of the overlay beside messages: events, counts of drops, and lines of the log.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use librecast::cert::Member;
use librecast::drops::Drops;
use librecast::events::{LogLimit, PEER_DOWN, PEER_REFUSED, PEER_UP, TARGET};
use librecast::id::{LinkId, PeerId};
use librecast::time::{Duration, Instant};
use tracing::{debug, info, warn};

use crate::drops::DropReason;
use crate::envelope::Refusal;
use crate::event::{EndReason, Event};

/// One refusal is logged in this time: a refused peer can try again as often as it likes.
const QUIET: Duration = Duration::from_secs(10);

/// Events that wait, drops so far, and the log.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    events: VecDeque<Event>,
    drops: Drops<DropReason>,
    journal: Journal,
}

impl Outputs {
    /// The next event.
    pub(crate) fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// One more event.
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Something was dropped.
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// So much was dropped.
    pub(crate) fn count_many(&mut self, reason: DropReason, count: u64) {
        self.drops.add(reason, count);
    }

    /// What was dropped so far, by reason.
    pub(crate) fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.drops.by_name()
    }

    /// A link is up.
    pub(crate) fn link_up(&mut self, link: LinkId, member: Member, now: Instant) {
        self.journal.link_up(&member.peer, &member.name, now);
        let member = Box::new(member);
        self.push(Event::LinkUp { link, member });
    }

    /// A link that was up is gone.
    pub(crate) fn link_down(
        &mut self,
        link: LinkId,
        (peer, name): (PeerId, &str),
        reason: EndReason,
        now: Instant,
    ) {
        self.journal.link_down(&peer, name, reason, now);
        self.push(Event::LinkDown { link, peer, reason });
    }

    /// Counts a refusal, and logs one now and then.
    pub(crate) fn refuse_message(&mut self, refusal: Refusal, peer: Option<PeerId>, now: Instant) {
        self.count(refusal.counter());
        self.journal.refusal(refusal, peer, now);
    }

    /// A peer is refused for another reason than before.
    pub(crate) fn refuse_peer(&mut self, peer: PeerId, reason: &'static str, now: Instant) {
        self.journal.refused(&peer, reason, now);
        let peer = Some(peer);
        self.push(Event::PeerRefused { peer, reason });
    }

    /// Two hosts run with the key of a peer: the addresses of that with the link, and of the other.
    pub(crate) fn log_key_conflict(
        &mut self,
        (peer, name): (PeerId, &str),
        addresses: [&[SocketAddr]; 2],
        now: Instant,
    ) {
        self.journal.key_conflict(&peer, name, addresses, now);
    }

    /// The stack panicked; true: over what the peer has sent.
    pub(crate) fn count_panic(
        &mut self,
        (peer, name): (PeerId, &str),
        panic: (&str, bool),
        now: Instant,
    ) {
        self.count(DropReason::WebrtcPanic);
        self.journal.panic(&peer, name, panic, now);
    }
}

/// Lines of the log that others can cause, within bounds.
#[derive(Debug, Default)]
struct Journal {
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

    fn link_up(&mut self, id: &PeerId, name: &str, now: Instant) {
        match self.links.admit(now) {
            Some(left_out) => info!(
                target: TARGET, message_id = PEER_UP.id, lcroute_peer = %id, lcroute_peer_name = name,
                "link up: {name} ({id}){}", untold(left_out)
            ),
            None => debug!(peer = %id, name, "link up"),
        }
    }

    fn link_down(&mut self, id: &PeerId, name: &str, reason: EndReason, now: Instant) {
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
    fn key_conflict(
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
    fn panic(&mut self, id: &PeerId, name: &str, (panic, proven): (&str, bool), now: Instant) {
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
