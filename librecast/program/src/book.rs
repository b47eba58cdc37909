//! The address book: names and purposes of keys, in TOML that people edit.
//!
//! A user's commands read his own book and then the host's; daemons only the host's.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use librecast::cert::is_node_name;
use librecast::id::{IdError, PeerId};
use librecast::outside::{ContactText, Place};
use librecast::plain::quoted;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::cli::{Exit, ExitError};
use crate::config::parse;

/// The book of a host, which its daemons read.
pub const HOST_BOOK: &str = "/etc/librecast/book.toml";
/// Prefix of a book's name in the place of a node or a key.
pub const PREFIX: &str = "book:";
/// Most contacts. Chosen: the number of nodes of a network.
const MAX_CONTACTS: usize = 4_096;

/// A name and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Node name: letters, digits, hyphens and dots.
    pub name: String,
    /// Its key.
    pub key: PeerId,
    /// The server where its owner waits for streams from outside of his networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Place>,
    /// Purposes, such as voice or files: `book:PURPOSE` means all contacts with it.
    #[serde(rename = "for", default, skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<String>,
    /// A note for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was added, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// A key in a configuration: the key, or a name or purpose of the address book (`book:NAME`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// This key.
    Key(PeerId),
    /// The contacts of the book with this name or purpose.
    Book(String),
}

impl FromStr for KeyRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix(PREFIX) {
            Some(name) => Ok(Self::Book(name.to_owned())),
            None => text.parse().map(Self::Key),
        }
    }
}

impl<'de> Deserialize<'de> for KeyRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Names of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// In the order of the file.
    #[serde(rename = "contact", default)]
    pub contacts: Vec<Contact>,
}

impl Book {
    /// Reads a book; a missing one is empty.
    ///
    /// # Errors
    /// [`Exit::Usage`] with file and line, [`Exit::NotPermitted`] if users other than root and this
    /// one can write it: they could change identities.
    pub fn load(path: &Path) -> Result<Self, ExitError> {
        let error = |exit, e: String| ExitError::new(exit, format!("{}: {e}", path.display()));
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(error(Exit::Usage, e.to_string())),
        };
        let meta = file.metadata();
        let meta = meta.map_err(|e| error(Exit::Failed, e.to_string()))?;
        if ![0, geteuid().as_raw()].contains(&meta.uid()) {
            let owner = meta.uid();
            let why = format!("belongs to user {owner}, neither to root nor to this user");
            return Err(error(Exit::NotPermitted, why));
        }
        let mode = meta.mode();
        if mode & 0o022 != 0 {
            let why = format!("others can write it (mode {:o}): chmod go-w", mode & 0o7777);
            return Err(error(Exit::NotPermitted, why));
        }
        let text = std::io::read_to_string(file);
        let text = text.map_err(|e| error(Exit::Usage, e.to_string()))?;
        let book: Self = parse(&path.display().to_string(), &text)?;
        book.check().map_err(|e| error(Exit::Usage, e))?;
        Ok(book)
    }

    /// Reads the book of this host's daemons.
    pub fn of_host() -> Result<Self, ExitError> {
        Self::load(Path::new(HOST_BOOK))
    }

    /// Reads a user's book: his own contacts, and the host's that have neither name nor key of his.
    pub fn of_user() -> Result<Self, ExitError> {
        let mut book = Self::load(&user_book())?;
        for contact in Self::of_host()?.contacts {
            let is_known = |own: &Contact| own.name == contact.name || own.key == contact.key;
            if !book.contacts.iter().any(is_known) {
                book.contacts.push(contact);
            }
        }
        Ok(book)
    }

    /// Checks that names and purposes are valid, and that each name and key occurs once.
    ///
    /// # Errors
    /// The fault, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.contacts.len() > MAX_CONTACTS {
            return Err(format!("more than {MAX_CONTACTS} contacts"));
        }
        for (at, contact) in self.contacts.iter().enumerate() {
            let name = &contact.name;
            for word in contact.purposes.iter().chain([name]) {
                if !is_node_name(word) {
                    let word = word.escape_default();
                    return Err(format!(
                        "`{word}`: names have letters, digits, hyphens and dots"
                    ));
                }
            }
            let before = &self.contacts[..at];
            if before.iter().any(|c| c.name == *name) {
                return Err(format!("`{name}` stands there twice"));
            }
            if let Some(other) = before.iter().find(|c| c.key == contact.key) {
                return Err(format!("`{name}` and `{}` have one key", other.name));
            }
        }
        Ok(())
    }

    /// Returns the contact of this name.
    pub fn named(&self, name: &str) -> Option<&Contact> {
        self.contacts.iter().find(|c| c.name == name)
    }

    /// Returns the name of this key.
    pub fn name_of(&self, key: &PeerId) -> Option<&str> {
        let contact = self.contacts.iter().find(|c| c.key == *key)?;
        Some(&contact.name)
    }

    /// Returns the places of these keys, of those that have one.
    pub fn places(
        &self,
        keys: impl Iterator<Item = PeerId>,
    ) -> impl Iterator<Item = (PeerId, Place)> {
        keys.filter_map(|key| {
            let contact = self.contacts.iter().find(|c| c.key == key)?;
            Some((key, contact.at.clone()?))
        })
    }

    /// Returns the contact of this name, or all with this purpose.
    pub fn meant_by(&self, word: &str) -> Vec<PeerId> {
        if let Some(contact) = self.named(word) {
            return vec![contact.key];
        }
        let is_for = |c: &&Contact| c.purposes.iter().any(|purpose| purpose == word);
        self.contacts.iter().filter(is_for).map(|c| c.key).collect()
    }
}

