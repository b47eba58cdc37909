//! The LSAs that a router has: credentials and advertisements by router, and revocations.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use librecast::cert::{CLOCK_SKEW, Member};
use librecast::id::{LinkId, OriginId, PeerId};
use librecast::time::{Instant, UnixTime};

use super::advertisement::{Advertisement, Announced, FLAG_CORE};
use super::credential::CredentialLsa;
use super::election::{Eligible, GROUP_RANGES, Tier};
use super::lsa::{KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, LsaId, Version};
use super::summary::{BUCKETS, SummaryEntry, add_to};
use crate::config::Limits;
use crate::router_index::RouterMap;
use crate::services::{Credential, Revocation};
use librecast::bucket::Bucket;

/// A router of the network: its certificates and its advertisement.
#[derive(Debug)]
pub struct Router {
    pub(super) credential: Arc<CredentialLsa>,
    pub(super) advertisement: Option<Arc<Advertisement>>,
    pub(super) reachable: bool,
    /// Time at which it became unreachable, if it is.
    pub(super) gone_since: Instant,
    /// Links that both ends advertise.
    pub(super) links: u16,
    pub(super) rate: Bucket,
    /// The newest advertisements beyond the rate, one per neighbour.
    pub(super) deferred: Vec<DeferredLsa>,
}

/// An advertisement beyond its router's rate; its signature is not verified.
#[derive(Debug)]
pub(super) struct DeferredLsa {
    pub link: LinkId,
    pub version: Version,
    pub bytes: Bytes,
}

impl Router {
    fn new(credential: Arc<CredentialLsa>, now: Instant) -> Self {
        Self {
            credential,
            advertisement: None,
            reachable: false,
            gone_since: now,
            links: 0,
            rate: Bucket::full(now),
            deferred: Vec::new(),
        }
    }

    /// The verified content of its certificates.
    pub fn credential(&self) -> &Arc<Credential> {
        self.credential.credential()
    }

    /// Its certificates as they are flooded.
    pub fn credential_lsa(&self) -> &CredentialLsa {
        &self.credential
    }

    /// Its advertisement; `None` until one is received.
    pub fn advertisement(&self) -> Option<&Arc<Advertisement>> {
        self.advertisement.as_ref()
    }

    /// Whether links lead to it.
    pub fn is_reachable(&self) -> bool {
        self.reachable
    }

    /// Whether it may be a rendezvous point before other routers, by advertisement and certificate.
    pub fn is_core(&self) -> bool {
        self.has_flag(FLAG_CORE) && self.credential().member.core
    }

    /// Whether its advertisement has this flag.
    pub fn has_flag(&self, flag: u8) -> bool {
        let advertisement = self.advertisement.as_ref();
        advertisement.is_some_and(|a| a.flags() & flag != 0)
    }

    /// The group prefixes that it announces and that its certificate permits.
    pub fn announced(&self) -> impl Iterator<Item = Announced> + '_ {
        let permitted = &self.credential().member.prefixes;
        let prefixes = self.advertisement.iter().flat_map(|a| a.prefixes());
        prefixes
            .filter(|announced| permitted.iter().any(|p| p.covers(&announced.prefix)))
            .copied()
    }

    /// Its properties for RP elections, if it takes part.
    pub(super) fn eligible(&self, origin: OriginId) -> Option<Eligible> {
        let advertisement = self.advertisement.as_ref()?;
        let is_stub = advertisement.is_stub();
        let is_candidate = |range: &u8| !is_stub && advertisement.is_candidate(*range);
        let candidacies = (0..GROUP_RANGES).filter(is_candidate);
        self.reachable.then(|| Eligible {
            origin,
            candidacies: candidacies.map(|range| 1 << range).sum(),
            tier: match self.is_core() {
                _ if is_stub => Tier::Stub,
                true => Tier::Core,
                false => Tier::Ordinary,
            },
            centrality: advertisement.centrality(),
        })
    }
}

#[derive(Debug)]
pub(super) struct Revoked {
    pub revocation: Revocation,
    pub lsa: Bytes,
}

