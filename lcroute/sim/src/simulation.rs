//! The network on virtual time. Between what concerns more than one node, all nodes run for themselves, in shards
//! side by side.
//!
//! ```text
//!   action or event ──> nodes ──> effects       shard 0  ├─ inputs of its nodes ─┤─┐ messages for others,
//!                                               shard 1  ├─ inputs of its nodes ─┤─┤ effects, violations
//!                            (next moment) <────────────── in one order ──────────┘
//! ```
//!
//! How many shards there are makes no difference to what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::Hasher;
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::cert::GroupPrefix;
use librecast::simulated::{Joined, Queue};

use crate::action::{Action, Script, SourceFilter};
use crate::crew::Crew;
use crate::daemon::Start;
use crate::fast;
use crate::link::{Link, Map, Pair};
use crate::model::{Expired, LISTENER_SETTLE, Model, Rule, Sent, Violation};
use crate::node::{Node, Router};
use crate::packet;
use crate::population::Population;
use crate::random::{Draw as _, Random, mix};
use crate::router::RouterAlone;
use crate::scenario::{Links, Scenario, Span};
use crate::services::Watch;
use crate::shard::{Delivery, Effect, Input, Place, Setting, Shard, Since, ToLeaves, deal};
use crate::sight::{Sight, Sights, What};
use crate::statistics::Statistics;
use crate::terrain::Terrain;
use crate::time::{Clock, MILLISECOND, Nanos, SECOND};

/// Inputs of a slot that are worth the trouble to share them among threads.
const WORTHWHILE: usize = 8;
/// Shards for each thread, and how large they are relative to one another. The large ones come first; who is done with
/// all of its own takes small ones of others.
const SHARDS_EACH: [u32; 4] = [4, 2, 1, 1];

/// What concerns more than one node, at its time.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// An end notices that its link is gone.
    LinkDown { link: u32, side: usize },
    /// The attempt of two nodes to make a link ends.
    Connect { a: u32, b: u32, good: bool },
    /// Two nodes try again.
    Retry { a: u32, b: u32 },
    /// The signalling server notices that a node has come or gone.
    Presence { node: u32, incarnation: u32 },
    /// The signalling server tells what it noticed.
    PresenceTurn,
    /// A node sends a packet that all listeners must get.
    Probe { node: u32, group: Ipv6Addr },
}

/// A network of routers.
#[derive(Debug)]
pub struct Simulation {
    pub(crate) now: Nanos,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) population: Arc<Population>,
    clock: Clock,
    queue: Queue<Nanos, Event>,
    shards: Vec<Shard>,
    places: Arc<[Place]>,
    /// Threads for all shards, if there is more than one.
    crew: Option<Crew<Shard>>,
    pub(crate) links: Vec<Link>,
    pub(crate) pairs: fast::Map<(u32, u32), Pair>,
    pub(crate) map: Arc<Map>,
    pub(crate) model: Model,
    pub(crate) random: Random,
    /// Who the signalling server believes is there.
    pub(crate) online: Vec<bool>,
    /// Nodes that have come or gone, as nobody was told yet.
    pub(crate) presence_changes: BTreeSet<u32>,
    /// Nodes that hear only each other.
    pub(crate) partition: Option<BTreeSet<u32>>,
    /// Pairs, the lower first, between which nothing passes.
    pub(crate) cuts: BTreeSet<(u32, u32)>,
    /// Links neither come nor go any more, nor do they lose anything.
    pub(crate) calm: bool,
    /// What is not counted by a shard.
    pub(crate) counts: Statistics,
    pub(crate) watch: Arc<Watch>,
    /// Nodes that were expelled, and when.
    pub(crate) revoked: BTreeMap<u32, Nanos>,
    /// When clocks were last put forward.
    pub(crate) clocks_put: Nanos,
    /// What daemons that have ended had dropped.
    dropped: Vec<BTreeMap<&'static str, u64>>,
    pub(crate) violation: Option<Violation>,
    /// In which piece of the network each node is, unless links have changed since.
    pub(crate) pieces: Option<Vec<u32>>,
    script: Script,
    next_action: usize,
    log: u64,
    /// Those that no shard has.
    pub(crate) sights: Sights,
}

