//! `lcgroup wake`, and `lcgroup hold --wake`: a program that calls absent members.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast_program::arguments;
use librecast_program::cli::{Exit, ExitError};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::exec::{NAMED_AFTER, check_executable, without_dashes};
use super::{Verbs, hint};
use crate::request::{Request, Status};

/// Pause between two questions for a call. Chosen: calls wait for minutes.
const ASK_INTERVAL: Duration = Duration::from_secs(2);
/// Time that a program has for a call. Chosen: others wait for it.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause between two looks at a program.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A group to hold, and the program for its calls.
#[derive(Debug)]
pub struct Wakes {
    /// The line of `hold --key`, or the name of a group that is held.
    pub line: String,
    pub name: String,
    pub space: Option<u64>,
    pub program: Vec<OsString>,
}

impl Verbs {
    /// Leaves a line with the holders of a group.
    pub fn wake(&self, group: String, line: &str) -> anyhow::Result<Exit> {
        let line = arguments::secret(line)?;
        let is_end = line.is_empty();
        let answer = self.ask(&Request::Wake { group, line })?;
        self.say(&answer, |_| match is_end {
            true => "nobody calls you any more".into(),
            false => "holders call you by it once messages have waited for ten minutes".into(),
        })
    }

    /// Holds a group, and runs a program for each call of an absent member, until the daemon ends.
    pub fn hold_waking(&self, wakes: &Wakes) -> anyhow::Result<Exit> {
        let [program, args @ ..] = without_dashes(&wakes.program) else {
            return Err(ExitError::new(Exit::Usage, "--wake needs a program").into());
        };
        check_executable(program)?;
        let name = self.held(wakes)?;
        loop {
            let name = name.clone();
            let answer = self.ask(&Request::NextCall { name })?;
            match answer["line"].as_str() {
                Some(line) => self.run_call(program, args, line)?,
                None => thread::sleep(ASK_INTERVAL),
            }
        }
    }

    /// Begins to hold the group, unless it is held; returns its name here.
    fn held(&self, wakes: &Wakes) -> anyhow::Result<String> {
        let status: Status = serde_json::from_value(self.ask(&Request::Status {})?)?;
        let is_held = |name: &str| status.held.iter().any(|held| held.name == name);
        for name in [&wakes.line, &wakes.name] {
            if is_held(name) {
                return Ok(name.clone());
            }
        }
        let line = Some(wakes.line.clone());
        self.hold(line, (wakes.name.clone(), wakes.space), None, None)?;
        Ok(wakes.name.clone())
    }

    /// Runs the program for a call; ends one that lasts too long.
    fn run_call(&self, program: &OsStr, args: &[OsString], line: &str) -> anyhow::Result<()> {
        let shown = program.display();
        let mut command = Command::new(program);
        // what it starts ends with it
        command.args(args).stdin(Stdio::piped()).process_group(0);
        let started = command.spawn();
        let mut child = started.with_context(|| format!("{shown}: a member was not called"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // a program may end without reading
            let _ = writeln!(stdin, "{line}");
        }
        let (since, mut named) = (Instant::now(), self.json);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if since.elapsed() > LONGEST {
                hint(format_args!("{shown}: ended, as it took over a minute"));
                let group = Pid::from_raw(i32::try_from(child.id())?);
                // it may have ended meanwhile
                let _ = killpg(group, Signal::SIGKILL);
                break child.wait()?;
            }
            if since.elapsed() > NAMED_AFTER && !std::mem::replace(&mut named, true) {
                let id = child.id();
                hint(format_args!(
                    "waits for {shown} (process {id}), which calls a member: other calls wait"
                ));
            }
            thread::sleep(LOOK_INTERVAL);
        };
        if !status.success() {
            hint(format_args!("{shown}: {status}, for a call"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_the_line_on_its_input_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let verbs = Verbs {
            control: folder.path().join("none"),
            json: true,
        };
        let script = "{ cat; echo \"$# arguments\"; } >\"$1\"; exit 7";
        let args = ["-c", script, "sh"].map(OsString::from);
        let args = [&args[..], &[out.clone().into()]].concat();
        let line = "$(touch x) `touch x` --help";
        verbs.run_call(OsStr::new("sh"), &args, line).unwrap();
        let said = std::fs::read_to_string(&out).unwrap();
        assert_eq!(said, format!("{line}\n1 arguments\n"));
        // one that does not read
        let args = ["-c", "exec 0<&-; exit 0"].map(OsString::from);
        verbs.run_call(OsStr::new("sh"), &args, line).unwrap();
    }
}
