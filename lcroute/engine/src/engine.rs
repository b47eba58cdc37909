//! The engine: inputs to state machines to outputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use librecast::cert::{GroupPrefix, Member};
use librecast::id::OriginId;
use librecast::mld::{self, Message};

use crate::adjacency::Adjacency;
use crate::audit::{self, AUDIT_EVERY, Digests, REPAIR_GAP};
use crate::classify::{CarriedScopes, Class, Flow, flow_of, is_source_specific, trim};
use crate::config::{Config, LinkId, Neighbor, NodeSources};
use crate::control::{
    self, Audit, Element, Interest, MAX_ROUTED, Prefix, RefusalReason, Routed, RoutedKind,
};
use crate::database::{
    Database, DatabaseEvent, FLAG_CORE, FLAG_ISSUER, FLAG_UNICAST, OwnRouter, Record,
};
use crate::drops::{DropReason, Drops};
use crate::duplicate::Duplicates;
use crate::graph::{Graph, Tree};
use crate::header::{DataHeader, HEADER_LEN, HOP_LIMIT, MAX_SEQUENCE};
use crate::hold::HeldFlows;
use crate::late::Late;
use crate::local::Local;
use crate::output::{Links, Output, TimerKind};
use crate::proxy::{Proxy, ROUTER_ADDRESS};
use crate::querier::Querier;
use crate::random::Random;
use crate::routing::sending_root;
use crate::services::Services;
use crate::snapshot::Counters;
use crate::table::Table;
use crate::tokens::Tokens;
use crate::topology::Topology;
use crate::trees::Trees;
use crate::unicast::{IcmpError, is_same_network};
use crate::want::Want;

/// A program has reported while `lc0` had no link-local address: the next query comes after this time.
const UNSPECIFIED_SOURCE_GAP: Duration = Duration::from_secs(5);
/// How long the duplicate window of a router is kept that cannot be reached any more.
const WINDOW_MEMORY: Duration = Duration::from_secs(10);
/// ICMPv6 errors per second, and at once (RFC 4443 §2.4 f).
const ICMP_RATE: u32 = 100;
const ICMP_BURST: u32 = 50;
/// Trees of unicast destinations that are remembered.
const MAX_PATHS: usize = 1_024;

/// The way to another router.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    tree: Arc<Tree>,
    next: Option<LinkId>,
}

/// The router of one node.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) own: OriginId,
    pub(crate) sources: NodeSources,
    pub(crate) scopes: CarriedScopes,
    pub(crate) services: Arc<dyn Services>,
    pub(crate) querier: Querier,
    pub(crate) proxy: Proxy,
    pub(crate) database: Database,
    pub(crate) graph: Arc<Graph>,
    pub(crate) trees: Trees,
    pub(crate) local: Local,
    pub(crate) topology: Topology,
    pub(crate) held: HeldFlows,
    pub(crate) late: Late,
    pub(crate) duplicates: Duplicates,
    pub(crate) adjacencies: BTreeMap<LinkId, Adjacency>,
    /// The link that leads to each neighbour.
    pub(crate) neighbors: BTreeMap<OriginId, LinkId>,
    /// Ways of unicast and routed messages, as long as the graph stays.
    pub(crate) paths: Table<OriginId, Path>,
    /// Groups whose remote interest changed since the last flush.
    pub(crate) interest_changed: BTreeSet<Ipv6Addr>,
    /// Messages to pass on with the next flush.
    pub(crate) routed: Vec<(LinkId, Routed)>,
    /// Routers that have gone, whose windows are forgotten at the time.
    pub(crate) gone: BTreeSet<(Instant, OriginId)>,
    pub(crate) routing: crate::routing::Routing,
    pub(crate) drops: Drops,
    pub(crate) counters: Counters,
    pub(crate) now: Instant,
    pub(crate) outputs: VecDeque<Output>,
    /// There may be something to flush.
    pub(crate) unflushed: bool,
    started: bool,
    sequence: u64,
    icmp: Tokens,
    random: Random,
    /// The key of the digests of what we tell over links; only neighbours hear it.
    pub(crate) salt: u64,
}

