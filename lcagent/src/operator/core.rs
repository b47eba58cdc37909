//! The operator's state machine for one command: sends and repeats it, assembles and acknowledges
//! the answers, decides when it is over. No sockets, clocks or files.
//!
//! ```text
//! command ──►  ... answers ...  ──► all whole ─────────────► over
//!    ▲             │   │                                      ▲
//!    └─ silent? ◄──┘   └─ acknowledgement, soon               │
//!                                       out of time ──────────┘
//! ```

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use librecast::bucket::TokenBucket;
use librecast::id::{PeerId, SecretKey};
use librecast::wire::WireError;

use super::assembly::Assembly;
use crate::acknowledgement::{
    Acknowledgement, Progress, WholeHash, cut, fitting, short_id, stream_name, whole_hash,
};
use crate::answer::{SEGMENT, Segment};
use crate::datagram::{Kind, StreamId};
use crate::envelope::Signed;
use crate::part;
use crate::record::{NodeInfo, Record};
use crate::sealed::{AnswerKey, OVERHEAD};
use crate::shared_key::{MAX_STREAMS, SharedKey};

/// The reason why the operator drops a segment of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// It cannot be read.
    Malformed,
    /// It belongs to another command.
    OtherJob,
    /// The command was not sealed for that node.
    NotSealedFor,
    /// [`MAX_NODES`] answer already.
    TooManyNodes,
    /// `MAX_AHEAD` bytes wait behind gaps, or for the rest of their record.
    TooMuchAhead,
    /// Its signature does not verify.
    Forged,
    /// It does not open under the command's key.
    NotOpened,
    /// Its node's answer cannot be read.
    Rejected,
    /// [`MAX_STREAMS`] streams came under its key already.
    TooManyStreams,
}

/// The sender of an answer: a key, and one of its streams. Two hosts with a copy of one key have
/// two streams; their segments are never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// Public key of the node.
    pub key: PeerId,
    /// Its stream; none: it is unknown, or an answer of one segment.
    pub stream: Option<StreamId>,
}

impl Sender {
    /// Returns a node with an unknown stream.
    #[must_use]
    pub fn of(key: PeerId) -> Self {
        Self { key, stream: None }
    }
}

/// Most nodes that answer one command.
pub const MAX_NODES: usize = 16_384;
/// Bytes kept behind gaps, over all nodes; above it, unknown nodes cannot begin either.
const MAX_AHEAD: usize = 64 << 20;
/// Bytes of records that wait until hosts with one key are told apart. Chosen: as for gaps.
const MAX_HELD: usize = MAX_AHEAD;
/// Time that an acknowledgement waits for more segments.
const ACK: Duration = Duration::from_millis(200);
/// The same if segments are missing.
const ACK_GAP: Duration = Duration::from_millis(20);
/// First repeat of a command; doubled each time.
const REPEAT: Duration = Duration::from_millis(300);
/// Upper bound of that doubling.
const MAX_REPEAT: Duration = Duration::from_secs(8);
/// Time for answers of unknown nodes besides known ones.
const STRANGERS: Duration = Duration::from_millis(120);
/// Time for answers of unknown nodes if the command waits for them.
const MEETING: Duration = Duration::from_secs(3);
/// Time after the last unknown node's answer until the wait ends.
const QUIET: Duration = Duration::from_millis(700);
/// Time for last records after jobs are ended by the timeout.
const GRACE: Duration = Duration::from_secs(3);
/// Nodes up to which hashes of 16 bits distinguish them.
const MAX_HASHED_NODES: usize = 256;
/// Rate of payload parts, in bits per second.
const PART_RATE: u64 = 100_000_000;
/// Least time between two sendings of one part.
const PART_PAUSE: Duration = Duration::from_millis(100);

/// A node that the operator has met before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNode {
    /// Public key of the node.
    pub id: PeerId,
    /// Name of the node when it last answered.
    pub name: String,
}

