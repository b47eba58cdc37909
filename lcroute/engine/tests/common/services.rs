//! A network with real keys and certificates. Its nodes are numbered. A verification by one node
//! counts for all nodes of the same process.
//!
//! The engine's own unit tests use this file, too.

#![allow(dead_code, reason = "each test program takes what it needs")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes128Gcm, KeyInit};
use bytes::Bytes;
use lcroute_engine::{Aead, Credential, Revocation, SIGNATURE_CONTEXT, Services, signed_message};
use librecast::cert::{
    CertError, Certificate, Chain, EPHEMERAL, Grant, GroupPrefix, Kind, SEGMENT, SourcePrefix,
};
use librecast::id::{NodeAddresses, OriginId, PeerId, SecretKey, derive};
use librecast::revocation::RevocationError;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError};

/// Start of test networks, Unix seconds.
pub const UNIX_START: u64 = 1_800_000_000;
/// Default end of certificates, Unix seconds.
pub const NOT_AFTER: u64 = UNIX_START + 30 * 86_400;

/// Results by chain and time.
type Verdicts = BTreeMap<(Vec<u8>, u64), Result<Arc<Credential>, CertError>>;

struct Network {
    key: SecretKey,
    issuer_key: SecretKey,
    issuer: Certificate,
    /// Hashes of verified signatures.
    verified: Mutex<BTreeMap<[u8; 32], bool>>,
    chains: Mutex<Verdicts>,
}

static NETWORK: LazyLock<Network> = LazyLock::new(|| {
    let (key, issuer_key) = (secret(0xffff), secret(0xfffe));
    let everything = Grant {
        core: true,
        ..Grant::new("", (UNIX_START - 86_400, UNIX_START + 3_650 * 86_400))
    };
    let (network, subject) = (key.peer_id(), issuer_key.peer_id());
    let issuer = Certificate::sign(Kind::Issuer, network, subject, everything, &key).unwrap();
    Network {
        key,
        issuer_key,
        issuer,
        verified: Mutex::default(),
        chains: Mutex::default(),
    }
});

fn secret(n: u16) -> SecretKey {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(&seed)
}

/// The rights in a node's certificate.
#[derive(Debug, Clone)]
pub struct Rights {
    pub not_before: u64,
    pub not_after: u64,
    pub core: bool,
    pub prefixes: Vec<GroupPrefix>,
    pub gateway: Vec<SourcePrefix>,
    /// The invitation by which it came, and its bound of nodes.
    pub invitation: Option<(u8, Option<u32>)>,
    /// An issuer has renewed it.
    pub renewed: bool,
    /// It is forgotten some minutes after it has gone.
    pub ephemeral: bool,
    /// It is a leaf, no router.
    pub leaf: bool,
    /// A leaf by an invitation, and may send to asking groups.
    pub uplink: bool,
    /// The segment of LANs for which it may speak.
    pub segment: Option<String>,
}

impl Default for Rights {
    fn default() -> Self {
        Self {
            not_before: UNIX_START,
            not_after: NOT_AFTER,
            core: true,
            prefixes: vec![GroupPrefix::ALL],
            gateway: Vec::new(),
            invitation: None,
            renewed: false,
            ephemeral: false,
            leaf: false,
            uplink: false,
            segment: None,
        }
    }
}

/// The services of one node.
#[derive(Debug)]
pub struct TestServices {
    key: SecretKey,
    chain: Bytes,
    unix: AtomicU64,
    /// Number of signatures and chains that this node verified.
    verifications: AtomicU64,
}

impl TestServices {
    /// Node `n` with full rights; always the same keys for the same number.
    pub fn new(n: u16) -> Self {
        Self::with(n, &Rights::default())
    }

    pub fn with(n: u16, rights: &Rights) -> Self {
        Self {
            key: secret(n),
            chain: chain(n, rights),
            unix: AtomicU64::new(UNIX_START),
            verifications: AtomicU64::new(0),
        }
    }

    pub fn peer(&self) -> PeerId {
        self.key.peer_id()
    }

    pub fn addresses(&self) -> NodeAddresses {
        NodeAddresses::derive(&NETWORK.key.peer_id(), &self.peer())
    }

    pub fn origin(&self) -> OriginId {
        self.addresses().origin
    }

    pub fn chain(&self) -> Bytes {
        self.chain.clone()
    }

    pub fn set_unix(&self, time: UnixTime) {
        self.unix.store(time.as_secs(), Ordering::Relaxed);
    }

    pub fn verifications(&self) -> u64 {
        self.verifications.load(Ordering::Relaxed)
    }
}

/// The chain of node `n`.
pub fn chain(n: u16, rights: &Rights) -> Bytes {
    let (label, value) = EPHEMERAL;
    let lifetime = rights
        .ephemeral
        .then(|| (label.to_owned(), value.to_owned()));
    let segment = rights.segment.clone();
    let segment = segment.map(|name| (SEGMENT.to_owned(), name));
    let grant = Grant {
        core: rights.core,
        prefixes: rights.prefixes.clone(),
        gateway: rights.gateway.clone(),
        labels: lifetime.into_iter().chain(segment).collect(),
        leaf: rights.leaf,
        ..Grant::new(format!("node-{n}"), (rights.not_before, rights.not_after))
    };
    let (network, node) = (NETWORK.key.peer_id(), secret(n).peer_id());
    let sign =
        |kind, subject, grant, by| Certificate::sign(kind, network, subject, grant, by).unwrap();
    let Some((number, uses)) = rights.invitation else {
        let node = sign(Kind::Node, node, grant, &NETWORK.issuer_key);
        let chain = Chain::new(vec![NETWORK.issuer.clone(), node]).unwrap();
        return chain.encode().into();
    };
    let invited = Grant {
        name: String::new(),
        uses,
        uplink: rights.uplink,
        ..grant.clone()
    };
    let key = SecretKey::from_seed(&[number; 32]);
    let invitation = sign(
        Kind::Invitation,
        key.peer_id(),
        invited,
        &NETWORK.issuer_key,
    );
    let node = sign(Kind::Node, node, grant, &key);
    let chain = Chain::new(vec![NETWORK.issuer.clone(), invitation, node]).unwrap();
    let renew = || {
        chain.renew(
            &NETWORK.issuer,
            &NETWORK.issuer_key,
            UnixTime::from_secs(UNIX_START),
            86_400,
        )
    };
    let chain = if rights.renewed {
        renew().unwrap()
    } else {
        chain
    };
    chain.encode().into()
}

