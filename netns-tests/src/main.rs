//! All programs in one binary, so that demo and tests run what was just built.
//!
//! The name it is called by picks the program, else the first argument:
//! `lcroute-demo demo`, `lcroute-demo lcsync share ...`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use netns_tests::lab::APPLETS;
use netns_tests::{bench, demo, programs};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_default();
    let name = Path::new(&called)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let Some(code) = run(name) {
        return code;
    }
    let first = args.next().unwrap_or_default();
    match first.to_str() {
        Some(name) if APPLETS.contains(&name) || ["demo", "bench"].contains(&name) => {
            // Argument parsers read the process's arguments: take the name's place and start over.
            let error = Command::new("/proc/self/exe").arg0(name).args(args).exec();
            eprintln!("/proc/self/exe: {error}");
            ExitCode::FAILURE
        }
        _ => {
            eprintln!("usage: lcroute-demo demo|bench|{} ...", APPLETS.join("|"));
            ExitCode::from(2)
        }
    }
}

/// The program of this name, if there is one.
fn run(name: &str) -> Option<ExitCode> {
    Some(match name {
        "lcroute" => lcroute::main(),
        "lcsync" => lcsync::main(),
        "lcagent" => lcagent::main(),
        "demo" => demo::main(),
        "bench" => bench::main(),
        "mc-send" => programs::send(),
        "mc-recv" => programs::receive(),
        "mc-flap" => programs::flap(),
        "udp-flood" => programs::flood(),
        "mld-flood" => programs::mld_flood(),
        "lcsync-forge" => programs::forge(),
        "mld-watch" => programs::mld_watch(),
        "bare-relay" => bench::bare_relay(),
        _ => return None,
    })
}
