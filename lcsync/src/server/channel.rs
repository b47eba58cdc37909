//! Channels, what the schedule is told of them, and what it says.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::reporters::Reporters;

/// A group on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// Index of the interface.
    pub interface: u32,
    /// The group.
    pub group: Ipv6Addr,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Bits per second of each channel, IP headers included.
    pub channel: u64,
    /// The same for channels of the slow layer.
    pub slow: u64,
    /// The same for stretches, if any are sent.
    pub stretch: Option<u64>,
    /// Bits per second over all channels.
    pub total: Option<u64>,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these symbols of the channel's block.
    Symbols {
        /// Where.
        channel: Channel,
        /// Sequence number of the first; the others follow.
        sequence: u32,
        /// Encoding symbol ids.
        ids: Vec<u32>,
    },
    /// Send a group-specific query: is anybody still there?
    Ask {
        /// Where.
        channel: Channel,
    },
}

/// What is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Symbols of the block, or of all blocks of the stretch.
    pub symbols: u32,
    /// 0: at the normal rate, 1: slowly, 2: repair symbols, 3: a stretch.
    pub layer: u8,
    /// The number of the symbol that a stretch begins with.
    pub start: u32,
    /// Its blocks: one, but for a stretch.
    pub blocks: u32,
    /// Hosts that are there and may want it, as far as is known.
    pub receivers: usize,
    /// It tells of other blocks.
    pub list: bool,
}

/// What holds for all channels of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// Bits per second over all of them.
    pub limit: Option<u64>,
    /// Whether packets are sealed, and so longer.
    pub sealed: bool,
}

/// A block that will be sent, or is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upcoming {
    /// Its group.
    pub group: Ipv6Addr,
    /// Symbols that will come without a further JOIN.
    pub left: u32,
    /// Not all have joined who are there.
    pub missed: bool,
}

/// How far a joined channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// Others may still join before it begins.
    Gathering,
    /// In the queue.
    Waiting,
    /// At full rate.
    Sending,
    /// All was sent; a little more, for who lost some.
    Trickling,
    /// Is anybody still there?
    Asked,
}

impl Progress {
    /// As users read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gathering => "gathering",
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Trickling => "trickling",
            Self::Asked => "asked",
        }
    }
}

/// A channel that has been joined.
#[derive(Debug)]
pub struct Joined<'a> {
    /// Where.
    pub channel: Channel,
    /// How far it is.
    pub progress: Progress,
    /// Symbols of its block.
    pub symbols: u32,
    /// Who has joined.
    pub reporters: &'a Reporters,
}

/// Symbols sent since the start, by what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// In the burst of a block that nobody had joined for some seconds.
    pub first: u64,
    /// In further bursts, for who joined when the first was over.
    pub again: u64,
    /// For who joined while a burst was going on.
    pub late: u64,
    /// After bursts, for who needed more.
    pub trickle: u64,
}

impl Sent {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.first + self.again + self.late + self.trickle
    }
}
