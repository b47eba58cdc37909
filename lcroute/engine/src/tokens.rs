//! A token bucket: how often something may happen.

use librecast::time::{Duration, Instant};

/// So many a second, and so many at once.
#[derive(Debug)]
pub struct Tokens {
    every: Duration,
    /// The time at which the bucket would be full.
    full_at: Instant,
    burst: u32,
}

impl Tokens {
    /// A full bucket.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self {
            every: Duration::from_secs(1) / per_second,
            full_at: now,
            burst,
        }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.take_many(1, now)
    }

    /// Takes so many, or none of them.
    pub fn take_many(&mut self, n: u32, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.every * n;
        let fits = full_at - now <= self.every * self.burst;
        if fits {
            self.full_at = full_at;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_burst_then_the_rate() {
        let mut now = start();
        let mut tokens = Tokens::new(10, 5, now);
        let taken = (0..100).filter(|_| tokens.take(now)).count();
        assert_eq!(taken, 5);
        now += Duration::from_millis(250);
        assert_eq!((0..100).filter(|_| tokens.take(now)).count(), 2);
        now += Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| tokens.take(now)).count(), 5);
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let now = start();
        let mut tokens = Tokens::new(10, 5, now);
        assert!(!tokens.take_many(6, now));
        assert!(tokens.take_many(3, now) && !tokens.take_many(3, now));
        assert!(tokens.take_many(2, now) && !tokens.take(now));
    }
}
