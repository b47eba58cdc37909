//! Multicast of casters and listeners on all interfaces in use.
//!
//! A caster uses only lcroute's interface if it exists, unless the user names some: lcroute
//! forwards only wanted packets. On a LAN, MLD shows listeners; that needs CAP_NET_RAW.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use lcradio_core::{
    BEACON_PORT, ClockGroups, MEDIA_PORT, REPORT_PORT, SAP_GROUP, SAP_PORT, Station,
};
use librecast::listeners::{FIRST_ANSWERS, Listeners};
use librecast::local_node;
use librecast::socket::{Datagram, Interface, ReceiveSockets, SendSocket, multicast_interfaces};

/// Time between two checks of interfaces.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(1);
/// Hop limit: beyond the host's network, but not far.
const HOP_LIMIT: u8 = 8;
/// The default name of lcroute's interface.
const TUN: &str = "lc0";

/// Returns the likely reasons why nothing arrives on these interfaces, separated by `, `.
pub fn why_silent(interfaces: &str) -> &'static str {
    match interfaces.split(", ").any(|name| name == TUN) {
        true => "`lcroute doctor` checks the network",
        false => {
            "a host that runs lcroute sends on lc0 alone, and not on its LAN, unless -i names both: -i lc0 -i eth0. \
             `lcroute up` brings this host into its network"
        }
    }
}

/// The interfaces in use, checked periodically.
#[derive(Debug)]
struct Interfaces {
    only: Vec<String>,
    /// The interface that is used alone if it exists and the user has named none.
    preferred: Option<String>,
    looked_at: Option<Instant>,
}

impl Interfaces {
    fn new(only: &[String], preferred: Option<String>) -> Self {
        Self {
            only: only.to_vec(),
            preferred: preferred.filter(|_| only.is_empty()),
            looked_at: None,
        }
    }

    /// Returns the present interfaces, if a check is due.
    fn look(&mut self, now: Instant) -> io::Result<Option<BTreeMap<u32, Interface>>> {
        let lately = |at| now.saturating_duration_since(at) < INTERFACES_INTERVAL;
        if self.looked_at.is_some_and(lately) {
            return Ok(None);
        }
        self.looked_at = Some(now);
        let mut found = multicast_interfaces(&self.only)?;
        let preferred = found
            .values()
            .find(|i| Some(&i.name) == self.preferred.as_ref());
        if let Some(index) = preferred.map(|i| i.index) {
            found.retain(|known, _| *known == index);
        }
        Ok(Some(found))
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

/// A socket of a caster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Packets and copies.
    Media,
    /// The sender's reports.
    Report,
    /// Beacons, and answers about the clock.
    Beacon,
    /// Announcements.
    Sap,
}

/// The sockets of a caster.
#[derive(Debug)]
pub struct CasterNetwork {
    group: Ipv6Addr,
    interfaces: Interfaces,
    /// The name of lcroute's interface.
    tun: String,
    outgoing: BTreeMap<u32, Outgoing>,
    /// Beacons of other casters with the same key, and questions for the clock.
    beacons: Memberships,
    /// Listeners on LANs; none: without permission to see them.
    listeners: Option<Listeners>,
}

impl CasterNetwork {
    /// Opens sockets on the interfaces in `only`; if empty, on lcroute's, else on all.
    pub fn open(
        station: &Station,
        clock: Option<ClockGroups>,
        only: &[String],
        now: Instant,
    ) -> io::Result<Self> {
        Self::with_sockets(station, clock, 1, only, now)
    }

    /// The same for a participant of a call, who receives the station's packets, too.
    pub fn open_in_call(station: &Station, only: &[String], now: Instant) -> io::Result<Self> {
        Self::with_sockets(station, None, 3, only, now)
    }

    /// `sockets`: of this program, in the station's group.
    fn with_sockets(
        station: &Station,
        clock: Option<ClockGroups>,
        sockets: u32,
        only: &[String],
        now: Instant,
    ) -> io::Result<Self> {
        let node = local_node::ask();
        let tun = node.map_or_else(|| TUN.to_owned(), |node| node.tun);
        let group = station.group();
        let mut beacons =
            Memberships::on(&[BEACON_PORT], Interfaces::new(only, Some(tun.clone())))?;
        beacons.join(BEACON_PORT, group);
        // own memberships, each on one socket
        let mut own = vec![(group, sockets), (station.copy_group(), 0), (SAP_GROUP, 0)];
        if let Some(clock) = clock {
            beacons.join(BEACON_PORT, clock.questions);
            own.extend([(clock.questions, 1), (clock.answers, 0)]);
        }
        let listeners = match Listeners::open(own) {
            Ok(listeners) => Some(listeners),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
            Err(e) => return Err(e),
        };
        let mut network = Self {
            group,
            interfaces: Interfaces::new(only, Some(tun.clone())),
            tun,
            outgoing: BTreeMap::new(),
            beacons,
            listeners,
        };
        network.look_at_interfaces(now)?;
        Ok(network)
    }

