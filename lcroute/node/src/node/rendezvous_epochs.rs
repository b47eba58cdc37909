//! Rendezvous epochs: a new one for each expulsion, sent over links to all members not expelled.

use bytes::Bytes;
use lcroute_overlay::Connections;
use librecast::epoch::{Epoch, EpochSecret};
use librecast::id::LinkId;
use librecast::revocation::Revocation;
use librecast::time::Duration;

use super::Node;
use crate::epochs;
use crate::keep::{EpochsText, Keep};
use crate::revocations::is_over;

/// Minimum pause between two epochs that this node makes again. Chosen: many issuers agree in it.
const REMADE_EVERY: Duration = Duration::from_secs(10);

impl<C: Connections> Node<C> {
    /// Handles a neighbour's epochs: expels members first, then sends new epochs to other links.
    pub(super) fn handle_epochs(&mut self, from: LinkId, bytes: &Bytes) {
        let (received, time) = ((from, bytes), (self.membership.unix_now(), self.now));
        let (new, drops) = self.epoch_intake.receive(received, &self.epochs, time);
        drops
            .into_iter()
            .for_each(|reason| self.drops.count(reason));
        for epoch in &new {
            self.add_revocation_of_epoch(epoch.revocation());
        }
        self.take_epochs(new, Some(from));
        self.remake_epoch();
    }

    /// Adds the verified revocation of an epoch: it is valid here even if there is no room to flood
    /// it. An expired revocation expels no member.
    pub(super) fn add_revocation_of_epoch(&mut self, revocation: &Revocation) {
        if is_over(revocation, self.membership.unix_now()) {
            return;
        }
        let record = Bytes::copy_from_slice(revocation.as_bytes());
        if let Err(e) = self.engine.add_revocation(&record, self.now) {
            tracing::debug!("{revocation:?}: {e}");
        }
        self.learn_revocation(&record);
    }

    /// Stores verified epochs, uses them, and sends new ones to all links but `from`.
    fn take_epochs(&mut self, epochs: Vec<Epoch>, from: Option<LinkId>) {
        let new: Vec<_> = epochs
            .into_iter()
            .filter(|epoch| self.epochs.add(epoch.clone()))
            .collect();
        if new.is_empty() {
            return;
        }
        self.note_overtaken();
        self.keep(Keep::Epochs(EpochsText(self.epochs.text())));
        self.use_epochs();
        self.send_epochs(Some(epochs::message(new.iter())), |link| Some(link) != from);
    }

    /// Determines whether this node must make another epoch, perhaps left over from an earlier run.
    pub(super) fn note_overtaken(&mut self) {
        let own = self.membership.member.peer;
        self.is_overtaken = self.membership.is_issuer() && self.epochs.overtaken(&own).is_some();
    }

    /// Sends epochs to the links that `is_meant` selects, except to expelled members.
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

    /// Publishes under the newest epoch, searches under all, and opens records that waited.
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

    /// Makes, as an issuer, the next epoch for a flooded revocation. False: this node cannot.
    pub fn make_epoch(&mut self, revocation: Revocation) -> bool {
        let Some(follows) = self.epochs.next() else {
            tracing::warn!("no number is left for a new epoch: an issuer has used them up");
            return false;
        };
        let secret = EpochSecret::new(self.random.array());
        let made = self.membership.make_epoch(follows, secret, revocation);
        let Some(epoch) = made else { return false };
        self.take_epochs(vec![epoch], None);
        true
    }

