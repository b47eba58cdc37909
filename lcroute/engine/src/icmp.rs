//! ICMPv6 errors of a router (RFC 4443), and those of ICMP (RFC 792, RFC 1812 §4.3).

use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::checksum::Sum;
use librecast::ipv4::{self, Envelope, Header};
use librecast::ipv6::{HEADER_LEN, ICMPV6, icmpv6_packet};

use crate::classify::is_ipv4;
use crate::config::ROUTER_ADDRESS;

/// Hop limit of this node's ICMP errors.
const HOP_LIMIT: u8 = 64;
/// Longest error message in bytes (RFC 4443 §2.4 c).
const MIN_MTU: usize = 1_280;
/// First ICMPv6 type that is not an error; errors never cause another one (RFC 4443 §2.4 e).
pub const FIRST_INFORMATIONAL: u8 = 128;
/// Longest quotation of an IPv4 packet: an error stays below 576 bytes (RFC 1812 §4.3.2.3).
const IPV4_QUOTED: usize = 576 - ipv4::HEADER_LEN - 8;
/// ICMP types of requests and replies, which errors may answer (RFC 1122 §3.2.2).
const ICMP_INFORMATIONAL: [u8; 4] = [0, 8, 13, 14];

/// A router's error about a packet that it cannot pass on (RFC 4443 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// No node has this address.
    NoRoute,
    /// The node accepts no unicast.
    Prohibited,
    /// The node is known and cannot be reached.
    AddressUnreachable,
    /// Longer than this MTU of the other end, in bytes.
    TooBig(u16),
}

impl IcmpError {
    /// Type and code, and the second word of the ICMPv6 message.
    fn head(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::AddressUnreachable => (1, 3, 0),
            Self::TooBig(mtu) => (2, 0, mtu.into()),
        }
    }

    /// The error about `packet`, from this host's router to its sender; for IPv4 from `router`.
    /// `None` if none may be sent: about an error, or without a sender.
    pub fn answer(self, packet: &[u8], router: Option<Ipv4Addr>) -> Option<Vec<u8>> {
        if is_ipv4(packet) {
            return self.answer_ipv4(router?, packet);
        }
        self.answer_from(ROUTER_ADDRESS, packet)
    }

    /// Builds a message of type 3: its code, and the second half of its second word.
    fn answer_ipv4(self, from: Ipv4Addr, packet: &[u8]) -> Option<Vec<u8>> {
        let header = Header::read(packet).ok()?;
        let first = *header.payload.first()?;
        let is_error = header.protocol == ipv4::ICMP && !ICMP_INFORMATIONAL.contains(&first);
        if is_error || header.fragment_offset != 0 {
            return None;
        }
        let (code, mtu) = match self {
            Self::NoRoute => (0, 0),
            Self::AddressUnreachable => (1, 0),
            Self::Prohibited => (13, 0),
            // a sender that permits fragmentation need not send shorter packets
            Self::TooBig(mtu) => (4, header.dont_fragment.then_some(mtu)?),
        };
        let mut icmp = vec![3, code, 0, 0, 0, 0];
        icmp.extend(mtu.to_be_bytes());
        icmp.extend(&packet[..packet.len().min(IPV4_QUOTED)]);
        let sum = Sum::default().bytes(&icmp).fold();
        icmp[2..4].copy_from_slice(&(!sum).to_be_bytes());
        let envelope = Envelope {
            source: from,
            destination: header.source,
            protocol: ipv4::ICMP,
            ttl: HOP_LIMIT,
        };
        Some(ipv4::packet(&envelope, &icmp))
    }

    /// The error from another address of a router.
    pub fn answer_from(self, from: Ipv6Addr, packet: &[u8]) -> Option<Vec<u8>> {
        let to = address(packet, 8)?;
        let first = *packet.get(HEADER_LEN)?;
        let is_error = packet[6] == ICMPV6 && first < FIRST_INFORMATIONAL;
        if is_error || to.is_unspecified() || to.is_multicast() {
            return None;
        }
        let (kind, code, parameter) = self.head();
        let quoted = &packet[..packet.len().min(MIN_MTU - HEADER_LEN - 8)];
        let mut icmp = vec![kind, code, 0, 0];
        icmp.extend(parameter.to_be_bytes());
        icmp.extend(quoted);
        Some(icmpv6_packet(from, to, HOP_LIMIT, &icmp))
    }
}

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

/// Whether both addresses begin with the same 48 bits, like those of one network.
pub fn is_same_network(a: Ipv6Addr, b: Ipv6Addr) -> bool {
    a.segments()[..3] == b.segments()[..3]
}
