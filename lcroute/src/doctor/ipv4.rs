//! IPv4 on lc0: this node's address, and other programs that interfere.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use librecast::cert::GroupPrefix;
use librecast::mapped;

use super::firewall::{Traffic, is_closed};
use super::{Check, Patient};
use crate::netlink::{self, Connection, Interface};
use crate::tun;

const NAME: &str = "ipv4";

pub(super) fn check(patient: &Patient) -> Check {
    if !patient.config.carries_ipv4() {
        return Check::skipped(
            NAME,
            "off: [tun] ipv4 = true carries groups of IPv4 as well",
        );
    }
    let Some(daemon) = &patient.daemon else {
        return Check::skipped(NAME, patient.without);
    };
    let status = &daemon.status;
    let name = &status.tun;
    let network = patient.config.ipv4_network(&status.network);
    let all = netlink::interfaces().unwrap_or_default();
    let index = all.iter().find(|i| i.name == *name).map(|i| i.index);
    let (Some(network), Some(index)) = (network, index) else {
        return Check::skipped(NAME, format!("no {name}"));
    };
    let overlap =
        Connection::open().and_then(|mut kernel| tun::overlap(&mut kernel, index, network));
    match overlap {
        Err(e) => return Check::skipped(NAME, format!("netlink: {e}")),
        Ok(Some(other)) => {
            let detail = format!(
                "{name} has no IPv4 address: {network} of the network overlaps the route to {}/{} of this host",
                other.addr, other.len
            );
            let remedy = "choose other addresses for the network, the same on all its nodes: [tun] ipv4 = \"10.N.0.0/16\" \
                          with an N that is free; then restart lcroute";
            return Check::fail(NAME, detail, remedy);
        }
        Ok(None) => {}
    }
    let Some(address) = status.ipv4 else {
        let detail = format!("{name} has no IPv4 address yet: nodes choose one within seconds");
        return Check::warn(NAME, detail, "ask again in a few seconds");
    };
    match astray(patient, index, &all) {
        Err(e) => return Check::skipped(NAME, format!("netlink: {e}")),
        Ok(astray) if !astray.is_empty() => {
            let detail = format!("{name} has {address}; {}", astray.join(", "));
            let remedy = "see `ip route show table all to root 224.0.0.0/4`: programs that name no interface follow these \
                          routes; remove them, or leave the groups to them with [tun] routes = [PREFIX...]";
            return Check::warn(NAME, detail, remedy);
        }
        Ok(_) => {}
    }
    if super::nft_ruleset().is_some_and(|rules| is_closed(&rules, name, Traffic::Ipv4Groups)) {
        let detail = format!(
            "{name} has {address}; the firewall drops what no rule lets in, and none lets in groups of IPv4 on {name}: programs receive none of them"
        );
        let remedy = format!(
            "nft insert rule inet filter input iifname \"{name}\" accept\n\
             (names of table and chain as on this host; with firewalld, a zone for {name})"
        );
        return Check::warn(NAME, detail, remedy);
    }
    let taken = taken_from_lans(patient, name);
    if !taken.is_empty() {
        let detail = format!(
            "{name} has {address}; joined on other interfaces, while {name} has the route for them: {}",
            taken.join(", ")
        );
        let remedy = "programs that start from now on join them on lc0: restart these to have them there, or leave the \
                      groups to the LAN with [tun] routes = [PREFIX...]";
        return Check::warn(NAME, detail, remedy);
    }
    if let Some(dropped) = status.counters.drops.get("broadcast").filter(|n| **n > 0) {
        let detail = format!(
            "{name} has {address}; programs have sent {dropped} IPv4 broadcasts, which no node carries to others"
        );
        let remedy = format!(
            "`tcpdump -ni {name} broadcast` shows the program: set it to a group (udpcast: --mcast-rdv-address 239.2.2.2)"
        );
        return Check::warn(NAME, detail, remedy);
    }
    let joins = memberships_of_a_socket();
    Check::ok(NAME, format!("{name} has {address}, of {network}{joins}"))
}

/// Returns groups with a route to lc0 that go elsewhere: another route is longer, or rules precede.
fn astray(patient: &Patient, own: u32, all: &[Interface]) -> std::io::Result<Vec<String>> {
    let routes = patient.config.routes();
    let ours = routes.iter().filter_map(GroupPrefix::as_ipv4);
    // the first address of each of our prefixes, and of each other prefix within
    let mut asked: Vec<_> = ours.collect();
    let others = netlink::group_routes()?.into_iter();
    let others = others.filter(|(_, _, index)| *index != own);
    let others = others.filter(|(to, ..)| routes.iter().any(|r| r.contains(mapped::name(*to))));
    asked.extend(others.map(|(to, len, _)| (to, len)));
    let mut found = BTreeSet::new();
    for (group, len) in asked {
        let interface = netlink::interface_to(group)?;
        if interface == Some(own) {
            continue;
        }
        let taker = all.iter().find(|i| Some(i.index) == interface);
        // another node's interface on this host: its routes precede
        if taker.is_some_and(|taker| taker.alias.as_deref() == Some(tun::ALIAS)) {
            continue;
        }
        found.insert(match taker {
            Some(taker) => format!("{group}/{len} goes to {}", taker.name),
            None => format!("{group}/{len} has no route"),
        });
    }
    Ok(found.into_iter().collect())
}

/// Returns the bound for a socket's IPv4 groups: beyond it programs get ENOBUFS.
fn memberships_of_a_socket() -> String {
    let most = super::read("/proc/sys/net/ipv4/igmp_max_memberships").unwrap_or_default();
    match most.parse::<u32>() {
        Ok(most) => {
            format!("; a socket joins {most} groups at most (sysctl net.ipv4.igmp_max_memberships)")
        }
        Err(_) => String::new(),
    }
}

/// Returns groups joined on other interfaces that have routes to lc0.
fn taken_from_lans(patient: &Patient, own: &str) -> Vec<String> {
    let routes = patient.config.routes();
    let table = std::fs::read_to_string("/proc/net/igmp").unwrap_or_default();
    let mut held = BTreeSet::new();
    for (interface, group) in memberships(&table) {
        let is_led = routes.iter().any(|r| r.contains(mapped::name(group)));
        if interface != own && interface != "lo" && is_led {
            held.insert(format!("{group} on {interface}"));
        }
    }
    held.into_iter().collect()
}

/// Parses `/proc/net/igmp`: interfaces, each followed by its groups in native byte order.
fn memberships(table: &str) -> Vec<(&str, Ipv4Addr)> {
    let (mut interface, mut found) = ("", Vec::new());
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        if line.starts_with(char::is_whitespace) {
            let group = u32::from_str_radix(first, 16).map(u32::to_ne_bytes);
            found.extend(group.map(|octets| (interface, Ipv4Addr::from(octets))));
        } else if let Some(name) = words.next() {
            interface = name.trim_end_matches(':');
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_table_is_read() {
        let table = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                     1\tlo        :     1      V3\n\
                     \t\t\t\t010000E0     1 0:00000000\t\t0\n\
                     2\teth0      :     2      V3\n\
                     \t\t\t\t050505EF     1 0:00000000\t\t0\n\
                     \t\t\t\t010000E0     1 0:00000000\t\t0\n";
        let all = Ipv4Addr::new(224, 0, 0, 1);
        let expected = [
            ("lo", all),
            ("eth0", Ipv4Addr::new(239, 5, 5, 5)),
            ("eth0", all),
        ];
        assert_eq!(memberships(table), expected);
        assert!(memberships("").is_empty());
    }
}
