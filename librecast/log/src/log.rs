//! One member's view of a space: takes packets, appends entries, returns records and packets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use librecast::bucket::{Bucket, Rate, TokenBucket};
use librecast::drops::Drops;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::random::Random;
use librecast::time::{Duration, Instant, UnixTime};
use thiserror::Error;

use crate::author::{Author, MAX_JUMP, MOST_REPEATED, Proof, is_ahead};
use crate::drops::DropReason;
use crate::entry::{AuthorId, Entry, EntryError, MAX_BODY};
use crate::grant::{CLOCK_TOLERANCE, Grant};
use crate::outgoing::{Packing, Sealer};
use crate::packet::{HEADS_IN_PACKET, Head, Packet, ROOM, Refused, Seal, WANTS_IN_PACKET, Want};
use crate::presence::{MAX_PRESENCE, Presence};
use crate::repair::backoff;
use crate::space::{Groups, Space};
use crate::stored::Stored;

mod checks;
mod exchange;
mod expiry;
mod head_schedule;
mod history;
mod office;
mod reading;
mod requests;
mod writing;

use exchange::{Answer, EarlyHeads};
use expiry::Expiry;
use head_schedule::HeadSchedule;
use history::History;
use office::Offices;
pub use office::{MAX_OFFICES, MOST_LEAP, OFFICES_KIND, TERM_KIND};
use reading::Reading;
pub use requests::MAX_REQUESTS;
use requests::Requests;
use writing::Writing;

/// Most authors of a space, its owner included.
pub const MAX_AUTHORS: usize = 1_024;

/// Most entries of one author that are kept, so that no author fills the space.
pub const MAX_ENTRIES_OF_AUTHOR: usize = 16_384;

/// Most entries of a space that are kept.
pub const MAX_ENTRIES: usize = 65_536;

/// Most bytes of entries of a space that are kept.
pub const MAX_BYTES: usize = 64 << 20;

/// Divisor of [`MAX_ENTRIES`] and [`MAX_BYTES`]: this part is for the owner's log alone.
const OWNERS_SHARE: usize = 4;

/// Most senders for which bad signatures are counted.
const MAX_SOURCES: usize = 1_024;

/// Most authors without a grant, but with heads, that are stored; a new one replaces the oldest.
const MAX_EARLY_HEADS: usize = 1_024;

/// Most entries that wait to be sent as answers, of all authors.
const MAX_ANSWERS: usize = 4_096;

/// Divisor of the free places for answers: the most that one packet of wants takes. Chosen.
const ANSWERS_OF_PACKET: usize = 4;

/// Bad signatures of an address before its entries share [`SECOND_LOOKS`]. A check takes 60 µs.
const BAD_SIGNATURES: Rate = Rate::per_second(1, 32);

/// Signatures checked of all addresses beyond [`BAD_SIGNATURES`], so that a forged address does not
/// silence its host. Chosen: 1 % of a core.
const SECOND_LOOKS: Rate = Rate::per_second(200, 200);

/// New entries accepted of one author: at once a whole log, for a member that was away.
const ENTRIES_OF_AUTHOR: Rate = Rate::per_second(20, MAX_ENTRIES_OF_AUTHOR as u64);

/// Presence accepted of one author. Chosen: four a second in motion, plus start and end.
const PRESENCE_OF_AUTHOR: Rate = Rate::per_second(5, 10);

/// New requests stored of one address. Chosen: a host joins a group once.
const REQUESTS_OF_SOURCE: Rate = Rate::every(Duration::from_secs(10), 8);

/// Repair packets while few answers wait. Measured: 200 members with 5 % loss never wait.
const REPAIRS: Rate = Rate::per_second(8, 8);

/// Repair packets while many answers wait, as for new members: 0.6 Mbit/s.
const BULK_REPAIRS: Rate = Rate::per_second(64, 16);

/// Waiting answers above which [`BULK_REPAIRS`] applies.
const BULK: usize = 64;

/// Bytes of waiting answers above which [`BULK_REPAIRS`] applies: one second of [`REPAIRS`].
const BULK_BYTES: usize = 8 * ROOM;

/// Longest back-off of a want.
const WANT_BACKOFF: Duration = Duration::from_millis(150);
/// Longest back-off of an answer of a member that is not the author: twice that of a want.
const ANSWER_BACKOFF: Duration = Duration::from_millis(300);

/// Wait of a member that is not the author before it answers: the author has answered by then.
const OTHERS_WAIT: Duration = Duration::from_millis(120);

/// First pause between two wants for a number; each pause doubles it, up to [`WANT_AGAIN_LONGEST`].
const WANT_AGAIN: Duration = Duration::from_millis(400);
/// Longest pause between two wants for a number. Chosen.
const WANT_AGAIN_LONGEST: Duration = Duration::from_secs(60);

/// Time after an entry's transmission in which heads cause no other: its author still repeats it.
const HEADS_HOLD_OFF: Duration = Duration::from_millis(1_500);

/// Most entries considered for one packet of answers: more do not fit.
const ANSWERS_AT_ONCE: usize = 64;

/// Most packets of heads sent at once.
const HEADS_AT_ONCE: usize = 4;

/// Pause between wants for numbers that only unsigned heads claim. Chosen.
const CLAIMS_AGAIN: Duration = Duration::from_secs(1);

/// Addition to [`CLAIMS_AGAIN`] for each author, as all members receive the same claim. Chosen: 21
/// s with 1,000 authors.
const CLAIMS_AGAIN_OF_AUTHOR: Duration = Duration::from_millis(20);

/// Longest delay of an answer by answers of other members. Chosen: of the members that have 256
/// long entries of ten authors, one sends.
const LONGEST_ANSWER_DELAY: Duration = Duration::from_secs(10);

