//! `lcradio call`: a participant of a call, by devices or pipes.

use std::io::{self, IsTerminal, Write};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lcradio_core::{
    BEACON_PORT, CLOCK_RATE, Call, CallConfig, CallEvent, CallKey, FRAME, Latency, MAX_CASTERS,
    MEDIA_PORT, Participant, Quality, SoundPacket, Speaking, Standing, Transmit,
};
use librecast::socket;
use librecast::time::UnixTime;
use librecast_program::cli::{Common, Exit};
use librecast_program::guest;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cast::read_ahead;
use crate::codec::{Encoder, OUT_CHANNELS};
use crate::device::{self, Capture, Playback};
use crate::keys;
use crate::level::Level;
use crate::mixer::{Clock, Mixer};
use crate::network::{CasterNetwork, Memberships, Port, why_silent};
use crate::pace::LIVE_PPM;
use crate::pipe::Pipe;
use crate::process::{Wake, confine};
use crate::source::{Sound, Source};
use crate::talk::{Gate, SpaceBar, Talk};
use crate::values::{self, hint};

/// Samples and time of a frame: 10 ms.
const SAMPLES: u32 = FRAME / 2;
const FRAME_TIME: Duration = Duration::from_millis(10);
/// Bits per second of speech.
const BITRATE: u32 = 32_000;
/// Longest packet that means silence (RFC 7587, 3.1.3: DTX).
const SILENT: usize = 2;
/// Delay of a pipe's sound after which it has paused.
const PAUSE: Duration = Duration::from_millis(200);
/// Delay that a pipe's sound catches up at once. Chosen: more than a busy host is late.
const CATCHES_UP: Duration = Duration::from_millis(100);
/// Delay of the output after which this host slept, and catches up with nothing.
const SLEPT: Duration = Duration::from_millis(200);
/// Time between two status lines.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Time alone after which the reason is printed.
const ALONE: Duration = Duration::from_secs(5);
/// Longest wait for the last beacons.
const END: Duration = Duration::from_secs(1);
/// Keys that wait for the loop.
const MAX_KEYS: usize = 16;
/// Part of the name of a device that does not play what it records.
const HEADSET: &str = "headset";

/// The options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// What `call` printed, or `-` to read it from standard input; `lct1...,lcc1...` enters a network by its token,
    /// without root and daemon [default: a new call, whose text it prints]
    pub call: Option<String>,
    /// A file with the call's text, a secret
    #[arg(long, value_name = "FILE", conflicts_with = "call")]
    pub call_file: Option<PathBuf>,
    /// Your name, as the others see it [default: the user's]
    #[arg(long)]
    pub name: Option<String>,
    /// Only listen: nobody sees it
    #[arg(long, conflicts_with_all = ["name", "push_to_talk", "muted", "unmuted", "input"])]
    pub listen: bool,
    /// Microphone and loudspeakers, as `devices` names them [default: the system's]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Samples on standard input in the place of the microphone: s16le, 48 kHz, two channels; or WAV
    #[arg(long, value_name = "-")]
    pub input: Option<values::Pipe>,
    /// Samples to standard output in the place of loudspeakers: s16le, 48 kHz, two channels
    #[arg(long, value_name = "-")]
    pub output: Option<values::Pipe>,
    /// Begin muted, and talk while you want it: the space bar, or SIGUSR1 and SIGUSR2
    #[arg(long, conflicts_with_all = ["muted", "unmuted"])]
    pub push_to_talk: bool,
    /// Begin muted [default: unless the device is a headset, as others would hear themselves]
    #[arg(long, conflicts_with = "unmuted")]
    pub muted: bool,
    /// Do not begin muted: nothing of the loudspeakers comes into the microphone
    #[arg(long)]
    pub unmuted: bool,
}

