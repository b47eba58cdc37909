//! Groups that a process has joined without a kernel: the listener's side of MLDv2 (RFC 9777,
//! section 6) and of IGMP (RFC 9776), towards the router in the same page, or behind a socket pair.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::mld::{self, Message, Record, RecordType};
use crate::{igmp, mapped};

/// Joined groups at a time.
pub const MAX_GROUPS: usize = 256;

/// Joined groups, with any source; those of IPv4 by their names.
#[derive(Debug)]
pub struct MldHost {
    link_local: Ipv6Addr,
    mtu: usize,
    joined: BTreeSet<Ipv6Addr>,
}

impl MldHost {
    /// Starts without memberships; reports come from this address, in packets of at most `mtu`.
    #[must_use]
    pub fn new(link_local: Ipv6Addr, mtu: usize) -> Self {
        Self {
            link_local,
            mtu,
            joined: BTreeSet::new(),
        }
    }

    /// Groups, in order.
    pub fn groups(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.joined.iter().copied()
    }

    /// Returns whether the group is joined.
    pub fn has_joined(&self, group: Ipv6Addr) -> bool {
        self.joined.contains(&group)
    }

    /// Joins a group; returns the reports for it. Empty if it was joined, or no more can be.
    pub fn join(&mut self, group: Ipv6Addr) -> Vec<Vec<u8>> {
        if self.joined.len() >= MAX_GROUPS || !self.joined.insert(group) {
            return Vec::new();
        }
        self.reports(&[Record::new(RecordType::ChangeToExclude, group, Vec::new())])
    }

    /// Leaves a group; returns the reports for it.
    pub fn leave(&mut self, group: Ipv6Addr) -> Vec<Vec<u8>> {
        if !self.joined.remove(&group) {
            return Vec::new();
        }
        self.reports(&[Record::new(RecordType::ChangeToInclude, group, Vec::new())])
    }

    /// Answers a query of the router; empty for other packets.
    #[must_use]
    pub fn answer(&self, packet: &[u8]) -> Vec<Vec<u8>> {
        let (ipv4, query) = match (mld::parse_packet(packet), igmp::parse_packet(packet)) {
            (Ok((_, Message::Query(query))), _) => (false, query),
            (_, Ok((_, Message::Query(query)))) => (true, query),
            _ => return Vec::new(),
        };
        let asked = |group: &Ipv6Addr| {
            mapped::is_group_name(*group) == ipv4 && query.group.is_none_or(|asked| asked == *group)
        };
        let state = |group| Record::new(RecordType::ModeIsExclude, group, Vec::new());
        let records: Vec<_> = self.groups().filter(asked).map(state).collect();
        self.reports(&records)
    }

    fn reports(&self, records: &[Record]) -> Vec<Vec<u8>> {
        let (ipv4, ipv6): (Vec<_>, Vec<_>) = records
            .iter()
            .cloned()
            .partition(|record| mapped::is_group_name(record.group));
        // it has no IPv4 address (RFC 9776 §4.2.13)
        let mut packets = igmp::report_packets(Ipv4Addr::UNSPECIFIED, &ipv4, self.mtu);
        packets.extend(mld::report_packets(self.link_local, &ipv6, self.mtu));
        packets
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::mld::{Query, query_packet};

    use super::*;

    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
    }

    fn records(packets: &[Vec<u8>]) -> Vec<(RecordType, Ipv6Addr)> {
        let mut all = Vec::new();
        for packet in packets {
            let Ok((_, Message::Report(records))) = mld::parse_packet(packet) else {
                panic!("no report");
            };
            all.extend(records.into_iter().map(|r| (r.kind, r.group)));
        }
        all
    }

    fn query(group: Option<Ipv6Addr>) -> Vec<u8> {
        let query = Query {
            max_response: Duration::from_secs(1),
            group,
            suppress_router_processing: false,
            robustness: 2,
            query_interval: Duration::from_secs(125),
            sources: Vec::new(),
            truncated: false,
            version_1: false,
        };
        query_packet(ROUTER, &query)
    }

    #[test]
    fn queries_are_answered_with_what_is_joined() {
        let own = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
        let mut programs = MldHost::new(own, 1_280);
        let joined = records(&programs.join(group(1)));
        assert_eq!(joined, [(RecordType::ChangeToExclude, group(1))]);
        assert_eq!(programs.join(group(1)).len(), 0, "it has joined already");
        programs.join(group(2));
        let state = |n| (RecordType::ModeIsExclude, group(n));
        assert_eq!(
            records(&programs.answer(&query(None))),
            [state(1), state(2)]
        );
        assert_eq!(
            records(&programs.answer(&query(Some(group(2))))),
            [state(2)]
        );
        assert_eq!(programs.answer(&query(Some(group(3)))).len(), 0);
        assert_eq!(programs.answer(b"garbage").len(), 0);
        let left = records(&programs.leave(group(1)));
        assert_eq!(left, [(RecordType::ChangeToInclude, group(1))]);
        assert_eq!(records(&programs.answer(&query(None))), [state(2)]);
    }

    #[test]
    fn groups_of_ipv4_are_said_by_igmp() {
        let name = mapped::name(Ipv4Addr::new(239, 1, 2, 3));
        let mut programs = MldHost::new(ROUTER, 1_280);
        let joined = programs.join(name);
        let Ok((from, Message::Report(said))) = igmp::parse_packet(&joined[0]) else {
            panic!("{joined:?}");
        };
        assert_eq!(from, mapped::name(Ipv4Addr::UNSPECIFIED));
        assert_eq!(said[0].group, name);
        assert_eq!(programs.answer(&query(None)).len(), 0, "of IPv6");
        let query = Query {
            max_response: Duration::from_secs(1),
            group: None,
            suppress_router_processing: false,
            robustness: 2,
            query_interval: Duration::from_secs(125),
            sources: Vec::new(),
            truncated: false,
            version_1: false,
        };
        let query = igmp::query_packet(Ipv4Addr::new(10, 77, 0, 1), &query).unwrap();
        assert_eq!(programs.answer(&query).len(), 1);
    }

    #[test]
    fn memberships_are_bounded() {
        let mut programs = MldHost::new(ROUTER, 1_280);
        for n in 0..1_000 {
            programs.join(group(n));
        }
        assert_eq!(programs.groups().count(), MAX_GROUPS);
    }
}
