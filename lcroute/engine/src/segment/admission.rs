//! Packets that stay on their LAN: routers, DHCP, and the links of this network itself.

use std::net::{IpAddr, Ipv6Addr};

use librecast::ipv4;
use librecast::mapped;
use librecast::wire::{Reader, WireError};

use crate::classify::{CarriedScopes, Class, flow_of, protocol_of};
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
/// The name of any device, which a router has as well.
const ROOT_DEVICE: &[u8] = b"rootdevice";
/// The service of this network in DNS-SD.
const OWN_SERVICE: &[u8] = b"\x08_lcroute\x04_udp";
/// Magic cookie of STUN (RFC 8489 §5).
const STUN_COOKIE: u32 = 0x2112_a442;
/// Type of a STUN binding request (RFC 8489 §5).
const STUN_REQUEST: u16 = 0x0001;
/// STUN attribute (RFC 8489 §14.3).
const STUN_USERNAME: u16 = 0x0006;
/// Bytes of our USERNAME: two user fragments of 16 letters, and a colon.
const USERNAME_LEN: usize = 16 + 1 + 16;

/// Whether a packet crosses to the other LANs of a segment. `routers`: the default routers of its
/// sender's LAN, if this is that LAN.
pub fn crosses(packet: &[u8], routers: &[IpAddr]) -> Result<(), DropReason> {
    let (protocol, payload) = protocol_of(packet);
    if ROUTING_PROTOCOLS.contains(&protocol) {
        return Err(DropReason::SegmentRouter);
    }
    if protocol == UDP {
        datagram_crosses(packet, payload, routers)?;
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

/// Whether it is for an IPv6 group of scope 3 or 4, which a segment carries.
fn is_small_scope(packet: &[u8]) -> bool {
    let group = flow_of(packet).map(|flow| flow.group);
    group.is_some_and(
        |group| matches!(group.octets(), [0xff, second, ..] if matches!(second & 0xf, 3 | 4)),
    )
}

fn datagram_crosses(packet: &[u8], udp: &[u8], routers: &[IpAddr]) -> Result<(), DropReason> {
    let Some((head, data)) = udp.split_first_chunk::<8>() else {
        return Ok(());
    };
    let ports = [0, 2].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
    if ports.iter().any(|port| ROUTER_PORTS.contains(port)) {
        return Err(DropReason::SegmentRouter);
    }
    if ports.contains(&SSDP) && is_of_router(packet, data, routers) {
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

/// Whether SSDP names an Internet router, or comes from this LAN's.
fn is_of_router(packet: &[u8], data: &[u8], routers: &[IpAddr]) -> bool {
    let source = flow_of(packet).map_or(Ipv6Addr::UNSPECIFIED, |flow| flow.source);
    GATEWAY_DEVICES.iter().any(|name| contains(data, name))
        || routers.contains(&mapped::shown(source)) && contains(data, ROOT_DEVICE)
}

fn contains(data: &[u8], part: &[u8]) -> bool {
    data.windows(part.len()).any(|window| window == part)
}

/// Whether it is an ICE check between two nodes of this network.
fn is_own_check(data: &[u8]) -> bool {
    username_len(data).is_ok_and(|len| len == Some(USERNAME_LEN))
}

/// The length of the USERNAME in a STUN binding request.
fn username_len(data: &[u8]) -> Result<Option<usize>, WireError> {
    let mut r = Reader::new(data);
    let (kind, length, cookie) = (r.u16()?, usize::from(r.u16()?), r.u32()?);
    r.take(12)?;
    if (kind, cookie) != (STUN_REQUEST, STUN_COOKIE) {
        return Ok(None);
    }
    let mut r = Reader::new(r.take(length)?);
    while !r.is_empty() {
        let (kind, length) = (r.u16()?, usize::from(r.u16()?));
        r.take(length.next_multiple_of(4))?;
        if kind == STUN_USERNAME {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use librecast::ipv4::{Envelope, packet, udp_packet};
    use librecast::ipv6;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::packet_with;

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
    const SSDP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
    const FE80: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const AT_HOME: Result<(), DropReason> = Err(DropReason::SegmentRouter);
    const OWN_LINK: Result<(), DropReason> = Err(DropReason::SegmentOwnLink);

    fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16, data: &[u8]) -> Result<(), DropReason> {
        crosses(&udp_packet(from, to, (port, 4), data), &[ROUTER.into()])
    }

    fn of_protocol(protocol: u8, data: &[u8]) -> Result<(), DropReason> {
        let envelope = Envelope {
            source: HOST,
            destination: SSDP_GROUP,
            protocol,
            ttl: 1,
        };
        crosses(&packet(&envelope, data), &[])
    }

    #[test]
    fn routers_and_address_servers_stay_at_home() {
        let all = Ipv4Addr::BROADCAST;
        for port in [67, 68, 520, 1_985, 5_350] {
            assert_eq!(udp(HOST, all, port, b"x"), AT_HOME, "{port}");
            let ipv6 = ipv6::udp_packet(FE80, ALL, (port, 1), b"x");
            assert_eq!(crosses(&ipv6, &[]), AT_HOME, "{port}");
        }
        for protocol in [2, 89, 103, 112] {
            assert_eq!(of_protocol(protocol, &[0; 8]), AT_HOME, "{protocol}");
        }
        for redirect in [5, 9, 10] {
            assert_eq!(of_protocol(1, &[redirect, 0, 0, 0]), AT_HOME, "{redirect}");
        }
        for kind in [130, 133, 134, 135, 136, 137, 143, 151] {
            let packet = ipv6::icmpv6_packet(FE80, ALL, 255, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(crosses(&packet, &[]), AT_HOME, "{kind}");
        }
        assert_eq!(udp(HOST, all, 9, b"magic"), Ok(()));
        assert_eq!(of_protocol(1, &[8, 0, 0, 0]), Ok(()));
    }

    #[test]
    fn dhcpv6_behind_options_stays_at_home() {
        let mut behind = vec![17, 0, 1, 4, 0, 0, 0, 0];
        behind.extend([2, 0x23, 2, 0x22, 0, 9, 0, 0, 1]);
        let hidden = packet_with(FE80, ALL, 60, &behind);
        assert_eq!(crosses(&hidden, &[]), AT_HOME);
    }

    #[test]
    fn ssdp_of_internet_routers_stays_at_home_and_that_of_players_crosses() {
        let router = b"NT: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n";
        let service = b"ST: urn:schemas-upnp-org:service:WANIPConnection:1\r\n";
        let player = b"NT: urn:schemas-upnp-org:device:MediaServer:1\r\n";
        let any = b"NT: upnp:rootdevice\r\n";
        assert_eq!(udp(HOST, SSDP_GROUP, 1_900, router), AT_HOME);
        assert_eq!(udp(HOST, SSDP_GROUP, 1_900, service), AT_HOME);
        assert_eq!(udp(HOST, SSDP_GROUP, 1_900, player), Ok(()));
        assert_eq!(udp(HOST, SSDP_GROUP, 1_900, any), Ok(()));
        assert_eq!(udp(ROUTER, SSDP_GROUP, 1_900, any), AT_HOME);
        assert_eq!(udp(HOST, HOST, 8_000, router), Ok(()), "no SSDP");
    }

    /// A STUN binding request with a USERNAME of this length.
    fn check(username: usize) -> Vec<u8> {
        let padded = username.next_multiple_of(4);
        let mut stun = vec![0, 1];
        stun.extend((4 + padded as u16).to_be_bytes());
        stun.extend(STUN_COOKIE.to_be_bytes());
        stun.extend([7; 12]);
        stun.extend(STUN_USERNAME.to_be_bytes());
        stun.extend((username as u16).to_be_bytes());
        stun.extend(vec![b'a'; padded]);
        stun
    }

    #[test]
    fn links_of_this_network_do_not_lead_through_a_segment() {
        assert_eq!(udp(HOST, HOST, 40_000, &check(USERNAME_LEN)), OWN_LINK);
        assert_eq!(udp(HOST, HOST, 40_000, &check(9)), Ok(()), "of a browser");
        let name = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x08_lcroute\x04_udp\x05local\0";
        assert_eq!(udp(HOST, SSDP_GROUP, 5_353, name), OWN_LINK);
        let probe = ipv6::udp_packet(FE80, ALL, (PROBE, 255), b"PROBE");
        assert_eq!(crosses(&probe, &[]), OWN_LINK);
    }

    #[test]
    fn small_ipv6_scopes_cross_and_echo_requests_to_all_do_not() {
        for group in ["ff03::1:9", "ff04::9", "ff02::fb", "ff05::9"] {
            let packet = ipv6::udp_packet(FE80, group.parse().unwrap(), (9, 1), b"x");
            assert_eq!(crosses(&packet, &[]), Ok(()), "{group}");
        }
        let echo = ipv6::icmpv6_packet(FE80, ALL, 64, &[128, 0, 0, 0]);
        assert_eq!(crosses(&echo, &[]), Err(DropReason::ScopeNotCarried));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), port in 1_899u16..1_901) {
            let _ = crosses(&bytes, &[]);
            let _ = udp(HOST, SSDP_GROUP, port, &bytes);
            let _ = username_len(&bytes);
        }
    }
}
