//! Loss: smoothed, for users and repair; its floor, independent of the sender; and new loss.

use librecast::time::{Duration, Instant};

use super::round::Round;

/// Share of packets lost above the floor without effect: the slack of the sum (CUSUM). Chosen.
const SLACK: f64 = 0.02;
/// Share of packets lost beyond the floor that ends the start phase at once. Chosen.
const SUDDEN_LOSS: f64 = 0.1;
/// Packets settled in a round before sudden loss counts. Chosen.
const SUDDEN_LOSS_PACKETS: u64 = 16;
/// Highest floor of random loss, a share of packets. Chosen: at more, a path is of no use.
const FLOOR_MAX: f64 = 0.4;
/// Packets that replace the floor; fewer move it by their share. Chosen.
const FLOOR_PACKETS: f64 = 200.0;
/// Time without drains at loss after loss was found to be random. Chosen.
const RANDOM_LOSS_PAUSE: Duration = Duration::from_millis(500);

/// Loss of one direction of a link, as shares of packets.
#[derive(Debug)]
pub(crate) struct LossMeter {
    /// Smoothed over about a second.
    smoothed: Option<f64>,
    /// Share of loss that does not depend on the window.
    floor: f64,
    /// Packets lost beyond the floor, a cumulative sum (CUSUM).
    beyond: f64,
    /// Packets judged since that sum was 0, and those lost.
    since_known: (u64, u64),
    /// Loss starts no drain before this time.
    pause_end: Instant,
}

impl LossMeter {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            smoothed: None,
            floor: 0.0,
            beyond: 0.0,
            since_known: (0, 0),
            pause_end: now,
        }
    }

    /// Returns the share of packets lost, smoothed over about a second.
    pub(crate) fn smoothed(&self) -> Option<f64> {
        self.smoothed
    }

    pub(crate) fn floor(&self) -> f64 {
        self.floor
    }

    /// Ends a round of `took` microseconds, which weighs by its share of a second.
    pub(crate) fn end_round(&mut self, round: &Round, took: u32) {
        if round.settled == 0 {
            return;
        }
        let loss = round.loss();
        // few packets, such as probes, are weak evidence
        let certainty = (round.settled as f64 / SUDDEN_LOSS_PACKETS as f64).min(1.0);
        let weight = (f64::from(took) / 1e6).min(1.0) * certainty;
        self.smoothed = Some(
            self.smoothed
                .map_or(loss, |old| old + (loss - old) * weight),
        );
    }

    /// Returns the share of loss once loss above the floor has added up. A single round counts
    /// little except in the start phase: bursts are not queues.
    pub(crate) fn new_loss(&mut self, round: &Round, is_start: bool, now: Instant) -> Option<f64> {
        let packets = round.settled as f64;
        let noise = self.floor * (1.0 - self.floor);
        let slack = SLACK + noise / 8.0;
        // chance reaches this sum once in very many packets
        let much = 3.0 + 5.0 * noise / slack;
        let more = round.lost as f64 - packets * (self.floor + slack);
        self.beyond = (self.beyond + more.min(much * 0.7)).max(0.0);
        let (settled, lost) = &mut self.since_known;
        if self.beyond == 0.0 {
            (*settled, *lost) = (0, 0);
        } else {
            (*settled, *lost) = (*settled + round.settled, *lost + round.lost);
        }
        let share = *lost as f64 / (*settled).max(1) as f64;
        let sudden = more > packets * SUDDEN_LOSS && round.settled >= SUDDEN_LOSS_PACKETS;
        let new = self.beyond > much || sudden && is_start;
        (new && now >= self.pause_end).then_some(share)
    }

    /// Whether a round of a competing sender lost more than the floor by three standard deviations.
    pub(crate) fn is_exceeded_by(&self, round: &Round) -> bool {
        let known = self.floor * round.settled as f64;
        round.newly_lost as f64 > known + 3.0 * known.sqrt()
    }

    pub(crate) fn restart_sum(&mut self) {
        self.beyond = 0.0;
    }

    /// Moves the floor: `share` of `packets` got lost without a queue.
    pub(crate) fn learn_floor(&mut self, share: f64, packets: u64) {
        let weight = (packets as f64 / FLOOR_PACKETS).min(1.0);
        self.floor = (self.floor + (share - self.floor) * weight).min(FLOOR_MAX);
    }

    /// Sets the floor to the `share` that gets lost at any window.
    pub(crate) fn set_floor(&mut self, share: f64, now: Instant) {
        self.floor = share.min(FLOOR_MAX);
        self.pause_end = now + RANDOM_LOSS_PAUSE;
    }
}
