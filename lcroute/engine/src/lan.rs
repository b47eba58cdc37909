//! This node as a gateway: LANs with hosts that have no lcroute, for which it speaks.
//!
//! ```text
//! hosts ──frames──> admit ──> engine, as if sent by this node        inject <── engine
//! gateways ──PROBE──> Election ──> forwarder: asks, reports, carries; standby: follows listeners
//! ```

mod admission;
mod advertiser;
mod election;
mod interface;
pub mod mdns;
mod probe;

mod settings;
mod standing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use librecast::bucket::Rate;
use librecast::cert::{GroupPrefix, Member, SourcePrefix};
use librecast::ethernet::{ETHERTYPE_ARP, MacAddress};
use librecast::id::{LanId, OriginId, PeerId};
use librecast::time::{Duration, Instant};
use librecast::{igmp, mld};

use crate::classify::{Flow, is_link_scope};
use crate::config::Node;
use crate::context::Context;
use crate::drops::DropReason;
use crate::icmp::IcmpError;
use crate::interface_id::LocalInterfaceId;
use crate::lsdb::{AdvertisedLan, Database, lan_number, next_part};
use crate::outbox::Outbox;
use crate::output::LanFrame;
use crate::private::is_sealed;
use crate::querier::Timing;
use crate::segment::{
    HostPlace, Inner, Segment, SegmentFrame, SegmentOutput, SegmentSnapshot, unwrap,
};
use crate::segment_id::{SegmentId, is_of_segment};
use crate::services::Services;

use interface::Lan;
use probe::{Probe, Rank, network_prefix};

pub use crate::senders::SenderSnapshot;
pub use settings::{LanIpv4, LanSettings};
pub use standing::{LanProblem, LanRole, LanStanding};

/// Signature checks of PROBEs, for all gateways of a LAN.
const PROBE_RATE: Rate = Rate::per_second(200, 200);
/// Time for which an interface is left out after it received a PROBE of this node: another one is
/// on the same LAN.
const SAME_LAN: Duration = Duration::from_secs(5);
/// Interval of Multicast Router Advertisements (RFC 4286 §6).
const ADVERTISEMENT_INTERVAL: Duration = Duration::from_secs(20);

/// One LAN, as users see it.
#[derive(Debug, Clone, PartialEq)]
pub struct LanSnapshot {
    /// The interface, this node's role, and its problem.
    pub standing: LanStanding,
    /// The querier, if it is another host.
    pub querier: Option<Ipv6Addr>,
    /// IPv4 groups are carried.
    pub has_ipv4: bool,
    /// The querier of IPv4, if it is another host.
    pub ipv4_querier: Option<Ipv4Addr>,
    /// The forwarder, if one is known.
    pub forwarder: Option<PeerId>,
    /// The LAN's name.
    pub lan: LanId,
    /// Groups that hosts have joined, with the number of hosts.
    pub listeners: Vec<(Ipv6Addr, usize)>,
    /// Groups that are reported.
    pub groups: usize,
    /// Hosts that sent within the last minute.
    pub sources: Vec<SenderSnapshot>,
    /// Prefixes of the hosts.
    pub prefixes: Vec<String>,
    /// Packets and drops.
    pub counters: BTreeMap<&'static str, u64>,
    /// The segment of which the LAN is a part.
    pub segment: Option<SegmentSnapshot>,
}

/// A change for the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanEvent {
    /// This node serves the interface from now on.
    Forwarder(LocalInterfaceId),
    /// This node no longer serves the interface.
    Standby(LocalInterfaceId),
    /// The addresses of the interface's hosts have changed.
    Senders(LocalInterfaceId),
    /// The interface may have hosts that have not been queried.
    Ask(LocalInterfaceId),
    /// The interface takes part in this segment from now on, or in none.
    Segment(LocalInterfaceId, Option<SegmentId>),
    /// The advertised LANs have changed.
    Advertise,
}

/// A LAN that this node begins to listen on.
#[derive(Debug, Clone, Copy)]
pub struct NewLan {
    /// Its interface.
    pub id: LocalInterfaceId,
    /// This node.
    pub own: OriginId,
    /// Its key.
    pub peer: PeerId,
    /// Its address.
    pub address: Ipv6Addr,
    /// Random; reveals nothing of the seed.
    pub nonce: u64,
    /// Seed of the node's hash functions.
    pub seed: u64,
}

