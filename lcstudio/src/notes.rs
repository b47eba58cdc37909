//! `lcstudio notes`: keeps a file that any editor writes equal to the notes of a session.
//!
//! ```text
//!   FILE ── a save ──► merge ──► document ──► drafts on disk ──► entries on disk ──► members
//!    ▲                             ▲    │
//!    └── written beside, exchanged ┼────┘ its text
//!                                  └── updates of all, in batches ◄── entries
//! ```

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use lcstudio_core::{
    Blamed, Logs as _, NotesBatches, NotesReading, NotesWriting, Place, Session, TrackName,
    TrackPlace, View, closest, merge,
};
use librecast::drops::Reason as _;
use librecast::durable;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::time::UnixTime;
use librecast_log::{Event, Role};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest;
use librecast_program::process::Wake;
use librecast_program::state_lock::StateLock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::document::{Answer, MAX_TEXT, Request, Update};
use self::drafts::Drafts;
use self::file::{Content, NotesFile};
use self::present::Present;
use self::worker::{LIMIT, Next, Worker};
use crate::folder::make_folder;
use crate::keys;
use crate::said::print;
use crate::tracks::Tracks;
use crate::waiting::{self, Waiting};

mod apart;
mod change;
pub mod document;
mod drafts;
mod file;
mod present;
mod worker;

pub use worker::VERB;

/// Time between two looks at the file. Chosen.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two writes of the file while other members write. Chosen.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);
/// Pause after which a failed write to disk is repeated.
const DISK_AGAIN: Duration = Duration::from_secs(1);
/// Time for the document's process to read its first line.
const LOADING: Duration = Duration::from_secs(30);
/// Time at the end in which the last entries are repeated (librecast-log: after 0.25 and 1 s).
const LAST_WORDS: Duration = Duration::from_millis(1_300);
/// Wait for a grant after which it is reported. Chosen: most grants come at once.
const GRANT_WAIT: Duration = Duration::from_secs(3);
/// Failures of the document in a row without a harmful update.
const MAX_FAILURES: u32 = 3;
/// Texts of the file that an editor may have loaded, with the last save. Chosen: 8 s of writing.
const MAX_VERSIONS: usize = 16;

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// Text of the session, or a file with it.
    pub session: String,
    /// The file that the user edits.
    pub file: PathBuf,
    /// Silence after which it gives up, if nothing is known of the session.
    pub timeout: Duration,
    /// Folder of keys and entries.
    pub state_dir: PathBuf,
    /// Interfaces; none: all that can carry multicast.
    pub interfaces: Vec<String>,
    /// As JSON.
    pub json: bool,
}

/// Earlier texts of the file, on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Versions {
    file: PathBuf,
    versions: Vec<String>,
}

/// State of this host's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// They are on their way.
    Sent,
    /// They wait for a grant.
    Waits,
    /// Nothing more can be appended.
    Failed(String),
}

struct Notes<'a> {
    options: &'a Options,
    wake: &'a Wake,
    folder: PathBuf,
    tracks: Tracks,
    view: View,
    key: SecretKey,
    file: NotesFile,
    drafts: Drafts,
    writing: NotesWriting,
    reading: NotesReading,
    batches: NotesBatches,
    worker: Option<Worker>,
    /// Text of the document, once all known entries are read.
    text: Option<String>,
    is_full: bool,
    /// The last save that was taken, and later texts of the file.
    versions: VecDeque<String>,
    /// Whether to store `versions`, after the drafts: a crash must not count a lost save as known.
    versions_due: bool,
    /// An earlier text that was saved again while other members wrote in the same words.
    old_save: Option<String>,
    /// The save that the document is applying.
    taking: Option<String>,
    /// Drafts that are entries, perhaps not on disk; and entries that the document does not know.
    appended: Vec<u32>,
    unsaid: Vec<u32>,
    failures: u32,
    /// Whether the document searches conflicting lines; whether it shall not, as that failed.
    is_looking: bool,
    is_plain: bool,
    look_at: Instant,
    write_at: Instant,
    sync_at: Instant,
    /// Whether a failed write to disk was reported.
    is_disk_full: bool,
    state: State,
    /// Time from which drafts wait for a grant.
    waits_since: Option<Instant>,
    /// Present writers.
    present: Present,
    /// Last reported problem of the file.
    problem: Option<String>,
}

