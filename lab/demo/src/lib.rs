//! Worlds of network namespaces, and the demo, which runs in one.
//!
//! - [`lab`] holds worlds made of namespaces, in which hosts run programs
//! - [`programs`] holds ordinary multicast programs (`mc-send`, `mc-recv`)
//! - [`demo`] is `lcroute demo`
//! - [`multi_call`] runs one of the programs that a binary contains

pub mod demo;
pub mod lab;
pub mod multi_call;
pub mod programs;

use std::process::ExitCode;

use clap::Parser;
use multi_call::Applet;

/// The programs of the demo's hosts.
pub const PROGRAMS: [Applet; 4] = [
    ("lcroute", lcroute::main),
    ("lcsync", lcsync::main),
    ("mc-send", programs::send),
    ("mc-recv", programs::receive),
];

/// The command line of `make demo`.
#[derive(Debug, Parser)]
#[command(name = "lcroute-demo", version)]
struct Cli {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    demo: demo::Arguments,
}

/// Runs the demo, or one of its hosts' programs, with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    librecast_program::children::expect_children();
    multi_call::run(&PROGRAMS).unwrap_or_else(|| {
        let Cli { json, demo } = Cli::parse();
        demo::run(&demo, json, &multi_call::names(&PROGRAMS))
    })
}
