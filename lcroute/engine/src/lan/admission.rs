//! Packets between a LAN and the network, at the gateway that serves it.

use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::bucket::{Bucket, Rate};
use librecast::cert::SourcePrefix;
use librecast::ethernet::MacAddress;
use librecast::id::OriginId;
use librecast::ipv4::{self, Header};
use librecast::mapped;
use librecast::time::{Duration, Instant};

use crate::classify::Flow;
use crate::context::Context;
use crate::drops::DropReason;
use crate::lsdb::Database;
use crate::output::LanFrame;

use super::interface::Lan;
use super::{HostPacket, mdns};

/// Longest packet of a LAN host in bytes: larger ones are answered with Packet Too Big.
pub(super) const MAX_PACKET: usize = 1_500;
/// Time for which nothing is injected from an origin that reaches the LAN on another path.
const OTHER_PATH: Duration = Duration::from_secs(60);
/// Packet Too Big messages to all hosts of a LAN.
pub(super) const ERROR_RATE: Rate = Rate::per_second(100, 20);
/// Changes of joins by one host; a message counts once for each [`JOIN_COST`] bytes. Chosen.
const JOIN_RATE: Rate = Rate::per_second(200, 1_000);
/// Changes of joins by all hosts of a LAN. Chosen.
const LAN_JOIN_RATE: Rate = Rate::per_second(2_000, 5_000);
/// Bytes of a report that count as one change: 20 a record, 16 a source. Chosen: a join is one.
const JOIN_COST: usize = 256;
/// Hosts with counted joins. Chosen.
const MAX_JOINERS: usize = 4_096;
/// Multicast DNS from all hosts of a LAN, and as much into it. Chosen: bounds loops.
const MDNS_RATE: Rate = Rate::per_second(200, 400);
/// Burst into a LAN, in time at its rate. Chosen: batches of links come whole.
const BURST_OUT: Duration = Duration::from_millis(20);
/// Least burst into a LAN, in bytes: one batch.
const MIN_BURST_OUT: u64 = 200_000;

impl Lan {
    /// Whether a packet of a host enters the network.
    pub(super) fn admit(
        &mut self,
        sent: HostPacket<'_>,
        context: Context<'_>,
    ) -> Result<(), DropReason> {
        let HostPacket { flow, mac, packet } = sent;
        let Context {
            node,
            database,
            now,
        } = context;
        let Flow { source, group } = flow;
        if self.is_gateway(mac, database) {
            return Err(DropReason::LanGatewayFrame);
        }
        if !self.settings.send || !self.carries(group) || is_reserved(group) {
            return Err(DropReason::LanNotConfigured);
        }
        if source.is_unicast_link_local() {
            return Err(DropReason::LanLinkLocal);
        }
        if !self.is_on_link(source) {
            self.note_other_path(source, context);
            return Err(DropReason::LanForeignSource);
        }
        if !self.is_permitted {
            return Err(DropReason::LanNotPermitted);
        }
        if !self.is_serving() {
            return Err(DropReason::LanStandby);
        }
        let member = &node.config.member;
        let permits = |p: SourcePrefix| Database::permits(member, p).is_some();
        if !self.prefixes().any(|p| p.contains(source) && permits(p)) {
            return Err(DropReason::LanNotPermitted);
        }
        if packet.len() > MAX_PACKET {
            return Err(DropReason::LanTooBig);
        }
        self.senders.admit(source, mac, packet.len(), now)
    }

    /// Admits an IPv4 packet of a host; returns it as this node sends it.
    pub(super) fn admit_ipv4(
        &mut self,
        sent: HostPacket<'_>,
        context: Context<'_>,
    ) -> Result<(Flow, Bytes), DropReason> {
        let HostPacket { flow, mac, packet } = sent;
        let Context {
            node,
            database,
            now,
        } = context;
        if self.is_gateway(mac, database) {
            return Err(DropReason::LanGatewayFrame);
        }
        if !self.settings.send || !self.carries(flow.group) {
            return Err(DropReason::LanNotConfigured);
        }
        let on_link = self.settings.ipv4.as_ref();
        let host = mapped::ipv4(flow.source);
        if !host.is_some_and(|host| on_link.is_some_and(|on_link| on_link.contains(host))) {
            self.note_other_path(flow.source, context);
            return Err(DropReason::LanForeignSource);
        }
        if !self.is_permitted {
            return Err(DropReason::LanNotPermitted);
        }
        if !self.is_serving() {
            return Err(DropReason::LanStandby);
        }
        let source = node.sources.ipv4().ok_or(DropReason::LanNoIpv4)?;
        let own = mapped::ipv4(source).ok_or(DropReason::LanNoIpv4)?;
        if Header::read(packet).is_ok_and(|header| header.is_fragment) {
            return Err(DropReason::LanFragment);
        }
        if packet.len() > MAX_PACKET {
            return Err(DropReason::LanTooBig);
        }
        let translated = ipv4::udp_from(packet, own).ok_or(DropReason::LanNotUdp)?;
        self.senders.admit(flow.source, mac, packet.len(), now)?;
        Ok((Flow { source, ..flow }, translated.into()))
    }

    pub(super) fn is_gateway(&self, mac: MacAddress, database: &Database) -> bool {
        mac == self.settings.mac || self.election.is_gateway(mac) || database.is_gateway_mac(mac)
    }

    /// Whether a gateway with this Ethernet address reports on this LAN. In a segment a standby
    /// does not: its reports are those of its own programs.
    pub(super) fn reports(&self, mac: MacAddress, database: &Database) -> bool {
        let is_standby = self.segment.is_some() && self.election.is_standby(mac);
        !is_standby && self.is_gateway(mac, database)
    }

