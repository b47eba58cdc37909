//! Peers that a relay may send to: hosts of the Internet only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a relay may send to this address of another host; `private` permits site-local ones too.
///
/// By IANA's special-purpose registries (RFC 6890 and later): it refuses addresses that are not
/// globally reachable, and those that lead to IPv4 around these rules.
pub(super) fn may_relay(ip: IpAddr, private: bool) -> bool {
    match ip {
        IpAddr::V4(v4) if is_any(v4, LOCAL_V4) => private,
        IpAddr::V4(v4) => !is_any(v4, NEVER_V4),
        IpAddr::V6(v6) if is_any(v6, LOCAL_V6) => private,
        IpAddr::V6(v6) => GLOBAL.contains(v6) && !is_any(v6, NEVER_V6),
    }
}

/// An address and the number of its bits that count.
#[derive(Debug, Clone, Copy)]
struct Range<A>(A, u32);

/// Addresses within sites, and for documentation, measurements and laboratories.
const LOCAL_V4: &[Range<Ipv4Addr>] = &[
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 2, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
];

const NEVER_V4: &[Range<Ipv4Addr>] = &[
    v4([0, 0, 0, 0], 8),
    v4([127, 0, 0, 0], 8),
    // Azure's host agent
    v4([168, 63, 129, 16], 32),
    v4([169, 254, 0, 0], 16),
    v4([192, 0, 0, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([224, 0, 0, 0], 3),
];

const LOCAL_V6: &[Range<Ipv6Addr>] = &[
    v6([0x2001, 0xdb8], 32),
    v6([0x3fff, 0], 20),
    v6([0xfc00, 0], 7),
];

/// Global unicast by IANA, without mapped, translated (RFC 6052), discard-only and link-local ones.
const GLOBAL: Range<Ipv6Addr> = v6([0x2000, 0], 3);

const NEVER_V6: &[Range<Ipv6Addr>] = &[
    // IETF protocols, such as Teredo
    v6([0x2001, 0], 23),
    // 6to4
    v6([0x2002, 0], 16),
];

const fn v4([a, b, c, d]: [u8; 4], length: u32) -> Range<Ipv4Addr> {
    Range(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6([a, b]: [u16; 2], length: u32) -> Range<Ipv6Addr> {
    Range(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

trait Contains<A> {
    fn contains(&self, address: A) -> bool;
}

impl Contains<Ipv4Addr> for Range<Ipv4Addr> {
    fn contains(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.0.to_bits()).leading_zeros() >= self.1
    }
}

impl Contains<Ipv6Addr> for Range<Ipv6Addr> {
    fn contains(&self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.0.to_bits()).leading_zeros() >= self.1
    }
}

fn is_any<A: Copy>(address: A, ranges: &[Range<A>]) -> bool
where
    Range<A>: Contains<A>,
{
    ranges.iter().any(|range| range.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_the_registries_are_refused_to_their_last_address_and_their_neighbours_are_not() {
        // (first, last, whether `private` permits it), as in IANA's special-purpose registries
        for (first, last, local) in [
            ("0.0.0.0", "0.255.255.255", false),
            ("10.0.0.0", "10.255.255.255", true),
            ("100.64.0.0", "100.127.255.255", true),
            ("127.0.0.0", "127.255.255.255", false),
            ("169.254.0.0", "169.254.255.255", false),
            ("172.16.0.0", "172.31.255.255", true),
            ("192.0.0.0", "192.0.0.255", false),
            ("192.0.2.0", "192.0.2.255", true),
            ("192.88.99.0", "192.88.99.255", false),
            ("192.168.0.0", "192.168.255.255", true),
            ("198.18.0.0", "198.19.255.255", true),
            ("198.51.100.0", "198.51.100.255", true),
            ("203.0.113.0", "203.0.113.255", true),
            ("168.63.129.16", "168.63.129.16", false),
            ("224.0.0.0", "255.255.255.255", false),
            ("::", "::ffff:ffff:ffff", false),
            ("64:ff9b::", "64:ff9b::ffff:ffff", false),
            ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", false),
            ("100::", "100::ffff:ffff:ffff:ffff", false),
            ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("fe80::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
        ] {
            for ip in [first, last].map(|ip| ip.parse().unwrap()) {
                assert!(!may_relay(ip, false), "{ip}");
                assert_eq!(may_relay(ip, true), local, "{ip}");
            }
        }
        for ip in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::",
            "2001:db7:ffff::",
            "2001:db9::",
            "2003::1",
            "2606:4700:4700::1111",
            "3ffe:ffff::",
            "3fff:1000::",
        ] {
            let ip = ip.parse().unwrap();
            assert!(may_relay(ip, false) && may_relay(ip, true), "{ip}");
        }
    }
}
