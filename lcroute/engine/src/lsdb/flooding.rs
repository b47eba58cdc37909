//! Flooding: the links of each LSA, and the comparison of databases ([`super::summary`]).

use std::ops::RangeInclusive;
use std::sync::Arc;

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use super::advertisement::Advertisement;
use super::events::Message;
use super::ihave::{IhaveSchedule, LinkSet};
use super::lsa::{KIND_ADVERTISEMENT, KIND_CREDENTIAL, KIND_REVOCATION, Lsa, LsaId};
use super::pending::{FloodPacing, FloodScope, LinkQueue, LinkQueues};
use super::spf_delay::{SMALL_NETWORK, delay};
use super::store::Store;
use super::summary::{Summary, SummaryEntry, differing, have};
use crate::graph::{Graph, Tree, mix};

/// Time for a neighbour's answer before the next one is asked. Chosen: several round trips.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// First delay before neighbours are asked for missing LSAs; it doubles.
const FIRST_ASK_DELAY: Duration = Duration::from_secs(1);
/// Longest delay between two requests for missing LSAs.
const MAX_ASK_DELAY: Duration = Duration::from_secs(3_600);
/// Kinds of LSAs that this router can store.
const KINDS: [u8; 3] = [KIND_CREDENTIAL, KIND_ADVERTISEMENT, KIND_REVOCATION];

/// Links above which mesh groups bound the cost of an urgent LSA (RFC 2973): neighbours of a
/// neighbour are neighbours. Otherwise one dead router of a hundred costs a million messages.
const MESH_GROUP_MIN_LINKS: usize = 16;
/// Routers of a mesh group that re-flood an LSA; all receive it from its originator.
const MESH_GROUP_RELAYS: u64 = 4;

/// Neighbours that receive an advertisement from its originator.
struct MeshGroup {
    advertisement: Arc<Advertisement>,
    own: OriginId,
    links: u64,
}

impl MeshGroup {
    /// The group of an advertisement, if this router has enough links.
    fn of(id: LsaId, store: &Store, links: usize) -> Option<Self> {
        if id.kind != KIND_ADVERTISEMENT || links <= MESH_GROUP_MIN_LINKS {
            return None;
        }
        let originator = store.routers.get(&OriginId(id.key))?;
        Some(Self {
            advertisement: Arc::clone(originator.advertisement.as_ref()?),
            own: store.own,
            links: links as u64,
        })
    }

    /// Whether the originator sends to this neighbour, and this router does not relay to it.
    fn contains(&self, neighbor: OriginId) -> bool {
        let lot = mix(mix(self.own.0 ^ self.advertisement.version().0) ^ neighbor.0);
        self.advertisement.cost_to(neighbor).is_some() && lot % self.links >= MESH_GROUP_RELAYS
    }
}

/// An LSA to flood.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flood {
    pub id: LsaId,
    /// The link over which it came; `None`: this router has originated it.
    pub from: Option<LinkId>,
    pub urgent: bool,
}

/// The queues of all links, and the neighbour that is asked for missing LSAs.
#[derive(Debug)]
pub(super) struct Flooding {
    pub links: LinkQueues,
    ihaves: IhaveSchedule,
    /// The tree that LSAs follow in a large network.
    tree: Option<Arc<Tree>>,
    /// Start of the time that [`FloodPacing`] counts.
    started: Instant,
    /// The neighbour that was asked for missing LSAs, and the end of its time to answer.
    asked: Option<(LinkId, Instant)>,
    /// Time of the next request for missing LSAs.
    ask_at: Option<Instant>,
    ask_delay: Duration,
    /// Requests since [`FIRST_ASK_DELAY`]: neighbours take turns.
    asks: usize,
    /// An LSA was refused that may be accepted later.
    refused: bool,
}

impl Flooding {
    pub fn new(now: Instant) -> Self {
        Self {
            links: LinkQueues::default(),
            ihaves: IhaveSchedule::default(),
            tree: None,
            started: now,
            asked: None,
            ask_at: None,
            ask_delay: FIRST_ASK_DELAY,
            asks: 0,
            refused: false,
        }
    }

