//! The phases of the window, with their state.

use super::competition::Competition;
use super::drain::{Cause, Drain, Interrupted};

/// Least time of a high delay, in microseconds at the receiver: ignores a host's pause. From
/// adr/packets.md.
const DELAY_PERSISTENCE: u32 = 10_000;
/// The same while the window was partly unused, in microseconds. Chosen.
const DELAY_PERSISTENCE_UNUSED: u32 = 40_000;

/// Time since when the queueing delay has been above its target, by the receiver's clock.
#[derive(Debug, Default)]
pub(crate) struct HighDelay {
    since: Option<u32>,
}

impl HighDelay {
    /// Notes a delay that is not high, or does not count.
    pub(crate) fn clear(&mut self) {
        self.since = None;
    }

    /// Notes a high delay at `time`; returns whether it has lasted long enough.
    pub(crate) fn persists(&mut self, time: u32, for_at_least: u32) -> bool {
        time.wrapping_sub(*self.since.get_or_insert(time)) >= for_at_least
    }
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// Doubles per round trip (slow start, RFC 9002 7.3.1), until a queue or loss appears.
    Start(HighDelay),
    /// Grows by ever longer steps, until the target queue stands or loss rises.
    ProbeUp(HighDelay),
    /// Is held down to find the cause of a queue or loss.
    Drain(Drain),
    /// Follows CUBIC, because another flow fills the queue.
    Compete(Competition),
}

impl Phase {
    /// Whether the window doubles per round trip.
    pub(crate) fn is_slow_start(&self) -> bool {
        match self {
            Self::Start(_) => true,
            Self::Compete(competition) => competition.is_slow_start(),
            Self::ProbeUp(_) | Self::Drain(_) => false,
        }
    }

    pub(crate) fn has_queue(&self) -> bool {
        match self {
            Self::Drain(drain) => matches!(drain.cause, Cause::Queue),
            Self::Compete(_) => true,
            Self::Start(_) | Self::ProbeUp(_) => false,
        }
    }

    pub(crate) fn end_slow_start(&mut self) {
        match self {
            Self::Start(high) => *self = Self::ProbeUp(std::mem::take(high)),
            Self::Compete(competition) => competition.end_slow_start(),
            Self::ProbeUp(_) | Self::Drain(_) => {}
        }
    }

    /// Begins slow start from a smaller window after a silence. A competing sender stays so.
    pub(crate) fn restart(&mut self) {
        let after = match std::mem::take(self) {
            Self::Start(high) | Self::ProbeUp(high) => Self::Start(high),
            Self::Compete(mut competition)
            | Self::Drain(Drain {
                interrupted: Interrupted::Compete(mut competition),
                ..
            }) => {
                competition.begin_slow_start();
                Self::Compete(competition)
            }
            Self::Drain(_) => Self::default(),
        };
        *self = after;
    }

    /// Returns the phase to be interrupted by a drain; `None` during a drain.
    pub(crate) fn interrupt(&mut self) -> Option<Interrupted> {
        match std::mem::take(self) {
            Self::Start(_) => Some(Interrupted::Start),
            Self::ProbeUp(_) => Some(Interrupted::ProbeUp),
            Self::Compete(mut competition) => {
                competition.interrupt();
                Some(Interrupted::Compete(competition))
            }
            drain @ Self::Drain(_) => {
                *self = drain;
                None
            }
        }
    }

    /// Returns the least time of a high delay; it and the round trip `trip` are in microseconds.
    pub(crate) fn delay_persistence(&self, is_limited: bool, trip: i64) -> u32 {
        match (is_limited, self.is_slow_start()) {
            (false, _) => DELAY_PERSISTENCE_UNUSED,
            (true, false) => DELAY_PERSISTENCE,
            // a first flight makes a queue by itself
            (true, true) => DELAY_PERSISTENCE.max((trip / 4).clamp(0, 1 << 20) as u32),
        }
    }
}

impl Default for Phase {
    fn default() -> Self {
        Self::Start(HighDelay::default())
    }
}
