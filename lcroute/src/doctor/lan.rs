//! LANs of which this node is configured as a gateway.

use std::net::IpAddr;
use std::path::Path;

use lcroute_control::config;
use lcroute_control::status::Lan;

use super::{Check, Daemon, NOT_TO_ASK, Patient, read};
use crate::lan;

const NAME: &str = "lans";
const RELOAD: &str = "`lcroute reload` takes the configuration over";

/// A problem of a LAN, and its remedy.
type Complaint = (String, String);

pub(super) fn check(patient: &Patient) -> Check {
    let lans = &patient.config.lan;
    if lans.is_empty() {
        return Check::skipped(NAME, "no [[lan]]: this node is no gateway");
    }
    if patient.without == NOT_TO_ASK {
        return Check::skipped(NAME, NOT_TO_ASK);
    }
    let looked = match &patient.daemon {
        Some(daemon) => served(daemon),
        None => unserved(lans),
    };
    let mut complaints: Vec<Complaint> = Vec::new();
    let mut names = Vec::new();
    // a name precedes a pattern
    let (patterns, named): (Vec<_>, Vec<_>) = lans.iter().partition(|lan| lan.is_pattern());
    for lan in named.into_iter().chain(patterns) {
        let here = looked
            .iter()
            .filter(|(name, _)| lan.is_on(name) && !names.contains(name));
        let here: Vec<_> = here.collect();
        match (here.is_empty(), lan.is_pattern()) {
            // a matching interface may appear later
            (true, true) => names.push(format!("{} (none now)", lan.interface)),
            (true, false) if patient.daemon.is_some() => complaints.push((
                format!("{}: the daemon does not know it", lan.interface),
                RELOAD.into(),
            )),
            _ => names.extend(here.iter().map(|(name, _)| name.clone())),
        }
        complaints.extend(here.iter().filter_map(|(_, complaint)| complaint.clone()));
    }
    let mut notes = notes(patient);
    notes.extend(cut_bridges(&names));
    if complaints.is_empty() && !notes.is_empty() {
        let (details, remedies): (Vec<_>, Vec<_>) = notes.into_iter().unzip();
        return Check::warn(NAME, details.join("; "), remedies.join("\n"));
    }
    if complaints.is_empty() {
        let detail = match patient.daemon {
            Some(_) => "all is well on",
            None => "the daemon will serve",
        };
        return Check::ok(NAME, format!("{detail} {}", names.join(" ")));
    }
    let (problems, remedies): (Vec<_>, Vec<_>) = complaints.into_iter().unzip();
    Check::fail(NAME, problems.join("; "), remedies.join("\n"))
}

/// Returns notes about switches that may withhold joins, and about segments.
fn notes(patient: &Patient) -> Vec<Complaint> {
    let lans = patient.daemon.iter().flat_map(|daemon| &daemon.lans);
    let switches = lans.clone().filter_map(|lan| {
        let note = lan.note.as_ref()?;
        let querier = lan.querier_ipv4.as_deref().unwrap_or_default();
        let detail = format!("{}: IPv4 queries come from {querier}", lan.interface);
        Some((detail, note.clone()))
    });
    let segments = lans.filter_map(|lan| of_segment(lan, true));
    switches.chain(segments).collect()
}

/// Returns the fault of a LAN's segment, if this node's certificate permits it or not.
fn of_segment(lan: &Lan, permitted: bool) -> Option<Complaint> {
    let segment = lan.segment.as_ref();
    let segment = segment.filter(|segment| segment.permitted == permitted)?;
    let problem = segment.problem.as_ref()?;
    let detail = format!("{}, segment {}: {problem}", lan.interface, segment.name);
    Some((detail, segment.remedy.clone().unwrap_or_default()))
}

/// Returns bridges between whose ports a firewall drops packets, as some container engines do. The
/// gateway's own packets are not affected.
fn cut_bridges(names: &[String]) -> Vec<Complaint> {
    let is_bridge = |name: &&String| {
        Path::new("/sys/class/net")
            .join(name)
            .join("bridge")
            .exists()
    };
    let mut bridges = names.iter().filter(is_bridge).peekable();
    // without br_netfilter the firewall ignores packets between ports of a bridge
    let filtered = |switch: &str| {
        read(Path::new("/proc/sys/net/bridge").join(switch)).is_ok_and(|on| on == "1")
    };
    let families = FAMILIES.iter().filter(|(_, switch)| filtered(switch));
    let families: Vec<_> = families.collect();
    if bridges.peek().is_none() || families.is_empty() {
        return Vec::new();
    }
    let Some(rules) = super::nft_ruleset() else {
        return Vec::new();
    };
    let interfaces = crate::netlink::interfaces().unwrap_or_default();
    let cut = |name: &String| {
        let found = interfaces.iter().find(|found| found.name == *name)?;
        let ipv6 = found.addresses.iter().copied().map(IpAddr::V6);
        let ipv4 = found.ipv4.iter().map(|(address, _)| IpAddr::V4(*address));
        let own: Vec<_> = ipv6.chain(ipv4).collect();
        let (family, switch) = families
            .iter()
            .find(|(family, _)| is_cut(&rules, family, name, &own))?;
        let detail =
            format!("{name}: the firewall drops {family} packets between its ports (br_netfilter)");
        let remedy = format!(
            "sysctl -w net.bridge.{switch}=0, or let them pass: nft insert rule {family} filter FORWARD iifname \"{name}\" oifname \"{name}\" accept (chain as on this host)"
        );
        Some((detail, remedy))
    };
    bridges.filter_map(cut).collect()
}

