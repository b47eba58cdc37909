//! A shard: some of the nodes, their inputs by time, and the output of their routers.
//!
//! No message arrives sooner than over the fastest link. Within that time each node depends on its
//! own inputs alone, and handles them in order. So shards run side by side; everything that
//! concerns several nodes runs between.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use lcroute_engine::header::HEADER_LEN;
use librecast::mld::{self, Message, Query, Record};

use crate::calendar::Calendar;
use crate::daemon;
use crate::ledger::Ledger;
use crate::model::{Rule, Violation};
use crate::node::{Node, Router};
use crate::population::Population;
use crate::random::mix;
use crate::router::RouterAlone;
use crate::scenario::{Defect, Links};
use crate::services::Watch;
use crate::sight::{Sights, What};
use crate::statistics::Statistics;
use crate::terrain::{MAX_DATAGRAM, STUN, Socket, Terrain, node_at};
use crate::time::{MILLISECOND, Nanos, SECOND};
use crate::whole::stun_answer;
use crate::{fast, packet};

/// Source address of the kernels' reports.
const KERNEL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbeef);
/// Bound of a router's timers at one moment: beyond it the router is stuck.
const WAKES_AT_ONCE: u32 = 1_000;
/// Bound of a whole node's wakes per second: a timer that stays due fires every 10 us.
const WAKES_A_SECOND: u32 = 10_000;
/// First byte of a DTLS handshake record (RFC 6347 4.1).
const DTLS_HANDSHAKE: u8 = 22;
/// Fixed bits in the first byte of DTLS 1.3 ciphertext (RFC 9147 4).
const DTLS_SEALED: u8 = 0x20;
/// Mask for form and lowest epoch bits in that byte; handshakes have epoch 2.
const DTLS_FORM_AND_EPOCH: u8 = 0xe3;

/// Links from this number on are to leaves. Chosen: no run makes as many between routers.
pub const FIRST_LEAF_LINK: u32 = 1 << 31;

/// Traffic from routers to leaves, which send nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct ToLeaves {
    pub packets: u64,
    pub control_bytes: u64,
}

/// Input of a node.
#[derive(Debug)]
pub enum Input {
    /// A message arrives on a control channel.
    Control { link: u32, message: Bytes },
    /// A message arrives on a data channel.
    Data {
        link: u32,
        header: [u8; HEADER_LEN],
        packet: Bytes,
    },
    /// The node measures the round trip of a link.
    RoundTrip { link: u32 },
    /// A datagram from another host or the STUN server arrives.
    Datagram { from: SocketAddr, contents: Bytes },
    /// A sealed message of another node arrives from the signalling server.
    Signal { from: u32, bytes: Bytes },
    /// A timer of its router is due.
    Wake,
    /// Its kernel repeats a report of a change.
    Repeat { group: Ipv6Addr },
    /// Its kernel answers an MLD query.
    Answer { query: Query },
}

/// A queued input of a node.
#[derive(Debug)]
pub struct Ticket {
    pub node: u32,
    /// Order at one moment: inputs of the node itself, then by link, each in sequence.
    order: (u32, u32),
    input: Input,
}

/// Inputs from one shard to another.
#[derive(Debug)]
struct Mail {
    tickets: Vec<(Nanos, Ticket)>,
    /// Time of the earliest one.
    earliest: Nanos,
}

impl Mail {
    fn new() -> Self {
        Self {
            tickets: Vec::new(),
            earliest: Nanos::MAX,
        }
    }

    fn put(&mut self, at: Nanos, ticket: Ticket) {
        self.earliest = self.earliest.min(at);
        self.tickets.push((at, ticket));
    }

    fn take(&mut self, other: &mut Self) {
        if self.tickets.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.earliest = self.earliest.min(other.earliest);
            self.tickets.append(&mut other.tickets);
            other.earliest = Nanos::MAX;
        }
    }

    fn open(&mut self) -> impl Iterator<Item = (Nanos, Ticket)> {
        self.earliest = Nanos::MAX;
        self.tickets.drain(..)
    }
}

/// An effect of a router beyond its own node.
#[derive(Debug)]
pub enum Effect {
    /// It wants links to these nodes from now on.
    Wanted(BTreeSet<u32>),
    /// It has closed its end of this link.
    Retired(u32),
    /// Links that a whole node makes have come or gone.
    Linked,
}

/// An effect, with its time and node.
pub type Since = (Nanos, u32, Effect);

