//! The network as its link state describes it, and shortest-path trees in it.
//!
//! Both are the same, bit for bit, on all routers with the same link state: nothing in them depends on
//! who computes them, so a host that runs many routers can share them ([`crate::Services`]).
//!
//! A [`Tree`] numbers its routers in preorder, so that the routers behind each of its edges are one
//! interval of numbers: "behind which edge of mine does X lie" is a comparison and a binary search.
//!
//! ```text
//!            a 0..6                       interval: own number .. one past the last below it
//!          /        \
//!      b 1..4      e 4..6                 X = d (3), asked at b: 3 lies in 3..4, child d
//!      /    \          \                  X = f (5), asked at b: 5 is not in 1..4, so the parent
//!   c 2..3  d 3..4    f 5..6
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use librecast::id::OriginId;

const NONE: u32 = u32::MAX;

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `z`.
pub(crate) fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Of several parents with equal distance a router takes the one with the lowest value.
fn tie_break(root: OriginId, parent: OriginId, child: OriginId) -> u64 {
    mix(mix(mix(root.0) ^ parent.0) ^ child.0)
}

/// What a two-way link adds to a graph's digest.
pub(crate) fn link_digest(a: OriginId, b: OriginId, cost: u16) -> u64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    mix(mix(mix(low.0) ^ high.0) ^ u64::from(cost))
}

/// What a router adds to a graph's digest.
pub(crate) fn router_digest(origin: OriginId) -> u64 {
    mix(!origin.0)
}

/// One direction of a link.
#[derive(Debug, Clone, Copy)]
struct Edge {
    to: u32,
    cost: u16,
}

/// A link: two routers, and its cost.
pub(crate) type Between = (OriginId, OriginId, u16);

/// Routers and the two-way links between them.
#[derive(Debug)]
pub struct Graph {
    digest: u64,
    /// In ascending order; everything else speaks of positions in here.
    routers: Vec<OriginId>,
    /// Where the routers begin whose first bits are these: ids are hashes and spread evenly.
    index: Vec<u32>,
    index_shift: u32,
    /// Where the edges of each router begin, and one past the last.
    first: Vec<u32>,
    /// By router, then by far end.
    edges: Vec<Edge>,
    /// Routers of equal number reach one another.
    component: Vec<u32>,
    /// At this number: what names the routers of the component.
    members: Vec<u64>,
}

impl Graph {
    /// A graph with these routers, and links between them; both ends of a link are added where they
    /// are missing. A link given twice counts once, at the larger cost. Costs are in units of 100 us,
    /// at least 1. At most 2^24 routers. `digest` names the content.
    #[must_use]
    pub fn new(
        digest: u64,
        routers: impl IntoIterator<Item = OriginId>,
        links: &[(OriginId, OriginId, u16)],
    ) -> Self {
        let mut names: Vec<OriginId> = routers.into_iter().collect();
        names.extend(links.iter().flat_map(|&(a, b, _)| [a, b]));
        names.sort_unstable();
        names.dedup();
        let upward = |&(a, b, cost): &Between| (a.min(b), a.max(b), cost.max(1));
        let mut links: Vec<Between> = links.iter().map(upward).filter(|l| l.0 != l.1).collect();
        links.sort_unstable_by_key(|&(a, b, cost)| (a, b, std::cmp::Reverse(cost)));
        links.dedup_by_key(|&mut (a, b, _)| (a, b));
        Self::of_sorted(digest, names, &links)
    }

    /// The same of routers in ascending order, and of links between them that are there once, from the lower
    /// router to the higher, in ascending order.
    pub(crate) fn of_sorted(digest: u64, routers: Vec<OriginId>, links: &[Between]) -> Self {
        let mut graph = Self {
            digest,
            component: vec![NONE; routers.len()],
            members: Vec::new(),
            routers,
            index: Vec::new(),
            index_shift: 0,
            first: Vec::new(),
            edges: Vec::new(),
        };
        graph.build_index();
        graph.build_edges(links);
        graph.find_components();
        graph.members = vec![0; graph.routers.len()];
        for (origin, component) in graph.routers.iter().zip(&graph.component) {
            graph.members[*component as usize] ^= router_digest(*origin);
        }
        graph
    }

    fn build_index(&mut self) {
        // as many parts as routers, a power of two
        let bits = self.routers.len().max(2).next_power_of_two().ilog2();
        self.index_shift = 64 - bits;
        self.index = vec![0; (1 << bits) + 1];
        for origin in &self.routers {
            self.index[(origin.0 >> self.index_shift) as usize + 1] += 1;
        }
        for at in 1..self.index.len() {
            self.index[at] += self.index[at - 1];
        }
    }

