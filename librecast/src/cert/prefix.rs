//! Ranges of addresses: of groups, and of senders.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::channel::ASKING;
use crate::mapped;
use crate::wire::WireError;

/// The methods of all prefixes.
macro_rules! prefix {
    ($name:ident) => {
        impl $name {
            /// Returns the first address.
            #[inline]
            pub fn addr(&self) -> Ipv6Addr {
                self.addr
            }

            /// Returns the length in bits, at most 128.
            #[inline]
            pub fn prefix_len(&self) -> u8 {
                self.len
            }

            /// Returns whether `address` lies inside.
            #[inline]
            pub fn contains(&self, address: Ipv6Addr) -> bool {
                address.to_bits() & mask(self.len) == self.addr.to_bits()
            }

            /// Returns whether all of `other` lies inside.
            #[inline]
            pub fn covers(&self, other: &Self) -> bool {
                other.len >= self.len && self.contains(other.addr)
            }

            /// Parses `ADDRESS/LENGTH`, or one address.
            fn parse(text: &str) -> Option<Self> {
                let (addr, len) = text.split_once('/').unwrap_or((text, "128"));
                Self::new(addr.parse().ok()?, len.parse().ok()?).ok()
            }
        }
    };
}

prefix!(GroupPrefix);
prefix!(SourcePrefix);

/// Group addresses with common first bits, such as `ff1e::/16`; a single group has 128.
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

    /// Makes a multicast prefix of 8 to 128 bits.
    ///
    /// # Errors
    /// [`WireError::Bad`] for another length, no multicast address, or bits set after the length.
    pub fn new(addr: Ipv6Addr, len: u8) -> Result<Self, WireError> {
        let ok =
            (8..=128).contains(&len) && addr.is_multicast() && addr.to_bits() & !mask(len) == 0;
        if ok {
            Ok(Self { addr, len })
        } else {
            Err(WireError::Bad("group prefix"))
        }
    }

    /// Returns the prefix of asking groups, to which leaves may send.
    pub fn asking() -> Self {
        let [first, second] = ASKING;
        Self {
            addr: Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0),
            len: 32,
        }
    }

    /// Returns the prefix of at least 8 first bits of `addr`; `None` if these are not multicast.
    pub fn around(addr: Ipv6Addr, len: u8) -> Option<Self> {
        let first = Ipv6Addr::from_bits(addr.to_bits() & mask(len));
        Self::new(first, len).ok()
    }

    /// Parses a prefix in users' form, `ff1e::/16` or `239.1.0.0/16`. One of IPv4 may become
    /// several, as 224.0.0.0/24 and 232.0.0.0/8 have names of their own ([`mapped`]).
    ///
    /// # Errors
    /// It is not a prefix of groups.
    pub fn all_of(text: &str) -> Result<Vec<Self>, WireError> {
        let bad = WireError::Bad("group prefix: write it as ff1e::/16 or 239.1.0.0/16");
        let (addr, len) = text.split_once('/').unwrap_or((text, ""));
        let Ok(addr) = addr.parse::<Ipv4Addr>() else {
            return Self::parse(text).map(|prefix| vec![prefix]).ok_or(bad);
        };
        let len = match len {
            "" if !text.contains('/') => 32,
            len => len.parse().map_err(|_| bad)?,
        };
        let is_clean = (4..=32).contains(&len) && addr.to_bits() & !ipv4_mask(len) == 0;
        if !is_clean || !addr.is_multicast() {
            return Err(bad);
        }
        let mut all = Vec::new();
        for (range, range_len, name) in mapped::RANGES {
            let is_inside =
                len >= range_len && addr.to_bits() & ipv4_mask(range_len) == range.to_bits();
            let (addr, len) = if is_inside {
                (addr, len)
            } else if range.to_bits() & ipv4_mask(len) == addr.to_bits() {
                (range, range_len)
            } else {
                continue;
            };
            let bits = name | mapped::name(Ipv4Addr::UNSPECIFIED).to_bits();
            let addr = Ipv6Addr::from_bits(bits | u128::from(addr.to_bits()));
            all.push(Self::new(addr, mapped::PREFIX_LEN + len)?);
            if is_inside {
                break;
            }
        }
        Ok(all)
    }

    /// Returns the IPv4 prefix, if its groups are IPv4 groups.
    pub fn as_ipv4(&self) -> Option<(Ipv4Addr, u8)> {
        let len = self.len.checked_sub(mapped::PREFIX_LEN)?;
        // truncates to the last 32 bits on purpose
        let addr = Ipv4Addr::from_bits(self.addr.to_bits() as u32);
        let is_name = mapped::is_group_name(self.addr) && addr.is_multicast();
        is_name.then_some((addr, len))
    }

    /// Makes the prefix of one group.
    pub fn group(group: Ipv6Addr) -> Self {
        Self {
            addr: group,
            len: 128,
        }
    }

    /// Returns the group, if it is only one.
    pub fn as_group(&self) -> Option<Ipv6Addr> {
        (self.len == 128).then_some(self.addr)
    }
}

