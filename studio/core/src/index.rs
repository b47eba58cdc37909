//! The index of a session: what it is called, which tracks it has, whether it has ended.
//!
//! ```text
//!   kind 1  session   title text8 | presenter text8                 behind its tracks: it begins, or goes on
//!   kind 2  track     name text8 | owner's key 32                   or, of sound: name text8 | station text8
//!   kind 3  ended
//! ```

use librecast::id::PeerId;
use librecast::text::TextKind;
use librecast::wire::{Reader, WireError, Writer};
use librecast_log::{Entry, GRANT_KIND};

use crate::drops::DropReason;
use crate::plain::{MAX_LINE, clean_line};
use crate::track::TrackName;

/// Most tracks of a session. Chosen: sound and captions in thirty languages.
const MAX_TRACKS: usize = 64;

/// Kind of an entry of the index: the session begins, or goes on (docs/protocol.md §12).
const SESSION: u8 = 1;
/// Kind of an entry that names a track, before [`SESSION`].
const TRACK: u8 = 2;
/// Kind of an entry that ends the session.
const ENDED: u8 = 3;

/// Where a track is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackPlace {
    /// In the space that this key owns.
    Space(PeerId),
    /// At this station of radio, `lcr1...`.
    Station(String),
}

/// An entry of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexEntry {
    /// The session goes on, or begins.
    Session {
        /// What it is called.
        title: String,
        /// Who presents; empty where it is not said.
        presenter: String,
    },
    /// A track.
    Track(TrackName, TrackPlace),
    /// That was all.
    Ended,
}

impl IndexEntry {
    /// Kind and body of its entry.
    ///
    /// # Errors
    ///
    /// A text that is too long.
    pub fn encode(&self) -> Result<(u8, Vec<u8>), WireError> {
        let mut w = Writer::new();
        let kind = match self {
            Self::Session { title, presenter } => {
                w.text8(title)?.text8(presenter)?;
                SESSION
            }
            Self::Track(name, place) => {
                w.text8(&name.to_string())?;
                match place {
                    TrackPlace::Space(owner) => w.put(owner.public_key()),
                    TrackPlace::Station(text) => w.text8(text)?,
                };
                TRACK
            }
            Self::Ended => ENDED,
        };
        Ok((kind, w.into_vec()))
    }

    /// From kind and body.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, DropReason> {
        let malformed = |_: WireError| DropReason::Malformed;
        let mut r = Reader::new(body);
        let entry = match kind {
            SESSION => Self::Session {
                title: clean_line(r.text8().map_err(malformed)?),
                presenter: clean_line(r.text8().map_err(malformed)?),
            },
            TRACK => {
                let name = r.text8().map_err(malformed)?;
                let name: TrackName = name.parse().map_err(|_| DropReason::Malformed)?;
                let place = match name {
                    TrackName::Audio(_) => {
                        let text = r.text8().map_err(malformed)?;
                        TrackPlace::Station(station(text).ok_or(DropReason::Malformed)?)
                    }
                    _ => {
                        let key = r.array().map_err(malformed)?;
                        let owner = PeerId::from_public_key(key);
                        TrackPlace::Space(owner.map_err(|_| DropReason::Malformed)?)
                    }
                };
                Self::Track(name, place)
            }
            ENDED => Self::Ended,
            _ => return Err(DropReason::UnknownKind),
        };
        r.finish().map_err(malformed)?;
        Ok(entry)
    }
}

/// What looks like a station's text. Whether it is one, radio says.
fn station(text: &str) -> Option<String> {
    let is_text = TextKind::of(text) == Some(TextKind::Station)
        && text.len() <= MAX_LINE
        && text.chars().all(|c| c.is_ascii_alphanumeric());
    is_text.then(|| text.to_owned())
}

/// The index, as far as its entries were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// What the session is called.
    pub title: String,
    /// Who presents.
    pub presenter: String,
    /// Its tracks, in the order in which it named them.
    pub tracks: Vec<(TrackName, TrackPlace)>,
    /// It has begun.
    pub has_begun: bool,
    /// It has ended, until somebody goes on with it.
    pub has_ended: bool,
}

impl Index {
    /// Where a track is found, if it is named.
    #[must_use]
    pub fn place(&self, name: &TrackName) -> Option<&TrackPlace> {
        let track = self.tracks.iter().find(|(known, _)| known == name);
        track.map(|(_, place)| place)
    }

    /// The names of all tracks.
    pub fn names(&self) -> impl Iterator<Item = &TrackName> {
        self.tracks.iter().map(|(name, _)| name)
    }

    /// The next entry of the session's owner. What was in it, and whether that is new.
    ///
    /// # Errors
    ///
    /// Why it counts for nothing.
    pub fn read(&mut self, entry: &Entry) -> Result<Option<IndexEntry>, DropReason> {
        if entry.kind == GRANT_KIND {
            return Ok(None);
        }
        let read = IndexEntry::decode(entry.kind, &entry.body)?;
        let before = self.clone();
        match &read {
            IndexEntry::Session { title, presenter } => {
                (self.title, self.presenter) = (title.clone(), presenter.clone());
                (self.has_begun, self.has_ended) = (true, false);
            }
            IndexEntry::Track(name, place) => {
                let is_full = self.tracks.len() >= MAX_TRACKS;
                match self.tracks.iter_mut().find(|(known, _)| known == name) {
                    Some((_, known)) => known.clone_from(place),
                    None if is_full => {
                        return Err(DropReason::TooManyTracks);
                    }
                    None => self.tracks.push((name.clone(), place.clone())),
                }
            }
            IndexEntry::Ended => self.has_ended = true,
        }
        Ok((before != *self).then_some(read))
    }
}