impl Engine {
    /// A router without links; nothing is written into `lc0` before [`Self::handle_start`].
    #[must_use]
    pub fn new(config: Config, services: Arc<dyn Services>, now: Instant) -> Self {
        let (limits, seed) = (&config.limits, config.seed);
        let own = config.member.addresses.origin;
        let router = OwnRouter {
            origin: own,
            incarnation: config.incarnation,
            chain: config.chain.clone(),
            mtu: config.mtu,
            flags: flags(&config),
            announced: config.announce.iter().copied().collect(),
        };
        let mut database = Database::new(router, limits, services.clone(), now);
        let salt = Random::new(seed ^ u64::from(config.incarnation)).next();
        Self {
            own,
            sources: NodeSources::of_node(&config.member.addresses),
            scopes: CarriedScopes::new(&config.link_scope_groups),
            querier: Querier::new(limits.groups, limits.reporters, seed),
            proxy: Proxy::new(seed),
            graph: database.graph(),
            database,
            trees: Trees::new(own, seed),
            local: Local::new(own, limits.flows, seed),
            topology: Topology::new(own, config.topology, seed, now),
            held: HeldFlows::new(limits, seed),
            late: Late::new(limits, seed),
            duplicates: Duplicates::new(limits.duplicate_window, seed),
            adjacencies: BTreeMap::new(),
            neighbors: BTreeMap::new(),
            paths: Table::new(seed),
            interest_changed: BTreeSet::new(),
            routed: Vec::new(),
            gone: BTreeSet::new(),
            routing: crate::routing::Routing::new(now),
            drops: Drops::default(),
            counters: Counters::default(),
            now,
            outputs: VecDeque::new(),
            unflushed: true,
            started: false,
            sequence: 0,
            icmp: Tokens::new(ICMP_RATE, ICMP_BURST, now),
            random: Random::new(!seed),
            salt,
            services,
            config,
        }
    }

    /// `lc0` is up, for the first time or again: a general query asks what is joined, and what the
    /// network wants is reported.
    pub fn handle_start(&mut self, now: Instant) {
        self.turn(now);
        self.started = true;
        self.querier.start(now);
        self.proxy.start();
    }

    /// A link is up and its neighbour authenticated: everything is exchanged.
    pub fn handle_link_up(&mut self, link: LinkId, neighbor: Neighbor, now: Instant) {
        self.turn(now);
        self.remove_link(link);
        let told = Digests::new(self.salt, self.own);
        let audit = now + AUDIT_EVERY + self.random.between(Duration::ZERO, AUDIT_EVERY / 4);
        let adjacency = Adjacency::new(neighbor, told, audit, now);
        let origin = adjacency.origin();
        self.adjacencies.insert(link, adjacency);
        self.find_neighbors();
        self.database.link_up(link, origin, now);
        self.topology.link_up(link, origin, now);
    }

    /// A link is gone, and with it all that its neighbour wanted.
    pub fn handle_link_down(&mut self, link: LinkId, now: Instant) {
        self.turn(now);
        self.remove_link(link);
    }

    /// The smoothed round trip of a link.
    pub fn handle_link_rtt(&mut self, link: LinkId, rtt: Duration, now: Instant) {
        self.turn(now);
        self.database.set_rtt(link, rtt, now);
        self.topology.set_rtt(link, rtt);
    }

    /// A node can be reached for signalling beside the links of the network, or no longer.
    pub fn handle_presence(&mut self, origin: OriginId, online: bool, now: Instant) {
        self.turn(now);
        self.topology.set_present(origin, online, now);
    }

    /// Attempts to make a link to this node fail, or they do no longer.
    pub fn handle_direct_failure(&mut self, origin: OriginId, failing: bool, now: Instant) {
        self.turn(now);
        self.topology.set_direct_failure(origin, failing, now);
    }

    /// The configuration changed: other groups of scope 2 are carried from now on.
    pub fn set_link_scope_groups(&mut self, groups: &[Ipv6Addr], now: Instant) {
        self.turn(now);
        self.scopes = CarriedScopes::new(groups);
        self.querier.retain(|group| self.scopes.contains(group));
        self.interest_changed.extend(self.trees.groups());
        self.querier.query_again(Duration::ZERO, now);
    }

    /// Groups whose tree has its root here from now on. Those that the certificate does not permit are
    /// ignored, here and elsewhere; they are returned.
    pub fn set_announced(&mut self, announced: Vec<GroupPrefix>, now: Instant) -> Vec<GroupPrefix> {
        self.turn(now);
        let permitted = |p: &GroupPrefix| self.config.member.prefixes.iter().any(|m| m.covers(p));
        let (announced, refused): (Vec<_>, _) = announced.into_iter().partition(permitted);
        self.database
            .set_announced(announced.iter().copied().collect(), now);
        self.config.announce = announced;
        self.interest_changed.extend(self.trees.groups());
        self.routing.force();
        refused
    }

    /// Groups of which a program here wants to know who listens.
    pub fn set_watch(&mut self, watch: Vec<GroupPrefix>, now: Instant) {
        self.turn(now);
        self.config.watch = watch;
        self.interest_changed.extend(self.trees.groups());
        self.routing.force();
    }

    /// Whether unicast is carried for this node.
    pub fn set_unicast(&mut self, unicast: bool, now: Instant) {
        self.turn(now);
        self.config.unicast = unicast;
        self.database.set_flags(flags(&self.config), now);
    }

