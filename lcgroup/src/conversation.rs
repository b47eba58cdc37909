//! The messages of a group for this host's users: a file of lines of JSON.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use librecast::id::PeerId;
use librecast_log_host::AppendedFile;
use serde::{Deserialize, Serialize};

use crate::unread::Unread;

/// Recent message ids that are kept: after a crash the messages of one turn may arrive once more.
pub const REMEMBERED: usize = 8_192;

/// Author and id of the last messages.
#[derive(Debug, Default)]
struct Known {
    all: BTreeSet<(PeerId, String)>,
    order: VecDeque<(PeerId, String)>,
}

impl Known {
    /// Adds a key; returns whether it is new.
    fn insert(&mut self, key: (PeerId, String)) -> bool {
        let new = self.all.insert(key.clone());
        if new {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
        new
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its place in this host's conversation, from 1: a cursor.
    pub n: u64,
    /// Its author's key in this group.
    pub author: PeerId,
    /// The person that it is a device of, if it is not the first: the first one's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<PeerId>,
    /// The author's name at that time; not proven.
    pub name: String,
    /// Chosen by its author at random.
    pub id: String,
    /// The number of its last entry, of a message to this person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u32>,
    /// By its author's clock: milliseconds since 1970.
    pub time: u64,
    /// The content, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The content in base64, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// NAME of the share `lc:NAME`, if files are offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// A file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileOf>,
    /// A call, by its text: a secret, as all that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// It was said before this host joined: the group's owner sent it, and may have changed it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub earlier: bool,
}

impl Message {
    /// A message of Ann with these words, for tests.
    #[cfg(test)]
    pub fn of_ann(n: u64, text: &str) -> Self {
        Self {
            n,
            author: librecast::id::SecretKey::from_seed(&[1; 32]).peer_id(),
            person: None,
            name: "Ann".into(),
            id: format!("{n:016x}"),
            entry: None,
            time: 5,
            text: Some(text.into()),
            bytes: None,
            files: None,
            file: None,
            call: None,
            earlier: false,
        }
    }

    /// Its content in a few words.
    pub fn summary(&self) -> String {
        match (&self.text, &self.files, &self.file) {
            (Some(text), ..) => text.clone(),
            (None, Some(share), _) => format!("shares {share}"),
            (None, None, Some(file)) => format!("sends {}", file.name),
            (None, None, None) => "(no text)".to_owned(),
        }
    }
}

/// A file in a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOf {
    /// Its name, without a folder.
    pub name: String,
    /// Its bytes.
    pub length: u64,
}

/// The file, and the state that it shares with readers.
#[derive(Debug)]
pub struct Conversation {
    file: AppendedFile,
    lines: u64,
    known: Known,
    /// The last name of each author.
    names: BTreeMap<PeerId, String>,
    /// Persons of authors that are not the first device of one.
    persons: BTreeMap<PeerId, PeerId>,
    unread: Unread,
    /// When each author sent its last message.
    spoke: BTreeMap<PeerId, u64>,
    shared: Arc<Shared>,
}

/// The state that the writer shares with readers.
#[derive(Debug)]
pub struct Shared {
    path: PathBuf,
    /// Shown names of authors, with marks where two look alike.
    shown: Mutex<BTreeMap<PeerId, String>>,
    /// Authors that are devices of this host's person.
    own: Mutex<BTreeSet<PeerId>>,
    /// Bytes that are on disk.
    length: Mutex<u64>,
    grown: Condvar,
}

impl Conversation {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// I/O errors; a line that is not a message.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = AppendedFile::open(path)?;
        let (mut length, mut lines) = (0, 0);
        let mut known = Known::default();
        let (mut names, mut spoke) = (BTreeMap::new(), BTreeMap::new());
        let (mut persons, mut unread) = (BTreeMap::new(), Unread::default());
        let mut reader = BufReader::new(file.read());
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            if line.last() != Some(&b'\n') {
                break;
            }
            let message: Message = serde_json::from_slice(&line).map_err(|e| {
                let message = format!("line {}: {e}: restore it from a copy", lines + 1);
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?;
            length += line.len() as u64;
            lines += 1;
            unread.add(lines, message.author, message.entry);
            persons.extend(message.person.map(|person| (message.author, person)));
            known.insert((message.author, message.id));
            names.insert(message.author, message.name);
            spoke.insert(message.author, message.time);
            line.clear();
        }
        drop(reader);
        // the unfinished line of a crash is delivered again
        file.cut(length)?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                shown: Mutex::default(),
                own: Mutex::default(),
                length: Mutex::new(length),
                grown: Condvar::new(),
            }),
            file,
            lines,
            known,
            names,
            persons,
            unread,
            spoke,
        })
    }

    /// Adds a message, unless it is known; on disk after the next [`Conversation::sync`]. Returns
    /// its number.
    pub fn add(&mut self, mut message: Message) -> Option<u64> {
        let key = (message.author, message.id.clone());
        if !self.known.insert(key) {
            return None;
        }
        let person = message.person.map(|person| (message.author, person));
        self.persons.extend(person);
        self.names.insert(message.author, message.name.clone());
        self.spoke.insert(message.author, message.time);
        self.lines += 1;
        message.n = self.lines;
        self.unread.add(self.lines, message.author, message.entry);
        let waiting = self.file.waiting();
        if serde_json::to_writer(&mut *waiting, &message).is_ok() {
            waiting.push(b'\n');
        }
        Some(message.n)
    }

    /// Whether this message is one of the last.
    pub fn knows(&self, author: PeerId, id: &str) -> bool {
        self.known.all.contains(&(author, id.to_owned()))
    }

    /// Writes added messages, and wakes waiting readers.
    ///
    /// # Errors
    /// I/O errors; the messages stay for the next attempt.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.file.sync()? {
            let shared = &self.shared;
            *shared.length.lock().unwrap_or_else(PoisonError::into_inner) = self.file.len();
            shared.grown.notify_all();
        }
        Ok(())
    }

    /// The last name of each author, member or not.
    pub fn names(&self) -> &BTreeMap<PeerId, String> {
        &self.names
    }

    /// The person of an author, from its messages.
    pub fn person_of(&self, author: &PeerId) -> Option<PeerId> {
        self.persons.get(author).copied()
    }

    /// Messages that this person has not read.
    pub fn unread(&mut self) -> &mut Unread {
        &mut self.unread
    }

    /// The number of these, and the first one's place.
    pub fn count_unread(&self) -> (u64, Option<u64>) {
        self.unread.count()
    }

    /// When this author sent its last message, by its clock: ms since 1970.
    pub fn spoke(&self, author: &PeerId) -> Option<u64> {
        self.spoke.get(author).copied()
    }

    pub fn messages(&self) -> u64 {
        self.lines
    }

    /// The state for readers.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl Shared {
    /// Sets the shown names.
    pub fn show(&self, names: BTreeMap<PeerId, String>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Sets the authors that are devices of this host's person.
    pub fn show_own(&self, own: BTreeSet<PeerId>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = own;
    }

    /// Returns a line with its author's shown name, and whether this host's person said it.
    pub fn with_shown(&self, line: &[u8]) -> Vec<u8> {
        let message = serde_json::from_slice::<Message>(line);
        let (Ok(message), Some(fields)) = (message, line.strip_suffix(b"}\n")) else {
            return line.to_vec();
        };
        let names = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = names.get(&message.author).unwrap_or(&message.name);
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let own = match own.contains(&message.author) {
            true => ",\"own\":true",
            false => "",
        };
        let shown = format!(",\"shown\":{}{own}}}\n", serde_json::json!(shown));
        [fields, shown.as_bytes()].concat()
    }

    /// Passes each line after message `after` to `take`, and with `follow` each later one, until
    /// `take` returns false.
    ///
    /// # Errors
    /// I/O errors, and errors of `take`.
    pub fn read(
        &self,
        after: u64,
        follow: bool,
        mut take: impl FnMut(Option<&[u8]>) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut reader = BufReader::new(File::open(&self.path)?);
        let (mut at, mut number) = (0, 0);
        let mut line = Vec::new();
        loop {
            let length = self.length_beyond(at, follow);
            if length == at {
                // no new line: `take` reports whether its reader remains
                if !follow || !take(None)? {
                    return Ok(());
                }
                continue;
            }
            reader.seek(SeekFrom::Start(at))?;
            let mut written = (&mut reader).take(length - at);
            while written.read_until(b'\n', &mut line)? > 0 {
                at += line.len() as u64;
                number += 1;
                if number > after && !take(Some(&line))? {
                    return Ok(());
                }
                line.clear();
            }
        }
    }

    /// Bytes that are on disk; with `follow` waits up to a second for more than `at`.
    fn length_beyond(&self, at: u64, follow: bool) -> u64 {
        let length = self.length.lock().unwrap_or_else(PoisonError::into_inner);
        if !follow || *length > at {
            return *length;
        }
        let waited = self.grown.wait_timeout(length, Duration::from_secs(1));
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn message(n: u64) -> Message {
        Message::of_ann(n, &format!("word {n}\n"))
    }

    fn read(conversation: &Conversation, after: u64) -> Vec<Message> {
        let mut all = Vec::new();
        let shared = conversation.shared();
        shared
            .read(after, false, |line| {
                all.extend(line.map(|line| serde_json::from_slice::<Message>(line).unwrap()));
                Ok(true)
            })
            .unwrap();
        all
    }

    #[test]
    fn messages_are_numbered_once_each_and_read_from_any_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages");
        let mut conversation = Conversation::open(&path).unwrap();
        for n in [1, 2, 1, 3] {
            conversation.add(message(n));
        }
        assert_eq!(read(&conversation, 0), []);
        conversation.sync().unwrap();
        assert_eq!(read(&conversation, 1), [message(2), message(3)]);
        // half a line, as after a crash
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut conversation = Conversation::open(&path).unwrap();
        conversation.add(message(2));
        conversation.add(message(3));
        conversation.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn a_line_says_how_its_author_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let conversation = Conversation::open(&folder.path().join("messages")).unwrap();
        let shared = conversation.shared();
        let line = [&serde_json::to_vec(&message(1)).unwrap()[..], b"\n"].concat();
        let shown = |line: &[u8]| -> serde_json::Value {
            serde_json::from_slice(&shared.with_shown(line)).unwrap()
        };
        assert_eq!(shown(&line)["shown"], "Ann");
        shared.show([(message(1).author, "Ann#\"".to_owned())].into());
        assert_eq!(shown(&line)["shown"], "Ann#\"");
        assert_eq!(
            serde_json::from_value::<Message>(shown(&line)).unwrap(),
            message(1)
        );
    }

    #[test]
    fn the_last_messages_are_known_whoever_wrote_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages");
        let mut conversation = Conversation::open(&path).unwrap();
        let all = REMEMBERED as u64 + 10;
        let of = |n: u64| Message {
            author: SecretKey::from_seed(&[(n % 3) as u8; 32]).peer_id(),
            ..message(n)
        };
        (1..=all).for_each(|n| {
            conversation.add(of(n));
        });
        conversation.sync().unwrap();
        let mut conversation = Conversation::open(&path).unwrap();
        (all - 100..=all).for_each(|n| {
            conversation.add(of(n));
        });
        assert_eq!(conversation.messages(), all);
    }

    #[test]
    fn it_is_known_when_each_author_spoke_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("messages");
        let other = SecretKey::from_seed(&[2; 32]).peer_id();
        let mut conversation = Conversation::open(&path).unwrap();
        for (n, author, time) in [(1, message(1).author, 5), (2, other, 7), (3, other, 9)] {
            let message = message(n);
            conversation.add(Message {
                author,
                time,
                ..message
            });
        }
        conversation.sync().unwrap();
        for conversation in [conversation, Conversation::open(&path).unwrap()] {
            assert_eq!(conversation.spoke(&message(1).author), Some(5));
            assert_eq!(conversation.spoke(&other), Some(9));
            let silent = SecretKey::from_seed(&[3; 32]).peer_id();
            assert_eq!(conversation.spoke(&silent), None);
        }
    }

    #[test]
    fn who_follows_gets_what_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let mut conversation = Conversation::open(&folder.path().join("messages")).unwrap();
        conversation.add(message(1));
        conversation.sync().unwrap();
        let shared = conversation.shared();
        let reader = std::thread::spawn(move || {
            let mut lines = 0;
            shared
                .read(0, true, |line| {
                    lines += usize::from(line.is_some());
                    Ok(lines < 2)
                })
                .unwrap();
            lines
        });
        conversation.add(message(2));
        conversation.sync().unwrap();
        assert_eq!(reader.join().unwrap(), 2);
    }
}
