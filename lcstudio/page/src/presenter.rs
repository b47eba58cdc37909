//! Presents in a page: logs of all tracks, the records that the page stores, and its view.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;

use lcroute_web_page::{Command, Datagram};
use lcstudio_core::{
    CameraSize, Language, Layer, Logs, Picture, Place, PresentError, Presenting, Reading,
    SessionKey, Settings, Slide, TrackName, clean_line, sort_by_time, split, title, to_text,
};
use librecast::id::{PeerId, SecretKey, derive};
use librecast::time::{Duration, Instant, UnixTime};
use librecast_log::{
    AppendError, AuthorId, Config, ENTRY_LOG_PORT, Log, Output, Role, Space, Stored,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::disk::{Disk, restore};
use crate::filming::Filming;
use crate::showing::Showing;
use crate::shown::{Pictures, captions, html_and_pictures, json, pictures};

/// Longest time between two calls of [`PagePresenter::handle_timeout`].
const LOOK: Duration = Duration::from_secs(1);

/// Kind of all records that this page stores.
const RECORD: u8 = 1;

/// Longest text of slides, in bytes: 500 slides of 64 KiB, as on hosts.
const MAX_SLIDES_TEXT: usize = 32 << 20;

/// Settings with which a page begins. The key comes apart from it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Title of the session.
    title: String,
    /// Name of the presenter.
    presenter: String,
    /// Languages of captions, with commas or spaces between.
    languages: String,
    /// Caption writers, each a line of language and public key. `None` leaves the grants.
    captions: Option<String>,
    /// Whether all attenders write notes.
    notes: bool,
    /// Slides, with `---` between them.
    slides: String,
}

/// Parses languages.
///
/// # Errors
/// A word is not a language.
fn languages(text: &str) -> Result<Vec<Language>, String> {
    let mut all = Vec::new();
    for tag in text.split([',', ' ', ';', '\n', '\t']) {
        if tag.is_empty() {
            continue;
        }
        let language = tag.parse::<Language>();
        let language = language.map_err(|e| format!("{}: {e}", clean_line(tag)))?;
        if !all.contains(&language) {
            all.push(language);
        }
    }
    Ok(all)
}

/// Parses caption writers: a language, a public key, and a remark on each line.
///
/// # Errors
/// A line lacks a language or key.
fn caption_writers(text: &str) -> Result<Vec<(Language, PeerId)>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let language = words.next().and_then(|tag| tag.parse().ok());
            let key = words.next().and_then(|key| key.parse().ok());
            language.zip(key).ok_or_else(|| {
                format!("{}: a line is a language and the public key of who writes captions, such as: en 12D3KooW…", clean_line(line))
            })
        })
        .collect()
}

/// Splits a text into slides.
///
/// # Errors
/// The text is longer than [`MAX_SLIDES_TEXT`].
fn slides(text: &str) -> Result<Vec<Slide>, String> {
    match text.len() > MAX_SLIDES_TEXT {
        true => Err(format!("{} bytes are no slides", text.len())),
        false => Ok(split(text)),
    }
}

/// A log, and the position up to which it was read.
#[derive(Debug)]
struct Joined {
    log: Log,
    reading: Reading,
    groups: Vec<Ipv6Addr>,
}

#[derive(Debug, Default)]
struct Tracks {
    joined: BTreeMap<Place, Joined>,
    /// Whether the browser's store has not yet stored all records.
    is_behind: bool,
}

impl Logs for Tracks {
    fn log(&self, place: &Place) -> Option<&Log> {
        self.joined.get(place).map(|joined| &joined.log)
    }

    fn append(
        &mut self,
        place: &Place,
        author: AuthorId,
        (kind, body): (u8, &[u8]),
        time: UnixTime,
        now: Instant,
    ) -> Result<u32, AppendError> {
        let joined = self.joined.get_mut(place);
        let joined = joined.ok_or(AppendError::NotOurs(author))?;
        joined.log.append(author, kind, body, time, now)
    }

