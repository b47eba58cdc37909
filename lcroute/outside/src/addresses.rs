//! Addresses and LANs of this host.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// Most addresses that are used; each has a socket. Chosen: as many as a record has.
const MAX_ADDRESSES: usize = 8;

/// What this host has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Here {
    /// Addresses for links, the best first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Interfaces that are LANs.
    pub(crate) lans: BTreeSet<String>,
}

/// Reads addresses and LANs, without those of the interfaces `exclude`. Loopback addresses count
/// only if there is no other.
pub(crate) fn here(exclude: &[String]) -> io::Result<Here> {
    let mut here = Here::default();
    let mut loopback = Vec::new();
    for interface in getifaddrs()? {
        let flags = interface.flags;
        if !flags.contains(InterfaceFlags::IFF_UP) || exclude.contains(&interface.interface_name) {
            continue;
        }
        let Some(address) = interface.address else {
            continue;
        };
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        let v6 = address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip()));
        let Some(ip) = v4.or(v6) else { continue };
        let is_crowd = flags.contains(InterfaceFlags::IFF_MULTICAST)
            && !flags.intersects(InterfaceFlags::IFF_POINTOPOINT | InterfaceFlags::IFF_LOOPBACK);
        if is_crowd {
            here.lans.insert(interface.interface_name);
        }
        match (rank(ip), flags.contains(InterfaceFlags::IFF_LOOPBACK)) {
            (Some(_), true) => loopback.push(ip),
            (Some(_), false) => here.addresses.push(ip),
            (None, _) => {}
        }
    }
    if here.addresses.is_empty() {
        here.addresses = loopback;
    }
    here.addresses.sort_by_key(|ip| (rank(*ip), *ip));
    here.addresses.dedup();
    here.addresses.truncate(MAX_ADDRESSES);
    Ok(here)
}

/// Returns the order of an address; none if it leads to no other host without an interface's name.
fn rank(ip: IpAddr) -> Option<u8> {
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast() => None,
        IpAddr::V6(ip) if ip.is_unique_local() => Some(2),
        IpAddr::V6(_) => Some(0),
        IpAddr::V4(ip) if ip.is_link_local() => Some(3),
        IpAddr::V4(_) => Some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_an_address_and_an_excluded_interface_has_none() {
        let all = here(&[]).unwrap();
        assert!(!all.addresses.is_empty());
        let names = getifaddrs()
            .unwrap()
            .map(|interface| interface.interface_name);
        assert_eq!(here(&names.collect::<Vec<_>>()).unwrap(), Here::default());
    }
}
