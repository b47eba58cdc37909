//! Heads, wants, answers and requests between members. They are not signed, but entries are: so no
//! message removes anything from the log. Heads and wants cause answers, at a bounded rate. A
//! waiting answer is dropped only if another member has sent the entry itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;

use librecast::bucket::{Bucket, TokenBucket};
use librecast::id::derive;
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use super::*;

/// An entry to send because a member lacks it.
#[derive(Debug)]
pub(super) struct Answer {
    /// When it is sent.
    pub(super) due: Instant,
    /// Bound of the delay by answers of other members.
    until: Instant,
    /// Order of due answers: the owner's latest entry first, recently repeated entries last.
    rank: u8,
}

/// Claimed last numbers of authors without a grant, for a grant that comes later.
#[derive(Debug, Default)]
pub(super) struct EarlyHeads {
    numbers: BTreeMap<AuthorId, u32>,
    order: VecDeque<AuthorId>,
}

impl EarlyHeads {
    pub(super) fn add(&mut self, id: AuthorId, number: u32) {
        if let Some(known) = self.numbers.get_mut(&id) {
            *known = number.max(*known);
            return;
        }
        if self.order.len() >= MAX_EARLY_HEADS
            && let Some(oldest) = self.order.pop_front()
        {
            self.numbers.remove(&oldest);
        }
        self.numbers.insert(id, number);
        self.order.push_back(id);
        debug_assert!(
            self.order.len() <= MAX_EARLY_HEADS,
            "strangers have a bound"
        );
        debug_assert_eq!(
            self.numbers.len(),
            self.order.len(),
            "each claim has one place in the order"
        );
    }

    pub(super) fn take(&mut self, id: AuthorId) -> u32 {
        self.order.retain(|other| *other != id);
        self.numbers.remove(&id).unwrap_or(0)
    }
}

impl Log {
    // heads

    /// Notes a packet of this sender; returns whether it was silent for longer than [`AWAY`].
    pub(super) fn hear(&mut self, source: IpAddr, now: Instant) -> bool {
        self.add_source(source, now);
        let Some(known) = self.sources.get_mut(&source) else {
            return true;
        };
        let before = known.heard_at.replace(now);
        before.is_none_or(|at| now.saturating_duration_since(at) > AWAY)
    }

