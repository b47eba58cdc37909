//! The link state: what every router of the network says of itself, flooded and signed, and what
//! follows from it: the graph, who is reachable, who is the root of what.
//!
//! ```text
//! handle_record --> newer than ours? --> signature, certificates, rates --> stored --> other links
//!                      no: nothing, or ours goes back                         |
//!                                              graph <-- reachable, elections-+--> own advertisement
//! ```
//!
//! Inputs change the records; [`Database::update`] draws the conclusions. [`Database::graph`],
//! [`Database::take_events`] and [`Database::take_messages`] call it, the other questions are answered
//! as of the last time.

mod advertisement;
mod bucket;
mod cost;
mod election;
mod flooding;
mod own;
mod record;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use librecast::cert::{CLOCK_SKEW, GroupPrefix};
use librecast::id::{OriginId, PeerId};
use librecast::wire::Writer;

pub use advertisement::{
    Advertisement, Announced, FLAG_CORE, FLAG_ISSUER, FLAG_UNICAST, MAX_LINKS, MAX_PREFIXES,
    UNKNOWN_CENTRALITY,
};
use bucket::{Bucket, Rate};
pub use election::SLOTS;
use election::{Candidate, SlotRoots, elect_announcer, elect_slot, slot_of};
use flooding::{Link, SUMMARY_RATE, VERIFY_RATE};
use own::Own;
pub use own::OwnRouter;
pub use record::{
    CredentialRecord, KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, MAX_REVOCATION, Record,
    RecordId, Version,
};
use record::{first_version, peek, revocation_key};
pub use summary::{BUCKETS, Summary, SummaryEntry};
use summary::{add_to, differing, have};

use crate::config::{Limits, LinkId};
use crate::drops::DropReason;
use crate::graph::{Graph, link_digest, router_digest};
use crate::services::{Credential, RecordError, Revocation, Services};

/// Advertisements of one router that are taken in: more wait for their turn, and only the newest.
const ADVERTISEMENT_RATE: Rate = Rate {
    burst: 16,
    interval: Duration::from_secs(1),
};
/// Routers that cannot be reached are remembered so long.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// Advertisements without a credential are kept so long.
const ASIDE_FOR: Duration = Duration::from_secs(30);
/// Most of them, in all and of one neighbour.
const MAX_ASIDE: usize = 256;
const MAX_ASIDE_OF_LINK: usize = 64;
/// A neighbour that was asked answers in this time, or another is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// After these times neighbours are asked for what is missing: the first, doubled up to the last.
const ASK_FIRST: Duration = Duration::from_secs(1);
const ASK_LAST: Duration = Duration::from_secs(3_600);
/// The clock of the host is looked at no later than this.
const CLOCK_CHECK: Duration = Duration::from_secs(3_600);

/// What is sent over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A RECORD element.
    Record(Record),
    /// A SUMMARY element.
    Summary(Summary),
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseEvent {
    /// Links lead to this router now.
    RouterUp(OriginId),
    /// No links lead to this router any more, or it lost its credential.
    RouterDown(OriginId),
    /// The router has (re)started as this incarnation. For the own router: use it from now on, and
    /// persist it.
    Incarnation(OriginId, u32),
    /// The router has other certificates than before.
    CredentialChanged(OriginId),
    /// The key counts no longer, by this revocation.
    Revoked(PeerId, Bytes),
    /// Roots of slots or announced prefixes are others than before.
    RootsChanged,
    /// Something that had been taken in was dropped later, or in part.
    Dropped(DropReason),
    /// The neighbour passed on what its router did not sign.
    Forged(LinkId),
}

/// A router of the network: its certificates and what it says of itself.
#[derive(Debug)]
pub struct Router {
    credential: Arc<CredentialRecord>,
    advertisement: Option<Arc<Advertisement>>,
    reachable: bool,
    /// When it ceased to be reachable, if it is not.
    gone_since: Instant,
    /// Links that both ends claim.
    links: u16,
    rate: Bucket,
    /// The newest advertisement that has to wait, and where it came from.
    waiting: Option<Box<(LinkId, Version, Bytes)>>,
}

impl Router {
    /// What its certificates prove.
    #[must_use]
    pub fn credential(&self) -> &Credential {
        self.credential.credential()
    }

    /// Its certificates as they are flooded.
    #[must_use]
    pub fn credential_record(&self) -> &CredentialRecord {
        &self.credential
    }

    /// What it says of itself; `None` until it has come.
    #[must_use]
    pub fn advertisement(&self) -> Option<&Arc<Advertisement>> {
        self.advertisement.as_ref()
    }

    /// Whether links lead there.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// Whether it may be the root of shared trees before others: it and its certificate say so.
    #[must_use]
    pub fn is_core(&self) -> bool {
        self.has_flag(FLAG_CORE) && self.credential().member.core
    }

    /// Whether its advertisement has this flag.
    #[must_use]
    pub fn has_flag(&self, flag: u8) -> bool {
        self.advertisement
            .as_ref()
            .is_some_and(|a| a.flags() & flag != 0)
    }

    /// The groups that it announces and that its certificate permits.
    pub fn announced(&self) -> impl Iterator<Item = Announced> + '_ {
        let permitted = &self.credential().member.prefixes;
        let prefixes = self.advertisement.iter().flat_map(|a| a.prefixes());
        prefixes
            .filter(|announced| permitted.iter().any(|p| p.covers(&announced.prefix)))
            .copied()
    }

    fn candidate(&self, origin: OriginId) -> Option<Candidate> {
        let advertisement = self.advertisement.as_ref()?;
        let claims = (0..SLOTS).filter(|&slot| advertisement.claims(slot));
        self.reachable.then(|| Candidate {
            origin,
            claims: claims.map(|slot| 1 << slot).sum(),
            core: self.is_core(),
            centrality: advertisement.centrality(),
        })
    }
}

