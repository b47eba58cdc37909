//! Measurements for docs/routing-measured.md: experiments in sequence on one network at rest.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::cert::GroupPrefix;
use serde::Serialize;

use crate::action::{Action, SourceFilter};
use crate::population::Population;
use crate::random::{Draw as _, Random, Zipf};
use crate::scenario::{Links, Policy, Scenario, Span, Topology};
use crate::shard::Delivery;
use crate::simulation::Simulation;
use crate::statistics::JOIN_STATE;
use crate::time::{MILLISECOND, Nanos, SECOND};
use crate::workload;

/// Time from the first start until links and roots have settled.
pub(crate) const REST: Nanos = 150 * SECOND;
/// Further time to rest: nodes try better links less and less often.
pub(crate) const LATER: Nanos = 1_800 * SECOND;
/// Time for which control traffic is counted.
pub(crate) const WINDOW: Nanos = 60 * SECOND;
/// Interval of the stream that shows outages.
const PERIOD: Nanos = 20 * MILLISECOND;
/// Time for which an outage is observed.
const OUTAGE: Nanos = 6 * SECOND;
/// Routers or links of a tree that die, in sequence.
const DEATHS: usize = 10;
/// Restarts per node and hour under churn.
const CHURN: f64 = 2.0;

/// Parameters of a measured network.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Number of nodes.
    pub nodes: u32,
    /// Topology policy.
    pub policy: Policy,
    /// Links of a node.
    pub degree: u8,
    /// Seed of all randomness.
    pub seed: u64,
}

/// Results of a network.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    pub nodes: u32,
    pub policy: String,
    pub links_mean: f64,
    pub links_max: usize,
    pub young_bytes: f64,
    pub rest_bytes: f64,
    pub churn_bytes: f64,
    pub first_join: Cost,
    pub further_join: Cost,
    pub new_flow: Cost,
    pub burst_bytes: f64,
    pub join_round_trips: f64,
    pub join_extra_ms: f64,
    pub join_extra_max_ms: f64,
    pub stretch_shared: f64,
    pub stretch_announced: f64,
    pub stretch_source: f64,
    pub discovery_messages: f64,
    pub hottest: f64,
    pub hottest_share: f64,
    pub entries_mean: f64,
    pub entries_max: usize,
    pub node_death: Outage,
    pub link_death: Outage,
    pub deaths: Vec<(f64, Outage)>,
    pub broken_rule: Option<String>,
}

/// Mean number and size of messages with join state.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Cost {
    pub messages: f64,
    pub bytes_each: f64,
}

/// Outage at listeners after a failure.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Outage {
    /// Share of live listeners with an interruption.
    pub interrupted: f64,
    /// Share of live listeners that receive nothing more.
    pub cut_off: f64,
    /// Median time to the first packet after the failure.
    pub median_ms: f64,
    /// 99th percentile of it.
    pub p99_ms: f64,
    /// Number of interruptions.
    pub count: usize,
    /// Gaps per listener more than a second later: trees change again when links return.
    pub later: f64,
}

/// Measures a network; `progress` receives the name of each part.
pub fn measure(subject: Subject, threads: usize, progress: &mut dyn FnMut(&str)) -> Figures {
    let mut bench = Bench::new(subject, threads);
    progress("coming to rest");
    bench.run(REST);
    let mut figures = Figures {
        nodes: subject.nodes,
        policy: subject.policy.to_string(),
        ..Figures::default()
    };
    figures.young_bytes = bench.control_bytes(WINDOW);
    progress("half an hour");
    bench.run(LATER);
    figures.rest_bytes = bench.control_bytes(WINDOW);
    (figures.links_mean, figures.links_max) = bench.links();
    bench.simulation.act(Action::Calm);
    bench.run(15 * SECOND);
    progress("joins and flows");
    bench.joins(&mut figures);
    progress("stretch");
    figures.stretch_shared = bench.stretch(Kind::Shared);
    figures.stretch_announced = bench.stretch(Kind::Announced);
    figures.stretch_source = bench.stretch(Kind::Source);
    progress("discovery");
    bench.discovery(&mut figures);
    progress("state");
    bench.state(&mut figures);
    bench.end_calm();
    progress("deaths");
    bench.deaths(&mut figures);
    progress("churn");
    figures.churn_bytes = bench.churn();
    figures.broken_rule = bench.simulation.violation.map(|v| format!("{v:?}"));
    figures
}

/// Type of a group's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shared,
    Announced,
    Source,
}

/// A network under measurement.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) simulation: Simulation,
    pub(crate) random: Random,
    pub(crate) nodes: u32,
    groups: u32,
}

