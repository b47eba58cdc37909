//! Presents a session: appends the presenter's settings and actions to its tracks, one by one.
//!
//! ```text
//!   settings, slides ──┐
//!   turn, caption ─────┼─► queue ─► handle_timeout ─► Logs::append        one entry every 10 ms
//!   take up, end ──────┘                  ▲
//!   pictures ─► the next shown first ─────┤         64 entries a second, beside that queue
//!   entries of all tracks ─► read ────────┘  entries that exist already are not sent again
//!   events of logs ─► handle_event ─► questions, grants for attenders that ask to write notes
//! ```
//!
//! The program around it stores the logs: a host in files, a page in the browser's store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::{PeerId, SecretKey};
use librecast::time::{Duration, Instant, UnixTime};
use librecast::wire::WireError;
use librecast_log::{AppendError, AuthorId, Event, GRANT_KIND, GRANTS_IN_ENTRY, Grant, Log};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::captions::{CORRECTION_MARK, Caption, split_caption};
use crate::deck::{DeckWriter, MAX_SLIDE, MAX_SLIDES, SlideId, Turn, place_in, unchanged};
use crate::index::{IndexEntry, TrackPlace};
use crate::markdown::{Problem, Slide, pictures, title};
use crate::notes::Writer;
use crate::picture::Picture;
use crate::plain::{clean, clean_line};
use crate::questions::{IDS_IN_RECEIPT, MAX_RECEIVED, Question, QuestionId};
use crate::reading::NewEntry;
use crate::session::{Session, SessionKey};
use crate::track::{Language, TrackName};
use crate::view::{Change, Place, View};

/// Time between two entries: 1,000 entries take 10 s, and no queue on the path fills.
const APPEND_INTERVAL: Duration = Duration::from_millis(10);
/// Pause before a retry: the log first requests our earlier entries from other members.
const APPEND_AGAIN: Duration = Duration::from_millis(250);
/// Rate of picture entries, as repair: 0.6 Mbit/s; the burst is for tabs that run once a second.
const PICTURE_ENTRIES: Rate = Rate::per_second(64, 32);
/// Time between two batches of picture entries: each batch is one write to a disk.
const PICTURE_INTERVAL: Duration = Duration::from_millis(125);
/// Questions stored for the presenter; a further one replaces the oldest. Chosen.
const MAX_QUESTIONS: usize = 200;
/// Shortest time between two receipts of questions: each is an entry.
const RECEIPT_INTERVAL: Duration = Duration::from_millis(500);
/// Expiry of a grant that does not expire (librecast-log has 48 bits for it).
const NEVER: u64 = (1 << 48) - 1;

/// The presenter's choices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Title of the session.
    pub title: String,
    /// Name of the presenter; empty if not given.
    pub presenter: String,
    /// Languages of captions.
    pub languages: Vec<Language>,
    /// The text of the station with the sound of a language.
    pub stations: Vec<(Language, String)>,
    /// Keys of further caption writers; `None` leaves the grants as they are.
    pub captions: Option<Vec<(Language, PeerId)>>,
    /// Whether all attenders write notes.
    pub notes: bool,
    /// Whether the presenter may show a screen.
    pub screen: bool,
    /// Whether the presenter may show a camera.
    pub camera: bool,
}

/// Reason for which the presentation ends or an action is refused.
#[derive(Debug, Error)]
pub enum PresentError {
    /// More slides than a deck has.
    #[error("{0} slides, at most {MAX_SLIDES} are shown")]
    TooManySlides(usize),
    /// A slide exceeds [`MAX_SLIDE`].
    #[error("slide in line {line}: {}", Problem::TooLong(*.bytes))]
    LongSlide {
        /// First line of the slide, from 1.
        line: usize,
        /// Its length.
        bytes: usize,
    },
    /// The key is in use on another host.
    #[error("another host presents this session with the same key, since just now: this one ends")]
    AnotherHost,
    /// The key was in use on two hosts.
    #[error(
        "{place}: two hosts presented this session at once. Nothing that its key says after entry {number} counts: \
         present with a new key"
    )]
    TwoHosts {
        /// Track in which both wrote.
        place: Place,
        /// The last entry that counts.
        number: u32,
    },
    /// The session has no captions in this language.
    #[error("the session has no captions in this language")]
    NoCaptions,
    /// The text names no station.
    #[error("this is no station")]
    NoStation,
    /// No question has this number.
    #[error("there is no such question")]
    NoQuestion,
    /// A text does not fit into an entry.
    #[error("too long: {0}")]
    TooLong(#[from] WireError),
    /// A track of the session has no log in this program.
    #[error("{0} is not joined")]
    NotJoined(Place),
    /// A log does not take entries.
    #[error("{0}: {1}")]
    Append(Place, AppendError),
}

/// The program's logs of a session's tracks.
pub trait Logs {
    /// The log of a track that is joined.
    fn log(&self, place: &Place) -> Option<&Log>;

    /// Appends kind and body to a joined track, at wall clock `time` (milliseconds since 1970).
    fn append(
        &mut self,
        place: &Place,
        author: AuthorId,
        entry: (u8, &[u8]),
        time: UnixTime,
        now: Instant,
    ) -> Result<u32, AppendError>;

    /// Returns whether appended entries wait for a disk. Pictures wait meanwhile.
    fn is_behind(&self) -> bool {
        false
    }
}

/// Milestone of a presentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All settings and slides of the presenter are entries.
    OnAir,
    /// Changed slides are on their way.
    SlidesChanged,
}

/// An entry to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    place: Place,
    kind: u8,
    body: Vec<u8>,
}

/// A session on the presenter's side.
#[derive(Debug)]
pub struct Presenting {
    key: SessionKey,
    settings: Settings,
    view: View,
    slides: Vec<Slide>,
    /// Slides that replace these once the queue, which refers to the current deck, is empty.
    next_slides: Option<Vec<Slide>>,
    pictures: BTreeMap<String, Picture>,
    /// Names of the pictures of each slide.
    pictures_of: Vec<Vec<String>>,
    pictures_at: Option<Instant>,
    picture_entries: TokenBucket,
    /// Number of the last picture entry that the view has read.
    pictures_read: u32,
    /// Index of the shown slide, from 0.
    current: usize,
    /// Text of the shown slide that the last new slides lacked: if it returns, it is shown again.
    vanished: Option<String>,
    queue: VecDeque<Waiting>,
    append_at: Instant,
    /// Number of our last known entry in each track.
    own: BTreeMap<Place, u32>,
    /// Number of the last appended caption, by language.
    last_captions: BTreeMap<Language, u32>,
    is_on: bool,
    /// The last questions, by their number from 1.
    questions: BTreeMap<usize, Question>,
    /// Questions without a receipt.
    unacknowledged: BTreeSet<QuestionId>,
    receipt_at: Instant,
    /// Whether writers may wait for a grant to write notes.
    writers_wait: bool,
}

