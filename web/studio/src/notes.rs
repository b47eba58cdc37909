//! Notes of a session in a page: what the page keeps on disk before it is sent, what it reads of others, what it writes.
//!
//! ```text
//!   outputs of a log ─┬─ Store ──► records ──► page: IndexedDB ──► kept(turn)
//!                     └─ Transmit ──► waits until all records before it are kept ──► the member
//!   drafts of the page ──► entries ──► records, with the numbers of the drafts that are done
//! ```

use std::collections::{BTreeSet, VecDeque};

use lcroute_web_page::Command;
use lcstudio_core::{NewEntry, NotesReading, NotesUpdate, NotesWriting};
use librecast::drops::Drops;
use librecast::id::{SecretKey, derive};
use librecast::time::Instant;
use librecast_log::{AuthorId, ENTRY_LOG_PORT, Log, Output, Stored};

/// Bytes by which the page knows a record.
const ID: usize = 16;

/// Most bytes of records in one turn of the page: one transaction of IndexedDB.
const MAX_TURN: usize = 1 << 20;

/// Which log a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Of {
    /// The index: it names the track, also without a network.
    Index = 0,
    /// The notes.
    Notes = 1,
}

/// What the page is to put on disk.
#[derive(Debug)]
enum Record {
    Stored(Of, Stored),
    /// This draft is an entry now, in a record before this one.
    Done(u32),
}

impl Record {
    /// Kind (of which log, or 2: a draft is done), what it is known by, length and bytes.
    fn write(&self, out: &mut Vec<u8>) {
        let (kind, id, bytes) = match self {
            Self::Stored(of, stored) => {
                // what came by a packet is not too long
                let bytes = stored.encode().unwrap_or_default();
                let id = derive("lcroute 2026 record in a page", &[&[*of as u8], &bytes]);
                let id: [u8; ID] = *id.first_chunk().expect("a hash has 32 bytes");
                (*of as u8, id, bytes)
            }
            Self::Done(number) => {
                let mut id = [0; ID];
                id[..4].copy_from_slice(&number.to_be_bytes());
                (2, id, Vec::new())
            }
        };
        out.push(kind);
        out.extend(id);
        out.extend((bytes.len() as u16).to_be_bytes());
        out.extend(bytes);
    }
}

/// What a page keeps, reads and writes.
#[derive(Debug)]
pub(crate) struct PageNotes {
    pub(crate) key: SecretKey,
    /// Of a visit before, until the log of notes begins.
    restored: Vec<Stored>,
    writing: NotesWriting,
    reading: NotesReading,
    drops: Drops<lcstudio_core::DropReason>,
    updates: VecDeque<NotesUpdate>,
    records: VecDeque<Record>,
    /// The last turn of records that the page took, and the last that it has kept.
    taken: u32,
    kept: u32,
    withheld: VecDeque<(u32, Command)>,
    /// Others are there: without them drafts wait.
    is_connected: bool,
    /// The page keeps what is stored from now on.
    pub(crate) is_open: bool,
}

impl PageNotes {
    /// With this key, and what the page kept of a visit before: kind and bytes of each.
    pub(crate) fn new(
        key: SecretKey,
        index: &mut Log,
        records: &[(u8, &[u8])],
        now: Instant,
    ) -> Self {
        let mut of_index = Vec::new();
        let mut restored = Vec::new();
        for (kind, bytes) in records {
            // a disk may lie: what is none is passed over
            match (*kind, Stored::decode(bytes)) {
                (0, Ok(stored)) => of_index.push(stored),
                (1, Ok(stored)) => restored.push(stored),
                _ => {}
            }
        }
        restore(index, of_index, now);
        Self {
            writing: NotesWriting::new(key.peer_id()),
            key,
            restored,
            reading: NotesReading::default(),
            drops: Drops::default(),
            updates: VecDeque::new(),
            records: VecDeque::new(),
            taken: 0,
            kept: 0,
            withheld: VecDeque::new(),
            is_connected: false,
            is_open: false,
        }
    }

