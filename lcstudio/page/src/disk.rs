//! Records for the page's disk, and packets that wait until they are stored.
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

/// Bytes by which the page identifies a record.
const ID: usize = 16;

/// Bytes of records in one turn of the page: one transaction of IndexedDB.
const MAX_TURN: usize = 1 << 20;

/// Kind of a record without bytes: the draft with this number is an entry of an earlier record.
const DONE: u8 = 2;

/// A record for the page's disk.
#[derive(Debug)]
enum Record {
    /// Output of a log, with a kind that its user defines.
    Stored(u8, Stored),
    Done(u32),
}

impl Record {
    /// Writes kind, id, length and bytes.
    fn write(&self, out: &mut Vec<u8>) {
        let (kind, id, bytes) = match self {
            Self::Stored(kind, stored) => {
                // an output that came in a packet fits
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

/// State of the page's disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    records: VecDeque<Record>,
    /// Last turn of records that the page took, and last turn that it stored.
    taken: u32,
    kept: u32,
    withheld: VecDeque<(u32, Command)>,
}

impl Disk {
    /// Adds the output of a log; `kind` is 0 or 1.
    pub(crate) fn store(&mut self, kind: u8, stored: Stored) {
        self.records.push_back(Record::Stored(kind, stored));
    }

    /// Notes that this draft is an entry now.
    pub(crate) fn done(&mut self, draft: u32) {
        self.records.push_back(Record::Done(draft));
    }

    /// Returns whether the page has not yet stored all records.
    pub(crate) fn is_behind(&self) -> bool {
        !self.records.is_empty() || self.kept < self.taken
    }

    /// Adds a command that waits until all earlier records are stored.
    pub(crate) fn send(&mut self, command: Command) {
        // the page's next turn takes the waiting records
        let after = self.taken + u32::from(!self.records.is_empty());
        self.withheld.push_back((after, command));
    }

    /// Returns the next command that may be sent.
    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        let (after, _) = self.withheld.front()?;
        (*after <= self.kept)
            .then(|| self.withheld.pop_front())
            .flatten()
            .map(|(_, command)| command)
    }

    /// Returns the next turn of records: its number (4, big-endian), then each. Empty: no record.
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
            // a command behind these records waits for the remaining ones too
            for (after, _) in &mut self.withheld {
                *after += u32::from(*after >= self.taken);
            }
        }
        out
    }

    /// Notes that the page has stored all turns up to this one.
    pub(crate) fn kept(&mut self, turn: u32) {
        self.kept = self.kept.max(turn.min(self.taken));
    }
}

/// Restores stored records into a log: grants first, each author in order, without duplicates and
/// without records of wrong signature, as a disk may be damaged.
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
