//! Forwarding entries of a group, as a cache: incoming link and outgoing links.
//!
//! An entry holds for all sources behind one link, as a group may have thousands of them. It holds
//! for one source only while a Join lists sources, or the tree had other edges a moment ago.

use std::net::Ipv6Addr;

use librecast::id::{LinkId, OriginId};
use smallvec::SmallVec;

use super::group_link::GroupLink;
use super::position::TreePosition;
use crate::output::Links;
use crate::traffic::Traffic;

/// Forwarding entries for each (root, group) entry.
const MAX_FORWARDING_ENTRIES: usize = 16;

/// The forwarding entry of a source's packets, and its counters.
#[derive(Debug)]
pub struct Lookup<'a> {
    position: &'a TreePosition,
    route: &'a ForwardingEntry,
    pub traffic: &'a mut Traffic,
}

impl Lookup<'_> {
    pub fn links(&self) -> &Links {
        &self.route.links
    }

    /// Whether packets are accepted from this link: the incoming link now, or in a former tree.
    pub fn accepts_from(&self, link: LinkId) -> bool {
        let (_, origin) = self.route.sender;
        self.route.incoming == Some(link) || self.position.was_towards(origin, link)
    }
}

/// A source, and the router at which its packets enter the network.
pub type Sender = (Ipv6Addr, OriginId);

/// The path of packets through this router, by the present tree and join state.
#[derive(Debug)]
struct ForwardingEntry {
    /// The sender of the last packet that used the entry.
    sender: Sender,
    /// It holds for this source only.
    source_specific: bool,
    /// The version of the tree position for which it holds.
    version: u32,
    /// The link behind which the origin lies; `None`: this router.
    incoming: Option<LinkId>,
    links: Links,
}

/// The parts of an entry that only packets need.
#[derive(Debug, Default)]
pub(super) struct ActiveEntry {
    routes: ForwardingEntries,
    pub traffic: Traffic,
}

impl ActiveEntry {
    pub fn lookup<'a>(&'a mut self, inputs: EntryInputs<'a>, sender: Sender) -> Lookup<'a> {
        Lookup {
            position: inputs.position,
            route: self.routes.find(inputs, sender),
            traffic: &mut self.traffic,
        }
    }

    /// Forgets all forwarding entries, as join state or edges have changed.
    pub fn forget_entries(&mut self) {
        self.routes.0.clear();
    }
}

/// Most groups have one sender. The forwarding entry used last is first.
#[derive(Debug, Default)]
struct ForwardingEntries(SmallVec<[ForwardingEntry; 1]>);

impl ForwardingEntries {
    fn find(&mut self, inputs: EntryInputs<'_>, sender: Sender) -> &ForwardingEntry {
        let routes = &mut self.0;
        let holds = |r: &ForwardingEntry| r.version == inputs.position.version;
        let at = if routes
            .first()
            .is_some_and(|r| r.sender == sender && holds(r))
        {
            Some(0)
        } else if inputs.depends_on_source() {
            let is_its = |r: &ForwardingEntry| r.sender == sender && r.source_specific && holds(r);
            routes.iter().position(is_its)
        } else {
            let incoming = inputs.incoming(sender);
            let leads_there =
                |r: &ForwardingEntry| r.incoming == incoming && !r.source_specific && holds(r);
            routes.iter().position(leads_there)
        };
        let at = at.unwrap_or_else(|| {
            routes.retain(|r| holds(r));
            routes.truncate(MAX_FORWARDING_ENTRIES - 1);
            routes.push(inputs.compute(sender));
            routes.len() - 1
        });
        routes.swap(0, at);
        routes[0].sender = sender;
        &mut routes[0]
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct EntryInputs<'a> {
    pub position: &'a TreePosition,
    pub links: &'a [GroupLink],
    /// A Join lists sources, in INCLUDE or EXCLUDE mode.
    pub lists_sources: bool,
}

impl EntryInputs<'_> {
    /// The link over which packets of a sender come; `None`: this router, or unreachable.
    fn incoming(&self, (_, origin): Sender) -> Option<LinkId> {
        self.position.towards(origin)
    }