    fn is_behind(&self) -> bool {
        self.is_behind
    }
}

/// Presents a session for a page.
pub struct PagePresenter {
    presenting: Presenting,
    /// Randomness for logs and the stored records, until another node is present.
    start: Option<(Zeroizing<[u8; 32]>, Vec<Stored>)>,
    tracks: Tracks,
    disk: Disk,
    /// The presenter's screen, while it is on air.
    screen: Option<Showing>,
    /// The presenter's camera, while it is on air.
    camera: Option<Filming>,
    commands: VecDeque<Command>,
    /// Reason for which the presentation ended.
    failed: Option<String>,
    revision: u64,
}

librecast::debug_by_name!(PagePresenter);

impl PagePresenter {
    /// Joins nothing before [`connect`](Self::connect). `seed`: secret randomness, new each time;
    /// `key`: content of a key file; `records`: the page's records of this session.
    ///
    /// # Errors
    /// A setting is wrong. The message is for the user.
    pub fn new(
        start: &Start,
        seed: &[u8; 32],
        key: &[u8; 32],
        records: &[&[u8]],
        now: Instant,
    ) -> Result<Self, String> {
        let mut languages = languages(&start.languages)?;
        let captions = start.captions.as_deref().map(caption_writers).transpose()?;
        for (language, _) in captions.iter().flatten() {
            if !languages.contains(language) {
                languages.push(language.clone());
            }
        }
        let settings = Settings {
            title: clean_line(&start.title),
            presenter: clean_line(&start.presenter),
            languages,
            stations: Vec::new(),
            captions,
            notes: start.notes,
            screen: false,
            camera: false,
        };
        let key = SessionKey::from_seed(key);
        let presenting = Presenting::new(key, settings, slides(&start.slides)?, now);
        let presenting = presenting.map_err(|e| e.to_string())?;
        // a disk may be damaged: undecodable records are skipped
        let stored = records
            .iter()
            .filter_map(|bytes| Stored::decode(bytes).ok());
        Ok(Self {
            presenting,
            start: Some((Zeroizing::new(*seed), stored.collect())),
            tracks: Tracks::default(),
            disk: Disk::default(),
            screen: None,
            camera: None,
            commands: VecDeque::new(),
            failed: None,
            revision: 0,
        })
    }

    /// Joins all tracks once another node is present, and requests entries of earlier runs.
    pub fn connect(&mut self, now: Instant) {
        let Some((seed, stored)) = self.start.take() else {
            return;
        };
        let session = self.presenting.session();
        for (at, (place, owner)) in self.presenting.places().into_iter().enumerate() {
            let space = session.space(owner.peer_id());
            let seed = Zeroizing::new(derive(
                "lcroute 2026 log of a presenter in a page",
                &[&seed[..], &at.to_be_bytes()],
            ));
            let config = Config {
                space,
                keys: vec![owner],
                seed: *seed,
            };
            let mut log = Log::new(config, now);
            // the log skips records of unknown signers
            restore(&mut log, stored.clone(), now);
            log.set_role(Role::Holder, now);
            if matches!(place, Place::Track(TrackName::Captions(_))) {
                log.take_from_readers();
            }
            let joined = Joined {
                groups: log.joined_groups().collect(),
                log,
                reading: Reading::default(),
            };
            let groups = joined.groups.iter().copied();
            self.commands.extend(groups.map(Command::Join));
            self.tracks.joined.insert(place, joined);
        }
        self.read();
    }