/// A prefix that reachable routers announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedPrefix {
    /// The one whose tree is used.
    pub root: OriginId,
    /// All who announce it, in ascending order.
    pub announcers: Vec<OriginId>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Roots {
    slots: [SlotRoots; SLOTS as usize],
    prefixes: BTreeMap<GroupPrefix, AnnouncedPrefix>,
    /// Lengths of the prefixes, the longest first.
    lengths: Vec<u8>,
}

#[derive(Debug)]
struct Revoked {
    revocation: Revocation,
    record: Bytes,
}

/// An advertisement whose router is not known yet.
#[derive(Debug)]
struct Aside {
    link: LinkId,
    version: Version,
    bytes: Bytes,
    until: Instant,
}

/// How much of what there is, for tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseTables {
    /// Routers whose certificates are known.
    pub routers: usize,
    /// Those that links lead to, this one included.
    pub reachable: usize,
    /// Revocations.
    pub revocations: usize,
    /// Advertisements kept for want of a credential.
    pub aside: usize,
}

/// The link state as one router has it.
#[derive(Debug)]
pub struct Database {
    services: Arc<dyn Services>,
    max_routers: usize,
    max_revocations: usize,
    own: Own,
    routers: BTreeMap<OriginId, Router>,
    /// When certificates expire, Unix seconds.
    expiries: BTreeSet<(u64, OriginId)>,
    revocations: BTreeMap<u64, Revoked>,
    revoked: BTreeSet<PeerId>,
    aside: BTreeMap<OriginId, Aside>,
    /// Routers with an advertisement that waits.
    waiting: BTreeSet<OriginId>,
    links: BTreeMap<LinkId, Link>,
    /// Sum over all links that both ends claim.
    digest: u64,
    graph: Arc<Graph>,
    /// The graph, or who belongs to it, has changed.
    graph_changed: bool,
    roots: Roots,
    roots_changed: bool,
    /// The neighbour that was asked for what we lack, and until when it may answer.
    asked: Option<(LinkId, Instant)>,
    /// When neighbours are asked again, because something is missing.
    ask_at: Option<Instant>,
    ask_after: Duration,
    /// Something was refused that may be accepted another time.
    refused: bool,
    /// The first time at which a router that is gone may be forgotten.
    forget_at: Option<Instant>,
    clock_at: Option<Instant>,
    events: Vec<DatabaseEvent>,
    version: u64,
    graph_version: u64,
    roots_version: u64,
    now: Instant,
}

/// Inputs.
impl Database {
    /// A database that knows this router alone.
    #[must_use]
    pub fn new(own: OwnRouter, limits: &Limits, services: Arc<dyn Services>, now: Instant) -> Self {
        let origin = own.origin;
        let chain = own.chain.clone();
        let graph = Graph::new(router_digest(origin), [origin], &[]);
        let mut database = Self {
            services,
            max_routers: limits.routers.max(1),
            max_revocations: limits.revocations,
            own: Own::new(own, now),
            routers: BTreeMap::new(),
            expiries: BTreeSet::new(),
            revocations: BTreeMap::new(),
            revoked: BTreeSet::new(),
            aside: BTreeMap::new(),
            waiting: BTreeSet::new(),
            links: BTreeMap::new(),
            digest: 0,
            graph: Arc::new(graph),
            graph_changed: true,
            roots: Roots::default(),
            roots_changed: true,
            asked: None,
            ask_at: None,
            ask_after: ASK_FIRST,
            refused: false,
            forget_at: None,
            clock_at: None,
            events: Vec::new(),
            version: 0,
            graph_version: 0,
            roots_version: 0,
            now,
        };
        if let Err(reason) = database.set_own_chain(chain, now) {
            tracing::warn!(
                reason,
                "own certificates do not count: others cannot see this node"
            );
        }
        database.update();
        // nobody has to be told what is so from the start
        database.events.clear();
        database
    }

    /// A link is up.
    pub fn link_up(&mut self, link: LinkId, neighbor: OriginId, now: Instant) {
        self.now = now;
        let buckets = Box::new(self.sums());
        let mut state = Link::new(neighbor, now);
        state.push_summary(Summary::Digest {
            ask: false,
            buckets,
        });
        // who has just come is known to all at once
        for kind in [KIND_CREDENTIAL, KIND_ADVERTISEMENT] {
            let key = self.own.router.origin.0;
            state.push_news(RecordId { key, kind });
        }
        self.links.insert(link, state);
        self.own.set_linked(true, now);
    }

    /// A link is gone.
    pub fn link_down(&mut self, link: LinkId, now: Instant) {
        self.now = now;
        self.links.remove(&link);
        self.asked.take_if(|(asked, _)| *asked == link);
        self.own.set_linked(!self.links.is_empty(), now);
    }

    /// The round-trip time of a link was measured, or smoothed.
    pub fn set_rtt(&mut self, link: LinkId, rtt: Duration, now: Instant) {
        self.now = now;
        if let Some(link) = self.links.get_mut(&link) {
            link.cost.set(rtt, now);
        }
    }

    /// A record from a neighbour.
    pub fn handle_record(
        &mut self,
        link: LinkId,
        kind: u8,
        bytes: &Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.now = now;
        if !self.links.contains_key(&link) {
            return Err(DropReason::UnknownLink);
        }
        let Some((key, version)) = peek(kind, bytes).map_err(|_| DropReason::BadRecord)? else {
            // a kind of a later version: without knowing it we cannot pass it on
            return Ok(());
        };
        let id = RecordId { key, kind };
        if let Some((known, stored)) = self.stored(id)
            && (version, &bytes[..]) <= (known, stored)
        {
            let same = bytes[..] == stored[..];
            if let Some(state) = self.links.get_mut(&link) {
                if same {
                    state.remove(id);
                } else {
                    state.push_news(id);
                }
            }
            return Ok(());
        }
        let rate = |state: &mut Link| state.verify.take(VERIFY_RATE, now);
        if !self.links.get_mut(&link).is_some_and(rate) {
            self.ask_later(true);
            return Err(DropReason::FloodLimited);
        }
        match kind {
            _ if kind != KIND_REVOCATION && key == self.own.router.origin.0 => {
                self.overtaken(kind, bytes, version)
            }
            KIND_CREDENTIAL => self.handle_credential(link, bytes),
            KIND_ADVERTISEMENT => self.handle_advertisement(link, OriginId(key), version, bytes),
            _ => self.handle_revocation(Some(link), bytes),
        }
    }