/// Start of the last certificate of a chain.
fn issued(chain: &[u8]) -> Option<u64> {
    let mut r = Reader::new(chain);
    let count = r.u8().ok()?;
    let certificates: Vec<&[u8]> = (0..count).map_while(|_| r.bytes16().ok()).collect();
    let node = Certificate::decode(certificates.last()?).ok()?;
    Some(node.grant().not_before)
}

const BY_NETWORK: &str = "test revocation";
const BY_ISSUER: &str = "test revocation by an issuer";

/// A revocation of `key`: key 256, until 64, signature of the network.
pub fn revocation(key: &PeerId, until: u64) -> Bytes {
    signed_revocation(key, until, BY_NETWORK)
}

/// The same, signed by an issuer.
pub fn revocation_by_issuer(key: &PeerId, until: u64) -> Bytes {
    signed_revocation(key, until, BY_ISSUER)
}

fn signed_revocation(key: &PeerId, until: u64, by: &str) -> Bytes {
    let message = [&key.public_key()[..], &until.to_be_bytes()].concat();
    let signature = NETWORK.key.sign(by, &message);
    [message.as_slice(), &signature].concat().into()
}

impl Services for TestServices {
    fn unix_now(&self) -> UnixTime {
        UnixTime::from_secs(self.unix.load(Ordering::Relaxed))
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        let message = signed_message(&NETWORK.key.peer_id(), message);
        self.key.sign(SIGNATURE_CONTEXT, &message)
    }

    fn verify(&self, signer: &PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
        self.verifications.fetch_add(1, Ordering::Relaxed);
        let name = derive("test", &[signer.public_key(), signature, message]);
        *NETWORK
            .verified
            .lock()
            .unwrap()
            .entry(name)
            .or_insert_with(|| {
                let message = signed_message(&NETWORK.key.peer_id(), message);
                signer
                    .verify(SIGNATURE_CONTEXT, &message, signature)
                    .is_ok()
            })
    }

    fn verify_chain(&self, chain: &[u8]) -> Result<Arc<Credential>, CertError> {
        self.verifications.fetch_add(1, Ordering::Relaxed);
        let time = self.unix_now();
        NETWORK
            .chains
            .lock()
            .unwrap()
            .entry((chain.to_vec(), time.as_secs()))
            .or_insert_with(|| {
                let decoded = Chain::decode(chain)?;
                let member = decoded.verify(&NETWORK.key.peer_id(), time)?;
                Ok(Arc::new(Credential {
                    member,
                    keys: vec![decoded.issuer().subject()],
                    issued: issued(chain).ok_or(CertError::Order)?,
                    can_issue: false,
                }))
            })
            .clone()
    }

    fn verify_revocation(&self, bytes: &[u8]) -> Result<Revocation, RevocationError> {
        self.verifications.fetch_add(1, Ordering::Relaxed);
        let (message, signature) = bytes.split_last_chunk::<64>().ok_or(WireError::Truncated)?;
        let (key, until) = message
            .split_first_chunk::<32>()
            .ok_or(WireError::Truncated)?;
        let until = u64::from_be_bytes(until.try_into().map_err(|_| WireError::Truncated)?);
        let key = PeerId::from_public_key(*key).map_err(|_| RevocationError::Key)?;
        let id = NETWORK.key.peer_id();
        let is_by = |by| id.verify(by, message, signature).is_ok();
        let by_network = is_by(BY_NETWORK);
        if !by_network && !is_by(BY_ISSUER) {
            return Err(RevocationError::Forged);
        }
        Ok(Revocation {
            key,
            by_network,
            until,
        })
    }
    fn aead(&self, key: &[u8; 16]) -> Option<Box<dyn Aead>> {
        Some(Box::new(TestAead(*key)))
    }
}

/// AES-GCM by the crate `aes-gcm`, which programs do not use.
#[derive(Debug)]
struct TestAead([u8; 16]);

impl Aead for TestAead {
    fn seal(&self, nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<[u8; 16]> {
        let cipher = Aes128Gcm::new(&self.0.into());
        let tag = cipher.encrypt_in_place_detached(&nonce.into(), associated, text);
        tag.ok().map(Into::into)
    }

    fn open(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        sealed: &[u8],
        tag: &[u8; 16],
        text: &mut [u8],
    ) -> bool {
        text.copy_from_slice(sealed);
        let cipher = Aes128Gcm::new(&self.0.into());
        let (nonce, tag) = (&nonce.into(), &(*tag).into());
        cipher
            .decrypt_in_place_detached(nonce, associated, text, tag)
            .is_ok()
    }
}