    /// Handles a datagram to a joined group. A datagram of no track is ignored.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant, time: UnixTime) {
        let (group, source) = (datagram.group, datagram.source.into());
        let mut joined = self.tracks.joined.values_mut();
        let found = joined.find(|joined| joined.groups.contains(&group));
        if let Some(joined) = found.filter(|_| datagram.port == ENTRY_LOG_PORT) {
            let log = &mut joined.log;
            log.handle_datagram(group, source, datagram.data, time, now);
        }
    }

    /// Does the due work, and reads new entries.
    pub fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        if self.start.is_some() {
            return;
        }
        for joined in self.tracks.joined.values_mut() {
            if joined.log.next_timeout() <= now {
                joined.log.handle_timeout(time, now);
            }
        }
        self.handle_outputs();
        self.read();
        if self.failed.is_some() {
            return;
        }
        self.tracks.is_behind = self.disk.is_behind();
        let album = self.presenting.view().album().size();
        let before = (self.presenting.waiting(), self.presenting.is_on());
        let progress = self.presenting.handle_timeout(&mut self.tracks, time, now);
        let is_same = before == (self.presenting.waiting(), self.presenting.is_on());
        let has_more = album != self.presenting.view().album().size();
        self.revision += u64::from(!is_same || has_more);
        if let Err(error) = progress {
            self.fail(&error);
        }
        self.handle_outputs();
        self.read();
        self.send_pictures(now);
    }

    /// Sends packets of screen and camera. They are not entries, so none waits for the disk.
    fn send_pictures(&mut self, now: Instant) {
        let port = ENTRY_LOG_PORT;
        let (screen, camera) = (&mut self.screen, &mut self.camera);
        let mut poll = || {
            let screen = screen.as_mut().and_then(|one| one.poll_transmit(now));
            screen.or_else(|| camera.as_mut()?.poll_transmit(now))
        };
        while let Some((group, data)) = poll() {
            self.commands.push_back(Command::Send { group, port, data });
        }
        let screen = self.screen.take_if(|screen| screen.has_ended());
        let camera = self.camera.take_if(|camera| camera.has_ended());
        self.revision += u64::from(screen.is_some() || camera.is_some());
    }

    /// Passes on outputs of the logs: packets, records, events.
    fn handle_outputs(&mut self) {
        let mut failed = None;
        for (place, joined) in &mut self.tracks.joined {
            let group = joined.log.space().group();
            while let Some(output) = joined.log.poll_output() {
                match output {
                    // a member that asks repeats its request
                    Output::Store(Stored::Request(_)) => {}
                    Output::Store(stored) => self.disk.store(RECORD, stored),
                    Output::Transmit(data) => {
                        let port = ENTRY_LOG_PORT;
                        self.disk.send(Command::Send { group, port, data });
                    }
                    Output::TransmitTo(group, data) => {
                        let port = ENTRY_LOG_PORT;
                        self.disk.send(Command::Send { group, port, data });
                    }
                    Output::Event(event) => {
                        let asked = self.presenting.handle_event(&joined.log, place, &event);
                        match asked {
                            Ok(asked) => self.revision += u64::from(asked.is_some()),
                            Err(error) => failed = Some(error),
                        }
                    }
                }
            }
        }
        if let Some(error) = failed {
            self.fail(&error);
        }
    }

    fn read(&mut self) {
        let mut entries = Vec::new();
        for (place, Joined { log, reading, .. }) in &mut self.tracks.joined {
            entries.extend(reading.new_entries(place, log));
        }
        sort_by_time(&mut entries);
        for new in entries {
            match self.presenting.read(&new) {
                Ok(change) => self.revision += u64::from(change.is_some()),
                Err(error) => return self.fail(&error),
            }
        }
    }

    fn fail(&mut self, error: &PresentError) {
        self.failed = Some(error.to_string());
        self.leave();
        self.revision += 1;
    }

    /// Leaves all groups for good; unsent packets are dropped.
    pub fn leave(&mut self) {
        let groups = self
            .tracks
            .joined
            .values()
            .flat_map(|joined| &joined.groups);
        self.commands.extend(groups.copied().map(Command::Leave));
        self.tracks.joined.clear();
        self.disk = Disk::default();
        (self.screen, self.camera) = (None, None);
    }

    /// Returns the time of the next call of [`handle_timeout`](Self::handle_timeout).
    pub fn next_timeout(&self, now: Instant) -> Instant {
        let logs = self
            .tracks
            .joined
            .values()
            .map(|joined| joined.log.next_timeout());
        let presenting = self.presenting.next_timeout();
        let presenting = presenting.filter(|_| self.failed.is_none() && self.start.is_none());
        let screen = self.screen.as_ref().map(Showing::next_timeout);
        let camera = self.camera.as_ref().map(Filming::next_timeout);
        let first = logs.chain(presenting).chain(screen).chain(camera).min();
        first.unwrap_or(now + LOOK).min(now + LOOK)
    }

    /// Returns the next command for the page.
    pub fn poll_command(&mut self) -> Option<Command> {
        let command = self.commands.pop_front();
        command.or_else(|| self.disk.poll_command())
    }

    /// Returns records for the disk, with the number that the page returns once they are stored.
    pub fn take_records(&mut self) -> Vec<u8> {
        self.disk.take_records()
    }

    /// Handles the report that all records up to this number are on disk.
    pub fn kept(&mut self, turn: u32) {
        self.disk.kept(turn);
    }

    // actions of the presenter

    /// Sets other slides.
    ///
    /// # Errors
    /// The slides cannot be shown.
    pub fn set_slides(&mut self, text: &str) -> Result<(), String> {
        let set = self.presenting.set_slides(slides(text)?);
        set.map_err(|e| e.to_string())
    }

    /// Adds a picture under its name in slides.
    ///
    /// # Errors
    /// The picture is not sent.
    pub fn add_picture(&mut self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let picture = Picture::new(bytes.to_vec()).map_err(|e| format!("{name}: {e}"))?;
        let added = self.presenting.add_picture(name.to_owned(), picture);
        added.map_err(|e| e.to_string())
    }

    /// Shows a slide, from 1.
    pub fn turn_to(&mut self, number: usize) {
        let moved = self.presenting.turn_to(number.saturating_sub(1));
        self.revision += u64::from(moved);
    }

    /// Sends a line of captions.
    ///
    /// # Errors
    /// The session has no captions in this language.
    pub fn caption(&mut self, language: &str, line: &str) -> Result<(), String> {
        let language = language.parse::<Language>().map_err(|e| e.to_string())?;
        let said = self.presenting.caption(&language, line);
        said.map_err(|e| e.to_string())
    }

    /// Takes up a question, from 1.
    ///
    /// # Errors
    /// No question has this number.
    pub fn take_up(&mut self, number: usize) -> Result<(), String> {
        let taken = self.presenting.take_up(number);
        taken.map_err(|e| e.to_string())
    }

    /// Returns the content of radio's key file for the sound of this language.
    ///
    /// # Errors
    /// The tag is not a language.
    pub fn station_key(&self, language: &str) -> Result<Zeroizing<[u8; 32]>, String> {
        let language = language.parse::<Language>().map_err(|e| e.to_string())?;
        Ok(self.presenting.station_seed(&language))
    }

    /// Names the station with the sound of a language.
    ///
    /// # Errors
    /// The tag is not a language, or the text no station.
    pub fn add_station(&mut self, language: &str, station: &str) -> Result<(), String> {
        let language = language.parse::<Language>().map_err(|e| e.to_string())?;
        let added = self.presenting.add_station(&language, station.to_owned());
        added.map_err(|e| e.to_string())
    }

    /// Puts the presenter's screen on air: the index names it, and looks are taken from now on.
    /// `seed`: secret randomness, new each time.
    ///
    /// # Errors
    /// The session is not on air.
    pub fn show_screen(
        &mut self,
        seed: &[u8; 32],
        time: UnixTime,
        now: Instant,
    ) -> Result<(), String> {
        let (space, key) = self.show(&TrackName::Screen)?;
        self.screen = Some(Showing::new(&space, key, *seed, time, now));
        Ok(())
    }

    /// Names a track of pictures in the index. Returns its space, and the key that owns it.
    fn show(&mut self, name: &TrackName) -> Result<(Space, SecretKey), String> {
        if !self.presenting.is_on() || self.presenting.view().index().has_ended {
            return Err("This lecture is not on air.".into());
        }
        let key = self.presenting.show(name).map_err(|e| e.to_string())?;
        self.revision += 1;
        Ok((self.presenting.session().space(key.peer_id()), key))
    }

    /// Describes screen or camera for attenders that do not see it. `text` may be empty.
    ///
    /// # Errors
    /// `name` is not a track.
    pub fn describe(&mut self, name: &str, text: &str) -> Result<(), String> {
        let name = name.parse::<TrackName>().map_err(|e| e.to_string())?;
        let described = self.presenting.describe(name, text);
        described.map_err(|e| e.to_string())
    }

    /// Puts the presenter's camera on air: the index names it, and frames are sent from now on.
    /// `seed`: secret randomness, new each time. `has_large`: the page encodes a large picture for
    /// those that join its group.
    ///
    /// # Errors
    /// The session is not on air.
    pub fn show_camera(
        &mut self,
        seed: &[u8; 32],
        has_large: bool,
        time: UnixTime,
        now: Instant,
    ) -> Result<(), String> {
        let (space, key) = self.show(&TrackName::Camera)?;
        self.camera = Some(Filming::new(&space, key, *seed, has_large, time, now));
        Ok(())
    }

    /// Sends a frame of the camera, of VP8. Returns whether it was sent: otherwise a key frame is
    /// to be next.
    ///
    /// # Errors
    /// It is not a frame, or too large.
    pub fn camera_frame(
        &mut self,
        is_large: bool,
        frame: &[u8],
        now: Instant,
    ) -> Result<bool, String> {
        let size = match is_large {
            true => CameraSize::Large,
            false => CameraSize::Small,
        };
        let sent = self.camera.as_mut();
        let sent = sent.map_or(Ok(true), |camera| camera.frame(size, frame, now));
        sent.map_err(|e| e.to_string())
    }

    /// There is no large picture of the camera any more.
    pub fn end_large(&mut self, now: Instant) {
        if let Some(camera) = &mut self.camera {
            camera.end_large(now);
        }
    }

    /// Takes the camera off air.
    pub fn end_camera(&mut self, now: Instant) {
        if let Some(camera) = &mut self.camera {
            camera.end(now);
            self.send_pictures(now);
        }
    }

    /// Whether the page is to look at the screen now.
    pub fn wants_look(&self, now: Instant) -> bool {
        let screen = self.screen.as_ref();
        screen.is_some_and(|screen| screen.wants_look(now))
    }

    /// Takes a look at the screen, of 4 bytes a pixel.
    ///
    /// # Errors
    /// The screen is too large.
    pub fn look(&mut self, size: (u32, u32), pixels: Vec<u8>, now: Instant) -> Result<(), String> {
        let screen = self.screen.as_mut();
        let looked = screen.map_or(Ok(()), |screen| screen.look(size, pixels, now));
        looked.map_err(|e| e.to_string())
    }

    /// Returns the wanted pictures of the last look: their quality in percent, then x, y, width and
    /// height of each (2, big-endian). Nothing if none is wanted.
    pub fn wanted_pictures(&self) -> Vec<u8> {
        let wanted = self.screen.as_ref().and_then(Showing::wanted);
        wanted.map_or_else(Vec::new, |(quality, areas)| {
            let numbers = areas.iter().flat_map(|a| [a.x, a.y, a.width, a.height]);
            let numbers = numbers.flat_map(u16::to_be_bytes);
            std::iter::once(quality).chain(numbers).collect()
        })
    }

    /// Sends the wanted pictures of the last look. If they are too long, they are wanted again, with
    /// another quality.
    ///
    /// # Errors
    /// One is not a picture of its area.
    pub fn screen_pictures(&mut self, files: Vec<Vec<u8>>, now: Instant) -> Result<(), String> {
        self.revision += 1;
        let screen = self.screen.as_mut();
        let sent = screen.map_or(Ok(()), |screen| screen.pictures(files, now));
        sent.map_err(|e| e.to_string())
    }

    /// Takes the screen off air.
    pub fn end_screen(&mut self, now: Instant) {
        if let Some(screen) = &mut self.screen {
            screen.end(now);
            self.send_pictures(now);
        }
    }

    /// Ends the session for all attenders.
    ///
    /// # Errors
    /// None is known.
    pub fn end(&mut self) -> Result<(), String> {
        self.presenting.end().map_err(|e| e.to_string())
    }

    /// Resumes a session that has ended.
    pub fn resume(&mut self) {
        self.presenting.resume();
    }

    // view of the page

    /// Returns a counter of changes to the view.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the status as JSON.
    pub fn status(&self) -> String {
        let presenting = &self.presenting;
        let has_ended = presenting.view().index().has_ended;
        let taken = presenting.view().questions();
        let languages = presenting.settings().languages.iter();
        json(&Status {
            state: match (&self.failed, presenting.is_on(), has_ended) {
                (Some(_), ..) => "failed",
                (None, false, _) => "starting",
                (None, true, false) => "live",
                (None, true, true) => "ended",
            },
            failed: self.failed.as_deref(),
            shown: presenting.current() + 1,
            titles: presenting
                .slides()
                .iter()
                .map(|slide| title(&slide.text))
                .collect(),
            waiting: presenting.waiting(),
            pictures: pictures(presenting.view().album()),
            left_out: presenting.left_out_pictures(),
            languages: languages.map(Language::tag).collect(),
            questions: presenting
                .questions()
                .map(|(number, question)| Asked {
                    number,
                    name: &question.name,
                    text: &question.text,
                    taken: taken.contains(question),
                })
                .collect(),
            screen: self.screen.as_ref().map(|screen| {
                let ((changes, bytes), size) = (screen.sent(), screen.size());
                Screen {
                    group: screen.group().to_string(),
                    size,
                    changes,
                    bytes,
                    exact: screen.is_exact(),
                    too_long: screen.is_too_long(),
                }
            }),
            camera: self.camera.as_ref().map(|camera| {
                let group = |layer| camera.group(layer).to_string();
                Camera {
                    group: group(Layer::Base),
                    large: group(Layer::Large),
                }
            }),
            drops: self.drops(),
        })
    }

    fn drops(&self) -> BTreeMap<&'static str, u64> {
        let mut drops = self.presenting.view().drops().by_name();
        for joined in self.tracks.joined.values() {
            for (name, count) in joined.log.drops().by_name() {
                *drops.entry(name).or_default() += count;
            }
        }
        drops
    }

    /// Returns the slide with this number, from 1, as JSON; null if there is none.
    pub fn slide(&self, number: usize) -> String {
        json(&shown(self.presenting.slides(), number))
    }

    /// Returns the last `most` lines of captions as JSON.
    pub fn captions(&self, most: usize) -> String {
        captions(self.presenting.view(), most)
    }
}