/// Routers kept beyond the bound of an invitation: issuers expel them. Chosen: a few at once.
pub(super) const NOT_YET_COUNTED: usize = 16;

/// Routers that came by one invitation.
#[derive(Debug, Default)]
struct Invited {
    routers: usize,
    /// The invitation's bound of nodes, from a certificate under it.
    uses: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Store {
    pub own: OriginId,
    max_routers: usize,
    max_revocations: usize,
    pub routers: RouterMap<Router>,
    /// Number of routers by invitation; `None`: those certified by an issuer directly.
    invited: BTreeMap<Option<PeerId>, Invited>,
    /// Expiry of certificates, in Unix seconds.
    expiries: BTreeSet<(u64, OriginId)>,
    pub revocations: BTreeMap<u64, Revoked>,
    /// The revoked keys, and whether the network signed.
    revoked: BTreeSet<(PeerId, bool)>,
    /// Rises whenever certificates are stored, replaced or removed.
    pub credentials_version: u64,
}

impl Store {
    pub fn new(own: OriginId, limits: &Limits) -> Self {
        Self {
            own,
            max_routers: limits.routers.max(1),
            max_revocations: limits.revocations,
            routers: RouterMap::default(),
            invited: BTreeMap::new(),
            expiries: BTreeSet::new(),
            revocations: BTreeMap::new(),
            revoked: BTreeSet::new(),
            credentials_version: 0,
        }
    }

    /// Version and bytes of an LSA that is stored.
    pub fn get(&self, id: LsaId) -> Option<(Version, &Bytes)> {
        match id.kind {
            KIND_REVOCATION => {
                let revoked = self.revocations.get(&id.key)?;
                Some((Version(revoked.revocation.until), &revoked.lsa))
            }
            KIND_CREDENTIAL => {
                let lsa = &self.routers.get(&OriginId(id.key))?.credential;
                Some((lsa.version(), lsa.bytes()))
            }
            KIND_ADVERTISEMENT => {
                let router = self.routers.get(&OriginId(id.key))?;
                let advertisement = router.advertisement.as_ref()?;
                Some((advertisement.version(), advertisement.bytes()))
            }
            _ => None,
        }
    }

    /// Stores certificates. `None`: the router is new; else whether its chain changed.
    pub fn put_credential(
        &mut self,
        origin: OriginId,
        lsa: Arc<CredentialLsa>,
        now: Instant,
    ) -> Option<bool> {
        self.credentials_version += 1;
        let not_after = lsa.credential().member.not_after;
        self.expiries.insert((not_after, origin));
        self.note_invited(&lsa.credential().member);
        let Some(router) = self.routers.get_mut(&origin) else {
            self.routers.insert(origin, Router::new(lsa, now));
            self.check();
            return None;
        };
        let old = std::mem::replace(&mut router.credential, lsa);
        let changed = old.chain() != router.credential.chain();
        let old_not_after = old.credential().member.not_after;
        if old_not_after != not_after {
            self.expiries.remove(&(old_not_after, origin));
        }
        self.forget_invited(&old.credential().member);
        self.check();
        Some(changed)
    }

    /// Asserts that the lists beside the routers agree with them.
    fn check(&self) {
        debug_assert_eq!(
            self.expiries.len(),
            self.routers.len(),
            "each router's certificate expires once"
        );
        let routers = self.invited.values().map(|invited| invited.routers);
        debug_assert_eq!(
            self.routers.len(),
            routers.sum::<usize>(),
            "each router came by one invitation"
        );
    }

    fn note_invited(&mut self, member: &Member) {
        let invited = self.invited.entry(member.invitation().copied());
        let invited = invited.or_default();
        invited.routers += 1;
        if let Some(bound) = member.bound {
            invited.uses = Some(bound.uses);
        }
    }

    fn forget_invited(&mut self, member: &Member) {
        let invitation = member.invitation().copied();
        if let Some(invited) = self.invited.get_mut(&invitation) {
            invited.routers -= 1;
            if invited.routers == 0 {
                self.invited.remove(&invitation);
            }
        }
    }

