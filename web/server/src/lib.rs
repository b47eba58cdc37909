//! `lcroute-web`, the program that `lcroute web` executes: pages that show what a running lcroute and its network do.
//!
//! It asks the daemon on the view socket, changes nothing there, and needs no right but to ask. Pages get data for a key that is
//! in the fragment of their address, by the names of this host only ([`guard`]).
//!
//! - `line` is what pages get; [`lcroute_node::view`] knows what other nodes report
//! - `feed` asks the daemon, hears reports of others while a page is open, and passes on who invites
//! - `groups` asks lcgroup, where pages may show groups of people
//! - `names` is what people call groups and nodes, as far as this host knows
//! - `history` is what pages get of the time before they were opened
//! - `serve` speaks HTTP, and `connections` decides who may stay connected
//! - `wanted` reads what an invitation is to be like; `code` makes QR codes
//! - `cli` is the command line

mod cli;
mod code;
mod connections;
mod feed;
mod files;
mod groups;
pub mod guard;
mod history;
mod line;
mod names;
mod serve;
mod wanted;

pub use cli::{VERBS, command, main};
