//! IPv4 packets: decoding of headers, and packets of one header and a message (RFC 791).

use std::net::Ipv4Addr;

use crate::checksum::Sum;
use crate::wire::WireError;

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;
/// The protocol number of ICMP.
pub const ICMP: u8 = 1;
/// The protocol number of IGMP.
pub const IGMP: u8 = 2;
/// The protocol number of UDP.
pub const UDP: u8 = 17;
/// The protocol number of PIM.
pub const PIM: u8 = 103;

/// Don't Fragment, in the 16 bits of flags and fragment offset (RFC 791 §3.1, as all here).
const DONT_FRAGMENT: u16 = 0x4000;
/// More Fragments, in the same 16 bits.
const MORE_FRAGMENTS: u16 = 0x2000;
/// The fragment offset in the same 16 bits, in units of eight bytes.
const OFFSET_MASK: u16 = 0x1fff;
/// Offset in a header of the TTL, before the protocol, in bytes.
const TTL_AT: usize = 8;
/// Offset in a header of its checksum, in bytes.
const CHECKSUM_AT: usize = 10;
/// Offset in a header of the source, before the destination, in bytes.
const SOURCE_AT: usize = 12;
/// Offset in a UDP header of its checksum, in bytes (RFC 768).
const UDP_CHECKSUM_AT: usize = 6;
/// Length of a UDP header, in bytes (RFC 768).
const UDP_HEADER_LEN: usize = 8;
/// The option that ends the list; it has no length.
const OPTION_END: u8 = 0;
/// The option for padding; it has no length.
const OPTION_NOP: u8 = 1;
/// Loose source and record route: the sender names some routers of the path.
const OPTION_LOOSE_ROUTE: u8 = 131;
/// Strict source and record route: the sender names all routers of the path.
const OPTION_STRICT_ROUTE: u8 = 137;
/// Router alert (RFC 2113 §2.1).
const OPTION_ROUTER_ALERT: u8 = 148;
/// The router alert option (RFC 2113 §2.1): every router examines the packet.
const ROUTER_ALERT: [u8; 4] = [OPTION_ROUTER_ALERT, 4, 0, 0];
/// The DS field CS6, for IGMP (RFC 9776 §4).
const CS6: u8 = 0xc0;

/// A header with a right checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The sender.
    pub source: Ipv4Addr,
    /// The destination.
    pub destination: Ipv4Addr,
    /// The protocol of the payload, for example [`UDP`].
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// Routers must not fragment the packet, but report it.
    pub dont_fragment: bool,
    /// Offset of the payload in the original packet, in units of eight bytes.
    pub fragment_offset: u16,
    /// It is a fragment.
    pub is_fragment: bool,
    /// The bytes after the header, up to the total length.
    pub payload: &'a [u8],
    options: &'a [u8],
    /// Bytes of header and payload.
    total: usize,
}

impl<'a> Header<'a> {
    /// Reads the header of a packet.
    ///
    /// # Errors
    /// It is no IPv4 packet, its lengths do not fit, or its header checksum is wrong.
    pub fn read(packet: &'a [u8]) -> Result<Self, WireError> {
        let fixed = packet.first_chunk::<HEADER_LEN>();
        let fixed = fixed.ok_or(WireError::Truncated)?;
        if fixed[0] >> 4 != 4 {
            return Err(WireError::Bad("IP version"));
        }
        let length = usize::from(fixed[0] & 0x0f) * 4;
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let total = usize::from(word(2));
        if length < HEADER_LEN || total < length {
            return Err(WireError::Bad("length"));
        }
        let whole = packet.get(..total).ok_or(WireError::Truncated)?;
        let (header, payload) = whole.split_at(length);
        if Sum::default().bytes(header).fold() != 0xffff {
            return Err(WireError::Bad("header checksum"));
        }
        let address =
            |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
        Ok(Self {
            source: address(12),
            destination: address(16),
            protocol: fixed[9],
            ttl: fixed[8],
            dont_fragment: word(6) & DONT_FRAGMENT != 0,
            fragment_offset: word(6) & OFFSET_MASK,
            is_fragment: word(6) & (MORE_FRAGMENTS | OFFSET_MASK) != 0,
            payload,
            options: &header[HEADER_LEN..],
            total,
        })
    }

    /// Returns the kinds of its readable options.
    fn option_kinds(&self) -> impl Iterator<Item = u8> {
        let mut rest = self.options;
        std::iter::from_fn(move || {
            while let Some((&OPTION_NOP, after)) = rest.split_first() {
                rest = after;
            }
            let kind = *rest.first().filter(|kind| **kind != OPTION_END)?;
            let length = usize::from(*rest.get(1)?);
            rest = rest.get(length.max(2)..).unwrap_or_default();
            Some(kind)
        })
    }

    /// Returns whether the sender chose routers of the path (RFC 7126 §4.3 and §4.4).
    pub fn is_source_routed(&self) -> bool {
        self.option_kinds()
            .any(|kind| kind == OPTION_LOOSE_ROUTE || kind == OPTION_STRICT_ROUTE)
    }

