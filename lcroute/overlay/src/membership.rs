//! Certificates that were renewed, keys that were revoked.

use std::collections::{BTreeMap, BTreeSet};
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

    /// A key of a node, an invitation or (by the network's key) an issuer counts no more: links to members that
    /// it made or is end at once, and they get no other.
    pub fn revoke(&mut self, key: PeerId, by_network: bool, now: Instant) {
        self.observe(now);
        if let Some(by) = self.revoked.get_mut(&key) {
            *by |= by_network;
        } else if self.revoked.len() < MAX_REVOKED {
            self.revoked.insert(key, by_network);
        } else {
            warn!(%key, "too many revoked keys: its links end, but it may come back");
            self.count("revocations_full");
        }
        self.expel(&BTreeMap::from([(key, by_network)]), now);
    }

    /// All keys that count no more, and whether the network's key said so, in place of those before; at most
    /// 8,192 are heeded.
    pub fn set_revoked(&mut self, keys: BTreeMap<PeerId, bool>, now: Instant) {
        self.observe(now);
        self.revoked = keys;
        while self.revoked.len() > MAX_REVOKED {
            self.revoked.pop_last();
            self.count("revocations_full");
        }
        let keys = self.revoked.clone();
        self.expel(&keys, now);
        let rows = self.peers.iter().flatten();
        let revoked = rows.map(|peer| peer.id).filter(|id| self.is_revoked(id));
        let revoked: BTreeSet<_> = revoked.collect();
        let free = |id: &PeerId| !revoked.contains(id) && !keys.contains_key(id);
        self.readmit(Refusal::Revoked, &free, now);
        self.drain_dirty();
    }

    /// Ends the links of all whom such a key made or is.
    fn expel(&mut self, keys: &BTreeMap<PeerId, bool>, now: Instant) {
        if self.stopped {
            return;
        }
        for index in self.indices() {
            let Some(peer) = self.peers[index].as_ref() else {
                continue;
            };
            let member = peer.member.as_ref();
            if !member.map_or(keys.contains_key(&peer.id), |m| is_expelled(m, keys)) {
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
        is_expelled(member, &self.revoked)
    }

    /// Whether a peer is expelled, as far as we know its chain.
    pub(crate) fn is_revoked(&self, id: &PeerId) -> bool {
        let peer = self.by_id.get(id).and_then(|i| self.peers[*i].as_ref());
        let member = peer.and_then(|peer| peer.member.as_ref());
        member.map_or(self.revoked.contains_key(id), |m| self.names_revoked(m))
    }
}

fn is_expelled(member: &Member, keys: &BTreeMap<PeerId, bool>) -> bool {
    let by = |key: &PeerId| keys.get(key).map(|by_network| (*key, *by_network));
    let named = member.keys.iter().chain([&member.peer]).filter_map(by);
    named
        .into_iter()
        .any(|(key, by_network)| member.is_expelled_by(&key, by_network))
}
