//! `lcradio listen`: a station becomes a recording, or samples for a pipe.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use lcradio_core::{
    BEACON_PORT, CLOCK_RATE, Channel, Description, Directory, DropReason, Event, FRAME, Frame,
    Latency, Listener, Order, Piece, Playout, SAP_GROUP, SAP_PORT, SoundPacket, Tuned,
};
use librecast_program::cli::{Exit, ExitError};
use serde_json::{Value, json};

use crate::codec::Decoder;
use crate::keys::{self, Wanted};
use crate::level::Level;
use crate::network::Memberships;
use crate::pipe::Pipe;
use crate::process::{Wake, confine, unix_ms};
use crate::recording::Recording;

/// After the end of a session a caster may come back within this time.
const END_TIME: Duration = Duration::from_secs(3);
/// How often figures are shown.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Where sound goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A file of Ogg Opus.
    Recording(PathBuf),
    /// Samples to standard output.
    Pipe,
}

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// The station, or its name.
    pub station: Option<String>,
    /// A file with its text.
    pub station_file: Option<PathBuf>,
    /// Where sound goes.
    pub output: Output,
    /// How much delay.
    pub latency: Latency,
    /// Longest time without anything of the station.
    pub timeout: Duration,
    /// Interfaces; none: all that can carry multicast.
    pub interfaces: Vec<String>,
    /// Figures as JSON.
    pub json: bool,
}

/// Listens until the station ends, or somebody ends it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    confine()?;
    let wake = Wake::on_interrupt()?;
    let wanted = keys::wanted(options.station.as_deref(), options.station_file.as_deref())?;
    let tuned = match wanted {
        Wanted::Station(station) => Tuned::Station(station),
        Wanted::Name(name) => match find(&name, options, &wake)? {
            Ok(description) => tuned(description),
            Err(exit) => return Ok(exit),
        },
    };
    let output = match &options.output {
        Output::Recording(path) => {
            let [a, b, c, d, ..] = *keys::random()?;
            let recording = Recording::create(path, u32::from_be_bytes([a, b, c, d]));
            Sink::Recording {
                recording: recording.with_context(|| path.display().to_string())?,
                order: Order::default(),
                path: path.clone(),
            }
        }
        Output::Pipe => Sink::Pipe {
            pipe: Pipe::open(wake.clone())?,
            playout: Playout::new(options.latency, Instant::now()),
            due: None,
        },
    };
    Listen::new(options, tuned, output)?.run(&wake)
}

fn tuned(description: Description) -> Tuned {
    match description.station.clone() {
        Some(station) => Tuned::Station(station),
        None => Tuned::Unsigned(description),
    }
}

/// Waits for the announcement of a public station.
fn find(name: &str, options: &Options, wake: &Wake) -> anyhow::Result<Result<Description, Exit>> {
    let begun = Instant::now();
    let mut network = Memberships::open(&[SAP_PORT], &options.interfaces)?;
    network.join(SAP_PORT, SAP_GROUP);
    let mut directory = Directory::new(begun);
    loop {
        let now = Instant::now();
        if let Some(exit) = wake.interrupted() {
            return Ok(Err(exit));
        }
        network.look_at_interfaces(now)?;
        network.receive(|_, _, source, datagram| {
            directory.handle_datagram(source, datagram, now);
        })?;
        match directory.named(name)[..] {
            [] => {}
            [entry] => return Ok(Ok(entry.description.clone())),
            [..] => {
                let message = format!(
                    "several stations are called {name}: name one by its text (lcradio stations)"
                );
                return Err(ExitError::new(Exit::Usage, message).into());
            }
        }
        if now.saturating_duration_since(begun) >= options.timeout {
            let message = format!("no station called {name} has announced itself");
            return Err(ExitError::new(Exit::Unreachable, message).into());
        }
        wake.wait(network.fds(), begun + options.timeout)?;
    }
}

