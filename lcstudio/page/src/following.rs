//! The groups of a track without entries in a page that attends, and its reader's pause.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use lcroute_web_page::Command;
use librecast::time::{Duration, Instant};

/// Silence of a sender, which sends each second, after which the page reports it.
const SILENCE: Duration = Duration::from_secs(10);

/// Joins groups, and leaves others; `groups` are the joined ones.
pub(crate) fn follow(
    groups: &mut Vec<Ipv6Addr>,
    wanted: Vec<Ipv6Addr>,
    commands: &mut VecDeque<Command>,
) {
    let left = groups.iter().filter(|group| !wanted.contains(group));
    commands.extend(left.copied().map(Command::Leave));
    let new = wanted.iter().filter(|group| !groups.contains(group));
    commands.extend(new.copied().map(Command::Join));
    *groups = wanted;
}

/// Joined groups, and the pause.
#[derive(Debug)]
pub(crate) struct Following {
    groups: Vec<Ipv6Addr>,
    /// Whether the reader wants nothing of it for a while.
    pub is_paused: bool,
    /// The end of the last pause.
    resumed_at: Option<Instant>,
    /// The time of the last call.
    pub now: Instant,
}

impl Following {
    pub fn new(now: Instant) -> Self {
        Self {
            groups: Vec::new(),
            is_paused: false,
            resumed_at: None,
            now,
        }
    }

    /// Joins wanted groups, and leaves others. A pause needs none.
    pub fn follow(
        &mut self,
        wanted: Vec<Ipv6Addr>,
        commands: &mut VecDeque<Command>,
        now: Instant,
    ) {
        let wanted = match self.is_paused {
            true => Vec::new(),
            false => wanted,
        };
        follow(&mut self.groups, wanted, commands);
        self.now = now;
    }

    /// Stands still, or continues.
    pub fn pause(&mut self, is_paused: bool, now: Instant) {
        self.is_paused = is_paused;
        // nothing could be received meanwhile
        self.resumed_at = Some(now);
    }

    /// Leaves all groups.
    pub fn leave(&mut self, commands: &mut VecDeque<Command>) {
        follow(&mut self.groups, Vec::new(), commands);
    }

    /// Whether packets of this group are its own.
    pub fn has_joined(&self, group: Ipv6Addr) -> bool {
        self.groups.contains(&group)
    }

    /// Whether nothing was received for a while; `heard_at`: the last packet, if any. What others
    /// send into its groups is not a sign of life.
    pub fn is_silent(&self, heard_at: Option<Instant>) -> bool {
        let heard_at = heard_at.map(|at| self.resumed_at.map_or(at, |resumed| at.max(resumed)));
        let is_silent = |at| self.now.saturating_duration_since(at) >= SILENCE;
        !self.is_paused && heard_at.is_some_and(is_silent)
    }
}
