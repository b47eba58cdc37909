//! The common part of all datagrams: version, kind and size; the names of commands.
//!
//! ```text
//! version 8 = 1 | kind 8 | ...
//! ```
//!
//! | kind | content | sender, destination |
//! |---|---|---|
//! | 1, 2 | a command, with its payload or before it ([`crate::envelope`]) | operator, channel |
//! | 3 | a part of a payload ([`crate::part`]) | operator, channel |
//! | 4 | received parts of the answers ([`crate::acknowledgement`]) | operator, channel |
//! | 5 | hello: an agent has started ([`hello`]) | agent, channel |
//! | 6 | a segment of an answer ([`crate::answer`]) | agent, answers |
//! | 7 | missing parts ([`crate::part`]) | agent, answers |
//! | 8, 9 | as 1, 2, with the operator's certificate ([`crate::certificate`]) | operator, channel |
//! | 10 | as 11, sealed ([`crate::sealed`]) | agent, answers |
//! | 11 | as 6, with the name of the stream | agent, answers |
//! | 12 | several agents have one key ([`crate::shared_key`]) | operator, channel |
//!
//! Kind 6 is the whole answer of an agent that keeps none.

use std::fmt;
use std::str::FromStr;

use librecast::id::{PeerId, derive};
use librecast::wire::{Reader, WireError, Writer};
use serde::{Deserialize, Serialize};

/// Largest datagram in bytes: with IPv6 and UDP headers below the least MTU of IPv6.
pub const MAX_DATAGRAM: usize = 1_200;
/// Seconds that an operator's clock may be ahead of the agent's: an hour.
pub const MAX_AHEAD_S: u64 = 3600;
/// Seconds after its end for which a command is still accepted: the operator's clock may be that
/// much behind. Chosen: five minutes; unset clocks lose seconds a day.
pub const MAX_BEHIND_S: u64 = 300;
/// Most ranges in one datagram.
pub const MAX_RANGES: usize = 8;

/// The error for a signature that does not verify.
pub const FORGED: WireError = WireError::Bad("signature");

/// Version of all datagrams, their first byte.
const VERSION: u8 = 1;
/// Bytes of an ed25519 signature (RFC 8032 §5.1.6), the last field of each signed datagram.
pub(crate) const SIGNATURE_LEN: usize = 64;

/// The kind of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command with its payload.
    Command = 1,
    /// A command with its payload in parts.
    Announced = 2,
    /// A part of a payload.
    Part = 3,
    /// The received parts of the answers.
    Acknowledgement = 4,
    /// An agent has started.
    Hello = 5,
    /// The whole answer of an agent that keeps none.
    Answer = 6,
    /// Parts that an agent misses.
    Missing = 7,
    /// A command with its payload and a certificate.
    CertifiedCommand = 8,
    /// A command with a certificate and its payload in parts.
    CertifiedAnnounced = 9,
    /// A sealed segment of an answer that names its stream.
    SealedAnswer = 10,
    /// A segment of an answer that names its stream.
    StreamAnswer = 11,
    /// Several agents have one key.
    SharedKey = 12,
}

impl Kind {
    const ALL: [Self; 12] = [
        Self::Command,
        Self::Announced,
        Self::Part,
        Self::Acknowledgement,
        Self::Hello,
        Self::Answer,
        Self::Missing,
        Self::CertifiedCommand,
        Self::CertifiedAnnounced,
        Self::SealedAnswer,
        Self::StreamAnswer,
        Self::SharedKey,
    ];

    /// Begins a datagram of this kind.
    #[must_use]
    pub fn start(self) -> Writer {
        let mut w = Writer::new();
        w.u8(VERSION).u8(self as u8);
        w
    }

    /// Reads the kind of a datagram; returns the rest too.
    pub fn read(datagram: &[u8]) -> Result<(Self, Reader<'_>), WireError> {
        let mut r = Reader::new(datagram);
        r.version(VERSION)?;
        let number = r.u8()?;
        let kind = Self::ALL.into_iter().find(|k| *k as u8 == number);
        Ok((kind.ok_or(WireError::Bad("kind"))?, r))
    }
}

/// Name of an operator's command: the first 64 bits of a hash of its unique fields.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub [u8; 8]);

impl JobId {
    /// Returns the name of the command with this sequence and nonce.
    #[must_use]
    pub fn of(operator: &PeerId, sequence: u64, nonce: &[u8; 16]) -> Self {
        let parts: [&[u8]; 3] = [operator.public_key(), &sequence.to_be_bytes(), nonce];
        let [a, b, c, d, e, f, g, h, ..] = derive("lcagent 2026 job", &parts);
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let bad = WireError::Bad("job: 16 hexadecimal digits");
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| bad)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// Distinguishes the streams of one job under one key: two hosts with copies of a key have two.
/// Drawn when a stream begins and kept with it, so a restarted agent continues the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub [u8; 8]);

impl StreamId {
    /// Returns the stream of `job` in the agent's run that drew `seed`.
    #[must_use]
    pub fn of(seed: u64, job: JobId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] =
            derive("lcagent 2026 stream", &[&seed.to_be_bytes(), &job.0]);
        Self([a, b, c, d, e, f, g, h])
    }

