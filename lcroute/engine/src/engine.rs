//! The engine: owner of all parts. It passes an input to the parts that it concerns. A flush at the
//! end of a turn updates all parts and sends the changes.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use librecast::cert::{GroupPrefix, Member};
use librecast::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress};
use librecast::id::{LanId, LinkId, OriginId};
use librecast::random::Random;
use librecast::time::{Duration, Instant};
use librecast::{ipv4, mapped};
use siphasher::sip::SipHasher13;

use crate::carry::{Carry, CarryMessage, CarrySnapshot, SenderContext, Sends};
use crate::classify::{CarriedScopes, Class, Flow, flow_of, is_link_scope, trim};
use crate::config::{CarrySettings, Config, Neighbor, Node};
use crate::context::Context;
use crate::control::{self, Element, MAX_ROUTED, Routed, RoutedKind};
use crate::drops::DropReason;
use crate::exchange::{ControlExchange, Outgoing, ReceivedJoins};
use crate::forwarding::{Arrival, Forwarding, LocalPacket, deliver};
use crate::header::{DataHeader, HEADER_LEN, HOP_LIMIT, Payload};
use crate::interface_id::{LC0, LocalInterfaceId, MAX_LOCAL_INTERFACES};
use crate::lan::{Gateway, HostPacket, LanEvent, LanSettings, NewLan, OfSegment, mdns};
use crate::local_interface::{InterfaceSettings, Ipv4Link, Reporter, Senders};
use crate::lsdb::{
    AddRevocationError, Database, DatabaseEvent, FLAG_CORE, FLAG_ISSUER, FLAG_STREAMS, FLAG_STUB,
    FLAG_UNICAST, LocalRouter, MAX_PREFIXES, OwnChainError,
};
use crate::membership::Membership;
use crate::outbox::Outbox;
use crate::output::{LinkFault, Output};
use crate::pass_on::PassOn;
use crate::private::PrivatePrefix;
use crate::querier::Timing;
use crate::routed::RoutedQueue;
use crate::routing::{Computation, Routing};
use crate::segment::{HostPlace, SegmentFrame, SegmentOutput, wrap};
use crate::segment_id::SegmentId;
use crate::services::Services;
use crate::timers::{Timer, TimerKind, Timers, timer};
use crate::topology::{Prospect, Topology, TopologyEvent};
use crate::unicast::Unicast;
use crate::unicast_routes::RouteView;

/// The router of one node.
#[derive(Debug)]
pub struct Engine {
    pub(crate) node: Node,
    services: Arc<dyn Services>,
    pub(crate) membership: Membership,
    pub(crate) forwarding: Forwarding,
    pub(crate) unicast: Unicast,
    routed: RoutedQueue,
    pub(crate) exchange: ControlExchange,
    pub(crate) database: Database,
    pub(crate) routing: Routing,
    topology: Topology,
    pub(crate) gateway: Gateway,
    carry: Carry,
    random: Random,
    timers: Timers,
    pub(crate) outbox: Outbox,
    pub(crate) now: Instant,
    /// A flush may be necessary.
    unflushed: bool,
}

/// Settings and links.
impl Engine {
    /// A router without links; nothing is written into `lc0` before [`Self::handle_start`].
    pub fn new(config: Config, services: Arc<dyn Services>, now: Instant) -> Self {
        let mut node = Node::new(config);
        let Config { seed, mtu, .. } = node.config;
        let limits = &node.config.limits.clone();
        let router = LocalRouter {
            origin: node.own,
            peer: node.config.member.peer,
            incarnation: node.config.incarnation,
            chain: node.config.chain.clone(),
            mtu,
            flags: flags(&node),
            announced: node.config.announce.iter().copied().collect(),
            lans: Vec::new(),
            ipv4: node.config.ipv4.filter(|ipv4| ipv4.assigns),
        };
        let mut database = Database::new(router, limits, services.clone(), now);
        let ipv4 = database.ipv4_address().map(mapped::name);
        node.sources = node.sources.with_ipv4(ipv4);
        let ipv4 = node.config.ipv4.map(|ipv4| ipv4.network);
        let host = InterfaceSettings::of_host(limits, mtu, node.sources, ipv4);
        let mut membership = Membership::new(host, seed);
        membership
            .leaves
            .set_bound(limits.leaf_bits_per_second, now);
        Self {
            membership,
            forwarding: Forwarding::new(&node, services.clone()),
            unicast: Unicast::new(seed, now),
            routed: RoutedQueue::default(),
            exchange: ControlExchange::new(&node),
            routing: Routing::new(database.graph(), now),
            database,
            topology: Topology::new(node.own, node.config.topology, seed, now),
            gateway: Gateway::default(),
            carry: Carry::new(node.config.carry, now),
            random: Random::new(seed),
            timers: Timers::default(),
            outbox: Outbox::new(limit(node.config.carry.pass_on, now)),
            now,
            unflushed: true,
            services,
            node,
        }
    }

    /// `lc0` is up, for the first time or again: sends a general query and reports joins.
    pub fn handle_start(&mut self, now: Instant) {
        self.turn(now);
        self.membership.start(LC0, None, now);
        if let Some(address) = self.database.ipv4_address() {
            self.outbox.push(Output::Ipv4Address(Some(address)));
        }
    }

    fn set_ipv4_address(&mut self, address: Option<Ipv4Addr>) {
        self.node.sources = self.node.sources.with_ipv4(address.map(mapped::name));
        let groups = self.joinable_groups();
        let senders = Senders::Node(self.node.sources);
        self.membership.set_senders(LC0, senders, groups);
        for interface in self.gateway.interfaces() {
            self.review_senders(interface);
        }
        self.outbox.push(Output::Ipv4Address(address));
    }

    /// A link is up and its neighbour authenticated: exchanges LSAs and join state.
    pub fn handle_link_up(&mut self, link: LinkId, neighbor: Neighbor, now: Instant) {
        self.turn(now);
        self.remove_link(link);
        if neighbor.member.leaf {
            return self.leaf_up(link, &neighbor.member);
        }
        let origin = self.exchange.link_up(link, neighbor, self.node.own, now);
        self.routing.force();
        self.database.link_up(link, origin, now);
        self.topology.link_up(link, origin, now);
    }

    /// A link is down; its neighbour's join state ends.
    pub fn handle_link_down(&mut self, link: LinkId, now: Instant) {
        self.turn(now);
        self.remove_link(link);
    }

    /// Accepts a leaf. A leaf is not a neighbour and takes no part in the link state.
    fn leaf_up(&mut self, link: LinkId, member: &Member) {
        let max = self.node.config.limits.leaves;
        if !self.membership.leaves.link_up(link, member, max, self.now) {
            let reason = LinkFault::LeavesFull;
            self.outbox.push(Output::LinkFault { link, reason });
        }
    }

