//! Stations that announce themselves: public ones, signed, and foreign senders, of which nothing is certain.

use librecast::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use librecast::bucket::{Rate, TokenBucket};
use librecast::drops::Drops;

use crate::drops::DropReason;
use crate::sap::{ANNOUNCE_INTERVAL, Announcement};
use crate::sdp::{self, Description, SdpError};

/// Most announcements that are kept.
pub const MAX_ENTRIES: usize = 4_096;
/// Most stations that are shown.
pub const MAX_SHOWN: usize = 64;
/// Most announcements in a second: each signature takes time.
const MAX_RATE: Rate = Rate::per_second(500, 500);
/// How long an announcement is good: ten intervals of ours; foreign senders repeat theirs each 5 minutes or more rarely
/// (RFC 2974, 4).
const SIGNED_TIME: Duration = Duration::from_secs(10 * ANNOUNCE_INTERVAL.as_secs());
/// The same of foreign senders, who announce themselves more rarely. Chosen.
const UNSIGNED_TIME: Duration = Duration::from_secs(3_600);

/// Signed ones are of a key, wherever they come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum EntryKey {
    Station([u8; 32]),
    Foreign(IpAddr, u16),
}

/// A station that announced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub description: Description,
    /// The session description, for players.
    pub sdp: String,
    /// Where the announcement came from.
    pub source: Ipv6Addr,
    expires: Instant,
}

/// Those that announced themselves lately.
#[derive(Debug)]
pub struct Directory {
    entries: BTreeMap<EntryKey, Entry>,
    rate: TokenBucket,
    drops: Drops<DropReason>,
}

impl Directory {
    /// Without any.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            entries: BTreeMap::new(),
            rate: TokenBucket::of(MAX_RATE, now),
            drops: Drops::default(),
        }
    }

    /// A datagram came to the group of announcements. True if what is listed changed.
    pub fn handle_datagram(
        &mut self,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        unix_ms: u64,
    ) -> bool {
        let result = if self.rate.take(1, now) {
            self.take(source, datagram, now, unix_ms)
        } else {
            Err(DropReason::Rate)
        };
        result.unwrap_or_else(|reason| {
            self.drops.count(reason);
            false
        })
    }

    fn take(
        &mut self,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        unix_ms: u64,
    ) -> Result<bool, DropReason> {
        let malformed = |_| DropReason::AnnouncementMalformed;
        let announcement = Announcement::read(datagram).map_err(malformed)?;
        let foreign = EntryKey::Foreign(announcement.source, announcement.hash);
        if announcement.is_deletion && self.delete(&foreign, source) {
            return Ok(true);
        }
        let description = sdp::read(announcement.description).map_err(|e| match e {
            SdpError::Malformed => DropReason::AnnouncementMalformed,
            SdpError::Other => DropReason::AnnouncementOther,
            SdpError::Forged => DropReason::AnnouncementForged,
            SdpError::Grant => DropReason::GrantForged,
        })?;
        if let Some(grant) = &description.grant
            && grant.expires_ms() <= unix_ms
        {
            return Err(DropReason::GrantExpired);
        }
        let (key, time) = match &description.station {
            Some(station) => (EntryKey::Station(*station.key().public_key()), SIGNED_TIME),
            None => (foreign, UNSIGNED_TIME),
        };
        if announcement.is_deletion {
            return Ok(self.delete(&key, source));
        }
        self.handle_timeout(now);
        if !self.entries.contains_key(&key) && self.entries.len() >= MAX_ENTRIES {
            return Err(DropReason::AnnouncementFull);
        }
        if let Some(entry) = self.entries.get(&key)
            && !is_listed_by(&description, &entry.description)
        {
            return Ok(false);
        }
        let sdp = String::from_utf8_lossy(announcement.description).into_owned();
        let entry = Entry {
            description,
            sdp,
            source,
            expires: now + time,
        };
        let before = self.entries.insert(key, entry.clone());
        let is_same = |before: Entry| {
            (before.description, before.source) == (entry.description, entry.source)
        };
        Ok(!before.is_some_and(is_same))
    }

    /// Who announced it takes it back.
    fn delete(&mut self, key: &EntryKey, source: Ipv6Addr) -> bool {
        let is_his = |entry: &Entry| entry.source == source;
        self.entries.get(key).is_some_and(is_his) && self.entries.remove(key).is_some()
    }

    /// What was not repeated is forgotten. True if something was.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.expires > now);
        self.entries.len() < before
    }

    /// Those that are shown: signed ones first, by name.
    #[must_use]
    pub fn stations(&self) -> Vec<&Entry> {
        let mut all: Vec<&Entry> = self.entries.values().collect();
        all.sort_by_key(|entry| {
            let description = &entry.description;
            (description.station.is_none(), &description.name)
        });
        all.truncate(MAX_SHOWN);
        all
    }

    /// Those of this name, signed ones first.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<&Entry> {
        let is_named = |entry: &&Entry| entry.description.name == name;
        let (signed, unsigned): (Vec<_>, Vec<_>) = self
            .entries
            .values()
            .filter(is_named)
            .partition(|entry| entry.description.station.is_some());
        if signed.is_empty() { unsigned } else { signed }
    }

    /// What was dropped.
    #[must_use]
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }
}

