//! The router on this host's path to the IPv4 Internet.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use thiserror::Error;

use crate::lan::{is_chosen, is_lan};
use crate::request::Connection;

/// Destination in questions to the kernel; no packet goes there. It is reserved for documentation
/// (RFC 5737), so only the default route leads to it.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A router on a LAN of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its address on the LAN.
    pub address: Ipv4Addr,
    /// This host's address on the LAN.
    pub local: Ipv4Addr,
    /// Index of this host's interface to the LAN.
    pub interface: u32,
}

/// Why no router could map a port.
#[derive(Debug, Error)]
pub enum NoGateway {
    /// No route.
    #[error("this host has no route to the IPv4 Internet")]
    NoRoute,
    /// No router, or one at the far end of a tunnel.
    #[error("the route to the IPv4 Internet leads into {0}, which is no LAN with a router")]
    NoLan(String),
    /// The configuration excludes the interface.
    #[error("the route to the IPv4 Internet leads over {0}, which [ice] interfaces leaves out")]
    LeftOut(String),
    /// A public address: no NAT.
    #[error("this host has a public IPv4 address, {0}")]
    Public(Ipv4Addr),
    /// An error of the kernel.
    #[error("routes of this host: {0}")]
    Kernel(#[from] io::Error),
}

/// Returns the router to the IPv4 Internet, if this host is behind a NAT. Ignores tunnels,
/// interfaces named in `exclude`, and those not in `only` if it is given.
pub fn gateway(exclude: &[&str], only: Option<&[String]>) -> Result<Gateway, NoGateway> {
    let mut netlink = Connection::open()?;
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    question.header.destination_prefix_length = 32;
    let to = RouteAttribute::Destination(RouteAddress::Inet(ELSEWHERE));
    question.attributes.push(to);
    let route = match netlink.get(RouteNetlinkMessage::GetRoute(question)) {
        Ok(RouteNetlinkMessage::NewRoute(route)) => Way::of(&route),
        Ok(_) => return Err(NoGateway::NoRoute),
        // unreachable, blackhole, prohibit
        Err(e) if is_no_route(&e) => return Err(NoGateway::NoRoute),
        Err(e) => return Err(e.into()),
    };
    let interface = route.interface.ok_or(NoGateway::NoRoute)?;
    let mut question = LinkMessage::default();
    question.header.index = interface;
    let link = netlink.get(RouteNetlinkMessage::GetLink(question))?;
    let name = name_of(&link);
    if exclude.contains(&name.as_str()) || !is_lan(&link) {
        return Err(NoGateway::NoLan(name));
    }
    if !is_chosen(&name, exclude, only) {
        return Err(NoGateway::LeftOut(name));
    }
    let (Some(address), Some(local)) = (route.gateway, route.local) else {
        return Err(NoGateway::NoLan(name));
    };
    if !is_behind_nat(local) {
        return Err(NoGateway::Public(local));
    }
    Ok(Gateway {
        address,
        local,
        interface,
    })
}

fn is_no_route(e: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, InvalidInput, NetworkUnreachable, PermissionDenied};
    matches!(
        e.kind(),
        NetworkUnreachable | HostUnreachable | InvalidInput | PermissionDenied
    )
}

/// Whether it is private (RFC 1918), or shared address space of a provider (RFC 6598).
#[must_use]
pub fn is_behind_nat(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private() || (a == 100 && b & 0xc0 == 64)
}

/// Interface, router and source of a route.
#[derive(Debug, Default, PartialEq, Eq)]
struct Way {
    interface: Option<u32>,
    gateway: Option<Ipv4Addr>,
    local: Option<Ipv4Addr>,
}

impl Way {
    fn of(route: &RouteMessage) -> Self {
        let mut way = Self::default();
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => way.interface = Some(*index),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                    way.gateway = Some(*address);
                }
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                    way.local = Some(*address);
                }
                _ => {}
            }
        }
        way
    }
}

fn name_of(link: &RouteNetlinkMessage) -> String {
    let RouteNetlinkMessage::NewLink(link) = link else {
        return String::new();
    };
    let name = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_shared_addresses_are_behind_a_nat() {
        for (address, expected) in [
            ("10.0.0.1", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.2", true),
            ("100.63.255.255", false),
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("100.128.0.1", false),
            ("169.254.1.1", false),
            ("198.18.1.2", false),
        ] {
            let parsed = address.parse().unwrap();
            assert_eq!(is_behind_nat(parsed), expected, "{address}");
        }
    }

    #[test]
    fn the_kernel_is_asked_and_tunnels_do_not_count() {
        match gateway(&[], None) {
            Ok(found) => {
                assert!(is_behind_nat(found.local) && found.interface > 0);
                let none = gateway(&[], Some(&[]));
                assert!(matches!(none, Err(NoGateway::LeftOut(_))), "{none:?}");
            }
            Err(NoGateway::Kernel(e)) => panic!("{e}"),
            Err(_) => {}
        }
    }
}
