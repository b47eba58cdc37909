//! Echoes that are under way: who asked for them, and when they are given up.

use std::collections::BTreeMap;

use bytes::Bytes;
use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

/// Most echoes that are waited for at a time.
const MAX_WAITING: usize = 256;
/// Bytes of an echo: a random number that names it, and filling.
pub const ECHO_LEN: usize = 56;

/// Echoes that are waited for; `A` is whoever gets the answer.
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
    /// None so far. `seed` names the first, so that nobody else can answer it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: seed,
        }
    }

    /// The payload of an echo to `to`, for which `asker` waits; gives the asker back where too many wait.
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
        // odd steps reach every number before one comes again
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

    /// An answer from `from`: who waited for it, and how long it took.
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

    /// Those whose time is over.
    pub fn expired(&mut self, now: Instant) -> Vec<(OriginId, A)> {
        let over = self.waiting.extract_if(.., |_, w| w.until <= now);
        over.map(|(_, w)| (w.to, w.asker)).collect()
    }

    /// When the next one is given up.
    #[must_use]
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
