//! The network as its link state describes it, and shortest-path trees in it.
//!
//! Both are the same, bit for bit, on all routers with the same LSAs.
//!
//! A [`Tree`] numbers its routers in preorder, so that the routers behind each of its edges are one
//! interval of numbers. A comparison and a binary search find the edge that leads to a router.
//!
//! ```text
//!            a 0..6                       interval: own number .. one past the last below it
//!          /        \
//!      b 1..4      e 4..6                 X = d (3), asked at b: 3 lies in 3..4, child d
//!      /    \          \                  X = f (5), asked at b: 5 is not in 1..4, so the parent
//!   c 2..3  d 3..4    f 5..6
//! ```

mod coordinates;
mod tree;

use librecast::id::OriginId;
use librecast::random::Random;

use crate::router_index::RouterIndex;

#[cfg(test)]
pub(crate) use coordinates::MEAN_OF_STEP;
pub(crate) use coordinates::{Guess, direct_rtts};
pub use tree::Tree;

/// Index of no router.
const NONE: u32 = u32::MAX;

/// The first number of this seed: every bit of the result depends on every bit of `z`.
pub(crate) fn mix(z: u64) -> u64 {
    Random::new(z).next()
}

/// The tie-break of parents at equal distance: the lowest value counts.
fn tie_break(root: OriginId, parent: OriginId, child: OriginId) -> u64 {
    mix(mix(mix(root.0) ^ parent.0) ^ child.0)
}

/// The digest of a two-way link, for that of a graph.
pub(crate) fn link_digest(a: OriginId, b: OriginId, metric: Metric) -> u64 {
    let (low, high, metric) = if a < b {
        (a, b, metric)
    } else {
        (b, a, metric.turned())
    };
    let [near, far] = metric.stubs.map(u64::from);
    let value = u64::from(metric.cost) | near << 16 | far << 17;
    mix(mix(mix(low.0) ^ high.0) ^ value)
}

/// The digest of a router, for that of a graph.
pub(crate) fn router_digest(origin: OriginId) -> u64 {
    mix(!origin.0)
}

/// The properties of a link that paths depend on, seen from one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    /// In units of 100 us, at least 1.
    pub cost: u16,
    /// Whether the near end, and the far end, is a stub router: no path leads through it.
    pub stubs: [bool; 2],
}

impl Metric {
    /// The metric from the other end.
    fn turned(self) -> Self {
        let [near, far] = self.stubs;
        Self {
            stubs: [far, near],
            ..self
        }
    }
}

impl From<u16> for Metric {
    fn from(cost: u16) -> Self {
        Self {
            cost,
            stubs: [false; 2],
        }
    }
}

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edge {
    to: u32,
    metric: Metric,
}

impl Edge {
    fn cost(&self) -> u32 {
        self.metric.cost.into()
    }
}

/// A link: two routers, and its metric from the first.
pub(crate) type Between = (OriginId, OriginId, Metric);
/// A link from the lower router to the higher, and its new metric; `None`: it is gone.
pub(crate) type LinkChange = (OriginId, OriginId, Option<Metric>);

/// Routers and the two-way links between them.
#[derive(Debug, PartialEq, Eq)]
pub struct Graph {
    digest: u64,
    /// In ascending order; all positions refer to it.
    routers: RouterIndex,
    /// Start of each router's edges, and the end of the last.
    first: Vec<u32>,
    /// By router, then by far end.
    edges: Vec<Edge>,
    /// Digests of each router's links, independent of positions.
    rows: Vec<u64>,
}

