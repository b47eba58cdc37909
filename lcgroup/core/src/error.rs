//! Errors of the operations of a group.

use thiserror::Error;

use crate::invitation::InvitationError;
use crate::mls::MlsFailure;

/// Why a group refuses an operation.
#[derive(Debug, Error)]
pub enum GroupError {
    /// Only the owner may do this.
    #[error("only the owner can do that, or the deputy in office")]
    NotTheOwner,
    /// This participant has not joined yet, or was removed.
    #[error("not a member (yet, or any more)")]
    NotAMember,
    /// The owner can neither leave nor be removed.
    #[error("the owner cannot leave its group")]
    Owner,
    /// No such member.
    #[error("no such member")]
    UnknownMember,
    /// No such device of this person.
    #[error("no such device of this member")]
    UnknownDevice,
    /// This person has [`MAX_DEVICES`](crate::MAX_DEVICES).
    #[error("a member has at most 8 devices: remove one first")]
    TooManyDevices,
    /// An unusable label of a device.
    #[error("unusable name of a device: 1 to 32 bytes of characters that are seen")]
    Label,
    /// An unusable line for holders.
    #[error("a line for holders has at most 512 bytes of text without control characters")]
    Line,
    /// More than [`LONGEST_DEVICE_LIFE`](crate::LONGEST_DEVICE_LIFE).
    #[error("a text for a device is good for a day at most")]
    DeviceLife,
    /// No such message in the outbox.
    #[error("no such message in the outbox")]
    UnknownMessage,
    /// More than [`MAX_MESSAGE`](crate::MAX_MESSAGE) bytes.
    #[error("a message has at most 64 KiB")]
    TooLong,
    /// More than [`MAX_OUTBOX`](crate::MAX_OUTBOX) bytes wait for the owner's confirmation.
    #[error("too much waits for the owner to confirm it")]
    OutboxFull,
    /// Too many entries wait for the log.
    #[error("too much waits to be sent")]
    TooMuchWaits,
    /// More than [`MAX_INVITATIONS`](crate::MAX_INVITATIONS).
    #[error("at most 64 invitations at a time")]
    TooManyInvitations,
    /// A number of uses that an invitation cannot have.
    #[error("an invitation is for 1 to 1000 members")]
    Uses,
    /// A name that is empty, invisible, or longer than [`MAX_NAME`](crate::MAX_NAME).
    #[error("unusable name: 1 to 64 bytes of characters that are seen")]
    Name,
    /// An unusable topic.
    #[error(transparent)]
    Topic(#[from] InvitationError),
    /// A time of silence out of its bounds.
    #[error("a deputy takes over after 10 s to 365 d of silence")]
    Silence,
    /// More than [`MAX_DEPUTIES`](crate::MAX_DEPUTIES), former ones included.
    #[error("a group has at most 15 deputies, former ones included")]
    TooManyDeputies,
    /// The invitation has expired.
    #[error("the invitation has expired")]
    Expired,
    /// This state is an old copy: the log has entries of this author that it does not know.
    #[error("this state is an old copy of what the group has seen")]
    RolledBack,
    /// MLS refused.
    #[error(transparent)]
    Mls(#[from] MlsFailure),
}

/// Why bytes are not the state of a group.
#[derive(Debug, Error)]
pub enum StateError {
    /// Fields are missing, too many, or out of their bounds.
    #[error("damaged state of a group: {0}")]
    Wire(#[from] librecast::wire::WireError),
    /// MLS cannot read its part.
    #[error("damaged state of a group: {0}")]
    Mls(#[from] MlsFailure),
}
