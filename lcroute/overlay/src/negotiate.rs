//! From presence to a connection: knocks, offers, answers, restarts.
//!
//! ```text
//! larger PeerId                         smaller PeerId
//!   | --- knock (certificates) ------------> |  verified: only now does ICE state come to be
//!   | <-- offer (to this run of us) -------- |
//!   | --- answer --------------------------> |
//!   | <========= ICE, DTLS, Auth ==========> |
//! ```
//! A knock says "I have no link to you"; who wants a link knocks when it sees the other, and after every
//! pause, until there is one. Who is knocked at answers, whether it wants the link itself or not. The smaller PeerId answers a knock with an offer, the larger one with
//! a knock of its own, so it does not matter whose got lost.

use std::time::{Duration, Instant};

use bytes::Bytes;
use librecast::id::PeerId;
use tracing::debug;

use crate::OVERLAY_CARRIER;
use crate::auth::{Binding, Role};
use crate::connection::{Connection, Error};
use crate::description::{Description, Fingerprint};
use crate::direct::{DIRECT_CARRIER, SilentPair};
use crate::envelope::{Opened, Payload, Refusal, Stamp, Told, open, seal};
use crate::event::{CarrierId, Event, LinkId, PeerState, Presence};
use crate::overlay::Overlay;
use crate::peer::{LINGER, Link, Offered, Restart, Waiting};
use crate::reach::Noted;
use crate::replay::Copies;

/// A knock within this time after our own offer or knock has crossed it.
const CROSSING: Duration = Duration::from_secs(1);
/// How long a restart waits for STUN.
const RESTART_PATIENCE: Duration = Duration::from_millis(250);

impl Overlay {
    /// Who can be reached over a carrier.
    pub fn handle_presence(&mut self, carrier: CarrierId, presence: Presence, now: Instant) {
        self.observe(now);
        if self.stopped {
            return;
        }
        match presence {
            Presence::Online(id) => self.handle_online(carrier, id, now),
            Presence::Offline(id) => self.handle_offline(carrier, id),
            Presence::CarrierUp => debug!(carrier = carrier.0, "carrier up"),
            Presence::CarrierDown => {
                debug!(carrier = carrier.0, "carrier down");
                for id in self.reach.on(carrier) {
                    self.handle_offline(carrier, id);
                }
            }
        }
        self.drain_dirty();
    }

    /// A sealed message from a server, in whose room `from` is.
    ///
    /// Certificates, signature, recipient, network, age and novelty are checked before anything is
    /// kept of the sender; what fails is counted, and shown in [`Overlay::peers`] with its reason.
    pub fn handle_signal(&mut self, carrier: CarrierId, from: PeerId, bytes: &[u8], now: Instant) {
        self.observe(now);
        if self.stopped {
            return;
        }
        if let Err((refusal, sender)) = self.handle_message(carrier, Some(from), bytes, now) {
            self.refuse(refusal, sender.or(Some(from)), now);
        }
        self.drain_dirty();
    }

    /// A sealed message that came over links of the overlay, the last of which is `via`.
    pub fn handle_routed_signal(&mut self, via: Option<LinkId>, bytes: &[u8], now: Instant) {
        self.observe(now);
        if self.stopped {
            return;
        }
        let index = via.and_then(|link| self.by_link.get(&link));
        let neighbor = index.and_then(|index| Some(self.peers[*index].as_ref()?.id));
        if let Err((refusal, sender)) = self.handle_message(OVERLAY_CARRIER, neighbor, bytes, now) {
            self.refuse(refusal, sender, now);
        }
        self.drain_dirty();
    }

    fn handle_online(&mut self, carrier: CarrierId, id: PeerId, now: Instant) {
        if id == self.own {
            return;
        }
        let over_links = carrier == OVERLAY_CARRIER;
        match self.reach.insert(id, carrier, &self.wanted) {
            Noted::Full => return self.count("presence_full"),
            // that a path over links is still there is no news
            Noted::Again if over_links => return,
            Noted::New | Noted::Again => {}
        }
        if let Some(&index) = self.by_id.get(&id)
            && let Some(link) = self.link_mut(index)
        {
            // it came back: does it still know of the link?
            if let Some(up) = link.up.as_mut().filter(|_| !over_links) {
                up.liveness.suspect(now);
            }
            if link.restart.is_some() {
                // what asked for it may have been lost with the carrier that just came back
                self.ask_restart(index, now);
            }
            return self.mark_dirty(index);
        }
        if self.may_try(&id) {
            self.begin_trying(id, now);
        }
    }