impl Bench {
    pub(crate) fn new(subject: Subject, threads: usize) -> Self {
        let scenario = Arc::new(Scenario {
            nodes: subject.nodes,
            seed: subject.seed,
            starts: Span::seconds(1),
            topology: Topology {
                policy: subject.policy,
                degree: subject.degree,
                core: 1.0,
            },
            links: Links {
                jitter: Span::ms(0),
                ..Links::default()
            },
            ..Scenario::default()
        });
        let population = Arc::new(Population::of(&scenario));
        let starts = |action: &Action| matches!(action, Action::Start(_));
        let mut script = workload::script(&scenario);
        script.retain(|(_, action)| starts(action));
        Self {
            random: Random::stream(subject.seed, &[20]),
            nodes: subject.nodes,
            simulation: Simulation::new(scenario, population, script, threads),
            groups: 0,
        }
    }

    pub(crate) fn run(&mut self, time: Nanos) {
        let end = self.simulation.now() + time;
        self.simulation.run_until(end);
    }

    pub(crate) fn end_calm(&mut self) {
        self.simulation.end_calm();
        self.run(40 * SECOND);
    }

    pub(crate) fn node(&mut self) -> u32 {
        self.random.index(self.nodes as usize) as u32
    }

    fn runs(&self, node: u32) -> bool {
        self.simulation.runs(node)
    }

