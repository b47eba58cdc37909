//! What all datagrams of lcagent have in common: version, kind and size; how a command is named.
//!
//! ```text
//! version 8 = 1 | kind 8 | ...
//! ```
//!
//! | kind | what | who sends it where |
//! |---|---|---|
//! | 1, 2 | a command, with its payload or before it ([`crate::envelope`]) | operator, channel |
//! | 3 | a part of a payload ([`crate::part`]) | operator, channel |
//! | 4 | what has come of the answers ([`crate::acknowledgement`]) | operator, channel |
//! | 5 | hello: an agent has come up ([`hello`]) | agent, channel |
//! | 6 | a segment of an answer ([`crate::answer`]) | agent, answers |
//! | 7 | parts that are missing ([`crate::part`]) | agent, answers |
//! | 8, 9 | as 1, 2, by an operator with a certificate ([`crate::certificate`]) | operator, channel |
//! | 10 | a sealed segment of an answer ([`crate::sealed`]) | agent, answers |
//! | 11, 12 | as 6, 10, with the name of the stream | agent, answers |
//! | 13 | several agents have one key ([`crate::shared_key`]) | operator, channel |
//!
//! An agent sends the kinds 11 and 12 to operators whose command says that they read them
//! ([`crate::envelope::reads_streams`]), so operators and agents of all versions understand each other.

use std::fmt;
use std::str::FromStr;

use librecast::id::{PeerId, derive};
use librecast::wire::{Reader, WireError, Writer};
use serde::{Deserialize, Serialize};

/// Largest datagram in bytes: with IPv6 and UDP headers below the least MTU of IPv6.
pub const MAX_DATAGRAM: usize = 1_200;
/// How far an operator's clock may be ahead of the agent's: an hour, in seconds.
pub const MAX_AHEAD_S: u64 = 3600;
/// How long after its end a command is still accepted, in seconds: so far may an operator's clock be behind the agent's,
/// however short his command is good. Five minutes (chosen: clocks that nobody sets lose seconds a day).
pub const MAX_BEHIND_S: u64 = 300;
/// Most ranges in one datagram.
pub const MAX_RANGES: usize = 8;

/// What is said of a datagram whose signature does not verify.
pub const FORGED: WireError = WireError::Bad("signature");

/// Version of all datagrams, their first byte.
const VERSION: u8 = 1;
/// Bytes of an ed25519 signature (RFC 8032 §5.1.6), the last field of each signed datagram.
pub(crate) const SIGNATURE_LEN: usize = 64;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command with its payload.
    Command = 1,
    /// A command whose payload comes in parts.
    Announced = 2,
    /// A part of a payload.
    Part = 3,
    /// What has come of the answers.
    Acknowledgement = 4,
    /// An agent has come up.
    Hello = 5,
    /// A segment of an answer.
    Answer = 6,
    /// Parts that an agent misses.
    Missing = 7,
    /// A command with its payload and a certificate.
    CertifiedCommand = 8,
    /// A command with a certificate whose payload comes in parts.
    CertifiedAnnounced = 9,
    /// A sealed segment of an answer.
    SealedAnswer = 10,
    /// A segment of an answer that names its stream.
    StreamAnswer = 11,
    /// A sealed segment of an answer that names its stream.
    SealedStreamAnswer = 12,
    /// Several agents have one key.
    SharedKey = 13,
}

impl Kind {
    const ALL: [Self; 13] = [
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
        Self::SealedStreamAnswer,
        Self::SharedKey,
    ];

    /// A datagram of this kind, to be continued.
    #[must_use]
    pub fn start(self) -> Writer {
        let mut w = Writer::new();
        w.u8(VERSION).u8(self as u8);
        w
    }

    /// The kind of a datagram, and what follows it.
    pub fn read(datagram: &[u8]) -> Result<(Self, Reader<'_>), WireError> {
        let mut r = Reader::new(datagram);
        match r.u8()? {
            VERSION => {}
            other => return Err(WireError::Version(other)),
        }
        let number = r.u8()?;
        let kind = Self::ALL.into_iter().find(|k| *k as u8 == number);
        Ok((kind.ok_or(WireError::Bad("kind"))?, r))
    }
}

/// Names a command of an operator: the first 64 bits of a hash of what makes it unique.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub [u8; 8]);

impl JobId {
    /// Of the command with this sequence and nonce.
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

/// Tells the streams of one job that came under one key from each other: two hosts with a copy of one key write two. It
/// is drawn where a stream begins and kept beside it, so an agent that was started anew goes on with the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub [u8; 8]);

impl StreamId {
    /// The stream of `job` in a run of the agent for which `seed` was drawn.
    #[must_use]
    pub fn of(seed: u64, job: JobId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] =
            derive("lcagent 2026 stream", &[&seed.to_be_bytes(), &job.0]);
        Self([a, b, c, d, e, f, g, h])
    }

    /// The stream that goes on in a copy of this one's folder.
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

/// How a user names a job: with its name, or with so much of its beginning as no other has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobName {
    /// All 16 digits.
    Whole(JobId),
    /// Some hexadecimal digits, in lower case.
    Beginning(String),
}

impl JobName {
    /// As many digits are shown where they are enough.
    pub const SHORT: usize = 8;
    /// Fewest digits that name a job.
    const LEAST: usize = 4;

    /// Whether this job may be meant.
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

/// The datagram of an agent that has come up and asks what it missed. It is not signed: all it can do is
/// to have open commands repeated, which is bounded.
#[must_use]
pub fn hello(agent: &PeerId) -> Vec<u8> {
    let mut w = Kind::Hello.start();
    w.put(agent.public_key());
    w.into_vec()
}

/// Reads a count of at most [`MAX_RANGES`] and so many ranges.
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

/// Adds a range behind the others, as part of the last one where they touch; false if there are [`MAX_RANGES`].
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
        assert_eq!(refused(&[1, 14]), WireError::Bad("kind"));
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
