//! The link state database: signed LSAs of all routers, flooded, and their results: the graph,
//! reachable routers, rendezvous points, the own advertisement.
//!
//! ```text
//! handle_lsa --> newer? --> rate, signature, certificates --> store --> flooding --> take_messages
//!                  no: nothing, or ours goes back               |
//!                                  SPF delay --> route graph, RP elections --> own advertisement
//! ```
//!
//! | file | part |
//! |---|---|
//! | `store` | LSAs by router, revocations |
//! | `intake` | LSAs that wait for a credential, or for their router's rate |
//! | `flooding`, `pending`, `ihave` | the links over which an LSA goes; comparison of databases |
//! | `route_graph`, `spf_delay` | the graph, and when it is computed |
//! | `rendezvous`, `election` | rendezvous points |
//! | `lans` | gateways of LAN hosts |
//! | `origination`, `cost` | the own advertisement |
//! | `lsa`, `credential`, `advertisement`, `summary` | formats |
//!
//! Inputs change the store; [`Database::update`] computes the results. [`Database::graph`],
//! [`Database::take_events`] and [`Database::take_messages`] call it; all else shows the last
//! results.

mod advertisement;
mod assignment;
mod cost;
mod credential;
mod election;
mod events;
mod flooding;
mod ihave;
mod intake;
mod lans;
mod lsa;
mod origination;
mod pending;
mod rendezvous;
mod route_graph;
mod spf_delay;
mod store;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use advertisement::FLAG_URGENT;
use bytes::Bytes;
use credential::{first_version, peek, revocation_key};
use flooding::{Flood, Flooding};
use intake::{ADVERTISEMENT_RATE, Intake, ReceivedLsa};
use lans::Lans;
use librecast::cert::{GroupPrefix, Member, SourcePrefix};
use librecast::ethernet::MacAddress;
use librecast::id::{LanId, LinkId, OriginId, PeerId};
use librecast::time::{Duration, Instant};
use librecast::wire::Writer;
use lsa::drop_reason;
use origination::Origination;
use pending::{LinkQueue, SUMMARY_RATE, VERIFY_RATE};
use rendezvous::RendezvousPoints;
use route_graph::{RouteGraph, forgotten_at};
use spf_delay::SpfDelay;
use store::{Revoked, Store};

use crate::config::Limits;
use crate::drops::DropReason;
use crate::graph::{Graph, Tree};
use crate::lan_sources::LanSources;
use crate::segment_id::SegmentId;
use crate::segment_lans::SegmentLans;
use crate::services::Services;

pub use advertisement::{
    AdvertisedLan, Advertisement, Announced, FLAG_CORE, FLAG_ISSUER, FLAG_STREAMS, FLAG_STUB,
    FLAG_UNICAST, MAX_LAN_PREFIXES, MAX_LANS, MAX_LINKS, MAX_PREFIXES, UNKNOWN_CENTRALITY,
};
pub use credential::CredentialLsa;
pub use election::GROUP_RANGES;
pub use events::{AddRevocationError, DatabaseEvent, Message, OwnChainError};
pub(crate) use lans::{lan_number, next_part};
pub use lsa::{
    KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, Lsa, LsaError, LsaId, MAX_REVOCATION,
    Version,
};
pub use origination::LocalRouter;
pub use pending::LinkStanding;
pub use rendezvous::AnnouncedPrefix;
pub use store::Router;
pub use summary::{BUCKETS, Summary, SummaryEntry};

/// Longest time between reads of the host's clock, which may be set at any time.
const CLOCK_CHECK: Duration = Duration::from_secs(3_600);
/// Cost of a received digest in [`SUMMARY_RATE`]: the answer may be long.
const DIGEST_COST: u64 = 15;

/// Sizes of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseTables {
    /// Routers with known certificates.
    pub routers: usize,
    /// Routers to which links lead, this one included.
    pub reachable: usize,
    /// Revocations.
    pub revocations: usize,
    /// Advertisements that wait for a credential.
    pub orphans: usize,
}

/// The link state database of one router.
#[derive(Debug)]
pub struct Database {
    services: Arc<dyn Services>,
    store: Store,
    intake: Intake,
    flooding: Flooding,
    graph: RouteGraph,
    rps: RendezvousPoints,
    lans: Lans,
    spf: SpfDelay,
    origination: Origination,
    events: Vec<DatabaseEvent>,
    /// Time of the next expiry in the store, or of the next read of the clock.
    clock_at: Option<Instant>,
    /// An input came since the last update.
    touched: bool,
    /// The own advertisement may have to change.
    origination_stale: bool,
    now: Instant,
}

