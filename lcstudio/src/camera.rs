//! `lcstudio camera`: frames of VP8 in, as IVF; packets of their layers out.
//!
//! ```text
//! standard input -> Source --small--.
//!                                   |-> CameraSender -> packets
//! --large FILE   -> Source --large--'
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcstudio_core::{
    CameraError, CameraSender, CameraSize, IVF_FRAME_HEADER, IVF_HEADER, Ivf, TrackName,
};
use librecast::time::UnixTime;
use librecast_log_host::seed;
use librecast_program::cli::{Common, Exit};
use librecast_program::process::Wake;

use crate::followed::FollowedIndex;
use crate::said::hint;
use crate::screen::{OnAir, Shown, ShownOptions};
use crate::tracks::Tracks;

/// Frames that were read and wait for their time: the pipe waits behind them.
const WAITING: usize = 4;
/// A frame that is later than this begins a new count of time: the source paused.
const LATE: Duration = Duration::from_secs(2);
/// Jump of a stream's own time above which it is a new count, too.
const JUMP_MS: u64 = 2_000;
/// Time without a frame after which that is said.
const SILENCE: Duration = Duration::from_secs(2);
/// Time between two warnings of frames that are not sent.
const WARN_AGAIN: Duration = Duration::from_secs(10);

/// Options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    shown: ShownOptions,
    /// The same in a larger picture, as IVF, for those that ask for it: a file, or a pipe of mkfifo
    #[arg(long, value_name = "FILE")]
    large: Option<PathBuf>,
}

/// Sends the frames of standard input until it ends, a signal, or the end of the session.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let shown = Shown {
        options: &options.shown,
        name: TrackName::Camera,
        noun: "a camera",
    };
    shown.run(common, |mut on_air| {
        let mut camera = Camera::begin(options, &on_air)?;
        camera.run(&mut on_air.tracks, &mut on_air.followed, &on_air.wake)
    })
}

/// A frame of the pipe, with its time in milliseconds.
type Frame = (u64, Vec<u8>);

/// Frames of one picture, at their own pace.
#[derive(Debug)]
struct Source {
    size: CameraSize,
    /// Its name in messages.
    name: String,
    frames: Receiver<anyhow::Result<Frame>>,
    /// The next frame, whose time has not come.
    next: Option<Frame>,
    started: Instant,
    /// A moment, the stream's own time then, and the last such time.
    clock: Option<(Instant, u64, u64)>,
    has_ended: bool,
}

impl Source {
    /// Reads a file, or standard input.
    fn new(
        size: CameraSize,
        file: Option<&Path>,
        started: Instant,
        wake: &Wake,
    ) -> io::Result<Self> {
        let name = file.map_or("standard input".to_owned(), |file| {
            file.display().to_string()
        });
        Ok(Self {
            size,
            frames: read_frames(file, &name, wake)?,
            name,
            next: None,
            started,
            clock: None,
            has_ended: false,
        })
    }

    /// Returns when a frame of this time is to be sent: 0.5 % faster than the stream's own time, so
    /// that a camera whose clock is fast makes no frame wait.
    fn due(&self, time: u64) -> Instant {
        let Some((moment, begun, _)) = self.clock else {
            return self.started;
        };
        moment + Duration::from_micros(time.saturating_sub(begun).saturating_mul(995))
    }

    /// Returns the next frame whose time has come, with its time since the beginning.
    fn poll(&mut self, now: Instant) -> anyhow::Result<Option<(u32, Vec<u8>)>> {
        let (time, frame) = match self.next.take() {
            Some(next) => next,
            None => match self.frames.try_recv() {
                Ok(next) => next?,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => {
                    self.has_ended = true;
                    return Ok(None);
                }
            },
        };
        let is_new = self.clock.is_none_or(|(_, _, last)| {
            time < last || time - last > JUMP_MS || self.due(time) + LATE < now
        });
        if is_new {
            self.clock = Some((now, time, time));
        }
        if self.due(time) > now {
            self.next = Some((time, frame));
            return Ok(None);
        }
        let (moment, begun, last) = self.clock.get_or_insert((now, time, time));
        *last = time;
        let since = moment.saturating_duration_since(self.started).as_millis() as u64;
        Ok(Some((
            since.saturating_add(time.saturating_sub(*begun)) as u32,
            frame,
        )))
    }

    /// Returns the time of the next frame, if one waits.
    fn next_at(&self) -> Option<Instant> {
        let (time, _) = self.next.as_ref()?;
        Some(self.due(*time))
    }
}

#[derive(Debug)]
struct Camera {
    sender: CameraSender,
    /// The first one ends the camera when it ends.
    sources: Vec<Source>,
    has_ended: bool,
    /// The reason for which it ends, once all that was read is sent.
    failed: Option<anyhow::Error>,
    /// The last frame, until silence was said.
    heard_at: Option<Instant>,
    warned_at: Option<Instant>,
    sent: u64,
    left_out: u64,
}

