//! The receiver as a state machine: datagrams in; memberships, the tree of a version and its blocks out.
//!
//! ```text
//! Waiting -> Tree -> Compared -> Blocks -> Compared -> Resting
//!             |                                           |
//!             +-> Nonsense -> Failed                      |
//!   Tree <- the version in hand changes <- any of them <--+
//! ```

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use librecast::channel::{ChannelId, ROOT_CHANNEL};

use super::assembly::{Assembly, BadTree, Next};
use super::choice::{Choice, Decision, Proof};
use super::collector::Source;
use super::fetch::{self, Counters, Fetch};
use super::tree::Tree;
use super::window::Window;
use crate::block::{BlockHash, BlockRef};
use crate::packet::Packet;
use crate::record::Record;
use crate::sealing::{OpenDrops, Opener, ShareKey, group_key};

/// Channels held until loss was judged first.
const START_WINDOW: usize = 16;
/// Channels held before a record says otherwise.
const MAX_WINDOW: usize = 128;
/// A version gives way to any other if its root node and metadata do not come for so long, or make no sense.
const VERSION_TIMEOUT: Duration = Duration::from_secs(3);

/// What is received, and how.
#[derive(Debug)]
pub struct Settings {
    /// No other root hash will do.
    pub pinned: Option<BlockHash>,
    /// What proves that records are genuine.
    pub proof: Proof,
    /// The highest generation of earlier runs.
    pub floor: u64,
    /// What the share is sealed with.
    pub key: Option<Arc<ShareKey>>,
    /// Bits per second to receive.
    pub limit: Option<u64>,
    /// How long nothing may come.
    pub timeout: Duration,
    /// The server that this process itself runs: it says what it was told.
    pub own_server: Option<u32>,
}

/// What the shell is to do, or may want to know.
#[derive(Debug)]
pub enum Event {
    /// Join a channel.
    Join(ChannelId),
    /// Leave a channel.
    Leave(ChannelId),
    /// A record of the version in hand has come.
    Record {
        /// Who sent it.
        server: u32,
        /// Interface it came in by.
        interface: u32,
        /// The highest generation that was proven: this host does not go back behind it. 0 if nothing proves any.
        proven: u64,
    },
    /// Another server has another version under the same name. Said once.
    Conflict {
        /// Who sent it.
        server: u32,
        /// Its root hash.
        root: BlockHash,
    },
    /// This address has sent a record that the trusted key has not signed. Said once.
    Untrusted(Ipv6Addr),
    /// This address has sent a record that is older than what this host has had. Said once.
    RolledBack(Ipv6Addr),
    /// This source sends symbols that do not make the block; it is not listened to for a while.
    CorruptSource(Source),
    /// What was being fetched is no longer what is shared.
    Changed,
    /// This version is fetched from now on.
    Version(Box<Record>),
    /// The tree of the version: [`Receiver::fetch`] takes what DEST does not have of it.
    Tree(Box<(Record, Tree)>),
    /// A block that was to be fetched, verified.
    Block {
        /// Hash and length, which the bytes were checked against.
        block: BlockRef,
        /// At most 256 KiB.
        bytes: Vec<u8>,
    },
    /// All of them have come.
    Fetched,
    /// Nothing more comes of this version.
    Failed(Failure),
}

/// Why nothing more comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Not one datagram, for as long as that may be.
    Silence,
    /// Records come, and none of the version that is wanted.
    NoVersion,
    /// Records come, and none of the blocks.
    NoBlocks,
    /// The tree makes no sense, and nobody has another one; or it is too large.
    Tree(BadTree),
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Tree(Box<Assembly>),
    /// The shell compares the tree with DEST, or puts everything into place.
    Compared,
    Blocks,
    /// Nothing is waited for but another version.
    Resting,
    /// The same, but not for ever.
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
    phase: Phase,
    started: Instant,
    last_packet: Instant,
    last_symbol: Instant,
    /// The version in hand is another than that which is being fetched.
    changed: bool,
    /// Until then the next block of root node or metadata should come.
    due: Option<Instant>,
    events: VecDeque<Event>,
}

impl Receiver {
    /// Nothing has come yet. The shell joins the root channel, for good.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let Settings {
            pinned,
            proof,
            floor,
            key,
            limit,
            timeout,
            own_server,
        } = settings;
        let window = Window::new(START_WINDOW, MAX_WINDOW, now);
        Self {
            choice: Choice::new(pinned, proof, floor, now),
            fetch: Fetch::new(window, limit, now).with_key(group_key(key.as_deref())),
            opener: Opener::new(key),
            limit,
            timeout,
            own_server,
            phase: Phase::Waiting,
            started: now,
            last_packet: now,
            last_symbol: now,
            changed: false,
            due: None,
            events: VecDeque::new(),
        }
    }

    /// A datagram came on a channel of the share, from this address by this interface.
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
                self.events.push_back(Event::Conflict { server, root });
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
        if let Some(followed) = self.choice.record() {
            let limit = window_limit(followed, self.limit);
            self.fetch.set_record(record, limit, now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.fetch.poll_timeout()
    }

    /// Time has passed, and what has come by now was handed over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.fetch.handle_timeout(now);
        if self.due.is_some_and(|due| now >= due) {
            self.choice.mark_unreachable();
        }
        if self.changed {
            return;
        }
        if let Some(failure) = self.overdue(now) {
            self.fail(failure);
        }
    }

    /// What has been waited for too long.
    fn overdue(&self, now: Instant) -> Option<Failure> {
        if matches!(self.phase, Phase::Resting | Phase::Failed) {
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

    /// So many blocks can be taken at once. Without any room it is not the network that is slow.
    pub fn set_room(&mut self, blocks: usize, now: Instant) {
        self.fetch.set_room(blocks);
        if blocks == 0 {
            self.last_symbol = now;
        }
    }

    /// Fetches blocks of the version whose tree was given last.
    pub fn fetch(&mut self, blocks: &[BlockRef], now: Instant) {
        self.phase = Phase::Blocks;
        self.want(blocks, now);
    }

    /// Everything has come, or cannot be taken: waits for another version.
    pub fn rest(&mut self) {
        self.fetch.clear();
        self.due = None;
        self.phase = Phase::Resting;
    }

    /// The next thing to do.
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

    /// Fetches the version in hand from the beginning, once the shell knows that the one before it is over.
    fn start_over(&mut self, now: Instant) -> Option<Event> {
        let record = self.choice.record()?.clone();
        self.fetch.clear();
        match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Tree(_) | Phase::Compared | Phase::Blocks => {
                self.changed = true;
                return Some(Event::Changed);
            }
            Phase::Resting => self.fetch.reset_counters(),
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

    /// Which version is in hand, and why others are not.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Whether nothing is waited for but another version.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting)
    }

    /// Channels that are joined for blocks.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.fetch.channels()
    }

    /// Loss of late, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.fetch.window().loss()
    }

    /// What has come since the first record, or since the last rest.
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

/// Channels of the normal rate that make sense: what the server allows, what this side wants.
fn window_limit(record: &Record, limit: Option<u64>) -> f64 {
    let channels = f64::from(record.max_channels);
    let wanted = limit.map(|l| l as f64 / 1e3 / f64::from(record.channel_rate.max(1)));
    wanted.map_or(channels, |w| w.min(channels))
}
