//! A server, a switch, receivers and the packets between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::Ipv6Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lcsync::block::{BlockHash, BlockRef};
use lcsync::packet::{Packet, Symbol, WIRE_SIZE, decode, encode_record};
use lcsync::record::Record;
use lcsync::server::channel::{Channel, Rates, Sent};
use lcsync::server::core::Output;
use lcsync::server::hosted::{Server, Share};
use lcsync::server::uplink::MOST_WAIT;
use librecast::channel::{ChannelId, ROOT_CHANNEL, SharePrefix, channel_of};
use librecast::coding::{Encoder, SYMBOL_SIZE};
use librecast::mld::{self, RecordType, report_messages};
use librecast::random::Random;
use librecast::simulated::{Bottleneck, Network, Path, Queue};

use super::content::Content;
use super::host::Host;

const INTERFACE: u32 = 2;
pub const RATE: u64 = 15_000_000;
const STEP: Duration = Duration::from_millis(1);
/// Time by which all receivers have everything.
const END: Duration = Duration::from_secs(300);
/// Bytes of a socket's send buffer, and of the queue before a receiver's link.
const SERVER_QUEUE: f64 = 100_000.0;
const RECEIVER_QUEUE: f64 = 200_000.0;
/// Longest wait before a router's uplink.
const UPLINK_QUEUE: Duration = Duration::from_millis(80);
const SERVER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
/// The one listener that lcroute reports for all receivers of its network.
pub const PROXY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
pub const LIAR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);
/// The switch, as a host of the network.
const SWITCH: usize = usize::MAX;

/// A scheduled event.
#[derive(Debug, Clone, Copy)]
pub enum Incident {
    /// Another server without knowledge replaces the first one.
    NewServer,
    /// The next version is shared.
    NewVersion,
    /// A receiver is killed, and started again after half a second.
    Kill(usize),
    /// Half of the channels to a receiver get a second path, as wide as the first.
    SecondPath(usize),
}

impl Uplink {
    fn pass(&mut self, at: Duration) -> Option<Duration> {
        let through = self.link.pass(WIRE_SIZE as usize, at)?;
        self.copies += 1;
        Some(through)
    }
}

#[derive(Clone)]
struct Datagram {
    channel: ChannelId,
    from: Ipv6Addr,
    payload: Rc<[u8]>,
}

/// A message between the switch and a receiver.
#[derive(Clone)]
enum Message {
    Datagram(Datagram),
    /// For one channel or all, to be answered within this time.
    Query(Option<ChannelId>, Duration),
    Report(Vec<(RecordType, ChannelId)>),
}

/// The link of a router before the switch, which drops what is too much.
struct Uplink {
    link: Bottleneck<Duration>,
    /// One copy leaves for all receivers from then on; before, one for each.
    carried_from: Duration,
    /// Whether the server is held while packets wait.
    holds: bool,
    /// Copies that passed.
    copies: u64,
}

pub struct Simulation {
    start: Instant,
    time: Duration,
    seed: u64,
    random: Random,
    server: Server,
    server_id: u32,
    /// Versions; the last one is shared.
    contents: Vec<Rc<Content>>,
    prefix: SharePrefix,
    pub receivers: Vec<Host>,
    pub report_loss: f64,
    /// Probability of a corrupt symbol after each of the server's.
    pub lies: f64,
    pub incidents: Queue<Duration, Incident>,
    /// The server's link; the server waits until its queue has room.
    link: Option<Bottleneck<Duration>>,
    /// The server is on lc0: its router reports one listener for all.
    uplink: Option<Uplink>,
    /// Datagrams behind the server's link, and messages to and from receivers.
    at_switch: Queue<Duration, Datagram>,
    network: Network<Duration, usize, (usize, Message)>,
    encoders: HashMap<BlockHash, Encoder>,
    symbols_sent: u64,
}

fn server(id: u32, stretch: Option<u64>, now: Instant) -> Server {
    let rates = Rates {
        channel: RATE,
        slow: RATE / 10,
        stretch,
        total: None,
    };
    let mut server = Server::new(id, rates, 1, now);
    server.set_interfaces(&BTreeMap::from([(INTERFACE, SERVER)]), now);
    server
}

impl Simulation {
    /// Makes a share as long as `blocks` full blocks, and receivers with these starts and losses.
    pub fn new(blocks: usize, receivers: &[(u64, f64)]) -> Self {
        Self::seeded(1, blocks, receivers)
    }

