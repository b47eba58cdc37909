//! The network on virtual time: events, and what routers make of them.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use librecast::cert::GroupPrefix;
use librecast::mld::{self, Message, Query, Record};

use crate::action::{Action, Script, Wish};
use crate::fast;
use crate::kernel::Joined;
use crate::link::{Link, Map};
use crate::links::Pair;
use crate::model::{LISTENER_SETTLE, Model, Rule, Sent, Violation};
use crate::node::{Effect, Node, Router, Start};
use crate::packet;
use crate::population::Population;
use crate::random::{Random, mix};
use crate::scenario::{Defect, Links, Scenario, Span};
use crate::services::{NodeServices, Watch};
use crate::statistics::Statistics;
use crate::time::{Clock, MILLISECOND, Nanos, SECOND};

/// What kernels send their reports from.
const KERNEL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbeef);
/// A router whose timers fire so often at one moment will never be done.
const WAKES_AT_ONCE: u32 = 1_000;

/// What happens at its time.
#[derive(Debug)]
pub enum Event {
    /// A message arrives at an end of a link.
    Control {
        link: u32,
        to: usize,
        message: Bytes,
    },
    /// A message arrives at an end of a link.
    Data {
        link: u32,
        to: usize,
        message: Bytes,
    },
    /// An end notices that its link is gone.
    LinkDown { link: u32, side: usize },
    /// The attempt of two nodes to make a link ends.
    Connect { a: u32, b: u32, good: bool },
    /// Two nodes try again.
    Retry { a: u32, b: u32 },
    /// An end measures its round trip.
    RoundTrip { link: u32, side: usize },
    /// The signalling server notices that a node has come or gone.
    Presence { node: u32, incarnation: u32 },
    /// The signalling server tells what it noticed.
    PresenceTurn,
    /// A router wanted to be woken.
    Wake { node: u32 },
    /// A kernel says again what changed.
    Repeat { node: u32, group: Ipv6Addr },
    /// A kernel answers a query.
    Answer { node: u32, query: Query },
}

/// A packet that reached a listener.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    pub number: u64,
    pub node: u32,
    pub sent: Nanos,
    pub at: Nanos,
}

/// A network of routers.
#[derive(Debug)]
pub struct Simulation {
    pub(crate) now: Nanos,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) population: Arc<Population>,
    pub(crate) clock: Clock,
    pub(crate) queue: crate::queue::Queue<Event>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<Link>,
    pub(crate) pairs: fast::Map<(u32, u32), Pair>,
    pub(crate) map: Map,
    pub(crate) model: Model,
    pub(crate) random: Random,
    /// Who the signalling server believes is there.
    pub(crate) online: Vec<bool>,
    /// Nodes that have come or gone, as nobody was told yet.
    pub(crate) news: BTreeSet<u32>,
    /// Nodes that hear only each other.
    pub(crate) partition: Option<BTreeSet<u32>>,
    /// Links neither come nor go any more, nor do they lose anything.
    pub(crate) calm: bool,
    /// What links are like.
    pub(crate) weather: Links,
    pub(crate) statistics: Statistics,
    watch: Arc<Watch>,
    graphs: u64,
    /// Every delivery, if somebody wants them.
    pub(crate) deliveries: Option<Vec<Delivery>>,
    pub(crate) violation: Option<Violation>,
    /// In which piece of the network each node is, unless links have changed since.
    pub(crate) pieces: Option<Vec<u32>>,
    script: Script,
    next_action: usize,
    log: u64,
    woken: (Nanos, u32, u32),
    defects: u64,
}

impl Simulation {
    /// A network in which nothing runs yet, and the script of what will be done to it.
    pub fn new(scenario: Arc<Scenario>, population: Arc<Population>, script: Script) -> Self {
        let (count, seed) = (scenario.nodes, scenario.seed);
        let node = |_| Node {
            wake: Nanos::MAX,
            ..Node::default()
        };
        Self {
            now: 0,
            clock: Clock::new(),
            queue: crate::queue::Queue::new(),
            nodes: (0..count).map(node).collect(),
            links: Vec::new(),
            pairs: fast::Map::default(),
            map: Map::new(&scenario.links, count, seed),
            model: Model::new(count),
            random: Random::stream(seed, &[8]),
            online: vec![false; count as usize],
            news: BTreeSet::new(),
            partition: None,
            calm: false,
            weather: scenario.links.clone(),
            statistics: Statistics::default(),
            watch: Arc::default(),
            graphs: 0,
            deliveries: None,
            violation: None,
            pieces: None,
            script,
            next_action: 0,
            log: 0,
            woken: (0, 0, 0),
            defects: 0,
            scenario,
            population,
        }
    }

