//! A group that this host holds for other hosts: its log, without the means to read it.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use librecast::durable;
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_log::{Event, ReadKey, Role, Space};
use librecast_log_host::KeptLog;
use zeroize::Zeroizing;

use crate::holding_key::HoldingKey;
use crate::logs::{Kept, log_status};
use crate::request::{FilesStatus, HeldStatus};
use crate::shelf::{Shelf, remove_group};

mod files;
mod wake;

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
    shelf: Shelf,
    files: files::Announced,
    calls: wake::Calls,
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
        let mut kept = Kept::default();
        let mut log = KeptLog::open_with(
            space,
            Role::Member,
            Vec::new(),
            Some(&folder.join(LOG)),
            now,
            |log| kept.follow(log),
        )?;
        log.log_mut().watch_presence(true);
        Ok(Self {
            calls: wake::Calls::open(folder, log.log())?,
            shelf: Shelf::open(folder, &key.read_key),
            files: files::Announced::open(folder),
            kept,
            name: name.to_owned(),
            group: key.group,
            folder: folder.to_owned(),
            log,
        })
    }

    /// The group's key.
    pub fn id(&self) -> PeerId {
        self.group
    }

    /// The multicast address of its packets.
    pub fn address(&self) -> Ipv6Addr {
        self.log.address()
    }

    /// Handles a datagram of its group.
    pub fn handle_packet(&mut self, source: IpAddr, bytes: &[u8], time: UnixTime, now: Instant) {
        self.log.log_mut().handle_packet(source, bytes, time, now);
    }

    /// When [`Self::turn`] is due.
    pub fn next_timeout(&self) -> Instant {
        self.log.log().next_timeout()
    }

    /// Runs the timers that are due; afterwards everything is on disk and may be sent.
    pub fn turn(&mut self, time: UnixTime, now: Instant) -> io::Result<()> {
        let events = self.log.turn(time, now)?;
        let is_any = !events.is_empty();
        for event in events {
            if let Event::Presence { author, .. } = event {
                self.hear_presence(author);
            } else {
                self.files.look_again();
            }
            tracing::debug!("{}: {event:?}", self.name);
        }
        if is_any {
            self.follow_calls(time)?;
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
            network: None,
            log: log_status(self.log.log()),
            // the daemon knows more of them
            files: FilesStatus::default(),
        }
    }

    /// Rewrites the file, if most of it has expired.
    pub fn compact(&mut self) -> io::Result<()> {
        self.log.compact()
    }

    /// Deletes its files.
    pub fn delete(self) -> io::Result<()> {
        remove_group(&self.folder)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lcgroup_core::{Terms, kind};
    use librecast::id::SecretKey;
    use librecast_log::{AuthorId, Config, GRANT_KIND, Grant, Log, Output};

    use super::*;

    #[test]
    fn a_holder_that_has_the_last_entry_alone_keeps_terms_and_authors_over_a_restart() {
        let (start, time) = (Instant::now(), UnixTime::from_millis(1_800_000_000_000));
        let now = start + Duration::from_secs(4);
        let [owner, bob] = [1, 2].map(|n| SecretKey::from_seed(&[n; 32]));
        let (group, bobs) = (owner.peer_id(), bob.peer_id());
        let space = Space::new(group, Some(ReadKey::new([3; 32])), Duration::ZERO);
        let (owner_id, bob_id) = (space.author(&group), space.author(&bobs));
        let (keys, seed) = (vec![owner, bob], [4; 32]);
        let mut log = Log::new(Config { space, keys, seed }, start);
        let say = |log: &mut Log, id: AuthorId, kind: u8, body: &[u8]| {
            log.append(id, kind, body, time, now).unwrap();
            let outputs = std::iter::from_fn(|| log.poll_output());
            let packets = outputs.filter_map(|output| match output {
                Output::Transmit(packet) => Some(packet),
                _ => None,
            });
            packets.collect::<Vec<_>>()
        };
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("held");
        let read_key = [3; 32].into();
        let key = HoldingKey {
            group,
            read_key,
            network: None,
        };
        let mut held = Held::create(&folder, "held", &key, start).unwrap();
        let hear = |held: &mut Held, packets: Vec<Vec<u8>>| {
            for packet in packets {
                held.handle_packet([10, 0, 0, 1].into(), &packet, time, now);
            }
            held.turn(time, now).unwrap();
        };
        let grant = Grant::encode(&[Grant {
            author: bobs,
            not_before: 0,
            expires: u64::MAX,
            last: u32::MAX,
        }]);
        let keep = 365 * 86_400;
        let terms = Terms { keep, history: 0 }.encode();
        for (kind, body) in [(GRANT_KIND, &grant), (kind::TERMS, &terms)] {
            hear(&mut held, say(&mut log, owner_id, kind, body));
        }
        hear(&mut held, say(&mut log, bob_id, kind::MESSAGE, b"hello"));
        // enough for a file that is rewritten
        for _ in 0..1_500 {
            hear(&mut held, say(&mut log, owner_id, kind::COMMIT, &[7; 900]));
        }
        // all of these are lost, but for the last ones
        for _ in 0..20 {
            say(&mut log, owner_id, kind::COMMIT, b"x");
        }
        log.forget_before(owner_id, 1_515);
        let mut last = Vec::new();
        for _ in 0..9 {
            last = say(&mut log, owner_id, kind::COMMIT, b"x");
        }
        hear(&mut held, last);
        let begins = |held: &Held| {
            let authors = held.log.log().authors();
            authors
                .map(|author| (author.first, author.last))
                .collect::<Vec<_>>()
        };
        held.compact().unwrap();
        let before = begins(&held);
        assert!(before.contains(&(1, 1)), "{before:?}");
        assert!(held.log.log().has_gap(owner_id), "{before:?}");
        drop(held);
        let held = Held::open(&folder, "held", start).unwrap();
        assert_eq!(begins(&held), before);
        assert_eq!(held.kept.shown(), Some(keep));
    }
}
