//! Reports of this node's packets over its links: to its operator, and to nodes that ask for them.

use std::net::Ipv6Addr;

use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use crate::report::{FlowEdge, GroupFlow, Report};

/// Interval of the reports.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time for which one request of an operator counts.
const WATCH: Duration = Duration::from_secs(4);

/// Flows of the last interval, and the requests for them.
#[derive(Debug)]
pub(crate) struct Flows {
    /// Whether other nodes may receive them.
    pub reports: bool,
    watched_until: Option<Instant>,
    /// Time since which packets are counted.
    since: Option<Instant>,
    next: Instant,
    latest: Report,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Start to count packets.
    Begin,
    /// Packets were counted for an interval.
    Take,
}

impl Flows {
    pub fn new(reports: bool, now: Instant) -> Self {
        Self {
            reports,
            watched_until: None,
            since: None,
            next: now + INTERVAL,
            latest: Report {
                second: 0,
                interval_ms: 1_000,
                groups: Vec::new(),
            },
        }
    }

    /// Notes a request of the operator.
    pub fn watch(&mut self, now: Instant) {
        if self.watched_until.is_none_or(|until| until <= now) && self.since.is_none() {
            self.next = now;
        }
        self.watched_until = Some(now + WATCH);
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        let is_needed = self.reports || self.watched_until.is_some() || self.since.is_some();
        is_needed.then_some(self.next)
    }

    /// Returns the action that is due. `asked_for`: other nodes want reports.
    pub fn poll(&mut self, asked_for: bool, now: Instant) -> Due {
        self.next = now + INTERVAL;
        self.watched_until = self.watched_until.filter(|until| *until > now);
        if !asked_for && self.watched_until.is_none() {
            self.since = None;
            self.latest.groups.clear();
            return Due::Nothing;
        }
        match self.since {
            None => {
                self.since = Some(now);
                Due::Begin
            }
            Some(_) => Due::Take,
        }
    }

    /// Stores the counts: groups with links, sorted, and all groups that are joined on this host.
    pub fn take(
        &mut self,
        counted: impl IntoIterator<Item = (Ipv6Addr, FlowEdge)>,
        local: &[Ipv6Addr],
        now: Instant,
    ) -> &Report {
        let mut groups: Vec<GroupFlow> = Vec::new();
        for (group, edge) in counted {
            match groups.last_mut() {
                Some(last) if last.group == group => last.edges.push(edge),
                _ => groups.push(GroupFlow {
                    group,
                    local: local.binary_search(&group).is_ok(),
                    edges: vec![edge],
                }),
            }
        }
        let counted = groups.len();
        for group in local {
            if groups[..counted]
                .binary_search_by_key(group, |g| g.group)
                .is_err()
            {
                groups.push(GroupFlow {
                    group: *group,
                    local: true,
                    edges: Vec::new(),
                });
            }
        }
        let since = self.since.replace(now).unwrap_or(now);
        let interval = now.saturating_duration_since(since).as_millis();
        self.latest = Report {
            second: self.latest.second.wrapping_add(1),
            interval_ms: u16::try_from(interval).unwrap_or(u16::MAX).max(1),
            groups,
        };
        &self.latest
    }

    pub fn latest(&self) -> &Report {
        &self.latest
    }
}

/// Returns a neighbour's share of the counts.
pub(crate) fn edge(to: OriginId, packets: u64, bytes: u64) -> FlowEdge {
    FlowEdge {
        to,
        packets: u32::try_from(packets).unwrap_or(u32::MAX),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n)
    }

    #[test]
    fn packets_are_counted_only_while_somebody_looks() {
        let start = crate::testing::start();
        let mut flows = Flows::new(false, start);
        assert_eq!(flows.next_timeout(), None, "nobody looks: no timer");
        let now = start + Duration::from_secs(5);
        flows.watch(now);
        assert_eq!(flows.next_timeout(), Some(now));
        assert_eq!(flows.poll(false, now), Due::Begin);
        let mut now = now + INTERVAL;
        assert_eq!(flows.poll(false, now), Due::Take);
        let counted = [1, 1, 3].map(|n| (group(n), edge(OriginId(n.into()), 5, 500)));
        let report = flows.take(counted, &[group(2), group(3)], now).clone();
        let seen = report.groups.iter();
        let seen: Vec<_> = seen.map(|g| (g.group, g.local, g.edges.len())).collect();
        assert_eq!(
            seen,
            [
                (group(1), false, 2),
                (group(3), true, 1),
                (group(2), true, 0)
            ]
        );
        assert_eq!(report.interval_ms, 1_000);
        now += WATCH;
        assert_eq!(flows.poll(false, now), Due::Nothing);
        assert!(flows.latest().groups.is_empty());
        assert_eq!(flows.next_timeout(), None);
    }

    #[test]
    fn others_are_told_while_they_ask() {
        let start = crate::testing::start();
        let mut flows = Flows::new(true, start);
        let mut now = start;
        for (asked, due) in [
            (false, Due::Nothing),
            (true, Due::Begin),
            (true, Due::Take),
            (false, Due::Nothing),
        ] {
            now = flows.next_timeout().unwrap().max(now);
            assert_eq!(flows.poll(asked, now), due);
        }
    }
}
