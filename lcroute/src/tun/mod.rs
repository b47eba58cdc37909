//! The host's interface to the network: `lc0`, a TUN or TAP device.
//!
//! ```text
//! app -> socket -> kernel -> lc0 -> Device::read        (packets, and MLD reports when it joins)
//! app <- socket <- kernel <- lc0 <- Device::write       (packets of other nodes)
//!  MLD listener    <-        lc0 <- Device::write       (joins of other nodes, as reports)
//! ```
//!
//! The device is persistent: if the daemon dies without [`Device::close`], the interface stays with
//! its addresses, routes and joined groups, and the next [`Device::open`] adopts it.
//! [`Device::keep`] and [`Device::inherit`] pass the open device to a new program image.
//!
//! If the kernel supports it and [`Settings::offload`] permits it, many packets of a flow cross in
//! one system call, in both directions: super-packets. The callers and other nodes see no
//! difference.
//!
//! Files: `device` (life and packets), `configure`, `ipv4` and `labels` (netlink settings),
//! `closed` (routes that outlive the interface), `sysctl` (settings in /proc), `frame` (headers of
//! a packet), `offload` (super-packets that are read), `tcp` (those of TCP), `coalesce`
//! (super-packets that are written), `packets` (read buffers), `ioctl` (the only `unsafe`),
//! `error`.

#[doc(hidden)]
pub mod bench;
mod closed;
pub(crate) mod coalesce;
mod configure;
mod device;
mod error;
mod frame;
mod ioctl;
mod ipv4;
mod labels;
#[doc(hidden)]
pub mod offload;
pub(crate) mod packets;
mod sysctl;
mod tcp;
#[cfg(test)]
mod testing;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use lcroute_control::config::is_interface_name;
use lcroute_engine::Ipv4Network;
use librecast::cert::GroupPrefix;

pub use closed::close;
pub use configure::ALIAS;
pub use device::Device;
pub(crate) use device::{TAP_HEADERS, open_tap};
pub use error::Error;
pub use ipv4::Ipv4Prefix;
pub(crate) use ipv4::overlap;

/// Prefix length of the node address on `lc0`: that of the whole network.
///
/// The network is on link even if unicast is not carried, for two reasons. Hosts that check the
/// reverse path (firewalld does by default) drop multicast whose source has no route through the
/// interface on which it arrives. And packets to a node must not leave by the default route in
/// clear: `lc0` drops and counts them.
pub const NETWORK_PREFIX_LEN: u8 = 48;

/// Smallest MTU of a link that carries IPv6 (RFC 8200 §5). Below it the kernel removes all
/// addresses and memberships from the interface for good.
pub const MIN_MTU: u16 = 1280;

/// Mode of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Raw IP, point-to-point.
    Tun,
    /// Ethernet frames, broadcast, without neighbour discovery: programs see a LAN card.
    Tap,
}

/// An IPv6 prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// Network address; bits beyond `len` are zero.
    pub addr: Ipv6Addr,
    /// Length in bits, 0 to 128.
    pub len: u8,
}

impl Prefix {
    /// All groups.
    const ALL_GROUPS: Self = Self {
        addr: Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        len: 8,
    };

    /// Returns the prefix with the bits beyond its length cleared, as the kernel returns it.
    fn network(self) -> Self {
        let mask = u128::MAX
            .checked_shl(128 - u32::from(self.len))
            .unwrap_or(0);
        Self {
            addr: Ipv6Addr::from_bits(self.addr.to_bits() & mask),
            len: self.len,
        }
    }
}

