//! Repetition of datagrams between the DTLS handshake and the link being up: SCTP's handshake,
//! opening of channels, Auth. Each is sent again twice, unconditionally: SCTP waits a second or
//! more for a lost one. A receiver drops duplicates by their record number.

use std::collections::VecDeque;

use librecast::time::{Duration, Instant};

use crate::datagram::Transmit;
use crate::records::is_data;

/// Times of the repetitions after the first transmission.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];
/// Bound of datagrams that wait for a repetition.
const MAX_AGAIN: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Repeats {
    waiting: VecDeque<(Instant, Transmit)>,
    /// Whether no more are added.
    over: bool,
}

impl Repeats {
    pub(crate) fn sent(&mut self, datagram: &Transmit, now: Instant) {
        if self.over || !is_data(&datagram.contents) {
            return;
        }
        for pause in AGAIN {
            if self.waiting.len() < MAX_AGAIN {
                self.waiting.push_back((now + pause, datagram.clone()));
            }
        }
    }

    /// Notes that the link is up: later datagrams are not repeated.
    pub(crate) fn link_is_made(&mut self) {
        self.over = true;
    }

    pub(crate) fn stop(&mut self) {
        self.over = true;
        self.waiting.clear();
    }

    /// Returns the time of the next [`Self::repeat`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|(at, _)| *at).min()
    }

    pub(crate) fn repeat(&mut self, now: Instant) -> Vec<Transmit> {
        let mut due = Vec::new();
        self.waiting.retain(|(at, datagram)| {
            if *at <= now {
                due.push(datagram.clone());
            }
            *at > now
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// First byte of a DTLS 1.3 record sealed after the handshake.
    const DATA: u8 = 0x2f;

    fn datagram(kind: u8) -> Transmit {
        let to = "192.0.2.1:1".parse().unwrap();
        Transmit::plain(to, None, Bytes::copy_from_slice(&[kind, 1]))
    }

    #[test]
    fn what_follows_goes_three_times_until_the_link_is_up() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        repeats.sent(&datagram(DATA), now);
        repeats.link_is_made();
        for pause in AGAIN {
            assert_eq!(repeats.deadline(), Some(now + pause));
            assert_eq!(repeats.repeat(now + pause), [datagram(DATA)]);
        }
        assert!(repeats.deadline().is_none());
        repeats.sent(&datagram(DATA), now);
        assert!(repeats.deadline().is_none(), "the link is up");
    }

    #[test]
    fn what_waits_is_bounded_and_goes_when_the_link_ends() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        (0..100).for_each(|_| repeats.sent(&datagram(DATA), now));
        assert_eq!(repeats.waiting.len(), MAX_AGAIN);
        repeats.stop();
        assert!(repeats.deadline().is_none());
    }

    #[test]
    fn handshakes_are_left_to_dtls() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        // STUN, an alert, a hello, a sealed handshake flight
        for kind in [0, 21, 22, 0x2e] {
            repeats.sent(&datagram(kind), now);
            assert!(repeats.deadline().is_none(), "{kind}");
        }
    }
}
