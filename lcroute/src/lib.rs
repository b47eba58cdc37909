//! The multicast router daemon and its command line.
//!
//! Path of a packet: `tun` -> the node (`lcroute-node`) -> `udp`, and back, in the loop
//! `packet_loop`. Everything that may be slow (names, WebSockets, the control socket) runs in
//! `control_thread`, on another thread. `lcroute-control` has what other programs share: requests,
//! answers, configuration.
//!
//! | module | content |
//! |---|---|
//! | `cli`, `commands` | the command line, its verbs |
//! | `servers` | signalling servers |
//! | `daemon`, `control_thread`, `inbox`, `waker` | start and end; the slow thread |
//! | `packet_loop`, `read_batching` | the thread that carries packets |
//! | `tun`, `netlink`, `inbound_probe` | `lc0`; interfaces and routes; the host's firewall |
//! | `links`, `udp`, `outgoing` | the links of a node, over one socket |
//! | `uplink` | how long packets of programs wait for links, for these programs |
//! | `lan` | LANs of a gateway |
//! | `relays`, `port_mapping` | relays, and the port that a router maps, by the configuration |
//! | `control_server`, `inviter` | the control socket; invitations for pages |
//! | `private` | private prefixes on a host |
//! | `state`, `keeper`, `clock` | disk; clock of the system |
//! | `guest` | a program on an lc0 of its own, without root and daemon |
//! | `doctor`, `metrics`, `drops` | problems with their remedies; figures; reasons of drops |

mod cli;
mod clock;
mod commands;
mod control_server;
mod control_thread;
mod daemon;
mod doctor;
pub mod drops;
mod guest;
mod inbound_probe;
mod inbox;
mod inviter;
mod keeper;
mod lan;
mod links;
pub mod metrics;
mod netlink;
mod outgoing;
mod packet_loop;
mod port_mapping;
mod private;
mod read_batching;
mod relays;
mod servers;
pub mod state;
#[cfg(test)]
mod testing;
mod tun;
mod udp;
mod uplink;
mod waker;

pub use cli::{command, main};
#[doc(hidden)]
pub use tun::{bench, offload};

pub use doctor::CHECKS as DOCTOR_CHECKS;