/// Where sound goes, and what decides when.
enum Sink {
    Recording {
        recording: Recording,
        order: Order,
        path: PathBuf,
    },
    Pipe {
        pipe: Pipe,
        playout: Playout,
        /// When the next frame is to be written; none before the first packet.
        due: Option<Instant>,
    },
}

struct Listen<'a> {
    options: &'a Options,
    listener: Listener,
    network: Memberships,
    sink: Sink,
    decoder: Decoder,
    level: Level,
    has_copy: bool,
    /// When anything of the station came.
    alive_at: Instant,
    ended_at: Option<Instant>,
    status_at: Instant,
    clock_warned: bool,
    name: String,
    title: String,
    talking: bool,
}

impl<'a> Listen<'a> {
    fn new(options: &'a Options, tuned: Tuned, sink: Sink) -> anyhow::Result<Self> {
        let now = Instant::now();
        let (port, group) = (tuned.media_port(), tuned.group());
        let ports = [port, BEACON_PORT];
        let ports = if port == BEACON_PORT {
            &ports[..1]
        } else {
            &ports
        };
        let mut network = Memberships::open(ports, &options.interfaces)?;
        network.join(port, group);
        if let Tuned::Station(_) = tuned {
            network.join(BEACON_PORT, group);
        }
        Ok(Self {
            options,
            listener: Listener::new(tuned, now),
            network,
            sink,
            decoder: Decoder::new()?,
            level: Level::default(),
            has_copy: false,
            alive_at: now,
            ended_at: None,
            status_at: now + STATUS_INTERVAL,
            clock_warned: false,
            name: String::new(),
            title: String::new(),
            talking: false,
        })
    }

    fn run(mut self, wake: &Wake) -> anyhow::Result<Exit> {
        loop {
            let now = Instant::now();
            if let Some(exit) = wake.interrupted() {
                return self.finish(now).map(|()| exit);
            }
            self.network.look_at_interfaces(now)?;
            self.receive(now)?;
            self.listener.handle_timeout(now);
            self.follow_copy();
            self.put_out(now)?;
            if now >= self.status_at {
                self.status_at = now + STATUS_INTERVAL;
                self.show_status()?;
            }
            if let Some(at) = self.ended_at
                && now.saturating_duration_since(at) >= END_TIME
            {
                return self.finish(now).map(|()| Exit::Ok);
            }
            if now.saturating_duration_since(self.alive_at) >= self.options.timeout {
                let told = self.why_nothing();
                self.finish(now)?;
                return Err(told.into());
            }
            let until = self.next_at(now);
            wake.wait(self.network.fds(), until)?;
        }
    }

    fn next_at(&self, now: Instant) -> Instant {
        let output = match &self.sink {
            Sink::Recording { order, .. } => order.poll_timeout(),
            Sink::Pipe { due, .. } => *due,
        };
        let ended = self.ended_at.map(|at| at + END_TIME);
        let times = [
            Some(self.listener.poll_timeout()),
            Some(self.status_at),
            Some(self.alive_at + self.options.timeout),
            output,
            ended,
        ];
        times.into_iter().flatten().min().unwrap_or(now)
    }

    fn why_nothing(&self) -> ExitError {
        let timeout = self.options.timeout.as_secs_f64();
        if self.listener.drops().get(DropReason::BeaconTime) > 0 {
            let message = "the clocks of the station and of this host are more than an hour apart";
            return ExitError::new(Exit::Failed, message);
        }
        if self.listener.is_of_another_key() {
            let message = "someone sends here, this key does not open it";
            return ExitError::new(Exit::NotPermitted, message);
        }
        let message = format!("nothing came for {timeout} s");
        ExitError::new(Exit::Unreachable, message)
    }

