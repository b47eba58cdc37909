//! The receiver as a state machine: datagrams in; memberships, a version's tree and its blocks out.
//!
//! ```text
//! Waiting -> Tree -> Compared -> Blocks -> Compared -> Resting
//!             |                                           |
//!             +-> Nonsense -> Failed                      |
//!   Tree <- the version in hand changes <- any of them <--+
//! ```

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use librecast::channel::{ChannelId, ROOT_CHANNEL};
use librecast::time::{Duration, Instant};

use super::assembly::{Assembly, BadTree, Next};
use super::choice::{Choice, Decision, Proof};
use super::collector::Source;
use super::fetch::{self, Counters, Fetch};
use super::tree::Tree;
use super::window::Window;
use crate::block::{BlockHash, BlockRef};
use crate::carrying::CarrierNumber;
use crate::opener::{OpenDrops, Opener};
use crate::packet::Packet;
use crate::record::Record;

/// Channels held until the first judgement of loss.
const START_WINDOW: usize = 16;
/// Most channels held before the first record.
const MAX_WINDOW: usize = 128;
/// Time for root node and metadata of a version, after which any other version replaces it.
const VERSION_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings of a receiver.
#[derive(Debug)]
pub struct Settings {
    /// The only root hash to take, if set.
    pub pinned: Option<BlockHash>,
    /// Proof that records are genuine.
    pub proof: Proof,
    /// The highest generation of earlier runs.
    pub floor: u64,
    /// Opens the share's datagrams, with its key if it is sealed.
    pub opener: Opener,
    /// Bits per second to receive.
    pub limit: Option<u64>,
    /// Longest time without packets.
    pub timeout: Duration,
    /// The server of this process, which only repeats received records.
    pub own_server: Option<u32>,
    /// Interface of an overlay, on which receivers divide blocks.
    pub overlay: Option<u32>,
}

/// An action for the shell, or a report.
#[derive(Debug)]
pub enum Event {
    /// Join a channel.
    Join(ChannelId),
    /// Leave a channel.
    Leave(ChannelId),
    /// A record of the version in hand has come.
    Record {
        /// Its sender.
        server: u32,
        /// Interface it came in by.
        interface: u32,
        /// The highest proven generation, behind which this host does not go back; 0 without proof.
        proven: u64,
    },
    /// Another server has another version of the same name. Reported once.
    Conflict {
        /// Its sender.
        server: u32,
        /// Its address.
        address: Ipv6Addr,
        /// Its root hash.
        root: BlockHash,
    },
    /// Two hosts publish different versions under one key, in turn or as equals. Reported once.
    Rival {
        /// The one that is followed.
        followed: Ipv6Addr,
        /// The one that is ignored while the first is present.
        other: Ipv6Addr,
    },
    /// This address sent a record that the trusted key has not signed. Reported once.
    Untrusted(Ipv6Addr),
    /// This address sent a record older than a version that this host has had. Reported once.
    RolledBack(Ipv6Addr),
    /// This source sent symbols that are not of the block; it is refused for a while.
    CorruptSource(Source),
    /// The share has changed during the fetch.
    Changed,
    /// This version is fetched from now on.
    Version(Box<Record>),
    /// The tree of the version: [`Receiver::fetch`] fetches the blocks that DEST lacks.
    Tree(Box<(Record, Tree)>),
    /// A wanted block, verified.
    Block {
        /// Hash and length of the bytes.
        block: BlockRef,
        /// At most 256 KiB.
        bytes: Vec<u8>,
    },
    /// All of them have come.
    Fetched,
    /// Nothing more comes of this version.
    Failed(Failure),
}

/// Reason why nothing more comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No datagram within the timeout.
    Silence,
    /// Records come, but none of the wanted version.
    NoVersion,
    /// Records come, but no blocks.
    NoBlocks,
    /// The tree makes no sense and no other is served, or it is too large.
    Tree(BadTree),
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Tree(Box<Assembly>),
    /// The shell compares the tree with DEST, or puts everything into place.
    Compared,
    Blocks,
    /// Waits for another version, or for the time to retry this one.
    Resting {
        retry_at: Option<Instant>,
    },
    /// Waits for another version until a time.
    Nonsense {
        why: BadTree,
        until: Instant,
    },
    Failed,
}

