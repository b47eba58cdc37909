//! What the daemon learns and must not forget: written to the state directory by the slow side, because a
//! disk may take its time.

use librecast::cert::Chain;
use librecast::revocation::Revocation;
use tokio::sync::mpsc;

use crate::revocations::Revocations;
use crate::state::{Membership, StateDir, unix_now};

/// Something to keep.
#[derive(Debug)]
pub enum Keep {
    /// This node's renewed certificates.
    Chain(Chain),
    /// An earlier run of this node went by this incarnation: the next goes by a later one.
    Incarnation(u32),
    /// Somebody has been expelled.
    Revocation(Box<Revocation>),
    /// The list of members as text.
    Members(String),
}

/// Writes it.
#[derive(Debug)]
pub struct Keeper {
    state: StateDir,
    membership: Membership,
    revocations: Revocations,
    queue: mpsc::UnboundedReceiver<Keep>,
}

impl Keeper {
    /// Keeps what comes out of `queue`, beside what is there already.
    #[must_use]
    pub fn new(
        state: StateDir,
        membership: Membership,
        revocations: Revocations,
        queue: mpsc::UnboundedReceiver<Keep>,
    ) -> Self {
        Self {
            state,
            membership,
            revocations,
            queue,
        }
    }

    /// The next thing to keep; none once there can be no more.
    pub async fn next(&mut self) -> Option<Keep> {
        self.queue.recv().await
    }

    /// Writes `first` and whatever waits behind it: each file once.
    pub fn keep(&mut self, first: Option<Keep>) {
        let (mut renewed, mut expelled, mut members) = (None, false, None);
        let mut next = first.or_else(|| self.queue.try_recv().ok());
        while let Some(keep) = next {
            match keep {
                Keep::Chain(chain) => renewed = Some(chain),
                Keep::Incarnation(used) => complain(self.state.store_incarnation(used)),
                Keep::Revocation(r) => expelled |= self.revocations.add(*r, unix_now()),
                Keep::Members(text) => members = Some(text),
            }
            next = self.queue.try_recv().ok();
        }
        if let Some(chain) = renewed {
            self.membership = self.membership.renewed(&chain);
            complain(self.state.store_membership(&self.membership));
        }
        if expelled {
            complain(self.state.store_revocations(&self.revocations));
        }
        if let Some(text) = members {
            complain(self.state.store_members(&text));
        }
    }
}

fn complain(result: anyhow::Result<()>) {
    if let Err(e) = result {
        tracing::error!("not kept: {e:#}");
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn all_that_waits_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (keep, queue) = mpsc::unbounded_channel();
        let network = SecretKey::generate();
        let (id, now) = (network.peer_id(), unix_now());
        let (old, new) = crate::state::testing::chains(&network, now);
        let membership = Membership::new(id, vec!["ws://a:1".into()], &old);
        let state = || StateDir::new(dir.path().into());
        let mut keeper = Keeper::new(state(), membership, Revocations::default(), queue);
        keeper.keep(None);
        assert!(
            state().membership().unwrap().is_none(),
            "nothing came, nothing is written"
        );
        for _ in 0..3 {
            let node = SecretKey::generate().peer_id();
            let revocation = Revocation::by_network(&network, node, now, now + 9).unwrap();
            keep.send(Keep::Revocation(Box::new(revocation))).unwrap();
        }
        keep.send(Keep::Chain(new.clone())).unwrap();
        keep.send(Keep::Incarnation(41)).unwrap();
        keeper.keep(None);
        assert_eq!(state().revocations(&id, now).unwrap().iter().count(), 3);
        let read = state().membership().unwrap().unwrap();
        assert_eq!(read.chain().unwrap(), new);
        assert_eq!(state().next_incarnation().unwrap(), 42);
        assert_eq!(read.signal, ["ws://a:1"], "what was not renewed stays");
    }
}
