//! Memberships and sockets of the receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use librecast::channel::{ChannelId, LCSYNC_PORT, ROOT_CHANNEL, SharePrefix, channel_of};
use librecast::socket::{Datagram, ReceiveSockets, multicast_interfaces};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getres};

use super::changes::Changes;

/// Interval between two searches for interfaces.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(1);
/// Silence on its interface after which a server is followed on another.
const FOLLOW: Duration = Duration::from_secs(2);
/// Most known servers; blocks are joined on their interfaces.
const MAX_SERVERS: usize = 64;

/// Channels of one share, joined on the interfaces of its servers.
#[derive(Debug)]
pub struct Network {
    sockets: ReceiveSockets,
    prefix: SharePrefix,
    only: Vec<String>,
    interfaces: BTreeMap<u32, String>,
    looked_at: Option<Instant>,
    joined: BTreeSet<ChannelId>,
    /// Changes that the kernel does not know yet.
    changes: Changes,
    /// Interface of each server: on several interfaces, its packets would be the same.
    servers: BTreeMap<u32, (u32, Instant)>,
}

impl Network {
    /// Opens the sockets; `only` names interfaces, none for all.
    pub fn open(prefix: SharePrefix, only: &[String]) -> io::Result<Self> {
        Ok(Self {
            sockets: ReceiveSockets::open(LCSYNC_PORT)?,
            prefix,
            only: only.to_vec(),
            interfaces: BTreeMap::new(),
            looked_at: None,
            joined: BTreeSet::new(),
            changes: Changes::new(report_delay()),
            servers: BTreeMap::new(),
        })
    }

    /// Names of the interfaces in use, by index.
    #[must_use]
    pub fn interfaces(&self) -> &BTreeMap<u32, String> {
        &self.interfaces
    }

    /// Names of the interfaces in use, for messages.
    #[must_use]
    pub fn interface_names(&self) -> String {
        if self.interfaces.is_empty() {
            return "no interface: none is up".to_owned();
        }
        let names: Vec<&str> = self.interfaces.values().map(String::as_str).collect();
        names.join(", ")
    }

    /// Joins a channel on all its interfaces, with the next batch of changes.
    pub fn join(&mut self, channel: ChannelId) {
        self.changes.set(channel, true);
    }

    /// Leaves a channel, with the next batch of changes.
    pub fn leave(&mut self, channel: ChannelId) {
        self.changes.set(channel, false);
    }

    /// Applies the waiting changes, if that is due.
    pub fn apply_changes(&mut self, now: Instant) {
        for (channel, join) in self.changes.poll(now).unwrap_or_default() {
            if join && self.joined.insert(channel) {
                for interface in self.carriers(channel) {
                    self.join_on(channel, interface);
                }
            } else if !join && self.joined.remove(&channel) {
                for interface in self.interfaces.keys() {
                    self.sockets.leave(self.prefix.group(channel), *interface);
                }
            }
        }
    }

    /// Notes a record of `server` by `interface`.
    pub fn note_server(&mut self, server: u32, interface: u32, now: Instant) {
        let known = self.servers.get(&server).copied();
        match known {
            Some((at, _)) if at == interface => {
                self.servers.insert(server, (interface, now));
            }
            Some((_, last)) if now.saturating_duration_since(last) < FOLLOW => {}
            _ => {
                let before = self.carriers_of_blocks();
                self.servers
                    .retain(|_, (_, last)| now.saturating_duration_since(*last) < FOLLOW);
                if self.servers.len() < MAX_SERVERS {
                    self.servers.insert(server, (interface, now));
                }
                if self.carriers_of_blocks() != before {
                    self.rejoin();
                }
            }
        }
    }

    /// Looks for new and vanished interfaces, once per interval.
    pub fn refresh_interfaces(&mut self, now: Instant) -> io::Result<()> {
        if self
            .looked_at
            .is_some_and(|at| now.saturating_duration_since(at) < INTERFACES_INTERVAL)
        {
            return Ok(());
        }
        self.looked_at = Some(now);
        let found: BTreeMap<u32, String> = multicast_interfaces(&self.only)?
            .into_iter()
            .map(|(n, i)| (n, i.name))
            .collect();
        if found == self.interfaces {
            return Ok(());
        }
        for gone in self.interfaces.keys().filter(|i| !found.contains_key(i)) {
            self.servers.retain(|_, (at, _)| at != gone);
            for channel in &self.joined {
                self.sockets.leave(self.prefix.group(*channel), *gone);
            }
        }
        self.interfaces = found;
        self.rejoin();
        Ok(())
    }

    /// Passes on received datagrams of the share; returns true if more may wait.
    pub fn receive(&mut self, mut take: impl FnMut(ChannelId, &Datagram<'_>)) -> io::Result<bool> {
        let prefix = self.prefix;
        self.sockets.receive(|datagram| {
            if SharePrefix::of_group(datagram.group) == Some(prefix) {
                take(channel_of(datagram.group), &datagram);
            }
        })
    }

    /// Waits for packets.
    pub fn wait(&self, until: Instant) -> io::Result<()> {
        let until = self
            .changes
            .next_timeout()
            .map_or(until, |at| at.min(until));
        let timeout = until.saturating_duration_since(Instant::now());
        let mut fds: Vec<PollFd<'_>> = self
            .sockets
            .fds()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns the interfaces of a channel: all for the root channel, those of servers for blocks.
    fn carriers(&self, channel: ChannelId) -> BTreeSet<u32> {
        if channel == ROOT_CHANNEL || self.servers.is_empty() {
            return self.interfaces.keys().copied().collect();
        }
        self.carriers_of_blocks()
    }

    fn carriers_of_blocks(&self) -> BTreeSet<u32> {
        self.servers.values().map(|(at, _)| *at).collect()
    }

    fn rejoin(&mut self) {
        for channel in self.joined.clone() {
            let carriers = self.carriers(channel);
            for interface in self.interfaces.keys() {
                if !carriers.contains(interface) {
                    self.sockets.leave(self.prefix.group(channel), *interface);
                }
            }
            for interface in carriers {
                self.join_on(channel, interface);
            }
        }
    }

    fn join_on(&mut self, channel: ChannelId, interface: u32) {
        // the interface may have gone; the next look notices
        if let Err(e) = self.sockets.join(self.prefix.group(channel), interface) {
            tracing::debug!("joining on interface {interface}: {e}");
        }
    }
}

/// Time that the kernel waits for changes before a report: less than three ticks of its clock.
fn report_delay() -> Duration {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from);
    (tick * 3).clamp(Duration::from_millis(4), Duration::from_millis(30))
}