/// One share on its way to this host.
#[derive(Debug)]
pub struct Receiver {
    opener: Opener,
    choice: Choice,
    fetch: Fetch,
    limit: Option<u64>,
    timeout: Duration,
    own_server: Option<u32>,
    overlay: Option<u32>,
    phase: Phase,
    started: Instant,
    last_packet: Instant,
    last_symbol: Instant,
    /// The version in hand differs from the fetched one.
    changed: bool,
    /// When the next block of root node or metadata is due.
    due: Option<Instant>,
    events: VecDeque<Event>,
}

impl Receiver {
    /// Starts without a version. The shell joins the root channel, for good.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let Settings {
            pinned,
            proof,
            floor,
            opener,
            limit,
            timeout,
            own_server,
            overlay,
        } = settings;
        let window = Window::new(START_WINDOW, MAX_WINDOW, now);
        let mut fetch = Fetch::new(window, limit, now).with_key(opener.group_key());
        if overlay.is_some() {
            fetch.divide(None);
        }
        Self {
            choice: Choice::new(pinned, proof, floor, now),
            fetch,
            opener,
            limit,
            timeout,
            own_server,
            overlay,
            phase: Phase::Waiting,
            started: now,
            last_packet: now,
            last_symbol: now,
            changed: false,
            due: None,
            events: VecDeque::new(),
        }
    }

    /// Handles a datagram on a channel of the share, from this address by this interface.
    pub fn handle_datagram(
        &mut self,
        channel: ChannelId,
        payload: &[u8],
        address: Ipv6Addr,
        interface: u32,
        now: Instant,
    ) {
        match self.opener.open(channel, payload, now) {
            Ok(Packet::Symbol(symbol)) => {
                let source = Source {
                    address,
                    interface,
                    server: symbol.server,
                };
                self.last_packet = now;
                if self.fetch.handle_symbol(channel, source, &symbol, now) {
                    self.last_symbol = now;
                }
            }
            Ok(Packet::Record(record)) if self.own_server == Some(record.server) => {}
            Ok(Packet::Record(record)) if channel == ROOT_CHANNEL => {
                self.last_packet = now;
                self.take_record(&record, address, interface, now);
            }
            Ok(Packet::Record(_) | Packet::Catalogue(_)) => {
                tracing::debug!("a datagram of another channel");
            }
            Err(e) => tracing::debug!("packet from {address}: {e}"),
        }
    }

    fn take_record(&mut self, record: &Record, from: Ipv6Addr, interface: u32, now: Instant) {
        let server = record.server;
        match self.choice.handle(record, from, now) {
            Decision::Current => self.changed |= matches!(self.phase, Phase::Waiting),
            Decision::Changed => self.changed = true,
            Decision::Conflict => {
                let root = record.root.hash;
                let address = from;
                self.events.push_back(Event::Conflict {
                    server,
                    address,
                    root,
                });
                return;
            }
            Decision::Rival => {
                let followed = self.choice.from();
                self.events.push_back(Event::Rival {
                    followed,
                    other: from,
                });
                return;
            }
            Decision::Untrusted => {
                self.events.push_back(Event::Untrusted(from));
                return;
            }
            Decision::RolledBack => {
                self.events.push_back(Event::RolledBack(from));
                return;
            }
            Decision::Ignored => return,
        }
        self.events.push_back(Event::Record {
            server,
            interface,
            proven: self.choice.proven(),
        });
        if self.overlay == Some(interface) {
            self.fetch.note_server(record, from, now);
        }
        if let Some(followed) = self.choice.record()
            && record.carries.is_none()
        {
            let limit = window_limit(followed, self.limit);
            self.fetch.set_record(record, limit, now);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        let next = self.fetch.next_timeout();
        match self.phase {
            Phase::Resting {
                retry_at: Some(retry_at),
            } => next.min(retry_at),
            _ => next,
        }
    }

    /// Handles the passing of time; all received datagrams must have been handled before.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.fetch.handle_timeout(now);
        if self.due.is_some_and(|due| now >= due) {
            self.choice.mark_unreachable();
        }
        if let Phase::Resting {
            retry_at: Some(retry_at),
        } = self.phase
        {
            self.changed |= now >= retry_at;
        }
        if self.changed {
            return;
        }
        if let Some(failure) = self.overdue(now) {
            self.fail(failure);
        }
    }

    /// Returns the failure of a wait that took too long.
    fn overdue(&self, now: Instant) -> Option<Failure> {
        if matches!(self.phase, Phase::Resting { .. } | Phase::Failed) {
            return None;
        }
        let is_over = |since| now.saturating_duration_since(since) >= self.timeout;
        if is_over(self.last_packet) {
            return Some(Failure::Silence);
        }
        match &self.phase {
            Phase::Waiting if is_over(self.started) => Some(Failure::NoVersion),
            Phase::Nonsense { why, until } if now >= *until => Some(Failure::Tree(why.clone())),
            _ if self.fetch.missing() > 0 && is_over(self.last_symbol) => Some(Failure::NoBlocks),
            _ => None,
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.due = None;
        self.phase = Phase::Failed;
        self.events.push_back(Event::Failed(failure));
    }

    /// Sets the number of blocks that can be taken. Without room, the network is not to blame.
    pub fn set_room(&mut self, blocks: usize, now: Instant) {
        self.fetch.set_room(blocks);
        if blocks == 0 {
            self.last_symbol = now;
        }
    }

    /// Carries from now on, or no longer: under this number, with an uplink of this width.
    pub fn carry(&mut self, own: Option<(CarrierNumber, u8)>) {
        self.fetch.divide(own);
    }

    /// Time for which others may await a block here.
    #[must_use]
    pub fn longest_awaited(&self) -> Duration {
        self.fetch.longest_awaited()
    }

    /// Takes a block from the origin, as others await it here and its owner does not send it.
    pub fn take_over(&mut self, block: BlockRef, now: Instant) {
        self.fetch.take_over(block, now);
    }

    /// Fetches blocks of the last tree, with these leaves; in order, they may come in stretches.
    pub fn fetch(&mut self, blocks: &[BlockRef], leaves: &[BlockRef], now: Instant) {
        self.phase = Phase::Blocks;
        self.fetch.want_content(blocks, leaves, now);
        self.last_symbol = now;
    }

    /// Ends the fetch and waits for another version; retries this one at `retry_at`.
    pub fn rest(&mut self, retry_at: Option<Instant>) {
        self.fetch.clear();
        self.due = None;
        self.phase = Phase::Resting { retry_at };
    }

    /// Returns the next event.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if std::mem::take(&mut self.changed) {
                return self.start_over(now);
            }
            match self.fetch.poll_event(now) {
                Some(fetch::Event::Join(channel)) => return Some(Event::Join(channel)),
                Some(fetch::Event::Leave(channel)) => return Some(Event::Leave(channel)),
                Some(fetch::Event::CorruptSource(source)) => {
                    return Some(Event::CorruptSource(source));
                }
                Some(fetch::Event::Block { block, bytes }) => {
                    self.due = self.due.map(|_| now + VERSION_TIMEOUT);
                    match &mut self.phase {
                        Phase::Tree(assembly) => assembly.take(block, bytes),
                        _ => return Some(Event::Block { block, bytes }),
                    }
                }
                None if self.fetch.missing() > 0 => return None,
                None => match std::mem::replace(&mut self.phase, Phase::Compared) {
                    Phase::Tree(assembly) => self.go_on(assembly.advance(), now),
                    Phase::Blocks => return Some(Event::Fetched),
                    other => {
                        self.phase = other;
                        return None;
                    }
                },
            }
        }
    }

    /// Fetches the version in hand from its beginning, once the shell has ended the one before.
    fn start_over(&mut self, now: Instant) -> Option<Event> {
        let record = self.choice.record()?.clone();
        self.fetch.clear();
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Tree(_) | Phase::Compared | Phase::Blocks => {
                self.changed = true;
                return Some(Event::Changed);
            }
            Phase::Resting { .. } => self.fetch.reset_counters(),
            _ => {}
        }
        self.go_on(Ok(Assembly::begin(record.clone())), now);
        Some(Event::Version(record.into()))
    }

    fn go_on(&mut self, next: Result<Next, BadTree>, now: Instant) {
        self.due = None;
        match next {
            Ok(Next::Blocks(assembly, blocks)) => {
                self.due = assembly.is_unproven().then(|| now + VERSION_TIMEOUT);
                self.phase = Phase::Tree(assembly.into());
                self.want(&blocks, now);
            }
            Ok(Next::Tree(record, tree)) => {
                self.phase = Phase::Compared;
                self.events.push_back(Event::Tree((record, tree).into()));
            }
            Err(why) if why.is_nonsense() => {
                self.choice.mark_unreachable();
                let until = now + VERSION_TIMEOUT;
                self.phase = Phase::Nonsense { why, until };
            }
            Err(why) => self.fail(Failure::Tree(why)),
        }
    }

    fn want(&mut self, blocks: &[BlockRef], now: Instant) {
        for block in blocks {
            self.fetch.want(*block);
        }
        self.last_symbol = now;
    }

    /// The version in hand, and reasons against other ones.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Whether it only waits for another version.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting { .. })
    }

    /// Channels joined for blocks.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.fetch.channels()
    }

    /// Blocks that are partly received, or whole and waiting for the shell.
    #[must_use]
    pub fn blocks_held(&self) -> usize {
        self.fetch.blocks_held()
    }

    /// Recent loss, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.fetch.window().loss()
    }

    /// Counters since the first record, or since the last rest.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.fetch.counters()
    }

    /// Datagrams that were not opened.
    #[must_use]
    pub fn unopened(&self) -> OpenDrops {
        self.opener.drops()
    }
}

