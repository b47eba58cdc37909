//! From presence to a connection: requests, offers, answers, restarts.
//!
//! ```text
//! larger PeerId                         smaller PeerId
//!   | --- connection request ---------------> |  verified: only now does ICE state come to be
//!   | --- connection request ---------------> |  verified: ICE state begins only here
//!   | --- answer ---------------------------> |
//!   | <-- candidates, both ways, if any come - |
//!   | <-- candidates, in both directions ---- |  if any come later
//! ```
//! A connection request means "I have no link to you". A node that wants a link sends one when the
//! peer becomes present, and after every pause, until there is a link. The recipient answers even
//! if it does not want the link itself: the smaller PeerId with an offer, the larger one with its
//! own request. So it does not matter whose request got lost.

use librecast::time::{Duration, Instant};
use tracing::debug;

use crate::attestation::{Attestation, MAX_OTHER_RUNS, OtherRun};
use crate::auth::{Binding, Role};
use crate::connections::Connections;
use crate::description::{Candidate, CandidateKind, Description, keep_outside};
use crate::envelope::{Opened, Payload, Refusal};
use crate::event::{CarrierId, CarrierKind, EndReason, Event, KEY_CONFLICT_HERE, KeyConflict};
use crate::info::PeerState;
use crate::parts::Parts;
use crate::peer::{LINGER, Link, Offered, Peer, Restart, Waiting};
use crate::presence::Reachable;
use crate::straight::Straight;
use crate::{OVERLAY_CARRIER, STRAIGHT_CARRIER};

/// Time within which a request has crossed this node's own message. Chosen: longer than most take.
const CROSSING: Duration = Duration::from_secs(1);

/// Time without links after this node gave way to a host with its key. Chosen: that host links
/// first.
const STANDS_BACK_FOR: Duration = Duration::from_secs(60);

struct Answered {
    session: u64,
    sequence: u64,
    attempt: [u8; 32],
    nonce: [u8; 32],
    description: Description,
}

/// Messages of the peer.
impl Peer {
    pub(crate) fn handle_opened<C: Connections>(
        &mut self,
        opened: Opened,
        carrier: CarrierId,
        parts: &mut Parts<C>,
    ) -> Result<(), Refusal> {
        let Opened {
            member,
            session,
            sequence,
            to_session,
            payload,
            ..
        } = opened;
        self.member = Some(member);
        self.session = session;
        if self.up().is_none() {
            self.carrier = Some(self.kind_of(carrier, parts));
        }
        // a straight message does not prove that any carrier works
        if carrier != STRAIGHT_CARRIER {
            self.received_over = Some(carrier);
        }
        self.keep_until = Some(parts.now + LINGER);
        if self.state == PeerState::Refused {
            self.set_state(PeerState::Connecting, None, parts.now);
        }
        let smaller = parts.own < self.id;
        let for_us = to_session == parts.session.id();
        if parts.stands_back() && payload.concerns_links() {
            return Ok(());
        }
        match payload {
            Payload::Request { restart } => {
                self.handle_request((session, sequence), restart, parts);
            }
            Payload::Refusal { .. } => {}
            // the recipient is another host with this node's key
            Payload::AttestationRequest { .. } | Payload::Attestation { .. } if !for_us => {}
            Payload::AttestationRequest { other } => self.attest(session, other, parts),
            Payload::Attestation { linked, bytes } => {
                return self.handle_attestation(linked, &bytes, parts);
            }
            Payload::Offer { .. } if smaller => return Err(Refusal::Malformed),
            Payload::Answer { .. } if !smaller => return Err(Refusal::Malformed),
            Payload::Offer { .. } if !for_us => {
                // the peer does not know yet that this node has restarted
                self.request_back(parts);
                return Err(Refusal::Session);
            }
            Payload::Answer { .. } | Payload::Candidates { .. } if !for_us => {
                return Err(Refusal::Session);
            }
            Payload::Candidates {
                attempt,
                candidates,
            } => self.handle_candidates((session, attempt), candidates, parts),
            Payload::Offer {
                restart,
                attempt,
                description,
            } => {
                let offered = Offered {
                    session,
                    sequence,
                    attempt,
                    description: description.outside(&parts.session.identity().network()),
                };
                self.handle_offer(offered, restart, parts);
            }
            Payload::Answer {
                restart,
                attempt,
                nonce,
                description,
            } => {
                let answer = Answered {
                    session,
                    sequence,
                    attempt,
                    nonce,
                    description: description.outside(&parts.session.identity().network()),
                };
                self.handle_answer(&answer, restart, parts);
            }
        }
        Ok(())
    }

