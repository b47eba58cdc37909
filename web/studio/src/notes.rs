//! Notes of a session in a page: what the page keeps on disk before it is sent, what it reads of others, what it writes.
//!
//! ```text
//!   outputs of a log ─┬─ Store ──► records ──► page: IndexedDB ──► kept(turn)
//!                     └─ Transmit ──► waits until all records before it are kept ──► the member
//!   drafts of the page ──► entries ──► records, with the numbers of the drafts that are done
//! ```

use std::collections::VecDeque;

use lcroute_web_page::Command;
use lcstudio_core::{NewEntry, NotesReading, NotesUpdate, NotesWriting};
use librecast::drops::Drops;
use librecast::id::SecretKey;
use librecast::time::Instant;
use librecast_log::{AuthorId, ENTRY_LOG_PORT, Log, Output, Stored};

use crate::disk::{Disk, restore};

/// Which log a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Of {
    /// The index: it names the track, also without a network.
    Index = 0,
    /// The notes.
    Notes = 1,
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
    pub(crate) disk: Disk,
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
            disk: Disk::default(),
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
        for stored in all {
            self.disk.store(Of::Index as u8, stored);
        }
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
                Output::Store(stored) => self.disk.store(of as u8, stored),
                Output::Transmit(data) => {
                    let port = ENTRY_LOG_PORT;
                    self.disk.send(Command::Send { group, port, data });
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
        for draft in done {
            self.disk.done(draft);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.writing.poll_timeout().filter(|_| self.is_connected)
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