/// A packet as a host of a LAN sent it.
#[derive(Debug, Clone, Copy)]
pub struct HostPacket<'a> {
    /// Source and group.
    pub flow: Flow,
    /// Its source Ethernet address.
    pub mac: MacAddress,
    /// Its bytes, with the IP header.
    pub packet: &'a [u8],
}

/// All LANs of this node.
#[derive(Debug, Default)]
pub struct Gateway {
    lans: BTreeMap<LocalInterfaceId, Lan>,
    advertised: Vec<AdvertisedLan>,
    /// Packets of segments, in order.
    received: VecDeque<OfSegment>,
}

/// A packet of a segment that has arrived.
#[derive(Debug)]
pub struct OfSegment {
    /// The LAN for which it is; none: any of its segment.
    pub interface: Option<LocalInterfaceId>,
    /// The router that sent it.
    pub origin: OriginId,
    /// The group to which it went; none: to this node.
    pub group: Option<Ipv6Addr>,
    /// The packet of the gateway.
    pub packet: Bytes,
}

impl Gateway {
    /// Adds a LAN, or replaces the one of that id.
    pub fn add(&mut self, new: NewLan, settings: LanSettings, now: Instant) {
        self.lans.insert(new.id, Lan::new(new, settings, now));
    }

    /// Sets a LAN's addresses or settings.
    pub fn set(&mut self, id: LocalInterfaceId, settings: LanSettings, now: Instant) {
        if let Some(lan) = self.lans.get_mut(&id) {
            lan.senders.set_rate(settings.rate);
            lan.settings = settings;
            lan.set_segment(now);
        }
    }

    /// Sets whether the interface has a carrier.
    pub fn set_running(&mut self, id: LocalInterfaceId, running: bool, now: Instant) {
        if let Some(lan) = self.lans.get_mut(&id) {
            lan.election.set_running(running, now);
        }
    }

    /// Ends the service of a LAN.
    pub fn remove(&mut self, id: LocalInterfaceId) {
        self.lans.remove(&id);
    }

    /// The settings of a LAN.
    pub fn settings(&self, id: LocalInterfaceId) -> Option<&LanSettings> {
        self.lans.get(&id).map(|lan| &lan.settings)
    }

    /// Groups to which hosts may send.
    pub fn sending_groups(&self) -> Vec<GroupPrefix> {
        let sending = self.lans.values().filter(|lan| lan.settings.send);
        let groups: BTreeSet<_> = sending.flat_map(|lan| lan.settings.carried()).collect();
        groups.into_iter().collect()
    }

    /// Whether multicast DNS of a LAN is repeated on other links.
    pub fn reflects_mdns(&self) -> bool {
        self.lans.values().any(|lan| lan.settings.reflect_mdns)
    }

    /// Source prefixes of packets that enter the network from a LAN.
    pub fn senders(&self, id: LocalInterfaceId) -> Vec<SourcePrefix> {
        let lan = self.lans.get(&id).filter(|lan| lan.settings.send);
        lan.map(|lan| lan.prefixes().collect()).unwrap_or_default()
    }

    /// Interfaces of LANs.
    pub fn interfaces(&self) -> Vec<LocalInterfaceId> {
        self.lans.keys().copied().collect()
    }

    /// Whether hosts of a LAN may send.
    pub fn sends(&self, id: LocalInterfaceId) -> bool {
        self.lans.get(&id).is_some_and(|lan| lan.settings.send)
    }

    /// Whether reports from this Ethernet address are a gateway's, for joins of the network.
    pub fn reports(&self, id: LocalInterfaceId, mac: MacAddress, database: &Database) -> bool {
        let lan = self.lans.get(&id);
        lan.is_some_and(|lan| lan.reports(mac, database))
    }

