//! One author's log as this member stores it.
//!
//! ```text
//!   number   1 .. first-1 | first ........ have | have+1 ....... highest | ....... advertised
//!            expired        here, no gaps         here, with gaps         claimed by somebody
//! ```

use std::collections::BTreeMap;

use librecast::bucket::Bucket;
use librecast::id::PeerId;
use librecast::time::{Duration, Instant};

use crate::entry::{AuthorId, Entry, EntryHash};
use crate::grant::{CLOCK_TOLERANCE, Grant};
use crate::packet::Head;

/// Most numbers by which an entry may exceed the stored ones, unless it states a later beginning:
/// those of a day without contact.
pub(crate) const MAX_JUMP: u32 = 10_000;

/// Shortest time between two answers with one entry; each answer in a row doubles it.
const HOLD_OFF: Duration = Duration::from_millis(200);

/// Most doublings of [`HOLD_OFF`]. Chosen: 1.6 s, less than the wait for first answers.
pub(crate) const MOST_REPEATED: u8 = 3;

/// Time without a transmission after which the pause begins anew. Chosen.
const REPEATED_FORGOTTEN: Duration = Duration::from_secs(60);

/// A stored entry.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    pub(crate) hash: EntryHash,
    /// When a packet last carried it, from any member.
    pub(crate) sent: Option<Instant>,
    /// When a packet on the history group last carried it, from any holder.
    pub(crate) answered: Option<Instant>,
    /// Answers of this member in a row, at most [`MOST_REPEATED`].
    repeated: u8,
    /// Time of arrival (milliseconds since 1970), if its date was wrong then: ahead, or expired.
    pub(crate) received: Option<u64>,
}

impl Held {
    fn new(entry: Entry, received: Option<u64>) -> Self {
        Self {
            hash: entry.hash(),
            entry,
            sent: None,
            answered: None,
            repeated: 0,
            received,
        }
    }

    /// Recent answers with it in a row.
    pub(crate) fn repeated(&self, now: Instant) -> u8 {
        let lately = |at: Instant| now.saturating_duration_since(at) < REPEATED_FORGOTTEN;
        match self.sent.is_some_and(lately) {
            true => self.repeated,
            false => 0,
        }
    }

    /// Whether its last transmission is so recent that a member that wants it will receive it.
    pub(crate) fn is_on_its_way(&self, now: Instant) -> bool {
        let pause = HOLD_OFF * (1 << self.repeated(now));
        let lately = |at: Instant| now.saturating_duration_since(at) < pause;
        self.sent.is_some_and(lately)
    }

    pub(crate) fn answer(&mut self, now: Instant) {
        self.repeated = match self.sent {
            Some(_) => (self.repeated(now) + 1).min(MOST_REPEATED),
            None => 0,
        };
        self.sent = Some(now);
    }
}

/// An author's two entries that contradict each other.
#[derive(Debug)]
pub(crate) struct Proof {
    /// First number that does not count.
    pub(crate) number: u32,
    pub(crate) entries: [Entry; 2],
    /// When a packet last carried it, from any member.
    pub(crate) sent: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Author {
    pub(crate) key: PeerId,
    /// None for the owner.
    pub(crate) grant: Option<Grant>,
    pub(crate) entries: BTreeMap<u32, Held>,
    pub(crate) first: u32,
    pub(crate) have: u32,
    pub(crate) advertised: u32,
    pub(crate) conflict: Option<Box<Proof>>,
    pub(crate) bytes: usize,
    /// When missing numbers are next requested.
    pub(crate) want_at: Option<Instant>,
    /// Wants since the last new entry.
    pub(crate) tries: u32,
    /// First want since the last new entry.
    pub(crate) asked: Option<Instant>,
    /// Whether another member's want has delayed this member's next one.
    pub(crate) is_postponed: bool,
    /// When an unsigned head last restarted the pauses between wants.
    pub(crate) hurried: Option<Instant>,
    /// When a new entry last came from another member.
    pub(crate) arrived: Option<Instant>,
    /// Bound of new entries, as each goes to every member's disk.
    pub(crate) taken: Bucket,
    /// Bound of presence.
    pub(crate) present: Bucket,
    /// Time of its last presence.
    pub(crate) present_at: u64,
    /// Last change: heads name the latest changes first.
    pub(crate) changed: Instant,
}

impl Author {
    pub(crate) fn new(key: PeerId, grant: Option<Grant>, now: Instant) -> Self {
        Self {
            key,
            grant,
            entries: BTreeMap::new(),
            first: 1,
            have: 0,
            advertised: 0,
            conflict: None,
            bytes: 0,
            want_at: None,
            tries: 0,
            asked: None,
            is_postponed: false,
            hurried: None,
            arrived: None,
            taken: Bucket::full(now),
            present: Bucket::full(now),
            present_at: 0,
            changed: now,
        }
    }

