//! Configuration of connections, and their bounds.

use librecast::time::{Duration, Instant, UnixTime};

/// Bound of routed messages queued in a control channel, in bytes. Chosen: 500 ms at 1 Mbit/s.
pub(crate) const ROUTED_QUEUE: usize = 64 << 10;

/// Configuration of connections.
#[derive(Debug, Clone)]
pub struct WebRtcConfig {
    /// Version of control messages; the control channel's protocol name carries it.
    pub control: u8,
    /// Hello epoch: hellos of all links are due at this time and at whole intervals before and
    /// after. See [`crate::common_epoch`].
    pub epoch: Instant,
    /// Wall clock at the start, in Unix seconds: the DTLS certificate is valid from the day before.
    pub unix_now: UnixTime,
    /// Seed of all randomness outside of the crate `rtc`.
    pub seed: [u8; 32],
    /// Whether the seed decides the public randomness of DTLS too, as simulations need it. Each
    /// link then begins at the cost of several handshakes: `dimpl` tests all its algorithms.
    pub reproducible: bool,
    /// MTU of `lc0` in bytes: one datagram carries a packet of this size if the path allows.
    pub mtu: u16,
    /// Whether this node offers the media lane. It always offers the data channel.
    pub media: bool,
    /// Bounds.
    pub limits: Limits,
}

impl WebRtcConfig {
    /// Returns the configuration of a program with the media lane and the usual bounds.
    #[must_use]
    pub fn new(mtu: u16, epoch: Instant, unix_now: UnixTime, seed: [u8; 32]) -> Self {
        Self {
            control: lcroute_overlay::SPEAKS.control,
            epoch,
            unix_now,
            seed,
            reproducible: false,
            mtu,
            media: true,
            limits: Limits::default(),
        }
    }
}

/// Bounds of memory and time.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes queued in a data channel before sends fail with
    /// [`lcroute_overlay::SendError::QueueFull`].
    pub data_queue: usize,
    /// Longest time that a message waits in the media lane's queue.
    pub media_queue: Duration,
    /// Longest delay by repair, from the first transmission of a message; 0 turns repair off.
    pub media_repair: Duration,
    /// Bytes queued in a control channel, as `data_queue`.
    pub control_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            data_queue: 1 << 20,
            media_queue: Duration::from_millis(20),
            media_repair: Duration::from_millis(25),
            control_queue: 8 << 20,
        }
    }
}