    /// Returns the stream that continues in a copy of this one's folder.
    #[must_use]
    pub fn of_copy(self, made: u64) -> Self {
        let [a, b, c, d, e, f, g, h, ..] =
            derive("lcagent 2026 stream copy", &[&self.0, &made.to_be_bytes()]);
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A user's name for a job: its whole name, or a unique beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobName {
    /// All 16 digits.
    Whole(JobId),
    /// Some hexadecimal digits, in lower case.
    Beginning(String),
}

impl JobName {
    /// Digits that are shown where they suffice.
    pub const SHORT: usize = 8;
    /// Fewest digits that name a job.
    const LEAST: usize = 4;

    /// Returns whether the name fits this job.
    #[must_use]
    pub fn matches(&self, job: JobId) -> bool {
        match self {
            Self::Whole(whole) => *whole == job,
            Self::Beginning(digits) => job.to_string().starts_with(digits),
        }
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(job) => job.fmt(f),
            Self::Beginning(digits) => f.write_str(digits),
        }
    }
}

impl FromStr for JobName {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        if let Ok(job) = text.parse() {
            return Ok(Self::Whole(job));
        }
        let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
        if !digits || !(Self::LEAST..16).contains(&text.len()) {
            return Err(WireError::Bad("job: 4 to 16 hexadecimal digits"));
        }
        Ok(Self::Beginning(text.to_ascii_lowercase()))
    }
}

/// Makes the datagram of an agent that has started and asks for open commands. It is unsigned: it
/// only causes repetitions, which are bounded.
#[must_use]
pub fn hello(agent: &PeerId) -> Vec<u8> {
    let mut w = Kind::Hello.start();
    w.put(agent.public_key());
    w.into_vec()
}

/// Reads a count of at most [`MAX_RANGES`], and the ranges.
pub(crate) fn read_ranges<'a, T>(
    r: &mut Reader<'a>,
    mut one: impl FnMut(&mut Reader<'a>) -> Result<T, WireError>,
) -> Result<Vec<(T, T)>, WireError> {
    let count = r.u8()?;
    if usize::from(count) > MAX_RANGES {
        return Err(WireError::Bad("ranges"));
    }
    (0..count).map(|_| Ok((one(r)?, one(r)?))).collect()
}

/// Appends a range, or extends the last one if they touch; false if there are [`MAX_RANGES`].
pub(crate) fn push_range<T: Copy + Ord>(ranges: &mut Vec<(T, T)>, from: T, to: T) -> bool {
    if let Some((_, end)) = ranges.last_mut()
        && *end >= from
    {
        *end = to.max(*end);
        return true;
    }
    if ranges.len() == MAX_RANGES {
        return false;
    }
    ranges.push((from, to));
    true
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn a_job_is_named_by_as_much_of_its_name_as_is_said() {
        let job: JobId = "1a2b3c4d5e6f7081".parse().unwrap();
        for name in ["1a2b", "1A2B3C4D", "1a2b3c4d5e6f7081"] {
            let name: JobName = name.parse().unwrap();
            assert!(name.matches(job), "{name}");
        }
        assert!(!"1a2c".parse::<JobName>().unwrap().matches(job));
        for bad in ["", "1a2", "1a2g", "1a2b3c4d5e6f70811"] {
            assert!(bad.parse::<JobName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_are_told_apart_and_others_refused() {
        for kind in Kind::ALL {
            let bytes = kind.start().into_vec();
            assert_eq!(Kind::read(&bytes).unwrap().0, kind);
        }
        let refused = |bytes: &[u8]| Kind::read(bytes).unwrap_err();
        assert_eq!(refused(&[1, 0]), WireError::Bad("kind"));
        assert_eq!(refused(&[1, 13]), WireError::Bad("kind"));
        assert_eq!(refused(&[2, 1]), WireError::Version(2));
        assert_eq!(refused(&[1]), WireError::Truncated);
    }

    #[test]
    fn job_is_named_by_operator_sequence_and_nonce() {
        let key = |n| SecretKey::from_seed(&[n; 32]).peer_id();
        let job = JobId::of(&key(1), 1, &[0; 16]);
        assert_eq!(job.to_string().parse::<JobId>(), Ok(job));
        assert_ne!(job, JobId::of(&key(2), 1, &[0; 16]));
        assert_ne!(job, JobId::of(&key(1), 2, &[0; 16]));
        assert_ne!(job, JobId::of(&key(1), 1, &[1; 16]));
        for bad in ["", "12", "0123456789abcdeg", "+123456789abcdef"] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}
