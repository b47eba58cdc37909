//! Cells of cells: eight members are a mesh, eight such cells are a cell above, and so on. Links
//! grow with the logarithm of the network, and paths are shorter than in a regular graph.
//!
//! ```text
//!   digits of X: 3 5 1 ...        cell 351: X and up to seven more members, a mesh
//!   level 1: one of the cells 30..37 beside 35, one partner there
//!   level 0: one of the cells 0..7 beside 3, one partner there
//! ```
//!
//! The hash of a member is BLAKE3 `derive_key` with context `lcroute 2026 fractal` over its origin
//! id (64 bits). Its first 64 bits, big-endian, are its digits of 3 bits and its place in the order
//! of all members. A cell of more than eight is divided by the next digit. On level n a member is
//! assigned the sibling cell (byte 8 + n) mod 7 beside its own, or the next one with members. It
//! links with the nearest member there on the ring (bytes 24 to 31), if possible one assigned to
//! its own cell. Cells may choose each other in pairs, so each member also links with its successor
//! and predecessor in the order. Latency decides on two links.

use std::collections::{BTreeMap, BTreeSet};

use librecast::id::{OriginId, derive};
use librecast::time::Instant;

use super::near::Near;
use super::policy::{Policy, View, builders, seek};

const CONTEXT: &str = "lcroute 2026 fractal";
/// Members of a cell that is a mesh, and cells of a cell.
const CELL: usize = 8;
/// Bits of a digit.
const DIGIT: u32 = 3;
/// Digits of 64 bits.
const LEVELS: u32 = 21;
/// Links chosen by latency.
const NEAR_LINKS: u8 = 2;
/// Degree for near links, which avoid hubs. From the model of a thousand members: 10.8 links each.
const LINKS: u8 = 11;

#[derive(Debug, Clone, Copy)]
struct Place([u8; 32]);

impl Place {
    fn of(origin: OriginId) -> Self {
        Self(derive(CONTEXT, &[&origin.0.to_be_bytes()]))
    }

    fn number(self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_be_bytes(bytes)
    }

    fn order(self) -> u64 {
        self.number(0)
    }

    fn ring(self) -> u64 {
        self.number(24)
    }

    fn digit(self, level: u32) -> u64 {
        self.order() >> (64 - DIGIT * (level + 1)) & (CELL as u64 - 1)
    }

    /// All places that share this number of digits with it, except for the last one, `last`.
    fn cell(self, digits: u32, last: u64) -> std::ops::RangeInclusive<u64> {
        if digits == 0 {
            return 0..=u64::MAX;
        }
        let below = 64 - DIGIT * digits;
        let above = self.order().checked_shr(below + DIGIT).unwrap_or(0) << DIGIT;
        let first = (above | last) << below;
        first..=first | ((1 << below) - 1)
    }
}

fn distance(a: u64, b: u64) -> u64 {
    a.wrapping_sub(b).min(b.wrapping_sub(a))
}

#[derive(Debug)]
pub(super) struct Fractal {
    places: BTreeMap<OriginId, Place>,
    order: BTreeSet<(u64, OriginId)>,
    /// The value of [`View::members`] for these cells.
    members: Option<u64>,
    near: Near,
}

