//! Routing netlink (rtnetlink(7)), as several programs use it: requests, and the router of this host.
//!
//! - `request` asks the kernel; all calls are synchronous
//! - `gateway` finds the router on the path to the IPv4 Internet
//! - `lan` tells LANs from tunnels

mod gateway;
mod lan;
mod request;

pub use gateway::{Gateway, NoGateway, gateway, is_behind_nat};
pub use lan::{is_chosen, is_lan};
pub use request::{Connection, messages};
