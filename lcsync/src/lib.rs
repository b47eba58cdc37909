//! File sync over multicast (any number of receivers at the cost of one) and locally.
//!
//! | module | what it holds |
//! |---|---|
//! | `cli` | the command line |
//! | [`block`], [`tree`], [`listing`], `layout`, [`cut`] | the format: blocks, the tree of hashes above them, names, where files lie, where they are cut |
//! | [`packet`], [`record`], `catalogue` | the datagrams |
//! | [`sealing`], `signature` | datagrams of shares with a key; who may say what a share is |
//! | `remembered` | the highest generation of each signed or sealed share, on disk |
//! | `mount` | what a file system is known again by |
//! | `scan`, `leaves`, [`index`], [`groups`], `stretch`, `store` | what a server knows of its files, in memory and on disk |
//! | [`server`] | serving: who has joined what, what is sent when |
//! | [`receive`] | receiving: the window of channels, decoding, comparing |
//! | `folder`, `place` | opening below a folder and nowhere else; writing below DEST |
//! | `name` | what a share may be called |
//! | `status` | asking the servers of this host what they do |
//! | `attributes` | extended attributes, ACLs among them |
//! | `local` | copies without a network |
//! | `progress` | bars and JSON lines |

mod attributes;
pub mod block;
mod catalogue;
mod cli;
pub mod cut;
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
pub mod record;
mod remembered;
mod scan;
pub mod sealing;
pub mod server;
mod signature;
mod status;
mod store;
mod stretch;
pub mod tree;

pub use cli::{command, main};