/// Sender addresses with common first bits, such as `2001:db8:5::/64`: those of a LAN's hosts.
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

    /// Makes a unicast prefix of up to 128 bits; [`Self::ANY`] has none.
    ///
    /// # Errors
    /// [`WireError::Bad`] for a wrong length, another kind of address, or bits after the length.
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

#[inline]
fn ipv4_mask(len: u8) -> u32 {
    u32::MAX
        .checked_shl(32_u32.saturating_sub(len.into()))
        .unwrap_or(0)
}

impl fmt::Display for GroupPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((addr, len)) = self.as_ipv4() {
            return write!(f, "{addr}/{len}");
        }
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for GroupPrefix {
    type Err = WireError;

    fn from_str(s: &str) -> Result<Self, WireError> {
        match Self::all_of(s)?[..] {
            [one] => Ok(one),
            _ => Err(WireError::Bad(
                "group prefix: 224.0.0.0/24 and 232.0.0.0/8 stand for themselves",
            )),
        }
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
    fn ipv4_prefixes_are_written_with_dots() {
        for (text, inside) in [
            ("239.1.0.0/16", "ff1e::ffff:239.1.0.0/112"),
            ("232.0.0.0/8", "ff3e::ffff:232.0.0.0/104"),
            ("232.1.0.0/16", "ff3e::ffff:232.1.0.0/112"),
            ("224.0.0.251/32", "ff12::ffff:224.0.0.251/128"),
            ("224.0.1.0/24", "ff1e::ffff:224.0.1.0/120"),
        ] {
            let prefix: GroupPrefix = text.parse().unwrap();
            assert_eq!(prefix, inside.parse().unwrap());
            assert_eq!(prefix.to_string(), text);
        }
        let all = |text| GroupPrefix::all_of(text).unwrap();
        let shown = |text| {
            all(text)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(shown("239.1.2.3"), ["239.1.2.3/32"]);
        assert_eq!(
            shown("224.0.0.0/4"),
            ["224.0.0.0/24", "232.0.0.0/8", "224.0.0.0/4"]
        );
        assert_eq!(shown("224.0.0.0/8"), ["224.0.0.0/24", "224.0.0.0/8"]);
        for group in ["224.0.0.251", "232.1.1.1", "239.255.0.1", "224.0.1.129"] {
            let name = mapped::name(group.parse().unwrap());
            assert!(
                all("224.0.0.0/4")
                    .iter()
                    .any(|prefix| prefix.contains(name))
            );
        }
        assert!("224.0.0.0/4".parse::<GroupPrefix>().is_err(), "it is three");
        for bad in [
            "10.0.0.0/8",
            "239.1.0.0/8",
            "239.1.0.0/33",
            "224.0.0.0/3",
            "239.1.0.0/",
            "239.1",
        ] {
            assert!(GroupPrefix::all_of(bad).is_err(), "{bad}");
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
