//! A session by its known entries: entries in, changes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use librecast::drops::Drops;
use librecast_log::{Entry, GRANT_KIND};

use crate::album::Album;
use crate::captions::{CaptionLine, Transcript};
use crate::deck::{Deck, Turn};
use crate::drops::DropReason;
use crate::index::{Index, IndexEntry};
use crate::questions::{ASKED, MAX_RECEIVED, Question, QuestionId, RECEIVED};
use crate::track::{Language, TrackName};

/// Questions that are stored.
const MAX_QUESTIONS: usize = 1_024;

/// Location of an entry.
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

/// A change of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The session's title or presenter changed, or it resumed.
    Session,
    /// A track is new, or has moved.
    Track(TrackName),
    /// The session has ended.
    Ended,
    /// The slides changed.
    Deck,
    /// Another slide is shown.
    Turn,
    /// A picture is complete, or replaced.
    Picture,
    /// A line of captions is new, or was corrected.
    Caption(Language, CaptionLine),
    /// A question was taken up.
    Question(Question),
    /// The presenter has received further questions.
    Received,
}

/// A session by its known entries.
#[derive(Debug, Clone, Default)]
pub struct View {
    index: Index,
    deck: Deck,
    turn_log: Vec<(u64, Turn)>,
    /// The same turns, to the places that their slides have in the current deck.
    turn_log_now: Vec<Turn>,
    transcripts: BTreeMap<Language, Transcript>,
    questions: Vec<Question>,
    received: BTreeSet<QuestionId>,
    album: Album,
    drops: Drops<DropReason>,
}

/// Turns that are stored, for a recording. Chosen: as captions of a day.
const MAX_TURNS: usize = 43_200;

impl View {
    /// Returns title, tracks, and the end.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the slides.
    pub fn deck(&self) -> &Deck {
        &self.deck
    }

    /// Returns all turns with their times, in milliseconds since 1970.
    pub fn turn_log(&self) -> &[(u64, Turn)] {
        &self.turn_log
    }

    /// Returns number, from 1, and text of the shown slide, if known.
    pub fn shown(&self) -> Option<(usize, &str)> {
        self.deck.shown(*self.turn_log_now.last()?)
    }

    /// Returns the turns to the current places of their slides, with their times.
    pub(crate) fn turn_log_now(&self) -> impl Iterator<Item = (u64, Turn)> {
        let times = self.turn_log.iter().map(|(time, _)| *time);
        times.zip(self.turn_log_now.iter().copied())
    }

    /// Returns transcripts by language.
    pub fn transcripts(&self) -> &BTreeMap<Language, Transcript> {
        &self.transcripts
    }

    /// Returns the questions that were taken up.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Returns whether the presenter has received a question.
    pub fn has_received(&self, question: QuestionId) -> bool {
        self.received.contains(&question)
    }

    /// Returns the number of questions that the presenter has received.
    pub fn received(&self) -> usize {
        self.received.len()
    }

    /// Returns the pictures that slides name.
    pub fn album(&self) -> &Album {
        &self.album
    }

    /// Forgets a track that was left; its entries come again once it is joined again.
    pub fn forget(&mut self, track: &TrackName) {
        match track {
            TrackName::Slides => {
                self.deck = Deck::default();
                self.turn_log_now = self.turn_log.iter().map(|(_, turn)| *turn).collect();
            }
            TrackName::Turn => {
                self.turn_log.clear();
                self.turn_log_now.clear();
            }
            TrackName::Pictures => self.album = Album::default(),
            TrackName::Questions => {
                self.questions.clear();
                self.received.clear();
            }
            TrackName::Captions(language) => drop(self.transcripts.remove(language)),
            // others keep notes, the screen and the camera
            TrackName::Notes | TrackName::Screen | TrackName::Camera | TrackName::Audio(_) => {}
        }
    }

    /// Returns the drops by reason.
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }

    /// Reads the next entry of an author; `by_owner`: the author owns the place.
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
            // stored and repeated, but only pages parse it
            Place::Track(TrackName::Notes) => return Ok(None),
            // captions have several authors; the owner writes all other tracks
            _ if !by_owner => return Err(DropReason::NotOwner),
            Place::Index => return self.index_entry(entry),
            Place::Track(track) => track,
        };
        match track {
            TrackName::Slides => self.slides_entry(entry),
            TrackName::Pictures => Ok(self.album.read(entry)?.then_some(Change::Picture)),
            TrackName::Turn => {
                let turn = Turn::decode(entry.kind, &entry.body)?;
                if self.turn_log.len() >= MAX_TURNS {
                    self.turn_log.remove(0);
                    self.turn_log_now.remove(0);
                }
                self.turn_log.push((entry.time, turn));
                self.turn_log_now.push(turn);
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
            TrackName::Questions if entry.kind == RECEIVED => {
                let ids = QuestionId::decode_receipt(&entry.body)?;
                if self.received.len() + ids.len() > MAX_RECEIVED {
                    return Err(DropReason::TooManyQuestions);
                }
                self.received.extend(ids);
                Ok(Some(Change::Received))
            }
            _ => Err(DropReason::UnknownKind),
        }
    }

    fn slides_entry(&mut self, entry: &Entry) -> Result<Option<Change>, DropReason> {
        let before = self.deck.order().to_vec();
        let is_changed = self.deck.read(entry)?;
        let after = self.deck.order();
        if before != after {
            // a later turn, which may have come before this deck, has the number in it
            let turns = self.turn_log.iter().zip(&mut self.turn_log_now);
            for (_, turn) in turns.filter(|((time, _), _)| *time < entry.time) {
                *turn = turn.moved(&before, after);
            }
        }
        Ok(is_changed.then_some(Change::Deck))
    }

    fn index_entry(&mut self, entry: &Entry) -> Result<Option<Change>, DropReason> {
        Ok(self.index.read(entry)?.map(|read| match read {
            IndexEntry::Session { .. } => Change::Session,
            IndexEntry::Track(name, _) => Change::Track(name),
            IndexEntry::Ended => Change::Ended,
            IndexEntry::Description(name, _) => Change::Track(name),
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
