//! The side of a carrier: announces parts for senders that ask, under a lease.

use std::collections::BTreeMap;

use bytes::Bytes;
use librecast::bucket::{Bucket, Rate};
use librecast::cert::{GroupPrefix, Member};
use librecast::id::OriginId;
use librecast::time::{Duration, Instant};

use super::request::{Answer, Received, encode_answer, id_of};
use super::sender::may_be_carried;
use crate::config::{Consent, Node};
use crate::drops::DropReason;
use crate::lsdb::Database;
use crate::services::Services;

/// A part is announced for this long after the last CARRY that names it.
const LEASE: Duration = Duration::from_secs(60);
/// Most parts of all senders. Chosen: half of the prefixes of an advertisement.
const MAX_CARRIED: usize = 32;
/// Own use of the uplink is looked at this often while something is carried.
const INTERVAL: Duration = Duration::from_secs(1);
/// Seconds in a row above `upload` after which nothing is carried any more. Chosen: one burst is no
/// shortage.
const SECONDS_OVER: u32 = 3;
/// Nothing is carried for this long after that.
const REFUSING: Duration = Duration::from_secs(60);
/// After several copies of a part without listeners here, a sender's parts are carried only for own
/// listeners for this long. Chosen.
const PASSES_NOTHING_ON: Duration = Duration::from_secs(600);
/// Changes of parts that one sender may make: each is an advertisement and a computation of routes.
/// Chosen.
const CHANGE_RATE: Rate = Rate::every(Duration::from_secs(2), 8);
/// Senders of which a CARRY is remembered, so that nobody repeats it. Chosen: as many as routers
/// are known.
const MAX_SENDERS: usize = 4_096;
/// The least length of a part that lies in no prefix of the sender: a group and the one beside it.
const GROUP_LEN: u8 = 127;

pub(super) struct CarrierContext<'a> {
    /// This node.
    pub node: &'a Node,
    /// The other routers.
    pub database: &'a Database,
    /// The carrying that the configuration allows.
    pub consent: Consent,
    /// Whether something here has joined a group of a prefix.
    pub listens: &'a dyn Fn(&GroupPrefix) -> bool,
    /// Whether the sender is a neighbour: its shortest paths may lead over this router at any time.
    pub is_neighbor: bool,
    /// The present time.
    pub now: Instant,
}

/// Parts of one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The sender.
    pub sender: OriginId,
    /// The parts that this router announces for it.
    pub parts: Vec<GroupPrefix>,
}

#[derive(Debug)]
struct Lease {
    /// Incarnation and sequence of the last CARRY.
    version: (u32, u32),
    parts: Vec<GroupPrefix>,
    until: Instant,
    /// Those of them that nothing here listens to.
    passed_on: Vec<GroupPrefix>,
    /// There are none before.
    passes_on_from: Option<Instant>,
    changes: Bucket,
}

impl Lease {
    fn clear(&mut self) {
        (self.parts, self.passed_on) = (Vec::new(), Vec::new());
    }
}

#[derive(Debug)]
pub(super) struct Carrier {
    leases: BTreeMap<OriginId, Lease>,
    /// Nothing is carried before.
    refusing_until: Instant,
    looked_at: Instant,
    /// Bytes over all links at the last look.
    sent: u64,
    seconds_over: u32,
}

impl Carrier {
    pub fn new(now: Instant) -> Self {
        Self {
            leases: BTreeMap::new(),
            refusing_until: now,
            looked_at: now,
            sent: 0,
            seconds_over: 0,
        }
    }

