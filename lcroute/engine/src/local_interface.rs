//! One local interface: an interface with listeners and senders.
//!
//! ```text
//!   reports of listeners ──> Querier ──> joins of the interface ──> trees
//!   packets, reports    <── Proxy   <── what neighbours join    <── trees
//! ```

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use librecast::mld::{self, Message, Record, RecordType};
use librecast::time::{Duration, Instant};

use crate::classify::{CarriedScopes, is_source_specific};
use crate::config::{Limits, ROUTER_ADDRESS};
use crate::drops::DropReason;
use crate::outbox::Outbox;
use crate::proxy::Proxy;
use crate::querier::Querier;
use crate::source_filter::SourceFilter;
use crate::timers::Timer;

/// A report without a source address: general queries that follow are at least this far apart. Chosen.
const UNSPECIFIED_SOURCE_GAP: Duration = Duration::from_secs(5);

/// A local interface: its place in outgoing interface lists, 0 to 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalInterfaceId(pub u8);

/// The interface of this host's own programs.
pub const LC0: LocalInterfaceId = LocalInterfaceId(0);

/// The local part of an outgoing interface list: one bit for each interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalInterfaces(u32);

impl LocalInterfaces {
    /// Adds an interface.
    pub fn insert(&mut self, interface: LocalInterfaceId) {
        self.0 |= 1 << interface.0;
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }
}

/// Querier and proxy of one interface.
#[derive(Debug)]
pub struct LocalInterface {
    /// Which groups listeners have joined.
    pub querier: Querier,
    /// What the network joins, as the interface sees it.
    pub proxy: Proxy,
    /// The interface is up, so queries may be sent.
    started: bool,
    /// In bytes.
    mtu: u16,
}

impl LocalInterface {
    /// An interface that is silent before [`Self::start`].
    pub fn new(limits: &Limits, mtu: u16, seed: u64) -> Self {
        Self {
            querier: Querier::new(limits.groups, limits.reporters, seed),
            proxy: Proxy::new(seed),
            started: false,
            mtu,
        }
    }

    /// The interface is up, for the first time or again: a general query asks what is joined, and the joins of neighbours
    /// are reported.
    pub fn start(&mut self, now: Instant) {
        self.started = true;
        self.querier.start(now);
        self.proxy.start();
    }

    /// An MLD message of a listener, or a query.
    pub fn handle_mld(
        &mut self,
        packet: &[u8],
        scopes: &CarriedScopes,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let (source, message) = mld::parse_packet(packet).map_err(|_| DropReason::BadMld)?;
        if source.is_unspecified() {
            // RFC 9777 §5.2.13: ignored; a query asks the listener again
            self.querier.query_again(UNSPECIFIED_SOURCE_GAP, now);
            return Err(DropReason::MldUnspecifiedSource);
        }
        if source == ROUTER_ADDRESS {
            // our own, back from a bridge
            return Err(DropReason::BadMld);
        }
        // version 1 knows no sources, so it counts for no source-specific group (RFC 4604 §2.2.2)
        let understands_v1 = |group| scopes.contains(group) && !is_source_specific(group);
        match message {
            Message::Query(query) => self.proxy.handle_query(&query, now),
            Message::Report(records) => {
                for record in records.iter().filter(|r| scopes.contains(r.group)) {
                    outbox.count(self.querier.handle_record(source, record, now));
                }
            }
            Message::ReportV1 { group } if understands_v1(group) => {
                self.querier.handle_v1_report(source, group, now)?;
            }
            Message::DoneV1 { group } if understands_v1(group) => {
                self.querier.handle_v1_done(source, group, now);
            }
            Message::ReportV1 { .. } | Message::DoneV1 { .. } => {}
        }
        Ok(())
    }

    /// Queries and reports that are due leave. With the groups whose joins of neighbours have changed goes what these joins
    /// are, as far as this interface is to see them.
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
        if self.started {
            self.flush_queries(scopes, outbox, now);
        }
        for group in changed {
            let joined = joins(*group).filter(|_| scopes.contains(*group));
            self.proxy.set(*group, joined, now);
        }
        self.proxy.handle_timeout(now);
        let records = self.proxy.take_records();
        for packet in mld::report_packets(ROUTER_ADDRESS, &records, self.mtu.into()) {
            outbox.deliver_mld(packet.into());
        }
    }

    fn flush_queries(&mut self, scopes: &CarriedScopes, outbox: &mut Outbox, now: Instant) {
        for query in self.querier.take_queries() {
            // the proxy is a listener like any other
            self.proxy.handle_query(&query, now);
            outbox.deliver_mld(mld::query_packet(ROUTER_ADDRESS, &query).into());
            // every host listens to all nodes, and none reports it (RFC 9777 §6)
            if query.group.is_none() && scopes.contains(mld::ALL_NODES) {
                let record = Record::new(RecordType::ModeIsExclude, mld::ALL_NODES, Vec::new());
                let result = self.querier.handle_record(ROUTER_ADDRESS, &record, now);
                outbox.count(result);
            }
        }
    }

    /// The first timer of querier and proxy.
    pub fn next_timeout(&self) -> Timer {
        let timers = [self.querier.next_timeout(), self.proxy.next_timeout()];
        timers.into_iter().flatten().min()
    }
}
