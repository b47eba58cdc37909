//! The sound of a session: lcradio plays or records it.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running lcradio; it ends when this is dropped.
#[derive(Debug)]
pub struct Sound(Child);

impl Sound {
    /// Plays a station, or records it to `file`. Its text is secret, and goes through a pipe.
    pub fn listen(station: &str, file: Option<&Path>, interfaces: &[String]) -> io::Result<Self> {
        let mut command = Command::new("lcradio");
        command.args(["listen", "--station-file", "/dev/stdin"]);
        // a session may be silent for a day
        command.args(["--timeout", "24h"]);
        if let Some(file) = file {
            command.arg("--record").arg(file);
        }
        for interface in interfaces {
            command.args(["-i", interface]);
        }
        // SAFETY: between fork and exec only prctl(2), which is safe there.
        unsafe {
            // lcradio ends with this program, even after SIGKILL
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?));
        }
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        // from here on it ends with this value
        let mut sound = Self(child);
        if let Some(mut input) = sound.0.stdin.take() {
            writeln!(input, "{station}")?;
        }
        Ok(sound)
    }

    /// Returns whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Sound {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // it completes a recording
            let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
            let _ = self.0.wait();
        }
    }
}
