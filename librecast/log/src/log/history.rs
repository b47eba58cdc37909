//! Answers to readers, on the history group. A want on the asking group counts as any other, but
//! an entry leaves at most once in 5 s, for any reader.

use librecast::bucket::{Rate, TokenBucket};
use librecast::time::{Duration, Instant};

use super::*;

/// Packets on the history group. Chosen: 0.6 Mbit/s, as [`BULK_REPAIRS`].
const HISTORY: Rate = Rate::per_second(64, 16);
/// Least time between two answers with one entry, and between two answers with heads. Chosen:
/// readers that come in this time share an answer.
const ANSWERED_EVERY: Duration = Duration::from_secs(5);
/// Most entries considered for one packet: more do not fit.
const AT_ONCE: usize = 64;

/// Waiting answers to readers.
#[derive(Debug)]
pub(super) struct History {
    /// When each entry is due: the owner's first, as they let others write.
    entries: BTreeMap<(bool, AuthorId, u32), Instant>,
    heads_due: Option<Instant>,
    /// When heads last left, from any holder.
    heads_sent: Option<Instant>,
    rate: TokenBucket,
}

impl History {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            entries: BTreeMap::new(),
            heads_due: None,
            heads_sent: None,
            rate: TokenBucket::of(HISTORY, now),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = self.entries.values().copied().chain(self.heads_due).min()?;
        match self.rate.ready(due) {
            true => Some(due),
            false => Some(self.rate.ready_at().max(due)),
        }
    }
}

/// Returns whether this happened so lately that it is not repeated.
fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < ANSWERED_EVERY)
}

impl Log {
    pub(super) fn handle_asked(&mut self, wants: &[Want], now: Instant) {
        let others = self.plan_heads(now);
        let mut places = MAX_ANSWERS.saturating_sub(self.history.entries.len()) / ANSWERS_OF_PACKET;
        for want in wants {
            let id = want.author;
            let Some(author) = self.authors.get(&id) else {
                continue;
            };
            let (first, last) = (author.first, author.last());
            let due = match self.keys.contains_key(&id) {
                true => now,
                false => others,
            };
            for number in want.numbers() {
                // expired entries are gone: the latest entry shows it
                let number = if number < first { last } else { number };
                if number > last {
                    break;
                }
                let key = (id != self.owner, id, number);
                let held = author.entries.get(&number);
                if held.is_none_or(|held| is_recent(held.answered, now))
                    || self.history.entries.contains_key(&key)
                {
                    continue;
                }
                if places == 0 {
                    return self.drops.count(DropReason::RateLimited);
                }
                places -= 1;
                self.history.entries.insert(key, due);
                debug_assert!(
                    self.history.entries.len() <= MAX_ANSWERS,
                    "answers to readers have a bound"
                );
            }
        }
    }

    /// Plans heads for readers; returns when holders that are not the author answer.
    pub(super) fn plan_heads(&mut self, now: Instant) -> Instant {
        let others = now + self.others_wait();
        let is_owner = self.keys.contains_key(&self.owner);
        if !is_recent(self.history.heads_sent, now) {
            let due = if is_owner { now } else { others };
            self.history.heads_due.get_or_insert(due);
        }
        others
    }

    /// Notes that another holder has answered with this entry, and delays the author's others.
    pub(super) fn note_answered(&mut self, id: AuthorId, number: u32, now: Instant) {
        let is_other = id != self.owner;
        if self
            .history
            .entries
            .remove(&(is_other, id, number))
            .is_none()
            || self.keys.contains_key(&id)
        {
            return;
        }
        let later = now + self.others_wait();
        let all = (is_other, id, 0)..=(is_other, id, u32::MAX);
        let rest = self.history.entries.range_mut(all);
        rest.for_each(|(_, due)| *due = (*due).max(later));
    }

    /// Notes that another holder has answered with heads.
    pub(super) fn note_answered_heads(&mut self, now: Instant) {
        (self.history.heads_due, self.history.heads_sent) = (None, Some(now));
    }

    pub(super) fn send_history(&mut self, now: Instant) {
        if self.history.rate.ready(now) && self.history.heads_due.is_some_and(|at| at <= now) {
            self.note_answered_heads(now);
            self.send_history_heads(now);
        }
        while self.history.rate.ready(now) {
            let due = self.history.entries.iter().filter(|(_, due)| **due <= now);
            let due: Vec<_> = due.map(|(key, _)| *key).take(AT_ONCE).collect();
            let mut packing = Packing::default();
            for key in due {
                let (_, id, number) = key;
                let author = self.authors.get_mut(&id);
                if let Some(held) = author.and_then(|author| author.entries.get_mut(&number)) {
                    if !packing.add(&held.entry) {
                        break;
                    }
                    held.answered = Some(now);
                }
                self.history.entries.remove(&key);
            }
            let Some(packet) = packing.finish() else {
                return;
            };
            self.history.rate.spend(1, now);
            self.transmit_to(Channel::History, &packet);
        }
    }

    /// Sends the owner's head, and those of the latest changes.
    fn send_history_heads(&mut self, now: Instant) {
        let digest = self.digest();
        let heads = self.latest_heads(HEADS_IN_PACKET * HEADS_AT_ONCE);
        for heads in heads.chunks(HEADS_IN_PACKET) {
            self.history.rate.spend(1, now);
            let packet = Packet::Heads {
                asks_for_requests: false,
                digest,
                heads: heads.to_vec(),
            };
            self.transmit_to(Channel::History, &packet);
        }
    }
}
