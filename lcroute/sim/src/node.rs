//! One simulated node. All that knows the engine's interface is in this file.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use lcroute_engine::{Config, Engine, Limits, LinkId, Neighbor, Output, Tables};
use librecast::cert::GroupPrefix;

use crate::kernel::Kernel;
use crate::population::{Identity, Population};
use crate::scenario::Scenario;
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
    /// When the daemon wants to be woken, as far as it is in the queue.
    pub wake: Nanos,
    /// Neighbours that it wants.
    pub wanted: BTreeSet<u32>,
    /// Its links that are up.
    pub links: BTreeSet<u32>,
    /// What it announces; the configuration outlives the daemon.
    pub announced: Vec<GroupPrefix>,
}

/// Something that a router wants done.
#[derive(Debug)]
pub enum Effect {
    /// Send a message on the data channel of each link.
    Data { links: Vec<u32>, message: Bytes },
    /// Send on the control channel of a link.
    Control { link: u32, message: Bytes },
    /// A packet for local programs.
    Local { packet: Bytes },
    /// MLD into `lc0`.
    Mld { packet: Bytes },
    /// The neighbour broke the protocol.
    Fault { link: u32, reason: &'static str },
}

/// The daemon of a node.
#[derive(Debug)]
pub struct Router {
    engine: Engine,
    clock: Clock,
}

fn link_id(link: u32) -> LinkId {
    LinkId(link)
}

impl Router {
    /// A daemon that has just started.
    pub fn start(
        identity: &Identity,
        incarnation: u32,
        seed: u64,
        scenario: &Scenario,
        clock: Clock,
        now: Nanos,
    ) -> Self {
        let mut limits = Limits::default();
        if let Some(interests) = scenario.limits.interests_per_neighbor {
            limits.interests_per_neighbor = interests;
        }
        let config = Config {
            own: identity.addresses,
            incarnation,
            mtu: 1280,
            link_scope_groups: Vec::new(),
            may_send: vec![GroupPrefix::ALL],
            seed,
            limits,
        };
        let now = clock.instant(now);
        let mut engine = Engine::new(config, now);
        engine.handle_start(now);
        Self { engine, clock }
    }

    /// A link is up.
    pub fn link_up(&mut self, link: u32, other: &Identity, now: Nanos) {
        let neighbor = Neighbor {
            origin: other.addresses.origin,
            address: other.addresses.address,
            link_local: other.addresses.link_local,
            may_send: vec![GroupPrefix::ALL],
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
    pub fn round_trip(&mut self, _link: u32, _round_trip: Nanos, _now: Nanos) {}

    /// The signalling server says that a node is there, or that it has gone.
    pub fn presence(&mut self, _other: &Identity, _online: bool, _now: Nanos) {}

    /// A direct link to a node cannot be made, or can again.
    pub fn direct_failure(&mut self, _other: &Identity, _failing: bool, _now: Nanos) {}

    /// A packet that a local program or the kernel wrote into `lc0`.
    pub fn local_packet(&mut self, packet: Vec<u8>, now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_local_packet(packet.into(), now);
    }

    /// A message of a data channel.
    pub fn data(&mut self, link: u32, message: Bytes, now: Nanos) {
        let now = self.clock.instant(now);
        self.engine.handle_data(link_id(link), message, now);
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
    pub fn announce(&mut self, _prefixes: &[GroupPrefix], _now: Nanos) {}

    /// The neighbours that it wants; changes come as effects.
    pub fn wanted_at_start(&self, own: u32, population: &Population) -> BTreeSet<u32> {
        (0..population.len()).filter(|n| *n != own).collect()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        Some(match self.engine.poll_output()? {
            Output::Data {
                links,
                header,
                packet,
            } => {
                let mut message = BytesMut::with_capacity(header.len() + packet.len());
                message.extend_from_slice(&header);
                message.extend_from_slice(&packet);
                Effect::Data {
                    links: links.iter().map(|l| l.0).collect(),
                    message: message.freeze(),
                }
            }
            Output::Control { link, message } => Effect::Control {
                link: link.0,
                message,
            },
            Output::Local { packet } => Effect::Local { packet },
            Output::LocalMld { packet } => Effect::Mld { packet },
            Output::LinkFault { link, reason } => Effect::Fault {
                link: link.0,
                reason,
            },
        })
    }

    /// (root, group) entries that neighbours keep here.
    pub fn entries(&self) -> usize {
        self.engine.tables().interests
    }

    /// What is left of interest and flows when there should be none.
    pub fn leftovers(&self) -> Option<String> {
        let tables = self.engine.tables();
        let left = Tables {
            origins: 0,
            ..tables
        };
        (left != Tables::default()).then(|| format!("{left:?}"))
    }

    /// The neighbour that keeps more here than it may.
    pub fn beyond_bounds(&self, scenario: &Scenario) -> Option<String> {
        let limits = Limits::default();
        let limit = scenario.limits.interests_per_neighbor;
        let limit = limit.unwrap_or(limits.interests_per_neighbor);
        let neighbors = self.engine.snapshot().neighbors;
        let beyond = neighbors
            .iter()
            .find(|n| n.interests > limit || n.sending_prefixes > limits.prefixes_per_neighbor)?;
        Some(format!("{beyond:?}"))
    }
}
