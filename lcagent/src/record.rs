//! The content of an answer: a stream of records, which segments carry in order.
//!
//! ```text
//! record = type 8 | length 16 | content
//!
//! 1 node      name text8 | labels 8 x { text8 | text8 } | version text8      begins every answer
//! 2 started   Unix milliseconds 64, by the agent's clock
//! 3 stdout    bytes
//! 4 stderr    bytes
//! 5 ended     how 8 (0 exited, 1 killed by a signal, 2 out of time, 3 cancelled, 4 lost)
//!             | code 32 (exit code or signal) | duration µs 64 | user µs 64 | system µs 64
//!             | most memory KiB 64 | bytes of output cut 64
//! 6 refused   why text
//! 7 facts     count 8 x { text8 | bytes16 }
//! 8 warning   text
//! 9 done      nothing: the request has been executed
//! 10 not selected   nothing: the command is not for this node; only when asked
//! 11 job      job 64 | started, Unix s 64 | how 8 (as in ended; 255: it runs) | code 32 | text
//! ```
//!
//! An answer ends with ended, refused, facts, done or not selected. Unknown records are skipped.

use std::collections::BTreeMap;
use std::fmt;

use librecast::wire::{Reader, WireError, Writer};

use crate::datagram::JobId;

/// Most bytes in one record.
pub const MAX_CONTENT: usize = u16::MAX as usize;
/// Most labels of a node.
pub const MAX_LABELS: usize = 64;
/// Type of the record of a job's end.
const ENDED: u8 = 5;
/// In place of a job's ending: it runs.
const RUNS: u8 = 255;

/// A piece of an answer's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The node that answers; always the first record.
    Node(NodeInfo),
    /// A job has started, at this Unix time in milliseconds.
    Started(u64),
    /// Bytes of the job's standard output.
    Stdout(Vec<u8>),
    /// Bytes of the job's standard error.
    Stderr(Vec<u8>),
    /// The end of the job; the last record.
    Ended(Ended),
    /// The reason why the agent refuses the command.
    Refused(String),
    /// The node's facts.
    Facts(Vec<(String, String)>),
    /// A warning for the operator.
    Warning(String),
    /// The request has been executed.
    Done,
    /// The command is not for this node.
    NotSelected,
    /// A job of the requesting operator.
    Job(JobState),
}

/// A job in the view of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobState {
    /// Name of the job.
    pub job: JobId,
    /// Arrival in Unix seconds by the node's clock.
    pub at: u64,
    /// Its ending; none while it runs.
    pub how: Option<Ending>,
    /// The command line, for people; may be cut.
    pub line: String,
}

/// A node's own description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Name in the node's configuration, 1 to 63 bytes.
    pub name: String,
    /// At most [`MAX_LABELS`] labels.
    pub labels: BTreeMap<String, String>,
    /// Version of its lcagent.
    pub version: String,
}

/// The end of a job, and its use of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The ending.
    pub how: Ending,
    /// From start to end, in microseconds.
    pub duration_us: u64,
    /// CPU time in user mode, in microseconds, children included.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds, children included.
    pub system_us: u64,
    /// Most memory of one of its processes, in KiB.
    pub memory_kib: u64,
    /// Bytes of output above the limit, which were dropped.
    pub cut: u64,
}

/// The ending of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this exit code.
    Exited(u32),
    /// A signal of this number killed it.
    Killed(u32),
    /// It exceeded its time limit.
    OutOfTime,
    /// An operator ended it.
    Cancelled,
    /// Unknown: the host or the job's supervisor went down.
    Lost,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::OutOfTime => f.write_str("out of time"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Lost => f.write_str("nobody saw how it ended"),
        }
    }
}

