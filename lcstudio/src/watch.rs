//! `lcstudio watch`: a screen or a camera into a pipe, for a player.
//!
//! ```text
//! camera: IVF of VP8, from a key frame on; nothing is decoded
//! screen: PNG after PNG, each of the whole screen
//! ```

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use lcstudio_core::{
    CameraFrame, CameraWatch, Index, Layer, Place, ScreenWatch, TrackName, TrackPlace, ivf_frame,
    ivf_header,
};
use librecast::units::parse_duration;
use librecast_log::{Role, Space};
use librecast_program::cli::{Common, Exit, ExitError};
use librecast_program::process::Wake;

use crate::canvas::Canvas;
use crate::followed::FollowedIndex;
use crate::outside;
use crate::said::hint;
use crate::tracks::Tracks;
use crate::waiting::{self, Waiting};

/// Frames that wait for the reader of the pipe: 2 s. Further ones are left out up to a key frame.
const WAITING: usize = 30;

/// Time after the first frame by which a state of the camera came: there is one each second.
const UNTIL_STATE: Duration = Duration::from_secs(2);

/// A track that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Watched {
    /// The presenter's screen.
    Screen,
    /// The presenter's camera.
    Camera,
}

/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// lcs1..., a file with it, or `-` to read it from standard input
    pub session: String,
    /// The track: a screen comes as PNG after PNG, a camera as IVF with VP8
    #[arg(value_enum)]
    pub track: Watched,
    /// The session is in a network of its own (`present --outside`), also if its text names no place
    #[arg(long, conflicts_with = "interfaces")]
    pub outside: bool,
    /// The camera's large picture, where there is one and the network can carry it
    #[arg(long)]
    pub large: bool,
    /// Give up when nobody was heard, or the session has no such track, for so long
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// Watches until a signal, the end of the session, or of the pipe's reader.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let session = outside::attend(&options.session, options.outside, None)?;
    librecast_program::process::confine()?;
    if io::stdout().is_terminal() {
        let message = match options.track {
            Watched::Screen => {
                "pictures are not for a terminal: `| ffplay -f png_pipe -` shows them"
            }
            Watched::Camera => "frames are not for a terminal: `| ffplay -f ivf -` shows them",
        };
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    if options.large && options.track == Watched::Screen {
        let message = "a screen has one size: `--large` is for the camera";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let wake = Wake::on_interrupt()?;
    let now = Instant::now();
    let role = outside::role(Role::Member);
    let mut tracks = Tracks::open(&common.interfaces, role, now).context("multicast sockets")?;
    tracks.join(Place::Index, session.index(), Vec::new(), None, now)?;
    let mut watching: Option<Box<dyn Watching>> = None;
    let mut followed = FollowedIndex::begin(now);
    let name = match options.track {
        Watched::Screen => TrackName::Screen,
        Watched::Camera => TrackName::Camera,
    };
    let begun = now;
    let mut waiting = Waiting::begin(now);
    loop {
        let now = Instant::now();
        if let Some(exit) = wake.interrupted() {
            return Ok(exit);
        }
        followed.turn(&mut tracks)?;
        let index = followed.index();
        if let (None, Some(TrackPlace::Space(owner))) = (&watching, index.place(&name)) {
            let space = session.space(*owner);
            watching = Some(match options.track {
                Watched::Screen => Box::new(Screen::begin(&space, &wake, now)?),
                Watched::Camera => Box::new(Camera::begin(&space, options.large, &wake, now)?),
            });
            waiting = Waiting::begin(now);
        }
        let mut until = None;
        if let Some(watching) = &mut watching {
            watching.turn(&mut tracks, now)?;
            until = watching.next_timeout(now);
        } else if now >= begun + options.timeout {
            return Err(ExitError::new(Exit::Unreachable, absent(index, &name)).into());
        }
        if followed.has_ended(&tracks, now) {
            hint("the session has ended");
            return Ok(Exit::Ok);
        }
        if !watching.as_ref().is_some_and(|one| one.has_shown()) {
            let explanation = || match (index.has_begun, &watching) {
                (false, _) => {
                    waiting::for_session(&tracks.interface_names(), Some(options.timeout))
                }
                (true, None) => format!("waits: {}", absent(index, &name)),
                (true, Some(_)) => format!(
                    "waits for a picture: does `lcstudio {name}` run? If it does, `lcroute doctor` checks the network"
                ),
            };
            waiting.explain(now, explanation);
            let gives_up = watching.is_none().then_some(begun + options.timeout);
            until = until
                .into_iter()
                .chain(waiting.next_timeout())
                .chain(gives_up)
                .min();
        }
        let until = until.into_iter().chain(followed.next_timeout(now)).min();
        tracks.wait(&wake, until)?;
    }
}

/// Returns the reason for which a track is not there.
fn absent(index: &Index, name: &TrackName) -> String {
    match index.has_begun {
        true => format!(
            "the session has no {name}: `{name} = true` in session.toml names it once the session is presented again"
        ),
        false => "nobody presents or holds this session where this host listens".to_owned(),
    }
}

/// A track on its way into the pipe.
trait Watching {
    /// Handles what came, joins and leaves groups, gives pictures to the pipe.
    fn turn(&mut self, tracks: &mut Tracks, now: Instant) -> anyhow::Result<()>;

    /// Returns the time of the next turn, if no packet comes before.
    fn next_timeout(&self, now: Instant) -> Option<Instant>;

    /// Whether a picture came.
    fn has_shown(&self) -> bool;
}

/// The result of the thread that writes standard output, once it ends.
type Written = Arc<Mutex<Option<io::Error>>>;

/// Runs `write` in a thread of its own, so that a reader that pauses stops nothing else.
fn write_output(
    wake: &Wake,
    mut write: impl FnMut(&mut dyn Write) -> io::Result<bool> + Send + 'static,
) -> io::Result<Written> {
    let written = Written::default();
    let (failed, wake) = (written.clone(), wake.clone());
    thread::Builder::new()
        .name("output".into())
        .spawn(move || {
            let mut output = librecast_program::standard::output();
            let error = loop {
                match write(&mut output).and_then(|more| output.flush().map(|()| more)) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(e) => break e,
                }
            };
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            wake.wake();
        })?;
    Ok(written)
}