    /// Returns the last number that may count.
    pub(crate) fn limit(&self) -> u32 {
        let granted = self.grant.map_or(u32::MAX, |grant| grant.last);
        let before_conflict = self.conflict.as_ref().map_or(u32::MAX, |c| c.number - 1);
        granted.min(before_conflict)
    }

    /// Returns the last number that counts, without a gap before it.
    pub(crate) fn last(&self) -> u32 {
        self.have.min(self.limit()).max(self.first - 1)
    }

    pub(crate) fn highest(&self) -> u32 {
        let last = self.entries.last_key_value();
        last.map_or(self.have, |(number, _)| self.have.max(*number))
    }

    pub(crate) fn admits(&self, entry: &Entry) -> bool {
        self.grant
            .is_none_or(|grant| grant.admits(entry.number, entry.time))
    }

    /// Whether a next entry, written at this time (milliseconds since 1970), would count.
    pub(crate) fn may_go_on(&self, time: u64) -> bool {
        let next = self.highest().saturating_add(1);
        self.conflict.is_none() && self.grant.is_none_or(|grant| grant.admits(next, time))
    }

    pub(crate) fn head(&self, author: AuthorId) -> Head {
        let last = self.last();
        Head {
            author,
            first: self.first,
            last,
            hash: self.hash_of(last).unwrap_or_default(),
            in_conflict: self.conflict.is_some(),
        }
    }

    pub(crate) fn has(&self, entry: &Entry) -> bool {
        let held = self.entries.get(&entry.number);
        held.is_some_and(|held| held.entry == *entry)
    }

    pub(crate) fn hash_of(&self, number: u32) -> Option<EntryHash> {
        self.entries.get(&number).map(|held| held.hash)
    }

    /// Whether a later entry is stored: it proves that entries are missing.
    pub(crate) fn has_gap(&self) -> bool {
        self.highest() > self.have
    }

    /// Returns numbers that are claimed, may count, and are not stored.
    pub(crate) fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        let until = self.advertised.max(self.highest()).min(self.limit());
        let numbers = self.have.saturating_add(1)..=until;
        numbers.filter(|number| !self.entries.contains_key(number))
    }

    /// Asserts the picture above, after each change.
    pub(crate) fn check(&self) {
        debug_assert!(
            self.first > 0 && self.have >= self.first - 1,
            "numbers before {} have expired, so {} are here",
            self.first,
            self.have
        );
        let lowest = || self.entries.keys().next().copied();
        debug_assert!(
            lowest().is_none_or(|number| number >= self.first),
            "an entry before {} has expired",
            self.first
        );
        debug_assert!(
            self.have < self.first
                || lowest() == Some(self.first) && self.entries.contains_key(&self.have),
            "the entries {} to {} are here",
            self.first,
            self.have
        );
        debug_assert_eq!(
            self.bytes == 0,
            self.entries.is_empty(),
            "only entries count as bytes"
        );
        let counts = self.conflict.as_ref().is_none_or(|c| self.have < c.number);
        debug_assert!(
            counts || self.have < self.first,
            "no entry counts behind a contradiction"
        );
    }

    /// Asserts all that a single change does not show: too slow for each change.
    pub(crate) fn check_all(&self) {
        self.check();
        debug_assert_eq!(
            self.bytes,
            self.entries
                .values()
                .map(|held| held.entry.size())
                .sum::<usize>(),
            "each change counts the bytes"
        );
        debug_assert_eq!(
            self.entries.range(..=self.have).count() as u32,
            self.have - (self.first - 1),
            "no number is missing up to {}",
            self.have
        );
    }

