//! The offload header of a packet, and the work that it leaves to the reader: completing checksums,
//! splitting super-packets.
//!
//! ```text
//! | flags 1 | kind 1 | header length 2 | segment 2 | checksum start 2 | checksum offset 2 |
//! ```
//! `struct virtio_net_hdr` (Virtio 1.2 §5.1.6), in native byte order. A super-packet is one IP
//! and UDP or TCP header before the payloads of several packets, all of `segment` bytes but the
//! last, which may be shorter.

use librecast::checksum::Sum;
use librecast::ipv4::{self, UDP};

use super::tcp;

/// Length of the header.
pub const OFFLOAD_LEN: usize = 10;

/// Length of the fixed IPv6 header (RFC 8200, section 3).
pub(crate) const IPV6_LEN: usize = 40;

/// Length of a UDP header.
pub(crate) const UDP_LEN: usize = 8;

/// Offset of the checksum in a UDP header.
pub(crate) const UDP_CHECKSUM: usize = 6;

/// Most datagrams that a program can send in one system call: `UDP_MAX_SEGMENTS` of newer kernels;
/// older ones take 64.
const MAX_SEGMENTS: usize = 128;

/// The checksum field holds the sum of the pseudo-header; the sum of the message must be added.
const NEEDS_CHECKSUM: u8 = 1;

/// The network card verified the checksums when it coalesced the datagrams.
const CHECKSUM_WAS_RIGHT: u8 = 2;

/// The packet is one datagram (`VIRTIO_NET_HDR_GSO_NONE`, linux/virtio_net.h).
const KIND_NONE: u8 = 0;

/// The packet is a super-packet of TCP over IPv4 (`VIRTIO_NET_HDR_GSO_TCPV4`).
const KIND_TCP_IPV4: u8 = 1;

/// The packet is a super-packet of TCP over IPv6 (`VIRTIO_NET_HDR_GSO_TCPV6`).
const KIND_TCP_IPV6: u8 = 4;

/// A bit beside a kind of TCP: the first segment has CWR (`VIRTIO_NET_HDR_GSO_ECN`).
const KIND_ECN: u8 = 0x80;

/// The packet is a super-packet of UDP datagrams (`VIRTIO_NET_HDR_GSO_UDP_L4`).
const KIND_UDP: u8 = 5;

/// The header. `headers` and `checksum_start` count from the IP header, also on a TAP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    flags: u8,
    kind: u8,
    /// Length of all headers.
    headers: u16,
    segment: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

/// Error: the header does not fit the packet after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadOffload;

impl Offload {
    /// Creates the header of a super-packet with these bytes of headers, UDP last.
    pub(crate) fn of_datagrams(headers: usize, segment: u16) -> Self {
        Self {
            flags: NEEDS_CHECKSUM,
            kind: KIND_UDP,
            headers: headers as u16,
            segment,
            checksum_start: (headers - UDP_LEN) as u16,
            checksum_offset: UDP_CHECKSUM as u16,
        }
    }

    /// Creates the header of a super-packet of TCP: offset and end of its header, from that of IP.
    pub(crate) fn of_segments((tcp, end): (usize, usize), segment: u16, is_ipv4: bool) -> Self {
        Self {
            flags: NEEDS_CHECKSUM,
            kind: if is_ipv4 {
                KIND_TCP_IPV4
            } else {
                KIND_TCP_IPV6
            },
            headers: end as u16,
            segment,
            checksum_start: tcp as u16,
            checksum_offset: tcp::CHECKSUM as u16,
        }
    }

    /// Encodes the header of a packet with `link_header` bytes before its IPv6 header.
    pub(crate) fn encode(self, link_header: u16) -> [u8; OFFLOAD_LEN] {
        let (start, headers) = match self.flags {
            0 => (0, 0),
            _ => (
                self.checksum_start + link_header,
                self.headers + link_header,
            ),
        };
        let [h0, h1] = headers.to_ne_bytes();
        let [s0, s1] = self.segment.to_ne_bytes();
        let [c0, c1] = start.to_ne_bytes();
        let [o0, o1] = self.checksum_offset.to_ne_bytes();
        [self.flags, self.kind, h0, h1, s0, s1, c0, c1, o0, o1]
    }

