//! The engine's services: this node's key, other nodes' certificates, the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use lcroute_engine::{Aead, Credential, Revocation, SIGNATURE_CONTEXT, Services, signed_message};
use librecast::cert::{CLOCK_SKEW, CertError, Chain};
use librecast::id::{NetworkId, PeerId, SecretKey, derive};
use librecast::revocation::{self, RevocationError};
use librecast::time::{UnixTime, WallClock};

/// Maximum number of chains with remembered verification: the bound of a network's routers.
const MAX_CHAINS: usize = 4_096;

/// Function that makes a cipher from a key.
pub type MakeAead = fn(&[u8; 16]) -> Option<Box<dyn Aead>>;

/// The services of a real node.
#[derive(Debug)]
pub struct HostServices {
    key: Arc<SecretKey>,
    network: NetworkId,
    clock: WallClock,
    aead: Option<MakeAead>,
    verified: Mutex<Verified>,
}

/// Verified chains, by hash; the oldest are dropped first.
#[derive(Debug, Default)]
struct Verified {
    chains: BTreeMap<[u8; 32], (u64, Good)>,
    order: BTreeSet<(u64, [u8; 32])>,
    next: u64,
}

#[derive(Debug, Clone)]
struct Good {
    credential: Arc<Credential>,
    /// Unix seconds between which it is valid, the clock difference included.
    valid: (u64, u64),
}

impl HostServices {
    /// Returns the services of the node with `key` in `network`.
    pub fn new(key: Arc<SecretKey>, network: NetworkId, clock: WallClock) -> Self {
        Self {
            key,
            network,
            clock,
            aead: None,
            verified: Mutex::default(),
        }
    }

    /// Returns the same with ciphers.
    #[must_use]
    pub fn with_aead(mut self, aead: Option<MakeAead>) -> Self {
        self.aead = aead;
        self
    }
}

impl Services for HostServices {
    fn unix_now(&self) -> UnixTime {
        self.clock.now()
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let message = signed_message(&self.network, message);
        self.key.sign(SIGNATURE_CONTEXT, &message)
    }

    fn verify(&self, signer: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        let message = signed_message(&self.network, message);
        signer
            .verify(SIGNATURE_CONTEXT, &message, signature)
            .is_ok()
    }

    fn verify_chain(&self, chain: &[u8]) -> Result<Arc<Credential>, CertError> {
        let (now, hash) = (self.unix_now(), derive("lcroute 2026 chain memo", &[chain]));
        // a panic elsewhere leaves no inconsistent state
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, good)) = verified.chains.get(&hash)
            && (good.valid.0..=good.valid.1).contains(&now.as_secs())
        {
            return Ok(good.credential.clone());
        }
        let good = verify(chain, &self.network, now)?;
        let credential = good.credential.clone();
        verified.insert(hash, good);
        Ok(credential)
    }

    fn verify_revocation(&self, bytes: &[u8]) -> Result<Revocation, RevocationError> {
        let revocation = revocation::Revocation::decode(bytes)?;
        revocation.verify(&self.network)?;
        Ok(Revocation {
            key: revocation.key(),
            by_network: revocation.is_by_network(),
            until: revocation.until(),
        })
    }

    fn aead(&self, key: &[u8; 16]) -> Option<Box<dyn Aead>> {
        self.aead.and_then(|make| make(key))
    }
}

fn verify(chain: &[u8], network: &NetworkId, now: UnixTime) -> Result<Good, CertError> {
    let chain = Chain::decode(chain)?;
    let member = chain.verify(network, now)?;
    let valid = (
        chain.issued().saturating_sub(CLOCK_SKEW),
        chain.not_after().saturating_add(CLOCK_SKEW),
    );
    let credential = Credential {
        can_issue: member.is_issuer(),
        issued: chain.issued(),
        keys: member.keys.iter().copied().collect(),
        member,
    };
    Ok(Good {
        credential: Arc::new(credential),
        valid,
    })
}

