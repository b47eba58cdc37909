//! `lcstudio present`: what lies in a folder goes to who attends, and what is typed turns the slides.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use lcstudio_core::{
    Change, DeckWriter, DropReason, IndexEntry, Language, MAX_SLIDE, MAX_SLIDES, Place, Problem,
    Question, SessionKey, Slide, SlideId, TrackName, TrackPlace, Turn, View, Writer, to_text,
};
use librecast::id::PeerId;
use librecast_log::{AppendError, Event, GRANT_KIND, Grant};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::process::Wake;
use serde_json::{Value, json};

use crate::folder::{Folder, Settings};
use crate::input::{Input, Read};
use crate::keys;
use crate::said::said;
use crate::tracks::Tracks;

/// Between two entries: a thousand of them take ten seconds, and no queue on the way fills.
const APPEND_INTERVAL: Duration = Duration::from_millis(10);
/// What cannot be appended yet is tried again after so long: the log first asks others for entries of ours.
const APPEND_AGAIN: Duration = Duration::from_millis(250);
/// Between two looks at the slides on disk.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// At the end, so long until the last entries were repeated (librecast-log repeats them after 0.25 and 1 s).
const LAST_WORDS: Duration = Duration::from_millis(1_300);
/// Entries that wait while more is typed. Chosen: some seconds of them; a pipe waits.
const MAX_QUEUE: usize = 256;
/// Most questions that wait for the presenter. Chosen: more than anybody reads while he talks.
const MAX_QUESTIONS: usize = 200;

const COMMANDS: &str = "Enter: next slide; b: back; a number: that slide; a NUMBER: take up that question; \
                        c TEXT: a caption; h: this help; q: the end";

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// The folder.
    pub folder: PathBuf,
    /// The session's key.
    pub key: PathBuf,
    /// Interfaces; none: all that can carry multicast.
    pub interfaces: Vec<String>,
    /// As JSON.
    pub json: bool,
}

/// When a file was changed last, and how long it is.
type Stamp = Option<(SystemTime, u64)>;

struct Presenter<'a> {
    options: &'a Options,
    key: SessionKey,
    folder: Folder,
    settings: Settings,
    tracks: Tracks,
    view: View,
    slides: Vec<Slide>,
    stamp: Stamp,
    /// The slide that is shown, from 0.
    current: usize,
    /// What is to be appended.
    queue: VecDeque<(Place, u8, Vec<u8>)>,
    append_at: Instant,
    /// The last entry of each track that this process knows of, or has appended.
    own: BTreeMap<Place, u32>,
    look_at: Instant,
    /// The folder was published once.
    is_on: bool,
    questions: Vec<Question>,
    /// Somebody may wait for a grant to write notes.
    writers_wait: bool,
}

/// Presents until somebody ends it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    librecast_program::process::confine()?;
    let wake = Wake::on_interrupt()?;
    let now = Instant::now();
    let key = keys::load(&options.key)?;
    let folder = Folder::new(&options.folder);
    let settings = folder.settings()?;
    let _lock = folder.lock()?;
    folder.keep_session(&key.session())?;
    let mut presenter = Presenter {
        tracks: Tracks::open(&options.interfaces, now).context("multicast sockets")?,
        options,
        key,
        folder,
        settings,
        view: View::default(),
        slides: Vec::new(),
        stamp: None,
        current: 0,
        queue: VecDeque::new(),
        append_at: now,
        own: BTreeMap::new(),
        look_at: now + LOOK_INTERVAL,
        is_on: false,
        questions: Vec::new(),
        writers_wait: true,
    };
    presenter.stamp = stamp(&presenter.folder);
    presenter.slides = presenter.folder.slides()?;
    check(&presenter.slides)?;
    presenter.say_problems();
    presenter.join_all(now)?;
    // nobody may read it
    let _ = writeln!(
        io::stderr(),
        "others are asked for what was presented before: 3 s"
    );
    let input = Input::open(wake.clone())?;
    presenter.run(&wake, &input)?;
    presenter.end(&wake)?;
    Ok(Exit::Ok)
}

