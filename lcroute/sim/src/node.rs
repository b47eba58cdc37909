//! One simulated node. All that knows the engine's interface is in this file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lcroute_engine::header::HEADER_LEN;
use lcroute_engine::small_map::SmallMap;
use lcroute_engine::topology::{PolicyKind, TopologyConfig};
use lcroute_engine::{Config, Engine, Limits, Links, Neighbor, Output, Tables};
use librecast::cert::GroupPrefix;
use librecast::id::LinkId;

use crate::kernel::Kernel;
use crate::link::Port;
use crate::population::Identity;
use crate::scenario::{Policy, Scenario};
use crate::services::NodeServices;
use crate::time::{Clock, Nanos};

/// A node: the host with its programs, and the daemon while it runs.
#[derive(Debug, Default)]
pub struct Node {
    pub kernel: Kernel,
    pub router: Option<Router>,
    /// Raised at every start.
    pub incarnation: u32,
    /// When the daemon started last.
    pub started: Nanos,
    /// Neighbours that it wants.
    pub wanted: BTreeSet<u32>,
    /// Its links that are up.
    pub links: SmallMap<u32, Port>,
    /// What it announces; the configuration outlives the daemon.
    pub announced: Vec<GroupPrefix>,
    /// When the daemon wants to be woken.
    pub wake: Nanos,
    /// When the calendar will look after that next.
    pub called: Nanos,
    /// How often it was woken at one moment.
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
        self.wake = Nanos::MAX;
        Some(std::mem::take(&mut self.links).keys().to_vec())
    }
}

/// Something that a router wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send header and packet on the data channel of each link.
    Data {
        links: Links,
        header: [u8; HEADER_LEN],
        packet: Bytes,
    },
    /// Send on the control channel of a link.
    Control { link: u32, message: Bytes },
    /// A packet for local programs.
    Local { packet: Bytes },
    /// MLD into `lc0`.
    Mld { packet: Bytes },
    /// Links to these nodes are wanted from now on.
    Wanted { nodes: BTreeSet<u32> },
    /// Nobody needs this link any more.
    Retire { link: u32 },
    /// The neighbour broke the protocol.
    Fault { link: u32, reason: &'static str },
}

/// How a daemon starts.
#[derive(Debug)]
pub struct Start<'a> {
    pub scenario: &'a Scenario,
    pub incarnation: u32,
    pub seed: u64,
    pub announced: &'a [GroupPrefix],
}

/// The daemon of a node.
#[derive(Debug)]
pub struct Router {
    engine: Engine,
    services: Arc<NodeServices>,
    clock: Clock,
    /// Names the graph that it had when it was asked last.
    graph: u64,
}

fn link_id(link: u32) -> LinkId {
    LinkId(link)
}

impl Router {
    /// A daemon that has just started.
    pub fn start(services: NodeServices, start: &Start<'_>, clock: Clock, now: Nanos) -> Self {
        let identity = services.identity();
        let mut limits = Limits::default();
        if let Some(states) = start.scenario.limits.join_states_per_neighbor {
            limits.join_states_per_neighbor = states;
        }
        let config = Config {
            member: identity.member.clone(),
            incarnation: start.incarnation,
            mtu: 1280,
            link_scope_groups: Vec::new(),
            chain: identity.chain.clone(),
            can_issue: false,
            announce: start.announced.to_vec(),
            watch: Vec::new(),
            unicast: false,
            topology: TopologyConfig {
                policy: match start.scenario.topology.policy {
                    Policy::Auto => PolicyKind::Auto,
                    Policy::Mesh => PolicyKind::Mesh,
                    Policy::Regular => PolicyKind::Regular,
                },
                degree: start.scenario.topology.degree,
            },
            seed: start.seed,
            limits,
        };
        let now = clock.instant(now);
        let services = Arc::new(services);
        let mut engine = Engine::new(config, services.clone(), now);
        engine.handle_start(now);
        Self {
            engine,
            services,
            clock,
            graph: 0,
        }
    }

    /// Whether it took another graph since it was asked last.
    pub fn took_graph(&mut self) -> bool {
        let digest = self.engine.graph_digest();
        std::mem::replace(&mut self.graph, digest) != digest
    }