#[derive(Debug, Serialize)]
struct Status<'a> {
    /// `starting`, `live`, `ended` or `failed`.
    state: &'static str,
    /// Reason for which the presentation ended.
    failed: Option<&'a str>,
    /// Number of the shown slide, from 1.
    shown: usize,
    /// Titles of slides.
    titles: Vec<String>,
    /// Number of entries that are not sent yet.
    waiting: usize,
    /// Sent part of the pictures.
    pictures: Pictures,
    /// Names of pictures for which the session has no room.
    left_out: Vec<&'a str>,
    languages: Vec<&'a str>,
    questions: Vec<Asked<'a>>,
    /// The screen that is on air.
    screen: Option<Screen>,
    /// The camera that is on air.
    camera: Option<Camera>,
    drops: BTreeMap<&'static str, u64>,
}

/// A screen that is on air.
#[derive(Debug, Serialize)]
struct Screen {
    /// Listeners of this group see it.
    group: String,
    /// Width and height, once something was sent.
    size: Option<(u16, u16)>,
    /// Sent changes, and bytes of their pictures.
    changes: u64,
    bytes: u64,
    /// Whether all of it lost nothing.
    exact: bool,
    /// Whether the last picture was too long to be sent.
    too_long: bool,
}

/// A camera that is on air.
#[derive(Debug, Serialize)]
struct Camera {
    /// Listeners of these groups see it: the small picture, and the large one.
    group: String,
    large: String,
}