    fn build_edges(&mut self, links: &[Between]) {
        let place = |&(a, b, cost): &Between| Some((self.index(a)?, self.index(b)?, cost));
        let links: Vec<(usize, usize, u16)> = links.iter().filter_map(place).collect();
        self.first = vec![0; self.routers.len() + 1];
        for (a, b, _) in &links {
            self.first[a + 1] += 1;
            self.first[b + 1] += 1;
        }
        for at in 1..self.first.len() {
            self.first[at] += self.first[at - 1];
        }
        // by the order of links, each router gets those to lower ones first, and both kinds in order
        let mut next = self.first.clone();
        self.edges = vec![Edge { to: 0, cost: 0 }; 2 * links.len()];
        for (a, b, cost) in links {
            for (at, to) in [(a, b), (b, a)] {
                let to = to as u32;
                self.edges[next[at] as usize] = Edge { to, cost };
                next[at] += 1;
            }
        }
    }

    /// Names the content: graphs with equal digest are equal.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Number of routers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.routers.len()
    }

    /// Whether there are no routers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routers.is_empty()
    }

    /// Whether it is one of the routers.
    #[must_use]
    pub fn contains(&self, x: OriginId) -> bool {
        self.index(x).is_some()
    }

    /// All routers, in ascending order.
    #[must_use]
    pub fn routers(&self) -> &[OriginId] {
        &self.routers
    }

    /// Whether links lead from one to the other.
    #[must_use]
    pub fn connected(&self, a: OriginId, b: OriginId) -> bool {
        match (self.index(a), self.index(b)) {
            (Some(a), Some(b)) => self.component[a] == self.component[b],
            _ => false,
        }
    }

    /// The routers that can be reached from `x`, itself included, in ascending order.
    pub fn reachable(&self, x: OriginId) -> impl Iterator<Item = OriginId> + '_ {
        let wanted = self.index(x).map(|at| self.component[at]);
        self.routers
            .iter()
            .zip(&self.component)
            .filter(move |&(_, component)| wanted == Some(*component))
            .map(|(origin, _)| *origin)
    }

    /// Names the set of routers that can be reached from `x`.
    pub(crate) fn reachable_digest(&self, x: OriginId) -> Option<u64> {
        let at = self.index(x)?;
        Some(self.members[self.component[at] as usize])
    }

    /// The neighbours of `x` in ascending order, with the costs of the links.
    pub fn neighbors(&self, x: OriginId) -> impl Iterator<Item = (OriginId, u16)> + '_ {
        self.index(x)
            .into_iter()
            .flat_map(|at| self.edges_of(at))
            .map(|edge| (self.routers[edge.to as usize], edge.cost))
    }

    fn index(&self, x: OriginId) -> Option<usize> {
        let part = (x.0 >> self.index_shift) as usize;
        let (from, to) = (self.index[part] as usize, self.index[part + 1] as usize);
        let at = self.routers[from..to].binary_search(&x).ok()?;
        Some(from + at)
    }

    fn edges_of(&self, at: usize) -> &[Edge] {
        &self.edges[self.first[at] as usize..self.first[at + 1] as usize]
    }

    fn find_components(&mut self) {
        let mut waiting = Vec::new();
        for start in 0..self.routers.len() {
            if self.component[start] != NONE {
                continue;
            }
            self.component[start] = start as u32;
            waiting.push(start);
            while let Some(at) = waiting.pop() {
                for edge in self.first[at]..self.first[at + 1] {
                    let to = self.edges[edge as usize].to as usize;
                    if self.component[to] == NONE {
                        self.component[to] = start as u32;
                        waiting.push(to);
                    }
                }
            }
        }
    }
}

/// The shortest-path tree of a router, over all routers that it reaches.
#[derive(Debug)]
pub struct Tree {
    graph: Arc<Graph>,
    root: u32,
    /// By position in the graph, as all that follow; `NONE`: not reached.
    distance: Vec<u32>,
    depth: Vec<u16>,
    parent: Vec<u32>,
    /// Preorder.
    number: Vec<u32>,
    /// One past the last number of the subtree.
    end: Vec<u32>,
    /// Where the children of each router begin, and one past the last.
    first_child: Vec<u32>,
    /// By parent, then by number.
    children: Vec<u32>,
    mean_distance: Option<u16>,
}

