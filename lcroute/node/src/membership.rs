//! This node's membership: its certificates, revocations, and the members that it has seen.

use std::collections::BTreeSet;
use std::sync::Arc;

use librecast::cert::{Chain, Member};
use librecast::epoch::{Epoch, EpochSecret};
use librecast::events;
use librecast::id::{NetworkId, OriginId, PeerId, SecretKey};
use librecast::revocation::Revocation;
use librecast::time::{Duration, Instant, UnixTime, WallClock, utc};

use crate::members::Members;
use crate::renewal::{Registry, Renewal, Renewer};
use crate::revocations::Revocations;
use crate::uses::{Counted, Uses};

/// Minimum interval between two writes of the list of members.
const STORE_MEMBERS: Duration = Duration::from_secs(60);

/// Certificates, revocations, members.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) network: NetworkId,
    pub(crate) own: OriginId,
    /// This node by its certificate.
    pub(crate) member: Member,
    pub(crate) members: Members,
    revocations: Revocations,
    uses: Uses,
    /// Whether no reachable issuer precedes this one: then it enforces the bounds of tokens.
    decides: bool,
    renewal: Renewal,
    renewer: Option<Renewer>,
    /// The members that this issuer renews; none: all.
    listed: Option<BTreeSet<PeerId>>,
    clock: WallClock,
    store_members: Instant,
}

/// The facts that an issuer needs for renewals.
struct Known<'a> {
    revocations: &'a Revocations,
    members: &'a Members,
    uses: &'a Uses,
    listed: Option<&'a BTreeSet<PeerId>>,
    now: UnixTime,
}

impl Registry for Known<'_> {
    fn is_revoked(&self, member: &Member) -> bool {
        self.revocations.expel(member)
    }

    fn free_name(&self, member: &Member) -> String {
        self.members.free_name(&member.peer, &member.name, self.now)
    }

    fn is_admitted(&self, member: &Member) -> bool {
        self.uses.admits(member)
    }

    fn is_listed(&self, member: &Member) -> Option<bool> {
        self.listed.map(|listed| listed.contains(&member.peer))
    }
}

/// The initial state of a membership.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) network: NetworkId,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) chain: Chain,
    pub(crate) member: Member,
    pub(crate) members: Members,
    pub(crate) revocations: Revocations,
    pub(crate) uses: Uses,
    pub(crate) clock: WallClock,
    pub(crate) seed: u64,
}

impl Membership {
    pub(crate) fn new(mut start: Start, now: Instant) -> Self {
        start.members.begin(&start.member.peer, now);
        let issuer = start.chain.issuer();
        let may_issue = issuer.subject() == start.key.peer_id();
        let renewer = may_issue.then(|| Renewer::new(start.key.clone(), issuer.clone(), now));
        Self {
            network: start.network,
            own: start.member.addresses.origin,
            member: start.member,
            members: start.members,
            revocations: start.revocations,
            uses: start.uses,
            decides: renewer.is_some(),
            renewal: Renewal::new(start.key, start.network, start.chain, start.seed, now),
            renewer,
            listed: None,
            clock: start.clock,
            store_members: now,
        }
    }

    /// Returns the time in Unix seconds.
    pub(crate) fn unix_now(&self) -> UnixTime {
        self.clock.now()
    }

    pub(crate) fn is_expelled(&self) -> bool {
        self.revocations.expel(&self.member)
    }

    pub(crate) fn revocations(&self) -> impl Iterator<Item = &Revocation> {
        self.revocations.iter()
    }

    pub(crate) fn note(&mut self, member: &Member) {
        self.members.note(member, self.clock.now());
    }

    pub(crate) fn note_gone(&mut self, peer: &PeerId, now: Instant) {
        self.members.note_gone(peer, self.clock.now(), now);
    }

    /// Forgets ephemeral members whose timeout is over; returns them.
    pub(crate) fn forget_gone(&mut self, now: Instant) -> Vec<PeerId> {
        let forgotten = self.members.forget_gone(now);
        if !forgotten.is_empty() {
            self.uses.release(&forgotten);
        }
        forgotten
    }

    /// Stores a verified revocation; returns whether it is new.
    pub(crate) fn revoke(&mut self, revocation: &Revocation) -> bool {
        self.members.expel(revocation);
        if revocation.expels(&self.member) && !self.is_expelled() {
            tell_expelled(&self.member);
        }
        let now = self.clock.now();
        let is_new = self.revocations.add(revocation.clone(), now);
        if is_new {
            tracing::info!(
                target: events::TARGET,
                message_id = events::EXPELLED.id,
                lcroute_peer = %revocation.key(),
                "{} has been expelled from the network",
                revocation.key()
            );
        }
        is_new
    }

    /// Updates the reachable issuers; true if this one now enforces the bounds of tokens.
    pub(crate) fn set_issuers(&mut self, issuers: &[OriginId]) -> bool {
        let before = self.decides;
        self.decides = self.is_issuer() && issuers.iter().all(|issuer| *issuer >= self.own);
        self.decides && !before
    }

