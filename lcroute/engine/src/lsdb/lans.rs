//! LANs behind gateways, as reachable routers advertise them.
//!
//! A gateway speaks for addresses that its certificate permits and its advertisement names, while
//! it is the forwarder of their LAN. Of several advertised forwarders, the one with the highest
//! term is. Gateways with an address named in their certificate precede those permitted for any.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use librecast::cert::{Member, SourcePrefix};
use librecast::ethernet::MacAddress;
use librecast::id::{LanId, OriginId};
use librecast::mapped;

use super::advertisement::AdvertisedLan;
use super::store::{Router, Store};
use crate::lan_sources::{Behind, LanSources};
use crate::segment_id::SegmentId;
use crate::segment_lans::{LanOfSegment, SegmentLans, permits_segment};

/// Shortest prefix that a gateway may speak for: no good part of the Internet. Chosen.
const MIN_PREFIX_LEN: u8 = 16;
/// Length of a network's prefix.
const NETWORK_LEN: u8 = 48;

/// All LANs.
#[derive(Debug, Default)]
pub(super) struct Lans {
    sources: Arc<LanSources>,
    /// Addresses of all gateways.
    macs: BTreeSet<MacAddress>,
    /// The highest term of each LAN that other routers advertise.
    terms: BTreeMap<LanId, u32>,
    clashes: Vec<SourcePrefix>,
    /// IPv4 addresses, and all reachable routers that advertise them.
    ipv4: BTreeSet<(Ipv4Addr, OriginId)>,
    segments: BTreeMap<SegmentId, Arc<SegmentLans>>,
    stale: bool,
}

impl Lans {
    /// Reachability, an advertisement or a certificate has changed.
    pub fn invalidate(&mut self) {
        self.stale = true;
    }

    /// The gateways of LAN hosts.
    pub fn sources(&self) -> &Arc<LanSources> {
        &self.sources
    }

    /// Reads all advertisements again, if necessary.
    pub fn refresh(&mut self, store: &Store) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let routers = store.routers.iter();
        let gateways: Vec<_> = routers.filter(|(_, router)| is_gateway(router)).collect();
        let macs = gateways.iter().flat_map(|(_, router)| lans_of(router));
        let macs = macs.map(|lan| lan.mac).collect();
        self.terms.clear();
        for (_, router) in gateways.iter().filter(|(origin, _)| *origin != store.own) {
            for lan in lans_of(router).iter().filter(|lan| lan.is_forwarder) {
                let highest = self.terms.entry(lan.lan).or_default();
                *highest = lan.term.max(*highest);
            }
        }
        self.segments = segments(&gateways, &self.segments);
        let mut behind = BTreeMap::new();
        for Forwarder {
            origin,
            lan,
            member,
        } in forwarders(&gateways)
        {
            let prefixes = lan.prefixes.iter();
            let permitted = prefixes.filter_map(|prefix| {
                let by_name = permits(member, *prefix)?;
                Some(Behind {
                    prefix: *prefix,
                    lan: lan.lan,
                    by_name,
                    except: Vec::new(),
                })
            });
            behind
                .entry(origin)
                .or_insert_with(Vec::new)
                .extend(permitted);
        }
        let all = || behind.values().flatten();
        let named: Vec<_> = all().filter(|b| b.by_name).cloned().collect();
        let mut clashes: Vec<_> = all()
            .filter(|a| all().any(|b| a.prefix == b.prefix && a.lan != b.lan))
            .map(|a| a.prefix)
            .collect();
        clashes.sort_unstable();
        clashes.dedup();
        for list in behind.values_mut() {
            for one in list.iter_mut().filter(|b| !b.by_name) {
                let others = named.iter().filter(|other| other.lan != one.lan);
                let overlap =
                    others.filter(|n| one.prefix.covers(&n.prefix) || n.prefix.covers(&one.prefix));
                one.except = overlap.map(|n| n.prefix).collect();
            }
        }
        (self.macs, self.clashes) = (macs, clashes);
        let ipv4 = store.routers.iter().filter_map(|(origin, router)| {
            let address = router.advertisement().filter(|_| router.is_reachable())?;
            Some((address.ipv4()?, origin))
        });
        self.ipv4 = ipv4.collect();
        let mut owners = BTreeMap::new();
        for (address, origin) in &self.ipv4 {
            // the router with the lowest id, which comes first, keeps it
            owners.entry(mapped::name(*address)).or_insert(*origin);
        }
        let sources = LanSources::new(behind, owners);
        if *self.sources != sources {
            self.sources = Arc::new(sources);
        }
    }

    /// Of the other routers with this IPv4 address, the one with the lowest id.
    pub fn ipv4_holder(&self, address: Ipv4Addr, own: OriginId) -> Option<OriginId> {
        let all = (address, OriginId(0))..=(address, OriginId(u64::MAX));
        let mut holders = self.ipv4.range(all).map(|(_, origin)| *origin);
        holders.find(|origin| *origin != own)
    }

    /// The LANs of a segment.
    pub fn segment(&self, segment: SegmentId) -> Arc<SegmentLans> {
        self.segments.get(&segment).cloned().unwrap_or_default()
    }

    /// The highest term that other gateways advertise for a LAN.
    pub fn term(&self, lan: LanId) -> Option<u32> {
        self.terms.get(&lan).copied()
    }

    /// Whether a gateway has this address on its LAN.
    pub fn is_gateway(&self, mac: MacAddress) -> bool {
        self.macs.contains(&mac)
    }

    /// Prefixes that two LANs use.
    pub fn clashes(&self) -> &[SourcePrefix] {
        &self.clashes
    }
}

