//! A simulated node: a host with its programs, and its daemon while that runs.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use lcroute_engine::small_map::SmallMap;
use lcroute_engine::{Engine, Tables};
use librecast::cert::GroupPrefix;
use librecast::id::{LinkId, OriginId};
use librecast::simulated::Kernel;

use crate::daemon::{Disk, Effect, Start, limits};
use crate::link::Port;
use crate::population::Identity;
use crate::router::RouterAlone;
use crate::scenario::Scenario;
use crate::services::NodeServices;
use crate::terrain::Socket;
use crate::time::Nanos;
use crate::whole::WholeNode;

#[derive(Debug, Default)]
pub struct Node {
    pub kernel: Kernel<Nanos>,
    pub router: Option<Router>,
    /// Raised at each start.
    pub incarnation: u32,
    /// Time of the daemon's last start.
    pub started: Nanos,
    /// Wanted neighbours.
    pub wanted: BTreeSet<u32>,
    /// Its links that are up, if the simulator makes them.
    pub links: SmallMap<u32, Port>,
    /// Nodes that it has links to, if it makes them itself.
    pub linked: BTreeSet<u32>,
    /// The host's firewall and its paths to other hosts, for whole nodes that have sent.
    pub socket: Option<Box<Socket>>,
    /// State that outlives a run of the daemon.
    pub disk: Disk,
    /// Announced prefixes; the configuration outlives the daemon.
    pub announced: Vec<GroupPrefix>,
    /// Time of the daemon's next timer.
    pub wake: Nanos,
    /// Time of the next wake in the calendar.
    pub called: Nanos,
    /// Wakes at one moment, or within one second for a whole node.
    pub woken: (Nanos, u32),
    /// Time at which the daemon last used a new graph.
    pub changed: Nanos,
    /// Number of inputs from the node itself.
    pub inputs: u32,
    /// A hash of all its events, with their content.
    pub log: u64,
    /// Number of occasions for a defect.
    pub defects: u64,
}

impl Node {
    /// Makes a host without memberships and with a stopped daemon.
    pub fn new() -> Self {
        Self {
            wake: Nanos::MAX,
            called: Nanos::MAX,
            ..Self::default()
        }
    }

    /// Stops the daemon; returns its links.
    pub fn stop(&mut self) -> Option<Vec<u32>> {
        self.router.take()?;
        self.kernel.forget_reports();
        self.wanted.clear();
        self.linked.clear();
        self.wake = Nanos::MAX;
        Some(std::mem::take(&mut self.links).keys().to_vec())
    }
}

/// The daemon of a node: a router alone, or a whole node.
#[derive(Debug)]
pub struct Router {
    kind: Kind,
    /// Digest of its graph at the last query.
    graph: u64,
}

#[derive(Debug)]
enum Kind {
    Alone(Box<RouterAlone>),
    Whole(Box<WholeNode>),
}

impl Router {
    /// Starts a daemon. `None`: it refuses because its certificates have expired.
    pub fn start(start: &Start<'_>, now: Nanos) -> Option<Self> {
        let kind = if start.scenario.whole {
            Kind::Whole(Box::new(WholeNode::start(start, now)?))
        } else {
            let (population, watch) = (start.population.clone(), start.watch.clone());
            let services = NodeServices::new(population, start.node, watch);
            Kind::Alone(Box::new(RouterAlone::start(services, start, now)))
        };
        Some(Self { kind, graph: 0 })
    }

    fn engine(&self) -> &Engine {
        match &self.kind {
            Kind::Alone(router) => router.engine(),
            Kind::Whole(node) => node.engine(),
        }
    }

    /// Returns the router, if the simulator makes its links.
    pub fn alone(&mut self) -> Option<&mut RouterAlone> {
        match &mut self.kind {
            Kind::Alone(router) => Some(router),
            Kind::Whole(_) => None,
        }
    }

    /// Returns the whole node, if it makes its links itself.
    pub fn whole(&mut self) -> Option<&mut WholeNode> {
        match &mut self.kind {
            Kind::Alone(_) => None,
            Kind::Whole(node) => Some(node),
        }
    }

    /// Whether it has used a new graph since the last call.
    pub fn took_graph(&mut self) -> bool {
        let digest = self.engine().graph_digest();
        std::mem::replace(&mut self.graph, digest) != digest
    }

    /// Handles a report of presence from the signalling server.
    pub fn presence(&mut self, other: &Identity, online: bool, now: Nanos) {
        match &mut self.kind {
            Kind::Alone(router) => router.presence(other, online, now),
            Kind::Whole(node) => node.presence(other, online, now),
        }
    }

    /// Handles a packet that a program or the kernel wrote into `lc0`.
    pub fn local_packet(&mut self, packet: Vec<u8>, now: Nanos) {
        match &mut self.kind {
            Kind::Alone(router) => router.local_packet(packet, now),
            Kind::Whole(node) => node.local_packet(packet, now),
        }
    }

    pub fn timeout(&mut self, now: Nanos) {
        match &mut self.kind {
            Kind::Alone(router) => router.timeout(now),
            Kind::Whole(node) => node.timeout(now),
        }
    }

    /// Returns the time of the next timer, `now` at the earliest.
    pub fn next_timeout(&mut self, now: Nanos) -> Option<Nanos> {
        match &mut self.kind {
            Kind::Alone(router) => router.next_timeout().map(|at| at.max(now)),
            Kind::Whole(node) => node.next_timeout(now),
        }
    }

    pub fn announce(&mut self, prefixes: &[GroupPrefix], now: Nanos) {
        match &mut self.kind {
            Kind::Alone(router) => router.announce(prefixes, now),
            Kind::Whole(node) => node.announce(prefixes, now),
        }
    }

    /// Sends goodbyes to its neighbours, if it makes its links itself.
    pub fn goodbye(&mut self, now: Nanos) {
        if let Kind::Whole(node) = &mut self.kind {
            node.goodbye(now);
        }
    }

    pub fn poll(&mut self, now: Nanos) -> Option<Effect> {
        match &mut self.kind {
            Kind::Alone(router) => router.poll(),
            Kind::Whole(node) => node.poll(now),
        }
    }

    pub fn root(&self, group: Ipv6Addr) -> OriginId {
        self.engine().root(group)
    }

    pub fn joined_over(&self, group: Ipv6Addr) -> Vec<LinkId> {
        let groups = self.engine().snapshot().groups.into_iter();
        let mut group = groups.filter(|g| g.group == group);
        group.next().map(|g| g.links).unwrap_or_default()
    }

    /// Returns the number of (root, group) entries of neighbours.
    pub fn entries(&self) -> usize {
        self.engine().tables().join_states
    }

    /// Describes remaining join state and flows, if any.
    pub fn leftovers(&self) -> Option<String> {
        let tables = self.engine().tables();
        let left = Tables {
            // without state that lasts as long as the routers
            origins: 0,
            routers: 0,
            prefixes: 0,
            ..tables
        };
        (left != Tables::default()).then(|| format!("{left:?}"))
    }

    /// Describes a neighbour with more state than permitted.
    pub fn beyond_bounds(&self, scenario: &Scenario) -> Option<String> {
        let limits = limits(scenario);
        let neighbors = self.engine().snapshot().neighbors;
        let beyond = neighbors.iter().find(|n| {
            n.join_states > limits.join_states_per_neighbor
                || n.sending_prefixes > limits.prefixes_per_neighbor
        })?;
        Some(format!("{beyond:?}"))
    }
}
