//! Offices: logs of authors that grant in the owner's place.
//!
//! ```text
//!   owner's log:  offices (255): version 1 = 1 | n x (author's key 32 | last number 4 | later fields 4)
//!   all of them:  term (254):    version 1 = 1 | term 4 | later fields
//! ```
//!
//! An author of the list has a second log under the same key, its *office*. Grants there count like
//! those of the owner, and end with the `last` number of the list. Of two grants for one key the one
//! of the higher term counts, whichever came first; in one term the later one. The owner's log has
//! term 0 before its first entry of kind 254, and an office has none. The lowest four bits of a term
//! are 15 less the place in the list, from 1; the owner has 0. So no two logs have one term.
//!
//! A term of an office far above all others waits, and all behind it: one author could otherwise
//! take the highest number for good.

use std::collections::BTreeMap;

use librecast::id::PeerId;
use librecast::time::Instant;
use librecast::wire::{Reader, WireError};

use super::Log;
use super::{Author, Event, Output};
use crate::entry::{AuthorId, Entry};
use crate::grant::{GRANT_KIND, Grant};

/// Kind of the entries in the owner's log that list offices.
pub const OFFICES_KIND: u8 = 255;
/// Kind of the entries that begin a term.
pub const TERM_KIND: u8 = 254;
/// Most offices of a space, ended ones included: the owner and they share four bits of a term.
pub const MAX_OFFICES: usize = 15;

/// Most by which the term of an office may exceed the highest one of all logs: 64 rounds of all
/// places. Chosen: some terms may be missing, and the numbers never run out.
pub const MOST_LEAP: u32 = 1_024;

/// Version of both bodies, their first byte.
const VERSION: u8 = 1;

/// The reader's state of a log with grants.
#[derive(Debug, Default, Clone, Copy)]
struct Granting {
    /// The last number read.
    read: u32,
    /// The place in the list, from 1; 0 for the owner.
    place: u32,
    /// The term of its last entry; none before an office's first one.
    term: Option<u32>,
}

/// The logs with grants, and the terms of grants.
#[derive(Debug, Default)]
pub(super) struct Offices {
    all: BTreeMap<AuthorId, Granting>,
    granted: BTreeMap<AuthorId, u32>,
}

impl Offices {
    pub(super) fn new(owner: AuthorId) -> Self {
        let term = Some(0);
        let granting = Granting {
            term,
            ..Granting::default()
        };
        Self {
            all: BTreeMap::from([(owner, granting)]),
            granted: BTreeMap::new(),
        }
    }

    /// Whether grants are read in this log: the owner's, or an office.
    pub(super) fn grants(&self, id: &AuthorId) -> bool {
        self.all.contains_key(id)
    }

    /// Whether an entry begins a term that waits for others.
    fn is_leap(&self, granting: Granting, entry: &Entry) -> bool {
        let highest = self.all.values().filter_map(|granting| granting.term).max();
        let most = highest.unwrap_or(0).saturating_add(MOST_LEAP);
        entry.kind == TERM_KIND
            && granting.place > 0
            && decode_term(&entry.body, granting.place).is_some_and(|term| term > most)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &AuthorId> {
        self.all.keys()
    }
}

/// The offices in a body: keys and last numbers.
fn decode_offices(body: &[u8]) -> Result<Vec<(PeerId, u32)>, WireError> {
    let mut r = Reader::new(body);
    r.version(VERSION)?;
    let mut all = Vec::new();
    while !r.is_empty() && all.len() < MAX_OFFICES {
        let key = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("key"))?;
        all.push((key, r.u32()?));
        r.u32()?;
    }
    Ok(all)
}

/// The term in a body, if the log at this place may have it.
fn decode_term(body: &[u8], place: u32) -> Option<u32> {
    let mut r = Reader::new(body);
    let version = r.u8().ok()?;
    let term = r.u32().ok()?;
    (version == VERSION && 15 - (term & 15) == place).then_some(term)
}

impl Log {
    /// Adds a key to append with in the office of its author, should the owner give it one.
    pub fn add_office_key(&mut self, key: librecast::id::SecretKey) {
        let id = AuthorId::of_office(&self.space.owner(), &key.peer_id());
        self.keys.insert(id, key);
    }

    /// Whether this log is an office.
    pub fn is_office(&self, id: AuthorId) -> bool {
        id != self.owner && self.offices.grants(&id)
    }

