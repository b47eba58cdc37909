//! Logs of tracks on this host: joined, stored, sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use lcstudio_core::{
    Logs, NewEntry, NotesWriting, Place, Reading, TrackName, lacks_entries, sort_by_time,
};
use librecast::id::SecretKey;
use librecast::time::UnixTime;
use librecast_log::{AppendError, AuthorId, Event, Log, Role, Space};
use librecast_log_host::{KeptLog, Network};
use librecast_program::process::Wake;

/// Pause after which a failed write to disk is repeated.
const DISK_AGAIN: Duration = Duration::from_secs(1);

/// Time between two checks for files of mostly obsolete records, such as dropped questions.
const COMPACT_INTERVAL: Duration = Duration::from_secs(3_600);

/// Datagrams of groups beside the logs between two looks. Chosen: more than a socket stores.
const MAX_RECEIVED: usize = 1_024;

/// A log, and the position up to which it was read.
#[derive(Debug)]
struct Joined {
    log: KeptLog,
    reading: Reading,
    groups: BTreeSet<Ipv6Addr>,
}

impl Joined {
    /// Joins the groups that the log has now, and leaves others.
    fn follow_groups(&mut self, network: &mut Network) {
        let groups = self.log.log().joined_groups().collect();
        for group in self.groups.difference(&groups) {
            network.leave(*group);
        }
        for group in groups.difference(&self.groups) {
            network.join(*group);
        }
        self.groups = groups;
    }
}

/// A datagram of a group beside the logs.
#[derive(Debug)]
pub struct Beside {
    /// The group to which it was sent.
    pub group: Ipv6Addr,
    /// The sender's address.
    pub source: Ipv6Addr,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// All joined tracks.
#[derive(Debug)]
pub struct Tracks {
    network: Network,
    role: Role,
    joined: BTreeMap<Place, Joined>,
    /// Groups beside the logs, and their datagrams since the last look.
    beside: BTreeSet<Ipv6Addr>,
    received: Vec<Beside>,
    /// Time of the next write after a failure: until it succeeds, nothing is sent.
    disk_again: Option<Instant>,
    compact_at: Instant,
}

impl Tracks {
    /// Opens sockets on these interfaces, or on all that carry multicast. `role`: in all tracks.
    pub fn open(interfaces: &[String], role: Role, now: Instant) -> io::Result<Self> {
        Ok(Self {
            network: Network::open(interfaces, now)?,
            role,
            joined: BTreeMap::new(),
            beside: BTreeSet::new(),
            received: Vec::new(),
            disk_again: None,
            compact_at: now + COMPACT_INTERVAL,
        })
    }

    /// Returns the interfaces in use.
    pub fn interface_names(&self) -> Vec<&str> {
        self.network.interface_names()
    }

    /// JOINs a track; `file` stores it.
    pub fn join(
        &mut self,
        place: Place,
        space: Space,
        keys: Vec<SecretKey>,
        file: Option<&Path>,
        now: Instant,
    ) -> io::Result<()> {
        let mut log = KeptLog::open(space, self.role, keys, file, now)?;
        compact(&place, &mut log);
        // captions have authors that the presenter chose; notes admit any attender
        if matches!(place, Place::Track(TrackName::Captions(_))) {
            log.log_mut().take_from_readers();
        }
        let mut joined = Joined {
            log,
            reading: Reading::default(),
            groups: BTreeSet::new(),
        };
        joined.follow_groups(&mut self.network);
        self.joined.insert(place, joined);
        Ok(())
    }

    /// Reports presence of authors in a joined track as events from now on.
    pub fn watch_presence(&mut self, place: &Place) {
        if let Some(joined) = self.joined.get_mut(place) {
            joined.log.log_mut().watch_presence(true);
        }
    }

    /// PARTs from a track. Its entries are forgotten, unless a file has them.
    pub fn part(&mut self, place: &Place) {
        if let Some(joined) = self.joined.remove(place) {
            for group in joined.groups {
                self.network.leave(group);
            }
        }
    }

    /// Joins these groups beside the logs, and leaves others.
    pub fn follow(&mut self, groups: &[Ipv6Addr]) {
        let groups: BTreeSet<Ipv6Addr> = groups.iter().copied().collect();
        for group in self.beside.difference(&groups) {
            self.network.leave(*group);
        }
        for group in groups.difference(&self.beside) {
            self.network.join(*group);
        }
        self.beside = groups;
    }

    /// Returns the datagrams of groups beside the logs since the last call.
    pub fn take_received(&mut self) -> Vec<Beside> {
        std::mem::take(&mut self.received)
    }

    /// Sends to a group beside the logs.
    pub fn send(&self, group: Ipv6Addr, datagram: &[u8]) {
        self.network.send(group, datagram);
    }

    /// Whether a track is joined.
    pub fn has_joined(&self, place: &Place) -> bool {
        self.joined.contains_key(place)
    }