impl Camera {
    fn begin(options: &Options, on_air: &OnAir) -> anyhow::Result<Self> {
        let owner = on_air.key.track_key(&TrackName::Camera);
        let space = on_air.session.space(owner.peer_id());
        let (now, wake) = (Instant::now(), &on_air.wake);
        let mut sender = CameraSender::new(&space, owner, *seed()?, UnixTime::now(), now);
        let mut sources = vec![Source::new(CameraSize::Small, None, now, wake)?];
        if let Some(file) = &options.large {
            sources.push(Source::new(CameraSize::Large, Some(file), now, wake)?);
            sender.offer_large(true, now);
        }
        Ok(Self {
            sender,
            sources,
            has_ended: false,
            failed: None,
            heard_at: Some(now),
            warned_at: None,
            sent: 0,
            left_out: 0,
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
            if interrupted.is_some() || followed.has_ended(tracks, now) || self.has_ended {
                self.sender.end(now);
            }
            followed.turn(tracks)?;
            self.send_due(now);
            while let Some((group, packet)) = self.sender.poll_transmit(Instant::now()) {
                tracks.send(group, &packet);
            }
            if self.sender.has_ended() {
                tracing::info!("{} frames sent, {} left out", self.sent, self.left_out);
                if interrupted.is_none() && !self.has_ended {
                    hint("the session has ended");
                }
                return match self.failed.take() {
                    Some(e) => Err(e),
                    None => Ok(interrupted.unwrap_or(Exit::Ok)),
                };
            }
            if self.heard_at.is_some_and(|at| at + SILENCE <= now) {
                self.heard_at = None;
                hint("waits for frames on standard input: does the camera's program run?");
            }
            let due = self.sources.iter().filter_map(Source::next_at).min();
            let said = self.heard_at.map(|at| at + SILENCE);
            let next = Some(self.sender.next_timeout());
            let until = [due, said, next, followed.next_timeout(now)];
            tracks.wait(wake, until.into_iter().flatten().min())?;
        }
    }

    /// Sends the frames whose time has come.
    fn send_due(&mut self, now: Instant) {
        for at in 0..self.sources.len() {
            while !self.has_ended
                && let Some(source) = self.sources.get_mut(at)
            {
                let (size, name) = (source.size, source.name.clone());
                match source.poll(now) {
                    Ok(Some((time, frame))) => self.send((size, &name), time, &frame, now),
                    Ok(None) => break,
                    Err(e) => self.end(Some(e)),
                }
            }
        }
        let ended = self.sources.extract_if(.., |source| source.has_ended);
        let ended: Vec<CameraSize> = ended.map(|source| source.size).collect();
        for size in ended {
            match size {
                CameraSize::Small => self.end(None),
                CameraSize::Large => self.sender.offer_large(false, now),
            }
        }
    }

    fn end(&mut self, failed: Option<anyhow::Error>) {
        self.has_ended = true;
        self.failed = failed;
        self.sender.end(Instant::now());
    }

    fn send(&mut self, (size, name): (CameraSize, &str), time: u32, frame: &[u8], now: Instant) {
        if size == CameraSize::Small {
            self.heard_at = Some(now);
        }
        // an encoder leaves such a one out
        if frame.is_empty() {
            return;
        }
        match self.sender.send(size, frame, time, now) {
            Ok(()) => self.sent += 1,
            Err(CameraError::Frame(e)) => {
                self.end(Some(anyhow::Error::new(e).context(name.to_owned())));
            }
            Err(e) => {
                self.left_out += 1;
                if self.warned_at.is_none_or(|at| at + WARN_AGAIN <= now) {
                    self.warned_at = Some(now);
                    tracing::warn!("a frame is left out: {e}");
                }
            }
        }
    }
}

/// Reads a file, or standard input, to its end, in a thread of its own: opening a pipe waits for its
/// writer.
fn read_frames(
    file: Option<&Path>,
    name: &str,
    wake: &Wake,
) -> io::Result<Receiver<anyhow::Result<Frame>>> {
    let (to, frames) = sync_channel(WAITING);
    let (file, name, wake) = (file.map(Path::to_owned), name.to_owned(), wake.clone());
    thread::Builder::new().name("input".into()).spawn(move || {
        let read = match file {
            None => read_ivf(&mut librecast_program::standard::input(), &to, &wake),
            Some(file) => File::open(file)
                .map_err(anyhow::Error::from)
                .and_then(|file| read_ivf(&mut BufReader::new(file), &to, &wake)),
        };
        if let Err(e) = read {
            let _ = to.send(Err(e.context(name)));
        }
        drop(to);
        wake.wake();
    })?;
    Ok(frames)
}

fn read_ivf(
    input: &mut impl BufRead,
    to: &SyncSender<anyhow::Result<Frame>>,
    wake: &Wake,
) -> anyhow::Result<()> {
    let mut header = [0; IVF_HEADER];
    input.read_exact(&mut header).context("no IVF")?;
    let ivf = Ivf::decode(&header)?;
    io::copy(&mut input.by_ref().take(ivf.skip as u64), &mut io::sink())?;
    while !input.fill_buf()?.is_empty() {
        let mut header = [0; IVF_FRAME_HEADER];
        input.read_exact(&mut header)?;
        let (length, time) = ivf.frame(&header)?;
        let mut frame = vec![0; length];
        input.read_exact(&mut frame)?;
        if to.send(Ok((time, frame))).is_err() {
            return Ok(());
        }
        wake.wake();
    }
    Ok(())
}