    /// When the last action happens.
    pub fn end(&self) -> Nanos {
        self.script.last().map_or(0, |(at, _)| *at)
    }

    /// What was done, and will be.
    pub fn into_script(self) -> Script {
        self.script
    }

    /// Virtual time.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// A hash of every event so far, with its content.
    pub fn log(&self) -> u64 {
        self.log
    }

    /// Lets time pass until `end`, or until a rule is broken.
    pub fn run_until(&mut self, end: Nanos) {
        while self.violation.is_none() {
            let action = self.script.get(self.next_action).map(|(at, _)| *at);
            let event = self.queue.next_at();
            let next = match (action, event) {
                (Some(a), Some(e)) => a.min(e),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) => break,
            };
            if next > end {
                break;
            }
            if next / SECOND != self.now / SECOND {
                self.watch.set_seconds(next / SECOND);
            }
            self.now = next;
            self.expire();
            if action == Some(next) {
                let (_, action) = self.script[self.next_action].clone();
                self.next_action += 1;
                self.act(action);
            } else if let Some((_, event)) = self.queue.pop() {
                self.statistics.events += 1;
                self.happen(event);
            }
        }
        if self.violation.is_none() {
            self.now = self.now.max(end);
            self.expire();
        }
    }

    pub(crate) fn at(&mut self, after: Nanos, event: Event) {
        self.queue.push(self.now + after, event);
    }

    /// Nodes, links or announcements changed.
    pub(crate) fn changed(&mut self) {
        self.model.network_changed(self.now);
        self.pieces = None;
    }

    pub(crate) fn violate(&mut self, rule: Rule, node: u32, text: String) {
        let violation = Violation {
            rule,
            at: self.now,
            node,
            text,
        };
        self.violation.get_or_insert(violation);
    }

    fn note(&mut self, kind: u64, node: u32, content: &[u8]) {
        let mut hasher = fast::Multiply::default();
        hasher.write(content);
        let event = mix(self.now ^ kind << 56 ^ u64::from(node) << 32) ^ hasher.finish();
        self.log = mix(self.log.rotate_left(7) ^ event);
    }
}