    fn kind_of<C>(&self, carrier: CarrierId, parts: &Parts<C>) -> CarrierKind {
        match carrier {
            OVERLAY_CARRIER => CarrierKind::Overlay,
            STRAIGHT_CARRIER => {
                let recorded = parts.places.kind(&self.id);
                recorded.or(self.carrier).unwrap_or(CarrierKind::Straight)
            }
            _ => CarrierKind::Server,
        }
    }

    fn handle_request<C: Connections>(
        &mut self,
        (session, sequence): (u64, u64),
        restart: bool,
        parts: &mut Parts<C>,
    ) {
        let smaller = parts.own < self.id;
        if let Some(link) = self.link.as_ref() {
            let stale = session == link.session && sequence < link.sequence;
            let crossing = link.up.is_none() && parts.now < link.began + CROSSING;
            match link.up {
                _ if stale => return,
                // the peer may have restarted; its old link ends within half a second
                Some(_) if session != link.session => {
                    parts.connections.suspect(link.id, parts.now);
                    self.waiting = Some(Waiting::Request { session, sequence });
                    return self.note_other_run(session, parts);
                }
                Some(_) if restart && smaller => return self.begin_restart(parts),
                Some(_) => self.replace_link(EndReason::GivenUpByPeer, parts),
                None if crossing && session == link.session => return,
                None => self.replace_link(EndReason::BegunAnewByPeer, parts),
            }
        }
        self.waiting = Some(Waiting::Request { session, sequence });
        self.settle(parts);
    }

    fn handle_offer<C: Connections>(
        &mut self,
        offered: Offered,
        restart: bool,
        parts: &mut Parts<C>,
    ) {
        if let Some(link) = self.link.as_ref() {
            let same = offered.session == link.session;
            match link.up {
                _ if same && offered.sequence < link.sequence => return,
                Some(_) if same && restart => return self.answer_restart(&offered, parts),
                Some(_) if !same => {
                    let session = offered.session;
                    parts.connections.suspect(link.id, parts.now);
                    self.waiting = Some(Waiting::Offer(Box::new(offered)));
                    return self.note_other_run(session, parts);
                }
                _ => self.replace_link(EndReason::ReplacedByPeer, parts),
            }
        }
        if !restart {
            self.waiting = Some(Waiting::Offer(Box::new(offered)));
            self.settle(parts);
        }
    }

    fn handle_answer<C: Connections>(
        &mut self,
        answer: &Answered,
        restart: bool,
        parts: &mut Parts<C>,
    ) {
        let Some(link) = self.link.as_mut() else {
            return;
        };
        let expected = match &link.restart {
            Some(Restart {
                attempt: Some(attempt),
                ..
            }) if restart => attempt,
            None if !restart => &link.attempt,
            _ => return,
        };
        let fits = *expected == answer.attempt && link.session == answer.session;
        let (Some(own), true) = (link.fingerprints.0, fits && link.awaits_answer) else {
            return;
        };
        link.sequence = answer.sequence;
        link.awaits_answer = false;
        if !restart {
            link.binding = Some(Binding {
                network: parts.session.identity().network(),
                offerer: parts.own,
                answerer: self.id,
                offerer_fingerprint: own,
                answerer_fingerprint: answer.description.fingerprint,
                attempt: answer.attempt,
                nonce: answer.nonce,
            });
        }
        let connections = &mut parts.connections;
        connections.accept(link.id, &answer.description, parts.now);
    }

    /// Adds addresses of the peer to the attempt under way.
    fn handle_candidates<C: Connections>(
        &mut self,
        (session, attempt): (u64, [u8; 32]),
        mut candidates: Vec<Candidate>,
        parts: &mut Parts<C>,
    ) {
        if let Some(link) = self.link.as_ref()
            && link.up.is_none()
            && (link.session, link.attempt) == (session, attempt)
        {
            keep_outside(&mut candidates, &parts.session.identity().network());
            let connections = &mut parts.connections;
            connections.add_candidates(link.id, &candidates, parts.now);
        }
    }

