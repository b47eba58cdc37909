//! The send times of a caster.

use std::time::{Duration, Instant};

/// Delay of a frame above which the caster has paused.
const PAUSE: Duration = Duration::from_millis(200);
/// Most that device clocks are ahead, so that sound does not pile up. Listeners follow 500 ppm.
pub const LIVE_PPM: f64 = 200.0;

/// The pace of a source: by this host's clock, or by the source's own for live sound.
#[derive(Debug)]
pub struct Pace {
    is_live: bool,
    due: Instant,
    /// A frame was due but missing.
    is_starved: bool,
}

impl Pace {
    /// Makes the first frame due now.
    pub fn new(is_live: bool, now: Instant) -> Self {
        Self {
            is_live,
            due: now,
            is_starved: false,
        }
    }

    /// Returns when the next frame is due. None: when it arrives.
    pub fn due(&self) -> Option<Instant> {
        (!self.is_starved).then_some(self.due)
    }

    /// Notes that a due frame is missing.
    pub fn starve(&mut self) {
        self.is_starved = true;
    }

    /// Sends a frame of this length now; returns the length of a pause before it, if any.
    pub fn send(&mut self, length: Duration, now: Instant) -> Option<Duration> {
        let behind = now.saturating_duration_since(self.due);
        let is_starved = std::mem::take(&mut self.is_starved);
        let has_paused = behind > PAUSE;
        // later live sound has a slower clock, or comes in larger pieces
        if has_paused || is_starved && self.is_live {
            self.due = now;
        }
        self.due += match self.is_live {
            true => length.div_f64(1.0 + LIVE_PPM / 1e6),
            false => length,
        };
        has_paused.then_some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    /// Returns the longest delay behind a live source, and the number of pauses, in an hour.
    fn hour(ppm: f64, frames_at_once: u32) -> (Duration, u32) {
        let begun = Instant::now();
        let mut pace = Pace::new(true, begun);
        let (mut longest, mut pauses) = (Duration::ZERO, 0);
        for frame in 0..180_000_u32 {
            // its piece arrives when all of it was made
            let made = (frame / frames_at_once + 1) * frames_at_once;
            let comes = begun + (FRAME * made).div_f64(1.0 + ppm / 1e6);
            let sent = pace.due().unwrap().max(comes);
            if comes > pace.due().unwrap() {
                pace.starve();
                assert_eq!(pace.due(), None);
            }
            pauses += u32::from(pace.send(FRAME, sent).is_some());
            longest = longest.max(sent - comes);
        }
        (longest, pauses)
    }

    #[test]
    fn live_sound_is_sent_as_it_is_made_by_any_clock_and_never_pauses() {
        for ppm in [-100.0, 0.0, 100.0] {
            // arecord gives 125 ms at once
            for frames_at_once in [1, 6] {
                let (longest, pauses) = hour(ppm, frames_at_once);
                assert_eq!(pauses, 0, "{ppm} ppm, {frames_at_once} at once");
                let most = FRAME * frames_at_once + Duration::from_millis(1);
                assert!(longest <= most, "{ppm} ppm, {frames_at_once}: {longest:?}");
            }
        }
    }

    #[test]
    fn a_file_keeps_this_hosts_time_and_what_was_not_there_is_a_pause() {
        let begun = Instant::now();
        let mut pace = Pace::new(false, begun);
        for frame in 0..1_000 {
            assert_eq!(pace.due(), Some(begun + FRAME * frame));
            // as late as a busy host wakes
            let now = begun + FRAME * frame + Duration::from_millis(1);
            assert_eq!(pace.send(FRAME, now), None);
        }
        let late = Duration::from_secs(3);
        pace.starve();
        let now = begun + FRAME * 1_000 + late;
        assert_eq!(pace.send(FRAME, now), Some(late));
        assert_eq!(pace.due(), Some(now + FRAME));
    }
}