    fn receive(&mut self, now: Instant) -> anyhow::Result<()> {
        let tuned = self.listener.tuned();
        let (media, copy) = (tuned.media_port(), tuned.copy_group());
        let listener = &mut self.listener;
        self.network.receive(|port, group, source, datagram| {
            let channel = match port {
                _ if Some(group) == copy => Channel::Copy,
                port if port == media => Channel::Media,
                _ => Channel::Beacon,
            };
            listener.handle_datagram(channel, source, datagram, now, unix_ms());
        })?;
        if let Some(at) = self.listener.alive_at() {
            self.alive_at = self.alive_at.max(at);
        }
        while let Some(event) = self.listener.poll_event() {
            match event {
                Event::Station(beacon) => {
                    self.ended_at = None;
                    let text = beacon.map(|b| (b.name, b.title, b.is_talking));
                    let (name, title, talking) = text.unwrap_or_default();
                    let is_new = (&name, &title) != (&self.name, &self.title);
                    (self.name, self.title, self.talking) = (name, title, talking);
                    if is_new && !self.options.json {
                        self.say(&format!("on air: {} {}", self.name, self.title))?;
                    }
                }
                Event::Sound(packet) => self.sound(packet, now),
                Event::Ended => {
                    self.ended_at = Some(now);
                    if let Sink::Pipe { playout, .. } = &mut self.sink {
                        playout.end();
                    }
                }
            }
        }
        if !self.clock_warned && self.listener.drops().get(DropReason::BeaconTime) > 0 {
            self.clock_warned = true;
            tracing::warn!(
                "the clocks of the station and of this host are more than an hour apart"
            );
        }
        Ok(())
    }

    fn say(&self, line: &str) -> io::Result<()> {
        let mut err = io::stderr().lock();
        if err.is_terminal() {
            write!(err, "\r\x1b[K")?;
        }
        writeln!(err, "{}", line.trim_end())
    }

    fn sound(&mut self, packet: SoundPacket, now: Instant) {
        let is_of_use = match &mut self.sink {
            Sink::Recording { order, .. } => order.push(packet),
            Sink::Pipe { playout, due, .. } => {
                due.get_or_insert(now);
                playout.push(packet)
            }
        };
        if !is_of_use {
            self.listener.count(DropReason::Expired);
        }
    }

    /// Joins the copy group, or leaves it.
    fn follow_copy(&mut self) {
        let tuned = self.listener.tuned();
        let (port, copy) = (tuned.media_port(), tuned.copy_group());
        let wants = self.listener.wants_copy();
        if let Some(group) = copy
            && wants != self.has_copy
        {
            self.has_copy = wants;
            if wants {
                self.network.join(port, group);
            } else {
                self.network.leave(port, group);
            }
        }
    }

    fn put_out(&mut self, now: Instant) -> anyhow::Result<()> {
        match &mut self.sink {
            Sink::Recording { order, .. } => {
                let pieces: Vec<Piece> = std::iter::from_fn(|| order.poll(now)).collect();
                self.record(&pieces)
            }
            Sink::Pipe { .. } => self.play(now),
        }
    }

    fn record(&mut self, pieces: &[Piece]) -> anyhow::Result<()> {
        let Sink::Recording {
            recording, path, ..
        } = &mut self.sink
        else {
            return Ok(());
        };
        for piece in pieces {
            let result = recording.write(piece);
            let seconds = recording.seconds_on_disk();
            result.with_context(|| format!("{}: {seconds:.1} s were recorded", path.display()))?;
            if let Piece::Packet(packet) = piece {
                // what libopus cannot decode is recorded all the same
                let sound = self.decoder.decode(&packet.payload).unwrap_or_default();
                self.level.add(&sound);
            }
        }
        Ok(())
    }

    fn play(&mut self, now: Instant) -> anyhow::Result<()> {
        let Sink::Pipe { pipe, playout, due } = &mut self.sink else {
            return Ok(());
        };
        while let Some(at) = due.filter(|at| *at <= now) {
            let sound = decoded(&mut self.decoder, playout.poll_frame(now));
            let samples = sound.len() as f64 / 2.0;
            self.level.add(&sound);
            pipe.write(sound)?;
            let length = samples / f64::from(CLOCK_RATE) / (1.0 + playout.speed_ppm() / 1e6);
            let next = at + Duration::from_secs_f64(length);
            // a host that slept does not catch up
            let is_behind = now.saturating_duration_since(next) > STATUS_INTERVAL;
            *due = Some(if is_behind { now } else { next });
        }
        Ok(())
    }

