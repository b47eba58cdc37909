//! Who attends in a page: which tracks are joined, and what came of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use lcroute_web_page::{Command, Datagram};
use lcstudio_core::{
    Asking, Language, NotesUpdate, Place, Reading, Session, TrackName, TrackPlace, View,
    lacks_entries, sort_by_time,
};
use librecast::id::{SecretKey, derive};
use librecast::time::{Duration, Instant};
use librecast_log::{AuthorId, Config, ENTRY_LOG_PORT, Log, Output, Space};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::notes::{Of, PageNotes, may_write};

/// The page looks again at the latest after so long.
const LOOK: Duration = Duration::from_secs(1);

/// What a page begins with. The seed comes apart from it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Text of the session, `lcs1...`.
    #[serde(deserialize_with = "wiped")]
    session: Zeroizing<String>,
    /// Languages that the reader prefers, the best first. What is no language is passed over.
    languages: Vec<String>,
    /// Tracks that were chosen before; none: slides, questions, captions, and pictures where they are wanted.
    tracks: Option<Vec<String>>,
    /// Whether pictures are joined where nothing was chosen before.
    pictures: bool,
}

fn wiped<'de, D: Deserializer<'de>>(text: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(text).map(Zeroizing::new)
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Start")
    }
}

/// A log, and how far it was read.
#[derive(Debug)]
struct Joined {
    log: Log,
    reading: Reading,
}

/// What a log has to send.
fn send(log: &mut Log, commands: &mut VecDeque<Command>) {
    let group = log.space().group();
    while let Some(output) = log.poll_output() {
        if let Output::Transmit(data) = output {
            let port = ENTRY_LOG_PORT;
            commands.push_back(Command::Send { group, port, data });
        }
    }
}

/// Attends a session for a page.
#[derive(Debug)]
pub struct PageAttender {
    session: Session,
    languages: Vec<Language>,
    /// None until the index is here: only then it is known what there is.
    chosen: Option<BTreeSet<TrackName>>,
    wants_pictures: bool,
    pub(crate) view: View,
    joined: BTreeMap<Place, Joined>,
    /// Bytes that came of each track, without headers.
    received: BTreeMap<Place, u64>,
    asking: Asking,
    /// None before the page has said what it keeps.
    pub(crate) notes: Option<PageNotes>,
    revision: u64,
    /// The page's clock, when it was looked at last.
    unix_ms: u64,
    seed: Zeroizing<[u8; 32]>,
    /// Logs begun so far: each has randomness of its own.
    logs: u64,
    is_over: bool,
    commands: VecDeque<Command>,
}

impl PageAttender {
    /// Joins the index. `seed`: what nobody can guess, another one each time.
    ///
    /// # Errors
    /// Why this is no session, as people read it.
    pub fn new(start: &Start, seed: [u8; 32], now: Instant) -> Result<Self, String> {
        let session = Session::decode(&start.session).map_err(|e| {
            format!("{e}. A session looks like lcs1…; `lcstudio present` prints it.")
        })?;
        let languages = start.languages.iter();
        let tracks = start.tracks.as_deref();
        let mut attender = Self {
            session,
            languages: languages.filter_map(|tag| tag.parse().ok()).collect(),
            chosen: tracks.map(|all| all.iter().filter_map(|name| name.parse().ok()).collect()),
            wants_pictures: start.pictures,
            view: View::default(),
            joined: BTreeMap::new(),
            received: BTreeMap::new(),
            asking: Asking::default(),
            notes: None,
            revision: 0,
            unix_ms: 0,
            seed: Zeroizing::new(seed),
            logs: 0,
            is_over: false,
            commands: VecDeque::new(),
        };
        attender.follow_tracks(now);
        Ok(attender)
    }

    /// Its name on the wire, which is no secret.
    pub(crate) fn name(&self) -> String {
        self.session.index().group().to_string()
    }