impl Presenting {
    /// Presents with this key. The logs of [`places`](Self::places) are to be joined first.
    ///
    /// # Errors
    /// There are more or longer slides than allowed.
    pub fn new(
        key: SessionKey,
        settings: Settings,
        slides: Vec<Slide>,
        now: Instant,
    ) -> Result<Self, PresentError> {
        Self::check(&slides)?;
        Ok(Self {
            key,
            settings,
            view: View::default(),
            pictures: BTreeMap::new(),
            pictures_of: pictures_of(&slides),
            pictures_at: None,
            picture_entries: TokenBucket::of(PICTURE_ENTRIES, now),
            pictures_read: 0,
            slides,
            next_slides: None,
            current: 0,
            vanished: None,
            queue: VecDeque::new(),
            append_at: now,
            own: BTreeMap::new(),
            last_captions: BTreeMap::new(),
            is_on: false,
            questions: BTreeMap::new(),
            unacknowledged: BTreeSet::new(),
            receipt_at: now,
            writers_wait: true,
        })
    }

    /// Checks the number and length of slides.
    ///
    /// # Errors
    /// There are more or longer slides than allowed.
    pub fn check(slides: &[Slide]) -> Result<(), PresentError> {
        if slides.len() > MAX_SLIDES {
            return Err(PresentError::TooManySlides(slides.len()));
        }
        match slides.iter().find(|slide| slide.text.len() > MAX_SLIDE) {
            Some(slide) => Err(PresentError::LongSlide {
                line: slide.line,
                bytes: slide.text.len(),
            }),
            None => Ok(()),
        }
    }

    /// Returns the session, which attenders need.
    pub fn session(&self) -> Session {
        self.key.session()
    }

    /// Returns the presenter's choices.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the view that all attenders have.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns the slides.
    pub fn slides(&self) -> &[Slide] {
        &self.slides
    }

    /// Returns the index of the shown slide, from 0.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Returns the last questions in the order of their arrival, each with its number, from 1.
    pub fn questions(&self) -> impl Iterator<Item = (usize, &Question)> {
        self.questions
            .iter()
            .map(|(number, asked)| (*number, asked))
    }

    /// Returns whether all settings and slides are entries.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Returns the number of entries in the queue.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns the needed logs, each with the key that owns it.
    pub fn places(&self) -> Vec<(Place, SecretKey)> {
        let index = (Place::Index, self.key.index_key());
        let names = self.names().into_iter();
        let spaces = names.filter(|name| name.has_entries());
        let tracks = spaces.map(|name| {
            let owner = self.key.track_key(&name);
            (Place::Track(name), owner)
        });
        let named = std::iter::once(index).chain(tracks);
        // the index names the track once there is a picture
        let pictures = Place::Track(TrackName::Pictures);
        let owner = self.key.track_key(&TrackName::Pictures);
        let is_named = !self.pictures.is_empty();
        named
            .chain((!is_named).then_some((pictures, owner)))
            .collect()
    }

    /// Returns the tracks that the session shall have.
    fn names(&self) -> Vec<TrackName> {
        let mut names = vec![TrackName::Slides, TrackName::Turn, TrackName::Questions];
        if !self.pictures.is_empty() {
            names.push(TrackName::Pictures);
        }
        if self.settings.screen {
            names.push(TrackName::Screen);
        }
        if self.settings.camera {
            names.push(TrackName::Camera);
        }
        if self.settings.notes {
            names.push(TrackName::Notes);
        }
        let captions = self.settings.languages.iter().cloned();
        names.extend(captions.map(TrackName::Captions));
        let stations = self.settings.stations.iter();
        names.extend(stations.map(|(language, _)| TrackName::Audio(language.clone())));
        names
    }

    // input

    /// Reads a new entry of a track. Returns its change of the view.
    ///
    /// # Errors
    /// Another host presents with the same key.
    pub fn read(&mut self, new: &NewEntry) -> Result<Option<Change>, PresentError> {
        if new.by_owner {
            let own = self.own.entry(new.place.clone()).or_default();
            if self.is_on && new.entry.number > *own {
                return Err(PresentError::AnotherHost);
            }
            *own = new.entry.number.max(*own);
        }
        if new.place == Place::Track(TrackName::Pictures) {
            // this entry was read when it was appended
            if new.entry.number <= self.pictures_read {
                return Ok(None);
            }
            self.pictures_read = new.entry.number;
        }
        Ok(self.view.read(&new.place, new.by_owner, &new.entry))
    }

    /// Handles an event of a log. Returns a new question with its number, which stays.
    ///
    /// # Errors
    /// The key was in use on two hosts.
    pub fn handle_event(
        &mut self,
        log: &Log,
        place: &Place,
        event: &Event,
    ) -> Result<Option<(usize, &Question)>, PresentError> {
        match event {
            // again: one that the log has, but perhaps from before this presentation
            Event::Request(body) | Event::RequestAgain(body)
                if *place == Place::Track(TrackName::Questions) =>
            {
                Ok(self.take_question(body))
            }
            Event::Request(_) if *place == Place::Track(TrackName::Notes) => {
                self.writers_wait = true;
                Ok(None)
            }
            Event::Conflict { author, number } if *author == log.owner() => {
                Err(PresentError::TwoHosts {
                    place: place.clone(),
                    number: *number,
                })
            }
            _ => Ok(None),
        }
    }

    /// Takes a question that is not known.
    fn take_question(&mut self, body: &[u8]) -> Option<(usize, &Question)> {
        let id = QuestionId::of(body);
        let is_known = self.view.has_received(id) || self.unacknowledged.contains(&id);
        let question = Question::decode(body).ok().filter(|_| !is_known)?;
        if self.view.received() + self.unacknowledged.len() >= MAX_RECEIVED {
            return None;
        }
        let last = self.questions.last_key_value();
        let number = last.map_or(1, |(last, _)| last + 1);
        if self.questions.len() >= MAX_QUESTIONS {
            self.questions.pop_first();
        }
        self.unacknowledged.insert(id);
        Some((number, &*self.questions.entry(number).or_insert(question)))
    }

    // output

    /// Does the due work. The caller reads all new entries of the logs before.
    ///
    /// # Errors
    /// The presentation ends.
    pub fn handle_timeout(
        &mut self,
        logs: &mut impl Logs,
        time: UnixTime,
        now: Instant,
    ) -> Result<Option<Progress>, PresentError> {
        self.grant_writers(logs);
        self.acknowledge_questions(now);
        self.send_pictures(logs, time, now)?;
        if self.is_on
            && self.queue.is_empty()
            && let Some(slides) = self.next_slides.take()
            && self.replace_slides(slides)?
        {
            return Ok(Some(Progress::SlidesChanged));
        }
        if self.append_at > now {
            return Ok(None);
        }
        if !self.is_on && self.queue.is_empty() {
            if !self.is_settled(logs, now) {
                self.append_at = now + APPEND_AGAIN;
                return Ok(None);
            }
            self.begin(logs)?;
        }
        self.append(logs, time, now)?;
        let is_new = !self.is_on && self.queue.is_empty();
        self.is_on |= is_new;
        Ok(is_new.then_some(Progress::OnAir))
    }

