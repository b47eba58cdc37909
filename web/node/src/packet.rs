//! Packets of groups, as the page gets them; groups, as users write them.

use std::net::{IpAddr, Ipv6Addr};

use lcroute_node::is_sealed;
use librecast::ipv6::Datagram;
use librecast::{ipv4, mapped};

use crate::command::Command;

/// Bytes of a datagram from the page: the payload of a packet of 1,280 bytes, as of hosts.
pub const MAX_DATA: usize = 1_280 - 48;
/// Hop limit of the page's packets. Chosen: as most hosts.
pub const HOP_LIMIT: u8 = 64;

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?))
}

/// The group of an IPv6 packet.
pub fn ipv6_group(packet: &[u8]) -> Option<Ipv6Addr> {
    match packet.first()? >> 4 {
        6 => address(packet, 24),
        _ => None,
    }
}

/// The source of an IPv6 packet.
pub fn ipv6_source(packet: &[u8]) -> Option<Ipv6Addr> {
    address(packet, 8)
}

/// Returns the page's part of a packet; nothing of groups that it has not joined. Fragments are
/// not reassembled.
pub fn delivered(packet: &[u8], has_joined: impl Fn(Ipv6Addr) -> bool) -> Option<Command> {
    if let Ok(header) = ipv4::Header::read(packet) {
        return of_ipv4(&header).filter(|_| has_joined(mapped::name(header.destination)));
    }
    let (source, group) = (ipv6_source(packet)?, ipv6_group(packet)?);
    if !has_joined(group) {
        return None;
    }
    if is_sealed(packet) {
        return Some(Command::Sealed { source, group });
    }
    let datagram = Datagram::of_packet(packet)?;
    Some(Command::Datagram {
        source: source.into(),
        group: group.into(),
        port: datagram.destination_port,
        data: datagram.data.to_vec(),
    })
}

fn of_ipv4(header: &ipv4::Header<'_>) -> Option<Command> {
    let is_whole = header.protocol == ipv4::UDP && !header.is_fragment;
    let udp = header.payload.split_first_chunk::<8>();
    let (&[_, _, high, low, ..], data) = udp.filter(|_| is_whole)?;
    Some(Command::Datagram {
        source: header.source.into(),
        group: header.destination.into(),
        port: u16::from_be_bytes([high, low]),
        data: data.to_vec(),
    })
}

/// Parses a group that reaches other nodes; an IPv4 group becomes its name.
pub fn carried(text: &str) -> Result<Ipv6Addr, String> {
    let group: IpAddr = text.trim().parse().map_err(|_| {
        format!("{text} is no IP address. A group looks like ff1e::42, or 239.1.2.3.")
    })?;
    let group = match group {
        IpAddr::V6(group) => group,
        IpAddr::V4(group) if !group.is_multicast() => {
            return Err(format!(
                "{group} is no group: groups of IPv4 are those from 224.0.1.0 to 239.255.255.255."
            ));
        }
        IpAddr::V4(group) => mapped::name(group),
    };
    let scope = group.octets()[1] & 0x0f;
    if !group.is_multicast() {
        Err(format!(
            "{group} is no group: groups begin with ff, such as ff1e::42."
        ))
    } else if scope < 5 {
        Err(format!(
            "{} does not leave a host's own link: take one such as ff1e::42.",
            mapped::shown(group)
        ))
    } else {
        Ok(group)
    }
}
