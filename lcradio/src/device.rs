//! Sound devices, by ALSA: PipeWire and PulseAudio are among them by their plugins.
//!
//! A device works at 48 kHz with 16-bit samples of two channels; ALSA converts for other hardware.
//! A device that goes away is retried each second; meanwhile there is silence. Each has a thread of
//! its own, as some plugins wait for their server.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use alsa::device_name::HintIter;
use alsa::pcm::{Access, Format, HwParams};
use alsa::{Direction, Output, PCM, ValueOr};
use lcradio_core::{CLOCK_RATE, FRAME, Latency};
use librecast_program::cli::{Exit, ExitError};
use nix::errno::Errno;
use serde_json::json;

use crate::pace::LIVE_PPM;
use crate::process::Wake;

/// The default device: ALSA's own choice, which desktops point to PipeWire or PulseAudio.
pub const DEFAULT: &str = "default";
/// Channels of every device: left and right, as decoded.
const CHANNELS: u32 = 2;
/// Duration of a frame of [`FRAME`] samples; of a call's, half of it.
const FRAME_TIME: Duration = Duration::from_millis(20);

/// Returns the samples of a frame, of all channels.
fn frame_samples(latency: Latency) -> usize {
    (latency.frame() * CHANNELS) as usize
}

/// Returns the duration of a frame.
fn frame_time(latency: Latency) -> Duration {
    FRAME_TIME * latency.frame() / FRAME
}

/// A microphone's buffer: sound is read at once, so this covers a thread that is called late.
const CAPTURED: Duration = Duration::from_millis(200);
/// Time between two services of a device, in microseconds.
const PERIOD_US: u32 = 10_000;
/// Time between two attempts to open a device that is gone.
const RETRY: Duration = Duration::from_secs(1);
/// Time without any transfer after which a device is gone. PulseAudio takes a second to begin.
const STALLED_MS: u32 = 3_000;
/// Longest wait for a device to open: plugins with a server may take that time.
const OPENS_WITHIN: Duration = Duration::from_secs(5);

/// A sound device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name for `--device`, by the card's name, not its number.
    pub id: String,
    /// Its name in ALSA.
    pub name: String,
    /// Whether it can record.
    pub is_input: bool,
    /// Whether it can play.
    pub is_output: bool,
}

/// Names of ALSA without a card that are not devices to choose: silence, and converters.
const NO_DEVICES: [&str; 12] = [
    "null",
    "lavrate",
    "samplerate",
    "speexrate",
    "speex",
    "upmix",
    "vdownmix",
    "oss",
    "sysdefault",
    "dmix",
    "dsnoop",
    "hw",
];

/// Returns whether a user can choose it. Of a card's many names only `plughw`, which converts.
fn is_to_choose(id: &str) -> bool {
    match id.split_once(':') {
        Some((kind, _)) => kind == "plughw",
        None => !NO_DEVICES.contains(&id),
    }
}

/// Returns the present devices.
pub fn list() -> anyhow::Result<Vec<Device>> {
    let _quiet = Output::local_error_handler();
    let hints = HintIter::new_str(None, "pcm")
        .map_err(|e| anyhow::anyhow!("ALSA: {}", io::Error::from_raw_os_error(e.errno())))?;
    let mut devices: Vec<Device> = Vec::new();
    for hint in hints {
        let Some(id) = hint.name.filter(|id| is_to_choose(id)) else {
            continue;
        };
        let is = |direction| hint.direction.is_none_or(|of_hint| of_hint == direction);
        let (is_input, is_output) = (is(Direction::Capture), is(Direction::Playback));
        // some are listed once for each direction
        if let Some(same) = devices.iter_mut().find(|device| device.id == id) {
            same.is_input |= is_input;
            same.is_output |= is_output;
            continue;
        }
        let name = hint.desc.unwrap_or_default().replace('\n', ", ");
        devices.push(Device {
            id,
            name,
            is_input,
            is_output,
        });
    }
    devices.sort_by_key(|device| (device.id != DEFAULT, device.id.clone()));
    Ok(devices)
}