/// Inputs.
impl Database {
    /// A database that knows only this router.
    pub fn new(
        own: LocalRouter,
        limits: &Limits,
        services: Arc<dyn Services>,
        now: Instant,
    ) -> Self {
        let origin = own.origin;
        let chain = own.chain.clone();
        let mut database = Self {
            services,
            store: Store::new(origin, limits),
            intake: Intake::default(),
            flooding: Flooding::new(now),
            graph: RouteGraph::new(origin),
            rps: RendezvousPoints::new(),
            lans: Lans::default(),
            spf: SpfDelay::new(now),
            origination: Origination::new(own, now),
            events: Vec::new(),
            clock_at: None,
            touched: true,
            origination_stale: true,
            now,
        };
        if let Err(error) = database.set_own_chain(chain, now) {
            tracing::warn!(
                %error,
                "own certificates do not count: others cannot see this node"
            );
        }
        database.update();
        // the initial state is not an event
        database.events.clear();
        database
    }

    /// Begins an input that may change this router's LSAs.
    fn turn(&mut self, now: Instant) {
        self.receive(now);
        self.origination_stale = true;
    }

    /// Begins an input from a neighbour.
    fn receive(&mut self, now: Instant) {
        // the input may come just before the timer
        let own = self.origination.next_timeout(self.now);
        self.origination_stale |= own.is_some_and(|at| at <= now);
        self.now = now;
        self.touched = true;
    }

    /// A link is up.
    pub fn link_up(&mut self, link: LinkId, neighbor: OriginId, now: Instant) {
        self.turn(now);
        let queue = LinkQueue::new(self.store.own, neighbor, now);
        self.flooding.links.insert(link, queue);
        self.origination.set_linked(true, now);
    }

    /// A link is gone.
    pub fn link_down(&mut self, link: LinkId, now: Instant) {
        self.turn(now);
        self.flooding.remove_link(link);
        self.spf.hasten(self.store.routers.len());
        let linked = !self.flooding.links.is_empty();
        self.origination.set_linked(linked, now);
    }

    /// Sets how the ends of a link use it. The link is advertised once it has been wanted, or if no
    /// other link leads to the neighbour.
    pub fn set_standing(&mut self, link: LinkId, standing: LinkStanding, now: Instant) {
        self.turn(now);
        if let Some(link) = self.flooding.links.get_mut(&link) {
            link.standing = standing;
        }
    }

    /// Sets the measured round-trip time of a link.
    pub fn set_rtt(&mut self, link: LinkId, rtt: Duration, now: Instant) {
        self.receive(now);
        if let Some(link) = self.flooding.links.get_mut(&link) {
            self.origination_stale |= link.cost.set(rtt, now);
        }
    }

    /// Handles an LSA from a neighbour.
    ///
    /// # Errors
    /// The reason why the LSA is not stored. An LSA no newer than the stored one is not an error.
    pub fn handle_lsa(
        &mut self,
        link: LinkId,
        kind: u8,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        self.receive(now);
        if !self.flooding.links.contains_key(&link) {
            return Err(DropReason::UnknownLink);
        }
        let Some((key, version)) = peek(kind, bytes).map_err(|_| DropReason::BadLsa)? else {
            // a kind of a later version: this router does not know it, so it cannot pass it on
            return Ok(());
        };
        let id = LsaId { key, kind };
        if let Some((known, stored)) = self.store.get(id)
            && (version, bytes) <= (known, &stored[..])
        {
            if bytes == &stored[..] {
                self.flooding.note_known(id, link);
            } else {
                self.flooding.push_pending(id, link);
            }
            return Ok(());
        }
        let rate = |state: &mut LinkQueue| state.verify_rate.take(VERIFY_RATE, 1, now);
        if !self.flooding.links.get_mut(&link).is_some_and(rate) {
            self.flooding.ask_later(true, now);
            return Err(DropReason::FloodLimited);
        }
        match kind {
            _ if kind != KIND_REVOCATION && key == self.store.own.0 => {
                self.handle_own(kind, bytes, version)
            }
            KIND_CREDENTIAL => self.handle_credential(link, bytes),
            KIND_ADVERTISEMENT => self.handle_advertisement(link, OriginId(key), version, bytes),
            _ => self.handle_revocation(Some(link), bytes),
        }
    }

