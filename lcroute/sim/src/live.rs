//! An interactive network: actions happen at once, and their effects are observable.
//!
//! Its script grows as it runs, so that it can be written down and replayed.

use std::net::Ipv6Addr;
use std::sync::Arc;

use crate::action::Action;
use crate::model::Violation;
use crate::population::Population;
use crate::scenario::Scenario;
use crate::sight::Sight;
use crate::simulation::Simulation;
use crate::time::Nanos;
use crate::trace::Trace;

/// A network without a prepared script.
#[derive(Debug)]
pub struct Live(Simulation);

/// A link between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkView {
    /// The nodes, the lower number first.
    pub ends: [u32; 2],
    /// Whether each has a link to the other.
    pub up: [bool; 2],
    /// Whether messages arrive.
    pub alive: bool,
    /// One-way latency, in nanoseconds.
    pub latency: Nanos,
}

/// A group in the view of a node's router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// The root of its tree.
    pub root: u32,
    /// Neighbours that have joined it at this node.
    pub joined_by: Vec<u32>,
}

impl Live {
    /// Makes a network of stopped nodes. Workloads and events of the scenario do not run. The
    /// calling thread does all work.
    #[must_use]
    pub fn new(scenario: Scenario) -> Self {
        let population = Arc::new(Population::of(&scenario));
        let mut simulation = Simulation::new(Arc::new(scenario), population, Vec::new(), 1);
        simulation.open_sights();
        Self(simulation)
    }

    /// Performs an action at a time, or as soon as possible after earlier actions and events. Fails
    /// if a node does not exist.
    pub fn act(&mut self, at: Nanos, action: Action) -> Result<(), String> {
        let nodes = self.0.scenario.nodes;
        if let Some(node) = action.nodes().find(|node| *node >= nodes) {
            return Err(format!("{action}: there is no node {node}"));
        }
        self.0.append(at, action);
        Ok(())
    }

