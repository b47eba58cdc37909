//! Verbs of programs in optional packages: `lcroute-lab` has demo, bench and sim, `lcroute-web` has
//! web, `lcroute-streams` has serve, connect, forward and streams.

use std::os::unix::process::CommandExt;
use std::process::Command;

use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::executable::places;

/// Executes `program` with all arguments of this process; returns only on failure.
pub fn execute(program: &str) -> anyhow::Result<Exit> {
    let places = places(program)?;
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
