//! Carriers by which nodes find each other without a signalling server.

use lcroute_control::config::Silent;
use librecast_program::cli::MDNS_RULE;

use super::firewall::{Traffic, is_closed};
use super::{Check, Patient};
use crate::netlink;
use crate::servers::{account, room};

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    vec![
        discovery(patient),
        spool(patient),
        dht(patient),
        matrix(patient),
    ]
}

/// Reason for not publishing records.
const HIDDEN: &str =
    "it would show this host's addresses to all members ([ice] policy = \"relay\")";

/// Returns the number of the daemon's links that this carrier signalled.
fn met_by(patient: &Patient, kind: &str) -> usize {
    let peers = patient.daemon.iter().flat_map(|daemon| &daemon.peers);
    let of_kind = peers.filter(|peer| peer.carrier.as_deref() == Some(kind));
    of_kind.count()
}

/// Explains the rule by which hosts of a LAN find each other.
const OF_RULE: &str =
    "(names of table and chain as on this host; ufw has it; firewalld: --add-service=mdns)";

/// Checks discovery of nodes on LANs of this host.
fn discovery(patient: &Patient) -> Check {
    const NAME: &str = "discovery";
    let config = &patient.config;
    match config.exposure().lans() {
        Ok(()) => {}
        Err(Silent::Off) => {
            return Check::skipped(NAME, "LANs are not looked at: [signal] lan = false");
        }
        Err(Silent::Hidden) => {
            return Check::skipped(NAME, format!("LANs are not looked at: {HIDDEN}"));
        }
    }
    let only = &config.ice.interfaces;
    let only = (!only.is_empty()).then_some(only.as_slice());
    let lans = match netlink::lan_interfaces(&[&config.tun.name], only) {
        Ok(lans) => lans,
        Err(e) => return Check::skipped(NAME, format!("interfaces of this host: {e}")),
    };
    if lans.is_empty() {
        return Check::skipped(NAME, "this host is on no LAN");
    }
    let lans: Vec<_> = lans.into_iter().collect();
    let names = lans.join(", ");
    if lcroute_signalling::is_mdns_taken() {
        let detail = "another program has UDP port 5353 for itself: nodes on LANs are found by IPv4 or IPv6 alone, or not at all";
        let remedy = "let it share the port (avahi-daemon: disallow-other-stacks=no), or end it";
        return Check::warn(NAME, detail, remedy);
    }
    let linked = met_by(patient, "lan");
    if linked > 0 {
        return Check::ok(NAME, format!("linked with {linked} on {names}"));
    }
    let detail = format!("nodes are looked for on {names} by multicast DNS");
    match super::nft_ruleset() {
        Some(rules) if is_mdns_closed(&rules, &lans) => Check::warn(
            NAME,
            format!(
                "{detail}; the firewall drops what no rule lets in, and none lets in UDP port 5353: no node is found there"
            ),
            format!("{MDNS_RULE}\n{OF_RULE}"),
        ),
        Some(_) => Check::ok(NAME, format!("{detail}; this host's firewall lets it in")),
        None => Check::ok(
            NAME,
            format!("{detail}; the firewall was not looked at: nft is not there, or needs root"),
        ),
    }
}

/// Whether the firewall drops multicast DNS on these interfaces: by port, or by its groups.
fn is_mdns_closed(rules: &str, lans: &[String]) -> bool {
    const GROUPS: [&str; 5] = [
        "ff02::fb",
        "ff02::/16",
        "ff00::/8",
        "224.0.0.",
        "pkttype multicast",
    ];
    let is_on_lan = |line: &str| {
        !line.contains("iif")
            || lans
                .iter()
                .any(|name| line.contains(&format!("\"{name}\"")))
    };
    let admits = |line: &str| {
        line.contains("accept")
            && GROUPS.iter().any(|group| line.contains(group))
            && is_on_lan(line)
    };
    let is_closed_on = |name: &String| is_closed(rules, name, Traffic::MulticastDns);
    !lans.is_empty() && lans.iter().all(is_closed_on) && !rules.lines().any(admits)
}

/// Checks the folder that nodes share.
fn spool(patient: &Patient) -> Check {
    const NAME: &str = "spool";
    let folder = match patient.config.exposure().spool() {
        Ok(folder) => folder,
        Err(Silent::Off) => {
            return Check::skipped(NAME, "no folder is shared ([signal] spool)");
        }
        Err(Silent::Hidden) => {
            return Check::skipped(NAME, format!("the folder is not used: {HIDDEN}"));
        }
    };
    let shown = folder.display();
    let remedy = "make the folder, and let the daemon's user (lcroute) write in it";
    match std::fs::read_dir(folder) {
        Err(e) => Check::fail(NAME, format!("{shown}: {e}"), remedy),
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.path());
            let records = names.filter(|path| path.extension().is_some_and(|e| e == "lcroute"));
            let (records, linked) = (records.count(), met_by(patient, "spool"));
            let detail = format!("{shown}: {records} nodes have a file there, {linked} are linked");
            Check::ok(NAME, detail)
        }
    }
}

