//! This node as a gateway: LANs whose hosts have no lcroute, and for which it speaks.
//!
//! ```text
//! hosts ──frames──> admit ──> engine, as if sent by this node        inject <── engine
//! gateways ──PROBE──> Election ──> role: the forwarder asks, reports and carries; a standby follows the listeners
//! ```

mod advertiser;
mod election;
pub mod mdns;
mod probe;
mod senders;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use librecast::bucket::{Bucket, Rate};
use librecast::cert::{GroupPrefix, Member, SourcePrefix};
use librecast::drops::Reason;
use librecast::ethernet::MacAddress;
use librecast::id::{LanId, OriginId, PeerId};
use librecast::ipv4::{self, Header};
use librecast::time::{Duration, Instant};
use librecast::{igmp, mapped, mld};

use crate::classify::{Flow, is_link_scope};
use crate::config::Node;
use crate::drops::DropReason;
use crate::icmp::IcmpError;
use crate::interface_id::LocalInterfaceId;
use crate::local_interface::covers_ipv4;
use crate::lsdb::{AdvertisedLan, Database};
use crate::outbox::Outbox;
use crate::output::LanFrame;
use crate::querier::Timing;
use crate::services::Services;

use advertiser::Advertiser;
use election::Election;
use probe::{Probe, Rank, network_prefix};
use senders::Senders;

pub use senders::SenderSnapshot;
pub use standing::{LanProblem, LanRole, LanStanding};

/// The longest packet that a LAN host may send, in bytes: larger ones are answered with Packet Too Big.
const MAX_PACKET: usize = 1_500;
/// How long nothing is injected for a prefix that reaches the LAN on another path.
const OTHER_PATH: Duration = Duration::from_secs(60);
/// PROBEs whose signatures are checked, of all gateways of a LAN.
const PROBE_RATE: Rate = Rate::per_second(200, 200);
/// Packet Too Big, to all hosts of a LAN.
const ERROR_RATE: Rate = Rate::per_second(100, 20);
/// Changes of joins by one host, and by all hosts of a LAN; a message counts for each [`JOIN_COST`] bytes of it.
const JOIN_RATE: Rate = Rate::per_second(200, 1_000);
const LAN_JOIN_RATE: Rate = Rate::per_second(2_000, 5_000);
/// In bytes: a report has a record in each 20 bytes, or a source in each 16. Chosen: one that joins a group counts once.
const JOIN_COST: usize = 256;
/// Hosts whose joins are counted. Chosen.
const MAX_JOINERS: usize = 4_096;
/// How long an interface is left out after a PROBE of this node was heard there.
const SAME_LAN: Duration = Duration::from_secs(5);
/// Multicast DNS of all hosts of a LAN, and as much into it. Chosen: a reflector that leads back here costs no more.
const MDNS_RATE: Rate = Rate::per_second(200, 400);
/// Between two Multicast Router Advertisements (RFC 4286 §6).
const ADVERTISEMENT_INTERVAL: Duration = Duration::from_secs(20);
/// What may be injected at once is what flows in during this time, and [`MIN_BURST_OUT`] at least. Chosen: batches of links come whole.
const BURST_OUT: Duration = Duration::from_millis(20);
/// In bytes: one batch.
const MIN_BURST_OUT: u64 = 200_000;

/// A LAN as its gateway's configuration and its interface say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanSettings {
    /// The interface's name, for logs and `lcroute lan`.
    pub name: String,
    /// Groups that are carried.
    pub groups: Vec<GroupPrefix>,
    /// Hosts may send into the network.
    pub send: bool,
    /// Hosts hear the network.
    pub receive: bool,
    /// Addresses of hosts: configured, or on link.
    pub prefixes: Vec<SourcePrefix>,
    /// The interface's Ethernet address.
    pub mac: MacAddress,
    /// The interface's link-local address.
    pub link_local: Ipv6Addr,
    /// Of IPv4; none: the interface has no address.
    pub ipv4: Option<LanIpv4>,
    /// In bytes.
    pub mtu: u16,
    /// Of all hosts together into the network, in bits a second.
    pub rate: u64,
    /// Into the LAN, in bits a second.
    pub rate_out: u64,
    /// The greatest becomes the forwarder, all else being equal.
    pub priority: u8,
    /// Multicast DNS goes from and to other links.
    pub reflect_mdns: bool,
    /// Hosts are given a prefix to make addresses of.
    pub advertise: bool,
}

