//! Links between nodes.
//!
//! [`Overlay`] is a state machine without sockets and clocks: presence, sealed messages and
//! datagrams go in, events, sealed messages and datagrams come out. [`signal`] has the carriers.

mod auth;
mod backoff;
mod config;
mod connection;
mod datagrams;
mod description;
mod direct;
mod drops;
mod envelope;
mod event;
mod fence;
mod flight;
mod gather;
mod lanes;
mod liveness;
mod media;
mod membership;
mod negotiate;
mod overlay;
mod panics;
mod peer;
mod reach;
mod replay;
pub mod sctp;
pub mod signal;
mod signal_budget;
mod stun;
mod wanted;

pub use config::{Identity, Limits, OverlayConfig};
pub use drops::DROPS;
pub use event::{
    CarrierId, Ecn, Event, Lane, LinkId, PeerInfo, PeerState, Presence, RepairInfo, SendError,
    Transmit, Unreachable,
};
pub use liveness::{SILENT, common_beat};
pub use membership::Revoked;
pub use overlay::{Overlay, OverlayError};
pub use stun::{ask_address, told_address};

/// The carrier that is the overlay itself: messages travel over links, from node to node.
pub const OVERLAY_CARRIER: CarrierId = CarrierId(u32::MAX);
/// Longest sealed message in bytes.
pub const MAX_SIGNAL: usize = 32 * 1024;

#[cfg(test)]
mod tests;
