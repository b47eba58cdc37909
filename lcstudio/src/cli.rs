//! The command line of `lcstudio`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use lcstudio_core::{Language, TrackName, clean_line};
use librecast::outside::Place;
use librecast::units::parse_duration;
use librecast_program::cli::{self, Exit, init_logging, print_line};
use librecast_program::guest;

use crate::attend::Choice;
use crate::folder::{Folder, default_title, say_next};
use crate::outside::Invited;
use crate::{
    attend, camera, caption, export, hold, invite, keys, notes, outside, present, screen, watch,
};

const EXAMPLES: &str = "Examples:
  lcstudio keygen talk.key                                 a key; prints the session that it presents
  lcstudio new talk --key talk.key --title Bees --lang en  a folder with slides.md and session.toml
  lcstudio present talk --key talk.key                     on air: Enter turns to the next slide
  lcstudio attend lcs1...                                  slides, questions and captions as text
  lcstudio attend 'lct1...,lcs1...'                        in a network, by a token for leaves: no root, no daemon
  lcstudio invite talk --page https://meet.example --qr    a link that anybody may have: attends, and asks
  lcstudio present talk --key talk.key --code              under four words: no root, no daemon
  lcstudio attend tiger-harbor-lemon-quiz                  the same words, anywhere
  lcstudio present talk --key talk.key --outside --at meet.example   for anyone with the text; no network, no root, no daemon
  lcstudio attend lcs1...@meet.example                     what it printed, anywhere
  lcstudio attend lcs1... --tracks captions/en             captions alone: nothing else is sent to this host
  lcstudio caption lcs1... --key ann.key --lang en -       a line in, a caption out
  grim-loop | lcstudio screen talk --key talk.key -        a screen as pictures without loss, for pages
  ffmpeg ... -c:v libvpx -f ivf - | lcstudio camera talk --key talk.key -     a camera, in layers
  lcstudio watch lcs1... camera - | ffplay -f ivf -        the camera, or the screen, into a player
  lcstudio notes lcs1... notes.md                          any editor writes the notes of all
  lcstudio hold lcs1... kept                               keeps it all, and gives it to who comes late
  lcstudio export kept lecture.html                        one page; also .md, .vtt, or a folder for all

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nobody was heard, 4 not permitted, 130 or 143 interrupted.";

/// Lectures that each listener renders for himself: slides, captions, questions, over multicast
#[derive(Debug, Parser)]
#[command(name = "lcstudio", version, after_help = EXAMPLES)]
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

