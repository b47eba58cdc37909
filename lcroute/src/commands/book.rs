//! `lcroute book`: names and purposes of keys, for all programs.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use librecast::durable;
use librecast::id::PeerId;
use librecast::outside::{ContactText, PlaceError};
use librecast::plain::clean;
use librecast::time::UnixTime;
use librecast_program::book::{Book, HOST_BOOK, user_book};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::keyfile;
use serde_json::json;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::print_line;

/// Verbs of `lcroute book`.
#[derive(Debug, Subcommand)]
pub enum BookVerb {
    /// Give a key a name; of a name that is there, add purposes or change the note
    Add {
        /// How it is called from now on: book:NAME
        name: String,
        /// Its PeerId, with the place where it waits if there is one (KEY@PLACE), or the FILE.pub of a signing key
        key: String,
        /// What it is for, such as voice,files: book:PURPOSE means all of it where nodes may
        #[arg(long = "for", value_name = "PURPOSE", value_delimiter = ',')]
        purposes: Vec<String>,
        /// A note for people
        #[arg(long)]
        note: Option<String>,
    },
    /// Print all that this user's commands know
    List,
    /// Forget a name
    Remove {
        /// The name
        name: String,
    },
}

/// `lcroute book`
pub fn run(verb: &BookVerb, of_host: bool, json: bool) -> anyhow::Result<Exit> {
    let path = match of_host {
        true => PathBuf::from(HOST_BOOK),
        false => user_book(),
    };
    match verb {
        BookVerb::List => {
            let book = match of_host {
                true => Book::of_host()?,
                false => Book::of_user()?,
            };
            print_line(match json {
                true => serde_json::to_value(&book.contacts)?.to_string(),
                false => text(&book),
            })?;
        }
        BookVerb::Add {
            name,
            key,
            purposes,
            note,
        } => {
            let (key, at) = match key.parse::<ContactText>() {
                Ok(contact) => (contact.key.to_string(), contact.place),
                Err(PlaceError::Place(e)) => {
                    let message = PlaceError::Place(e).to_string();
                    return Err(ExitError::new(Exit::Usage, message).into());
                }
                Err(PlaceError::Key(_)) => (keyfile::public_key(key)?.to_string(), None),
            };
            change(&path, |contacts| {
                let index = place(contacts, name);
                let contact = match index.and_then(|at| contacts.get_mut(at)) {
                    Some(known) => {
                        if known.get("key").and_then(Item::as_str) != Some(key.as_str()) {
                            let message = format!(
                                "{name} has another key already: lcroute book remove {name}"
                            );
                            return Err(ExitError::new(Exit::Failed, message).into());
                        }
                        known
                    }
                    None => {
                        let mut new = Table::new();
                        new["name"] = value(name);
                        new["key"] = value(&key);
                        new["since"] = value(i64::try_from(UnixTime::now().as_secs())?);
                        contacts.push(new);
                        let last = contacts.len() - 1;
                        contacts.get_mut(last).context("a contact")?
                    }
                };
                if let Some(at) = &at {
                    contact["at"] = value(at.to_string());
                }
                let known = contact.get("for").and_then(Item::as_array);
                let mut all = known.cloned().unwrap_or_else(Array::new);
                for purpose in purposes {
                    if !all.iter().any(|p| p.as_str() == Some(purpose)) {
                        all.push(purpose);
                    }
                }
                if !all.is_empty() {
                    contact["for"] = value(all);
                }
                if let Some(note) = note {
                    contact["note"] = value(note);
                }
                Ok(())
            })?;
            if json {
                print_line(json!({ "name": name, "key": key }))?;
            }
        }
        BookVerb::Remove { name } => change(&path, |contacts| {
            let unknown = || {
                ExitError::new(
                    Exit::Failed,
                    format!("{name}: the address book has no such name"),
                )
            };
            contacts.remove(place(contacts, name).ok_or_else(unknown)?);
            Ok(())
        })?,
    }
    Ok(Exit::Ok)
}

/// Returns the address book; an unreadable one is logged, and counts as empty.
pub fn book_of_user() -> Book {
    Book::of_user().unwrap_or_else(|e| {
        tracing::warn!("without the address book: {e}");
        Book::default()
    })
}

