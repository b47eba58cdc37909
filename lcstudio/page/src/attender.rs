//! Attends in a page: joins the chosen tracks and reads their entries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use lcroute_web_page::{Command, Datagram};
use lcstudio_core::{
    Asking, Language, NotesUpdate, Place, Reading, Session, TrackName, TrackPlace, View,
    lacks_entries, sort_by_time,
};
use librecast::id::{PeerId, SecretKey, derive};
use librecast::time::{Duration, Instant, UnixTime};
use librecast_log::{AuthorId, Config, ENTRY_LOG_PORT, Log, Output, Role, Space};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::camera::{self, PageCamera};
use crate::following::follow;
use crate::notes::{Of, PageNotes, may_write};
use crate::screen::{self, PageScreen};

/// Longest time between two calls of [`PageAttender::handle_timeout`].
const LOOK: Duration = Duration::from_secs(1);

/// Settings with which a page begins. The seed comes apart from it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Text of the session, `lcs1...`.
    #[serde(deserialize_with = "wiped")]
    session: Zeroizing<String>,
    /// Languages that the reader prefers, the best first. Invalid tags are skipped.
    languages: Vec<String>,
    /// Tracks chosen earlier; `None`: slides, questions, captions, and pictures if `pictures`.
    tracks: Option<Vec<String>>,
    /// Whether pictures are joined without an earlier choice.
    pictures: bool,
    /// Whether the presenter's screen is joined without an earlier choice.
    #[serde(default)]
    screen: bool,
    /// Whether the presenter's camera is joined without an earlier choice.
    #[serde(default)]
    camera: bool,
    /// Whether the reader asks for the camera's large picture.
    #[serde(default)]
    large: bool,
    /// Whether the page is a leaf of its network, so that it sends requests only.
    #[serde(default)]
    leaf: bool,
}

fn wiped<'de, D: Deserializer<'de>>(text: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(text).map(Zeroizing::new)
}

librecast::debug_by_name!(Start);

/// A log, and the position up to which it was read.
#[derive(Debug)]
struct Joined {
    log: Log,
    reading: Reading,
    groups: Vec<Ipv6Addr>,
}

impl Joined {
    /// Joins the groups that the log has now, and leaves others.
    fn follow_groups(&mut self, commands: &mut VecDeque<Command>) {
        follow(
            &mut self.groups,
            self.log.joined_groups().collect(),
            commands,
        );
    }
}

/// Queues the packets of a log as commands.
fn send(log: &mut Log, commands: &mut VecDeque<Command>) {
    let live = log.space().group();
    let port = ENTRY_LOG_PORT;
    while let Some(output) = log.poll_output() {
        let (group, data) = match output {
            Output::Transmit(data) => (live, data),
            Output::TransmitTo(group, data) => (group, data),
            Output::Store(_) | Output::Event(_) => continue,
        };
        commands.push_back(Command::Send { group, port, data });
    }
}

/// Attends a session for a page.
#[derive(Debug)]
pub struct PageAttender {
    session: Session,
    languages: Vec<Language>,
    /// Chosen tracks; `None` until the index is complete, which names the tracks.
    chosen: Option<BTreeSet<TrackName>>,
    wants_pictures: bool,
    wants_screen: bool,
    wants_camera: bool,
    wants_large: bool,
    role: Role,
    pub(crate) view: View,
    joined: BTreeMap<Place, Joined>,
    /// The presenter's screen, if it is chosen.
    pub(crate) screen: Option<PageScreen>,
    /// The presenter's camera, if it is chosen.
    pub(crate) camera: Option<PageCamera>,
    /// Bytes received for each track, without headers.
    received: BTreeMap<Place, u64>,
    pub(crate) asking: Asking,
    /// The last question that the presenter did not get, until the reader asks again.
    pub(crate) lost: Option<String>,
    /// `None` before the page has passed its stored records.
    pub(crate) notes: Option<PageNotes>,
    revision: u64,
    /// The page's clock at the last timeout.
    time: UnixTime,
    seed: Zeroizing<[u8; 32]>,
    /// Logs created so far: each has randomness of its own.
    logs: u64,
    is_over: bool,
    commands: VecDeque<Command>,
}

