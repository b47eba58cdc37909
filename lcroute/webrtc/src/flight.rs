//! Repeats the last flight of the DTLS handshake until the far side shows that it has it.
//!
//! `rtc` repeats a flight by itself after a second, but one that arrives twice takes away the
//! receiver's own timer (a repeated flight "fails to parse" there), and then both wait for ever: at 5 %
//! of loss one handshake in twenty. The datagrams repeated here are the same byte for byte, so a
//! receiver that has them drops them by their record numbers before its handshake sees them.
//!
//! What follows until the link is up (SCTP's handshake, the opening of channels, Auth) is sent again as it is
//! as well, twice, whether it came or not: it is a dozen datagrams, and SCTP waits a second and more for
//! each that gets lost.

use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

use crate::datagram::Transmit;

/// From a flight of DTLS to its first repetition. Chosen: RFC 6347 4.2.4.1 has a second, which a link that is awaited
/// cannot wait.
const FIRST_RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// The interval doubles up to this one.
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// When what follows is sent again.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(150)];
/// Most datagrams that wait for it.
const MAX_AGAIN: usize = 64;
/// A flight with a certificate is two or three datagrams.
const MAX_DATAGRAMS: usize = 16;
/// DTLS content type (RFC 6347 4.1): part of a handshake.
const CHANGE_CIPHER_SPEC: u8 = 20;
/// DTLS content type: part of a handshake.
const HANDSHAKE: u8 = 22;
/// DTLS content type: shows that a handshake is over.
const APPLICATION_DATA: u8 = 23;

/// The last flight sent.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    datagrams: Vec<Transmit>,
    sent: Option<Instant>,
    pause: Duration,
    repeat_at: Option<Instant>,
    over: bool,
    /// What is sent again, and when.
    again: VecDeque<(Instant, Transmit)>,
    /// The link is up.
    made: bool,
}

impl Flight {
    /// A datagram that goes out; those of one instant are one flight.
    pub(crate) fn sent(&mut self, datagram: &Transmit, now: Instant) {
        let kind = datagram.contents.first();
        if kind == Some(&APPLICATION_DATA) && !self.made {
            for pause in AGAIN {
                if self.again.len() < MAX_AGAIN {
                    self.again.push_back((now + pause, datagram.clone()));
                }
            }
        }
        if self.over || !matches!(kind, Some(&(CHANGE_CIPHER_SPEC | HANDSHAKE))) {
            return;
        }
        if self.sent != Some(now) {
            self.datagrams.clear();
            self.sent = Some(now);
            self.pause = FIRST_RETRY_INTERVAL;
            self.repeat_at = Some(now + FIRST_RETRY_INTERVAL);
        }
        if self.datagrams.len() < MAX_DATAGRAMS {
            self.datagrams.push(datagram.clone());
        }
    }

    /// A datagram that came in: application data follows a handshake that the sender has finished.
    pub(crate) fn received(&mut self, datagram: &[u8]) {
        if datagram.first() == Some(&APPLICATION_DATA) {
            self.finish();
        }
    }

    /// The handshake is over: nothing is repeated any more.
    pub(crate) fn finish(&mut self) {
        self.over = true;
        self.datagrams.clear();
        self.repeat_at = None;
    }

    /// The link is up: what is sent from now on is sent once.
    pub(crate) fn link_is_made(&mut self) {
        self.made = true;
    }

    /// Nothing is sent again.
    pub(crate) fn stop(&mut self) {
        self.finish();
        self.made = true;
        self.again.clear();
    }

    /// When to call [`Self::repeat`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let again = self.again.iter().map(|(at, _)| *at).min();
        [self.repeat_at, again].into_iter().flatten().min()
    }

    /// The datagrams to be sent again now.
    pub(crate) fn repeat(&mut self, now: Instant) -> Vec<Transmit> {
        let mut due = Vec::new();
        self.again.retain(|(at, datagram)| {
            if *at <= now {
                due.push(datagram.clone());
            }
            *at > now
        });
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.pause = (self.pause * 2).min(MAX_RETRY_INTERVAL);
            self.repeat_at = Some(now + self.pause);
            due.extend(self.datagrams.iter().cloned());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn datagram(kind: u8, byte: u8) -> Transmit {
        let to = "192.0.2.1:1".parse().unwrap();
        Transmit::plain(to, None, Bytes::copy_from_slice(&[kind, byte]))
    }

    #[test]
    fn the_last_flight_is_repeated_with_growing_pauses() {
        let start = Instant::now();
        let later = start + Duration::from_millis(100);
        let mut flight = Flight::default();
        flight.sent(&datagram(HANDSHAKE, 1), start);
        flight.sent(&datagram(HANDSHAKE, 2), later);
        flight.sent(&datagram(CHANGE_CIPHER_SPEC, 3), later);
        assert!(flight.repeat(later).is_empty());
        let mut at = flight.deadline().unwrap();
        let mut pauses = vec![at - later];
        for _ in 0..3 {
            assert_eq!(
                flight.repeat(at),
                [datagram(HANDSHAKE, 2), datagram(CHANGE_CIPHER_SPEC, 3)]
            );
            let next = flight.deadline().unwrap();
            pauses.push(next - at);
            at = next;
        }
        assert_eq!(
            pauses.iter().map(Duration::as_millis).collect::<Vec<_>>(),
            [250, 500, 1_000, 1_000]
        );
    }

    #[test]
    fn application_data_ends_it() {
        let now = Instant::now();
        let mut flight = Flight::default();
        flight.sent(&datagram(HANDSHAKE, 1), now);
        flight.received(&[HANDSHAKE, 0]);
        assert!(flight.deadline().is_some());
        flight.received(&[APPLICATION_DATA, 0]);
        assert!(flight.deadline().is_none());
        flight.sent(&datagram(HANDSHAKE, 2), now);
        assert!(flight.repeat(now + MAX_RETRY_INTERVAL).is_empty());
    }

    #[test]
    fn what_follows_goes_three_times_until_the_link_is_up() {
        let now = Instant::now();
        let mut flight = Flight::default();
        let datagram = datagram(APPLICATION_DATA, 1);
        flight.sent(&datagram, now);
        flight.finish();
        flight.link_is_made();
        for pause in AGAIN {
            assert_eq!(flight.deadline(), Some(now + pause));
            assert_eq!(flight.repeat(now + pause), std::slice::from_ref(&datagram));
        }
        assert!(flight.deadline().is_none());
        flight.sent(&datagram, now);
        assert!(flight.deadline().is_none(), "the link is up");
        let mut flight = Flight::default();
        (0..100).for_each(|_| flight.sent(&datagram, now));
        assert_eq!(flight.again.len(), MAX_AGAIN);
        flight.stop();
        assert!(flight.deadline().is_none());
    }

    #[test]
    fn what_is_not_handshake_is_not_kept() {
        let now = Instant::now();
        let mut flight = Flight::default();
        flight.sent(&datagram(0, 1), now);
        flight.sent(&datagram(21, 1), now);
        assert!(flight.deadline().is_none());
    }
}