#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub number: u64,
    pub node: u32,
    pub sent: Nanos,
    pub at: Nanos,
}

/// Settings of all nodes, constant while shards run.
#[derive(Debug, Clone)]
pub struct Setting {
    pub weather: Arc<Links>,
    /// Interval of round-trip measurements.
    pub rtt_interval: Nanos,
    pub defect: Option<Defect>,
    /// Whether nodes are simulated whole.
    pub whole: bool,
    /// Network between whole nodes.
    pub terrain: Terrain,
    pub population: Arc<Population>,
    pub watch: Arc<Watch>,
    /// Time of the network's last change.
    pub changed: Nanos,
}

/// Shard of a node, and its index there.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub shard: u32,
    pub at: u32,
}

/// Deals nodes in turn to shards with these relative sizes; returns their places.
pub fn deal(nodes: u32, sizes: &[u32]) -> Arc<[Place]> {
    let round = (0..).zip(sizes);
    let round = round.flat_map(|(shard, size)| std::iter::repeat_n(shard, *size as usize));
    let mut taken = vec![0; sizes.len()];
    let place = |shard: u32| {
        let at = &mut taken[shard as usize];
        *at += 1;
        Place { shard, at: *at - 1 }
    };
    round.cycle().take(nodes as usize).map(place).collect()
}

#[derive(Debug)]
pub struct Shard {
    number: u32,
    places: Arc<[Place]>,
    pub nodes: Vec<Node>,
    pub setting: Setting,
    calendar: Calendar<Ticket>,
    pub ledger: Ledger,
    /// Inputs for nodes of other shards, by shard.
    out: Vec<Mail>,
    /// Inputs from other shards, by shard, not in the calendar yet.
    mail: Vec<Mail>,
    pub effects: Vec<Since>,
    /// Time at which a router last used a new graph.
    pub changed: Nanos,
    pub violations: Vec<Violation>,
    /// All deliveries, if recorded.
    pub deliveries: Option<Vec<Delivery>>,
    pub sights: Sights,
    pub statistics: Statistics,
    pub to_leaves: ToLeaves,
    due: Vec<(Nanos, Ticket)>,
}

impl Shard {
    /// Makes shard `number` of `of`, with stopped nodes.
    pub fn new(number: u32, of: u32, places: Arc<[Place]>, setting: Setting, slot: Nanos) -> Self {
        let own = places.iter().filter(|place| place.shard == number);
        let nodes: Vec<Node> = own.map(|_| Node::new()).collect();
        let boxes = || (0..of).map(|_| Mail::new()).collect();
        Self {
            number,
            places,
            ledger: Ledger::new(nodes.len()),
            nodes,
            setting,
            calendar: Calendar::new(slot),
            out: boxes(),
            mail: boxes(),
            effects: Vec::new(),
            changed: 0,
            violations: Vec::new(),
            deliveries: None,
            sights: Sights::default(),
            statistics: Statistics::default(),
            to_leaves: ToLeaves::default(),
            due: Vec::new(),
        }
    }

    pub fn node(&mut self, node: u32) -> &mut Node {
        let at = self.at(node);
        &mut self.nodes[at]
    }

    fn at(&self, node: u32) -> usize {
        self.places[node as usize].at as usize
    }

    pub fn next_at(&self) -> Option<Nanos> {
        let mail = self.mail.iter().map(|mail| mail.earliest);
        let calendar = self.calendar.next_at();
        mail.chain(calendar).min().filter(|at| *at < Nanos::MAX)
    }

    pub fn slot_end(&self, at: Nanos) -> Nanos {
        self.calendar.slot_end(at)
    }

    /// Returns about the number of inputs until the end of the slot with this time.
    pub fn len_at(&self, at: Nanos) -> usize {
        let mail: usize = self.mail.iter().map(|mail| mail.tickets.len()).sum();
        self.calendar.len_at(at) + mail
    }

    pub fn hand_over(&mut self, to: &mut Self) {
        let out = &mut self.out[to.number as usize];
        to.mail[self.number as usize].take(out);
    }