/// Events and actions.
impl Simulation {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Control { link, to, message } => {
                let node = self.links[link as usize].ends[to];
                if self.arrives(link, to) {
                    self.note(1, node, &message);
                    self.input(node, |router, now| router.control(link, &message, now));
                }
            }
            Event::Data { link, to, message } => {
                let node = self.links[link as usize].ends[to];
                if self.arrives(link, to) {
                    self.note(2, node, &message[..32]);
                    self.input(node, |router, now| router.data(link, message, now));
                } else if let Some(number) = packet::number(&message) {
                    self.model.lose(number);
                }
            }
            Event::LinkDown { link, side } => self.link_down(link, side),
            Event::Connect { a, b, good } => self.connected(a, b, good),
            Event::Retry { a, b } => self.retry(a, b),
            Event::RoundTrip { link, side } => self.round_trip(link, side),
            Event::Presence { node, incarnation } => self.presence(node, incarnation),
            Event::PresenceTurn => self.tell_presence(),
            Event::Wake { node } => self.wake(node),
            Event::Repeat { node, group } => {
                let records = self.nodes[node as usize].kernel.repeat(group);
                self.report(node, &records);
            }
            Event::Answer { node, query } => {
                let records = self.nodes[node as usize].kernel.answer(&query);
                self.report(node, &records);
            }
        }
    }

    /// Does it now.
    pub(crate) fn act(&mut self, action: Action) {
        self.note(3, 0, action.to_string().as_bytes());
        match action {
            Action::Start(node) => self.start(node),
            Action::Stop(node) => self.stop(node, true),
            Action::Crash(node) => self.stop(node, false),
            Action::Join(node, group, wish) => self.join(node, group, &wish),
            Action::Send(node, group, bytes) => {
                self.send(node, group, bytes, false);
            }
            Action::Announce(node, prefixes) => self.announce(node, &prefixes),
            Action::Break(a, b) => self.break_link(a, b),
            Action::Partition(side) => self.divide(Some(side.into_iter().collect())),
            Action::Heal => self.divide(None),
            Action::Calm => self.calm_down(),
            Action::Check => self.check(),
            Action::Empty => self.check_empty(),
        }
    }

    fn start(&mut self, node: u32) {
        if self.nodes[node as usize].router.is_some() {
            return;
        }
        self.statistics.starts += 1;
        self.changed();
        let (now, population) = (self.now, self.population.clone());
        let seed = Random::stream(self.scenario.seed, &[9, node.into()]).next();
        let services = NodeServices::new(population, node, self.watch.clone());
        let n = &mut self.nodes[node as usize];
        n.incarnation += 1;
        n.started = now;
        let start = Start {
            scenario: &self.scenario,
            incarnation: n.incarnation,
            seed,
            announced: &n.announced,
        };
        n.router = Some(Router::start(services, &start, self.clock, now));
        let incarnation = n.incarnation;
        self.input(node, |_, _| ());
        self.at(50 * MILLISECOND, Event::Presence { node, incarnation });
    }

    fn stop(&mut self, node: u32, goodbye: bool) {
        let n = &mut self.nodes[node as usize];
        if n.router.take().is_none() {
            return;
        }
        n.kernel.forget_reports();
        n.wanted.clear();
        n.wake = Nanos::MAX;
        let incarnation = n.incarnation;
        let links: Vec<u32> = std::mem::take(&mut n.links).into_iter().collect();
        self.statistics.stops += 1;
        self.changed();
        self.model.forget_flows(node);
        for link in links {
            self.end_link(link, node, goodbye);
        }
        let after = if goodbye {
            50 * MILLISECOND
        } else {
            30 * SECOND
        };
        self.at(after, Event::Presence { node, incarnation });
    }

    /// From now on nothing happens to the network. Routers go on to think about better links, but there
    /// is nobody to make them; what they do not want is closed.
    fn calm_down(&mut self) {
        self.calm = true;
        self.weather.loss = 0.0;
        self.weather.jitter = Span::ms(0);
    }

    /// Links come and go again.
    pub(crate) fn end_calm(&mut self) {
        self.calm = false;
        self.weather = self.scenario.links.clone();
        self.attempt_all();
    }

    fn announce(&mut self, node: u32, prefixes: &[GroupPrefix]) {
        self.changed();
        self.nodes[node as usize].announced = prefixes.to_vec();
        self.input(node, |router, now| router.announce(prefixes, now));
    }

    fn wake(&mut self, node: u32) {
        let n = &mut self.nodes[node as usize];
        if n.wake != self.now {
            return; // it wanted to be woken earlier, and was
        }
        n.wake = Nanos::MAX;
        if self.woken.0 == self.now && self.woken.1 == node {
            self.woken.2 += 1;
        } else {
            self.woken = (self.now, node, 0);
        }
        if self.woken.2 > WAKES_AT_ONCE {
            let text = "its timers fire for ever at one moment".to_owned();
            self.violate(Rule::Protocol, node, text);
            return;
        }
        self.note(4, node, &[]);
        let due = |router: &Router, now| router.next_timeout().is_some_and(|at| at <= now);
        self.input(node, |router, now| {
            if due(router, now) {
                router.timeout(now);
            }
        });
    }
}

/// Programs and kernels.
impl Simulation {
    fn join(&mut self, node: u32, group: Ipv6Addr, wish: &Wish) {
        let addresses = |sources: &[u32]| {
            let known = sources.iter().filter(|s| **s < self.population.len());
            known.map(|s| self.population.address(*s)).collect()
        };
        let to = match wish {
            Wish::Nothing => Joined::default(),
            Wish::All => Joined::new(true, BTreeSet::new()),
            Wish::Only(sources) => Joined::new(false, addresses(sources)),
            Wish::Except(sources) => Joined::new(true, addresses(sources)),
        };
        self.model.set_listener(node, group, !to.is_nothing());
        let now = self.now;
        let records = self.nodes[node as usize].kernel.join(group, to, now);
        if records.is_empty() {
            return;
        }
        self.statistics.joins += 1;
        self.report(node, &records);
        let after = self.random.between(0, SECOND);
        self.at(after, Event::Repeat { node, group });
    }

