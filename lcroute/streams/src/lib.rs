//! `lcroute-streams`, the program that `lcroute serve`, `connect` and `forward` execute: streams between programs of two nodes,
//! by name or PeerId, encrypted from end to end ([ADR 0065](../../../docs/adr/0065-streams.md)).
//!
//! QUIC between the node addresses of `lc0`: the daemon carries its packets as any unicast, for this one port. The node's key stays
//! in the daemon, which signs handshakes and tells who is a member; whom a program is for is decided here.
//!
//! - `agreement` is what is said at the beginning of a stream
//! - `registry` knows what is served, and to whom
//! - `identity` makes keys of nodes into those of TLS
//! - `daemon` asks the daemon of this host
//! - `admission` decides which handshakes of others go on
//! - `network` has connections to other nodes, `pump` what goes through their streams, `datagrams` beside them
//! - `framing` is how bytes and ends stand in a stream, `window` how many wait, `report` how a served command ended
//! - `local` answers programs of this host, [`metrics`] who watches it
//! - `cli` is the command line, `verbs` what it does, `program` the program that stays

mod admission;
mod agreement;
mod cli;
mod daemon;
mod datagrams;
mod framing;
mod identity;
mod local;
pub mod metrics;
mod network;
mod program;
mod pump;
mod registry;
mod report;
mod verbs;
mod window;

pub use agreement::{Answer, Hello};
pub use cli::{VERBS, command, main};
