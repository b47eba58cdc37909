//! Begin and end of links.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use crate::link::Link;
use crate::random::Draw as _;
use crate::sight::What;
use crate::simulation::{Event, Simulation};
use crate::time::{MILLISECOND, Nanos, SECOND};

/// Range of time after the last arrival in which an end notices a lost neighbour, as the overlay's
/// liveness on an idle link; its tests assert it. Round trips above [`EXPECTED_TRIP`] add the
/// excess.
const DETECTION: (Nanos, Nanos) = (417 * MILLISECOND, 752 * MILLISECOND);
const EXPECTED_TRIP: Nanos = 150 * MILLISECOND;
/// Time to make a link, beside three round trips.
const SETUP: Nanos = 50 * MILLISECOND;
/// Time of an attempt without an answer.
const ATTEMPT: Nanos = 5 * SECOND;
/// Interval of the signalling server's reports of presence.
const PRESENCE_TURN: Nanos = 50 * MILLISECOND;
/// Time for which a broken link between whole nodes passes nothing: more than their timeouts.
const CUT: Nanos = 5 * SECOND;
/// Longest time between two attempts.
const BACKOFF: Nanos = 60 * SECOND;

/// Returns the lowest node of a piece, in a forest of parents.
fn find(above: &mut [u32], mut node: u32) -> u32 {
    while above[node as usize] != node {
        above[node as usize] = above[above[node as usize] as usize];
        node = above[node as usize];
    }
    node
}

fn key(a: u32, b: u32) -> (u32, u32) {
    (a.min(b), a.max(b))
}

impl Simulation {
    /// Sets the peers that a node wants links to.
    pub(crate) fn set_wanted(&mut self, node: u32, wanted: BTreeSet<u32>) {
        let n = self.node_mut(node);
        let new: Vec<u32> = wanted.difference(&n.wanted).copied().collect();
        n.wanted = wanted;
        for other in new {
            if self.online[other as usize] {
                self.attempt(node, other);
            }
        }
    }

    /// Returns the piece of the network of each node: the lowest node in it.
    pub(crate) fn pieces(&mut self) -> &[u32] {
        if self.pieces.is_none() {
            let count = self.scenario.nodes;
            let mut above: Vec<u32> = (0..count).collect();
            for ends in self.pairs_linked() {
                let [a, b] = ends.map(|n| find(&mut above, n));
                above[a.max(b) as usize] = a.min(b);
            }
            self.pieces = Some((0..count).map(|n| find(&mut above, n)).collect());
        }
        self.pieces.as_deref().unwrap_or_default()
    }

    /// Returns pairs of nodes with a link at both ends.
    fn pairs_linked(&self) -> Vec<[u32; 2]> {
        if !self.scenario.whole {
            let alive = |l: &&Link| l.alive && l.up == [true; 2];
            return self.links.iter().filter(alive).map(|l| l.ends).collect();
        }
        let has = |a: u32, b: u32| self.node(a).linked.contains(&b);
        let links = |a: u32| self.node(a).linked.range(a + 1..).map(move |b| [a, *b]);
        let all = self.all().flat_map(links);
        all.filter(|[a, b]| has(*b, *a)).collect()
    }

    /// Returns the latency of the fastest path from a node to each other node.
    pub(crate) fn latencies(&self, from: u32) -> Vec<Nanos> {
        let mut far = vec![Nanos::MAX; self.scenario.nodes as usize];
        let mut edges: Vec<Vec<(u32, Nanos)>> = vec![Vec::new(); self.scenario.nodes as usize];
        for link in self.links.iter().filter(|l| l.alive && l.up == [true; 2]) {
            for side in 0..2 {
                edges[link.ends[side] as usize].push((link.ends[1 - side], link.latency));
            }
        }
        let mut heap = BinaryHeap::from([Reverse((0, from))]);
        while let Some(Reverse((distance, node))) = heap.pop() {
            if distance >= far[node as usize] {
                continue;
            }
            far[node as usize] = distance;
            for (to, latency) in &edges[node as usize] {
                heap.push(Reverse((distance + latency, *to)));
            }
        }
        far
    }

    /// Starts an attempt of a node at a link to another.
    fn attempt(&mut self, node: u32, other: u32) {
        let linked = self.linked(node, other);
        let pair = self.pairs.entry(key(node, other)).or_default();
        if pair.pending || linked {
            return;
        }
        pair.pending = true;
        let good = self.reaches(node, other) && self.map.connects(node, other);
        let after = if good {
            6 * self.map.latency(node, other) + SETUP
        } else {
            ATTEMPT
        };
        let (a, b) = (node, other);
        self.at(after, Event::Connect { a, b, good });
    }

    /// Whether both ends have a live link to each other.
    fn linked(&self, a: u32, b: u32) -> bool {
        let link = self.pairs.get(&key(a, b)).and_then(|p| p.link);
        link.is_some_and(|l| {
            let link = &self.links[l as usize];
            link.alive && link.up == [true; 2]
        })
    }

    /// Whether packets and introductions get from one node to another.
    fn reaches(&self, a: u32, b: u32) -> bool {
        let cut = self.cuts.contains(&key(a, b));
        self.runs(a) && self.runs(b) && !cut && !self.is_divided(a, b)
    }