    /// A summary from a neighbour.
    pub fn handle_summary(
        &mut self,
        link: LinkId,
        summary: &Summary,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.now = now;
        let Some(state) = self.links.get_mut(&link) else {
            return Err(DropReason::UnknownLink);
        };
        if !state.summarize.take(SUMMARY_RATE, now) {
            return Err(DropReason::FloodLimited);
        }
        match summary {
            Summary::Digest { ask, buckets } => {
                // it may cost us a long answer
                state.summarize.spend(SUMMARY_RATE, 15, now);
                state.digest = Some(buckets.clone());
                if *ask {
                    let buckets = Box::new(self.sums());
                    self.push_summary(
                        link,
                        Summary::Digest {
                            ask: false,
                            buckets,
                        },
                    );
                }
            }
            Summary::Have {
                from,
                to,
                last,
                entries,
            } => self.answer(link, (*from, *to), *last, entries),
            Summary::End => {
                self.asked.take_if(|(asked, _)| *asked == link);
            }
        }
        Ok(())
    }

    /// This router announces these groups from now on; those outside its certificate, and more than
    /// [`MAX_PREFIXES`], are not said.
    pub fn set_announced(&mut self, announced: BTreeSet<GroupPrefix>, now: Instant) {
        self.now = now;
        self.own.router.announced = announced;
    }

    /// This router has these flags from now on: [`FLAG_CORE`] and others.
    pub fn set_flags(&mut self, flags: u8, now: Instant) {
        self.now = now;
        self.own.router.flags = flags;
    }

    /// This router has these certificates from now on.
    pub fn set_own_chain(&mut self, chain: Bytes, now: Instant) -> Result<(), &'static str> {
        self.now = now;
        let origin = self.own.router.origin;
        let credential = self.services.verify_chain(&chain)?;
        let known = self.routers.get(&origin).map(|router| &router.credential);
        if known.is_some_and(|known| known.chain() == &chain[..]) {
            return Ok(());
        }
        let first = first_version(credential.issued, &chain);
        let version = known.map_or(first, |known| {
            first.max(Version(known.version().0.saturating_add(1)))
        });
        self.own.router.chain = chain;
        self.sign_credential(version)
    }

    /// A revocation, as [`Services::verify_revocation`] knows it, to be told to all.
    pub fn add_revocation(&mut self, bytes: &[u8], now: Instant) -> Result<(), &'static str> {
        self.now = now;
        let revocation = self.services.verify_revocation(bytes)?;
        let mut w = Writer::new();
        w.u64(revocation_key(&revocation.key)).u64(revocation.until);
        w.put(bytes);
        match self.handle_revocation(None, w.as_slice()) {
            Ok(()) => Ok(()),
            Err(DropReason::DatabaseFull) => Err("too many revocations"),
            Err(_) => Err("it has expired, or is too long"),
        }
    }

    /// To be called when the time of [`Self::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        for link in self.links.values_mut() {
            link.cost.handle_timeout(now);
        }
        self.aside.retain(|_, aside| now < aside.until);
        self.asked.take_if(|(_, until)| now >= *until);
        self.release_waiting();
        if self.forget_at.take_if(|at| now >= *at).is_some() {
            self.forget_gone();
        }
        if self.clock_at.take_if(|at| now >= *at).is_some() {
            self.expire();
        }
        if self.ask_at.take_if(|at| now >= *at).is_some() {
            self.ask_for_missing();
        }
        self.update();
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let waiting = self
            .waiting
            .iter()
            .filter_map(|origin| self.routers.get(origin));
        let links = self.links.values();
        let times = [
            self.own.next_timeout(self.now),
            self.asked.map(|(_, until)| until),
            self.ask_at,
            self.forget_at,
            self.clock_at,
            self.aside.values().map(|aside| aside.until).min(),
            waiting.map(|r| r.rate.next(ADVERTISEMENT_RATE)).min(),
            links.clone().filter_map(|l| l.cost.next_timeout()).min(),
            links.filter_map(Link::next_timeout).min(),
        ];
        times.into_iter().flatten().min()
    }
}

/// Questions.
impl Database {
    /// The graph of all links that both ends claim. It contains this router, and others only with links.
    pub fn graph(&mut self) -> Arc<Graph> {
        self.update();
        Arc::clone(&self.graph)
    }

    /// What is to be sent, in order.
    pub fn take_messages(&mut self) -> Vec<(LinkId, Message)> {
        self.update();
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        let mut messages = Vec::new();
        for id in ids {
            while let Some(record) = self.next_record(id) {
                messages.push((id, Message::Record(record)));
            }
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            while let Some(summary) = link.next_summary() {
                messages.push((id, Message::Summary(summary)));
            }
        }
        messages
    }

    /// What changed since the last time.
    pub fn take_events(&mut self) -> Vec<DatabaseEvent> {
        self.update();
        std::mem::take(&mut self.events)
    }

    /// Rises with every change of what can be asked here.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Rises with every change of the graph.
    #[must_use]
    pub fn graph_version(&self) -> u64 {
        self.graph_version
    }

    /// Rises with every change of the roots of slots and prefixes, and of who announces these.
    #[must_use]
    pub fn roots_version(&self) -> u64 {
        self.roots_version
    }

