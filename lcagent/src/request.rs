//! The request of a command: the payload of an envelope.
//!
//! Version 1, big-endian:
//!
//! ```text
//! version 8 = 1 | what 8 | spread 16 | window 8 | only 16 x { node 64 } | ...
//!
//! 1 run     flags 8 (bit 0: a script) | time 32 | memory 64 (bytes; 0: as the node has it)
//!           | user text8 | folder bytes16 | arguments 16 x bytes16
//!           | variables 16 x { name bytes16 | value bytes16 }
//!           | script length 32 | script | standard input to the end
//! 2 facts   nothing
//! 3 cancel  job 64
//! 4 result  job 64
//! 5 jobs    nothing
//! 6 revoke  operator key 256
//! ```
//!
//! `only`: of the selected nodes, those with these first 64 bits of their keys; none: all. `@NAME`
//! is a module of the node; `copy:DEST lc:NAME#ROOTHASH [FILE]` is fetched with lcsync.
//!
//! Answers begin within `spread` milliseconds, each agent at a random time, and have at most
//! `window` segments in flight. `time` is a job's time limit, in milliseconds.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};
use std::time::Duration;

use librecast::id::PeerId;
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::acknowledgement::ShortId;
use crate::datagram::JobId;

/// Prefix of a program that is a copy.
pub const COPY: &str = "copy:";

/// Version of requests, their first byte.
const VERSION: u8 = 1;
/// Flag of a request: it carries a script.
const SCRIPT: u8 = 1;
/// Most arguments, and most variables.
const MAX_ITEMS: u16 = 4_096;
/// Longest argument, variable or folder, in bytes: their length fields have 16 bits.
const MAX_TEXT: usize = u16::MAX as usize;
/// Longest name of a user, in bytes: its length field has 8 bits.
const MAX_USER: usize = u8::MAX as usize;

/// A request, and parameters of its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Time over which the first answers are spread, in milliseconds.
    pub spread_ms: u16,
    /// Segments in flight of one answer.
    pub window: u8,
    /// The nodes it is for, of the selected ones; empty: all.
    pub only: Vec<ShortId>,
    /// The action.
    pub what: What,
}

/// The action of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Runs a program.
    Run(Run),
    /// Sends name, labels and version of the node.
    Facts,
    /// Ends a job of the same operator.
    Cancel(JobId),
    /// Resends the answer to a job of the same operator.
    Result(JobId),
    /// Lists the jobs of the same operator.
    Jobs,
    /// Revokes a key.
    Revoke(PeerId),
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments. The first of a script is its name.
    pub arguments: Vec<OsString>,
    /// Text that begins with `#!`, executed in place of an installed program.
    pub script: Option<Vec<u8>>,
    /// The program's standard input.
    pub stdin: Vec<u8>,
    /// Time limit; at most 49 days.
    pub time: Duration,
    /// Limit of the memory in bytes, if the operator sets one.
    pub memory: Option<u64>,
    /// User, if the operator chooses one.
    pub user: Option<String>,
    /// Working folder, if the operator chooses one.
    pub folder: Option<OsString>,
    /// Environment variables.
    pub variables: Vec<(OsString, OsString)>,
}

/// A copy with lcsync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy<'a> {
    /// Destination: an absolute path.
    pub dest: &'a str,
    /// `lc:NAME#ROOTHASH`.
    pub source: &'a str,
    /// Its name if it is a file and DEST a folder.
    pub file: Option<&'a str>,
}

