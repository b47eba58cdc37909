//! Why entries and requests are dropped; each has a name, for counters and logs.

use thiserror::Error;

/// Why an entry is dropped. The reader goes on with the author's next entry, but for the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum DropReason {
    /// Its author is no member (any more), as far as this member knows.
    #[error("of an author who is no member")]
    UnknownAuthor,
    /// It is not the next one of its author.
    #[error("not the next entry of its author")]
    NotNext,
    /// It does not fit the format.
    #[error("malformed")]
    Malformed,
    /// It is of an epoch that was closed before it: its author says it again.
    #[error("of a closed epoch")]
    Void,
    /// A part that does not continue the one before.
    #[error("a part without those before it")]
    Broken,
    /// Its author said more in this epoch than keys are derived for.
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
    /// Refusals that the owner answers: the joiner can do something about them. In answers they have these numbers.
    const ANSWERED: [Self; 6] = [
        Self::Time,
        Self::UnknownInvitation,
        Self::Expired,
        Self::UsedUp,
        Self::Full,
        Self::KeyPackage,
    ];

    /// Whether the owner answers it.
    #[must_use]
    pub fn is_answered(self) -> bool {
        self.number().is_some()
    }

    /// Its number in answers.
    #[must_use]
    pub fn number(self) -> Option<u8> {
        let at = Self::ANSWERED.iter().position(|other| *other == self);
        at.map(|at| at as u8)
    }

    /// The refusal of this number.
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
    /// The owner has no such invitation (any more).
    #[error("unknown invitation")]
    UnknownInvitation,
    /// The joiner does not know the invitation's secret.
    #[error("without proof of the invitation")]
    Proof,
    /// The invitation has expired.
    #[error("the invitation has expired")]
    Expired,
    /// The invitation was for fewer members.
    #[error("the invitation is used up")]
    UsedUp,
    /// This author was admitted: its Welcome stands in the log.
    #[error("was admitted before")]
    Admitted,
    /// The group or the list of requests is full.
    #[error("no room")]
    Full,
    /// The author key did not sign it.
    #[error("forged signature")]
    Signature,
    /// The key package is none, of another author, or out of its lifetime.
    #[error("unusable key package")]
    KeyPackage,
}
