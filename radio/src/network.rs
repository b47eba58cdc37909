//! Multicast on all interfaces in use: where a caster sends, where a listener joins.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use lcradio_core::{BEACON_PORT, MEDIA_PORT, REPORT_PORT, SAP_GROUP, SAP_PORT};
use librecast::socket::{Interface, ReceiveSockets, SendSocket, multicast_interfaces};

/// How often interfaces are looked at.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(1);
/// Beyond the host's own network, but not far.
const HOP_LIMIT: u8 = 8;

/// The interfaces in use, looked at from time to time.
#[derive(Debug)]
struct Interfaces {
    only: Vec<String>,
    looked_at: Option<Instant>,
}

impl Interfaces {
    /// Those there are now, if it is time to look.
    fn look(&mut self, now: Instant) -> io::Result<Option<BTreeMap<u32, Interface>>> {
        let lately = |at| now.saturating_duration_since(at) < INTERFACES_INTERVAL;
        if self.looked_at.is_some_and(lately) {
            return Ok(None);
        }
        self.looked_at = Some(now);
        multicast_interfaces(&self.only).map(Some)
    }
}

/// Sockets of a caster on one interface.
#[derive(Debug)]
struct Outgoing {
    name: String,
    source: Ipv6Addr,
    media: SendSocket,
    report: SendSocket,
    beacon: SendSocket,
    sap: SendSocket,
}

impl Outgoing {
    fn open(index: u32, name: &str, group: Ipv6Addr) -> io::Result<Self> {
        let open = |group, port| SendSocket::open(index, group, port, HOP_LIMIT);
        let beacon = open(group, BEACON_PORT)?;
        Ok(Self {
            name: name.to_owned(),
            source: beacon.source()?,
            media: open(group, MEDIA_PORT)?,
            report: open(group, REPORT_PORT)?,
            beacon,
            sap: open(SAP_GROUP, SAP_PORT)?,
        })
    }
}

/// Which socket of a caster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Packets and copies.
    Media,
    /// The sender's reports.
    Report,
    /// Beacons.
    Beacon,
    /// Announcements.
    Sap,
}

/// Where a caster sends.
#[derive(Debug)]
pub struct CasterNetwork {
    group: Ipv6Addr,
    interfaces: Interfaces,
    outgoing: BTreeMap<u32, Outgoing>,
    /// Beacons of others with the same key.
    beacons: Memberships,
}

impl CasterNetwork {
    /// On the interfaces in `only`, or on all that can carry multicast if that is empty.
    pub fn open(group: Ipv6Addr, only: &[String], now: Instant) -> io::Result<Self> {
        let mut beacons = Memberships::open(&[BEACON_PORT], only)?;
        beacons.join(BEACON_PORT, group);
        let mut network = Self {
            group,
            interfaces: Interfaces {
                only: only.to_vec(),
                looked_at: None,
            },
            outgoing: BTreeMap::new(),
            beacons,
        };
        network.look_at_interfaces(now)?;
        Ok(network)
    }

    /// Opens sockets on interfaces that have come or changed their address, from time to time.
    pub fn look_at_interfaces(&mut self, now: Instant) -> io::Result<()> {
        self.beacons.look_at_interfaces(now)?;
        let Some(found) = self.interfaces.look(now)? else {
            return Ok(());
        };
        self.outgoing.retain(|index, outgoing| {
            let still = found.get(index);
            still.is_some_and(|i| i.name == outgoing.name && i.addresses.contains(&outgoing.source))
        });
        for (index, interface) in found {
            if self.outgoing.contains_key(&index) {
                continue;
            }
            match Outgoing::open(index, &interface.name, self.group) {
                Ok(outgoing) => drop(self.outgoing.insert(index, outgoing)),
                // it may be gone already, or have no address yet: looked at again
                Err(e) => tracing::debug!("{}: {e}", interface.name),
            }
        }
        Ok(())
    }

    /// The interfaces in use.
    pub fn interface_names(&self) -> Vec<&str> {
        self.outgoing.values().map(|o| o.name.as_str()).collect()
    }

