//! ICMPv6 errors that a router sends (RFC 4443), and which addresses lie in one network.

use std::net::Ipv6Addr;

use librecast::checksum::Sum;

use crate::config::ROUTER_ADDRESS;

const IPV6_HEADER_LEN: usize = 40;
const ICMPV6: u8 = 58;
/// No error message is longer (RFC 4443 §2.4 c).
const MIN_MTU: usize = 1_280;
/// ICMPv6 types below are errors, which never cause another (RFC 4443 §2.4 e).
const FIRST_INFORMATIONAL: u8 = 128;

/// What a router answers where it cannot pass a packet on (RFC 4443 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// No node has this address.
    NoRoute,
    /// The node takes no unicast.
    Prohibited,
    /// The node is known and cannot be reached.
    AddressUnreachable,
    /// Longer than the interface at the other end takes, in bytes.
    TooBig(u16),
}

impl IcmpError {
    fn head(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::AddressUnreachable => (1, 3, 0),
            Self::TooBig(mtu) => (2, 0, mtu.into()),
        }
    }

    /// The error in answer to `packet`, from this host's router to its sender. `None` where none may be
    /// sent: in answer to an error, or to nobody.
    pub fn answer(self, packet: &[u8]) -> Option<Vec<u8>> {
        self.answer_from(ROUTER_ADDRESS, packet)
    }

    /// The same, from another address of a router.
    pub fn answer_from(self, from: Ipv6Addr, packet: &[u8]) -> Option<Vec<u8>> {
        let to = address(packet, 8)?;
        let first = *packet.get(IPV6_HEADER_LEN)?;
        let is_error = packet[6] == ICMPV6 && first < FIRST_INFORMATIONAL;
        if is_error || to.is_unspecified() || to.is_multicast() {
            return None;
        }
        let (kind, code, parameter) = self.head();
        let quoted = &packet[..packet.len().min(MIN_MTU - IPV6_HEADER_LEN - 8)];
        let mut icmp = vec![kind, code, 0, 0];
        icmp.extend(parameter.to_be_bytes());
        icmp.extend(quoted);
        // at most MIN_MTU
        let sum = Sum::pseudo_header(ICMPV6, from, to, icmp.len() as u32);
        let sum = !sum.bytes(&icmp).fold();
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut answer = vec![0x60, 0, 0, 0];
        // at most MIN_MTU
        answer.extend((icmp.len() as u16).to_be_bytes());
        answer.extend([ICMPV6, 64]);
        answer.extend(from.octets());
        answer.extend(to.octets());
        answer.extend(icmp);
        Some(answer)
    }
}

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

/// Whether both addresses begin with the same 48 bits: those of a network.
pub fn is_same_network(a: Ipv6Addr, b: Ipv6Addr) -> bool {
    a.segments()[..3] == b.segments()[..3]
}
