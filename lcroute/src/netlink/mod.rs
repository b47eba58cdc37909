//! Routing netlink (rtnetlink(7)): the host's interfaces, addresses and routes.
//!
//! All functions are synchronous: the kernel answers a request before `send` returns. [`Monitor`]
//! is a descriptor that the packet loop polls. The crate `lcroute-netlink` has the requests, the
//! addresses and the router of this host, as other programs use them, too.

mod fdb;
mod inlet;
mod look;
mod monitor;
mod near;

pub use fdb::{add_bridge_address, remove_bridge_address};
pub use inlet::redirect;
pub(crate) use lcroute_netlink::Connection;
pub use lcroute_netlink::{host_addresses, lan_interfaces};
pub use look::{
    Egress, Interface, default_routers, group_routes, interface_to, interfaces, on_link_prefixes,
    route_to,
};
pub use monitor::Monitor;
pub use near::Near;
