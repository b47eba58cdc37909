//! The leaf in a page: it listens over links with two routers, and sends nothing, or asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lcroute_engine::control::RefusalReason;
use lcroute_engine::{LEAF_GROUPS, LeafState, LinkRefusal, SourceFilter};
use lcroute_node::{LeafConfig, LeafNode, LeafNodeOutput};
use lcroute_overlay::server::Role;
use lcroute_overlay::{CarrierId, PeerInfo, Presence, Random};
use librecast::id::PeerId;
use librecast::ipv6::udp_packet;
use librecast::mapped;
use librecast::time::{Duration, Instant, UnixTime, WallClock};
use serde::Serialize;

use crate::command::Command;
use crate::connections::PageConnections;
use crate::packet::{HOP_LIMIT, MAX_DATA, carried, delivered, ipv6_group};
use crate::servers::{ServerEvent, ServerStatus, Servers};
use crate::tab::Tab;
use crate::visit::{Start, Visit, bytes};

/// The longest pause between two timers: costs of links are not read more often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The leaf in a page.
#[derive(Debug)]
pub struct PageLeaf {
    node: LeafNode<PageConnections>,
    visit: Visit,
    /// Unix seconds, set by the page.
    clock: Arc<AtomicU64>,
    servers: Servers,
    joined: BTreeSet<Ipv6Addr>,
    /// Joins that the active router has refused.
    refused: BTreeMap<Ipv6Addr, RefusalReason>,
    is_expelled: bool,
    commands: VecDeque<Command>,
    looked_at: Instant,
}

/// State of the leaf, for the page.
#[derive(Debug, Serialize)]
struct Status {
    /// Distinguishes it from a member's.
    leaf: bool,
    peer_id: PeerId,
    name: &'static str,
    address: Ipv6Addr,
    network_id: String,
    /// `connecting`, `connected` or `expelled`.
    state: &'static str,
    /// Unix seconds.
    not_after: u64,
    servers: Vec<ServerStatus>,
    /// The routers that it knows, with their links.
    peers: Vec<PeerInfo>,
    /// The router from which packets come.
    active: Option<PeerId>,
    reception: LeafState,
    /// The reason for which no router gives it a link.
    no_link: Option<LinkRefusal>,
    /// Groups that its token covers.
    prefixes: Vec<String>,
    /// It may send to asking groups, and a router takes its packets.
    uplink: bool,
    groups: Vec<IpAddr>,
    refused: Vec<RefusedGroup>,
    drops: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct RefusedGroup {
    group: IpAddr,
    reason: &'static str,
}

impl PageLeaf {
    pub(crate) fn new(
        visit: Visit,
        start: &Start,
        now: Instant,
        time: UnixTime,
    ) -> Result<Self, String> {
        let clock = Arc::new(AtomicU64::new(time.as_secs()));
        let read = clock.clone();
        let mut random = Random::new(bytes(&start.seed)?);
        let config = LeafConfig {
            network: visit.network,
            key: visit.key.clone(),
            chain: visit.chain.clone(),
            clock: WallClock::new(move || UnixTime::from_secs(read.load(Ordering::Relaxed))),
            epoch: now,
            seed: random.array(),
        };
        let mut leaf = Self {
            node: LeafNode::new(config, PageConnections::new(start.tracks), now),
            servers: Servers::new(&visit, Role::Leaf),
            visit,
            clock,
            joined: BTreeSet::new(),
            refused: BTreeMap::new(),
            is_expelled: false,
            commands: VecDeque::from([Command::Keep]),
            looked_at: now,
        };
        leaf.settle(now);
        Ok(leaf)
    }

    fn handle_output(&mut self, output: LeafNodeOutput, now: Instant) {
        match output {
            LeafNodeOutput::Packet { packet } => {
                if let Some(group) = ipv6_group(&packet) {
                    self.refused.remove(&group);
                }
                let joined = &self.joined;
                let command = delivered(&packet, |group| joined.contains(&group));
                self.commands.extend(command);
            }
            LeafNodeOutput::Signal { to, bytes } => {
                self.servers.send(to, bytes.to_vec(), &mut self.commands);
            }
            LeafNodeOutput::Servers(needed) => {
                // later events of their sockets are ignored
                for number in self.servers.leave() {
                    let down = ServerEvent::Presence(Presence::CarrierDown);
                    self.handle_server_event(number, down, now);
                }
                self.commands.push_back(Command::Servers(needed));
            }
            LeafNodeOutput::Refused { group, reason } => {
                self.refused.insert(group, reason);
            }
            LeafNodeOutput::Expelled => self.is_expelled = true,
        }
    }
}

impl Tab for PageLeaf {
    fn servers_mut(&mut self) -> (&mut Servers, &mut VecDeque<Command>) {
        (&mut self.servers, &mut self.commands)
    }

