//! A server, a switch, receivers and what is on its way between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lcsync::block::{BlockRef, MAX_BLOCK};
use lcsync::cut::Cutter;
use lcsync::index::{HashCache, Index};
use lcsync::packet::{Packet, Symbol, WIRE_SIZE, decode};
use lcsync::receive::changes::Changes;
use lcsync::receive::collector::Source;
use lcsync::receive::fetch::{Event, Fetch};
use lcsync::receive::window::Window;
use lcsync::record::Record;
use lcsync::server::core::{Output, Server, Share};
use lcsync::server::schedule::{Channel, Rates, Sent};
use librecast::channel::{ChannelId, ROOT_CHANNEL, SharePrefix, channel_of};
use librecast::coding::{Encoder, SYMBOL_SIZE};
use librecast::mld::{self, RecordType, report_messages};
use librecast::random::Random;
use librecast::simulated::{Bottleneck, Queue};

use super::kernel::Kernel;

const INTERFACE: u32 = 2;
const RATE: u64 = 15_000_000;
const STEP: Duration = Duration::from_millis(1);
/// What a socket's send buffer holds, and what waits in front of a receiver's link.
const SERVER_QUEUE: f64 = 100_000.0;
const RECEIVER_QUEUE: f64 = 200_000.0;
/// Between two times that a receiver tells its kernel what has changed.
const TELL: Duration = Duration::from_millis(12);

pub struct Receiver {
    address: Ipv6Addr,
    fetch: Fetch,
    changes: Changes,
    kernel: Kernel,
    /// Channels that the switch forwards to it.
    forwarded: BTreeSet<ChannelId>,
    loss: f64,
    /// Datagrams that are lost together.
    pub train: u32,
    /// Of a train that is being lost, those to come.
    losing: u32,
    pub link: Option<Bottleneck<Duration>>,
    starts: Duration,
    started: bool,
    received: BTreeMap<BlockRef, bool>,
    pub finished: Option<Duration>,
}

impl Receiver {
    /// Whether the next datagram is lost, alone or in a train.
    fn loses(&mut self, random: &mut Random) -> bool {
        if self.losing == 0 {
            let begins = self.loss / (self.loss + f64::from(self.train) * (1.0 - self.loss));
            if !random.chance(begins) {
                return false;
            }
            self.losing = self.train;
        }
        self.losing -= 1;
        true
    }
}

/// What a datagram of the server carries.
#[derive(Clone)]
enum Datagram {
    Record(Rc<Record>),
    Symbol {
        channel: ChannelId,
        sequence: u32,
        esi: u32,
        length: u32,
        data: Rc<[u8]>,
    },
}

impl Datagram {
    fn channel(&self) -> ChannelId {
        match self {
            Self::Record(_) => ROOT_CHANNEL,
            Self::Symbol { channel, .. } => *channel,
        }
    }
}

pub struct Simulation {
    start: Instant,
    random: Random,
    server: Server,
    index: Arc<Index>,
    prefix: SharePrefix,
    pub receivers: Vec<Receiver>,
    blocks: Vec<BlockRef>,
    pub report_loss: f64,
    /// The server's own: it waits until there is room in the queue.
    link: Option<Bottleneck<Duration>>,
    /// What is through the server's link, and through those of these receivers.
    at_switch: Queue<Duration, Datagram>,
    at_receiver: Queue<Duration, (usize, Datagram)>,
    encoders: HashMap<ChannelId, Encoder>,
    symbols_sent: u64,
    _dir: tempfile::TempDir,
}

impl Simulation {
    /// A share as long as `blocks` full blocks, and receivers that start at these times with this loss each.
    pub fn new(blocks: usize, receivers: &[(u64, f64)]) -> Self {
        Self::seeded(1, blocks, receivers)
    }

