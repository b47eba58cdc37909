//! Inputs and outputs of a group.

use librecast::id::PeerId;
use zeroize::Zeroizing;

use crate::drops::{DropReason, RequestRefusal};

/// An entry of the log. The log has checked its signature and its place in its author's log.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The author of the log; the group key for the owner's log.
    pub author: PeerId,
    /// From 1, without gaps.
    pub number: u32,
    /// When it was made, by its author's clock (ms since 1970).
    pub time: u64,
    /// One of [`kind`](crate::kind), or one of the shell's.
    pub kind: u8,
    /// At most [`MAX_BODY`](crate::MAX_BODY) bytes.
    pub body: &'a [u8],
}

/// The result of reading an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was read.
    Done,
    /// It cannot be read yet: feed it when [`Group::wants`](crate::Group::wants) names it.
    Wait,
    /// It does not count.
    Dropped(DropReason),
}

/// A log that this participant writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// Its own, under its author key.
    Own,
    /// The owner's, under the group key; a deputy's office, under its author key.
    Owner,
}

/// An entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewEntry {
    /// A body of a kind of this crate.
    Body {
        /// One of [`kind`](crate::kind).
        kind: u8,
        /// At most [`MAX_BODY`](crate::MAX_BODY) bytes.
        body: Vec<u8>,
    },
    /// Counts entries of these authors up to a last number, which is `u32::MAX` for a member. At
    /// most [`MAX_GRANTS`](crate::MAX_GRANTS).
    Grants(Vec<(PeerId, u32)>),
}

/// An entry with its log and number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The log.
    pub log: Log,
    /// Its number in the log.
    pub number: u32,
    /// The entry.
    pub entry: NewEntry,
}

/// An action for the shell.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Append to a log, after the state was written.
    Append(Append),
    /// Send this request to join, as a datagram that holders keep for a day.
    Request(Vec<u8>),
    /// Report an event.
    Event(Event),
}

/// An event.
#[derive(PartialEq, Eq)]
pub enum Event {
    /// This participant became a member, or has a new leaf.
    Joined {
        /// The first epoch that it reads.
        epoch: u64,
    },
    /// A member sent a message.
    Message {
        /// The sender.
        author: PeerId,
        /// Random, chosen by the author.
        id: u64,
        /// Number of its last entry.
        number: u32,
        /// When, by the author's clock (ms since 1970).
        time: u64,
        /// At most [`MAX_MESSAGE`](crate::MAX_MESSAGE) bytes.
        content: Zeroizing<Vec<u8>>,
    },
    /// What was said before this participant joined, from the owner, who may have changed it.
    History {
        /// At most [`MAX_HISTORY`](crate::MAX_HISTORY) bytes, of the owner's shell.
        content: Zeroizing<Vec<u8>>,
    },
    /// A reported message does not count: its author sent it after its head in the commit that
    /// ended its epoch. Most authors send it again.
    NotCounted {
        /// The sender.
        author: PeerId,
        /// The message.
        id: u64,
    },
    /// A void message was sent again: it is not reported a second time, and counts.
    SaidAgain {
        /// The sender.
        author: PeerId,
        /// The message.
        id: u64,
    },
    /// A member was added.
    MemberAdded {
        /// The author key.
        author: PeerId,
        /// Its name, chosen by itself and not proven.
        name: String,
    },
    /// A member was removed.
    MemberRemoved {
        /// The author key.
        author: PeerId,
    },
    /// Another device of this person has read more.
    ReadElsewhere,
    /// A new epoch began, with new keys.
    EpochChanged {
        /// The epoch that began.
        epoch: u64,
    },
    /// A member was added before this message counted: [`resend`](crate::Group::resend) sends it.
    OutboxWaits {
        /// The message.
        id: u64,
    },
    /// For the owner: members that were silent for long, whose next keys had to be dropped. When
    /// they come back they get new keys, and miss messages from before.
    KeysDropped {
        /// The author keys.
        authors: Vec<PeerId>,
    },
    /// This participant makes the commits from now on.
    TookOffice,
    /// It makes none any more; its open invitations are void.
    StoodDown,
    /// This member makes the commits from now on.
    InOffice {
        /// Its author key.
        author: PeerId,
    },
    /// This participant applied commits that do not count: it asks for new keys. Its words from
    /// there go to the outbox; words of others that were said elsewhere meanwhile stay closed.
    BranchLost,
    /// The commit that added this participant does not count: it is not a member.
    AdmissionLost,
    /// This participant was removed.
    Removed,
    /// A commit or a Welcome was unusable twice in a row, with a new leaf requested in between.
    /// Only [`refresh`](crate::Group::refresh) requests another.
    CannotFollow,
    /// The log has own entries that this state does not know: it is an old copy, and falls silent.
    RolledBack,
    /// The owner did not answer before the invitation expired.
    InvitationExpired,
    /// The owner refused a request to join, by an invitation of the group.
    RequestRefused {
        /// The author that asks to join.
        author: PeerId,
        /// Its name, chosen by itself and not proven.
        name: String,
        /// When the request was made, by the joiner's clock (ms since 1970).
        time: u64,
        /// The reason.
        reason: RequestRefusal,
    },
    /// The owner did not add this author: its key package is unusable, or has another member's key.
    NotAdmitted {
        /// The author key.
        author: PeerId,
    },
}

impl std::fmt::Debug for Event {
    /// Omits contents: they do not belong into logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Joined { epoch } => write!(f, "Joined {{ epoch: {epoch} }}"),
            Self::Message {
                author,
                id,
                content,
                ..
            } => write!(
                f,
                "Message {{ {author}, {id:016x}, {} bytes }}",
                content.len()
            ),
            Self::History { content } => write!(f, "History {{ {} bytes }}", content.len()),
            Self::NotCounted { author, id } => write!(f, "NotCounted {{ {author}, {id:016x} }}"),
            Self::SaidAgain { author, id } => write!(f, "SaidAgain {{ {author}, {id:016x} }}"),
            Self::MemberAdded { author, name } => write!(f, "MemberAdded {{ {author}, {name} }}"),
            Self::MemberRemoved { author } => write!(f, "MemberRemoved {{ {author} }}"),
            Self::EpochChanged { epoch } => write!(f, "EpochChanged {{ epoch: {epoch} }}"),
            Self::ReadElsewhere => f.write_str("ReadElsewhere"),
            Self::OutboxWaits { id } => write!(f, "OutboxWaits {{ {id:016x} }}"),
            Self::KeysDropped { authors } => write!(f, "KeysDropped {{ {authors:?} }}"),
            Self::TookOffice => f.write_str("TookOffice"),
            Self::StoodDown => f.write_str("StoodDown"),
            Self::InOffice { author } => write!(f, "InOffice {{ {author} }}"),
            Self::BranchLost => f.write_str("BranchLost"),
            Self::AdmissionLost => f.write_str("AdmissionLost"),
            Self::Removed => f.write_str("Removed"),
            Self::CannotFollow => f.write_str("CannotFollow"),
            Self::RolledBack => f.write_str("RolledBack"),
            Self::InvitationExpired => f.write_str("InvitationExpired"),
            Self::RequestRefused { author, reason, .. } => {
                write!(f, "RequestRefused {{ {author}, {reason} }}")
            }
            Self::NotAdmitted { author } => write!(f, "NotAdmitted {{ {author} }}"),
        }
    }
}
