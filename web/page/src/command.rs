//! Commands to the member in the page, and its datagrams.

use std::net::Ipv6Addr;

/// A command to the member in the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Join a group.
    Join(Ipv6Addr),
    /// Leave a group.
    Leave(Ipv6Addr),
    /// Send a datagram to a group.
    Send {
        /// The group.
        group: Ipv6Addr,
        /// UDP port.
        port: u16,
        /// Payload without headers.
        data: Vec<u8>,
    },
}

impl Command {
    /// The page's form: one byte for the kind, the group as text and an end of line. A datagram has
    /// its port (little-endian) before the group, and its data at the end.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, group) = match self {
            Self::Join(group) => (1, group),
            Self::Leave(group) => (2, group),
            Self::Send { group, .. } => (3, group),
        };
        let mut bytes = vec![kind];
        if let Self::Send { port, .. } = self {
            bytes.extend(port.to_le_bytes());
        }
        bytes.extend(group.to_string().bytes());
        bytes.push(b'\n');
        if let Self::Send { data, .. } = self {
            bytes.extend(data);
        }
        bytes
    }
}

/// Splits an address off the beginning.
fn address(bytes: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let (address, rest) = bytes.split_first_chunk::<16>()?;
    Some((Ipv6Addr::from(*address), rest))
}

/// A datagram from the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Its sender.
    pub source: Ipv6Addr,
    /// The group that it was sent to.
    pub group: Ipv6Addr,
    /// The UDP port that it was sent to.
    pub port: u16,
    /// Payload without headers.
    pub data: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Decodes source, group (16 bytes each), port (2, big-endian), data.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (source, rest) = address(bytes)?;
        let (group, rest) = address(rest)?;
        let (port, data) = rest.split_first_chunk()?;
        Some(Self {
            source,
            group,
            port: u16::from_be_bytes(*port),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_page_takes_has_this_form() {
        let group = "ff1e::2".parse().unwrap();
        let join = Command::Join(group).to_bytes();
        assert_eq!(join, b"\x01ff1e::2\n");
        let leave = Command::Leave(group).to_bytes();
        assert_eq!(leave, b"\x02ff1e::2\n");
        let data = b"abc".to_vec();
        let port = 5_004;
        let send = Command::Send { group, port, data }.to_bytes();
        assert_eq!(send, b"\x03\x8c\x13ff1e::2\nabc");
    }

    #[test]
    fn a_datagram_is_two_addresses_a_port_and_data() {
        let mut bytes = [0; 34].to_vec();
        (bytes[15], bytes[16], bytes[31], bytes[33]) = (1, 0xff, 2, 9);
        let empty = Datagram {
            source: "::1".parse().unwrap(),
            group: "ff00::2".parse().unwrap(),
            port: 9,
            data: &[],
        };
        assert_eq!(Datagram::decode(&bytes), Some(empty));
        bytes.push(7);
        let data = &[7][..];
        assert_eq!(Datagram::decode(&bytes), Some(Datagram { data, ..empty }));
        assert_eq!(Datagram::decode(&bytes[..33]), None);
    }
}
