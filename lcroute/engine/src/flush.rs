//! The end of a turn: what its inputs changed becomes control messages, queries and reports.

use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::mld;

use crate::control::{Batch, Element, Interest, Prefix};
use crate::engine::{Adjacency, Engine};
use crate::filter::Filter;
use crate::output::Output;
use crate::proxy::ROUTER_ADDRESS;
use crate::querier::Querier;

impl Engine {
    /// Neighbours first: a JOIN should not wait behind reports.
    pub(crate) fn flush(&mut self) {
        self.flush_control();
        if self.has_started() {
            self.flush_queries();
        }
        self.flush_reports();
    }

    fn flush_control(&mut self) {
        let changes: Vec<Change> = self
            .querier
            .take_changes()
            .into_iter()
            .map(|(group, before)| Change {
                group,
                before,
                after: self.querier.filter(group).cloned(),
            })
            .collect();
        let hello = self.hello();
        for (link, adjacency) in &mut self.adjacencies {
            let mut batch = Batch::default();
            if std::mem::take(&mut adjacency.told.is_new) {
                hello.iter().for_each(|element| batch.push(element));
                push_everything(&mut batch, adjacency, &self.querier);
            } else {
                push_changes(&mut batch, adjacency, &changes);
            }
            push_retries(&mut batch, adjacency, &self.querier);
            push_refusals(&mut batch, adjacency);
            for message in batch.finish() {
                self.counters.control_tx_messages += 1;
                let message = Bytes::from(message);
                self.outputs.push_back(Output::Control {
                    link: *link,
                    message,
                });
            }
        }
    }

    /// Every router sends on its own tree, and wants to know who listens to whatever it might send.
    fn hello(&self) -> [Element; 2] {
        let sending = Interest {
            root: self.config.own.origin,
            prefix: Prefix::ALL,
            wanted: None,
            sending: true,
        };
        [
            Element::Hello {
                incarnation: self.config.incarnation,
            },
            Element::Interest(sending),
        ]
    }

    fn flush_queries(&mut self) {
        for query in self.querier.take_queries() {
            // whoever asks: the proxy is a listener of this link as any other
            self.proxy.handle_query(&query, self.now);
            self.emit_mld(mld::query_packet(ROUTER_ADDRESS, &query));
        }
    }

    fn flush_reports(&mut self) {
        let own = self.config.own.origin;
        for group in std::mem::take(&mut self.interest_changed) {
            let carried = self.scopes.contains(group);
            let present = self.sources.present(group);
            let wanted = self
                .forwarding
                .merged((own, group), &present)
                .filter(|_| carried);
            self.proxy.set(group, wanted, self.now);
        }
        self.proxy.handle_timeout(self.now);
        let records = self.proxy.take_records();
        for packet in mld::report_packets(ROUTER_ADDRESS, &records, self.config.mtu.into()) {
            self.emit_mld(packet);
        }
    }

    fn emit_mld(&mut self, packet: Vec<u8>) {
        self.count_local(packet.len());
        self.outputs.push_back(Output::LocalMld {
            packet: packet.into(),
        });
    }
}

/// A group whose local filter changed in this turn.
struct Change {
    group: Ipv6Addr,
    before: Option<Filter>,
    after: Option<Filter>,
}

/// What of `filter` concerns a neighbour's own tree: only what it can send itself.
pub(crate) fn wanted_from(
    adjacency: &Adjacency,
    group: Ipv6Addr,
    filter: &Filter,
) -> Option<Filter> {
    filter.restricted_to(&adjacency.sources.present(group))
}

fn interest(adjacency: &Adjacency, group: Ipv6Addr, wanted: Option<Filter>) -> Element {
    let root = adjacency.neighbor.origin;
    Element::Interest(Interest {
        root,
        prefix: Prefix::group(group),
        wanted,
        sending: false,
    })
}

fn push_everything(batch: &mut Batch, adjacency: &Adjacency, querier: &Querier) {
    for group in querier.groups() {
        let wanted = querier
            .filter(group)
            .and_then(|f| wanted_from(adjacency, group, f));
        if wanted.is_some() {
            batch.push(&interest(adjacency, group, wanted));
        }
    }
}

fn push_changes(batch: &mut Batch, adjacency: &mut Adjacency, changes: &[Change]) {
    for change in changes {
        let from = |f: &Option<Filter>| {
            f.as_ref()
                .and_then(|f| wanted_from(adjacency, change.group, f))
        };
        let (before, after) = (from(&change.before), from(&change.after));
        if before == after {
            continue;
        }
        if after.is_none() {
            adjacency
                .told
                .forget((adjacency.neighbor.origin, change.group));
        }
        batch.push(&interest(adjacency, change.group, after));
    }
}

fn push_retries(batch: &mut Batch, adjacency: &mut Adjacency, querier: &Querier) {
    for (_, group) in adjacency.told.take_again() {
        let wanted = querier
            .filter(group)
            .and_then(|f| wanted_from(adjacency, group, f));
        batch.push(&interest(adjacency, group, wanted));
    }
}

fn push_refusals(batch: &mut Batch, adjacency: &mut Adjacency) {
    for ((root, prefix), reason) in adjacency.told.take_refusals() {
        batch.push(&Element::Refusal {
            reason,
            root,
            prefix,
        });
    }
}