impl LanSettings {
    /// All groups that are carried.
    pub fn carried(&self) -> Vec<GroupPrefix> {
        let mdns = self.reflect_mdns.then(|| GroupPrefix::group(mdns::GROUP));
        self.groups.iter().copied().chain(mdns).collect()
    }

    /// Whether IPv4 groups are among them.
    #[must_use]
    pub fn has_ipv4_groups(&self) -> bool {
        self.groups.iter().any(|prefix| prefix.as_ipv4().is_some())
    }

    /// Where queries and reports of IPv4 come from; none: there is no need of any, or no address.
    pub(crate) fn ipv4_address(&self) -> Option<Ipv4Addr> {
        let ipv4 = self.ipv4.as_ref().filter(|_| self.has_ipv4_groups());
        ipv4.map(|ipv4| ipv4.address)
    }
}

/// IPv4 on a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanIpv4 {
    /// The interface's lowest address: that of queries stays the same.
    pub address: Ipv4Addr,
    /// Addresses of hosts: address and length of what is on link.
    pub prefixes: Vec<(Ipv4Addr, u8)>,
}

impl LanIpv4 {
    fn contains(&self, host: Ipv4Addr) -> bool {
        let is_in = |(address, len): &(Ipv4Addr, u8)| {
            let rest = 32_u32.saturating_sub((*len).into());
            // no bits are left of a prefix of none
            let of = |address: Ipv4Addr| address.to_bits().checked_shr(rest).unwrap_or_default();
            of(*address) == of(host)
        };
        self.prefixes.iter().any(is_in)
    }
}

/// One LAN, for users.
#[derive(Debug, Clone, PartialEq)]
pub struct LanSnapshot {
    /// The interface, this node's role, and what is wrong.
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
    /// Groups that hosts have joined, and how many hosts each.
    pub listeners: Vec<(Ipv6Addr, usize)>,
    /// Groups that are reported.
    pub groups: usize,
    /// Hosts that sent within the last minute.
    pub sources: Vec<SenderSnapshot>,
    /// Prefixes of the hosts.
    pub prefixes: Vec<String>,
    /// Packets and drops.
    pub counters: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Lan {
    settings: LanSettings,
    election: Election,
    senders: Senders,
    /// This node's certificate makes it a gateway.
    is_permitted: bool,
    was_serving: bool,
    /// Until when another interface of this node counts as one on the same LAN.
    same_until: Option<Instant>,
    advertiser: Advertiser,
    /// The prefix that is advertised has changed.
    has_new_prefix: bool,
    /// What hosts said, and what was said to them: neither fills the other's table.
    heard_mdns: mdns::Recent,
    injected_mdns: mdns::Recent,
    /// When routers are advertised to snooping switches (RFC 4286).
    next_advertisement: Instant,
    /// Another gateway came, maybe with hosts of its own: they are to be asked.
    has_company: bool,
    out: Bucket,
    probes: Bucket,
    errors: Bucket,
    joins: Bucket,
    mdns: Bucket,
    mdns_out: Bucket,
    joiners: BTreeMap<MacAddress, Bucket>,
    /// Hosts that reach this LAN without the network, and until when that is believed.
    other_paths: BTreeMap<OriginId, Instant>,
    counters: BTreeMap<&'static str, u64>,
}

/// What the engine has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanEvent {
    /// This node serves the interface from now on.
    Forwarder(LocalInterfaceId),
    /// It does so no longer.
    Standby(LocalInterfaceId),
    /// Hosts of the interface have other addresses.
    Senders(LocalInterfaceId),
    /// There may be hosts on the interface that were not asked.
    Ask(LocalInterfaceId),
    /// What is advertised of LANs has changed.
    Advertise,
}

/// All LANs of this node.
#[derive(Debug, Default)]
pub struct Gateway {
    lans: BTreeMap<LocalInterfaceId, Lan>,
    advertised: Vec<AdvertisedLan>,
}

