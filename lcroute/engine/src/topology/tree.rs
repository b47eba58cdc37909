//! One tree of all members, n - 1 links: for comparison, and for uplinks of low capacity.
//!
//! ```text
//!   level 2          T          the lowest hash of all
//!                  / | \
//!   level 1       A  B  D       a parent is the nearest on the ring of a higher level,
//!                /|  |   \      and has eight children at most
//!   level 0     .. ..  ..  ..
//! ```
//!
//! The hash of a member is BLAKE3 `derive_key` with context `lcroute 2026 tree` over its origin id
//! (64 bits). Its level is the number of leading pairs of zero bits; bytes 8 to 15, big-endian, are
//! its place on the ring. Nodes with the same members compute the same tree. A node asks only for
//! the link up, the top for one down: the death of a member concerns only its children.

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::{OriginId, derive};
use librecast::time::Instant;

use super::policy::{Policy, Standing, View, builders, seek};

const CONTEXT: &str = "lcroute 2026 tree";
/// Children of a member. Chosen: a parent has as many links as a node of a regular graph.
const MAX_CHILDREN: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The lowest is on top.
    hash: u64,
    ring: u64,
}

impl Place {
    fn of(origin: OriginId) -> Self {
        let hash = derive(CONTEXT, &[&origin.0.to_be_bytes()]);
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hash[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Self {
            hash: number(0),
            ring: number(8),
        }
    }

    fn level(self) -> u32 {
        self.hash.leading_zeros() / 2
    }
}

fn distance(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b).min(b.wrapping_sub(a))
}

/// Members that may still take children.
#[derive(Debug, Default)]
struct Open {
    ring: BTreeSet<(u64, OriginId)>,
    children: BTreeMap<OriginId, u8>,
}

impl Open {
    fn nearest(&self, at: u64) -> Option<(u64, OriginId)> {
        let after = self.ring.range((at, OriginId(0))..).next();
        let before = self.ring.range(..(at, OriginId(0))).next_back();
        let ends = [self.ring.first(), self.ring.last()];
        let all = [after, before].into_iter().chain(ends).flatten();
        all.copied()
            .min_by_key(|(ring, o)| (distance(*ring, at), *o))
    }

    /// Gives `parent` one more child.
    fn take(&mut self, parent: (u64, OriginId)) -> OriginId {
        let children = self.children.entry(parent.1).or_default();
        *children += 1;
        if *children >= MAX_CHILDREN {
            self.ring.remove(&parent);
        }
        parent.1
    }

    fn has_room(&self, origin: OriginId) -> bool {
        self.children.get(&origin).is_none_or(|n| *n < MAX_CHILDREN)
    }
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    places: BTreeMap<OriginId, Place>,
    parents: BTreeMap<OriginId, OriginId>,
    /// The value of [`View::members`] for this tree.
    members: Option<u64>,
}

impl Tree {
    fn set_members(&mut self, view: &View<'_>) {
        let members: BTreeSet<OriginId> = builders(view.known).chain([view.own]).collect();
        self.places.retain(|origin, _| members.contains(origin));
        for origin in members {
            let place = self.places.entry(origin);
            place.or_insert_with(|| Place::of(origin));
        }
        self.parents = parents(&self.places);
    }

    /// Members that may be above `own`, the best first: of higher levels by the ring, then of its
    /// own level. Then, so that no part stays alone, all that are not below it.
    fn others(&self, own: OriginId) -> impl Iterator<Item = OriginId> {
        let at = self.places.get(&own).copied();
        let rank = |origin: &OriginId, place: &Place| {
            let own = at?;
            let above = place.hash < own.hash;
            let higher = place.level() > own.level();
            Some((!higher, !above, distance(place.ring, own.ring), *origin))
        };
        let others = self.places.iter().filter(|(o, _)| **o != own);
        let mut all: Vec<_> = others
            .filter(|(origin, _)| !self.is_below(**origin, own))
            .filter_map(|(origin, place)| rank(origin, place))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(.., origin)| origin)
    }

    fn is_below(&self, mut origin: OriginId, above: OriginId) -> bool {
        while let Some(parent) = self.parents.get(&origin) {
            if *parent == above {
                return true;
            }
            origin = *parent;
        }
        false
    }
}

/// The parent of each member except the top.
fn parents(places: &BTreeMap<OriginId, Place>) -> BTreeMap<OriginId, OriginId> {
    let mut order: Vec<(Place, OriginId)> = places.iter().map(|(o, p)| (*p, *o)).collect();
    order.sort_unstable_by_key(|(place, origin)| (place.hash, *origin));
    let (mut open, mut parents) = (Open::default(), BTreeMap::new());
    let mut begin = 0;
    for (at, (place, origin)) in order.iter().enumerate() {
        if order[begin].0.level() != place.level() {
            let level = order[begin..at].iter();
            let with_room = level.filter(|(_, o)| open.has_room(*o));
            let with_room: Vec<_> = with_room.map(|(p, o)| (p.ring, *o)).collect();
            open.ring.extend(with_room);
            begin = at;
        }
        let same_level = || {
            let level = order[begin..at].iter();
            let found = level.map(|(p, o)| (p.ring, *o));
            let mut found = found.filter(|(_, o)| open.has_room(*o));
            found.next()
        };
        if let Some(parent) = open.nearest(place.ring).or_else(same_level) {
            parents.insert(*origin, open.take(parent));
        }
    }
    parents
}

impl Policy for Tree {
    fn wanted(&mut self, view: &View<'_>, _: Instant) -> BTreeSet<OriginId> {
        if view.members.is_none() || view.members != self.members {
            self.members = view.members;
            self.set_members(view);
        }
        let mut wanted = BTreeSet::new();
        if let Some(parent) = self.parents.get(&view.own) {
            if view.standing(*parent) == Some(Standing::Good) {
                wanted.insert(*parent);
            } else {
                let others = self.others(view.own).filter(|o| o != parent);
                seek(view, std::iter::once(*parent).chain(others), &mut wanted);
            }
        } else {
            // a stub router may be the top in its own view only: one child links with it
            let children = self.parents.iter().filter(|(_, p)| **p == view.own);
            seek(view, children.map(|(child, _)| *child), &mut wanted);
        }
        wanted
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_same_on_all_nodes_and_versions() {
        let place = Place::of(OriginId(0x0123_4567_89ab_cdef));
        let frozen = (0xf7b6_9e36_6ee5_80b3, 0x55bc_0698_e674_0bd7);
        assert_eq!((place.hash, place.ring), frozen);
    }

    #[test]
    fn parents_are_above_and_have_eight_children_at_most() {
        let places: BTreeMap<_, _> = (0..1_000)
            .map(|n| (OriginId(n), Place::of(OriginId(n))))
            .collect();
        let parents = parents(&places);
        assert_eq!(parents.len(), places.len() - 1);
        let mut children = BTreeMap::new();
        for (child, parent) in &parents {
            assert!(places[parent].hash < places[child].hash);
            *children.entry(parent).or_insert(0) += 1;
        }
        assert!(children.values().all(|n| *n <= MAX_CHILDREN));
        // levels are quarters, so the depth is small
        let above = |origin: &OriginId| parents.get(origin).copied();
        let depth = |origin: &OriginId| std::iter::successors(above(origin), above).count();
        let deepest = places.keys().map(depth).max();
        assert!(deepest <= Some(8), "{deepest:?}");
    }
}
