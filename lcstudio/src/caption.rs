//! `lcstudio caption`: a line in, a caption out.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcstudio_core::{
    CORRECTION_MARK, Caption, Language, Logs as _, Place, TrackName, TrackPlace, View, clean,
    clean_line, split_caption,
};
use librecast::id::{PeerId, SecretKey, derive};
use librecast::time::UnixTime;
use librecast::units::parse_duration;
use librecast_log::{AppendError, AuthorId, Event, Log, Role};
use librecast_program::cli::{Common, Exit, ExitError};
use librecast_program::keyfile::load_signing_key;
use librecast_program::process::Wake;
use librecast_program::state_lock::StateLock;

use crate::folder::{make_folder, state_dir};
use crate::input::{Input, Read};
use crate::tracks::Tracks;
use crate::waiting::{self, Waiting};
use crate::{keys, outside};

/// Pause before a retry: the log first requests our earlier entries from other members.
const APPEND_AGAIN: Duration = Duration::from_millis(250);
/// Time at the end in which the last caption is repeated (librecast-log: after 0.25 and 1 s).
const LAST_WORDS: Duration = Duration::from_millis(1_300);

/// Time at the end in which the presenter shows a leaf that its captions came. Chosen: some
/// repetitions.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// lcs1..., a file with it, or `-` to read it from standard input
    pub session: String,
    /// The session's key, or one that session.toml names
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The session is in a network of its own (`present --outside`), also if its text names no place
    #[arg(long, conflicts_with = "interfaces")]
    pub outside: bool,
    /// The language, where there are several
    #[arg(long = "lang", value_name = "LANGUAGE")]
    pub language: Option<Language>,
    /// Who speaks
    #[arg(long, default_value = "", value_name = "NAME")]
    pub speaker: String,
    /// Give up when nobody was heard, or lets this key write, for so long
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
    /// Where it is kept what was written [default: $XDG_STATE_HOME/lcstudio]
    #[arg(long, env = "LCSTUDIO_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Sends captions until standard input ends.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let key = load_signing_key(&options.key)?;
    let presenter = keys::load(&options.key)?;
    let session = outside::attend(&options.session, options.outside, Some(&presenter))?;
    librecast_program::process::confine()?;
    let is_presenter = presenter.session() == session;
    let wake = Wake::on_interrupt()?;
    let now = Instant::now();
    let role = outside::role(Role::Member);
    let mut tracks = Tracks::open(&common.interfaces, role, now).context("multicast sockets")?;
    tracks.join(Place::Index, session.index(), Vec::new(), None, now)?;
    let mut view = View::default();
    let mut waiting = Waiting::begin(now);
    // waits for the track
    let (name, owner) = loop {
        if let Some(exit) = wake.interrupted() {
            return Ok(exit);
        }
        tracks.turn()?;
        for new in tracks.entries() {
            view.read(&new.place, new.by_owner, &new.entry);
        }
        let settled = view.index().has_begun && !tracks.lacks_something();
        if settled && let Some(found) = find(&view, options.language.as_ref())? {
            break found;
        }
        if now.elapsed() >= options.timeout {
            let message = match (view.index().has_begun, &options.language) {
                (true, Some(language)) => format!("the session has no captions in {language}"),
                (true, None) => "the session has no captions".to_owned(),
                _ => "nobody presents or holds this session where this host listens".to_owned(),
            };
            return Err(ExitError::new(Exit::Unreachable, message).into());
        }
        waiting.explain(Instant::now(), || match view.index().has_begun {
            true => "waits for captions among the session's tracks: `languages` in session.toml names them".to_owned(),
            false => waiting::for_session(&tracks.interface_names(), Some(options.timeout)),
        });
        let until = now + options.timeout;
        let next = waiting.next_timeout().map_or(until, |at| at.min(until));
        tracks.wait(&wake, Some(next))?;
    };
    let author = if is_presenter {
        presenter.track_key(&name)
    } else {
        key
    };
    let folder = state_dir(options.state_dir.as_ref())?.join(of_track(&owner, &author));
    make_folder(&folder)?;
    let _lock = StateLock::take(&folder, "lcstudio")?;
    let place = Place::Track(name);
    let space = session.space(owner);
    let id = space.author(&author.peer_id());
    let file = folder.join("log");
    let joined = tracks.join(
        place.clone(),
        space,
        vec![author],
        Some(&file),
        Instant::now(),
    );
    joined.with_context(|| file.display().to_string())?;
    let input = Input::open(wake.clone())?;
    let mut writer = Writer {
        options,
        tracks,
        place,
        id,
        last: None,
        waits: None,
        began: Instant::now(),
        waiting: Waiting::begin(Instant::now()),
    };
    writer.run(&wake, &input)
}

