//! The nodes that this node searches for in a DHT. One link is enough, so few are sought at a time.

use lcroute_overlay::{RendezvousEpochs, Sought};
use librecast::id::PeerId;
use librecast::time::{Duration, Instant};

/// Maximum number of sought nodes. Chosen: a look-up an hour each; the first one found has the
/// rest.
const MAX_SOUGHT: usize = 8;
/// Delay after a change, as nodes come and go together.
const SETTLES_IN: Duration = Duration::from_secs(1);

/// The last result, and the time of the next search.
#[derive(Debug)]
pub(crate) struct Seeking {
    said: Option<Sought>,
    look_at: Option<Instant>,
}

impl Seeking {
    pub(crate) fn new() -> Self {
        Self {
            said: None,
            look_at: None,
        }
    }

    /// Schedules a review after nodes came or left.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.look_at.get_or_insert(now + SETTLES_IN);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.look_at.is_some_and(|at| at <= now);
        if due {
            self.look_at = None;
        }
        due
    }

    /// Returns the nodes to search for: `issuer`, then `away`, last seen first. None: no change.
    pub(crate) fn choose(
        &mut self,
        issuer: Option<PeerId>,
        away: impl Iterator<Item = PeerId>,
        (lonely, invites): (bool, bool),
        epochs: &RendezvousEpochs,
    ) -> Option<Sought> {
        let others = away.filter(|peer| Some(*peer) != issuer);
        let peers = issuer.into_iter().chain(others).take(MAX_SOUGHT);
        let sought = Sought {
            issuer: issuer.filter(|_| lonely),
            peers: peers.collect(),
            invites,
            epochs: Some(epochs.clone()),
        };
        if self.said.as_ref() == Some(&sought) {
            return None;
        }
        self.said = Some(sought.clone());
        Some(sought)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{key, start};

    #[test]
    fn the_issuer_comes_first_and_few_others_follow() {
        let mut seeking = Seeking::new();
        let epochs = RendezvousEpochs::new(key(9).peer_id());
        let peer = |n| key(n).peer_id();
        let away = || (1..20).map(peer);
        let sought = seeking
            .choose(Some(peer(3)), away(), (true, false), &epochs)
            .unwrap();
        assert_eq!(sought.issuer, Some(peer(3)));
        let expected: Vec<_> = [3, 1, 2, 4, 5, 6, 7, 8].map(peer).into();
        assert_eq!(sought.peers, expected);
        assert_eq!(
            seeking.choose(Some(peer(3)), away(), (true, false), &epochs),
            None
        );
        // with a link it need not be found
        let sought = seeking
            .choose(Some(peer(3)), away(), (false, false), &epochs)
            .unwrap();
        assert_eq!((sought.issuer, sought.peers.len()), (None, 8));
    }

    #[test]
    fn changes_are_gathered() {
        let (mut seeking, now) = (Seeking::new(), start());
        seeking.changed(now);
        seeking.changed(now + SETTLES_IN / 2);
        assert_eq!(seeking.next_timeout(), Some(now + SETTLES_IN));
        assert!(!seeking.is_due(now) && seeking.is_due(now + SETTLES_IN));
        assert!(!seeking.is_due(now + SETTLES_IN));
    }
}