    /// Makes another epoch if a node that this one expelled may know the newest one.
    pub(super) fn remake_epoch(&mut self) {
        let own = self.membership.member.peer;
        if !self.is_overtaken || self.now < self.remade_until {
            return;
        }
        self.remade_until = self.now + REMADE_EVERY;
        match self.epochs.overtaken(&own) {
            // `make_epoch` stores the epoch, which is then checked again
            Some(revocation) => self.is_overtaken &= self.make_epoch(revocation),
            None => self.is_overtaken = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lcroute_engine::topology::TopologyConfig;
    use librecast::cert::{CLOCK_SKEW, Certificate, Grant, Kind};
    use librecast::time::{UnixTime, WallClock};

    use super::*;
    use crate::epochs::{Epochs, message};
    use crate::node::{NodeConfig, Settings};
    use crate::testing::{NoConnections, chains, key, start};
    use crate::{Members, Output, Revocations, Uses};

    const NOW: u64 = 1_800_000_000;
    const LINK: LinkId = LinkId(1);

    /// Returns the founder of the network of `key(1)`, at this time, with these epochs.
    fn founder(time: UnixTime, epochs: Epochs) -> Node<NoConnections> {
        let network = key(1);
        let (chain, _) = chains(&network, time);
        let member = chain.verify(&network.peer_id(), time).unwrap();
        let config = NodeConfig {
            network: network.peer_id(),
            key: Arc::new(key(100)),
            chain,
            member,
            incarnation: 1,
            mtu: 1_280,
            transits: true,
            ipv4: None,
            settings: Settings::default(),
            topology: TopologyConfig::default(),
            revocations: Revocations::default(),
            epochs,
            members: Members::default(),
            uses: Uses::default(),
            clock: WallClock::new(move || time),
            epoch: start(),
            aead: None,
            seed: [7; 32],
            limits: lcroute_engine::Limits::default(),
            overlay_limits: lcroute_overlay::Limits::default(),
        };
        let mut node = Node::new(config, NoConnections, start());
        node.start(start());
        node
    }

    /// Returns an epoch of the issuer `by`, valid until `end`, that expels `of` and follows all.
    fn epoch((by, end): (u8, u64), of: u8, known: &Epochs) -> Epoch {
        let network = key(1);
        let grant = Grant::new("", (NOW, end));
        let (id, subject) = (network.peer_id(), key(by).peer_id());
        let issuer = Certificate::sign(Kind::Issuer, id, subject, grant, &network).unwrap();
        let until = end + CLOCK_SKEW;
        let (issued, out) = (NOW, key(of).peer_id());
        let revocation =
            Revocation::by_issuer(&issuer, &key(by), out, UnixTime::from_secs(issued), until)
                .unwrap();
        let (number, before) = known.next().unwrap();
        let made = (number, before, EpochSecret::new([by; 32]));
        Epoch::sign(made, revocation, Some(&issuer), &key(by)).unwrap()
    }

    #[test]
    fn an_issuer_makes_the_epoch_that_its_last_run_did_not_come_to() {
        let valid = NOW + 1_000;
        let mut known = Epochs::new(key(1).peer_id());
        let own = epoch((100, valid), 9, &known);
        // another half of the network is ahead: the expelled node may know its epochs
        for of in [8, 7] {
            assert!(known.add(epoch((2, valid), of, &known)));
        }
        assert!(known.add(own));
        let mut node = founder(UnixTime::from_secs(NOW), known);
        node.handle_timeout(start());
        assert_eq!(node.epoch(), 3);
        let mut outputs = std::iter::from_fn(|| node.poll_output(start()));
        assert!(outputs.any(|output| matches!(output, Output::Keep(Keep::Epochs(_)))));
    }

    #[test]
    fn who_was_an_issuer_expels_nobody_and_makes_no_epoch() {
        let none = Epochs::new(key(1).peer_id());
        let made = epoch((2, NOW + 1_000), 9, &none);
        let out = key(9).peer_id();
        for (time, counts) in [(NOW, true), (NOW + 1_001 + CLOCK_SKEW, false)] {
            let mut node = founder(UnixTime::from_secs(time), none.clone());
            node.handle_epochs(LINK, &message([&made].into_iter()));
            assert_eq!(node.overlay().is_expelled(&out), counts, "{time}");
            assert_eq!(node.epoch(), u32::from(counts));
            let refused = node.drops().get("epoch_refused").copied();
            assert_eq!(refused, (!counts).then_some(1));
        }
        // nor by an epoch of a present issuer
        let over = made.revocation().clone();
        let issuer = chains(&key(1), UnixTime::from_secs(NOW + 1_001 + CLOCK_SKEW)).0;
        let now = (1, [0; 32], EpochSecret::new([3; 32]));
        let wrapped = Epoch::sign(now, over, None, &key(1)).unwrap();
        let mut node = founder(
            UnixTime::from_secs(issuer.issuer().grant().not_before),
            none,
        );
        node.handle_epochs(LINK, &message([&wrapped].into_iter()));
        assert_eq!((node.epoch(), node.overlay().is_expelled(&out)), (1, false));
    }
}
