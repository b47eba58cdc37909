//! Certificates that were renewed, keys that were revoked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use librecast::cert::{Chain, Member};
use librecast::id::PeerId;
use tracing::warn;

use crate::envelope::Refusal;
use crate::event::PeerState;
use crate::overlay::Overlay;

/// Most revoked keys.
const MAX_REVOKED: usize = 8_192;

/// How a key was revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// By the network's own key: then it may be an issuer's.
    pub by_network: bool,
    /// The revocation in its signed form: what the expelled are shown.
    pub record: Bytes,
}

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
    pub(crate) fn readmit(
        &mut self,
        refusal: Refusal,
        is_meant: &dyn Fn(&PeerId) -> bool,
        now: Instant,
    ) {
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

    /// A key of a node, an invitation or (by the network's key) an issuer counts no more: links to members that
    /// it made or is end at once, and they get no other.
    pub fn revoke(&mut self, key: PeerId, revoked: Revoked, now: Instant) {
        self.observe(now);
        let known = self.revoked.get(&key);
        if !known.is_some_and(|known| known.by_network) {
            self.revoked.insert(key, revoked.clone());
        }
        self.bound_revoked();
        self.expel(&BTreeMap::from([(key, revoked)]), now);
    }

    /// All keys that count no more, in place of those before; at most 8,192 are heeded.
    pub fn set_revoked(&mut self, keys: BTreeMap<PeerId, Revoked>, now: Instant) {
        self.observe(now);
        self.revoked = keys;
        self.bound_revoked();
        let keys = self.revoked.clone();
        self.expel(&keys, now);
        let rows = self.peers.iter().flatten();
        let revoked = rows.map(|peer| peer.id).filter(|id| self.is_expelled(id));
        let revoked: BTreeSet<_> = revoked.collect();
        let free = |id: &PeerId| !revoked.contains(id) && !keys.contains_key(id);
        self.readmit(Refusal::Revoked, &free, now);
        self.drain_dirty();
    }

    /// Keys that the network's own key has revoked stay: an issuer cannot push them out.
    fn bound_revoked(&mut self) {
        while self.revoked.len() > MAX_REVOKED {
            let by_issuer = self.revoked.iter().rev().find(|(_, r)| !r.by_network);
            let forgotten = by_issuer.or(self.revoked.last_key_value());
            let Some(key) = forgotten.map(|(key, _)| *key) else {
                return;
            };
            warn!(%key, "too many revoked keys: its links end, but it may come back");
            self.revoked.remove(&key);
            self.count("revocations_full");
        }
    }

    /// Ends the links of all whom such a key made or is.
    fn expel(&mut self, keys: &BTreeMap<PeerId, Revoked>, now: Instant) {
        if self.stopped {
            return;
        }
        for index in self.indices() {
            let Some(peer) = self.peers[index].as_ref() else {
                continue;
            };
            let member = peer.member.as_ref();
            if !member.map_or(keys.contains_key(&peer.id), |m| expels(m, keys).is_some()) {
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
        self.revocation_of(member).is_some()
    }

    /// The revocation that expels a member.
    pub(crate) fn revocation_of(&self, member: &Member) -> Option<Bytes> {
        expels(member, &self.revoked).map(|revoked| revoked.record.clone())
    }

    /// Whether a peer is expelled, as far as we know its chain.
    #[must_use]
    pub fn is_expelled(&self, id: &PeerId) -> bool {
        let peer = self.by_id.get(id).and_then(|i| self.peers[*i].as_ref());
        let member = peer.and_then(|peer| peer.member.as_ref());
        member.map_or(self.revoked.contains_key(id), |m| self.names_revoked(m))
    }
}

/// The one of `keys` that expels `member`.
fn expels<'a>(member: &Member, keys: &'a BTreeMap<PeerId, Revoked>) -> Option<&'a Revoked> {
    let own = member.keys.iter().chain([&member.peer]);
    own.filter_map(|key| Some((key, keys.get(key)?)))
        .find(|(key, revoked)| member.is_expelled_by(key, revoked.by_network))
        .map(|(_, revoked)| revoked)
}