/// The word for standard input and output.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pipe {
    #[value(name = "-")]
    Standard,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key, and print the session that it presents
    Keygen {
        /// Where it goes, the public half into FILE.pub; must not exist
        file: PathBuf,
    },
    /// Make the folder of a session, to be written in
    New {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The session's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// What the session is called [default: the folder's name]
        #[arg(long)]
        title: Option<String>,
        /// A language of captions and sound; may be repeated [default: en]
        #[arg(long = "lang", value_name = "LANGUAGE")]
        languages: Vec<Language>,
    },
    /// Present what lies in a folder; what is typed turns the slides
    Present {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The session's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Present under four words, which it prints, in a network that they make: no root, no daemon
        #[arg(long)]
        code: bool,
        /// In a network of the session's own: anyone with the printed text can attend, without network, root or daemon
        #[arg(long, conflicts_with_all = ["code", "interfaces"])]
        outside: bool,
        /// Where attenders find it, with --outside: HOST, HOST:PORT or a URL of a signalling server; may be repeated
        /// [default: LCROUTE_SIGNAL, or [outside] meet of the configuration]
        #[arg(long, value_name = "PLACE", requires = "outside")]
        at: Vec<Place>,
    },
    /// Make a token for a lecture, with `lcroute invite`: anyone with it attends as a leaf and asks questions
    Invite {
        /// The folder of who presents, or held
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The session's key, before it was presented for the first time
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// What it is good for [default: all tracks]
        #[arg(long, value_delimiter = ',', value_name = "TRACK,...")]
        tracks: Vec<TrackName>,
        /// Print the link of a page of `lcroute web` in place of what `lcstudio attend` takes
        #[arg(long, value_name = "URL")]
        page: Option<String>,
        /// Print it as a QR code, or write that to a file: NAME.svg, else a PNG
        #[arg(long, value_name = "FILE", num_args = 0..=1)]
        qr: Option<Option<PathBuf>>,
        /// How long leaves can come by it
        #[arg(long, default_value = "7d", value_parser = parse_duration, value_name = "TIME")]
        ttl: Duration,
        /// Where its leaves meet; may be repeated [default: from lcroute's configuration]
        #[arg(long, value_name = "URL")]
        signal: Vec<String>,
        /// The state of lcroute [default: as of lcroute]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// For the session's own network (`present --outside`); good for 30 days
        #[arg(long, requires = "key", conflicts_with_all = ["tracks", "qr", "ttl", "signal", "state_dir"])]
        outside: bool,
        /// Where that network meets, with --outside: HOST, HOST:PORT or a URL of a signalling server; may be repeated
        #[arg(long, value_name = "PLACE", requires = "outside")]
        at: Vec<Place>,
        /// With --outside, print a token for a member, which may send sound or hold the session for others: a secret
        #[arg(long, requires = "outside", conflicts_with = "page")]
        member: bool,
    },
    /// Attend a session as text; a line that is typed is a question
    Attend {
        /// lcs1..., a file with it, `-` to read it from standard input, or the four words of `present --code`
        #[arg(required_unless_present = "code")]
        session: Option<String>,
        /// The session under the code of the guest in which this runs: `lcroute guest CODE`
        #[arg(long, conflicts_with = "session")]
        code: bool,
        /// The session is in a network of its own (`present --outside`), also if its text names no place
        #[arg(long, conflicts_with_all = ["code", "interfaces"])]
        outside: bool,
        /// What to join: slides, questions, captions, audio, captions/LANGUAGE, audio/LANGUAGE [default: all but audio]
        #[arg(long, value_delimiter = ',', value_name = "TRACK,...")]
        tracks: Vec<Choice>,
        /// How you are called when you ask
        #[arg(long, default_value = "")]
        name: String,
        /// Give up after this long without a packet
        #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
        timeout: Duration,
    },
    /// Write captions: a line in, a caption out; a line that begins with `^ ` corrects the one before
    Caption {
        /// lcs1..., a file with it, or `-` to read it from standard input
        session: String,
        /// The session's key, or one that session.toml names
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The session is in a network of its own (`present --outside`), also if its text names no place
        #[arg(long, conflicts_with = "interfaces")]
        outside: bool,
        /// The language, where there are several
        #[arg(long = "lang", value_name = "LANGUAGE")]
        language: Option<Language>,
        /// Who speaks
        #[arg(long, default_value = "", value_name = "NAME")]
        speaker: String,
        /// Give up after this long without a packet, or without permission to write
        #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
        timeout: Duration,
        /// Where it is kept what was written [default: $XDG_STATE_HOME/lcstudio]
        #[arg(long, env = "LCSTUDIO_STATE_DIR", value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// Lines on standard input
        #[arg(value_name = "-")]
        input: Pipe,
    },
    /// Show a screen, beside `present`: pictures in, their changes out, without loss
    Screen {
        /// lcs1..., a file with it, the folder that is presented, or `-` to read it from standard input
        session: String,
        /// The session's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The session is in a network of its own (`present --outside`), also if its text names no place
        #[arg(long, conflicts_with = "interfaces")]
        outside: bool,
        /// Give up after this long without a packet, or without a screen in the session
        #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
        timeout: Duration,
        /// PNG or WebP on standard input, one picture after the other
        #[arg(value_name = "-")]
        input: Pipe,
    },
    /// Show a camera, beside `present`: VP8 in, its layers out, each to a group of its own
    Camera {
        /// lcs1..., a file with it, the folder that is presented, or `-` to read it from standard input
        session: String,
        /// The session's key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The session is in a network of its own (`present --outside`), also if its text names no place
        #[arg(long, conflicts_with = "interfaces")]
        outside: bool,
        /// The same in a larger picture, as IVF, for those that ask for it: a file, or a pipe of mkfifo
        #[arg(long, value_name = "FILE")]
        large: Option<PathBuf>,
        /// Give up after this long without a packet, or without a camera in the session
        #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
        timeout: Duration,
        /// VP8 on standard input, as IVF: up to 640 x 360, 30 pictures a second, a key frame each 2 s
        #[arg(value_name = "-")]
        input: Pipe,
    },
    /// Write the screen or the camera of a session to standard output, for a player
    Watch {
        /// lcs1..., a file with it, or `-` to read it from standard input
        session: String,
        /// The track: a screen comes as PNG after PNG, a camera as IVF with VP8
        #[arg(value_enum)]
        track: watch::Watched,
        /// The session is in a network of its own (`present --outside`), also if its text names no place
        #[arg(long, conflicts_with = "interfaces")]
        outside: bool,
        /// The camera's large picture, where there is one and the network can carry it
        #[arg(long)]
        large: bool,
        /// Give up after this long without a packet, or without such a track in the session
        #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
        timeout: Duration,
        /// Standard output
        #[arg(value_name = "-")]
        output: Pipe,
    },
    /// Write the notes of a session with any editor: a save goes to all, what others write comes into the file
    Notes {
        /// lcs1..., a file with it, or `-` to read it from standard input
        session: String,
        /// A text file that is not there yet, or that this verb has made
        file: PathBuf,
        /// The session is in a network of its own (`present --outside`), also if its text names no place
        #[arg(long, conflicts_with = "interfaces")]
        outside: bool,
        /// Give up after this long without a packet; not for a session that is known from before
        #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
        timeout: Duration,
        /// Where it is kept what was written [default: $XDG_STATE_HOME/lcstudio]
        #[arg(long, env = "LCSTUDIO_STATE_DIR", value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// The document of notes, on standard input and output; started by `notes`
    #[command(hide = true, name = notes::VERB)]
    Document,
    /// Keep a session, and send it to members that join later
    Hold {
        /// lcs1..., a file with it, or `-` to read it from standard input
        session: String,
        /// Where it is kept
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// The session is in a network of its own (`present --outside`), also if its text names no place
        #[arg(long, conflicts_with = "interfaces")]
        outside: bool,
        /// Leave out sound
        #[arg(long)]
        no_sound: bool,
        /// Leave out the screen
        #[arg(long)]
        no_screen: bool,
        /// Leave out the camera
        #[arg(long)]
        no_camera: bool,
    },
    /// Make files of a session that others read
    Export {
        /// The folder of who presented, or held
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// FILE.html, FILE.md, FILE.vtt, or a folder for all
        out: PathBuf,
        /// The language of captions [default: the first]
        #[arg(long = "lang", value_name = "LANGUAGE")]
        language: Option<Language>,
    },
}

