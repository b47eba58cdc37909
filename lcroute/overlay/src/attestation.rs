//! Attestations: two hosts with one node's key (a copied state folder) learn of each other by them.
//!
//! ```text
//! session 64 | session of the other run 64 | count 8 | count x candidate (as in a description)
//!   | ed25519 signature 512 over the network's key and all of the above
//! ```
//!
//! A peer that has a link to one run of a node, and receives requests of a second run while that
//! link lives, requests an attestation of both. It sends each run the other's attestation. A run
//! that finds its own session there, signed with its own key, knows that another host has the key.
//! Sessions are random, so an earlier run of this node cannot have named it. The check needs no
//! clock and no trust in the peer. Each host names its own addresses.

use std::net::SocketAddr;

use librecast::id::{NetworkId, PeerId};
use librecast::time::{Duration, Instant};
use librecast::wire::{Reader, WireError, Writer};

use crate::config::Identity;
use crate::description::Candidate;

/// Context of the signature (domain separation).
const CONTEXT: &str = "lcroute 2026 attestation";
/// Maximum number of addresses in an attestation. Chosen: enough to find a host.
const MAX_ADDRESSES: usize = 4;
/// Longest encoded attestation in bytes.
pub(crate) const MAX_ATTESTATION: usize = 8 + 8 + 1 + MAX_ADDRESSES * 20 + 64;
/// Time for which a second run must send requests beside a live link before both runs are asked.
/// Chosen: the link of a peer that was killed and restarted has ended by then.
const SUSPICIOUS_AFTER: Duration = Duration::from_secs(2);
/// Pause between requests to two runs that attested. Chosen: hosts store a conflict for 300 s.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Pause before the runs are asked again if one of them has not answered. Chosen: longer than a
/// round trip through a signalling server.
const UNANSWERED_AFTER: Duration = Duration::from_secs(5);
/// Maximum number of stored runs beside the linked one. Chosen: the other host, and a restart.
pub(crate) const MAX_OTHER_RUNS: usize = 2;
/// Time for which a conflict is shown. Chosen: a few requests may get lost.
const SHOWN_FOR: Duration = Duration::from_secs(300);

/// A signed statement of one run of a node's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attestation {
    pub(crate) session: u64,
    /// The run that it attests beside.
    pub(crate) other: u64,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Attestation {
    /// Signs the attestation of this run, with at most four of its addresses.
    pub(crate) fn sign(
        identity: &Identity,
        (session, other): (u64, u64),
        candidates: &[Candidate],
    ) -> Vec<u8> {
        let candidates = &candidates[..candidates.len().min(MAX_ADDRESSES)];
        let mut w = Writer::new();
        w.u64(session).u64(other);
        w.u8(candidates.len() as u8);
        for candidate in candidates {
            candidate.write(&mut w);
        }
        let signed = signed_bytes(&identity.network, w.as_slice());
        w.put(&identity.key.sign(CONTEXT, &signed));
        w.into_vec()
    }

    pub(crate) fn open(
        bytes: &[u8],
        network: &NetworkId,
        signer: &PeerId,
    ) -> Result<Self, WireError> {
        let (signed, signature) = bytes
            .split_last_chunk()
            .ok_or(WireError::Bad("attestation"))?;
        let verified = signer.verify(CONTEXT, &signed_bytes(network, signed), signature);
        verified.map_err(|_| WireError::Bad("signature"))?;
        let mut r = Reader::new(signed);
        let (session, other) = (r.u64()?, r.u64()?);
        let count = usize::from(r.u8()?);
        if count > MAX_ADDRESSES {
            return Err(WireError::Bad("addresses"));
        }
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            addresses.push(Candidate::read(&mut r)?.addr);
        }
        r.finish()?;
        Ok(Self {
            session,
            other,
            addresses,
        })
    }
}

fn signed_bytes(network: &NetworkId, attestation: &[u8]) -> Vec<u8> {
    [network.public_key(), attestation].concat()
}

/// Another run of a linked peer's process, with the attestations of both.
#[derive(Debug)]
pub(crate) struct OtherRun {
    pub(crate) session: u64,
    linked_session: u64,
    /// Time of the first request for attestations.
    suspicious_from: Instant,
    asked_at: Option<Instant>,
    proven_at: Option<Instant>,
    /// Attestations of the linked run and of the other one, with their encoding.
    linked: Option<(Vec<u8>, Attestation)>,
    other: Option<(Vec<u8>, Attestation)>,
}

/// Proof that two hosts have one key: the attestation for each, and the addresses of both.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// True for the first proof about these two runs.
    pub(crate) is_first: bool,
    pub(crate) for_linked: Vec<u8>,
    pub(crate) for_other: Vec<u8>,
    pub(crate) linked_at: Vec<SocketAddr>,
    pub(crate) other_at: Vec<SocketAddr>,
}

impl OtherRun {
    pub(crate) fn new((session, linked_session): (u64, u64), now: Instant) -> Self {
        Self {
            session,
            linked_session,
            suspicious_from: now + SUSPICIOUS_AFTER,
            asked_at: None,
            proven_at: None,
            linked: None,
            other: None,
        }
    }

    /// Returns this run beside the present linked run; if that has changed, both are asked at once.
    pub(crate) fn beside(self, linked_session: u64, now: Instant) -> Self {
        if self.linked_session == linked_session {
            return self;
        }
        Self {
            suspicious_from: now,
            ..Self::new((self.session, linked_session), now)
        }
    }

