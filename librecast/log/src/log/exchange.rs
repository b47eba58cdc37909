//! What members tell each other: heads, wants, answers, proofs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use librecast::bucket::{Bucket, TokenBucket};
use librecast::id::derive;
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use super::*;

impl Log {
    // heads

    /// Whether this sender was not heard for a while.
    pub(super) fn hear(&mut self, source: IpAddr, now: Instant) -> bool {
        self.add_source(source, now);
        let Some(known) = self.sources.get_mut(&source) else {
            return true;
        };
        let before = known.heard_at.replace(now);
        before.is_none_or(|at| now.saturating_duration_since(at) > AWAY)
    }

    /// Whose bad signatures are counted.
    pub(super) fn add_source(&mut self, source: IpAddr, now: Instant) {
        if self.sources.contains_key(&source) {
            return;
        }
        if self.sources.len() >= MAX_SOURCES {
            let oldest = self.sources.iter().min_by_key(|(_, s)| s.heard_at);
            if let Some((&oldest, _)) = oldest {
                self.sources.remove(&oldest);
            }
        }
        let source_state = Source {
            bad_signatures: Bucket::full(now),
            heard_at: None,
        };
        self.sources.insert(source, source_state);
    }

    fn digest(&self) -> u64 {
        let mut bytes = Vec::with_capacity(self.authors.len() * 29);
        for (id, author) in &self.authors {
            let head = author.head(*id);
            bytes.extend(id.0.to_be_bytes());
            bytes.extend(head.last.to_be_bytes());
            bytes.extend(head.hash);
            bytes.push(u8::from(head.in_conflict));
        }
        let hash = derive("librecast 2026 log heads", &[&bytes]);
        u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
    }

    pub(super) fn send_heads(&mut self, now: Instant) {
        let mut heads: Vec<_> = self.authors.iter().collect();
        heads.sort_by_key(|(_, author)| std::cmp::Reverse(author.changed));
        let heads: Vec<Head> = heads.iter().map(|(id, a)| a.head(**id)).collect();
        let owner = self.keys.contains_key(&self.owner);
        let waited = now.saturating_duration_since(self.started);
        let digest = self.digest();
        // where all is equal, digest and latest changes suffice
        let packets = if self.heads_differ { usize::MAX } else { 1 };
        for heads in heads.chunks(HEADS_IN_PACKET).take(packets) {
            self.transmit(&Packet::Heads {
                asks_for_requests: owner && waited < ASKING,
                digest,
                heads: heads.to_vec(),
            });
        }
        self.heads_differ = false;
    }

    pub(super) fn handle_heads(&mut self, heads: &[Head], digest: u64, away: bool, now: Instant) {
        if digest == self.digest() {
            return self.trickle.hear();
        }
        let (mut lacks, mut knows_more) = (false, false);
        for head in heads {
            let id = head.author;
            let Some(author) = self.authors.get_mut(&id) else {
                remember_head(&mut self.early_heads, id, head.last);
                knows_more = true;
                continue;
            };
            let last = author.last();
            let beyond = head.last.min(author.limit());
            author.floor = Some(author.floor.map_or(head.first, |f| f.min(head.first)));
            if head.last > last {
                knows_more = true;
                let bound = author.highest().saturating_add(MAX_JUMP);
                author.advertised = author.advertised.max(beyond.min(bound));
            }
            // what it early_heads before our first has expired here
            lacks |= head.last < last;
            let hash = author.hash_of(head.last);
            let disputed = head.last >= author.first
                && head.last <= last
                && hash.is_some_and(|hash| hash != head.hash && head.hash != [0; 16]);
            let proof = author.conflict.is_some() && !head.in_conflict;
            if disputed {
                self.dispute(id, head.last, now);
            }
            if proof {
                lacks = true;
                self.send_proof(id, now);
            }
            self.look_for_missing(id, away, now);
        }
        if lacks || !knows_more {
            // the digest differs: all heads tell by what
            self.heads_differ = true;
            self.trickle.reset(now, &mut self.random);
        } else {
            // it said all that we would
            self.trickle.hear();
        }
    }

    /// Two members have different entries of one number: ours shows it to the other.
    fn dispute(&mut self, id: AuthorId, number: u32, now: Instant) {
        if self.proofs.ready(now)
            && let Some(author) = self.authors.get(&id)
            && let Some(held) = author.entries.get(&number)
        {
            self.proofs.spend(1, now);
            let packet = Packet::Entries(vec![held.entry.clone()]);
            self.transmit(&packet);
        }
    }

