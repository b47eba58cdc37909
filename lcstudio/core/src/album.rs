//! Pictures as entries: each name by a hash of its picture, and the bytes of each hash in parts.
//!
//! ```text
//!   pictures  kind 1  picture   hash 32 | length 32 | name text8    name: the last one counts
//!             kind 2  part      hash 8 | part 16 | bytes <= 980     hash: its first 8 bytes
//! ```
//!
//! Parts of several pictures may alternate: the presenter sends the next shown picture first. A
//! picture counts once it is complete, matches its hash and is valid; before, its alt text shows.

use std::collections::{BTreeMap, BTreeSet};

use librecast::plain::is_plain;
use librecast::wire::{Reader, WireError, Writer};
use librecast_log::{Entry, GRANT_KIND};

use crate::drops::DropReason;
use crate::markdown::is_local;
use crate::picture::{MAX_PICTURE, Picture, PictureId};
use crate::plain::MAX_LINE;

/// Names of pictures in a session. Chosen: one for every second slide of the longest deck.
pub const MAX_PICTURES: usize = 256;

/// Bytes of all named pictures: 3.5 minutes at their rate. A tab has room for them.
pub const MAX_PICTURES_BYTES: usize = 12 << 20;

/// Entries of pictures: a later member requests 16,384 of an author without pause (librecast-log).
const MAX_ENTRIES: u32 = 16_000;

/// Bytes of a picture in an entry, as its body has room for.
const BYTES_IN_PART: usize = 980;

/// Kind of an entry that announces a picture (docs/protocol.md §12).
const PICTURE: u8 = 1;
/// Kind of an entry with a part of a picture's bytes.
const PART: u8 = 2;

/// A picture's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    /// Its first bytes.
    Coming(Vec<u8>),
    /// All of it.
    Whole(Picture),
    /// All parts have arrived, but differ from the announcement or are not a picture.
    Wrong,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Announced {
    length: usize,
    held: Held,
}

impl Announced {
    fn parts(&self) -> usize {
        self.length.div_ceil(BYTES_IN_PART)
    }

    /// Returns the number of missing parts.
    fn missing(&self) -> usize {
        match &self.held {
            Held::Coming(bytes) => self.parts() - bytes.len() / BYTES_IN_PART,
            Held::Whole(_) | Held::Wrong => 0,
        }
    }
}

/// Pictures of a session, by the entries read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Album {
    names: BTreeMap<String, PictureId>,
    pictures: BTreeMap<PictureId, Announced>,
    /// Number of the last read entry.
    entries: u32,
}

/// Numbers of known and complete pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AlbumSize {
    /// Named pictures.
    pub named: usize,
    /// Complete pictures.
    pub whole: usize,
    /// Bytes of all named pictures.
    pub bytes: usize,
}

impl Album {
    /// Returns the picture of this name, if it is complete.
    pub fn picture(&self, name: &str) -> Option<&Picture> {
        match &self.pictures.get(self.names.get(name)?)?.held {
            Held::Whole(picture) => Some(picture),
            Held::Coming(_) | Held::Wrong => None,
        }
    }

    /// Returns complete pictures by name.
    pub fn pictures(&self) -> impl Iterator<Item = (&str, &Picture)> {
        let names = self.names.keys();
        names.filter_map(|name| Some((name.as_str(), self.picture(name)?)))
    }

    /// Returns the numbers of pictures and bytes.
    pub fn size(&self) -> AlbumSize {
        let all = self.pictures.values();
        let whole = |announced: &&Announced| matches!(announced.held, Held::Whole(_));
        AlbumSize {
            named: self.pictures.len(),
            whole: all.clone().filter(whole).count(),
            bytes: all.map(|announced| announced.length).sum(),
        }
    }

    /// Reads the next entry of the track's owner. Returns whether the view has changed.
    pub fn read(&mut self, entry: &Entry) -> Result<bool, DropReason> {
        let malformed = |_: WireError| DropReason::Malformed;
        self.entries = self.entries.max(entry.number);
        let mut r = Reader::new(&entry.body);
        match entry.kind {
            GRANT_KIND => Ok(false),
            PICTURE => {
                let id = PictureId(r.array().map_err(malformed)?);
                let length = r.u32().map_err(malformed)? as usize;
                let name = r.text8().map_err(malformed)?;
                r.finish().map_err(malformed)?;
                self.announce(name, id, length)
            }
            PART => {
                let hash = r.array().map_err(malformed)?;
                let part = usize::from(r.u16().map_err(malformed)?);
                self.part(hash, part, r.rest())
            }
            _ => Err(DropReason::UnknownKind),
        }
    }

