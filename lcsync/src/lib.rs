//! File sync over multicast (any number of receivers at the cost of one) and locally.
//!
//! | module | content |
//! |---|---|
//! | `cli` | the command line |
//! | [`block`], [`tree`], [`listing`], `layout`, [`cut`] | the format: blocks, hashes, names, cuts |
//! | [`packet`], [`record`], `catalogue` | the datagrams |
//! | [`sealing`], `signature` | datagrams of shares with a key; signed versions |
//! | `remembered` | the highest generation of each signed or sealed share, on disk |
//! | `mount` | recognition of file systems |
//! | `scan`, `leaves`, [`index`], [`groups`], `stretch`, `store` | a server's view of its files |
//! | [`server`] | serving: members, and order of sending |
//! | `send`, `receive_code` | files under four words |
//! | [`receive`] | receiving: the window of channels, decoding, comparing |
//! | `folder`, `place` | opening below a folder and nowhere else; writing below DEST |
//! | `device` | block devices |
//! | `name` | valid names of shares |
//! | `status` | the state of this host's servers |
//! | `attributes` | extended attributes, ACLs among them |
//! | `local` | copies without a network |
//! | `progress` | bars and JSON lines |

mod attributes;
pub mod block;
mod catalogue;
mod cli;
pub mod cut;
mod device;
mod folder;
pub mod groups;
pub mod index;
mod layout;
mod leaves;
pub mod listing;
mod local;
mod mount;
mod name;
pub mod packet;
mod place;
mod progress;
pub mod receive;
mod receive_code;
pub mod record;
mod remembered;
mod scan;
pub mod sealing;
mod send;
pub mod server;
mod signature;
mod status;
mod store;
mod stretch;
pub mod tree;

pub use cli::{command, main};