    /// Returns the time of the next call of [`handle_timeout`](Self::handle_timeout).
    pub fn next_timeout(&self) -> Option<Instant> {
        let waits = !self.queue.is_empty() || !self.is_on || self.next_slides.is_some();
        let queue = waits.then_some(self.append_at);
        let pictures = self.pictures_at.filter(|_| self.is_on);
        let waits = self.is_on && !self.unacknowledged.is_empty();
        let receipt = waits.then_some(self.receipt_at);
        queue.into_iter().chain(pictures).chain(receipt).min()
    }

    fn append(
        &mut self,
        logs: &mut impl Logs,
        time: UnixTime,
        now: Instant,
    ) -> Result<(), PresentError> {
        let Some(Waiting { place, kind, body }) = self.queue.front() else {
            return Ok(());
        };
        let owner = logs.log(place).map(Log::owner);
        let owner = owner.ok_or_else(|| PresentError::NotJoined(place.clone()))?;
        match logs.append(place, owner, (*kind, body), time, now) {
            Ok(number) => {
                self.own.insert(place.clone(), number);
                if let Place::Track(TrackName::Captions(language)) = place
                    && Caption::decode(*kind, body).is_ok_and(|caption| caption.replaces == 0)
                {
                    self.last_captions.insert(language.clone(), number);
                }
                self.queue.pop_front();
                self.append_at = now + APPEND_INTERVAL;
                Ok(())
            }
            Err(AppendError::Starting) => {
                self.append_at = now + APPEND_AGAIN;
                Ok(())
            }
            Err(e) => Err(PresentError::Append(place.clone(), e)),
        }
    }

    fn is_settled(&self, logs: &impl Logs, now: Instant) -> bool {
        let places = self.places();
        let mut logs = places.iter().map(|(place, _)| logs.log(place));
        logs.all(|log| log.is_some_and(|log| log.is_settled(log.owner(), now)))
    }

    fn push(&mut self, place: Place, (kind, body): (u8, Vec<u8>)) {
        self.queue.push_back(Waiting { place, kind, body });
    }

    fn push_index(&mut self, entry: &IndexEntry) -> Result<(), PresentError> {
        self.push(Place::Index, entry.encode()?);
        Ok(())
    }

    /// Queues settings and slides as entries, and returns to the slide of the last presentation.
    fn begin(&mut self, logs: &impl Logs) -> Result<(), PresentError> {
        let has_ended = self.view.index().has_ended;
        if let Some((number, _)) = self.view.shown()
            && !has_ended
        {
            let slides = self.view.deck().slides();
            let before: Vec<&str> = slides.map(Option::unwrap_or_default).collect();
            let place = place_of(number - 1, &before, &texts(&self.slides));
            let last = self.slides.len().saturating_sub(1);
            self.current = place.unwrap_or((number - 1).min(last));
        }
        let index = self.view.index().clone();
        for name in self.names() {
            let station = self.settings.stations.iter();
            let station =
                station.filter(|(language, _)| name == TrackName::Audio(language.clone()));
            let place = match station.map(|(_, station)| station.clone()).next() {
                Some(station) => TrackPlace::Station(station),
                None => TrackPlace::Space(self.key.track_key(&name).peer_id()),
            };
            if index.place(&name) != Some(&place) {
                self.push_index(&IndexEntry::Track(name, place))?;
            }
        }
        // behind the tracks: a member that receives the session entry has all tracks
        let Settings {
            title, presenter, ..
        } = self.settings.clone();
        let is_same = index.has_begun && (&index.title, &index.presenter) == (&title, &presenter);
        let session = IndexEntry::Session { title, presenter };
        if !is_same || has_ended || !self.queue.is_empty() {
            self.push_index(&session)?;
        }
        for language in self.settings.languages.clone() {
            self.push_grants(&language, logs);
        }
        self.push_slides()?;
        self.push_turn();
        if self.queue.is_empty() {
            // all entries exist already: the session entry alone resumes
            self.push_index(&session)?;
        }
        Ok(())
    }

    /// Queues grants for new caption writers, and the end of grants for removed ones.
    fn push_grants(&mut self, language: &Language, logs: &impl Logs) {
        let place = Place::Track(TrackName::Captions(language.clone()));
        let (Some(log), Some(captions)) = (logs.log(&place), &self.settings.captions) else {
            return;
        };
        let of_language = captions.iter().filter(|(l, _)| l == language);
        let wanted: Vec<PeerId> = of_language.map(|(_, key)| *key).collect();
        let granted: Vec<_> = log.authors().filter_map(|a| Some((a, a.grant?))).collect();
        let mut grants = Vec::new();
        for key in &wanted {
            let known = granted.iter().find(|(author, _)| author.key == *key);
            if known.is_none_or(|(_, grant)| grant.last != u32::MAX) {
                grants.push(Grant {
                    author: *key,
                    not_before: 0,
                    expires: NEVER,
                    last: u32::MAX,
                });
            }
        }
        for (author, grant) in granted {
            if grant.last == u32::MAX && !wanted.contains(&author.key) {
                grants.push(Grant {
                    last: author.last,
                    ..grant
                });
            }
        }
        for grants in grants.chunks(GRANTS_IN_ENTRY) {
            self.push(place.clone(), (GRANT_KIND, Grant::encode(grants)));
        }
    }

    /// Queues the receipt of new questions: their authors repeat them until they have it.
    fn acknowledge_questions(&mut self, now: Instant) {
        let view = &self.view;
        self.unacknowledged.retain(|id| !view.has_received(*id));
        if !self.is_on || self.unacknowledged.is_empty() || self.receipt_at > now {
            return;
        }
        self.receipt_at = now + RECEIPT_INTERVAL;
        let ids = self.unacknowledged.iter().copied();
        let ids: Vec<QuestionId> = ids.take(IDS_IN_RECEIPT).collect();
        let (kind, body) = QuestionId::receipt(&ids);
        let place = Place::Track(TrackName::Questions);
        let waits = |waiting: &Waiting| waiting.place == place && waiting.kind == kind;
        if !self.queue.iter().any(waits) {
            self.push(place, (kind, body));
        }
    }

    /// Queues grants for members that asked to write notes.
    fn grant_writers(&mut self, logs: &impl Logs) {
        let place = Place::Track(TrackName::Notes);
        // grants in the queue would be made twice
        let waits = self.queue.iter().any(|waiting| waiting.place == place);
        if !self.writers_wait || !self.is_on || waits {
            return;
        }
        self.writers_wait = false;
        if let Some(log) = logs.log(&place) {
            for body in Writer::grants(log) {
                self.push(place.clone(), (GRANT_KIND, body));
            }
        }
    }

