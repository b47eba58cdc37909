//! The ways that packets of a group take through this router, remembered.
//!
//! A way is that of all sources behind one link, so that a group may have thousands of them. Only while somebody lists
//! sources, or packets still come over edges that the tree had before, is it that of one source.

use std::net::Ipv6Addr;

use librecast::id::OriginId;
use smallvec::SmallVec;

use super::{LinkState, Place};
use crate::config::LinkId;
use crate::output::Links;
use crate::traffic::Traffic;

/// So many for each entry.
const MAX_ROUTES: usize = 16;

/// The way of packets through this router, as the tree and all interest stand.
#[derive(Debug, Clone)]
pub struct Route {
    /// The last one whose packets went this way.
    source: Ipv6Addr,
    /// It is the way of this source only.
    is_own: bool,
    /// The place in the tree of which this is true.
    version: u32,
    /// The link behind which the origin lies; `None`: this router.
    pub arrival: Option<LinkId>,
    /// The same in the trees of a moment ago.
    pub previous: Vec<LinkId>,
    /// The links that want it.
    pub links: Links,
}

/// What only entries have that carry packets.
#[derive(Debug, Default)]
pub(super) struct Active {
    routes: Routes,
    pub traffic: Traffic,
}

impl Active {
    /// The way of a source's packets, and what to count them in.
    pub fn route(&mut self, basis: Basis<'_>, source: Ipv6Addr) -> (&Route, &mut Traffic) {
        (self.routes.find(basis, source), &mut self.traffic)
    }

    /// Interest or edges are others.
    pub fn forget_routes(&mut self) {
        self.routes.0.clear();
    }
}

/// Most groups have one sender. The way that was taken last is first.
#[derive(Debug, Default)]
struct Routes(SmallVec<[Route; 1]>);

impl Routes {
    fn find(&mut self, basis: Basis<'_>, source: Ipv6Addr) -> &Route {
        let routes = &mut self.0;
        let holds = |r: &Route| r.version == basis.place.version;
        let at = if routes
            .first()
            .is_some_and(|r| r.source == source && holds(r))
        {
            Some(0)
        } else if basis.tells_sources_apart() {
            let is_its = |r: &Route| r.source == source && r.is_own && holds(r);
            routes.iter().position(is_its)
        } else {
            let arrival = basis.arrival(source);
            let leads_there = |r: &Route| r.arrival == arrival && !r.is_own && holds(r);
            routes.iter().position(leads_there)
        };
        let at = at.unwrap_or_else(|| {
            routes.retain(|r| holds(r));
            routes.truncate(MAX_ROUTES - 1);
            routes.push(basis.compute(source));
            routes.len() - 1
        });
        routes.swap(0, at);
        routes[0].source = source;
        &mut routes[0]
    }
}

/// What ways follow from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Basis<'a> {
    pub own: OriginId,
    pub place: &'a Place,
    pub links: &'a [LinkState],
    /// Somebody wants some sources only, or all but some.
    pub lists_sources: bool,
}

