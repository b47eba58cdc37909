//! Competition with TCP in a full queue: the window grows and is cut as in CUBIC (RFC 9438).
//!
//! As in Copa, the sender competes until a drain shows that the queue has gone.

use librecast::time::{Duration, Instant};

use super::delay::PathDelay;
use super::window::GROWTH_STEP;

/// Queueing delay above which the window stops growing, in microseconds. From adr/packets.md.
pub(crate) const COMPETING_TARGET_DELAY: i64 = 150_000;
/// Queueing delay below which the window grows fast to its share, in microseconds. Chosen: three
/// times the target without competing flows.
const FAST_GROWTH_DELAY: i64 = 45_000;
/// Share of the window after loss. Chosen, near CUBIC's 0.7 (RFC 9438 4.6).
pub(crate) const BETA: f64 = 0.75;
/// `C`, in packets per second cubed (RFC 9438 4.6 and 5.1).
const CUBIC_C: f64 = 0.4;
/// Share of the window that fast convergence keeps as plateau: (1 + 0.7) / 2 (RFC 9438 4.7).
const FAST_CONVERGENCE: f64 = 0.85;
/// Time after a failed drain before this sender joins another sender's drain. Chosen.
const DRAIN_JOIN_INTERVAL: Duration = Duration::from_secs(1);

/// The window at a cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// `W_max`, in bytes: where growth is slowest.
    plateau: f64,
    at: Instant,
}

#[derive(Debug)]
pub(crate) struct Competition {
    /// Whether the window doubles per round trip, after a silence, until a cut or drain.
    slow_start: bool,
    /// `None` before the first loss.
    cut: Option<Cut>,
    /// The longest queueing delay since the last drain, in microseconds.
    longest_delay: i64,
    /// The sender joins no drain before this time.
    next_join: Instant,
}

impl Competition {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            slow_start: false,
            cut: None,
            longest_delay: 0,
            next_join: now + DRAIN_JOIN_INTERVAL,
        }
    }

    /// Whether the window doubles per round trip.
    pub(crate) fn is_slow_start(&self) -> bool {
        self.slow_start
    }

    pub(crate) fn begin_slow_start(&mut self) {
        self.slow_start = true;
    }

    pub(crate) fn end_slow_start(&mut self) {
        self.slow_start = false;
    }

    /// Notes the begin of a drain.
    pub(crate) fn interrupt(&mut self) {
        self.slow_start = false;
        self.longest_delay = 0;
    }

    /// Notes that a drain did not empty the queue.
    pub(crate) fn resume(&mut self, now: Instant) {
        self.next_join = now + DRAIN_JOIN_INTERVAL;
    }

    /// Whether a queueing delay of `delay` microseconds shows a drain of another sender, to join.
    pub(crate) fn joins_drain(&mut self, delay: i64, is_limited: bool, now: Instant) -> bool {
        self.longest_delay = self.longest_delay.max(delay);
        delay < self.longest_delay / 2 && is_limited && now >= self.next_join
    }

    /// Cuts a window of `window` bytes at loss, with fast convergence (RFC 9438 4.7).
    pub(crate) fn cut(&mut self, window: f64, now: Instant) {
        let is_below = self.cut.is_some_and(|cut| window < cut.plateau);
        let keeps = if is_below { FAST_CONVERGENCE } else { 1.0 };
        let plateau = window * keeps;
        self.cut = Some(Cut { plateau, at: now });
    }

    /// Returns the growth per round trip of a window of `window` bytes (RFC 9438 4.2):
    ///
    /// ```text
    /// W_cubic(t) = C * (t - K)^3 + W_max, K = cbrt(W_max * (1 - beta) / C)
    /// growth towards W_cubic(t + RTT)
    /// ```
    pub(crate) fn growth_step(&self, window: f64, delay: &PathDelay, now: Instant) -> f64 {
        if self.slow_start {
            return window;
        }
        if delay.queueing() > COMPETING_TARGET_DELAY {
            return 0.0;
        }
        let Some(Cut { plateau, at }) = self.cut else {
            // up to this flow's share: TCP would double
            let is_short = delay.queueing() < FAST_GROWTH_DELAY;
            return if is_short {
                GROWTH_STEP.max(window / 4.0)
            } else {
                GROWTH_STEP
            };
        };
        let trip = delay.rtt().unwrap_or_default();
        let t = (now.saturating_duration_since(at) + trip).as_secs_f64();
        let k = (plateau / GROWTH_STEP * (1.0 - BETA) / CUBIC_C).cbrt();
        let aim = plateau + CUBIC_C * GROWTH_STEP * (t - k).powi(3);
        (aim - window).clamp(GROWTH_STEP * 2.25, window.max(GROWTH_STEP * 5.0) / 2.0)
    }
}