    /// Runs until `end`, or until a rule is broken.
    pub fn run_until(&mut self, end: Nanos) {
        self.0.run_until(end);
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Nanos {
        self.0.now()
    }

    /// Returns the sights since the last call, in order of time.
    pub fn take_sights(&mut self) -> Vec<Sight> {
        self.0.take_sights()
    }

    /// Returns the broken rule, if any.
    pub fn violation(&self) -> Option<&Violation> {
        self.0.violation.as_ref()
    }

    /// Returns a hash of all events so far, with their content.
    pub fn log(&self) -> u64 {
        self.0.log()
    }

    /// Returns the actions so far, for a replay.
    #[must_use]
    pub fn trace(&self) -> Trace {
        Trace::of(&self.0.scenario, self.0.script(), self.0.now())
    }

    /// Whether the daemon of a node runs.
    pub fn runs(&self, node: u32) -> bool {
        self.0.runs(node)
    }

    /// Whether a program on a node has joined a group.
    pub fn has_joined(&self, node: u32, group: Ipv6Addr) -> bool {
        self.0.node(node).kernel.membership(group).is_some()
    }

    /// Returns the links that an end has, each once.
    pub fn links(&self) -> Vec<LinkView> {
        let there = self.0.links.iter().filter(|link| link.up != [false; 2]);
        let view = |link: &crate::link::Link| LinkView {
            ends: link.ends,
            up: link.up,
            alive: link.alive,
            latency: link.latency,
        };
        there.map(view).collect()
    }

    /// Returns the pairs of nodes that are cut.
    pub fn cuts(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.cuts.iter().copied()
    }

    /// Returns a group in the view of a node's router, if that runs.
    pub fn group(&self, node: u32, group: Ipv6Addr) -> Option<GroupView> {
        let n = self.0.node(node);
        let router = n.router.as_ref()?;
        let links = router.joined_over(group).into_iter();
        let peer = |link: librecast::id::LinkId| Some(n.links.get(&link.0)?.peer);
        Some(GroupView {
            root: self.0.population.node(router.root(group))?,
            joined_by: links.filter_map(peer).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::run_script;
    use crate::scenario::{Latency, LimitsTable, Links, Policy, Span, Topology};
    use crate::sight::What;
    use crate::time::{MILLISECOND, SECOND};

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);

    /// Starts 16 routers in four rows.
    fn running() -> Live {
        let place = |n: u32| (f64::from(n % 4) / 4.0, f64::from(n / 4) / 4.0);
        let mut live = Live::new(Scenario {
            nodes: 16,
            topology: Topology {
                policy: Policy::Regular,
                degree: 4,
                ..Topology::default()
            },
            links: Links {
                latency: Latency::Places {
                    side: Span::ms(40),
                    floor: Span::ms(1),
                    places: (0..16).map(place).collect(),
                },
                ..Links::default()
            },
            limits: LimitsTable {
                small_network: Some(0),
                source_trees: Some(0),
                ..LimitsTable::default()
            },
            ..Scenario::default()
        });
        for node in 0..16 {
            live.act(0, Action::Start(node)).unwrap();
        }
        live.run_until(20 * SECOND);
        assert_eq!(live.violation(), None);
        live.take_sights();
        live
    }

    fn act(live: &mut Live, line: &str) -> Vec<Sight> {
        live.act(live.now(), line.parse().unwrap()).unwrap();
        live.run_until(live.now() + SECOND);
        live.take_sights()
    }

    #[test]
    fn a_join_goes_to_the_root_and_packets_come_back_the_same_way() {
        let mut live = running();
        let root = live.group(0, GROUP).unwrap().root;
        let [listener, sender] = [1, 2].map(|n| (root + n) % 16);
        let silent = act(&mut live, &format!("send {sender} {GROUP} 100"));
        let left = |s: &Sight| matches!(s.what, What::Forward { .. });
        assert!(!silent.iter().any(left), "{silent:?}");

        let seen = act(&mut live, &format!("join {listener} {GROUP} all"));
        let mut at = listener;
        for sight in &seen {
            if let (true, What::JoinState { to, join: true, .. }) = (sight.node == at, sight.what) {
                assert!(live.group(to, GROUP).unwrap().joined_by.contains(&at));
                at = to;
            }
            if at == root {
                break;
            }
        }
        assert_eq!(at, root, "{seen:?}");
        assert!(live.has_joined(listener, GROUP) && !live.has_joined(sender, GROUP));

        let seen = act(&mut live, &format!("send {sender} {GROUP} 100"));
        let delivered = |s: &&Sight| matches!(s.what, What::Deliver { .. });
        let delivered: Vec<u32> = seen.iter().filter(delivered).map(|s| s.node).collect();
        assert_eq!(delivered, [listener]);
    }

    #[test]
    fn a_cut_link_stays_away_until_it_is_mended() {
        let mut live = running();
        let [a, b] = live.links()[0].ends;
        let between = |live: &Live| live.links().iter().any(|link| link.ends == [a, b]);
        let seen = act(&mut live, &format!("cut {a} {b}"));
        for (node, other) in [(a, b), (b, a)] {
            let noticed = |s: &Sight| s.node == node && s.what == What::LinkDown(other);
            assert!(seen.iter().any(noticed), "{seen:?}");
        }
        live.run_until(live.now() + 100 * SECOND);
        assert!(!between(&live) && live.cuts().eq([(a, b)]));
        act(&mut live, &format!("mend {b} {a}"));
        live.run_until(live.now() + 10 * SECOND);
        assert!(between(&live) && live.cuts().count() == 0);
        assert_eq!(live.violation(), None);
    }

    #[test]
    fn what_was_played_replays() {
        let mut live = running();
        for line in [
            "join 3 ff1e::1 all",
            "send 9 ff1e::1 100",
            "crash 5",
            "cut 0 3",
            "send 9 ff1e::1 100",
            "start 5",
            "mend 0 3",
            "leave 3 ff1e::1",
        ] {
            act(&mut live, line);
            // not a whole second
            live.run_until(live.now() + 17 * MILLISECOND + 3);
        }
        let text = live.trace().to_toml();
        let trace = Trace::parse("trace", &text).unwrap();
        let (scenario, until) = (Arc::new(trace.scenario.clone()), trace.until().unwrap());
        let population = Arc::new(Population::of(&scenario));
        let script = trace.script().unwrap();
        let again = run_script(
            &scenario,
            &population,
            script,
            Some(until),
            2,
            &mut |_, _| (),
        );
        assert_eq!(again.log, live.log());
        assert!(again.statistics.delivered > 0, "{again:?}");
    }

    #[test]
    fn nobody_acts_who_does_not_exist() {
        let mut live = running();
        assert!(
            live.act(0, "join 1 ff1e::1 only 16".parse().unwrap())
                .is_err()
        );
    }
}