/// Keeps both equal until the user ends it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    librecast_program::process::confine()?;
    guest::check_may_send("write notes")?;
    let session = keys::session(&options.session)?;
    let wake = Wake::on_interrupt()?;
    let now = Instant::now();
    let folder = options.state_dir.join(of_session(&session));
    make_folder(&folder)?;
    let _lock = StateLock::take(&folder, "lcstudio")?;
    let in_folder = |name: &str| folder.join(name);
    let named = |path: &Path| path.display().to_string();
    let file = NotesFile::open(&options.file).with_context(|| named(&options.file))?;
    let key = own_key(&in_folder("key"))?;
    let drafts = in_folder("drafts");
    let drafts = Drafts::open(&drafts).with_context(|| named(&drafts))?;
    let mut writing = NotesWriting::new(key.peer_id());
    for (id, body) in drafts.waiting() {
        // stored drafts fit
        let _ = writing.write(id, body.clone());
    }
    let mut tracks =
        Tracks::open(&options.interfaces, Role::Member, now).context("multicast sockets")?;
    let index = in_folder("index");
    let joined = tracks.join(Place::Index, session.index(), Vec::new(), Some(&index), now);
    joined.with_context(|| named(&index))?;
    let versions = versions(&in_folder("versions"), file.path())?;
    let mut notes = Notes {
        options,
        wake: &wake,
        tracks,
        view: View::default(),
        key,
        file,
        drafts,
        writing,
        reading: NotesReading::default(),
        batches: NotesBatches::default(),
        worker: None,
        text: None,
        is_full: false,
        versions,
        versions_due: false,
        old_save: None,
        taking: None,
        appended: Vec::new(),
        unsaid: Vec::new(),
        failures: 0,
        is_looking: false,
        is_plain: false,
        look_at: now,
        write_at: now,
        sync_at: now,
        state: State::Sent,
        waits_since: None,
        is_disk_full: false,
        present: Present::default(),
        // success is reported once
        problem: Some(String::new()),
        folder: folder.clone(),
    };
    if let Some(exit) = notes.join(&session)? {
        return Ok(exit);
    }
    notes.run()
}

/// Returns the name of the session's folder.
fn of_session(session: &Session) -> String {
    let hash = derive(
        "lcstudio 2026 state of notes",
        &[session.encode().as_bytes()],
    );
    let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("notes-{hash}")
}

/// Returns this host's key for notes.
fn own_key(path: &Path) -> anyhow::Result<SecretKey> {
    if !path.exists() {
        let stored = SecretKey::generate().store(path);
        stored.with_context(|| path.display().to_string())?;
    }
    Ok(librecast_program::keyfile::load_signing_key(path)?)
}

/// Returns the texts that an earlier run stored for this file.
fn versions(path: &Path, file: &Path) -> anyhow::Result<VecDeque<String>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let read: Versions =
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    let is_same = read.file == file;
    Ok(read.versions.into_iter().filter(|_| is_same).collect())
}

