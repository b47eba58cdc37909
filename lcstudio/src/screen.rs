//! `lcstudio screen`: pictures of a screen in, their changes out.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::Context;
use clap::Args;
use lcstudio_core::{
    Area, NewChange, Place, ScreenSender, Session, SessionKey, TrackName, TrackPlace, changed,
};
use librecast::time::UnixTime;
use librecast::units::parse_duration;
use librecast_log::Role;
use librecast_log_host::seed;
use librecast_program::cli::{Common, Exit, ExitError};
use librecast_program::guest;
use librecast_program::process::Wake;

use crate::folder::Folder;
use crate::followed::FollowedIndex;
use crate::said::hint;
use crate::stills::{Still, Stills};
use crate::tracks::Tracks;
use crate::waiting::{self, Waiting};
use crate::{keys, outside};

/// Pause before the whole screen is encoded again for late attenders, if it was too long.
const WHOLE_AGAIN: Duration = Duration::from_secs(10);

/// Options of the command line, for a track that a presenter shows beside `present`.
#[derive(Debug, Args)]
pub struct ShownOptions {
    /// lcs1..., a file with it, the folder that is presented, or `-` to read it from standard input
    session: String,
    /// The session's key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The session is in a network of its own (`present --outside`), also if its text names no place
    #[arg(long, conflicts_with = "interfaces")]
    outside: bool,
    /// Give up after this time without a session, or if the session has no such track
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    timeout: Duration,
}

/// Shows the pictures of standard input until a signal, or the end of the session.
pub fn run(options: &ShownOptions, common: &Common) -> anyhow::Result<Exit> {
    let shown = Shown {
        options,
        name: TrackName::Screen,
        noun: "a screen",
    };
    shown.run(common, |mut on_air| {
        Screen::begin(&on_air)?.run(&mut on_air.tracks, &mut on_air.followed, &on_air.wake)
    })
}

/// A track that a presenter shows beside `present`.
#[derive(Debug)]
pub struct Shown<'a> {
    pub options: &'a ShownOptions,
    pub name: TrackName,
    /// Its name in sentences, with its article: "a screen".
    pub noun: &'static str,
}

/// A session whose index names the track.
pub struct OnAir {
    pub session: Session,
    pub key: SessionKey,
    pub tracks: Tracks,
    pub followed: FollowedIndex,
    pub wake: Wake,
}