    /// The incarnation of this router: higher than it was given if another was seen.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.own.router.incarnation
    }

    /// A router whose certificates are known; this one is among them.
    #[must_use]
    pub fn router(&self, origin: OriginId) -> Option<&Router> {
        self.routers.get(&origin)
    }

    /// All of them, in ascending order.
    pub fn routers(&self) -> impl Iterator<Item = (OriginId, &Router)> {
        self.routers
            .iter()
            .map(|(origin, router)| (*origin, router))
    }

    /// Whether links lead to this router.
    #[must_use]
    pub fn is_reachable(&self, origin: OriginId) -> bool {
        self.routers.get(&origin).is_some_and(|r| r.reachable)
    }

    /// Reachable routers that renew certificates, in ascending order.
    pub fn issuers(&self) -> impl Iterator<Item = OriginId> + '_ {
        let can = |r: &Router| r.reachable && r.has_flag(FLAG_ISSUER) && r.credential().can_issue;
        self.routers()
            .filter(move |(_, router)| can(router))
            .map(|(origin, _)| origin)
    }

    /// The root of the shared tree of this slot, 0 to 3.
    #[must_use]
    pub fn slot_root(&self, slot: u8) -> Option<OriginId> {
        self.roots.slots.get(usize::from(slot))?.elected
    }

    /// The longest announced prefix that the group lies in, and the root of its tree.
    #[must_use]
    pub fn owner(&self, group: Ipv6Addr) -> Option<(GroupPrefix, OriginId)> {
        self.roots.lengths.iter().find_map(|&length| {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            let first = Ipv6Addr::from_bits(group.to_bits() & mask);
            let prefix = GroupPrefix::new(first, length).ok()?;
            let announced = self.roots.prefixes.get(&prefix)?;
            Some((prefix, announced.root))
        })
    }

    /// The root of the tree of an any-source group: of the prefix that it lies in, else of its slot.
    #[must_use]
    pub fn root_of(&self, group: Ipv6Addr) -> Option<OriginId> {
        match self.owner(group) {
            Some((_, root)) => Some(root),
            None => self.slot_root(slot_of(group)),
        }
    }

    /// All announced prefixes in ascending order.
    pub fn announced(&self) -> impl Iterator<Item = (&GroupPrefix, &AnnouncedPrefix)> {
        self.roots.prefixes.iter()
    }

    /// Whether certificates that go by this key do not count.
    #[must_use]
    pub fn is_revoked(&self, key: &PeerId) -> bool {
        self.revoked.contains(key)
    }

    /// How much there is.
    #[must_use]
    pub fn tables(&self) -> DatabaseTables {
        DatabaseTables {
            routers: self.routers.len(),
            reachable: self.routers.values().filter(|r| r.reachable).count(),
            revocations: self.revocations.len(),
            aside: self.aside.len(),
        }
    }
}

/// Records.
impl Database {
    /// Version and bytes of a record that we have.
    fn stored(&self, id: RecordId) -> Option<(Version, &Bytes)> {
        match id.kind {
            KIND_REVOCATION => {
                let revoked = self.revocations.get(&id.key)?;
                Some((Version(revoked.revocation.until), &revoked.record))
            }
            KIND_CREDENTIAL => {
                let record = &self.routers.get(&OriginId(id.key))?.credential;
                Some((record.version(), record.bytes()))
            }
            KIND_ADVERTISEMENT => {
                let router = self.routers.get(&OriginId(id.key))?;
                let advertisement = router.advertisement.as_ref()?;
                Some((advertisement.version(), advertisement.bytes()))
            }
            _ => None,
        }
    }

    fn handle_credential(&mut self, link: LinkId, bytes: &[u8]) -> Result<(), DropReason> {
        let record = match self.services.verify_credential(bytes) {
            Ok(record) => record,
            Err(error) => {
                let reason = self.reason(error);
                // another time the clocks may agree
                self.ask_later(reason == DropReason::CredentialRefused);
                return Err(reason);
            }
        };
        let origin = record.credential().member.addresses.origin;
        let peer = record.credential().member.peer;
        if let Some(known) = self.routers.get(&origin)
            && known.credential().member.peer != peer
        {
            return Err(DropReason::OriginClash);
        }
        if self.goes_by_revoked(record.credential()) {
            return Err(DropReason::Revoked);
        }
        if !self.routers.contains_key(&origin) && !self.make_room() {
            self.ask_later(true);
            return Err(DropReason::DatabaseFull);
        }
        self.store_credential(origin, record, Some(link));
        let Some(aside) = self.aside.remove(&origin) else {
            return Ok(());
        };
        self.handle_advertisement(aside.link, origin, aside.version, &aside.bytes)
    }

    fn store_credential(
        &mut self,
        origin: OriginId,
        record: Arc<CredentialRecord>,
        from: Option<LinkId>,
    ) {
        let not_after = record.credential().member.not_after;
        self.expiries.insert((not_after, origin));
        match self.routers.get_mut(&origin) {
            Some(router) => {
                let old = std::mem::replace(&mut router.credential, record);
                let old_not_after = old.credential().member.not_after;
                if old_not_after != not_after {
                    self.expiries.remove(&(old_not_after, origin));
                }
                if old.chain() != router.credential.chain() {
                    self.events.push(DatabaseEvent::CredentialChanged(origin));
                }
            }
            None => {
                let router = Router {
                    credential: record,
                    advertisement: None,
                    reachable: false,
                    gone_since: self.now,
                    links: 0,
                    rate: Bucket::full(self.now),
                    waiting: None,
                };
                self.routers.insert(origin, router);
                self.graph_changed = true;
            }
        }
        self.check_clock();
        self.roots_changed = true;
        self.version += 1;
        let (key, kind) = (origin.0, KIND_CREDENTIAL);
        self.flood(RecordId { key, kind }, from);
    }

    fn handle_advertisement(
        &mut self,
        link: LinkId,
        origin: OriginId,
        version: Version,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let now = self.now;
        let Some(router) = self.routers.get_mut(&origin) else {
            return self.keep_aside(link, origin, version, bytes);
        };
        if router.waiting.is_some() || !router.rate.take(ADVERTISEMENT_RATE, now) {
            let newest = router.waiting.as_ref().is_none_or(|w| w.1 < version);
            if newest {
                let bytes = Bytes::copy_from_slice(bytes);
                router.waiting = Some(Box::new((link, version, bytes)));
                self.waiting.insert(origin);
            }
            return Err(DropReason::FloodLimited);
        }
        let peer = router.credential().member.peer;
        match self.services.verify_advertisement(&peer, bytes) {
            Ok(advertisement) => {
                self.store_advertisement(advertisement, Some(link));
                Ok(())
            }
            Err(error) => {
                router.rate.refund(ADVERTISEMENT_RATE);
                Err(self.reason(error))
            }
        }
    }