impl Gateway {
    /// One more LAN; `nonce` is random and says nothing of the seed. One of that id is replaced.
    pub fn add(
        &mut self,
        id: LocalInterfaceId,
        settings: LanSettings,
        (own, nonce, seed): (OriginId, u64, u64),
        now: Instant,
    ) {
        // the same after a restart
        let mac = settings.mac.0.map(u64::from);
        let name = mac
            .iter()
            .fold(own.0, |name, byte| name.rotate_left(8) ^ byte);
        let lan = Lan {
            election: Election::new(own, LanId(name), nonce, now),
            senders: Senders::new(settings.rate, now),
            is_permitted: false,
            was_serving: false,
            same_until: None,
            advertiser: Advertiser::new(nonce),
            has_new_prefix: false,
            heard_mdns: mdns::Recent::new((seed, id.0.into())),
            injected_mdns: mdns::Recent::new((seed, id.0.into())),
            next_advertisement: now,
            has_company: false,
            out: Bucket::full(now),
            probes: Bucket::full(now),
            errors: Bucket::full(now),
            joins: Bucket::full(now),
            mdns: Bucket::full(now),
            mdns_out: Bucket::full(now),
            joiners: BTreeMap::new(),
            other_paths: BTreeMap::new(),
            counters: BTreeMap::new(),
            settings,
        };
        self.lans.insert(id, lan);
    }

    /// The LAN's addresses or settings have changed.
    pub fn set(&mut self, id: LocalInterfaceId, settings: LanSettings) {
        if let Some(lan) = self.lans.get_mut(&id) {
            lan.senders.set_rate(settings.rate);
            lan.settings = settings;
        }
    }

    /// Whether the interface has a carrier.
    pub fn set_running(&mut self, id: LocalInterfaceId, running: bool, now: Instant) {
        if let Some(lan) = self.lans.get_mut(&id) {
            lan.election.set_running(running, now);
        }
    }

    /// A LAN is no longer served.
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

    /// Whether multicast DNS of a LAN goes to other links.
    pub fn reflects_mdns(&self) -> bool {
        self.lans.values().any(|lan| lan.settings.reflect_mdns)
    }

    /// Whose packets enter the network from a LAN.
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

    /// Whether a gateway has this Ethernet address on a LAN.
    pub fn is_gateway(&self, id: LocalInterfaceId, mac: MacAddress, database: &Database) -> bool {
        let lan = self.lans.get(&id);
        lan.is_some_and(|lan| lan.is_gateway(mac, database))
    }

    /// Roles that have changed, and whether the advertisement has to.
    pub fn take_events(&mut self, member: &Member, now: Instant) -> Vec<LanEvent> {
        let mut events = Vec::new();
        for (id, lan) in &mut self.lans {
            let is_serving = lan.is_serving();
            if std::mem::replace(&mut lan.was_serving, is_serving) != is_serving {
                // switches learn at once where the listeners' reports are to go
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
            if std::mem::take(&mut lan.has_new_prefix) {
                events.push(LanEvent::Senders(*id));
            }
            if std::mem::take(&mut lan.has_company) {
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

    /// What is advertised, as of the last event.
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
            let prefixes: BTreeSet<_> = permitted.filter(|_| lan.settings.send).collect();
            let advertised = AdvertisedLan {
                lan: id,
                term,
                mac: lan.settings.mac,
                is_forwarder: lan.is_serving(),
                prefixes: prefixes
                    .into_iter()
                    .take(crate::lsdb::MAX_LAN_PREFIXES)
                    .collect(),
            };
            lans.entry(id).or_insert(advertised);
        }
        lans.into_values().take(crate::lsdb::MAX_LANS).collect()
    }

    /// Reports from this address are a gateway's.
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
        (flow, mac): (Flow, MacAddress),
        packet: &[u8],
        (node, database): (&Node, &Database),
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let result = lan.admit((flow, mac), packet, (node, database), now);
        if result == Err(DropReason::LanTooBig)
            && lan.errors.take(ERROR_RATE, 1, now)
            && let Some(error) =
                IcmpError::TooBig(MAX_PACKET as u16).answer_from(lan.settings.link_local, packet)
        {
            outbox.send_lan(id, LanFrame::Unicast(mac, error.into()));
        }
        lan.count("rx", result)
    }

    /// An IPv4 packet of a LAN host, as this node sends it: from its own address. LANs have the same private addresses everywhere.
    pub fn admit_ipv4(
        &mut self,
        id: LocalInterfaceId,
        (flow, mac): (Flow, MacAddress),
        packet: &[u8],
        (node, database): (&Node, &Database),
        now: Instant,
    ) -> Result<(Flow, Bytes), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let admitted = lan.admit_ipv4((flow, mac), packet, (node, database), now);
        let result = admitted.as_ref().map(drop).map_err(|reason| *reason);
        lan.count("rx", result)?;
        admitted
    }

