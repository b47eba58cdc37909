//! This router's position in a tree: parent and children now, and a moment ago.

use std::collections::VecDeque;
use std::sync::Arc;

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use crate::graph::Tree;

/// Time for which edges of a former tree count. Chosen: neighbours compute the new tree within it.
pub const PREVIOUS_TREE: Duration = Duration::from_secs(1);
/// Former trees that are kept: several changes come at once.
const MAX_PREVIOUS: usize = 4;

/// One end of a tree's edge at this router.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// The router at the other end.
    pub neighbor: OriginId,
    pub link: LinkId,
    pub is_parent: bool,
    /// Numbers of the routers behind a child; for the parent, of this router and those behind it.
    pub span: (u32, u32),
}

impl Edge {
    /// The parts that do not change with every tree.
    fn ends(&self) -> (OriginId, LinkId, bool) {
        (self.neighbor, self.link, self.is_parent)
    }

    fn leads_to(&self, number: u32) -> bool {
        let (from, to) = self.span;
        self.is_parent != (from..to).contains(&number)
    }
}

fn are_same(a: &[Edge], b: &[Edge]) -> bool {
    a.iter().map(Edge::ends).eq(b.iter().map(Edge::ends))
}

/// Parent and children of this router, now and a moment ago.
#[derive(Debug, Default)]
pub(super) struct TreePosition {
    pub tree: Option<Arc<Tree>>,
    /// Former trees of the last [`PREVIOUS_TREE`], the newest at the end.
    previous: VecDeque<Previous>,
    /// Former trees had edges that this tree lacks.
    pub has_former_edges: bool,
    /// Parent and children, sorted by link.
    pub edges: Vec<Edge>,
    /// Rises with every change.
    pub version: u32,
}

#[derive(Debug)]
struct Previous {
    tree: Arc<Tree>,
    edges: Vec<Edge>,
    until: Instant,
}

/// The effect of another position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    No,
    /// Sources may lie behind other edges.
    Sources,
    /// Edges have changed, present or former ones.
    Edges,
}

impl TreePosition {
    /// Sets the tree and its edges at this router. Former edges count for [`PREVIOUS_TREE`].
    pub fn set(&mut self, tree: Option<Arc<Tree>>, mut edges: Vec<Edge>, now: Instant) -> Moved {
        edges.sort_unstable_by_key(|e| e.link);
        let same_tree = match (&self.tree, &tree) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        let mut edges_changed = !are_same(&self.edges, &edges);
        if same_tree && !edges_changed {
            return Moved::No;
        }
        let old_edges = std::mem::replace(&mut self.edges, edges);
        if let Some(old) = std::mem::replace(&mut self.tree, tree) {
            if self.previous.len() == MAX_PREVIOUS {
                self.previous.pop_front();
                edges_changed |= self.has_former_edges;
            }
            self.previous.push_back(Previous {
                tree: old,
                edges: old_edges,
                until: now + PREVIOUS_TREE,
            });
        }
        self.note_former_edges();
        if edges_changed {
            Moved::Edges
        } else {
            Moved::Sources
        }
    }

    /// Forgets expired former trees. True: there were former edges, and may be fewer now.
    pub fn expire(&mut self, now: Instant) -> bool {
        let before = (self.previous.len(), self.has_former_edges);
        self.previous.retain(|p| p.until > now);
        if self.previous.len() == before.0 {
            return false;
        }
        self.note_former_edges();
        before.1
    }

    /// Time of the next expiry of a former tree.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.previous.front().map(|p| p.until)
    }

    /// Removes a link. True: it was an edge.
    pub fn remove_link(&mut self, link: LinkId) -> bool {
        for previous in &mut self.previous {
            previous.edges.retain(|e| e.link != link);
        }
        let was_edge = self.edge(link).is_some();
        self.edges.retain(|e| e.link != link);
        self.note_former_edges();
        was_edge
    }

    pub fn edge(&self, link: LinkId) -> Option<&Edge> {
        self.edges.iter().find(|e| e.link == link)
    }

    /// To be called when edges or former trees have changed.
    fn note_former_edges(&mut self) {
        let mut edges = self.previous.iter().flat_map(|p| &p.edges);
        self.has_former_edges = edges.any(|e| self.edge(e.link).is_none());
        self.version = self.version.wrapping_add(1);
    }

    /// An edge of former trees that this tree lacks.
    pub fn former_edge(&self, link: LinkId) -> Option<&Edge> {
        if !self.has_former_edges {
            return None;
        }
        let mut edges = self.previous.iter().rev().flat_map(|p| &p.edges);
        let former = edges.find(|e| e.link == link);
        former.filter(|_| self.edge(link).is_none())
    }

    /// Whether a neighbour was further from the root than this router in a former tree.
    pub fn was_below(&self, link: LinkId) -> bool {
        let mut edges = self.previous.iter().flat_map(|p| &p.edges);
        edges.any(|e| e.link == link && !e.is_parent)
    }

    /// An edge of this or a former tree: its neighbour may not have moved its Join yet.
    pub fn current_or_former_edge(&self, link: LinkId) -> Option<&Edge> {
        self.edge(link).or_else(|| self.former_edge(link))
    }

    pub fn parent(&self) -> Option<&Edge> {
        self.edges.iter().find(|e| e.is_parent)
    }

    /// The link over which `origin` is reached on this tree.
    pub fn towards(&self, origin: OriginId) -> Option<LinkId> {
        towards(self.tree.as_ref()?, &self.edges, origin)
    }

    /// Whether `origin` was reached over this link in a former tree.
    pub fn was_towards(&self, origin: OriginId, link: LinkId) -> bool {
        let mut previous = self.previous.iter();
        previous.any(|p| towards(&p.tree, &p.edges, origin) == Some(link))
    }
}

fn towards(tree: &Tree, edges: &[Edge], origin: OriginId) -> Option<LinkId> {
    let (number, _) = tree.span(origin)?;
    Some(edges.iter().find(|e| e.leads_to(number))?.link)
}
