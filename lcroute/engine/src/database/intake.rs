//! What comes in: records are verified once, when they are news, and kept within bounds.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;
use librecast::cert::CLOCK_SKEW;
use librecast::id::{LinkId, OriginId, PeerId};
use librecast::time::Duration;

use super::advertisement::{Advertisement, FLAG_URGENT};
use super::bucket::Bucket;
use super::election::GROUP_RANGES;
use super::flooding::LinkQueue;
use super::record::{
    CredentialLsa, KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, LsaId, MAX_REVOCATION,
    Version, drop_reason, revocation_key,
};
use super::{
    ADVERTISEMENT_RATE, Database, DatabaseEvent, DeferredLsa, FORGET_AFTER, OrphanLsa, Revoked,
    Router,
};
use crate::drops::DropReason;
use crate::graph::link_digest;
use crate::services::{Credential, Revocation};

/// Advertisements without a credential are kept so long.
const ORPHAN_LIFETIME: Duration = Duration::from_secs(30);
/// Most of them, in all and of one neighbour.
const MAX_ORPHANS: usize = 256;
const MAX_ORPHANS_PER_LINK: usize = 64;
/// The clock of the host is looked at no later than this.
const CLOCK_CHECK: Duration = Duration::from_secs(3_600);
/// Most advertisements of one router that wait, each from another neighbour.
const MAX_DEFERRED: usize = 4;

impl Router {
    /// Lets an advertisement wait. No signature has been looked at, so it takes the place only of an older one of the same
    /// neighbour. False: there is no room.
    fn wait(&mut self, link: LinkId, version: Version, bytes: &[u8]) -> bool {
        let waiting = DeferredLsa {
            link,
            version,
            bytes: Bytes::copy_from_slice(bytes),
        };
        if let Some(known) = self.waiting.iter_mut().find(|w| w.link == link) {
            if known.version < version {
                *known = waiting;
            }
        } else if self.waiting.iter().any(|w| w.bytes == waiting.bytes) {
            // most come from several neighbours
        } else if self.waiting.len() < MAX_DEFERRED {
            self.waiting.push(waiting);
        } else {
            return false;
        }
        true
    }
}

