//! Super-packets of TCP (RFC 9293 §3.1): segments that the kernel or a network card merged come
//! apart again, as other hosts must receive them; and the rules by which segments make a run.

use std::ops::Range;

use librecast::checksum::Sum;
use librecast::{ipv4, ipv6};

/// The protocol number of TCP (IANA).
pub(super) const TCP: u8 = 6;

/// Length of a TCP header without options (RFC 9293 §3.1).
const HEADER_LEN: usize = 20;

/// Offset of the sequence number in a TCP header.
const SEQUENCE: usize = 4;

/// Offset of the acknowledgment number in a TCP header.
const ACKNOWLEDGMENT: usize = 8;

/// Offset of the length of the TCP header, in its upper four bits.
const DATA_OFFSET: usize = 12;

/// Offset of the flags in a TCP header.
const FLAGS: usize = 13;

/// Offset of the window in a TCP header.
const WINDOW: usize = 14;

/// Offset of the checksum in a TCP header.
pub(super) const CHECKSUM: usize = 16;

/// FIN and PSH: flags of the last segment.
const LAST: u8 = 0x09;

/// ACK: the only flag of a segment in the middle of a run.
const ACK: u8 = 0x10;

/// PSH: the program that sent it wants it delivered now.
const PSH: u8 = 0x08;

/// CWR: a flag of the first segment (RFC 3168 §6.1.2).
const FIRST: u8 = 0x80;

/// Most segments of a super-packet. Chosen: 64 KiB in segments of 64 bytes.
pub(super) const MAX_SEGMENTS: usize = 1_024;

/// Headers and payload of many segments.
#[derive(Debug)]
pub(super) struct SuperPacket<'a> {
    headers: &'a mut [u8],
    payload: &'a [u8],
    /// Offset of the TCP header.
    tcp: usize,
}

impl<'a> SuperPacket<'a> {
    /// Reads the headers. `partial` is start and offset of the checksum, where it is incomplete.
    pub(super) fn of(
        packet: &'a mut [u8],
        is_ipv4: bool,
        partial: Option<(u16, u16)>,
    ) -> Option<Self> {
        let tcp = match is_ipv4 {
            true => ipv4_header(packet)?,
            false => ipv6_headers(packet, partial.map(|(start, _)| start.into()))?,
        };
        let checksum = (tcp, CHECKSUM);
        let is_there = |(start, offset): (u16, u16)| (start.into(), offset.into()) == checksum;
        if !partial.is_none_or(is_there) {
            return None;
        }
        let header = usize::from(packet.get(tcp + DATA_OFFSET)? >> 4) * 4;
        if header < HEADER_LEN {
            return None;
        }
        let (headers, payload) = packet.split_at_mut_checked(tcp + header)?;
        Some(Self {
            headers,
            payload,
            tcp,
        })
    }

