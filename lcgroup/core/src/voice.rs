//! This participant's own messages and requests.

use std::collections::VecDeque;

use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::MAX_MESSAGE;
use crate::fields::{field, long};
use crate::invitation::Invitation;
use crate::mls::OwnKeyPackage;

/// A message of this member.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub id: u64,
    pub content: Zeroizing<Vec<u8>>,
    /// Number of its last entry; 0 until it is sealed.
    pub last: u32,
}

/// Writes an own message.
pub(crate) fn put_word(w: &mut Writer, said: &Said) {
    long(w.u64(said.id).u32(said.last), &said.content);
}

pub(crate) fn read_word(r: &mut Reader<'_>) -> Result<Said, WireError> {
    let (id, last) = (r.u64()?, r.u32()?);
    let content = field(r)?;
    if content.len() > MAX_MESSAGE {
        return Err(WireError::Bad("message length"));
    }
    let content = content.to_vec().into();
    Ok(Said { id, content, last })
}

/// The messages of this member.
#[derive(Default)]
pub(crate) struct Voice {
    /// Last number of the own log.
    pub last: u32,
    /// Messages sealed in this epoch.
    pub sealed: u32,
    /// Sealed in this epoch, and not confirmed by a commit.
    pub unconfirmed: VecDeque<Said>,
    /// Messages to seal.
    pub queue: VecDeque<Said>,
    /// Messages that wait for the user.
    pub outbox: Vec<Said>,
}

impl Voice {
    /// Bytes of stored content.
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
    /// The key package that was sent to the owner, without a Welcome so far.
    pub package: Option<OwnKeyPackage>,
    /// When the next one is due (ms since 1970).
    pub due: u64,
    /// Unusable commits and Welcomes in a row.
    pub failures: u8,
}

impl Refresh {
    /// Whether a new leaf did not help.
    pub fn cannot_follow(&self) -> bool {
        self.failures > 1
    }
}

/// A request to join.
pub(crate) struct Joining {
    pub invitation: Invitation,
    pub package: OwnKeyPackage,
    /// When the next request is due (ms since 1970); `None` after the invitation expired.
    pub due: Option<u64>,
    pub attempts: u32,
    /// When it was last sent in this run.
    pub asked: u64,
    /// When it was made, and its bytes: repeated unchanged, so that holders keep one.
    pub request: Option<(u64, Vec<u8>)>,
}
