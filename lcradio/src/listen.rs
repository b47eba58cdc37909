//! `lcradio listen`: plays a station, records it, or writes samples to a pipe.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use lcradio_core::{
    BEACON_PORT, CLOCK_RATE, Description, Directory, FRAME, Following, Latency, MAX_CASTERS, OnAir,
    Reception, SAP_GROUP, SAP_PORT, SoundPacket, Station, StepState, Tuned, TunedStation,
};
use librecast::code::beacon::Offer;
use librecast::time::UnixTime;
use librecast::units::parse_duration;
use librecast_program::cli::{Common, Exit, ExitError};
use librecast_program::code;
use serde_json::{Value, json};

use crate::archive::Archive;
use crate::device::Playback;
use crate::keys::{self, Wanted};
use crate::level::{Level, as_text};
use crate::mixer::{Clock, Mixer};
use crate::network::{ClockNetwork, Memberships, why_silent};
use crate::outside;
use crate::pipe::Pipe;
use crate::process::{Wake, confine};
use crate::tracks::Tracks;
use crate::values::{self, hint, parse_earlier, parse_latency};

/// Time after the end of a session in which a caster may come back.
const END_TIME: Duration = Duration::from_secs(3);
/// Silence after which a listener gives up. Chosen: a caster that restarts is back by then.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a recorder under systemd, or with some sound. Chosen: for daily stations.
const RECORDER_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);
/// Wait after which the reason is printed.
const WAIT_NOTICE: Duration = Duration::from_secs(2);
/// Time between two status lines.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Delay of a turn after which this process was suspended. Chosen: no busy host delays so long.
const SUSPENDED: Duration = Duration::from_secs(3);

/// The options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// What `keygen` or `cast` printed, the name of a public station, or `-` to read either from standard input;
    /// `lct1...,lcr1...` enters a network by its token, four words that of `cast --code`, and `lcr1...@PLACE` that of
    /// `cast --outside`, without root and daemon
    #[arg(required_unless_present_any = ["station_file", "code"])]
    pub station: Option<String>,
    /// Samples to standard output: s16le, 48 kHz, two channels [default: loudspeakers]
    #[arg(value_name = "-")]
    pub output: Option<values::Pipe>,
    /// Loudspeakers, as `devices` names them [default: the system's]
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["output", "record"])]
    pub device: Option<String>,
    /// Record to this file, Ogg Opus; if it exists, to the next free name, as FILE-2.opus
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    pub record: Option<PathBuf>,
    /// Share the recording by `lcsync share` when it has ended, until a second Ctrl-C
    #[arg(long, requires = "record")]
    pub archive: bool,
    /// The key to share it with, of `lcsync keygen`; a private station's recording needs one
    #[arg(long, value_name = "FILE", requires = "archive")]
    pub keyfile: Option<PathBuf>,
    /// A file with the station's text, which a private station keeps secret
    #[arg(long, value_name = "FILE")]
    pub station_file: Option<PathBuf>,
    /// The station under the code of the guest in which this runs: `lcroute guest CODE`
    #[arg(long, conflicts_with = "station_file")]
    pub code: bool,
    /// The station is in a network of its own (`cast --outside`), also if its text names no place
    #[arg(long, conflicts_with_all = ["code", "interfaces"])]
    pub outside: bool,
    /// Delay of what is heard: auto, quick (40 ms), safe (200 ms at least), or milliseconds
    /// [default: in step with other listeners if the caster says so, else auto]
    #[arg(long, value_parser = parse_latency, value_name = "DELAY")]
    pub latency: Option<Latency>,
    /// In step, play so many milliseconds earlier: for loudspeakers that are late, such as Bluetooth; up to 800
    #[arg(long, value_parser = parse_earlier, value_name = "MS", conflicts_with_all = ["latency", "record"])]
    pub earlier: Option<Duration>,
    /// Give up when nothing came for so long [default: 30s; a day for a recorder that systemd runs, or that has heard its station]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
}

