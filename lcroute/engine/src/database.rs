//! The link state: what every router of the network says of itself, flooded and signed, and what
//! follows from it: the graph, who is reachable, who is the root of what.
//!
//! ```text
//! handle_lsa --> newer than ours? --> signature, certificates, rates --> stored --> other links
//!                      no: nothing, or ours goes back                         |
//!                                              graph <-- reachable, elections-+--> own advertisement
//! ```
//!
//! Inputs change the records; [`Database::update`] draws the conclusions. [`Database::graph`],
//! [`Database::take_events`] and [`Database::take_messages`] call it, the other questions are answered
//! as of the last time.

mod advertisement;
mod bucket;
mod conclude;
mod cost;
mod election;
mod exchange;
mod flooding;
mod intake;
mod offers;
mod own;
mod record;
mod summary;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::sync::Arc;

use bucket::{Bucket, Rate};
use bytes::Bytes;
use election::{Eligible, RpElection, group_range};
use flooding::{FloodScope, LinkQueue, LinkQueues, SUMMARY_RATE, VERIFY_RATE};
use librecast::cert::{CertError, GroupPrefix};
use librecast::id::{LinkId, OriginId, PeerId};
use librecast::revocation::RevocationError;
use librecast::time::{Duration, Instant};
use librecast::wire::Writer;
use offers::IhaveSchedule;
use own::Origination;
use record::{first_version, peek, revocation_key};
use thiserror::Error;

use crate::config::Limits;
use crate::drops::DropReason;
use crate::graph::{Graph, Tree, router_digest};
use crate::names::RouterMap;
use crate::services::{Credential, Revocation, Services};

pub use advertisement::{
    Advertisement, Announced, FLAG_CORE, FLAG_ISSUER, FLAG_UNICAST, MAX_LINKS, MAX_PREFIXES,
    UNKNOWN_CENTRALITY,
};
pub use election::GROUP_RANGES;
pub use flooding::LinkStanding;
pub use own::LocalRouter;
pub use record::{
    CredentialLsa, KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, Lsa, LsaError, LsaId,
    MAX_REVOCATION, Version,
};
pub use summary::{BUCKETS, Summary, SummaryEntry};

/// Advertisements of one router that are taken in: more wait for their turn, and only the newest.
const ADVERTISEMENT_RATE: Rate = Rate {
    burst: 16,
    interval: Duration::from_secs(1),
};
/// Changes that come closer together than this times the number of routers are last_spf from together, and
/// passed on together if they are not urgent. While routers differ packets get lost, so nobody waits without need.
const SPF_DELAY_PER_ROUTER: Duration = Duration::from_micros(100);
/// Of that gap only so much where healing waits.
const URGENT_SPF_DIVISOR: u32 = 4;
/// While changes do not cease the gap doubles, up to this times as much; urgent ones do not wait for it.
const MAX_SPF_BACKOFF: u32 = 10;
/// Routers up to which that costs next to nothing.
const SMALL_NETWORK: usize = 64;
/// Routers that cannot be reached are remembered so long.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// After these times neighbours are asked for what is missing: the first, doubled up to the last.
const FIRST_ASK_DELAY: Duration = Duration::from_secs(1);
const MAX_ASK_DELAY: Duration = Duration::from_secs(3_600);

/// Why this node's certificates are not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OwnChainError {
    /// The certificates do not count.
    #[error(transparent)]
    Chain(#[from] CertError),
    /// The certificates name another node.
    #[error("certificates of another node")]
    OtherNode,
    /// The certificates are for another key than this node's.
    #[error("certificates for another key")]
    OtherKey,
}

/// Why a revocation is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddRevocationError {
    /// The revocation does not count.
    #[error(transparent)]
    Invalid(#[from] RevocationError),
    /// As many revocations as [`crate::Limits::revocations`] are kept longer.
    #[error("too many revocations")]
    TooMany,
    /// Every certificate that it concerns has expired, or it is longer than [`MAX_REVOCATION`].
    #[error("it has expired, or is too long")]
    ExpiredOrTooLong,
}

/// What is sent over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A RECORD element.
    Lsa(Lsa),
    /// A SUMMARY element.
    Summary(Summary),
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseEvent {
    /// LinkQueues lead to this router now.
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
    /// RendezvousPoints of slots or announced prefixes are others than before.
    RpsChanged,
    /// Something that had been taken in was dropped later, or in part.
    Dropped(DropReason),
    /// The neighbour passed on what its router did not sign.
    Forged(LinkId),
}