    fn remove_link(&mut self, link: LinkId) {
        if self.membership.leaves.link_down(link) {
            return;
        }
        if self.exchange.link_down(link) {
            self.routing.force();
            self.forwarding.trees.link_down(link);
            self.database.link_down(link, self.now);
            self.topology.link_down(link, self.now);
            self.unicast.routes.clear();
        }
    }

    /// Sets the round trip of a link, without its queueing delay.
    pub fn handle_link_rtt(&mut self, link: LinkId, rtt: Duration, now: Instant) {
        self.turn(now);
        if self.membership.leaves.contains(link) {
            return;
        }
        self.database.set_rtt(link, rtt, now);
        self.topology.set_rtt(link, rtt);
    }

    /// A node became reachable for signalling beside the links of the network, or unreachable.
    pub fn handle_presence(&mut self, origin: OriginId, online: bool, now: Instant) {
        self.turn(now);
        self.topology.set_present(origin, online, now);
    }

    /// Attempts at a link to this node began to fail, or no longer fail.
    pub fn handle_direct_failure(&mut self, origin: OriginId, failing: bool, now: Instant) {
        self.turn(now);
        self.topology.set_direct_failure(origin, failing, now);
    }

    /// Sets the groups of scope 2 that are carried, from a changed configuration.
    pub fn set_link_scope_groups(&mut self, groups: &[Ipv6Addr], now: Instant) {
        self.turn(now);
        self.node.config.link_scope_groups = groups.to_vec();
        self.review_scopes(now);
    }

    /// Carries the configured groups of scope 2, and that of multicast DNS if a LAN reflects it.
    fn review_scopes(&mut self, now: Instant) {
        let mut groups = self.node.config.link_scope_groups.clone();
        groups.extend(self.gateway.reflects_mdns().then_some(mdns::GROUP));
        let scopes = CarriedScopes::new(&groups, self.node.config.ipv4.is_some());
        if self.node.scopes != scopes {
            self.node.scopes = scopes;
            self.membership.touch(self.forwarding.trees.groups());
            self.membership.set_scopes(&self.node.scopes, now);
        }
    }

    /// Sets the groups whose tree has its root at this node. Groups that the certificate does not
    /// permit are ignored by all routers; returns them.
    pub fn set_announced(&mut self, announced: Vec<GroupPrefix>, now: Instant) -> Vec<GroupPrefix> {
        self.turn(now);
        let prefixes = &self.node.config.member.prefixes;
        let permitted = |p: &GroupPrefix| prefixes.iter().any(|m| m.covers(p));
        let (announced, refused): (Vec<_>, _) = announced.into_iter().partition(permitted);
        self.node.config.announce = announced;
        self.announce();
        refused
    }

    /// Own prefixes are announced, and parts that are carried for other senders.
    fn announce(&mut self) {
        let own = &self.node.config.announce;
        let room = MAX_PREFIXES.saturating_sub(own.len());
        let mut announced = self.carry.announced(room);
        announced.extend(own);
        self.database.set_announced(announced, self.now);
        self.membership.touch(self.forwarding.trees.groups());
        self.routing.force();
    }

    /// Changes the configured uplink.
    pub fn set_carry(&mut self, settings: CarrySettings, now: Instant) {
        self.turn(now);
        if self.node.config.carry.pass_on != settings.pass_on {
            self.outbox.pass_on = limit(settings.pass_on, now);
        }
        self.node.config.carry = settings;
        if self.carry.configure(settings) {
            self.announce();
        }
    }

    /// Links whose queues held packets back for most of the last second, of all that are up. To be
    /// called once a second.
    pub fn set_pressed_links(&mut self, pressed: &[LinkId], now: Instant) {
        if pressed.is_empty() {
            self.carry.set_pressed(BTreeSet::new());
            return;
        }
        self.turn(now);
        let neighbors = self.exchange.neighbors().iter();
        let pressed = neighbors.filter(|(_, link)| pressed.contains(link));
        self.carry.set_pressed(pressed.map(|(x, _)| *x).collect());
    }

    /// Sets the groups whose joins a program on this host watches.
    pub fn set_watch(&mut self, watch: Vec<GroupPrefix>, now: Instant) {
        self.turn(now);
        self.node.config.watch = watch;
        self.membership.touch(self.forwarding.trees.groups());
        self.routing.force();
    }

    /// Sets the rate of packets for all leaves together, up to the configured bound.
    pub fn set_leaf_rate(&mut self, bits_per_second: u64) {
        self.membership.leaves.set_rate(bits_per_second);
    }

    /// Sets whether leaves are to leave this router for others that serve them.
    pub fn set_spare(&mut self, spare: bool, now: Instant) {
        if self.membership.leaves.set_spare(spare) {
            self.turn(now);
        }
    }

    /// Sets the private prefixes and their secrets.
    pub fn set_private(&mut self, private: Vec<PrivatePrefix>, now: Instant) {
        self.turn(now);
        self.forwarding.private.configure(&private);
        self.node.config.private = private;
    }

    /// Sets whether unicast is carried for this node.
    pub fn set_unicast(&mut self, unicast: bool, now: Instant) {
        self.turn(now);
        self.node.config.unicast = unicast;
        self.database.set_flags(flags(&self.node), now);
    }

    /// Sets whether streams are carried for this node, without other unicast.
    pub fn set_streams(&mut self, streams: bool, now: Instant) {
        self.turn(now);
        self.node.streams = streams;
        self.database.set_flags(flags(&self.node), now);
    }

    /// Replaces this node's certificate chain after a renewal.
    ///
    /// # Errors
    /// The chain does not count, or is another node's. The earlier certificates stay.
    pub fn set_own_chain(&mut self, chain: Bytes, now: Instant) -> Result<(), OwnChainError> {
        self.turn(now);
        let credential = self.services.verify_chain(&chain)?;
        if credential.member.peer != self.node.config.member.peer {
            return Err(OwnChainError::OtherNode);
        }
        self.node.config.member = credential.member.clone();
        self.node.config.chain = chain.clone();
        self.database.set_own_chain(chain, now)
    }

    /// Floods a signed revocation, from this node's operator or the disk.
    ///
    /// # Errors
    /// The revocation does not count, has expired, or there is no room for it.
    pub fn add_revocation(
        &mut self,
        revocation: &[u8],
        now: Instant,
    ) -> Result<(), AddRevocationError> {
        self.turn(now);
        self.database.add_revocation(revocation, now)
    }

    /// Packets of an interface were lost unread, perhaps reports among them: sends a general query.
    pub fn handle_lost_reports(&mut self, interface: LocalInterfaceId, now: Instant) {
        self.turn(now);
        self.membership.query_again(interface, now);
    }

