//! Packets that stay on their LAN: routers, DHCP, and the links of this network itself.

use std::net::{Ipv4Addr, Ipv6Addr};

use librecast::mapped;
use librecast::wire::{Reader, WireError};
use librecast::{ipv4, ipv6};

use crate::classify::{CarriedScopes, Class, flow_of, protocol_of, transport_of};
use crate::drops::DropReason;

/// Next header of UDP.
const UDP: u8 = ipv4::UDP;
/// Protocols among routers: IGMP, EIGRP, OSPF, PIM, VRRP.
const ROUTING_PROTOCOLS: [u8; 5] = [ipv4::IGMP, 88, 89, ipv4::PIM, 112];
/// UDP ports of routers and address servers: DHCP, RIP, RIPng, DHCPv6, HSRP, GLBP, PCP.
const ROUTER_PORTS: [u16; 11] = [
    67, 68, 520, 521, 546, 547, 1_985, 2_029, 3_222, 5_350, 5_351,
];
/// UDP port of SSDP.
const SSDP: u16 = 1_900;
/// UDP port of multicast DNS.
const MDNS: u16 = 5_353;
/// UDP port of the gateways' PROBEs.
const PROBE: u16 = 7_118;
/// Devices and services of Internet routers, in SSDP (UPnP InternetGatewayDevice).
const GATEWAY_DEVICES: [&[u8]; 3] = [b"InternetGatewayDevice", b":device:WAN", b":service:WAN"];
/// The beginning of an answer of SSDP (UPnP Device Architecture 2.0 §1.3.3), from any port.
const SSDP_ANSWER: &[u8] = b"HTTP/1.1 200";
/// ICMPv6 type Router Advertisement (RFC 4861 §4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;
/// UDP port of DHCP servers (RFC 2131 §4.1), whose first byte is 0.
const DHCP_SERVER: u8 = 67;
/// Offset of the options in a message of DHCP, behind the magic cookie (RFC 2131 §3).
const DHCP_OPTIONS: usize = 240;
/// Padding between options of DHCP (RFC 2132 §3.1).
const DHCP_PAD: u8 = 0;
/// DHCP option of routers (RFC 2132 §3.5).
const DHCP_ROUTERS: u8 = 3;
/// End of the options of DHCP (RFC 2132 §3.2).
const DHCP_END: u8 = 255;
/// Most routers that are read from a message of DHCP. Chosen: a LAN has one, seldom two.
const MAX_DHCP_ROUTERS: usize = 4;
/// The service of this network in DNS-SD.
const OWN_SERVICE: &[u8] = b"\x08_lcroute\x04_udp";
/// Magic cookie of STUN (RFC 8489 §5).
const STUN_COOKIE: u32 = 0x2112_a442;
/// Type of a STUN binding request (RFC 8489 §5).
const STUN_REQUEST: u16 = 0x0001;
/// STUN attribute (RFC 8489 §14.3).
const STUN_USERNAME: u16 = 0x0006;
/// Bytes of our USERNAME: two user fragments of 16 letters, and a colon. Pion has the same.
const USERNAME_LEN: usize = 16 + 1 + 16;
/// STUN attribute GOOG-NETWORK-INFO, and the value in checks of this network's nodes, which have
/// the form of a browser's: browsers have shorter user fragments, other programs lack the attribute.
const STUN_NETWORK_INFO: (u16, &[u8]) = (0xc057, &[0, 0, 0x03, 0xe7]);

/// Whether a packet to this address crosses to the other LANs of a segment. `by_router`: whether a
/// router of this LAN sent it.
pub fn crosses(
    packet: &[u8],
    to: Ipv6Addr,
    by_router: impl Fn() -> bool,
) -> Result<(), DropReason> {
    // what a later fragment completes cannot be judged (RFC 7112 §5)
    let (protocol, payload) = transport_of(packet).map_err(|_| DropReason::Malformed)?;
    if ROUTING_PROTOCOLS.contains(&protocol) || is_to_many(to) && by_router() {
        return Err(DropReason::SegmentRouter);
    }
    if let Some(payload) = payload.filter(|_| protocol == UDP) {
        datagram_crosses(payload, by_router)?;
    }
    match CarriedScopes::ON_LINKS.classify(packet) {
        Class::Mld | Class::Dropped(DropReason::LinkControl) => Err(DropReason::SegmentRouter),
        Class::Dropped(DropReason::Malformed) => Err(DropReason::Malformed),
        // an echo request to all would be answered by all
        Class::Dropped(DropReason::ScopeNotCarried) if !is_small_scope(packet) => {
            Err(DropReason::ScopeNotCarried)
        }
        _ => Ok(()),
    }
}