impl Options {
    /// Returns whether it begins muted: loudspeakers would let the others hear themselves.
    fn begins_muted(&self) -> bool {
        let is_headset = |id: &String| {
            let name = device::list().ok().and_then(|all| {
                let device = all.into_iter().find(|device| device.id == *id)?;
                Some(device.name.to_lowercase())
            });
            let has = |text: &str| text.to_lowercase().contains(HEADSET);
            has(id) || name.is_some_and(|name| has(&name))
        };
        let is_safe = || self.input.is_some() || self.device.as_ref().is_some_and(is_headset);
        self.push_to_talk || self.muted || !self.unmuted && !is_safe()
    }

    fn name(&self) -> String {
        let of_user = || std::env::var("USER").ok().filter(|name| !name.is_empty());
        let of_host = || nix::unistd::gethostname().ok()?.into_string().ok();
        let name = self.name.clone().or_else(of_user).or_else(of_host);
        name.unwrap_or_default()
    }
}

/// Takes part in a call until a key, a signal, or the end of a pipe.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    if !options.listen {
        guest::check_may_send("talk in a call (--listen only listens)")?;
    }
    let given = keys::call(options.call.as_deref(), options.call_file.as_deref())?;
    let is_new = given.is_none();
    let key = match given {
        Some(key) => key,
        None => CallKey::from_seed(&*keys::random()?),
    };
    confine()?;
    let talk = Talk::default();
    let is_muted = options.begins_muted();
    talk.set(!is_muted);
    let by_signal = talk.clone();
    let signals = [Signal::SIGUSR1, Signal::SIGUSR2];
    let wake = Wake::on_signals(&signals, move |signal| {
        by_signal.set(signal == Signal::SIGUSR1);
    })?;
    let device = options.device.as_deref();
    let player = match options.output.is_some() {
        true => Player::Pipe {
            pipe: Pipe::open(wake.clone())?,
            due: Instant::now(),
        },
        false => Player::Device(Playback::open(device, Latency::Call, wake.clone())?),
    };
    let source = match (options.listen, options.input.is_some()) {
        (true, _) => None,
        (false, true) => Some(Source::stdin().context("standard input")?),
        (false, false) => {
            let capture = Capture::open(device, Latency::Call)?;
            Some(Source::microphone(capture))
        }
    };
    let now = Instant::now();
    let config = CallConfig {
        name: options.name(),
        talks: !options.listen,
        is_muted,
        seed: *keys::random()?,
    };
    let microphone = match source {
        Some(source) => Some(Microphone::new(source, options.input.is_none(), &wake)?),
        None => None,
    };
    let (press, pressed) = sync_channel(MAX_KEYS);
    let woken = wake.clone();
    let _terminal = SpaceBar::on_keys(move |key| {
        // more than anybody presses is dropped
        let _ = press.try_send(key);
        woken.wake();
    });
    let call = Call::new(&key, config, now);
    let mut taking_part = TakingPart::new(options, common, call, microphone, player, talk, now)?;
    taking_part.say_where(&key, is_new)?;
    let ended = taking_part.run(&wake, &pressed);
    taking_part.leave(&wake)?;
    ended
}

/// The sound of this participant.
struct Microphone {
    frames: Receiver<io::Result<Sound>>,
    channels: u8,
    /// A device sets the pace itself; a pipe may be read faster.
    is_device: bool,
    /// When a pipe's next frame is sent.
    due: Option<Instant>,
    encoder: Encoder,
    gate: Gate,
    level: Level,
}

impl Microphone {
    fn new(source: Source, is_device: bool, wake: &Wake) -> anyhow::Result<Self> {
        let channels = source.channels();
        Ok(Self {
            frames: read_ahead(source.in_frames(SAMPLES), wake.clone())?,
            channels,
            is_device,
            due: None,
            encoder: Encoder::of_call(BITRATE)?,
            gate: Gate::default(),
            level: Level::default(),
        })
    }

    fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_device)
    }

    /// Notes a frame; returns the length of a pause before it.
    fn pace(&mut self, now: Instant) -> Option<Duration> {
        let due = self.due.unwrap_or(now);
        let late = now.saturating_duration_since(due);
        let earliest = now.checked_sub(CATCHES_UP).unwrap_or(now);
        let length = FRAME_TIME.div_f64(1.0 + LIVE_PPM / 1e6);
        self.due = Some(due.max(earliest) + length);
        (late > PAUSE && !self.is_device).then_some(late)
    }

    /// Returns one channel of a frame.
    fn mono(&self, samples: Vec<i16>) -> Vec<i16> {
        if self.channels == 1 {
            return samples;
        }
        let (pairs, _) = samples.as_chunks::<2>();
        pairs.iter().map(|[l, r]| i16::midpoint(*l, *r)).collect()
    }
}

/// The output of the others' sound.
enum Player {
    Pipe { pipe: Pipe, due: Instant },
    Device(Playback),
}

impl Player {
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Pipe { due, .. } => Some(*due),
            Self::Device(playback) => playback.due(),
        }
    }

    fn write(&mut self, frame: Vec<i16>, now: Instant) -> io::Result<()> {
        match self {
            Self::Device(playback) => playback.write(frame, now),
            Self::Pipe { pipe, due } => {
                let next = *due + FRAME_TIME;
                let has_slept = now.saturating_duration_since(next) > SLEPT;
                *due = if has_slept { now } else { next };
                pipe.write(frame)
            }
        }
    }
}

struct TakingPart<'a> {
    options: &'a Options,
    common: &'a Common,
    call: Call,
    network: CasterNetwork,
    memberships: Memberships,
    microphone: Option<Microphone>,
    player: Player,
    mixer: Mixer,
    talk: Talk,
    speaking: [Speaking; MAX_CASTERS],
    status_at: Instant,
    /// When it is explained that nobody is here.
    alone_at: Option<Instant>,
}

impl<'a> TakingPart<'a> {
    fn new(
        options: &'a Options,
        common: &'a Common,
        call: Call,
        microphone: Option<Microphone>,
        player: Player,
        talk: Talk,
        now: Instant,
    ) -> anyhow::Result<Self> {
        let only = &common.interfaces;
        let network = CasterNetwork::open_in_call(call.station(), only, now);
        let mut memberships = Memberships::open(&[MEDIA_PORT, BEACON_PORT], only)?;
        for port in [MEDIA_PORT, BEACON_PORT] {
            memberships.join(port, call.station().group());
        }
        Ok(Self {
            options,
            common,
            network: network.context("multicast sockets")?,
            memberships,
            microphone,
            player,
            mixer: Mixer::new(Latency::Call, Clock::Device),
            talk,
            speaking: Default::default(),
            status_at: now + STATUS_INTERVAL,
            alone_at: Some(now + ALONE),
            call,
        })
    }

    /// Prints the text of a new call, and how to use the keys.
    fn say_where(&self, key: &CallKey, is_new: bool) -> io::Result<()> {
        let text = is_new.then(|| key.encode());
        if self.common.json {
            let mut told = json!({
                "station": *key.station().encode(),
                "group": key.station().group(),
                "interfaces": self.network.interface_names(),
            });
            // who entered by a file may not want it in a log
            if let Some(text) = &text {
                told["call"] = json!(**text);
            }
            self.print(&told.to_string())?;
        } else if let Some(text) = &text {
            self.print(text)?;
            hint("who has this text talks, and hears all: lcradio call lcc1...");
        }
        if !self.common.json && io::stderr().is_terminal() {
            hint("space mutes, q leaves, 1 to 8 turn off who has this place, for you alone");
        }
        Ok(())
    }

    /// Prints a line that programs read: to standard error if sound has standard output.
    fn print(&self, line: &str) -> io::Result<()> {
        match self.player {
            Player::Pipe { .. } => writeln!(librecast_program::standard::errors(), "{line}"),
            Player::Device(_) => {
                let mut out = librecast_program::standard::output();
                writeln!(out, "{line}").and_then(|()| out.flush())
            }
        }
    }

