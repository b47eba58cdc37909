//! How long messages wait in this host, over all links: queued bytes by the bytes a second that
//! leave.
//!
//! A sum over all links, so that one slow peer, whose queue is short in bytes, has little effect.

use std::collections::BTreeSet;

use librecast::time::{Duration, Instant};

/// Time over which the rate is measured, in slots.
const SLOT: Duration = Duration::from_millis(25);
const SLOTS: usize = 8;
/// Least time over which it is measured after a pause. Chosen: two slots.
const LEAST: Duration = Duration::from_millis(50);
/// No rate is below, in bytes a second. Chosen: 1 Mbit/s.
const LEAST_RATE: f64 = 125_000.0;

#[derive(Debug)]
pub(crate) struct Uplink {
    /// Connections whose lanes have queued messages since the last look.
    holding: BTreeSet<usize>,
    /// Bytes sent by slot, and the number of the last one.
    sent: [u64; SLOTS],
    slot: u64,
    start: Instant,
    /// When bytes left first after a pause.
    since: Instant,
}

impl Uplink {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            holding: BTreeSet::new(),
            sent: [0; SLOTS],
            slot: 0,
            start: now,
            since: now,
        }
    }

    /// Notes that the lane of this connection queues messages.
    pub(crate) fn queues(&mut self, connection: usize) {
        self.holding.insert(connection);
    }

    /// Notes bytes of all lanes that leave.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        if bytes == 0 {
            return;
        }
        self.turn(now);
        if self.sent.iter().all(|sent| *sent == 0) {
            self.since = now;
        }
        if let Some(sent) = self.sent.get_mut(self.slot as usize % SLOTS) {
            *sent += bytes as u64;
        }
    }

    /// Returns how long messages wait; `queued` returns the bytes that wait in a connection's lane,
    /// or `None` where it is empty or gone.
    pub(crate) fn wait(
        &mut self,
        queued: impl Fn(usize) -> Option<usize>,
        now: Instant,
    ) -> Duration {
        let mut all = 0;
        self.holding.retain(|connection| {
            let bytes = queued(*connection);
            all += bytes.unwrap_or(0);
            bytes.is_some()
        });
        if all == 0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(all as f64 / self.rate(now))
    }

    /// Returns the bytes a second that left.
    fn rate(&mut self, now: Instant) -> f64 {
        self.turn(now);
        let whole = SLOT * SLOTS as u32;
        let elapsed = now.saturating_duration_since(self.since);
        let elapsed = elapsed.clamp(LEAST, whole).as_secs_f64();
        let sent: u64 = self.sent.iter().sum();
        (sent as f64 / elapsed).max(LEAST_RATE)
    }

    /// Empties slots whose time is over.
    fn turn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start);
        let slot = u64::try_from(elapsed.as_millis() / SLOT.as_millis()).unwrap_or(u64::MAX);
        for passed in 1..=slot.saturating_sub(self.slot).min(SLOTS as u64) {
            let place = (self.slot + passed) as usize % SLOTS;
            if let Some(sent) = self.sent.get_mut(place) {
                *sent = 0;
            }
        }
        self.slot = self.slot.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_wait_is_what_all_queues_hold_by_what_leaves() {
        let start = Instant::now();
        let mut uplink = Uplink::new(start);
        assert_eq!(
            uplink.wait(|_| Some(1), start),
            Duration::ZERO,
            "none holds"
        );
        uplink.queues(3);
        uplink.queues(5);
        // 1 MB/s for long
        for n in 0..1_000 {
            uplink.sent(1_000, start + MS * n);
        }
        let now = start + MS * 1_000;
        let wait = uplink.wait(|n| Some(n * 1_000), now).as_secs_f64();
        assert!((0.007..0.010).contains(&wait), "{wait}");
        // one has gone
        let wait = uplink.wait(|n| (n == 3).then_some(3_000), now);
        assert!((MS * 2..MS * 4).contains(&wait), "{wait:?}");
        let again = uplink.wait(|_| Some(3_000), now);
        assert_eq!(again, wait, "and stays away");
        assert_eq!(uplink.wait(|_| None, now), Duration::ZERO);
    }

    #[test]
    fn after_a_pause_the_rate_is_that_of_now() {
        let start = Instant::now();
        let mut uplink = Uplink::new(start);
        uplink.sent(50_000_000, start);
        let later = start + MS * 5_000;
        for n in 0..60 {
            uplink.sent(1_000, later + MS * n);
        }
        uplink.queues(1);
        let wait = uplink.wait(|_| Some(10_000), later + MS * 60);
        assert!((MS * 9..MS * 12).contains(&wait), "{wait:?}");
        // nothing has left for long
        let wait = uplink.wait(|_| Some(1_250), later + MS * 9_000);
        assert_eq!(wait, MS * 10);
    }
}
