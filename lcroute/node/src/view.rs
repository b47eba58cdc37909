//! The network for a page: the view of one node, and the reports of other nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use librecast::bucket::Bucket;
use librecast::mapped;
use librecast::time::{Duration, Instant};
use serde::Serialize;

use crate::look::{self, Look, share};
use crate::report::{self, GroupFlow, Report, Said};

/// Silence after which a node counts as not reporting.
const SILENCE: Duration = Duration::from_secs(4);
/// Time within which the parts of one report come: the next one follows a second later.
const WHOLE: Duration = Duration::from_secs(2);
/// Maximum number of nodes with stored reports: all nodes of the link state.
const MAX_NODES: usize = 4_096;
/// Maximum number of flows and edges on a page, of all nodes: some 500 kB of JSON. Chosen: six
/// groups with three neighbours each for 300 nodes, which a browser handles within a second.
const MAX_SHOWN: usize = 8_192;

/// The reports of other nodes.
#[derive(Debug, Default)]
pub struct View {
    reports: BTreeMap<Ipv6Addr, Latest>,
    /// Their versions, as far as they report them.
    versions: BTreeMap<Ipv6Addr, String>,
    /// Nodes that were reachable at the last look; only their reports are accepted.
    known: BTreeMap<Ipv6Addr, Known>,
}

/// A node that may report.
#[derive(Debug, Clone, Copy)]
struct Known {
    origin: u64,
    datagrams: Bucket,
}

/// The report of a node's last second.
#[derive(Debug)]
struct Latest {
    report: Report,
    /// Arrival of its first part.
    began: Instant,
    /// Bytes that further parts of the same second may add.
    left: usize,
}

/// The network as a page shows it. Nodes are identified by their index.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    /// All nodes, first the observer.
    pub nodes: Vec<Node>,
    /// Links: two nodes, and the cost in units of 100 us.
    pub links: Vec<(u32, u32, u16)>,
    /// The flows that nodes report.
    pub flows: Vec<Flow>,
    /// Number of links, flows, edges and groups beyond the bounds.
    pub left_out: usize,
}

/// A node on the map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// Its id, the same in all views.
    pub id: String,
    /// Its identity.
    pub peer_id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its address in the network.
    pub address: Option<Ipv6Addr>,
    /// Whether no path leads through it, as with a browser tab.
    pub stub: bool,
    /// Whether it reports its flows.
    pub reports: bool,
    /// Its version, if it reports that.
    pub version: Option<String>,
}

/// The packets of a group that a node sends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flow {
    /// The node.
    pub node: usize,
    /// The group, in the form that users know.
    pub group: IpAddr,
    /// Whether a program on its host has joined it.
    pub local: bool,
    /// Packets to each neighbour.
    pub edges: Vec<Edge>,
}

/// The packets that a node sends to one neighbour.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Edge {
    /// The neighbour.
    pub to: usize,
    /// Packets a second.
    pub packets_s: f64,
    /// Bytes a second.
    pub bytes_s: f64,
}

impl View {
    /// Handles a datagram on the group of reports. Returns false for unreachable nodes, for more
    /// datagrams than a report has, and for invalid ones.
    pub fn take_report(&mut self, from: Ipv6Addr, bytes: &[u8], now: Instant) -> bool {
        let Some(known) = self.known.get_mut(&from) else {
            return false;
        };
        if !known.datagrams.take(report::DATAGRAMS, 1, now) {
            return false;
        }
        let report = match Said::decode(bytes) {
            Ok(Said::Report(report)) => report,
            Ok(Said::Software(version)) => {
                self.versions.insert(from, version);
                return true;
            }
            Err(_) => return false,
        };
        let latest = (self.reports.entry(from)).or_insert_with(|| Latest::new(&report, now));
        // a restarted node counts from the beginning; overtaken parts are a second old
        if latest.report.second != report.second || now >= latest.began + WHOLE {
            *latest = Latest::new(&report, now);
        }
        latest.merge(report.groups);
        true
    }

