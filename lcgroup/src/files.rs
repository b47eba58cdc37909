//! Files that members sent, in a file of the group's folder: names, and the keys that open them.

use std::io;
use std::path::Path;

use lcgroup_core::file::{FileId, FileKey, MAX_FILE, SealedFile, sealed_length};
use librecast::id::PeerId;
use librecast::plain::is_name;
use librecast::wire::{Reader, Writer};
use librecast_program::cli::{Exit, ExitError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::hex;
use crate::stored_list::{Item, StoredList};

/// Bytes of a name: as on Linux.
const MAX_NAME: usize = 255;
/// Files that a refusal names.
const SHOWN: usize = 8;

/// The file that a user wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The last one.
    Last,
    /// The file in the message with this number.
    Number(u64),
    /// The only file with this name.
    Name(String),
}

impl Which {
    /// Parses an argument: digits are a number, as members choose the names.
    #[must_use]
    pub fn of(text: Option<String>, is_name: bool) -> Self {
        let Some(text) = text else { return Self::Last };
        match text.parse() {
            Ok(n) if !is_name && text.bytes().all(|c| c.is_ascii_digit()) => Self::Number(n),
            _ => Self::Name(text),
        }
    }
}

/// A file in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentFile {
    /// Its name, without a folder.
    pub name: String,
    /// Its bytes.
    pub length: u64,
    /// The root hash of the sealed file.
    pub id: FileId,
    /// Opens the sealed file.
    pub key: FileKey,
}

impl SentFile {
    /// The file as holders know it.
    pub fn sealed(&self) -> SealedFile {
        SealedFile {
            id: self.id,
            length: sealed_length(self.length),
        }
    }

    /// Writes the fields of a content.
    pub fn write(&self, w: &mut Writer) {
        w.u64(self.length).put(&self.id.0).put(&self.key[..]);
        w.u8(self.name.len() as u8).put(self.name.as_bytes());
    }

    /// Decodes the fields of a content; none if they break the format or a bound.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let (length, id, key) = (r.u64().ok()?, r.array().ok()?, r.array().ok()?);
        let name = r.text8().ok()?.to_owned();
        let is_one = r.is_empty() && length <= MAX_FILE && is_file_name(&name);
        is_one.then(|| Self {
            name,
            length,
            id: FileId(id),
            key: Zeroizing::new(key),
        })
    }
}

/// Whether this is the name of a file: no path, and without characters that deceive readers.
pub fn is_file_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.contains('/')
        && name != "."
        && name != ".."
        && is_name(name)
}

/// The name of a file that is sent: characters that are not part of a name become `_`.
pub fn name_to_send(name: &str) -> String {
    let name: String = librecast::plain::clean(name)
        .chars()
        .map(|c| match c {
            char::REPLACEMENT_CHARACTER | '/' | '\t' => '_',
            c => c,
        })
        .collect();
    match is_file_name(&name) {
        true => name,
        false => "file".to_owned(),
    }
}

/// One file of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The number of its message on this host.
    pub n: u64,
    /// The member that sent it.
    pub author: PeerId,
    /// The message's id.
    pub message: String,
    /// When it was sent, as the message says: ms since 1970.
    pub time: u64,
    pub name: String,
    pub length: u64,
    /// Root hash of the sealed file, in hexadecimal digits.
    root: String,
    /// Its key, in hexadecimal digits.
    key: Zeroizing<String>,
}

impl Listed {
    /// The file as holders know it; none if the list is damaged.
    pub fn sealed(&self) -> Option<SealedFile> {
        let id = self.root.parse().ok()?;
        let length = sealed_length(self.length);
        Some(SealedFile { id, length })
    }

    /// Its key; none if the list is damaged.
    pub fn key(&self) -> Option<FileKey> {
        hex::decode(&self.key).map(Zeroizing::new)
    }
}

impl Item for Listed {
    const OF_AUTHOR: usize = lcgroup_core::file::MAX_FILES_OF_AUTHOR;
    // Chosen: the list stays below 2 MB
    const MOST: usize = 2_048;