impl Simulation {
    /// A network in which nothing runs yet, and the script of what will be done to it. It runs on so many
    /// threads.
    pub fn new(
        scenario: Arc<Scenario>,
        population: Arc<Population>,
        script: Script,
        threads: usize,
    ) -> Self {
        let (count, seed) = (scenario.nodes, scenario.seed);
        let map = Arc::new(Map::new(&scenario.links, count, seed));
        let watch: Arc<Watch> = Arc::default();
        let setting = Setting {
            weather: Arc::new(scenario.links.clone()),
            rtt_interval: scenario.links.rtt_interval.nanos(),
            defect: scenario.defect,
            whole: scenario.whole,
            terrain: Terrain::new(Arc::clone(&map)),
            population: population.clone(),
            watch: watch.clone(),
            changed: 0,
        };
        let sizes: Vec<u32> = if threads > 1 {
            let each = SHARDS_EACH.iter();
            each.flat_map(|size| std::iter::repeat_n(*size, threads))
                .collect()
        } else {
            vec![1]
        };
        let (of, places) = (sizes.len() as u32, deal(count, &sizes));
        let slot = map.least_latency();
        let shard = |n| Shard::new(n, of, Arc::clone(&places), setting.clone(), slot);
        Self {
            now: 0,
            clock: Clock::new(),
            queue: Queue::default(),
            shards: (0..of).map(shard).collect(),
            places,
            // without it everything takes longer, and comes to the same
            crew: Crew::new(threads, of as usize, Shard::run),
            links: Vec::new(),
            pairs: fast::Map::default(),
            map,
            model: Model::new(),
            random: Random::stream(seed, &[8]),
            online: vec![false; count as usize],
            presence_changes: BTreeSet::new(),
            partition: None,
            cuts: BTreeSet::new(),
            calm: false,
            counts: Statistics::default(),
            watch,
            revoked: BTreeMap::new(),
            clocks_put: 0,
            dropped: Vec::new(),
            violation: None,
            pieces: None,
            script,
            next_action: 0,
            log: 0,
            sights: Sights::default(),
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
        let log = |log: u64, node: u32| mix(log.rotate_left(7) ^ self.node(node).log);
        self.all().fold(self.log, log)
    }

    /// Counts so far.
    pub fn statistics(&self) -> Statistics {
        let mut sum = self.counts;
        for shard in &self.shards {
            sum += &shard.statistics;
        }
        sum
    }

    /// What routers have sent to leaves so far.
    pub(crate) fn to_leaves(&self) -> ToLeaves {
        let sum = |sum: ToLeaves, shard: &Shard| ToLeaves {
            packets: sum.packets + shard.to_leaves.packets,
            control_bytes: sum.control_bytes + shard.to_leaves.control_bytes,
        };
        self.shards.iter().fold(ToLeaves::default(), sum)
    }

    /// What whole nodes dropped so far, by reason.
    pub fn drops(&mut self) -> BTreeMap<&'static str, u64> {
        let running = self.all().map(|node| self.dropped_by(node));
        let all: Vec<_> = running.collect();
        let mut sum = BTreeMap::new();
        for (reason, count) in all.iter().chain(&self.dropped).flatten() {
            *sum.entry(*reason).or_default() += count;
        }
        sum
    }