    /// Takes the changes of roles, prefixes, gateways and the advertisement.
    pub fn take_events(&mut self, member: &Member, now: Instant) -> Vec<LanEvent> {
        let mut events = Vec::new();
        for (id, lan) in &mut self.lans {
            let is_serving = lan.is_serving();
            if std::mem::replace(&mut lan.was_serving, is_serving) != is_serving {
                // switches learn at once where reports must go
                lan.next_advertisement = now;
                match is_serving {
                    true => lan.advertiser.start(now),
                    false => lan.advertiser.stop(),
                }
                events.push(match is_serving {
                    true => LanEvent::Forwarder(*id),
                    false => LanEvent::Standby(*id),
                });
            }
            let of_segment = lan.segment.as_ref().filter(|s| s.is_permitted());
            let of_segment = of_segment.map(Segment::id);
            if std::mem::replace(&mut lan.joined_segment, of_segment) != of_segment {
                events.push(LanEvent::Segment(*id, of_segment));
            }
            if std::mem::take(&mut lan.has_new_prefix) {
                lan.set_segment(now);
                events.push(LanEvent::Senders(*id));
            }
            if std::mem::take(&mut lan.has_new_gateway) {
                events.push(LanEvent::Ask(*id));
            }
        }
        let advertised = self.advertisement(member);
        if self.advertised != advertised {
            self.advertised = advertised;
            events.push(LanEvent::Advertise);
        }
        events
    }

    /// The advertised LANs, as of the last event.
    pub fn advertised(&self) -> &[AdvertisedLan] {
        &self.advertised
    }

    fn advertisement(&self, member: &Member) -> Vec<AdvertisedLan> {
        let mut lans = BTreeMap::new();
        for lan in self.lans.values().filter(|lan| lan.is_permitted) {
            let (id, term) = lan.election.lan();
            let permitted = lan
                .prefixes()
                .filter(|p| Database::permits(member, *p).is_some());
            let of_segment = lan.segment_prefixes();
            let room = crate::lsdb::MAX_LAN_PREFIXES.saturating_sub(of_segment.len());
            let prefixes: BTreeSet<_> = permitted.filter(|_| lan.settings.send).collect();
            let prefixes: BTreeSet<_> = prefixes.into_iter().take(room).chain(of_segment).collect();
            let advertised = AdvertisedLan {
                lan: id,
                term,
                mac: lan.settings.mac,
                is_forwarder: lan.is_serving(),
                segment: lan
                    .segment
                    .as_ref()
                    .filter(|s| s.is_permitted())
                    .map(Segment::id),
                gateways: lan.election.proven().collect(),
                prefixes: prefixes.into_iter().collect(),
            };
            lans.entry(id).or_insert(advertised);
        }
        lans.into_values().take(crate::lsdb::MAX_LANS).collect()
    }

    /// Whether reports from this address are a gateway's.
    pub fn is_reporter(&self, source: Ipv6Addr) -> bool {
        let origin = OriginId::of(source);
        self.lans.values().any(|lan| lan.election.hears(origin))
    }
}

/// Packets.
impl Gateway {
    /// Whether a packet of a LAN host enters the network.
    pub fn admit(
        &mut self,
        id: LocalInterfaceId,
        sent: HostPacket<'_>,
        context: Context<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let result = lan.admit(sent, context);
        if result == Err(DropReason::LanTooBig)
            && lan.errors.take(admission::ERROR_RATE, 1, context.now)
            && let Some(error) = IcmpError::TooBig(admission::MAX_PACKET as u16)
                .answer_from(lan.settings.link_local, sent.packet)
        {
            outbox.send_lan(id, LanFrame::Unicast(sent.mac, error.into()));
        }
        lan.count("rx", result)
    }

