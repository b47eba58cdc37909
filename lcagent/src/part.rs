//! Payloads that do not fit their envelope: split into signed parts, and reassembled.
//!
//! ```text
//! part     version 8 = 1 | kind 8 = 3 | job 64 | index 16 | content | signature 512
//!          content: PART bytes, the last part's the rest; the signature covers all before it
//! missing  version 8 = 1 | kind 8 = 7 | job 64 | count 8 x { from 16 | to 16 }    without `to`
//! ```
//!
//! The envelope's hash covers the whole; each part's signature keeps forged ones out. A request for
//! parts is unsigned: the operator's own pace bounds its effect.

use std::collections::BTreeMap;

use librecast::id::{PeerId, SecretKey, derive};
use librecast::wire::{Reader, WireError};

use crate::datagram::{
    FORGED, JobId, Kind, MAX_DATAGRAM, MAX_RANGES, SIGNATURE_LEN, push_range, read_ranges,
};

/// Bytes of a payload in one part.
pub const PART: usize = 1_024;

const CONTEXT: &str = "lcagent 2026 part";
const PAYLOAD_CONTEXT: &str = "lcagent 2026 payload";
/// Bytes before a part's content: version, kind, job, index.
const HEAD_LEN: usize = 2 + 8 + 2;

/// Returns the signed datagrams of a payload of at most [`crate::envelope::MAX_PAYLOAD`] bytes.
pub(crate) fn split(job: JobId, payload: &[u8], key: &SecretKey) -> Vec<Vec<u8>> {
    // 4 MiB are 4,096 parts
    let numbered = (0_u16..).zip(payload.chunks(PART));
    numbered
        .map(|(index, content)| {
            let mut w = Kind::Part.start();
            w.put(&job.0).u16(index).put(content);
            let signature = key.sign(CONTEXT, w.as_slice());
            w.put(&signature);
            w.into_vec()
        })
        .collect()
}

/// Returns the job of a part.
pub fn job_of(mut r: Reader<'_>) -> Result<JobId, WireError> {
    r.array().map(JobId)
}

/// Makes a request for parts, with at most [`MAX_RANGES`] ranges.
#[must_use]
pub fn ask(job: JobId, missing: &[(u16, u16)]) -> Vec<u8> {
    let missing = &missing[..missing.len().min(MAX_RANGES)];
    let mut w = Kind::Missing.start();
    w.put(&job.0).u8(missing.len() as u8);
    for (from, to) in missing {
        w.u16(*from).u16(*to);
    }
    w.into_vec()
}

/// Reads a request for parts of `job`; none if it is for another.
pub fn asked(r: &mut Reader<'_>, job: JobId) -> Result<Vec<(u16, u16)>, WireError> {
    if r.array()? != job.0 {
        return Ok(Vec::new());
    }
    let ranges = read_ranges(r, Reader::u16)?;
    r.clone().finish()?;
    Ok(ranges)
}

/// A payload that comes in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// Its length in bytes, at most [`crate::envelope::MAX_PAYLOAD`].
    pub length: usize,
    /// [`payload_hash`] of it.
    pub hash: [u8; 32],
}

/// Returns the hash of a payload for the envelope.
#[must_use]
pub fn payload_hash(payload: &[u8]) -> [u8; 32] {
    derive(PAYLOAD_CONTEXT, &[payload])
}

/// A payload that is being reassembled.
#[derive(Debug)]
pub struct Collection {
    awaited: Awaited,
    parts: BTreeMap<u16, Vec<u8>>,
}

impl Collection {
    /// Begins without parts.
    #[must_use]
    pub fn new(awaited: Awaited) -> Self {
        Self {
            awaited,
            parts: BTreeMap::new(),
        }
    }

    /// Returns the length of the whole payload.
    #[must_use]
    pub fn length(&self) -> usize {
        self.awaited.length
    }

    /// Returns the number of received parts.
    #[must_use]
    pub fn received(&self) -> usize {
        self.parts.len()
    }

