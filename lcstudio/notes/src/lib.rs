//! `lcstudio-notes`: the document of a session's notes, a program that `lcstudio notes` executes.
//!
//! | module | content |
//! |---|---|
//! | `document` | requests, answers, updates of other members |
//! | `apart` | marks of conflicting lines |

mod apart;
mod document;

use std::process::ExitCode;

use clap::Parser;
use librecast_program::cli;

/// The document of notes, on standard input and output; `lcstudio notes` executes it
#[derive(Debug, Parser)]
#[command(name = "lcstudio-notes", version)]
struct Cli {}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    cli::run("lcstudio-notes", |Cli {}| document::run())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
