//! Peers to which a link is to be made, and those of them where attempts fail.

use std::collections::BTreeSet;

use librecast::id::PeerId;

use crate::event::Event;
use crate::outputs::Outputs;

/// Which links are to be made.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    peers: BTreeSet<PeerId>,
    /// Those of which [`Event::DirectFailure`] said that attempts fail.
    failing: BTreeSet<PeerId>,
}

impl Wanted {
    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }

    pub(crate) fn peers(&self) -> &BTreeSet<PeerId> {
        &self.peers
    }

    /// Takes `peers` in place of those before: which are no longer among them, and which are new.
    pub(crate) fn replace(&mut self, peers: BTreeSet<PeerId>) -> [Vec<PeerId>; 2] {
        let before = std::mem::replace(&mut self.peers, peers);
        let dropped = before.difference(&self.peers).copied().collect();
        let added = self.peers.difference(&before).copied().collect();
        [dropped, added]
    }

    /// Whether attempts to link to a peer fail.
    pub(crate) fn is_failing(&self, peer: &PeerId) -> bool {
        self.failing.contains(peer)
    }

    /// Attempts to link to a peer fail; at most `most` of them are kept.
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

    /// They fail no longer.
    pub(crate) fn succeed(&mut self, peer: &PeerId, outputs: &mut Outputs) {
        if self.failing.remove(peer) {
            let (peer, failing) = (*peer, false);
            outputs.push(Event::DirectFailure { peer, failing });
        }
    }
}
