//! Segments by number, and their groups in the network.
//!
//! ```text
//! segment  first 96 bits of derive_key("lcroute 2026 segment", network prefix 48 | name)
//! groups   ff15:6c63::/32 | first 32 bits of the segment | low 64 bits:
//!          0 4 | 0 60                                broadcast, 224.0.0.0/24, ff02::1, messages
//!          4 4 | 0 28 | IPv4 group 32
//!          6 4 | flags 4 | scope 4 | low 52 bits     of an IPv6 group of scope 2 to 5
//! ```
//! Two segments may share groups: packets name theirs by all 96 bits.

use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::cert::GroupPrefix;
use librecast::id::derive;
use librecast::ipv6::HEADER_LEN;
use librecast::mapped;
use librecast::mld::ALL_NODES;

use crate::classify::scope;

/// Next header of a segment's packets: the second of those for experiments (RFC 3692 §3.2).
pub const NEXT_HEADER: u8 = 254;
/// Offset of the next header in an IPv6 header (RFC 8200 §3).
const NEXT_HEADER_AT: usize = 6;
/// The first 32 bits of all groups of segments: scope 5, and "lc" in ASCII.
const GROUPS: u128 = 0xff15_6c63 << 96;
/// Bits of a group behind those of its segment.
const LOW_BITS: u32 = 64;
/// Bits of an IPv6 group that its group in a segment keeps; the others have to be zero.
const KEPT_BITS: u32 = 52;
/// The first 104 bits of groups of solicited nodes, ff02::1:ff00:0 (RFC 4291 §2.7.1).
const SOLICITED_NODES: u128 = 0x00ff_0200_0000_0000_0000_0000_01ff;

/// Bytes of a segment's number: nobody finds a name with the number of another one.
pub const SEGMENT_LEN: usize = 12;

/// The number of a segment in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentId([u8; SEGMENT_LEN]);

impl SegmentId {
    /// The segment of this name, in the network of a node with this address.
    pub fn of(node: Ipv6Addr, name: &str) -> Self {
        let hash = derive(
            "lcroute 2026 segment",
            &[&node.octets()[..6], name.as_bytes()],
        );
        let mut bytes = [0; SEGMENT_LEN];
        bytes.copy_from_slice(&hash[..SEGMENT_LEN]);
        Self(bytes)
    }

