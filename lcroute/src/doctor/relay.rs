//! Checks whether relays answer, for links without a direct path.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lcroute_control::config::Leg;
use lcroute_control::status::{Peer, Relay};
use lcroute_signalling::look_up;
use lcroute_signalling::proxy::Proxy;
use lcroute_signalling::relay_stream::{RelayTarget, StreamPort, probe};
use lcroute_webrtc::relay::{is_relay_answer, relay_probe};
use librecast::signalling::stun_name;

use super::{Check, Patient};
use crate::relays::NO_RELAY;
use crate::servers::proxy;

/// Timeout for a relay's answer. Chosen.
const TRY: Duration = Duration::from_millis(500);
/// Requests to one relay. Chosen.
const TRIES: usize = 3;

/// Remedy for a missing relay.
const REMEDY: &str =
    "have a server relay (lcroute signal does unless --no-relay), or name one in [relay] turn";

/// Remedy for a relay that refuses the addresses of members.
const PRIVATE: &str = "if these hosts have private addresses: [relay] private = true on the host of the server, then restart that";
/// Members shown. Chosen: a line.
const MAX_SHOWN: usize = 5;

/// A relay and the transports to it.
struct Candidate {
    url: String,
    udp: Option<String>,
    stream: Option<RelayTarget>,
}

pub(super) fn check(patient: &Patient) -> Check {
    const NAME: &str = "relay";
    let known = candidates(patient);
    let hides = patient.config.exposure().hides();
    if known.is_empty() && hides {
        return Check::fail(NAME, NO_RELAY, REMEDY);
    }
    if known.is_empty() {
        return Check::skipped(NAME, "no signalling server, and no [relay] turn");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return Check::skipped(NAME, "no runtime");
    };
    let mut works = false;
    let mut told = Vec::new();
    if hides {
        told.push(policy(patient.config.exposure().disclosed().len()));
    }
    for relay in known {
        let udp = relay.udp.map(|name| {
            let servers = runtime.block_on(look_up(&name)).unwrap_or_default();
            ("UDP", ask(&servers))
        });
        let stream = relay.stream.map(|target| {
            let kind = match target.ports.as_slice() {
                [port] if port.tls => "TLS",
                [_] => "TCP",
                // a server that is named by its host
                _ => "TLS or TCP",
            };
            (kind, runtime.block_on(probe(&target)).is_ok())
        });
        let legs: Vec<_> = udp.into_iter().chain(stream).collect();
        works |= legs.iter().any(|(_, answers)| *answers);
        let says = |(leg, answers): &(&str, bool)| match answers {
            true => format!("{leg} works"),
            false => format!("no answer by {leg}"),
        };
        let legs: Vec<_> = legs.iter().map(says).collect();
        told.push(format!("{}: {}", relay.url, legs.join(", ")));
    }
    // a pending name lookup must not delay the end
    runtime.shutdown_background();
    if let Some(daemon) = &patient.daemon {
        let relay = &daemon.status.relay;
        match (&relay.url, relay.address) {
            (Some(url), Some(address)) => told.push(format!("in use: {url}, as {address}")),
            _ if relay.offered > 0 => told.push("not needed now".into()),
            _ => {}
        }
        told.extend(relay.failure.clone());
    }
    let detail = told.join("; ");
    let refused = patient.daemon.as_ref().and_then(|daemon| {
        let unlinked = daemon.peers.iter().filter(|peer| peer.state != "connected");
        let unlinked: Vec<_> = unlinked.map(Peer::shown).take(MAX_SHOWN).collect();
        refused(&daemon.status.relay, &unlinked)
    });
    if let Some(refused) = refused {
        return Check::warn(NAME, format!("{detail}; {refused}"), PRIVATE);
    }
    if works {
        Check::ok(NAME, detail)
    } else {
        let unlinked = match hides {
            true => "nobody but members of [ice] disclose can be linked",
            false => "links that no direct path leads to do not come about",
        };
        let remedy = format!("{unlinked}: {REMEDY}");
        match hides {
            true => Check::fail(NAME, detail, &remedy),
            false => Check::warn(NAME, detail, &remedy),
        }
    }
}

/// Describes a relay that refuses addresses while members are without a link.
fn refused(relay: &Relay, unlinked: &[String]) -> Option<String> {
    (relay.refuses_peers && !unlinked.is_empty()).then(|| {
        format!(
            "it refuses addresses of members, and there is no link with {}",
            unlinked.join(", ")
        )
    })
}

/// Describes the effect of `[ice] policy = "relay"`.
fn policy(disclosed: usize) -> String {
    let whom = match disclosed {
        0 => "all members".to_owned(),
        _ => format!("members that none of the {disclosed} entries of disclose means"),
    };
    format!(
        "[ice] policy = \"relay\": {whom} are linked over relays alone and do not learn this host's addresses; signalling servers and relays do, unless [signal] socks"
    )
}

fn candidates(patient: &Patient) -> Vec<Candidate> {
    let proxy = proxy(&patient.config).ok().flatten();
    let hides = proxy.as_ref().is_some_and(Proxy::hides);
    let of_servers = patient.servers().into_iter().map(|url| Candidate {
        // a proxy hides this host from servers
        udp: stun_name(&url).filter(|_| !hides),
        stream: RelayTarget::of_signalling(&url, proxy.clone()),
        url,
    });
    let configured = patient.config.relay.turn.iter().map(|turn| Candidate {
        url: turn.to_string(),
        udp: (turn.leg == Leg::Udp || (turn.leg == Leg::Any && !hides)).then(|| turn.authority()),
        stream: (turn.leg != Leg::Udp).then(|| RelayTarget {
            host: turn.host.clone(),
            ports: vec![StreamPort {
                port: turn.port,
                tls: turn.leg == Leg::Tls,
            }],
            proxy: proxy.clone(),
        }),
    });
    configured.chain(of_servers).collect()
}

fn ask(servers: &[SocketAddr]) -> bool {
    let mut servers = servers.iter().take(2);
    servers.any(|server| ask_one(*server).unwrap_or(false))
}

fn ask_one(server: SocketAddr) -> std::io::Result<bool> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(TRY))?;
    let mut id = [0; 12];
    // a guessed id could only spoil a diagnosis
    let _ = getrandom::fill(&mut id);
    let request = relay_probe(id).unwrap_or_default();
    let mut buffer = [0; 1_500];
    for _ in 0..TRIES {
        socket.send(&request)?;
        if let Ok(length) = socket.recv(&mut buffer)
            && is_relay_answer(&buffer[..length], id)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_refuses_members_matters_while_one_has_no_link() {
        let refuses = Relay {
            refuses_peers: true,
            ..Relay::default()
        };
        let beta = ["beta".to_owned()];
        assert!(refused(&refuses, &beta).unwrap().contains("beta"));
        assert_eq!(refused(&refuses, &[]), None);
        assert_eq!(refused(&Relay::default(), &beta), None);
    }
}
