//! `lcstudio notes`: keeps a file that any editor writes equal to the notes of a session.
//!
//! ```text
//!   FILE ── a save ──► merge ──► document ──► drafts on disk ──► entries on disk ──► members
//!    ▲                             ▲    │
//!    └── written beside, exchanged ┼────┘ its text
//!                                  └── updates of all, in batches ◄── entries
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcstudio_core::document::MAX_TEXT;
use lcstudio_core::{
    Edit, Logs as _, NotesReading, NotesWriting, Place, Save, Saves, Session, TrackName,
    TrackPlace, View,
};
use librecast::drops::Reason as _;
use librecast::durable;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::time::UnixTime;
use librecast::units::parse_duration;
use librecast_log::{Event, Role};
use librecast_program::cli::{Common, Exit, ExitError};
use librecast_program::guest;
use librecast_program::process::Wake;
use librecast_program::state_lock::StateLock;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::client::Client;
use self::drafts::Drafts;
use self::file::{Content, NotesFile};
use self::present::Present;
use self::reports::Reports;
use crate::folder::{make_folder, state_dir};
use crate::outside;
use crate::tracks::Tracks;
use crate::waiting::{self, Waiting};

mod client;
mod drafts;
mod file;
mod present;
mod reports;
mod worker;

/// Time between two looks at the file. Chosen.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two writes of the file while other members write. Chosen.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);
/// Pause after which a failed write to disk is repeated.
const DISK_AGAIN: Duration = Duration::from_secs(1);
/// Time at the end in which the last entries are repeated (librecast-log: after 0.25 and 1 s).
const LAST_WORDS: Duration = Duration::from_millis(1_300);
/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// lcs1..., a file with it, or `-` to read it from standard input
    pub session: String,
    /// A text file that is not there yet, or that this verb has made
    pub file: PathBuf,
    /// The session is in a network of its own (`present --outside`), also if its text names no place
    #[arg(long, conflicts_with = "interfaces")]
    pub outside: bool,
    /// Give up when nobody was heard for so long; not where the session is known from before
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Where it is kept what was written [default: $XDG_STATE_HOME/lcstudio]
    #[arg(long, env = "LCSTUDIO_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Earlier texts of the file, on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Versions {
    file: PathBuf,
    versions: Vec<String>,
}

struct Notes<'a> {
    options: &'a Options,
    common: &'a Common,
    wake: &'a Wake,
    folder: PathBuf,
    tracks: Tracks,
    view: View,
    key: SecretKey,
    file: NotesFile,
    drafts: Drafts,
    writing: NotesWriting,
    reading: NotesReading,
    document: Client,
    saves: Saves,
    /// Drafts that are entries, perhaps not on disk.
    appended: Vec<u32>,
    look_at: Instant,
    write_at: Instant,
    sync_at: Instant,
    /// Whether a failed write to disk was reported.
    is_disk_full: bool,
    /// Present writers.
    present: Present,
    reports: Reports,
}

/// Keeps both equal until the user ends it.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let program = worker::program()?;
    let session = outside::attend(&options.session, options.outside, None)?;
    librecast_program::process::confine()?;
    guest::check_may_send("write notes")?;
    let wake = Wake::on_interrupt()?;
    let now = Instant::now();
    let folder = state_dir(options.state_dir.as_ref())?.join(of_session(&session));
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
        Tracks::open(&common.interfaces, Role::Member, now).context("multicast sockets")?;
    let index = in_folder("index");
    let joined = tracks.join(Place::Index, session.index(), Vec::new(), Some(&index), now);
    joined.with_context(|| named(&index))?;
    let saves = Saves::new(versions(&in_folder("versions"), file.path())?);
    let mut notes = Notes {
        options,
        common,
        wake: &wake,
        tracks,
        view: View::default(),
        key,
        file,
        drafts,
        writing,
        reading: NotesReading::default(),
        document: Client::new(program, wake.clone()),
        saves,
        appended: Vec::new(),
        look_at: now,
        write_at: now,
        sync_at: now,
        is_disk_full: false,
        present: Present::default(),
        reports: Reports::new(common.json),
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
fn versions(path: &Path, file: &Path) -> anyhow::Result<Vec<String>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| path.display().to_string()),
    };
    let read: Versions =
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    Ok(match read.file == file {
        true => read.versions,
        false => Vec::new(),
    })
}