impl Request {
    /// Encodes the payload. A part that is too long for its length field is an error.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut w = Writer::new();
        w.u8(VERSION);
        w.u8(match &self.what {
            What::Run(_) => 1,
            What::Facts => 2,
            What::Cancel(_) => 3,
            What::Result(_) => 4,
            What::Jobs => 5,
            What::Revoke(_) => 6,
        });
        w.u16(self.spread_ms).u8(self.window);
        w.u16(u16::try_from(self.only.len()).map_err(|_| WireError::Bad("count"))?);
        for node in &self.only {
            w.put(node);
        }
        match &self.what {
            What::Run(run) => run.encode(&mut w)?,
            What::Facts | What::Jobs => {}
            What::Cancel(job) | What::Result(job) => {
                w.put(&job.0);
            }
            What::Revoke(key) => {
                w.put(key.public_key());
            }
        }
        Ok(w.into_vec())
    }

    /// Decodes the payload of a command.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        r.version(VERSION)?;
        let what = r.u8()?;
        let (spread_ms, window) = (r.u16()?, r.u8()?);
        let only = (0..r.u16()?).map(|_| r.array()).collect::<Result<_, _>>()?;
        let what = match what {
            1 => What::Run(Run::decode(&mut r)?),
            2 => What::Facts,
            3 => What::Cancel(JobId(r.array()?)),
            4 => What::Result(JobId(r.array()?)),
            5 => What::Jobs,
            6 => What::Revoke(
                PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("key"))?,
            ),
            _ => return Err(WireError::Bad("request")),
        };
        r.finish()?;
        Ok(Self {
            spread_ms,
            window,
            only,
            what,
        })
    }
}

/// A part of a command that exceeds its limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}: {size} {unit}; at most {most}")]
pub struct OutOfBounds {
    /// The part of the command.
    what: String,
    /// Its size, in `unit`.
    size: usize,
    /// The limit, in `unit`.
    most: usize,
    unit: &'static str,
}

/// The reason why a command that begins with [`COPY`] is not a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CopyError {
    /// It comes with a script.
    #[error("a copy is no script")]
    Script,
    /// DEST is relative, or leads upwards.
    #[error("DEST must be an absolute path without `..`")]
    Dest,
    /// Too few or too many arguments, or not UTF-8.
    #[error("a copy has a source, and a name if it is a file")]
    Arguments,
    /// The source names no version of a share.
    #[error("the source must be lc:NAME#ROOTHASH")]
    Source,
    /// The last argument is not a plain name in DEST.
    #[error("not a file's name")]
    FileName,
}

impl Run {
    /// Checks that everything fits its field, so that the request can be encoded.
    ///
    /// # Errors
    /// The part that does not fit, by the user's name for it.
    pub fn check_bounds(&self) -> Result<(), OutOfBounds> {
        let within = |what: &dyn Fn() -> String, size, most, unit| match size <= most {
            true => Ok(()),
            false => Err(OutOfBounds {
                what: what(),
                size,
                most,
                unit,
            }),
        };
        let text = |what: &dyn Fn() -> String, text: &OsString| {
            within(what, text.len(), MAX_TEXT, "bytes")
        };
        let items = usize::from(MAX_ITEMS);
        within(
            &|| "arguments".to_owned(),
            self.arguments.len(),
            items,
            "of them",
        )?;
        within(
            &|| "--env".to_owned(),
            self.variables.len(),
            items,
            "of them",
        )?;
        for (n, argument) in self.arguments.iter().enumerate() {
            let what = || match n {
                0 => "the program's name".to_owned(),
                n => format!("argument {n} ({})", beginning(argument)),
            };
            text(&what, argument)?;
        }
        for (name, value) in &self.variables {
            let what = || format!("--env {}", beginning(name));
            text(&what, name)?;
            text(&what, value)?;
        }
        if let Some(folder) = &self.folder {
            text(&|| "--cwd".to_owned(), folder)?;
        }
        let user = self.user.as_deref().map_or(0, str::len);
        within(&|| "--user".to_owned(), user, MAX_USER, "bytes")
    }