fn is_gateway(router: &Router) -> bool {
    router.is_reachable() && !router.credential().member.gateway.is_empty()
}

fn lans_of(router: &Router) -> &[AdvertisedLan] {
    router.advertisement().map_or(&[], |a| a.lans())
}

/// A gateway that carries a LAN's packets.
struct Forwarder<'a> {
    origin: OriginId,
    lan: &'a AdvertisedLan,
    member: &'a Member,
}

/// The forwarder of each LAN: first permitted by name, then by highest term, then by lowest id.
fn forwarders<'a>(gateways: &[(OriginId, &'a Router)]) -> impl Iterator<Item = Forwarder<'a>> {
    let mut best = BTreeMap::<LanId, (_, Forwarder<'a>)>::new();
    for (origin, router) in gateways {
        let member = &router.credential().member;
        for lan in lans_of(router).iter().filter(|lan| lan.is_forwarder) {
            let named = |prefix: &SourcePrefix| permits(member, *prefix) == Some(true);
            let by_name = lan.prefixes.iter().any(named);
            let rank = (by_name, lan.term, Reverse(*origin));
            let known = best.get(&lan.lan);
            if known.is_none_or(|(before, ..)| *before < rank) {
                let origin = *origin;
                let forwarder = Forwarder {
                    origin,
                    lan,
                    member,
                };
                best.insert(lan.lan, (rank, forwarder));
            }
        }
    }
    best.into_values().map(|(_, forwarder)| forwarder)
}

/// The LANs of all segments: each with the permitted forwarder of the highest term, then the lowest
/// id. Those that are as before stay the same object.
fn segments(
    gateways: &[(OriginId, &Router)],
    before: &BTreeMap<SegmentId, Arc<SegmentLans>>,
) -> BTreeMap<SegmentId, Arc<SegmentLans>> {
    let mut best = BTreeMap::<(SegmentId, LanId), (_, LanOfSegment)>::new();
    for (origin, router) in gateways {
        let member = &router.credential().member;
        for lan in lans_of(router).iter().filter(|lan| lan.is_forwarder) {
            let segment = lan.segment().filter(|s| permits_segment(member, *s));
            let Some(segment) = segment else {
                continue;
            };
            let rank = (lan.term, Reverse(*origin));
            let known = best.get(&(segment, lan.lan));
            if known.is_none_or(|(before, _)| *before < rank) {
                let lan_of_segment = LanOfSegment {
                    origin: *origin,
                    peer: member.peer,
                    prefixes: lan.prefixes.clone(),
                };
                best.insert((segment, lan.lan), (rank, lan_of_segment));
            }
        }
    }
    let mut segments = BTreeMap::<_, SegmentLans>::new();
    for ((segment, id), (_, lan)) in best {
        segments.entry(segment).or_default().insert(id, lan);
    }
    let shared = |segment, lans| match before.get(&segment) {
        Some(before) if **before == lans => Arc::clone(before),
        _ => Arc::new(lans),
    };
    let segments = segments.into_iter();
    segments
        .map(|(segment, lans)| (segment, shared(segment, lans)))
        .collect()
}

/// Whether a certificate permits the prefix: `Some(true)` by name, `Some(false)` as one of any.
pub(crate) fn permits(member: &Member, prefix: SourcePrefix) -> Option<bool> {
    let network = network_of(member);
    // gateways do not speak for names of IPv4 addresses
    let is_ipv4 = prefix.prefix_len() >= mapped::PREFIX_LEN && mapped::is_host_name(prefix.addr());
    let foreign = !network.covers(&prefix) && !prefix.covers(&network) && !is_ipv4;
    if !foreign || prefix.prefix_len() < MIN_PREFIX_LEN {
        return None;
    }
    let mut permitted = member
        .gateway
        .iter()
        .filter(|p| p.covers(&prefix))
        .peekable();
    permitted.peek()?;
    Some(permitted.any(|p| *p != SourcePrefix::ANY))
}

/// The addresses of the network's nodes.
pub(crate) fn network_of(member: &Member) -> SourcePrefix {
    let bits = member.addresses.address.to_bits() & u128::MAX << (128 - u32::from(NETWORK_LEN));
    // node addresses are unique local ones
    SourcePrefix::new(Ipv6Addr::from_bits(bits), NETWORK_LEN).unwrap_or(SourcePrefix::ANY)
}