    /// A packet goes into a LAN.
    pub fn inject(
        &mut self,
        id: LocalInterfaceId,
        (flow, origin): (Flow, OriginId),
        packet: &Bytes,
        outbox: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let result = lan.may_inject((flow, origin), packet.len(), now);
        let frame = result.and_then(|()| match is_link_scope(flow.group) {
            true => lan.mdns_frame(packet, now),
            false => Ok(LanFrame::Multicast(packet.clone())),
        });
        lan.count("tx", frame.map(|frame| outbox.send_lan(id, frame)))
    }

    /// Multicast DNS of a LAN host, as this node says it elsewhere.
    pub fn admit_mdns(
        &mut self,
        id: LocalInterfaceId,
        (flow, mac): (Flow, MacAddress),
        packet: &[u8],
        (node, database): (&Node, &Database),
        now: Instant,
    ) -> Result<Bytes, DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let message = lan.admit_mdns((flow, mac), packet, database, now);
        let result = message.as_ref().map(drop).map_err(|reason| *reason);
        lan.count("rx", result)?;
        let own = node.config.member.addresses.link_local;
        Ok(mdns::packet(own, &message?).into())
    }

    /// What may be neither multicast nor MLD: a host asks for a router.
    pub fn handle_link_control(&mut self, id: LocalInterfaceId, packet: &[u8], now: Instant) {
        if let Some(lan) = self.lans.get_mut(&id) {
            lan.advertiser.handle_packet(packet, now);
        }
    }

    /// Whether an MLD message of the host with this Ethernet address is looked at.
    pub fn admit_mld(
        &mut self,
        id: LocalInterfaceId,
        (mac, len): (MacAddress, usize),
        now: Instant,
    ) -> Result<(), DropReason> {
        let lan = self.lans.get_mut(&id).ok_or(DropReason::LanNotConfigured)?;
        let result = lan.admit_mld((mac, len), now);
        lan.count("mld", result)
    }
}

impl Lan {
    fn next_timeout(&self) -> Instant {
        let next = self.election.next_timeout().min(self.next_advertisement);
        let advertiser = self.advertiser.next_timeout();
        advertiser.map_or(next, |at| at.min(next))
    }

    fn standing(&self, node: &Node, clashes: &[SourcePrefix]) -> LanStanding {
        let problem = self.problem(node, clashes);
        let role = match problem {
            Some(LanProblem::NotPermitted | LanProblem::SecondInterface) => LanRole::Off,
            _ if self.is_serving() => LanRole::Forwarder,
            _ if self.election.forwarder().is_some() => LanRole::Standby,
            _ => LanRole::Listening,
        };
        LanStanding {
            interface: self.settings.name.clone(),
            role,
            problem,
        }
    }

    fn problem(&self, node: &Node, clashes: &[SourcePrefix]) -> Option<LanProblem> {
        let member = &node.config.member;
        let those = |which: &dyn Fn(&SourcePrefix) -> bool| {
            let those: Vec<_> = self.prefixes().filter(which).collect();
            (!those.is_empty()).then_some(those)
        };
        let sends = self.settings.send;
        if !self.is_permitted {
            return Some(LanProblem::NotPermitted);
        }
        if self.same_until.is_some() {
            return Some(LanProblem::SecondInterface);
        }
        let mut groups = self.settings.groups.iter();
        let has_ipv6 = groups.any(|prefix| prefix.as_ipv4().is_none());
        if sends && has_ipv6 && self.prefixes().next().is_none() {
            return Some(LanProblem::NoPrefix);
        }
        let ipv4 = self.ipv4_problem(node);
        let refused = those(&|prefix| sends && Database::permits(member, *prefix).is_none());
        refused
            .map(LanProblem::PrefixesNotPermitted)
            .or(ipv4)
            .or_else(|| those(&|prefix| clashes.contains(prefix)).map(LanProblem::Clash))
            .or_else(|| {
                let paths = self.other_paths.len();
                (paths > 0).then_some(LanProblem::OtherPath(paths))
            })
    }

    fn ipv4_problem(&self, node: &Node) -> Option<LanProblem> {
        if !self.settings.has_ipv4_groups() {
            None
        } else if node.config.ipv4.is_none() {
            Some(LanProblem::Ipv4Off)
        } else if self.settings.ipv4.is_none() {
            Some(LanProblem::NoIpv4OnInterface)
        } else {
            let is_mute = self.settings.send && node.sources.ipv4().is_none();
            is_mute.then_some(LanProblem::NoIpv4OfNode)
        }
    }

