//! Control messages: what neighbours say.

use std::sync::Arc;

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use crate::adjacency::{JOIN_RATE, PREFIX_CHARGE};
use crate::audit::{self, AUDIT_SLACK, Digests, REPAIR_GAP};
use crate::control::{Audit, Element, JoinState, Prefix, RefusalReason};
use crate::drops::DropReason;
use crate::engine::Engine;
use crate::join::Join;
use crate::lsdb::{DatabaseEvent, Lsa};
use crate::output::{LinkFault, Output};

/// How long the duplicate window of a router is kept that cannot be reached any more.
const WINDOW_MEMORY: Duration = Duration::from_secs(10);

/// Messages from neighbours.
impl Engine {
    pub(crate) fn handle_elements(
        &mut self,
        link: LinkId,
        elements: Vec<Element>,
    ) -> Result<(), LinkFault> {
        for element in elements {
            let Some(adjacency) = self.adjacencies.get_mut(&link) else {
                return Ok(());
            };
            if adjacency.incarnation.is_none() && !matches!(element, Element::Hello { .. }) {
                return Err(LinkFault::BeforeHello);
            }
            match element {
                Element::Hello { .. } if adjacency.incarnation.is_some() => {
                    return Err(LinkFault::SecondHello);
                }
                Element::Hello { incarnation, salt } => {
                    adjacency.incarnation = Some(incarnation);
                    adjacency.received = Some(Digests::new(salt, adjacency.origin()));
                }
                Element::JoinState(interest) => self.handle_interest(link, interest),
                Element::Refusal {
                    reason,
                    root,
                    prefix,
                } => self.handle_refusal(link, root, prefix, reason),
                Element::Summary(summary) => {
                    let result = self.database.handle_summary(link, &summary, self.now);
                    self.count(result);
                }
                Element::Lsa(lsa) => {
                    let Lsa { kind, bytes } = lsa;
                    let result = self.database.handle_lsa(link, kind, &bytes, self.now);
                    self.count(result);
                }
                Element::Routed(routed) => {
                    let result = self.handle_routed(link, routed);
                    self.count(result);
                }
                Element::Audit(audit) => self.handle_audit(link, &audit),
                Element::LinkRequest(request) => {
                    self.topology.set_peer_request(link, request, self.now);
                    self.review_standing(link);
                }
            }
        }
        Ok(())
    }

    fn handle_interest(&mut self, link: LinkId, interest: JoinState) {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        let JoinState {
            root,
            prefix,
            wanted,
            sending,
        } = interest;
        let want = Join::from(wanted);
        let (limits, now) = (&self.config.limits, self.now);
        let Some(received) = &mut adjacency.received else {
            return;
        };
        let booked = if let Some(group) = prefix.as_group() {
            let before = self.trees.received(link, root, group);
            if before.was.0 == want && before.was.1 == sending {
                return;
            }
            // an end is paid with its beginning
            let is_end = !sending && !want.is_some();
            let booked = if is_end || adjacency.joins.take(JOIN_RATE, now) {
                adjacency.account.book(&before, &want, sending, limits)
            } else {
                adjacency.account.forget(&before);
                self.drops.count(DropReason::JoinLimited);
                Err(RefusalReason::TooManyGroups)
            };
            received.toggle(root, prefix, &before.was.0, before.was.1);
            let (want, sending) = match booked {
                Ok(()) => (want, sending),
                Err(_) => (Join::None, false),
            };
            received.toggle(root, prefix, &want, sending);
            self.trees.set_received(link, root, group, want, sending);
            booked
        } else {
            let before = self.trees.has_received_prefix(link, root, prefix);
            let booked = if before == sending {
                Ok(())
            } else if !sending || adjacency.joins.take_many(PREFIX_CHARGE, JOIN_RATE, now) {
                adjacency.account.book_prefix(before, sending, limits)
            } else {
                self.drops.count(DropReason::JoinLimited);
                Err(RefusalReason::TooManyGroups)
            };
            let sending = sending && booked.is_ok();
            if before != sending {
                received.toggle(root, prefix, &Join::None, before);
                received.toggle(root, prefix, &Join::None, sending);
                self.trees.set_received_prefix(link, root, prefix, sending);
            }
            if want.is_some() {
                Err(RefusalReason::JoinedPrefix)
            } else {
                booked
            }
        };
        if let Err(reason) = booked {
            self.drops.count(DropReason::JoinRefused);
            adjacency.refusals.refuse((root, prefix), reason);
            self.pending_on.insert(link);
        }
    }

