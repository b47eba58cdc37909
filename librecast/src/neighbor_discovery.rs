//! Encodes and decodes neighbour solicitations and advertisements (RFC 4861 §4.3 and §4.4).

use std::net::Ipv6Addr;

use crate::checksum::Sum;
use crate::ethernet::MacAddress;
use crate::ipv6::{ICMPV6, icmpv6_packet};
use crate::mld::ALL_NODES;
use crate::wire::{Reader, WireError, Writer};

/// ICMPv6 type of a neighbour solicitation (RFC 4861 §4.3).
const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement (RFC 4861 §4.4).
const ADVERTISEMENT: u8 = 136;
/// Hop limit that proves a message of this link (RFC 4861 §7.1).
const HOP_LIMIT: u8 = 255;
/// Option with the sender's Ethernet address (RFC 4861 §4.6.1).
const OPTION_SOURCE: u8 = 1;
/// Option with the target's Ethernet address (RFC 4861 §4.6.1).
const OPTION_TARGET: u8 = 2;
/// Flag of an advertisement that answers a solicitation (RFC 4861 §4.4).
const SOLICITED: u8 = 0x40;
/// Flag of an advertisement that replaces a known Ethernet address (RFC 4861 §4.4).
const OVERRIDE: u8 = 0x20;

/// A solicitation or an advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A host asks for the target's Ethernet address.
    Solicitation {
        /// The host; unspecified if it looks for a free address (RFC 4862 §5.4.2).
        source: Ipv6Addr,
        /// Its Ethernet address, if it states it.
        mac: Option<MacAddress>,
        /// The address that it asks for.
        target: Ipv6Addr,
    },
    /// The target states its Ethernet address.
    Advertisement {
        /// The target.
        target: Ipv6Addr,
        /// Its Ethernet address, if it states it.
        mac: Option<MacAddress>,
    },
}

/// Decodes a packet whose ICMPv6 message follows the IPv6 header.
///
/// # Errors
/// It is another packet, truncated, from another link, or its checksum is wrong.
pub fn parse_packet(packet: &[u8]) -> Result<Message, WireError> {
    let mut r = Reader::new(packet);
    let (first, length) = (r.u32()?, usize::from(r.u16()?));
    let (next_header, hop_limit) = (r.u8()?, r.u8()?);
    if first >> 28 != 6 || next_header != ICMPV6 || hop_limit != HOP_LIMIT {
        return Err(WireError::Bad("header of neighbour discovery"));
    }
    let (source, destination) = (r.ipv6()?, r.ipv6()?);
    let message = r.take(length)?;
    let sum = Sum::pseudo_header(ICMPV6, source, destination, length as u32);
    if sum.bytes(message).fold() != 0xffff {
        return Err(WireError::Bad("checksum"));
    }
    let mut r = Reader::new(message);
    let (kind, code) = (r.u8()?, r.u8()?);
    r.take(2 + 4)?;
    let target = r.ipv6()?;
    if code != 0 || target.is_multicast() || source.is_multicast() {
        return Err(WireError::Bad("neighbour discovery"));
    }
    match kind {
        SOLICITATION => Ok(Message::Solicitation {
            source,
            mac: option(&mut r, OPTION_SOURCE)?,
            target,
        }),
        ADVERTISEMENT => Ok(Message::Advertisement {
            target,
            mac: option(&mut r, OPTION_TARGET)?,
        }),
        _ => Err(WireError::Bad("kind of neighbour discovery")),
    }
}

/// Returns the Ethernet address in the first option of this kind.
fn option(r: &mut Reader<'_>, wanted: u8) -> Result<Option<MacAddress>, WireError> {
    while !r.is_empty() {
        let (kind, units) = (r.u8()?, usize::from(r.u8()?));
        let length = (units * 8).checked_sub(2);
        let data = r.take(length.ok_or(WireError::Bad("length of an option"))?)?;
        if kind == wanted {
            return Ok(data.first_chunk().copied().map(MacAddress));
        }
    }
    Ok(None)
}

/// Returns the group in which a host listens for solicitations (RFC 4291 §2.7.1).
#[must_use]
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    let low = u16::from_be_bytes([b, c]);
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low)
}

