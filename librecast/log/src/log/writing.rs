//! Readers that write: a holder takes their entries on the asking group, and sends new ones on the
//! live group.
//!
//! ```text
//! reader                               holder
//!   | -- entries, on the asking group --> | -- new ones, on the live group --> all
//!   | <-- heads, on the live and the history group -- |
//! ```
//! A reader repeats its entries until a head has the hash of the last one.

use std::collections::BTreeMap;

use librecast::bucket::{Rate, TokenBucket};
use librecast::time::{Duration, Instant};

use super::*;

/// Entries of readers whose signatures a holder checks. Chosen: 0.4 % of a core, at 60 µs each.
const CHECKED: Rate = Rate::per_second(64, 64);
/// First pause before a reader repeats entries that no head shows; each doubles it. Chosen: heads
/// leave earlier after a new entry.
const REPEAT: Duration = Duration::from_secs(2);
/// Longest such pause. Chosen.
const REPEAT_LONGEST: Duration = Duration::from_secs(30);
/// Pause between packets of one repetition: routers take two packets a second of a leaf.
const NEXT_PACKET: Duration = Duration::from_millis(600);

/// State of a reader that writes, and of a holder that takes readers' entries.
#[derive(Debug)]
pub(super) struct Writing {
    /// Whether this holder takes entries of readers.
    pub(super) is_open: bool,
    checked: TokenBucket,
    /// The last number for which a head had the hash, by author of this log's keys.
    shown: BTreeMap<AuthorId, u32>,
    repeat_at: Option<Instant>,
    /// The last entry sent of a repetition that is not over.
    repeated: Option<(AuthorId, u32)>,
    /// Repetitions since the last news.
    tries: u32,
}

impl Writing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_open: false,
            checked: TokenBucket::of(CHECKED, now),
            shown: BTreeMap::new(),
            repeat_at: None,
            repeated: None,
            tries: 0,
        }
    }

    /// Waits for heads that show new entries.
    pub(super) fn expect(&mut self, now: Instant) {
        self.tries = 0;
        self.repeat_at.get_or_insert(now + REPEAT);
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.repeat_at
    }
}

impl Log {
    /// Has a holder take entries of authors that are readers, which [`AppendError::NotGranted`]
    /// bounds as it does everywhere.
    pub fn take_from_readers(&mut self) {
        self.writing.is_open = true;
    }

    /// Returns whether this reader has written entries that nobody else has shown.
    pub fn is_unheard(&self) -> bool {
        self.role == Role::Reader && self.unshown().is_some()
    }

    /// Returns the first entry with a key of this log that no head shows.
    pub(super) fn unshown(&self) -> Option<(AuthorId, u32)> {
        self.keys.keys().find_map(|id| {
            let author = self.authors.get(id)?;
            let shown = self.writing.shown.get(id).copied().unwrap_or(0);
            let first = shown.saturating_add(1).max(author.first);
            (first <= author.last()).then_some((*id, first))
        })
    }

    /// Notes that another host has the entries of a key of this log, up to that of the head.
    pub(super) fn note_shown(&mut self, head: &Head, now: Instant) {
        let own = self.authors.get(&head.author);
        let own = own.filter(|_| self.keys.contains_key(&head.author));
        if own.and_then(|author| author.hash_of(head.last)) != Some(head.hash) {
            return;
        }
        let shown = self.writing.shown.entry(head.author).or_default();
        if head.last > *shown {
            *shown = head.last;
            self.writing.expect(now);
        }
    }

    /// Sends a reader's entries again that are due.
    pub(super) fn write_on(&mut self, now: Instant) {
        self.repeat_last_words(now);
        let Some((id, first)) = self.unshown() else {
            (self.writing.repeat_at, self.writing.repeated) = (None, None);
            return;
        };
        if *self.writing.repeat_at.get_or_insert(now + REPEAT) > now {
            return;
        }
        let repeated = self.writing.repeated.filter(|(of, _)| *of == id);
        let first = repeated.map_or(first, |(_, last)| first.max(last.saturating_add(1)));
        let (mut packing, mut is_over) = (Packing::default(), true);
        if let Some(author) = self.authors.get(&id) {
            for (number, held) in author
                .entries
                .range(first..)
                .take_while(|(n, _)| **n <= author.last())
            {
                if !packing.add(&held.entry) {
                    is_over = false;
                    break;
                }
                self.writing.repeated = Some((id, *number));
            }
        }
        if let Some(packet) = packing.finish() {
            self.transmit(&packet);
        }
        let mut pause = NEXT_PACKET;
        if is_over {
            let doubled = REPEAT * 2_u32.saturating_pow(self.writing.tries.min(8));
            pause = doubled.min(REPEAT_LONGEST);
            (self.writing.repeated, self.writing.tries) = (None, self.writing.tries + 1);
        }
        self.writing.repeat_at = Some(now + pause.mul_f64(1.0 + self.random.unit() / 2.0));
    }

    /// Takes entries of the asking group, and sends new ones on the live group.
    pub(super) fn handle_written(&mut self, entries: Vec<Entry>, time: UnixTime, now: Instant) {
        if !self.writing.is_open {
            return self.drops.count(DropReason::AskedBadly);
        }
        // heads tell the author which entries came
        let others = self.plan_heads(now);
        for entry in entries {
            let (id, number) = (entry.author, entry.number);
            match self.take_written(entry, time, now) {
                Ok(()) => {
                    let is_owner = self.keys.contains_key(&self.owner);
                    let due = if is_owner { now } else { others };
                    self.plan_answer(id, number, Duration::ZERO, due, now);
                }
                Err(reason) => self.drops.count(reason),
            }
        }
    }

    fn take_written(
        &mut self,
        entry: Entry,
        time: UnixTime,
        now: Instant,
    ) -> Result<(), DropReason> {
        // a holder of the text can repeat an entry, or name an author
        let author = self.authors.get(&entry.author);
        let author = author.ok_or(DropReason::UnknownAuthor)?;
        if author.has(&entry) {
            return Err(DropReason::Duplicate);
        }
        if !self.writing.checked.take(1, now) {
            return Err(DropReason::RateLimited);
        }
        self.take(Channel::Asking, None, entry, time, now)
    }
}
