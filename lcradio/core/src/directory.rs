//! Announced stations: public ones, signed, and foreign senders without signature.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use librecast::bucket::{Bucket, Rate, TokenBucket};
use librecast::drops::Drops;
use librecast::time::{Duration, Instant, UnixTime};

use crate::drops::DropReason;
use crate::sap::{ANNOUNCE_INTERVAL, Announcement};
use crate::sdp::{self, Description, SdpError};

/// Most signed announcements kept. Chosen: 64 hosts with the most stations of one, 4 MiB.
pub const MAX_SIGNED: usize = 1_024;
/// Most signed announcements of one source. Chosen: far more than one host casts.
const MAX_SIGNED_OF_SOURCE: usize = 64;
/// Most unsigned announcements. Chosen: the number that is shown.
pub const MAX_UNSIGNED: usize = 64;
/// Most unsigned announcements of one source. Chosen: a host with foreign senders has a few.
const MAX_UNSIGNED_OF_SOURCE: usize = 8;
/// Most stations shown.
pub const MAX_SHOWN: usize = 64;
/// Most announcements a second, signed and unsigned apart. Chosen: signatures cost 3 % of a core.
const MAX_RATE: Rate = Rate::per_second(500, 500);
/// Most signed announcements of one source a second. Chosen: twice those of a full source.
const SOURCE_RATE: Rate = Rate::per_second(32, 64);
/// Most sources with a rate of their own. Chosen: `lc0` has no forged addresses, and fewer casters.
const MAX_SOURCES: usize = 1_024;
/// Time for which an announcement is valid: ten intervals. Foreign senders repeat theirs each 5
/// minutes or more rarely (RFC 2974, 4).
const SIGNED_TIME: Duration = Duration::from_secs(10 * ANNOUNCE_INTERVAL.as_secs());
/// The same for foreign senders. Chosen.
const UNSIGNED_TIME: Duration = Duration::from_secs(3_600);

/// Signed announcements belong to a key, from any source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum EntryKey {
    Station([u8; 32]),
    Foreign(IpAddr, u16),
}

impl EntryKey {
    fn is_signed(&self) -> bool {
        matches!(self, Self::Station(_))
    }
}

/// An announced station.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its description.
    pub description: Description,
    /// The session description, for players.
    pub sdp: String,
    /// The source of the announcement.
    pub source: Ipv6Addr,
    /// Its first announcement.
    since: Instant,
    expires: Instant,
}

/// The valid announcements.
#[derive(Debug)]
pub struct Directory {
    entries: BTreeMap<EntryKey, Entry>,
    signed_rate: TokenBucket,
    unsigned_rate: TokenBucket,
    /// Rates of the sources of signed announcements, while not full.
    sources: BTreeMap<Ipv6Addr, Bucket>,
    drops: Drops<DropReason>,
}