impl PageAttender {
    /// Joins the index. `seed`: secret randomness, new each time.
    ///
    /// # Errors
    /// The text is not a session. The message is for the user.
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
            wants_screen: start.screen,
            wants_camera: start.camera,
            wants_large: start.large,
            role: match start.leaf {
                true => Role::Reader,
                false => Role::Member,
            },
            view: View::default(),
            joined: BTreeMap::new(),
            screen: None,
            camera: None,
            received: BTreeMap::new(),
            asking: Asking::default(),
            lost: None,
            notes: None,
            revision: 0,
            time: UnixTime::from_millis(0),
            seed: Zeroizing::new(seed),
            logs: 0,
            is_over: false,
            commands: VecDeque::new(),
        };
        attender.follow_tracks(now);
        Ok(attender)
    }

    /// Returns the session's group, which is not secret.
    pub(crate) fn name(&self) -> String {
        self.session.index().group().to_string()
    }

    /// Chooses tracks without a user's choice: slides, questions, captions in the reader's
    /// language, and pictures, screen and camera, which the index may name later.
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
        let screen = self.wants_screen.then_some(TrackName::Screen);
        let camera = self.wants_camera.then_some(TrackName::Camera);
        let chosen = first.chain(pictures).chain(screen).chain(camera);
        self.chosen = Some(chosen.chain(captions.map(TrackName::Captions)).collect());
    }

    /// Chooses a track, or drops it. At most one track of sound is chosen.
    ///
    /// # Errors
    /// The name is not a track.
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

    /// Returns whether a track is chosen; the turn goes with slides.
    pub(crate) fn has_chosen(&self, name: &TrackName) -> bool {
        let by = match name {
            TrackName::Turn => &TrackName::Slides,
            name => name,
        };
        self.chosen.as_ref().is_some_and(|all| all.contains(by))
    }

    /// Returns the logs to be joined now.
    fn wanted(&self) -> BTreeMap<Place, Space> {
        let index = (Place::Index, self.session.index());
        let tracks = self.view.index().tracks.iter();
        let tracks = tracks.filter_map(|(name, place)| match place {
            TrackPlace::Space(owner) if name.has_entries() && self.has_chosen(name) => {
                Some((Place::Track(name.clone()), self.session.space(*owner)))
            }
            // the radio of the page plays it
            _ => None,
        });
        std::iter::once(index).chain(tracks).collect()
    }

    /// Joins wanted logs, and leaves others.
    fn follow_tracks(&mut self, now: Instant) {
        if self.is_over {
            return;
        }
        self.choose_first();
        self.follow_screen(now);
        self.follow_camera(now);
        let (time, wanted) = (self.time, self.wanted());
        let is_wanted = |place: &Place, joined: &Joined| {
            let space = wanted.get(place);
            space.is_some_and(|space| space.owner() == joined.log.space().owner())
        };
        for (place, mut left) in self
            .joined
            .extract_if(.., |place, joined| !is_wanted(place, joined))
        {
            let groups = left.groups.iter().copied();
            self.commands.extend(groups.map(Command::Leave));
            if let Place::Track(name) = place {
                if let (TrackName::Notes, Some(notes)) = (&name, &mut self.notes) {
                    notes.leave(&mut left.log, time, now);
                }
                self.view.forget(&name);
            }
            self.revision += 1;
        }
        for (place, space) in wanted {
            if self.joined.contains_key(&place) {
                continue;
            }
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
            log.set_role(self.role, now);
            let mut joined = Joined {
                log,
                reading: Reading::default(),
                groups: Vec::new(),
            };
            joined.follow_groups(&mut self.commands);
            self.joined.insert(place, joined);
            self.revision += 1;
        }
    }

    /// Returns the owner of a track without entries, if it is chosen.
    fn chosen_owner(&self, name: &TrackName) -> Option<PeerId> {
        match self.view.index().place(name) {
            Some(TrackPlace::Space(owner)) if self.has_chosen(name) => Some(*owner),
            _ => None,
        }
    }

    /// Joins the screen that the index names, if it is chosen, and leaves any other one.
    fn follow_screen(&mut self, now: Instant) {
        let owner = self.chosen_owner(&TrackName::Screen);
        if self.screen.as_ref().map(|screen| screen.owner) != owner {
            if let Some(screen) = &mut self.screen {
                screen.following.leave(&mut self.commands);
            }
            let session = &self.session;
            self.screen = owner.map(|owner| PageScreen::new(owner, &session.space(owner), now));
            self.revision += 1;
        }
        if let Some(screen) = &mut self.screen {
            let before = screen.state();
            screen.follow(&mut self.commands, now);
            self.revision += u64::from(screen.state() != before);
        }
    }

    /// Joins the camera that the index names, if it is chosen, and leaves any other one.
    fn follow_camera(&mut self, now: Instant) {
        let owner = self.chosen_owner(&TrackName::Camera);
        if self.camera.as_ref().map(|camera| camera.owner) != owner {
            if let Some(camera) = &mut self.camera {
                camera.following.leave(&mut self.commands);
            }
            let (session, large) = (&self.session, self.wants_large);
            let begin = |owner| PageCamera::new(owner, &session.space(owner), large, now);
            self.camera = owner.map(begin);
            self.revision += 1;
        }
        if let Some(camera) = &mut self.camera {
            let before = (camera.state(), camera.size());
            camera.follow(&mut self.commands, now);
            self.revision += u64::from((camera.state(), camera.size()) != before);
        }
    }

    /// Lets the screen stand still, without traffic, or go on.
    pub fn pause_screen(&mut self, is_paused: bool, now: Instant) {
        if let Some(screen) = &mut self.screen {
            screen.following.pause(is_paused, now);
            self.revision += 1;
        }
        self.follow_screen(now);
    }

    /// Returns the next change of the screen in the page's form; nothing if there is none.
    pub fn poll_screen(&mut self) -> Vec<u8> {
        let change = self.screen.as_mut().and_then(PageScreen::poll_change);
        change.map_or_else(Vec::new, |change| screen::to_bytes(&change))
    }

    /// Lets the camera stand still, without traffic, or go on.
    pub fn pause_camera(&mut self, is_paused: bool, now: Instant) {
        if let Some(camera) = &mut self.camera {
            camera.following.pause(is_paused, now);
            self.revision += 1;
        }
        self.follow_camera(now);
    }

    /// Chooses the camera's large picture, or the small one.
    pub fn want_large(&mut self, wants_large: bool, now: Instant) {
        self.wants_large = wants_large;
        if let Some(camera) = &mut self.camera {
            camera.want_large(wants_large, now);
        }
        self.follow_camera(now);
    }

    /// Tries a layer of the camera again that was left.
    pub fn try_camera_again(&mut self, now: Instant) {
        if let Some(camera) = &mut self.camera {
            camera.try_again(now);
        }
        self.follow_camera(now);
    }

    /// Notes how many frames of the camera wait for the decoder. `has_lost`: it needs a key frame.
    pub fn camera_waiting(&mut self, frames: usize, has_lost: bool, now: Instant) {
        if let Some(camera) = &mut self.camera {
            camera.waiting(frames, has_lost, now);
        }
    }

    /// Returns the next frame of the camera in the page's form; nothing if there is none.
    pub fn poll_camera(&mut self) -> Vec<u8> {
        let frame = self.camera.as_mut().and_then(PageCamera::poll_frame);
        frame.map_or_else(Vec::new, |frame| camera::to_bytes(&frame))
    }

    /// Handles a datagram to a joined group. A datagram of no track is ignored.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, time: UnixTime) {
        if datagram.port != ENTRY_LOG_PORT {
            return;
        }
        let (group, source, data) = (datagram.group, datagram.source, datagram.data);
        let bytes = data.len() as u64;
        if let Some(screen) = &mut self.screen
            && screen.following.has_joined(group)
        {
            let place = Place::Track(TrackName::Screen);
            *self.received.entry(place).or_default() += bytes;
            self.revision += u64::from(screen.handle_datagram(source, data, now));
            return;
        }
        if let Some(camera) = &mut self.camera
            && camera.following.has_joined(group)
        {
            let place = Place::Track(TrackName::Camera);
            *self.received.entry(place).or_default() += bytes;
            self.revision += u64::from(camera.handle_datagram(group, source, data, now));
            return;
        }
        let mut joined = self.joined.iter_mut();
        let found = joined.find(|(_, joined)| joined.groups.contains(&group));
        let Some((place, joined)) = found else { return };
        *self.received.entry(place.clone()).or_default() += bytes;
        let source = source.into();
        joined.log.handle_datagram(group, source, data, time, now);
    }

    /// Does the due work, and reads new entries.
    pub fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        self.time = time;
        let questions = Place::Track(TrackName::Questions);
        while let Some(lost) = self.asking.poll_lost(now) {
            self.lost = Some(lost);
            self.revision += 1;
        }
        while let Some(body) = self.asking.poll_request(now) {
            if let Some(joined) = self.joined.get_mut(&questions) {
                // `ask` has checked the length
                let _ = joined.log.request(&body);
            }
        }
        let mut entries = Vec::new();
        for (place, joined) in &mut self.joined {
            if joined.log.next_timeout() <= now {
                joined.log.handle_timeout(time, now);
            }
            joined.follow_groups(&mut self.commands);
            let Joined { log, reading, .. } = joined;
            let of = match place {
                Place::Index => Some(Of::Index),
                Place::Track(TrackName::Notes) => Some(Of::Notes),
                Place::Track(_) => None,
            };
            match (of, self.notes.as_mut().filter(|notes| notes.is_open)) {
                (Some(of), Some(notes)) => {
                    if of == Of::Notes {
                        notes.append(log, time, now);
                        notes.handle_presence(log, time, now);
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
        self.revision += u64::from(self.asking.acknowledge(|id| self.view.has_received(id)));
        self.follow_tracks(now);
    }

    /// Returns the time of the next call of [`handle_timeout`](Self::handle_timeout).
    pub fn next_timeout(&self, now: Instant) -> Instant {
        let logs = self.joined.values().map(|joined| joined.log.next_timeout());
        let notes = self.notes.as_ref().and_then(PageNotes::next_timeout);
        let screen = self.screen.as_ref().and_then(PageScreen::next_timeout);
        let first = logs.chain(self.asking.next_timeout()).chain(notes);
        let camera = self.camera.as_ref().and_then(PageCamera::next_timeout);
        let first = first.chain(screen).chain(camera).min();
        first.unwrap_or(now + LOOK).min(now + LOOK)
    }

    /// Returns the next command for the page.
    pub fn poll_command(&mut self) -> Option<Command> {
        let notes = self.notes.as_mut();
        let command = self.commands.pop_front();
        command.or_else(|| notes?.disk.poll_command())
    }

    /// Restores records of an earlier visit (kind and bytes), before anything else is joined. `key`
    /// writes notes.
    pub fn restore(&mut self, key: &[u8; 32], records: &[(u8, &[u8])], now: Instant) {
        if let Some(index) = self.joined.get_mut(&Place::Index) {
            let key = SecretKey::from_seed(key);
            self.notes = Some(PageNotes::new(key, &mut index.log, records, now));
        }
    }

    /// Opens the notes: from now on the page stores their records before it sends packets.
    ///
    /// # Errors
    /// None is known.
    pub fn open_notes(&mut self, now: Instant) -> Result<(), String> {
        let index = self.joined.get(&Place::Index);
        if let (Some(notes), Some(index)) = (&mut self.notes, index) {
            notes.open(&index.log);
        }
        self.choose("notes", true, now)
    }

    /// Returns the next change of the notes.
    pub fn poll_update(&mut self) -> Option<NotesUpdate> {
        self.notes.as_mut()?.poll_update()
    }

    /// Returns records for the disk, with the number that the page returns once they are stored.
    pub fn take_records(&mut self) -> Vec<u8> {
        let notes = self.notes.as_mut();
        notes
            .map(|notes| notes.disk.take_records())
            .unwrap_or_default()
    }

    /// Handles the report that all records up to this number are on disk.
    pub fn kept(&mut self, turn: u32) {
        if let Some(notes) = &mut self.notes {
            notes.disk.kept(turn);
        }
    }

    /// Takes a draft that is on disk; it replaces a draft of the same number without an entry.
    ///
    /// # Errors
    /// It is too long.
    pub fn write(&mut self, id: u32, body: &[u8]) -> Result<(), String> {
        let notes = self.notes.as_mut();
        notes.map_or(Ok(()), |notes| notes.write(id, body.to_vec()))
    }

    /// Shows the reader to other writers under this name, if any; `watches`: and them to him.
    pub fn choose_presence(&mut self, name: Option<&str>, watches: bool, now: Instant) {
        if let Some(notes) = &mut self.notes {
            notes.choose_presence(name, watches, now);
            let joined = self.joined.get_mut(&Place::Track(TrackName::Notes));
            if let Some(joined) = joined {
                joined.log.watch_presence(notes.is_watching());
            }
        }
    }

    /// Moves the reader's cursor in the notes, as their document encodes it.
    pub fn move_to(&mut self, cursor: &[u8], writes: bool, now: Instant) {
        if let Some(notes) = &mut self.notes {
            notes.move_to(cursor, writes, now);
        }
    }

    /// Sets whether other nodes are present: otherwise drafts wait.
    pub fn connect(&mut self, is_connected: bool) {
        if let Some(notes) = &mut self.notes {
            notes.connect(is_connected);
        }
    }

    /// Sends a question to the presenter. All attenders receive it once it is taken up.
    ///
    /// # Errors
    /// The question cannot be sent. The message is for the user.
    pub fn ask(&mut self, name: &str, text: &str, now: Instant) -> Result<(), String> {
        let questions = Place::Track(TrackName::Questions);
        if !self.joined.contains_key(&questions) {
            return Err("Questions are not joined: choose them among the tracks.".into());
        }
        self.asking
            .ask(name, text, now)
            .map_err(|e| e.to_string())?;
        self.lost = None;
        self.revision += 1;
        Ok(())
    }

    /// Leaves all groups for good.
    pub fn end(&mut self, now: Instant) {
        self.is_over = true;
        let notes = self.joined.get_mut(&Place::Track(TrackName::Notes));
        if let (Some(joined), Some(notes)) = (notes, &mut self.notes) {
            notes.leave(&mut joined.log, self.time, now);
            // commands that wait for the disk follow now; the rest is not sent
            while let Some(command) = notes.disk.poll_command() {
                self.commands.push_back(command);
            }
        }
        let groups = self.joined.values().flat_map(|joined| &joined.groups);
        self.commands.extend(groups.copied().map(Command::Leave));
        self.joined.clear();
        if let Some(mut screen) = self.screen.take() {
            screen.following.leave(&mut self.commands);
        }
        if let Some(mut camera) = self.camera.take() {
            camera.following.leave(&mut self.commands);
        }
    }

    /// Returns a counter of changes to the view.
    pub fn revision(&self) -> u64 {
        self.revision + self.notes.as_ref().map_or(0, |notes| notes.revision)
    }

    /// Returns whether other members may have entries of a track that this page lacks.
    pub(crate) fn lacks(&self, place: &Place) -> bool {
        let joined = self.joined.get(place);
        joined.is_some_and(|joined| lacks_entries(&joined.log))
    }

    pub(crate) fn received(&self, place: &Place) -> u64 {
        self.received.get(place).copied().unwrap_or_default()
    }

    /// Returns whether the owner of the notes has granted this page's key.
    pub(crate) fn may_write_notes(&self) -> bool {
        let joined = self.joined.get(&Place::Track(TrackName::Notes));
        let found = joined.zip(self.notes.as_ref());
        found.is_some_and(|(joined, notes)| may_write(&joined.log, notes.author(&joined.log)))
    }

    /// Returns the author id of this page's key in the notes.
    pub(crate) fn notes_author(&self) -> Option<AuthorId> {
        let joined = self.joined.get(&Place::Track(TrackName::Notes))?;
        Some(self.notes.as_ref()?.author(&joined.log))
    }

    /// Returns the drops of all logs and of their readers.
    pub(crate) fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut drops = self.view.drops().by_name();
        let notes = self.notes.iter().flat_map(|notes| notes.drops().by_name());
        let screen = self.screen.iter();
        let screen = screen.flat_map(|screen| screen.drops().by_name());
        let camera = self.camera.iter();
        let camera = camera.flat_map(|camera| camera.drops().by_name());
        for (name, count) in notes.chain(screen).chain(camera) {
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
