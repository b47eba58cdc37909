//! IPv6 packets of one header and a message, as our own programs write them (RFC 8200).

use std::net::Ipv6Addr;

use crate::checksum::Sum;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 40;
/// The next header of UDP.
pub const UDP: u8 = 17;
/// The next header of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Offset of the hop limit.
pub const HOP_LIMIT_AT: usize = 7;

/// Length of a UDP header, in bytes (RFC 768).
const UDP_HEADER_LEN: usize = 8;

/// Makes a packet with an ICMPv6 message of 4 to 65,535 bytes and fills in the checksum.
pub fn icmpv6_packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    message: &[u8],
) -> Vec<u8> {
    let mut packet = header(source, destination, (ICMPV6, hop_limit), message.len());
    packet.extend(message);
    let sum = sum(ICMPV6, source, destination, message);
    packet[HEADER_LEN + 2..][..2].copy_from_slice(&(!sum).to_be_bytes());
    packet
}

/// Makes a packet with a UDP datagram of at most 65,527 bytes, with one number for both ports.
pub fn udp_packet(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    (port, hop_limit): (u16, u8),
    data: &[u8],
) -> Vec<u8> {
    datagram((source, port), (destination, port), hop_limit, data)
}

fn datagram(
    (source, source_port): (Ipv6Addr, u16),
    (destination, destination_port): (Ipv6Addr, u16),
    hop_limit: u8,
    data: &[u8],
) -> Vec<u8> {
    let length = UDP_HEADER_LEN + data.len();
    let mut packet = header(source, destination, (UDP, hop_limit), length);
    packet.extend(
        [source_port, destination_port, length as u16, 0]
            .map(u16::to_be_bytes)
            .as_flattened(),
    );
    packet.extend(data);
    // a sum of zero means no checksum
    let sum = match !sum(UDP, source, destination, &packet[HEADER_LEN..]) {
        0 => 0xffff,
        sum => sum,
    };
    packet[HEADER_LEN + 6..][..2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Returns a whole packet with a UDP datagram directly behind the IPv6 header as one from `source`,
/// without traffic class and flow label. `None`: another packet, or one that was damaged.
pub fn udp_from(packet: &[u8], source: Ipv6Addr) -> Option<Vec<u8>> {
    let Datagram {
        source_port,
        destination_port,
        hop_limit,
        data,
    } = Datagram::of_packet(packet)?;
    let destination = Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?);
    Some(datagram(
        (source, source_port),
        (destination, destination_port),
        hop_limit,
        data,
    ))
}

fn header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    (next_header, hop_limit): (u8, u8),
    length: usize,
) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER_LEN + length);
    packet.extend([0x60, 0, 0, 0]);
    packet.extend((length as u16).to_be_bytes());
    packet.extend([next_header, hop_limit]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet
}

fn sum(next_header: u8, source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = message.len() as u32;
    Sum::pseudo_header(next_header, source, destination, length)
        .bytes(message)
        .fold()
}

/// A UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// The packet's hop limit.
    pub hop_limit: u8,
    /// The content without headers.
    pub data: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Returns the datagram of a packet with a UDP header directly after the IPv6 header. `None`:
    /// another packet, truncated, or with a wrong checksum.
    pub fn of_packet(packet: &'a [u8]) -> Option<Self> {
        let (head, rest) = packet.split_first_chunk::<HEADER_LEN>()?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let udp = rest.get(..length)?;
        let (udp_head, data) = udp.split_first_chunk::<UDP_HEADER_LEN>()?;
        let field = |at: usize| u16::from_be_bytes([udp_head[at], udp_head[at + 1]]);
        let address = |at: usize| Some(Ipv6Addr::from(*head[at..].first_chunk::<16>()?));
        let is_udp = head[0] >> 4 == 6 && head[6] == UDP && usize::from(field(4)) == length;
        if !is_udp || sum(UDP, address(8)?, address(24)?, udp) != 0xffff {
            return None;
        }
        Some(Self {
            source_port: field(0),
            destination_port: field(2),
            hop_limit: head[HOP_LIMIT_AT],
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use pnet_packet::icmpv6::{Icmpv6Packet, checksum};
    use proptest::prelude::*;

    use super::*;

    const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const TO: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

    #[test]
    fn another_program_agrees_on_checksums() {
        let packet = icmpv6_packet(FROM, TO, 255, &[133, 0, 0, 0, 1, 2, 3, 4]);
        let message = Icmpv6Packet::new(&packet[HEADER_LEN..]).unwrap();
        assert_eq!(message.get_checksum(), checksum(&message, &FROM, &TO));
        let packet = udp_packet(FROM, TO, (5353, 255), b"question");
        let datagram = pnet_packet::udp::UdpPacket::new(&packet[HEADER_LEN..]).unwrap();
        let expected = pnet_packet::udp::ipv6_checksum(&datagram, &FROM, &TO);
        assert_eq!(datagram.get_checksum(), expected);
    }

    proptest! {
        #[test]
        fn a_datagram_is_read_as_it_was_written(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let packet = udp_packet(FROM, TO, (5353, 255), &data);
            let datagram = Datagram { source_port: 5353, destination_port: 5353, hop_limit: 255, data: &data };
            prop_assert_eq!(Datagram::of_packet(&packet), Some(datagram));
            let own = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
            prop_assert_eq!(udp_from(&packet, own), Some(udp_packet(own, TO, (5353, 255), &data)));
            for length in 0..packet.len() {
                prop_assert_eq!(Datagram::of_packet(&packet[..length]), None);
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..(8 * (HEADER_LEN + 16))) {
            let mut packet = udp_packet(FROM, TO, (5353, 255), b"question");
            packet[bit / 8] ^= 1 << (bit % 8);
            // version, traffic class, flow label and hop limit are in no sum
            let (unsummed, class) = ([1, 2, 3, HOP_LIMIT_AT], bit / 8 == 0 && bit % 8 < 4);
            let is_seen = !unsummed.contains(&(bit / 8)) && !class;
            prop_assert_eq!(Datagram::of_packet(&packet).is_none(), is_seen);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Datagram::of_packet(&bytes);
        }
    }
}
