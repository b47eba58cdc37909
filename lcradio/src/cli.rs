//! The command line of `lcradio`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use lcradio_core::{Latency, Profile};
use librecast::outside::Place;
use librecast::units::{parse_duration, parse_rate};
use librecast_program::cli::{self, Exit, ExitError, init_logging};
use librecast_program::guest;

use crate::{call, cast, device, helper, keys, listen, stations};

const EXAMPLES: &str = "Examples:
  lcradio keygen station.key                                a key; prints what listens to it, privately and publicly
  lcradio cast --key station.key --profile voice            the microphone; Ctrl-C ends it
  lcradio cast --key station.key --public --file story.opus a public station, which announces itself
  ffmpeg -i song.mp3 -f s16le -ar 48000 -ac 2 - | lcradio cast -
  lcradio cast --key station.key --icecast 127.0.0.1:8000 --icecast-password FILE  BUTT, Mixxx, OBS or ffmpeg send it
  lcradio grant station.key lcr1... --ttl 12h > guest.grant another key may cast, too: lcradio cast --key guest.key --grant guest.grant
  lcradio cast --code --file story.opus                     four words; no root, no daemon, no key
  lcradio listen tiger-harbor-lemon-quiz                    hear it, anywhere: the same words
  lcradio cast --key station.key --outside --at meet.example  for anyone with the text; no network, no root, no daemon
  lcradio listen lcr1...@meet.example                       hear it, anywhere
  lcradio invite station.key eve --at meet.example          a token; a host with a good uplink helps by it:
  lcradio helper lct1...                                    carry the sound to listeners, until Ctrl-C
  lcradio cast --key station.key --file mass.opus --together loudspeakers of all listeners in step, 150 ms later
  lcradio call                                              a call: prints lcc1..., with which others enter
  lcradio call lcc1... --name Bob --device plughw:CARD=Headset,DEV=0
  lcradio stations                                          public stations, and foreign senders
  lcradio listen lcr1... --record story.opus                record it; Ctrl-C ends the recording
  lcradio listen 'lct1...,lcr1...'                          in a network, by a token for leaves: no root, no daemon
  lcradio listen story                                      hear it; --device names other loudspeakers than the system's

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing came, 4 not permitted, another key, or two who cast under one code, 130 or 143 interrupted.";

/// Live radio over multicast: one microphone, file or pipe, any number of listeners, no server
#[derive(Debug, Parser)]
#[command(name = "lcradio", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Common {
    /// Interface to use; may be repeated [default: all that can carry multicast]
    #[arg(short, long = "interface", global = true, value_name = "NAME")]
    interfaces: Vec<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// error, warn, info, debug, trace or TARGET=LEVEL with commas between [default: $RUST_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProfileName {
    /// Speech, one channel, 32 kbit/s
    Voice,
    /// Everything else, 96 kbit/s
    Music,
}

