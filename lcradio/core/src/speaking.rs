//! Who speaks, by the decoded sound: nothing of it is on the wire.

use crate::rtp::CLOCK_RATE;

/// Sound whose mean power is measured: 200 ms.
const BLOCK: u32 = CLOCK_RATE / 5;
/// The least level of speech, in dBFS. Chosen: rooms are 10 dB and more below.
const LEAST: f64 = -45.0;
/// Blocks below it after which somebody no longer speaks: 1 s, longer than between sentences.
const QUIET: u32 = 5;

/// Whether one participant speaks.
#[derive(Debug, Default)]
pub struct Speaking {
    power: f64,
    samples: u32,
    speaks: bool,
    quiet: u32,
}

impl Speaking {
    /// Adds sound of this mean power, 1 at full scale; returns whether somebody speaks, if that
    /// has changed.
    pub fn add(&mut self, power: f64, samples: u32) -> Option<bool> {
        self.power += power * f64::from(samples);
        self.samples = self.samples.saturating_add(samples);
        if self.samples < BLOCK {
            return None;
        }
        let is_loud = self.power / f64::from(self.samples) >= 10_f64.powf(LEAST / 10.0);
        (self.power, self.samples) = (0.0, 0);
        self.quiet = if is_loud { 0 } else { self.quiet + 1 };
        let speaks = is_loud || self.speaks && self.quiet < QUIET;
        let has_changed = std::mem::replace(&mut self.speaks, speaks) != speaks;
        has_changed.then_some(speaks)
    }

    /// Returns whether somebody speaks.
    pub fn speaks(&self) -> bool {
        self.speaks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_begins_at_once_and_ends_after_a_pause_and_noise_is_none() {
        let mut speaking = Speaking::default();
        let mut add = |dbfs: f64, ms: u32| -> Vec<bool> {
            let power = 10_f64.powf(dbfs / 10.0);
            (0..ms / 10)
                .filter_map(|_| speaking.add(power, 480))
                .collect()
        };
        assert!(add(-50.0, 5_000).is_empty());
        assert_eq!(add(-25.0, 400), [true]);
        assert!(add(-60.0, 600).is_empty(), "between two sentences");
        assert!(add(-25.0, 1_000).is_empty());
        assert_eq!(add(-60.0, 1_200), [false]);
        assert!(add(f64::NEG_INFINITY, 1_000).is_empty());
    }
}