/// Parameters of a command.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Selected nodes that are known.
    pub expected: Vec<KnownNode>,
    /// Other known nodes: their names are taken.
    pub others: Vec<KnownNode>,
    /// Whether nodes that are not known are refused.
    pub strict: bool,
    /// Whether the command is for the expected nodes only, so that it does not wait for more.
    pub closed: bool,
    /// Whether to wait long enough for unknown nodes on a network that loses packets.
    pub meeting: bool,
    /// Keys of the answers, if the command is sealed; other nodes cannot answer.
    pub seals: BTreeMap<PeerId, AnswerKey>,
    /// Time for the answers.
    pub timeout: Duration,
    /// Time over which the agents spread their first answers.
    pub spread: Duration,
    /// Segments in flight of each node.
    pub window: u8,
}

/// An action for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this to the channel.
    Channel(Vec<u8>),
    /// An event for the user.
    Event(Event),
}

/// An event for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node has begun to answer.
    Appeared {
        /// Which node.
        id: Sender,
        /// Source of its segments.
        address: Ipv6Addr,
        /// Its own description.
        node: NodeInfo,
        /// Whether it was known.
        known: bool,
    },
    /// The next record of a node's stream.
    Said {
        /// Which node.
        id: Sender,
        /// The next record of its stream.
        record: Record,
    },
    /// A node's answer is rejected.
    Rejected {
        /// Which node.
        id: Sender,
        /// Text for people.
        why: String,
    },
    /// Several hosts answer under one key; repeated with each further one.
    SharedKey {
        /// Their key.
        key: PeerId,
        /// Name of the node.
        name: String,
        /// Their addresses.
        addresses: Vec<Ipv6Addr>,
    },
    /// The progress of all nodes; from the shell.
    Progress(Far),
}

/// The number of nodes by progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Far {
    /// Nodes with a whole answer.
    pub answered: usize,
    /// Nodes with part of an answer.
    pub running: usize,
    /// Nodes without an answer.
    pub silent: usize,
}

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            running,
            silent,
        } = self;
        write!(f, "{answered} answered, {running} running, {silent} silent")
    }
}

/// A node and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFate {
    /// Its key, and its stream.
    pub id: Sender,
    /// Its name; else its key.
    pub name: String,
    /// Its result.
    pub fate: Fate,
}

/// The result of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It has answered; the last record.
    Answered(Record),
    /// It has begun to answer, but not finished.
    Unfinished,
    /// It has not answered.
    Silent,
}

/// A running command.
#[derive(Debug)]
pub struct Operator {
    key: SecretKey,
    signed: Signed,
    settings: Settings,
    nodes: BTreeMap<Sender, Node>,
    /// The keys of known and answering nodes by name.
    names: BTreeMap<String, PeerId>,
    known: BTreeSet<PeerId>,
    outputs: VecDeque<Output>,
    /// Records that wait: see [`say`](Self::say).
    held: VecDeque<(Sender, Record)>,
    /// Bytes in `held`.
    held_bytes: usize,
    begun: Instant,
    last_stranger: Instant,
    repeat: Option<(Instant, u32)>,
    ack_at: Option<Instant>,
    gap_at: Option<Instant>,
    unacknowledged: usize,
    counter: u32,
    whole: BTreeSet<Sender>,
    moved: BTreeSet<Sender>,
    parts: PartQueue,
    /// Something had to be repeated: this network loses packets.
    lossy: bool,
    counters: BTreeMap<Dropped, u64>,
}

#[derive(Debug)]
struct Node {
    /// Source of its first segment.
    address: Ipv6Addr,
    assembly: Assembly,
    name: Option<String>,
    last: Option<Record>,
    rejected: bool,
}

impl Node {
    fn at(address: Ipv6Addr) -> Self {
        Self {
            address,
            assembly: Assembly::default(),
            name: None,
            last: None,
            rejected: false,
        }
    }
}

/// Hashes of finished nodes, for an acknowledgement.
struct Hashes {
    counter: u32,
    short: bool,
    whole: Vec<WholeHash>,
}

#[derive(Debug)]
struct PartQueue {
    waiting: BTreeSet<u16>,
    sent: Vec<Option<Instant>>,
    bucket: TokenBucket,
}

