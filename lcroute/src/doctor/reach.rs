//! Carriers by which nodes find each other without a signalling server.

use lcroute_control::config::Silent;

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
    let names: Vec<_> = lans.into_iter().collect();
    let names = names.join(", ");
    match met_by(patient, "lan") {
        0 => Check::ok(
            NAME,
            format!(
                "nodes are looked for on {names} by multicast DNS; a host firewall must let in UDP 5353 to ff02::fb and 224.0.0.251 \
                 (ufw does; firewalld: zones home and internal, or --add-service=mdns)"
            ),
        ),
        linked => Check::ok(NAME, format!("linked with {linked} on {names}")),
    }
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