    /// Returns the network now.
    pub fn show(&mut self, look: &Look, now: Instant) -> Network {
        let addresses = look.routers.iter().take(MAX_NODES);
        let known = addresses.filter_map(|router| {
            let address = router.address?;
            let before = self.known.get(&address);
            let known = Known {
                origin: router.origin,
                datagrams: before.map_or(Bucket::full(now), |known| known.datagrams),
            };
            Some((address, known))
        });
        self.known = known.collect();
        let known = &self.known;
        self.reports.retain(|from, latest| {
            known.contains_key(from) && now.saturating_duration_since(latest.began) < SILENCE
        });
        self.versions.retain(|from, _| known.contains_key(from));
        let places: BTreeMap<u64, usize> =
            (look.routers.iter().map(|r| r.origin)).zip(0..).collect();
        let others = self.reports.iter().filter_map(|(from, latest)| {
            let node = *places.get(&self.known.get(from)?.origin)?;
            // this node's own flows come from `look`
            (node != 0).then(|| (node, latest.report.rates()))
        });
        let all = std::iter::once((0, look.flows.clone())).chain(others);
        let mut flows: Vec<(usize, Vec<look::Flow>)> = all.collect();
        for flow in flows.iter_mut().flat_map(|(_, flows)| flows) {
            flow.edges.retain(|edge| places.contains_key(&edge.to));
        }
        let sizes: Vec<_> = flows.iter().map(|(_, flows)| size(flows)).collect();
        let share = share(MAX_SHOWN, sizes.clone());
        let left_out = sizes.iter().map(|size| size.saturating_sub(share));
        let left_out = look.left_out + left_out.sum::<usize>();
        let mut shown = Vec::new();
        for (node, flows) in flows {
            let mut room = share;
            for flow in flows {
                let Some(edges_at_most) = room.checked_sub(1) else {
                    break;
                };
                let edges = edges(&flow.edges, &places);
                let edges = edges.take(edges_at_most).collect();
                let flow = Flow {
                    node,
                    group: mapped::shown(flow.group),
                    local: flow.local,
                    edges,
                };
                room -= 1 + flow.edges.len();
                shown.push(flow);
            }
        }
        let nodes = look.routers.iter().zip(0..).map(|(router, place)| Node {
            id: format!("{:016x}", router.origin),
            peer_id: router.peer_id.map(|id| id.to_string()),
            name: router.name.clone(),
            address: router.address,
            stub: router.stub,
            reports: place == 0
                || (router.address).is_some_and(|at| self.reports.contains_key(&at)),
            version: router
                .address
                .and_then(|at| self.versions.get(&at).cloned()),
        });
        Network {
            nodes: nodes.collect(),
            links: look.links.clone(),
            flows: shown,
            left_out,
        }
    }
}

impl Latest {
    /// Returns an empty report of this second.
    fn new(report: &Report, now: Instant) -> Self {
        Self {
            report: Report {
                groups: Vec::new(),
                ..*report
            },
            began: now,
            left: report::MAX_SECOND,
        }
    }

    /// Adds a part. Each neighbour appears in a group once, whatever the report contains.
    fn merge(&mut self, more: Vec<GroupFlow>) {
        let known = &mut self.report.groups;
        for flow in more {
            let Some(left) = self.left.checked_sub(report::GROUP_LEN) else {
                return;
            };
            self.left = left;
            let at = known.iter().position(|k| k.group == flow.group);
            let at = at.unwrap_or_else(|| {
                known.push(GroupFlow {
                    edges: Vec::new(),
                    ..flow
                });
                known.len() - 1
            });
            let edges = &mut known[at].edges;
            for edge in flow.edges {
                let Some(left) = self.left.checked_sub(report::EDGE_LEN) else {
                    return;
                };
                self.left = left;
                match edges.iter_mut().find(|k| k.to == edge.to) {
                    Some(known) => *known = edge,
                    None => edges.push(edge),
                }
            }
        }
    }
}

