//! Classification of packets, by the same rules for `lc0` and links. IPv4 packets get the names of
//! their addresses ([`mapped`]), which distinguish them from then on.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use librecast::ipv4::{self, Header};
use librecast::wire::{Reader, WireError};
use librecast::{igmp, mapped, mld};

use crate::drops::DropReason;
use crate::ipv4_network::is_broadcast;

/// Next header (RFC 8200 4.3).
const HOP_BY_HOP: u8 = 0;
/// Next header of UDP.
const UDP: u8 = 17;
/// Next header (RFC 8200 4.4).
const ROUTING: u8 = 43;
/// Next header (RFC 8200 4.5).
const FRAGMENT: u8 = 44;
/// Next header (RFC 4302).
const AUTHENTICATION: u8 = 51;
/// Next header (RFC 4443 1).
const ICMPV6: u8 = 58;
/// Next header (RFC 8200 4.6).
const DESTINATION_OPTIONS: u8 = 60;
/// Next header (RFC 8200 §4.7).
const NO_NEXT_HEADER: u8 = 59;
/// Next header (RFC 6275 6.1).
const MOBILITY: u8 = 135;
/// Bytes of an IPv6 header.
const IPV6_HEADER_LEN: usize = 40;

/// Extension headers of a packet before it counts as malformed.
const MAX_EXTENSION_HEADERS: usize = 16;

/// Groups of scope 2 that are never carried, even if listed. For all nodes only UDP is carried.
const NEVER_CARRIED: [Ipv6Addr; 2] = [mld::ALL_ROUTERS, mld::ALL_MLDV2_ROUTERS];

/// The same for IPv4: all routers, PIM routers, IGMPv3 routers, snoopers (MRD).
const NEVER_CARRIED_IPV4: [Ipv4Addr; 4] = [
    igmp::ALL_ROUTERS,
    Ipv4Addr::new(224, 0, 0, 13),
    igmp::ALL_IGMPV3_ROUTERS,
    Ipv4Addr::new(224, 0, 0, 106),
];

/// ICMP types that could configure hosts: redirect, router discovery (RFC 792, RFC 1256).
const ICMP_LINK_CONTROL: [u8; 3] = [5, 9, 10];

/// Source and destination of a packet, before any check against scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The sender.
    pub source: Ipv6Addr,
    /// The group; for unicast the node.
    pub group: Ipv6Addr,
}

/// The class of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Multicast of a scope that is carried.
    Carried(Flow),
    /// Unicast that cannot configure the other host.
    Unicast(Flow),
    /// An MLD or IGMP message: for the querier and proxy of this link.
    Mld,
    /// A packet to drop.
    Dropped(DropReason),
}

/// Carried groups: scope 5 and wider; of scope 2 only listed ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CarriedScopes {
    link_scope_groups: Vec<Ipv6Addr>,
    /// All groups of scope 2 are carried.
    all_link_scope: bool,
    /// IPv4 packets are carried.
    ipv4: bool,
}

impl CarriedScopes {
    /// Between nodes: all groups of scope 2 are carried, listed by this node or not.
    pub const ON_LINKS: &Self = &Self {
        link_scope_groups: Vec::new(),
        all_link_scope: true,
        ipv4: true,
    };

    /// With these groups of scope 2, except those that are never carried.
    #[must_use]
    pub fn new(link_scope_groups: &[Ipv6Addr], ipv4: bool) -> Self {
        let mut listed: Vec<_> = link_scope_groups
            .iter()
            .filter(|g| g.is_multicast() && is_link_scope(**g) && !is_never_carried(**g))
            .copied()
            .collect();
        listed.sort_unstable();
        listed.dedup();
        Self {
            link_scope_groups: listed,
            all_link_scope: false,
            ipv4,
        }
    }

    /// Whether packets to this group are carried.
    pub fn contains(&self, group: Ipv6Addr) -> bool {
        match scope(group) {
            0x2 if self.all_link_scope => group.is_multicast() && !is_never_carried(group),
            0x2 => self.link_scope_groups.binary_search(&group).is_ok(),
            0x5..=0xe => group.is_multicast(),
            _ => false,
        }
    }

    /// Whether packets to this group are carried, of IPv4 only if that is carried.
    pub fn carries(&self, group: Ipv6Addr) -> bool {
        self.contains(group) && (self.ipv4 || !mapped::is_group_name(group))
    }

