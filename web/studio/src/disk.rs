//! What the page is to put on disk, and what may be sent once it is there.
//!
//! ```text
//!   outputs of logs ─┬─ Store ──► records ──► page: IndexedDB ──► kept(turn)
//!                    └─ Transmit ──► waits until all records before it are kept ──► the member
//! ```

use std::collections::{BTreeSet, VecDeque};

use lcroute_web_page::Command;
use librecast::id::derive;
use librecast::time::Instant;
use librecast_log::{Log, Stored};

/// Bytes by which the page knows a record.
const ID: usize = 16;

/// Most bytes of records in one turn of the page: one transaction of IndexedDB.
const MAX_TURN: usize = 1 << 20;

/// Kind of a record without bytes: the draft with this number is an entry now, in a record before this one.
const DONE: u8 = 2;

/// What the page is to put on disk.
#[derive(Debug)]
enum Record {
    /// What a log stores, by a kind that its user knows.
    Stored(u8, Stored),
    Done(u32),
}

impl Record {
    /// Kind, what it is known by, length and bytes.
    fn write(&self, out: &mut Vec<u8>) {
        let (kind, id, bytes) = match self {
            Self::Stored(kind, stored) => {
                // what came by a packet is not too long
                let bytes = stored.encode().unwrap_or_default();
                let id = derive("lcroute 2026 record in a page", &[&[*kind], &bytes]);
                let id: [u8; ID] = *id.first_chunk().expect("a hash has 32 bytes");
                (*kind, id, bytes)
            }
            Self::Done(number) => {
                let mut id = [0; ID];
                id[..4].copy_from_slice(&number.to_be_bytes());
                (DONE, id, Vec::new())
            }
        };
        out.push(kind);
        out.extend(id);
        out.extend((bytes.len() as u16).to_be_bytes());
        out.extend(bytes);
    }
}

/// The page's disk, as far as this module knows it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: VecDeque<Record>,
    /// The last turn of records that the page took, and the last that it has kept.
    taken: u32,
    kept: u32,
    withheld: VecDeque<(u32, Command)>,
}

impl Disk {
    /// Something that a log stores; `kind` is 0 or 1.
    pub(crate) fn store(&mut self, kind: u8, stored: Stored) {
        self.records.push_back(Record::Stored(kind, stored));
    }

    /// This draft is an entry now.
    pub(crate) fn done(&mut self, draft: u32) {
        self.records.push_back(Record::Done(draft));
    }

    /// Whether the page has still to keep something.
    pub(crate) fn is_behind(&self) -> bool {
        !self.records.is_empty() || self.kept < self.taken
    }

    /// Something that leaves once all records before it are kept.
    pub(crate) fn send(&mut self, command: Command) {
        // the next turn of the page takes what waits
        let after = self.taken + u32::from(!self.records.is_empty());
        self.withheld.push_back((after, command));
    }

    /// What may be sent now.
    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        let (after, _) = self.withheld.front()?;
        (*after <= self.kept)
            .then(|| self.withheld.pop_front())
            .flatten()
            .map(|(_, command)| command)
    }

    /// The next turn of records: its number (4, big-endian), then each. Empty where there is nothing to keep.
    pub(crate) fn take_records(&mut self) -> Vec<u8> {
        if self.records.is_empty() {
            return Vec::new();
        }
        self.taken += 1;
        let mut out = self.taken.to_be_bytes().to_vec();
        while out.len() < MAX_TURN
            && let Some(record) = self.records.pop_front()
        {
            record.write(&mut out);
        }
        if !self.records.is_empty() {
            // what waits for these waits for all of them
            for (after, _) in &mut self.withheld {
                *after += u32::from(*after >= self.taken);
            }
        }
        out
    }

    /// The page has kept all up to this turn.
    pub(crate) fn kept(&mut self, turn: u32) {
        self.kept = self.kept.max(turn.min(self.taken));
    }
}

/// Puts what was kept into a log: grants first, each log in order, nothing twice, and nothing of which the signature is not right:
/// a disk is not believed.
pub(crate) fn restore(log: &mut Log, mut stored: Vec<Stored>, now: Instant) {
    let owner = log.owner();
    let place = |stored: &Stored| match stored {
        Stored::First(author, first) => (*author, *first, 0),
        Stored::Entry(entry) | Stored::Ahead(entry, _) => (entry.author, entry.number, 1),
        Stored::Request(_) => (owner, u32::MAX, 2),
    };
    stored.sort_by_key(|stored| {
        let (author, number, kind) = place(stored);
        (author != owner, author, number, kind)
    });
    let mut seen = BTreeSet::new();
    for stored in stored {
        let is_new = match &stored {
            Stored::Entry(entry) | Stored::Ahead(entry, _) => {
                let held = log.next_entry(entry.author, entry.number - 1);
                let key = log.authors().find(|author| author.author == entry.author);
                let signed =
                    key.is_some_and(|author| entry.is_signed_by(&log.space().owner(), &author.key));
                signed && held != Some(entry) && seen.insert((entry.number, entry.signature))
            }
            Stored::First(..) => true,
            Stored::Request(_) => false,
        };
        if is_new {
            log.restore(stored, now);
        }
    }
}
