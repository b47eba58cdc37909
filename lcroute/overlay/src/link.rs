//! The life of a link: channels open, both sides authenticate, it is up; it ends and is tried
//! again.

use librecast::cert::CLOCK_SKEW;
use librecast::id::PeerId;
use librecast::time::{Duration, UnixTime};

use crate::auth::Role;
use crate::connections::Connections;
use crate::envelope::Refusal;
use crate::event::EndReason;
use crate::info::PeerState;
use crate::negotiate::is_stuck;
use crate::parts::Parts;
use crate::peer::Peer;

/// Lifetime of a link after which the next attempt begins at once.
const STABLE: Duration = Duration::from_secs(5);
/// Bound of the data channel's queue to a leaf, in bytes. Chosen: 4 s of speech; 512 are 32 MiB.
const LEAF_QUEUE: usize = 64 << 10;
/// Failed attempts that a protocol violation counts as: the peer is not tried again at once.
const BROKE_PROTOCOL: u32 = 3;

impl Peer {
    /// Sends Auth once both channels are open, if the DTLS fingerprint is the signalled one.
    pub(crate) fn handle_open<C: Connections>(&mut self, parts: &mut Parts<C>) {
        let Some(link) = self.link.as_mut().filter(|link| !link.auth_sent) else {
            return;
        };
        let Some(binding) = link.binding.as_ref() else {
            return;
        };
        let signalled = match link.role {
            Role::Offerer => binding.answerer_fingerprint,
            Role::Answerer => binding.offerer_fingerprint,
        };
        if parts.connections.remote_fingerprint(link.id) != Some(signalled) {
            return self.fail_auth(parts);
        }
        let auth = binding.sign(&parts.session.identity().key, link.role);
        let sent = parts.connections.send_control(link.id, &auth, parts.now);
        link.auth_sent = sent.is_ok();
        self.raise_link(parts);
    }

    /// Handles the first control message: the link accepts no other before it is verified.
    pub(crate) fn handle_auth<C: Connections>(&mut self, message: &[u8], parts: &mut Parts<C>) {
        let Some(link) = self.link.as_mut() else {
            return;
        };
        let role = link.role.other();
        let binding = link.binding.as_ref();
        let genuine = binding.is_some_and(|b| b.verify(role, message));
        // a second message before the link is up is as wrong as a bad one
        if !genuine || link.auth_received {
            return self.fail_auth(parts);
        }
        link.auth_received = true;
        self.raise_link(parts);
    }

    /// Raises the link once each side has authenticated to the other.
    fn raise_link<C: Connections>(&mut self, parts: &mut Parts<C>) {
        let now = parts.now;
        let (Some(link), Some(member)) = (self.link.as_mut(), self.member.clone()) else {
            return;
        };
        if !link.auth_sent || !link.auth_received {
            return;
        }
        debug_assert!(link.up.is_none(), "each side authenticates once");
        let (id, session) = (link.id, link.session);
        if member.leaf {
            let address = parts.connections.path(id).map(|path| path.remote.ip());
            if !parts.leaf_places.admit(id, address, parts.limits.leaves) {
                return self.end_refused(Refusal::Full, parts);
            }
        }
        link.up = Some(now);
        parts.links.raise();
        let answers = answers_hellos(link.role, [&parts.own, &member.peer]);
        parts.connections.authenticated(id, answers, now);
        if member.leaf {
            parts.connections.bound_data_queue(id, LEAF_QUEUE);
        }
        self.set_state(PeerState::Connected, None, now);
        (self.waiting, self.keep_until) = (None, None);
        self.failures = 0;
        parts.outputs.link_up(id, member, now);
        parts.places.found(&self.id);
        self.count_success(parts);
        self.ask_proven_runs(session, parts);
    }

    fn fail_auth<C: Connections>(&mut self, parts: &mut Parts<C>) {
        self.failures = self.failures.max(BROKE_PROTOCOL);
        self.end_refused(Refusal::Auth, parts);
    }

    pub(crate) fn handle_other_control<C: Connections>(
        &mut self,
        theirs: u8,
        parts: &mut Parts<C>,
    ) {
        let ours = parts.session.identity().speaks.control;
        self.end_refused(Refusal::of_control(theirs, ours), parts);
    }

    pub(crate) fn end_refused<C: Connections>(&mut self, refusal: Refusal, parts: &mut Parts<C>) {
        self.end_link(EndReason::Refused(refusal.reason()), parts);
        self.refuse(refusal, parts);
    }

    pub(crate) fn end_broken<C: Connections>(&mut self, reason: EndReason, parts: &mut Parts<C>) {
        self.failures = self.failures.max(BROKE_PROTOCOL);
        self.end_link(reason, parts);
    }

