//! The outside: signalling servers, the kind of NAT, links.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use lcroute_signalling::client;
use lcroute_webrtc::{address_request, mapped_address};

use super::{Check, Patient};
use crate::servers::{proxy, stun_names};

/// Timeout of a request; lost ones are repeated.
const TRY: Duration = Duration::from_millis(500);
/// Requests to one STUN server. Chosen.
const TRIES: usize = 3;
/// Most STUN servers asked: two suffice to classify the NAT.
const MAX_SERVERS: usize = 8;

pub(super) fn checks(patient: &Patient) -> Vec<Check> {
    let urls = patient.servers();
    vec![
        signalling(patient, &urls),
        nat(patient, &urls),
        links(patient),
    ]
}

fn signalling(patient: &Patient, urls: &[String]) -> Check {
    const NAME: &str = "signalling";
    if urls.is_empty() {
        if patient.identity.is_none() {
            return Check::skipped(
                NAME,
                "servers stand in the membership, which is not there to be read",
            );
        }
        let remedy = "[signal] servers = [\"ws://HOST:7117\"] in the configuration, or a token made with --signal";
        let detail = "no server is known: nodes find each other on LANs and by texts only";
        return Check::warn(NAME, detail, remedy);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Check::skipped(NAME, "no runtime");
    };
    let proxy = match proxy(&patient.config) {
        Ok(proxy) => proxy,
        Err(e) => return Check::fail(NAME, format!("{e:#}"), "the web proxy of the configuration"),
    };
    let results: Vec<_> = runtime.block_on(async {
        let asked = urls.iter().map(|url| client::probe(url, proxy.as_ref()));
        futures_util::future::join_all(asked).await
    });
    // a pending name lookup must not delay the end
    runtime.shutdown_background();
    let told = urls.iter().zip(&results).map(|(url, result)| match result {
        Ok(time) => format!("{url} answers in {} ms", time.as_millis()),
        Err(e) => format!("{url}: {e:#}"),
    });
    let detail = told.collect::<Vec<_>>().join("; ");
    let remedy = "is `lcroute signal` running there, is its TCP port open, and can this host resolve its name?";
    match results.iter().filter(|r| r.is_ok()).count() {
        0 => Check::fail(NAME, detail, remedy),
        n if n < results.len() => Check::warn(NAME, detail, remedy),
        _ => Check::ok(NAME, detail),
    }
}

fn nat(patient: &Patient, urls: &[String]) -> Check {
    const NAME: &str = "nat";
    let Ok(names) = stun_names(&patient.config, urls) else {
        let why = "no server is asked: no member gets the answer ([ice] policy = \"relay\")";
        return Check::skipped(NAME, why);
    };
    let names = names.iter();
    let resolved = names.filter_map(|name| name.to_socket_addrs().ok());
    let servers: BTreeSet<SocketAddr> = resolved
        .flatten()
        .filter(|a| a.is_ipv4() && !a.ip().is_loopback())
        .take(MAX_SERVERS)
        .collect();
    if servers.is_empty() {
        return Check::skipped(
            NAME,
            "no server with an IPv4 address to ask (IPv6 has no NAT)",
        );
    }
    match ask_all(&servers) {
        Ok(answers) => kind_of_nat(NAME, servers.len(), &answers),
        Err(e) => Check::skipped(NAME, format!("UDP: {e}")),
    }
}

/// The address of one socket as each server sees it.
struct Seen {
    /// The local source address.
    local: SocketAddr,
    mapped: SocketAddr,
}

fn ask_all(servers: &BTreeSet<SocketAddr>) -> std::io::Result<Vec<Seen>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let port = socket.local_addr()?.port();
    let mut seen = Vec::new();
    for server in servers {
        let mut id = [0; 12];
        // a guessed id could only spoil a diagnosis
        let _ = getrandom::fill(&mut id);
        let Some(request) = address_request(id) else {
            continue;
        };
        if let Some(mapped) = ask(&socket, *server, &request, id) {
            let route = UdpSocket::bind("0.0.0.0:0")?;
            route.connect(server)?;
            let local = SocketAddr::new(route.local_addr()?.ip(), port);
            seen.push(Seen { local, mapped });
        }
    }
    Ok(seen)
}

fn ask(socket: &UdpSocket, server: SocketAddr, request: &[u8], id: [u8; 12]) -> Option<SocketAddr> {
    let mut buffer = [0; 1_500];
    for _ in 0..TRIES {
        socket.send_to(request, server).ok()?;
        let until = Instant::now() + TRY;
        // other servers may answer as well, or late
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .ok()?;
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                break;
            };
            if from == server
                && let Some(mapped) = mapped_address(&buffer[..length], id)
            {
                return Some(mapped);
            }
        }
    }
    None
}

