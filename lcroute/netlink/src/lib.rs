//! Routing netlink (rtnetlink(7)), as several programs use it: requests, the addresses of this host,
//! and its router.
//!
//! - `request` asks the kernel; all calls are synchronous
//! - `host` has the addresses at which others reach this host, and its LANs
//! - `gateway` finds the router on the path to the IPv4 Internet
//! - `lan` tells LANs from tunnels

mod gateway;
mod host;
mod lan;
mod request;

pub use gateway::{Gateway, NoGateway, gateway, is_behind_nat};
pub use host::{host_addresses, lan_interfaces};
pub use request::{Connection, messages};
