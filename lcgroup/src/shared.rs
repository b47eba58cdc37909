//! The shared state of a group on this host: its map, the file of its changes, and the last changes
//! for programs that watch it.
//!
//! The file has a change a line. A line `"sent"` follows own changes once the state that sends them
//! is on disk: after a crash the others are sent again, which changes nothing at members that have
//! them.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lcgroup_core::shared::{Change, SharedError, SharedMap};
use librecast::durable;
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_log_host::AppendedFile;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Changes that are kept for programs that watch. Chosen: they ask three times a second.
const WATCHED: usize = 1_024;
/// Bytes of their keys and values.
const WATCHED_BYTES: usize = 4 << 20;
/// Changes of an answer.
const ANSWERED: usize = 64;
/// Bytes of old changes for which the file is written anew.
const OLD: u64 = 1 << 20;

/// A change as users see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The key.
    pub key: String,
    /// The value, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Otherwise the value in base64; neither: the key was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// The member that made it.
    pub author: PeerId,
    /// Orders the changes of a key.
    pub clock: u64,
    /// When this host received it: s since 1970.
    pub time: u64,
    /// The author's name on this host, in answers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl Value {
    fn new(author: PeerId, change: &Change, time: u64) -> Self {
        let (text, bytes) = match change.value.as_deref() {
            Some(value) => match std::str::from_utf8(value) {
                Ok(text) => (Some(text.to_owned()), None),
                Err(_) => (None, Some(BASE64.encode(value))),
            },
            None => (None, None),
        };
        Self {
            key: change.key.clone(),
            text,
            bytes,
            author,
            clock: change.clock,
            time,
            name: String::new(),
        }
    }

    /// The bytes of the value; none: the key was removed.
    pub fn value(&self) -> Option<Vec<u8>> {
        let text = self.text.as_ref().map(|text| text.as_bytes().to_vec());
        let bytes = self.bytes.as_ref();
        text.or_else(|| bytes.and_then(|bytes| BASE64.decode(bytes).ok()))
    }

    fn size(&self) -> usize {
        let of = |part: &Option<String>| part.as_ref().map_or(0, String::len);
        self.key.len() + of(&self.text) + of(&self.bytes)
    }
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Changed(Value),
    Sent,
}

#[derive(Debug)]
pub struct SharedState {
    map: SharedMap,
    path: PathBuf,
    file: AppendedFile,
    /// Own changes that the written state may not send.
    unsent: Vec<Change>,
    /// The last changes with their numbers, and their bytes.
    watched: VecDeque<(u64, Value)>,
    watched_bytes: usize,
    last: u64,
}

impl SharedState {
    /// Opens or makes the file; `me`: this member's key.
    ///
    /// # Errors
    /// I/O errors; a line that is not a change.
    pub fn open(path: &Path, me: &PeerId) -> io::Result<Self> {
        let mut file = AppendedFile::open(path)?;
        let (mut map, mut unsent, mut length) = (SharedMap::default(), Vec::new(), 0);
        let mut reader = BufReader::new(file.read());
        let mut line = Zeroizing::new(Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            if line.last() != Some(&b'\n') {
                break;
            }
            let read: Line = serde_json::from_slice(&line).map_err(|e| {
                let text = format!("byte {length}: {e}: restore it from a copy");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
            length += line.len() as u64;
            line.clear();
            let Line::Changed(value) = read else {
                unsent.clear();
                continue;
            };
            let change = Change {
                value: value.value(),
                key: value.key,
                clock: value.clock,
            };
            if value.author == *me {
                unsent.push(change.clone());
            }
            map.apply(value.author, change, value.time);
        }
        drop(reader);
        // the unfinished line of a crash is delivered again
        file.cut(length)?;
        Ok(Self {
            map,
            path: path.to_owned(),
            file,
            unsent,
            watched: VecDeque::new(),
            watched_bytes: 0,
            // numbers grow over restarts
            last: UnixTime::now().as_millis(),
        })
    }

    pub fn map(&self) -> &SharedMap {
        &self.map
    }

    /// Makes and applies an own change.
    pub fn set(
        &mut self,
        key: &str,
        value: Option<Vec<u8>>,
        me: PeerId,
        time: UnixTime,
    ) -> Result<Change, SharedError> {
        let change = self.map.change(key, value)?;
        self.apply(me, change.clone(), time);
        self.unsent.push(change.clone());
        Ok(change)
    }

    /// Applies a member's change.
    pub fn apply(&mut self, author: PeerId, change: Change, time: UnixTime) {
        let value = Value::new(author, &change, time.as_secs());
        if !self.map.apply(author, change, time.as_secs()) {
            return;
        }
        self.write(&Line::Changed(value.clone()));
        self.last += 1;
        self.watched_bytes += value.size();
        self.watched.push_back((self.last, value));
        while (self.watched.len() > WATCHED || self.watched_bytes > WATCHED_BYTES)
            && let Some((_, value)) = self.watched.pop_front()
        {
            self.watched_bytes -= value.size();
        }
    }

    fn write(&mut self, line: &Line) {
        let waiting = self.file.waiting();
        if serde_json::to_writer(&mut *waiting, line).is_ok() {
            waiting.push(b'\n');
        }
    }

    /// Own changes of an earlier run that the written state may not send.
    pub fn unsent(&self) -> Vec<Change> {
        self.unsent.clone()
    }

    /// Notes that the state on disk sends all own changes.
    pub fn note_sent(&mut self) {
        if !self.unsent.is_empty() {
            self.unsent.clear();
            self.write(&Line::Sent);
        }
    }

    /// The last change of a key that has a value.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.map.get(key).map(|entry| value_of(key, entry))
    }

    /// All keys, without their values.
    pub fn keys(&self) -> impl Iterator<Item = Value> {
        self.map.iter().map(|(key, entry)| Value {
            key: key.to_owned(),
            text: None,
            bytes: None,
            author: entry.author,
            clock: entry.clock,
            time: entry.time,
            name: String::new(),
        })
    }

    /// Changes behind number `after`, and the number to go on from. None: from now on.
    pub fn changes(&self, after: Option<u64>) -> (u64, Vec<Value>) {
        let Some(after) = after else {
            return (self.last, Vec::new());
        };
        let later = self.watched.iter().filter(|(n, _)| *n > after);
        let later: Vec<_> = later.take(ANSWERED).cloned().collect();
        let last = later.last().map_or(after, |(n, _)| *n);
        (last, later.into_iter().map(|(_, value)| value).collect())
    }

    /// Writes changes to disk.
    ///
    /// # Errors
    /// I/O errors; the changes stay for the next attempt.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync().map(drop)
    }