    /// Serves one more LAN, or changes its settings; packets received on it go to
    /// [`Self::handle_lan_packet`]. At most [`MAX_LOCAL_INTERFACES`] with `lc0`; more are ignored.
    pub fn set_lan(&mut self, interface: LocalInterfaceId, settings: LanSettings, now: Instant) {
        self.turn(now);
        if interface == LC0 || usize::from(interface.0) >= MAX_LOCAL_INTERFACES {
            return;
        }
        let known = self.gateway.settings(interface);
        let is_same = known.is_some_and(|known| {
            let key = |s: &LanSettings| (s.mac, s.link_local, s.carried(), s.receive);
            key(known) == key(&settings)
        });
        let ipv4 = settings.ipv4_address();
        let is_served = self.node.config.ipv4.is_some() || settings.segment.is_some();
        let ipv4 = ipv4.filter(|_| is_served);
        if is_same {
            self.membership.set_lan_ipv4(interface, ipv4, now);
            self.gateway.set(interface, settings, now);
        } else {
            let limits = &self.node.config.limits;
            let own = self.node.config.member.addresses;
            let served = InterfaceSettings {
                querier_address: settings.link_local,
                reporter_address: own.link_local,
                timing: Timing::LAN,
                mtu: settings.mtu,
                groups: settings.carried(),
                senders: Senders::Lan {
                    prefixes: Vec::new(),
                    ipv4: None,
                },
                receives: settings.receive,
                max_groups: limits.groups,
                max_reporters: limits.lan_reporters,
                max_reported: limits.lan_reports,
                ipv4: ipv4.map(Ipv4Link::Lan),
            };
            self.membership.add(interface, served);
            let seed = self.node.config.seed;
            let mut nonce = SipHasher13::new_with_keys(seed, self.random.next());
            nonce.write_u8(interface.0);
            let new = NewLan {
                id: interface,
                own: self.node.own,
                peer: self.node.config.member.peer,
                address: own.address,
                nonce: nonce.finish(),
                seed,
            };
            self.gateway.add(new, settings, now);
        }
        self.review_senders(interface);
        self.review_scopes(now);
        self.node.lan_groups = self.gateway.sending_groups();
        self.routing.force();
    }

    /// Sets whether the interface of a LAN has a carrier.
    pub fn set_lan_running(&mut self, interface: LocalInterfaceId, running: bool, now: Instant) {
        self.turn(now);
        self.gateway.set_running(interface, running, now);
    }

    /// Ends the service of a LAN.
    pub fn remove_lan(&mut self, interface: LocalInterfaceId, now: Instant) {
        self.turn(now);
        self.gateway.remove(interface);
        self.membership.remove(interface);
        self.review_scopes(now);
        self.node.lan_groups = self.gateway.sending_groups();
        self.routing.force();
    }

    /// Sets the senders of a LAN: the interface reports the joins for them.
    fn review_senders(&mut self, interface: LocalInterfaceId) {
        let senders = Senders::Lan {
            prefixes: self.gateway.senders(interface),
            ipv4: self
                .node
                .sources
                .ipv4()
                .filter(|_| self.gateway.sends(interface)),
        };
        let groups = self.joinable_groups();
        self.membership.set_senders(interface, senders, groups);
    }

    /// Groups that neighbours or local listeners may have joined.
    fn joinable_groups(&self) -> Vec<Ipv6Addr> {
        let mut groups = self.membership.groups();
        groups.extend(self.forwarding.trees.groups());
        groups
    }

    /// Begins an input other than a packet; its changes leave with the next flush.
    fn turn(&mut self, now: Instant) {
        self.now = now;
        self.unflushed = true;
        self.timers.touch();
    }
}

/// Packets.
impl Engine {
    /// Handles a packet from `lc0`, without packet information. The output is a part of it.
    pub fn handle_local_packet(&mut self, mut packet: Bytes, now: Instant) {
        self.now = now;
        self.timers.touch();
        self.outbox.counters.tun_rx_packets += 1;
        self.outbox.counters.tun_rx_bytes += packet.len() as u64;
        let result = match self.node.scopes.classify(&packet) {
            Class::Carried(flow) => {
                trim(&mut packet);
                self.send_own(flow, packet)
            }
            Class::Unicast(flow) => {
                trim(&mut packet);
                let view = RouteView {
                    own: self.node.own,
                    graph: self.routing.graph(),
                    neighbors: self.exchange.neighbors(),
                };
                let (forwarding, outbox) = (&mut self.forwarding, &mut self.outbox);
                let (node, database) = (&self.node, &self.database);
                self.unicast.send(
                    flow,
                    packet,
                    (node, database, view),
                    forwarding,
                    outbox,
                    now,
                )
            }
            Class::Mld => {
                self.unflushed = true;
                let (node, outbox) = (&self.node, &mut self.outbox);
                let by_program = |_| Reporter::Host;
                self.membership
                    .handle_mld(LC0, &packet, node, by_program, outbox, now)
            }
            Class::Dropped(reason) => Err(reason),
        };
        self.outbox.count(result);
    }

    /// Handles a packet received on a LAN, from a host with this Ethernet address.
    pub fn handle_lan_packet(
        &mut self,
        interface: LocalInterfaceId,
        mac: MacAddress,
        mut packet: Bytes,
        now: Instant,
    ) {
        self.now = now;
        self.timers.touch();
        let is_of_segment = self.gateway.has_segment(interface);
        let class = match is_of_segment {
            true => CarriedScopes::ON_LINKS.classify(&packet),
            false => self.node.scopes.classify(&packet),
        };
        if is_of_segment && class != Class::Mld {
            self.handle_group_of_segment(interface, mac, &packet);
        }
        let settings = self.gateway.settings(interface);
        let is_own = settings.is_some_and(|settings| settings.mac == mac);
        if is_of_segment && is_own && class != Class::Mld {
            // own programs reach other groups on lc0
            return;
        }
        let (node, outbox) = (&self.node, &mut self.outbox);
        let context = Context {
            node,
            database: &self.database,
            now,
        };
        let is_for_all = |group, gateway: &Gateway| {
            node.scopes.carries(group) && gateway.carries(interface, group)
        };
        let result = match class {
            // by the segment alone
            Class::Carried(flow) if is_of_segment && !is_for_all(flow.group, &self.gateway) => {
                Ok(())
            }
            Class::Carried(flow) if mapped::is_group_name(flow.group) => {
                let sent = HostPacket {
                    flow,
                    mac,
                    packet: &packet,
                };
                let admitted = self.gateway.admit_ipv4(interface, sent, context);
                admitted.and_then(|(flow, packet)| self.send(interface, flow, packet))
            }
            Class::Carried(flow) if is_link_scope(flow.group) => self.reflect(
                interface,
                HostPacket {
                    flow,
                    mac,
                    packet: &packet,
                },
            ),
            Class::Carried(flow) => {
                trim(&mut packet);
                let sent = HostPacket {
                    flow,
                    mac,
                    packet: &packet,
                };
                self.gateway
                    .admit(interface, sent, context, outbox)
                    .and_then(|()| self.send(interface, flow, packet))
            }
            Class::Mld => {
                self.unflushed = true;
                let database = &self.database;
                let gateway = &mut self.gateway;
                gateway
                    .admit_mld(interface, mac, packet.len(), now)
                    .and_then(|()| {
                        let is_gateway = |source: Ipv6Addr| {
                            // an IPv4 address does not name its owner
                            if mapped::is_host_name(source) {
                                return gateway.reports(interface, mac, database);
                            }
                            let origin = OriginId::of(source);
                            database.is_gateway(origin) || gateway.is_reporter(source)
                        };
                        let by = |source| match is_own && is_of_segment {
                            true => Reporter::Programs,
                            false if is_gateway(source) => Reporter::Gateway,
                            false => Reporter::Host,
                        };
                        self.membership
                            .handle_mld(interface, &packet, node, by, outbox, now)
                    })
            }
            Class::Dropped(DropReason::LinkControl) => {
                self.unflushed = true;
                self.gateway.handle_link_control(interface, &packet, now);
                Ok(())
            }
            Class::Dropped(DropReason::Malformed) => Err(DropReason::Malformed),
            // the LAN's own business
            Class::Unicast(_) | Class::Dropped(_) => Ok(()),
        };
        self.outbox.count(result);
    }

