//! How a relay is set up.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// How a relay is set up.
#[derive(Clone)]
pub struct RelayConfig {
    /// What credentials are made with.
    pub secret: [u8; 32],
    /// Whether peers may have private addresses (RFC 1918, unique local, shared, of laboratories), or be near.
    pub private: bool,
    /// Bits a second of one user with headers, both directions together.
    pub rate: u64,
    /// Bits a second of all.
    pub rate_total: u64,
    /// Most allocations; each is a socket.
    pub allocations: usize,
    /// Most allocations of one user.
    pub per_user: usize,
    /// Most allocations from one IPv4 address, or IPv6 /64; of prefixes as [`lcroute_overlay::SiteSize::share`] says.
    pub per_address: usize,
    /// Most peers of one allocation.
    pub peers: usize,
    /// Whether an address is one of the relay's host.
    pub is_own: HasAddress,
    /// Whether the relay's host reaches an address without a router: it is in a prefix of an interface.
    pub is_near: HasAddress,
}

/// Says whether an address is one of those.
pub type HasAddress = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl RelayConfig {
    /// The defaults.
    #[must_use]
    pub fn new(secret: [u8; 32], is_own: HasAddress, is_near: HasAddress) -> Self {
        Self {
            secret,
            private: false,
            rate: 20_000_000,
            rate_total: 200_000_000,
            allocations: 1_024,
            per_user: 4,
            per_address: 64,
            peers: 256,
            is_own,
            is_near,
        }
    }
}

impl fmt::Debug for RelayConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConfig").finish_non_exhaustive()
    }
}
