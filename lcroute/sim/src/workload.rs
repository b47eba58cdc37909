//! Conversion of a scenario to the script of its actions.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::cert::GroupPrefix;

use crate::action::{Action, Script, SourceFilter};
use crate::random::{Draw as _, Random, Zipf};
use crate::scenario::{Event, Scenario, Span, Workload};
use crate::time::{MILLISECOND, Nanos, SECOND};

/// Time from the last event of the network until it is stable.
const RECOVERY: Nanos = 40 * SECOND;
/// Time from the probes of the check to the leave of all nodes.
const CHECK_TIME: Nanos = 10 * SECOND;
/// Time from that leave until no state may remain: a flow is idle after 60 s.
const LEAVE_TIME: Nanos = 100 * SECOND;

fn group(family: u16, number: u32) -> Ipv6Addr {
    let (high, low) = ((number >> 16) as u16, number as u16);
    Ipv6Addr::new(0xff1e, 0, 0, 0, 0, family, high, low)
}

fn source_specific(family: u16, number: u32) -> Ipv6Addr {
    let (high, low) = ((number >> 16) as u16, number as u16);
    Ipv6Addr::new(0xff3e, 0, 0, 0, 0, family, 0x8000 | high, low)
}

/// Returns all actions of a scenario's run, in order of time.
pub fn script(scenario: &Scenario) -> Script {
    let mut writer = Writer::new(scenario);
    writer.starts();
    for (number, workload) in scenario.workloads.iter().enumerate() {
        writer.workload(number as u64, workload);
    }
    writer.churn();
    for (number, event) in scenario.events.iter().enumerate() {
        writer.event(number as u64, event);
    }
    writer.end();
    writer.script.sort_by_key(|(at, _)| *at);
    writer.script
}

struct Writer<'a> {
    scenario: &'a Scenario,
    script: Script,
    /// Begin and end of the workloads.
    begin: Nanos,
    end: Nanos,
    /// Groups joined at the end, by node.
    joined: BTreeMap<(u32, Ipv6Addr), ()>,
    /// Nodes that have died, with the time.
    dead: BTreeMap<u32, Nanos>,
}