    fn handle_offline(&mut self, carrier: CarrierId, id: PeerId) {
        self.reach.remove(&id, carrier);
        let Some(&index) = self.by_id.get(&id) else {
            return;
        };
        let Some(peer) = self.peers[index].as_ref() else {
            return;
        };
        if self.reach.knows(&id) || peer.link.is_some() {
            return;
        }
        if peer.member.is_none() {
            self.forget(id);
        } else {
            self.stop_trying(index);
        }
    }

    /// Knocks; whoever flaps does not make us sign as fast.
    pub(crate) fn knock_soon(&mut self, index: usize, now: Instant) {
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        let next = peer.knocked_at.map(|at| at + CROSSING);
        match next.filter(|at| now < *at) {
            Some(later) => {
                peer.retry_at = Some(later);
                self.expect_link(index, now);
                self.mark_dirty(index);
            }
            None => self.knock(index, false, now),
        }
    }

    pub(crate) fn handle_message(
        &mut self,
        carrier: CarrierId,
        from: Option<PeerId>,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), (Refusal, Option<PeerId>)> {
        let hash = Copies::hash(bytes);
        if self.copies.contains(&hash) {
            self.count("signal_copy");
            return Ok(());
        }
        let is_member = carrier == OVERLAY_CARRIER || from.is_some_and(|id| self.is_member(&id));
        if !self.budget.admits(carrier, from, is_member, now) {
            return Err((Refusal::Rate, None));
        }
        let opened = open(&self.config.identity, (self.config.clock)(), bytes);
        if opened.as_ref().is_err_and(|(refusal, _)| refusal.is_junk()) {
            self.budget.punish(carrier, from, now);
        }
        let opened = opened?;
        let sender = opened.member.peer;
        let refuse = |refusal| (refusal, Some(sender));
        if !self.replay.is_new(&sender, opened.session, opened.sequence) {
            return Err(refuse(Refusal::Replayed));
        }
        self.copies.insert(hash);
        let result = self.handle_new(carrier, opened, now);
        result.map_err(refuse)
    }

    /// Whether this is known to be a member: a message of it has been verified, or the link state knows it.
    fn is_member(&self, id: &PeerId) -> bool {
        let peer = self.by_id.get(id).and_then(|i| self.peers[*i].as_ref());
        let verified = peer.is_some_and(|peer| peer.member.is_some());
        (verified || self.reach.ways(id).0) && !self.is_expelled(id)
    }

    /// A message that has not come before, of a member.
    fn handle_new(
        &mut self,
        carrier: CarrierId,
        opened: Opened,
        now: Instant,
    ) -> Result<(), Refusal> {
        let sender = opened.member.peer;
        let (session, theirs) = (opened.session, opened.control);
        let ours = self.config.identity.speaks.control;
        if let Payload::Refusal { told, proof } = opened.payload {
            if opened.to_session != self.session {
                return Err(Refusal::Session);
            }
            self.handle_refusal(&sender, told, now);
            if !proof.is_empty() {
                self.events.push_back(Event::Revocation { record: proof });
            }
            if theirs != ours {
                return Err(Refusal::of_control(theirs, ours));
            }
            return Ok(());
        }
        let revocation = self.revocation_of(&opened.member);
        let result = if revocation.is_some() {
            Err(Refusal::Revoked)
        } else if self.is_shut_out(&sender) {
            Err(Refusal::Panicked)
        } else if theirs != ours {
            Err(Refusal::of_control(theirs, ours))
        } else {
            self.handle_member(carrier, opened, now)
        };
        if let Some(told) = result.err().and_then(Refusal::told) {
            let to = (&sender, session, Some(carrier));
            let proof = revocation.unwrap_or_default();
            self.post(to, &Payload::Refusal { told, proof });
        }
        result
    }

    fn handle_member(
        &mut self,
        carrier: CarrierId,
        opened: Opened,
        now: Instant,
    ) -> Result<(), Refusal> {
        let sender = opened.member.peer;
        let linked = |i: &usize| self.peers[*i].as_ref().is_some_and(|p| p.link.is_some());
        let linked = self.by_id.get(&sender).is_some_and(linked);
        let full = || self.link_count() >= self.config.limits.links;
        if !linked && !self.wanted.contains(&sender) && full() {
            return Err(Refusal::Full);
        }
        let index = self.peer_index(sender).ok_or(Refusal::Full)?;
        self.refused.remove(&sender);
        debug!(peer = %sender, carrier = carrier.0, payload = opened.payload.name(), "signal");
        self.handle_opened(index, carrier, opened, now)
    }

