//! The forwarding table: who wants what, and the outgoing links of a packet.
//!
//! Keys are (root, group): a packet travels on the tree that its header names. In a full mesh each
//! router is the root of its own tree and all others are its leaves, so a packet goes from the root over
//! the links that want it and never on from a leaf: that is the whole of split horizon here.

use std::net::Ipv6Addr;
use std::sync::Arc;

use librecast::id::OriginId;

use crate::config::LinkId;
use crate::filter::{Filter, merge};
use crate::interest::RootGroup;
use crate::output::Links;
use crate::table::Table;
use crate::traffic::Traffic;

/// Sources per group whose outgoing links are remembered.
const MAX_CACHED_SOURCES: usize = 8;

/// One (root, group) that somebody wants.
#[derive(Debug, Default)]
struct Entry {
    /// Sorted by link; never empty.
    filters: Vec<(LinkId, Filter)>,
    /// Links that want a given source; emptied by every change.
    outgoing: Vec<(Ipv6Addr, Links)>,
    traffic: Traffic,
}

impl Entry {
    fn compute(&self, source: Ipv6Addr) -> Links {
        let wanting = self.filters.iter().filter(|(_, f)| f.allows(source));
        wanting.map(|(link, _)| *link).collect::<Arc<[_]>>()
    }

    fn outgoing(&mut self, source: Ipv6Addr) -> &Links {
        let at = match self.outgoing.iter().position(|(s, _)| *s == source) {
            Some(at) => at,
            None => {
                let links = self.compute(source);
                if self.outgoing.len() == MAX_CACHED_SOURCES {
                    self.outgoing.remove(0);
                }
                self.outgoing.push((source, links));
                self.outgoing.len() - 1
            }
        };
        &self.outgoing[at].1
    }
}

/// All interest of all neighbours.
#[derive(Debug)]
pub struct Forwarding {
    entries: Table<RootGroup, Entry>,
}

impl Forwarding {
    /// An empty table.
    pub fn new(seed: u64) -> Self {
        Self {
            entries: Table::new(seed),
        }
    }

    /// What a neighbour wants of (root, group) from now on.
    pub fn set(&mut self, key: RootGroup, link: LinkId, filter: Option<Filter>) {
        let Some(filter) = filter else {
            self.remove(key, link);
            return;
        };
        let entry = self.entries.get_or_insert_with(key, Entry::default);
        entry.outgoing.clear();
        match entry.filters.binary_search_by_key(&link, |(l, _)| *l) {
            Ok(at) => entry.filters[at].1 = filter,
            Err(at) => entry.filters.insert(at, (link, filter)),
        }
    }