/// Returns a node's name, after its name in the address book if there is one.
pub fn book_name(book: &Book, peer: &PeerId, name: &str) -> String {
    match book.name_of(peer) {
        Some(own) => format!("{own} ({name})"),
        None => name.to_owned(),
    }
}

/// Adds `book`, the address book's name, to each row of a list.
pub fn name_by_book(rows: &mut serde_json::Value, book: &Book) {
    for row in rows.as_array_mut().into_iter().flatten() {
        let peer = row["peer_id"].as_str().and_then(|id| id.parse().ok());
        if let Some(name) = peer.and_then(|peer| book.name_of(&peer)) {
            row["book"] = name.into();
        }
    }
}

fn place(contacts: &ArrayOfTables, name: &str) -> Option<usize> {
    let is_it = |c: &Table| c.get("name").and_then(Item::as_str) == Some(name);
    contacts.iter().position(is_it)
}

/// Changes the file, and keeps the user's comments. Writes nothing if the result is invalid.
fn change(
    path: &Path,
    change: impl FnOnce(&mut ArrayOfTables) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let shown = path.display().to_string();
    let permitted = |e: io::Error| {
        let (exit, hint) = match e.kind() {
            io::ErrorKind::PermissionDenied => (
                Exit::NotPermitted,
                ": root changes it: sudo lcroute book ...",
            ),
            _ => (Exit::Failed, ""),
        };
        ExitError::new(exit, format!("{shown}: {e}{hint}"))
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).map_err(permitted)?;
    // a file that other users can write, or an invalid one, stays as it is
    Book::load(path)?;
    let lock = std::fs::File::open(folder).map_err(permitted)?;
    lock.lock().map_err(permitted)?;
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(permitted)?,
    };
    let mut document: DocumentMut = text.parse().with_context(|| shown.clone())?;
    let contacts = document
        .entry("contact")
        .or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    change(
        contacts
            .as_array_of_tables_mut()
            .with_context(|| format!("{shown}: [[contact]]"))?,
    )?;
    let text = document.to_string();
    let book: Book = librecast_program::config::parse(&shown, &text)?;
    book.check().map_err(|e| ExitError::new(Exit::Usage, e))?;
    let readable = |file: &std::fs::File| file.set_permissions(PermissionsExt::from_mode(0o644));
    durable::replace_with(path, text.as_bytes(), readable).map_err(permitted)?;
    Ok(())
}

fn text(book: &Book) -> String {
    if book.contacts.is_empty() {
        return "nobody: lcroute book add NAME KEY".into();
    }
    let mut text = format!("{:<16} {:<53} {:<20} {}", "NAME", "KEY", "FOR", "NOTE");
    for c in &book.contacts {
        let note = c.note.as_deref().unwrap_or_default();
        let note = clean(note);
        let place = c.at.clone();
        let key = ContactText { key: c.key, place }.to_string();
        text += &format!(
            "\n{:<16} {key:<53} {:<20} {note}",
            c.name,
            c.purposes.join(",")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn what_people_wrote_stays_and_a_name_has_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("librecast/book.toml");
        let key = |seed: u8| SecretKey::from_seed(&[seed; 32]).peer_id().to_string();
        let add = |name: &str, key: &str| {
            change(&path, |contacts| {
                let mut new = Table::new();
                new["name"] = value(name);
                new["key"] = value(key);
                contacts.push(new);
                Ok(())
            })
        };
        add("mum", &key(1)).unwrap();
        let commented = format!("# my people\n{}", std::fs::read_to_string(&path).unwrap());
        std::fs::write(&path, commented).unwrap();
        add("jo", &key(2)).unwrap();
        for (name, key) in [
            ("jo", key(3)),
            ("other", key(1)),
            ("a b", key(4)),
            ("x", "y".into()),
        ] {
            add(name, &key).unwrap_err();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# my people\n"), "{text}");
        assert_eq!(Book::load(&path).unwrap().contacts.len(), 2);
        change(&path, |contacts| {
            contacts.remove(place(contacts, "mum").unwrap());
            Ok(())
        })
        .unwrap();
        let left = Book::load(&path).unwrap();
        assert_eq!(left.contacts[0].name, "jo");
    }
}
