//! Nodes that an operator has met: `known_agents`, a file of JSON lines. The first key seen under a name keeps it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use librecast::id::PeerId;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::agent::unix_now_us;
use crate::record::NodeInfo;
use crate::selector::{Node, Selector};

/// Most nodes that are remembered, over all channels.
const MAX_KNOWN: usize = 65_536;

/// A node that was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The channel on which it listens.
    pub channel: String,
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: PeerId,
    /// Its labels when it was last heard.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// The folder of an operator's state.
#[derive(Debug)]
pub struct Book {
    dir: PathBuf,
}

impl Book {
    /// The state in `dir`, which is made if it is missing.
    pub fn open(dir: PathBuf) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| dir.display().to_string())?;
        Ok(Self { dir })
    }

    /// All nodes of a channel.
    pub fn channel(&self, channel: &str) -> anyhow::Result<Vec<Entry>> {
        let mut all = self.read()?;
        all.retain(|e| e.channel == channel);
        Ok(all)
    }

    /// Notes nodes that have answered on `channel`: new ones, and new labels of others.
    pub fn note(&self, channel: &str, heard: &[(PeerId, NodeInfo)]) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let mut all = self.read()?;
        let before = all.clone();
        for (key, node) in heard {
            let entry = Entry {
                channel: channel.to_owned(),
                name: node.name.clone(),
                key: *key,
                labels: node.labels.clone(),
            };
            let known = |e: &Entry| e.channel == channel && e.key == *key;
            match all.iter().position(known) {
                Some(at) => all[at] = entry,
                None if all.len() < MAX_KNOWN => all.push(entry),
                None => bail!("{}: more than {MAX_KNOWN} nodes", self.file().display()),
            }
        }
        if all != before {
            self.write(&all)?;
        }
        Ok(())
    }

    /// Forgets the node called `name`; whether there was one.
    pub fn forget(&self, channel: &str, name: &str) -> anyhow::Result<bool> {
        let _lock = self.lock()?;
        let mut all = self.read()?;
        let before = all.len();
        all.retain(|e| e.channel != channel || e.name != name);
        if all.len() == before {
            return Ok(false);
        }
        self.write(&all)?;
        Ok(true)
    }

    /// A sequence that no command of this operator has had: microseconds of Unix time, or the last and one.
    pub fn sequence(&self) -> anyhow::Result<u64> {
        let _lock = self.lock()?;
        let file = self.dir.join("sequence");
        let last: u64 = match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e).with_context(|| file.display().to_string()),
        };
        let next = unix_now_us().max(last.saturating_add(1));
        crate::files::replace(&file, format!("{next}\n").as_bytes())
            .with_context(|| file.display().to_string())?;
        Ok(next)
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
        crate::files::replace(&file, text.as_bytes()).with_context(|| file.display().to_string())
    }
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

/// Whether `selector` selects the node, by what was last heard of it.
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
