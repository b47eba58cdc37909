//! The PROBE: the message among gateways of one LAN that elects the forwarder.
//!
//! ```text
//! version 8 = 1 | network 48 | origin 64 | incarnation 32 | counter 64 | lan 64 | term 32 | mac 48
//! | flags 8 | reachable 8 | priority 8 | nonce 64 | gateways 8 x { origin 64 | nonce 64 }
//! | signature 512
//! ```

use librecast::ethernet::MacAddress;
use librecast::id::{LanId, OriginId, PeerId};
use librecast::wire::{Reader, WireError, Writer};

use crate::services::Services;

/// Version of a PROBE.
const VERSION: u8 = 1;
/// Flag: its sender is the forwarder.
const FORWARDER: u8 = 0x01;
/// Flag: its sender has links.
const LINKED: u8 = 0x02;
/// Distinguishes a PROBE from other messages that routers sign.
const SIGNED_AS: &[u8] = b"PROBE";
/// Most gateways of one LAN. Chosen.
pub const MAX_GATEWAYS: usize = 32;

/// A gateway's fitness to serve its LAN: the greater one serves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// It has links.
    pub linked: bool,
    /// Binary logarithm of the number of routers that it reaches.
    pub reachable: u8,
    /// The configured priority.
    pub priority: u8,
}

/// A gateway's announcement on a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The first 48 bits of the network's addresses.
    pub network: [u8; 6],
    /// The gateway.
    pub origin: OriginId,
    /// Raised with each run, and with each PROBE of a run.
    pub number: (u32, u64),
    /// The LAN as the gateway knows it.
    pub lan: LanId,
    /// The term of the LAN's forwarder, as far as the gateway knows.
    pub term: u32,
    /// The gateway's address on this LAN.
    pub mac: MacAddress,
    /// It is the forwarder.
    pub is_forwarder: bool,
    /// Its fitness to serve.
    pub rank: Rank,
    /// Nonce, which other gateways repeat in their PROBEs.
    pub nonce: u64,
    /// The gateways that it receives, with the nonce of each; at most [`MAX_GATEWAYS`].
    pub gateways: Vec<(OriginId, u64)>,
}

/// The first 48 bits of a network's addresses.
pub fn network_prefix(address: std::net::Ipv6Addr) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = address.octets();
    [a, b, c, d, e, f]
}

impl Probe {
    /// Builds and signs the message.
    pub fn sign<S: Services + ?Sized>(&self, services: &S) -> Vec<u8> {
        let mut w = Writer::new();
        let (incarnation, counter) = self.number;
        w.u8(VERSION).put(&self.network).u64(self.origin.0);
        w.u32(incarnation)
            .u64(counter)
            .u64(self.lan.0)
            .u32(self.term);
        let forwarder = if self.is_forwarder { FORWARDER } else { 0 };
        let linked = if self.rank.linked { LINKED } else { 0 };
        w.put(&self.mac.0).u8(forwarder | linked);
        w.u8(self.rank.reachable)
            .u8(self.rank.priority)
            .u64(self.nonce);
        // bounded by the number of gateways that are kept
        w.u8(self.gateways.len() as u8);
        for (origin, nonce) in &self.gateways {
            w.u64(origin.0).u64(*nonce);
        }
        let signature = services.sign(&[SIGNED_AS, w.as_slice()].concat());
        w.put(&signature);
        w.into_vec()
    }

    /// Decodes a message without a proof of its sender.
    ///
    /// # Errors
    /// The bytes are no PROBE of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let (network, origin) = (r.array()?, OriginId(r.u64()?));
        let number = (r.u32()?, r.u64()?);
        let (lan, term, mac) = (LanId(r.u64()?), r.u32()?, MacAddress(r.array()?));
        let flags = r.u8()?;
        let rank = Rank {
            linked: flags & LINKED != 0,
            reachable: r.u8()?,
            priority: r.u8()?,
        };
        let nonce = r.u64()?;
        let count = usize::from(r.u8()?);
        if count > MAX_GATEWAYS {
            return Err(WireError::Bad("number of gateways"));
        }
        let mut gateways = Vec::with_capacity(count);
        for _ in 0..count {
            gateways.push((OriginId(r.u64()?), r.u64()?));
        }
        r.array::<64>()?;
        r.finish()?;
        Ok(Self {
            network,
            origin,
            number,
            lan,
            term,
            mac,
            is_forwarder: flags & FORWARDER != 0,
            rank,
            nonce,
            gateways,
        })
    }

    /// Whether `signer` signed the message.
    pub fn is_signed_by<S: Services + ?Sized>(bytes: &[u8], signer: &PeerId, services: &S) -> bool {
        let Some((message, signature)) = bytes.split_last_chunk::<64>() else {
            return false;
        };
        services.verify(signer, &[SIGNED_AS, message].concat(), signature)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::TestServices;

    fn example() -> Probe {
        Probe {
            network: [0xfd, 1, 2, 3, 4, 5],
            origin: OriginId(6),
            number: (7, 8),
            lan: LanId(9),
            term: 10,
            mac: MacAddress([2, 0, 0, 0, 0, 11]),
            is_forwarder: true,
            rank: Rank {
                linked: true,
                reachable: 3,
                priority: 4,
            },
            nonce: 12,
            gateways: vec![(OriginId(13), 14)],
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = example().sign(&TestServices::new(1));
        let expected = [
            &[1u8, 0xfd, 1, 2, 3, 4, 5][..],
            &[0, 0, 0, 0, 0, 0, 0, 6],
            &[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8],
            &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 10],
            &[2, 0, 0, 0, 0, 11, 3, 3, 4],
            &[0, 0, 0, 0, 0, 0, 0, 12, 1],
            &[0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 14],
        ]
        .concat();
        assert_eq!(bytes[..expected.len()], expected);
        assert_eq!(bytes.len(), expected.len() + 64);
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let services = TestServices::new(1);
        let bytes = example().sign(&services);
        assert_eq!(Probe::decode(&bytes), Ok(example()));
        assert!(Probe::is_signed_by(&bytes, &services.peer(), &services));
        for i in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[i / 8] ^= 1 << (i % 8);
            assert!(
                !Probe::is_signed_by(&bad, &services.peer(), &services),
                "bit {i}"
            );
        }
        let other = TestServices::new(2).peer();
        assert!(!Probe::is_signed_by(&bytes, &other, &services));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Probe::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = Probe::decode(&bytes);
            let _ = Probe::is_signed_by(&bytes, &TestServices::new(1).peer(), &TestServices::new(1));
        }
    }
}
