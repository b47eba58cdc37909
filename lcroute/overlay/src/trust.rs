//! Decisions about links for peers, and about addresses of this host.

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
    /// Returns whether a peer is expelled, as far as its chain is known.
    pub(crate) fn is_expelled(&self, peer: &PeerId, member: Option<&Member>) -> bool {
        self.revocations.expel(peer, member)
    }

    pub(crate) fn is_suspended(&self, peer: &PeerId, now: Instant) -> bool {
        self.suspensions.is_suspended(peer, now)
    }

    /// Returns whether a peer gets no link: it is expelled, or suspended.
    pub(crate) fn bars(&self, peer: &PeerId, member: Option<&Member>, now: Instant) -> bool {
        self.is_expelled(peer, member) || self.is_suspended(peer, now)
    }

    /// Returns the signed revocation that expels a member.
    pub(crate) fn revocation_of(&self, member: &Member) -> Option<Bytes> {
        let revoked = self.revocations.of(member)?;
        Some(revoked.revocation.clone())
    }

    /// Revokes a key; returns the number of keys that were dropped for want of room.
    pub(crate) fn revoke(&mut self, key: PeerId, revoked: Revoked) -> u64 {
        self.revocations.add(key, revoked)
    }

    /// Replaces all revoked keys; returns the number of keys that were dropped for want of room.
    pub(crate) fn set_revoked(&mut self, keys: BTreeMap<PeerId, Revoked>) -> u64 {
        self.revocations.set(keys)
    }

    pub(crate) fn revoked(&self) -> BTreeMap<PeerId, Revoked> {
        self.revocations.all()
    }

    pub(crate) fn suspend(&mut self, peer: PeerId, now: Instant) {
        self.suspensions.add(peer, now);
    }

    pub(crate) fn end_suspensions(&mut self, now: Instant) -> Vec<PeerId> {
        self.suspensions.ended(now)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.suspensions.deadline()
    }

    /// Sets the members that may learn addresses of this host; returns whether this is a change.
    pub(crate) fn set_disclosure(&mut self, disclosure: Disclosure) -> bool {
        let before = std::mem::replace(&mut self.disclosure, disclosure);
        before != self.disclosure
    }

    /// Returns whether a peer may learn addresses of this host.
    pub(crate) fn discloses_to(&self, peer: &PeerId, member: Option<&Member>) -> bool {
        self.disclosure.includes(peer, member)
    }

    /// Returns whether some members may not.
    pub(crate) fn hides_addresses(&self) -> bool {
        self.disclosure.hides()
    }
}
