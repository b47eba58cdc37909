//! LANs behind gateways, as reachable routers advertise them.
//!
//! A gateway speaks for addresses that its certificate permits and its advertisement names, while
//! it is the forwarder of their LAN. Gateways with an address named in their certificate precede
//! those permitted for any. [`Choice`] decides among several advertised forwarders.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use librecast::cert::{Member, SourcePrefix};
use librecast::ethernet::MacAddress;
use librecast::id::{LanId, OriginId, PeerId, derive};
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
/// Most LANs whose last forwarder is remembered without a present one. Chosen: a network has fewer.
const MAX_REMEMBERED: usize = 512;

/// Returns the number of a LAN by its first gateway: its key, its address on the LAN, and the part,
/// which is the last byte: a LAN that was split has several.
pub(crate) fn lan_number(peer: &PeerId, mac: MacAddress, part: u8) -> LanId {
    let hash = derive(
        "lcroute 2026 lan",
        &[&peer.public_key()[..], &mac.0, &[part]],
    );
    let [a, b, c, d, e, f, g, ..] = hash;
    LanId(u64::from_be_bytes([a, b, c, d, e, f, g, part]))
}

/// Returns the next part of a LAN that was split.
pub(crate) fn next_part(LanId(number): LanId) -> u8 {
    number.to_be_bytes()[7].wrapping_add(1)
}

#[derive(Debug, Default)]
pub(super) struct Lans {
    sources: Arc<LanSources>,
    macs: BTreeSet<MacAddress>,
    /// Terms that other routers advertise as forwarders.
    terms: BTreeMap<LanId, Vec<(OriginId, u32)>>,
    choice: Choice,
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
        for (origin, router) in gateways.iter().filter(|(origin, _)| *origin != store.own) {
            for lan in lans_of(router).iter().filter(|lan| lan.is_forwarder) {
                let terms = self.terms.entry(lan.lan).or_default();
                terms.push((*origin, lan.term));
            }
        }
        self.segments = segments(&gateways, &mut self.choice, &self.segments);
        let mut behind = BTreeMap::new();
        for Forwarder {
            origin,
            lan,
            member,
        } in forwarders(&gateways, &mut self.choice)
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
        self.choice.forget(&self.terms);
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

    /// The highest term that other gateways of a LAN advertise for it; 0 if none does.
    pub fn term(&self, lan: LanId, is_of_lan: impl Fn(OriginId) -> bool) -> u32 {
        let terms = self.terms.get(&lan).into_iter().flatten();
        let terms = terms.filter(|(origin, _)| is_of_lan(*origin));
        terms.map(|(_, term)| *term).max().unwrap_or_default()
    }

    /// The forwarder of a LAN, by its number.
    pub fn forwarder(&self, lan: LanId) -> Option<OriginId> {
        self.choice.last.get(&(None, lan)).map(|last| last.origin)
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
#[derive(Clone, Copy)]
struct Forwarder<'a> {
    origin: OriginId,
    lan: &'a AdvertisedLan,
    member: &'a Member,
}

impl Forwarder<'_> {
    /// Whether it is the LAN's first gateway.
    fn is_first(&self) -> bool {
        let part = self.lan.lan.0.to_be_bytes()[7];
        lan_number(&self.member.peer, self.lan.mac, part) == self.lan.lan
    }

    fn rank(&self) -> (u32, Reverse<OriginId>) {
        (self.lan.term, Reverse(self.origin))
    }
}

/// A LAN of a segment, or any LAN, by its number.
type Key = (Option<SegmentId>, LanId);

/// The forwarder of each LAN among several. A gateway that a proof connects with the LAN precedes
/// others: the first one, by whose key the LAN has its number, or one that the first or the last
/// forwarder named as heard. The older stays before a rival that it does not name.
#[derive(Debug, Default)]
struct Choice {
    last: BTreeMap<Key, Last>,
}

#[derive(Debug)]
struct Last {
    origin: OriginId,
    /// The gateways that it heard.
    gateways: Vec<OriginId>,
}

