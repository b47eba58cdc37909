//! The phases of the window, each with what belongs to it.

use super::competition::Competition;
use super::drain::{Cause, Drain, Interrupted};

/// How long a delay must be high to count, in microseconds of the receiver: a host that paused shows many packets of
/// one moment. ADR 0010.
const DELAY_PERSISTENCE: u32 = 10_000;
/// The same where the window was not all used, in microseconds. Chosen.
const DELAY_PERSISTENCE_UNUSED: u32 = 40_000;

/// Since when the queueing delay has been above its target, by the receiver's clock.
#[derive(Debug, Default)]
pub(crate) struct HighDelay {
    since: Option<u32>,
}

impl HighDelay {
    /// The delay is not high, or does not count.
    pub(crate) fn clear(&mut self) {
        self.since = None;
    }

    /// The delay is high at `time`; whether it has been for long enough.
    pub(crate) fn persists(&mut self, time: u32, for_at_least: u32) -> bool {
        time.wrapping_sub(*self.since.get_or_insert(time)) >= for_at_least
    }
}

/// What the window does.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Doubles in a round trip (slow start, RFC 9002 7.3.1), until there is a queue or loss.
    Start(HighDelay),
    /// Grows by ever longer steps, until a queue of the target stands or more gets lost than before.
    ProbeUp(HighDelay),
    /// Is held down to see whose queue or loss it was.
    Drain(Drain),
    /// Does as CUBIC does, because somebody else fills the queue.
    Compete(Competition),
}

impl Phase {
    /// Whether the window doubles in a round trip.
    pub(crate) fn is_slow_start(&self) -> bool {
        match self {
            Self::Start(_) => true,
            Self::Compete(competition) => competition.is_slow_start(),
            Self::ProbeUp(_) | Self::Drain(_) => false,
        }
    }

    /// Whether this phase says that a queue stands.
    pub(crate) fn has_queue(&self) -> bool {
        match self {
            Self::Drain(drain) => matches!(drain.cause, Cause::Queue),
            Self::Compete(_) => true,
            Self::Start(_) | Self::ProbeUp(_) => false,
        }
    }

    /// A cut ends slow start.
    pub(crate) fn end_slow_start(&mut self) {
        match self {
            Self::Start(high) => *self = Self::ProbeUp(std::mem::take(high)),
            Self::Compete(competition) => competition.end_slow_start(),
            Self::ProbeUp(_) | Self::Drain(_) => {}
        }
    }

    /// No feedback came: slow start, from a smaller window. A sender that competed still does.
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

    /// What a drain interrupts; none: there is one already.
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

    /// How long a delay must stay high to count, in microseconds, of a path with a round trip of `trip` microseconds.
    pub(crate) fn delay_persistence(&self, is_limited: bool, trip: i64) -> u32 {
        match (is_limited, self.is_slow_start()) {
            (false, _) => DELAY_PERSISTENCE_UNUSED,
            (true, false) => DELAY_PERSISTENCE,
            // a first flight is a queue by itself
            (true, true) => DELAY_PERSISTENCE.max((trip / 4).clamp(0, 1 << 20) as u32),
        }
    }
}

impl Default for Phase {
    fn default() -> Self {
        Self::Start(HighDelay::default())
    }
}