#[derive(Debug, Serialize)]
struct Asked<'a> {
    /// From 1.
    number: usize,
    name: &'a str,
    text: &'a str,
    /// Whether all attenders receive it.
    taken: bool,
}

/// A slide, as all attenders have it.
#[derive(Debug, Serialize)]
struct Shown {
    number: usize,
    title: String,
    html: String,
    /// Names of its pictures, in the order in which the HTML has them.
    pictures: Vec<String>,
    text: String,
    /// Comments for the presenter only.
    notes: String,
}

fn shown(slides: &[Slide], number: usize) -> Option<Shown> {
    let slide = slides.get(number.checked_sub(1)?)?;
    let (html, pictures) = html_and_pictures(&slide.text);
    Some(Shown {
        number,
        title: title(&slide.text),
        html,
        pictures,
        text: to_text(&slide.text),
        notes: slide.notes.clone(),
    })
}

/// View of slides that a user edits, and their problems for attenders.
#[derive(Debug, Serialize)]
struct Preview {
    slides: usize,
    /// Lines, from 1, with their problem.
    problems: Vec<(usize, String)>,
    /// The slide of the cursor's line.
    shown: Option<Shown>,
    /// Reason for which the slides cannot be shown.
    refused: Option<String>,
    /// Pictures of all slides, with the line of the first slide that names them.
    pictures: Vec<(usize, String)>,
}