    /// Prints a line for people, on a terminal in the place of the status line.
    fn say(&self, line: &str) {
        if self.common.json {
            return;
        }
        let begin = match io::stderr().is_terminal() {
            true => "\r\x1b[K",
            false => "",
        };
        // the reader may be gone
        let _ = writeln!(librecast_program::standard::errors(), "{begin}{line}");
    }

    fn run(&mut self, wake: &Wake, keys: &Receiver<u8>) -> anyhow::Result<Exit> {
        loop {
            let now = Instant::now();
            if let Some(exit) = wake.interrupted() {
                return Ok(exit);
            }
            anyhow::ensure!(
                !socket::is_closed(),
                "the network of this call has ended: take part again"
            );
            while let Ok(key) = keys.try_recv() {
                match key {
                    b' ' => self.talk.set(!self.talk.is_on()),
                    b'q' | b'Q' => return Ok(Exit::Ok),
                    b'1'..=b'8' => self.ignore(key - b'1'),
                    _ => {}
                }
            }
            self.network.turn(now)?;
            self.network.look_at_interfaces(now)?;
            self.memberships.look_at_interfaces(now)?;
            self.receive()?;
            self.call.handle_timeout(now, UnixTime::now());
            self.follow_talk(now);
            if !self.speak(now)? {
                return Ok(Exit::Ok);
            }
            self.transmit(now);
            self.hear(now)?;
            self.play(now)?;
            if now >= self.status_at {
                self.status_at = now + STATUS_INTERVAL;
                self.show_status()?;
            }
            self.explain_silence(now);
            let fds = self.network.fds().chain(self.memberships.fds());
            wake.wait(fds, self.next_at(now))?;
        }
    }

    fn next_at(&self, now: Instant) -> Instant {
        let microphone = self.microphone.as_ref();
        // a frame that is late wakes by itself
        let frame = microphone.and_then(Microphone::due).filter(|at| *at > now);
        let times = [
            Some(self.status_at),
            Some(self.call.next_timeout()),
            self.player.due(),
            self.network.next_timeout(),
            frame,
        ];
        times.into_iter().flatten().min().unwrap_or(now)
    }

    fn receive(&mut self) -> io::Result<()> {
        let call = &mut self.call;
        self.memberships.receive(|port, datagram| {
            let to = (datagram.group, port);
            // when it arrived, not when this turn began
            let (now, time) = (Instant::now(), UnixTime::now());
            call.handle_datagram(to, datagram.source, datagram.payload, now, time);
        })?;
        // it has the same beacons
        self.network.receive(|_, _, _| {})
    }

    fn follow_talk(&mut self, now: Instant) {
        let is_muted = !self.talk.is_on();
        if self.call.is_muted() != is_muted && !self.options.listen {
            self.call.set_muted(is_muted, now);
            self.say(if is_muted {
                "You are muted."
            } else {
                "You talk."
            });
        }
    }

    /// Turns the sound of a participant off or on, for this user.
    fn ignore(&mut self, place: u8) {
        let current = self.call.participants().find(|p| p.place == place);
        let Some(current) = current.map(|p| p.is_ignored) else {
            return;
        };
        let Some(Participant {
            name, is_ignored, ..
        }) = self.call.set_ignored(place, !current)
        else {
            return;
        };
        let line = match is_ignored {
            true => format!("You hear {name} no longer."),
            false => format!("You hear {name} again."),
        };
        self.say(&line);
    }

