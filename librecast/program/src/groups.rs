//! Requests to `lcgroup run` on this host: one JSON object a line, answered by `ok` or `error`.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use librecast::id::{PeerId, SecretKey};
use librecast::local::write_line;
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::{Exit, ExitError, hint, to_join};
use crate::keyfile::SharedKey;

/// Wait for an answer after which the user gets a hint. Chosen: below it people do not wonder.
const SILENCE: Duration = Duration::from_millis(1_500);

/// The control socket of the host's daemon.
const SYSTEM_CONTROL: &str = "/run/lcgroup/control.sock";

/// Returns the default control socket of this user's `lcgroup run`, else the host's.
#[must_use]
pub fn default_control() -> PathBuf {
    let system = PathBuf::from(SYSTEM_CONTROL);
    if geteuid().is_root() {
        return system;
    }
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match folder.filter(|folder| folder.is_absolute()) {
        Some(folder) => {
            let own = folder.join("lcgroup/control.sock");
            match !own.exists() && system.exists() {
                true => system,
                false => own,
            }
        }
        None => system,
    }
}

/// The daemon's answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub struct Answer<T> {
    ok: Option<T>,
    error: Option<String>,
    exit: Option<i64>,
}

impl<T> Answer<T> {
    /// Returns the result.
    ///
    /// # Errors
    /// With the daemon's exit code.
    pub fn result(self) -> Result<T, ExitError> {
        let error = match (self.ok, self.error) {
            (Some(ok), None) => return Ok(ok),
            (_, error) => error.unwrap_or_else(|| "lcgroup gives no answer".to_owned()),
        };
        let exit = match self.exit {
            Some(2) => Exit::Usage,
            Some(3) => Exit::Unreachable,
            Some(4) => Exit::NotPermitted,
            _ => Exit::Failed,
        };
        Err(ExitError::new(exit, error))
    }
}

/// Sends a request to the daemon; returns the connection, from which its answer is read.
///
/// # Errors
/// No daemon answers, or this user has no access.
pub fn send(control: &Path, request: &impl Serialize) -> anyhow::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(control).map_err(|e| {
        let (exit, hint) = match e.kind() {
            io::ErrorKind::PermissionDenied => (Exit::NotPermitted, to_join("lcgroup")),
            _ => (Exit::Unreachable, "does `lcgroup run` run?".to_owned()),
        };
        ExitError::new(exit, format!("{}: {e}: {hint}", control.display()))
    })?;
    write_line(&mut stream, request)?;
    Ok(BufReader::new(stream))
}

/// Sends a request and waits for the answer. Prints a hint in a long wait, unless `quiet`.
///
/// # Errors
/// As [`send`] and [`Answer::result`].
pub fn ask<T: DeserializeOwned>(
    control: &Path,
    request: &impl Serialize,
    quiet: bool,
) -> anyhow::Result<T> {
    let mut reader = send(control, request)?;
    let silence = Some(SILENCE).filter(|_| !quiet);
    reader.get_ref().set_read_timeout(silence)?;
    let mut line = Zeroizing::new(Vec::new());
    while let Err(e) = reader.read_until(b'\n', &mut line) {
        match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let text = "waits for `lcgroup run`, which does not answer: is it stopped, or its disk slow?";
                hint("lcgroup", text);
                reader.get_ref().set_read_timeout(None)?;
            }
            _ => return Err(e.into()),
        }
    }
    anyhow::ensure!(!line.is_empty(), "lcgroup ended");
    Ok(serde_json::from_slice::<Answer<T>>(&line)?.result()?)
}

/// Keys of a share that this host offers to a group.
#[derive(Debug)]
pub struct OwnShare {
    /// Seals the share.
    pub key: SharedKey,
    /// Signs the share.
    pub signer: SecretKey,
}

/// Keys of a share that a member offers.
#[derive(Debug)]
pub struct OfferedShare {
    /// Opens the share.
    pub key: SharedKey,
    /// The signer of the share.
    pub trust: PeerId,
}

/// Returns the control socket: `LCGROUP_CONTROL`, else the default.
#[must_use]
pub fn control() -> PathBuf {
    let named = std::env::var_os("LCGROUP_CONTROL");
    named.map_or_else(default_control, PathBuf::from)
}

/// Offers the share `name` to the members of a group.
pub fn offer(group: &str, name: &str) -> anyhow::Result<OwnShare> {
    #[derive(Deserialize)]
    struct Keys {
        key: Zeroizing<String>,
        // a seed, in the same form
        signer: Zeroizing<String>,
    }
    let request = json!({ "cmd": "offer", "group": group, "name": name });
    let keys: Keys = ask(&control(), &request, false)?;
    Ok(OwnShare {
        key: keys.key.parse()?,
        signer: SecretKey::from_seed(keys.signer.parse::<SharedKey>()?.bytes()),
    })
}

/// Finds the share `name` that a member of a group offers; `group` is GROUP or GROUP/MEMBER.
pub fn find(group: &str, name: &str) -> anyhow::Result<OfferedShare> {
    #[derive(Deserialize)]
    struct Keys {
        key: Zeroizing<String>,
        signer: PeerId,
    }
    let (group, by) = match group.split_once('/') {
        Some((group, by)) => (group, Some(by)),
        None => (group, None),
    };
    let request = json!({ "cmd": "offered", "group": group, "name": name, "by": by });
    let keys: Keys = ask(&control(), &request, false)?;
    Ok(OfferedShare {
        key: keys.key.parse()?,
        trust: keys.signer,
    })
}