impl Operator {
    /// Begins a command.
    #[must_use]
    pub fn new(key: SecretKey, signed: Signed, settings: Settings, now: Instant) -> Self {
        // at most 4,096
        let parts = PartQueue {
            waiting: (0..signed.parts.len() as u16).collect(),
            sent: vec![None; signed.parts.len()],
            bucket: TokenBucket::new(PART_RATE, 64 * 1024, now),
        };
        let all = settings.expected.iter().chain(&settings.others);
        let mut operator = Self {
            key,
            names: all.clone().map(|k| (k.name.clone(), k.id)).collect(),
            known: all.map(|k| k.id).collect(),
            nodes: BTreeMap::new(),
            outputs: VecDeque::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            begun: now,
            last_stranger: now,
            repeat: Some((now + REPEAT + settings.spread, 0)),
            ack_at: None,
            gap_at: None,
            unacknowledged: 0,
            counter: 0,
            whole: BTreeSet::new(),
            moved: BTreeSet::new(),
            parts,
            lossy: false,
            counters: BTreeMap::new(),
            signed,
            settings,
        };
        operator.send_command();
        operator
    }

    /// Returns the number of drops by reason.
    #[must_use]
    pub fn counters(&self) -> &BTreeMap<Dropped, u64> {
        &self.counters
    }

    /// Handles a datagram for the operator's answer group.
    pub fn handle_datagram(&mut self, datagram: &[u8], source: Ipv6Addr, now: Instant) {
        let handled = Kind::read(datagram).and_then(|(kind, r)| match kind {
            Kind::Answer | Kind::SealedAnswer | Kind::StreamAnswer => {
                let segment = Segment::decode(datagram, kind, r)?;
                self.handle_segment(&segment, source, now);
                Ok(())
            }
            Kind::Missing => {
                let mut r = r;
                let asked = part::asked(&mut r, self.signed.job)?;
                self.send_again(&asked, now);
                Ok(())
            }
            _ => Err(WireError::Bad("kind")),
        });
        if handled.is_err() {
            self.count(Dropped::Malformed);
        }
    }

