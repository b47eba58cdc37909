//! One local interface: an interface with listeners and senders.
//!
//! ```text
//!   reports of listeners ──> Querier ──> joins of the interface ──> trees
//!   packets, reports    <── Proxy   <── what others join        <── trees, other interfaces
//! ```

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
use crate::querier::{Querier, Timing};
use crate::source_filter::SourceFilter;
use crate::timers::Timer;

/// A report without a source address: general queries that follow are at least this far apart. Chosen.
const UNSPECIFIED_SOURCE_GAP: Duration = Duration::from_secs(5);

/// Whose packets enter the network by an interface.
#[derive(Debug, Clone)]
pub enum Senders {
    /// This node's programs.
    Node(NodeSources),
    /// Hosts of a LAN, by their addresses; none of them may send where there are no prefixes.
    Lan(Vec<SourcePrefix>),
}

impl Senders {
    /// What of a filter concerns them; `None`: nothing.
    fn restrict(&self, filter: &SourceFilter, group: Ipv6Addr) -> Option<SourceFilter> {
        match self {
            Self::Node(sources) => filter.restricted_to(&sources.present(group)),
            // whoever sends it, the gateway speaks for the host
            Self::Lan(_) if is_link_scope(group) => Some(filter.clone()),
            Self::Lan(prefixes) if prefixes.is_empty() => None,
            Self::Lan(prefixes) => filter.retain(|s| prefixes.iter().any(|p| p.contains(s))),
        }
    }
}

/// How an interface is served.
#[derive(Debug, Clone)]
pub struct InterfaceSettings {
    /// The source of queries.
    pub querier_address: Ipv6Addr,
    /// The source of reports.
    pub reporter_address: Ipv6Addr,
    /// How often the querier asks.
    pub timing: Timing,
    /// In bytes: reports and queries are built to fit.
    pub mtu: u16,
    /// Groups that are carried there.
    pub groups: Vec<GroupPrefix>,
    /// Whose packets enter the network there.
    pub senders: Senders,
    /// Listeners there count.
    pub receives: bool,
    /// Groups that listeners may join.
    pub max_groups: usize,
    /// Listeners of a group that are tracked one by one.
    pub max_reporters: usize,
    /// Groups that are reported.
    pub max_reported: usize,
    /// IPv4 groups are served as well, for hosts of this network.
    pub ipv4: Option<Ipv4Network>,
}

impl InterfaceSettings {
    /// Those of lc0.
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
            ipv4,
        }
    }

    fn carries(&self, group: Ipv6Addr) -> bool {
        if mapped::is_group_name(group) {
            return self.ipv4.is_some();
        }
        self.groups.iter().any(|prefix| prefix.contains(group))
    }
}

/// Querier and proxy of one interface.
#[derive(Debug)]
pub struct LocalInterface {
    id: LocalInterfaceId,
    settings: InterfaceSettings,
    /// Which groups listeners have joined.
    pub querier: Querier,
    /// What others join, as the interface sees it.
    pub proxy: Proxy,
    /// The interface is up and served by this node, so queries and reports may be sent.
    active: bool,
}

impl LocalInterface {
    /// An interface that is silent before [`Self::start`].
    pub fn new(id: LocalInterfaceId, settings: InterfaceSettings, seed: u64) -> Self {
        let limits = (settings.max_groups, settings.max_reporters);
        Self {
            id,
            querier: Querier::new(settings.timing, limits, seed),
            proxy: Proxy::new(settings.max_reported, seed),
            settings,
            active: false,
        }
    }

    /// The interface is up, for the first time or again: a general query asks what is joined, and the joins of others
    /// are reported.
    pub fn start(&mut self, now: Instant) {
        self.active = true;
        self.querier.start(now);
        self.proxy.start();
    }

    /// The interface is down, or another gateway serves it. Listeners are followed, and nothing is joined for them.
    pub fn stop(&mut self) {
        self.active = false;
        self.querier.stop();
        self.proxy.stop();
    }

    /// Whether it is served.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Whose packets enter the network here from now on.
    pub fn set_senders(&mut self, senders: Senders) {
        self.settings.senders = senders;
    }

    /// What listeners join of a group, as far as this node joins it for them.
    pub fn filter(&self, group: Ipv6Addr) -> Option<&SourceFilter> {
        let joins = self.active && self.settings.receives;
        self.querier.filter(group).filter(|_| joins)
    }

    /// Whether listeners join packets of this source.
    pub fn has_listeners(&mut self, group: Ipv6Addr, source: Ipv6Addr) -> bool {
        self.active
            && self.settings.receives
            && self.querier.joined_traffic(group, source).is_some()
    }