impl Basis<'_> {
    /// The link over which packets of `source` come; `None`: it is this router, or cannot be reached.
    fn arrival(&self, source: Ipv6Addr) -> Option<LinkId> {
        let origin = OriginId::of(source);
        let is_other = origin != self.own;
        is_other.then(|| self.place.towards(self.own, origin))?
    }

    fn compute(&self, source: Ipv6Addr) -> Route {
        let origin = OriginId::of(source);
        let arrival = self.arrival(source);
        let previous = if origin == self.own {
            Vec::new()
        } else {
            self.place.previously_towards(self.own, origin)
        };
        // over edges of before as well: who is behind them may not have heard of the change
        let leads_on = |link: LinkId| {
            let former = || !previous.contains(&link) && self.place.former_edge(link).is_some();
            Some(link) != arrival && (self.place.edge(link).is_some() || former())
        };
        let links = self.links.iter();
        let wanting = links.filter(|l| l.heard.allows(source) && leads_on(l.link));
        let links = wanting.map(|l| l.link).collect();
        Route {
            source,
            is_own: self.tells_sources_apart(),
            version: self.place.version,
            arrival,
            previous,
            links,
        }
    }

    /// Whether packets that come over one link may go different ways.
    fn tells_sources_apart(&self) -> bool {
        self.lists_sources || !self.place.previous.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::filter::Filter;
    use crate::graph::{Graph, Tree};
    use crate::testing::start;
    use crate::trees::{Edge, PREVIOUS_TREE, Trees};
    use crate::want::Want;

    const OWN: OriginId = OriginId(1);
    const GROUP: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
    /// The neighbours are routers 2, 3 and 4; the others are behind these in turn.
    const NEIGHBORS: std::ops::Range<u64> = 2..5;
    const ROUTERS: std::ops::Range<u64> = 5..1_005;

    fn address(router: u64) -> Ipv6Addr {
        Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(router))
    }

    fn link_to(router: u64) -> LinkId {
        LinkId(10 + router as u32)
    }

    /// The neighbour behind which a router lies, in one tree or in another one.
    fn neighbor_of(router: u64, turned: bool) -> u64 {
        if NEIGHBORS.contains(&router) {
            return router;
        }
        2 + (router + u64::from(turned)) % 3
    }

    fn place(trees: &mut Trees, turned: bool, now: Instant) {
        let near = NEIGHBORS.map(|n| (OWN, OriginId(n), 10));
        let far = ROUTERS.map(|n| (OriginId(neighbor_of(n, turned)), OriginId(n), 10));
        let links: Vec<_> = near.chain(far).collect();
        let graph = Arc::new(Graph::new(u64::from(turned), [OWN], &links));
        let edge = |n| Edge {
            neighbor: OriginId(n),
            link: link_to(n),
            is_parent: false,
        };
        let tree = Tree::compute(&graph, OWN).map(Arc::new);
        trees.place(OWN, tree, NEIGHBORS.map(edge).collect(), now);
    }

    fn all_want(now: Instant) -> Trees {
        let mut trees = Trees::new(OWN, 7);
        for n in NEIGHBORS {
            trees.hear(link_to(n), OWN, GROUP, Want::All, false);
        }
        place(&mut trees, false, now);
        trees
    }

    fn ways(trees: &Trees) -> usize {
        let entry = trees.lookup(OWN, GROUP).unwrap();
        entry.active.as_ref().unwrap().routes.0.len()
    }

    /// The links that packets of a router are taken from, and those that they go on over.
    fn way(trees: &mut Trees, router: u64) -> (Option<LinkId>, Vec<LinkId>, Vec<LinkId>) {
        let (route, _) = trees.route(OWN, GROUP, address(router)).unwrap();
        (route.arrival, route.previous.clone(), route.links.to_vec())
    }

    fn others(than: u64) -> Vec<LinkId> {
        NEIGHBORS.filter(|n| *n != than).map(link_to).collect()
    }

    #[test]
    fn a_thousand_sources_take_as_many_ways_as_there_are_links() {
        let mut trees = all_want(start());
        for router in ROUTERS.chain(ROUTERS.rev()) {
            let behind = neighbor_of(router, false);
            let expected = (Some(link_to(behind)), Vec::new(), others(behind));
            assert_eq!(way(&mut trees, router), expected);
        }
        let own = way(&mut trees, OWN.0);
        assert_eq!(own, (None, Vec::new(), NEIGHBORS.map(link_to).collect()));
        assert_eq!(ways(&trees), 4);
        // who is not there comes from nowhere
        assert_eq!(way(&mut trees, 9_999).0, None);
        assert_eq!(ways(&trees), 4);
    }

    #[test]
    fn where_sources_are_listed_each_has_a_way() {
        let mut trees = all_want(start());
        let (unloved, behind) = (7, neighbor_of(7, false));
        assert_ne!(behind, 2);
        let but_one = Want::from(Some(Filter::exclude([address(unloved)])));
        trees.hear(link_to(2), OWN, GROUP, but_one, false);
        for _ in 0..2 {
            for router in ROUTERS.take(50) {
                let mut expected = others(neighbor_of(router, false));
                expected.retain(|l| router != unloved || *l != link_to(2));
                assert_eq!(way(&mut trees, router).2, expected, "{router}");
            }
        }
        assert_eq!(ways(&trees), MAX_ROUTES);
        trees.hear(link_to(2), OWN, GROUP, Want::All, false);
        for router in ROUTERS.take(50) {
            assert_eq!(
                way(&mut trees, router).2,
                others(neighbor_of(router, false))
            );
        }
        assert_eq!(ways(&trees), 3);
    }

    #[test]
    fn a_tree_that_changed_takes_packets_from_where_each_source_was() {
        let now = start();
        let mut trees = all_want(now);
        let before: Vec<_> = ROUTERS.map(|n| way(&mut trees, n)).collect();
        place(&mut trees, true, now);
        for (router, before) in ROUTERS.zip(before) {
            let (arrival, previous, _) = way(&mut trees, router);
            assert_eq!(arrival, Some(link_to(neighbor_of(router, true))));
            assert_eq!(previous, Vec::from_iter(before.0));
        }
        trees.expire(now + PREVIOUS_TREE);
        for router in ROUTERS {
            let behind = neighbor_of(router, true);
            let expected = (Some(link_to(behind)), Vec::new(), others(behind));
            assert_eq!(way(&mut trees, router), expected);
        }
        assert_eq!(ways(&trees), 3);
    }
}