    /// Removes a link. Until routes are computed, LSAs go over all remaining links.
    pub fn remove_link(&mut self, link: LinkId) {
        self.links.remove(link);
        self.links.set_scopes(|_| FloodScope::EitherEnd);
        self.asked.take_if(|(asked, _)| *asked == link);
    }

    /// Floods an LSA to all neighbours except its sender.
    pub fn flood(&mut self, flood: Flood, store: &Store, now: Instant) {
        let Flood { id, from, urgent } = flood;
        let pacing = FloodPacing {
            started: self.started,
            interval: delay(store.routers.len()),
        };
        let (mut now_over, mut later) = (LinkSet::new(), false);
        let group = MeshGroup::of(id, store, self.links.len());
        let group = group.filter(|_| urgent && from.is_some());
        for (link, state) in self.links.iter() {
            let is_from = Some(link) == from;
            if !state.advertised && !is_from {
                // the neighbour gets a summary when the link is advertised
                continue;
            }
            let in_group = || group.as_ref().is_some_and(|g| g.contains(state.neighbor));
            let off_tree = || !urgent && from.is_some() && state.scope == FloodScope::AdvertiseOnly;
            if !is_from && (in_group() || off_tree()) {
                later = true;
                continue;
            }
            now_over.push(link);
        }
        for link in &now_over {
            match self.links.get_mut(link) {
                Some(state) if Some(*link) == from => state.remove(id),
                Some(state) if urgent || from.is_none() => state.push_pending(id),
                Some(state) => state.schedule(id, pacing, now),
                None => {}
            }
        }
        if let Some((version, _)) = store.get(id).filter(|_| later) {
            let entry = SummaryEntry { id, version };
            self.ihaves.add(entry, now_over, self.started, now);
        } else {
            self.ihaves.remove(id);
        }
    }

    /// Forgets an LSA that is gone.
    pub fn unflood(&mut self, id: LsaId) {
        for link in self.links.values_mut() {
            link.remove(id);
        }
        self.ihaves.remove(id);
    }