    /// Sends a request to the owner of a joined track.
    pub fn ask(&mut self, place: &Place, body: &[u8]) -> io::Result<()> {
        match self.joined.get_mut(place) {
            Some(joined) => joined.log.log_mut().request(body).map_err(io::Error::other),
            None => Err(io::Error::other("nobody takes questions here")),
        }
    }

    /// Appends due drafts of notes. Returns drafts that are entries now: on disk once
    /// [`turn`](Self::turn) has returned and [`is_on_disk`](Self::is_on_disk).
    pub fn write_notes(
        &mut self,
        place: &Place,
        writing: &mut NotesWriting,
        time: UnixTime,
        now: Instant,
    ) -> Vec<u32> {
        let joined = self.joined.get_mut(place);
        joined.map_or_else(Vec::new, |joined| {
            writing.handle_timeout(joined.log.log_mut(), time, now)
        })
    }

    /// Returns whether the last write to disk succeeded.
    pub fn is_on_disk(&self) -> bool {
        self.disk_again.is_none()
    }

    /// Returns whether other members may have entries of a track that this host lacks.
    pub fn lacks(&self, place: &Place) -> bool {
        self.log(place).is_some_and(lacks_entries)
    }

    /// Returns the same for any joined track.
    pub fn lacks_something(&self) -> bool {
        self.joined.keys().any(|place| self.lacks(place))
    }

    /// Receives packets, does the due work, sends. Returns events with their tracks.
    ///
    /// # Errors
    /// The network's. A full disk is logged, and nothing is sent until it is free.
    pub fn turn(&mut self) -> io::Result<Vec<(Place, Event)>> {
        let (time, now) = (UnixTime::now(), Instant::now());
        let is_back = self.network.look_at_interfaces(now)?;
        let (joined, beside) = (&mut self.joined, &self.beside);
        let received = &mut self.received;
        for joined in joined.values_mut().filter(|_| is_back) {
            joined.log.log_mut().come_back(now);
        }
        self.network.receive(|group, source, bytes| {
            if beside.contains(&group) {
                if received.len() < MAX_RECEIVED {
                    let bytes = bytes.to_vec();
                    received.push(Beside {
                        group,
                        source,
                        bytes,
                    });
                }
                return;
            }
            let source = IpAddr::from(source);
            for joined in joined.values_mut().filter(|j| j.groups.contains(&group)) {
                let log = joined.log.log_mut();
                log.handle_datagram(group, source, bytes, time, now);
            }
        })?;
        let mut events = Vec::new();
        if self.disk_again.is_some_and(|at| at > now) {
            return Ok(events);
        }
        let was_full = self.disk_again.take().is_some();
        for (place, joined) in &mut self.joined {
            match joined.log.turn(time, now) {
                Ok(happened) => {
                    events.extend(happened.into_iter().map(|event| (place.clone(), event)));
                    joined.follow_groups(&mut self.network);
                    for (group, bytes) in joined.log.take_transmits() {
                        self.network.send(group, &bytes);
                    }
                }
                Err(e) => {
                    if !was_full {
                        tracing::error!("{place}: nothing is sent until the disk takes it: {e}");
                    }
                    self.disk_again = Some(now + DISK_AGAIN);
                }
            }
        }
        if self.compact_at <= now && self.disk_again.is_none() {
            self.compact_at = now + COMPACT_INTERVAL;
            for (place, joined) in &mut self.joined {
                compact(place, &mut joined.log);
            }
        }
        if was_full && self.disk_again.is_none() {
            tracing::warn!("the disk takes everything again");
        }
        Ok(events)
    }

    /// Returns new entries, sorted by time; each author's stay in order.
    pub fn entries(&mut self) -> Vec<NewEntry> {
        let mut entries = Vec::new();
        for (place, joined) in &mut self.joined {
            entries.extend(joined.reading.new_entries(place, joined.log.log()));
        }
        sort_by_time(&mut entries);
        entries
    }

    /// Waits until `until`, a datagram, or a wake.
    pub fn wait(&self, wake: &Wake, until: Option<Instant>) -> io::Result<()> {
        let logs = self.joined.values().map(|joined| joined.log.log());
        let first = match self.disk_again {
            Some(at) => Some(at),
            None => logs.map(Log::next_timeout).min(),
        };
        let first = first.into_iter().chain(until).min();
        let first = first.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        wake.wait(self.network.fds(), first)
    }
}

impl Logs for Tracks {
    fn log(&self, place: &Place) -> Option<&Log> {
        self.joined.get(place).map(|joined| joined.log.log())
    }

    fn append(
        &mut self,
        place: &Place,
        author: AuthorId,
        (kind, body): (u8, &[u8]),
        time: UnixTime,
        now: Instant,
    ) -> Result<u32, AppendError> {
        let joined = self.joined.get_mut(place);
        let joined = joined.ok_or(AppendError::NotOurs(author))?;
        joined.log.log_mut().append(author, kind, body, time, now)
    }
}

/// Compacts the file of a log; a failure changes nothing.
fn compact(place: &Place, log: &mut KeptLog) {
    if let Err(e) = log.compact() {
        tracing::warn!("{place}: its file is as long as it was: {e}");
    }
}