    /// A peer gives us no link, and says why.
    fn handle_refusal(&mut self, sender: &PeerId, told: Told, now: Instant) {
        let Some(&index) = self.by_id.get(sender) else {
            return;
        };
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        if peer.up().is_some() {
            return;
        }
        debug!(peer = %sender, reason = told.reason(), "refused by the peer");
        peer.waiting = None;
        peer.failures = peer.failures.max(5);
        self.end_link(index, told.reason(), now);
        if let Some(peer) = self.peers[index].as_mut() {
            peer.set_state(PeerState::Refused, Some(told.reason()), now);
        }
    }

    fn handle_opened(
        &mut self,
        index: usize,
        carrier: CarrierId,
        opened: Opened,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Opened {
            member,
            session,
            sequence,
            to_session,
            payload,
            ..
        } = opened;
        let Some(peer) = self.peers[index].as_mut() else {
            return Ok(());
        };
        peer.member = Some(member);
        peer.session = session;
        if carrier != DIRECT_CARRIER {
            peer.heard_over = Some(carrier);
        }
        peer.keep_until = Some(now + LINGER);
        if peer.state == PeerState::Refused {
            peer.set_state(PeerState::Connecting, None, now);
        }
        let smaller = self.own < peer.id;
        let for_us = to_session == self.session;
        match payload {
            Payload::Knock { restart } => self.handle_knock(index, session, sequence, restart, now),
            Payload::Refusal { .. } => {}
            Payload::Offer { .. } if smaller => return Err(Refusal::Malformed),
            Payload::Answer { .. } if !smaller => return Err(Refusal::Malformed),
            Payload::Offer { .. } if !for_us => {
                // it does not know yet that we have restarted
                self.knock_back(index, now);
                return Err(Refusal::Session);
            }
            Payload::Answer { .. } if !for_us => return Err(Refusal::Session),
            Payload::Offer {
                restart,
                attempt,
                description,
            } => {
                let offered = Offered {
                    session,
                    sequence,
                    attempt,
                    description,
                };
                self.handle_offer(index, offered, restart, now);
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
                    description,
                };
                self.handle_answer(index, &answer, restart, now);
            }
        }
        Ok(())
    }

    fn handle_knock(
        &mut self,
        index: usize,
        session: u64,
        sequence: u64,
        restart: bool,
        now: Instant,
    ) {
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        let smaller = self.own < peer.id;
        if let Some(link) = peer.link.as_mut() {
            let stale = session == link.session && sequence < link.sequence;
            let crossing = link.up.is_none() && now < link.began + CROSSING;
            match link.up.as_mut() {
                _ if stale => return,
                // a peer that was killed and is back; its old link shows within half a second
                Some(up) if session != link.session => {
                    up.liveness.suspect(now);
                    peer.waiting = Some(Waiting::Knock { session, sequence });
                    return self.mark_dirty(index);
                }
                Some(_) if restart && smaller => return self.begin_restart(index, now),
                Some(_) => self.replace_link(index, "given up by the peer", now),
                None if crossing && session == link.session => return,
                None => self.replace_link(index, "begun anew by the peer", now),
            }
        }
        self.set_waiting(index, Waiting::Knock { session, sequence }, now);
    }

    fn handle_offer(&mut self, index: usize, offered: Offered, restart: bool, now: Instant) {
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        if let Some(link) = peer.link.as_mut() {
            let same = offered.session == link.session;
            match link.up.as_mut() {
                _ if same && offered.sequence < link.sequence => return,
                Some(_) if same && restart => return self.answer_restart(index, &offered, now),
                Some(up) if !same => {
                    up.liveness.suspect(now);
                    peer.waiting = Some(Waiting::Offer(Box::new(offered)));
                    return self.mark_dirty(index);
                }
                _ => self.replace_link(index, "replaced by the peer", now),
            }
        }
        if !restart {
            self.set_waiting(index, Waiting::Offer(Box::new(offered)), now);
        }
    }

    fn handle_answer(&mut self, index: usize, answer: &Answered, restart: bool, now: Instant) {
        let (own, network) = (self.own, self.config.identity.network);
        let own_fingerprint = self.factory.fingerprint();
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
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
        if !fits || !link.connection.awaits_answer() {
            return;
        }
        link.sequence = answer.sequence;
        if !restart {
            link.binding = Some(Binding {
                network,
                offerer: own,
                answerer: peer.id,
                offerer_fingerprint: own_fingerprint,
                answerer_fingerprint: answer.description.fingerprint,
                attempt: answer.attempt,
                nonce: answer.nonce,
            });
        }
        let accepted = link.connection.accept(&answer.description, now);
        match accepted {
            Ok(()) => self.mark_dirty(index),
            Err(error) => {
                debug!(%error, "answer not accepted");
                self.end_link(index, "answer not accepted", now);
            }
        }
    }

    /// Takes the old link out of the way of a new one.
    fn replace_link(&mut self, index: usize, reason: &'static str, now: Instant) {
        let pair = self.link_mut(index).and_then(|link| link.connection.path());
        let lived = self.take_link(index, reason, now);
        if let (Some(_), Some(peer)) = (lived, self.peers[index].as_mut()) {
            peer.set_state(PeerState::Lost, Some(reason), now);
            // there may be no other way to answer
            if let Some(pair) = pair {
                self.remember_pair(index, SilentPair::new(pair, false, now));
            }
        }
    }

    /// Keeps what the peer wants, and does it if nothing is in its way.
    fn set_waiting(&mut self, index: usize, waiting: Waiting, now: Instant) {
        if let Some(peer) = self.peers[index].as_mut() {
            peer.waiting = Some(waiting);
        }
        self.settle_peer(index, now);
    }

    /// Does for all peers what waited for our addresses.
    pub(crate) fn settle_waiting(&mut self, now: Instant) {
        if !std::mem::take(&mut self.unsettled) {
            return;
        }
        let patient = self.gatherer.is_patient(now);
        let restarting = |p: &crate::peer::Peer| {
            p.link
                .as_ref()
                .is_some_and(|l| l.restart.as_ref().is_some_and(|r| r.attempt.is_none()))
        };
        self.was_patient = patient;
        for index in self.indices() {
            let Some(peer) = self.peers[index].as_ref() else {
                continue;
            };
            if peer.waiting.is_some() {
                self.settle_peer(index, now);
            } else if restarting(peer) {
                self.offer_restart(index, now);
            }
        }
    }

    /// Does what a peer waits for, if there is no link and our addresses are known.
    pub(crate) fn settle_peer(&mut self, index: usize, now: Instant) {
        let patient = self.gatherer.is_patient(now);
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        if peer.link.is_some() || peer.waiting.is_none() {
            return;
        }
        if patient || self.hosts.is_empty() {
            self.unsettled = true;
            return;
        }
        let smaller = self.own < peer.id;
        match peer.waiting.take() {
            Some(Waiting::Knock { .. }) if !smaller => self.knock_back(index, now),
            Some(Waiting::Knock { session, sequence }) => self.offer(index, session, sequence, now),
            Some(Waiting::Offer(offered)) => self.answer(index, &offered, now),
            None => {}
        }
    }

    /// Says that there is no link; comes again after a pause.
    pub(crate) fn knock(&mut self, index: usize, restart: bool, now: Instant) {
        let (first, longest) = self.config.limits.backoff;
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        peer.knocked_at = Some(now);
        peer.keep_until = Some(now + LINGER);
        let pause = self.jitter.pause(peer.failures, first, longest);
        peer.failures = peer.failures.saturating_add(1);
        let id = peer.id;
        if self.may_try(&id) {
            self.retry_at(index, now + pause);
            self.expect_link(index, now);
        }
        self.send_signal(index, &Payload::Knock { restart });
        self.mark_dirty(index);
    }

    fn retry_at(&mut self, index: usize, at: Instant) {
        if let Some(peer) = self.peers[index].as_mut() {
            peer.retry_at = Some(at);
        }
    }

    /// Answers a knock with a knock, unless ours is under way.
    fn knock_back(&mut self, index: usize, now: Instant) {
        let Some(peer) = self.peers[index].as_ref() else {
            return;
        };
        if peer.knocked_at.is_none_or(|at| now >= at + CROSSING) {
            self.knock(index, false, now);
        }
    }

    fn offer(&mut self, index: usize, session: u64, sequence: u64, now: Instant) {
        let reflexive = self.gatherer.addresses();
        match self.factory.offer(&self.hosts, &reflexive, now) {
            Ok((connection, description)) => {
                let attempt = random();
                let link = Link::new(connection, session, sequence, attempt, now);
                self.install(index, link, now);
                self.send_signal(
                    index,
                    &Payload::Offer {
                        restart: false,
                        attempt,
                        description,
                    },
                );
            }
            Err(error) => self.fail_to_begin(index, &error, now),
        }
    }

    fn answer(&mut self, index: usize, offered: &Offered, now: Instant) {
        let reflexive = self.gatherer.addresses();
        let made = self
            .factory
            .answer(&offered.description, &self.hosts, &reflexive, now);
        let Some(offerer) = self.peers[index].as_ref().map(|p| p.id) else {
            return;
        };
        match made {
            Ok((connection, description)) => {
                let Offered {
                    session,
                    sequence,
                    attempt,
                    ..
                } = *offered;
                let nonce = random();
                let mut link = Link::new(connection, session, sequence, attempt, now);
                link.binding = Some(Binding {
                    network: self.config.identity.network,
                    offerer,
                    answerer: self.own,
                    offerer_fingerprint: offered.description.fingerprint,
                    answerer_fingerprint: self.factory.fingerprint(),
                    attempt,
                    nonce,
                });
                self.install(index, link, now);
                let payload = Payload::Answer {
                    restart: false,
                    attempt,
                    nonce,
                    description,
                };
                self.send_signal(index, &payload);
            }
            Err(error) => self.fail_to_begin(index, &error, now),
        }
    }

    fn install(&mut self, index: usize, link: Link, now: Instant) {
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        self.by_ufrag
            .insert(link.connection.credentials().local_ufrag.clone(), index);
        // why the last attempt failed stays readable during the next
        if !matches!(peer.state, PeerState::Lost | PeerState::Connecting) {
            peer.set_state(PeerState::Connecting, None, now);
        }
        peer.retry_at = None;
        peer.link = Some(link);
        self.mark_dirty(index);
    }

    fn fail_to_begin(&mut self, index: usize, error: &Error, now: Instant) {
        debug!(%error, "cannot begin a connection");
        if let (Error::Panicked { panic, proven }, None) = (error, self.link_mut(index)) {
            self.note_panic(index, (panic, *proven), now);
        }
        self.end_link(index, "cannot begin a connection", now);
    }

    /// Our addresses changed: what becomes of this peer?
    pub(crate) fn move_peer(&mut self, index: usize, now: Instant) {
        let Some(peer) = self.peers[index].as_mut() else {
            return;
        };
        let Some(link) = peer.link.as_mut() else {
            peer.failures = 0;
            let id = peer.id;
            if self.may_try(&id) {
                self.knock(index, false, now);
            }
            return;
        };
        if link.up.is_none() {
            return self.begin_anew(index, now);
        }
        let kept = link
            .connection
            .path()
            .is_some_and(|(local, _)| self.hosts.contains(&local));
        if kept {
            return;
        }
        self.ask_restart(index, now);
    }

    fn ask_restart(&mut self, index: usize, now: Instant) {
        let Some(link) = self.link_mut(index) else {
            return;
        };
        match link.connection.role() {
            Role::Offerer => self.begin_restart(index, now),
            Role::Answerer => {
                link.restart = Some(Restart {
                    since: now,
                    attempt: None,
                });
                self.send_signal(index, &Payload::Knock { restart: true });
                self.mark_dirty(index);
            }
        }
    }

    /// We know an address that the attempt under way has not told.
    pub(crate) fn begin_anew(&mut self, index: usize, now: Instant) {
        self.take_link(index, "addresses changed", now);
        if let Some(peer) = self.peers[index].as_mut() {
            peer.failures = 0;
            self.knock(index, false, now);
        }
    }

    fn begin_restart(&mut self, index: usize, now: Instant) {
        let Some(link) = self.link_mut(index) else {
            return;
        };
        if link.connection.role() == Role::Offerer {
            link.restart = Some(Restart {
                since: now,
                attempt: None,
            });
            self.offer_restart(index, now);
        }
    }

    /// Offers the restart, once STUN has answered or a moment has passed.
    fn offer_restart(&mut self, index: usize, now: Instant) {
        let patient = self.gatherer.is_patient(now);
        let reflexive = self.gatherer.addresses();
        let Some(link) = self.peers[index].as_mut().and_then(|p| p.link.as_mut()) else {
            return;
        };
        let Some(restart) = link.restart.as_mut() else {
            return;
        };
        let wait = patient && now < restart.since + RESTART_PATIENCE;
        if link.connection.role() != Role::Offerer {
            return;
        }
        if wait || self.hosts.is_empty() {
            self.unsettled = true;
            return;
        }
        let attempt = random();
        restart.attempt = Some(attempt);
        self.by_ufrag
            .remove(&link.connection.credentials().local_ufrag);
        if let Some((_, remote)) = link.connection.path() {
            self.by_addr.remove(&remote);
        }
        let made = self
            .factory
            .restart_offer(&mut link.connection, &self.hosts, &reflexive, now);
        match made {
            Ok(description) => {
                let ufrag = link.connection.credentials().local_ufrag.clone();
                self.by_ufrag.insert(ufrag, index);
                self.send_signal(
                    index,
                    &Payload::Offer {
                        restart: true,
                        attempt,
                        description,
                    },
                );
                self.mark_dirty(index);
            }
            Err(error) => self.fail_to_begin(index, &error, now),
        }
    }

    fn answer_restart(&mut self, index: usize, offered: &Offered, now: Instant) {
        let reflexive = self.gatherer.addresses();
        let Some(link) = self.peers[index].as_mut().and_then(|p| p.link.as_mut()) else {
            return;
        };
        if link.connection.role() != Role::Answerer || self.hosts.is_empty() {
            return;
        }
        let attempt = offered.attempt;
        link.sequence = offered.sequence;
        link.restart = Some(Restart {
            since: now,
            attempt: Some(attempt),
        });
        self.by_ufrag
            .remove(&link.connection.credentials().local_ufrag);
        if let Some((_, remote)) = link.connection.path() {
            self.by_addr.remove(&remote);
        }
        let connection: &mut Connection = &mut link.connection;
        let offer = &offered.description;
        let made = self
            .factory
            .restart_answer(connection, offer, &self.hosts, &reflexive, now);
        match made {
            Ok(description) => {
                let ufrag = link.connection.credentials().local_ufrag.clone();
                self.by_ufrag.insert(ufrag, index);
                let nonce = random();
                let payload = Payload::Answer {
                    restart: true,
                    attempt,
                    nonce,
                    description,
                };
                self.send_signal(index, &payload);
                self.mark_dirty(index);
            }
            Err(error) => self.fail_to_begin(index, &error, now),
        }
    }

    fn send_signal(&mut self, index: usize, payload: &Payload) {
        let Some(peer) = self.peers[index].as_ref() else {
            return;
        };
        let (id, session, heard_over) = (peer.id, peer.session, peer.heard_over);
        self.post((&id, session, heard_over), payload);
    }

    /// Sends a message to a run of a peer over the carriers where it is present and the one it was heard over, and to
    /// where it was last.
    fn post(
        &mut self,
        (to, to_session, heard_over): (&PeerId, u64, Option<CarrierId>),
        payload: &Payload,
    ) {
        let Some(bytes) = self.seal(to, to_session, payload) else {
            return;
        };
        if let Some(&index) = self.by_id.get(to) {
            self.send_directly(index, &bytes);
        }
        let (links, backbone) = self.reach.ways(to);
        let heard_over_links = heard_over == Some(OVERLAY_CARRIER);
        let over_links = links || heard_over_links;
        let heard_over_backbone = heard_over.is_some() && !heard_over_links;
        self.events.push_back(Event::Signal {
            to: *to,
            bytes,
            over_links,
            over_backbone: backbone || heard_over_backbone || !over_links,
        });
    }

    /// A message for a run of a peer, as nobody else can read it.
    pub(crate) fn seal(
        &mut self,
        to: &PeerId,
        to_session: u64,
        payload: &Payload,
    ) -> Option<Bytes> {
        self.sequence += 1;
        let stamp = Stamp {
            time: (self.config.clock)(),
            session: self.session,
            sequence: self.sequence,
            to_session,
        };
        match seal(&self.config.identity, to, stamp, payload) {
            Ok(bytes) => Some(bytes.into()),
            Err(refusal) => {
                self.count(refusal.counter());
                None
            }
        }
    }
}

/// An answer, checked.
struct Answered {
    session: u64,
    sequence: u64,
    attempt: [u8; 32],
    nonce: [u8; 32],
    description: Description,
}

impl Link {
    fn new(
        connection: Connection,
        session: u64,
        sequence: u64,
        attempt: [u8; 32],
        now: Instant,
    ) -> Self {
        Self {
            connection,
            session,
            sequence,
            attempt,
            binding: None,
            auth_sent: false,
            auth_received: false,
            up: None,
            began: now,
            restart: None,
            connection_due: None,
        }
    }
}

fn random() -> Fingerprint {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system's random number generator works");
    bytes
}