    pub fn seeded(seed: u64, blocks: usize, receivers: &[(u64, f64)]) -> Self {
        let start = Instant::now();
        let receivers = receivers.iter().enumerate().map(|(n, (starts, loss))| {
            let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n as u16);
            Host::new(address, Duration::from_millis(*starts), *loss)
        });
        let mut sim = Self {
            start,
            time: Duration::ZERO,
            seed,
            random: Random::new(seed),
            server: server(1, Some(RATE * 16), start),
            server_id: 1,
            contents: vec![Content::of(seed, blocks, 1)],
            prefix: SharePrefix::of_name(b"", "simulated"),
            receivers: receivers.collect(),
            report_loss: 0.0,
            lies: 0.0,
            incidents: Queue::default(),
            link: None,
            uplink: None,
            at_switch: Queue::default(),
            network: Network::new(Path::default(), seed),
            encoders: HashMap::new(),
            symbols_sent: 0,
        };
        sim.share(start);
        sim
    }

    /// Serves the last version.
    fn share(&mut self, now: Instant) {
        let index = Arc::clone(&self.content().index);
        let share = Share::unsigned(index, self.contents.len() as u64);
        self.server.set_share(self.prefix, share, now);
    }

    fn content(&self) -> &Content {
        self.contents.last().unwrap()
    }

    /// Replaces the server by one without stretches.
    pub fn offer_no_stretches(&mut self) {
        self.server = server(self.server_id, None, self.start);
        self.share(self.start);
    }

    /// Limits the server's bits per second.
    pub fn limit_server(&mut self, rate: u64) {
        self.link = Some(Bottleneck::new(rate as f64, Duration::MAX, Duration::ZERO));
    }

    /// Puts the server on lc0 of a router with an uplink of this rate. Other routers pass its
    /// packets on from `carried_from` on. The server is held while packets wait, if the router `holds`
    /// it.
    pub fn limit_uplink(&mut self, rate: u64, carried_from: Duration, holds: bool) {
        let link = Bottleneck::new(rate as f64, UPLINK_QUEUE, Duration::ZERO);
        self.uplink = Some(Uplink {
            link,
            carried_from,
            holds,
            copies: 0,
        });
    }

    /// Copies that passed the uplink, per source symbol.
    pub fn uploaded(&self) -> f64 {
        self.uplink.as_ref().unwrap().copies as f64 * WIRE_BITS / self.bits()
    }

    /// Limits the bits per second to this receiver.
    pub fn limit_receiver(&mut self, receiver: usize, rate: u64) {
        let rate = rate as f64;
        let full = queue(rate, RECEIVER_QUEUE);
        self.receivers[receiver].link = Some(Bottleneck::new(rate, full, Duration::ZERO));
    }

    /// Least number of bits of all packets for the content.
    pub fn bits(&self) -> f64 {
        f64::from(self.receivers[0].symbols_needed()) * WIRE_BITS
    }

    /// Runs until all receivers have everything; returns symbols sent per source symbol.
    pub fn run(&mut self) -> f64 {
        let newest = |sim: &Self| sim.contents.len() - 1;
        while self.incidents.next_at().is_some()
            || !self.receivers.iter().all(|r| r.is_done(newest(self)))
        {
            self.time += STEP;
            assert!(self.time < END, "somebody never finishes");
            self.step(self.time);
        }
        let cost = self.symbols_sent as f64 * WIRE_BITS / self.bits();
        println!("{cost:.3} in {:?}", self.slowest());
        cost
    }

    fn step(&mut self, time: Duration) {
        let now = self.start + time;
        while let Some((_, incident)) = self.incidents.pop(time) {
            self.happen(incident, time);
        }
        for r in &mut self.receivers {
            r.start(time, now);
        }
        self.report(time);
        self.carry(time);
        self.drive_server(time);
        self.switch(time);
        self.carry(time);
        for r in &mut self.receivers {
            r.drive(&self.contents, time, now, &mut self.random);
        }
    }

    fn happen(&mut self, incident: Incident, time: Duration) {
        let now = self.start + time;
        match incident {
            Incident::NewServer => {
                self.server_id += 1;
                self.server = server(self.server_id, Some(RATE * 16), now);
                self.share(now);
            }
            Incident::NewVersion => {
                let (blocks, version) = (self.content().length(), self.contents.len());
                let content = Content::of(self.seed, blocks, version as u64 + 1);
                self.contents.push(content);
                self.share(now);
            }
            Incident::Kill(n) => {
                let again_at = time + Duration::from_millis(500);
                self.receivers[n].kill(time, again_at, &mut self.random);
            }
            Incident::SecondPath(n) => {
                let receiver = &mut self.receivers[n];
                receiver.detour = receiver.link;
            }
        }
    }

    /// Sends the reports of all kernels to the switch.
    fn report(&mut self, time: Duration) {
        for (n, r) in self.receivers.iter_mut().enumerate() {
            let mut records = r.kernel.poll(time, &mut self.random);
            if r.only_answers {
                records.retain(|(kind, _)| *kind == RecordType::ModeIsExclude);
            }
            if records.is_empty() || self.random.chance(self.report_loss) {
                continue;
            }
            self.network.path = r.path;
            let report = Message::Report(records);
            self.network.send(n, SWITCH, (n, report), time);
        }
    }

    /// Delivers arrived messages.
    fn carry(&mut self, time: Duration) {
        let now = self.start + time;
        while let Some((n, message)) = self.network.poll(time) {
            let r = &mut self.receivers[n];
            match message {
                Message::Datagram(datagram) => {
                    let channel = datagram.channel;
                    if !r.loses(&mut self.random) && r.kernel.is_member(channel) {
                        let from = (datagram.from, INTERFACE);
                        r.take(channel, &datagram.payload, from, now);
                    }
                }
                Message::Query(channel, within) => {
                    r.kernel.query(channel, within, time, &mut self.random);
                }
                Message::Report(changes) => {
                    let mut records = Vec::new();
                    for (kind, channel) in changes {
                        let before = self.is_joined(channel);
                        let r = &mut self.receivers[n];
                        if kind == RecordType::ChangeToInclude {
                            r.forwarded.remove(&channel);
                        } else {
                            r.forwarded.insert(channel);
                        }
                        let group = self.prefix.group(channel);
                        if self.uplink.is_none() || self.is_joined(channel) != before {
                            records.push(mld::Record::new(kind, group, Vec::new()));
                        }
                    }
                    let from = match self.uplink {
                        Some(_) => PROXY,
                        None => self.receivers[n].address,
                    };
                    self.tell_server(from, &records, now);
                }
            }
        }
    }

    fn tell_server(&mut self, from: Ipv6Addr, records: &[mld::Record], now: Instant) {
        for message in report_messages(records, 1280) {
            self.server.handle_mld(INTERFACE, from, 1, &message, now);
        }
    }

    fn is_joined(&self, channel: ChannelId) -> bool {
        self.receivers
            .iter()
            .any(|r| r.forwarded.contains(&channel))
    }

    fn drive_server(&mut self, time: Duration) {
        let now = self.start + time;
        while self
            .link
            .is_none_or(|l| l.wait(time) <= queue(l.rate, SERVER_QUEUE))
            && self.hold(time)
            && let Some(output) = self.server.poll_output(now)
        {
            match output {
                Output::Query {
                    destination,
                    message,
                    ..
                } => self.query(time, destination, &message),
                Output::Record { datagram, .. } => {
                    self.send(time, ROOT_CHANNEL, &datagram);
                    if self.random.chance(self.lies) {
                        self.lie(time, ROOT_CHANNEL, &forged(&datagram));
                    }
                }
                Output::Symbols {
                    channel,
                    sequence,
                    ids,
                } => self.symbols(time, channel, sequence, &ids),
            }
        }
    }

    /// Holds the server while packets wait before its router's uplink; always true.
    fn hold(&mut self, time: Duration) -> bool {
        if self.uplink.as_ref().is_some_and(|uplink| uplink.holds) {
            self.switch(time);
            let wait = self.uplink.as_ref().map(|uplink| uplink.link.wait(time));
            let now = self.start + time;
            if wait > Some(MOST_WAIT) {
                self.server.hold(INTERFACE, MOST_WAIT, now + STEP, now);
            }
        }
        true
    }

    fn query(&mut self, time: Duration, group: Ipv6Addr, message: &[u8]) {
        let Ok(mld::Message::Query(query)) = mld::parse_message(SERVER, message) else {
            panic!("our own query")
        };
        let channel =
            (SharePrefix::of_group(group) == Some(self.prefix)).then(|| channel_of(group));
        if self.uplink.is_some() {
            let joined = self.receivers.iter().flat_map(|r| &r.forwarded);
            let joined: BTreeSet<_> = joined.copied().collect();
            let asked = joined
                .into_iter()
                .filter(|c| channel.is_none_or(|channel| channel == *c));
            let state = RecordType::ModeIsExclude;
            let records = asked.map(|c| mld::Record::new(state, self.prefix.group(c), Vec::new()));
            let records: Vec<_> = records.collect();
            self.tell_server(PROXY, &records, self.start + time);
            return;
        }
        for (n, r) in self.receivers.iter().enumerate() {
            self.network.path = r.path;
            let query = Message::Query(channel, query.max_response);
            self.network.send(SWITCH, n, (n, query), time);
        }
    }

    fn symbols(&mut self, time: Duration, channel: Channel, sequence: u32, ids: &[u32]) {
        let id = channel_of(channel.group);
        let index = Arc::clone(&self.content().index);
        for (n, esi) in ids.iter().enumerate() {
            let carried = index.carried(id, *esi).unwrap();
            let block = carried.located.block();
            let encoder = self.encoders.entry(block.hash).or_insert_with(|| {
                Encoder::new(index.read_located(carried.located).unwrap()).unwrap()
            });
            let block_length = block.length;
            let mut data = Vec::new();
            encoder.symbol(*esi - carried.first, &mut data).unwrap();
            let symbol = Symbol {
                server: self.server_id,
                sequence: sequence + n as u32,
                channel: id,
                block_length,
                esi: *esi,
                data: &data,
            };
            self.send(time, id, &encode(&symbol));
            if self.random.chance(self.lies) {
                let data = &[9; SYMBOL_SIZE];
                let server = 66;
                let lie = Symbol {
                    server,
                    data,
                    ..symbol
                };
                self.lie(time, id, &encode(&lie));
            }
        }
        self.symbols_sent += ids.len() as u64;
    }

    fn send(&mut self, time: Duration, channel: ChannelId, payload: &[u8]) {
        let at = match &mut self.link {
            Some(link) => link.pass(WIRE_SIZE as usize, time),
            None => Some(time),
        };
        if let Some(at) = at {
            let datagram = Datagram {
                channel,
                from: SERVER,
                payload: payload.into(),
            };
            self.at_switch.push(at, datagram);
        }
    }

    /// Sends a symbol of the liar, which has another link than the server.
    fn lie(&mut self, time: Duration, channel: ChannelId, payload: &[u8]) {
        let datagram = Datagram {
            channel,
            from: LIAR,
            payload: payload.into(),
        };
        self.at_switch.push(time, datagram);
    }

    /// Forwards datagrams from the server's link to members known to the switch.
    fn switch(&mut self, time: Duration) {
        while let Some((at, datagram)) = self.at_switch.pop(time) {
            let mut shared = None;
            for (n, r) in self.receivers.iter_mut().enumerate() {
                if !r.forwarded.contains(&datagram.channel) {
                    continue;
                }
                let at = match &mut self.uplink {
                    Some(uplink) if at >= uplink.carried_from => {
                        *shared.get_or_insert_with(|| uplink.pass(at))
                    }
                    Some(uplink) => uplink.pass(at),
                    None => Some(at),
                };
                let Some(at) = at else {
                    continue;
                };
                let is_second = r.detour.is_some() && datagram.channel >> 63 == 1;
                let link = if is_second {
                    &mut r.detour
                } else {
                    &mut r.link
                };
                let through = match link {
                    Some(link) => link.pass(WIRE_SIZE as usize, at),
                    None => Some(at),
                };
                if let Some(through) = through {
                    self.network.path = r.path;
                    let datagram = Message::Datagram(datagram.clone());
                    self.network.send(SWITCH, n, (n, datagram), through);
                }
            }
        }
    }

    /// Symbols that the server sends after the last PART must have arrived.
    pub fn sent_afterwards(&mut self) -> u64 {
        let mut end = self.time;
        let quiet = end + Duration::from_millis(50) + self.longest_path() * 2;
        while end < quiet {
            end += STEP;
            self.step(end);
        }
        let before = self.symbols_sent;
        for n in 1..=10 {
            self.drive_server(end + Duration::from_secs(n));
        }
        self.symbols_sent - before
    }

    fn longest_path(&self) -> Duration {
        let path = |r: &Host| r.path.delay + r.path.jitter;
        self.receivers.iter().map(path).max().unwrap()
    }

    /// Symbols sent, by purpose.
    pub fn sent(&self) -> Sent {
        self.server.symbols_sent()
    }

    pub fn slowest(&self) -> Duration {
        self.receivers.iter().filter_map(Host::took).max().unwrap()
    }

    /// Received symbols for each needed one, mean of all receivers.
    pub fn received(&self) -> f64 {
        let all = self.receivers.iter().map(Host::received);
        all.sum::<f64>() / self.receivers.len() as f64
    }

    /// Hash of all receivers' events and their times.
    pub fn trace(&self) -> u64 {
        let mut all = std::hash::DefaultHasher::new();
        let each = self.receivers.iter().map(|r| r.trace.finish());
        each.for_each(|trace| trace.hash(&mut all));
        all.finish()
    }
}

pub fn encode(symbol: &Symbol<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    symbol.write_header(&mut datagram);
    datagram.extend_from_slice(symbol.data);
    datagram
}

/// The same record with another root, by another server.
fn forged(datagram: &[u8]) -> Vec<u8> {
    let Ok(Packet::Record(record)) = decode(datagram) else {
        panic!("our own record")
    };
    let hash = BlockRef::of(b"forged").hash;
    let forged = Record {
        server: 66,
        generation: record.generation + 9,
        root: BlockRef {
            hash,
            ..record.root
        },
        ..*record
    };
    encode_record(&forged).unwrap()
}

const WIRE_BITS: f64 = (WIRE_SIZE * 8) as f64;

/// Time that this number of bytes waits at a link of this rate.
fn queue(rate: f64, bytes: f64) -> Duration {
    Duration::from_secs_f64(bytes * 8.0 / rate)
}