    /// Returns whether every router shall examine it (RFC 2113).
    pub fn has_router_alert(&self) -> bool {
        self.option_kinds().any(|kind| kind == OPTION_ROUTER_ALERT)
    }
}

/// The fields of a header without options, except lengths.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    /// The sender.
    pub source: Ipv4Addr,
    /// The destination.
    pub destination: Ipv4Addr,
    /// The protocol of the payload.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
}

/// Makes a packet of at most 65,535 bytes with DF set.
#[must_use]
pub fn packet(envelope: &Envelope, payload: &[u8]) -> Vec<u8> {
    build(envelope, (0, &[]), payload)
}

/// The same with the router alert that IGMP requires (RFC 9776 §4).
#[must_use]
pub fn packet_with_router_alert(envelope: &Envelope, payload: &[u8]) -> Vec<u8> {
    build(envelope, (CS6, &ROUTER_ALERT), payload)
}

fn build(envelope: &Envelope, (class, options): (u8, &[u8]), payload: &[u8]) -> Vec<u8> {
    let header = HEADER_LEN + options.len();
    let mut packet = Vec::with_capacity(header + payload.len());
    packet.extend([0x40 | (header / 4) as u8, class]);
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(DONT_FRAGMENT.to_be_bytes());
    packet.extend([envelope.ttl, envelope.protocol, 0, 0]);
    packet.extend(envelope.source.octets());
    packet.extend(envelope.destination.octets());
    packet.extend(options);
    let sum = Sum::default().bytes(&packet).fold();
    packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    packet.extend(payload);
    packet
}

/// Makes a packet with a UDP datagram of at most 65,507 bytes, with one number for both ports.
#[must_use]
pub fn udp_packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    (port, ttl): (u16, u8),
    data: &[u8],
) -> Vec<u8> {
    let length = (8 + data.len()) as u16;
    let mut udp = [port, port, length, 0].map(u16::to_be_bytes).concat();
    udp.extend(data);
    let sum = Sum::default()
        .bytes(&source.octets())
        .bytes(&destination.octets())
        .word(UDP.into())
        .word(length)
        .bytes(&udp)
        .fold();
    // a sum of zero means no checksum
    let sum = if sum == 0xffff { 0xffff } else { !sum };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let envelope = Envelope {
        source,
        destination,
        protocol: UDP,
        ttl,
    };
    packet(&envelope, &udp)
}

/// Returns a packet with a whole UDP datagram under another source. Updates both checksums
/// incrementally (RFC 1624 §3): a wrong one stays wrong. `None`: a fragment, another protocol, or
/// unreadable.
#[must_use]
pub fn udp_from(packet: &[u8], source: Ipv4Addr) -> Option<Vec<u8>> {
    let header = Header::read(packet).ok()?;
    let is_udp = header.protocol == UDP && header.payload.len() >= UDP_HEADER_LEN;
    if header.is_fragment || !is_udp {
        return None;
    }
    let udp_checksum = header.total - header.payload.len() + UDP_CHECKSUM_AT;
    let mut changed = packet.get(..header.total)?.to_vec();
    let (before, after) = (header.source.octets(), source.octets());
    changed[SOURCE_AT..SOURCE_AT + 4].copy_from_slice(&after);
    update_checksum(&mut changed, CHECKSUM_AT, &before, &after);
    if changed[udp_checksum..udp_checksum + 2] != [0, 0] {
        update_checksum(&mut changed, udp_checksum, &before, &after);
        // zero means no checksum (RFC 768)
        if changed[udp_checksum..udp_checksum + 2] == [0, 0] {
            changed[udp_checksum..udp_checksum + 2].fill(0xff);
        }
    }
    Some(changed)
}

/// Sets the TTL of a header. Too short a header stays as it is.
pub fn set_ttl(header: &mut [u8], ttl: u8) {
    let Some(&[before, protocol]) = header.get(TTL_AT..CHECKSUM_AT) else {
        return;
    };
    if header.len() >= HEADER_LEN {
        header[TTL_AT] = ttl;
        update_checksum(header, CHECKSUM_AT, &[before, protocol], &[ttl, protocol]);
    }
}

