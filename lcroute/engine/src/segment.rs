//! Segments: LANs of several gateways whose hosts reach each other as on one LAN.
//!
//! ```text
//! hosts ──ARP, ND──> neighbor ──> directory <──ASK, HERE, GONE──> gateways of the other LANs
//! hosts ──IP──> admission ──> message ──────────IP──────────────> the same
//! ```
//! A gateway answers ARP and neighbour discovery for hosts of the other LANs with one virtual
//! Ethernet address, and carries the IP packets that arrive for it.

mod admission;
mod budget;
mod directory;
mod homes;
mod message;
mod neighbor;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use librecast::bucket::{Bucket, Rate};
use librecast::cert::SourcePrefix;
use librecast::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, MacAddress};
use librecast::id::{LanId, OriginId, PeerId, derive};
use librecast::mapped;
use librecast::time::{Duration, Instant};

use crate::classify::{Flow, flow_of, is_ipv4, is_link_scope, trim};
use crate::drops::DropReason;
use crate::icmp::IcmpError;
use crate::output::LanFrame;
use crate::segment_id::SegmentId;
use crate::segment_lans::SegmentLans;
use crate::senders::Senders;

use directory::{Action, Directory, Place, Route};
use message::{Kind, Message};
use neighbor::{Asker, HostMessage, Own};

pub use message::{Inner, unwrap, wrap};

/// Longest packet of a host in bytes, as on Ethernet.
const MAX_PACKET: usize = 1_500;
/// Packets that wait for one host. Chosen.
const HELD_PER_HOST: usize = 8;
/// Packets that wait for all hosts of a LAN. Chosen.
const MAX_HELD: usize = 1_024;
/// Broadcasts and packets to link-local groups of all hosts: a loop ends here. Chosen.
const STORM_RATE: Rate = Rate::per_second(1_000, 200);
/// Corrections of hosts that still believe a host here to be elsewhere. Chosen.
const CORRECTION_RATE: Rate = Rate::per_second(20, 50);
/// Errors about packets that are too long. Chosen: apart from corrections, which other hosts need.
const ERROR_RATE: Rate = Rate::per_second(20, 50);
/// Most hosts elsewhere that are announced again under another virtual address. Chosen.
const MAX_ANNOUNCED: usize = 256;
/// Time for which gateways whose packets cannot be read are shown, after the last one. Chosen.
const UNREADABLE_MEMORY: Duration = Duration::from_secs(300);
/// Most of these gateways. Chosen: as many as a segment has LANs.
const MAX_UNREADABLE: usize = 64;
/// Time for which a rival of the virtual address is shown. Chosen.
const RIVAL_MEMORY: Duration = Duration::from_secs(60);
/// Time after which frames from the virtual address are a rival's: a gateway that wakes up after a
/// pause may send some, until it hears its successor. Chosen.
const RIVAL_GRACE: Duration = Duration::from_secs(2);
/// Least burst of groups into a LAN, in bytes: one batch. Chosen.
const BURST_OUT: u64 = 200_000;
/// Answers about hosts elsewhere without a frame to them, after which frames seem to be lost on the
/// LAN. Chosen: a host that gets its answer sends at once.
const UNHEARD_ANSWERS: usize = 8;
/// Time for which a standby takes in packets for the virtual address of a LAN that has become a
/// part of another. Chosen: as long as a host elsewhere is remembered.
const FORMER_MEMORY: Duration = Duration::from_secs(300);

/// `segment` of a LAN, by its gateway's configuration and interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSettings {
    /// The segment's name: LANs with one name are one LAN.
    pub name: String,
    /// Rate of broadcast, link-local groups and questions of all hosts together, in bits a second.
    pub broadcast: u64,
    /// A free address of the LAN to which its router sends packets for other subnets.
    pub router: Option<Ipv4Addr>,
    /// The LAN's default routers, by the host's routing table: each LAN keeps its own.
    pub default_routers: Vec<IpAddr>,
    /// IPv4 hosts of this LAN that take part: address and prefix length; empty: all on link.
    pub hosts: Vec<(Ipv4Addr, u8)>,
    /// The gateway's own programs, if they take part: the shell reads their frames into the LAN,
    /// and gives them frames for the interface's Ethernet address.
    pub programs: Option<SegmentPrograms>,
}

/// The gateway's own programs in a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SegmentPrograms {
    /// The interface's IPv6 addresses.
    pub addresses: Vec<Ipv6Addr>,
    /// UDP ports of this node itself: no link of it leads through a segment.
    pub ports: Vec<u16>,
}

/// A frame of a LAN, as its hosts sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFrame {
    /// Its Ethernet source.
    pub source: MacAddress,
    /// Its Ethernet destination.
    pub destination: MacAddress,
    /// Its EtherType: ARP, IPv4 or IPv6; others are ignored.
    pub ethertype: u16,
    /// The bytes behind the Ethernet header, at most 1,500 and padding: super-packets are split
    /// before, and checksums are complete.
    pub payload: Bytes,
}

/// The segment of a LAN, as users see it.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentSnapshot {
    /// Its name.
    pub name: String,
    /// The Ethernet address for hosts of the other LANs.
    pub virtual_mac: MacAddress,
    /// The other LANs of the segment.
    pub lans: Vec<SegmentLan>,
    /// Hosts' addresses heard here.
    pub here: usize,
    /// Addresses elsewhere that are in use here.
    pub elsewhere: usize,
    /// Default routers of this LAN with the address of a host behind another gateway.
    pub routers: Vec<IpAddr>,
    /// Addresses that are or were here, and behind another gateway as well.
    pub conflicts: Vec<(IpAddr, PeerId)>,
    /// The problem, if any.
    pub problem: Option<SegmentProblem>,
}