    /// What there is without a choice: slides, questions, captions in the language of who reads, and pictures, which the index may
    /// name later.
    fn choose_first(&mut self) {
        let index = self.view.index();
        // the index names its tracks one after the other: a choice by language waits for all
        if self.chosen.is_some() || !index.has_begun || self.lacks(&Place::Index) {
            return;
        }
        let captions = index.names().filter_map(|name| match name {
            TrackName::Captions(language) => Some(language.clone()),
            _ => None,
        });
        let captions: Vec<Language> = captions.collect();
        let captions = Language::closest(&self.languages, &captions).cloned();
        let first = [TrackName::Slides, TrackName::Questions].into_iter();
        let pictures = self.wants_pictures.then_some(TrackName::Pictures);
        let chosen = first.chain(pictures);
        self.chosen = Some(chosen.chain(captions.map(TrackName::Captions)).collect());
    }

    /// Chooses a track, or drops it. Of sound there is one at a time.
    ///
    /// # Errors
    /// There is no such track.
    pub fn choose(&mut self, name: &str, is_chosen: bool, now: Instant) -> Result<(), String> {
        let name: TrackName = name.parse().map_err(|e| format!("{e}"))?;
        self.choose_first();
        let chosen = self.chosen.get_or_insert_default();
        if is_chosen {
            if matches!(name, TrackName::Audio(_)) {
                chosen.retain(|other| !matches!(other, TrackName::Audio(_)));
            }
            chosen.insert(name);
        } else {
            chosen.remove(&name);
        }
        self.revision += 1;
        self.follow_tracks(now);
        Ok(())
    }

    /// Whether a track is chosen; which slide is shown goes with slides.
    pub(crate) fn has_chosen(&self, name: &TrackName) -> bool {
        let by = match name {
            TrackName::Turn => &TrackName::Slides,
            name => name,
        };
        self.chosen.as_ref().is_some_and(|all| all.contains(by))
    }

    /// Logs that are wanted now.
    fn wanted(&self) -> BTreeMap<Place, Space> {
        let index = (Place::Index, self.session.index());
        let tracks = self.view.index().tracks.iter();
        let tracks = tracks.filter_map(|(name, place)| match place {
            TrackPlace::Space(owner) if self.has_chosen(name) => {
                Some((Place::Track(name.clone()), self.session.space(*owner)))
            }
            // the radio of the page plays it
            _ => None,
        });
        std::iter::once(index).chain(tracks).collect()
    }

    /// Joins what is wanted, and leaves what is not.
    fn follow_tracks(&mut self, now: Instant) {
        if self.is_over {
            return;
        }
        self.choose_first();
        let (unix_ms, wanted) = (self.unix_ms, self.wanted());
        let is_wanted = |place: &Place, joined: &Joined| {
            let space = wanted.get(place);
            space.is_some_and(|space| space.owner() == joined.log.space().owner())
        };
        for (place, mut left) in self
            .joined
            .extract_if(.., |place, joined| !is_wanted(place, joined))
        {
            let group = left.log.space().group();
            self.commands.push_back(Command::Leave(group));
            if let Place::Track(name) = place {
                if let (TrackName::Notes, Some(notes)) = (&name, &mut self.notes) {
                    notes.leave(&mut left.log, unix_ms, now);
                }
                self.view.forget(&name);
            }
            self.revision += 1;
        }
        for (place, space) in wanted {
            if self.joined.contains_key(&place) {
                continue;
            }
            self.commands.push_back(Command::Join(space.group()));
            self.logs += 1;
            let parts = [&self.seed[..], &self.logs.to_be_bytes()];
            let is_notes = place == Place::Track(TrackName::Notes);
            let notes = self.notes.as_mut().filter(|_| is_notes);
            let key = notes
                .as_ref()
                .map(|notes| SecretKey::from_seed(&notes.key.seed()));
            let config = Config {
                space,
                keys: key.into_iter().collect(),
                seed: derive("lcroute 2026 log in a page", &parts),
            };
            let mut log = Log::new(config, now);
            if let Some(notes) = notes {
                notes.begin(&mut log, now);
            }
            let reading = Reading::default();
            let joined = Joined { log, reading };
            self.joined.insert(place, joined);
            self.revision += 1;
        }
    }