    pub(super) fn send_proof(&mut self, id: AuthorId, now: Instant) {
        let Some(author) = self.authors.get_mut(&id) else {
            return;
        };
        let Some(proof) = &mut author.conflict else {
            return;
        };
        let lately = |at: Instant| now.saturating_duration_since(at) < SETTLE;
        if proof.sent.is_some_and(lately) || !self.proofs.ready(now) {
            return self.drops.count(DropReason::RateLimited);
        }
        self.proofs.spend(1, now);
        proof.sent = Some(now);
        let entries = proof.entries.clone();
        // two of the longest do not fit into one packet
        for entry in entries {
            self.transmit(&Packet::Entries(vec![entry]));
        }
    }

    // wants

    /// Sets when missing numbers are asked for, or that nothing is missing. `at_once`: the pauses begin anew.
    pub(super) fn look_for_missing(&mut self, id: AuthorId, at_once: bool, now: Instant) {
        let Some(author) = self.authors.get_mut(&id) else {
            return;
        };
        if author.missing().next().is_none() {
            author.want_at = None;
            return;
        }
        if at_once {
            author.tries = 0;
        }
        let soon = now + backoff(WANT_BACKOFF, 16, &mut self.random);
        let again = pause_of(author.tries, &mut self.random);
        author.want_at = Some(match author.want_at {
            Some(at) if at_once => at.min(soon),
            Some(at) => at,
            None if author.tries == 0 => soon,
            None => now + again,
        });
    }

    pub(super) fn send_wants(&mut self, now: Instant) {
        let mut wants = Vec::new();
        let due: Vec<AuthorId> = self
            .authors
            .iter()
            .filter(|(_, author)| author.want_at.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(want) = self.want(id, now) {
                wants.push(want);
            }
        }
        for wants in wants.chunks(WANTS_IN_PACKET) {
            self.transmit(&Packet::Wants(wants.to_vec()));
        }
    }

    fn want(&mut self, id: AuthorId, now: Instant) -> Option<Want> {
        let author = self.authors.get_mut(&id)?;
        author.tries = author.tries.saturating_add(1);
        let from = author.have + 1;
        if author.tries > TRIES_UNTIL_GAP && id != self.owner {
            match author.floor.take() {
                // all who were heard since the last entry came begin later
                Some(floor) if floor > from => {
                    self.begin_at(id, floor);
                    let author = self.authors.get_mut(&id)?;
                    author.changed = now;
                    let proof = author.advance();
                    let stored = Stored::First(id, floor);
                    self.outputs.push_back(Output::Store(stored));
                    let to = floor - 1;
                    let gap = Event::Gap {
                        author: id,
                        from,
                        to,
                    };
                    self.outputs.push_back(Output::Event(gap));
                    self.outputs.push_back(Output::Event(Event::Entries(id)));
                    if let Some(proof) = proof {
                        self.convict(id, proof, now);
                    }
                }
                // nobody has what somebody claimed
                None => author.advertised = author.highest(),
                Some(_) => {}
            }
        }
        let author = self.authors.get_mut(&id)?;
        let want = Want::of(id, author.missing());
        let pause = pause_of(author.tries, &mut self.random);
        author.want_at = want.is_some().then(|| now + pause);
        want
    }

    // answers

    pub(super) fn handle_want(&mut self, want: &Want, now: Instant) {
        let id = want.author;
        let wait = match self.keys.contains_key(&id) {
            true => Duration::ZERO,
            false => self.others_wait(),
        };
        let Some(author) = self.authors.get_mut(&id) else {
            return;
        };
        // another asks for what we lack, too
        let missing: Vec<u32> = author.missing().take(WANTED_AT_ONCE as usize).collect();
        if !missing.is_empty() {
            let asked: BTreeSet<u32> = want.numbers().collect();
            if missing.iter().all(|number| asked.contains(number))
                && let Some(at) = author.want_at
            {
                author.want_at = Some(at.max(now + WANT_AGAIN.mul_f64(1.0 + self.random.unit())));
            }
        }
        let (first, last) = (author.first, author.last());
        for number in want.numbers() {
            // what has expired is not there: the latest entry says so
            let number = if number < first { last } else { number };
            let Some(held) = author.entries.get(&number) else {
                continue;
            };
            let lately = |at: Instant| now.saturating_duration_since(at) < HOLD_OFF;
            if number > last || held.sent.is_some_and(lately) {
                continue;
            }
            if self.answers.len() >= MAX_ANSWERS {
                return self.drops.count(DropReason::RateLimited);
            }
            self.answers.entry((id, number)).or_insert(now + wait);
        }
    }