/// The settings of `lc0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Interface name, 1 to 15 bytes.
    pub name: String,
    /// TUN or TAP.
    pub mode: Mode,
    /// In bytes, at least [`MIN_MTU`].
    pub mtu: u16,
    /// Length in packets. The usual 500 lose reports when thousands of groups are joined at once.
    pub tx_queue_len: u32,
    /// The node address (unique local), set with [`NETWORK_PREFIX_LEN`].
    pub address: Ipv6Addr,
    /// The only link-local address, set as a /64.
    pub link_local: Ipv6Addr,
    /// Multicast prefixes that go to `lc0` if a program names no interface.
    pub routes: Vec<Prefix>,
    /// Multicast prefixes that programs reach only by `lc0`, whether it exists or not.
    pub closed: Vec<Prefix>,
    /// Whether checksums and super-packets are offloaded, if the kernel supports it.
    pub offload: bool,
    /// IPv4, if it is carried.
    pub ipv4: Option<Ipv4Settings>,
    /// IPv4 prefixes that go to `lc0` if a program names no interface.
    pub ipv4_routes: Vec<Ipv4Prefix>,
}

/// IPv4 on the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Settings {
    /// The addresses of the network's nodes.
    pub network: Ipv4Network,
    /// This node's address, once it has one.
    pub address: Option<Ipv4Addr>,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tun => "tun",
            Self::Tap => "tap",
        })
    }
}

/// Returns routes for these groups: IPv6, IPv4.
#[must_use]
pub fn routes(groups: &[GroupPrefix]) -> (Vec<Prefix>, Vec<Ipv4Prefix>) {
    let (mut ipv6, mut ipv4) = (Vec::new(), Vec::new());
    for prefix in groups {
        match prefix.as_ipv4() {
            Some((addr, len)) => ipv4.push(Ipv4Prefix { addr, len }),
            None => ipv6.push(Prefix {
                addr: prefix.addr(),
                len: prefix.prefix_len(),
            }),
        }
    }
    (ipv6, ipv4)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl Settings {
    /// Refuses settings that the kernel would misread, or refuse without a reason.
    fn check(&self) -> Result<(), Error> {
        if !is_interface_name(&self.name) {
            let name = self.name.clone();
            return Err(Error::Name { name });
        }
        if self.mtu < MIN_MTU {
            return Err(Error::Mtu { mtu: self.mtu });
        }
        if !self.link_local.is_unicast_link_local() || self.address.is_unicast_link_local() {
            return Err(Error::Address {
                address: self.address,
                link_local: self.link_local,
            });
        }
        match self
            .routes
            .iter()
            .find(|route| !route.addr.is_multicast() || route.len > 128)
        {
            Some(&route) => Err(Error::Route { route }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            name: "lc0".to_owned(),
            mode: Mode::Tun,
            mtu: MIN_MTU,
            tx_queue_len: 10_000,
            address: "fd12:3456:789a::1".parse().unwrap(),
            link_local: "fe80::1".parse().unwrap(),
            routes: vec![Prefix {
                addr: "ff1e::".parse().unwrap(),
                len: 16,
            }],
            closed: Vec::new(),
            offload: true,
            ipv4: None,
            ipv4_routes: Vec::new(),
        }
    }

    #[test]
    fn ordinary_settings_pass() {
        settings().check().unwrap();
        for name in ["l", "lc0", "fifteen-bytes-x", "a.b"] {
            Settings {
                name: name.to_owned(),
                ..settings()
            }
            .check()
            .unwrap();
        }
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for name in [
            "",
            "sixteen-bytes-xx",
            "lc%d",
            "a/b",
            "a b",
            "all",
            "default",
            ".",
            "..",
            "é",
        ] {
            let refused = Settings {
                name: name.to_owned(),
                ..settings()
            }
            .check();
            assert!(matches!(refused, Err(Error::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn an_mtu_that_would_cost_the_memberships_is_refused() {
        let refused = Settings {
            mtu: 1279,
            ..settings()
        }
        .check();
        assert!(matches!(refused, Err(Error::Mtu { mtu: 1279 })));
    }

    #[test]
    fn unicast_routes_and_swapped_addresses_are_refused() {
        let route = Prefix {
            addr: "fd00::".parse().unwrap(),
            len: 8,
        };
        let refused = Settings {
            routes: vec![route],
            ..settings()
        }
        .check();
        assert!(matches!(refused, Err(Error::Route { .. })));
        let good = settings();
        let swapped = Settings {
            address: good.link_local,
            link_local: good.address,
            ..settings()
        };
        assert!(matches!(swapped.check(), Err(Error::Address { .. })));
    }
}
