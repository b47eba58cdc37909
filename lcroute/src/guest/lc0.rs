//! The listeners on a guest's `lc0`: what its kernel reports, and is asked.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use lcroute_engine::classify::{CarriedScopes, Class};
use lcroute_engine::{
    DropReason, LEAF_GROUPS, Querier, ROUTER_ADDRESS, Room, SourceFilter, Timing,
};
use librecast::drops::Drops;
use librecast::mld::{self, Message};
use librecast::time::{Duration, Instant};

/// MTU of the interface: the smallest of IPv6, as links of leaves have it.
pub const MTU: u16 = 1_280;
/// Groups that the guest's programs may join, as the querier keeps them. Chosen: more than a leaf
/// may, so that those beyond are known by name.
const GROUPS: usize = 16 * LEAF_GROUPS;
/// Reporters of a group: the kernel is the only one. Chosen: a few link-local addresses.
const REPORTERS: usize = 4;

/// Querier of the interface, and the drops of its packets.
#[derive(Debug)]
pub struct Listeners {
    querier: Querier,
    scopes: CarriedScopes,
    drops: Drops<DropReason>,
    /// The first group to which a program sent.
    pub sent: Option<Ipv6Addr>,
}

impl Listeners {
    /// Returns the listeners of an interface that is up: none, who are asked at once.
    pub fn new(now: Instant) -> Self {
        let room = Room {
            groups: GROUPS,
            reporters: REPORTERS,
        };
        let mut querier = Querier::new(Timing::HOST, room, 0);
        querier.start(now);
        Self {
            querier,
            scopes: CarriedScopes::new(&[], false),
            drops: Drops::default(),
            sent: None,
        }
    }

    /// Handles a packet of a program or the kernel; returns whether it is one to a group for which
    /// `may_send` holds.
    pub fn handle_packet(
        &mut self,
        packet: &[u8],
        may_send: impl Fn(Ipv6Addr) -> bool,
        now: Instant,
    ) -> bool {
        let reason = match self.scopes.classify(packet) {
            Class::Mld => match self.handle_report(packet, now) {
                Ok(()) => return false,
                Err(reason) => reason,
            },
            Class::Carried(flow) if may_send(flow.group) => return true,
            Class::Carried(flow) => {
                self.sent.get_or_insert(flow.group);
                DropReason::LeafSent
            }
            Class::Unicast(_) => DropReason::UnicastOff,
            Class::Dropped(reason) => reason,
        };
        self.drops.count(reason);
        false
    }

    fn handle_report(&mut self, packet: &[u8], now: Instant) -> Result<(), DropReason> {
        let (source, message) = mld::parse_packet(packet).map_err(|_| DropReason::BadMld)?;
        if source.is_unspecified() {
            return Err(DropReason::MldUnspecifiedSource);
        }
        match message {
            Message::Report(records) => {
                let carried = records.iter().filter(|r| self.scopes.contains(r.group));
                for record in carried {
                    self.querier.handle_record(source, record, now)?;
                }
                Ok(())
            }
            // lc0 of a guest has no router of version 1
            Message::Query(_) | Message::ReportV1 { .. } | Message::DoneV1 { .. } => {
                Err(DropReason::BadMld)
            }
        }
    }

    /// Asks for all joins: reports may have been lost.
    pub fn query_again(&mut self, now: Instant) {
        self.querier.query_again(Duration::ZERO, now);
    }

    /// Handles expired timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.querier.handle_timeout(now);
    }

    /// Returns the time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        self.querier.next_timeout().map(|(at, _)| at)
    }

    /// Returns packets with queries for the kernel.
    pub fn take_queries(&mut self) -> Vec<Vec<u8>> {
        let queries = self.querier.take_queries();
        let packet = |query| mld::query_packet(ROUTER_ADDRESS, query);
        queries.iter().map(packet).collect()
    }

    /// Returns the groups with changed joins, and their filters; `None`: nobody listens any more.
    pub fn take_changes(&mut self) -> Vec<(Ipv6Addr, Option<SourceFilter>)> {
        let changed = self.querier.take_changes();
        let filter = |group| (group, self.querier.filter(group).cloned());
        changed.into_keys().map(filter).collect()
    }

    /// Returns the drops so far, by reason.
    pub fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.drops.by_name()
    }
}

