//! lc0: its settings, routes to it, and other programs that change it.

use std::net::Ipv6Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use lcroute_control::Request;
use lcroute_control::status::{Inbound, Status};
use librecast::cert::GroupPrefix;
use librecast::mapped;

use super::{Check, Daemon, NOT_TO_ASK, Patient, read};
use crate::netlink::{self, Egress, Interface};
use crate::tun;

/// Time in which dropped packets are counted: enough for one a second.
const GROWS_WITHIN: Duration = Duration::from_millis(1_200);
/// lcroute's setting for its interface, in packets: shorter queues lose bursts of joins.
const QUEUE: u32 = 10_000;

pub(super) fn checks(patient: &mut Patient) -> Vec<Check> {
    let source = source(patient);
    let patient = &*patient;
    let name = match &patient.daemon {
        Some(daemon) => &daemon.status.tun,
        None => &patient.config.tun.name,
    };
    let all = match netlink::interfaces() {
        Ok(all) => all,
        Err(e) => return vec![Check::skipped("interface", format!("netlink: {e}"))],
    };
    let found = all.iter().find(|i| i.name == *name);
    vec![
        interface(patient, name, found),
        routes(patient, name, found, &all),
        source,
        inbound(patient),
        opened(patient, name),
        reverse_path(patient, found),
        managers(name, found),
    ]
}

fn interface(patient: &Patient, name: &str, found: Option<&Interface>) -> Check {
    const NAME: &str = "interface";
    let heal = "systemctl restart lcroute; if it happens again, see who takes it: `ip monitor link address`";
    let (found, daemon) = match (found, &patient.daemon) {
        (None, None) => {
            return Check::skipped(NAME, format!("no {name}: it comes with the daemon"));
        }
        (None, Some(_)) => {
            return Check::fail(
                NAME,
                format!("{name} is not there, though the daemon runs"),
                heal,
            );
        }
        (Some(_), None) if patient.without == NOT_TO_ASK => {
            return Check::ok(NAME, format!("{name} is there"));
        }
        (Some(_), None) => {
            return Check::ok(NAME, format!("{name} is there, and waits for the daemon"));
        }
        (Some(found), Some(daemon)) => (found, daemon),
    };
    let address = daemon.status.address;
    if !found.up {
        return Check::fail(
            NAME,
            format!("{name} is down"),
            format!("ip link set {name} up"),
        );
    }
    if !found.addresses.contains(&address) {
        return Check::fail(
            NAME,
            format!("{name} has not got its address {address}"),
            heal,
        );
    }
    if found.tx_queue_len < QUEUE {
        let remedy = format!("ip link set {name} txqueuelen {QUEUE}");
        let detail = format!(
            "{name}: txqueuelen {}: bursts of joins may get lost",
            found.tx_queue_len
        );
        return Check::warn(NAME, detail, remedy);
    }
    Check::ok(
        NAME,
        format!("{name} is up with {address}, MTU {}", found.mtu),
    )
}

/// Checks whether programs that name no interface use lc0, by the kernel's routing decision.
fn routes(patient: &Patient, name: &str, found: Option<&Interface>, all: &[Interface]) -> Check {
    const NAME: &str = "routes";
    let mut wanted = patient.config.routes();
    // the IPv4 check covers IPv4
    wanted.retain(|prefix| prefix.as_ipv4().is_none());
    let Some(own) = found.filter(|_| patient.daemon.is_some()) else {
        return Check::skipped(NAME, patient.without);
    };
    if wanted.is_empty() {
        return Check::ok(
            NAME,
            "none are wanted (routes = false): programs have to name the interface",
        );
    }
    let mut astray = Vec::new();
    let mut missing = false;
    // another lcroute interface of this host, which precedes by its metric
    let mut first = None;
    for prefix in &wanted {
        let group = example(prefix);
        match netlink::route_to(group, None) {
            Ok(Some(egress)) if egress.index == own.index => {}
            Ok(Some(egress)) => {
                let taker = all.iter().find(|i| i.index == egress.index);
                let taken = taker.map_or("another interface", |i| i.name.as_str());
                let named = netlink::route_to(group, Some(own.index));
                let is_led = matches!(named, Ok(Some(named)) if named.index == own.index);
                match taker.is_some_and(|i| i.alias.as_deref() == Some(tun::ALIAS)) {
                    true if is_led => first = Some(taken),
                    _ => astray.push(format!("{prefix} goes to {taken}")),
                }
            }
            Ok(None) => {
                missing = true;
                astray.push(format!("{prefix} has no route"));
            }
            Err(e) => return Check::skipped(NAME, format!("{prefix}: {e}")),
        }
    }
    if let Some(first) = first.filter(|_| astray.is_empty()) {
        let detail = format!(
            "programs that name no interface use {first}, of another node on this host; those that name {name} use this one"
        );
        return Check::ok(NAME, detail);
    }
    if astray.is_empty() {
        let shown: Vec<_> = wanted.iter().map(ToString::to_string).collect();
        return Check::ok(NAME, format!("{} go to {name}", shown.join(" ")));
    }
    let see = "see `ip -6 route show table local type multicast` and `ip -6 rule`";
    let remedy = match missing {
        true => format!("{see}; `lcroute reload` sets them anew"),
        false => format!(
            "{see}: remove the longer prefix or the lower metric of the other interface, then `lcroute reload`"
        ),
    };
    Check::fail(NAME, astray.join(", "), remedy)
}

