//! Receivers on an overlay that divide a share: an origin and its receivers behind short uplinks,
//! in a mesh or a tree. A router holds its own program back while its uplink's queue is long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lcsync::block::BlockHash;
use lcsync::carrying::{Had, UNKNOWN_WIDTH, Width};
use lcsync::index::Index;
use lcsync::outline::{Described, Leaves, Outline};
use lcsync::packet::{Symbol, WIRE_SIZE};
use lcsync::receive::tree::Tree;
use lcsync::server::channel::{Channel, Rates};
use lcsync::server::core::{Carrying, Output, Server, Share};
use lcsync::server::uplink::MOST_WAIT;
use librecast::channel::{ChannelId, ROOT_CHANNEL, SharePrefix, carrier_number, channel_of};
use librecast::coding::{Encoder, SYMBOL_SIZE};
use librecast::mld::{self, RecordType, report_messages};
use librecast::random::Random;
use librecast::simulated::{Bottleneck, Queue};

use super::content::Content;
use super::host::Host;
use super::world::{PROXY, RATE, encode};

const INTERFACE: u32 = 2;
const STEP: Duration = Duration::from_millis(1);
const END: Duration = Duration::from_secs(300);
/// Transit time of a link.
const DELAY: Duration = Duration::from_millis(5);
/// Longest wait before an uplink.
const UPLINK_QUEUE: Duration = Duration::from_millis(80);
/// Bytes of IPv6 and UDP headers.
const HEADERS: usize = 48;
const WIRE_BITS: f64 = (WIRE_SIZE * 8) as f64;
/// Time between two looks at the width of an uplink.
const WIDTH_INTERVAL: Duration = Duration::from_secs(1);

/// Behaviour of a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// Announces itself, and sends no block.
    Silent,
    /// Claims to have all, and sends no block.
    Boaster,
    /// Sends garbage.
    Garbage,
    /// Carries nothing.
    Leaf,
}

/// The outline of the whole share, or of what a receiver has of it.
#[derive(Debug)]
enum Known {
    Whole(Arc<Index>),
    Received(Box<Outline>),
}

impl Deref for Known {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        match self {
            Self::Whole(index) => index,
            Self::Received(outline) => outline,
        }
    }
}

/// An origin or a receiver, and its router's uplink.
struct Node {
    address: Ipv6Addr,
    server: Option<Server<Known>>,
    host: Option<Host>,
    pub manner: Manner,
    uplink: Bottleneck<Duration>,
    copies: u64,
    width: Width,
}

type Arrival = (usize, usize, ChannelId, Rc<[u8]>, Vec<usize>);

pub struct Swarm {
    start: Instant,
    time: Duration,
    random: Random,
    content: Rc<Content>,
    prefix: SharePrefix,
    /// The first one is the origin.
    nodes: Vec<Node>,
    /// In a tree, the node before each.
    parents: Option<Vec<usize>>,
    /// Datagrams on their way to a node, with the nodes behind it that want them.
    arrivals: Queue<Duration, Arrival>,
    reports: Queue<Duration, (usize, RecordType, ChannelId)>,
    encoders: HashMap<BlockHash, Encoder>,
    kills: BTreeMap<Duration, usize>,
}

fn rates() -> Rates {
    Rates {
        channel: RATE,
        slow: RATE / 10,
        stretch: None,
        total: None,
    }
}

fn outline(tree: &Tree, address: Ipv6Addr) -> Known {
    let described = Described {
        kind: tree.root.kind,
        entries: &tree.entries,
        metadata: &tree.metadata,
        incomplete: false,
    };
    let leaves = Leaves {
        all: &tree.leaves,
        in_stretches: &[],
        carrier: Some(carrier_number(address)),
    };
    let outline = Outline::new(described, tree.layout.clone(), leaves, b"");
    Known::Received(outline.unwrap().into())
}