    pub(crate) fn group(&mut self) -> Ipv6Addr {
        self.groups += 1;
        Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 9, 0, self.groups as u16)
    }

    pub(crate) fn join(&mut self, node: u32, group: Ipv6Addr) {
        self.simulation
            .act(Action::Join(node, group, SourceFilter::All));
    }

    fn leave(&mut self, node: u32, group: Ipv6Addr) {
        let leave = Action::Join(node, group, SourceFilter::Nothing);
        self.simulation.act(leave);
    }

    pub(crate) fn links(&mut self) -> (f64, usize) {
        let simulation = &self.simulation;
        let counts = simulation.all().map(|n| simulation.node(n).links.len());
        let (sum, max) = counts.fold((0, 0), |(sum, max), n| (sum + n, n.max(max)));
        (sum as f64 / f64::from(self.nodes), max)
    }

    /// Returns the control bytes per node and second.
    pub(crate) fn control_bytes(&mut self, window: Nanos) -> f64 {
        let before = self.simulation.statistics().control.bytes;
        self.run(window);
        let bytes = self.simulation.statistics().control.bytes - before;
        bytes as f64 / f64::from(self.nodes) / (window as f64 / SECOND as f64)
    }

    /// Returns the mean cost of `f` in messages with join state, over `rounds`.
    fn cost(&mut self, rounds: u32, mut f: impl FnMut(&mut Self)) -> Cost {
        let (mut messages, mut bytes) = (0, 0);
        for _ in 0..rounds {
            let before = self.simulation.statistics().control;
            f(self);
            self.run(2 * SECOND);
            let since = self.simulation.statistics().control.since(&before);
            messages += since.join_messages;
            bytes += since.element_bytes[JOIN_STATE];
        }
        Cost {
            messages: messages as f64 / f64::from(rounds),
            bytes_each: bytes as f64 / messages.max(1) as f64,
        }
    }

    fn joins(&mut self, figures: &mut Figures) {
        figures.first_join = self.cost(20, |b| {
            let (node, group) = (b.node(), b.group());
            b.join(node, group);
        });
        let groups: Vec<Ipv6Addr> = (0..20).map(|_| self.group()).collect();
        for group in &groups {
            let node = self.node();
            self.join(node, *group);
        }
        self.run(3 * SECOND);
        let mut next = groups.into_iter();
        figures.new_flow = self.cost(20, |b| {
            let (node, group) = (b.node(), next.next());
            b.simulation
                .send(node, group.unwrap_or(Ipv6Addr::UNSPECIFIED), 100, false);
        });
        let (group, count) = (self.group(), self.nodes as usize * 3 / 10);
        for node in self.random.sample(self.nodes as usize, count) {
            self.join(node, group);
        }
        self.run(3 * SECOND);
        let others: Vec<u32> = (0..self.nodes)
            .filter(|n| {
                let kernel = &self.simulation.node(*n).kernel;
                kernel.membership(group).is_none()
            })
            .collect();
        let joiners = self.random.sample(others.len(), 30);
        let mut joiners = joiners.iter().map(|place| others[*place as usize]);
        let count = joiners.len() as u32;
        figures.further_join = self.cost(count, |b| {
            if let Some(node) = joiners.next() {
                b.join(node, group);
            }
        });
        // a receiver joins the groups of many blocks at once
        let (node, groups): (u32, Vec<Ipv6Addr>) =
            (self.node(), (0..32).map(|_| self.group()).collect());
        let burst = self.cost(1, |b| {
            b.simulation.join_all(node, &groups);
        });
        // each slot has a tree, and so its own message at each hop
        let single = figures.first_join.messages.max(1.0);
        figures.burst_bytes = burst.messages * burst.bytes_each / (32.0 * single);
        self.join_times(figures);
    }

    fn join_times(&mut self, figures: &mut Figures) {
        let (mut ratios, mut extra) = (Vec::new(), Vec::new());
        for _ in 0..30 {
            let (source, listener, group) = (self.node(), self.node(), self.group());
            if source == listener {
                continue;
            }
            self.stream(source, group, MILLISECOND, SECOND);
            self.simulation.watch_deliveries();
            let joined = self.simulation.now();
            self.join(listener, group);
            self.stream(source, group, MILLISECOND, SECOND);
            let deliveries = self.simulation.take_deliveries();
            if let (Some(first), Some(last)) = (deliveries.first(), deliveries.last()) {
                let round_trip = 2 * (last.at - last.sent);
                let took = first.at - joined;
                ratios.push(took as f64 / round_trip as f64);
                extra.push((took as f64 - round_trip as f64) / MILLISECOND as f64);
            }
            self.leave(listener, group);
        }
        figures.join_round_trips = mean(&ratios);
        figures.join_extra_ms = mean(&extra);
        figures.join_extra_max_ms = extra.iter().copied().fold(0.0, f64::max);
    }

    pub(crate) fn stream(&mut self, source: u32, group: Ipv6Addr, period: Nanos, time: Nanos) {
        for _ in 0..time / period {
            self.simulation.send(source, group, 100, false);
            self.run(period);
        }
    }

    /// Returns the mean latency of packets, relative to the shortest path.
    fn stretch(&mut self, kind: Kind) -> f64 {
        let mut ratios = Vec::new();
        for number in 0..8u16 {
            let source = self.node();
            let (group, filter) = match kind {
                Kind::Shared => (self.group(), SourceFilter::All),
                Kind::Announced => {
                    let addr = Ipv6Addr::new(0xff1e, 0x2000 + number, 0, 0, 0, 0, 0, 0);
                    let prefix = GroupPrefix::new(addr, 32).into_iter().collect();
                    self.simulation.act(Action::Announce(source, prefix));
                    self.run(8 * SECOND);
                    (Ipv6Addr::from_bits(addr.to_bits() | 1), SourceFilter::All)
                }
                Kind::Source => {
                    let group = Ipv6Addr::new(0xff3e, 0, 0, 0, 0, 9, 0x8000, number);
                    (group, SourceFilter::Only(vec![source]))
                }
            };
            let listeners = self.random.sample(self.nodes as usize, 20);
            for node in listeners {
                self.simulation
                    .act(Action::Join(node, group, filter.clone()));
            }
            self.run(3 * SECOND);
            self.simulation.send(source, group, 100, false);
            self.run(3 * SECOND);
            self.simulation.watch_deliveries();
            self.simulation.send(source, group, 8, false);
            self.run(2 * SECOND);
            let shortest = self.simulation.latencies(source);
            for delivery in self.simulation.take_deliveries() {
                let direct = shortest[delivery.node as usize] as f64;
                ratios.push((delivery.at - delivery.sent) as f64 / direct);
            }
        }
        mean(&ratios)
    }

    fn discovery(&mut self, figures: &mut Figures) {
        let (group, before) = (self.group(), self.simulation.statistics().control);
        let order = self.random.sample(self.nodes as usize, self.nodes as usize);
        let step = 10 * SECOND / u64::from(self.nodes);
        for node in &order {
            self.join(*node, group);
            self.simulation.send(*node, group, 200, false);
            self.run(step);
        }
        self.run(3 * SECOND);
        let since = self.simulation.statistics().control.since(&before);
        figures.discovery_messages = since.join_messages as f64 / f64::from(self.nodes);
        let before = self.packets();
        for node in &order {
            self.simulation.send(*node, group, 200, false);
            self.run(MILLISECOND);
        }
        self.run(3 * SECOND);
        let carried: Vec<u64> = self
            .packets()
            .iter()
            .zip(&before)
            .flat_map(|(now, before)| {
                [0, 1].map(|side: usize| now[side].saturating_sub(before[side]))
            })
            .collect();
        let sum: u64 = carried.iter().sum();
        let most = carried.iter().copied().max().unwrap_or(0);
        let used = carried.iter().filter(|n| **n > 0).count().max(1);
        figures.hottest = most as f64 / (sum as f64 / used as f64);
        figures.hottest_share = most as f64 / sum.max(1) as f64;
    }

    pub(crate) fn packets(&self) -> Vec<[u64; 2]> {
        let simulation = &self.simulation;
        let left = |id: u32, node: u32| {
            simulation
                .node(node)
                .links
                .get(&id)
                .map_or(0, |p| p.packets)
        };
        let links = simulation.links.iter().zip(0..);
        links
            .map(|(l, id)| l.ends.map(|node| left(id, node)))
            .collect()
    }

    fn state(&mut self, figures: &mut Figures) {
        let groups: Vec<Ipv6Addr> = (0..self.nodes / 2).map(|_| self.group()).collect();
        let law = Zipf::new(groups.len(), 1.0);
        let before: usize = self.entries().iter().sum();
        let old = self.entries();
        for node in 0..self.nodes {
            for _ in 0..3 {
                let group = groups[law.draw(&mut self.random)];
                self.join(node, group);
            }
        }
        self.run(5 * SECOND);
        let entries = self.entries();
        let more: usize = entries.iter().sum::<usize>() - before;
        figures.entries_mean = more as f64 / f64::from(self.nodes);
        let grown = entries
            .iter()
            .zip(&old)
            .map(|(now, old)| now - old.min(now));
        figures.entries_max = grown.max().unwrap_or(0);
    }

    fn entries(&self) -> Vec<usize> {
        let router = |n| self.simulation.node(n).router.as_ref();
        let nodes = self.simulation.all();
        nodes
            .map(|n| router(n).map_or(0, |r| r.entries()))
            .collect()
    }

    /// Makes half of the nodes, 200 at most, join a group; returns it and a sender.
    pub(crate) fn join_half(&mut self) -> (Ipv6Addr, u32) {
        let (group, source) = (self.group(), self.node());
        let listeners = self.random.sample(self.nodes as usize, self.half());
        for node in listeners.iter().filter(|n| **n != source) {
            self.join(*node, group);
        }
        self.run(3 * SECOND);
        (group, source)
    }

    fn half(&self) -> usize {
        (self.nodes as usize / 2).min(200)
    }

    /// Makes nodes of the group's tree die and restart, in sequence.
    pub(crate) fn node_deaths(&mut self, source: u32, group: Ipv6Addr) -> Outage {
        let mut seen = Vec::new();
        for _ in 0..DEATHS {
            let Some((node, _)) = self.on_tree(source, group) else {
                break;
            };
            seen.push(self.outage(source, group, &[Action::Crash(node)]));
            self.simulation.act(Action::Start(node));
            self.run(15 * SECOND);
        }
        Seen::together(&seen)
    }

    fn deaths(&mut self, figures: &mut Figures) {
        let (group, source) = self.join_half();
        figures.node_death = self.node_deaths(source, group);
        let mut seen = Vec::new();
        for _ in 0..DEATHS {
            let Some((a, b)) = self.on_tree(source, group) else {
                break;
            };
            seen.push(self.outage(source, group, &[Action::Break(a, b)]));
            self.run(10 * SECOND);
        }
        figures.link_death = Seen::together(&seen);
        for share in [0.01, 0.05, 0.20] {
            let count = (share * f64::from(self.nodes)).round() as usize;
            if count == 0 {
                continue;
            }
            let rounds = 1 + 200 / self.half().max(1);
            let seen: Vec<Seen> = (0..rounds.min(5))
                .map(|_| self.mass_death(source, group, count))
                .collect();
            figures.deaths.push((share, Seen::together(&seen)));
        }
    }

    /// Makes `count` nodes die at once, and restart.
    fn mass_death(&mut self, source: u32, group: Ipv6Addr, count: usize) -> Seen {
        let victims: Vec<u32> = self
            .random
            .sample(self.nodes as usize, count + 1)
            .into_iter()
            .filter(|n| *n != source)
            .take(count)
            .collect();
        let crashes: Vec<Action> = victims.iter().map(|n| Action::Crash(*n)).collect();
        let seen = self.outage(source, group, &crashes);
        for node in victims {
            self.simulation.act(Action::Start(node));
        }
        self.run(60 * SECOND);
        seen
    }

    /// Returns a node that forwards the stream, and its next hop.
    pub(crate) fn on_tree(&mut self, source: u32, group: Ipv6Addr) -> Option<(u32, u32)> {
        let before = self.packets();
        self.stream(source, group, PERIOD, SECOND / 2);
        let mut edges = Vec::new();
        for (id, now) in self.packets().iter().enumerate() {
            let old = before.get(id).copied().unwrap_or_default();
            let link = &self.simulation.links[id];
            for side in 0..2 {
                let (from, to) = (link.ends[side], link.ends[1 - side]);
                if link.alive && now[side] > old[side] && from != source {
                    edges.push((from, to));
                }
            }
        }
        let place = self.random.index(edges.len());
        edges.get(place).copied()
    }

    /// Performs failures, and measures when listeners receive the stream again.
    pub(crate) fn outage(&mut self, source: u32, group: Ipv6Addr, actions: &[Action]) -> Seen {
        self.stream(source, group, PERIOD, SECOND / 2);
        self.simulation.watch_deliveries();
        self.stream(source, group, PERIOD, SECOND / 5);
        let began = self.simulation.now();
        for action in actions {
            self.simulation.act(action.clone());
        }
        let first = self.simulation.next_number();
        self.stream(source, group, PERIOD, OUTAGE);
        let last = self.simulation.next_number();
        self.run(2 * SECOND);
        let mut got: BTreeMap<u32, Vec<Delivery>> = BTreeMap::new();
        for delivery in self.simulation.take_deliveries() {
            got.entry(delivery.node).or_default().push(delivery);
        }
        let mut seen = Seen::default();
        let listeners: Vec<u32> = self.simulation.model.listeners(group).collect();
        for node in listeners {
            if node == source || !self.runs(node) {
                continue;
            }
            seen.listeners += 1;
            let empty = Vec::new();
            let all = got.get(&node).unwrap_or(&empty);
            let gaps = gaps(all, first - 10..last);
            let at_once = |gap: &&(u64, Option<Nanos>)| gap.0 < first + SECOND / PERIOD;
            seen.later += gaps.iter().filter(|g| !at_once(g)).count();
            match gaps.first().filter(at_once) {
                None => {}
                Some((_, Some(again))) => seen.recovered.push(again.saturating_sub(began)),
                Some((_, None)) => seen.cut_off += 1,
            }
        }
        seen
    }

    pub(crate) fn churn(&mut self) -> f64 {
        let before = self.simulation.statistics().control.bytes;
        let count = f64::from(self.nodes) * CHURN / 60.0;
        let count = (count.round() as u64).max(1);
        for number in 0..count {
            let node = self.node();
            let action = if number % 2 == 0 {
                Action::Crash(node)
            } else {
                Action::Stop(node)
            };
            self.simulation.act(action);
            self.run(WINDOW / count / 2);
            self.simulation.act(Action::Start(node));
            self.run(WINDOW / count / 2);
        }
        let bytes = self.simulation.statistics().control.bytes - before;
        bytes as f64 / f64::from(self.nodes) / (WINDOW as f64 / SECOND as f64)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    listeners: usize,
    cut_off: usize,
    recovered: Vec<Nanos>,
    /// Gaps that began later.
    later: usize,
}

