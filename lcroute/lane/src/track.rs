//! The lane as an RTP track into a page: the browser opens SRTP (adr/pages.md), and the page gets
//! each packet's timestamp and payload. Reports return over the data channel.
//!
//! ```text
//! timestamp of RTP 32 = low 31 bits of the index | marker 1 (report at once)
//! message of the data channel = REPORT 8 | report (feedback.rs)
//! ```

use bytes::{Bytes, BytesMut};
use librecast::time::{Duration, Instant};

use crate::receiver::{Fault, Receiver};
use crate::replay::{ReplayWindow, extend};

/// First byte of a report on the data channel. Its high nibble 0 makes it a message of the overlay,
/// which versions without tracks ignore.
pub const REPORT: u8 = 1;
/// Longest delay by repair on a track. Chosen: pages play sound at least as late.
pub const TRACK_REPAIR: Duration = Duration::from_millis(60);
/// Bits of the index in a timestamp.
const TIMESTAMP_BITS: u32 = 31;
/// Words of 64 packets in the replay window: 65,472 packets, as on hosts.
const WINDOW: usize = 1_024;
/// Bound of a payload in bytes: no probed datagram is longer.
const MAX_PAYLOAD: usize = 9_000;

/// Returns the RTP timestamp of packet `index`; `marker` requests a report.
#[must_use]
pub fn track_timestamp(index: u64, marker: bool) -> u32 {
    // the high bits are cut off
    (index << 1) as u32 | u32::from(marker)
}

/// The track at the page that receives it.
#[derive(Debug)]
pub struct TrackReceiver {
    seen: ReplayWindow,
    receiver: Receiver,
}

impl TrackReceiver {
    /// Makes the state of a new track.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            seen: ReplayWindow::new(WINDOW),
            receiver: Receiver::new(TRACK_REPAIR, now),
        }
    }

    /// Handles a packet; messages go to `deliver`. Returns whether a report is due.
    ///
    /// # Errors
    /// A fault of the payload. A packet that came before is none.
    pub fn handle(
        &mut self,
        timestamp: u32,
        payload: Bytes,
        deliver: &mut dyn FnMut(Bytes),
        now: Instant,
    ) -> Result<bool, Fault> {
        if payload.len() > MAX_PAYLOAD {
            return Err(Fault::Malformed);
        }
        let highest = self.seen.highest().unwrap_or(0);
        let index = extend(timestamp >> 1, TIMESTAMP_BITS, highest);
        if !self.seen.is_new(index) {
            return Ok(false);
        }
        self.seen.mark(index);
        let packet = (index, payload.len());
        let due = self
            .receiver
            .arrived(packet, timestamp & 1 != 0, false, now);
        let handled = self
            .receiver
            .handle(index, payload, &self.seen, deliver, now);
        handled.map(|()| due)
    }

    /// Returns the time of the next report.
    pub fn deadline(&self) -> Option<Instant> {
        self.receiver.deadline()
    }

    /// Returns the message with the report, if packets have come since the last one.
    pub fn report(&mut self, now: Instant) -> Option<Bytes> {
        let report = self.receiver.report(&self.seen, now)?;
        let mut message = BytesMut::from(&[REPORT][..]);
        report.write(&mut message);
        Some(message.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feedback::Report;
    use crate::payload::put_whole;
    use proptest::prelude::*;

    fn payload(message: &[u8]) -> Bytes {
        let mut payload = BytesMut::new();
        put_whole(&mut payload, [message, &[]]);
        payload.freeze()
    }

    #[test]
    fn each_packet_is_delivered_once_and_reported() {
        let now = Instant::now();
        let mut track = TrackReceiver::new(now);
        let mut came = Vec::new();
        // over the end of the timestamps
        let first = (1_u64 << TIMESTAMP_BITS) - 3;
        for (step, asks) in [
            (0, false),
            (0, true),
            (2, false),
            (1, false),
            (3, true),
            (3, true),
        ] {
            let index = first + step;
            let new = !track.seen.was_seen(index);
            let stamp = track_timestamp(index, asks);
            let message = payload(&index.to_be_bytes());
            let deliver = &mut |message: Bytes| came.push(message);
            let due = track.handle(stamp, message, deliver, now).unwrap();
            assert_eq!(due, asks && new, "{step}");
        }
        let expected = [0, 2, 1, 3].map(|step| (first + step).to_be_bytes());
        assert_eq!(came, expected.map(|bytes| Bytes::copy_from_slice(&bytes)));
        let message = track.report(now).unwrap();
        assert_eq!(message[0], REPORT);
        let report = Report::read(&message[1..]).unwrap();
        assert_eq!((report.highest, report.received), (first + 3, 4));
    }

    proptest! {
        #[test]
        fn arbitrary_packets_do_not_panic(packets in prop::collection::vec(
            (any::<u32>(), prop::collection::vec(any::<u8>(), 0..100)), 0..60)) {
            let now = Instant::now();
            let mut track = TrackReceiver::new(now);
            for (timestamp, bytes) in packets {
                let _ = track.handle(timestamp, bytes.into(), &mut |_| {}, now);
                let _ = track.report(now);
            }
        }
    }
}
