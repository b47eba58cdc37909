//! The delay between changes and a route computation (RFC 8405).

use librecast::time::{Duration, Instant};

/// SPF delay per router. Chosen: routers that differ lose packets, so no router waits in vain.
const DELAY_PER_ROUTER: Duration = Duration::from_micros(100);
/// Divisor of the delay for an urgent change (RFC 8405 short delay).
const URGENT_DIVISOR: u32 = 4;
/// Bound of the delay as a multiple of the first: it doubles while ordinary changes go on.
const MAX_BACKOFF: u32 = 10;
/// Routers up to which a route computation costs almost nothing, and does not wait.
pub(super) const SMALL_NETWORK: usize = 64;

pub(super) fn delay(routers: usize) -> Duration {
    if routers > SMALL_NETWORK {
        // a few thousand at most
        DELAY_PER_ROUTER * routers as u32
    } else {
        Duration::ZERO
    }
}

/// The time of the next route computation.
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

    /// The earliest time of the next route computation.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Notes an urgent change.
    pub fn hasten(&mut self, routers: usize) {
        let soon = self.last + delay(routers) / URGENT_DIVISOR;
        self.next = self.next.min(soon);
    }

    /// Notes a route computation. Computations become rarer while changes go on.
    pub fn note_computed(&mut self, routers: usize, now: Instant) {
        let least = delay(routers);
        let busy = now < self.last + self.delay * 2;
        let next = if busy { self.delay * 2 } else { least };
        self.delay = next.clamp(least, least * MAX_BACKOFF);
        self.last = now;
        self.next = now + self.delay;
    }
}
