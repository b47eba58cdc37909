//! Internet locations of nodes. Keys and addresses within a prefix are free: bounds count by site.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A part of the address space that one party may have, with prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Its size.
    pub size: SiteSize,
    network: IpAddr,
}

/// Sizes of sites, from a host's to a provider's assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SiteSize {
    /// An address of IPv4, or a /64 of IPv6.
    Address,
    /// A /56 of IPv6.
    Subnet,
    /// A /24 of IPv4, or a /48 of IPv6.
    Whole,
}

impl SiteSize {
    /// Returns its multiple of an address's share. Chosen: a provider's NAT has adjacent addresses.
    #[must_use]
    pub const fn share(self) -> usize {
        match self {
            Self::Address => 1,
            Self::Subnet => 2,
            Self::Whole => 4,
        }
    }
}

impl Site {
    /// Returns all sites of an address, the smallest first.
    pub fn around(ip: IpAddr) -> impl Iterator<Item = Self> + Clone {
        use SiteSize::{Address, Subnet, Whole};
        let ip = ip.to_canonical();
        [Address, Subnet, Whole]
            .into_iter()
            .filter_map(move |size| {
                let network = match ip {
                    IpAddr::V4(v4) => {
                        let length = v4_length(size)?;
                        Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << (32 - length))).into()
                    }
                    IpAddr::V6(v6) => {
                        let length = v6_length(size);
                        Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - length))).into()
                    }
                };
                Some(Self { size, network })
            })
    }
}

fn v4_length(size: SiteSize) -> Option<u32> {
    match size {
        SiteSize::Address => Some(32),
        SiteSize::Subnet => None,
        SiteSize::Whole => Some(24),
    }
}

fn v6_length(size: SiteSize) -> u32 {
    match size {
        SiteSize::Address => 64,
        SiteSize::Subnet => 56,
        SiteSize::Whole => 48,
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, v4_length(self.size)) {
            (IpAddr::V4(v4), Some(32)) => write!(f, "{v4}"),
            (IpAddr::V4(v4), length) => write!(f, "{v4}/{}", length.unwrap_or(32)),
            (IpAddr::V6(v6), _) => write!(f, "{v6}/{}", v6_length(self.size)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_sites() {
        for (ip, sites) in [
            ("198.51.100.7", &["198.51.100.7", "198.51.100.0/24"][..]),
            ("::ffff:198.51.100.7", &["198.51.100.7", "198.51.100.0/24"]),
            (
                "2001:db8:1:2345::6",
                &[
                    "2001:db8:1:2345::/64",
                    "2001:db8:1:2300::/56",
                    "2001:db8:1::/48",
                ],
            ),
        ] {
            let around = Site::around(ip.parse().unwrap());
            assert_eq!(around.map(|s| s.to_string()).collect::<Vec<_>>(), sites);
        }
    }
}
