//! When heads, wants and answers leave: Trickle (RFC 6206) and the back-off of RFC 5401.

use librecast::random::Random;
use librecast::time::{Duration, Instant};

/// Shortest interval of heads: while something changes.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longest interval of heads (RFC 6206: Imax).
const LONGEST: Duration = Duration::from_secs(60);

/// Longest interval of heads where nothing has changed for a day.
const LONGEST_IDLE: Duration = Duration::from_secs(600);

/// Without a change for so long, a space is idle.
const IDLE_AFTER: Duration = Duration::from_secs(86_400);

/// So many heads that say the same in an interval make ours needless (RFC 6206: k).
const REDUNDANT: u32 = 2;

/// A time up to `longest`, early for few of `members` and late for most (RFC 5401 §3.2.1): one is heard before others speak.
pub(crate) fn backoff(longest: Duration, members: usize, random: &mut Random) -> Duration {
    let lambda = (members.max(2) as f64).ln() + 1.0;
    let longest = longest.as_secs_f64();
    let span = lambda.exp() - 1.0;
    let x = random.unit() * lambda / longest + lambda / (longest * span);
    let seconds = longest / lambda * (x * span * longest / lambda).ln();
    Duration::from_secs_f64(seconds.clamp(0.0, longest))
}

/// When heads leave.
#[derive(Debug)]
pub(crate) struct Trickle {
    interval: Duration,
    /// When heads leave in this interval, if others do not make them needless; none once that has passed.
    pub(crate) fires_at: Option<Instant>,
    ends_at: Instant,
    heard: u32,
    /// When something last changed.
    changed: Instant,
}

impl Trickle {
    pub(crate) fn new(now: Instant) -> Self {
        // the first heads tell others that somebody is back, who may lack something
        Self {
            interval: SHORTEST,
            fires_at: Some(now),
            ends_at: now + SHORTEST,
            heard: 0,
            changed: now,
        }
    }

    /// Something changed, or another's heads showed that somebody lacks something.
    pub(crate) fn reset(&mut self, now: Instant, random: &mut Random) {
        self.changed = now;
        if self.interval > SHORTEST {
            self.interval = SHORTEST;
            self.begin(now, random);
        }
    }

    /// Another's heads said all that ours would.
    pub(crate) fn hear(&mut self) {
        self.heard += 1;
    }

    fn begin(&mut self, now: Instant, random: &mut Random) {
        let half = self.interval / 2;
        self.fires_at = Some(now + half + half.mul_f64(random.unit()));
        self.ends_at = now + self.interval;
        self.heard = 0;
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.fires_at.unwrap_or(self.ends_at)
    }

    /// Whether heads are to leave now.
    pub(crate) fn handle_timeout(&mut self, now: Instant, random: &mut Random) -> bool {
        if let Some(at) = self.fires_at {
            if at > now {
                return false;
            }
            self.fires_at = None;
            return self.heard < REDUNDANT;
        }
        if self.ends_at <= now {
            let idle = now.saturating_duration_since(self.changed) > IDLE_AFTER;
            let longest = if idle { LONGEST_IDLE } else { LONGEST };
            let quiet = now.saturating_duration_since(self.changed) > SHORTEST;
            self.interval = if quiet {
                (self.interval * 2).min(longest)
            } else {
                SHORTEST
            };
            self.begin(now, random);
        }
        false
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
mod tests {
    use super::*;

    #[test]
    fn back_off_is_early_for_few_and_never_longer_than_asked() {
        let mut random = Random::new(1);
        let longest = Duration::from_millis(400);
        let mut times: Vec<_> = (0..1_000)
            .map(|_| backoff(longest, 200, &mut random))
            .collect();
        times.sort();
        assert!(times[999] <= longest);
        assert!(times[500] > longest / 2, "most wait long");
        assert!(times[5] < longest / 2, "some do not");
    }

    #[test]
    fn heads_leave_each_second_at_first_and_each_ten_minutes_after_a_day() {
        let (mut random, start) = (Random::new(1), Instant::now());
        let mut trickle = Trickle::new(start);
        let mut sent = Vec::new();
        let mut now = start;
        while now < start + Duration::from_secs(200_000) {
            now = trickle.poll_timeout();
            if trickle.handle_timeout(now, &mut random) {
                sent.push(now);
            }
        }
        assert_eq!(sent[0], start);
        let gaps: Vec<_> = sent.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps[0] < Duration::from_secs(3), "{:?}", gaps[0]);
        let last = *gaps.last().unwrap();
        assert!(last >= LONGEST_IDLE / 2 && last <= LONGEST_IDLE * 2);
        assert!(sent.len() < 2_000, "{}", sent.len());
    }

    #[test]
    fn heads_of_two_others_make_ours_needless() {
        let (mut random, start) = (Random::new(1), Instant::now());
        let mut trickle = Trickle::new(start);
        trickle.hear();
        trickle.hear();
        assert!(!trickle.handle_timeout(start, &mut random));
    }
}
