//! What this participant says and asks for.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use crate::invitation::Invitation;
use crate::mls::OwnKeyPackage;

/// Something that this member says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub id: u64,
    pub content: Zeroizing<Vec<u8>>,
    /// Number of its last entry; 0 until it is sealed.
    pub last: u32,
}

/// What this member says.
#[derive(Default)]
pub(crate) struct Voice {
    /// Next number of the own log, less one.
    pub last: u32,
    /// Messages sealed in this epoch.
    pub sealed: u32,
    /// Sealed in this epoch, and not confirmed by a commit.
    pub unconfirmed: VecDeque<Said>,
    /// To be sealed.
    pub queue: VecDeque<Said>,
    /// Waits for the user.
    pub outbox: Vec<Said>,
}

impl Voice {
    /// Bytes of content that are kept.
    pub fn bytes(&self) -> usize {
        let all = self
            .unconfirmed
            .iter()
            .chain(&self.queue)
            .chain(&self.outbox);
        all.map(|said| said.content.len()).sum()
    }
}

/// This member's new leaves.
#[derive(Default)]
pub(crate) struct Refresh {
    /// Asked for, and not welcomed yet.
    pub package: Option<OwnKeyPackage>,
    /// When the next one is due (ms since the epoch).
    pub due: u64,
    /// Commits and Welcomes in a row that could not be used.
    pub failures: u8,
}

impl Refresh {
    /// A new leaf did not help.
    pub fn cannot_follow(&self) -> bool {
        self.failures > 1
    }
}

/// A request to join.
pub(crate) struct Joining {
    pub invitation: Invitation,
    pub package: OwnKeyPackage,
    /// When the next request is due (ms since the epoch); `None` after the invitation expired.
    pub due: Option<u64>,
    pub attempts: u32,
    /// When it asked last, in this run.
    pub asked: u64,
    /// When it was made, and its bytes: repeated as they are, so that holders keep one.
    pub request: Option<(u64, Vec<u8>)>,
}