impl Tree {
    /// The tree of `root`; `None` if the graph does not contain it.
    #[must_use]
    pub fn compute(graph: &Arc<Graph>, root: OriginId) -> Option<Self> {
        let start = graph.index(root)?;
        let n = graph.len();
        let mut tree = Self {
            graph: Arc::clone(graph),
            root: start as u32,
            distance: vec![NONE; n],
            depth: vec![0; n],
            parent: vec![NONE; n],
            number: vec![NONE; n],
            end: vec![NONE; n],
            first_child: vec![0; n + 1],
            children: Vec::new(),
            mean_distance: None,
        };
        let order = tree.find_paths(graph, start);
        tree.number(&order);
        let sum: u64 = order
            .iter()
            .map(|&at| u64::from(tree.distance[at as usize]))
            .sum();
        tree.mean_distance = sum
            .checked_div(order.len() as u64 - 1)
            .map(|mean| mean.min(u64::from(u16::MAX - 1)) as u16);
        Some(tree)
    }

    /// Dijkstra's algorithm. Returns the routers reached, each behind its parent.
    fn find_paths(&mut self, graph: &Graph, start: usize) -> Vec<u32> {
        let root = graph.routers[start];
        let mut order = Vec::with_capacity(graph.len());
        let mut settled = vec![false; graph.len()];
        // distance in the upper half, position in the lower
        let mut waiting = BinaryHeap::with_capacity(graph.len());
        self.distance[start] = 0;
        waiting.push(Reverse(start as u64));
        while let Some(Reverse(packed)) = waiting.pop() {
            let at = (packed & u64::from(u32::MAX)) as usize;
            if std::mem::replace(&mut settled[at], true) {
                continue;
            }
            order.push(at as u32);
            let distance = self.distance[at];
            for edge in graph.edges_of(at) {
                let to = edge.to as usize;
                let through = distance.saturating_add(u32::from(edge.cost));
                if settled[to] || through > self.distance[to] {
                    continue;
                }
                if through < self.distance[to] {
                    self.distance[to] = through;
                    self.parent[to] = at as u32;
                    waiting.push(Reverse(u64::from(through) << 32 | to as u64));
                    continue;
                }
                let value = |parent: u32| {
                    let name = |at: usize| graph.routers[at];
                    (tie_break(root, name(parent as usize), name(to)), parent)
                };
                if value(at as u32) < value(self.parent[to]) {
                    self.parent[to] = at as u32;
                }
            }
        }
        order
    }

    /// Numbers the routers; `order` has each behind its parent.
    fn number(&mut self, order: &[u32]) {
        let n = self.distance.len();
        let mut size = vec![1u32; n];
        for &at in order.iter().rev() {
            let at = at as usize;
            if let Some(parent) = self.parent_index(at) {
                size[parent] += size[at];
                self.first_child[parent + 1] += 1;
            }
        }
        for at in 1..=n {
            self.first_child[at] += self.first_child[at - 1];
        }
        self.children = vec![NONE; order.len() - 1];
        let mut next_child = self.first_child.clone();
        let mut next_number = vec![0u32; n];
        for &position in order {
            let at = position as usize;
            let number = match self.parent_index(at) {
                None => 0,
                Some(parent) => {
                    self.depth[at] = self.depth[parent].saturating_add(1);
                    self.children[next_child[parent] as usize] = position;
                    next_child[parent] += 1;
                    let number = next_number[parent];
                    next_number[parent] += size[at];
                    number
                }
            };
            self.number[at] = number;
            self.end[at] = number + size[at];
            next_number[at] = number + 1;
        }
    }

    /// The graph that it is a tree of.
    #[must_use]
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The router whose tree it is.
    #[must_use]
    pub fn root(&self) -> OriginId {
        self.graph.routers[self.root as usize]
    }

    /// Whether the root reaches `x`.
    #[must_use]
    pub fn contains(&self, x: OriginId) -> bool {
        self.index(x).is_some()
    }

    /// The next router towards the root; `None` for the root itself and routers that are not reached.
    #[must_use]
    pub fn parent(&self, x: OriginId) -> Option<OriginId> {
        let parent = self.parent_index(self.index(x)?)?;
        Some(self.graph.routers[parent])
    }