impl Record {
    /// Returns whether the stream ends with this record.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Ended(_) | Self::Refused(_) | Self::Facts(_) | Self::Done | Self::NotSelected
        )
    }

    /// Bytes before the content of a record.
    pub const HEAD: usize = 3;

    /// Returns the length of the content after this head.
    #[must_use]
    pub fn content_length(head: &[u8; Self::HEAD]) -> usize {
        usize::from(u16::from_be_bytes([head[1], head[2]]))
    }

    /// Returns whether this is the head of a job's end.
    #[must_use]
    pub fn ends_job(head: &[u8; Self::HEAD]) -> bool {
        head[0] == ENDED
    }

    /// Appends the record to `out`; content above [`MAX_CONTENT`] is an error.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let mut w = Writer::new();
        let kind = match self {
            Self::Node(node) => {
                node.encode(&mut w)?;
                1
            }
            Self::Started(at) => {
                w.u64(*at);
                2
            }
            Self::Stdout(bytes) => {
                w.put(bytes);
                3
            }
            Self::Stderr(bytes) => {
                w.put(bytes);
                4
            }
            Self::Ended(ended) => {
                ended.encode(&mut w);
                ENDED
            }
            Self::Refused(why) => {
                w.put(why.as_bytes());
                6
            }
            Self::Facts(facts) => {
                w.u8(u8::try_from(facts.len()).map_err(|_| WireError::Bad("facts"))?);
                for (name, value) in facts {
                    w.text8(name)?.bytes16(value.as_bytes())?;
                }
                7
            }
            Self::Warning(text) => {
                w.put(text.as_bytes());
                8
            }
            Self::Done => 9,
            Self::NotSelected => 10,
            Self::Job(state) => {
                let (how, code) = state.how.map_or((RUNS, 0), Ending::to_wire);
                w.put(&state.job.0).u64(state.at).u8(how).u32(code);
                w.put(state.line.as_bytes());
                11
            }
        };
        let length = u16::try_from(w.len()).map_err(|_| WireError::Bad("record length"))?;
        out.push(kind);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(w.as_slice());
        Ok(())
    }

    /// Decodes the record at the front of `stream`; returns it with its length. Outer none: not
    /// whole yet; inner none: unknown type.
    pub fn decode(stream: &[u8]) -> Result<Option<(usize, Option<Self>)>, WireError> {
        let mut r = Reader::new(stream);
        let (Ok(kind), Ok(content)) = (r.u8(), r.bytes16()) else {
            return Ok(None);
        };
        let mut c = Reader::new(content);
        let record = match kind {
            1 => Self::Node(NodeInfo::decode(&mut c)?),
            2 => Self::Started(c.u64()?),
            3 => Self::Stdout(rest(&mut c)?),
            4 => Self::Stderr(rest(&mut c)?),
            ENDED => Self::Ended(Ended::decode(&mut c)?),
            6 => Self::Refused(lossy(&mut c)?),
            7 => Self::Facts(facts(&mut c)?),
            8 => Self::Warning(lossy(&mut c)?),
            9 => Self::Done,
            10 => Self::NotSelected,
            11 => Self::Job(JobState {
                job: JobId(c.array()?),
                at: c.u64()?,
                how: match (c.u8()?, c.u32()?) {
                    (RUNS, _) => None,
                    (how, code) => Some(Ending::from_wire(how, code)?),
                },
                line: lossy(&mut c)?,
            }),
            _ => return Ok(Some((3 + content.len(), None))),
        };
        c.finish()?;
        Ok(Some((3 + content.len(), Some(record))))
    }
}

fn rest(r: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
    Ok(r.take(r.rest().len())?.to_vec())
}

fn lossy(r: &mut Reader<'_>) -> Result<String, WireError> {
    Ok(String::from_utf8_lossy(&rest(r)?).into_owned())
}

fn facts(r: &mut Reader<'_>) -> Result<Vec<(String, String)>, WireError> {
    (0..r.u8()?)
        .map(|_| {
            let name = r.text8()?.to_owned();
            let value = String::from_utf8_lossy(r.bytes16()?).into_owned();
            Ok((name, value))
        })
        .collect()
}

impl NodeInfo {
    fn encode(&self, w: &mut Writer) -> Result<(), WireError> {
        if self.labels.len() > MAX_LABELS {
            return Err(WireError::Bad("labels"));
        }
        w.text8(&self.name)?.u8(self.labels.len() as u8);
        for (label, value) in &self.labels {
            w.text8(label)?.text8(value)?;
        }
        w.text8(&self.version)?;
        Ok(())
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let name = r.text8()?.to_owned();
        let count = r.u8()?;
        if usize::from(count) > MAX_LABELS {
            return Err(WireError::Bad("labels"));
        }
        let labels = (0..count)
            .map(|_| Ok((r.text8()?.to_owned(), r.text8()?.to_owned())))
            .collect::<Result<_, WireError>>()?;
        let node = Self {
            name,
            labels,
            version: r.text8()?.to_owned(),
        };
        // it is printed on terminals and kept in a file of lines
        if !is_name(&node.name) {
            return Err(WireError::Bad("name"));
        }
        Ok(node)
    }
}

/// Returns whether this is a valid node name: 1 to 63 characters that a selector can write.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "-_.:@".contains(c);
    !name.is_empty() && name.len() <= 63 && name != "all" && name.chars().all(plain)
}

impl Ending {
    fn to_wire(self) -> (u8, u32) {
        match self {
            Self::Exited(code) => (0, code),
            Self::Killed(signal) => (1, signal),
            Self::OutOfTime => (2, 0),
            Self::Cancelled => (3, 0),
            Self::Lost => (4, 0),
        }
    }

