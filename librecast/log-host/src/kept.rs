//! A log and its file: its packets leave after their records are on disk.

use std::io;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Instant;

use librecast::id::SecretKey;
use librecast::time::UnixTime;
use librecast_log::{Config, Event, Log, Output, Role, Space};
use zeroize::Zeroizing;

use crate::records::Records;

/// Returns 32 random bytes of the system.
///
/// # Errors
/// The system has none.
pub fn seed() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut seed[..]).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
    Ok(seed)
}

/// One space of the entry log, as this host stores it.
#[derive(Debug)]
pub struct KeptLog {
    log: Log,
    /// None: it is stored in memory alone.
    records: Option<Records>,
    address: Ipv6Addr,
    transmits: Vec<(Ipv6Addr, Vec<u8>)>,
    /// Events that the next turn without an error returns.
    events: Vec<Event>,
}

impl KeptLog {
    /// Opens the log of this space with the records in `file`; without a file, in memory.
    ///
    /// # Errors
    /// The system's, and a file that is damaged.
    pub fn open(
        space: Space,
        role: Role,
        keys: Vec<SecretKey>,
        file: Option<&Path>,
        now: Instant,
    ) -> io::Result<Self> {
        Self::open_with(space, role, keys, file, now, |_| {})
    }

    /// The same; `follow` sees the log before the first record and after each, before a later one
    /// drops entries.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with(
        space: Space,
        role: Role,
        keys: Vec<SecretKey>,
        file: Option<&Path>,
        now: Instant,
        mut follow: impl FnMut(&mut Log),
    ) -> io::Result<Self> {
        let (records, stored) = file.map(Records::open).transpose()?.unzip();
        let seed = *seed()?;
        let address = space.group();
        let mut log = Log::new(Config { space, keys, seed }, now);
        follow(&mut log);
        for stored in stored.into_iter().flatten() {
            log.restore(stored, now);
            follow(&mut log);
        }
        log.set_role(role, now);
        Ok(Self {
            log,
            records,
            address,
            transmits: Vec::new(),
            events: Vec::new(),
        })
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The log, to append with, for example; [`turn`](Self::turn) then writes the entries to disk,
    /// and they may be sent.
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// The live group.
    pub fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// Runs the log and returns its events. Then all records are on disk, and packets may leave.
    ///
    /// # Errors
    /// The disk's: no packet may be sent then. The next turn writes the records again, and returns
    /// the events.
    pub fn turn(&mut self, time: UnixTime, now: Instant) -> io::Result<Vec<Event>> {
        if self.log.next_timeout() <= now {
            self.log.handle_timeout(time, now);
        }
        self.collect();
        self.sync()?;
        Ok(self.take_events())
    }

    /// Takes the log's outputs; returns whether there were any. Their packets may leave after
    /// [`sync`](Self::sync).
    pub fn collect(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.log.poll_output() {
            any = true;
            match output {
                Output::Store(stored) => {
                    if let Some(records) = &mut self.records {
                        records.add(&stored);
                    }
                }
                Output::Transmit(bytes) => self.transmits.push((self.address, bytes)),
                Output::TransmitTo(group, bytes) => self.transmits.push((group, bytes)),
                Output::Event(event) => self.events.push(event),
            }
        }
        any
    }

    /// Returns the collected events.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Writes the collected records to disk.
    ///
    /// # Errors
    /// The disk's; the records stay for the next attempt.
    pub fn sync(&mut self) -> io::Result<()> {
        let Some(records) = &mut self.records else {
            return Ok(());
        };
        records.sync()?;
        match records.is_long() {
            true => self.compact(),
            false => Ok(()),
        }
    }

    /// Returns the packets to send now, with their groups.
    pub fn take_transmits(&mut self) -> Vec<(Ipv6Addr, Vec<u8>)> {
        std::mem::take(&mut self.transmits)
    }

    /// Rewrites the file if most of it has expired.
    ///
    /// # Errors
    /// The disk's; the old file is kept then.
    pub fn compact(&mut self) -> io::Result<()> {
        match &mut self.records {
            Some(records) if self.log.may_be_rewritten() => records.compact(self.log.stored()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_of_a_turn_that_fails_come_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("log"), folder.path().join("other"));
        let (time, mut now) = (1_800_000_000_000, Instant::now());
        let key = SecretKey::from_seed(&[1; 32]);
        let space = Space::new(key.peer_id(), None, Duration::ZERO);
        let author = space.author(&key.peer_id());
        let mut kept = KeptLog::open(space, Role::Member, vec![key], Some(&path), now).unwrap();
        while kept
            .log_mut()
            .append(author, 1, b"body", UnixTime::from_millis(time), now)
            .is_err()
        {
            now += Duration::from_secs(1);
            kept.turn(UnixTime::from_millis(time), now).unwrap();
        }
        // a file that takes nothing
        std::fs::write(&other, []).unwrap();
        let mut file = std::fs::File::open(&other).unwrap();
        for fails in [true, false] {
            file = kept.records.as_mut().unwrap().swap(file);
            if fails {
                kept.turn(UnixTime::from_millis(time), now).unwrap_err();
            }
        }
        let events = kept.turn(UnixTime::from_millis(time), now).unwrap();
        assert!(events.contains(&Event::Entries(author)), "{events:?}");
        let (_, found) = Records::open(&path).unwrap();
        assert!(!found.is_empty());
    }
}
