//! The command line of `lcagent`.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use librecast_program::cli::{self, Exit, ExitError, init_logging};
use librecast_program::keygen::{KeyKind, keygen};
use librecast_program::units::{parse_duration, parse_size};

use crate::datagram::JobName;
use crate::envelope::MAX_PAYLOAD;
use crate::operator::print::Style;
use crate::operator::rolling::Rolling;
use crate::operator::shell::{Options, parse_timeout};
use crate::request::Run;
use crate::{agent, commands, copy};

const EXAMPLES: &str = "Examples:
  lcagent keygen ~/.config/lcagent/operator.key      a key of your own, and its public half
  lcagent run                                        the agent, on each node
  lcagent nodes                                      who is there
  lcagent nodes --accept web-1 web-2                 these may read what is sealed
  lcagent exec --on role=web -- systemctl is-active nginx
  lcagent exec -b -- uname -r                        equal output once

Exit codes: 0 done, 1 failed on a node, 2 wrong usage, 3 a known node did not answer or nobody matched,
4 not permitted, 130 or 143 interrupted.";

const KEYGEN_EXAMPLES: &str = "Examples:
  lcagent keygen ~/.config/lcagent/operator.key
  lcagent keygen /etc/lcagent/agent.key && cat /etc/lcagent/agent.key.pub";

const RUN_EXAMPLES: &str = "Examples:
  lcagent run
  lcagent run --config ./lcagent.toml --state-dir ./state

