//! An acknowledgement: the received parts of all answers to a command, for all agents at once.
//!
//! ```text
//! version 8 = 1 | kind 8 = 4 | job 64 | counter 32 | window 8
//! | whole 16 x hash 24 or 16              finished nodes; bit 15 of `whole`: hashes of 16 bits
//! | nodes 16 x { node 64 | received 32 | ranges 8 x { from 32 | to 32 } }
//! | signature 512                         ed25519 over CONTEXT, 0x00, everything before it
//! ```
//!
//! `hash` is the first 24 bits (16 among few nodes) of `derive_key("lcagent 2026 whole", job,
//! counter, agent key)`: two or three bytes per finished node. Two nodes may share a hash; the
//! operator skips counters under which a known unfinished node has a finished one's. `node` is the
//! first 64 bits of the agent's key or, if its segments name their stream, of `derive_key("lcagent
//! 2026 stream name", agent key, stream)`. `received` counts the bytes without gap; the ranges lie
//! behind a gap. A named node sends the rest, even after a `whole`: `received` 0 with the key's
//! bits asks whether it exists. A key with several streams is never in `whole`: each stream is
//! named.
//!
//! The counter rises: agents ignore older acknowledgements.

use librecast::id::{PeerId, SecretKey, derive};
use librecast::wire::{Reader, WireError, Writer};

use crate::datagram::{
    FORGED, JobId, Kind, MAX_DATAGRAM, MAX_RANGES, SIGNATURE_LEN, StreamId, read_ranges,
};

const CONTEXT: &str = "lcagent 2026 acknowledgement";
/// Bit in the count of hashes: they have 16 bits.
const SHORT: u16 = 1 << 15;
/// Bytes without nodes: version, kind, job, counter, window, both counts, signature.
const FIXED_LEN: usize = 2 + 8 + 4 + 1 + 2 + 2 + SIGNATURE_LEN;

/// A node's name in an acknowledgement.
pub type ShortId = [u8; 8];
/// A finished node's hash in an acknowledgement.
pub type WholeHash = [u8; 3];

/// The received parts of the answers to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The command.
    pub job: JobId,
    /// Rises with each acknowledgement.
    pub counter: u32,
    /// Segments in flight of each node.
    pub window: u8,
    /// Whether hashes have 16 bits; their third byte is then 0.
    pub short: bool,
    /// Nodes with whole answers.
    pub whole: Vec<WholeHash>,
    /// Nodes with missing parts.
    pub nodes: Vec<Progress>,
}

/// The received part of a node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The node, by its key or its stream.
    pub node: ShortId,
    /// Bytes received without a gap.
    pub received: u32,
    /// Bytes received behind gaps: from the first one to the next missing one; in order.
    pub ranges: Vec<(u32, u32)>,
}

impl Progress {
    fn size(&self) -> usize {
        8 + 4 + 1 + 8 * self.ranges.len().min(MAX_RANGES)
    }
}

/// Returns the name of a node in an acknowledgement.
#[must_use]
pub fn short_id(agent: &PeerId) -> ShortId {
    let [a, b, c, d, e, f, g, h, ..] = *agent.public_key();
    [a, b, c, d, e, f, g, h]
}

/// Returns the name of an agent's stream in an acknowledgement.
#[must_use]
pub fn stream_name(agent: &PeerId, stream: Option<StreamId>) -> ShortId {
    let Some(StreamId(stream)) = stream else {
        return short_id(agent);
    };
    let name = derive("lcagent 2026 stream name", &[agent.public_key(), &stream]);
    let [a, b, c, d, e, f, g, h, ..] = name;
    [a, b, c, d, e, f, g, h]
}

/// Returns the hash of a finished node for this counter.
#[must_use]
pub fn whole_hash(job: JobId, counter: u32, agent: &PeerId) -> WholeHash {
    let parts: [&[u8]; 3] = [&job.0, &counter.to_be_bytes(), agent.public_key()];
    let [a, b, c, ..] = derive("lcagent 2026 whole", &parts);
    [a, b, c]
}