    /// Admits a multicast DNS message of a host.
    pub(super) fn admit_mdns(
        &mut self,
        sent: HostPacket<'_>,
        context: Context<'_>,
    ) -> Result<Vec<u8>, DropReason> {
        let HostPacket { flow, mac, packet } = sent;
        let Context { database, now, .. } = context;
        if self.is_gateway(mac, database) {
            return Err(DropReason::LanGatewayFrame);
        }
        if !self.settings.send || !self.carries(flow.group) {
            return Err(DropReason::LanNotConfigured);
        }
        if !self.is_permitted {
            return Err(DropReason::LanNotPermitted);
        }
        if !self.is_serving() {
            return Err(DropReason::LanStandby);
        }
        let message = mdns::message(packet).ok_or(DropReason::LanBadMdns)?;
        if self.is_repeated(&message, now) {
            return Err(DropReason::LanMdnsRepeated);
        }
        self.senders.admit(flow.source, mac, packet.len(), now)?;
        if !self.mdns.take(MDNS_RATE, 1, now) {
            return Err(DropReason::LanRate);
        }
        self.received_mdns.remember(&message, now);
        Ok(message)
    }

    /// Whether a message repeats one that this gateway has just carried, in either direction.
    fn is_repeated(&self, message: &[u8], now: Instant) -> bool {
        self.received_mdns.has(message, now) || self.injected_mdns.has(message, now)
    }

    /// A frame with a multicast DNS message from this gateway's address.
    pub(super) fn mdns_frame(
        &mut self,
        packet: &[u8],
        now: Instant,
    ) -> Result<LanFrame, DropReason> {
        let message = mdns::message(packet).ok_or(DropReason::LanBadMdns)?;
        if self.is_repeated(&message, now) {
            return Err(DropReason::LanMdnsRepeated);
        }
        if !self.mdns_out.take(MDNS_RATE, 1, now) {
            return Err(DropReason::LanRate);
        }
        self.injected_mdns.remember(&message, now);
        let packet = mdns::packet(self.settings.link_local, &message);
        Ok(LanFrame::Link(packet.into()))
    }

    /// Notes another path: a frame of no gateway has a source of the network or of another LAN.
    fn note_other_path(&mut self, source: Ipv6Addr, context: Context<'_>) {
        let Context {
            node,
            database,
            now,
        } = context;
        let mut origins = database.lan_sources().gateways_of(source);
        if node.is_of_network(source) {
            origins.push(OriginId::of(source));
        }
        for origin in origins.into_iter().filter(|origin| *origin != node.own) {
            if database.router(origin).is_some() {
                self.other_paths.insert(origin, now + OTHER_PATH);
            }
        }
    }

    /// Whether a packet of this length goes into the LAN.
    pub(super) fn may_inject(
        &mut self,
        flow: Flow,
        origin: OriginId,
        len: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.is_serving() {
            return Err(DropReason::LanStandby);
        }
        if !self.settings.receive || !self.carries(flow.group) || is_reserved(flow.group) {
            return Err(DropReason::LanNotConfigured);
        }
        if self.is_on_link(flow.source) {
            return Err(DropReason::LanOwnSource);
        }
        let is_other_path = !self.other_paths.is_empty() && self.other_paths.contains_key(&origin);
        if is_other_path || self.has_it_by_segment(flow.group, origin) {
            return Err(DropReason::LanOtherPath);
        }
        if len > self.settings.mtu.into() {
            return Err(DropReason::LanTooBig);
        }
        let bits = self.settings.rate_out;
        // a rate is below 2^53
        let burst = bits / 8 * BURST_OUT.as_millis() as u64 / 1_000;
        let rate = Rate::bits_per_second(bits, burst.max(MIN_BURST_OUT));
        if self.out.take(rate, len as u64, now) {
            Ok(())
        } else {
            Err(DropReason::LanRate)
        }
    }

    /// Whether hosts here receive a group of another LAN's gateway by their segment.
    fn has_it_by_segment(&self, group: Ipv6Addr, origin: OriginId) -> bool {
        let segment = self.segment.as_ref();
        segment.is_some_and(|segment| {
            segment.is_of_segment(origin) && segment.id().group_of(group).is_some()
        })
    }

    /// Admits an MLD message by Ethernet address: forged IPv6 sources gain a host nothing.
    pub(super) fn admit_mld(
        &mut self,
        mac: MacAddress,
        len: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        let cost = len.div_ceil(JOIN_COST) as u64;
        if self.joiners.len() >= MAX_JOINERS && !self.joiners.contains_key(&mac) {
            self.joiners
                .retain(|_, bucket| bucket.left(JOIN_RATE, now) < JOIN_RATE.burst());
            if self.joiners.len() >= MAX_JOINERS {
                return Err(DropReason::LanJoinLimited);
            }
        }
        let bucket = self.joiners.entry(mac).or_insert_with(|| Bucket::full(now));
        if bucket.take(JOIN_RATE, cost, now) && self.joins.take(LAN_JOIN_RATE, cost, now) {
            Ok(())
        } else {
            Err(DropReason::LanJoinLimited)
        }
    }
}

/// Whether a group concerns the LAN's own routers, in any scope: all nodes, all routers, PIM,
/// MLDv2, snoopers, DHCP agents and servers.
fn is_reserved(group: Ipv6Addr) -> bool {
    let [first, low @ ..] = group.segments();
    // assigned groups (RFC 4291 §2.7.1)
    let is_well_known = first & 0xfff0 == 0xff00;
    is_well_known
        && matches!(
            low,
            [0, 0, 0, 0, 0, 0, 0x1 | 0x2 | 0xd | 0x16 | 0x6a] | [0, 0, 0, 0, 0, 1, 2 | 3]
        )
}