    /// Sends further entries of pictures, beside the queue, which does not wait for them.
    fn send_pictures(
        &mut self,
        logs: &mut impl Logs,
        time: UnixTime,
        now: Instant,
    ) -> Result<(), PresentError> {
        if !self.is_on || self.pictures_at.is_some_and(|at| at > now) {
            return Ok(());
        }
        let place = Place::Track(TrackName::Pictures);
        let owner = logs.log(&place).map(Log::owner);
        let owner = owner.ok_or_else(|| PresentError::NotJoined(place.clone()))?;
        self.pictures_at = None;
        while let Some((kind, body)) = self.view.album().next_entry(&self.wanted_pictures()) {
            self.pictures_at = Some(now + PICTURE_INTERVAL);
            if logs.is_behind() || !self.picture_entries.ready(now) {
                return Ok(());
            }
            match logs.append(&place, owner, (kind, &body), time, now) {
                Ok(number) => {
                    self.picture_entries.spend(1, now);
                    self.own.insert(place.clone(), number);
                    let log = logs.log(&place);
                    if let Some(entry) = log.and_then(|log| log.next_entry(owner, number - 1)) {
                        let (place, by_owner, entry) = (place.clone(), true, entry.clone());
                        self.read(&NewEntry {
                            place,
                            by_owner,
                            entry,
                        })?;
                    }
                }
                Err(AppendError::Starting) => return Ok(()),
                Err(e) => return Err(PresentError::Append(place, e)),
            }
        }
        Ok(())
    }

    /// Returns the pictures of the shown slide, then of later slides, then of earlier ones.
    fn wanted_pictures(&self) -> Vec<(&str, &Picture)> {
        let (before, after) = self
            .pictures_of
            .split_at(self.current.min(self.pictures_of.len()));
        let names = after.iter().chain(before).flatten();
        let found = names.filter_map(|name| self.pictures.get_key_value(name));
        found
            .map(|(name, picture)| (name.as_str(), picture))
            .collect()
    }

    fn push_slides(&mut self) -> Result<(), PresentError> {
        // `check` has accepted their number and lengths
        let entries =
            DeckWriter::entries(self.view.deck(), &texts(&self.slides)).unwrap_or_default();
        for entry in entries {
            self.push(Place::Track(TrackName::Slides), entry);
        }
        Ok(())
    }

    /// Queues a turn to the current slide, unless the last turn is the same.
    fn push_turn(&mut self) {
        let Some(slide) = self.slides.get(self.current) else {
            return;
        };
        let turn = Turn {
            number: self.current as u16 + 1,
            id: SlideId::of(&slide.text),
        };
        let entry = turn.encode();
        let place = Place::Track(TrackName::Turn);
        let waits = self.queue.iter().rev().find(|w| w.place == place);
        let was_said = match waits {
            Some(waiting) => waiting.body == entry.1,
            None => {
                let last = self.view.turn_log().last();
                last.is_some_and(|(_, last)| *last == turn)
            }
        };
        if !was_said {
            self.push(place, entry);
        }
    }

    // actions of the presenter

    /// Replaces the slides once the queue is empty. The shown slide stays if it is among them.
    ///
    /// # Errors
    /// There are more or longer slides than allowed; the current ones stay.
    pub fn set_slides(&mut self, slides: Vec<Slide>) -> Result<(), PresentError> {
        Self::check(&slides)?;
        self.next_slides = Some(slides);
        Ok(())
    }

    /// Replaces the slides. Returns whether there are entries to send.
    fn replace_slides(&mut self, slides: Vec<Slide>) -> Result<bool, PresentError> {
        let (before, after) = (texts(&self.slides), texts(&slides));
        let shown = before.get(self.current).copied();
        let (vanished, place) = match self.vanished.take() {
            Some(text) => {
                let place = place_of_returned(&text, &before, &after);
                (place.is_none().then_some(text), place)
            }
            None => (None, None),
        };
        let stays = place_of(self.current, &before, &after);
        // the first of two lost slides is shown again if it returns
        self.vanished = match (place.or(stays), vanished) {
            (None, None) => shown.map(str::to_owned),
            (_, vanished) => vanished,
        };
        let last = slides.len().saturating_sub(1);
        self.current = place.or(stays).unwrap_or(self.current.min(last));
        self.pictures_of = pictures_of(&slides);
        self.slides = slides;
        self.push_slides()?;
        self.push_turn();
        Ok(!self.queue.is_empty())
    }

    /// Shows a slide, from 0, at most the last one. Returns whether it is another one.
    pub fn turn_to(&mut self, slide: usize) -> bool {
        let slide = slide.min(self.slides.len().saturating_sub(1));
        let moved = slide != self.current;
        (self.current, self.vanished) = (slide, None);
        self.push_turn();
        moved
    }

    /// Queues a line of captions. With [`CORRECTION_MARK`] in front it replaces the line before.
    ///
    /// # Errors
    /// The session has no captions in this language.
    pub fn caption(&mut self, language: &Language, line: &str) -> Result<(), PresentError> {
        if !self.settings.languages.contains(language) {
            return Err(PresentError::NoCaptions);
        }
        let place = Place::Track(TrackName::Captions(language.clone()));
        let is_line = |waiting: &Waiting| {
            let caption = Caption::decode(waiting.kind, &waiting.body);
            waiting.place == place && caption.is_ok_and(|caption| caption.replaces == 0)
        };
        let waits = self.queue.iter().rposition(is_line);
        let before = self.last_captions.get(language).copied();
        let (is_correction, text) = match line.strip_prefix(CORRECTION_MARK) {
            Some(text) if waits.is_some() || before.is_some() => (true, text),
            _ => (false, line),
        };
        let text = clean(text).replace(['\n', '\t'], " ");
        for (at, text) in split_caption(&text).into_iter().enumerate() {
            let corrects = is_correction && at == 0;
            let caption = Caption {
                replaces: before.filter(|_| corrects && waits.is_none()).unwrap_or(0),
                speaker: self.settings.presenter.clone(),
                text: text.to_owned(),
            };
            let (kind, body) = caption.encode()?;
            match waits
                .filter(|_| corrects)
                .and_then(|at| self.queue.get_mut(at))
            {
                Some(waiting) => waiting.body = body,
                None => self.push(place.clone(), (kind, body)),
            }
        }
        Ok(())
    }

    /// Takes up the question with this number: all attenders receive it.
    ///
    /// # Errors
    /// No question has this number.
    pub fn take_up(&mut self, number: usize) -> Result<(), PresentError> {
        let question = self.questions.get(&number);
        let entry = question.ok_or(PresentError::NoQuestion)?.entry()?;
        self.push(Place::Track(TrackName::Questions), entry);
        Ok(())
    }

