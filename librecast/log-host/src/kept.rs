//! A log and its file: what is sent is on disk before.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::Instant;

use librecast::id::SecretKey;
use librecast_log::{AppendError, AuthorId, Config, Event, Log, Output, Space};
use zeroize::Zeroizing;

use crate::records::Records;

/// 32 bytes of the system's randomness.
///
/// # Errors
///
/// There is none.
pub fn seed() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut seed[..]).map_err(|e| io::Error::other(format!("no randomness: {e}")))?;
    Ok(seed)
}

/// One space of the entry log, as this host keeps it.
#[derive(Debug)]
pub struct KeptLog {
    log: Log,
    /// None: it is kept in memory alone.
    records: Option<Records>,
    transmits: Vec<Vec<u8>>,
}

impl KeptLog {
    /// The log of this space, with what `file` has of it. Without a file it is as long as the process.
    ///
    /// # Errors
    ///
    /// The system's, and a file that is damaged.
    pub fn open(
        space: Space,
        keys: Vec<SecretKey>,
        file: Option<&Path>,
        now: Instant,
    ) -> io::Result<Self> {
        let (records, stored) = match file {
            Some(file) => {
                let (records, stored) = Records::open(file)?;
                (Some(records), stored)
            }
            None => (None, Vec::new()),
        };
        let seed = *seed()?;
        let mut log = Log::new(Config { space, keys, seed }, now);
        for stored in stored {
            log.restore(stored, now);
        }
        Ok(Self {
            log,
            records,
            transmits: Vec::new(),
        })
    }

    /// What is known.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The same, to append by what decides; it is on disk and may be sent after the next [`turn`](Self::turn).
    pub fn log_mut(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Where its packets go.
    #[must_use]
    pub fn address(&self) -> Ipv6Addr {
        self.log.space().group()
    }

    /// A datagram of its group.
    pub fn handle_packet(&mut self, source: IpAddr, bytes: &[u8], time: u64, now: Instant) {
        self.log.handle_packet(source, bytes, time, now);
    }

    /// Appends an entry; it is on disk and may be sent after the next [`turn`](Self::turn).
    ///
    /// # Errors
    ///
    /// [`AppendError`].
    pub fn append(
        &mut self,
        author: AuthorId,
        kind: u8,
        body: &[u8],
        time: u64,
        now: Instant,
    ) -> Result<u32, AppendError> {
        self.log.append(author, kind, body, time, now)
    }

    /// Asks, as somebody who has no grant.
    ///
    /// # Errors
    ///
    /// The body is too long.
    pub fn request(&mut self, body: &[u8]) -> Result<(), librecast_log::EntryError> {
        self.log.request(body)
    }

    /// When there is something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.log.poll_timeout()
    }

    /// Does what is due, and says what happened. Everything is on disk when this returns, and may be sent.
    ///
    /// # Errors
    ///
    /// The disk's: nothing is to be sent then. What waits is written by the next turn.
    pub fn turn(&mut self, time: u64, now: Instant) -> io::Result<Vec<Event>> {
        if self.log.poll_timeout() <= now {
            self.log.handle_timeout(time, now);
        }
        let mut events = Vec::new();
        while let Some(output) = self.log.poll_output() {
            match output {
                Output::Store(stored) => {
                    if let Some(records) = &mut self.records {
                        records.add(&stored);
                    }
                }
                Output::Transmit(bytes) => self.transmits.push(bytes),
                Output::Event(event) => events.push(event),
            }
        }
        if let Some(records) = &mut self.records {
            records.sync()?;
            if records.is_long() {
                records.compact(self.log.stored())?;
            }
        }
        Ok(events)
    }

    /// What is to be sent now.
    pub fn take_transmits(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.transmits)
    }

    /// Rewrites the file, if most of it has expired.
    ///
    /// # Errors
    ///
    /// The disk's; the old file is still there then.
    pub fn compact(&mut self) -> io::Result<()> {
        match &mut self.records {
            Some(records) => records.compact(self.log.stored()),
            None => Ok(()),
        }
    }
}
