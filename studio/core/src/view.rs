//! A session as far as it is known: entries in, what has changed out.

use std::collections::BTreeMap;
use std::fmt;

use librecast::drops::Drops;
use librecast_log::{Entry, GRANT_KIND};

use crate::album::Album;
use crate::captions::{CaptionLine, Transcript};
use crate::deck::{Deck, Turn};
use crate::drops::DropReason;
use crate::index::{Index, IndexEntry};
use crate::questions::{ASKED, Question};
use crate::track::{Language, TrackName};

/// Most questions that are kept.
const MAX_QUESTIONS: usize = 1_024;

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the index.
    Index,
    /// In a track.
    Track(TrackName),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index => f.write_str("index"),
            Self::Track(name) => fmt::Display::fmt(name, f),
        }
    }
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The session's title, or who presents; or it goes on.
    Session,
    /// There is this track, or it is somewhere else now.
    Track(TrackName),
    /// It has ended.
    Ended,
    /// Slides.
    Deck,
    /// Which slide is shown.
    Turn,
    /// A picture is whole, or another one.
    Picture,
    /// A line of captions is new, or was corrected.
    Caption(Language, CaptionLine),
    /// A question was taken up.
    Question(Question),
}

/// A session as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct View {
    index: Index,
    deck: Deck,
    turn_log: Vec<(u64, Turn)>,
    transcripts: BTreeMap<Language, Transcript>,
    questions: Vec<Question>,
    album: Album,
    drops: Drops<DropReason>,
}

/// Most turns that are kept, for a recording. Chosen: as captions of a day.
const MAX_TURNS: usize = 43_200;

impl View {
    /// Title, tracks, the end.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The slides.
    #[must_use]
    pub fn deck(&self) -> &Deck {
        &self.deck
    }

    /// All turns with their times, milliseconds since 1970.
    #[must_use]
    pub fn turn_log(&self) -> &[(u64, Turn)] {
        &self.turn_log
    }

    /// Place from 1 and text of the slide that is shown, if it is here.
    #[must_use]
    pub fn shown(&self) -> Option<(usize, &str)> {
        let (_, turn) = self.turn_log.last()?;
        self.deck.shown(*turn)
    }

    /// What was said, by language.
    #[must_use]
    pub fn transcripts(&self) -> &BTreeMap<Language, Transcript> {
        &self.transcripts
    }

    /// What was taken up.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Pictures that slides name.
    #[must_use]
    pub fn album(&self) -> &Album {
        &self.album
    }

    /// Forgets what came of a track: it was parted from, and comes again from its beginning once it is joined again.
    pub fn forget(&mut self, track: &TrackName) {
        match track {
            TrackName::Slides => self.deck = Deck::default(),
            TrackName::Turn => self.turn_log.clear(),
            TrackName::Pictures => self.album = Album::default(),
            TrackName::Questions => self.questions.clear(),
            TrackName::Captions(language) => drop(self.transcripts.remove(language)),
            // who renders notes keeps them
            TrackName::Notes | TrackName::Audio(_) => {}
        }
    }

    /// What counted for nothing.
    #[must_use]
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }

    /// The next entry of an author in this place; `by_owner`: he owns it.
    pub fn read(&mut self, place: &Place, by_owner: bool, entry: &Entry) -> Option<Change> {
        match self.take(place, by_owner, entry) {
            Ok(change) => change,
            Err(reason) => {
                self.drops.count(reason);
                None
            }
        }
    }

    fn take(
        &mut self,
        place: &Place,
        by_owner: bool,
        entry: &Entry,
    ) -> Result<Option<Change>, DropReason> {
        if entry.kind == GRANT_KIND {
            return Ok(None);
        }
        let track = match place {
            Place::Track(TrackName::Captions(language)) => return self.caption(language, entry),
            // held and repeated, and never parsed: a page does that
            Place::Track(TrackName::Notes) => return Ok(None),
            // captions have authors; all else is the owner's
            _ if !by_owner => return Err(DropReason::NotOwner),
            Place::Index => return self.index_entry(entry),
            Place::Track(track) => track,
        };
        match track {
            TrackName::Slides => Ok(self.deck.read(entry)?.then_some(Change::Deck)),
            TrackName::Pictures => Ok(self.album.read(entry)?.then_some(Change::Picture)),
            TrackName::Turn => {
                let turn = Turn::decode(entry.kind, &entry.body)?;
                if self.turn_log.len() >= MAX_TURNS {
                    self.turn_log.remove(0);
                }
                self.turn_log.push((entry.time, turn));
                Ok(Some(Change::Turn))
            }
            TrackName::Questions if entry.kind == ASKED => {
                let question = Question::decode(&entry.body)?;
                if self.questions.len() >= MAX_QUESTIONS {
                    return Err(DropReason::TooManyQuestions);
                }
                self.questions.push(question.clone());
                Ok(Some(Change::Question(question)))
            }
            _ => Err(DropReason::UnknownKind),
        }
    }

    fn index_entry(&mut self, entry: &Entry) -> Result<Option<Change>, DropReason> {
        Ok(self.index.read(entry)?.map(|read| match read {
            IndexEntry::Session { .. } => Change::Session,
            IndexEntry::Track(name, _) => Change::Track(name),
            IndexEntry::Ended => Change::Ended,
        }))
    }

    fn caption(
        &mut self,
        language: &Language,
        entry: &Entry,
    ) -> Result<Option<Change>, DropReason> {
        if !self.transcripts.contains_key(language) {
            self.transcripts
                .insert(language.clone(), Transcript::default());
        }
        let Some(transcript) = self.transcripts.get_mut(language) else {
            return Ok(None);
        };
        let line = transcript.read(entry)?;
        Ok(line.map(|line| Change::Caption(language.clone(), line.clone())))
    }
}