    /// Handles a summary from a neighbour.
    ///
    /// # Errors
    /// The link is not up, or its neighbour sends more summaries than it may.
    pub fn handle_summary(
        &mut self,
        link: LinkId,
        summary: &Summary,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.receive(now);
        let Some(state) = self.flooding.links.get_mut(&link) else {
            return Err(DropReason::UnknownLink);
        };
        if !state.summary_rate.take(SUMMARY_RATE, 1, now) {
            return Err(DropReason::FloodLimited);
        }
        if let Summary::Digest { buckets, .. } = summary {
            state.summary_rate.spend(SUMMARY_RATE, DIGEST_COST, now);
            state.digest = Some(buckets.clone());
        }
        let (flooding, store) = (&mut self.flooding, &self.store);
        match summary {
            Summary::Digest { ask, .. } => {
                if *ask {
                    flooding.send_digest(link, false, store, now);
                }
            }
            Summary::Have {
                from,
                to,
                last,
                entries,
            } => flooding.handle_have(link, *from..=*to, *last, entries, store, now),
            Summary::End => flooding.handle_end(link),
            Summary::IHave(entries) => flooding.handle_ihave(link, entries, store),
            Summary::IWant(ids) => flooding.handle_iwant(link, ids, store),
        }
        Ok(())
    }

    /// Sets the groups that this router announces. Groups outside its certificate, and more than
    /// [`MAX_PREFIXES`], are not advertised.
    pub fn set_announced(&mut self, announced: BTreeSet<GroupPrefix>, now: Instant) {
        self.turn(now);
        self.origination.router.announced = announced;
    }

    /// Sets the LANs of which this router is a gateway.
    pub fn set_lans(&mut self, lans: Vec<AdvertisedLan>, now: Instant) {
        self.turn(now);
        self.origination.router.lans = lans;
    }

    /// Sets this router's flags, such as [`FLAG_CORE`].
    pub fn set_flags(&mut self, flags: u8, now: Instant) {
        self.turn(now);
        self.origination.router.flags = flags;
    }

    /// Sets this router's certificates.
    ///
    /// # Errors
    /// The chain does not count, or is not this node's. The earlier certificates stay.
    pub fn set_own_chain(&mut self, chain: Bytes, now: Instant) -> Result<(), OwnChainError> {
        self.turn(now);
        let credential = self.services.verify_chain(&chain)?;
        let known = self.store.routers.get(&self.store.own);
        let known = known.map(|router| &router.credential);
        if known.is_some_and(|known| known.chain() == &chain[..]) {
            return Ok(());
        }
        let first = first_version(credential.issued, &chain);
        let version = known.map_or(first, |known| {
            first.max(Version(known.version().0.saturating_add(1)))
        });
        self.origination.router.chain = chain;
        self.originate_credential(version)
    }

    /// Floods a revocation in the format of [`Services::verify_revocation`].
    ///
    /// # Errors
    /// The revocation does not count, has expired, or there is no room for it.
    pub fn add_revocation(&mut self, bytes: &[u8], now: Instant) -> Result<(), AddRevocationError> {
        self.turn(now);
        let revocation = self.services.verify_revocation(bytes)?;
        let mut w = Writer::new();
        w.u64(revocation_key(&revocation.key, revocation.by_network));
        w.u64(revocation.until);
        w.put(bytes);
        match self.handle_revocation(None, w.as_slice()) {
            Ok(()) => Ok(()),
            Err(DropReason::DatabaseFull) => Err(AddRevocationError::TooMany),
            Err(_) => Err(AddRevocationError::ExpiredOrTooLong),
        }
    }

    /// To be called at the time of [`Self::next_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.receive(now);
        self.origination_stale |= self.flooding.handle_timeout(now);
        self.intake.expire(now);
        self.handle_deferred();
        if self.graph.forget_at.take_if(|at| now >= *at).is_some() {
            self.forget_gone();
        }
        if self.clock_at.take_if(|at| now >= *at).is_some() {
            self.expire();
        }
        let orphans = self.intake.orphans();
        self.flooding.ask_for_missing(&self.store, orphans, now);
        self.flooding.resync(&self.store, now);
        self.update();
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        let stale = self.graph.is_stale() || self.rps.is_stale();
        let times = [
            self.origination.next_timeout(self.now),
            self.flooding.next_timeout(),
            self.intake.next_timeout(&self.store),
            self.graph.forget_at,
            self.clock_at,
            stale.then_some(self.spf.next()),
        ];
        times.into_iter().flatten().min()
    }
}