impl<'a> Writer<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let begin = scenario.warm_up.nanos();
        Self {
            scenario,
            script: Vec::new(),
            begin,
            end: begin + scenario.duration.nanos(),
            joined: BTreeMap::new(),
            dead: BTreeMap::new(),
        }
    }

    fn random(&self, name: &[u64]) -> Random {
        Random::stream(self.scenario.seed, name)
    }

    fn nodes(&self) -> usize {
        self.scenario.nodes as usize
    }

    fn put(&mut self, at: Nanos, action: Action) {
        self.script.push((at, action));
    }

    fn join(&mut self, at: Nanos, node: u32, group: Ipv6Addr, filter: SourceFilter) {
        if filter == SourceFilter::Nothing {
            self.joined.remove(&(node, group));
        } else {
            self.joined.insert((node, group), ());
        }
        self.put(at, Action::Join(node, group, filter));
    }

    fn starts(&mut self) {
        let mut random = self.random(&[1]);
        for node in 0..self.scenario.nodes {
            let at = random.time(0, self.scenario.starts.nanos());
            self.put(at, Action::Start(node));
        }
    }

    fn workload(&mut self, number: u64, workload: &Workload) {
        let mut random = self.random(&[2, number]);
        match *workload {
            Workload::Zipf { .. } => self.zipf(&mut random, workload),
            Workload::Lcsync { .. } => self.lcsync(&mut random, workload),
            Workload::Chat {
                rooms,
                members,
                pause,
            } => self.chat(&mut random, rooms, members, pause),
            Workload::Discovery { interval } => self.discovery(&mut random, interval),
            Workload::Stream { .. } => self.stream(&mut random, workload),
        }
    }

    fn zipf(&mut self, random: &mut Random, workload: &Workload) {
        let &Workload::Zipf {
            groups,
            exponent,
            memberships,
            lasts,
            filtered,
            senders,
            rate,
        } = workload
        else {
            return;
        };
        let law = Zipf::new(groups as usize, exponent);
        let nodes = self.nodes();
        let senders: Vec<Vec<u32>> = (0..groups)
            .map(|_| random.sample(nodes, senders as usize))
            .collect();
        // every fifth group is source-specific
        let name = |g: usize| match g % 5 {
            4 => source_specific(1, g as u32),
            _ => group(1, g as u32),
        };
        let filter = |g: usize, random: &mut Random| {
            let one = vec![senders[g][random.index(senders[g].len())]];
            match (g % 5, random.chance(filtered), random.chance(0.5)) {
                (4, ..) | (_, true, true) => SourceFilter::Only(one),
                (_, true, false) => SourceFilter::Except(one),
                _ => SourceFilter::All,
            }
        };
        for node in 0..nodes as u32 {
            let whole = memberships.floor() as usize;
            let slots = whole + usize::from(random.chance(memberships.fract()));
            // time of each slot's next change, and its current group
            let ramp = lasts.nanos().min(self.scenario.duration.nanos() / 4);
            let mut slots: Vec<(Nanos, Option<usize>)> = (0..slots)
                .map(|_| (self.begin + random.time(0, ramp), None))
                .collect();
            while let Some(slot) = (0..slots.len()).min_by_key(|s| slots[*s].0) {
                let (at, held) = slots[slot];
                if at >= self.end {
                    break;
                }
                if let Some(g) = held {
                    self.join(at, node, name(g), SourceFilter::Nothing);
                }
                let g = law.draw(random);
                let taken = slots.iter().any(|(_, held)| *held == Some(g));
                let next = at + random.exponential(lasts.0).max(10 * MILLISECOND);
                slots[slot] = (next, (!taken).then_some(g));
                if !taken {
                    let filter = filter(g, random);
                    self.join(at, node, name(g), filter);
                }
            }
        }
        if rate <= 0.0 {
            return;
        }
        let pause = std::time::Duration::from_secs_f64(1.0 / rate);
        let mut at = self.begin;
        loop {
            at += random.exponential(pause);
            if at >= self.end {
                break;
            }
            let g = law.draw(random);
            let sender = senders[g][random.index(senders[g].len())];
            self.put(at, Action::Send(sender, name(g), 200));
        }
    }

    fn lcsync(&mut self, random: &mut Random, workload: &Workload) {
        let &Workload::Lcsync {
            servers,
            receivers,
            blocks,
            window,
            block_time,
        } = workload
        else {
            return;
        };
        for server in 0..servers {
            let addr = Ipv6Addr::new(0xff1e, 0x1000 + server as u16, 0, 0, 0, 0, 0, 0);
            let Ok(prefix) = GroupPrefix::new(addr, 32) else {
                continue;
            };
            let block = |b: u32| {
                let bits = addr.to_bits() | u128::from(b + 1);
                Ipv6Addr::from_bits(bits)
            };
            let mut nodes = random.sample(self.nodes(), receivers as usize + 1);
            let Some(source) = nodes.pop() else { continue };
            self.put(self.begin, Action::Announce(source, vec![prefix]));
            let start = self.begin + 10 * SECOND;
            let step = (block_time.nanos() / u64::from(window.max(1))).max(MILLISECOND);
            for receiver in &nodes {
                let late = random.time(0, block_time.nanos());
                for b in 0..blocks {
                    let at = start + late + u64::from(b) * step;
                    let leave = at + block_time.nanos();
                    if leave >= self.end {
                        break;
                    }
                    self.join(at, *receiver, block(b), SourceFilter::All);
                    // the last ones stay for the check
                    if b + window < blocks {
                        self.join(leave, *receiver, block(b), SourceFilter::Nothing);
                    }
                }
            }
            // a few symbols of each block while most receivers have joined it
            for b in 0..blocks {
                for symbol in 1..=4 {
                    let at = start + u64::from(b) * step + symbol * block_time.nanos() / 4;
                    if at < self.end {
                        self.put(at, Action::Send(source, block(b), 1_000));
                    }
                }
            }
        }
    }

    fn chat(&mut self, random: &mut Random, rooms: u32, members: u32, pause: Span) {
        for room in 0..rooms {
            for node in random.sample(self.nodes(), members as usize) {
                let mut at = self.begin + random.time(0, 5 * SECOND);
                self.join(at, node, group(2, room), SourceFilter::All);
                loop {
                    at += random.exponential(pause.0).max(MILLISECOND);
                    if at >= self.end {
                        break;
                    }
                    self.put(at, Action::Send(node, group(2, room), 120));
                }
            }
        }
    }

    fn discovery(&mut self, random: &mut Random, interval: Span) {
        for node in 0..self.scenario.nodes {
            let mut at = self.begin + random.time(0, interval.nanos());
            self.join(at, node, group(3, 0), SourceFilter::All);
            while at < self.end {
                self.put(at, Action::Send(node, group(3, 0), 200));
                at += interval.nanos().max(MILLISECOND);
            }
        }
    }

    fn stream(&mut self, random: &mut Random, workload: &Workload) {
        let &Workload::Stream {
            groups,
            listeners,
            period,
            source_specific: specific,
        } = workload
        else {
            return;
        };
        let count = (listeners * self.nodes() as f64).round() as usize;
        for number in 0..groups {
            let mut nodes = random.sample(self.nodes(), count + 1);
            let Some(source) = nodes.pop() else { continue };
            let (group, filter) = if specific {
                (source_specific(4, number), SourceFilter::Only(vec![source]))
            } else {
                (group(4, number), SourceFilter::All)
            };
            for node in nodes {
                let at = self.begin + random.time(0, SECOND);
                self.join(at, node, group, filter.clone());
            }
            let mut at = self.begin + random.time(0, period.nanos());
            while at < self.end {
                self.put(at, Action::Send(source, group, 500));
                at += period.nanos().max(100_000);
            }
        }
    }

    fn churn(&mut self) {
        let churn = &self.scenario.churn;
        let mean = |per_hour: f64| {
            (per_hour > 0.0).then(|| std::time::Duration::from_secs_f64(3_600.0 / per_hour))
        };
        let (restart, broken) = (
            mean(churn.restarts_per_node_hour),
            mean(churn.broken_links_per_node_hour),
        );
        for node in 0..self.scenario.nodes {
            let mut random = self.random(&[3, node.into()]);
            let mut at = self.begin;
            while let Some(mean) = restart {
                at += random.exponential(mean);
                let back = at + random.exponential(churn.away.0).max(50 * MILLISECOND);
                if back >= self.end {
                    break;
                }
                let crash = random.chance(churn.crash_share);
                let gone = if crash { Action::Crash } else { Action::Stop };
                self.put(at, gone(node));
                self.put(back, Action::Start(node));
                at = back;
            }
            let mut at = self.begin;
            while let Some(mean) = broken {
                at += random.exponential(mean);
                if at >= self.end {
                    break;
                }
                let other = random.index(self.nodes()) as u32;
                self.put(at, Action::Break(node, other));
            }
        }
    }

    /// Returns `count` random nodes other than node 0.
    fn others(&self, random: &mut Random, count: usize) -> Vec<u32> {
        let others = random.sample(self.nodes().saturating_sub(1), count);
        others.into_iter().map(|node| node + 1).collect()
    }

    fn event(&mut self, number: u64, event: &Event) {
        let mut random = self.random(&[4, number]);
        let count = |share: f64| (share * f64::from(self.scenario.nodes)).round() as usize;
        match *event {
            Event::Kill { at, share } => {
                let at = self.begin + at.nanos();
                for node in random.sample(self.nodes(), count(share)) {
                    self.put(at, Action::Crash(node));
                    self.dead.insert(node, at);
                }
            }
            Event::Partition { at, share, lasts } => {
                let at = self.begin + at.nanos();
                let mut side = random.sample(self.nodes(), count(share));
                side.sort_unstable();
                self.put(at, Action::Partition(side));
                self.put(at + lasts.nanos(), Action::Heal);
            }
            Event::Absence { at, share, lasts } => {
                let at = self.begin + at.nanos();
                for node in self.others(&mut random, count(share)) {
                    self.put(at, Action::Stop(node));
                    self.put(at + lasts.nanos(), Action::Start(node));
                }
            }
            Event::Revoke { at, share } => {
                let at = self.begin + at.nanos();
                for node in self.others(&mut random, count(share)) {
                    self.put(at, Action::Revoke(0, node));
                }
            }
            Event::Clocks { at, by } => {
                let at = self.begin + at.nanos();
                self.put(at, Action::Clocks(by.0.as_secs()));
            }
            Event::Server { at, lasts } => {
                let at = self.begin + at.nanos();
                self.put(at, Action::Server(false));
                self.put(at + lasts.nanos(), Action::Server(true));
            }
        }
    }

    fn end(&mut self) {
        let dead = std::mem::take(&mut self.dead);
        self.script.retain(|(at, action)| match action {
            Action::Start(node) => dead.get(node).is_none_or(|since| at < since),
            _ => true,
        });
        // broken links and cut-off nodes recover before the calm
        let quiet = self.end + RECOVERY;
        self.put(self.end, Action::Heal);
        self.put(quiet, Action::Calm);
        let check = quiet + self.scenario.settle.nanos();
        self.put(check, Action::Check);
        if self.scenario.leave {
            let leave = check + CHECK_TIME;
            for (node, group) in std::mem::take(&mut self.joined).into_keys() {
                self.put(leave, Action::Join(node, group, SourceFilter::Nothing));
            }
            self.put(leave + LEAVE_TIME, Action::Empty);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_writes_the_same_script() {
        for (name, scenario) in crate::library::all() {
            if scenario.nodes > 100 {
                continue;
            }
            let script = script(&scenario);
            assert_eq!(script, super::script(&scenario), "{name}");
            assert!(script.is_sorted_by_key(|(at, _)| *at), "{name}");
            let other = Scenario {
                seed: 2,
                ..scenario
            };
            assert_ne!(script, super::script(&other), "{name}");
        }
    }

    #[test]
    fn whoever_joined_leaves_at_the_end() {
        for (name, scenario) in crate::library::all() {
            if scenario.nodes > 100 {
                continue;
            }
            let mut joined = BTreeMap::new();
            let mut joins = 0;
            for (_, action) in script(&scenario) {
                if let Action::Join(node, group, filter) = action {
                    joins += 1;
                    joined.insert((node, group), filter);
                }
            }
            assert!(joins > 10, "{name}");
            assert!(
                joined.values().all(|w| *w == SourceFilter::Nothing),
                "{name}"
            );
        }
    }
}