/// The word for standard input or output.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pipe {
    #[value(name = "-")]
    Standard,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a station's key, and print what listens to it
    Keygen {
        /// Where it goes; must not exist
        file: PathBuf,
    },
    /// Let another key cast for a station, beside its own; prints the grant
    Grant {
        /// The station's key
        key: PathBuf,
        /// What `keygen` called public when the caster made a key
        caster: String,
        /// How long it is good; it cannot be taken back
        #[arg(long, default_value = "30d", value_parser = parse_duration, value_name = "TIME")]
        ttl: Duration,
        /// For the public station, not for the private one
        #[arg(long)]
        public: bool,
        /// For a station in a network of its own (`cast --outside`): the grant leads into it, as a member
        #[arg(long)]
        outside: bool,
        /// Where that network meets, with --outside: HOST, HOST:PORT or a URL of a signalling server; may be repeated
        #[arg(long, value_name = "PLACE", requires = "outside")]
        at: Vec<Place>,
    },
    /// Let another host carry sound to listeners for a station in a network of its own (`cast --outside`); prints its token
    Invite {
        /// The station's key
        key: PathBuf,
        /// A name for the host, by which `cast --without` withdraws it
        name: String,
        /// How long the token is good
        #[arg(long, default_value = "30d", value_parser = parse_duration, value_name = "TIME")]
        ttl: Duration,
        /// For the public station, not for the private one
        #[arg(long)]
        public: bool,
        /// Where the station's network meets: HOST, HOST:PORT or a URL of a signalling server; may be repeated
        #[arg(long, value_name = "PLACE")]
        at: Vec<Place>,
    },
    /// Carry a station's sound to its listeners, by a token of `invite`: no root, no daemon. Ctrl-C ends it
    Helper {
        /// What `invite` printed, a secret, or `-` to read it from standard input
        token: Option<String>,
    },
    /// List microphones and loudspeakers
    Devices,
    /// Send sound to all listeners
    Cast {
        /// Samples on standard input: s16le, 48 kHz, two channels; or WAV [default: the microphone]
        #[arg(value_name = "-", value_parser = parse_input)]
        input: Option<Pipe>,
        /// A microphone, as `devices` names it [default: the system's]
        #[arg(long, value_name = "DEVICE", conflicts_with_all = ["input", "file"])]
        device: Option<String>,
        /// The station's key [default: a new one, for this run]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Cast another's station by what `grant` printed there; `--key` is the key that it is for
        #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "public")]
        grant: Option<PathBuf>,
        /// The station's name [default: the file's, or the host's]
        #[arg(long)]
        name: Option<String>,
        /// Ogg Opus, sent as it is, or WAV
        #[arg(long, value_name = "FILE", conflicts_with = "input")]
        file: Option<PathBuf>,
        /// Sound of BUTT, Mixxx, OBS or ffmpeg, which connect here as to an Icecast server: Ogg Opus, sent as it is, or
        /// another format, by ffmpeg
        #[arg(long, value_name = "ADDR:PORT", requires = "icecast_password",
            conflicts_with_all = ["input", "device", "file", "code", "outside", "push_to_talk"])]
        icecast: Option<SocketAddr>,
        /// A file with the password that these programs prove, with --icecast
        #[arg(long, value_name = "FILE", requires = "icecast")]
        icecast_password: Option<PathBuf>,
        /// What kind of sound it is
        #[arg(long, value_enum, default_value = "music")]
        profile: ProfileName,
        /// Bits per second [default: 32k for voice, 96k for music]
        #[arg(long, value_parser = parse_rate, value_name = "RATE")]
        bitrate: Option<u64>,
        /// Everybody may listen: packets are plain, and the station announces itself
        #[arg(long)]
        public: bool,
        /// Cast under four words, which it prints, in a network that they make: no root, no daemon
        #[arg(long, conflicts_with = "public")]
        code: bool,
        /// In a network of the station's own: anyone with the printed text can listen, without network, root or daemon
        #[arg(long, requires = "key", conflicts_with_all = ["code", "grant", "interfaces", "together"])]
        outside: bool,
        /// Where listeners find it, with --outside: HOST, HOST:PORT or a URL of a signalling server; may be repeated
        /// [default: LCROUTE_SIGNAL, or [outside] meet of the configuration]
        #[arg(long, value_name = "PLACE", requires = "outside")]
        at: Vec<Place>,
        /// Withdraw the helper of this name from `invite`, with --outside; may be repeated
        #[arg(long, value_name = "NAME", requires = "outside")]
        without: Vec<String>,
        /// Loudspeakers of all listeners play in step, MS milliseconds after this caster: 20 to 800 [default: 150]
        #[arg(long, value_name = "MS", num_args = 0..=1, default_missing_value = TOGETHER_MS, value_parser = parse_together)]
        together: Option<Together>,
        /// Send silence until SIGUSR1 comes, and again after SIGUSR2; the space bar of the terminal changes it, too
        #[arg(long)]
        push_to_talk: bool,
    },
    /// Hear a station, or record it
    Listen {
        /// What `keygen` or `cast` printed, the name of a public station, or `-` to read either from standard input;
        /// `lct1...,lcr1...` enters a network by its token, four words that of `cast --code`, and `lcr1...@PLACE` that of
        /// `cast --outside`, without root and daemon
        #[arg(required_unless_present_any = ["station_file", "code"])]
        station: Option<String>,
        /// Samples to standard output: s16le, 48 kHz, two channels [default: loudspeakers]
        #[arg(value_name = "-")]
        output: Option<Pipe>,
        /// Loudspeakers, as `devices` names them [default: the system's]
        #[arg(long, value_name = "DEVICE", conflicts_with_all = ["output", "record"])]
        device: Option<String>,
        /// Record to this file, Ogg Opus; if it exists, to the next free name, as FILE-2.opus
        #[arg(long, value_name = "FILE", conflicts_with = "output")]
        record: Option<PathBuf>,
        /// Share the recording by `lcsync share` when it has ended, until a second Ctrl-C
        #[arg(long, requires = "record")]
        archive: bool,
        /// The key to share it with, of `lcsync keygen`; a private station's recording needs one
        #[arg(long, value_name = "FILE", requires = "archive")]
        keyfile: Option<PathBuf>,
        /// A file with the station's text, which a private station keeps secret
        #[arg(long, value_name = "FILE")]
        station_file: Option<PathBuf>,
        /// The station under the code of the guest in which this runs: `lcroute guest CODE`
        #[arg(long, conflicts_with = "station_file")]
        code: bool,
        /// The station is in a network of its own (`cast --outside`), also if its text names no place
        #[arg(long, conflicts_with_all = ["code", "interfaces"])]
        outside: bool,
        /// Delay of what is heard: auto, quick (40 ms), safe (200 ms at least), or milliseconds
        /// [default: in step with other listeners if the caster says so, else auto]
        #[arg(long, value_parser = parse_latency, value_name = "DELAY")]
        latency: Option<Latency>,
        /// In step, play MS milliseconds earlier: for loudspeakers that are late, such as Bluetooth; up to 800
        #[arg(long, value_parser = parse_earlier, value_name = "MS", conflicts_with_all = ["latency", "record"])]
        earlier: Option<Duration>,
        /// Give up after this long without a packet [default: 30s; a day for a recorder that systemd runs, or that has heard its station]
        #[arg(long, value_parser = parse_duration, value_name = "TIME")]
        timeout: Option<Duration>,
    },
    /// Talk with seven others, while any number listen, without a server. Space mutes, q leaves
    Call {
        /// What `call` printed, or `-` to read it from standard input; `lct1...,lcc1...` enters a network by its token,
        /// without root and daemon [default: a new call, whose text it prints]
        call: Option<String>,
        /// A file with the call's text, a secret
        #[arg(long, value_name = "FILE", conflicts_with = "call")]
        call_file: Option<PathBuf>,
        /// Your name, as the others see it [default: the user's]
        #[arg(long)]
        name: Option<String>,
        /// Only listen: nobody sees it
        #[arg(long, conflicts_with_all = ["name", "push_to_talk", "muted", "unmuted", "input"])]
        listen: bool,
        /// Microphone and loudspeakers, as `devices` names them [default: the system's]
        #[arg(long, value_name = "DEVICE")]
        device: Option<String>,
        /// Samples on standard input in the place of the microphone: s16le, 48 kHz, two channels; or WAV
        #[arg(long, value_name = "-")]
        input: Option<Pipe>,
        /// Samples to standard output in the place of loudspeakers: s16le, 48 kHz, two channels
        #[arg(long, value_name = "-")]
        output: Option<Pipe>,
        /// Begin muted, and talk while you want it: the space bar, or SIGUSR1 and SIGUSR2
        #[arg(long, conflicts_with_all = ["muted", "unmuted"])]
        push_to_talk: bool,
        /// Begin muted [default: unless the device is a headset, as others would hear themselves]
        #[arg(long, conflicts_with = "unmuted")]
        muted: bool,
        /// Do not begin muted: nothing of the loudspeakers comes into the microphone
        #[arg(long)]
        unmuted: bool,
    },
    /// List public stations, and foreign senders
    Stations {
        /// Go on with what comes and goes
        #[arg(long)]
        watch: bool,
        /// Print the session description of this one, for players: ffplay -protocol_whitelist file,udp,rtp FILE.sdp
        #[arg(long, value_name = "STATION", conflicts_with_all = ["watch", "json"])]
        sdp: Option<String>,
    },
}

