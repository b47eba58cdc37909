//! Configuration of a relay.

use std::net::IpAddr;
use std::sync::Arc;

/// Configuration of a relay.
#[derive(Clone)]
pub struct RelayConfig {
    /// Key of the credentials' passwords.
    pub secret: [u8; 32],
    /// Whether peers may have private or near addresses (RFC 1918, unique local, shared, test).
    pub private: bool,
    /// Rate of a user in bits a second, with headers, both directions together.
    pub rate: u64,
    /// Rate of the relay in bits a second.
    pub rate_total: u64,
    /// Rate of all users inside of one network in bits a second.
    pub leaf_rate: u64,
    /// Bound of allocations; each is a socket.
    pub allocations: usize,
    /// Bound of allocations of a user.
    pub per_user: usize,
    /// Bound of allocations from an IPv4 address or IPv6 /64, scaled for prefixes.
    pub per_address: usize,
    /// Bound of peers of an allocation.
    pub peers: usize,
    /// Bounds of networks that nobody here knows; none: all networks are equal.
    pub strangers: Option<Strangers>,
    /// Test for addresses of the relay's host.
    pub is_own: HasAddress,
    /// Test for addresses that the host reaches without a router: in a prefix of an interface.
    pub is_near: HasAddress,
}

/// Bounds of all users but those of one network, which come first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strangers {
    /// Rate of all strangers together in bits a second.
    pub rate: u64,
    /// The network that comes first, as [`RelayServer::mint`](super::RelayServer::mint) gets it.
    pub members_of: Option<Vec<u8>>,
}

/// A test of an address.
pub type HasAddress = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl RelayConfig {
    /// Makes the default configuration.
    pub fn new(secret: [u8; 32], is_own: HasAddress, is_near: HasAddress) -> Self {
        Self {
            secret,
            private: false,
            rate: 20_000_000,
            rate_total: 200_000_000,
            leaf_rate: 20_000_000,
            allocations: 1_024,
            per_user: 4,
            per_address: 64,
            peers: 256,
            strangers: None,
            is_own,
            is_near,
        }
    }
}

librecast::debug_by_name!(RelayConfig);