    /// Handles a frame of a LAN with a segment: ARP, neighbour solicitations and advertisements,
    /// and packets to the virtual Ethernet address, to broadcast and to groups. The shell passes
    /// each frame once, here or as a packet of a group to [`Self::handle_lan_packet`].
    pub fn handle_segment_frame(
        &mut self,
        interface: LocalInterfaceId,
        frame: SegmentFrame,
        now: Instant,
    ) {
        let to = flow_of(&frame.payload).map(|flow| mapped::shown(flow.group));
        let is_ip = [ETHERTYPE_IPV4, ETHERTYPE_IPV6].contains(&frame.ethertype);
        if is_ip && to.is_some_and(|to| to.is_multicast()) {
            return self.handle_lan_packet(interface, frame.source, frame.payload, now);
        }
        self.now = now;
        self.timers.touch();
        let (gateway, database) = (&mut self.gateway, &self.database);
        let result = gateway.handle_segment_frame(interface, &frame, database, now);
        self.outbox.count(result);
        self.run_segments();
    }

    /// Handles a packet of a LAN host to a group in the LAN's segment.
    fn handle_group_of_segment(
        &mut self,
        interface: LocalInterfaceId,
        mac: MacAddress,
        packet: &Bytes,
    ) {
        let (destination, ethertype) = match flow_of(packet).map(|flow| mapped::shown(flow.group)) {
            Some(IpAddr::V4(group)) => (MacAddress::of_ipv4_group(group), ETHERTYPE_IPV4),
            Some(IpAddr::V6(group)) => (MacAddress::of_group(group), ETHERTYPE_IPV6),
            None => return,
        };
        let frame = SegmentFrame {
            source: mac,
            destination,
            ethertype,
            payload: packet.clone(),
        };
        let (gateway, database) = (&mut self.gateway, &self.database);
        let result = gateway.handle_segment_frame(interface, &frame, database, self.now);
        self.outbox.count(result);
        self.run_segments();
    }

    /// Handles packets and actions of segments until there are none.
    fn run_segments(&mut self) {
        loop {
            self.gateway.handle_received(&mut self.outbox, self.now);
            let Some((interface, segment, output)) = self.gateway.poll_segment() else {
                return;
            };
            let result = match output {
                SegmentOutput::Frame(frame) => {
                    self.outbox.send_lan(interface, frame);
                    Ok(())
                }
                SegmentOutput::Drop(reason) => Err(reason),
                SegmentOutput::Group(group, inner) => {
                    let source = self.node.config.member.addresses.address;
                    let packet = wrap(source, group, segment, &inner);
                    self.send(interface, Flow { source, group }, packet)
                }
                SegmentOutput::Lan(lan, inner) => {
                    self.send_to_lan(interface, (segment, lan), &inner)
                }
            };
            self.outbox.count(result);
        }
    }

    /// Sends a packet of a segment to the forwarder of another LAN.
    fn send_to_lan(
        &mut self,
        from: LocalInterfaceId,
        (segment, lan): (SegmentId, LanId),
        inner: &[u8],
    ) -> Result<(), DropReason> {
        let (node, database) = (&self.node, &self.database);
        let source = node.config.member.addresses.address;
        let root = self.gateway.forwarder_of(from, lan);
        let root = root.ok_or(DropReason::SegmentUnknownHost)?;
        if root == node.own {
            let interface = self.gateway.interface_on(lan);
            self.gateway.receive(OfSegment {
                interface: Some(interface.ok_or(DropReason::SegmentUnknownHost)?),
                origin: root,
                group: None,
                packet: wrap(source, source, segment, inner),
            });
            return Ok(());
        }
        let router = database.router(root).ok_or(DropReason::NoRoute)?;
        let to = router.credential().member.addresses.address;
        let view = RouteView {
            own: node.own,
            graph: self.routing.graph(),
            neighbors: self.exchange.neighbors(),
        };
        let packet = wrap(source, to, segment, inner);
        let (forwarding, outbox) = (&mut self.forwarding, &mut self.outbox);
        let parts = (node, database, view);
        self.unicast
            .send_to_router(root, packet, parts, forwarding, outbox)
    }

    /// The virtual Ethernet address of a LAN, for which the shell receives packets: of the
    /// forwarder, and of a standby whose LAN has become a part of another. Roles change without an
    /// event: to be compared after each turn.
    pub fn virtual_mac(&self, interface: LocalInterfaceId) -> Option<MacAddress> {
        self.gateway.virtual_mac(interface)
    }

    /// Whether this node is the forwarder of a LAN of a segment.
    pub fn serves_segment(&self, interface: LocalInterfaceId) -> bool {
        self.gateway.serves_segment(interface)
    }

    /// The place of a host, as this gateway of a segment knows it.
    pub fn where_is(&self, interface: LocalInterfaceId, address: IpAddr) -> HostPlace {
        self.gateway.where_is(interface, address)
    }

    /// Gives an address of a LAN of a segment away: a host elsewhere may have it, until one of the
    /// LAN states it.
    pub fn release(&mut self, interface: LocalInterfaceId, address: IpAddr) {
        self.gateway.release(interface, address);
    }

    /// Repeats a host's multicast DNS message on other links, from this node's address.
    fn reflect(
        &mut self,
        interface: LocalInterfaceId,
        sent: HostPacket<'_>,
    ) -> Result<(), DropReason> {
        let context = Context {
            node: &self.node,
            database: &self.database,
            now: self.now,
        };
        let packet = self.gateway.admit_mdns(interface, sent, context)?;
        let source = self.node.config.member.addresses.link_local;
        self.send(
            interface,
            Flow {
                source,
                ..sent.flow
            },
            packet,
        )
    }

    /// Handles a PROBE received on a LAN, from this Ethernet address.
    pub fn handle_lan_probe(
        &mut self,
        interface: LocalInterfaceId,
        mac: MacAddress,
        probe: &[u8],
        now: Instant,
    ) {
        self.turn(now);
        let context = Context {
            node: &self.node,
            database: &self.database,
            now,
        };
        let services = &*self.services;
        let result = self
            .gateway
            .handle_probe(interface, mac, probe, context, services);
        self.outbox.count(result);
    }