    /// Names the station with the sound of a language; the index sends it to attenders.
    ///
    /// # Errors
    /// The text names no station.
    pub fn add_station(
        &mut self,
        language: &Language,
        station: String,
    ) -> Result<(), PresentError> {
        let name = TrackName::Audio(language.clone());
        let place = TrackPlace::Station(station.clone());
        let entry = IndexEntry::Track(name.clone(), place.clone()).encode()?;
        if IndexEntry::decode(entry.0, &entry.1).is_err() {
            return Err(PresentError::NoStation);
        }
        self.settings
            .stations
            .retain(|(known, _)| known != language);
        self.settings.stations.push((language.clone(), station));
        // before the beginning, `begin` names it
        let is_known = self.view.index().place(&name) == Some(&place);
        let waits = self.queue.iter().any(|waiting| waiting.body == entry.1);
        if self.is_on && !is_known && !waits {
            self.push(Place::Index, entry);
        }
        Ok(())
    }

    /// Sets the pictures that slides name, in place of all earlier ones. Those that the log lacks
    /// are sent during the presentation, the next shown ones first.
    ///
    /// # Errors
    /// None is known.
    pub fn set_pictures(
        &mut self,
        pictures: BTreeMap<String, Picture>,
    ) -> Result<(), PresentError> {
        self.pictures = pictures;
        self.name_pictures()
    }

    /// Adds or replaces one picture, as [`set_pictures`](Self::set_pictures).
    ///
    /// # Errors
    /// None is known.
    pub fn add_picture(&mut self, name: String, picture: Picture) -> Result<(), PresentError> {
        self.pictures.insert(name, picture);
        self.name_pictures()
    }

    /// Starts the sending of pictures, and names their track in the index.
    fn name_pictures(&mut self) -> Result<(), PresentError> {
        self.pictures_at = Some(self.append_at);
        match self.pictures.is_empty() {
            true => Ok(()),
            false => self.name_track(TrackName::Pictures),
        }
    }

    /// Names the track of the presenter's screen or camera in the index. Returns the key that owns
    /// it.
    ///
    /// # Errors
    /// None is known.
    pub fn show(&mut self, name: &TrackName) -> Result<SecretKey, PresentError> {
        match name {
            TrackName::Screen => self.settings.screen = true,
            TrackName::Camera => self.settings.camera = true,
            _ => {}
        }
        self.name_track(name.clone())?;
        Ok(self.key.track_key(name))
    }

    /// Describes a track in words, for attenders that do not see it. Call it after
    /// [`show`](Self::show).
    ///
    /// # Errors
    /// None is known.
    pub fn describe(&mut self, name: TrackName, text: &str) -> Result<(), PresentError> {
        let text = clean_line(text);
        if self.view.index().description(&name) == text {
            return Ok(());
        }
        self.push_index(&IndexEntry::Description(name, text))
    }

    fn name_track(&mut self, name: TrackName) -> Result<(), PresentError> {
        let place = TrackPlace::Space(self.key.track_key(&name).peer_id());
        let is_known = self.view.index().place(&name) == Some(&place);
        let entry = IndexEntry::Track(name, place).encode()?;
        let waits = self.queue.iter().any(|waiting| waiting.body == entry.1);
        // before the beginning, `begin` names it
        if self.is_on && !is_known && !waits {
            self.push(Place::Index, entry);
        }
        Ok(())
    }

    /// Returns the names of pictures for which the session has no room.
    pub fn left_out_pictures(&self) -> Vec<&str> {
        self.view.album().left_out(&self.wanted_pictures())
    }

    /// Returns the content of radio's key file for the sound of this language.
    pub fn station_seed(&self, language: &Language) -> Zeroizing<[u8; 32]> {
        self.key.station_seed(language)
    }

    /// Queues the entry that ends the session.
    ///
    /// # Errors
    /// None is known.
    pub fn end(&mut self) -> Result<(), PresentError> {
        self.push_index(&IndexEntry::Ended)
    }

    /// Resumes a session that has ended.
    pub fn resume(&mut self) {
        self.is_on = !self.view.index().has_ended;
    }
}

fn texts(slides: &[Slide]) -> Vec<&str> {
    slides.iter().map(|slide| slide.text.as_str()).collect()
}

/// Returns the index of the slide `at` after a change of the deck, by its text, else by its title.
fn place_of(at: usize, before: &[&str], after: &[&str]) -> Option<usize> {
    let same = place_in(at, before, after);
    same.or_else(|| {
        let wanted = title(before.get(at)?);
        let is_titled = |text: &&&str| !wanted.is_empty() && title(text) == wanted;
        let (first, last) = unchanged(before, after);
        let nth = before[first..at].iter().filter(is_titled).count();
        let changed = after[first..after.len() - last].iter().enumerate();
        let mut titled = changed.filter(|(_, text)| is_titled(text));
        titled.nth(nth).map(|(place, _)| first + place)
    })
}

/// Returns the index of a slide that the deck lacked and has again, by its text or title.
fn place_of_returned(slide: &str, before: &[&str], after: &[&str]) -> Option<usize> {
    let (first, last) = unchanged(before, after);
    let had = &before[first..before.len() - last];
    let changed = &after[first..after.len() - last];
    let returned = |is_like: &dyn Fn(&str) -> bool| {
        let count = |slides: &[&str]| slides.iter().filter(|text| is_like(text)).count();
        let place = changed.iter().position(|text| is_like(text));
        place
            .filter(|_| count(changed) > count(had))
            .map(|place| first + place)
    };
    let wanted = title(slide);
    returned(&|text| text == slide)
        .or_else(|| returned(&|text| !wanted.is_empty() && title(text) == wanted))
}

fn pictures_of(slides: &[Slide]) -> Vec<Vec<String>> {
    slides.iter().map(|slide| pictures(&slide.text)).collect()
}

#[cfg(test)]
mod tests {
    use librecast_log::{Config, Entry, Output, Stored};

    use super::*;
    use crate::markdown::split;
    use crate::reading::{Reading, sort_by_time};

    const SLIDES: &str = "# Bees\n\n---\n\n## Why\n\n---\n\nThree";

    #[derive(Default)]
    struct Kept(BTreeMap<Place, (Log, Reading)>);

    impl Logs for Kept {
        fn log(&self, place: &Place) -> Option<&Log> {
            self.0.get(place).map(|(log, _)| log)
        }

        fn append(
            &mut self,
            place: &Place,
            author: AuthorId,
            (kind, body): (u8, &[u8]),
            time: UnixTime,
            now: Instant,
        ) -> Result<u32, AppendError> {
            let (log, _) = self.0.get_mut(place).unwrap();
            log.append(author, kind, body, time, now)
        }
    }

    /// A presenter on a host without other members.
    struct World {
        presenting: Presenting,
        logs: Kept,
        begin: Instant,
        ms: u64,
    }

    fn settings() -> Settings {
        Settings {
            title: "Bees".into(),
            presenter: "Ann".into(),
            languages: vec!["en".parse().unwrap(), "de".parse().unwrap()],
            stations: vec![("en".parse().unwrap(), "lcr1abc".into())],
            captions: Some(Vec::new()),
            notes: true,
            screen: true,
            camera: true,
        }
    }