    fn remove(&mut self, key: RootGroup, link: LinkId) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.outgoing.clear();
        if let Ok(at) = entry.filters.binary_search_by_key(&link, |(l, _)| *l) {
            entry.filters.remove(at);
        }
        if entry.filters.is_empty() {
            self.entries.remove(&key);
        }
    }

    /// What a neighbour wants of (root, group).
    pub fn filter(&self, key: RootGroup, link: LinkId) -> Option<&Filter> {
        let filters = &self.entries.get(&key)?.filters;
        filters
            .binary_search_by_key(&link, |(l, _)| *l)
            .ok()
            .map(|at| &filters[at].1)
    }

    /// The links that want a packet, with the group's counters; `None` if there is none.
    pub fn outgoing(&mut self, key: RootGroup, source: Ipv6Addr) -> Option<(Links, &mut Traffic)> {
        let entry = self.entries.get_mut(&key)?;
        let links = entry.outgoing(source).clone();
        (!links.is_empty()).then_some((links, &mut entry.traffic))
    }

    /// What all neighbours together want of (root, group) from these sources.
    pub fn merged(&self, key: RootGroup, present: &[Ipv6Addr]) -> Option<Filter> {
        let filters = &self.entries.get(&key)?.filters;
        if filters.iter().any(|(_, f)| f.is_all()) {
            return Some(Filter::all());
        }
        let parts: Vec<_> = filters
            .iter()
            .filter_map(|(_, f)| f.restricted_to(present))
            .collect();
        merge(&parts)
    }

    /// The links over which (root, group) is wanted, whatever its source.
    pub fn links(&self, key: RootGroup) -> Vec<LinkId> {
        let entry = self.entries.get(&key);
        entry.map_or_else(Vec::new, |e| {
            e.filters.iter().map(|(link, _)| *link).collect()
        })
    }

    /// The counters of (root, group).
    pub fn traffic(&self, key: RootGroup) -> Option<&Traffic> {
        self.entries.get(&key).map(|e| &e.traffic)
    }

    /// All groups that somebody wants on the tree of `root`, in order.
    pub fn groups(&self, root: OriginId) -> Vec<Ipv6Addr> {
        let keys = self.entries.sorted_keys();
        keys.into_iter()
            .filter(|(r, _)| *r == root)
            .map(|(_, group)| group)
            .collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: OriginId = OriginId(1);
    const G: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
    const KEY: RootGroup = (ROOT, G);

    fn source(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
    }

    fn outgoing(table: &mut Forwarding, from: u16) -> Vec<u32> {
        let links = table.outgoing(KEY, source(from)).map(|(links, _)| links);
        links.map_or_else(Vec::new, |links| links.iter().map(|l| l.0).collect())
    }

    #[test]
    fn outgoing_links_follow_every_change() {
        let mut t = Forwarding::new(1);
        assert!(outgoing(&mut t, 1).is_empty());
        t.set(KEY, LinkId(3), Some(Filter::all()));
        assert_eq!(outgoing(&mut t, 1), [3]);
        t.set(KEY, LinkId(1), Filter::include([source(2)]));
        assert_eq!(
            (outgoing(&mut t, 1), outgoing(&mut t, 2)),
            (vec![3], vec![1, 3])
        );
        t.set(KEY, LinkId(3), Some(Filter::exclude([source(2)])));
        assert_eq!(
            (outgoing(&mut t, 1), outgoing(&mut t, 2)),
            (vec![3], vec![1])
        );
        t.set(KEY, LinkId(3), None);
        assert_eq!(
            (outgoing(&mut t, 1), outgoing(&mut t, 2)),
            (vec![], vec![1])
        );
        t.set(KEY, LinkId(1), None);
        t.set(KEY, LinkId(1), None);
        assert_eq!((outgoing(&mut t, 2), t.len()), (vec![], 0));
    }

    #[test]
    fn interest_in_another_tree_does_not_count() {
        let mut t = Forwarding::new(1);
        t.set((OriginId(2), G), LinkId(1), Some(Filter::all()));
        assert!(outgoing(&mut t, 1).is_empty());
        assert!(t.groups(ROOT).is_empty());
        assert_eq!(t.groups(OriginId(2)), [G]);
    }

    #[test]
    fn remembered_links_are_bounded_and_right() {
        let mut t = Forwarding::new(1);
        t.set(KEY, LinkId(1), Some(Filter::exclude([source(7)])));
        for n in (0..100).chain(0..100) {
            assert_eq!(outgoing(&mut t, n).is_empty(), n == 7, "{n}");
            assert!(t.entries.get(&KEY).unwrap().outgoing.len() <= MAX_CACHED_SOURCES);
        }
    }

    #[test]
    fn merged_interest_knows_only_sources_of_this_node() {
        let mut t = Forwarding::new(1);
        let many = |from: u16| Filter::include((from..from + 60).map(source));
        t.set(KEY, LinkId(1), many(100));
        t.set(KEY, LinkId(2), many(200));
        assert_eq!(
            t.merged(KEY, &[source(1)]),
            None,
            "not EXCLUDE{{}}, although there are too many"
        );
        t.set(KEY, LinkId(3), Filter::include([source(1), source(2)]));
        assert_eq!(t.merged(KEY, &[source(1)]), Filter::include([source(1)]));
        t.set(KEY, LinkId(4), Some(Filter::all()));
        assert_eq!(t.merged(KEY, &[source(1)]), Some(Filter::all()));
    }
}
