//! IPv4 on the interface: its address, and routes for programs that name no interface.
//!
//! A route of the interface for a group in table `local` wins over routes of `main` of equal or
//! smaller length, such as the LAN's default route. So joins and packets go to the interface.
//! Groups without such a route keep their path.

use std::net::{IpAddr, Ipv4Addr};

use lcroute_engine::Ipv4Network;
use lcroute_engine::ipv4_network::PREFIX_LEN;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::configure::{HIGHEST_NUMBER, METRIC, TABLE_LOCAL, number, tolerate};
use super::{Error, Settings};
use crate::netlink::Connection;

/// IPv4 groups that share their first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ipv4Prefix {
    /// Bits beyond `len` are zero.
    pub addr: Ipv4Addr,
    /// Length in bits, 0 to 32.
    pub len: u8,
}

impl Ipv4Prefix {
    /// Whether one prefix contains the other.
    fn overlaps(self, other: Self) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.len.min(other.len)))
            .unwrap_or(0);
        self.addr.to_bits() & mask == other.addr.to_bits() & mask
    }
}

/// A route of lcroute in table `local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Route {
    prefix: Ipv4Prefix,
    metric: u32,
    source: Option<Ipv4Addr>,
}

/// Result of a repair.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repaired {
    /// Whether anything changed.
    pub(super) changed: bool,
    /// Whether the address is missing because another route of the host overlaps the network.
    pub(super) overlaps: bool,
}

/// Brings addresses and routes to the settings.
pub(super) fn repair(
    netlink: &mut Connection,
    index: u32,
    settings: &Settings,
) -> Result<Repaired, Error> {
    let present = addresses(netlink, index)?;
    let mut wanted = settings.ipv4;
    if let Some(ipv4) = wanted
        && let Some(other) = overlap(netlink, index, ipv4.network)
            .map_err(|e| Error::kernel("read routes of this host", e))?
    {
        tracing::warn!(
            "{}: no IPv4 address: {} of the network overlaps the route to {}/{} of this host; `lcroute doctor` says more",
            settings.name,
            ipv4.network,
            other.addr,
            other.len
        );
        wanted = None;
    }
    let address = wanted.and_then(|ipv4| ipv4.address);
    let mut changed = false;
    // lcroute's address: no other program uses the network's prefix length on this interface
    let ours = present.iter().filter(|(_, len)| *len == PREFIX_LEN);
    for (there, _) in ours.filter(|(there, _)| Some(*there) != address) {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, *there));
        netlink
            .change(message, 0)
            .or_else(|error| tolerate(error, libc::EADDRNOTAVAIL))
            .map_err(|error| Error::kernel("remove an IPv4 address of the interface", error))?;
        changed = true;
    }
    if let Some(address) = address.filter(|a| !present.contains(&(*a, PREFIX_LEN))) {
        let message = RouteNetlinkMessage::NewAddress(address_message(index, address));
        netlink
            .change(message, NLM_F_CREATE | NLM_F_EXCL)
            .or_else(|error| tolerate(error, libc::EEXIST))
            .map_err(|error| Error::kernel("set the interface's IPv4 address", error))?;
        changed = true;
    }
    let routes = match wanted {
        Some(_) => settings.ipv4_routes.as_slice(),
        None => &[],
    };
    changed |= repair_routes(netlink, index, (settings, routes, address))?;
    Ok(Repaired {
        changed,
        overlaps: settings.ipv4.is_some() && wanted.is_none(),
    })
}

fn repair_routes(
    netlink: &mut Connection,
    index: u32,
    (settings, prefixes, source): (&Settings, &[Ipv4Prefix], Option<Ipv4Addr>),
) -> Result<bool, Error> {
    let metric = METRIC + number(&settings.name);
    let wanted = prefixes.iter().map(|prefix| Route {
        prefix: *prefix,
        metric,
        source,
    });
    let wanted: Vec<_> = wanted.collect();
    let present = routes(netlink, index)?;
    let mut changed = false;
    for surplus in present.iter().filter(|route| !wanted.contains(route)) {
        let message = RouteNetlinkMessage::DelRoute(route_message(index, surplus));
        netlink
            .change(message, 0)
            .or_else(|error| tolerate(error, libc::ESRCH))
            .map_err(|error| Error::kernel("remove an IPv4 route of the interface", error))?;
        changed = true;
    }
    for missing in wanted.iter().filter(|route| !present.contains(route)) {
        let message = RouteNetlinkMessage::NewRoute(route_message(index, missing));
        netlink
            .change(message, NLM_F_CREATE | NLM_F_APPEND)
            .or_else(|error| tolerate(error, libc::EEXIST))
            .map_err(|error| Error::kernel("add an IPv4 route of the interface", error))?;
        changed = true;
    }
    Ok(changed)
}

