//! The command line. The programs of the bench are in this binary, so that it measures the code that was just built; the
//! tests add theirs.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use librecast_program::cli::{finish, init_logging};

use lcroute_demo::multi_call::{self, Applet};
use lcroute_demo::{demo, lab};

use crate::{bench, sim};

/// The verbs of `lcroute` that this program has.
pub const VERBS: [&str; 3] = ["demo", "bench", "sim"];

/// The command line behind `lcroute demo`, `lcroute bench` and `lcroute sim`.
#[derive(Debug, Parser)]
#[command(
    name = "lcroute-lab",
    bin_name = "lcroute",
    version,
    arg_required_else_help = true
)]
struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// error, warn, info, debug, trace or TARGET=LEVEL with commas between [default: $RUST_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Three nodes behind closed firewalls on this machine: watch the whole thing work
    #[command(after_help = "Makes network namespaces of its own and leaves nothing behind.")]
    Demo(demo::Arguments),
    /// Measure multicast on this machine: highest rate, CPU, latency
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::Arguments),
    /// The network simulator: many nodes on virtual time, and the rules that must hold
    #[command(after_help = sim::EXAMPLES)]
    Sim(sim::Arguments),
}

/// The command line itself, for man pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// The command line of `lcroute` with the verbs of the programs that it executes in full, as users know it: completions,
/// the reference.
#[must_use]
pub fn lcroute() -> clap::Command {
    let executed = [
        command(),
        lcroute_web::command(),
        lcroute_streams::command(),
    ];
    let verbs = executed.iter().flat_map(clap::Command::get_subcommands);
    verbs.fold(lcroute::command(), |lcroute, verb| {
        lcroute.mut_subcommand(verb.get_name(), |_| verb.clone())
    })
}

/// Returns the programs of demo and bench.
#[must_use]
pub fn programs() -> Vec<Applet> {
    let further: [Applet; 3] = [
        ("lcroute-web", lcroute_web::main),
        ("lcroute-streams", lcroute_streams::main),
        ("bare-relay", bench::bare_relay),
    ];
    [&lcroute_demo::PROGRAMS[..], &further].concat()
}

/// Runs the program with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    main_with(&[])
}

/// The same, with other programs in the same binary.
#[must_use]
pub fn main_with(others: &[Applet]) -> ExitCode {
    librecast_program::children::expect_children();
    let programs = programs();
    if let Some(code) = multi_call::run(&[&programs, others].concat()) {
        return code;
    }
    let Cli { json, log, verb } = Cli::parse();
    match verb {
        Verb::Demo(arguments) => demo::run(&arguments, json, &multi_call::names(&programs)),
        Verb::Bench(arguments) => bench::run(&arguments, json),
        Verb::Sim(arguments) => {
            // complaints of a simulation's nodes are part of its story
            let ready = init_logging(log.as_deref(), "off").map_err(Into::into);
            let ready = ready.and_then(|()| lab::exit_on_signals());
            finish("lcroute", ready.and_then(|()| sim::run(&arguments, json)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
        lcroute().debug_assert();
    }

    #[test]
    fn lcroute_lists_the_verbs_with_the_same_words() {
        let ours = command();
        let names: Vec<&str> = ours
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        assert_eq!(names, VERBS);
        for verb in ours.get_subcommands() {
            let lcroute = lcroute::command();
            let listed = lcroute.find_subcommand(verb.get_name()).unwrap();
            assert_eq!(
                listed.get_about().map(ToString::to_string),
                verb.get_about().map(ToString::to_string)
            );
        }
    }
}