/// Returns the edges to reachable nodes.
fn edges(edges: &[look::Edge], places: &BTreeMap<u64, usize>) -> impl Iterator<Item = Edge> {
    let edge = |edge: &look::Edge| {
        Some(Edge {
            to: *places.get(&edge.to)?,
            packets_s: edge.packets_s,
            bytes_s: edge.bytes_s,
        })
    };
    edges.iter().filter_map(edge)
}

/// Returns the number of flows and edges.
fn size(flows: &[look::Flow]) -> usize {
    flows.iter().map(|flow| 1 + flow.edges.len()).sum()
}

#[cfg(test)]
mod tests {
    use librecast::id::OriginId;

    use super::*;
    use crate::look;
    use crate::report::FlowEdge;

    fn group() -> Ipv6Addr {
        "ff1e::7".parse().unwrap()
    }

    fn address(n: u64) -> Ipv6Addr {
        format!("fd00::{n:x}").parse().unwrap()
    }

    fn look() -> Look {
        let router = |n: u64| look::Router {
            origin: n,
            peer_id: None,
            name: Some(format!("n{n}")),
            address: Some(address(n)),
            stub: false,
        };
        let edge = |(to, packets_s)| look::Edge {
            to,
            packets_s,
            bytes_s: packets_s * 100.0,
        };
        let flow = look::Flow {
            group: group(),
            local: false,
            edges: [(2, 5.0), (99, 1.0)].map(edge).into(),
        };
        Look {
            routers: [1, 2, 3].map(router).into(),
            links: vec![(0, 1, 10), (1, 2, 10)],
            flows: vec![flow],
            left_out: 0,
        }
    }

    fn report(second: u32, to: u64) -> Vec<u8> {
        let edge = FlowEdge {
            to: OriginId(to),
            packets: 10,
            bytes: 1_000,
        };
        let flow = GroupFlow {
            group: group(),
            local: true,
            edges: vec![edge],
        };
        let report = Report {
            second,
            interval_ms: 2_000,
            groups: vec![flow],
        };
        report.encode().remove(0)
    }

    fn to(to: usize) -> Edge {
        Edge {
            to,
            packets_s: 5.0,
            bytes_s: 500.0,
        }
    }

    #[test]
    fn reports_of_reachable_nodes_count_for_some_seconds() {
        let now = crate::testing::start();
        let (mut view, two) = (View::default(), address(2));
        assert!(
            !view.take_report(two, &report(1, 3), now),
            "nobody has named it yet"
        );
        let first = view.show(&look(), now);
        assert_eq!(first.flows.len(), 1);
        assert_eq!(first.flows[0].edges, [to(1)]);
        assert!(view.take_report(two, &report(1, 3), now));
        assert!(view.take_report(two, &report(1, 1), now), "a second part");
        assert!(!view.take_report(address(9), &report(1, 3), now));
        assert!(!view.take_report(two, b"garbage", now));
        let second = view.show(&look(), now);
        assert_eq!(
            second.flows[1],
            Flow {
                node: 1,
                group: group().into(),
                local: true,
                edges: vec![to(2), to(0)]
            }
        );
        let reports: Vec<_> = second.nodes.iter().map(|n| n.reports).collect();
        assert_eq!(reports, [true, true, false]);
        assert!(view.take_report(two, &report(2, 1), now));
        assert_eq!(view.show(&look(), now).flows[1].edges, [to(0)]);
        assert!(!view.take_report(address(9), b"\x022.0", now));
        assert!(view.take_report(two, b"\x022.0", now));
        let third = view.show(&look(), now + SILENCE);
        assert_eq!((third.flows.len(), third.nodes[1].reports), (1, false));
        let versions: Vec<_> = third.nodes.iter().map(|n| n.version.as_deref()).collect();
        assert_eq!(versions, [None, Some("2.0"), None]);
        // a node that left and returns may run another version
        view.show(&look_of(1), now + SILENCE);
        assert_eq!(view.show(&look(), now + SILENCE).nodes[1].version, None);
    }