/// Received LSAs: a signature is checked once, and only of an LSA newer than the stored one.
impl Database {
    fn handle_credential(&mut self, link: LinkId, bytes: &[u8]) -> Result<(), DropReason> {
        let now = self.now;
        let lsa = CredentialLsa::verify(bytes, &*self.services).map_err(|error| {
            let reason = drop_reason(error);
            // the clocks may agree later
            let again = reason == DropReason::CredentialRefused;
            self.flooding.ask_later(again, now);
            reason
        })?;
        let member = &lsa.credential().member;
        let (origin, peer) = (member.addresses.origin, member.peer);
        let known = self.store.routers.get(&origin);
        if known.is_some_and(|known| known.credential().member.peer != peer) {
            return Err(DropReason::OriginClash);
        }
        if self.store.goes_by_revoked(lsa.credential()) {
            return Err(DropReason::Revoked);
        }
        let invitation = |c: &CredentialLsa| c.credential().member.invitation().copied();
        let came_by = known.map(|known| invitation(known.credential_lsa()));
        if came_by != Some(invitation(&lsa)) && !self.store.may_join(member) {
            self.flooding.ask_later(true, now);
            return Err(DropReason::InvitationFull);
        }
        if known.is_none() && !self.make_room(&lsa) {
            self.flooding.ask_later(true, now);
            return Err(DropReason::DatabaseFull);
        }
        self.store_credential(origin, Arc::new(lsa), Some(link));
        // the newest orphan that the router has signed
        let mut result = Ok(());
        for orphan in self.intake.take_orphans(origin) {
            result = self.handle_advertisement(orphan.link, origin, orphan.version, &orphan.bytes);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    fn store_credential(
        &mut self,
        origin: OriginId,
        lsa: Arc<CredentialLsa>,
        from: Option<LinkId>,
    ) {
        match self.store.put_credential(origin, lsa, self.now) {
            None => self.graph.note_router(false),
            Some(true) => self.events.push(DatabaseEvent::CredentialChanged(origin)),
            Some(false) => {}
        }
        self.check_clock();
        self.rps.invalidate();
        self.lans.invalidate();
        let (key, kind) = (origin.0, KIND_CREDENTIAL);
        self.flood(LsaId { key, kind }, from, false);
    }

    fn handle_advertisement(
        &mut self,
        link: LinkId,
        origin: OriginId,
        version: Version,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let now = self.now;
        let Some(router) = self.store.routers.get_mut(&origin) else {
            self.flooding.ask_later(false, now);
            return self.intake.keep_orphan(link, origin, version, bytes, now);
        };
        let received = ReceivedLsa {
            link,
            version,
            bytes,
        };
        let admitted = self.intake.admit(router, origin, received, now);
        if let Err(deferred) = admitted {
            if !deferred {
                self.flooding.ask_later(true, now);
            }
            return Err(DropReason::FloodLimited);
        }
        let peer = router.credential().member.peer;
        match Advertisement::verify(bytes, &peer, &*self.services) {
            Ok(advertisement) => {
                self.store_advertisement(&Arc::new(advertisement), Some(link));
                Ok(())
            }
            Err(error) => {
                router.rate.refund(ADVERTISEMENT_RATE, 1);
                let reason = drop_reason(error);
                if reason == DropReason::ForgedLsa {
                    self.events.push(DatabaseEvent::Forged(link));
                }
                Err(reason)
            }
        }
    }

    fn store_advertisement(&mut self, new: &Arc<Advertisement>, from: Option<LinkId>) {
        let origin = new.origin();
        let Some(router) = self.store.routers.get_mut(&origin) else {
            return;
        };
        let old = router.advertisement.replace(Arc::clone(new));
        self.intake.note_stored(router, origin, new.version());
        if router.announced().count() < new.prefixes().len() {
            let reason = DropReason::AnnouncementNotPermitted;
            self.events.push(DatabaseEvent::Dropped(reason));
        }
        let old = old.as_deref();
        if old.is_none_or(|old| old.incarnation() != new.incarnation()) {
            let event = DatabaseEvent::Incarnation(origin, new.incarnation());
            self.events.push(event);
        }
        if !old.is_some_and(|old| old.elects_as(new)) {
            self.rps.invalidate();
        }
        if old.map_or(&[][..], |old| old.lans()) != new.lans() {
            self.lans.invalidate();
        }
        if old.and_then(Advertisement::ipv4) != new.ipv4() {
            self.lans.invalidate();
            self.origination_stale = true;
        }
        if !old.is_some_and(|old| old.links().eq(new.links()))
            && self
                .graph
                .update_links(&mut self.store, origin, old, Some(new))
        {
            self.flooding.ask_later(false, self.now);
        }
        if new.is_urgent() {
            self.spf.hasten(self.store.routers.len());
        }
        // this router advertises a link that the neighbour advertises
        let advertised = |link: &LinkQueue| link.neighbor == origin && !link.advertised;
        self.origination_stale |= self.flooding.links.values().any(advertised);
        let (key, kind) = (origin.0, KIND_ADVERTISEMENT);
        self.flood(LsaId { key, kind }, from, new.is_urgent());
    }

    fn handle_revocation(&mut self, from: Option<LinkId>, lsa: &[u8]) -> Result<(), DropReason> {
        let (head, bytes) = lsa.split_first_chunk::<16>().ok_or(DropReason::BadLsa)?;
        if bytes.len() > MAX_REVOCATION {
            return Err(DropReason::BadLsa);
        }
        let verified = self.services.verify_revocation(bytes);
        let revocation = verified.map_err(|_| DropReason::ForgedLsa)?;
        let key = revocation_key(&revocation.key, revocation.by_network);
        if head[..8] != key.to_be_bytes() || head[8..] != revocation.until.to_be_bytes() {
            return Err(DropReason::BadLsa);
        }
        if revocation.until < self.services.unix_now().as_secs() {
            return Err(DropReason::Revoked);
        }
        let known = self.store.revocations.get(&key);
        let ours = known.map(|known| (known.revocation.until, &known.lsa[..]));
        if ours >= Some((revocation.until, lsa)) {
            return Ok(());
        }
        let revoked = Revoked {
            revocation,
            lsa: Bytes::copy_from_slice(lsa),
        };
        let kind = KIND_REVOCATION;
        let displaced = self.store.put_revocation(key, revoked);
        if let Some(key) = displaced.map_err(|_| DropReason::DatabaseFull)? {
            self.flooding.unflood(LsaId { key, kind });
        }
        self.flood(LsaId { key, kind }, from, true);
        let event = DatabaseEvent::Revoked(revocation.key, Bytes::copy_from_slice(bytes));
        self.events.push(event);
        let store = &self.store;
        let revoked = store.routers_where(|_, router| store.goes_by_revoked(router.credential()));
        for origin in revoked {
            self.remove_router(origin);
        }
        self.check_clock();
        self.spf.hasten(self.store.routers.len());
        Ok(())
    }

    /// Handles an LSA of this router that is newer than its own last one.
    fn handle_own(&mut self, kind: u8, bytes: &[u8], version: Version) -> Result<(), DropReason> {
        self.origination_stale = true;
        let Some(router) = self.store.routers.get(&self.store.own) else {
            return Ok(());
        };
        let peer = router.credential().member.peer;
        if kind == KIND_ADVERTISEMENT {
            Advertisement::verify(bytes, &peer, &*self.services).map_err(drop_reason)?;
            if self.origination.supersede(version) {
                tracing::warn!(
                    incarnation = self.origination.router.incarnation,
                    "own advertisement of a later incarnation seen: was the state directory lost, or copied to another host?"
                );
            }
            return Ok(());
        }
        CredentialLsa::verify(bytes, &*self.services).map_err(drop_reason)?;
        if version.0 == u64::MAX {
            return Err(DropReason::BadLsa);
        }
        self.originate_credential(Version(version.0 + 1))
            .map_err(|_| DropReason::CredentialRefused)
    }

    /// Handles deferred advertisements: of each router the newest that it has signed.
    fn handle_deferred(&mut self) {
        for (origin, deferred) in self.intake.take_deferred(&mut self.store, self.now) {
            for w in deferred {
                match self.handle_advertisement(w.link, origin, w.version, &w.bytes) {
                    Ok(()) => break,
                    Err(reason) => self.events.push(DatabaseEvent::Dropped(reason)),
                }
            }
        }
    }

    fn flood(&mut self, id: LsaId, from: Option<LinkId>, urgent: bool) {
        let flood = Flood { id, from, urgent };
        self.flooding.flood(flood, &self.store, self.now);
    }

    /// Forgets a router; never this one.
    fn remove_router(&mut self, origin: OriginId) {
        if origin == self.store.own {
            return;
        }
        let router = self.store.routers.get(&origin);
        if let Some(old) = router.and_then(|r| r.advertisement.clone()) {
            self.graph
                .update_links(&mut self.store, origin, Some(&old), None);
        }
        let Some(router) = self.store.remove_router(origin) else {
            return;
        };
        self.intake.forget(origin);
        if router.reachable {
            self.events.push(DatabaseEvent::RouterDown(origin));
            self.rps.invalidate();
            self.lans.invalidate();
        }
        self.graph.note_router(router.reachable);
        for kind in [KIND_CREDENTIAL, KIND_ADVERTISEMENT] {
            let key = origin.0;
            self.flooding.unflood(LsaId { key, kind });
        }
    }

    /// Whether the store has room for one more router, if necessary in place of another.
    fn make_room(&mut self, new: &CredentialLsa) -> bool {
        if self.store.has_room() {
            return true;
        }
        // a router that has become reachable meanwhile stays
        self.refresh_graph();
        let links = &self.flooding.links;
        let is_neighbor = |origin| links.values().any(|link| link.neighbor == origin);
        let invitation = new.credential().member.invitation();
        let forgotten = self.store.to_forget(invitation, is_neighbor);
        forgotten.is_some_and(|origin| {
            self.remove_router(origin);
            true
        })
    }

    fn forget_gone(&mut self) {
        let (now, own) = (self.now, self.store.own);
        let gone = self.store.routers_where(|origin, router| {
            !router.reachable && now >= forgotten_at(router) && origin != own
        });
        for origin in gone {
            self.remove_router(origin);
        }
        self.graph.note_router(false);
    }

    fn expire(&mut self) {
        let time = self.services.unix_now();
        for origin in self.store.expired_routers(time) {
            self.remove_router(origin);
        }
        for key in self.store.expired_revocations(time) {
            self.store.remove_revocation(key);
            let kind = KIND_REVOCATION;
            self.flooding.unflood(LsaId { key, kind });
        }
        self.check_clock();
    }

    /// Computes the time of the next expiry.
    fn check_clock(&mut self) {
        let time = self.services.unix_now().as_secs();
        self.clock_at = self.store.next_expiry().map(|next| {
            let left = Duration::from_secs(next.saturating_sub(time).saturating_add(1));
            self.now + left.min(CLOCK_CHECK)
        });
    }
}

/// Route computation and origination.
impl Database {
    /// Computes all results of inputs since the last update.
    pub fn update(&mut self) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        // the own advertisement changes its own inputs; two rounds settle it
        for _ in 0..4 {
            if self.now >= self.spf.next() {
                self.compute_routes();
            }
            if !std::mem::take(&mut self.origination_stale) {
                break;
            }
            self.review_origination();
            self.origination_stale = self.originate_advertisement();
            if !self.origination_stale {
                break;
            }
        }
        self.lans.refresh(&self.store);
        self.flooding.ask_neighbor(&self.store, self.now);
    }

    fn compute_routes(&mut self) {
        let changed = self.graph.is_stale() || self.rps.is_stale();
        self.origination_stale |= changed;
        if changed {
            self.spf.note_computed(self.store.routers.len(), self.now);
        }
        self.refresh_graph();
        if self.rps.refresh(&self.store) {
            self.events.push(DatabaseEvent::RpsChanged);
        }
        if changed {
            let rp = self.rps.rp(0);
            self.flooding.set_tree(&self.store, self.graph.graph(), rp);
        }
    }

    fn refresh_graph(&mut self) {
        for reached in self.graph.refresh(&mut self.store, self.now) {
            self.rps.invalidate();
            self.lans.invalidate();
            self.events.push(match reached.gone_since {
                Some(gone_since) => {
                    for link in self.flooding.links.values_mut() {
                        link.note_reachable(gone_since, self.now);
                    }
                    DatabaseEvent::RouterUp(reached.origin)
                }
                None => DatabaseEvent::RouterDown(reached.origin),
            });
        }
    }

    /// Updates this router's candidacies, centrality and IPv4 address after other advertisements.
    fn review_origination(&mut self) {
        let (now, own) = (self.now, self.store.own);
        let graph = self.graph.graph();
        let digest = graph.digest();
        if self.origination.centrality_is_due(digest, now) {
            let tree = Tree::of(graph, own, None);
            let mean = tree.and_then(|tree| tree.mean_distance());
            self.origination.set_centrality(digest, mean, now);
            // returns false now, and sets the time of the next check
            self.origination.centrality_is_due(digest, now);
        }
        self.review_ipv4();
        let routers = &self.store.routers;
        let eligible = |origin: OriginId| routers.get(&origin)?.eligible(origin);
        let elections = self.rps.ranges();
        self.origination
            .review_candidacies(elections, eligible, now);
        let prefixes = self.rps.prefixes();
        let root = |prefix: &GroupPrefix| prefixes.get(prefix).map(|p| p.root);
        self.origination.review_prefix_candidacies(root, now);
    }

    /// Chooses an IPv4 address, or another one.
    fn review_ipv4(&mut self) {
        let settled = self.origination.settled(self.now);
        let Some(assignment) = &mut self.origination.assignment else {
            return;
        };
        self.lans.refresh(&self.store);
        let (lans, own) = (&self.lans, self.store.own);
        let holder = |address| lans.ipv4_holder(address, own);
        if assignment.review(holder, settled, self.now) {
            let event = DatabaseEvent::Ipv4Address(assignment.address());
            self.events.push(event);
        }
    }

    /// Signs and floods the own advertisement if it has changed and is due; returns whether it did.
    fn originate_advertisement(&mut self) -> bool {
        let origin = self.store.own;
        let Some(router) = self.store.routers.get(&origin) else {
            return false;
        };
        let permitted = router.credential().member.prefixes.clone();
        self.advertise_links();
        let mut costs: BTreeMap<OriginId, u16> = BTreeMap::new();
        let advertised =
            |link: &&LinkQueue| link.advertised && link.standing != LinkStanding::Retiring;
        let links = &self.flooding.links;
        for link in links.values().filter(advertised) {
            let cost = link.cost.get();
            let least = costs.entry(link.neighbor).or_insert(cost);
            *least = cost.min(*least);
        }
        costs.remove(&origin);
        let advertised = costs.into_iter().take(MAX_LINKS).collect();
        let mut content = self.origination.content(&permitted, advertised);
        let up = |neighbor| links.values().any(|link| link.neighbor == neighbor);
        if !self.origination.try_originate(&content, up, self.now) {
            return false;
        }
        if self.origination.is_urgent(self.now) {
            content.flags |= FLAG_URGENT;
        }
        let version = self.origination.next_version();
        match Advertisement::sign(origin, version, &content, &*self.services) {
            Ok(advertisement) => {
                self.store_advertisement(&Arc::new(advertisement), None);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "own advertisement cannot be built");
                false
            }
        }
    }

