//! Outputs of the overlay except messages: events, drop counters, and log lines.

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

/// Minimum interval between two logged refusals: a refused peer can try again at any rate.
const QUIET: Duration = Duration::from_secs(10);

/// Pending events, drop counters, and the log.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    events: VecDeque<Event>,
    drops: Drops<DropReason>,
    journal: Journal,
}

impl Outputs {
    /// Removes the next event.
    pub(crate) fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Adds an event.
    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Counts a drop.
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// Counts `count` drops.
    pub(crate) fn count_many(&mut self, reason: DropReason, count: u64) {
        self.drops.add(reason, count);
    }

    /// Returns the drops so far, by reason.
    pub(crate) fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.drops.by_name()
    }

    /// Reports a link that is up.
    pub(crate) fn link_up(&mut self, link: LinkId, member: Member, now: Instant) {
        self.journal.link_up(&member.peer, &member.name, now);
        let member = Box::new(member);
        self.push(Event::LinkUp { link, member });
    }

    /// Reports the end of a link that was up.
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

    /// Counts a refusal, and logs it within bounds.
    pub(crate) fn refuse_message(&mut self, refusal: Refusal, peer: Option<PeerId>, now: Instant) {
        self.count(refusal.counter());
        self.journal.refusal(refusal, peer, now);
    }

    /// Reports a peer that is refused for a new reason.
    pub(crate) fn refuse_peer(&mut self, peer: PeerId, reason: &'static str, now: Instant) {
        self.journal.refused(&peer, reason, now);
        let peer = Some(peer);
        self.push(Event::PeerRefused { peer, reason });
    }

    /// Logs that two hosts have a peer's key; `addresses`: of the linked host and of the other one.
    pub(crate) fn log_key_conflict(
        &mut self,
        (peer, name): (PeerId, &str),
        addresses: [&[SocketAddr]; 2],
        now: Instant,
    ) {
        self.journal.key_conflict(&peer, name, addresses, now);
    }

    /// Counts and logs a panic of the stack; `panic.1`: data that the peer sent caused it.
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

/// Log lines that peers can cause, within bounds.
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
        // replays are late copies as a rule, and messages for an earlier run follow a restart
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

    /// Logs that two hosts run with a peer's key.
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

    /// Logs a panic of the stack; `proven`: data that the peer sent caused it.
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

/// Returns the number of suppressed lines, for the end of the next one.
fn untold(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        n => format!(" ({n} such lines left out before)"),
    }
}
