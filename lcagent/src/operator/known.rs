//! Nodes that an operator has met: `known_agents`, JSON lines. A name stays with its first key.
//!
//! Any host on the channel can answer, and so be met, under any name and labels. The operator marks
//! his own nodes ([`Book::accept`]); commands are sealed for these only.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use librecast::cert::is_ephemeral;
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::record::NodeInfo;
use crate::selector::{Node, Selector};

/// Nodes remembered over all channels.
const MAX_KNOWN: usize = 65_536;

/// Times of the last waits for unknown nodes.
const MEETINGS: &str = "meetings";
/// Seconds between waits for unknown nodes.
const MEETING_S: u64 = 600;

/// A node that was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The channel on which it listens.
    pub channel: String,
    pub name: String,
    pub key: PeerId,
    /// Its labels in its last answer.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the operator has accepted this key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
}

impl Entry {
    /// Returns whether `name` is this node's name or key on this channel.
    fn is_called(&self, channel: &str, name: &str) -> bool {
        self.channel == channel && (self.name == name || self.key.to_string() == name)
    }
}

/// The folder of an operator's state.
#[derive(Debug)]
pub struct Book {
    dir: PathBuf,
}

impl Book {
    /// Opens the state in `dir`, which is created if it is missing.
    pub fn open(dir: PathBuf) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| dir.display().to_string())?;
        Ok(Self { dir })
    }

    /// Returns all nodes of a channel.
    pub fn channel(&self, channel: &str) -> anyhow::Result<Vec<Entry>> {
        let mut all = self.read()?;
        all.retain(|e| e.channel == channel);
        Ok(all)
    }

    /// Notes answering nodes on `channel`: new ones, and new labels.
    pub fn note(&self, channel: &str, answered: &[(PeerId, NodeInfo)]) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut all = self.read()?;
        let before = all.clone();
        let mut no_room = 0;
        for (key, node) in answered {
            let entry = Entry {
                channel: channel.to_owned(),
                name: node.name.clone(),
                key: *key,
                labels: node.labels.clone(),
                accepted: false,
            };
            let known = |e: &Entry| e.channel == channel && e.key == *key;
            match all.iter().position(known) {
                Some(at) => {
                    let accepted = all[at].accepted;
                    all[at] = Entry { accepted, ..entry };
                }
                None if all.len() < MAX_KNOWN => all.push(entry),
                None => no_room += 1,
            }
        }
        if all != before {
            self.write(&all)?;
        }
        if no_room > 0 {
            // unknown nodes may have filled it: the command is executed all the same
            tracing::warn!(
                "{}: {no_room} more nodes answered than the {MAX_KNOWN} that are remembered: `lcagent nodes --forget` makes room",
                self.file().display()
            );
        }
        Ok(())
    }

    /// Accepts these nodes, by name or key: all of them, or none if one was not met.
    pub fn accept(&self, channel: &str, names: &[String]) -> anyhow::Result<Vec<Entry>> {
        let _lock = self.lock()?;
        let mut all = self.read()?;
        let mut accepted = Vec::new();
        for name in names {
            let named = |e: &&mut Entry| e.is_called(channel, name);
            let Some(entry) = all.iter_mut().find(named) else {
                let message = format!(
                    "no node {name:?} is known on channel {channel:?}: `lcagent nodes` meets them"
                );
                return Err(ExitError::new(Exit::Failed, message).into());
            };
            entry.accepted = true;
            accepted.push(entry.clone());
        }
        self.write(&all)?;
        Ok(accepted)
    }

    /// Returns whether a command for `selector` has recently waited for unknown nodes.
    pub fn has_met(&self, channel: &str, selector: &str, now: UnixTime) -> bool {
        let last = self.meetings().get(&meeting(channel, selector)).copied();
        last.is_some_and(|last| is_recent(last, now.as_secs()))
    }

    /// Notes that a command has just waited for unknown nodes.
    pub fn note_meeting(&self, channel: &str, selector: &str, now: UnixTime) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut all = self.meetings();
        all.retain(|_, last| is_recent(*last, now.as_secs()));
        all.insert(meeting(channel, selector), now.as_secs());
        self.write_meetings(&all)
    }

    /// Forgets the node of this name or key; returns whether there was one.
    pub fn forget(&self, channel: &str, name: &str) -> anyhow::Result<bool> {
        let _lock = self.lock()?;
        // if it still runs, the next command shall meet it
        let mut meetings = self.meetings();
        let of_channel = meeting(channel, "");
        meetings.retain(|key, _| !key.starts_with(&of_channel));
        self.write_meetings(&meetings)?;
        let mut all = self.read()?;
        let before = all.len();
        all.retain(|e| !e.is_called(channel, name));
        if all.len() == before {
            return Ok(false);
        }
        self.write(&all)?;
        Ok(true)
    }

    /// Forgets ephemeral members among these silent nodes, unless accepted: each returns under
    /// another key. Returns their names.
    pub fn forget_ephemeral(
        &self,
        channel: &str,
        silent: &[PeerId],
    ) -> anyhow::Result<Vec<String>> {
        if silent.is_empty() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let is_gone = |e: &Entry| {
            let silent = e.channel == channel && silent.contains(&e.key);
            silent && !e.accepted && is_ephemeral(&e.labels)
        };
        let (gone, all): (Vec<_>, Vec<_>) = self.read()?.into_iter().partition(is_gone);
        if !gone.is_empty() {
            self.write(&all)?;
        }
        Ok(gone.into_iter().map(|e| e.name).collect())
    }

    /// Returns a new sequence: microseconds of Unix time, or the last and one.
    pub fn sequence(&self) -> anyhow::Result<u64> {
        let _lock = self.lock()?;
        let file = self.dir.join("sequence");
        let last: u64 = match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e).with_context(|| file.display().to_string()),
        };
        // microseconds fit for 500,000 years
        let clock = UnixTime::now().since_1970().as_micros() as u64;
        let next = clock.max(last.saturating_add(1));
        librecast::durable::replace(&file, format!("{next}\n").as_bytes())
            .with_context(|| file.display().to_string())?;
        Ok(next)
    }

    /// Returns the last waits by channel and selector. An unreadable file costs a second's wait.
    fn meetings(&self) -> BTreeMap<String, u64> {
        let text = fs::read_to_string(self.dir.join(MEETINGS)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn write_meetings(&self, all: &BTreeMap<String, u64>) -> anyhow::Result<()> {
        let file = self.dir.join(MEETINGS);
        librecast::durable::replace(&file, serde_json::to_string(all)?.as_bytes())
            .with_context(|| file.display().to_string())
    }

    fn file(&self) -> PathBuf {
        self.dir.join("known_agents")
    }

    fn lock(&self) -> anyhow::Result<Flock<File>> {
        let path = self.dir.join("lock");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options
            .open(&path)
            .with_context(|| path.display().to_string())?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e.into())
    }

    fn read(&self) -> anyhow::Result<Vec<Entry>> {
        let file = self.file();
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| file.display().to_string()),
        };
        parse(&file, &text)
    }

    fn write(&self, all: &[Entry]) -> anyhow::Result<()> {
        let mut text = String::new();
        for entry in all {
            text += &serde_json::to_string(entry)?;
            text.push('\n');
        }
        let file = self.file();
        librecast::durable::replace(&file, text.as_bytes())
            .with_context(|| file.display().to_string())
    }
}

