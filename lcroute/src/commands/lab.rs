//! `lcroute demo`, `lcroute bench` and `lcroute sim` are verbs of `lcroute-lab`, which is installed only where it is wanted.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use librecast_program::cli::{Exit, ExitError};

const PROGRAM: &str = "lcroute-lab";

/// Becomes `lcroute-lab` with all arguments of this process; returns only when it cannot be found or executed.
pub fn execute() -> anyhow::Result<Exit> {
    let places = places(&std::env::current_exe()?);
    let Some(program) = places.iter().find(|place| place.is_file()) else {
        let looked: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
        let message = format!(
            "this verb is of the package {PROGRAM}, which is not installed (looked for {})",
            looked.join(" and ")
        );
        return Err(ExitError::new(Exit::Failed, message).into());
    };
    let error = Command::new(program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(anyhow::Error::new(error).context(program.display().to_string()))
}

/// Beside this program in a checkout, and where packages install it.
fn places(own: &Path) -> Vec<PathBuf> {
    let folder = own.parent().into_iter();
    folder
        .flat_map(|dir| [dir.join(PROGRAM), dir.join("../lib/lcroute").join(PROGRAM)])
        .collect()
}
