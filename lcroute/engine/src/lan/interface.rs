//! One LAN of a gateway: its state and standing.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use librecast::bucket::Bucket;
use librecast::cert::{Member, SourcePrefix};
use librecast::drops::Reason;
use librecast::ethernet::MacAddress;
use librecast::id::OriginId;
use librecast::mapped;
use librecast::time::Instant;

use crate::classify::is_link_scope;
use crate::config::Node;
use crate::drops::DropReason;
use crate::local_interface::covers_ipv4;
use crate::lsdb::{AdvertisedLan, Database, lan_number};
use crate::segment::{Segment, Standing};
use crate::segment_id::SegmentId;
use crate::segment_lans::permits_segment;
use crate::senders::Senders;

use super::advertiser::Advertiser;
use super::election::Election;
use super::settings::LanSettings;
use super::standing::{LanProblem, LanRole, LanStanding};
use super::{NewLan, mdns};

/// IPv4 prefixes that a LAN of a segment advertises. Chosen: an interface has one, seldom two.
const MAX_IPV4_PREFIXES: usize = 4;

#[derive(Debug)]
pub(super) struct Lan {
    pub(super) settings: LanSettings,
    pub(super) election: Election,
    pub(super) senders: Senders,
    /// This node's certificate makes it a gateway.
    pub(super) is_permitted: bool,
    pub(super) was_serving: bool,
    /// End of the time for which another interface of this node counts as one on the same LAN.
    pub(super) same_until: Option<Instant>,
    pub(super) advertiser: Advertiser,
    pub(super) has_new_prefix: bool,
    /// Messages from hosts and to hosts: neither fills the other's table.
    pub(super) received_mdns: mdns::Recent,
    pub(super) injected_mdns: mdns::Recent,
    /// Time of the next Multicast Router Advertisement to snooping switches (RFC 4286).
    pub(super) next_advertisement: Instant,
    /// A new gateway may have hosts of its own, which must be queried.
    pub(super) has_new_gateway: bool,
    pub(super) out: Bucket,
    pub(super) probes: Bucket,
    pub(super) errors: Bucket,
    pub(super) joins: Bucket,
    pub(super) mdns: Bucket,
    pub(super) mdns_out: Bucket,
    pub(super) joiners: BTreeMap<MacAddress, Bucket>,
    /// Nodes that reach this LAN on a path outside the network, each with an expiry.
    pub(super) other_paths: BTreeMap<OriginId, Instant>,
    pub(super) counters: BTreeMap<&'static str, u64>,
    /// The address and seed of this node, and of its segments.
    node: (Ipv6Addr, u64),
    pub(super) segment: Option<Segment>,
    /// The segment in which it takes part, as of the last event.
    pub(super) joined_segment: Option<SegmentId>,
}

impl Lan {
    /// A LAN that this node begins to listen on.
    pub(super) fn new(new: NewLan, settings: LanSettings, now: Instant) -> Self {
        let NewLan {
            id,
            own,
            peer,
            address,
            nonce,
            seed,
        } = new;
        // the same name after a restart
        let name = lan_number(&peer, settings.mac, 0);
        let mut lan = Self {
            election: Election::new(own, name, nonce, now),
            senders: Senders::new(settings.rate, now),
            is_permitted: false,
            was_serving: false,
            same_until: None,
            advertiser: Advertiser::new(nonce),
            has_new_prefix: false,
            received_mdns: mdns::Recent::new((seed, id.0.into())),
            injected_mdns: mdns::Recent::new((seed, id.0.into())),
            next_advertisement: now,
            has_new_gateway: false,
            out: Bucket::full(now),
            probes: Bucket::full(now),
            errors: Bucket::full(now),
            joins: Bucket::full(now),
            mdns: Bucket::full(now),
            mdns_out: Bucket::full(now),
            joiners: BTreeMap::new(),
            other_paths: BTreeMap::new(),
            counters: BTreeMap::new(),
            node: (address, seed),
            segment: None,
            joined_segment: None,
            settings,
        };
        lan.set_segment(now);
        lan
    }