    /// An advertisement of a router whose certificates have not come yet.
    fn keep_aside(
        &mut self,
        link: LinkId,
        origin: OriginId,
        version: Version,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        self.ask_later(false);
        let known = self.aside.get(&origin);
        if known.is_some_and(|aside| aside.version >= version) {
            return Ok(());
        }
        let of_link = self
            .aside
            .values()
            .filter(|aside| aside.link == link)
            .count();
        if known.is_none() && (self.aside.len() >= MAX_ASIDE || of_link >= MAX_ASIDE_OF_LINK) {
            return Err(DropReason::UnknownRouter);
        }
        let aside = Aside {
            link,
            version,
            bytes: Bytes::copy_from_slice(bytes),
            until: self.now + ASIDE_FOR,
        };
        self.aside.insert(origin, aside);
        Ok(())
    }

    fn store_advertisement(&mut self, new: Arc<Advertisement>, from: Option<LinkId>) {
        let origin = new.origin();
        let Some(router) = self.routers.get_mut(&origin) else {
            return;
        };
        let old = router.advertisement.replace(Arc::clone(&new));
        if router.waiting.take_if(|w| w.1 <= new.version()).is_some() {
            self.waiting.remove(&origin);
        }
        if router.announced().count() < new.prefixes().len() {
            let reason = DropReason::AnnouncementNotPermitted;
            self.events.push(DatabaseEvent::Dropped(reason));
        }
        if old
            .as_ref()
            .is_none_or(|old| old.incarnation() != new.incarnation())
        {
            let event = DatabaseEvent::Incarnation(origin, new.incarnation());
            self.events.push(event);
        }
        let said = |a: &Advertisement| {
            let claims: u8 = (0..SLOTS)
                .map(|slot| u8::from(a.claims(slot)) << slot)
                .sum();
            (a.flags(), a.centrality(), claims)
        };
        let same =
            |old: &Arc<Advertisement>| said(old) == said(&new) && old.prefixes() == new.prefixes();
        self.roots_changed |= !old.as_ref().is_some_and(same);
        let same_links = |old: &Arc<Advertisement>| old.links().eq(new.links());
        if !old.as_ref().is_some_and(same_links) {
            if let Some(old) = old {
                self.count_links(&old, false);
            }
            self.count_links(&new, true);
            let unknown = |(to, _): (OriginId, u16)| {
                self.routers
                    .get(&to)
                    .is_none_or(|r| r.advertisement.is_none())
            };
            if new.links().any(unknown) {
                self.ask_later(false);
            }
        }
        self.version += 1;
        let (key, kind) = (origin.0, KIND_ADVERTISEMENT);
        self.flood(RecordId { key, kind }, from);
    }

    /// The links of an advertisement that the other end claims, too, come into the graph or leave it.
    fn count_links(&mut self, advertisement: &Advertisement, add: bool) {
        let origin = advertisement.origin();
        let mut own_links = 0;
        for (to, cost) in advertisement.links() {
            let Some(far) = self.routers.get_mut(&to) else {
                continue;
            };
            let Some(back) = far.advertisement.as_ref().and_then(|a| a.cost_to(origin)) else {
                continue;
            };
            self.digest ^= link_digest(origin, to, cost.max(back));
            far.links = if add { far.links + 1 } else { far.links - 1 };
            own_links += 1;
        }
        if let Some(router) = self.routers.get_mut(&origin) {
            router.links = if add {
                router.links + own_links
            } else {
                router.links - own_links
            };
        }
        self.graph_changed |= own_links > 0;
    }

    fn handle_revocation(&mut self, from: Option<LinkId>, record: &[u8]) -> Result<(), DropReason> {
        let (head, bytes) = record
            .split_first_chunk::<16>()
            .ok_or(DropReason::BadRecord)?;
        if bytes.len() > MAX_REVOCATION {
            return Err(DropReason::BadRecord);
        }
        let revocation = self
            .services
            .verify_revocation(bytes)
            .map_err(|_| DropReason::ForgedRecord)?;
        let key = revocation_key(&revocation.key);
        if head[..8] != key.to_be_bytes() || head[8..] != revocation.until.to_be_bytes() {
            return Err(DropReason::BadRecord);
        }
        if revocation.until < self.services.unix_now() {
            return Err(DropReason::Revoked);
        }
        let known = self.revocations.get(&key);
        let ours = known.map(|known| (known.revocation.until, &known.record[..]));
        if ours >= Some((revocation.until, record)) {
            return Ok(());
        }
        if known.is_none() && self.revocations.len() >= self.max_revocations {
            // those that are needed longest stay: in the end all routers have the same
            let by_time = |(key, revoked): (&u64, &Revoked)| (revoked.revocation.until, *key);
            match self.revocations.iter().map(by_time).min() {
                Some(first) if first < (revocation.until, key) => self.remove_revocation(first.1),
                _ => return Err(DropReason::DatabaseFull),
            }
        }
        let revoked = Revoked {
            revocation,
            record: Bytes::copy_from_slice(record),
        };
        self.revocations.insert(key, revoked);
        self.revoked.insert(revocation.key);
        let kind = KIND_REVOCATION;
        self.flood(RecordId { key, kind }, from);
        let event = DatabaseEvent::Revoked(revocation.key, Bytes::copy_from_slice(bytes));
        self.events.push(event);
        let revoked: Vec<OriginId> = self
            .routers()
            .filter(|(_, router)| self.goes_by_revoked(router.credential()))
            .map(|(origin, _)| origin)
            .collect();
        for origin in revoked {
            self.remove_router(origin);
        }
        self.check_clock();
        self.version += 1;
        Ok(())
    }

    fn remove_revocation(&mut self, key: u64) {
        if let Some(revoked) = self.revocations.remove(&key) {
            self.revoked.remove(&revoked.revocation.key);
            let kind = KIND_REVOCATION;
            self.unflood(RecordId { key, kind });
        }
    }

