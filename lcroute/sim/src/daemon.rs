//! Common parts of both kinds of daemons: start parameters, state on disk, effects.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use lcroute_engine::header::HEADER_LEN;
use lcroute_engine::topology::{PolicyKind, TopologyConfig};
use lcroute_engine::{Limits, Links};
use lcroute_node::{EpochsText, Keep, Revocations};
use librecast::cert::{Chain, GroupPrefix};
use librecast::time::UnixTime;

use crate::population::Population;
use crate::scenario::{Policy, Scenario};
use crate::services::Watch;
use crate::time::Clock;

#[derive(Debug, Default)]
pub struct Disk {
    pub chain: Option<Chain>,
    pub revocations: Revocations,
    pub epochs: Option<EpochsText>,
    pub members: String,
    pub uses: String,
    /// The highest incarnation seen.
    pub incarnation: u32,
}

impl Disk {
    /// Stores a change at this Unix time.
    pub fn keep(&mut self, what: Keep, time: UnixTime) {
        match what {
            Keep::Chain(chain) => self.chain = Some(chain),
            Keep::Incarnation(incarnation) => {
                self.incarnation = self.incarnation.max(incarnation);
            }
            Keep::Revocation(revocation) => {
                self.revocations.add(*revocation, time);
            }
            Keep::Epochs(text) => self.epochs = Some(text),
            Keep::Members(text) => self.members = text,
            Keep::Uses(text) => self.uses = text,
            // hosts of the simulator have no IPv4
            Keep::Ipv4Address(_) => {}
        }
    }
}

#[derive(Debug)]
pub enum Effect {
    /// Send header and packet on the data channel of each link.
    Data {
        links: Links,
        header: [u8; HEADER_LEN],
        packet: Bytes,
    },
    /// Send on a link's control channel.
    Control { link: u32, message: Bytes },
    /// Deliver a packet to local programs.
    Local { packet: Bytes },
    /// Write MLD into `lc0`.
    Mld { packet: Bytes },
    /// Set the nodes to which links are wanted.
    Wanted { nodes: BTreeSet<u32> },
    /// Close a link that is no longer needed.
    Retire { link: u32 },
    /// Report a protocol violation of the neighbour.
    Fault { link: u32, reason: &'static str },
    /// Send a datagram from the UDP socket.
    Datagram { to: SocketAddr, contents: Bytes },
    /// Send a sealed message to another node by the signalling server.
    Signal { to: u32, bytes: Bytes },
    /// Store on disk.
    Keep(Keep),
    /// Links have changed; these are the current peers.
    Linked(BTreeSet<u32>),
}

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
