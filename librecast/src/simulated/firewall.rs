//! A firewall of a host that passes only answers, and a NAT (RFC 4787).
//!
//! ```text
//!   host ──send──► mapping ──► outside            endpoint-independent: the same for all outside,
//!   host ◄─────── filtering ◄──admits── outside   address and port-dependent: a port for each
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Time;

/// Time for which a firewall keeps a flow. Chosen: half of the time in RFC 4787, REQ-5.
const LIFETIME: Duration = Duration::from_secs(60);
/// First port of a NAT with a port per destination.
const FIRST_PORT: u16 = 10_000;

/// The dependence of a mapping or filter on the remote side (RFC 4787 §4.1 and §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behavior {
    /// The same for all remote endpoints.
    EndpointIndependent,
    /// Separate for each remote address and port.
    AddressAndPortDependent,
}

use Behavior::EndpointIndependent;

/// The UDP socket of a host behind a firewall. A new one has no NAT and is closed.
#[derive(Debug, Clone)]
pub struct Firewall<T> {
    /// The socket's own address.
    pub host: SocketAddr,
    /// The address of the NAT, if there is one.
    pub nat: Option<SocketAddr>,
    /// The rule for its public addresses.
    pub mapping: Behavior,
    /// The rule for incoming datagrams.
    pub filtering: Behavior,
    /// The address that a gateway forwards to the host for all senders.
    pub forwarded: Option<SocketAddr>,
    /// Destinations of the host: port of the mapping, and time of last use.
    flows: BTreeMap<SocketAddr, (u16, T)>,
}

impl<T: Time> Firewall<T> {
    /// Makes the firewall of the socket at this address.
    #[must_use]
    pub fn new(host: SocketAddr) -> Self {
        Self {
            host,
            nat: None,
            mapping: EndpointIndependent,
            filtering: Behavior::AddressAndPortDependent,
            forwarded: None,
            flows: BTreeMap::new(),
        }
    }

    /// Gives the host another address, which ends its flows.
    pub fn move_to(&mut self, host: SocketAddr) {
        self.host = host;
        self.flows.clear();
    }

    /// Returns the public address, if it is the same for all.
    pub fn public(&self) -> SocketAddr {
        self.nat.unwrap_or(self.host)
    }

    /// Sends a datagram to `to`; returns its source address there.
    pub fn send(&mut self, to: SocketAddr, now: T) -> SocketAddr {
        let public = self.public();
        let next = FIRST_PORT.saturating_add(u16::try_from(self.flows.len()).unwrap_or(u16::MAX));
        let (port, used) = self.flows.entry(to).or_insert((next, now));
        *used = now;
        match (self.forwarded, self.mapping) {
            // RFC 6887 §11: outgoing packets have the mapped address too
            (Some(forwarded), _) => forwarded,
            (None, EndpointIndependent) => public,
            (None, _) => SocketAddr::new(public.ip(), *port),
        }
    }

    /// Returns whether datagrams to this address arrive here.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let is_public = match self.mapping {
            EndpointIndependent => address == self.public(),
            Behavior::AddressAndPortDependent => {
                address.ip() == self.public().ip() && address.port() >= FIRST_PORT
            }
        };
        is_public || self.forwarded == Some(address)
    }

    /// Returns whether an arriving datagram passes to the host.
    pub fn admits(&self, from: SocketAddr, to: SocketAddr, now: T) -> bool {
        let is_open = self.filtering == EndpointIndependent;
        let is_mapped = |port: u16| self.mapping == EndpointIndependent || port == to.port();
        let mut flows = self.flows.iter();
        self.forwarded == Some(to)
            || is_open && self.mapping == EndpointIndependent
            || flows.any(|(remote, (port, used))| {
                (is_open || *remote == from) && is_mapped(*port) && now - *used < LIFETIME
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_closed_firewall_lets_in_answers_for_a_minute() {
        let (host, friend, other) = (at("10.0.0.1:7"), at("10.0.0.2:7"), at("10.0.0.2:8"));
        let mut firewall = Firewall::new(host);
        assert!(!firewall.admits(friend, host, SECOND));
        assert_eq!(firewall.send(friend, SECOND), host);
        assert!(firewall.admits(friend, host, LIFETIME));
        assert!(!firewall.admits(other, host, LIFETIME));
        assert!(!firewall.admits(friend, host, SECOND + LIFETIME));
        firewall.send(friend, LIFETIME);
        assert!(firewall.admits(friend, host, SECOND + LIFETIME));
        firewall.move_to(other);
        assert!(firewall.is_at(other) && !firewall.is_at(host));
        assert!(!firewall.admits(friend, other, SECOND + LIFETIME));
        firewall.filtering = EndpointIndependent;
        assert!(firewall.admits(friend, other, LIFETIME));
    }

    #[test]
    fn a_nat_maps_and_filters_as_its_behavior_says() {
        let (host, nat) = (at("10.0.0.1:7"), at("192.0.2.1:9"));
        let (friend, other) = (at("198.51.100.1:1"), at("198.51.100.1:2"));
        let mut firewall = Firewall::new(host);
        firewall.nat = Some(nat);
        assert!(firewall.is_at(nat) && !firewall.is_at(host));
        assert_eq!(
            [friend, other].map(|to| firewall.send(to, SECOND)),
            [nat; 2]
        );

        firewall.mapping = Behavior::AddressAndPortDependent;
        let seen = [friend, other].map(|to| firewall.send(to, SECOND));
        assert_eq!(seen, [at("192.0.2.1:10000"), at("192.0.2.1:10001")]);
        assert_eq!(firewall.send(friend, SECOND), seen[0]);
        assert!(seen.iter().all(|seen| firewall.is_at(*seen)) && !firewall.is_at(nat));
        let admitted = |firewall: &Firewall<_>| {
            [friend, other].map(|from| seen.map(|to| firewall.admits(from, to, SECOND)))
        };
        assert_eq!(admitted(&firewall), [[true, false], [false, true]]);
        firewall.filtering = EndpointIndependent;
        assert_eq!(admitted(&firewall), [[true; 2]; 2]);
        assert!(!firewall.admits(friend, at("192.0.2.1:10002"), SECOND));

        firewall.filtering = Behavior::AddressAndPortDependent;
        let forwarded = at("192.0.2.1:99");
        firewall.forwarded = Some(forwarded);
        assert!(firewall.is_at(forwarded));
        assert_eq!(firewall.send(friend, SECOND), forwarded);
        assert!(firewall.admits(at("203.0.113.1:1"), forwarded, SECOND));
        assert_eq!(admitted(&firewall), [[true, false], [false, true]]);
    }
}