    /// Removes the old link, so that a new one can be made.
    fn replace_link<C: Connections>(&mut self, reason: EndReason, parts: &mut Parts<C>) {
        let link = self.link.as_ref();
        let path = link.and_then(|link| parts.connections.path(link.id));
        if self.take_link(reason, parts).is_some() {
            self.set_state(PeerState::Lost, Some(reason.text()), parts.now);
            // the path may be the only one for an answer
            if let Some(path) = path {
                parts.places.hear(self.id, path, parts.now);
            }
        }
    }

    /// Answers the peer's waiting request or offer, if there is no link.
    pub(crate) fn settle<C: Connections>(&mut self, parts: &mut Parts<C>) {
        if self.link.is_some() || parts.stands_back() {
            return;
        }
        let smaller = parts.own < self.id;
        match self.waiting.take() {
            Some(Waiting::Request { .. }) if !smaller => self.request_back(parts),
            Some(Waiting::Request { session, sequence }) => {
                let attempt = parts.random.array();
                let link = self.install(Role::Offerer, (session, sequence), attempt, parts);
                let id = link.id;
                parts.connections.offer(id, parts.now);
            }
            Some(Waiting::Offer(offered)) => {
                let run = (offered.session, offered.sequence);
                let link = self.install(Role::Answerer, run, offered.attempt, parts);
                link.fingerprints.1 = Some(offered.description.fingerprint);
                let id = link.id;
                let connections = &mut parts.connections;
                connections.answer(id, &offered.description, parts.now);
            }
            None => {}
        }
    }

    fn install<C: Connections>(
        &mut self,
        role: Role,
        run: (u64, u64),
        attempt: [u8; 32],
        parts: &mut Parts<C>,
    ) -> &mut Link {
        // the reason of the last failure stays readable during the next attempt
        if !matches!(self.state, PeerState::Lost | PeerState::Connecting) {
            self.set_state(PeerState::Connecting, None, parts.now);
        }
        self.retry_at = None;
        debug_assert!(self.link.is_none(), "a peer has one link");
        let id = parts.links.add(self.id);
        let mut link = Link::new(id, role, run, attempt, parts.now);
        link.is_hidden = !self.may_learn_addresses(&parts.trust);
        if link.is_hidden {
            parts.connections.use_relays_only(id);
        }
        self.link.insert(link)
    }
}

/// Actions that this side begins.
impl Peer {
    /// Requests a connection to a peer that can be reached, unless there is a link or an attempt.
    pub(crate) fn begin_trying<C: Connections>(&mut self, parts: &mut Parts<C>) {
        if self.up().is_some() {
            return;
        }
        if self.link.is_some() {
            return self.expect_link(&parts.wanted, parts.now);
        }
        self.failures = 0;
        // limits signatures for a peer whose presence flaps
        let next = self.requested_at.map(|at| at + CROSSING);
        match next.filter(|at| parts.now < *at) {
            Some(later) => {
                self.retry_at = Some(later);
                self.expect_link(&parts.wanted, parts.now);
            }
            None => self.request(false, parts),
        }
    }

    /// Sends a connection request; repeats it after a pause.
    pub(crate) fn request<C: Connections>(&mut self, restart: bool, parts: &mut Parts<C>) {
        if parts.stands_back() {
            self.retry_at = parts.stands_back_until;
            return;
        }
        self.requested_at = Some(parts.now);
        self.keep_until = Some(parts.now + LINGER);
        let pause = parts.pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        if self.may_be_tried(parts) {
            self.retry_at = Some(parts.now + pause);
            self.expect_link(&parts.wanted, parts.now);
        }
        self.send(&Payload::Request { restart }, parts);
    }

    /// Answers a request with a request, unless one was sent within `CROSSING`.
    fn request_back<C: Connections>(&mut self, parts: &mut Parts<C>) {
        if self
            .requested_at
            .is_none_or(|at| parts.now >= at + CROSSING)
        {
            self.request(false, parts);
        }
    }