/// A router of the network: its certificates and what it says of itself.
#[derive(Debug)]
pub struct Router {
    credential: Arc<CredentialLsa>,
    advertisement: Option<Arc<Advertisement>>,
    reachable: bool,
    /// When it ceased to be reachable, if it is not.
    gone_since: Instant,
    /// LinkQueues that both ends claim.
    links: u16,
    rate: Bucket,
    /// The newest advertisements that have to wait, one of a neighbour.
    waiting: Vec<DeferredLsa>,
}

impl Router {
    /// What its certificates prove.
    #[must_use]
    pub fn credential(&self) -> &Arc<Credential> {
        self.credential.credential()
    }

    /// Its certificates as they are flooded.
    #[must_use]
    pub fn credential_lsa(&self) -> &CredentialLsa {
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

    /// Whether it may be the root of shared trees before others: it and its certificate try_originate so.
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

    fn candidate(&self, origin: OriginId) -> Option<Eligible> {
        let advertisement = self.advertisement.as_ref()?;
        let candidacies = (0..GROUP_RANGES).filter(|&slot| advertisement.candidacies(slot));
        self.reachable.then(|| Eligible {
            origin,
            candidacies: candidacies.map(|slot| 1 << slot).sum(),
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
struct RendezvousPoints {
    slots: [RpElection; GROUP_RANGES as usize],
    prefixes: BTreeMap<GroupPrefix, AnnouncedPrefix>,
    /// Lengths of the prefixes, the longest first.
    lengths: Vec<u8>,
}

#[derive(Debug)]
struct Revoked {
    revocation: Revocation,
    record: Bytes,
}

/// An advertisement whose turn comes later.
#[derive(Debug)]
struct DeferredLsa {
    link: LinkId,
    version: Version,
    bytes: Bytes,
}

/// An advertisement whose router is not known yet.
#[derive(Debug)]
struct OrphanLsa {
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
    pub orphans: usize,
}

/// The link state as one router has it.
#[derive(Debug)]
pub struct Database {
    services: Arc<dyn Services>,
    max_routers: usize,
    max_revocations: usize,
    own: Origination,
    routers: RouterMap<Router>,
    /// When certificates expire, Unix seconds.
    expiries: BTreeSet<(u64, OriginId)>,
    revocations: BTreeMap<u64, Revoked>,
    /// The same by key, and whether the network signed.
    revoked: BTreeSet<(PeerId, bool)>,
    orphans: BTreeMap<(OriginId, LinkId), OrphanLsa>,
    /// Routers with an advertisement that waits.
    waiting: BTreeSet<OriginId>,
    links: LinkQueues,
    offers: IhaveSchedule,
    /// Sum over all links that both ends claim.
    digest: u64,
    /// What has become of them since the graph was built, from the lower router to the higher: what they cost
    /// now, or that they are gone.
    link_changes: BTreeMap<(OriginId, OriginId), Option<u16>>,
    graph: Arc<Graph>,
    /// The tree that news go along.
    flood_tree: Option<Arc<Tree>>,
    /// The graph, or who belongs to it, has changed.
    graph_changed: bool,
    roots: RendezvousPoints,
    rps_changed: bool,
    /// Which set of routers was found reachable, if none came or went since.
    reached: Option<u64>,
    /// How many they are.
    reachable: usize,
    /// Before, no conclusions are drawn.
    spf_at: Instant,
    /// When they were last drawn, and how long after it they are not.
    last_spf: Instant,
    spf_delay: Duration,
    /// From then on news are passed on in pacing.
    started: Instant,
    /// The neighbour that was asked for what we lack, and until when it may handle_have.
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
    rps_version: u64,
    credentials_version: u64,
    /// There was input since conclusions were drawn.
    touched: bool,
    /// This router may have something else to try_originate than before.
    own_stale: bool,
    now: Instant,
}

/// Inputs.
impl Database {
    /// A database that knows this router alone.
    #[must_use]
    pub fn new(
        own: LocalRouter,
        limits: &Limits,
        services: Arc<dyn Services>,
        now: Instant,
    ) -> Self {
        let origin = own.origin;
        let chain = own.chain.clone();
        let graph = Graph::new(router_digest(origin), [origin], &[]);
        let mut database = Self {
            services,
            max_routers: limits.routers.max(1),
            max_revocations: limits.revocations,
            own: Origination::new(own, now),
            routers: RouterMap::default(),
            expiries: BTreeSet::new(),
            revocations: BTreeMap::new(),
            revoked: BTreeSet::new(),
            orphans: BTreeMap::new(),
            waiting: BTreeSet::new(),
            links: LinkQueues::default(),
            offers: IhaveSchedule::default(),
            digest: 0,
            link_changes: BTreeMap::new(),
            graph: Arc::new(graph),
            flood_tree: None,
            graph_changed: true,
            roots: RendezvousPoints::default(),
            rps_changed: true,
            reached: None,
            reachable: 0,
            spf_at: now,
            last_spf: now,
            spf_delay: Duration::ZERO,
            started: now,
            asked: None,
            ask_at: None,
            ask_after: FIRST_ASK_DELAY,
            refused: false,
            forget_at: None,
            clock_at: None,
            events: Vec::new(),
            version: 0,
            graph_version: 0,
            rps_version: 0,
            credentials_version: 0,
            touched: true,
            own_stale: true,
            now,
        };
        if let Err(error) = database.set_own_chain(chain, now) {
            tracing::warn!(
                %error,
                "own certificates do not count: others cannot see this node"
            );
        }
        database.update();
        // nobody has to be told what is so from the start
        database.events.clear();
        database
    }

    fn turn(&mut self, now: Instant) {
        self.hear(now);
        self.own_stale = true;
    }

    /// A neighbour originated something.
    fn hear(&mut self, now: Instant) {
        // it may come just before the timer
        let own = self.own.next_timeout(self.now);
        self.own_stale |= own.is_some_and(|at| at <= now);
        self.now = now;
        self.touched = true;
    }

    /// A link is up.
    pub fn link_up(&mut self, link: LinkId, neighbor: OriginId, now: Instant) {
        self.turn(now);
        let state = LinkQueue::new(self.own.router.origin, neighbor, now);
        self.links.insert(link, state);
        self.own.set_linked(true, now);
    }

    /// A link is gone.
    pub fn link_down(&mut self, link: LinkId, now: Instant) {
        self.turn(now);
        self.links.remove(link);
        self.hasten_spf();
        // until there is another tree
        self.links.set_flood_scopes(|_| FloodScope::EitherEnd);
        self.asked.take_if(|(asked, _)| *asked == link);
        self.own.set_linked(!self.links.is_empty(), now);
    }

    /// What the ends of a link think of it. Others hear of it as soon as it has been wanted, or where no other
    /// way leads to the neighbour.
    pub fn set_standing(&mut self, link: LinkId, standing: LinkStanding, now: Instant) {
        self.turn(now);
        if let Some(link) = self.links.get_mut(&link) {
            link.standing = standing;
        }
    }

    /// The round-trip time of a link was measured.
    pub fn set_rtt(&mut self, link: LinkId, rtt: Duration, now: Instant) {
        self.hear(now);
        if let Some(link) = self.links.get_mut(&link) {
            self.own_stale |= link.cost.set(rtt, now);
        }
    }

    /// A record from a neighbour.
    pub fn handle_lsa(
        &mut self,
        link: LinkId,
        kind: u8,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        self.hear(now);
        if !self.links.contains_key(&link) {
            return Err(DropReason::UnknownLink);
        }
        let Some((key, version)) = peek(kind, bytes).map_err(|_| DropReason::BadLsa)? else {
            // a kind of a later version: without knowing it we cannot pass it on
            return Ok(());
        };
        let id = LsaId { key, kind };
        if let Some((known, stored)) = self.stored(id)
            && (version, bytes) <= (known, &stored[..])
        {
            let same = bytes == &stored[..];
            if same {
                self.note_known(id, link);
            } else if let Some(state) = self.links.get_mut(&link) {
                state.push_pending(id);
            }
            return Ok(());
        }
        let rate = |state: &mut LinkQueue| state.verify.take(VERIFY_RATE, now);
        if !self.links.get_mut(&link).is_some_and(rate) {
            self.ask_later(true);
            return Err(DropReason::FloodLimited);
        }
        match kind {
            _ if kind != KIND_REVOCATION && key == self.own.router.origin.0 => {
                self.superseded(kind, bytes, version)
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
        self.hear(now);
        let Some(state) = self.links.get_mut(&link) else {
            return Err(DropReason::UnknownLink);
        };
        if !state.summarize.take(SUMMARY_RATE, now) {
            return Err(DropReason::FloodLimited);
        }
        match summary {
            Summary::Digest { ask, buckets } => {
                // it may cost us a long handle_have
                state.summarize.spend(SUMMARY_RATE, 15, now);
                state.digest = Some(buckets.clone());
                if *ask {
                    self.send_digest(link, false);
                }
            }
            Summary::Have {
                from,
                to,
                last,
                entries,
            } => self.handle_have(link, (*from, *to), *last, entries),
            Summary::End => {
                self.asked.take_if(|(asked, _)| *asked == link);
            }
            Summary::IHave(entries) => self.handle_ihave(link, entries),
            Summary::IWant(ids) => self.handle_iwant(link, ids),
        }
        Ok(())
    }

    /// This router announces these groups from now on; those outside its certificate, and more than
    /// [`MAX_PREFIXES`], are not originated.
    pub fn set_announced(&mut self, announced: BTreeSet<GroupPrefix>, now: Instant) {
        self.turn(now);
        self.own.router.announced = announced;
    }

    /// This router has these flags from now on: [`FLAG_CORE`] and others.
    pub fn set_flags(&mut self, flags: u8, now: Instant) {
        self.turn(now);
        self.own.router.flags = flags;
    }

    /// This router has these certificates from now on.
    ///
    /// # Errors
    ///
    /// The chain does not count, or is not this node's. The certificates of before stay.
    pub fn set_own_chain(&mut self, chain: Bytes, now: Instant) -> Result<(), OwnChainError> {
        self.turn(now);
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
    ///
    /// # Errors
    ///
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

    /// To be called when the time of [`Self::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.hear(now);
        for id in self.links.due(now) {
            if let Some(link) = self.links.get_mut(&id) {
                self.own_stale |= link.cost.handle_timeout(now);
                link.release(now);
            }
        }
        self.release_ihaves();
        self.orphans.retain(|_, orphans| now < orphans.until);
        self.asked.take_if(|(_, until)| now >= *until);
        self.release_deferred();
        if self.forget_at.take_if(|at| now >= *at).is_some() {
            self.forget_gone();
        }
        if self.clock_at.take_if(|at| now >= *at).is_some() {
            self.expire();
        }
        if self.ask_at.take_if(|at| now >= *at).is_some() {
            self.ask_for_missing();
        }
        for id in self.links.due(now) {
            let at = self.links.get(&id).and_then(|link| link.resync_at);
            if at.is_some_and(|at| at <= now) {
                self.send_digest(id, false);
            }
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
        let times = [
            self.own.next_timeout(self.now),
            self.asked.map(|(_, until)| until),
            self.ask_at,
            self.offers.next_timeout(),
            self.forget_at,
            self.clock_at,
            (self.graph_changed || self.rps_changed).then_some(self.spf_at),
            self.orphans.values().map(|orphans| orphans.until).min(),
            waiting.map(|r| r.rate.next(ADVERTISEMENT_RATE)).min(),
            self.links.next_timeout(),
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
        let mut messages = Vec::new();
        for id in self.links.busy() {
            while let Some(record) = self.next_record(id) {
                messages.push((id, Message::Lsa(record)));
            }
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            while let Some(summary) = link.next_summary() {
                messages.push((id, Message::Summary(summary)));
            }
            while let Some(offer) = self.next_ihave(id) {
                messages.push((id, Message::Summary(offer)));
            }
        }
        self.links.look();
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

    /// Rises with every change of the graph, and of who is reachable.
    #[must_use]
    pub fn graph_version(&self) -> u64 {
        self.graph_version
    }

    /// Rises with every change of the roots of slots and prefixes, and of who announces these.
    #[must_use]
    pub fn rps_version(&self) -> u64 {
        self.rps_version
    }

    /// Rises whenever a router's certificates come, change or go.
    #[must_use]
    pub fn credentials_version(&self) -> u64 {
        self.credentials_version
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
        self.routers.iter()
    }

    /// Whether links lead to this router.
    #[must_use]
    pub fn is_reachable(&self, origin: OriginId) -> bool {
        self.routers.get(&origin).is_some_and(|r| r.reachable)
    }

    /// How many routers links lead to, this one included.
    #[must_use]
    pub fn reachable_count(&self) -> usize {
        self.reachable
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
    pub fn rp(&self, slot: u8) -> Option<OriginId> {
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
            None => self.rp(group_range(group)),
        }
    }

    /// All announced prefixes in ascending order.
    pub fn announced(&self) -> impl Iterator<Item = (&GroupPrefix, &AnnouncedPrefix)> {
        self.roots.prefixes.iter()
    }

    /// Whether certificates that go by this key do not count.
    #[must_use]
    pub fn is_revoked(&self, key: &PeerId) -> bool {
        [true, false].map(|by| self.revoked.contains(&(*key, by))) != [false; 2]
    }

    /// How much there is.
    #[must_use]
    pub fn tables(&self) -> DatabaseTables {
        DatabaseTables {
            routers: self.routers.len(),
            reachable: self.reachable,
            revocations: self.revocations.len(),
            orphans: self.orphans.len(),
        }
    }
}