    pub(crate) fn has_expired<C>(&self, parts: &Parts<C>) -> bool {
        let member = self.member.as_ref().filter(|_| self.up().is_some());
        member.is_some_and(|m| {
            parts.clock.now() > UnixTime::from_secs(m.not_after.saturating_add(CLOCK_SKEW))
        })
    }

    pub(crate) fn handle_timeout<C: Connections>(&mut self, parts: &mut Parts<C>) {
        self.judge_failure(parts);
        let now = parts.now;
        // an expired time is not a deadline, even if the peer stays for other reasons
        self.keep_until = self.keep_until.filter(|until| now < *until);
        if let Some(link) = self.link.as_ref() {
            if link.up.is_none() && now >= link.attempt_deadline(parts.limits.attempt) {
                let reason = if link.awaits_answer {
                    EndReason::NoAnswer
                } else {
                    EndReason::NoDirectPath
                };
                self.end_link(reason, parts);
            } else if is_stuck(link, now) {
                self.end_link(EndReason::NoPathAfterMove, parts);
            }
        }
        if self.link.is_none() && self.retry_at.is_some_and(|at| at <= now) {
            self.request(false, parts);
        }
        self.request_straight(parts);
    }

    /// Ends and reports the link. A wanted one is tried again, at once if it lived for `STABLE`.
    pub(crate) fn end_link<C: Connections>(&mut self, reason: EndReason, parts: &mut Parts<C>) {
        let now = parts.now;
        let path = self.up().and_then(|link| parts.connections.path(link.id));
        let lived = self.take_link(reason, parts);
        if let Some(path) = path.filter(|_| reason == EndReason::Silent) {
            parts.places.hear(self.id, path, now);
        }
        if lived.is_some() {
            let insist = reason == EndReason::Silent && parts.wanted.contains(&self.id);
            parts.places.ask_again(&self.id, insist, now);
        }
        if parts.stopped {
            return;
        }
        let tries = self.may_be_tried(parts);
        let state = if lived.is_some() || self.state == PeerState::Lost {
            PeerState::Lost
        } else {
            PeerState::Connecting
        };
        self.set_state(state, Some(reason.text()), now);
        self.keep_until = None;
        if lived.is_some_and(|lived| lived >= STABLE) && self.failures < BROKE_PROTOCOL {
            self.failures = 0;
            self.retry_at = tries.then_some(now);
        } else {
            let pause = parts.pause(self.failures);
            self.retry_at = tries.then_some(now + pause);
            self.failures = self.failures.saturating_add(1);
        }
        if lived.is_none() {
            self.count_failure(parts);
        }
        self.settle(parts);
        if parts.trust.is_suspended(&self.id, now) {
            self.refuse(Refusal::Panicked, parts);
        }
    }

    /// Removes the link and notifies the peer; returns the time for which it was up, if it was.
    pub(crate) fn take_link<C: Connections>(
        &mut self,
        reason: EndReason,
        parts: &mut Parts<C>,
    ) -> Option<Duration> {
        let link = self.link.take()?;
        let now = parts.now;
        parts.links.remove(link.id, link.up.is_some());
        parts.leaf_places.remove(link.id);
        let closing = parts.connections.close(link.id, now);
        self.traffic = self.traffic.plus(closing.traffic);
        if let Some((panic, proven)) = closing.panic {
            // no immediate retry: the panic may repeat each time
            self.failures = self.failures.max(BROKE_PROTOCOL);
            let panic = (panic.as_str(), proven);
            let peer = (self.id, self.name());
            parts.outputs.count_panic(peer, panic, now);
            if proven {
                parts.trust.suspend(self.id, now);
            }
        }
        let since = link.up?;
        let peer = (self.id, self.name());
        parts.outputs.link_down(link.id, peer, reason, now);
        Some(now.saturating_duration_since(since))
    }
}

/// Returns whether this end of a link answers hellos instead of sending them. The last bits of both
/// keys decide, so that a node answers for half of its peers.
fn answers_hellos(role: Role, keys: [&PeerId; 2]) -> bool {
    let [own, peer] = keys.map(|id| id.public_key()[31]);
    (role == Role::Answerer) ^ ((own ^ peer) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn one_end_of_each_link_answers_hellos_and_a_node_does_so_for_half_of_its_peers() {
        let id = |n: u8| SecretKey::from_seed(&[n; 32]).peer_id();
        let own = id(0);
        let answered = (1..=200).filter(|n| {
            let peer = id(*n);
            let (role, other) = if own < peer {
                (Role::Offerer, Role::Answerer)
            } else {
                (Role::Answerer, Role::Offerer)
            };
            let answers = answers_hellos(role, [&own, &peer]);
            assert_ne!(answers, answers_hellos(other, [&peer, &own]));
            answers
        });
        let count = answered.count();
        assert!((70..130).contains(&count), "{count}");
    }
}
