//! Certificates that were renewed, keys that were revoked.

use std::collections::BTreeSet;
use std::time::Instant;

use librecast::cert::{Chain, Member};
use librecast::id::PeerId;
use tracing::warn;

use crate::envelope::Refusal;
use crate::event::PeerState;
use crate::overlay::Overlay;

/// Most revoked keys.
const MAX_REVOKED: usize = 8_192;

impl Overlay {
    /// Our own renewed certificate: what is signed from now on carries it. Links need not know, the
    /// far sides hear of it by [`Self::refresh_member`].
    pub fn set_identity_chain(&mut self, chain: Chain, now: Instant) {
        self.observe(now);
        self.config.identity.chain = chain;
    }

    /// A peer's certificate was renewed, and has been verified: its link lives as long as that one.
    pub fn refresh_member(&mut self, member: Member, now: Instant) {
        self.observe(now);
        let id = member.peer;
        if self.stopped || self.names_revoked(&member) {
            return;
        }
        let known = self.by_id.get(&id).copied();
        if let Some(peer) = known.and_then(|index| self.peers[index].as_mut()) {
            peer.member = Some(member);
        }
        self.readmit(Refusal::CertificateExpired, &|refused| *refused == id, now);
        self.drain_dirty();
    }

    /// Those of whom `is_meant` is true, and who were refused for this, are not any more.
    fn readmit(&mut self, refusal: Refusal, is_meant: &dyn Fn(&PeerId) -> bool, now: Instant) {
        let reason = refusal.reason();
        self.refused
            .retain(|id, (why, _)| *why != reason || !is_meant(id));
        for index in self.indices() {
            let Some(peer) = self.peers[index].as_mut() else {
                continue;
            };
            let refused = peer.state == PeerState::Refused && peer.reason == Some(reason);
            if !refused || !is_meant(&peer.id) {
                continue;
            }
            peer.set_state(PeerState::Connecting, None, now);
            let id = peer.id;
            self.mark_dirty(index);
            if self.may_try(&id) {
                self.begin_trying(id, now);
            }
        }
    }

    /// A key of a node, an invitation or an issuer counts no more: links to members that it made or is
    /// end at once, and they get no other.
    pub fn revoke(&mut self, key: PeerId, now: Instant) {
        self.observe(now);
        if self.revoked.len() < MAX_REVOKED {
            self.revoked.insert(key);
        } else if !self.revoked.contains(&key) {
            warn!(%key, "too many revoked keys: its links end, but it may come back");
            self.count("revocations_full");
        }
        self.expel(&|revoked| *revoked == key, now);
    }

    /// All keys that count no more, in place of those before; at most 8,192 are heeded.
    pub fn set_revoked(&mut self, keys: BTreeSet<PeerId>, now: Instant) {
        self.observe(now);
        self.revoked = keys;
        while self.revoked.len() > MAX_REVOKED {
            self.revoked.pop_last();
            self.count("revocations_full");
        }
        let keys = self.revoked.clone();
        self.expel(&|key| keys.contains(key), now);
        let rows = self.peers.iter().flatten();
        let revoked = rows.map(|peer| peer.id).filter(|id| self.is_revoked(id));
        let revoked: BTreeSet<_> = revoked.collect();
        let free = |id: &PeerId| !revoked.contains(id) && !keys.contains(id);
        self.readmit(Refusal::Revoked, &free, now);
        self.drain_dirty();
    }

    /// Ends the links of all whom such a key made or is.
    fn expel(&mut self, is_revoked: &dyn Fn(&PeerId) -> bool, now: Instant) {
        if self.stopped {
            return;
        }
        for index in self.indices() {
            let Some(peer) = self.peers[index].as_ref() else {
                continue;
            };
            let made_by = peer.member.iter().flat_map(|member| &member.keys);
            if !made_by.chain([&peer.id]).any(is_revoked) {
                continue;
            }
            let id = peer.id;
            self.stop_trying(index);
            if let Some(peer) = self.peers[index].as_mut() {
                peer.waiting = None;
            }
            self.end_link(index, Refusal::Revoked.reason(), now);
            self.refuse(Refusal::Revoked, Some(id), now);
        }
        self.drain_dirty();
    }

    /// Whether a key of this member's chain is revoked.
    pub(crate) fn names_revoked(&self, member: &Member) -> bool {
        let mut keys = member.keys.iter().chain([&member.peer]);
        keys.any(|key| self.revoked.contains(key))
    }

    /// Whether a peer is expelled, as far as we know its chain.
    pub(crate) fn is_revoked(&self, id: &PeerId) -> bool {
        let peer = self.by_id.get(id).and_then(|i| self.peers[*i].as_ref());
        let member = peer.and_then(|peer| peer.member.as_ref());
        self.revoked.contains(id) || member.is_some_and(|member| self.names_revoked(member))
    }
}