    /// What is known of the index so far is kept, and what comes from now on.
    pub(crate) fn open(&mut self, index: &Log) {
        if std::mem::replace(&mut self.is_open, true) {
            return;
        }
        let all = index
            .stored()
            .filter(|stored| !matches!(stored, Stored::Request(_)));
        self.records
            .extend(all.map(|stored| Record::Stored(Of::Index, stored)));
    }

    /// The log of notes begins: what was kept is in it.
    pub(crate) fn begin(&mut self, log: &mut Log, now: Instant) {
        restore(log, std::mem::take(&mut self.restored), now);
        self.reading = NotesReading::default();
        self.updates.clear();
    }

    /// The log of notes ends: a key must not begin again behind what it has written.
    pub(crate) fn leave(&mut self, log: &mut Log) {
        self.handle_outputs(Of::Notes, log);
        self.restored = log.stored().collect();
    }

    /// An entry of notes that was not read before.
    pub(crate) fn read(&mut self, new: &NewEntry) {
        match self.reading.read(&new.entry) {
            Ok(update) => self.updates.extend(update),
            Err(reason) => self.drops.count(reason),
        }
    }

    pub(crate) fn poll_update(&mut self) -> Option<NotesUpdate> {
        self.updates.pop_front()
    }

    pub(crate) fn has_updates(&self) -> bool {
        !self.updates.is_empty()
    }

    /// Outputs of a log: records, and what may be sent once they are kept.
    pub(crate) fn handle_outputs(&mut self, of: Of, log: &mut Log) {
        let group = log.space().group();
        while let Some(output) = log.poll_output() {
            match output {
                // requests are of use to who presents and who holds
                Output::Store(Stored::Request(_)) | Output::Event(_) => {}
                Output::Store(stored) => self.records.push_back(Record::Stored(of, stored)),
                Output::Transmit(data) => {
                    let port = ENTRY_LOG_PORT;
                    let command = Command::Send { group, port, data };
                    // the next turn of the page takes what waits
                    let after = self.taken + u32::from(!self.records.is_empty());
                    self.withheld.push_back((after, command));
                }
            }
        }
    }

    /// Turns drafts into entries.
    pub(crate) fn append(&mut self, log: &mut Log, time: u64, now: Instant) {
        if !self.is_connected {
            return;
        }
        let done = self.writing.handle_timeout(log, time, now);
        self.handle_outputs(Of::Notes, log);
        self.records.extend(done.into_iter().map(Record::Done));
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.writing.poll_timeout().filter(|_| self.is_connected)
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

    /// # Errors
    /// It does not fit into an entry.
    pub(crate) fn write(&mut self, id: u32, body: Vec<u8>) -> Result<(), String> {
        let written = self.writing.write(id, body);
        written.map_err(|_| "This change is too long for one entry.".into())
    }

    pub(crate) fn connect(&mut self, is_connected: bool) {
        self.is_connected = is_connected;
    }

    pub(crate) fn waiting(&self) -> usize {
        self.writing.waiting()
    }

    /// Why nothing more can be written, in words.
    pub(crate) fn failed(&self) -> Option<String> {
        self.writing.failed().map(ToString::to_string)
    }

    pub(crate) fn drops(&self) -> &Drops<lcstudio_core::DropReason> {
        &self.drops
    }

    pub(crate) fn author(&self, log: &Log) -> AuthorId {
        log.space().author(&self.key.peer_id())
    }
}

/// Puts what was kept into a log: grants first, each log in order, nothing twice, and nothing of which the signature is not right:
/// a disk is not believed.
fn restore(log: &mut Log, mut stored: Vec<Stored>, now: Instant) {
    let owner = log.owner();
    let place = |stored: &Stored| match stored {
        Stored::First(author, first) => (*author, *first, 0),
        Stored::Entry(entry) => (entry.author, entry.number, 1),
        Stored::Request(_) => (owner, u32::MAX, 2),
    };
    stored.sort_by_key(|stored| {
        let (author, number, kind) = place(stored);
        (author != owner, author, number, kind)
    });
    let mut seen = BTreeSet::new();
    for stored in stored {
        let is_new = match &stored {
            Stored::Entry(entry) => {
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