/// `devices`: prints the devices.
pub fn show(json: bool) -> anyhow::Result<Exit> {
    let devices = list()?;
    let mut out = librecast_program::standard::output();
    if json {
        let all: Vec<_> = devices
            .iter()
            .map(|device| {
                json!({
                    "id": device.id,
                    "name": device.name,
                    "input": device.is_input,
                    "output": device.is_output,
                    "default": device.id == DEFAULT,
                })
            })
            .collect();
        writeln!(out, "{}", json!(all))?;
        return Ok(Exit::Ok);
    }
    if devices.is_empty() {
        writeln!(out, "this host has no sound devices")?;
    }
    for device in devices {
        let directions = match (device.is_input, device.is_output) {
            (true, true) => "in, out",
            (true, false) => "in",
            (false, _) => "out",
        };
        writeln!(out, "{}\t{directions}\t{}", device.id, device.name)?;
    }
    Ok(Exit::Ok)
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Capture => "microphone",
        Direction::Playback => "loudspeaker",
    }
}

fn to_io(error: alsa::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno().abs())
}

/// Returns why a device cannot be opened.
fn why(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => "there is none".to_owned(),
        Some(Errno::EBUSY) => "another program has it".to_owned(),
        Some(Errno::EINVAL) => "it has no 48 kHz with 16 bits and two channels".to_owned(),
        _ => error.to_string(),
    }
}

/// Opens a device, ready to be read or written.
fn open(id: &str, direction: Direction, buffer: Duration, frame_time: Duration) -> io::Result<PCM> {
    // a device in use is an error at once
    let pcm = PCM::new(id, direction, true).map_err(to_io)?;
    configure(&pcm, buffer, frame_time).map_err(to_io)?;
    if direction == Direction::Capture {
        pcm.start().map_err(to_io)?;
    }
    Ok(pcm)
}

fn configure(pcm: &PCM, buffer: Duration, frame_time: Duration) -> alsa::Result<()> {
    let params = HwParams::any(pcm)?;
    params.set_access(Access::RWInterleaved)?;
    params.set_format(Format::S16LE)?;
    params.set_channels(CHANNELS)?;
    params.set_rate_resample(true)?;
    params.set_rate(CLOCK_RATE, ValueOr::Nearest)?;
    let micros = u32::try_from(buffer.as_micros()).unwrap_or(u32::MAX);
    params.set_buffer_time_near(micros, ValueOr::Nearest)?;
    params.set_period_time_near(PERIOD_US, ValueOr::Nearest)?;
    pcm.hw_params(&params)?;
    let params = pcm.sw_params_current()?;
    // it begins to play with one frame in it
    let frame = frame_time.as_micros() as i64 * i64::from(CLOCK_RATE) / 1_000_000;
    params.set_start_threshold(frame)?;
    pcm.sw_params(&params)?;
    pcm.prepare()
}

/// Transfers samples of `done..` with a device; returns the number of frames.
type Transfer<'a> = &'a mut dyn FnMut(&PCM, usize) -> alsa::Result<usize>;

