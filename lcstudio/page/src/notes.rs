//! Notes of a session in a page: stores records, reads entries of others, appends the reader's.
//!
//! ```text
//!   outputs of a log ─┬─ Store ──► records ──► page: IndexedDB ──► kept(turn)
//!                     └─ Transmit ──► waits until all records before it are kept ──► the member
//!   drafts of the page ──► entries ──► records, with the numbers of done drafts
//!   writers shown ◄── presence ◄── others; the reader's cursor ──► presence, if shown
//! ```

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use lcroute_web_page::Command;
use lcstudio_core::{NewEntry, NotesReading, NotesUpdate, NotesWriting, Others, Showing};
use librecast::drops::Drops;
use librecast::id::SecretKey;
use librecast::time::{Instant, UnixTime};
use librecast_log::{AuthorId, ENTRY_LOG_PORT, Event, Log, Output, Stored};

use crate::disk::{Disk, restore};

/// Log of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Of {
    /// The index: it names the track, even without a network.
    Index = 0,
    /// The notes.
    Notes = 1,
}

/// Notes of a page.
#[derive(Debug)]
pub(crate) struct PageNotes {
    pub(crate) key: SecretKey,
    /// Records of an earlier visit, until the log of notes begins.
    restored: Vec<Stored>,
    writing: NotesWriting,
    reading: NotesReading,
    drops: Drops<lcstudio_core::DropReason>,
    updates: VecDeque<NotesUpdate>,
    /// Present writers, if the reader wants to see them.
    others: Others,
    is_watching: bool,
    showing: Showing,
    /// Whether the owner has granted this page's key: otherwise members ignore its presence.
    may_show: bool,
    pub(crate) disk: Disk,
    /// Whether other nodes are present: without them drafts wait.
    is_connected: bool,
    /// Whether the page stores outputs of the logs.
    pub(crate) is_open: bool,
    /// Counter of changes to the present writers.
    pub(crate) revision: u64,
}

impl PageNotes {
    /// Creates it with this key and the page's records of an earlier visit: kind and bytes of each.
    pub(crate) fn new(
        key: SecretKey,
        index: &mut Log,
        records: &[(u8, &[u8])],
        now: Instant,
    ) -> Self {
        let mut of_index = Vec::new();
        let mut restored = Vec::new();
        for (kind, bytes) in records {
            // a disk may be damaged: undecodable records are skipped
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
            others: Others::default(),
            is_watching: false,
            showing: Showing::default(),
            may_show: false,
            disk: Disk::default(),
            is_connected: false,
            is_open: false,
            revision: 0,
        }
    }

    /// Stores the index from now on, with its known entries.
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

    /// Restores records into the log of notes when it begins.
    pub(crate) fn begin(&mut self, log: &mut Log, now: Instant) {
        restore(log, std::mem::take(&mut self.restored), now);
        self.reading = NotesReading::default();
        self.updates.clear();
        log.watch_presence(self.is_watching);
    }

    /// Ends the log of notes; its records stay, as a key must not reuse its numbers.
    pub(crate) fn leave(&mut self, log: &mut Log, time: UnixTime, now: Instant) {
        self.showing.show(None, now);
        self.show(log, time, now);
        self.others.clear();
        self.handle_outputs(Of::Notes, log, now);
        self.restored = log.stored().collect();
    }

    /// Reads a new entry of notes.
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

    /// Handles outputs of a log: records, and packets that wait for them.
    pub(crate) fn handle_outputs(&mut self, of: Of, log: &mut Log, now: Instant) {
        let group = log.space().group();
        while let Some(output) = log.poll_output() {
            match output {
                // requests are for presenters and hosts that store the session
                Output::Store(Stored::Request(_)) => {}
                Output::Event(Event::Presence { author, body }) => {
                    match self.others.handle(author.0, &body, now) {
                        Ok(has_changed) => self.revision += u64::from(has_changed),
                        Err(reason) => self.drops.count(reason),
                    }
                }
                Output::Event(_) => {}
                Output::Store(stored) => self.disk.store(of as u8, stored),
                Output::Transmit(data) => self.send(group, data),
                Output::TransmitTo(group, data) => self.send(group, data),
            }
        }
    }

    fn send(&mut self, group: Ipv6Addr, data: Vec<u8>) {
        let port = ENTRY_LOG_PORT;
        self.disk.send(Command::Send { group, port, data });
    }

    /// Turns drafts into entries.
    pub(crate) fn append(&mut self, log: &mut Log, time: UnixTime, now: Instant) {
        if !self.is_connected {
            return;
        }
        let done = self.writing.handle_timeout(log, time, now);
        self.handle_outputs(Of::Notes, log, now);
        for draft in done {
            self.disk.done(draft);
        }
    }

    /// Sends the reader's due presence, and forgets writers that have gone.
    pub(crate) fn handle_presence(&mut self, log: &mut Log, time: UnixTime, now: Instant) {
        self.may_show = may_write(log, self.author(log));
        self.show(log, time, now);
        self.revision += u64::from(self.others.handle_timeout(now));
    }

    fn show(&mut self, log: &mut Log, time: UnixTime, now: Instant) {
        if self.is_connected
            && self.may_show
            && let Some(body) = self.showing.poll_presence(self.others.len(), now)
        {
            // the length is bounded; members ignore presence without a grant
            let _ = log.show(self.author(log), &body, time);
        }
    }

    /// Shows the reader under this name, if any; `watches`: shows other writers to the reader.
    pub(crate) fn choose_presence(&mut self, name: Option<&str>, watches: bool, now: Instant) {
        self.showing.show(name, now);
        self.is_watching = watches;
        if !watches && !self.others.is_empty() {
            self.others.clear();
            self.revision += 1;
        }
    }

    pub(crate) fn is_watching(&self) -> bool {
        self.is_watching
    }

    pub(crate) fn move_to(&mut self, cursor: &[u8], writes: bool, now: Instant) {
        self.showing.move_to(cursor.to_vec(), writes, now);
    }

    pub(crate) fn others(&self) -> &Others {
        &self.others
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let showing = self.showing.next_timeout(self.others.len());
        let showing = showing.filter(|_| self.may_show);
        let sent = self.writing.next_timeout().into_iter().chain(showing);
        let sent = sent.filter(|_| self.is_connected);
        sent.chain(self.others.next_timeout()).min()
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

    /// Returns the permanent failure of writing as text.
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

/// Returns whether members accept entries of this author.
pub(crate) fn may_write(log: &Log, author: AuthorId) -> bool {
    let mut authors = log.authors();
    authors.any(|known| known.author == author && known.conflict.is_none())
}
