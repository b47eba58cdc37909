//! `lcstudio present`: sends a folder to attenders; typed commands turn the slides.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcstudio_core::{Change, Logs as _, Place, Presenting, Progress, Settings, Slide, to_text};
use librecast::code::beacon::Offer;
use librecast::outside::Place as Meeting;
use librecast::plain::escape;
use librecast::time::UnixTime;
use librecast_log::{Event, Role};
use librecast_program::cli::{Common, Exit};
use librecast_program::code::{INTERFACE, Offering};
use librecast_program::process::Wake;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::folder::{Folder, Stamp, Stamps, no_room};
use crate::input::{Input, Read};
use crate::said::hint;
use crate::said::said;
use crate::tracks::Tracks;
use crate::{keys, outside};

/// Time between two looks at the slides on disk.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Time without changes after which a file with fewer slides is sent, as editors write in pieces.
const SETTLE: Duration = Duration::from_secs(3);
/// The same for less than half of the slides. Chosen: intended removals wait, too.
const SETTLE_MOST: Duration = Duration::from_secs(30);
/// Time at the end in which the last entries are repeated (librecast-log: after 0.25 and 1 s).
const LAST_WORDS: Duration = Duration::from_millis(1_300);
/// Entries in the queue at which input waits. Chosen: some seconds of them.
const MAX_QUEUE: usize = 256;

const COMMANDS: &str = "Enter: next slide; b: back; a number: that slide; a NUMBER: take up that question; \
                        c TEXT: a caption; c ^ TEXT: corrects it; h: this help; q: the end";

/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The session's key
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Present under four words, which it prints, in a network that they make: no root, no daemon
    #[arg(long)]
    pub code: bool,
    /// In a network of the session's own: whoever has the text that it prints attends, without network, root or daemon
    #[arg(long, conflicts_with_all = ["code", "interfaces"])]
    pub outside: bool,
    /// Where attenders find it, with --outside: HOST, HOST:PORT or a URL of a signalling server; may be repeated
    /// [default: LCROUTE_SIGNAL, or [outside] meet of the configuration]
    #[arg(long, value_name = "PLACE", requires = "outside")]
    pub at: Vec<Meeting>,
}

struct Presenter<'a> {
    options: &'a Options,
    common: &'a Common,
    /// Where the session's own network meets, if it has one.
    place: Option<String>,
    folder: Folder,
    tracks: Tracks,
    presenting: Presenting,
    /// Slides as last read.
    slides: Vec<Slide>,
    /// Stamps of the files as sent, and at the last look.
    sent: Stamps,
    seen: Stamps,
    look_at: Instant,
    /// Stamp of a file with fewer slides, and the time from which it is unchanged.
    incomplete: Option<(Stamp, Instant)>,
    /// Pictures that were reported as without room.
    left_out: Vec<String>,
}

/// Presents until the user ends it.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let offering = options.code.then(Offering::begin).transpose()?;
    let key = keys::load(&options.key)?;
    let places = options.outside.then(|| options.at.clone());
    let on_air = places.map(|places| outside::present(&key, places));
    let on_air = on_air.transpose()?;
    librecast_program::process::confine()?;
    let wake = Wake::on_interrupt()?;
    let place = on_air.as_ref().map(|on_air| on_air.place.clone());
    if let Some(on_air) = on_air {
        let key = keys::load(&options.key)?;
        on_air.sign(move |item, time| key.sign_item(item, time))?;
    }
    let now = Instant::now();
    let folder = Folder::new(&options.folder);
    let written = folder.settings()?;
    let _lock = folder.lock()?;
    folder.keep_session(&key.session())?;
    let mut stations = Vec::new();
    for language in written.sound {
        let station = folder.station(&key, &language)?;
        stations.push((language, station));
    }
    let settings = Settings {
        title: written.title,
        presenter: written.presenter,
        languages: written.languages,
        stations,
        captions: Some(written.captions),
        notes: written.notes,
        screen: written.screen,
        camera: written.camera,
    };
    let slides = folder.slides()?;
    let stamps = folder.stamps(&slides);
    let (pictures, problems) = folder.pictures(&slides);
    let mut presenting = Presenting::new(key, settings, slides.clone(), now)?;
    presenting.set_pictures(pictures)?;
    let interfaces = match options.outside {
        // the guest's alone
        true => vec![INTERFACE.to_owned()],
        false => common.interfaces.clone(),
    };
    let mut presenter = Presenter {
        tracks: Tracks::open(&interfaces, Role::Holder, now).context("multicast sockets")?,
        options,
        common,
        place,
        folder,
        presenting,
        slides,
        seen: stamps.clone(),
        sent: stamps,
        look_at: now + LOOK_INTERVAL,
        incomplete: None,
        left_out: Vec::new(),
    };
    presenter.say_problems(&presenter.slides, problems);
    presenter.join_all(now)?;
    if let Some(offering) = offering {
        let state = offering.state()?;
        offering.repeat(Offer::Session, &presenter.presenting.session().encode())?;
        presenter.say_code(&state.code);
    }
    // standard error may be closed
    let _ = writeln!(
        librecast_program::standard::errors(),
        "others are asked for what was presented before: 3 s"
    );
    let input = Input::open(wake.clone())?;
    presenter.run(&wake, &input)?;
    presenter.end(&wake)?;
    Ok(Exit::Ok)
}

