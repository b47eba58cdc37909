//! A link with everybody.

use std::collections::BTreeSet;

use librecast::id::OriginId;
use librecast::time::Instant;

use super::policy::{Policy, View};

/// For small networks, and for who wants it.
#[derive(Debug)]
pub(super) struct Mesh;

impl Policy for Mesh {
    fn wanted(&mut self, view: &View<'_>, _: Instant) -> BTreeSet<OriginId> {
        view.known.keys().copied().collect()
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }
}