    /// Sends a request to the addresses of the peer, without any server.
    pub(crate) fn request_straight<C: Connections>(&mut self, parts: &mut Parts<C>) {
        let now = parts.now;
        let wanted = parts.wanted.contains(&self.id);
        let idle = self.up().is_some()
            || parts.stands_back()
            || !parts.places.take_due(&self.id, wanted, now);
        if idle
            || self.is_barred(&parts.trust, parts.now)
            || !self.may_learn_addresses(&parts.trust)
        {
            return;
        }
        // ICE's checks find the path themselves; an offer may have got lost
        let young = |link: &Link| !link.awaits_answer || now < link.began + CROSSING;
        if !self.link.as_ref().is_some_and(young) {
            let payload = Payload::Request { restart: false };
            let (to, session) = (self.id, self.session);
            if let Ok(sealed) = parts
                .session
                .seal(&to, session, &payload, &mut parts.random)
            {
                self.send_straight(&sealed, parts);
            }
        }
    }

    /// Asks for an ICE restart: the offerer begins it, the answerer requests it.
    pub(crate) fn ask_restart<C: Connections>(&mut self, parts: &mut Parts<C>) {
        let Some(link) = self.link.as_mut() else {
            return;
        };
        match link.role {
            Role::Offerer => self.begin_restart(parts),
            Role::Answerer => {
                link.restart = Some(Restart {
                    since: parts.now,
                    attempt: None,
                });
                parts.connections.await_restart(link.id);
                self.send(&Payload::Request { restart: true }, parts);
            }
        }
    }

    /// Restarts ICE although there is a path, which stays in use meanwhile. The answerer only
    /// requests it; a lost request does no harm.
    pub(crate) fn seek_better_path<C: Connections>(&mut self, parts: &mut Parts<C>) {
        let idle = self.up().filter(|link| link.restart.is_none());
        match idle.map(|link| link.role) {
            _ if !parts.reachable.knows(&self.id) => {}
            Some(Role::Offerer) => self.begin_restart(parts),
            Some(Role::Answerer) => self.send(&Payload::Request { restart: true }, parts),
            None => {}
        }
    }

    fn begin_restart<C: Connections>(&mut self, parts: &mut Parts<C>) {
        if let Some(link) = self.link.as_mut()
            && link.role == Role::Offerer
        {
            link.restart = Some(Restart {
                since: parts.now,
                attempt: None,
            });
            parts.connections.restart(link.id, None, parts.now);
        }
    }

    fn answer_restart<C: Connections>(&mut self, offered: &Offered, parts: &mut Parts<C>) {
        if let Some(link) = self.link.as_mut()
            && link.role == Role::Answerer
        {
            link.sequence = offered.sequence;
            link.restart = Some(Restart {
                since: parts.now,
                attempt: Some(offered.attempt),
            });
            let connections = &mut parts.connections;
            connections.restart(link.id, Some(&offered.description), parts.now);
        }
    }

    /// Sends the description of this end in an offer or an answer.
    pub(crate) fn handle_described<C: Connections>(
        &mut self,
        description: Description,
        parts: &mut Parts<C>,
    ) {
        let Some(link) = self.link.as_mut() else {
            return;
        };
        let mut description = description.outside(&parts.session.identity().network());
        if link.is_hidden {
            let candidates = &mut description.candidates;
            candidates.retain(|candidate| candidate.kind == CandidateKind::Relayed);
        }
        let restart = link.restart.is_some();
        let payload = match link.role {
            Role::Offerer => {
                let attempt = match link.restart.as_mut() {
                    Some(restart) => *restart.attempt.insert(parts.random.array()),
                    None => link.attempt,
                };
                link.awaits_answer = true;
                Payload::Offer {
                    restart,
                    attempt,
                    description,
                }
            }
            Role::Answerer => {
                let nonce = parts.random.array();
                let restarted = link.restart.as_ref().map(|restart| restart.attempt);
                let Some(attempt) = restarted.unwrap_or(Some(link.attempt)) else {
                    return;
                };
                if let (false, Some(remote)) = (restart, link.fingerprints.1) {
                    link.binding = Some(Binding {
                        network: parts.session.identity().network(),
                        offerer: self.id,
                        answerer: parts.own,
                        offerer_fingerprint: remote,
                        answerer_fingerprint: description.fingerprint,
                        attempt,
                        nonce,
                    });
                }
                Payload::Answer {
                    restart,
                    attempt,
                    nonce,
                    description,
                }
            }
        };
        if !restart {
            link.began = parts.now;
            if let Payload::Offer { description, .. } | Payload::Answer { description, .. } =
                &payload
            {
                link.fingerprints.0 = Some(description.fingerprint);
            }
        }
        self.send(&payload, parts);
    }

