//! Peers to which links are made, and those among them where attempts fail.

use std::collections::BTreeSet;

use librecast::id::PeerId;

use crate::event::Event;
use crate::outputs::Outputs;

/// The wanted links.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    peers: BTreeSet<PeerId>,
    /// Peers for which [`Event::DirectFailure`] reported failing attempts.
    failing: BTreeSet<PeerId>,
}

impl Wanted {
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }

    pub(crate) fn peers(&self) -> &BTreeSet<PeerId> {
        &self.peers
    }

    /// Replaces the wanted peers; returns the removed and the new ones.
    pub(crate) fn replace(&mut self, peers: BTreeSet<PeerId>) -> [Vec<PeerId>; 2] {
        let before = std::mem::replace(&mut self.peers, peers);
        let dropped = before.difference(&self.peers).copied().collect();
        let added = self.peers.difference(&before).copied().collect();
        [dropped, added]
    }

    pub(crate) fn is_failing(&self, peer: &PeerId) -> bool {
        self.failing.contains(peer)
    }

    /// Marks attempts to a peer as failing; at most `most` are stored.
    pub(crate) fn fail(&mut self, peer: PeerId, most: usize, outputs: &mut Outputs) {
        if self.failing.len() >= most {
            let others = self.failing.iter().find(|id| !self.contains(id));
            if let Some(other) = others.or(self.failing.first()).copied() {
                self.succeed(&other, outputs);
            }
        }
        if self.failing.insert(peer) {
            let failing = true;
            outputs.push(Event::DirectFailure { peer, failing });
        }
    }

    /// Ends a failure.
    pub(crate) fn succeed(&mut self, peer: &PeerId, outputs: &mut Outputs) {
        if self.failing.remove(peer) {
            let (peer, failing) = (*peer, false);
            outputs.push(Event::DirectFailure { peer, failing });
        }
    }
}