impl Graph {
    /// A graph with these routers, and links with costs or metrics; both ends of a link are added.
    /// A link given twice counts once, at the larger cost. At most 2^24 routers. `digest`
    /// identifies the content.
    #[must_use]
    pub fn new<M: Into<Metric> + Copy>(
        digest: u64,
        routers: impl IntoIterator<Item = OriginId>,
        links: &[(OriginId, OriginId, M)],
    ) -> Self {
        let mut names: Vec<OriginId> = routers.into_iter().collect();
        names.extend(links.iter().flat_map(|&(a, b, _)| [a, b]));
        names.sort_unstable();
        names.dedup();
        let upward = |&(a, b, metric): &(OriginId, OriginId, M)| {
            let mut metric: Metric = metric.into();
            metric.cost = metric.cost.max(1);
            if a < b {
                (a, b, metric)
            } else {
                (b, a, metric.turned())
            }
        };
        let mut links: Vec<Between> = links.iter().map(upward).filter(|l| l.0 != l.1).collect();
        links.sort_unstable_by_key(|&(a, b, metric)| (a, b, std::cmp::Reverse(metric)));
        links.dedup_by_key(|&mut (a, b, _)| (a, b));
        let mut graph = Self::of(digest, names);
        graph.build_edges(&links);
        graph
    }

    /// This graph after links have changed, each given once. Only routers with links stay, and
    /// `own`.
    pub(crate) fn after(&self, digest: u64, own: OriginId, changes: &[LinkChange]) -> Self {
        let both =
            |&(a, b, metric): &LinkChange| [(a, b, metric), (b, a, metric.map(Metric::turned))];
        let mut changes: Vec<LinkChange> = changes.iter().flat_map(both).collect();
        // changes nothing, but includes `own`
        changes.push((own, own, None));
        changes.sort_unstable();
        let mut splice = Splice::new(self, own);
        let (mut at, mut rest) = (0, &changes[..]);
        while let Some(next) = rest.first().map(|(from, ..)| *from) {
            let (now, later) = rest.split_at(rest.partition_point(|(from, ..)| *from == next));
            let to = self.routers.partition_point(|origin| *origin < next);
            splice.keep(at..to);
            let is_known = self.routers.get(to) == Some(&next);
            splice.change(next, is_known.then_some(to), now);
            (at, rest) = (to + usize::from(is_known), later);
        }
        splice.keep(at..self.routers.len());
        splice.finish(digest)
    }

    fn of(digest: u64, routers: Vec<OriginId>) -> Self {
        Self {
            digest,
            routers: routers.into(),
            first: Vec::new(),
            edges: Vec::new(),
            rows: Vec::new(),
        }
    }

    fn build_edges(&mut self, links: &[Between]) {
        let place = |&(a, b, metric): &Between| Some((self.index(a)?, self.index(b)?, metric));
        let links: Vec<(usize, usize, Metric)> = links.iter().filter_map(place).collect();
        self.first = vec![0; self.routers.len() + 1];
        for (a, b, _) in &links {
            self.first[a + 1] += 1;
            self.first[b + 1] += 1;
        }
        for at in 1..self.first.len() {
            self.first[at] += self.first[at - 1];
        }
        // in the order of links, each router gets links to lower routers first; both kinds in order
        let mut next = self.first.clone();
        let none = Edge {
            to: NONE,
            metric: 0.into(),
        };
        self.edges = vec![none; 2 * links.len()];
        self.rows = vec![0; self.routers.len()];
        for (a, b, metric) in links {
            let name = link_digest(self.routers[a], self.routers[b], metric);
            for (at, to, metric) in [(a, b, metric), (b, a, metric.turned())] {
                let to = to as u32;
                self.edges[next[at] as usize] = Edge { to, metric };
                next[at] += 1;
                self.rows[at] ^= name;
            }
        }
    }

    /// Identifies the content: graphs with equal digest are equal.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Number of routers.
    pub fn len(&self) -> usize {
        self.routers.len()
    }

    /// Whether there are no routers.
    pub fn is_empty(&self) -> bool {
        self.routers.is_empty()
    }

    /// Whether `x` is one of the routers.
    pub fn contains(&self, x: OriginId) -> bool {
        self.index(x).is_some()
    }

    /// All routers, in ascending order.
    pub fn routers(&self) -> &[OriginId] {
        &self.routers
    }

    /// Whether no path leads through `x`.
    pub fn is_stub(&self, x: OriginId) -> bool {
        self.index(x).is_some_and(|at| self.is_stub_at(at))
    }