impl Shown<'_> {
    /// Enters the session, waits until its index names the track, and has it shown.
    pub fn run(
        &self,
        common: &Common,
        show: impl FnOnce(OnAir) -> anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit> {
        let (session, key) = self.load()?;
        librecast_program::process::confine()?;
        let wake = Wake::on_interrupt()?;
        let now = Instant::now();
        let mut tracks =
            Tracks::open(&common.interfaces, Role::Member, now).context("multicast sockets")?;
        tracks.join(Place::Index, session.index(), Vec::new(), None, now)?;
        let mut on_air = OnAir {
            session,
            key,
            tracks,
            followed: FollowedIndex::begin(now),
            wake,
        };
        match self.wait(&mut on_air)? {
            Some(exit) => Ok(exit),
            None => show(on_air),
        }
    }

    /// Reads the session and its key, which must belong together, and enters its network.
    fn load(&self) -> anyhow::Result<(Session, SessionKey)> {
        let options = self.options;
        let key = keys::load(&options.key)?;
        let of_folder = match fs::metadata(&options.session).is_ok_and(|found| found.is_dir()) {
            true => Some(Folder::new(Path::new(&options.session)).session()?.encode()),
            false => None,
        };
        let text = of_folder
            .as_ref()
            .map_or(options.session.as_str(), |text| text.as_str());
        let session = outside::attend(text, options.outside, Some(&key))?;
        if key.session() != session {
            let noun = self.noun;
            let message =
                format!("the key presents another session, and only who presents shows {noun}");
            return Err(ExitError::new(Exit::NotPermitted, message).into());
        }
        guest::check_may_send(&format!("show {}", self.noun))?;
        Ok((session, key))
    }

    /// Waits until the index names the track. Returns the exit of a signal.
    fn wait(&self, on_air: &mut OnAir) -> anyhow::Result<Option<Exit>> {
        let OnAir {
            key,
            tracks,
            followed,
            wake,
            ..
        } = on_air;
        let (name, noun, timeout) = (&self.name, self.noun, self.options.timeout);
        let absent =
            format!("`{name} = true` in session.toml names it once the session is presented again");
        let begun = Instant::now();
        let owner = key.track_key(name).peer_id();
        let mut waiting = Waiting::begin(begun);
        loop {
            if let Some(exit) = wake.interrupted() {
                return Ok(Some(exit));
            }
            followed.turn(tracks)?;
            let index = followed.index();
            let is_named = index.place(name) == Some(&TrackPlace::Space(owner));
            if is_named && !index.has_ended {
                return Ok(None);
            }
            if begun.elapsed() >= timeout {
                let message = match index.has_begun {
                    true if is_named => "the session has ended".to_owned(),
                    true => format!("the session has no {name}: {absent}"),
                    false => {
                        "nobody presents or holds this session where this host listens".to_owned()
                    }
                };
                return Err(ExitError::new(Exit::Unreachable, message).into());
            }
            waiting.explain(Instant::now(), || match index.has_begun {
                true if is_named => {
                    "waits for the session to be presented again: it has ended".to_owned()
                }
                true => format!("waits for {noun} among the session's tracks: {absent}"),
                false => waiting::for_session(&tracks.interface_names(), Some(timeout)),
            });
            let until = begun + timeout;
            let next = waiting.next_timeout().map_or(until, |at| at.min(until));
            tracks.wait(wake, Some(next))?;
        }
    }
}

/// The pictures of standard input: only the last one counts.
#[derive(Debug, Default)]
struct Pipe {
    last: Option<io::Result<Vec<u8>>>,
    has_ended: bool,
}

#[derive(Debug)]
struct Screen {
    sender: ScreenSender,
    pipe: Arc<Mutex<Pipe>>,
    /// The last picture that was sent.
    shown: Option<Still>,
    /// Time before which no whole screen is encoded again.
    whole_at: Instant,
    /// Whether the end of standard input was said.
    has_ended: bool,
}

impl Screen {
    fn begin(on_air: &OnAir) -> anyhow::Result<Self> {
        let OnAir {
            session, key, wake, ..
        } = on_air;
        let owner = key.track_key(&TrackName::Screen);
        let space = session.space(owner.peer_id());
        let now = Instant::now();
        let pipe = Arc::new(Mutex::new(Pipe::default()));
        let (to, wake) = (pipe.clone(), wake.clone());
        thread::Builder::new()
            .name("input".into())
            .spawn(move || read_pictures(&to, &wake))?;
        Ok(Self {
            sender: ScreenSender::new(&space, owner, *seed()?, UnixTime::now(), now),
            pipe,
            shown: None,
            whole_at: now,
            has_ended: false,
        })
    }

    fn run(
        &mut self,
        tracks: &mut Tracks,
        followed: &mut FollowedIndex,
        wake: &Wake,
    ) -> anyhow::Result<Exit> {
        loop {
            let now = Instant::now();
            let interrupted = wake.interrupted();
            if interrupted.is_some() || followed.has_ended(tracks, now) {
                self.sender.end(now);
            }
            followed.turn(tracks)?;
            if self.sender.wants_look(now) {
                self.look(now)?;
            }
            while let Some((group, packet)) = self.sender.poll_transmit(Instant::now()) {
                tracks.send(group, &packet);
            }
            if self.sender.has_ended() {
                if interrupted.is_none() {
                    hint("the session has ended");
                }
                return Ok(interrupted.unwrap_or(Exit::Ok));
            }
            let next = [self.next_look(now), followed.next_timeout(now)];
            let next = next.into_iter().flatten().min();
            let due = self.sender.next_timeout();
            tracks.wait(wake, Some(next.map_or(due, |at| at.min(due))))?;
        }
    }

