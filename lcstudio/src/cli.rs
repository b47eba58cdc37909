//! The command line of `lcstudio`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use lcstudio_core::{Language, clean_line};
use librecast_program::cli::{self, Common, Exit, init_logging, print_line};
use librecast_program::guest;

use crate::folder::{Folder, default_title, say_next};
use crate::{attend, camera, caption, export, hold, invite, keys, notes, present, screen, watch};

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
    Present(present::Options),
    /// Make a token for a lecture, with `lcroute invite`: whoever has it attends as a leaf and asks questions
    Invite(invite::Options),
    /// Attend a session as text; a line that is typed is a question
    Attend(attend::Options),
    /// Write captions: a line in, a caption out; a line that begins with `^ ` corrects the one before
    Caption {
        #[command(flatten)]
        options: caption::Options,
        /// Lines on standard input
        #[arg(value_name = "-")]
        input: Pipe,
    },
    /// Show a screen, beside `present`: pictures in, their changes out, without loss
    Screen {
        #[command(flatten)]
        options: screen::ShownOptions,
        /// PNG or WebP on standard input, one picture after the other
        #[arg(value_name = "-")]
        input: Pipe,
    },
    /// Show a camera, beside `present`: VP8 in, its layers out, each to a group of its own
    Camera {
        #[command(flatten)]
        options: camera::Options,
        /// VP8 on standard input, as IVF: up to 640 x 360, 30 pictures a second, a key frame each 2 s
        #[arg(value_name = "-")]
        input: Pipe,
    },
    /// Write the screen or the camera of a session to standard output, for a player
    Watch {
        #[command(flatten)]
        options: watch::Options,
        /// Standard output
        #[arg(value_name = "-")]
        output: Pipe,
    },
    /// Write the notes of a session with any editor: a save goes to all, what others write comes into the file
    Notes(notes::Options),
    /// Keep a session, and give it to who comes late
    Hold(hold::Options),
    /// Make files of a session that others read
    Export(export::Options),
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
    let Cli { common, verb } = cli;
    init_logging(common.log.as_deref(), "warn")?;
    match verb {
        Verb::Keygen { file } => keys::keygen(&file, common.json),
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
        Verb::Present(options) => present::run(&options, &common),
        Verb::Invite(options) => invite::run(&options, common.json),
        Verb::Attend(options) => attend::run(&options, &common),
        Verb::Caption {
            options,
            input: Pipe::Standard,
        } => caption::run(&options, &common),
        Verb::Screen {
            options,
            input: Pipe::Standard,
        } => screen::run(&options, &common),
        Verb::Camera {
            options,
            input: Pipe::Standard,
        } => camera::run(&options, &common),
        Verb::Watch {
            options,
            output: Pipe::Standard,
        } => watch::run(&options, &common),
        Verb::Notes(options) => notes::run(&options, &common),
        Verb::Hold(options) => hold::run(&options, &common),
        Verb::Export(options) => export::run(&options),
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
