//! Why entries and requests are dropped; each has a name, for counters and logs.

use thiserror::Error;

/// Why an entry is dropped. The reader continues with the author's next one, except for the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum DropReason {
    /// Its author is not a member, or no longer, as far as this member knows.
    #[error("of an author who is not a member")]
    UnknownAuthor,
    /// It is not its author's next entry.
    #[error("not the next entry of its author")]
    NotNext,
    /// It does not fit the format.
    #[error("malformed")]
    Malformed,
    /// Its epoch had ended: its author sends the content again.
    #[error("of a closed epoch")]
    Void,
    /// A part that does not continue the last one.
    #[error("a part without those before it")]
    Broken,
    /// Its author sent more messages in this epoch than an epoch has keys for.
    #[error("more messages than an epoch has keys for")]
    TooMany,
    /// MLS does not open it, or another member sealed it.
    #[error("does not open, or is of another member")]
    NotOpened,
    /// This member was removed, or its state is an old copy.
    #[error("this member reads no more")]
    NotReading,
}

impl RequestRefusal {
    /// Refusals that the owner answers: the joiner can act on them. The index is the number.
    const ANSWERED: [Self; 8] = [
        Self::Time,
        Self::UnknownInvitation,
        Self::Expired,
        Self::UsedUp,
        Self::Full,
        Self::KeyPackage,
        Self::Devices,
        Self::Withdrawn,
    ];

    /// Whether the owner answers it.
    #[must_use]
    pub fn is_answered(self) -> bool {
        self.number().is_some()
    }

    /// Returns its number in answers.
    #[must_use]
    pub fn number(self) -> Option<u8> {
        let at = Self::ANSWERED.iter().position(|other| *other == self);
        at.map(|at| at as u8)
    }

    /// Returns the refusal with this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ANSWERED.get(usize::from(number)).copied()
    }
}

/// Why the owner refuses a request to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum RequestRefusal {
    /// This member is not the owner.
    #[error("only the owner admits members")]
    NotTheOwner,
    /// The box does not open, or its content is malformed.
    #[error("not a request for this group")]
    NotOpened,
    /// It was made more than two days ago, or more than one day ahead.
    #[error("made at another time")]
    Time,
    /// The owner has no such invitation, or no longer.
    #[error("unknown invitation")]
    UnknownInvitation,
    /// The joiner does not know the invitation's secret.
    #[error("without proof of the invitation")]
    Proof,
    /// The invitation has expired.
    #[error("the invitation has expired")]
    Expired,
    /// The owner has withdrawn the invitation.
    #[error("the invitation was withdrawn")]
    Withdrawn,
    /// The invitation was for fewer members.
    #[error("the invitation is used up")]
    UsedUp,
    /// This author was admitted: the log has its Welcome.
    #[error("was admitted before")]
    Admitted,
    /// The group or the list of requests is full.
    #[error("no room")]
    Full,
    /// Its person has [`MAX_DEVICES`](crate::MAX_DEVICES).
    #[error("a member has at most 8 devices")]
    Devices,
    /// The author key did not sign it.
    #[error("forged signature")]
    Signature,
    /// The key package is unreadable, of another author, or out of its lifetime.
    #[error("unusable key package")]
    KeyPackage,
}
