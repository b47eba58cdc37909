//! What goes out: news to all neighbours, to each what it lacks, and questions for what we lack.

use std::sync::Arc;

use librecast::id::{LinkId, OriginId};
use librecast::time::Duration;

use super::advertisement::Advertisement;
use super::flooding::{FloodPacing, FloodScope, LinkQueue};
use super::offers::LinkSet;
use super::record::{KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, Lsa, LsaId, Version};
use super::summary::{BUCKETS, Summary, SummaryEntry, add_to, differing, have};
use super::{Database, FIRST_ASK_DELAY, MAX_ASK_DELAY};
use crate::graph::mix;

/// A neighbour that was asked answers in this time, or another is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Records of other kinds could not be kept.
const KINDS: [u8; 3] = [KIND_CREDENTIAL, KIND_ADVERTISEMENT, KIND_REVOCATION];

/// From so many links on, most neighbours of a neighbour are neighbours: all of a mesh would send_digest all others what
/// each has heard from its author, a million messages where one of a hundred routers dies.
const MESH_GROUP_MIN_LINKS: usize = 16;
/// So many of them send_digest a router nevertheless, for it is what heals.
const MESH_GROUP_RELAYS: u64 = 4;

/// Neighbours of whom many hear from the author of an advertisement.
struct MeshGroup {
    advertisement: Arc<Advertisement>,
    own: OriginId,
    links: u64,
}

impl MeshGroup {
    /// Whether the neighbour hears from the author, and is not one that this router tells nevertheless.
    fn hears(&self, neighbor: OriginId) -> bool {
        let lot = mix(mix(self.own.0 ^ self.advertisement.version().0) ^ neighbor.0);
        self.advertisement.cost_to(neighbor).is_some() && lot % self.links >= MESH_GROUP_RELAYS
    }
}

impl Database {
    /// All neighbours but one have to know.
    pub(super) fn flood(&mut self, id: LsaId, from: Option<LinkId>, urgent: bool) {
        let (started, gap) = (self.started, self.gap());
        let pacing = FloodPacing { started, gap };
        let (mut told, mut across) = (LinkSet::new(), false);
        let mesh_group = self.mesh_group(id).filter(|_| urgent && from.is_some());
        for (link, state) in self.links.iter() {
            let is_from = Some(link) == from;
            if !state.advertised && !is_from {
                // compares with us when it is
                continue;
            }
            let hears = || mesh_group.as_ref().is_some_and(|c| c.hears(state.neighbor));
            let waits = || !urgent && from.is_some() && state.way == FloodScope::AdvertiseOnly;
            if !is_from && (hears() || waits()) {
                across = true;
                continue;
            }
            told.push(link);
        }
        for link in &told {
            match self.links.get_mut(link) {
                Some(state) if Some(*link) == from => state.remove(id),
                Some(state) if urgent || from.is_none() => state.push_pending(id),
                Some(state) => state.pass_on(id, pacing, self.now),
                None => {}
            }
        }
        let stored = self.stored(id).filter(|_| across);
        if let Some((version, _)) = stored {
            let entry = SummaryEntry { id, version };
            self.offers.add(entry, told, started, self.now);
        } else {
            self.offers.remove(id);
        }
    }

    /// Among whom an advertisement need not be passed on in haste.
    fn mesh_group(&self, id: LsaId) -> Option<MeshGroup> {
        let links = self.links.len();
        let is_advertisement = id.kind == KIND_ADVERTISEMENT;
        if !is_advertisement || links <= MESH_GROUP_MIN_LINKS {
            return None;
        }
        let author = self.routers.get(&OriginId(id.key))?;
        Some(MeshGroup {
            advertisement: Arc::clone(author.advertisement.as_ref()?),
            own: self.own.router.origin,
            links: links as u64,
        })
    }

