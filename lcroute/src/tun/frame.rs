//! The headers before a packet on the device's descriptor.
//!
//! ```text
//! TUN   | flags 2 | protocol 2 | offload 10 | packet
//! TAP   | flags 2 | protocol 2 | offload 10 | destination 6 | source 6 | EtherType 2 | packet
//! ```
//! Flags and protocol are the driver's packet information (`struct tun_pi`); `offload.rs` describes
//! `offload`. A TUN is raw IP, also for packet sockets.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use librecast::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress};
use librecast::ipv4;

use super::Mode;
use super::offload::{BadOffload, IPV6_LEN, OFFLOAD_LEN, Offload};

/// Length of the packet information.
pub(super) const INFO_LEN: usize = 4;

/// Length of an Ethernet header.
pub(super) const ETHERNET_LEN: usize = 14;

/// Length of the headers before a packet on a TUN.
const TUN_LEN: usize = INFO_LEN + OFFLOAD_LEN;

/// Length of the headers before a packet on a TAP.
pub(super) const TAP_LEN: usize = TUN_LEN + ETHERNET_LEN;

/// The driver cut the packet to the length of the buffer.
const TUN_PKT_STRIP: u16 = 0x0001;

/// Why a read is not a packet for the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    /// Another protocol, for example ARP, or IPv4 where it is off.
    NotIp,
    /// Longer than the read buffer.
    Truncated,
    /// The offload header is invalid.
    BadOffload,
}

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

/// Headers of a written packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    bytes: [u8; TAP_LEN],
    len: usize,
}

impl Header {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Creates the headers of a packet for the kernel; `own` is the device's Ethernet address.
    /// `None` if the bytes are no IP packet.
    pub(super) fn of(mode: Mode, packet: &[u8], own: Mac) -> Option<Self> {
        match mode {
            Mode::Tun => Some(Self::info(protocol(packet)?)),
            Mode::Tap => Self::info(protocol(packet)?).with_ethernet(packet, own),
        }
    }

    /// Sets the work that is left to the kernel.
    pub(super) fn with_offload(mut self, offload: Offload) -> Self {
        let link_header = (self.len - TUN_LEN) as u16;
        self.bytes[INFO_LEN..TUN_LEN].copy_from_slice(&offload.encode(link_header));
        self
    }

    fn info(protocol: u16) -> Self {
        let mut bytes = [0; TAP_LEN];
        bytes[2..INFO_LEN].copy_from_slice(&protocol.to_be_bytes());
        Self {
            bytes,
            len: TUN_LEN,
        }
    }

    fn with_ethernet(mut self, packet: &[u8], own: Mac) -> Option<Self> {
        let protocol = protocol(packet)?;
        let (source, destination) = match protocol {
            ETHERTYPE_IPV4 => ipv4_macs(packet, own)?,
            _ => macs(packet, own)?,
        };
        let ethernet = &mut self.bytes[TUN_LEN..];
        ethernet[..6].copy_from_slice(&destination);
        ethernet[6..12].copy_from_slice(&source);
        ethernet[12..].copy_from_slice(&protocol.to_be_bytes());
        self.len = TAP_LEN;
        Some(self)
    }
}

/// Returns the position of the packet in a read, and its pending work.
pub(super) fn packet(mode: Mode, ipv4: bool, read: &[u8]) -> Result<(Offload, Range<usize>), Skip> {
    let (info, rest) = read.split_first_chunk::<INFO_LEN>().ok_or(Skip::NotIp)?;
    let (offload, rest) = rest.split_first_chunk::<OFFLOAD_LEN>().ok_or(Skip::NotIp)?;
    let [flags_high, flags_low, protocol_high, protocol_low] = *info;
    // Flags are in the host's byte order, the protocol in the network's.
    if u16::from_ne_bytes([flags_high, flags_low]) & TUN_PKT_STRIP != 0 {
        return Err(Skip::Truncated);
    }
    let (said, packet, link_header) = match mode {
        Mode::Tun => (u16::from_be_bytes([protocol_high, protocol_low]), rest, 0),
        Mode::Tap => {
            let (ethernet, packet) = rest
                .split_first_chunk::<ETHERNET_LEN>()
                .ok_or(Skip::NotIp)?;
            let protocol = u16::from_be_bytes([ethernet[12], ethernet[13]]);
            (protocol, packet, ETHERNET_LEN)
        }
    };
    let is_carried = |protocol| protocol == ETHERTYPE_IPV6 || ipv4 && protocol == ETHERTYPE_IPV4;
    if !is_carried(said) || protocol(packet) != Some(said) {
        return Err(Skip::NotIp);
    }
    let offload =
        Offload::decode(*offload, link_header as u16).map_err(|BadOffload| Skip::BadOffload)?;
    Ok((offload, TUN_LEN + link_header..read.len()))
}