    fn author(&self) -> PeerId {
        self.author
    }
}

/// All of them, the newest last.
#[derive(Debug)]
pub struct FileList(StoredList<Listed>);

impl FileList {
    /// Reads the list from a file, if it exists.
    ///
    /// # Errors
    /// I/O errors; a file without a list.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        StoredList::open(path).map(Self)
    }

    /// Adds the file of message `n`.
    pub fn add(&mut self, n: u64, author: PeerId, (message, time): (&str, u64), file: &SentFile) {
        // a message that comes again after a crash
        self.0
            .retain(|listed| (listed.author, &*listed.message) != (author, message));
        self.0.add(Listed {
            n,
            author,
            message: message.to_owned(),
            time,
            name: file.name.clone(),
            length: file.length,
            root: file.id.to_string(),
            key: Zeroizing::new(hex::encode(&file.key[..])),
        });
    }

    /// Forgets files that were sent before `time` (ms since 1970).
    pub fn expire(&mut self, time: u64) {
        self.0.retain(|listed| listed.time >= time);
    }

    pub fn all(&self) -> &[Listed] {
        self.0.all()
    }

    /// Returns the file that a user wants.
    ///
    /// # Errors
    /// There is none, or several have the name. `name_of` names members.
    pub fn find(
        &self,
        which: &Which,
        group: &str,
        name_of: impl Fn(&PeerId) -> String,
    ) -> Result<&Listed, ExitError> {
        let unknown = |which: &str, hint: &str| {
            let text = format!(
                "nobody in {group} sent a file{which}, as far as this host knows: {hint}`lcgroup tail {group}` shows files and their numbers"
            );
            ExitError::new(Exit::Unreachable, text)
        };
        let name = match which {
            Which::Last => return self.all().last().ok_or_else(|| unknown("", "")),
            Which::Number(number) => {
                let found = self.all().iter().find(|f| f.n == *number);
                let none = || {
                    unknown(
                        &format!(" in message {number}"),
                        "--name takes digits as a name; ",
                    )
                };
                return found.ok_or_else(none);
            }
            Which::Name(name) => name,
        };
        let by_name: Vec<&Listed> = self.all().iter().filter(|f| f.name == *name).collect();
        match by_name[..] {
            [one] => Ok(one),
            [] => Err(unknown(&format!(" {name:?}"), "")),
            _ => {
                let last = by_name.len().saturating_sub(SHOWN);
                let shown: Vec<_> = by_name[last..]
                    .iter()
                    .map(|f| format!("{} (of {})", f.n, name_of(&f.author)))
                    .collect();
                let text = format!(
                    "{} files are called {name:?}; say which, by its number: {}",
                    by_name.len(),
                    shown.join(", ")
                );
                Err(ExitError::new(Exit::Usage, text))
            }
        }
    }

    /// Writes a changed list.
    ///
    /// # Errors
    /// I/O errors: the next call writes it.
    pub fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    fn key(author: u8) -> PeerId {
        SecretKey::from_seed(&[author; 32]).peer_id()
    }

    fn file(name: &str) -> SentFile {
        SentFile {
            name: name.to_owned(),
            length: 300,
            id: FileId([8; 32]),
            key: Zeroizing::new([9; 16]),
        }
    }

    #[test]
    fn names_are_no_paths_and_deceive_nobody() {
        for good in [
            "a",
            ".bashrc",
            "-rf",
            "Über uns.pdf",
            "a b",
            &"x".repeat(255),
        ] {
            assert!(is_file_name(good) && name_to_send(good) == good, "{good:?}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "/",
            "a\nb",
            "a\u{1b}[2J",
            "a\0",
            "x\u{202e}fdp",
            &"x".repeat(256),
        ] {
            assert!(!is_file_name(bad), "{bad:?}");
            assert!(
                is_file_name(&name_to_send(bad)),
                "{bad:?}: {:?}",
                name_to_send(bad)
            );
        }
        assert_eq!(name_to_send("a\nb/c"), "a_b_c");
    }

    #[test]
    fn a_file_has_golden_bytes() {
        let mut w = Writer::new();
        file("plan").write(&mut w);
        let bytes = w.into_vec();
        assert_eq!(bytes[..8], [0, 0, 0, 0, 0, 0, 1, 44]);
        assert_eq!(bytes[8..40], [8; 32]);
        assert_eq!(bytes[40..56], [9; 16]);
        assert_eq!(bytes[56..], *b"\x04plan");
        assert_eq!(SentFile::decode(&bytes), Some(file("plan")));
        for cut in 0..bytes.len() {
            assert_eq!(SentFile::decode(&bytes[..cut]), None);
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(SentFile::decode(&longer), None);
        for bad in ["", "..", "../x", "a\nb"] {
            let mut w = Writer::new();
            file(bad).write(&mut w);
            assert_eq!(SentFile::decode(&w.into_vec()), None, "{bad:?}");
        }
        let huge = SentFile {
            length: MAX_FILE + 1,
            ..file("a")
        };
        let mut w = Writer::new();
        huge.write(&mut w);
        assert_eq!(SentFile::decode(&w.into_vec()), None);
    }

    #[test]
    fn files_are_found_by_name_or_number_and_two_of_a_name_by_number_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut list = FileList::open(&path).unwrap();
        let name_of = |author: &PeerId| match *author == key(1) {
            true => "Ann".to_owned(),
            false => "Bob".to_owned(),
        };
        assert!(list.find(&Which::Last, "team", name_of).is_err());
        list.add(3, key(1), ("1", 5), &file("plan"));
        list.add(4, key(2), ("1", 6), &file("12"));
        list.sync().unwrap();
        let list_again = FileList::open(&path).unwrap();
        assert_eq!(list_again.all(), list.all());
        let n = |list: &FileList, which: Option<&str>| {
            let which = Which::of(which.map(str::to_owned), false);
            list.find(&which, "team", name_of).map(|f| f.n)
        };
        assert_eq!(n(&list, None).unwrap(), 4);
        assert_eq!(n(&list, Some("plan")).unwrap(), 3);
        assert_eq!(n(&list, Some("12")).unwrap_err().exit, Exit::Unreachable);
        let named = Which::of(Some("12".into()), true);
        assert_eq!(list.find(&named, "team", name_of).unwrap().n, 4);
        assert_eq!(n(&list, Some("3")).unwrap(), 3);
        assert_eq!(n(&list, Some("plans")).unwrap_err().exit, Exit::Unreachable);
        list.add(9, key(2), ("2", 7), &file("plan"));
        let refused = n(&list, Some("plan")).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(
            refused.to_string().contains("3 (of Ann), 9 (of Bob)"),
            "{refused}"
        );
        assert_eq!(n(&list, Some("9")).unwrap(), 9);
        let listed = list.find(&Which::Number(9), "team", name_of).unwrap();
        assert_eq!(listed.key(), Some(file("plan").key));
        assert_eq!(listed.sealed(), Some(file("plan").sealed()));
        // a file named as the number of another file
        list.add(10, key(2), ("3", 8), &file("9"));
        assert_eq!(n(&list, Some("9")).unwrap(), 9);
        list.expire(7);
        assert_eq!(list.all().len(), 2);
    }

    #[test]
    fn one_member_takes_nobodys_place() {
        let mut list = FileList::open(Path::new("/nonexistent/list")).unwrap();
        list.add(1, key(1), ("1", 5), &file("plan"));
        for n in 2..200 {
            list.add(n, key(2), (&n.to_string(), 6), &file("a"));
        }
        assert_eq!(list.all().len(), 1 + Listed::OF_AUTHOR);
        let plan = Which::Name("plan".into());
        assert!(list.find(&plan, "team", |_| String::new()).is_ok());
        // a message that comes again
        list.add(1, key(1), ("1", 5), &file("plan"));
        assert_eq!(list.all().len(), 1 + Listed::OF_AUTHOR);
    }
}
