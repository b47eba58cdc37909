//! The entry log: authors append small signed entries, every reader ends up with all of them, and who was away gets them
//! later from anybody who has them.
//!
//! ```text
//!   append ──► entry n of an author: number, hash of entry n-1, body, signature
//!                │
//!                ▼  multicast to the group of the space, sealed by its read key
//!   entries ──► each packet repeats the author's last entries, and the last one once more after 0.25 and 1 s
//!   heads   ──► how far each log goes, by Trickle (RFC 6206): each second while something changes, each minute later
//!   want    ──► which numbers are missing; the author answers first, others after the back-off of RFC 5401
//!   presence ─► an author is there now, and says what he does: sent once, kept by nobody
//! ```
//!
//! A [`Space`] is an ed25519 key: who has its secret is the owner. The owner's log grants others the right to append
//! ([`Grant`]). Whoever knows the read key reads and answers; signatures tell what is whose, so a holder that lies is no
//! more than one that is silent.
//!
//! [`Log`] is one member's view of one space, a state machine without I/O. Its outputs come in order: what is to be stored
//! must be on disk before the next one is looked at. [`Log::next_entry`] reads an author's log in order.
//!
//! The formats are in docs/protocol.md, the reasons in docs/adr/0067-the-entry-log.md.

mod author;
mod drops;
mod entry;
mod grant;
mod log;
mod outgoing;
mod packet;
mod presence;
mod repair;
mod space;
mod stored;

pub use drops::DropReason;
pub use entry::{AuthorId, Entry, EntryError, MAX_BODY};
pub use grant::{GRANT_KIND, GRANTS_IN_ENTRY, Grant};
pub use log::{
    AppendError, AuthorStatus, Config, Event, Log, MAX_AUTHORS, MAX_BYTES, MAX_ENTRIES,
    MAX_ENTRIES_OF_AUTHOR, MAX_REQUESTS, Output,
};
pub use packet::{Head, MAX_PACKET, Packet, Want, decode, decode_sealed, seal_packet};
pub use presence::{MAX_PRESENCE, Presence};
pub use space::{ENTRY_LOG_PORT, ReadKey, Space};
pub use stored::Stored;