    /// Writes the file anew if most of it is old; forgets keys that were removed before `time`.
    ///
    /// # Errors
    /// I/O errors: the earlier file stays.
    pub fn compact(&mut self, time: u64) -> io::Result<()> {
        self.sync()?;
        let forgot = self.map.forget_removed(time);
        let lines = self.map.all().map(|(key, entry)| value_of(key, entry));
        let mut all = Zeroizing::new(Vec::new());
        for value in lines {
            serde_json::to_writer(&mut *all, &Line::Changed(value))?;
            all.push(b'\n');
        }
        if self.unsent.is_empty() {
            serde_json::to_writer(&mut *all, &Line::Sent)?;
            all.push(b'\n');
        }
        if forgot || self.file.len() > 2 * all.len() as u64 + OLD {
            durable::replace(&self.path, &all)?;
            self.file = AppendedFile::open(&self.path)?;
        }
        Ok(())
    }
}

fn value_of(key: &str, entry: &lcgroup_core::shared::Entry) -> Value {
    let change = Change {
        key: key.to_owned(),
        clock: entry.clock,
        value: entry.value.clone(),
    };
    Value::new(entry.author, &change, entry.time)
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn key(n: u8) -> PeerId {
        SecretKey::from_seed(&[n; 32]).peer_id()
    }

    #[test]
    fn changes_outlast_a_crash_and_own_ones_are_sent_until_that_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared");
        let open = || SharedState::open(&path, &key(1)).unwrap();
        let time = UnixTime::from_secs(1_800_000_000);
        let mut state = open();
        let change = state.set("k", Some(vec![0xff]), key(1), time).unwrap();
        state.sync().unwrap();
        let mut state = open();
        assert_eq!(state.unsent(), [change]);
        state.note_sent();
        let clock = 9;
        let value = Some(b"b".to_vec());
        let of_bob = Change {
            key: "k".into(),
            clock,
            value,
        };
        state.apply(key(2), of_bob.clone(), time);
        state.sync().unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, b"{\"changed\":{\"k"))
            .unwrap();
        let mut state = open();
        assert!(state.unsent().is_empty());
        assert_eq!(state.value("k").unwrap().text.as_deref(), Some("b"));
        assert_eq!(state.keys().count(), 1);
        // an earlier change of another author is not shown again
        let (from, _) = state.changes(None);
        state.apply(key(2), of_bob, time);
        assert_eq!(state.changes(Some(from)), (from, Vec::new()));
    }

    #[test]
    fn the_file_is_written_anew_and_watchers_get_each_change_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shared");
        let mut state = SharedState::open(&path, &key(1)).unwrap();
        let time = UnixTime::from_secs(1_800_000_000);
        let (mut from, _) = state.changes(None);
        for n in 0..200_u8 {
            state
                .set("k", Some(vec![b'a'; 16_000]), key(1), time)
                .unwrap();
            if n == 100 {
                state.set("gone", None, key(1), time).unwrap();
            }
        }
        let mut seen = 0;
        loop {
            let (next, changes) = state.changes(Some(from));
            if changes.is_empty() {
                break;
            }
            seen += changes.len();
            from = next;
        }
        assert_eq!(seen, 201);
        state.note_sent();
        state.compact(0).unwrap();
        assert!(state.file.len() < 40_000, "{}", state.file.len());
        state.set("k", None, key(1), time).unwrap();
        state.sync().unwrap();
        let mut again = SharedState::open(&path, &key(1)).unwrap();
        assert_eq!(again.unsent().len(), 1);
        assert_eq!((again.keys().count(), again.map().all().count()), (0, 2));
        again.compact(time.as_secs() + 1).unwrap();
        assert_eq!(again.map().all().count(), 0);
    }
}