    /// Whether a bounded invitation has room for one more router here. A renewed certificate has no
    /// bound: an issuer has counted its router.
    pub fn may_join(&self, member: &Member) -> bool {
        member.bound.is_none_or(|bound| {
            let invited = self.invited.get(&member.invitation().copied());
            let routers = invited.map_or(0, |invited| invited.routers);
            routers < bound.uses as usize + NOT_YET_COUNTED
        })
    }

    /// Forgets a router.
    pub fn remove_router(&mut self, origin: OriginId) -> Option<Router> {
        let router = self.routers.remove(&origin)?;
        let not_after = router.credential().member.not_after;
        self.expiries.remove(&(not_after, origin));
        self.forget_invited(&router.credential().member);
        self.credentials_version += 1;
        self.check();
        Some(router)
    }

    /// Whether one more router has room.
    pub fn has_room(&self) -> bool {
        self.routers.len() < self.max_routers
    }

    /// The router that makes room for one of this invitation: of the largest invitation, the router
    /// unreachable for longest. If none is unreachable and that invitation has more routers, any
    /// that is no `neighbor`. So a token with many routers displaces none of another token.
    pub fn to_forget(
        &self,
        invitation: Option<&PeerId>,
        is_neighbor: impl Fn(OriginId) -> bool,
    ) -> Option<OriginId> {
        let own = invitation.copied();
        let routers = |i: &Option<PeerId>| self.invited.get(i).map_or(0, |i| i.routers);
        let largest = self
            .invited
            .keys()
            .max_by_key(|i| (routers(i), **i == own))?;
        let is_even = routers(largest) <= routers(&own) + 1;
        let of = |router: &Router| router.credential().member.invitation() == largest.as_ref();
        let others = self.routers.iter();
        let others = others.filter(|(origin, router)| *origin != self.own && of(router));
        let gone = others.clone().filter(|(_, router)| !router.reachable);
        let gone = gone
            .map(|(origin, router)| (router.gone_since, origin))
            .min();
        match gone {
            Some((_, origin)) => Some(origin),
            // an issuer signed each of these directly
            None if is_even || largest.is_none() => None,
            None => {
                let mut far = others.map(|(origin, _)| origin);
                far.find(|origin| !is_neighbor(*origin))
            }
        }
    }

    /// Routers for which `holds` is true.
    pub fn routers_where(&self, holds: impl Fn(OriginId, &Router) -> bool) -> Vec<OriginId> {
        let routers = self.routers.iter();
        let routers = routers.filter(|(origin, router)| holds(*origin, router));
        routers.map(|(origin, _)| origin).collect()
    }

    /// Stores a verified new revocation. A full table keeps the network's own and those with the
    /// latest end, the same at all routers. `Ok`: the key of the displaced one.
    pub fn put_revocation(
        &mut self,
        key: u64,
        revoked: Revoked,
    ) -> Result<Option<u64>, DatabaseFull> {
        let mut displaced = None;
        if !self.revocations.contains_key(&key) && self.revocations.len() >= self.max_revocations {
            let by_time = |(key, Revoked { revocation: r, .. }): (&u64, &Revoked)| {
                (r.by_network, r.until, *key)
            };
            let Revocation {
                by_network, until, ..
            } = revoked.revocation;
            match self.revocations.iter().map(by_time).min() {
                Some(first) if first < (by_network, until, key) => {
                    self.remove_revocation(first.2);
                    displaced = Some(first.2);
                }
                _ => return Err(DatabaseFull),
            }
        }
        let Revocation {
            key: who,
            by_network,
            ..
        } = revoked.revocation;
        self.revocations.insert(key, revoked);
        self.revoked.insert((who, by_network));
        Ok(displaced)
    }

    pub fn remove_revocation(&mut self, key: u64) {
        if let Some(revoked) = self.revocations.remove(&key) {
            let Revocation {
                key: who,
                by_network,
                ..
            } = revoked.revocation;
            self.revoked.remove(&(who, by_network));
        }
    }

