//! `lcradio cast`: makes a station of a microphone, a file or a pipe.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use lcradio_core::{
    CLOCK_RATE, Caster, CasterConfig, FRAME, Grant, Latency, Profile, StationKey, Transmit,
    is_showable, showable,
};
use librecast::code::beacon::Offer;
use librecast::drops::Drops;
use librecast::outside::Place;
use librecast::time::UnixTime;
use librecast::units::parse_rate;
use librecast_program::cli::{Common, Exit, ExitError};
use librecast_program::code::{INTERFACE, Offering};
use nix::sys::signal::Signal;
use serde_json::json;
use zeroize::Zeroizing;

use crate::codec::Encoder;
use crate::device::Capture;
use crate::icecast::Icecast;
use crate::keys;
use crate::level::Level;
use crate::network::{CasterNetwork, Port};
use crate::outside;
use crate::pace::Pace;
use crate::process::{Wake, confine};
use crate::source::{Sound, Source};
use crate::talk::{Gate, SpaceBar, Talk};
use crate::values::{Pipe, TOGETHER_MS, Together, hint, parse_input, parse_together};

/// Pieces of sound that are read ahead.
const READ_AHEAD: usize = 8;
/// Time between two displays of the level.
const LEVEL_INTERVAL: Duration = Duration::from_secs(1);
/// Skipped passages that are printed one by one; above it their number is printed at the end.
const MAX_PASSED_SAID: u64 = 8;
/// Longest wait for copies and last beacons at the end.
const END: Duration = Duration::from_secs(1);

/// A kind of sound.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ProfileName {
    /// Speech, one channel, 32 kbit/s
    Voice,
    /// Everything else, 96 kbit/s
    Music,
}

/// The options of the command line.
#[derive(Debug, Args)]
pub struct Options {
    /// Samples on standard input: s16le, 48 kHz, two channels; or WAV [default: the microphone]
    #[arg(value_name = "-", value_parser = parse_input)]
    pub input: Option<Pipe>,
    /// A microphone, as `devices` names it [default: the system's]
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["input", "file"])]
    pub device: Option<String>,
    /// The station's key [default: a new one, for this run]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Cast another's station by what `grant` printed there; `--key` is the key that it is for
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "public")]
    pub grant: Option<PathBuf>,
    /// The station's name [default: the file's, or the host's]
    #[arg(long)]
    pub name: Option<String>,
    /// Ogg Opus, sent as it is, or WAV
    #[arg(long, value_name = "FILE", conflicts_with = "input")]
    pub file: Option<PathBuf>,
    /// Sound of BUTT, Mixxx, OBS or ffmpeg, which connect here as to an Icecast server: Ogg Opus, sent as it is, or
    /// another format, by ffmpeg
    #[arg(long, value_name = "ADDR:PORT", requires = "icecast_password",
        conflicts_with_all = ["input", "device", "file", "code", "outside", "push_to_talk"])]
    pub icecast: Option<SocketAddr>,
    /// A file with the password that these programs prove, with --icecast
    #[arg(long, value_name = "FILE", requires = "icecast")]
    pub icecast_password: Option<PathBuf>,
    /// What kind of sound it is
    #[arg(long, value_enum, default_value = "music")]
    pub profile: ProfileName,
    /// Bits per second [default: 32k for voice, 96k for music]
    #[arg(long, value_parser = parse_rate, value_name = "RATE")]
    pub bitrate: Option<u64>,
    /// Everybody may listen: packets are plain, and the station announces itself
    #[arg(long)]
    pub public: bool,
    /// Cast under four words, which it prints, in a network that they make: no root, no daemon
    #[arg(long, conflicts_with = "public")]
    pub code: bool,
    /// In a network of the station's own: whoever has the text that it prints hears it, without network, root or daemon
    #[arg(long, requires = "key", conflicts_with_all = ["code", "grant", "interfaces", "together"])]
    pub outside: bool,
    /// Where listeners find it, with --outside: HOST, HOST:PORT or a URL of a signalling server; may be repeated
    /// [default: LCROUTE_SIGNAL, or [outside] meet of the configuration]
    #[arg(long, value_name = "PLACE", requires = "outside")]
    pub at: Vec<Place>,
    /// Withdraw the helper of this name from `invite`, with --outside; may be repeated
    #[arg(long, value_name = "NAME", requires = "outside")]
    pub without: Vec<String>,
    /// Loudspeakers of all listeners play in step, so many milliseconds after this caster: 20 to 800 [default: 150]
    #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = TOGETHER_MS, value_parser = parse_together)]
    pub together: Option<Together>,
    /// Send silence until SIGUSR1 comes, and again after SIGUSR2; the space bar of the terminal changes it, too
    #[arg(long)]
    pub push_to_talk: bool,
}