/// Another LAN of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLan {
    /// Its forwarder.
    pub forwarder: PeerId,
    /// Its IPv4 prefixes: address and length.
    pub prefixes: Vec<(Ipv4Addr, u8)>,
    /// Round trip to its forwarder by the advertised costs; none: a LAN of this node.
    pub rtt: Option<Duration>,
}

/// A problem of a segment, the worst first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentProblem {
    /// This node's certificate does not permit the segment of this name.
    NotPermitted(String),
    /// These gateways seal their packets with a key that this host does not have.
    NoKey(Vec<PeerId>),
    /// These gateways do not seal their packets, and this host has a key.
    InClear(Vec<PeerId>),
    /// Another host uses the virtual Ethernet address.
    Rival(MacAddress),
    /// These gateways advertise one LAN, and do not hear each other there.
    Disputed(Vec<PeerId>),
    /// The gateway's interface has no IPv4 address.
    NoIpv4,
    /// Hosts here ask for hosts elsewhere, and no frame to the virtual Ethernet address arrives.
    Unheard(MacAddress),
    /// A host here asks for more addresses than its share.
    Scanner(MacAddress),
    /// No other LAN has this segment.
    Alone,
    /// The interface takes longer packets than a segment.
    LongPackets(u16),
    /// The LANs of these gateways have other IPv4 subnets.
    OtherSubnet(Vec<PeerId>),
}

/// The place of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPlace {
    /// On this LAN, with this Ethernet address.
    Here(MacAddress),
    /// On the LAN of this gateway.
    Behind(PeerId),
    /// On this LAN, with this Ethernet address, and on the LAN of another gateway as well.
    Conflict(MacAddress, PeerId),
    /// Not here at present, and kept for a host of this LAN though this gateway's LAN has it.
    Kept(PeerId),
    /// Nobody answered a moment ago.
    Nobody,
    /// Nobody has asked for it lately.
    Unknown,
}

/// The gateway's place on a LAN, and the hosts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The interface's Ethernet address.
    pub mac: MacAddress,
    /// Its link-local address.
    pub link_local: Ipv6Addr,
    /// Its IPv4 address for questions.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv4 prefixes on link, each with an address of the gateway in it.
    pub ipv4_prefixes: Vec<(Ipv4Addr, u8)>,
    /// IPv6 prefixes on link.
    pub prefixes: Vec<SourcePrefix>,
    /// Longest packet of the interface in bytes.
    pub mtu: u16,
    /// Rate of groups into the other LANs, in bits a second.
    pub rate: u64,
    /// Rate of groups into this LAN, in bits a second.
    pub rate_out: u64,
}

impl Link {
    fn own(&self) -> Own {
        Own {
            mac: self.mac,
            link_local: self.link_local,
            ipv4: self.ipv4,
        }
    }

    /// Whether a host of this LAN may have this address, or the IPv4 address of this name.
    fn may_have(&self, address: Ipv6Addr) -> bool {
        match mapped::ipv4(address) {
            Some(host) => self.ipv4_prefixes.iter().any(|p| is_inside(*p, host)),
            None if address.is_unicast_link_local() => true,
            None => self.prefixes.iter().any(|p| p.contains(address)),
        }
    }

    /// Whether an IPv4 packet to this address is for all hosts.
    fn is_broadcast(&self, to: Ipv4Addr) -> bool {
        let ends = |(address, len): &(Ipv4Addr, u8)| {
            let rest = u32::MAX.checked_shr((*len).into()).unwrap_or_default();
            // a link of two hosts has no broadcast (RFC 3021)
            rest > 1 && to.to_bits() == address.to_bits() | rest
        };
        to.is_broadcast() || self.ipv4_prefixes.iter().any(ends)
    }

    /// The gateway's own addresses, or names of them.
    fn addresses(&self) -> Vec<Ipv6Addr> {
        let ipv4 = self.ipv4_prefixes.iter();
        let ipv4 = ipv4.map(|(address, _)| mapped::name(*address));
        ipv4.chain([self.link_local]).collect()
    }
}

/// Whether a host is inside a prefix: address and length.
pub fn is_inside((address, len): (Ipv4Addr, u8), host: Ipv4Addr) -> bool {
    let rest = 32_u32.saturating_sub(len.into());
    // a prefix of length 0 leaves no bits
    let of = |address: Ipv4Addr| address.to_bits().checked_shr(rest).unwrap_or_default();
    of(address) == of(host)
}

/// An action of a LAN's segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SegmentOutput {
    /// Send a frame into the LAN.
    Frame(LanFrame),
    /// Send to the forwarder of another LAN.
    Lan(LanId, Bytes),
    /// Send to a group of the segment.
    Group(Ipv6Addr, Bytes),
    /// Count a drop.
    Drop(DropReason),
}

/// A packet that waits until its host's place is known.
#[derive(Debug)]
struct Held {
    packet: Bytes,
    /// The LAN from which it came; none: this one.
    from: Option<LanId>,
}

/// The rights and duties of this gateway for its LAN now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its certificate permits the segment.
    pub is_permitted: bool,
    /// It is the LAN's forwarder.
    pub is_forwarder: bool,
    /// The LAN's name.
    pub lan: LanId,
}