/// Whether it is for a group, or for all hosts of most subnets.
fn is_to_many(to: Ipv6Addr) -> bool {
    match mapped::ipv4(to) {
        Some(to) => to.is_multicast() || to.octets()[3] == u8::MAX,
        None => to.is_multicast(),
    }
}

/// The routers that a packet of this LAN shows: the sender of a Router Advertisement (RFC 4861
/// §4.2), or those in a DHCP server's message (RFC 2132 §3.5).
pub fn routers_in(packet: &[u8]) -> Vec<Ipv6Addr> {
    let (protocol, payload) = protocol_of(packet);
    match (protocol, payload) {
        (ipv6::ICMPV6, [ROUTER_ADVERTISEMENT, _, _, _, _, _, a, b, ..]) if (*a, *b) != (0, 0) => {
            flow_of(packet)
                .map(|flow| flow.source)
                .into_iter()
                .collect()
        }
        (UDP, [0, DHCP_SERVER, _, _, _, _, _, _, message @ ..]) => {
            let options = message.get(DHCP_OPTIONS..).unwrap_or_default();
            routers_of_dhcp(options).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn routers_of_dhcp(options: &[u8]) -> Result<Vec<Ipv6Addr>, WireError> {
    let mut r = Reader::new(options);
    loop {
        match r.u8()? {
            DHCP_PAD => {}
            DHCP_END => return Ok(Vec::new()),
            code => {
                let length = usize::from(r.u8()?);
                let (routers, _) = r.take(length)?.as_chunks::<4>();
                if code == DHCP_ROUTERS {
                    let routers = routers.iter().take(MAX_DHCP_ROUTERS);
                    return Ok(routers.map(|r| mapped::name(Ipv4Addr::from(*r))).collect());
                }
            }
        }
    }
}

/// Whether it is for an IPv6 group of scope 3 or 4, which a segment carries.
fn is_small_scope(packet: &[u8]) -> bool {
    let group = flow_of(packet).map(|flow| flow.group);
    group.is_some_and(
        |group| matches!(group.octets(), [0xff, second, ..] if matches!(second & 0xf, 3 | 4)),
    )
}

fn datagram_crosses(udp: &[u8], by_router: impl Fn() -> bool) -> Result<(), DropReason> {
    let (head, data) = udp.split_first_chunk::<8>().ok_or(DropReason::Malformed)?;
    let ports = [0, 2].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
    if ports.iter().any(|port| ROUTER_PORTS.contains(port)) {
        return Err(DropReason::SegmentRouter);
    }
    let is_ssdp = ports.contains(&SSDP);
    let is_named = || is_ssdp && GATEWAY_DEVICES.iter().any(|name| contains(data, name));
    if (is_ssdp || data.starts_with(SSDP_ANSWER)) && by_router() || is_named() {
        return Err(DropReason::SegmentRouter);
    }
    let is_own_name = ports.contains(&MDNS) && contains(data, OWN_SERVICE);
    if ports[1] == PROBE || is_own_name || is_own_check(data) {
        return Err(DropReason::SegmentOwnLink);
    }
    Ok(())
}

/// Whether it is a datagram from or to one of these UDP ports.
pub fn has_port(packet: &[u8], ports: &[u16]) -> bool {
    let (protocol, udp) = protocol_of(packet);
    let ports_of = udp.first_chunk::<4>().filter(|_| protocol == UDP);
    ports_of.is_some_and(|[a, b, c, d]| {
        let of_packet = [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])];
        of_packet.iter().any(|port| ports.contains(port))
    })
}

fn contains(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

/// Whether it is an ICE check between two nodes of this network.
fn is_own_check(data: &[u8]) -> bool {
    has_own_attributes(data).unwrap_or_default()
}

/// Whether it is a STUN binding request with the USERNAME and the network of our checks.
fn has_own_attributes(data: &[u8]) -> Result<bool, WireError> {
    let mut r = Reader::new(data);
    let (kind, length, cookie) = (r.u16()?, usize::from(r.u16()?), r.u32()?);
    r.take(12)?;
    if (kind, cookie) != (STUN_REQUEST, STUN_COOKIE) {
        return Ok(false);
    }
    let (mut has_name, mut has_network) = (false, false);
    let mut r = Reader::new(r.take(length)?);
    while !r.is_empty() {
        let (kind, length) = (r.u16()?, usize::from(r.u16()?));
        let value = r.take(length)?;
        r.take(length.next_multiple_of(4) - length)?;
        has_name |= (kind, length) == (STUN_USERNAME, USERNAME_LEN);
        has_network |= (kind, value) == STUN_NETWORK_INFO;
    }
    Ok(has_name && has_network)
}

#[cfg(test)]
mod tests {
    use librecast::ipv4::{Envelope, packet, udp_packet};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::packet_with;

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);
    const SSDP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
    const FE80: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const AT_HOME: Result<(), DropReason> = Err(DropReason::SegmentRouter);
    const OWN_LINK: Result<(), DropReason> = Err(DropReason::SegmentOwnLink);

    fn crosses(packet: &[u8], by_router: bool) -> Result<(), DropReason> {
        let flow = flow_of(packet).ok_or(DropReason::Malformed)?;
        super::crosses(packet, flow.group, || by_router)
    }

    fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16, data: &[u8]) -> Result<(), DropReason> {
        crosses(&udp_packet(from, to, (port, 4), data), false)
    }

    fn of_protocol(protocol: u8, data: &[u8]) -> Result<(), DropReason> {
        let envelope = Envelope {
            source: HOST,
            destination: SSDP_GROUP,
            protocol,
            ttl: 1,
        };
        crosses(&packet(&envelope, data), false)
    }

    #[test]
    fn routers_and_address_servers_stay_at_home() {
        let all = Ipv4Addr::BROADCAST;
        for port in [67, 68, 520, 1_985, 5_350] {
            assert_eq!(udp(HOST, all, port, b"x"), AT_HOME, "{port}");
            let ipv6 = ipv6::udp_packet(FE80, ALL, (port, 1), b"x");
            assert_eq!(crosses(&ipv6, false), AT_HOME, "{port}");
        }
        for protocol in [2, 89, 103, 112] {
            assert_eq!(of_protocol(protocol, &[0; 8]), AT_HOME, "{protocol}");
        }
        for redirect in [5, 9, 10] {
            assert_eq!(of_protocol(1, &[redirect, 0, 0, 0]), AT_HOME, "{redirect}");
        }
        for kind in [130, 133, 134, 135, 136, 137, 143, 151] {
            let packet = ipv6::icmpv6_packet(FE80, ALL, 255, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(crosses(&packet, false), AT_HOME, "{kind}");
        }
        assert_eq!(udp(HOST, all, 9, b"magic"), Ok(()));
        assert_eq!(of_protocol(1, &[8, 0, 0, 0]), Ok(()));
    }

    #[test]
    fn dhcpv6_behind_options_stays_at_home() {
        let mut behind = vec![17, 0, 1, 4, 0, 0, 0, 0];
        behind.extend([2, 0x23, 2, 0x22, 0, 9, 0, 0, 1]);
        let hidden = packet_with(FE80, ALL, 60, &behind);
        assert_eq!(crosses(&hidden, false), AT_HOME);
    }

    #[test]
    fn ssdp_of_internet_routers_stays_at_home_and_that_of_players_crosses() {
        let router = b"NT: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n";
        let service = b"ST: urn:schemas-upnp-org:service:WANIPConnection:1\r\n";
        let player = b"NT: urn:schemas-upnp-org:device:MediaServer:1\r\n";
        assert_eq!(udp(HOST, SSDP_GROUP, 1_900, router), AT_HOME);
        assert_eq!(udp(HOST, SSDP_GROUP, 1_900, service), AT_HOME);
        assert_eq!(udp(HOST, SSDP_GROUP, 1_900, player), Ok(()));
        assert_eq!(udp(HOST, HOST, 8_000, router), Ok(()), "no SSDP");
    }

    #[test]
    fn nothing_that_a_router_tells_all_or_says_by_ssdp_crosses() {
        let by_router =
            |to, port, data: &[u8]| crosses(&udp_packet(HOST, to, (port, 4), data), true);
        let notify = b"NT: uuid:1\r\nUSN: urn:schemas-wifialliance-org:device:WFADevice:1\r\n";
        for to in [
            SSDP_GROUP,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(192, 168, 1, 255),
        ] {
            assert_eq!(by_router(to, 1_900, notify), AT_HOME, "{to}");
            assert_eq!(by_router(to, 5_353, b"any"), AT_HOME, "{to}");
        }
        assert_eq!(by_router(HOST, 1_900, notify), AT_HOME);
        assert_eq!(
            by_router(HOST, 40_000, b"HTTP/1.1 200 OK\r\nST: any\r\n"),
            AT_HOME
        );
        assert_eq!(by_router(HOST, 53, b"an answer to a question"), Ok(()));
        assert_eq!(udp(HOST, SSDP_GROUP, 1_900, notify), Ok(()), "of a host");
    }

    #[test]
    fn routers_are_known_by_their_advertisements_and_by_dhcp() {
        let advertisement = |lifetime| {
            let message = [134, 0, 0, 0, 64, 0, 0, lifetime, 0, 0, 0, 0, 0, 0, 0, 0];
            ipv6::icmpv6_packet(FE80, ALL, 255, &message)
        };
        assert_eq!(routers_in(&advertisement(9)), [FE80]);
        assert_eq!(
            routers_in(&advertisement(0)),
            [FE80; 0],
            "no default router"
        );
        let mut offer = vec![0; DHCP_OPTIONS];
        offer.extend([53, 1, 2, 0, 3, 8, 10, 0, 0, 1, 10, 0, 0, 2, 255]);
        let offer = udp_packet(HOST, Ipv4Addr::BROADCAST, (67, 64), &offer);
        let expected = [1, 2].map(|n| mapped::name(Ipv4Addr::new(10, 0, 0, n)));
        assert_eq!(routers_in(&offer), expected);
        for len in 0..offer.len() {
            assert!(routers_in(&offer[..len]).len() <= 2);
        }
    }

    #[test]
    fn a_first_fragment_without_its_ports_crosses_in_neither_family() {
        let refused = Err(DropReason::Malformed);
        // DHCPv6 behind options that end in the next fragment, and an UDP header that does
        let fragment = |next: u8, rest: &[u8]| {
            let head = [next, 0, 0, 1, 0, 0, 0, 9];
            packet_with(FE80, ALL, 44, &[&head[..], rest].concat())
        };
        assert_eq!(
            crosses(&fragment(60, &[17, 4, 1, 4, 0, 0, 0, 0]), false),
            refused
        );
        assert_eq!(crosses(&fragment(17, &[2, 0x23, 2]), false), refused);
        assert_eq!(of_protocol(17, &[0, 67, 0]), refused);
        let later = [17, 0, 0, 9, 0, 0, 0, 9];
        assert_eq!(crosses(&packet_with(FE80, ALL, 44, &later), false), Ok(()));
    }

    /// A STUN binding request with a USERNAME of this length, and perhaps our network.
    fn check(username: usize, has_network: bool) -> Vec<u8> {
        let mut attributes = STUN_USERNAME.to_be_bytes().to_vec();
        attributes.extend((username as u16).to_be_bytes());
        attributes.extend(vec![b'a'; username.next_multiple_of(4)]);
        if has_network {
            let (kind, value) = STUN_NETWORK_INFO;
            attributes.extend(kind.to_be_bytes());
            attributes.extend((value.len() as u16).to_be_bytes());
            attributes.extend(value);
        }
        let mut stun = STUN_REQUEST.to_be_bytes().to_vec();
        stun.extend((attributes.len() as u16).to_be_bytes());
        stun.extend(STUN_COOKIE.to_be_bytes());
        stun.extend([7; 12]);
        stun.extend(attributes);
        stun
    }

    #[test]
    fn links_of_this_network_do_not_lead_through_a_segment() {
        let of = |username, has_network| udp(HOST, HOST, 40_000, &check(username, has_network));
        assert_eq!(of(USERNAME_LEN, true), OWN_LINK);
        assert_eq!(of(9, true), Ok(()), "of a browser");
        assert_eq!(of(USERNAME_LEN, false), Ok(()), "of Pion");
        let name = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x08_lcroute\x04_udp\x05local\0";
        assert_eq!(udp(HOST, SSDP_GROUP, 5_353, name), OWN_LINK);
        let probe = ipv6::udp_packet(FE80, ALL, (PROBE, 255), b"PROBE");
        assert_eq!(crosses(&probe, false), OWN_LINK);
    }

    #[test]
    fn small_ipv6_scopes_cross_and_echo_requests_to_all_do_not() {
        for group in ["ff03::1:9", "ff04::9", "ff02::fb", "ff05::9"] {
            let packet = ipv6::udp_packet(FE80, group.parse().unwrap(), (9, 1), b"x");
            assert_eq!(crosses(&packet, false), Ok(()), "{group}");
        }
        let echo = ipv6::icmpv6_packet(FE80, ALL, 64, &[128, 0, 0, 0]);
        assert_eq!(crosses(&echo, false), Err(DropReason::ScopeNotCarried));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), port in 1_899u16..1_901) {
            let _ = crosses(&bytes, false);
            let _ = udp(HOST, SSDP_GROUP, port, &bytes);
            let _ = has_own_attributes(&bytes);
        }
    }
}