/// Returns the Ethernet address of a node, locally administered, from the low 40 bits of its
/// address: both addresses of a node end in its origin id, so both give the same.
pub(super) fn node_mac(address: Ipv6Addr) -> Mac {
    let [.., a, b, c, d, e] = address.octets();
    [0x02, a, b, c, d, e]
}

/// Returns the EtherType of a packet; `None` if it is shorter than its fixed header.
fn protocol(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        6 if packet.len() >= IPV6_LEN => Some(ETHERTYPE_IPV6),
        4 if packet.len() >= ipv4::HEADER_LEN => Some(ETHERTYPE_IPV4),
        _ => None,
    }
}

/// Returns the Ethernet source and destination of an IPv6 packet.
fn macs(packet: &[u8], own: Mac) -> Option<(Mac, Mac)> {
    let (source, destination) = addresses(packet)?;
    let destination = match destination.is_multicast() {
        true => MacAddress::of_group(destination).0,
        false => own,
    };
    Some((node_mac(source), destination))
}

/// Returns the Ethernet addresses of an IPv4 packet; only its source identifies the sender.
fn ipv4_macs(packet: &[u8], own: Mac) -> Option<(Mac, Mac)> {
    let [a, b, c, d] = *packet.get(12..16)?.first_chunk()?;
    let destination = Ipv4Addr::from(*packet.get(16..20)?.first_chunk::<4>()?);
    let destination = match destination.is_multicast() {
        true => MacAddress::of_ipv4_group(destination).0,
        false => own,
    };
    Some(([0x02, 0, a, b, c, d], destination))
}

