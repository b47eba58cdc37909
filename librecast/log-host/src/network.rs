//! Multicast for all groups of this host, on all interfaces in use.
//!
//! Groups are joined on all of them. Where lcroute runs, entries leave by its interface alone, which forwards only packets that
//! somebody wants; and by a LAN, which carries every packet, once a member was heard there, or if the user has named it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use librecast::local_node;
use librecast::socket::{ReceiveSockets, SendSocket, multicast_interfaces};
use librecast_log::ENTRY_LOG_PORT;

/// How often interfaces are looked at.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(1);
/// Beyond the host's own network, but not far.
const HOP_LIMIT: u8 = 8;
/// The interface of lcroute, unless it says otherwise.
const TUN: &str = "lc0";

/// Groups to listen to, and sockets to send from.
#[derive(Debug)]
pub struct Network {
    groups: BTreeSet<Ipv6Addr>,
    only: Vec<String>,
    receive: ReceiveSockets,
    send: BTreeMap<u32, (String, SendSocket)>,
    /// The name of lcroute's interface.
    tun: String,
    has_tun: bool,
    /// Addresses of this host, whose packets come back to it.
    own: BTreeSet<Ipv6Addr>,
    /// Interfaces on which a member on another host was heard.
    heard: BTreeSet<u32>,
    looked_at: Option<Instant>,
}

impl Network {
    /// On the interfaces in `only`, or on all that can carry multicast if that is empty.
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

    /// Listens to another group from now on.
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

    /// Joins on interfaces that have come, forgets those that have gone, from time to time. Whether any came.
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
                // it may be gone already, or not be ready yet: looked at again
                Err(e) => tracing::debug!("{}: {e}", interface.name),
            }
        }
        Ok(has_new)
    }

    /// Sends on the interfaces that lead to members, as far as is known.
    pub fn send(&self, group: Ipv6Addr, datagram: &[u8]) {
        let sends_everywhere = !self.has_tun || !self.only.is_empty();
        for (index, (name, socket)) in &self.send {
            if !sends_everywhere && *name != self.tun && !self.heard.contains(index) {
                continue;
            }
            if let Err(e) = socket.send(group, datagram, datagram.len()) {
                // lost like any packet: it is repaired
                tracing::debug!("{name}: {e}");
            }
        }
    }

    /// Hands over what has come: to which group, from where.
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

    /// To wait on with poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.receive.fds()
    }
}
