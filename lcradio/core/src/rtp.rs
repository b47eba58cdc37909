//! RTP (RFC 3550, 5.1): read with bounds, written without CSRC, extension or padding.
//!
//! ```text
//!   0                   1                   2                   3
//!  |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//!  |                           timestamp                           |
//!  |                              SSRC                             |
//!  | CC x CSRC | X: profile 16, length 16, words | payload | P: padding, length in the last byte |
//! ```

use librecast::wire::{Reader, WireError};

/// Samples a second of Opus in RTP, for any encoder (RFC 7587, 4.1).
pub const CLOCK_RATE: u32 = 48_000;
/// The payload type of a station; dynamic, so SDP names it (RFC 3551).
pub const PAYLOAD_TYPE: u8 = 96;
/// Bytes of the header that this program writes.
pub const HEADER: usize = 12;
/// Longest packet in bytes: with the headers of UDP, IPv6 and a private prefix it fits into 1,280.
pub const MAX_PACKET: usize = 1_200;

/// The fields before the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// The first packet after a pause (RFC 7587, 4.1).
    pub marker: bool,
    /// The type of the payload.
    pub payload_type: u8,
    /// Counts packets, modulo 65,536.
    pub sequence: u16,
    /// Timestamp of the payload's first sample, at [`CLOCK_RATE`], modulo 2^32.
    pub timestamp: u32,
    /// The stream of the sender.
    pub ssrc: u32,
    /// Whether the payload ends with padding.
    pub padded: bool,
}

impl RtpHeader {
    /// Reads the header; returns its length in bytes with CSRCs and extension.
    ///
    /// # Errors
    /// It is not RTP of version 2, or a field ends past the packet.
    pub fn read(packet: &[u8]) -> Result<(Self, usize), WireError> {
        let mut r = Reader::new(packet);
        let (first, second) = (r.u8()?, r.u8()?);
        if first >> 6 != 2 {
            return Err(WireError::Version(first >> 6));
        }
        let header = Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: r.u16()?,
            timestamp: r.u32()?,
            ssrc: r.u32()?,
            padded: first & 0x20 != 0,
        };
        r.take(usize::from(first & 0x0f) * 4)?;
        if first & 0x10 != 0 {
            let _profile = r.u16()?;
            let words = r.u16()?;
            r.take(usize::from(words) * 4)?;
        }
        Ok((header, packet.len() - r.rest().len()))
    }

    /// Encodes the header.
    #[must_use]
    pub fn write(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = 0x80 | if self.padded { 0x20 } else { 0 };
        bytes[1] = self.payload_type & 0x7f | if self.marker { 0x80 } else { 0 };
        bytes[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes
    }

    /// Returns an opened payload without its padding.
    ///
    /// # Errors
    /// The padding is longer than the payload, or of length 0.
    pub fn without_padding<'a>(&self, payload: &'a [u8]) -> Result<&'a [u8], WireError> {
        if !self.padded {
            return Ok(payload);
        }
        let padding = payload.last().copied().map_or(0, usize::from);
        let length = payload.len().checked_sub(padding);
        match length {
            Some(length) if padding > 0 => Ok(&payload[..length]),
            _ => Err(WireError::Bad("padding")),
        }
    }
}

/// Returns the number closest to `reference` with the low bits `value` (RFC 3711, 3.3.1).
fn extend(reference: u64, value: u64, bits: u32) -> u64 {
    let span = 1_u64 << bits;
    let low = reference & !(span - 1) | value;
    let half = span / 2;
    if low > reference + half {
        low.checked_sub(span).unwrap_or(low)
    } else if low + half < reference {
        low + span
    } else {
        low
    }
}

/// Returns a packet's number within its session, from the 16 bits in the packet.
#[must_use]
pub fn extend_sequence(reference: u64, sequence: u16) -> u64 {
    extend(reference, sequence.into(), 16)
}

/// Returns the extended timestamp, from 32 bits.
#[must_use]
pub fn extend_timestamp(reference: u64, timestamp: u32) -> u64 {
    extend(reference, timestamp.into(), 32)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const HEADER_OF_TEST: RtpHeader = RtpHeader {
        marker: true,
        payload_type: PAYLOAD_TYPE,
        sequence: 0x1234,
        timestamp: 0xcafe_babe,
        ssrc: 0x0bad_cafe,
        padded: false,
    };

    #[test]
    fn the_header_is_frozen() {
        let bytes = HEADER_OF_TEST.write();
        assert_eq!(HEXLOWER.encode(&bytes), "80e01234cafebabe0badcafe");
        assert_eq!(RtpHeader::read(&bytes), Ok((HEADER_OF_TEST, 12)));
    }

    #[test]
    fn csrcs_extension_and_padding_are_passed_over() {
        let mut packet = HEADER_OF_TEST.write().to_vec();
        packet[0] |= 0x20 | 0x10 | 2;
        packet.extend([0xaa; 8]);
        packet.extend([0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        packet.extend(b"payload");
        packet.extend([0, 0, 3]);
        let (header, length) = RtpHeader::read(&packet).unwrap();
        assert_eq!(length, 12 + 8 + 8);
        let payload = header.without_padding(&packet[length..]).unwrap();
        assert_eq!(payload, b"payload");
        // cut anywhere before the payload, it is refused
        for cut in 0..length {
            assert!(RtpHeader::read(&packet[..cut]).is_err(), "{cut}");
        }
        assert!(header.without_padding(&[]).is_err());
        assert!(header.without_padding(&[0]).is_err());
        assert!(header.without_padding(&[1, 2, 4]).is_err());
        assert_eq!(header.without_padding(&[1, 2, 3]), Ok(&[][..]));
    }

    #[test]
    fn another_version_is_refused() {
        let mut packet = HEADER_OF_TEST.write();
        packet[0] = 0x40;
        assert_eq!(RtpHeader::read(&packet), Err(WireError::Version(1)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((header, length)) = RtpHeader::read(&packet) {
                prop_assert!(length <= packet.len());
                let _ = header.without_padding(&packet[length..]);
            }
        }

        #[test]
        fn a_number_is_found_again_within_half_its_range(number in 0_u64..1 << 48, away in -32_767_i64..=32_767) {
            if let Some(reference) = number.checked_add_signed(away) {
                prop_assert_eq!(extend_sequence(reference, number as u16), number);
                prop_assert_eq!(extend_timestamp(reference, number as u32), number);
            }
        }
    }
}
