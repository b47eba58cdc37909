//! The engine: inputs to state machines to outputs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use librecast::cert::{GroupPrefix, Member};
use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use crate::adjacency::Adjacency;
use crate::audit::{AUDIT_EVERY, Digests};
use crate::classify::{CarriedScopes, Class, trim};
use crate::config::{Config, Neighbor, NodeSources};
use crate::control::{self, MAX_ROUTED, Routed, RoutedKind};
use crate::drops::{DropReason, Drops};
use crate::graph::Graph;
use crate::header::{DataHeader, HEADER_LEN, HOP_LIMIT};
use crate::hold::FirstPacketBuffer;
use crate::late::Late;
use crate::local::Local;
use crate::lsdb::{
    AddRevocationError, Database, FLAG_CORE, FLAG_ISSUER, FLAG_UNICAST, LocalRouter, OwnChainError,
};
use crate::origins::Origins;
use crate::output::{LinkFault, Output, TimerKind};
use crate::packets::Path;
use crate::proxy::Proxy;
use crate::querier::Querier;
use crate::random::Random;
use crate::services::Services;
use crate::small_map::SmallMap;
use crate::snapshot::Counters;
use crate::table::Table;
use crate::token_bucket::{Rate, TokenBucket};
use crate::topology::{Prospect, Topology};
use crate::trees::Trees;

/// ICMPv6 errors per second, and at once (RFC 4443 §2.4 f).
pub(crate) const ICMP_RATE: Rate = Rate::per_second(100, 50);

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
    pub(crate) held: FirstPacketBuffer,
    pub(crate) late: Late,
    pub(crate) origins: Origins,
    pub(crate) adjacencies: SmallMap<LinkId, Adjacency>,
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
    /// The first of the timers that only a flush moves, as of the last one.
    flushed_timer: Option<(Instant, TimerKind)>,
    /// The first of all as of the last flush, unless a packet of a program here has come since: those of neighbours move
    /// none.
    timer: Option<(Instant, TimerKind)>,
    timer_stale: bool,
    /// Links over which there is more to say than interest and link state.
    pub(crate) pending_on: BTreeSet<LinkId>,
    /// The first timers of all links: audits, and interest that was refused.
    pub(crate) next_audit: Option<Instant>,
    next_retry: Option<Instant>,
    /// They have to be looked for again.
    pub(crate) link_timers_stale: bool,
    started: bool,
    pub(crate) sequence: u64,
    pub(crate) icmp: TokenBucket,
    pub(crate) random: Random,
    /// The key of the digests of what we tell over links; only neighbours hear it.
    pub(crate) salt: u64,
}

