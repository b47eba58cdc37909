//! One simulated node: a host with its programs, and what runs on it while its daemon does.

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

/// A node: the host with its programs, and the daemon while it runs.
#[derive(Debug, Default)]
pub struct Node {
    pub kernel: Kernel<Nanos>,
    pub router: Option<Router>,
    /// Raised at every start.
    pub incarnation: u32,
    /// When the daemon started last.
    pub started: Nanos,
    /// Neighbours that it wants.
    pub wanted: BTreeSet<u32>,
    /// Its links that are up, where the simulator makes them.
    pub links: SmallMap<u32, Port>,
    /// The nodes to which it has links, where it makes them itself.
    pub linked: BTreeSet<u32>,
    /// The firewall of the host, and the paths to other hosts: of whole nodes that have sent something.
    pub socket: Option<Box<Socket>>,
    /// What outlives a run of the daemon.
    pub disk: Disk,
    /// What it announces; the configuration outlives the daemon.
    pub announced: Vec<GroupPrefix>,
    /// When the daemon wants to be woken.
    pub wake: Nanos,
    /// When the calendar will look after that next.
    pub called: Nanos,
    /// How often it was woken at one moment, or within one second if it is whole.
    pub woken: (Nanos, u32),
    /// When the daemon last took another graph.
    pub changed: Nanos,
    /// Inputs that it gave itself.
    pub inputs: u32,
    /// A hash of all that happened to it, with its content.
    pub log: u64,
    /// What a defect might have struck.
    pub defects: u64,
}

impl Node {
    /// A host that has joined nothing and whose daemon does not run.
    pub fn new() -> Self {
        Self {
            wake: Nanos::MAX,
            called: Nanos::MAX,
            ..Self::default()
        }
    }

    /// The daemon ends, whatever that means for others; the links that it had.
    pub fn stop(&mut self) -> Option<Vec<u32>> {
        self.router.take()?;
        self.kernel.forget_reports();
        self.wanted.clear();
        self.linked.clear();
        self.wake = Nanos::MAX;
        Some(std::mem::take(&mut self.links).keys().to_vec())
    }
}

/// The daemon of a node: its router, or all of it.
#[derive(Debug)]
pub struct Router {
    kind: Kind,
    /// Names the graph that it had when it was asked last.
    graph: u64,
}

#[derive(Debug)]
enum Kind {
    Alone(Box<RouterAlone>),
    Whole(Box<WholeNode>),
}

impl Router {
    /// A daemon that has just started. None: it refuses to, as its certificates have expired.
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

    /// The router, if the simulator makes its links.
    pub fn alone(&mut self) -> Option<&mut RouterAlone> {
        match &mut self.kind {
            Kind::Alone(router) => Some(router),
            Kind::Whole(_) => None,
        }
    }

    /// The whole node, if it makes its links itself.
    pub fn whole(&mut self) -> Option<&mut WholeNode> {
        match &mut self.kind {
            Kind::Alone(_) => None,
            Kind::Whole(node) => Some(node),
        }
    }

    /// Whether it took another graph since it was asked last.
    pub fn took_graph(&mut self) -> bool {
        let digest = self.engine().graph_digest();
        std::mem::replace(&mut self.graph, digest) != digest
    }

    /// The signalling server says that a node is there, or that it has gone.
    pub fn presence(&mut self, other: &Identity, online: bool, now: Nanos) {
        match &mut self.kind {
            Kind::Alone(router) => router.presence(other, online, now),
            Kind::Whole(node) => node.presence(other, online, now),
        }
    }

    /// A packet that a local program or the kernel wrote into `lc0`.
    pub fn local_packet(&mut self, packet: Vec<u8>, now: Nanos) {
        match &mut self.kind {
            Kind::Alone(router) => router.local_packet(packet, now),
            Kind::Whole(node) => node.local_packet(packet, now),
        }
    }

    /// Time has come.
    pub fn timeout(&mut self, now: Nanos) {
        match &mut self.kind {
            Kind::Alone(router) => router.timeout(now),
            Kind::Whole(node) => node.timeout(now),
        }
    }

    /// When time comes next, `now` at the earliest.
    pub fn next_timeout(&mut self, now: Nanos) -> Option<Nanos> {
        match &mut self.kind {
            Kind::Alone(router) => router.next_timeout().map(|at| at.max(now)),
            Kind::Whole(node) => node.next_timeout(now),
        }
    }

    /// What it announces from now on.
    pub fn announce(&mut self, prefixes: &[GroupPrefix], now: Nanos) {
        match &mut self.kind {
            Kind::Alone(router) => router.announce(prefixes, now),
            Kind::Whole(node) => node.announce(prefixes, now),
        }
    }

    /// It says goodbye to its neighbours, if that is its own affair.
    pub fn goodbye(&mut self, now: Nanos) {
        if let Kind::Whole(node) = &mut self.kind {
            node.goodbye(now);
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self, now: Nanos) -> Option<Effect> {
        match &mut self.kind {
            Kind::Alone(router) => router.poll(),
            Kind::Whole(node) => node.poll(now),
        }
    }

    /// The root of a group's tree, as it sees it.
    pub fn root(&self, group: Ipv6Addr) -> OriginId {
        self.engine().root(group)
    }

    /// The links over which a group is joined from here.
    pub fn joined_over(&self, group: Ipv6Addr) -> Vec<LinkId> {
        let groups = self.engine().snapshot().groups.into_iter();
        let mut group = groups.filter(|g| g.group == group);
        group.next().map(|g| g.links).unwrap_or_default()
    }

    /// (root, group) entries that neighbours keep here.
    pub fn entries(&self) -> usize {
        self.engine().tables().join_states
    }

    /// What is left of join state and flows when there should be none.
    pub fn leftovers(&self) -> Option<String> {
        let tables = self.engine().tables();
        let left = Tables {
            // as long as the routers are there
            origins: 0,
            routers: 0,
            prefixes: 0,
            ..tables
        };
        (left != Tables::default()).then(|| format!("{left:?}"))
    }

    /// The neighbour that keeps more here than it may.
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