    pub fn seeded(seed: u64, blocks: usize, receivers: &[(u64, f64)]) -> Self {
        let start = Instant::now();
        let mut random = Random::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let data = random.bytes(blocks * MAX_BLOCK);
        std::fs::write(dir.path().join("f"), &data).unwrap();
        let file = std::fs::File::open(dir.path().join("f")).unwrap();
        let mut cutter = Cutter::new(&file, data.len() as u64);
        let index = Index::build(&dir.path().join("f"), b"", &mut HashCache::default()).unwrap();
        let index = Arc::new(index);
        let prefix = SharePrefix::of_name(b"", "simulated");
        let rates = Rates {
            channel: RATE,
            slow: RATE / 10,
            total: None,
        };
        let mut server = Server::new(1, rates, 1, start);
        server.set_share(prefix, Share::unsigned(Arc::clone(&index), 1), start);
        let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
        server.set_interfaces(&BTreeMap::from([(INTERFACE, own)]), start);
        let receivers = receivers
            .iter()
            .enumerate()
            .map(|(n, (starts, loss))| Receiver {
                address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n as u16),
                fetch: Fetch::new(Window::new(16, 128, start), None, start),
                changes: Changes::new(TELL),
                kernel: Kernel::default(),
                forwarded: BTreeSet::new(),
                loss: *loss,
                train: 1,
                losing: 0,
                link: None,
                starts: Duration::from_millis(*starts),
                started: false,
                received: BTreeMap::new(),
                finished: None,
            });
        Self {
            start,
            random,
            server,
            index,
            prefix,
            receivers: receivers.collect(),
            blocks: std::iter::from_fn(|| cutter.next_block().unwrap()).collect(),
            report_loss: 0.0,
            link: None,
            at_switch: Queue::default(),
            at_receiver: Queue::default(),
            encoders: HashMap::new(),
            symbols_sent: 0,
            _dir: dir,
        }
    }

    /// Bits per second that leave the server at most.
    pub fn limit_server(&mut self, rate: u64) {
        self.link = Some(Bottleneck::new(rate as f64, Duration::MAX, Duration::ZERO));
    }

    /// Bits per second that reach this receiver at most.
    pub fn limit_receiver(&mut self, receiver: usize, rate: u64) {
        let rate = rate as f64;
        let full = queue(rate, RECEIVER_QUEUE);
        self.receivers[receiver].link = Some(Bottleneck::new(rate, full, Duration::ZERO));
    }

    /// Bits of all packets that it takes at least.
    pub fn bits(&self) -> f64 {
        let symbols = |b: &BlockRef| b.length.div_ceil(SYMBOL_SIZE as u32);
        f64::from(self.blocks.iter().map(symbols).sum::<u32>()) * WIRE_BITS
    }

    /// Runs until everybody has everything; gives symbols sent per source symbol.
    pub fn run(&mut self) -> f64 {
        let mut time = Duration::ZERO;
        while self.receivers.iter().any(|r| r.finished.is_none()) {
            time += STEP;
            assert!(time < Duration::from_secs(300), "somebody never finishes");
            self.start_receivers(time);
            self.deliver_reports(time);
            self.drive_server(time);
            self.switch(time);
            self.deliver(time);
            self.drive_receivers(time);
        }
        self.symbols_sent as f64 * WIRE_BITS / self.bits()
    }

    fn start_receivers(&mut self, time: Duration) {
        for r in self
            .receivers
            .iter_mut()
            .filter(|r| !r.started && r.starts <= time)
        {
            r.started = true;
            for block in &self.blocks {
                r.fetch.want(*block);
            }
            r.changes.set(ROOT_CHANNEL, true);
        }
    }

    /// Reports of all kernels reach the switch and the server.
    fn deliver_reports(&mut self, time: Duration) {
        for r in &mut self.receivers {
            let reported = r.kernel.poll(time, &mut self.random);
            if reported.is_empty() || self.random.chance(self.report_loss) {
                continue;
            }
            let mut records = Vec::new();
            for (kind, channel) in reported {
                if kind == RecordType::ChangeToInclude {
                    r.forwarded.remove(&channel);
                } else {
                    r.forwarded.insert(channel);
                }
                records.push(mld::Record::new(
                    kind,
                    self.prefix.group(channel),
                    Vec::new(),
                ));
            }
            for message in report_messages(&records, 1280) {
                let now = self.start + time;
                self.server
                    .handle_mld(INTERFACE, r.address, 1, &message, now);
            }
        }
    }

    fn drive_server(&mut self, time: Duration) {
        let now = self.start + time;
        while self
            .link
            .is_none_or(|l| l.wait(time) <= queue(l.rate, SERVER_QUEUE))
            && let Some(output) = self.server.poll_output(now)
        {
            match output {
                Output::Query {
                    destination,
                    message,
                    ..
                } => self.query(time, destination, &message),
                Output::Record { datagram, .. } => {
                    let Ok(Packet::Record(record)) = decode(&datagram) else {
                        panic!("our own record")
                    };
                    self.send(time, Datagram::Record(record.into()));
                }
                Output::Symbols {
                    channel,
                    sequence,
                    ids,
                } => self.symbols(time, channel, sequence, &ids),
            }
        }
    }

    fn query(&mut self, time: Duration, group: Ipv6Addr, message: &[u8]) {
        let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
        let Ok(mld::Message::Query(query)) = mld::parse_message(own, message) else {
            panic!("our own query")
        };
        let channel =
            (SharePrefix::of_group(group) == Some(self.prefix)).then(|| channel_of(group));
        for r in &mut self.receivers {
            r.kernel
                .query(channel, query.max_response, time, &mut self.random);
        }
    }

    fn symbols(&mut self, time: Duration, channel: Channel, sequence: u32, ids: &[u32]) {
        let id = channel_of(channel.group);
        let block = self.index.find(id).unwrap().block;
        let index = &self.index;
        let encoder = self
            .encoders
            .entry(id)
            .or_insert_with(|| Encoder::new(index.read(id).unwrap()).unwrap());
        let mut datagrams = Vec::new();
        for (n, esi) in ids.iter().enumerate() {
            let mut data = Vec::new();
            encoder.symbol(*esi, &mut data).unwrap();
            datagrams.push(Datagram::Symbol {
                channel: id,
                sequence: sequence + n as u32,
                esi: *esi,
                length: block.length,
                data: data.into(),
            });
        }
        self.symbols_sent += ids.len() as u64;
        for datagram in datagrams {
            self.send(time, datagram);
        }
    }

    fn send(&mut self, time: Duration, datagram: Datagram) {
        let at = match &mut self.link {
            Some(link) => link.pass(WIRE_SIZE as usize, time),
            None => Some(time),
        };
        if let Some(at) = at {
            self.at_switch.push(at, datagram);
        }
    }

    /// What has crossed the server's link goes to whom the switch knows as a member.
    fn switch(&mut self, time: Duration) {
        while let Some((at, datagram)) = self.at_switch.pop(time) {
            for (n, r) in self.receivers.iter_mut().enumerate() {
                if !r.forwarded.contains(&datagram.channel()) {
                    continue;
                }
                let through = match &mut r.link {
                    Some(link) => link.pass(WIRE_SIZE as usize, at),
                    None => Some(at),
                };
                if let Some(through) = through {
                    self.at_receiver.push(through, (n, datagram.clone()));
                }
            }
        }
    }

    fn deliver(&mut self, time: Duration) {
        let now = self.start + time;
        while let Some((_, (n, datagram))) = self.at_receiver.pop(time) {
            let r = &mut self.receivers[n];
            if r.loses(&mut self.random) || !r.kernel.is_member(datagram.channel()) {
                continue;
            }
            match datagram {
                Datagram::Record(record) => r.fetch.set_record(&record, 128.0, now),
                Datagram::Symbol {
                    channel,
                    sequence,
                    esi,
                    length,
                    data,
                } => {
                    let symbol = Symbol {
                        server: 1,
                        sequence,
                        channel,
                        block_length: length,
                        esi,
                        data: &data,
                    };
                    r.fetch.handle_symbol(channel, SOURCE, &symbol, now);
                }
            }
        }
    }

    fn drive_receivers(&mut self, time: Duration) {
        let now = self.start + time;
        for r in self.receivers.iter_mut().filter(|r| r.started) {
            r.fetch.handle_timeout(now);
            while let Some(event) = r.fetch.poll_event(now) {
                match event {
                    Event::Join(channel) => r.changes.set(channel, true),
                    Event::Leave(channel) => r.changes.set(channel, false),
                    Event::Block { block, bytes } => {
                        assert_eq!(BlockRef::of(&bytes), block);
                        assert!(r.received.insert(block, true).is_none(), "a block twice");
                    }
                    Event::CorruptSource(source) => panic!("{source:?} is honest"),
                }
            }
            if r.fetch.missing() == 0 && r.finished.is_none() {
                assert_eq!(r.received.len(), self.blocks.len());
                r.finished = Some(time - r.starts);
                r.changes.set(ROOT_CHANNEL, false);
            }
            for (channel, join) in r.changes.poll(now).unwrap_or_default() {
                r.kernel.set(channel, join, time, &mut self.random);
            }
        }
    }

    /// What the server sends in the seconds after the last PART can have come.
    pub fn sent_afterwards(&mut self) -> u64 {
        let ends = self
            .receivers
            .iter()
            .filter_map(|r| Some(r.starts + r.finished?));
        let end = ends.max().unwrap();
        for n in 1..=50 {
            self.drive_receivers(end + STEP * n);
            self.deliver_reports(end + STEP * n);
        }
        let before = self.symbols_sent;
        for n in 1..=10 {
            self.drive_server(end + Duration::from_secs(n));
        }
        self.symbols_sent - before
    }

    /// What symbols were sent for.
    pub fn sent(&self) -> Sent {
        self.server.symbols_sent()
    }

    pub fn slowest(&self) -> Duration {
        self.receivers
            .iter()
            .filter_map(|r| r.finished)
            .max()
            .unwrap()
    }
}

const SOURCE: Source = Source {
    address: Ipv6Addr::LOCALHOST,
    interface: INTERFACE,
    server: 1,
};
const WIRE_BITS: f64 = (WIRE_SIZE * 8) as f64;

/// How long so many bytes wait at a link of this rate.
fn queue(rate: f64, bytes: f64) -> Duration {
    Duration::from_secs_f64(bytes * 8.0 / rate)
}
