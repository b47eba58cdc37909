//! Control exchange with neighbours: join state in both directions, bounds, refusals, audits.
//!
//! Inputs leave pending elements with an adjacency; [`ControlExchange::flush`] sends all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::cert::GroupPrefix;
use librecast::id::{LinkId, OriginId};
use librecast::random::Random;
use librecast::time::{Duration, Instant};

use crate::adjacency::{Adjacency, JOIN_RATE, PREFIX_CHARGE};
use crate::audit::{self, AUDIT_EVERY, AUDIT_SLACK, Digests, REPAIR_GAP};
use crate::config::{Limits, Neighbor, Node};
use crate::control::{Audit, Batch, Element, JoinState, RefusalReason, Routed};
use crate::drops::DropReason;
use crate::join::Join;
use crate::lsdb::Message;
use crate::outbox::Outbox;
use crate::output::{LinkFault, Output};
use crate::replay::ReplayBuffer;
use crate::routed::{ROUTED_RATE, charge};
use crate::small_map::SmallMap;
use crate::topology::LinkRequest;
use crate::trees::{JoinUpdate, Trees};

/// Elements for links, in order.
type PerLink<T> = Vec<(LinkId, T)>;

/// The trees that take neighbours' join state, and its bounds.
pub struct ReceivedJoins<'a> {
    pub trees: &'a mut Trees,
    pub limits: &'a Limits,
}

/// Elements of other parts for neighbours.
pub struct Outgoing {
    pub lsdb: PerLink<Message>,
    pub routed: PerLink<Routed>,
}

#[derive(Debug)]
pub struct ControlExchange {
    adjacencies: SmallMap<LinkId, Adjacency>,
    /// The link to each neighbour; of two links the newer.
    neighbors: BTreeMap<OriginId, LinkId>,
    /// Links with pending elements, refusals or retries.
    pending_on: BTreeSet<LinkId>,
    /// The first audit of all links.
    next_audit: Option<Instant>,
    /// The first retry of all links.
    next_retry: Option<Instant>,
    /// Both must be computed again.
    timers_stale: bool,
    /// Key of the digests of this router's advertised join state; only neighbours receive it.
    salt: u64,
    random: Random,
}

/// Links.
impl ControlExchange {
    pub fn new(node: &Node) -> Self {
        let seed = node.config.seed;
        Self {
            adjacencies: SmallMap::default(),
            neighbors: BTreeMap::new(),
            pending_on: BTreeSet::new(),
            next_audit: None,
            next_retry: None,
            timers_stale: false,
            salt: Random::new(seed ^ u64::from(node.config.incarnation)).next(),
            random: Random::new(!seed),
        }
    }

    /// Adds a link; returns its neighbour.
    pub fn link_up(
        &mut self,
        link: LinkId,
        neighbor: Neighbor,
        own: OriginId,
        now: Instant,
    ) -> OriginId {
        let advertised = Digests::new(self.salt, own);
        let jitter = self.random.between(Duration::ZERO, AUDIT_EVERY / 4);
        let adjacency = Adjacency::new(neighbor, advertised, now + AUDIT_EVERY + jitter, now);
        let origin = adjacency.origin();
        self.adjacencies.insert(link, adjacency);
        self.pending_on.insert(link);
        self.timers_stale = true;
        self.find_neighbors();
        origin
    }

    /// Removes a link; false: it was not known.
    pub fn link_down(&mut self, link: LinkId) -> bool {
        if self.adjacencies.remove(&link).is_none() {
            return false;
        }
        self.pending_on.remove(&link);
        self.timers_stale = true;
        self.find_neighbors();
        true
    }

    /// Updates the link to each neighbour: of two links the newer counts.
    pub fn find_neighbors(&mut self) {
        let links = self.adjacencies.iter().filter(|(_, a)| !a.faulty);
        self.neighbors = links.map(|(link, a)| (a.origin(), link)).collect();
    }