/// Transfers a whole frame, for as long as the device takes.
fn transfer(pcm: &PCM, samples: usize, go: Transfer<'_>) -> io::Result<()> {
    let mut done = 0;
    while done < samples / CHANNELS as usize {
        match go(pcm, done) {
            Ok(frames) => done += frames,
            Err(error) if error.errno().abs() == Errno::EAGAIN as i32 => {
                let ready = pcm.wait(Some(STALLED_MS));
                if !ready
                    .or_else(|e| pcm.try_recover(e, true).map(|()| true))
                    .map_err(to_io)?
                {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            // it was too late, or the host slept
            Err(error) => {
                pcm.try_recover(error, true).map_err(to_io)?;
                if pcm.info().map_err(to_io)?.get_stream() == Direction::Capture {
                    pcm.start().map_err(to_io)?;
                }
            }
        }
    }
    Ok(())
}

fn write(pcm: &PCM, samples: &[i16]) -> io::Result<()> {
    transfer(pcm, samples.len(), &mut |pcm, done| {
        pcm.io_i16()?.writei(&samples[done * CHANNELS as usize..])
    })
}

fn read(pcm: &PCM, samples: &mut [i16]) -> io::Result<()> {
    transfer(pcm, samples.len(), &mut |pcm, done| {
        pcm.io_i16()?
            .readi(&mut samples[done * CHANNELS as usize..])
    })
}

/// Frames after which a device that has come back stays: a second.
const BACK: u32 = 50;

/// Room in the buffer, beyond the frame that is asked for, that is too much: half a frame.
const MUCH_ROOM: i64 = FRAME as i64 * 3 / 2;
/// Frames in a row with too much room after which it is filled. Chosen: 0.2 s, no late turn.
const LOW: u32 = 10;
/// Least time between two changes of a buffer's length, each with a gap. Chosen.
const REOPENS: Duration = Duration::from_secs(30);
/// Frames after which a device's delay is true: a second. Before sound runs it is not.
const RUNS: u32 = 50;

/// A device that may go and come back.
struct Served {
    id: String,
    direction: Direction,
    buffer: Duration,
    frame_time: Duration,
    pcm: Option<PCM>,
    /// Frames since it was opened.
    served: u32,
    /// Frames in a row at which the buffer held little.
    low: u32,
    /// Frames that must still succeed until a gone device, already logged, is back.
    missed: u32,
    asked_at: Instant,
    /// The last change of the buffer's length.
    reopened_at: Option<Instant>,
    /// The next frame while it is away.
    due: Instant,
}

impl Served {
    fn begin(id: &str, direction: Direction, latency: Latency, buffer: Duration, pcm: PCM) -> Self {
        Self {
            id: id.to_owned(),
            direction,
            buffer,
            frame_time: frame_time(latency),
            pcm: Some(pcm),
            served: 0,
            low: 0,
            missed: 0,
            asked_at: Instant::now(),
            reopened_at: None,
            due: Instant::now(),
        }
    }

    /// Changes the length of the buffer, with a gap: not often.
    fn set_buffer(&mut self, buffer: Duration) {
        let lately = |at: Instant| at.elapsed() < REOPENS;
        if self.buffer != buffer && !self.reopened_at.is_some_and(lately) {
            self.buffer = buffer;
            self.reopened_at = Some(Instant::now());
            // closed before it is opened: a card may serve one program at a time
            self.pcm = None;
            self.served = 0;
            match open(&self.id, self.direction, buffer, self.frame_time) {
                Ok(pcm) => self.pcm = Some(pcm),
                Err(error) => self.is_gone(&error),
            }
        }
    }

    /// Notes that the device has gone, and says so once.
    fn is_gone(&mut self, error: &io::Error) {
        self.pcm = None;
        (self.asked_at, self.due) = (Instant::now(), Instant::now());
        if std::mem::replace(&mut self.missed, BACK) == 0 {
            let (kind, id, why) = (direction_name(self.direction), &self.id, why(error));
            tracing::warn!("the {kind} {id} is away ({why}): silence until it is back");
        }
    }

    /// Adds a frame of silence if the buffer holds little for long. Sound that comes as it is due
    /// would never fill it, and a thread that is called late would interrupt the sound.
    fn fill_up(&mut self) {
        let room = self.pcm.as_ref().and_then(|pcm| pcm.avail().ok());
        let is_low = room.is_some_and(|room| room >= MUCH_ROOM);
        self.low = if is_low { self.low + 1 } else { 0 };
        if self.low >= LOW {
            self.low = 0;
            self.frame(|pcm| write(pcm, &[0; (FRAME * CHANNELS) as usize]));
        }
    }

    /// Returns when the next frame will sound, if it is known.
    fn sounds_at(&self) -> Option<Instant> {
        let pcm = self.pcm.as_ref().filter(|_| self.served >= RUNS)?;
        let delay = u32::try_from(pcm.delay().ok()?).ok()?;
        let delay = f64::from(delay) / f64::from(CLOCK_RATE);
        Some(Instant::now() + Duration::from_secs_f64(delay))
    }

    /// Serves a frame; false while the device is away, after the time of a frame.
    fn frame(&mut self, serve: impl FnOnce(&PCM) -> io::Result<()>) -> bool {
        if self.pcm.is_none() && self.asked_at.elapsed() >= RETRY {
            self.asked_at = Instant::now();
            self.served = 0;
            self.pcm = open(&self.id, self.direction, self.buffer, self.frame_time).ok();
        }
        let kind = direction_name(self.direction);
        let result = match &self.pcm {
            Some(pcm) => serve(pcm),
            None => {
                self.due += self.frame_time;
                thread::sleep(self.due.saturating_duration_since(Instant::now()));
                return false;
            }
        };
        match result {
            Ok(()) => {
                self.served = self.served.saturating_add(1);
                if self.missed == 1 {
                    tracing::warn!("the {kind} {} is back", self.id);
                }
                self.missed = self.missed.saturating_sub(1);
                true
            }
            Err(error) => {
                self.is_gone(&error);
                false
            }
        }
    }
}

/// Serves a device on a thread of its own, once it is open.
fn serve_on_thread(
    id: Option<&str>,
    direction: Direction,
    latency: Latency,
    buffer: Duration,
    mut serve: impl FnMut(&mut Served) -> bool + Send + 'static,
) -> anyhow::Result<()> {
    let id = id.unwrap_or(DEFAULT).to_owned();
    let kind = direction_name(direction);
    let failed = |why: &str| {
        let message = format!("{kind} {id}: {why}; lcradio devices lists those there are");
        ExitError::new(Exit::Failed, message)
    };
    let (tell, opened) = sync_channel(1);
    let device = id.clone();
    thread::Builder::new().name(kind.into()).spawn(move || {
        // suppresses ALSA's output to the terminal
        let _quiet = Output::local_error_handler();
        let pcm = match open(&device, direction, buffer, frame_time(latency)) {
            Ok(pcm) => pcm,
            Err(error) => return drop(tell.send(Some(error))),
        };
        if tell.send(None).is_err() {
            return;
        }
        let mut served = Served::begin(&device, direction, latency, buffer, pcm);
        while serve(&mut served) {}
    })?;
    match opened.recv_timeout(OPENS_WITHIN) {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(failed(&why(&error)).into()),
        Err(RecvTimeoutError::Timeout) => Err(failed("it does not open").into()),
        Err(RecvTimeoutError::Disconnected) => Err(failed("its thread has ended").into()),
    }
}

/// A microphone.
pub struct Capture {
    frames: Receiver<Vec<i16>>,
}

impl Capture {
    /// Records from a device, or from the default one, in frames of this kind of latency. Frames
    /// that are not taken in time are lost.
    pub fn open(id: Option<&str>, latency: Latency) -> anyhow::Result<Self> {
        let (to, frames) = sync_channel(2);
        serve_on_thread(id, Direction::Capture, latency, CAPTURED, move |device| {
            let mut samples = vec![0; frame_samples(latency)];
            if !device.frame(|pcm| read(pcm, &mut samples)) {
                samples.fill(0);
            }
            to.send(samples).is_ok()
        })?;
        Ok(Self { frames })
    }

    /// Returns the next frame.
    pub fn next(&mut self) -> io::Result<Vec<i16>> {
        let gone = |_| io::Error::other("the microphone's thread has ended");
        self.frames.recv().map_err(gone)
    }
}

/// Returns the loudspeakers' buffer, which adds to the delay and bridges late servers.
fn held(latency: Latency) -> Duration {
    match latency {
        Latency::Call => Duration::from_millis(20),
        Latency::Quick => Duration::from_millis(40),
        Latency::Auto => Duration::from_millis(80),
        Latency::Safe => Duration::from_millis(200),
        Latency::Fixed(asked) => asked.clamp(held(Latency::Quick), held(Latency::Safe)),
    }
}

/// Returns the loudspeakers' buffer in step: the delay less some time for the network.
fn held_in_step(play_after: Duration) -> Duration {
    let most = held(Latency::Auto);
    let left = play_after.saturating_sub(NETWORK);
    left.clamp(FRAME_TIME, most)
}

/// Part of the delay in step that loudspeakers leave to the network: a way of 40 ms, jitter, and
/// a copy 40 ms later.
const NETWORK: Duration = Duration::from_millis(100);

/// State that the thread of a device and its user share.
struct Shared {
    /// Requested frames.
    asked: AtomicU32,
    /// Length of the buffer in milliseconds if it plays in step; else 0.
    step_ms: AtomicU32,
    /// When the requested frame will sound, if it is known.
    sounds_at: Mutex<Option<Instant>>,
}

impl Shared {
    fn sounds_at(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        let locked = self.sounds_at.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loudspeakers. They request sound by their own clock.
pub struct Playback {
    frames: Option<SyncSender<Vec<i16>>>,
    ended: Receiver<()>,
    shared: Arc<Shared>,
    /// No frame is given before this: a faster clock than permitted is not followed.
    not_before: Instant,
    frame_time: Duration,
}

/// Shortest share of a frame's time between two frames: live sound may be 200 ppm fast.
const FASTEST: f64 = 1.0 - LIVE_PPM / 1e6;

impl Playback {
    /// Plays on a device, or on the default one; `wake` signals that it requests a frame.
    pub fn open(id: Option<&str>, latency: Latency, wake: Wake) -> anyhow::Result<Self> {
        let buffer = held(latency);
        let (frames, incoming) = sync_channel::<Vec<i16>>(2);
        let (has_ended, ended) = sync_channel(1);
        let shared = Arc::new(Shared {
            asked: AtomicU32::new(0),
            step_ms: AtomicU32::new(0),
            sounds_at: Mutex::new(None),
        });
        let of_thread = shared.clone();
        serve_on_thread(id, Direction::Playback, latency, buffer, move |device| {
            // moved into the thread, dropped at its end
            let _ = &has_ended;
            let step_ms = of_thread.step_ms.load(Ordering::Relaxed);
            if step_ms > 0 {
                device.set_buffer(Duration::from_millis(step_ms.into()));
                device.fill_up();
            }
            *of_thread.sounds_at() = device.sounds_at();
            of_thread.asked.fetch_add(1, Ordering::Relaxed);
            wake.wake();
            let Ok(samples) = incoming.recv() else {
                // silence pushes the rest of the sound out of the device
                if let Some(pcm) = &device.pcm {
                    let silence = vec![0; frame_samples(latency)];
                    let frames = buffer.div_duration_f64(frame_time(latency)).ceil() as u32;
                    let _ = (0..frames).try_for_each(|_| write(pcm, &silence));
                }
                return false;
            };
            device.frame(|pcm| write(pcm, &samples));
            true
        })?;
        Ok(Self {
            frames: Some(frames),
            ended,
            shared,
            not_before: Instant::now(),
            frame_time: frame_time(latency),
        })
    }

    /// Returns when the next frame must be given. None: when the device requests it.
    pub fn due(&self) -> Option<Instant> {
        (self.shared.asked.load(Ordering::Relaxed) > 0).then_some(self.not_before)
    }

    /// Returns when the requested frame will sound, if it is known.
    pub fn sounds_at(&self) -> Option<Instant> {
        *self.shared.sounds_at()
    }

    /// Leaves the network enough of the delay in step.
    pub fn play_in_step(&self, play_after: Duration) {
        let buffer = held_in_step(play_after).as_millis();
        let buffer = u32::try_from(buffer).unwrap_or(u32::MAX);
        self.shared.step_ms.store(buffer, Ordering::Relaxed);
    }

    /// Passes a frame that the device requested.
    pub fn write(&mut self, frame: Vec<i16>, now: Instant) -> io::Result<()> {
        self.shared.asked.fetch_sub(1, Ordering::Relaxed);
        let earliest = now.checked_sub(3 * self.frame_time).unwrap_or(now);
        self.not_before = self.not_before.max(earliest) + self.frame_time.mul_f64(FASTEST);
        let gone = || io::Error::other("the loudspeaker's thread has ended");
        let frames = self.frames.as_ref().ok_or_else(gone)?;
        frames.try_send(frame).map_err(|_| gone())
    }

    /// Waits until the device has all sound, but no longer than playing it takes.
    pub fn finish(mut self) {
        self.frames = None;
        let longest = held(Latency::Safe) + 5 * FRAME_TIME;
        let _ = self.ended.recv_timeout(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_names_of_a_card_one_is_to_choose() {
        for id in [
            "default",
            "pipewire",
            "pulse",
            "jack",
            "studio",
            "plughw:CARD=PCH,DEV=0",
        ] {
            assert!(is_to_choose(id), "{id}");
        }
        for id in [
            "null",
            "hw:CARD=PCH,DEV=0",
            "sysdefault:CARD=PCH",
            "front:CARD=PCH,DEV=0",
            "upmix",
        ] {
            assert!(!is_to_choose(id), "{id}");
        }
    }
}
