//! The camera of a page that presents: its browser encodes, and the module sends the frames.

use std::net::Ipv6Addr;

use lcstudio_core::{CameraError, CameraSender, CameraSize, Layer};
use librecast::id::SecretKey;
use librecast::time::{Instant, UnixTime};
use librecast_log::Space;

/// The camera of a presenter.
pub(crate) struct Filming {
    sender: CameraSender,
    begun: Instant,
}

impl Filming {
    /// Begins to send the camera of this space. `seed`: secret randomness, new each time.
    /// `has_large`: the page encodes a large picture for those that join its group.
    pub fn new(
        space: &Space,
        key: SecretKey,
        seed: [u8; 32],
        has_large: bool,
        time: UnixTime,
        now: Instant,
    ) -> Self {
        let mut sender = CameraSender::new(space, key, seed, time, now);
        if has_large {
            sender.offer_large(true, now);
        }
        Self { sender, begun: now }
    }

    /// The page encodes no large picture any more.
    pub fn end_large(&mut self, now: Instant) {
        self.sender.offer_large(false, now);
    }

    /// Sends a frame. Returns whether it was sent: one too many is left out.
    pub fn frame(
        &mut self,
        size: CameraSize,
        frame: &[u8],
        now: Instant,
    ) -> Result<bool, CameraError> {
        let time = now.saturating_duration_since(self.begun).as_millis() as u32;
        match self.sender.send(size, frame, time, now) {
            Ok(()) => Ok(true),
            Err(e @ CameraError::Frame(_)) => Err(e),
            Err(_) => Ok(false),
        }
    }

    /// Ends: [`has_ended`](Self::has_ended) once all is sent.
    pub fn end(&mut self, now: Instant) {
        self.sender.end(now);
    }

    pub fn has_ended(&self) -> bool {
        self.sender.has_ended()
    }

    /// Returns the next packet that is due, with its group.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Ipv6Addr, Vec<u8>)> {
        self.sender.poll_transmit(now)
    }

    /// Returns the time of the next call of [`poll_transmit`](Self::poll_transmit).
    pub fn next_timeout(&self) -> Instant {
        self.sender.next_timeout()
    }

    /// Returns the group of a layer.
    pub fn group(&self, layer: Layer) -> Ipv6Addr {
        self.sender.space().group(layer)
    }
}
