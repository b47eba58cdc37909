//! `lcroute-outside`, the program for links with keys of no common network
//! ([reasons](../../../docs/adr/streams.md#two-keys-are-a-network)).
//!
//! It is separate from the program for streams because it reads what strangers send. Over
//! `outside.sock` it gets secrets of pairs, and carries packets of QUIC that it cannot read
//! ([`librecast::outside`]). It has neither the node's key nor `lc0`.
//!
//! - [`pairs`] decides: waiting, seeking and calling keys, and their links; without I/O
//! - `guests` bounds callers of an open key, before any work for them; without I/O
//! - `items` decides which of its records are signed for a DHT; without I/O
//! - [`share`] gives each pair a view of one WebRTC stack and socket; without I/O
//! - `port` says where callers reach this host; without I/O
//! - `mapping` has the router map the port, where somebody waits to be called by a DHT
//! - `carriers` finds the others, `servers` at servers; `arrived` has their events
//! - `program` has the sockets, `cli` is the command line, [`drops`] has the reasons of drops

mod arrived;
mod carriers;
mod cli;
pub mod drops;
mod guests;
mod items;
mod mapping;
pub mod pairs;
mod port;
mod program;
mod servers;
pub mod share;

pub use cli::{command, main};
