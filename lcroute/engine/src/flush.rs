//! The end of a turn: what its inputs changed becomes control messages, queries and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::id::LinkId;
use librecast::mld::{self, Record, RecordType};

use crate::adjacency::Adjacency;
use crate::audit::{AUDIT_EVERY, AUDIT_SLACK};
use crate::classify::is_source_specific;
use crate::control::{Audit, Batch, Element, JoinState};
use crate::engine::Engine;
use crate::lsdb::Message;
use crate::output::Output;
use crate::proxy::ROUTER_ADDRESS;
use crate::source_filter::{SourceFilter, merge};
use crate::topology::TopologyEvent;
use crate::trees::JoinUpdate;

impl Engine {
    /// Neighbours first: a JOIN should not wait behind reports.
    pub(crate) fn flush(&mut self) {
        self.flush_topology();
        self.settle();
        self.flush_control();
        if self.has_started() {
            self.flush_queries();
        }
        self.flush_reports();
    }

    fn flush_topology(&mut self) {
        while let Some(event) = self.topology.poll_event() {
            match event {
                TopologyEvent::LinkRequest { link, request } => {
                    if let Some(adjacency) = self.adjacencies.get_mut(&link) {
                        adjacency.say.push(Element::LinkRequest(request));
                        self.pending_on.insert(link);
                    }
                    self.review_standing(link);
                }
                TopologyEvent::Standing { link } => self.review_standing(link),
                TopologyEvent::Wanted(wanted) => self.outputs.push_back(Output::Wanted(wanted)),
                TopologyEvent::Retire { link } => self.outputs.push_back(Output::Retire { link }),
            }
        }
    }

    /// Others hear of links that are wanted.
    pub(crate) fn review_standing(&mut self, link: LinkId) {
        let standing = self.topology.standing(link);
        self.database.set_standing(link, standing, self.now);
    }

