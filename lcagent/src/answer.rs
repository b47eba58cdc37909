//! A segment of an answer: some bytes of a node's stream of records, signed by the node.
//!
//! ```text
//!   0  version 8 = 1 | kind 8             6, 11; 10 if the content is sealed (module `sealed`)
//!   2  agent key 256
//!  34  job 64
//!      stream 64                          kinds 10 and 11 only
//!      offset 32                          of the first byte in the stream
//!      content                            1 to SEGMENT bytes
//!      signature 512                      ed25519 over CONTEXT, 0x00, everything before it
//! ```
//!
//! Each segment is signed, so the first can be shown at once despite losses, and the operator keeps
//! no forged bytes. The job is a hash of the operator's key and more, so a segment fits no other
//! operator or command. The stream's name separates hosts with copies of one key: their segments
//! are never mixed.

use librecast::id::{PeerId, SecretKey};
use librecast::wire::{Reader, WireError};

use crate::datagram::{JobId, Kind, MAX_DATAGRAM, SIGNATURE_LEN, StreamId};
use crate::sealed::OVERHEAD;

/// Bytes of a stream in one segment.
pub const SEGMENT: usize = 1_024;
/// Longest stream, in bytes.
pub const MAX_STREAM: u32 = 1 << 30;

const CONTEXT: &str = "lcagent 2026 answer";

/// A segment; untrusted before [`Segment::verify`].
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Key of the agent that sends and signs it.
    pub agent: PeerId,
    /// The command that it answers.
    pub job: JobId,
    /// Its stream; none: it is the whole answer of an agent that keeps none.
    pub stream: Option<StreamId>,
    /// Offset of its content in the stream.
    pub offset: u32,
    /// Bytes of the stream, possibly sealed.
    pub content: &'a [u8],
    /// Whether the content is sealed to the operator.
    pub sealed: bool,
    signed: &'a [u8],
    signature: &'a [u8; SIGNATURE_LEN],
}

/// Returns a signed segment of at most [`SEGMENT`] bytes. `stream`: none if it is the whole answer.
#[must_use]
pub fn seal(
    key: &SecretKey,
    job: JobId,
    stream: Option<StreamId>,
    offset: u32,
    content: &[u8],
) -> Vec<u8> {
    let kind = match stream {
        None => Kind::Answer,
        Some(_) => Kind::StreamAnswer,
    };
    sign(kind, key, (job, stream), offset, content)
}

/// Returns a signed segment with content from [`crate::sealed::AnswerKey::seal`].
#[must_use]
pub fn seal_sealed(
    key: &SecretKey,
    job: JobId,
    stream: StreamId,
    offset: u32,
    content: &[u8],
) -> Vec<u8> {
    sign(
        Kind::SealedAnswer,
        key,
        (job, Some(stream)),
        offset,
        content,
    )
}

fn sign(
    kind: Kind,
    key: &SecretKey,
    (job, stream): (JobId, Option<StreamId>),
    offset: u32,
    content: &[u8],
) -> Vec<u8> {
    let mut w = kind.start();
    w.put(key.peer_id().public_key()).put(&job.0);
    if let Some(StreamId(stream)) = stream {
        w.put(&stream);
    }
    w.u32(offset).put(content);
    let signature = key.sign(CONTEXT, w.as_slice());
    w.put(&signature);
    w.into_vec()
}