    fn is_divided(&self, a: u32, b: u32) -> bool {
        let side = |n: u32| self.partition.as_ref().is_some_and(|p| p.contains(&n));
        side(a) != side(b)
    }

    /// Ends an attempt. Nodes may have gone meanwhile.
    pub(crate) fn connected(&mut self, a: u32, b: u32, good: bool) {
        let wants = |n: u32, o: u32| self.node(n).wanted.contains(&o);
        let wanted = wants(a, b) || wants(b, a);
        let good = good && self.reaches(a, b);
        let (linked, calm) = (self.linked(a, b), self.calm);
        let pair = self.pairs.entry(key(a, b)).or_default();
        pair.pending = false;
        if !wanted || linked || calm {
            return;
        }
        if good {
            pair.failures = 0;
            self.link(a, b);
        } else {
            pair.failures += 1;
            let backoff = (SECOND << pair.failures.min(6)).min(BACKOFF);
            let after = self.random.time(backoff / 2, backoff);
            self.tell_failing(a, b, true);
            self.at(after, Event::Retry { a, b });
        }
    }

    /// Starts another attempt, if one of both nodes still wants it.
    pub(crate) fn retry(&mut self, a: u32, b: u32) {
        for (node, other) in [(a, b), (b, a)] {
            let n = self.node(node);
            if n.router.is_some() && n.wanted.contains(&other) && self.online[other as usize] {
                return self.attempt(node, other);
            }
        }
    }

    fn tell_failing(&mut self, a: u32, b: u32, failing: bool) {
        let population = self.population.clone();
        for (node, other) in [(a, b), (b, a)] {
            self.alone(node, |router, now| {
                router.direct_failure(population.get(other), failing, now);
            });
        }
    }

    fn link(&mut self, a: u32, b: u32) {
        let ends = [a.min(b), a.max(b)];
        let id = self.links.len() as u32;
        let latency = self.map.latency(a, b);
        let pair = self.pairs.entry(key(a, b)).or_default();
        let old = pair.link.replace(id);
        pair.number += 1;
        let link = Link::new(ends, latency, pair.number);
        let ports = [0, 1].map(|side| link.port(side, self.scenario.seed));
        self.links.push(link);
        self.counts.links_made += 1;
        self.changed();
        self.tell_failing(a, b, false);
        let (now, population) = (self.now, self.population.clone());
        for (side, mut port) in ports.into_iter().enumerate() {
            self.see(ends[side], What::LinkUp(ends[1 - side]));
            let (node, other) = (ends[side], population.get(ends[1 - side]));
            let shard = self.shard(node);
            port.direction = shard.ledger.new_direction();
            shard.node(node).links.insert(id, port);
            self.alone(node, |router, now| router.link_up(id, other, now));
            self.tell(node, |shard| shard.round_trip(node, id, now));
        }
        // an end that still has the earlier link drops it
        for side in 0..2 {
            if let Some(old) = old {
                self.link_down(old, side);
            }
        }
    }

    pub(crate) fn link_down(&mut self, id: u32, side: usize) {
        self.silence(id);
        let link = &mut self.links[id as usize];
        if !std::mem::take(&mut link.up[side]) {
            return;
        }
        let (node, other) = (link.ends[side], link.ends[1 - side]);
        self.see(node, What::LinkDown(other));
        self.changed();
        self.node_mut(node).links.remove(&id);
        self.alone(node, |router, now| router.link_down(id, now));
        if self.node(node).wanted.contains(&other) && self.online[other as usize] {
            self.attempt(node, other);
        }
    }

    /// Stops all arrivals over a link.
    fn silence(&mut self, id: u32) {
        let link = &mut self.links[id as usize];
        link.alive = false;
        for node in link.ends {
            if let Some(port) = self.node_mut(node).links.get_mut(&id) {
                port.alive = false;
            }
        }
    }

    /// Handles a router's closing of an unneeded link.
    pub(crate) fn retired(&mut self, node: u32, id: u32) {
        self.end_link(id, node, true);
    }

    /// Drops a node's end of a link; the other end receives a goodbye, or notices.
    pub(crate) fn end_link(&mut self, id: u32, node: u32, goodbye: bool) {
        let link = &mut self.links[id as usize];
        let (side, latency) = (link.side(node), link.latency);
        if std::mem::take(&mut link.up[side]) {
            let other = link.ends[1 - side];
            self.see(node, What::LinkDown(other));
        }
        if goodbye {
            // packets under way still arrive before the goodbye
            let side = 1 - side;
            self.at(latency + MILLISECOND, Event::LinkDown { link: id, side });
        } else {
            self.die(id, &[1 - side]);
        }
    }

    /// Stops all arrivals; these ends notice after their own timeouts.
    fn die(&mut self, id: u32, sides: &[usize]) {
        self.silence(id);
        let latency = self.links[id as usize].latency;
        let longer = (2 * latency).saturating_sub(EXPECTED_TRIP);
        for &side in sides {
            let after = latency + longer + self.random.time(DETECTION.0, DETECTION.1);
            self.at(after, Event::LinkDown { link: id, side });
        }
    }