    /// Returns whether both are to be asked now; if so, they count as asked.
    pub(crate) fn ask(&mut self, now: Instant) -> bool {
        let due = match self.asked_at {
            None => self.suspicious_from,
            Some(at) if self.proven_at < Some(at) => at + UNANSWERED_AFTER,
            Some(at) => at + ASKED_AGAIN_AFTER,
        };
        if now < due {
            return false;
        }
        self.asked_at = Some(now);
        (self.linked, self.other) = (None, None);
        true
    }

    /// Returns whether both hosts are known to run.
    pub(crate) fn is_proven(&self, now: Instant) -> bool {
        self.proven_at.is_some_and(|at| now < at + SHOWN_FOR)
    }

    /// Stores an attestation of one run. Returns the proof once both have answered, once per
    /// request.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        attestation: Attestation,
        linked: u64,
        now: Instant,
    ) -> Option<Proof> {
        self.asked_at?;
        let place = match (attestation.session, attestation.other) {
            runs if runs == (linked, self.session) => &mut self.linked,
            runs if runs == (self.session, linked) => &mut self.other,
            _ => return None,
        };
        if place.is_some() {
            return None;
        }
        *place = Some((bytes.to_vec(), attestation));
        let ((linked, at), (other, other_at)) = self.linked.as_ref().zip(self.other.as_ref())?;
        Some(Proof {
            is_first: self.proven_at.replace(now).is_none(),
            for_linked: other.clone(),
            for_other: linked.clone(),
            linked_at: at.addresses.clone(),
            other_at: other_at.addresses.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use librecast::cert::{Chain, Grant};
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;
    use crate::description::CandidateKind;

    fn identity(seed: u8) -> Identity {
        let (network, node) = (
            SecretKey::from_seed(&[1; 32]),
            SecretKey::from_seed(&[seed; 32]),
        );
        let grant = Grant::new("node", (0, 9));
        let issuing = Grant {
            name: String::new(),
            ..grant.clone()
        };
        let chain = Chain::sign(&network, (&node, issuing), (node.peer_id(), grant));
        Identity::new(Arc::new(node), network.peer_id(), chain.unwrap())
    }

    fn candidates(n: u16) -> Vec<Candidate> {
        let candidate = |port| Candidate {
            kind: CandidateKind::Host,
            addr: SocketAddr::from(([192, 0, 2, 1], port)),
        };
        (1..=n).map(candidate).collect()
    }

    #[test]
    fn only_who_has_the_key_attests_and_what_it_says_comes_back() {
        let own = identity(2);
        let bytes = Attestation::sign(&own, (7, 8), &candidates(20));
        assert!(bytes.len() <= MAX_ATTESTATION);
        let read = Attestation::open(&bytes, &own.network, &own.peer_id()).unwrap();
        assert_eq!((read.session, read.other), (7, 8));
        assert_eq!(read.addresses.len(), MAX_ADDRESSES);
        let other = identity(3).peer_id();
        assert!(Attestation::open(&bytes, &own.network, &other).is_err());
        assert!(
            Attestation::open(&bytes, &other, &own.peer_id()).is_err(),
            "network"
        );
    }

    #[test]
    fn two_are_asked_once_the_second_has_shown_itself_for_long_and_again_after_a_pause() {
        let now = crate::tests::start();
        let attest = |session, other| Attestation {
            session,
            other,
            addresses: Vec::new(),
        };
        let mut run = OtherRun::new((2, 1), now);
        assert!(!run.ask(now));
        assert_eq!(
            run.take(b"", attest(1, 2), 1, now),
            None,
            "nobody was asked"
        );
        let now = now + SUSPICIOUS_AFTER;
        assert!(run.ask(now) && !run.ask(now));
        let now = now + UNANSWERED_AFTER;
        assert!(run.ask(now) && !run.ask(now), "nobody answered");
        assert_eq!(run.take(b"a", attest(1, 2), 1, now), None);
        assert_eq!(run.take(b"", attest(2, 9), 1, now), None, "of another time");
        assert_eq!(run.take(b"", attest(3, 1), 1, now), None, "of a third run");
        let proof = run.take(b"b", attest(2, 1), 1, now).unwrap();
        assert!(proof.is_first);
        assert_eq!(proof.for_linked, b"b");
        assert_eq!(proof.for_other, b"a");
        assert_eq!(run.take(b"b", attest(2, 1), 1, now), None, "once");
        assert!(!run.ask(now + UNANSWERED_AFTER), "both answered");
        assert!(run.ask(now + ASKED_AGAIN_AFTER));
        assert!(run.is_proven(now) && !run.is_proven(now + SHOWN_FOR));
        let mut same = run.beside(1, now);
        assert!(!same.ask(now + SUSPICIOUS_AFTER), "asked a moment ago");
        let mut moved = same.beside(3, now);
        assert!(
            moved.ask(now) && !moved.is_proven(now),
            "beside another run"
        );
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_refused(at in 0_usize..200, by in 1_u8..) {
            let own = identity(2);
            let mut bytes = Attestation::sign(&own, (7, 8), &candidates(2));
            let at = at % bytes.len();
            bytes[at] ^= by;
            prop_assert!(Attestation::open(&bytes, &own.network, &own.peer_id()).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let own = identity(2);
            prop_assert!(Attestation::open(&bytes, &own.network, &own.peer_id()).is_err());
        }
    }
}
