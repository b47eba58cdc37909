//! Forwarding of multicast: packets from local interfaces and neighbours to both.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use librecast::id::{LinkId, OriginId};
use librecast::time::Instant;

use crate::carry::OwnFlow;
use crate::classify::{Flow, flow_of, trim};
use crate::config::Node;
use crate::context::Context;
use crate::drops::DropReason;
use crate::first_packets::FirstPacketBuffer;
use crate::header::{DataHeader, HEADER_LEN, HOP_LIMIT, MAX_SEQUENCE, Payload};
use crate::interface_id::{LC0, LocalInterfaceId, LocalInterfaces};
use crate::lan::Gateway;
use crate::local_groups::LocalGroups;
use crate::membership::Membership;
use crate::origins::Origins;
use crate::outbox::Outbox;
use crate::output::Links;
use crate::private::{Private, is_sealed};
use crate::replay::ReplayBuffer;
use crate::segment_id::is_of_segment;
use crate::services::Services;
use crate::timers::{Timer, TimerKind, timer};
use crate::trees::Trees;

/// Outgoing interfaces of one packet: links to neighbours, and local interfaces with listeners.
#[derive(Debug)]
struct OutgoingInterfaces {
    links: Links,
    local: LocalInterfaces,
}

/// Trees, flows, and state of packets.
#[derive(Debug)]
pub struct Forwarding {
    /// Join state of all trees.
    pub trees: Trees,
    /// Trees on which local groups are joined and sent to.
    pub groups: LocalGroups,
    /// Packets of flows without a listener.
    pub first_packets: FirstPacketBuffer,
    /// Packets for listeners with a Join a moment later.
    pub replay: ReplayBuffer,
    /// Duplicate windows and rights of origins.
    pub origins: Origins,
    /// Keys of private prefixes.
    pub private: Private,
    /// Sequence number of the last packet that this router sent.
    sequence: u64,
}

#[derive(Debug)]
pub struct LocalPacket {
    pub from: LocalInterfaceId,
    pub flow: Flow,
    pub packet: Bytes,
    /// Links of leaves that receive it.
    pub leaves: Links,
    /// Listeners of other local interfaces have received it.
    pub delivered: bool,
}

/// A packet that came over a link.
#[derive(Debug)]
pub struct Arrival {
    pub link: LinkId,
    pub header: DataHeader,
    pub flow: Flow,
    pub packet: Bytes,
}

/// Packets from local interfaces.
impl Forwarding {
    /// Forwarding without trees and flows.
    pub fn new(node: &Node, services: Arc<dyn Services>) -> Self {
        let (limits, seed) = (&node.config.limits, node.config.seed);
        let origins = Origins::new(limits.duplicate_window, seed);
        let mut private = Private::new(seed, limits.routers, origins.window(), services);
        private.configure(&node.config.private);
        Self {
            private,
            trees: Trees::new(limits, seed),
            groups: LocalGroups::new(node.own, limits.flows, seed),
            first_packets: FirstPacketBuffer::new(limits),
            replay: ReplayBuffer::new(limits, seed),
            origins,
            sequence: 0,
        }
    }

    /// The root of the tree of a local sender's flow; whether it is new. `root`: that of the group.
    pub fn begin_flow(
        &mut self,
        (from, group): (LocalInterfaceId, Ipv6Addr),
        len: usize,
        root: impl FnOnce() -> OriginId,
        node: &Node,
        now: Instant,
    ) -> (OriginId, bool) {
        let (root, is_new) = self
            .groups
            .send((from, group), len, root, &mut self.trees, now);
        if is_new && root != node.own {
            // SourceActive leaves at the end of this turn, after this packet
            self.replay.start((root, group), now);
        }
        (root, is_new)
    }

    /// Flows of this host's programs since the last call, those that nobody wants any more
    /// included. `neighbors`: the link that leads to each.
    pub fn take_own_flows(
        &mut self,
        neighbors: &BTreeMap<OriginId, LinkId>,
        node: &Node,
        now: Instant,
    ) -> Vec<OwnFlow> {
        let sent = self.groups.take_sent(&self.trees, now).into_iter();
        let flow = |(group, root, bytes)| {
            let sources = node.sources.present(group);
            let sender = (sources.first().copied()?, node.own);
            let mut flow = OwnFlow {
                group,
                bytes,
                all_bytes: bytes,
                neighbors: Vec::new(),
            };
            if let Some(entry) = self.trees.forward(root, group, sender) {
                flow.all_bytes += entry.traffic.take_others();
                let links = entry.links();
                let joined = neighbors.iter().filter(|(_, link)| links.contains(link));
                flow.neighbors = joined.map(|(neighbor, _)| *neighbor).collect();
            }
            Some(flow)
        };
        sent.filter_map(flow).collect()
    }

