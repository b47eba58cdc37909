//! File sync over multicast (any number of receivers at the cost of one) and locally.
//!
//! | module | content |
//! |---|---|
//! | `cli` | the command line |
//! | [`block`], [`tree`], [`listing`], [`layout`], [`gear`], `cut` | the format: blocks, hashes, names, cuts |
//! | [`packet`], [`record`], `catalogue` | the datagrams |
//! | [`opener`], `sealing`, [`signature`] | datagrams, and those of shares with a key; signed versions |
//! | `remembered` | the highest generation of each signed or sealed share, on disk |
//! | `mount` | recognition of file systems |
//! | [`outline`], [`groups`], `stretch` | the blocks of a share without its files |
//! | `scan`, `leaves`, `index`, `store` | a server's view of its files |
//! | [`server`] | serving: members, and order of sending |
//! | `send`, `spool`, `receive_code`, [`sent_line`] | files, standard input and texts under four words |
//! | [`receive`] | receiving: the window of channels, decoding, comparing |
//! | `folder`, `place` | opening below a folder and nowhere else; writing below DEST |
//! | `device` | block devices |
//! | `name` | valid names of shares |
//! | `status` | the state of this host's servers |
//! | `attributes` | extended attributes, ACLs among them |
//! | `local` | copies without a network |
//! | `progress` | bars and JSON lines |
//!
//! Without the feature `host`, for pages, it has the format and the deciding parts of receiver and
//! server.

#![cfg_attr(
    not(feature = "host"),
    expect(dead_code, reason = "a page has no share with a key, and lists none")
)]

#[cfg(feature = "host")]
mod attributes;
pub mod block;
pub mod carrying;
mod catalogue;
#[cfg(feature = "host")]
mod cli;
#[cfg(feature = "host")]
pub mod cut;
#[cfg(feature = "host")]
mod device;
#[cfg(feature = "host")]
mod folder;
pub mod gear;
pub mod groups;
#[cfg(feature = "host")]
pub mod index;
pub mod layout;
#[cfg(feature = "host")]
mod leaves;
pub mod listing;
#[cfg(feature = "host")]
mod local;
#[cfg(feature = "host")]
mod mount;
mod name;
pub mod opener;
pub mod outline;
pub mod packet;
#[cfg(feature = "host")]
mod place;
#[cfg(feature = "host")]
mod progress;
pub mod receive;
#[cfg(feature = "host")]
mod receive_code;
pub mod record;
#[cfg(feature = "host")]
mod remembered;
#[cfg(feature = "host")]
mod scan;
#[cfg(feature = "host")]
pub mod sealing;
#[cfg(feature = "host")]
mod send;
pub mod sent_line;
pub mod server;
pub mod signature;
#[cfg(feature = "host")]
mod spool;
#[cfg(feature = "host")]
mod status;
#[cfg(feature = "host")]
mod store;
mod stretch;
pub mod tree;

#[cfg(feature = "host")]
pub use cli::{command, main};