    /// Cuts two hosts from each other until a time.
    fn cut_until(&mut self, a: u32, b: u32, until: Nanos) {
        self.counts.links_broken += u64::from(self.node(a).linked.contains(&b));
        self.changed();
        self.set_terrain(|terrain| {
            Arc::make_mut(&mut terrain.cuts).insert(key(a, b), until);
        });
    }

    pub(crate) fn cut(&mut self, a: u32, b: u32) {
        if !self.cuts.insert(key(a, b)) {
            return;
        }
        if self.scenario.whole {
            return self.cut_until(a, b, Nanos::MAX);
        }
        let link = self.pairs.get(&key(a, b)).and_then(|p| p.link);
        if let Some(link) = link.filter(|l| self.links[*l as usize].alive) {
            self.break_by_number(link);
        }
    }

    /// Ends the cut of two nodes.
    pub(crate) fn mend(&mut self, a: u32, b: u32) {
        if !self.cuts.remove(&key(a, b)) {
            return;
        }
        if self.scenario.whole {
            return self.cut_until(a, b, self.now);
        }
        // otherwise the next attempt may be a minute away
        if let Some(pair) = self.pairs.get_mut(&key(a, b)) {
            pair.failures = 0;
        }
        self.retry(a, b);
    }

    fn break_by_number(&mut self, link: u32) {
        self.counts.links_broken += 1;
        self.changed();
        self.die(link, &[0, 1]);
    }

    /// Breaks the link between two nodes; without one, another link of `a`, selected by `b`.
    pub(crate) fn break_link(&mut self, a: u32, b: u32) {
        if self.scenario.whole {
            return self.cut_until(a, b, self.now + CUT);
        }
        let between = self.pairs.get(&key(a, b)).and_then(|p| p.link);
        let between = between.filter(|l| self.links[*l as usize].alive);
        let links = &self.node(a).links;
        let other = links.keys().get(b as usize % links.len().max(1)).copied();
        let other = other.filter(|l| self.links[*l as usize].alive);
        if let Some(link) = between.or(other) {
            self.break_by_number(link);
        }
    }

    /// Divides the network, or ends the division.
    pub(crate) fn divide(&mut self, partition: Option<BTreeSet<u32>>) {
        if partition == self.partition {
            return;
        }
        self.partition = partition;
        self.changed();
        let partition = self.partition.clone().map(Arc::new);
        self.set_terrain(|terrain| terrain.partition.clone_from(&partition));
        for id in 0..self.links.len() {
            let link = &self.links[id];
            if link.alive && self.is_divided(link.ends[0], link.ends[1]) {
                self.counts.links_broken += 1;
                self.die(id as u32, &[0, 1]);
            }
        }
        if self.partition.is_none() {
            self.attempt_all();
        }
    }

    /// Starts attempts at all wanted links: the signalling server connects all nodes again.
    pub(crate) fn attempt_all(&mut self) {
        for node in self.all() {
            let wanted: Vec<u32> = self.node(node).wanted.iter().copied().collect();
            for other in wanted {
                if self.online[other as usize] {
                    self.attempt(node, other);
                }
            }
        }
    }

    /// Notes that a node has come or gone; the signalling server reports it at its next turn.
    pub(crate) fn presence(&mut self, node: u32, incarnation: u32) {
        let n = self.node(node);
        let runs = n.router.is_some();
        // outdated by a later start or stop; a node that returned unnoticed gets the full list, too
        let known = self.online[node as usize];
        if n.incarnation != incarnation || !known && !runs {
            return;
        }
        self.online[node as usize] = runs;
        if self.presence_changes.is_empty() {
            self.at(PRESENCE_TURN, Event::PresenceTurn);
        }
        self.presence_changes.insert(node);
    }

    /// Reports changes of presence to all nodes; nodes that have come get the full list.
    pub(crate) fn tell_presence(&mut self) {
        let changes = std::mem::take(&mut self.presence_changes);
        let population = self.population.clone();
        for node in self.all() {
            let all = self.all();
            let online = &self.online;
            let subjects: Vec<(u32, bool)> = if changes.contains(&node) && online[node as usize] {
                all.filter(|o| online[*o as usize] || changes.contains(o))
                    .map(|o| (o, online[o as usize]))
                    .collect()
            } else {
                changes.iter().map(|o| (*o, online[*o as usize])).collect()
            };
            let subjects = subjects.into_iter().filter(|(o, _)| *o != node);
            self.input(node, |router, now| {
                for (other, online) in subjects {
                    router.presence(population.get(other), online, now);
                }
            });
        }
        for node in changes {
            if self.online[node as usize] {
                self.attempt_with(node);
            }
        }
    }

    /// Starts attempts at links that a node or its peers want.
    fn attempt_with(&mut self, node: u32) {
        for other in self.all() {
            let wants = |n: u32, o: u32| self.node(n).wanted.contains(&o);
            let both = wants(other, node) || wants(node, other);
            if both && self.online[other as usize] {
                self.attempt(other, node);
            }
        }
    }
}
