//! Long waits: standard error names their reason, and the things to check.

use std::time::{Duration, Instant};

use librecast_program::outside;

use crate::said::hint;

/// Wait after which it is explained.
const NOTICE: Duration = Duration::from_secs(2);

/// A wait that began.
#[derive(Debug)]
pub struct Waiting {
    /// Time of the explanation; `None`: none is due.
    at: Option<Instant>,
}

impl Waiting {
    /// Begins now.
    pub fn begin(now: Instant) -> Self {
        Self {
            at: Some(now + NOTICE),
        }
    }

    /// Creates a wait without explanation.
    pub fn unexplained() -> Self {
        Self { at: None }
    }

    /// Explains it once, if it has lasted.
    pub fn explain(&mut self, now: Instant, text: impl FnOnce() -> String) {
        if self.at.is_some_and(|at| at <= now) {
            self.at = None;
            hint(text());
        }
    }

    /// Returns the time at which [`explain`](Self::explain) prints.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.at
    }
}

/// Returns the explanation of a wait for a host with the session, on these interfaces.
pub fn for_session(interfaces: &[&str], timeout: Option<Duration>) -> String {
    let time = timeout.map_or_else(String::new, |t| format!(" up to {} s", t.as_secs_f64()));
    if outside::within().is_ok_and(|within| within.is_some()) {
        return format!(
            "waits{time} for the session in its own network: does somebody present it?"
        );
    }
    let interfaces = match interfaces {
        [] => "no interface, as none that carries multicast is up".to_owned(),
        names => names.join(", "),
    };
    format!(
        "waits{time} for the session on {interfaces}: nobody presents or holds it there yet. If somebody does, `lcroute doctor` \
         checks the network; firewalls must let in UDP port 14246"
    )
}