    /// The class of `packet`. Bytes behind its payload length do not count, see [`trim`].
    #[must_use]
    pub fn classify(&self, packet: &[u8]) -> Class {
        self.try_classify(packet)
            .unwrap_or(Class::Dropped(DropReason::Malformed))
    }

    fn try_classify(&self, packet: &[u8]) -> Result<Class, WireError> {
        let mut r = Reader::new(packet);
        match r.u32()? >> 28 {
            6 => {}
            4 if self.ipv4 => return self.classify_ipv4(packet),
            _ => return Err(WireError::Bad("IP version")),
        }
        let payload_len = r.u16()?;
        let next_header = r.u8()?;
        let _hop_limit = r.u8()?;
        let flow = Flow {
            source: r.ipv6()?,
            group: r.ipv6()?,
        };
        let payload = Reader::new(r.take(payload_len.into())?);
        if flow.source.is_multicast() || mapped::is_host_name(flow.source) {
            return Err(WireError::Bad("source"));
        }
        match upper_layer(next_header, payload)? {
            Upper::Icmpv6(kind) if mld::is_mld(kind) => return Ok(Class::Mld),
            Upper::Icmpv6(kind) if is_link_control(kind) => {
                return Ok(Class::Dropped(DropReason::LinkControl));
            }
            Upper::Udp => {}
            // an echo request would be answered by all hosts at once
            _ if flow.group == mld::ALL_NODES => {
                return Ok(Class::Dropped(DropReason::ScopeNotCarried));
            }
            _ => {}
        }
        if mapped::is_group_name(flow.group) || mapped::is_host_name(flow.group) {
            return Ok(Class::Dropped(DropReason::ReservedGroup));
        }
        Ok(self.by_destination(flow))
    }

    fn by_destination(&self, flow: Flow) -> Class {
        if !flow.group.is_multicast() {
            Class::Unicast(flow)
        } else if self.contains(flow.group) {
            Class::Carried(flow)
        } else {
            Class::Dropped(DropReason::ScopeNotCarried)
        }
    }

    /// Not inlined into the path of IPv6 packets.
    #[inline(never)]
    fn classify_ipv4(&self, packet: &[u8]) -> Result<Class, WireError> {
        let header = Header::read(packet)?;
        if header.is_source_routed() {
            return Err(WireError::Bad("source route"));
        }
        let [first, ..] = header.source.octets();
        let is_later_fragment = header.fragment_offset != 0;
        match header.protocol {
            // a host without an address reports from 0.0.0.0
            ipv4::IGMP => return Ok(Class::Mld),
            _ if first == 0 || first == 127 => return Err(WireError::Bad("source")),
            _ if header.source.is_multicast() || header.source.is_broadcast() => {
                return Err(WireError::Bad("source"));
            }
            ipv4::PIM => return Ok(Class::Dropped(DropReason::LinkControl)),
            ipv4::ICMP if !is_later_fragment => {
                let kind = header.payload.first().ok_or(WireError::Truncated)?;
                if ICMP_LINK_CONTROL.contains(kind) {
                    return Ok(Class::Dropped(DropReason::LinkControl));
                }
            }
            _ => {}
        }
        if is_broadcast(header.destination) {
            return Ok(Class::Dropped(DropReason::Broadcast));
        }
        if header.destination == igmp::ALL_SYSTEMS && header.protocol != ipv4::UDP {
            return Ok(Class::Dropped(DropReason::ScopeNotCarried));
        }
        Ok(self.by_destination(Flow {
            source: mapped::name(header.source),
            group: mapped::name(header.destination),
        }))
    }
}

/// Whether a packet, or a part of one, is IPv4.
#[must_use]
pub fn is_ipv4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4)
}

fn is_never_carried(group: Ipv6Addr) -> bool {
    let is_ipv4 = |group: Ipv4Addr| NEVER_CARRIED_IPV4.contains(&group);
    NEVER_CARRIED.contains(&group) || mapped::ipv4(group).is_some_and(is_ipv4)
}

/// Source and destination of a classified packet.
#[must_use]
pub fn flow_of(packet: &[u8]) -> Option<Flow> {
    if is_ipv4(packet) {
        let address = |at: usize| {
            let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(mapped::name(Ipv4Addr::from(octets)))
        };
        return Some(Flow {
            source: address(12)?,
            group: address(16)?,
        });
    }
    let address = |at: usize| {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets))
    };
    Some(Flow {
        source: address(8)?,
        group: address(24)?,
    })
}