    fn dropped_by(&mut self, node: u32) -> BTreeMap<&'static str, u64> {
        let router = self.node_mut(node).router.as_mut();
        let whole = router.and_then(Router::whole);
        whole.map(|whole| whole.drops()).unwrap_or_default()
    }

    /// Lets time pass until `end`, or until a rule is broken.
    pub fn run_until(&mut self, end: Nanos) {
        while self.violation.is_none() {
            let action = self.script.get(self.next_action).map(|(at, _)| *at);
            let event = self.queue.next_at();
            let shared = action
                .unwrap_or(Nanos::MAX)
                .min(event.unwrap_or(Nanos::MAX));
            let alone = self.shards.iter().filter_map(Shard::next_at).min();
            let next = alone.unwrap_or(Nanos::MAX).min(shared);
            if next > end || next == Nanos::MAX {
                break;
            }
            if next / SECOND != self.now / SECOND {
                self.watch.set_seconds(next / SECOND);
                self.check_expelled();
            }
            self.now = next;
            self.expire();
            if action == Some(next) {
                let (_, action) = self.script[self.next_action].clone();
                self.next_action += 1;
                self.act(action);
            } else if event == Some(next) {
                if let Some((_, event)) = self.queue.pop(next) {
                    self.counts.events += 1;
                    self.happen(event);
                }
            } else {
                let slot = self.shards[0].slot_end(next);
                self.run_nodes(slot.min(shared).min(end.saturating_add(1)));
            }
        }
        if self.violation.is_none() {
            self.now = self.now.max(end);
            self.expire();
        }
    }

    /// All that happens to nodes alone, until a time in the present slot.
    fn run_nodes(&mut self, until: Nanos) {
        let inputs: usize = self.shards.iter().map(|s| s.len_at(self.now)).sum();
        match &self.crew {
            Some(crew) if inputs >= WORTHWHILE => crew.run(&mut self.shards, until),
            _ => self.shards.iter_mut().for_each(|shard| shard.run(until)),
        }
        let mut effects = Vec::new();
        for shard in 0..self.shards.len() {
            self.collect(shard, &mut effects);
        }
        effects.sort_by_key(|(at, node, _)| (*at, *node));
        self.take_effect(effects);
    }

    /// What came out of a shard: messages go to the others, effects are left to the caller.
    fn collect(&mut self, shard: usize, effects: &mut Vec<Since>) {
        for other in 0..self.shards.len() {
            if let Ok([from, to]) = self.shards.get_disjoint_mut([shard, other]) {
                from.hand_over(to);
            }
        }
        let shard = &mut self.shards[shard];
        effects.append(&mut shard.effects);
        let changed = shard.changed;
        for violation in shard.violations.drain(..) {
            let when = |v: &Violation| (v.at, v.node);
            if self
                .violation
                .as_ref()
                .is_none_or(|v| when(&violation) < when(v))
            {
                self.violation = Some(violation);
            }
        }
        if changed > self.model.changed() {
            self.network_changed(changed);
        }
    }

    fn take_effect(&mut self, effects: Vec<Since>) {
        for (at, node, effect) in effects {
            self.now = at;
            match effect {
                Effect::Wanted(nodes) => self.set_wanted(node, nodes),
                Effect::Retired(link) => self.retired(node, link),
                Effect::Linked => self.changed(),
            }
        }
    }

    pub(crate) fn at(&mut self, after: Nanos, event: Event) {
        self.queue.push(self.now + after, event);
    }

    /// Nodes, links or announcements changed.
    pub(crate) fn changed(&mut self) {
        self.network_changed(self.now);
        self.pieces = None;
    }

    fn network_changed(&mut self, at: Nanos) {
        self.model.network_changed(at);
        for shard in &mut self.shards {
            shard.setting.changed = self.model.changed();
        }
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
}

/// Nodes.
impl Simulation {
    /// The numbers of all nodes.
    pub(crate) fn all(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.scenario.nodes
    }

    /// Where a node is: its shard, and its place there.
    fn place(&self, node: u32) -> (usize, usize) {
        let Place { shard, at } = self.places[node as usize];
        (shard as usize, at as usize)
    }

    pub(crate) fn node(&self, node: u32) -> &Node {
        let (shard, place) = self.place(node);
        &self.shards[shard].nodes[place]
    }

