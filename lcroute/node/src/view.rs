//! What a page shows of the network: what one node sees, and what other nodes report of themselves.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::time::{Duration, Instant};
use serde::Serialize;

use crate::look::Look;
use crate::report::{GroupFlow, Report};

/// A node that says nothing for this long reports no more.
const SILENCE: Duration = Duration::from_secs(4);
/// Nodes whose reports are kept; one in the link state is there for each.
const MAX_NODES: usize = 4_096;
/// Groups of one node that are kept.
const MAX_GROUPS: usize = 512;
/// Neighbours of one node that are kept for a group.
const MAX_EDGES: usize = 512;

/// What other nodes have reported.
#[derive(Debug, Default)]
pub struct View {
    reports: BTreeMap<Ipv6Addr, Latest>,
    /// Nodes that were reachable at the last look: others are not listened to.
    known: BTreeMap<Ipv6Addr, u64>,
}

#[derive(Debug)]
struct Latest {
    report: Report,
    at: Instant,
}

/// The network as a page shows it. Nodes are named by their place in the list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    /// The first is the node that looks.
    pub nodes: Vec<Node>,
    /// Two nodes, and the cost in units of 100 us.
    pub links: Vec<(u32, u32, u16)>,
    /// What nodes send over their links, as far as they say so.
    pub flows: Vec<Flow>,
}

/// A node on the map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Node {
    /// The same from look to look.
    pub id: String,
    /// Who it is.
    pub peer_id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its address in the network.
    pub address: Option<Ipv6Addr>,
    /// No path leads through it: a browser tab.
    pub stub: bool,
    /// Whether it says what it sends.
    pub reports: bool,
}

/// What a node sends of a group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flow {
    /// The node.
    pub node: usize,
    /// The group.
    pub group: Ipv6Addr,
    /// A program on its host has joined it.
    pub local: bool,
    /// To its neighbours.
    pub edges: Vec<Edge>,
}

/// What a node sends to one neighbour.
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
    /// A datagram on the group of reports. Nodes that cannot be reached, and what is no report, count for nothing: false.
    pub fn take_report(&mut self, from: Ipv6Addr, bytes: &[u8], now: Instant) -> bool {
        if !self.known.contains_key(&from) {
            return false;
        }
        let Ok(report) = Report::decode(bytes) else {
            return false;
        };
        match self.reports.get_mut(&from) {
            Some(latest) if latest.report.second == report.second => {
                latest.at = now;
                merge(&mut latest.report.groups, report.groups);
            }
            // who starts anew counts from the beginning; what was overtaken is a second old
            _ => {
                self.reports.insert(from, Latest { report, at: now });
            }
        }
        true
    }

    /// The network now.
    pub fn show(&mut self, look: &Look, now: Instant) -> Network {
        let addresses = look.routers.iter().take(MAX_NODES);
        self.known = addresses
            .filter_map(|r| Some((r.address?, r.origin)))
            .collect();
        let known = &self.known;
        self.reports.retain(|from, latest| {
            known.contains_key(from) && now.saturating_duration_since(latest.at) < SILENCE
        });
        let places: BTreeMap<u64, usize> =
            (look.routers.iter().map(|r| r.origin)).zip(0..).collect();
        let others = self.reports.iter().filter_map(|(from, latest)| {
            let node = *places.get(self.known.get(from)?)?;
            // this node's own flows are known firsthand
            (node != 0).then(|| (node, latest.report.rates()))
        });
        let all = std::iter::once((0, look.flows.clone())).chain(others);
        let flows = all.flat_map(|(node, flows)| {
            let places = &places;
            flows.into_iter().map(move |flow| Flow {
                node,
                group: flow.group,
                local: flow.local,
                edges: edges(&flow.edges, places),
            })
        });
        let flows = flows.collect();
        let nodes = look.routers.iter().zip(0..).map(|(router, place)| Node {
            id: format!("{:016x}", router.origin),
            peer_id: router.peer_id.map(|id| id.to_string()),
            name: router.name.clone(),
            address: router.address,
            stub: router.stub,
            reports: place == 0
                || (router.address).is_some_and(|at| self.reports.contains_key(&at)),
        });
        Network {
            nodes: nodes.collect(),
            links: look.links.clone(),
            flows,
        }
    }
}

/// Those to nodes that can be reached.
fn edges(edges: &[crate::look::Edge], places: &BTreeMap<u64, usize>) -> Vec<Edge> {
    let edge = |edge: &crate::look::Edge| {
        Some(Edge {
            to: *places.get(&edge.to)?,
            packets_s: edge.packets_s,
            bytes_s: edge.bytes_s,
        })
    };
    edges.iter().filter_map(edge).collect()
}

fn merge(known: &mut Vec<GroupFlow>, more: Vec<GroupFlow>) {
    for flow in more {
        match known.iter().position(|k| k.group == flow.group) {
            Some(at) => {
                let edges = &mut known[at].edges;
                let room = MAX_EDGES.saturating_sub(edges.len());
                edges.extend(flow.edges.into_iter().take(room));
            }
            None if known.len() < MAX_GROUPS => known.push(flow),
            None => {}
        }
    }
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
                group: group(),
                local: true,
                edges: vec![to(2), to(0)]
            }
        );
        let reports: Vec<_> = second.nodes.iter().map(|n| n.reports).collect();
        assert_eq!(reports, [true, true, false]);
        assert!(view.take_report(two, &report(2, 1), now));
        assert_eq!(view.show(&look(), now).flows[1].edges, [to(0)]);
        let third = view.show(&look(), now + SILENCE);
        assert_eq!((third.flows.len(), third.nodes[1].reports), (1, false));
    }

    #[test]
    fn what_one_node_reports_is_bounded() {
        let now = crate::testing::start();
        let mut view = View::default();
        view.show(&look(), now);
        for _ in 0..MAX_EDGES + 10 {
            view.take_report(address(2), &report(1, 3), now);
        }
        let shown = view.show(&look(), now);
        assert_eq!(shown.flows[1].edges.len(), MAX_EDGES);
    }
}
