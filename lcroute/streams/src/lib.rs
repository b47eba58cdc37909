//! `lcroute-streams`, the program behind `lcroute serve`, `connect` and `forward`: streams between
//! programs of two nodes, by name or PeerId, encrypted from end to end
//! ([reasons](../../../docs/adr/streams.md)).
//!
//! It uses QUIC between the node addresses of `lc0`: for this one port, the daemon carries unicast
//! packets. The node's key stays in the daemon, which signs handshakes and knows the members; this
//! program checks permissions.
//!
//! - `agreement` has the messages at the beginning of a stream
//! - `registry` has the served protocols and their permissions
//! - `identity` makes keys of nodes into those of TLS
//! - `daemon` sends requests to the daemon of this host; `directory` says who is who
//! - `outside` has keys of no common network, and the program that links with them
//! - `host` has both networks of streams of this host
//! - `admission` decides which handshakes of other nodes continue
//! - `shares` divides a service's streams among other nodes
//! - `network` has connections to other nodes, `pump` their streams, `datagrams` their datagrams
//! - `framing` encodes bytes and ends, `window` bounds their queues, `report` has ends of commands
//! - `local` answers programs of this host, [`metrics`] has the metrics
//! - `cli` is the command line, `verbs` its actions, `program` the service

mod admission;
mod agreement;
mod cli;
mod daemon;
mod datagrams;
mod directory;
mod framing;
mod host;
mod identity;
mod local;
pub mod metrics;
mod network;
mod outside;
mod program;
mod pump;
mod registry;
mod report;
mod shares;
mod verbs;
mod window;

pub use agreement::{Answer, Hello};
pub use cli::{VERBS, command, main};