    /// Sends addresses that became known after the peer received the description.
    pub(crate) fn send_candidates<C: Connections>(
        &mut self,
        mut candidates: Vec<Candidate>,
        parts: &mut Parts<C>,
    ) {
        let Some(link) = self.link.as_ref() else {
            return;
        };
        let is_described = link.up.is_none() && link.fingerprints.0.is_some();
        keep_outside(&mut candidates, &parts.session.identity().network());
        if is_described && !link.is_hidden && !candidates.is_empty() {
            let attempt = link.attempt;
            let payload = Payload::Candidates {
                attempt,
                candidates,
            };
            self.send(&payload, parts);
        }
    }

    /// Begins a connection again that was started without an address that is known now.
    pub(crate) fn begin_anew<C: Connections>(&mut self, parts: &mut Parts<C>) {
        if self.up().is_none() && self.link.is_some() {
            self.take_link(EndReason::AddressesChanged, parts);
            self.failures = 0;
            self.request(false, parts);
        }
    }

    /// Retries postponed attempts after the addresses of this node changed.
    pub(crate) fn addresses_changed<C: Connections>(&mut self, parts: &mut Parts<C>) {
        if self.link.is_none() {
            self.failures = 0;
            if self.may_be_tried(parts) {
                self.request(false, parts);
            }
        }
    }

    fn send<C: Connections>(&mut self, payload: &Payload, parts: &mut Parts<C>) {
        // messages about a link are for the run at its other end
        let session = self.up().map_or(self.session, |link| link.session);
        self.send_to(session, payload, parts);
    }

    pub(crate) fn send_to<C: Connections>(
        &mut self,
        session: u64,
        payload: &Payload,
        parts: &mut Parts<C>,
    ) {
        let to = self.id;
        let sealed = match parts.session.seal(&to, session, payload, &mut parts.random) {
            Ok(sealed) => sealed,
            Err(refusal) => return parts.outputs.count(refusal.counter()),
        };
        debug!(peer = %to, payload = payload.name(), "signal sent");
        self.send_straight(&sealed, parts);
        let event = signal(to, sealed, self.received_over, &parts.reachable);
        parts.outputs.push(event);
    }

    /// Sends a sealed message to the known addresses of the peer.
    pub(crate) fn send_straight<C: Connections>(
        &mut self,
        sealed: &bytes::Bytes,
        parts: &mut Parts<C>,
    ) {
        if !self.may_learn_addresses(&parts.trust) {
            return;
        }
        let datagrams = Straight::count(sealed);
        let places = parts.places.of(&self.id, datagrams, parts.now);
        if places.is_empty() {
            return;
        }
        let datagrams = parts.straight.datagrams(sealed, &mut parts.random);
        for (from, to) in places {
            for datagram in &datagrams {
                self.traffic.sent(datagram.len() + 1);
                parts.connections.send_straight(from, to, datagram);
            }
        }
    }
}

/// Returns the event that sends a message over the peer's carriers and that of its last message.
pub(crate) fn signal(
    to: librecast::id::PeerId,
    bytes: bytes::Bytes,
    received_over: Option<CarrierId>,
    reachable: &Reachable,
) -> Event {
    let (links, servers) = reachable.carriers(&to);
    let received_over_links = received_over == Some(OVERLAY_CARRIER);
    let received_over_server = received_over.is_some() && !received_over_links;
    let over_links = links || received_over_links;
    Event::Signal {
        to,
        bytes,
        over_links,
        over_servers: servers || received_over_server || !over_links,
    }
}

/// Returns whether a restart has taken too long.
pub(crate) fn is_stuck(link: &Link, now: Instant) -> bool {
    link.restart.as_ref().is_some_and(|r| now >= r.ends())
}

/// Two hosts with one key.
impl Peer {
    /// Records a run other than the linked one that asks for a link. Both are asked for
    /// attestations once this has lasted longer than a dying link.
    fn note_other_run<C: Connections>(&mut self, session: u64, parts: &mut Parts<C>) {
        let Some(linked) = self.up().map(|link| link.session) else {
            return;
        };
        let known = self.other_runs.iter().position(|r| r.session == session);
        let run = match known {
            Some(at) => self.other_runs.remove(at).beside(linked, parts.now),
            None => OtherRun::new((session, linked), parts.now),
        };
        if self.other_runs.len() == MAX_OTHER_RUNS {
            self.other_runs.remove(0);
        }
        self.other_runs.push(run);
        debug_assert!(
            self.other_runs.len() <= MAX_OTHER_RUNS,
            "the first gives way"
        );
        self.ask_other_runs(linked, parts);
    }