    /// Notes that the neighbour has this LSA in the stored version.
    pub fn note_known(&mut self, id: LsaId, link: LinkId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.remove(id);
        }
        self.ihaves.note_known(id, link);
    }

    /// Sends an LSA to a neighbour with an older version.
    pub fn push_pending(&mut self, id: LsaId, link: LinkId) {
        if let Some(state) = self.links.get_mut(&link) {
            state.push_pending(id);
        }
    }

    /// Sets the flood tree: in a large network, that of one rendezvous point that all routers know.
    pub fn set_tree(&mut self, store: &Store, graph: &Arc<Graph>, rp: Option<OriginId>) {
        let root = rp.filter(|_| store.routers.len() > SMALL_NETWORK);
        let before = self.tree.take();
        self.tree = root.and_then(|root| Tree::of(graph, root, before.as_ref()));
        let tree = self.tree.as_ref().filter(|tree| tree.contains(store.own));
        self.links.set_scopes(|far| match tree {
            Some(tree) if tree.is_edge(store.own, far) => FloodScope::Tree,
            Some(tree) if tree.contains(far) => FloodScope::AdvertiseOnly,
            _ => FloodScope::EitherEnd,
        });
    }

    /// Handles expired timers of links, IHAVE and requests. True: a link's cost has changed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let mut cost_changed = false;
        for id in self.links.due(now) {
            if let Some(link) = self.links.get_mut(&id) {
                cost_changed |= link.cost.handle_timeout(now);
                link.release_due(now);
            }
        }
        while let Some(due) = self.ihaves.next(now) {
            let is_due = |link: &LinkQueue| link.advertised && link.is_lower == due.by_lower;
            let needs =
                |(id, link): &(LinkId, &LinkQueue)| is_due(link) && !due.known_by.contains(id);
            let ids: LinkSet = self.links.iter().filter(needs).map(|(id, _)| id).collect();
            for id in ids {
                if let Some(link) = self.links.get_mut(&id) {
                    link.push_ihave(due.entry);
                }
            }
        }
        self.asked.take_if(|(_, until)| now >= *until);
        cost_changed
    }

    /// Sends summaries to neighbours that lack routers which are reachable again.
    pub fn resync(&mut self, store: &Store, now: Instant) {
        for id in self.links.due(now) {
            let at = self.links.get(&id).and_then(|link| link.resync_at);
            if at.is_some_and(|at| at <= now) {
                self.send_digest(id, false, store, now);
            }
        }
    }

    /// The time of the next timer.
    pub fn next_timeout(&self) -> Option<Instant> {
        let times = [
            self.asked.map(|(_, until)| until),
            self.ask_at,
            self.ihaves.next_timeout(),
            self.links.next_timeout(),
        ];
        times.into_iter().flatten().min()
    }

    /// The messages to send, in order.
    pub fn take_messages(&mut self, store: &Store, now: Instant) -> Vec<(LinkId, Message)> {
        let mut messages = Vec::new();
        for id in self.links.busy() {
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            while let Some(lsa) = link.next_lsa(now) {
                let Some((_, bytes)) = store.get(lsa) else {
                    continue;
                };
                link.sent(bytes.len(), now);
                let (kind, bytes) = (lsa.kind, bytes.clone());
                messages.push((id, Message::Lsa(Lsa { kind, bytes })));
            }
            while let Some(summary) = link.next_summary() {
                messages.push((id, Message::Summary(summary)));
            }
            loop {
                let entries = link.next_ihaves();
                if entries.is_empty() {
                    break;
                }
                messages.push((id, Message::Summary(Summary::IHave(entries))));
            }
        }
        self.links.refresh();
        messages
    }
}

/// Comparison of databases.
impl Flooding {
    fn push_summary(&mut self, link: LinkId, summary: Summary) {
        if let Some(link) = self.links.get_mut(&link) {
            link.push_summary(summary);
        }
    }

    /// Sends this router's digest.
    pub fn send_digest(&mut self, link: LinkId, ask: bool, store: &Store, now: Instant) {
        let buckets = Box::new(store.sums());
        if let Some(link) = self.links.get_mut(&link) {
            (link.summarized_at, link.resync_at) = (now, None);
            link.push_summary(Summary::Digest { ask, buckets });
        }
    }

    /// Introduces a link that is now advertised: sends this router's digest and own LSAs.
    pub fn introduce(&mut self, link: LinkId, store: &Store, now: Instant) {
        self.send_digest(link, false, store, now);
        for kind in [KIND_CREDENTIAL, KIND_ADVERTISEMENT] {
            let key = store.own.0;
            self.push_pending(LsaId { key, kind }, link);
        }
    }