    /// Runs all inputs before `until`, at most the end of the current slot.
    pub fn run(&mut self, until: Nanos) {
        for mail in &mut self.mail {
            for (at, ticket) in mail.open() {
                self.calendar.push(at, ticket);
            }
        }
        let mut due = std::mem::take(&mut self.due);
        self.calendar.take(until, &mut due);
        due.sort_unstable_by_key(|(at, ticket)| (ticket.node, *at, ticket.order));
        let mut before = None;
        for (at, ticket) in due.drain(..) {
            let node = ticket.node;
            if let Some(last) = before.replace(node)
                && last != node
            {
                self.finish(last, until);
            }
            self.wake_until(node, at);
            self.happen(node, at, ticket.input);
        }
        if let Some(last) = before {
            self.finish(last, until);
        }
        self.due = due;
    }

    fn finish(&mut self, node: u32, until: Nanos) {
        self.wake_until(node, until);
        self.call(node);
    }

    pub fn put(&mut self, node: u32, at: Nanos, input: Input) {
        let n = self.node(node);
        n.inputs = n.inputs.wrapping_add(1);
        let order = (0, n.inputs);
        self.calendar.push(at, Ticket { node, order, input });
    }

    /// Schedules the wake of the node's router.
    pub fn call(&mut self, node: u32) {
        let n = self.node(node);
        let at = n.wake;
        if at < n.called {
            n.called = at;
            self.put(node, at, Input::Wake);
        }
    }

    fn wake_until(&mut self, node: u32, until: Nanos) {
        let whole = self.setting.whole;
        loop {
            let n = self.node(node);
            let at = n.wake;
            if at >= until || n.router.is_none() {
                return;
            }
            let (moment, most) = if whole {
                (at / SECOND, WAKES_A_SECOND)
            } else {
                (at, WAKES_AT_ONCE)
            };
            n.woken = if n.woken.0 == moment {
                (moment, n.woken.1 + 1)
            } else {
                (moment, 0)
            };
            if n.woken.1 > most {
                n.wake = Nanos::MAX;
                let text = "its timers fire for ever at about one moment".to_owned();
                return self.violate(Rule::Protocol, node, at, text);
            }
            self.statistics.events += 1;
            self.note(node, at, 4, &[]);
            self.input(node, at, Router::timeout);
        }
    }

    fn happen(&mut self, node: u32, now: Nanos, input: Input) {
        match input {
            Input::Wake => {
                let n = self.node(node);
                if n.called == now {
                    n.called = Nanos::MAX;
                }
                return;
            }
            Input::Control { link, message } => {
                if self.arrives(node, link) {
                    self.note(node, now, 1, &message);
                    self.alone(node, now, |router, now| router.control(link, &message, now));
                }
            }
            Input::Data {
                link,
                header,
                packet,
            } => {
                if self.arrives(node, link) {
                    self.note(node, now, 2, &header);
                    self.pass(node, now, |router, now| {
                        if let Some(router) = router.alone() {
                            router.data(link, &header, packet, now);
                        }
                    });
                } else if let Some(number) = packet::number(&packet) {
                    self.ledger.lose(number);
                }
            }
            Input::Datagram { from, contents } => self.datagram(node, from, &contents, now),
            Input::Signal { from, bytes } => {
                self.note(node, now, 6, &[]);
                let population = self.setting.population.clone();
                self.input(node, now, |router, now| {
                    if let Some(whole) = router.whole() {
                        whole.signal(population.get(from), &bytes, now);
                    }
                });
            }
            Input::RoundTrip { link } => self.round_trip(node, link, now),
            Input::Repeat { group } => {
                let records = self.node(node).kernel.repeat(group);
                self.report(node, &records, now);
            }
            Input::Answer { query } => {
                let records = self.node(node).kernel.answer(&query);
                self.report(node, &records, now);
            }
        }
        self.statistics.events += 1;
    }

    fn arrives(&mut self, node: u32, link: u32) -> bool {
        let port = self.node(node).links.get(&link);
        port.is_some_and(|port| port.alive)
    }

    fn note(&mut self, node: u32, now: Nanos, kind: u64, content: &[u8]) {
        let mut hasher = fast::Multiply::default();
        hasher.write(content);
        let event = mix(now ^ kind << 56 ^ u64::from(node) << 32) ^ hasher.finish();
        let log = &mut self.node(node).log;
        *log = mix(log.rotate_left(7) ^ event);
    }

    fn violate(&mut self, rule: Rule, node: u32, at: Nanos, text: String) {
        self.violations.push(Violation {
            rule,
            at,
            node,
            text,
        });
    }

    pub fn report(&mut self, node: u32, records: &[Record], now: Nanos) {
        for packet in mld::report_packets(KERNEL, records, 1280) {
            self.input(node, now, |router, now| router.local_packet(packet, now));
        }
    }

