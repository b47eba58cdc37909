//! The identity of this node, and the bounds of its overlay.

use librecast::cert::Chain;
use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast::time::{Duration, Instant, WallClock};
use std::sync::Arc;

/// This node's key and its membership.
#[derive(Debug, Clone)]
pub struct Identity {
    pub(crate) key: Arc<SecretKey>,
    pub(crate) network: NetworkId,
    pub(crate) chain: Chain,
    /// The versions that this node supports: [`SPEAKS`], except in tests.
    pub(crate) speaks: Versions,
}

/// Versions that two nodes must have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Version of sealed messages.
    pub signal: u8,
    /// Version of control messages, `/lcroute/control/N`.
    pub control: u8,
}

/// The versions that this release supports.
pub const SPEAKS: Versions = Versions {
    signal: 2,
    control: 4,
};

impl Identity {
    /// Returns the identity of `key` in `network`; `chain` proves the membership.
    #[must_use]
    pub fn new(key: Arc<SecretKey>, network: NetworkId, chain: Chain) -> Self {
        Self {
            key,
            network,
            chain,
            speaks: SPEAKS,
        }
    }

    /// The node's PeerId.
    pub fn peer_id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// Returns whether the node is a leaf: it has links with routers alone, and only with wanted
    /// ones.
    pub fn is_leaf(&self) -> bool {
        self.chain.node().grant().leaf
    }

    /// Returns the versions that the node supports.
    pub fn speaks(&self) -> Versions {
        self.speaks
    }

    /// Returns the same node with other versions, for tests between different releases.
    #[must_use]
    pub fn speaking(self, speaks: Versions) -> Self {
        Self { speaks, ..self }
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }
}

/// The configuration of an overlay.
#[derive(Debug, Clone)]
pub struct OverlayConfig {
    /// Key and membership of this node.
    pub identity: Identity,
    /// Clock for certificates and the age of messages.
    pub clock: WallClock,
    /// Hello epoch: rare checks of all links happen at this time and at whole steps from it.
    pub epoch: Instant,
    /// Seed of all randomness of the overlay.
    pub seed: [u8; 32],
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of memory and time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Maximum number of peers that are tried, linked or shown.
    pub peers: usize,
    /// Maximum number of links, made and being made, beyond which unwanted peers are refused;
    /// without leaves.
    pub links: usize,
    /// Maximum number of links of leaves, made and being made.
    pub leaves: usize,
    /// Maximum number of peers with stored presence.
    pub present: usize,
    /// Time limit of an attempt until both channels are authenticated.
    pub attempt: Duration,
    /// First and longest pause between attempts.
    pub backoff: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers: 1_024,
            links: 256,
            leaves: 512,
            present: 8_192,
            attempt: Duration::from_secs(15),
            backoff: (Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}
