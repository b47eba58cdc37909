//! What goes into a group and comes out of it.

use librecast::id::PeerId;
use zeroize::Zeroizing;

use crate::drops::{DropReason, RequestRefusal};

/// An entry of the log. The log has checked its signature and that it continues its author's log.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Whose log it is in; the group key for the owner's log.
    pub author: PeerId,
    /// From 1, without gaps.
    pub number: u32,
    /// When it was made, by its author's clock (ms since the epoch).
    pub time: u64,
    /// One of [`kind`](crate::kind), or one of the shell's.
    pub kind: u8,
    /// At most [`MAX_BODY`](crate::MAX_BODY) bytes.
    pub body: &'a [u8],
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It was read.
    Done,
    /// It cannot be read yet: feed it again after other entries were read, [`Group::wants`](crate::Group::wants) says which.
    Wait,
    /// It does not count.
    Dropped(DropReason),
}

/// A log that this participant writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Log {
    /// Its own, under its author key.
    Own,
    /// The owner's, under the group key.
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
    /// From now on this author's entries count.
    Grant {
        /// The author key.
        author: PeerId,
    },
    /// This author's entries count no more.
    Revoke {
        /// The author key.
        author: PeerId,
        /// The last number that counts.
        last: u32,
    },
}

/// Where an entry goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// Which log.
    pub log: Log,
    /// The number that it has there.
    pub number: u32,
    /// What it is.
    pub entry: NewEntry,
}

/// What a group wants done, or tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Append to a log, after the state was written.
    Append(Append),
    /// Send this request to join, as a datagram that holders keep for a day.
    Request(Vec<u8>),
    /// Something to tell.
    Event(Event),
}

/// What happened.
#[derive(PartialEq, Eq)]
pub enum Event {
    /// This participant became a member, or has a new leaf.
    Joined {
        /// The epoch from which on it reads.
        epoch: u64,
    },
    /// A member said something.
    Message {
        /// Who.
        author: PeerId,
        /// Random, chosen by the author.
        id: u64,
        /// When, by the author's clock (ms since the epoch).
        time: u64,
        /// What: at most [`MAX_MESSAGE`](crate::MAX_MESSAGE) bytes.
        content: Zeroizing<Vec<u8>>,
    },
    /// A message that was told does not count: its author said it after the head of the commit that ended its epoch. Most
    /// authors say it again.
    NotCounted {
        /// Who.
        author: PeerId,
        /// The message.
        id: u64,
    },
    /// A message that did not count was said again: it is not told a second time, and stands like any other.
    SaidAgain {
        /// Who.
        author: PeerId,
        /// The message.
        id: u64,
    },
    /// Somebody became a member.
    MemberAdded {
        /// The author key.
        author: PeerId,
        /// How it calls itself; nothing proves it.
        name: String,
    },
    /// Somebody is no member any more.
    MemberRemoved {
        /// The author key.
        author: PeerId,
    },
    /// There are new keys.
    EpochChanged {
        /// The epoch that began.
        epoch: u64,
    },
    /// Somebody joined before this message of ours counted: it waits for [`resend`](crate::Group::resend).
    OutboxWaits {
        /// The message.
        id: u64,
    },
    /// This participant was removed.
    Removed,
    /// A commit or a Welcome could not be used twice in a row, though this member asked for a new leaf in between. It does
    /// not ask again by itself: [`refresh`](crate::Group::refresh) does.
    CannotFollow,
    /// Others know entries of ours that this state does not: it is an old copy, and says nothing more.
    RolledBack,
    /// The owner did not answer before the invitation expired.
    InvitationExpired,
    /// The owner refused a request to join, by an invitation of the group.
    RequestRefused {
        /// The author that asks to join.
        author: PeerId,
        /// How it calls itself; nothing proves it.
        name: String,
        /// When the request was made, by the joiner's clock (ms since the epoch).
        time: u64,
        /// Why.
        reason: RequestRefusal,
    },
    /// The owner could not give this author a leaf: its key package is not usable any more, or has a key of another member.
    NotAdmitted {
        /// The author key.
        author: PeerId,
    },
}

impl std::fmt::Debug for Event {
    /// Without contents: they do not belong into logs.
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
            Self::NotCounted { author, id } => write!(f, "NotCounted {{ {author}, {id:016x} }}"),
            Self::SaidAgain { author, id } => write!(f, "SaidAgain {{ {author}, {id:016x} }}"),
            Self::MemberAdded { author, name } => write!(f, "MemberAdded {{ {author}, {name} }}"),
            Self::MemberRemoved { author } => write!(f, "MemberRemoved {{ {author} }}"),
            Self::EpochChanged { epoch } => write!(f, "EpochChanged {{ epoch: {epoch} }}"),
            Self::OutboxWaits { id } => write!(f, "OutboxWaits {{ {id:016x} }}"),
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