    /// Sends a packet of a local sender on the tree of `root`, and to leaves.
    pub fn send(
        &mut self,
        root: OriginId,
        sent: LocalPacket,
        node: &Node,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let LocalPacket {
            from,
            flow,
            packet,
            leaves,
            delivered,
        } = sent;
        let sender = (flow.source, node.own);
        let entry = self.trees.forward(root, flow.group, sender);
        let Some(entry) = entry.filter(|entry| !entry.links().is_empty()) else {
            if !leaves.is_empty() {
                self.originate(root, leaves, packet, node, outbox);
                return Ok(());
            }
            if delivered {
                return Ok(());
            }
            let waits = self.first_packets.offer((from, flow), &packet, now);
            return if waits {
                Ok(())
            } else {
                Err(DropReason::NoListener)
            };
        };
        entry.traffic.count(flow.source, packet.len(), now);
        let links = with_leaves(entry.links(), &leaves);
        self.originate(root, links, packet, node, outbox);
        Ok(())
    }

    /// Sends a packet of this router with its next sequence number.
    pub fn originate(
        &mut self,
        root: OriginId,
        links: Links,
        packet: Bytes,
        node: &Node,
        outbox: &mut Outbox,
    ) {
        // 48 bits last for eighty years at 100,000 packets a second
        self.sequence = (self.sequence + 1) & MAX_SEQUENCE;
        let header = DataHeader {
            payload: Payload::of(&packet),
            flags: 0,
            hop_limit: HOP_LIMIT,
            root,
            origin: node.own,
            incarnation: node.config.incarnation,
            sequence: self.sequence,
        };
        let Some(flow) = flow_of(&packet) else {
            return;
        };
        let sealed = match self.private.of_packet(flow.group, &packet) {
            None => Ok(packet),
            Some(at) => self.private.seal(at, &header, &packet),
        };
        match sealed {
            Ok(packet) => {
                if !self.replay.is_idle() {
                    self.replay.keep(flow, header, &packet, &links);
                }
                outbox.transmit(links, header, packet);
            }
            Err(reason) => outbox.drops.count(reason),
        }
    }

    /// Sends first packets of a group, if a neighbour joins them now.
    pub fn release(&mut self, group: Ipv6Addr, node: &Node, outbox: &mut Outbox, now: Instant) {
        if self.first_packets.len() == 0 {
            return;
        }
        let Some(root) = self.groups.sending_root(group, &self.trees, now) else {
            return;
        };
        for source in self.first_packets.sources_of(group) {
            let sender = (source, node.own);
            let entry = self.trees.forward(root, group, sender);
            let Some(links) = entry.map(|entry| entry.links().clone()) else {
                continue;
            };
            if links.is_empty() {
                continue;
            }
            for packet in self.first_packets.release(Flow { source, group }) {
                if let Some(entry) = self.trees.forward(root, group, sender) {
                    entry.traffic.count(source, packet.len(), now);
                }
                self.originate(root, links.clone(), packet, node, outbox);
            }
        }
    }

    /// Sends packets of a moment ago over links that have joined the group now.
    pub fn replay(&mut self, root: OriginId, group: Ipv6Addr, outbox: &mut Outbox) {
        if self.replay.is_idle() {
            return;
        }
        let trees = &mut self.trees;
        let joining = |sender| Some(trees.forward(root, group, sender)?.links().clone());
        for again in self.replay.replay((root, group), joining) {
            outbox.transmit(again.links, again.header, again.packet);
        }
    }

    /// Handles expired timers; returns the groups that have lost their last local sender.
    pub fn handle_timeout(&mut self, outbox: &mut Outbox, now: Instant) -> Vec<Ipv6Addr> {
        let dropped = self.first_packets.handle_timeout(now);
        outbox.drops.add(DropReason::NoListener, dropped);
        self.replay.handle_timeout(now);
        self.origins.handle_timeout(now);
        self.groups.handle_timeout(&mut self.trees, now)
    }

    /// The first of the timers that packets of local senders change.
    pub fn next_timeout(&self) -> Timer {
        let timers = [
            self.first_packets.next_timeout(),
            self.groups.next_timeout(),
            timer(self.replay.next_timeout(), TimerKind::Replay),
        ];
        timers.into_iter().flatten().min()
    }
}

