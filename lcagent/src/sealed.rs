//! Commands that only their nodes can read, and answers that only the operator can read.
//!
//! ```text
//! payload  version 8 = 2 | nodes 16 x { node 64 | wrap 896 }
//!          | AES-256-GCM(request), nonce 0, AAD: operator 256
//! wrap     crypto_box sealed box (X25519, XSalsa20-Poly1305) for the node: content key, answer key
//! segment  nonce 96 | AES-256-GCM(content) with the node's answer key, AAD: job 64 | offset 32
//! ```
//!
//! The content key is drawn for each command and used once, so its nonce is zero; the envelope's
//! signature covers the rest. Opening a request needs the signer's key, so nobody can forward it
//! under his own name unread. Each node has its own answer key: other nodes cannot read its answer.
//! A segment's nonce is a hash of its offset and content under that key. Receivers, times, lengths
//! and the use of sealing remain visible.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use crypto_box::aead::OsRng;
use crypto_box::{PublicKey, SecretKey as BoxKey};
use librecast::id::{PeerId, SecretKey, derive};
use librecast::wire::{Reader, WireError, Writer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::acknowledgement::{ShortId, short_id};
use crate::datagram::JobId;

/// Bytes that sealing adds to a segment.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// Version of sealed commands, different from that of requests.
const VERSION: u8 = 2;
/// Bytes of an AES-256-GCM tag (RFC 5116 §5.2).
const TAG_LEN: usize = 16;
/// Bytes of a `wrap`: the sealed box's own key, its tag, content key and answer key.
const WRAP_LEN: usize = 32 + 16 + 64;
const REQUEST_CONTEXT: &str = "lcagent 2026 sealed request";
const ANSWER_CONTEXT: &str = "lcagent 2026 sealed answer";
const NONCE_CONTEXT: &str = "lcagent 2026 sealed nonce";

/// Key of one node's answer to one command.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerKey(Zeroizing<[u8; 32]>);

librecast::debug_by_name!(AnswerKey);

impl AnswerKey {
    /// Seals the content of a segment of `job` at `offset`.
    #[must_use]
    pub fn seal(&self, job: JobId, offset: u32, content: &[u8]) -> Vec<u8> {
        let at = offset.to_be_bytes();
        let hash = derive(NONCE_CONTEXT, &[self.0.as_slice(), &job.0, &at, content]);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&hash[..NONCE_LEN]);
        let mut out = nonce.to_vec();
        let key = cipher(&derive(ANSWER_CONTEXT, &[self.0.as_slice()]));
        let mut sealed = content.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        // fails for contents of 64 GiB only
        if key
            .seal_in_place_append_tag(nonce, aad(job, offset), &mut sealed)
            .is_ok()
        {
            out.extend_from_slice(&sealed);
        }
        out
    }

    /// Opens a sealed segment; none if key, job or offset differ.
    #[must_use]
    pub fn open(&self, job: JobId, offset: u32, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let key = cipher(&derive(ANSWER_CONTEXT, &[self.0.as_slice()]));
        let mut content = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = key
            .open_in_place(nonce, aad(job, offset), &mut content)
            .ok()?
            .len();
        content.truncate(length);
        Some(content)
    }
}

/// Seals a payload of `operator` for `nodes`; returns their answer keys too. Draws randomness.
pub fn seal_request(
    request: &[u8],
    operator: &PeerId,
    nodes: &[PeerId],
) -> Result<(Vec<u8>, BTreeMap<PeerId, AnswerKey>), WireError> {
    let bad = |_| WireError::Bad("sealing");
    let mut content = Zeroizing::new([0; 32]);
    getrandom::fill(content.as_mut()).map_err(|_| WireError::Bad("no randomness"))?;
    let mut w = Writer::new();
    w.u8(VERSION);
    w.u16(u16::try_from(nodes.len()).map_err(|_| WireError::Bad("nodes"))?);
    let mut keys = BTreeMap::new();
    for node in nodes {
        let mut answer = Zeroizing::new([0; 32]);
        getrandom::fill(answer.as_mut()).map_err(|_| WireError::Bad("no randomness"))?;
        let secrets = Zeroizing::new([content.as_slice(), answer.as_slice()].concat());
        let to = PublicKey::from(node.x25519().map_err(|_| WireError::Bad("node key"))?);
        let wrap = to.seal(&mut OsRng, &secrets).map_err(bad)?;
        w.put(&short_id(node)).put(&wrap);
        keys.insert(*node, AnswerKey(answer));
    }
    let mut sealed = request.to_vec();
    cipher(&derive(REQUEST_CONTEXT, &[content.as_slice()]))
        .seal_in_place_append_tag(zero(), Aad::from(operator.public_key()), &mut sealed)
        .map_err(|_| WireError::Bad("sealing"))?;
    w.put(&sealed);
    Ok((w.into_vec(), keys))
}