    /// Somebody has just sent this entry: who else was to need not, and lets him send the rest. Without that, all who have them
    /// send long answers at once (measured, docs/benchmarks.md).
    pub(super) fn drop_answer(&mut self, id: AuthorId, number: u32, now: Instant) {
        if self.answers.remove(&(id, number)).is_none() || self.keys.contains_key(&id) {
            return;
        }
        let later = now + self.others_wait();
        let rest = self.answers.range_mut((id, 0)..=(id, u32::MAX));
        rest.for_each(|(_, at)| *at = (*at).max(later));
    }

    /// How long who is not the author waits until he answers.
    fn others_wait(&mut self) -> Duration {
        let members = self.authors.len().max(self.sources.len());
        OTHERS_WAIT + backoff(ANSWER_BACKOFF, members, &mut self.random)
    }

    pub(super) fn repair_bucket(&self) -> &TokenBucket {
        match self.is_bulk() {
            true => &self.bulk_repairs,
            false => &self.repairs,
        }
    }

    /// Whether much is asked for.
    fn is_bulk(&self) -> bool {
        if self.answers.len() > BULK {
            return true;
        }
        let entry = |(id, number): &(AuthorId, u32)| self.authors.get(id)?.entries.get(number);
        let sizes = self.answers.keys().filter_map(entry);
        sizes.map(|held| held.entry.size()).sum::<usize>() > BULK_BYTES
    }

    pub(super) fn send_answers(&mut self, now: Instant) {
        loop {
            let is_bulk = self.is_bulk();
            if !self.repair_bucket().ready(now) {
                return;
            }
            let due = self.answers.iter().filter(|(_, at)| **at <= now);
            let due: Vec<(AuthorId, u32)> = due.map(|(key, _)| *key).take(64).collect();
            let mut packing = Packing::default();
            let mut sent = 0;
            for key in &due {
                let held = self.authors.get_mut(&key.0);
                let held = held.and_then(|author| author.entries.get_mut(&key.1));
                if let Some(held) = held {
                    if !packing.add(&held.entry) {
                        break;
                    }
                    held.sent = Some(now);
                    sent += 1;
                }
                self.answers.remove(key);
            }
            if sent == 0 {
                return;
            }
            match is_bulk {
                true => self.bulk_repairs.spend(1, now),
                false => self.repairs.spend(1, now),
            }
            self.transmit(&packing.finish());
        }
    }

    pub(super) fn repeat_last_words(&mut self, now: Instant) {
        let due = |words: &LastWords| words.due().is_some_and(|at| at <= now);
        let due = self.last_words.iter().filter(|(_, words)| due(words));
        let due: Vec<AuthorId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.send_last(id, now);
            if let Some(words) = self.last_words.get_mut(&id) {
                words.repeated += 1;
            }
        }
        self.last_words.retain(|_, words| words.due().is_some());
    }

    /// The last entries of an author, as many as go into a packet, the last one in any case.
    pub(super) fn send_last(&mut self, id: AuthorId, now: Instant) {
        let Some(author) = self.authors.get_mut(&id) else {
            return;
        };
        let last = author.last();
        let mut packing = Packing::default();
        for number in (last.saturating_sub(REPEATED)..=last).rev() {
            let Some(held) = author.entries.get_mut(&number) else {
                break;
            };
            if !packing.add(&held.entry) {
                break;
            }
            held.sent = Some(now);
        }
        self.transmit(&packing.finish());
    }
}

/// The pause after so many tries, with half as much again by chance.
fn pause_of(tries: u32, random: &mut Random) -> Duration {
    let doubled = WANT_AGAIN * 2_u32.saturating_pow(tries.saturating_sub(1).min(8));
    doubled
        .min(WANT_AGAIN_LONGEST)
        .mul_f64(1.0 + random.unit() / 2.0)
}

pub(super) fn remember_head(early_heads: &mut BTreeMap<AuthorId, u32>, id: AuthorId, number: u32) {
    if let Some(known) = early_heads.get_mut(&id) {
        *known = number.max(*known);
    } else if early_heads.len() < MAX_EARLY_HEADS {
        early_heads.insert(id, number);
    }
}
