//! The file from which programs learn how long their packets wait in this host.

use std::io;
use std::time::Instant;

use lcroute_webrtc::WebRtc;
use librecast_program::uplink::{Micros, UplinkPage};

/// The file, and the time up to which packets of programs are in it.
#[derive(Debug)]
pub struct Uplink {
    /// `None`: programs send without it.
    page: Option<UplinkPage>,
    counted: Micros,
}

impl Uplink {
    /// Writes into this file from now on; an error is logged.
    pub fn new(page: io::Result<UplinkPage>) -> Self {
        let page = page.inspect_err(|e| tracing::warn!("programs do not learn of full links: {e}"));
        Self {
            page: page.ok(),
            counted: Micros::now(),
        }
    }

    /// Notes that the node has all packets that programs sent before.
    pub fn counted(&mut self, before: Micros) {
        self.counted = before;
    }

    /// Writes the present wait.
    pub fn tell(&mut self, webrtc: &mut WebRtc, now: Instant) {
        if let Some(page) = &mut self.page {
            page.write(webrtc.uplink_wait(now), self.counted);
        }
    }
}
