//! Announcements by SAP (RFC 2974): session descriptions to ff0e::2:7ffe, UDP port 9875.
//!
//! ```text
//! | V=1 3 | A: source of IPv6 | R | T: deletion | E: encrypted | C: compressed | words 8 | hash 16
//! | source 32 or 128 | authentication, words x 32 | "application/sdp" 0 | description |
//! ```

use librecast::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use librecast::wire::{Reader, WireError, Writer};

/// Destination of announcements: global scope.
pub const SAP_GROUP: Ipv6Addr = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 2, 0x7ffe);
/// UDP port of announcements.
pub const SAP_PORT: u16 = 9_875;
/// Time between a station's announcements: short for users of a list (RFC 2974, 3.1: 5 minutes).
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(5);

const SDP_TYPE: &[u8] = b"application/sdp\0";
/// Bit A of the first byte (RFC 2974 §6, as all here): the source is an IPv6 address.
const IPV6: u8 = 0x10;
/// Bit T: the announcement is deleted.
const DELETION: u8 = 0x04;
/// Bit E: the payload is encrypted.
const ENCRYPTED: u8 = 0x02;
/// Bit C: the payload is compressed.
const COMPRESSED: u8 = 0x01;

/// The content of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement<'a> {
    /// Identifies the description, with the source.
    pub hash: u16,
    /// The announcer; IPv4 for a sender in another network.
    pub source: IpAddr,
    /// Whether the description is deleted.
    pub is_deletion: bool,
    /// SDP.
    pub description: &'a [u8],
}

impl<'a> Announcement<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// It does not fit the format, is encrypted or compressed, or is not SDP.
    pub fn read(packet: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(packet);
        let flags = r.u8()?;
        if flags >> 5 != 1 {
            return Err(WireError::Version(flags >> 5));
        }
        if flags & (ENCRYPTED | COMPRESSED) != 0 {
            return Err(WireError::Bad("encrypted or compressed"));
        }
        let words = r.u8()?;
        let hash = r.u16()?;
        let source = match flags & IPV6 {
            0 => IpAddr::V4(Ipv4Addr::from(r.array::<4>()?)),
            _ => IpAddr::V6(r.ipv6()?),
        };
        r.take(usize::from(words) * 4)?;
        let rest = r.rest();
        let description = match rest.strip_prefix(SDP_TYPE) {
            Some(sdp) => sdp,
            // version 0 of the protocol, without a type
            None if rest.starts_with(b"v=0") => rest,
            // a deletion may name its session in one line (RFC 2974, 5)
            None if flags & DELETION != 0 => rest,
            None => return Err(WireError::Bad("payload type")),
        };
        Ok(Self {
            hash,
            source,
            is_deletion: flags & DELETION != 0,
            description,
        })
    }

    /// Encodes the packet.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let source = if self.source.is_ipv6() { IPV6 } else { 0 };
        let deletion = if self.is_deletion { DELETION } else { 0 };
        w.u8(1 << 5 | source | deletion).u8(0).u16(self.hash);
        match self.source {
            IpAddr::V4(source) => w.put(&source.octets()),
            IpAddr::V6(source) => w.ipv6(source),
        };
        w.put(SDP_TYPE).put(self.description);
        w.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn announcement(is_deletion: bool) -> Announcement<'static> {
        Announcement {
            hash: 0xabcd,
            source: "fd01::5".parse().unwrap(),
            is_deletion,
            description: b"v=0\r\n",
        }
    }

    #[test]
    fn the_packet_is_frozen() {
        let packet = announcement(false).write();
        assert_eq!(
            HEXLOWER.encode(&packet),
            "3000abcdfd0100000000000000000000000000056170706c69636174696f6e2f73647000763d300d0a"
        );
        for is_deletion in [false, true] {
            let announcement = announcement(is_deletion);
            assert_eq!(Announcement::read(&announcement.write()), Ok(announcement));
        }
    }

    #[test]
    fn what_others_send_is_read_or_refused() {
        // IPv4, authentication of two words, no type
        let packet = [&[0x20, 2, 0, 7, 10, 0, 0, 1][..], &[9; 8], b"v=0\r\n"].concat();
        let read = Announcement::read(&packet).unwrap();
        assert_eq!(read.source, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(read.description, b"v=0\r\n");
        for cut in 0..16 {
            assert!(Announcement::read(&packet[..cut]).is_err(), "{cut}");
        }
        for flags in [0x22, 0x21, 0x40, 0] {
            let mut other = packet.clone();
            other[0] = flags;
            assert!(Announcement::read(&other).is_err(), "{flags:#x}");
        }
        let other = [&packet[..16], b"text/plain\0hello"].concat();
        assert!(Announcement::read(&other).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(packet in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Announcement::read(&packet);
            let _ = Announcement::read(&[&[0x20, 0], &packet[..]].concat());
        }
    }
}