/// One LAN of a segment, at one of its gateways.
#[derive(Debug)]
pub struct Segment {
    settings: SegmentSettings,
    id: SegmentId,
    network: [u8; 6],
    link: Link,
    standing: Standing,
    virtual_mac: MacAddress,
    lans: Arc<SegmentLans>,
    directory: Directory,
    held: BTreeMap<Ipv6Addr, Vec<Held>>,
    held_count: usize,
    /// Sources of broadcast and link-local groups, which share their rate.
    storm: Senders,
    storm_packets: Bucket,
    /// Sources of other groups.
    senders: Senders,
    out: Bucket,
    corrections: Bucket,
    errors: Bucket,
    /// The virtual address before this LAN became a part of another, and the end of its use.
    former: Option<(MacAddress, Instant)>,
    /// Gateways whose packets cannot be read: whether they are sealed, and the end of the memory.
    unreadable: BTreeMap<OriginId, (bool, Instant)>,
    /// Gateways of LANs that are new in the segment.
    appeared: Vec<OriginId>,
    rival_until: Option<Instant>,
    /// Time of the first frame from the virtual address within [`RIVAL_MEMORY`].
    rival_since: Option<Instant>,
    /// Answers about hosts elsewhere since the last frame to them, up to [`UNHEARD_ANSWERS`].
    answers: usize,
    outputs: VecDeque<SegmentOutput>,
}

/// Settings and roles.
impl Segment {
    /// A LAN of the segment with these settings, at a node with this address.
    pub fn new(
        node: Ipv6Addr,
        settings: SegmentSettings,
        link: Link,
        lan: LanId,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut network = [0; 6];
        network.copy_from_slice(&node.octets()[..6]);
        let standing = Standing {
            is_permitted: false,
            is_forwarder: false,
            lan,
        };
        let mut directory = Directory::new(seed, now);
        directory.set_own(
            own_addresses(&settings, &link),
            of_programs(&settings, &link),
        );
        directory.set_routers(default_routers(&settings), now);
        Self {
            id: SegmentId::of(node, &settings.name),
            network,
            virtual_mac: virtual_mac(network, lan),
            lans: Arc::default(),
            directory,
            held: BTreeMap::new(),
            held_count: 0,
            storm: Senders::new(settings.broadcast, now),
            storm_packets: Bucket::full(now),
            senders: Senders::new(link.rate, now),
            out: Bucket::full(now),
            corrections: Bucket::full(now),
            errors: Bucket::full(now),
            former: None,
            unreadable: BTreeMap::new(),
            appeared: Vec::new(),
            rival_until: None,
            rival_since: None,
            answers: 0,
            outputs: VecDeque::new(),
            settings,
            link,
            standing,
        }
    }

    /// The segment's number.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// The segment's name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Changes the settings of the same segment.
    pub fn set(&mut self, settings: SegmentSettings, link: Link, now: Instant) {
        self.storm.set_rate(settings.broadcast);
        self.senders.set_rate(link.rate);
        let own = own_addresses(&settings, &link);
        let programs = of_programs(&settings, &link);
        let before = own_addresses(&self.settings, &self.link);
        if own != before || programs != of_programs(&self.settings, &self.link) {
            self.directory.set_own(own, programs);
        }
        if settings.default_routers != self.settings.default_routers {
            self.directory.set_routers(default_routers(&settings), now);
        }
        (self.settings, self.link) = (settings, link);
    }

    /// Gives an address of this LAN away: a host elsewhere may have it, until one here states it.
    pub fn release(&mut self, address: IpAddr) {
        self.directory.release(mapped::name_of(address));
    }

    /// Sets the role of this gateway.
    pub fn set_standing(&mut self, standing: Standing, now: Instant) {
        if self.standing == standing {
            return;
        }
        let was_serving = self.is_serving();
        let before = std::mem::replace(&mut self.standing, standing);
        let has_moved = before.lan != standing.lan;
        if self.is_serving() {
            self.former = None;
        } else if was_serving && has_moved {
            self.former = Some((self.virtual_mac, now + FORMER_MEMORY));
        }
        if has_moved {
            self.virtual_mac = virtual_mac(self.network, standing.lan);
            self.review_lans(now);
        }
        if !self.is_serving() {
            self.directory.rest();
            self.held.clear();
            self.held_count = 0;
        } else if has_moved || !was_serving {
            self.directory.form(now);
            self.push_frame(neighbor::presence(self.virtual_mac));
            let remotes: Vec<_> = self.directory.remotes().take(MAX_ANNOUNCED).collect();
            for address in remotes {
                let mac = self.virtual_mac;
                self.push_frame(neighbor::announcement(address, mac, mac));
            }
        }
    }

    /// Notes a gateway whose packets cannot be read, as they are sealed or as they are not.
    pub fn note_unreadable(&mut self, origin: OriginId, is_sealed: bool, now: Instant) {
        let is_known = self.unreadable.contains_key(&origin);
        if is_known || self.unreadable.len() < MAX_UNREADABLE {
            let until = now + UNREADABLE_MEMORY;
            self.unreadable.insert(origin, (is_sealed, until));
        }
    }

    /// Gateways of the segment whose packets cannot be read, as they are sealed or as they are not.
    fn unreadable(&self, sealed: bool) -> Option<Vec<PeerId>> {
        let of = |origin: &OriginId| {
            let mut lans = self.lans.others(self.standing.lan);
            lans.find(|(_, lan)| lan.origin == *origin)
        };
        let found = self.unreadable.iter().filter(|(_, (is, _))| *is == sealed);
        let peers = found.filter_map(|(origin, _)| Some(of(origin)?.1.peer));
        let peers: Vec<_> = peers.collect();
        (!peers.is_empty()).then_some(peers)
    }

    fn note_rival(&mut self, now: Instant) {
        let since = self.rival_since.filter(|at| now <= *at + RIVAL_MEMORY);
        let since = *self.rival_since.insert(since.unwrap_or(now));
        if now > since + RIVAL_GRACE {
            self.rival_until = Some(now + RIVAL_MEMORY);
        }
    }

    /// Shows switches where the virtual address is.
    pub fn announce(&mut self) {
        if self.is_serving() {
            self.push_frame(neighbor::presence(self.virtual_mac));
        }
    }

