//! Multicast for all groups of this host, on all interfaces in use.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use librecast::socket::{ReceiveSockets, SendSocket, multicast_interfaces};
use librecast_log::ENTRY_LOG_PORT;

/// How often interfaces are looked at.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(1);
/// Beyond the host's own network, but not far.
const HOP_LIMIT: u8 = 8;

/// Groups to listen to, and sockets to send from.
#[derive(Debug)]
pub struct Network {
    groups: BTreeSet<Ipv6Addr>,
    only: Vec<String>,
    receive: ReceiveSockets,
    send: BTreeMap<u32, (String, SendSocket)>,
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
        let (groups, receive) = (&self.groups, &mut self.receive);
        self.send.retain(|index, (name, _)| {
            let stays = found.get(index).is_some_and(|i| i.name == *name);
            for group in groups.iter().filter(|_| !stays) {
                receive.leave(*group, *index);
            }
            stays
        });
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

    /// Sends on all interfaces.
    pub fn send(&self, group: Ipv6Addr, datagram: &[u8]) {
        for (name, socket) in self.send.values() {
            if let Err(e) = socket.send(group, datagram, datagram.len()) {
                // lost like any packet: it is repaired
                tracing::debug!("{name}: {e}");
            }
        }
    }

    /// Hands over what has come: to which group, from where.
    pub fn receive(&mut self, mut take: impl FnMut(Ipv6Addr, Ipv6Addr, &[u8])) -> io::Result<bool> {
        let groups = &self.groups;
        self.receive.receive(|datagram| {
            if groups.contains(&datagram.group) {
                take(datagram.group, datagram.source, datagram.payload);
            }
        })
    }

    /// To wait on with poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.receive.fds()
    }
}
