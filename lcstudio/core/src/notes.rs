//! Notes: one document that all attenders may write. An entry's body is an update of a CRDT, which
//! only pages parse; hosts store and repeat it. A writer requests a grant for a key of its own.
//!
//! ```text
//!   version 1 = 1 | author's key 32       body of a request: grant this key
//!   update of the CRDT <= 1000            body of an entry of kind 1
//! ```
//!
//! Text without a grant, or without other nodes, waits as drafts. The last draft is replaced as its
//! writer continues, so that an hour without a network is a few entries.

use std::collections::VecDeque;

use librecast::id::PeerId;
use librecast::time::{Duration, Instant, UnixTime};
use librecast::wire::{Reader, Writer as Bytes};
use librecast_log::{AppendError, Entry, GRANT_KIND, Grant, Log, MAX_BODY};

use crate::drops::DropReason;

/// Kind of entries with an update.
pub const NOTES_UPDATE: u8 = 1;

/// Keys that may write the notes of a session. Chosen: a quarter of a space's authors.
pub const MAX_WRITERS: usize = 256;

/// Entries of notes that are read. A space has fewer today.
pub const MAX_NOTES_ENTRIES: usize = 100_000;

/// Bytes of their bodies that are read. Chosen: a telephone's browser has room for them.
pub const MAX_NOTES_BYTES: usize = 16 << 20;

/// Version of a request for a grant, its first byte.
const REQUEST_VERSION: u8 = 1;

/// Time between two entries of a writer: readers accept this rate of one author.
const APPEND_INTERVAL: Duration = Duration::from_millis(50);
/// Pause after which a refused append is repeated.
const APPEND_AGAIN: Duration = Duration::from_millis(250);
/// First pause before a grant is requested again; each pause doubles. Chosen.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Longest pause before a grant is requested again. Chosen.
const ASK_AGAIN_LONGEST: Duration = Duration::from_secs(60);

/// A key that requests a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer(pub PeerId);

impl Writer {
    /// Returns the body of a request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Bytes::new();
        w.u8(REQUEST_VERSION).put(self.0.public_key());
        w.into_vec()
    }

    /// Decodes the body of a request.
    ///
    /// # Errors
    /// The body is not a request.
    pub fn decode(body: &[u8]) -> Result<Self, DropReason> {
        let mut r = Reader::new(body);
        let version = r.u8().map_err(|_| DropReason::Malformed)?;
        let key = r.array().map_err(|_| DropReason::Malformed)?;
        r.finish().map_err(|_| DropReason::Malformed)?;
        let key = PeerId::from_public_key(key).map_err(|_| DropReason::Malformed)?;
        match version {
            REQUEST_VERSION => Ok(Self(key)),
            _ => Err(DropReason::UnknownKind),
        }
    }

    /// Returns entry bodies that grant the requests in this log, up to [`MAX_WRITERS`] keys.
    #[must_use]
    pub fn grants(log: &Log) -> Vec<Vec<u8>> {
        let mut known: Vec<PeerId> = log.authors().map(|author| author.key).collect();
        let mut grants = Vec::new();
        for body in log.requests() {
            let Ok(Self(key)) = Self::decode(body) else {
                continue;
            };
            // `known` contains the owner
            if known.len() <= MAX_WRITERS && !known.contains(&key) {
                known.push(key);
                grants.push(Grant {
                    author: key,
                    not_before: 0,
                    expires: (1 << 48) - 1,
                    last: u32::MAX,
                });
            }
        }
        let entries = grants.chunks(librecast_log::GRANTS_IN_ENTRY);
        entries.map(Grant::encode).collect()
    }
}

/// An update for the CRDT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotesUpdate {
    /// Author of the update: a harmful author is ignored from this number on.
    pub author: u64,
    /// From 1.
    pub number: u32,
    /// Bytes for the CRDT.
    pub body: Vec<u8>,
}

/// Reader of notes, within bounds.
#[derive(Debug, Default)]
pub struct NotesReading {
    entries: usize,
    bytes: usize,
}

impl NotesReading {
    /// Reads the next entry of an author. `None`: the entry is a grant.
    pub fn read(&mut self, entry: &Entry) -> Result<Option<NotesUpdate>, DropReason> {
        match entry.kind {
            GRANT_KIND => return Ok(None),
            NOTES_UPDATE => {}
            _ => return Err(DropReason::UnknownKind),
        }
        let (entries, bytes) = (self.entries + 1, self.bytes + entry.body.len());
        if entries > MAX_NOTES_ENTRIES || bytes > MAX_NOTES_BYTES {
            return Err(DropReason::NotesFull);
        }
        (self.entries, self.bytes) = (entries, bytes);
        Ok(Some(NotesUpdate {
            author: entry.author.0,
            number: entry.number,
            body: entry.body.clone(),
        }))
    }
}