    /// Chooses the links to advertise. A link on trial is left out, unless no other link leads to
    /// the neighbour, or the neighbour advertises it.
    fn advertise_links(&mut self) {
        let own = self.store.own;
        let mut new = Vec::new();
        let silent = |link: &LinkQueue| !link.advertised && link.cost.is_known();
        let ids = self.flooding.links.iter().filter(|(_, link)| silent(link));
        for id in Vec::from_iter(ids.map(|(id, _)| id)) {
            let Some(link) = self.flooding.links.get_mut(&id) else {
                continue;
            };
            let neighbor = self.store.routers.get(&link.neighbor);
            let reachable = neighbor.is_some_and(|n| n.reachable);
            let advertisement = neighbor.and_then(|n| n.advertisement.as_ref());
            let named = advertisement.is_some_and(|a| a.cost_to(own).is_some());
            link.advertised = link.standing == LinkStanding::Wanted || !reachable || named;
            if link.advertised {
                self.origination.rejoins |= !reachable;
                new.push(id);
            }
        }
        for link in new {
            self.flooding.introduce(link, &self.store, self.now);
        }
    }

    fn originate_credential(&mut self, version: Version) -> Result<(), OwnChainError> {
        let origin = self.store.own;
        let chain = &self.origination.router.chain;
        match CredentialLsa::sign(origin, version, chain, &*self.services) {
            Ok(lsa) => {
                self.store_credential(origin, Arc::new(lsa), None);
                Ok(())
            }
            Err(LsaError::Refused(error)) => Err(error.into()),
            Err(LsaError::Malformed(_)) => Err(OwnChainError::OtherNode),
            Err(LsaError::Forged) => Err(OwnChainError::OtherKey),
        }
    }
}