    pub fn neighbors(&self) -> &BTreeMap<OriginId, LinkId> {
        &self.neighbors
    }

    pub fn adjacencies(&self) -> &SmallMap<LinkId, Adjacency> {
        &self.adjacencies
    }

    /// Whether data may come over this link.
    pub fn accepts(&self, link: LinkId) -> bool {
        self.adjacencies.get(&link).is_some_and(|a| !a.faulty)
    }

    pub fn send_epochs(&mut self, link: LinkId, epochs: Bytes) {
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            adjacency.pending.push(Element::Epochs(epochs));
            self.pending_on.insert(link);
        }
    }

    /// Marks a neighbour that broke the protocol as faulty: the shell closes the link.
    pub fn fault(&mut self, link: LinkId, reason: LinkFault, outbox: &mut Outbox) {
        outbox.drops.count(DropReason::BadControl);
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            adjacency.faulty = true;
            let origin = adjacency.origin();
            // the shell logs the end of the link with this reason
            tracing::debug!(%link, %origin, %reason, "link fault");
            outbox.push(Output::LinkFault { link, reason });
        }
    }
}

/// Elements from neighbours.
impl ControlExchange {
    /// Checks that HELLO comes first, and once. False: the link is gone.
    pub fn expect(&mut self, link: LinkId, element: &Element) -> Result<bool, LinkFault> {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return Ok(false);
        };
        match (element, adjacency.incarnation) {
            (Element::Hello { .. }, Some(_)) => Err(LinkFault::SecondHello),
            (Element::Hello { incarnation, salt }, None) => {
                adjacency.incarnation = Some(*incarnation);
                adjacency.received = Some(Digests::new(*salt, adjacency.origin()));
                Ok(true)
            }
            (_, None) => Err(LinkFault::BeforeHello),
            (_, Some(_)) => Ok(true),
        }
    }

    /// Whether the neighbour may send or pass on this message.
    pub fn admit_routed(
        &mut self,
        link: LinkId,
        routed: &Routed,
        own: OriginId,
        now: Instant,
    ) -> bool {
        let charge = charge(routed, own);
        let adjacency = self.adjacencies.get_mut(&link);
        adjacency.is_some_and(|a| a.routed.take(ROUTED_RATE, u64::from(charge), now))
    }

    /// Handles join state of a neighbour; refuses it beyond the bounds.
    pub fn handle_join_state(
        &mut self,
        link: LinkId,
        state: JoinState,
        joins: &mut ReceivedJoins<'_>,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        let key = (state.root, state.prefix);
        let booked = match state.prefix.as_group() {
            Some(group) => receive_join(adjacency, link, group, state, joins, outbox, now),
            None => receive_prefix(adjacency, link, &state, joins, outbox, now),
        };
        if let Err(reason) = booked {
            outbox.drops.count(DropReason::JoinRefused);
            adjacency.refusals.refuse(key, reason);
            self.pending_on.insert(link);
        }
    }

    pub fn handle_refusal(
        &mut self,
        link: LinkId,
        key: (OriginId, GroupPrefix),
        reason: RefusalReason,
        trees: &Trees,
        now: Instant,
    ) {
        let (root, prefix) = key;
        let Some((join, source_active)) = trees.advertised_to(link, root, prefix) else {
            return;
        };
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            let random = &mut self.random;
            if adjacency.refusals.handle_refusal(key, reason, random, now) {
                self.timers_stale = true;
                adjacency
                    .advertised
                    .toggle(root, prefix, &join, source_active);
            }
        }
    }

    pub fn handle_audit(
        &mut self,
        link: LinkId,
        audit: &Audit,
        joins: &mut ReceivedJoins<'_>,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        self.pending_on.insert(link);
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        let soon = |at: Instant| now < at + REPAIR_GAP;
        match audit {
            Audit::Digest(digest) => {
                if adjacency.next_audit <= now + AUDIT_SLACK {
                    adjacency.next_audit = now;
                    self.next_audit = Some(now);
                }
                let received = adjacency.received.as_ref();
                let Some(received) = received.filter(|r| r.total() != *digest) else {
                    return;
                };
                outbox.drops.count(DropReason::AuditDiffers);
                // two kilobytes for a dozen bytes
                if adjacency.compared.is_some_and(soon) {
                    return;
                }
                (adjacency.compared, adjacency.awaits_reset) = (Some(now), true);
                let buckets = Audit::BucketDigests(Box::new(*received.buckets()));
                adjacency.pending.push(Element::Audit(buckets));
            }
            Audit::BucketDigests(buckets) => {
                let bits = adjacency.advertised.differing(buckets);
                if adjacency.repaired.is_some_and(soon) || bits.iter().all(|word| *word == 0) {
                    return;
                }
                adjacency.repaired = Some(now);
                adjacency.pending.push(Element::Audit(Audit::Reset(bits)));
                let lies_in =
                    |root, prefix| audit::is_in(&bits, adjacency.advertised.bucket(root, prefix));
                for known in joins.trees.advertised_in(link, &lies_in) {
                    let (root, prefix) = (known.root, known.prefix);
                    if !adjacency.refusals.is_refused((root, prefix)) {
                        let element = join_state(root, prefix, &known.join, known.source_active);
                        adjacency.pending.push(element);
                    }
                }
            }
            // each reset costs a walk through all join state: only those that were requested
            Audit::Reset(_) if !adjacency.awaits_reset => {
                outbox.drops.count(DropReason::BadControl);
            }
            Audit::Reset(bits) => {
                adjacency.awaits_reset = false;
                let Some(received) = &adjacency.received else {
                    return;
                };
                let lies_in = |root, prefix| audit::is_in(bits, received.bucket(root, prefix));
                for (root, prefix) in joins.trees.received_in(link, &lies_in) {
                    let nothing = JoinState {
                        root,
                        prefix,
                        join: None,
                        source_active: false,
                    };
                    self.handle_join_state(link, nothing, joins, outbox, now);
                }
            }
        }
    }
}