    /// Whether listeners join packets of this source, which are counted then.
    pub fn count(&mut self, group: Ipv6Addr, source: Ipv6Addr, len: usize, now: Instant) -> bool {
        if !self.active || !self.settings.receives {
            return false;
        }
        let traffic = self.querier.joined_traffic(group, source);
        traffic
            .map(|traffic| traffic.count(source, len, now))
            .is_some()
    }

    /// An MLD message of a listener, or a query. `is_gateway`: reports from this address are a gateway's, which joins nothing
    /// for itself.
    pub fn handle_mld(
        &mut self,
        packet: &[u8],
        scopes: &CarriedScopes,
        is_gateway: impl Fn(Ipv6Addr) -> bool,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        if is_ipv4(packet) {
            return self.handle_igmp(packet, scopes, outbox, now);
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
        if own.contains(&source) {
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
        if is_gateway(source) {
            return Ok(());
        }
        if message.groups().any(mapped::is_group_name) {
            return Err(DropReason::ReservedGroup);
        }
        self.handle_report(source, message, scopes, outbox, now)
    }

    /// The same of IGMP.
    fn handle_igmp(
        &mut self,
        packet: &[u8],
        scopes: &CarriedScopes,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let network = self.settings.ipv4.ok_or(DropReason::BadMld)?;
        let (source, message) = igmp::parse_packet(packet).map_err(|_| DropReason::BadMld)?;
        if source == mapped::name(network.router()) {
            // our own, back from a bridge
            return Err(DropReason::BadMld);
        }
        if let Message::Query(query) = message {
            self.proxy.handle_query(&query, now);
            return Ok(());
        }
        // a kernel has no address at first, and may get another: it stays one reporter
        let is_of_host = |address: Ipv4Addr| address.is_unspecified() || network.contains(address);
        let reporter = match mapped::ipv4(source) {
            Some(address) if is_of_host(address) => mapped::name(Ipv4Addr::UNSPECIFIED),
            _ => source,
        };
        self.handle_report(reporter, message, scopes, outbox, now)
    }

    /// Joins of a listener, or their end.
    fn handle_report(
        &mut self,
        source: Ipv6Addr,
        message: Message,
        scopes: &CarriedScopes,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let settings = &self.settings;
        let carried = |group| scopes.contains(group) && settings.carries(group);
        // version 1 knows no sources, so it counts for no source-specific group (RFC 4604 §2.2.2)
        let understands_v1 = |group| carried(group) && !is_source_specific(group);
        match message {
            Message::Report(records) => {
                for record in records.iter().filter(|r| carried(r.group)) {
                    outbox.count(self.querier.handle_record(source, record, now));
                }
            }
            Message::ReportV1 { group } if understands_v1(group) => {
                self.querier.handle_v1_report(source, group, now)?;
            }
            Message::DoneV1 { group } if understands_v1(group) => {
                self.querier.handle_v1_done(source, group, now);
            }
            Message::Query(_) | Message::ReportV1 { .. } | Message::DoneV1 { .. } => {}
        }
        Ok(())
    }

    /// Queries and reports that are due leave. With the groups whose joins have changed goes what others join of them; of that
    /// the interface sees what concerns its senders.
    pub fn flush(
        &mut self,
        scopes: &CarriedScopes,
        (changed, joins): (
            &BTreeSet<Ipv6Addr>,
            impl Fn(Ipv6Addr) -> Option<SourceFilter>,
        ),
        outbox: &mut Outbox,
        now: Instant,
    ) {
        if self.active {
            self.flush_queries(scopes, outbox, now);
        }
        for group in changed {
            let carried = scopes.contains(*group) && self.settings.carries(*group);
            let joined = joins(*group).filter(|_| carried);
            let seen = joined.and_then(|filter| self.settings.senders.restrict(&filter, *group));
            outbox.count(self.proxy.set(*group, seen, now));
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
        if let Some(network) = self.settings.ipv4 {
            for packet in igmp::report_packets(network.router(), &ipv4, mtu) {
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
            // every host listens to all nodes, and none reports it (RFC 9777 §6, RFC 9776 §6)
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
    }

    /// A general query asks for groups of both kinds.
    fn query_packets(&self, query: &Query) -> Vec<Vec<u8>> {
        let is_ipv4 = query.group.map(mapped::is_group_name);
        let ipv6 = (is_ipv4 != Some(true))
            .then(|| mld::query_packet(self.settings.querier_address, query));
        let network = self.settings.ipv4.filter(|_| is_ipv4 != Some(false));
        let ipv4 = network.and_then(|network| igmp::query_packet(network.router(), query));
        ipv6.into_iter().chain(ipv4).collect()
    }

    /// The first timer of querier and proxy.
    pub fn next_timeout(&self) -> Timer {
        let timers = [self.querier.next_timeout(), self.proxy.next_timeout()];
        timers.into_iter().flatten().min()
    }
}