/// A change that is not an entry yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Draft {
    id: u32,
    body: Vec<u8>,
}

/// Drafts of a writer, to be appended.
#[derive(Debug)]
pub struct NotesWriting {
    key: PeerId,
    drafts: VecDeque<Draft>,
    append_at: Option<Instant>,
    ask_at: Option<Instant>,
    ask_pause: Duration,
    /// Permanent failure: the space is full, or the key is in use on two hosts.
    failed: Option<AppendError>,
}

impl NotesWriting {
    /// Creates it without drafts.
    #[must_use]
    pub fn new(key: PeerId) -> Self {
        Self {
            key,
            drafts: VecDeque::new(),
            append_at: None,
            ask_at: None,
            ask_pause: ASK_AGAIN,
            failed: None,
        }
    }

    /// Adds a draft; it replaces one of the same number that still waits.
    ///
    /// # Errors
    /// The draft does not fit into an entry.
    pub fn write(&mut self, id: u32, body: Vec<u8>) -> Result<(), DropReason> {
        if body.len() > MAX_BODY {
            return Err(DropReason::Malformed);
        }
        match self.drafts.iter_mut().find(|draft| draft.id == id) {
            Some(draft) => draft.body = body,
            None => self.drafts.push_back(Draft { id, body }),
        }
        Ok(())
    }

    /// Returns the number of waiting drafts.
    pub fn waiting(&self) -> usize {
        self.drafts.len()
    }

    /// Returns the permanent failure, if any.
    pub fn failed(&self) -> Option<&AppendError> {
        self.failed.as_ref()
    }

    /// Appends due drafts while other nodes are present, and requests a missing grant. Returns
    /// drafts that are entries now.
    pub fn handle_timeout(&mut self, log: &mut Log, time: UnixTime, now: Instant) -> Vec<u32> {
        let mut done = Vec::new();
        let author = log.space().author(&self.key);
        while let Some(draft) = self.drafts.front()
            && self.failed.is_none()
            && self.append_at.is_none_or(|at| at <= now)
        {
            match log.append(author, NOTES_UPDATE, &draft.body, time, now) {
                Ok(_) => {
                    done.push(draft.id);
                    self.drafts.pop_front();
                    self.append_at = Some(now + APPEND_INTERVAL);
                    self.ask_pause = ASK_AGAIN;
                }
                Err(AppendError::Starting) => self.append_at = Some(now + APPEND_AGAIN),
                Err(AppendError::NotGranted) => {
                    self.append_at = Some(now + APPEND_AGAIN);
                    self.ask(log, now);
                }
                Err(failed) => self.failed = Some(failed),
            }
        }
        done
    }

    fn ask(&mut self, log: &mut Log, now: Instant) {
        if self.ask_at.is_none_or(|at| at <= now) {
            self.ask_at = Some(now + self.ask_pause);
            self.ask_pause = (self.ask_pause * 2).min(ASK_AGAIN_LONGEST);
            // its length is fixed
            let _ = log.request(&Writer(self.key).encode());
        }
    }

    /// Returns the time at which the next draft is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let waits = !self.drafts.is_empty() && self.failed.is_none();
        self.append_at.filter(|_| waits)
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use librecast_log::{Config, Output};
    use proptest::prelude::*;

    use super::*;
    use crate::{SessionKey, TrackName};

    struct World {
        owner: Log,
        writer: Log,
        writing: NotesWriting,
        begin: Instant,
    }

    impl World {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        fn new() -> Self {
            let begin = Instant::now();
            let session = SessionKey::from_seed(&[1; 32]);
            let owner = session.track_key(&TrackName::Notes);
            let space = session.session().space(owner.peer_id());
            let key = SecretKey::from_seed(&[9; 32]);
            let writing = NotesWriting::new(key.peer_id());
            let log = |key, seed| {
                let (space, keys) = (space.clone(), vec![key]);
                let seed = [seed; 32];
                Log::new(Config { space, keys, seed }, begin)
            };
            Self {
                owner: log(owner, 1),
                writer: log(key, 2),
                writing,
                begin,
            }
        }