/// Returns a route of another interface, not the default, that overlaps the network.
pub(crate) fn overlap(
    netlink: &mut Connection,
    index: u32,
    network: Ipv4Network,
) -> std::io::Result<Option<Ipv4Prefix>> {
    let own = Ipv4Prefix {
        addr: network.address(),
        len: PREFIX_LEN,
    };
    let all = dump(netlink)?;
    let mut foreign = all.iter().filter_map(|route| {
        let (prefix, _, interface, _) = read(route)?;
        let is_foreign = interface.is_some_and(|interface| interface != index);
        (is_foreign && prefix.len > 0 && prefix.overlaps(own)).then_some(prefix)
    });
    Ok(foreign.next())
}

fn dump(netlink: &mut Connection) -> std::io::Result<Vec<RouteMessage>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    let answers = netlink.dump(RouteNetlinkMessage::GetRoute(question))?;
    let route = |answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    };
    Ok(answers.into_iter().filter_map(route).collect())
}

/// Returns prefix, metric, interface, source.
fn read(route: &RouteMessage) -> Option<(Ipv4Prefix, u32, Option<u32>, Option<Ipv4Addr>)> {
    if route.header.address_family != AddressFamily::Inet {
        return None;
    }
    let mut addr = Ipv4Addr::UNSPECIFIED;
    let (mut metric, mut interface, mut source) = (0, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(value)) => addr = *value,
            RouteAttribute::PrefSource(RouteAddress::Inet(value)) => source = Some(*value),
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Oif(value) => interface = Some(*value),
            _ => {}
        }
    }
    let len = route.header.destination_prefix_length;
    Some((Ipv4Prefix { addr, len }, metric, interface, source))
}

/// Returns lcroute's routes: for groups, in table `local`, with the kernel's protocol.
fn routes(netlink: &mut Connection, index: u32) -> Result<Vec<Route>, Error> {
    let all = dump(netlink).map_err(|e| Error::kernel("read the interface's IPv4 routes", e))?;
    let ours = all.iter().filter(|route| {
        route.header.table == TABLE_LOCAL
            && route.header.kind == RouteType::Unicast
            && route.header.protocol == RouteProtocol::Kernel
    });
    let ours = ours.filter_map(|route| {
        let (prefix, metric, interface, source) = read(route)?;
        let is_ours = interface == Some(index)
            && prefix.addr.is_multicast()
            && (METRIC..=METRIC + HIGHEST_NUMBER).contains(&metric);
        is_ours.then_some(Route {
            prefix,
            metric,
            source,
        })
    });
    Ok(ours.collect())
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.prefix.addr, route.prefix.len)
        .output_interface(index)
        .priority(route.metric)
        .kind(RouteType::Unicast)
        .scope(RouteScope::Link)
        // network managers remove foreign routes, except those of the kernel
        .protocol(RouteProtocol::Kernel);
    if let Some(source) = route.source {
        builder = builder.pref_source(source);
    }
    let mut message = builder.build();
    message.header.table = TABLE_LOCAL;
    message
}

fn addresses(netlink: &mut Connection, index: u32) -> Result<Vec<(Ipv4Addr, u8)>, Error> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    question.header.index = index;
    let answers = netlink
        .dump(RouteNetlinkMessage::GetAddress(question))
        .map_err(|error| Error::kernel("read the interface's IPv4 addresses", error))?;
    let of_interface = |answer: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(message) = answer else {
            return None;
        };
        let header = &message.header;
        if header.index != index || header.family != AddressFamily::Inet {
            return None;
        }
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(value)) => Some(*value),
                _ => None,
            });
        Some((local?, header.prefix_len))
    };
    Ok(answers.iter().filter_map(of_interface).collect())
}

fn address_message(index: u32, address: Ipv4Addr) -> AddressMessage {
    AddressMessageBuilder::<Ipv4Addr>::new()
        .index(index)
        .address(address, PREFIX_LEN)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(addr: &str, len: u8) -> Ipv4Prefix {
        Ipv4Prefix {
            addr: addr.parse().unwrap(),
            len,
        }
    }

    #[test]
    fn a_route_of_a_company_or_of_a_part_overlaps_and_a_neighbour_does_not() {
        let own = prefix("10.77.0.0", 16);
        for other in [
            ("10.0.0.0", 8),
            ("10.77.3.0", 24),
            ("10.77.0.0", 16),
            ("0.0.0.0", 0),
        ] {
            assert!(own.overlaps(prefix(other.0, other.1)), "{other:?}");
        }
        for other in [("10.78.0.0", 16), ("192.168.0.0", 16), ("239.0.0.0", 9)] {
            assert!(!own.overlaps(prefix(other.0, other.1)), "{other:?}");
        }
    }

    #[test]
    fn a_message_for_a_route_reads_back_as_that_route() {
        let route = Route {
            prefix: prefix("239.128.0.0", 10),
            metric: 101,
            source: Some(Ipv4Addr::new(10, 77, 4, 5)),
        };
        let message = route_message(7, &route);
        let expected = (route.prefix, 101, Some(7), route.source);
        assert_eq!(read(&message), Some(expected));
    }
}