impl Options {
    /// Returns the longest silence of the station; `has_begun`: a recorder has some sound.
    fn timeout(&self, has_begun: bool) -> Duration {
        let by_output = match self.record.is_some() && (has_begun || is_unit()) {
            true => RECORDER_TIMEOUT,
            false => TIMEOUT,
        };
        self.timeout.unwrap_or(by_output)
    }

    fn latency(&self) -> Latency {
        self.latency.unwrap_or(Latency::Auto)
    }

    fn earlier(&self) -> Duration {
        self.earlier.unwrap_or_default()
    }

    /// Returns whether samples go to standard output.
    fn is_piped(&self) -> bool {
        // after --station-file or --code the word takes the place of a station
        let has_station = self.station_file.is_some() || self.code;
        let is_word = has_station && self.station.as_deref() == Some("-");
        self.output.is_some() || is_word
    }
}

/// Returns whether systemd runs this as a unit: terminals may inherit the variable too.
fn is_unit() -> bool {
    std::env::var_os("INVOCATION_ID").is_some() && !io::stderr().is_terminal()
}

/// Listens until the station ends, or a signal.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    if let Some(station) = &options.station {
        code::enter(station)?;
    }
    let inside = outside::tuned()?;
    let file = options.station_file.as_deref();
    let given = match options.code || inside.is_some() {
        true => None,
        false => Some(keys::given(options.station.as_deref(), file)?),
    };
    if let Some(text) = &given {
        outside::enter(text, options.outside)?;
    }
    confine()?;
    let wake = Wake::on_interrupt()?;
    // first: without it there is nothing to wait for
    let loudspeaker = match options.record.is_some() || options.is_piped() {
        true => None,
        false => {
            let device = options.device.as_deref();
            Some(Playback::open(device, options.latency(), wake.clone())?)
        }
    };
    let wanted = match (inside, given) {
        (Some(station), _) => Wanted::Station(station),
        (None, Some(text)) => keys::wanted(&text, file)?,
        (None, None) => Wanted::Station(Station::decode(
            &code::wait_for(Offer::Station, false)?.line,
        )?),
    };
    let tuned = match wanted {
        Wanted::Station(station) => Tuned::Station(station),
        Wanted::Name(name) => match find(&name, options, common, &wake)? {
            Ok(description) => tuned(description),
            Err(exit) => return Ok(exit),
        },
    };
    let archive = archive(options, common, &tuned)?;
    let mixer = |clock| Mixer::new(options.latency(), clock);
    let output = match (&options.record, loudspeaker) {
        (Some(path), _) => {
            let [a, b, c, d, ..] = *keys::random()?;
            let tracks = Tracks::create(path, u32::from_be_bytes([a, b, c, d]))?;
            if tracks.path() != path {
                hint(format_args!(
                    "{} exists: this records to {}",
                    path.display(),
                    tracks.path().display()
                ));
            }
            Sink::Recording(tracks)
        }
        (None, Some(loudspeaker)) => Sink::Sound(mixer(Clock::Device), Player::Device(loudspeaker)),
        (None, None) => {
            let pipe = Pipe::open(wake.clone())?;
            Sink::Sound(mixer(Clock::Caster), Player::Pipe { pipe, due: None })
        }
    };
    let (exit, files) = Listen::new(options, common, tuned, output)?.run(&wake)?;
    match archive {
        // SIGTERM ends all
        Some(archive) if exit != Exit::Terminated => Err(archive.share(&files)),
        _ => Ok(exit),
    }
}

