//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use librecast::announce::socket_beside;
use librecast_program::cli::{init_logging, run};

/// The control socket of a daemon that the system started.
const SYSTEM_CONTROL: &str = "/run/lcroute/control.sock";

/// Keep presence records of this host's lcroute in a DHT or a Matrix room, and look there for other nodes' records
///
/// lcroute-reach.service runs it; `[signal] dht = true` or `[matrix]` has the daemon use it.
#[derive(Debug, Parser)]
#[command(
    name = "lcroute-reach",
    version,
    after_help = "\
It waits for the daemon, which says what to do, and goes on when that is started anew.

Examples:
  systemctl enable --now lcroute-reach
  /usr/lib/lcroute/lcroute-reach --control /run/user/1000/lcroute/control.sock"
)]
struct Cli {
    /// The control socket of the daemon: this program connects to reach.sock beside it
    #[arg(long, value_name = "PATH", env = "LCROUTE_CONTROL", default_value = SYSTEM_CONTROL)]
    control: PathBuf,
    /// Standard input is the connection with the program that says what to do: end with it
    #[arg(long)]
    stdin: bool,
    /// error, warn, info, debug, trace or TARGET=LEVEL with commas between [default: $RUST_LOG]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

/// The command line itself, for man pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    run("lcroute-reach", |cli: Cli| {
        init_logging(cli.log.as_deref(), "info,n0_mainline=warn")?;
        let socket = socket_beside(&cli.control, "reach");
        crate::program::run((!cli.stdin).then_some(socket.as_path()))
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