impl Notes<'_> {
    const PLACE: Place = Place::Track(TrackName::Notes);

    /// Waits until the index names the notes.
    fn join(&mut self, session: &Session) -> anyhow::Result<Option<Exit>> {
        let until = Instant::now() + self.options.timeout;
        let mut waiting = match self.options.json {
            true => Waiting::unexplained(),
            false => Waiting::begin(Instant::now()),
        };
        let owner = loop {
            if let Some(exit) = self.wake.interrupted() {
                return Ok(Some(exit));
            }
            self.tracks.turn()?;
            self.read_entries();
            if let Some(owner) = self.owner() {
                break owner;
            }
            if until <= Instant::now() {
                let (exit, message) = match self.view.index().has_begun {
                    true => (
                        Exit::Failed,
                        "the session has no notes: `notes = true` in session.toml, before it is presented",
                    ),
                    false => (
                        Exit::Unreachable,
                        "nobody presents or holds this session where this host listens",
                    ),
                };
                return Err(ExitError::new(exit, message).into());
            }
            waiting.explain(Instant::now(), || match self.view.index().has_begun {
                true => "waits for the notes of this session: the presenter switches them on by `notes = true` in session.toml"
                    .to_owned(),
                false => {
                    waiting::for_session(&self.tracks.interface_names(), Some(self.options.timeout))
                }
            });
            let next = waiting.next_timeout().map_or(until, |at| at.min(until));
            self.tracks.wait(self.wake, Some(next))?;
        };
        let file = self.folder.join("log");
        let (space, key) = (session.space(owner), SecretKey::from_seed(&self.key.seed()));
        let joined = self
            .tracks
            .join(Self::PLACE, space, vec![key], Some(&file), Instant::now());
        joined.with_context(|| file.display().to_string())?;
        self.tracks.watch_presence(&Self::PLACE);
        Ok(None)
    }

    fn owner(&self) -> Option<PeerId> {
        match self.view.index().place(&TrackName::Notes)? {
            TrackPlace::Space(owner) => Some(*owner),
            TrackPlace::Station(_) => None,
        }
    }

    fn run(&mut self) -> anyhow::Result<Exit> {
        self.read_entries();
        self.start()?;
        let mut end: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let interrupted = self.wake.interrupted();
            if interrupted.is_some() && end.is_none() {
                self.file.look(true, now);
                end = Some(now + LAST_WORDS);
            }
            self.turn(now)?;
            if let (Some(exit), Some(end)) = (interrupted, end)
                && now >= end
                && self.is_kept()
            {
                return Ok(exit);
            }
            let worker = self.worker.as_ref().and_then(Worker::next_timeout);
            let dues = [
                worker,
                self.writing.next_timeout(),
                end.filter(|end| *end > now),
            ];
            let until = dues.into_iter().flatten().chain([self.look_at]).min();
            self.tracks.wait(self.wake, until)?;
        }
    }

    /// Returns whether all saves are on disk.
    fn is_kept(&self) -> bool {
        let is_busy = self.worker.as_ref().is_some_and(Worker::is_busy);
        !is_busy && self.drafts.is_synced() && !self.versions_due
    }

    fn turn(&mut self, now: Instant) -> anyhow::Result<()> {
        let done = self
            .tracks
            .write_notes(&Self::PLACE, &mut self.writing, UnixTime::now(), now);
        self.appended.extend(done);
        for (place, event) in self.tracks.turn()? {
            match event {
                Event::Conflict { author, number } => tracing::warn!(
                    "{place}: author {author} writes on two hosts; from {number} on nothing of it counts"
                ),
                Event::Presence { author, body } => {
                    // a later version may send presence that this one cannot read
                    if let Err(why) = self.present.handle(author.0, &body, now) {
                        tracing::debug!("presence of {author} counts for nothing: {}", why.name());
                    }
                }
                _ => {}
            }
        }
        if self.tracks.is_on_disk() {
            for id in self.appended.drain(..) {
                self.drafts.done(id);
                self.unsaid.push(id);
            }
        }
        self.read_entries();
        self.read_answers(now)?;
        if self.look_at <= now {
            self.look_at = now + LOOK_INTERVAL;
            self.file.look(false, now);
        }
        self.pump(now)?;
        self.sync(now);
        self.write_file(now)?;
        if let Some(names) = self.present.poll_names(now) {
            print(
                self.options.json,
                &present::words(names),
                || json!({"event": "present", "names": names}),
            )?;
        }
        self.say_state(now)
    }

    fn read_entries(&mut self) {
        for new in self.tracks.entries() {
            if new.place == Place::Index {
                self.view.read(&new.place, new.by_owner, &new.entry);
                continue;
            }
            match self.reading.read(&new.entry) {
                Ok(Some(update)) => self.batches.add(update),
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!("an entry of the notes counts for nothing: {}", why.name());
                }
            }
        }
    }

    // document

    /// Starts the document with this host's drafts only.
    fn start(&mut self) -> anyhow::Result<()> {
        // before the next one, as two need twice the memory
        self.worker = None;
        (self.text, self.taking) = (None, None);
        self.batches.restart();
        let mut worker = Worker::start(worker::command(), self.wake.clone())?;
        let request = Request {
            drafts: self
                .drafts
                .waiting()
                .map(|(_, body)| body.clone())
                .collect(),
            first_draft: Some(self.drafts.next()),
            ..self.request()
        };
        worker.ask(&request, LOADING, Instant::now())?;
        self.worker = Some(worker);
        Ok(())
    }

    fn request(&self) -> Request {
        let log = self.tracks.log(&Self::PLACE);
        let own = log.map(|log| log.space().author(&self.key.peer_id()).0);
        Request {
            own: own.unwrap_or_default(),
            is_plain: self.is_plain,
            ..Request::default()
        }
    }

    fn read_answers(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(worker) = &mut self.worker {
            match worker.next(now) {
                Next::Nothing => break,
                Next::Answer(Answer::Trying { author, number }) => {
                    self.batches.trying((author, number));
                }
                Next::Answer(Answer::Pending { author, number }) => {
                    self.batches.pending((author, number));
                }
                Next::Answer(Answer::Looking) => self.is_looking = true,
                Next::Answer(Answer::Done {
                    text,
                    drafts,
                    is_full,
                }) => {
                    self.batches.answered();
                    (self.failures, self.is_looking) = (0, false);
                    self.is_full = is_full;
                    for (id, body) in drafts {
                        self.drafts.write(id, &body);
                    }
                    self.text = text.or(self.text.take());
                    self.versions_due |= self.taking.is_some();
                    self.versions = match self.taking.take() {
                        Some(taken) => VecDeque::from([taken]),
                        None => std::mem::take(&mut self.versions),
                    };
                }
                Next::Answer(Answer::Bad { why } | Answer::Failed { why }) => self.blame(&why)?,
                Next::Ended(why) => self.blame(why)?,
            }
        }
        Ok(())
    }

    /// Restarts a failed document without the harmful update.
    fn blame(&mut self, why: &str) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_looking) {
            tracing::warn!(
                "lines that several have written at once are not marked any more: {why}"
            );
            self.is_plain = true;
            return self.start();
        }
        match self.batches.blame() {
            Blamed::Nobody => {
                self.failures += 1;
                if self.failures >= MAX_FAILURES {
                    anyhow::bail!("the document does not work: {why}");
                }
            }
            Blamed::Waiting => {}
            Blamed::Author((author, number)) => {
                let author = librecast_log::AuthorId(author);
                tracing::warn!("author {author} is set aside from entry {number} on: {why}");
                self.tell(
                    "an author was set aside: what came from there makes the document fail",
                    || json!({"event": "aside", "author": author.to_string(), "number": number, "why": why}),
                )?;
            }
        }
        self.start()
    }

    /// Sends the next request to an idle document.
    fn pump(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.worker.as_ref().is_none_or(Worker::is_busy) {
            return Ok(());
        }
        let is_open = !self.batches.has_unread();
        let edits = match is_open {
            true => self.take_save()?,
            false => Vec::new(),
        };
        let updates = self.batches.next_batch().into_iter().map(|update| Update {
            author: update.author,
            number: update.number,
            body: update.body,
        });
        let request = Request {
            edits: edits.into_iter().map(Into::into).collect(),
            updates: updates.collect(),
            appended: std::mem::take(&mut self.unsaid),
            ..self.request()
        };
        if request.edits.is_empty() && request.updates.is_empty() && request.appended.is_empty() {
            return Ok(());
        }
        if let Some(worker) = &mut self.worker {
            worker.ask(&request, LIMIT, now)?;
        }
        Ok(())
    }

    // file

    /// Returns the user's save as changes of the document.
    fn take_save(&mut self) -> anyhow::Result<Vec<lcstudio_core::Edit>> {
        let (Some(text), Content::Text(saved)) = (&self.text, self.file.content()) else {
            return Ok(Vec::new());
        };
        if self.versions.is_empty() {
            // the first time
            if !saved.is_empty() && saved != text {
                let message = format!(
                    "{}: it has a text that is not of these notes. Name a file that is not there; what is to go into the notes, paste there",
                    self.file.path().display()
                );
                return Err(ExitError::new(Exit::Failed, message).into());
            }
            self.versions.push_back(saved.clone());
        }
        if self.versions.back() == Some(saved) {
            return Ok(Vec::new());
        }
        // choosing a version of a marked line removes much: such texts are candidates, too
        let choices = self.versions.iter().enumerate();
        let mut loaded: Vec<(usize, String)> = choices
            .flat_map(|(n, version)| apart::choices(version).into_iter().map(move |c| (n, c)))
            .collect();
        let is_choice = loaded.iter().any(|(_, choice)| choice == saved);
        let is_old = self.versions.contains(saved);
        // an old text: the editor has not loaded the marks, unless the user saves it again
        let is_again = is_choice && is_old && self.old_save.as_ref() == Some(saved);
        self.old_save = (is_choice && is_old && !is_again).then(|| saved.clone());
        if !is_again {
            loaded.extend(self.versions.iter().cloned().enumerate());
        }
        let texts = loaded.iter().map(|(_, text)| text.as_str());
        let base = closest(texts, saved).and_then(|n| self.versions.get(loaded[n].0));
        let edits = merge(base.map_or("", String::as_str), saved, text);
        let added: usize = edits.iter().map(|edit| edit.insert.chars().count()).sum();
        if edits.is_empty() {
            self.versions = VecDeque::from([saved.clone()]);
            self.versions_due = true;
        } else if self.is_full || text.chars().count() + added > MAX_TEXT {
            let message = format!("the notes are full: {MAX_TEXT} letters");
            self.say_problem(Some(message))?;
            return Ok(Vec::new());
        } else {
            self.taking = Some(saved.clone());
        }
        Ok(edits)
    }

    /// Writes drafts to disk, then passes them on to be appended.
    fn sync(&mut self, now: Instant) {
        if self.sync_at > now {
            return;
        }
        let synced = self.drafts.sync().and_then(|synced| {
            for (id, body) in synced {
                // the document makes no draft that is too long
                let _ = self.writing.write(id, body);
            }
            if std::mem::take(&mut self.versions_due) {
                let kept = self.keep_versions();
                self.versions_due = kept.is_err();
                return kept;
            }
            Ok(())
        });
        match synced {
            Ok(()) => self.is_disk_full = false,
            Err(e) => {
                if !std::mem::replace(&mut self.is_disk_full, true) {
                    let path = self.folder.display();
                    tracing::error!(
                        "{path}: what was saved is not kept, and nothing is sent, until the disk takes it: {e}"
                    );
                }
                self.sync_at = now + DISK_AGAIN;
            }
        }
    }

    /// Writes the document's text into the file, unless the user has saved.
    fn write_file(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.write_at > now || self.batches.has_unread() || !self.is_kept() {
            return Ok(());
        }
        let Some(text) = &self.text else {
            return Ok(());
        };
        let is_first = match self.file.content() {
            Content::Refused(why) => {
                let message = format!("nothing of it is taken, and it stays as it is: {why}");
                return self.say_problem(Some(message));
            }
            Content::Text(there) if there == text => return self.say_problem(None),
            // a save, which is read first
            Content::Text(there) if self.versions.back() != Some(there) => return Ok(()),
            Content::Text(_) => false,
            Content::Missing => true,
        };
        let was_removed = is_first && !self.versions.is_empty();
        self.versions.push_back(text.clone());
        if self.versions.len() > MAX_VERSIONS {
            // the last save stays
            self.versions.remove(1);
        }
        let kept = self.keep_versions();
        let written = kept.and_then(|()| self.file.write(text, now));
        match written {
            Ok(true) if was_removed => {
                let path = self.file.path().display();
                tracing::warn!("{path}: it was removed, and is written again");
            }
            Ok(true) => {}
            _ => drop(self.versions.pop_back()),
        }
        self.write_at = now
            + if written.is_ok() {
                WRITE_INTERVAL
            } else {
                DISK_AGAIN
            };
        match written {
            Ok(_) => self.say_problem(None),
            Err(e) => self.say_problem(Some(format!("it does not get what others write: {e}"))),
        }
    }

    /// Stores the last save, the file's text and its next text: after a crash it has one of them.
    fn keep_versions(&self) -> io::Result<()> {
        let last = self.versions.len().saturating_sub(2).max(1);
        let versions = self.versions.iter().enumerate();
        let versions = versions.filter(|(n, _)| *n == 0 || *n >= last);
        let kept = Versions {
            file: self.file.path().to_owned(),
            versions: versions.map(|(_, text)| text.clone()).collect(),
        };
        durable::replace(&self.folder.join("versions"), &serde_json::to_vec(&kept)?)
    }

    // reports

    fn say_problem(&mut self, problem: Option<String>) -> anyhow::Result<()> {
        if self.problem == problem {
            return Ok(());
        }
        let path = self.file.path().display().to_string();
        let said = problem.as_deref().unwrap_or("equal to the notes");
        self.tell(
            &format!("{path}: {said}"),
            || json!({"event": "file", "file": path, "problem": problem}),
        )?;
        self.problem = problem;
        Ok(())
    }

    fn say_state(&mut self, now: Instant) -> anyhow::Result<()> {
        let waiting = self.drafts.len();
        let state = match (self.writing.failed(), waiting) {
            (Some(failed), _) => State::Failed(failed.to_string()),
            (None, 1..) if !self.is_granted() => {
                let since = *self.waits_since.get_or_insert(now);
                match now.saturating_duration_since(since) >= GRANT_WAIT {
                    true => State::Waits,
                    false => return Ok(()),
                }
            }
            _ => State::Sent,
        };
        self.waits_since.take_if(|_| state == State::Sent);
        if state == self.state {
            return Ok(());
        }
        let words = match &state {
            State::Sent => "who presents lets you write: all is sent".to_owned(),
            State::Waits => "what you save is kept here until who presents lets you write; what others write still comes".to_owned(),
            State::Failed(why) => format!("nothing more can be written: {why}. What you save is kept in {}, and sent to nobody", self.folder.display()),
        };
        let name = match &state {
            State::Sent => "sent",
            State::Waits => "waits",
            State::Failed(_) => "failed",
        };
        self.tell(
            &words,
            || json!({"event": name, "changes": waiting, "says": words}),
        )?;
        self.state = state;
        Ok(())
    }

    /// Returns whether the owner of the notes has granted this host's key.
    fn is_granted(&self) -> bool {
        self.tracks.log(&Self::PLACE).is_some_and(|log| {
            let own = log.space().author(&self.key.peer_id());
            log.authors().any(|author| author.author == own)
        })
    }

    fn tell(&self, text: &str, value: impl FnOnce() -> Value) -> anyhow::Result<()> {
        print(self.options.json, text, value)
    }
}
