//! The member in a page: its node, its joined groups, and its signalling servers.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lcroute_engine::topology::TopologyConfig;
use lcroute_engine::{Ipv4Config, Ipv4Network, Limits};
use lcroute_node::view::{Network, View};
use lcroute_node::{
    Epochs, Keep, Members, Node, NodeConfig, Output, PingId, Revocations, Settings, Uses,
};
use lcroute_overlay::proof::{RelayReply, prove};
use lcroute_overlay::server::Role;
use lcroute_overlay::{CarrierId, PeerInfo, Random};
use librecast::cert::{GroupPrefix, Member};
use librecast::channel::{REPORT_PORT, look_group, report_group};
use librecast::id::{LinkId, PeerId};
use librecast::ipv6::{Datagram, udp_packet};
use librecast::mapped;
use librecast::mld_host::MldHost;
use librecast::time::{Duration, Instant, UnixTime, WallClock};
use serde::Serialize;

use crate::command::Command;
use crate::connections::PageConnections;
use crate::packet::{HOP_LIMIT, MAX_DATA, carried, delivered, ipv6_group, ipv6_source};
use crate::servers::{ServerEvent, ServerStatus, Servers};
use crate::tab::Tab;
use crate::visit::{Start, Visit, bytes};

/// Links of a tab if the network is not a mesh: a tab is a leaf, and hosts hold its connections.
const LINKS: u8 = 4;
/// MTU in bytes of the interface that the page does not have: that of hosts.
const MTU: u16 = 1_280;
/// Groups that the page lists, the first known ones. Chosen: more than a user looks through.
const MAX_CARRIED: usize = 1_024;
/// Interval at which the router gets link costs, and missing round trips are measured.
const ROUND_TRIPS: Duration = Duration::from_secs(1);

/// The member in a page.
#[derive(Debug)]
pub struct PageMember {
    node: Node<PageConnections>,
    visit: Visit,
    /// Seconds since 1970, set by the page.
    clock: Arc<AtomicU64>,
    programs: MldHost,
    servers: Servers,
    view: View,
    /// Whether it requests reports of other nodes.
    looks: bool,
    /// Whether the page gets packets of MLD.
    serves: bool,
    commands: VecDeque<Command>,
    next_round_trips: Instant,
    pings: Vec<(PingId, LinkId)>,
    random: Random,
}

/// State of the member, for the page.
#[derive(Debug, Serialize)]
pub struct Status {
    peer_id: PeerId,
    name: String,
    address: Ipv6Addr,
    network_id: String,
    /// `connecting`, `connected` or `expelled`.
    state: &'static str,
    /// The number of nodes that its token admits, until an issuer has counted it.
    token_uses: Option<u32>,
    /// Unix seconds.
    not_after: u64,
    /// The network forgets it some minutes after it has gone.
    ephemeral: bool,
    servers: Vec<ServerStatus>,
    peers: Vec<PeerInfo>,
    /// Groups that the page has joined.
    groups: Vec<IpAddr>,
    /// Groups that this router knows.
    carried: Vec<Carried>,
    drops: std::collections::BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    network: Network,
}

#[derive(Debug, Serialize)]
struct Carried {
    group: IpAddr,
    /// Peers that joined it over a link.
    links: Vec<PeerId>,
    /// Recent senders.
    sources: Vec<IpAddr>,
}