    fn report(&mut self, node: u32, records: &[Record]) {
        for packet in mld::report_packets(KERNEL, records, 1280) {
            self.input(node, |router, now| router.local_packet(packet, now));
        }
    }

    /// A program sends a packet; its number.
    pub(crate) fn send(&mut self, node: u32, group: Ipv6Addr, bytes: u16, probe: bool) -> u64 {
        if self.nodes[node as usize].router.is_none() {
            return 0;
        }
        let source = self.population.address(node);
        let expected = self.must_receive(node, group, source, probe);
        let sent = Sent {
            origin: node,
            group,
            probe,
            expected,
        };
        let number = self.model.send(sent, self.now);
        self.statistics.sent += 1;
        let packet = packet::datagram(source, group, number, bytes);
        self.input(node, |router, now| router.local_packet(packet, now));
        number
    }

    /// The number that the next packet will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.model.next_number()
    }

    /// Who has wanted a packet for a while.
    fn must_receive(
        &mut self,
        origin: u32,
        group: Ipv6Addr,
        source: Ipv6Addr,
        probe: bool,
    ) -> Vec<u32> {
        if !probe && !self.model.is_stable(self.now) {
            return Vec::new();
        }
        let piece = self.pieces()[origin as usize];
        let pieces = self.pieces.as_deref().unwrap_or_default();
        let listeners = self.model.listeners(group);
        listeners
            .filter(|n| *n != origin && pieces[*n as usize] == piece)
            .filter(|n| self.has_wanted(*n, group, source, self.now))
            .collect()
    }

    /// Whether a node wants packets of `source`, and has for a while before `at` and ever since.
    fn has_wanted(&self, node: u32, group: Ipv6Addr, source: Ipv6Addr, at: Nanos) -> bool {
        let n = &self.nodes[node as usize];
        n.router.is_some()
            && n.started + LISTENER_SETTLE <= at
            && n.kernel
                .membership(group)
                .is_some_and(|m| m.since + LISTENER_SETTLE <= at && m.joined.allows(source))
    }

    /// Packets whose time is over: did everyone get them?
    fn expire(&mut self) {
        while let Some(expired) = self.model.expire(self.now) {
            self.statistics.required += expired.kept;
            let source = self.population.address(expired.origin);
            let missed = expired
                .missed
                .into_iter()
                .filter(|n| self.has_wanted(*n, expired.group, source, expired.sent));
            let missed: Vec<u32> = missed.collect();
            if let Some(node) = missed.first() {
                let text = format!(
                    "packet {} for {} that node {} sent at {}; it is missed by nodes {missed:?}",
                    expired.number,
                    expired.group,
                    expired.origin,
                    crate::time::At(expired.sent),
                );
                self.violate(Rule::Missed, *node, text);
            }
        }
    }

    fn deliver(&mut self, node: u32, packet: &[u8]) {
        let Some(label) = packet::label(packet) else {
            let text = "handed out a packet that nobody sent".to_owned();
            return self.violate(Rule::NotWanted, node, text);
        };
        if !self.nodes[node as usize]
            .kernel
            .wants(label.to, label.source)
        {
            let text = format!(
                "packet {} for {} from {}",
                label.number, label.to, label.source
            );
            return self.violate(Rule::NotWanted, node, text);
        }
        self.statistics.delivered += 1;
        if let (Some(deliveries), Some(sent)) =
            (&mut self.deliveries, self.model.sent(label.number))
        {
            deliveries.push(Delivery {
                number: label.number,
                node,
                sent,
                at: self.now,
            });
        }
        let twice = self.scenario.defect == Some(Defect::DoubleDelivery) && self.strikes(200);
        for _ in 0..1 + u32::from(twice) {
            if let Err((rule, text)) = self.model.deliver(label.number, node) {
                self.violate(rule, node, text);
            }
        }
    }

    /// One in `n`, for defects.
    fn strikes(&mut self, n: u64) -> bool {
        self.defects += 1;
        self.defects.is_multiple_of(n)
    }

    fn write_mld(&mut self, node: u32, packet: &[u8]) {
        match mld::parse_packet(packet) {
            Ok((_, Message::Query(query))) => {
                self.at(10 * MILLISECOND, Event::Answer { node, query });
            }
            Ok((_, Message::Report(records))) => {
                self.nodes[node as usize].kernel.watch(&records);
            }
            other => {
                let text = format!("{other:?} written into lc0");
                self.violate(Rule::Protocol, node, text);
            }
        }
    }
}