    pub(crate) fn node_mut(&mut self, node: u32) -> &mut Node {
        self.shard(node).node(node)
    }

    /// The shard of a node.
    pub(crate) fn shard(&mut self, node: u32) -> &mut Shard {
        let (shard, _) = self.place(node);
        &mut self.shards[shard]
    }

    pub(crate) fn runs(&self, node: u32) -> bool {
        self.node(node).router.is_some()
    }

    /// One input to the router of a node, and what comes out of it.
    pub(crate) fn input(&mut self, node: u32, f: impl FnOnce(&mut Router, Nanos)) {
        let now = self.now;
        self.tell(node, |shard| shard.input(node, now, f));
    }

    /// The same for a router whose links the simulator makes.
    pub(crate) fn alone(&mut self, node: u32, f: impl FnOnce(&mut RouterAlone, Nanos)) {
        self.input(node, |router, now| {
            if let Some(router) = router.alone() {
                f(router, now);
            }
        });
    }

    /// Something for the shard of a node, and what comes out of it.
    pub(crate) fn tell(&mut self, node: u32, f: impl FnOnce(&mut Shard)) {
        let shard = self.shard(node);
        f(shard);
        shard.call(node);
        let (shard, _) = self.place(node);
        let mut effects = Vec::new();
        self.collect(shard, &mut effects);
        self.take_effect(effects);
    }

    /// From now on every delivery is written down.
    pub(crate) fn watch_deliveries(&mut self) {
        for shard in &mut self.shards {
            shard.deliveries = Some(Vec::new());
        }
    }

    /// From now on somebody looks.
    pub(crate) fn open_sights(&mut self) {
        let shards = self.shards.iter_mut().map(|shard| &mut shard.sights);
        shards.chain([&mut self.sights]).for_each(Sights::open);
    }

    /// What was seen since the last time, in order of time.
    pub(crate) fn take_sights(&mut self) -> Vec<Sight> {
        let shards = self.shards.iter_mut().map(|shard| &mut shard.sights);
        let all = [&mut self.sights].into_iter().chain(shards);
        let mut all: Vec<Sight> = all.flat_map(Sights::take).collect();
        all.sort_by_key(|sight| (sight.at, sight.node));
        all
    }

    pub(crate) fn see(&mut self, node: u32, what: What) {
        self.sights.see(self.now, node, what);
    }

    /// One more action, no earlier than all others and what has happened.
    pub(crate) fn append(&mut self, at: Nanos, action: Action) {
        let at = at.max(self.now + 1).max(self.end());
        self.script.push((at, action));
    }

    /// What was done, and will be.
    pub(crate) fn script(&self) -> &Script {
        &self.script
    }

    /// What was written down, in order of time. That is all.
    pub(crate) fn take_deliveries(&mut self) -> Vec<Delivery> {
        let taken = self.shards.iter_mut().filter_map(|s| s.deliveries.take());
        let mut all: Vec<Delivery> = taken.flatten().collect();
        all.sort_by_key(|d| (d.at, d.node));
        all
    }
}

/// Events and actions.
impl Simulation {
    fn happen(&mut self, event: Event) {
        match event {
            Event::LinkDown { link, side } => self.link_down(link, side),
            Event::Connect { a, b, good } => self.connected(a, b, good),
            Event::Retry { a, b } => self.retry(a, b),
            Event::Presence { node, incarnation } => self.presence(node, incarnation),
            Event::PresenceTurn => self.tell_presence(),
            Event::Probe { node, group } => {
                self.send(node, group, 64, true);
            }
        }
    }