    fn encode(&self, w: &mut Writer) -> Result<(), WireError> {
        w.u8(if self.script.is_some() { SCRIPT } else { 0 });
        w.u32(u32::try_from(self.time.as_millis()).map_err(|_| WireError::Bad("time"))?);
        w.u64(self.memory.unwrap_or(0));
        w.text8(self.user.as_deref().unwrap_or_default())?;
        w.bytes16(self.folder.as_deref().unwrap_or_default().as_bytes())?;
        w.u16(count(self.arguments.len())?);
        for argument in &self.arguments {
            w.bytes16(argument.as_bytes())?;
        }
        w.u16(count(self.variables.len())?);
        for (name, value) in &self.variables {
            w.bytes16(name.as_bytes())?.bytes16(value.as_bytes())?;
        }
        let script = self.script.as_deref().unwrap_or_default();
        w.u32(u32::try_from(script.len()).map_err(|_| WireError::Bad("script"))?);
        w.put(script).put(&self.stdin);
        Ok(())
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let flags = r.u8()?;
        if flags & !SCRIPT != 0 {
            return Err(WireError::Bad("flags"));
        }
        let time = Duration::from_millis(r.u32()?.into());
        let memory = Some(r.u64()?).filter(|bytes| *bytes > 0);
        let user = r.text8()?;
        let folder = text(r)?;
        let arguments: Vec<OsString> = (0..bounded(r.u16()?)?)
            .map(|_| text(r))
            .collect::<Result<_, _>>()?;
        if arguments.first().is_none_or(|program| program.is_empty()) {
            return Err(WireError::Bad("program"));
        }
        let variables = (0..bounded(r.u16()?)?)
            .map(|_| Ok((variable_name(r)?, text(r)?)))
            .collect::<Result<_, _>>()?;
        let length = r.u32()? as usize;
        let script = r.take(length)?;
        let stdin = r.take(r.rest().len())?;
        Ok(Self {
            arguments,
            script: (flags & SCRIPT != 0).then(|| script.to_vec()),
            stdin: stdin.to_vec(),
            time,
            memory,
            user: (!user.is_empty()).then(|| user.to_owned()),
            folder: (!folder.is_empty()).then_some(folder),
            variables,
        })
    }

    /// Returns the name of the module to run, if it is one: `@NAME`.
    #[must_use]
    pub fn module(&self) -> Option<&str> {
        let first = self.arguments.first().filter(|_| self.script.is_none())?;
        first.to_str()?.strip_prefix('@')
    }

