//! Datagrams and errors of the one UDP socket.

use std::net::SocketAddr;

use bytes::Bytes;

/// What the IP header of a datagram says of congestion (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Ecn {
    /// Nothing: the sender would not heed a mark, or somebody on the way wiped it off.
    #[default]
    None,
    /// The sender heeds marks. ECT(0) is sent, ECT(1) counts as the same.
    Capable,
    /// A queue on the way was filling.
    Congested,
}

/// A datagram for the one UDP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Destination; IPv4 as plain IPv4.
    pub to: SocketAddr,
    /// The local address to send from (IP_PKTINFO), where it matters.
    pub from: Option<SocketAddr>,
    /// What to send: at most one datagram.
    pub contents: Bytes,
    /// How it is marked: datagrams are marked whose sender hears of congestion.
    pub ecn: Ecn,
    /// A probe of the path: it must arrive whole or not at all.
    pub dont_fragment: bool,
}

impl Transmit {
    /// A datagram without a mark, which may be fragmented.
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

/// An ICMP error: a datagram of ours did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable<'a> {
    /// Where it was sent; IPv4 as plain IPv4.
    pub remote: SocketAddr,
    /// The host there says so itself: nobody on it has that port.
    pub is_refusal: bool,
    /// How the datagram began, as far as the error quotes it.
    pub quoted: &'a [u8],
}