    /// Does it now.
    pub(crate) fn act(&mut self, action: Action) {
        let mut hasher = fast::Multiply::default();
        hasher.write(action.to_string().as_bytes());
        self.log = mix(self.log.rotate_left(7) ^ mix(self.now) ^ hasher.finish());
        match action {
            Action::Start(node) => self.start(node),
            Action::Stop(node) => self.stop(node, true),
            Action::Crash(node) => self.stop(node, false),
            Action::Join(node, group, filter) => self.join(node, group, &filter),
            Action::Send(node, group, bytes) => {
                self.send(node, group, bytes, false);
            }
            Action::Announce(node, prefixes) => self.announce(node, &prefixes),
            Action::Break(a, b) => self.break_link(a, b),
            Action::Cut(a, b) => self.cut(a, b),
            Action::Mend(a, b) => self.mend(a, b),
            Action::Partition(side) => self.divide(Some(side.into_iter().collect())),
            Action::Heal => self.divide(None),
            Action::Revoke(by, node) => self.revoke(by, node),
            Action::Clocks(seconds) => {
                self.watch.put_forward(seconds);
                self.clocks_put = self.now;
            }
            Action::Server(up) => self.set_terrain(|terrain| terrain.server = up),
            Action::Calm => self.calm_down(),
            Action::Check => self.check(),
            Action::Empty => self.check_empty(),
        }
    }

    fn start(&mut self, node: u32) {
        if self.runs(node) {
            return;
        }
        let (now, population) = (self.now, self.population.clone());
        let seed = Random::stream(self.scenario.seed, &[9, node.into()]).next();
        let (scenario, clock, watch) = (self.scenario.clone(), self.clock, self.watch.clone());
        let n = self.node_mut(node);
        n.incarnation = n.incarnation.max(n.disk.incarnation) + 1;
        n.started = now;
        let start = Start {
            scenario: &scenario,
            population: &population,
            node,
            watch: &watch,
            clock,
            incarnation: n.incarnation,
            seed,
            announced: &n.announced,
            disk: &n.disk,
        };
        n.router = Router::start(&start, now);
        let incarnation = n.incarnation;
        if n.router.is_none() {
            return;
        }
        self.counts.starts += 1;
        self.see(node, What::Start);
        self.changed();
        self.input(node, |_, _| ());
        self.at(50 * MILLISECOND, Event::Presence { node, incarnation });
    }

    fn stop(&mut self, node: u32, goodbye: bool) {
        if goodbye {
            self.input(node, Router::goodbye);
        }
        let dropped = self.dropped_by(node);
        self.dropped.push(dropped);
        let n = self.node_mut(node);
        let incarnation = n.incarnation;
        let Some(links) = n.stop() else { return };
        self.counts.stops += 1;
        self.see(node, What::End);
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
        self.set_weather(Links {
            loss: 0.0,
            jitter: Span::ms(0),
            ..self.scenario.links.clone()
        });
    }

    /// Links come and go again.
    pub(crate) fn end_calm(&mut self) {
        self.calm = false;
        self.set_weather(self.scenario.links.clone());
        self.attempt_all();
    }

    fn set_weather(&mut self, weather: Links) {
        let weather = Arc::new(weather);
        for shard in &mut self.shards {
            shard.setting.weather = weather.clone();
        }
    }

    /// Something changes between hosts.
    pub(crate) fn set_terrain(&mut self, change: impl Fn(&mut Terrain)) {
        for shard in &mut self.shards {
            change(&mut shard.setting.terrain);
        }
    }

    fn revoke(&mut self, by: u32, node: u32) {
        if !self.runs(by) || self.revoked.contains_key(&node) {
            return;
        }
        let unix = self.watch.unix();
        let mut result = Ok(());
        self.input(by, |router, now| {
            if let Some(whole) = router.whole() {
                result = whole.revoke(node, unix, now);
            }
        });
        self.changed();
        match result {
            Ok(()) => drop(self.revoked.insert(node, self.now)),
            Err(text) => self.violate(Rule::Protocol, by, format!("a revocation: {text}")),
        }
    }

    fn announce(&mut self, node: u32, prefixes: &[GroupPrefix]) {
        self.changed();
        self.node_mut(node).announced = prefixes.to_vec();
        self.input(node, |router, now| router.announce(prefixes, now));
    }
}