    /// Counts, as an issuer, a node that joined by a bounded token; the revocation if it is beyond.
    pub(crate) fn count(&mut self, member: &Member) -> Option<Revocation> {
        let renewer = self.renewer.as_ref()?;
        let time = self.clock.now();
        if self.revocations.expel(member) {
            return None;
        }
        let (members, peer) = (&self.members, &member.peer);
        let others = |invitation: &PeerId| members.that_came_by(invitation, peer);
        let counted = self.uses.count(member, self.decides, others, time);
        let (name, peer, bound) = (&member.name, member.peer, member.bound?);
        match counted {
            Counted::Admitted | Counted::Undecided => None,
            Counted::Beyond => {
                tracing::warn!("{name} ({peer}) is expelled: {}", spent(bound.uses));
                renewer.expel(peer, time, bound.until)
            }
            Counted::Abused => {
                let invitation = member.invitation()?;
                tracing::warn!(
                    "{name} ({peer}) is not renewed, and not expelled: {}, and many more: expel its invitation {invitation} (`lcroute revoke`)",
                    spent(bound.uses)
                );
                None
            }
        }
    }

    pub(crate) fn make_epoch(
        &self,
        follows: (u32, [u8; 32]),
        secret: EpochSecret,
        revocation: Revocation,
    ) -> Option<Epoch> {
        self.renewer
            .as_ref()?
            .make_epoch(follows, secret, revocation)
    }

    pub(crate) fn expels(&self, member: &Member) -> bool {
        self.revocations.expel(member)
    }

    /// Returns the text of [`Uses`], if it has changed.
    pub(crate) fn take_uses(&mut self) -> Option<String> {
        self.uses.take_text()
    }

    pub(crate) fn handle_issuer_reachable(&mut self, now: Instant) {
        self.renewal.handle_issuer_reachable(now);
    }

    /// Returns the issuer of this node, unless it issues its own certificates.
    pub(crate) fn issuer(&self) -> Option<PeerId> {
        let issuer = self.renewal.chain().issuer().subject();
        (issuer != self.member.peer).then_some(issuer)
    }

    pub(crate) fn is_issuer(&self) -> bool {
        self.renewer.is_some()
    }

    /// Sets the members that this node renews as an issuer.
    pub(crate) fn set_listed(&mut self, listed: BTreeSet<PeerId>) {
        self.listed = Some(listed);
    }

    /// Returns, as an issuer, the answer to a request for a new certificate.
    pub(crate) fn renew(
        &mut self,
        asker: &PeerId,
        request: &[u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        let time = self.clock.now();
        let known = Known {
            revocations: &self.revocations,
            members: &self.members,
            uses: &self.uses,
            listed: self.listed.as_ref(),
            now: time,
        };
        let renewer = self.renewer.as_mut()?;
        renewer.answer(asker, request, &known, time, now)
    }

    pub(crate) fn handle_renewal(
        &mut self,
        from: OriginId,
        answer: &[u8],
        now: Instant,
    ) -> Option<Chain> {
        let time = self.clock.now();
        let (chain, member) = self.renewal.handle_answer(from, answer, time, now)?;
        tracing::info!("membership renewed until {}", utc(member.not_after));
        if member.name != self.member.name {
            tracing::warn!(
                "the network has a {} already: this node is called {}",
                self.member.name,
                member.name
            );
        }
        self.note(&member);
        self.member = member;
        Some(chain)
    }

    /// Returns a request to a reachable issuer, if renewal is due.
    pub(crate) fn poll_renewal(
        &mut self,
        mut issuers: Vec<OriginId>,
        now: Instant,
    ) -> Option<(OriginId, Vec<u8>)> {
        if self.is_issuer() && !issuers.contains(&self.own) {
            // an issuer renews itself
            issuers.push(self.own);
        }
        self.renewal.handle_timeout(&issuers, self.clock.now(), now)
    }

    pub(crate) fn next_renewal(&self) -> Instant {
        self.renewal.next_timeout()
    }

    /// Returns the list of members, if it has changed and may be stored.
    pub(crate) fn poll_members(&mut self, now: Instant) -> Option<String> {
        if now < self.store_members {
            return None;
        }
        self.store_members = now + STORE_MEMBERS;
        self.members.take_text()
    }

    /// Returns the list of members, if it has changed.
    pub(crate) fn take_members(&mut self) -> Option<String> {
        self.members.take_text()
    }
}

/// Returns the reason for which a node that joined by a bounded token may be expelled.
pub fn spent(uses: u32) -> String {
    let nodes = if uses == 1 { "node" } else { "nodes" };
    format!("its token was for {uses} {nodes}, and others came by it first")
}

pub(crate) fn tell_expelled(own: &Member) {
    let why = own.bound.map(|bound| format!(" ({})", spent(bound.uses)));
    let why = why.unwrap_or_default();
    tracing::error!(
        target: events::TARGET,
        message_id = events::EXPELLED_HERE.id,
        lcroute_peer = %own.peer,
        "this node has been expelled from the network{why}: nobody makes links with it any more; `lcroute leave`, then `lcroute join` with a new token"
    );
}