    /// Sends the frames that are due; false at the end of a pipe.
    fn speak(&mut self, now: Instant) -> anyhow::Result<bool> {
        let Some(microphone) = &mut self.microphone else {
            return Ok(true);
        };
        while microphone.due().is_none_or(|due| now >= due) {
            let sound = match microphone.frames.try_recv() {
                Ok(sound) => sound?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(false),
            };
            let Sound::Samples(samples) = sound else {
                continue;
            };
            if let Some(paused) = microphone.pace(now) {
                let samples = paused.as_secs_f64() * f64::from(CLOCK_RATE);
                self.call.skip(samples as u32);
            }
            let mut samples = microphone.mono(samples);
            microphone.level.add(&samples);
            let sends_sound = self.call.sends_sound();
            microphone.gate.pass(&mut samples, 1, sends_sound);
            if !sends_sound {
                self.call.skip(SAMPLES);
                continue;
            }
            let packet = microphone.encoder.encode(&samples)?;
            match packet.len() <= SILENT {
                true => self.call.skip(SAMPLES),
                false => drop(self.call.send(&packet, SAMPLES, now)),
            }
        }
        Ok(true)
    }

    fn transmit(&mut self, now: Instant) {
        let group = self.call.station().group();
        while let Some(transmit) = self.call.poll_transmit(now) {
            let (call, network) = (&mut self.call, &self.network);
            match transmit {
                Transmit::Packet(packet) => {
                    network.send(Port::Media, group, now, |_| Some(packet.clone()));
                }
                Transmit::Beacon => network.send(Port::Beacon, group, now, |source: Ipv6Addr| {
                    call.beacon(source, UnixTime::now()).ok()
                }),
                // a call has none of them
                _ => {}
            }
        }
    }

    fn hear(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(event) = self.call.poll_event(now) {
            match event {
                CallEvent::Sound(packet) => self.sound(packet)?,
                CallEvent::Came(participant) => {
                    self.alone_at = None;
                    let Participant { name, place, .. } = &participant;
                    let number = place + 1;
                    self.say(&format!("{name} came, at {number}."));
                }
                CallEvent::Left(Participant { name, place, .. }) => {
                    self.mixer.end(place);
                    self.speaking[usize::from(place)] = Speaking::default();
                    self.say(&format!("{name} has left."));
                }
                CallEvent::Changed(Participant {
                    name,
                    is_muted,
                    is_away,
                    ..
                }) => {
                    let line = match (is_away, is_muted) {
                        (true, _) => "is away",
                        (false, true) => "is muted",
                        (false, false) => "can be heard",
                    };
                    self.say(&format!("{name} {line}."));
                }
                CallEvent::Standing(standing) => self.say_standing(standing),
            }
        }
        Ok(())
    }

    fn say_standing(&self, standing: Standing) {
        let line = match (standing, self.call.is_muted()) {
            (Standing::Full, _) => {
                "The call is full: eight talk. You listen, and take the next free place."
            }
            (Standing::Talks, true) => "You are in the call, muted: the space bar lets you talk.",
            (Standing::Talks, false) => "You are in the call, and can be heard.",
            _ => return,
        };
        self.say(line);
    }

    fn sound(&mut self, packet: SoundPacket) -> anyhow::Result<()> {
        if !self.mixer.push(packet)? {
            self.call.count_expired();
        }
        Ok(())
    }

    fn play(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some(due) = self.player.due().filter(|due| *due <= now) {
            let at = match self.player {
                // a reader counts samples
                Player::Pipe { .. } => due,
                Player::Device(_) => now,
            };
            let (speaking, mut changed) = (&mut self.speaking, Vec::new());
            let sound = self.mixer.frame_of_each(at, |place, sound| {
                let sum: f64 = sound.iter().map(|s| f64::from(*s).powi(2)).sum();
                let power = sum / sound.len() as f64 / f64::from(i16::MAX).powi(2);
                let samples = (sound.len() / OUT_CHANNELS) as u32;
                let speaking = &mut speaking[usize::from(place)];
                if speaking.add(power, samples) == Some(true) {
                    changed.push(place);
                }
            });
            for place in changed {
                let mut all = self.call.participants();
                if let Some(speaker) = all.find(|p| p.place == place) {
                    self.say(&format!("{} speaks.", speaker.name));
                }
            }
            self.player.write(sound, now)?;
        }
        Ok(())
    }

