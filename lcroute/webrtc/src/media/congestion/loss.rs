//! Loss: smoothed, for users and repair; the floor of it, which is not the sender's doing; and what comes beyond that.

use librecast::time::{Duration, Instant};

use super::round::Round;

/// Share of packets lost beyond the floor that may add up before a drain. Chosen.
const SLACK: f64 = 0.02;
/// Share of packets lost beyond the floor that ends the start phase at once. Chosen.
const SUDDEN_LOSS: f64 = 0.1;
/// Packets that a round has settled when a sudden loss counts. Chosen.
const SUDDEN_LOSS_PACKETS: u64 = 16;
/// Highest floor of random loss, a share of packets. Chosen: at more, a path is of no use.
const FLOOR_MAX: f64 = 0.4;
/// Packets that make a floor anew; fewer move it by their share. Chosen.
const FLOOR_PACKETS: f64 = 200.0;
/// How long loss starts no drain after it was found to be random. Chosen.
const RANDOM_LOSS_PAUSE: Duration = Duration::from_millis(500);

/// Loss of one direction of a link, as shares of packets.
#[derive(Debug)]
pub(crate) struct LossMeter {
    /// Over about a second.
    smoothed: Option<f64>,
    /// What gets lost without our doing.
    floor: f64,
    /// Packets lost beyond the floor, a cumulative sum (CUSUM).
    beyond: f64,
    /// Packets judged since that sum was nothing, and those of them that are lost.
    since_known: (u64, u64),
    /// Loss starts no drain before.
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

    /// Share of packets that do not arrive, smoothed over about a second.
    pub(crate) fn smoothed(&self) -> Option<f64> {
        self.smoothed
    }

    pub(crate) fn floor(&self) -> f64 {
        self.floor
    }

    /// A round of `took` microseconds is over: it moves the smoothed loss by its share of a second.
    pub(crate) fn end_round(&mut self, round: &Round, took: u32) {
        if round.settled == 0 {
            return;
        }
        let loss = round.loss();
        // a few packets, such as probes, tell little
        let certainty = (round.settled as f64 / SUDDEN_LOSS_PACKETS as f64).min(1.0);
        let weight = (f64::from(took) / 1e6).min(1.0) * certainty;
        self.smoothed = Some(
            self.smoothed
                .map_or(loss, |old| old + (loss - old) * weight),
        );
    }

    /// The share of loss once that beyond the floor has added up. A single round counts little, but in the start phase:
    /// bursts are not queues.
    pub(crate) fn new_loss(&mut self, round: &Round, is_start: bool, now: Instant) -> Option<f64> {
        let packets = round.settled as f64;
        let noise = self.floor * (1.0 - self.floor);
        let slack = SLACK + noise / 8.0;
        // what chance adds up to once in a great many packets
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

    /// Whether a round of a sender that competes lost more packets than the floor explains, three standard deviations.
    pub(crate) fn is_exceeded_by(&self, round: &Round) -> bool {
        let known = self.floor * round.settled as f64;
        round.newly_lost as f64 > known + 3.0 * known.sqrt()
    }

    /// Starts the sum beyond the floor anew.
    pub(crate) fn restart_sum(&mut self) {
        self.beyond = 0.0;
    }

    /// `share` of `packets` got lost while no queue stood: moves the floor.
    pub(crate) fn learn_floor(&mut self, share: f64, packets: u64) {
        let weight = (packets as f64 / FLOOR_PACKETS).min(1.0);
        self.floor = (self.floor + (share - self.floor) * weight).min(FLOOR_MAX);
    }

    /// `share` gets lost whatever the window is: that is the floor.
    pub(crate) fn set_floor(&mut self, share: f64, now: Instant) {
        self.floor = share.min(FLOOR_MAX);
        self.pause_end = now + RANDOM_LOSS_PAUSE;
    }
}