    /// Sets the LANs of the segment, this one among them.
    pub fn set_lans(&mut self, lans: &Arc<SegmentLans>, now: Instant) {
        if Arc::ptr_eq(&self.lans, lans) {
            return;
        }
        self.lans = Arc::clone(lans);
        self.review_lans(now);
    }

    fn review_lans(&mut self, now: Instant) {
        let others = self.lans.others(self.standing.lan);
        let new = others.filter(|(id, _)| !self.directory.knows_lan(*id));
        self.appeared.extend(new.map(|(_, lan)| lan.origin));
        let others = self.lans.others(self.standing.lan);
        let others = others.map(|(id, lan)| (id, lan.origin));
        self.directory.set_lans(others.collect(), now);
    }

    /// Looks where the hosts are, if a new LAN's gateway was on this LAN a moment ago: it was
    /// split.
    pub fn review_hosts(&mut self, was_here: impl Fn(OriginId) -> bool, now: Instant) {
        let appeared = std::mem::take(&mut self.appeared);
        if self.is_serving() && appeared.into_iter().any(was_here) {
            self.directory.review_hosts(now);
        }
    }

    /// Whether this gateway speaks for the LAN.
    pub fn is_serving(&self) -> bool {
        self.standing.is_permitted && self.standing.is_forwarder
    }

    /// Whether its certificate permits the segment.
    pub fn is_permitted(&self) -> bool {
        self.standing.is_permitted
    }

    /// The virtual Ethernet address, while this gateway speaks for the LAN.
    pub fn virtual_mac(&self) -> Option<MacAddress> {
        self.is_serving().then_some(self.virtual_mac)
    }

    /// The virtual Ethernet address for which frames are received: that of the LAN, or the one
    /// before it became a part of another.
    pub fn received_mac(&self) -> Option<MacAddress> {
        let former = self.former.map(|(mac, _)| mac);
        self.virtual_mac().or(former)
    }

    /// The forwarder of another LAN.
    pub fn forwarder_of(&self, lan: LanId) -> Option<OriginId> {
        Some(self.lans.get(lan)?.origin)
    }

    /// Whether a router serves another LAN of the segment: its groups come from there.
    pub fn is_of_segment(&self, origin: OriginId) -> bool {
        self.is_serving() && self.lans.has(origin)
    }

    /// The name of the address to which this LAN's router sends packets for other subnets.
    fn router(&self) -> Option<Ipv6Addr> {
        self.settings.router.map(mapped::name)
    }

    /// Whether an IPv4 address lies in the subnet of another LAN, and is reached by a router.
    fn is_far(&self, address: Ipv6Addr, lan: LanId) -> bool {
        let (has_router, lan) = (self.settings.router.is_some(), self.lans.get(lan));
        has_router && mapped::is_host_name(address) && lan.is_some_and(|lan| lan.may_have(address))
    }

    fn has_others(&self) -> bool {
        self.lans.others(self.standing.lan).next().is_some()
    }

    fn takes_part(&self, address: Ipv6Addr) -> bool {
        let hosts = &self.settings.hosts;
        let is_named = |host| hosts.iter().any(|prefix| is_inside(*prefix, host));
        hosts.is_empty() || mapped::ipv4(address).is_none_or(is_named)
    }

    fn push_frame(&mut self, frame: LanFrame) {
        self.outputs.push_back(SegmentOutput::Frame(frame));
    }
}

/// Frames of the LAN.
impl Segment {
    /// Handles a frame. `by_gateway`: a gateway's own address sent it.
    pub fn handle_frame(
        &mut self,
        frame: &SegmentFrame,
        by_gateway: bool,
        now: Instant,
    ) -> Result<(), DropReason> {
        if frame.source == self.virtual_mac && self.is_serving() {
            self.note_rival(now);
        }
        if frame.source.is_virtual() || frame.source.is_group() {
            return Err(DropReason::LanGatewayFrame);
        }
        if frame.destination == self.virtual_mac {
            self.answers = 0;
        }
        let is_own = frame.source == self.link.mac && self.settings.programs.is_some();
        let former = self.former.map(|(mac, _)| mac);
        if former == Some(frame.destination) && (is_own || !by_gateway) {
            return self.pass_on(frame, now);
        }
        // the forwarder reads frames that leave for the LAN
        if is_own && !self.is_serving() {
            return Ok(());
        }
        if let Some(message) = HostMessage::read(frame.source, frame.ethertype, &frame.payload) {
            return self.handle_host_message(message, now);
        }
        if ![ETHERTYPE_IPV4, ETHERTYPE_IPV6].contains(&frame.ethertype) {
            return Ok(());
        }
        // others may come from the network
        if by_gateway && !is_own && frame.destination.is_group() {
            let flow = flow_of(&frame.payload).ok_or(DropReason::Malformed)?;
            if !self.is_serving() || !self.link.may_have(flow.source) {
                return Err(DropReason::LanGatewayFrame);
            }
            self.directory
                .admit_from_gateway(flow.source, frame.source, now)?;
        }
        if is_own && self.is_of_node(&frame.payload) {
            return Err(DropReason::SegmentOwnLink);
        }
        self.handle_packet(frame, now)
    }

    /// Whether a packet is one of this node's own links.
    fn is_of_node(&self, packet: &[u8]) -> bool {
        let programs = self.settings.programs.as_ref();
        programs.is_some_and(|programs| admission::has_port(packet, &programs.ports))
    }