/// Cuts off the bytes behind the payload of a classified packet.
pub fn trim(packet: &mut Bytes) {
    if is_ipv4(packet) {
        if let Some(&[high, low]) = packet.get(2..4) {
            packet.truncate(usize::from(u16::from_be_bytes([high, low])));
        }
    } else if let Some(&[high, low]) = packet.get(4..6) {
        packet.truncate(IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([high, low])));
    }
}

/// The scope field of a multicast address (RFC 4291 §2.7).
#[must_use]
pub fn scope(group: Ipv6Addr) -> u8 {
    group.octets()[1] & 0x0f
}

/// Whether a group stays on its link unless it is listed.
#[must_use]
pub fn is_link_scope(group: Ipv6Addr) -> bool {
    scope(group) == 2
}

/// Whether a group is source-specific: ff3x::/32 (RFC 4607 §1).
#[must_use]
pub fn is_source_specific(group: Ipv6Addr) -> bool {
    let [first, second, ..] = group.segments();
    first & 0xfff0 == 0xff30 && second == 0
}

/// Whether a message could configure hosts of another link: router and neighbour discovery with its
/// extensions, redirect, renumbering, MLD, multicast router discovery.
fn is_link_control(icmpv6_type: u8) -> bool {
    matches!(icmpv6_type, 130..=138 | 141..=143 | 148 | 149 | 151..=154)
}

/// The upper layer of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upper {
    /// A message of this type.
    Icmpv6(u8),
    Udp,
    /// Anything else, or a later fragment of ICMPv6: only the first one has its type.
    Other,
}

/// Follows the extension headers (RFC 8200 §4).
fn upper_layer(first_header: u8, r: Reader<'_>) -> Result<Upper, WireError> {
    match skip_extensions(first_header, r)? {
        // a fragment too short to show its type is refused: RFC 7112 §5
        (ICMPV6, Some(mut r)) => r.u8().map(Upper::Icmpv6),
        (UDP, _) => Ok(Upper::Udp),
        _ => Ok(Upper::Other),
    }
}

/// The protocol behind all extension headers, and its bytes; none in a later fragment.
fn skip_extensions(
    first_header: u8,
    mut r: Reader<'_>,
) -> Result<(u8, Option<Reader<'_>>), WireError> {
    let mut header = first_header;
    for _ in 0..MAX_EXTENSION_HEADERS {
        header = match header {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => {
                let next = r.u8()?;
                let units = usize::from(r.u8()?);
                r.take(units * 8 + 6)?;
                next
            }
            AUTHENTICATION => {
                let next = r.u8()?;
                let units = usize::from(r.u8()?);
                r.take(units * 4 + 6)?;
                next
            }
            FRAGMENT => {
                let next = r.u8()?;
                r.u8()?;
                let offset = r.u16()? >> 3;
                r.u32()?;
                if offset != 0 {
                    return Ok((next, None));
                }
                next
            }
            _ => return Ok((header, Some(r))),
        };
    }
    Err(WireError::Bad("extension headers"))
}

/// The protocol of a packet and its bytes; none in a later fragment, or if it cannot be read.
#[must_use]
pub fn protocol_of(packet: &[u8]) -> (u8, &[u8]) {
    match transport_of(packet) {
        Ok((protocol, bytes)) => (protocol, bytes.unwrap_or_default()),
        Err(_) => (NO_NEXT_HEADER, &[]),
    }
}

