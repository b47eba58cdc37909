//! The way of packets: from local programs, from neighbours, to both.

use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use librecast::id::{LinkId, OriginId};
use librecast::mld::{self, Message};
use librecast::time::Duration;

use crate::classify::{Class, Flow, flow_of, is_source_specific, trim};
use crate::config::NodeSources;
use crate::drops::DropReason;
use crate::engine::{Engine, ICMP_RATE};
use crate::graph::Tree;
use crate::header::{DataHeader, HEADER_LEN, HOP_LIMIT, MAX_SEQUENCE};
use crate::lsdb::FLAG_UNICAST;
use crate::output::{Links, Output};
use crate::proxy::ROUTER_ADDRESS;
use crate::routing::sending_root;
use crate::table::Table;
use crate::trees::Trees;
use crate::unicast::{IcmpError, is_same_network};

/// A program has reported while `lc0` had no link-local address: the next query comes after this time.
const UNSPECIFIED_SOURCE_GAP: Duration = Duration::from_secs(5);
/// Trees of unicast destinations that are remembered.
const MAX_PATHS: usize = 1_024;

/// The way to another router.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(crate) tree: Arc<Tree>,
    pub(crate) next: Option<LinkId>,
}

/// Packets from local programs.
impl Engine {
    pub(crate) fn send(&mut self, flow: Flow, packet: Bytes) -> Result<(), DropReason> {
        if !self.sources.allows(flow.source, flow.group) {
            return Err(DropReason::ForeignSource);
        }
        let may_send = &self.config.member.prefixes;
        if !may_send.iter().any(|p| p.contains(flow.group)) {
            return Err(DropReason::NotPermitted);
        }
        let (group, now) = (flow.group, self.now);
        let (own, database) = (self.own, &self.database);
        let on_own = self.routing.sends_on_own.then_some(own);
        let root = || sending_root(database, own, on_own, group);
        let (root, is_new) = self.local.send(group, root, &mut self.trees, now);
        if is_new {
            self.unflushed = true;
            self.interest_changed.insert(group);
            if root != own {
                // S is advertised when this turn ends, and this packet goes out before
                self.late.open((root, group), now);
            }
        }
        let route = self.trees.route(root, group, flow.source);
        let Some(way) = route.filter(|way| !way.links().is_empty()) else {
            let waits = self.held.offer(flow, &packet, now);
            return if waits {
                Ok(())
            } else {
                Err(DropReason::NoListener)
            };
        };
        way.traffic.count(flow.source, packet.len(), now);
        let links = way.links().clone();
        self.emit_data(root, links, packet);
        Ok(())
    }

    fn emit_data(&mut self, root: OriginId, links: Links, packet: Bytes) {
        // 48 bits last for eighty years at 100,000 packets a second
        self.sequence = (self.sequence + 1) & MAX_SEQUENCE;
        let header = DataHeader {
            flags: 0,
            hop_limit: HOP_LIMIT,
            root,
            origin: self.own,
            incarnation: self.config.incarnation,
            sequence: self.sequence,
            key_epoch: 0,
        };
        if !self.late.is_idle()
            && let Some(flow) = flow_of(&packet)
        {
            self.late.keep(flow, header, &packet, &links);
        }
        self.transmit(links, header, packet);
    }

    fn transmit(&mut self, links: Links, header: DataHeader, packet: Bytes) {
        self.counters.link_tx_packets += links.len() as u64;
        self.counters.link_tx_bytes += (links.len() * (HEADER_LEN + packet.len())) as u64;
        self.outputs.push_back(Output::Data {
            links,
            header: header.encode(),
            packet,
        });
    }

    /// JoinState in `group` has changed: packets that waited go out, if somebody wants them now.
    pub(crate) fn release(&mut self, group: Ipv6Addr) {
        if self.held.len() == 0 {
            return;
        }
        let Some(root) = self.local.sending_root(group, self.now) else {
            return;
        };
        for source in self.sources.present(group) {
            let wanted = |trees: &mut Trees| {
                let way = trees.route(root, group, source)?;
                Some(way.links().clone()).filter(|links| !links.is_empty())
            };
            let Some(links) = wanted(&mut self.trees) else {
                continue;
            };
            for packet in self.held.release(Flow { source, group }) {
                if let Some(way) = self.trees.route(root, group, source) {
                    way.traffic.count(source, packet.len(), self.now);
                }
                self.emit_data(root, links.clone(), packet);
            }
        }
    }