fn stamp(folder: &Folder) -> Stamp {
    let known = std::fs::metadata(folder.slides_file()).ok()?;
    Some((known.modified().ok()?, known.len()))
}

fn check(slides: &[Slide]) -> Result<(), ExitError> {
    let wrong = |message| Err(ExitError::new(Exit::Failed, message));
    if slides.len() > MAX_SLIDES {
        let n = slides.len();
        return wrong(format!("{n} slides, at most {MAX_SLIDES} are shown"));
    }
    let long = slides.iter().find(|slide| slide.text.len() > MAX_SLIDE);
    match long {
        Some(slide) => {
            let problem = Problem::TooLong(slide.text.len());
            wrong(format!("slide in line {}: {problem}", slide.line))
        }
        None => Ok(()),
    }
}

impl Presenter<'_> {
    fn run(&mut self, wake: &Wake, input: &Input) -> anyhow::Result<()> {
        let mut input = Some(input);
        while wake.interrupted().is_none() {
            for (place, event) in self.tracks.turn()? {
                self.happened(&place, event)?;
            }
            self.read()?;
            self.grant_writers();
            self.append()?;
            self.look()?;
            // nobody types before there is something to turn
            while let Some(lines) = input
                && self.is_on
                && self.queue.len() < MAX_QUEUE
            {
                match lines.next()? {
                    Read::Line(line) => {
                        if !self.execute(&line)? {
                            return Ok(());
                        }
                    }
                    Read::Nothing => break,
                    // a presenter without a terminal goes on until a signal
                    Read::End => input = None,
                }
            }
            let append = (!self.queue.is_empty() || !self.is_on).then_some(self.append_at);
            let until = append.into_iter().chain([self.look_at]).min();
            self.tracks.wait(wake, until)?;
        }
        Ok(())
    }

    fn join_all(&mut self, now: Instant) -> anyhow::Result<()> {
        let session = self.key.session();
        let mut places = vec![(Place::Index, self.key.index_key())];
        for name in self.names() {
            if !matches!(name, TrackName::Audio(_)) {
                let owner = self.key.track_key(&name);
                places.push((Place::Track(name), owner));
            }
        }
        for (place, owner) in places {
            let file = self.folder.log(&place);
            let space = session.space(owner.peer_id());
            let joined = self
                .tracks
                .join(place, space, vec![owner], Some(&file), now);
            joined.with_context(|| file.display().to_string())?;
        }
        self.read()
    }

    /// The tracks that the session is to have.
    fn names(&self) -> Vec<TrackName> {
        let mut names = vec![TrackName::Slides, TrackName::Turn, TrackName::Questions];
        if self.settings.notes {
            names.push(TrackName::Notes);
        }
        let captions = self.settings.languages.iter().cloned();
        names.extend(captions.map(TrackName::Captions));
        names.extend(self.settings.sound.iter().cloned().map(TrackName::Audio));
        names
    }

    /// What is new in logs.
    fn read(&mut self) -> anyhow::Result<()> {
        for new in self.tracks.entries() {
            if new.by_owner {
                let own = self.own.entry(new.place.clone()).or_default();
                if self.is_on && new.entry.number > *own {
                    let message = "another host presents this session with the same key, since just now: this one ends";
                    return Err(ExitError::new(Exit::Failed, message).into());
                }
                *own = new.entry.number.max(*own);
            }
            let change = self.view.read(&new.place, new.by_owner, &new.entry);
            // what stands on disk was said before
            if self.is_on
                && let Some(Change::Caption(language, line)) = change
            {
                self.tell(
                    &format!("[{language}] {}", said(&line.speaker, &line.text)),
                    || json!({"event": "caption", "language": language.tag(), "speaker": line.speaker, "text": line.text}),
                );
            }
        }
        Ok(())
    }

    fn happened(&mut self, place: &Place, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Request(body) if *place == Place::Track(TrackName::Questions) => {
                let Ok(question) = Question::decode(&body) else {
                    return Ok(());
                };
                if self.questions.len() >= MAX_QUESTIONS {
                    tracing::warn!("more questions than {MAX_QUESTIONS}: the oldest are forgotten");
                    self.questions.remove(0);
                }
                self.questions.push(question.clone());
                let number = self.questions.len();
                self.tell(
                    &format!("question {number}: {}", said(&question.name, &question.text)),
                    || json!({"event": "question", "number": number, "name": question.name, "text": question.text}),
                );
            }
            Event::Request(_) if *place == Place::Track(TrackName::Notes) => {
                self.writers_wait = true;
            }
            Event::Conflict { author, number } => {
                let log = self.tracks.log(place);
                if log.is_some_and(|log| log.owner() == author) {
                    let message = format!(
                        "{place}: two hosts presented this session at once. Nothing that its key says after entry {number} \
                         counts: make a new key and a new folder"
                    );
                    return Err(ExitError::new(Exit::Failed, message).into());
                }
                tracing::warn!(
                    "{place}: one key writes on two hosts; its entries from {number} on count for nobody"
                );
            }
            _ => {}
        }
        Ok(())
    }

    // what is sent

    /// Appends what waits; makes a plan where nothing does and something is to change.
    fn append(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.append_at > now {
            return Ok(());
        }
        if !self.is_on && self.queue.is_empty() {
            if !self.is_settled(now) {
                self.append_at = now + APPEND_AGAIN;
                return Ok(());
            }
            self.begin()?;
        }
        let Some((place, kind, body)) = self.queue.pop_front() else {
            return Ok(());
        };
        let owner = self.tracks.log(&place).map(librecast_log::Log::owner);
        let owner = owner.context("a track that is not joined")?;
        match self.tracks.append(&place, owner, (kind, &body)) {
            Ok(number) => {
                self.own.insert(place, number);
                self.append_at = now + APPEND_INTERVAL;
            }
            Err(AppendError::Starting) => {
                self.queue.push_front((place, kind, body));
                self.append_at = now + APPEND_AGAIN;
            }
            Err(e) => anyhow::bail!("{place}: {e}"),
        }
        if self.queue.is_empty() && !self.is_on {
            self.is_on = true;
            self.say_on();
        }
        Ok(())
    }

    fn is_settled(&self, now: Instant) -> bool {
        let places =
            std::iter::once(Place::Index).chain(self.names().into_iter().map(Place::Track));
        let mut logs = places.filter_map(|place| self.tracks.log(&place));
        logs.all(|log| log.is_settled(log.owner(), now))
    }

    /// The folder, as entries; and where the last presentation stopped.
    fn begin(&mut self) -> anyhow::Result<()> {
        let has_ended = self.view.index().has_ended;
        if let Some((number, _)) = self.view.shown()
            && !has_ended
        {
            self.current = (number - 1).min(self.slides.len().saturating_sub(1));
        }
        let index = self.view.index().clone();
        let Settings {
            title, presenter, ..
        } = self.settings.clone();
        for name in self.names() {
            let place = match &name {
                TrackName::Audio(language) => {
                    TrackPlace::Station(self.folder.station(&self.key, language)?)
                }
                _ => TrackPlace::Space(self.key.track_key(&name).peer_id()),
            };
            if index.place(&name) != Some(&place) {
                self.queue_index(&IndexEntry::Track(name, place))?;
            }
        }
        // behind them: who hears that it begins knows what there is
        let is_same = index.has_begun && (&index.title, &index.presenter) == (&title, &presenter);
        if !is_same || has_ended || !self.queue.is_empty() {
            self.queue_index(&IndexEntry::Session { title, presenter })?;
        }
        for language in self.settings.languages.clone() {
            self.queue_grants(&language);
        }
        self.queue_slides()?;
        self.queue_turn();
        if self.queue.is_empty() {
            // all stands there already: it goes on
            self.queue_index(&IndexEntry::Session {
                title: self.settings.title.clone(),
                presenter: self.settings.presenter.clone(),
            })?;
        }
        Ok(())
    }

    fn queue_index(&mut self, entry: &IndexEntry) -> anyhow::Result<()> {
        let (kind, body) = entry.encode()?;
        self.queue.push_back((Place::Index, kind, body));
        Ok(())
    }

    /// Who else writes captions, and who does no longer.
    fn queue_grants(&mut self, language: &Language) {
        let place = Place::Track(TrackName::Captions(language.clone()));
        let Some(log) = self.tracks.log(&place) else {
            return;
        };
        let settings = self.settings.captions.iter();
        let wanted: Vec<PeerId> = settings
            .filter(|(l, _)| l == language)
            .map(|(_, key)| *key)
            .collect();
        let granted: Vec<_> = log.authors().filter_map(|a| Some((a, a.grant?))).collect();
        let mut grants = Vec::new();
        for key in &wanted {
            let known = granted.iter().find(|(author, _)| author.key == *key);
            if known.is_none_or(|(_, grant)| grant.last != u32::MAX) {
                grants.push(Grant {
                    author: *key,
                    not_before: 0,
                    expires: (1 << 48) - 1,
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
        for grants in grants.chunks(librecast_log::GRANTS_IN_ENTRY) {
            self.queue
                .push_back((place.clone(), GRANT_KIND, Grant::encode(grants)));
        }
    }

    /// Who asked to write notes may.
    fn grant_writers(&mut self) {
        let place = Place::Track(TrackName::Notes);
        // grants that are not appended yet would be made twice
        let waits = self.queue.iter().any(|(queued, ..)| *queued == place);
        if !self.writers_wait || !self.is_on || waits {
            return;
        }
        self.writers_wait = false;
        if let Some(log) = self.tracks.log(&place) {
            let grants = Writer::grants(log).into_iter();
            self.queue
                .extend(grants.map(|body| (place.clone(), GRANT_KIND, body)));
        }
    }

    fn queue_slides(&mut self) -> anyhow::Result<()> {
        let texts: Vec<&str> = self
            .slides
            .iter()
            .map(|slide| slide.text.as_str())
            .collect();
        let made = DeckWriter::entries(self.view.deck(), &texts).map_err(|_: DropReason| {
            ExitError::new(Exit::Failed, "more or longer slides than may be")
        })?;
        let place = Place::Track(TrackName::Slides);
        self.queue.extend(
            made.into_iter()
                .map(|(kind, body)| (place.clone(), kind, body)),
        );
        Ok(())
    }

    /// That the current slide is shown, unless it was said.
    fn queue_turn(&mut self) {
        let Some(slide) = self.slides.get(self.current) else {
            return;
        };
        let turn = Turn {
            number: self.current as u16 + 1,
            id: SlideId::of(&slide.text),
        };
        let (kind, body) = turn.encode();
        let place = Place::Track(TrackName::Turn);
        let waits = self.queue.iter().rev().find(|(p, ..)| *p == place);
        let said = match waits {
            Some((_, _, waits)) => *waits == body,
            None => self
                .view
                .turn_log()
                .last()
                .is_some_and(|(_, last)| *last == turn),
        };
        if !said {
            self.queue.push_back((place, kind, body));
        }
    }

    /// Slides that were changed on disk.
    fn look(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        // what is queued follows from the deck before
        if self.look_at > now || !self.is_on || !self.queue.is_empty() {
            self.look_at = self.look_at.max(now + APPEND_AGAIN);
            return Ok(());
        }
        self.look_at = now + LOOK_INTERVAL;
        let found = stamp(&self.folder);
        if found == self.stamp {
            return Ok(());
        }
        self.stamp = found;
        let slides = match self.folder.slides() {
            Ok(slides) => slides,
            Err(e) => {
                // half written, or put in place just now: what was shown stays
                tracing::warn!("{e:#}; what was shown stays");
                return Ok(());
            }
        };
        if let Err(e) = check(&slides) {
            tracing::warn!("{e}; what was shown stays");
            return Ok(());
        }
        let shown = self
            .slides
            .get(self.current)
            .map(|slide| slide.text.clone());
        let same = slides
            .iter()
            .position(|slide| Some(&slide.text) == shown.as_ref());
        self.slides = slides;
        self.current = same.unwrap_or(self.current.min(self.slides.len().saturating_sub(1)));
        self.say_problems();
        self.queue_slides()?;
        self.queue_turn();
        if !self.queue.is_empty() {
            let n = self.slides.len();
            self.tell(
                &format!("slides changed: {n}"),
                || json!({"event": "slides", "count": n}),
            );
        }
        Ok(())
    }

    /// Tells everybody that this was all.
    fn end(&mut self, wake: &Wake) -> anyhow::Result<()> {
        if !self.is_on {
            return Ok(());
        }
        self.queue_index(&IndexEntry::Ended)?;
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until {
            self.append()?;
            self.tracks.turn()?;
            let next = if self.queue.is_empty() {
                until
            } else {
                self.append_at
            };
            self.tracks.wait(wake, Some(next))?;
        }
        Ok(())
    }

    // what the presenter types, and reads

    /// Does what a line says; false ends.
    fn execute(&mut self, line: &str) -> anyhow::Result<bool> {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let last = self.slides.len().saturating_sub(1);
        match (word, rest.trim()) {
            ("", "") => self.turn_to((self.current + 1).min(last)),
            ("b", "") => self.turn_to(self.current.saturating_sub(1)),
            ("q", "") => return Ok(false),
            ("c", text) if !text.is_empty() => self.caption(text)?,
            ("a", number) => match number.parse::<usize>() {
                Ok(n) if n > 0 && n <= self.questions.len() => {
                    let (kind, body) = self.questions[n - 1].entry()?;
                    let place = Place::Track(TrackName::Questions);
                    self.queue.push_back((place, kind, body));
                }
                _ => self.say_usage(),
            },
            (number, "") => match number.parse::<usize>() {
                Ok(n) if n > 0 && n <= self.slides.len() => self.turn_to(n - 1),
                _ => self.say_usage(),
            },
            _ => self.say_usage(),
        }
        Ok(true)
    }

    fn caption(&mut self, text: &str) -> anyhow::Result<()> {
        let Some(language) = self.settings.languages.first() else {
            anyhow::bail!("session.toml names no language");
        };
        let place = Place::Track(TrackName::Captions(language.clone()));
        for text in lcstudio_core::split_caption(text) {
            let caption = lcstudio_core::Caption {
                replaces: 0,
                speaker: self.settings.presenter.clone(),
                text: text.to_owned(),
            };
            let (kind, body) = caption.encode()?;
            self.queue.push_back((place.clone(), kind, body));
        }
        Ok(())
    }

    fn turn_to(&mut self, slide: usize) {
        let moved = slide != self.current;
        self.current = slide;
        self.queue_turn();
        if moved {
            self.say_slide();
        }
    }

    fn say_slide(&self) {
        let (number, of) = (self.current + 1, self.slides.len());
        let Some(slide) = self.slides.get(self.current) else {
            return;
        };
        self.tell(
            &format!("--- slide {number} of {of}\n{}\n", to_text(&slide.text)),
            || json!({"event": "slide", "number": number, "of": of, "markdown": slide.text}),
        );
    }

    fn say_on(&self) {
        let text = self.key.session().encode();
        self.tell(&text, || json!({"event": "on", "session": *text}));
        let interfaces = self.tracks.interface_names().join(", ");
        // nobody may read it
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "on air at {interfaces}. {COMMANDS}");
        for language in &self.settings.sound {
            let folder = self.folder.path().display();
            let _ = writeln!(
                err,
                "sound: lcradio cast --key {folder}/audio-{language}.key --profile voice"
            );
        }
        drop(err);
        if self.slides.is_empty() {
            tracing::warn!("{}: no slides yet", self.folder.slides_file().display());
        }
        self.say_slide();
    }

    fn say_problems(&self) {
        let file = self.folder.slides_file();
        for slide in &self.slides {
            for (line, problem) in &slide.problems {
                let _ = writeln!(io::stderr(), "{}:{line}: {problem}", file.display());
            }
        }
    }

    fn say_usage(&self) {
        let _ = writeln!(io::stderr(), "{COMMANDS}");
    }

    /// A reader of stdout that has gone is no reason to end a lecture.
    fn tell(&self, text: &str, value: impl FnOnce() -> Value) {
        let mut out = io::stdout().lock();
        let _ = match self.options.json {
            true => writeln!(out, "{}", value()),
            false => writeln!(out, "{text}"),
        };
    }
}
