//! Chooses carriers: a pure function of the sender's graph.
//!
//! A good carrier is a router in whose tree the sender is a leaf: one copy leaves the sender. Among
//! these, parts are spread so that no router sends many copies. Two greedy orders are tried, and
//! the better outcome counts: neither is best in all networks (docs/adr/routing.md).
//!
//! A detour is a carrier whose tree leads out over another link than the one that is full.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use librecast::id::OriginId;

use crate::graph::{Graph, Tree};

/// Candidates whose trees are computed, the nearest. Chosen: 64 trees of a thousand routers take 10
/// ms.
const MAX_CANDIDATES: usize = 64;
/// The same where there are more routers than [`LARGE`]. Chosen.
const MAX_CANDIDATES_IN_LARGE: usize = 16;
/// Routers of a network in which a tree takes more than a quarter of a millisecond.
const LARGE: usize = 1_500;
/// Weight of the sender's own copies in the second greedy order. From the model of adr/routing.md.
const OWN_WEIGHT: u32 = 3;

/// A candidate's tree, as far as copies are concerned.
struct Costs {
    origin: OriginId,
    /// Copies of a packet that the sender sends.
    own: u32,
    /// Copies that other routers send, by position in the graph; routers that send none are left
    /// out.
    others: Vec<(u32, u32)>,
    /// Copies that the candidate itself sends.
    root: u32,
    /// Cost of the path from the sender.
    distance: u32,
    /// The candidate, a neighbour, has joined: it listens, or a router behind it does.
    listens: bool,
    /// The candidate is a neighbour and has joined nothing.
    is_idle: bool,
}

/// The sender's place in the network.
pub struct Place<'a> {
    /// The network.
    pub graph: &'a Arc<Graph>,
    /// The sender.
    pub own: OriginId,
    /// Neighbours that have joined the groups.
    pub joined: &'a BTreeSet<OriginId>,
}

/// A carrier for each of `parts` parts; fewer where there is no candidate. `assigned` are the
/// carriers of other parts.
pub fn choose(
    place: &Place<'_>,
    candidates: &[OriginId],
    assigned: &[OriginId],
    parts: usize,
) -> Vec<OriginId> {
    let costs = costs(place, candidates, assigned);
    let is_candidate = |c: &&Costs| candidates.contains(&c.origin);
    if parts == 1 && assigned.is_empty() {
        let single = |c: &&Costs| {
            let cost = (c.own, c.root, !c.listens);
            (c.is_idle, cost, c.distance, c.origin)
        };
        let best = costs.iter().filter(is_candidate).min_by_key(single);
        return best.map(|c| c.origin).into_iter().collect();
    }
    let routers = place.graph.len();
    let first = greedy(&costs, candidates, assigned, parts, routers, |c, loads| {
        (c.own, loads.most(), loads.own)
    });
    let second = greedy(&costs, candidates, assigned, parts, routers, |_, loads| {
        (loads.most().max(OWN_WEIGHT * loads.own), loads.own, 0)
    });
    let value = |(_, loads): &(Vec<OriginId>, Loads)| (loads.most().max(loads.own), loads.own);
    let better = if value(&second) < value(&first) {
        second
    } else {
        first
    };
    better.0
}

/// Copies of one packet of each part, by router.
#[derive(Clone)]
struct Loads {
    own: u32,
    others: Vec<u32>,
    most: u32,
}

impl Loads {
    fn most(&self) -> u32 {
        self.most
    }

    fn add(&mut self, costs: &Costs) {
        self.own += costs.own;
        for (at, copies) in &costs.others {
            let load = &mut self.others[*at as usize];
            *load += copies;
            self.most = self.most.max(*load);
        }
    }

    /// The largest load of another router with one part more.
    fn with(&self, costs: &Costs) -> Self {
        let mut after = Self {
            own: self.own + costs.own,
            others: Vec::new(),
            most: self.most,
        };
        for (at, copies) in &costs.others {
            after.most = after.most.max(self.others[*at as usize] + copies);
        }
        after
    }
}

/// Part by part, the candidate with the least `value`: among equals the one that listens, then the
/// one with fewer parts. Neighbours that do not listen come last.
fn greedy<K: Ord>(
    costs: &[Costs],
    candidates: &[OriginId],
    assigned: &[OriginId],
    parts: usize,
    routers: usize,
    value: impl Fn(&Costs, &Loads) -> K,
) -> (Vec<OriginId>, Loads) {
    let mut loads = Loads {
        own: 0,
        others: vec![0; routers],
        most: 0,
    };
    for carrier in assigned {
        if let Some(c) = costs.iter().find(|c| c.origin == *carrier) {
            loads.add(c);
        }
    }
    let mut chosen = Vec::with_capacity(parts);
    for _ in 0..parts {
        let held = |origin: OriginId| {
            let all = assigned.iter().chain(&chosen);
            all.filter(|carrier| **carrier == origin).count()
        };
        let key = |c: &&Costs| {
            let value = value(c, &loads.with(c));
            let last = (!c.listens, held(c.origin), c.distance, c.origin);
            (c.is_idle, value, last)
        };
        let best = costs.iter().filter(|c| candidates.contains(&c.origin));
        let Some(best) = best.min_by_key(key) else {
            break;
        };
        loads.add(best);
        chosen.push(best.origin);
    }
    (chosen, loads)
}

