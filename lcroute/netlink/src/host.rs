//! The addresses at which other hosts may reach this one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use crate::lan::{is_chosen, is_lan};
use crate::request::Connection;

/// An interface that carries packets.
struct Interface {
    name: String,
    loopback: bool,
}

/// Returns unicast addresses at which other hosts may reach this one, best first.
///
/// Omits interfaces that are down, have no carrier, are named in `exclude`, or are missing in
/// `only` if it is given. Omits IPv6 link-local addresses (they need a zone), and tentative,
/// duplicate or deprecated ones. Returns loopback addresses only if there are no others. The order
/// depends only on the addresses: global IPv6, global and private IPv4, unique local IPv6, IPv4
/// link-local.
pub fn host_addresses(exclude: &[&str], only: Option<&[String]>) -> io::Result<Vec<IpAddr>> {
    let mut netlink = Connection::open()?;
    let interfaces: BTreeMap<u32, Interface> = netlink
        .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?
        .iter()
        .filter_map(interface_up)
        .filter(|(_, interface)| is_chosen(&interface.name, exclude, only))
        .collect();
    let addresses: Vec<(bool, IpAddr)> = netlink
        .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?
        .iter()
        .filter_map(usable)
        .filter_map(|(index, address)| Some((interfaces.get(&index)?.loopback, address)))
        .collect();
    Ok(select(&addresses))
}

/// Returns names of interfaces that may lead to LAN hosts: up, Ethernet, multicast, no tunnel.
pub fn lan_interfaces(exclude: &[&str], only: Option<&[String]>) -> io::Result<BTreeSet<String>> {
    let mut netlink = Connection::open()?;
    let links = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links = links.iter().filter(|message| is_lan(message));
    let interfaces = links.filter_map(interface_up);
    let names = interfaces.map(|(_, interface)| interface.name);
    Ok(names
        .filter(|name| is_chosen(name, exclude, only))
        .collect())
}

/// Orders addresses; each has a flag for a loopback interface.
fn select(addresses: &[(bool, IpAddr)]) -> Vec<IpAddr> {
    // Hosts have public addresses on `lo` as well (anycast, routing daemons).
    let local = |on_loopback: bool, address: IpAddr| on_loopback && address.is_loopback();
    let reachable = addresses
        .iter()
        .filter(|(lo, address)| !local(*lo, *address))
        .count();
    let mut selected: Vec<IpAddr> = addresses
        .iter()
        .filter(|(lo, address)| reachable == 0 || !local(*lo, *address))
        .map(|(_, address)| *address)
        .collect();
    selected.sort_unstable_by_key(|address| (rank(*address), *address));
    selected.dedup();
    selected
}

fn rank(address: IpAddr) -> u8 {
    match address {
        IpAddr::V6(address) if address.is_unique_local() => 2,
        IpAddr::V6(_) => 0,
        IpAddr::V4(address) if address.is_link_local() => 3,
        IpAddr::V4(_) => 1,
    }
}

fn interface_up(message: &RouteNetlinkMessage) -> Option<(u32, Interface)> {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return None;
    };
    if !link
        .header
        .flags
        .contains(LinkFlags::Up | LinkFlags::Running)
    {
        return None;
    }
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })?;
    let loopback = link.header.flags.contains(LinkFlags::Loopback);
    Some((link.header.index, Interface { name, loopback }))
}

/// Returns interface and address, if other hosts may reach it.
fn usable(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let mut address = None;
    let mut local = None;
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(value) => address = Some(*value),
            // On a point-to-point interface this is our side.
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Flags(value) => flags |= *value,
            _ => {}
        }
    }
    let unusable = AddressFlags::Deprecated | AddressFlags::Dadfailed | AddressFlags::Tentative;
    let optimistic = flags.contains(AddressFlags::Optimistic);
    let refused = if optimistic {
        AddressFlags::Deprecated | AddressFlags::Dadfailed
    } else {
        unusable
    };
    let address = local.or(address)?;
    let unicast = match address {
        IpAddr::V4(address) => ordinary_v4(address),
        IpAddr::V6(address) => ordinary_v6(address) && message.header.scope != AddressScope::Link,
    };
    (unicast && !flags.intersects(refused)).then_some((message.header.index, address))
}

