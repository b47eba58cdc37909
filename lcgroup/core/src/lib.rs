//! Private groups, without I/O: MLS (RFC 9420) with one committer, on a log of entries.
//!
//! A group is an ed25519 key. Only its holder, the *owner*, commits additions, removals and new
//! keys. Every member has an author key for this group, and appends entries to its own log;
//! messages do not wait for the owner. The log signs, orders and repairs entries, and encrypts them
//! with the read key. It is not part of this crate: entries go in ([`Group::handle_entry`]) and
//! come out ([`Output::Append`]).
//!
//! ```text
//! owner's log     | commit: ends epoch 4, heads A 7, B 3 | tree | welcome to C |
//! log of A        | 6: epoch 4 | 7: epoch 4 | 8: epoch 4, void | 9: epoch 5, repeats 8 |
//! ```
//!
//! A commit names for each author the last number that counts in the epoch it ends: its *closing
//! head*, the last entry that the owner has read. A member applies a commit when it has read up to
//! these heads. Later entries of the old epoch are void; their author sends the content again in
//! the new epoch, or asks its user first if a member was added. So keys of an epoch are deleted at
//! once, and all members have the same messages.
//!
//! # Contract with the shell
//!
//! After each input: poll all outputs; store the messages that its users have seen; write
//! [`Group::state`] to disk, synced; only then append and send. Where an input came from the log and
//! there are no outputs but messages, the state may follow later: a restored group is fed the same
//! entries again. Entries that are in the log are
//! acknowledged ([`Group::handle_appended`]); after a restart the rest come out again, with the
//! same bytes, so no key of MLS seals two contents. After a crash a message may be reported once
//! more, with the same id. The seed is new in each run.
//!
//! Entries of this participant that the log receives from other nodes go in as well, before the
//! first message: a number that the state does not know shows that the state is an old copy
//! ([`Standing::RolledBack`]). An entry answered with [`Taken::Wait`] is fed again after other
//! entries were read; [`Group::wants`] returns the first number to feed, also after a restart. It
//! goes back when an author's long message exceeds the space ([`MAX_PARTIAL`]).
//!
//! # Limits
//!
//! While the owner is away no member joins or leaves, but for what its deputies do (`deputy.rs`). The
//! read key stays when a member is removed: that member sees sizes and times of later entries, and
//! no content. The state keeps this member's
//! messages in clear until a commit confirms them. If a message was shown to some members and
//! became void ([`Event::NotCounted`]), and its author never returns, other members miss it.
//!
//! # Modules
//!
//! | module | content |
//! |---|---|
//! | `group`, `event`, `voice` | a participant; inputs and outputs; its own messages and requests |
//! | `read`, `author`, `owner_log`, `partial` | reading entries; state of logs; incomplete messages |
//! | `owner`, `admit`, `history` | the owner's state; its operations; earlier messages for newcomers |
//! | `invitation`, `request` | lines that admit a joiner; its request to the owner |
//! | `deputy`, `offices`, `office_state` | deputies; the host in office; this state as bytes |
//! | `quiet`, `removal` | members that are removed and not told; their state |
//! | `device`, `vouch` | several devices of one person; the keys that prove it |
//! | [`outside`], `network` | the network of a group's own; statements on it in the logs |
//! | [waking] | lines by which holders call absent members |
//! | [shared] | a map that all members write |
//! | [mod@file] | files of messages: sealing, announcement, shares of holders |
//! | `mls`, `provider`, `vectors` | all uses of mls-rs; its cipher suite; foreign test vectors |
//! | `body`, `state`, `fields` | bodies of entries; a group's state as bytes |
//! | `random`, `drops`, `error` | randomness from the seed; drop reasons; errors |

mod admit;
mod author;
mod body;
mod deputy;
mod device;
mod drops;
mod error;
mod event;
mod fields;
pub mod file;
mod group;
mod history;
mod invitation;
mod mls;
mod network;
mod office_state;
mod offices;
pub mod outside;
mod owner;
mod owner_log;
mod partial;
mod provider;
mod quiet;
mod random;
mod read;
mod removal;
mod request;
pub mod shared;
mod state;
#[cfg(test)]
mod vectors;
mod voice;
mod vouch;
pub mod waking;

pub use body::{CommitBody, Heads, MAX_BODY, Part, Terms, heads_before, kind};
pub use deputy::{LEAST_SILENCE, LONGEST_SILENCE};
pub use drops::{DropReason, RequestRefusal};
pub use error::{GroupError, StateError};
pub use event::{Append, Entry, Event, Log, NewEntry, Output, Taken};
pub use group::{Founding, Group, Member, Standing};
pub use history::{MAX_HISTORY, decode_any};
pub use invitation::{Invitation, InvitationError, MAX_INVITATION, MAX_TOPIC};
pub use mls::MlsFailure;
pub use offices::{Deputy, MAX_DEPUTIES};
pub use provider::CryptoError;
pub use request::{MAX_REQUEST, Request};
pub use vouch::{DEVICE_PREFIX, DeviceInvitation, LONGEST_DEVICE_LIFE, MAX_DEVICES, MAX_LABEL};

/// Members of a group, the owner included. Chosen: the largest commit has 98 KB.
pub const MAX_MEMBERS: usize = 1_000;
/// Bytes of a message's content: 64 KiB of a user's content, after two bytes for its kind.
pub const MAX_MESSAGE: usize = 64 * 1_024 + 2;
/// Messages of an author in an epoch: below the 1,024 keys that mls-rs derives ahead.
pub const MAX_MESSAGES: u32 = 1_000;
/// Open invitations of an owner.
pub const MAX_INVITATIONS: usize = 64;
/// Requests that wait for a commit.
pub const MAX_REQUESTS: usize = 256;
/// Bytes of own content that a member keeps: unconfirmed, unsent, or in the outbox.
pub const MAX_OUTBOX: usize = 64 * MAX_MESSAGE;
/// Entries that may wait for the log before another commit: some commits with their trees.
const MAX_PENDING: usize = 4_096;
/// Entries that may wait for the log before another message. Chosen: twice those of [`MAX_OUTBOX`].
const MAX_UNSENT: usize = 8_192;
/// Bytes that a reader keeps of incomplete messages, of all members together: 50 of the longest.
pub const MAX_PARTIAL: usize = 4 * 1_024 * 1_024;
/// Grants of one entry: as many as a body of the log holds, at 48 bytes each.
pub const MAX_GRANTS: usize = MAX_BODY / 48;
/// Bytes of a member's name.
pub const MAX_NAME: usize = 64;

/// In milliseconds, the unit of this crate's times.
const SECOND: u64 = 1_000;
/// In milliseconds.
const MINUTE: u64 = 60 * SECOND;
/// In milliseconds.
const HOUR: u64 = 3_600 * SECOND;
/// In milliseconds.
const DAY: u64 = 24 * HOUR;
/// In milliseconds.
const WEEK: u64 = 7 * DAY;