    /// Decodes the format of [`Self::encode`]. Nothing relies on the length of the headers.
    pub fn decode(bytes: [u8; OFFLOAD_LEN], link_header: u16) -> Result<Self, BadOffload> {
        let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = bytes;
        let start = u16::from_ne_bytes([c0, c1]);
        let headers = u16::from_ne_bytes([h0, h1]);
        let (checksum_start, headers) = match flags & NEEDS_CHECKSUM {
            0 => (0, 0),
            _ => (
                start.checked_sub(link_header).ok_or(BadOffload)?,
                headers.saturating_sub(link_header),
            ),
        };
        Ok(Self {
            flags,
            kind,
            headers,
            segment: u16::from_ne_bytes([s0, s1]),
            checksum_start,
            checksum_offset: u16::from_ne_bytes([o0, o1]),
        })
    }

    /// Passes each packet in `packet` to `each`: in two parts to join, with complete checksums.
    pub fn unpack(
        self,
        packet: &mut [u8],
        each: &mut impl FnMut([&[u8]; 2]),
    ) -> Result<(), BadOffload> {
        match self.kind {
            KIND_NONE => {
                if self.flags & NEEDS_CHECKSUM != 0 {
                    self.complete(packet)?;
                }
                each([packet, &[]]);
                Ok(())
            }
            KIND_UDP => self.split(packet, each),
            kind if is_tcp(kind) => self.split_tcp(packet, each),
            _ => Err(BadOffload),
        }
    }

    fn split_tcp(
        self,
        packet: &mut [u8],
        each: &mut impl FnMut([&[u8]; 2]),
    ) -> Result<(), BadOffload> {
        if self.flags & (NEEDS_CHECKSUM | CHECKSUM_WAS_RIGHT) == 0 {
            return Err(BadOffload);
        }
        let partial = (self.flags & NEEDS_CHECKSUM != 0)
            .then_some((self.checksum_start, self.checksum_offset));
        let is_ipv4 = self.kind & !KIND_ECN == KIND_TCP_IPV4;
        let super_packet = tcp::SuperPacket::of(packet, is_ipv4, partial).ok_or(BadOffload)?;
        super_packet.split(self.segment, each).ok_or(BadOffload)
    }

    /// Completes a partial checksum.
    fn complete(self, packet: &mut [u8]) -> Result<(), BadOffload> {
        let message = packet.get_mut(self.checksum_start.into()..);
        let message = message.ok_or(BadOffload)?;
        let sum = complement(Sum::default().bytes(message));
        let at = usize::from(self.checksum_offset);
        let field = message.get_mut(at..at + 2).ok_or(BadOffload)?;
        field.copy_from_slice(&sum.to_be_bytes());
        Ok(())
    }

