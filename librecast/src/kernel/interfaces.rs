//! Interfaces and their IPv6 addresses: over netlink, or from /proc where sandboxes forbid that.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use socket2::{Domain, Socket, Type};

use crate::interface::Interface;

/// Returns all interfaces of this network namespace, by index.
pub fn interfaces() -> io::Result<BTreeMap<u32, Interface>> {
    let entries = match getifaddrs() {
        Err(nix::Error::EAFNOSUPPORT) => return of_proc(),
        entries => entries?,
    };
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in entries {
        let name = entry.interface_name;
        let interface = found.entry(name.clone()).or_insert_with(|| {
            // an interface may vanish between the two calls: 0 is not an interface
            let index = if_nametoindex(name.as_str()).unwrap_or(0);
            new(index, name, entry.flags)
        });
        if let Some(address) = entry.address.as_ref().and_then(|a| a.as_sockaddr_in6()) {
            interface.addresses.insert(address.ip());
        }
    }
    Ok(found
        .into_values()
        .filter(|i| i.index != 0)
        .map(|i| (i.index, i))
        .collect())
}

fn new(index: u32, name: String, flags: InterfaceFlags) -> Interface {
    let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    Interface {
        index,
        name,
        up: flags.contains(up),
        multicast: flags.contains(InterfaceFlags::IFF_MULTICAST)
            && !flags.contains(InterfaceFlags::IFF_LOOPBACK),
        addresses: BTreeSet::new(),
    }
}

/// Returns those that have an IPv6 address, without netlink.
fn of_proc() -> io::Result<BTreeMap<u32, Interface>> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    let mut found: BTreeMap<u32, Interface> = BTreeMap::new();
    let text = fs::read_to_string("/proc/self/net/if_inet6")?;
    for (address, index, name) in text.lines().filter_map(parse) {
        let interface = match found.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => match flags_of(&socket, name) {
                Ok(flags) => vacant.insert(new(index, name.to_owned(), flags)),
                // it is gone already
                Err(_) => continue,
            },
        };
        interface.addresses.insert(address);
    }
    Ok(found)
}

/// Parses `ADDRESS INDEX PREFIX SCOPE FLAGS NAME`, with numbers in hexadecimal.
fn parse(line: &str) -> Option<(Ipv6Addr, u32, &str)> {
    let mut words = line.split_whitespace();
    let address = u128::from_str_radix(words.next()?, 16).ok()?;
    let index = u32::from_str_radix(words.next()?, 16).ok()?;
    Some((Ipv6Addr::from(address), index, words.nth(3)?))
}

fn flags_of(socket: &Socket, name: &str) -> io::Result<InterfaceFlags> {
    // SAFETY: zeros are a valid ifreq
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // the last byte stays zero
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: SIOCGIFFLAGS takes an ifreq and writes one, into memory of ours that lives until then
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request)
    })?;
    // SAFETY: this is the member that SIOCGIFFLAGS has written
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(InterfaceFlags::from_bits_truncate(i32::from(flags)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line = "fe80000000000000021122fffe334455 0a 40 20 80     eth0";
        let read = parse(line).unwrap();
        assert_eq!(
            read,
            ("fe80::211:22ff:fe33:4455".parse().unwrap(), 10, "eth0")
        );
        for garbage in ["", "x", "00 00", "fe80 02 40 20 80"] {
            assert_eq!(parse(garbage), None);
        }
    }

    #[test]
    fn it_says_the_same_as_netlink() {
        let mut by_netlink = interfaces().unwrap();
        by_netlink.retain(|_, i| !i.addresses.is_empty());
        assert_eq!(of_proc().unwrap(), by_netlink);
    }
}
