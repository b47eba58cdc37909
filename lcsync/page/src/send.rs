//! The sender in a page: chosen files are cut, then served as `lcsync send` does.
//!
//! ```text
//!   files ── slices ──► Cutting ──► Sent, a signed version ──► Server ──► records, symbols, queries
//!     ▲                                  a block's bytes ───────┘ │            beacons, each second
//!     └──────────── reads, as the page has them ◄─────────────────┘
//! ```
//! A slice that cannot be read, or is another one than was announced, is never sent: a new version
//! lacks the file, or has it as it is now.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;

use lcroute_web_page::{Command, Datagram};
use lcsync::block::{BlockHash, BlockRef};
use lcsync::packet::Symbol;
use lcsync::record::Version;
use lcsync::sent_line::SentLine;
use lcsync::server::channel::{Channel, Rates};
use lcsync::server::core::{Output, Server, Share};
use lcsync::signature::sign;
use librecast::channel::{LCSYNC_PORT, SharePrefix, channel_of};
use librecast::code::beacon::{BEACON_INTERVAL, BEACON_PORT, Beacon, Offer, ReceivedBeacons};
use librecast::coding::Encoder;
use librecast::mld;
use librecast::time::{Duration, Instant, UnixTime};
use serde::{Deserialize, Serialize};

use crate::cutting::{Chosen, Cutting, Known, Sent, Slice};
use crate::get::SHARE;
use crate::words::Keys;

/// Most files that are chosen. Chosen: more are a folder, which a host sends.
const MAX_FILES: usize = 1_000;
/// Number of the page's only interface.
const INTERFACE: u32 = 1;
/// Source of queries: above a router's address, so that this server is not the querier.
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xffff, 0xffff, 0xffff, 0xfffe);
/// Bits a second of a channel. Chosen: half of a host's, as browsers send a packet a call.
const RATES: Rates = Rates {
    stretch: None,
    channel: 8_000_000,
    slow: 800_000,
    total: None,
};
/// Blocks with their encoders. Chosen: 30 MB with repair symbols, and more than are sent at once.
const CACHED: usize = 48;
/// Blocks that are read from files at a time. Chosen: they hide the time of a read.
const MAX_READS: usize = 16;
/// Symbols that wait for reads. Chosen: 4 MB, on which no turn waits long.
const MAX_WAITING: usize = 4_096;
/// Pause while links or reads have no room. Chosen: a link of 100 Mbit/s sends 50 kB meanwhile.
const FULL: Duration = Duration::from_millis(4);
/// Least bytes of links' room with which symbols are sent: a turn's.
const LEAST_ROOM: usize = 64 << 10;

/// Parameters of a start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Name of the sender, for receivers.
    pub from: String,
    /// The files.
    pub files: Vec<Chosen>,
    /// Random: the server's number.
    pub server: u32,
    /// Random: order of symbols.
    pub seed: u32,
}

/// A read that the page makes: the slices' bytes one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Read {
    /// Its number.
    pub id: u32,
    /// The slices.
    pub slices: Vec<Slice>,
}

/// Symbols of a channel: the sequence number of the first, and their ids.
type Symbols = (Channel, u32, Vec<u32>);

/// Why a read was asked for.
#[derive(Debug)]
enum Purpose {
    Cut,
    Block(BlockRef),
}

/// The chosen files, and the version of them that is being made.
#[derive(Debug)]
struct Choice {
    files: Vec<Chosen>,
    /// Files that the page cannot read any more.
    lost: BTreeSet<usize>,
    known: Known,
    cutting: Option<Cutting>,
}

/// Reads that the page makes.
#[derive(Debug, Default)]
struct Reads {
    next: u32,
    queue: VecDeque<Read>,
    asked: HashMap<u32, (Purpose, Vec<Slice>)>,
}

impl Reads {
    fn ask(&mut self, purpose: Purpose, slices: Vec<Slice>) {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let read = Read {
            id,
            slices: slices.clone(),
        };
        self.asked.insert(id, (purpose, slices));
        self.queue.push_back(read);
    }