/// Routers.
impl Simulation {
    /// One input to the router of a node, and what comes out of it.
    pub(crate) fn input(&mut self, node: u32, f: impl FnOnce(&mut Router, Nanos)) {
        let now = self.now;
        if let Some(router) = &mut self.nodes[node as usize].router {
            f(router, now);
            self.drain(node);
        }
    }

    fn drain(&mut self, node: u32) {
        let poll = |n: &mut Node| n.router.as_mut().and_then(Router::poll);
        let mut retired = Vec::new();
        while let Some(effect) = poll(&mut self.nodes[node as usize]) {
            match effect {
                Effect::Data { links, message } => self.send_data(node, &links, &message),
                Effect::Control { link, message } => self.send_control(node, link, message),
                Effect::Local { packet } => self.deliver(node, &packet),
                Effect::Mld { packet } => self.write_mld(node, &packet),
                Effect::Wanted { nodes } => self.want(node, nodes),
                Effect::Retire { link } => retired.push(link),
                Effect::Fault { link, reason } => {
                    let text = format!("its router complains of link {link}: {reason}");
                    self.violate(Rule::Protocol, node, text);
                }
            }
        }
        // what else came out of the same turn still goes over the link
        for link in retired {
            self.retire(node, link);
        }
        if self.watch.graphs() != self.graphs {
            self.graphs = self.watch.graphs();
            self.model.network_changed(self.now);
        }
        let n = &mut self.nodes[node as usize];
        let next = n.router.as_ref().and_then(Router::next_timeout);
        if let Some(at) = next.map(|at| at.max(self.now)).filter(|at| *at < n.wake) {
            n.wake = at;
            self.queue.push(at, Event::Wake { node });
        }
    }

    fn send_data(&mut self, node: u32, links: &[u32], message: &Bytes) {
        let number = packet::number(message);
        for id in links {
            self.send_data_on(node, *id, message, number);
            if self.scenario.defect == Some(Defect::Echo) && self.strikes(200) {
                self.send_data_on(node, *id, message, number);
                self.send_data_on(node, *id, message, number);
            }
        }
    }

    fn send_data_on(&mut self, node: u32, id: u32, message: &Bytes, number: Option<u64>) {
        let Some(side) = self.usable(node, id, "data") else {
            return;
        };
        if let Some(number) = number
            && let Err(text) = self.model.cross(number, id, side, self.now)
        {
            return self.violate(Rule::Loop, node, text);
        }
        self.statistics.data_messages += 1;
        self.statistics.data_bytes += message.len() as u64;
        let link = &mut self.links[id as usize];
        match link.send_data(side, message.len(), self.now, &self.weather) {
            Some(at) => {
                let (to, message) = (1 - side, message.clone());
                let event = Event::Data {
                    link: id,
                    to,
                    message,
                };
                self.queue.push(at, event);
            }
            None => {
                self.statistics.lost += 1;
                if let Some(number) = number {
                    self.model.lose(number);
                }
            }
        }
    }

    fn send_control(&mut self, node: u32, id: u32, message: Bytes) {
        let Some(side) = self.usable(node, id, "control") else {
            return;
        };
        self.statistics.control.count(&message);
        if self.scenario.defect == Some(Defect::LostControl) && self.strikes(50) {
            return;
        }
        let link = &mut self.links[id as usize];
        let at = link.send_control(side, message.len(), self.now, &self.weather);
        let event = Event::Control {
            link: id,
            to: 1 - side,
            message,
        };
        self.queue.push(at, event);
    }

    /// The side of a link that a router may use.
    fn usable(&mut self, node: u32, id: u32, what: &str) -> Option<usize> {
        let link = self.links.get(id as usize);
        let side = link
            .filter(|l| l.ends.contains(&node))
            .map(|l| l.side(node));
        match (link, side) {
            (Some(link), Some(side)) if link.up[side] => Some(side),
            _ => {
                let text = format!("sends {what} on link {id}, which it does not have");
                self.violate(Rule::Protocol, node, text);
                None
            }
        }
    }

    fn arrives(&self, link: u32, side: usize) -> bool {
        let link = &self.links[link as usize];
        link.alive && link.up[side]
    }
}
