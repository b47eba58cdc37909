//! `lcroute-reach`, the program that keeps presence records of a node in a DHT, and looks for those of others: BEP 44, in the
//! Mainline DHT of BitTorrent or one of your own ([ADR 0077](../../../docs/adr/0077-a-dht.md)).
//!
//! It is apart from the daemon because it reads datagrams of the whole Internet. It has no key, no right and no file; the daemon
//! says over `reach.sock` what to hold and whom to look for, signs it, and opens what is found ([`librecast::reach`]).
//!
//! - `schedule` decides what is put and looked up when, and what of the answers counts; without I/O
//! - `dht` speaks with nodes, by the crate `n0-mainline`
//! - `program` is between both and the daemon, `cli` the command line

mod cli;
mod dht;
mod program;
mod schedule;

pub use cli::{command, main};
