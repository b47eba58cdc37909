//! A reader's state of the owner's log.

use zeroize::Zeroizing;

use crate::body::{Assembly, Heads};

/// The last entry read, and the parts that wait.
#[derive(Debug, Default)]
pub(crate) struct OwnerLog {
    pub read: u32,
    pub assembly: Option<Assembly>,
    /// A commit that waits for entries of authors.
    pub commit: Option<WaitingCommit>,
    /// The last tree, kept for a joiner.
    pub tree: Option<Tree>,
}

/// A ratchet tree, sealed.
#[derive(Debug)]
pub(crate) struct Tree {
    pub first: u32,
    pub epoch: u64,
    pub bytes: Zeroizing<Vec<u8>>,
}

/// A commit, and the heads to read before it is applied.
#[derive(Debug)]
pub(crate) struct WaitingCommit {
    pub first: u32,
    /// When the owner made it, by its clock (ms since 1970).
    pub time: u64,
    pub heads: Heads,
    pub commit: Vec<u8>,
}

impl OwnerLog {
    /// The number after which the log is read again after a restart.
    pub fn durable(&self) -> u32 {
        let open = self.assembly.as_ref().map(|open| open.first);
        let commit = self.commit.as_ref().map(|commit| commit.first);
        let tree = self.tree.as_ref().map(|tree| tree.first);
        let first = [open, commit, tree].into_iter().flatten().min();
        debug_assert!(
            first.is_none_or(|first| (1..=self.read).contains(&first)),
            "parts that wait were read"
        );
        first.map_or(self.read, |first| first - 1)
    }
}