    fn is_serving(&self) -> bool {
        self.is_permitted && self.same_until.is_none() && self.election.is_forwarder()
    }

    fn count(
        &mut self,
        what: &'static str,
        result: Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let name = result.map_or_else(Reason::name, |()| what);
        *self.counters.entry(name).or_default() += 1;
        result
    }

    fn carries(&self, group: Ipv6Addr) -> bool {
        match is_link_scope(group) {
            true => self.settings.reflect_mdns && group == mdns::GROUP,
            false if mapped::is_group_name(group) => covers_ipv4(&self.settings.groups, group),
            false => self.settings.groups.iter().any(|p| p.contains(group)),
        }
    }

    /// Addresses of hosts.
    fn prefixes(&self) -> impl Iterator<Item = SourcePrefix> {
        let advertised = self.advertiser.prefix();
        // the kernel of a standby takes it as well
        let advertised = advertised.filter(|prefix| !self.settings.prefixes.contains(prefix));
        self.settings.prefixes.iter().copied().chain(advertised)
    }

    fn shown_prefixes(&self) -> Vec<String> {
        let settings = &self.settings;
        let ipv4 = settings.ipv4.iter().filter(|_| settings.has_ipv4_groups());
        let ipv4 = ipv4.flat_map(|ipv4| &ipv4.prefixes);
        let ipv6 = self.prefixes().map(|prefix| prefix.to_string());
        let ipv4 = ipv4.map(|(address, len)| format!("{address}/{len}"));
        ipv6.chain(ipv4).collect()
    }

    fn is_on_link(&self, source: Ipv6Addr) -> bool {
        self.prefixes().any(|prefix| prefix.contains(source))
    }

