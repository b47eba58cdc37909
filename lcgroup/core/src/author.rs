//! A reader's state of another member.

use std::collections::BTreeSet;

use crate::MAX_MESSAGES;
use crate::body::Assembly;

/// Ids of void messages that a reader keeps for each author, to show each message once.
const MAX_EARLY: usize = MAX_MESSAGES as usize;

/// The report that a message needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    /// It was not shown before.
    Message,
    /// It was shown in an earlier epoch, where it did not count.
    SaidAgain,
    /// It was shown in this epoch.
    Nothing,
}

/// A reader's state of another member.
#[derive(Debug, Default)]
pub(crate) struct Author {
    /// Number of the last entry that was read.
    pub read: u32,
    pub assembly: Option<Assembly>,
    /// First number of the last message that was displaced; 0 if none was in this epoch.
    pub displaced: u32,
    /// Messages in this epoch, and their bytes.
    pub messages: u32,
    pub bytes: u64,
    /// Messages that were shown in this epoch: number of the last entry, id.
    pub shown: Vec<(u32, u64)>,
    /// Ids of messages that were shown and became void later: each comes once more.
    pub early: Vec<u64>,
    /// When the owner last accepted an urgent refresh of this author (ms since 1970).
    pub urgent: u64,
    /// Until when its many messages have used up commits of their own (ms since 1970).
    pub forced: u64,
}

impl Author {
    pub fn joined_at(head: u32) -> Self {
        Self {
            read: head,
            ..Self::default()
        }
    }

    /// The number after which the log is read again after a restart.
    pub fn durable(&self) -> u32 {
        self.assembly
            .as_ref()
            .map_or(self.read, |open| open.first - 1)
    }

    /// Gives up the open message: it is read again from its first part.
    pub fn displace(&mut self) {
        if let Some(open) = self.assembly.take() {
            debug_assert!(
                (1..=self.read).contains(&open.first),
                "the first part of an open message was read"
            );
            (self.read, self.displaced) = (open.first - 1, open.first);
        }
    }

    /// Ends an epoch at `head`; returns ids of messages that were shown and do not count.
    pub fn close(&mut self, head: u32) -> Vec<u64> {
        (self.assembly, self.displaced) = (None, 0);
        (self.messages, self.bytes) = (0, 0);
        let shown = std::mem::take(&mut self.shown);
        let counts = shown.iter().filter(|(number, _)| *number <= head);
        let mut known: BTreeSet<u64> = counts.map(|(_, id)| *id).collect();
        let void = shown.into_iter().map(|(_, id)| id);
        let void: Vec<u64> = void.filter(|id| known.insert(*id)).collect();
        self.early.extend(&void);
        let excess = self.early.len().saturating_sub(MAX_EARLY);
        self.early.drain(..excess);
        debug_assert!(self.early.len() <= MAX_EARLY, "the oldest ids give way");
        void
    }

    /// Records a message; returns the report that it needs.
    pub fn hear(&mut self, number: u32, id: u64) -> Telling {
        let early = self.early.iter().position(|shown| *shown == id);
        let telling = if let Some(at) = early {
            self.early.remove(at);
            Telling::SaidAgain
        } else if self.shown.iter().any(|(_, shown)| *shown == id) {
            Telling::Nothing
        } else {
            Telling::Message
        };
        self.shown.push((number, id));
        telling
    }
}
