//! Checks after the network has been quiet for a while.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use crate::model::Rule;
use crate::node::Router;
use crate::random::Random;
use crate::simulation::{Event, Simulation};
use crate::time::{MILLISECOND, Nanos, SECOND};

/// Interval of probes of whole nodes.
const PROBE_EVERY: Nanos = 20 * MILLISECOND;

/// Time after a revocation within which every member closes its links to the node.
const EXPULSION: Nanos = 20 * SECOND;
/// Seconds after a certificate's end within which links are closed: nodes check every 10 s.
const EXPIRY: u64 = 15;

impl Simulation {
    /// Sends probes that all listeners must receive, and checks other rules at once.
    pub(crate) fn check(&mut self) {
        self.check_bounds();
        self.check_whole();
        self.check_forgotten();
        // whole nodes try nearer links throughout
        if !self.scenario.whole && !self.model.is_stable(self.now) {
            let text = "links and trees still change".to_owned();
            return self.violate(Rule::Restless, 0, text);
        }
        let groups = self.groups();
        let running: Vec<u32> = self.all().filter(|n| self.runs(*n)).collect();
        if groups.is_empty() || running.is_empty() {
            return;
        }
        let mut random = Random::stream(self.scenario.seed, &[11]);
        let all = groups.len() * running.len();
        for number in 0..all.min(self.scenario.probes as usize) {
            // all pairs, or a random selection of them
            let place = if all <= self.scenario.probes as usize {
                number
            } else {
                random.index(all)
            };
            let group = groups[place % groups.len()];
            let node = running[place / groups.len()];
            if self.scenario.whole {
                // real lanes drop packets that wait: a burst would not test reachability
                self.at(number as u64 * PROBE_EVERY, Event::Probe { node, group });
            } else {
                self.send(node, group, 64, true);
            }
            self.check_watcher(node, group);
        }
    }

    fn groups(&self) -> Vec<Ipv6Addr> {
        let of = |node| self.node(node).kernel.groups();
        let groups: BTreeSet<Ipv6Addr> = self.all().flat_map(of).collect();
        groups.into_iter().collect()
    }

    /// Checks that a program that watches MLD at an announcing node sees listeners correctly.
    fn check_watcher(&mut self, node: u32, group: Ipv6Addr) {
        let n = self.node(node);
        if !n.announced.iter().any(|p| p.contains(group)) {
            return;
        }
        let source = self.population.address(node);
        let wants = |o: u32| {
            let other = self.node(o);
            o != node && other.router.is_some() && other.kernel.has_joined(group, source)
        };
        let wanted = self.model.listeners(group).any(wants);
        let seen = n.kernel.sees_listener(group, source);
        if seen != wanted {
            let text = format!("{group}: a listener is seen: {seen}, there is one: {wanted}");
            self.violate(Rule::Watcher, node, text);
        }
    }

    fn check_whole(&mut self) {
        // without some links, pieces may be unavoidable
        let links = &self.scenario.links;
        if links.no_direct > 0.0 || links.unidirectional > 0.0 || self.partition.is_some() {
            return;
        }
        let pieces = self.pieces().to_vec();
        let running: Vec<u32> = self.all().filter(|n| self.runs(*n)).collect();
        let members = running.into_iter().filter(|n| !self.is_expelled(*n));
        let members: Vec<u32> = members.collect();
        let mut running = members.into_iter();
        let first = running.next();
        let piece = |n: u32| pieces[n as usize];
        let other = first.and_then(|f| running.find(|n| piece(*n) != piece(f)));
        if let Some(node) = other {
            let text = "it has no path to the first node".to_owned();
            return self.violate(Rule::Divided, node, text);
        }
        self.check_epoch();
    }

