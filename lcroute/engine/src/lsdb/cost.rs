//! The cost of a link: its round-trip time in units of 100 us, in steps and damped, because every
//! change is flooded to the whole network and may move trees.

use librecast::time::{Duration, Instant};

/// Cost of 1 ms; all shorter times cost the same.
const FLOOR: u16 = 10;
/// Cost of the last step, 4 s.
const CEILING: u16 = 40_000;
/// Cost of a link without a measured round trip: 50 ms.
const UNMEASURED: u16 = 500;
/// Time after which a link is advertised unmeasured: a second advertisement would follow soon.
const MEASURED_WITHIN: Duration = Duration::from_millis(500);
/// Part of a round trip that may be noise: an eighth.
const MARGIN: u32 = 8;
/// Time for which a link must be worse before it costs more.
const WORSE_FOR: Duration = Duration::from_secs(30);

/// The first step that is not below `rtt`: 1 ms, then each 1.5 times the one before.
fn step(rtt: Duration) -> u16 {
    let units = rtt.as_micros().div_ceil(100);
    let mut step = FLOOR;
    while u128::from(step) < units && step < CEILING {
        step = (u32::from(step) * 3).div_ceil(2).min(u32::from(CEILING)) as u16;
    }
    step
}

#[derive(Debug, Default)]
pub(crate) struct Cost {
    current: Option<u16>,
    /// End of the wait for a first measurement.
    awaited: Option<Instant>,
    /// Since when it is worse, and the least cost in that time.
    worse: Option<(Instant, u16)>,
}

impl Cost {
    pub fn new(now: Instant) -> Self {
        Self {
            awaited: Some(now + MEASURED_WITHIN),
            ..Self::default()
        }
    }

    /// Whether it has been measured, or will not be.
    pub fn is_known(&self) -> bool {
        self.awaited.is_none()
    }

    /// Notes a measurement: a better one counts at once, a worse one if it lasts. Noise at the
    /// border of two steps is neither. True: the cost has changed or become known.
    pub fn set(&mut self, rtt: Duration, now: Instant) -> bool {
        let over = self.handle_timeout(now);
        self.awaited = None;
        let margin = rtt / MARGIN;
        let Some(current) = self.current else {
            self.current = Some(step(rtt));
            return true;
        };
        if step(rtt.saturating_sub(margin)) > current {
            let measured = step(rtt);
            let (_, least) = self.worse.get_or_insert((now, measured));
            *least = measured.min(*least);
            return over;
        }
        self.worse = None;
        let least = current.min(step(rtt + margin));
        self.current = Some(least);
        over || least < current
    }

    /// To be called at the time of [`Self::next_timeout`]. True: the cost has changed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let given_up = self.awaited.take_if(|at| now >= *at).is_some();
        let over = self.worse.take_if(|(since, _)| now >= *since + WORSE_FOR);
        if let Some((_, least)) = over {
            self.current = Some(least);
        }
        given_up || over.is_some()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let worse = self.worse.map(|(since, _)| since + WORSE_FOR);
        worse.into_iter().chain(self.awaited).min()
    }

    /// The cost in units of 100 us.
    pub fn get(&self) -> u16 {
        self.current.unwrap_or(UNMEASURED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn new() -> (Cost, Instant) {
        let now = start();
        (Cost::new(now), now)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn steps_are_half_as_much_again() {
        assert_eq!(step(Duration::ZERO), 10);
        assert_eq!(step(ms(1)), 10);
        assert_eq!(step(Duration::from_micros(1_001)), 15);
        assert_eq!(
            [2, 3, 5, 20, 50, 100].map(|n| step(ms(n))),
            [23, 35, 53, 270, 608, 1368]
        );
        assert_eq!(step(Duration::from_secs(100)), CEILING);
    }

    #[test]
    fn coordinates_know_what_a_round_trip_is_of_its_cost() {
        // as many round trips between 10 and 11 ms as between 100 and 110
        let rtts = (0..1_000).map(|n| Duration::from_micros((2_000.0 * 1.005_f64.powi(n)) as u64));
        let shares = rtts.map(|rtt| rtt.as_micros() as f64 / 100.0 / f64::from(step(rtt)));
        let mean = shares.sum::<f64>() / 1_000.0;
        assert!((mean - crate::graph::MEAN_OF_STEP).abs() < 0.01, "{mean}");
    }

    #[test]
    fn it_is_known_when_it_was_measured_or_could_not_be() {
        let (mut cost, t) = new();
        assert!(!cost.is_known());
        assert_eq!(cost.next_timeout(), Some(t + ms(500)));
        assert!(!cost.handle_timeout(t + ms(499)));
        assert!(cost.handle_timeout(t + ms(500)) && cost.is_known());
        assert_eq!(cost.next_timeout(), None);
        let (mut cost, t) = new();
        assert!(cost.set(ms(5), t + ms(10)));
        assert!(cost.is_known() && !cost.handle_timeout(t + ms(500)));
    }

    #[test]
    fn better_at_once_worse_when_it_lasts() {
        let (mut cost, t) = new();
        assert_eq!(cost.get(), UNMEASURED);
        cost.set(ms(100), t);
        assert_eq!(cost.get(), 1368, "the first counts whatever it is");
        assert!(cost.set(ms(4), t));
        assert_eq!(cost.get(), 53);
        assert!(!cost.set(ms(50), t + ms(1_000)));
        cost.set(ms(20), t + ms(20_000));
        assert_eq!(cost.get(), 53);
        assert_eq!(cost.next_timeout(), Some(t + ms(31_000)));
        cost.handle_timeout(t + ms(31_000));
        assert_eq!(cost.get(), 270, "the least it was");
        assert_eq!(cost.next_timeout(), None);
    }

    #[test]
    fn what_wavers_about_a_border_changes_nothing() {
        let (mut cost, t) = new();
        for n in 0..100 {
            // 5.3 ms is the border
            cost.set(
                Duration::from_micros(if n % 7 == 0 { 5_000 } else { 5_700 }),
                t + ms(n * 10_000),
            );
            cost.handle_timeout(t + ms(n * 10_000 + 9_000));
            assert_eq!((cost.get(), cost.next_timeout()), (53, None), "{n}");
        }
    }

    #[test]
    fn one_good_moment_ends_a_bad_time() {
        let (mut cost, t) = new();
        cost.set(ms(5), t);
        cost.set(ms(50), t);
        cost.set(ms(5), t + ms(29_000));
        cost.set(ms(50), t + ms(30_000));
        cost.handle_timeout(t + ms(59_000));
        assert_eq!(cost.get(), 53);
    }
}