    /// Admits an IPv4 packet of a LAN host; returns it with this node's source address.
    pub fn admit_ipv4(
        &mut self,
        id: LocalInterfaceId,
        sent: HostPacket<'_>,
        context: Context<'_>,
    ) -> Result<(Flow, Bytes), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let admitted = lan.admit_ipv4(sent, context);
        let result = admitted.as_ref().map(drop).map_err(|reason| *reason);
        lan.count("rx", result)?;
        admitted
    }

    /// Sends a packet into a LAN.
    pub fn inject(
        &mut self,
        id: LocalInterfaceId,
        (flow, origin): (Flow, OriginId),
        packet: &Bytes,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        if SegmentId::is_group(flow.group) && is_sealed(packet) {
            self.note_unreadable(Some(flow.group), origin, true, now);
            return Err(DropReason::NoGroupKey);
        }
        if is_of_segment(packet) {
            self.receive(OfSegment {
                interface: Some(id),
                origin,
                group: Some(flow.group),
                packet: packet.clone(),
            });
            return Ok(());
        }
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let result = lan.may_inject(flow, origin, packet.len(), now);
        let frame = result.and_then(|()| match is_link_scope(flow.group) {
            true => lan.mdns_frame(packet, now),
            false => Ok(LanFrame::Multicast(packet.clone())),
        });
        lan.count("tx", frame.map(|frame| outbox.send_lan(id, frame)))
    }

    /// Admits multicast DNS of a LAN host; returns it with this node's source address.
    pub fn admit_mdns(
        &mut self,
        id: LocalInterfaceId,
        sent: HostPacket<'_>,
        context: Context<'_>,
    ) -> Result<Bytes, DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let message = lan.admit_mdns(sent, context);
        let result = message.as_ref().map(drop).map_err(|reason| *reason);
        lan.count("rx", result)?;
        let own = context.node.config.member.addresses.link_local;
        Ok(mdns::packet(own, &message?).into())
    }

    /// Handles link control other than MLD: a host may solicit a router.
    pub fn handle_link_control(&mut self, id: LocalInterfaceId, packet: &[u8], now: Instant) {
        if let Some(lan) = self.lans.get_mut(&id) {
            lan.advertiser.handle_packet(packet, now);
        }
    }

    /// Whether an MLD message of the host with this Ethernet address is handled.
    pub fn admit_mld(
        &mut self,
        id: LocalInterfaceId,
        mac: MacAddress,
        len: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let result = lan.admit_mld(mac, len, now);
        lan.count("mld", result)
    }
}

/// Segments.
impl Gateway {
    /// Whether a LAN is a part of a segment.
    pub fn has_segment(&self, id: LocalInterfaceId) -> bool {
        self.lans.get(&id).is_some_and(|lan| lan.segment.is_some())
    }

    /// Whether a LAN carries a group for all nodes.
    pub fn carries(&self, id: LocalInterfaceId, group: Ipv6Addr) -> bool {
        self.lans.get(&id).is_some_and(|lan| lan.carries(group))
    }

    /// Sets the LANs of the segments.
    pub fn set_segments(&mut self, database: &Database, now: Instant) {
        for lan in self.lans.values_mut() {
            if let Some(segment) = &mut lan.segment {
                segment.set_lans(&database.segment(segment.id()), now);
                segment.review_hosts(|origin| lan.election.hears(origin), now);
            }
        }
    }

