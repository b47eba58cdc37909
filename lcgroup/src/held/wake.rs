//! Calls to members that are absent, by lines that they have left.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lcgroup_core::kind;
use lcgroup_core::waking::{Waking, decode_line};
use librecast::durable;
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_log::{AuthorId, AuthorStatus, Log};

use super::Held;

/// The file of lines and times.
const FILE: &str = "waking";

/// The lines, and the place in the log.
#[derive(Debug)]
pub(super) struct Calls {
    path: PathBuf,
    waking: Waking,
    /// The last entry of each author that was read.
    read: BTreeMap<AuthorId, u32>,
    changed: bool,
}

/// Whether entries of this author count without end.
fn is_member(status: &AuthorStatus) -> bool {
    status.grant.is_none_or(|grant| grant.last == u32::MAX)
}

impl Calls {
    pub(super) fn open(folder: &Path, log: &Log) -> io::Result<Self> {
        let path = folder.join(FILE);
        let waking = match std::fs::read(&path) {
            Ok(bytes) => Waking::decode(&bytes)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Waking::default(),
            Err(e) => return Err(e),
        };
        let mut calls = Self {
            path,
            waking,
            read: BTreeMap::new(),
            changed: false,
        };
        // lines alone: messages from before were counted
        calls.follow(log, None);
        Ok(calls)
    }

    /// Reads new entries of all authors. `time`: when messages among them came.
    fn follow(&mut self, log: &Log, time: Option<UnixTime>) {
        let mut members = BTreeMap::new();
        for status in log.authors() {
            if !status.is_office {
                members.insert(status.key, is_member(&status));
            }
            let read = self.read.get(&status.author).copied().unwrap_or(0);
            for entry in log.entries_after(status.author, read) {
                self.read.insert(status.author, entry.number);
                let line = match entry.kind {
                    kind::WAKE => decode_line(&entry.body),
                    _ => None,
                };
                if let Some(line) = line {
                    self.changed |= self.waking.set(status.key, line);
                }
                let Some(time) = time else { continue };
                self.changed |= self.waking.hear(&status.key);
                if entry.kind == kind::MESSAGE {
                    self.changed |= self.waking.wait(&status.key, time);
                }
            }
        }
        let is_member = |author: &PeerId| members.get(author) == Some(&true);
        self.changed |= self.waking.retain(is_member);
    }

    fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.changed) {
            let written = durable::replace(&self.path, &self.waking.encode());
            self.changed = written.is_err();
            return written;
        }
        Ok(())
    }
}

impl Held {
    /// Notes a sign of an author.
    pub(super) fn hear_presence(&mut self, author: AuthorId) {
        let mut authors = self.log.log().authors();
        let key = authors.find(|status| status.author == author);
        if let Some(AuthorStatus { key, .. }) = key {
            self.calls.changed |= self.calls.waking.hear(&key);
        }
    }

    /// Notes new messages and signs of members.
    pub(super) fn follow_calls(&mut self, time: UnixTime) -> io::Result<()> {
        self.calls.follow(self.log.log(), Some(time));
        self.calls.sync()
    }

    /// Takes the line of an absent member that is to be called now; the call is on disk.
    pub fn call(&mut self, time: UnixTime) -> io::Result<Option<String>> {
        let line = self.calls.waking.call(time);
        self.calls.changed |= line.is_some();
        self.calls.sync()?;
        Ok(line)
    }
}
