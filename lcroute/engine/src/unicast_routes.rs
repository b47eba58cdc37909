//! Routes to single routers, for unicast packets and messages from router to router.

use std::collections::BTreeMap;
use std::sync::Arc;

use librecast::id::{LinkId, OriginId};

use crate::graph::{Graph, Tree};
use crate::table::Table;

/// Cached routes. Chosen: more destinations than hosts talk to at a time.
const MAX_ROUTES: usize = 1_024;

/// The inputs of routes, as of the last route computation.
#[derive(Debug, Clone, Copy)]
pub struct RouteView<'a> {
    /// This router.
    pub own: OriginId,
    pub graph: &'a Arc<Graph>,
    /// The link to each neighbour.
    pub neighbors: &'a BTreeMap<OriginId, LinkId>,
}

#[derive(Debug, Clone)]
pub struct UnicastRoute {
    pub tree: Arc<Tree>,
    /// The first link on the path.
    pub next: Option<LinkId>,
}

/// Routes computed on request since the graph changed.
#[derive(Debug)]
pub struct UnicastRoutes {
    routes: Table<OriginId, UnicastRoute>,
    seed: u64,
}

impl UnicastRoutes {
    pub fn new(seed: u64) -> Self {
        Self {
            routes: Table::new(seed),
            seed,
        }
    }

    /// Forgets all routes, as the graph or the links have changed.
    pub fn clear(&mut self) {
        self.routes = Table::new(self.seed);
    }

    /// The route to a router; `None`: the graph does not contain it.
    pub fn get(&mut self, to: OriginId, view: RouteView<'_>) -> Option<&UnicastRoute> {
        if self.routes.get(&to).is_none() {
            if self.routes.len() >= MAX_ROUTES {
                self.clear();
            }
            let tree = Tree::of(view.graph, to, None)?;
            let next = tree.parent(view.own);
            let next = next.and_then(|n| view.neighbors.get(&n)).copied();
            self.routes.insert(to, UnicastRoute { tree, next });
        }
        self.routes.get(&to)
    }
}
