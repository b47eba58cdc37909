//! The UDP port of all links, which stays the same, and where callers of the open key reach it;
//! without I/O.

use std::net::{IpAddr, SocketAddr};

use lcroute_overlay::{Candidate, CandidateKind};

/// Returns whether this is an address of the Internet, not of a network behind a NAT.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

/// Returns whether a caller at this address shows that callers from the Internet arrive.
pub(crate) fn is_from_afar(at: SocketAddr) -> bool {
    is_public(at.ip())
}

/// The facts about a host from which it follows where callers reach it.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// Its addresses.
    pub(crate) candidates: &'a [Candidate],
    /// Its port.
    pub(crate) port: u16,
    /// A caller from the Internet has arrived without a server.
    pub(crate) called: bool,
    /// A server introduces callers.
    pub(crate) has_server: bool,
}

/// Returns where callers reach this host, or what to do; none: servers introduce them.
pub(crate) fn reached(facts: &Facts<'_>) -> Option<String> {
    let port = facts.port;
    let seen = |kind| move |candidate: &&Candidate| candidate.kind == kind;
    let all = || facts.candidates.iter();
    let all = || all().filter(|candidate| is_public(candidate.addr.ip()));
    if let Some(mapped) = all().find(seen(CandidateKind::Mapped)) {
        return Some(format!("reached at {} (mapped)", mapped.addr));
    }
    let outer = all().find(seen(CandidateKind::ServerReflexive));
    let host = all().find(seen(CandidateKind::Host));
    match (facts.called, outer.or(host), host) {
        (true, Some(best), _) => Some(format!("reached at {}", best.addr)),
        (true, None, _) => Some(format!("reached at UDP port {port}")),
        (false, _, Some(host)) => Some(format!(
            "reached at {}, where the firewall lets in UDP port {port}",
            host.addr
        )),
        (false, ..) if facts.has_server => None,
        (false, ..) => Some(format!("closed: forward UDP port {port}, or name a place")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(all: &[(CandidateKind, &str)]) -> Vec<Candidate> {
        let all = all.iter().map(|(kind, addr)| Candidate {
            kind: *kind,
            addr: addr.parse().unwrap(),
        });
        all.collect()
    }

    #[test]
    fn a_host_behind_a_nat_is_closed_until_somebody_arrives_or_a_server_introduces() {
        let inner = [(CandidateKind::Host, "192.168.1.2:50000")];
        let outer = (CandidateKind::ServerReflexive, "203.0.113.7:50000");
        let (inner, both) = (candidates(&inner), candidates(&[inner[0], outer]));
        let said = |candidates, called, has_server| {
            reached(&Facts {
                candidates,
                port: 50_000,
                called,
                has_server,
            })
        };
        let closed = "closed: forward UDP port 50000, or name a place";
        for candidates in [&inner, &both] {
            assert_eq!(said(candidates, false, false).as_deref(), Some(closed));
            assert_eq!(said(candidates, false, true), None);
        }
        let at = |text: &str| Some(format!("reached at {text}"));
        assert_eq!(said(&both, true, false), at("203.0.113.7:50000"));
        assert_eq!(said(&inner, true, false), at("UDP port 50000"));
    }

    #[test]
    fn a_port_that_the_router_maps_is_open_unless_the_router_is_behind_a_nat_itself() {
        let inner = (CandidateKind::Host, "192.168.1.2:50000");
        let outer = (CandidateKind::ServerReflexive, "203.0.113.7:50000");
        for (mapped, expected) in [
            ("203.0.113.7:50001", "reached at 203.0.113.7:50001 (mapped)"),
            (
                "100.64.0.7:50001",
                "closed: forward UDP port 50000, or name a place",
            ),
        ] {
            let candidates = candidates(&[inner, (CandidateKind::Mapped, mapped), outer]);
            let said = reached(&Facts {
                candidates: &candidates,
                port: 50_000,
                called: false,
                has_server: false,
            });
            assert_eq!(said.as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_public_address_is_reached_through_its_firewall() {
        for address in ["203.0.113.7:50000", "[2001:db8::1]:50000"] {
            let candidates = candidates(&[(CandidateKind::Host, address)]);
            let facts = |called| Facts {
                candidates: &candidates,
                port: 50_000,
                called,
                has_server: true,
            };
            let through =
                format!("reached at {address}, where the firewall lets in UDP port 50000");
            assert_eq!(reached(&facts(false)), Some(through));
            assert_eq!(reached(&facts(true)), Some(format!("reached at {address}")));
        }
    }

    #[test]
    fn addresses_of_homes_and_providers_are_not_of_the_internet() {
        for (ip, expected) in [
            ("203.0.113.7", true),
            ("192.168.1.2", false),
            ("100.64.1.1", false),
            ("127.0.0.1", false),
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("::1", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