/// Returns a hash in its length for an acknowledgement.
#[must_use]
pub fn cut(hash: WholeHash, short: bool) -> WholeHash {
    let [a, b, c] = hash;
    [a, b, if short { 0 } else { c }]
}

/// Returns how many of `whole` and `nodes` fit one acknowledgement, from the fronts of both.
#[must_use]
pub fn fitting(whole: usize, nodes: &[Progress]) -> (usize, usize) {
    let mut room = MAX_DATAGRAM - FIXED_LEN;
    let whole = whole.min(room / 3);
    room -= 3 * whole;
    let mut fit = 0;
    for progress in nodes {
        let Some(left) = room.checked_sub(progress.size()) else {
            break;
        };
        room = left;
        fit += 1;
    }
    (whole, fit)
}

impl Acknowledgement {
    /// Returns whether it contains this agent as finished.
    #[must_use]
    pub fn says_whole(&self, agent: &PeerId) -> bool {
        let hash = whole_hash(self.job, self.counter, agent);
        self.whole.contains(&cut(hash, self.short))
    }

    /// Returns the entry that names this agent's stream, or asks whether the agent exists.
    #[must_use]
    pub fn progress_of(&self, agent: &PeerId, stream: StreamId) -> Option<&Progress> {
        let name = stream_name(agent, Some(stream));
        let named = self.nodes.iter().find(|p| p.node == name);
        let asks =
            |p: &&Progress| p.node == short_id(agent) && p.received == 0 && p.ranges.is_empty();
        named.or_else(|| self.nodes.iter().find(asks))
    }

    /// Returns the signed datagram; the content must be [`fitting`].
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> Vec<u8> {
        let mut w = Kind::Acknowledgement.start();
        w.put(&self.job.0).u32(self.counter).u8(self.window);
        // counts fit: a datagram holds some hundreds
        let flag = if self.short { SHORT } else { 0 };
        w.u16(self.whole.len() as u16 | flag);
        let width = if self.short { 2 } else { 3 };
        for hash in &self.whole {
            w.put(&hash[..width]);
        }
        w.u16(self.nodes.len() as u16);
        for progress in &self.nodes {
            progress.encode(&mut w);
        }
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        w.into_vec()
    }

    /// Reads a datagram after [`Kind::read`]. `operator` returns the owner of a known job.
    pub fn open(
        datagram: &[u8],
        mut r: Reader<'_>,
        operator: impl Fn(JobId) -> Option<PeerId>,
    ) -> Result<Self, WireError> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(WireError::Trailing);
        }
        let (signed, signature) = datagram
            .split_last_chunk::<SIGNATURE_LEN>()
            .ok_or(WireError::Truncated)?;
        let job = JobId(r.array()?);
        let operator = operator(job).ok_or(WireError::Bad("job"))?;
        let (counter, window) = (r.u32()?, r.u8()?);
        let count = r.u16()?;
        let short = count & SHORT != 0;
        let hash = |_| match short {
            true => r.array().map(|[a, b]| [a, b, 0]),
            false => r.array(),
        };
        let whole = (0..count & !SHORT).map(hash).collect::<Result<_, _>>()?;
        let nodes = (0..r.u16()?)
            .map(|_| Progress::decode(&mut r))
            .collect::<Result<_, _>>()?;
        r.take(SIGNATURE_LEN)?;
        r.finish()?;
        operator
            .verify(CONTEXT, signed, signature)
            .map_err(|_| FORGED)?;
        Ok(Self {
            job,
            counter,
            window,
            short,
            whole,
            nodes,
        })
    }
}

