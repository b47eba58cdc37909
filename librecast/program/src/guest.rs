//! Programs that enter a network by themselves: a token among their arguments makes them execute
//! themselves under `lcroute guest`, without root and daemon.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use librecast::text::TextKind;
use nix::unistd::pipe;

use crate::arguments;
use crate::cli::{self, Exit, ExitError};

/// The program that makes guests.
const LCROUTE: &str = "lcroute";

/// Executes the program `name` again as a guest, if one of its arguments is `lct1...,WHAT`; WHAT
/// takes its place. Without such an argument it calls `run`.
pub fn or_here(name: &str, run: impl FnOnce() -> ExitCode) -> ExitCode {
    match enter() {
        Ok(()) => run(),
        Err(e) => cli::finish(name, Err(e.into())),
    }
}

/// Returns only if no argument has a token, or `lcroute` cannot be executed.
fn enter() -> Result<(), ExitError> {
    let given = arguments::given();
    let Some((at, token, what)) = find(given) else {
        return Ok(());
    };
    let failed =
        |e: &dyn std::fmt::Display| ExitError::new(Exit::Failed, format!("{LCROUTE}: {e}"));
    let executable = env::current_exe().map_err(|e| failed(&e))?;
    let lcroute = beside(&executable).unwrap_or_else(|| LCROUTE.into());
    let own = by_name(given).unwrap_or(executable);
    let token = inherited(token).map_err(|e| failed(&e))?;
    let mut command = Command::new(lcroute);
    command.args(["guest", "--token-fd"]);
    command
        .arg(token.as_raw_fd().to_string())
        .arg("--")
        .arg(own);
    let before = given.get(1..at).unwrap_or_default();
    let behind = given.get(at + 1..).unwrap_or_default();
    command.args(before).arg(what).args(behind);
    // open over exec
    let _ = token.into_raw_fd();
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        let message = "to enter a network by a token, lcroute must be installed: its package has `lcroute guest`";
        return Err(ExitError::new(Exit::Failed, message));
    }
    Err(failed(&error))
}

/// Returns the place of the argument, its token, and the rest.
fn find(given: &[OsString]) -> Option<(usize, &[u8], &OsStr)> {
    let arguments = given.iter().enumerate().skip(1);
    let until = arguments.take_while(|(_, argument)| *argument != "--");
    until.into_iter().find_map(|(at, argument)| {
        let bytes = argument.as_bytes();
        let comma = bytes.iter().position(|byte| *byte == b',')?;
        let (token, what) = (bytes.get(..comma)?, bytes.get(comma + 1..)?);
        let prefix = TextKind::Token.prefix().as_bytes();
        let is_token = token.starts_with(prefix) && token.iter().all(u8::is_ascii_alphanumeric);
        (is_token && !what.is_empty()).then(|| (at, token, OsStr::from_bytes(what)))
    })
}

/// Returns this program as it was called: several may be links to one executable.
fn by_name(given: &[OsString]) -> Option<PathBuf> {
    let name = Path::new(given.first()?);
    if name.components().count() > 1 {
        return name.is_file().then(|| name.to_owned());
    }
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

/// Returns `lcroute` in the folder of this program, as in a checkout.
fn beside(own: &Path) -> Option<PathBuf> {
    let path = own.parent()?.join(LCROUTE);
    path.is_file().then_some(path)
}

/// Returns a descriptor from which the next program reads the token.
fn inherited(token: &[u8]) -> std::io::Result<OwnedFd> {
    // shorter than what a pipe holds
    let (read, write) = pipe()?;
    std::fs::File::from(write).write_all(token)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_with_what_it_is_for_is_found_and_nothing_else() {
        let find_in = |arguments: &[&str]| {
            let given: Vec<_> = arguments.iter().map(OsString::from).collect();
            find(&given).map(|(at, token, what)| (at, token.to_vec(), what.to_owned()))
        };
        let found = |at, what: &str| Some((at, b"lct1abc".to_vec(), OsString::from(what)));
        assert_eq!(
            find_in(&["p", "listen", "lct1abc,lcr1DEF"]),
            found(2, "lcr1DEF")
        );
        assert_eq!(
            find_in(&["p", "lct1abc,lc:a,b", "dest"]),
            found(1, "lc:a,b")
        );
        for other in [
            &["lct1abc,lcr1DEF"][..],
            &["p", "lct1abc"],
            &["p", "lct1abc,"],
            &["p", "lct1a/b,c"],
            &["p", "--", "lct1abc,lcr1DEF"],
            &["p", "lcr1DEF,lct1abc"],
        ] {
            assert_eq!(find_in(other), None, "{other:?}");
        }
    }
}
