//! Token buckets without a clock of their own: limits for rates of events or bytes.
//!
//! The state of a bucket is the moment at which it will be full again (virtual scheduling
//! algorithm, ITU-T I.371 annex A). Each take is rounded up to a nanosecond: packets of 1,100 bytes
//! at 10 Gbit/s flow at most 0.12 % too slowly, never too fast. Time that runs backwards gives no
//! tokens. [`Bucket`] suits tables with one [`Rate`]; [`TokenBucket`] has its own.

use crate::time::{Duration, Instant};

/// The filling rate and capacity of a bucket. A token is any unit: a message, a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    tokens: u64,
    per: Duration,
    burst: u64,
}

impl Rate {
    /// Makes a rate of `tokens` in each `per`, at most `burst` at once. Zeros count as 1 (1 ns).
    #[must_use]
    pub const fn new(tokens: u64, per: Duration, burst: u64) -> Self {
        Self {
            tokens: if tokens == 0 { 1 } else { tokens },
            per: if per.is_zero() {
                Duration::from_nanos(1)
            } else {
                per
            },
            burst: if burst == 0 { 1 } else { burst },
        }
    }

    /// Makes a rate of `tokens` a second, at most `burst` at once.
    #[must_use]
    pub const fn per_second(tokens: u64, burst: u64) -> Self {
        Self::new(tokens, Duration::from_secs(1), burst)
    }

    /// Makes a rate of one token in each `interval`, at most `burst` at once.
    #[must_use]
    pub const fn every(interval: Duration, burst: u64) -> Self {
        Self::new(1, interval, burst)
    }

    /// Makes a rate of `bits` a second, with bytes as tokens, at most `burst` bytes at once.
    #[must_use]
    pub const fn bits_per_second(bits: u64, burst: u64) -> Self {
        Self::new(bits, Duration::from_secs(8), burst)
    }