    /// Packets that went out a moment ago follow over links that want them now.
    pub(crate) fn send_late(&mut self, root: OriginId, group: Ipv6Addr) {
        if self.late.is_idle() {
            return;
        }
        let trees = &mut self.trees;
        let wanting = |source| Some(trees.route(root, group, source)?.links().clone());
        for (links, header, packet) in self.late.take_new((root, group), wanting) {
            self.transmit(links, header, packet);
        }
    }

    pub(crate) fn handle_mld(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        self.unflushed = true;
        let now = self.now;
        let (source, message) = mld::parse_packet(packet).map_err(|_| DropReason::BadMld)?;
        if source.is_unspecified() {
            // RFC 9777 §5.2.13: ignored; whoever joined is asked again
            self.querier.query_again(UNSPECIFIED_SOURCE_GAP, now);
            return Err(DropReason::MldUnspecifiedSource);
        }
        if source == ROUTER_ADDRESS {
            // our own, come back from a bridge
            return Err(DropReason::BadMld);
        }
        match message {
            Message::Query(query) => self.proxy.handle_query(&query, now),
            Message::Report(records) => {
                for record in records.iter().filter(|r| self.scopes.contains(r.group)) {
                    let result = self.querier.handle_lsa(source, record, now);
                    if let Err(reason) = result {
                        self.drops.count(reason);
                    }
                }
            }
            Message::ReportV1 { group } if self.understands_v1(group) => {
                self.querier.handle_v1_report(source, group, now)?;
            }
            Message::DoneV1 { group } if self.understands_v1(group) => {
                self.querier.handle_v1_done(source, group, now);
            }
            Message::ReportV1 { .. } | Message::DoneV1 { .. } => {}
        }
        Ok(())
    }

    /// Version 1 knows no sources, so it says nothing about source-specific groups (RFC 4604 §2.2.2).
    fn understands_v1(&self, group: Ipv6Addr) -> bool {
        self.scopes.contains(group) && !is_source_specific(group)
    }

    pub(crate) fn send_unicast(&mut self, flow: Flow, packet: Bytes) -> Result<(), DropReason> {
        if !self.config.unicast {
            return Err(DropReason::UnicastOff);
        }
        let to = flow.group;
        let is_link_local = to.is_unicast_link_local();
        if !self.sources.allows_unicast(flow.source, is_link_local) {
            return Err(DropReason::ForeignSource);
        }
        if to == self.config.member.addresses.address || OriginId::of(to) == self.own {
            return Err(DropReason::NoRoute);
        }
        let refuse = |engine: &mut Self, error: IcmpError, reason| {
            engine.answer_icmp(error, &packet);
            Err(reason)
        };
        if !is_link_local && !is_same_network(to, self.config.member.addresses.address) {
            return refuse(self, IcmpError::NoRoute, DropReason::NoRoute);
        }
        let Some(router) = self.database.router(OriginId::of(to)) else {
            return refuse(self, IcmpError::NoRoute, DropReason::NoRoute);
        };
        let addresses = router.credential().member.addresses;
        if to != addresses.address && to != addresses.link_local {
            return refuse(self, IcmpError::NoRoute, DropReason::NoRoute);
        }
        let takes_unicast = router.has_flag(FLAG_UNICAST);
        let mtu = router.advertisement().map_or(u16::MAX, |a| a.mtu());
        if !takes_unicast {
            return refuse(self, IcmpError::Prohibited, DropReason::UnicastOff);
        }
        if packet.len() > usize::from(mtu) {
            return refuse(self, IcmpError::TooBig(mtu), DropReason::TooBig);
        }
        let root = addresses.origin;
        let Some(next) = self.path(root).and_then(|p| p.next) else {
            let error = IcmpError::AddressUnreachable;
            return refuse(self, error, DropReason::NoRoute);
        };
        self.emit_data(root, Links::from([next]), packet);
        Ok(())
    }

    /// A router's error message, into `lc0`.
    fn answer_icmp(&mut self, error: IcmpError, packet: &[u8]) {
        if !self.icmp.take(ICMP_RATE, self.now) {
            return;
        }
        if let Some(answer) = error.answer(packet) {
            self.count_local(answer.len());
            let packet = answer.into();
            self.outputs.push_back(Output::Local { packet });
        }
    }

    /// The way to a router, from the graph as it was last looked at.
    pub(crate) fn path(&mut self, to: OriginId) -> Option<&Path> {
        if self.paths.get(&to).is_none() {
            if self.paths.len() >= MAX_PATHS {
                self.paths = Table::new(self.config.seed);
            }
            let tree = Tree::of(&self.graph, to, None)?;
            let next = tree.parent(self.own);
            let next = next.and_then(|n| self.neighbors.get(&n)).copied();
            self.paths.insert(to, Path { tree, next });
        }
        self.paths.get(&to)
    }
}

