//! Signed commands to a fleet over multicast.
//!
//! | module | content |
//! |---|---|
//! | [`datagram`] | the common part of all datagrams; names of commands |
//! | [`envelope`], [`part`] | the signed command, and an agent's checks; payloads that do not fit |
//! | [`certificate`], [`pattern`] | operators certified by others; permitted commands |
//! | [`request`] | the request in a command |
//! | [`sealed`] | sealed commands and answers |
//! | [`record`], [`answer`] | an agent's answer; its segments |
//! | [`acknowledgement`], [`shared_key`] | received parts of answers; two hosts with one key |
//! | [`replay`] | the commands seen before; survives a restart |
//! | [`selector`] | the nodes of a command |
//! | [`agent`], [`operator`] | both sides: state machines, and the processes around them |
//! | `cli`, `commands`, `copy` | the command line and its subcommands |
//! | `files`, `network` | paths of files; multicast sockets on all interfaces in use |
//!
//! All decisions are made by state machines: they get times and seeds, and use no socket, disk or
//! process.

pub mod acknowledgement;
pub mod agent;
pub mod answer;
pub mod certificate;
mod cli;
mod commands;
mod copy;
pub mod datagram;
pub mod envelope;
mod files;
mod network;
pub mod operator;
pub mod part;
pub mod pattern;
pub mod record;
pub mod replay;
pub mod request;
pub mod sealed;
pub mod selector;
pub mod shared_key;

pub use cli::{command, main};