    /// Answers of the last version's files do not count any more.
    fn forget_cuts(&mut self) {
        let asked = &mut self.asked;
        asked.retain(|_, (purpose, _)| !matches!(purpose, Purpose::Cut));
        self.queue.retain(|read| asked.contains_key(&read.id));
    }
}

/// Blocks that are sent.
#[derive(Debug, Default)]
struct Blocks {
    /// Encoders with the number of their last use.
    encoders: HashMap<BlockHash, (u64, Encoder)>,
    uses: u64,
    /// Symbols of blocks that are being read.
    waiting: HashMap<BlockHash, Vec<Symbols>>,
    waiting_symbols: usize,
}

impl Blocks {
    fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_READS || self.waiting_symbols >= MAX_WAITING
    }

    /// Keeps symbols until their block is read; returns whether they are the first of it.
    fn wait(&mut self, hash: BlockHash, symbols: Symbols) -> bool {
        self.waiting_symbols += symbols.2.len();
        let waiting = self.waiting.entry(hash).or_default();
        waiting.push(symbols);
        waiting.len() == 1
    }

    fn take_waiting(&mut self, hash: BlockHash) -> Vec<Symbols> {
        let waiting = self.waiting.remove(&hash).unwrap_or_default();
        let symbols: usize = waiting.iter().map(|(_, _, ids)| ids.len()).sum();
        self.waiting_symbols = self.waiting_symbols.saturating_sub(symbols);
        waiting
    }

    /// Keeps a block's encoder; it takes the place of the one that was used least recently.
    fn keep(&mut self, block: BlockRef, bytes: Vec<u8>) {
        if self.encoders.len() >= CACHED
            && let Some(oldest) = self
                .encoders
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(hash, _)| *hash)
        {
            self.encoders.remove(&oldest);
        }
        self.uses += 1;
        if let Ok(encoder) = Encoder::new(bytes) {
            self.encoders.insert(block.hash, (self.uses, encoder));
        }
    }

    fn encoder(&mut self, hash: BlockHash) -> Option<&mut Encoder> {
        self.uses += 1;
        let (used, encoder) = self.encoders.get_mut(&hash)?;
        *used = self.uses;
        Some(encoder)
    }
}

/// The offer under the words.
#[derive(Debug)]
struct Beacons {
    from: String,
    /// When the next one is due.
    at: Instant,
    /// Of others.
    heard: ReceivedBeacons,
}

/// Commands and queries for the member.
#[derive(Debug, Default)]
struct Outgoing {
    commands: VecDeque<Command>,
    /// Packets with queries of MLD.
    queries: VecDeque<Vec<u8>>,
    /// Bytes for which links have room.
    room: usize,
    /// Bytes of symbols, without headers.
    sent: u64,
}

impl Outgoing {
    fn send(&mut self, group: Ipv6Addr, port: u16, data: Vec<u8>) {
        self.room = self.room.saturating_sub(data.len());
        self.commands.push_back(Command::Send { group, port, data });
    }
}

/// The sender.
#[derive(Debug)]
pub struct PageSend {
    keys: Keys,
    choice: Choice,
    server: Server<Sent>,
    id: u32,
    published: Option<Arc<Sent>>,
    generation: u64,
    blocks: Blocks,
    reads: Reads,
    outgoing: Outgoing,
    beacons: Beacons,
    problem: Option<String>,
    now: Instant,
    unix: UnixTime,
}

/// The state, for the page.
#[derive(Debug, Serialize)]
struct Status<'a> {
    /// Whether a version can be received.
    published: bool,
    /// Bytes of files that are read, of `bytes`.
    read: u64,
    bytes: u64,
    /// Whether somebody receives at present.
    receives: bool,
    /// Bytes sent, without headers.
    sent: u64,
    /// Numbers of files that cannot be read any more.
    lost: &'a BTreeSet<usize>,
    /// Somebody else who sends under these words.
    other: Option<&'a str>,
    problem: Option<&'a str>,
}

