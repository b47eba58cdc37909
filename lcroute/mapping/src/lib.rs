//! Asks the router of this host to map a UDP port: by PCP, else NAT-PMP, else UPnP
//! ([reasons](../../../docs/adr/finding.md#the-home-router-maps-the-port)).
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
