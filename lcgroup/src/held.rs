//! A group that this host holds for other hosts: its log, without the means to read it.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use librecast::durable;
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_log::{ReadKey, Role, Space};
use librecast_log_host::KeptLog;
use zeroize::Zeroizing;

use crate::holding_key::HoldingKey;
use crate::logs::{Kept, log_status};
use crate::request::HeldStatus;

/// Files of the key and of the log.
const KEY: &str = "key";
const LOG: &str = "log";

#[derive(Debug)]
pub struct Held {
    name: String,
    group: PeerId,
    folder: PathBuf,
    log: KeptLog,
    kept: Kept,
}

impl Held {
    /// Begins to hold a group; creates `folder`.
    pub fn create(folder: &Path, name: &str, key: &HoldingKey, now: Instant) -> io::Result<Self> {
        std::fs::create_dir(folder)?;
        durable::replace(&folder.join(KEY), key.encode().as_bytes())?;
        durable::sync_folder_of(folder)?;
        Self::open(folder, name, now)
    }

    /// Opens a held group.
    pub fn open(folder: &Path, name: &str, now: Instant) -> io::Result<Self> {
        let invalid = |e: String| io::Error::new(io::ErrorKind::InvalidData, e);
        let text = Zeroizing::new(std::fs::read_to_string(folder.join(KEY))?);
        let key = HoldingKey::decode(&text).map_err(|e| invalid(e.to_string()))?;
        let space = Space::new(
            key.group,
            Some(ReadKey::new(*key.read_key)),
            Kept::default().ttl(),
        );
        let mut log = KeptLog::open(
            space,
            Role::Member,
            Vec::new(),
            Some(&folder.join(LOG)),
            now,
        )?;
        let mut kept = Kept::default();
        kept.follow(log.log_mut());
        Ok(Self {
            kept,
            name: name.to_owned(),
            group: key.group,
            folder: folder.to_owned(),
            log,
        })
    }

    /// The multicast address of its packets.
    pub fn address(&self) -> Ipv6Addr {
        self.log.address()
    }

    /// Handles a datagram of its group.
    pub fn handle_packet(&mut self, source: IpAddr, bytes: &[u8], time: UnixTime, now: Instant) {
        let group = self.log.address();
        self.log.handle_datagram(group, source, bytes, time, now);
    }

    /// When [`Self::turn`] is due.
    pub fn next_timeout(&self) -> Instant {
        self.log.next_timeout()
    }

    /// Runs the timers that are due; afterwards everything is on disk and may be sent.
    pub fn turn(&mut self, time: UnixTime, now: Instant) -> io::Result<()> {
        for event in self.log.turn(time, now)? {
            tracing::debug!("{}: {event:?}", self.name);
        }
        self.kept.follow(self.log.log_mut());
        Ok(())
    }

    /// Takes the packets to send.
    pub fn take_transmits(&mut self) -> Vec<(Ipv6Addr, Vec<u8>)> {
        self.log.take_transmits()
    }

    /// The group for `status`.
    pub fn status(&self) -> HeldStatus {
        HeldStatus {
            name: self.name.clone(),
            group: self.group,
            authors: self.log.log().authors().count(),
            keep_s: self.kept.shown(),
            log: log_status(self.log.log()),
        }
    }

    /// Rewrites the file, if most of it has expired.
    pub fn compact(&mut self) -> io::Result<()> {
        self.log.compact()
    }

    /// Deletes its files.
    pub fn delete(self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.folder)
    }
}