    /// This node's certificate was renewed.
    pub fn set_own_chain(&mut self, chain: Bytes, now: Instant) -> Result<(), &'static str> {
        self.turn(now);
        let credential = self.services.verify_chain(&chain)?;
        if credential.member.peer != self.config.member.peer {
            return Err("certificate of another node");
        }
        self.config.member = credential.member.clone();
        self.config.chain = chain.clone();
        self.database.set_own_chain(chain, now)
    }

    /// A signed revocation, of this node's operator or from the disk: it is flooded.
    pub fn add_revocation(&mut self, record: &[u8], now: Instant) -> Result<(), &'static str> {
        self.turn(now);
        self.database.add_revocation(record, now)
    }

    /// An IPv6 packet read from `lc0`, without packet information or Ethernet header. What goes out is a
    /// part of it, not a copy.
    pub fn handle_local_packet(&mut self, mut packet: Bytes, now: Instant) {
        self.now = now;
        self.counters.tun_rx_packets += 1;
        self.counters.tun_rx_bytes += packet.len() as u64;
        let result = match self.scopes.classify(&packet) {
            Class::Carried(flow) => {
                trim(&mut packet);
                self.send(flow, packet)
            }
            Class::Unicast(flow) => {
                trim(&mut packet);
                self.send_unicast(flow, packet)
            }
            Class::Mld => self.handle_mld(&packet),
            Class::Dropped(reason) => Err(reason),
        };
        self.count(result);
    }

    /// One message of a data channel: data header and packet. What is written is a part of it, not a copy.
    pub fn handle_data(&mut self, link: LinkId, message: Bytes, now: Instant) {
        self.now = now;
        self.counters.link_rx_packets += 1;
        self.counters.link_rx_bytes += message.len() as u64;
        let result = self.receive(link, message);
        self.count(result);
    }

    /// One message of a control channel, after authentication.
    pub fn handle_control(&mut self, link: LinkId, message: &[u8], now: Instant) {
        self.turn(now);
        self.counters.control_rx_messages += 1;
        self.counters.control_rx_bytes += message.len() as u64;
        let Some(adjacency) = self.adjacencies.get(&link) else {
            self.drops.count(DropReason::UnknownLink);
            return;
        };
        if adjacency.faulty {
            self.drops.count(DropReason::BadControl);
            return;
        }
        let result = control::decode(message)
            .map_err(|_| "control message cannot be read")
            .and_then(|elements| self.handle_elements(link, elements));
        if let Err(reason) = result {
            self.fault(link, reason);
        }
    }

    /// Sends a message to another router over the control channels between. At most [`MAX_ROUTED`] bytes.
    pub fn send_routed(
        &mut self,
        to: OriginId,
        kind: RoutedKind,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.turn(now);
        if payload.len() > MAX_ROUTED {
            return Err(DropReason::TooBig);
        }
        self.route(Routed {
            destination: to,
            source: self.own,
            hop_limit: HOP_LIMIT,
            kind,
            payload,
        })
    }

    /// `lc0` dropped packets towards us; joins may have been among them: a general query asks.
    pub fn handle_tx_queue_overflow(&mut self, now: Instant) {
        self.turn(now);
        self.querier.query_again(Duration::ZERO, now);
    }

    /// To be called when the time of [`Self::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.turn(now);
        self.querier.handle_timeout(now);
        self.drops
            .add(DropReason::NoListener, self.held.handle_timeout(now));
        self.late.handle_timeout(now);
        for adjacency in self.adjacencies.values_mut() {
            adjacency.refusals.handle_timeout(now);
        }
        let idle = self.local.handle_timeout(&mut self.trees, now);
        self.interest_changed.extend(idle);
        self.database.handle_timeout(now);
        self.topology.handle_timeout(now);
        while let Some(&(at, origin)) = self.gone.first()
            && at <= now
        {
            self.gone.pop_first();
            self.duplicates.forget(origin);
        }
        // timers of the proxy and of routing are looked at by the flush that follows
    }

    /// When to call [`Self::handle_timeout`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        let adjacencies = || self.adjacencies.values();
        let retry = adjacencies()
            .filter_map(|a| a.refusals.next_timeout())
            .min();
        let audit = adjacencies().map(|a| a.next_audit).min();
        let named = |at: Option<Instant>, kind| at.map(|at| (at, kind));
        [
            self.querier.next_timeout(),
            self.proxy.next_timeout(),
            self.held.next_timeout(),
            self.local.next_timeout(),
            named(self.late.next_timeout(), TimerKind::LateListeners),
            named(retry, TimerKind::InterestRetry),
            named(audit, TimerKind::Audit),
            named(self.database.next_timeout(), TimerKind::LinkState),
            named(self.topology.poll_timeout(), TimerKind::Topology),
            named(
                self.routing.next_timeout(self.database.version()),
                TimerKind::ShortestPaths,
            ),
            named(self.gone.first().map(|g| g.0), TimerKind::RouterGone),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to do. To be called until `None` after a batch of inputs: all changes of one
    /// batch leave in one control message per link.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.unflushed {
            self.unflushed = false;
            self.flush();
        }
        self.outputs.pop_front()
    }

    /// What is known of a router, as its verified certificate says.
    #[must_use]
    pub fn member(&self, origin: OriginId) -> Option<&Member> {
        Some(&self.database.router(origin)?.credential().member)
    }

    /// The root of a group's tree, as this router sees it.
    #[must_use]
    pub fn root(&self, group: Ipv6Addr) -> OriginId {
        self.root_of(group)
    }

    /// Routers that can be reached and renew certificates.
    #[must_use]
    pub fn issuers(&self) -> Vec<OriginId> {
        self.database.issuers().collect()
    }

    /// An input that is more than a packet: what it changes goes out with the next flush.
    fn turn(&mut self, now: Instant) {
        self.now = now;
        self.unflushed = true;
    }

    fn count(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn remove_link(&mut self, link: LinkId) {
        if self.adjacencies.remove(&link).is_none() {
            return;
        }
        self.find_neighbors();
        self.trees.link_down(link);
        self.database.link_down(link, self.now);
        self.topology.link_down(link, self.now);
        self.paths = Table::new(self.config.seed);
        self.routing.force();
    }

    /// Of two links to one neighbour the newer counts.
    fn find_neighbors(&mut self) {
        let links = self.adjacencies.iter().filter(|(_, a)| !a.faulty);
        self.neighbors = links.map(|(link, a)| (a.origin(), *link)).collect();
    }

    /// The neighbour broke the protocol: the shell closes the link.
    fn fault(&mut self, link: LinkId, reason: &'static str) {
        self.drops.count(DropReason::BadControl);
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            adjacency.faulty = true;
            let origin = adjacency.origin();
            tracing::warn!(%link, %origin, reason, "link fault");
            self.outputs.push_back(Output::LinkFault { link, reason });
        }
    }
}

