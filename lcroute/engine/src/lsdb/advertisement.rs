//! The advertisement: a router's signed flags, group prefixes and links (RFC 2328 router LSA).
//!
//! ```text
//! version 8 | origin 64 | incarnation 32 | sequence 32
//! | flags 8 | mtu 16 | centrality 16 | candidacies 8 | prefixes 8 x { flags 8 | length 8 | bytes }
//! | links 16 x { neighbor 64 | cost 16 } | lans | signature 512
//!
//! lans = 8 x { flags 8 | lan 64 | term 32 | mac 48 | segment 96, if flagged
//!              | gateways 8 x origin 64 | prefixes 8 x { length 8 | bytes } }
//! ```
//! Version 1 has no `lans`. Version 2, of gateways and routers with IPv4, has at least one.
//!
//! An IPv4 address is a LAN of this router only, number 0, with the address as its one host:
//! `0 | 0 | 0 | 0 | 1 x { 128 | ::ffff:a.b.c.d }`. So routers without IPv4 can read it.
//!
//! A LAN of a segment has it as one more prefix, `128 | ::ffff:0.x.y.z` with its 24 bits, and the
//! LAN's IPv4 prefixes by name. Routers without segments ignore prefixes of this form.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use librecast::cert::{GroupPrefix, SourcePrefix};
use librecast::ethernet::MacAddress;
use librecast::id::{LanId, OriginId, PeerId};
use librecast::mapped;
use librecast::wire::{Reader, WireError, Writer};

use super::lsa::{KIND_ADVERTISEMENT, LsaError, Version, signed_part};
use crate::ipv4_network::is_assignable;
use crate::segment_id::SegmentId;
use crate::services::Services;

/// Version of an advertisement.
const VERSION: u8 = 1;
/// Most prefixes of one router. Chosen: an advertisement stays below 8 KiB.
pub const MAX_PREFIXES: usize = 64;
/// Most links of one router. Chosen: an advertisement stays below 8 KiB.
pub const MAX_LINKS: usize = 512;
/// Bytes of a link: neighbour and cost.
const LINK_LEN: usize = 10;
/// Most LANs of one gateway, with an IPv4 address. Chosen: more than a host has interfaces.
pub const MAX_LANS: usize = 8;
/// The LAN number of a router's IPv4 address; all other numbers are random.
const IPV4_LAN: LanId = LanId(0);
/// Most source prefixes of one LAN. Chosen: a host keeps 16 addresses (RFC 8504 §5.8).
pub const MAX_LAN_PREFIXES: usize = 16;

/// The router precedes others as rendezvous point, if its certificate agrees.
pub const FLAG_CORE: u8 = 0x01;
/// The router accepts unicast packets.
pub const FLAG_UNICAST: u8 = 0x02;
/// The router renews certificates.
pub const FLAG_ISSUER: u8 = 0x04;

/// A link was lost a moment ago: packets get lost until all routers have this advertisement.
pub(super) const FLAG_URGENT: u8 = 0x08;
/// A stub router: no path leads through it (RFC 8770, H-bit); rendezvous point as last choice.
pub const FLAG_STUB: u8 = 0x10;
/// The router accepts unicast packets of streams.
pub const FLAG_STREAMS: u8 = 0x20;

/// Centrality that its router has not computed yet.
pub const UNKNOWN_CENTRALITY: u16 = u16::MAX;
/// Bits of `candidacies` that stand for a group range.
const RANGE_BITS: u8 = 0x0f;
/// Flag of a prefix: the router is a candidate for the root of its groups.
const PREFIX_CANDIDATE: u8 = 0x01;
/// Flag of a LAN: this gateway is the forwarder.
const LAN_FORWARDER: u8 = 0x01;
/// Flag of a LAN: it is a part of a segment.
const LAN_SEGMENT: u8 = 0x02;
/// Most gateways of one LAN. Chosen: as many as its gateways remember.
const MAX_LAN_GATEWAYS: usize = 32;

/// A group prefix that a router announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    /// The groups.
    pub prefix: GroupPrefix,
    /// The router is a candidate for the root of these groups: it was elected before.
    pub candidate: bool,
}

