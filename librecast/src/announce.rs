//! Announces to lcroute on this host the groups that a program sends to or gathers answers on.
//! Their tree then has its root here, so packets take the shortest path.
//!
//! An announcement holds as long as its connection. It is optional: without lcroute, or if the
//! node's certificate forbids it, packets travel without a root here.

use std::io::Read;
use std::net::{Ipv6Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::local::Connection;

/// Time between two attempts to reach lcroute.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Time within which lcroute answers a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Groups with common first bits: an address and the number of the bits.
pub type Prefix = (Ipv6Addr, u8);

/// Announces the prefixes for the life of the process.
///
/// # Errors
/// The thread cannot be started.
pub fn start(prefixes: Vec<Prefix>) -> std::io::Result<()> {
    Announcer::start()?.set(prefixes);
    Ok(())
}

/// Announces prefixes from a thread of its own.
#[derive(Debug)]
pub struct Announcer {
    wanted: Arc<Mutex<Wanted>>,
    thread: Thread,
}

/// The prefixes to announce, and the connection that announces the present ones.
#[derive(Debug, Default)]
struct Wanted {
    prefixes: Vec<Prefix>,
    connection: Option<UnixStream>,
}

impl Announcer {
    /// Starts without prefixes.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let wanted = Arc::new(Mutex::new(Wanted::default()));
        let shared = Arc::clone(&wanted);
        let thread = thread::Builder::new()
            .name("announce".into())
            .spawn(move || {
                loop {
                    for socket in control_sockets() {
                        if let Ok(stream) = UnixStream::connect(&socket) {
                            let ended = announce(stream, &shared);
                            tracing::debug!("{}: {ended:?}", socket.display());
                        }
                    }
                    thread::park_timeout(RETRY_INTERVAL);
                }
            })?;
        let thread = thread.thread().clone();
        Ok(Self { wanted, thread })
    }

    /// Replaces the prefixes. Needs a new connection, as an announcement lasts as long as its own.
    pub fn set(&self, prefixes: Vec<Prefix>) {
        let mut wanted = lock(&self.wanted);
        if wanted.prefixes != prefixes {
            wanted.prefixes = prefixes;
            if let Some(connection) = wanted.connection.take() {
                // it may have closed already
                let _ = connection.shutdown(Shutdown::Both);
            }
            self.thread.unpark();
        }
    }
}

fn lock(wanted: &Mutex<Wanted>) -> MutexGuard<'_, Wanted> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Announces the present prefixes, until they change or lcroute is gone.
fn announce(stream: UnixStream, wanted: &Mutex<Wanted>) -> std::io::Result<()> {
    let prefixes = {
        let mut wanted = lock(wanted);
        wanted.connection = Some(stream.try_clone()?);
        wanted.prefixes.clone()
    };
    if prefixes.is_empty() {
        return Ok(());
    }
    announce_and_wait(stream, &prefixes)
}

/// Returns the default control sockets of lcroute; a user's own daemon first.
#[must_use]
pub fn control_sockets() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("LCROUTE_CONTROL") {
        return vec![path.into()];
    }
    let system = PathBuf::from("/run/lcroute/control.sock");
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !nix::unistd::geteuid().is_root() => {
            vec![PathBuf::from(dir).join("lcroute/control.sock"), system]
        }
        _ => vec![system],
    }
}

/// Returns a socket beside the control socket: `WHAT.sock` beside `control.sock`, else `NAME.WHAT`.
#[must_use]
pub fn socket_beside(control: &Path, what: &str) -> PathBuf {
    match control.file_name() {
        Some(name) if name == "control.sock" => control.with_file_name(format!("{what}.sock")),
        name => {
            let mut name = name.unwrap_or_default().to_owned();
            name.push(format!(".{what}"));
            control.with_file_name(name)
        }
    }
}

/// Announces all prefixes and waits until lcroute is gone.
fn announce_and_wait(stream: UnixStream, prefixes: &[Prefix]) -> std::io::Result<()> {
    let mut lcroute = Connection::over(stream, ANSWER_TIMEOUT, MAX_ANSWER)?;
    for (address, length) in prefixes {
        let prefix = format!("{address}/{length}");
        let request = serde_json::json!({ "cmd": "announce", "prefix": prefix });
        let answer = lcroute.ask(&request)?;
        if answer.is_empty() {
            return Ok(());
        }
        match serde_json::from_slice::<serde_json::Value>(&answer) {
            Ok(answer) if answer.get("ok").is_some() => {
                tracing::info!("announced {prefix} to lcroute");
            }
            _ => {
                let answer = String::from_utf8_lossy(&answer);
                tracing::info!("lcroute does not announce {prefix}: {}", answer.trim());
            }
        }
    }
    // lcroute sends nothing more until it ends
    let mut stream = lcroute.stream();
    stream.set_read_timeout(None)?;
    let mut rest = [0; 64];
    while stream.read(&mut rest)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use super::*;

    #[test]
    fn every_prefix_is_announced_and_held_until_lcroute_goes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let prefixes: [Prefix; 2] = [
            ("ff1e:1::".parse().unwrap(), 64),
            ("ff1e:2::1".parse().unwrap(), 128),
        ];
        let held = thread::spawn(move || announce_and_wait(ours, &prefixes));
        let mut theirs = BufReader::new(theirs);
        for ((address, length), answer) in prefixes
            .iter()
            .zip(["{\"error\":\"no\"}\n", "{\"ok\":{}}\n"])
        {
            let mut line = String::new();
            theirs.read_line(&mut line).unwrap();
            let request: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(request["cmd"], "announce");
            assert_eq!(request["prefix"], format!("{address}/{length}"));
            theirs.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        thread::sleep(Duration::from_millis(50));
        assert!(!held.is_finished(), "it holds on");
        drop(theirs);
        held.join().unwrap().unwrap();
    }
}