/etc/lcagent/lcagent.toml:
  name = \"web-1\"
  labels = { role = \"web\" }
  [[allow]]
  key = \"12D3KooW...\"                  # what `lcagent keygen` printed, or book:NAME, book:PURPOSE
  commands = [\"uptime\", \"systemctl restart *\"]     # or [\"*\"]
  user = \"deploy\"
  timeout = \"10m\"

Patterns are compared word by word: \"uptime\", \"systemctl restart *\", \"@MODULE *\" (executables in
/etc/lcagent/modules, or modules = \"FOLDER\"), \"copy:/srv/*\", \"revoke:*\", and \"*\" for all that can be run.
  * and ? in a word    characters but /; ** any characters; none of them a part .. of a path
                       (\"cat /var/log/*\" is not /var/log/../../etc/shadow, nor /var/log/apt/term.log)
  a word *           an argument that is no option; as the last word any number of them
                       (\"systemctl restart *\" is not systemctl restart -H HOST x)
  a last word **     any further arguments, options too (\"make **\")";

const CERTIFY_EXAMPLES: &str = "Examples:
  lcagent certify 12D3KooW... --ttl 8h > operator.key.cert
  lcagent certify ci.key.pub --ttl 30d --command 'make *' > ci.key.cert";

const EXEC_EXAMPLES: &str = "Examples:
  lcagent exec -- uptime
  lcagent exec --on 'role=web,!site=berlin*+db1' --timeout 5m -- apt-get -qq update
  lcagent exec -b -- uname -r
  lcagent exec --canary --batch 5 -- systemctl restart nginx
  lcagent exec --stdin -- tee /etc/motd < motd
  lcagent exec --encrypt --on db1 -- cat /etc/secret     for nodes that were accepted: lcagent nodes --accept
  lcagent exec --json -- true";

/// Signed commands to a fleet over multicast.
#[derive(Debug, Parser)]
#[command(name = "lcagent", version, after_help = EXAMPLES)]
struct Cli {
    /// Log level: error, warn, info, debug, trace (default: RUST_LOG, else warn)
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    /// Print results as JSON
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
    /// Run the agent: executes the commands that the configuration allows, and nothing else
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// Configuration [default: /etc/lcagent/lcagent.toml if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Keys, jobs, logs [default: /var/lib/lcagent, or below $XDG_STATE_HOME]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// The program behind this socket (lcagent-job.socket) runs the jobs, so this process needs no rights
        #[arg(long, value_name = "SOCKET")]
        jobs: Option<PathBuf>,
    },
    /// Run a program on all selected nodes and show what it says
    #[command(after_help = EXEC_EXAMPLES)]
    Exec {
        #[command(flatten)]
        to: Options,
        #[command(flatten)]
        how: RunOptions,
        /// Pass our standard input on (up to 4 MiB)
        #[arg(long)]
        stdin: bool,
        /// The program and its arguments, with or without `--` before them; no shell is involved. @NAME is a module of the
        /// node's
        #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Run a script of ours (it begins with #!) on all selected nodes, where it never touches a disk
    #[command(after_help = "Example:\n  lcagent script --on role=web check.sh -- --verbose")]
    Script {
        #[command(flatten)]
        to: Options,
        #[command(flatten)]
        how: RunOptions,
        /// Pass our standard input on
        #[arg(long)]
        stdin: bool,
        /// The script
        file: PathBuf,
        /// Its arguments
        #[arg(last = true, value_name = "ARG")]
        arguments: Vec<OsString>,
    },
    /// Copy a file or folder of ours to all selected nodes, by lcsync: verified, and in place only when it is whole
    #[command(
        after_help = "Examples:\n  lcagent copy ./site /srv/www --on role=web\n  lcagent copy motd /etc/motd --timeout 10m\n\nNodes allow it with a pattern of where it goes: commands = [\"copy:/srv/*\"]."
    )]
    Copy {
        #[command(flatten)]
        to: Options,
        #[command(flatten)]
        view: View,
        #[command(flatten)]
        roll: Rolling,
        /// What
        path: PathBuf,
        /// Where to, on the nodes: a folder's content lands in DEST; a file becomes DEST, or lies in it if DEST is a folder
        dest: String,
    },
    /// Show present nodes, with labels
    #[command(
        after_help = "Examples:\n  lcagent nodes\n  lcagent nodes --on site=berlin --json\n  lcagent nodes --watch 30s --json     a line for each node and round\n  lcagent nodes --forget web-9     it will not be missed any more\n  lcagent nodes --accept web-1 web-2     --encrypt may seal for them"
    )]
    #[command(mut_arg("timeout", |timeout| timeout.default_value("5s")))]
    Nodes {
        #[command(flatten)]
        to: Options,
        /// Forget a node, by its name, its key or book:NAME: its key is not trusted and its absence not noticed any more
        #[arg(long, value_name = "NODE", conflicts_with = "selector")]
        forget: Option<String>,
        /// Say of nodes, by their names, keys or book:NAME, that they are ours: --encrypt seals for these alone. Compare the key that is
        /// shown with what `lcagent run` says on the node: anybody on the channel can answer under any name
        #[arg(long, value_name = "NODE", num_args = 1.., conflicts_with_all = ["selector", "forget", "watch"])]
        accept: Vec<String>,
        /// Ask again every D (10s without D), until interrupted; a node without an answer by then counts as silent.
        /// With --json a line for each node and round, with the time (`at`, Unix seconds)
        #[arg(long, value_name = "D", num_args = 0..=1, default_missing_value = "10s",
              value_parser = parse_interval, conflicts_with = "forget")]
        watch: Option<Duration>,
    },
    /// The jobs of ours that nodes run or remember
    ///
    /// The latest first. Names of jobs are cut as long as they differ; `result` and `cancel` take them so.
    #[command(after_help = "Examples:\n  lcagent jobs\n  lcagent jobs --on role=web --json")]
    #[command(mut_arg("timeout", |timeout| timeout.default_value("5s")))]
    Jobs {
        #[command(flatten)]
        to: Options,
    },
    /// Show once more what a job said (agents keep it for an hour, or a week if it never arrived)
    #[command(
        after_help = "Examples:\n  lcagent result 1a2b3c4d\n  lcagent result -b --on role=web 1a2b3c4d"
    )]
    Result {
        #[command(flatten)]
        to: Options,
        #[command(flatten)]
        view: View,
        /// As `jobs` and --json name it; its beginning is enough
        job: JobName,
    },
    /// End a job of ours, with all its children
    #[command(after_help = "Examples:\n  lcagent jobs\n  lcagent cancel 1a2b3c4d")]
    Cancel {
        #[command(flatten)]
        to: Options,
        /// As `jobs` and --json name it; its beginning is enough
        job: JobName,
    },
    /// Vouch for another operator's key for a time: prints a certificate, to be kept as KEYFILE.cert beside his key
    ///
    /// Nodes that list our key execute commands of his, within what they allow to ours. He cannot vouch for others.
    #[command(after_help = CERTIFY_EXAMPLES)]
    Certify {
        /// His public key, a file with it, or book:NAME
        #[arg(value_name = "PUBKEY")]
        public_key: String,
        /// How long it is good
        #[arg(long, value_name = "D", value_parser = parse_duration)]
        ttl: Duration,
        /// He may run only what this pattern matches, as in [[allow]] (may be repeated)
        #[arg(long = "command", value_name = "PATTERN")]
        commands: Vec<String>,
        /// Our key [default: $XDG_CONFIG_HOME/lcagent/operator.key]
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Revoke a key: our own, one that we have certified, or any that the nodes let us revoke
    ///
    /// Takes effect at once and for good; its jobs are ended and nobody gets their answers. Nodes that are away are told by
    /// the others when they come back within --valid.
    #[command(
        after_help = "Examples:\n  lcagent revoke 12D3KooW...\n  lcagent revoke ~/.config/lcagent/operator.key.pub     our own, when it was stolen"
    )]
    Revoke {
        #[command(flatten)]
        to: Options,
        /// The public key, a file with it, or book:NAME
        #[arg(value_name = "PUBKEY")]
        public_key: String,
        /// How long nodes that were away are told of it (up to a week)
        #[arg(long, value_name = "D", default_value = "7d", value_parser = parse_duration)]
        valid: Duration,
    },
    /// The agent's audit log on this node: every command, by whom, and what came of it
    #[command(after_help = "Examples:\n  lcagent log | tail\n  lcagent log --json")]
    Log {
        /// The agent's [default: /var/lib/lcagent, or below $XDG_STATE_HOME]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Runs one job; the agent starts this
    #[command(hide = true)]
    Supervise {
        /// Standard input and output are a connection of the agent's, which names the job; DIR holds all jobs
        #[arg(long)]
        socket: bool,
        /// The job's folder
        dir: PathBuf,
    },
}