    /// Handles a frame for the virtual address of a LAN that has become a part of another: passes
    /// it to the forwarder, and sends its sender the new address.
    fn pass_on(&mut self, frame: &SegmentFrame, now: Instant) -> Result<(), DropReason> {
        let message = HostMessage::read(frame.source, frame.ethertype, &frame.payload);
        let (asker, asked) = match message {
            Some(HostMessage { sender, asks }) => (sender, asks),
            None => {
                let flow = flow_of(&frame.payload).ok_or(DropReason::Malformed)?;
                self.push_frame(LanFrame::Ethernet {
                    to: self.virtual_mac,
                    from: self.link.mac,
                    ethertype: frame.ethertype,
                    payload: frame.payload.clone(),
                });
                let sender = Asker {
                    mac: frame.source,
                    address: flow.source,
                };
                (sender, Some(flow.group))
            }
        };
        let asked = asked.filter(|asked| self.link.may_have(*asked));
        if let Some(asked) = asked.filter(|_| self.corrections.take(CORRECTION_RATE, 1, now)) {
            let answer = neighbor::answer(asked, self.virtual_mac, self.link.mac, asker);
            self.push_frame(answer);
        }
        Ok(())
    }

    fn handle_host_message(
        &mut self,
        message: HostMessage,
        now: Instant,
    ) -> Result<(), DropReason> {
        let HostMessage { sender, asks } = message;
        if sender.mac.is_virtual() {
            return Err(DropReason::LanGatewayFrame);
        }
        if self.link.may_have(sender.address) {
            self.directory.hear(sender, now);
        }
        let asked = asks.filter(|address| self.is_serving() && self.link.may_have(*address));
        match asked {
            Some(address) if self.router() == Some(address) => {
                let mac = self.virtual_mac;
                self.push_frame(neighbor::answer(address, mac, mac, sender));
            }
            Some(address) => self.directory.ask(address, sender, now),
            None => {}
        }
        Ok(())
    }

    fn handle_packet(&mut self, frame: &SegmentFrame, now: Instant) -> Result<(), DropReason> {
        if !self.standing.is_permitted {
            return Err(DropReason::SegmentNotPermitted);
        }
        if !self.standing.is_forwarder {
            return Err(DropReason::LanStandby);
        }
        let mut packet = frame.payload.clone();
        let flow = flow_of(&packet).ok_or(DropReason::Malformed)?;
        let homes = self.directory.homes();
        let by_router = || homes.is_router(flow.source) || homes.is_of_router(frame.source);
        let crosses = admission::crosses(&packet, flow.group, by_router);
        if crosses == Err(DropReason::SegmentRouter) {
            for router in admission::routers_in(&packet) {
                self.directory.note_router(router, now);
            }
        }
        crosses?;
        trim(&mut packet);
        if !self.link.may_have(flow.source) || !self.takes_part(flow.source) {
            return Err(DropReason::LanForeignSource);
        }
        if packet.len() > MAX_PACKET {
            if frame.destination == self.virtual_mac
                && let Some(error) = self.too_big(MAX_PACKET as u16, &packet, now)
            {
                self.deliver(frame.source, error);
            }
            return Err(DropReason::LanTooBig);
        }
        self.directory
            .admit_from_here(flow.source, frame.source, now)?;
        match self.group_of(flow.group) {
            Some(group) => self.send_to_group((flow, group), frame.source, packet, now),
            None if frame.destination == self.virtual_mac => {
                self.send_to_host(flow, frame.source, packet, now)
            }
            // the LAN's own business
            None => Ok(()),
        }
    }

    /// The error about a packet for its sender, from this gateway (RFC 1191 §4, RFC 8201 §4).
    fn too_big(&mut self, mtu: u16, packet: &[u8], now: Instant) -> Option<Bytes> {
        let error = IcmpError::TooBig(mtu);
        let error = match is_ipv4(packet) {
            true => error.answer(packet, self.link.ipv4),
            false => error.answer_from(self.link.link_local, packet),
        };
        let error = error.filter(|_| self.errors.take(ERROR_RATE, 1, now));
        error.map(Bytes::from)
    }

    /// The segment's group for a destination that is not a single host.
    fn group_of(&self, to: Ipv6Addr) -> Option<Ipv6Addr> {
        match mapped::ipv4(to).filter(|to| self.link.is_broadcast(*to)) {
            Some(_) => Some(self.id.all()),
            None => self.id.group_of(to),
        }
    }

    fn send_to_group(
        &mut self,
        (flow, group): (Flow, Ipv6Addr),
        mac: MacAddress,
        packet: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let len = packet.len();
        if !self.has_others() {
            return Ok(());
        }
        if group == self.id.all() || is_link_scope(flow.group) {
            let is_admitted = self.storm_packets.take(STORM_RATE, 1, now)
                && self.storm.admit(flow.source, mac, len, now).is_ok();
            if !is_admitted {
                return Err(DropReason::SegmentStorm);
            }
        } else {
            self.senders.admit(flow.source, mac, len, now)?;
        }
        self.outputs.push_back(SegmentOutput::Group(group, packet));
        Ok(())
    }

    fn send_to_host(
        &mut self,
        flow: Flow,
        mac: MacAddress,
        packet: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let to = flow.group;
        let is_far = !self.link.may_have(to);
        let others = self.lans.others(self.standing.lan);
        let is_there = others.map(|(id, _)| id).any(|lan| self.is_far(to, lan));
        if is_far && !is_there {
            return Err(DropReason::SegmentUnknownHost);
        }
        match self.directory.route(to, is_far, mac, now) {
            Route::To(Place::Lan(lan)) => self.outputs.push_back(SegmentOutput::Lan(lan, packet)),
            Route::To(Place::Here(known)) => {
                self.correct(flow, (known, mac), now);
                self.deliver(known, packet);
            }
            Route::Wait => return self.hold(to, Held { packet, from: None }),
            Route::Nobody => return Err(DropReason::SegmentUnknownHost),
        }
        Ok(())
    }

