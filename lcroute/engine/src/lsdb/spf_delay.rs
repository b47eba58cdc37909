//! How long changes are gathered before a route computation (RFC 8405).

use librecast::time::{Duration, Instant};

/// SPF delay, times the number of routers. Chosen: routers that differ lose packets, so no router waits without need.
const DELAY_PER_ROUTER: Duration = Duration::from_micros(100);
/// An urgent change waits for this part of the delay (RFC 8405 short delay).
const URGENT_DIVISOR: u32 = 4;
/// While changes do not cease the delay doubles, up to so many times the first one. Urgent changes do not wait for that.
const MAX_BACKOFF: u32 = 10;
/// Up to so many routers a route computation costs next to nothing, and waits for nothing.
pub(super) const SMALL_NETWORK: usize = 64;

/// The delay of a network with this many routers.
pub(super) fn delay(routers: usize) -> Duration {
    if routers > SMALL_NETWORK {
        // a few thousand at most
        DELAY_PER_ROUTER * routers as u32
    } else {
        Duration::ZERO
    }
}

/// When routes are computed next.
#[derive(Debug)]
pub(super) struct SpfDelay {
    next: Instant,
    last: Instant,
    delay: Duration,
}

impl SpfDelay {
    pub fn new(now: Instant) -> Self {
        Self {
            next: now,
            last: now,
            delay: Duration::ZERO,
        }
    }

    /// No route computation before this time.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// An urgent change.
    pub fn hasten(&mut self, routers: usize) {
        let soon = self.last + delay(routers) / URGENT_DIVISOR;
        self.next = self.next.min(soon);
    }

    /// Routes are computed now. Computations become rarer while changes go on.
    pub fn note_computed(&mut self, routers: usize, now: Instant) {
        let least = delay(routers);
        let busy = now < self.last + self.delay * 2;
        let next = if busy { self.delay * 2 } else { least };
        self.delay = next.clamp(least, least * MAX_BACKOFF);
        self.last = now;
        self.next = now + self.delay;
    }
}
