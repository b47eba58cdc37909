//! Prefixes that this host reaches without a router, but that the Internet may not reach.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::monitor::Changes;
use super::{Connection, Monitor};

/// Shortest prefixes of a site (IPv4, IPv6): a tunnel may have half of the Internet.
const MIN_PREFIX_LEN: (u8, u8) = (8, 16);

/// Least time between reads: some hosts' routes change all the time.
const PAUSE: Duration = Duration::from_secs(1);
/// Origins of routes to a host's own site. Routing daemons may have a million other routes.
const MAKERS: [RouteProtocol; 5] = [
    RouteProtocol::Kernel,
    RouteProtocol::Boot,
    RouteProtocol::Static,
    RouteProtocol::Ra,
    RouteProtocol::Dhcp,
];

/// The on-link prefixes of this host, current at each question.
#[derive(Debug)]
pub struct Near {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    monitor: Monitor,
    prefixes: Option<Vec<Prefix>>,
    /// Whether something has changed since the last read.
    is_stale: bool,
    read_at: Option<Instant>,
}

/// An address and the number of its significant bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix(IpAddr, u8);

impl Near {
    /// Starts to follow changes.
    ///
    /// # Errors
    /// The kernel refuses notifications.
    pub fn open() -> io::Result<Self> {
        let state = Mutex::new(State {
            monitor: Monitor::open()?,
            prefixes: None,
            is_stale: true,
            read_at: None,
        });
        Ok(Self { state })
    }

    /// Whether this host reaches the address without a router; also true while nothing is known.
    pub fn contains(&self, ip: IpAddr) -> bool {
        // a panic cannot leave the state inconsistent
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = state.monitor.drain(0);
        state.is_stale |= !matches!(&changes, Ok(changes) if *changes == Changes::default());
        let is_due = state.read_at.is_none_or(|at| at.elapsed() >= PAUSE);
        if state.is_stale && is_due {
            state.read_at = Some(Instant::now());
            match prefixes() {
                Ok(read) => (state.prefixes, state.is_stale) = (Some(read), false),
                Err(e) => {
                    tracing::warn!("the relay refuses peers: prefixes of this host: {e}");
                    state.prefixes = None;
                }
            }
        }
        let prefixes = state.prefixes.as_ref();
        prefixes.is_none_or(|all| all.iter().any(|prefix| prefix.contains(ip)))
    }
}

impl Prefix {
    fn new(ip: IpAddr, length: u8) -> Option<Self> {
        let least = match ip {
            IpAddr::V4(_) => MIN_PREFIX_LEN.0,
            IpAddr::V6(_) => MIN_PREFIX_LEN.1,
        };
        (length >= least).then_some(Self(ip, length))
    }

    fn contains(self, ip: IpAddr) -> bool {
        let same = match (self.0, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => (own.to_bits() ^ ip.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(ip)) => (own.to_bits() ^ ip.to_bits()).leading_zeros(),
            _ => return false,
        };
        same >= self.1.into()
    }
}

fn prefixes() -> io::Result<Vec<Prefix>> {
    let mut netlink = Connection::open()?;
    let addresses = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let mut found: Vec<_> = addresses.iter().flat_map(of_address).collect();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for protocol in MAKERS {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            question.header.protocol = protocol;
            let routes = netlink.dump(RouteNetlinkMessage::GetRoute(question))?;
            found.extend(routes.iter().filter_map(of_route));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Returns the prefixes of an address, and of the peer on point-to-point interfaces.
fn of_address(message: &RouteNetlinkMessage) -> Vec<Prefix> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return Vec::new();
    };
    let length = message.header.prefix_len;
    let addresses = message.attributes.iter().filter_map(|a| match a {
        AddressAttribute::Address(ip) | AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let prefixes = addresses.filter_map(|ip| Prefix::new(ip, length));
    prefixes.collect()
}

/// Returns the prefix of a route of any table that needs no router.
fn of_route(message: &RouteNetlinkMessage) -> Option<Prefix> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    let header = &route.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut to = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = Some((*ip).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => to = Some((*ip).into()),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                return None;
            }
            _ => {}
        }
    }
    Prefix::new(to?, header.destination_prefix_length)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_is_near_and_the_internet_is_not() {
        let near = Near::open().unwrap();
        assert!(near.contains(ip("127.9.9.9")));
        // no interface has it, wherever the test runs
        assert!(!near.contains(ip("192.88.99.77")));
        let state = near.state.lock().unwrap();
        assert!(state.prefixes.is_some());
    }

    #[test]
    fn prefixes_of_addresses_and_routes_without_a_router_are_near() {
        let builder = AddressMessageBuilder::<Ipv6Addr>::new();
        let address = builder
            .address("2001:db8:5::1".parse().unwrap(), 64)
            .build();
        let found = of_address(&RouteNetlinkMessage::NewAddress(address));
        assert!(!found.is_empty() && found.iter().all(|p| p.contains(ip("2001:db8:5::2"))));
        assert!(found.iter().all(|p| !p.contains(ip("2001:db8:5:1::2"))));
        let route = |to: &str, length, gateway: Option<&str>| {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new();
            let builder = builder.destination_prefix(to.parse().unwrap(), length);
            let builder = match gateway {
                Some(gateway) => builder.gateway(gateway.parse().unwrap()),
                None => builder.output_interface(2),
            };
            of_route(&RouteNetlinkMessage::NewRoute(builder.build()))
        };
        let on_link = route("198.51.100.0", 24, None).unwrap();
        assert!(on_link.contains(ip("198.51.100.9")) && !on_link.contains(ip("198.51.101.9")));
        assert_eq!(route("198.51.100.0", 24, Some("198.51.100.1")), None);
        assert_eq!(route("0.0.0.0", 0, None), None, "a default route");
        assert_eq!(route("128.0.0.0", 1, None), None, "half of the Internet");
    }
}