fn is_recent(last: u64, now: u64) -> bool {
    now.checked_sub(last).is_some_and(|ago| ago < MEETING_S)
}

fn meeting(channel: &str, selector: &str) -> String {
    format!("{channel}\n{selector}")
}

fn parse(file: &Path, text: &str) -> anyhow::Result<Vec<Entry>> {
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(n, line)| {
            serde_json::from_str(line).with_context(|| format!("{}:{n}", file.display()))
        })
        .collect()
}

/// Returns whether `selector` selects the node by its last answer.
#[must_use]
pub fn is_selected(entry: &Entry, selector: &Selector) -> bool {
    selector.selects(&Node {
        name: &entry.name,
        id: &entry.key.to_string(),
        labels: &entry.labels,
    })
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn node(name: &str, role: &str) -> NodeInfo {
        NodeInfo {
            name: name.into(),
            labels: BTreeMap::from([("role".into(), role.into())]),
            version: "1".into(),
        }
    }

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn nodes_are_remembered_by_channel_and_forgotten_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path().join("state")).unwrap();
        assert!(book.channel("a").unwrap().is_empty());
        book.note(
            "a",
            &[(key(1), node("x", "web")), (key(2), node("y", "db"))],
        )
        .unwrap();
        book.note("b", &[(key(1), node("x", "web"))]).unwrap();
        book.note("a", &[(key(1), node("x", "db"))]).unwrap();
        let known = book.channel("a").unwrap();
        assert_eq!(known.len(), 2);
        assert!(
            is_selected(&known[0], &"role=db".parse().unwrap()),
            "as heard last"
        );
        assert!(book.forget("a", "x").unwrap());
        assert!(!book.forget("a", "x").unwrap());
        assert_eq!(book.channel("a").unwrap().len(), 1);
        assert_eq!(book.channel("b").unwrap().len(), 1);
    }

    #[test]
    fn who_was_met_is_not_accepted_before_the_operator_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path().to_owned()).unwrap();
        book.note("a", &[(key(1), node("x", "db")), (key(2), node("y", "db"))])
            .unwrap();
        book.note("b", &[(key(1), node("x", "db"))]).unwrap();
        let accepted = |channel: &str| -> Vec<String> {
            let all = book.channel(channel).unwrap().into_iter();
            all.filter(|e| e.accepted).map(|e| e.name).collect()
        };
        assert!(accepted("a").is_empty());
        assert!(book.accept("a", &["x".into(), "z".into()]).is_err());
        assert!(accepted("a").is_empty(), "all or none");
        let names = ["x".to_owned(), key(2).to_string()];
        let entries = book.accept("a", &names).unwrap();
        assert_eq!(entries.len(), 2);
        // accepted by its key, even with new labels
        book.note("a", &[(key(1), node("x", "web"))]).unwrap();
        assert_eq!(accepted("a"), ["x", "y"]);
        assert!(accepted("b").is_empty(), "of one channel");
        book.forget("a", &key(1).to_string()).unwrap();
        book.note("a", &[(key(1), node("x", "web"))]).unwrap();
        assert_eq!(accepted("a"), ["y"], "met anew");
    }

    #[test]
    fn strangers_are_waited_for_now_and_then_and_when_a_node_was_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path().to_owned()).unwrap();
        assert!(!book.has_met("a", "all", UnixTime::from_secs(1_000)));
        book.note_meeting("a", "all", UnixTime::from_secs(1_000))
            .unwrap();
        assert!(
            book.has_met("a", "all", UnixTime::from_secs(1_000))
                && book.has_met("a", "all", UnixTime::from_secs(1_599))
        );
        assert!(
            !book.has_met("a", "all", UnixTime::from_secs(1_600)),
            "long ago"
        );
        assert!(
            !book.has_met("a", "all", UnixTime::from_secs(999)),
            "the clock was set back"
        );
        assert!(
            !book.has_met("a", "role=web", UnixTime::from_secs(1_000))
                && !book.has_met("b", "all", UnixTime::from_secs(1_000))
        );
        book.note_meeting("b", "all", UnixTime::from_secs(1_000))
            .unwrap();
        let _ = book.forget("a", "x").unwrap();
        assert!(!book.has_met("a", "all", UnixTime::from_secs(1_000)));
        assert!(book.has_met("b", "all", UnixTime::from_secs(1_000)));
    }

    #[test]
    fn a_book_that_strangers_have_filled_fails_no_command() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path().to_owned()).unwrap();
        let line = format!(
            "{{\"channel\":\"b\",\"name\":\"x\",\"key\":\"{}\"}}\n",
            key(1)
        );
        fs::write(dir.path().join("known_agents"), line.repeat(MAX_KNOWN)).unwrap();
        book.note("a", &[(key(2), node("y", "db"))]).unwrap();
        assert!(book.channel("a").unwrap().is_empty());
    }

    #[test]
    fn sequences_rise_even_where_the_clock_stands() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path().to_owned()).unwrap();
        let far = u64::MAX / 2;
        let first = book.sequence().unwrap();
        assert!(book.sequence().unwrap() > first);
        fs::write(dir.path().join("sequence"), far.to_string()).unwrap();
        assert_eq!(book.sequence().unwrap(), far + 1);
    }

    #[test]
    fn ephemeral_nodes_that_are_silent_are_forgotten_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path().to_owned()).unwrap();
        let pod = |name: &str| {
            let (label, value) = librecast::cert::EPHEMERAL;
            let labels = BTreeMap::from([(label.into(), value.into())]);
            NodeInfo {
                labels,
                ..node(name, "web")
            }
        };
        let nodes = [
            (key(1), pod("p")),
            (key(2), pod("q")),
            (key(3), node("x", "web")),
        ];
        book.note("a", &nodes).unwrap();
        book.note("b", &[(key(1), pod("p"))]).unwrap();
        book.note("a", &[(key(4), pod("mine"))]).unwrap();
        book.accept("a", &["mine".into()]).unwrap();
        let silent = [key(1), key(3), key(4)];
        assert_eq!(book.forget_ephemeral("a", &silent).unwrap(), ["p"]);
        assert_eq!(book.forget_ephemeral("a", &silent).unwrap(), [""; 0]);
        let names = |channel| {
            let all = book.channel(channel).unwrap().into_iter();
            all.map(|e| e.name).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["q", "x", "mine"]);
        assert_eq!(names("b"), ["p"]);
    }

    #[test]
    fn broken_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::open(dir.path().to_owned()).unwrap();
        book.note("a", &[(key(1), node("x", "web"))]).unwrap();
        let mut text = fs::read_to_string(dir.path().join("known_agents")).unwrap();
        text += "garbage\n";
        fs::write(dir.path().join("known_agents"), text).unwrap();
        let error = book.channel("a").unwrap_err();
        assert!(format!("{error:#}").contains("known_agents:2"), "{error:#}");
    }
}
