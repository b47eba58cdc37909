//! `lcroute-reach`, the program that keeps presence records of a node where others find them, and looks for those of others: in a
//! DHT (BEP 44: the Mainline DHT of BitTorrent or one of your own, [ADR 0077](../../../docs/adr/0077-a-dht.md)), and in a Matrix
//! room ([ADR 0079](../../../docs/adr/0079-a-matrix-room.md)).
//!
//! It is apart from the daemon because it reads what strangers send. It has no key, no right and no file; the daemon
//! says over `reach.sock` what to hold and whom to look for, signs it, and opens what is found ([`librecast::reach`]).
//!
//! - `schedule` decides what is put and looked up in the DHT when, and what of the answers counts; without I/O
//! - `dht` speaks with nodes, by the crate `n0-mainline`
//! - `matrix` meets in a room, by the crate `hyper`
//! - `program` is between these and the daemon, `cli` the command line

mod cli;
mod dht;
mod matrix;
mod program;
mod schedule;

pub use cli::{command, main};