/// Returns a preview of slides as JSON, with the cursor in this line, from 1.
#[must_use]
pub fn preview(text: &str, line: usize) -> String {
    let (all, refused) = match slides(text) {
        Ok(all) => (all, None),
        Err(why) => (Vec::new(), Some(why)),
    };
    let refused = refused.or_else(|| Presenting::check(&all).err().map(|e| e.to_string()));
    let number = all.iter().take_while(|slide| slide.line <= line).count();
    let problems = all.iter().flat_map(|slide| &slide.problems);
    json(&Preview {
        slides: all.len(),
        problems: problems
            .map(|(line, problem)| (*line, problem.to_string()))
            .collect(),
        shown: shown(&all, number.max(1)),
        refused,
        pictures: names_of_pictures(&all),
    })
}

/// Returns each name once, with the line of its first slide.
fn names_of_pictures(slides: &[Slide]) -> Vec<(usize, String)> {
    let mut seen = BTreeSet::new();
    let all = slides.iter().flat_map(|slide| {
        let names = lcstudio_core::pictures(&slide.text).into_iter();
        names.map(|name| (slide.line, name))
    });
    all.filter(|(_, name)| seen.insert(name.clone())).collect()
}

/// Returns the fault of these bytes as a picture; `None` if they can be sent.
#[must_use]
pub fn picture_problem(bytes: &[u8]) -> Option<String> {
    Picture::new(bytes.to_vec()).err().map(|e| e.to_string())
}

/// Returns the session's text for attenders, and its group, which is not secret.
#[must_use]
pub fn session_of(key: &[u8; 32]) -> Zeroizing<String> {
    let session = SessionKey::from_seed(key).session();
    let name = session.index().group();
    Zeroizing::new(format!("{} {name}", *session.encode()))
}
