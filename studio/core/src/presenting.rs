//! Who presents: what is decided, typed and asked becomes entries of the session's tracks, one after the other.
//!
//! ```text
//!   settings, slides ──┐
//!   turn, caption ─────┼─► queue ─► handle_timeout ─► Logs::append        one entry every 10 ms
//!   take up, end ──────┘                  ▲
//!   pictures ─► what is shown next first ─┤         64 entries a second, beside that queue
//!   entries of all tracks ─► read ────────┘  what stands there already is not said again
//!   events of logs ─► handle_event ─► questions, grants for who asks to write notes
//! ```
//!
//! The program around it keeps the logs: on a host in files, in a page in the browser's store.

use std::collections::{BTreeMap, VecDeque};

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::{PeerId, SecretKey};
use librecast::time::{Duration, Instant};
use librecast::wire::WireError;
use librecast_log::{AppendError, AuthorId, Event, GRANT_KIND, GRANTS_IN_ENTRY, Grant, Log};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::captions::{CORRECTION_MARK, Caption, split_caption};
use crate::deck::{DeckWriter, MAX_SLIDE, MAX_SLIDES, SlideId, Turn};
use crate::index::{IndexEntry, TrackPlace};
use crate::markdown::{Problem, Slide, pictures, title};
use crate::notes::Writer;
use crate::picture::Picture;
use crate::plain::clean;
use crate::questions::Question;
use crate::reading::NewEntry;
use crate::session::{Session, SessionKey};
use crate::track::{Language, TrackName};
use crate::view::{Change, Place, View};

/// Between two entries: a thousand of them take ten seconds, and no queue on the way fills.
const APPEND_INTERVAL: Duration = Duration::from_millis(10);
/// What cannot be appended yet is tried again after so long: the log first asks others for entries of ours.
const APPEND_AGAIN: Duration = Duration::from_millis(250);
/// Entries of pictures: 0.6 Mbit/s, as repair (librecast-log). So many at once, where a browser lets a tab work once a second.
const PICTURE_ENTRIES: Rate = Rate::per_second(64, 32);
/// Between two batches of them: each is one write to a disk.
const PICTURE_INTERVAL: Duration = Duration::from_millis(125);
/// Most questions that wait for the presenter. Chosen: more than anybody reads while he talks.
const MAX_QUESTIONS: usize = 200;
/// A grant that does not expire (librecast-log has 48 bits for it).
const NEVER: u64 = (1 << 48) - 1;

/// What who presents has decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// What the session is called.
    pub title: String,
    /// Who presents; empty where it is not said.
    pub presenter: String,
    /// Languages of captions.
    pub languages: Vec<Language>,
    /// The text of the station with the sound of a language.
    pub stations: Vec<(Language, String)>,
    /// Who else writes captions; none: who may stays as it is.
    pub captions: Option<Vec<(Language, PeerId)>>,
    /// All who attend write notes.
    pub notes: bool,
}

/// Why nothing more is presented, or something was not taken.
#[derive(Debug, Error)]
pub enum PresentError {
    /// More slides than a deck has.
    #[error("{0} slides, at most {MAX_SLIDES} are shown")]
    TooManySlides(usize),
    /// A slide is longer than may be.
    #[error("slide in line {line}: {}", Problem::TooLong(*.bytes))]
    LongSlide {
        /// Where it begins, from 1.
        line: usize,
        /// Its length.
        bytes: usize,
    },
    /// The key is used on another host.
    #[error("another host presents this session with the same key, since just now: this one ends")]
    AnotherHost,
    /// The key was used on two hosts.
    #[error(
        "{place}: two hosts presented this session at once. Nothing that its key says after entry {number} counts: \
         present with a new key"
    )]
    TwoHosts {
        /// Where both wrote.
        place: Place,
        /// The last entry that counts.
        number: u32,
    },
    /// The session has no captions in this language.
    #[error("the session has no captions in this language")]
    NoCaptions,
    /// It is no text of a station.
    #[error("this is no station")]
    NoStation,
    /// There is no question with this number.
    #[error("there is no such question")]
    NoQuestion,
    /// A text is longer than fits into an entry.
    #[error("too long: {0}")]
    TooLong(#[from] WireError),
    /// A track of the session has no log here.
    #[error("{0} is not joined")]
    NotJoined(Place),
    /// A log does not take entries.
    #[error("{0}: {1}")]
    Append(Place, AppendError),
}

/// Logs of a session's tracks, as a program keeps them.
pub trait Logs {
    /// The log of a track that is joined.
    fn log(&self, place: &Place) -> Option<&Log>;

    /// Appends kind and body to a track that is joined, at wall clock `time` (milliseconds since 1970).
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    fn append(
        &mut self,
        place: &Place,
        author: AuthorId,
        entry: (u8, &[u8]),
        time: u64,
        now: Instant,
    ) -> Result<u32, AppendError>;