/// Programs and kernels.
impl Simulation {
    fn join(&mut self, node: u32, group: Ipv6Addr, filter: &SourceFilter) {
        let addresses = |sources: &[u32]| {
            let known = sources.iter().filter(|s| **s < self.population.len());
            known.map(|s| self.population.address(*s)).collect()
        };
        let to = match filter {
            SourceFilter::Nothing => Joined::default(),
            SourceFilter::All => Joined::new(true, BTreeSet::new()),
            SourceFilter::Only(sources) => Joined::new(false, addresses(sources)),
            SourceFilter::Except(sources) => Joined::new(true, addresses(sources)),
        };
        self.change(node, &[group], &to);
    }

    /// Programs of a node join groups within a moment: its kernel tells of them together.
    pub(crate) fn join_all(&mut self, node: u32, groups: &[Ipv6Addr]) {
        self.change(node, groups, &Joined::everything());
    }

    fn change(&mut self, node: u32, groups: &[Ipv6Addr], to: &Joined) {
        let now = self.now;
        let mut records = Vec::new();
        for group in groups {
            self.model.set_listener(node, *group, !to.is_nothing());
            let changed = self.node_mut(node).kernel.join(*group, to.clone(), now);
            if changed.is_empty() {
                continue;
            }
            records.extend(changed);
            self.counts.joins += 1;
            let (group, again) = (*group, now + self.random.time(0, SECOND));
            self.tell(node, |shard| {
                shard.put(node, again, Input::Repeat { group });
            });
        }
        if !records.is_empty() {
            self.tell(node, |shard| shard.report(node, &records, now));
        }
    }

    /// A program sends a packet; its number.
    pub(crate) fn send(&mut self, node: u32, group: Ipv6Addr, bytes: u16, probe: bool) -> u64 {
        if !self.runs(node) {
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
        for shard in &mut self.shards {
            shard.ledger.send(node, group, self.now);
        }
        self.counts.sent += 1;
        self.see(node, What::Send { number, group });
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
        // what lossy links between whole nodes lose, nobody sees
        let lossy = self.scenario.whole && self.scenario.links.loss > 0.0 && !self.calm;
        if lossy || !probe && !self.model.is_stable(self.now) {
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
        let n = self.node(node);
        n.router.is_some()
            && n.started + LISTENER_SETTLE <= at
            && n.kernel
                .membership(group)
                .is_some_and(|m| m.since + LISTENER_SETTLE <= at && m.joined.allows(source))
    }

    /// Packets whose time is over: did everyone get them?
    fn expire(&mut self) {
        while let Some(expired) = self.model.expire(self.now) {
            let fates = self.shards.iter_mut().filter_map(|s| s.ledger.expire());
            let fates: Vec<_> = fates.collect();
            if fates.iter().any(|fate| fate.lost) {
                continue;
            }
            let (got, missed): (Vec<u32>, Vec<u32>) = expired.expected.iter().partition(|node| {
                let (shard, place) = self.place(**node);
                fates[shard].has_received(place)
            });
            self.counts.required += got.len() as u64;
            self.miss(&expired, missed);
        }
    }

    fn miss(&mut self, expired: &Expired, mut missed: Vec<u32>) {
        let source = self.population.address(expired.origin);
        missed.retain(|n| self.has_wanted(*n, expired.group, source, expired.sent));
        if let Some(node) = missed.first() {
            let mut text = format!(
                "packet {} for {} that node {} sent at {}; it is missed by nodes {missed:?}",
                expired.number,
                expired.group,
                expired.origin,
                crate::time::At(expired.sent),
            );
            for node in self.all() {
                let drops = self.dropped_by(node);
                if !drops.is_empty() {
                    // writing into a string cannot fail
                    let _ = write!(text, "; node {node} has dropped {drops:?}");
                }
            }
            self.violate(Rule::Missed, *node, text);
        }
    }
}