/// The protocol of a packet, and its bytes but in a later fragment.
///
/// # Errors
/// The headers do not end in this packet.
pub fn transport_of(packet: &[u8]) -> Result<(u8, Option<&[u8]>), WireError> {
    if is_ipv4(packet) {
        let header = Header::read(packet)?;
        let is_first = header.fragment_offset == 0;
        return Ok((header.protocol, is_first.then_some(header.payload)));
    }
    let mut r = Reader::new(packet);
    r.take(6)?;
    let first = r.u8()?;
    r.take(1 + 32)?;
    let (protocol, rest) = skip_extensions(first, r)?;
    Ok((protocol, rest.map(|rest| rest.rest())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{packet_with, udp_packet};

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const MDNS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

    fn group(first: u16) -> Ipv6Addr {
        Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0x99)
    }

    fn class_of(group: Ipv6Addr) -> Class {
        CarriedScopes::new(&[MDNS], true).classify(&udp_packet(SOURCE, group, b"x"))
    }

    #[test]
    fn to_all_nodes_goes_udp_alone_and_only_where_it_is_listed() {
        const UDP_FRAGMENT: [u8; 8] = [UDP, 0, 0, 8, 0, 0, 0, 1];
        let to_all =
            |header: u8, payload: &[u8]| packet_with(SOURCE, mld::ALL_NODES, header, payload);
        let listed = CarriedScopes::new(&[mld::ALL_NODES, mld::ALL_ROUTERS], true);
        let dropped = Class::Dropped(DropReason::ScopeNotCarried);
        for udp in [to_all(UDP, &[0; 8]), to_all(FRAGMENT, &UDP_FRAGMENT)] {
            assert!(matches!(listed.classify(&udp), Class::Carried(_)));
            assert_eq!(CarriedScopes::default().classify(&udp), dropped);
        }
        // an echo request, TCP, a later fragment of ICMPv6
        let fragment = [ICMPV6, 0, 0, 8, 0, 0, 0, 1];
        for other in [
            to_all(ICMPV6, &[128, 0, 0, 0]),
            to_all(6, &[0; 20]),
            to_all(FRAGMENT, &fragment),
        ] {
            assert_eq!(listed.classify(&other), dropped);
        }
        assert!(!listed.contains(mld::ALL_ROUTERS));
    }

    #[test]
    fn scopes() {
        for carried in [0xff05, 0xff08, 0xff0e, 0xff1e, 0xff3e, 0xff15, 0xff18] {
            let flow = Flow {
                source: SOURCE,
                group: group(carried),
            };
            assert_eq!(class_of(group(carried)), Class::Carried(flow));
        }
        for stays in [0xff00, 0xff01, 0xff02, 0xff12, 0xff03, 0xff04, 0xff0f] {
            assert_eq!(
                class_of(group(stays)),
                Class::Dropped(DropReason::ScopeNotCarried)
            );
        }
        assert_eq!(
            class_of(MDNS),
            Class::Carried(Flow {
                source: SOURCE,
                group: MDNS
            })
        );
        let flow = Flow {
            source: SOURCE,
            group: SOURCE,
        };
        assert_eq!(class_of(SOURCE), Class::Unicast(flow));
    }

    #[test]
    fn link_control_groups_are_not_carried_even_if_listed() {
        let interface_local = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 0xfb);
        let unicast = Ipv6Addr::new(0xfe02, 0, 0, 0, 0, 0, 0, 0xfb);
        let mut listed = NEVER_CARRIED.to_vec();
        listed.extend([interface_local, unicast]);
        let scopes = CarriedScopes::new(&listed, true);
        assert!(listed.iter().all(|g| !scopes.contains(*g)));
    }

    #[test]
    fn discovery_and_mld_are_never_carried_whatever_is_before_them() {
        let scopes = CarriedScopes::default();
        let options = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
        for kind in [133, 134, 135, 136, 137, 138, 141, 142, 151] {
            let icmp = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            let bare = packet_with(SOURCE, group(0xff1e), ICMPV6, &icmp);
            let behind = [options(DESTINATION_OPTIONS), options(ICMPV6), icmp.clone()].concat();
            let behind = packet_with(SOURCE, group(0xff1e), HOP_BY_HOP, &behind);
            let fragment = [vec![ICMPV6, 0, 0, 1, 0, 0, 0, 9], icmp].concat();
            let fragment = packet_with(SOURCE, group(0xff1e), FRAGMENT, &fragment);
            for packet in [bare, behind, fragment] {
                let class = scopes.classify(&packet);
                assert_eq!(
                    class,
                    Class::Dropped(DropReason::LinkControl),
                    "type {kind}"
                );
            }
        }
        for kind in [130, 131, 132, 143] {
            let packet = packet_with(SOURCE, group(0xff1e), ICMPV6, &[kind, 0, 0, 0]);
            assert_eq!(scopes.classify(&packet), Class::Mld);
        }
        let echo = packet_with(SOURCE, group(0xff1e), ICMPV6, &[128, 0, 0, 0]);
        assert!(
            matches!(scopes.classify(&echo), Class::Carried(_)),
            "ping is carried"
        );
    }

    #[test]
    fn fragments_are_carried_without_their_udp_header() {
        let scopes = CarriedScopes::default();
        for offset in [0u16, 8] {
            let [high, low] = (offset << 3 | 1).to_be_bytes();
            let payload = [17, 0, high, low, 0, 0, 0, 1, 1, 2, 3];
            let packet = packet_with(SOURCE, group(0xff1e), FRAGMENT, &payload);
            assert!(matches!(scopes.classify(&packet), Class::Carried(_)));
        }
        // a first fragment that hides its ICMPv6 type
        let packet = packet_with(
            SOURCE,
            group(0xff1e),
            FRAGMENT,
            &[ICMPV6, 0, 0, 1, 0, 0, 0, 1],
        );
        assert_eq!(
            scopes.classify(&packet),
            Class::Dropped(DropReason::Malformed)
        );
    }

    #[test]
    fn malformed_packets() {
        let scopes = CarriedScopes::default();
        let good = udp_packet(SOURCE, group(0xff1e), b"hello");
        for len in [0, 1, 39, good.len() - 1] {
            assert_eq!(
                scopes.classify(&good[..len]),
                Class::Dropped(DropReason::Malformed)
            );
        }
        let mut longer = good.clone();
        longer.extend([0; 7]);
        assert!(matches!(scopes.classify(&longer), Class::Carried(_)));
        let mut trimmed = Bytes::from(longer);
        trim(&mut trimmed);
        assert_eq!(trimmed, good);
        let mut version_4 = good.clone();
        version_4[0] = 0x45;
        assert_eq!(
            scopes.classify(&version_4),
            Class::Dropped(DropReason::Malformed)
        );
        let from_group = udp_packet(group(0xff1e), group(0xff1e), b"x");
        assert_eq!(
            scopes.classify(&from_group),
            Class::Dropped(DropReason::Malformed)
        );
        let chain = [DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0].repeat(40);
        let endless = packet_with(SOURCE, group(0xff1e), DESTINATION_OPTIONS, &chain);
        assert_eq!(
            scopes.classify(&endless),
            Class::Dropped(DropReason::Malformed)
        );
    }

    #[test]
    fn source_specific_range() {
        assert!(is_source_specific(group(0xff3e)));
        assert!(!is_source_specific(group(0xff1e)));
        assert!(!is_source_specific(Ipv6Addr::new(
            0xff3e, 1, 0, 0, 0, 0, 0, 1
        )));
    }

    const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
    const STREAM: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

    fn ipv4_packet(to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        ipv4_from(HOST, to, protocol, payload)
    }

    fn ipv4_from(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let ttl = 1;
        let envelope = ipv4::Envelope {
            source,
            destination,
            protocol,
            ttl,
        };
        ipv4::packet(&envelope, payload)
    }

    /// With another 16 bits of flags and fragment offset.
    fn fragment(mut packet: Vec<u8>, bits: u16) -> Vec<u8> {
        packet[6..8].copy_from_slice(&bits.to_be_bytes());
        packet[10..12].fill(0);
        let sum = librecast::checksum::Sum::default()
            .bytes(&packet[..20])
            .fold();
        packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
        packet
    }

    #[test]
    fn ipv4_goes_by_the_names_of_its_addresses() {
        let mdns = Ipv4Addr::new(224, 0, 0, 251);
        let listed = [mapped::name(mdns), mapped::name(igmp::ALL_SYSTEMS)];
        let scopes = CarriedScopes::new(&listed, true);
        let flow = |to| Flow {
            source: mapped::name(HOST),
            group: mapped::name(to),
        };
        for to in [STREAM, Ipv4Addr::new(232, 1, 1, 1), mdns, igmp::ALL_SYSTEMS] {
            let packet = ipv4_packet(to, ipv4::UDP, &[0; 8]);
            assert_eq!(scopes.classify(&packet), Class::Carried(flow(to)));
            assert_eq!(flow_of(&packet), Some(flow(to)));
            let off = CarriedScopes::new(&listed, false).classify(&packet);
            assert_eq!(off, Class::Dropped(DropReason::Malformed));
        }
        let node = Ipv4Addr::new(10, 77, 3, 4);
        let unicast = ipv4_packet(node, 6, &[0; 20]);
        assert_eq!(scopes.classify(&unicast), Class::Unicast(flow(node)));
        // later fragments show their protocol
        let later = fragment(ipv4_packet(STREAM, ipv4::UDP, b"x"), 185);
        assert_eq!(scopes.classify(&later), Class::Carried(flow(STREAM)));
    }

    #[test]
    fn ipv4_that_configures_hosts_or_is_for_all_of_them_stays() {
        let scopes = CarriedScopes::new(&NEVER_CARRIED_IPV4.map(mapped::name), true);
        let dropped = |packet: &[u8]| match scopes.classify(packet) {
            Class::Dropped(reason) => reason,
            other => panic!("{other:?}"),
        };
        for all in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 77, 255, 255)] {
            let packet = ipv4_packet(all, ipv4::UDP, &[0; 8]);
            assert_eq!(dropped(&packet), DropReason::Broadcast);
        }
        for kind in ICMP_LINK_CONTROL {
            let packet = ipv4_packet(STREAM, ipv4::ICMP, &[kind, 0, 0, 0]);
            assert_eq!(dropped(&packet), DropReason::LinkControl);
        }
        assert_eq!(
            dropped(&ipv4_packet(STREAM, ipv4::PIM, b"x")),
            DropReason::LinkControl
        );
        let echo = ipv4_packet(STREAM, ipv4::ICMP, &[8, 0, 0, 0]);
        assert!(
            matches!(scopes.classify(&echo), Class::Carried(_)),
            "ping is carried"
        );
        for group in NEVER_CARRIED_IPV4 {
            let packet = ipv4_packet(group, ipv4::UDP, &[0; 8]);
            assert_eq!(dropped(&packet), DropReason::ScopeNotCarried);
        }
        let ping = ipv4_packet(igmp::ALL_SYSTEMS, ipv4::ICMP, &[8, 0, 0, 0]);
        assert_eq!(dropped(&ping), DropReason::ScopeNotCarried);
        let igmp = ipv4_from(Ipv4Addr::UNSPECIFIED, STREAM, ipv4::IGMP, &[0; 8]);
        assert_eq!(scopes.classify(&igmp), Class::Mld);
        let hidden = ipv4_packet(STREAM, ipv4::ICMP, b"");
        assert_eq!(dropped(&hidden), DropReason::Malformed);
    }

    #[test]
    fn ipv4_from_nobody_and_on_a_chosen_path_is_malformed() {
        let scopes = CarriedScopes::ON_LINKS;
        let malformed = Class::Dropped(DropReason::Malformed);
        for source in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
        ] {
            let packet = ipv4_from(source.parse().unwrap(), STREAM, ipv4::UDP, &[0; 8]);
            assert_eq!(scopes.classify(&packet), malformed, "{source}");
        }
        let mut routed = ipv4_packet(STREAM, ipv4::UDP, &[0; 8]);
        routed.splice(20..20, [131, 3, 4, 0]);
        routed[0] = 0x46;
        routed[3] += 4;
        let header = &mut routed[..24];
        header[10..12].fill(0);
        let sum = librecast::checksum::Sum::default().bytes(header).fold();
        header[10..12].copy_from_slice(&(!sum).to_be_bytes());
        assert!(Header::read(&routed).is_ok());
        assert_eq!(scopes.classify(&routed), malformed);
        let mut longer = ipv4_packet(STREAM, ipv4::UDP, &[0; 8]);
        let whole = longer.clone();
        longer.extend([7; 9]);
        let mut trimmed = Bytes::from(longer);
        trim(&mut trimmed);
        assert_eq!(trimmed, whole);
    }

    #[test]
    fn names_of_ipv4_groups_are_for_no_ipv6_packet() {
        let scopes = CarriedScopes::ON_LINKS;
        let reserved = Class::Dropped(DropReason::ReservedGroup);
        for group in [
            "ff1e::ffff:239.1.2.3",
            "ff12::ffff:224.0.0.251",
            "ff3e::ffff:1.2.3.4",
            "::ffff:10.1.2.3",
        ] {
            let packet = udp_packet(SOURCE, group.parse().unwrap(), b"x");
            assert_eq!(scopes.classify(&packet), reserved, "{group}");
        }
        let from = udp_packet(mapped::name(HOST), group(0xff1e), b"x");
        assert_eq!(
            scopes.classify(&from),
            Class::Dropped(DropReason::Malformed)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let scopes = CarriedScopes::new(&[MDNS], true);
            let _ = scopes.classify(&bytes);
            for protocol in [ipv4::ICMP, ipv4::IGMP, ipv4::UDP] {
                let _ = scopes.classify(&ipv4_packet(STREAM, protocol, &bytes));
            }
            trim(&mut Bytes::copy_from_slice(&bytes));
            for next_header in [HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, ICMPV6] {
                let packet = packet_with(SOURCE, group(0xff1e), next_header, &bytes);
                let _ = scopes.classify(&packet);
            }
        }
    }
}