    fn from_wire(how: u8, code: u32) -> Result<Self, WireError> {
        Ok(match how {
            0 => Self::Exited(code),
            1 => Self::Killed(code),
            2 => Self::OutOfTime,
            3 => Self::Cancelled,
            4 => Self::Lost,
            _ => return Err(WireError::Bad("end")),
        })
    }

    /// Returns the exit code as shells do: 128 and the signal, 124 for out of time.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal.min(127),
            Self::OutOfTime => 124,
            Self::Cancelled => 143,
            Self::Lost => 255,
        }
    }

    /// Returns the fixed name in JSON documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited(_) => "exited",
            Self::Killed(_) => "killed",
            Self::OutOfTime => "timeout",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

impl Ended {
    fn encode(&self, w: &mut Writer) {
        let (how, code) = self.how.to_wire();
        w.u8(how).u32(code).u64(self.duration_us).u64(self.user_us);
        w.u64(self.system_us).u64(self.memory_kib).u64(self.cut);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let how = Ending::from_wire(r.u8()?, r.u32()?)?;
        Ok(Self {
            how,
            duration_us: r.u64()?,
            user_us: r.u64()?,
            system_us: r.u64()?,
            memory_kib: r.u64()?,
            cut: r.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every_kind() -> Vec<Record> {
        let node = NodeInfo {
            name: "web-1".into(),
            labels: BTreeMap::from([("role".into(), "web".into())]),
            version: "0.1.0".into(),
        };
        let ended = |how| {
            Record::Ended(Ended {
                how,
                duration_us: 1,
                user_us: 2,
                system_us: 3,
                memory_kib: 4,
                cut: 5,
            })
        };
        vec![
            Record::Node(node),
            Record::Started(1_800_000_000_000),
            Record::Stdout(vec![0, 255]),
            Record::Stderr(Vec::new()),
            ended(Ending::Exited(3)),
            ended(Ending::Killed(9)),
            ended(Ending::OutOfTime),
            ended(Ending::Cancelled),
            ended(Ending::Lost),
            Record::Refused("not allowed".into()),
            Record::Facts(vec![("os".into(), "Debian 12".into())]),
            Record::Warning("clock".into()),
            Record::Done,
            Record::NotSelected,
            Record::Job(JobState {
                job: JobId([7; 8]),
                at: 1_800_000_000,
                how: Some(Ending::Exited(3)),
                line: "make test".into(),
            }),
            Record::Job(JobState {
                job: JobId([8; 8]),
                at: 1,
                how: None,
                line: String::new(),
            }),
        ]
    }

    #[test]
    fn records_are_read_back_one_after_the_other() {
        let mut stream = Vec::new();
        for record in every_kind() {
            record.encode(&mut stream).unwrap();
        }
        let mut rest = stream.as_slice();
        for record in every_kind() {
            let (length, read) = Record::decode(rest).unwrap().unwrap();
            assert_eq!(read, Some(record));
            assert!(
                Record::decode(&rest[..length - 1]).unwrap().is_none(),
                "not whole yet"
            );
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn unknown_kinds_are_skipped_and_broken_ones_refused() {
        assert_eq!(Record::decode(&[99, 0, 1, 7]), Ok(Some((4, None))));
        assert!(Record::decode(&[2, 0, 1, 7]).is_err(), "cut short");
        assert!(Record::decode(&[9, 0, 1, 7]).is_err(), "too long");
        assert!(Record::decode(&[5, 0, 1, 9]).is_err());
        let long = Record::Stdout(vec![0; MAX_CONTENT + 1]);
        assert!(long.encode(&mut Vec::new()).is_err());
    }

    #[test]
    fn names_are_fit_for_terminals_and_files() {
        for good in ["a", "web-1.example", "büro", "x_y:2@z"] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(64);
        for bad in ["", "all", "a b", "a\nb", "\u{1b}[31m", "a=b", "a*", &long] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 0_u8..13, content in prop::collection::vec(any::<u8>(), 0..200)) {
            let length = (content.len() as u16).to_be_bytes();
            let bytes = [&[kind], length.as_slice(), &content].concat();
            if let Ok(Some((read, Some(record)))) = Record::decode(&bytes) {
                prop_assert_eq!(read, bytes.len());
                let mut again = Vec::new();
                record.encode(&mut again).unwrap();
                prop_assert_eq!(Record::decode(&again).unwrap().unwrap().1, Some(record));
            }
            let _ = Record::decode(&content);
        }
    }
}
