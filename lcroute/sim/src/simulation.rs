//! The network on virtual time: nodes run by themselves, in shards, between common events.
//!
//! ```text
//!   action or event ──> nodes ──> effects       shard 0  ├─ inputs of its nodes ─┤─┐ messages,
//!                                               shard 1  ├─ inputs of its nodes ─┤─┤ effects
//!                            (next moment) <────────────── in one order ──────────┘
//! ```
//!
//! The number of shards does not change the results.

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

/// Least inputs of a slot for which threads are used.
const WORTHWHILE: usize = 8;
/// Relative sizes of a thread's shards. The large ones run first; a thread that has finished its
/// own takes small ones of other threads.
const SHARDS_EACH: [u32; 4] = [4, 2, 1, 1];

/// Event that concerns several nodes.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// An end notices that its link is gone.
    LinkDown { link: u32, side: usize },
    /// An attempt at a link between two nodes ends.
    Connect { a: u32, b: u32, good: bool },
    /// Two nodes try again.
    Retry { a: u32, b: u32 },
    /// The signalling server notices that a node has come or gone.
    Presence { node: u32, incarnation: u32 },
    /// The signalling server reports its changes.
    PresenceTurn,
    /// A node sends a packet that all listeners must receive.
    Probe { node: u32, group: Ipv6Addr },
}

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
    /// Nodes that are online for the signalling server.
    pub(crate) online: Vec<bool>,
    /// Nodes that have come or gone, not reported yet.
    pub(crate) presence_changes: BTreeSet<u32>,
    /// Nodes cut off from the rest.
    pub(crate) partition: Option<BTreeSet<u32>>,
    /// Pairs that are cut, the lower node first.
    pub(crate) cuts: BTreeSet<(u32, u32)>,
    /// Whether links neither come nor go, and lose nothing.
    pub(crate) calm: bool,
    /// Counts besides those of the shards.
    pub(crate) counts: Statistics,
    pub(crate) watch: Arc<Watch>,
    /// Expelled nodes, and the time of it.
    pub(crate) revoked: BTreeMap<u32, Nanos>,
    /// Time at which clocks were last advanced.
    pub(crate) clocks_put: Nanos,
    /// Drops of daemons that have ended.
    dropped: Vec<BTreeMap<&'static str, u64>>,
    pub(crate) violation: Option<Violation>,
    /// Piece of the network of each node, unless links have changed since.
    pub(crate) pieces: Option<Vec<u32>>,
    script: Script,
    next_action: usize,
    log: u64,
    /// Sights besides those of the shards.
    pub(crate) sights: Sights,
}

impl Simulation {
    /// Makes a network of stopped nodes with the script of its actions; runs on `threads` threads.
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
            // without it everything takes longer, with the same result
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

    /// Returns the time of the last action.
    pub fn end(&self) -> Nanos {
        self.script.last().map_or(0, |(at, _)| *at)
    }

    /// Returns the script of past and future actions.
    pub fn into_script(self) -> Script {
        self.script
    }

    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Returns a hash of all events so far, with their content.
    pub fn log(&self) -> u64 {
        let log = |log: u64, node: u32| mix(log.rotate_left(7) ^ self.node(node).log);
        self.all().fold(self.log, log)
    }

    pub fn statistics(&self) -> Statistics {
        let mut sum = self.counts;
        for shard in &self.shards {
            sum += &shard.statistics;
        }
        sum
    }

    /// Returns the traffic from routers to leaves so far.
    pub(crate) fn to_leaves(&self) -> ToLeaves {
        let sum = |sum: ToLeaves, shard: &Shard| ToLeaves {
            packets: sum.packets + shard.to_leaves.packets,
            control_bytes: sum.control_bytes + shard.to_leaves.control_bytes,
        };
        self.shards.iter().fold(ToLeaves::default(), sum)
    }

    /// Returns the drops of whole nodes so far, by reason.
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

    /// Runs until `end`, or until a rule is broken.
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

    /// Runs the nodes' own inputs until a time in the current slot.
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

    /// Collects the output of a shard: messages go to other shards, effects to the caller.
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

