//! One local interface: an interface with listeners and senders.
//!
//! ```text
//!   reports of listeners ──> Querier ──> joins of the interface ──> trees
//!   packets, reports    <── Proxy   <── remote joins            <── trees, other interfaces
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::cert::{GroupPrefix, SourcePrefix};
use librecast::mld::{self, Message, Query, Record, RecordType};
use librecast::time::{Duration, Instant};
use librecast::{igmp, mapped};

use crate::classify::{CarriedScopes, is_ipv4, is_link_scope, is_source_specific};
use crate::config::{Limits, NodeSources, ROUTER_ADDRESS};
use crate::drops::DropReason;
use crate::interface_id::{LC0, LocalInterfaceId};
use crate::ipv4_network::Ipv4Network;
use crate::outbox::Outbox;
use crate::proxy::Proxy;
use crate::querier::{Querier, Room, Timing, UNTRACKED};
use crate::segment_id::SegmentId;
use crate::source_filter::{SourceFilter, merge};
use crate::timers::Timer;
use crate::traffic::Traffic;

/// Least time between general queries after reports without a source address. Chosen.
const UNSPECIFIED_SOURCE_GAP: Duration = Duration::from_secs(5);

/// Shortest response time in queries on a LAN. Hosts of version 2 take a code of 0 for a query of
/// version 1, and send no Leave any more (RFC 2236 §4).
const SHORTEST_RESPONSE: Duration = Duration::from_millis(100);

/// Time for which a querier of version 1 or 2 counts as present (RFC 9776 §8.12, with default
/// values: its query has none).
const OLD_QUERIER_PRESENT: Duration = Duration::from_secs(260);

/// The author of a message about joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporter {
    /// A host, or a program on `lc0`.
    Host,
    /// A gateway, for joins of the network.
    Gateway,
    /// The kernel of this host, of its own programs on a LAN.
    Programs,
}

/// Sources of packets that enter the network by an interface.
#[derive(Debug, Clone)]
pub enum Senders {
    /// This node's programs.
    Node(NodeSources),
    /// Hosts of a LAN.
    Lan {
        /// Prefixes of their addresses; without prefixes, none of them may send IPv6.
        prefixes: Vec<SourcePrefix>,
        /// The name of the IPv4 address under which all of them send; none: they send no IPv4.
        ipv4: Option<Ipv6Addr>,
    },
}

