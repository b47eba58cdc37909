//! What follows from the records: the graph, who is reachable, who is the root of what, and what this
//! router therefore says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use librecast::cert::GroupPrefix;
use librecast::id::OriginId;
use librecast::time::Duration;

use super::advertisement::{Advertisement, FLAG_URGENT, MAX_LINKS};
use super::election::{elect_announcer, elect_rps};
use super::flooding::{FloodScope, LinkQueue, LinkStanding};
use super::record::{CredentialLsa, KIND_ADVERTISEMENT, LsaError, Version, drop_reason};
use super::{
    AnnouncedPrefix, Database, DatabaseEvent, FORGET_AFTER, MAX_SPF_BACKOFF, OwnChainError,
    RendezvousPoints, SMALL_NETWORK, SPF_DELAY_PER_ROUTER, URGENT_SPF_DIVISOR,
};
use crate::drops::DropReason;
use crate::graph::{Tree, router_digest};

impl Database {
    /// Draws all conclusions from what has come in. Costs nothing if nothing has changed.
    pub fn update(&mut self) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        // the own advertisement changes what it follows from; what it says is settled after two pacing
        for _ in 0..4 {
            if self.now >= self.spf_at {
                self.compute_routes();
            }
            if !std::mem::take(&mut self.own_stale) {
                break;
            }
            self.review_own();
            // what it says follows from itself, too
            self.own_stale = self.advertise();
            if !self.own_stale {
                break;
            }
        }
        self.ask_neighbor();
    }

    /// What changes comes in crowds: so long it is gathered.
    pub(super) fn gap(&self) -> Duration {
        // a few thousand at most
        let routers = self.routers.len() as u32;
        if self.routers.len() > SMALL_NETWORK {
            SPF_DELAY_PER_ROUTER * routers
        } else {
            Duration::ZERO
        }
    }

    /// Healing waits for it.
    pub(super) fn hasten_spf(&mut self) {
        let soon = self.last_spf + self.gap() / URGENT_SPF_DIVISOR;
        self.spf_at = self.spf_at.min(soon);
    }

    fn compute_routes(&mut self) {
        let changed = self.graph_changed || self.rps_changed;
        self.own_stale |= changed;
        if changed {
            let least = self.gap();
            // as long as changes come one upon the other, conclusions grow rarer
            let busy = self.now < self.last_spf + self.spf_delay * 2;
            let next = if busy { self.spf_delay * 2 } else { least };
            self.spf_delay = next.clamp(least, least * MAX_SPF_BACKOFF);
            self.last_spf = self.now;
            self.spf_at = self.now + self.spf_delay;
        }
        self.refresh_graph();
        self.refresh_rps();
        if changed {
            self.refresh_flood_scopes();
        }
    }

    /// Among many, news go along the tree of one root that all know.
    fn refresh_flood_scopes(&mut self) {
        let own = self.own.router.origin;
        let root = self.roots.slots[0].elected;
        let root = root.filter(|_| self.routers.len() > SMALL_NETWORK);
        let before = self.flood_tree.take();
        let tree = root.and_then(|root| Tree::of(&self.graph, root, before.as_ref()));
        self.flood_tree.clone_from(&tree);
        let tree = tree.filter(|tree| tree.contains(own));
        self.links.set_flood_scopes(|far| match &tree {
            Some(tree) if tree.is_edge(own, far) => FloodScope::Tree,
            Some(tree) if tree.contains(far) => FloodScope::AdvertiseOnly,
            _ => FloodScope::EitherEnd,
        });
    }

    pub(super) fn graph_digest(&self) -> u64 {
        let own = self.own.router.origin;
        let alone = self.routers.get(&own).is_none_or(|r| r.links == 0);
        // the graph contains us even without links
        self.digest ^ if alone { router_digest(own) } else { 0 }
    }

    pub(super) fn refresh_graph(&mut self) {
        if !std::mem::take(&mut self.graph_changed) {
            return;
        }
        let digest = self.graph_digest();
        if digest != self.graph.digest() {
            let own = self.own.router.origin;
            let changes = self.link_changes.iter();
            let changes = Vec::from_iter(changes.map(|(&(a, b), &cost)| (a, b, cost)));
            self.graph = Arc::new(self.graph.after(digest, own, &changes));
            self.graph_version += 1;
            self.version += 1;
        }
        // what came and went again has left no trace
        self.link_changes.clear();
        self.refresh_reachable();
    }

    pub(super) fn refresh_reachable(&mut self) {
        let own = self.own.router.origin;
        let graph = Arc::clone(&self.graph);
        let reached = graph.reachable_digest(own);
        if reached.is_some() && reached == self.reached {
            return;
        }
        self.reached = reached;
        let mut reachable = graph.reachable(own).peekable();
        let (mut oldest, mut count) = (None, 0);
        for (origin, router) in self.routers.iter_mut() {
            while reachable.next_if(|next| *next < origin).is_some() {}
            let is = reachable.next_if_eq(&origin).is_some();
            count += usize::from(is);
            if is != router.reachable {
                router.reachable = is;
                self.rps_changed = true;
                self.graph_version += 1;
                self.version += 1;
                self.events.push(if is {
                    for link in self.links.values_mut() {
                        link.note_reachable(router.gone_since, self.now);
                    }
                    DatabaseEvent::RouterUp(origin)
                } else {
                    router.gone_since = self.now;
                    DatabaseEvent::RouterDown(origin)
                });
            }
            if !is {
                let gone = *oldest.get_or_insert(router.gone_since);
                oldest = Some(router.gone_since.min(gone));
            }
        }
        self.reachable = count;
        self.forget_at = oldest.map(|gone| gone + FORGET_AFTER);
    }

    pub(super) fn refresh_rps(&mut self) {
        if !std::mem::take(&mut self.rps_changed) {
            return;
        }
        let mut candidates = Vec::with_capacity(self.routers.len());
        let mut announced: BTreeMap<GroupPrefix, Vec<(OriginId, bool)>> = BTreeMap::new();
        for (origin, router) in self.routers.iter() {
            let Some(candidate) = router.candidate(origin) else {
                continue;
            };
            candidates.push((candidate, router.credential.election_hashes()));
            for one in router.announced() {
                let announcers = announced.entry(one.prefix).or_default();
                announcers.push((origin, one.candidate));
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
        let roots = RendezvousPoints {
            slots: elect_rps(&candidates),
            prefixes: announced.into_iter().filter_map(elected).collect(),
            lengths,
        };
        if roots != self.roots {
            let slots = |roots: &RendezvousPoints| roots.slots.map(|slot| slot.elected);
            let same = slots(&roots) == slots(&self.roots) && roots.prefixes == self.roots.prefixes;
            self.roots = roots;
            if !same {
                self.rps_version += 1;
                self.version += 1;
                self.events.push(DatabaseEvent::RpsChanged);
            }
        }
    }

    /// What this router wants to try_originate may follow from what others try_originate.
    pub(super) fn review_own(&mut self) {
        let now = self.now;
        let digest = self.graph.digest();
        if self.own.centrality_is_due(digest, now) {
            let own = self.own.router.origin;
            let tree = Tree::of(&self.graph, own, None);
            let mean = tree.and_then(|tree| tree.mean_distance());
            self.own.set_centrality(digest, mean, now);
            // says when to look again
            self.own.centrality_is_due(digest, now);
        }
        let routers = &self.routers;
        let candidate = |origin: OriginId| routers.get(&origin)?.candidate(origin);
        self.own
            .review_candidacies(&self.roots.slots, candidate, now);
        let prefixes = &self.roots.prefixes;
        let root = |prefix: &GroupPrefix| prefixes.get(prefix).map(|p| p.root);
        self.own.review_prefix_candidacies(root, now);
    }

    /// Signs and floods what has changed, if it is time; true if there was something.
    pub(super) fn advertise(&mut self) -> bool {
        let origin = self.own.router.origin;
        let Some(router) = self.routers.get(&origin) else {
            return false;
        };
        let permitted = router.credential().member.prefixes.clone();
        self.advertise_links();
        let mut costs: BTreeMap<OriginId, u16> = BTreeMap::new();
        let advertised =
            |link: &&LinkQueue| link.advertised && link.standing != LinkStanding::Retiring;
        for link in self.links.values().filter(advertised) {
            let cost = link.cost.get();
            let least = costs.entry(link.neighbor).or_insert(cost);
            *least = cost.min(*least);
        }
        costs.remove(&origin);
        let links = costs.into_iter().take(MAX_LINKS).collect();
        let content = self.own.content(&permitted, links);
        let up = |neighbor| self.links.values().any(|link| link.neighbor == neighbor);
        if !self.own.try_originate(&content, up, self.now) {
            return false;
        }
        let mut content = content;
        if self.own.is_urgent(self.now) {
            content.flags |= FLAG_URGENT;
        }
        let version = self.own.next_version();
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

    /// One on trial is nobody's business, unless there is no other way, or the neighbour speaks of it.
    fn advertise_links(&mut self) {
        let own = self.own.router.origin;
        let mut new = Vec::new();
        let untold = |link: &LinkQueue| !link.advertised && link.cost.is_known();
        let ids = self.links.iter().filter(|(_, link)| untold(link));
        for id in Vec::from_iter(ids.map(|(id, _)| id)) {
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            let neighbor = self.routers.get(&link.neighbor);
            let reachable = neighbor.is_some_and(|n| n.reachable);
            let advertisement = neighbor.and_then(|n| n.advertisement.as_ref());
            let named = advertisement.is_some_and(|a| a.cost_to(own).is_some());
            link.advertised = link.standing == LinkStanding::Wanted || !reachable || named;
            if link.advertised {
                self.own.rejoins |= !reachable;
                new.push(id);
            }
        }
        for link in new {
            self.introduce(link);
        }
    }

    pub(super) fn sign_credential(&mut self, version: Version) -> Result<(), OwnChainError> {
        let origin = self.own.router.origin;
        let chain = &self.own.router.chain;
        match CredentialLsa::sign(origin, version, chain, &*self.services) {
            Ok(record) => {
                self.store_credential(origin, Arc::new(record), None);
                Ok(())
            }
            Err(LsaError::Refused(error)) => Err(error.into()),
            Err(LsaError::Malformed(_)) => Err(OwnChainError::OtherNode),
            Err(LsaError::Forged) => Err(OwnChainError::OtherKey),
        }
    }

    /// A record of ours that is newer than we made it.
    pub(super) fn superseded(
        &mut self,
        kind: u8,
        bytes: &[u8],
        version: Version,
    ) -> Result<(), DropReason> {
        self.own_stale = true;
        let Some(router) = self.routers.get(&self.own.router.origin) else {
            return Ok(());
        };
        let peer = router.credential().member.peer;
        if kind == KIND_ADVERTISEMENT {
            Advertisement::verify(bytes, &peer, &*self.services).map_err(drop_reason)?;
            if self.own.supersede(version) {
                tracing::warn!(
                    incarnation = self.own.router.incarnation,
                    "own advertisement of a later incarnation seen: was the state directory lost?"
                );
            }
            return Ok(());
        }
        CredentialLsa::verify(bytes, &*self.services).map_err(drop_reason)?;
        if version.0 == u64::MAX {
            return Err(DropReason::BadLsa);
        }
        self.sign_credential(Version(version.0 + 1))
            .map_err(|_| DropReason::CredentialRefused)
    }
}