    /// Whether this member has the key of a log with grants.
    pub(super) fn may_grant(&self) -> bool {
        self.offices.ids().any(|id| self.keys.contains_key(id))
    }

    pub(super) fn read_grants(&mut self, now: Instant) {
        loop {
            let ids: Vec<AuthorId> = self.offices.ids().copied().collect();
            let mut any = false;
            for id in ids {
                while let Some(granting) = self.offices.all.get(&id).copied()
                    && let Some(entry) = self.next_entry(id, granting.read)
                    && !self.offices.is_leap(granting, entry)
                {
                    let entry = entry.clone();
                    any = true;
                    self.read_granting(id, granting, &entry, now);
                }
            }
            // a list may have named offices whose entries are here
            if !any {
                return;
            }
        }
    }

    fn read_granting(&mut self, id: AuthorId, granting: Granting, entry: &Entry, now: Instant) {
        let mut term = granting.term;
        match entry.kind {
            // entries that are not grants change nothing
            GRANT_KIND => {
                let grants = Grant::decode(&entry.body).unwrap_or_default();
                for grant in grants.into_iter().filter(|_| term.is_some()) {
                    let to = self.space.author(&grant.author);
                    let is_later = self
                        .offices
                        .granted
                        .get(&to)
                        .is_none_or(|t| Some(*t) <= term);
                    if let Some(term) = term.filter(|_| is_later) {
                        self.offices.granted.insert(to, term);
                        self.grant(grant, now);
                    }
                }
            }
            TERM_KIND => {
                let next = decode_term(&entry.body, granting.place);
                term = next.filter(|next| Some(*next) >= term).or(term);
            }
            OFFICES_KIND if id == self.owner => {
                let list = decode_offices(&entry.body).unwrap_or_default();
                for ((key, last), place) in list.into_iter().zip(1..) {
                    self.give_office(key, last, place, now);
                }
            }
            _ => {}
        }
        if let Some(granting) = self.offices.all.get_mut(&id) {
            debug_assert!(granting.read < entry.number, "each entry is read once");
            debug_assert!(granting.term <= term, "the term of a log rises");
            (granting.read, granting.term) = (entry.number, term);
        }
    }

    fn give_office(&mut self, key: PeerId, last: u32, place: u32, now: Instant) {
        let id = AuthorId::of_office(&self.space.owner(), &key);
        let grant = Grant {
            author: key,
            not_before: 0,
            expires: u64::MAX,
            last,
        };
        if !self.offices.grants(&id) {
            let has_room = self.offices.all.len() <= MAX_OFFICES;
            if !has_room || self.authors.len() >= super::MAX_AUTHORS {
                return;
            }
            self.offices.all.insert(
                id,
                Granting {
                    place,
                    ..Granting::default()
                },
            );
            let mut author = Author::new(key, Some(grant), now);
            author.advertised = self.early_heads.take(id).min(super::MAX_JUMP);
            self.authors.insert(id, author);
            debug_assert!(
                self.offices.all.len() <= MAX_OFFICES + 1,
                "four bits of a term"
            );
            self.head_schedule.heads_changed();
        } else if let Some(author) = self.authors.get_mut(&id) {
            (author.grant, author.changed) = (Some(grant), now);
            if !self.keys.contains_key(&id) {
                self.change(id, Author::cut);
            }
        }
        self.look_for_missing(id, true, now);
        self.outputs.push_back(Output::Event(Event::Granted(key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;

    #[test]
    fn offices_and_terms_have_these_bytes() {
        let key = SecretKey::from_seed(&[1; 32]).peer_id();
        let body = [&[1][..], key.public_key(), &[0, 0, 0, 9], &[0, 0, 0, 60]].concat();
        assert_eq!(decode_offices(&body), Ok(vec![(key, 9)]));
        assert!(decode_offices(&body[..30]).is_err() && decode_offices(&[2]).is_err());
        assert_eq!(decode_term(&[1, 0, 0, 0, 0x1e, 7], 1), Some(30));
        assert_eq!(decode_term(&[1, 0, 0, 0, 0x1f], 0), Some(31));
        assert_eq!(decode_term(&[1, 0, 0, 0, 0x1e], 0), None);
        assert_eq!(decode_term(&[1, 0, 0, 0, 0x1e], 2), None);
    }
}
