//! Routes that close private prefixes: programs can use them only by a route of `lc0`.
//!
//! Otherwise a program that names no interface would use the LAN in clear once `lc0` is gone. The
//! routes belong to no interface: they outlive the daemon, and its unit sets them before the
//! network is up.

use std::net::Ipv6Addr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::libc;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::configure::{KERNEL_METRIC, TABLE_LOCAL, number, tolerate};
use super::{Error, Prefix};
use crate::netlink::Connection;

/// Metric of the routes of `lc0`'s node; `lc1` has one more, and so on. Chosen: behind the routes
/// of every such interface, and better than the [`KERNEL_METRIC`] of the LAN's.
const CLOSED_METRIC: u32 = 200;

/// Highest interface number with its own metric. Higher ones share it: the start of one opens
/// prefixes that another closes, until that one checks its routes again.
const HIGHEST_NUMBER: u32 = KERNEL_METRIC - 1 - CLOSED_METRIC;

/// Closes these prefixes, and opens all others that the node with this interface has closed.
pub fn close(name: &str, prefixes: &[Prefix]) -> Result<(), Error> {
    let mut netlink = Connection::open().map_err(|source| Error::Io {
        action: "open a netlink socket",
        source,
    })?;
    repair(&mut netlink, name, prefixes)?;
    let metric = metric(name);
    let present = routes(&mut netlink, metric)?;
    let wanted: Vec<_> = prefixes.iter().map(|prefix| prefix.network()).collect();
    for surplus in present.iter().filter(|prefix| !wanted.contains(prefix)) {
        let message = RouteNetlinkMessage::DelRoute(route_message(surplus, metric));
        netlink
            .change(message, 0)
            .or_else(|error| tolerate(error, libc::ESRCH))
            .map_err(|error| Error::kernel("open a prefix that was private", error))?;
    }
    Ok(())
}

/// Closes prefixes that another program opened; returns whether there was one.
pub(super) fn repair(
    netlink: &mut Connection,
    name: &str,
    prefixes: &[Prefix],
) -> Result<bool, Error> {
    if prefixes.is_empty() {
        return Ok(false);
    }
    let metric = metric(name);
    let present = routes(netlink, metric)?;
    let mut changed = false;
    for prefix in prefixes.iter().map(|prefix| prefix.network()) {
        if present.contains(&prefix) {
            continue;
        }
        let message = RouteNetlinkMessage::NewRoute(route_message(&prefix, metric));
        netlink
            .change(message, NLM_F_CREATE | NLM_F_APPEND)
            .or_else(|error| tolerate(error, libc::EEXIST))
            .map_err(|error| Error::kernel("close a private prefix", error))?;
        changed = true;
    }
    Ok(changed)
}

fn metric(name: &str) -> u32 {
    CLOSED_METRIC + number(name).min(HIGHEST_NUMBER)
}

/// Returns the prefixes closed with this metric.
fn routes(netlink: &mut Connection, metric: u32) -> Result<Vec<Prefix>, Error> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet6;
    question.header.table = TABLE_LOCAL;
    let answers = netlink.dump(RouteNetlinkMessage::GetRoute(question));
    // a kernel without IPv6 fails at the setup of the interface
    let answers = match answers {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Vec::new(),
        answers => {
            answers.map_err(|error| Error::kernel("read routes of private prefixes", error))?
        }
    };
    let closed = answers.iter().filter_map(|answer| read(answer, metric));
    Ok(closed.collect())
}

/// Returns the prefix of a route of lcroute.
fn read(answer: &RouteNetlinkMessage, metric: u32) -> Option<Prefix> {
    let RouteNetlinkMessage::NewRoute(route) = answer else {
        return None;
    };
    let header = &route.header;
    let is_ours = header.table == TABLE_LOCAL
        && header.kind == RouteType::Unreachable
        && header.protocol == RouteProtocol::Kernel
        && route.attributes.contains(&RouteAttribute::Priority(metric));
    let addr = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(*addr),
            _ => None,
        });
    is_ours.then_some(Prefix {
        addr: addr?,
        len: header.destination_prefix_length,
    })
}

fn route_message(prefix: &Prefix, metric: u32) -> RouteMessage {
    let mut message = RouteMessageBuilder::<Ipv6Addr>::new()
        .destination_prefix(prefix.addr, prefix.len)
        .priority(metric)
        .kind(RouteType::Unreachable)
        // network managers remove foreign routes, except those of the kernel
        .protocol(RouteProtocol::Kernel)
        .build();
    message.header.table = TABLE_LOCAL;
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: Prefix = Prefix {
        addr: Ipv6Addr::new(0xff1e, 7, 0, 0, 0, 0, 0, 0),
        len: 32,
    };

    #[test]
    fn a_message_for_a_route_reads_back_as_that_prefix_of_this_interface_alone() {
        let message = RouteNetlinkMessage::NewRoute(route_message(&PRIVATE, metric("lc1")));
        assert_eq!(read(&message, metric("lc1")), Some(PRIVATE));
        assert_eq!(read(&message, metric("lc0")), None, "of another node");
    }

    #[test]
    fn routes_that_close_come_behind_those_of_interfaces_and_before_the_lans() {
        for name in ["lc0", "lc17", "lc99", "lc12345"] {
            let metric = metric(name);
            let of_interfaces =
                super::super::configure::METRIC + super::super::configure::HIGHEST_NUMBER;
            assert!(of_interfaces < metric && metric < KERNEL_METRIC, "{name}");
        }
    }
}
