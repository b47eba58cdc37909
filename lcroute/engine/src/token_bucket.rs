//! A token bucket that is one moment of time.

use librecast::time::{Duration, Instant};

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// How often at once.
    pub burst: u32,
    /// Time for one more.
    pub interval: Duration,
}

impl Rate {
    /// `rate` times a second, `burst` times at once.
    pub const fn per_second(rate: u32, burst: u32) -> Self {
        Self {
            burst,
            interval: Duration::from_nanos(1_000_000_000 / rate as u64),
        }
    }
}

/// The moment at which the bucket is full again, if nothing is taken out of it.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket(Instant);

impl TokenBucket {
    /// A full bucket.
    pub fn full(now: Instant) -> Self {
        Self(now)
    }

    /// Takes a token; false if there is none.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.take_many(1, rate, now)
    }

    /// Takes so many tokens, or none of them.
    pub fn take_many(&mut self, tokens: u32, rate: Rate, now: Instant) -> bool {
        if self.0.max(now) + rate.interval * tokens > now + rate.interval * rate.burst {
            return false;
        }
        self.spend(rate, tokens, now);
        true
    }

    /// Takes tokens, whether they are there or not.
    pub fn spend(&mut self, rate: Rate, tokens: u32, now: Instant) {
        self.0 = self.0.max(now) + rate.interval * tokens;
    }

    /// Gives a token back.
    pub fn refund(&mut self, rate: Rate) {
        self.0 = self.0.checked_sub(rate.interval).unwrap_or(self.0);
    }

    /// How many tokens there are.
    pub fn left(&self, rate: Rate, now: Instant) -> u32 {
        let used = self.0.saturating_duration_since(now);
        let used = used.as_nanos().div_ceil(rate.interval.as_nanos().max(1));
        rate.burst
            .saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }

    /// When there is a token.
    pub fn next(&self, rate: Rate) -> Instant {
        (self.0 + rate.interval)
            .checked_sub(rate.interval * rate.burst)
            .unwrap_or(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_burst_then_one_per_interval() {
        let second = Duration::from_secs(1);
        let rate = Rate {
            burst: 3,
            interval: second,
        };
        let t = start();
        let mut bucket = TokenBucket::full(t);
        assert_eq!(bucket.left(rate, t), 3);
        assert!((0..3).all(|_| bucket.take(rate, t)));
        assert!(!bucket.take(rate, t));
        assert_eq!(bucket.next(rate), t + second);
        assert_eq!(bucket.left(rate, t), 0);
        assert_eq!(bucket.left(rate, t + second * 2), 2);
        assert!(bucket.take(rate, t + second) && !bucket.take(rate, t + second));
        bucket.refund(rate);
        assert!(bucket.take(rate, t + second));
        let later = t + 100 * second;
        assert_eq!((0..9).filter(|_| bucket.take(rate, later)).count(), 3);
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let (rate, now) = (Rate::per_second(10, 5), start());
        let mut bucket = TokenBucket::full(now);
        assert!(!bucket.take_many(6, rate, now));
        assert!(bucket.take_many(3, rate, now) && !bucket.take_many(3, rate, now));
        assert!(bucket.take_many(2, rate, now) && !bucket.take(rate, now));
        let later = now + Duration::from_secs(60);
        assert_eq!((0..100).filter(|_| bucket.take(rate, later)).count(), 5);
    }
}