    fn goes_by_revoked(&self, credential: &Credential) -> bool {
        self.revoked.contains(&credential.member.peer)
            || credential.keys.iter().any(|key| self.revoked.contains(key))
    }

    /// Forgets a router; never this one.
    fn remove_router(&mut self, origin: OriginId) {
        if origin == self.own.router.origin {
            return;
        }
        let advertisement = self
            .routers
            .get(&origin)
            .and_then(|r| r.advertisement.clone());
        if let Some(advertisement) = advertisement {
            self.count_links(&advertisement, false);
        }
        let Some(router) = self.routers.remove(&origin) else {
            return;
        };
        let not_after = router.credential().member.not_after;
        self.expiries.remove(&(not_after, origin));
        self.waiting.remove(&origin);
        if router.reachable {
            self.events.push(DatabaseEvent::RouterDown(origin));
            self.roots_changed = true;
        }
        self.graph_changed = true;
        self.version += 1;
        for kind in [KIND_CREDENTIAL, KIND_ADVERTISEMENT] {
            self.unflood(RecordId {
                key: origin.0,
                kind,
            });
        }
    }

    /// Whether there is room for one more router, if need be in place of the one that is gone longest.
    fn make_room(&mut self) -> bool {
        if self.routers.len() < self.max_routers {
            return true;
        }
        // who is reachable by what has come meanwhile does not have to leave
        self.refresh_graph();
        let own = self.own.router.origin;
        let gone = self
            .routers()
            .filter(|(origin, router)| !router.reachable && *origin != own)
            .map(|(origin, router)| (router.gone_since, origin))
            .min();
        match gone {
            Some((_, origin)) => {
                self.remove_router(origin);
                true
            }
            None => false,
        }
    }

    /// Advertisements whose turn has come.
    fn release_waiting(&mut self) {
        for origin in Vec::from_iter(self.waiting.iter().copied()) {
            let Some(router) = self.routers.get_mut(&origin) else {
                continue;
            };
            if self.now < router.rate.next(ADVERTISEMENT_RATE) {
                continue;
            }
            self.waiting.remove(&origin);
            let Some(waiting) = router.waiting.take() else {
                continue;
            };
            let (link, version, bytes) = *waiting;
            match self.handle_advertisement(link, origin, version, &bytes) {
                Ok(()) => {}
                Err(reason) => {
                    if reason == DropReason::ForgedRecord {
                        self.events.push(DatabaseEvent::Forged(link));
                    }
                    self.events.push(DatabaseEvent::Dropped(reason));
                }
            }
        }
    }

    fn forget_gone(&mut self) {
        let now = self.now;
        let own = self.own.router.origin;
        let is_old = |router: &Router| !router.reachable && now >= router.gone_since + FORGET_AFTER;
        let old: Vec<OriginId> = self
            .routers()
            .filter(|(origin, router)| is_old(router) && *origin != own)
            .map(|(origin, _)| origin)
            .collect();
        for origin in old {
            self.remove_router(origin);
        }
        self.graph_changed = true;
    }

    /// Certificates and revocations whose time is over leave.
    fn expire(&mut self) {
        let unix = self.services.unix_now();
        let own = self.own.router.origin;
        let expired: Vec<OriginId> = self
            .expiries
            .iter()
            .take_while(|(not_after, _)| not_after.saturating_add(CLOCK_SKEW) < unix)
            .map(|(_, origin)| *origin)
            .filter(|origin| *origin != own)
            .collect();
        for origin in expired {
            self.remove_router(origin);
        }
        let over = |revoked: &Revoked| revoked.revocation.until < unix;
        let over: Vec<u64> = self
            .revocations
            .iter()
            .filter(|(_, revoked)| over(revoked))
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            self.remove_revocation(key);
        }
        self.check_clock();
    }

    /// When something expires next.
    fn check_clock(&mut self) {
        let unix = self.services.unix_now();
        let own = self.own.router.origin;
        let credential = self
            .expiries
            .iter()
            .find(|(_, origin)| *origin != own)
            .map(|(not_after, _)| not_after.saturating_add(CLOCK_SKEW));
        let revocations = self.revocations.values().map(|r| r.revocation.until);
        let next = credential.into_iter().chain(revocations).min();
        self.clock_at = next.map(|next| {
            let left = Duration::from_secs(next.saturating_sub(unix).saturating_add(1));
            self.now + left.min(CLOCK_CHECK)
        });
    }

    fn reason(&self, error: RecordError) -> DropReason {
        match error {
            RecordError::Malformed(_) => DropReason::BadRecord,
            RecordError::Forged => DropReason::ForgedRecord,
            RecordError::Refused(reason) => {
                tracing::debug!(reason, "credential refused");
                DropReason::CredentialRefused
            }
        }
    }
}

/// What goes out.
impl Database {
    /// All neighbours but one have to know.
    fn flood(&mut self, id: RecordId, from: Option<LinkId>) {
        for (link, state) in &mut self.links {
            if Some(*link) == from {
                state.remove(id);
            } else {
                state.push_news(id);
            }
        }
    }

    fn unflood(&mut self, id: RecordId) {
        for link in self.links.values_mut() {
            link.remove(id);
        }
    }

    fn push_summary(&mut self, link: LinkId, summary: Summary) {
        if let Some(link) = self.links.get_mut(&link) {
            link.push_summary(summary);
        }
    }

    fn next_record(&mut self, link: LinkId) -> Option<Record> {
        loop {
            let id = self.links.get_mut(&link)?.next_record(self.now)?;
            let Some((_, bytes)) = self.stored(id) else {
                continue;
            };
            let bytes = bytes.clone();
            self.links.get_mut(&link)?.sent(bytes.len(), self.now);
            return Some(Record {
                kind: id.kind,
                bytes,
            });
        }
    }