/// Checks the DHT.
fn dht(patient: &Patient) -> Check {
    const NAME: &str = "dht";
    match patient.config.exposure().dht() {
        Ok(_) => {}
        Err(Silent::Off) => return Check::skipped(NAME, "no DHT is used ([signal] dht)"),
        Err(Silent::Hidden) => {
            return Check::skipped(NAME, format!("the DHT is not used: {HIDDEN}"));
        }
    }
    let status = patient.daemon.as_ref().map(|daemon| &daemon.status);
    let Some(status) = status else {
        return Check::skipped(NAME, patient.without);
    };
    let door = status.doors.iter().find(|door| door.kind == "dht");
    let Some(door) = door else {
        let remedy = "lcroute reload; the daemon's log says why, if that does not help";
        return Check::fail(NAME, "the daemon does not use it", remedy);
    };
    let note = door.note.as_deref().unwrap_or("?");
    if !door.open {
        let remedy = "systemctl enable --now lcroute-reach; it needs IPv4, UDP to any port of any host, and names of `dht_bootstrap`";
        return Check::warn(NAME, note, remedy);
    }
    let linked = met_by(patient, "dht");
    let detail = format!(
        "{note}; linked with {linked} by it; nodes of the DHT see this host's address and when it looks for whom, and neither names nor addresses in a record"
    );
    Check::ok(NAME, detail)
}

/// Checks the Matrix room.
fn matrix(patient: &Patient) -> Check {
    const NAME: &str = "matrix";
    let identity = patient.identity.as_ref();
    let token = identity.map(|i| i.membership.signal.clone());
    let token = token.unwrap_or_default();
    let matrix = match patient.config.exposure().matrix() {
        Ok(matrix) => matrix,
        Err(Silent::Hidden) => {
            return Check::skipped(NAME, format!("the room is not used: {HIDDEN}"));
        }
        Err(Silent::Off) => {
            return match room(&patient.config, &token) {
                None => Check::skipped(NAME, "no Matrix room is used ([matrix])"),
                Some(room) => Check::warn(
                    NAME,
                    format!("nodes meet in the room {room}, and this one has no account"),
                    "homeserver and token-file under [matrix]; then lcroute reload, and systemctl enable --now lcroute-reach",
                ),
            };
        }
    };
    let status = patient.daemon.as_ref().map(|daemon| &daemon.status);
    let Some(status) = status else {
        return Check::skipped(NAME, patient.without);
    };
    let door = status.doors.iter().find(|door| door.kind == NAME);
    let Some(door) = door else {
        let why = account(&patient.config, &token).err();
        let why = why.map_or("the daemon does not use it".into(), |e| format!("{e:#}"));
        let remedy = "the token's file is for the daemon's user alone (chown lcroute, chmod 600); then lcroute reload";
        return Check::fail(NAME, why, remedy);
    };
    let note = door.note.as_deref().unwrap_or("?");
    if !door.open {
        let remedy = "docs/guide/finding.md says what a room needs; lcroute-reach must run: systemctl enable --now lcroute-reach";
        return Check::warn(NAME, format!("{}: {note}", door.at), remedy);
    }
    let linked = met_by(patient, NAME);
    let detail = format!("{}: {note}; linked with {linked} by it", door.at);
    let homeserver = matrix.homeserver.as_deref().unwrap_or_default();
    if homeserver.starts_with("http://") {
        let remedy = "https:// in [matrix] homeserver, unless the way there is safe in itself";
        let detail = format!("{detail}; the access token goes over the network in the clear");
        return Check::warn(NAME, detail, remedy);
    }
    Check::ok(NAME, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firewall_that_drops_multicast_dns_on_a_lan_is_told_from_one_that_does_not() {
        for (closed, policy, rule) in [
            (false, "accept", "ct state established,related accept"),
            (true, "drop", "ct state established,related accept"),
            (true, "drop", "iifname \"lc0\" ip6 daddr ff00::/8 accept"),
            (true, "drop", "iifname \"lc0\" accept"),
            (true, "drop", "udp dport 22 accept"),
            (false, "drop", "udp dport 5353 accept"),
            (false, "drop", "iifname \"eth0\" accept"),
            (false, "drop", "ip6 daddr ff02::fb accept"),
            (false, "drop", "meta pkttype multicast accept"),
        ] {
            let rules = format!(
                "table inet filter {{\n\tchain input {{\n\t\ttype filter hook input priority filter; \
                 policy {policy};\n\t\t{rule}\n\t}}\n}}\n"
            );
            let lans = ["eth0".to_owned()];
            assert_eq!(is_mdns_closed(&rules, &lans), closed, "{policy}: {rule}");
        }
    }
}