impl Directory {
    /// Makes an empty directory.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            entries: BTreeMap::new(),
            signed_rate: TokenBucket::of(MAX_RATE, now),
            unsigned_rate: TokenBucket::of(MAX_RATE, now),
            sources: BTreeMap::new(),
            drops: Drops::default(),
        }
    }

    /// Handles a datagram of the announcements' group; returns whether the list changed.
    pub fn handle_datagram(
        &mut self,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        time: UnixTime,
    ) -> bool {
        let result = self.take(source, datagram, now, time);
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
        time: UnixTime,
    ) -> Result<bool, DropReason> {
        let malformed = |_| DropReason::AnnouncementMalformed;
        let announcement = Announcement::read(datagram).map_err(malformed)?;
        let foreign = EntryKey::Foreign(announcement.source, announcement.hash);
        if announcement.is_deletion && self.delete(&foreign, source) {
            return Ok(true);
        }
        let is_signed = sdp::names_station(announcement.description);
        if !self.has_time(source, is_signed, now) {
            return Err(DropReason::Rate);
        }
        let description = sdp::read(announcement.description).map_err(|e| match e {
            SdpError::Malformed => DropReason::AnnouncementMalformed,
            SdpError::Other => DropReason::AnnouncementOther,
            SdpError::Forged => DropReason::AnnouncementForged,
            SdpError::Grant => DropReason::GrantForged,
        })?;
        if let Some(grant) = &description.grant
            && grant.expires_ms() <= time.as_millis()
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
        if let Some(entry) = self.entries.get(&key)
            && !is_listed_by(&description, &entry.description)
        {
            return Ok(false);
        }
        let since = match self.entries.get(&key) {
            Some(entry) => entry.since,
            None => {
                self.make_room(source, key.is_signed());
                now
            }
        };
        let sdp = String::from_utf8_lossy(announcement.description).into_owned();
        let entry = Entry {
            description,
            sdp,
            source,
            since,
            expires: now + time,
        };
        let before = self.entries.insert(key, entry.clone());
        let is_same = |before: Entry| {
            (before.description, before.source) == (entry.description, entry.source)
        };
        Ok(!before.is_some_and(is_same))
    }

    /// Returns whether the rates permit one more of this source.
    fn has_time(&mut self, source: Ipv6Addr, is_signed: bool, now: Instant) -> bool {
        if !is_signed {
            return self.unsigned_rate.take(1, now);
        }
        if self.sources.len() >= MAX_SOURCES {
            self.sources
                .retain(|_, bucket| bucket.left(SOURCE_RATE, now) < SOURCE_RATE.burst());
        }
        let has_place = self.sources.len() < MAX_SOURCES || self.sources.contains_key(&source);
        let of_source = has_place.then(|| self.sources.entry(source).or_insert(Bucket::full(now)));
        of_source.is_none_or(|bucket| bucket.take(SOURCE_RATE, 1, now))
            && self.signed_rate.take(1, now)
    }

    /// Makes room for one of this source among the signed or unsigned ones. Evicts the oldest of
    /// this source above its limit, else of the source with the most.
    fn make_room(&mut self, source: Ipv6Addr, is_signed: bool) {
        let (most, most_of_source) = match is_signed {
            true => (MAX_SIGNED, MAX_SIGNED_OF_SOURCE),
            false => (MAX_UNSIGNED, MAX_UNSIGNED_OF_SOURCE),
        };
        let mut of_sources: BTreeMap<Ipv6Addr, (usize, Instant, &EntryKey)> = BTreeMap::new();
        let all = self.entries.iter();
        let all = all.filter(|(key, _)| key.is_signed() == is_signed);
        let mut count = 0;
        for (key, entry) in all {
            count += 1;
            let first = (0, entry.expires, key);
            let (of_source, oldest, which) = of_sources.entry(entry.source).or_insert(first);
            *of_source += 1;
            if entry.expires < *oldest {
                (*oldest, *which) = (entry.expires, key);
            }
        }
        let own = of_sources.get(&source).map_or(0, |(count, ..)| *count);
        let victim = if own >= most_of_source {
            of_sources.get(&source)
        } else if count >= most {
            let by_count = |(count, oldest, _): &&(usize, Instant, _)| (*count, Reverse(*oldest));
            of_sources.values().max_by_key(by_count)
        } else {
            None
        };
        if let Some((_, _, key)) = victim {
            let key = (*key).clone();
            self.entries.remove(&key);
            self.drops.count(DropReason::AnnouncementFull);
        }
    }

    /// Deletes an entry, if `source` announced it.
    fn delete(&mut self, key: &EntryKey, source: Ipv6Addr) -> bool {
        let is_his = |entry: &Entry| entry.source == source;
        self.entries.get(key).is_some_and(is_his) && self.entries.remove(key).is_some()
    }

    /// Removes expired announcements; returns whether there were any.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.expires > now);
        self.entries.len() < before
    }

    /// Returns the stations to show, signed ones first, by name. If there are too many, equally
    /// many of each source, earlier announced ones first.
    pub fn stations(&self) -> Vec<&Entry> {
        let mut all: Vec<&Entry> = self.entries.values().collect();
        all.sort_by_key(|entry| (is_foreign(entry), entry.since));
        let mut of_sources: BTreeMap<Ipv6Addr, usize> = BTreeMap::new();
        let rank = |entry: &&Entry| {
            let before = of_sources.entry(entry.source).or_default();
            *before += 1;
            *before
        };
        let ranks: Vec<usize> = all.iter().map(rank).collect();
        let mut shown: Vec<(usize, &Entry)> = ranks.into_iter().zip(all).collect();
        shown.sort_by_key(|(rank, entry)| (is_foreign(entry), *rank));
        shown.truncate(MAX_SHOWN);
        let mut shown: Vec<&Entry> = shown.into_iter().map(|(_, entry)| entry).collect();
        shown.sort_by_key(|entry| (is_foreign(entry), &entry.description.name));
        shown
    }

    /// Returns the stations of this name: the signed ones if there are any.
    pub fn named(&self, name: &str) -> Vec<&Entry> {
        let is_named = |entry: &&Entry| entry.description.name == name;
        let (signed, unsigned): (Vec<_>, Vec<_>) = self
            .entries
            .values()
            .filter(is_named)
            .partition(|entry| entry.description.station.is_some());
        if signed.is_empty() { unsigned } else { signed }
    }

    /// Returns the drops.
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }
}

