//! Settings of a LAN, from a gateway's configuration and interface.

use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::cert::{GroupPrefix, SourcePrefix};
use librecast::ethernet::MacAddress;

use super::mdns;
use crate::segment::{Link, SegmentSettings, is_inside};

/// A LAN by its gateway's configuration and interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanSettings {
    /// The interface's name, for logs and `lcroute lan`.
    pub name: String,
    /// Groups that are carried.
    pub groups: Vec<GroupPrefix>,
    /// Hosts may send into the network.
    pub send: bool,
    /// Hosts receive packets of the network.
    pub receive: bool,
    /// Addresses of hosts: configured, or on link.
    pub prefixes: Vec<SourcePrefix>,
    /// The interface's Ethernet address.
    pub mac: MacAddress,
    /// The interface's link-local address.
    pub link_local: Ipv6Addr,
    /// IPv4 addresses; none: the interface has none.
    pub ipv4: Option<LanIpv4>,
    /// MTU in bytes.
    pub mtu: u16,
    /// Rate of all hosts together into the network, in bits a second.
    pub rate: u64,
    /// Rate into the LAN, in bits a second.
    pub rate_out: u64,
    /// Priority in the election, if all else is equal: the greatest wins.
    pub priority: u8,
    /// Multicast DNS is repeated from and to other links.
    pub reflect_mdns: bool,
    /// Hosts receive a prefix for addresses.
    pub advertise: bool,
    /// The segment of which this LAN is a part.
    pub segment: Option<SegmentSettings>,
}

impl LanSettings {
    /// All groups that are carried.
    pub fn carried(&self) -> Vec<GroupPrefix> {
        let mdns = self.reflect_mdns.then(|| GroupPrefix::group(mdns::GROUP));
        self.groups.iter().copied().chain(mdns).collect()
    }

    /// Whether IPv4 groups are carried.
    pub fn has_ipv4_groups(&self) -> bool {
        self.groups.iter().any(|prefix| prefix.as_ipv4().is_some())
    }

    /// The gateway's place on the LAN, for its segment. `prefixes`: those of IPv6 on link.
    pub(super) fn link(&self, prefixes: Vec<SourcePrefix>) -> Link {
        let ipv4 = self.ipv4.as_ref();
        Link {
            mac: self.mac,
            link_local: self.link_local,
            ipv4: ipv4.map(|ipv4| ipv4.address),
            ipv4_prefixes: ipv4.map(|ipv4| ipv4.prefixes.clone()).unwrap_or_default(),
            prefixes,
            mtu: self.mtu,
            rate: self.rate,
            rate_out: self.rate_out,
        }
    }

    /// Source of IPv4 queries and reports; none: not needed, or without an address.
    pub(crate) fn ipv4_address(&self) -> Option<Ipv4Addr> {
        let is_used = self.has_ipv4_groups() || self.segment.is_some();
        let ipv4 = self.ipv4.as_ref().filter(|_| is_used);
        ipv4.map(|ipv4| ipv4.address)
    }
}

/// IPv4 on a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanIpv4 {
    /// The interface's lowest address, so that the source of queries stays the same.
    pub address: Ipv4Addr,
    /// Prefixes of hosts: address and length.
    pub prefixes: Vec<(Ipv4Addr, u8)>,
}

impl LanIpv4 {
    /// Whether a host is on link.
    pub(super) fn contains(&self, host: Ipv4Addr) -> bool {
        self.prefixes.iter().any(|prefix| is_inside(*prefix, host))
    }
}
