//! Commands whose payload comes in parts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use librecast::id::PeerId;
use librecast::random::Random;
use librecast::time::UnixTime;

use super::budget::oldest_of_largest;
use super::output::Output;
use crate::datagram::JobId;
use crate::envelope::{self, Opened};
use crate::part::{self, Collection};

/// Payloads that wait for parts at the same time.
pub(super) const MAX_COLLECTING: usize = 16;
/// Payloads of one listed key among them.
pub(super) const MAX_COLLECTING_OF_ONE: usize = 4;
/// Time without a new part after which a payload is dropped; a repeat of its command starts anew.
const PAYLOAD_IDLE: Duration = Duration::from_secs(120);
/// Time without a new part after which missing parts are requested; doubled each time.
const ASK: Duration = Duration::from_millis(150);
/// Upper bound of that doubling.
const MAX_ASK: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Collecting {
    pub(super) opened: Opened,
    pub(super) sponsor: PeerId,
    /// Arrival of the last part.
    last_seen: Instant,
    pub(super) collection: Collection,
    pub(super) envelope: Vec<u8>,
    pub(super) parts: Vec<Vec<u8>>,
    pub(super) via: u32,
    ask_at: Instant,
    pause: Duration,
}

impl Collecting {
    /// Begins with the command's own datagram.
    pub(super) fn new(
        opened: Opened,
        sponsor: PeerId,
        (envelope, via): (Vec<u8>, u32),
        collection: Collection,
        now: Instant,
    ) -> Self {
        Self {
            opened,
            sponsor,
            last_seen: now,
            collection,
            envelope,
            parts: Vec::new(),
            via,
            ask_at: now + ASK,
            pause: ASK,
        }
    }

    /// Keeps a part that is new.
    pub(super) fn keep(&mut self, datagram: &[u8], now: Instant) {
        self.last_seen = now;
        self.parts.push(datagram.to_vec());
        // more parts are probably on their way
        self.ask_at = now + ASK;
        self.pause = ASK;
    }
}

/// All of them, at most [`MAX_COLLECTING`].
#[derive(Debug, Default)]
pub(super) struct Payloads(BTreeMap<JobId, Collecting>);

impl Payloads {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn contains(&self, id: &JobId) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn get_mut(&mut self, id: &JobId) -> Option<&mut Collecting> {
        self.0.get_mut(id)
    }

    pub(super) fn insert(&mut self, id: JobId, collecting: Collecting) {
        self.0.insert(id, collecting);
    }

    pub(super) fn remove(&mut self, id: &JobId) -> Option<Collecting> {
        self.0.remove(id)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Collecting) -> bool) {
        self.0.retain(|_, collecting| keep(collecting));
    }

    /// Makes room for a payload of this key, from a key with more; false without room.
    pub(super) fn make_room(&mut self, sponsor: &PeerId) -> bool {
        let held = || self.0.iter().map(|(id, c)| (*id, c.sponsor, c.last_seen));
        if held().filter(|(_, of, _)| of == sponsor).count() >= MAX_COLLECTING_OF_ONE {
            return false;
        }
        if self.0.len() < MAX_COLLECTING {
            return true;
        }
        let victim = oldest_of_largest(held(), sponsor);
        victim.is_some_and(|id| self.0.remove(&id).is_some())
    }

    /// Drops those that are over, and returns requests for the missing parts of the others.
    pub(super) fn ask(&mut self, random: &mut Random, now: Instant, time: UnixTime) -> Vec<Output> {
        self.retain(|c| {
            let idle = now.saturating_duration_since(c.last_seen) >= PAYLOAD_IDLE;
            !envelope::is_over(c.opened.command.not_after, time) && !idle
        });
        let due = self.0.iter_mut().filter(|(_, c)| c.ask_at <= now);
        due.map(|(id, c)| {
            c.pause = (c.pause * 2).min(MAX_ASK);
            c.ask_at = now + random.between(c.pause / 2, c.pause);
            Output::Answers {
                operator: c.opened.operator,
                via: c.via,
                datagram: part::ask(*id, &c.collection.missing()),
            }
        })
        .collect()
    }

    /// The time of the next request.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.0.values().map(|c| c.ask_at).min()
    }
}