/// Checks whether the kernel chooses the node's address as the source, and whether programs send
/// from another address at present.
fn source(patient: &mut Patient) -> Check {
    const NAME: &str = "source address";
    let mut prefixes = patient.config.routes();
    prefixes.retain(|prefix| prefix.as_ipv4().is_none());
    let Some(daemon) = &mut patient.daemon else {
        return Check::skipped(NAME, patient.without);
    };
    let (name, address) = (daemon.status.tun.clone(), daemon.status.address);
    let index = match netlink::interfaces() {
        Ok(all) => all.iter().find(|i| i.name == name).map(|i| i.index),
        Err(e) => return Check::skipped(NAME, format!("netlink: {e}")),
    };
    let Some(index) = index else {
        return Check::skipped(NAME, format!("no {name}"));
    };
    // carried for programs that name the interface
    prefixes.extend("ff15::/16".parse::<GroupPrefix>());
    for prefix in prefixes.iter().filter(|p| p.addr().octets()[1] & 0x0f > 2) {
        if let Ok(Some(Egress {
            source: Some(other),
            ..
        })) = netlink::route_to(example(prefix), Some(index))
            && other != address
        {
            let detail = format!(
                "to {prefix} programs send from {other}, which is not this node's: dropped as foreign_source"
            );
            let remedy = format!("ip -6 addr del {other} dev {name}, or put it on lo");
            return Check::warn(NAME, detail, remedy);
        }
    }
    match grows(daemon) {
        Some(dropped) => Check::warn(
            NAME,
            format!(
                "a program sends on {name} from an address that is not {address}: {dropped} packets dropped as foreign_source so far"
            ),
            format!(
                "let the program choose no source, or {address}; `tcpdump -ni {name} ip6 and not src {address}` shows it"
            ),
        ),
        None => Check::ok(
            NAME,
            format!("programs that choose none send from {address}"),
        ),
    }
}

/// Returns the number of packets dropped as `foreign_source`, if it grows within [`GROWS_WITHIN`].
fn grows(daemon: &mut Daemon) -> Option<u64> {
    let dropped = |status: &Status| status.counters.drops.get("foreign_source").copied();
    let before = dropped(&daemon.status)?;
    let deadline = Instant::now() + GROWS_WITHIN;
    while Instant::now() < deadline {
        let now = daemon.client.ask::<Status>(&Request::Status);
        let now = now.ok().and_then(|status| dropped(&status))?;
        if now > before {
            return Some(now);
        }
        std::thread::sleep(GROWS_WITHIN / 20);
    }
    None
}

/// Returns a group of the prefix that most likely has no route of its own.
pub(super) fn example(prefix: &GroupPrefix) -> Ipv6Addr {
    let bits = prefix.addr().to_bits();
    let tail: u128 = 0x6c63_646f_6374_6f72;
    let free = u128::MAX
        .checked_shr(prefix.prefix_len().into())
        .unwrap_or(0);
    Ipv6Addr::from_bits(bits | (tail & free))
}

/// Lists everything that the configuration opens, by `profile` or by key.
fn opened(patient: &Patient, name: &str) -> Check {
    const NAME: &str = "opened to members";
    let network = &patient.config.network;
    let groups = network.link_scope_groups();
    let groups: Vec<String> = groups
        .iter()
        .map(|group| mapped::shown(*group).to_string())
        .collect();
    let groups = match groups.is_empty() {
        true => "no group of scope 2".to_owned(),
        false => format!("groups of scope 2: {}", groups.join(" ")),
    };
    if !network.unicast() {
        return Check::ok(NAME, format!("what its programs join; {groups}"));
    }
    let detail = format!("all ports of this host that its firewall leaves open; {groups}");
    let narrower = format!(
        "only these ports: nft insert rule inet filter input iifname \"{name}\" ip6 daddr fd00::/8 \
         meta l4proto {{ tcp, udp }} th dport != {{ 22, 5353 }} ct state new drop"
    );
    Check {
        remedy: Some(narrower),
        ..Check::ok(NAME, detail)
    }
}

