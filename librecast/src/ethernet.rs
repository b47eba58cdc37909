//! Ethernet addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// The EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// The EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

/// The first bytes of virtual addresses: locally administered, and "lc" in ASCII.
const VIRTUAL: [u8; 3] = [0x02, 0x6c, 0x63];

impl MacAddress {
    /// The address of all hosts.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Returns the virtual address with these low bytes, which stands for hosts of other LANs.
    #[must_use]
    pub const fn virtual_of([a, b, c]: [u8; 3]) -> Self {
        let [x, y, z] = VIRTUAL;
        Self([x, y, z, a, b, c])
    }

    /// Returns whether it is a virtual address, of any network: a gateway sent the frame.
    pub fn is_virtual(&self) -> bool {
        self.0.starts_with(&VIRTUAL)
    }

    /// Returns the address of an IPv6 group (RFC 2464 §7).
    #[must_use]
    pub fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }

    /// Returns the address of an IPv4 group (RFC 1112 §6.4), which 32 groups share.
    #[must_use]
    pub fn of_ipv4_group(group: Ipv4Addr) -> Self {
        let [_, a, b, c] = group.octets();
        Self([0x01, 0x00, 0x5e, a & 0x7f, b, c])
    }

    /// Returns whether it is a group address.
    pub fn is_group(&self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_addresses_of_their_own() {
        let mac = MacAddress::of_group("ff1e::1234:5678".parse().unwrap());
        assert_eq!(mac.to_string(), "33:33:12:34:56:78");
        let ipv4 = MacAddress::of_ipv4_group("239.255.0.1".parse().unwrap());
        assert_eq!(ipv4.to_string(), "01:00:5e:7f:00:01");
        assert!(mac.is_group() && !MacAddress([2, 0, 0, 0, 0, 1]).is_group());
        assert!(MacAddress::BROADCAST.is_group());
    }

    #[test]
    fn virtual_addresses_are_known_by_their_first_bytes() {
        let mac = MacAddress::virtual_of([1, 2, 3]);
        assert_eq!(mac.to_string(), "02:6c:63:01:02:03");
        assert!(mac.is_virtual() && !mac.is_group());
        assert!(!MacAddress([2, 0x6c, 0x64, 1, 2, 3]).is_virtual());
    }
}