    /// A link is up.
    pub fn link_up(&mut self, link: u32, other: &Identity, now: Nanos) {
        let neighbor = Neighbor {
            member: other.member.clone(),
        };
        let now = self.clock.instant(now);
        self.engine.handle_link_up(link_id(link), neighbor, now);
    }

    /// A link is gone.
    pub fn link_down(&mut self, link: u32, now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_link_down(link_id(link), now);
    }

    /// A round trip was measured.
    pub fn round_trip(&mut self, link: u32, round_trip: Nanos, now: Nanos) {
        let (rtt, now) = (Duration::from_nanos(round_trip), self.clock.instant(now));
        self.engine.handle_link_rtt(link_id(link), rtt, now);
    }

    /// The signalling server says that a node is there, or that it has gone.
    pub fn presence(&mut self, other: &Identity, online: bool, now: Nanos) {
        let (origin, now) = (other.member.addresses.origin, self.clock.instant(now));
        self.engine.handle_presence(origin, online, now);
    }

    /// A direct link to a node cannot be made, or can again.
    pub fn direct_failure(&mut self, other: &Identity, failing: bool, now: Nanos) {
        let (origin, now) = (other.member.addresses.origin, self.clock.instant(now));
        self.engine.handle_direct_failure(origin, failing, now);
    }

    /// A packet that a local program or the kernel wrote into `lc0`.
    pub fn local_packet(&mut self, packet: Vec<u8>, now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_local_packet(packet.into(), now);
    }

    /// A message of a data channel.
    pub fn data(&mut self, link: u32, header: &[u8; HEADER_LEN], packet: Bytes, now: Nanos) {
        let now = self.clock.instant(now);
        let link = link_id(link);
        self.engine.handle_packet(link, header, packet, now);
    }

    /// A message of a control channel.
    pub fn control(&mut self, link: u32, message: &[u8], now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_control(link_id(link), message, now);
    }

    /// Time has come.
    pub fn timeout(&mut self, now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_timeout(now);
    }

    /// When time comes next.
    pub fn next_timeout(&self) -> Option<Nanos> {
        let (at, _) = self.engine.poll_timeout()?;
        Some(self.clock.nanos(at))
    }

    /// What it announces from now on.
    pub fn announce(&mut self, prefixes: &[GroupPrefix], now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.set_announced(prefixes.to_vec(), now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        loop {
            let output = self.engine.poll_output()?;
            if let Some(effect) = self.effect(output) {
                return Some(effect);
            }
        }
    }

    fn effect(&self, output: Output) -> Option<Effect> {
        Some(match output {
            Output::Data {
                links,
                header,
                packet,
            } => Effect::Data {
                links,
                header,
                packet,
            },
            Output::Control { link, message } | Output::RoutedControl { link, message } => {
                Effect::Control {
                    link: link.0,
                    message,
                }
            }
            Output::Local { packet } => Effect::Local { packet },
            Output::LocalMld { packet } => Effect::Mld { packet },
            Output::Wanted(origins) => Effect::Wanted {
                nodes: origins
                    .into_iter()
                    .filter_map(|origin| self.services.population().node(origin))
                    .collect(),
            },
            Output::Retire { link } => Effect::Retire { link: link.0 },
            // the link state tells its own story; identities and routed messages are for the shell
            Output::Routed { .. }
            | Output::Reachable { .. }
            | Output::Incarnation(_)
            | Output::Revoked { .. }
            | Output::Renewed { .. } => return None,
            Output::LinkFault { link, reason } => Effect::Fault {
                link: link.0,
                reason: reason.as_str(),
            },
        })
    }

    /// (root, group) entries that neighbours keep here.
    pub fn entries(&self) -> usize {
        self.engine.tables().join_states
    }

    /// What is left of interest and flows when there should be none.
    pub fn leftovers(&self) -> Option<String> {
        let tables = self.engine.tables();
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
        let limits = Limits::default();
        let limit = scenario.limits.join_states_per_neighbor;
        let limit = limit.unwrap_or(limits.join_states_per_neighbor);
        let neighbors = self.engine.snapshot().neighbors;
        let beyond = neighbors
            .iter()
            .find(|n| n.join_states > limit || n.sending_prefixes > limits.prefixes_per_neighbor)?;
        Some(format!("{beyond:?}"))
    }
}
