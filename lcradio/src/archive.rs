//! Shares an ended recording by `lcsync share`, which replaces this process.

use std::env;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use librecast_program::cli::{Exit, ExitError};

const PROGRAM: &str = "lcsync";

/// A share of recordings.
#[derive(Debug)]
pub struct Archive {
    program: PathBuf,
    keyfile: Option<PathBuf>,
    interfaces: Vec<String>,
}

/// Finds the program beside this one, or in PATH.
fn find() -> Option<PathBuf> {
    let own = env::current_exe().ok();
    let beside = own.and_then(|own| own.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = beside.into_iter().chain(env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join(PROGRAM)).filter(|file| file.is_file()))
}

impl Archive {
    /// Prepares a share with this key of `lcsync keygen`, on these interfaces.
    pub fn new(keyfile: Option<&Path>, interfaces: &[String]) -> Result<Self, ExitError> {
        let missing = || {
            ExitError::new(
                Exit::Failed,
                "--archive needs lcsync, which is not installed",
            )
        };
        let keyfile = keyfile.map(Path::to_owned);
        // checked now: after the recording it is too late
        if let Some(file) = keyfile.as_ref().filter(|file| !file.is_file()) {
            let message = format!("{}: no such key", file.display());
            return Err(ExitError::new(Exit::Usage, message));
        }
        Ok(Self {
            program: find().ok_or_else(missing)?,
            keyfile,
            interfaces: interfaces.to_vec(),
        })
    }

    fn command(&self, files: &[PathBuf]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("share");
        if let Some(keyfile) = &self.keyfile {
            command.arg("--keyfile").arg(keyfile);
        }
        for interface in &self.interfaces {
            command.arg("-i").arg(interface);
        }
        command.arg("--").args(files);
        command
    }

    /// Shares these files until a signal. Returns only if that cannot begin.
    pub fn share(&self, files: &[PathBuf]) -> anyhow::Error {
        let error = self.command(files).exec();
        anyhow::Error::new(error).context(self.program.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_handed_over_with_key_and_interfaces() {
        let archive = Archive {
            program: "lcsync".into(),
            keyfile: Some("k".into()),
            interfaces: vec!["lc0".into()],
        };
        let command = archive.command(&["-odd.opus".into(), "a.2.opus".into()]);
        let args: Vec<_> = command.get_args().collect();
        assert_eq!(
            args,
            [
                "share",
                "--keyfile",
                "k",
                "-i",
                "lc0",
                "--",
                "-odd.opus",
                "a.2.opus"
            ]
        );
    }
}