    /// Notes that nodes, links or announcements changed.
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
    pub(crate) fn all(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.scenario.nodes
    }

    /// Returns a node's shard, and its index there.
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

    pub(crate) fn shard(&mut self, node: u32) -> &mut Shard {
        let (shard, _) = self.place(node);
        &mut self.shards[shard]
    }

    pub(crate) fn runs(&self, node: u32) -> bool {
        self.node(node).router.is_some()
    }

    /// Passes an input to a node's router, and handles its output.
    pub(crate) fn input(&mut self, node: u32, f: impl FnOnce(&mut Router, Nanos)) {
        let now = self.now;
        self.tell(node, |shard| shard.input(node, now, f));
    }

    /// Does the same for a router with links made by the simulator.
    pub(crate) fn alone(&mut self, node: u32, f: impl FnOnce(&mut RouterAlone, Nanos)) {
        self.input(node, |router, now| {
            if let Some(router) = router.alone() {
                f(router, now);
            }
        });
    }

    /// Calls the shard of a node, and handles its output.
    pub(crate) fn tell(&mut self, node: u32, f: impl FnOnce(&mut Shard)) {
        let shard = self.shard(node);
        f(shard);
        shard.call(node);
        let (shard, _) = self.place(node);
        let mut effects = Vec::new();
        self.collect(shard, &mut effects);
        self.take_effect(effects);
    }

    pub(crate) fn watch_deliveries(&mut self) {
        for shard in &mut self.shards {
            shard.deliveries = Some(Vec::new());
        }
    }

    pub(crate) fn open_sights(&mut self) {
        let shards = self.shards.iter_mut().map(|shard| &mut shard.sights);
        shards.chain([&mut self.sights]).for_each(Sights::open);
    }

    /// Returns the sights since the last call, in order of time.
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

    /// Adds an action after all previous actions and events.
    pub(crate) fn append(&mut self, at: Nanos, action: Action) {
        let at = at.max(self.now + 1).max(self.end());
        self.script.push((at, action));
    }

    /// Returns the script of past and future actions.
    pub(crate) fn script(&self) -> &Script {
        &self.script
    }

    /// Returns the recorded deliveries in order of time, and stops recording.
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

    /// Stops all changes of the network. Routers still look for better links, but none is made;
    /// unwanted links are closed.
    fn calm_down(&mut self) {
        self.calm = true;
        self.set_weather(Links {
            loss: 0.0,
            jitter: Span::ms(0),
            ..self.scenario.links.clone()
        });
    }

    /// Lets links come and go again.
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

    /// Changes the network between hosts.
    pub(crate) fn set_terrain(&mut self, change: impl Fn(&mut Terrain)) {
        for shard in &mut self.shards {
            change(&mut shard.setting.terrain);
        }
    }

    fn revoke(&mut self, by: u32, node: u32) {
        if !self.runs(by) || self.revoked.contains_key(&node) {
            return;
        }
        let time = self.watch.unix();
        let mut result = Ok(());
        self.input(by, |router, now| {
            if let Some(whole) = router.whole() {
                result = whole.revoke(node, time, now);
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

    /// Makes programs of a node join groups at once: its kernel reports them together.
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

    /// Sends a packet from a program; returns its number.
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

    pub(crate) fn next_number(&self) -> u64 {
        self.model.next_number()
    }

    fn must_receive(
        &mut self,
        origin: u32,
        group: Ipv6Addr,
        source: Ipv6Addr,
        probe: bool,
    ) -> Vec<u32> {
        // losses between whole nodes are not reported
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

    /// Whether a node has wanted packets of `source` since a while before `at`.
    fn has_wanted(&self, node: u32, group: Ipv6Addr, source: Ipv6Addr, at: Nanos) -> bool {
        let n = self.node(node);
        n.router.is_some()
            && n.started + LISTENER_SETTLE <= at
            && n.kernel
                .membership(group)
                .is_some_and(|m| m.since + LISTENER_SETTLE <= at && m.joined.allows(source))
    }

    /// Checks whether expired packets have reached all nodes that had to receive them.
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