    /// Returns a datagram of a group with `edges` edges, to neighbours from `first` on.
    fn part(second: u32, group: u16, first: u64, edges: u64) -> Vec<u8> {
        let edge = |n| FlowEdge {
            to: OriginId(first + n),
            packets: 1,
            bytes: 1,
        };
        let flow = GroupFlow {
            group: Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, group),
            local: false,
            edges: (0..edges).map(edge).collect(),
        };
        let report = Report {
            second,
            interval_ms: 1_000,
            groups: vec![flow],
        };
        report.encode().remove(0)
    }

    fn edges_of(network: &Network, node: usize) -> usize {
        let flows = network.flows.iter().filter(|flow| flow.node == node);
        flows.map(|flow| flow.edges.len()).sum()
    }

    /// Returns a look in which all nodes are linked.
    fn look_of(nodes: u64) -> Look {
        let router = |n| look::Router {
            origin: n,
            peer_id: None,
            name: None,
            address: Some(address(n)),
            stub: false,
        };
        Look {
            routers: (0..nodes).map(router).collect(),
            links: Vec::new(),
            flows: Vec::new(),
            left_out: 0,
        }
    }

    #[test]
    fn a_second_of_one_node_holds_what_its_datagrams_do() {
        let mut now = crate::testing::start();
        let (mut view, look) = (View::default(), look_of(600));
        view.show(&look, now);
        // groups and neighbours are new each time, and the second does not end
        for n in 0..4_000 {
            now += Duration::from_millis(1);
            view.take_report(address(2), &part(1, n, 50 * u64::from(n % 10), 50), now);
        }
        let shown = view.show(&look, now);
        let edges = edges_of(&shown, 2);
        assert!(
            (400..=report::MAX_SECOND / report::EDGE_LEN).contains(&edges),
            "{edges}"
        );
        let silent = now + SILENCE;
        assert!(view.show(&look, silent).flows.is_empty());
        // a second that does not end begins again
        view.take_report(address(2), &part(2, 1, 0, 50), silent);
        view.take_report(address(2), &part(2, 2, 0, 50), silent + WHOLE);
        assert_eq!(edges_of(&view.show(&look, silent + WHOLE), 2), 50);
    }

    #[test]
    fn a_neighbour_stands_in_a_group_once() {
        let now = crate::testing::start();
        let mut view = View::default();
        view.show(&look(), now);
        for _ in 0..3 {
            assert!(view.take_report(address(2), &report(1, 3), now));
        }
        assert_eq!(view.show(&look(), now).flows[1].edges, [to(2)]);
    }

    #[test]
    fn more_datagrams_than_a_report_has_are_not_read() {
        let now = crate::testing::start();
        let mut view = View::default();
        view.show(&look(), now);
        let read = (0..1_000).filter(|n| view.take_report(address(2), &report(*n, 3), now));
        assert_eq!(read.count() as u64, report::DATAGRAMS.burst());
        // another look gives no more
        view.show(&look(), now);
        assert!(!view.take_report(address(2), &report(7, 3), now));
        assert!(
            view.take_report(address(3), &report(7, 2), now),
            "others are read"
        );
    }

    #[test]
    fn many_nodes_share_what_a_page_is_shown() {
        let now = crate::testing::start();
        let (mut view, look) = (View::default(), look_of(600));
        view.show(&look, now);
        for node in 2..300 {
            for n in 0..8 {
                view.take_report(address(node), &part(1, n, 0, 50), now);
            }
        }
        // a node with few flows
        view.take_report(address(1), &part(1, 1, 0, 20), now);
        let shown = view.show(&look, now);
        let edges = shown
            .flows
            .iter()
            .map(|flow| flow.edges.len())
            .sum::<usize>();
        let entries = shown.flows.len() + edges;
        assert!(
            (MAX_SHOWN - 300..=MAX_SHOWN).contains(&entries),
            "{entries}"
        );
        assert_eq!(entries + shown.left_out, 298 * 8 * 51 + 21);
        assert_eq!(edges_of(&shown, 1), 20);
        assert!((2..300).all(|node| edges_of(&shown, node) > 20));
    }
}
