//! Processes of lcsync that end with this program, and places of our programs.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use librecast_program::executable;
use nix::sys::signal::{SigSet, Signal};

/// Environment of a service, which is not the child's.
const OF_SERVICE: [&str; 9] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "LISTEN_FDS",
    "LISTEN_PID",
    "JOURNAL_STREAM",
];

/// Returns the place of a program: beside this one, where packages install it, or on `PATH`.
pub fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(program));
    let places = executable::places(program).unwrap_or_default();
    let mut all = places.into_iter().chain(on_path);
    all.find(|place| place.is_file())
}

/// Returns a command that runs lcsync, with its state in `state`.
pub fn lcsync(state: &Path) -> Command {
    let mut command = Command::new(found("lcsync").unwrap_or_else(|| PathBuf::from("lcsync")));
    for variable in OF_SERVICE {
        command.env_remove(variable);
    }
    // lcsync adds its own name
    command.env("XDG_STATE_HOME", state);
    command.env("XDG_CACHE_HOME", state);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

/// Has the child end with the thread that starts it. SIGHUP waits until the child reads it.
pub fn bind(command: &mut Command) {
    let prepare = || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        SigSet::from(Signal::SIGHUP).thread_block()?;
        Ok(())
    };
    // SAFETY: between fork and exec; makes system calls only, and allocates nothing
    unsafe { command.pre_exec(prepare) };
}

/// Returns the root hash of a file, as lcsync computes it.
pub fn root_of(state: &Path, file: impl AsRef<OsStr>) -> Result<String, String> {
    let mut command = lcsync(state);
    command.arg("hash").arg(file);
    let output = command.output().map_err(|e| not_started(&e))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(said(&output.stdout)),
        false => Err(said(&output.stderr)),
    }
}

/// Why lcsync could not be started.
pub fn not_started(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => {
            "files of groups need the program lcsync, which is not installed here".to_owned()
        }
        _ => format!("lcsync: {e}"),
    }
}