/// Returns whether a payload is sealed.
#[must_use]
pub fn is_sealed(payload: &[u8]) -> bool {
    payload.first() == Some(&VERSION)
}

/// Opens a sealed payload of `operator`; returns the request and the answer key. None if it is not
/// for this node.
pub fn open_request(
    payload: &[u8],
    operator: &PeerId,
    key: &SecretKey,
) -> Result<Option<(Vec<u8>, AnswerKey)>, WireError> {
    let mut r = Reader::new(payload);
    r.version(VERSION)?;
    let me = short_id(&key.peer_id());
    let mut mine = None;
    for _ in 0..r.u16()? {
        let node: ShortId = r.array()?;
        let wrap = r.take(WRAP_LEN)?;
        if node == me {
            mine = Some(wrap);
        }
    }
    let Some(wrap) = mine else { return Ok(None) };
    let bad = WireError::Bad("sealed for another key");
    let secrets = BoxKey::from(*key.x25519()).unseal(wrap);
    let secrets = Zeroizing::new(secrets.map_err(|_| bad)?);
    let Some((content, answer)) = secrets.split_first_chunk::<32>() else {
        return Err(bad);
    };
    let answer = Zeroizing::new(answer.try_into().map_err(|_| bad)?);
    let mut request = r.take(r.rest().len())?.to_vec();
    let length = cipher(&derive(REQUEST_CONTEXT, &[content.as_slice()]))
        .open_in_place(zero(), Aad::from(operator.public_key()), &mut request)
        .map_err(|_| WireError::Bad("sealed request"))?
        .len();
    request.truncate(length);
    Ok(Some((request, AnswerKey(answer))))
}

fn aad(job: JobId, offset: u32) -> Aad<Vec<u8>> {
    Aad::from([&job.0[..], &offset.to_be_bytes()].concat())
}

fn zero() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    #[allow(clippy::expect_used, reason = "the length is that of the algorithm")]
    let unbound = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key");
    LessSafeKey::new(unbound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn operator() -> PeerId {
        key(9).peer_id()
    }

    const JOB: JobId = JobId([5; 8]);

    #[test]
    fn request_is_read_by_those_it_is_for_and_by_nobody_else() {
        let nodes = [key(1).peer_id(), key(2).peer_id()];
        let (payload, keys) = seal_request(b"the secret request", &operator(), &nodes).unwrap();
        assert!(is_sealed(&payload));
        assert!(!payload.windows(6).any(|w| w == b"secret"));
        for n in [1, 2] {
            let (request, answer) = open_request(&payload, &operator(), &key(n))
                .unwrap()
                .unwrap();
            assert_eq!(request, b"the secret request");
            assert_eq!(answer, keys[&key(n).peer_id()]);
        }
        assert_eq!(open_request(&payload, &operator(), &key(3)), Ok(None));
        assert_ne!(keys[&nodes[0]], keys[&nodes[1]]);
        let other = key(8).peer_id();
        assert!(open_request(&payload, &other, &key(1)).is_err(), "sent on");
        for at in (0..payload.len()).step_by(7) {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            let opened = open_request(&changed, &operator(), &key(1));
            let second = 3 + 8 + WRAP_LEN..3 + 2 * (8 + WRAP_LEN);
            let same = opened == open_request(&payload, &operator(), &key(1));
            assert_eq!(same, second.contains(&at), "{at}");
        }
    }

    #[test]
    fn answers_are_read_by_the_operator_where_they_belong() {
        let (payload, keys) =
            seal_request(b"x", &operator(), &[key(1).peer_id(), key(2).peer_id()]).unwrap();
        let (_, node) = open_request(&payload, &operator(), &key(1))
            .unwrap()
            .unwrap();
        let sealed = node.seal(JOB, 7, b"output");
        assert_eq!(sealed.len(), 6 + OVERHEAD);
        let (own, other) = (&keys[&key(1).peer_id()], &keys[&key(2).peer_id()]);
        assert_eq!(own.open(JOB, 7, &sealed).unwrap(), b"output");
        assert_eq!(own.open(JOB, 8, &sealed), None);
        assert_eq!(own.open(JobId([6; 8]), 7, &sealed), None);
        assert_eq!(other.open(JOB, 7, &sealed), None);
        assert_eq!(
            node.seal(JOB, 7, b"output"),
            sealed,
            "sent again it is the same"
        );
        let nonce = |content: &[u8]| node.seal(JOB, 7, content)[..NONCE_LEN].to_vec();
        assert_ne!(nonce(b"output"), nonce(b"outpuT"), "no nonce comes twice");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), count in 0..3_u16) {
            let _ = open_request(&bytes, &operator(), &key(1));
            let counted = [&[VERSION][..], &count.to_be_bytes(), &bytes].concat();
            let _ = open_request(&counted, &operator(), &key(1));
            let answer = AnswerKey(Zeroizing::new([1; 32]));
            prop_assert_eq!(answer.open(JOB, 0, &bytes), None);
        }
    }
}