    /// Asks two hosts with the peer's key again at once after one of them got a new link.
    pub(crate) fn ask_proven_runs<C: Connections>(&mut self, linked: u64, parts: &mut Parts<C>) {
        let now = parts.now;
        let known = std::mem::take(&mut self.other_runs).into_iter();
        let others = known.filter(|run| run.session != linked && run.is_proven(now));
        self.other_runs = others.map(|run| run.beside(linked, now)).collect();
        self.ask_other_runs(linked, parts);
    }

    fn ask_other_runs<C: Connections>(&mut self, linked: u64, parts: &mut Parts<C>) {
        let now = parts.now;
        let due = self
            .other_runs
            .iter_mut()
            .filter_map(|run| run.ask(now).then_some(run.session));
        for session in due.collect::<Vec<_>>() {
            for (of, other) in [(linked, session), (session, linked)] {
                self.send_to(of, &Payload::AttestationRequest { other }, parts);
            }
        }
    }

    /// Sends an attestation: the peer has seen another run of this node.
    fn attest<C: Connections>(&mut self, session: u64, other: u64, parts: &mut Parts<C>) {
        let runs = (parts.session.id(), other);
        let candidates = match self.may_learn_addresses(&parts.trust) {
            true => parts.connections.candidates(),
            false => Vec::new(),
        };
        let bytes = Attestation::sign(parts.session.identity(), runs, &candidates).into();
        let linked = self.up().is_some();
        self.send_to(session, &Payload::Attestation { linked, bytes }, parts);
    }

    fn handle_attestation<C: Connections>(
        &mut self,
        linked: bool,
        bytes: &[u8],
        parts: &mut Parts<C>,
    ) -> Result<(), Refusal> {
        let network = parts.session.identity().network();
        if let Ok(of_peer) = Attestation::open(bytes, &network, &self.id) {
            self.compare_runs(bytes, of_peer, parts);
            return Ok(());
        }
        let ours = Attestation::open(bytes, &network, &parts.own);
        let ours = ours.map_err(|_| Refusal::Malformed)?;
        let own = parts.session.id();
        if ours.session == own || ours.other != own {
            return Err(Refusal::Session);
        }
        if !linked {
            self.stand_back(ours.session, parts);
        }
        let conflict = KeyConflict {
            addresses: ours.addresses,
            seen_by: self.id,
        };
        parts.outputs.push(Event::KeyConflict(conflict));
        Ok(())
    }

    /// Stores an attestation of one run of the peer; once both are present, each run gets the
    /// other's.
    fn compare_runs<C: Connections>(
        &mut self,
        bytes: &[u8],
        attestation: Attestation,
        parts: &mut Parts<C>,
    ) {
        let Some(linked) = self.up().map(|link| link.session) else {
            return;
        };
        let sessions = [attestation.session, attestation.other];
        let mut runs = self.other_runs.iter_mut();
        let Some(run) = runs.find(|run| sessions.contains(&run.session)) else {
            return;
        };
        let other = run.session;
        let Some(proof) = run.take(bytes, attestation, linked, parts.now) else {
            return;
        };
        if proof.is_first {
            let at = [&proof.linked_at[..], &proof.other_at[..]];
            let name = self.name().to_owned();
            let outputs = &mut parts.outputs;
            outputs.log_key_conflict((self.id, &name), at, parts.now);
        }
        for (session, bytes, linked) in [
            (linked, proof.for_linked, true),
            (other, proof.for_other, false),
        ] {
            let bytes = bytes.into();
            self.send_to(session, &Payload::Attestation { linked, bytes }, parts);
        }
    }

    /// Handles a peer that keeps its link to another host with this node's key. If both hosts have
    /// links, the one with the higher session gives up its own, so that the network is not split
    /// between them.
    fn stand_back<C: Connections>(&mut self, other: u64, parts: &mut Parts<C>) {
        if self.up().is_none() {
            self.set_state(PeerState::Refused, Some(KEY_CONFLICT_HERE), parts.now);
            self.failures = self.failures.max(5);
        }
        if parts.links.any_up() && parts.session.id() > other {
            parts.stands_back_until = Some(parts.now + STANDS_BACK_FOR);
        }
    }
}