impl Senders {
    /// The part of a filter that concerns these senders; `None`: nothing.
    fn restrict(&self, filter: &SourceFilter, group: Ipv6Addr) -> Option<SourceFilter> {
        match self {
            Self::Node(sources) => filter.restricted_to(&sources.present(group)),
            // other nodes do not know which of the hosts sends
            Self::Lan { ipv4, .. } if mapped::is_group_name(group) => ipv4
                .filter(|own| filter.allows(*own))
                .map(|_| SourceFilter::all()),
            // the gateway speaks for any host that sends
            Self::Lan { .. } if is_link_scope(group) => Some(filter.clone()),
            Self::Lan { prefixes, .. } if prefixes.is_empty() => None,
            Self::Lan { prefixes, .. } => filter.retain(|s| prefixes.iter().any(|p| p.contains(s))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv4Link {
    /// lc0, with hosts of this network.
    Host(Ipv4Network),
    /// A LAN, on which the gateway has this address.
    Lan(Ipv4Addr),
}

impl Ipv4Link {
    /// The source of queries and reports.
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Host(network) => network.router(),
            Self::Lan(address) => address,
        }
    }
}

#[derive(Debug, Clone)]
pub struct InterfaceSettings {
    pub querier_address: Ipv6Addr,
    pub reporter_address: Ipv6Addr,
    pub timing: Timing,
    /// MTU in bytes: reports and queries are built to fit.
    pub mtu: u16,
    /// Groups that are carried on it.
    pub groups: Vec<GroupPrefix>,
    /// Sources of packets that enter the network by it.
    pub senders: Senders,
    /// Its listeners count.
    pub receives: bool,
    /// Groups that listeners may join.
    pub max_groups: usize,
    /// Listeners of a group that are tracked individually.
    pub max_reporters: usize,
    /// Groups that are reported.
    pub max_reported: usize,
    /// IPv4 groups are served as well.
    pub ipv4: Option<Ipv4Link>,
}

impl InterfaceSettings {
    pub fn of_host(
        limits: &Limits,
        mtu: u16,
        senders: NodeSources,
        ipv4: Option<Ipv4Network>,
    ) -> Self {
        Self {
            querier_address: ROUTER_ADDRESS,
            reporter_address: ROUTER_ADDRESS,
            timing: Timing::HOST,
            mtu,
            groups: vec![GroupPrefix::ALL],
            senders: Senders::Node(senders),
            receives: true,
            max_groups: limits.groups,
            max_reporters: limits.reporters,
            max_reported: usize::MAX,
            ipv4: ipv4.map(Ipv4Link::Host),
        }
    }

    fn carries(&self, group: Ipv6Addr) -> bool {
        if mapped::is_group_name(group) {
            return match self.ipv4 {
                None => false,
                Some(Ipv4Link::Host(_)) => true,
                // groups of the link itself stay on it
                Some(Ipv4Link::Lan(_)) if is_link_scope(group) => false,
                Some(Ipv4Link::Lan(_)) => covers_ipv4(&self.groups, group),
            };
        }
        self.groups.iter().any(|prefix| prefix.contains(group))
    }
}

/// Whether an IPv4 prefix contains the group of this name; IPv6 prefixes do not count on a LAN.
pub fn covers_ipv4(prefixes: &[GroupPrefix], name: Ipv6Addr) -> bool {
    let mut prefixes = prefixes.iter();
    prefixes.any(|prefix| prefix.as_ipv4().is_some() && prefix.contains(name))
}

/// Querier and proxy of one interface.
#[derive(Debug)]
pub struct LocalInterface {
    id: LocalInterfaceId,
    settings: InterfaceSettings,
    /// Groups that listeners have joined; on lc0 both IPv6 and IPv4.
    querier: Querier,
    /// IPv4 groups of a LAN, where IPv4 may have another querier than IPv6.
    ipv4_querier: Option<Querier>,
    /// End of the time for which a querier of the LAN without IGMPv3 counts as present.
    old_querier: Option<Instant>,
    /// The joins from the network and other interfaces, as this interface reports them.
    pub proxy: Proxy,
    /// The interface is up and served by this node, so queries and reports may be sent.
    active: bool,
    /// The segment of which the LAN is a part: its hosts' joins count for groups of the segment.
    segment: Option<SegmentId>,
    /// Groups that are carried for all nodes, on a LAN of a segment.
    scopes: CarriedScopes,
    /// The join of a group of the segment.
    any: SourceFilter,
}

impl LocalInterface {
    /// An interface that sends nothing before [`Self::start`].
    pub fn new(id: LocalInterfaceId, settings: InterfaceSettings, seed: u64) -> Self {
        let room = Room {
            groups: settings.max_groups,
            reporters: settings.max_reporters,
        };
        Self {
            id,
            querier: Querier::new(settings.timing, room, seed),
            ipv4_querier: (id != LC0)
                .then(|| Querier::new(settings.timing, room, seed.rotate_left(32))),
            old_querier: None,
            proxy: Proxy::new(settings.max_reported, seed),
            settings,
            active: false,
            segment: None,
            scopes: CarriedScopes::default(),
            any: SourceFilter::all(),
        }
    }

    pub fn set_segment(&mut self, segment: Option<SegmentId>, scopes: &CarriedScopes) {
        (self.segment, self.scopes) = (segment, scopes.clone());
        if segment.is_none() {
            let settings = &self.settings;
            let carried = |group| scopes.carries(group) && settings.carries(group);
            for querier in [Some(&mut self.querier), self.ipv4_querier.as_mut()] {
                querier
                    .into_iter()
                    .for_each(|querier| querier.retain(carried));
            }
        }
    }

    /// The group of the LAN with this name; `None`: of another segment, or for all hosts.
    fn on_link(&self, group: Ipv6Addr) -> Option<Ipv6Addr> {
        match SegmentId::is_group(group) {
            true => self.segment?.group_in(group),
            false => Some(group),
        }
    }

    /// The name of a LAN's group in the segment, if hosts join it there one by one.
    fn in_segment(&self, group: Ipv6Addr) -> Option<Ipv6Addr> {
        let segment = self.segment?;
        let name = segment.group_of(group);
        name.filter(|name| *name != segment.all())
    }

    /// Whether hosts' joins of a group count for senders outside the segment.
    fn is_for_all(&self, group: Ipv6Addr) -> bool {
        self.segment.is_none() || self.scopes.carries(group) && self.settings.carries(group)
    }

    /// The names for which joins of a group count.
    fn names(&self, group: Ipv6Addr) -> impl Iterator<Item = Ipv6Addr> {
        let own = Some(group).filter(|group| self.is_for_all(*group));
        own.into_iter().chain(self.in_segment(group))
    }

    /// The changed groups, each with both of its names.
    pub fn with_both_names<'a>(
        &self,
        changed: &'a BTreeSet<Ipv6Addr>,
    ) -> Cow<'a, BTreeSet<Ipv6Addr>> {
        if self.segment.is_none() {
            return Cow::Borrowed(changed);
        }
        let on_link = changed.iter().filter_map(|group| self.on_link(*group));
        let both = on_link.flat_map(|group| [Some(group), self.in_segment(group)]);
        Cow::Owned(both.flatten().chain(changed.iter().copied()).collect())
    }