    /// Measures the round trip of a link, and schedules the next measurement.
    pub fn round_trip(&mut self, node: u32, link: u32, now: Nanos) {
        let at = self.at(node);
        let Some(port) = self.nodes[at].links.get_mut(&link) else {
            return;
        };
        let measured = port.round_trip(&self.setting.weather);
        self.alone(node, now, |router, now| {
            router.round_trip(link, measured, now);
        });
        let again = now + self.setting.rtt_interval;
        self.put(node, again, Input::RoundTrip { link });
    }
}

/// Routers.
impl Shard {
    /// Passes an input to the node's router, and handles its output.
    pub fn input(&mut self, node: u32, now: Nanos, f: impl FnOnce(&mut Router, Nanos)) {
        self.pass(node, now, f);
        let n = self.node(node);
        if n.router.as_mut().is_some_and(Router::took_graph) {
            n.changed = now;
            self.changed = self.changed.max(now);
        }
    }

    /// Does the same for a router with links made by the simulator.
    pub fn alone(&mut self, node: u32, now: Nanos, f: impl FnOnce(&mut RouterAlone, Nanos)) {
        self.input(node, now, |router, now| {
            if let Some(router) = router.alone() {
                f(router, now);
            }
        });
    }

    /// Does the same for an input that leaves the router's graph unchanged.
    fn pass(&mut self, node: u32, now: Nanos, f: impl FnOnce(&mut Router, Nanos)) {
        if let Some(router) = &mut self.node(node).router {
            f(router, now);
            self.drain(node, now);
        }
    }

    fn drain(&mut self, node: u32, now: Nanos) {
        let mut retired = Vec::new();
        while let Some(router) = self.node(node).router.as_mut()
            && let Some(effect) = router.poll(now)
        {
            match effect {
                daemon::Effect::Data {
                    links,
                    header,
                    packet,
                } => {
                    let number = packet::number(&packet);
                    for link in links.iter() {
                        self.send_data(node, now, link.0, (&header, &packet), number);
                    }
                }
                daemon::Effect::Control { link, message } => {
                    self.send_control(node, now, link, message);
                }
                daemon::Effect::Local { packet } => self.deliver(node, now, &packet),
                daemon::Effect::Mld { packet } => self.write_mld(node, now, &packet),
                daemon::Effect::Wanted { nodes } => {
                    self.effects.push((now, node, Effect::Wanted(nodes)));
                }
                daemon::Effect::Retire { link } => retired.push(link),
                daemon::Effect::Datagram { to, contents } => {
                    self.send_datagram(node, now, to, contents);
                }
                daemon::Effect::Signal { to, bytes } => self.send_signal(node, now, to, bytes),
                daemon::Effect::Keep(what) => {
                    let time = self.setting.watch.unix();
                    self.node(node).disk.keep(what, time);
                }
                daemon::Effect::Linked(peers) => self.relink(node, now, peers),
                daemon::Effect::Fault { link, reason } => {
                    let text = format!("its router complains of link {link}: {reason}");
                    self.violate(Rule::Protocol, node, now, text);
                }
            }
        }
        // other output of the same turn still goes over the link
        for link in retired {
            self.statistics.links_retired += 1;
            self.effects.push((now, node, Effect::Retired(link)));
            self.node(node).links.remove(&link);
            self.alone(node, now, |router, now| router.link_down(link, now));
        }
        let n = self.node(node);
        let Some(router) = &mut n.router else { return };
        n.wake = router.next_timeout(now).unwrap_or(Nanos::MAX);
    }

    fn send_data(
        &mut self,
        node: u32,
        now: Nanos,
        link: u32,
        message: (&[u8; HEADER_LEN], &Bytes),
        number: Option<u64>,
    ) {
        if link >= FIRST_LEAF_LINK {
            self.to_leaves.packets += 1;
            return;
        }
        let echo = self.setting.defect == Some(Defect::Echo) && self.strikes(node, 200);
        for _ in 0..if echo { 3 } else { 1 } {
            self.send_data_once(node, now, link, message, number);
        }
    }