/// How answers are shown.
#[derive(Debug, Args)]
struct View {
    /// Fold: equal output once, with the nodes that gave it
    #[arg(short = 'b')]
    fold: bool,
}

/// How a job runs.
#[derive(Debug, Args)]
struct RunOptions {
    #[command(flatten)]
    view: View,
    /// An environment variable (may be repeated)
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_variable)]
    variables: Vec<(OsString, OsString)>,
    /// The folder to run in [default: the user's home]
    #[arg(long, value_name = "DIR")]
    cwd: Option<OsString>,
    /// As whom to run, where the node's policy leaves that to us
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Most memory that the job may have, where the node's policy does not say less
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Nodes that come up within this time still run it (up to a week) [default: as --timeout]
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    valid: Option<Duration>,
    #[command(flatten)]
    roll: Rolling,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let time = parse_timeout(text)?;
    // each round is a signed command, which agents store
    if time < Duration::from_secs(1) {
        return Err("1s at least".into());
    }
    Ok(time)
}

fn parse_variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("NAME=VALUE expected".into()),
    }
}

/// The command line itself, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    cli::run("lcagent", run)
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let daemon = matches!(cli.verb, Verb::Run { .. });
    init_logging(cli.log.as_deref(), if daemon { "info" } else { "warn" })?;
    let json = cli.json;
    match cli.verb {
        Verb::Keygen { file } => keygen(KeyKind::Signing, &file, json),
        Verb::Run {
            config,
            state_dir,
            jobs,
        } => agent::shell::run(&agent::shell::Options {
            config,
            state_dir,
            jobs,
        }),
        Verb::Exec {
            to,
            how,
            stdin,
            command,
        } => {
            let style = how.view.style(json);
            let run = how.job(command, None, stdin, to.timeout)?;
            let to = Options {
                valid: how.valid,
                ..to
            };
            commands::run(&to, run, how.roll, style)
        }
        Verb::Script {
            to,
            how,
            stdin,
            file,
            arguments,
        } => {
            let style = how.view.style(json);
            let script = commands::read_script(&file)?;
            let name = file.file_name().unwrap_or(file.as_os_str()).to_owned();
            let words = std::iter::once(name).chain(arguments).collect();
            let run = how.job(words, Some(script), stdin, to.timeout)?;
            let to = Options {
                valid: how.valid,
                ..to
            };
            commands::run(&to, run, how.roll, style)
        }
        Verb::Copy {
            to,
            view,
            roll,
            path,
            dest,
        } => copy::run(&to, &path, &dest, roll, view.style(json)),
        Verb::Nodes {
            to,
            forget,
            accept,
            watch,
        } => match (forget, watch) {
            (Some(name), _) => commands::forget(&to, &name),
            (None, Some(every)) => commands::watch(to, every, json),
            (None, None) if !accept.is_empty() => commands::accept(&to, &accept, json),
            (None, None) => commands::nodes(&Options { meet: true, ..to }, json),
        },
        Verb::Jobs { to } => commands::jobs(&to, json),
        Verb::Result { to, view, job } => commands::result(&to, &job, view.style(json)),
        Verb::Cancel { to, job } => {
            let style = View { fold: false }.style(json);
            commands::cancel(&to, &job, style)
        }
        Verb::Certify {
            public_key,
            ttl,
            commands,
            key,
        } => commands::certify(&public_key, ttl, &commands, key.as_deref(), json),
        Verb::Revoke {
            to,
            public_key,
            valid,
        } => {
            let style = View { fold: false }.style(json);
            let valid = Some(valid);
            commands::revoke(&Options { valid, ..to }, &public_key, style)
        }
        Verb::Log { state_dir } => commands::log(state_dir, json),
        Verb::Supervise { socket: true, dir } => agent::supervisor::supervise_for(&dir),
        Verb::Supervise { dir, .. } => agent::supervisor::supervise(dir),
    }
}

