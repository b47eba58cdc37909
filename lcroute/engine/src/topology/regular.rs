//! About k links a node in a network of any size.
//!
//! k / 2 random rings are k-regular, connected as long as one of them is, and of logarithmic
//! diameter. A node that dies costs each neighbour one new link. An odd k is rounded down to rings,
//! and one more ring is cut into pairs. For k >= 6 latency decides on two of the links.

use std::collections::BTreeSet;

use librecast::id::OriginId;
use librecast::time::Instant;

use super::near::Near;
use super::policy::{Policy, View, builders};
use super::rings::Rings;

/// Degree from which latency decides on some links.
const NEAR_FROM: u8 = 6;
/// Number of these links.
const NEAR_LINKS: u8 = 2;

#[derive(Debug)]
pub(super) struct Regular {
    degree: u8,
    rings: Rings,
    /// The value of [`View::members`] for these rings.
    members: Option<u64>,
    near: Option<Near>,
}

impl Regular {
    pub(super) fn new(degree: u8, seed: u64, now: Instant) -> Self {
        let near = (degree >= NEAR_FROM).then(|| Near::new(NEAR_LINKS, degree, seed, now));
        let on_rings = degree - if near.is_some() { NEAR_LINKS } else { 0 };
        Self {
            degree,
            rings: Rings::new(on_rings),
            members: None,
            near,
        }
    }
}

impl Policy for Regular {
    fn wanted(&mut self, view: &View<'_>, now: Instant) -> BTreeSet<OriginId> {
        if view.members.is_none() || view.members != self.members {
            self.members = view.members;
            self.rings.set_members(view.own, view.known);
        }
        let mut wanted = if builders(view.known).count() <= usize::from(self.degree) {
            builders(view.known).collect()
        } else {
            self.rings.wanted(view)
        };
        if let Some(near) = &mut self.near {
            near.update(view, &wanted, now);
            wanted.extend(near.wanted());
        }
        wanted
    }

    fn on_trial(&self) -> Option<OriginId> {
        self.near.as_ref().and_then(Near::on_trial)
    }

    fn is_looking(&self, now: Instant) -> bool {
        self.near.as_ref().is_some_and(|near| near.is_looking(now))
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.near.as_ref().and_then(Near::next_timeout)
    }
}
