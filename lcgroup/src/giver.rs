//! Sends keys of groups to lcroute on this host, on a thread of its own.
//!
//! The keys are valid as long as the connection. Without it lcroute closes the prefixes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use librecast::announce::{control_sockets, socket_beside};
use librecast::cert::GroupPrefix;
use librecast::local;
use librecast::text::{TextKind, encode};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::keyring::Secret;

/// Pause between two attempts to connect to lcroute.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for an answer of lcroute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which all keys are sent again: lcroute may have reloaded its configuration.
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// The keys that lcroute should have.
pub type Wanted = BTreeMap<GroupPrefix, Vec<Secret>>;

/// lcroute's answer for each prefix: accepted, or the reason against it.
type Outcomes = BTreeMap<GroupPrefix, Result<(), String>>;

/// Sends the current keys to lcroute.
#[derive(Debug)]
pub struct Giver {
    shared: Arc<Mutex<Shared>>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: Wanted,
    outcomes: Outcomes,
}

impl Giver {
    /// Starts the thread, without keys.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("protect".into())
            .spawn(move || give(&of_thread))?;
        let thread = thread.thread().clone();
        Ok(Self { shared, thread })
    }

    /// Replaces the keys that lcroute should have.
    pub fn set(&self, wanted: Wanted) {
        let mut shared = lock(&self.shared);
        if shared.wanted != wanted {
            shared
                .outcomes
                .retain(|prefix, _| wanted.contains_key(prefix));
            shared.wanted = wanted;
            self.thread.unpark();
        }
    }

    /// Whether lcroute has the keys of a prefix; none: no answer yet.
    pub fn outcome(&self, prefix: &GroupPrefix) -> Option<Result<(), String>> {
        lock(&self.shared).outcomes.get(prefix).cloned()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection to lcroute, and the keys sent over it.
struct Connection {
    lcroute: local::Connection,
    given: Wanted,
    repeat_at: Instant,
}

/// The request that gives secrets.
#[derive(Serialize)]
struct Private {
    cmd: &'static str,
    prefix: String,
    secrets: Vec<Zeroizing<String>>,
}

fn give(shared: &Mutex<Shared>) {
    let mut connection: Option<Connection> = None;
    loop {
        let wanted = lock(shared).wanted.clone();
        if !wanted.is_empty() || connection.is_some() {
            if let Err(e) = bring(&mut connection, &wanted, shared) {
                connection = None;
                let why = format!("lcroute on this host has no keys of it: {e}");
                let mut shared = lock(shared);
                for prefix in wanted.keys() {
                    note(&mut shared.outcomes, *prefix, Err(why.clone()));
                }
            }
            if wanted.is_empty() {
                connection = None;
            }
        }
        let is_idle = connection.is_none() && wanted.is_empty();
        let has_changed = lock(shared).wanted != wanted;
        match is_idle {
            _ if has_changed => {}
            true => thread::park(),
            false => thread::park_timeout(LOOK_INTERVAL),
        }
    }
}

/// Sends missing keys to lcroute, and withdraws superfluous ones.
fn bring(
    connection: &mut Option<Connection>,
    wanted: &Wanted,
    shared: &Mutex<Shared>,
) -> io::Result<()> {
    let now = Instant::now();
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(connect(now)?),
    };
    if connection.has_ended()? {
        return Err(ended());
    }
    if connection.repeat_at <= now {
        connection.repeat_at = now + REPEAT_INTERVAL;
        // a repetition changes nothing in lcroute
        connection.given.values_mut().for_each(Vec::clear);
    }
    let gone: Vec<_> = connection.given.keys().copied().collect();
    for prefix in gone.into_iter().filter(|p| !wanted.contains_key(p)) {
        // a refusal means that lcroute had no keys for it
        let _ = connection.ask(prefix, &[])?;
        connection.given.remove(&prefix);
    }
    for (prefix, secrets) in wanted {
        if connection.given.get(prefix) == Some(secrets) {
            continue;
        }
        let outcome = connection.ask(*prefix, secrets)?;
        if outcome.is_ok() {
            connection.given.insert(*prefix, secrets.clone());
        }
        note(&mut lock(shared).outcomes, *prefix, outcome);
    }
    Ok(())
}

fn ended() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "it has ended")
}

/// Stores the outcome of a prefix, and logs it if it is new.
fn note(outcomes: &mut Outcomes, prefix: GroupPrefix, outcome: Result<(), String>) {
    if outcomes.get(&prefix) == Some(&outcome) {
        return;
    }
    match &outcome {
        Ok(()) => tracing::info!("{prefix}: lcroute seals it with keys of its group"),
        Err(e) => tracing::warn!("{prefix} is closed: {e}"),
    }
    outcomes.insert(prefix, outcome);
}

/// Connects to lcroute's socket for keys.
fn connect(now: Instant) -> io::Result<Connection> {
    let mut first = None;
    let beside = |control: PathBuf| socket_beside(&control, "keys");
    for path in control_sockets().into_iter().map(beside) {
        match local::Connection::connect(&path, ANSWER_TIMEOUT, MAX_ANSWER) {
            Ok(lcroute) => {
                return Ok(Connection {
                    lcroute,
                    given: Wanted::new(),
                    repeat_at: now + REPEAT_INTERVAL,
                });
            }
            Err(e) => {
                let told = io::Error::new(e.kind(), format!("{}: {e}", path.display()));
                first.get_or_insert(told);
            }
        }
    }
    Err(first.unwrap_or_else(|| ErrorKind::NotFound.into()))
}

impl Connection {
    /// Whether lcroute has closed it.
    fn has_ended(&self) -> io::Result<bool> {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.lcroute.stream().as_raw_fd(), &mut [0], flags) {
            Ok(n) => Ok(n == 0),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends secrets; returns lcroute's answer.
    fn ask(&mut self, prefix: GroupPrefix, secrets: &[Secret]) -> io::Result<Result<(), String>> {
        let text = |secret: &Secret| encode(TextKind::SharedKey, &**secret);
        let answer = self.lcroute.ask(&Private {
            cmd: "private",
            prefix: prefix.to_string(),
            secrets: secrets.iter().map(text).collect(),
        })?;
        if answer.is_empty() {
            return Err(ended());
        }
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        Ok(match answer.get("ok") {
            Some(_) => Ok(()),
            None => Err(answer["error"].as_str().unwrap_or("refused").to_owned()),
        })
    }
}
