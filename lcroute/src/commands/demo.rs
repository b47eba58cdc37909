//! `lcroute demo` and `lcroute bench`: execute the program `lcroute-demo`, which holds all three
//! programs, the demo and the measurements.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use librecast_program::cli::{Exit, ExitError};

const PROGRAM: &str = "lcroute-demo";

/// Becomes `lcroute-demo VERB ARGS...`; returns only when it cannot be found or executed.
pub fn run(
    verb: &str,
    args: impl IntoIterator<Item = OsString>,
    json: bool,
) -> anyhow::Result<Exit> {
    let own = std::env::current_exe()?;
    let places: Vec<PathBuf> = own
        .parent()
        .into_iter()
        .flat_map(|dir| [dir.join(PROGRAM), dir.join("../lib/lcroute").join(PROGRAM)])
        .collect();
    let Some(program) = places.iter().find(|p| p.is_file()) else {
        let tried: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
        let message = format!(
            "{PROGRAM} is not installed (looked for {}); no package has it yet: `make demo` in the source tree, or `make install`",
            tried.join(" and ")
        );
        return Err(ExitError::new(Exit::Failed, message).into());
    };
    let mut command = Command::new(program);
    command.arg(verb).args(args);
    if json {
        command.arg("--json");
    }
    Err(anyhow::Error::new(command.exec()).context(program.display().to_string()))
}
