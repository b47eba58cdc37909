//! The mapping, or the reason why there is none.

use std::net::{Ipv4Addr, SocketAddrV4};

use lcroute_netlink::is_behind_nat;

/// A protocol for port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

impl Protocol {
    /// All protocols, in the order in which they are tried.
    pub(crate) const ALL: [Self; 3] = [Self::Pcp, Self::NatPmp, Self::Upnp];

    /// Returns the name for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        }
    }
}

/// The router's mapping of a UDP port; without address and failure it was not asked yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The router's address and port.
    pub address: Option<SocketAddrV4>,
    /// Its protocol.
    pub by: Option<Protocol>,
    /// Reason for a missing mapping.
    pub failure: Option<String>,
}

impl Status {
    /// Returns the mapped address, if hosts on the Internet reach it: the router is behind no other
    /// NAT.
    pub fn public(&self) -> Option<SocketAddrV4> {
        self.address.filter(|at| !is_behind_nat(*at.ip()))
    }
}

/// Whether an address of a router may be offered; a private one may, for hosts behind that NAT.
pub(crate) fn is_offerable(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    !(first == 0 || first >= 224 || ip.is_loopback() || ip.is_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_nowhere_are_not_offered() {
        for (ip, expected) in [
            ("203.0.113.5", true),
            ("10.1.2.3", true),
            ("100.64.1.2", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("169.254.3.4", false),
            ("224.0.0.1", false),
            ("239.255.255.250", false),
            ("255.255.255.255", false),
            ("240.0.0.1", false),
        ] {
            assert_eq!(is_offerable(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn an_address_behind_another_nat_is_not_public() {
        let at = |address: &str| Status {
            address: address.parse().ok(),
            ..Status::default()
        };
        assert!(at("203.0.113.5:7000").public().is_some());
        for address in ["10.1.2.3:7000", "100.64.1.2:7000", ""] {
            assert_eq!(at(address).public(), None, "{address}");
        }
    }
}
