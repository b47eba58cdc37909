//! A drain: for some rounds the window is below the path's own content, to test whether the queue
//! or the loss goes. As the states Drain and ProbeBW_DOWN of BBR.

use super::competition::Competition;
use super::path_model::PathModel;
use lcroute_lane::Report;

/// Queueing delay below which a queue counts as empty, in microseconds. Chosen: idle jitter.
pub(crate) const EMPTY_DELAY: i64 = 4_000;
/// Share of the path's own content that a drain leaves. Chosen: as BBR drains.
pub(crate) const DRAIN_GAIN: f64 = 0.85;
/// Share of the bytes in flight, less the lost ones, that a drain at loss leaves. Chosen.
pub(crate) const LOSS_DRAIN_GAIN: f64 = 0.9;
/// Expected losses among the packets that a drain at loss judges, if the loss stayed. Chosen.
const PROOF_LOSSES: f64 = 12.0;
/// Bound of rounds of a drain at delay. Chosen: one to empty the queue, one to measure it.
const DRAIN_ROUNDS_MAX: u32 = 2;
/// Bound of rounds of a drain at loss, until enough packets are settled. Chosen.
const LOSS_DRAIN_ROUNDS_MAX: u32 = 12;

/// Why a drain began.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cause {
    /// A queue stood.
    Queue,
    /// Loss beyond the floor: its share of packets.
    Loss(f64),
}

#[derive(Debug)]
pub(crate) enum Interrupted {
    Start,
    ProbeUp,
    Compete(Competition),
}

#[derive(Debug)]
pub(crate) struct Drain {
    pub(crate) cause: Cause,
    pub(crate) interrupted: Interrupted,
    /// The window before the drain, in bytes.
    pub(crate) window: f64,
    /// Arrival before the drain: bytes in a round trip of the path, and in a second.
    pub(crate) arrived: f64,
    pub(crate) rate: f64,
    /// The first packet that counts; totals when its judgement began, and the sums since then.
    first: u64,
    before: Option<(u64, u64)>,
    settled: u64,
    lost: u64,
    /// Number of judged packets that suffice.
    proof: u64,
    /// Rounds since the first such packet arrived, and whether the queue has been empty.
    rounds: u32,
    empty: bool,
}

impl Drain {
    /// Begins a drain at packet `first`, of a window of `window` bytes.
    pub(crate) fn new(
        cause: Cause,
        interrupted: Interrupted,
        window: f64,
        first: u64,
        path: &PathModel,
    ) -> Self {
        let loss = match cause {
            Cause::Queue => 1.0,
            Cause::Loss(share) => share,
        };
        Self {
            cause,
            interrupted,
            window,
            arrived: path.content(0) * (1.0 - path.loss.floor()),
            rate: path.rate.best(),
            first,
            before: None,
            settled: 0,
            lost: 0,
            proof: (PROOF_LOSSES / loss) as u64,
            rounds: 0,
            empty: false,
        }
    }

    /// Ends a round; `highest` is the highest packet that has arrived.
    pub(crate) fn end_round(&mut self, highest: Option<u64>) {
        self.rounds += u32::from(highest >= Some(self.first));
    }

    /// Handles a report, with the least queueing delay of its packets in microseconds; returns
    /// whether the drain is over.
    pub(crate) fn handle(&mut self, report: &Report, delay: Option<i64>) -> bool {
        if report.settled > self.first {
            let (settled, lost) = *self.before.get_or_insert((report.settled, report.lost));
            self.settled = report.settled.saturating_sub(settled);
            self.lost = report.lost.saturating_sub(lost);
        }
        if report.highest < self.first {
            return false;
        }
        self.empty |= delay.is_some_and(|delay| delay < EMPTY_DELAY);
        match self.cause {
            Cause::Loss(_) => self.settled >= self.proof || self.rounds >= LOSS_DRAIN_ROUNDS_MAX,
            Cause::Queue => self.empty || self.rounds >= DRAIN_ROUNDS_MAX,
        }
    }

    /// Whether the queue has been empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.empty
    }

    /// Returns the number of judged packets of the drain.
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// Returns the lost share of them.
    pub(crate) fn share(&self) -> f64 {
        self.lost as f64 / self.settled.max(1) as f64
    }
}