/// Setup and timers.
impl PageMember {
    pub(crate) fn new(
        visit: Visit,
        start: &Start,
        now: Instant,
        time: UnixTime,
    ) -> Result<Self, String> {
        let clock = Arc::new(AtomicU64::new(time.as_secs()));
        let read = clock.clone();
        let mut random = Random::new(bytes(&start.seed)?);
        let served = start.serves.and_then(|at| GroupPrefix::new(at, 64).ok());
        let settings = Settings {
            report: start.report,
            announce: served.into_iter().collect(),
            ..Settings::default()
        };
        let config = NodeConfig {
            network: visit.network,
            key: visit.key.clone(),
            chain: visit.chain.clone(),
            // a tab may be closed at any moment: it is not a rendezvous point, and forwards nothing,
            // unless the network is there for its groups
            member: Member {
                core: visit.member.core && served.is_some(),
                ..visit.member.clone()
            },
            transits: served.is_some(),
            // it only receives, and its router queries it from an address of the block
            ipv4: Some(Ipv4Config {
                network: Ipv4Network::of(&visit.network),
                kept: None,
                assigns: false,
            }),
            incarnation: start.incarnation,
            mtu: MTU,
            settings,
            topology: TopologyConfig {
                degree: LINKS,
                ..TopologyConfig::default()
            },
            revocations: Revocations::default(),
            epochs: Epochs::new(visit.network),
            members: Members::default(),
            uses: Uses::default(),
            clock: WallClock::new(move || UnixTime::from_secs(read.load(Ordering::Relaxed))),
            epoch: now,
            aead: None,
            seed: random.array(),
            limits: Limits::default(),
            overlay_limits: lcroute_overlay::Limits::default(),
        };
        let mut node = Node::new(config, PageConnections::new(start.tracks), now);
        node.start(now);
        let addresses = visit.member.addresses;
        let mut member = Self {
            node,
            clock,
            programs: MldHost::new(addresses.link_local, MTU.into()),
            servers: Servers::new(&visit, Role::Router),
            view: View::default(),
            looks: false,
            serves: served.is_some(),
            commands: VecDeque::from([Command::Keep]),
            next_round_trips: now,
            pings: Vec::new(),
            random,
            visit,
        };
        member.settle(now);
        Ok(member)
    }

    /// Measures round trips that the browser does not report, by echoes of the network.
    fn measure(&mut self, now: Instant) {
        let open: Vec<_> = self.node.connections().open().collect();
        for link in open {
            let Some(peer) = self.node.links().get(&link).map(|member| member.peer) else {
                continue;
            };
            let unknown = self.node.connections().needs_round_trip(link);
            if unknown && self.pings.iter().all(|(_, known)| *known != link) {
                let ping = self.node.ping(&peer, Duration::from_secs(2), now);
                self.pings.extend(ping.ok().map(|ping| (ping, link)));
            }
        }
    }
}

impl Tab for PageMember {
    fn servers_mut(&mut self) -> (&mut Servers, &mut VecDeque<Command>) {
        (&mut self.servers, &mut self.commands)
    }

    fn to_keep(&self) -> String {
        serde_json::to_string(&self.visit.to_keep()).unwrap_or_default()
    }

    fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        self.clock.store(time.as_secs(), Ordering::Relaxed);
        self.node.handle_timeout(now);
        if self.next_round_trips <= now {
            self.next_round_trips = now + ROUND_TRIPS;
            self.measure(now);
            self.node.update_round_trips(now);
        }
        self.settle(now);
    }

    fn next_timeout(&mut self) -> Instant {
        let next = self.node.next_timeout().unwrap_or(self.next_round_trips);
        next.min(self.next_round_trips)
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

    fn handle_server_text(&mut self, number: u32, word: &str, now: Instant) {
        if self.servers.contains(number)
            && let Some(RelayReply::Prove(key)) = RelayReply::decode(word)
            && let Some(proof) = prove(&self.visit.chain, &key, &mut self.random)
        {
            let proof = Command::ServerText(number, proof.encode());
            self.commands.push_back(proof);
        }
        self.settle(now);
    }

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
        let reports = self.programs.join(group);
        self.tell_router(reports, now);
        Ok(())
    }

    fn leave(&mut self, group: &str, now: Instant) -> Result<(), String> {
        let reports = self.programs.leave(carried(group)?);
        self.tell_router(reports, now);
        Ok(())
    }

    fn send(
        &mut self,
        (group, port): (&str, u16),
        data: &[u8],
        now: Instant,
    ) -> Result<(), String> {
        let group = carried(group)?;
        if let Some(group) = mapped::ipv4(group) {
            return Err(format!(
                "A page has no IPv4 address: it hears {group}, and cannot send to it."
            ));
        }
        if data.len() > MAX_DATA {
            return Err(format!(
                "A datagram holds {MAX_DATA} bytes, and this is longer."
            ));
        }
        let permitted = &self.visit.member.prefixes;
        if !permitted.iter().any(|prefix| prefix.contains(group)) {
            return Err(format!(
                "The token does not permit this page to send to {group}."
            ));
        }
        let source = self.visit.member.addresses.address;
        let packet = udp_packet(source, group, (port, HOP_LIMIT), data);
        self.node.handle_local_packet(packet.into(), now);
        self.settle(now);
        Ok(())
    }

    fn query(&mut self, packet: &[u8], now: Instant) {
        self.node.handle_local_packet(packet.to_vec().into(), now);
        self.settle(now);
    }

    fn set_looks(&mut self, looks: bool, now: Instant) {
        if self.looks == looks {
            return;
        }
        self.looks = looks;
        let (group, prefix) = (report_group(), GroupPrefix::group(look_group()));
        let reports = if looks {
            // without the right to announce it, the page shows its own links only
            let _ = self.node.announce(prefix, now);
            self.programs.join(group)
        } else {
            self.node.withdraw(prefix, now);
            self.programs.leave(group)
        };
        self.tell_router(reports, now);
    }

    fn status(&mut self, now: Instant) -> String {
        let look = self.node.look(now);
        let network = self.view.show(&look, now);
        let member = self.node.member();
        let state = match (self.node.is_expelled(), self.node.links().is_empty()) {
            (true, _) => "expelled",
            (false, true) => "connecting",
            (false, false) => "connected",
        };
        let status = Status {
            peer_id: member.peer,
            name: member.name.clone(),
            address: member.addresses.address,
            network_id: self.visit.network.to_string(),
            state,
            token_uses: member.bound.map(|bound| bound.uses),
            not_after: member.not_after,
            ephemeral: member.is_ephemeral(),
            servers: self.servers.status(),
            peers: self.node.overlay().peers(),
            groups: self
                .programs
                .groups()
                .filter(|g| *g != report_group())
                .map(mapped::shown)
                .collect(),
            carried: self.carried(),
            drops: self.node.drops(),
            network,
        };
        self.settle(now);
        serde_json::to_string(&status).unwrap_or_default()
    }
}

