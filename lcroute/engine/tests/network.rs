//! Networks of engines under virtual time, from a ring to a full mesh: random joins, leaves, source
//! filters, sends, link flaps and restarts, from a seed. A model beside them knows all receivers.
//!
//! Control is ordered and lossless while a link lives; data is lost, doubled and reordered.

use crate::{common, seeds};

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{KERNEL, MDNS, addresses, config, group, neighbor, start, udp};
use lcroute_engine::carry::CarryRequest;
use lcroute_engine::classify::is_source_specific;
use lcroute_engine::{
    CarryAnswer, CarrySettings, Config, Consent, Engine, Limits, Output, PrivatePrefix, RoutedKind,
    SEALED, SECRET_LEN, Secret, Services, Tables,
};
use librecast::cert::GroupPrefix;
use librecast::id::{LinkId, OriginId};
use librecast::mld::{self, Message, Query, Record};
use librecast::random::Random;
use librecast::simulated::{self, Joined, Kernel, Path};

/// Groups with sealed packets: one byte of a group's number.
const PRIVATE: &str = "ff1e::/120";

/// Share of the data that is lost, and of the rest that is doubled.
const LOSS: f64 = 0.1;

/// A time from `low` up to `high` milliseconds.
fn ms(random: &mut Random, low: u64, high: u64) -> Duration {
    random.between(Duration::from_millis(low), Duration::from_millis(high))
}

struct Node {
    engine: Option<Engine>,
    incarnation: u32,
    next_link: u32,
    kernel: Kernel<()>,
    received: BTreeSet<u64>,
}

/// A connection of the overlay, and its state at both sides.
struct Connection {
    ends: [usize; 2],
    links: [LinkId; 2],
    up: [bool; 2],
    /// False: nothing arrives any more, even if a side has not noticed.
    alive: bool,
}

#[derive(Clone)]
enum Event {
    Message {
        connection: usize,
        to: usize,
        is_data: bool,
        message: Bytes,
    },
    LinkDown {
        connection: usize,
        side: usize,
    },
    Connect {
        a: usize,
        b: usize,
    },
    Start {
        node: usize,
    },
    Repeat {
        node: usize,
        group: Ipv6Addr,
    },
    Answer {
        node: usize,
        query: Query,
    },
}

#[derive(Default, Debug)]
struct Totals {
    sent: u64,
    delivered: u64,
    duplicates: u64,
    restarts: u64,
    flaps: u64,
    lost: u64,
}

struct Mesh {
    /// Pairs of nodes with a connection when all is well.
    pairs: Vec<(usize, usize)>,
    /// Nodes through which no paths lead.
    stubs: BTreeSet<usize>,
    announcers: BTreeSet<usize>,
    /// Nodes with a slow uplink, which ask others to announce.
    short: BTreeSet<usize>,
    now: Instant,
    nodes: Vec<Node>,
    connections: Vec<Connection>,
    sides: BTreeMap<(usize, LinkId), (usize, usize)>,
    network: simulated::Network<Instant, usize, Event>,
    limits: Limits,
    totals: Totals,
}

impl Mesh {
    fn new(size: usize, seed: u64, limits: Limits) -> Self {
        Self::with_stubs(size, 0.0, seed, limits)
    }

    /// Makes some nodes stub routers.
    fn with_stubs(size: usize, part: f64, seed: u64, limits: Limits) -> Self {
        let now = start();
        let node = |_| Node {
            engine: None,
            incarnation: 0,
            next_link: 0,
            kernel: Kernel::default(),
            received: BTreeSet::new(),
        };
        let path = Path {
            delay: Duration::from_millis(1),
            jitter: Duration::from_millis(59),
            loss: LOSS,
            duplicates: LOSS,
        };
        let mut network = simulated::Network::new(path, seed);
        let random = &mut network.random;
        // a ring, and some, all or none of the other pairs
        let density = [0.0, 0.2, 0.5, 1.0][random.index(4)];
        let all = (0..size).flat_map(|b| (0..b).map(move |a| (a, b)));
        let mut kept =
            |(a, b): &(usize, usize)| b - a == 1 || b - a == size - 1 || random.chance(density);
        let pairs = all.filter(|pair| kept(pair)).collect();
        let drawn: Vec<_> = (0..size)
            .filter(|_| part > 0.0 && random.chance(part))
            .collect();
        let mut mesh = Self {
            pairs,
            stubs: BTreeSet::new(),
            announcers: BTreeSet::new(),
            short: BTreeSet::new(),
            now,
            nodes: (0..size).map(node).collect(),
            connections: Vec::new(),
            sides: BTreeMap::new(),
            network,
            limits,
            totals: Totals::default(),
        };
        for stub in drawn {
            mesh.stubs.insert(stub);
            // if only a stub joins two halves, each has a rendezvous point, and the stub joins at
            // one
            let shares_trees = mesh.limits.source_trees < size;
            if shares_trees && (0..size).any(|n| mesh.reached(n).len() < size - 1) {
                mesh.stubs.remove(&stub);
            }
        }
        for n in 0..size {
            mesh.start(n);
        }
        mesh.run(Duration::from_secs(2));
        mesh
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.network.post(event, self.now + after);
    }

    /// Starts the daemon of a node and connects it with all running ones.
    fn start(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.incarnation += 1;
        node.kernel.forget_reports();
        // half of the nodes have not changed the key yet
        let secrets = if n.is_multiple_of(2) { [1, 2] } else { [2, 1] };
        let private = PrivatePrefix {
            prefix: PRIVATE.parse().unwrap(),
            secrets: secrets.map(|s| Secret::new([s; SECRET_LEN])).to_vec(),
            lans: false,
        };
        let config = Config {
            private: vec![private],
            incarnation: node.incarnation,
            limits: self.limits.clone(),
            transits: !self.stubs.contains(&n),
            ..config(n as u16 + 1)
        };
        let mut engine = common::engine(config, self.now);
        engine.handle_start(self.now);
        node.engine = Some(engine);
        self.drain(n);
        for (a, b) in self.pairs.clone() {
            if a == n || b == n {
                let after = ms(&mut self.network.random, 50, 500);
                self.at(after, Event::Connect { a, b });
            }
        }
    }

    fn kill(&mut self, n: usize) {
        self.nodes[n].engine = None;
        self.announcers.remove(&n);
        self.short.remove(&n);
        self.cut_off(n);
        let after = ms(&mut self.network.random, 10, 800);
        self.at(after, Event::Start { node: n });
        self.totals.restarts += 1;
    }