    fn send_own(&mut self, flow: Flow, packet: Bytes) -> Result<(), DropReason> {
        if !self.node.sources.allows(flow.source, flow.group) {
            return Err(DropReason::ForeignSource);
        }
        self.send(LC0, flow, packet)
    }

    /// Sends a packet of a host for which this node may speak.
    fn send(
        &mut self,
        from: LocalInterfaceId,
        flow: Flow,
        packet: Bytes,
    ) -> Result<(), DropReason> {
        let permitted = &self.node.config.member.prefixes;
        if !permitted.iter().any(|p| p.contains(flow.group)) {
            return Err(DropReason::NotPermitted);
        }
        self.forwarding.private.admit(flow.group, from != LC0)?;
        let delivered = self.membership.has_lans() && self.deliver_here(Some(from), flow, &packet);
        self.send_on(from, flow, packet, delivered)
    }

    /// Sends a packet of a leaf to an asking group, as one of this host's own programs.
    fn send_of_leaf(
        &mut self,
        link: LinkId,
        header: Option<DataHeader>,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let source = self.node.config.member.addresses.address;
        let leaves = &mut self.membership.leaves;
        let (flow, packet) = leaves.admit_uplink(link, header, packet, source, self.now)?;
        let permitted = &self.node.config.member.prefixes;
        // a holder of a private prefix's key lets only its own programs send there
        let is_private = self.forwarding.private.of(flow.group).is_some();
        if is_private || !permitted.iter().any(|p| p.contains(flow.group)) {
            return Err(DropReason::LeafUplinkGroup);
        }
        self.timers.touch();
        let packet = packet.into();
        let delivered = self.deliver_here(None, flow, &packet);
        self.send_on(LC0, flow, packet, delivered)
    }

    /// Sends a packet on its tree and to leaves; `delivered`: this host has listeners, too.
    fn send_on(
        &mut self,
        from: LocalInterfaceId,
        flow: Flow,
        packet: Bytes,
        delivered: bool,
    ) -> Result<(), DropReason> {
        let (node, now) = (&self.node, self.now);
        let root = || {
            self.routing
                .sending_root(&self.database, node.own, flow.group)
        };
        let (root, is_new) =
            self.forwarding
                .begin_flow((from, flow.group), packet.len(), root, node, now);
        if is_new {
            self.unflushed = true;
            self.membership.touch([flow.group]);
        }
        let leaves = &mut self.membership.leaves;
        let leaves = leaves.admit(flow.group, flow.source, packet.len(), &mut self.outbox, now);
        // a leaf that listens and gets nothing now is not a missing listener
        let delivered = delivered || leaves.is_some();
        let leaves = leaves.unwrap_or_default();
        self.forwarding.send(
            root,
            LocalPacket {
                from,
                flow,
                packet,
                leaves,
                delivered,
            },
            &self.node,
            &mut self.outbox,
            now,
        )
    }

    /// Delivers a packet to the listeners of this host's other interfaces, or of all of them if it
    /// came from none; returns whether there are any.
    fn deliver_here(&mut self, from: Option<LocalInterfaceId>, flow: Flow, packet: &Bytes) -> bool {
        let (len, now) = (packet.len(), self.now);
        let mut local = self.membership.count_listeners(flow, from, len, now);
        if self.forwarding.private.is_closed_to_lans(flow.group) {
            local = local.without_lans();
        }
        let delivered = !local.is_empty();
        let from_lan = from.is_some_and(|from| from != LC0);
        if from_lan && mapped::is_group_name(flow.group) && local.contains(LC0) {
            local = local.without_lc0();
            self.deliver_ipv4_here(packet);
        }
        // the kernel refuses packets from its own address, and programs take them for their own
        let packet = match from_lan && is_link_scope(flow.group) {
            true => mdns::from_router(packet),
            false => packet.clone(),
        };
        let (gateway, outbox) = (&mut self.gateway, &mut self.outbox);
        deliver(local, (flow, self.node.own), packet, gateway, outbox, now);
        delivered
    }

    /// Delivers an IPv4 packet of a LAN host on lc0, as from the router of the network.
    fn deliver_ipv4_here(&mut self, packet: &Bytes) {
        let config = self.node.config.ipv4.as_ref();
        let router = config.map(|config| config.network.router());
        let packet = router.and_then(|router| ipv4::udp_from(packet, router));
        if let Some(packet) = packet {
            self.outbox.deliver(packet.into());
        }
    }

    /// Handles a data channel's message: data header and packet. The output is a part of it.
    pub fn handle_data(&mut self, link: LinkId, mut message: Bytes, now: Instant) {
        let header = DataHeader::decode(&message).ok().map(|(header, _)| header);
        let len = message.len();
        message.advance(HEADER_LEN.min(len));
        self.take_data(link, len, header, message, now);
    }

    /// Handles a data message with header and packet apart, as in [`Output::Data`].
    pub fn handle_packet(
        &mut self,
        link: LinkId,
        header: &[u8; HEADER_LEN],
        packet: Bytes,
        now: Instant,
    ) {
        let len = HEADER_LEN + packet.len();
        let header = DataHeader::decode(header).ok().map(|(header, _)| header);
        self.take_data(link, len, header, packet, now);
    }

    fn take_data(
        &mut self,
        link: LinkId,
        len: usize,
        header: Option<DataHeader>,
        packet: Bytes,
        now: Instant,
    ) {
        self.now = now;
        self.outbox.counters.link_rx_packets += 1;
        self.outbox.counters.link_rx_bytes += len as u64;
        if let Some(limit) = &mut self.outbox.pass_on {
            limit.advance(now);
        }
        let result = self.receive(link, header, packet);
        self.outbox.count(result);
        if self.gateway.has_received() {
            self.timers.touch();
            self.run_segments();
        }
    }