impl PageSend {
    /// Begins to read the files.
    ///
    /// # Errors
    /// An explanation for users.
    pub fn new(start: Start, keys: Keys, now: Instant, unix: UnixTime) -> Result<Self, String> {
        check(&start)?;
        let beacons = keys.beacons;
        let mut server = Server::new(start.server, RATES, start.seed.into(), now);
        server.set_interfaces(&[(INTERFACE, ADDRESS)].into(), now);
        let cutting = Cutting::new(&start.files, &BTreeSet::new())?;
        let mut send = Self {
            keys,
            choice: Choice {
                files: start.files,
                lost: BTreeSet::new(),
                known: Known::new(),
                cutting: Some(cutting),
            },
            server,
            id: start.server,
            published: None,
            generation: 0,
            blocks: Blocks::default(),
            reads: Reads::default(),
            outgoing: Outgoing {
                commands: VecDeque::from([Command::Join(beacons)]),
                ..Outgoing::default()
            },
            beacons: Beacons {
                from: start.from,
                at: now,
                heard: ReceivedBeacons::default(),
            },
            problem: None,
            now,
            unix,
        };
        send.go_on_cutting();
        Ok(send)
    }

    /// Returns the next read for the page.
    pub fn poll_read(&mut self) -> Option<Read> {
        self.reads.queue.pop_front()
    }

    /// Asks for the next slices, or publishes the version.
    fn go_on_cutting(&mut self) {
        let Some(cutting) = &mut self.choice.cutting else {
            return;
        };
        if let Some(slices) = cutting.next_read(&self.choice.known) {
            self.reads.ask(Purpose::Cut, slices);
            return;
        }
        let cut = self
            .choice
            .cutting
            .take()
            .map(|cutting| cutting.finish(&self.choice.known));
        match cut {
            Some(Ok(sent)) => self.publish(sent),
            Some(Err(why)) => self.problem = Some(why),
            None => {}
        }
    }

    fn publish(&mut self, sent: Sent) {
        self.generation = self.unix.as_millis().max(self.generation + 1);
        let version = Version {
            generation: self.generation,
            root: sent.root,
            metadata: sent.metadata,
        };
        let index = Arc::new(sent);
        let share = Share {
            authentication: sign(&self.keys.signer, SHARE, &version),
            ..Share::unsigned(Arc::clone(&index), self.generation)
        };
        let prefix = SharePrefix::of_name(b"", SHARE);
        self.server.set_share(prefix, share, self.now);
        self.published = Some(index);
        self.beacons.at = self.now;
    }

    /// Handles the bytes of a read.
    pub fn handle_bytes(&mut self, id: u32, bytes: &[u8], now: Instant) {
        self.now = now;
        let Some((purpose, slices)) = self.reads.asked.remove(&id) else {
            return;
        };
        let is_whole = slices.iter().map(|s| s.length).sum::<usize>() == bytes.len();
        match purpose {
            Purpose::Cut if is_whole => {
                if let Some(cutting) = &mut self.choice.cutting {
                    cutting.take(bytes, &mut self.choice.known);
                }
                self.go_on_cutting();
            }
            Purpose::Block(block) if is_whole && BlockRef::of(bytes) == block => {
                self.blocks.keep(block, bytes.to_vec());
                for (channel, sequence, ids) in self.blocks.take_waiting(block.hash) {
                    self.send_symbols(channel, sequence, &ids);
                }
            }
            Purpose::Block(block) => {
                self.drop_block(block);
                let before = self.choice.known.len();
                let of_slices = |file: &usize| slices.iter().any(|s| s.file == *file);
                self.choice
                    .known
                    .retain(|files, _| !files.iter().any(of_slices));
                // else it is being cut already
                if self.choice.known.len() < before {
                    self.cut_anew();
                }
            }
            // a file that became shorter
            Purpose::Cut => slices.iter().take(1).for_each(|s| self.lose(s.file)),
        }
    }