    /// The interface is up, for the first time or again: sends a general query and reports.
    pub fn start(&mut self, now: Instant) {
        self.active = true;
        self.querier.start(now);
        if let Some(querier) = self
            .ipv4_querier
            .as_mut()
            .filter(|_| self.settings.ipv4.is_some())
        {
            querier.start(now);
        }
        self.proxy.start();
    }

    /// The interface is down, or another gateway serves it. The querier still follows listeners,
    /// but this node joins nothing for them.
    pub fn stop(&mut self) {
        self.active = false;
        self.queriers_mut().for_each(Querier::stop);
        self.proxy.stop();
    }

    pub fn set_lan_ipv4(&mut self, address: Option<Ipv4Addr>, now: Instant) {
        let link = address.map(Ipv4Link::Lan);
        let Some(querier) = self
            .ipv4_querier
            .as_mut()
            .filter(|_| self.settings.ipv4 != link)
        else {
            return;
        };
        self.settings.ipv4 = link;
        querier.stop();
        match link {
            None => querier.retain(|_| false),
            Some(_) if self.active => querier.start(now),
            Some(_) => {}
        }
    }

    /// Whether it is served by this node.
    pub fn is_active(&self) -> bool {
        self.active
    }

    pub fn set_senders(&mut self, senders: Senders) {
        self.settings.senders = senders;
    }

    /// The filter of all listeners for a group, if this node joins it for them.
    pub fn filter(&self, group: Ipv6Addr) -> Option<&SourceFilter> {
        if SegmentId::is_group(group) {
            return self.joins_in_segment(group).then_some(&self.any);
        }
        let joins = self.active && self.settings.receives && self.is_for_all(group);
        self.querier(group).filter(group).filter(|_| joins)
    }

    /// Whether hosts join a group of a segment; all of them join that of broadcast.
    fn joins_in_segment(&self, group: Ipv6Addr) -> bool {
        let is_joined = |segment: SegmentId| {
            let of_host = segment.group_in(group);
            group == segment.all()
                || of_host.is_some_and(|group| self.querier(group).filter(group).is_some())
        };
        self.active && self.segment.is_some_and(is_joined)
    }

    fn querier(&self, group: Ipv6Addr) -> &Querier {
        match &self.ipv4_querier {
            Some(querier) if mapped::is_group_name(group) => querier,
            _ => &self.querier,
        }
    }

    fn querier_mut(&mut self, group: Ipv6Addr) -> &mut Querier {
        match &mut self.ipv4_querier {
            Some(querier) if mapped::is_group_name(group) => querier,
            _ => &mut self.querier,
        }
    }

    fn queriers(&self) -> impl Iterator<Item = &Querier> {
        [&self.querier].into_iter().chain(&self.ipv4_querier)
    }

    fn queriers_mut(&mut self) -> impl Iterator<Item = &mut Querier> {
        let (ipv6, ipv4) = (&mut self.querier, &mut self.ipv4_querier);
        [ipv6].into_iter().chain(ipv4)
    }