/// Returns whether it has no signature.
fn is_foreign(entry: &Entry) -> bool {
    entry.description.station.is_none()
}

/// Returns whether it replaces the listed caster of the station: its own key, or the same caster.
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

    /// Hands a datagram of a host to the directory, today.
    fn hear(directory: &mut Directory, from: u16, datagram: &[u8], now: Instant) -> bool {
        let time = UnixTime::from_millis(TODAY_MS);
        directory.handle_datagram(address(from), datagram, now, time)
    }

    fn names(directory: &Directory) -> Vec<&str> {
        let all = directory.stations().into_iter();
        all.map(|entry| entry.description.name.as_str()).collect()
    }

    #[test]
    fn stations_come_change_their_name_and_go() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        let [one, two, gone] = [("one", false), ("two", false), ("two", true)]
            .map(|(name, is_deletion)| packet(1, name, address(1), is_deletion));
        assert!(hear(&mut directory, 1, &one, now));
        assert!(!hear(&mut directory, 1, &one, now));
        assert!(hear(&mut directory, 9, &foreign("alien", 9), now));
        assert!(hear(&mut directory, 1, &two, now));
        assert_eq!(names(&directory), ["two", "alien"], "signed ones first");
        // only the announcer can delete
        assert!(!hear(&mut directory, 2, &gone, now));
        assert!(hear(&mut directory, 1, &gone, now));
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
            let changed =
                directory.handle_datagram(source, &packet, now, UnixTime::from_millis(TODAY_MS));
            (changed, names(&directory).join(" "))
        };
        let tomorrow = TODAY_MS + 86_400_000;
        let own = (address(3), packet(1, "own", address(3), false));
        for (datagram, is_news, listed) in [
            (granted(&first, "late", 1, TODAY_MS, false), false, ""),
            (granted(&first, "first", 1, tomorrow, false), true, "first"),
            (
                granted(&second, "second", 2, tomorrow, false),
                false,
                "first",
            ),
            (
                granted(&second, "second", 2, tomorrow, true),
                false,
                "first",
            ),
            (own, true, "own"),
            (granted(&first, "first", 1, tomorrow, false), false, "own"),
        ] {
            assert_eq!(told(datagram), (is_news, listed.to_owned()), "{listed}");
        }
        assert_eq!(directory.drops().get(DropReason::GrantExpired), 1);
    }

    #[test]
    fn who_is_silent_is_forgotten() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        hear(&mut directory, 1, &packet(1, "one", address(1), false), now);
        assert!(!directory.handle_timeout(now + SIGNED_TIME - Duration::from_secs(1)));
        assert!(directory.handle_timeout(now + SIGNED_TIME));
    }

    #[test]
    fn a_name_is_first_that_of_who_signs() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        hear(&mut directory, 9, &foreign("news", 9), now);
        let is_signed = |directory: &Directory| {
            let named = directory.named("news");
            let signed = named.iter().map(|e| e.description.station.is_some());
            signed.collect::<Vec<_>>()
        };
        assert_eq!(is_signed(&directory), [false]);
        let news = packet(1, "news", address(1), false);
        hear(&mut directory, 1, &news, now);
        assert_eq!(is_signed(&directory), [true]);
        let news = packet(2, "news", address(2), false);
        hear(&mut directory, 2, &news, now);
        assert_eq!(is_signed(&directory), [true, true]);
    }

    fn listed_among(directory: &Directory, n: u16) -> bool {
        let stations = directory.stations();
        stations.iter().any(|entry| entry.source == address(n))
    }

    fn counts(directory: &Directory) -> (usize, usize) {
        let signed = directory.entries.keys().filter(|key| key.is_signed());
        let signed = signed.count();
        (signed, directory.entries.len() - signed)
    }

    #[test]
    fn a_flood_that_nobody_signed_keeps_no_signed_station_out() {
        let mut now = Instant::now();
        let mut directory = Directory::new(now);
        let alien = foreign("alien", 2);
        hear(&mut directory, 2, &alien, now);
        for n in 1_000..5_096_u16 {
            now += Duration::from_millis(2);
            hear(&mut directory, 9, &foreign("flood", n), now);
        }
        assert_eq!(counts(&directory), (0, 1 + MAX_UNSIGNED_OF_SOURCE));
        assert!(listed_among(&directory, 2), "of another source");
        let honest = packet(1, "one", address(1), false);
        assert!(hear(&mut directory, 1, &honest, now));
        assert!(listed_among(&directory, 1));
        // under forged addresses, too
        for n in 1_000..5_096_u16 {
            now += Duration::from_millis(2);
            hear(&mut directory, n, &foreign("a flood", n), now);
        }
        assert_eq!(counts(&directory), (1, MAX_UNSIGNED));
        assert!(listed_among(&directory, 1));
        assert_eq!(directory.stations().len(), MAX_SHOWN);
        assert!(directory.drops().get(DropReason::AnnouncementFull) > 4_000);
    }

    #[test]
    fn a_flood_of_invented_stations_takes_the_part_of_its_source() {
        let mut now = Instant::now();
        let mut directory = Directory::new(now);
        let mut seed = [7; 32];
        let mut invented = |from: u16| {
            seed[..2].copy_from_slice(&from.to_be_bytes());
            seed[2] = seed[2].wrapping_add(1);
            by(&StationKey::from_seed(&seed), None, "a", address(9), false)
        };
        let honest = packet(1, "one", address(1), false);
        for n in 0..4_096_u16 {
            now += Duration::from_millis(32);
            hear(&mut directory, 9, &invented(n), now);
            // as often as one announces itself
            if n % 150 == 50 {
                hear(&mut directory, 1, &honest, now);
                assert!(listed_among(&directory, 1), "{n}");
            }
        }
        assert_eq!(counts(&directory).0, 1 + MAX_SIGNED_OF_SOURCE);
        // with as many sources as places, the newest replaces the oldest
        for n in 1_000..2_500_u16 {
            now += Duration::from_millis(4);
            hear(&mut directory, n, &invented(n), now);
        }
        assert_eq!(counts(&directory).0, MAX_SIGNED);
        let other = packet(2, "two", address(2), false);
        assert!(hear(&mut directory, 2, &other, now));
        let [two] = directory.named("two")[..] else {
            panic!("it is kept");
        };
        assert_eq!(two.source, address(2));
    }

    #[test]
    fn junk_takes_no_time_that_signatures_need() {
        let now = Instant::now();
        let mut directory = Directory::new(now);
        let key = StationKey::from_seed(&[3; 32]);
        let forged = by(&key, None, "x", address(9), false);
        let forged = [&forged[..forged.len() - 4], b"00\r\n"].concat();
        for n in 0..1_000 {
            hear(&mut directory, 9, b"x", now);
            hear(&mut directory, 9, &foreign("junk", n), now);
            hear(&mut directory, 9, &forged, now);
        }
        assert!(directory.drops().get(DropReason::Rate) > 0);
        let honest = packet(1, "one", address(1), false);
        assert!(hear(&mut directory, 1, &honest, now));
    }
}
