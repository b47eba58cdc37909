//! LSAs that cannot be verified yet: orphans without a credential, and those beyond the rate.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use super::lsa::Version;
use super::store::{DeferredLsa, Router, Store};
use crate::drops::DropReason;
use librecast::bucket::Rate;

/// Rate of advertisements of one router that are verified; beyond it the newest ones wait.
pub(super) const ADVERTISEMENT_RATE: Rate = Rate::every(Duration::from_secs(1), 16);
/// Lifetime of orphan LSAs: credentials follow within a round trip, or after a request.
const ORPHAN_LIFETIME: Duration = Duration::from_secs(30);
/// Orphan LSAs that are kept.
const MAX_ORPHANS: usize = 256;
/// Orphan LSAs of one neighbour that are kept.
const MAX_ORPHANS_PER_LINK: usize = 64;
/// Deferred advertisements of one router, each from another neighbour.
const MAX_DEFERRED: usize = 4;

/// An advertisement as it came from a neighbour, not verified yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceivedLsa<'a> {
    pub link: LinkId,
    pub version: Version,
    pub bytes: &'a [u8],
}

/// An advertisement without its router's credential.
#[derive(Debug)]
struct OrphanLsa {
    version: Version,
    bytes: Bytes,
    until: Instant,
}

/// LSAs that wait. Their signatures are unverified, so none displaces one of another neighbour.
#[derive(Debug, Default)]
pub(super) struct Intake {
    orphans: BTreeMap<(OriginId, LinkId), OrphanLsa>,
    deferred: BTreeSet<OriginId>,
}

impl Intake {
    /// Keeps an orphan LSA, if its neighbour has room for one.
    pub fn keep_orphan(
        &mut self,
        link: LinkId,
        origin: OriginId,
        version: Version,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let known = self.orphans.get(&(origin, link));
        if known.is_some_and(|orphan| orphan.version >= version) {
            return Ok(());
        }
        let of_link = self.orphans.keys().filter(|(_, known)| *known == link);
        if known.is_none()
            && (self.orphans.len() >= MAX_ORPHANS || of_link.count() >= MAX_ORPHANS_PER_LINK)
        {
            return Err(DropReason::UnknownRouter);
        }
        let orphan = OrphanLsa {
            version,
            bytes: Bytes::copy_from_slice(bytes),
            until: now + ORPHAN_LIFETIME,
        };
        self.orphans.insert((origin, link), orphan);
        debug_assert!(self.orphans.len() <= MAX_ORPHANS, "orphans have a bound");
        Ok(())
    }

    /// Takes the router's orphans, the newest first, once its credential has come.
    pub fn take_orphans(&mut self, origin: OriginId) -> Vec<DeferredLsa> {
        let of_origin = (origin, LinkId(0))..=(origin, LinkId(u32::MAX));
        let orphans = self.orphans.extract_if(of_origin, |_, _| true);
        let mut orphans: Vec<_> = orphans
            .map(
                |((_, link), OrphanLsa { version, bytes, .. })| DeferredLsa {
                    link,
                    version,
                    bytes,
                },
            )
            .collect();
        orphans.sort_by_key(|orphan| Reverse(orphan.version));
        orphans
    }

    /// Removes expired orphans.
    pub fn expire(&mut self, now: Instant) {
        self.orphans.retain(|_, orphan| now < orphan.until);
    }

    pub fn orphans(&self) -> usize {
        self.orphans.len()
    }

    /// Admits an advertisement, or defers it beyond the rate. `Err(false)`: there was no room.
    pub fn admit(
        &mut self,
        router: &mut Router,
        origin: OriginId,
        lsa: ReceivedLsa<'_>,
        now: Instant,
    ) -> Result<(), bool> {
        if router.deferred.is_empty() && router.rate.take(ADVERTISEMENT_RATE, 1, now) {
            return Ok(());
        }
        self.deferred.insert(origin);
        Err(defer(router, lsa))
    }

    /// Removes deferred advertisements that are no newer than the stored one.
    pub fn note_stored(&mut self, router: &mut Router, origin: OriginId, version: Version) {
        router.deferred.retain(|w| w.version > version);
        if router.deferred.is_empty() {
            self.deferred.remove(&origin);
        }
    }

    /// Forgets a router that has left the store.
    pub fn forget(&mut self, origin: OriginId) {
        self.deferred.remove(&origin);
    }

    /// Takes deferred advertisements of routers within their rate, the newest first.
    pub fn take_deferred(
        &mut self,
        store: &mut Store,
        now: Instant,
    ) -> Vec<(OriginId, Vec<DeferredLsa>)> {
        let mut due = Vec::new();
        for origin in Vec::from_iter(self.deferred.iter().copied()) {
            let Some(router) = store.routers.get_mut(&origin) else {
                continue;
            };
            if now < router.rate.next(ADVERTISEMENT_RATE, 1) {
                continue;
            }
            self.deferred.remove(&origin);
            let mut deferred = std::mem::take(&mut router.deferred);
            deferred.sort_by_key(|w| Reverse(w.version));
            due.push((origin, deferred));
        }
        due
    }

    /// The time of the next expiry or release.
    pub fn next_timeout(&self, store: &Store) -> Option<Instant> {
        let routers = self.deferred.iter();
        let routers = routers.filter_map(|origin| store.routers.get(origin));
        let deferred = routers.map(|r| r.rate.next(ADVERTISEMENT_RATE, 1)).min();
        let orphan = self.orphans.values().map(|orphan| orphan.until).min();
        deferred.into_iter().chain(orphan).min()
    }
}

/// Defers an advertisement in place of an older one of this neighbour. False: there is no room.
fn defer(router: &mut Router, lsa: ReceivedLsa<'_>) -> bool {
    let ReceivedLsa {
        link,
        version,
        bytes,
    } = lsa;
    let deferred = DeferredLsa {
        link,
        version,
        bytes: Bytes::copy_from_slice(bytes),
    };
    if let Some(known) = router.deferred.iter_mut().find(|w| w.link == link) {
        if known.version < version {
            *known = deferred;
        }
    } else if router.deferred.iter().any(|w| w.bytes == deferred.bytes) {
        // the same advertisement mostly comes from several neighbours
    } else if router.deferred.len() < MAX_DEFERRED {
        router.deferred.push(deferred);
    } else {
        return false;
    }
    true
}