    pub fn groups(&self) -> Vec<Ipv6Addr> {
        let joined = self.queriers().flat_map(Querier::groups);
        let names = joined.flat_map(|group| self.names(group));
        names.chain(self.segment.map(SegmentId::all)).collect()
    }

    /// Groups that listeners have joined, by their names on the interface.
    pub fn joined(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.queriers().flat_map(Querier::groups)
    }

    /// Number of known listeners of a group.
    pub fn reporters(&self, group: Ipv6Addr) -> usize {
        self.on_link(group)
            .map_or(0, |group| self.querier(group).reporters(group))
    }

    pub fn traffic(&self, group: Ipv6Addr) -> Option<&Traffic> {
        self.querier(group).traffic(group)
    }

    /// Other hosts of a LAN that are querier instead of this node: for IPv6, and for IPv4.
    pub fn other_queriers(&self) -> (Option<Ipv6Addr>, Option<Ipv4Addr>) {
        let ipv4 = self.ipv4_querier.as_ref().and_then(Querier::other_querier);
        (self.querier.other_querier(), ipv4.and_then(mapped::ipv4))
    }

    pub fn has_ipv4(&self) -> bool {
        self.settings.ipv4.is_some()
    }

    /// Sends general queries, as joins may have been missed: at most one of each kind in `gap`.
    pub fn query_again(&mut self, gap: Duration, now: Instant) {
        for querier in self.queriers_mut() {
            querier.query_again(gap, now);
        }
    }

    /// Forgets groups that are no longer carried.
    pub fn retain(&mut self, scopes: &CarriedScopes) {
        let segment = self.segment;
        let carried = |group| {
            let of_segment = segment.and_then(|segment| segment.group_of(group));
            scopes.contains(group) || of_segment.is_some()
        };
        for querier in self.queriers_mut() {
            querier.retain(carried);
        }
        self.scopes = scopes.clone();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        for querier in self.queriers_mut() {
            querier.handle_timeout(now);
        }
    }