/// Updates the checksum at `at` after a change of bytes from an even offset on (RFC 1624 §3).
fn update_checksum(message: &mut [u8], at: usize, before: &[u8], after: &[u8]) {
    let checksum = u16::from_be_bytes([message[at], message[at + 1]]);
    let without = !Sum::default().bytes(before).fold();
    let sum = Sum::default().word(!checksum).word(without).bytes(after);
    message[at..at + 2].copy_from_slice(&(!sum.fold()).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use pnet_packet::Packet;
    use pnet_packet::ipv4::{Ipv4Packet, checksum};
    use proptest::prelude::*;

    use super::*;

    const FROM: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
    const TO: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    #[test]
    fn another_program_agrees_on_headers_and_checksums() {
        let bytes = udp_packet(FROM, TO, (5004, 3), b"a stream");
        let read = Ipv4Packet::new(&bytes).unwrap();
        assert_eq!(read.get_checksum(), checksum(&read));
        assert_eq!((read.get_source(), read.get_destination()), (FROM, TO));
        assert_eq!(usize::from(read.get_total_length()), bytes.len());
        let udp = pnet_packet::udp::UdpPacket::new(read.payload()).unwrap();
        let expected = pnet_packet::udp::ipv4_checksum(&udp, &FROM, &TO);
        assert_eq!(udp.get_checksum(), expected);
        let header = Header::read(&bytes).unwrap();
        assert_eq!((header.source, header.destination), (FROM, TO));
        assert_eq!((header.protocol, header.ttl), (UDP, 3));
        assert_eq!(header.payload, read.payload());
    }

    #[test]
    fn golden_change_of_source() {
        // 192.168.1.50 to 239.1.2.3, port 5004, from a host of a LAN; then from 10.77.1.2
        let sent = [
            0x45, 0, 0, 31, 0x12, 0x34, 0x40, 0, 1, 17, 0xb4, 0xbb, 192, 168, 1, 50, 239, 1, 2, 3,
            0x13, 0x8c, 0x13, 0x8c, 0, 11, 0x43, 0x6c, b'r', b't', b'p',
        ];
        let mut expected = sent;
        expected[10..12].copy_from_slice(&[0x6b, 0x47]);
        expected[12..16].copy_from_slice(&[10, 77, 1, 2]);
        expected[26..28].copy_from_slice(&[0xf9, 0xf7]);
        assert_eq!(udp_from(&sent, FROM), Some(expected.to_vec()));
        let mut longer = sent.to_vec();
        longer.extend([7; 9]);
        assert_eq!(udp_from(&longer, FROM), Some(expected.to_vec()), "padding");
    }

    #[test]
    fn what_is_no_whole_datagram_keeps_its_source() {
        let good = udp_packet(TO, TO, (1, 1), b"x");
        let with = |at: usize, byte: u8| {
            let mut other = good.clone();
            other[at] = byte;
            other[10..12].fill(0);
            let sum = Sum::default().bytes(&other[..HEADER_LEN]).fold();
            other[10..12].copy_from_slice(&(!sum).to_be_bytes());
            other
        };
        assert!(udp_from(&with(6, 0x40), FROM).is_some());
        for other in [with(6, 0x20), with(7, 1), with(9, 6), with(3, 27)] {
            assert_eq!(udp_from(&other, FROM), None, "{other:?}");
        }
    }

    fn with_options(options: &[u8]) -> Vec<u8> {
        let envelope = Envelope {
            source: FROM,
            destination: TO,
            protocol: UDP,
            ttl: 1,
        };
        build(&envelope, (0, options), b"x")
    }

    #[test]
    fn options_are_followed_to_their_end() {
        let read = |options: &[u8]| {
            let packet = with_options(options);
            let header = Header::read(&packet).unwrap();
            (header.is_source_routed(), header.has_router_alert())
        };
        assert_eq!(read(&[]), (false, false));
        assert_eq!(read(&ROUTER_ALERT), (false, true));
        assert_eq!(read(&[1, 1, 131, 3, 4, 0, 0, 0]), (true, false));
        assert_eq!(read(&[148, 4, 0, 0, 137, 3, 4, 0]), (true, true));
        assert_eq!(read(&[0, 131, 3, 4]), (false, false), "behind the end");
        assert_eq!(read(&[7, 0, 131, 3]), (true, false), "a length of nothing");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good = with_options(&[]);
        assert!(Header::read(&good).is_ok());
        for length in 0..good.len() {
            assert!(Header::read(&good[..length]).is_err(), "{length}");
        }
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::read(&bad).is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn another_source_or_ttl_is_as_if_it_had_been_sent_so(
            from: u32, to: u32, port: u16, ttls: (u8, u8), data in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let (from, to) = (Ipv4Addr::from_bits(from), Ipv4Addr::from_bits(to));
            let sent = udp_packet(from, TO, (port, ttls.0), &data);
            let mut changed = udp_from(&sent, to).unwrap();
            prop_assert_eq!(&changed, &udp_packet(to, TO, (port, ttls.0), &data));
            set_ttl(&mut changed, ttls.1);
            prop_assert_eq!(&changed, &udp_packet(to, TO, (port, ttls.1), &data));
            // a missing checksum stays missing
            let mut none = sent.clone();
            none[26..28].fill(0);
            prop_assert_eq!(&udp_from(&none, to).unwrap()[26..28], [0, 0]);
            // a wrong checksum stays wrong
            let mut wrong = sent;
            wrong[20] ^= 1;
            let mut right = udp_packet(to, TO, (port, ttls.0), &data);
            right[20] ^= 1;
            prop_assert_eq!(udp_from(&wrong, to).unwrap(), right);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            set_ttl(&mut bytes.clone(), 1);
            let _ = udp_from(&bytes, FROM);
            if let Ok(header) = Header::read(&bytes) {
                let _ = (header.is_source_routed(), header.has_router_alert());
            }
            let options = &bytes[..bytes.len().min(40) & !3];
            let packet = with_options(options);
            let header = Header::read(&packet).unwrap();
            let _ = (header.is_source_routed(), header.has_router_alert());
        }
    }
}