/// Packets from local programs.
impl Engine {
    fn send(&mut self, flow: Flow, packet: Bytes) -> Result<(), DropReason> {
        if !self.sources.allows(flow.source, flow.group) {
            return Err(DropReason::ForeignSource);
        }
        let may_send = &self.config.member.prefixes;
        if !may_send.iter().any(|p| p.contains(flow.group)) {
            return Err(DropReason::NotPermitted);
        }
        let (group, now) = (flow.group, self.now);
        let (own, database) = (self.own, &self.database);
        let on_own = self.routing.sends_on_own.then_some(own);
        let root = || sending_root(database, own, on_own, group);
        let (root, is_new) = self.local.send(group, root, &mut self.trees, now);
        if is_new {
            self.unflushed = true;
            self.interest_changed.insert(group);
            if root != own {
                // S is told when this turn ends, and this packet goes out before
                self.late.open((root, group), now);
            }
        }
        let route = self.trees.route(root, group, flow.source);
        let Some((route, traffic)) = route.filter(|(route, _)| !route.links.is_empty()) else {
            let waits = self.held.offer(flow, &packet, now);
            return if waits {
                Ok(())
            } else {
                Err(DropReason::NoListener)
            };
        };
        traffic.count(flow.source, packet.len(), now);
        let links = route.links.clone();
        self.emit_data(root, links, packet);
        Ok(())
    }

    fn emit_data(&mut self, root: OriginId, links: Links, packet: Bytes) {
        // 48 bits last for eighty years at 100,000 packets a second
        self.sequence = (self.sequence + 1) & MAX_SEQUENCE;
        let header = DataHeader {
            flags: 0,
            hop_limit: HOP_LIMIT,
            root,
            origin: self.own,
            incarnation: self.config.incarnation,
            sequence: self.sequence,
            key_epoch: 0,
        };
        if !self.late.is_idle()
            && let Some(flow) = flow_of(&packet)
        {
            self.late.keep(flow, header, &packet, &links);
        }
        self.transmit(links, header, packet);
    }

    fn transmit(&mut self, links: Links, header: DataHeader, packet: Bytes) {
        self.counters.link_tx_packets += links.len() as u64;
        self.counters.link_tx_bytes += (links.len() * (HEADER_LEN + packet.len())) as u64;
        self.outputs.push_back(Output::Data {
            links,
            header: header.encode(),
            packet,
        });
    }

    /// Interest in `group` has changed: packets that waited go out, if somebody wants them now.
    pub(crate) fn release(&mut self, group: Ipv6Addr) {
        if self.held.len() == 0 {
            return;
        }
        let Some(root) = self.local.sending_root(group, self.now) else {
            return;
        };
        for source in self.sources.present(group) {
            let wanted = |trees: &mut Trees| {
                let (route, _) = trees.route(root, group, source)?;
                Some(route.links.clone()).filter(|links| !links.is_empty())
            };
            let Some(links) = wanted(&mut self.trees) else {
                continue;
            };
            for packet in self.held.release(Flow { source, group }) {
                if let Some((_, traffic)) = self.trees.route(root, group, source) {
                    traffic.count(source, packet.len(), self.now);
                }
                self.emit_data(root, links.clone(), packet);
            }
        }
    }