impl Choice {
    /// Returns the forwarder among candidates, and whether others are not proven rivals.
    fn choose<'a>(
        &mut self,
        key: Key,
        candidates: &[Forwarder<'a>],
        gateways: &[(OriginId, &Router)],
    ) -> Option<(Forwarder<'a>, Vec<PeerId>)> {
        let known = self.last.get(&key);
        let is_alone =
            candidates.len() == 1 && known.is_some_and(|l| l.origin == candidates[0].origin);
        let named = if is_alone {
            Vec::new()
        } else {
            self.named(key, gateways)
        };
        let standing = |one: &Forwarder<'_>| {
            let is_known = known.is_some_and(|last| last.origin == one.origin);
            let is_named = named.contains(&one.origin);
            (one.is_first(), is_named, is_known, one.rank())
        };
        let older = *candidates.iter().max_by_key(|one| standing(one))?;
        // it gave way to one that it hears
        let heard = |one: &&Forwarder<'_>| older.lan.gateways.contains(&one.origin);
        let successors = candidates.iter().filter(heard);
        let chosen = successors
            .chain([&older])
            .max_by_key(|one| one.rank())
            .copied()?;
        let rivals = candidates.iter().filter(|one| {
            let is_of_wire =
                older.lan.gateways.contains(&one.origin) || named.contains(&one.origin);
            one.origin != older.origin && !is_of_wire
        });
        let mut rivals: Vec<_> = rivals.map(|one| one.member.peer).collect();
        if !rivals.is_empty() {
            rivals.push(chosen.member.peer);
        }
        let last = Last {
            origin: chosen.origin,
            gateways: chosen.lan.gateways.clone(),
        };
        self.last.insert(key, last);
        Some((chosen, rivals))
    }

    /// The gateways that the first or the last forwarder of a LAN named.
    fn named(&self, key: Key, gateways: &[(OriginId, &Router)]) -> Vec<OriginId> {
        let last = self.last.get(&key).map(|last| last.gateways.clone());
        let mut named = last.unwrap_or_default();
        for (origin, router) in gateways {
            let member = &router.credential().member;
            for lan in lans_of(router).iter().filter(|lan| lan.lan == key.1) {
                let gateway = Forwarder {
                    origin: *origin,
                    lan,
                    member,
                };
                if gateway.is_first() {
                    named.extend(&lan.gateways);
                }
            }
        }
        named
    }

    /// Forgets LANs without a forwarder, if there are many.
    fn forget(&mut self, present: &BTreeMap<LanId, Vec<(OriginId, u32)>>) {
        if self.last.len() > MAX_REMEMBERED {
            self.last.retain(|(_, lan), _| present.contains_key(lan));
        }
    }
}

fn candidates<'a>(
    gateways: &[(OriginId, &'a Router)],
    key: impl Fn(&Member, &AdvertisedLan) -> Option<Key>,
) -> BTreeMap<Key, Vec<Forwarder<'a>>> {
    let mut all = BTreeMap::<Key, Vec<Forwarder<'a>>>::new();
    for (origin, router) in gateways {
        let (origin, member) = (*origin, &router.credential().member);
        for lan in lans_of(router).iter().filter(|lan| lan.is_forwarder) {
            let one = Forwarder {
                origin,
                lan,
                member,
            };
            if let Some(key) = key(member, lan) {
                all.entry(key).or_default().push(one);
            }
        }
    }
    all
}

/// The forwarder of each LAN, among gateways with an address named in their certificate if there
/// are any.
fn forwarders<'a>(gateways: &[(OriginId, &'a Router)], choice: &mut Choice) -> Vec<Forwarder<'a>> {
    let all = candidates(gateways, |_, lan| Some((None, lan.lan)));
    let chosen = all.into_iter().filter_map(|(key, mut candidates)| {
        let by_name = |one: &Forwarder<'_>| {
            let mut prefixes = one.lan.prefixes.iter();
            prefixes.any(|prefix| permits(one.member, *prefix) == Some(true))
        };
        if candidates.iter().any(by_name) {
            candidates.retain(by_name);
        }
        Some(choice.choose(key, &candidates, gateways)?.0)
    });
    chosen.collect()
}

