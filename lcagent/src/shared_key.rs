//! An operator's report that several hosts answer under one key: a state folder was copied.
//!
//! ```text
//! version 8 = 1 | kind 8 = 12 | job 64 | agent key 256 | streams 8 x { stream 64 | address 128 }
//! | signature 512                         ed25519 over CONTEXT, 0x00, everything before it
//! ```
//!
//! Agents do not receive other agents' answers; the operator does, and reports them for his
//! command. `address` is the source of the stream's segments.

use std::net::Ipv6Addr;

use librecast::id::{PeerId, SecretKey};
use librecast::wire::{Reader, WireError};

use crate::datagram::{FORGED, JobId, Kind, MAX_DATAGRAM, SIGNATURE_LEN, StreamId};

const CONTEXT: &str = "lcagent 2026 shared key";

/// Streams of one key that an operator accepts for one command.
pub const MAX_STREAMS: usize = 8;

/// A report that several agents have one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedKey {
    /// The command that they answer.
    pub job: JobId,
    /// The agents' key.
    pub agent: PeerId,
    /// At most [`MAX_STREAMS`] streams and their addresses.
    pub streams: Vec<(StreamId, Ipv6Addr)>,
}

impl SharedKey {
    /// Returns the signed datagram.
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> Vec<u8> {
        let streams = &self.streams[..self.streams.len().min(MAX_STREAMS)];
        let mut w = Kind::SharedKey.start();
        w.put(&self.job.0).put(self.agent.public_key());
        w.u8(streams.len() as u8);
        for (stream, address) in streams {
            w.put(&stream.0).ipv6(*address);
        }
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        w.into_vec()
    }

    /// Reads a datagram after [`Kind::read`]; `operator`: the command must be his.
    pub fn open(datagram: &[u8], mut r: Reader<'_>, operator: &PeerId) -> Result<Self, WireError> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(WireError::Trailing);
        }
        let (signed, signature) = datagram
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or(WireError::Truncated)?;
        let job = JobId(r.array()?);
        let agent = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("agent key"))?;
        let count = r.u8()?;
        if usize::from(count) > MAX_STREAMS {
            return Err(WireError::Bad("streams"));
        }
        let streams = (0..count)
            .map(|_| Ok((StreamId(r.array()?), r.ipv6()?)))
            .collect::<Result<_, WireError>>()?;
        r.take(SIGNATURE_LEN)?;
        r.finish()?;
        operator
            .verify(CONTEXT, signed, signature)
            .map_err(|_| FORGED)?;
        Ok(Self {
            job,
            agent,
            streams,
        })
    }

    /// Returns the addresses of the other streams; none if `own` is not in the list.
    #[must_use]
    pub fn others(&self, own: StreamId) -> Vec<Ipv6Addr> {
        if !self.streams.iter().any(|(stream, _)| *stream == own) {
            return Vec::new();
        }
        let others = self.streams.iter().filter(|(stream, _)| *stream != own);
        others.map(|(_, address)| *address).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn open(bytes: &[u8]) -> Result<SharedKey, WireError> {
        let (_, r) = Kind::read(bytes)?;
        SharedKey::open(bytes, r, &key(1).peer_id())
    }

    fn stream(n: u8) -> (StreamId, Ipv6Addr) {
        (
            StreamId([n; 8]),
            [0xfe80, 0, 0, 0, 0, 0, 0, n.into()].into(),
        )
    }

    #[test]
    fn only_the_operator_is_believed_and_only_who_is_meant_is_told() {
        let said = SharedKey {
            job: JobId([5; 8]),
            agent: key(2).peer_id(),
            streams: (0..8).map(stream).collect(),
        };
        let bytes = said.sign(&key(1));
        assert_eq!(open(&bytes), Ok(said.clone()));
        assert_eq!(said.others(stream(3).0).len(), 7);
        assert!(said.others(stream(9).0).is_empty());
        for at in 1..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert!(open(&forged).is_err(), "{at}");
            assert!(open(&bytes[..at]).is_err(), "{at}");
        }
        assert_eq!(open(&said.sign(&key(3))), Err(FORGED));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open(&[&[1, 13], bytes.as_slice()].concat()).is_err());
        }
    }
}
