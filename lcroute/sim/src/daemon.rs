//! A host's daemon, whichever it is: what it is started with, what it keeps, and what it has its host do.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use lcroute_engine::header::HEADER_LEN;
use lcroute_engine::topology::{PolicyKind, TopologyConfig};
use lcroute_engine::{Limits, Links};
use lcroute_node::{EpochsText, Keep, Revocations};
use librecast::cert::{Chain, GroupPrefix};

use crate::population::Population;
use crate::scenario::{Policy, Scenario};
use crate::services::Watch;
use crate::time::Clock;

/// What a host keeps on disk for its daemon.
#[derive(Debug, Default)]
pub struct Disk {
    pub chain: Option<Chain>,
    pub revocations: Revocations,
    pub epochs: Option<EpochsText>,
    pub members: String,
    pub uses: String,
    /// The highest incarnation that was seen.
    pub incarnation: u32,
}

impl Disk {
    /// Keeps something at this Unix time.
    pub fn keep(&mut self, what: Keep, unix: u64) {
        match what {
            Keep::Chain(chain) => self.chain = Some(chain),
            Keep::Incarnation(incarnation) => {
                self.incarnation = self.incarnation.max(incarnation);
            }
            Keep::Revocation(revocation) => {
                self.revocations.add(*revocation, unix);
            }
            Keep::Epochs(text) => self.epochs = Some(text),
            Keep::Members(text) => self.members = text,
            Keep::Uses(text) => self.uses = text,
            // hosts of the simulator have no IPv4
            Keep::Ipv4Address(_) => {}
        }
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
    /// A datagram of the one UDP socket.
    Datagram { to: SocketAddr, contents: Bytes },
    /// A sealed message for another node, over the signalling server.
    Signal { to: u32, bytes: Bytes },
    /// To be kept on disk.
    Keep(Keep),
    /// Links have come or gone: to these nodes there are some now.
    Linked(BTreeSet<u32>),
}

/// How a daemon starts.
#[derive(Debug)]
pub struct Start<'a> {
    pub scenario: &'a Scenario,
    pub population: &'a Arc<Population>,
    pub node: u32,
    pub watch: &'a Arc<Watch>,
    pub clock: Clock,
    pub incarnation: u32,
    pub seed: u64,
    pub announced: &'a [GroupPrefix],
    pub disk: &'a Disk,
}

/// Bounds of the router.
pub fn limits(scenario: &Scenario) -> Limits {
    let mut limits = Limits::default();
    if let Some(states) = scenario.limits.join_states_per_neighbor {
        limits.join_states_per_neighbor = states;
    }
    if let Some(routers) = scenario.limits.small_network {
        limits.small_network = routers;
    }
    if let Some(routers) = scenario.limits.source_trees {
        limits.source_trees = routers;
    }
    limits
}

/// Which links the router wants.
pub fn topology(scenario: &Scenario) -> TopologyConfig {
    TopologyConfig {
        policy: match scenario.topology.policy {
            Policy::Auto => PolicyKind::Auto,
            Policy::Mesh => PolicyKind::Mesh,
            Policy::Regular => PolicyKind::Regular,
            Policy::Tree => PolicyKind::Tree,
            Policy::Fractal => PolicyKind::Fractal,
        },
        degree: scenario.topology.degree,
    }
}