/// Returns the useful number of channels of the normal rate: the server's bound and the own limit.
fn window_limit(record: &Record, limit: Option<u64>) -> f64 {
    let channels = f64::from(record.max_channels);
    let wanted = limit.map(|l| l as f64 / 1e3 / f64::from(record.channel_rate.max(1)));
    wanted.map_or(channels, |w| w.min(channels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{HashCache, Index};
    use crate::packet::{Symbol, encode_record};
    use crate::tree::{ROOT_SIZE, Stream};
    use librecast::channel::block_channel;
    use librecast::coding::{Encoder, symbols_of};

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Blocks by channel, and their record.
    struct Served {
        record: Record,
        index: Option<Index>,
        _dir: tempfile::TempDir,
    }

    impl Served {
        /// A file with these bytes.
        fn file(server: u32, generation: u64, bytes: &[u8]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("f"), bytes).unwrap();
            let index = Index::build(&dir.path().join("f"), b"", &mut HashCache::default());
            let index = index.unwrap();
            let record = Record {
                root: index.root,
                metadata: index.metadata,
                ..crate::record::tests::record(server, generation)
            };
            Self {
                record,
                index: Some(index),
                _dir: dir,
            }
        }

        /// An invalid root node.
        fn nonsense() -> Self {
            let record = Record {
                root: BlockRef::of(&[7; ROOT_SIZE]),
                metadata: Stream::default(),
                ..crate::record::tests::record(1, 1)
            };
            Self {
                record,
                index: None,
                _dir: tempfile::tempdir().unwrap(),
            }
        }

        fn read(&self, channel: ChannelId) -> Option<Vec<u8>> {
            match &self.index {
                Some(index) => index.read(channel).ok(),
                None => (channel == block_channel(b"", &self.record.root.hash.0, 0))
                    .then(|| vec![7; ROOT_SIZE]),
            }
        }

        fn announce(&self, receiver: &mut Receiver, now: Instant) {
            let datagram = encode_record(&self.record).unwrap();
            receiver.handle_datagram(ROOT_CHANNEL, &datagram, Ipv6Addr::LOCALHOST, 1, now);
        }

        fn send(&self, receiver: &mut Receiver, channel: ChannelId, now: Instant) {
            let Some(block) = self.read(channel) else {
                return;
            };
            let mut encoder = Encoder::new(block.clone()).unwrap();
            for esi in 0..symbols_of(block.len()).unwrap() {
                let mut data = Vec::new();
                encoder.symbol(esi, &mut data).unwrap();
                let symbol = Symbol {
                    server: self.record.server,
                    sequence: esi,
                    channel,
                    block_length: block.len() as u32,
                    esi,
                    data: &data,
                };
                let mut datagram = Vec::new();
                symbol.write_header(&mut datagram);
                datagram.extend_from_slice(&data);
                receiver.handle_datagram(channel, &datagram, Ipv6Addr::LOCALHOST, 1, now);
            }
        }

        /// Sends the joined blocks until none is joined; returns the events about versions.
        fn serve(&self, receiver: &mut Receiver, now: Instant) -> Vec<Event> {
            let mut told = Vec::new();
            while let Some(event) = receiver.poll_event(now) {
                match event {
                    Event::Join(channel) => self.send(receiver, channel, now),
                    Event::Leave(_) | Event::Record { .. } => {}
                    other => told.push(other),
                }
            }
            told
        }

        /// Serves the version from its announcement to its tree; returns the leaves.
        fn serve_tree(&self, receiver: &mut Receiver, now: Instant) -> Vec<BlockRef> {
            self.announce(receiver, now);
            match &self.serve(receiver, now)[..] {
                [Event::Version(record), Event::Tree(version)] => {
                    assert_eq!((&**record, &version.0), (&self.record, &self.record));
                    version.1.leaves.clone()
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn receiver(pinned: Option<BlockHash>, now: Instant) -> Receiver {
        let settings = Settings {
            pinned,
            proof: Proof::None,
            floor: 0,
            opener: Opener::default(),
            limit: None,
            timeout: TIMEOUT,
            own_server: Some(99),
            overlay: None,
        };
        Receiver::new(settings, now)
    }

    /// Its failure, if any.
    fn failure(receiver: &mut Receiver, now: Instant) -> Option<Failure> {
        receiver.handle_timeout(now);
        std::iter::from_fn(|| receiver.poll_event(now)).find_map(|event| match event {
            Event::Failed(failure) => Some(failure),
            _ => None,
        })
    }

    #[test]
    fn a_version_comes_as_a_whole_and_the_next_one_counts_for_itself() {
        let now = Instant::now();
        let mut receiver = receiver(None, now);
        let first = Served::file(1, 1, &[1; 300_000]);
        let leaves = first.serve_tree(&mut receiver, now);
        receiver.fetch(&leaves, &leaves, now);
        let told = first.serve(&mut receiver, now);
        let blocks = told.iter().filter(|e| matches!(e, Event::Block { .. }));
        let different = std::collections::BTreeSet::from_iter(&leaves).len();
        assert_eq!(blocks.count(), different);
        assert!(matches!(told.last(), Some(Event::Fetched)));
        receiver.rest(None);
        assert!(receiver.is_resting());
        assert_eq!(failure(&mut receiver, now + TIMEOUT * 2), None);

        let before = receiver.counters().bytes;
        let own = Served::file(99, 2, b"said by the seed");
        own.announce(&mut receiver, now);
        assert!(receiver.is_resting() && own.serve(&mut receiver, now).is_empty());
        let second = Served::file(1, 2, b"short");
        let leaves = second.serve_tree(&mut receiver, now);
        receiver.fetch(&leaves, &leaves, now);
        second.serve(&mut receiver, now);
        assert!(before > 200_000 && receiver.counters().bytes < 1_000);
    }

    #[test]
    fn a_change_is_said_once_and_not_lost_on_who_has_failed_meanwhile() {
        let now = Instant::now();
        let mut receiver = receiver(None, now);
        let leaves = Served::file(1, 1, b"first").serve_tree(&mut receiver, now);
        receiver.fetch(&leaves, &leaves, now);
        let second = Served::file(1, 2, b"second");
        second.announce(&mut receiver, now);
        let told = std::iter::from_fn(|| receiver.poll_event(now));
        let relevant =
            |e: &Event| !matches!(e, Event::Join(_) | Event::Leave(_) | Event::Record { .. });
        assert!(matches!(
            told.into_iter().find(relevant),
            Some(Event::Changed)
        ));
        // the disk is full, but another version may come
        receiver.rest(None);
        let told = second.serve(&mut receiver, now);
        assert!(
            matches!(&told[..], [Event::Version(_), Event::Tree(_)]),
            "{told:?}"
        );
    }

    #[test]
    fn what_could_not_be_taken_is_tried_again_in_time() {
        let now = Instant::now();
        let mut receiver = receiver(None, now);
        let version = Served::file(1, 1, b"too large");
        version.serve_tree(&mut receiver, now);
        let retry_at = now + TIMEOUT * 2;
        receiver.rest(Some(retry_at));
        assert!(receiver.next_timeout() <= retry_at);
        assert!(version.serve(&mut receiver, now).is_empty());
        version.announce(&mut receiver, retry_at);
        receiver.handle_timeout(retry_at);
        let told = version.serve(&mut receiver, retry_at);
        assert!(
            matches!(&told[..], [Event::Version(_), Event::Tree(_)]),
            "{told:?}"
        );
        // once, without a further retry
        receiver.rest(None);
        receiver.handle_timeout(retry_at + TIMEOUT);
        assert!(receiver.is_resting() && version.serve(&mut receiver, retry_at).is_empty());
    }

    #[test]
    fn what_makes_no_sense_gives_way_to_another_version_and_is_an_error_without_one() {
        let now = Instant::now();
        let mut receiver = receiver(None, now);
        let nonsense = Served::nonsense();
        nonsense.announce(&mut receiver, now);
        let told = nonsense.serve(&mut receiver, now);
        assert!(matches!(&told[..], [Event::Version(_)]), "{told:?}");
        nonsense.announce(&mut receiver, now + VERSION_TIMEOUT / 2);
        assert_eq!(failure(&mut receiver, now + VERSION_TIMEOUT / 2), None);
        let later = now + VERSION_TIMEOUT;
        let why = failure(&mut receiver, later);
        assert!(
            matches!(why, Some(Failure::Tree(BadTree::Root(_)))),
            "{why:?}"
        );
        // a seed with another whole version waits on
        receiver.rest(None);
        Served::file(2, 1, b"sense").serve_tree(&mut receiver, later);
    }

    #[test]
    fn a_tree_whose_root_does_not_come_gives_way_to_another() {
        let now = Instant::now();
        let mut receiver = receiver(None, now);
        let first = Served::file(1, 1, b"nowhere");
        first.announce(&mut receiver, now);
        let other = Served::file(2, 1, b"here");
        while receiver.poll_event(now).is_some() {}
        other.announce(&mut receiver, now);
        assert!(matches!(
            receiver.poll_event(now),
            Some(Event::Conflict { server: 2, .. })
        ));
        // its server is present all the time
        first.announce(&mut receiver, now + VERSION_TIMEOUT / 2);
        let later = now + VERSION_TIMEOUT;
        receiver.handle_timeout(later);
        other.announce(&mut receiver, later);
        let told = other.serve(&mut receiver, later);
        assert!(
            matches!(
                &told[..],
                [Event::Changed, Event::Version(_), Event::Tree(_)]
            ),
            "{told:?}"
        );
    }

    #[test]
    fn it_gives_up_for_the_reason_that_there_is() {
        let now = Instant::now();
        let later = now + TIMEOUT;
        assert_eq!(
            failure(&mut receiver(None, now), later),
            Some(Failure::Silence)
        );

        let served = Served::file(1, 1, b"file");
        let mut other = receiver(Some(BlockHash::of(b"another")), now);
        served.announce(&mut other, later);
        assert_eq!(failure(&mut other, later), Some(Failure::NoVersion));

        let mut receiver = receiver(None, now);
        served.announce(&mut receiver, now);
        assert_eq!(failure(&mut receiver, now), None);
        served.announce(&mut receiver, later);
        receiver.set_room(0, now + TIMEOUT / 2);
        assert_eq!(failure(&mut receiver, later), None, "the disk is slow");
        let last = now + TIMEOUT * 3 / 2;
        served.announce(&mut receiver, last);
        assert_eq!(failure(&mut receiver, last), Some(Failure::NoBlocks));
    }
}
