//! The command line.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use lcroute_control::settings::Common;
use librecast::stream::{Allowed, ProtocolName};
use librecast_program::cli::{Exit, init_logging, run};
use librecast_program::units;

use crate::verbs::{self, Listen, Remote, Serving};

/// The verbs of `lcroute` that this program has.
pub const VERBS: [&str; 5] = ["serve", "connect", "forward", "outside", "streams"];

/// What `lcroute serve` and its like execute.
#[derive(Debug, Parser)]
#[command(
    name = "lcroute-streams",
    bin_name = "lcroute",
    version,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take streams of other nodes: a process for each, which reads and writes it
    #[command(after_help = "\
The process has a session of its own, without a terminal. It is of the user who typed this, or of --user. Its environment has
LC_PEER, LC_NAME and LC_PROTOCOL, the account's usual variables, language and time zone, and nothing else of this one's.
Without --allow and --allow-all nobody may. What a service serves stands in the configuration: [[serve]].

Examples:
  lcroute serve /demo/echo/2,/demo/echo/1 --allow alpha -- cat
  lcroute serve /git/1 --allow label:role=dev --user git -- git receive-pack /srv/project.git
  lcroute serve /chat/1 --outside --allow book:ann -- ./chat
  lcroute serve /git/1 --outside --anyone -- git upload-pack /srv/project.git")]
    Serve {
        /// What the command speaks, such as /demo/echo/2; several with commas between, what it likes best first
        #[arg(value_name = "PROTO", value_delimiter = ',', required = true)]
        protocols: Vec<ProtocolName>,
        /// A node that may: its name, its PeerId (KEY or KEY@PLACE), book:NAME, or label:KEY=VALUE; may be repeated
        #[arg(long, value_name = "WHO")]
        allow: Vec<String>,
        /// All members of the network may
        #[arg(long)]
        allow_all: bool,
        /// Keys of --allow may from outside of this host's networks, too; needs no network, daemon or root
        #[arg(long)]
        outside: bool,
        /// With --outside: any key may; anyone with this host's key can see its address from day to day
        #[arg(long, requires = "outside")]
        anyone: bool,
        /// Whose process it is to be
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Give it this variable of this environment, too; may be repeated
        #[arg(long = "env", value_name = "VARIABLE")]
        variables: Vec<OsString>,
        /// Let it gain rights by programs such as sudo
        #[arg(long)]
        gain_rights: bool,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Open a stream to a program on another node: standard input goes there, what comes to standard output
    #[command(after_help = "\
The exit code is that of the command at the other side; 128 + N where signal N ended it; 0 where a server answers. With a line
`lcroute: ...` on standard error: 1: no protocol in common, or the stream broke off; 3: the node cannot be reached; 4: it does not
allow this one.

Examples:
  lcroute connect beta /demo/echo/1
  lcroute connect book:bob /chat/1
  ssh -o ProxyCommand='lcroute connect beta /ssh/1' root@beta")]
    Connect {
        /// Its name, PeerId or address; outside of this host's networks KEY, KEY@PLACE or book:NAME
        node: String,
        /// What is spoken; several with commas between: the other side chooses
        #[arg(value_name = "PROTO", value_delimiter = ',', required = true)]
        protocols: Vec<ProtocolName>,
        /// Say on standard error which protocol was agreed on
        #[arg(short, long)]
        verbose: bool,
    },
    /// Make each connection to a port or socket of this host a stream to a program on another node
    #[command(after_help = "\
Examples:
  lcroute forward 127.0.0.1:8080 beta:/http/1
  lcroute forward unix:/tmp/beta.sock beta:/http/1")]
    Forward {
        /// Where to listen: a TCP port, or unix:PATH
        #[arg(value_name = "ADDR:PORT|unix:PATH")]
        listen: Listen,
        /// Where streams go
        #[arg(value_name = "NODE:PROTO")]
        remote: Remote,
    },
    /// The program for streams, in the foreground: what [[serve]] in the configuration says, and what the other verbs ask
    #[command(after_help = "\
lcroute-streams.service runs it. Where no service does, the other verbs start one that ends by itself.")]
    Streams {
        /// End after this long without use by a program of this host
        #[arg(long, value_name = "D", value_parser = units::parse_duration)]
        idle: Option<Duration>,
        /// Without a daemon: with the key of --state-dir, for keys outside of networks alone
        #[arg(long)]
        own_key: bool,
    },
    /// Show the keys outside of this host's networks that may call, or are sought
    #[command(after_help = "\
Examples:
  lcroute outside
  lcroute outside --json")]
    Outside,
}

/// The command line itself, for what is made from it: man pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    run("lcroute", |Cli { common, verb }| execute(&common, verb))
}

fn execute(common: &Common, verb: Verb) -> anyhow::Result<Exit> {
    if let Verb::Streams { idle, own_key } = verb {
        return crate::program::run(common, idle, own_key);
    }
    init_logging(common.log.as_deref(), "warn")?;
    match verb {
        Verb::Serve {
            protocols,
            allow,
            allow_all,
            outside,
            anyone,
            user,
            variables,
            gain_rights,
            command,
        } => {
            let allowed = Allowed {
                nodes: allow,
                all: allow_all,
                outside,
                anyone,
            };
            let serving = Serving {
                protocols,
                allowed,
                user,
                variables,
                gains_rights: gain_rights,
                command,
            };
            verbs::serve(common, &serving)
        }
        Verb::Connect {
            node,
            protocols,
            verbose,
        } => verbs::connect(common, &node, &protocols, verbose),
        Verb::Forward { listen, remote } => verbs::forward(common, &listen, &remote),
        Verb::Outside => verbs::outside(common),
        // above
        Verb::Streams { .. } => Ok(Exit::Ok),
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