    /// Passes each segment to `each`, with the sequence number, flags and checksums of its own.
    pub(super) fn split(self, segment: u16, each: &mut impl FnMut([&[u8]; 2])) -> Option<()> {
        let size = usize::from(segment);
        let segments = self.payload.len().checked_div(size)?;
        if self.payload.is_empty() || segments >= MAX_SEGMENTS {
            return None;
        }
        let Self {
            headers,
            payload,
            tcp,
        } = self;
        let is_ipv4 = headers[0] >> 4 == 4;
        let addresses = if is_ipv4 { 12..20 } else { 8..40 };
        let fixed = Sum::default().bytes(&headers[addresses]).word(TCP.into());
        let identification = u16::from_be_bytes([headers[4], headers[5]]);
        let sequence = headers[tcp + SEQUENCE..].first_chunk().copied()?;
        let mut sequence = u32::from_be_bytes(sequence);
        let flags = headers[tcp + FLAGS];
        let last = payload.len().div_ceil(size) - 1;
        for (n, chunk) in payload.chunks(size).enumerate() {
            let length = headers.len() + chunk.len();
            match is_ipv4 {
                true => write_ipv4(
                    &mut headers[..tcp],
                    length,
                    identification.wrapping_add(n as u16),
                ),
                // shorter than the super-packet, whose length fits
                false => headers[4..6]
                    .copy_from_slice(&((length - ipv6::HEADER_LEN) as u16).to_be_bytes()),
            }
            let middle = if n < last { LAST } else { 0 } | if n > 0 { FIRST } else { 0 };
            headers[tcp + FLAGS] = flags & !middle;
            headers[tcp + SEQUENCE..][..4].copy_from_slice(&sequence.to_be_bytes());
            headers[tcp + CHECKSUM..][..2].fill(0);
            let sum = fixed
                .word((length - tcp) as u16)
                .bytes(&headers[tcp..])
                .bytes(chunk);
            headers[tcp + CHECKSUM..][..2].copy_from_slice(&(!sum.fold()).to_be_bytes());
            each([headers, chunk]);
            sequence = sequence.wrapping_add(segment.into());
        }
        Some(())
    }
}

/// Returns the length of a TCP header that is there whole.
pub(super) fn header_len(segment: &[u8]) -> Option<usize> {
    let length = usize::from(segment.get(DATA_OFFSET)? >> 4) * 4;
    (HEADER_LEN..=segment.len())
        .contains(&length)
        .then_some(length)
}

/// Whether a segment with data follows another of `payload` bytes without a gap, with the same
/// headers but PSH. Their headers must have one length.
pub(super) fn follows(segment: &[u8], last: &[u8], payload: usize) -> bool {
    let Some(header) = header_len(segment) else {
        return false;
    };
    let sequence = |segment: &[u8]| {
        let bytes = segment[SEQUENCE..ACKNOWLEDGMENT].first_chunk().copied();
        bytes.map(u32::from_be_bytes)
    };
    // shorter than an IP packet
    let next = sequence(last).map(|sequence| sequence.wrapping_add(payload as u32));
    let same = |part: Range<usize>| segment[part.clone()] == last[part];
    segment.len() > header
        && sequence(segment) == next
        && segment[FLAGS] & !PSH == ACK
        && same(ACKNOWLEDGMENT..FLAGS)
        && same(WINDOW..CHECKSUM)
        && same(CHECKSUM + 2..header)
}

/// Whether nothing may follow a segment in its run: it has a flag beside ACK.
pub(super) fn ends_run(segment: &[u8]) -> bool {
    segment[FLAGS] != ACK
}

/// Makes the first segment's header that of a run, with the last one's flags and this checksum.
pub(super) fn merge(header: &mut [u8], last: &[u8], checksum: [u8; 2]) {
    header[FLAGS] |= last.get(FLAGS).copied().unwrap_or_default();
    header[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum);
}

/// Returns the offset of TCP in an IPv4 packet.
fn ipv4_header(packet: &[u8]) -> Option<usize> {
    let (header, _) = packet.split_at_checked(ipv4::HEADER_LEN)?;
    let is_whole = usize::from(u16::from_be_bytes([header[2], header[3]])) == packet.len();
    let is_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let length = usize::from(header[0] & 0x0f) * 4;
    let is_tcp = header[0] >> 4 == 4 && header[9] == TCP && length >= ipv4::HEADER_LEN;
    (is_whole && !is_fragment && is_tcp).then_some(length)
}

/// Returns the offset of TCP in an IPv6 packet; `start` is that of an incomplete checksum.
fn ipv6_headers(packet: &[u8], start: Option<usize>) -> Option<usize> {
    let (header, _) = packet.split_at_checked(ipv6::HEADER_LEN)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let is_whole = header[0] >> 4 == 6 && length + ipv6::HEADER_LEN == packet.len();
    let tcp = match header[6] {
        TCP => ipv6::HEADER_LEN,
        // behind extension headers
        _ => start.filter(|start| *start > ipv6::HEADER_LEN)?,
    };
    is_whole.then_some(tcp)
}