    /// Handles a file that the page cannot read any more, and the read that has failed.
    pub fn handle_lost(&mut self, id: u32, file: usize, now: Instant) {
        self.now = now;
        let Some((purpose, _)) = self.reads.asked.remove(&id) else {
            return;
        };
        if let Purpose::Block(block) = purpose {
            self.drop_block(block);
        }
        self.lose(file);
    }

    fn lose(&mut self, file: usize) {
        if file < self.choice.files.len() && self.choice.lost.insert(file) {
            self.choice.known.retain(|files, _| !files.contains(&file));
            self.cut_anew();
        }
    }

    /// Makes a new version of the files as they are now. Only changed parts are read.
    fn cut_anew(&mut self) {
        self.reads.forget_cuts();
        match Cutting::new(&self.choice.files, &self.choice.lost) {
            Ok(cutting) => {
                self.choice.cutting = Some(cutting);
                self.go_on_cutting();
            }
            Err(why) => self.problem = Some(why),
        }
    }

    /// Stops channels of a block that files do not have any more.
    fn drop_block(&mut self, block: BlockRef) {
        for (channel, ..) in self.blocks.take_waiting(block.hash) {
            self.server.handle_block_gone(channel, self.now);
        }
    }

    /// Handles a packet of MLD from the member.
    pub fn handle_mld(&mut self, packet: &[u8], now: Instant) {
        self.now = now;
        // others, such as those of IPv4, are for nobody here
        if let Ok((source, message)) = mld::parse_packet(packet) {
            self.server.handle_message(INTERFACE, source, message, now);
        }
    }