/// Returns the name of the folder of this key's captions in a session.
fn of_track(owner: &PeerId, author: &SecretKey) -> String {
    let hash = derive(
        "lcstudio 2026 state of captions",
        &[owner.public_key(), author.peer_id().public_key()],
    );
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the captions in this language, or the only ones.
fn find(
    view: &View,
    language: Option<&Language>,
) -> Result<Option<(TrackName, PeerId)>, ExitError> {
    let all = view.index().tracks.iter();
    let mut all = all.filter_map(|(name, place)| match (name, place) {
        (TrackName::Captions(tag), TrackPlace::Space(owner)) => {
            let is_wanted = language.is_none_or(|wanted| wanted == tag);
            is_wanted.then(|| (name.clone(), *owner))
        }
        _ => None,
    });
    match (all.next(), all.next()) {
        (Some(_), Some(_)) => {
            let message = "the session has captions in several languages: say --lang";
            Err(ExitError::new(Exit::Usage, message))
        }
        (found, _) => Ok(found),
    }
}

struct Writer<'a> {
    options: &'a Options,
    tracks: Tracks,
    place: Place,
    id: AuthorId,
    /// Number of the last caption.
    last: Option<u32>,
    /// A line that could not be appended yet.
    waits: Option<String>,
    began: Instant,
    /// Wait for the permission to write.
    waiting: Waiting,
}

impl Writer<'_> {
    fn run(&mut self, wake: &Wake, input: &Input) -> anyhow::Result<Exit> {
        let mut is_ready = false;
        loop {
            let interrupted = wake.interrupted();
            let happened = self.tracks.turn()?;
            for (_, event) in happened {
                if let Event::Conflict { author, .. } = event
                    && author == self.id
                {
                    let message = "this key writes captions on another host, too: nothing of it counts any more";
                    return Err(ExitError::new(Exit::Failed, message).into());
                }
            }
            if interrupted.is_some() {
                self.say_last_words(wake)?;
                return Ok(interrupted.unwrap_or(Exit::Ok));
            }
            if let Some(line) = self.waits.take() {
                self.say(line)?;
            }
            while self.waits.is_none() {
                match input.next()? {
                    Read::Line(line) => self.say(line)?,
                    Read::Nothing => break,
                    Read::End => {
                        self.say_last_words(wake)?;
                        return Ok(Exit::Ok);
                    }
                }
            }
            let is_refused = self.is_refused();
            if is_refused || self.waits.is_some() && self.began.elapsed() >= self.options.timeout {
                let file = librecast_program::keyfile::public_path(&self.options.key);
                let message = format!(
                    "the presenter lets this key write no captions in {}: he adds the key in {} to [[captions]] in session.toml, \
                     and presents again",
                    self.place,
                    file.display()
                );
                return Err(ExitError::new(Exit::NotPermitted, message).into());
            }
            if self.waits.is_none() && !std::mem::replace(&mut is_ready, true) {
                tracing::info!("{}: a line is a caption", self.place);
            }
            let is_unknown = !self.is_permitted();
            if is_unknown {
                let interfaces = self.tracks.interface_names().join(", ");
                self.waiting.explain(Instant::now(), || {
                    format!("waits for the presenter's permission to write captions with this key, on {interfaces}")
                });
            }
            let again = self.waits.is_some() || is_unknown;
            let again = again.then(|| Instant::now() + APPEND_AGAIN);
            self.tracks.wait(wake, again)?;
        }
    }

    /// Returns whether a known entry of the presenter permits this key.
    fn is_permitted(&self) -> bool {
        let Some(log) = self.tracks.log(&self.place) else {
            return false;
        };
        let mut authors = log.authors();
        // a grant up to the last entry permits no further one
        let is_granted = authors.any(|author| {
            author.author == self.id && author.grant.is_some_and(|grant| grant.last > author.last)
        });
        log.owner() == self.id || is_granted
    }

    /// Returns whether all entries of the presenter are known, and none permits this key.
    fn is_refused(&self) -> bool {
        let caught_up = self
            .tracks
            .log(&self.place)
            .and_then(|log| log.caught_up_at());
        !self.is_permitted() && caught_up.is_some_and(|at| at <= Instant::now())
    }

    fn say(&mut self, line: String) -> anyhow::Result<()> {
        let (corrects, text) = match line.strip_prefix(CORRECTION_MARK) {
            Some(text) if self.last.is_some() => (self.last.unwrap_or(0), text),
            _ => (0, line.as_str()),
        };
        let text = clean(text).replace(['\n', '\t'], " ");
        for (at, text) in split_caption(&text).into_iter().enumerate() {
            let caption = Caption {
                replaces: if at == 0 { corrects } else { 0 },
                speaker: clean_line(&self.options.speaker),
                text: text.to_owned(),
            };
            let (kind, body) = caption.encode()?;
            match self.tracks.append(
                &self.place,
                self.id,
                (kind, &body),
                UnixTime::now(),
                Instant::now(),
            ) {
                // of a correction in several pieces, the last one is a line of its own
                Ok(number) if corrects == 0 || at > 0 => self.last = Some(number),
                Ok(_) => {}
                // at the start, or before the grant: only then no part of the line was sent
                Err(AppendError::Starting | AppendError::NotGranted) if at == 0 => {
                    self.waits = Some(line);
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            }
        }
        self.began = Instant::now();
        Ok(())
    }

    fn say_last_words(&mut self, wake: &Wake) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (until, latest) = (begun + LAST_WORDS, begun + HEARD_WITHIN);
        loop {
            let log = self.tracks.log(&self.place);
            let is_unheard = log.is_some_and(Log::is_unheard) && wake.interrupted().is_none();
            let end = if is_unheard { latest } else { until };
            if self.last.is_none() || Instant::now() >= end {
                if is_unheard {
                    tracing::warn!(
                        "the presenter has not shown all of these captions: they are kept here, and sent when this key writes again"
                    );
                }
                return Ok(());
            }
            self.tracks.turn()?;
            self.tracks.wait(wake, Some(end))?;
        }
    }
}