impl Options {
    /// Returns whether samples come on standard input.
    fn is_piped(&self) -> Result<bool, ExitError> {
        let is_word = self.together.is_some_and(|together| together.is_pipe);
        let has_other = self.file.is_some() || self.device.is_some() || self.icecast.is_some();
        if is_word && has_other {
            let message = "- is standard input: without --file, --device and --icecast";
            return Err(ExitError::new(Exit::Usage, message));
        }
        Ok(is_word || self.input.is_some())
    }

    fn profile(&self) -> Profile {
        match self.profile {
            ProfileName::Voice => Profile::Voice,
            ProfileName::Music => Profile::Music,
        }
    }
}

/// Bits per second that libopus permits for a channel count.
const BITRATES: std::ops::RangeInclusive<u64> = 6_000..=256_000;

fn bitrate(options: &Options) -> Result<u32, ExitError> {
    let by_profile = match options.profile() {
        Profile::Voice => 32_000,
        Profile::Music => 96_000,
    };
    let bitrate = options.bitrate.unwrap_or(by_profile);
    if !BITRATES.contains(&bitrate) {
        let message = "a bitrate is from 6k to 256k";
        return Err(ExitError::new(Exit::Usage, message));
    }
    Ok(bitrate as u32)
}

fn name(options: &Options) -> Result<String, ExitError> {
    let of_file = || {
        let file = options.file.as_ref()?;
        Some(showable(&file.file_stem()?.to_string_lossy()))
    };
    let of_host = || nix::unistd::gethostname().ok()?.into_string().ok();
    let name = options.name.clone().or_else(of_file).or_else(of_host);
    let name = name.unwrap_or_default();
    if !is_showable(&name) {
        let message = "a name has at most 255 bytes, and no characters that nobody sees";
        return Err(ExitError::new(Exit::Usage, message));
    }
    Ok(name)
}