    /// The routers that can be reached from `x`, itself included, in ascending order.
    pub fn reachable(&self, x: OriginId) -> impl Iterator<Item = OriginId> + '_ {
        self.reached(x).map(|at| self.routers[at])
    }

    /// Digest of the routers that can be reached from `x`, and of their stub flags.
    pub(crate) fn reachable_digest(&self, x: OriginId) -> Option<u64> {
        let name = |at: usize| match router_digest(self.routers[at]) {
            digest if self.is_stub_at(at) => mix(digest),
            digest => digest,
        };
        self.reached(x).map(name).reduce(|a, b| a ^ b)
    }

    fn reached(&self, x: OriginId) -> impl Iterator<Item = usize> {
        let start = self.index(x);
        let mut reached = vec![false; self.routers.len()];
        let mut waiting = Vec::from_iter(start);
        if let Some(at) = start {
            reached[at] = true;
        }
        while let Some(at) = waiting.pop() {
            for edge in self.edges_through(at, start) {
                if !std::mem::replace(&mut reached[edge.to as usize], true) {
                    waiting.push(edge.to as usize);
                }
            }
        }
        let places = reached.into_iter().enumerate();
        places.filter(|(_, is)| *is).map(|(at, _)| at)
    }

    /// The neighbours of `x` in ascending order, with the costs of the links.
    pub fn neighbors(&self, x: OriginId) -> impl Iterator<Item = (OriginId, u16)> + '_ {
        self.index(x)
            .into_iter()
            .flat_map(|at| self.edges_of(at))
            .map(|edge| (self.routers[edge.to as usize], edge.metric.cost))
    }

    fn index(&self, x: OriginId) -> Option<usize> {
        self.routers.position(x)
    }

    fn edges_of(&self, at: usize) -> &[Edge] {
        &self.edges[self.first[at] as usize..self.first[at + 1] as usize]
    }

    fn is_stub_at(&self, at: usize) -> bool {
        self.edges_of(at)
            .first()
            .is_some_and(|edge| edge.metric.stubs[0])
    }

    /// The links over which paths from `root` go on from this router.
    fn edges_through(&self, at: usize, root: Option<usize>) -> &[Edge] {
        if self.is_stub_at(at) && root != Some(at) {
            return &[];
        }
        self.edges_of(at)
    }
}

/// A graph made of another one.
struct Splice<'a> {
    old: &'a Graph,
    own: OriginId,
    routers: Vec<OriginId>,
    first: Vec<u32>,
    /// Far ends are positions in the old graph.
    edges: Vec<Edge>,
    rows: Vec<u64>,
    /// New edges: their place in `edges`, and their far end.
    new: Vec<(usize, OriginId)>,
    /// The new positions of the old graph's routers.
    moved: Vec<u32>,
}

impl<'a> Splice<'a> {
    fn new(old: &'a Graph, own: OriginId) -> Self {
        let mut first = Vec::with_capacity(old.first.len() + 2);
        first.push(0);
        Self {
            old,
            own,
            routers: Vec::with_capacity(old.routers.len() + 2),
            first,
            edges: Vec::with_capacity(old.edges.len() + 16),
            rows: Vec::with_capacity(old.rows.len() + 2),
            new: Vec::new(),
            moved: Vec::with_capacity(old.routers.len()),
        }
    }

    /// Copies routers of the old graph with unchanged links.
    fn keep(&mut self, part: std::ops::Range<usize>) {
        if part.is_empty() {
            return;
        }
        let old = self.old;
        let (from, to) = (old.first[part.start], old.first[part.end]);
        let ahead = self.edges.len() as u32;
        self.edges
            .extend_from_slice(&old.edges[from as usize..to as usize]);
        let ends = &old.first[part.start + 1..=part.end];
        self.first.extend(ends.iter().map(|end| end - from + ahead));
        let place = self.routers.len() as u32;
        self.moved.extend(place..place + part.len() as u32);
        self.routers.extend_from_slice(&old.routers[part.clone()]);
        self.rows.extend_from_slice(&old.rows[part]);
    }