    fn announce(&mut self, name: &str, id: PictureId, length: usize) -> Result<bool, DropReason> {
        if length == 0 || length > MAX_PICTURE || !is_name(name) {
            return Err(DropReason::Malformed);
        }
        if !self.has_room(name, id, length) {
            return Err(DropReason::TooManyPictures);
        }
        if let Some(known) = self.pictures.get(&id)
            && known.length != length
        {
            return Err(DropReason::WrongPart);
        }
        let before = self.names.insert(name.to_owned(), id);
        if before == Some(id) {
            return Ok(false);
        }
        // forget a picture without a name
        if let Some(before) = before.filter(|id| !self.names.values().any(|named| named == id)) {
            self.pictures.remove(&before);
        }
        let coming = || Announced {
            length,
            held: Held::Coming(Vec::new()),
        };
        self.pictures.entry(id).or_insert_with(coming);
        Ok(true)
    }

    /// Returns whether a picture of this length has room under this name beside the others.
    fn has_room(&self, name: &str, id: PictureId, length: usize) -> bool {
        let others = self.names.iter().filter(|(known, _)| *known != name);
        let ids: BTreeSet<PictureId> = others.map(|(_, id)| *id).filter(|of| *of != id).collect();
        let of_others = ids.iter().filter_map(|id| self.pictures.get(id));
        let bytes: usize = of_others.map(|announced| announced.length).sum();
        let is_known = self.names.contains_key(name);
        (is_known || self.names.len() < MAX_PICTURES) && bytes + length <= MAX_PICTURES_BYTES
    }

    fn part(&mut self, hash: [u8; 8], part: usize, bytes: &[u8]) -> Result<bool, DropReason> {
        let (from, to) = (bounds(hash, 0), bounds(hash, 0xff));
        let mut found = self.pictures.range_mut(from..=to);
        let (id, announced) = found.next().ok_or(DropReason::WrongPart)?;
        let Held::Coming(here) = &mut announced.held else {
            return Err(DropReason::WrongPart);
        };
        let wanted = BYTES_IN_PART.min(announced.length - here.len());
        if part != here.len() / BYTES_IN_PART || bytes.len() != wanted {
            return Err(DropReason::WrongPart);
        }
        here.extend_from_slice(bytes);
        if here.len() < announced.length {
            return Ok(false);
        }
        let whole = Picture::new(std::mem::take(here));
        let right = whole.ok().filter(|picture| picture.id() == *id);
        announced.held = right.map_or(Held::Wrong, Held::Whole);
        match announced.held {
            Held::Wrong => Err(DropReason::NoPicture),
            _ => Ok(true),
        }
    }

    // presenter

    /// Returns the next entry of the first picture that the track lacks and has room for.
    pub fn next_entry(&self, wanted: &[(&str, &Picture)]) -> Option<(u8, Vec<u8>)> {
        let mut entries = wanted.iter().filter_map(|(name, picture)| {
            let announced = self.pictures.get(&picture.id());
            if self.names.get(*name) != Some(&picture.id()) {
                return self.announcement(name, picture);
            }
            match &announced?.held {
                Held::Coming(here) => part(picture, here.len()),
                Held::Whole(_) | Held::Wrong => None,
            }
        });
        entries.next()
    }

    fn announcement(&self, name: &str, picture: &Picture) -> Option<(u8, Vec<u8>)> {
        let length = picture.bytes().len();
        let missing: usize = self.pictures.values().map(Announced::missing).sum();
        let parts = match self.pictures.contains_key(&picture.id()) {
            true => 0,
            false => length.div_ceil(BYTES_IN_PART),
        };
        let entries = self.entries as usize + missing + parts + 1;
        let fits = self.has_room(name, picture.id(), length) && entries <= MAX_ENTRIES as usize;
        let mut w = Writer::new();
        w.put(&picture.id().0).u32(length as u32);
        w.text8(name).ok().filter(|_| fits && is_name(name))?;
        Some((PICTURE, w.into_vec()))
    }

    /// Returns the names of pictures that the track lacks and has no room for.
    pub fn left_out<'a>(&self, wanted: &[(&'a str, &Picture)]) -> Vec<&'a str> {
        let lacks = wanted
            .iter()
            .filter(|(name, picture)| self.names.get(*name) != Some(&picture.id()));
        let out = lacks.filter(|(name, picture)| self.announcement(name, picture).is_none());
        out.map(|(name, _)| *name).collect()
    }
}

/// Returns the part of a picture from this byte on.
fn part(picture: &Picture, from: usize) -> Option<(u8, Vec<u8>)> {
    let rest = picture.bytes().get(from..)?;
    let mut w = Writer::new();
    w.put(&picture.id().0[..8]);
    w.u16((from / BYTES_IN_PART) as u16);
    w.put(&rest[..rest.len().min(BYTES_IN_PART)]);
    Some((PART, w.into_vec()))
}

/// Returns the lowest or highest hash with these first bytes.
fn bounds(hash: [u8; 8], rest: u8) -> PictureId {
    let mut id = [rest; 32];
    id[..8].copy_from_slice(&hash);
    PictureId(id)
}

/// Returns whether slides may use this name for a picture.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_LINE && is_local(name) && is_plain(name)
}