fn check(written: &Written) -> io::Result<()> {
    let mut failed = written.lock().unwrap_or_else(PoisonError::into_inner);
    failed.take().map_or(Ok(()), Err)
}

/// Times of frames in the file: they go on when the camera begins anew.
#[derive(Debug)]
struct Times {
    begun: Instant,
    run: u64,
    /// Time in the file, and the sender's, of the run's first frame.
    first: (u64, u32),
    last: Option<u64>,
}

impl Times {
    fn of(&mut self, frame: &CameraFrame, now: Instant) -> u64 {
        if self.last.is_none() {
            self.begun = now;
        }
        if self.last.is_none() || frame.run != self.run {
            let since = now.saturating_duration_since(self.begun).as_millis();
            (self.run, self.first) = (frame.run, (since as u64, frame.time));
        }
        let (file, own) = self.first;
        let time = file + u64::from(frame.time.saturating_sub(own));
        let time = self.last.map_or(time, |last| time.max(last + 1));
        self.last = Some(time);
        time
    }
}

struct Camera {
    watch: CameraWatch,
    times: Times,
    output: SyncSender<Vec<u8>>,
    /// Chunks that wait in `output`.
    waiting: Arc<AtomicUsize>,
    written: Written,
    wants_large: bool,
    layers: Vec<Layer>,
    /// Whether it was said that there is no large picture.
    has_said_small: bool,
    has_ended: bool,
}

