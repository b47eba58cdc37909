//! Multicast sockets of agents and operators on all interfaces in use.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::agent::core::Ingress;
use librecast::channel::LCAGENT_PORT;
use librecast::socket::{ReceiveSockets, SendSocket, multicast_interfaces};

/// Time between two checks of interfaces.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(1);
/// Hop limit of packets: beyond the host's network, but not far.
const HOP_LIMIT: u8 = 8;

/// Sockets for one group.
#[derive(Debug)]
pub struct Network {
    group: Ipv6Addr,
    only: Vec<String>,
    receive: ReceiveSockets,
    send: BTreeMap<u32, (String, SendSocket)>,
    looked_at: Option<Instant>,
}

impl Network {
    /// Joins `group` on the interfaces in `only`, or on all multicast interfaces if it is empty.
    pub fn open(group: Ipv6Addr, only: &[String], now: Instant) -> io::Result<Self> {
        let mut network = Self {
            group,
            only: only.to_vec(),
            receive: ReceiveSockets::open(LCAGENT_PORT)?,
            send: BTreeMap::new(),
            looked_at: None,
        };
        network.look_at_interfaces(now)?;
        Ok(network)
    }

    /// Returns the names of interfaces in use, for messages.
    #[must_use]
    pub fn interface_names(&self) -> Vec<&str> {
        self.send.values().map(|(name, _)| name.as_str()).collect()
    }

    /// Joins on new interfaces and forgets gone ones, at most once a second.
    pub fn look_at_interfaces(&mut self, now: Instant) -> io::Result<()> {
        let lately = |at| now.saturating_duration_since(at) < INTERFACES_INTERVAL;
        if self.looked_at.is_some_and(lately) {
            return Ok(());
        }
        self.looked_at = Some(now);
        let found = multicast_interfaces(&self.only)?;
        let (group, receive) = (self.group, &mut self.receive);
        self.send.retain(|index, (name, _)| {
            let stays = found.get(index).is_some_and(|i| i.name == *name);
            if !stays {
                receive.leave(group, *index);
            }
            stays
        });
        for (index, interface) in found {
            if self.send.contains_key(&index) {
                continue;
            }
            let opened = self
                .receive
                .join(group, index)
                .and_then(|()| SendSocket::open(index, group, LCAGENT_PORT, HOP_LIMIT));
            match opened {
                Ok(socket) => {
                    self.send.insert(index, (interface.name, socket));
                }
                // it may be gone already, or not be ready yet: tried again
                Err(e) => tracing::debug!("{}: {e}", interface.name),
            }
        }
        Ok(())
    }

    /// Sends on interface `via`, or on all if that is 0 or gone.
    pub fn send(&self, group: Ipv6Addr, via: u32, datagram: &[u8]) {
        let one = self.send.get(&via);
        let all = self.send.values().filter(|_| one.is_none());
        for (name, socket) in one.into_iter().chain(all) {
            if let Err(e) = socket.send(group, datagram, datagram.len()) {
                // counts as a lost packet: it is repeated
                tracing::debug!("{name}: {e}");
            }
        }
    }

    /// Passes received datagrams to `take`, each with its ingress.
    pub fn receive(&mut self, mut take: impl FnMut(&[u8], Ingress)) -> io::Result<()> {
        let group = self.group;
        self.receive.receive(|datagram| {
            if datagram.group == group {
                let ingress = Ingress {
                    via: datagram.interface,
                    source: datagram.source,
                };
                take(datagram.payload, ingress);
            }
        })?;
        Ok(())
    }

    /// Returns the descriptors for poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.receive.fds()
    }
}