fn kind_of_nat(name: &'static str, asked: usize, seen: &[Seen]) -> Check {
    let Some(first) = seen.first() else {
        let detail = format!("none of {asked} servers answers STUN: UDP does not come back");
        let remedy = "let outgoing UDP and its answers pass the firewalls on the way (to UDP port 7117 of the signalling server, and to any)";
        return Check::fail(name, detail, remedy);
    };
    if seen.iter().all(|s| s.local == s.mapped) {
        return Check::ok(name, format!("none: this host is {}", first.mapped.ip()));
    }
    if seen.iter().any(|s| s.mapped != first.mapped) {
        let detail = "another port for each destination (symmetric): direct links only to hosts that are not behind the like of it";
        let remedy = "nothing has to be done: others relay. For direct links forward a UDP port to this host, and set [ice] port";
        return Check::warn(name, detail, remedy);
    }
    if seen.len() < 2 {
        let detail = format!(
            "behind one ({}); one server cannot tell its kind",
            first.mapped.ip()
        );
        return Check::ok(name, detail);
    }
    let detail = format!(
        "behind one ({}) that keeps the port for every destination: direct links work",
        first.mapped.ip()
    );
    Check::ok(name, detail)
}

fn links(patient: &Patient) -> Check {
    const NAME: &str = "links";
    let Some(daemon) = &patient.daemon else {
        return Check::skipped(NAME, patient.without);
    };
    if daemon.status.state == lcroute_control::status::State::Expelled {
        return Check::skipped(NAME, "this node has been expelled: see certificate");
    }
    if daemon.status.key_conflict.is_some() && daemon.status.peers == 0 {
        return Check::skipped(NAME, "another host has this node's key: see identity");
    }
    let refused: Vec<String> = daemon
        .peers
        .iter()
        .filter(|p| p.state == "refused" && p.peer_id != daemon.status.peer_id)
        .map(|p| {
            let who = p.name.clone().unwrap_or_else(|| p.peer_id.to_string());
            format!(
                "{who}: {}",
                p.reason.as_deref().unwrap_or("no reason given")
            )
        })
        .collect();
    if !refused.is_empty() {
        let remedy = "compare clocks, versions and networks (lcroute id) of both; one that was revoked needs a new key and token";
        return Check::warn(NAME, format!("refused: {}", refused.join("; ")), remedy);
    }
    let of_two_hosts = daemon.peers.iter().filter(|p| p.state == "connected");
    let of_two_hosts = of_two_hosts.filter_map(|p| Some((p, p.reason.as_ref()?)));
    let of_two_hosts: Vec<String> = of_two_hosts
        .map(|(p, why)| format!("{}: {why}", p.name.as_deref().unwrap_or("?")))
        .collect();
    if !of_two_hosts.is_empty() {
        let remedy = format!(
            "on one of its two hosts: {}",
            lcroute_control::status::NEW_KEY
        );
        return Check::warn(NAME, of_two_hosts.join("; "), remedy);
    }
    let up = daemon
        .peers
        .iter()
        .filter(|p| p.state == "connected")
        .count();
    if up == 0 {
        let remedy = "is another node of the network running, and can both reach a common signalling server?";
        return Check::warn(NAME, "none yet", remedy);
    }
    Check::ok(NAME, format!("{up} up"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn seen(local: &str, mapped: &str) -> Seen {
        Seen {
            local: local.parse().unwrap(),
            mapped: mapped.parse().unwrap(),
        }
    }

    #[test]
    fn kinds_of_nat_are_told_apart() {
        let host = "10.0.0.2:5000";
        for (answers, state, says) in [
            (vec![], State::Fail, "UDP does not come back"),
            (vec![seen(host, host)], State::Ok, "none: "),
            (
                vec![seen(host, "192.0.2.1:5000")],
                State::Ok,
                "one server cannot tell",
            ),
            (
                vec![seen(host, "192.0.2.1:7000"), seen(host, "192.0.2.1:7000")],
                State::Ok,
                "every destination",
            ),
            (
                vec![seen(host, "192.0.2.1:7000"), seen(host, "192.0.2.1:7001")],
                State::Warn,
                "symmetric",
            ),
        ] {
            let check = kind_of_nat("nat", 2, &answers);
            assert_eq!(check.state, state, "{check:?}");
            assert!(check.detail.contains(says), "{check:?}");
        }
    }
}