    /// The token: a reload is a new leaf.
    fn to_keep(&self) -> String {
        serde_json::json!({ "leaf": self.visit.leaf_token }).to_string()
    }

    fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        self.clock.store(time.as_secs(), Ordering::Relaxed);
        self.looked_at = now;
        self.node.handle_timeout(now);
        self.settle(now);
    }

    fn next_timeout(&mut self) -> Instant {
        let latest = self.looked_at + LOOK_EVERY;
        self.node.next_timeout().map_or(latest, |at| at.min(latest))
    }

    fn leave_network(&mut self, now: Instant) {
        self.node.shutdown(now);
        self.settle(now);
    }

    fn handle_server_event(&mut self, number: u32, event: ServerEvent, now: Instant) {
        let carrier = CarrierId(number);
        match event {
            ServerEvent::Presence(presence) => self.node.handle_presence(carrier, presence, now),
            ServerEvent::Signal { from, bytes } => {
                self.node.handle_signal(carrier, from, &bytes, now);
            }
        }
    }

    /// A leaf uses no relay.
    fn handle_server_text(&mut self, _number: u32, _word: &str, _now: Instant) {}

    fn connections_mut(&mut self) -> &mut PageConnections {
        self.node.connections_mut()
    }

    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.node.poll_output(now) {
            self.handle_output(output, now);
        }
        let connections = self.node.connections_mut();
        self.commands
            .extend(std::iter::from_fn(|| connections.poll_command()));
    }

    fn join(&mut self, group: &str, now: Instant) -> Result<(), String> {
        let group = carried(group)?;
        if self.joined.contains(&group) {
            return Ok(());
        }
        let shown = mapped::shown(group);
        let mut permitted = self.visit.member.prefixes.iter();
        if !permitted.any(|prefix| prefix.contains(group)) {
            return Err(format!(
                "The token does not let this page listen to {shown}."
            ));
        }
        if !self.node.join(group, SourceFilter::all(), now) {
            return Err(format!(
                "This page listens to {LEAF_GROUPS} groups at most: leave one to join {shown}."
            ));
        }
        self.joined.insert(group);
        self.settle(now);
        Ok(())
    }

    fn leave(&mut self, group: &str, now: Instant) -> Result<(), String> {
        let group = carried(group)?;
        if self.joined.remove(&group) {
            self.refused.remove(&group);
            self.node.part(group, now);
            self.settle(now);
        }
        Ok(())
    }

    fn send(
        &mut self,
        (group, port): (&str, u16),
        data: &[u8],
        now: Instant,
    ) -> Result<(), String> {
        let group = carried(group)?;
        if !self.node.may_send(group) {
            return Err(
                "This page only listens: its token is for leaves, which send nothing here.".into(),
            );
        }
        if data.len() > MAX_DATA {
            return Err(format!(
                "A datagram holds {MAX_DATA} bytes, and this is longer."
            ));
        }
        let source = self.visit.member.addresses.address;
        let packet = udp_packet(source, group, (port, HOP_LIMIT), data);
        self.node.send(packet.into(), now);
        self.settle(now);
        Ok(())
    }

    /// A leaf learns nothing of the network.
    fn set_looks(&mut self, _looks: bool, _now: Instant) {}

    fn status(&mut self, now: Instant) -> String {
        let member = &self.visit.member;
        let state = match (self.is_expelled, self.node.links()) {
            (true, _) => "expelled",
            (false, 0) => "connecting",
            (false, _) => "connected",
        };
        let refused = self.refused.iter().map(|(group, reason)| RefusedGroup {
            group: mapped::shown(*group),
            reason: reason.name(),
        });
        let status = Status {
            leaf: true,
            peer_id: member.peer,
            name: "This tab",
            address: member.addresses.address,
            network_id: self.visit.network.to_string(),
            state,
            not_after: member.not_after,
            servers: self.servers.status(),
            peers: self.node.routers(),
            active: self.node.active(),
            reception: self.node.state(),
            no_link: self.node.refusal(),
            prefixes: member.prefixes.iter().map(ToString::to_string).collect(),
            uplink: self.node.has_uplink(),
            groups: self.joined.iter().copied().map(mapped::shown).collect(),
            refused: refused.collect(),
            drops: self.node.drops(),
        };
        self.settle(now);
        serde_json::to_string(&status).unwrap_or_default()
    }
}