    /// Whether certificates that depend on this key do not count.
    pub fn is_revoked(&self, key: &PeerId) -> bool {
        [true, false].map(|by| self.revoked.contains(&(*key, by))) != [false; 2]
    }

    /// Whether the router's key or one above it was revoked by an authorised signer.
    pub fn goes_by_revoked(&self, credential: &Credential) -> bool {
        let member = &credential.member;
        let is_out = |key: &PeerId, by_network| {
            self.revoked.contains(&(*key, by_network)) && member.is_expelled_by(key, by_network)
        };
        let mut keys = member.keys.iter().chain([&member.peer]);
        keys.any(|key| is_out(key, true) || is_out(key, false))
    }

    /// Other routers with certificates that have expired by this time.
    pub fn expired_routers(&self, time: UnixTime) -> Vec<OriginId> {
        let expired = self.expiries.iter();
        expired
            .take_while(|(not_after, _)| not_after.saturating_add(CLOCK_SKEW) < time.as_secs())
            .map(|(_, origin)| *origin)
            .filter(|origin| *origin != self.own)
            .collect()
    }

    /// Revocations that have expired by this time.
    pub fn expired_revocations(&self, time: UnixTime) -> Vec<u64> {
        let over = |(_, revoked): &(&u64, &Revoked)| revoked.revocation.until < time.as_secs();
        let over = self.revocations.iter().filter(over);
        over.map(|(key, _)| *key).collect()
    }

    /// The last Unix second in which all stored LSAs are valid.
    pub fn next_expiry(&self) -> Option<u64> {
        let mut others = self
            .expiries
            .iter()
            .filter(|(_, origin)| *origin != self.own);
        let credential = others
            .next()
            .map(|(not_after, _)| not_after.saturating_add(CLOCK_SKEW));
        let revocations = self.revocations.values().map(|r| r.revocation.until);
        credential.into_iter().chain(revocations).min()
    }

    /// Calls `add` for all LSAs with keys in this range, unordered; `unreachable`: of all routers.
    fn each_entry(
        &self,
        keys: RangeInclusive<u64>,
        unreachable: bool,
        mut add: impl FnMut(SummaryEntry),
    ) {
        let origins = OriginId(*keys.start())..=OriginId(*keys.end());
        let mut entry = |key, kind, version| {
            add(SummaryEntry {
                id: LsaId { key, kind },
                version,
            });
        };
        for (origin, router) in self.routers.range(origins) {
            if !router.reachable && !unreachable && origin != self.own {
                continue;
            }
            entry(origin.0, KIND_CREDENTIAL, router.credential.version());
            if let Some(advertisement) = &router.advertisement {
                entry(origin.0, KIND_ADVERTISEMENT, advertisement.version());
            }
        }
        for (key, revoked) in self.revocations.range(keys) {
            let version = Version(revoked.revocation.until);
            entry(*key, KIND_REVOCATION, version);
        }
    }

    /// The same entries, in order.
    pub fn entries(&self, keys: RangeInclusive<u64>, unreachable: bool) -> Vec<SummaryEntry> {
        let mut entries = Vec::new();
        self.each_entry(keys, unreachable, |entry| entries.push(entry));
        entries.sort_unstable_by_key(|entry| entry.id);
        entries
    }

    /// The digest: sums over all LSAs of reachable routers, by bucket.
    pub fn sums(&self) -> [u64; BUCKETS] {
        let mut sums = [0; BUCKETS];
        self.each_entry(0..=u64::MAX, false, |entry| add_to(&mut sums, &entry));
        sums
    }

    /// Whether reachable routers advertise links to routers without an advertisement.
    pub fn lacks_routers(&self) -> bool {
        let unknown = |to: OriginId| {
            let router = self.routers.get(&to);
            router.is_none_or(|r| r.advertisement.is_none())
        };
        let reachable = self.routers.values().filter(|router| router.reachable);
        reachable
            .filter_map(|router| router.advertisement.as_ref())
            .any(|advertisement| advertisement.links().any(|(to, _)| unknown(to)))
    }
}

/// The table is full of revocations that are needed longer.
#[derive(Debug)]
pub(super) struct DatabaseFull;