/// Families of nftables, and the sysctl that passes packets of bridges to their chains.
const FAMILIES: [(&str, &str); 2] = [
    ("ip6", "bridge-nf-call-ip6tables"),
    ("ip", "bridge-nf-call-iptables"),
];

/// Whether these rules, as nft prints them, forward nothing between ports of a bridge with these
/// addresses: a chain of the family drops by policy, and no rule accepts packets within the bridge.
fn is_cut(rules: &str, family: &str, bridge: &str, own: &[IpAddr]) -> bool {
    let (mut concerns, mut drops, mut accepts) = (false, false, false);
    for line in rules.lines() {
        if let Some(table) = line.strip_prefix("table ") {
            let of = table.split(' ').next();
            concerns = of == Some(family) || of == Some("inet");
        }
        drops |= concerns && line.contains("hook forward") && line.contains("policy drop");
        accepts |= concerns && accepts_inside(line, bridge, own);
    }
    drops && !accepts
}

/// Whether a rule accepts packets from a port or address of the bridge to another port.
fn accepts_inside(rule: &str, bridge: &str, own: &[IpAddr]) -> bool {
    let words: Vec<_> = rule.split_whitespace().collect();
    let after = |word| {
        words
            .iter()
            .position(|w| *w == word)
            .and_then(|at| words.get(at + 1))
    };
    let bridge = format!("\"{bridge}\"");
    let is_bridge = |end| after(end).map(|name| **name == *bridge);
    let from = is_bridge("iifname").or_else(|| after("saddr").map(|prefix| covers(prefix, own)));
    let narrowed = ["ct", "daddr", "dport", "sport"]
        .iter()
        .any(|word| words.contains(word));
    words.last() == Some(&"accept")
        && from == Some(true)
        && is_bridge("oifname") != Some(false)
        && !narrowed
}

/// Whether a prefix in nft's notation contains one of the addresses.
fn covers(prefix: &str, own: &[IpAddr]) -> bool {
    let Some((address, length)) = prefix.split_once('/') else {
        return false;
    };
    let (Ok(address), Ok(length)) = (address.parse(), length.parse::<u32>()) else {
        return false;
    };
    own.iter().any(|own| match (own, address) {
        (IpAddr::V6(own), IpAddr::V6(address)) => {
            let differ = own.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= length
        }
        (IpAddr::V4(own), IpAddr::V4(address)) => {
            let differ = own.to_bits() ^ address.to_bits();
            differ.leading_zeros() >= length
        }
        _ => false,
    })
}

/// Returns interfaces as the daemon reports them.
fn served(daemon: &Daemon) -> Vec<(String, Option<Complaint>)> {
    let said = daemon.lans.iter().map(|said| {
        let complaint = said.problem.as_ref().map(|problem| {
            let name = &said.interface;
            let remedy = said.remedy.clone().unwrap_or_default();
            (format!("{name} ({}): {problem}", said.role), remedy)
        });
        let complaint = complaint.or_else(|| of_segment(said, false));
        (said.interface.clone(), complaint)
    });
    said.collect()
}

/// Returns interfaces as the kernel reports them.
fn unserved(lans: &[config::Lan]) -> Vec<(String, Option<Complaint>)> {
    // an unreadable interface is not a complaint
    let looked = lan::look(lans).unwrap_or_default().into_iter();
    let said = looked.map(|(name, complaint)| {
        let complaint = complaint.map(|c| (format!("{name}: {}", c.problem), c.remedy));
        (name, complaint)
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output of nft for rules of iptables and Docker.
    const RULES: &str = "table ip filter {
\tchain FORWARD {
\t\ttype filter hook forward priority filter; policy drop;
\t\tcounter packets 4 bytes 240 jump DOCKER-USER
\t\tiifname \"docker0\" oifname \"docker0\" counter packets 0 bytes 0 accept
\t}
}
table ip6 filter {
\tchain FORWARD {
\t\ttype filter hook forward priority filter; policy accept;
\t}
}
";

    #[test]
    fn a_bridge_is_cut_where_nothing_is_forwarded_and_no_rule_lets_its_own_packets_pass() {
        let is_cut = |rules: &str, family, bridge| is_cut(rules, family, bridge, &[]);
        assert!(is_cut(RULES, "ip", "br-1"));
        assert!(!is_cut(RULES, "ip", "docker0"));
        assert!(!is_cut(RULES, "ip6", "br-1"));
        for (part, other, cut) in [
            // everything from the bridge, as with Docker 28
            (" oifname \"docker0\"", "", false),
            ("oifname \"docker0\"", "oifname \"eth0\"", true),
            ("counter", "ct state established,related counter", true),
        ] {
            let rules = RULES.replace(part, other);
            assert_ne!(rules, RULES);
            assert_eq!(is_cut(&rules, "ip", "docker0"), cut, "{other}");
        }
        let both = RULES.replace("table ip ", "table inet ");
        assert!(is_cut(&both, "ip6", "br-1") && is_cut(&both, "ip", "br-1"));
        assert!(!is_cut("", "ip", "br-1"));
    }

    #[test]
    fn rules_of_netavark_name_the_subnet() {
        let rules = RULES.replace("policy accept", "policy drop").replace(
            "policy drop;\n\t}\n}\n",
            "policy drop;\n\t}\n\tchain NETAVARK_FORWARD {\n\t\tip6 saddr fd10:1::/64 counter packets 3 bytes 155 accept\n\t}\n}\n",
        );
        let own = |address: &str| [address.parse().unwrap()];
        assert!(!is_cut(&rules, "ip6", "podman1", &own("fd10:1::1")));
        assert!(is_cut(&rules, "ip6", "podman1", &own("fd10:2::1")));
        assert!(is_cut(&rules, "ip6", "podman1", &own("10.89.1.1")));
    }
}
