//! Who this node is, and the bounds within which its overlay works.

use std::sync::Arc;
use std::time::{Duration, Instant};

use librecast::cert::Chain;
use librecast::id::{NetworkId, PeerId, SecretKey};

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
pub(crate) struct Versions {
    /// Of sealed messages.
    pub(crate) signal: u8,
    /// Of control messages, `/lcroute/control/N`.
    pub(crate) control: u8,
}

/// What we speak.
pub(crate) const SPEAKS: Versions = Versions {
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

    /// The network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }
}

/// Most bytes of messages from router to router that wait before a link. Chosen: half a second at a megabit per second.
pub(crate) const ROUTED_QUEUE: usize = 64 << 10;

/// How an overlay is set up.
#[derive(Debug, Clone)]
pub struct OverlayConfig {
    /// Who we are.
    pub identity: Identity,
    /// The wall clock: seconds since 1970, for certificates and the age of messages.
    pub clock: fn() -> u64,
    /// What can wait for a common moment is done at this time, and at whole steps before and after: hellos, and what links
    /// ask for without a hurry. See [`crate::common_beat`].
    pub beat: Instant,
    /// Seed of the backoff's jitter.
    pub seed: u64,
    /// MTU of `lc0` in bytes: a packet of this size fits one datagram where it can.
    pub mtu: u16,
    /// Whether the media lane is offered; the data channel always is.
    pub media: bool,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of memory and time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most peers that are tried, linked or shown at a time.
    pub peers: usize,
    /// Most links, made and being made, before a peer that we do not want is refused.
    pub links: usize,
    /// Most peers whose presence on carriers is remembered.
    pub present: usize,
    /// Most bytes that wait in a data channel, before [`crate::SendError::QueueFull`].
    pub data_queue: usize,
    /// How long a message may wait for its turn in the media lane.
    pub media_queue: Duration,
    /// How much later than at its first try a message may still come by repair; 0: there is none.
    pub media_repair: Duration,
    /// The same as `data_queue`, of a control channel.
    pub control_queue: usize,
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
            present: 8_192,
            data_queue: 1 << 20,
            media_queue: Duration::from_millis(20),
            media_repair: Duration::from_millis(25),
            control_queue: 8 << 20,
            attempt: Duration::from_secs(15),
            backoff: (Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}
