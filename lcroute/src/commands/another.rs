//! Verbs of programs in optional packages: `lcroute-lab` has demo, bench and sim, `lcroute-web` has
//! web, `lcroute-streams` has serve, connect, forward and streams.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};

/// Executes `program` with all arguments of this process; returns only on failure.
pub fn execute(program: &str) -> anyhow::Result<Exit> {
    let places = places(&std::env::current_exe()?, program);
    let Some(found) = places.iter().find(|place| place.is_file()) else {
        let looked: Vec<_> = places.iter().map(|p| p.display().to_string()).collect();
        let message = format!(
            "this verb is of the package {program}, which is not installed (looked for {})",
            looked.join(" and ")
        );
        return Err(ExitError::new(Exit::Failed, message).into());
    };
    let given = arguments::given().get(1..).unwrap_or_default();
    let error = Command::new(found).args(given).exec();
    Err(anyhow::Error::new(error).context(found.display().to_string()))
}

/// Returns its paths: beside this program in a checkout, and where packages install it.
fn places(own: &Path, program: &str) -> Vec<PathBuf> {
    let folder = own.parent().into_iter();
    folder
        .flat_map(|dir| [dir.join(program), dir.join("../lib/lcroute").join(program)])
        .collect()
}