    /// Whether a disk has still to take what was appended: pictures wait for it, so that nothing else waits for them.
    fn is_behind(&self) -> bool {
        false
    }
}

/// What was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All that the presenter had is in entries: it is on air.
    OnAir,
    /// Other slides than before are being sent.
    SlidesChanged,
}

/// An entry that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    place: Place,
    kind: u8,
    body: Vec<u8>,
}

/// A session, as who presents has it.
#[derive(Debug)]
pub struct Presenting {
    key: SessionKey,
    settings: Settings,
    view: View,
    slides: Vec<Slide>,
    /// Slides that replace these once nothing waits: what waits follows from the deck before.
    next_slides: Option<Vec<Slide>>,
    pictures: BTreeMap<String, Picture>,
    /// Names of pictures, of each slide.
    pictures_of: Vec<Vec<String>>,
    pictures_at: Option<Instant>,
    picture_entries: TokenBucket,
    /// The last entry of pictures that the view has.
    pictures_read: u32,
    /// The slide that is shown, from 0.
    current: usize,
    /// The text of the slide that was shown when slides came without it: if it comes back, it is shown again.
    vanished: Option<String>,
    queue: VecDeque<Waiting>,
    append_at: Instant,
    /// The last entry of each track that is known here, or was appended here.
    own: BTreeMap<Place, u32>,
    /// The last caption that was appended, by language.
    last_captions: BTreeMap<Language, u32>,
    is_on: bool,
    questions: Vec<Question>,
    /// Somebody may wait for a grant to write notes.
    writers_wait: bool,
}