    /// Returns the capacity in tokens.
    #[must_use]
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// Returns the time in which `tokens` flow in, rounded up to nanoseconds; at most 584 years.
    #[must_use]
    pub fn time_of(self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens).saturating_mul(self.per.as_nanos());
        let nanos = nanos.div_ceil(u128::from(self.tokens));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Returns the number of whole tokens that flow in during `time`.
    fn tokens_in(self, time: Duration) -> u64 {
        let tokens = time.as_nanos().saturating_mul(u128::from(self.tokens));
        u64::try_from(tokens / self.per.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A bucket without its rate: the time at which it will be full again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket(Instant);

impl Bucket {
    /// Makes a full bucket.
    #[must_use]
    pub fn full(now: Instant) -> Self {
        Self(now)
    }

    /// Takes `tokens`, or none if there are fewer.
    pub fn take(&mut self, rate: Rate, tokens: u64, now: Instant) -> bool {
        let full_at = self.0.max(now) + rate.time_of(tokens);
        let fits = full_at <= now + rate.time_of(rate.burst);
        if fits {
            self.0 = full_at;
        }
        fits
    }

    /// Takes `tokens`, into debt if needed: packets larger than the burst pass, at the right rate.
    pub fn spend(&mut self, rate: Rate, tokens: u64, now: Instant) {
        self.0 = self.0.max(now) + rate.time_of(tokens);
    }

    /// Gives `tokens` back to the bucket.
    pub fn refund(&mut self, rate: Rate, tokens: u64) {
        self.0 = self.0.checked_sub(rate.time_of(tokens)).unwrap_or(self.0);
    }

    /// Returns the number of whole tokens.
    pub fn left(&self, rate: Rate, now: Instant) -> u64 {
        let missing = self.0.saturating_duration_since(now);
        rate.tokens_in(rate.time_of(rate.burst).saturating_sub(missing))
    }

    /// Returns whether the bucket has anything, even less than a token, and no debt.
    pub fn ready(&self, rate: Rate, now: Instant) -> bool {
        self.0.saturating_duration_since(now) < rate.time_of(rate.burst)
    }

    /// Returns when it has `tokens` (at most the burst); with 0, when [`ready`](Self::ready) holds.
    pub fn next(&self, rate: Rate, tokens: u64) -> Instant {
        let wait = rate.time_of(tokens).max(Duration::from_nanos(1));
        let full = rate.time_of(rate.burst);
        (self.0 + wait).checked_sub(full).unwrap_or(self.0)
    }
}

/// A bucket with its rate.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    rate: Rate,
    bucket: Bucket,
}

impl TokenBucket {
    /// Makes a full bucket of `burst` bytes into which `rate` bits per second flow.
    #[must_use]
    pub fn new(rate: u64, burst: u64, now: Instant) -> Self {
        Self::of(Rate::bits_per_second(rate, burst), now)
    }

    /// Makes a full bucket.
    #[must_use]
    pub fn of(rate: Rate, now: Instant) -> Self {
        let bucket = Bucket::full(now);
        Self { rate, bucket }
    }

    /// Returns the rate in bits per second, with bytes as tokens.
    pub fn rate(&self) -> u64 {
        self.rate.tokens_in(Duration::from_secs(8))
    }

    /// See [`Bucket::take`].
    pub fn take(&mut self, tokens: u64, now: Instant) -> bool {
        self.bucket.take(self.rate, tokens, now)
    }

    /// See [`Bucket::spend`].
    pub fn spend(&mut self, tokens: u64, now: Instant) {
        self.bucket.spend(self.rate, tokens, now);
    }

    /// See [`Bucket::ready`].
    pub fn ready(&self, now: Instant) -> bool {
        self.bucket.ready(self.rate, now)
    }

    /// Returns when [`ready`](Self::ready) will hold; in the past if it does already.
    pub fn ready_at(&self) -> Instant {
        self.bucket.next(self.rate, 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn long_run_rate_is_the_rate() {
        for rate in [8_000_000, 9_999_999_999] {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = TokenBucket::new(rate, 10_000, now);
            assert_eq!(bucket.rate(), rate);
            let mut sent = 0;
            while sent < rate / 8 {
                if bucket.ready(now) {
                    bucket.spend(1_100, now);
                    sent += 1_100;
                } else {
                    now = bucket.ready_at();
                }
            }
            let taken = (now - start).as_secs_f64();
            assert!((0.98..1.002).contains(&taken), "{rate}: {taken}");
        }
    }

    #[test]
    fn a_burst_then_one_per_interval() {
        let rate = Rate::every(SECOND, 3);
        let t = Instant::now();
        let mut bucket = Bucket::full(t);
        assert_eq!(bucket.left(rate, t), 3);
        assert!((0..3).all(|_| bucket.take(rate, 1, t)));
        assert!(!bucket.take(rate, 1, t) && !bucket.ready(rate, t));
        assert_eq!(bucket.next(rate, 1), t + SECOND);
        assert_eq!(bucket.left(rate, t), 0);
        assert_eq!(bucket.left(rate, t + SECOND * 2), 2);
        assert!(bucket.take(rate, 1, t + SECOND) && !bucket.take(rate, 1, t + SECOND));
        bucket.refund(rate, 1);
        assert!(bucket.take(rate, 1, t + SECOND));
        let later = t + 100 * SECOND;
        let taken = (0..9).filter(|_| bucket.take(rate, 1, later)).count();
        assert_eq!(taken, 3, "idle time saves up no more than a burst");
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let now = Instant::now();
        let mut tokens = TokenBucket::of(Rate::per_second(10, 5), now);
        assert!(!tokens.take(6, now));
        assert!(tokens.take(3, now) && !tokens.take(3, now));
        assert!(tokens.take(2, now) && !tokens.take(1, now));
    }

    #[test]
    fn debt_is_paid_before_more_is_sent() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(8_000, 100, start);
        bucket.spend(1_100, start);
        assert!(!bucket.ready(start + SECOND));
        assert!(bucket.ready(bucket.ready_at()));
        assert_eq!(bucket.ready_at(), start + SECOND + Duration::from_nanos(1));
    }

    #[test]
    fn time_running_backwards_gives_no_tokens() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(8_000, 100, start);
        bucket.spend(100, start);
        assert!(!bucket.ready(start - Duration::from_secs(5)));
    }

    proptest! {
        /// In any time, at most the burst and the inflow are taken.
        #[test]
        fn no_sequence_of_takes_exceeds_the_rate(
            tokens in 1_u64..1 << 40,
            burst in 1_u64..1 << 40,
            steps in prop::collection::vec((0_u64..1 << 32, 0_u64..1 << 41), 1..50),
        ) {
            let rate = Rate::per_second(tokens, burst);
            let start = Instant::now();
            let (mut now, mut bucket, mut taken) = (start, Bucket::full(start), 0_u128);
            for (pause, wanted) in steps {
                now += Duration::from_nanos(pause);
                if bucket.take(rate, wanted, now) {
                    taken += u128::from(wanted);
                }
                let flown = (now - start).as_nanos() * u128::from(tokens) / 1_000_000_000;
                // the burst is rounded up to a nanosecond's worth
                let slack = u128::from(tokens) / 1_000_000_000 + 1;
                prop_assert!(taken <= u128::from(burst) + flown + slack);
            }
        }
    }
}