        /// The owner, if present, grants; both exchange all packets.
        fn pass(&mut self, from_ms: u64, to_ms: u64, owner_is_there: bool) -> Vec<u32> {
            let mut done = Vec::new();
            for ms in (from_ms..to_ms).step_by(10) {
                let now = self.begin + Duration::from_millis(ms);
                done.extend(self.writing.handle_timeout(
                    &mut self.writer,
                    UnixTime::from_millis(ms),
                    now,
                ));
                self.writer.handle_timeout(UnixTime::from_millis(ms), now);
                self.owner.handle_timeout(UnixTime::from_millis(ms), now);
                if owner_is_there {
                    for body in Writer::grants(&self.owner) {
                        let id = self.owner.owner();
                        let _ = self.owner.append(
                            id,
                            GRANT_KIND,
                            &body,
                            UnixTime::from_millis(ms),
                            now,
                        );
                    }
                }
                let from = std::net::IpAddr::from([1, 2, 3, 4]);
                for _ in 0..2 {
                    while let Some(output) = self.writer.poll_output() {
                        if let Output::Transmit(bytes) = output {
                            self.owner
                                .handle_packet(from, &bytes, UnixTime::from_millis(ms), now);
                        }
                    }
                    while let Some(output) = self.owner.poll_output() {
                        if let Output::Transmit(bytes) = output {
                            self.writer
                                .handle_packet(from, &bytes, UnixTime::from_millis(ms), now);
                        }
                    }
                }
            }
            done
        }
    }

    #[test]
    fn what_is_written_waits_for_a_grant_and_the_last_draft_is_replaced() {
        let mut world = World::new();
        world.writing.write(1, b"a".to_vec()).unwrap();
        world.writing.write(2, b"b".to_vec()).unwrap();
        assert_eq!(world.pass(0, 8_000, false), Vec::<u32>::new());
        world.writing.write(2, b"bc".to_vec()).unwrap();
        assert_eq!(world.writing.waiting(), 2);
        assert_eq!(world.pass(8_000, 20_000, true), [1, 2]);
        assert_eq!(world.writing.waiting(), 0);
        let author = world.owner.space().author(&world.writing.key);
        let mut reading = NotesReading::default();
        let bodies = (0..2).map(|after| {
            let entry = world.owner.next_entry(author, after).unwrap();
            reading.read(entry).unwrap().unwrap().body
        });
        assert_eq!(bodies.collect::<Vec<_>>(), [b"a".to_vec(), b"bc".to_vec()]);
        let long = world.writing.write(3, vec![0; MAX_BODY + 1]);
        assert_eq!(long, Err(DropReason::Malformed));
    }

    #[test]
    fn no_more_than_so_many_may_write() {
        let mut world = World::new();
        let mut ms = 10_000;
        for n in 0..MAX_WRITERS + 40 {
            let from = std::net::IpAddr::from((n as u32).to_be_bytes());
            let mut seed = [5; 32];
            seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let asks = Writer(SecretKey::from_seed(&seed).peer_id());
            world.writer.request(&asks.encode()).unwrap();
            world.writer.request(b"what is no request").unwrap();
            ms += 2_000;
            let now = world.begin + Duration::from_millis(ms);
            while let Some(output) = world.writer.poll_output() {
                if let Output::Transmit(bytes) = output {
                    world
                        .owner
                        .handle_packet(from, &bytes, UnixTime::from_millis(ms), now);
                }
            }
            for body in Writer::grants(&world.owner) {
                let id = world.owner.owner();
                world
                    .owner
                    .append(id, GRANT_KIND, &body, UnixTime::from_millis(ms), now)
                    .unwrap();
            }
        }
        assert_eq!(world.owner.authors().count(), 1 + MAX_WRITERS);
    }

    fn entry(kind: u8, length: usize) -> Entry {
        Entry {
            author: librecast_log::AuthorId(1),
            number: 1,
            first: 1,
            time: 5,
            kind,
            previous: [0; 16],
            body: vec![7; length],
            signature: [0; 64],
        }
    }

    #[test]
    fn notes_are_read_up_to_their_bounds() {
        let mut reading = NotesReading::default();
        assert_eq!(reading.read(&entry(GRANT_KIND, 48)), Ok(None));
        assert_eq!(reading.read(&entry(9, 1)), Err(DropReason::UnknownKind));
        let long = entry(NOTES_UPDATE, MAX_BODY);
        let taken = (0..MAX_NOTES_ENTRIES).take_while(|_| reading.read(&long).is_ok());
        assert_eq!(taken.count(), MAX_NOTES_BYTES / MAX_BODY);
        let mut reading = NotesReading::default();
        let short = entry(NOTES_UPDATE, 1);
        let taken = (0..MAX_NOTES_ENTRIES + 9).take_while(|_| reading.read(&short).is_ok());
        assert_eq!(taken.count(), MAX_NOTES_ENTRIES);
        assert_eq!(reading.read(&short), Err(DropReason::NotesFull));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(writer) = Writer::decode(&bytes) {
                prop_assert_eq!(writer.encode(), bytes);
            }
        }
    }
}