    /// Handles a frame of a LAN with a segment.
    pub fn handle_segment_frame(
        &mut self,
        id: LocalInterfaceId,
        frame: &SegmentFrame,
        database: &Database,
        now: Instant,
    ) -> Result<(), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let by_gateway = lan.is_gateway(frame.source, database);
        let Some(segment) = &mut lan.segment else {
            return Err(DropReason::LanNotConfigured);
        };
        let result = segment.handle_frame(frame, by_gateway, now);
        // questions are not packets
        match frame.ethertype {
            ETHERTYPE_ARP if result.is_ok() => result,
            _ => lan.count("rx", result),
        }
    }

    /// Takes a packet of a segment; [`Self::handle_received`] handles it.
    pub fn receive(&mut self, packet: OfSegment) {
        self.received.push_back(packet);
    }

    /// Whether packets of segments wait for [`Self::handle_received`].
    pub fn has_received(&self) -> bool {
        !self.received.is_empty()
    }

    /// Notes a router whose packets to a segment cannot be read, as they are sealed or as they are
    /// not. `group`: one of the segment; none: that is not known.
    pub fn note_unreadable(
        &mut self,
        group: Option<Ipv6Addr>,
        origin: OriginId,
        is_sealed: bool,
        now: Instant,
    ) {
        let segments = self
            .lans
            .values_mut()
            .filter_map(|lan| lan.segment.as_mut());
        let is_it = |segment: &&mut Segment| {
            group.is_none_or(|group| segment.id().prefix().contains(group))
        };
        for segment in segments.filter(is_it) {
            segment.note_unreadable(origin, is_sealed, now);
        }
    }

    /// Handles received packets of segments.
    pub fn handle_received(&mut self, outbox: &mut Outbox, now: Instant) {
        while let Some(received) = self.received.pop_front() {
            let Ok((segment, inner)) = unwrap(&received.packet) else {
                outbox.drops.count(DropReason::Malformed);
                continue;
            };
            let lans = self.lans_of(segment, received.interface, &inner);
            if lans.is_empty() {
                outbox.drops.count(DropReason::SegmentNotPermitted);
            }
            for id in lans {
                let (origin, group) = (received.origin, received.group);
                let result = self.handle_inner(id, (origin, group), inner.clone(), now);
                outbox.count(result);
            }
        }
    }

    /// The LANs of a segment for which a packet is: those with its host, or all.
    fn lans_of(
        &self,
        segment: SegmentId,
        interface: Option<LocalInterfaceId>,
        inner: &Inner,
    ) -> Vec<LocalInterfaceId> {
        let lans = self.lans.iter().filter(|(id, lan)| {
            let is_of = |s: &Segment| s.id() == segment;
            interface.is_none_or(|interface| interface == **id)
                && lan.segment.as_ref().is_some_and(is_of)
        });
        let lans: Vec<_> = lans.collect();
        let has_host = |(_, lan): &&(&LocalInterfaceId, &Lan)| match inner {
            Inner::Packet(packet) => {
                let segment = lan.segment.as_ref();
                segment.is_some_and(|segment| segment.has_host_of(packet))
            }
            Inner::Message(_) => false,
        };
        match lans.iter().find(has_host) {
            Some((id, _)) => vec![**id],
            None => lans.into_iter().map(|(id, _)| *id).collect(),
        }
    }

    fn handle_inner(
        &mut self,
        id: LocalInterfaceId,
        (origin, group): (OriginId, Option<Ipv6Addr>),
        inner: Inner,
        now: Instant,
    ) -> Result<(), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let Some(segment) = &mut lan.segment else {
            return Err(DropReason::LanNotConfigured);
        };
        let result = segment.handle_inner(origin, group, inner, now);
        lan.count("tx", result)
    }

    /// The next action of any segment, and its number.
    pub fn poll_segment(&mut self) -> Option<(LocalInterfaceId, SegmentId, SegmentOutput)> {
        self.lans.iter_mut().find_map(|(id, lan)| {
            let segment = lan.segment.as_mut()?;
            Some((*id, segment.id(), segment.poll_output()?))
        })
    }

    /// The forwarder of another LAN of a segment.
    pub fn forwarder_of(&self, id: LocalInterfaceId, lan: LanId) -> Option<OriginId> {
        self.lans.get(&id)?.segment.as_ref()?.forwarder_of(lan)
    }

    /// The interface of this node on a LAN.
    pub fn interface_on(&self, lan: LanId) -> Option<LocalInterfaceId> {
        let mut lans = self.lans.iter();
        let on = lans.find(|(_, known)| known.election.lan().0 == lan && known.is_serving());
        on.map(|(id, _)| *id)
    }

    /// The virtual Ethernet address of a LAN for which frames are received.
    pub fn virtual_mac(&self, id: LocalInterfaceId) -> Option<MacAddress> {
        self.lans.get(&id)?.segment.as_ref()?.received_mac()
    }

    /// Whether this node is the forwarder of a LAN of a segment.
    pub fn serves_segment(&self, id: LocalInterfaceId) -> bool {
        let segment = self.lans.get(&id).and_then(|lan| lan.segment.as_ref());
        segment.is_some_and(Segment::is_serving)
    }

    /// The place of a host of a segment.
    pub fn where_is(&self, id: LocalInterfaceId, address: IpAddr) -> HostPlace {
        let segment = self.lans.get(&id).and_then(|lan| lan.segment.as_ref());
        segment.map_or(HostPlace::Unknown, |segment| segment.where_is(address))
    }

    /// Gives an address of a LAN of a segment away.
    pub fn release(&mut self, id: LocalInterfaceId, address: IpAddr) {
        let lan = self.lans.get_mut(&id);
        if let Some(segment) = lan.and_then(|lan| lan.segment.as_mut()) {
            segment.release(address);
        }
    }

    /// The first timer of the segments.
    pub fn next_segment_timeout(&self) -> Option<Instant> {
        let segments = self.lans.values().filter_map(|lan| lan.segment.as_ref());
        segments.filter_map(Segment::next_timeout).min()
    }
}

