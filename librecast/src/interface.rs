//! A network interface, for programs that use multicast.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

/// A network interface with its multicast properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index of it.
    pub index: u32,
    /// Name, as `ip link` shows it.
    pub name: String,
    /// IFF_UP and IFF_RUNNING.
    pub up: bool,
    /// Can carry multicast, and is not the loopback interface.
    pub multicast: bool,
    /// Its IPv6 addresses.
    pub addresses: BTreeSet<Ipv6Addr>,
}

impl Interface {
    /// Returns a link-local address of it.
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses
            .iter()
            .copied()
            .find(Ipv6Addr::is_unicast_link_local)
    }
}
