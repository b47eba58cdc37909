//! Requests of authors without a grant, which wait for the owner.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::derive;
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use super::ANSWER_BACKOFF;
use crate::repair::backoff;

/// Most requests that are kept.
pub const MAX_REQUESTS: usize = 64;

/// Time for which requests are kept.
const REQUEST_LIFE: Duration = Duration::from_secs(86_400);

/// New requests stored, in all: every holder of the read key can make them.
const REQUESTS: Rate = Rate::per_second(1, MAX_REQUESTS as u64);

/// New requests reported to the owner, stored or not, so that a flood does not hide a request.
/// Chosen: the owner can check as many at 1 % of a core.
const REQUESTS_TOLD: Rate = Rate::per_second(10, MAX_REQUESTS as u64);

/// Shortest time between two transmissions of a request. Chosen: the owner asks for 30 s.
const REQUEST_HOLD_OFF: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Waiting {
    body: Vec<u8>,
    came: Instant,
    /// None: it was read from disk, or came from a reader.
    source: Option<IpAddr>,
    /// When a packet last carried it, from any member.
    sent: Option<Instant>,
    /// When this member sends it again.
    due: Option<Instant>,
}

/// The waiting requests, and the rates of new ones.
#[derive(Debug)]
pub(super) struct Requests {
    waiting: BTreeMap<[u8; 16], Waiting>,
    stored: TokenBucket,
    reported: TokenBucket,
}

impl Requests {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiting: BTreeMap::new(),
            stored: TokenBucket::of(REQUESTS, now),
            reported: TokenBucket::of(REQUESTS_TOLD, now),
        }
    }

    pub(super) fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.values().map(|waiting| &waiting.body[..])
    }

    /// Plans to send the waiting requests, as the owner or another host asks for them.
    pub(super) fn plan(&mut self, members: usize, random: &mut Random, now: Instant) {
        let lately = |at: Instant| now.saturating_duration_since(at) < REQUEST_HOLD_OFF;
        for waiting in self.waiting.values_mut() {
            if waiting.due.is_none() && !waiting.sent.is_some_and(lately) {
                waiting.due = Some(now + backoff(ANSWER_BACKOFF, members, random));
            }
        }
    }

    /// Returns when the next planned request is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.waiting
            .values()
            .filter_map(|waiting| waiting.due)
            .min()
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let due = |waiting: &&mut Waiting| waiting.due.is_some_and(|at| at <= now);
        let due = self.waiting.values_mut().filter(due);
        due.map(|waiting| {
            (waiting.due, waiting.sent) = (None, Some(now));
            waiting.body.clone()
        })
        .collect()
    }

    /// Notes that another member has sent this request; returns whether it waits here.
    pub(super) fn note_sent(&mut self, body: &[u8], now: Instant) -> bool {
        let waiting = self.waiting.get_mut(&id(body));
        waiting
            .map(|waiting| (waiting.due, waiting.sent) = (None, Some(now)))
            .is_some()
    }

    /// Takes a place among the new requests to store.
    pub(super) fn may_store(&mut self, now: Instant) -> bool {
        self.stored.take(1, now)
    }

    /// Takes a place among the requests to report to the owner.
    pub(super) fn may_report(&mut self, now: Instant) -> bool {
        self.reported.take(1, now)
    }

    /// Stores a request. If no place is free, the address with most requests loses its oldest one:
    /// then it returns false.
    pub(super) fn keep(&mut self, body: Vec<u8>, source: Option<IpAddr>, now: Instant) -> bool {
        let has_room = self.waiting.len() < MAX_REQUESTS;
        if !has_room {
            let mut of_source: BTreeMap<Option<IpAddr>, usize> = BTreeMap::new();
            for waiting in self.waiting.values() {
                *of_source.entry(waiting.source).or_default() += 1;
            }
            let most = |waiting: &Waiting| of_source.get(&waiting.source).copied();
            let oldest = self.waiting.iter();
            let oldest = oldest.min_by_key(|(_, w)| (Reverse(most(w)), w.came));
            if let Some((&oldest, _)) = oldest {
                self.waiting.remove(&oldest);
            }
        }
        let waiting = Waiting {
            came: now,
            source,
            sent: source.map(|_| now),
            due: None,
            body,
        };
        self.waiting.insert(id(&waiting.body), waiting);
        debug_assert!(self.waiting.len() <= MAX_REQUESTS, "the oldest gives way");
        has_room
    }

    /// Drops requests that are older than a day.
    pub(super) fn expire(&mut self, now: Instant) {
        let life = |at: Instant| now.saturating_duration_since(at) < REQUEST_LIFE;
        self.waiting.retain(|_, waiting| life(waiting.came));
    }
}

fn id(body: &[u8]) -> [u8; 16] {
    let hash = derive("librecast 2026 log request", &[body]);
    *hash.first_chunk().expect("a hash has 32 bytes")
}
