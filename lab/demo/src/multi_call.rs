//! Programs in one binary, so that hosts of a world run the code that was just built, and one link step makes all.
//!
//! The binary runs the program by whose name it is called, else the one that its first argument names:
//! `lcroute-lab lcsync share ...`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// A program in the binary: its name, and its main function.
pub type Applet = (&'static str, fn() -> ExitCode);

/// Returns the programs' names.
#[must_use]
pub fn names(programs: &[Applet]) -> Vec<&'static str> {
    programs.iter().map(|(name, _)| *name).collect()
}

/// Runs the program that this process was asked for; returns `None` if it was asked for none of these.
#[must_use]
pub fn run(programs: &[Applet]) -> Option<ExitCode> {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_default();
    let called = Path::new(&called).file_name();
    if let Some((_, main)) = programs
        .iter()
        .find(|(name, _)| called == Some(name.as_ref()))
    {
        return Some(main());
    }
    let first = args.next().unwrap_or_default();
    let (name, _) = programs.iter().find(|(name, _)| first == *name)?;
    // Argument parsers read the process's arguments: take the name's place and start over.
    let itself = "/proc/self/exe";
    let error = Command::new(itself).arg0(name).args(args).exec();
    eprintln!("{itself}: {error}");
    Some(ExitCode::FAILURE)
}