    /// Handles HAVE: sends the LSAs that the neighbour lacks. Those of unreachable routers are left
    /// out, as neighbours may have forgotten these routers.
    pub fn handle_have(
        &mut self,
        link: LinkId,
        keys: RangeInclusive<u64>,
        last: bool,
        theirs: &[SummaryEntry],
        store: &Store,
        now: Instant,
    ) {
        if keys.is_empty() {
            return;
        }
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        state.summarized_at = now;
        for entry in store.entries(keys, false) {
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

    /// Handles END: the neighbour has answered.
    pub fn handle_end(&mut self, link: LinkId) {
        self.asked.take_if(|(asked, _)| *asked == link);
    }

    /// Handles IHAVE: requests LSAs with IWANT that have not come along the flood tree.
    pub fn handle_ihave(&mut self, link: LinkId, entries: &[SummaryEntry], store: &Store) {
        let mut missing = Vec::new();
        for entry in entries {
            let SummaryEntry { id, version } = *entry;
            // most have just come along the tree
            if self.ihaves.contains(entry) {
                self.note_known(id, link);
                continue;
            }
            let known = store.get(id).map(|(known, _)| known);
            if known == Some(version) {
                self.note_known(id, link);
            } else if known > Some(version) {
                self.push_pending(id, link);
            } else if KINDS.contains(&id.kind) {
                missing.push(id);
            }
        }
        if !missing.is_empty() {
            self.push_summary(link, Summary::IWant(missing));
        }
    }

    /// Handles IWANT: sends the LSAs that the neighbour names.
    pub fn handle_iwant(&mut self, link: LinkId, ids: &[LsaId], store: &Store) {
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        for id in ids.iter().filter(|id| store.get(**id).is_some()) {
            state.push_requested(*id);
        }
    }

    /// Asks the first neighbour with another digest, unless one is being asked.
    pub fn ask_neighbor(&mut self, store: &Store, now: Instant) {
        if self.asked.is_some() || !self.links.differ() {
            return;
        }
        let sums = store.sums();
        let ids: Vec<LinkId> = self.links.keys().to_vec();
        for id in ids {
            let digest = self.links.get_mut(&id).and_then(|link| link.digest.take());
            let Some(digest) = digest else { continue };
            let mut parts = Vec::new();
            for keys in differing(&sums, &digest) {
                let entries = store.entries(keys.clone(), true);
                have(keys, &entries, &mut parts);
            }
            let Some(Summary::Have { last, .. }) = parts.last_mut() else {
                continue;
            };
            *last = true;
            for part in parts {
                self.push_summary(id, part);
            }
            self.asked = Some((id, now + ANSWER_TIMEOUT));
            return;
        }
    }

    /// Asks neighbours later for LSAs that are missing. `refused`: a received LSA was not stored.
    pub fn ask_later(&mut self, refused: bool, now: Instant) {
        self.refused |= refused;
        if self.ask_at.is_none() {
            self.ask_at = Some(now + self.ask_delay);
        }
    }

    /// Asks a neighbour for its digest, if LSAs are missing or were refused; doubles the delay.
    pub fn ask_for_missing(&mut self, store: &Store, orphans: usize, now: Instant) {
        if self.ask_at.take_if(|at| now >= *at).is_none() {
            return;
        }
        if !self.refused && orphans == 0 && !store.lacks_routers() {
            (self.ask_delay, self.asks) = (FIRST_ASK_DELAY, 0);
            return;
        }
        self.refused = false;
        self.asks = self.asks.wrapping_add(1);
        self.ask_delay = (self.ask_delay * 2).min(MAX_ASK_DELAY);
        self.ask_at = Some(now + self.ask_delay);
        if let Some(link) = self.link_to_ask() {
            self.send_digest(link, true, store, now);
        }
    }

    /// The link to ask next.
    fn link_to_ask(&self) -> Option<LinkId> {
        let at = self.asks.checked_rem(self.links.len())?;
        self.links.keys().get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    #[test]
    fn neighbours_are_asked_in_turn_for_as_long_as_lsas_are_missing() {
        let mut now = crate::testing::start();
        let store = Store::new(OriginId(1), &Limits::default());
        let mut flooding = Flooding::new(now);
        for n in 1..=3 {
            let queue = LinkQueue::new(OriginId(1), OriginId(10 + u64::from(n)), now);
            flooding.links.insert(LinkId(n), queue);
        }
        let mut asked = Vec::new();
        for _ in 0..30 {
            flooding.ask_later(true, now);
            now += MAX_ASK_DELAY;
            flooding.ask_for_missing(&store, 0, now);
            let mut links = (1..=3).map(LinkId);
            let is_asked = |id: &LinkId| {
                let link = flooding.links.get_mut(id).unwrap();
                std::iter::from_fn(|| link.next_summary()).count() > 0
            };
            asked.extend(links.find(is_asked));
        }
        let turns: Vec<_> = [2, 3, 1].into_iter().cycle().take(30).map(LinkId).collect();
        assert_eq!(asked, turns);
    }
}