/// Returns the time without changes for a file with fewer slides; `None`: it is not taken.
fn settle_time(had: usize, has: usize) -> Option<Duration> {
    match has {
        0 if had > 0 => None,
        _ if has * 2 < had => Some(SETTLE_MOST),
        _ if has < had => Some(SETTLE),
        _ => Some(Duration::ZERO),
    }
}

impl Presenter<'_> {
    fn run(&mut self, wake: &Wake, input: &Input) -> anyhow::Result<()> {
        let mut input = Some(input);
        while wake.interrupted().is_none() {
            self.turn()?;
            self.look()?;
            // input waits until the slides are sent
            while let Some(lines) = input
                && self.presenting.is_on()
                && self.presenting.waiting() < MAX_QUEUE
            {
                match lines.next()? {
                    Read::Line(line) => {
                        if !self.execute(&line)? {
                            return Ok(());
                        }
                    }
                    Read::Nothing => break,
                    // a presenter without a terminal continues until a signal
                    Read::End => input = None,
                }
            }
            let append = self.presenting.next_timeout();
            let until = append.into_iter().chain([self.look_at]).min();
            self.tracks.wait(wake, until)?;
        }
        Ok(())
    }

    fn join_all(&mut self, now: Instant) -> anyhow::Result<()> {
        let session = self.presenting.session();
        for (place, owner) in self.presenting.places() {
            let file = self.folder.log(&place);
            let space = session.space(owner.peer_id());
            let joined = self
                .tracks
                .join(place, space, vec![owner], Some(&file), now);
            joined.with_context(|| file.display().to_string())?;
        }
        self.read()
    }

    /// Handles input from the network, and does the due work.
    fn turn(&mut self) -> anyhow::Result<()> {
        for (place, event) in self.tracks.turn()? {
            self.happened(&place, &event)?;
        }
        self.read()?;
        let (time, now) = (UnixTime::now(), Instant::now());
        let progress = self.presenting.handle_timeout(&mut self.tracks, time, now);
        match progress? {
            Some(Progress::OnAir) => self.say_on(),
            Some(Progress::SlidesChanged) => {
                let n = self.presenting.slides().len();
                self.tell(
                    &format!("slides changed: {n}"),
                    || json!({"event": "slides", "count": n}),
                );
            }
            None => {}
        }
        Ok(())
    }

    /// Reads new entries of the logs.
    fn read(&mut self) -> anyhow::Result<()> {
        for new in self.tracks.entries() {
            let change = self.presenting.read(&new)?;
            // entries on disk were reported in an earlier run
            if self.presenting.is_on()
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

    fn happened(&mut self, place: &Place, event: &Event) -> anyhow::Result<()> {
        let Some(log) = self.tracks.log(place) else {
            return Ok(());
        };
        if let Event::Conflict { author, number } = event
            && *author != log.owner()
        {
            tracing::warn!(
                "{place}: one key writes on two hosts; its entries from {number} on count for nobody"
            );
        }
        let asked = self.presenting.handle_event(log, place, event)?;
        let Some((number, question)) = asked.map(|(number, asked)| (number, asked.clone())) else {
            return Ok(());
        };
        let known = self.presenting.questions().count();
        if number == known + 1 {
            tracing::warn!("more questions than {known}: the oldest are forgotten");
        }
        self.tell(
            &format!("question {number}: {}", said(&question.name, &question.text)),
            || json!({"event": "question", "number": number, "name": question.name, "text": question.text}),
        );
        Ok(())
    }

    /// Looks for changed slides and pictures on disk.
    fn look(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.look_at > now || !self.presenting.is_on() {
            return Ok(());
        }
        self.look_at = now + LOOK_INTERVAL;
        self.say_left_out();
        let found = self.folder.stamps(&self.slides);
        if found.slides != self.sent.slides {
            return self.take_slides(&found);
        }
        // a picture is not sent while it is written
        if found != self.sent && found == self.seen {
            let (pictures, problems) = self.folder.pictures(&self.slides);
            self.presenting.set_pictures(pictures)?;
            self.say_problems(&[], problems);
            self.sent = found.clone();
        }
        self.seen = found;
        Ok(())
    }

    fn take_slides(&mut self, found: &Stamps) -> anyhow::Result<()> {
        let now = Instant::now();
        let is_unchanged = self
            .incomplete
            .as_ref()
            .is_some_and(|(stamp, _)| *stamp == found.slides);
        // partly written, or just replaced: the shown slides stay
        let taken = self.folder.slides();
        let taken = taken.and_then(|slides| {
            Presenting::check(&slides)?;
            Ok(slides)
        });
        let slides = match taken {
            Ok(slides) => slides,
            Err(e) => {
                self.sent.slides = found.slides;
                self.incomplete = None;
                tracing::warn!("{e:#}; what was shown stays");
                return Ok(());
            }
        };
        if !is_unchanged {
            self.incomplete = Some((found.slides, now));
        }
        let since = self.incomplete.as_ref().map_or(now, |(_, since)| *since);
        let (had, has) = (self.slides.len(), slides.len());
        let settle = settle_time(had, has);
        if settle.is_none_or(|time| now < since + time) {
            if !is_unchanged {
                self.say_incomplete(had, has, settle);
            }
            return Ok(());
        }
        self.sent.slides = found.slides;
        self.incomplete = None;
        self.presenting.set_slides(slides.clone())?;
        let (pictures, problems) = self.folder.pictures(&slides);
        self.presenting.set_pictures(pictures)?;
        self.say_problems(&slides, problems);
        self.sent.pictures = self.folder.stamps(&slides).pictures;
        self.slides = slides;
        Ok(())
    }

    fn say_incomplete(&self, had: usize, has: usize, settle: Option<Duration>) {
        let file = self.folder.slides_file();
        let until = match settle {
            None => "until it has slides again".to_owned(),
            Some(time) => format!("for the others, for {} s", time.as_secs()),
        };
        // standard error may be closed
        let _ = writeln!(
            librecast_program::standard::errors(),
            "{}: {has} of {had} slides, which an editor may be writing: this waits {until}. What was shown stays",
            file.display()
        );
    }

    /// Ends the session for all attenders.
    fn end(&mut self, wake: &Wake) -> anyhow::Result<()> {
        if !self.presenting.is_on() {
            return Ok(());
        }
        self.presenting.end()?;
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until {
            self.turn()?;
            let next = self.presenting.next_timeout();
            self.tracks.wait(wake, next.or(Some(until)))?;
        }
        Ok(())
    }

    // input and output of the presenter

    /// Executes a typed line. Returns false at the end.
    fn execute(&mut self, line: &str) -> anyhow::Result<bool> {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let (current, count) = (self.presenting.current(), self.presenting.slides().len());
        let number = |text: &str| text.parse::<usize>().ok()?.checked_sub(1);
        match (word, rest.trim()) {
            ("", "") => self.turn_to(current + 1),
            ("b", "") => self.turn_to(current.saturating_sub(1)),
            ("q", "") => return Ok(false),
            ("c", text) if !text.is_empty() => self.caption(text)?,
            ("a", text) => {
                let taken = text
                    .parse()
                    .ok()
                    .map(|number| self.presenting.take_up(number));
                if !matches!(taken, Some(Ok(()))) {
                    self.say_usage();
                }
            }
            (text, "") => match number(text).filter(|slide| *slide < count) {
                Some(slide) => self.turn_to(slide),
                None => self.say_usage(),
            },
            _ => self.say_usage(),
        }
        Ok(true)
    }

    fn caption(&mut self, text: &str) -> anyhow::Result<()> {
        let Some(language) = self.presenting.settings().languages.first().cloned() else {
            anyhow::bail!("session.toml names no language");
        };
        Ok(self.presenting.caption(&language, text)?)
    }

    fn turn_to(&mut self, slide: usize) {
        if self.presenting.turn_to(slide) {
            self.say_slide();
        }
    }

    fn say_slide(&self) {
        let (current, slides) = (self.presenting.current(), self.presenting.slides());
        let (number, of) = (current + 1, slides.len());
        let Some(slide) = slides.get(current) else {
            return;
        };
        let notes = slide.notes.lines().map(|line| format!("note: {line}\n"));
        self.tell(
            &format!(
                "--- slide {number} of {of}\n{}\n{}",
                to_text(&slide.text),
                notes.collect::<String>()
            ),
            || json!({"event": "slide", "number": number, "of": of, "markdown": slide.text, "notes": slide.notes}),
        );
    }

    fn say_code(&self, code: &str) {
        self.tell(code, || json!({"event": "code", "code": code}));
        hint(format_args!("attend it with: lcstudio attend {code}"));
    }

    fn say_on(&self) {
        let mut text = self.presenting.session().encode();
        let at = self.place.as_deref().filter(|place| !place.is_empty());
        if let Some(at) = at {
            text = Zeroizing::new(format!("{}@{at}", *text));
        }
        self.tell(&text, || json!({"event": "on", "session": *text}));
        let interfaces = self.tracks.interface_names().join(", ");
        let (folder, key) = (self.folder.path().display(), self.options.key.display());
        // a member's token, as a leaf sends no sound
        let (sender, option) = match (&self.place, at) {
            (None, _) => (String::new(), String::new()),
            (Some(_), None) => ("--outside".to_owned(), " --outside".to_owned()),
            (Some(_), Some(at)) => (format!("--outside --at {at}"), String::new()),
        };
        let token = match self.place {
            Some(_) => format!("\"$(lcstudio invite {folder} --key {key} --member {sender})\" "),
            None => String::new(),
        };
        // standard error may be closed
        let mut err = librecast_program::standard::errors();
        let _ = writeln!(err, "on air at {interfaces}. {COMMANDS}");
        if self.place.is_some() {
            let _ = writeln!(err, "attend it anywhere with: lcstudio attend{option} TEXT");
        }
        for (language, _) in &self.presenting.settings().stations {
            let _ = writeln!(
                err,
                "sound: lcradio cast {token}--key {folder}/audio-{language}.key --profile voice"
            );
        }
        drop(err);
        if self.presenting.slides().is_empty() {
            tracing::warn!("{}: no slides yet", self.folder.slides_file().display());
        }
        self.say_slide();
    }

    /// Prints problems by line; `more`: lines with further ones.
    fn say_problems(&self, slides: &[Slide], more: Vec<(usize, String)>) {
        let file = self.folder.slides_file();
        let of_slides = slides.iter().flat_map(|slide| &slide.problems);
        let mut all: Vec<_> = of_slides
            .map(|(line, problem)| (*line, problem.to_string()))
            .chain(more)
            .collect();
        all.sort_by_key(|(line, _)| *line);
        for (line, problem) in all {
            let _ = writeln!(
                librecast_program::standard::errors(),
                "{}:{line}: {problem}",
                file.display()
            );
        }
    }

    /// Reports pictures that changed too often for the session's room.
    fn say_left_out(&mut self) {
        let left_out = self.presenting.left_out_pictures();
        let left_out: Vec<String> = left_out.into_iter().map(str::to_owned).collect();
        if left_out != self.left_out {
            for name in &left_out {
                tracing::warn!("{}", no_room(name));
            }
            self.left_out = left_out;
        }
    }

    fn say_usage(&self) {
        let _ = writeln!(librecast_program::standard::errors(), "{COMMANDS}");
    }

    /// A closed standard output does not end a lecture.
    fn tell(&self, text: &str, value: impl FnOnce() -> Value) {
        let mut out = librecast_program::standard::output();
        let _ = match self.common.json {
            true => writeln!(out, "{}", escape(&value().to_string())),
            false => writeln!(out, "{text}"),
        };
    }
}