impl PageMember {
    fn carried(&self) -> Vec<Carried> {
        let peer = |link: &LinkId| self.node.links().get(link).map(|member| member.peer);
        let groups = self.node.engine().snapshot().groups.into_iter();
        let groups = groups.filter(|g| g.group != report_group());
        let carried = groups.map(|g| Carried {
            group: mapped::shown(g.group),
            links: g.links.iter().filter_map(peer).collect(),
            sources: g.sources.into_iter().map(mapped::shown).collect(),
        });
        carried.take(MAX_CARRIED).collect()
    }

    fn tell_router(&mut self, reports: Vec<Vec<u8>>, now: Instant) {
        for report in reports {
            self.node.handle_local_packet(report.into(), now);
        }
        self.settle(now);
    }
}

/// Outputs of the node.
impl PageMember {
    fn handle_output(&mut self, output: Output, now: Instant) {
        match output {
            Output::Local { packet } => self.deliver(&packet, now),
            Output::LocalMld { packet } => {
                for report in self.programs.answer(&packet) {
                    self.node.handle_local_packet(report.into(), now);
                }
                if self.serves {
                    self.commands.push_back(Command::Mld(packet));
                }
            }
            Output::Signal { to, bytes } => {
                self.servers.send(to, bytes.to_vec(), &mut self.commands);
            }
            Output::Keep(Keep::Chain(chain)) => {
                self.visit.chain = chain;
                self.commands.push_back(Command::Keep);
            }
            Output::Pong { ping, rtt } => {
                let of_link = self.pings.iter().position(|(known, _)| *known == ping);
                if let Some((_, link)) = of_link.map(|at| self.pings.swap_remove(at))
                    && let Some(rtt) = rtt
                {
                    self.node.connections_mut().handle_round_trip(link, rtt);
                }
            }
            // a page has neither disk nor IPv4 nor LANs, and its records would have no address
            Output::Keep(_)
            | Output::Publish(_)
            | Output::Seek(_)
            | Output::PathSuspect
            | Output::Ipv4Address(_)
            | Output::Lan { .. } => {}
        }
    }

    fn deliver(&mut self, packet: &[u8], now: Instant) {
        let group = ipv6_group(packet);
        if group != Some(report_group()) {
            let programs = &self.programs;
            let command = delivered(packet, |group| programs.has_joined(group));
            self.commands.extend(command);
            return;
        }
        if let (Some(source), Some(datagram)) = (ipv6_source(packet), Datagram::of_packet(packet))
            && datagram.destination_port == REPORT_PORT
        {
            self.view.take_report(source, datagram.data, now);
        }
    }
}
