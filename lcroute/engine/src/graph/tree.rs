//! Shortest-path trees: computed, or updated after links have changed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use librecast::id::OriginId;

use super::{Edge, Graph, NONE, tie_break};

/// Routers by distance, which is in the upper half; the position is in the lower.
type Waiting = BinaryHeap<Reverse<u64>>;

fn packed(distance: u32, at: usize) -> u64 {
    u64::from(distance) << 32 | at as u64
}

fn position(packed: u64) -> usize {
    (packed & u64::from(u32::MAX)) as usize
}

/// The shortest-path tree of a router, over all routers that it reaches.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree {
    graph: Arc<Graph>,
    root: u32,
    /// By position in the graph, as all fields below; `NONE`: not reached.
    distance: Vec<u32>,
    depth: Vec<u16>,
    parent: Vec<u32>,
    /// Preorder.
    number: Vec<u32>,
    /// One past the last number of the subtree.
    end: Vec<u32>,
    /// Start of each router's children in `children`, and the end of the last.
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
        let mut tree = Self::blank(graph, start);
        tree.find_paths();
        tree.number();
        Some(tree)
    }

    fn blank(graph: &Arc<Graph>, root: usize) -> Self {
        let n = graph.len();
        Self {
            graph: Arc::clone(graph),
            root: root as u32,
            distance: vec![NONE; n],
            depth: vec![0; n],
            parent: vec![NONE; n],
            number: vec![NONE; n],
            end: vec![NONE; n],
            first_child: vec![0; n + 1],
            children: Vec::new(),
            mean_distance: None,
        }
    }

    /// Dijkstra's algorithm.
    fn find_paths(&mut self) {
        let graph = Arc::clone(&self.graph);
        let (start, root) = (self.root as usize, self.root());
        let mut settled = vec![false; graph.len()];
        let mut waiting = Waiting::with_capacity(graph.len());
        self.distance[start] = 0;
        waiting.push(Reverse(packed(0, start)));
        while let Some(Reverse(next)) = waiting.pop() {
            let at = position(next);
            if std::mem::replace(&mut settled[at], true) {
                continue;
            }
            let distance = self.distance[at];
            for edge in graph.edges_through(at, Some(start)) {
                let to = edge.to as usize;
                let through = distance.saturating_add(edge.cost());
                if settled[to] || through > self.distance[to] {
                    continue;
                }
                if through < self.distance[to] {
                    self.distance[to] = through;
                    self.parent[to] = at as u32;
                    waiting.push(Reverse(packed(through, to)));
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
    }

    /// Numbers the reached routers in preorder, children of one parent in ascending order;
    /// distances and parents must be known.
    fn number(&mut self) {
        let n = self.distance.len();
        for at in 0..n {
            if let Some(parent) = self.parent_index(at) {
                self.first_child[parent + 1] += 1;
            }
        }
        for at in 1..=n {
            self.first_child[at] += self.first_child[at - 1];
        }
        let mut next_child = self.first_child.clone();
        self.children = vec![NONE; self.first_child[n] as usize];
        for at in 0..n {
            if let Some(parent) = self.parent_index(at) {
                self.children[next_child[parent] as usize] = at as u32;
                next_child[parent] += 1;
            }
        }
        let mut order = Vec::with_capacity(self.children.len() + 1);
        let mut waiting = vec![self.root];
        while let Some(at) = waiting.pop() {
            let at = at as usize;
            self.number[at] = order.len() as u32;
            order.push(at);
            let children = self.first_child[at] as usize..self.first_child[at + 1] as usize;
            let depth = self.depth[at].saturating_add(1);
            for child in self.children[children].iter().rev() {
                self.depth[*child as usize] = depth;
                waiting.push(*child);
            }
        }
        // the last child ends where its parent does
        for at in order.into_iter().rev() {
            let end = match self.children_of(at).last() {
                Some(last) => self.end[*last as usize],
                None => self.number[at] + 1,
            };
            self.end[at] = end;
        }
        self.find_mean();
    }

    /// Copies the numbers of another tree with the same parents.
    fn number_as(&mut self, other: &Self) {
        self.depth.clone_from(&other.depth);
        self.number.clone_from(&other.number);
        self.end.clone_from(&other.end);
        self.first_child.clone_from(&other.first_child);
        self.children.clone_from(&other.children);
        self.find_mean();
    }

    fn find_mean(&mut self) {
        let reached = self.distance.iter().filter(|d| **d != NONE);
        let (sum, count) = reached.fold((0, 0u64), |(s, n), d| (s + u64::from(*d), n + 1));
        // the root is one of them
        self.mean_distance = sum
            .checked_div(count - 1)
            .map(|mean| mean.min(u64::from(u16::MAX - 1)) as u16);
    }

    /// The graph of the tree.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// The root of the tree.
    pub fn root(&self) -> OriginId {
        self.graph.routers[self.root as usize]
    }

    /// Whether the root reaches `x`.
    pub fn contains(&self, x: OriginId) -> bool {
        self.index(x).is_some()
    }

    /// The next router towards the root; `None` for the root and for routers that are not reached.
    pub fn parent(&self, x: OriginId) -> Option<OriginId> {
        let parent = self.parent_index(self.index(x)?)?;
        Some(self.graph.routers[parent])
    }

    /// The children of `x`.
    pub fn children(&self, x: OriginId) -> impl Iterator<Item = OriginId> + '_ {
        self.index(x)
            .into_iter()
            .flat_map(|at| self.children_of(at))
            .map(|&child| self.graph.routers[child as usize])
    }

    /// Whether the two are joined by an edge of the tree.
    pub fn is_edge(&self, a: OriginId, b: OriginId) -> bool {
        self.parent(a) == Some(b) || self.parent(b) == Some(a)
    }

    /// The tree neighbour of `me` towards `x`; `None` if they are equal, or one is not reached.
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

    /// The number of `x` in preorder, and the end of its subtree's numbers.
    pub fn span(&self, x: OriginId) -> Option<(u32, u32)> {
        let at = self.index(x)?;
        Some((self.number[at], self.end[at]))
    }

    /// Cost of the path from the root, in units of 100 us.
    pub fn distance(&self, x: OriginId) -> Option<u32> {
        self.index(x).map(|at| self.distance[at])
    }

    /// Links between the root and `x`.
    pub fn depth(&self, x: OriginId) -> Option<u16> {
        self.index(x).map(|at| self.depth[at])
    }

    /// Mean distance of all other routers reached, at most 65,534; `None` if there are none.
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

    fn edges_through(&self, at: usize) -> &[Edge] {
        self.graph.edges_through(at, Some(self.root as usize))
    }

    fn children_of(&self, at: usize) -> &[u32] {
        &self.children[self.first_child[at] as usize..self.first_child[at + 1] as usize]
    }
}

/// Incremental shortest paths: searches paths again behind links that are gone or cost more,
/// spreads shorter distances, and copies the rest.
impl Tree {
    /// The tree of `root` in a graph. `before` is its tree in another graph; it saves work if both
    /// are similar, and does not change the result.
    #[must_use]
    pub fn of(graph: &Arc<Graph>, root: OriginId, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        match before.filter(|tree| tree.root() == root) {
            Some(before) if Arc::ptr_eq(&before.graph, graph) => Some(Arc::clone(before)),
            Some(before) => before.after(graph).map(Arc::new),
            None => Self::compute(graph, root).map(Arc::new),
        }
    }

    /// The tree of the same root in another graph.
    fn after(&self, graph: &Arc<Graph>) -> Option<Self> {
        let start = graph.index(self.root())?;
        let moves = Moves::between(&self.graph, graph);
        let mut tree = Self::blank(graph, start);
        let mut repair = Repair::new(graph.len());
        tree.carry_over(self, &moves, &mut repair);
        for at in 0..graph.len() {
            repair.compare(at, self, &tree, &moves);
        }
        tree.cut_off(self, &moves, &mut repair);
        tree.spread(&mut repair);
        tree.choose_parents(&repair);
        if moves.are_none() && tree.parent == self.parent {
            tree.number_as(self);
        } else {
            tree.number();
        }
        Some(tree)
    }

    fn carry_over(&mut self, old: &Self, moves: &Moves, repair: &mut Repair) {
        if moves.are_none() {
            self.distance.copy_from_slice(&old.distance);
            self.parent.copy_from_slice(&old.parent);
            return;
        }
        for at in 0..self.distance.len() {
            let Some(from) = moves.from(at) else { continue };
            self.distance[at] = old.distance[from];
            if let Some(parent) = old.parent_index(from) {
                self.parent[at] = moves.to(parent as u32);
                if self.parent[at] == NONE {
                    repair.cut.push(at);
                }
            }
        }
    }

    /// Marks all routers behind the cut ones as not reached.
    fn cut_off(&mut self, old: &Self, moves: &Moves, repair: &mut Repair) {
        while let Some(at) = repair.cut.pop() {
            if self.distance[at] == NONE {
                continue;
            }
            self.distance[at] = NONE;
            self.parent[at] = NONE;
            repair.lost.push(at);
            let children = moves.from(at).map_or(&[][..], |from| old.children_of(from));
            let children = children.iter().map(|child| moves.to(*child));
            let children = children.filter(|child| *child != NONE);
            repair.cut.extend(children.map(|child| child as usize));
        }
    }

    /// Sets the distance of routers that are nearer than before, or were cut off.
    fn spread(&mut self, repair: &mut Repair) {
        let (graph, root) = (Arc::clone(&self.graph), Some(self.root as usize));
        let mut waiting = Waiting::new();
        for at in std::mem::take(&mut repair.lost) {
            repair.touch(at, &graph);
            let through = |edge: &Edge| self.distance[edge.to as usize].saturating_add(edge.cost());
            let edges = graph.edges_of(at).iter().filter(|e| self.leads_on(e));
            let best = edges.map(through).min();
            if let Some(best) = best.filter(|best| *best != NONE) {
                self.distance[at] = best;
                waiting.push(Reverse(packed(best, at)));
            }
        }
        for &(from, to, cost) in &repair.better {
            let through = self.distance[from].saturating_add(cost);
            if through < self.distance[to] {
                self.distance[to] = through;
                waiting.push(Reverse(packed(through, to)));
            }
        }
        while let Some(Reverse(next)) = waiting.pop() {
            let at = position(next);
            let distance = self.distance[at];
            if packed(distance, at) != next {
                continue;
            }
            repair.touch(at, &graph);
            for edge in graph.edges_through(at, root) {
                let to = edge.to as usize;
                let through = distance.saturating_add(edge.cost());
                if through < self.distance[to] {
                    self.distance[to] = through;
                    waiting.push(Reverse(packed(through, to)));
                }
            }
        }
    }

    /// Whether a path may pass a link's far end.
    fn leads_on(&self, edge: &Edge) -> bool {
        !edge.metric.stubs[1] || edge.to == self.root
    }

    /// Chooses the parent by tie-break among all neighbours on a shortest path.
    fn choose_parents(&mut self, repair: &Repair) {
        let (graph, root) = (Arc::clone(&self.graph), self.root());
        for (at, _) in repair.touched.iter().enumerate().filter(|(_, t)| **t) {
            let distance = self.distance[at];
            let leads = |edge: &&Edge| {
                let near = self.distance[edge.to as usize];
                let through = near.saturating_add(edge.cost());
                near != NONE && through == distance && self.leads_on(edge)
            };
            let value = |parent: u32| {
                let name = |at: usize| graph.routers[at];
                (tie_break(root, name(parent as usize), name(at)), parent)
            };
            let parents = graph.edges_of(at).iter().filter(leads).map(|edge| edge.to);
            self.parent[at] = match distance {
                0 | NONE => NONE,
                _ => parents.min_by_key(|to| value(*to)).unwrap_or(NONE),
            };
        }
    }
}

/// Positions of one graph's routers in another; `None` if both have the same routers.
struct Moves(Option<(Vec<u32>, Vec<u32>)>);

impl Moves {
    fn between(old: &Graph, new: &Graph) -> Self {
        if old.routers == new.routers {
            return Self(None);
        }
        let mut to = vec![NONE; old.len()];
        let mut from = vec![NONE; new.len()];
        let mut at = 0;
        for (place, origin) in new.routers.iter().enumerate() {
            while old.routers.get(at).is_some_and(|known| known < origin) {
                at += 1;
            }
            if old.routers.get(at) == Some(origin) {
                to[at] = place as u32;
                from[place] = at as u32;
            }
        }
        Self(Some((to, from)))
    }

    fn are_none(&self) -> bool {
        self.0.is_none()
    }

    /// The new position of an old one; `NONE`: gone.
    fn to(&self, old: u32) -> u32 {
        self.0.as_ref().map_or(old, |(to, _)| to[old as usize])
    }

    fn from(&self, new: usize) -> Option<usize> {
        match &self.0 {
            None => Some(new),
            Some((_, from)) => Some(from[new]).filter(|f| *f != NONE).map(|f| f as usize),
        }
    }
}

/// The repairs of a tree.
struct Repair {
    /// Routers with a link to the parent that is gone or costs more.
    cut: Vec<usize>,
    /// These, and all routers behind them.
    lost: Vec<usize>,
    /// Directions of links that are new or cost less.
    better: Vec<(usize, usize, u32)>,
    /// Routers that may get another parent.
    touched: Vec<bool>,
}

impl Repair {
    fn new(routers: usize) -> Self {
        Self {
            cut: Vec::new(),
            lost: Vec::new(),
            better: Vec::new(),
            touched: vec![false; routers],
        }
    }

    /// Marks a router with another distance, and its neighbours.
    fn touch(&mut self, at: usize, graph: &Graph) {
        self.touched[at] = true;
        for edge in graph.edges_of(at) {
            self.touched[edge.to as usize] = true;
        }
    }

    /// Compares the links of one router in both graphs. The new tree still has the old parents.
    fn compare(&mut self, at: usize, old: &Tree, new: &Tree, moves: &Moves) {
        let from = moves.from(at);
        if from.is_some_and(|from| old.graph.rows[from] == new.graph.rows[at]) {
            return;
        }
        let before = from.map_or(&[][..], |from| old.edges_through(from));
        let after = new.edges_through(at);
        let moved = |edge: &Edge| Edge {
            to: moves.to(edge.to),
            ..*edge
        };
        self.touched[at] = true;
        let mut before = before.iter().map(moved).filter(|e| e.to != NONE).peekable();
        let mut after = after.iter().peekable();
        loop {
            let to = match (before.peek(), after.peek()) {
                (Some(a), Some(b)) => a.to.min(b.to),
                (Some(one), None) => one.to,
                (None, Some(one)) => one.to,
                (None, None) => return,
            };
            let was = before.next_if(|e| e.to == to).map(|e| e.cost());
            let is = after.next_if(|e| e.to == to).map(Edge::cost);
            let to = to as usize;
            match is {
                Some(cost) if was.is_none_or(|was| cost < was) => self.better.push((at, to, cost)),
                _ if is != was && new.parent[to] == at as u32 => self.cut.push(to),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::{Between, Metric, mix};
    use super::*;

    type Links = Vec<Between>;
    type Stubs = BTreeSet<u64>;

    fn graph(routers: u64, links: &Links) -> Arc<Graph> {
        Arc::new(Graph::new(0, (1..=routers).map(OriginId), links))
    }

    fn link(a: u64, b: u64, cost: u16) -> Between {
        (OriginId(a), OriginId(b), cost.into())
    }

    /// The metric of a link with this cost.
    fn metric(a: OriginId, b: OriginId, cost: u16, stubs: &Stubs) -> Metric {
        let stubs = [a, b].map(|end| stubs.contains(&end.0));
        Metric { cost, stubs }
    }

    /// Distances by another algorithm: relaxing all links until nothing changes.
    fn bellman_ford(routers: u64, links: &Links, root: u64) -> Vec<Option<u32>> {
        let mut distance = vec![None; routers as usize + 1];
        distance[root as usize] = Some(0u32);
        for _ in 0..routers {
            for &(a, b, Metric { cost, stubs }) in links {
                for (a, b, stub) in [(a.0, b.0, stubs[0]), (b.0, a.0, stubs[1])] {
                    if stub && a != root {
                        continue;
                    }
                    let (a, b) = (a as usize, b as usize);
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
        assert_eq!(graph.reachable(OriginId(7)).count(), 1);
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

    fn any_links() -> impl Strategy<Value = (u64, Links)> {
        (2u64..40).prop_flat_map(|n| {
            let link = (1..=n, 1..=n, prop_oneof![Just(10u16), 1u16..100])
                .prop_filter("two ends", |(a, b, _)| a != b)
                .prop_map(|(a, b, cost)| link(a.min(b), a.max(b), cost));
            let links = (prop::collection::vec(link, 0..120), any_stubs());
            let links = links.prop_map(|(mut links, stubs)| {
                for (a, b, of_link) in &mut links {
                    *of_link = metric(*a, *b, of_link.cost, &stubs);
                }
                links.sort_unstable();
                links.dedup_by_key(|&mut (a, b, _)| (a, b));
                links
            });
            (Just(n), links)
        })
    }

    fn any_stubs() -> impl Strategy<Value = Stubs> {
        prop_oneof![
            Just(Stubs::new()),
            prop::collection::btree_set(1u64..40, 0..12)
        ]
    }

    /// A link from the lower end to the higher, and its new cost.
    type CostChange = (OriginId, OriginId, Option<u16>);

    /// Links that come, change or go, and the stub routers after that.
    fn any_changes() -> impl Strategy<Value = (Vec<CostChange>, Stubs)> {
        let cost = prop_oneof![Just(None), Just(Some(10u16)), (1u16..100).prop_map(Some)];
        let change = (1u64..40, 1u64..40, cost)
            .prop_filter("two ends", |(a, b, _)| a != b)
            .prop_map(|(a, b, cost)| (OriginId(a.min(b)), OriginId(a.max(b)), cost));
        (prop::collection::vec(change, 0..8), any_stubs())
    }

    proptest! {
        #[test]
        fn after_changes_all_is_as_if_it_were_computed_anew(
            (n, links) in any_links(),
            root in 1u64..40,
            steps in prop::collection::vec(any_changes(), 1..12),
        ) {
            let (own, root) = (OriginId(1), OriginId(1 + root % n));
            let ends = |&(a, b, metric): &Between| ((a, b), metric);
            let mut links: BTreeMap<_, Metric> = links.iter().map(ends).collect();
            let list = |links: &BTreeMap<(OriginId, OriginId), Metric>| {
                Links::from_iter(links.iter().map(|(&(a, b), &metric)| (a, b, metric)))
            };
            let mut graph = Arc::new(Graph::new(0, [own], &list(&links)));
            let mut tree = Tree::compute(&graph, root).map(Arc::new);
            for (step, stubs) in steps {
                let mut changes = BTreeMap::new();
                for (&(a, b), is) in &mut links {
                    let new = metric(a, b, is.cost, &stubs);
                    if std::mem::replace(is, new) != new {
                        changes.insert((a, b), Some(new));
                    }
                }
                for (a, b, cost) in step {
                    let is = cost.map(|cost| metric(a, b, cost, &stubs));
                    changes.insert((a, b), is);
                    match is {
                        Some(metric) => links.insert((a, b), metric),
                        None => links.remove(&(a, b)),
                    };
                }
                let changes = Vec::from_iter(changes.iter().map(|(&(a, b), &is)| (a, b, is)));
                graph = Arc::new(graph.after(0, own, &changes));
                let anew = Arc::new(Graph::new(0, [own], &list(&links)));
                prop_assert_eq!(&*graph, &*anew);
                tree = Tree::of(&graph, root, tree.as_ref());
                let anew = Tree::compute(&anew, root).map(Arc::new);
                prop_assert_eq!(&tree, &anew);
            }
        }

        #[test]
        fn trees_are_right_and_the_same_everywhere((n, links) in any_links(), root in 1u64..40) {
            let root = 1 + root % n;
            let graph = graph(n, &links);
            let tree = Tree::compute(&graph, OriginId(root)).unwrap();
            let expected = bellman_ford(n, &links, root);
            // another router received the links in another order and direction
            let turned = links.iter().rev().map(|&(a, b, metric)| (b, a, metric.turned()));
            let turned = Links::from_iter(turned);
            let other = Arc::new(Graph::new(0, (1..=n).rev().map(OriginId), &turned));
            let other = Tree::compute(&other, OriginId(root)).unwrap();
            let reachable = BTreeSet::from_iter(graph.reachable(OriginId(root)));
            for x in (1..=n).map(OriginId) {
                prop_assert_eq!(tree.distance(x), expected[x.0 as usize]);
                prop_assert_eq!(tree.parent(x), other.parent(x));
                prop_assert_eq!(reachable.contains(&x), tree.contains(x));
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
                    // the spans agree
                    let spans = |of, number| tree.span(of).is_some_and(|(from, to)| (from..to).contains(&number));
                    let (number, _) = tree.span(x).unwrap();
                    let child = tree.children(me).find(|child| spans(*child, number));
                    let parent = tree.parent(me).filter(|_| !spans(me, number));
                    prop_assert_eq!(tree.edge(me, x), child.or(parent));
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
