//! Whom this node gives links, and who may learn addresses of this host.

use std::collections::BTreeMap;

use bytes::Bytes;
use librecast::cert::Member;
use librecast::id::PeerId;
use librecast::time::Instant;

use crate::disclosure::Disclosure;
use crate::revocations::{Revocations, Revoked};
use crate::suspension::Suspensions;

/// Revocations, suspensions and disclosure.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    revocations: Revocations,
    suspensions: Suspensions,
    disclosure: Disclosure,
}

impl Trust {
    /// Whether a peer is expelled, as far as its chain is known.
    pub(crate) fn is_expelled(&self, peer: &PeerId, member: Option<&Member>) -> bool {
        self.revocations.expel(peer, member)
    }

    /// Whether a peer gets no link for a while.
    pub(crate) fn is_suspended(&self, peer: &PeerId, now: Instant) -> bool {
        self.suspensions.is_suspended(peer, now)
    }

    /// Whether a peer gets no link: it is expelled, or suspended.
    pub(crate) fn bars(&self, peer: &PeerId, member: Option<&Member>, now: Instant) -> bool {
        self.is_expelled(peer, member) || self.is_suspended(peer, now)
    }

    /// The revocation that expels a member, in its signed form.
    pub(crate) fn revocation_of(&self, member: &Member) -> Option<Bytes> {
        let revoked = self.revocations.of(member)?;
        Some(revoked.revocation.clone())
    }

    /// A key does not count any more; how many others were forgotten for want of room.
    pub(crate) fn revoke(&mut self, key: PeerId, revoked: Revoked) -> u64 {
        self.revocations.add(key, revoked)
    }

    /// All keys that do not count any more, in place of those before; how many were forgotten for want of room.
    pub(crate) fn set_revoked(&mut self, keys: BTreeMap<PeerId, Revoked>) -> u64 {
        self.revocations.set(keys)
    }

    /// The keys that do not count.
    pub(crate) fn revoked(&self) -> BTreeMap<PeerId, Revoked> {
        self.revocations.all()
    }

    /// A peer gets no link for a while.
    pub(crate) fn suspend(&mut self, peer: PeerId, now: Instant) {
        self.suspensions.add(peer, now);
    }

    /// Peers that may have a link again.
    pub(crate) fn end_suspensions(&mut self, now: Instant) -> Vec<PeerId> {
        self.suspensions.ended(now)
    }

    /// When [`Self::end_suspensions`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.suspensions.deadline()
    }

    /// Who may learn addresses of this host from now on; whether that is another than before.
    pub(crate) fn set_disclosure(&mut self, disclosure: Disclosure) -> bool {
        let before = std::mem::replace(&mut self.disclosure, disclosure);
        before != self.disclosure
    }

    /// Whether a peer may learn addresses of this host.
    pub(crate) fn discloses_to(&self, peer: &PeerId, member: Option<&Member>) -> bool {
        self.disclosure.includes(peer, member)
    }

    /// Whether there are members that may not.
    pub(crate) fn hides_addresses(&self) -> bool {
        self.disclosure.hides()
    }
}