/// Returns the path of this user's book.
pub fn user_book() -> PathBuf {
    let is_absolute = |v: &std::ffi::OsString| Path::new(v).is_absolute();
    let config = match std::env::var_os("XDG_CONFIG_HOME").filter(is_absolute) {
        Some(folder) => folder.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".config"),
    };
    config.join("librecast/book.toml")
}

/// Resolves a node argument: `book:NAME` becomes its key, other text stays as it is.
///
/// # Errors
/// The book cannot be read, or has no such name.
pub fn node(text: &str) -> Result<String, ExitError> {
    match text.strip_prefix(PREFIX) {
        None => Ok(text.to_owned()),
        Some(name) => Ok(key(name)?.to_string()),
    }
}

/// Resolves a node argument that may be a key with a place: `book:NAME` becomes `KEY[@PLACE]`,
/// other text stays as it is.
///
/// # Errors
/// As [`node`]; a text with `@` that is not a key with a place.
pub fn contact(text: &str) -> Result<String, ExitError> {
    let Some(name) = text.strip_prefix(PREFIX) else {
        // no name of a node has an @
        if text.contains('@') {
            let checked = text.parse::<ContactText>();
            checked.map_err(|e| ExitError::new(Exit::Usage, format!("{}: {e}", quoted(text))))?;
        }
        return Ok(text.to_owned());
    };
    let key = key(name)?;
    let place = Book::of_user()?.places([key].into_iter()).next();
    let place = place.map(|(_, place)| place);
    Ok(ContactText { key, place }.to_string())
}

/// Returns the key of a name.
///
/// # Errors
/// The book cannot be read, or has no such name.
pub fn key(name: &str) -> Result<PeerId, ExitError> {
    let book = Book::of_user()?;
    let contact = book.named(name).map(|contact| contact.key);
    contact.ok_or_else(|| {
        let message =
            format!("{name}: the address book has no such name: lcroute book add {name} KEY");
        ExitError::new(Exit::Usage, message)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use librecast::id::SecretKey;

    use super::*;

    fn peer(seed: u8) -> PeerId {
        SecretKey::from_seed(&[seed; 32]).peer_id()
    }

    #[test]
    fn a_name_is_a_key_and_a_purpose_is_several() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.toml");
        assert_eq!(Book::load(&path).unwrap(), Book::default());
        let contact = |name: &str, seed, purposes: &str| {
            format!(
                "[[contact]]\nname = \"{name}\"\nkey = \"{}\"\n{purposes}\n",
                peer(seed)
            )
        };
        let text = contact("mum", 1, "for = [\"voice\", \"files\"]\nnote = \"at home\"")
            + &contact("jo", 2, "for = [\"files\"]");
        std::fs::write(&path, &text).unwrap();
        let book = Book::load(&path).unwrap();
        assert_eq!(book.meant_by("mum"), [peer(1)]);
        assert_eq!(book.meant_by("files"), [peer(1), peer(2)]);
        assert!(book.meant_by("nobody").is_empty());
        assert_eq!(book.name_of(&peer(2)), Some("jo"));
        for bad in [
            contact("mum", 3, ""),
            contact("dad", 1, ""),
            contact("a b", 3, ""),
            contact("a", 3, "for = [\"\u{202e}\"]"),
            "[[contact]]\nname = \"x\"\n".into(),
            "nonsense".into(),
        ] {
            std::fs::write(&path, text.clone() + &bad).unwrap();
            let error = Book::load(&path).unwrap_err();
            assert_eq!(error.exit, Exit::Usage, "{bad}");
        }
        std::fs::write(&path, &text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o664)).unwrap();
        assert_eq!(Book::load(&path).unwrap_err().exit, Exit::NotPermitted);
    }
}