    fn compute(&self, sender: Sender) -> ForwardingEntry {
        let (source, origin) = sender;
        let incoming = self.incoming(sender);
        // also over former edges: a router behind one may not have received the change
        let former = |link| {
            self.position.former_edge(link).is_some() && !self.position.was_towards(origin, link)
        };
        let leads_on = |link: LinkId| {
            Some(link) != incoming && (self.position.edge(link).is_some() || former(link))
        };
        let links = self.links.iter();
        let wanting = links.filter(|l| l.received.allows(source) && leads_on(l.link));
        let links = wanting.map(|l| l.link).collect();
        ForwardingEntry {
            sender,
            source_specific: self.depends_on_source(),
            version: self.position.version,
            incoming,
            links,
        }
    }

    /// Whether packets that come over one link may have different outgoing links.
    fn depends_on_source(&self) -> bool {
        self.lists_sources || self.position.has_former_edges
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use librecast::time::Instant;

    use super::*;
    use crate::config::Limits;
    use crate::graph::{Graph, Tree};
    use crate::join::Join;
    use crate::source_filter::SourceFilter;
    use crate::testing::start;
    use crate::trees::position::PREVIOUS_TREE;
    use crate::trees::{Edge, Trees};

    const OWN: OriginId = OriginId(1);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
    /// The neighbours are routers 2, 3 and 4; other routers are behind these in turn.
    const NEIGHBORS: std::ops::Range<u64> = 2..5;
    const ROUTERS: std::ops::Range<u64> = 5..1_005;

    fn address(router: u64) -> Ipv6Addr {
        Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(router))
    }

    fn link_to(router: u64) -> LinkId {
        LinkId(10 + router as u32)
    }

    /// A tree: its number of edges, and the rotation of the routers behind them.
    type Form = (u64, u64);
    const ALL: Form = (3, 0);
    const TURNED: Form = (3, 1);
    const WITHOUT_THE_LAST: Form = (2, 0);

    /// The neighbour behind which a router lies.
    fn neighbor_of(router: u64, (edges, turn): Form) -> u64 {
        if NEIGHBORS.contains(&router) {
            return router;
        }
        2 + (router + turn) % edges
    }

    fn position(trees: &mut Trees, form: Form, now: Instant) {
        let neighbors = NEIGHBORS.take(form.0 as usize);
        let near = neighbors.clone().map(|n| (OWN, OriginId(n), 10));
        let far = ROUTERS.map(|n| (OriginId(neighbor_of(n, form)), OriginId(n), 10));
        let links: Vec<_> = near.chain(far).collect();
        let graph = Arc::new(Graph::new(form.0 << 8 | form.1, [OWN], &links));
        let tree = Tree::compute(&graph, OWN).map(Arc::new).unwrap();
        let edge = |n| Edge {
            neighbor: OriginId(n),
            link: link_to(n),
            is_parent: false,
            span: tree.span(OriginId(n)).unwrap(),
        };
        trees.place(
            OWN,
            Some(Arc::clone(&tree)),
            neighbors.map(edge).collect(),
            now,
        );
    }

    fn all_want(now: Instant) -> Trees {
        let mut trees = Trees::new(&Limits::default(), 7);
        for n in NEIGHBORS {
            trees.set_received(link_to(n), OWN, GROUP, Join::All, false);
        }
        position(&mut trees, ALL, now);
        trees
    }

    fn entries(trees: &Trees) -> usize {
        let entry = trees.lookup(OWN, GROUP).unwrap();
        entry.active.as_ref().unwrap().routes.0.len()
    }

    /// The links from which packets of a router are accepted, and their outgoing links.
    fn entry_of(trees: &mut Trees, router: u64) -> (Vec<LinkId>, Vec<LinkId>) {
        let entry = trees
            .forward(OWN, GROUP, (address(router), OriginId(router)))
            .unwrap();
        let taken = NEIGHBORS
            .map(link_to)
            .filter(|link| entry.accepts_from(*link));
        (taken.collect(), entry.links().to_vec())
    }