/// The default folder of written text.
fn state_dir() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(set("HOME")?).join(".local/state"));
    let state = state
        .or_else(home)
        .context("neither XDG_STATE_HOME nor HOME is set")?;
    Ok(state.join("lcstudio"))
}

/// The command line, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    guest::or_here("lcstudio", || cli::run("lcstudio", run))
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
        Verb::New {
            folder,
            key,
            title,
            languages,
        } => {
            let secret = keys::load(&key)?;
            let title = title.map_or_else(|| default_title(&folder), |title| clean_line(&title));
            let english = || vec!["en".parse()].into_iter().flatten().collect();
            let languages = if languages.is_empty() {
                english()
            } else {
                languages
            };
            let folder = Folder::create(&folder, &secret, &title, &languages)?;
            print_line(&*secret.session().encode())?;
            say_next(&folder, &key);
            Ok(Exit::Ok)
        }
        Verb::Present {
            folder,
            key,
            code,
            outside,
            at,
        } => present::run(&present::Options {
            folder,
            key,
            under_code: code,
            outside: outside.then_some(at),
            interfaces,
            json,
        }),
        Verb::Invite {
            key: Some(key),
            outside: true,
            at,
            member,
            page,
            folder,
            ..
        } => {
            let key = keys::load(&key)?;
            keys::check(&key, &Folder::new(&folder).session()?)?;
            let what = match (member, page) {
                (true, _) => Invited::Member,
                (false, page) => Invited::Leaf(page),
            };
            outside::invite(&key, &at, &what, json)
        }
        Verb::Invite {
            folder,
            key,
            tracks,
            page,
            qr,
            ttl,
            signal,
            state_dir,
            ..
        } => {
            let ttl = format!("{}s", ttl.as_secs());
            let one = |name: &str, value: OsString| [OsString::from(name), value];
            let mut rest = Vec::from(one("--ttl", ttl.into()));
            rest.extend(page.into_iter().flat_map(|page| one("--page", page.into())));
            rest.extend(
                signal
                    .into_iter()
                    .flat_map(|url| one("--signal", url.into())),
            );
            let state_dir = state_dir.into_iter();
            rest.extend(state_dir.flat_map(|dir| one("--state-dir", dir.into())));
            if let Some(file) = qr {
                rest.push("--qr".into());
                rest.extend(file.map(PathBuf::into_os_string));
            }
            invite::run(&invite::Options {
                folder,
                key,
                tracks,
                rest,
                json,
            })
        }
        Verb::Attend {
            session,
            outside,
            code: _,
            tracks,
            name,
            timeout,
        } => attend::run(&attend::Options {
            session,
            outside,
            tracks,
            name,
            timeout,
            interfaces,
            json,
        }),
        Verb::Caption {
            session,
            outside,
            key,
            language,
            speaker,
            timeout,
            state_dir: given,
            input: Pipe::Standard,
        } => caption::run(&caption::Options {
            session,
            outside,
            key,
            language,
            speaker,
            timeout,
            state_dir: given.map_or_else(state_dir, Ok)?,
            interfaces,
        }),
        Verb::Screen {
            session,
            outside,
            key,
            timeout,
            input: Pipe::Standard,
        } => screen::run(&screen::Options {
            session,
            outside,
            key,
            timeout,
            interfaces,
        }),
        Verb::Camera {
            session,
            outside,
            key,
            large,
            timeout,
            input: Pipe::Standard,
        } => camera::run(&camera::Options {
            session,
            outside,
            key,
            large,
            timeout,
            interfaces,
        }),
        Verb::Watch {
            session,
            outside,
            track,
            large,
            timeout,
            output: Pipe::Standard,
        } => watch::run(&watch::Options {
            session,
            outside,
            track,
            large,
            timeout,
            interfaces,
        }),
        Verb::Notes {
            session,
            outside,
            file,
            timeout,
            state_dir: given,
        } => notes::run(&notes::Options {
            session,
            outside,
            file,
            timeout,
            state_dir: given.map_or_else(state_dir, Ok)?,
            interfaces,
            json,
        }),
        Verb::Document => notes::document::run(),
        Verb::Hold {
            session,
            outside,
            folder,
            no_sound,
            no_screen,
            no_camera,
        } => hold::run(&hold::Options {
            session,
            outside,
            folder,
            sound: !no_sound,
            screen: !no_screen,
            camera: !no_camera,
            interfaces,
        }),
        Verb::Export {
            folder,
            out,
            language,
        } => export::run(&export::Options {
            folder,
            out,
            language,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }
}