/// Packets from neighbours.
impl Engine {
    pub(crate) fn receive(
        &mut self,
        link: LinkId,
        header: Option<DataHeader>,
        mut packet: Bytes,
    ) -> Result<(), DropReason> {
        let adjacency = self.adjacencies.get(&link).filter(|a| !a.faulty);
        adjacency.ok_or(DropReason::UnknownLink)?;
        let header = header.ok_or(DropReason::BadHeader)?;
        if header.hop_limit == 0 {
            return Err(DropReason::HopLimit);
        }
        let flow = match self.scopes.classify(&packet) {
            Class::Carried(flow) => flow,
            Class::Unicast(flow) => return self.receive_unicast(link, header, flow, packet),
            Class::Mld => return Err(DropReason::LinkControl),
            Class::Dropped(reason) => return Err(reason),
        };
        let Flow { source, group } = flow;
        let is_own = OriginId::of(source) == header.origin && header.origin != self.own;
        let way = self.trees.route(header.root, group, source);
        let way = way.ok_or(DropReason::NotJoined)?;
        if !is_own {
            return Err(DropReason::ForgedSource);
        }
        if !way.accepts_from(link) {
            return Err(DropReason::ReversePath);
        }
        self.origins.permit(header.origin, flow, &self.database)?;
        self.origins
            .accept(header.origin, header.incarnation, header.sequence)?;
        trim(&mut packet);
        let links = if way.links().contains(&link) {
            // it came over an edge of the tree before
            let others = way.links().iter().filter(|l| **l != link);
            others.copied().collect()
        } else {
            way.links().clone()
        };
        if !self.late.is_idle() && header.hop_limit > 1 {
            let onward = DataHeader {
                hop_limit: header.hop_limit - 1,
                ..header
            };
            self.late.keep(flow, onward, &packet, &links);
        }
        // a packet that is both passed on and delivered counts once
        let local = self.querier.wanted(group, source);
        let is_local = local.is_some();
        if links.is_empty() && !is_local {
            return Err(DropReason::NotJoined);
        }
        local
            .unwrap_or(way.traffic)
            .count(source, packet.len(), self.now);
        let passed_on = if links.is_empty() {
            Ok(())
        } else {
            self.pass_on(links, header, packet.clone())
        };
        if is_local {
            self.count_local(packet.len());
            self.outputs.push_back(Output::Local { packet });
        }
        passed_on
    }

    fn pass_on(
        &mut self,
        links: Links,
        header: DataHeader,
        packet: Bytes,
    ) -> Result<(), DropReason> {
        if header.hop_limit == 1 {
            return Err(DropReason::HopLimit);
        }
        let header = DataHeader {
            hop_limit: header.hop_limit - 1,
            ..header
        };
        self.transmit(links, header, packet);
        Ok(())
    }

    fn receive_unicast(
        &mut self,
        link: LinkId,
        header: DataHeader,
        flow: Flow,
        mut packet: Bytes,
    ) -> Result<(), DropReason> {
        let (own, to) = (self.own, flow.group);
        if OriginId::of(to) != header.root {
            return Err(DropReason::ReversePath);
        }
        let router = self.database.router(header.origin);
        let credential = router.ok_or(DropReason::ForgedSource)?.credential();
        let addresses = &credential.member.addresses;
        let source = NodeSources::of_node(addresses);
        if !source.allows_unicast(flow.source, to.is_unicast_link_local()) {
            return Err(DropReason::ForgedSource);
        }
        let path = self.path(header.root).ok_or(DropReason::NoRoute)?;
        let behind = path.tree.edge(own, header.origin);
        let next = path.next;
        let arrival = behind.and_then(|n| self.neighbors.get(&n)).copied();
        if arrival != Some(link) {
            return Err(DropReason::ReversePath);
        }
        self.origins
            .accept(header.origin, header.incarnation, header.sequence)?;
        trim(&mut packet);
        if header.root != own {
            let next = next.ok_or(DropReason::NoRoute)?;
            return self.pass_on(Links::from([next]), header, packet);
        }
        if !self.config.unicast {
            return Err(DropReason::UnicastOff);
        }
        let addresses = &self.config.member.addresses;
        if to != addresses.address && to != addresses.link_local {
            return Err(DropReason::NoRoute);
        }
        self.count_local(packet.len());
        self.outputs.push_back(Output::Local { packet });
        Ok(())
    }
}