    /// Groups for which listeners' joins have changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Ipv6Addr> {
        let changes = self
            .queriers_mut()
            .flat_map(|querier| querier.take_changes());
        let changes: Vec<_> = changes.map(|(group, _)| group).collect();
        changes
            .into_iter()
            .flat_map(|group| self.names(group))
            .collect()
    }

    /// Groups with listeners, groups that are reported, and pending work.
    pub fn sizes(&self) -> [usize; 3] {
        let groups = self.queriers().map(Querier::len).sum();
        let pending: usize = self.queriers().map(Querier::pending).sum();
        [groups, self.proxy.len(), pending + self.proxy.pending()]
    }

    /// Whether listeners join packets of this source.
    pub fn has_listeners(&mut self, group: Ipv6Addr, source: Ipv6Addr) -> bool {
        if SegmentId::is_group(group) {
            return self.joins_in_segment(group);
        }
        self.active
            && self.settings.receives
            && self.is_for_all(group)
            && self
                .querier_mut(group)
                .joined_traffic(group, source)
                .is_some()
    }

    /// Whether listeners join packets of this source; if so, counts the packet.
    pub fn count(&mut self, group: Ipv6Addr, source: Ipv6Addr, len: usize, now: Instant) -> bool {
        if SegmentId::is_group(group) {
            return self.joins_in_segment(group);
        }
        if !self.active || !self.settings.receives || !self.is_for_all(group) {
            return false;
        }
        let traffic = self.querier_mut(group).joined_traffic(group, source);
        traffic
            .map(|traffic| traffic.count(source, len, now))
            .is_some()
    }

    /// Handles an MLD or IGMP message. `is_gateway`: reports from this address are a gateway's,
    /// which joins nothing for itself.
    pub fn handle_mld(
        &mut self,
        packet: &[u8],
        scopes: &CarriedScopes,
        by: impl Fn(Ipv6Addr) -> Reporter,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        if is_ipv4(packet) {
            return self.handle_igmp(packet, scopes, by, outbox, now);
        }
        let (source, message) = mld::parse_packet(packet).map_err(|_| DropReason::BadMld)?;
        if source.is_unspecified() {
            // RFC 9777 §5.2.13: ignored; a query asks the listener again
            self.querier.query_again(UNSPECIFIED_SOURCE_GAP, now);
            return Err(DropReason::MldUnspecifiedSource);
        }
        let own = [
            self.settings.querier_address,
            self.settings.reporter_address,
        ];
        let by = by(source);
        let is_query = matches!(message, Message::Query(_));
        if own.contains(&source) && (by != Reporter::Programs || is_query) {
            // our own, back from a bridge
            return Err(DropReason::BadMld);
        }
        if let Message::Query(query) = message {
            let querier_address = self.settings.querier_address;
            if self.id != LC0 {
                self.querier
                    .handle_query(source, querier_address, &query, now);
            }
            self.proxy.handle_query(&query, now);
            return Ok(());
        }
        if by == Reporter::Gateway {
            return Ok(());
        }
        if message.groups().any(mapped::is_group_name) {
            return Err(DropReason::ReservedGroup);
        }
        self.handle_report(source, message, scopes, outbox, now)
    }

    fn handle_igmp(
        &mut self,
        packet: &[u8],
        scopes: &CarriedScopes,
        by: impl Fn(Ipv6Addr) -> Reporter,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let link = self.settings.ipv4.ok_or(DropReason::BadMld)?;
        let (source, message) = igmp::parse_packet(packet).map_err(|_| DropReason::BadMld)?;
        let own = mapped::name(link.address());
        let by = by(source);
        let is_query = matches!(message, Message::Query(_));
        if source == own && (by != Reporter::Programs || is_query) {
            // our own, back from a bridge
            return Err(DropReason::BadMld);
        }
        if let Message::Query(query) = message {
            self.handle_igmp_query(source, own, &query, now);
            return Ok(());
        }
        if by == Reporter::Gateway {
            return Ok(());
        }
        let unspecified = mapped::name(Ipv4Addr::UNSPECIFIED);
        let reporter = match (link, mapped::ipv4(source)) {
            // a kernel has no address at first, and may get another: it stays one reporter
            (Ipv4Link::Host(network), Some(address)) if network.contains(address) => unspecified,
            (Ipv4Link::Host(_), _) => source,
            // any number of hosts
            (Ipv4Link::Lan(_), _) if source == unspecified => UNTRACKED,
            (Ipv4Link::Lan(_), _) => source,
        };
        self.handle_report(reporter, message, scopes, outbox, now)
    }

    /// Handles a query of another host, or of a switch: its source is 0.0.0.0, and it takes part in
    /// no election (RFC 4541 §2.1.1).
    fn handle_igmp_query(&mut self, from: Ipv6Addr, own: Ipv6Addr, query: &Query, now: Instant) {
        let elects = from != mapped::name(Ipv4Addr::UNSPECIFIED);
        if let Some(querier) = self.ipv4_querier.as_mut().filter(|_| elects) {
            querier.handle_query(from, own, query, now);
        }
        if query.version_1 {
            self.old_querier = Some(now + OLD_QUERIER_PRESENT);
        }
        self.proxy.handle_query(query, now);
    }

    fn handle_report(
        &mut self,
        source: Ipv6Addr,
        message: Message,
        scopes: &CarriedScopes,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let (settings, segment) = (&self.settings, self.segment);
        let carried = |group| {
            let of_segment = segment.and_then(|segment| segment.group_of(group));
            scopes.contains(group) && settings.carries(group)
                || of_segment.is_some_and(|name| Some(name) != segment.map(SegmentId::all))
        };
        // version 1 has no sources, so it counts for no source-specific group (RFC 4604 §2.2.2)
        let understands_v1 = |group| carried(group) && !is_source_specific(group);
        match message {
            Message::Report(records) => {
                let carried: Vec<_> = records.iter().filter(|r| carried(r.group)).collect();
                for record in carried {
                    let querier = self.querier_mut(record.group);
                    outbox.count(querier.handle_record(source, record, now));
                }
            }
            Message::ReportV1 { group } if understands_v1(group) => {
                self.querier_mut(group)
                    .handle_v1_report(source, group, now)?;
            }
            Message::DoneV1 { group } if understands_v1(group) => {
                self.querier_mut(group).handle_v1_done(source, group, now);
            }
            Message::Query(_) | Message::ReportV1 { .. } | Message::DoneV1 { .. } => {}
        }
        Ok(())
    }

    /// Sends queries and reports that are due. `joins` has the remote joins of a changed group; the
    /// interface reports the part that concerns its senders.
    pub fn flush(
        &mut self,
        scopes: &CarriedScopes,
        changed: &BTreeSet<Ipv6Addr>,
        joins: impl Fn(Ipv6Addr) -> Option<SourceFilter>,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        if self.active {
            self.flush_queries(scopes, outbox, now);
        }
        let changed: BTreeSet<_> = changed.iter().filter_map(|g| self.on_link(*g)).collect();
        for group in changed {
            let carried = scopes.contains(group) && self.settings.carries(group);
            let joined = joins(group).filter(|_| carried && self.is_for_all(group));
            let seen = joined.and_then(|filter| self.settings.senders.restrict(&filter, group));
            let of_segment = self.in_segment(group).and_then(&joins);
            let of_segment = of_segment.map(|_| SourceFilter::all());
            let seen = merge(seen.iter().chain(&of_segment));
            outbox.count(self.proxy.set(group, seen, now));
        }
        self.proxy.handle_timeout(now);
        let records = self.proxy.take_records();
        let from = self.settings.reporter_address;
        let (ipv4, ipv6): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|record| mapped::is_group_name(record.group));
        let mtu = self.settings.mtu.into();
        for packet in mld::report_packets(from, &ipv6, mtu) {
            outbox.deliver_mld(self.id, packet.into());
        }
        if let Some(link) = self.settings.ipv4 {
            let is_old = self.old_querier.is_some_and(|until| now < until);
            let packets = match is_old {
                true => igmp::version_2_packets(link.address(), &ipv4),
                false => igmp::report_packets(link.address(), &ipv4, mtu),
            };
            for packet in packets {
                outbox.deliver_mld(self.id, packet.into());
            }
        }
    }

    fn flush_queries(&mut self, scopes: &CarriedScopes, outbox: &mut Outbox, now: Instant) {
        for query in self.querier.take_queries() {
            // the proxy is a listener like any other
            self.proxy.handle_query(&query, now);
            for packet in self.query_packets(&query) {
                outbox.deliver_mld(self.id, packet.into());
            }
            if self.id != LC0 || query.group.is_some() {
                continue;
            }
            // all hosts listen to all nodes, and none reports it (RFC 9777 §6, RFC 9776 §6)
            let all = [mld::ALL_NODES, mapped::name(igmp::ALL_SYSTEMS)];
            for group in all.into_iter().filter(|group| scopes.contains(*group)) {
                if !self.settings.carries(group) {
                    continue;
                }
                let record = Record::new(RecordType::ModeIsExclude, group, Vec::new());
                let result = self.querier.handle_record(ROUTER_ADDRESS, &record, now);
                outbox.count(result);
            }
        }
        let of_lan = self.ipv4_querier.as_mut().map(Querier::take_queries);
        for mut query in of_lan.unwrap_or_default() {
            self.proxy.handle_query(&query, now);
            query.max_response = query.max_response.max(SHORTEST_RESPONSE);
            let link = self.settings.ipv4;
            let packet = link.and_then(|link| igmp::query_packet(link.address(), &query));
            if let Some(packet) = packet {
                outbox.deliver_mld(self.id, packet.into());
            }
        }
    }

    /// The packets of a query; on lc0 a general query asks for IPv6 and IPv4 groups.
    fn query_packets(&self, query: &Query) -> Vec<Vec<u8>> {
        let is_ipv4 = query.group.map(mapped::is_group_name);
        let ipv6 = (is_ipv4 != Some(true))
            .then(|| mld::query_packet(self.settings.querier_address, query));
        let both = self.ipv4_querier.is_none() && is_ipv4 != Some(false);
        let link = self.settings.ipv4.filter(|_| both);
        let ipv4 = link.and_then(|link| igmp::query_packet(link.address(), query));
        ipv6.into_iter().chain(ipv4).collect()
    }

    /// The first timer of querier and proxy.
    pub fn next_timeout(&self) -> Timer {
        let queriers = self.queriers().filter_map(Querier::next_timeout);
        queriers.chain(self.proxy.next_timeout()).min()
    }
}
