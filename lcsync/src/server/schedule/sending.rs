//! A channel that is being sent, its progress, and the terms of its share.

use std::net::Ipv6Addr;

use librecast::bucket::TokenBucket;
use librecast::time::{Duration, Instant};

use super::need::Need;
use super::symbols::Position;
use crate::packet::WIRE_SIZE;
use crate::server::channel::Terms;
use crate::server::queue::Ticket;
use crate::server::reporters::Reporters;

/// Duration of a turn at the channel's rate.
const TURN: Duration = Duration::from_millis(7);
/// Most symbols of a turn: the kernel takes them in one send (64 KiB, GSO), sealed or not.
pub(super) const MAX_TURN: u32 = 56;

/// The rate of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) rate: u64,
    pub(super) symbol_time: Duration,
    /// Symbols of a turn.
    pub(super) turn: u32,
}

impl Pace {
    pub(super) fn new(rate: u64) -> Self {
        let symbol_time = Duration::from_nanos(WIRE_SIZE * 8 * 1_000_000_000 / rate.max(1));
        let turn = (TURN.as_nanos() / symbol_time.as_nanos().max(1)).clamp(1, u128::from(MAX_TURN));
        Self {
            rate,
            symbol_time,
            turn: turn as u32,
        }
    }
}

/// The terms of a share, and their use.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) terms: Terms,
    pub(super) bucket: Option<TokenBucket>,
    /// Bits per second of its bursts.
    pub(super) load: u64,
}

impl Kept {
    /// Whether its bursts exceed the limit by a tenth, so that they use all of it.
    pub(super) fn is_full(&self) -> bool {
        self.terms.limit.is_some_and(|l| self.load >= l + l / 10)
    }
}

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) symbols: u32,
    pub(super) layer: u8,
    pub(super) reporters: Reporters,
    pub(super) receivers: usize,
    pub(super) list: bool,
    pub(super) blocks: u32,
    pub(super) stage: Stage,
    pub(super) position: Position,
    pub(super) due: Instant,
    pub(super) evidence_at: Instant,
    pub(super) sent_on_evidence: u32,
    /// Symbols of its burst beyond K.
    pub(super) extra: u32,
    /// Ends of the burst and of the last runs after it, with the symbols sent by then.
    pub(super) pauses: [Option<(Instant, u32)>; 6],
    /// When the K-th symbol was sent, until the first member leaves.
    pub(super) whole_at: Option<Instant>,
    /// Symbols since the burst began, or since a JOIN after that.
    pub(super) sent_in_burst: u32,
    /// Symbols that the last member to join has missed; they wait for their turn.
    pub(super) owed: u32,
    /// Purpose of the present burst.
    pub(super) burst: Burst,
    /// The last member that joined to get a burst.
    pub(super) hopeful: Ipv6Addr,
    /// Virtual time before which it has no further turn.
    pub(super) next_turn: u64,
    /// Answers to queries since the burst began.
    pub(super) answers: u8,
}

/// Purpose of a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Burst {
    First,
    Again,
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its block has not come here yet.
    Awaited,
    Gathering {
        until: Instant,
    },
    Waiting {
        ticket: Ticket,
    },
    Burst {
        left: u32,
    },
    /// `run` symbols remain before the next pause.
    Trickle {
        left: u32,
        sent: u32,
        run: u32,
    },
    Asked {
        times: u8,
    },
}

impl Sending {
    /// Returns the symbols of its burst beyond K; more for lists, which all members need at once.
    pub(super) fn extra_of(&self, need: Need) -> u32 {
        if self.list && self.receivers > 1 {
            self.symbols.div_ceil(2)
        } else {
            need.burst(self.symbols)
        }
    }
}