    fn receive(
        &mut self,
        link: LinkId,
        header: Option<DataHeader>,
        packet: Bytes,
    ) -> Result<(), DropReason> {
        if !self.exchange.accepts(link) {
            return match self.membership.leaves.contains(link) {
                true => self.send_of_leaf(link, header, &packet),
                false => Err(DropReason::UnknownLink),
            };
        }
        let header = header.ok_or(DropReason::BadHeader)?;
        if header.payload != Payload::of(&packet) {
            return Err(DropReason::BadHeader);
        }
        if header.hop_limit == 0 {
            return Err(DropReason::HopLimit);
        }
        let (node, database, outbox) = (&self.node, &self.database, &mut self.outbox);
        match CarriedScopes::ON_LINKS.classify(&packet) {
            Class::Carried(flow) => self.forwarding.receive(
                Arrival {
                    link,
                    header,
                    flow,
                    packet,
                },
                Context {
                    node,
                    database,
                    now: self.now,
                },
                &mut self.membership,
                &mut self.gateway,
                outbox,
            ),
            Class::Unicast(flow) => {
                let view = RouteView {
                    own: node.own,
                    graph: self.routing.graph(),
                    neighbors: self.exchange.neighbors(),
                };
                let origins = &mut self.forwarding.origins;
                let parts = (node, database, view);
                let received =
                    self.unicast
                        .receive((link, header), flow, packet, parts, origins, outbox)?;
                if let Some(packet) = received {
                    let origin = header.origin;
                    let private = &mut self.forwarding.private;
                    let opened = private.open_unicast(&header, flow, packet);
                    let packet = opened.map_err(|(reason, group)| {
                        if reason != DropReason::Duplicate {
                            let is_sealed = reason != DropReason::NotSealed;
                            let gateway = &mut self.gateway;
                            gateway.note_unreadable(group, origin, is_sealed, self.now);
                        }
                        reason
                    })?;
                    self.gateway.receive(OfSegment {
                        interface: None,
                        origin: header.origin,
                        group: None,
                        packet,
                    });
                }
                Ok(())
            }
            Class::Mld => Err(DropReason::LinkControl),
            Class::Dropped(reason) => Err(reason),
        }
    }
}

fn limit(bits: Option<u64>, now: Instant) -> Option<Box<PassOn>> {
    bits.map(|bits| Box::new(PassOn::new(bits, now)))
}

/// Control messages.
impl Engine {
    /// Handles one message of a control channel, after authentication.
    pub fn handle_control(&mut self, link: LinkId, message: &[u8], now: Instant) {
        self.turn(now);
        self.outbox.counters.control_rx_messages += 1;
        self.outbox.counters.control_rx_bytes += message.len() as u64;
        if self.membership.leaves.contains(link) {
            return self.handle_leaf(link, message);
        }
        let Some(adjacency) = self.exchange.adjacencies().get(&link) else {
            self.outbox.drops.count(DropReason::UnknownLink);
            return;
        };
        if adjacency.faulty {
            self.outbox.drops.count(DropReason::BadControl);
            return;
        }
        let result = control::decode(message)
            .map_err(|_| LinkFault::Unreadable)
            .and_then(|elements| self.handle_elements(link, elements));
        if let Err(reason) = result {
            self.exchange.fault(link, reason, &mut self.outbox);
        }
    }

    fn handle_leaf(&mut self, link: LinkId, message: &[u8]) {
        let (leaves, outbox) = (&mut self.membership.leaves, &mut self.outbox);
        if leaves.is_faulty(link) {
            outbox.drops.count(DropReason::BadControl);
            return;
        }
        let scopes = &self.node.scopes;
        let result = control::decode(message)
            .map_err(|_| LinkFault::Unreadable)
            .and_then(|elements| leaves.handle_elements(link, elements, scopes, outbox, self.now));
        if let Err(reason) = result
            && leaves.set_faulty(link)
        {
            outbox.drops.count(DropReason::BadControl);
            outbox.push(Output::LinkFault { link, reason });
        }
    }

    fn handle_elements(&mut self, link: LinkId, elements: Vec<Element>) -> Result<(), LinkFault> {
        for element in elements {
            if !self.exchange.expect(link, &element)? {
                return Ok(());
            }
            self.handle_element(link, element);
        }
        Ok(())
    }

    fn handle_element(&mut self, link: LinkId, element: Element) {
        let (now, outbox) = (self.now, &mut self.outbox);
        let mut joins = ReceivedJoins {
            trees: &mut self.forwarding.trees,
            limits: &self.node.config.limits,
        };
        match element {
            Element::Hello { .. } => {}
            Element::JoinState(state) => {
                self.exchange
                    .handle_join_state(link, state, &mut joins, outbox, now);
            }
            Element::Refusal {
                reason,
                root,
                prefix,
            } => {
                self.exchange
                    .handle_refusal(link, (root, prefix), reason, joins.trees, now);
            }
            Element::Summary(summary) => {
                outbox.count(self.database.handle_summary(link, &summary, now));
            }
            Element::Lsa(lsa) => {
                let result = self.database.handle_lsa(link, lsa.kind, &lsa.bytes, now);
                outbox.count(result);
            }
            Element::Routed(routed) => {
                let result = self.handle_routed(link, routed);
                self.outbox.count(result);
            }
            Element::Audit(audit) => {
                self.exchange
                    .handle_audit(link, &audit, &mut joins, outbox, now);
            }
            Element::LinkRequest(request) => {
                self.topology.set_peer_request(link, request, now);
                self.review_standing(link);
            }
            Element::Epochs(epochs) => outbox.push(Output::Epochs { link, epochs }),
            // only between leaf and router
            Element::LeafJoin(_) | Element::LeafOffer(_) => {
                outbox.drops.count(DropReason::BadControl);
            }
        }
    }

    /// Sends rendezvous epochs to a neighbour, if linked, as in [`control::Element::Epochs`].
    pub fn send_epochs(&mut self, link: LinkId, epochs: Bytes, now: Instant) {
        self.turn(now);
        self.exchange.send_epochs(link, epochs);
    }

    fn handle_routed(&mut self, link: LinkId, routed: Routed) -> Result<(), DropReason> {
        let own = self.node.own;
        if !self.exchange.admit_routed(link, &routed, own, self.now) {
            return Err(DropReason::RoutedLimited);
        }
        if routed.destination == own && routed.hop_limit > 0 {
            match routed.kind {
                RoutedKind::Carry => return self.handle_carry(routed.source, &routed.payload),
                RoutedKind::Carried => {
                    self.handle_carried(routed.source, &routed.payload);
                    return Ok(());
                }
                _ => {}
            }
        }
        let view = RouteView {
            own,
            graph: self.routing.graph(),
            neighbors: self.exchange.neighbors(),
        };
        let (routes, outbox) = (&mut self.unicast.routes, &mut self.outbox);
        self.routed.route(Some(link), routed, routes, view, outbox)
    }

    /// A sender asks this router to carry parts.
    fn handle_carry(&mut self, from: OriginId, payload: &[u8]) -> Result<(), DropReason> {
        let context = Context {
            node: &self.node,
            database: &self.database,
            now: self.now,
        };
        let joined = self.membership.groups();
        let listens = |prefix: &GroupPrefix| joined.iter().any(|group| prefix.contains(*group));
        let here = (listens, &**self.routing.graph());
        let services = &*self.services;
        let handled = self
            .carry
            .handle_request(from, payload, here, context, services);
        let (answer, changed) = handled?;
        if changed {
            self.announce();
        }
        self.send_carry(vec![answer]);
        Ok(())
    }

    fn handle_carried(&mut self, from: OriginId, payload: &[u8]) {
        let context = SenderContext {
            node: &self.node,
            database: &self.database,
            graph: self.routing.graph(),
            now: self.now,
        };
        let messages = self
            .carry
            .handle_answer(from, payload, &context, &*self.services);
        self.send_carry(messages);
    }