    /// Handles a datagram of the member: a beacon.
    pub fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant) {
        if datagram.group != self.keys.beacons || datagram.port != BEACON_PORT {
            return;
        }
        let line = self.line();
        let is_own = Beacon::decode(datagram.data).is_ok_and(|beacon| beacon.line == line);
        if !is_own {
            self.beacons
                .heard
                .handle(datagram.source, datagram.data, now);
        }
    }

    fn line(&self) -> String {
        let line = SentLine {
            signer: self.keys.signer.peer_id(),
            is_text: false,
        };
        line.to_string()
    }

    /// Handles the passing of time; `room`: bytes for which links have room.
    pub fn handle_timeout(&mut self, room: usize, now: Instant, unix: UnixTime) {
        (self.now, self.unix, self.outgoing.room) = (now, unix, room);
        if self.beacons.at <= now && self.published.is_some() {
            self.beacons.at = now + BEACON_INTERVAL;
            self.send_beacon();
        }
        while !self.is_full()
            && let Some(output) = self.server.poll_output(now)
        {
            self.perform(output);
        }
    }

    /// Whether links or reads have no room.
    fn is_full(&self) -> bool {
        self.outgoing.room < LEAST_ROOM || self.blocks.is_full()
    }

    /// Returns when [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Instant {
        let latest = self.now + BEACON_INTERVAL;
        let next = self.server.next_timeout().unwrap_or(latest).min(latest);
        match self.is_full() {
            true => next.max(self.now + FULL),
            false => next,
        }
    }

    fn send_beacon(&mut self) {
        let Some(sent) = &self.published else { return };
        let beacon = Beacon {
            offer: Offer::Files,
            from: self.beacons.from.clone(),
            bytes: sent.bytes(),
            files: sent.files(),
            line: self.line(),
        };
        // its texts have been checked
        if let Ok(data) = beacon.encode() {
            let outgoing = &mut self.outgoing;
            outgoing.send(self.keys.beacons, BEACON_PORT, data);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Query {
                source,
                destination,
                message,
                ..
            } => {
                let packet = mld::packet(source, destination, &message);
                self.outgoing.queries.push_back(packet);
            }
            Output::Record { channel, datagram } => {
                self.outgoing.send(channel.group, LCSYNC_PORT, datagram);
            }
            Output::Symbols {
                channel,
                sequence,
                ids,
            } => self.send_symbols(channel, sequence, &ids),
        }
    }

    /// Sends symbols of a channel, which are all of one block, or has the block read first.
    fn send_symbols(&mut self, channel: Channel, sequence: u32, ids: &[u32]) {
        let id = channel_of(channel.group);
        let Some(sent) = self.published.clone() else {
            return;
        };
        let Some(located) = sent.carried(id, 0).map(|carried| carried.located) else {
            self.server.handle_block_gone(channel, self.now);
            return;
        };
        let block = located.block();
        if !self.blocks.encoders.contains_key(&block.hash) {
            let Some(node) = sent.node(located) else {
                let symbols = (channel, sequence, ids.to_vec());
                if self.blocks.wait(block.hash, symbols) {
                    let slices = sent.slices(located.place, block.length.into());
                    self.reads.ask(Purpose::Block(block), slices);
                }
                return;
            };
            self.blocks.keep(block, node.to_vec());
        }
        let server = self.id;
        let Some(encoder) = self.blocks.encoder(block.hash) else {
            return;
        };
        let mut datagrams = Vec::with_capacity(ids.len());
        for (n, esi) in (0..).zip(ids) {
            let symbol = Symbol {
                server,
                sequence: sequence.wrapping_add(n),
                channel: id,
                block_length: block.length,
                esi: *esi,
                data: &[],
            };
            let mut datagram = Vec::new();
            symbol.write_header(&mut datagram);
            // the schedule's ids are in range
            if encoder.symbol(*esi, &mut datagram).is_ok() {
                datagrams.push(datagram);
            }
        }
        for datagram in datagrams {
            self.outgoing.sent += datagram.len() as u64;
            self.outgoing.send(channel.group, LCSYNC_PORT, datagram);
        }
    }

    /// Returns the next command for the member.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.outgoing.commands.pop_front()
    }

    /// Returns the next packet with a query of MLD, for the member's router.
    pub fn poll_query(&mut self) -> Option<Vec<u8>> {
        self.outgoing.queries.pop_front()
    }

    /// Returns the state as JSON.
    pub fn status(&self) -> String {
        let bytes = self.published.as_ref().map_or(0, |sent| sent.bytes());
        let cutting = self.choice.cutting.as_ref().map(Cutting::progress);
        let (read, bytes) = cutting.unwrap_or((bytes, bytes));
        let status = Status {
            published: self.published.is_some(),
            read,
            bytes,
            receives: self.server.joined_roots() > 0,
            sent: self.outgoing.sent,
            lost: &self.choice.lost,
            other: self
                .beacons
                .heard
                .first()
                .map(|beacon| beacon.from.as_str()),
            problem: self.problem.as_deref(),
        };
        serde_json::to_string(&status).unwrap_or_default()
    }
}

/// Checks names and number of the files.
fn check(start: &Start) -> Result<(), String> {
    if start.files.is_empty() {
        return Err("Choose a file first.".into());
    }
    if start.files.len() > MAX_FILES {
        return Err(format!(
            "A page sends at most {MAX_FILES} files: put them into an archive, or send them by `lcsync send` on a host."
        ));
    }
    let mut names = BTreeSet::new();
    for file in &start.files {
        let name = lcsync::listing::shown(file.name.as_bytes());
        if !lcsync::listing::is_plain_name(file.name.as_bytes()) {
            return Err(format!(
                "{name} cannot be a file's name elsewhere: rename it."
            ));
        }
        if !names.insert(&file.name) {
            return Err(format!("Two files have the name {name}."));
        }
    }
    if start.from.is_empty() || start.from.len() > librecast::code::beacon::MAX_FROM {
        return Err("A name has 1 to 63 bytes.".into());
    }
    Ok(())
}
