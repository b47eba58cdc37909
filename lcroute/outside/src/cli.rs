//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use librecast_program::cli::{init_logging, run};

use crate::program::From;

/// The socket of the service.
const SYSTEM_SOCKET: &str = "/run/lcroute/outside.sock";

/// Link this host with keys that belong to none of its networks, for streams that name them
///
/// lcroute-outside.service runs it. Where no service does, `lcroute serve --outside` and
/// `lcroute connect KEY` start one that ends with them.
#[derive(Debug, Parser)]
#[command(
    name = "lcroute-outside",
    version,
    after_help = "\
It waits for the program for streams, which says who may call and who is sought, and goes on when that is started anew.

Examples:
  systemctl enable --now lcroute-outside.socket
  /usr/lib/lcroute/lcroute-outside --socket ~/.local/state/lcroute/outside.sock"
)]
struct Cli {
    /// Where the program for streams connects, if the service manager gives no socket
    #[arg(long, value_name = "PATH", default_value = SYSTEM_SOCKET)]
    socket: PathBuf,
    /// Standard input is the connection with the program for streams: end with it
    #[arg(long, conflicts_with = "socket")]
    stdin: bool,
    /// error, warn, info, debug, trace or TARGET=LEVEL with commas between [default: $RUST_LOG]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

/// The command line itself, for what is made from it: man pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    run("lcroute-outside", |cli: Cli| {
        init_logging(cli.log.as_deref(), "info")?;
        // secrets of pairs are in memory
        librecast_program::process::confine()?;
        crate::program::run(match cli.stdin {
            true => From::Stdin,
            false => From::Socket(&cli.socket),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }
}