    /// Sends on all interfaces what `make` makes for the address that it comes from.
    pub fn send(
        &self,
        port: Port,
        group: Ipv6Addr,
        mut make: impl FnMut(Ipv6Addr) -> Option<Vec<u8>>,
    ) {
        for outgoing in self.outgoing.values() {
            let socket = match port {
                Port::Media => &outgoing.media,
                Port::Report => &outgoing.report,
                Port::Beacon => &outgoing.beacon,
                Port::Sap => &outgoing.sap,
            };
            let Some(datagram) = make(outgoing.source) else {
                continue;
            };
            if let Err(e) = socket.send(group, &datagram, datagram.len()) {
                // lost like any packet
                tracing::debug!("{}: {e}", outgoing.name);
            }
        }
    }

    /// Beacons that have come to the group.
    pub fn receive(&mut self, mut take: impl FnMut(Ipv6Addr, &[u8])) -> io::Result<()> {
        self.beacons
            .receive(|_, _, source, payload| take(source, payload))
    }

    /// To wait on with poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.beacons.fds()
    }
}

/// Groups that are joined, on all interfaces in use.
#[derive(Debug)]
pub struct Memberships {
    interfaces: Interfaces,
    joined_on: BTreeMap<u32, String>,
    groups: BTreeSet<(u16, Ipv6Addr)>,
    sockets: BTreeMap<u16, ReceiveSockets>,
}

impl Memberships {
    /// Sockets on these ports; nothing is joined yet.
    pub fn open(ports: &[u16], only: &[String]) -> io::Result<Self> {
        let sockets = ports
            .iter()
            .map(|port| Ok((*port, ReceiveSockets::open(*port)?)));
        Ok(Self {
            interfaces: Interfaces {
                only: only.to_vec(),
                looked_at: None,
            },
            joined_on: BTreeMap::new(),
            groups: BTreeSet::new(),
            sockets: sockets.collect::<io::Result<_>>()?,
        })
    }

    /// Joins a group on a port that was named at first.
    pub fn join(&mut self, port: u16, group: Ipv6Addr) {
        if self.groups.insert((port, group)) {
            for (index, name) in &self.joined_on {
                join(&mut self.sockets, port, group, *index, name);
            }
        }
    }

    /// The interfaces in use, for messages.
    pub fn interface_names(&self) -> String {
        if self.joined_on.is_empty() {
            return "no interface: none that carries multicast is up".to_owned();
        }
        let names: Vec<&str> = self.joined_on.values().map(String::as_str).collect();
        names.join(", ")
    }

    /// Leaves a group.
    pub fn leave(&mut self, port: u16, group: Ipv6Addr) {
        if self.groups.remove(&(port, group))
            && let Some(socket) = self.sockets.get_mut(&port)
        {
            for index in self.joined_on.keys() {
                socket.leave(group, *index);
            }
        }
    }

    /// Joins on interfaces that have come, forgets those that have gone, from time to time.
    pub fn look_at_interfaces(&mut self, now: Instant) -> io::Result<()> {
        let Some(found) = self.interfaces.look(now)? else {
            return Ok(());
        };
        let (groups, sockets) = (&self.groups, &mut self.sockets);
        self.joined_on.retain(|index, name| {
            let stays = found.get(index).is_some_and(|i| i.name == *name);
            for (port, group) in groups.iter().filter(|_| !stays) {
                if let Some(socket) = sockets.get_mut(port) {
                    socket.leave(*group, *index);
                }
            }
            stays
        });
        for (index, interface) in found {
            if self.joined_on.contains_key(&index) {
                continue;
            }
            for (port, group) in groups {
                join(sockets, *port, *group, index, &interface.name);
            }
            self.joined_on.insert(index, interface.name);
        }
        Ok(())
    }

    /// Hands over what has come: port, group, source, payload.
    pub fn receive(
        &mut self,
        mut take: impl FnMut(u16, Ipv6Addr, Ipv6Addr, &[u8]),
    ) -> io::Result<()> {
        let groups = &self.groups;
        for (port, socket) in &mut self.sockets {
            socket.receive(|datagram| {
                if groups.contains(&(*port, datagram.group)) {
                    take(*port, datagram.group, datagram.source, datagram.payload);
                }
            })?;
        }
        Ok(())
    }

    /// To wait on with poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.values().flat_map(ReceiveSockets::fds)
    }
}

fn join(
    sockets: &mut BTreeMap<u16, ReceiveSockets>,
    port: u16,
    group: Ipv6Addr,
    index: u32,
    name: &str,
) {
    let Some(socket) = sockets.get_mut(&port) else {
        return;
    };
    if let Err(e) = socket.join(group, index) {
        tracing::warn!("{name}: {group}: {e}");
    }
}