fn ordinary_v4(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
}

fn ordinary_v6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use rtnetlink::AddressMessageBuilder;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ipv6(text: &str, flags: AddressFlags) -> RouteNetlinkMessage {
        let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
            .index(3)
            .address(text.parse().unwrap(), 64)
            .build();
        message.attributes.push(AddressAttribute::Flags(flags));
        RouteNetlinkMessage::NewAddress(message)
    }

    #[test]
    fn the_order_is_that_of_usefulness_and_then_of_the_address() {
        let addresses = [
            (false, ip("169.254.1.1")),
            (false, ip("fd00::1")),
            (false, ip("192.0.2.2")),
            (true, ip("127.0.0.1")),
            (false, ip("192.0.2.1")),
            (false, ip("2001:db8::1")),
            (false, ip("192.0.2.1")),
        ];
        let expected = [
            "2001:db8::1",
            "192.0.2.1",
            "192.0.2.2",
            "fd00::1",
            "169.254.1.1",
        ];
        assert_eq!(select(&addresses), expected.map(ip));
    }

    #[test]
    fn loopback_is_given_only_if_there_is_nothing_else() {
        let loopback = [(true, ip("127.0.0.1")), (true, ip("::1"))];
        assert_eq!(select(&loopback), ["::1", "127.0.0.1"].map(ip));
        let with_anycast = [(true, ip("127.0.0.1")), (true, ip("192.0.2.9"))];
        assert_eq!(select(&with_anycast), ["192.0.2.9"].map(ip));
    }

    #[test]
    fn addresses_that_do_not_work_yet_or_any_more_are_left_out() {
        let good = ipv6("2001:db8::1", AddressFlags::Permanent);
        assert_eq!(usable(&good), Some((3, ip("2001:db8::1"))));
        for flags in [
            AddressFlags::Tentative,
            AddressFlags::Deprecated,
            AddressFlags::Dadfailed,
        ] {
            assert_eq!(usable(&ipv6("2001:db8::1", flags)), None, "{flags:?}");
        }
        let optimistic = AddressFlags::Tentative | AddressFlags::Optimistic;
        assert!(usable(&ipv6("2001:db8::1", optimistic)).is_some());
        assert_eq!(usable(&ipv6("fe80::1", AddressFlags::Permanent)), None);
    }

    #[test]
    fn point_to_point_interfaces_give_the_near_side() {
        let mut message = AddressMessageBuilder::<Ipv4Addr>::new().index(4).build();
        message
            .attributes
            .push(AddressAttribute::Address(ip("192.0.2.77")));
        message
            .attributes
            .push(AddressAttribute::Local(ip("192.0.2.1")));
        let message = RouteNetlinkMessage::NewAddress(message);
        assert_eq!(usable(&message), Some((4, ip("192.0.2.1"))));
    }

    #[test]
    fn interfaces_are_chosen_by_name() {
        let only = ["eth0".to_owned(), "lc0".to_owned()];
        assert!(is_chosen("eth0", &["lc0"], None));
        assert!(is_chosen("eth0", &["lc0"], Some(&only)));
        assert!(!is_chosen("eth1", &["lc0"], Some(&only)), "not listed");
        assert!(!is_chosen("lc0", &["lc0"], Some(&only)), "never our own");
        assert!(!is_chosen("eth0", &[], Some(&[])));
    }

    #[test]
    fn the_kernel_is_asked_and_the_choice_is_kept() {
        let none = ["no-such-link".to_owned()];
        assert!(host_addresses(&[], Some(&none)).unwrap().is_empty());
        let all = host_addresses(&[], None).unwrap();
        assert_eq!(
            select(&all.iter().map(|ip| (true, *ip)).collect::<Vec<_>>()),
            all
        );
    }
}