impl Engine {
    /// A router without links; nothing is written into `lc0` before [`Self::handle_start`].
    #[must_use]
    pub fn new(config: Config, services: Arc<dyn Services>, now: Instant) -> Self {
        let (limits, seed) = (&config.limits, config.seed);
        let own = config.member.addresses.origin;
        let router = LocalRouter {
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
            trees: Trees::new(seed),
            local: Local::new(own, limits.flows, seed),
            topology: Topology::new(own, config.topology, seed, now),
            held: FirstPacketBuffer::new(limits, seed),
            late: Late::new(limits, seed),
            origins: Origins::new(limits.duplicate_window, seed),
            adjacencies: SmallMap::default(),
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
            flushed_timer: None,
            timer: None,
            timer_stale: true,
            pending_on: BTreeSet::new(),
            next_audit: None,
            next_retry: None,
            link_timers_stale: false,
            started: false,
            sequence: 0,
            icmp: TokenBucket::full(now),
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
        let advertised = Digests::new(self.salt, self.own);
        let audit = now + AUDIT_EVERY + self.random.between(Duration::ZERO, AUDIT_EVERY / 4);
        let adjacency = Adjacency::new(neighbor, advertised, audit, now);
        let origin = adjacency.origin();
        self.adjacencies.insert(link, adjacency);
        self.pending_on.insert(link);
        self.link_timers_stale = true;
        self.find_neighbors();
        self.database.link_up(link, origin, now);
        self.topology.link_up(link, origin, now);
    }

    /// A link is gone, and with it all that its neighbour wanted.
    pub fn handle_link_down(&mut self, link: LinkId, now: Instant) {
        self.turn(now);
        self.remove_link(link);
    }

    /// The round trip of a link, without what its queues add.
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
    ///
    /// # Errors
    ///
    /// The chain does not count, or is another node's. The certificates of before stay.
    pub fn set_own_chain(&mut self, chain: Bytes, now: Instant) -> Result<(), OwnChainError> {
        self.turn(now);
        let credential = self.services.verify_chain(&chain)?;
        if credential.member.peer != self.config.member.peer {
            return Err(OwnChainError::OtherNode);
        }
        self.config.member = credential.member.clone();
        self.config.chain = chain.clone();
        self.database.set_own_chain(chain, now)
    }

    /// A signed revocation, of this node's operator or from the disk: it is flooded.
    ///
    /// # Errors
    ///
    /// The revocation does not count, has expired, or there is no room for it.
    pub fn add_revocation(
        &mut self,
        record: &[u8],
        now: Instant,
    ) -> Result<(), AddRevocationError> {
        self.turn(now);
        self.database.add_revocation(record, now)
    }

    /// An IPv6 packet read from `lc0`, without packet information or Ethernet header. What goes out is a
    /// part of it, not a copy.
    pub fn handle_local_packet(&mut self, mut packet: Bytes, now: Instant) {
        self.now = now;
        self.timer_stale = true;
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
    pub fn handle_data(&mut self, link: LinkId, mut message: Bytes, now: Instant) {
        let header = DataHeader::decode(&message).ok().map(|(header, _)| header);
        let len = message.len();
        message.advance(HEADER_LEN.min(len));
        self.take_data(link, len, header, message, now);
    }

    /// The same, where header and packet lie apart as in [`Output::Data`].
    pub fn handle_packet(
        &mut self,
        link: LinkId,
        header: &[u8; HEADER_LEN],
        packet: Bytes,
        now: Instant,
    ) {
        let len = HEADER_LEN + packet.len();
        let header = DataHeader::decode(header).ok().map(|(header, _)| header);
        self.take_data(link, len, header, packet, now);
    }

    fn take_data(
        &mut self,
        link: LinkId,
        len: usize,
        header: Option<DataHeader>,
        packet: Bytes,
        now: Instant,
    ) {
        self.now = now;
        self.counters.link_rx_packets += 1;
        self.counters.link_rx_bytes += len as u64;
        let result = self.receive(link, header, packet);
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
            .map_err(|_| LinkFault::Unreadable)
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
        let routed = Routed {
            destination: to,
            source: self.own,
            hop_limit: HOP_LIMIT,
            kind,
            payload,
        };
        self.originate(routed)
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
        if self.next_retry.is_some_and(|at| at <= now) {
            self.link_timers_stale = true;
            for (link, adjacency) in self.adjacencies.iter_mut() {
                adjacency.refusals.handle_timeout(now);
                self.pending_on.insert(link);
            }
        }
        let idle = self.local.handle_timeout(&mut self.trees, now);
        self.interest_changed.extend(idle);
        self.database.handle_timeout(now);
        let prospects = || Prospect::all(&self.graph, self.own);
        self.topology.handle_timeout(prospects, now);
        while let Some(&(at, origin)) = self.gone.first()
            && at <= now
        {
            self.gone.pop_first();
            self.origins.forget(origin);
        }
        // timers of the proxy and of routing are looked at by the flush that follows
    }

    /// When to call [`Self::handle_timeout`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        if self.timer_stale {
            return self.first_timer();
        }
        debug_assert_eq!(self.timer, self.first_timer());
        self.timer
    }

