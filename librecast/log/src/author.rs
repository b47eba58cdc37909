//! One author's log as this member has it.
//!
//! ```text
//!   number   1 .. first-1 | first ........ have | have+1 ....... highest | ....... advertised
//!            expired        here, no gaps         here, with gaps         claimed by somebody
//! ```

use std::collections::BTreeMap;

use librecast::bucket::Bucket;
use librecast::id::PeerId;
use librecast::time::Instant;

use crate::entry::{AuthorId, Entry, EntryHash};
use crate::grant::Grant;
use crate::packet::Head;

/// By how much a number may be beyond those that are here: what an honest author is ahead in a day of silence.
pub(crate) const MAX_JUMP: u32 = 10_000;

/// An entry, and when it was last on the wire.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    /// When it was sent by anybody: it is not sent again at once.
    pub(crate) sent: Option<Instant>,
}

/// An author's two entries that cannot both stand in one history.
#[derive(Debug)]
pub(crate) struct Proof {
    /// From this number on nothing counts.
    pub(crate) number: u32,
    pub(crate) entries: [Entry; 2],
    /// When it was last sent.
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
    /// Bytes of all entries.
    pub(crate) bytes: usize,
    /// When missing numbers are asked for next.
    pub(crate) want_at: Option<Instant>,
    /// How often they were asked for since the last entry came.
    pub(crate) tries: u32,
    /// The least `first` that anybody's heads showed since the last entry came.
    pub(crate) floor: Option<u32>,
    /// How many more of its entries are taken now: what it signs goes to every member's disk.
    pub(crate) taken: Bucket,
    /// How much of its presence is taken now.
    pub(crate) present: Bucket,
    /// The time of its last presence.
    pub(crate) present_at: u64,
    /// When it last changed: heads name the latest changes first.
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
            floor: None,
            taken: Bucket::full(now),
            present: Bucket::full(now),
            present_at: 0,
            changed: now,
        }
    }

    /// The last number that may count, as far as is known.
    pub(crate) fn limit(&self) -> u32 {
        let granted = self.grant.map_or(u32::MAX, |grant| grant.last);
        let before_conflict = self.conflict.as_ref().map_or(u32::MAX, |c| c.number - 1);
        granted.min(before_conflict)
    }

    /// The last number that counts, without a gap before it.
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

    /// Whether an entry after all others would count, were it written at this time.
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

    pub(crate) fn hash_of(&self, number: u32) -> Option<EntryHash> {
        self.entries.get(&number).map(|held| held.entry.hash())
    }

    /// Numbers that are claimed, may count, and are not here.
    pub(crate) fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        let until = self.advertised.max(self.highest()).min(self.limit());
        let numbers = self.have.saturating_add(1)..=until;
        numbers.filter(|number| !self.entries.contains_key(number))
    }

    /// Puts a verified entry in. A proof where it does not fit to the history that is here.
    pub(crate) fn insert(&mut self, entry: Entry) -> Option<Proof> {
        self.bytes += entry.size();
        let number = entry.number;
        // as its author says, what stood before has expired
        if number > self.have + 1 && entry.first > self.have + 1 {
            self.begin_at(entry.first);
        }
        self.entries.insert(number, Held { entry, sent: None });
        (self.tries, self.floor) = (0, None);
        self.advance()
    }

    /// What stands before `first` is gone.
    pub(crate) fn begin_at(&mut self, first: u32) {
        let kept = self.entries.split_off(&first);
        let gone = std::mem::replace(&mut self.entries, kept);
        self.bytes -= gone.values().map(|held| held.entry.size()).sum::<usize>();
        self.first = self.first.max(first);
        self.have = self.have.max(self.first - 1);
    }

    /// Takes what has no gap before it any more.
    pub(crate) fn advance(&mut self) -> Option<Proof> {
        while let Some(next) = self.entries.get(&(self.have + 1)) {
            let before = self.entries.get(&self.have);
            if let Some(before) = before
                && before.entry.hash() != next.entry.previous
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

    /// Drops what was written before `oldest` (milliseconds since 1970), from the beginning on. Whether anything went.
    pub(crate) fn expire(&mut self, oldest: u64) -> bool {
        let before = self.first;
        while let Some((&number, held)) = self.entries.first_key_value()
            && number <= self.have
            && held.entry.time < oldest
        {
            self.begin_at(number + 1);
        }
        self.first != before
    }

    /// Keeps a proof, and drops all that it makes void. Whether it makes more void than was before.
    pub(crate) fn convict(&mut self, proof: Proof) -> bool {
        if let Some(known) = &self.conflict
            && known.number <= proof.number
        {
            return false;
        }
        let void = self.entries.split_off(&proof.number);
        self.bytes -= void.values().map(|held| held.entry.size()).sum::<usize>();
        self.have = self.have.min(proof.number - 1).max(self.first - 1);
        self.advertised = self.advertised.min(proof.number - 1);
        self.conflict = Some(Box::new(proof));
        true
    }
}
