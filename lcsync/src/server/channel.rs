//! Channels, and the input and output of the schedule.

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

/// Rates of channels.
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

/// An action for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these symbols of the channel.
    Symbols {
        /// The channel.
        channel: Channel,
        /// Sequence number of the first; the rest follow.
        sequence: u32,
        /// Encoding symbol ids.
        ids: Vec<u32>,
    },
    /// Send a group-specific query for remaining members.
    Ask {
        /// The channel.
        channel: Channel,
    },
}

/// A joined block or stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Symbols of the block, or of all blocks of the stretch.
    pub symbols: u32,
    /// 0: at the normal rate, 1: slowly, 2: repair symbols, 3: a stretch.
    pub layer: u8,
    /// First symbol of a stretch.
    pub start: u32,
    /// Its blocks; one without stretch.
    pub blocks: u32,
    /// Known receivers that may want it.
    pub receivers: usize,
    /// It lists other blocks.
    pub list: bool,
    /// It has not come here yet: its members wait.
    pub absent: bool,
}

/// Limit and sealing of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// Bits per second over all its channels.
    pub limit: Option<u64>,
    /// Whether packets are sealed, and so longer.
    pub sealed: bool,
}

/// A block that is sent, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upcoming {
    /// Its group.
    pub group: Ipv6Addr,
    /// Symbols to come without a further JOIN.
    pub left: u32,
    /// Not all present receivers have joined it.
    pub missed: bool,
}

/// Progress of a joined channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    /// The block has not come here yet.
    Awaited,
    /// Waits for more JOINs before it begins.
    Gathering,
    /// In the queue.
    Waiting,
    /// At full rate.
    Sending,
    /// Sends a few more symbols after the burst, for members with losses.
    Trickling,
    /// Waits for an answer to a query.
    Asked,
}

impl Progress {
    /// Name for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Awaited => "awaited",
            Self::Gathering => "gathering",
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Trickling => "trickling",
            Self::Asked => "asked",
        }
    }
}

/// A joined channel.
#[derive(Debug)]
pub struct Joined<'a> {
    /// The channel.
    pub channel: Channel,
    /// Its progress.
    pub progress: Progress,
    /// Symbols of its block.
    pub symbols: u32,
    /// Its members.
    pub reporters: &'a Reporters,
}

/// Symbols sent since the start, by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// In the burst of a block without members for some seconds.
    pub first: u64,
    /// In further bursts, for JOINs after the first.
    pub again: u64,
    /// For JOINs during a burst.
    pub late: u64,
    /// After bursts, for members that needed more.
    pub trickle: u64,
}

impl Sent {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.first + self.again + self.late + self.trickle
    }
}