    /// Names and versions of what we have with keys in this range; of routers that are not reachable
    /// only if asked for.
    fn entries(&self, from: u64, to: u64, unreachable: bool) -> Vec<SummaryEntry> {
        let entry = |key, kind, version| SummaryEntry {
            id: RecordId { key, kind },
            version,
        };
        let own = self.own.router.origin;
        let mut entries = Vec::new();
        for (origin, router) in self.routers.range(OriginId(from)..=OriginId(to)) {
            if !router.reachable && !unreachable && *origin != own {
                continue;
            }
            let version = router.credential.version();
            entries.push(entry(origin.0, KIND_CREDENTIAL, version));
            if let Some(advertisement) = &router.advertisement {
                let version = advertisement.version();
                entries.push(entry(origin.0, KIND_ADVERTISEMENT, version));
            }
        }
        for (key, revoked) in self.revocations.range(from..=to) {
            let version = Version(revoked.revocation.until);
            entries.push(entry(*key, KIND_REVOCATION, version));
        }
        entries.sort_unstable_by_key(|entry| entry.id);
        entries
    }

    fn sums(&self) -> [u64; BUCKETS] {
        let mut sums = [0; BUCKETS];
        for entry in self.entries(0, u64::MAX, false) {
            add_to(&mut sums, &entry);
        }
        sums
    }

    /// The neighbour says what it has: it gets what it lacks. Routers that we cannot reach are not
    /// passed on: who has forgotten them does not hear of them again.
    fn answer(
        &mut self,
        link: LinkId,
        (from, to): (u64, u64),
        last: bool,
        theirs: &[SummaryEntry],
    ) {
        if from > to {
            return;
        }
        let ours = self.entries(from, to, false);
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        for entry in ours {
            let known = theirs
                .binary_search_by_key(&entry.id, |theirs| theirs.id)
                .ok()
                .map(|at| theirs[at].version);
            if known < Some(entry.version) {
                state.push_lacking(entry.id);
            }
        }
        if last {
            state.push_end();
        }
    }

    /// Asks the first neighbour whose sums are not ours, if no other is being asked.
    fn ask_neighbor(&mut self) {
        if self.asked.is_some() || self.links.values().all(|l| l.digest.is_none()) {
            return;
        }
        let sums = self.sums();
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            let digest = self.links.get_mut(&id).and_then(|link| link.digest.take());
            let Some(digest) = digest else {
                continue;
            };
            let mut parts = Vec::new();
            for (from, to) in differing(&sums, &digest) {
                let entries = self.entries(from, to, true);
                have(from, to, &entries, &mut parts);
            }
            let Some(Summary::Have { last, .. }) = parts.last_mut() else {
                continue;
            };
            *last = true;
            for part in parts {
                self.push_summary(id, part);
            }
            self.asked = Some((id, self.now + ANSWER_WITHIN));
            return;
        }
    }

    /// Something is missing: if it does not come by itself, neighbours are asked.
    fn ask_later(&mut self, refused: bool) {
        self.refused |= refused;
        if self.ask_at.is_none() {
            self.ask_at = Some(self.now + self.ask_after);
        }
    }

    /// Asks a neighbour for its sums if a router is missing that reachable ones name, or something was
    /// refused. The next time is twice as far away.
    fn ask_for_missing(&mut self) {
        let unknown = |to: OriginId| {
            self.routers
                .get(&to)
                .is_none_or(|r| r.advertisement.is_none())
        };
        let missing = self
            .routers
            .values()
            .filter(|router| router.reachable)
            .filter_map(|router| router.advertisement.as_ref())
            .any(|advertisement| advertisement.links().any(|(to, _)| unknown(to)));
        let missing = missing || !self.aside.is_empty();
        if !missing && !self.refused {
            self.ask_after = ASK_FIRST;
            return;
        }
        self.refused = false;
        self.ask_after = (self.ask_after * 2).min(ASK_LAST);
        self.ask_at = Some(self.now + self.ask_after);
        // another one each time
        let Some(turn) = self.link_of_turn() else {
            return;
        };
        let buckets = Box::new(self.sums());
        self.push_summary(turn, Summary::Digest { ask: true, buckets });
    }

    /// The link whose turn it is to be asked: the delay before, a power of two, counts the turns.
    fn link_of_turn(&self) -> Option<LinkId> {
        let turn = self.ask_after.as_secs().max(1).ilog2() as usize;
        let at = turn.checked_rem(self.links.len())?;
        self.links.keys().nth(at).copied()
    }
}

/// Conclusions.
impl Database {
    /// Draws all conclusions from what has come in. Costs nothing if nothing has changed.
    pub fn update(&mut self) {
        // the own advertisement changes what it follows from; what it says is settled after two turns
        for _ in 0..4 {
            self.refresh_graph();
            self.refresh_roots();
            self.review_own();
            if !self.advertise() {
                break;
            }
        }
        self.ask_neighbor();
    }

    fn graph_digest(&self) -> u64 {
        let own = self.own.router.origin;
        let alone = self.routers.get(&own).is_none_or(|r| r.links == 0);
        // the graph contains us even without links
        self.digest ^ if alone { router_digest(own) } else { 0 }
    }

    fn refresh_graph(&mut self) {
        if !std::mem::take(&mut self.graph_changed) {
            return;
        }
        let digest = self.graph_digest();
        if digest != self.graph.digest() {
            let (own, routers) = (self.own.router.origin, &self.routers);
            self.graph = self
                .services
                .graph(digest, &mut || build_graph(digest, own, routers));
            self.graph_version += 1;
            self.version += 1;
        }
        self.refresh_reachable();
    }

    fn refresh_reachable(&mut self) {
        let own = self.own.router.origin;
        let graph = Arc::clone(&self.graph);
        let mut reachable = graph.reachable(own).peekable();
        let mut oldest = None;
        for (origin, router) in &mut self.routers {
            while reachable.next_if(|next| next < origin).is_some() {}
            let is = reachable.next_if_eq(origin).is_some();
            if is != router.reachable {
                router.reachable = is;
                self.roots_changed = true;
                self.version += 1;
                self.events.push(if is {
                    DatabaseEvent::RouterUp(*origin)
                } else {
                    router.gone_since = self.now;
                    DatabaseEvent::RouterDown(*origin)
                });
            }
            if !is {
                let gone = *oldest.get_or_insert(router.gone_since);
                oldest = Some(router.gone_since.min(gone));
            }
        }
        self.forget_at = oldest.map(|gone| gone + FORGET_AFTER);
    }

