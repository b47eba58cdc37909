//! Interfaces that LANs are on, as the kernel has them.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use librecast::cert::SourcePrefix;
use librecast::ethernet::MacAddress;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::netlink::Connection;

/// Shorter prefixes are no LAN's.
const MIN_PREFIX_LEN: u8 = 16;

/// An interface that a LAN may be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanInterface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// In bytes.
    pub mtu: u32,
    /// It is up and has a carrier.
    pub running: bool,
    /// It is a part of a bridge, a bond or the like.
    pub enslaved: bool,
    /// Its link-local address.
    pub link_local: Option<Ipv6Addr>,
    /// Prefixes that are on link there.
    pub on_link: Vec<SourcePrefix>,
}

/// Those of these names, as far as they exist.
pub fn look(names: &[&str]) -> io::Result<Vec<LanInterface>> {
    let mut netlink = Connection::open()?;
    let links = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let mut found: Vec<_> = links.iter().filter_map(interface).collect();
    found.retain(|interface| names.contains(&interface.name.as_str()));
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet6;
    for message in netlink.dump(RouteNetlinkMessage::GetAddress(question))? {
        if let Some((index, address)) = link_local(&message)
            && let Some(interface) = found.iter_mut().find(|i| i.index == index)
        {
            // the lowest: that of queries stays the same
            let known = interface.link_local.get_or_insert(address);
            *known = address.min(*known);
        }
    }
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet6;
    for message in netlink.dump(RouteNetlinkMessage::GetRoute(question))? {
        if let Some((index, prefix)) = on_link(&message)
            && let Some(interface) = found.iter_mut().find(|i| i.index == index)
        {
            interface.on_link.push(prefix);
        }
    }
    for interface in &mut found {
        interface.on_link.sort_unstable();
        interface.on_link.dedup();
    }
    Ok(found)
}

fn interface(message: &RouteNetlinkMessage) -> Option<LanInterface> {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return None;
    };
    let flags = link.header.flags;
    let mut found = LanInterface {
        index: link.header.index,
        name: String::new(),
        mac: MacAddress::default(),
        mtu: 0,
        running: flags.contains(LinkFlags::Up | LinkFlags::Running),
        enslaved: false,
        link_local: None,
        on_link: Vec::new(),
    };
    let mut has_mac = false;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Controller(_) => found.enslaved = true,
            LinkAttribute::Address(address) => {
                if let Ok(mac) = <[u8; 6]>::try_from(address.as_slice()) {
                    (found.mac, has_mac) = (MacAddress(mac), true);
                }
            }
            _ => {}
        }
    }
    // without Ethernet there is no LAN
    (has_mac && !flags.contains(LinkFlags::Loopback)).then_some(found)
}

fn link_local(message: &RouteNetlinkMessage) -> Option<(u32, Ipv6Addr)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let value = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
        _ => None,
    };
    let address = message.attributes.iter().find_map(value)?;
    address
        .is_unicast_link_local()
        .then_some((message.header.index, address))
}

/// A route of the main table that leads to hosts without a router between.
fn on_link(message: &RouteNetlinkMessage) -> Option<(u32, SourcePrefix)> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    let header = &route.header;
    let length = header.destination_prefix_length;
    if header.kind != RouteType::Unicast
        || header.table != RouteHeader::RT_TABLE_MAIN
        || !(MIN_PREFIX_LEN..128).contains(&length)
    {
        return None;
    }
    let (mut index, mut to) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => to = Some(*address),
            RouteAttribute::Gateway(_) | RouteAttribute::MultiPath(_) => return None,
            _ => {}
        }
    }
    Some((index?, SourcePrefix::new(to?, length).ok()?))
}