    /// Tells a host here that another one is here as well.
    fn correct(&mut self, flow: Flow, (known, mac): (MacAddress, MacAddress), now: Instant) {
        if self.corrections.take(CORRECTION_RATE, 1, now) {
            let asker = Asker {
                mac,
                address: flow.source,
            };
            let frame = neighbor::answer(flow.group, known, self.virtual_mac, asker);
            self.push_frame(frame);
        }
    }

    /// Sends a packet to a host or a group of this LAN.
    fn deliver(&mut self, to: MacAddress, packet: Bytes) {
        let ethertype = match is_ipv4(&packet) {
            true => ETHERTYPE_IPV4,
            false => ETHERTYPE_IPV6,
        };
        self.push_frame(LanFrame::Ethernet {
            to,
            from: self.virtual_mac,
            ethertype,
            payload: packet,
        });
    }

    fn hold(&mut self, to: Ipv6Addr, held: Held) -> Result<(), DropReason> {
        let waiting = self.held.entry(to).or_default();
        if waiting.len() >= HELD_PER_HOST || self.held_count >= MAX_HELD {
            return Err(DropReason::SegmentFull);
        }
        waiting.push(held);
        self.held_count += 1;
        Ok(())
    }
}

/// Packets of other LANs.
impl Segment {
    /// Handles the content of a packet of a router, to this node or to a group.
    pub fn handle_inner(
        &mut self,
        origin: OriginId,
        group: Option<Ipv6Addr>,
        inner: Inner,
        now: Instant,
    ) -> Result<(), DropReason> {
        let lans = self.lans.of(origin, self.standing.lan);
        if lans.is_empty() || !self.standing.is_permitted {
            return Err(DropReason::SegmentNotPermitted);
        }
        if !self.standing.is_forwarder {
            return Err(DropReason::LanStandby);
        }
        self.unreadable.remove(&origin);
        match inner {
            Inner::Message(message) if lans.contains(&message.lan) => {
                self.handle_message(message, now);
                Ok(())
            }
            Inner::Message(_) => Err(DropReason::SegmentNotPermitted),
            Inner::Packet(packet) => self.receive(&lans, group, packet, now),
        }
    }

    fn handle_message(&mut self, message: Message, now: Instant) {
        let Message {
            kind,
            lan,
            mac,
            address,
        } = message;
        let is_near = self.link.may_have(address);
        if !is_near && (kind == Kind::Ask || !self.is_far(address, lan)) {
            return;
        }
        match kind {
            Kind::Ask if self.takes_part(address) => self.directory.handle_ask(address, lan, now),
            Kind::Ask => {}
            Kind::Here => self.directory.handle_here(address, (lan, mac), now),
            Kind::Gone => self.directory.handle_gone(address, lan, now),
        }
    }

    /// Handles a packet of a host of one of these LANs.
    fn receive(
        &mut self,
        lans: &[LanId],
        group: Option<Ipv6Addr>,
        packet: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let flow = flow_of(&packet).ok_or(DropReason::Malformed)?;
        admission::crosses(&packet, flow.group, || false)?;
        let mut own = lans.iter().filter_map(|lan| self.lans.get(*lan));
        if !own.any(|lan| lan.may_have(flow.source)) {
            return Err(DropReason::LanForeignSource);
        }
        self.directory.admit_from(flow.source, lans, now)?;
        if packet.len() > self.link.mtu.into() {
            if let (None, Some(lan)) = (group, lans.first())
                && let Some(error) = self.too_big(self.link.mtu, &packet, now)
            {
                self.outputs.push_back(SegmentOutput::Lan(*lan, error));
            }
            return Err(DropReason::LanTooBig);
        }
        match group {
            Some(group) => self.receive_of_group((flow, group), packet, now),
            None => self.receive_for_host(flow.group, lans, packet, now),
        }
    }

    fn receive_of_group(
        &mut self,
        (flow, group): (Flow, Ipv6Addr),
        packet: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        // a broadcast of another subnet reaches nobody here
        if self.group_of(flow.group) != Some(group) {
            return Err(DropReason::LanForeignSource);
        }
        let rate = Rate::bits_per_second(self.link.rate_out, BURST_OUT);
        if !self.out.take(rate, packet.len() as u64, now) {
            return Err(DropReason::LanRate);
        }
        let to = match mapped::ipv4(flow.group) {
            Some(to) if !to.is_multicast() => MacAddress::BROADCAST,
            Some(to) => MacAddress::of_ipv4_group(to),
            None => MacAddress::of_group(flow.group),
        };
        self.deliver(to, packet);
        Ok(())
    }

    fn receive_for_host(
        &mut self,
        to: Ipv6Addr,
        lans: &[LanId],
        packet: Bytes,
        now: Instant,
    ) -> Result<(), DropReason> {
        let from = *lans.first().ok_or(DropReason::SegmentNotPermitted)?;
        if self.group_of(to).is_some() || !self.link.may_have(to) || !self.takes_part(to) {
            return Err(DropReason::SegmentUnknownHost);
        }
        match self.directory.route_here(to, from, now) {
            Route::To(Place::Here(mac)) if mac == self.link.mac && self.is_of_node(&packet) => {
                Err(DropReason::SegmentOwnLink)
            }
            Route::To(Place::Here(mac)) => {
                self.deliver(mac, packet);
                Ok(())
            }
            Route::Wait => {
                let from = Some(from);
                self.hold(to, Held { packet, from })
            }
            Route::To(Place::Lan(_)) | Route::Nobody => Err(DropReason::SegmentUnknownHost),
        }
    }
}