    /// Does work that is due: see [`next_timeout`](Self::next_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((at, times)) = self.repeat
            && at <= now
        {
            self.repeat_command(now, times);
        }
        while self.parts.bucket.ready(now) {
            let Some(index) = self.parts.waiting.pop_first() else {
                break;
            };
            let datagram = self.signed.parts[usize::from(index)].clone();
            self.parts.bucket.spend(datagram.len() as u64, now);
            self.parts.sent[usize::from(index)] = Some(now);
            self.outputs.push_back(Output::Channel(datagram));
        }
        if self.gap_at.is_some_and(|at| at <= now) {
            self.gap_at = None;
            // reordered packets close their gaps by themselves
            if self.ahead_bytes() > 0 {
                self.lossy = true;
                self.acknowledge();
            }
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.acknowledge();
        }
        if now >= self.told_apart_at() {
            self.release(|_| true);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) has work, or the command may be over.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        let parts = (!self.parts.waiting.is_empty()).then(|| self.parts.bucket.ready_at());
        let repeat = self.repeat.map(|(at, _)| at);
        let held = (!self.held.is_empty()).then(|| self.told_apart_at());
        let times = [self.ack_at, self.gap_at, parts, repeat, held];
        let next = times.into_iter().flatten().min();
        let over = self.over_at();
        next.map_or(over, |at| at.min(over))
    }

    /// Returns the next action; none if nothing is due.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns whether the command is over.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.over_at()
    }

    /// Sends the last acknowledgements and passes on all records, once the command is over.
    pub fn finish(&mut self) {
        self.release(|_| true);
        if !self.whole.is_empty() || !self.moved.is_empty() {
            self.acknowledge();
        }
        if self.lossy {
            // the last acknowledgement may be lost too, and is not repeated later
            self.whole = self.done().map(|(id, _)| *id).collect();
            self.acknowledge();
        }
        let keys: BTreeSet<PeerId> = self.nodes.keys().map(|id| id.key).collect();
        for key in keys {
            self.tell_of_shared_key(&key);
        }
    }

    /// Returns the results of all answering and expected nodes.
    #[must_use]
    pub fn fates(&self) -> Vec<NodeFate> {
        let mut fates = Vec::new();
        for (id, node) in self.nodes.iter().filter(|(_, n)| !n.rejected) {
            let fate = match &node.last {
                Some(Record::NotSelected) => continue,
                Some(last) => Fate::Answered(last.clone()),
                None => Fate::Unfinished,
            };
            let name = node.name.clone().unwrap_or_else(|| id.key.to_string());
            fates.push(NodeFate {
                id: *id,
                name,
                fate,
            });
        }
        for known in self.silent() {
            fates.push(NodeFate {
                id: Sender::of(known.id),
                name: known.name.clone(),
                fate: Fate::Silent,
            });
        }
        fates.sort_by(|a, b| a.name.cmp(&b.name));
        fates
    }

    /// Returns the progress of all nodes.
    #[must_use]
    pub fn progress(&self) -> Far {
        let (silent, running) = self.open();
        Far {
            answered: self.done().count(),
            running,
            silent,
        }
    }

    /// Returns the numbers of unfinished nodes: expected and silent ones, and running ones.
    #[must_use]
    pub fn open(&self) -> (usize, usize) {
        let answering = self.nodes.values().filter(|n| !n.rejected);
        let running = answering.filter(|n| n.last.is_none()).count();
        (self.silent().count(), running)
    }

    fn silent(&self) -> impl Iterator<Item = &KnownNode> {
        let is_silent = |k: &&KnownNode| self.senders_of(&k.id).next().is_none();
        self.settings.expected.iter().filter(is_silent)
    }

    /// Returns the streams under a key.
    fn senders_of(&self, key: &PeerId) -> impl Iterator<Item = (&Sender, &Node)> {
        let key = *key;
        let from = self.nodes.range(Sender::of(key)..);
        from.take_while(move |(id, _)| id.key == key)
    }

    /// Returns the streams and addresses of several hosts with one key; none for a single host.
    #[must_use]
    pub fn sharing(&self, key: &PeerId) -> Vec<(StreamId, Ipv6Addr)> {
        let named = self
            .senders_of(key)
            .filter_map(|(id, node)| Some((id.stream?, node.address)));
        let streams: Vec<_> = named.collect();
        if streams.len() > 1 {
            streams
        } else {
            Vec::new()
        }
    }

    fn tell_of_shared_key(&mut self, key: &PeerId) {
        let streams = self.sharing(key);
        if !streams.is_empty() {
            let shared = SharedKey {
                job: self.signed.job,
                agent: *key,
                streams,
            };
            self.outputs
                .push_back(Output::Channel(shared.sign(&self.key)));
        }
    }

    fn done(&self) -> impl Iterator<Item = (&Sender, &Node)> {
        self.nodes.iter().filter(|(_, n)| n.last.is_some())
    }

    fn over_at(&self) -> Instant {
        let (silent, running) = self.open();
        let end = self.begun + self.settings.timeout;
        if running > 0 {
            return end + GRACE;
        }
        if silent > 0 {
            return end;
        }
        if self.settings.closed {
            return self.begun;
        }
        let strangers = self.last_stranger + QUIET;
        let spread = self.settings.spread;
        let meeting = self.settings.meeting;
        let settled = if !meeting && !self.settings.expected.is_empty() {
            let at = self.begun + STRANGERS + spread;
            // an unknown node answered: more may follow
            if self.last_stranger > self.begun {
                at.max(strangers)
            } else {
                at
            }
        } else {
            (self.begun + MEETING + spread).max(strangers)
        };
        settled.min(end)
    }

    fn send_command(&mut self) {
        let envelope = self.signed.envelope.clone();
        self.outputs.push_back(Output::Channel(envelope));
    }

    fn repeat_command(&mut self, now: Instant, times: u32) {
        let silent: Vec<PeerId> = self.silent().map(|k| k.id).collect();
        let meeting = self.settings.meeting && times < 2;
        let nobody = self.settings.expected.is_empty() && self.nodes.is_empty();
        let over = now >= self.begun + self.settings.timeout;
        if over || (silent.is_empty() && !meeting && !nobody) {
            self.repeat = None;
            return;
        }
        self.lossy |= !silent.is_empty();
        self.send_command();
        if times > 0 {
            // a node that the command does not select answers so when asked
            let ask = |id: &PeerId| Assembly::default().progress(short_id(id));
            self.send_acknowledgements(Vec::new(), silent.iter().map(ask).collect());
        }
        let pause = (REPEAT * 2_u32.pow(times.min(8) + 1)).min(MAX_REPEAT);
        self.repeat = Some((now + pause, times + 1));
    }

    fn send_again(&mut self, ranges: &[(u16, u16)], now: Instant) {
        let count = self.parts.sent.len() as u16;
        for index in ranges.iter().flat_map(|(from, to)| *from..(*to).min(count)) {
            let lately = self.parts.sent[usize::from(index)]
                .is_none_or(|at| now.saturating_duration_since(at) < PART_PAUSE);
            if !lately {
                self.lossy = true;
                self.parts.waiting.insert(index);
            }
        }
    }

    fn handle_segment(&mut self, segment: &Segment<'_>, source: Ipv6Addr, now: Instant) {
        if segment.job != self.signed.job {
            return self.count(Dropped::OtherJob);
        }
        let id = Sender {
            key: segment.agent,
            stream: segment.stream,
        };
        let seals = &self.settings.seals;
        if !seals.is_empty() && !seals.contains_key(&id.key) {
            return self.count(Dropped::NotSealedFor);
        }
        let length = segment.content.len() - if segment.sealed { OVERHEAD } else { 0 };
        match self.nodes.get(&id) {
            Some(node) if node.rejected => return,
            Some(node) if node.last.is_some() => {
                // it lacks our acknowledgement
                self.lossy = true;
                self.whole.insert(id);
                self.acknowledge_by(now + ACK);
                return;
            }
            Some(node) if !node.assembly.wants(segment.offset, length) => {
                self.lossy = true;
                self.moved.insert(id);
                self.acknowledge_by(now + ACK);
                return;
            }
            Some(_) => {}
            None if self.senders_of(&id.key).count() >= MAX_STREAMS => {
                return self.count(Dropped::TooManyStreams);
            }
            None if self.nodes.len() >= MAX_NODES && !self.known.contains(&id.key) => {
                return self.count(Dropped::TooManyNodes);
            }
            None => {}
        }
        // keys cost nothing: for unknown ones, unfinished records count too
        let kept: usize = if !self.known.contains(&id.key) {
            self.nodes.values().map(|n| n.assembly.kept_bytes()).sum()
        } else if segment.offset > 0 {
            self.ahead_bytes()
        } else {
            0
        };
        if kept > MAX_AHEAD {
            return self.count(Dropped::TooMuchAhead);
        }
        if !segment.verify() {
            return self.count(Dropped::Forged);
        }
        let opened;
        let content = if segment.sealed {
            let key = self.settings.seals.get(&id.key);
            let content = key.and_then(|k| k.open(segment.job, segment.offset, segment.content));
            let Some(content) = content else {
                return self.count(Dropped::NotOpened);
            };
            opened = content;
            opened.as_slice()
        } else {
            segment.content
        };
        if let Entry::Vacant(entry) = self.nodes.entry(id) {
            entry.insert(Node::at(source));
            self.note_stream(&id.key);
        }
        self.take(id, segment.offset, content, now);
    }

    /// Reports several hosts with one key, once a second stream begins under it.
    fn note_stream(&mut self, key: &PeerId) {
        let streams = self.sharing(key);
        if streams.is_empty() {
            return;
        }
        let mut names = self.names.iter().filter(|(_, of)| *of == key);
        let name = names
            .next()
            .map_or_else(|| key.to_string(), |(name, _)| name.clone());
        self.outputs.push_back(Output::Event(Event::SharedKey {
            key: *key,
            name,
            addresses: streams.iter().map(|(_, address)| *address).collect(),
        }));
        self.tell_of_shared_key(key);
        self.release(|id| id.key == *key);
    }

    fn take(&mut self, id: Sender, offset: u32, content: &[u8], now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let taken = node.assembly.take(offset, content);
        let gap = node.assembly.ahead_bytes() > 0;
        match taken {
            Ok(records) => {
                for record in records {
                    self.hear(id, record, now);
                }
            }
            Err(e) => self.reject(id, format!("it answers what is no answer: {e}")),
        }
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        if node.rejected {
            return;
        }
        if node.last.is_some() {
            self.whole.insert(id);
            self.moved.remove(&id);
        } else {
            self.moved.insert(id);
            self.unacknowledged += 1;
        }
        // half of the segments in flight: no agent has to wait
        let enough = usize::from(self.settings.window) * self.moved.len().max(1) / 2;
        if self.unacknowledged >= enough.max(2) {
            self.acknowledge_by(now);
        } else {
            self.acknowledge_by(now + ACK);
            if gap {
                self.gap_at.get_or_insert(now + ACK_GAP);
            }
        }
    }

    fn hear(&mut self, id: Sender, record: Record, now: Instant) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if node.rejected {
            return;
        }
        if let Record::Node(info) = record {
            if node.name.is_none() {
                self.meet(id, info, now);
            }
            return;
        }
        if node.name.is_none() {
            self.reject(id, "it does not say who it is".into());
            return;
        }
        if record.is_last() {
            node.last = Some(record.clone());
        }
        self.say(id, record, now);
    }

    /// Passes on a record. The first ones wait for another host with the same key: the user sees
    /// each line under its host.
    fn say(&mut self, id: Sender, record: Record, now: Instant) {
        if now >= self.told_apart_at() || self.held_bytes > MAX_HELD {
            self.release(|_| true);
        } else if self.sharing(&id.key).is_empty() {
            self.held_bytes += weight(&record);
            self.held.push_back((id, record));
            return;
        }
        self.outputs
            .push_back(Output::Event(Event::Said { id, record }));
    }

    /// Returns when all hosts with one key have begun to answer, unless packets were lost.
    fn told_apart_at(&self) -> Instant {
        self.begun + STRANGERS + self.settings.spread
    }

    /// Passes on the waiting records of these senders.
    fn release(&mut self, is_due: impl Fn(&Sender) -> bool) {
        for (id, record) in std::mem::take(&mut self.held) {
            if is_due(&id) {
                self.held_bytes -= weight(&record);
                self.outputs
                    .push_back(Output::Event(Event::Said { id, record }));
            } else {
                self.held.push_back((id, record));
            }
        }
    }

    /// Takes a node's description. The first key seen under a name keeps it.
    fn meet(&mut self, id: Sender, node: NodeInfo, now: Instant) {
        let known = self.known.contains(&id.key);
        match self.names.get(&node.name) {
            Some(owner) if *owner != id.key => {
                let why = format!(
                    "it calls itself {:?}, but that is the name of {owner}; if the node has a new key, \
                     forget the old one in known_agents",
                    node.name
                );
                return self.reject(id, why);
            }
            None if !known && self.settings.strict => {
                return self.reject(id, format!("{:?} is not known (--strict)", node.name));
            }
            _ => {}
        }
        if !known {
            self.last_stranger = now;
        }
        // met a moment ago, under another stream
        let known = known || self.senders_of(&id.key).any(|(_, n)| n.name.is_some());
        self.names.insert(node.name.clone(), id.key);
        let Some(state) = self.nodes.get_mut(&id) else {
            return;
        };
        state.name = Some(node.name.clone());
        let address = state.address;
        self.outputs.push_back(Output::Event(Event::Appeared {
            id,
            address,
            node,
            known,
        }));
    }

    fn reject(&mut self, id: Sender, why: String) {
        self.count(Dropped::Rejected);
        if self.known.contains(&id.key) {
            // a known node without an answer is reported anyway
            tracing::debug!("{}: {why}", id.key);
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            *node = Node {
                rejected: true,
                ..Node::at(node.address)
            };
        }
        self.moved.remove(&id);
        self.outputs
            .push_back(Output::Event(Event::Rejected { id, why }));
    }

    fn acknowledge_by(&mut self, at: Instant) {
        self.ack_at = Some(self.ack_at.map_or(at, |before| before.min(at)));
    }

    fn acknowledge(&mut self) {
        self.ack_at = None;
        self.unacknowledged = 0;
        let whole = std::mem::take(&mut self.whole);
        // a hash stands for a key: of a key with several streams, each is named
        let (whole, named): (Vec<Sender>, Vec<Sender>) = whole
            .into_iter()
            .partition(|id| self.senders_of(&id.key).count() == 1);
        let whole = whole.into_iter().map(|id| id.key).collect();
        let moved = std::mem::take(&mut self.moved);
        let progress = named.iter().chain(&moved).filter_map(|id| {
            let node = self.nodes.get(id)?;
            Some(node.assembly.progress(stream_name(&id.key, id.stream)))
        });
        let progress = progress.collect();
        self.send_acknowledgements(whole, progress);
    }

    fn send_acknowledgements(&mut self, mut whole: Vec<PeerId>, mut nodes: Vec<Progress>) {
        while !whole.is_empty() || !nodes.is_empty() {
            let (w, n) = fitting(whole.len(), &nodes);
            let hashes = self.hashes(&whole[..w]);
            self.counter = hashes.counter;
            let acknowledgement = Acknowledgement {
                job: self.signed.job,
                counter: hashes.counter,
                window: self.settings.window,
                short: hashes.short,
                whole: hashes.whole,
                nodes: nodes.drain(..n).collect(),
            };
            whole.drain(..w);
            let datagram = acknowledgement.sign(&self.key);
            self.outputs.push_back(Output::Channel(datagram));
        }
    }

    /// Returns a counter without equal hashes of finished and unfinished nodes, and the hashes.
    fn hashes(&self, whole: &[PeerId]) -> Hashes {
        let job = self.signed.job;
        let done = |id: &PeerId| {
            let mut senders = self.senders_of(id).peekable();
            senders.peek().is_some() && senders.all(|(_, n)| n.last.is_some())
        };
        let expected = self.settings.expected.iter().map(|k| k.id);
        let others: BTreeSet<PeerId> = expected
            .chain(self.nodes.keys().map(|id| id.key))
            .filter(|id| !done(id))
            .collect();
        // without known nodes, a short hash could match a node that is not known
        let few = whole.len() + others.len() <= MAX_HASHED_NODES;
        let short = few && !self.settings.expected.is_empty();
        let mut counter = self.counter;
        loop {
            counter = counter.saturating_add(1);
            let hashes: Vec<_> = whole
                .iter()
                .map(|id| cut(whole_hash(job, counter, id), short))
                .collect();
            let taken: BTreeSet<WholeHash> = hashes.iter().copied().collect();
            let clash = others
                .iter()
                .any(|id| taken.contains(&cut(whole_hash(job, counter, id), short)));
            // with a thousand nodes one counter in a thousand clashes
            if !clash || counter == u32::MAX {
                return Hashes {
                    counter,
                    short,
                    whole: hashes,
                };
            }
        }
    }

    fn ahead_bytes(&self) -> usize {
        self.nodes.values().map(|n| n.assembly.ahead_bytes()).sum()
    }

    fn count(&mut self, reason: Dropped) {
        *self.counters.entry(reason).or_default() += 1;
    }
}

/// Returns the bytes that a waiting record takes, about.
fn weight(record: &Record) -> usize {
    let output = match record {
        Record::Stdout(bytes) | Record::Stderr(bytes) => bytes.len(),
        _ => 0,
    };
    size_of::<(Sender, Record)>() + output
}

/// Returns (spread, window) for a command with `nodes` answers. A segment costs the operator some
/// 60 µs, and all segments in flight have to fit his socket's buffer.
#[must_use]
pub fn pace(nodes: usize) -> (Duration, u8) {
    let spread = Duration::from_micros(500 * nodes.min(4_096) as u64);
    let buffer = 8 << 20;
    let window = (buffer / (SEGMENT * nodes.max(1))).clamp(2, 64);
    // at most 64
    (spread, window as u8)
}
