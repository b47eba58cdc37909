//! Private groups, without I/O: MLS (RFC 9420) with one committer, on a log of entries.
//!
//! A group is an ed25519 key. Its holder, the *owner*, alone commits: who joins, who leaves, new keys. Every member has an
//! author key for this group, and appends entries to a log of its own; messages do not wait for the owner. The log signs,
//! orders and repairs entries, and seals them with the read key against everybody else. It is not part of this crate:
//! entries go in ([`Group::handle_entry`]) and come out ([`Output::Append`]).
//!
//! ```text
//! owner's log     | commit: ends epoch 4, heads A 7, B 3 | tree | welcome to C |
//! log of A        | 6: epoch 4 | 7: epoch 4 | 8: epoch 4, void | 9: epoch 5, says 8 again |
//! ```
//!
//! A commit names for each author the last number that counts in the epoch it ends: its *closing head*, what the owner has
//! read. A member applies a commit when it has read as far. Entries of the old epoch beyond are void; their author says
//! the content again in the new epoch, or asks its user first if somebody joined meanwhile. So keys of an epoch are deleted
//! at once, and all members have the same messages.
//!
//! # Contract with the shell
//!
//! After each input: poll all outputs; keep what its users have been shown; write [`Group::state`] to disk, synced;
//! only then append and send. Entries that are in the log are acknowledged ([`Group::handle_appended`]); after a restart the
//! others come out again, with the same bytes, so no key of MLS seals two contents. A message may be told once more after
//! a crash, with the same id. The seed is new in each run.
//!
//! Entries of this participant that the log gets from others go in as well, and before anything is said: a number that the
//! state does not know says that the state is an old copy ([`Standing::RolledBack`]). What answers [`Taken::Wait`] is fed
//! again after other entries were read; [`Group::wants`] says from which number on, also after a restart. It goes back when
//! there is no room for an author's long message ([`MAX_PARTIAL`]).
//!
//! # What it does not do
//!
//! While the owner is away nobody joins or leaves. The read key stays when a member is removed: it sees sizes and times of
//! what follows, and no content. What this member says is kept in its state in clear until a commit confirms it. A message
//! that some were shown before it turned out void ([`Event::NotCounted`]), and whose author never comes back, is not shown
//! to the others.

mod admit;
mod author;
mod body;
mod drops;
mod error;
mod event;
mod group;
mod invitation;
mod mls;
mod owner;
mod owner_log;
mod partial;
mod provider;
mod random;
mod read;
mod request;
mod state;
#[cfg(test)]
mod vectors;
mod voice;

pub use body::{CommitBody, Heads, MAX_BODY, Part, decode_any, kind};
pub use drops::{DropReason, RequestRefusal};
pub use error::{GroupError, StateError};
pub use event::{Append, Entry, Event, Log, NewEntry, Output, Taken};
pub use group::{Founding, Group, Member, Standing};
pub use invitation::{Invitation, InvitationError, MAX_INVITATION, MAX_TOPIC};
pub use mls::MlsFailure;
pub use provider::CryptoError;
pub use request::{MAX_REQUEST, Request};

/// Most members of a group, the owner among them. Chosen: a commit is 98 KB then.
pub const MAX_MEMBERS: usize = 1_000;
/// Longest content of a message in bytes: 64 KiB of a user's, behind two bytes for their kind.
pub const MAX_MESSAGE: usize = 64 * 1_024 + 2;
/// Most messages of an author in an epoch: below the 1,024 keys that mls-rs derives ahead.
pub const MAX_MESSAGES: u32 = 1_000;
/// Most invitations that an owner keeps at once.
pub const MAX_INVITATIONS: usize = 64;
/// Most requests that wait for a commit.
pub const MAX_REQUESTS: usize = 256;
/// Most content in bytes that a member keeps of its own: not confirmed, not yet said, or in the outbox.
pub const MAX_OUTBOX: usize = 64 * MAX_MESSAGE;
/// Most bytes that a reader keeps of messages whose parts have not all come, of all members together: 50 of the longest.
pub const MAX_PARTIAL: usize = 4 * 1_024 * 1_024;
/// Longest name of a member in bytes.
pub const MAX_NAME: usize = 64;

/// In milliseconds, the unit of this crate's times.
const SECOND: u64 = 1_000;
/// In milliseconds.
const HOUR: u64 = 3_600 * SECOND;
/// In milliseconds.
const DAY: u64 = 24 * HOUR;
/// In milliseconds.
const WEEK: u64 = 7 * DAY;