/// For each neighbour but the `closed` ones a carrier to which it is the first hop, with the fewest
/// routers that only the joined links lead to, then the nearest.
pub fn detours(
    place: &Place<'_>,
    candidates: &[OriginId],
    closed: &BTreeSet<OriginId>,
) -> BTreeMap<OriginId, OriginId> {
    let Some(own_tree) = Tree::compute(place.graph, place.own) else {
        return BTreeMap::new();
    };
    // a full link with nobody behind it is that neighbour's own: no way around it is better
    let others = place.graph.routers().iter();
    let others = others.filter(|x| !place.joined.contains(x));
    let behind = |x: &&OriginId| {
        let mut links = place.joined.iter();
        links.any(|link| is_behind(&own_tree, *link, **x))
    };
    let behind: Vec<_> = others.filter(behind).collect();
    let mut best: BTreeMap<OriginId, (usize, u32, OriginId)> = BTreeMap::new();
    for (distance, carrier) in nearest(place, candidates, &own_tree) {
        let tree = Tree::compute(place.graph, carrier);
        let Some((hop, tree)) = tree.and_then(|tree| Some((tree.parent(place.own)?, tree))) else {
            continue;
        };
        let over_own = behind.iter().filter(|x| is_behind(&tree, place.own, ***x));
        let left = over_own.count();
        // a dead end leads back over the full link
        if closed.contains(&hop) || left == behind.len() {
            continue;
        }
        let value = (left, distance, carrier);
        let known = best.entry(hop).or_insert(value);
        *known = value.min(*known);
    }
    best.into_iter().map(|(hop, (.., x))| (hop, x)).collect()
}

/// Whether `x` is `top`, or below it.
fn is_behind(tree: &Tree, top: OriginId, x: OriginId) -> bool {
    let (Some((first, end)), Some((number, _))) = (tree.span(top), tree.span(x)) else {
        return false;
    };
    (first..end).contains(&number)
}

/// The nearest candidates with their distances, those that have joined first.
fn nearest(place: &Place<'_>, candidates: &[OriginId], own_tree: &Tree) -> Vec<(u32, OriginId)> {
    let near = |x: &OriginId| own_tree.distance(*x).map(|distance| (distance, *x));
    let mut nearest: Vec<_> = candidates.iter().filter_map(near).collect();
    nearest
        .sort_unstable_by_key(|(distance, x)| (Reverse(place.joined.contains(x)), *distance, *x));
    nearest.truncate(match place.graph.len() {
        0..=LARGE => MAX_CANDIDATES,
        _ => MAX_CANDIDATES_IN_LARGE,
    });
    nearest
}