    /// The segment with these bytes.
    pub fn new(bytes: [u8; SEGMENT_LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(self) -> [u8; SEGMENT_LEN] {
        self.0
    }

    /// The group of broadcast and questions.
    pub fn all(self) -> Ipv6Addr {
        self.with_low(0)
    }

    /// All groups of the segment.
    pub fn prefix(self) -> GroupPrefix {
        GroupPrefix::new(self.all(), LOW_BITS as u8).unwrap_or(GroupPrefix::group(self.all()))
    }

    /// Whether a group is one of any segment: no program and no LAN host joins it.
    pub fn is_group(group: Ipv6Addr) -> bool {
        group.to_bits() >> 96 == GROUPS >> 96
    }

    fn with_low(self, low: u64) -> Ipv6Addr {
        let [a, b, c, d, ..] = self.0;
        let number = u128::from(u32::from_be_bytes([a, b, c, d]));
        Ipv6Addr::from_bits(GROUPS | number << LOW_BITS | u128::from(low))
    }

    /// The group of a segment for packets to this group of a LAN, by its name; `None`: they stay on
    /// the LAN, or go as those of all other nodes.
    pub fn group_of(self, group: Ipv6Addr) -> Option<Ipv6Addr> {
        if mapped::is_group_name(group) {
            let group = mapped::ipv4(group)?;
            return Some(match group.octets() {
                [224, 0, 0, _] => self.all(),
                _ => self.with_low(4 << 60 | u64::from(group.to_bits())),
            });
        }
        let is_carried = group.is_multicast() && (2..=5).contains(&scope(group));
        // a gateway answers what is sent to groups of solicited nodes
        if !is_carried || group.to_bits() >> 24 == SOLICITED_NODES {
            return None;
        }
        if group == ALL_NODES {
            return Some(self.all());
        }
        let bits = group.to_bits();
        let first = (bits >> 112) as u64 & 0xff;
        let kept = bits & ((1 << KEPT_BITS) - 1);
        let is_kept = bits << 16 >> 16 == kept;
        is_kept.then(|| self.with_low(6 << 60 | first << KEPT_BITS | kept as u64))
    }

    /// The group of a LAN for a group of this segment; `None`: it is for all hosts, or no such
    /// group.
    pub fn group_in(self, group: Ipv6Addr) -> Option<Ipv6Addr> {
        if self.with_low(0).to_bits() >> LOW_BITS != group.to_bits() >> LOW_BITS {
            return None;
        }
        // the low half
        let low = group.to_bits() as u64;
        let inner = match low >> 60 {
            4 => mapped::name(Ipv4Addr::from_bits(low as u32)),
            6 => {
                let first = 0xff00 | low >> KEPT_BITS & 0xff;
                let kept = low & ((1 << KEPT_BITS) - 1);
                Ipv6Addr::from_bits(u128::from(first) << 112 | u128::from(kept))
            }
            _ => return None,
        };
        (self.group_of(inner) == Some(group)).then_some(inner)
    }
}

/// Whether a packet is one of a segment.
#[inline]
pub fn is_of_segment(packet: &[u8]) -> bool {
    packet.get(NEXT_HEADER_AT) == Some(&NEXT_HEADER) && packet.first().is_some_and(|b| b >> 4 == 6)
}

/// The segment of a packet that is one of a segment.
#[inline]
pub fn segment_of(packet: &[u8]) -> Option<SegmentId> {
    let payload = packet.get(HEADER_LEN..).filter(|_| is_of_segment(packet))?;
    payload.first_chunk().copied().map(SegmentId::new)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::classify::CarriedScopes;

    const NODE: Ipv6Addr = Ipv6Addr::new(0xfd01, 0x203, 0x405, 1, 2, 3, 4, 5);

    fn home() -> SegmentId {
        SegmentId::of(NODE, "home")
    }

    #[test]
    fn golden_segment_and_groups() {
        assert_eq!(home().bytes()[..3], [0xc8, 0x4c, 0x51]);
        assert_ne!(home(), SegmentId::of(NODE, "office"));
        let segment = SegmentId::new([0, 0xab, 0xcd, 0xef, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(segment.group_of(ALL_NODES), Some(segment.all()));
        for (inner, outer) in [
            ("224.0.0.251", "ff15:6c63:ab:cdef::"),
            ("239.255.255.250", "ff15:6c63:ab:cdef:4000:0:efff:fffa"),
            ("232.1.2.3", "ff15:6c63:ab:cdef:4000:0:e801:203"),
            ("ff02::fb", "ff15:6c63:ab:cdef:6020:0:0:fb"),
            ("ff15::efc0:988f", "ff15:6c63:ab:cdef:6150:0:efc0:988f"),
        ] {
            let name = mapped::name_of(inner.parse().unwrap());
            let group: Ipv6Addr = outer.parse().unwrap();
            assert_eq!(segment.group_of(name), Some(group), "{inner}");
            let back = (!inner.starts_with("224")).then_some(name);
            assert_eq!(segment.group_in(group), back, "{inner}");
            assert!(CarriedScopes::default().contains(group));
        }
        for stays in [
            "ff01::1",
            "ff08::1",
            "ff0e::1",
            "ff32:40:fd00::1",
            "fe80::1",
            "ff02::1:ff00:9",
        ] {
            assert_eq!(segment.group_of(stays.parse().unwrap()), None, "{stays}");
        }
    }

    #[test]
    fn names_that_share_24_bits_are_different_segments() {
        let mut known = BTreeMap::new();
        let double = (0..100_000).find_map(|n| {
            let segment = SegmentId::of(NODE, &format!("lab-{n}"));
            let [a, b, c, ..] = segment.bytes();
            let other: SegmentId = known.insert([a, b, c], segment)?;
            Some((segment, other))
        });
        let (one, other) = double.unwrap();
        assert_ne!(one, other);
        let all = |segment: SegmentId| segment.all().to_bits() >> 72;
        assert_eq!(
            all(one),
            all(other),
            "a number of 24 bits would be the same"
        );
    }

    proptest! {
        #[test]
        fn groups_and_their_names_in_a_segment_are_a_bijection(bits: u128, ipv4 in 0xe000_0100u32..0xf000_0000) {
            let any = Ipv6Addr::from_bits(bits | 0xff << 120);
            let segment = SegmentId::new([1; SEGMENT_LEN]);
            let of_segment = Ipv6Addr::from_bits(segment.all().to_bits() | bits >> 64);
            for group in [any, Ipv6Addr::from_bits(0xff02 << 112 | bits >> 76), mapped::name(Ipv4Addr::from_bits(ipv4))] {
                if let Some(outer) = segment.group_of(group).filter(|outer| *outer != segment.all()) {
                    prop_assert_eq!(segment.group_in(outer), Some(group));
                }
            }
            if let Some(inner) = segment.group_in(of_segment) {
                prop_assert_eq!(segment.group_of(inner), Some(of_segment));
            }
        }
    }
}
