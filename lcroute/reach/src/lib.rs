//! `lcroute-reach`, the program that publishes presence records of a node and searches for those of
//! other nodes: in a DHT (BEP 44: the Mainline DHT of BitTorrent or a private one,
//! [reasons](../../../docs/adr/finding.md#a-dht-by-a-program-of-its-own)), and in a Matrix room
//! ([reasons](../../../docs/adr/finding.md#a-matrix-room)).
//!
//! It is separate from the daemon because it parses input of strangers. It has no key, privilege or
//! file. Over `reach.sock` the daemon sends signed items to hold and keys to look up, and opens the
//! results ([`librecast::reach`]).
//!
//! - `schedule` decides about puts, look-ups and their answers in the DHT; without I/O
//! - `dht` is the client, by the crate `n0-mainline`
//! - `matrix` meets in a room, by the crate `hyper`
//! - `program` connects these with the daemon, `cli` is the command line

mod cli;
mod dht;
mod matrix;
mod program;
mod schedule;

pub use cli::{command, main};