#[cfg(test)]
mod tests {
    use librecast::ipv6::udp_packet;
    use librecast::mld::{Record, RecordType, report_packets};

    use super::*;

    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 5, 0, 0, 0, 0, 0, 0x42);
    const KERNEL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);

    /// A leaf without an uplink.
    const NOWHERE: fn(Ipv6Addr) -> bool = |_| false;

    fn report(kind: RecordType, group: Ipv6Addr, sources: &[Ipv6Addr]) -> Vec<u8> {
        let record = Record::new(kind, group, sources.to_vec());
        report_packets(KERNEL, &[record], 1_280).remove(0)
    }

    #[test]
    fn joins_with_and_without_sources_and_their_ends_are_changes() {
        let now = Instant::now();
        let mut listeners = Listeners::new(now);
        assert_eq!(listeners.take_queries().len(), 1, "asked at once");
        let source = "fd00::1".parse().unwrap();
        let join = report(RecordType::ChangeToExclude, GROUP, &[]);
        listeners.handle_packet(&join, NOWHERE, now);
        // repeated, as kernels do
        listeners.handle_packet(&join, NOWHERE, now);
        let all = Some(SourceFilter::all());
        assert_eq!(listeners.take_changes(), [(GROUP, all)]);
        assert_eq!(listeners.take_changes(), []);
        let narrower = report(RecordType::ChangeToInclude, GROUP, &[source]);
        listeners.handle_packet(&narrower, NOWHERE, now);
        let later = now + Duration::from_secs(3);
        listeners.handle_timeout(later);
        let one = SourceFilter::include([source]);
        assert_eq!(listeners.take_changes(), [(GROUP, one)]);
        let part = report(RecordType::ChangeToInclude, GROUP, &[]);
        listeners.handle_packet(&part, NOWHERE, later);
        listeners.handle_timeout(later + Duration::from_secs(3));
        assert_eq!(listeners.take_changes(), [(GROUP, None)]);
    }

    #[test]
    fn what_is_no_join_of_a_carried_group_is_dropped_under_a_name() {
        let now = Instant::now();
        let mut listeners = Listeners::new(now);
        let link_scope = "ff02::fb".parse().unwrap();
        let join = report(RecordType::ChangeToExclude, link_scope, &[]);
        listeners.handle_packet(&join, NOWHERE, now);
        assert_eq!(listeners.take_changes(), []);
        let source = "fd00::1".parse().unwrap();
        let udp = udp_packet(source, GROUP, (1, 1), b"hello");
        assert!(listeners.handle_packet(&udp, |group| group == GROUP, now));
        assert_eq!(listeners.sent, None);
        assert!(!listeners.handle_packet(&udp, NOWHERE, now));
        assert_eq!(listeners.sent, Some(GROUP));
        let unicast = udp_packet(source, source, (1, 1), b"hello");
        listeners.handle_packet(&unicast, NOWHERE, now);
        let mut damaged = report(RecordType::ChangeToExclude, GROUP, &[]);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        listeners.handle_packet(&damaged, NOWHERE, now);
        for length in 0..udp.len() {
            listeners.handle_packet(&udp[..length], NOWHERE, now);
        }
        let drops = listeners.drops();
        assert_eq!(drops["leaf_sent"], 1);
        assert_eq!(drops["unicast_off"], 1);
        assert_eq!(drops["bad_mld"], 1);
        assert_eq!(drops["malformed"], udp.len() as u64);
        assert_eq!(listeners.take_changes(), []);
    }
}
