//! Unicast between node addresses: sent, passed on, delivered, or answered with an error.

use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::channel::STREAM_PORT;
use librecast::id::{LinkId, NodeAddresses, OriginId};
use librecast::ipv6::{HEADER_LEN, ICMPV6, UDP};
use librecast::mapped;
use librecast::time::Instant;

use crate::classify::{Flow, trim};
use crate::config::{Node, NodeSources};
use crate::drops::DropReason;
use crate::forwarding::{Forwarding, pass_on};
use crate::header::DataHeader;
use crate::icmp::{FIRST_INFORMATIONAL, IcmpError, is_same_network};
use crate::lsdb::{Database, FLAG_STREAMS, FLAG_UNICAST};
use crate::origins::Origins;
use crate::outbox::Outbox;
use crate::output::Links;
use crate::private::is_sealed;
use crate::segment_id::is_of_segment;
use crate::unicast_routes::{RouteView, UnicastRoutes};
use librecast::bucket::{Bucket, Rate};

/// ICMP errors of both kinds (RFC 4443 §2.4 f): a hundred a second, fifty at once. Chosen.
const ICMP_RATE: Rate = Rate::per_second(100, 50);
/// Length of an ICMPv6 error's header, before the packet that it quotes (RFC 4443 §3).
const ICMPV6_HEADER_LEN: usize = 8;

/// The inputs of a packet's route.
type Parts<'a> = (&'a Node, &'a Database, RouteView<'a>);

/// Routes of unicast, and the rate of its errors.
#[derive(Debug)]
pub struct Unicast {
    pub routes: UnicastRoutes,
    icmp: Bucket,
}