    /// The routers whose parent is `x`.
    pub fn children(&self, x: OriginId) -> impl Iterator<Item = OriginId> + '_ {
        self.index(x)
            .into_iter()
            .flat_map(|at| self.children_of(at))
            .map(|&child| self.graph.routers[child as usize])
    }

    /// Whether the two are joined by an edge of the tree.
    #[must_use]
    pub fn is_edge(&self, a: OriginId, b: OriginId) -> bool {
        self.parent(a) == Some(b) || self.parent(b) == Some(a)
    }

    /// The tree neighbour of `me` behind which `x` lies; `None` if they are the same, or one of them is
    /// not reached.
    #[must_use]
    pub fn edge(&self, me: OriginId, x: OriginId) -> Option<OriginId> {
        let (me, x) = (self.index(me)?, self.index(x)?);
        let number = self.number[x];
        let next = if number < self.number[me] || number >= self.end[me] {
            self.parent_index(me)?
        } else {
            let children = self.children_of(me);
            let behind = children.partition_point(|&child| self.number[child as usize] <= number);
            // the last child that does not begin after x; x == me lies before all of them
            *children.get(behind.checked_sub(1)?)? as usize
        };
        Some(self.graph.routers[next])
    }

    /// Cost of the path from the root, in units of 100 us.
    #[must_use]
    pub fn distance(&self, x: OriginId) -> Option<u32> {
        self.index(x).map(|at| self.distance[at])
    }

    /// Links between the root and `x`.
    #[must_use]
    pub fn depth(&self, x: OriginId) -> Option<u16> {
        self.index(x).map(|at| self.depth[at])
    }

    /// Mean distance of all other routers reached, at most 65,534; `None` if there are none.
    #[must_use]
    pub fn mean_distance(&self) -> Option<u16> {
        self.mean_distance
    }

    /// The position of a router that is reached.
    fn index(&self, x: OriginId) -> Option<usize> {
        self.graph.index(x).filter(|&at| self.distance[at] != NONE)
    }

    fn parent_index(&self, at: usize) -> Option<usize> {
        let parent = self.parent[at];
        (parent != NONE).then_some(parent as usize)
    }

    fn children_of(&self, at: usize) -> &[u32] {
        &self.children[self.first_child[at] as usize..self.first_child[at + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Links = Vec<(OriginId, OriginId, u16)>;

    fn graph(routers: u64, links: &Links) -> Arc<Graph> {
        Arc::new(Graph::new(0, (1..=routers).map(OriginId), links))
    }

    fn link(a: u64, b: u64, cost: u16) -> (OriginId, OriginId, u16) {
        (OriginId(a), OriginId(b), cost)
    }

    /// Distances by another algorithm: relaxing all links until nothing changes.
    fn bellman_ford(routers: u64, links: &Links, root: u64) -> Vec<Option<u32>> {
        let mut distance = vec![None; routers as usize + 1];
        distance[root as usize] = Some(0u32);
        for _ in 0..routers {
            for &(a, b, cost) in links {
                for (a, b) in [(a.0 as usize, b.0 as usize), (b.0 as usize, a.0 as usize)] {
                    let through = distance[a].map(|d| d + u32::from(cost));
                    if let Some(through) = through
                        && distance[b].is_none_or(|d| through < d)
                    {
                        distance[b] = Some(through);
                    }
                }
            }
        }
        distance
    }

    #[test]
    fn a_lone_router_is_its_own_tree() {
        let graph = graph(1, &vec![]);
        let (me, other) = (OriginId(1), OriginId(2));
        let tree = Tree::compute(&graph, me).unwrap();
        assert!(tree.contains(me) && !tree.contains(other));
        assert_eq!((tree.root(), tree.parent(me)), (me, None));
        assert_eq!((tree.edge(me, me), tree.edge(me, other)), (None, None));
        assert_eq!(tree.mean_distance(), None);
        assert_eq!((tree.distance(me), tree.depth(me)), (Some(0), Some(0)));
        assert!(Tree::compute(&graph, other).is_none());
    }

    #[test]
    fn the_picture_above() {
        let links = vec![
            link(1, 2, 10),
            link(2, 3, 10),
            link(2, 4, 10),
            link(1, 5, 10),
            link(5, 6, 10),
            link(3, 6, 1000),
        ];
        let graph = graph(7, &links);
        let tree = Tree::compute(&graph, OriginId(1)).unwrap();
        let edge = |me, x| tree.edge(OriginId(me), OriginId(x)).map(|e| e.0);
        assert_eq!(edge(2, 4), Some(4));
        assert_eq!(edge(2, 6), Some(1));
        assert_eq!(edge(1, 6), Some(5));
        assert_eq!(edge(6, 3), Some(5));
        assert_eq!(edge(2, 7), None, "not reached");
        assert_eq!(edge(7, 2), None);
        let children: Vec<_> = tree.children(OriginId(2)).map(|c| c.0).collect();
        assert_eq!(children.len(), 2);
        assert!(children.contains(&3) && children.contains(&4));
        assert_eq!(tree.mean_distance(), Some((10 + 20 + 20 + 10 + 20) / 5));
        assert!(graph.connected(OriginId(1), OriginId(6)));
        assert!(!graph.connected(OriginId(1), OriginId(7)));
        assert_eq!(graph.reachable(OriginId(7)).count(), 1);
    }

    #[test]
    fn a_link_given_twice_counts_at_its_larger_cost() {
        let graph = graph(2, &vec![link(1, 2, 30), link(2, 1, 70), link(1, 1, 5)]);
        let neighbors: Vec<_> = graph.neighbors(OriginId(1)).collect();
        assert_eq!(neighbors, [(OriginId(2), 70)]);
    }

    #[test]
    fn ties_spread_over_roots() {
        // a ring of four: the router opposite the root has two parents at equal cost
        let parents = (0u64..64)
            .map(|n| {
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| mix(4 * n + i));
                let links = vec![
                    link(a, b, 10),
                    link(b, c, 10),
                    link(c, d, 10),
                    link(d, a, 10),
                ];
                let graph = Arc::new(Graph::new(0, [], &links));
                let tree = Tree::compute(&graph, OriginId(a)).unwrap();
                let parent = tree.parent(OriginId(c)).unwrap().0;
                assert!(parent == b || parent == d);
                u32::from(parent == b.min(d))
            })
            .sum::<u32>();
        assert!(
            (16..48).contains(&parents),
            "{parents} of 64 took the lower"
        );
    }

    /// What other implementations have to compute.
    #[test]
    fn golden_tie_break() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(
            tie_break(OriginId(1), OriginId(2), OriginId(3)),
            mix(mix(mix(1) ^ 2) ^ 3)
        );
    }

    fn any_links() -> impl Strategy<Value = (u64, Links)> {
        (2u64..40).prop_flat_map(|n| {
            let link = (1..=n, 1..=n, prop_oneof![Just(10u16), 1u16..100])
                .prop_filter("two ends", |(a, b, _)| a != b)
                .prop_map(|(a, b, cost)| link(a.min(b), a.max(b), cost));
            let links = prop::collection::vec(link, 0..120).prop_map(|mut links| {
                links.sort_unstable();
                links.dedup_by_key(|&mut (a, b, _)| (a, b));
                links
            });
            (Just(n), links)
        })
    }

    proptest! {
        #[test]
        fn trees_are_right_and_the_same_everywhere((n, links) in any_links(), root in 1u64..40) {
            let root = 1 + root % n;
            let graph = graph(n, &links);
            let tree = Tree::compute(&graph, OriginId(root)).unwrap();
            let expected = bellman_ford(n, &links, root);
            // another router has heard of the links in another order and direction
            let turned: Links = links.iter().rev().map(|&(a, b, cost)| (b, a, cost)).collect();
            let other = Arc::new(Graph::new(0, (1..=n).rev().map(OriginId), &turned));
            let other = Tree::compute(&other, OriginId(root)).unwrap();
            for x in (1..=n).map(OriginId) {
                prop_assert_eq!(tree.distance(x), expected[x.0 as usize]);
                prop_assert_eq!(tree.parent(x), other.parent(x));
                prop_assert_eq!(graph.connected(OriginId(root), x), tree.contains(x));
                if let Some(parent) = tree.parent(x) {
                    let cost = graph.neighbors(x).find(|&(to, _)| to == parent).unwrap().1;
                    prop_assert_eq!(tree.distance(x).unwrap(), tree.distance(parent).unwrap() + u32::from(cost));
                    prop_assert_eq!(tree.depth(x).unwrap(), tree.depth(parent).unwrap() + 1);
                    prop_assert!(tree.children(parent).any(|child| child == x));
                    prop_assert!(tree.is_edge(x, parent) && tree.is_edge(parent, x));
                }
                for child in tree.children(x) {
                    prop_assert_eq!(tree.parent(child), Some(x));
                }
            }
        }

        #[test]
        fn an_edge_leads_along_the_path((n, links) in any_links(), root in 1u64..40) {
            let root = OriginId(1 + root % n);
            let graph = graph(n, &links);
            let tree = Tree::compute(&graph, root).unwrap();
            for me in (1..=n).map(OriginId) {
                for x in (1..=n).map(OriginId) {
                    if me == x || !tree.contains(me) || !tree.contains(x) {
                        prop_assert_eq!(tree.edge(me, x), None);
                        continue;
                    }
                    // edge by edge from me, x is reached in at most n steps and without a turn
                    let (mut at, mut before, mut steps) = (me, None, 0);
                    while at != x {
                        let next = tree.edge(at, x).unwrap();
                        prop_assert!(tree.is_edge(at, next));
                        prop_assert_ne!(Some(next), before);
                        before = Some(at);
                        at = next;
                        steps += 1;
                        prop_assert!(steps <= n);
                    }
                }
            }
        }
    }
}