    fn cut_off(&mut self, n: usize) {
        for c in 0..self.connections.len() {
            if self.connections[c].alive && self.connections[c].ends.contains(&n) {
                self.cut(c);
            }
        }
    }

    /// Cuts the connection; each side notices in its own time.
    fn cut(&mut self, connection: usize) {
        self.connections[connection].alive = false;
        for side in 0..2 {
            let after = ms(&mut self.network.random, 0, 900);
            self.at(after, Event::LinkDown { connection, side });
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        if self.nodes[a].engine.is_none() || self.nodes[b].engine.is_none() {
            return;
        }
        let ends = [a, b];
        let links = ends.map(|n| {
            self.nodes[n].next_link += 1;
            LinkId(self.nodes[n].next_link)
        });
        for (side, end) in ends.into_iter().zip(links).enumerate() {
            self.sides.insert(end, (self.connections.len(), side));
        }
        self.connections.push(Connection {
            ends,
            links,
            up: [true; 2],
            alive: true,
        });
        for side in 0..2 {
            let other = neighbor(ends[1 - side] as u16 + 1);
            self.input(ends[side], |engine, now| {
                engine.handle_link_up(links[side], other, now);
            });
        }
    }

    fn is_connected(&self, a: usize, b: usize) -> bool {
        let between = |c: &Connection| c.alive && c.ends.contains(&a) && c.ends.contains(&b);
        self.connections.iter().any(between)
    }

    fn connect_pairs(&mut self) {
        for (a, b) in self.pairs.clone() {
            if !self.is_connected(a, b) {
                self.connect(a, b);
            }
        }
    }

    /// The carriers of the first node's packets.
    fn carriers(&self) -> Vec<OriginId> {
        let engine = self.nodes[0].engine.as_ref().unwrap();
        let carried = engine.carry().carried;
        carried.iter().map(|part| part.carrier).collect()
    }

    /// Gives the engine of a node an input, and handles its outputs.
    fn input(&mut self, n: usize, f: impl FnOnce(&mut Engine, Instant)) {
        if let Some(engine) = &mut self.nodes[n].engine {
            f(engine, self.now);
            self.drain(n);
        }
    }

    fn drain(&mut self, n: usize) {
        let poll = |node: &mut Node| node.engine.as_mut().and_then(Engine::poll_output);
        while let Some(output) = poll(&mut self.nodes[n]) {
            match output {
                Output::Data {
                    links,
                    header,
                    packet,
                } => {
                    let is_private =
                        packet[24..39] == [0xff, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                    assert_eq!(packet[6] == SEALED, is_private, "node {n}");
                    for link in links.iter() {
                        let message = [&header[..], &packet].concat().into();
                        self.transmit((n, *link), true, message);
                    }
                }
                Output::Control { link, message } | Output::RoutedControl { link, message } => {
                    self.transmit((n, link), false, message);
                }
                Output::Local { packet } => self.deliver(n, &packet),
                Output::LocalMld { packet } => self.write_mld(n, &packet),
                // the test decides on links
                Output::Wanted(_) | Output::Retire { .. } => {}
                Output::Reachable { .. } | Output::Renewed { .. } | Output::Epochs { .. } => {}
                other => panic!("node {n}: {other:?}"),
            }
        }
    }

    fn transmit(&mut self, from: (usize, LinkId), is_data: bool, message: Bytes) {
        let (n, _) = from;
        let side = self.sides.get(&from).copied();
        let (c, side) = side.expect("outputs name links that came up");
        let connection = &self.connections[c];
        assert!(connection.up[side], "a message for a link that is down");
        let to = 1 - side;
        let far = connection.ends[to];
        let event = Event::Message {
            connection: c,
            to,
            is_data,
            message,
        };
        if !is_data {
            return self.network.send_in_order(n, far, event, self.now);
        }
        let copies = self.network.send(n, far, event, self.now);
        self.totals.lost += u64::from(copies == 0);
    }

    /// Checks that an arriving packet is joined at this time, and no duplicate.
    fn deliver(&mut self, n: usize, packet: &[u8]) {
        let address =
            |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        let (source, group) = (address(8), address(24));
        let node = &mut self.nodes[n];
        assert!(
            node.kernel.has_joined(group, source),
            "node {n} got {group} from {source}, but wants {:?}",
            node.kernel.membership(group)
        );
        let id = u64::from_be_bytes(packet[48..56].try_into().unwrap());
        assert!(node.received.insert(id), "node {n} got packet {id} twice");
        self.totals.delivered += 1;
    }

    /// The kernel answers queries; a watching program reads reports.
    fn write_mld(&mut self, n: usize, packet: &[u8]) {
        match mld::parse_packet(packet).unwrap().1 {
            Message::Query(query) => {
                let after = Duration::from_millis(10);
                self.at(after, Event::Answer { node: n, query });
            }
            Message::Report(records) => self.nodes[n].kernel.watch(&records),
            other => panic!("{other:?} written into lc0"),
        }
    }

    fn report(&mut self, n: usize, records: &[Record]) {
        for packet in mld::report_packets(KERNEL, records, 1280) {
            self.input(n, |engine, now| {
                engine.handle_local_packet(packet.into(), now);
            });
        }
    }

    fn join(&mut self, n: usize, group: Ipv6Addr, to: &Joined) {
        // in a large network no join of a source-specific group is for all (RFC 4604 §2.2.2)
        if to.exclude && is_source_specific(group) && self.limits.small_network == 0 {
            return;
        }
        let records = self.nodes[n].kernel.join(group, to.clone(), ());
        if records.is_empty() {
            return;
        }
        self.report(n, &records);
        let after = ms(&mut self.network.random, 0, 1000);
        self.at(after, Event::Repeat { node: n, group });
    }

    fn source(&mut self, n: usize, group: Ipv6Addr) -> Ipv6Addr {
        let own = addresses(n as u16 + 1);
        if group == MDNS && self.network.random.chance(0.5) {
            own.link_local
        } else {
            own.address
        }
    }

    /// A program sends. Returns the packet's number and source.
    fn send(&mut self, n: usize, group: Ipv6Addr) -> (u64, Ipv6Addr) {
        let source = self.source(n, group);
        self.totals.sent += 1;
        let id = self.totals.sent;
        let packet = udp(source, group, &id.to_be_bytes());
        self.input(n, |engine, now| {
            engine.handle_local_packet(packet.into(), now);
        });
        (id, source)
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let event = self.network.next_timeout();
            let timer = (0..self.nodes.len())
                .filter_map(|n| Some((self.nodes[n].engine.as_ref()?.next_timeout()?.0, n)))
                .min();
            match (event, timer) {
                (Some(due), timer) if due <= end && timer.is_none_or(|(at, _)| due <= at) => {
                    self.now = self.now.max(due);
                    let event = self.network.poll(due).expect("it is due");
                    self.happen(event);
                }
                (_, Some((at, n))) if at <= end => {
                    self.now = self.now.max(at);
                    self.input(n, |engine, now| engine.handle_timeout(now));
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message {
                connection,
                to,
                is_data,
                message,
            } => {
                if let Some((n, link)) = self.receiver(connection, to) {
                    self.input(n, |engine, now| match is_data {
                        true => engine.handle_data(link, message, now),
                        false => engine.handle_control(link, &message, now),
                    });
                }
            }
            Event::LinkDown { connection, side } => self.link_down(connection, side),
            Event::Connect { a, b } if self.is_connected(a, b) => {}
            Event::Connect { a, b } => self.connect(a, b),
            Event::Start { node } => self.start(node),
            Event::Repeat { node, group } => {
                let records = self.nodes[node].kernel.repeat(group);
                self.report(node, &records);
            }
            Event::Answer { node, query } => {
                let records = self.nodes[node].kernel.answer(&query);
                self.report(node, &records);
            }
        }
    }

    fn receiver(&self, connection: usize, side: usize) -> Option<(usize, LinkId)> {
        let c = &self.connections[connection];
        (c.alive && c.up[side]).then_some((c.ends[side], c.links[side]))
    }

    fn link_down(&mut self, connection: usize, side: usize) {
        let c = &mut self.connections[connection];
        let (n, link) = (c.ends[side], c.links[side]);
        if std::mem::take(&mut c.up[side]) && self.is_of_this_run(n, connection, side) {
            self.input(n, |engine, now| engine.handle_link_down(link, now));
        }
    }

    /// A restarted daemon does not know its earlier links, and the test does not report them.
    fn is_of_this_run(&self, n: usize, connection: usize, side: usize) -> bool {
        let link = self.connections[connection].links[side];
        let engine = self.nodes[n].engine.as_ref();
        engine.is_some_and(|e| e.snapshot().neighbors.iter().any(|nb| nb.link == link))
    }

    fn step(&mut self, groups: &[Ipv6Addr]) {
        let size = self.nodes.len();
        let n = self.network.random.index(size);
        let group = groups[self.network.random.index(groups.len())];
        match self.network.random.below(100) {
            0..45 => {
                self.send(n, group);
            }
            45..60 => self.join(n, group, &Joined::everything()),
            60..75 => self.join(n, group, &Joined::default()),
            75..88 => {
                let exclude = self.network.random.chance(0.4);
                let sources = (0..size)
                    .filter(|_| self.network.random.chance(0.4))
                    .map(|other| addresses(other as u16 + 1).address)
                    .collect();
                self.join(n, group, &Joined::new(exclude, sources));
            }
            88..92 => self.flap(n),
            92..93 if self.nodes[n].engine.is_some() => self.kill(n),
            93..95 if !self.stubs.contains(&n) => self.announce(n, group),
            95 => self.limit_uplink(n),
            _ => {
                let time = ms(&mut self.network.random, 1, 400);
                self.run(time);
            }
        }
    }

    /// A node announces the group or a prefix around it, or nothing any more.
    fn announce(&mut self, n: usize, group: Ipv6Addr) {
        let len = [128, 127, 120, 16, 0][self.network.random.index(5)];
        let prefix = GroupPrefix::around(group, len);
        let announced = prefix.filter(|_| len > 0 && !is_source_specific(group));
        match announced {
            Some(_) => self.announcers.insert(n),
            None => self.announcers.remove(&n),
        };
        self.input(n, |engine, now| {
            engine.set_announced(announced.into_iter().collect(), now);
        });
    }

    /// The uplink of a node is short from now on, or it is not; and it carries for everybody, for
    /// some or for nobody.
    fn limit_uplink(&mut self, n: usize) {
        let upload = self.network.random.chance(0.7).then_some(0);
        let consent = [Consent::Joined, Consent::Any, Consent::No][self.network.random.index(3)];
        match upload {
            Some(_) => self.short.insert(n),
            None => self.short.remove(&n),
        };
        let settings = CarrySettings {
            upload,
            consent,
            ..CarrySettings::default()
        };
        self.input(n, |engine, now| engine.set_carry(settings, now));
    }

    /// A new connection comes up before or after the old one breaks.
    fn flap(&mut self, n: usize) {
        let live: Vec<_> = (0..self.connections.len())
            .filter(|c| self.connections[*c].alive && self.connections[*c].ends.contains(&n))
            .collect();
        if live.is_empty() {
            return;
        }
        let c = live[self.network.random.index(live.len())];
        let [a, b] = self.connections[c].ends;
        let before_break = self.network.random.chance(0.3);
        if before_break {
            self.connect(a, b);
            let time = ms(&mut self.network.random, 0, 200);
            self.run(time);
            if !self.connections[c].alive {
                return;
            }
        }
        self.cut(c);
        if !before_break {
            let after = ms(&mut self.network.random, 0, 2000);
            self.at(after, Event::Connect { a, b });
        }
        self.totals.flaps += 1;
    }

    /// The other nodes that `n` reaches, not through a stub, when all is well.
    fn reached(&self, n: usize) -> BTreeSet<usize> {
        let (mut reached, mut waiting) = (BTreeSet::from([n]), vec![n]);
        while let Some(at) = waiting.pop() {
            if at != n && self.stubs.contains(&at) {
                continue;
            }
            let ways = self.pairs.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
            let ends = ways.filter(|(a, _)| *a == at).map(|(_, b)| b);
            waiting.extend(ends.filter(|end| reached.insert(*end)));
        }
        reached.remove(&n);
        reached
    }

    /// The receivers of a packet of node `n`.
    fn listeners(&self, n: usize, group: Ipv6Addr, source: Ipv6Addr) -> BTreeSet<usize> {
        let others = self.reached(n).into_iter();
        others
            .filter(|o| self.nodes[*o].kernel.has_joined(group, source))
            .collect()
    }

    /// Checks that after a quiet time all listeners receive packets, over the fewest links.
    fn check_quiet(&mut self, groups: &[Ipv6Addr]) {
        (self.network.path.loss, self.network.path.duplicates) = (0.0, 0.0);
        self.run(Duration::from_secs(12));
        for n in 0..self.nodes.len() {
            for group in groups {
                let before = self.link_packets();
                let of_stubs = self.packets_of_stubs(n);
                let (id, source) = self.send(n, *group);
                let expected = self.listeners(n, *group, source);
                // SourceActive to the root, Join back, and the packet itself
                self.run(Duration::from_millis(180 * self.nodes.len() as u64));
                let used = self.link_packets() - before;
                // a tree that reaches the listeners, over no link twice
                let (least, most) = (expected.len() as u64, self.nodes.len() as u64 - 1);
                let most = match (expected.is_empty(), self.is_direct()) {
                    (true, _) => 0,
                    (false, true) => least,
                    (false, false) => most,
                };
                assert!(
                    (least..=most).contains(&used),
                    "{used} links used for {expected:?}"
                );
                let got: BTreeSet<_> = (0..self.nodes.len())
                    .filter(|o| self.nodes[*o].received.contains(&id))
                    .collect();
                assert_eq!(got, expected, "{group} from node {n}, {source}");
                assert_eq!(self.packets_of_stubs(n), of_stubs, "a stub passed it on");
                if self.limits.small_network > 0 {
                    self.check_watched(n, *group);
                }
            }
        }
        (self.network.path.loss, self.network.path.duplicates) = (LOSS, LOSS);
    }

    /// Whether all nodes are linked with all and send on source trees.
    fn is_direct(&self) -> bool {
        let size = self.nodes.len();
        let is_mesh = self.pairs.len() == size * (size - 1) / 2;
        is_mesh
            && self.limits.source_trees >= size
            && self.announcers.is_empty()
            && self.short.is_empty()
    }

    fn link_packets(&self) -> u64 {
        (0..self.nodes.len()).map(|n| self.packets_of(n)).sum()
    }

    /// Number of packets sent by all stubs except `n`.
    fn packets_of_stubs(&self, n: usize) -> u64 {
        let others = self.stubs.iter().filter(|stub| **stub != n);
        others.map(|stub| self.packets_of(*stub)).sum()
    }

    fn packets_of(&self, n: usize) -> u64 {
        let engine = self.nodes[n].engine.as_ref();
        let engine = engine.expect("all run when it is quiet");
        engine.counters().link_tx_packets
    }

    /// Checks that a program that watches MLD knows exactly whether other nodes join its packets.
    fn check_watched(&self, n: usize, group: Ipv6Addr) {
        let own = addresses(n as u16 + 1);
        let sources = [own.address, own.link_local];
        for source in sources.into_iter().take(if group == MDNS { 2 } else { 1 }) {
            let wanted = !self.listeners(n, group, source).is_empty();
            let seen = self.nodes[n].kernel.sees_listener(group, source);
            assert_eq!(seen, wanted, "what node {n} sees of {group} and {source}");
        }
    }

    /// Checks that all tables are empty once all joins and links are gone.
    fn check_empty(&mut self, groups: &[Ipv6Addr]) {
        for n in 0..self.nodes.len() {
            for group in groups {
                self.join(n, *group, &Joined::default());
            }
            self.input(n, |engine, now| {
                engine.set_announced(Vec::new(), now);
            });
        }
        self.run(Duration::from_secs(5));
        for node in &self.nodes {
            let snapshot = node.engine.as_ref().expect("it runs").snapshot();
            assert!(snapshot.groups.is_empty(), "{:?}", snapshot.groups);
            assert_eq!(node.kernel.watched().next(), None);
        }
        for c in 0..self.connections.len() {
            self.connections[c].alive = false;
            self.link_down(c, 0);
            self.link_down(c, 1);
        }
        self.run(Duration::from_secs(130));
        for node in &self.nodes {
            let snapshot = node.engine.as_ref().expect("it runs").snapshot();
            // former routers are remembered for an hour
            let tables = Tables {
                routers: 0,
                ..snapshot.tables
            };
            assert_eq!(tables, Tables::default());
            assert!(snapshot.neighbors.is_empty());
        }
    }

    fn count_duplicates(&mut self) {
        for engine in self.nodes.iter().filter_map(|n| n.engine.as_ref()) {
            let drops = engine.snapshot().counters.drops;
            self.totals.duplicates += drops.get("duplicate").copied().unwrap_or(0);
        }
    }
}

fn groups() -> Vec<Ipv6Addr> {
    let mut groups: Vec<_> = (1..5).map(group).collect();
    groups.push("ff3e::8000:1".parse().unwrap());
    groups.push("ff05::5".parse().unwrap());
    groups.push(MDNS);
    groups
}

fn run_seed(size: usize, seed: u64, steps: usize) -> Totals {
    let groups = groups();
    // in a large network no router sends SourceActive for everything
    let small_network = if seed.is_multiple_of(3) { 0 } else { 32 };
    // in a tiny network each node sends on its own tree
    let source_trees = if seed % 3 == 1 { 8 } else { 0 };
    let limits = Limits {
        small_network,
        source_trees,
        ..Limits::default()
    };
    let stubs = if seed < SEEDS { 0.0 } else { 0.3 };
    let mut mesh = Mesh::with_stubs(size, stubs, seed, limits);
    for step in 1..=steps {
        mesh.step(&groups);
        if step % 500 == 0 {
            mesh.check_quiet(&groups);
        }
    }
    mesh.check_quiet(&groups);
    mesh.count_duplicates();
    mesh.check_empty(&groups);
    mesh.totals
}

/// Seeds of runs with 4,000 steps each in a network of 2 to 8 nodes.
const SEEDS: u64 = 40;
/// Seeds of further runs with stub routers.
const SEEDS_WITH_STUBS: u64 = 20;

#[test]
fn random_networks_deliver_exactly_what_is_joined() {
    let mut all = Totals::default();
    // with some of them, too, networks have all sizes and limits
    for seed in seeds(0..SEEDS, 4) {
        let size = 2 + seed as usize % 7;
        println!("seed {seed}, {size} nodes");
        let totals = run_seed(size, seed, 4_000);
        all.delivered += totals.delivered;
        all.duplicates += totals.duplicates;
        all.restarts += totals.restarts;
        all.flaps += totals.flaps;
        all.lost += totals.lost;
    }
    // faults did happen
    assert!(
        all.delivered > 1_000 && all.duplicates > 100 && all.lost > 100,
        "{all:?}"
    );
    assert!(all.restarts > 20 && all.flaps > 100, "{all:?}");
}

#[test]
fn a_router_that_has_just_come_gets_nothing_that_it_has_not_joined() {
    for seed in 0..20 {
        let limits = Limits {
            small_network: 32,
            source_trees: 8,
            ..Limits::default()
        };
        let mut mesh = Mesh::new(4, seed, limits);
        mesh.network.path.loss = 0.0;
        mesh.pairs = vec![(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)];
        let newcomer = 3;
        if seed % 2 == 0 {
            mesh.stubs.insert(newcomer);
        }
        mesh.nodes[newcomer].engine = None;
        mesh.cut_off(newcomer);
        mesh.run(Duration::from_secs(3));
        mesh.connect_pairs();
        let everything = Joined::everything();
        for n in 0..newcomer {
            mesh.join(n, group(1), &everything);
        }
        mesh.run(Duration::from_secs(5));
        mesh.start(newcomer);
        for _ in 0..60 {
            for n in 0..newcomer {
                let before = mesh.link_packets();
                mesh.send(n, group(1));
                assert_eq!(
                    mesh.link_packets() - before,
                    2,
                    "seed {seed}, from node {n}"
                );
            }
            mesh.run(Duration::from_millis(50));
        }
    }
}

#[test]
fn stub_routers_pass_nothing_on() {
    for seed in seeds(SEEDS..SEEDS + SEEDS_WITH_STUBS, 5) {
        let size = 3 + seed as usize % 6;
        println!("seed {seed}, {size} nodes");
        run_seed(size, seed, 2_000);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || format!("{:?}", run_seed(4, 99, 500));
    assert_eq!(run(), run());
}

#[test]
fn refused_joins_get_through_when_there_is_room() {
    let limits = Limits {
        join_states_per_neighbor: 4,
        ..Limits::default()
    };
    let mut mesh = Mesh::new(3, 7, limits);
    mesh.network.path.loss = 0.0;
    for n in 1..=24 {
        mesh.join(0, group(n), &Joined::everything());
    }
    mesh.run(Duration::from_secs(3));
    let refused = |mesh: &Mesh| {
        mesh.nodes[0]
            .engine
            .as_ref()
            .unwrap()
            .snapshot()
            .tables
            .refused
    };
    let kept = |mesh: &Mesh, n: u16| {
        let engine = mesh.nodes[1].engine.as_ref().unwrap();
        let groups = engine.snapshot().groups;
        groups.iter().any(|g| g.group == group(n))
    };
    assert!(refused(&mesh) > 0);
    // a refused group is not reached; other groups and other nodes are not harmed
    let served: Vec<u16> = (1..=24).filter(|n| kept(&mesh, *n)).collect();
    assert!((1..24).contains(&served.len()), "{served:?}");
    let before = mesh.totals.delivered;
    for n in 1..=24 {
        mesh.send(1, group(n));
    }
    mesh.run(Duration::from_millis(400));
    assert_eq!(mesh.totals.delivered - before, served.len() as u64);
    for n in 3..=24 {
        mesh.join(0, group(n), &Joined::default());
    }
    mesh.run(Duration::from_secs(60));
    assert_eq!(refused(&mesh), 0);
    let left: Vec<_> = mesh.nodes[0].kernel.groups().collect();
    let before = mesh.totals.delivered;
    for group in &left {
        mesh.send(1, *group);
        mesh.send(2, *group);
    }
    mesh.run(Duration::from_millis(400));
    assert_eq!(mesh.totals.delivered - before, 2 * left.len() as u64);
}

/// A single group and prefixes around it are announced, elsewhere and at a listener, and withdrawn.
#[test]
fn announcements_cut_nobody_off() {
    for (seed, len) in (0..).zip([128, 128, 127, 120]) {
        let small_network = if seed % 2 == 0 { 32 } else { 0 };
        let limits = Limits {
            small_network,
            source_trees: 8,
            ..Limits::default()
        };
        let mut mesh = Mesh::new(6, seed, limits);
        mesh.network.path.loss = 0.0;
        for n in 1..5 {
            mesh.join(n, group(1), &Joined::everything());
        }
        mesh.run(Duration::from_secs(15));
        let announced = GroupPrefix::around(group(1), len).unwrap();
        for announcer in [1, 5, 0] {
            for prefixes in [vec![announced], vec![]] {
                mesh.input(announcer, |engine, now| {
                    assert!(engine.set_announced(prefixes, now).is_empty());
                });
                let before = mesh.totals.delivered;
                for _ in 0..600 {
                    mesh.send(0, group(1));
                    mesh.run(Duration::from_millis(10));
                }
                mesh.run(Duration::from_secs(2));
                let delivered = mesh.totals.delivered - before;
                assert_eq!(delivered, 4 * 600, "/{len} at node {announcer}");
                if small_network > 0 {
                    mesh.check_watched(0, group(1));
                }
            }
        }
    }
}

/// A program that gathers answers announces its group, and the kernel reports its join a moment
/// later. The same again and again, while the sender's flow is remembered.
#[test]
fn a_listener_that_joins_after_its_announcement_gets_the_first_answer() {
    for seed in 0..8 {
        let mut mesh = Mesh::new(2, seed, Limits::default());
        mesh.network.path.loss = 0.0;
        mesh.run(Duration::from_secs(15));
        let answers = GroupPrefix::around(group(1), 128).unwrap();
        for round in 0..4 {
            mesh.input(1, |engine, now| {
                assert!(engine.set_announced(vec![answers], now).is_empty());
            });
            mesh.run(Duration::from_millis(20));
            mesh.join(1, group(1), &Joined::everything());
            mesh.run(Duration::from_millis(100));
            let before = mesh.totals.delivered;
            mesh.send(0, group(1));
            mesh.run(Duration::from_millis(400));
            let delivered = mesh.totals.delivered - before;
            assert_eq!(delivered, 1, "seed {seed}, round {round}");
            mesh.join(1, group(1), &Joined::default());
            mesh.input(1, |engine, now| {
                assert!(engine.set_announced(vec![], now).is_empty());
            });
            mesh.run(Duration::from_secs(10));
        }
    }
}

#[test]
fn listeners_are_served_across_query_intervals() {
    let mut mesh = Mesh::new(3, 8, Limits::default());
    mesh.network.path.loss = 0.0;
    mesh.join(1, group(1), &Joined::everything());
    mesh.join(
        2,
        group(1),
        &Joined::new(false, [addresses(1).address].into()),
    );
    mesh.run(Duration::from_secs(2));
    let before = mesh.totals.delivered;
    for _ in 0..2_000 {
        mesh.send(0, group(1));
        mesh.run(Duration::from_millis(700));
    }
    mesh.run(Duration::from_secs(1));
    assert_eq!(
        mesh.totals.delivered - before,
        4_000,
        "over eleven query intervals"
    );
}

#[test]
fn a_way_that_gets_better_loses_nothing() {
    for seed in seeds(0..20, 4) {
        let mut mesh = Mesh::new(3, seed, Limits::default());
        mesh.network.path.loss = 0.0;
        mesh.join(2, group(1), &Joined::everything());
        mesh.run(Duration::from_secs(15));
        for _ in 0..5 {
            let direct = |c: &Connection| c.alive && c.ends.contains(&0) && c.ends.contains(&2);
            let direct = mesh.connections.iter().position(direct).unwrap();
            mesh.cut(direct);
            mesh.run(Duration::from_secs(10));
            let before = mesh.totals.delivered;
            for n in 0..600 {
                if n == 100 {
                    mesh.connect(0, 2);
                }
                mesh.send(0, group(1));
                mesh.run(Duration::from_millis(5));
            }
            mesh.run(Duration::from_secs(10));
            assert_eq!(mesh.totals.delivered - before, 600, "seed {seed}");
        }
    }
}

/// Six nodes in a mesh, five of which listen to the first.
struct Stream {
    mesh: Mesh,
}

impl Stream {
    /// Bits a second that a tenth of a second's packets make, with all their copies, is more than
    /// the half of.
    const UPLOAD: u64 = 200_000;

    fn new(seed: u64) -> Self {
        let limits = Limits {
            source_trees: 8,
            ..Limits::default()
        };
        let mut mesh = Mesh::new(6, seed, limits);
        mesh.pairs = (0..6).flat_map(|b| (0..b).map(move |a| (a, b))).collect();
        mesh.network.path.loss = 0.0;
        mesh.connect_pairs();
        for n in 1..6 {
            mesh.join(n, group(1), &Joined::everything());
        }
        mesh.run(Duration::from_secs(15));
        Self { mesh }
    }

    fn set_carry(&mut self, n: usize, upload: Option<u64>, consent: Consent) {
        let settings = CarrySettings {
            upload,
            consent,
            ..CarrySettings::default()
        };
        self.mesh
            .input(n, |engine, now| engine.set_carry(settings, now));
    }

    /// Sends 100 packets a second: copies that left the sender, and packets that arrived.
    fn send(&mut self, time: Duration) -> (u64, u64) {
        let before = (self.mesh.packets_of(0), self.mesh.totals.delivered);
        let packets = time.as_millis() / 10;
        for _ in 0..packets {
            self.mesh.send(0, group(1));
            self.mesh.run(Duration::from_millis(10));
        }
        // packets on their way arrive
        self.mesh.run(Duration::from_millis(400));
        let delivered = self.mesh.totals.delivered - before.1;
        (self.mesh.packets_of(0) - before.0, delivered)
    }

    fn carrier(&self) -> usize {
        let [carrier] = self.mesh.carriers()[..] else {
            panic!("{:?}", self.mesh.carriers());
        };
        let is_carrier = |n: &usize| addresses(*n as u16 + 1).origin == carrier;
        (0..6).find(is_carrier).unwrap()
    }
}

#[test]
fn a_short_uplink_sends_one_copy_and_nothing_is_lost_meanwhile() {
    for seed in seeds(0..10, 3) {
        let mut stream = Stream::new(seed);
        let second = Duration::from_secs(1);
        assert_eq!(
            stream.send(second).0,
            500,
            "an uplink of which nothing is known"
        );
        stream.set_carry(0, Some(Stream::UPLOAD), Consent::Joined);
        let (_, delivered) = stream.send(20 * second);
        assert_eq!(delivered, 20 * 500, "seed {seed}");
        let (copies, _) = stream.send(second);
        assert_eq!(copies, 100, "seed {seed}");
        stream.carrier();
        // some leases
        let seconds = if seed == 0 { 300 } else { 10 };
        let packets = stream.send(seconds * second).0;
        assert_eq!(packets, 100 * u64::from(seconds), "seed {seed}");
    }
}

#[test]
fn a_carrier_that_dies_is_replaced() {
    for seed in seeds(0..10, 3) {
        let mut stream = Stream::new(seed);
        let second = Duration::from_secs(1);
        stream.set_carry(0, Some(0), Consent::Joined);
        stream.send(10 * second);
        let first = stream.carrier();
        stream.mesh.nodes[first].engine = None;
        stream.mesh.cut_off(first);
        stream.send(10 * second);
        assert_ne!(stream.carrier(), first, "seed {seed}");
        assert_eq!(stream.send(second), (100, 400), "seed {seed}");
        // nothing is sent for a minute: the group is its own again
        stream.mesh.run(70 * second);
        assert_eq!(stream.mesh.carriers(), []);
    }
}

#[test]
fn nobody_carries_without_consent_or_a_listener() {
    let mut stream = Stream::new(3);
    let second = Duration::from_secs(1);
    for n in 1..6 {
        stream.set_carry(n, None, Consent::No);
    }
    stream.set_carry(0, Some(0), Consent::Joined);
    assert_eq!(stream.send(30 * second), (15_000, 15_000));
    assert_eq!(stream.mesh.carriers(), []);
    let refusals = |stream: &Stream| {
        let engine = stream.mesh.nodes[0].engine.as_ref().unwrap();
        engine.carry().refusals
    };
    assert_eq!(refusals(&stream).len(), 5);
    assert!(
        refusals(&stream)
            .iter()
            .all(|(_, answer)| *answer == Some(CarryAnswer::No))
    );
    // one listener is left, and one that does not listen carries for anybody
    for n in 1..6 {
        stream.set_carry(n, None, Consent::Joined);
    }
    stream.mesh.run(70 * second);
    for n in 3..6 {
        stream.mesh.join(n, group(1), &Joined::default());
    }
    stream.send(20 * second);
    assert!([1, 2].contains(&stream.carrier()));
    for n in 1..6 {
        let consent = if n == 5 { Consent::Any } else { Consent::No };
        stream.set_carry(n, None, consent);
    }
    stream.send(20 * second);
    assert_eq!(stream.carrier(), 5);
    // its own uplink is slow: it gives the group back, and is not asked for a minute
    stream.set_carry(5, Some(10_000), Consent::Any);
    stream.send(10 * second);
    assert_eq!(stream.mesh.carriers(), []);
    assert_eq!(stream.send(second), (200, 200));
}

/// Node 2 asks node 3 for what is not its own, with what is not its signature, or again.
#[test]
fn nobody_moves_groups_of_others() {
    let mut stream = Stream::new(5);
    let second = Duration::from_secs(1);
    let prefix = |text: &str| -> GroupPrefix { text.parse().unwrap() };
    stream.mesh.input(0, |engine, now| {
        engine.set_announced(vec![prefix("ff1e:0:0:7::/64")], now);
    });
    stream.mesh.input(1, |engine, now| {
        engine.set_announced(vec![prefix("ff1e:0:0:8::/64")], now);
    });
    stream.set_carry(2, None, Consent::Any);
    stream.mesh.run(5 * second);
    let origin = |n: usize| addresses(n as u16 + 1).origin;
    let carries = |mesh: &Mesh| {
        let carries = mesh.nodes[2].engine.as_ref().unwrap().carry().carries;
        let parts = carries
            .into_iter()
            .map(|carried| (carried.sender, carried.parts));
        parts.collect::<Vec<_>>()
    };
    let refused = |mesh: &Mesh| {
        let snapshot = mesh.nodes[2].engine.as_ref().unwrap().snapshot();
        let drops = snapshot.counters.drops;
        drops.get("carry_refused").copied().unwrap_or(0)
    };
    let mut sequence = 0;
    let mut request = |signer: usize, carrier: usize, part: &str| {
        sequence += 1;
        let request = CarryRequest {
            incarnation: 1,
            sequence,
            parts: vec![prefix(part)],
        };
        let services = common::services(signer as u16 + 1);
        let sign = |message: &[u8]| services.sign(message);
        request.encode(origin(carrier), sign).0
    };
    let send = |mesh: &mut Mesh, payload: &Bytes| {
        mesh.input(1, |engine, now| {
            let kind = RoutedKind::Carry;
            engine
                .send_routed(origin(2), kind, payload.clone(), now)
                .unwrap();
        });
        mesh.run(second);
    };
    // parts of another node's prefix, of nobody's, groups of another node's, of link scope,
    // source-specific, of its own prefix as a whole
    for part in [
        "ff1e:0:0:7::/68",
        "ff1e:0:0:9::/68",
        "ff1e:0:0:7::4/127",
        "ff02::fa/127",
        "ff3e::8000:0/127",
        "ff1e:0:0:8::/64",
        "ff00::/8",
    ] {
        let asked = request(1, 2, part);
        send(&mut stream.mesh, &asked);
        assert_eq!(carries(&stream.mesh), [], "{part}");
    }
    assert_eq!(
        refused(&stream.mesh),
        0,
        "these were signed: the answer says why not"
    );
    // another node's key, another carrier, noise
    for payload in [
        request(3, 2, "ff1e:0:0:8::/68"),
        request(1, 3, "ff1e:0:0:8::/68"),
        Bytes::from_static(b"\x01noise"),
    ] {
        let before = refused(&stream.mesh);
        send(&mut stream.mesh, &payload);
        assert_eq!(refused(&stream.mesh), before + 1);
        assert_eq!(carries(&stream.mesh), []);
    }
    // what is its own, once; the same again is old
    let part = request(1, 2, "ff1e:0:0:8::/68");
    send(&mut stream.mesh, &part);
    let own = (origin(1), vec![prefix("ff1e:0:0:8::/68")]);
    assert_eq!(carries(&stream.mesh), [own]);
    let group = request(1, 2, "ff1e::4/127");
    send(&mut stream.mesh, &group);
    let before = refused(&stream.mesh);
    send(&mut stream.mesh, &part);
    assert_eq!(refused(&stream.mesh), before + 1);
    let own = (origin(1), vec![prefix("ff1e::4/127")]);
    assert_eq!(carries(&stream.mesh), [own]);
    // nobody renews the lease
    stream.mesh.run(61 * second);
    assert_eq!(carries(&stream.mesh), []);
}

/// Each sender gets half of the room that the others leave, the last one as well.
#[test]
fn a_carrier_leaves_room_for_the_next_sender() {
    let mut stream = Stream::new(6);
    let second = Duration::from_secs(1);
    stream.set_carry(2, None, Consent::Any);
    let carries = |stream: &Stream| {
        let carries = stream.mesh.nodes[2]
            .engine
            .as_ref()
            .unwrap()
            .carry()
            .carries;
        let parts = carries.into_iter().map(|c| (c.sender, c.parts.len()));
        parts.collect::<BTreeSet<_>>()
    };
    let part = |sender: usize, n: usize| -> GroupPrefix {
        format!("ff1e:0:0:{sender}:{n:x}000::/68").parse().unwrap()
    };
    let origin = |n: usize| addresses(n as u16 + 1).origin;
    let ask = |stream: &mut Stream, sender: usize, sequence, parts: usize| {
        let announced = format!("ff1e:0:0:{sender}::/64").parse().unwrap();
        stream.mesh.input(sender, |engine, now| {
            engine.set_announced(vec![announced], now);
        });
        stream.mesh.run(second);
        let request = CarryRequest {
            incarnation: 1,
            sequence,
            parts: (0..parts).map(|n| part(sender, n)).collect(),
        };
        let services = common::services(sender as u16 + 1);
        let payload = request
            .encode(origin(2), |message| services.sign(message))
            .0;
        stream.mesh.input(sender, |engine, now| {
            let kind = RoutedKind::Carry;
            engine.send_routed(origin(2), kind, payload, now).unwrap();
        });
        stream.mesh.run(second);
    };
    for sender in [0, 1, 3, 4] {
        ask(&mut stream, sender, 1, 16);
    }
    let expected = [(0, 16), (1, 8), (3, 4), (4, 2)].map(|(n, parts)| (origin(n), parts));
    assert_eq!(carries(&stream), expected.into());
    // who gives parts back leaves half of them to the next one that asks
    ask(&mut stream, 0, 2, 0);
    ask(&mut stream, 4, 2, 16);
    let expected = [(1, 8), (3, 4), (4, 10)].map(|(n, parts)| (origin(n), parts));
    assert_eq!(carries(&stream), expected.into());
}

/// A prefix that its sender announces, and five listeners of all groups that it sends.
#[test]
fn the_parts_of_a_prefix_are_spread_over_its_listeners() {
    for seed in 0..5 {
        let mut stream = Stream::new(seed);
        let second = Duration::from_secs(1);
        let announced: GroupPrefix = "ff1e:0:0:7::/64".parse().unwrap();
        stream.mesh.input(0, |engine, now| {
            engine.set_announced(vec![announced], now);
        });
        let of = |n: u16| Ipv6Addr::new(0xff1e, 0, 0, 7, n << 10, 0, 0, n);
        for n in 1..6 {
            for group in 0..64 {
                stream.mesh.join(n, of(group), &Joined::everything());
            }
        }
        stream.mesh.run(5 * second);
        stream.set_carry(0, Some(Stream::UPLOAD), Consent::Joined);
        let send = |mesh: &mut Mesh| {
            let before = (mesh.packets_of(0), mesh.totals.delivered);
            for n in 0..640 {
                mesh.send(0, of(n % 64));
                mesh.run(Duration::from_millis(10));
            }
            mesh.run(Duration::from_millis(400));
            (
                mesh.packets_of(0) - before.0,
                mesh.totals.delivered - before.1,
            )
        };
        // copies of a prefix count once they are settled
        for _ in 0..2 {
            assert_eq!(send(&mut stream.mesh).1, 640 * 5, "seed {seed}");
        }
        assert_eq!(send(&mut stream.mesh), (640, 640 * 5), "seed {seed}");
        let carriers = stream.mesh.carriers();
        assert_eq!(carriers.len(), 16);
        let all: BTreeSet<_> = carriers.iter().collect();
        assert_eq!(all.len(), 5, "{carriers:?}");
    }
}

/// Node 0 sends parts of its prefixes to node 3, over nodes 1 and 2, which listen to nothing.
struct Diamond {
    mesh: Mesh,
    prefixes: u16,
}

impl Diamond {
    const GROUPS: u16 = 64;

    fn new(seed: u64, prefixes: u16) -> Self {
        let mut mesh = Mesh::new(4, seed, Limits::default());
        let pairs = vec![(0, 1), (0, 2), (1, 3), (2, 3)];
        mesh.network.path.loss = 0.0;
        for c in 0..mesh.connections.len() {
            let [a, b] = mesh.connections[c].ends;
            if !pairs.contains(&(a.min(b), a.max(b))) {
                mesh.cut(c);
            }
        }
        mesh.pairs = pairs;
        mesh.connect_pairs();
        let announced = |p| GroupPrefix::new(Ipv6Addr::new(0xff1e, 0, 0, 7 + p, 0, 0, 0, 0), 64);
        mesh.input(0, |engine, now| {
            let announced = (0..prefixes).map(|p| announced(p).unwrap());
            engine.set_announced(announced.collect(), now);
        });
        for n in 0..Self::GROUPS {
            for p in 0..prefixes {
                mesh.join(3, Self::group(p, n), &Joined::everything());
            }
        }
        mesh.run(Duration::from_secs(15));
        Self { mesh, prefixes }
    }

    fn group(prefix: u16, n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0, 0, 7 + prefix, n << 10, 0, 0, n)
    }

    /// 1,250 packets of 56 bytes a second to each prefix: those that nodes 1 and 2 passed on.
    fn send(&mut self, seconds: u64) -> [u64; 2] {
        let packets = |mesh: &Mesh| [1, 2].map(|n| mesh.packets_of(n));
        let (before, delivered) = (packets(&self.mesh), self.mesh.totals.delivered);
        for n in 0..seconds * 1_250 {
            for prefix in 0..self.prefixes {
                let group = Self::group(prefix, n as u16 % Self::GROUPS);
                self.mesh.send(0, group);
            }
            self.mesh.run(Duration::from_micros(800));
        }
        self.mesh.run(Duration::from_millis(400));
        let delivered = self.mesh.totals.delivered - delivered;
        let sent = seconds * 1_250 * u64::from(self.prefixes);
        assert_eq!(delivered, sent, "nothing is lost");
        let after = packets(&self.mesh);
        [after[0] - before[0], after[1] - before[1]]
    }

    /// Only the link to this node is full.
    fn press(&mut self, n: usize) {
        let c = self.mesh.connections.iter().rev();
        let c = c
            .filter(|c| c.alive)
            .find(|c| c.ends.contains(&0) && c.ends.contains(&n));
        let c = c.unwrap();
        let side = usize::from(c.ends[1] == 0);
        let link = c.links[side];
        self.mesh
            .input(0, |engine, now| engine.set_pressed_links(&[link], now));
    }
}

#[test]
fn a_full_link_shares_its_parts_with_another_one() {
    for seed in seeds(0..5, 2) {
        let mut diamond = Diamond::new(seed, 1);
        let sent = diamond.send(3);
        let full = if sent[0] > 0 { 0 } else { 1 };
        assert_eq!(sent[1 - full], 0, "one path: {sent:?}");
        diamond.press(1 + full);
        diamond.send(6);
        let sent = diamond.send(2);
        let other = addresses(3 - full as u16).origin;
        let carriers = diamond.mesh.carriers();
        assert!(carriers.iter().all(|x| *x == other), "{carriers:?}");
        assert!(carriers.len() >= 8, "{carriers:?}");
        assert_eq!(sent[0] + sent[1], 2_500, "one copy of each: {sent:?}");
        assert!(sent[1 - full] >= 1_250, "{sent:?}");
        // as little arrives as before
        diamond.send(10);
        assert_eq!(diamond.mesh.carriers(), [], "seed {seed}");
        diamond.send(2);
        assert_eq!(diamond.send(2)[1 - full], 0, "seed {seed}");
    }
}

#[test]
fn a_carrier_gets_no_more_parts_of_several_prefixes_than_it_may_be_asked_for() {
    let mut diamond = Diamond::new(1, 3);
    let sent = diamond.send(3);
    let full = if sent[0] > 0 { 0 } else { 1 };
    diamond.press(1 + full);
    diamond.send(6);
    let carriers = diamond.mesh.carriers();
    let parts = |carrier| carriers.iter().filter(|x| *x == carrier).count();
    assert_eq!(carriers.iter().map(parts).max(), Some(16), "{carriers:?}");
    let engine = diamond.mesh.nodes[0].engine.as_ref().unwrap();
    assert_eq!(engine.carry().refusals, [], "it carries all that it may");
}