impl Presenting {
    /// What this key presents; the logs of [`places`](Self::places) are to be joined first.
    ///
    /// # Errors
    ///
    /// More or longer slides than may be.
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
            questions: Vec::new(),
            writers_wait: true,
        })
    }

    /// Whether these can be shown.
    ///
    /// # Errors
    ///
    /// They are more, or longer, than may be.
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

    /// What attends.
    #[must_use]
    pub fn session(&self) -> Session {
        self.key.session()
    }

    /// What was decided.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What all who attend see.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The slides.
    #[must_use]
    pub fn slides(&self) -> &[Slide] {
        &self.slides
    }

    /// The slide that is shown, from 0.
    #[must_use]
    pub fn current(&self) -> usize {
        self.current
    }

    /// What was asked, in the order in which it came.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Whether all that the presenter had at the beginning is in entries.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Entries that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Logs that are needed, each with the key that owns it.
    #[must_use]
    pub fn places(&self) -> Vec<(Place, SecretKey)> {
        let index = (Place::Index, self.key.index_key());
        let names = self.names().into_iter();
        let spaces = names.filter(|name| !matches!(name, TrackName::Audio(_)));
        let tracks = spaces.map(|name| {
            let owner = self.key.track_key(&name);
            (Place::Track(name), owner)
        });
        let named = std::iter::once(index).chain(tracks);
        // the index names it once there is one
        let pictures = Place::Track(TrackName::Pictures);
        let owner = self.key.track_key(&TrackName::Pictures);
        let is_named = !self.pictures.is_empty();
        named
            .chain((!is_named).then_some((pictures, owner)))
            .collect()
    }

    /// The tracks that the session is to have.
    fn names(&self) -> Vec<TrackName> {
        let mut names = vec![TrackName::Slides, TrackName::Turn, TrackName::Questions];
        if !self.pictures.is_empty() {
            names.push(TrackName::Pictures);
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

    // what comes

    /// An entry of a track that was not read before. What has changed by it.
    ///
    /// # Errors
    ///
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
            // what was appended here was read then
            if new.entry.number <= self.pictures_read {
                return Ok(None);
            }
            self.pictures_read = new.entry.number;
        }
        Ok(self.view.read(&new.place, new.by_owner, &new.entry))
    }

    /// Something happened in a log. A question that is new, and is the last of [`questions`](Self::questions) now.
    ///
    /// # Errors
    ///
    /// The key was used on two hosts.
    pub fn handle_event(
        &mut self,
        log: &Log,
        place: &Place,
        event: &Event,
    ) -> Result<Option<&Question>, PresentError> {
        match event {
            Event::Request(body) if *place == Place::Track(TrackName::Questions) => {
                let Ok(question) = Question::decode(body) else {
                    return Ok(None);
                };
                if self.questions.len() >= MAX_QUESTIONS {
                    self.questions.remove(0);
                }
                self.questions.push(question);
                Ok(self.questions.last())
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

    // what is sent

    /// Does what is due. All entries that are new in the logs are to be read before.
    ///
    /// # Errors
    ///
    /// What ends the presentation.
    pub fn handle_timeout(
        &mut self,
        logs: &mut impl Logs,
        time: u64,
        now: Instant,
    ) -> Result<Option<Progress>, PresentError> {
        self.grant_writers(logs);
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

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = !self.queue.is_empty() || !self.is_on || self.next_slides.is_some();
        let queue = waits.then_some(self.append_at);
        let pictures = self.pictures_at.filter(|_| self.is_on);
        queue.into_iter().chain(pictures).min()
    }

    fn append(
        &mut self,
        logs: &mut impl Logs,
        time: u64,
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

    /// What the presenter has, as entries; and where the last presentation stopped.
    fn begin(&mut self, logs: &impl Logs) -> Result<(), PresentError> {
        let has_ended = self.view.index().has_ended;
        if let Some((number, text)) = self.view.shown()
            && !has_ended
        {
            let place = place_of(text, &self.slides);
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
        // behind them: who hears that it begins knows what there is
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
            // all stands there already: it goes on
            self.push_index(&session)?;
        }
        Ok(())
    }

    /// Who else writes captions, and who does no longer.
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

    /// Who asked to write notes may.
    fn grant_writers(&mut self, logs: &impl Logs) {
        let place = Place::Track(TrackName::Notes);
        // grants that are not appended yet would be made twice
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

    /// Sends more of the pictures, beside all else: what waits in the queue does not wait for them.
    fn send_pictures(
        &mut self,
        logs: &mut impl Logs,
        time: u64,
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

    /// Pictures of the slide that is shown, of those after it, of those before.
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
        let texts = self.slides.iter().map(|slide| slide.text.as_str());
        let texts: Vec<&str> = texts.collect();
        // they were looked at before
        let entries = DeckWriter::entries(self.view.deck(), &texts).unwrap_or_default();
        for entry in entries {
            self.push(Place::Track(TrackName::Slides), entry);
        }
        Ok(())
    }

    /// That the current slide is shown, unless it was said.
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

    // what the presenter does

    /// Other slides: they replace those before once nothing waits. What is shown stays, if it is among them.
    ///
    /// # Errors
    ///
    /// More or longer slides than may be; those before stay.
    pub fn set_slides(&mut self, slides: Vec<Slide>) -> Result<(), PresentError> {
        Self::check(&slides)?;
        self.next_slides = Some(slides);
        Ok(())
    }

    /// Whether there is something to send.
    fn replace_slides(&mut self, slides: Vec<Slide>) -> Result<bool, PresentError> {
        let shown = self.slides.get(self.current).map(|slide| &slide.text);
        let shown = self.vanished.take().or(shown.cloned());
        let place = shown.as_ref().and_then(|text| place_of(text, &slides));
        self.current = place.unwrap_or(self.current.min(slides.len().saturating_sub(1)));
        self.vanished = shown.filter(|_| place.is_none());
        self.pictures_of = pictures_of(&slides);
        self.slides = slides;
        self.push_slides()?;
        self.push_turn();
        Ok(!self.queue.is_empty())
    }

    /// Shows a slide, from 0; a number that is too high is the last one. Whether it is another one.
    pub fn turn_to(&mut self, slide: usize) -> bool {
        let slide = slide.min(self.slides.len().saturating_sub(1));
        let moved = slide != self.current;
        (self.current, self.vanished) = (slide, None);
        self.push_turn();
        moved
    }

    /// A line of captions in a language of the session. With [`CORRECTION_MARK`] in front it takes the place of the one before.
    ///
    /// # Errors
    ///
    /// The session has no such captions.
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

    /// Takes up a question, from 0: everybody sees it.
    ///
    /// # Errors
    ///
    /// There is no such question.
    pub fn take_up(&mut self, question: usize) -> Result<(), PresentError> {
        let question = self.questions.get(question);
        let entry = question.ok_or(PresentError::NoQuestion)?.entry()?;
        self.push(Place::Track(TrackName::Questions), entry);
        Ok(())
    }

    /// There is sound in a language, at the station with this text: what attends knows it once it is sent.
    ///
    /// # Errors
    ///
    /// This is no text of a station.
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
        // before it begins, the beginning says it
        let is_known = self.view.index().place(&name) == Some(&place);
        let waits = self.queue.iter().any(|waiting| waiting.body == entry.1);
        if self.is_on && !is_known && !waits {
            self.push(Place::Index, entry);
        }
        Ok(())
    }

    /// The pictures that slides name, by these names: those that others do not have are sent while it is presented, those that are
    /// shown next first. They replace all that were given before.
    ///
    /// # Errors
    ///
    /// None is known.
    pub fn set_pictures(
        &mut self,
        pictures: BTreeMap<String, Picture>,
    ) -> Result<(), PresentError> {
        self.pictures = pictures;
        self.name_pictures()
    }

    /// Another picture, or another one by this name, as [`set_pictures`](Self::set_pictures).
    ///
    /// # Errors
    ///
    /// None is known.
    pub fn add_picture(&mut self, name: String, picture: Picture) -> Result<(), PresentError> {
        self.pictures.insert(name, picture);
        self.name_pictures()
    }

    /// There is something to send, and who attends is to know where it comes.
    fn name_pictures(&mut self) -> Result<(), PresentError> {
        self.pictures_at = Some(self.append_at);
        let name = TrackName::Pictures;
        let place = TrackPlace::Space(self.key.track_key(&name).peer_id());
        let is_known = self.view.index().place(&name) == Some(&place);
        let entry = IndexEntry::Track(name, place).encode()?;
        let waits = self.queue.iter().any(|waiting| waiting.body == entry.1);
        // before it begins, the beginning names it
        if self.is_on && !is_known && !waits && !self.pictures.is_empty() {
            self.push(Place::Index, entry);
        }
        Ok(())
    }

    /// Names of pictures for which the session has no room.
    #[must_use]
    pub fn left_out_pictures(&self) -> Vec<&str> {
        self.view.album().left_out(&self.wanted_pictures())
    }

    /// What a key file of radio holds, for the sound of this language.
    #[must_use]
    pub fn station_seed(&self, language: &Language) -> Zeroizing<[u8; 32]> {
        self.key.station_seed(language)
    }

    /// Tells everybody that this was all, once it is sent.
    ///
    /// # Errors
    ///
    /// None is known.
    pub fn end(&mut self) -> Result<(), PresentError> {
        self.push_index(&IndexEntry::Ended)
    }

    /// Goes on with a session that has ended.
    pub fn resume(&mut self) {
        self.is_on = !self.view.index().has_ended;
    }
}

/// Where a slide stands among others: by its text; if that was changed, by its title, if no other slide has it.
fn place_of(text: &str, slides: &[Slide]) -> Option<usize> {
    let same = slides.iter().position(|slide| slide.text == text);
    same.or_else(|| {
        let wanted = title(text);
        let mut titled = slides
            .iter()
            .enumerate()
            .filter(|(_, slide)| title(&slide.text) == wanted);
        let (place, _) = titled.next().filter(|_| !wanted.is_empty())?;
        titled.next().is_none().then_some(place)
    })
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
            time: u64,
            now: Instant,
        ) -> Result<u32, AppendError> {
            let (log, _) = self.0.get_mut(place).unwrap();
            log.append(author, kind, body, time, now)
        }
    }

    /// Who presents, on a host where nobody else is.
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

        /// So many milliseconds; what was reached meanwhile.
        fn pass(&mut self, ms: u64) -> Result<Vec<Progress>, PresentError> {
            let mut reached = Vec::new();
            for _ in 0..ms / 10 {
                self.ms += 10;
                let now = self.begin + Duration::from_millis(self.ms);
                let mut entries = Vec::new();
                for (place, (log, reading)) in &mut self.logs.0 {
                    log.handle_timeout(self.ms, now);
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
                let progress = self
                    .presenting
                    .handle_timeout(&mut self.logs, self.ms, now)?;
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
        let expected = "slides turn questions notes captions/en captions/de audio/en";
        assert_eq!(names.join(" "), expected);
        assert!(world.presenting.turn_to(99), "the last one");
        assert!(!world.presenting.turn_to(2));
        let (en, fr) = ("en".parse().unwrap(), "fr".parse().unwrap());
        // one is corrected before it is sent, one after it was
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
        assert_eq!(found, Some(&question));
        assert!(world.presenting.take_up(1).is_err());
        world.presenting.take_up(0).unwrap();
        world.presenting.end().unwrap();
        world.pass(500).unwrap();
        assert_eq!(world.presenting.view().questions(), [question]);
        assert!(world.presenting.view().index().has_ended);
        world.presenting.resume();
        assert_eq!(world.pass(500).unwrap(), [Progress::OnAir]);
        assert!(!world.presenting.view().index().has_ended);
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

    /// Pictures of so many bytes, by name.
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
        // whoever turns has the picture of that slide before those that were on their way, and a caption goes at once
        world.presenting.turn_to(2);
        let en: Language = "en".parse().unwrap();
        world.presenting.caption(&en, "this one").unwrap();
        world.pass(100).unwrap();
        assert_eq!(world.lines("en"), ["this one"]);
        world.pass(800).unwrap();
        assert_eq!(world.album(), ["a.png", "c.png"]);
        world.pass(2_000).unwrap();
        assert_eq!(world.album(), ["a.png", "b.png", "c.png"]);
        assert_eq!(world.presenting.poll_timeout(), None, "nothing is left");
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
        // another picture by the same name takes its place, and one is of no slide
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