impl Seen {
    pub(crate) fn together(all: &[Self]) -> Outage {
        let listeners: usize = all.iter().map(|s| s.listeners).sum();
        let cut_off: usize = all.iter().map(|s| s.cut_off).sum();
        let mut times: Vec<Nanos> = all.iter().flat_map(|s| s.recovered.clone()).collect();
        times.sort_unstable();
        let at = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).max(1) - 1;
            times
                .get(place)
                .map_or(0.0, |t| *t as f64 / MILLISECOND as f64)
        };
        let share = |n: usize| n as f64 / listeners.max(1) as f64;
        Outage {
            interrupted: share(times.len() + cut_off),
            cut_off: share(cut_off),
            median_ms: at(0.5),
            p99_ms: at(0.99),
            count: times.len(),
            later: all.iter().map(|s| s.later).sum::<usize>() as f64 / listeners.max(1) as f64,
        }
    }
}

/// Returns the gaps of `got` in `sent`: the first missing packet, and the time of the next one.
fn gaps(got: &[Delivery], sent: std::ops::Range<u64>) -> Vec<(u64, Option<Nanos>)> {
    let came: BTreeMap<u64, Nanos> = got.iter().map(|d| (d.number, d.at)).collect();
    let mut gaps: Vec<(u64, Option<Nanos>)> = Vec::new();
    let mut open = false;
    for number in sent {
        match (came.get(&number), open) {
            (None, false) => gaps.push((number, None)),
            (Some(at), true) => {
                if let Some(gap) = gaps.last_mut() {
                    gap.1 = Some(*at);
                }
            }
            _ => {}
        }
        open = !came.contains_key(&number);
    }
    gaps
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