/// Books and stores join state of one group.
fn receive_join(
    adjacency: &mut Adjacency,
    link: LinkId,
    group: Ipv6Addr,
    state: JoinState,
    joins: &mut ReceivedJoins<'_>,
    outbox: &mut Outbox,
    now: Instant,
) -> Result<(), RefusalReason> {
    let (root, prefix, source_active) = (state.root, state.prefix, state.source_active);
    let join = Join::from(state.join);
    let Some(received) = &mut adjacency.received else {
        return Ok(());
    };
    let before = joins.trees.received(link, root, group);
    if before.was.0 == join && before.was.1 == source_active {
        return Ok(());
    }
    // the beginning of join state has paid for its end
    let is_end = !source_active && !join.is_some();
    let booked = if is_end || adjacency.joins.take(JOIN_RATE, 1, now) {
        adjacency
            .account
            .book(&before, &join, source_active, joins.limits)
    } else {
        adjacency.account.forget(&before);
        outbox.drops.count(DropReason::JoinLimited);
        Err(RefusalReason::TooManyGroups)
    };
    received.toggle(root, prefix, &before.was.0, before.was.1);
    let (join, source_active) = match booked {
        Ok(()) => (join, source_active),
        Err(_) => (Join::None, false),
    };
    received.toggle(root, prefix, &join, source_active);
    joins
        .trees
        .set_received(link, root, group, join, source_active);
    booked
}