    impl World {
        fn new(settings: Settings, slides: &str, stored: &BTreeMap<Place, Vec<Stored>>) -> Self {
            Self::with_pictures(settings, slides, stored, BTreeMap::new())
        }

        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        fn with_pictures(
            settings: Settings,
            slides: &str,
            stored: &BTreeMap<Place, Vec<Stored>>,
            pictures: BTreeMap<String, Picture>,
        ) -> Self {
            let begin = Instant::now();
            let key = SessionKey::from_seed(&[7; 32]);
            let mut presenting = Presenting::new(key, settings, split(slides), begin).unwrap();
            presenting.set_pictures(pictures).unwrap();
            let session = presenting.session();
            let mut logs = Kept::default();
            for (place, owner) in presenting.places() {
                let space = session.space(owner.peer_id());
                let (keys, seed) = (vec![owner], [logs.0.len() as u8; 32]);
                let mut log = Log::new(Config { space, keys, seed }, begin);
                for stored in stored.get(&place).into_iter().flatten() {
                    log.restore(stored.clone(), begin);
                }
                logs.0.insert(place, (log, Reading::default()));
            }
            Self {
                presenting,
                logs,
                begin,
                ms: 0,
            }
        }

        fn on_air() -> Self {
            let mut world = Self::new(settings(), SLIDES, &BTreeMap::new());
            world.pass(5_000).unwrap();
            assert!(world.presenting.is_on());
            world
        }

        /// Lets milliseconds pass. Returns the milestones reached.
        fn pass(&mut self, ms: u64) -> Result<Vec<Progress>, PresentError> {
            let mut reached = Vec::new();
            for _ in 0..ms / 10 {
                self.ms += 10;
                let now = self.begin + Duration::from_millis(self.ms);
                let mut entries = Vec::new();
                for (place, (log, reading)) in &mut self.logs.0 {
                    log.handle_timeout(UnixTime::from_millis(self.ms), now);
                    while let Some(output) = log.poll_output() {
                        if let Output::Event(event) = output {
                            self.presenting.handle_event(log, place, &event)?;
                        }
                    }
                    entries.extend(reading.new_entries(place, log));
                }
                sort_by_time(&mut entries);
                for new in &entries {
                    self.presenting.read(new)?;
                }
                let progress = self.presenting.handle_timeout(
                    &mut self.logs,
                    UnixTime::from_millis(self.ms),
                    now,
                )?;
                reached.extend(progress);
            }
            Ok(reached)
        }

        fn stored(&self) -> BTreeMap<Place, Vec<Stored>> {
            let logs = self.logs.0.iter();
            logs.map(|(place, (log, _))| (place.clone(), log.stored().collect()))
                .collect()
        }

        fn entries(&self) -> usize {
            self.logs.0.values().map(|(log, _)| log.size().0).sum()
        }

        fn lines(&self, language: &str) -> Vec<String> {
            let transcripts = self.presenting.view().transcripts();
            let lines = transcripts[&language.parse().unwrap()].lines().into_iter();
            lines.map(|line| line.text.clone()).collect()
        }
    }

    #[test]
    fn screen_and_camera_are_named_and_described_while_they_are_on_air() {
        for name in [TrackName::Screen, TrackName::Camera] {
            let mut settings = settings();
            (settings.screen, settings.camera) = (false, false);
            let mut world = World::new(settings, SLIDES, &BTreeMap::new());
            world.pass(5_000).unwrap();
            let index = world.presenting.view().index();
            assert_eq!(index.place(&name), None);
            let owner = world.presenting.show(&name).unwrap().peer_id();
            let described = world.presenting.describe(name.clone(), " a\nterminal ");
            described.unwrap();
            world.pass(500).unwrap();
            let index = world.presenting.view().index();
            let place = TrackPlace::Space(owner);
            assert_eq!(index.place(&name), Some(&place));
            assert_eq!(index.description(&name), "a terminal");
            let entries = world.entries();
            world.presenting.show(&name).unwrap();
            let described = world.presenting.describe(name.clone(), "a terminal");
            described.unwrap();
            world.pass(500).unwrap();
            assert_eq!(world.entries(), entries, "nothing new");
            world.presenting.describe(name.clone(), "").unwrap();
            world.pass(500).unwrap();
            let index = world.presenting.view().index();
            assert_eq!(index.description(&name), "");
        }
    }

    #[test]
    fn what_is_decided_typed_and_asked_is_what_all_see() {
        let mut world = World::on_air();
        let view = world.presenting.view();
        assert_eq!(view.shown(), Some((1, "# Bees")));
        assert_eq!(
            (&*view.index().title, &*view.index().presenter),
            ("Bees", "Ann")
        );
        let names = view.index().names().map(ToString::to_string);
        let names: Vec<_> = names.collect();
        let expected = "slides turn questions screen camera notes captions/en captions/de audio/en";
        assert_eq!(names.join(" "), expected);
        assert!(world.presenting.turn_to(99), "the last one");
        assert!(!world.presenting.turn_to(2));
        let (en, fr) = ("en".parse().unwrap(), "fr".parse().unwrap());
        // one caption is corrected before it is sent, one after
        for line in ["they dense", "^ they dance", "a secund", "^ a second"] {
            world.presenting.caption(&en, line).unwrap();
        }
        let refused = world.presenting.caption(&fr, "non");
        assert!(matches!(refused, Err(PresentError::NoCaptions)));
        world.pass(500).unwrap();
        assert_eq!(world.lines("en"), ["they dance", "a second"]);
        assert_eq!(world.presenting.view().shown(), Some((3, "Three")));
        world
            .presenting
            .caption(&en, "^ a second is a kilometre")
            .unwrap();
        let long = "word ".repeat(400);
        world.presenting.caption(&en, &long).unwrap();
        world.pass(500).unwrap();
        assert_eq!(
            world.lines("en")[..2],
            ["they dance", "a second is a kilometre"]
        );
        assert!(world.lines("en").len() > 3, "a long line is several");
        let question = Question {
            name: "Bob".into(),
            text: "how far?".into(),
        };
        let place = Place::Track(TrackName::Questions);
        let asked = Event::Request(question.encode().unwrap());
        let log = world.logs.log(&place).unwrap();
        let found = world.presenting.handle_event(log, &place, &asked).unwrap();
        assert_eq!(found, Some((1, &question)));
        assert!(world.presenting.take_up(2).is_err());
        world.presenting.take_up(1).unwrap();
        world.presenting.end().unwrap();
        world.pass(500).unwrap();
        assert_eq!(world.presenting.view().questions(), [question]);
        assert!(world.presenting.view().index().has_ended);
        world.presenting.resume();
        assert_eq!(world.pass(500).unwrap(), [Progress::OnAir]);
        assert!(!world.presenting.view().index().has_ended);
    }

