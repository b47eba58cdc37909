//! The graph of all links that both ends advertise, and the routers that it reaches.

use std::collections::BTreeMap;
use std::sync::Arc;

use librecast::cert::EPHEMERAL_FORGOTTEN_AFTER;
use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use super::advertisement::Advertisement;
use super::store::{Router, Store};
use crate::graph::{Graph, Metric, link_digest, router_digest};

/// Time for which unreachable routers are remembered. Chosen: no new credentials after an outage.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);

pub(super) fn forgotten_at(router: &Router) -> Instant {
    let after = match router.credential().member.is_ephemeral() {
        true => EPHEMERAL_FORGOTTEN_AFTER,
        false => FORGET_AFTER,
    };
    router.gone_since + after
}

/// A router that became reachable or unreachable.
#[derive(Debug)]
pub(super) struct Reached {
    pub origin: OriginId,
    /// `Some`: reachable again, and unreachable since then; `None`: no longer reachable.
    pub gone_since: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct RouteGraph {
    graph: Arc<Graph>,
    /// XOR over all links that both ends advertise.
    digest: u64,
    /// New metrics of links since the graph was built, from the lower router; `None`: gone.
    changes: BTreeMap<(OriginId, OriginId), Option<Metric>>,
    /// Links, or the routers of the store, have changed.
    stale: bool,
    /// Digest of the reachable routers, if none came or went since.
    component: Option<u64>,
    reachable: usize,
    /// The first time at which an unreachable router may be forgotten.
    pub forget_at: Option<Instant>,
    version: u64,
}

impl RouteGraph {
    /// A graph of one router.
    pub fn new(own: OriginId) -> Self {
        Self {
            graph: Arc::new(Graph::new::<Metric>(router_digest(own), [own], &[])),
            digest: 0,
            changes: BTreeMap::new(),
            stale: true,
            component: None,
            reachable: 0,
            forget_at: None,
            version: 0,
        }
    }

    /// The last computed graph. It contains this router, and other routers only with links.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Number of routers to which links lead, this one included.
    pub fn reachable(&self) -> usize {
        self.reachable
    }

    /// Rises with every change of the graph or of the reachable routers.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// A router entered or left the store.
    pub fn note_router(&mut self, lost_reachable: bool) {
        self.reachable -= usize::from(lost_reachable);
        self.component = None;
        self.stale = true;
    }

    /// Adds links of an advertisement that the other end advertises, too; removes those of the
    /// earlier one. True: a new one leads to a router without an advertisement.
    pub fn update_links(
        &mut self,
        store: &mut Store,
        origin: OriginId,
        old: Option<&Advertisement>,
        new: Option<&Advertisement>,
    ) -> bool {
        let (mut came, mut went, mut unknown) = (0, 0, false);
        each_change(old, new, |to, before, after| {
            let far = store.routers.get_mut(&to);
            let Some(far) = far.filter(|far| far.advertisement.is_some()) else {
                unknown |= after.is_some();
                return;
            };
            let Some(back) = far.advertisement.as_ref().and_then(|a| End::of(a, origin)) else {
                return;
            };
            let link = (origin.min(to), origin.max(to));
            if let Some(end) = before {
                self.digest ^= link_digest(origin, to, end.with(back));
                self.changes.insert(link, None);
                far.links -= 1;
                went += 1;
            }
            if let Some(end) = after {
                let metric = end.with(back);
                self.digest ^= link_digest(origin, to, metric);
                let upward = if origin < to { metric } else { back.with(end) };
                self.changes.insert(link, Some(upward));
                far.links += 1;
                came += 1;
            }
        });
        if let Some(router) = store.routers.get_mut(&origin) {
            router.links = router.links + came - went;
        }
        self.stale |= came + went > 0;
        unknown
    }

    /// Digest of the content that the graph should have.
    pub fn digest(&self, store: &Store) -> u64 {
        let alone = store.routers.get(&store.own).is_none_or(|r| r.links == 0);
        // the graph contains this router even without links
        self.digest ^ if alone { router_digest(store.own) } else { 0 }
    }

    /// Updates the graph; returns the routers that became reachable or unreachable.
    pub fn refresh(&mut self, store: &mut Store, now: Instant) -> Vec<Reached> {
        if !std::mem::take(&mut self.stale) {
            return Vec::new();
        }
        let digest = self.digest(store);
        if digest != self.graph.digest() {
            let changes = self.changes.iter();
            let changes = Vec::from_iter(changes.map(|(&(a, b), &metric)| (a, b, metric)));
            self.graph = Arc::new(self.graph.after(digest, store.own, &changes));
            self.version += 1;
        }
        // links that came and went again have left no trace
        self.changes.clear();
        self.find_reachable(store, now)
    }

    fn find_reachable(&mut self, store: &mut Store, now: Instant) -> Vec<Reached> {
        let component = self.graph.reachable_digest(store.own);
        if component.is_some() && component == self.component {
            return Vec::new();
        }
        self.component = component;
        let mut reachable = self.graph.reachable(store.own).peekable();
        let (mut first, mut count, mut changed) = (None::<Instant>, 0, Vec::new());
        for (origin, router) in store.routers.iter_mut() {
            while reachable.next_if(|next| *next < origin).is_some() {}
            let is = reachable.next_if_eq(&origin).is_some();
            count += usize::from(is);
            if is != router.reachable {
                router.reachable = is;
                if !is {
                    router.gone_since = now;
                }
                let gone_since = is.then_some(router.gone_since);
                changed.push(Reached { origin, gone_since });
            }
            if !is {
                let at = forgotten_at(router);
                first = Some(first.map_or(at, |first| first.min(at)));
            }
        }
        self.reachable = count;
        self.version += u64::from(!changed.is_empty());
        self.forget_at = first;
        changed
    }
}

/// One end's advertisement of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    cost: u16,
    is_stub: bool,
}

impl End {
    fn all(advertisement: &Advertisement) -> impl Iterator<Item = (OriginId, Self)> {
        let is_stub = advertisement.is_stub();
        let links = advertisement.links();
        links.map(move |(to, cost)| (to, Self { cost, is_stub }))
    }

    fn of(advertisement: &Advertisement, to: OriginId) -> Option<Self> {
        let is_stub = advertisement.is_stub();
        let cost = advertisement.cost_to(to)?;
        Some(Self { cost, is_stub })
    }

    /// The metric of both ends: the larger cost counts.
    fn with(self, far: Self) -> Metric {
        Metric {
            cost: self.cost.max(far.cost),
            stubs: [self.is_stub, far.is_stub],
        }
    }
}

/// Calls `f` for each neighbour with a changed link, and its old and new end here.
fn each_change(
    old: Option<&Advertisement>,
    new: Option<&Advertisement>,
    mut f: impl FnMut(OriginId, Option<End>, Option<End>),
) {
    let mut before = old.into_iter().flat_map(End::all).peekable();
    let mut after = new.into_iter().flat_map(End::all).peekable();
    loop {
        let (was, is) = (before.peek().copied(), after.peek().copied());
        let Some(to) = was.iter().chain(&is).map(|(to, _)| *to).min() else {
            return;
        };
        let of = |link: Option<(OriginId, End)>| link.filter(|l| l.0 == to).map(|l| l.1);
        let (was, is) = (of(was), of(is));
        if was.is_some() {
            before.next();
        }
        if is.is_some() {
            after.next();
        }
        if was != is {
            f(to, was, is);
        }
    }
}