/// Books and stores SourceActive of a prefix. A Join must be for one group.
fn receive_prefix(
    adjacency: &mut Adjacency,
    link: LinkId,
    state: &JoinState,
    joins: &mut ReceivedJoins<'_>,
    outbox: &mut Outbox,
    now: Instant,
) -> Result<(), RefusalReason> {
    let (root, prefix, source_active) = (state.root, state.prefix, state.source_active);
    let Some(received) = &mut adjacency.received else {
        return Ok(());
    };
    let before = joins.trees.has_received_prefix(link, root, prefix);
    let booked = if before == source_active {
        Ok(())
    } else if !source_active
        || adjacency
            .joins
            .take(JOIN_RATE, u64::from(PREFIX_CHARGE), now)
    {
        adjacency
            .account
            .book_prefix(before, source_active, joins.limits)
    } else {
        outbox.drops.count(DropReason::JoinLimited);
        Err(RefusalReason::TooManyGroups)
    };
    let source_active = source_active && booked.is_ok();
    if before != source_active {
        received.toggle(root, prefix, &Join::None, before);
        received.toggle(root, prefix, &Join::None, source_active);
        joins
            .trees
            .set_received_prefix(link, root, prefix, source_active);
    }
    match &state.join {
        Some(_) => Err(RefusalReason::JoinedPrefix),
        None => booked,
    }
}

fn join_state(root: OriginId, prefix: GroupPrefix, join: &Join, source_active: bool) -> Element {
    Element::JoinState(JoinState {
        root,
        prefix,
        join: join.filter(),
        source_active,
    })
}