/// Packets from neighbours.
impl Forwarding {
    /// Handles a multicast packet from a link.
    pub fn receive(
        &mut self,
        arrival: Arrival,
        context: Context<'_>,
        membership: &mut Membership,
        gateway: &mut Gateway,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let Arrival {
            link,
            header,
            flow,
            mut packet,
        } = arrival;
        let Context {
            node,
            database,
            now,
        } = context;
        let Flow { source, group } = flow;
        let is_of_origin = header.origin != node.own
            && (OriginId::of(source) == header.origin
                || database.lan_sources().speaks_for(header.origin, source));
        let entry = self
            .trees
            .forward(header.root, group, (source, header.origin));
        let entry = entry.ok_or(DropReason::NotJoined)?;
        if !is_of_origin {
            return Err(DropReason::ForgedSource);
        }
        if !entry.accepts_from(link) {
            return Err(DropReason::ReversePath);
        }
        self.origins.permit(header.origin, flow, database)?;
        // before the duplicate window moves: an unverified packet must not mark a number as passed
        let opened = match self.private.of(group) {
            Some(at) => {
                let opened = open(&mut self.private, at, (header, flow), &packet, membership);
                note_unreadable(&opened, (flow, header.origin), gateway, now);
                opened?
            }
            None => None,
        };
        self.origins
            .accept(header.origin, header.incarnation, header.sequence)?;
        trim(&mut packet);
        entry.traffic.count_other(packet.len());
        let links = if entry.links().contains(&link) {
            // it came over an edge of a former tree
            let others = entry.links().iter().filter(|l| **l != link);
            others.copied().collect()
        } else {
            entry.links().clone()
        };
        if !self.replay.is_idle() && header.hop_limit > 1 {
            self.replay.keep(flow, onward(header), &packet, &links);
        }
        let local = membership.count_listeners(flow, None, packet.len(), now);
        let leaves = membership
            .leaves
            .admit(group, source, packet.len(), outbox, now);
        let is_awaited = leaves.is_some();
        let links = with_leaves(&links, &leaves.unwrap_or_default());
        let outgoing = OutgoingInterfaces { links, local };
        // a packet that is both passed on and delivered counts once
        if outgoing.local.is_empty() {
            match outgoing.links.is_empty() {
                false => {}
                // leaves listen, and get nothing at the moment
                true if is_awaited => return Ok(()),
                true => return Err(DropReason::NotJoined),
            }
            entry.traffic.count(source, packet.len(), now);
        }
        let passed_on = if outgoing.links.is_empty() {
            Ok(())
        } else {
            pass_on(outgoing.links, header, (group, packet.clone()), outbox)
        };
        let sender = (flow, header.origin);
        match opened {
            None => deliver(outgoing.local, sender, packet, gateway, outbox, now),
            Some(Ok(packet)) => {
                let local = match self.private.is_closed_to_lans(group) {
                    true => outgoing.local.without_lans(),
                    false => outgoing.local,
                };
                deliver(local, sender, packet, gateway, outbox, now);
            }
            Some(Err(reason)) => outbox.drops.count(reason),
        }
        passed_on
    }
}

fn with_leaves(links: &Links, leaves: &Links) -> Links {
    match (links.is_empty(), leaves.is_empty()) {
        (_, true) => links.clone(),
        (true, false) => leaves.clone(),
        (false, false) => links.iter().chain(leaves.iter()).copied().collect(),
    }
}

/// Opens a packet of a private prefix for listeners at this node: nothing without listeners, or the
/// reason why they cannot read it although it is passed on.
fn open(
    private: &mut Private,
    at: usize,
    (header, flow): (DataHeader, Flow),
    packet: &Bytes,
    membership: &mut Membership,
) -> Result<Option<Result<Bytes, DropReason>>, DropReason> {
    if !is_sealed(packet) {
        return Err(DropReason::NotSealed);
    }
    if !membership.has_listeners(flow.group, flow.source) {
        return Ok(None);
    }
    let mut packet = packet.clone();
    trim(&mut packet);
    match private.open(at, &header, flow, &packet) {
        Err(reason @ DropReason::NoGroupKey) => Ok(Some(Err(reason))),
        opened => opened.map(|packet| Some(Ok(packet))),
    }
}

/// Tells the segment of a group why packets cannot be read.
fn note_unreadable(
    opened: &Result<Option<Result<Bytes, DropReason>>, DropReason>,
    (flow, origin): (Flow, OriginId),
    gateway: &mut Gateway,
    now: Instant,
) {
    let is_sealed = match opened {
        Err(DropReason::NotSealed) => false,
        Err(DropReason::NotAuthentic) | Ok(Some(Err(_))) => true,
        _ => return,
    };
    gateway.note_unreadable(Some(flow.group), origin, is_sealed, now);
}

/// Delivers a packet to listeners of local interfaces.
pub fn deliver(
    to: LocalInterfaces,
    sender: (Flow, OriginId),
    packet: Bytes,
    gateway: &mut Gateway,
    outbox: &mut Outbox,
    now: Instant,
) {
    if to.has_lans() {
        for interface in to.lans() {
            let result = gateway.inject(interface, sender, &packet, outbox, now);
            outbox.count(result);
        }
    }
    // programs have no part in segments
    if to.contains(LC0) && !is_of_segment(&packet) {
        outbox.deliver(packet);
    }
}

fn onward(header: DataHeader) -> DataHeader {
    DataHeader {
        hop_limit: header.hop_limit - 1,
        ..header
    }
}

/// Passes a packet on with one hop less.
pub fn pass_on(
    links: Links,
    header: DataHeader,
    (to, packet): (Ipv6Addr, Bytes),
    outbox: &mut Outbox,
) -> Result<(), DropReason> {
    if header.hop_limit == 1 {
        return Err(DropReason::HopLimit);
    }
    if let Some(limit) = &mut outbox.pass_on {
        let bytes = links.len() * (HEADER_LEN + packet.len());
        if !limit.admit(to, bytes as u64) {
            return Err(DropReason::PassOnLimited);
        }
    }
    outbox.transmit(links, onward(header), packet);
    Ok(())
}
