//! Asks the router of this host to map a UDP port: by PCP, else NAT-PMP, else UPnP
//! ([ADR 0046](../../../docs/adr/0046-port-mapping.md),
//! [0129](../../../docs/adr/0129-all-that-waits-outside-is-mapped.md)).
//!
//! The daemon, `lcroute-outside` and guests share it. A router's answers are untrusted, and bounded
//! in time and bytes.
//!
//! - `schedule` decides when the router is asked; without I/O
//! - `task` asks, and states the mapping
//! - `protocols` speaks PCP and NAT-PMP, [`upnp`] UPnP, over [`http`]
//! - `status` has the result

pub mod http;
mod protocols;
mod schedule;
mod status;
mod task;
pub mod upnp;

pub use status::{Protocol, Status};
pub use task::{PortMapping, Settings};