/// Of several casters of a station one is listed: its own key, else the one that is listed already.
fn is_listed_by(description: &Description, listed: &Description) -> bool {
    description.grant.is_none() || description.caster() == listed.caster()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
mod tests {
    use super::*;
    use crate::beacon::Profile;
    use crate::grant::Grant;
    use crate::station::StationKey;

    const TODAY_MS: u64 = 1_800_000_000_000;

    fn address(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, n)
    }

    fn packet(seed: u8, name: &str, source: Ipv6Addr, is_deletion: bool) -> Vec<u8> {
        let key = StationKey::from_seed(&[seed; 32]);
        by(&key, None, name, source, is_deletion)
    }

    fn by(
        key: &StationKey,
        grant: Option<&Grant>,
        name: &str,
        source: Ipv6Addr,
        is_deletion: bool,
    ) -> Vec<u8> {
        let sdp = sdp::describe(key, grant, name, Profile::Music, 1, source);
        let announcement = Announcement {
            hash: 7,
            source: source.into(),
            is_deletion,
            description: sdp.as_bytes(),
        };
        announcement.write()
    }

    fn foreign(name: &str, n: u16) -> Vec<u8> {
        let sdp = format!(
            "v=0\ns={name}\nc=IN IP6 ff1e::{n:x}\nm=audio 5004 RTP/AVP 96\na=rtpmap:96 opus/48000/2\n"
        );
        let announcement = Announcement {
            hash: n,
            source: address(n).into(),
            is_deletion: false,
            description: sdp.as_bytes(),
        };
        announcement.write()
    }

    fn names(directory: &Directory) -> Vec<&str> {
        let all = directory.stations().into_iter();
        all.map(|entry| entry.description.name.as_str()).collect()
    }

    #[test]
    fn stations_come_change_their_name_and_go() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        assert!(directory.handle_datagram(
            address(1),
            &packet(1, "one", address(1), false),
            now,
            TODAY_MS
        ));
        assert!(!directory.handle_datagram(
            address(1),
            &packet(1, "one", address(1), false),
            now,
            TODAY_MS
        ));
        assert!(directory.handle_datagram(address(9), &foreign("alien", 9), now, TODAY_MS));
        assert!(directory.handle_datagram(
            address(1),
            &packet(1, "two", address(1), false),
            now,
            TODAY_MS
        ));
        assert_eq!(names(&directory), ["two", "alien"], "signed ones first");
        // who is not the announcer deletes nothing
        assert!(!directory.handle_datagram(
            address(2),
            &packet(1, "two", address(1), true),
            now,
            TODAY_MS
        ));
        assert!(directory.handle_datagram(
            address(1),
            &packet(1, "two", address(1), true),
            now,
            TODAY_MS
        ));
        assert_eq!(names(&directory), ["alien"]);
        assert!(directory.handle_timeout(now + UNSIGNED_TIME));
        assert_eq!(names(&directory), [] as [&str; 0]);
    }

    #[test]
    fn who_has_a_grant_is_listed_until_the_station_itself_is_or_it_expires() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        let [station, first, second] = [1, 2, 3].map(|seed| StationKey::from_seed(&[seed; 32]));
        let granted = |key: &StationKey, name, n, expires_ms, is_deletion| {
            let grant = Grant::new(&station, true, &key.id(), expires_ms);
            (
                address(n),
                by(key, Some(&grant), name, address(n), is_deletion),
            )
        };
        let mut told = |(source, packet): (Ipv6Addr, Vec<u8>)| {
            let changed = directory.handle_datagram(source, &packet, now, TODAY_MS);
            (changed, names(&directory).join(" "))
        };
        let tomorrow = TODAY_MS + 86_400_000;
        assert_eq!(
            told(granted(&first, "late", 1, TODAY_MS, false)),
            (false, String::new())
        );
        assert_eq!(
            told(granted(&first, "first", 1, tomorrow, false)),
            (true, "first".into())
        );
        assert_eq!(
            told(granted(&second, "second", 2, tomorrow, false)),
            (false, "first".into())
        );
        assert_eq!(
            told(granted(&second, "second", 2, tomorrow, true)),
            (false, "first".into())
        );
        let own = (address(3), packet(1, "own", address(3), false));
        assert_eq!(told(own), (true, "own".into()));
        assert_eq!(
            told(granted(&first, "first", 1, tomorrow, false)),
            (false, "own".into())
        );
        assert_eq!(directory.drops().get(DropReason::GrantExpired), 1);
    }

    #[test]
    fn who_is_silent_is_forgotten() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        directory.handle_datagram(
            address(1),
            &packet(1, "one", address(1), false),
            now,
            TODAY_MS,
        );
        assert!(!directory.handle_timeout(now + SIGNED_TIME - Duration::from_secs(1)));
        assert!(directory.handle_timeout(now + SIGNED_TIME));
    }

    #[test]
    fn a_name_is_first_that_of_who_signs() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        directory.handle_datagram(address(9), &foreign("news", 9), now, TODAY_MS);
        let is_signed = |directory: &Directory| {
            let named = directory.named("news");
            named
                .iter()
                .map(|e| e.description.station.is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(is_signed(&directory), [false]);
        directory.handle_datagram(
            address(1),
            &packet(1, "news", address(1), false),
            now,
            TODAY_MS,
        );
        assert_eq!(is_signed(&directory), [true]);
        directory.handle_datagram(
            address(2),
            &packet(2, "news", address(2), false),
            now,
            TODAY_MS,
        );
        assert_eq!(is_signed(&directory), [true, true]);
    }

    #[test]
    fn a_flood_of_announcements_is_bounded() {
        let mut now = Instant::now();
        let mut directory = Directory::new(now);
        for n in 0..6_000_u16 {
            now += Duration::from_millis(3);
            directory.handle_datagram(address(n), &foreign("flood", n), now, TODAY_MS);
        }
        assert_eq!(directory.entries.len(), MAX_ENTRIES);
        assert_eq!(directory.stations().len(), MAX_SHOWN);
        let full = directory.drops().get(DropReason::AnnouncementFull);
        assert_eq!(full, 6_000 - MAX_ENTRIES as u64);
        for _ in 0..1_000 {
            directory.handle_datagram(
                address(1),
                &packet(1, "one", address(1), false),
                now,
                TODAY_MS,
            );
        }
        assert!(directory.drops().get(DropReason::Rate) > 0);
    }
}
