//! The IPv4 addresses of a network's nodes.
//!
//! No block is free everywhere: other overlays drop 100.64.0.0/10, clouds use 169.254.0.0/16 and
//! 198.18.0.0/15, and hosts refuse 240.0.0.0/4. So each network has a small block of its own.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use librecast::id::{NetworkId, PeerId, derive};
use librecast::wire::WireError;

/// The second byte of a network's block: 64 to 255, without defaults of other software: Kubernetes,
/// ZeroTier, and the ends of private address plans.
const LOWEST: u8 = 64;
const TAKEN: [u8; 6] = [96, 128, 147, 152, 244, 255];
/// Length of the block's prefix in bits.
pub const PREFIX_LEN: u8 = 16;
/// Host part of "the router" on each host: the source of queries and reports.
const ROUTER: u16 = 1;

/// A block of 65,536 IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Network(u16);

impl Ipv4Network {
    /// The block of a network, unless its nodes have another one configured.
    pub fn of(network: &NetworkId) -> Self {
        let hash = derive("lcroute 2026 ipv4 network", &[network.public_key()]);
        let good = |byte: &&u8| **byte >= LOWEST && !TAKEN.contains(*byte);
        let second = hash.iter().find(good).copied();
        // all 32 bytes are bad once in 10^15 networks
        Self(u16::from_be_bytes([10, second.unwrap_or(LOWEST)]))
    }

    /// Its first address.
    pub fn address(self) -> Ipv4Addr {
        self.host(0)
    }

    /// "The router" on each host.
    pub fn router(self) -> Ipv4Addr {
        self.host(ROUTER)
    }

    /// Whether an address lies in the block.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() >> 16 == u32::from(self.0)
    }

    /// Whether a node may have an address of the block.
    #[must_use]
    pub fn may_assign(self, address: Ipv4Addr) -> bool {
        self.contains(address) && is_assignable(address)
    }

    fn host(self, host: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::from(self.0) << 16 | u32::from(host))
    }

    /// The address that a node takes in attempt `n`.
    pub fn candidate(self, node: &PeerId, n: u16) -> Ipv4Addr {
        let hash = derive("lcroute 2026 ipv4", &[node.public_key(), &n.to_be_bytes()]);
        let hosts = hash.as_chunks::<2>().0.iter();
        let mut addresses = hosts.map(|bytes| self.host(u16::from_be_bytes(*bytes)));
        let address = addresses.find(|address| is_assignable(*address));
        // sixteen bad ones in a row do not happen
        address.unwrap_or(self.host(0x0100))
    }
}

/// Whether a node may have this address: private (RFC 1918), not in x.y.0.0/24, where the router
/// is, and not the broadcast address of a block.
pub fn is_assignable(address: Ipv4Addr) -> bool {
    let [.., third, fourth] = address.octets();
    address.is_private() && third != 0 && (third, fourth) != (255, 255)
}

/// Whether an address means all hosts: of a link, or of a block.
pub fn is_broadcast(address: Ipv4Addr) -> bool {
    let [.., third, fourth] = address.octets();
    address.is_broadcast() || address.is_private() && (third, fourth) == (255, 255)
}

impl fmt::Display for Ipv4Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{PREFIX_LEN}", self.address())
    }
}

impl FromStr for Ipv4Network {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let bad = WireError::Bad("IPv4 network: write private addresses as 10.77.0.0/16");
        let address = text.strip_suffix("/16").and_then(|text| text.parse().ok());
        let address: Ipv4Addr = address.ok_or(bad)?;
        let [first, second, third, fourth] = address.octets();
        let is_clean = (third, fourth) == (0, 0) && address.is_private();
        let network = Self(u16::from_be_bytes([first, second]));
        is_clean.then_some(network).ok_or(bad)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::TestServices;

    fn key(seed: u8) -> PeerId {
        TestServices::new(seed.into()).peer()
    }

    #[test]
    fn golden_addresses() {
        let network = Ipv4Network::of(&key(1));
        let shown = [
            network.to_string(),
            network.candidate(&key(2), 0).to_string(),
            network.candidate(&key(2), 1).to_string(),
        ];
        assert_eq!(shown, GOLDEN, "all nodes must agree on them for ever");
    }

    const GOLDEN: [&str; 3] = ["10.164.0.0/16", "10.164.245.37", "10.164.35.126"];

    #[test]
    fn blocks_are_written_in_one_way() {
        for good in ["10.77.0.0/16", "172.16.0.0/16", "192.168.0.0/16"] {
            assert_eq!(good.parse::<Ipv4Network>().unwrap().to_string(), good);
        }
        for bad in [
            "10.77.0.0",
            "10.77.0.0/8",
            "10.77.1.0/16",
            "8.8.0.0/16",
            "172.32.0.0/16",
            "",
            "x/16",
        ] {
            assert!(bad.parse::<Ipv4Network>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn candidates_are_assignable_and_inside(seed: u8, node: u8, n: u16) {
            let network = Ipv4Network::of(&key(seed));
            let [_, second, ..] = network.address().octets();
            prop_assert!(second >= LOWEST && !TAKEN.contains(&second));
            let address = network.candidate(&key(node), n);
            prop_assert!(network.may_assign(address));
            prop_assert!(!network.may_assign(network.router()) && network.contains(network.router()));
        }
    }
}