impl Swarm {
    /// Receivers of a file of this many blocks, which start at these milliseconds, behind uplinks
    /// of `rate` bits per second.
    pub fn new(blocks: usize, starts: &[u64], rate: u64) -> Self {
        let start = Instant::now();
        let mut swarm = Self {
            start,
            time: Duration::ZERO,
            random: Random::new(1),
            content: Content::of(1, blocks, 1),
            prefix: SharePrefix::of_name(b"", "simulated"),
            nodes: Vec::new(),
            parents: None,
            arrivals: Queue::default(),
            reports: Queue::default(),
            encoders: HashMap::new(),
            kills: BTreeMap::new(),
        };
        for n in 0..=starts.len() {
            let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, n as u16);
            let host = n.checked_sub(1).map(|n| {
                let mut host = Host::new(address, Duration::from_millis(starts[n]), 0.0);
                host.overlay = Some(INTERFACE);
                host.compares = Duration::ZERO;
                host
            });
            swarm.nodes.push(Node {
                address,
                server: None,
                host,
                manner: Manner::Honest,
                uplink: Bottleneck::new(rate as f64, UPLINK_QUEUE, Duration::ZERO),
                copies: 0,
                width: Width::default(),
            });
        }
        swarm
    }

    /// Connects each node to two others behind it, in place of a mesh.
    pub fn in_tree(mut self) -> Self {
        self.parents = Some(
            (0..self.nodes.len())
                .map(|n| n.saturating_sub(1) / 2)
                .collect(),
        );
        self
    }

    pub fn limit(&mut self, receiver: usize, rate: u64) {
        self.nodes[receiver + 1].uplink =
            Bottleneck::new(rate as f64, UPLINK_QUEUE, Duration::ZERO);
    }

    pub fn set_manner(&mut self, receiver: usize, manner: Manner) {
        self.nodes[receiver + 1].manner = manner;
    }

    pub fn kill(&mut self, receiver: usize, at: Duration) {
        self.kills.insert(at, receiver + 1);
    }

    /// Files that have left the origin.
    pub fn uploaded(&self) -> f64 {
        let symbols = self.hosts().map(Host::symbols_needed).max().unwrap();
        self.nodes[0].copies as f64 / f64::from(symbols)
    }

    /// Time until the whole file has passed an uplink once.
    pub fn bound(&self) -> Duration {
        let symbols = self.hosts().map(Host::symbols_needed).max().unwrap();
        Duration::from_secs_f64(f64::from(symbols) * WIRE_BITS / self.nodes[0].uplink.rate)
    }

    fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.nodes.iter().filter_map(|n| n.host.as_ref())
    }

    /// Times of all receivers.
    pub fn took(&self) -> Vec<Duration> {
        self.hosts().filter_map(Host::took).collect()
    }

    pub fn slowest(&self) -> Duration {
        self.took().into_iter().max().unwrap()
    }

    /// Runs until all have everything.
    pub fn run(&mut self) {
        while !self.hosts().all(|h| h.is_done(0)) {
            self.time += STEP;
            assert!(self.time < END, "somebody never finishes");
            self.step();
        }
        println!(
            "{} receivers: {:.3} files, {:.1} s, bound {:.1} s",
            self.hosts().count(),
            self.uploaded(),
            self.slowest().as_secs_f64(),
            self.bound().as_secs_f64()
        );
    }

    fn step(&mut self) {
        let (time, now) = (self.time, self.start + self.time);
        while let Some((at, node)) = self.kills.pop_first() {
            if at > time {
                self.kills.insert(at, node);
                break;
            }
            (self.nodes[node].server, self.nodes[node].host) = (None, None);
        }
        if self.nodes[0].server.is_none() {
            self.serve(0, None);
        }
        for n in 1..self.nodes.len() {
            if let Some(host) = &mut self.nodes[n].host {
                host.start(time, now);
                for (kind, channel) in host.kernel.poll(time, &mut self.random) {
                    self.reports.push(time + DELAY, (n, kind, channel));
                }
            }
        }
        while let Some((_, (n, kind, channel))) = self.reports.pop(time) {
            self.report(n, kind, channel);
        }
        while let Some((at, arrival)) = self.arrivals.pop(time) {
            self.arrive(at, arrival);
        }
        for n in 0..self.nodes.len() {
            self.drive_server(n);
            self.drive_host(n);
        }
    }

    /// Begins to serve, at the origin or at a carrier that knows the tree.
    fn serve(&mut self, n: usize, tree: Option<&Tree>) {
        let now = self.start + self.time;
        let address = self.nodes[n].address;
        let mut server = Server::new(n as u32 + 1, rates(), n as u64, now);
        server.set_interfaces(&BTreeMap::from([(INTERFACE, address)]), now);
        let known = match tree {
            Some(tree) => outline(tree, address),
            None => Known::Whole(Arc::clone(&self.content.index)),
        };
        server.set_share(self.prefix, Share::unsigned(Arc::new(known), 1), now);
        if let Some(tree) = tree {
            let boasts = self.nodes[n].manner == Manner::Boaster;
            let missing = tree.leaves.iter().filter(|_| !boasts);
            let missing = missing.map(|leaf| leaf.hash).collect();
            let had = Had::new(&tree.leaves, &missing);
            let carrying = Carrying::new(INTERFACE, carrier_number(address), UNKNOWN_WIDTH, had);
            server.set_carrying(self.prefix, carrying);
        }
        self.nodes[n].server = Some(server);
        // members that its router knows already
        let joined: BTreeSet<ChannelId> =
            self.hosts().flat_map(|h| &h.forwarded).copied().collect();
        for channel in joined {
            if self.is_joined(n, channel) {
                self.tell(n, RecordType::ModeIsExclude, channel);
            }
        }
    }

    /// Whether another node than `n` has joined.
    fn is_joined(&self, n: usize, channel: ChannelId) -> bool {
        let others = (0..self.nodes.len()).filter(|other| *other != n);
        let mut hosts = others.filter_map(|other| self.nodes[other].host.as_ref());
        hosts.any(|host| host.forwarded.contains(&channel))
    }

    fn report(&mut self, from: usize, kind: RecordType, channel: ChannelId) {
        let all: Vec<usize> = (0..self.nodes.len()).filter(|n| *n != from).collect();
        let before: Vec<bool> = all.iter().map(|n| self.is_joined(*n, channel)).collect();
        let Some(host) = &mut self.nodes[from].host else {
            return;
        };
        if kind == RecordType::ChangeToInclude {
            host.forwarded.remove(&channel);
        } else {
            host.forwarded.insert(channel);
        }
        for (n, before) in all.into_iter().zip(before) {
            if self.is_joined(n, channel) != before {
                self.tell(n, kind, channel);
            }
        }
    }

    fn tell(&mut self, n: usize, kind: RecordType, channel: ChannelId) {
        let now = self.start + self.time;
        if let Some(server) = &mut self.nodes[n].server {
            let record = mld::Record::new(kind, self.prefix.group(channel), Vec::new());
            for message in report_messages(&[record], 1280) {
                server.handle_mld(INTERFACE, PROXY, 1, &message, now);
            }
        }
    }

    fn drive_server(&mut self, n: usize) {
        let now = self.start + self.time;
        loop {
            let node = &mut self.nodes[n];
            let wait = node.uplink.wait(self.time);
            if let Some(server) = node.server.as_mut().filter(|_| wait > MOST_WAIT) {
                server.hold(INTERFACE, wait, now + (wait - MOST_WAIT).max(STEP), now);
            }
            let Some(output) = node.server.as_mut().and_then(|s| s.poll_output(now)) else {
                break;
            };
            match output {
                Output::Query { destination, .. } => {
                    let of = SharePrefix::of_group(destination).map(|_| channel_of(destination));
                    let hosts = self.hosts().flat_map(|h| &h.forwarded);
                    let joined: BTreeSet<ChannelId> = hosts.copied().collect();
                    for channel in joined {
                        if of.is_none_or(|of| of == channel) && self.is_joined(n, channel) {
                            self.tell(n, RecordType::ModeIsExclude, channel);
                        }
                    }
                }
                Output::Record { datagram, .. } => self.send(n, ROOT_CHANNEL, &datagram.into()),
                Output::Symbols {
                    channel,
                    sequence,
                    ids,
                } => self.symbols(n, channel, sequence, &ids),
            }
        }
        let node = &mut self.nodes[n];
        if self
            .time
            .as_millis()
            .is_multiple_of(WIDTH_INTERVAL.as_millis())
            && let (Some(server), Some(host)) = (&mut node.server, &mut node.host)
        {
            let width = node.width.look(server.last_capacity());
            server.set_width(self.prefix, width);
            host.carries = Some((carrier_number(node.address), width));
        }
    }

    fn symbols(&mut self, n: usize, channel: Channel, sequence: u32, ids: &[u32]) {
        if matches!(self.nodes[n].manner, Manner::Silent | Manner::Boaster) {
            return;
        }
        let id = channel_of(channel.group);
        let server = self.nodes[n].server.as_ref().unwrap();
        let carried = server.share_of(channel.group).unwrap();
        let carried = carried.index.carried(id, 0).unwrap().located;
        let block = carried.block();
        let content = &self.content;
        let of_block = |channel| content.index.carried(channel, 0).unwrap().located;
        let plain = librecast::channel::block_channel(b"", &block.hash.0, 0);
        let encoder = self.encoders.entry(block.hash).or_insert_with(|| {
            Encoder::new(content.index.read_located(of_block(plain)).unwrap()).unwrap()
        });
        let mut datagrams: Vec<Rc<[u8]>> = Vec::new();
        for (at, esi) in ids.iter().enumerate() {
            let mut data = Vec::new();
            encoder.symbol(*esi, &mut data).unwrap();
            if self.nodes[n].manner == Manner::Garbage {
                data = vec![9; SYMBOL_SIZE];
            }
            let symbol = Symbol {
                server: n as u32 + 1,
                sequence: sequence + at as u32,
                channel: id,
                block_length: block.length,
                esi: *esi,
                data: &data,
            };
            datagrams.push(encode(&symbol).into());
        }
        for datagram in datagrams {
            self.send(n, id, &datagram);
        }
    }

    /// Sends a packet to all others that have joined.
    fn send(&mut self, n: usize, channel: ChannelId, payload: &Rc<[u8]>) {
        let joined = |other: &usize| {
            let host = self.nodes[*other].host.as_ref();
            *other != n && host.is_some_and(|h| h.forwarded.contains(&channel))
        };
        let to: Vec<usize> = (0..self.nodes.len()).filter(joined).collect();
        self.forward(n, n, channel, payload, &to, self.time);
    }

    /// Passes a packet of `source` on from `at_node`, one copy for each neighbour.
    fn forward(
        &mut self,
        source: usize,
        at_node: usize,
        channel: ChannelId,
        payload: &Rc<[u8]>,
        to: &[usize],
        at: Duration,
    ) {
        let mut by_neighbour: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for target in to.iter().filter(|target| **target != at_node) {
            let next = self.next_hop(at_node, *target);
            by_neighbour.entry(next).or_default().push(*target);
        }
        for (next, targets) in by_neighbour {
            let node = &mut self.nodes[at_node];
            if let Some(through) = node.uplink.pass(payload.len() + HEADERS, at) {
                node.copies += u64::from(channel != ROOT_CHANNEL);
                let arrival = (source, next, channel, Rc::clone(payload), targets);
                self.arrivals.push(through + DELAY, arrival);
            }
        }
    }

    fn next_hop(&self, from: usize, to: usize) -> usize {
        let Some(parents) = &self.parents else {
            return to;
        };
        let mut below = to;
        loop {
            if below == 0 {
                return parents[from];
            }
            if parents[below] == from {
                return below;
            }
            below = parents[below];
        }
    }

    fn arrive(&mut self, at: Duration, arrival: Arrival) {
        let (source, n, channel, payload, to) = arrival;
        let (from, now) = (self.nodes[source].address, self.start + at);
        if to.contains(&n)
            && let Some(host) = &mut self.nodes[n].host
            && host.kernel.is_member(channel)
        {
            host.take(channel, &payload, (from, INTERFACE), now);
        }
        self.forward(source, n, channel, &payload, &to, at);
    }

    fn drive_host(&mut self, n: usize) {
        let (time, now) = (self.time, self.start + self.time);
        let node = &mut self.nodes[n];
        let Some(host) = &mut node.host else {
            return;
        };
        let (address, carries) = (node.address, node.manner != Manner::Leaf);
        let contents = [Rc::clone(&self.content)];
        if carries {
            let own = (carrier_number(address), UNKNOWN_WIDTH);
            host.carries.get_or_insert(own);
        }
        host.drive(&contents, time, now, &mut self.random);
        let fresh = std::mem::take(&mut host.fresh);
        let tree = host.tree.take().filter(|_| carries);
        if let Some(tree) = tree {
            self.serve(n, Some(&tree));
        }
        let node = &mut self.nodes[n];
        if let Some(server) = &mut node.server {
            for block in fresh {
                server.handle_block(self.prefix, block, now);
            }
            if let Some(host) = &mut node.host {
                host.overdue
                    .extend(server.overdue(self.prefix, host.longest_awaited, now));
            }
        }
    }
}
