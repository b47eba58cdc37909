//! Clocks of state machines: time is handed to them.

use std::fmt;
use std::sync::Arc;

pub use std::time::{Duration, Instant};

/// The wall clock, by which certificates expire: seconds since 1970. Hosts hand in the system's, simulations their own.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl WallClock {
    /// A clock that reads so.
    #[must_use]
    pub fn new(read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Unix seconds.
    #[must_use]
    pub fn unix_now(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.unix_now()).finish()
    }
}