/// A LAN of which a router is a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedLan {
    /// Its number.
    pub lan: LanId,
    /// Rises with each new forwarder of the LAN: the highest term counts.
    pub term: u32,
    /// The gateway's own address on it.
    pub mac: MacAddress,
    /// It carries packets for the LAN's hosts; other gateways of the LAN stand by.
    pub is_forwarder: bool,
    /// The segment of which the LAN is a part.
    pub segment: Option<SegmentId>,
    /// The other gateways whose PROBEs prove that they are on the same wire, in ascending order, at
    /// most 32.
    pub gateways: Vec<OriginId>,
    /// Addresses of the LAN's hosts, in ascending order, at most [`MAX_LAN_PREFIXES`].
    pub prefixes: Vec<SourcePrefix>,
}

impl AdvertisedLan {
    /// The prefix that states one of IPv4 on link: any of its addresses, and its length.
    pub(crate) fn ipv4_prefix((address, len): (Ipv4Addr, u8)) -> Option<SourcePrefix> {
        let mask = u32::MAX.checked_shl(32_u32.checked_sub(len.into())?)?;
        let first = Ipv4Addr::from_bits(address.to_bits() & mask);
        SourcePrefix::new(mapped::name(first), mapped::PREFIX_LEN + len).ok()
    }
}

/// The parts of an advertisement that its router chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub flags: u8,
    pub mtu: u16,
    pub centrality: u16,
    /// Bit n: the router is a candidate for group range n.
    pub candidacies: u8,
    /// In ascending order, at most [`MAX_PREFIXES`].
    pub prefixes: Vec<Announced>,
    /// In ascending order, at most [`MAX_LINKS`].
    pub links: Vec<(OriginId, u16)>,
    /// In ascending order, at most [`MAX_LANS`] with the IPv4 address.
    pub lans: Vec<AdvertisedLan>,
    /// The router's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
}

/// An advertisement whose signature has been verified.
#[derive(Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// As received: signed bytes are never encoded again.
    bytes: Bytes,
    /// Offset of the links in `bytes`, and their number.
    links: (u16, u16),
    prefixes: Box<[Announced]>,
    lans: Box<[AdvertisedLan]>,
    ipv4: Option<Ipv4Addr>,
    origin: OriginId,
    version: Version,
    mtu: u16,
    centrality: u16,
    flags: u8,
    candidacies: u8,
}

impl Advertisement {
    /// Reads an advertisement and verifies that `signer` signed it.
    ///
    /// # Errors
    /// The bytes cannot be read, or `signer` did not sign them.
    pub fn verify<S: Services + ?Sized>(
        lsa: &[u8],
        signer: &PeerId,
        services: &S,
    ) -> Result<Self, LsaError> {
        let advertisement = Self::decode(lsa)?;
        let (message, signature) = signed_part(KIND_ADVERTISEMENT, lsa)?;
        if services.verify(signer, &message, &signature) {
            Ok(advertisement)
        } else {
            Err(LsaError::Forged)
        }
    }

    /// Builds and signs an advertisement. `content` is within its bounds.
    pub(super) fn sign<S: Services + ?Sized>(
        origin: OriginId,
        version: Version,
        content: &Content,
        services: &S,
    ) -> Result<Self, WireError> {
        let mut w = Writer::new();
        let ipv4 = content.ipv4.map(ipv4_lan);
        let lans: Vec<_> = ipv4.iter().chain(&content.lans).collect();
        w.u8(VERSION).u64(origin.0).u64(version.0);
        w.u8(content.flags).u16(content.mtu).u16(content.centrality);
        w.u8(content.candidacies).u8(content.prefixes.len() as u8);
        for announced in &content.prefixes {
            let flags = if announced.candidate {
                PREFIX_CANDIDATE
            } else {
                0
            };
            let length = announced.prefix.prefix_len();
            w.u8(flags).u8(length);
            w.put(&announced.prefix.addr().octets()[..usize::from(length).div_ceil(8)]);
        }
        w.u16(content.links.len() as u16);
        for (neighbor, cost) in &content.links {
            w.u64(neighbor.0).u16(*cost);
        }
        encode_lans(&lans, &mut w);
        let signature = services.sign(&[&[KIND_ADVERTISEMENT], w.as_slice()].concat());
        w.put(&signature);
        Self::decode(w.as_slice())
    }

    /// Reads origin and version, which come first.
    pub(super) fn peek(lsa: &[u8]) -> Result<(OriginId, Version), WireError> {
        let mut r = Reader::new(lsa);
        r.version(VERSION)?;
        Ok((OriginId(r.u64()?), Version(r.u64()?)))
    }

    fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (origin, version) = Self::peek(bytes)?;
        let mut r = Reader::new(bytes);
        r.take(1 + 8 + 8)?;
        let (flags, mtu, centrality, candidacies) = (r.u8()?, r.u16()?, r.u16()?, r.u8()?);
        let prefixes = decode_prefixes(&mut r)?;
        let count = r.u16()?;
        if usize::from(count) > MAX_LINKS {
            return Err(WireError::Bad("number of links"));
        }
        let at = bytes.len() - r.rest().len();
        let links = r.take(usize::from(count) * LINK_LEN)?;
        let mut before = None;
        for (neighbor, cost) in links_in(links) {
            if before >= Some(neighbor) || neighbor == origin || cost == 0 {
                return Err(WireError::Bad("link"));
            }
            before = Some(neighbor);
        }
        let mut lans = decode_lans(&mut r)?;
        let ipv4 = take_ipv4(&mut lans)?;
        r.array::<64>()?;
        r.finish()?;
        Ok(Self {
            // a copy: `bytes` may be a part of something far larger
            bytes: Bytes::copy_from_slice(bytes),
            links: (at as u16, count),
            prefixes,
            lans: lans.into(),
            ipv4,
            origin,
            version,
            mtu,
            centrality,
            flags,
            candidacies: candidacies & RANGE_BITS,
        })
    }

    /// The signed form.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The router.
    pub fn origin(&self) -> OriginId {
        self.origin
    }

    /// Raised at every start of the router.
    pub fn incarnation(&self) -> u32 {
        self.version.incarnation()
    }

    /// Raised with every advertisement of one incarnation.
    pub fn sequence(&self) -> u32 {
        self.version.sequence()
    }

    /// Incarnation and sequence: of two advertisements of a router the higher version counts.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The router's flags, such as [`FLAG_CORE`].
    pub fn flags(&self) -> u8 {
        self.flags & !FLAG_URGENT
    }

    /// Whether its router is a stub router.
    pub fn is_stub(&self) -> bool {
        self.flags & FLAG_STUB != 0
    }

    /// Whether it is flooded at once and in both directions.
    pub fn is_urgent(&self) -> bool {
        self.flags & FLAG_URGENT != 0
    }

    /// Largest packet that the router's `lc0` accepts, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Mean distance to all other routers in units of 100 us, or [`UNKNOWN_CENTRALITY`].
    pub fn centrality(&self) -> u16 {
        self.centrality
    }

    /// Whether the router is a candidate for the rendezvous point of this group range, 0 to 3.
    pub fn is_candidate(&self, range: u8) -> bool {
        range < 4 && self.candidacies & 1 << range != 0
    }

    /// Whether both are equal in RP elections.
    pub(super) fn elects_as(&self, other: &Self) -> bool {
        let own = (self.flags(), self.centrality, self.candidacies);
        own == (other.flags(), other.centrality, other.candidacies)
            && self.prefixes == other.prefixes
    }

    /// The group prefixes that it announces, in ascending order.
    pub fn prefixes(&self) -> &[Announced] {
        &self.prefixes
    }

    /// The LANs of which it is a gateway, in ascending order.
    pub fn lans(&self) -> &[AdvertisedLan] {
        &self.lans
    }

    /// The router's IPv4 address, as advertised.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.ipv4
    }

    /// Its links in ascending order of their far ends, and their costs in units of 100 us.
    pub fn links(&self) -> impl ExactSizeIterator<Item = (OriginId, u16)> + '_ {
        links_in(self.link_bytes())
    }

    /// The cost of its link to `neighbor`, if it advertises one.
    pub fn cost_to(&self, neighbor: OriginId) -> Option<u16> {
        let links = self.link_bytes();
        let (mut low, mut high) = (0, links.len() / LINK_LEN);
        while low < high {
            let middle = usize::midpoint(low, high);
            let (to, cost) = link_at(&links[middle * LINK_LEN..]);
            match to.cmp(&neighbor) {
                std::cmp::Ordering::Equal => return Some(cost),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn link_bytes(&self) -> &[u8] {
        let (at, count) = (usize::from(self.links.0), usize::from(self.links.1));
        &self.bytes[at..at + count * LINK_LEN]
    }
}

fn links_in(bytes: &[u8]) -> impl ExactSizeIterator<Item = (OriginId, u16)> + '_ {
    bytes.chunks_exact(LINK_LEN).map(link_at)
}

fn link_at(bytes: &[u8]) -> (OriginId, u16) {
    let (mut neighbor, mut cost) = ([0; 8], [0; 2]);
    neighbor.copy_from_slice(&bytes[..8]);
    cost.copy_from_slice(&bytes[8..LINK_LEN]);
    (
        OriginId(u64::from_be_bytes(neighbor)),
        u16::from_be_bytes(cost),
    )
}

fn decode_prefixes(r: &mut Reader<'_>) -> Result<Box<[Announced]>, WireError> {
    let count = usize::from(r.u8()?);
    if count > MAX_PREFIXES {
        return Err(WireError::Bad("number of prefixes"));
    }
    let mut prefixes = Vec::with_capacity(count);
    for _ in 0..count {
        let flags = r.u8()?;
        let announced = Announced {
            prefix: decode_prefix(r, GroupPrefix::new)?,
            candidate: flags & PREFIX_CANDIDATE != 0,
        };
        if prefixes
            .last()
            .is_some_and(|before: &Announced| before.prefix >= announced.prefix)
        {
            return Err(WireError::Bad("order of prefixes"));
        }
        prefixes.push(announced);
    }
    Ok(prefixes.into())
}

fn ipv4_lan(address: Ipv4Addr) -> AdvertisedLan {
    // an address of a host is a prefix
    let prefix = SourcePrefix::new(mapped::name(address), 128);
    AdvertisedLan {
        lan: IPV4_LAN,
        term: 0,
        mac: MacAddress::default(),
        is_forwarder: false,
        segment: None,
        gateways: Vec::new(),
        prefixes: prefix.into_iter().collect(),
    }
}

/// Takes the IPv4 address out of the LANs.
fn take_ipv4(lans: &mut Vec<AdvertisedLan>) -> Result<Option<Ipv4Addr>, WireError> {
    // they are in order
    if lans.first().is_none_or(|first| first.lan != IPV4_LAN) {
        return Ok(None);
    }
    let first = lans.remove(0);
    let address = match &first.prefixes[..] {
        [one] if one.prefix_len() == 128 => mapped::ipv4(one.addr()),
        _ => None,
    };
    let address = address.filter(|address| is_assignable(*address) && first == ipv4_lan(*address));
    address.map(Some).ok_or(WireError::Bad("IPv4 address"))
}

fn encode_lans(lans: &[&AdvertisedLan], w: &mut Writer) {
    w.u8(lans.len() as u8);
    for lan in lans {
        let forwarder = if lan.is_forwarder { LAN_FORWARDER } else { 0 };
        let of_segment = lan.segment.map_or(0, |_| LAN_SEGMENT);
        w.u8(forwarder | of_segment).u64(lan.lan.0);
        w.u32(lan.term).put(&lan.mac.0);
        if let Some(segment) = lan.segment {
            w.put(&segment.bytes());
        }
        w.u8(lan.gateways.len() as u8);
        for gateway in &lan.gateways {
            w.u64(gateway.0);
        }
        w.u8(lan.prefixes.len() as u8);
        for prefix in &lan.prefixes {
            let length = prefix.prefix_len();
            w.u8(length);
            w.put(&prefix.addr().octets()[..usize::from(length).div_ceil(8)]);
        }
    }
}

fn decode_lans(r: &mut Reader<'_>) -> Result<Vec<AdvertisedLan>, WireError> {
    let count = usize::from(r.u8()?);
    if count > MAX_LANS {
        return Err(WireError::Bad("number of LANs"));
    }
    let mut lans: Vec<AdvertisedLan> = Vec::with_capacity(count);
    for _ in 0..count {
        let (flags, lan, term) = (r.u8()?, LanId(r.u64()?), r.u32()?);
        let mac = MacAddress(r.array()?);
        let segment = match flags & LAN_SEGMENT {
            0 => None,
            _ => Some(SegmentId::new(r.array()?)),
        };
        let gateways = decode_gateways(r)?;
        let count = usize::from(r.u8()?);
        if count > MAX_LAN_PREFIXES {
            return Err(WireError::Bad("number of source prefixes"));
        }
        let mut prefixes = Vec::with_capacity(count);
        for _ in 0..count {
            let prefix = decode_prefix(r, SourcePrefix::new)?;
            if prefixes.last().is_some_and(|before| *before >= prefix) {
                return Err(WireError::Bad("order of source prefixes"));
            }
            prefixes.push(prefix);
        }
        if lans.last().is_some_and(|before| before.lan >= lan) || mac.is_group() {
            return Err(WireError::Bad("LAN"));
        }
        lans.push(AdvertisedLan {
            lan,
            term,
            mac,
            is_forwarder: flags & LAN_FORWARDER != 0,
            segment,
            gateways,
            prefixes,
        });
    }
    Ok(lans)
}

fn decode_gateways(r: &mut Reader<'_>) -> Result<Vec<OriginId>, WireError> {
    let count = usize::from(r.u8()?);
    if count > MAX_LAN_GATEWAYS {
        return Err(WireError::Bad("number of gateways"));
    }
    let mut gateways = Vec::with_capacity(count);
    for _ in 0..count {
        let gateway = OriginId(r.u64()?);
        if gateways.last().is_some_and(|before| *before >= gateway) {
            return Err(WireError::Bad("order of gateways"));
        }
        gateways.push(gateway);
    }
    Ok(gateways)
}

/// Reads a prefix: its length, and as many bytes as it needs.
fn decode_prefix<P>(
    r: &mut Reader<'_>,
    of: impl Fn(Ipv6Addr, u8) -> Result<P, WireError>,
) -> Result<P, WireError> {
    let length = r.u8()?;
    if length > 128 {
        return Err(WireError::Bad("prefix length"));
    }
    let bytes = r.take(usize::from(length).div_ceil(8))?;
    let mut octets = [0; 16];
    octets[..bytes.len()].copy_from_slice(bytes);
    of(Ipv6Addr::from(octets), length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::TestServices;

    fn any_content() -> impl Strategy<Value = Content> {
        let prefix =
            (any::<u128>(), 8u8..=128, any::<bool>()).prop_map(|(bits, length, candidate)| {
                let mask = u128::MAX << (128 - u32::from(length));
                let addr = Ipv6Addr::from_bits((bits | 0xff << 120) & mask);
                Announced {
                    prefix: GroupPrefix::new(addr, length).unwrap(),
                    candidate,
                }
            });
        let prefixes = prop::collection::vec(prefix, 0..=MAX_PREFIXES).prop_map(|mut prefixes| {
            prefixes.sort_unstable_by_key(|p| p.prefix);
            prefixes.dedup_by_key(|p| p.prefix);
            prefixes
        });
        let links = prop::collection::btree_map(any::<u64>().prop_map(OriginId), 1u16.., 0..=40);
        let fixed = (any::<u8>(), any::<u16>(), any::<u16>(), 0u8..16);
        (fixed, prefixes, links, any_lans(), any_ipv4()).prop_map(
            |((flags, mtu, centrality, candidacies), prefixes, links, lans, ipv4)| Content {
                flags,
                mtu,
                centrality,
                candidacies,
                prefixes,
                links: links.into_iter().collect(),
                lans: lans
                    .into_iter()
                    .take(MAX_LANS - usize::from(ipv4.is_some()))
                    .collect(),
                ipv4,
            },
        )
    }

    fn any_ipv4() -> impl Strategy<Value = Option<Ipv4Addr>> {
        prop::option::of(
            (any::<u8>(), 1..255u8, any::<u8>()).prop_map(|(b, c, d)| Ipv4Addr::new(10, b, c, d)),
        )
    }

    fn any_lans() -> impl Strategy<Value = Vec<AdvertisedLan>> {
        let prefix = (any::<u128>(), 16u8..=128).prop_map(|(bits, length)| {
            let bits = (bits >> 16 | 0xfd00 << 112) & u128::MAX << (128 - u32::from(length));
            SourcePrefix::new(Ipv6Addr::from_bits(bits), length).unwrap()
        });
        let prefixes = prop::collection::btree_set(prefix, 0..=MAX_LAN_PREFIXES);
        let lan = (any::<u32>(), any::<[u8; 6]>(), any::<bool>(), prefixes);
        let lans = prop::collection::btree_map(1u64.., lan, 0..=MAX_LANS);
        lans.prop_map(|lans| {
            let lan = |(lan, (term, mut mac, is_forwarder, prefixes)): (_, (_, [u8; 6], _, _))| {
                mac[0] &= !1;
                AdvertisedLan {
                    lan: LanId(lan),
                    term,
                    mac: MacAddress(mac),
                    is_forwarder,
                    segment: is_forwarder.then(|| SegmentId::new([mac[1]; 12])),
                    gateways: (0..mac[2].into())
                        .take(MAX_LAN_GATEWAYS)
                        .map(OriginId)
                        .collect(),
                    prefixes: Vec::from_iter::<std::collections::BTreeSet<_>>(prefixes),
                }
            };
            lans.into_iter().map(lan).collect()
        })
    }

    fn example(services: &TestServices) -> Advertisement {
        let content = Content {
            flags: FLAG_CORE | FLAG_UNICAST,
            mtu: 1280,
            centrality: 300,
            candidacies: 0b0010,
            prefixes: vec![Announced {
                prefix: "ff1e:1230::/28".parse().unwrap(),
                candidate: true,
            }],
            links: vec![(OriginId(7), 10), (OriginId(9), 76)],
            lans: Vec::new(),
            ipv4: None,
        };
        Advertisement::sign(OriginId(5), Version::new(3, 4), &content, services).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let services = TestServices::new(1);
        let advertisement = example(&services);
        let expected = [
            &[1u8][..],
            &[0, 0, 0, 0, 0, 0, 0, 5],
            &[0, 0, 0, 3, 0, 0, 0, 4],
            &[0x03, 0x05, 0x00, 0x01, 0x2c, 0x02],
            &[1, 1, 28, 0xff, 0x1e, 0x12, 0x30],
            &[0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 10],
            &[0, 0, 0, 0, 0, 0, 0, 9, 0, 76],
            &[0],
        ]
        .concat();
        assert_eq!(advertisement.bytes[..expected.len()], expected);
        assert_eq!(advertisement.bytes.len(), expected.len() + 64);
        assert_eq!(advertisement.cost_to(OriginId(9)), Some(76));
        assert_eq!(advertisement.cost_to(OriginId(8)), None);
        assert!(
            advertisement.is_candidate(1)
                && !advertisement.is_candidate(0)
                && !advertisement.is_candidate(9)
        );
    }

    fn content() -> Content {
        Content {
            flags: 0,
            mtu: 1280,
            centrality: 300,
            candidacies: 0,
            prefixes: Vec::new(),
            links: Vec::new(),
            lans: Vec::new(),
            ipv4: None,
        }
    }

    #[test]
    fn golden_bytes_of_a_gateway() {
        let services = TestServices::new(1);
        let content = Content {
            lans: vec![AdvertisedLan {
                lan: LanId(6),
                term: 7,
                mac: MacAddress([2, 0, 0, 0, 0, 8]),
                is_forwarder: true,
                segment: None,
                gateways: vec![OriginId(9)],
                prefixes: vec!["2001:db8:5::/64".parse().unwrap()],
            }],
            ..content()
        };
        let version = Version::new(3, 4);
        let advertisement = Advertisement::sign(OriginId(5), version, &content, &services).unwrap();
        let expected = [
            &[1u8][..],
            &[0, 0, 0, 0, 0, 0, 0, 5],
            &[0, 0, 0, 3, 0, 0, 0, 4],
            &[0x00, 0x05, 0x00, 0x01, 0x2c, 0x00],
            &[0],
            &[0, 0],
            &[1, 1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7],
            &[2, 0, 0, 0, 0, 8],
            &[1, 0, 0, 0, 0, 0, 0, 0, 9],
            &[1, 64, 0x20, 0x01, 0x0d, 0xb8, 0, 5, 0, 0],
        ]
        .concat();
        assert_eq!(advertisement.bytes[..expected.len()], expected);
        assert_eq!(advertisement.bytes.len(), expected.len() + 64);
    }

    #[test]
    fn golden_bytes_of_an_ipv4_address() {
        let services = TestServices::new(1);
        let content = Content {
            ipv4: Some(Ipv4Addr::new(10, 77, 4, 5)),
            ..content()
        };
        let version = Version::new(3, 4);
        let advertisement = Advertisement::sign(OriginId(5), version, &content, &services).unwrap();
        let head = 26;
        let expected = [
            &[1u8, 0][..],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0],
            // no gateways
            &[0],
            &[
                1, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 4, 5,
            ],
        ]
        .concat();
        assert_eq!(advertisement.bytes[head..][..expected.len()], expected);
        assert_eq!(advertisement.bytes.len(), head + expected.len() + 64);
        assert_eq!(
            (advertisement.ipv4(), advertisement.lans()),
            (content.ipv4, &[][..])
        );
        // an address that no node may have, and LANs of number 0 that are not an address
        for (at, byte) in [(14, 8), (16, 0), (0, 1), (13, 1)] {
            let mut bad = advertisement.bytes.to_vec();
            bad[advertisement.bytes.len() - 64 - 18 + at.min(17)] = byte;
            if at == 0 || at == 13 {
                bad = advertisement.bytes.to_vec();
                bad[head + 1 + at] = byte;
            }
            assert!(Advertisement::decode(&bad).is_err(), "{at}");
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let services = TestServices::new(1);
        let bytes = example(&services).bytes;
        let signer = services.peer();
        assert!(Advertisement::verify(&bytes, &signer, &services).is_ok());
        for i in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[i / 8] ^= 1 << (i % 8);
            assert!(
                Advertisement::verify(&bad, &signer, &services).is_err(),
                "bit {i}"
            );
        }
        let stranger = TestServices::new(2).peer();
        let verdict = Advertisement::verify(&bytes, &stranger, &services);
        assert_eq!(verdict, Err(LsaError::Forged));
    }

    #[test]
    fn links_are_in_order_and_lead_elsewhere() {
        let services = TestServices::new(1);
        let with = |links: &[(u64, u16)]| {
            let content = Content {
                links: links
                    .iter()
                    .map(|&(to, cost)| (OriginId(to), cost))
                    .collect(),
                ..content()
            };
            Advertisement::sign(OriginId(5), Version::new(1, 1), &content, &services).is_ok()
        };
        assert!(with(&[(1, 1), (2, 1)]));
        assert!(!with(&[(2, 1), (1, 1)]));
        assert!(!with(&[(2, 1), (2, 1)]));
        assert!(!with(&[(5, 1)]), "itself");
        assert!(!with(&[(2, 0)]), "no cost");
        assert!(!with(&vec![(2, 1); MAX_LINKS + 1]));
    }

    #[test]
    fn golden_bytes_of_a_segment() {
        let services = TestServices::new(1);
        let prefix = AdvertisedLan::ipv4_prefix((Ipv4Addr::new(192, 168, 1, 10), 24));
        let segment = SegmentId::new([7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
        let content = Content {
            lans: vec![AdvertisedLan {
                lan: LanId(6),
                term: 7,
                mac: MacAddress([2, 0, 0, 0, 0, 8]),
                is_forwarder: true,
                segment: Some(segment),
                gateways: Vec::new(),
                prefixes: prefix.into_iter().collect(),
            }],
            ..content()
        };
        let version = Version::new(3, 4);
        let advertisement = Advertisement::sign(OriginId(5), version, &content, &services).unwrap();
        let expected = [
            &[1, 3, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 7, 2, 0, 0, 0, 0, 8][..],
            &segment.bytes(),
            &[
                0, 1, 120, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1,
            ],
        ]
        .concat();
        let bytes = &advertisement.bytes;
        let at = bytes.len() - 64 - expected.len();
        assert_eq!(bytes[at..bytes.len() - 64], expected);
        assert_eq!(advertisement.lans()[0].segment, Some(segment));
    }

    proptest! {
        #[test]
        fn advertisements_survive_the_wire(content in any_content(), origin: u64, version: u64) {
            let services = TestServices::new(1);
            prop_assume!(content.links.iter().all(|(to, _)| to.0 != origin));
            let origin = OriginId(origin);
            let one = Advertisement::sign(origin, Version(version), &content, &services).unwrap();
            let other = Advertisement::verify(&one.bytes, &services.peer(), &services).unwrap();
            prop_assert_eq!(&one, &other);
            prop_assert_eq!((one.origin, one.version), (origin, Version(version)));
            prop_assert_eq!(one.prefixes(), content.prefixes.as_slice());
            prop_assert_eq!(one.lans(), content.lans.as_slice());
            prop_assert_eq!(one.ipv4(), content.ipv4);
            prop_assert_eq!(one.links().collect::<Vec<_>>(), content.links.clone());
            for (to, cost) in content.links {
                prop_assert_eq!(one.cost_to(to), Some(cost));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = Advertisement::decode(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = Advertisement::decode(&bytes);
        }
    }
}