impl Verified {
    fn insert(&mut self, hash: [u8; 32], good: Good) {
        self.next += 1;
        if let Some((old, _)) = self.chains.insert(hash, (self.next, good)) {
            self.order.remove(&(old, hash));
        }
        self.order.insert((self.next, hash));
        if self.order.len() > MAX_CHAINS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.chains.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use librecast::revocation::Revocation as Signed;

    use super::*;
    use crate::testing::{chains, key};

    const NOW: u64 = 1_800_000_000;
    static CLOCK: AtomicU64 = AtomicU64::new(NOW);

    fn services(network: &SecretKey, clock: fn() -> UnixTime) -> HostServices {
        let key = Arc::new(key(2));
        HostServices::new(key, network.peer_id(), WallClock::new(clock))
    }

    #[test]
    fn a_chain_that_was_good_ends_when_its_time_is_over() {
        let network = key(1);
        let services = services(&network, || {
            UnixTime::from_secs(CLOCK.load(Ordering::SeqCst))
        });
        // valid for 1,000 s
        let (chain, _) = chains(&network, UnixTime::from_secs(NOW));
        let bytes = chain.encode();
        let first = services.verify_chain(&bytes).unwrap();
        assert!(first.can_issue && first.issued == NOW);
        let again = services.verify_chain(&bytes).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "verified once");
        CLOCK.store(NOW + 1_000 + CLOCK_SKEW, Ordering::SeqCst);
        assert!(services.verify_chain(&bytes).is_ok());
        CLOCK.store(NOW + 1_001 + CLOCK_SKEW, Ordering::SeqCst);
        assert!(matches!(
            services.verify_chain(&bytes),
            Err(CertError::Expired(_))
        ));
        CLOCK.store(NOW - 1 - CLOCK_SKEW, Ordering::SeqCst);
        assert!(matches!(
            services.verify_chain(&bytes),
            Err(CertError::NotYetValid(_))
        ));
    }

    #[test]
    fn other_networks_and_damage_are_refused_and_not_remembered() {
        let (network, other) = (key(1), key(3));
        let services = services(&network, || UnixTime::from_secs(NOW));
        let foreign = chains(&other, UnixTime::from_secs(NOW)).0.encode();
        let mut damaged = chains(&network, UnixTime::from_secs(NOW)).0.encode();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let reasons = [
            services.verify_chain(&foreign),
            services.verify_chain(&damaged),
            services.verify_chain(b"garbage"),
        ];
        assert!(matches!(
            reasons,
            [
                Err(CertError::OtherNetwork),
                Err(CertError::Forged(_)),
                Err(CertError::Malformed(_))
            ]
        ));
        assert_eq!(services.verified.lock().unwrap().chains.len(), 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let network = key(1);
        let (chain, _) = chains(&network, UnixTime::from_secs(NOW));
        let good = verify(
            &chain.encode(),
            &network.peer_id(),
            UnixTime::from_secs(NOW),
        )
        .unwrap();
        let mut verified = Verified::default();
        for n in 0..MAX_CHAINS as u64 + 10 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            verified.insert(hash, good.clone());
            // a repeated chain gets a new place, and is stored once
            verified.insert(hash, good.clone());
        }
        assert_eq!(
            (verified.chains.len(), verified.order.len()),
            (MAX_CHAINS, MAX_CHAINS)
        );
        assert!(!verified.chains.contains_key(&[0; 32]), "the oldest went");
    }

    #[test]
    fn revocations_say_who_signed_them() {
        let network = key(1);
        let services = services(&network, || UnixTime::from_secs(NOW));
        let node = key(4).peer_id();
        let signed = Signed::by_network(&network, node, UnixTime::from_secs(NOW), NOW + 5).unwrap();
        let read = services.verify_revocation(signed.as_bytes()).unwrap();
        assert_eq!(
            (read.key, read.by_network, read.until),
            (node, true, NOW + 5)
        );
        let foreign = Signed::by_network(&key(3), node, UnixTime::from_secs(NOW), NOW + 5).unwrap();
        let refused = services.verify_revocation(foreign.as_bytes());
        assert_eq!(refused.err(), Some(RevocationError::OtherNetwork));
    }

    #[test]
    fn signatures_are_of_this_node() {
        let services = services(&key(1), || UnixTime::from_secs(NOW));
        let signature = services.sign(b"message");
        assert!(services.verify(&services.key.peer_id(), b"message", &signature));
        assert!(!services.verify(&services.key.peer_id(), b"other", &signature));
        let stranger = key(3).peer_id();
        assert!(!services.verify(&stranger, b"message", &signature));
        let clock = WallClock::new(|| UnixTime::from_secs(NOW));
        let elsewhere = HostServices::new(services.key.clone(), stranger, clock);
        let own = services.key.peer_id();
        assert!(
            !elsewhere.verify(&own, b"message", &signature),
            "on another network"
        );
    }
}
