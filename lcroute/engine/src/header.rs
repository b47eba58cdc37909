//! The data header, version 1: 32 bytes before each packet on a data channel.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+---------------+-------+-------+
//! |ver = 1|payload|     flags     |   hop limit   | auth  | zero  |
//! +-------+-------+---------------+---------------+-------+-------+
//! |                         root (64 bits)                        |
//! |                        origin (64 bits)                       |
//! |                     incarnation (32 bits)                     |
//! |                       sequence (48 bits)      +---------------+
//! |                                               |     zero      |
//! +-----------------------------------------------+---------------+
//! ```
//! The payload type is the IP version of the packet behind: 4 or 6.

use librecast::id::OriginId;
use librecast::wire::{Reader, WireError};

use crate::classify::is_ipv4;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 32;
/// The version in the high nibble of the first byte.
pub const VERSION: u8 = 1;
/// The overlay's own hop limit of a packet at its origin.
pub const HOP_LIMIT: u8 = 64;
/// Sequence numbers have 48 bits.
pub const MAX_SEQUENCE: u64 = (1 << 48) - 1;

/// Kind of authentication: none behind the header.
const AUTH_NONE: u8 = 0;

/// The kind of packet behind a data header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Payload {
    /// An IPv4 packet.
    Ipv4 = 4,
    /// An IPv6 packet.
    Ipv6 = 6,
}

impl Payload {
    /// The kind of a classified packet.
    #[must_use]
    pub fn of(packet: &[u8]) -> Self {
        if is_ipv4(packet) {
            Self::Ipv4
        } else {
            Self::Ipv6
        }
    }
}

/// A data header of version 1 in front of a packet without authentication tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// The kind of the packet behind.
    pub payload: Payload,
    /// Flags; none is defined, receivers ignore them.
    pub flags: u8,
    /// Number of routers that may still forward it; 0 is not accepted.
    pub hop_limit: u8,
    /// The root of its tree.
    pub root: OriginId,
    /// The router of the sender's host.
    pub origin: OriginId,
    /// The origin's incarnation.
    pub incarnation: u32,
    /// Counts the origin's packets; 48 bits.
    pub sequence: u64,
}

impl DataHeader {
    /// Encodes the header. `sequence` is cut to its 48 bits.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0] = VERSION << 4 | self.payload as u8;
        b[1] = self.flags;
        b[2] = self.hop_limit;
        b[3] = AUTH_NONE << 4;
        b[4..12].copy_from_slice(&self.root.0.to_be_bytes());
        b[12..20].copy_from_slice(&self.origin.0.to_be_bytes());
        b[20..24].copy_from_slice(&self.incarnation.to_be_bytes());
        b[24..30].copy_from_slice(&self.sequence.to_be_bytes()[2..]);
        b
    }

    /// Splits a message into its header and the packet behind it.
    pub fn decode(message: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let mut r = Reader::new(message);
        let kind = r.u8()?;
        if kind >> 4 != VERSION {
            return Err(WireError::Version(kind >> 4));
        }
        let payload = match kind & 0x0f {
            6 => Payload::Ipv6,
            4 => Payload::Ipv4,
            _ => return Err(WireError::Bad("payload type")),
        };
        let flags = r.u8()?;
        let hop_limit = r.u8()?;
        if r.u8()? >> 4 != AUTH_NONE {
            return Err(WireError::Bad("authentication type"));
        }
        let header = Self {
            payload,
            flags,
            hop_limit,
            root: OriginId(r.u64()?),
            origin: OriginId(r.u64()?),
            incarnation: r.u32()?,
            sequence: u64::from(r.u16()?) << 32 | u64::from(r.u32()?),
        };
        // no meaning yet
        r.take(2)?;
        Ok((header, r.rest()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn golden() -> DataHeader {
        DataHeader {
            payload: Payload::Ipv6,
            flags: 0,
            hop_limit: 64,
            root: OriginId(0x0102_0304_0506_0708),
            origin: OriginId(0x1112_1314_1516_1718),
            incarnation: 0x2122_2324,
            sequence: 0x3132_3334_3536,
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = [
            0x16, 0x00, 0x40, 0x00, // version and payload, flags, hop limit, authentication
            0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, // root
            0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, // origin
            0x21, 0x22, 0x23, 0x24, // incarnation
            0x31, 0x32, 0x33, 0x34, 0x35, 0x36, // sequence
            0x00, 0x00, // zero
        ];
        assert_eq!(golden().encode(), bytes);
        assert_eq!(DataHeader::decode(&bytes).unwrap(), (golden(), &[][..]));
        let ipv4 = DataHeader {
            payload: Payload::Ipv4,
            ..golden()
        };
        let bytes = [&[0x14], &bytes[1..]].concat();
        assert_eq!(ipv4.encode()[..], bytes);
        assert_eq!(DataHeader::decode(&bytes).unwrap(), (ipv4, &[][..]));
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        let with = |i: usize, v: u8| {
            let mut b = golden().encode();
            b[i] = v;
            DataHeader::decode(&b).unwrap_err()
        };
        assert_eq!(with(0, 0x26), WireError::Version(2));
        assert_eq!(with(0, 0x15), WireError::Bad("payload type"));
        assert_eq!(with(3, 0x10), WireError::Bad("authentication type"));
        assert_eq!(
            DataHeader::decode(&golden().encode()[..31]).unwrap_err(),
            WireError::Truncated
        );
    }

    proptest! {
        #[test]
        fn round_trip(
            is_ipv4: bool, flags: u8, hop_limit: u8, root: u64, origin: u64, incarnation: u32,
            sequence in 0..=MAX_SEQUENCE, packet: Vec<u8>,
        ) {
            let (root, origin) = (OriginId(root), OriginId(origin));
            let payload = if is_ipv4 { Payload::Ipv4 } else { Payload::Ipv6 };
            let h = DataHeader { payload, flags, hop_limit, root, origin, incarnation, sequence };
            let message = [&h.encode()[..], &packet].concat();
            prop_assert_eq!(DataHeader::decode(&message).unwrap(), (h, &packet[..]));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok((h, packet)) = DataHeader::decode(&bytes) {
                prop_assert_eq!(packet.len() + HEADER_LEN, bytes.len());
                prop_assert!(h.sequence <= MAX_SEQUENCE);
            }
        }
    }
}