    fn sends(&self) -> Sends {
        if self.forwarding.groups.flows() == 0 {
            Sends::Nothing
        } else if self.node.config.announce.is_empty() {
            Sends::Groups
        } else {
            Sends::OwnPrefixes
        }
    }

    /// Own flows are measured, and leases end.
    fn carry_timeout(&mut self) {
        let now = self.now;
        if self.carry.is_due(self.sends(), now) {
            let neighbors = self.exchange.neighbors();
            let flows = self.forwarding.take_own_flows(neighbors, &self.node, now);
            let context = SenderContext {
                node: &self.node,
                database: &self.database,
                graph: self.routing.graph(),
                now,
            };
            let messages = self.carry.measure(flows, &context, &*self.services);
            self.send_carry(messages);
        }
        let sent = self.outbox.counters.link_tx_bytes;
        let mut changed = self.carry.handle_timeout(sent, now);
        if self.carry.passes_on() {
            let (own, trees) = (self.node.own, &self.forwarding.trees);
            let groups = trees.keys().into_iter().filter(|(root, _)| *root == own);
            let groups: Vec<_> = groups.map(|(_, group)| group).collect();
            let copies = |part: &GroupPrefix| {
                let groups = groups.iter().filter(|group| part.contains(**group));
                let copies = groups.map(|group| trees.links(own, *group).len());
                copies.max().unwrap_or(0)
            };
            changed |= self.carry.limit_copies(copies, now);
        }
        if changed {
            self.announce();
        }
    }

    fn send_carry(&mut self, messages: Vec<CarryMessage>) {
        for message in messages {
            let (to, kind, payload) = match message {
                CarryMessage::Request(to, payload) => (to, RoutedKind::Carry, payload),
                CarryMessage::Answer(to, payload) => (to, RoutedKind::Carried, payload),
            };
            if let Err(reason) = self.send_routed(to, kind, payload, self.now) {
                self.outbox.drops.count(reason);
            }
        }
    }

    /// Sends a message to another router over the control channels between; at most [`MAX_ROUTED`].
    ///
    /// # Errors
    /// The message is too long, or there is no route.
    pub fn send_routed(
        &mut self,
        to: OriginId,
        kind: RoutedKind,
        payload: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.turn(now);
        if payload.len() > MAX_ROUTED {
            return Err(DropReason::TooBig);
        }
        let own = self.node.own;
        let routed = Routed {
            destination: to,
            source: own,
            hop_limit: HOP_LIMIT,
            kind,
            payload,
        };
        let view = RouteView {
            own,
            graph: self.routing.graph(),
            neighbors: self.exchange.neighbors(),
        };
        let (routes, outbox) = (&mut self.unicast.routes, &mut self.outbox);
        self.routed
            .originate(routed, &self.database, routes, view, outbox)
    }
}