fn inbound(patient: &Patient) -> Check {
    const NAME: &str = "inbound firewall";
    let Some(daemon) = &patient.daemon else {
        return Check::skipped(NAME, format!("{}, which tries it", patient.without));
    };
    let tun = &daemon.status.tun;
    match daemon.status.inbound {
        Inbound::Open => Check::ok(NAME, format!("what arrives on {tun} reaches programs")),
        Inbound::Unknown => {
            Check::skipped(NAME, "the daemon is still trying it: ask again in a second")
        }
        Inbound::NoRoute => Check::fail(
            NAME,
            format!(
                "the kernel has no route for groups on {tun}: programs neither send nor receive; no firewall is to blame"
            ),
            "the daemon's log says what the kernel refused (journalctl -u lcroute); `lcroute reload` sets routes anew",
        ),
        Inbound::Blocked => Check::fail(
            NAME,
            format!("this host drops UDP that arrives on {tun}: programs receive nothing"),
            format!(
                "nft insert rule inet filter input iifname \"{tun}\" accept\n\
                 (names of table and chain as on this host; with firewalld, a zone for {tun})"
            ),
        ),
    }
}

/// Checks nftables for a rule that drops packets without a route back.
fn reverse_path(patient: &Patient, found: Option<&Interface>) -> Check {
    const NAME: &str = "reverse path filter";
    let Some(rules) = super::nft_ruleset() else {
        return Check::skipped(NAME, "nft is not there, or needs root");
    };
    if !has_reverse_path_filter(&rules) {
        return Check::ok(NAME, "none in nftables");
    }
    let (Some(own), Some(daemon)) = (found, &patient.daemon) else {
        return Check::skipped(
            NAME,
            "there is one; whether it lets in is seen with the daemon running",
        );
    };
    // packets of another node come from such an address
    let other = Ipv6Addr::from_bits(daemon.status.address.to_bits() ^ 1);
    match netlink::route_to(other, None) {
        Ok(Some(egress)) if egress.index == own.index => Check::ok(
            NAME,
            format!(
                "there is one; the network's addresses lead back to {}",
                own.name
            ),
        ),
        _ => Check::fail(
            NAME,
            format!(
                "the firewall drops what has no way back, and {other} does not lead to {}",
                own.name
            ),
            format!(
                "nft insert rule inet filter prerouting iifname \"{}\" accept (chain as on this host)",
                own.name
            ),
        ),
    }
}

fn has_reverse_path_filter(rules: &str) -> bool {
    rules
        .lines()
        .any(|l| l.contains("fib saddr") && l.contains("oif"))
}

/// Network managers may remove addresses and routes from interfaces of other programs.
fn managers(name: &str, found: Option<&Interface>) -> Check {
    const NAME: &str = "network managers";
    let Some(own) = found else {
        return Check::skipped(NAME, format!("no {name} yet"));
    };
    let index = own.index;
    if let Ok(link) = read(format!("/run/systemd/netif/links/{index}"))
        && is_managed_by_networkd(&link)
    {
        let remedy = "install systemd/05-lcroute.network as /usr/lib/systemd/network/05-lcroute.network, then: networkctl reload";
        return Check::warn(NAME, format!("systemd-networkd manages {name}"), remedy);
    }
    if let Ok(device) = read(format!("/run/NetworkManager/devices/{index}"))
        && is_managed_by_network_manager(&device)
    {
        let remedy = "install systemd/NetworkManager-lcroute.conf as /usr/lib/NetworkManager/conf.d/lcroute.conf, then: nmcli general reload";
        return Check::warn(NAME, format!("NetworkManager manages {name}"), remedy);
    }
    let running: Vec<&str> = [
        ("systemd-networkd", "/run/systemd/netif/links"),
        ("NetworkManager", "/run/NetworkManager"),
    ]
    .into_iter()
    .filter(|(_, path)| Path::new(path).exists())
    .map(|(who, _)| who)
    .collect();
    Check::ok(
        NAME,
        match running.is_empty() {
            true => "none run".to_owned(),
            false => format!("{name} is left alone by {}", running.join(" and ")),
        },
    )
}

fn is_managed_by_networkd(link: &str) -> bool {
    let state = link.lines().find_map(|l| l.strip_prefix("ADMIN_STATE="));
    matches!(
        state,
        Some("configured" | "configuring" | "pending" | "initialized")
    )
}

fn is_managed_by_network_manager(device: &str) -> bool {
    device
        .lines()
        .any(|l| matches!(l, "managed=true" | "managed=1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_manages_an_interface_is_read() {
        assert!(is_managed_by_networkd(
            "# x\nADMIN_STATE=configured\nOPER_STATE=routable\n"
        ));
        assert!(!is_managed_by_networkd("ADMIN_STATE=unmanaged\n"));
        assert!(is_managed_by_network_manager("[device]\nmanaged=true\n"));
        assert!(!is_managed_by_network_manager("[device]\nmanaged=false\n"));
    }

    #[test]
    fn a_reverse_path_filter_is_seen_in_the_rules() {
        assert!(has_reverse_path_filter(
            "  meta nfproto ipv6 fib saddr . mark . iif oif missing drop\n"
        ));
        assert!(!has_reverse_path_filter("  fib daddr type local accept\n"));
    }

    #[test]
    fn the_example_lies_within_its_prefix() {
        for text in ["ff1e::/16", "ff1e:1:2::/48", "ff15::42/128"] {
            let prefix: GroupPrefix = text.parse().unwrap();
            assert!(prefix.contains(example(&prefix)), "{text}");
        }
    }
}