/// Time and outputs.
impl Segment {
    /// Handles expired timers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.directory.handle_timeout(now);
        self.rival_until.take_if(|until| *until <= now);
        self.former.take_if(|(_, until)| *until <= now);
        self.unreadable.retain(|_, (_, until)| *until > now);
    }

    /// The time of the next call of [`Self::handle_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        let former = self.former.map(|(_, until)| until);
        let unreadable = self.unreadable.values().map(|(_, until)| *until);
        let others = former.into_iter().chain(unreadable);
        self.directory
            .next_timeout()
            .into_iter()
            .chain(others)
            .min()
    }

    /// The next action.
    pub fn poll_output(&mut self) -> Option<SegmentOutput> {
        while let Some(action) = self.directory.poll_action() {
            if self.is_serving() {
                self.act(action);
            }
        }
        self.outputs.pop_front()
    }

    fn act(&mut self, action: Action) {
        let mac = self.virtual_mac;
        match action {
            Action::Probe(address, to) => {
                self.push_frame(neighbor::question(address, self.link.own(), to));
            }
            Action::Answer(address, asker) => {
                self.answers = UNHEARD_ANSWERS.min(self.answers + 1);
                self.push_frame(neighbor::answer(address, mac, mac, asker));
            }
            Action::Announce(address, of) => {
                self.push_frame(neighbor::announcement(address, of.unwrap_or(mac), mac));
            }
            Action::Send(kind, address, mac, to) => self.send(kind, address, mac, to),
            Action::Settled(address, place) => self.settle(address, place),
            Action::Drop(reason) => self.outputs.push_back(SegmentOutput::Drop(reason)),
        }
    }

    fn send(&mut self, kind: Kind, address: Ipv6Addr, mac: MacAddress, to: Option<LanId>) {
        if kind == Kind::Here && !self.takes_part(address) {
            return;
        }
        let message = Message {
            kind,
            lan: self.standing.lan,
            mac,
            address,
        };
        let message = message.encode();
        self.outputs.push_back(match to {
            Some(lan) => SegmentOutput::Lan(lan, message),
            None => SegmentOutput::Group(self.id.all(), message),
        });
    }

    /// Sends the packets that waited for an address.
    fn settle(&mut self, address: Ipv6Addr, place: Option<Place>) {
        let held = self.held.remove(&address).unwrap_or_default();
        self.held_count -= held.len();
        for Held { packet, from } in held {
            match (place, from) {
                (Some(Place::Here(mac)), _) => self.deliver(mac, packet),
                (Some(Place::Lan(lan)), None) => {
                    self.outputs.push_back(SegmentOutput::Lan(lan, packet));
                }
                (_, from) => {
                    let reason = DropReason::SegmentUnknownHost;
                    self.outputs.push_back(SegmentOutput::Drop(reason));
                    if from.is_some() {
                        self.send(Kind::Gone, address, MacAddress::default(), from);
                    }
                }
            }
        }
    }
}

/// Queries.
impl Segment {
    /// Whether a packet's destination is a host here.
    pub fn has_host_of(&self, packet: &[u8]) -> bool {
        let place = flow_of(packet).map(|flow| self.directory.place(flow.group).0);
        matches!(place, Some(Some(Place::Here(_))))
    }

    /// The place of an address.
    pub fn where_is(&self, address: IpAddr) -> HostPlace {
        let address = mapped::name_of(address);
        let peer = |lan| self.lans.get(lan).map(|lan| lan.peer);
        let mut conflicts = self.directory.conflicts();
        let conflict = conflicts.find(|(doubled, _)| *doubled == address);
        let other = conflict.and_then(|(_, lan)| peer(lan));
        match (self.directory.place(address), other) {
            ((Some(Place::Here(mac)), _), Some(other)) => HostPlace::Conflict(mac, other),
            ((Some(Place::Here(mac)), _), None) => HostPlace::Here(mac),
            ((Some(Place::Lan(lan)), _), _) => {
                peer(lan).map_or(HostPlace::Unknown, HostPlace::Behind)
            }
            ((None, _), Some(other)) => HostPlace::Kept(other),
            ((None, true), _) => HostPlace::Nobody,
            ((None, false), _) => HostPlace::Unknown,
        }
    }

    /// The segment for users. `rtt`: the round trip to a router.
    pub fn snapshot(&self, rtt: impl Fn(OriginId) -> Option<Duration>) -> SegmentSnapshot {
        let others = self.lans.others(self.standing.lan);
        let lans = others.map(|(_, lan)| SegmentLan {
            forwarder: lan.peer,
            prefixes: lan.ipv4().collect(),
            rtt: rtt(lan.origin),
        });
        let [_, here, elsewhere] = self.directory.counts();
        let conflicts = self.directory.conflicts().filter_map(|(address, lan)| {
            let peer = self.lans.get(lan)?.peer;
            Some((mapped::shown(address), peer))
        });
        let is_router =
            |(address, _): &(IpAddr, PeerId)| self.settings.default_routers.contains(address);
        let (routers, conflicts): (Vec<_>, Vec<_>) = conflicts.partition(is_router);
        SegmentSnapshot {
            name: self.settings.name.clone(),
            virtual_mac: self.virtual_mac,
            lans: lans.collect(),
            here,
            elsewhere,
            routers: routers.into_iter().map(|(address, _)| address).collect(),
            conflicts,
            problem: self.problem(),
        }
    }

