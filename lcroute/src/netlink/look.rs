//! State of interfaces, and routing decisions of the kernel: for reports, not for packets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use librecast::cert::SourcePrefix;
use librecast::ethernet::MacAddress;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Connection;

/// Shortest prefix of a LAN.
const MIN_PREFIX_LEN: u8 = 16;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// Its alias, set by a program or administrator.
    pub alias: Option<String>,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is up and has a carrier.
    pub running: bool,
    /// Index of the bridge, the bond or the like of which it is a part.
    pub part_of: Option<u32>,
    /// Whether it is a bridge.
    pub is_bridge: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Length of its queue in packets.
    pub tx_queue_len: u32,
    /// Its IPv6 addresses.
    pub addresses: Vec<Ipv6Addr>,
    /// Its IPv4 addresses, with the length of the on-link prefix.
    pub ipv4: Vec<(Ipv4Addr, u8)>,
}

/// Returns all interfaces of this host.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut netlink = Connection::open()?;
    let links = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let mut addresses = Vec::new();
    for family in [AddressFamily::Inet6, AddressFamily::Inet] {
        let mut question = AddressMessage::default();
        question.header.family = family;
        let found = netlink.dump(RouteNetlinkMessage::GetAddress(question))?;
        addresses.extend(found.iter().filter_map(address));
    }
    let found = links.iter().filter_map(|link| interface(link, &addresses));
    Ok(found.collect())
}

fn interface(message: &RouteNetlinkMessage, addresses: &[(u32, IpAddr, u8)]) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return None;
    };
    let mut found = Interface {
        index: link.header.index,
        name: String::new(),
        mac: None,
        alias: None,
        up: link.header.flags.contains(LinkFlags::Up),
        running: link
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::Running),
        part_of: None,
        is_bridge: false,
        mtu: 0,
        tx_queue_len: 0,
        addresses: Vec::new(),
        ipv4: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
            LinkAttribute::Controller(index) => found.part_of = Some(*index),
            LinkAttribute::Address(address) => {
                let mac = <[u8; 6]>::try_from(address.as_slice());
                found.mac = mac.ok().map(MacAddress);
            }
            LinkAttribute::IfAlias(alias) => found.alias = Some(alias.clone()),
            LinkAttribute::TxQueueLen(length) => found.tx_queue_len = *length,
            LinkAttribute::LinkInfo(of) => {
                found.is_bridge = of.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    for (_, address, length) in addresses.iter().filter(|(index, ..)| *index == found.index) {
        match address {
            IpAddr::V4(address) => found.ipv4.push((*address, *length)),
            IpAddr::V6(address) => found.addresses.push(*address),
        }
    }
    Some(found)
}

fn address(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr, u8)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    // on a point-to-point interface `Address` is the peer's
    let own = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    };
    let any = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    let attributes = &message.attributes;
    let address = attributes.iter().find_map(own);
    let address = address.or_else(|| attributes.iter().find_map(any))?;
    Some((message.header.index, address, message.header.prefix_len))
}

/// Returns prefixes that are reached without a router, each with its interface's index, in order.
pub fn on_link_prefixes() -> io::Result<Vec<(u32, SourcePrefix)>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet6;
    let routes = Connection::open()?.dump(RouteNetlinkMessage::GetRoute(question))?;
    let mut found: Vec<_> = routes.iter().filter_map(on_link).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Returns default routers, each with its interface's index, in order.
pub fn default_routers() -> io::Result<Vec<(u32, IpAddr)>> {
    let mut netlink = Connection::open()?;
    let mut found = Vec::new();
    for family in [AddressFamily::Inet6, AddressFamily::Inet] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        let routes = netlink.dump(RouteNetlinkMessage::GetRoute(question))?;
        found.extend(routes.iter().filter_map(default_router));
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Returns the router of a default route.
fn default_router(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr)> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    let (mut interface, mut router) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                router = Some((*address).into());
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                router = Some((*address).into());
            }
            _ => {}
        }
    }
    let is_default = route.header.destination_prefix_length == 0;
    interface.zip(router).filter(|_| is_default)
}

/// Returns a route of the main table that needs no router.
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

/// Returns this host's routes to IPv4 groups: address, length, index of the interface.
pub fn group_routes() -> io::Result<Vec<(Ipv4Addr, u8, u32)>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    let routes = Connection::open()?.dump(RouteNetlinkMessage::GetRoute(question))?;
    Ok(routes.iter().filter_map(group_route).collect())
}

fn group_route(message: &RouteNetlinkMessage) -> Option<(Ipv4Addr, u8, u32)> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    let (mut index, mut to) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
            _ => {}
        }
    }
    let to = to.filter(Ipv4Addr::is_multicast)?;
    Some((to, route.header.destination_prefix_length, index?))
}

/// Returns the interface by which the kernel sends to this address; `None`: no route.
pub fn interface_to(destination: Ipv4Addr) -> io::Result<Option<u32>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    question.header.destination_prefix_length = 32;
    let to = RouteAttribute::Destination(RouteAddress::Inet(destination));
    question.attributes.push(to);
    match Connection::open()?.get(RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => {
            let mut attributes = route.attributes.iter();
            Ok(attributes.find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            }))
        }
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NetworkUnreachable => Ok(None),
        Err(e) => Err(e),
    }
}

/// The kernel's routing decision for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    /// Index of the interface.
    pub index: u32,
    /// Source address for programs that choose none.
    pub source: Option<Ipv6Addr>,
}

/// Returns the kernel's decision for a program that names this interface; `None`: no route.
pub fn route_to(destination: Ipv6Addr, interface: Option<u32>) -> io::Result<Option<Egress>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet6;
    question.header.destination_prefix_length = 128;
    let to = RouteAttribute::Destination(RouteAddress::Inet6(destination));
    question.attributes.push(to);
    let oif = interface.map(RouteAttribute::Oif);
    question.attributes.extend(oif);
    match Connection::open()?.get(RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Ok(egress(&route)),
        Ok(_) => Ok(None),
        Err(e) if is_no_way(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether this error means that there is no route, or an unreachable one.
fn is_no_way(e: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::HostUnreachable,
    ];
    kinds.contains(&e.kind())
}

fn egress(route: &RouteMessage) -> Option<Egress> {
    let (mut index, mut source) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => source = Some(*address),
            _ => {}
        }
    }
    index.map(|index| Egress { index, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_leads_to_itself() {
        let all = interfaces().unwrap();
        let lo = all.iter().find(|i| i.name == "lo").unwrap();
        assert!(lo.mtu >= 1_280 && lo.index > 0);
        if lo.addresses.contains(&Ipv6Addr::LOCALHOST) {
            for through in [None, Some(lo.index)] {
                let egress = route_to(Ipv6Addr::LOCALHOST, through).unwrap().unwrap();
                assert_eq!(egress.index, lo.index);
                assert_eq!(egress.source, Some(Ipv6Addr::LOCALHOST));
            }
        }
    }
}