/// Pauses after which an author repeats its last entry, if no newer one followed. Chosen.
const LAST_WORDS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// Earlier entries that a packet with a new one repeats. Chosen.
const REPEATED: u32 = 2;

/// Wait for entries of other members, after a start and after the last new entry. Chosen: heads
/// leave three times in it, and each is answered within half a second.
const SETTLE: Duration = Duration::from_secs(3);
/// The same while unsigned heads claim that entries are missing. Chosen.
const SETTLE_LONGEST: Duration = Duration::from_secs(10);
/// The same while a later entry shows that entries of the owner are missing. Chosen.
const SETTLE_GAP: Duration = Duration::from_secs(60);

/// Wants for numbers that only unsigned heads claim, before the claim is dropped. Chosen.
const TRIES_OF_CLAIM: u32 = 7;

/// Time of unanswered wants after which missing entries count as expired at all members. Chosen.
const GAP_AFTER: Duration = Duration::from_secs(3_600);

/// Silence after which a sender's heads restart the pauses between wants, at most once in this time
/// for each author. Chosen.
const AWAY: Duration = Duration::from_secs(30);

/// Time after a start in which the owner asks for requests.
const ASKING: Duration = Duration::from_secs(30);

/// Space, keys and randomness of a new log.
#[derive(Debug)]
pub struct Config {
    /// The space.
    pub space: Space,
    /// Keys that this member appends with: its own as an author, the owner's.
    pub keys: Vec<SecretKey>,
    /// Secret random bytes, new at each start: nonces and back-offs are derived from them.
    pub seed: [u8; 32],
}

/// A member's part in the exchange of packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Sends and repairs entries on the live group.
    #[default]
    Member,
    /// A member that answers readers, too, on the history group: the owner, and holders.
    Holder,
    /// Sends wants, requests and its own entries to the asking group, and nothing else.
    Reader,
}

/// The group that a packet came from, or is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Live,
    Asking,
    History,
}

/// An action for the caller; the order is binding.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// A record; it must be on disk before the next output is handled.
    Store(Stored),
    /// A packet for the live group.
    Transmit(Vec<u8>),
    /// A packet for another group: a reader's for the asking group, a holder's for the history
    /// group.
    TransmitTo(Ipv6Addr, Vec<u8>),
    /// An event that users may want to know.
    Event(Event),
}

/// A change that the log reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// New entries of this author can be read.
    Entries(AuthorId),
    /// An author has a grant, or another one than before.
    Granted(PeerId),
    /// An author is present. Only if [watched](Log::watch_presence).
    Presence {
        /// The author.
        author: AuthorId,
        /// The author's content, which is opaque to the log.
        body: Vec<u8>,
    },
    /// An author is present, by a clock that differs from this host's by more than a day. Only if
    /// clocks are [watched](Log::watch_clocks), too.
    OtherClock {
        /// The author.
        author: AuthorId,
        /// Its clock: milliseconds since 1970.
        time: u64,
        /// The author's content, which is opaque to the log.
        body: Vec<u8>,
    },
    /// A packet came from a host of the space that was silent before, or that asks for requests.
    HostIsBack,
    /// A new request came.
    Request(Vec<u8>),
    /// For the owner: a request came again, as its author waits for an answer.
    RequestAgain(Vec<u8>),
    /// An author signed two histories: entries from this number on do not count.
    Conflict {
        /// The author.
        author: AuthorId,
        /// The first number that does not count.
        number: u32,
    },
    /// No member has these entries any more.
    Gap {
        /// The author of the entries.
        author: AuthorId,
        /// The first number that is lost.
        from: u32,
        /// The last number that is lost.
        to: u32,
    },
    /// Other members have entries of a key of this log that it lacks, as its disk is outdated.
    OwnEntries {
        /// The key's log.
        author: AuthorId,
    },
}

/// Reason why an entry was not appended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AppendError {
    /// No key of this log is that author's.
    #[error("this member has no key of author {0}")]
    NotOurs(AuthorId),
    /// The author has no grant, or none any more.
    #[error("the owner grants this author nothing now")]
    NotGranted,
    /// The key has signed two histories; entries of it do not count any more.
    #[error("this author's key was used on two hosts; nothing more of it counts")]
    Conflict,
    /// The space is full.
    #[error("the space holds as much as it may")]
    Full,
    /// After a start, the log first asks other members for entries of its own keys.
    #[error("others are first asked for entries of ours")]
    Starting,
    /// The body of presence is too long.
    #[error("presence of {0} bytes, at most {MAX_PRESENCE} fit")]
    LongPresence(usize),
    /// The body of the entry is too long.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// State of an author's log at this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorStatus {
    /// The author.
    pub author: AuthorId,
    /// The author's key.
    pub key: PeerId,
    /// Its grant; the owner needs none.
    pub grant: Option<Grant>,
    /// It is the second log of this key, in which it grants.
    pub is_office: bool,
    /// The first number that is kept.
    pub first: u32,
    /// The last number that is stored and counts, without a gap before it.
    pub last: u32,
    /// The highest number that heads of any member name.
    pub advertised: u32,
    /// First number that does not count, as the author signed two histories.
    pub conflict: Option<u32>,
}

#[derive(Debug)]
struct Source {
    bad_signatures: Bucket,
    requests: Bucket,
    /// None: only presence came from it.
    heard_at: Option<Instant>,
}

/// The newest entry of a key of this log: the time of its append, and its repetitions since.
#[derive(Debug)]
struct LastWords {
    appended: Instant,
    repeated: usize,
}

impl LastWords {
    fn due(&self) -> Option<Instant> {
        let pause = LAST_WORDS.get(self.repeated)?;
        Some(self.appended + *pause)
    }
}

