//! Random rings. Each ring is all members in the order of a hash, so every node that knows the
//! members knows all places. A member that comes or goes concerns its neighbours only. Stub routers
//! are on no rings but their own: they take the links of their places, and hold no ring together.
//!
//! ```text
//!          predecessor   X   successor            the ring of pairs, cut before each head (^):
//!   ring 0: ... D ─────── X ─────── B ...            A─B  C─D  E   F─G  ...
//!   ring 1: ... F ─────── X ─────── A ...            ^         └───^    (E is left over and
//!                                                                      takes its successor)
//! ```
//!
//! The place of a member on a ring is the first 8 bytes of BLAKE3 `derive_key` with context
//! `lcroute 2026 ring` over (number of the ring 8 bits, origin id 64 bits), big-endian; ties go by
//! origin id. Rings are numbered from 0; the ring of pairs is number 255. Its heads are the first
//! member, and members at places that are multiples of 4.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use librecast::id::{OriginId, derive};

use super::policy::{Known, Standing, View, builders};

const CONTEXT: &str = "lcroute 2026 ring";
/// Number of the ring that pairs neighbours, for an odd number of links.
const PAIRS: u8 = 255;
/// Members per row of pairs, on average.
const HEADS: u64 = 4;
/// Members without a direct link that are tried on each side of a ring.
const MAX_FAILING: usize = 2;
/// Members examined on each side of a ring in search of a good one.
const MAX_WALK: usize = 256;

type Place = (u64, OriginId);

#[derive(Debug)]
struct Ring {
    number: u8,
    order: BTreeSet<Place>,
}

impl Ring {
    fn new(number: u8) -> Self {
        Self {
            number,
            order: BTreeSet::new(),
        }
    }

    fn place(&self, origin: OriginId) -> Place {
        let hash = derive(CONTEXT, &[&[self.number], &origin.0.to_be_bytes()]);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        (u64::from_be_bytes(first), origin)
    }

    /// All other members, from the successor once round.
    fn after(&self, origin: OriginId) -> impl Iterator<Item = OriginId> {
        let at = self.place(origin);
        let rest = self.order.range((Bound::Excluded(at), Bound::Unbounded));
        rest.chain(self.order.range(..at)).map(|place| place.1)
    }

    /// All other members, from the predecessor once round.
    fn before(&self, origin: OriginId) -> impl Iterator<Item = OriginId> {
        let at = self.place(origin);
        let rest = self.order.range((Bound::Excluded(at), Bound::Unbounded));
        let before = self.order.range(..at).rev();
        before.chain(rest.rev()).map(|place| place.1)
    }

    fn is_head(&self, place: Place) -> bool {
        place.0.is_multiple_of(HEADS) || self.order.first() == Some(&place)
    }

    /// The partner of `origin`; a member that is left over takes its successor.
    fn partner(&self, origin: OriginId) -> Option<OriginId> {
        let at = self.place(origin);
        let row = self.order.range(..=at).rev();
        let from_head = row.take_while(|place| !self.is_head(**place)).count();
        if from_head % 2 == 1 {
            return self.before(origin).next();
        }
        self.after(origin).next()
    }
}

#[derive(Debug)]
pub(super) struct Rings {
    members: BTreeSet<OriginId>,
    rings: Vec<Ring>,
    pairs: Option<Ring>,
}

impl Rings {
    /// Rings that give each member `links` links.
    pub(super) fn new(links: u8) -> Self {
        Self {
            members: BTreeSet::new(),
            rings: (0..links / 2).map(Ring::new).collect(),
            pairs: (links % 2 == 1).then(|| Ring::new(PAIRS)),
        }
    }

    pub(super) fn set_members(&mut self, own: OriginId, known: &BTreeMap<OriginId, Known>) {
        let mut others = builders(known).filter(|origin| *origin != own).peekable();
        let (mut gone, mut new): (Vec<OriginId>, Vec<OriginId>) = Default::default();
        for member in &self.members {
            new.extend(std::iter::from_fn(|| others.next_if(|o| o < member)));
            if others.next_if_eq(member).is_none() && *member != own {
                gone.push(*member);
            }
        }
        new.extend(others);
        new.extend((!self.members.contains(&own)).then_some(own));
        for origin in gone {
            self.members.remove(&origin);
            self.change(origin, |ring, place| ring.remove(&place));
        }
        for origin in new {
            self.members.insert(origin);
            self.change(origin, |ring, place| ring.insert(place));
        }
    }

    fn change(&mut self, origin: OriginId, change: impl Fn(&mut BTreeSet<Place>, Place) -> bool) {
        for ring in self.rings.iter_mut().chain(&mut self.pairs) {
            let place = ring.place(origin);
            change(&mut ring.order, place);
        }
    }

    /// The neighbours of `view.own`. Each side of a ring gives one more member, so that a member
    /// always wants as many as its degree.
    pub(super) fn wanted(&self, view: &View<'_>) -> BTreeSet<OriginId> {
        let mut wanted = BTreeSet::new();
        for ring in &self.rings {
            walk(view, ring.after(view.own), &mut wanted);
            walk(view, ring.before(view.own), &mut wanted);
        }
        if let Some(pairs) = &self.pairs
            && let Some(partner) = pairs.partner(view.own)
        {
            let further = pairs.after(partner).filter(|o| *o != view.own);
            walk(view, [partner].into_iter().chain(further), &mut wanted);
        }
        wanted
    }
}

/// Goes along a ring to the first good member that is not wanted yet.
///
/// An arriving member takes its place before its successor leaves it: no link ends before the new
/// one is up. So a dead member that a carrier still shows delays nothing. Members without a direct
/// link are tried again and again, in addition.
fn walk(view: &View<'_>, way: impl Iterator<Item = OriginId>, wanted: &mut BTreeSet<OriginId>) {
    let (mut arriving, mut failing) = (false, 0);
    for origin in way.take(MAX_WALK) {
        match view.standing(origin) {
            Some(Standing::Good) => {
                if wanted.insert(origin) {
                    return;
                }
            }
            Some(Standing::Arriving) => arriving |= !arriving && wanted.insert(origin),
            Some(Standing::Failing) if failing < MAX_FAILING => {
                wanted.insert(origin);
                failing += 1;
            }
            Some(Standing::Failing) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_same_on_all_nodes_and_versions() {
        let place = |ring, origin| Ring::new(ring).place(OriginId(origin)).0;
        let places = [
            place(0, 1),
            place(1, 1),
            place(PAIRS, 0x0123_4567_89ab_cdef),
        ];
        let frozen = [
            0x2c53_e4e3_686c_fc59,
            0xd7d1_26b2_2f8f_c080,
            0xe0b1_b844_1910_6b3c,
        ];
        assert_eq!(places, frozen);
    }

    #[test]
    fn pairs_are_mutual_except_for_who_is_left_over() {
        let mut ring = Ring::new(PAIRS);
        for n in 0..500 {
            let place = ring.place(OriginId(n));
            ring.order.insert(place);
        }
        let mut left_over = 0;
        for n in (0..500).map(OriginId) {
            let partner = ring.partner(n).unwrap();
            if ring.partner(partner) != Some(n) {
                assert_eq!(ring.after(n).next(), Some(partner));
                left_over += 1;
            }
        }
        assert!((1..125).contains(&left_over), "{left_over}");
    }
}
