//! Control messages: what neighbours say.

use std::sync::Arc;

use librecast::id::{LinkId, OriginId};
use librecast::time::{Duration, Instant};

use crate::adjacency::PREFIX_CHARGE;
use crate::audit::{self, AUDIT_SLACK, Digests, REPAIR_GAP};
use crate::control::{Audit, Element, Interest, Prefix, RefusalReason};
use crate::database::{DatabaseEvent, Record};
use crate::drops::DropReason;
use crate::engine::Engine;
use crate::output::{LinkFault, Output};
use crate::want::Want;

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
                    adjacency.heard = Some(Digests::new(salt, adjacency.origin()));
                }
                Element::Interest(interest) => self.handle_interest(link, interest),
                Element::Refusal {
                    reason,
                    root,
                    prefix,
                } => self.handle_refusal(link, root, prefix, reason),
                Element::Summary(summary) => {
                    let result = self.database.handle_summary(link, &summary, self.now);
                    self.count(result);
                }
                Element::Record(record) => {
                    let Record { kind, bytes } = record;
                    let result = self.database.handle_record(link, kind, &bytes, self.now);
                    self.count(result);
                }
                Element::Routed(routed) => {
                    let result = self.handle_routed(link, routed);
                    self.count(result);
                }
                Element::Audit(audit) => self.handle_audit(link, &audit),
                Element::Keep(wish) => {
                    self.topology.set_peer_wish(link, wish, self.now);
                    self.review_standing(link);
                }
            }
        }
        Ok(())
    }

    fn handle_interest(&mut self, link: LinkId, interest: Interest) {
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        let Interest {
            root,
            prefix,
            wanted,
            sending,
        } = interest;
        let want = Want::from(wanted);
        let (limits, now) = (&self.config.limits, self.now);
        let Some(heard) = &mut adjacency.heard else {
            return;
        };
        let booked = if let Some(group) = prefix.as_group() {
            let before = self.trees.heard(link, root, group);
            if before.was.0 == want && before.was.1 == sending {
                return;
            }
            // an end is paid with its beginning
            let is_end = !sending && !want.is_something();
            let booked = if is_end || adjacency.interest.take(now) {
                adjacency.account.book(&before, &want, sending, limits)
            } else {
                adjacency.account.forget(&before);
                self.drops.count(DropReason::InterestLimited);
                Err(RefusalReason::TooManyGroups)
            };
            heard.toggle(root, prefix, &before.was.0, before.was.1);
            let (want, sending) = match booked {
                Ok(()) => (want, sending),
                Err(_) => (Want::Nothing, false),
            };
            heard.toggle(root, prefix, &want, sending);
            self.trees.hear(link, root, group, want, sending);
            booked
        } else {
            let before = self.trees.has_heard_prefix(link, root, prefix);
            let booked = if before == sending {
                Ok(())
            } else if !sending || adjacency.interest.take_many(PREFIX_CHARGE, now) {
                adjacency.account.book_prefix(before, sending, limits)
            } else {
                self.drops.count(DropReason::InterestLimited);
                Err(RefusalReason::TooManyGroups)
            };
            let sending = sending && booked.is_ok();
            if before != sending {
                heard.toggle(root, prefix, &Want::Nothing, before);
                heard.toggle(root, prefix, &Want::Nothing, sending);
                self.trees.hear_prefix(link, root, prefix, sending);
            }
            if want.is_something() {
                Err(RefusalReason::WantedPrefix)
            } else {
                booked
            }
        };
        if let Err(reason) = booked {
            self.drops.count(DropReason::InterestRefused);
            adjacency.refusals.refuse((root, prefix), reason);
            self.say_on.insert(link);
        }
    }

    fn handle_refusal(
        &mut self,
        link: LinkId,
        root: OriginId,
        prefix: Prefix,
        reason: RefusalReason,
    ) {
        let Some((want, sending)) = self.trees.told_prefix(link, root, prefix) else {
            return;
        };
        if let Some(adjacency) = self.adjacencies.get_mut(&link) {
            let (random, now) = (&mut self.random, self.now);
            let key = (root, prefix);
            if adjacency.refusals.handle_refusal(key, reason, random, now) {
                self.link_timers_stale = true;
                adjacency.told.toggle(root, prefix, &want, sending);
            }
        }
    }

    fn handle_audit(&mut self, link: LinkId, audit: &Audit) {
        // what there is to say then is left to the flush
        self.say_on.insert(link);
        let Some(adjacency) = self.adjacencies.get_mut(&link) else {
            return;
        };
        match audit {
            Audit::Digest(digest) => {
                if adjacency.next_audit <= self.now + AUDIT_SLACK {
                    adjacency.next_audit = self.now;
                    self.next_audit = Some(self.now);
                }
                let Some(heard) = adjacency.heard.as_ref().filter(|h| h.total() != *digest) else {
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
                let buckets = Audit::BucketDigests(Box::new(*heard.buckets()));
                adjacency.say.push(Element::Audit(buckets));
            }
            Audit::BucketDigests(buckets) => {
                let soon = |at: Instant| self.now < at + REPAIR_GAP;
                let bits = adjacency.told.differing(buckets);
                if adjacency.repaired.is_some_and(soon) || bits.iter().all(|word| *word == 0) {
                    return;
                }
                adjacency.repaired = Some(self.now);
                adjacency.say.push(Element::Audit(Audit::Reset(bits)));
                let lies_in =
                    |root, prefix| audit::is_in(&bits, adjacency.told.bucket(root, prefix));
                for (root, prefix, want, sending) in self.trees.told_in(link, &lies_in) {
                    if adjacency.refusals.is_refused((root, prefix)) {
                        continue;
                    }
                    adjacency.say.push(Element::Interest(Interest {
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
                let Some(heard) = &adjacency.heard else {
                    return;
                };
                let lies_in = |root, prefix| audit::is_in(bits, heard.bucket(root, prefix));
                let void = self.trees.heard_in(link, &lies_in);
                for (root, prefix) in void {
                    self.handle_interest(
                        link,
                        Interest {
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
                DatabaseEvent::RootsChanged => {}
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