/// Writes length, identification and checksum of an IPv4 header.
fn write_ipv4(header: &mut [u8], length: usize, identification: u16) {
    // shorter than the super-packet, whose length fits
    header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    header[10..12].fill(0);
    let sum = !Sum::default().bytes(header).fold();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::testing::tcp_packet as packet;
    use super::*;

    fn split(
        mut whole: Vec<u8>,
        is_ipv4: bool,
        partial: Option<(u16, u16)>,
        segment: u16,
    ) -> Option<Vec<Vec<u8>>> {
        let mut packets = Vec::new();
        let super_packet = SuperPacket::of(&mut whole, is_ipv4, partial)?;
        super_packet.split(segment, &mut |parts| packets.push(parts.concat()))?;
        Some(packets)
    }

    #[test]
    fn segments_come_apart_as_they_were_sent() {
        let payload: Vec<u8> = (0..3_333).map(|n| n as u8).collect();
        // the sequence number wraps
        let first = 0xffff_fe00_u32;
        for (is_ipv4, start) in [(true, 20), (false, 40)] {
            let whole = packet(is_ipv4, first, 0x99, 0xffff, &payload);
            for partial in [None, Some((start, 16))] {
                let packets = split(whole.clone(), is_ipv4, partial, 1_000).unwrap();
                let expected: Vec<_> = payload
                    .chunks(1_000)
                    .enumerate()
                    .map(|(n, chunk)| {
                        let flags = [0x90, 0x10, 0x10, 0x19][n];
                        let sequence = first.wrapping_add(n as u32 * 1_000);
                        packet(
                            is_ipv4,
                            sequence,
                            flags,
                            0xffff_u16.wrapping_add(n as u16),
                            chunk,
                        )
                    })
                    .collect();
                assert_eq!(packets, expected);
            }
        }
    }

    #[test]
    fn headers_that_are_not_of_tcp_are_refused() {
        for (is_ipv4, start) in [(true, 20), (false, 40)] {
            let whole = packet(is_ipv4, 1, 0x18, 1, &[7; 2_500]);
            let partial = Some((start, 16));
            let refused = |whole: &[u8], partial, segment| {
                split(whole.to_vec(), is_ipv4, partial, segment).is_none()
            };
            assert!(!refused(&whole, partial, 3));
            assert!(refused(&whole, partial, 0));
            assert!(refused(&whole, partial, 2));
            assert!(refused(&whole, Some((start, 6)), 1_000));
            assert!(refused(&whole, Some((start + 4, 16)), 1_000));
            assert!(split(whole.clone(), !is_ipv4, partial, 1_000).is_none());
            let lie = |at: usize, byte: u8| {
                let mut whole = whole.clone();
                whole[at] = byte;
                whole
            };
            assert!(
                refused(&lie(5 - 2 * usize::from(is_ipv4), 1), partial, 1_000),
                "length"
            );
            assert!(
                refused(&lie(if is_ipv4 { 9 } else { 6 }, 17), None, 1_000),
                "protocol"
            );
            assert!(
                refused(&lie(usize::from(start) + 12, 0x40), partial, 1_000),
                "data offset"
            );
            let header = usize::from(start) + 32;
            assert!(refused(&whole[..header], partial, 1_000));
            for length in 0..header {
                assert!(refused(&whole[..length], partial, 1_000));
            }
        }
        assert!(
            split(
                packet(true, 1, 0x18, 1, &[7; 2_500]),
                true,
                Some((20, 16)),
                1_000
            )
            .is_some()
        );
        let mut fragment = packet(true, 1, 0x18, 1, &[7; 2_500]);
        fragment[6] = 0x20;
        assert!(split(fragment, true, Some((20, 16)), 1_000).is_none());
    }
}