    /// Adds a router with changed links; `at`: its position in the old graph.
    fn change(&mut self, router: OriginId, at: Option<usize>, changes: &[LinkChange]) {
        let before = self.edges.len();
        let mut row = 0;
        let changes = changes.iter().map(|(_, to, metric)| (*to, *metric));
        let mut changes = changes.peekable();
        for edge in at.map_or(&[][..], |at| self.old.edges_of(at)) {
            let far = self.old.routers[edge.to as usize];
            while let Some((to, metric)) = changes.next_if(|(to, _)| *to < far) {
                row ^= self.add(router, to, metric);
            }
            let metric = match changes.next_if(|(to, _)| *to == far) {
                Some((_, metric)) => metric,
                None => Some(edge.metric),
            };
            if let Some(metric) = metric {
                row ^= link_digest(router, far, metric);
                self.edges.push(Edge {
                    to: edge.to,
                    metric,
                });
            }
        }
        for (to, metric) in changes {
            row ^= self.add(router, to, metric);
        }
        let place = self.routers.len() as u32;
        let stays = self.edges.len() > before || router == self.own;
        if stays {
            self.routers.push(router);
            self.rows.push(row);
            self.first.push(self.edges.len() as u32);
        }
        if at.is_some() {
            self.moved.push(if stays { place } else { NONE });
        }
    }

    /// Adds a new link, unless it is gone again. Returns its part of the row.
    fn add(&mut self, router: OriginId, to: OriginId, metric: Option<Metric>) -> u64 {
        let Some(metric) = metric else { return 0 };
        self.new.push((self.edges.len(), to));
        self.edges.push(Edge { to: NONE, metric });
        link_digest(router, to, metric)
    }

    fn finish(mut self, digest: u64) -> Graph {
        let mut graph = Graph::of(digest, self.routers);
        if graph.routers != self.old.routers {
            for edge in self.edges.iter_mut().filter(|edge| edge.to != NONE) {
                edge.to = self.moved[edge.to as usize];
            }
        }
        for (place, to) in self.new {
            // the far end has the same link, so it is one of the routers
            let to = graph.index(to).unwrap_or_default();
            self.edges[place].to = to as u32;
        }
        (graph.first, graph.edges, graph.rows) = (self.first, self.edges, self.rows);
        graph
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_through_a_stub() {
        let [a, b, c, d] = [1, 2, 3, 4].map(OriginId);
        let to_stub = Metric {
            cost: 10,
            stubs: [false, true],
        };
        let links = [(a, b, to_stub), (c, b, to_stub), (c, d, 10.into())];
        let graph = Graph::new(0, [], &links);
        let reachable = |x| Vec::from_iter(graph.reachable(x));
        assert!(graph.is_stub(b) && !graph.is_stub(a));
        assert_eq!(reachable(a), [a, b]);
        assert_eq!(reachable(b), [a, b, c, d], "its own paths are as any");
        assert_eq!(reachable(d), [b, c, d]);
        assert_ne!(
            link_digest(a, b, to_stub),
            link_digest(b, a, to_stub),
            "which end is the stub is part of the name"
        );
        assert_eq!(
            link_digest(a, b, to_stub),
            link_digest(b, a, to_stub.turned())
        );
    }

    #[test]
    fn a_link_given_twice_counts_at_its_larger_cost() {
        let [a, b] = [1, 2].map(OriginId);
        let graph = Graph::new(0, [a, b], &[(a, b, 30), (b, a, 70), (a, a, 5)]);
        let neighbors: Vec<_> = graph.neighbors(a).collect();
        assert_eq!(neighbors, [(b, 70)]);
    }

    /// Values that other implementations must compute, too.
    #[test]
    fn golden_tie_break() {
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(
            tie_break(OriginId(1), OriginId(2), OriginId(3)),
            mix(mix(mix(1) ^ 2) ^ 3)
        );
    }
}
