//! Epochs of the rendezvous secret: a new one for each expulsion, from link to link to all who are not expelled.

use bytes::Bytes;
use lcroute_overlay::Connections;
use librecast::epoch::{Epoch, EpochSecret};
use librecast::id::LinkId;
use librecast::revocation::Revocation;
use librecast::time::Duration;

use super::Node;
use crate::epochs;
use crate::keep::{EpochsText, Keep};

/// Pause between two epochs that this node makes because others did not know of its own. Chosen: many issuers agree before one of
/// them makes a second one.
const REMADE_EVERY: Duration = Duration::from_secs(10);

impl<C: Connections> Node<C> {
    /// What a neighbour knows: the expelled lose their links first, then what is new goes on to all others.
    pub(super) fn handle_epochs(&mut self, from: LinkId, bytes: &Bytes) {
        let received = (from, bytes);
        let (new, drops) = self.epoch_intake.receive(received, &self.epochs, self.now);
        drops
            .into_iter()
            .for_each(|reason| self.drops.count(reason));
        for epoch in &new {
            self.add_revocation_of_epoch(epoch.revocation());
        }
        self.take_epochs(new, Some(from));
        self.remake_epoch();
    }

    /// A revocation that an epoch was made for, verified with it: it counts here even where there is no room to flood it.
    pub(super) fn add_revocation_of_epoch(&mut self, revocation: &Revocation) {
        let record = Bytes::copy_from_slice(revocation.as_bytes());
        if let Err(e) = self.engine.add_revocation(&record, self.now) {
            tracing::debug!("{revocation:?}: {e}");
        }
        self.learn_revocation(&record);
    }

    /// Keeps epochs that have been verified, uses them, and passes on what is new; not to where it came `from`.
    fn take_epochs(&mut self, epochs: Vec<Epoch>, from: Option<LinkId>) {
        let new: Vec<_> = epochs
            .into_iter()
            .filter(|epoch| self.epochs.add(epoch.clone()))
            .collect();
        if new.is_empty() {
            return;
        }
        let own = self.membership.member.peer;
        self.is_overtaken = self.membership.is_issuer() && self.epochs.overtaken(&own).is_some();
        self.keep(Keep::Epochs(EpochsText(self.epochs.text())));
        self.use_epochs();
        self.send_epochs(Some(epochs::message(new.iter())), |link| Some(link) != from);
    }

    /// To those of the links that are meant, unless the member there is expelled: its link ends in a moment.
    pub(super) fn send_epochs(
        &mut self,
        message: Option<Bytes>,
        is_meant: impl Fn(LinkId) -> bool,
    ) {
        let Some(message) = message else { return };
        let (membership, links) = (&self.membership, &self.links);
        for (link, member) in links.iter().filter(|(link, _)| is_meant(**link)) {
            if !membership.expels(member) {
                self.engine.send_epochs(*link, message.clone(), self.now);
            }
        }
    }

    /// This node publishes under the newest epoch from now on, looks under all, and opens what it could not.
    pub(super) fn use_epochs(&mut self) {
        let (now, rendezvous) = (self.now, self.epochs.rendezvous());
        if *self.overlay.rendezvous() == rendezvous {
            return;
        }
        if self.overlay.rendezvous().newest() != rendezvous.newest() {
            tracing::info!("rendezvous epoch {}", self.epochs.number());
            self.records.addresses_changed(now);
        }
        self.overlay.set_rendezvous(rendezvous);
        self.seeking.changed(now);
        for ((carrier, name), (kind, sealed)) in self.records.take_unopened() {
            self.handle_record((carrier, kind), name, &sealed, now);
        }
    }

    /// As an issuer: makes the epoch that follows, for this revocation. False: this node cannot.
    pub(super) fn make_epoch(&mut self, revocation: Revocation) -> bool {
        let Some(follows) = self.epochs.next() else {
            tracing::warn!("no number is left for a new epoch: an issuer has used them up");
            return false;
        };
        let secret = EpochSecret::new(self.random.array());
        let made = self.membership.make_epoch(follows, secret, revocation);
        let Some(epoch) = made else {
            return false;
        };
        self.take_epochs(vec![epoch], None);
        true
    }

    /// Whom this node has expelled may know an epoch that was made elsewhere meanwhile: one more follows it.
    pub(super) fn remake_epoch(&mut self) {
        let own = self.membership.member.peer;
        if !self.is_overtaken || self.now < self.remade_until {
            return;
        }
        self.remade_until = self.now + REMADE_EVERY;
        match self.epochs.overtaken(&own) {
            // what it makes is taken, and looked at again
            Some(revocation) => self.is_overtaken &= self.make_epoch(revocation),
            None => self.is_overtaken = false,
        }
    }
}