    fn handle_refusal(
        &mut self,
        link: LinkId,
        root: OriginId,
        prefix: Prefix,
        reason: RefusalReason,
    ) {
        let Some((want, sending)) = self.trees.advertised_to(link, root, prefix) else {
            return;
        };
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            let (random, now) = (&mut self.random, self.now);
            let key = (root, prefix);
            if adjacency.refusals.handle_refusal(key, reason, random, now) {
                self.link_timers_stale = true;
                adjacency.advertised.toggle(root, prefix, &want, sending);
            }
        }
    }

    fn handle_audit(&mut self, link: LinkId, audit: &Audit) {
        // what there is to say then is left to the flush
        self.pending_on.insert(link);
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        match audit {
            Audit::Digest(digest) => {
                if adjacency.next_audit <= self.now + AUDIT_SLACK {
                    adjacency.next_audit = self.now;
                    self.next_audit = Some(self.now);
                }
                let Some(received) = adjacency.received.as_ref().filter(|h| h.total() != *digest)
                else {
                    return;
                };
                self.drops.count(DropReason::AuditDiffers);
                // two kilobytes for a dozen bytes
                if adjacency
                    .compared
                    .is_some_and(|at| self.now < at + REPAIR_GAP)
                {
                    return;
                }
                (adjacency.compared, adjacency.awaits_reset) = (Some(self.now), true);
                let buckets = Audit::BucketDigests(Box::new(*received.buckets()));
                adjacency.say.push(Element::Audit(buckets));
            }
            Audit::BucketDigests(buckets) => {
                let soon = |at: Instant| self.now < at + REPAIR_GAP;
                let bits = adjacency.advertised.differing(buckets);
                if adjacency.repaired.is_some_and(soon) || bits.iter().all(|word| *word == 0) {
                    return;
                }
                adjacency.repaired = Some(self.now);
                adjacency.say.push(Element::Audit(Audit::Reset(bits)));
                let lies_in =
                    |root, prefix| audit::is_in(&bits, adjacency.advertised.bucket(root, prefix));
                for (root, prefix, want, sending) in self.trees.advertised_in(link, &lies_in) {
                    if adjacency.refusals.is_refused((root, prefix)) {
                        continue;
                    }
                    adjacency.say.push(Element::JoinState(JoinState {
                        root,
                        prefix,
                        wanted: want.filter(),
                        sending,
                    }));
                }
            }
            // each costs a walk through all interest: only what was asked for
            Audit::Reset(_) if !adjacency.awaits_reset => {
                self.drops.count(DropReason::BadControl);
            }
            Audit::Reset(bits) => {
                adjacency.awaits_reset = false;
                let Some(received) = &adjacency.received else {
                    return;
                };
                let lies_in = |root, prefix| audit::is_in(bits, received.bucket(root, prefix));
                let void = self.trees.received_in(link, &lies_in);
                for (root, prefix) in void {
                    self.handle_interest(
                        link,
                        JoinState {
                            root,
                            prefix,
                            wanted: None,
                            sending: false,
                        },
                    );
                }
            }
        }
    }

    pub(crate) fn handle_database_events(&mut self) {
        for event in self.database.take_events() {
            match event {
                DatabaseEvent::Incarnation(origin, incarnation) if origin == self.own => {
                    self.config.incarnation = incarnation;
                    self.outputs.push_back(Output::Incarnation(incarnation));
                }
                DatabaseEvent::Incarnation(origin, incarnation) => {
                    self.origins.confirm(origin, incarnation);
                    self.late.clear();
                }
                DatabaseEvent::RouterUp(origin) => self.announce_reachable(origin, true),
                DatabaseEvent::RouterDown(origin) => self.announce_reachable(origin, false),
                DatabaseEvent::Revoked(key, record) => {
                    self.outputs.push_back(Output::Revoked { key, record });
                }
                DatabaseEvent::CredentialChanged(origin) => {
                    if let Some(router) = self.database.router(origin) {
                        let credential = Arc::clone(router.credential());
                        self.outputs.push_back(Output::Renewed { credential });
                    }
                }
                DatabaseEvent::Dropped(reason) => self.drops.count(reason),
                DatabaseEvent::Forged(link) => {
                    self.fault(link, LinkFault::Forged);
                    self.find_neighbors();
                }
                DatabaseEvent::RpsChanged => {}
            }
        }
    }

    fn announce_reachable(&mut self, origin: OriginId, up: bool) {
        if origin == self.own {
            return;
        }
        self.gone.retain(|(_, gone)| *gone != origin);
        if !up {
            self.gone.insert((self.now + WINDOW_MEMORY, origin));
        }
        self.outputs.push_back(Output::Reachable { origin, up });
    }
}