    /// Packets that went out a moment ago follow over links that want them now.
    pub(crate) fn send_late(&mut self, root: OriginId, group: Ipv6Addr) {
        if self.late.is_idle() {
            return;
        }
        let trees = &mut self.trees;
        let wanting = |source| Some(trees.route(root, group, source)?.0.links.clone());
        for (links, header, packet) in self.late.take_new((root, group), wanting) {
            self.counters.link_tx_packets += links.len() as u64;
            self.counters.link_tx_bytes += (links.len() * (HEADER_LEN + packet.len())) as u64;
            self.outputs.push_back(Output::Data {
                links,
                header: header.encode(),
                packet,
            });
        }
    }

    fn handle_mld(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        self.unflushed = true;
        let now = self.now;
        let (source, message) = mld::parse_packet(packet).map_err(|_| DropReason::BadMld)?;
        if source.is_unspecified() {
            // RFC 9777 §5.2.13: ignored; whoever joined is asked again
            self.querier.query_again(UNSPECIFIED_SOURCE_GAP, now);
            return Err(DropReason::MldUnspecifiedSource);
        }
        if source == ROUTER_ADDRESS {
            // our own, come back from a bridge
            return Err(DropReason::BadMld);
        }
        match message {
            Message::Query(query) => self.proxy.handle_query(&query, now),
            Message::Report(records) => {
                for record in records.iter().filter(|r| self.scopes.contains(r.group)) {
                    let result = self.querier.handle_record(source, record, now);
                    if let Err(reason) = result {
                        self.drops.count(reason);
                    }
                }
            }
            Message::ReportV1 { group } if self.understands_v1(group) => {
                self.querier.handle_v1_report(source, group, now)?;
            }
            Message::DoneV1 { group } if self.understands_v1(group) => {
                self.querier.handle_v1_done(source, group, now);
            }
            Message::ReportV1 { .. } | Message::DoneV1 { .. } => {}
        }
        Ok(())
    }

    /// Version 1 knows no sources, so it says nothing about source-specific groups (RFC 4604 §2.2.2).
    fn understands_v1(&self, group: Ipv6Addr) -> bool {
        self.scopes.contains(group) && !is_source_specific(group)
    }

    fn send_unicast(&mut self, flow: Flow, packet: Bytes) -> Result<(), DropReason> {
        if !self.config.unicast {
            return Err(DropReason::UnicastOff);
        }
        let to = flow.group;
        let is_link_local = to.is_unicast_link_local();
        if !self.sources.allows_unicast(flow.source, is_link_local) {
            return Err(DropReason::ForeignSource);
        }
        if to == self.config.member.addresses.address || OriginId::of(to) == self.own {
            return Err(DropReason::NoRoute);
        }
        let refuse = |engine: &mut Self, error: IcmpError, reason| {
            engine.answer_icmp(error, &packet);
            Err(reason)
        };
        if !is_link_local && !is_same_network(to, self.config.member.addresses.address) {
            return refuse(self, IcmpError::NoRoute, DropReason::NoRoute);
        }
        let Some(router) = self.database.router(OriginId::of(to)) else {
            return refuse(self, IcmpError::NoRoute, DropReason::NoRoute);
        };
        let addresses = router.credential().member.addresses;
        if to != addresses.address && to != addresses.link_local {
            return refuse(self, IcmpError::NoRoute, DropReason::NoRoute);
        }
        let takes_unicast = router.has_flag(FLAG_UNICAST);
        let mtu = router.advertisement().map_or(u16::MAX, |a| a.mtu());
        if !takes_unicast {
            return refuse(self, IcmpError::Prohibited, DropReason::UnicastOff);
        }
        if packet.len() > usize::from(mtu) {
            return refuse(self, IcmpError::TooBig(mtu), DropReason::TooBig);
        }
        let root = addresses.origin;
        let Some(next) = self.path(root).and_then(|p| p.next) else {
            let error = IcmpError::AddressUnreachable;
            return refuse(self, error, DropReason::NoRoute);
        };
        self.emit_data(root, Links::from([next]), packet);
        Ok(())
    }

    /// A router's error message, into `lc0`.
    fn answer_icmp(&mut self, error: IcmpError, packet: &[u8]) {
        if !self.icmp.take(self.now) {
            return;
        }
        if let Some(answer) = error.answer(packet) {
            self.count_local(answer.len());
            let packet = answer.into();
            self.outputs.push_back(Output::Local { packet });
        }
    }