    /// Makes or changes the segment by the settings and prefixes.
    pub(super) fn set_segment(&mut self, now: Instant) {
        let link = self.settings.link(self.prefixes().collect());
        let (node, seed) = self.node;
        let lan = self.election.lan().0;
        self.segment = match (self.segment.take(), self.settings.segment.clone()) {
            (_, None) => None,
            (Some(mut segment), Some(settings)) if segment.name() == settings.name => {
                segment.set(settings, link, now);
                Some(segment)
            }
            (_, Some(settings)) => Some(Segment::new(node, settings, link, lan, seed, now)),
        };
    }

    /// Sets the role of this gateway in the segment.
    pub(super) fn review_segment(&mut self, member: &Member, now: Instant) {
        let is_forwarder = self.is_serving();
        let lan = self.election.lan().0;
        if let Some(segment) = &mut self.segment {
            let standing = Standing {
                is_permitted: permits_segment(member, segment.id()),
                is_forwarder,
                lan,
            };
            segment.set_standing(standing, now);
        }
    }

    /// IPv4 prefixes of a LAN of a segment in an advertisement.
    pub(super) fn segment_prefixes(&self) -> Vec<SourcePrefix> {
        if !self.segment.as_ref().is_some_and(Segment::is_permitted) {
            return Vec::new();
        }
        let ipv4 = self.settings.ipv4.iter().flat_map(|ipv4| &ipv4.prefixes);
        let ipv4 = ipv4.take(MAX_IPV4_PREFIXES);
        ipv4.filter_map(|prefix| AdvertisedLan::ipv4_prefix(*prefix))
            .collect()
    }

    pub(super) fn next_timeout(&self) -> Instant {
        let next = self.election.next_timeout().min(self.next_advertisement);
        let advertiser = self.advertiser.next_timeout();
        advertiser.map_or(next, |at| at.min(next))
    }

    pub(super) fn standing(&self, node: &Node, clashes: &[SourcePrefix]) -> LanStanding {
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

    pub(super) fn problem(&self, node: &Node, clashes: &[SourcePrefix]) -> Option<LanProblem> {
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
        let ipv4 = self.ipv4_problem(node);
        let mut groups = self.settings.groups.iter();
        let has_ipv6 = groups.any(|prefix| prefix.as_ipv4().is_none());
        // without IPv6 prefixes, hosts of a LAN may still send IPv4; a node chooses its own address
        // soon
        let is_ready = matches!(ipv4, None | Some(LanProblem::NoIpv4OfNode));
        let ipv4_works = self.segment.is_some() || self.settings.has_ipv4_groups() && is_ready;
        if sends && has_ipv6 && !ipv4_works && self.prefixes().next().is_none() {
            return Some(LanProblem::NoPrefix);
        }
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

    pub(super) fn ipv4_problem(&self, node: &Node) -> Option<LanProblem> {
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

    pub(super) fn is_serving(&self) -> bool {
        self.is_permitted && self.same_until.is_none() && self.election.is_forwarder()
    }

    pub(super) fn count(
        &mut self,
        what: &'static str,
        result: Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let name = result.map_or_else(Reason::name, |()| what);
        *self.counters.entry(name).or_default() += 1;
        result
    }

    pub(super) fn carries(&self, group: Ipv6Addr) -> bool {
        match is_link_scope(group) {
            true => self.settings.reflect_mdns && group == mdns::GROUP,
            false if mapped::is_group_name(group) => covers_ipv4(&self.settings.groups, group),
            false => self.settings.groups.iter().any(|p| p.contains(group)),
        }
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = SourcePrefix> {
        let advertised = self.advertiser.prefix();
        // the kernel of a standby configures this prefix, too
        let advertised = advertised.filter(|prefix| !self.settings.prefixes.contains(prefix));
        self.settings.prefixes.iter().copied().chain(advertised)
    }

    pub(super) fn shown_prefixes(&self) -> Vec<String> {
        let settings = &self.settings;
        let ipv4 = settings.ipv4.iter().filter(|_| settings.has_ipv4_groups());
        let ipv4 = ipv4.flat_map(|ipv4| &ipv4.prefixes);
        let ipv6 = self.prefixes().map(|prefix| prefix.to_string());
        let ipv4 = ipv4.map(|(address, len)| format!("{address}/{len}"));
        ipv6.chain(ipv4).collect()
    }

    pub(super) fn is_on_link(&self, source: Ipv6Addr) -> bool {
        self.prefixes().any(|prefix| prefix.contains(source))
    }
}