    fn admit(
        &mut self,
        (flow, mac): (Flow, MacAddress),
        packet: &[u8],
        (node, database): (&Node, &Database),
        now: Instant,
    ) -> Result<(), DropReason> {
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
            self.note_other_path(source, (node, database), now);
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

    fn admit_ipv4(
        &mut self,
        (flow, mac): (Flow, MacAddress),
        packet: &[u8],
        (node, database): (&Node, &Database),
        now: Instant,
    ) -> Result<(Flow, Bytes), DropReason> {
        if self.is_gateway(mac, database) {
            return Err(DropReason::LanGatewayFrame);
        }
        if !self.settings.send || !self.carries(flow.group) {
            return Err(DropReason::LanNotConfigured);
        }
        let on_link = self.settings.ipv4.as_ref();
        let host = mapped::ipv4(flow.source);
        if !host.is_some_and(|host| on_link.is_some_and(|on_link| on_link.contains(host))) {
            self.note_other_path(flow.source, (node, database), now);
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
        let sent = ipv4::udp_from(packet, own).ok_or(DropReason::LanNotUdp)?;
        self.senders.admit(flow.source, mac, packet.len(), now)?;
        Ok((Flow { source, ..flow }, sent.into()))
    }

    fn is_gateway(&self, mac: MacAddress, database: &Database) -> bool {
        mac == self.settings.mac || self.election.is_gateway(mac) || database.is_gateway_mac(mac)
    }

    fn admit_mdns(
        &mut self,
        (flow, mac): (Flow, MacAddress),
        packet: &[u8],
        database: &Database,
        now: Instant,
    ) -> Result<Vec<u8>, DropReason> {
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
        self.heard_mdns.remember(&message, now);
        Ok(message)
    }

    /// Whether another gateway or a reflector says again what this one has just carried, in either direction.
    fn is_repeated(&self, message: &[u8], now: Instant) -> bool {
        self.heard_mdns.has(message, now) || self.injected_mdns.has(message, now)
    }

    /// A message of multicast DNS, as this gateway says it on the LAN.
    fn mdns_frame(&mut self, packet: &[u8], now: Instant) -> Result<LanFrame, DropReason> {
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

    /// A host of the network, or of another LAN, is heard here, and no gateway has sent the frame: there is another path.
    fn note_other_path(
        &mut self,
        source: Ipv6Addr,
        (node, database): (&Node, &Database),
        now: Instant,
    ) {
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

    fn may_inject(
        &mut self,
        (flow, origin): (Flow, OriginId),
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
        if !self.other_paths.is_empty() && self.other_paths.contains_key(&origin) {
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

    /// A host is known by its Ethernet address: forging IPv6 sources gains it nothing.
    fn admit_mld(
        &mut self,
        (mac, len): (MacAddress, usize),
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

/// The election.
impl Gateway {
    /// A PROBE that was heard on a LAN, from this Ethernet address.
    pub fn handle_probe(
        &mut self,
        id: LocalInterfaceId,
        (mac, bytes): (MacAddress, &[u8]),
        (node, database): (&Node, &Database),
        services: &dyn Services,
        now: Instant,
    ) -> Result<(), DropReason> {
        let bad = DropReason::LanBadProbe;
        let probe = Probe::decode(bytes).map_err(|_| bad)?;
        if probe.network != network_prefix(node.config.member.addresses.address) {
            // another network's gateways elect for themselves
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
        lan.has_company |= !lan.election.hears(probe.origin);
        lan.election.handle_probe(&probe, now);
        Ok(())
    }

    /// An own PROBE that comes in over another interface: both are on one LAN, which the first serves.
    fn handle_own_probe(&mut self, id: LocalInterfaceId, probe: &Probe, now: Instant) {
        let mut lans = self.lans.iter();
        let from = lans.find(|(_, lan)| lan.election.is_last_sent(probe));
        let is_second = from.is_some_and(|(from, _)| *from < id);
        if let Some(lan) = self.lans.get_mut(&id).filter(|_| is_second) {
            lan.same_until = Some(now + SAME_LAN);
        }
    }

    /// How well this gateway can serve, and which terms others advertise.
    pub fn review(&mut self, (node, database): (&Node, &Database), linked: bool, now: Instant) {
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
            let (id, _) = lan.election.lan();
            let term = database.lan_term(id).unwrap_or_default();
            lan.election.note_term(term, now);
            let prefix = advertiser::prefix_of(network, lan.election.lan().0);
            let prefix = prefix.filter(|_| lan.settings.advertise && is_permitted);
            lan.has_new_prefix |= lan.advertiser.prefix() != prefix;
            lan.advertiser.set(prefix, now);
        }
    }

    /// A router cannot be reached any more.
    pub fn set_unreachable(&mut self, origin: OriginId, now: Instant) {
        for lan in self.lans.values_mut() {
            lan.election.set_unreachable(origin, now);
        }
    }

    /// Does what is due: PROBEs go out.
    pub fn handle_timeout(
        &mut self,
        node: &Node,
        services: &dyn Services,
        outbox: &mut Outbox,
        now: Instant,
    ) {
        let network = network_prefix(node.config.member.addresses.address);
        for (id, lan) in &mut self.lans {
            // two LANs that a wire joined are two again: their gateways tell it first
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
                if let Some(from) = ipv4.filter(|_| node.config.ipv4.is_some()) {
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

    /// When [`Self::handle_timeout`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.lans.values().map(Lan::next_timeout).min()
    }
}

/// Questions.
impl Gateway {
    /// How things stand on all LANs.
    pub fn standings(&self, node: &Node, database: &Database) -> Vec<LanStanding> {
        let clashes = database.lan_clashes();
        let lans = self.lans.values();
        lans.map(|lan| lan.standing(node, clashes)).collect()
    }

    /// All LANs, without what the interfaces know of listeners.
    pub fn snapshot(
        &self,
        (node, database): (&Node, &Database),
        now: Instant,
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
            };
            (*id, snapshot)
        });
        snapshot.collect()
    }
}

/// All nodes, all routers, PIM routers, MLDv2 routers, snoopers, DHCP agents and servers, of whatever scope: the business of the
/// LAN's own routers.
fn is_reserved(group: Ipv6Addr) -> bool {
    let [first, low @ ..] = group.segments();
    // those that are assigned (RFC 4291 §2.7.1)
    let is_well_known = first & 0xfff0 == 0xff00;
    is_well_known
        && matches!(
            low,
            [0, 0, 0, 0, 0, 0, 0x1 | 0x2 | 0xd | 0x16 | 0x6a] | [0, 0, 0, 0, 0, 1, 2 | 3]
        )
}

/// The key of a router that may be a gateway.
fn gateway_peer(origin: OriginId, database: &Database) -> Option<PeerId> {
    let member = &database.router(origin)?.credential().member;
    (!member.gateway.is_empty()).then_some(member.peer)
}