    /// Takes a part; returns whether it was missing and `operator` has signed it.
    pub fn take(&mut self, datagram: &[u8], operator: &PeerId) -> Result<bool, WireError> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(WireError::Trailing);
        }
        let (signed, signature) = datagram
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or(WireError::Truncated)?;
        let content = signed.get(HEAD_LEN..).ok_or(WireError::Truncated)?;
        let index = Reader::new(&signed[HEAD_LEN - 2..]).u16()?;
        if content.len() != self.length_of(index) {
            return Err(WireError::Bad("part length"));
        }
        if self.parts.contains_key(&index) {
            return Ok(false);
        }
        operator
            .verify(CONTEXT, signed, signature)
            .map_err(|_| FORGED)?;
        self.parts.insert(index, content.to_vec());
        Ok(true)
    }

    /// Returns the payload once it is whole; an error if the operator's parts do not match the
    /// signed hash.
    #[must_use]
    pub fn whole(&self) -> Option<Result<Vec<u8>, WireError>> {
        if self.parts.len() < self.count() {
            return None;
        }
        let payload = self.parts.values().flatten().copied().collect::<Vec<u8>>();
        Some(if payload_hash(&payload) == self.awaited.hash {
            Ok(payload)
        } else {
            Err(WireError::Bad("payload hash"))
        })
    }

    /// Returns the first [`MAX_RANGES`] ranges of missing parts.
    #[must_use]
    pub fn missing(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        // MAX_PAYLOAD gives 4,096 parts at most
        for index in (0..self.count() as u16).filter(|i| !self.parts.contains_key(i)) {
            if !push_range(&mut ranges, index, index + 1) {
                break;
            }
        }
        ranges
    }

    fn count(&self) -> usize {
        self.awaited.length.div_ceil(PART)
    }

    /// Returns the length of a part; 0, which no part has, behind the end.
    fn length_of(&self, index: u16) -> usize {
        let from = usize::from(index) * PART;
        self.awaited.length.saturating_sub(from).min(PART)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JOB: JobId = JobId([3; 8]);

    fn key() -> SecretKey {
        SecretKey::from_seed(&[42; 32])
    }

    fn collection(payload: &[u8]) -> Collection {
        Collection::new(Awaited {
            length: payload.len(),
            hash: payload_hash(payload),
        })
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn only_what_the_operator_signed_is_taken() {
        let payload = payload(2_000);
        let parts = split(JOB, &payload, &key());
        let mut collection = collection(&payload);
        let operator = key().peer_id();
        for at in 0..parts[1].len() {
            let mut forged = parts[1].clone();
            forged[at] ^= 1;
            assert!(collection.take(&forged, &operator).is_err(), "{at}");
            assert!(collection.take(&parts[1][..at], &operator).is_err());
        }
        let other = SecretKey::from_seed(&[1; 32]).peer_id();
        assert!(collection.take(&parts[0], &other).is_err());
        assert_eq!(collection.received(), 0);
        assert_eq!(collection.take(&parts[0], &operator), Ok(true));
        assert_eq!(collection.take(&parts[0], &operator), Ok(false));
    }

    #[test]
    fn parts_that_do_not_give_what_was_announced_are_an_error() {
        let parts = split(JOB, &payload(1_500), &key());
        let mut announced = payload(1_500);
        announced[1] ^= 1;
        let mut collection = collection(&announced);
        for part in &parts {
            collection.take(part, &key().peer_id()).unwrap();
        }
        assert_eq!(
            collection.whole(),
            Some(Err(WireError::Bad("payload hash")))
        );
    }

    #[test]
    fn requests_are_read_back_and_bounded() {
        let ranges: Vec<(u16, u16)> = (0..20).map(|n| (2 * n, 2 * n + 1)).collect();
        let bytes = ask(JOB, &ranges);
        let (kind, mut r) = Kind::read(&bytes).unwrap();
        assert_eq!(kind, Kind::Missing);
        assert_eq!(asked(&mut r.clone(), JOB).unwrap(), ranges[..MAX_RANGES]);
        assert_eq!(asked(&mut r, JobId([0; 8])), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn parts_give_the_payload_in_whatever_order(length in 1..9_000_usize, seed in any::<u64>()) {
            let payload = payload(length);
            let mut parts = split(JOB, &payload, &key());
            let mut random = librecast::random::Random::new(seed);
            for at in (1..parts.len()).rev() {
                parts.swap(at, random.index(at + 1));
            }
            let mut collection = collection(&payload);
            for (at, part) in parts.iter().enumerate() {
                prop_assert_eq!(collection.whole(), None);
                let missing = collection.missing();
                prop_assert!(!missing.is_empty());
                let count: u16 = missing.iter().map(|(from, to)| to - from).sum();
                if missing.len() < MAX_RANGES {
                    prop_assert_eq!(usize::from(count), parts.len() - at);
                }
                prop_assert_eq!(collection.take(part, &key().peer_id()), Ok(true));
            }
            prop_assert_eq!(collection.whole(), Some(Ok(payload)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut collection = collection(&payload(5_000));
            prop_assert!(collection.take(&bytes, &key().peer_id()).is_err());
            let _ = asked(&mut Reader::new(&bytes), JOB);
        }
    }
}