    fn others(than: u64) -> Vec<LinkId> {
        NEIGHBORS.filter(|n| *n != than).map(link_to).collect()
    }

    #[test]
    fn a_thousand_sources_need_as_many_entries_as_there_are_links() {
        let mut trees = all_want(start());
        for router in ROUTERS.chain(ROUTERS.rev()) {
            let behind = neighbor_of(router, ALL);
            let expected = (vec![link_to(behind)], others(behind));
            assert_eq!(entry_of(&mut trees, router), expected);
        }
        let own = entry_of(&mut trees, OWN.0);
        assert_eq!(own, (Vec::new(), NEIGHBORS.map(link_to).collect()));
        assert_eq!(entries(&trees), 4);
        // a router that does not exist has no incoming link
        assert!(entry_of(&mut trees, 9_999).0.is_empty());
        assert_eq!(entries(&trees), 4);
    }

    #[test]
    fn where_sources_are_listed_each_has_an_entry() {
        let mut trees = all_want(start());
        let (unloved, behind) = (7, neighbor_of(7, ALL));
        assert_ne!(behind, 2);
        let but_one = Join::from(Some(SourceFilter::exclude([address(unloved)])));
        trees.set_received(link_to(2), OWN, GROUP, but_one, false);
        for _ in 0..2 {
            for router in ROUTERS.take(50) {
                let mut expected = others(neighbor_of(router, ALL));
                expected.retain(|l| router != unloved || *l != link_to(2));
                assert_eq!(entry_of(&mut trees, router).1, expected, "{router}");
            }
        }
        assert_eq!(entries(&trees), MAX_FORWARDING_ENTRIES);
        trees.set_received(link_to(2), OWN, GROUP, Join::All, false);
        for router in ROUTERS.take(50) {
            assert_eq!(
                entry_of(&mut trees, router).1,
                others(neighbor_of(router, ALL))
            );
        }
        assert_eq!(entries(&trees), 3);
    }

    #[test]
    fn a_tree_that_changed_takes_packets_from_where_each_source_was() {
        let now = start();
        let mut trees = all_want(now);
        position(&mut trees, TURNED, now);
        for router in ROUTERS {
            let (before, behind) = (neighbor_of(router, ALL), neighbor_of(router, TURNED));
            let mut taken = [before, behind].map(link_to).to_vec();
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(entry_of(&mut trees, router), (taken, others(behind)));
        }
        assert_eq!(entries(&trees), 3, "the edges are the same");
        trees.expire(now + PREVIOUS_TREE);
        for router in ROUTERS {
            let behind = neighbor_of(router, TURNED);
            let expected = (vec![link_to(behind)], others(behind));
            assert_eq!(entry_of(&mut trees, router), expected);
        }
        assert_eq!(entries(&trees), 3);
    }

    #[test]
    fn an_edge_that_is_none_any_more_is_served_for_a_moment() {
        let now = start();
        let mut trees = all_want(now);
        position(&mut trees, WITHOUT_THE_LAST, now);
        let last = NEIGHBORS.end - 1;
        for router in ROUTERS {
            let (before, behind) = (
                neighbor_of(router, ALL),
                neighbor_of(router, WITHOUT_THE_LAST),
            );
            let (taken, mut links) = entry_of(&mut trees, router);
            assert!(taken.contains(&link_to(before)) && taken.contains(&link_to(behind)));
            let mut expected = others(behind);
            // a sender behind the former edge does not get its packets back
            expected.retain(|l| before != last || *l != link_to(last));
            links.sort_unstable();
            assert_eq!(links, expected, "{router}");
        }
        assert_eq!(entries(&trees), MAX_FORWARDING_ENTRIES);
        trees.expire(now + PREVIOUS_TREE);
        for router in ROUTERS {
            let behind = neighbor_of(router, WITHOUT_THE_LAST);
            let mut expected = others(behind);
            expected.retain(|l| *l != link_to(last));
            assert_eq!(
                entry_of(&mut trees, router),
                (vec![link_to(behind)], expected)
            );
        }
        assert_eq!(entries(&trees), 2);
    }
}