impl Notes<'_> {
    const PLACE: Place = Place::Track(TrackName::Notes);

    /// Waits until the index names the notes.
    fn join(&mut self, session: &Session) -> anyhow::Result<Option<Exit>> {
        let until = Instant::now() + self.options.timeout;
        let mut waiting = match self.common.json {
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
        self.document.start(&self.drafts, self.own_author())?;
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
            let dues = [
                self.document.next_timeout(),
                self.writing.next_timeout(),
                end.filter(|end| *end > now),
            ];
            let until = dues.into_iter().flatten().chain([self.look_at]).min();
            self.tracks.wait(self.wake, until)?;
        }
    }

    /// Returns whether all saves are on disk.
    fn is_kept(&self) -> bool {
        !self.document.is_busy() && self.drafts.is_synced() && !self.saves.is_due()
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
                self.document.appended(id);
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
            self.reports.print(
                &present::words(names),
                || json!({"event": "present", "names": names}),
            )?;
        }
        self.report_changes(now)
    }

    fn read_entries(&mut self) {
        for new in self.tracks.entries() {
            if new.place == Place::Index {
                self.view.read(&new.place, new.by_owner, &new.entry);
                continue;
            }
            match self.reading.read(&new.entry) {
                Ok(Some(update)) => self.document.add(update),
                Ok(None) => {}
                Err(why) => {
                    tracing::warn!("an entry of the notes counts for nothing: {}", why.name());
                }
            }
        }
    }

    /// Returns the author id of this host.
    fn own_author(&self) -> u64 {
        let log = self.tracks.log(&Self::PLACE);
        log.map_or(0, |log| log.space().author(&self.key.peer_id()).0)
    }

    fn read_answers(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(event) = self.document.poll_event(now)? {
            match event {
                client::Event::Done { drafts } => {
                    for (id, body) in drafts {
                        self.drafts.write(id, &body);
                    }
                    self.saves.taken();
                    continue;
                }
                client::Event::Failed => {}
                client::Event::LeftOut {
                    author,
                    number,
                    why,
                } => {
                    tracing::warn!("author {author} is set aside from entry {number} on: {why}");
                    self.reports.print(
                        "an author was set aside: what came from there makes the document fail",
                        || json!({"event": "aside", "author": author.to_string(), "number": number, "why": why}),
                    )?;
                }
            }
            self.saves.give_up();
            self.document.start(&self.drafts, self.own_author())?;
        }
        Ok(())
    }

    /// Sends the next request to an idle document.
    fn pump(&mut self, now: Instant) -> anyhow::Result<()> {
        if !self.document.is_idle() {
            return Ok(());
        }
        let edits = match self.document.has_unread() {
            true => Vec::new(),
            false => self.take_save()?,
        };
        self.document.ask(edits, now)
    }

    // file

    /// Returns the user's save as changes of the document.
    fn take_save(&mut self) -> anyhow::Result<Vec<Edit>> {
        let (Some(text), Content::Text(saved)) = (self.document.text(), self.file.content()) else {
            return Ok(Vec::new());
        };
        match self.saves.take(saved, text, self.document.room()) {
            Save::Nothing => Ok(Vec::new()),
            Save::Edits(edits) => Ok(edits),
            Save::Full => {
                let message = format!("the notes are full: {MAX_TEXT} letters");
                self.report_file(Some(message))?;
                Ok(Vec::new())
            }
            Save::Foreign => {
                let message = format!(
                    "{}: it has a text that is not of these notes. Name a file that is not there; what is to go into the notes, paste there",
                    self.file.path().display()
                );
                Err(ExitError::new(Exit::Failed, message).into())
            }
        }
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
            if self.saves.is_due() {
                self.keep_versions()?;
                self.saves.kept();
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
        if self.write_at > now || self.document.has_unread() || !self.is_kept() {
            return Ok(());
        }
        let Some(text) = self.document.text() else {
            return Ok(());
        };
        let is_first = match self.file.content() {
            Content::Refused(why) => {
                let message = format!("nothing of it is taken, and it stays as it is: {why}");
                return self.report_file(Some(message));
            }
            Content::Text(there) if there == text => return self.report_file(None),
            // a save, which is read first
            Content::Text(there) if self.saves.is_unread(there) => return Ok(()),
            Content::Text(_) => false,
            Content::Missing => true,
        };
        let was_removed = is_first && self.saves.have_begun();
        self.saves.begin_write(text);
        let kept = self.keep_versions();
        let written = kept.and_then(|()| self.file.write(text, now));
        match written {
            Ok(true) if was_removed => {
                let path = self.file.path().display();
                tracing::warn!("{path}: it was removed, and is written again");
            }
            Ok(true) => {}
            _ => self.saves.cancel_write(),
        }
        self.write_at = now
            + if written.is_ok() {
                WRITE_INTERVAL
            } else {
                DISK_AGAIN
            };
        match written {
            Ok(_) => self.report_file(None),
            Err(e) => self.report_file(Some(format!("it does not get what others write: {e}"))),
        }
    }

    fn keep_versions(&self) -> io::Result<()> {
        let kept = Versions {
            file: self.file.path().to_owned(),
            versions: self.saves.stored(),
        };
        durable::replace(&self.folder.join("versions"), &serde_json::to_vec(&kept)?)
    }

    // reports

    fn report_file(&mut self, problem: Option<String>) -> anyhow::Result<()> {
        self.reports.file(self.file.path(), problem)
    }

    fn report_changes(&mut self, now: Instant) -> anyhow::Result<()> {
        let failed = self.writing.failed().map(ToString::to_string);
        let (waiting, is_granted) = (self.drafts.len(), self.is_granted());
        self.reports
            .changes(waiting, is_granted, failed, &self.folder, now)
    }

    /// Returns whether the owner of the notes has granted this host's key.
    fn is_granted(&self) -> bool {
        self.tracks.log(&Self::PLACE).is_some_and(|log| {
            let own = log.space().author(&self.key.peer_id());
            log.authors().any(|author| author.author == own)
        })
    }
}
