//! Encodes and decodes ARP for IPv4 on Ethernet (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use crate::ethernet::{ETHERTYPE_IPV4, MacAddress};
use crate::wire::{Reader, WireError, Writer};

/// Hardware type of Ethernet (RFC 826).
const ETHERNET: u16 = 1;
/// Length of an Ethernet address in bytes.
const MAC_LEN: u8 = 6;
/// Length of an IPv4 address in bytes.
const IPV4_LEN: u8 = 4;
/// Operation of a request (RFC 826).
const REQUEST: u16 = 1;
/// Operation of a reply (RFC 826).
const REPLY: u16 = 2;

/// The meaning of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The sender asks for the target's Ethernet address.
    Request,
    /// The sender states its own.
    Reply,
}

/// An ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Its meaning.
    pub operation: Operation,
    /// The sender's Ethernet address.
    pub sender_mac: MacAddress,
    /// The sender; unspecified in a probe for a free address (RFC 5227 §1.1).
    pub sender: Ipv4Addr,
    /// The target's Ethernet address; zero in a request.
    pub target_mac: MacAddress,
    /// The target.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Makes a request for the Ethernet address of `target`.
    #[must_use]
    pub fn request(sender_mac: MacAddress, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac,
            sender,
            target_mac: MacAddress::default(),
            target,
        }
    }

    /// Decodes the payload of a frame; padding may follow.
    ///
    /// # Errors
    /// It is truncated, of another operation, or not for IPv4 on Ethernet.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(payload);
        let kinds = (r.u16()?, r.u16()?, r.u8()?, r.u8()?);
        if kinds != (ETHERNET, ETHERTYPE_IPV4, MAC_LEN, IPV4_LEN) {
            return Err(WireError::Bad("kind of ARP"));
        }
        let operation = match r.u16()? {
            REQUEST => Operation::Request,
            REPLY => Operation::Reply,
            _ => return Err(WireError::Bad("operation of ARP")),
        };
        Ok(Self {
            operation,
            sender_mac: MacAddress(r.array()?),
            sender: Ipv4Addr::from(r.array::<4>()?),
            target_mac: MacAddress(r.array()?),
            target: Ipv4Addr::from(r.array::<4>()?),
        })
    }

    /// Encodes it without padding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let operation = match self.operation {
            Operation::Request => REQUEST,
            Operation::Reply => REPLY,
        };
        let mut w = Writer::new();
        w.u16(ETHERNET).u16(ETHERTYPE_IPV4).u8(MAC_LEN).u8(IPV4_LEN);
        w.u16(operation);
        w.put(&self.sender_mac.0).put(&self.sender.octets());
        w.put(&self.target_mac.0).put(&self.target.octets());
        w.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use pnet_packet::arp::ArpPacket;
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: Arp = Arp {
        operation: Operation::Request,
        sender_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        sender: Ipv4Addr::new(192, 168, 1, 20),
        target_mac: MacAddress([0; 6]),
        target: Ipv4Addr::new(192, 168, 1, 30),
    };

    #[test]
    fn golden_bytes() {
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 168, 1, 20, 0, 0, 0, 0, 0, 0, 192, 168,
            1, 30,
        ];
        assert_eq!(EXAMPLE.encode(), expected);
        let padded = [&expected[..], &[0; 18]].concat();
        assert_eq!(Arp::decode(&padded), Ok(EXAMPLE));
        for length in 0..expected.len() {
            assert!(Arp::decode(&expected[..length]).is_err(), "{length}");
        }
        for (at, other) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3)] {
            let mut bad = expected;
            bad[at] = other;
            assert!(Arp::decode(&bad).is_err(), "{at}");
        }
    }

    #[test]
    fn another_program_reads_it() {
        let bytes = Arp {
            operation: Operation::Reply,
            ..EXAMPLE
        }
        .encode();
        let read = ArpPacket::new(&bytes).unwrap();
        assert_eq!(read.get_operation().0, 2);
        assert_eq!(read.get_sender_hw_addr().octets(), EXAMPLE.sender_mac.0);
        assert_eq!(read.get_sender_proto_addr(), EXAMPLE.sender);
        assert_eq!(read.get_target_proto_addr(), EXAMPLE.target);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_survive(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(arp) = Arp::decode(&bytes) {
                prop_assert_eq!(Arp::decode(&arp.encode()), Ok(arp));
            }
        }
    }
}