    /// Adds a sender with buckets for bad signatures and requests.
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
            requests: Bucket::full(now),
            heard_at: None,
        };
        self.sources.insert(source, source_state);
    }

    /// Digest of all heads: one packet suffices for equal logs, with three authors or 1,000.
    pub(super) fn digest(&mut self) -> u64 {
        let authors = &self.authors;
        self.head_schedule.digest(|| {
            let mut bytes = Vec::with_capacity(authors.len() * 29);
            for (id, author) in authors {
                let head = author.head(*id);
                bytes.extend(id.0.to_be_bytes());
                bytes.extend(head.last.to_be_bytes());
                bytes.extend(head.hash);
                bytes.push(u8::from(head.in_conflict));
            }
            let hash = derive("librecast 2026 log heads", &[&bytes]);
            u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
        })
    }

    pub(super) fn send_heads(&mut self, now: Instant) {
        let owner = self.may_grant();
        let waited = now.saturating_duration_since(self.started);
        let digest = self.digest();
        let heads = self.next_heads();
        for heads in heads.chunks(HEADS_IN_PACKET) {
            self.transmit(&Packet::Heads {
                asks_for_requests: owner && waited < ASKING,
                digest,
                heads: heads.to_vec(),
            });
        }
        self.head_schedule.go_on(now);
    }

    /// Returns the owner's head, those of own keys, and the latest changes. After a difference, all
    /// other heads follow, some packets at a time.
    fn next_heads(&mut self) -> Vec<Head> {
        let most = HEADS_IN_PACKET * HEADS_AT_ONCE;
        if !self.head_schedule.sends_all() {
            return self.latest_heads(HEADS_IN_PACKET);
        }
        if self.authors.len() <= most {
            self.head_schedule.note_sent(None);
            return self.latest_heads(most);
        }
        let mut heads = self.latest_heads(HEADS_IN_PACKET);
        let from = self.head_schedule.goes_on_from();
        let rest = self.authors.range((from, Bound::Unbounded));
        let rest = rest.map(|(id, author)| author.head(*id));
        heads.extend(rest.take(most - HEADS_IN_PACKET));
        let last = heads.last().filter(|_| heads.len() >= most);
        self.head_schedule.note_sent(last.map(|head| head.author));
        heads
    }

    /// Returns at most this number of heads: the owner's, those of own keys, the latest changes.
    pub(super) fn latest_heads(&self, most: usize) -> Vec<Head> {
        let is_first = |id: &AuthorId| self.offices.grants(id) || self.keys.contains_key(id);
        let mut heads: Vec<_> = self.authors.iter().collect();
        heads.sort_by_key(|(id, author)| (!is_first(id), std::cmp::Reverse(author.changed)));
        let heads = heads.into_iter().map(|(id, author)| author.head(*id));
        heads.take(most).collect()
    }

    /// Notes the last number that a head claims.
    pub(super) fn note_head(&mut self, head: &Head) {
        let Some(author) = self.authors.get_mut(&head.author) else {
            return self.early_heads.add(head.author, head.last);
        };
        if head.last > author.last() {
            let bound = author.highest().saturating_add(MAX_JUMP);
            let beyond = head.last.min(author.limit()).min(bound);
            author.advertised = author.advertised.max(beyond);
        }
    }

    pub(super) fn handle_heads(&mut self, heads: &[Head], digest: u64, away: bool, now: Instant) {
        if digest == self.digest() {
            return self.head_schedule.handle_equal();
        }
        let due = now + self.others_wait();
        for head in heads {
            let id = head.author;
            self.note_head(head);
            let Some(author) = self.authors.get(&id) else {
                continue;
            };
            let last = author.last();
            let hash = author.hash_of(head.last).filter(|_| head.last <= last);
            let disputed = hash.is_some_and(|hash| hash != head.hash && head.hash != [0; 16]);
            let conflict = author.conflict.as_ref().filter(|_| !head.in_conflict);
            let conflict = conflict.map(|proof| proof.number);
            if let Some(number) = conflict {
                self.plan_answer(id, number, SETTLE, due, now);
            }
            // two members have different entries of this number: this one sends its own
            if disputed {
                self.plan_answer(id, head.last, HEADS_HOLD_OFF, due, now);
            }
            // the latest entry shows that entries are missing, or have expired
            if head.last < last {
                self.plan_answer(id, last, HEADS_HOLD_OFF, due, now);
            }
            self.look_for_missing(id, away, now);
        }
        self.head_schedule.handle_different(now, &mut self.random);
    }

    // wants

    /// Sets the time of the next want, if numbers are missing. `at_once` restarts the pauses, once
    /// in [`AWAY`].
    pub(super) fn look_for_missing(&mut self, id: AuthorId, at_once: bool, now: Instant) {
        let Some(author) = self.authors.get_mut(&id) else {
            return;
        };
        if author.missing().next().is_none() {
            author.want_at = None;
            return;
        }
        let lately = |at: Instant| now.saturating_duration_since(at) < AWAY;
        let at_once = at_once && !author.hurried.is_some_and(lately);
        if at_once {
            (author.tries, author.hurried) = (0, Some(now));
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
        let due = |author: &Author| author.want_at.is_some_and(|at| at <= now);
        let due = self.authors.iter().filter(|(_, author)| due(author));
        let due: Vec<(AuthorId, bool)> = due.map(|(id, author)| (*id, author.has_gap())).collect();
        let claims_wait = now < self.claims_at;
        let mut wants = Vec::new();
        for (id, has_gap) in due {
            if claims_wait && !has_gap {
                if let Some(author) = self.authors.get_mut(&id) {
                    author.want_at = Some(self.claims_at);
                }
                continue;
            }
            if let Some(want) = self.want(id, now) {
                wants.push(want);
                if !has_gap {
                    let authors = self.authors.len() as u32;
                    self.claims_at = now + CLAIMS_AGAIN + CLAIMS_AGAIN_OF_AUTHOR * authors;
                }
            }
        }
        for wants in wants.chunks(WANTS_IN_PACKET) {
            self.transmit(&Packet::Wants(wants.to_vec()));
        }
    }

    pub(super) fn want(&mut self, id: AuthorId, now: Instant) -> Option<Want> {
        let expires = id != self.owner && !self.space.ttl().is_zero();
        let author = self.authors.get_mut(&id)?;
        author.tries = author.tries.saturating_add(1);
        author.is_postponed = false;
        let asked = *author.asked.get_or_insert(now);
        let in_vain = now.saturating_duration_since(asked);
        if !author.has_gap() && author.tries > TRIES_OF_CLAIM {
            // no member has the claimed entries
            author.advertised = author.highest();
        } else if author.has_gap() && expires && in_vain > GAP_AFTER {
            self.skip_gap(id, now);
        }
        let author = self.authors.get_mut(&id)?;
        let want = Want::of(id, author.missing());
        let pause = pause_of(author.tries, &mut self.random);
        author.want_at = want.is_some().then(|| now + pause);
        want
    }

    /// Gives up missing entries of this author up to its next stored one.
    fn skip_gap(&mut self, id: AuthorId, now: Instant) {
        let highest = self.authors.get(&id).filter(|author| author.has_gap());
        if let Some(highest) = highest.map(Author::highest) {
            self.skip_missing(id, highest, now);
        }
    }

    /// Gives up missing entries of this author up to its next stored one, or up to `last`.
    pub(super) fn skip_missing(&mut self, id: AuthorId, last: u32, now: Instant) {
        let Some(author) = self.authors.get_mut(&id) else {
            return;
        };
        let from = author.have + 1;
        let stored = author.entries.range(from..).next();
        let behind = last.saturating_add(1);
        let first = stored.map_or(behind, |(first, _)| behind.min(*first));
        if first <= from {
            return;
        }
        (author.changed, author.asked, author.tries) = (now, None, 0);
        let stored = Stored::First(id, first);
        self.outputs.push_back(Output::Store(stored));
        let gap = Event::Gap {
            author: id,
            from,
            to: first - 1,
        };
        self.outputs.push_back(Output::Event(gap));
        self.outputs.push_back(Output::Event(Event::Entries(id)));
        self.begin_at(id, first, now);
    }

    // answers

    pub(super) fn handle_wants(&mut self, wants: &[Want], now: Instant) {
        let mut places = (MAX_ANSWERS - self.answers.len()) / ANSWERS_OF_PACKET;
        for want in wants {
            self.postpone_own(want, now);
            let id = want.author;
            let Some(author) = self.authors.get(&id) else {
                continue;
            };
            let (first, last) = (author.first, author.last());
            let due = now + self.others_wait();
            for number in want.numbers() {
                if places == 0 {
                    return self.drops.count(DropReason::RateLimited);
                }
                // expired entries are gone: the latest entry shows it
                let number = if number < first { last } else { number };
                if number > last {
                    break;
                }
                places -= usize::from(self.plan_answer(id, number, Duration::ZERO, due, now));
            }
        }
    }

    /// Delays this member's want if another member wants the same; once for each want, as any
    /// holder of the read key can send wants.
    fn postpone_own(&mut self, want: &Want, now: Instant) {
        let Some(author) = self.authors.get_mut(&want.author) else {
            return;
        };
        if author.is_postponed {
            return;
        }
        let first = author.missing().next();
        let is_asked = first.is_some_and(|first| want.numbers().any(|number| number == first));
        if let Some(at) = author.want_at.filter(|_| is_asked) {
            let later = now + WANT_AGAIN.mul_f64(1.0 + self.random.unit());
            (author.want_at, author.is_postponed) = (Some(at.max(later)), true);
        }
    }

    /// Plans to send an entry, or the proof of a conflict, when it is `due`; its author sends at
    /// once. Skips it if a packet carried it within `hold_off`. Returns whether the plan is new.
    pub(super) fn plan_answer(
        &mut self,
        id: AuthorId,
        number: u32,
        hold_off: Duration,
        due: Instant,
        now: Instant,
    ) -> bool {
        let Some(author) = self.authors.get(&id) else {
            return false;
        };
        let lately = |at: Instant| now.saturating_duration_since(at) < hold_off;
        let is_owner = self.offices.grants(&id);
        let rank = if let Some(held) = author.entries.get(&number) {
            if held.is_on_its_way(now) || held.sent.is_some_and(lately) {
                return false;
            }
            match (is_owner, number == author.last()) {
                (true, true) => 0,
                (true, false) => 1 + held.repeated(now),
                (false, true) => 2 + MOST_REPEATED,
                (false, false) => 3 + MOST_REPEATED + held.repeated(now),
            }
        } else if let Some(proof) = &author.conflict
            && proof.number == number
            && !proof.sent.is_some_and(lately)
        {
            0
        } else {
            return false;
        };
        if self.answers.contains_key(&(id, number)) {
            return false;
        }
        if self.answers.len() >= MAX_ANSWERS {
            self.drops.count(DropReason::RateLimited);
            return false;
        }
        let is_own = self.keys.contains_key(&id);
        let due = if is_own { now } else { due };
        let until = due + LONGEST_ANSWER_DELAY;
        let answer = Answer { due, until, rank };
        self.answers.insert((id, number), answer);
        debug_assert!(self.answers.len() <= MAX_ANSWERS, "answers have a bound");
        debug_assert!(due >= now && due <= until, "an answer is due in time");
        true
    }

    /// Drops the answer that another member has just sent, and delays the author's other answers.
    /// Without this, all members send long answers at once (measured, docs/benchmarks.md).
    pub(super) fn drop_answer(&mut self, id: AuthorId, number: u32, now: Instant) {
        if self.keys.contains_key(&id) || self.answers.remove(&(id, number)).is_none() {
            return;
        }
        let later = now + self.others_wait();
        let rest = self.answers.range_mut((id, 0)..=(id, u32::MAX));
        rest.for_each(|(_, answer)| answer.due = answer.due.max(later.min(answer.until)));
    }

    /// Returns the wait of a member that is not the author before it answers.
    pub(super) fn others_wait(&mut self) -> Duration {
        let members = self.authors.len().max(self.sources.len());
        OTHERS_WAIT + backoff(ANSWER_BACKOFF, members, &mut self.random)
    }

    pub(super) fn repair_bucket(&self) -> &TokenBucket {
        match self.is_bulk() {
            true => &self.bulk_repairs,
            false => &self.repairs,
        }
    }

    /// Whether [`BULK_REPAIRS`] applies.
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
            let due = self.answers.iter().filter(|(_, answer)| answer.due <= now);
            let mut due: Vec<_> = due
                .map(|(key, answer)| ((answer.rank, answer.due), *key))
                .collect();
            if due.len() > ANSWERS_AT_ONCE {
                due.select_nth_unstable(ANSWERS_AT_ONCE);
                due.truncate(ANSWERS_AT_ONCE);
            }
            due.sort_unstable();
            let mut packing = Packing::default();
            let mut packets = Vec::new();
            for (_, key) in due {
                let Some(author) = self.authors.get_mut(&key.0) else {
                    self.answers.remove(&key);
                    continue;
                };
                if let Some(held) = author.entries.get_mut(&key.1) {
                    if !packing.add(&held.entry) {
                        break;
                    }
                    held.answer(now);
                } else if let Some(proof) = &mut author.conflict
                    && proof.number == key.1
                {
                    proof.sent = Some(now);
                    // two of the longest do not fit into one packet
                    let entries = proof.entries.iter().cloned();
                    packets.extend(entries.map(|entry| Packet::Entries(vec![entry])));
                }
                self.answers.remove(&key);
            }
            packets.extend(packing.finish());
            if packets.is_empty() {
                return;
            }
            let spent = packets.len() as u64;
            match is_bulk {
                true => self.bulk_repairs.spend(spent, now),
                false => self.repairs.spend(spent, now),
            }
            for packet in packets {
                self.transmit(&packet);
            }
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

    /// Sends the last entries of an author that fit into a packet, and always the very last.
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
        if let Some(packet) = packing.finish() {
            self.transmit(&packet);
        }
    }

    // requests

    /// Plans to send the waiting requests, as the owner or another host asks for them.
    pub(super) fn plan_requests(&mut self, now: Instant) {
        let members = self.authors.len();
        self.requests.plan(members, &mut self.random, now);
    }

    pub(super) fn send_requests(&mut self, now: Instant) {
        for body in self.requests.take_due(now) {
            self.transmit(&Packet::Request(body));
        }
    }

    /// Takes a request; `source`: none on the asking group, where addresses are those of routers.
    pub(super) fn take_request(
        &mut self,
        source: Option<IpAddr>,
        body: Vec<u8>,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.requests.note_sent(&body, now) {
            if self.may_grant() && self.requests.may_report(now) {
                self.outputs
                    .push_back(Output::Event(Event::RequestAgain(body)));
            }
            return Err(DropReason::Duplicate);
        }
        let source_state = source.and_then(|source| self.sources.get_mut(&source));
        let is_kept = source_state.is_none_or(|s| s.requests.take(REQUESTS_OF_SOURCE, 1, now))
            && self.requests.may_store(now);
        let is_told = self.may_grant() && self.requests.may_report(now);
        if is_kept {
            self.keep_request(body.clone(), source, now);
            let stored = Stored::Request(body.clone());
            self.outputs.push_back(Output::Store(stored));
        } else if !is_told {
            return Err(DropReason::RateLimited);
        }
        self.outputs.push_back(Output::Event(Event::Request(body)));
        Ok(())
    }

    /// Stores a request, and counts one that it displaces. `source`: none if it was read from disk,
    /// or came from a reader.
    pub(super) fn keep_request(&mut self, body: Vec<u8>, source: Option<IpAddr>, now: Instant) {
        if !self.requests.keep(body, source, now) {
            self.drops.count(DropReason::RequestsFull);
        }
    }
}

/// Returns the pause after this number of tries, plus up to half of it at random.
fn pause_of(tries: u32, random: &mut Random) -> Duration {
    let doubled = WANT_AGAIN * 2_u32.saturating_pow(tries.saturating_sub(1).min(8));
    doubled
        .min(WANT_AGAIN_LONGEST)
        .mul_f64(1.0 + random.unit() / 2.0)
}
