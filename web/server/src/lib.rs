//! `lcroute-web`, the program that `lcroute web` executes: pages that show a running lcroute and
//! its network.
//!
//! It sends requests to the daemon's view socket, and changes nothing. Pages get data with the key
//! in the fragment of their address, and only by the names of this host ([`guard`]).
//!
//! - `line` is a line of the stream to pages; [`lcroute_node::view`] reads other nodes' reports
//! - `feed` requests the daemon's state, receives reports while a page is open, and requests tokens
//! - `groups` is a client of lcgroup, if pages may show groups of people
//! - `names` has the names of groups and nodes that this host knows
//! - `history` has the minutes before a page was opened
//! - `files` has the pages, `serve` implements HTTP, and `connections` bounds open connections
//! - `players` serves groups and stations to players, at a port of its own; `hear` joins groups
//! - [`metrics`] has the metrics of players
//! - `wanted` reads requests for invitations; `code` makes QR codes
//! - `cli` is the command line

mod cli;
mod code;
mod connections;
mod feed;
mod files;
mod groups;
pub mod guard;
mod hear;
mod history;
mod line;
mod names;
mod players;
mod serve;
mod wanted;

pub use cli::{VERBS, command, main};
pub use players::metrics;
