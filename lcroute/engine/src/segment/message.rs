//! The wire of a segment: hosts' packets and questions between its gateways.
//!
//! ```text
//! IPv6 header: source = gateway, destination = gateway or group; next header 254 (RFC 3692)
//! segment 96 | inner
//!
//! inner, first nibble 4 or 6: the host's IP packet as it came
//! inner, first byte 1 ASK, 2 HERE, 3 GONE: kind 8 | 0 8 | mac 48 | lan 64 | address 128
//!
//! ```
//! `mac` is the host's own in HERE, else 0; `lan` is the sender's; an IPv4 address has its name.

use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::ethernet::MacAddress;
use librecast::id::LanId;
use librecast::ipv6::HEADER_LEN;
use librecast::wire::{Reader, WireError, Writer};

use crate::segment_id::{NEXT_HEADER, SEGMENT_LEN, SegmentId};

/// Hop limit in the outer header. Routers between do not count it down.
const HOP_LIMIT: u8 = 64;
/// Bytes by which a host's packet grows on its way.
const OVERHEAD: usize = HEADER_LEN + SEGMENT_LEN;
/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A host asks for an address: which LAN has it?
    Ask = 1,
    /// The sender's LAN has it.
    Here = 2,
    /// The sender's LAN does not have it any more.
    Gone = 3,
}

/// A message between gateways of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub kind: Kind,
    /// The sender's LAN.
    pub lan: LanId,
    /// The host's Ethernet address in HERE, so that a LAN to which it moves knows it.
    pub mac: MacAddress,
    /// The address, or the name of an IPv4 address.
    pub address: Ipv6Addr,
}

impl Message {
    /// Encodes it as an inner packet.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(self.kind as u8).u8(0).put(&self.mac.0);
        w.u64(self.lan.0).ipv6(self.address);
        w.into_vec().into()
    }

    fn decode(inner: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(inner);
        let kind = match (r.u8()?, r.u8()?) {
            (1, 0) => Kind::Ask,
            (2, 0) => Kind::Here,
            (3, 0) => Kind::Gone,
            _ => return Err(WireError::Bad("kind of message")),
        };
        let message = Self {
            kind,
            mac: MacAddress(r.array()?),
            lan: LanId(r.u64()?),
            address: r.ipv6()?,
        };
        r.finish()?;
        if message.address.is_multicast() || message.address.is_unspecified() {
            return Err(WireError::Bad("address of a host"));
        }
        Ok(message)
    }
}

/// The content of a segment's packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inner {
    /// A host's packet.
    Packet(Bytes),
    /// A message of a gateway.
    Message(Message),
}

/// A packet from one gateway for another, or for a group.
pub fn wrap(source: Ipv6Addr, destination: Ipv6Addr, segment: SegmentId, inner: &[u8]) -> Bytes {
    let length = SEGMENT_LEN + inner.len();
    let mut packet = Vec::with_capacity(HEADER_LEN + length);
    packet.extend([0x60, 0, 0, 0]);
    // a host's packet has at most 1,500 bytes
    packet.extend((length as u16).to_be_bytes());
    packet.extend([NEXT_HEADER, HOP_LIMIT]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(segment.bytes());
    packet.extend(inner);
    packet.into()
}

/// The content of a segment's packet without bytes behind it.
pub fn unwrap(packet: &Bytes) -> Result<(SegmentId, Inner), WireError> {
    let payload = packet.get(HEADER_LEN..).ok_or(WireError::Truncated)?;
    let segment = *payload.first_chunk().ok_or(WireError::Truncated)?;
    let inner = packet.slice(OVERHEAD..);
    let inner = match inner.first().map(|first| first >> 4) {
        Some(4 | 6) => Inner::Packet(inner),
        _ => Inner::Message(Message::decode(&inner)?),
    };
    Ok((SegmentId::new(segment), inner))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use librecast::mapped;
    use proptest::prelude::*;

    use super::*;
    use crate::classify::{CarriedScopes, Class};
    use crate::segment_id::is_of_segment;

    const NODE: Ipv6Addr = Ipv6Addr::new(0xfd01, 0x203, 0x405, 1, 2, 3, 4, 5);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0xfd01, 0x203, 0x405, 1, 2, 3, 4, 6);

    #[test]
    fn golden_bytes_of_a_message() {
        let message = Message {
            kind: Kind::Here,
            lan: LanId(0x0102_0304_0506_0708),
            mac: MacAddress([2, 0, 0, 0, 0, 9]),
            address: mapped::name(Ipv4Addr::new(192, 168, 1, 20)),
        };
        let segment = SegmentId::new([7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
        let bytes = wrap(NODE, OTHER, segment, &message.encode());
        let expected = [
            &[0x60, 0, 0, 0, 0, 44, 254, 64][..],
            &NODE.octets(),
            &OTHER.octets(),
            &segment.bytes(),
            &[2, 0, 2, 0, 0, 0, 0, 9],
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 20],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert!(is_of_segment(&bytes));
        let read = unwrap(&bytes).unwrap();
        assert_eq!(read, (segment, Inner::Message(message)));
        assert!(matches!(
            CarriedScopes::ON_LINKS.classify(&bytes),
            Class::Unicast(_)
        ));
        for length in 0..bytes.len() {
            assert!(unwrap(&bytes.slice(..length)).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(inner in prop::collection::vec(any::<u8>(), 0..60)) {
            let bytes = wrap(NODE, OTHER, SegmentId::new([1; SEGMENT_LEN]), &inner);
            match unwrap(&bytes) {
                Ok((_, Inner::Packet(packet))) => prop_assert_eq!(&packet[..], &inner),
                Ok((_, Inner::Message(message))) => prop_assert_eq!(&message.encode()[..], &inner),
                Err(_) => {}
            }
            let _ = unwrap(&Bytes::from(inner));
        }
    }
}