    /// Opens sockets on interfaces that are new or changed their address, if a check is due.
    pub fn look_at_interfaces(&mut self, now: Instant) -> io::Result<()> {
        self.beacons.look_at_interfaces(now)?;
        let Some(found) = self.interfaces.look(now)? else {
            return Ok(());
        };
        if let Some(listeners) = &mut self.listeners {
            let mut lans = found.clone();
            lans.retain(|_, i| i.name != self.tun);
            listeners.set_interfaces(&lans, now);
        }
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
                // it may be gone already, or have no address yet: tried again
                Err(e) => tracing::debug!("{}: {e}", interface.name),
            }
        }
        Ok(())
    }

    /// Returns a remark about the interfaces in use; none if they are the expected ones.
    pub fn remark(&self) -> Option<String> {
        let lans = self.outgoing.values().filter(|o| o.name != self.tun);
        let lans: Vec<&str> = lans.map(|o| o.name.as_str()).collect();
        let lans = lans.join(", ");
        let is_preferred = self
            .outgoing
            .values()
            .any(|o| Some(&o.name) == self.interfaces.preferred.as_ref());
        match (lans.is_empty(), &self.listeners) {
            (true, _) if is_preferred => Some(format!(
                "sends on {} alone, as lcroute runs here; -i NAME names others",
                self.tun
            )),
            (true, _) => None,
            (false, Some(_)) => Some(format!("sends on {lans} while somebody listens there")),
            (false, None) => Some(format!(
                "sends on {lans} all the time, as it cannot see whether somebody listens there: that needs CAP_NET_RAW \
                 (setcap cap_net_raw+ep on this program)"
            )),
        }
    }

    /// Returns until when present listeners of a LAN answer the first query.
    pub fn settled_at(&self, now: Instant) -> Instant {
        let has_lan = self.outgoing.values().any(|o| o.name != self.tun);
        match &self.listeners {
            Some(_) if has_lan => now + FIRST_ANSWERS,
            _ => now,
        }
    }

    /// Sends queries, and reads reports.
    pub fn turn(&mut self, now: Instant) -> io::Result<()> {
        match &mut self.listeners {
            Some(listeners) => listeners.turn(now),
            None => Ok(()),
        }
    }

    /// Returns when [`turn`](Self::turn) must be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.listeners.as_ref()?.next_timeout()
    }

    /// Returns the interfaces in use.
    pub fn interface_names(&self) -> Vec<&str> {
        self.outgoing.values().map(|o| o.name.as_str()).collect()
    }

    /// Sends the output of `make` for each source address; on a LAN only to listeners.
    pub fn send(
        &self,
        port: Port,
        group: Ipv6Addr,
        now: Instant,
        mut make: impl FnMut(Ipv6Addr) -> Option<Vec<u8>>,
    ) {
        for (index, outgoing) in &self.outgoing {
            if let Some(listeners) = &self.listeners
                && outgoing.name != self.tun
                && !listeners.has_listener(*index, group, now)
            {
                continue;
            }
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

    /// Passes received beacons and questions to `take`: group, source, payload.
    pub fn receive(&mut self, mut take: impl FnMut(Ipv6Addr, Ipv6Addr, &[u8])) -> io::Result<()> {
        self.beacons
            .receive(|_, datagram| take(datagram.group, datagram.source, datagram.payload))
    }

    /// Returns the descriptors for poll(2).
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listeners = self.listeners.iter().map(AsFd::as_fd);
        self.beacons.fds().chain(listeners)
    }
}

/// Questions for the clocks of casters.
#[derive(Debug, Default)]
pub struct ClockNetwork {
    socket: Option<(u32, SendSocket)>,
}

impl ClockNetwork {
    /// Sends a question by this interface.
    pub fn ask(&mut self, interface: u32, group: Ipv6Addr, question: &[u8]) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some((index, socket)) if index == interface => socket,
            _ => SendSocket::open(interface, group, BEACON_PORT, HOP_LIMIT)?,
        };
        let sent = socket.send(group, question, question.len());
        // after an error, with a new socket: the interface may have another address
        self.socket = sent.is_ok().then_some((interface, socket));
        sent
    }
}

/// Joined groups, on all interfaces in use.
#[derive(Debug)]
pub struct Memberships {
    interfaces: Interfaces,
    joined_on: BTreeMap<u32, String>,
    groups: BTreeSet<(u16, Ipv6Addr)>,
    sockets: BTreeMap<u16, ReceiveSockets>,
}

impl Memberships {
    /// Opens sockets on these ports, without memberships.
    pub fn open(ports: &[u16], only: &[String]) -> io::Result<Self> {
        Self::on(ports, Interfaces::new(only, None))
    }

    fn on(ports: &[u16], interfaces: Interfaces) -> io::Result<Self> {
        let sockets = ports
            .iter()
            .map(|port| Ok((*port, ReceiveSockets::open(*port)?)));
        Ok(Self {
            interfaces,
            joined_on: BTreeMap::new(),
            groups: BTreeSet::new(),
            sockets: sockets.collect::<io::Result<_>>()?,
        })
    }

    /// Joins a group on one of the ports.
    pub fn join(&mut self, port: u16, group: Ipv6Addr) {
        if self.groups.insert((port, group)) {
            for (index, name) in &self.joined_on {
                join(&mut self.sockets, port, group, *index, name);
            }
        }
    }

    /// Returns the interfaces in use, for messages.
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

    /// Joins on new interfaces and forgets gone ones, if a check is due.
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

    /// Passes received datagrams to `take`, with their ports.
    pub fn receive(&mut self, mut take: impl FnMut(u16, Datagram<'_>)) -> io::Result<()> {
        let groups = &self.groups;
        for (port, socket) in &mut self.sockets {
            socket.receive(|datagram| {
                if groups.contains(&(*port, datagram.group)) {
                    take(*port, datagram);
                }
            })?;
        }
        Ok(())
    }

    /// Returns the descriptors for poll(2).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_a_lan_alone_learns_that_hosts_with_lcroute_send_elsewhere() {
        for (interfaces, expected) in [
            ("eth0", true),
            ("eth0, wlan0", true),
            ("lc01", true),
            ("eth0, lc0", false),
            ("lc0", false),
        ] {
            let told = why_silent(interfaces);
            assert_eq!(told.contains("-i lc0"), expected, "{interfaces}: {told}");
        }
    }
}