    fn send_data_once(
        &mut self,
        node: u32,
        now: Nanos,
        link: u32,
        (header, packet): (&[u8; HEADER_LEN], &Bytes),
        number: Option<u64>,
    ) {
        let changed = self.node(node).changed.max(self.setting.changed);
        let at = self.at(node);
        let Some(port) = self.nodes[at].links.get_mut(&link) else {
            return self.has_no(link, node, now, "data");
        };
        let (peer, direction) = (port.peer, port.direction);
        let len = header.len() + packet.len();
        let arrival = port.send_data(len, now, &self.setting.weather);
        let order = (link + 1, port.messages);
        self.sights.forward((now, node), peer, arrival, packet);
        self.statistics.data_messages += 1;
        self.statistics.data_bytes += len as u64;
        if let Some(number) = number {
            if let Err(text) = self.ledger.cross(number, direction, now, changed) {
                let text = format!("{text} over link {link}");
                return self.violate(Rule::Loop, node, now, text);
            }
            if arrival.is_none() {
                self.ledger.lose(number);
            }
        }
        let Some(at) = arrival else {
            self.statistics.lost += 1;
            return;
        };
        let input = Input::Data {
            link,
            header: *header,
            packet: packet.clone(),
        };
        self.post(
            at,
            Ticket {
                node: peer,
                order,
                input,
            },
        );
    }

    fn send_control(&mut self, node: u32, now: Nanos, link: u32, message: Bytes) {
        if link >= FIRST_LEAF_LINK {
            self.to_leaves.control_bytes += message.len() as u64;
            return;
        }
        let lost = self.setting.defect == Some(Defect::LostControl) && self.strikes(node, 50);
        let at = self.at(node);
        let Some(port) = self.nodes[at].links.get_mut(&link) else {
            return self.has_no(link, node, now, "control");
        };
        let peer = port.peer;
        let at = port.send_control(message.len(), now, &self.setting.weather);
        let order = (link + 1, port.messages);
        self.statistics.control.count(&message);
        if !lost {
            let population = &self.setting.population;
            self.sights
                .control((now, node), (peer, at), &message, population);
            let input = Input::Control { link, message };
            self.post(
                at,
                Ticket {
                    node: peer,
                    order,
                    input,
                },
            );
        }
    }

    fn datagram(&mut self, node: u32, from: SocketAddr, contents: &[u8], now: Nanos) {
        let socket = self.node(node).socket.as_ref();
        if !socket.is_some_and(|socket| socket.admits(from, now)) {
            return;
        }
        // ciphertext differs in each run
        self.note(node, now, 5, &[]);
        self.input(node, now, |router, now| {
            if let Some(whole) = router.whole() {
                whole.datagram(from, contents, now);
            }
        });
    }

    fn send_datagram(&mut self, node: u32, now: Nanos, to: SocketAddr, contents: Bytes) {
        let (terrain, weather) = (self.setting.terrain.clone(), self.setting.weather.clone());
        let (map, nodes) = (&terrain.map, self.setting.population.len());
        // signatures in DTLS handshakes vary in length
        let is_handshake = contents.first().is_some_and(is_dtls_handshake);
        let bytes = if is_handshake { 0 } else { contents.len() };
        self.statistics.data_messages += 1;
        self.statistics.data_bytes += bytes as u64;
        let socket = &mut self.node(node).socket;
        let socket = socket.get_or_insert_with(|| Box::new(Socket::new(node, map)));
        let from = socket.send(to, now);
        if to == STUN {
            if let Some(contents) = stun_answer(&contents, from) {
                let from = to;
                let back = now + 2 * terrain.signal_delay();
                self.put(node, back, Input::Datagram { from, contents });
            }
            return;
        }
        let Some(peer) = node_at(to, nodes, map) else {
            return;
        };
        let port = socket.port(node, peer, map);
        let arrival = port.send_data(bytes, now, &weather);
        let order = (node + 1, port.messages);
        let passes = contents.len() <= MAX_DATAGRAM && terrain.passes(node, peer, now);
        let Some(at) = arrival.filter(|_| passes) else {
            self.statistics.lost += 1;
            return;
        };
        let input = Input::Datagram { from, contents };
        let node = peer;
        self.post(at, Ticket { node, order, input });
    }

    fn send_signal(&mut self, node: u32, now: Nanos, to: u32, bytes: Bytes) {
        let terrain = &self.setting.terrain;
        if !terrain.introduces(node, to) {
            return;
        }
        let at = now + terrain.signal_delay();
        let n = self.node(node);
        n.inputs = n.inputs.wrapping_add(1);
        let order = (node + 1, n.inputs);
        let (from, node) = (node, to);
        let input = Input::Signal { from, bytes };
        self.post(at, Ticket { node, order, input });
    }