/// The LANs of all segments, each with its permitted forwarder. Those that are as before stay the
/// same object; LANs that were there before precede new ones.
fn segments(
    gateways: &[(OriginId, &Router)],
    choice: &mut Choice,
    before: &BTreeMap<SegmentId, Arc<SegmentLans>>,
) -> BTreeMap<SegmentId, Arc<SegmentLans>> {
    let all = candidates(gateways, |member, lan| {
        let segment = lan.segment.filter(|s| permits_segment(member, *s))?;
        Some((Some(segment), lan.lan))
    });
    let is_new = |segment, lan| {
        let before = before.get(&segment);
        before.is_none_or(|lans: &Arc<SegmentLans>| lans.get(lan).is_none())
    };
    let mut best = Vec::new();
    let mut rivals = Vec::new();
    for (key, candidates) in all {
        let (Some(segment), id) = key else { continue };
        let Some((chosen, others)) = choice.choose(key, &candidates, gateways) else {
            continue;
        };
        rivals.push((segment, others));
        let lan = LanOfSegment {
            origin: chosen.origin,
            peer: chosen.member.peer,
            prefixes: chosen.lan.prefixes.clone(),
        };
        best.push((is_new(segment, id), (segment, id), lan));
    }
    best.sort_by_key(|(is_new, key, _)| (*is_new, *key));
    let mut segments = BTreeMap::<_, SegmentLans>::new();
    for (_, (segment, id), lan) in best {
        segments.entry(segment).or_default().insert(id, lan);
    }
    for (segment, rivals) in rivals {
        segments.entry(segment).or_default().add_rivals(rivals);
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

pub(crate) fn network_of(member: &Member) -> SourcePrefix {
    let bits = member.addresses.address.to_bits() & u128::MAX << (128 - u32::from(NETWORK_LEN));
    // node addresses are unique local ones
    SourcePrefix::new(Ipv6Addr::from_bits(bits), NETWORK_LEN).unwrap_or(SourcePrefix::ANY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Services;
    use crate::testing::TestServices;

    fn member(n: u16) -> Member {
        let services = TestServices::new(n);
        let credential = services.verify_chain(&services.chain()).unwrap();
        credential.member.clone()
    }

    fn lan(first: &Member, by: u8, term: u32, gateways: &[u64]) -> AdvertisedLan {
        let mac = |n| MacAddress([2, 0, 0, 0, 0, n]);
        AdvertisedLan {
            lan: lan_number(&first.peer, mac(1), 0),
            term,
            mac: mac(by),
            is_forwarder: true,
            segment: None,
            gateways: gateways.iter().copied().map(OriginId).collect(),
            prefixes: Vec::new(),
        }
    }

    /// The chosen forwarder and whether there are rivals.
    fn choose(choice: &mut Choice, among: &[(u64, &AdvertisedLan, &Member)]) -> (u64, bool) {
        let candidates: Vec<_> = among
            .iter()
            .map(|(origin, lan, member)| Forwarder {
                origin: OriginId(*origin),
                lan,
                member,
            })
            .collect();
        let key = (None, candidates[0].lan.lan);
        let (chosen, rivals) = choice.choose(key, &candidates, &[]).unwrap();
        (chosen.origin.0, !rivals.is_empty())
    }

    #[test]
    fn a_liar_with_the_number_of_another_lan_takes_it_from_nobody() {
        let (first, liar) = (member(1), member(2));
        let honest = lan(&first, 1, 1, &[]);
        let lie = lan(&first, 9, u32::MAX, &[5]);
        for known in [false, true] {
            let mut choice = Choice::default();
            if known {
                assert_eq!(choose(&mut choice, &[(5, &honest, &first)]), (5, false));
            }
            let both = [(5, &honest, &first), (2, &lie, &liar)];
            assert_eq!(choose(&mut choice, &both), (5, true), "{known}");
        }
        // while the honest one is away, and after it is back
        let mut choice = Choice::default();
        assert_eq!(choose(&mut choice, &[(2, &lie, &liar)]), (2, false));
        let both = [(2, &lie, &liar), (5, &honest, &first)];
        assert_eq!(choose(&mut choice, &both), (5, true));
    }

    #[test]
    fn a_successor_that_the_forwarder_heard_follows_it_and_a_liar_does_not() {
        let (first, second, liar) = (member(1), member(2), member(3));
        let old = lan(&first, 1, 1, &[6]);
        let new = lan(&first, 2, 2, &[5]);
        let lie = lan(&first, 9, u32::MAX, &[5, 6]);
        let mut choice = Choice::default();
        assert_eq!(choose(&mut choice, &[(5, &old, &first)]), (5, false));
        // both are there for a moment, and the liar
        let all = [(5, &old, &first), (6, &new, &second), (3, &lie, &liar)];
        assert_eq!(choose(&mut choice, &all[..2]), (6, false));
        let mut choice = Choice::default();
        choose(&mut choice, &all[..1]);
        // the first is gone
        assert_eq!(choose(&mut choice, &all[1..]), (6, true));
        // and stays away: the older stays
        assert_eq!(choose(&mut choice, &all[1..]), (6, true));
    }

    #[test]
    fn numbers_come_from_the_key_of_the_first_gateway_and_tell_parts_apart() {
        let (a, b) = (TestServices::new(1).peer(), TestServices::new(2).peer());
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        let number = lan_number(&a, mac, 0);
        assert_ne!(number, lan_number(&b, mac, 0));
        let part = lan_number(&a, mac, next_part(number));
        assert_eq!(next_part(part), 2);
        assert_ne!(number, part);
    }
}