    fn flush_control(&mut self) {
        let mut batches: BTreeMap<LinkId, Batch> = BTreeMap::new();
        let salt = self.salt;
        let pending_on = std::mem::take(&mut self.pending_on);
        for link in &pending_on {
            let Some(adjacency) = self.adjacencies.get_mut(link) else {
                continue;
            };
            let mut elements = Vec::new();
            if std::mem::take(&mut adjacency.is_new) {
                elements.push(Element::Hello {
                    incarnation: self.config.incarnation,
                    salt,
                });
            }
            elements.append(&mut adjacency.say);
            push_refusals(&mut elements, adjacency);
            if !elements.is_empty() {
                let batch = batches.entry(*link).or_default();
                elements.iter().for_each(|element| batch.push(element));
            }
        }
        for (link, message) in self.database.take_messages() {
            let batch = batches.entry(link).or_default();
            batch.push(&match message {
                Message::Lsa(record) => Element::Lsa(record),
                Message::Summary(summary) => Element::Summary(summary),
            });
        }
        let (adjacencies, late, now) = (&mut self.adjacencies, &mut self.late, self.now);
        let mut say = |update: JoinUpdate<'_>| {
            let Some(adjacency) = adjacencies.get_mut(&update.link) else {
                return;
            };
            book_advertised(adjacency, &update);
            if let Some(group) = update.prefix.as_group()
                && update.after.1
                && !update.before.1
            {
                late.open((update.root, group), now);
            }
            let batch = batches.entry(update.link).or_default();
            batch.push(&Element::JoinState(JoinState {
                root: update.root,
                prefix: update.prefix,
                wanted: update.after.0.filter(),
                sending: update.after.1,
            }));
        };
        let changed = self.trees.flush(&mut say);
        self.push_retries(&pending_on, &mut batches);
        if self.audit_is_due() {
            self.link_timers_stale = true;
            self.push_audits(&mut batches);
        }
        self.emit_control(batches, |link, message| Output::Control { link, message });
        let mut routed: BTreeMap<LinkId, Batch> = BTreeMap::new();
        for (link, message) in std::mem::take(&mut self.routed) {
            let batch = routed.entry(link).or_default();
            batch.push(&Element::Routed(message));
        }
        self.emit_control(routed, |link, message| Output::RoutedControl {
            link,
            message,
        });
        for (root, group) in changed {
            self.release(group);
            self.send_late(root, group);
            self.interest_changed.insert(group);
        }
    }

    fn emit_control(
        &mut self,
        batches: BTreeMap<LinkId, Batch>,
        output: impl Fn(LinkId, Bytes) -> Output,
    ) {
        for (link, batch) in batches {
            if !self.adjacencies.contains_key(&link) {
                continue;
            }
            for message in batch.finish() {
                self.counters.control_tx_messages += 1;
                self.counters.control_tx_bytes += message.len() as u64;
                self.outputs.push_back(output(link, message));
            }
        }
    }

    fn push_retries(&mut self, links: &BTreeSet<LinkId>, batches: &mut BTreeMap<LinkId, Batch>) {
        for link in links {
            let Some(adjacency) = self.adjacencies.get_mut(link) else {
                continue;
            };
            for (root, prefix) in adjacency.refusals.take_again() {
                let Some((want, sending)) = self.trees.advertised_to(*link, root, prefix) else {
                    adjacency.refusals.forget((root, prefix));
                    continue;
                };
                adjacency.advertised.toggle(root, prefix, &want, sending);
                let batch = batches.entry(*link).or_default();
                batch.push(&Element::JoinState(JoinState {
                    root,
                    prefix,
                    wanted: want.filter(),
                    sending,
                }));
            }
        }
    }

    /// Behind all that was advertised: so the digest fits what the other side has received when it reads it.
    fn push_audits(&mut self, batches: &mut BTreeMap<LinkId, Batch>) {
        for (link, adjacency) in self.adjacencies.iter_mut() {
            if adjacency.next_audit <= self.now + AUDIT_SLACK {
                adjacency.next_audit = self.now + AUDIT_EVERY;
                let digest = Audit::Digest(adjacency.advertised.total());
                batches
                    .entry(link)
                    .or_default()
                    .push(&Element::Audit(digest));
            }
        }
    }

    fn flush_queries(&mut self) {
        for query in self.querier.take_queries() {
            // whoever asks: the proxy is a listener of this link as any other
            self.proxy.handle_query(&query, self.now);
            self.emit_mld(mld::query_packet(ROUTER_ADDRESS, &query));
            if query.group.is_none() {
                self.join_all_nodes();
            }
        }
    }

    /// Each host listens to all nodes, and none reports that (RFC 9777, section 6).
    fn join_all_nodes(&mut self) {
        if self.scopes.contains(mld::ALL_NODES) {
            let record = Record::new(RecordType::ModeIsExclude, mld::ALL_NODES, Vec::new());
            let result = self.querier.handle_lsa(ROUTER_ADDRESS, &record, self.now);
            self.count(result);
        }
    }

    fn flush_reports(&mut self) {
        for group in std::mem::take(&mut self.interest_changed) {
            let wanted = self
                .remote_interest(group)
                .filter(|_| self.scopes.contains(group) && self.is_watched(group));
            self.proxy.set(group, wanted, self.now);
        }
        self.proxy.handle_timeout(self.now);
        let records = self.proxy.take_records();
        for packet in mld::report_packets(ROUTER_ADDRESS, &records, self.config.mtu.into()) {
            self.emit_mld(packet);
        }
    }

    /// What the rest of the network wants of this host: on the group's tree, and on the one that was its
    /// tree until a moment ago, as listeners go over in their own time.
    fn remote_interest(&self, group: Ipv6Addr) -> Option<SourceFilter> {
        let present = self.sources.present(group);
        let root = self.root_of(group);
        let before: Vec<_> = if is_source_specific(group) {
            Vec::new()
        } else {
            self.routing.roots_before().filter(|r| *r != root).collect()
        };
        let roots = before.into_iter().chain([root]);
        let parts: Vec<_> = roots
            .filter_map(|root| self.trees.wanted_of(root, group, &present))
            .collect();
        merge(&parts)
    }

    fn emit_mld(&mut self, packet: Vec<u8>) {
        self.count_local(packet.len());
        self.outputs.push_back(Output::LocalMld {
            packet: packet.into(),
        });
    }
}

fn book_advertised(adjacency: &mut Adjacency, update: &JoinUpdate<'_>) {
    let (root, prefix) = (update.root, update.prefix);
    if !adjacency.refusals.is_refused((root, prefix)) {
        let (want, sending) = update.before;
        adjacency.advertised.toggle(root, prefix, want, sending);
    }
    adjacency.refusals.forget((root, prefix));
    let (want, sending) = update.after;
    adjacency.advertised.toggle(root, prefix, want, sending);
}

fn push_refusals(elements: &mut Vec<Element>, adjacency: &mut Adjacency) {
    for ((root, prefix), reason) in adjacency.refusals.take_refusals() {
        elements.push(Element::Refusal {
            reason,
            root,
            prefix,
        });
    }
}