/// Queries.
impl Database {
    /// The graph of links that both ends advertise: this router, and all routers with such links.
    pub fn graph(&mut self) -> Arc<Graph> {
        self.update();
        Arc::clone(self.graph.graph())
    }

    /// The messages to send, in order.
    pub fn take_messages(&mut self) -> Vec<(LinkId, Message)> {
        self.update();
        self.flooding.take_messages(&self.store, self.now)
    }

    /// The changes since the last call.
    pub fn take_events(&mut self) -> Vec<DatabaseEvent> {
        self.update();
        std::mem::take(&mut self.events)
    }

    /// Rises with every change of the graph or of the reachable routers.
    pub fn graph_version(&self) -> u64 {
        self.graph.version()
    }

    /// Rises with every change of the rendezvous points or of the announcers of a prefix.
    pub fn rps_version(&self) -> u64 {
        self.rps.version()
    }

    /// Rises whenever a router's certificates are stored, replaced or removed.
    pub fn credentials_version(&self) -> u64 {
        self.store.credentials_version
    }

    /// The incarnation of this router: higher than the given one if a higher one was seen.
    pub fn incarnation(&self) -> u32 {
        self.origination.router.incarnation
    }

    /// A router with known certificates; this one is among them.
    pub fn router(&self, origin: OriginId) -> Option<&Router> {
        self.store.routers.get(&origin)
    }