    /// Checks that all members know the same epoch, and expelled nodes do not.
    fn check_epoch(&mut self) {
        // an expulsion beyond a token's bound makes no epoch
        if self.scenario.certificates.token.is_some() {
            return;
        }
        let mut known = None;
        let running: Vec<u32> = self.all().filter(|n| self.runs(*n)).collect();
        for node in running.iter().copied() {
            if self.is_expelled(node) {
                continue;
            }
            if let Some(epoch) = self.epoch(node)
                && *known.get_or_insert(epoch) != epoch
            {
                let text = "it does not know the newest one".to_owned();
                return self.violate(Rule::Epoch, node, text);
            }
        }
        for node in running {
            let own = self.revoked.contains_key(&node);
            if own && known.is_some() && self.epoch(node) == known {
                let text = "it was expelled, and knows the newest one".to_owned();
                return self.violate(Rule::Epoch, node, text);
            }
        }
    }

    fn epoch(&mut self, node: u32) -> Option<[u8; 32]> {
        let router = self.node_mut(node).router.as_mut();
        Some(router.and_then(Router::whole)?.epoch())
    }

    /// Checks that no node keeps a link with an expelled or expired one.
    pub(crate) fn check_expelled(&mut self) {
        if !self.scenario.whole {
            return;
        }
        self.note_expelled();
        let (now, time) = (self.now, self.watch.unix());
        let noticed = now >= self.clocks_put + EXPIRY * SECOND;
        let gone = |at: &Nanos| at + EXPULSION <= now;
        for node in self.all() {
            let own = self.revoked.contains_key(&node);
            let linked = self.node(node).linked.iter();
            let expelled = linked
                .copied()
                .find(|peer| self.revoked.get(peer).is_some_and(gone));
            if let (false, Some(peer)) = (own, expelled) {
                let text = format!("node {peer}, which was expelled");
                return self.violate(Rule::Expelled, node, text);
            }
            let router = self.node_mut(node).router.as_mut();
            let whole = router.and_then(Router::whole);
            let name = whole.and_then(|whole| whole.expired_neighbor(time, EXPIRY));
            if let Some(name) = name.filter(|_| noticed).map(str::to_owned) {
                let text = format!("{name}, whose certificate is over");
                return self.violate(Rule::Expelled, node, text);
            }
        }
    }

    /// Notes the nodes that node 0 expels beyond a token's bound.
    fn note_expelled(&mut self) {
        let population = self.population.clone();
        let revocations = self.node(0).disk.revocations.iter();
        let keys = revocations.filter_map(|r| population.by_key(&r.key()));
        for node in keys.collect::<Vec<_>>() {
            if !self.revoked.contains_key(&node) {
                self.revoked.insert(node, self.now);
                self.changed();
            }
        }
    }

    /// Whether a node's membership has ended.
    fn is_expelled(&mut self, node: u32) -> bool {
        let time = self.watch.unix();
        let router = self.node_mut(node).router.as_mut();
        let over = router
            .and_then(Router::whole)
            .is_some_and(|whole| whole.is_expired(time));
        over || self.revoked.contains_key(&node)
    }

    /// Checks that no node knows ephemeral members that have gone.
    fn check_forgotten(&mut self) {
        if !self.scenario.certificates.ephemeral {
            return;
        }
        for node in self.all() {
            let router = self.node_mut(node).router.as_mut();
            let Some(whole) = router.and_then(Router::whole) else {
                continue;
            };
            let known: Vec<u32> = whole.members().collect();
            if let Some(gone) = known.into_iter().find(|other| !self.runs(*other)) {
                let text = format!("node {gone}, an ephemeral member, is known still");
                return self.violate(Rule::Leftover, node, text);
            }
        }
    }

    fn check_bounds(&mut self) {
        for node in self.all() {
            let Some(router) = &self.node(node).router else {
                continue;
            };
            if let Some(text) = router.beyond_bounds(&self.scenario) {
                return self.violate(Rule::Bound, node, text);
            }
        }
    }

    /// Checks that no state remains after all have left.
    pub(crate) fn check_empty(&mut self) {
        for node in self.all() {
            let n = self.node(node);
            if let Some(text) = n.router.as_ref().and_then(|r| r.leftovers()) {
                return self.violate(Rule::Leftover, node, text);
            }
            let watched = n.kernel.watched().next();
            if let Some(group) = watched {
                let text = format!("{group} is still reported into lc0");
                return self.violate(Rule::Leftover, node, text);
            }
        }
    }
}
