//! The configured policy; the default is a mesh while the network is small.

use std::collections::BTreeSet;

use librecast::id::OriginId;
use librecast::time::Instant;

use super::fractal::Fractal;
use super::mesh::Mesh;
use super::policy::{Policy, View};
use super::regular::Regular;
use super::tree::Tree;
use crate::config::{PolicyKind, TopologyConfig};

/// Nodes, this one included, up to which `auto` is a mesh.
const MESH_UP_TO: usize = 8;
/// Nodes at which `auto` becomes a mesh again.
const MESH_AGAIN_AT: usize = 6;
/// Degrees: below two links a node there is no ring.
const DEGREES: std::ops::RangeInclusive<u8> = 2..=64;

/// The configured policy. `seed` jitters it.
pub(super) fn policy(config: TopologyConfig, seed: u64, now: Instant) -> Box<dyn Policy> {
    let degree = config.degree.clamp(*DEGREES.start(), *DEGREES.end());
    let regular = Regular::new(degree, seed, now);
    match config.policy {
        PolicyKind::Auto => Box::new(Auto {
            regular,
            is_mesh: true,
        }),
        PolicyKind::Mesh => Box::new(Mesh),
        PolicyKind::Regular => Box::new(regular),
        PolicyKind::Tree => Box::new(Tree::default()),
        PolicyKind::Fractal => Box::new(Fractal::new(seed, now)),
    }
}

/// A mesh while the network is small. If nodes differ about it, the end that wants a link wins.
#[derive(Debug)]
struct Auto {
    regular: Regular,
    is_mesh: bool,
}

impl Policy for Auto {
    fn wanted(&mut self, view: &View<'_>, now: Instant) -> BTreeSet<OriginId> {
        let nodes = view.known.len() + 1;
        self.is_mesh = nodes
            <= if self.is_mesh {
                MESH_UP_TO
            } else {
                MESH_AGAIN_AT
            };
        if self.is_mesh {
            Mesh.wanted(view, now)
        } else {
            self.regular.wanted(view, now)
        }
    }

    fn on_trial(&self) -> Option<OriginId> {
        self.regular.on_trial().filter(|_| !self.is_mesh)
    }

    fn is_looking(&self, now: Instant) -> bool {
        !self.is_mesh && self.regular.is_looking(now)
    }

    fn next_timeout(&self) -> Option<Instant> {
        if self.is_mesh {
            None
        } else {
            self.regular.next_timeout()
        }
    }
}