    /// Inserts a verified entry. Returns a proof if it contradicts the stored history.
    pub(crate) fn insert(&mut self, entry: Entry, received: Option<u64>) -> Option<Proof> {
        let number = entry.number;
        debug_assert!(number >= self.first, "entry {number} has expired");
        debug_assert!(
            (1..=number).contains(&entry.first),
            "the decoder refuses entry {number} before {}",
            entry.first
        );
        debug_assert!(
            !self.entries.contains_key(&number),
            "entry {number} is compared with the stored one, not inserted again"
        );
        self.bytes += entry.size();
        // the author's statement: entries before `first` have expired
        if number > self.have + 1 && entry.first > self.have + 1 {
            self.begin_at(entry.first);
        }
        self.entries.insert(number, Held::new(entry, received));
        (self.tries, self.asked) = (0, None);
        self.advance()
    }

    /// Removes entries before `first`.
    pub(crate) fn begin_at(&mut self, first: u32) {
        let kept = self.entries.split_off(&first);
        let gone = std::mem::replace(&mut self.entries, kept);
        self.bytes -= gone.values().map(|held| held.entry.size()).sum::<usize>();
        self.first = self.first.max(first);
        self.have = self.have.max(self.first - 1);
    }

    /// Moves `have` over entries without a gap. Returns a proof at a contradiction.
    pub(crate) fn advance(&mut self) -> Option<Proof> {
        while let Some(next) = self.entries.get(&(self.have + 1)) {
            let before = self.entries.get(&self.have);
            if let Some(before) = before
                && before.hash != next.entry.previous
            {
                return Some(Proof {
                    number: self.have,
                    entries: [before.entry.clone(), next.entry.clone()],
                    sent: None,
                });
            }
            self.have += 1;
            let first = next.entry.first;
            if first > self.first {
                self.begin_at(first);
            }
        }
        None
    }

    /// Drops entries written more than `ttl` milliseconds before `time`, oldest first. If a date is
    /// ahead of `time`, or was expired at arrival, the arrival counts.
    pub(crate) fn expire(&mut self, ttl: u64, time: u64) {
        let have = self.have;
        while let Some(mut first) = self.entries.first_entry()
            && *first.key() <= have
        {
            let held = first.get_mut();
            // this host's own clock may have been ahead at its arrival
            let received = held
                .received
                .map(|received| match is_ahead(received, time) {
                    true => time,
                    false => received,
                });
            held.received = match is_ahead(held.entry.time, time) {
                true => received.or(Some(time)),
                false => received,
            };
            let written = held.received.unwrap_or(held.entry.time);
            if written.saturating_add(ttl) >= time {
                return;
            }
            let next = first.key() + 1;
            self.begin_at(next);
        }
    }

    /// Whether an entry without a gap before it exists.
    pub(crate) fn has_oldest(&self) -> bool {
        let first = self.entries.first_key_value();
        first.is_some_and(|(number, _)| *number <= self.have)
    }

    /// Drops the oldest entry without a gap before it; returns whether one existed.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let has_oldest = self.has_oldest();
        if has_oldest && let Some((number, _)) = self.entries.first_key_value() {
            self.begin_at(number + 1);
        }
        has_oldest
    }

    /// Drops entries beyond the last number that may count.
    pub(crate) fn cut(&mut self) {
        let limit = self.limit();
        let Some(beyond) = limit.checked_add(1) else {
            return;
        };
        let void = self.entries.split_off(&beyond);
        self.bytes -= void.values().map(|held| held.entry.size()).sum::<usize>();
        self.have = self.have.min(limit).max(self.first - 1);
        self.advertised = self.advertised.min(limit);
    }

    /// Stores a proof that voids more than a known one, and drops the void entries; returns whether
    /// it does.
    pub(crate) fn convict(&mut self, proof: Proof) -> bool {
        debug_assert!(
            proof.number > 0 && proof.entries[0] != proof.entries[1],
            "two different entries contradict each other, from number 1 on"
        );
        if let Some(known) = &self.conflict
            && known.number <= proof.number
        {
            return false;
        }
        self.conflict = Some(Box::new(proof));
        self.cut();
        true
    }
}

/// Whether this date is further ahead of `time` than clocks may differ (milliseconds since 1970).
pub(crate) fn is_ahead(date: u64, time: u64) -> bool {
    date > time.saturating_add(CLOCK_TOLERANCE)
}
