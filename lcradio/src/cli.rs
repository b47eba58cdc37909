//! The command line of `lcradio`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
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
    use std::time::Duration;

    use crate::values::Together;

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
}