/// One member's view of a space.
#[derive(Debug)]
pub struct Log {
    space: Space,
    groups: Groups,
    role: Role,
    owner: AuthorId,
    keys: BTreeMap<AuthorId, SecretKey>,
    authors: BTreeMap<AuthorId, Author>,
    early_heads: EarlyHeads,
    offices: Offices,
    entries: usize,
    bytes: usize,
    /// Entries that were dropped before their time, for want of room.
    displaced: u64,
    requests: Requests,
    sources: BTreeMap<IpAddr, Source>,
    second_looks: TokenBucket,
    head_schedule: HeadSchedule,
    answers: BTreeMap<(AuthorId, u32), Answer>,
    history: History,
    reading: Reading,
    writing: Writing,
    repairs: TokenBucket,
    bulk_repairs: TokenBucket,
    last_words: BTreeMap<AuthorId, LastWords>,
    /// When numbers that only unsigned heads claim are next requested.
    claims_at: Instant,
    started: Instant,
    /// When this member started, or was last away.
    back: Instant,
    /// When another member's first packet came after that.
    heard: Option<Instant>,
    told_of_own: BTreeSet<AuthorId>,
    expiry: Expiry,
    watches_presence: bool,
    watches_clocks: bool,
    /// Time of the last presence of each key of this log.
    shown_at: BTreeMap<AuthorId, u64>,
    sealer: Sealer,
    random: Random,
    outputs: VecDeque<Output>,
    drops: Drops<DropReason>,
}

impl Log {
    /// Returns an empty log. [`Log::restore`] must come first, with each record that is on disk.
    pub fn new(config: Config, now: Instant) -> Self {
        let Config { space, keys, seed } = config;
        let owner_key = space.owner();
        let owner = space.author(&owner_key);
        let keys = keys.into_iter();
        let keys = keys.map(|key| (space.author(&key.peer_id()), key));
        let random = derive("librecast 2026 log random", &[&seed]);
        let random = u64::from_be_bytes(*random.first_chunk().expect("a hash has 32 bytes"));
        let sealer = Sealer::new(Seal::new(&space), &seed);
        Self {
            owner,
            keys: keys.collect(),
            authors: BTreeMap::from([(owner, Author::new(owner_key, None, now))]),
            early_heads: EarlyHeads::default(),
            offices: Offices::new(owner),
            entries: 0,
            bytes: 0,
            displaced: 0,
            requests: Requests::new(now),
            sources: BTreeMap::new(),
            second_looks: TokenBucket::of(SECOND_LOOKS, now),
            head_schedule: HeadSchedule::new(now),
            answers: BTreeMap::new(),
            history: History::new(now),
            reading: Reading::default(),
            writing: Writing::new(now),
            repairs: TokenBucket::of(REPAIRS, now),
            bulk_repairs: TokenBucket::of(BULK_REPAIRS, now),
            last_words: BTreeMap::new(),
            claims_at: now,
            started: now,
            back: now,
            heard: None,
            told_of_own: BTreeSet::new(),
            expiry: Expiry::new(now),
            watches_presence: false,
            watches_clocks: false,
            shown_at: BTreeMap::new(),
            sealer,
            random: Random::new(random),
            outputs: VecDeque::new(),
            drops: Drops::default(),
            groups: space.groups(),
            role: Role::default(),
            space,
        }
    }

    /// Sets this member's role, before its first packet.
    pub fn set_role(&mut self, role: Role, now: Instant) {
        self.role = role;
        self.check();
        if role == Role::Reader {
            self.begin_reading(now);
        }
    }

