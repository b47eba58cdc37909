//! The entry log: authors append small signed entries, and every reader receives all of them. A
//! member that was away gets them later from any member.
//!
//! ```text
//!   append ──► entry n of an author: number, hash of entry n-1, body, signature
//!                │
//!                ▼  multicast to the group of the space, sealed by its read key
//!   entries ──► a packet repeats the author's last entries; the last one again after 0.25 and 1 s
//!   heads   ──► last number of each log, by Trickle (RFC 6206), from each second to each minute
//!   want    ──► missing numbers; the author answers first, then members after RFC 5401's back-off
//!   presence ─► an author is present, with a text of his: sent once, stored by no member
//! ```
//!
//! Readers send nothing to that group ([`Role::Reader`]). They ask on a second one, which the owner
//! and holders have joined, and are answered on a third one, which they join while they lack
//! entries:
//!
//! ```text
//!   live     ff1e           | H(read key)      everybody
//!   asking   ff1e:7570 | family | H(read key)  owner, holders: wants and requests of readers
//!   history  ff1e:7571 | family | H(read key)  owner, holders, and readers that lack entries
//! ```
//!
//! A [`Space`] is an ed25519 key; the holder of its secret is the owner. The owner's log grants
//! other keys the right to append ([`Grant`]). Every holder of the read key reads and answers.
//! Entries are signed, so a lying holder does no more harm than a silent one.
//!
//! [`Log`] is one member's view of one space, a state machine without I/O. A record
//! among its outputs must be on disk before the next one is handled. [`Log::next_entry`] reads an
//! author's log in order.
//!
//! | module | content |
//! |---|---|
//! | `log` | one member's view of a space: packets in, records and packets out |
//! | `log::exchange`, `log::head_schedule`, `log::requests` | heads, wants, answers; requests |
//! | `log::reading`, `log::writing`, `log::history` | readers, and answers to them |
//! | `log::office`, `log::expiry` | logs that grant in the owner's place; expired entries |
//! | `author`, `entry`, `grant`, `stored` | one author's log; its entries; grants; records on disk |
//! | `space`, `packet`, `outgoing` | keys and groups; packets; their sealing and packing |
//! | `repair`, `presence`, `drops` | times of repair; present authors; drop reasons |
//!
//! docs/protocol.md has the formats, docs/adr/log.md the reasons.

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
    MAX_ENTRIES_OF_AUTHOR, MAX_OFFICES, MAX_REQUESTS, MOST_LEAP, OFFICES_KIND, Output, Role,
    TERM_KIND,
};
pub use packet::{
    Head, MAX_PACKET, Packet, Refused, Seal, Want, decode, decode_sealed, seal_packet,
};
pub use presence::{MAX_PRESENCE, Presence};
pub use space::{ENTRY_LOG_PORT, Groups, ReadKey, Space};
pub use stored::Stored;