    /// Returns the time of the next look, if a picture waits for it.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let waits = self.pipe().last.is_some();
        let at = self.sender.look_at();
        (waits && at > now).then_some(at)
    }

    fn pipe(&self) -> std::sync::MutexGuard<'_, Pipe> {
        self.pipe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the last picture of the pipe, and sends its changes.
    fn look(&mut self, now: Instant) -> anyhow::Result<()> {
        let (last, has_ended) = {
            let mut pipe = self.pipe();
            (pipe.last.take(), pipe.has_ended)
        };
        match last {
            Some(file) => self.show(&file.context("standard input")?, now)?,
            None if has_ended && !self.has_ended => {
                self.has_ended = true;
                hint("no more pictures come; the last one stays until Ctrl-C");
                self.sender.pause(true, now);
            }
            None => {}
        }
        if self.sender.wants_whole()
            && self.whole_at <= now
            && let Some(still) = &self.shown
        {
            self.whole_at = now + WHOLE_AGAIN;
            let area = Area::whole(still.size);
            if let Some(picture) = still.encode(area)? {
                self.sender.set_whole(change(still, area, picture))?;
            }
        }
        Ok(())
    }

    fn show(&mut self, file: &[u8], now: Instant) -> anyhow::Result<()> {
        let still = match Still::decode(file) {
            Ok(still) => still,
            Err(e) => {
                tracing::warn!("a picture is passed over: {e:#}");
                return Ok(());
            }
        };
        let changes = match self.changes(&still, file)? {
            Some(changes) if changes.is_empty() => {
                self.sender.is_unchanged(now);
                return Ok(());
            }
            Some(changes) => changes,
            None => {
                tracing::warn!(
                    "a picture is passed over: without loss it has more than 1 MiB. WebP with loss is sent as it comes"
                );
                return Ok(());
            }
        };
        let bytes: usize = changes.iter().map(|one| one.picture.len()).sum();
        tracing::info!("{} changes, {bytes} bytes", changes.len());
        self.sender.show(changes, now)?;
        self.shown = Some(still);
        Ok(())
    }

    /// Returns the changes since the last picture; `None` if one is too long.
    fn changes(&self, still: &Still, file: &[u8]) -> anyhow::Result<Option<Vec<NewChange>>> {
        let whole = Area::whole(still.size);
        let pixels = |area: &Area| u32::from(area.width) * u32::from(area.height);
        let last = self.shown.as_ref().filter(|last| last.size == still.size);
        let areas = match last {
            Some(last) => changed(&last.pixels, &still.pixels, still.size.0),
            None => vec![whole],
        };
        if areas.iter().map(pixels).sum::<u32>() * 2 < pixels(&whole) {
            let encoded = areas.into_iter().map(|area| {
                let picture = still.encode(area)?;
                Ok(picture.map(|picture| change(still, area, picture)))
            });
            return encoded.collect();
        }
        // as it came, if that is shorter, also with loss
        let encoded = still.encode(whole)?;
        let given = (file.len() <= lcstudio_core::MAX_PICTURE).then(|| file.to_vec());
        let shorter = encoded.into_iter().chain(given).min_by_key(Vec::len);
        Ok(shorter.map(|picture| vec![change(still, whole, picture)]))
    }
}

fn change(still: &Still, area: Area, picture: Vec<u8>) -> NewChange {
    NewChange {
        screen: still.size,
        area,
        is_exact: still.is_exact,
        picture,
    }
}

/// Reads standard input to its end.
fn read_pictures(to: &Mutex<Pipe>, wake: &Wake) {
    let mut input = Stills::new(librecast_program::standard::input());
    loop {
        let next = input.read().transpose();
        let is_last = !matches!(next, Some(Ok(_)));
        let mut pipe = to.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_some() {
            pipe.last = next;
        }
        pipe.has_ended = is_last;
        drop(pipe);
        wake.wake();
        if is_last {
            return;
        }
    }
}