    /// The way to a router, from the graph as it was last looked at.
    fn path(&mut self, to: OriginId) -> Option<&Path> {
        if self.paths.get(&to).is_none() {
            if self.paths.len() >= MAX_PATHS {
                self.paths = Table::new(self.config.seed);
            }
            let tree = self.services.tree(&self.graph, to)?;
            let next = tree.parent(self.own);
            let next = next.and_then(|n| self.neighbors.get(&n)).copied();
            self.paths.insert(to, Path { tree, next });
        }
        self.paths.get(&to)
    }
}

/// Packets and messages from neighbours.
impl Engine {
    fn receive(&mut self, link: LinkId, mut message: Bytes) -> Result<(), DropReason> {
        let adjacency = self.adjacencies.get(&link).filter(|a| !a.faulty);
        adjacency.ok_or(DropReason::UnknownLink)?;
        let (header, packet) = DataHeader::decode(&message).map_err(|_| DropReason::BadHeader)?;
        if header.hop_limit == 0 {
            return Err(DropReason::HopLimit);
        }
        let flow = match self.scopes.classify(packet) {
            Class::Carried(flow) => flow,
            Class::Unicast(flow) => {
                message.advance(HEADER_LEN);
                return self.receive_unicast(link, header, flow, message);
            }
            Class::Mld => return Err(DropReason::LinkControl),
            Class::Dropped(reason) => return Err(reason),
        };
        let Flow { source, group } = flow;
        let is_own = OriginId::of(source) == header.origin && header.origin != self.own;
        let route = self.trees.route(header.root, group, source);
        let (route, traffic) = route.ok_or(DropReason::NotJoined)?;
        if !is_own {
            return Err(DropReason::ForgedSource);
        }
        if route.arrival != Some(link) && route.previous != Some(link) {
            return Err(DropReason::ReversePath);
        }
        permit(&self.database, header.origin, flow)?;
        self.duplicates
            .accept(header.origin, header.incarnation, header.sequence)?;
        message.advance(HEADER_LEN);
        trim(&mut message);
        let links = if route.links.contains(&link) {
            // it came over an edge of the tree before
            route
                .links
                .iter()
                .filter(|l| **l != link)
                .copied()
                .collect()
        } else {
            route.links.clone()
        };
        if !self.late.is_idle() && header.hop_limit > 1 {
            let onward = DataHeader {
                hop_limit: header.hop_limit - 1,
                ..header
            };
            self.late.keep(flow, onward, &message, &links);
        }
        // a packet that is both passed on and delivered counts once
        let local = self.querier.wanted(group, source);
        let is_local = local.is_some();
        if links.is_empty() && !is_local {
            return Err(DropReason::NotJoined);
        }
        local
            .unwrap_or(traffic)
            .count(source, message.len(), self.now);
        let passed_on = if links.is_empty() {
            Ok(())
        } else {
            self.pass_on(links, header, message.clone())
        };
        if is_local {
            self.count_local(message.len());
            self.outputs.push_back(Output::Local { packet: message });
        }
        passed_on
    }

    fn pass_on(
        &mut self,
        links: Links,
        header: DataHeader,
        packet: Bytes,
    ) -> Result<(), DropReason> {
        if header.hop_limit == 1 {
            return Err(DropReason::HopLimit);
        }
        let header = DataHeader {
            hop_limit: header.hop_limit - 1,
            ..header
        };
        self.transmit(links, header, packet);
        Ok(())
    }

    fn receive_unicast(
        &mut self,
        link: LinkId,
        header: DataHeader,
        flow: Flow,
        mut packet: Bytes,
    ) -> Result<(), DropReason> {
        let (own, to) = (self.own, flow.group);
        if OriginId::of(to) != header.root {
            return Err(DropReason::ReversePath);
        }
        let router = self.database.router(header.origin);
        let credential = router.ok_or(DropReason::ForgedSource)?.credential();
        let addresses = &credential.member.addresses;
        let source = NodeSources::of_node(addresses);
        if !source.allows_unicast(flow.source, to.is_unicast_link_local()) {
            return Err(DropReason::ForgedSource);
        }
        let path = self.path(header.root).ok_or(DropReason::NoRoute)?;
        let behind = path.tree.edge(own, header.origin);
        let next = path.next;
        let arrival = behind.and_then(|n| self.neighbors.get(&n)).copied();
        if arrival != Some(link) {
            return Err(DropReason::ReversePath);
        }
        self.duplicates
            .accept(header.origin, header.incarnation, header.sequence)?;
        trim(&mut packet);
        if header.root != own {
            let next = next.ok_or(DropReason::NoRoute)?;
            return self.pass_on(Links::from([next]), header, packet);
        }
        if !self.config.unicast {
            return Err(DropReason::UnicastOff);
        }
        let addresses = &self.config.member.addresses;
        if to != addresses.address && to != addresses.link_local {
            return Err(DropReason::NoRoute);
        }
        self.count_local(packet.len());
        self.outputs.push_back(Output::Local { packet });
        Ok(())
    }