impl Database {
    /// Version and bytes of a record that we have.
    pub(super) fn stored(&self, id: LsaId) -> Option<(Version, &Bytes)> {
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

    pub(super) fn handle_credential(
        &mut self,
        link: LinkId,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let record = match CredentialLsa::verify(bytes, &*self.services).map(Arc::new) {
            Ok(record) => record,
            Err(error) => {
                let reason = drop_reason(error);
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
        self.adopt_orphans(origin)
    }

    /// Of the advertisements that waited for the router's certificates, the newest that it has signed.
    fn adopt_orphans(&mut self, origin: OriginId) -> Result<(), DropReason> {
        let of_origin = (origin, LinkId(0))..=(origin, LinkId(u32::MAX));
        let mut orphans: Vec<_> = self.orphans.extract_if(of_origin, |_, _| true).collect();
        orphans.sort_by_key(|(_, orphans)| Reverse(orphans.version));
        let mut result = Ok(());
        for ((_, link), orphans) in orphans {
            result = self.handle_advertisement(link, origin, orphans.version, &orphans.bytes);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    pub(super) fn store_credential(
        &mut self,
        origin: OriginId,
        record: Arc<CredentialLsa>,
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
                    waiting: Vec::new(),
                };
                self.routers.insert(origin, router);
                self.reached = None;
                self.graph_changed = true;
            }
        }
        self.check_clock();
        self.rps_changed = true;
        self.version += 1;
        self.credentials_version += 1;
        let (key, kind) = (origin.0, KIND_CREDENTIAL);
        self.flood(LsaId { key, kind }, from, false);
    }

    pub(super) fn handle_advertisement(
        &mut self,
        link: LinkId,
        origin: OriginId,
        version: Version,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let now = self.now;
        let Some(router) = self.routers.get_mut(&origin) else {
            return self.keep_orphan(link, origin, version, bytes);
        };
        if !router.waiting.is_empty() || !router.rate.take(ADVERTISEMENT_RATE, now) {
            let waits = router.wait(link, version, bytes);
            self.waiting.insert(origin);
            if !waits {
                self.ask_later(true);
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
                router.rate.refund(ADVERTISEMENT_RATE);
                let reason = drop_reason(error);
                if reason == DropReason::ForgedLsa {
                    self.events.push(DatabaseEvent::Forged(link));
                }
                Err(reason)
            }
        }
    }

    /// An advertisement of a router whose certificates have not come yet.
    pub(super) fn keep_orphan(
        &mut self,
        link: LinkId,
        origin: OriginId,
        version: Version,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        self.ask_later(false);
        // what comes over one link displaces nothing of another: no signature has been looked at
        let known = self.orphans.get(&(origin, link));
        if known.is_some_and(|orphans| orphans.version >= version) {
            return Ok(());
        }
        let of_link = self
            .orphans
            .keys()
            .filter(|(_, known)| *known == link)
            .count();
        if known.is_none() && (self.orphans.len() >= MAX_ORPHANS || of_link >= MAX_ORPHANS_PER_LINK)
        {
            return Err(DropReason::UnknownRouter);
        }
        let orphans = OrphanLsa {
            version,
            bytes: Bytes::copy_from_slice(bytes),
            until: self.now + ORPHAN_LIFETIME,
        };
        self.orphans.insert((origin, link), orphans);
        Ok(())
    }

    pub(super) fn store_advertisement(&mut self, new: &Arc<Advertisement>, from: Option<LinkId>) {
        let origin = new.origin();
        let Some(router) = self.routers.get_mut(&origin) else {
            return;
        };
        let old = router.advertisement.replace(Arc::clone(new));
        router.waiting.retain(|w| w.version > new.version());
        if router.waiting.is_empty() {
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
        let originated = |a: &Advertisement| {
            let candidacies: u8 = (0..GROUP_RANGES)
                .map(|slot| u8::from(a.candidacies(slot)) << slot)
                .sum();
            (a.flags() & !FLAG_URGENT, a.centrality(), candidacies)
        };
        let same = |old: &Arc<Advertisement>| {
            originated(old) == originated(new) && old.prefixes() == new.prefixes()
        };
        self.rps_changed |= !old.as_ref().is_some_and(same);
        let same_links = |old: &Arc<Advertisement>| old.links().eq(new.links());
        if !old.as_ref().is_some_and(same_links)
            && self.count_links(origin, old.as_deref(), Some(new))
        {
            self.ask_later(false);
        }
        self.version += 1;
        if new.is_urgent() {
            self.hasten_spf();
        }
        // a link that a neighbour names is named here
        let named = |link: &LinkQueue| link.neighbor == origin && !link.advertised;
        self.own_stale |= self.links.values().any(named);
        let (key, kind) = (origin.0, KIND_ADVERTISEMENT);
        self.flood(LsaId { key, kind }, from, new.is_urgent());
    }

    /// The links of an advertisement that the other end candidacies, too, come into the graph; those of the one before
    /// leave it. True: one that is new leads to a router that is not known.
    fn count_links(
        &mut self,
        origin: OriginId,
        old: Option<&Advertisement>,
        new: Option<&Advertisement>,
    ) -> bool {
        let (mut came, mut went, mut unknown) = (0, 0, false);
        each_change(old, new, |to, before, after| {
            let far = self.routers.get_mut(&to);
            let Some(far) = far.filter(|far| far.advertisement.is_some()) else {
                unknown |= after.is_some();
                return;
            };
            let Some(back) = far.advertisement.as_ref().and_then(|a| a.cost_to(origin)) else {
                return;
            };
            let link = (origin.min(to), origin.max(to));
            if let Some(cost) = before {
                self.digest ^= link_digest(origin, to, cost.max(back));
                self.link_changes.insert(link, None);
                far.links -= 1;
                went += 1;
            }
            if let Some(cost) = after {
                let cost = cost.max(back);
                self.digest ^= link_digest(origin, to, cost);
                self.link_changes.insert(link, Some(cost));
                far.links += 1;
                came += 1;
            }
        });
        if let Some(router) = self.routers.get_mut(&origin) {
            router.links = router.links + came - went;
        }
        self.graph_changed |= came + went > 0;
        unknown
    }

    pub(super) fn handle_revocation(
        &mut self,
        from: Option<LinkId>,
        record: &[u8],
    ) -> Result<(), DropReason> {
        let (head, bytes) = record.split_first_chunk::<16>().ok_or(DropReason::BadLsa)?;
        if bytes.len() > MAX_REVOCATION {
            return Err(DropReason::BadLsa);
        }
        let revocation = self
            .services
            .verify_revocation(bytes)
            .map_err(|_| DropReason::ForgedLsa)?;
        let key = revocation_key(&revocation.key, revocation.by_network);
        if head[..8] != key.to_be_bytes() || head[8..] != revocation.until.to_be_bytes() {
            return Err(DropReason::BadLsa);
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
            // the network's own, and those that are needed longest, stay: in the end all routers have the same
            let by_time = |(key, Revoked { revocation: r, .. }): (&u64, &Revoked)| {
                (r.by_network, r.until, *key)
            };
            let new = (revocation.by_network, revocation.until, key);
            match self.revocations.iter().map(by_time).min() {
                Some(first) if first < new => self.remove_revocation(first.2),
                _ => return Err(DropReason::DatabaseFull),
            }
        }
        let revoked = Revoked {
            revocation,
            record: Bytes::copy_from_slice(record),
        };
        self.revocations.insert(key, revoked);
        let who = (revocation.key, revocation.by_network);
        self.revoked.insert(who);
        let kind = KIND_REVOCATION;
        self.flood(LsaId { key, kind }, from, true);
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
        self.hasten_spf();
        self.version += 1;
        Ok(())
    }

    pub(super) fn remove_revocation(&mut self, key: u64) {
        if let Some(revoked) = self.revocations.remove(&key) {
            let Revocation {
                key: who,
                by_network,
                ..
            } = revoked.revocation;
            self.revoked.remove(&(who, by_network));
            let kind = KIND_REVOCATION;
            self.unflood(LsaId { key, kind });
        }
    }

    pub(super) fn goes_by_revoked(&self, credential: &Credential) -> bool {
        let member = &credential.member;
        let is_out = |key: &PeerId, by_network| {
            self.revoked.contains(&(*key, by_network)) && member.is_expelled_by(key, by_network)
        };
        let mut keys = member.keys.iter().chain([&member.peer]);
        keys.any(|key| is_out(key, true) || is_out(key, false))
    }

    /// Forgets a router; never this one.
    pub(super) fn remove_router(&mut self, origin: OriginId) {
        if origin == self.own.router.origin {
            return;
        }
        let advertisement = self
            .routers
            .get(&origin)
            .and_then(|r| r.advertisement.clone());
        if let Some(advertisement) = advertisement {
            self.count_links(origin, Some(&advertisement), None);
        }
        let Some(router) = self.routers.remove(&origin) else {
            return;
        };
        let not_after = router.credential().member.not_after;
        self.expiries.remove(&(not_after, origin));
        self.waiting.remove(&origin);
        if router.reachable {
            self.reachable -= 1;
            self.events.push(DatabaseEvent::RouterDown(origin));
            self.rps_changed = true;
        }
        self.reached = None;
        self.graph_changed = true;
        self.version += 1;
        self.credentials_version += 1;
        for kind in [KIND_CREDENTIAL, KIND_ADVERTISEMENT] {
            self.unflood(LsaId {
                key: origin.0,
                kind,
            });
        }
    }

    /// Whether there is room for one more router, if need be in place of the one that is gone longest.
    pub(super) fn make_room(&mut self) -> bool {
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
    pub(super) fn release_deferred(&mut self) {
        for origin in Vec::from_iter(self.waiting.iter().copied()) {
            let Some(router) = self.routers.get_mut(&origin) else {
                continue;
            };
            if self.now < router.rate.next(ADVERTISEMENT_RATE) {
                continue;
            }
            self.waiting.remove(&origin);
            let mut waiting = std::mem::take(&mut router.waiting);
            waiting.sort_by_key(|w| Reverse(w.version));
            // the newest that its router has signed
            for w in waiting {
                match self.handle_advertisement(w.link, origin, w.version, &w.bytes) {
                    Ok(()) => break,
                    Err(reason) => self.events.push(DatabaseEvent::Dropped(reason)),
                }
            }
        }
    }

    pub(super) fn forget_gone(&mut self) {
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
        self.reached = None;
        self.graph_changed = true;
    }

    /// Certificates and revocations whose time is over leave.
    pub(super) fn expire(&mut self) {
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
    pub(super) fn check_clock(&mut self) {
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
}

/// Calls `f` for each neighbour to whom the link is another than before, with the costs before and after.
fn each_change(
    old: Option<&Advertisement>,
    new: Option<&Advertisement>,
    mut f: impl FnMut(OriginId, Option<u16>, Option<u16>),
) {
    let mut before = old.into_iter().flat_map(Advertisement::links).peekable();
    let mut after = new.into_iter().flat_map(Advertisement::links).peekable();
    loop {
        let (was, is) = (before.peek().copied(), after.peek().copied());
        let Some(to) = was.iter().chain(&is).map(|(to, _)| *to).min() else {
            return;
        };
        let of = |link: Option<(OriginId, u16)>| link.filter(|l| l.0 == to).map(|l| l.1);
        let (was, is) = (of(was), of(is));
        if was.is_some() {
            before.next();
        }
        if is.is_some() {
            after.next();
        }
        if was != is {
            f(to, was, is);
        }
    }
}
