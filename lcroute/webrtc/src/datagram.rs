//! Datagrams and errors of the one UDP socket.

use std::net::SocketAddr;

use bytes::Bytes;

/// ECN field of a datagram's IP header (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Ecn {
    /// Not-ECT: the sender ignores marks, or the path has cleared the field.
    #[default]
    None,
    /// ECT: the sender reacts to marks. ECT(0) is sent, ECT(1) counts as the same.
    Capable,
    /// CE: a queue on the path was filling.
    Congested,
}

/// A datagram for the one UDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Destination; IPv4 as plain IPv4.
    pub to: SocketAddr,
    /// The local address to send from (IP_PKTINFO), where it matters.
    pub from: Option<SocketAddr>,
    /// Payload of one datagram.
    pub contents: Bytes,
    /// Its mark; only datagrams under congestion control have one.
    pub ecn: Ecn,
    /// Whether it is a probe of the path, which must not be fragmented.
    pub dont_fragment: bool,
}

impl Transmit {
    /// Makes a datagram without a mark, which may be fragmented.
    pub(crate) fn plain(to: SocketAddr, from: Option<SocketAddr>, contents: Bytes) -> Self {
        Self {
            to,
            from,
            contents,
            ecn: Ecn::None,
            dont_fragment: false,
        }
    }
}

/// An ICMP error about a datagram of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable<'a> {
    /// Destination of that datagram; IPv4 as plain IPv4.
    pub remote: SocketAddr,
    /// Whether the destination itself reports that the port is closed.
    pub is_refusal: bool,
    /// First bytes of the datagram, as the error quotes them.
    pub quoted: &'a [u8],
}