/// Makes a solicitation by a host with this address and Ethernet address, for one host if its
/// Ethernet address is known.
#[must_use]
pub fn solicitation(
    source: Ipv6Addr,
    mac: MacAddress,
    target: Ipv6Addr,
    is_known: bool,
) -> Vec<u8> {
    let to = match is_known {
        true => target,
        false => solicited_node(target),
    };
    let message = message((SOLICITATION, 0), target, (OPTION_SOURCE, mac));
    icmpv6_packet(source, to, HOP_LIMIT, &message)
}

/// Makes an advertisement of a target's Ethernet address to one host that asked, or to all.
#[must_use]
pub fn advertisement(target: Ipv6Addr, mac: MacAddress, asker: Option<Ipv6Addr>) -> Vec<u8> {
    let flags = match asker {
        Some(_) => SOLICITED,
        None => OVERRIDE,
    };
    let message = message((ADVERTISEMENT, flags), target, (OPTION_TARGET, mac));
    icmpv6_packet(target, asker.unwrap_or(ALL_NODES), HOP_LIMIT, &message)
}

fn message((kind, flags): (u8, u8), target: Ipv6Addr, option: (u8, MacAddress)) -> Vec<u8> {
    let mut w = Writer::new();
    // code, checksum; flags and reserved bits
    w.u8(kind).u8(0).u16(0).u8(flags).put(&[0; 3]).ipv6(target);
    w.u8(option.0).u8(1).put(&option.1.0);
    w.into_vec()
}

#[cfg(test)]
mod tests {
    use pnet_packet::icmpv6::ndp::{NeighborAdvertPacket, NeighborSolicitPacket};
    use proptest::prelude::*;

    use super::*;
    use crate::ipv6::{HEADER_LEN, HOP_LIMIT_AT};

    const A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa);
    const B: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x12, 0x3456, 0x789b);
    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    #[test]
    fn golden_bytes() {
        let bytes = solicitation(A, MAC, B, false);
        let expected = [
            &[0x60, 0, 0, 0, 0, 32, 58, 255][..],
            &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa],
            &[
                0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x56, 0x78, 0x9b,
            ],
            &[135, 0],
        ]
        .concat();
        assert_eq!(bytes[..expected.len()], expected);
        let rest = [
            &[0, 0, 0, 0][..],
            &[
                0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78, 0x9b,
            ],
            &[1, 1, 2, 0, 0, 0, 0, 1],
        ]
        .concat();
        assert_eq!(bytes[expected.len() + 2..], rest);
    }

    #[test]
    fn another_program_reads_them() {
        let bytes = solicitation(A, MAC, B, true);
        let read = NeighborSolicitPacket::new(&bytes[HEADER_LEN..]).unwrap();
        assert_eq!(read.get_target_addr(), B);
        assert_eq!(read.get_options()[0].data, MAC.0);
        let bytes = advertisement(B, MAC, None);
        let read = NeighborAdvertPacket::new(&bytes[HEADER_LEN..]).unwrap();
        assert_eq!((read.get_target_addr(), read.get_flags()), (B, OVERRIDE));
        assert_eq!(read.get_options()[0].data, MAC.0);
    }

    #[test]
    fn messages_survive_the_wire() {
        let asked = Message::Solicitation {
            source: A,
            mac: Some(MAC),
            target: B,
        };
        assert_eq!(parse_packet(&solicitation(A, MAC, B, false)), Ok(asked));
        let said = Message::Advertisement {
            target: B,
            mac: Some(MAC),
        };
        assert_eq!(parse_packet(&advertisement(B, MAC, Some(A))), Ok(said));
    }

    #[test]
    fn what_may_come_from_elsewhere_is_refused() {
        let good = solicitation(A, MAC, B, false);
        for length in 0..good.len() {
            assert!(parse_packet(&good[..length]).is_err(), "{length}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // traffic class and flow label are in no checksum
            let is_free = bit < 32 && !(4..8).contains(&bit);
            assert_eq!(parse_packet(&bad).is_ok(), is_free, "bit {bit}");
        }
        let mut routed = good;
        routed[HOP_LIMIT_AT] = 254;
        assert!(parse_packet(&routed).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(message in prop::collection::vec(any::<u8>(), 4..80), kind in 134u8..138) {
            let mut message = message;
            (message[0], message[1]) = (kind, 0);
            let _ = parse_packet(&message);
            let _ = parse_packet(&icmpv6_packet(A, B, HOP_LIMIT, &message));
        }
    }
}
