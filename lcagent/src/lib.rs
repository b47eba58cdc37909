//! Signed commands to a fleet over multicast.
//!
//! | module | what it holds |
//! |---|---|
//! | [`datagram`] | what all datagrams have in common; how a command is named |
//! | [`envelope`], [`part`] | the signed command, and what an agent checks in it; payloads that do not fit |
//! | [`certificate`], [`pattern`] | operators vouched for by others; what somebody may run |
//! | [`request`] | what a command asks for |
//! | [`sealed`] | commands and answers that nobody else can read |
//! | [`record`], [`answer`] | what an agent answers; how it travels |
//! | [`acknowledgement`], [`shared_key`] | what has come of the answers; that two hosts answer under one key |
//! | [`replay`] | which commands were seen already; survives a restart |
//! | [`selector`] | which nodes a command is for |
//! | [`agent`], [`operator`] | both sides: what they decide, and the processes around it |
//! | `cli`, `commands`, `copy` | the command line and its verbs |
//!
//! All that decides is a state machine: time and seeds are handed in, nothing is read from or written to a
//! socket, a disk or a process.

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