/// Milliseconds of `--together` alone: a path of 40 ms, jitter, and a copy 40 ms later.
const TOGETHER_MS: &str = "150";
/// Longest delay that can be asked for: what the buffer holds.
const MAX_LATENCY_MS: u64 = 800;

fn parse_input(value: &str) -> Result<Pipe, String> {
    match value {
        "-" => Ok(Pipe::Standard),
        _ => Err("- is standard input; a file: --file FILE".to_owned()),
    }
}

fn milliseconds(value: &str, least: u64) -> Option<Duration> {
    let ms = value.parse().ok()?;
    let is_within = (least..=MAX_LATENCY_MS).contains(&ms);
    is_within.then(|| Duration::from_millis(ms))
}

/// The delay of `--together`. In `cast --together -`, the word after it is the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Together {
    play_after: Duration,
    is_pipe: bool,
}

fn parse_together(value: &str) -> Result<Together, String> {
    let is_pipe = value == "-";
    let ms = if is_pipe { TOGETHER_MS } else { value };
    let play_after = milliseconds(ms, 20).ok_or("milliseconds from 20 to 800")?;
    Ok(Together {
        play_after,
        is_pipe,
    })
}

fn parse_earlier(value: &str) -> Result<Duration, String> {
    milliseconds(value, 0).ok_or_else(|| "milliseconds up to 800".to_owned())
}