impl Camera {
    fn begin(space: &Space, wants_large: bool, wake: &Wake, now: Instant) -> anyhow::Result<Self> {
        let (output, chunks) = sync_channel::<Vec<u8>>(WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        let written = write_output(wake, move |output| {
            let Ok(chunk) = chunks.recv() else {
                return Ok(false);
            };
            output.write_all(&chunk)?;
            left.fetch_sub(1, Ordering::Relaxed);
            Ok(true)
        })?;
        let mut watch = CameraWatch::new(space, true, now);
        watch.want_large(wants_large, now);
        Ok(Self {
            watch,
            wants_large,
            has_said_small: false,
            times: Times {
                begun: now,
                run: 0,
                first: (0, 0),
                last: None,
            },
            output,
            waiting,
            written,
            layers: Vec::new(),
            has_ended: false,
        })
    }

    /// Gives a frame to the pipe. Returns whether there was room.
    fn write(&mut self, frame: &CameraFrame, now: Instant) -> bool {
        let is_first = self.times.last.is_none();
        let time = self.times.of(frame, now);
        let mut chunk = ivf_frame(time, &frame.bytes);
        if is_first {
            let header = ivf_header(frame.size.unwrap_or_default());
            chunk.splice(..0, header);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        match self.output.try_send(chunk) {
            // an end is seen by `check`
            Ok(()) | Err(TrySendError::Disconnected(_)) => true,
            Err(TrySendError::Full(_)) => {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Says what changed.
    fn say(&mut self, now: Instant) {
        let layers: Vec<Layer> = self.watch.layers().joined().collect();
        let smooth = |layers: &[Layer]| layers.contains(&Layer::Smooth);
        let large = |layers: &[Layer]| layers.contains(&Layer::Large);
        if layers.is_empty() && !self.layers.is_empty() {
            hint(
                "the network or the player is too slow for the camera: it is left, and tried again after a while",
            );
        } else if large(&self.layers) && !large(&layers) && self.watch.layers().has_large() {
            hint("the network or the player is slow: the small picture for a while");
        } else if !smooth(&layers) && !large(&layers) && smooth(&self.layers) {
            hint("the network or the player is slow: fewer pictures a second for a while");
        }
        self.layers = layers;
        let is_late = now.saturating_duration_since(self.times.begun) >= UNTIL_STATE;
        let is_small = self.times.last.is_some() && is_late && !self.watch.layers().has_large();
        if self.wants_large && is_small && !self.has_said_small {
            hint("the presenter sends no large picture: the small one comes");
        }
        self.has_said_small |= is_small;
        let has_ended = self.watch.has_ended();
        if has_ended && !self.has_ended {
            hint("the camera is off; waits until it is on again");
        }
        self.has_ended = has_ended;
    }
}

impl Watching for Camera {
    fn turn(&mut self, tracks: &mut Tracks, now: Instant) -> anyhow::Result<()> {
        check(&self.written)?;
        for datagram in tracks.take_received() {
            self.watch
                .handle_datagram(datagram.group, datagram.source, &datagram.bytes, now);
        }
        self.watch.handle_timeout(now);
        let mut has_lost = false;
        while let Some(frame) = self.watch.poll_frame() {
            has_lost = has_lost || !self.write(&frame, now);
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.watch.waiting(waiting, has_lost, now);
        let groups: Vec<_> = self.watch.joined_groups().collect();
        tracks.follow(&groups);
        self.say(now);
        Ok(())
    }

    fn next_timeout(&self, _now: Instant) -> Option<Instant> {
        self.watch.next_timeout()
    }

    fn has_shown(&self) -> bool {
        self.times.last.is_some()
    }
}

/// The last picture of the screen that is not written, and its signal.
type Slot = Arc<(Mutex<Option<Canvas>>, Condvar)>;

struct Screen {
    watch: ScreenWatch,
    canvas: Option<Canvas>,
    slot: Slot,
    written: Written,
}

impl Screen {
    fn begin(space: &Space, wake: &Wake, now: Instant) -> anyhow::Result<Self> {
        let slot = Slot::default();
        let taken = slot.clone();
        let written = write_output(wake, move |output| {
            let (picture, signal) = &*taken;
            let waiting = picture.lock().unwrap_or_else(PoisonError::into_inner);
            let mut waiting = signal
                .wait_while(waiting, |picture| picture.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            let next = waiting.take();
            drop(waiting);
            if let Some(canvas) = next {
                output.write_all(&canvas.png()?)?;
            }
            Ok(true)
        })?;
        Ok(Self {
            watch: ScreenWatch::new(space, now),
            canvas: None,
            slot,
            written,
        })
    }
}

impl Watching for Screen {
    fn turn(&mut self, tracks: &mut Tracks, now: Instant) -> anyhow::Result<()> {
        check(&self.written)?;
        for datagram in tracks.take_received() {
            self.watch
                .handle_datagram(datagram.source, &datagram.bytes, now);
        }
        let mut is_changed = false;
        while let Some(change) = self.watch.poll_change() {
            let drawn = Canvas::draw(&mut self.canvas, &change);
            match drawn.with_context(|| format!("change {}", change.number)) {
                Ok(()) => is_changed = true,
                Err(e) => tracing::warn!("a picture of the screen is passed over: {e:#}"),
            }
        }
        if is_changed {
            let (picture, signal) = &*self.slot;
            let mut picture = picture.lock().unwrap_or_else(PoisonError::into_inner);
            picture.clone_from(&self.canvas);
            signal.notify_one();
        }
        tracks.follow(&self.watch.joined_groups(now));
        Ok(())
    }

    fn next_timeout(&self, now: Instant) -> Option<Instant> {
        self.watch.next_timeout(now)
    }

    fn has_shown(&self) -> bool {
        self.canvas.is_some()
    }
}
