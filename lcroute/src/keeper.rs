//! Writes everything that must outlive the daemon to the state directory, on the control thread,
//! because a disk may be slow. Retries failed writes.

use std::net::Ipv4Addr;
use std::time::Duration;

use lcroute_control::Answer;
use lcroute_node::{EpochsText, Keep, Revocations};
use librecast::cert::Chain;
use librecast::time::UnixTime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::state::{Membership, StateDir, Texts};

/// Wait before a retry. Chosen: fills no journal.
const RETRY: Duration = Duration::from_secs(60);

/// The writer of the state directory.
#[derive(Debug)]
pub struct Keeper {
    state: StateDir,
    membership: Membership,
    revocations: Revocations,
    queue: mpsc::UnboundedReceiver<Kept>,
    texts: Texts,
    /// Answers to send once the texts are on disk.
    asked: Vec<(oneshot::Sender<Answer>, Answer)>,
    unwritten: Unwritten,
    retry_at: Instant,
}

/// The files to write.
#[derive(Debug, Default)]
struct Unwritten {
    membership: bool,
    incarnation: Option<u32>,
    ipv4: Option<Ipv4Addr>,
    revocations: bool,
    epochs: Option<EpochsText>,
    members: Option<String>,
    uses: Option<String>,
    texts: bool,
}

/// Something to write.
#[derive(Debug)]
pub enum Kept {
    /// Output of the node.
    Node(Keep),
    /// A pasted presence record, with the answer to send once it is on disk.
    Text(Vec<u8>, oneshot::Sender<Answer>, Answer),
}

impl Unwritten {
    fn is_empty(&self) -> bool {
        let files = self.membership || self.revocations || self.texts;
        let lists = self.members.is_some() || self.uses.is_some() || self.epochs.is_some();
        !files && !lists && self.incarnation.is_none() && self.ipv4.is_none()
    }
}

impl Keeper {
    /// Creates a writer for the messages of `queue`, which starts from the present files.
    #[must_use]
    pub fn new(
        state: StateDir,
        membership: Membership,
        revocations: Revocations,
        texts: Texts,
        queue: mpsc::UnboundedReceiver<Kept>,
    ) -> Self {
        Self {
            state,
            membership,
            revocations,
            queue,
            texts,
            asked: Vec::new(),
            unwritten: Unwritten::default(),
            retry_at: Instant::now(),
        }
    }

    /// Returns this node's certificate chain.
    ///
    /// # Errors
    /// The stored chain cannot be decoded.
    pub fn chain(&self) -> anyhow::Result<Chain> {
        self.membership.chain()
    }

    /// Returns whether all is on disk, and the certificate does not end with an invitation.
    pub fn is_lasting(&self) -> bool {
        let chain = self.membership.chain();
        self.unwritten.is_empty() && chain.is_ok_and(|chain| chain.invitation().is_none())
    }

    /// Waits for something to write; returns false once the queue has ended.
    pub async fn next(&mut self) -> bool {
        let next = self.queue.recv();
        let next = if self.unwritten.is_empty() {
            next.await
        } else {
            match timeout_at(self.retry_at, next).await {
                Ok(next) => next,
                Err(_) => return true,
            }
        };
        let there_is_more = next.is_some();
        next.into_iter().for_each(|kept| self.note(kept));
        there_is_more
    }

    fn note(&mut self, kept: Kept) {
        match kept {
            Kept::Node(keep) => self.note_of_node(keep),
            Kept::Text(sealed, asker, answer) => {
                self.texts.add(sealed);
                self.asked.push((asker, answer));
                self.unwritten.texts = true;
            }
        }
    }

    fn note_of_node(&mut self, keep: Keep) {
        match keep {
            Keep::Chain(chain) => {
                self.membership = self.membership.renewed(&chain);
                self.unwritten.membership = true;
            }
            Keep::Incarnation(used) => self.unwritten.incarnation = Some(used),
            Keep::Ipv4Address(address) => self.unwritten.ipv4 = Some(address),
            Keep::Revocation(r) => {
                self.unwritten.revocations |= self.revocations.add(*r, UnixTime::now());
            }
            Keep::Epochs(text) => self.unwritten.epochs = Some(text),
            Keep::Members(text) => self.unwritten.members = Some(text),
            Keep::Uses(text) => self.unwritten.uses = Some(text),
        }
    }

