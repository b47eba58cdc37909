//! Addresses of this node: local, server-reflexive, mapped by its router, and outside of its NAT.

use std::net::{Ipv4Addr, SocketAddr};

use lcroute_overlay::{Candidate, CandidateKind, Random};
use librecast::time::Instant;

use crate::datagram::Transmit;
use crate::gather::Gatherer;
use crate::stun::Binding;

/// Bound of local addresses in a description.
const MAX_HOSTS: usize = 8;

/// Addresses of the one UDP socket.
#[derive(Debug)]
pub(crate) struct Addresses {
    hosts: Vec<SocketAddr>,
    servers: Vec<SocketAddr>,
    gatherer: Gatherer,
    mapped: Option<SocketAddr>,
    outer: Option<Ipv4Addr>,
}

impl Addresses {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            hosts: Vec::new(),
            servers: Vec::new(),
            gatherer: Gatherer::new(random),
            mapped: None,
            outer: None,
        }
    }

    pub(crate) fn hosts(&self) -> &[SocketAddr] {
        &self.hosts
    }

    /// Returns the server-reflexive addresses that are neither local nor mapped.
    pub(crate) fn reflexive(&self) -> Vec<SocketAddr> {
        let mut seen = self.gatherer.addresses();
        seen.extend(self.outer_address().filter(|outer| !seen.contains(outer)));
        seen.retain(|address| self.mapped != Some(*address) && !self.hosts.contains(address));
        seen
    }

    /// Returns the address that the router maps to the socket.
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// Sets the mapped address; returns whether it changed.
    pub(crate) fn set_mapped(&mut self, mapped: Option<SocketAddr>) -> bool {
        let mapped = mapped.filter(|mapped| !self.hosts.contains(mapped));
        std::mem::replace(&mut self.mapped, mapped) != mapped
    }

    /// Sets the address of this host outside of a NAT that keeps ports.
    pub(crate) fn set_outer(&mut self, outer: Option<Ipv4Addr>) {
        self.outer = outer;
    }

    /// Returns the socket's address outside of the NAT: its port is one for all local addresses.
    fn outer_address(&self) -> Option<SocketAddr> {
        let local = self.hosts.iter().find(|local| local.is_ipv4())?;
        Some(SocketAddr::from((self.outer?, local.port())))
    }

    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let of_kind = |kind| move |addr| Candidate { kind, addr };
        let hosts = self.hosts.iter().copied();
        let hosts = hosts.map(of_kind(CandidateKind::Host));
        let mapped = self.mapped.into_iter().map(of_kind(CandidateKind::Mapped));
        let reflexive = self.reflexive().into_iter();
        let reflexive = reflexive.map(of_kind(CandidateKind::ServerReflexive));
        hosts.chain(mapped).chain(reflexive).collect()
    }

    /// Whether no server answers: UDP is blocked.
    pub(crate) fn are_dead(&self, now: Instant) -> bool {
        self.gatherer.is_dead(now)
    }

    /// Whether a description should wait: a server may still answer.
    pub(crate) fn are_awaited(&self, now: Instant) -> bool {
        self.gatherer.still_waits(now)
    }

    /// Sets the host's addresses, best first; returns whether they changed.
    pub(crate) fn set_hosts(&mut self, mut hosts: Vec<SocketAddr>, now: Instant) -> bool {
        hosts.truncate(MAX_HOSTS);
        if hosts == self.hosts {
            return false;
        }
        self.hosts = hosts;
        self.gatherer.reset(&self.hosts, &self.servers, now);
        true
    }

    pub(crate) fn set_servers(&mut self, servers: Vec<SocketAddr>, now: Instant) {
        if servers != self.servers {
            self.servers = servers;
            self.gatherer.reset(&self.hosts, &self.servers, now);
        }
    }

    /// Handles a server's response: returns whether addresses changed, `None` if it is not ours.
    pub(crate) fn handle_response(
        &mut self,
        response: &Binding,
        from: SocketAddr,
        now: Instant,
    ) -> Option<bool> {
        self.gatherer.handle_response(response, from, now)
    }

    /// Sends the due requests to servers.
    pub(crate) fn poll(&mut self, now: Instant, send: impl FnMut(Transmit)) {
        self.gatherer.poll(now, send);
    }

    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.gatherer.deadline(now)
    }
}