/// The election.
impl Gateway {
    /// Handles a PROBE received on a LAN, from this Ethernet address.
    pub fn handle_probe(
        &mut self,
        id: LocalInterfaceId,
        mac: MacAddress,
        bytes: &[u8],
        context: Context<'_>,
        services: &dyn Services,
    ) -> Result<(), DropReason> {
        let Context {
            node,
            database,
            now,
        } = context;
        let bad = DropReason::LanBadProbe;
        let probe = Probe::decode(bytes).map_err(|_| bad)?;
        if probe.network != network_prefix(node.config.member.addresses.address) {
            // gateways of another network have an election of their own
            return Ok(());
        }
        let lan = self.lans.get_mut(&id).ok_or(bad)?;
        if probe.origin == node.own {
            let own = &node.config.member.peer;
            if !lan.probes.take(PROBE_RATE, 1, now) || !Probe::is_signed_by(bytes, own, services) {
                return Err(bad);
            }
            self.handle_own_probe(id, &probe, now);
            return Ok(());
        }
        let peer = gateway_peer(probe.origin, database).ok_or(bad)?;
        if probe.mac != mac || !lan.election.is_new(&probe) {
            return Err(bad);
        }
        let is_admitted = lan.probes.take(PROBE_RATE, 1, now);
        if !is_admitted || !Probe::is_signed_by(bytes, &peer, services) {
            return Err(bad);
        }
        let is_new = !lan.election.hears(probe.origin);
        if (is_new || lan.election.has_lost(probe.origin, now))
            && let Some(segment) = &mut lan.segment
        {
            // it may have used the virtual address when it woke up, and switches followed
            segment.announce();
        }
        lan.has_new_gateway |= is_new;
        lan.election.handle_probe(&probe, now);
        Ok(())
    }

    /// Handles an own PROBE from another interface: both are on one LAN, which the first serves.
    fn handle_own_probe(&mut self, id: LocalInterfaceId, probe: &Probe, now: Instant) {
        let mut lans = self.lans.iter();
        let from = lans.find(|(_, lan)| lan.election.is_last_sent(probe));
        let is_second = from.is_some_and(|(from, _)| *from < id);
        if let Some(lan) = self.lans.get_mut(&id).filter(|_| is_second) {
            lan.same_until = Some(now + SAME_LAN);
        }
    }

    /// Updates this gateway's rank and the terms of other gateways.
    pub fn review(&mut self, linked: bool, context: Context<'_>) {
        let Context {
            node,
            database,
            now,
        } = context;
        let is_permitted = !node.config.member.gateway.is_empty();
        let reachable = database.reachable_count().max(1).ilog2() as u8;
        let network = network_prefix(node.config.member.addresses.address);
        for lan in self.lans.values_mut() {
            let rank = Rank {
                linked,
                reachable,
                priority: lan.settings.priority,
            };
            lan.is_permitted = is_permitted;
            lan.election.set_rank(rank, now);
            let (id, own_term) = lan.election.lan();
            // others that are not on this wire are not forwarders of it
            let term = database.lan_term(id, |origin| lan.election.hears(origin));
            let first = database
                .forwarder_of_lan(id)
                .filter(|first| *first != node.own);
            let is_second = first.is_some_and(|first| !lan.election.hears(first));
            let term = if is_second { own_term } else { term };
            let mac = lan.settings.mac;
            let next = || lan_number(&node.config.member.peer, mac, next_part(id));
            lan.election.note_term(term, next, now);
            let prefix = advertiser::prefix_of(network, lan.election.lan().0);
            let prefix = prefix.filter(|_| lan.settings.advertise && is_permitted);
            lan.has_new_prefix |= lan.advertiser.prefix() != prefix;
            lan.advertiser.set(prefix, now);
            lan.review_segment(&node.config.member, now);
        }
    }

