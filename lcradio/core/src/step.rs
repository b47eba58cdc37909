//! Playout in step: which sample sounds when, by the caster's clock.
//!
//! ```text
//! nothing -> set: silence until the first sample's time, exactly -> held: +-500 ppm
//! held: 0.5 ms off after 1, 2 and 4 s, 1 ms after 10 s, or 5 ms at any time -> set again
//! ```

use librecast::time::{Duration, Instant};

use crate::clock::seconds_between;
use crate::follow::Aim;
use crate::rtp::CLOCK_RATE;

/// Time constant of the error's average, in seconds: more than a device's figures vary.
const AVERAGE: f64 = 0.5;
/// Time in which an error is removed, in seconds. Resampling by 500 ppm removes 0.5 ms/s.
const REMOVED: f64 = 2.0;
/// Most that the player's clock differs from this host's, as a ratio.
const MAX_DRIFT: f64 = 300e-6;
/// Largest error in seconds that resampling removes, soon after it was set and later. Chosen: a
/// device that varies is set again each 10 s at most, unless it varies much.
const MAX_ERROR: f64 = 0.005;
const MAX_LATER: f64 = 0.001;
const LATER: Duration = Duration::from_secs(10);
/// Largest error in seconds from which the player's drift is learned: more is not drift.
const MAX_LEARNED: f64 = 0.000_5;
/// Largest error when it is checked after the first set: clock and device are known better then.
const MAX_EARLY: f64 = 0.000_5;
/// Times of the checks after the first set.
const CHECKS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The state of playout in step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepState {
    /// The first sample was set.
    pub is_set: bool,
    /// This host needs more than the caster's delay, and does not play in step.
    pub is_behind: bool,
    /// Average error in seconds: how late the sound is.
    pub error: f64,
    /// Delay between the caster and the loudspeakers, by the caster's choice.
    pub play_after: Duration,
    /// The delay that this host needs.
    pub needed: Duration,
}

/// The position of a playout against the caster's clock.
#[derive(Debug)]
pub(crate) struct Step {
    pub aim: Aim,
    /// Time between the request of a frame and its sound.
    pub lead: Duration,
    /// The position was set.
    pub is_set: bool,
    /// First set, and checks since.
    first_set: Option<(Instant, usize)>,
    set_at: Option<Instant>,
    /// Average error in seconds; positive: the sound is late.
    error: f64,
    /// The player's clock, as a ratio: the caster's pace is not in it.
    drift: f64,
    looked_at: Option<Instant>,
}

impl Step {
    pub(crate) fn new(aim: Aim, lead: Duration) -> Self {
        Self {
            aim,
            lead,
            is_set: false,
            first_set: None,
            set_at: None,
            error: 0.0,
            drift: 0.0,
            looked_at: None,
        }
    }

    pub(crate) fn error(&self) -> f64 {
        self.error
    }

    /// Notes that the sample that sounds at `at` was set.
    pub(crate) fn set(&mut self, at: Instant) {
        self.first_set.get_or_insert((at, 0));
        self.is_set = true;
        self.set_at = Some(at);
        (self.error, self.looked_at) = (0.0, Some(at));
    }

    /// Notes by how many samples the position is late; false if it must be set again.
    pub(crate) fn hold(&mut self, late: f64, at: Instant) -> bool {
        let late = late / f64::from(CLOCK_RATE);
        let passed = self.looked_at.replace(at);
        let passed = passed.map_or(0.0, |before| seconds_between(at, before).max(0.0));
        self.error += (late - self.error) * (passed / AVERAGE).min(1.0);
        // a loop of second order, damped critically
        if self.error.abs() <= MAX_LEARNED {
            self.drift += self.error * passed / (4.0 * REMOVED * REMOVED);
            self.drift = self.drift.clamp(-MAX_DRIFT, MAX_DRIFT);
        }
        let lately = |set| at.saturating_duration_since(set) < LATER;
        let mut limit = match self.set_at.is_some_and(lately) {
            true => MAX_ERROR,
            false => MAX_LATER,
        };
        if let Some((first, checks)) = &mut self.first_set
            && let Some(check) = CHECKS.get(*checks)
            && at.saturating_duration_since(*first) >= *check
        {
            *checks += 1;
            limit = MAX_EARLY;
        }
        self.error.abs() <= limit
    }

    pub(crate) fn ppm(&self) -> f64 {
        self.aim.ppm() + (self.error / REMOVED + self.drift) * 1e6
    }
}
