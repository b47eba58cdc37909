//! What a reader knows of another member.

use crate::MAX_MESSAGES;
use crate::body::Assembly;

/// Ids of void messages that are remembered for each author, so that they are shown once.
const MAX_EARLY: usize = MAX_MESSAGES as usize;
/// What is known of another member.
#[derive(Debug, Default)]
pub(crate) struct Author {
    /// Number of the last entry that was read.
    pub read: u32,
    pub assembly: Option<Assembly>,
    /// Messages in this epoch, and their bytes.
    pub messages: u32,
    pub bytes: u64,
    /// Messages that were shown in this epoch: number of the last entry, id.
    pub shown: Vec<(u32, u64)>,
    /// Shown, and void by a commit that came later: they come once more.
    pub early: Vec<u64>,
    /// When the owner last took an urgent refresh of this author (ms since the epoch).
    pub urgent: u64,
}

impl Author {
    pub fn joined_at(head: u32) -> Self {
        Self {
            read: head,
            ..Self::default()
        }
    }

    /// The number after which the log is read again when memory is lost.
    pub fn durable(&self) -> u32 {
        self.assembly
            .as_ref()
            .map_or(self.read, |open| open.first - 1)
    }

    /// An epoch ended at `head`.
    pub fn close(&mut self, head: u32) {
        self.assembly = None;
        (self.messages, self.bytes) = (0, 0);
        let void = self.shown.drain(..).filter(|(number, _)| *number > head);
        self.early.extend(void.map(|(_, id)| id));
        let excess = self.early.len().saturating_sub(MAX_EARLY);
        self.early.drain(..excess);
    }

    /// Whether a message is to be shown: once.
    pub fn is_new(&mut self, number: u32, id: u64) -> bool {
        let early = self.early.iter().position(|shown| *shown == id);
        let known = early.map(|at| self.early.swap_remove(at)).is_some()
            || self.shown.iter().any(|(_, shown)| *shown == id);
        self.shown.push((number, id));
        !known
    }
}
