//! Pending echoes, with their senders and timeouts.

use std::collections::BTreeMap;

use bytes::Bytes;
use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

const MAX_WAITING: usize = 256;
/// Length of an echo in bytes: a random number that identifies it, and padding.
pub const ECHO_LEN: usize = 56;

/// Pending echoes; `A` identifies the recipient of an answer.
#[derive(Debug)]
pub struct Echoes<A> {
    waiting: BTreeMap<u64, Waiting<A>>,
    next: u64,
}

#[derive(Debug)]
struct Waiting<A> {
    to: OriginId,
    sent: Instant,
    until: Instant,
    asker: A,
}

impl<A> Echoes<A> {
    /// Returns an empty table. `seed` is random, so that no other node can answer an echo.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: seed,
        }
    }

    /// Returns the payload of an echo to `to`; returns `asker` if `MAX_WAITING` are pending.
    pub fn send(
        &mut self,
        to: OriginId,
        asker: A,
        timeout: Duration,
        now: Instant,
    ) -> Result<Bytes, A> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(asker);
        }
        // an odd step makes the numbers repeat only after all were used
        self.next = self.next.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let waiting = Waiting {
            to,
            sent: now,
            until: now + timeout,
            asker,
        };
        self.waiting.insert(self.next, waiting);
        let mut payload = [0; ECHO_LEN];
        payload[..8].copy_from_slice(&self.next.to_be_bytes());
        Ok(Bytes::copy_from_slice(&payload))
    }

    /// Handles an answer from `from`: returns its asker and the round trip.
    pub fn answered(
        &mut self,
        from: OriginId,
        payload: &[u8],
        now: Instant,
    ) -> Option<(A, Duration)> {
        let id = u64::from_be_bytes(*payload.first_chunk()?);
        if payload.len() != ECHO_LEN || self.waiting.get(&id)?.to != from {
            return None;
        }
        let waiting = self.waiting.remove(&id)?;
        Some((waiting.asker, now.saturating_duration_since(waiting.sent)))
    }

    /// Removes the echoes that have timed out.
    pub fn expired(&mut self, now: Instant) -> Vec<(OriginId, A)> {
        let over = self.waiting.extract_if(.., |_, w| w.until <= now);
        over.map(|(_, w)| (w.to, w.asker)).collect()
    }

    /// Returns the time at which the next echo times out.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.waiting.values().map(|w| w.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const A: OriginId = OriginId(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_finds_who_asked_once_and_only_from_the_node_asked() {
        let now = start();
        let mut echoes = Echoes::new(7);
        let first = echoes.send(A, "first", SECOND, now).unwrap();
        let second = echoes.send(A, "second", SECOND, now).unwrap();
        assert_ne!(first, second);
        let later = now + Duration::from_millis(30);
        assert_eq!(echoes.answered(OriginId(2), &second, later), None);
        for bad in [&[][..], &second[..8], &[0; ECHO_LEN]] {
            assert_eq!(echoes.answered(A, bad, later), None);
        }
        let took = Duration::from_millis(30);
        assert_eq!(echoes.answered(A, &second, later), Some(("second", took)));
        assert_eq!(echoes.answered(A, &second, later), None);
        assert_eq!(echoes.answered(A, &first, later), Some(("first", took)));
    }

    #[test]
    fn what_is_not_answered_ends_in_time_and_not_too_many_wait() {
        let now = start();
        let mut echoes = Echoes::new(7);
        assert_eq!(echoes.next_timeout(), None);
        for n in 0..MAX_WAITING {
            echoes.send(A, n, SECOND * (1 + n as u32 % 2), now).unwrap();
        }
        assert_eq!(echoes.send(A, 9_999, SECOND, now), Err(9_999));
        assert_eq!(echoes.next_timeout(), Some(now + SECOND));
        assert!(echoes.expired(now).is_empty());
        assert_eq!(echoes.expired(now + SECOND).len(), MAX_WAITING / 2);
        assert_eq!(echoes.expired(now + SECOND * 2).len(), MAX_WAITING / 2);
        assert_eq!(echoes.next_timeout(), None);
    }
}