    /// Writes all queued items, each file once, and retries failed writes.
    pub fn write(&mut self) {
        while let Ok(kept) = self.queue.try_recv() {
            self.note(kept);
        }
        self.retry_at = Instant::now() + RETRY;
        let (state, unwritten) = (&self.state, &mut self.unwritten);
        if unwritten.membership {
            unwritten.membership = !is_kept(state.store_membership(&self.membership));
        }
        // first: an epoch contains the revocation that caused it
        unwritten
            .epochs
            .take_if(|text| is_kept(state.store_epochs(&text.0)));
        if unwritten.revocations {
            unwritten.revocations = !is_kept(state.store_revocations(&self.revocations));
        }
        if unwritten.texts {
            let stored = state.store_texts(&self.texts);
            let why = stored.as_ref().err().map(|e| format!("{e:#}"));
            for (asker, answer) in self.asked.drain(..) {
                let told = why.clone().map(|why| {
                    Answer::Error(format!("it is used, and forgotten with a restart: {why}"))
                });
                // the asker may have closed its connection
                let _ = asker.send(told.unwrap_or(answer));
            }
            unwritten.texts = !is_kept(stored);
        }
        unwritten
            .incarnation
            .take_if(|used| is_kept(state.store_incarnation(*used)));
        unwritten
            .ipv4
            .take_if(|address| is_kept(state.store_ipv4(*address)));
        unwritten
            .members
            .take_if(|text| is_kept(state.store_members(text)));
        unwritten
            .uses
            .take_if(|text| is_kept(state.store_uses(text)));
    }
}

/// Logs an error; returns whether there was none.
fn is_kept(result: anyhow::Result<()>) -> bool {
    let told = |e| tracing::error!("not kept, tried again in {} s: {e:#}", RETRY.as_secs());
    result.map_err(told).is_ok()
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use librecast::revocation::Revocation;

    use super::*;

    #[test]
    fn a_membership_that_ends_with_its_invitation_does_not_last() {
        let dir = tempfile::tempdir().unwrap();
        let (_keep, queue) = mpsc::unbounded_channel();
        let now = UnixTime::now();
        let keys = librecast::code::CodeKeys::of_random(&[1; 32]);
        let token = keys.token(SecretKey::generate(), Vec::new(), now).unwrap();
        let peer = SecretKey::generate().peer_id();
        let chain = token.join(peer, "bob", now).unwrap();
        let membership = Membership::new(token.network(), Vec::new(), &chain);
        let state = StateDir::new(dir.path().into());
        state.store_membership(&membership).unwrap();
        let (revocations, texts) = (Revocations::default(), Texts::default());
        let mut keeper = Keeper::new(state, membership, revocations, texts, queue);
        assert!(!keeper.is_lasting());
        keeper.note_of_node(Keep::Chain(
            crate::state::testing::chains(&SecretKey::generate(), now).1,
        ));
        assert!(!keeper.is_lasting(), "it is not on disk");
        keeper.write();
        assert!(keeper.is_lasting());
    }

    #[test]
    fn all_that_waits_is_written_and_again_what_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let (keep, queue) = mpsc::unbounded_channel();
        let network = SecretKey::generate();
        let (id, now) = (network.peer_id(), UnixTime::now());
        let (old, new) = crate::state::testing::chains(&network, now);
        let membership = Membership::new(id, vec!["ws://a:1".into()], &old);
        let state = || StateDir::new(dir.path().into());
        let mut keeper = Keeper::new(
            state(),
            membership,
            Revocations::default(),
            Texts::default(),
            queue,
        );
        keeper.write();
        assert!(
            state().membership().unwrap().is_none(),
            "nothing came, nothing is written"
        );
        for _ in 0..3 {
            let node = SecretKey::generate().peer_id();
            let revocation =
                Revocation::by_network(&network, node, now, now.as_secs() + 9).unwrap();
            let learnt = Keep::Revocation(Box::new(revocation));
            keep.send(Kept::Node(learnt)).unwrap();
        }
        let mut epochs = lcroute_node::Epochs::new(id);
        epochs.set_of_token(7, librecast::epoch::EpochSecret::new([7; 32]));
        let kept_epochs = Keep::Epochs(EpochsText(epochs.text()));
        assert!(!format!("{kept_epochs:?}").contains("token"));
        let uses = Keep::Uses("a token a line\n".into());
        let address = Ipv4Addr::new(10, 77, 4, 5);
        let ipv4 = Keep::Ipv4Address(address);
        for learnt in [
            Keep::Chain(new.clone()),
            Keep::Incarnation(41),
            ipv4,
            uses,
            kept_epochs,
        ] {
            keep.send(Kept::Node(learnt)).unwrap();
        }
        let membership_file = dir.path().join("membership.toml");
        std::fs::create_dir_all(membership_file.join("in the way")).unwrap();
        keeper.write();
        assert_eq!(state().next_incarnation().unwrap().number, 42);
        assert!(!keeper.is_lasting(), "it is not on disk");
        std::fs::remove_dir_all(&membership_file).unwrap();
        keeper.write();
        assert!(keeper.unwritten.is_empty() && keeper.is_lasting());
        assert_eq!(state().revocations(&id, now).unwrap().iter().count(), 3);
        let uses = std::fs::read_to_string(dir.path().join("uses")).unwrap();
        assert_eq!(uses, "a token a line\n");
        assert_eq!(state().ipv4(), Some(address));
        assert_eq!(state().epochs(&id, now).unwrap().number(), 7);
        let mode = std::fs::metadata(dir.path().join("epochs")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions());
        assert_eq!(mode & 0o777, 0o600);
        let read = state().membership().unwrap().unwrap();
        assert_eq!(read.chain().unwrap(), new);
        assert_eq!(read.signal, ["ws://a:1"], "what was not renewed stays");
    }
}