    /// Returns the copy to make, if it is one: `copy:DEST lc:NAME#HASH [FILE]`.
    ///
    /// # Errors
    /// It begins as a copy, but is none.
    pub fn copy(&self) -> Result<Option<Copy<'_>>, CopyError> {
        let first = self.arguments.first().and_then(|a| a.to_str());
        let Some(dest) = first.and_then(|a| a.strip_prefix(COPY)) else {
            return Ok(None);
        };
        if self.script.is_some() {
            return Err(CopyError::Script);
        }
        let mut plain = Path::new(dest).components();
        if !dest.starts_with('/') || plain.any(|c| c == Component::ParentDir) {
            return Err(CopyError::Dest);
        }
        let words: Option<Vec<&str>> = self.arguments[1..].iter().map(|a| a.to_str()).collect();
        let (source, file) = match words.as_deref() {
            Some([source]) => (*source, None),
            Some([source, file]) => (*source, Some(*file)),
            _ => return Err(CopyError::Arguments),
        };
        let hash = source.strip_prefix("lc:").and_then(|s| s.rsplit_once('#'));
        let is_hash = |h: &str| h.len() == 64 && h.bytes().all(|b| b.is_ascii_hexdigit());
        if !hash.is_some_and(|(_, hash)| is_hash(hash)) {
            return Err(CopyError::Source);
        }
        if file.is_some_and(|f| f.is_empty() || f.contains('/') || f == "..") {
            return Err(CopyError::FileName);
        }
        Ok(Some(Copy { dest, source, file }))
    }

    /// Returns the words that patterns are compared with: of a copy only the destination.
    #[must_use]
    pub fn pattern_words(&self) -> &[OsString] {
        match self.copy() {
            Ok(Some(_)) => &self.arguments[..1],
            _ => &self.arguments,
        }
    }

    /// Returns the command line for logs, without sealed content.
    #[must_use]
    pub fn line_for_logs(&self, sealed: bool) -> String {
        match sealed {
            true => "(sealed)".to_owned(),
            false => self.line(),
        }
    }

    /// Returns the program and its arguments on one line, for people.
    #[must_use]
    pub fn line(&self) -> String {
        let words = self.arguments.iter().map(|a| {
            let text = a.to_string_lossy();
            // quoted if it contains controls, marks of direction or quotes
            let quoted = format!("{text:?}");
            let is_plain = quoted.len() == text.len() + 2;
            match text.is_empty()
                || !is_plain
                || text.contains(|c: char| c.is_whitespace() || c == '\'')
            {
                true => quoted,
                false => text.into_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Returns the beginning of a text, to identify it.
fn beginning(text: &OsString) -> String {
    /// Characters shown. Chosen.
    const MOST: usize = 24;
    let text = text.to_string_lossy();
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{:?}...", &text[..at]),
        None => format!("{text:?}"),
    }
}

fn count(items: usize) -> Result<u16, WireError> {
    bounded(u16::try_from(items).map_err(|_| WireError::Bad("count"))?)
}

fn bounded(items: u16) -> Result<u16, WireError> {
    if items > MAX_ITEMS {
        return Err(WireError::Bad("count"));
    }
    Ok(items)
}

/// Reads bytes that the kernel accepts as a text.
fn text(r: &mut Reader<'_>) -> Result<OsString, WireError> {
    let bytes = r.bytes16()?;
    if bytes.contains(&0) {
        return Err(WireError::Bad("NUL byte"));
    }
    Ok(OsString::from_vec(bytes.to_vec()))
}

fn variable_name(r: &mut Reader<'_>) -> Result<OsString, WireError> {
    let name = text(r)?;
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(WireError::Bad("variable"));
    }
    Ok(name)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Makes a request of only a program.
    pub(crate) fn run(arguments: &[&str]) -> Run {
        Run {
            arguments: arguments.iter().map(OsString::from).collect(),
            script: None,
            stdin: Vec::new(),
            time: Duration::from_secs(60),
            memory: None,
            user: None,
            folder: None,
            variables: Vec::new(),
        }
    }

    fn request(what: What) -> Request {
        Request {
            spread_ms: 8,
            window: 64,
            only: Vec::new(),
            what,
        }
    }

    #[test]
    fn every_kind_round_trips() {
        let full = Run {
            script: Some(b"#!/bin/sh\ncat".to_vec()),
            stdin: b"in".to_vec(),
            memory: Some(1 << 30),
            user: Some("nobody".into()),
            folder: Some("/tmp".into()),
            variables: vec![("A".into(), "b=c".into())],
            ..run(&["name", "", "two words"])
        };
        let kinds = [
            What::Run(run(&["true"])),
            What::Run(full),
            What::Facts,
            What::Cancel(JobId([1; 8])),
            What::Result(JobId([2; 8])),
            What::Jobs,
            What::Revoke(librecast::id::SecretKey::from_seed(&[1; 32]).peer_id()),
        ];
        for what in kinds {
            let mut request = request(what);
            request.only = vec![[3; 8], [4; 8]];
            let bytes = request.encode().unwrap();
            assert_eq!(Request::decode(&bytes), Ok(request));
        }
    }

    #[test]
    fn what_no_kernel_takes_is_refused() {
        let refused =
            |run: Run| Request::decode(&request(What::Run(run)).encode().unwrap()).unwrap_err();
        assert_eq!(refused(run(&[])), WireError::Bad("program"));
        assert_eq!(refused(run(&[""])), WireError::Bad("program"));
        assert_eq!(refused(run(&["a\0b"])), WireError::Bad("NUL byte"));
        for name in ["", "A=B"] {
            let bad = Run {
                variables: vec![(name.into(), "x".into())],
                ..run(&["true"])
            };
            assert_eq!(refused(bad), WireError::Bad("variable"));
        }
        let many = vec!["x"; usize::from(MAX_ITEMS) + 1];
        assert!(request(What::Run(run(&many))).encode().is_err());
    }

    #[test]
    fn what_is_too_long_is_named_with_its_bound() {
        let long = "x".repeat(MAX_TEXT + 1);
        let most = "x".repeat(MAX_TEXT);
        assert_eq!(run(&["echo", &most]).check_bounds(), Ok(()));
        let fits = request(What::Run(run(&["echo", &most])));
        assert!(fits.encode().is_ok());
        let many = vec!["x"; usize::from(MAX_ITEMS) + 1];
        let plain = || run(&["echo"]);
        let cases = [
            (
                run(&["echo", "a", &long]),
                "argument 2 (\"xxxxxxxxxxxxxxxxxxxxxxxx\"...): 65536 bytes; at most 65535",
            ),
            (
                run(&[&long]),
                "the program's name: 65536 bytes; at most 65535",
            ),
            (run(&many), "arguments: 4097 of them; at most 4096"),
            (
                Run {
                    variables: vec![("A".into(), long.clone().into())],
                    ..plain()
                },
                "--env \"A\": 65536 bytes; at most 65535",
            ),
            (
                Run {
                    folder: Some(long.clone().into()),
                    ..plain()
                },
                "--cwd: 65536 bytes; at most 65535",
            ),
            (
                Run {
                    user: Some("u".repeat(256)),
                    ..plain()
                },
                "--user: 256 bytes; at most 255",
            ),
        ];
        for (run, expected) in cases {
            assert_eq!(run.check_bounds().unwrap_err().to_string(), expected);
            assert!(request(What::Run(run)).encode().is_err(), "{expected}");
        }
    }

    #[test]
    fn copies_go_where_they_say_and_are_pinned() {
        let source = format!("lc:x#{}", "a1".repeat(32));
        let copy = |arguments: &[&str]| run(arguments).copy().map(|c| c.is_some());
        assert_eq!(copy(&["copy:/srv/www", &source]), Ok(true));
        assert_eq!(copy(&["copy:/srv/www/", &source, "index.html"]), Ok(true));
        assert_eq!(copy(&["cp", "/srv/www", &source]), Ok(false));
        for bad in [
            &["copy:srv", &source][..],
            &["copy:", &source],
            &["copy:/srv/../etc", &source],
            &["copy:/srv"],
            &["copy:/srv", "lc:x"],
            &["copy:/srv", "/etc#x"],
            &["copy:/srv", "lc:x#12"],
            &["copy:/srv", &source, "../x"],
            &["copy:/srv", &source, ".."],
            &["copy:/srv", &source, "a", "b"],
        ] {
            assert!(copy(bad).is_err(), "{bad:?}");
        }
        let words = run(&["copy:/srv", &source]).pattern_words().len();
        assert_eq!(
            words, 1,
            "which share it is has nothing to do with what is allowed"
        );
    }

    #[test]
    fn line_shows_where_arguments_end() {
        assert_eq!(run(&["echo", "a b", "c"]).line(), "echo \"a b\" c");
        assert_eq!(run(&["echo", ""]).line(), "echo \"\"");
        assert_eq!(run(&["büro", "it's"]).line(), "büro \"it's\"");
        let deceptive = run(&["a\u{1b}[2J", "b\u{202e}c"]).line();
        assert_eq!(deceptive, r#""a\u{1b}[2J" "b\u{202e}c""#);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::decode(&bytes);
            let versioned = [&[VERSION, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], bytes.as_slice()].concat();
            if let Ok(request) = Request::decode(&versioned) {
                prop_assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
            }
        }
    }
}
