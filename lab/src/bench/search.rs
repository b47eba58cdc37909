//! The highest rate at which a path loses less than a bound. The search is independent of packets.

use anyhow::Result;

/// The result of an offered rate.
pub trait Outcome {
    /// Returns the packets a second that the sender really sent.
    fn rate(&self) -> u64;
    /// Returns the part of them that did not arrive, 0 to 1.
    fn loss(&self) -> f64;
}

/// The duration of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Sufficient to steer the search.
    Short,
    /// Sufficient for a printed result.
    Full,
}

/// The bounds of a search.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Initial rate in packets/s, which every path must carry.
    pub start: u64,
    /// Maximum loss, 0 to 1.
    pub loss: f64,
}

/// Part of the offered rate below which a sender counts as saturated.
const REACHED: f64 = 0.97;
/// Relative distance between a good and a bad rate at which the search ends.
const CLOSE: f64 = 0.04;
/// Number of failed trials after which a rate has failed, as the machine may be disturbed.
const TRIES: usize = 2;
/// Part by which a failed confirmation lowers the rate; later ones lower it by 2, 3, … parts.
const STEP_BACK: f64 = 0.05;
/// Maximum number of these steps; then the last result counts.
const STEPS_BACK: u8 = 12;
/// Lowest rate in packets/s: a path below it counts as carrying nothing.
const LOWEST: u64 = 10;

/// Doubles the rate until the loss is too high or the sender is saturated, halves the distance
/// between good and bad, and confirms the result by a full trial. The sender's measured rate
/// counts, not the offered one.
pub fn highest_rate<T: Outcome>(
    bounds: Bounds,
    mut trial: impl FnMut(u64, Length) -> Result<T>,
) -> Result<T> {
    let (mut good, mut bad) = (0, None::<u64>);
    let mut rate = bounds.start;
    loop {
        let found = best_of(TRIES, bounds, || trial(rate, Length::Short))?;
        if found.loss() < bounds.loss {
            let sent = found.rate();
            if (sent as f64) < rate as f64 * REACHED {
                good = good.max(sent);
                break;
            }
            good = rate;
        } else {
            bad = Some(rate);
        }
        rate = match bad {
            None => rate.saturating_mul(2),
            Some(bad) if (bad - good) as f64 <= bad as f64 * CLOSE => break,
            Some(bad) => good.midpoint(bad),
        };
        if rate < LOWEST {
            break;
        }
    }
    confirm(bounds, good.max(LOWEST), trial)
}

fn confirm<T: Outcome>(
    bounds: Bounds,
    mut rate: u64,
    mut trial: impl FnMut(u64, Length) -> Result<T>,
) -> Result<T> {
    let mut steps = 0_u8;
    loop {
        let found = best_of(TRIES, bounds, || trial(rate, Length::Full))?;
        if found.loss() < bounds.loss || steps == STEPS_BACK {
            return Ok(found);
        }
        steps += 1;
        rate = ((rate as f64 * (1.0 - STEP_BACK * f64::from(steps))) as u64).max(1);
    }
}

/// Returns the first good result, else the last one.
fn best_of<T: Outcome>(
    tries: usize,
    bounds: Bounds,
    mut trial: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut found = trial()?;
    for _ in 1..tries {
        if found.loss() < bounds.loss {
            break;
        }
        found = trial()?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Found {
        rate: u64,
        loss: f64,
    }

    impl Outcome for Found {
        fn rate(&self) -> u64 {
            self.rate
        }

        fn loss(&self) -> f64 {
            self.loss
        }
    }

    const BOUNDS: Bounds = Bounds {
        start: 10_000,
        loss: 0.01,
    };

    /// Returns a path that carries `capacity` and loses the rest, with sender limit `sender`.
    fn path(capacity: u64, sender: u64) -> impl FnMut(u64, Length) -> Result<Found> {
        move |offered, _| {
            let rate = offered.min(sender);
            let loss = rate.saturating_sub(capacity) as f64 / rate as f64;
            Ok(Found { rate, loss })
        }
    }

    fn near(found: u64, expected: u64) -> bool {
        found.abs_diff(expected) as f64 <= expected as f64 * 0.05
    }

    #[test]
    fn it_finds_what_the_path_carries() {
        for capacity in [300, 9_999, 10_000, 123_456, 2_000_000] {
            let found = highest_rate(BOUNDS, path(capacity, u64::MAX)).unwrap();
            assert!(near(found.rate, capacity), "{found:?} of {capacity}");
            assert!(found.loss < 0.01);
        }
    }

    #[test]
    fn a_sender_that_can_send_no_more_has_measured_itself() {
        let found = highest_rate(BOUNDS, path(u64::MAX, 77_000)).unwrap();
        assert_eq!(found.rate, 77_000);
    }

    #[test]
    fn one_disturbed_trial_does_not_end_the_search() {
        let mut calm = path(100_000, u64::MAX);
        let mut count = 0;
        let disturbed = |rate, length| {
            count += 1;
            let found = calm(rate, length)?;
            Ok(Found {
                loss: if count % 3 == 0 { 0.5 } else { found.loss },
                ..found
            })
        };
        let found = highest_rate(BOUNDS, disturbed).unwrap();
        assert!(near(found.rate, 100_000), "{found:?}");
    }

    #[test]
    fn the_result_is_confirmed_by_a_full_trial() {
        let mut short = path(100_000, u64::MAX);
        let mut full = path(60_000, u64::MAX);
        let found = highest_rate(BOUNDS, |rate, length| match length {
            Length::Short => short(rate, length),
            Length::Full => full(rate, length),
        });
        let found = found.unwrap();
        assert!(near(found.rate, 60_000), "{found:?}");
    }

    #[test]
    fn a_path_that_carries_nothing_ends_the_search_too() {
        let found = highest_rate(BOUNDS, path(0, u64::MAX)).unwrap();
        assert!(found.loss > 0.9);
    }

    #[test]
    fn a_trial_that_fails_ends_the_search() {
        let failed = highest_rate(BOUNDS, |_, _| -> Result<Found> {
            anyhow::bail!("no such path")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no such path");
    }
}
