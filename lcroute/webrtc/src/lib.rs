//! Connections between nodes by WebRTC, over the datagrams of one UDP socket.
//!
//! [`WebRtc`] is a state machine without sockets and clocks: datagrams go in and come out. It
//! implements [`lcroute_overlay::Connections`]. The crate `rtc` does ICE, DTLS and SCTP; media
//! lanes, hellos and addresses are ours.
//!
//! | module | content |
//! |---|---|
//! | `webrtc`, `connection`, `peer_connection` | all connections; one; its ICE, DTLS and SCTP |
//! | `datagram`, `records` | datagrams and errors of the socket; headers of DTLS records |
//! | `media` | media lanes |
//! | `liveness`, `pace` | hellos; the clock of the stack |
//! | `uplink` | the wait of messages in all lanes |
//! | `addresses`, `gather`, `stun` | addresses of this node |
//! | `relay` | server and client of TURN |
//! | `repeats`, `sctp`, `fence` | repeated datagrams; filtered SCTP; the fence |
//! | `config`, `drops` | bounds; reasons of drops |

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "virtual time needs a beginning")
)]

mod addresses;
mod config;
mod connection;
mod datagram;
mod drops;
mod fence;
mod gather;
mod liveness;
mod media;
mod pace;
mod peer_connection;
mod records;
pub mod relay;
mod repeats;
pub mod sctp;
mod stun;
mod uplink;
mod webrtc;

pub use config::{Limits, WebRtcConfig};
pub use datagram::{Ecn, Transmit, Unreachable};
pub use drops::DropReason;
pub use liveness::common_epoch;
pub use stun::{address_request, mapped_address, respond};
pub use webrtc::{WebRtc, WebRtcError};

#[cfg(test)]
mod tests;
