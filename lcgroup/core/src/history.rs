//! What was said before, for newcomers: sealed once by the owner, with the key for each newcomer.
//!
//! The boxes are to author keys, which do not change. So whoever steals a newcomer's disk later can
//! open a recording of them: this text has no forward secrecy.

use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::author::Author;
use crate::body::{self, Assembled, Assembly, Part, kind};
use crate::drops::DropReason;
use crate::error::GroupError;
use crate::event::{Entry, Event, Log, NewEntry, Taken};
use crate::group::{Group, Standing};
use crate::offices::{Deputy, decode_list, decode_term};
use crate::partial::make_room;
use crate::provider::{self, AEAD_KEY, NO_NONCE};
use crate::{MAX_REQUESTS, request, vouch};

/// Bytes of what newcomers get: with all boxes it fits into the parts of one whole.
pub const MAX_HISTORY: usize = 512 * 1_024;
/// Version of the whole, its first byte.
const VERSION: u8 = 1;
/// Bytes of a sealed box of the key: 48 more than its content.
const BOX: usize = AEAD_KEY + 48;
/// Bytes before the newcomers.
const HEAD: usize = 3;
/// Bytes of a newcomer and its box.
const NEWCOMER: usize = 32 + BOX;

/// The box for `me` in a whole, or in its first bytes, and the sealed content.
fn decode<'a>(bytes: &'a [u8], me: &PeerId) -> Result<(Option<&'a [u8]>, &'a [u8]), WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    let (mut own, newcomers) = (None, r.u16()?);
    for _ in 0..newcomers {
        let author: [u8; 32] = r.array()?;
        let sealed = r.take(BOX)?;
        if author == *me.public_key() {
            own = Some(sealed);
        }
    }
    Ok((own, r.rest()))
}

/// All decoders of bodies, for the fuzzer: no input makes them panic.
#[doc(hidden)]
pub fn decode_any(kind: u8, bytes: &[u8]) {
    body::decode_any(kind, bytes);
    let _ = decode_list(bytes);
    let _ = decode_term(bytes);
    vouch::decode_any(bytes);
    crate::network::decode_any(bytes);
    let me = librecast::id::SecretKey::from_seed(&[0; 32]).peer_id();
    let _ = decode(bytes, &me);
    let _ = crate::file::SealedFile::decode(bytes);
}

impl Group {
    /// Sends `content` to newcomers, up to [`MAX_HISTORY`] bytes. Only the owner's is read, and
    /// that of a device for others of its person.
    ///
    /// # Errors
    /// [`GroupError::NotTheOwner`], [`GroupError::TooLong`].
    pub fn give_history(&mut self, to: &[PeerId], content: &[u8]) -> Result<(), GroupError> {
        let person = self.own_person_id();
        let is_own = to.iter().all(|author| self.person_of(author) == person);
        if !(self.owner.is_some() || is_own) || self.standing != Standing::Member {
            return Err(GroupError::NotTheOwner);
        }
        if content.len() > MAX_HISTORY {
            return Err(GroupError::TooLong);
        }
        let key = Zeroizing::new(self.random.array::<AEAD_KEY>());
        let mut boxes = Vec::new();
        for author in to.iter().take(MAX_REQUESTS) {
            if let Some(sealed) = request::seal_to(author, &key[..], &mut self.random) {
                boxes.push((author, sealed));
            }
        }
        let Ok(sealed) = provider::seal(&key[..], &NO_NONCE, &[], content) else {
            return Err(GroupError::TooLong);
        };
        let mut w = Writer::from(Vec::with_capacity(
            HEAD + boxes.len() * NEWCOMER + sealed.len(),
        ));
        w.u8(VERSION).u16(boxes.len() as u16);
        for (author, sealed) in &boxes {
            w.put(author.public_key()).put(sealed);
        }
        w.put(&sealed);
        let epoch = self.epoch().unwrap_or_default();
        for body in body::cut(epoch, &w.into_vec()) {
            let kind = kind::HISTORY;
            self.append(Log::Own, NewEntry::Body { kind, body });
        }
        Ok(())
    }

    /// Whether this entry waits for memory; marks it as read otherwise.
    pub(crate) fn history_waits(&mut self, entry: &Entry<'_>, displace: bool) -> bool {
        match self.history_part(entry) {
            Some(part) => !make_room(
                &mut self.authors,
                &entry.author,
                entry.number,
                &part,
                displace,
            ),
            None => false,
        }
    }

    /// The part in an entry, if it is the owner's or of this person, and this member may be among
    /// the newcomers.
    fn history_part<'a>(&self, entry: &Entry<'a>) -> Option<Part<'a>> {
        if entry.kind != kind::HISTORY {
            return None;
        }
        let is_own = self.person_of(&entry.author) == self.own_person_id();
        let gives = self.author_of_office(None) == Some(entry.author);
        let deputy = self.offices.deputy(&entry.author);
        if !gives && !is_own && !deputy.is_some_and(Deputy::is_named) {
            return None;
        }
        let part = Part::decode(entry.kind, entry.body).ok()?;
        let continues = part.part > 0;
        // most wholes are for others, as their first part shows
        let me = self.author.peer_id();
        let is_for_others = matches!(decode(part.bytes, &me), Ok((None, _)));
        let open = self.authors.get(&entry.author)?.assembly.is_some();
        let is_own = if continues { open } else { !is_for_others };
        is_own.then_some(part)
    }

    /// Reads an entry of history, which has memory.
    pub(crate) fn read_history(&mut self, entry: &Entry<'_>, now: UnixTime) -> Taken {
        let part = self.history_part(entry);
        let slot = self.authors.get_mut(&entry.author);
        let Some((part, author)) = part.zip(slot) else {
            self.authors
                .entry(entry.author)
                .and_modify(|author: &mut Author| author.assembly = None);
            return Taken::Done;
        };
        let whole = match Assembly::take(&mut author.assembly, entry.number, &part, now) {
            Assembled::More => return Taken::Done,
            Assembled::Broken => return Taken::Dropped(DropReason::Broken),
            Assembled::Whole(whole) => whole,
        };
        let Ok((own, sealed)) = decode(&whole, &self.author.peer_id()) else {
            return Taken::Dropped(DropReason::Malformed);
        };
        let Some(own) = own else { return Taken::Done };
        let key = request::open_with(&self.author, own).map(Zeroizing::new);
        let content = key.and_then(|key| provider::open(&key, &NO_NONCE, &[], sealed).ok());
        let Some(content) = content else {
            return Taken::Dropped(DropReason::NotOpened);
        };
        self.tell(Event::History { content });
        Taken::Done
    }
}
