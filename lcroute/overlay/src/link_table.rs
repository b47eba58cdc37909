//! Numbers of connections, and their peers.

use std::collections::BTreeMap;

use librecast::id::{LinkId, PeerId};

/// All connections of this node, authenticated or not.
#[derive(Debug)]
pub(crate) struct LinkTable {
    peers: BTreeMap<LinkId, PeerId>,
    /// Number of authenticated connections.
    up: usize,
    next: u32,
}

impl LinkTable {
    pub(crate) fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            up: 0,
            next: 1,
        }
    }

    /// Returns a new number for a connection to `peer`; none is used twice.
    pub(crate) fn add(&mut self, peer: PeerId) -> LinkId {
        let link = LinkId(self.next);
        self.next += 1;
        let replaced = self.peers.insert(link, peer);
        debug_assert!(replaced.is_none(), "no number is used twice");
        link
    }

    pub(crate) fn remove(&mut self, link: LinkId, is_up: bool) {
        let removed = self.peers.remove(&link);
        debug_assert!(removed.is_some(), "a connection ends once");
        self.up -= usize::from(is_up);
        debug_assert!(self.up <= self.peers.len(), "those that are up exist");
    }

    pub(crate) fn raise(&mut self) {
        self.up += 1;
        debug_assert!(self.up <= self.peers.len(), "each is raised once");
    }

    pub(crate) fn any_up(&self) -> bool {
        self.up > 0
    }

    pub(crate) fn peer(&self, link: LinkId) -> Option<PeerId> {
        self.peers.get(&link).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}
