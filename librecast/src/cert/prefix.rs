//! Ranges of addresses: of groups, and of senders.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::wire::WireError;

/// What all prefixes can do.
macro_rules! prefix {
    ($name:ident) => {
        impl $name {
            /// The first address.
            #[must_use]
            #[inline]
            pub fn addr(&self) -> Ipv6Addr {
                self.addr
            }

            /// Length in bits, at most 128.
            #[must_use]
            #[inline]
            pub fn prefix_len(&self) -> u8 {
                self.len
            }

            /// Whether `address` lies inside.
            #[must_use]
            #[inline]
            pub fn contains(&self, address: Ipv6Addr) -> bool {
                address.to_bits() & mask(self.len) == self.addr.to_bits()
            }

            /// Whether all of `other` lies inside.
            #[must_use]
            #[inline]
            pub fn covers(&self, other: &Self) -> bool {
                other.len >= self.len && self.contains(other.addr)
            }

            /// `ADDRESS/LENGTH`, or one address.
            fn parse(text: &str) -> Option<Self> {
                let (addr, len) = text.split_once('/').unwrap_or((text, "128"));
                Self::new(addr.parse().ok()?, len.parse().ok()?).ok()
            }
        }
    };
}

prefix!(GroupPrefix);
prefix!(SourcePrefix);

/// Group addresses that share their first bits, such as `ff1e::/16`; a single group has 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupPrefix {
    addr: Ipv6Addr,
    len: u8,
}

impl GroupPrefix {
    /// All groups: `ff00::/8`.
    pub const ALL: Self = Self {
        addr: Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        len: 8,
    };

    /// A multicast prefix of 8 to 128 bits.
    ///
    /// # Errors
    ///
    /// [`WireError::Bad`] for another length, no multicast address, or bits set behind the length.
    pub fn new(addr: Ipv6Addr, len: u8) -> Result<Self, WireError> {
        let ok =
            (8..=128).contains(&len) && addr.is_multicast() && addr.to_bits() & !mask(len) == 0;
        if ok {
            Ok(Self { addr, len })
        } else {
            Err(WireError::Bad("group prefix"))
        }
    }

    /// The first `len` bits of `addr`, at least 8 of them; `None` if these are not multicast.
    #[must_use]
    pub fn around(addr: Ipv6Addr, len: u8) -> Option<Self> {
        let first = Ipv6Addr::from_bits(addr.to_bits() & mask(len));
        Self::new(first, len).ok()
    }

    /// One group.
    #[must_use]
    pub fn group(group: Ipv6Addr) -> Self {
        Self {
            addr: group,
            len: 128,
        }
    }

    /// The one group, if it is one.
    #[must_use]
    pub fn as_group(&self) -> Option<Ipv6Addr> {
        (self.len == 128).then_some(self.addr)
    }
}

/// Sender addresses that share their first bits, such as `2001:db8:5::/64`: those of the hosts of a LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePrefix {
    addr: Ipv6Addr,
    len: u8,
}

impl SourcePrefix {
    /// All senders: `::/0`, which is written `any`.
    pub const ANY: Self = Self {
        addr: Ipv6Addr::UNSPECIFIED,
        len: 0,
    };

    /// A unicast prefix of up to 128 bits; [`Self::ANY`] has none.
    ///
    /// # Errors
    ///
    /// [`WireError::Bad`] for another length, a multicast, link-local or unspecified prefix, or bits set behind the length.
    pub fn new(addr: Ipv6Addr, len: u8) -> Result<Self, WireError> {
        let bits = addr.to_bits();
        let is_unicast = len >= 8 && !addr.is_unspecified() && !addr.is_multicast();
        let ok = len <= 128 && bits & !mask(len) == 0 && !addr.is_unicast_link_local();
        if ok && (is_unicast || addr == Self::ANY.addr && len == 0) {
            Ok(Self { addr, len })
        } else {
            Err(WireError::Bad("source prefix"))
        }
    }
}

#[inline]
fn mask(len: u8) -> u128 {
    u128::MAX
        .checked_shl(128_u32.saturating_sub(len.into()))
        .unwrap_or(0)
}

impl fmt::Display for GroupPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for GroupPrefix {
    type Err = WireError;

    fn from_str(s: &str) -> Result<Self, WireError> {
        Self::parse(s).ok_or(WireError::Bad("group prefix: write it as ff1e::/16"))
    }
}

impl fmt::Display for SourcePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return f.write_str("any");
        }
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for SourcePrefix {
    type Err = WireError;

    fn from_str(s: &str) -> Result<Self, WireError> {
        if s == "any" {
            return Ok(Self::ANY);
        }
        let bad = WireError::Bad("source prefix: write it as 2001:db8:5::/64, or any");
        Self::parse(s).ok_or(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_multicast_and_clean() {
        let p: GroupPrefix = "ff1e::/16".parse().unwrap();
        assert!(p.contains("ff1e:1::9".parse().unwrap()));
        assert!(!p.contains("ff15::9".parse().unwrap()));
        assert!(GroupPrefix::ALL.covers(&p) && !p.covers(&GroupPrefix::ALL));
        for bad in [
            "::/0",
            "fe80::/16",
            "ff1e::1/16",
            "ff1e::/129",
            "ff1e::/x",
            "",
            "ff00::/7",
        ] {
            assert!(bad.parse::<GroupPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn source_prefixes_are_unicast_and_clean() {
        let p: SourcePrefix = "2001:db8:5::/64".parse().unwrap();
        assert!(p.contains("2001:db8:5::1:9".parse().unwrap()));
        assert!(!p.contains("2001:db8:5:1::9".parse().unwrap()));
        assert!(SourcePrefix::ANY.covers(&p) && !p.covers(&SourcePrefix::ANY));
        for good in ["any", "2001:db8:5::/64", "fd00::9/128"] {
            assert_eq!(good.parse::<SourcePrefix>().unwrap().to_string(), good);
        }
        for bad in [
            "::/8",
            "::",
            "ff1e::/16",
            "fe80::/64",
            "fd00::1/64",
            "fd00::/129",
            "2000::/3",
            "",
        ] {
            assert!(bad.parse::<SourcePrefix>().is_err(), "{bad}");
        }
    }
}
