//! The command line of `lcagent`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use librecast::cli::{Exit, finish, init_logging};

use crate::keygen;

const EXAMPLES: &str = "Examples:
  lcagent keygen operator.key           a key of your own: operator.key (keep it) and operator.key.pub
  lcagent keygen --json operator.key    the same, with the public key in a JSON document

Exit codes: 0 done, 1 failed, 2 wrong usage, 4 not permitted.";

const KEYGEN_EXAMPLES: &str = "Examples:
  lcagent keygen ~/.config/lcagent/operator.key
  lcagent keygen /etc/lcagent/agent.key && cat /etc/lcagent/agent.key.pub";

/// Signed commands to a fleet over multicast.
#[derive(Debug, Parser)]
#[command(name = "lcagent", version, after_help = EXAMPLES)]
struct Cli {
    /// Log level: error, warn, info, debug, trace (default: RUST_LOG, else warn)
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    /// Print the result as one JSON document
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key: FILE (readable by you alone) and FILE.pub; prints the public key
    ///
    /// The public key is printed in the form of a libp2p PeerId (12D3KooW...), as in `lcroute id`.
    /// A file that exists is never overwritten.
    #[command(after_help = KEYGEN_EXAMPLES)]
    Keygen {
        /// Where the secret key goes; the public one goes to FILE.pub
        file: PathBuf,
    },
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => finish("lcagent", run(&cli)),
        Err(usage) => {
            // help and version go to stdout and are no error; a closed pipe is no reason for more
            let _ = usage.print();
            if usage.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Ok.into()
            }
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<Exit> {
    init_logging(cli.log.as_deref(), "warn")?;
    match &cli.verb {
        Verb::Keygen { file } => keygen::run(file, cli.json),
    }
}