    /// A datagram came to a group that the page has joined: from where, to which group and port. What belongs to no track is
    /// passed over.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, unix_ms: u64) {
        let Datagram {
            source,
            group,
            port,
            data,
        } = datagram;
        let mut joined = self.joined.iter_mut();
        let found = joined.find(|(_, joined)| joined.log.space().group() == group);
        let Some((place, joined)) = found.filter(|_| port == ENTRY_LOG_PORT) else {
            return;
        };
        *self.received.entry(place.clone()).or_default() += data.len() as u64;
        joined.log.handle_packet(source.into(), data, unix_ms, now);
    }

    /// Does what is due, and reads what has come.
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: u64) {
        self.unix_ms = unix_ms;
        let questions = Place::Track(TrackName::Questions);
        while let Some(body) = self.asking.poll_request(now) {
            if let Some(joined) = self.joined.get_mut(&questions) {
                // its length was looked at when it was asked
                let _ = joined.log.request(&body);
            }
        }
        let mut entries = Vec::new();
        for (place, Joined { log, reading }) in &mut self.joined {
            if log.poll_timeout() <= now {
                log.handle_timeout(unix_ms, now);
            }
            let of = match place {
                Place::Index => Some(Of::Index),
                Place::Track(TrackName::Notes) => Some(Of::Notes),
                Place::Track(_) => None,
            };
            match (of, self.notes.as_mut().filter(|notes| notes.is_open)) {
                (Some(of), Some(notes)) => {
                    if of == Of::Notes {
                        notes.append(log, unix_ms, now);
                        notes.handle_presence(log, unix_ms, now);
                    }
                    notes.handle_outputs(of, log, now);
                }
                _ => send(log, &mut self.commands),
            }
            entries.extend(reading.new_entries(place, log));
        }
        sort_by_time(&mut entries);
        for new in entries {
            if let (Place::Track(TrackName::Notes), Some(notes)) = (&new.place, &mut self.notes) {
                notes.read(&new);
                self.revision += 1;
                continue;
            }
            let change = self.view.read(&new.place, new.by_owner, &new.entry);
            self.revision += u64::from(change.is_some());
        }
        self.follow_tracks(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Instant {
        let logs = self.joined.values().map(|joined| joined.log.poll_timeout());
        let notes = self.notes.as_ref().and_then(PageNotes::poll_timeout);
        let first = logs.chain(self.asking.poll_timeout()).chain(notes).min();
        first.unwrap_or(now + LOOK).min(now + LOOK)
    }

    /// The next thing that the page is to do.
    pub fn poll_command(&mut self) -> Option<Command> {
        let notes = self.notes.as_mut();
        let command = self.commands.pop_front();
        command.or_else(|| notes?.disk.poll_command())
    }

    /// What the page kept of a visit before, kind and bytes of each record, and the key that writes notes. To be called before
    /// anything is joined.
    pub fn restore(&mut self, key: &[u8; 32], records: &[(u8, &[u8])], now: Instant) {
        if let Some(index) = self.joined.get_mut(&Place::Index) {
            let key = SecretKey::from_seed(key);
            self.notes = Some(PageNotes::new(key, &mut index.log, records, now));
        }
    }

    /// Opens the notes: from now on the page keeps what their log and the index store, before anything that follows is sent.
    ///
    /// # Errors
    /// There are none.
    pub fn open_notes(&mut self, now: Instant) -> Result<(), String> {
        let index = self.joined.get(&Place::Index);
        if let (Some(notes), Some(index)) = (&mut self.notes, index) {
            notes.open(&index.log);
        }
        self.choose("notes", true, now)
    }

    /// What was read of notes and not taken yet.
    pub fn poll_update(&mut self) -> Option<NotesUpdate> {
        self.notes.as_mut()?.poll_update()
    }

    /// What the page is to put on disk now, with the number by which it says that it has.
    pub fn take_records(&mut self) -> Vec<u8> {
        let notes = self.notes.as_mut();
        notes
            .map(|notes| notes.disk.take_records())
            .unwrap_or_default()
    }

    /// All records up to this number are on disk.
    pub fn kept(&mut self, turn: u32) {
        if let Some(notes) = &mut self.notes {
            notes.disk.kept(turn);
        }
    }

    /// A draft of notes that is on disk; one of the same number that is no entry yet is replaced.
    ///
    /// # Errors
    /// It is too long.
    pub fn write(&mut self, id: u32, body: &[u8]) -> Result<(), String> {
        let notes = self.notes.as_mut();
        notes.map_or(Ok(()), |notes| notes.write(id, body.to_vec()))
    }

    /// Shows the reader to others who have opened the notes, under this name, or not at all; and shows him others, or not.
    pub fn choose_presence(&mut self, name: Option<&str>, watches: bool, now: Instant) {
        if let Some(notes) = &mut self.notes {
            notes.choose_presence(name, watches, now);
            let joined = self.joined.get_mut(&Place::Track(TrackName::Notes));
            if let Some(joined) = joined {
                joined.log.watch_presence(notes.is_watching());
            }
        }
    }

    /// Where the reader is in the notes, as their document has it.
    pub fn move_to(&mut self, cursor: &[u8], writes: bool, now: Instant) {
        if let Some(notes) = &mut self.notes {
            notes.move_to(cursor, writes, now);
        }
    }

    /// Whether other nodes are there: else drafts wait.
    pub fn connect(&mut self, is_connected: bool) {
        if let Some(notes) = &mut self.notes {
            notes.connect(is_connected);
        }
    }

    /// Asks who presents. Everybody who attends sees it once it is taken up.
    ///
    /// # Errors
    /// Why not, as people read it.
    pub fn ask(&mut self, name: &str, text: &str, now: Instant) -> Result<(), String> {
        let questions = Place::Track(TrackName::Questions);
        if !self.joined.contains_key(&questions) {
            return Err("Questions are not joined: choose them among the tracks.".into());
        }
        let asked = self.asking.ask(name, text, now);
        asked.map_err(|_| "This question cannot be sent.".into())
    }

    /// Leaves all, for good.
    pub fn end(&mut self, now: Instant) {
        self.is_over = true;
        let notes = self.joined.get_mut(&Place::Track(TrackName::Notes));
        if let (Some(joined), Some(notes)) = (notes, &mut self.notes) {
            notes.leave(&mut joined.log, self.unix_ms, now);
            // what waits for the disk is not sent any more
            while let Some(command) = notes.disk.poll_command() {
                self.commands.push_back(command);
            }
        }
        let groups = self
            .joined
            .values()
            .map(|joined| joined.log.space().group());
        self.commands.extend(groups.map(Command::Leave));
        self.joined.clear();
    }

    /// Counts up with each change of what is shown.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision + self.notes.as_ref().map_or(0, |notes| notes.revision)
    }

    /// Whether others may have entries of a track that are not here.
    pub(crate) fn lacks(&self, place: &Place) -> bool {
        let joined = self.joined.get(place);
        joined.is_some_and(|joined| lacks_entries(&joined.log))
    }

    pub(crate) fn received(&self, place: &Place) -> u64 {
        self.received.get(place).copied().unwrap_or_default()
    }

    /// Whether the owner of the notes has granted this page's key.
    pub(crate) fn may_write_notes(&self) -> bool {
        let joined = self.joined.get(&Place::Track(TrackName::Notes));
        let found = joined.zip(self.notes.as_ref());
        found.is_some_and(|(joined, notes)| may_write(&joined.log, notes.author(&joined.log)))
    }

    /// Whose entries those of this page's key are.
    pub(crate) fn notes_author(&self) -> Option<AuthorId> {
        let joined = self.joined.get(&Place::Track(TrackName::Notes))?;
        Some(self.notes.as_ref()?.author(&joined.log))
    }

    /// What counted for nothing, of all logs and of what was read of them.
    pub(crate) fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut drops = self.view.drops().by_name();
        let notes = self.notes.iter().flat_map(|notes| notes.drops().by_name());
        for (name, count) in notes {
            *drops.entry(name).or_default() += count;
        }
        for joined in self.joined.values() {
            for (name, count) in joined.log.drops().by_name() {
                *drops.entry(name).or_default() += count;
            }
        }
        drops
    }
}