    /// All routers with known certificates, in ascending order.
    pub fn routers(&self) -> impl Iterator<Item = (OriginId, &Router)> {
        self.store.routers.iter()
    }

    /// Whether links lead to this router.
    pub fn is_reachable(&self, origin: OriginId) -> bool {
        self.router(origin).is_some_and(|r| r.reachable)
    }

    /// The number of routers to which links lead, this one included.
    pub fn reachable_count(&self) -> usize {
        self.graph.reachable()
    }

    /// Reachable routers that renew certificates, in ascending order.
    pub fn issuers(&self) -> impl Iterator<Item = OriginId> + '_ {
        let can = |r: &Router| r.reachable && r.has_flag(FLAG_ISSUER) && r.credential().can_issue;
        self.routers()
            .filter(move |(_, router)| can(router))
            .map(|(origin, _)| origin)
    }

    /// The rendezvous point of this group range, 0 to 3.
    pub fn rp(&self, range: u8) -> Option<OriginId> {
        self.rps.rp(range)
    }

    /// The longest announced prefix that the group lies in, and the root of its tree.
    pub fn owner(&self, group: Ipv6Addr) -> Option<(GroupPrefix, OriginId)> {
        self.rps.owner(group)
    }

    /// The root of the shared tree of an any-source group, by announced prefix, else by range.
    pub fn rp_of(&self, group: Ipv6Addr) -> Option<OriginId> {
        self.rps.rp_of(group)
    }

    /// All announced prefixes in ascending order.
    pub fn announced(&self) -> impl Iterator<Item = (&GroupPrefix, &AnnouncedPrefix)> {
        self.rps.prefixes().iter()
    }

    /// This router's IPv4 address.
    pub fn ipv4_address(&self) -> Option<Ipv4Addr> {
        self.origination.assignment.as_ref()?.address()
    }

    /// The gateways of LAN hosts.
    pub(crate) fn lan_sources(&self) -> &Arc<LanSources> {
        self.lans.sources()
    }

    /// Whether a certificate lets its node speak for hosts of a prefix; `Some(true)`: by name.
    #[must_use]
    pub fn permits(member: &Member, prefix: SourcePrefix) -> Option<bool> {
        lans::permits(member, prefix)
    }

    /// The highest term that other gateways of a LAN advertise for it; 0 if none does.
    pub fn lan_term(&self, lan: LanId, is_of_lan: impl Fn(OriginId) -> bool) -> u32 {
        self.lans.term(lan, is_of_lan)
    }

    /// The forwarder of a LAN, by its number.
    pub fn forwarder_of_lan(&self, lan: LanId) -> Option<OriginId> {
        self.lans.forwarder(lan)
    }

    /// Whether a router's certificate makes it a gateway.
    pub fn is_gateway(&self, origin: OriginId) -> bool {
        let router = self.router(origin);
        router.is_some_and(|router| !router.credential().member.gateway.is_empty())
    }

    /// Whether a gateway has this address on its LAN.
    pub fn is_gateway_mac(&self, mac: MacAddress) -> bool {
        self.lans.is_gateway(mac)
    }

    /// The LANs of a segment, each with its forwarder.
    pub(crate) fn segment(&self, segment: SegmentId) -> Arc<SegmentLans> {
        self.lans.segment(segment)
    }

    /// Prefixes that two LANs use.
    pub fn lan_clashes(&self) -> &[SourcePrefix] {
        self.lans.clashes()
    }

    /// Whether certificates that depend on this key do not count.
    pub fn is_revoked(&self, key: &PeerId) -> bool {
        self.store.is_revoked(key)
    }

    /// Sizes of the tables.
    pub fn tables(&self) -> DatabaseTables {
        DatabaseTables {
            routers: self.store.routers.len(),
            reachable: self.graph.reachable(),
            revocations: self.store.revocations.len(),
            orphans: self.intake.orphans(),
        }
    }
}
