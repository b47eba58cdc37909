//! The index of a session: its title, its tracks, and whether it has ended.
//!
//! ```text
//!   kind 1  session   title text8 | presenter text8       behind its tracks: begins or resumes
//!   kind 2  track     name text8 | owner's key 32         or, of sound: name text8 | station text8
//!   kind 3  ended
//!   kind 4  description of a track        name text8 | text text8      the last one counts
//! ```

use librecast::id::PeerId;
use librecast::text::TextKind;
use librecast::wire::{Reader, WireError, Writer};
use librecast_log::{Entry, GRANT_KIND};

use crate::drops::DropReason;
use crate::plain::{MAX_LINE, clean_line};
use crate::track::TrackName;

/// Tracks of a session. Chosen: sound and captions in thirty languages.
const MAX_TRACKS: usize = 64;

/// Kind of an entry of the index: the session begins or resumes (docs/protocol.md §12).
const SESSION: u8 = 1;
/// Kind of an entry that names a track, before [`SESSION`].
const TRACK: u8 = 2;
/// Kind of an entry that ends the session.
const ENDED: u8 = 3;
/// Kind of an entry that describes a track.
const DESCRIPTION: u8 = 4;

/// Location of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackPlace {
    /// The space that this key owns.
    Space(PeerId),
    /// A station of radio, `lcr1...`.
    Station(String),
}

/// An entry of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexEntry {
    /// The session begins or resumes.
    Session {
        /// Title of the session.
        title: String,
        /// Name of the presenter; may be empty.
        presenter: String,
    },
    /// A track.
    Track(TrackName, TrackPlace),
    /// The session has ended.
    Ended,
    /// A description of a track, for attenders that do not see it.
    Description(TrackName, String),
}

impl IndexEntry {
    /// Returns kind and body of its entry.
    ///
    /// # Errors
    /// A text is too long.
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
            Self::Description(name, text) => {
                w.text8(&name.to_string())?.text8(text)?;
                DESCRIPTION
            }
        };
        Ok((kind, w.into_vec()))
    }

    /// Decodes kind and body.
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
            DESCRIPTION => {
                let name = r.text8().map_err(malformed)?;
                let name = name.parse().map_err(|_| DropReason::Malformed)?;
                Self::Description(name, clean_line(r.text8().map_err(malformed)?))
            }
            _ => return Err(DropReason::UnknownKind),
        };
        r.finish().map_err(malformed)?;
        Ok(entry)
    }
}

/// Returns a text with the form of a station's. Radio alone can decode it.
fn station(text: &str) -> Option<String> {
    let is_text = TextKind::of(text) == Some(TextKind::Station)
        && text.len() <= MAX_LINE
        && text.chars().all(|c| c.is_ascii_alphanumeric());
    is_text.then(|| text.to_owned())
}

/// The index, by the entries read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Title of the session.
    pub title: String,
    /// Name of the presenter.
    pub presenter: String,
    /// Tracks, in the order of their entries.
    pub tracks: Vec<(TrackName, TrackPlace)>,
    /// Descriptions of some of them, in words.
    pub descriptions: Vec<(TrackName, String)>,
    /// Whether the session has begun.
    pub has_begun: bool,
    /// Whether it has ended and is not resumed.
    pub has_ended: bool,
}

impl Index {
    /// Returns the location of a track, if it is named.
    pub fn place(&self, name: &TrackName) -> Option<&TrackPlace> {
        let track = self.tracks.iter().find(|(known, _)| known == name);
        track.map(|(_, place)| place)
    }

    /// Returns the description of a track; empty without one.
    pub fn description(&self, name: &TrackName) -> &str {
        let found = self.descriptions.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, text)| text)
    }

    /// Returns the names of all tracks.
    pub fn names(&self) -> impl Iterator<Item = &TrackName> {
        self.tracks.iter().map(|(name, _)| name)
    }

    /// Reads the next entry of the session's owner. Returns its content if it changes the index.
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
            IndexEntry::Description(name, text) => {
                let is_full = self.descriptions.len() >= MAX_TRACKS;
                let known = self
                    .descriptions
                    .iter_mut()
                    .find(|(known, _)| known == name);
                match known {
                    Some((_, known)) => known.clone_from(text),
                    None if is_full => return Err(DropReason::TooManyTracks),
                    None => self.descriptions.push((name.clone(), text.clone())),
                }
            }
        }
        Ok((before != *self).then_some(read))
    }
}
