//! A process of a host: its output is in files, it is stopped by its id, and ends with its handle.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{self, Hopeless};

/// Time after which a command of the lab counts as hung.
const COMMAND: Duration = Duration::from_secs(60);

/// A running (or ended) process with its captured output.
#[derive(Debug)]
pub struct Process {
    title: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// The result of a command, with its output.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; 128 + the signal's number after a signal, as in shells.
    pub code: i32,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Output {
    /// Returns the output of a command that must have succeeded.
    ///
    /// # Errors
    /// The exit code was not 0; the error contains the command's output.
    pub fn success(self) -> Result<Output> {
        ensure!(
            self.code == 0,
            "exit code {}: {}{}",
            self.code,
            self.stderr,
            self.stdout
        );
        Ok(self)
    }

    /// Checks the exit code.
    pub fn exits(&self, code: i32) -> Result<()> {
        self.fails(code, "")
    }

    /// Checks the exit code, and that standard error contains `said`.
    pub fn fails(&self, code: i32, said: &str) -> Result<()> {
        ensure!(
            self.code == code && self.stderr.contains(said),
            "expected exit code {code} and `{said}`: {self:?}"
        );
        Ok(())
    }

    /// Checks that standard output contains `text`.
    pub fn prints(&self, text: &str) -> Result<()> {
        ensure!(self.stdout.contains(text), "no `{text}` in {self:?}");
        Ok(())
    }

    /// Checks that standard error contains `text`.
    pub fn says(&self, text: &str) -> Result<()> {
        ensure!(self.stderr.contains(text), "no `{text}` in {self:?}");
        Ok(())
    }
}

impl Process {
    /// Starts `command` with its output in `logs/TITLE.out` and `logs/TITLE.err`.
    pub(super) fn start(mut command: Command, logs: &Path, title: &str) -> Result<Process> {
        let file = title.replace(['/', ' '], "_");
        let (stdout, stderr) = (
            logs.join(format!("{file}.out")),
            logs.join(format!("{file}.err")),
        );
        let create = |path: &Path| File::create(path).with_context(|| path.display().to_string());
        let child = command
            .stdin(Stdio::null())
            .stdout(create(&stdout)?)
            .stderr(create(&stderr)?)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
        Ok(Process {
            title: title.to_owned(),
            child,
            stdout,
            stderr,
        })
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its peak memory so far, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.trim().strip_suffix(" kB"));
        Ok(kib.context("no VmHWM")?.parse::<u64>()? * 1024)
    }

    /// Returns its processor time so far, in seconds.
    pub fn processor_time(&self) -> Result<f64> {
        super::usage::cpu_seconds(self.pid())
    }

    /// Returns its standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// Returns its standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.title))
    }

    /// Waits for `timeout` until the process has ended; returns its exit code.
    pub fn wait(&mut self, timeout: Duration) -> Result<i32> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(exit_code(status));
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} still runs after {timeout:?}: {}",
                    self.title,
                    tail(&self.stderr(), 5)
                );
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Waits for `timeout` until the process has ended, and checks its exit code.
    pub fn expect_exit(&mut self, timeout: Duration, code: i32) -> Result<()> {
        let ended = self.wait(timeout)?;
        ensure!(
            ended == code,
            "{} ended with exit code {ended}, not {code}: {}{}",
            self.title,
            self.stdout(),
            self.stderr()
        );
        Ok(())
    }

    /// Does the same, and checks that standard error contains `said`.
    pub fn fails(&mut self, timeout: Duration, code: i32, said: &str) -> Result<()> {
        self.expect_exit(timeout, code)?;
        let told = self.stderr();
        ensure!(told.contains(said), "no `{said}` in {told}");
        Ok(())
    }

    /// Waits until standard output contains `text`.
    pub fn prints(&self, text: &str) -> Result<()> {
        self.shows(text, Process::stdout)
    }

    /// Waits until standard error contains `text`.
    pub fn says(&self, text: &str) -> Result<()> {
        self.shows(text, Process::stderr)
    }

    fn shows(&self, text: &str, so_far: fn(&Process) -> String) -> Result<()> {
        wait::eventually(&format!("{} shows `{text}`", self.title), || {
            let output = || format!("{}{}", self.stdout(), self.stderr());
            ensure!(so_far(self).contains(text), "{}", output());
            Ok(())
        })
    }

    /// Returns whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Checks, in waiting loops, that the process still runs.
    ///
    /// # Errors
    /// The process has ended ([`Hopeless`]); the error contains its output.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let (title, code) = (&self.title, exit_code(status));
                let said = tail(&(self.stdout() + &self.stderr()), 10);
                Err(Hopeless(format!("{title} has ended with exit code {code}: {said}")).into())
            }
        }
    }

    /// Sends SIGTERM, waits, and returns the exit code.
    pub fn stop(&mut self) -> Result<i32> {
        if self.is_running() {
            self.signal(Signal::SIGTERM)?;
        }
        self.wait(wait::DEADLINE)
    }

    /// Sends SIGKILL, and waits.
    pub fn kill(&mut self) -> Result<()> {
        if self.is_running() {
            self.signal(Signal::SIGKILL)?;
        }
        self.wait(wait::DEADLINE).map(drop)
    }

    /// Waits for the end of a command, and returns its output.
    pub fn output(mut self) -> Result<Output> {
        let code = self.wait(COMMAND)?;
        Ok(Output {
            code,
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // an error has no recipient
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Reads a file as text, which need not be UTF-8.
pub(super) fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Returns the last `lines` lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
