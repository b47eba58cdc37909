//! The multicast router daemon and its command line.
//!
//! A packet's way: `tun` -> the node (`lcroute-node`) -> `udp`, and back. The loop
//! that carries it is `packet_loop`; everything that may be slow (names, WebSockets, the control
//! socket) lives in `control_thread`, on another thread.

mod cli;
mod clock;
mod commands;
pub mod config;
pub mod control;
mod control_thread;
mod daemon;
mod doctor;
pub mod drops;
mod inbound_probe;
mod inbox;
mod inviter;
mod keeper;
mod lan;
pub mod metrics;
mod netlink;
mod packet_loop;
pub mod pages;
pub mod port_mapping;
mod private;
mod read_batching;
mod relays;
mod servers;
pub mod settings;
pub mod state;
pub mod status;
pub mod streams;
pub mod system;
pub mod text;
mod tun;
mod udp;
mod waker;

pub use cli::{command, main};
#[doc(hidden)]
pub use tun::{bench, offload};

pub use doctor::CHECKS as DOCTOR_CHECKS;
