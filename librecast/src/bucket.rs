//! A token bucket without a clock of its own: what is sent when, at a rate in bits per second.

use std::time::{Duration, Instant};

/// Tokens are bytes; they flow in at `rate` and stay at most `burst`.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    /// Bytes per second.
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket of `burst` bytes that fills with `rate` bits per second.
    #[must_use]
    pub fn new(rate: u64, burst: u64, now: Instant) -> Self {
        let burst = burst.max(1) as f64;
        Self {
            rate: (rate.max(8) as f64) / 8.0,
            burst,
            tokens: burst,
            at: now,
        }
    }

    /// Bits per second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        (self.rate * 8.0) as u64
    }

    /// Whether anything may be sent. A bucket may be overdrawn by what is sent last, and is then closed
    /// until the debt is paid: so packets larger than `burst` pass, at the right rate.
    pub fn ready(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens > 0.0
    }

    /// Takes `bytes` out, into debt if need be.
    pub fn spend(&mut self, bytes: u64, now: Instant) {
        self.refill(now);
        self.tokens -= bytes as f64;
    }

    /// How many bytes may be sent at once without debt.
    pub fn available(&mut self, now: Instant) -> u64 {
        self.refill(now);
        self.tokens.max(0.0) as u64
    }

    /// When [`ready`](Self::ready) will be true.
    #[must_use]
    pub fn ready_at(&self) -> Instant {
        if self.tokens > 0.0 {
            return self.at;
        }
        // one byte more than the debt: strictly above zero despite rounding
        let wait = (1.0 - self.tokens) / self.rate;
        self.at + Duration::try_from_secs_f64(wait).unwrap_or(Duration::from_secs(3600))
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_run_rate_is_the_rate() {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = TokenBucket::new(8_000_000, 10_000, now);
        let mut sent = 0u64;
        while now < start + Duration::from_secs(10) {
            if bucket.ready(now) {
                bucket.spend(1_100, now);
                sent += 1_100;
            } else {
                now = bucket.ready_at();
            }
        }
        let ideal = 10_000_000 + 10_000;
        assert!(sent.abs_diff(ideal) <= 2_200, "{sent}");
    }

    #[test]
    fn idle_time_saves_up_no_more_than_a_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(8_000, 500, start);
        let later = start + Duration::from_secs(100);
        assert_eq!(bucket.available(later), 500);
        bucket.spend(500, later);
        assert!(!bucket.ready(later));
        assert!(bucket.ready(bucket.ready_at()));
    }

    #[test]
    fn debt_is_paid_before_more_is_sent() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(8_000, 100, start);
        bucket.spend(1_100, start);
        assert!(!bucket.ready(start + Duration::from_millis(999)));
        assert!(bucket.ready(start + Duration::from_millis(1_002)));
    }

    #[test]
    fn time_running_backwards_is_harmless() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(8_000, 100, start);
        bucket.spend(100, start);
        assert!(!bucket.ready(start - Duration::from_secs(5)));
    }
}