/// Returns the share of the recording, if requested.
fn archive(options: &Options, common: &Common, tuned: &Tuned) -> anyhow::Result<Option<Archive>> {
    if !options.archive {
        return Ok(None);
    }
    let keyfile = options.keyfile.as_deref();
    let is_private = matches!(tuned, Tuned::Station(station) if !station.is_public());
    if is_private && keyfile.is_none() {
        let message =
            "everybody could fetch this recording of a private station: --keyfile (lcsync keygen)";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    Ok(Some(Archive::new(keyfile, &common.interfaces)?))
}

fn tuned(description: Description) -> Tuned {
    match description.station.clone() {
        Some(station) => Tuned::Station(station),
        None => Tuned::Unsigned(description),
    }
}

/// Waits for the announcement of a public station.
fn find(
    name: &str,
    options: &Options,
    common: &Common,
    wake: &Wake,
) -> anyhow::Result<Result<Description, Exit>> {
    let begun = Instant::now();
    let mut network = Memberships::open(&[SAP_PORT], &common.interfaces)?;
    network.join(SAP_PORT, SAP_GROUP);
    let mut directory = Directory::new(begun);
    let timeout = options.timeout(false);
    let mut notice_at = Some(begun + WAIT_NOTICE);
    loop {
        let now = Instant::now();
        if let Some(exit) = wake.interrupted() {
            return Ok(Err(exit));
        }
        network.look_at_interfaces(now)?;
        network.receive(|_, datagram| {
            let time = UnixTime::now();
            directory.handle_datagram(datagram.source, datagram.payload, now, time);
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
        if now.saturating_duration_since(begun) >= timeout {
            let message = format!("no station called {name} has announced itself");
            return Err(ExitError::new(Exit::Unreachable, message).into());
        }
        if notice_at.is_some_and(|at| at <= now) {
            notice_at = None;
            let seconds = timeout.as_secs_f64();
            hint(format_args!(
                "waits up to {seconds} s for a station called {name} to announce itself on {}: `lcradio stations` lists the others",
                network.interface_names()
            ));
        }
        wake.wait(network.fds(), notice_at.unwrap_or(begun + timeout))?;
    }
}

/// The output of sound, with its timing.
enum Sink {
    Recording(Tracks),
    Sound(Mixer, Player),
}

/// A player of mixed sound.
enum Player {
    Pipe {
        pipe: Pipe,
        /// Time of the next frame; none before the first packet.
        due: Option<Instant>,
    },
    Device(Playback),
}

impl Player {
    /// Returns when the next frame must be given. None: when something arrives.
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Pipe { due, .. } => *due,
            Self::Device(playback) => playback.due(),
        }
    }

    /// Returns the time for which a frame that was due is asked: a pipe's reader may count samples.
    fn asked_at(&self, due: Instant, now: Instant) -> Instant {
        match self {
            Self::Pipe { .. } => due,
            Self::Device(_) => now,
        }
    }

    /// Returns the time from `at` until the frame sounds; none: it is not known.
    fn lead(&self, at: Instant) -> Option<Duration> {
        match self {
            Self::Pipe { .. } => Some(Duration::ZERO),
            Self::Device(playback) => {
                let sounds_at = playback.sounds_at()?;
                Some(sounds_at.saturating_duration_since(at))
            }
        }
    }

    /// Prepares the player for this delay between caster and loudspeakers.
    fn play_in_step(&self, play_after: Duration) {
        if let Self::Device(playback) = self {
            playback.play_in_step(play_after);
        }
    }

    /// Writes a frame that was due. `pace_ppm`: speed of the sound above this host's clock.
    fn write(&mut self, frame: Vec<i16>, pace_ppm: f64, now: Instant) -> io::Result<()> {
        match self {
            Self::Device(playback) => playback.write(frame, now),
            Self::Pipe { pipe, due } => {
                let length = f64::from(FRAME) / f64::from(CLOCK_RATE);
                let length = Duration::from_secs_f64(length / (1.0 + pace_ppm / 1e6));
                let next = due.unwrap_or(now) + length;
                // a host that slept does not catch up
                let is_behind = now.saturating_duration_since(next) > STATUS_INTERVAL;
                *due = Some(if is_behind { now } else { next });
                pipe.write(frame)
            }
        }
    }
}

struct Listen<'a> {
    options: &'a Options,
    common: &'a Common,
    station: TunedStation,
    network: Memberships,
    sink: Sink,
    level: Level,
    /// The joined group of copies.
    copy: Option<Ipv6Addr>,
    /// Questions for the clocks of casters, and the joined groups of answers.
    clock: ClockNetwork,
    answers: BTreeSet<Ipv6Addr>,
    /// The printed state of playing in step.
    step_said: Option<&'static str>,
    /// The last arrival of the station's data.
    alive_at: Instant,
    status_at: Instant,
    /// The printed reason for the present wait.
    explained: Option<String>,
    /// It runs in the station's own network.
    is_inside: bool,
}

