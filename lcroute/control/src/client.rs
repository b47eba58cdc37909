//! A client of a running daemon.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::local::Connection;
use librecast_program::cli::{Exit, ExitError, to_join};
use nix::errno::Errno;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{AccessFlags, Uid, User, access};
use serde::de::DeserializeOwned;

use crate::request::{Answer, Request, view_of};
use crate::status::{Inbound, Status};

/// Timeout for an answer of the daemon. Chosen.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer. Chosen: a status of some thousand nodes.
const MAX_ANSWER: u64 = 16 << 20;

/// Timeout for a probe of the firewall, which takes one to two seconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    daemon: Connection,
}

impl Client {
    /// Connects; exit code 3 if no daemon answers, 4 if this user lacks permission.
    pub fn connect(path: &Path) -> anyhow::Result<Self> {
        Self::try_connect(path).map_err(|e| unreachable(path, &e))
    }

    fn try_connect(path: &Path) -> std::io::Result<Self> {
        let daemon = Connection::connect(path, ANSWER_TIMEOUT, MAX_ANSWER)?;
        Ok(Self { daemon })
    }

    /// Connects for read access: by the view socket, if the control socket is closed to this user.
    pub fn connect_to_look(path: &Path) -> anyhow::Result<Self> {
        Self::connect(&to_look(path))
    }

    /// Connects if a daemon is running; any other failure is an error.
    pub fn connect_if_running(path: &Path) -> anyhow::Result<Option<Self>> {
        // once: the daemon may end between two attempts
        match Self::try_connect(path) {
            Ok(client) => Ok(Some(client)),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(e) => Err(unreachable(path, &e)),
        }
    }

    /// Returns the daemon's process id; `None` in another PID namespace.
    pub fn pid(&self) -> Option<i32> {
        let peer = getsockopt(self.daemon.stream(), PeerCredentials).ok()?;
        Some(peer.pid()).filter(|pid| *pid > 0)
    }

    /// Extends the timeout for answers by `longer` from now on.
    pub fn wait_for(&mut self, longer: Duration) -> anyhow::Result<()> {
        let stream = self.daemon.stream();
        Ok(stream.set_read_timeout(Some(ANSWER_TIMEOUT + longer))?)
    }

    /// Returns the daemon's status after a new test of the host's firewall.
    pub fn probe(&mut self) -> anyhow::Result<Status> {
        self.ask::<serde_json::Value>(&Request::Probe)?;
        let deadline = Instant::now() + PROBE_TIMEOUT;
        loop {
            let status: Status = self.ask(&Request::Status)?;
            if status.inbound != Inbound::Unknown || Instant::now() > deadline {
                return Ok(status);
            }
            std::thread::sleep(PROBE_TIMEOUT / 20);
        }
    }

    /// Sends a request and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> anyhow::Result<T> {
        let answer = self.daemon.ask(request).map_err(|e| silent(&e))?;
        if answer.is_empty() {
            return Err(silent(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&answer).context("the daemon's answer")? {
            Answer::Ok(value) => Ok(serde_json::from_value(value).context("the daemon's answer")?),
            Answer::Error(message) => anyhow::bail!("the daemon refused: {message}"),
        }
    }
}

/// Returns the user of the daemon at this control socket, unless it is `user` or no daemon runs.
#[must_use]
pub fn owner_other_than(user: Uid, control: &Path) -> Option<String> {
    match UnixStream::connect(control) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
        Err(_) => return None,
    }
    // a folder may be closed to this user
    let owner =
        std::fs::metadata(control).map_or(Uid::from_raw(0), |meta| Uid::from_raw(meta.uid()));
    let name = || User::from_uid(owner).ok().flatten().map(|user| user.name);
    (owner != user).then(|| name().unwrap_or_else(|| owner.to_string()))
}

/// Returns the socket for read access: the view socket, if this user may not control.
#[must_use]
pub fn to_look(control: &Path) -> PathBuf {
    let may = |path: &Path| access(path, AccessFlags::W_OK);
    let view = view_of(control);
    match may(control) == Err(Errno::EACCES) && may(&view).is_ok() {
        true => view,
        false => control.to_owned(),
    }
}

/// Returns the error of a failed connection, with an exit code and a hint.
fn unreachable(path: &Path, e: &std::io::Error) -> anyhow::Error {
    let (exit, hint) = match e.kind() {
        ErrorKind::PermissionDenied => (Exit::NotPermitted, to_join("lcroute")),
        _ => (
            Exit::Unreachable,
            "is `lcroute run` running, with this --control?".to_owned(),
        ),
    };
    ExitError::new(exit, format!("{}: {e}: {hint}", path.display())).into()
}

fn silent(e: &std::io::Error) -> anyhow::Error {
    match e.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            ExitError::new(Exit::Unreachable, "the daemon does not answer").into()
        }
        // no io::Error inside: this broken pipe is not that of our output
        _ => ExitError::new(
            Exit::Unreachable,
            format!("the daemon closed the connection ({e}): it is stopping, or too many programs ask it"),
        )
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_daemon_of_another_user_is_seen_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control.sock");
        let own = Uid::effective();
        let other = Uid::from_raw(own.as_raw() + 1);
        assert_eq!(owner_other_than(other, &control), None, "no daemon");
        let daemon = UnixListener::bind(&control).unwrap();
        assert_eq!(owner_other_than(own, &control), None);
        let user = User::from_uid(own).unwrap();
        let name = user.map_or_else(|| own.to_string(), |user| user.name);
        assert_eq!(owner_other_than(other, &control), Some(name));
        drop(daemon);
        assert_eq!(owner_other_than(other, &control), None, "it has ended");
    }
}