    /// Says once where this participant waits for others, if nobody comes.
    fn explain_silence(&mut self, now: Instant) {
        if self.alone_at.is_none_or(|at| now < at) {
            return;
        }
        self.alone_at = None;
        let on = self.memberships.interface_names();
        self.say(&format!(
            "lcradio: nobody else is here, on {on}. If somebody is in this call: {}; firewalls must let in UDP ports \
             5004 and 5006, and clocks be less than an hour apart",
            why_silent(&on)
        ));
    }

    fn status(&mut self) -> Value {
        let standing = match self.call.standing() {
            Standing::Looking => "looking",
            Standing::Talks => "talks",
            Standing::Full => "full",
            Standing::Listens => "listens",
            Standing::Left => "left",
        };
        let all = self.call.participants().map(|p| {
            let speaks = self.speaking[usize::from(p.place)].speaks();
            json!({
                "place": p.place + 1,
                "name": p.name,
                "muted": p.is_muted,
                "away": p.is_away,
                "ignored": p.is_ignored,
                "speaks": speaks && !p.is_muted && !p.is_ignored,
            })
        });
        let participants: Vec<Value> = all.collect();
        let level = self.microphone.as_mut().and_then(|m| m.level.take());
        let (loss, stats) = (self.call.loss(), self.mixer.stats());
        json!({
            "standing": standing,
            "name": self.call.name(),
            "muted": self.call.is_muted(),
            "participants": participants,
            "level_dbfs": level,
            "sent": loss.sent,
            "lost": loss.lost,
            "buffer_ms": stats.buffered.as_millis(),
            "target_ms": stats.target.as_millis(),
            "resyncs": stats.resyncs,
            "stretched": stats.stretched,
            "drops": self.call.drops().by_name(),
        })
    }

    fn show_status(&mut self) -> io::Result<()> {
        let status = self.status();
        if self.common.json {
            return self.print(&status.to_string());
        }
        if !io::stderr().is_terminal() {
            return Ok(());
        }
        let own = match (self.call.standing(), self.call.is_muted()) {
            (Standing::Looking, _) => "looking who is here".to_owned(),
            (Standing::Full, _) => "full, listening".to_owned(),
            (Standing::Listens | Standing::Left, _) => "listening".to_owned(),
            (Standing::Talks, true) => "muted".to_owned(),
            (Standing::Talks, false) => match status["level_dbfs"].as_f64() {
                Some(level) => crate::level::as_text(level),
                None => "silence".to_owned(),
            },
        };
        let others = self.call.participants().map(|p| {
            let remark = match (p.is_ignored, p.quality, p.is_away, p.is_muted) {
                (true, ..) => " (off)",
                (false, Quality::Reconnecting, ..) => " (reconnecting)",
                (false, _, true, _) => " (away)",
                (false, _, false, true) => " (muted)",
                (false, Quality::Poor, ..) => " (poor connection)",
                (false, Quality::Good, false, false) => "",
            };
            format!("{} {}{remark}", p.place + 1, p.name)
        });
        let others: Vec<String> = others.collect();
        let others = match others.is_empty() {
            true => "nobody else".to_owned(),
            false => others.join(", "),
        };
        let mut err = librecast_program::standard::errors();
        write!(err, "\r\x1b[K{own} | {others}")?;
        err.flush()
    }

    /// Sends the last beacons, so that the place is free at once.
    fn leave(&mut self, wake: &Wake) -> io::Result<()> {
        let begun = Instant::now();
        self.call.leave(begun);
        loop {
            let now = Instant::now();
            self.transmit(now);
            if self.call.has_left() || now >= begun + END {
                break;
            }
            let until = self.call.next_timeout().min(begun + END);
            wake.wait(std::iter::empty(), until)?;
        }
        if io::stderr().is_terminal() && !self.common.json {
            writeln!(librecast_program::standard::errors())?;
        }
        Ok(())
    }
}