    /// Notes that a router is unreachable.
    pub fn set_unreachable(&mut self, origin: OriginId, now: Instant) {
        for lan in self.lans.values_mut() {
            lan.election.set_unreachable(origin, now);
        }
    }

    /// Handles expired timers: sends PROBEs and advertisements.
    pub fn handle_timeout(
        &mut self,
        node: &Node,
        services: &dyn Services,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let network = network_prefix(node.config.member.addresses.address);
        for (id, lan) in &mut self.lans {
            if let Some(segment) = &mut lan.segment {
                segment.handle_timeout(now);
            }
            // two LANs that a wire joined are separate again: their gateways notice first
            let election = &lan.election;
            lan.other_paths
                .retain(|origin, until| *until > now && !election.has_lost(*origin, now));
            let is_due = now >= lan.next_advertisement;
            if is_due {
                lan.next_advertisement = now + ADVERTISEMENT_INTERVAL;
            }
            if is_due && lan.is_permitted {
                let (from, timing) = (lan.settings.link_local, Timing::LAN);
                let packet = mld::router_advertisement(
                    from,
                    ADVERTISEMENT_INTERVAL,
                    timing.query_interval,
                    timing.robustness,
                );
                outbox.send_lan(*id, LanFrame::Link(packet.into()));
                let ipv4 = lan.settings.ipv4_address();
                let is_served = node.config.ipv4.is_some() || lan.segment.is_some();
                if let Some(from) = ipv4.filter(|_| is_served) {
                    let packet = igmp::router_advertisement(
                        from,
                        ADVERTISEMENT_INTERVAL,
                        timing.query_interval,
                        timing.robustness,
                    );
                    outbox.send_lan(*id, LanFrame::Link(packet.into()));
                }
            }
            lan.same_until.take_if(|until| *until <= now);
            let gateway = (lan.settings.link_local, lan.settings.mac);
            if let Some(packet) = lan.advertiser.handle_timeout(gateway, now) {
                outbox.send_lan(*id, LanFrame::Link(packet.into()));
            }
            let is_due = lan.election.handle_timeout(now);
            if !is_due || !lan.is_permitted || lan.same_until.is_some() {
                continue;
            }
            let mac = lan.settings.mac;
            let probe = lan.election.probe(network, node.config.incarnation, mac);
            outbox.send_lan(*id, LanFrame::Probe(probe.sign(services).into()));
        }
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        self.lans.values().map(Lan::next_timeout).min()
    }
}

/// Queries.
impl Gateway {
    /// The standing of all LANs.
    pub fn standings(&self, node: &Node, database: &Database) -> Vec<LanStanding> {
        let clashes = database.lan_clashes();
        let lans = self.lans.values();
        lans.map(|lan| lan.standing(node, clashes)).collect()
    }

    /// All LANs, without the listeners of the interfaces. `rtt`: the round trip to a router.
    pub fn snapshot(
        &self,
        Context {
            node,
            database,
            now,
        }: Context<'_>,
        rtt: &dyn Fn(OriginId) -> Option<Duration>,
    ) -> Vec<(LocalInterfaceId, LanSnapshot)> {
        let peer = |origin| {
            let router = database.router(origin)?;
            Some(router.credential().member.peer)
        };
        let clashes = database.lan_clashes();
        let lans = self.lans.iter();
        let snapshot = lans.map(|(id, lan)| {
            let snapshot = LanSnapshot {
                standing: lan.standing(node, clashes),
                querier: None,
                has_ipv4: false,
                ipv4_querier: None,
                forwarder: lan
                    .election
                    .forwarder()
                    .filter(|_| lan.is_permitted)
                    .and_then(peer),
                lan: lan.election.lan().0,
                listeners: Vec::new(),
                groups: 0,
                sources: lan.senders.snapshot(now),
                prefixes: lan.shown_prefixes(),
                counters: lan.counters.clone(),
                segment: lan.segment.as_ref().map(|segment| segment.snapshot(rtt)),
            };
            (*id, snapshot)
        });
        snapshot.collect()
    }
}

/// The key of a router that may be a gateway.
fn gateway_peer(origin: OriginId, database: &Database) -> Option<PeerId> {
    let member = &database.router(origin)?.credential().member;
    (!member.gateway.is_empty()).then_some(member.peer)
}