    /// The neighbour has this record as we have it.
    pub(super) fn note_known(&mut self, id: LsaId, link: LinkId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.remove(id);
        }
        self.offers.told(id, link);
    }

    /// IhaveSchedule whose time has come go to the links that need them.
    pub(super) fn release_ihaves(&mut self) {
        while let Some(offer) = self.offers.next(self.now) {
            let is_due = |link: &LinkQueue| link.advertised && link.first == offer.by_lower;
            let needs =
                |(id, link): &(LinkId, &LinkQueue)| is_due(link) && !offer.told.contains(id);
            let ids: LinkSet = self.links.iter().filter(needs).map(|(id, _)| id).collect();
            for id in ids {
                if let Some(link) = self.links.get_mut(&id) {
                    link.push_ihave(offer.entry);
                }
            }
        }
    }

    pub(super) fn unflood(&mut self, id: LsaId) {
        for link in self.links.values_mut() {
            link.remove(id);
        }
        self.offers.remove(id);
    }

    pub(super) fn push_summary(&mut self, link: LinkId, summary: Summary) {
        if let Some(link) = self.links.get_mut(&link) {
            link.push_summary(summary);
        }
    }

    pub(super) fn next_record(&mut self, link: LinkId) -> Option<Lsa> {
        loop {
            let id = self.links.get_mut(&link)?.next_record(self.now)?;
            let Some((_, bytes)) = self.stored(id) else {
                continue;
            };
            let bytes = bytes.clone();
            self.links.get_mut(&link)?.sent(bytes.len(), self.now);
            return Some(Lsa {
                kind: id.kind,
                bytes,
            });
        }
    }

    /// RouterIndex and versions of what we have with keys in this range; of routers that are not reachable
    /// only if asked for. In no order.
    fn each_entry(&self, from: u64, to: u64, unreachable: bool, mut add: impl FnMut(SummaryEntry)) {
        let mut entry = |key, kind, version| {
            add(SummaryEntry {
                id: LsaId { key, kind },
                version,
            });
        };
        let own = self.own.router.origin;
        for (origin, router) in self.routers.range(OriginId(from)..=OriginId(to)) {
            if !router.reachable && !unreachable && origin != own {
                continue;
            }
            entry(origin.0, KIND_CREDENTIAL, router.credential.version());
            if let Some(advertisement) = &router.advertisement {
                entry(origin.0, KIND_ADVERTISEMENT, advertisement.version());
            }
        }
        for (key, revoked) in self.revocations.range(from..=to) {
            let version = Version(revoked.revocation.until);
            entry(*key, KIND_REVOCATION, version);
        }
    }

    /// The same in order.
    pub(super) fn entries(&self, from: u64, to: u64, unreachable: bool) -> Vec<SummaryEntry> {
        let mut entries = Vec::new();
        self.each_entry(from, to, unreachable, |entry| entries.push(entry));
        entries.sort_unstable_by_key(|entry| entry.id);
        entries
    }

    pub(super) fn sums(&self) -> [u64; BUCKETS] {
        let mut sums = [0; BUCKETS];
        self.each_entry(0, u64::MAX, false, |entry| add_to(&mut sums, &entry));
        sums
    }

    /// Tells a neighbour the sums over what there is.
    pub(super) fn send_digest(&mut self, link: LinkId, ask: bool) {
        let buckets = Box::new(self.sums());
        if let Some(link) = self.links.get_mut(&link) {
            (link.summarized, link.resync_at) = (self.now, None);
            link.push_summary(Summary::Digest { ask, buckets });
        }
    }

    /// A neighbour gets to know this router, and what there is.
    pub(super) fn introduce(&mut self, link: LinkId) {
        self.send_digest(link, false);
        if let Some(link) = self.links.get_mut(&link) {
            for kind in [KIND_CREDENTIAL, KIND_ADVERTISEMENT] {
                let key = self.own.router.origin.0;
                link.push_pending(LsaId { key, kind });
            }
        }
    }

    /// The neighbour says what it has: it gets what it lacks. Routers that we cannot reach are not
    /// passed on before they are again: who has forgotten them does not hear of them otherwise.
    pub(super) fn handle_have(
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
        state.summarized = self.now;
        for entry in ours {
            let known = theirs
                .binary_search_by_key(&entry.id, |theirs| theirs.id)
                .ok()
                .map(|at| theirs[at].version);
            if known < Some(entry.version) {
                state.push_requested(entry.id);
            }
        }
        if last {
            state.push_end();
        }
    }

    /// News that did not come from the neighbour in time, by name.
    pub(super) fn next_ihave(&mut self, link: LinkId) -> Option<Summary> {
        let entries = self.links.get_mut(&link)?.next_ihaves();
        (!entries.is_empty()).then_some(Summary::IHave(entries))
    }

    /// The neighbour has news that may not have come along the tree: what we lack is wanted.
    pub(super) fn handle_ihave(&mut self, link: LinkId, entries: &[SummaryEntry]) {
        let mut wanted = Vec::new();
        for entry in entries {
            let SummaryEntry { id, version } = entry;
            // most have just come along the tree
            if self.offers.waits(entry) {
                self.note_known(*id, link);
                continue;
            }
            let known = self.stored(*id).map(|(known, _)| known);
            if known == Some(*version) {
                self.note_known(*id, link);
            } else if known > Some(*version) {
                if let Some(state) = self.links.get_mut(&link) {
                    state.push_pending(*id);
                }
            } else if KINDS.contains(&id.kind) {
                wanted.push(*id);
            }
        }
        if !wanted.is_empty() {
            self.push_summary(link, Summary::IWant(wanted));
        }
    }

    /// The neighbour wants what was offered.
    pub(super) fn handle_iwant(&mut self, link: LinkId, ids: &[LsaId]) {
        for id in ids {
            if self.stored(*id).is_some()
                && let Some(state) = self.links.get_mut(&link)
            {
                state.push_requested(*id);
            }
        }
    }

    /// Asks the first neighbour whose sums are not ours, if no other is being asked.
    pub(super) fn ask_neighbor(&mut self) {
        if self.asked.is_some() || !self.links.differ() {
            return;
        }
        let sums = self.sums();
        let ids: Vec<LinkId> = self.links.keys().to_vec();
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
    pub(super) fn ask_later(&mut self, refused: bool) {
        self.refused |= refused;
        if self.ask_at.is_none() {
            self.ask_at = Some(self.now + self.ask_after);
        }
    }

    /// Asks a neighbour for its sums if a router is missing that reachable ones name, or something was
    /// refused. The next time is twice as far away.
    pub(super) fn ask_for_missing(&mut self) {
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
        let missing = missing || !self.orphans.is_empty();
        if !missing && !self.refused {
            self.ask_after = FIRST_ASK_DELAY;
            return;
        }
        self.refused = false;
        self.ask_after = (self.ask_after * 2).min(MAX_ASK_DELAY);
        self.ask_at = Some(self.now + self.ask_after);
        // another one each time
        let Some(turn) = self.link_of_turn() else {
            return;
        };
        self.send_digest(turn, true);
    }

    /// The link whose turn it is to be asked: the delay before, a power of two, counts the pacing.
    pub(super) fn link_of_turn(&self) -> Option<LinkId> {
        let turn = self.ask_after.as_secs().max(1).ilog2() as usize;
        let at = turn.checked_rem(self.links.len())?;
        self.links.keys().get(at).copied()
    }
}