impl Fractal {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        Self {
            places: BTreeMap::new(),
            order: BTreeSet::new(),
            members: None,
            near: Near::new(NEAR_LINKS, LINKS, seed, now),
        }
    }

    fn set_members(&mut self, view: &View<'_>) {
        let members: BTreeSet<OriginId> = builders(view.known).chain([view.own]).collect();
        let order = &mut self.order;
        self.places.retain(|origin, place| {
            let stays = members.contains(origin);
            if !stays {
                order.remove(&(place.order(), *origin));
            }
            stays
        });
        for origin in members {
            self.places.entry(origin).or_insert_with(|| {
                let place = Place::of(origin);
                order.insert((place.order(), origin));
                place
            });
        }
    }

    fn within(
        &self,
        cell: std::ops::RangeInclusive<u64>,
    ) -> impl Iterator<Item = OriginId> + use<'_> {
        let (first, last) = (*cell.start(), *cell.end());
        let range = (first, OriginId(0))..=(last, OriginId(u64::MAX));
        self.order.range(range).map(|(_, origin)| *origin)
    }

    /// The digit of the sibling cell assigned to a member on a level; `None`: none has members.
    fn assigned(&self, place: Place, level: u32) -> Option<u64> {
        let cells = CELL as u64;
        let choice = u64::from(place.0[8 + level as usize]) % (cells - 1);
        let beside = (0..cells - 1).map(|n| 1 + (choice + n) % (cells - 1));
        let mut digits = beside.map(|n| (place.digit(level) + n) % cells);
        digits.find(|digit| {
            let cell = place.cell(level + 1, *digit);
            self.within(cell).next().is_some()
        })
    }

    /// Partners on a level, the best first.
    fn partners(&self, place: Place, level: u32) -> Vec<OriginId> {
        let Some(sibling) = self.assigned(place, level) else {
            return Vec::new();
        };
        let own = place.digit(level);
        let there = self.within(place.cell(level + 1, sibling));
        let mut all: Vec<_> = there
            .filter_map(|origin| {
                let other = self.places.get(&origin)?;
                let assigned = self.assigned(*other, level) == Some(own);
                Some((!assigned, distance(other.ring(), place.ring()), origin))
            })
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(.., origin)| origin).collect()
    }

    fn cells(&self, view: &View<'_>) -> BTreeSet<OriginId> {
        let mut wanted = BTreeSet::new();
        let Some(place) = self.places.get(&view.own).copied() else {
            return wanted;
        };
        let mut level: u32 = 0;
        let own_cell = loop {
            let last = level.checked_sub(1).map_or(0, |l| place.digit(l));
            let cell = place.cell(level, last);
            if level == LEVELS || self.within(cell.clone()).nth(CELL).is_none() {
                break cell;
            }
            seek(view, self.partners(place, level).into_iter(), &mut wanted);
            level += 1;
        };
        let mates = self.within(own_cell).filter(|origin| *origin != view.own);
        wanted.extend(mates.take(CELL));
        let at = (place.order(), view.own);
        let after = (std::ops::Bound::Excluded(at), std::ops::Bound::Unbounded);
        let (after, before) = (self.order.range(after), self.order.range(..at));
        let origin = |(_, origin): &(u64, OriginId)| *origin;
        let successors = after.clone().chain(before.clone()).map(origin);
        seek(view, successors, &mut wanted);
        let predecessors = before.rev().chain(after.rev()).map(origin);
        seek(view, predecessors, &mut wanted);
        wanted
    }
}

impl Policy for Fractal {
    fn wanted(&mut self, view: &View<'_>, now: Instant) -> BTreeSet<OriginId> {
        if view.members.is_none() || view.members != self.members {
            self.members = view.members;
            self.set_members(view);
        }
        let mut wanted = self.cells(view);
        self.near.update(view, &wanted, now);
        wanted.extend(self.near.wanted());
        wanted
    }

    fn on_trial(&self) -> Option<OriginId> {
        self.near.on_trial()
    }

    fn is_looking(&self, now: Instant) -> bool {
        self.near.is_looking(now)
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.near.next_timeout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_same_on_all_nodes_and_versions() {
        let place = Place::of(OriginId(0x0123_4567_89ab_cdef));
        let frozen = (0x3f51_795e_971c_e186, 0x9c02_3e82_be2c_77b7, 170);
        assert_eq!((place.order(), place.ring(), place.0[8]), frozen);
    }

    #[test]
    fn the_cells_of_a_level_are_all_members() {
        let place = Place::of(OriginId(7));
        for level in 0..LEVELS {
            let digit = place.digit(level);
            let inner = place.cell(level + 1, digit);
            assert!(inner.contains(&place.order()), "{level}");
            let outer = place.cell(level, level.checked_sub(1).map_or(0, |l| place.digit(l)));
            let mut next = *outer.start();
            for digit in 0..CELL as u64 {
                let cell = place.cell(level + 1, digit);
                assert_eq!(*cell.start(), next, "{level}");
                next = cell.end().wrapping_add(1);
            }
            assert_eq!(next, outer.end().wrapping_add(1), "{level}");
        }
    }
}
