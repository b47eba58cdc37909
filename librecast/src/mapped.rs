//! IPv6 names of IPv4 groups and sources, so that routing uses one kind of address.
//!
//! | IPv4 | name | scope |
//! |---|---|---|
//! | group in 224.0.0.0/24 | `ff12::ffff:a.b.c.d` | link |
//! | group in 232.0.0.0/8 (RFC 4607 §1) | `ff3e::ffff:a.b.c.d` | source-specific |
//! | any other group | `ff1e::ffff:a.b.c.d` | global |
//! | source, node | `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2) | |
//!
//! No packet is translated: the names are for tables and messages, and users never see them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bits of a name before those of the IPv4 address.
pub const PREFIX_LEN: u8 = 96;
/// The bits between the first 16 and the last 32 of every name.
const MIDDLE: u128 = 0xffff << 32;
/// The mask of [`MIDDLE`].
const MIDDLE_MASK: u128 = u128::MAX >> 16 & !0xffff_ffff;

/// The first 16 bits of names of groups that stay on their link: 224.0.0.0/24 (RFC 5771 §4).
const LINK_SCOPE: u128 = 0xff12 << 112;
/// The first 16 bits of names of source-specific groups: 232.0.0.0/8 (RFC 4607 §1).
const SOURCE_SPECIFIC: u128 = 0xff3e << 112;
/// The first 16 bits of names of all other groups.
const GLOBAL_SCOPE: u128 = 0xff1e << 112;

/// Ranges of IPv4 groups by form of name, narrower first: address, length, first bits of names.
pub(crate) const RANGES: [(Ipv4Addr, u8, u128); 3] = [
    (Ipv4Addr::new(224, 0, 0, 0), 24, LINK_SCOPE),
    (Ipv4Addr::new(232, 0, 0, 0), 8, SOURCE_SPECIFIC),
    (Ipv4Addr::new(224, 0, 0, 0), 4, GLOBAL_SCOPE),
];

/// Returns the name of an IPv4 group or host.
pub fn name(address: Ipv4Addr) -> Ipv6Addr {
    let first = match address.octets() {
        [224, 0, 0, _] => LINK_SCOPE,
        [232, ..] => SOURCE_SPECIFIC,
        _ if address.is_multicast() => GLOBAL_SCOPE,
        _ => 0,
    };
    Ipv6Addr::from_bits(first | MIDDLE | u128::from(address.to_bits()))
}

/// Returns the name of any address; an IPv6 address is its own.
pub fn name_of(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => name(address),
        IpAddr::V6(address) => address,
    }
}

/// Returns the IPv4 address of a name; `None` if it is not such a name.
pub fn ipv4(of: Ipv6Addr) -> Option<Ipv4Addr> {
    // truncates to the last 32 bits on purpose
    let address = Ipv4Addr::from_bits(of.to_bits() as u32);
    (name(address) == of).then_some(address)
}

/// Returns an address in users' form.
pub fn shown(of: Ipv6Addr) -> IpAddr {
    ipv4(of).map_or(IpAddr::V6(of), IpAddr::V4)
}

/// Returns whether a group has the form of an IPv4 group's name: it receives no IPv6 packets.
#[inline]
pub fn is_group_name(group: Ipv6Addr) -> bool {
    let bits = group.to_bits();
    let first = bits >> 112 << 112;
    bits & MIDDLE_MASK == MIDDLE && [LINK_SCOPE, SOURCE_SPECIFIC, GLOBAL_SCOPE].contains(&first)
}

/// Returns whether an address is the name of an IPv4 host.
#[inline]
pub fn is_host_name(address: Ipv6Addr) -> bool {
    address.to_bits() >> 32 == MIDDLE >> 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_have_names_of_their_own() {
        for (address, expected) in [
            ("224.0.0.251", "ff12::ffff:224.0.0.251"),
            ("224.0.1.1", "ff1e::ffff:224.0.1.1"),
            ("232.1.2.3", "ff3e::ffff:232.1.2.3"),
            ("239.255.0.1", "ff1e::ffff:239.255.0.1"),
            ("10.77.1.2", "::ffff:10.77.1.2"),
        ] {
            let address: Ipv4Addr = address.parse().unwrap();
            assert_eq!(name(address), expected.parse::<Ipv6Addr>().unwrap());
            assert_eq!(shown(name(address)).to_string(), address.to_string());
        }
    }

    #[test]
    fn what_only_looks_like_a_name_is_of_no_address() {
        for other in [
            "ff12::ffff:239.1.1.1",
            "ff1e::ffff:232.1.1.1",
            "ff1e::ffff:10.1.1.1",
        ] {
            let other: Ipv6Addr = other.parse().unwrap();
            assert_eq!(ipv4(other), None);
            assert!(is_group_name(other), "and no packet goes there");
        }
        for other in [
            "::ffff:239.1.1.1",
            "ff1e::1:ffff:239.1.1.1",
            "ff15::ffff:239.1.1.1",
        ] {
            let other: Ipv6Addr = other.parse().unwrap();
            assert_eq!(ipv4(other), None);
            assert!(!is_group_name(other));
        }
    }

    proptest! {
        #[test]
        fn names_and_addresses_are_a_bijection(bits: u32, group in 0xe000_0000u32..0xf000_0000, any: u128) {
            for bits in [bits, group] {
                let address = Ipv4Addr::from_bits(bits);
                let named = name(address);
                prop_assert_eq!(ipv4(named), Some(address));
                prop_assert_eq!(name_of(shown(named)), named);
                prop_assert_eq!(is_group_name(named), address.is_multicast());
                prop_assert_eq!(is_host_name(named), !address.is_multicast());
            }
            let any = Ipv6Addr::from_bits(any);
            prop_assert_eq!(name_of(shown(any)), any);
            if let Some(address) = ipv4(any) {
                prop_assert_eq!(name(address), any);
            }
        }
    }
}