    fn problem(&self) -> Option<SegmentProblem> {
        if !self.standing.is_permitted {
            return Some(SegmentProblem::NotPermitted(self.settings.name.clone()));
        }
        if let Some(peers) = self.unreadable(true) {
            return Some(SegmentProblem::NoKey(peers));
        }
        if let Some(peers) = self.unreadable(false) {
            return Some(SegmentProblem::InClear(peers));
        }
        if self.rival_until.is_some() {
            return Some(SegmentProblem::Rival(self.virtual_mac));
        }
        let rivals = self.lans.rivals();
        if !rivals.is_empty() {
            return Some(SegmentProblem::Disputed(rivals));
        }
        if self.link.ipv4.is_none() {
            return Some(SegmentProblem::NoIpv4);
        }
        if self.answers == UNHEARD_ANSWERS {
            return Some(SegmentProblem::Unheard(self.virtual_mac));
        }
        if let Some(mac) = self.directory.scanner() {
            return Some(SegmentProblem::Scanner(mac));
        }
        if !self.has_others() {
            return Some(SegmentProblem::Alone);
        }
        let others = self.lans.others(self.standing.lan);
        let own = &self.link.ipv4_prefixes;
        let is_shared = |(address, len): (Ipv4Addr, u8)| {
            own.iter()
                .any(|(known, known_len)| is_inside((*known, *known_len.min(&len)), address))
        };
        let others =
            others.filter(|(_, lan)| lan.ipv4().next().is_some() && !lan.ipv4().any(is_shared));
        let others: Vec<_> = others.map(|(_, lan)| lan.peer).collect();
        let matters = !own.is_empty() && !others.is_empty() && self.settings.router.is_none();
        let mtu = self.link.mtu;
        let is_long = usize::from(mtu) > MAX_PACKET;
        let others = matters.then_some(SegmentProblem::OtherSubnet(others));
        others.or(is_long.then_some(SegmentProblem::LongPackets(mtu)))
    }
}

impl fmt::Display for SegmentProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted(name) => {
                write!(f, "this node's certificate does not permit segment {name}")
            }
            Self::NoKey(gateways) => write!(
                f,
                "{} gateways seal this segment with a key that this host does not have",
                gateways.len()
            ),
            Self::InClear(gateways) => write!(
                f,
                "{} gateways do not seal this segment, and this host does: nothing of theirs enters",
                gateways.len()
            ),
            Self::Rival(mac) => write!(
                f,
                "another host on this LAN uses {mac}, the address for hosts elsewhere"
            ),
            Self::Disputed(gateways) => write!(
                f,
                "{} gateways advertise one LAN and do not hear each other there: the older serves it",
                gateways.len()
            ),
            Self::NoIpv4 => f.write_str(
                "the interface has no IPv4 address: hosts reach no IPv4 address elsewhere",
            ),
            Self::Unheard(mac) => write!(
                f,
                "hosts here ask for hosts elsewhere, and no frame to {mac} arrives: the LAN seems to drop its frames"
            ),
            Self::Scanner(mac) => write!(
                f,
                "the host with {mac} asks for too many addresses: most of its questions are dropped"
            ),
            Self::Alone => f.write_str("no other LAN has this segment"),
            Self::LongPackets(mtu) => write!(
                f,
                "this LAN takes packets of {mtu} bytes, and the segment of {MAX_PACKET}: hosts that do not heed ICMP lose longer ones"
            ),
            Self::OtherSubnet(gateways) => write!(
                f,
                "LANs of {} gateways have other IPv4 subnets: only groups and link-local addresses work with them",
                gateways.len()
            ),
        }
    }
}

impl SegmentProblem {
    /// The remedy.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotPermitted(_) => {
                "an issuer makes a token with `lcroute invite --segment`; `lcroute leave`, then `lcroute join` with it"
            }
            Self::NoKey(_) => {
                "their key file, and [[private]] with `segment` and `keyfile`; then `lcroute reload`"
            }
            Self::InClear(_) => {
                "there: this host's key file, and [[private]] with `segment` and `keyfile`; then `lcroute reload`"
            }
            Self::Rival(_) => "end the second gateway with this LAN's name, or the loop in the LAN",
            Self::Disputed(_) => {
                "one of them lies or is broken: revoke its certificate, or mend its LAN"
            }
            Self::NoIpv4 => "give the interface an address of the LAN's IPv4 subnet",
            Self::Unheard(_) => {
                "let switches pass the Ethernet addresses 02:6c:63:*: no port security; on ESXi forged transmits and MAC learning"
            }
            Self::Scanner(_) => "end its scan of addresses, or scan more slowly",
            Self::LongPackets(_) => "an MTU of 1500 on hosts that use hosts elsewhere",
            Self::Alone => "set the same `segment` in [[lan]] of another gateway",
            Self::OtherSubnet(_) => {
                "`router` in [[lan]], and a route to it in the LAN's router; or one subnet for all"
            }
        }
    }
}

fn default_routers(settings: &SegmentSettings) -> Vec<Ipv6Addr> {
    let routers = settings.default_routers.iter();
    routers.map(|router| mapped::name_of(*router)).collect()
}

/// Addresses of the gateway itself, with the one for other subnets: no host has them.
fn own_addresses(settings: &SegmentSettings, link: &Link) -> Vec<Ipv6Addr> {
    let router = settings.router.map(mapped::name);
    let programs = of_programs(settings, link).map(|(_, addresses)| addresses);
    let programs = programs.into_iter().flatten();
    let all = link.addresses().into_iter().chain(router).chain(programs);
    all.collect()
}

/// Addresses of the gateway's own programs, if they take part, with their Ethernet address.
fn of_programs(settings: &SegmentSettings, link: &Link) -> Option<(MacAddress, Vec<Ipv6Addr>)> {
    let programs = settings.programs.as_ref()?;
    let ipv6 = programs.addresses.iter().copied();
    Some((link.mac, link.addresses().into_iter().chain(ipv6).collect()))
}

/// The Ethernet address that stands for hosts of other LANs: successors of a forwarder keep it.
fn virtual_mac(network: [u8; 6], lan: LanId) -> MacAddress {
    let hash = derive(
        "lcroute 2026 virtual address",
        &[&network, &lan.0.to_be_bytes()],
    );
    MacAddress::virtual_of([hash[0], hash[1], hash[2]])
}