/// Costs of the nearest candidates, and of the routers that carry something already.
fn costs(place: &Place<'_>, candidates: &[OriginId], assigned: &[OriginId]) -> Vec<Costs> {
    let Some(own_tree) = Tree::compute(place.graph, place.own) else {
        return Vec::new();
    };
    let near = |x: &OriginId| own_tree.distance(*x).map(|distance| (distance, *x));
    let nearest = nearest(place, candidates, &own_tree);
    let neighbors: BTreeSet<_> = place.graph.neighbors(place.own).map(|(x, _)| x).collect();
    let is_neighbor = |x| neighbors.contains(&x);
    let assigned: BTreeSet<_> = assigned.iter().filter_map(near).collect();
    let all: BTreeSet<_> = nearest.into_iter().chain(assigned).collect();
    let costs = all.into_iter().filter_map(|(distance, origin)| {
        let tree = Tree::compute(place.graph, origin)?;
        let copies = |x: OriginId| tree.children(x).count() as u32;
        let own = tree
            .children(place.own)
            .filter(|child| place.joined.contains(child));
        // the edge towards the carrier always takes one
        let own = 1 + own.count() as u32;
        let routers = place.graph.routers().iter().zip(0..);
        let others = routers.filter(|(x, _)| **x != place.own);
        let others = others.filter_map(|(x, at)| {
            // a packet comes over one edge and leaves over the others; at the root all are children
            let edges = copies(*x) + u32::from(tree.parent(*x).is_some());
            let sent = edges.checked_sub(1).filter(|sent| *sent > 0)?;
            Some((at, sent))
        });
        Some(Costs {
            origin,
            own,
            others: others.collect(),
            root: copies(origin).saturating_sub(1),
            distance,
            listens: place.joined.contains(&origin),
            is_idle: is_neighbor(origin) && !place.joined.contains(&origin),
        })
    });
    costs.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn graph(routers: u64, links: impl IntoIterator<Item = (u64, u64)>) -> Arc<Graph> {
        let routers = (1..=routers).map(OriginId);
        let link = |(a, b)| (OriginId(a), OriginId(b), 10_u16);
        let links: Vec<_> = links.into_iter().map(link).collect();
        Arc::new(Graph::new(1, routers, &links))
    }

    fn mesh(n: u64) -> Arc<Graph> {
        graph(n, (1..=n).flat_map(move |b| (1..b).map(move |a| (a, b))))
    }

    fn ids(of: impl IntoIterator<Item = u64>) -> Vec<OriginId> {
        of.into_iter().map(OriginId).collect()
    }

    fn shares(chosen: &[OriginId]) -> BTreeMap<OriginId, usize> {
        let mut shares = BTreeMap::new();
        for carrier in chosen {
            *shares.entry(*carrier).or_default() += 1;
        }
        shares
    }

    #[test]
    fn in_a_mesh_parts_are_spread_evenly() {
        let graph = mesh(6);
        let joined = ids(2..=6).into_iter().collect();
        let place = Place {
            graph: &graph,
            own: OriginId(1),
            joined: &joined,
        };
        let chosen = choose(&place, &ids(2..=6), &[], 16);
        let shares = shares(&chosen);
        assert_eq!(chosen.len(), 16);
        assert!(shares.len() == 5 && shares.values().all(|n| (3..=4).contains(n)));
        // a part that has lost its carrier goes to the one with the fewest
        let again = choose(&place, &ids(3..=6), &ids([3, 3, 4, 5, 5]), 1);
        assert_eq!(again, ids([6]));
        assert_eq!(choose(&place, &[], &[], 4), []);
    }

    #[test]
    fn a_carrier_behind_which_the_sender_is_a_leaf_comes_first() {
        // 1 - 2 - 3 in a row and 4 beside 1: in the tree of 2, 1 passes on to 4; in none it is a
        // leaf
        let graph = graph(5, [(1, 2), (2, 3), (1, 4), (4, 5), (3, 5)]);
        let joined = ids([2, 4]).into_iter().collect();
        let place = Place {
            graph: &graph,
            own: OriginId(1),
            joined: &joined,
        };
        // a ring of five: in the tree of 3 or 5, opposite, 1 is a leaf
        let chosen = choose(&place, &ids([2, 3, 4, 5]), &[], 1);
        let tree = Tree::compute(&graph, chosen[0]).unwrap();
        assert_eq!(tree.children(OriginId(1)).count(), 0, "{chosen:?}");
    }

    #[test]
    fn a_detour_begins_with_another_link() {
        // 1 - {2, 3} - 4 - 5, and 6 beside 1 alone
        let graph = graph(6, [(1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (1, 6)]);
        let joined = ids([2]).into_iter().collect();
        let place = Place {
            graph: &graph,
            own: OriginId(1),
            joined: &joined,
        };
        let candidates = ids(2..=6);
        let found = detours(&place, &candidates, &joined);
        assert_eq!(found[&OriginId(3)], OriginId(3));
        assert_eq!(found.len(), 1, "2 is full, 6 a dead end: {found:?}");
        // the next one behind 3, if the tree of any leads there
        let others = ids([4, 5]);
        for (hop, carrier) in detours(&place, &others, &joined) {
            let tree = Tree::compute(&graph, carrier).unwrap();
            assert_eq!(tree.parent(OriginId(1)), Some(hop));
            assert_eq!(hop, OriginId(3));
        }
        let all = ids([2, 3]).into_iter().collect();
        assert_eq!(detours(&place, &candidates, &all), BTreeMap::new());
        // a listener over a link of its own, and another link beside
        let graph = mesh(4);
        let direct = Place {
            graph: &graph,
            ..place
        };
        assert_eq!(detours(&direct, &ids(2..=4), &joined), BTreeMap::new());
    }

    #[test]
    fn routers_that_are_not_reached_are_no_carriers() {
        let graph = graph(4, [(1, 2), (3, 4)]);
        let joined = BTreeSet::new();
        let place = Place {
            graph: &graph,
            own: OriginId(1),
            joined: &joined,
        };
        let chosen = choose(&place, &ids([3, 4, 2]), &[], 2);
        assert_eq!(chosen, ids([2, 2]));
    }
}