    fn status(&mut self) -> Value {
        let loss = self.listener.loss();
        let mut status = json!({
            "name": self.name,
            "title": self.title,
            "talking": self.talking,
            "level_dbfs": self.level.take(),
            "sent": loss.sent,
            "lost_before_copy": loss.lost_before_copy,
            "lost": loss.lost,
            "copy": self.has_copy,
            "drops": self.listener.drops().by_name(),
        });
        match &self.sink {
            Sink::Recording { recording, .. } => {
                status["recorded_s"] = json!((recording.seconds() * 100.0).round() / 100.0);
            }
            Sink::Pipe { pipe, playout, .. } => {
                let stats = playout.stats();
                status["buffer_ms"] = json!(stats.buffered.as_millis());
                status["target_ms"] = json!(stats.target.as_millis());
                status["drift_ppm"] = json!((playout.speed_ppm() * 10.0).round() / 10.0);
                status["underruns"] = json!(stats.underruns);
                status["concealed"] = json!(stats.concealed);
                status["stretched"] = json!(stats.stretched);
                status["resyncs"] = json!(stats.resyncs);
                status["overruns"] = json!(pipe.overruns);
            }
        }
        status
    }

    fn show_status(&mut self) -> anyhow::Result<()> {
        let is_terminal = io::stderr().is_terminal();
        if !self.options.json && !is_terminal {
            self.level.take();
            return Ok(());
        }
        let status = self.status();
        if self.options.json {
            // sound has standard output where it goes to a pipe
            match self.sink {
                Sink::Recording { .. } => writeln!(io::stdout().lock(), "{status}")?,
                Sink::Pipe { .. } => writeln!(io::stderr().lock(), "{status}")?,
            }
            return Ok(());
        }
        let level = status["level_dbfs"].as_f64();
        let level = level.map_or("silence".to_owned(), |level| format!("{level} dBFS"));
        let (sent, lost) = (status["sent"].as_u64(), status["lost"].as_u64());
        let share = 100.0 * lost.unwrap_or(0) as f64 / sent.unwrap_or(0).max(1) as f64;
        let mut line = format!("{level}, {share:.1} % lost");
        for (field, text) in [("recorded_s", "s recorded"), ("buffer_ms", "ms buffered")] {
            if let Some(value) = status[field].as_f64() {
                line.push_str(&format!(", {value} {text}"));
            }
        }
        write!(io::stderr().lock(), "\r\x1b[K{line}")?;
        Ok(())
    }

    /// Ends what was begun: a recording is whole, a pipe has all of it.
    fn finish(mut self, now: Instant) -> anyhow::Result<()> {
        if io::stderr().is_terminal() && !self.options.json {
            writeln!(io::stderr().lock())?;
        }
        if let Sink::Recording { order, .. } = &mut self.sink {
            let pieces: Vec<Piece> = std::iter::from_fn(|| order.finish(now)).collect();
            self.record(&pieces)?;
        }
        match self.sink {
            Sink::Recording {
                recording, path, ..
            } => recording
                .finish()
                .with_context(|| path.display().to_string()),
            Sink::Pipe { pipe, .. } => pipe.finish().map_err(Into::into),
        }
    }
}

/// The sound of a frame. What libopus cannot decode is concealed.
fn decoded(decoder: &mut Decoder, frame: Frame) -> Vec<i16> {
    let silence = |samples: u32| vec![0; samples as usize * 2];
    match frame {
        Frame::Packet(packet) => {
            let sound = decoder.decode(&packet.payload);
            sound.unwrap_or_else(|_| silence(packet.samples))
        }
        Frame::Lost { samples, next } => {
            let next = next.as_deref().filter(|_| samples == FRAME);
            let sound = decoder.conceal(samples, next);
            sound.unwrap_or_else(|_| silence(samples))
        }
        Frame::Silence { samples } => silence(samples),
    }
}