    /// Returns the groups that this member must have joined now. They change with any input.
    pub fn joined_groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        let Groups {
            live,
            asking,
            history,
        } = self.groups;
        let is_holder = self.role == Role::Holder;
        let history = (is_holder || self.reading.has_joined).then_some(history);
        let asking = is_holder.then_some(asking);
        [live].into_iter().chain(asking).chain(history)
    }

    /// Restores a record; the order is that of storing. The signature was verified before.
    pub fn restore(&mut self, stored: Stored, now: Instant) {
        match stored {
            Stored::Entry(entry) => self.put(entry, None, now),
            Stored::Ahead(entry, received) => self.put(entry, Some(received), now),
            Stored::First(author, first) => self.begin_at(author, first, now),
            Stored::Request(body) => self.keep_request(body, None, now),
        }
        self.outputs.clear();
    }

    /// Returns all records in an order in which they can be restored, to rewrite a store.
    pub fn stored(&self) -> impl Iterator<Item = Stored> + '_ {
        let owner = self.authors.iter().filter(|(id, _)| **id == self.owner);
        let offices = self.authors.iter().filter(|(id, _)| self.is_office(**id));
        let others = self.authors.iter();
        let others = others.filter(|(id, _)| !self.offices.grants(id));
        let logs = owner.chain(offices).chain(others).flat_map(|(id, author)| {
            let first = (author.first > 1).then_some(Stored::First(*id, author.first));
            let proof = author.conflict.iter().flat_map(|proof| &proof.entries);
            let entries = author.entries.values();
            let entries = entries.map(|held| stored(held.entry.clone(), held.received));
            let proof = proof.cloned().map(Stored::Entry);
            first.into_iter().chain(entries).chain(proof)
        });
        let requests = self.requests.bodies();
        logs.chain(requests.map(|body| Stored::Request(body.to_vec())))
    }

    /// Whether [`stored`](Self::stored) has all grants. While entries of the owner are missing, those
    /// before them may be on disk alone.
    pub fn may_be_rewritten(&self) -> bool {
        !self.offices.ids().any(|id| self.has_gap(*id))
    }

    /// Adds a key to append with.
    pub fn add_key(&mut self, key: SecretKey) {
        self.keys.insert(self.space.author(&key.peer_id()), key);
    }

    /// The space.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Sets the least time for which an entry is kept, as the owner may state it in its log.
    pub fn set_ttl(&mut self, ttl: Duration) {
        self.space.set_ttl(ttl);
    }

    /// Asks for an author's entries up to `number`, which the caller knows to have existed.
    pub fn ask_up_to(&mut self, author: AuthorId, number: u32, now: Instant) {
        if let Some(known) = self.authors.get_mut(&author) {
            let most = known.have.saturating_add(MAX_JUMP);
            known.advertised = known.advertised.max(number.min(most));
            self.look_for_missing(author, true, now);
        }
    }

    /// Whether a later entry of this author is here, which proves that entries are missing.
    pub fn has_gap(&self, author: AuthorId) -> bool {
        self.authors.get(&author).is_some_and(Author::has_gap)
    }

    /// Gives up an author's missing entries up to `number`, which the caller knows to have expired:
    /// its log begins at the next stored one, or behind `number`.
    pub fn give_up(&mut self, author: AuthorId, number: u32, now: Instant) {
        self.skip_missing(author, number, now);
    }

    /// Drops the entries before `first` of a log with a key of this member. Its next entry states
    /// that, and other members drop them as well.
    pub fn forget_before(&mut self, author: AuthorId, first: u32) {
        let own = self.keys.contains_key(&author);
        let known = self.authors.get(&author).filter(|_| own);
        // the last entry stays: the next one continues it
        if known.is_some_and(|known| known.first < first && first <= known.have) {
            self.change(author, |author| author.begin_at(first));
            self.outputs
                .push_back(Output::Store(Stored::First(author, first)));
        }
    }

    /// The author of the log with the grants.
    pub fn owner(&self) -> AuthorId {
        self.owner
    }

    /// Counters of packets, entries and requests that were not taken, by reason.
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }

    /// Returns the state of all authors, the owner among them.
    pub fn authors(&self) -> impl Iterator<Item = AuthorStatus> + '_ {
        self.authors.iter().map(|(id, author)| AuthorStatus {
            author: *id,
            key: author.key,
            grant: author.grant,
            is_office: self.is_office(*id),
            first: author.first,
            last: author.last(),
            advertised: author.advertised.max(author.highest()).min(author.limit()),
            conflict: author.conflict.as_ref().map(|proof| proof.number),
        })
    }

    /// Returns the author's next stored entry after number `after`, unless a gap lies before it.
    pub fn next_entry(&self, author: AuthorId, after: u32) -> Option<&Entry> {
        let author = self.authors.get(&author)?;
        let mut later = author.entries.range(after.checked_add(1)?..);
        let (number, held) = later.next()?;
        (*number <= author.last()).then_some(&held.entry)
    }

    /// Returns the author's stored entries after number `after`, up to the next gap.
    pub fn entries_after(&self, author: AuthorId, mut after: u32) -> impl Iterator<Item = &Entry> {
        std::iter::from_fn(move || {
            let entry = self.next_entry(author, after)?;
            after = entry.number;
            Some(entry)
        })
    }

    /// Entries and bytes that are kept.
    pub fn size(&self) -> (usize, usize) {
        (self.entries, self.bytes)
    }

    /// Entries that were dropped before their time in this run, as the space was full.
    pub fn displaced(&self) -> u64 {
        self.displaced
    }

    /// Requests that wait for the owner.
    pub fn requests(&self) -> impl Iterator<Item = &[u8]> {
        self.requests.bodies()
    }

    /// Whether this member has waited long enough for entries of `author` from other members: 3 s
    /// after the start and after the last new entry, 10 s while some are missing.
    pub fn is_settled(&self, author: AuthorId, now: Instant) -> bool {
        let Some(known) = self.authors.get(&author) else {
            return false;
        };
        let since = known
            .arrived
            .map_or(self.started, |at| at.max(self.started));
        let lacks = known.missing().next().is_some();
        let wait = if lacks { SETTLE_LONGEST } else { SETTLE };
        now.saturating_duration_since(since) >= wait
    }

    /// Sends heads at once, as this member may have been away, and restarts
    /// [`caught_up_at`](Self::caught_up_at).
    pub fn come_back(&mut self, now: Instant) {
        (self.back, self.heard) = (now, None);
        self.head_schedule.come_back(now);
        if self.role == Role::Reader {
            self.begin_reading(now);
        }
    }

    /// Returns when this member has all of the logs with grants that present members have: 3 s after
    /// the first packet of one of them and after the last new entry there. It is 10 s while heads
    /// claim more, and 60 s while a later entry shows a gap. `None` before the first packet.
    pub fn caught_up_at(&self) -> Option<Instant> {
        let heard = self.heard?;
        let granting = self.offices.ids().filter_map(|id| self.authors.get(id));
        let until = granting.map(|author| {
            let lacks = author.missing().next().is_some();
            let wait = match lacks {
                true if author.has_gap() => SETTLE_GAP,
                true => SETTLE_LONGEST,
                false => SETTLE,
            };
            author.arrived.map_or(heard, |at| at.max(heard)) + wait
        });
        until.max()
    }

    /// Whether a packet of another host of the space came since the start.
    pub fn has_received(&self) -> bool {
        self.heard.is_some()
    }

    /// Appends an entry at `time`, sends it and returns its number.
    pub fn append(
        &mut self,
        author: AuthorId,
        kind: u8,
        body: &[u8],
        time: UnixTime,
        now: Instant,
    ) -> Result<u32, AppendError> {
        let key = self.keys.get(&author);
        let key = key.ok_or(AppendError::NotOurs(author))?;
        let log = self.authors.get(&author).ok_or(AppendError::NotGranted)?;
        if log.conflict.is_some() {
            return Err(AppendError::Conflict);
        }
        // a later entry shows that the next number was used
        if !self.is_settled(author, now) || log.has_gap() {
            return Err(AppendError::Starting);
        }
        let number = log.have + 1;
        debug_assert!(
            !log.entries.contains_key(&number),
            "number {number} is never used twice"
        );
        let before = log.entries.get(&log.have);
        let date = time.as_millis();
        let entry = Entry {
            author,
            number,
            first: log.first,
            // an author's times never go back, unless its clock was far ahead once
            time: before
                .map(|held| held.entry.time)
                .filter(|before| !is_ahead(*before, date))
                .map_or(date, |before| before.max(date)),
            kind,
            previous: before.map(|held| held.hash).unwrap_or_default(),
            body: body.to_vec(),
            signature: [0; 64],
        };
        let entry = entry.sign(&self.space.owner(), key)?;
        if !log.admits(&entry) || number > log.limit() {
            return Err(AppendError::NotGranted);
        }
        // in other logs, the oldest entries give way
        if self.is_full(author, &entry) {
            return Err(AppendError::Full);
        }
        self.store(entry, time, now);
        self.send_last(author, now);
        let last_words = LastWords {
            appended: now,
            repeated: 0,
        };
        self.last_words.insert(author, last_words);
        self.writing.expect(now);
        Ok(number)
    }

    /// Sends a request of an author without a grant, once; members keep it for a day.
    pub fn request(&mut self, body: &[u8]) -> Result<(), EntryError> {
        if body.len() > MAX_BODY {
            return Err(EntryError::TooLong(body.len()));
        }
        self.transmit(&Packet::Request(body.to_vec()));
        Ok(())
    }

    /// Sends presence: at most [`MAX_PRESENCE`] bytes, which no member keeps or repeats.
    pub fn show(
        &mut self,
        author: AuthorId,
        body: &[u8],
        time: UnixTime,
    ) -> Result<(), AppendError> {
        let time = time.as_millis();
        let key = self.keys.get(&author).filter(|_| self.role != Role::Reader);
        let key = key.ok_or(AppendError::NotOurs(author))?;
        let known = self.authors.get(&author);
        if !known.is_some_and(|known| known.may_go_on(time)) {
            return Err(AppendError::NotGranted);
        }
        // as in entries: a time of a clock that was far ahead once does not count
        let last = self.shown_at.get(&author);
        let last = last.filter(|last| !is_ahead(**last, time));
        let time = last.map_or(time, |last| time.max(last + 1));
        let presence = Presence::sign(&self.space.owner(), key, time, body);
        let presence = presence.ok_or(AppendError::LongPresence(body.len()))?;
        self.shown_at.insert(author, time);
        self.transmit(&Packet::Presence(presence));
        Ok(())
    }

    /// Sets whether presence of other members is checked and reported as events.
    pub fn watch_presence(&mut self, watches: bool) {
        self.watches_presence = watches;
    }

    /// Sets whether presence with another clock, maybe a recording, is an [`Event::OtherClock`].
    pub fn watch_clocks(&mut self, watches: bool) {
        self.watches_clocks = watches;
    }

    /// Handles a datagram of one of the joined groups; `time` is the wall clock.
    pub fn handle_datagram(
        &mut self,
        group: Ipv6Addr,
        source: IpAddr,
        bytes: &[u8],
        time: UnixTime,
        now: Instant,
    ) {
        let is_holder = self.role == Role::Holder;
        if group == self.groups.live {
            self.handle_packet(source, bytes, time, now);
        } else if group == self.groups.history && self.role != Role::Member {
            self.handle_history(source, bytes, time, now);
        } else if group == self.groups.asking && is_holder {
            self.handle_asking(bytes, time, now);
        }
    }

    fn open(&mut self, bytes: &[u8]) -> Option<Packet> {
        let opened = match self.sealer.has_sealed(bytes) {
            true => Err(DropReason::Own),
            false => self.sealer.seal.open(bytes).map_err(DropReason::from),
        };
        opened.map_err(|reason| self.drops.count(reason)).ok()
    }

    /// Handles a datagram of the asking group. Nothing there counts against its source: that is a
    /// router, perhaps the one of this host.
    fn handle_asking(&mut self, bytes: &[u8], time: UnixTime, now: Instant) {
        match self.open(bytes) {
            Some(Packet::Wants(wants)) => self.handle_asked(&wants, now),
            Some(Packet::Entries(entries)) => self.handle_written(entries, time, now),
            Some(Packet::Request(body)) => {
                if let Err(reason) = self.take_request(None, body, now) {
                    self.drops.count(reason);
                }
            }
            Some(Packet::Heads { .. } | Packet::Presence(_)) => {
                self.drops.count(DropReason::AskedBadly);
            }
            None => {}
        }
    }

    /// Handles a datagram of the history group: answers of holders.
    fn handle_history(&mut self, source: IpAddr, bytes: &[u8], time: UnixTime, now: Instant) {
        let Some(packet) = self.open(bytes) else {
            return;
        };
        if !matches!(packet, Packet::Entries(_) | Packet::Heads { .. }) {
            return self.drops.count(DropReason::AskedBadly);
        }
        self.add_source(source, now);
        if self.role == Role::Reader {
            self.heard.get_or_insert(now);
            return self.read(Channel::History, source, packet, time, now);
        }
        match packet {
            Packet::Entries(entries) => {
                for entry in entries {
                    if let Err(reason) = self.take(Channel::History, Some(source), entry, time, now)
                    {
                        self.drops.count(reason);
                    }
                }
            }
            _ => self.note_answered_heads(now),
        }
    }

    /// Handles a datagram of the live group; `time` is the wall clock.
    pub fn handle_packet(&mut self, source: IpAddr, bytes: &[u8], time: UnixTime, now: Instant) {
        let Some(packet) = self.open(bytes) else {
            return;
        };
        if let Packet::Presence(presence) = packet {
            if let Err(reason) = self.take_presence(source, presence, time, now) {
                self.drops.count(reason);
            }
            return;
        }
        let away = self.hear(source, now);
        let asks = matches!(&packet, Packet::Heads { asks_for_requests, .. } if *asks_for_requests);
        if away || asks {
            self.outputs.push_back(Output::Event(Event::HostIsBack));
        }
        if self.heard.is_none() {
            // a reader has asked, whether others were there or not
            let is_late = now.saturating_duration_since(self.back) > SETTLE;
            if is_late && self.role != Role::Reader {
                self.come_back(now);
            }
            self.heard = Some(now);
        }
        if self.role == Role::Reader {
            return self.read(Channel::Live, source, packet, time, now);
        }
        match packet {
            Packet::Presence(_) => {}
            Packet::Entries(entries) => {
                for entry in entries {
                    if let Err(reason) = self.take(Channel::Live, Some(source), entry, time, now) {
                        self.drops.count(reason);
                    }
                }
            }
            Packet::Heads {
                asks_for_requests,
                digest,
                heads,
            } => {
                self.handle_heads(&heads, digest, away, now);
                if asks_for_requests {
                    self.plan_requests(now);
                }
            }
            Packet::Wants(wants) => self.handle_wants(&wants, now),
            Packet::Request(body) => {
                if let Err(reason) = self.take_request(Some(source), body, now) {
                    self.drops.count(reason);
                }
            }
        }
    }

    /// Sends and expires everything that is due.
    pub fn handle_timeout(&mut self, time: UnixTime, now: Instant) {
        if self.role == Role::Reader {
            self.read_on(now);
            self.write_on(now);
            if self.expiry.handle_timeout(now) {
                self.expire(time, now);
            }
            return;
        }
        if self.head_schedule.handle_timeout(now, &mut self.random) {
            self.send_heads(now);
        }
        self.send_wants(now);
        self.send_answers(now);
        self.send_history(now);
        self.repeat_last_words(now);
        self.send_requests(now);
        if self.expiry.handle_timeout(now) {
            self.expire(time, now);
        }
    }

    /// Returns when [`Log::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Instant {
        if self.role == Role::Reader {
            let reading = self.reading.next_timeout();
            let last_words = self.last_words.values().filter_map(LastWords::due).min();
            let others = [reading, last_words, self.writing.next_timeout()];
            let first = others.into_iter().flatten().min();
            let expiry = self.expiry.next_timeout();
            return first.map_or(expiry, |at| at.min(expiry));
        }
        let wants = self.authors.values().filter_map(|author| author.want_at);
        let answers = self.answers.values().map(|answer| answer.due).min();
        let answers = answers.map(|due| {
            let repairs = self.repair_bucket();
            if repairs.ready(due) {
                due
            } else {
                repairs.ready_at().max(due)
            }
        });
        let last_words = self.last_words.values().filter_map(LastWords::due).min();
        let history = self.history.next_timeout();
        let others = [answers, last_words, history, self.requests.next_timeout()];
        let first = wants.chain(others.into_iter().flatten()).min();
        let fixed = self.head_schedule.next_timeout();
        let fixed = fixed.min(self.expiry.next_timeout());
        first.map_or(fixed, |first| first.min(fixed))
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // entries

    /// Takes an entry of a packet; `source`: none on the asking group, where addresses are those of
    /// routers.
    fn take(
        &mut self,
        from: Channel,
        source: Option<IpAddr>,
        entry: Entry,
        time: UnixTime,
        now: Instant,
    ) -> Result<(), DropReason> {
        let id = entry.author;
        let Some(author) = self.authors.get_mut(&id) else {
            self.early_heads.add(id, entry.number);
            return Err(DropReason::UnknownAuthor);
        };
        if let Some(held) = author.entries.get_mut(&entry.number)
            && held.entry == entry
        {
            if from == Channel::History {
                held.answered = Some(now);
                self.note_answered(id, entry.number, now);
            } else {
                held.sent = Some(now);
                self.drop_answer(id, entry.number, now);
            }
            return Err(DropReason::Duplicate);
        }
        if let Some(proof) = &mut author.conflict
            && proof.entries.contains(&entry)
        {
            // anybody with the read key can repeat it there, where members do not hear it
            if from != Channel::Asking {
                proof.sent = Some(now);
                let number = proof.number;
                self.drop_answer(id, number, now);
            }
            return Err(DropReason::Conflict);
        }
        if entry.number < author.first {
            return Err(DropReason::Duplicate);
        }
        if author
            .conflict
            .as_ref()
            .is_some_and(|c| c.number <= entry.number)
        {
            return Err(DropReason::Conflict);
        }
        if !author.admits(&entry) {
            return Err(DropReason::NotGranted);
        }
        let owner = self.space.owner();
        let source = source.and_then(|source| self.sources.get_mut(&source));
        let looks = (source, &mut self.second_looks);
        verify(looks, now, || entry.is_signed_by(&owner, &author.key))?;
        // the signature covers `first`: entries before it are gone, however many they were
        let most = author.highest().saturating_add(MAX_JUMP);
        let most = most.max((entry.first - 1).saturating_add(MAX_ENTRIES as u32));
        if entry.number > most || entry.number == u32::MAX {
            return Err(DropReason::NumberJump);
        }
        if let Some(held) = author.entries.get(&entry.number) {
            let proof = Proof {
                number: entry.number,
                entries: [held.entry.clone(), entry.clone()],
                sent: None,
            };
            self.outputs.push_back(Output::Store(Stored::Entry(entry)));
            self.convict(id, proof, now);
            return Err(DropReason::Conflict);
        }
        if self.is_full(id, &entry) {
            return Err(DropReason::Full);
        }
        if let Some(author) = self.authors.get_mut(&id)
            && !author.taken.take(ENTRIES_OF_AUTHOR, 1, now)
        {
            return Err(DropReason::RateLimited);
        }
        if self.keys.contains_key(&id) && self.told_of_own.insert(id) {
            let event = Event::OwnEntries { author: id };
            self.outputs.push_back(Output::Event(event));
        }
        if let Some(author) = self.authors.get_mut(&id) {
            author.arrived = Some(now);
        }
        self.store(entry, time, now);
        Ok(())
    }

    fn store(&mut self, entry: Entry, time: UnixTime, now: Instant) {
        let (time, ttl) = (time.as_millis(), self.space.ttl().as_millis() as u64);
        let expires = entry.author != self.owner && ttl > 0;
        let is_off = is_ahead(entry.time, time) || entry.time.saturating_add(ttl) < time;
        let received = (expires && is_off).then_some(time);
        let record = stored(entry.clone(), received);
        self.outputs.push_back(Output::Store(record));
        self.put(entry, received, now);
    }

    fn take_presence(
        &mut self,
        source: IpAddr,
        presence: Presence,
        time: UnixTime,
        now: Instant,
    ) -> Result<(), DropReason> {
        let id = presence.author;
        if !self.watches_presence {
            return Err(DropReason::NotWatched);
        }
        if self.keys.contains_key(&id) {
            return Err(DropReason::Own);
        }
        self.add_source(source, now);
        let author = self.authors.get_mut(&id);
        let author = author.ok_or(DropReason::UnknownAuthor)?;
        if !author.may_go_on(presence.time) {
            return Err(DropReason::NotGranted);
        }
        let is_off = presence.time.abs_diff(time.as_millis()) > CLOCK_TOLERANCE;
        if is_off && !self.watches_clocks {
            return Err(DropReason::WrongTime);
        }
        if !is_off && presence.time <= author.present_at {
            return Err(DropReason::Duplicate);
        }
        if !author.present.ready(PRESENCE_OF_AUTHOR, now) {
            return Err(DropReason::RateLimited);
        }
        let owner = self.space.owner();
        let looks = (self.sources.get_mut(&source), &mut self.second_looks);
        verify(looks, now, || presence.is_signed_by(&owner, &author.key))?;
        author.present.spend(PRESENCE_OF_AUTHOR, 1, now);
        let Presence { time, body, .. } = presence;
        if is_off {
            let event = Event::OtherClock {
                author: id,
                time,
                body,
            };
            self.outputs.push_back(Output::Event(event));
            return Err(DropReason::WrongTime);
        }
        author.present_at = time;
        self.outputs
            .push_back(Output::Event(Event::Presence { author: id, body }));
        Ok(())
    }

    /// Whether the owner's log has no room. In other logs, the oldest entries of the longest give
    /// way.
    fn is_full(&self, id: AuthorId, entry: &Entry) -> bool {
        let (entries, bytes) = (self.entries + 1, self.bytes + entry.size());
        id == self.owner && (entries > MAX_ENTRIES || bytes > MAX_BYTES)
    }

    /// Drops the oldest entries of the longest logs. Each author keeps its part, the owner a
    /// quarter.
    fn make_room(&mut self, id: AuthorId) {
        let is_long = |author: &Author| author.entries.len() > MAX_ENTRIES_OF_AUTHOR;
        while id != self.owner && self.authors.get(&id).is_some_and(is_long) {
            if !self.change(id, Author::drop_oldest).unwrap_or(false) {
                break;
            }
            self.displaced += 1;
        }
        while self.is_crowded() {
            let others = self.authors.iter().filter(|(id, _)| **id != self.owner);
            let droppable = others.filter(|(_, author)| author.has_oldest());
            let longest = droppable.max_by_key(|(_, author)| author.bytes);
            let Some(id) = longest.map(|(id, _)| *id) else {
                return;
            };
            self.change(id, Author::drop_oldest);
            self.displaced += 1;
        }
    }

    /// Whether all authors but the owner exceed their part.
    fn is_crowded(&self) -> bool {
        let owner = self.authors.get(&self.owner);
        let owned = owner.map_or((0, 0), |owner| (owner.entries.len(), owner.bytes));
        let others = OWNERS_SHARE - 1;
        let entries =
            (MAX_ENTRIES / OWNERS_SHARE * others).min(MAX_ENTRIES.saturating_sub(owned.0));
        let bytes = (MAX_BYTES / OWNERS_SHARE * others).min(MAX_BYTES.saturating_sub(owned.1));
        self.entries - owned.0 > entries || self.bytes - owned.1 > bytes
    }

    /// Changes an author's log, and updates the totals of the space.
    fn change<T>(&mut self, id: AuthorId, change: impl FnOnce(&mut Author) -> T) -> Option<T> {
        let author = self.authors.get_mut(&id)?;
        let had = (author.entries.len(), author.bytes);
        let result = change(author);
        self.entries = self.entries + author.entries.len() - had.0;
        self.bytes = self.bytes + author.bytes - had.1;
        author.check();
        debug_assert!(
            self.entries >= author.entries.len() && self.bytes >= author.bytes,
            "the totals count each author"
        );
        self.head_schedule.heads_changed();
        Some(result)
    }

    fn put(&mut self, entry: Entry, received: Option<u64>, now: Instant) {
        let id = entry.author;
        let Some(author) = self.authors.get_mut(&id) else {
            return;
        };
        if let Some(held) = author.entries.get(&entry.number) {
            if held.entry != entry {
                let proof = Proof {
                    number: entry.number,
                    entries: [held.entry.clone(), entry],
                    sent: None,
                };
                self.convict(id, proof, now);
            }
            return;
        }
        if entry.number < author.first {
            // an older disk, put beside a newer one
            return;
        }
        if entry.number > author.limit() && !self.keys.contains_key(&id) {
            // beyond the author's last number: the grant ended before it
            return;
        }
        author.changed = now;
        let had = author.have;
        let Some(proof) = self.change(id, |author| author.insert(entry, received)) else {
            return;
        };
        self.make_room(id);
        let Some(author) = self.authors.get_mut(&id) else {
            return;
        };
        let advanced = author.have != had;
        let pause = WANT_AGAIN + WANT_BACKOFF.mul_f64(self.random.unit());
        let missing = author.missing().next().is_some();
        // while entries arrive, missing ones are requested later
        author.want_at = missing.then(|| match author.want_at {
            Some(at) if had == 0 => at,
            Some(_) if advanced => now + pause,
            Some(at) => at,
            None => now + backoff(WANT_BACKOFF, 16, &mut self.random),
        });
        self.head_schedule.reset(now, &mut self.random);
        if let Some(proof) = proof {
            self.convict(id, proof, now);
        }
        self.check_reach(id);
        if advanced {
            self.outputs.push_back(Output::Event(Event::Entries(id)));
            if self.offices.grants(&id) {
                self.read_grants(now);
            }
        }
    }

    /// Drops an author's entries before `first`. Stored entries behind a gap may count now.
    fn begin_at(&mut self, id: AuthorId, first: u32, now: Instant) {
        let proof = self.change(id, |author| {
            author.begin_at(first);
            author.advance()
        });
        if let Some(proof) = proof.flatten() {
            self.convict(id, proof, now);
        }
        self.check_reach(id);
        if self.offices.grants(&id) {
            self.read_grants(now);
        }
    }

    fn convict(&mut self, id: AuthorId, proof: Proof, now: Instant) {
        let number = proof.number;
        if self.change(id, |author| author.convict(proof)) == Some(true) {
            if let Some(author) = self.authors.get_mut(&id) {
                author.changed = now;
            }
            let event = Event::Conflict { author: id, number };
            self.outputs.push_back(Output::Event(event));
            self.head_schedule.reset(now, &mut self.random);
            let due = now + self.others_wait();
            self.plan_answer(id, number, Duration::ZERO, due, now);
        }
    }

    fn grant(&mut self, grant: Grant, now: Instant) {
        let id = self.space.author(&grant.author);
        if self.offices.grants(&id) {
            return;
        }
        let room = self.authors.len() < MAX_AUTHORS;
        let is_own = self.keys.contains_key(&id);
        match self.authors.get_mut(&id) {
            Some(author) => {
                (author.grant, author.changed) = (Some(grant), now);
                // a number of this member's key is never used twice
                if !is_own {
                    self.change(id, Author::cut);
                }
            }
            None if room => {
                let mut author = Author::new(grant.author, Some(grant), now);
                author.advertised = self.early_heads.take(id).min(MAX_JUMP);
                self.authors.insert(id, author);
            }
            None => return,
        }
        self.head_schedule.heads_changed();
        self.look_for_missing(id, true, now);
        let event = Event::Granted(grant.author);
        self.outputs.push_back(Output::Event(event));
    }

    fn expire(&mut self, time: UnixTime, now: Instant) {
        self.requests.expire(now);
        let ttl = self.space.ttl().as_millis() as u64;
        if ttl == 0 || !self.expiry.trusts(time, now) {
            return;
        }
        let others = self.authors.keys().filter(|id| !self.offices.grants(id));
        for id in others.copied().collect::<Vec<_>>() {
            self.change(id, |author| author.expire(ttl, time.as_millis()));
        }
        self.check();
    }

    /// Sends a packet to the group on which this member speaks.
    fn transmit(&mut self, packet: &Packet) {
        let to = match self.role {
            Role::Reader => Channel::Asking,
            Role::Member | Role::Holder => Channel::Live,
        };
        self.transmit_to(to, packet);
    }

    fn transmit_to(&mut self, to: Channel, packet: &Packet) {
        // packets of this member are within bounds
        if let Some(bytes) = self.sealer.seal(packet) {
            self.outputs.push_back(match to {
                Channel::Live => Output::Transmit(bytes),
                Channel::Asking => Output::TransmitTo(self.groups.asking, bytes),
                Channel::History => Output::TransmitTo(self.groups.history, bytes),
            });
        }
    }
}

impl From<Refused> for DropReason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Foreign => Self::Foreign,
            Refused::Unsealed => Self::Unsealed,
            Refused::Malformed => Self::Malformed,
        }
    }
}

fn stored(entry: Entry, received: Option<u64>) -> Stored {
    match received {
        Some(received) => Stored::Ahead(entry, received),
        None => Stored::Entry(entry),
    }
}

/// Verifies a signature, unless its address sent too many bad ones and [`SECOND_LOOKS`] is used up.
fn verify(
    (source, second_looks): (Option<&mut Source>, &mut TokenBucket),
    now: Instant,
    is_signed: impl FnOnce() -> bool,
) -> Result<(), DropReason> {
    let suspended = |s: &&mut Source| !s.bad_signatures.ready(BAD_SIGNATURES, now);
    if source.as_ref().is_some_and(suspended) && !second_looks.take(1, now) {
        return Err(DropReason::Suspended);
    }
    if is_signed() {
        return Ok(());
    }
    if let Some(source) = source
        && source.bad_signatures.ready(BAD_SIGNATURES, now)
    {
        source.bad_signatures.spend(BAD_SIGNATURES, 1, now);
    }
    Err(DropReason::BadSignature)
}
