//! How connections are set up, and their bounds.

use librecast::time::{Duration, Instant};

/// Most bytes of messages from router to router that wait before a link. Chosen: half a second at a megabit per second.
pub(crate) const ROUTED_QUEUE: usize = 64 << 10;

/// How connections are set up.
#[derive(Debug, Clone)]
pub struct WebRtcConfig {
    /// Version of control messages, which the control channel names.
    pub control: u8,
    /// The hello epoch: hellos of all links go out at this time and at whole steps before and after. See
    /// [`crate::common_epoch`].
    pub epoch: Instant,
    /// What the wall clock says at the start, in Unix seconds: the DTLS certificate says from when on it is good.
    pub unix_now: u64,
    /// Where all randomness but that of the stack `rtc` comes from.
    pub seed: [u8; 32],
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
    /// Most bytes that wait in a data channel, before [`lcroute_overlay::SendError::QueueFull`].
    pub data_queue: usize,
    /// How long a message may wait for its turn in the media lane.
    pub media_queue: Duration,
    /// How much later than at its first try a message may still come by repair; 0: there is none.
    pub media_repair: Duration,
    /// The same as `data_queue`, of a control channel.
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