/// Casts until the sound ends, or a signal.
pub fn run(options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let is_piped = options.is_piped()?;
    let offering = options.code.then(Offering::begin).transpose()?;
    let outside = match (options.outside, &options.key) {
        (true, Some(key)) => {
            let (places, without) = (&options.at, &options.without);
            Some(outside::cast(key, options.public, places, without)?)
        }
        _ => None,
    };
    if let Some(grant) = &options.grant {
        outside::cast_granted(grant)?;
    }
    confine()?;
    let talk = Talk::default();
    let wake = match options.push_to_talk {
        true => {
            let talk = talk.clone();
            let signals = [Signal::SIGUSR1, Signal::SIGUSR2];
            Wake::on_signals(&signals, move |signal| talk.set(signal == Signal::SIGUSR1))?
        }
        false => Wake::on_interrupt()?,
    };
    let place = match outside {
        Some(on_air) => {
            let (key, is_public) = (keys::load(options.key.as_deref())?, options.public);
            let place = on_air.place.clone();
            on_air.sign(move |item, time| key.sign_item(is_public, item, time))?;
            Some(place)
        }
        None => None,
    };
    let (bitrate, name) = (bitrate(options)?, name(options)?);
    let key = keys::load(options.key.as_deref())?;
    let grant = options.grant.as_deref();
    let grant = grant.map(|file| keys::load_grant(file, &key)).transpose()?;
    let icecast = options.icecast.zip(options.icecast_password.as_ref());
    let source = match (icecast, &options.file) {
        (Some((at, password)), _) => Source::icecast(Icecast::listen(at, password)?),
        (None, Some(file)) => Source::open(file).with_context(|| file.display().to_string())?,
        (None, None) if is_piped => Source::stdin().context("standard input")?,
        (None, None) => {
            let device = options.device.as_deref();
            Source::microphone(Capture::open(device, Latency::Auto)?)
        }
    };
    let now = Instant::now();
    let mut cast = Cast::new(options, common, key, grant, name, &source, now)?;
    if options.push_to_talk && source.is_opus() {
        let message = "--push-to-talk is for samples: Opus is sent as it is";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    if source.is_samples() {
        cast.encoder = Some(Encoder::new(options.profile(), cast.channels, bitrate)?);
    }
    let code = offering.as_ref().map(Offering::state).transpose()?;
    cast.say_where(
        common.json,
        code.as_ref().map(|state| &*state.code),
        place.as_deref(),
    )?;
    if let Some(offering) = offering {
        offering.repeat(Offer::Station, &cast.caster.station().encode())?;
    }
    let _space_bar = options.push_to_talk.then(|| {
        cast.talk = Some((talk.clone(), Gate::default()));
        SpaceBar::watch(&talk, &wake)
    });
    let sounds = read_ahead(source, wake.clone())?;
    let ended = cast.run(&sounds, &wake);
    if cast.passed > MAX_PASSED_SAID {
        let all = cast.passed;
        cast.say(&format!(
            "lcradio: {all} passages of the sound were passed over in all"
        ));
    }
    if cast.level.is_some() {
        // below the level
        let _ = writeln!(librecast_program::standard::errors());
    }
    cast.end(&wake)?;
    ended
}

/// Reads in a thread of its own: a pipe may block.
pub(crate) fn read_ahead(
    mut source: Source,
    wake: Wake,
) -> io::Result<Receiver<io::Result<Sound>>> {
    let (to, sounds) = sync_channel(READ_AHEAD);
    thread::Builder::new()
        .name("source".into())
        .spawn(move || {
            loop {
                let next = source.next().transpose();
                let is_last = !matches!(next, Some(Ok(_)));
                if let Some(next) = next
                    && to.send(next).is_err()
                {
                    return;
                }
                if is_last {
                    break;
                }
                wake.wake();
            }
            drop(to);
            wake.wake();
        })?;
    Ok(sounds)
}

/// Prints a line for people; on a terminal in place of the level, which is shown again.
fn say_over(has_level: bool, line: &str) {
    let begin = if has_level { "\r\x1b[K" } else { "" };
    // the reader may be gone
    let _ = writeln!(librecast_program::standard::errors(), "{begin}{line}");
}

struct Cast {
    caster: Caster,
    network: CasterNetwork,
    encoder: Option<Encoder>,
    /// Channels of the sent sound, and of the source.
    channels: u8,
    source_channels: u8,
    pace: Pace,
    /// The level on a terminal, and its next display.
    level: Option<(Level, Instant)>,
    /// None: all sound is sent.
    talk: Option<(Talk, Gate)>,
    /// Skipped passages of the sound.
    passed: u64,
    /// End of the grant.
    expires_ms: Option<u64>,
}

impl Cast {
    fn new(
        options: &Options,
        common: &Common,
        key: StationKey,
        grant: Option<Grant>,
        name: String,
        source: &Source,
        now: Instant,
    ) -> anyhow::Result<Self> {
        let channels = match options.profile() {
            // Opus packets stay as they are
            Profile::Voice if !source.is_opus() => 1,
            _ => source.channels(),
        };
        let expires_ms = grant.as_ref().map(Grant::expires_ms);
        let config = CasterConfig {
            is_public: options.public,
            grant,
            name,
            title: String::new(),
            profile: options.profile(),
            channels,
            together: options.together.map(|together| together.play_after),
            seed: *keys::random()?,
            started: UnixTime::now(),
        };
        let caster = Caster::new(key, config, now)?;
        let interfaces = match options.outside {
            // the guest's alone
            true => vec![INTERFACE.to_owned()],
            false => common.interfaces.clone(),
        };
        let clock = caster.clock_groups();
        let network = CasterNetwork::open(caster.station(), clock, &interfaces, now);
        Ok(Self {
            caster,
            network: network.context("multicast sockets")?,
            encoder: None,
            channels,
            source_channels: source.channels(),
            pace: Pace::new(source.is_live(), now),
            level: io::stderr().is_terminal().then(|| (Level::default(), now)),
            talk: None,
            passed: 0,
            expires_ms,
        })
    }

    /// Prints the code or the station's text, which listeners need, to standard output.
    fn say_where(&self, json: bool, code: Option<&str>, place: Option<&str>) -> io::Result<()> {
        let station = self.caster.station();
        let mut text = station.encode();
        if let Some(place) = place.filter(|place| !place.is_empty()) {
            text = Zeroizing::new(format!("{}@{place}", *text));
        }
        let mut out = librecast_program::standard::output();
        if json {
            let told = json!({
                "code": code,
                "station": *text,
                "public": station.is_public(),
                "group": station.group(),
                "interfaces": self.network.interface_names(),
            });
            writeln!(out, "{told}")?;
        } else {
            writeln!(out, "{}", code.unwrap_or(&text))?;
        }
        out.flush()?;
        if let Some(code) = code {
            hint(format_args!("hear it with: lcradio listen {code}"));
        }
        if place.is_some() {
            hint("hear it with: lcradio listen --outside TEXT; a text with @PLACE needs no option");
        }
        let names = self.network.interface_names().join(", ");
        if names.is_empty() {
            tracing::warn!("no interface can carry multicast; one that comes up is used");
        } else {
            tracing::info!("on {names}: {}", station.group());
        }
        if let Some(remark) = self.network.remark() {
            hint(remark);
        }
        Ok(())
    }

    /// Waits for the answers of present listeners.
    fn find_listeners(&mut self, wake: &Wake) -> io::Result<()> {
        let until = self.network.settled_at(Instant::now());
        loop {
            let now = Instant::now();
            self.network.turn(now)?;
            if now >= until || wake.interrupted().is_some() {
                return Ok(());
            }
            wake.wait(self.network.fds(), until)?;
        }
    }

    fn run(&mut self, sounds: &Receiver<io::Result<Sound>>, wake: &Wake) -> anyhow::Result<Exit> {
        self.find_listeners(wake)?;
        loop {
            let now = Instant::now();
            if let Some(exit) = wake.interrupted() {
                return Ok(exit);
            }
            self.network.turn(now)?;
            if self
                .expires_ms
                .is_some_and(|at| at <= UnixTime::now().as_millis())
            {
                return Err(ExitError::new(Exit::NotPermitted, "the grant has expired").into());
            }
            self.network.look_at_interfaces(now)?;
            while self.pace.due().is_none_or(|due| now >= due) {
                match sounds.try_recv() {
                    Ok(sound) => self.sound(sound?, now)?,
                    Err(TryRecvError::Empty) => {
                        self.pace.starve();
                        break;
                    }
                    Err(TryRecvError::Disconnected) => return Ok(Exit::Ok),
                }
            }
            self.transmit(now);
            self.receive()?;
            let timeout = self.caster.next_timeout();
            let dues = [timeout, self.pace.due(), self.network.next_timeout()];
            let until = dues.into_iter().flatten().min();
            wake.wait(self.network.fds(), until.unwrap_or(now + END))?;
        }
    }

    fn sound(&mut self, sound: Sound, now: Instant) -> anyhow::Result<()> {
        let (packet, samples) = match sound {
            Sound::Title(title) => {
                self.caster.set_title(&title, now)?;
                return Ok(());
            }
            Sound::Passed(passed) => {
                self.passed += 1;
                if self.passed <= MAX_PASSED_SAID {
                    self.say(&format!("lcradio: passed over: {passed}"));
                }
                return Ok(());
            }
            Sound::Packet(packet, samples) => (packet, samples),
            Sound::Samples(mut samples) => {
                if let Some((talk, gate)) = &mut self.talk {
                    let is_on = talk.is_on();
                    if is_on != gate.is_open() {
                        say_over(
                            self.level.is_some(),
                            if is_on { "talking" } else { "silent" },
                        );
                    }
                    gate.pass(&mut samples, self.source_channels, is_on);
                    self.caster.set_talking(is_on, now);
                }
                self.show_level(&samples, now);
                let samples = self.mixed(samples);
                let encoder = self.encoder.as_mut().context("no encoder")?;
                (encoder.encode(&samples)?, FRAME)
            }
        };
        let length = Duration::from_secs_f64(f64::from(samples) / f64::from(CLOCK_RATE));
        if let Some(paused) = self.pace.send(length, now) {
            let samples = paused.as_micros() as u64 * u64::from(CLOCK_RATE) / 1_000_000;
            self.caster.pause(samples);
        }
        if !self.caster.send(&packet, samples, now) {
            anyhow::bail!("a packet of {} bytes is too long", packet.len());
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        say_over(self.level.is_some(), line);
    }

    /// Shows on a terminal that the microphone works.
    fn show_level(&mut self, samples: &[i16], now: Instant) {
        let Some((level, at)) = &mut self.level else {
            return;
        };
        level.add(samples);
        if now >= *at {
            *at = now + LEVEL_INTERVAL;
            // the reader may be gone
            let _ = write!(
                librecast_program::standard::errors(),
                "\r\x1b[K{}",
                level.take_text()
            );
        }
    }

    /// Mixes speech to one channel.
    fn mixed(&self, samples: Vec<i16>) -> Vec<i16> {
        if self.channels == self.source_channels {
            return samples;
        }
        let (pairs, _) = samples.as_chunks::<2>();
        pairs.iter().map(|[l, r]| i16::midpoint(*l, *r)).collect()
    }

    fn transmit(&mut self, now: Instant) {
        let (group, copy_group) = {
            let station = self.caster.station();
            (station.group(), station.copy_group())
        };
        while let Some(transmit) = self.caster.poll_transmit(now) {
            let (caster, network) = (&mut self.caster, &self.network);
            match transmit {
                Transmit::Packet(packet) => {
                    network.send(Port::Media, group, now, |_| Some(packet.clone()));
                }
                Transmit::Copy(packet) => {
                    network.send(Port::Media, copy_group, now, |_| Some(packet.clone()));
                }
                Transmit::Answer => {
                    let Some(groups) = caster.clock_groups() else {
                        continue;
                    };
                    // the time of the answer is its own
                    network.send(Port::Beacon, groups.answers, now, |_| {
                        caster.answer(Instant::now())
                    });
                }
                Transmit::Beacon => network.send(Port::Beacon, group, now, |source| {
                    caster.beacon(source, UnixTime::now()).ok()
                }),
                Transmit::Report => {
                    network.send(Port::Report, group, now, |_| {
                        Some(caster.report(UnixTime::now()))
                    });
                }
                Transmit::Announcement => {
                    network.send(Port::Sap, lcradio_core::SAP_GROUP, now, |source| {
                        Some(caster.announcement(source))
                    });
                }
            }
        }
    }

    /// Takes questions, and ends this caster if another one with its key began later.
    fn receive(&mut self) -> anyhow::Result<()> {
        let (caster, mut by) = (&mut self.caster, None);
        let questions = caster.clock_groups().map(|groups| groups.questions);
        self.network.receive(|group, source, datagram| {
            if Some(group) == questions {
                // when it arrived, not when this turn began
                caster.handle_question(datagram, source, Instant::now());
            } else if caster.is_superseded_by(datagram, source, UnixTime::now()) {
                by = Some(source);
            }
        })?;
        match by {
            None => Ok(()),
            Some(source) => anyhow::bail!(
                "another caster has this key and began later, at {source}: this one ends"
            ),
        }
    }

    /// Sends the end of the session to listeners.
    fn end(&mut self, wake: &Wake) -> io::Result<()> {
        let begun = Instant::now();
        if let Some(drops) = self.caster.drops().map(Drops::by_name)
            && !drops.is_empty()
        {
            tracing::info!("dropped questions for the clock: {drops:?}");
        }
        self.caster.end(begun);
        loop {
            let now = Instant::now();
            self.transmit(now);
            let until = self.caster.next_timeout();
            match until {
                Some(until) if !self.caster.has_ended() && now < begun + END => {
                    wake.wait(std::iter::empty(), until)?;
                }
                _ => return Ok(()),
            }
        }
    }
}
