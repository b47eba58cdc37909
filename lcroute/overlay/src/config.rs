//! Who this node is, and the bounds within which its overlay works.

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
    /// What it speaks: everybody the same, but in tests.
    pub(crate) speaks: Versions,
}

/// Versions of what two nodes must have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// Of sealed messages.
    pub signal: u8,
    /// Of control messages, `/lcroute/control/N`.
    pub control: u8,
}

/// What this version speaks.
pub const SPEAKS: Versions = Versions {
    signal: 2,
    control: 4,
};

impl Identity {
    /// The identity of `key` in `network`, to which `chain` shows that it belongs.
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
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.key.peer_id()
    }

    /// Whether it is a leaf, which has links with routers alone, and only with those that it wants.
    #[must_use]
    pub fn is_leaf(&self) -> bool {
        self.chain.node().grant().leaf
    }

    /// The versions that it speaks.
    #[must_use]
    pub fn speaks(&self) -> Versions {
        self.speaks
    }

    /// The same node, speaking other versions: how nodes of different releases meet.
    #[must_use]
    pub fn speaking(self, speaks: Versions) -> Self {
        Self { speaks, ..self }
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }
}

/// How an overlay is set up.
#[derive(Debug, Clone)]
pub struct OverlayConfig {
    /// Who we are.
    pub identity: Identity,
    /// For certificates and the age of messages.
    pub clock: WallClock,
    /// The hello epoch: rare checks of all links happen at this time and at whole steps before and after.
    pub epoch: Instant,
    /// Where all randomness of the overlay comes from.
    pub seed: [u8; 32],
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of memory and time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most peers that are tried, linked or shown at a time.
    pub peers: usize,
    /// Most links, made and being made, before a peer that we do not want is refused. Those of leaves are not among them.
    pub links: usize,
    /// Most links of leaves, made and being made.
    pub leaves: usize,
    /// Most peers whose presence on carriers is remembered.
    pub present: usize,
    /// How long an attempt may take until both channels are authenticated.
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