impl Unicast {
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            routes: UnicastRoutes::new(seed),
            icmp: Bucket::full(now),
        }
    }

    /// Sends a packet of a local sender. Not inlined into the path of multicast.
    #[inline(never)]
    pub fn send(
        &mut self,
        flow: Flow,
        packet: Bytes,
        parts @ (node, ..): Parts<'_>,
        forwarding: &mut Forwarding,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        match self.route(flow, &packet, parts) {
            Ok((root, next)) => {
                forwarding.originate(root, Links::from([next]), packet, node, outbox);
                Ok(())
            }
            Err((error, reason)) => {
                let error = error.filter(|_| self.icmp.take(ICMP_RATE, 1, now));
                let router = node.config.ipv4.map(|ipv4| ipv4.network.router());
                if let Some(answer) = error.and_then(|error| error.answer(&packet, router)) {
                    outbox.deliver(answer.into());
                }
                Err(reason)
            }
        }
    }

    /// Sends a packet of a segment to another router.
    pub fn send_to_router(
        &mut self,
        root: OriginId,
        packet: Bytes,
        (node, _, view): Parts<'_>,
        forwarding: &mut Forwarding,
        outbox: &mut Outbox,
    ) -> Result<(), DropReason> {
        let next = self.routes.get(root, view).and_then(|route| route.next);
        let next = next.ok_or(DropReason::NoRoute)?;
        forwarding.originate(root, Links::from([next]), packet, node, outbox);
        Ok(())
    }

    /// The destination of a packet and the link to it, or the error for its sender.
    fn route(
        &mut self,
        flow: Flow,
        packet: &[u8],
        (node, database, view): Parts<'_>,
    ) -> Result<(OriginId, LinkId), (Option<IcmpError>, DropReason)> {
        let is_of_streams = is_of_streams(packet);
        if !(node.config.unicast || node.streams && is_of_streams) {
            return Err((None, DropReason::UnicastOff));
        }
        let (to, own) = (flow.group, &node.config.member.addresses);
        if !node.sources.allows_unicast(flow.source, to) {
            return Err((None, DropReason::ForeignSource));
        }
        let no_route = (Some(IcmpError::NoRoute), DropReason::NoRoute);
        let owner = owner(to, database).ok_or(no_route)?;
        if to == own.address || owner == node.own {
            return Err((None, DropReason::NoRoute));
        }
        let is_local = to.is_unicast_link_local() || mapped::is_host_name(to);
        if !is_local && !is_same_network(to, own.address) {
            return Err(no_route);
        }
        let router = database.router(owner).ok_or(no_route)?;
        let addresses = &router.credential().member.addresses;
        if !has_address(addresses, to) {
            return Err(no_route);
        }
        let takes_it =
            router.has_flag(FLAG_UNICAST) || is_of_streams && router.has_flag(FLAG_STREAMS);
        if !takes_it {
            return Err((Some(IcmpError::Prohibited), DropReason::UnicastOff));
        }
        let mtu = router.advertisement().map_or(u16::MAX, |a| a.mtu());
        if packet.len() > usize::from(mtu) {
            return Err((Some(IcmpError::TooBig(mtu)), DropReason::TooBig));
        }
        let root = addresses.origin;
        let next = self.routes.get(root, view).and_then(|route| route.next);
        let unreachable = (Some(IcmpError::AddressUnreachable), DropReason::NoRoute);
        Ok((root, next.ok_or(unreachable)?))
    }

    /// Handles a packet from a link; returns it if it is of a segment, or sealed, and for this
    /// node. Not inlined into the path of multicast.
    #[inline(never)]
    pub fn receive(
        &mut self,
        (link, header): (LinkId, DataHeader),
        flow: Flow,
        mut packet: Bytes,
        (node, database, view): Parts<'_>,
        origins: &mut Origins,
        outbox: &mut Outbox,
    ) -> Result<Option<Bytes>, DropReason> {
        let to = flow.group;
        if owner(to, database) != Some(header.root) {
            return Err(DropReason::ReversePath);
        }
        let router = database.router(header.origin);
        let credential = router.ok_or(DropReason::ForgedSource)?.credential();
        let ipv4 = database.lan_sources().ipv4_of(header.origin);
        let sources = NodeSources::of_node(&credential.member.addresses).with_ipv4(ipv4);
        if !sources.allows_unicast(flow.source, to) {
            return Err(DropReason::ForgedSource);
        }
        let route = self.routes.get(header.root, view);
        let route = route.ok_or(DropReason::NoRoute)?;
        let behind = route.tree.edge(node.own, header.origin);
        let incoming = behind.and_then(|n| view.neighbors.get(&n)).copied();
        if incoming != Some(link) {
            return Err(DropReason::ReversePath);
        }
        origins.accept(header.origin, header.incarnation, header.sequence)?;
        trim(&mut packet);
        if header.root != node.own {
            let next = route.next.ok_or(DropReason::NoRoute)?;
            return pass_on(Links::from([next]), header, (to, packet), outbox).map(|()| None);
        }
        let is_for_segment = is_of_segment(&packet) || is_sealed(&packet);
        if is_for_segment && to == node.config.member.addresses.address {
            return Ok(Some(packet));
        }
        if !(node.config.unicast || node.streams && is_of_streams(&packet)) {
            return Err(DropReason::UnicastOff);
        }
        let is_own_ipv4 = database.ipv4_address().map(mapped::name) == Some(to);
        if !is_own_ipv4
            && (mapped::is_host_name(to) || !has_address(&node.config.member.addresses, to))
        {
            return Err(DropReason::NoRoute);
        }
        outbox.deliver(packet);
        Ok(None)
    }
}

/// Whether a packet is a datagram between [`STREAM_PORT`]s, or an ICMPv6 error about one; false for
/// fragments and packets with extension headers.
fn is_of_streams(packet: &[u8]) -> bool {
    let next_header = packet.get(6).copied();
    let payload = packet.get(HEADER_LEN..).unwrap_or_default();
    match (packet.first().map(|first| first >> 4), next_header) {
        (Some(6), Some(UDP)) => has_stream_ports(payload),
        (Some(6), Some(ICMPV6)) => {
            let quoted = payload.get(ICMPV6_HEADER_LEN..).unwrap_or_default();
            payload
                .first()
                .is_some_and(|kind| *kind < FIRST_INFORMATIONAL)
                && quoted.get(6) == Some(&UDP)
                && has_stream_ports(quoted.get(HEADER_LEN..).unwrap_or_default())
        }
        _ => false,
    }
}

fn has_stream_ports(udp: &[u8]) -> bool {
    let [high, low] = STREAM_PORT.to_be_bytes();
    udp.starts_with(&[high, low, high, low])
}

/// The router to which an address would belong.
fn owner(to: Ipv6Addr, database: &Database) -> Option<OriginId> {
    match mapped::is_host_name(to) {
        true => database.lan_sources().ipv4_owner(to),
        false => Some(OriginId::of(to)),
    }
}

/// Whether it is one of these; IPv4 addresses are checked by their owner.
fn has_address(addresses: &NodeAddresses, to: Ipv6Addr) -> bool {
    mapped::is_host_name(to) || to == addresses.address || to == addresses.link_local
}