impl<'a> Listen<'a> {
    fn new(
        options: &'a Options,
        common: &'a Common,
        tuned: Tuned,
        sink: Sink,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        let (port, group) = (tuned.media_port(), tuned.group());
        let ports = [port, BEACON_PORT];
        let ports = if port == BEACON_PORT {
            &ports[..1]
        } else {
            &ports
        };
        let mut network = Memberships::open(ports, &common.interfaces)?;
        network.join(port, group);
        if let Tuned::Station(_) = tuned {
            network.join(BEACON_PORT, group);
        }
        let mut station = TunedStation::new(tuned, now);
        if options.latency.is_none() && matches!(sink, Sink::Sound(..)) {
            station.play_in_step(*keys::random()?);
        }
        Ok(Self {
            options,
            common,
            station,
            network,
            sink,
            level: Level::default(),
            copy: None,
            clock: ClockNetwork::default(),
            answers: BTreeSet::new(),
            step_said: None,
            alive_at: now,
            status_at: now + STATUS_INTERVAL,
            explained: None,
            is_inside: outside::tuned()?.is_some(),
        })
    }

    /// Runs the listener; returns the exit code, and the recorded files.
    fn run(mut self, wake: &Wake) -> anyhow::Result<(Exit, Vec<PathBuf>)> {
        loop {
            let now = Instant::now();
            if let Some(exit) = wake.interrupted() {
                return Ok((exit, self.finish(now)?));
            }
            self.network.look_at_interfaces(now)?;
            self.receive(now)?;
            self.station.handle_timeout(now);
            self.follow_copy();
            self.ask_for_clocks();
            self.put_out(now)?;
            if now >= self.status_at {
                let late = now - self.status_at;
                if late >= SUSPENDED {
                    // nobody was here to hear
                    self.alive_at = now.min(self.alive_at + late);
                }
                self.status_at = now + STATUS_INTERVAL;
                self.say_step()?;
                self.show_status()?;
            }
            if let Some(at) = self.station.ended_at()
                && now.saturating_duration_since(at) >= END_TIME
            {
                return Ok((Exit::Ok, self.finish(now)?));
            }
            let silent = now.saturating_duration_since(self.alive_at);
            self.explain_wait(silent);
            if silent >= self.timeout() {
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
            Sink::Recording(tracks) => tracks.next_timeout(),
            Sink::Sound(_, player) => player.due(),
        };
        let ended = self.station.ended_at().map(|at| at + END_TIME);
        let times = [
            Some(self.station.next_timeout()),
            Some(self.status_at),
            Some(self.alive_at + self.timeout()),
            self.explained
                .is_none()
                .then_some(self.alive_at + WAIT_NOTICE),
            output,
            ended,
        ];
        times.into_iter().flatten().min().unwrap_or(now)
    }

    fn timeout(&self) -> Duration {
        let has_begun = matches!(&self.sink, Sink::Recording(tracks) if tracks.has_begun());
        self.options.timeout(has_begun)
    }

    fn why_nothing(&self) -> ExitError {
        if let Some((exit, why)) = self.obstacle() {
            return ExitError::new(exit, why);
        }
        let message = format!("nothing came for {} s", self.timeout().as_secs_f64());
        ExitError::new(Exit::Unreachable, message)
    }

    /// Returns the reason why arriving packets are not played.
    fn obstacle(&self) -> Option<(Exit, &'static str)> {
        if self.station.has_other_time() {
            let why = "the clocks of the station and of this host are more than an hour apart";
            return Some((Exit::Failed, why));
        }
        let why = "someone sends here, this key does not open it";
        self.station
            .listener()
            .is_of_another_key()
            .then_some((Exit::NotPermitted, why))
    }

    /// Prints why nothing is played: once for each wait and reason.
    fn explain_wait(&mut self, silent: Duration) {
        if silent < WAIT_NOTICE {
            self.explained = None;
            return;
        }
        let told = match self.obstacle() {
            Some((_, why)) => why.to_owned(),
            None if self.is_inside => format!(
                "waits up to {} s for the station in its own network: does it cast?",
                self.timeout().as_secs_f64(),
            ),
            None => {
                let on = self.network.interface_names();
                format!(
                    "waits up to {} s for the station on {on}. If someone casts it: {}; firewalls must let in UDP \
                     ports 5004 to 5006",
                    self.timeout().as_secs_f64(),
                    why_silent(&on),
                )
            }
        };
        let is_new = self.explained.as_ref() != Some(&told);
        if is_new && !self.common.json {
            // below the level
            let _ = self.say(&format!("lcradio: {told}"));
        }
        self.explained = Some(told);
    }

    fn receive(&mut self, now: Instant) -> anyhow::Result<()> {
        let station = &mut self.station;
        self.network.receive(|port, datagram| {
            // when it arrived, not when this turn began
            let now = Instant::now();
            let to = (datagram.group, port);
            let (interface, time) = (datagram.interface, UnixTime::now());
            station.handle_datagram_by(interface, to, datagram.source, datagram.payload, now, time);
        })?;
        if let Some(at) = self.station.listener().alive_at() {
            self.alive_at = self.alive_at.max(at);
        }
        while let Some(event) = self.station.poll_event(now) {
            match event {
                Reception::OnAir(OnAir { name, title, .. }) if !self.common.json => {
                    self.say(&format!("on air: {name} {title}"))?;
                }
                Reception::OnAir(_) => {}
                Reception::Sound(packet) => self.sound(packet, now)?,
                Reception::Ended { caster } => {
                    if let Sink::Sound(mixer, _) = &mut self.sink {
                        mixer.end(caster);
                    }
                }
            }
        }
        Ok(())
    }

    fn say(&self, line: &str) -> io::Result<()> {
        let mut err = librecast_program::standard::errors();
        if io::stderr().is_terminal() {
            write!(err, "\r\x1b[K")?;
        }
        writeln!(err, "{}", line.trim_end())
    }

    fn sound(&mut self, packet: SoundPacket, now: Instant) -> anyhow::Result<()> {
        let is_of_use = match &mut self.sink {
            Sink::Recording(tracks) => {
                let before = tracks.path().to_owned();
                let is_of_use = tracks.push(packet, &mut self.level)?;
                if tracks.path() != before {
                    let path = tracks.path().display();
                    hint(format_args!("after a long pause, this records to {path}"));
                }
                is_of_use
            }
            Sink::Sound(mixer, player) => {
                if let Player::Pipe { due, .. } = player {
                    due.get_or_insert(now);
                }
                mixer.push(packet)?
            }
        };
        if !is_of_use {
            self.station.count_expired();
        }
        Ok(())
    }

    /// Joins the copy group, or leaves it.
    fn follow_copy(&mut self) {
        let wanted = self.station.copy_group();
        if wanted == self.copy {
            return;
        }
        let port = self.station.listener().tuned().media_port();
        if let Some(group) = std::mem::replace(&mut self.copy, wanted) {
            self.network.leave(port, group);
        }
        if let Some(group) = wanted {
            self.network.join(port, group);
        }
    }

    /// Joins the groups of answers, and sends the questions that are due.
    fn ask_for_clocks(&mut self) {
        let wanted: BTreeSet<Ipv6Addr> = self.station.answer_groups().collect();
        for group in self.answers.difference(&wanted) {
            self.network.leave(BEACON_PORT, *group);
        }
        for group in wanted.difference(&self.answers) {
            self.network.join(BEACON_PORT, *group);
        }
        self.answers = wanted;
        // each has its own time
        while let Some((interface, group, question)) = self.station.poll_question(Instant::now()) {
            if let Err(e) = self.clock.ask(interface, group, &question) {
                // lost like any packet
                tracing::debug!("a question for the clock: {e}");
            }
        }
    }

    fn put_out(&mut self, now: Instant) -> anyhow::Result<()> {
        match &mut self.sink {
            Sink::Recording(tracks) => tracks.write(now, &mut self.level),
            Sink::Sound(..) => self.play(now),
        }
    }

    fn play(&mut self, now: Instant) -> anyhow::Result<()> {
        let Sink::Sound(mixer, player) = &mut self.sink else {
            return Ok(());
        };
        while let Some(due) = player.due().filter(|at| *at <= now) {
            let at = match mixer.step() {
                Some(_) => player.asked_at(due, now),
                None => now,
            };
            let lead = player.lead(at).map(|lead| lead + self.options.earlier());
            for caster in 0..MAX_CASTERS as u8 {
                let following = self.station.following(caster, now);
                if let Following::InStep(aim) = following {
                    player.play_in_step(aim.play_after().saturating_sub(self.options.earlier()));
                }
                mixer.follow(caster, following, lead, now);
            }
            let sound = mixer.frame(at);
            self.level.add(&sound);
            player.write(sound, mixer.pace_ppm(at), now)?;
        }
        Ok(())
    }

    /// Prints when this listener plays in step, and when it no longer does.
    fn say_step(&mut self) -> io::Result<()> {
        let Sink::Sound(mixer, _) = &self.sink else {
            return Ok(());
        };
        let now = Instant::now();
        let line = match mixer.step() {
            Some(step) if step.is_behind => {
                let needed = step.needed.as_millis();
                // with room for jitter
                let better = needed.div_ceil(10) * 10 + 30;
                Some((
                    "behind",
                    format!(
                        "behind the others: this host needs {needed} ms; the caster could use --together {better}"
                    ),
                ))
            }
            Some(step) if step.is_set => {
                let (error, behind) = (step.error.abs() * 1e3, step.play_after.as_millis());
                let line = format!("in step: +-{error:.1} ms, {behind} ms behind the caster");
                Some(("in step", line))
            }
            Some(_) => None,
            None if mixer.is_leadless() => {
                let line = "not in step: the loudspeakers do not tell when their sound is heard";
                Some(("leadless", line.to_owned()))
            }
            None => self.is_unanswered(now).then(|| {
                let line =
                    "not in step: the caster does not answer this host's questions for its clock";
                ("free", line.to_owned())
            }),
        };
        if let Some((state, line)) = line
            && self.step_said != Some(state)
        {
            self.step_said = Some(state);
            if !self.common.json {
                self.say(&line)?;
            }
        }
        Ok(())
    }

    /// Returns whether a caster is on air whose clock this listener asks for in vain.
    fn is_unanswered(&self, now: Instant) -> bool {
        let mut casters = 0..MAX_CASTERS as u8;
        self.station.answer_groups().next().is_some()
            && casters.all(|caster| self.station.following(caster, now) == Following::Free)
    }

    fn status(&mut self) -> Value {
        let (now, on_air) = (Instant::now(), self.station.casters());
        let loss = self.station.listener().loss();
        let casters: Vec<Value> = on_air.iter().map(as_json).collect();
        let first = on_air.first().cloned().unwrap_or_default();
        let mut status = json!({
            "name": first.name,
            "title": first.title,
            "talking": on_air.iter().any(|caster| caster.is_talking),
            "casters": casters,
            "level_dbfs": self.level.take(),
            "sent": loss.sent,
            "lost_before_copy": loss.lost_before_copy,
            "lost": loss.lost,
            "copy": self.copy.is_some(),
            "drops": self.station.listener().drops().by_name(),
        });
        match &self.sink {
            Sink::Recording(tracks) => {
                status["recorded_s"] = json!((tracks.seconds() * 100.0).round() / 100.0);
            }
            Sink::Sound(mixer, player) => {
                let stats = mixer.stats();
                status["buffer_ms"] = json!(stats.buffered.as_millis());
                status["target_ms"] = json!(stats.target.as_millis());
                status["drift_ppm"] = json!((mixer.drift_ppm(now) * 10.0).round() / 10.0);
                status["underruns"] = json!(stats.underruns);
                status["concealed"] = json!(stats.concealed);
                status["stretched"] = json!(stats.stretched);
                status["resyncs"] = json!(stats.resyncs);
                status["step"] =
                    step_json(mixer.step(), mixer.is_leadless() || self.is_unanswered(now));
                if let Player::Pipe { pipe, .. } = player {
                    status["overruns"] = json!(pipe.overruns);
                }
            }
        }
        status
    }

    fn show_status(&mut self) -> anyhow::Result<()> {
        let is_terminal = io::stderr().is_terminal();
        if !self.common.json && !is_terminal {
            self.level.take();
            return Ok(());
        }
        let status = self.status();
        if self.common.json {
            // sound may use standard output
            match self.sink {
                Sink::Sound(_, Player::Pipe { .. }) => {
                    writeln!(librecast_program::standard::errors(), "{status}")?;
                }
                Sink::Recording(_) | Sink::Sound(_, Player::Device(_)) => {
                    writeln!(librecast_program::standard::output(), "{status}")?;
                }
            }
            return Ok(());
        }
        let level = status["level_dbfs"].as_f64();
        let level = match (level, &self.explained) {
            (Some(level), _) => as_text(level),
            (None, None) => "silence".to_owned(),
            (None, Some(_)) => "nothing comes".to_owned(),
        };
        let (sent, lost) = (status["sent"].as_u64(), status["lost"].as_u64());
        let share = 100.0 * lost.unwrap_or(0) as f64 / sent.unwrap_or(0).max(1) as f64;
        let mut line = format!("{level}, {share:.1} % lost");
        for (field, text) in [("recorded_s", "s recorded"), ("buffer_ms", "ms buffered")] {
            if let Some(value) = status[field].as_f64() {
                line.push_str(&format!(", {value} {text}"));
            }
        }
        write!(librecast_program::standard::errors(), "\r\x1b[K{line}")?;
        Ok(())
    }

    /// Completes the output: a recording is whole, a pipe has all sound.
    fn finish(mut self, now: Instant) -> anyhow::Result<Vec<PathBuf>> {
        if io::stderr().is_terminal() && !self.common.json {
            writeln!(librecast_program::standard::errors())?;
        }
        match self.sink {
            Sink::Recording(tracks) => tracks.finish(now, &mut self.level),
            Sink::Sound(_, Player::Pipe { pipe, .. }) => {
                pipe.finish()?;
                Ok(Vec::new())
            }
            Sink::Sound(_, Player::Device(playback)) => {
                playback.finish();
                Ok(Vec::new())
            }
        }
    }
}

/// Returns the state of playing in step; null for a station whose listeners do not.
fn step_json(step: Option<StepState>, is_free: bool) -> Value {
    let tenth = |ms: f64| (ms * 10.0).round() / 10.0;
    match step {
        None if is_free => json!({ "state": "free" }),
        None => Value::Null,
        Some(step) => json!({
            "state": match (step.is_behind, step.is_set) {
                (true, _) => "behind",
                (false, true) => "in step",
                (false, false) => "asking",
            },
            "error_ms": tenth(step.error * 1e3),
            "behind_ms": step.play_after.as_millis(),
            "needed_ms": step.needed.as_millis(),
        }),
    }
}

fn as_json(caster: &OnAir) -> Value {
    let OnAir {
        name,
        title,
        is_talking,
    } = caster;
    json!({ "name": name, "title": title, "talking": is_talking })
}