impl Progress {
    fn encode(&self, w: &mut Writer) {
        let ranges = &self.ranges[..self.ranges.len().min(MAX_RANGES)];
        w.put(&self.node).u32(self.received).u8(ranges.len() as u8);
        for (from, to) in ranges {
            w.u32(*from).u32(*to);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            node: r.array()?,
            received: r.u32()?,
            ranges: read_ranges(r, Reader::u32)?,
        })
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

    fn open(bytes: &[u8]) -> Result<Acknowledgement, WireError> {
        let (_, r) = Kind::read(bytes)?;
        let operator = |job| (job == JOB).then(|| key().peer_id());
        Acknowledgement::open(bytes, r, operator)
    }

    fn acknowledgement(whole: usize, nodes: usize) -> Acknowledgement {
        Acknowledgement {
            job: JOB,
            counter: 9,
            window: 32,
            short: false,
            whole: (0..whole).map(|n| [n as u8; 3]).collect(),
            nodes: (0..nodes as u32)
                .map(|n| Progress {
                    node: [n as u8; 8],
                    received: n,
                    ranges: vec![(n + 1, n + 2); n as usize % 4],
                })
                .collect(),
        }
    }

    #[test]
    fn it_is_read_back_and_sixteen_nodes_cost_little_more_than_one() {
        let sixteen = acknowledgement(16, 0);
        let (bytes, one) = (sixteen.sign(&key()), acknowledgement(1, 0).sign(&key()));
        assert_eq!(open(&bytes), Ok(sixteen));
        assert_eq!(bytes.len() - one.len(), 45);
        let both = acknowledgement(3, 5);
        assert_eq!(open(&both.sign(&key())), Ok(both));
    }

    #[test]
    fn only_the_jobs_operator_is_believed() {
        let good = acknowledgement(2, 2);
        let bytes = good.sign(&key());
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert!(open(&forged).is_err(), "{at}");
            assert!(open(&bytes[..at]).is_err(), "{at}");
        }
        assert!(open(&good.sign(&SecretKey::from_seed(&[8; 32]))).is_err());
        let other = Acknowledgement {
            job: JobId([6; 8]),
            ..good
        };
        assert_eq!(open(&other.sign(&key())), Err(WireError::Bad("job")));
    }

    #[test]
    fn hash_differs_by_job_counter_and_node() {
        let (a, b) = (key().peer_id(), SecretKey::from_seed(&[8; 32]).peer_id());
        let hash = whole_hash(JOB, 1, &a);
        assert_eq!(hash, whole_hash(JOB, 1, &a));
        assert_ne!(hash, whole_hash(JobId([6; 8]), 1, &a));
        assert_ne!(hash, whole_hash(JOB, 2, &a));
        assert_ne!(hash, whole_hash(JOB, 1, &b));
        for short in [false, true] {
            let said = Acknowledgement {
                short,
                whole: vec![cut(hash, short)],
                ..acknowledgement(0, 2)
            };
            let read = open(&said.sign(&key())).unwrap();
            assert_eq!(read, said);
            let job_and_counter = Acknowledgement {
                job: JOB,
                counter: 1,
                ..read
            };
            assert!(job_and_counter.says_whole(&a) && !job_and_counter.says_whole(&b));
        }
    }

    proptest! {
        #[test]
        fn what_fits_is_below_the_largest_datagram(whole in 0..600_usize, nodes in 0..120_usize) {
            let mut all = acknowledgement(whole, nodes);
            let (w, n) = fitting(whole, &all.nodes);
            prop_assert!(w > 0 || whole == 0);
            prop_assert!(w + n > 0 || whole + nodes == 0);
            all.whole.truncate(w);
            all.nodes.truncate(n);
            let bytes = all.sign(&key());
            prop_assert!(bytes.len() <= MAX_DATAGRAM);
            prop_assert_eq!(open(&bytes), Ok(all));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let signed = [&[1, 4], JOB.0.as_slice(), &bytes].concat();
            prop_assert!(open(&signed).is_err());
        }
    }
}
