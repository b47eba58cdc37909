//! Messages that this person has not read, on any of its devices.

use std::collections::VecDeque;

use librecast::id::PeerId;

/// Unread messages that are counted: the last ones. Chosen.
const MAX_UNREAD: usize = 8_192;

/// A message of others: its place in the conversation, its author, and its last entry.
#[derive(Debug)]
struct Place {
    n: u64,
    author: PeerId,
    entry: u32,
}

/// Unread messages, by place.
#[derive(Debug, Default)]
pub struct Unread(VecDeque<Place>);

impl Unread {
    /// Counts a message, unless it is this person's own or from before: those have no entry.
    pub fn add(&mut self, n: u64, author: PeerId, entry: Option<u32>) {
        if let Some(entry) = entry {
            self.0.push_back(Place { n, author, entry });
        }
        if self.0.len() > MAX_UNREAD {
            self.0.pop_front();
        }
    }

    /// Forgets the last message, which was read before it came.
    pub fn forget_last(&mut self) {
        self.0.pop_back();
    }

    /// Keeps the messages for which `is_unread` holds, by author and entry.
    pub fn retain(&mut self, is_unread: impl Fn(&PeerId, u32) -> bool) {
        self.0.retain(|at| is_unread(&at.author, at.entry));
    }

    /// Authors and last entries of the messages up to place `n`.
    pub fn up_to(&self, n: u64) -> Vec<(PeerId, u32)> {
        let read = self.0.iter().take_while(|at| at.n <= n);
        read.map(|at| (at.author, at.entry)).collect()
    }

    /// The number of messages, and the first one's place.
    pub fn count(&self) -> (u64, Option<u64>) {
        (self.0.len() as u64, self.0.front().map(|at| at.n))
    }
}
