//! `lcagent copy PATH DEST`: an own `lcsync share` serves PATH while the nodes fetch it, each by
//! the root hash in the signed command.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use librecast_program::cli::{Exit, ExitError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::commands;
use crate::operator::print::Style;
use crate::operator::rolling::Rolling;
use crate::operator::shell::Options;
use crate::request::Run;

/// Shares `path`; all selected nodes fetch it to `dest`.
pub(crate) fn run(
    options: &Options,
    path: &Path,
    dest: &str,
    rolling: Rolling,
    style: Style,
) -> anyhow::Result<Exit> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    if !dest.starts_with('/') {
        return Err(usage(format!(
            "{dest}: DEST is a path on the nodes and begins with /"
        ))
        .into());
    }
    let real = path
        .canonicalize()
        .map_err(|e| usage(format!("{}: {e}", path.display())))?;
    let share = Share::start(&real, &options.interfaces)?;
    let run = Run {
        arguments: arguments(path, dest, &share.link),
        script: None,
        stdin: Vec::new(),
        time: options.timeout,
        memory: None,
        user: None,
        folder: None,
        variables: Vec::new(),
    };
    run.copy().map_err(|e| usage(e.to_string()))?;
    commands::run(options, run, rolling, style)
}

/// Returns the arguments of the order. A file has the name that the user gave: of a link, its own.
fn arguments(path: &Path, dest: &str, link: &str) -> Vec<OsString> {
    let name = path.file_name().filter(|_| path.is_file());
    let name = name.map(ToOwned::to_owned);
    let order: [OsString; 2] = [format!("copy:{dest}").into(), link.into()];
    order.into_iter().chain(name).collect()
}

/// An `lcsync share` that ends with this process.
struct Share {
    child: Child,
    /// `lc:NAME#ROOTHASH`.
    link: String,
}

impl Share {
    fn start(path: &Path, interfaces: &[String]) -> anyhow::Result<Self> {
        let program = crate::files::companion("lcsync").ok_or_else(|| {
            ExitError::new(Exit::Failed, "lcsync is not installed: copy needs it")
        })?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
        // two copies at the same time must not disturb each other
        let name = format!("lcagent-{:016x}", u64::from_ne_bytes(random));
        let mut command = Command::new(&program);
        command
            .args(["--log", "warn", "share", "--name", &name])
            .args(interfaces.iter().flat_map(|i| ["-i", i]))
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // an interrupt at the terminal is for this process only: it first cancels on the nodes
            .process_group(0);
        // SAFETY: between fork and exec; makes one system call and allocates nothing
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
        let mut child = command
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut share = Self {
            child,
            link: String::new(),
        };
        let Some((link, hash)) = line.trim().rsplit_once(' ') else {
            // it has printed why
            let code = share.child.wait()?.code();
            let exit = match code {
                Some(4) => Exit::NotPermitted,
                _ => Exit::Failed,
            };
            return Err(ExitError::new(exit, "lcsync share did not begin").into());
        };
        share.link = format!("{link}#{hash}");
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_file_is_copied_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("report.pdf");
        std::fs::write(dir.path().join("3f9a"), b"report").unwrap();
        std::os::unix::fs::symlink("3f9a", &link).unwrap();
        let of_file = ["copy:/srv", "lc:n#1", "report.pdf"];
        assert_eq!(arguments(&link, "/srv", "lc:n#1"), of_file);
        assert_eq!(arguments(dir.path(), "/srv", "lc:n#1"), of_file[..2]);
    }
}