impl<'a> Segment<'a> {
    /// Reads a datagram after [`Kind::read`].
    pub fn decode(datagram: &'a [u8], kind: Kind, mut r: Reader<'a>) -> Result<Self, WireError> {
        let sealed = kind == Kind::SealedAnswer;
        let named = sealed || kind == Kind::StreamAnswer;
        let most = SEGMENT + if sealed { OVERHEAD } else { 0 };
        if datagram.len() > MAX_DATAGRAM {
            return Err(WireError::Trailing);
        }
        let (signed, signature) = datagram
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or(WireError::Truncated)?;
        let agent = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("agent key"))?;
        let job = JobId(r.array()?);
        let stream = named.then(|| r.array().map(StreamId)).transpose()?;
        let offset = r.u32()?;
        let length = r.rest().len().saturating_sub(SIGNATURE_LEN);
        let content = r.take(length)?;
        let least = if sealed { OVERHEAD + 1 } else { 1 };
        if length < least || length > most || offset > MAX_STREAM {
            return Err(WireError::Bad("segment"));
        }
        Ok(Self {
            agent,
            job,
            stream,
            offset,
            content,
            sealed,
            signed,
            signature,
        })
    }

    /// Returns whether the agent's signature verifies.
    #[must_use]
    pub fn verify(&self) -> bool {
        self.agent
            .verify(CONTEXT, self.signed, self.signature)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JOB: JobId = JobId([5; 8]);

    fn key() -> SecretKey {
        SecretKey::from_seed(&[7; 32])
    }

    fn decode(bytes: &[u8]) -> Result<Segment<'_>, WireError> {
        let (kind, r) = Kind::read(bytes)?;
        Segment::decode(bytes, kind, r)
    }

    #[test]
    fn full_segment_fits_a_datagram_and_is_read_back() {
        let content = vec![9; SEGMENT];
        let stream = StreamId([6; 8]);
        let whole = seal(&key(), JOB, None, 77, &content);
        let named = seal(&key(), JOB, Some(stream), 77, &content);
        let sealed = [content.as_slice(), &[0; OVERHEAD]].concat();
        let sealed = seal_sealed(&key(), JOB, stream, 77, &sealed);
        assert!(named.len() < sealed.len() && sealed.len() <= MAX_DATAGRAM);
        for (bytes, of, is_sealed) in [
            (&whole, None, false),
            (&named, Some(stream), false),
            (&sealed, Some(stream), true),
        ] {
            let segment = decode(bytes).unwrap();
            assert!(segment.verify());
            assert_eq!((segment.agent, segment.job), (key().peer_id(), JOB));
            assert_eq!((segment.stream, segment.offset), (of, 77));
            assert_eq!(segment.sealed, is_sealed);
            assert_eq!(segment.content[..SEGMENT], content);
        }
    }

    #[test]
    fn golden_bytes_of_segments_with_and_without_a_stream() {
        // a change needs another kind
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let head = |kind: &str| {
            format!(
                "01{kind}{}{}",
                hex(key().peer_id().public_key()),
                "05".repeat(8)
            )
        };
        let plain = hex(&seal(&key(), JOB, None, 77, b"ab"));
        let signature = plain
            .strip_prefix(&format!("{}0000004d6162", head("06")))
            .unwrap();
        assert_eq!(signature.len(), 128);
        let named = hex(&seal(&key(), JOB, Some(StreamId([6; 8])), 77, b"ab"));
        let prefix = format!("{}{}0000004d6162", head("0b"), "06".repeat(8));
        assert_eq!(named.strip_prefix(&prefix).unwrap().len(), 128);
    }

    #[test]
    fn changed_segment_does_not_verify() {
        for stream in [None, Some(StreamId([6; 8]))] {
            let good = seal(&key(), JOB, stream, 0, b"output");
            for at in 1..good.len() {
                let mut bytes = good.clone();
                bytes[at] ^= 1;
                assert!(!decode(&bytes).is_ok_and(|s| s.verify()), "{at}");
            }
        }
    }

    #[test]
    fn empty_and_overlong_segments_are_refused() {
        assert!(decode(&seal(&key(), JOB, None, 0, b"")).is_err());
        assert!(decode(&seal(&key(), JOB, None, 0, &[0; SEGMENT + 1])).is_err());
        assert!(decode(&seal(&key(), JOB, None, MAX_STREAM + 1, b"x")).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(!Segment::decode(&bytes, Kind::Answer, Reader::new(&bytes)).is_ok_and(|s| s.verify()));
        }
    }
}
