//! Times of heads, wants and answers: Trickle (RFC 6206) and the back-off of RFC 5401.

use librecast::random::Random;
use librecast::time::{Duration, Instant};

/// Shortest interval of heads, in use while something changes.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longest interval of heads (RFC 6206: Imax).
const LONGEST: Duration = Duration::from_secs(60);

/// Longest interval of heads in an idle space.
const LONGEST_IDLE: Duration = Duration::from_secs(600);

/// Time without a change after which a space is idle.
const IDLE_AFTER: Duration = Duration::from_secs(86_400);

/// Equal heads from other members in an interval that suppress this member's (RFC 6206: k).
const REDUNDANT: u32 = 2;

/// Intervals in a row in which equal heads suppress this member's, as they may be forged. Chosen.
const MOST_SILENT: u32 = 4;

/// The same with more equal heads: as many intervals as heads, at most this number. So n members
/// send about √n heads in an interval. Chosen.
const MOST_SILENT_IN_A_CROWD: u32 = 32;

/// Returns a random time up to `longest`, early for few of `members` and late for most (RFC 5401
/// §3.2.1), so that the first transmission suppresses the rest.
pub(crate) fn backoff(longest: Duration, members: usize, random: &mut Random) -> Duration {
    let lambda = (members.max(2) as f64).ln() + 1.0;
    let longest = longest.as_secs_f64();
    let span = lambda.exp() - 1.0;
    let x = random.unit() * lambda / longest + lambda / (longest * span);
    let seconds = longest / lambda * (x * span * longest / lambda).ln();
    Duration::from_secs_f64(seconds.clamp(0.0, longest))
}

#[derive(Debug)]
pub(crate) struct Trickle {
    interval: Duration,
    /// When heads leave in this interval, unless suppressed; none once that has passed.
    pub(crate) fires_at: Option<Instant>,
    ends_at: Instant,
    heard: u32,
    /// Intervals in a row in which this member's heads were suppressed.
    silent: u32,
    /// Until then heads leave in each of the shortest intervals, without suppression.
    eager_until: Instant,
    /// When something last changed.
    changed: Instant,
}

impl Trickle {
    /// Timer of a starting or returning member: heads leave now, and in each interval of `eager`.
    pub(crate) fn new(eager: Duration, now: Instant) -> Self {
        Self {
            interval: SHORTEST,
            fires_at: Some(now),
            ends_at: now + SHORTEST,
            heard: 0,
            silent: 0,
            eager_until: now + eager,
            changed: now,
        }
    }

    /// Restarts the shortest interval after a change, or after heads that showed a difference.
    pub(crate) fn reset(&mut self, now: Instant, random: &mut Random) {
        self.changed = now;
        if self.interval > SHORTEST {
            self.interval = SHORTEST;
            self.begin(now, random);
        }
    }

    /// Counts heads of another member that equal this member's.
    pub(crate) fn hear(&mut self) {
        self.heard = self.heard.saturating_add(1);
    }

    /// Makes the next interval the shortest, as more heads must leave.
    pub(crate) fn go_on(&mut self, now: Instant) {
        self.changed = now;
    }

    fn begin(&mut self, now: Instant, random: &mut Random) {
        let half = self.interval / 2;
        let fires_at = now + half + half.mul_f64(random.unit());
        self.fires_at = Some(fires_at);
        self.ends_at = now + self.interval;
        self.heard = 0;
        debug_assert!(fires_at <= self.ends_at, "heads leave in their interval");
        debug_assert!(
            (SHORTEST..=LONGEST_IDLE).contains(&self.interval),
            "RFC 6206: Imin and Imax"
        );
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        self.fires_at.unwrap_or(self.ends_at)
    }

    /// Returns whether heads must leave now.
    pub(crate) fn handle_timeout(&mut self, now: Instant, random: &mut Random) -> bool {
        if let Some(at) = self.fires_at {
            if at > now {
                return false;
            }
            self.fires_at = None;
            let most_silent = self.heard.clamp(MOST_SILENT, MOST_SILENT_IN_A_CROWD);
            let speaks = self.heard < REDUNDANT || self.silent >= most_silent;
            let speaks = speaks || now < self.eager_until;
            self.silent = if speaks { 0 } else { self.silent + 1 };
            return speaks;
        }
        if self.ends_at <= now {
            let idle = now.saturating_duration_since(self.changed) > IDLE_AFTER;
            let longest = if idle { LONGEST_IDLE } else { LONGEST };
            let quiet = now.saturating_duration_since(self.changed) > SHORTEST;
            let quiet = quiet && now >= self.eager_until;
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
        let mut trickle = Trickle::new(Duration::ZERO, start);
        let mut sent = Vec::new();
        let mut now = start;
        while now < start + Duration::from_secs(200_000) {
            now = trickle.next_timeout();
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
    fn heads_of_two_others_make_ours_needless_but_not_for_long() {
        let (mut random, start) = (Random::new(1), Instant::now());
        let mut trickle = Trickle::new(Duration::ZERO, start);
        let (mut now, mut silent) = (start, 0);
        loop {
            trickle.hear();
            trickle.hear();
            let fires = trickle.fires_at.is_some();
            if trickle.handle_timeout(now, &mut random) {
                break;
            }
            silent += u32::from(fires);
            now = trickle.next_timeout();
        }
        assert_eq!(silent, MOST_SILENT);
    }

    #[test]
    fn who_is_back_sends_heads_whatever_others_say() {
        let (mut random, start) = (Random::new(1), Instant::now());
        let eager = 3 * SHORTEST;
        let mut trickle = Trickle::new(eager, start);
        let (mut now, mut sent) = (start, 0);
        while now < start + eager {
            trickle.hear();
            trickle.hear();
            sent += u32::from(trickle.handle_timeout(now, &mut random));
            now = trickle.next_timeout();
        }
        assert_eq!(sent, 3);
    }
}