    fn split(self, packet: &mut [u8], each: &mut impl FnMut([&[u8]; 2])) -> Result<(), BadOffload> {
        if packet.first().is_some_and(|first| first >> 4 == 4) {
            return self.split_ipv4(packet, each);
        }
        let udp = match self.flags & (NEEDS_CHECKSUM | CHECKSUM_WAS_RIGHT) {
            0 => return Err(BadOffload),
            // the header lacks the offset of UDP
            CHECKSUM_WAS_RIGHT if packet.get(6) == Some(&UDP) => IPV6_LEN,
            CHECKSUM_WAS_RIGHT => return Err(BadOffload),
            _ if usize::from(self.checksum_offset) != UDP_CHECKSUM => return Err(BadOffload),
            _ => usize::from(self.checksum_start),
        };
        if udp < IPV6_LEN {
            return Err(BadOffload);
        }
        let segment = usize::from(self.segment);
        let whole = packet.len();
        let (headers, payload) = packet
            .split_at_mut_checked(udp + UDP_LEN)
            .ok_or(BadOffload)?;
        if segment == 0 || payload.is_empty() || payload.len().div_ceil(segment) > MAX_SEGMENTS {
            return Err(BadOffload);
        }
        let word = |at: usize| u16::from_be_bytes([headers[at], headers[at + 1]]);
        let length = word(udp + 4);
        if usize::from(length) != whole - udp || usize::from(word(4)) != whole - IPV6_LEN {
            return Err(BadOffload);
        }
        // pseudo-header and ports; the field may hold any partial sum, or the first one's checksum
        let fixed = Sum::default()
            .bytes(&headers[8..IPV6_LEN])
            .word(UDP.into())
            .word(word(udp))
            .word(word(udp + 2));
        for chunk in payload.chunks(segment) {
            // shorter than the super-packet, whose length fits
            let length = (UDP_LEN + chunk.len()) as u16;
            let sum = complement(fixed.word(length).word(length).bytes(chunk));
            let ipv6 = (udp - IPV6_LEN) as u16 + length;
            headers[4..6].copy_from_slice(&ipv6.to_be_bytes());
            headers[udp + 4..udp + 6].copy_from_slice(&length.to_be_bytes());
            headers[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
            each([headers, chunk]);
        }
        Ok(())
    }
}

impl Offload {
    /// Splits an IPv4 super-packet: each segment has its own identification and header checksum.
    fn split_ipv4(
        self,
        packet: &mut [u8],
        each: &mut impl FnMut([&[u8]; 2]),
    ) -> Result<(), BadOffload> {
        let udp = usize::from(packet[0] & 0x0f) * 4;
        let is_udp_there = match self.flags & (NEEDS_CHECKSUM | CHECKSUM_WAS_RIGHT) {
            0 => false,
            CHECKSUM_WAS_RIGHT => true,
            _ => {
                usize::from(self.checksum_offset) == UDP_CHECKSUM
                    && usize::from(self.checksum_start) == udp
            }
        };
        let segment = usize::from(self.segment);
        let whole = packet.len();
        let (headers, payload) = packet
            .split_at_mut_checked(udp + UDP_LEN)
            .ok_or(BadOffload)?;
        if !is_udp_there || udp < ipv4::HEADER_LEN || headers[9] != UDP {
            return Err(BadOffload);
        }
        if segment == 0 || payload.is_empty() || payload.len().div_ceil(segment) > MAX_SEGMENTS {
            return Err(BadOffload);
        }
        let word = |at: usize| u16::from_be_bytes([headers[at], headers[at + 1]]);
        if usize::from(word(udp + 4)) != whole - udp || usize::from(word(2)) != whole {
            return Err(BadOffload);
        }
        let identification = word(4);
        // pseudo-header and ports
        let fixed = Sum::default()
            .bytes(&headers[12..20])
            .word(UDP.into())
            .word(word(udp))
            .word(word(udp + 2));
        for (n, chunk) in payload.chunks(segment).enumerate() {
            // shorter than the super-packet, whose length fits
            let length = (UDP_LEN + chunk.len()) as u16;
            let sum = complement(fixed.word(length).word(length).bytes(chunk));
            let total = udp as u16 + length;
            headers[2..4].copy_from_slice(&total.to_be_bytes());
            // at most 128 segments
            let identification = identification.wrapping_add(n as u16);
            headers[4..6].copy_from_slice(&identification.to_be_bytes());
            headers[10..12].fill(0);
            let header_sum = !Sum::default().bytes(&headers[..udp]).fold();
            headers[10..12].copy_from_slice(&header_sum.to_be_bytes());
            headers[udp + 4..udp + 6].copy_from_slice(&length.to_be_bytes());
            headers[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
            each([headers, chunk]);
        }
        Ok(())
    }
}

/// Whether this kind is TCP.
fn is_tcp(kind: u8) -> bool {
    matches!(kind & !KIND_ECN, KIND_TCP_IPV4 | KIND_TCP_IPV6)
}

/// Returns the checksum of a sum: never 0, which for UDP means "no checksum".
fn complement(sum: Sum) -> u16 {
    match !sum.fold() {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{is_right, super_packet, udp_packet};
    use super::*;

    fn unpack(offload: Offload, packet: &[u8]) -> Result<Vec<Vec<u8>>, BadOffload> {
        let mut packets = Vec::new();
        let mut packet = packet.to_vec();
        offload.unpack(&mut packet, &mut |parts| packets.push(parts.concat()))?;
        Ok(packets)
    }

    #[test]
    fn a_packet_without_offload_stays_as_it_is() {
        let mut wrong = udp_packet(b"payload");
        wrong[50] ^= 1;
        assert_eq!(unpack(Offload::default(), &wrong), Ok(vec![wrong]));
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let whole = udp_packet(b"an odd payload!");
        let (offload, partial) = super_packet(&[&whole]);
        let offload = Offload {
            kind: KIND_NONE,
            ..offload
        };
        assert_ne!(partial, whole);
        assert_eq!(unpack(offload, &partial), Ok(vec![whole]));
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_written_as_ones() {
        // the payload's word completes the sum of the rest
        let rest = udp_packet(&[0, 0]);
        let lacking = u16::from_be_bytes([rest[46], rest[47]]);
        let whole = udp_packet(&lacking.to_be_bytes());
        assert_eq!(whole[46..48], [0xff, 0xff]);
        let (offload, partial) = super_packet(&[&whole]);
        assert_eq!(
            unpack(
                Offload {
                    kind: KIND_NONE,
                    ..offload
                },
                &partial
            ),
            Ok(vec![whole.clone()])
        );
        assert_eq!(unpack(offload, &partial), Ok(vec![whole]));
    }

    #[test]
    fn datagrams_that_a_card_has_put_together_come_apart() {
        let datagrams = [1_000, 1_000, 333].map(|length| udp_packet(&vec![length as u8; length]));
        let (offload, mut packet) = super_packet(&datagrams.each_ref().map(Vec::as_slice));
        let expected = Ok(datagrams.to_vec());
        assert_eq!(unpack(offload, &packet), expected);
        // from a local program: the first one's partial sum
        let (_, first) = super_packet(&[&datagrams[0]]);
        packet[46..48].copy_from_slice(&first[46..48]);
        assert_eq!(unpack(offload, &packet), expected);
        // from a network card: the first one's checksum
        packet[46..48].copy_from_slice(&datagrams[0][46..48]);
        let card = Offload {
            flags: CHECKSUM_WAS_RIGHT,
            checksum_start: 0,
            checksum_offset: 0,
            ..offload
        };
        assert_eq!(unpack(card, &packet), expected);
        packet[6] = 60;
        assert_eq!(unpack(card, &packet), Err(BadOffload));
    }

    #[test]
    fn datagrams_of_ipv4_come_apart_with_headers_of_their_own() {
        use std::net::Ipv4Addr;
        let (from, to) = (Ipv4Addr::new(10, 77, 1, 2), Ipv4Addr::new(239, 1, 2, 3));
        let payload: Vec<u8> = (0..2_500).map(|n| n as u8).collect();
        let packet = ipv4::udp_packet(from, to, (5004, 1), &payload);
        let offload = Offload {
            flags: NEEDS_CHECKSUM,
            kind: KIND_UDP,
            headers: 28,
            segment: 1_000,
            checksum_start: 20,
            checksum_offset: 6,
        };
        let card = Offload {
            flags: CHECKSUM_WAS_RIGHT,
            checksum_start: 0,
            checksum_offset: 0,
            ..offload
        };
        for offload in [offload, card] {
            let packets = unpack(offload, &packet).unwrap();
            assert_eq!(packets.len(), 3);
            for (n, (packet, part)) in packets.iter().zip(payload.chunks(1_000)).enumerate() {
                let mut expected = ipv4::udp_packet(from, to, (5004, 1), part);
                expected[5] = n as u8;
                expected[10..12].fill(0);
                let sum = !Sum::default().bytes(&expected[..20]).fold();
                expected[10..12].copy_from_slice(&sum.to_be_bytes());
                assert_eq!(*packet, expected);
            }
        }
        let bad = [
            (0, 0x44, offload),
            (3, 7, offload),
            (9, 6, offload),
            (25, 7, offload),
            (
                0,
                0x45,
                Offload {
                    checksum_start: 24,
                    ..offload
                },
            ),
            (
                0,
                0x45,
                Offload {
                    segment: 0,
                    ..offload
                },
            ),
            (
                0,
                0x45,
                Offload {
                    flags: 0,
                    ..offload
                },
            ),
        ];
        for (at, byte, offload) in bad {
            let mut packet = packet.clone();
            packet[at] = byte;
            assert_eq!(unpack(offload, &packet), Err(BadOffload), "{at}");
        }
    }

    #[test]
    fn extension_headers_are_kept_in_every_segment() {
        let plain = udp_packet(&[7; 2_500]);
        let (offload, partial) = super_packet(&[&plain]);
        let options = [17, 0, 1, 4, 0, 0, 0, 0];
        let mut packet = [&partial[..40], &options, &partial[40..]].concat();
        packet[6] = 60;
        let length = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        let offload = Offload {
            checksum_start: 48,
            segment: 1_000,
            ..offload
        };
        let packets = unpack(offload, &packet).unwrap();
        assert_eq!(packets.len(), 3);
        for (packet, payload) in packets.iter().zip([1_000, 1_000, 500]) {
            assert_eq!(packet.len(), 56 + payload);
            assert_eq!(packet[40..48], options);
            assert_eq!(
                usize::from(u16::from_be_bytes([packet[4], packet[5]])),
                16 + payload
            );
            let mut without = [&packet[..40], &packet[48..]].concat();
            without[4..6].copy_from_slice(&(8 + payload as u16).to_be_bytes());
            without[6] = 17;
            assert!(
                is_right(&without),
                "its checksum covers no extension header"
            );
        }
    }

    #[test]
    fn headers_that_do_not_fit_are_refused() {
        let whole = udp_packet(&[7; 2_000]);
        let (good, packet) = super_packet(&[&whole]);
        let good = Offload {
            segment: 1_000,
            ..good
        };
        assert_eq!(unpack(good, &packet).unwrap().len(), 2);
        let bad = [
            Offload { segment: 0, ..good },
            Offload {
                segment: 15,
                ..good
            },
            Offload { flags: 0, ..good },
            Offload { kind: 1, ..good },
            Offload { kind: 4, ..good },
            Offload { kind: 3, ..good },
            Offload {
                kind: KIND_UDP | KIND_ECN,
                ..good
            },
            Offload {
                checksum_offset: 16,
                ..good
            },
            Offload {
                checksum_start: 39,
                ..good
            },
            Offload {
                checksum_start: 41,
                ..good
            },
            Offload {
                checksum_start: 2_040,
                ..good
            },
            Offload {
                checksum_start: u16::MAX,
                ..good
            },
            Offload {
                kind: KIND_NONE,
                checksum_start: 2_043,
                ..good
            },
            Offload {
                kind: KIND_NONE,
                checksum_start: u16::MAX,
                ..good
            },
            Offload {
                kind: KIND_NONE,
                checksum_offset: u16::MAX,
                ..good
            },
        ];
        for offload in bad {
            assert_eq!(unpack(offload, &packet), Err(BadOffload), "{offload:?}");
        }
        let mut lying = packet.clone();
        lying[44] ^= 1;
        assert_eq!(unpack(good, &lying), Err(BadOffload), "length of UDP");
        let mut lying = packet.clone();
        lying[4] ^= 1;
        assert_eq!(unpack(good, &lying), Err(BadOffload), "length of IPv6");
    }

    proptest! {
        #[test]
        fn any_header_before_any_bytes_gives_bounded_packets_or_none(
            header: [u8; OFFLOAD_LEN],
            link_header in prop_oneof![Just(0_u16), Just(14)],
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(offload) = Offload::decode(header, link_header)
                && let Ok(packets) = unpack(offload, &bytes)
            {
                prop_assert!(packets.len() <= MAX_SEGMENTS.max(tcp::MAX_SEGMENTS));
                prop_assert!(packets.iter().all(|p| p.len() <= bytes.len()));
            }
        }

        #[test]
        fn any_header_before_a_super_packet_does_no_harm(
            start in 0..80_u16, offset in 0..20_u16, segment in 0..70_u16, kind in 0..7_u8, flags in 0..4_u8,
            payload in prop::collection::vec(any::<u8>(), 1..300),
        ) {
            let (_, packet) = super_packet(&[&udp_packet(&payload)]);
            let offload = Offload {
                flags, kind, headers: 0, segment, checksum_start: start, checksum_offset: offset,
            };
            if let Ok(packets) = unpack(offload, &packet) && kind == KIND_UDP {
                if flags != CHECKSUM_WAS_RIGHT {
                    prop_assert_eq!((start, offset), (40, 6));
                }
                prop_assert!(packets.iter().all(|p| is_right(p)));
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(segment: u16, tap: bool) {
            let link_header = if tap { 14 } else { 0 };
            let segments = Offload::of_segments((20, 52), segment, true);
            for offload in [Offload::default(), Offload::of_datagrams(48, segment), segments] {
                prop_assert_eq!(Offload::decode(offload.encode(link_header), link_header), Ok(offload));
            }
        }
    }
}