/// Returns source and destination.
fn addresses(packet: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr)> {
    let source = packet.get(8..24)?.first_chunk::<16>()?;
    let destination = packet.get(24..40)?.first_chunk::<16>()?;
    Some((Ipv6Addr::from(*source), Ipv6Addr::from(*destination)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: Mac = [0x02, 9, 9, 9, 9, 9];

    fn ipv6(source: &str, destination: &str) -> Vec<u8> {
        let mut packet = vec![0; IPV6_LEN];
        packet[0] = 0x60;
        packet[8..24].copy_from_slice(&source.parse::<Ipv6Addr>().unwrap().octets());
        packet[24..40].copy_from_slice(&destination.parse::<Ipv6Addr>().unwrap().octets());
        packet
    }

    fn written(header: Header, packet: &[u8]) -> Vec<u8> {
        [header.as_bytes(), packet].concat()
    }

    #[test]
    fn a_tun_packet_has_its_protocol_and_no_offload_in_front() {
        let packet = ipv6("fd00::1", "ff1e::1234:5678");
        let header = Header::of(Mode::Tun, &packet, OWN).unwrap();
        assert_eq!(header.as_bytes()[..4], [0, 0, 0x86, 0xdd]);
        assert_eq!(header.as_bytes()[4..], [0; 10]);
    }

    #[test]
    fn a_tap_packet_goes_to_the_mac_of_its_group() {
        let packet = ipv6("fd00::a1:b2c3:d4e5", "ff1e::1234:5678");
        let header = Header::of(Mode::Tap, &packet, OWN).unwrap();
        let expected = [
            [0, 0, 0x86, 0xdd].as_slice(),
            &[0; 10],
            &[0x33, 0x33, 0x12, 0x34, 0x56, 0x78],
            &[0x02, 0xa1, 0xb2, 0xc3, 0xd4, 0xe5],
            &[0x86, 0xdd],
        ];
        assert_eq!(header.as_bytes(), expected.concat());
    }

    #[test]
    fn ipv4_goes_to_the_mac_of_its_group_and_is_read_where_it_is_on() {
        let from = Ipv4Addr::new(10, 77, 1, 2);
        let bytes = ipv4::udp_packet(from, Ipv4Addr::new(239, 129, 2, 3), (7, 1), b"x");
        let header = Header::of(Mode::Tap, &bytes, OWN).unwrap();
        let expected = [
            [0, 0, 0x08, 0x00].as_slice(),
            &[0; 10],
            &[0x01, 0x00, 0x5e, 0x01, 2, 3],
            &[0x02, 0, 10, 77, 1, 2],
            &[0x08, 0x00],
        ];
        assert_eq!(header.as_bytes(), expected.concat());
        for mode in [Mode::Tun, Mode::Tap] {
            let read = written(Header::of(mode, &bytes, OWN).unwrap(), &bytes);
            let (_, range) = packet(mode, true, &read).unwrap();
            assert_eq!(read[range], bytes);
            assert_eq!(packet(mode, false, &read), Err(Skip::NotIp));
        }
        let to_node = ipv4::udp_packet(from, Ipv4Addr::new(10, 77, 3, 4), (7, 1), b"x");
        let header = Header::of(Mode::Tap, &to_node, OWN).unwrap();
        assert_eq!(header.as_bytes()[14..20], OWN);
    }

    #[test]
    fn a_tap_packet_to_this_node_goes_to_its_own_mac() {
        let packet = ipv6("fd00::1", "fd00::2");
        let header = Header::of(Mode::Tap, &packet, OWN).unwrap();
        assert_eq!(header.as_bytes()[14..20], OWN);
    }

    #[test]
    fn both_addresses_of_a_node_give_one_mac() {
        let mac = node_mac("fd12:3456:789a:bcde:1122:3344:5566:7788".parse().unwrap());
        assert_eq!(mac, node_mac("fe80::1122:3344:5566:7788".parse().unwrap()));
        assert_eq!(mac, [0x02, 0x44, 0x55, 0x66, 0x77, 0x88]);
        assert_eq!(mac[0] & 0b11, 0b10, "unicast and locally administered");
    }

    #[test]
    fn other_protocols_are_told_from_ipv6() {
        let packet = ipv6("fe80::1", "ff02::16");
        let ipv4 = [[0, 0, 0x08, 0x00].as_slice(), &[0; 10], &packet].concat();
        assert_eq!(super::packet(Mode::Tun, false, &ipv4), Err(Skip::NotIp));
        let short = [[0, 0, 0x86, 0xdd].as_slice(), &[0; 10], &[0x60]].concat();
        assert_eq!(super::packet(Mode::Tun, false, &short), Err(Skip::NotIp));
        assert_eq!(super::packet(Mode::Tap, false, &[0; 27]), Err(Skip::NotIp));
        let mut arp = written(Header::of(Mode::Tap, &packet, OWN).unwrap(), &packet);
        arp[26..28].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(super::packet(Mode::Tap, false, &arp), Err(Skip::NotIp));
        let mut ipv4 = written(Header::of(Mode::Tun, &packet, OWN).unwrap(), &packet);
        ipv4[TUN_LEN] = 0x45;
        assert_eq!(super::packet(Mode::Tun, false, &ipv4), Err(Skip::NotIp));
    }

    #[test]
    fn a_packet_cut_by_the_driver_is_not_taken_for_whole() {
        let packet = ipv6("fe80::1", "ff02::16");
        let mut read = written(Header::of(Mode::Tun, &packet, OWN).unwrap(), &packet);
        read[..2].copy_from_slice(&TUN_PKT_STRIP.to_ne_bytes());
        assert_eq!(super::packet(Mode::Tun, false, &read), Err(Skip::Truncated));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            tap: bool,
            head in any::<[u8; 39]>(),
            payload in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mode = if tap { Mode::Tap } else { Mode::Tun };
            let packet = [[0x60].as_slice(), &head, &payload].concat();
            let header = Header::of(mode, &packet, OWN).unwrap();
            let read = written(header, &packet);
            let (offload, range) = super::packet(mode, false, &read).unwrap();
            prop_assert_eq!((offload, &read[range]), (Offload::default(), &packet[..]));
            let datagrams = Offload::of_datagrams(48, 9);
            let (offload, _) = super::packet(mode, false, &written(header.with_offload(datagrams), &packet)).unwrap();
            prop_assert_eq!(offload, datagrams);
        }

        #[test]
        fn any_bytes_give_a_packet_within_them_or_none(
            tap: bool,
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mode = if tap { Mode::Tap } else { Mode::Tun };
            if let Ok((_, range)) = super::packet(mode, false, &bytes) {
                prop_assert_eq!(protocol(&bytes[range]), Some(ETHERTYPE_IPV6));
            }
            let header = Header::of(mode, &bytes, OWN);
            prop_assert_eq!(header.is_some(), protocol(&bytes).is_some());
        }
    }
}