fn parse_latency(value: &str) -> Result<Latency, String> {
    match value {
        "auto" => Ok(Latency::Auto),
        "quick" => Ok(Latency::Quick),
        "safe" => Ok(Latency::Safe),
        _ => match value.parse() {
            Ok(ms @ 20..=MAX_LATENCY_MS) => Ok(Latency::Fixed(Duration::from_millis(ms))),
            _ => Err("auto, quick, safe, or milliseconds from 20 to 800".to_owned()),
        },
    }
}

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    guest::or_here("lcradio", || cli::run("lcradio", run))
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Common {
        interfaces,
        json,
        log,
    } = cli.common;
    init_logging(log.as_deref(), "warn")?;
    match cli.verb {
        Verb::Keygen { file } => keys::keygen(&file, json),
        Verb::Grant {
            key,
            caster,
            ttl,
            public,
            outside,
            at,
        } => keys::grant(&keys::GrantOptions {
            key,
            caster,
            ttl,
            is_public: public,
            outside: outside.then_some(at),
            json,
        }),
        Verb::Invite {
            key,
            name,
            ttl,
            public,
            at,
        } => keys::invite(&keys::InviteOptions {
            key,
            name,
            ttl,
            is_public: public,
            places: at,
            json,
        }),
        Verb::Helper { token } => helper::run(token.as_deref(), json),
        Verb::Devices => device::show(json),
        Verb::Cast {
            input,
            device,
            key,
            grant,
            name,
            file,
            icecast,
            icecast_password,
            profile,
            bitrate,
            public,
            code,
            outside,
            at,
            without,
            together,
            push_to_talk,
        } => {
            let pipe = together
                .filter(|together| together.is_pipe)
                .map(|_| Pipe::Standard);
            if pipe.is_some() && (file.is_some() || device.is_some() || icecast.is_some()) {
                let message = "- is standard input: without --file, --device and --icecast";
                return Err(ExitError::new(Exit::Usage, message).into());
            }
            cast::run(&cast::Options {
                key,
                grant,
                name,
                input: match (icecast.zip(icecast_password), file, input.or(pipe)) {
                    (Some((at, password)), ..) => cast::Input::Icecast(at, password),
                    (None, Some(file), _) => cast::Input::File(file),
                    (None, None, Some(Pipe::Standard)) => cast::Input::Pipe,
                    (None, None, None) => cast::Input::Device(device),
                },
                profile: match profile {
                    ProfileName::Voice => Profile::Voice,
                    ProfileName::Music => Profile::Music,
                },
                bitrate,
                is_public: public,
                under_code: code,
                outside: outside.then_some(at),
                without,
                together: together.map(|together| together.play_after),
                push_to_talk,
                interfaces,
                json,
            })
        }
        Verb::Listen {
            station,
            output,
            device,
            record,
            archive,
            keyfile,
            station_file,
            code,
            outside,
            latency,
            earlier,
            timeout,
        } => listen::run(&listen::Options {
            output: match (record, output) {
                (Some(path), _) => listen::Output::Recording(path),
                (None, Some(Pipe::Standard)) => listen::Output::Pipe,
                // after --station-file or --code it takes the place of a station
                (None, None)
                    if (station_file.is_some() || code) && station.as_deref() == Some("-") =>
                {
                    listen::Output::Pipe
                }
                (None, None) => listen::Output::Device(device),
            },
            station,
            station_file,
            of_code: code,
            outside,
            archive: archive.then_some(keyfile),
            latency,
            earlier: earlier.unwrap_or_default(),
            timeout,
            interfaces,
            json,
        }),
        Verb::Call {
            call,
            call_file,
            name,
            listen,
            device,
            input,
            output,
            push_to_talk,
            muted,
            unmuted,
        } => call::run(&call::Options {
            call,
            call_file,
            name,
            listens: listen,
            is_muted: match (push_to_talk || muted, unmuted) {
                (true, _) => Some(true),
                (false, true) => Some(false),
                (false, false) => None,
            },
            by_pipe: input.is_some(),
            to_pipe: output.is_some(),
            device,
            interfaces,
            json,
        }),
        Verb::Stations { watch, sdp } => stations::run(&stations::Options {
            watch,
            sdp,
            json,
            interfaces,
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn a_file_in_the_place_of_a_pipe_is_told_its_option() {
        let told = Cli::try_parse_from(["lcradio", "cast", "song.opus"]);
        assert!(told.unwrap_err().to_string().contains("--file FILE"));
        assert!(Cli::try_parse_from(["lcradio", "cast", "-"]).is_ok());
    }

    #[test]
    fn listeners_in_step_are_given_a_delay_or_none_before_a_pipe_too() {
        let together = |words: &[&str]| {
            let words = [&["lcradio", "cast"], words].concat();
            match Cli::try_parse_from(words).map(|cli| cli.verb) {
                Ok(Verb::Cast {
                    together, input, ..
                }) => Ok((together, input.is_some())),
                Ok(_) => unreachable!("cast"),
                Err(e) => Err(e.to_string()),
            }
        };
        let after = |ms, is_pipe| {
            let play_after = Duration::from_millis(ms);
            Some(Together {
                play_after,
                is_pipe,
            })
        };
        assert_eq!(together(&[]), Ok((None, false)));
        assert_eq!(together(&["--together"]), Ok((after(150, false), false)));
        assert_eq!(
            together(&["--together", "-"]),
            Ok((after(150, true), false))
        );
        assert_eq!(
            together(&["-", "--together"]),
            Ok((after(150, false), true))
        );
        let both = together(&["--together", "300", "-"]);
        assert_eq!(both, Ok((after(300, false), true)));
        for wrong in ["19", "801", "-5", "soon"] {
            let told = together(&["--together", wrong]).unwrap_err();
            assert!(
                told.contains("20 to 800") || told.contains("unexpected"),
                "{told}"
            );
        }
        for words in [
            ["--earlier", "801"].as_slice(),
            &["--earlier", "20", "--latency", "auto"],
            &["--earlier", "20", "--record", "x.opus"],
        ] {
            let words = [&["lcradio", "listen", "lcr1"], words].concat();
            assert!(Cli::try_parse_from(words).is_err());
        }
    }

    #[test]
    fn delays_are_words_or_milliseconds() {
        assert_eq!(parse_latency("safe"), Ok(Latency::Safe));
        let fixed = Latency::Fixed(Duration::from_millis(120));
        assert_eq!(parse_latency("120"), Ok(fixed));
        for wrong in ["", "19", "801", "-5", "fast"] {
            assert!(parse_latency(wrong).is_err(), "{wrong}");
        }
    }
}
