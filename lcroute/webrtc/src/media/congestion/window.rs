//! The congestion window: its bounds, and how it grows while nobody else fills the queue.

use librecast::time::{Duration, Instant};

/// Window of a new path, in bytes. Chosen: some 50 packets.
pub(crate) const FIRST_WINDOW: f64 = 65_536.0;
/// Least window, in bytes: two packets (RFC 9002 7.2).
pub(crate) const MIN_WINDOW: f64 = 3_000.0;
/// Greatest window, in bytes: 5 Gbit/s at 100 ms. Chosen.
pub(crate) const MAX_WINDOW: f64 = 67_108_864.0;
/// Growth of the window in a first round trip of probing up, in bytes: a packet.
pub(crate) const GROWTH_STEP: f64 = 1_200.0;
/// Seconds in which probing up gets steeper by a packet in a round trip. Chosen.
const GROWTH_PERIOD: f64 = 0.025;
/// How long the window at which loss was ours bounds the next ones. Chosen.
const CEILING_LIFETIME: Duration = Duration::from_secs(10);

/// How many bytes may be in flight.
#[derive(Debug)]
pub(crate) struct Window {
    bytes: f64,
    /// Since when it grows without a reason not to.
    growing_since: Instant,
    /// The window at which a short queue overflowed, and until when that counts.
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

    /// Growth begins anew, by small steps.
    pub(crate) fn restart_growth(&mut self, now: Instant) {
        self.growing_since = now;
    }

    /// What to grow by in a round trip: steps that are longer the longer all has gone well, and shorter as the queueing
    /// delay nears its target, of which `queue_share` is there.
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

    /// Grows by `step` bytes in a round trip, of which `passed` bytes have left the path, to `most` bytes.
    pub(crate) fn grow(&mut self, step: f64, passed: f64, most: f64) {
        let by = step.min(self.bytes) * passed / self.bytes;
        let most = FIRST_WINDOW.max(most).max(self.bytes);
        self.bytes = (self.bytes + by).min(most.min(MAX_WINDOW));
    }

    /// Sets the window to so many bytes, if that is less.
    pub(crate) fn shrink(&mut self, to: f64) {
        self.bytes = self.bytes.min(to).max(MIN_WINDOW);
    }

    /// No feedback came: half of the window is left.
    pub(crate) fn halve(&mut self) {
        self.bytes = (self.bytes / 2.0).max(MIN_WINDOW);
    }

    /// Sets the window to so many bytes, if that is more; to `most` at most.
    pub(crate) fn raise(&mut self, to: f64, most: f64) {
        self.bytes = to.max(self.bytes).clamp(MIN_WINDOW, most.max(MIN_WINDOW));
    }

    /// A short queue overflowed: about `bytes` would have fitted.
    pub(crate) fn set_ceiling(&mut self, bytes: f64, now: Instant) {
        self.ceiling = Some((bytes, now + CEILING_LIFETIME));
    }

    /// The path is another one.
    pub(crate) fn clear_ceiling(&mut self) {
        self.ceiling = None;
    }

    /// Near a window at which a short queue overflowed not long ago.
    fn is_near_ceiling(&self, now: Instant) -> bool {
        let near = |(ceiling, until): (f64, Instant)| {
            now < until && (ceiling * 0.9..ceiling * 1.2).contains(&self.bytes)
        };
        self.ceiling.is_some_and(near)
    }
}