    fn handle_elements(
        &mut self,
        link: LinkId,
        elements: Vec<Element>,
    ) -> Result<(), &'static str> {
        for element in elements {
            let Some(adjacency) = self.adjacencies.get_mut(&link) else {
                return Ok(());
            };
            if adjacency.incarnation.is_none() && !matches!(element, Element::Hello { .. }) {
                return Err("control before HELLO");
            }
            match element {
                Element::Hello { .. } if adjacency.incarnation.is_some() => {
                    return Err("second HELLO");
                }
                Element::Hello { incarnation, salt } => {
                    adjacency.incarnation = Some(incarnation);
                    adjacency.heard = Some(Digests::new(salt, adjacency.origin()));
                }
                Element::Interest(interest) => self.handle_interest(link, interest),
                Element::Refusal {
                    reason,
                    root,
                    prefix,
                } => self.handle_refusal(link, root, prefix, reason),
                Element::Summary(summary) => {
                    let result = self.database.handle_summary(link, &summary, self.now);
                    self.count(result);
                }
                Element::Record(record) => {
                    let Record { kind, bytes } = record;
                    let result = self.database.handle_record(link, kind, &bytes, self.now);
                    self.count(result);
                }
                Element::Routed(routed) => {
                    let result = self.handle_routed(link, routed);
                    self.count(result);
                }
                Element::Audit(audit) => self.handle_audit(link, &audit),
                Element::Keep(keep) => self.topology.set_peer_wants(link, keep, self.now),
            }
        }
        Ok(())
    }

    fn handle_interest(&mut self, link: LinkId, interest: Interest) {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        let limits = &self.config.limits;
        let Interest {
            root,
            prefix,
            wanted,
            sending,
        } = interest;
        let want = Want::from(wanted);
        let Some(heard) = &mut adjacency.heard else {
            return;
        };
        let booked = if let Some(group) = prefix.as_group() {
            let before = self.trees.heard(link, root, group);
            let booked = adjacency.account.book(&before, &want, sending, limits);
            heard.toggle(root, prefix, &before.was.0, before.was.1);
            let (want, sending) = match booked {
                Ok(()) => (want, sending),
                Err(_) => (Want::Nothing, false),
            };
            heard.toggle(root, prefix, &want, sending);
            self.trees.hear(link, root, group, want, sending);
            booked
        } else {
            let before = self.trees.has_heard_prefix(link, root, prefix);
            let booked = adjacency.account.book_prefix(before, sending, limits);
            let sending = sending && booked.is_ok();
            heard.toggle(root, prefix, &Want::Nothing, before);
            heard.toggle(root, prefix, &Want::Nothing, sending);
            self.trees.hear_prefix(link, root, prefix, sending);
            if want.is_something() {
                Err(RefusalReason::WantedPrefix)
            } else {
                booked
            }
        };
        if let Err(reason) = booked {
            self.drops.count(DropReason::InterestRefused);
            adjacency.refusals.refuse((root, prefix), reason);
        }
    }

    fn handle_refusal(
        &mut self,
        link: LinkId,
        root: OriginId,
        prefix: Prefix,
        reason: RefusalReason,
    ) {
        let Some((want, sending)) = self.trees.told_prefix(link, root, prefix) else {
            return;
        };
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            let (random, now) = (&mut self.random, self.now);
            let key = (root, prefix);
            if adjacency.refusals.handle_refusal(key, reason, random, now) {
                adjacency.told.toggle(root, prefix, &want, sending);
            }
        }
    }

    fn handle_routed(&mut self, link: LinkId, routed: Routed) -> Result<(), DropReason> {
        let adjacency = self.adjacencies.get_mut(&link);
        if !adjacency.is_some_and(|a| a.routed.take(self.now)) {
            return Err(DropReason::RoutedLimited);
        }
        if routed.hop_limit == 0 {
            return Err(DropReason::HopLimit);
        }
        self.route(routed)
    }

    fn route(&mut self, routed: Routed) -> Result<(), DropReason> {
        if routed.destination != self.own {
            if routed.hop_limit <= 1 {
                return Err(DropReason::HopLimit);
            }
            let next = self.path(routed.destination).and_then(|p| p.next);
            let next = next.ok_or(DropReason::NoRoute)?;
            let hop_limit = routed.hop_limit - 1;
            let routed = Routed {
                hop_limit,
                ..routed
            };
            self.routed.push((next, routed));
            return Ok(());
        }
        if routed.kind == RoutedKind::Echo {
            return self.route(Routed {
                destination: routed.source,
                source: self.own,
                hop_limit: HOP_LIMIT,
                kind: RoutedKind::EchoReply,
                payload: routed.payload,
            });
        }
        self.outputs.push_back(Output::Routed {
            from: routed.source,
            kind: routed.kind,
            payload: routed.payload,
        });
        Ok(())
    }

    fn handle_audit(&mut self, link: LinkId, audit: &Audit) {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        match audit {
            Audit::Digest(digest) => {
                let Some(heard) = adjacency.heard.as_ref().filter(|h| h.total() != *digest) else {
                    return;
                };
                self.drops.count(DropReason::AuditDiffers);
                let buckets = Audit::BucketDigests(Box::new(*heard.buckets()));
                adjacency.say.push(Element::Audit(buckets));
            }
            Audit::BucketDigests(buckets) => {
                let soon = |at: Instant| self.now < at + REPAIR_GAP;
                let bits = adjacency.told.differing(buckets);
                if adjacency.repaired.is_some_and(soon) || bits.iter().all(|word| *word == 0) {
                    return;
                }
                adjacency.repaired = Some(self.now);
                adjacency.say.push(Element::Audit(Audit::Reset(bits)));
                let lies_in =
                    |root, prefix| audit::is_in(&bits, adjacency.told.bucket(root, prefix));
                for (root, prefix, want, sending) in self.trees.told_in(link, &lies_in) {
                    if adjacency.refusals.is_refused((root, prefix)) {
                        continue;
                    }
                    adjacency.say.push(Element::Interest(Interest {
                        root,
                        prefix,
                        wanted: want.filter(),
                        sending,
                    }));
                }
            }
            Audit::Reset(bits) => {
                let Some(heard) = &adjacency.heard else {
                    return;
                };
                let lies_in = |root, prefix| audit::is_in(bits, heard.bucket(root, prefix));
                let void = self.trees.heard_in(link, &lies_in);
                for (root, prefix) in void {
                    self.handle_interest(
                        link,
                        Interest {
                            root,
                            prefix,
                            wanted: None,
                            sending: false,
                        },
                    );
                }
            }
        }
    }

    pub(crate) fn count_local(&mut self, len: usize) {
        self.counters.tun_tx_packets += 1;
        self.counters.tun_tx_bytes += len as u64;
    }

    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    pub(crate) fn handle_database_events(&mut self) {
        for event in self.database.take_events() {
            match event {
                DatabaseEvent::Incarnation(origin, incarnation) if origin == self.own => {
                    self.config.incarnation = incarnation;
                    self.outputs.push_back(Output::Incarnation(incarnation));
                }
                DatabaseEvent::Incarnation(origin, incarnation) => {
                    self.duplicates.confirm(origin, incarnation);
                    self.late.clear();
                }
                DatabaseEvent::RouterUp(origin) => self.announce_reachable(origin, true),
                DatabaseEvent::RouterDown(origin) => self.announce_reachable(origin, false),
                DatabaseEvent::Revoked(key, record) => {
                    self.outputs.push_back(Output::Revoked { key, record });
                }
                DatabaseEvent::CredentialChanged(origin) => {
                    if let Some(router) = self.database.router(origin) {
                        let credential = Arc::new(router.credential().clone());
                        self.outputs.push_back(Output::Renewed { credential });
                    }
                }
                DatabaseEvent::Dropped(reason) => self.drops.count(reason),
                DatabaseEvent::Forged(link) => {
                    self.fault(link, "passes on what was not signed");
                    self.find_neighbors();
                }
                DatabaseEvent::RootsChanged => {}
            }
        }
    }

    fn announce_reachable(&mut self, origin: OriginId, up: bool) {
        if origin == self.own {
            return;
        }
        self.gone.retain(|(_, gone)| *gone != origin);
        if !up {
            self.gone.insert((self.now + WINDOW_MEMORY, origin));
        }
        self.outputs.push_back(Output::Reachable { origin, up });
    }
}

/// What this router says of itself.
fn flags(config: &Config) -> u8 {
    let core = if config.member.core { FLAG_CORE } else { 0 };
    let unicast = if config.unicast { FLAG_UNICAST } else { 0 };
    let issuer = if config.can_issue { FLAG_ISSUER } else { 0 };
    core | unicast | issuer
}

/// Whether the origin's certificate lets it send this: addresses and groups.
fn permit(database: &Database, origin: OriginId, flow: Flow) -> Result<(), DropReason> {
    let router = database.router(origin).ok_or(DropReason::ForgedSource)?;
    let member = &router.credential().member;
    if !NodeSources::of_node(&member.addresses).allows(flow.source, flow.group) {
        return Err(DropReason::ForgedSource);
    }
    if member.prefixes.iter().any(|p| p.contains(flow.group)) {
        Ok(())
    } else {
        Err(DropReason::NotPermitted)
    }
}