    /// Sets the peers that a node has links to.
    fn relink(&mut self, node: u32, now: Nanos, peers: BTreeSet<u32>) {
        let before = std::mem::replace(&mut self.node(node).linked, peers);
        let n = &self.nodes[self.at(node)];
        let new = n.linked.difference(&before).filter(|peer| node < **peer);
        let gone = before.difference(&n.linked).filter(|peer| node < **peer);
        let (new, gone) = (new.count() as u64, gone.count() as u64);
        self.statistics.links_made += new;
        self.statistics.links_broken += gone;
        let linked: Vec<u8> = n
            .linked
            .iter()
            .flat_map(|peer| peer.to_be_bytes())
            .collect();
        self.note(node, now, 7, &linked);
        self.effects.push((now, node, Effect::Linked));
        // commands resolve names of neighbours before there is a route
        let whole = self.node(node).router.as_mut().and_then(Router::whole);
        if let Some(name) = whole.and_then(|whole| whole.unknown_neighbor()) {
            let text = format!("{name} has a link and is not among the members");
            self.violate(Rule::Protocol, node, now, text);
        }
    }

    /// Queues an input for its node's shard.
    fn post(&mut self, at: Nanos, ticket: Ticket) {
        match self.places[ticket.node as usize].shard {
            shard if shard == self.number => self.calendar.push(at, ticket),
            shard => self.out[shard as usize].put(at, ticket),
        }
    }

    fn has_no(&mut self, link: u32, node: u32, now: Nanos, what: &str) {
        let text = format!("sends {what} on link {link}, which it does not have");
        self.violate(Rule::Protocol, node, now, text);
    }

    fn deliver(&mut self, node: u32, now: Nanos, packet: &[u8]) {
        let Some(label) = packet::label(packet) else {
            let text = "handed out a packet that nobody sent".to_owned();
            return self.violate(Rule::NotWanted, node, now, text);
        };
        let (number, to, source) = (label.number, label.to, label.source);
        if !self.node(node).kernel.has_joined(to, source) {
            let text = format!("packet {number} for {to} from {source}");
            return self.violate(Rule::NotWanted, node, now, text);
        }
        self.statistics.delivered += 1;
        let what = What::Deliver { number, group: to };
        self.sights.see(now, node, what);
        if let (Some(deliveries), Some(sent)) = (&mut self.deliveries, self.ledger.sent(number)) {
            deliveries.push(Delivery {
                number,
                node,
                sent,
                at: now,
            });
        }
        let twice = self.setting.defect == Some(Defect::DoubleDelivery) && self.strikes(node, 200);
        let place = self.at(node);
        for _ in 0..1 + u32::from(twice) {
            if let Err((rule, text)) = self.ledger.deliver(number, place) {
                self.violate(rule, node, now, text);
            }
        }
    }

    /// Returns true once in `n` calls, for defects.
    fn strikes(&mut self, node: u32, n: u64) -> bool {
        let defects = &mut self.node(node).defects;
        *defects += 1;
        mix(u64::from(node) << 32 | *defects).is_multiple_of(n)
    }

    fn write_mld(&mut self, node: u32, now: Nanos, packet: &[u8]) {
        match mld::parse_packet(packet) {
            Ok((_, Message::Query(query))) => {
                self.put(node, now + 10 * MILLISECOND, Input::Answer { query });
            }
            Ok((_, Message::Report(records))) => self.node(node).kernel.watch(&records),
            other => {
                let text = format!("{other:?} written into lc0");
                self.violate(Rule::Protocol, node, now, text);
            }
        }
    }
}

/// Whether a datagram with this first byte is part of a DTLS handshake.
fn is_dtls_handshake(first: &u8) -> bool {
    *first == DTLS_HANDSHAKE || first & DTLS_FORM_AND_EPOCH == DTLS_SEALED | 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_place_and_shards_have_their_sizes() {
        for (nodes, expected) in [
            (16, [4, 4, 4, 2, 2]),
            (24, [8, 8, 4, 2, 2]),
            (3, [3, 0, 0, 0, 0]),
        ] {
            let places = deal(nodes, &[4, 4, 4, 2, 2]);
            let mut seen = vec![Vec::new(); 5];
            for place in places.iter() {
                seen[place.shard as usize].push(place.at);
            }
            for (shard, places) in seen.iter().enumerate() {
                assert_eq!(*places, Vec::from_iter(0..expected[shard]), "{nodes}");
            }
        }
    }
}
