//! `lcstudio camera`: frames of VP8 in, as IVF; packets of their layers out.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use lcstudio_core::{
    CameraError, CameraSender, IVF_FRAME_HEADER, IVF_HEADER, Ivf, Place, TrackName, View,
};
use librecast::time::UnixTime;
use librecast_log::Role;
use librecast_log_host::seed;
use librecast_program::cli::{Exit, hint};
use librecast_program::process::Wake;

use crate::screen::{Shown, read_index};
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
#[derive(Debug)]
pub struct Options {
    /// Text of the session, a file with it, or its folder.
    pub session: String,
    /// The session is in a network of its own.
    pub outside: bool,
    /// The session's key.
    pub key: PathBuf,
    /// Time without the session after which it gives up.
    pub timeout: Duration,
    /// Interfaces; none: all that can carry multicast.
    pub interfaces: Vec<String>,
}

/// Sends the frames of standard input until it ends, a signal, or the end of the session.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let shown = Shown {
        session: &options.session,
        outside: options.outside,
        key: &options.key,
        name: TrackName::Camera,
        noun: "a camera",
        timeout: options.timeout,
    };
    let (session, key) = shown.load()?;
    librecast_program::process::confine()?;
    let wake = Wake::on_interrupt()?;
    let now = Instant::now();
    let mut tracks =
        Tracks::open(&options.interfaces, Role::Member, now).context("multicast sockets")?;
    tracks.join(Place::Index, session.index(), Vec::new(), None, now)?;
    let mut view = View::default();
    if let Some(exit) = shown.wait(&key, &mut tracks, &mut view, &wake)? {
        return Ok(exit);
    }
    let owner = key.track_key(&TrackName::Camera);
    let space = session.space(owner.peer_id());
    let now = Instant::now();
    let mut camera = Camera {
        sender: CameraSender::new(&space, owner, *seed()?, UnixTime::now(), now),
        frames: read_frames(&wake)?,
        next: None,
        started: now,
        clock: None,
        has_ended: false,
        failed: None,
        heard_at: Some(now),
        warned_at: None,
        sent: 0,
        left_out: 0,
    };
    camera.run(&mut tracks, &mut view, &wake)
}

/// A frame of the pipe, with its time in milliseconds.
type Frame = (u64, Vec<u8>);

#[derive(Debug)]
struct Camera {
    sender: CameraSender,
    frames: Receiver<anyhow::Result<Frame>>,
    /// The next frame, whose time has not come.
    next: Option<Frame>,
    started: Instant,
    /// A moment, the stream's own time then, and the last such time.
    clock: Option<(Instant, u64, u64)>,
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
    fn run(&mut self, tracks: &mut Tracks, view: &mut View, wake: &Wake) -> anyhow::Result<Exit> {
        loop {
            let now = Instant::now();
            let interrupted = wake.interrupted();
            if interrupted.is_some() || view.index().has_ended || self.has_ended {
                self.sender.end(now);
            }
            read_index(tracks, view)?;
            self.send_due(now);
            while let Some((group, packet)) = self.sender.poll_transmit(Instant::now()) {
                tracks.send(group, &packet);
            }
            if self.sender.has_ended() {
                tracing::info!("{} frames sent, {} left out", self.sent, self.left_out);
                return match self.failed.take() {
                    Some(e) => Err(e),
                    None => Ok(interrupted.unwrap_or(Exit::Ok)),
                };
            }
            if self.heard_at.is_some_and(|at| at + SILENCE <= now) {
                self.heard_at = None;
                hint(
                    "lcstudio",
                    "waits for frames on standard input: does the camera's program run?",
                );
            }
            let due = self.next.as_ref().map(|(time, _)| self.due(*time));
            let said = self.heard_at.map(|at| at + SILENCE);
            let until = [due, said, Some(self.sender.next_timeout())];
            tracks.wait(wake, until.into_iter().flatten().min())?;
        }
    }

    /// Returns when a frame of this time is to be sent: 0.5 % faster than the stream's own time, so
    /// that a camera whose clock is fast makes no frame wait.
    fn due(&self, time: u64) -> Instant {
        let Some((moment, begun, _)) = self.clock else {
            return self.started;
        };
        moment + Duration::from_micros(time.saturating_sub(begun).saturating_mul(995))
    }

    /// Sends the frames whose time has come.
    fn send_due(&mut self, now: Instant) {
        while !self.has_ended {
            let (time, frame) = match self.next.take() {
                Some(next) => next,
                None => match self.frames.try_recv() {
                    Ok(Ok(next)) => next,
                    Ok(Err(e)) => return self.end(Some(e)),
                    Err(TryRecvError::Empty) => return,
                    Err(TryRecvError::Disconnected) => return self.end(None),
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
                return;
            }
            if let Some((_, _, last)) = &mut self.clock {
                *last = time;
            }
            self.send(time, &frame, now);
        }
    }

    fn end(&mut self, failed: Option<anyhow::Error>) {
        self.has_ended = true;
        self.failed = failed;
        self.sender.end(Instant::now());
    }

    fn send(&mut self, time: u64, frame: &[u8], now: Instant) {
        self.heard_at = Some(now);
        // an encoder leaves such a one out
        if frame.is_empty() {
            return;
        }
        let (moment, begun, _) = self.clock.unwrap_or((now, time, time));
        let since = moment.saturating_duration_since(self.started).as_millis() as u64;
        let time = since.saturating_add(time.saturating_sub(begun));
        match self.sender.send(frame, time as u32, now) {
            Ok(()) => self.sent += 1,
            Err(CameraError::Frame(e)) => {
                self.end(Some(anyhow::Error::new(e).context("standard input")));
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

/// Reads standard input to its end, in a thread of its own.
fn read_frames(wake: &Wake) -> io::Result<Receiver<anyhow::Result<Frame>>> {
    let (to, frames) = sync_channel(WAITING);
    let wake = wake.clone();
    thread::Builder::new().name("input".into()).spawn(move || {
        let mut input = librecast_program::standard::input();
        if let Err(e) = read_ivf(&mut input, &to, &wake) {
            let _ = to.send(Err(e.context("standard input")));
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
