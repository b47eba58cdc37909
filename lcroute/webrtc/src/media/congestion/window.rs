//! The congestion window: its bounds, and its growth while no other flow fills the queue.

use librecast::time::{Duration, Instant};

/// Window of a new path, in bytes. Chosen: about 50 packets.
pub(crate) const FIRST_WINDOW: f64 = 65_536.0;
/// Least window, in bytes: two packets (RFC 9002 7.2).
pub(crate) const MIN_WINDOW: f64 = 3_000.0;
/// Greatest window, in bytes: 5 Gbit/s at 100 ms. Chosen.
pub(crate) const MAX_WINDOW: f64 = 67_108_864.0;
/// Growth in the first round trip of probing up, in bytes: a packet.
pub(crate) const GROWTH_STEP: f64 = 1_200.0;
/// Time in seconds after which probing up grows by one more packet per round trip. Chosen.
const GROWTH_PERIOD: f64 = 0.025;
/// Time for which the window of an overflowed queue bounds later ones. Chosen.
const CEILING_LIFETIME: Duration = Duration::from_secs(10);

/// The window, in bytes.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: f64,
    /// Begin of the current growth.
    growing_since: Instant,
    /// Window that overflowed a short queue, and end of its validity.
    ceiling: Option<(f64, Instant)>,
}

impl Window {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            bytes: FIRST_WINDOW,
            growing_since: now,
            ceiling: None,
        }
    }

    pub(crate) fn bytes(&self) -> f64 {
        self.bytes
    }

    pub(crate) fn restart_growth(&mut self, now: Instant) {
        self.growing_since = now;
    }

    /// Returns the growth per round trip. It rises with time, and falls as the queueing delay nears
    /// its target, of which it is `queue_share`.
    pub(crate) fn growth_step(&self, queue_share: f64, now: Instant) -> f64 {
        if self.is_near_ceiling(now) {
            return GROWTH_STEP;
        }
        let grown_for = now.saturating_duration_since(self.growing_since);
        let rounds = grown_for.as_secs_f64() / GROWTH_PERIOD;
        let left = 1.0 - queue_share;
        let step = GROWTH_STEP * (1.0 + rounds + rounds * rounds / 32.0);
        step.min(self.bytes / 5.0).max(GROWTH_STEP) * left.max(0.25)
    }

    /// Grows by `step` bytes per round trip, of which `passed` have left the path, up to `most`.
    pub(crate) fn grow(&mut self, step: f64, passed: f64, most: f64) {
        let by = step.min(self.bytes) * passed / self.bytes;
        let most = FIRST_WINDOW.max(most).max(self.bytes);
        self.bytes = (self.bytes + by).min(most.min(MAX_WINDOW));
    }

    /// Sets the window to `to` bytes, if that is less.
    pub(crate) fn shrink(&mut self, to: f64) {
        self.bytes = self.bytes.min(to).max(MIN_WINDOW);
    }

    pub(crate) fn halve(&mut self) {
        self.bytes = (self.bytes / 2.0).max(MIN_WINDOW);
    }

    /// Sets the window to `to` bytes, if that is more; to `most` at most.
    pub(crate) fn raise(&mut self, to: f64, most: f64) {
        self.bytes = to.max(self.bytes).clamp(MIN_WINDOW, most.max(MIN_WINDOW));
    }

    /// Notes that a short queue overflowed: about `bytes` would have fitted.
    pub(crate) fn set_ceiling(&mut self, bytes: f64, now: Instant) {
        self.ceiling = Some((bytes, now + CEILING_LIFETIME));
    }

    pub(crate) fn clear_ceiling(&mut self) {
        self.ceiling = None;
    }

    /// Whether the window is near one that recently overflowed a short queue.
    fn is_near_ceiling(&self, now: Instant) -> bool {
        let near = |(ceiling, until): (f64, Instant)| {
            now < until && (ceiling * 0.9..ceiling * 1.2).contains(&self.bytes)
        };
        self.ceiling.is_some_and(near)
    }
}
