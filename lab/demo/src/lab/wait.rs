//! Waiting for conditions. Deadlines are generous: they end a broken test, and measure nothing.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The deadline of [`eventually`].
pub const DEADLINE: Duration = Duration::from_secs(40);
/// Bounds of the pause between two attempts: most of them start a program, which costs more than a pause.
const PAUSE: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
/// Divides the time waited so far: the pause then.
const SHARE: u32 = 16;

thread_local! {
    static GAVE_UP: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a wait of this thread has failed, and with it the test.
#[must_use]
pub fn has_given_up() -> bool {
    GAVE_UP.get()
}

/// Tries until `attempt` succeeds, for [`DEADLINE`].
///
/// # Errors
/// The last error of `attempt`.
pub fn eventually<T>(what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    within(DEADLINE, what, attempt)
}

/// An error after which waiting is hopeless, e.g. because the awaited process has ended.
#[derive(Debug)]
pub struct Hopeless(pub String);

impl fmt::Display for Hopeless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hopeless {}

/// Tries until `attempt` succeeds, for `timeout`, or until it returns [`Hopeless`].
///
/// # Errors
/// The last error of `attempt`.
pub fn within<T>(
    timeout: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    let deadline = began + timeout;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if error.is::<Hopeless>() || Instant::now() >= deadline => {
                GAVE_UP.set(true);
                return Err(error)
                    .with_context(|| format!("waited (up to {timeout:?}) until {what}"));
            }
            Err(_) => std::thread::sleep((began.elapsed() / SHARE).clamp(PAUSE[0], PAUSE[1])),
        }
    }
}