    #[test]
    fn a_question_is_shown_once_keeps_its_number_and_is_acknowledged() {
        let mut world = World::on_air();
        let place = Place::Track(TrackName::Questions);
        let body = |n: usize| {
            let (name, text) = (String::new(), format!("question {n}?"));
            Question { name, text }.encode().unwrap()
        };
        let ask = |world: &mut World, event: Event| {
            let log = world.logs.log(&place).unwrap();
            let found = world.presenting.handle_event(log, &place, &event);
            found
                .unwrap()
                .map(|(number, question)| (number, question.text.clone()))
        };
        let all = MAX_QUESTIONS + 60;
        for n in 1..=all {
            let found = ask(&mut world, Event::Request(body(n)));
            assert_eq!(found, Some((n, format!("question {n}?"))));
            assert_eq!(ask(&mut world, Event::Request(body(n))), None, "known");
        }
        assert!(
            !world
                .presenting
                .view()
                .has_received(QuestionId::of(&body(1)))
        );
        world.pass(5_000).unwrap();
        assert_eq!(world.presenting.next_timeout(), None, "nothing is left");
        let view = world.presenting.view();
        assert!((1..=all).all(|n| view.has_received(QuestionId::of(&body(n)))));
        // an old one is forgotten, and the others keep their numbers
        assert!(world.presenting.take_up(60).is_err());
        world.presenting.take_up(61).unwrap();
        world.pass(500).unwrap();
        assert_eq!(world.presenting.view().questions()[0].text, "question 61?");
        // who presents again knows those that he has, and takes one that only the log has
        let mut again = World::new(settings(), SLIDES, &world.stored());
        again.pass(5_000).unwrap();
        assert_eq!(ask(&mut again, Event::RequestAgain(body(1))), None);
        let found = ask(&mut again, Event::RequestAgain(body(all + 1)));
        assert_eq!(found, Some((1, format!("question {}?", all + 1))));
    }

    #[test]
    fn who_begins_again_goes_on_where_he_was_and_says_nothing_twice() {
        let mut world = World::on_air();
        world.presenting.turn_to(1);
        world.pass(500).unwrap();
        let before = world.entries();
        let mut again = World::new(settings(), SLIDES, &world.stored());
        assert_eq!(again.pass(5_000).unwrap(), [Progress::OnAir]);
        assert_eq!(again.presenting.current(), 1);
        assert_eq!(again.entries(), before + 1, "it goes on, and no more");
        assert_eq!(again.presenting.view().shown(), Some((2, "## Why")));
    }

    #[test]
    fn sound_that_begins_later_is_named_once() {
        let mut world = World::on_air();
        let de: Language = "de".parse().unwrap();
        let name = TrackName::Audio(de.clone());
        let presenting = &mut world.presenting;
        assert!(presenting.add_station(&de, "lcs1abc".into()).is_err());
        for _ in 0..2 {
            presenting.add_station(&de, "lcr1def".into()).unwrap();
        }
        let before = world.entries();
        world.pass(500).unwrap();
        world.presenting.add_station(&de, "lcr1def".into()).unwrap();
        world.pass(500).unwrap();
        assert_eq!(world.entries(), before + 1);
        let place = world.presenting.view().index().place(&name);
        assert_eq!(place, Some(&TrackPlace::Station("lcr1def".into())));
    }

    #[test]
    fn nothing_is_appended_before_others_were_asked() {
        let mut world = World::new(settings(), SLIDES, &BTreeMap::new());
        world.pass(1_000).unwrap();
        assert_eq!((world.entries(), world.presenting.is_on()), (0, false));
    }

    #[test]
    fn other_slides_replace_those_before_and_the_one_that_is_shown_stays() {
        let mut world = World::on_air();
        world.presenting.turn_to(1);
        let slides = split("# New\n\n---\n\n# Bees\n\n---\n\n## Why\n\n---\n\nThree");
        world.presenting.set_slides(slides).unwrap();
        assert_eq!(world.pass(500).unwrap(), [Progress::SlidesChanged]);
        assert_eq!(world.presenting.view().shown(), Some((3, "## Why")));
        assert_eq!(world.presenting.view().deck().len(), 4);
        let many = split(&"a\n\n---\n\n".repeat(MAX_SLIDES + 1));
        let refused = world.presenting.set_slides(many);
        assert!(matches!(refused, Err(PresentError::TooManySlides(_))));
        let long = split(&"a".repeat(MAX_SLIDE + 1));
        let refused = world.presenting.set_slides(long).unwrap_err();
        assert!(refused.to_string().contains("slide in line 1"), "{refused}");
        world.presenting.set_slides(Vec::new()).unwrap();
        world.pass(500).unwrap();
        assert!(world.presenting.view().deck().is_empty());
        assert!(!world.presenting.turn_to(5), "there is none");
    }

    #[test]
    fn a_slide_is_its_place_in_the_deck_though_others_have_its_text() {
        let deck = |slides: [&str; 5]| slides.join("\n\n---\n\n");
        let agenda = "# Agenda";
        let first = deck([agenda, "# Two", agenda, "# Four", agenda]);
        let mut world = World::new(settings(), &first, &BTreeMap::new());
        world.pass(5_000).unwrap();
        for at in [2, 4] {
            world.presenting.turn_to(at);
            world.pass(500).unwrap();
            assert_eq!(world.presenting.view().shown(), Some((at + 1, agenda)));
        }
        let mended = deck([agenda, "# Two, mended", agenda, "# Four", agenda]);
        world.presenting.set_slides(split(&mended)).unwrap();
        world.pass(500).unwrap();
        assert_eq!(world.presenting.view().shown(), Some((5, agenda)));
        let course = world.presenting.view().course().into_iter();
        let numbers: Vec<_> = course.map(|(_, number, _)| number).collect();
        assert_eq!(numbers, [1, 3, 5]);
        // a copy is corrected, then the shown slide, then another one
        for slides in [
            [agenda, "# Two, mended", "# Plan", "# Four", agenda],
            [agenda, "# Two", "# Plan", "# Four", "# The end"],
            [agenda, "# Two", "# Plan, too", "# Four", "# The end"],
        ] {
            world.presenting.set_slides(split(&deck(slides))).unwrap();
            world.pass(500).unwrap();
            assert_eq!(world.presenting.current(), 4);
            let view = world.presenting.view();
            assert_eq!(view.shown(), Some((5, slides[4])));
            let course: Vec<_> = view.course().into_iter().map(|(_, n, _)| n).collect();
            assert_eq!(course, [1, 3, 5]);
        }
    }