impl View {
    fn style(&self, json: bool) -> Style {
        match (json, self.fold) {
            (true, _) => Style::Json,
            (false, true) => Style::Folded,
            (false, false) => Style::Prefixed,
        }
    }
}

impl RunOptions {
    fn job(
        &self,
        arguments: Vec<OsString>,
        script: Option<Vec<u8>>,
        stdin: bool,
        time: Duration,
    ) -> anyhow::Result<Run> {
        let mut input = Vec::new();
        if stdin {
            let most = MAX_PAYLOAD as u64;
            librecast_program::standard::input()
                .take(most + 1)
                .read_to_end(&mut input)?;
            if input.len() > MAX_PAYLOAD {
                let message =
                    format!("standard input is longer than {MAX_PAYLOAD} bytes: copy it first");
                return Err(ExitError::new(Exit::Usage, message).into());
            }
        }
        Ok(Run {
            arguments,
            script,
            stdin: input,
            time,
            memory: self.memory,
            user: self.user.clone(),
            folder: self.cwd.clone(),
            variables: self.variables.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for bad in [
            &["exec"][..],
            &["exec", "--on", "all"],
            &["nodes", "--accept"],
            &["nodes", "--accept", "a", "--on", "b"],
            &["nodes", "--accept", "a", "--forget", "b"],
            &["exec", "--on", "a,,b", "--", "true"],
            &["exec", "--batch", "0", "--", "true"],
            &["exec", "--limit", "x", "--", "true"],
            &["exec", "--timeout", "0s", "--", "true"],
            &["exec", "--env", "=x", "--", "true"],
            &["result", "nonsense"],
            &["nodes", "--forget", "a", "--on", "b"],
            &["nodes", "--forget", "a", "--watch"],
            &["nodes", "--watch", "10ms"],
        ] {
            let args = [&["lcagent"], bad].concat();
            assert!(Cli::try_parse_from(&args).is_err(), "{bad:?}");
        }
        let good = [
            "lcagent",
            "exec",
            "--on",
            "role=web+db*",
            "-b",
            "--",
            "ls",
            "-l",
        ];
        assert!(Cli::try_parse_from(good).is_ok());
        // with or without `--`, and for any options of the program
        for command in [
            &["uptime"][..],
            &["--", "uptime"],
            &["ls", "--json", "-l"],
            &["--", "ls", "--json", "-l"],
        ] {
            let args = [&["lcagent", "exec", "-b", "--on", "a"], command].concat();
            let cli = Cli::try_parse_from(args).unwrap();
            let Verb::Exec { command: words, .. } = cli.verb else {
                panic!("another verb");
            };
            let words: Vec<&str> = words.iter().filter_map(|w| w.to_str()).collect();
            let expected: Vec<&str> = command.iter().copied().filter(|w| *w != "--").collect();
            assert_eq!(words, expected);
            assert!(!cli.json);
        }
    }

    #[test]
    fn questions_are_given_less_time_than_work() {
        for (verb, seconds) in [("nodes", 5), ("jobs", 5), ("exec", 60)] {
            let args = ["lcagent", verb, "uptime"];
            let given = if verb == "exec" { 3 } else { 2 };
            let cli = Cli::try_parse_from(&args[..given]).unwrap();
            let (Verb::Nodes { to, .. } | Verb::Jobs { to } | Verb::Exec { to, .. }) = cli.verb
            else {
                panic!("another verb");
            };
            assert_eq!(to.timeout, Duration::from_secs(seconds), "{verb}");
        }
    }
}