    fn first_timer(&self) -> Option<(Instant, TimerKind)> {
        // packets of programs here move these
        let timers = [
            self.held.next_timeout(),
            self.local.next_timeout(),
            self.late.next_timeout().map(|at| (at, TimerKind::Replay)),
        ];
        let other = if self.unflushed {
            self.next_flushed_timer()
        } else {
            self.flushed_timer
        };
        timers.into_iter().chain([other]).flatten().min()
    }

    fn next_flushed_timer(&self) -> Option<(Instant, TimerKind)> {
        let named = |at: Option<Instant>, kind| at.map(|at| (at, kind));
        [
            self.querier.next_timeout(),
            self.proxy.next_timeout(),
            named(self.next_retry, TimerKind::JoinRetry),
            named(self.next_audit, TimerKind::Audit),
            named(self.database.next_timeout(), TimerKind::LinkState),
            named(self.topology.poll_timeout(), TimerKind::Topology),
            named(self.routing.next_timeout(), TimerKind::RouteComputation),
            named(self.gone.first().map(|g| g.0), TimerKind::RouterGone),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn find_link_timers(&mut self) {
        let adjacencies = self.adjacencies.values();
        self.next_audit = adjacencies.clone().map(|a| a.next_audit).min();
        self.next_retry = adjacencies.filter_map(|a| a.refusals.next_timeout()).min();
    }

    pub(crate) fn audit_is_due(&self) -> bool {
        self.next_audit.is_some_and(|at| at <= self.now)
    }

    /// The next thing to do. To be called until `None` after a batch of inputs: all changes of one
    /// batch leave in one control message per link.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.unflushed {
            self.unflushed = false;
            self.flush();
            if std::mem::take(&mut self.link_timers_stale) {
                self.find_link_timers();
            }
            self.flushed_timer = self.next_flushed_timer();
            self.timer = self.first_timer();
            self.timer_stale = false;
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

    /// Names the graph of the network as this router sees it: graphs with equal digest are equal.
    #[must_use]
    pub fn graph_digest(&self) -> u64 {
        self.graph.digest()
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
        self.timer_stale = true;
    }

    pub(crate) fn count_local(&mut self, len: usize) {
        self.counters.tun_tx_packets += 1;
        self.counters.tun_tx_bytes += len as u64;
    }

    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    pub(crate) fn count(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    fn remove_link(&mut self, link: LinkId) {
        if self.adjacencies.remove(&link).is_none() {
            return;
        }
        self.pending_on.remove(&link);
        self.link_timers_stale = true;
        self.find_neighbors();
        self.trees.link_down(link);
        self.database.link_down(link, self.now);
        self.topology.link_down(link, self.now);
        self.paths = Table::new(self.config.seed);
    }

    /// Of two links to one neighbour the newer counts.
    pub(crate) fn find_neighbors(&mut self) {
        let links = self.adjacencies.iter().filter(|(_, a)| !a.faulty);
        self.neighbors = links.map(|(link, a)| (a.origin(), link)).collect();
        self.routing.force();
    }

    /// The neighbour broke the protocol: the shell closes the link.
    pub(crate) fn fault(&mut self, link: LinkId, reason: LinkFault) {
        self.drops.count(DropReason::BadControl);
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            adjacency.faulty = true;
            let origin = adjacency.origin();
            // the link goes down with this reason, and that is advertised
            tracing::debug!(%link, %origin, %reason, "link fault");
            self.outputs.push_back(Output::LinkFault { link, reason });
        }
    }
}

/// What this router says of itself.
fn flags(config: &Config) -> u8 {
    let core = if config.member.core { FLAG_CORE } else { 0 };
    let unicast = if config.unicast { FLAG_UNICAST } else { 0 };
    let issuer = if config.can_issue { FLAG_ISSUER } else { 0 };
    core | unicast | issuer
}
