//! The command line of `lcradio`.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use lcradio_core::Latency;
use librecast_program::cli::{self, Common, Exit, init_logging};
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

/// The word for standard input or output.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Pipe {
    /// `-`.
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
    Grant(keys::GrantOptions),
    /// Let another host carry sound to listeners for a station in a network of its own (`cast --outside`); prints its token
    Invite(keys::InviteOptions),
    /// Carry a station's sound to its listeners, by a token of `invite`: no root, no daemon. Ctrl-C ends it
    Helper {
        /// What `invite` printed, a secret, or `-` to read it from standard input
        token: Option<String>,
    },
    /// List microphones and loudspeakers
    Devices,
    /// Send sound to everybody who listens
    Cast(cast::Options),
    /// Hear a station, or record it
    Listen(listen::Options),
    /// Talk with seven others, while any number listen, without a server. Space mutes, q leaves
    Call(call::Options),
    /// List public stations, and foreign senders
    Stations(stations::Options),
}

/// Milliseconds of `--together` alone: a path of 40 ms, jitter, and a copy 40 ms later.
pub const TOGETHER_MS: &str = "150";
/// Longest delay that can be asked for: what the buffer holds.
const MAX_LATENCY_MS: u64 = 800;

/// Reads the word for standard input; a file is told its option.
pub fn parse_input(value: &str) -> Result<Pipe, String> {
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
pub struct Together {
    /// The delay.
    pub play_after: Duration,
    /// The word after it was the input's.
    pub is_pipe: bool,
}

/// Reads the milliseconds of `--together`.
pub fn parse_together(value: &str) -> Result<Together, String> {
    let is_pipe = value == "-";
    let ms = if is_pipe { TOGETHER_MS } else { value };
    let play_after = milliseconds(ms, 20).ok_or("milliseconds from 20 to 800")?;
    Ok(Together {
        play_after,
        is_pipe,
    })
}

/// Reads the milliseconds of `--earlier`.
pub fn parse_earlier(value: &str) -> Result<Duration, String> {
    milliseconds(value, 0).ok_or_else(|| "milliseconds up to 800".to_owned())
}

/// Reads a delay: a word, or milliseconds.
pub fn parse_latency(value: &str) -> Result<Latency, String> {
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

/// Tells the user something beside the result.
pub fn hint(line: impl Display) {
    cli::hint("lcradio", line);
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
    let Cli { common, verb } = cli;
    init_logging(common.log.as_deref(), "warn")?;
    match verb {
        Verb::Keygen { file } => keys::keygen(&file, common.json),
        Verb::Grant(options) => keys::grant(&options, common.json),
        Verb::Invite(options) => keys::invite(&options, common.json),
        Verb::Helper { token } => helper::run(token.as_deref(), common.json),
        Verb::Devices => device::show(common.json),
        Verb::Cast(options) => cast::run(&options, &common),
        Verb::Listen(options) => listen::run(&options, &common),
        Verb::Call(options) => call::run(&options, &common),
        Verb::Stations(options) => stations::run(&options, &common),
    }
}

#[cfg(test)]
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
                Ok(Verb::Cast(cast)) => Ok((cast.together, cast.input.is_some())),
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
