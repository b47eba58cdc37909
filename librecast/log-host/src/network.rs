//! Multicast for all groups of this host, on all interfaces in use.
//!
//! This host joins groups on all of them. If lcroute runs, entries leave by its interface, which
//! forwards only packets with listeners. They leave by a LAN, which carries every packet, only
//! after a packet of a member came from it, or if the user has named it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use librecast::local_node;
use librecast::socket::{ReceiveSockets, SendSocket, multicast_interfaces};
use librecast_log::ENTRY_LOG_PORT;

/// Interval between two searches for interfaces.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(1);
/// Hop limit of packets: a few routers beyond the host's own network.
const HOP_LIMIT: u8 = 8;
/// Name of lcroute's interface, unless lcroute names another.
const TUN: &str = "lc0";

/// Joined groups, and sockets to receive and send with.
#[derive(Debug)]
pub struct Network {
    groups: BTreeSet<Ipv6Addr>,
    only: Vec<String>,
    receive: ReceiveSockets,
    send: BTreeMap<u32, (String, SendSocket)>,
    /// The name of lcroute's interface.
    tun: String,
    has_tun: bool,
    /// Addresses of this host; its packets come back to it.
    own: BTreeSet<Ipv6Addr>,
    /// Interfaces from which a packet of a member on another host came.
    heard: BTreeSet<u32>,
    looked_at: Option<Instant>,
}

impl Network {
    /// Opens sockets on the interfaces in `only`, or on all with multicast if it is empty.
    pub fn open(only: &[String], now: Instant) -> io::Result<Self> {
        let mut network = Self {
            groups: BTreeSet::new(),
            only: only.to_vec(),
            receive: ReceiveSockets::open(ENTRY_LOG_PORT)?,
            send: BTreeMap::new(),
            tun: local_node::ask().map_or_else(|| TUN.to_owned(), |node| node.tun),
            has_tun: false,
            own: BTreeSet::new(),
            heard: BTreeSet::new(),
            looked_at: None,
        };
        network.look_at_interfaces(now)?;
        Ok(network)
    }

    /// The interfaces in use.
    pub fn interface_names(&self) -> Vec<&str> {
        self.send.values().map(|(name, _)| name.as_str()).collect()
    }

    /// Joins a group on all interfaces.
    pub fn join(&mut self, group: Ipv6Addr) {
        self.groups.insert(group);
        for (index, (name, _)) in &self.send {
            if let Err(e) = self.receive.join(group, *index) {
                tracing::warn!("{name}: {group}: {e}");
            }
        }
    }

    /// Leaves a group.
    pub fn leave(&mut self, group: Ipv6Addr) {
        self.groups.remove(&group);
        for index in self.send.keys() {
            self.receive.leave(group, *index);
        }
    }

    /// Joins on new interfaces, forgets vanished ones, once per interval; returns whether any is
    /// new.
    pub fn look_at_interfaces(&mut self, now: Instant) -> io::Result<bool> {
        let lately = |at| now.saturating_duration_since(at) < INTERFACES_INTERVAL;
        if self.looked_at.is_some_and(lately) {
            return Ok(false);
        }
        let mut has_new = false;
        self.looked_at = Some(now);
        let found = multicast_interfaces(&self.only)?;
        self.has_tun = found.values().any(|i| i.name == self.tun);
        self.own = found.values().flat_map(|i| &i.addresses).copied().collect();
        let (groups, receive) = (&self.groups, &mut self.receive);
        self.send.retain(|index, (name, _)| {
            let stays = found.get(index).is_some_and(|i| i.name == *name);
            for group in groups.iter().filter(|_| !stays) {
                receive.leave(*group, *index);
            }
            stays
        });
        let send = &self.send;
        self.heard.retain(|index| send.contains_key(index));
        for (index, interface) in found {
            if self.send.contains_key(&index) {
                continue;
            }
            let any = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 1);
            match SendSocket::open(index, any, ENTRY_LOG_PORT, HOP_LIMIT) {
                Ok(socket) => {
                    for group in groups {
                        if let Err(e) = receive.join(*group, index) {
                            tracing::warn!("{}: {group}: {e}", interface.name);
                        }
                    }
                    self.send.insert(index, (interface.name, socket));
                    has_new = true;
                }
                // it may be gone, or not ready yet; the next search tries again
                Err(e) => tracing::debug!("{}: {e}", interface.name),
            }
        }
        Ok(has_new)
    }

    /// Sends on the interfaces that may lead to members.
    pub fn send(&self, group: Ipv6Addr, datagram: &[u8]) {
        let sends_everywhere = !self.has_tun || !self.only.is_empty();
        for (index, (name, socket)) in &self.send {
            if !sends_everywhere && *name != self.tun && !self.heard.contains(index) {
                continue;
            }
            if let Err(e) = socket.send(group, datagram, datagram.len()) {
                // a lost packet, which members repair
                tracing::debug!("{name}: {e}");
            }
        }
    }

    /// Passes each received datagram on, with its group and source.
    pub fn receive(&mut self, mut take: impl FnMut(Ipv6Addr, Ipv6Addr, &[u8])) -> io::Result<bool> {
        let (groups, own, heard) = (&self.groups, &self.own, &mut self.heard);
        self.receive.receive(|datagram| {
            if groups.contains(&datagram.group) {
                if !own.contains(&datagram.source) {
                    heard.insert(datagram.interface);
                }
                take(datagram.group, datagram.source, datagram.payload);
            }
        })
    }

    /// The sockets, for poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.receive.fds()
    }
}
