//! What follows the DTLS handshake until the link is up (SCTP's handshake, the opening of channels, Auth) is sent again as
//! it is, twice, whether it came or not: it is a dozen datagrams, and SCTP waits a second and more for each that gets lost.
//! A receiver that has one drops the next by its record number.

use std::collections::VecDeque;

use librecast::time::{Duration, Instant};

use crate::datagram::Transmit;
use crate::records::is_data;

/// When it is sent again.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];
/// Most datagrams that wait for it.
const MAX_AGAIN: usize = 64;

/// Datagrams that are to be sent again.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    waiting: VecDeque<(Instant, Transmit)>,
    /// Nothing more is to be.
    over: bool,
}

impl Repeats {
    /// A datagram that goes out.
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

    /// The link is up: what is sent from now on is sent once.
    pub(crate) fn link_is_made(&mut self) {
        self.over = true;
    }

    /// Nothing is sent again.
    pub(crate) fn stop(&mut self) {
        self.over = true;
        self.waiting.clear();
    }

    /// When to call [`Self::repeat`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|(at, _)| *at).min()
    }

    /// The datagrams to be sent again now.
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

    /// Of DTLS 1.3, sealed once the handshake is over.
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
        // STUN, an alert, a hello, a flight that is sealed
        for kind in [0, 21, 22, 0x2e] {
            repeats.sent(&datagram(kind), now);
            assert!(repeats.deadline().is_none(), "{kind}");
        }
    }
}