/// Elements to neighbours.
impl ControlExchange {
    /// Sends a LINK REQUEST with the next flush.
    pub fn request_link(&mut self, link: LinkId, request: LinkRequest) {
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            adjacency.pending.push(Element::LinkRequest(request));
            self.pending_on.insert(link);
        }
    }

    /// Schedules join state that neighbours refused for the next flush, once its wait is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_retry.is_some_and(|at| at <= now) {
            self.timers_stale = true;
            for (link, adjacency) in self.adjacencies.iter_mut() {
                adjacency.refusals.handle_timeout(now);
                self.pending_on.insert(link);
            }
        }
    }

    /// The first retry of refused join state.
    pub fn next_retry(&self) -> Option<Instant> {
        self.next_retry
    }

    /// The first audit that is due.
    pub fn next_audit(&self) -> Option<Instant> {
        self.next_audit
    }

    /// Computes the first timers of all links, if they may have changed.
    pub fn find_timers(&mut self) {
        if std::mem::take(&mut self.timers_stale) {
            let adjacencies = self.adjacencies.values();
            self.next_audit = adjacencies.clone().map(|a| a.next_audit).min();
            self.next_retry = adjacencies.filter_map(|a| a.refusals.next_timeout()).min();
        }
    }

    /// Sends all pending elements: one batch for each link, audits last. Returns the (root, group)
    /// entries with possibly changed outgoing interface lists.
    pub fn flush(
        &mut self,
        node: &Node,
        outgoing: Outgoing,
        trees: &mut Trees,
        replay: &mut ReplayBuffer,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Vec<(OriginId, Ipv6Addr)> {
        let mut batches: BTreeMap<LinkId, Batch> = BTreeMap::new();
        let pending_on = std::mem::take(&mut self.pending_on);
        for link in &pending_on {
            self.push_pending(*link, node, &mut batches);
        }
        for (link, message) in outgoing.lsdb {
            let batch = batches.entry(link).or_default();
            batch.push(&match message {
                Message::Lsa(lsa) => Element::Lsa(lsa),
                Message::Summary(summary) => Element::Summary(summary),
            });
        }
        let adjacencies = &mut self.adjacencies;
        let mut advertised = Vec::new();
        let mut advertise = |update: JoinUpdate<'_>| {
            let Some(adjacency) = adjacencies.get_mut(&update.link) else {
                return;
            };
            book_advertised(adjacency, &update);
            let (root, prefix) = (update.root, update.prefix);
            if let Some(group) = prefix.as_group()
                && update.after.1
                && !update.before.1
            {
                replay.start((root, group), now);
            }
            let (join, source_active) = update.after;
            let element = join_state(root, prefix, join, source_active);
            if join.is_some() || source_active {
                advertised.push((update.payer.turn(), update.link, element));
            } else {
                // a withdrawal makes room for the rest
                batches.entry(update.link).or_default().push(&element);
            }
        };
        let changed = trees.flush(&mut advertise);
        advertised.sort_by_key(|(turn, ..)| *turn);
        for (_, link, element) in advertised {
            batches.entry(link).or_default().push(&element);
        }
        outbox
            .drops
            .add(DropReason::JoinWithheld, trees.take_withheld());
        for link in &pending_on {
            self.push_retries(*link, trees, &mut batches);
        }
        if self.next_audit.is_some_and(|at| at <= now) {
            self.timers_stale = true;
            self.push_audits(&mut batches, now);
        }
        self.emit(batches, outbox, |link, message| Output::Control {
            link,
            message,
        });
        let mut batches: BTreeMap<LinkId, Batch> = BTreeMap::new();
        for (link, message) in outgoing.routed {
            let batch = batches.entry(link).or_default();
            batch.push(&Element::Routed(message));
        }
        self.emit(batches, outbox, |link, message| Output::RoutedControl {
            link,
            message,
        });
        changed
    }

    /// Adds HELLO on a new link, then pending elements, then refusals.
    fn push_pending(&mut self, link: LinkId, node: &Node, batches: &mut BTreeMap<LinkId, Batch>) {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        let mut elements = Vec::new();
        if std::mem::take(&mut adjacency.is_new) {
            elements.push(Element::Hello {
                incarnation: node.config.incarnation,
                salt: self.salt,
            });
        }
        elements.append(&mut adjacency.pending);
        let refusals = adjacency.refusals.take_refusals().into_iter();
        elements.extend(refusals.map(|((root, prefix), reason)| Element::Refusal {
            reason,
            root,
            prefix,
        }));
        if !elements.is_empty() {
            let batch = batches.entry(link).or_default();
            elements.iter().for_each(|element| batch.push(element));
        }
    }

    /// Adds due refused join state, if it is still advertised.
    fn push_retries(&mut self, link: LinkId, trees: &Trees, batches: &mut BTreeMap<LinkId, Batch>) {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        for (root, prefix) in adjacency.refusals.take_again() {
            let Some((join, source_active)) = trees.advertised_to(link, root, prefix) else {
                adjacency.refusals.forget((root, prefix));
                continue;
            };
            adjacency
                .advertised
                .toggle(root, prefix, &join, source_active);
            let batch = batches.entry(link).or_default();
            batch.push(&join_state(root, prefix, &join, source_active));
        }
    }

    /// Adds digests behind all join state, so that they match it at the neighbour.
    fn push_audits(&mut self, batches: &mut BTreeMap<LinkId, Batch>, now: Instant) {
        for (link, adjacency) in self.adjacencies.iter_mut() {
            if adjacency.next_audit <= now + AUDIT_SLACK {
                adjacency.next_audit = now + AUDIT_EVERY;
                let digest = Audit::Digest(adjacency.advertised.total());
                let batch = batches.entry(link).or_default();
                batch.push(&Element::Audit(digest));
            }
        }
    }

    fn emit(
        &self,
        batches: BTreeMap<LinkId, Batch>,
        outbox: &mut Outbox,
        output: impl Fn(LinkId, Bytes) -> Output,
    ) {
        for (link, batch) in batches {
            if !self.adjacencies.contains_key(&link) {
                continue;
            }
            for message in batch.finish() {
                outbox.counters.control_tx_messages += 1;
                outbox.counters.control_tx_bytes += message.len() as u64;
                outbox.push(output(link, message));
            }
        }
    }
}

fn book_advertised(adjacency: &mut Adjacency, update: &JoinUpdate<'_>) {
    let key @ (root, prefix) = (update.root, update.prefix);
    if !adjacency.refusals.is_refused(key) {
        let (join, source_active) = update.before;
        adjacency
            .advertised
            .toggle(root, prefix, join, source_active);
    }
    adjacency.refusals.forget(key);
    let (join, source_active) = update.after;
    adjacency
        .advertised
        .toggle(root, prefix, join, source_active);
}