    /// All parts, in the order of their senders.
    pub fn parts(&self) -> impl Iterator<Item = GroupPrefix> + '_ {
        self.leases.values().flat_map(|lease| &lease.parts).copied()
    }

    /// Whether something is carried that nothing here listens to.
    pub fn passes_on(&self) -> bool {
        self.leases
            .values()
            .any(|lease| !lease.passed_on.is_empty())
    }

    pub fn carried(&self) -> Vec<Carried> {
        let with_parts = self
            .leases
            .iter()
            .filter(|(_, lease)| !lease.parts.is_empty());
        let carried = with_parts.map(|(sender, lease)| Carried {
            sender: *sender,
            parts: lease.parts.clone(),
        });
        carried.collect()
    }

    /// Gives all parts up. True: there were some.
    pub fn clear(&mut self) -> bool {
        let had_parts = self.parts().next().is_some();
        for lease in self.leases.values_mut() {
            lease.clear();
        }
        had_parts
    }

    /// Gives the parts of a sender up. True: there were some.
    pub fn forget(&mut self, sender: OriginId) -> bool {
        let lease = self.leases.get_mut(&sender);
        lease.is_some_and(|lease| {
            let had_parts = !lease.parts.is_empty();
            lease.clear();
            had_parts
        })
    }

    /// Own use of the uplink is looked at while something is carried.
    pub fn next_timeout(&self) -> Option<Instant> {
        let held = self.leases.values().filter(|lease| !lease.parts.is_empty());
        let first = held.map(|lease| lease.until).min()?;
        Some(first.min(self.looked_at + INTERVAL))
    }

    /// Leases end, and so does carrying where the own uplink is slow. `sent`: bytes over all links
    /// since the start. True: other parts are announced.
    pub fn handle_timeout(&mut self, upload: Option<u64>, sent: u64, now: Instant) -> bool {
        let before = self.parts().count();
        let over = self.leases.values_mut().filter(|l| l.until <= now);
        over.for_each(Lease::clear);
        if now >= self.looked_at + INTERVAL {
            let elapsed = now.saturating_duration_since(self.looked_at).as_millis();
            let millis = u64::try_from(elapsed).unwrap_or(u64::MAX).max(1);
            let rate = sent.saturating_sub(self.sent).saturating_mul(8_000) / millis;
            (self.looked_at, self.sent) = (now, sent);
            let is_over = upload.is_some_and(|upload| rate > upload);
            self.seconds_over = if is_over { self.seconds_over + 1 } else { 0 };
            if self.seconds_over >= SECONDS_OVER && self.clear() {
                self.refusing_until = now + REFUSING;
                self.seconds_over = 0;
            }
        }
        before != self.parts().count()
    }

    /// A CARRY: the answer, and whether other parts are announced now.
    pub fn handle_request(
        &mut self,
        from: OriginId,
        payload: &[u8],
        context: &CarrierContext<'_>,
        services: &dyn Services,
    ) -> Result<(Bytes, bool), DropReason> {
        let received = Received::decode(payload).map_err(|_| DropReason::CarryRefused)?;
        let request = &received.request;
        let version = (request.incarnation, request.sequence);
        let known = self.leases.get(&from);
        let router = context.database.router(from);
        let sender = router.filter(|router| router.is_reachable());
        let sender = sender.map(|router| &router.credential().member);
        // cheap first: a signature is verified once for each CARRY
        let is_newer = known.is_none_or(|lease| version > lease.version);
        let (true, Some(sender)) = (is_newer, sender) else {
            return Err(DropReason::CarryRefused);
        };
        let signed = received.signed(context.node.own);
        if !services.verify(&sender.peer, &signed, &received.signature) {
            return Err(DropReason::CarryRefused);
        }
        let others = self.leases.iter().filter(|(x, _)| **x != from);
        let others: usize = others.map(|(_, lease)| lease.parts.len()).sum();
        // half of the free room for each: a few senders leave room for others
        let room = MAX_CARRIED.saturating_sub(others).div_ceil(2);
        let before = known.map(|lease| lease.parts.clone()).unwrap_or_default();
        let (mut parts, mut passed_on, mut answer) = (Vec::new(), Vec::new(), Answer::Yes);
        for part in &request.parts {
            let has_room = parts.len() < room;
            let refusal = self.refusal(part, (from, sender), has_room, context);
            match refusal {
                None => parts.push(*part),
                Some(Answer::NotJoined) if self.may_pass_on(from, context) => {
                    parts.push(*part);
                    passed_on.push(*part);
                }
                Some(reason) => answer = reason,
            }
        }
        let changed = parts != before;
        self.make_room(from);
        let now = context.now;
        let lease = self.leases.entry(from).or_insert_with(|| Lease {
            version,
            parts: Vec::new(),
            until: now,
            passed_on: Vec::new(),
            passes_on_from: None,
            changes: Bucket::full(now),
        });
        if changed && !lease.changes.take(CHANGE_RATE, 1, now) {
            return Err(DropReason::CarryRefused);
        }
        (lease.version, lease.parts, lease.until) = (version, parts, now + LEASE);
        lease.passed_on = passed_on;
        self.check();
        Ok((encode_answer(id_of(&received.signature), answer), changed))
    }

    /// Asserts the bounds of all senders together.
    fn check(&self) {
        debug_assert!(self.parts().count() <= MAX_CARRIED, "parts have a bound");
        debug_assert!(
            self.leases.len() <= MAX_SENDERS,
            "senders without parts give way"
        );
        let is_part = |lease: &Lease| lease.passed_on.iter().all(|p| lease.parts.contains(p));
        debug_assert!(
            self.leases.values().all(is_part),
            "parts without listeners are announced"
        );
    }

    /// The sender that was silent for the longest time is forgotten for a new one.
    fn make_room(&mut self, from: OriginId) {
        if self.leases.len() < MAX_SENDERS || self.leases.contains_key(&from) {
            return;
        }
        let free = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.parts.is_empty());
        let oldest = free.min_by_key(|(_, lease)| lease.until);
        if let Some(oldest) = oldest.map(|(sender, _)| *sender) {
            self.leases.remove(&oldest);
        }
    }

    /// Why a part is not carried.
    fn refusal(
        &self,
        part: &GroupPrefix,
        (from, sender): (OriginId, &Member),
        has_room: bool,
        context: &CarrierContext<'_>,
    ) -> Option<Answer> {
        let permits = |member: &Member| member.prefixes.iter().any(|p| p.covers(part));
        let own = &context.node.config.member;
        let around = |of_sender: bool| {
            let announced = context.database.announced();
            let around = announced.filter(|(prefix, _)| *prefix != part && prefix.covers(part));
            let mut announced = around
                .filter(move |(_, announced)| announced.announcers.contains(&from) == of_sender);
            announced.next().map(|(prefix, _)| *prefix)
        };
        // within a prefix of the sender's, or a group that nobody announces
        let scope = match around(true) {
            Some(prefix) => prefix,
            None if part.prefix_len() >= GROUP_LEN && around(false).is_none() => *part,
            None => return Some(Answer::NotPermitted),
        };
        if !may_be_carried(part.addr()) || !permits(sender) || !permits(own) {
            return Some(Answer::NotPermitted);
        }
        if context.consent == Consent::No || context.now < self.refusing_until {
            return Some(Answer::No);
        }
        if !has_room {
            return Some(Answer::Full);
        }
        let listens = context.consent == Consent::Any || (context.listens)(&scope);
        (!listens).then_some(Answer::NotJoined)
    }

    /// Whether parts of a sender may be carried without listeners here: any shortest path may cost
    /// one copy in and one out.
    fn may_pass_on(&self, from: OriginId, context: &CarrierContext<'_>) -> bool {
        let lease = self.leases.get(&from);
        let from = lease.and_then(|lease| lease.passes_on_from);
        context.is_neighbor && from.is_none_or(|from| from <= context.now)
    }

    /// Gives up parts without listeners here if one leaves in several copies. `copies`: of a
    /// part. True: there were such.
    pub fn limit_copies(&mut self, copies: &dyn Fn(&GroupPrefix) -> usize, now: Instant) -> bool {
        let mut has_changed = false;
        for lease in self.leases.values_mut() {
            if lease.passed_on.iter().any(|part| copies(part) > 1) {
                let passed_on = std::mem::take(&mut lease.passed_on);
                lease.parts.retain(|part| !passed_on.contains(part));
                lease.passes_on_from = Some(now + PASSES_NOTHING_ON);
                has_changed = true;
            }
        }
        has_changed
    }
}