/// Time and outputs.
impl Engine {
    /// To be called at the time of [`Self::next_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.turn(now);
        self.membership.handle_timeout(now);
        self.exchange.handle_timeout(now);
        let idle = self.forwarding.handle_timeout(&mut self.outbox, now);
        self.membership.touch(idle);
        self.database.handle_timeout(now);
        let services = &*self.services;
        self.gateway
            .handle_timeout(&self.node, services, &mut self.outbox, now);
        self.run_segments();
        let prospects = || Prospect::all(self.routing.graph(), self.node.own);
        self.topology.handle_timeout(prospects, now);
        self.carry_timeout();
        // the flush that follows checks the timers of proxies and of route computation
    }

    /// The time of the next call of [`Self::handle_timeout`], and its reason.
    #[must_use]
    pub fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        match self.timers.first() {
            Some(first) => first,
            None => {
                let flushed = if self.unflushed {
                    self.flush_timer()
                } else {
                    self.timers.flushed()
                };
                [flushed, self.packet_timer()].into_iter().flatten().min()
            }
        }
    }

    /// The first of the timers that packets change.
    fn packet_timer(&self) -> Timer {
        let of_segments = timer(self.gateway.next_segment_timeout(), TimerKind::Lan);
        let timers = [self.forwarding.next_timeout(), of_segments];
        timers.into_iter().flatten().min()
    }

    /// The first of the timers that only a flush changes.
    fn flush_timer(&self) -> Timer {
        let gone = self.forwarding.origins.next_timeout();
        let sends = self.sends();
        let timers = [
            self.membership.next_timeout(),
            timer(self.exchange.next_retry(), TimerKind::JoinRetry),
            timer(self.exchange.next_audit(), TimerKind::Audit),
            timer(self.database.next_timeout(), TimerKind::LinkState),
            timer(self.topology.next_timeout(), TimerKind::Topology),
            timer(self.routing.next_timeout(), TimerKind::RouteComputation),
            timer(gone, TimerKind::RouterGone),
            timer(self.gateway.next_timeout(), TimerKind::Lan),
            timer(self.carry.next_timeout(sends), TimerKind::Carry),
            self.membership.leaves.next_timeout(),
        ];
        timers.into_iter().flatten().min()
    }

    /// The next action. To be called until `None` after a batch of inputs: all changes of one batch
    /// leave in one control message per link.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.unflushed {
            self.unflushed = false;
            self.flush();
        }
        self.outbox.pop()
    }

    /// Sends all changes, to neighbours first: a Join should not wait behind reports. Separate from
    /// [`Self::poll_output`], which runs for every packet.
    #[inline(never)]
    fn flush(&mut self) {
        self.flush_topology();
        if self.membership.has_lans() || !self.gateway.advertised().is_empty() {
            self.flush_lans();
        }
        self.flush_routes();
        if self.membership.has_lans() {
            self.gateway.set_segments(&self.database, self.now);
            self.run_segments();
        }
        self.flush_control();
        let Self {
            node,
            routing,
            database,
            forwarding,
            ..
        } = self;
        let joins = |group| routing.remote_joins(group, node, database, forwarding);
        self.membership
            .flush(&node.scopes, joins, &mut self.outbox, self.now);
        self.flush_leaves();
        self.exchange.find_timers();
        let by_packets = self.packet_timer();
        self.timers.set(self.flush_timer(), by_packets);
    }

    /// Sends leaves their refusals, and the other routers that are reachable and serve leaves.
    /// Tells them at once when this router has no neighbour any more.
    fn flush_leaves(&mut self) {
        let (database, own) = (&self.database, self.node.own);
        let routers = || {
            let others = database.routers().filter(|(origin, _)| *origin != own);
            let serving = others.filter(|(_, r)| r.is_reachable() && !r.has_flag(FLAG_STUB));
            let named = serving.map(|(origin, r)| (origin, r.credential().member.peer));
            named.collect()
        };
        let max = self.node.config.limits.leaves;
        let leaves = &mut self.membership.leaves;
        leaves.set_isolated(self.exchange.neighbors().is_empty());
        leaves.flush(max, routers, &mut self.outbox, self.now);
    }

    /// Updates roles on LANs after links and elections.
    fn flush_lans(&mut self) {
        let (node, database) = (&self.node, &self.database);
        let linked = !self.exchange.neighbors().is_empty();
        self.gateway.review(
            linked,
            Context {
                node,
                database,
                now: self.now,
            },
        );
        for event in self.gateway.take_events(&node.config.member, self.now) {
            match event {
                LanEvent::Forwarder(interface) => {
                    let groups = self.joinable_groups();
                    self.membership.start(interface, groups, self.now);
                }
                LanEvent::Standby(interface) => self.membership.stop(interface),
                LanEvent::Senders(interface) => self.review_senders(interface),
                LanEvent::Ask(interface) => self.membership.query_again(interface, self.now),
                LanEvent::Segment(interface, segment) => {
                    let scopes = &self.node.scopes;
                    self.membership.set_segment(interface, segment, scopes);
                    self.membership.query_again(interface, self.now);
                }
                LanEvent::Advertise => {
                    let lans = self.gateway.advertised().to_vec();
                    self.database.set_lans(lans, self.now);
                }
            }
        }
    }

    fn flush_topology(&mut self) {
        while let Some(event) = self.topology.poll_event() {
            match event {
                TopologyEvent::LinkRequest { link, request } => {
                    self.exchange.request_link(link, request);
                    self.review_standing(link);
                }
                TopologyEvent::Standing { link } => self.review_standing(link),
                TopologyEvent::Wanted(wanted) => self.outbox.push(Output::Wanted(wanted)),
                TopologyEvent::Retire { link } => self.outbox.push(Output::Retire { link }),
            }
        }
    }

    /// Sets whether the database advertises a link: only if it is wanted.
    fn review_standing(&mut self, link: LinkId) {
        let standing = self.topology.standing(link);
        self.database.set_standing(link, standing, self.now);
    }

    /// Updates trees and flows after listeners and the database.
    fn flush_routes(&mut self) {
        for group in self.membership.take_changes() {
            let (routing, mut parts) = self.computation();
            routing.join(group, false, &mut parts);
        }
        self.database.update();
        self.handle_database_events();
        let (routing, mut parts) = self.computation();
        if routing.update(&mut parts) {
            self.unicast.routes.clear();
        }
    }

    fn computation(&mut self) -> (&mut Routing, Computation<'_>) {
        let parts = Computation {
            node: &self.node,
            neighbors: self.exchange.neighbors(),
            database: &mut self.database,
            forwarding: &mut self.forwarding,
            membership: &mut self.membership,
            topology: &mut self.topology,
            now: self.now,
        };
        (&mut self.routing, parts)
    }

    fn flush_control(&mut self) {
        let outgoing = Outgoing {
            lsdb: self.database.take_messages(),
            routed: self.routed.take(),
        };
        let (node, outbox) = (&self.node, &mut self.outbox);
        let Forwarding { trees, replay, .. } = &mut self.forwarding;
        let changed = self
            .exchange
            .flush(node, outgoing, trees, replay, outbox, self.now);
        for (root, group) in &changed {
            self.forwarding.release(*group, node, outbox, self.now);
            self.forwarding.replay(*root, *group, outbox);
        }
        let groups = changed.iter().map(|(_, group)| *group);
        self.membership.touch(groups);
    }

    fn handle_database_events(&mut self) {
        for event in self.database.take_events() {
            match event {
                DatabaseEvent::Incarnation(origin, incarnation) if origin == self.node.own => {
                    self.node.config.incarnation = incarnation;
                    self.outbox.push(Output::Incarnation(incarnation));
                }
                DatabaseEvent::Incarnation(origin, incarnation) => {
                    // a sender that has restarted asks anew
                    if self.carry.forget_sender(origin) {
                        self.announce();
                    }
                    self.forwarding.origins.confirm(origin, incarnation);
                    self.forwarding.replay.clear();
                }
                DatabaseEvent::RouterUp(origin) => self.set_reachable(origin, true),
                DatabaseEvent::RouterDown(origin) => self.set_reachable(origin, false),
                DatabaseEvent::Revoked(key, revocation) => {
                    self.outbox.push(Output::Revoked { key, revocation });
                }
                DatabaseEvent::CredentialChanged(origin) => {
                    if let Some(router) = self.database.router(origin) {
                        let credential = Arc::clone(router.credential());
                        self.outbox.push(Output::Renewed { credential });
                    }
                }
                DatabaseEvent::Dropped(reason) => self.outbox.drops.count(reason),
                DatabaseEvent::Forged(link) => {
                    self.exchange
                        .fault(link, LinkFault::Forged, &mut self.outbox);
                    self.exchange.find_neighbors();
                    self.routing.force();
                }
                DatabaseEvent::Ipv4Address(address) => self.set_ipv4_address(address),
                DatabaseEvent::RpsChanged => {}
            }
        }
    }

    fn set_reachable(&mut self, origin: OriginId, up: bool) {
        if origin != self.node.own {
            let origins = &mut self.forwarding.origins;
            origins.set_reachable(origin, up, self.now);
            if !up {
                self.gateway.set_unreachable(origin, self.now);
                if self.carry.forget_sender(origin) {
                    self.announce();
                }
            }
            self.outbox.push(Output::Reachable { origin, up });
        }
    }
}

/// Queries about routers.
impl Engine {
    /// A router's member data, from its verified certificate.
    pub fn member(&self, origin: OriginId) -> Option<&Member> {
        Some(&self.database.router(origin)?.credential().member)
    }

    /// Private prefixes and their secrets.
    pub fn private(&self) -> &[PrivatePrefix] {
        &self.node.config.private
    }

    /// How things stand with this node's uplink.
    pub fn carry(&self) -> CarrySnapshot {
        self.carry.snapshot(self.now)
    }

    /// The root of a group's tree, as this router sees it.
    pub fn root(&self, group: Ipv6Addr) -> OriginId {
        self.routing
            .sending_root(&self.database, self.node.own, group)
    }

    /// Digest of the network's graph as this router sees it: equal for equal graphs.
    pub fn graph_digest(&self) -> u64 {
        self.routing.graph().digest()
    }

    /// Whether unicast of streams is carried to a router.
    pub fn takes_streams(&self, origin: OriginId) -> bool {
        let router = self.database.router(origin);
        router.is_some_and(|r| r.has_flag(FLAG_STREAMS))
    }

    /// Routers that can be reached and renew certificates.
    pub fn issuers(&self) -> Vec<OriginId> {
        self.database.issuers().collect()
    }
}

fn flags(node: &Node) -> u8 {
    let config = &node.config;
    let core = if config.member.core { FLAG_CORE } else { 0 };
    let unicast = if config.unicast { FLAG_UNICAST } else { 0 };
    let issuer = if config.can_issue { FLAG_ISSUER } else { 0 };
    let stub = if config.transits { 0 } else { FLAG_STUB };
    let streams = if node.streams { FLAG_STREAMS } else { 0 };
    core | unicast | issuer | stub | streams
}