    fn refresh_roots(&mut self) {
        if !std::mem::take(&mut self.roots_changed) {
            return;
        }
        let candidates: Vec<Candidate> = self
            .routers()
            .filter_map(|(origin, router)| router.candidate(origin))
            .collect();
        let mut announced: BTreeMap<GroupPrefix, Vec<(OriginId, bool)>> = BTreeMap::new();
        for (origin, router) in self.routers().filter(|(_, r)| r.reachable) {
            for one in router.announced() {
                let announcers = announced.entry(one.prefix).or_default();
                announcers.push((origin, one.claimed));
            }
        }
        let mut lengths: Vec<u8> = announced.keys().map(GroupPrefix::prefix_len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        let elected = |(prefix, announcers): (GroupPrefix, Vec<(OriginId, bool)>)| {
            let root = elect_announcer(&prefix, &announcers)?;
            let announcers = announcers.into_iter().map(|(origin, _)| origin).collect();
            Some((prefix, AnnouncedPrefix { root, announcers }))
        };
        let roots = Roots {
            slots: [0, 1, 2, 3].map(|slot| elect_slot(slot, &candidates)),
            prefixes: announced.into_iter().filter_map(elected).collect(),
            lengths,
        };
        if roots != self.roots {
            let slots = |roots: &Roots| roots.slots.map(|slot| slot.elected);
            let same = slots(&roots) == slots(&self.roots) && roots.prefixes == self.roots.prefixes;
            self.roots = roots;
            if !same {
                self.roots_version += 1;
                self.version += 1;
                self.events.push(DatabaseEvent::RootsChanged);
            }
        }
    }

    /// What this router wants to say may follow from what others say.
    fn review_own(&mut self) {
        let now = self.now;
        let digest = self.graph.digest();
        if self.own.must_place(digest, now) {
            let tree = self.services.tree(&self.graph, self.own.router.origin);
            let mean = tree.and_then(|tree| tree.mean_distance());
            self.own.place(digest, mean, now);
            // says when to look again
            self.own.must_place(digest, now);
        }
        let routers = &self.routers;
        let candidate = |origin: OriginId| routers.get(&origin)?.candidate(origin);
        self.own.review_slots(&self.roots.slots, candidate, now);
        let prefixes = &self.roots.prefixes;
        let root = |prefix: &GroupPrefix| prefixes.get(prefix).map(|p| p.root);
        self.own.review_prefixes(root, now);
    }

    /// Signs and floods what has changed, if it is time; true if there was something.
    fn advertise(&mut self) -> bool {
        let origin = self.own.router.origin;
        let Some(router) = self.routers.get(&origin) else {
            return false;
        };
        let mut costs: BTreeMap<OriginId, u16> = BTreeMap::new();
        for link in self.links.values().filter(|link| link.neighbor != origin) {
            let cost = link.cost.get();
            let least = costs.entry(link.neighbor).or_insert(cost);
            *least = cost.min(*least);
        }
        let links = costs.into_iter().take(MAX_LINKS).collect();
        let permitted = &router.credential().member.prefixes;
        let content = self.own.content(permitted, links);
        if !self.own.say(&content, self.now) {
            return false;
        }
        let version = self.own.next_version();
        match Advertisement::sign(origin, version, &content, &*self.services) {
            Ok(advertisement) => {
                self.store_advertisement(Arc::new(advertisement), None);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "own advertisement cannot be built");
                false
            }
        }
    }

    fn sign_credential(&mut self, version: Version) -> Result<(), &'static str> {
        let origin = self.own.router.origin;
        let chain = &self.own.router.chain;
        match CredentialRecord::sign(origin, version, chain, &*self.services) {
            Ok(record) => {
                self.store_credential(origin, Arc::new(record), None);
                Ok(())
            }
            Err(RecordError::Refused(reason)) => Err(reason),
            Err(RecordError::Malformed(_)) => Err("certificates of another node"),
            Err(RecordError::Forged) => Err("certificates for another key"),
        }
    }

    /// A record of ours that is newer than we made it.
    fn overtaken(&mut self, kind: u8, bytes: &[u8], version: Version) -> Result<(), DropReason> {
        let Some(router) = self.routers.get(&self.own.router.origin) else {
            return Ok(());
        };
        let peer = router.credential().member.peer;
        if kind == KIND_ADVERTISEMENT {
            let seen = self.services.verify_advertisement(&peer, bytes);
            seen.map_err(|error| self.reason(error))?;
            if self.own.overtake(version) {
                tracing::warn!(
                    incarnation = self.own.router.incarnation,
                    "own advertisement of a later incarnation seen: was the state directory lost?"
                );
            }
            return Ok(());
        }
        let seen = self.services.verify_credential(bytes);
        seen.map_err(|error| self.reason(error))?;
        if version.0 == u64::MAX {
            return Err(DropReason::BadRecord);
        }
        self.sign_credential(Version(version.0 + 1))
            .map_err(|_| DropReason::CredentialRefused)
    }
}

fn build_graph(digest: u64, own: OriginId, routers: &BTreeMap<OriginId, Router>) -> Graph {
    let linked: Vec<(OriginId, &Advertisement)> = routers
        .iter()
        .filter(|(_, router)| router.links > 0)
        .filter_map(|(origin, router)| Some((*origin, &**router.advertisement.as_ref()?)))
        .collect();
    let mut links = Vec::with_capacity(linked.len() * 4);
    for (origin, advertisement) in &linked {
        for (to, cost) in advertisement.links().filter(|(to, _)| to > origin) {
            let far = linked.binary_search_by_key(&to, |(far, _)| *far);
            let back = far.ok().and_then(|far| linked[far].1.cost_to(*origin));
            if let Some(back) = back {
                links.push((*origin, to, cost.max(back)));
            }
        }
    }
    Graph::new(digest, [own], &links)
}