    #[test]
    fn equal_slides_keep_their_order_when_slides_come_go_and_move() {
        let all = |slides: &'static str| -> Vec<&str> { slides.split(' ').collect() };
        for (at, before, after, place) in [
            (4, "a b a c a", "n a b a c a", Some(5)),
            (2, "a b a c a", "n a b a c a", Some(3)),
            (2, "a b a c a", "a a c a", Some(1)),
            (4, "a b a c a", "x b a c y", None),
            (2, "a b a c a", "x b a c y", Some(2)),
            (0, "a b c", "b c a", Some(2)),
            (1, "a b c", "a c", None),
        ] {
            let (before, after) = (all(before), all(after));
            assert_eq!(place_of(at, &before, &after), place, "{at}: {after:?}");
        }
        let returned = |before, after| place_of_returned("b", &all(before), &all(after));
        assert_eq!(returned("a c", "a c b"), Some(2));
        assert_eq!(returned("b a c", "x b c"), None, "it stood there before");
    }

    #[test]
    fn another_host_with_the_same_key_is_found_out() {
        let mut world = World::on_air();
        let mut other = World::new(settings(), SLIDES, &world.stored());
        other.pass(5_000).unwrap();
        let (log, _) = &other.logs.0[&Place::Index];
        let last = world.presenting.own[&Place::Index];
        let entry: Entry = log.next_entry(log.owner(), last).unwrap().clone();
        let new = NewEntry {
            place: Place::Index,
            by_owner: true,
            entry,
        };
        let found = world.presenting.read(&new);
        assert!(matches!(found, Err(PresentError::AnotherHost)));
        let event = Event::Conflict {
            author: log.owner(),
            number: 4,
        };
        let found = world.presenting.handle_event(log, &Place::Index, &event);
        let found = found.unwrap_err().to_string();
        assert!(found.contains("two hosts"), "{found}");
    }

    const ILLUSTRATED: &str = "# Bees\n\n![a](a.png)\n\n---\n\n![b](b.png) ![far](https://h.example/c.png)\n\n---\n\n![c](c.png) ![a](a.png)";

    /// Pictures by name, with their size in bytes.
    fn pictures_of_bytes(names: &[(&str, usize)]) -> BTreeMap<String, Picture> {
        let pictures = names.iter().enumerate().map(|(at, (name, bytes))| {
            let bytes = crate::tests::png(*bytes, at as u8);
            ((*name).to_owned(), Picture::new(bytes).unwrap())
        });
        pictures.collect()
    }

    impl World {
        fn pass_until_on(&mut self) {
            while !self.presenting.is_on() {
                self.pass(10).unwrap();
            }
        }

        fn album(&self) -> Vec<&str> {
            let album = self.presenting.view().album();
            album.pictures().map(|(name, _)| name).collect()
        }
    }

    #[test]
    fn pictures_follow_the_slide_that_is_shown_and_delay_nothing() {
        let all = pictures_of_bytes(&[("a.png", 30_000), ("b.png", 90_000), ("c.png", 30_000)]);
        let mut world = World::with_pictures(settings(), ILLUSTRATED, &BTreeMap::new(), all);
        world.pass_until_on();
        let names = world.presenting.view().index().names();
        assert!(names.into_iter().any(|name| *name == TrackName::Pictures));
        // 31 entries are the first burst; a second later the next picture is on its way
        world.pass(1_000).unwrap();
        assert_eq!(world.album(), ["a.png"]);
        // after a turn, that slide's picture precedes the earlier ones; a caption goes at once
        world.presenting.turn_to(2);
        let en: Language = "en".parse().unwrap();
        world.presenting.caption(&en, "this one").unwrap();
        world.pass(100).unwrap();
        assert_eq!(world.lines("en"), ["this one"]);
        world.pass(800).unwrap();
        assert_eq!(world.album(), ["a.png", "c.png"]);
        world.pass(2_000).unwrap();
        assert_eq!(world.album(), ["a.png", "b.png", "c.png"]);
        assert_eq!(world.presenting.next_timeout(), None, "nothing is left");
    }

    #[test]
    fn who_begins_again_sends_the_rest_of_a_picture_and_what_has_changed() {
        let names = [("a.png", 60_000), ("b.png", 60_000)];
        let all = pictures_of_bytes(&names);
        let mut world =
            World::with_pictures(settings(), ILLUSTRATED, &BTreeMap::new(), all.clone());
        world.pass_until_on();
        world.pass(1_300).unwrap();
        assert_eq!(world.album(), ["a.png"]);
        let entries = |world: &World| {
            let log = world.logs.log(&Place::Track(TrackName::Pictures));
            log.unwrap().size().0
        };
        let before = entries(&world);
        assert!((64..120).contains(&before), "some of the second: {before}");
        let mut again = World::with_pictures(settings(), ILLUSTRATED, &world.stored(), all.clone());
        again.pass(8_000).unwrap();
        assert_eq!(again.album(), ["a.png", "b.png"]);
        assert_eq!(
            entries(&again),
            2 * (60_000_usize.div_ceil(980) + 1),
            "nothing twice"
        );
        // another picture of the same name replaces it, and one belongs to no slide
        let mut others = pictures_of_bytes(&[("x.png", 10), ("z.png", 500), ("b.png", 5_000)]);
        others.insert("a.png".into(), all["a.png"].clone());
        let before = entries(&again);
        again.presenting.set_pictures(others.clone()).unwrap();
        again.pass(2_000).unwrap();
        let album = again.presenting.view().album();
        assert_eq!(album.picture("b.png"), Some(&others["b.png"]));
        assert_eq!(album.size().named, 2);
        assert_eq!(entries(&again), before + 7);
    }

    #[test]
    fn a_first_picture_that_comes_while_it_is_presented_is_named_once() {
        let mut world = World::new(settings(), ILLUSTRATED, &BTreeMap::new());
        world.pass(5_000).unwrap();
        let index = |world: &World| world.logs.log(&Place::Index).unwrap().size().0;
        let before = index(&world);
        for bytes in [100, 200] {
            let pictures = pictures_of_bytes(&[("c.png", bytes)]);
            world.presenting.set_pictures(pictures).unwrap();
            world.pass(1_000).unwrap();
            assert_eq!(world.album(), ["c.png"]);
        }
        assert_eq!(index(&world), before + 1);
    }

    #[test]
    fn who_may_write_captions_stays_unless_it_is_said() {
        let key = SecretKey::from_seed(&[9; 32]).peer_id();
        let en: Language = "en".parse().unwrap();
        let place = Place::Track(TrackName::Captions(en.clone()));
        let granted = |world: &World| {
            let log = world.logs.log(&place).unwrap();
            let mut authors = log.authors();
            let author = authors.find(|author| author.key == key);
            author
                .and_then(|author| author.grant)
                .map(|grant| grant.last)
        };
        let with = |captions| Settings {
            captions,
            ..settings()
        };
        let mut world = World::new(with(Some(vec![(en, key)])), SLIDES, &BTreeMap::new());
        world.pass(5_000).unwrap();
        assert_eq!(granted(&world), Some(u32::MAX));
        for (captions, last) in [(None, u32::MAX), (Some(Vec::new()), 0)] {
            let mut again = World::new(with(captions), SLIDES, &world.stored());
            again.pass(5_000).unwrap();
            assert_eq!(granted(&again), Some(last));
        }
    }
}
