//! What a listener takes for the station's sound, from all that comes to its groups.
//!
//! ```text
//! nothing --beacon--> session --later beacon, or another one after 5 s without any--> next session
//! ```
//!
//! Up to [`MAX_CASTERS`] casters are heard at once, each with a key of its own and one session: the station's own key, and others
//! by grants. Packets that came before the first beacon wait for it. A session may come from several addresses at once: one
//! caster on several interfaces. A foreign sender has no beacons: the first source that is heard is kept while it sends.

use librecast::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::{Rate, TokenBucket};
use librecast::drops::Drops;
use librecast::id::PeerId;

use crate::beacon::{Beacon, BeaconError};
use crate::caster::CLOCK_TOLERANCE_MS;
use crate::drops::DropReason;
use crate::loss::{Arrival, Loss, LossCount};
use crate::opus;
use crate::packet::SoundPacket;
use crate::rtp::{self, RtpHeader, extend_sequence, extend_timestamp};
use crate::sdp::Description;
use crate::srtp::Cipher;
use crate::station::{self, Station};

/// Most casters of a station at once: its own key, whose place nobody takes, and seven by grants.
pub const MAX_CASTERS: usize = 8;
/// Most packets in a second, of a caster and of all that are none: 5-ms packets.
const MAX_RATE: Rate = Rate::per_second(200, 200);
/// Most packets that wait for the first beacon: a second of 20-ms packets, and some of the copy.
const MAX_EARLY: usize = 64;
/// Most addresses of one caster.
const MAX_SOURCES: usize = 8;
/// A session without beacons, or a foreign sender without packets, gives way to another after this.
const SILENCE: Duration = Duration::from_secs(5);
/// Numbers of a packet and of the beacon do not differ by more, unless this listener slept.
const MAX_DISTANCE: u64 = 1_000;

/// What is listened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tuned {
    /// A station, whose key signs what it says of itself.
    Station(Station),
    /// A foreign sender, of which nothing is certain.
    Unsigned(Description),
}

impl Tuned {
    /// Where packets come to.
    #[must_use]
    pub fn group(&self) -> Ipv6Addr {
        match self {
            Self::Station(station) => station.group(),
            Self::Unsigned(description) => description.group,
        }
    }

    /// Where the same packets come to once more; foreign senders have no such group.
    #[must_use]
    pub fn copy_group(&self) -> Option<Ipv6Addr> {
        match self {
            Self::Station(station) => Some(station.copy_group()),
            Self::Unsigned(_) => None,
        }
    }

    /// UDP port of packets.
    #[must_use]
    pub fn media_port(&self) -> u16 {
        match self {
            Self::Station(_) => station::MEDIA_PORT,
            Self::Unsigned(description) => description.port,
        }
    }
}

/// Where a datagram came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The group, port of packets.
    Media,
    /// The copy group, port of packets.
    Copy,
    /// The group, port of beacons.
    Beacon,
}

/// What a listener is told. Casters are counted from 0, the station's own key, to [`MAX_CASTERS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session began, or changed what it says of itself.
    Station {
        /// Whose.
        caster: u8,
        /// What it says; none of a foreign sender.
        beacon: Option<Box<Beacon>>,
    },
    /// Sound, in the order of arrival.
    Sound(SoundPacket),
    /// A caster has ended its session, or its grant has expired.
    Ended {
        /// Which.
        caster: u8,
    },
}

/// What is heard of a caster now.
#[derive(Debug)]
struct Session {
    number: u32,
    beacon: Option<Beacon>,
    ssrc: u32,
    cipher: Option<Cipher>,
    /// Number of the packet that is expected about now.
    reference: u64,
    /// Timestamp about now, extended.
    timestamp: Option<u64>,
    /// Time of the latest beacon of each source; when it came, or a packet of a foreign sender did.
    sources: BTreeMap<Ipv6Addr, (u64, Instant)>,
}

impl Session {
    /// When it was last known to be alive.
    fn alive(&self) -> Option<Instant> {
        self.sources.values().map(|(_, at)| *at).max()
    }

    fn is_silent(&self, now: Instant) -> bool {
        let silent = |at| now.saturating_duration_since(at) > SILENCE;
        self.alive().is_none_or(silent)
    }

    fn has_ended(&self) -> bool {
        self.beacon.as_ref().is_some_and(|b| b.has_ended)
    }

    fn expires_ms(&self) -> Option<u64> {
        let grant = self.beacon.as_ref()?.grant.as_ref()?;
        Some(grant.expires_ms())
    }
}

/// The place of a caster: other sessions follow in it, with the same key or, by grants, with another.
#[derive(Debug)]
struct Place {
    session: Option<Session>,
    loss: Loss,
    /// Of packets, and of copies.
    rates: [TokenBucket; 2],
}

impl Place {
    fn new(now: Instant) -> Self {
        Self {
            session: None,
            loss: Loss::new(now),
            rates: [
                TokenBucket::of(MAX_RATE, now),
                TokenBucket::of(MAX_RATE, now),
            ],
        }
    }

    fn is_free(&self, now: Instant) -> bool {
        let gone = |session: &Session| session.has_ended() || session.is_silent(now);
        self.session.as_ref().is_none_or(gone)
    }
}

/// A datagram that waits for the first beacon.
#[derive(Debug)]
struct Early {
    channel: Channel,
    source: Ipv6Addr,
    datagram: Vec<u8>,
    arrival: Instant,
}

/// Listens to one station.
#[derive(Debug)]
pub struct Listener {
    tuned: Tuned,
    places: [Place; MAX_CASTERS],
    sessions: u32,
    early: VecDeque<Early>,
    events: VecDeque<Event>,
    /// Of what is of no caster: packets, copies, and of all beacons.
    rates: [TokenBucket; 3],
    drops: Drops<DropReason>,
    alive_at: Option<Instant>,
}

impl Listener {
    /// Nothing is heard yet.
    #[must_use]
    pub fn new(tuned: Tuned, now: Instant) -> Self {
        Self {
            tuned,
            places: std::array::from_fn(|_| Place::new(now)),
            sessions: 0,
            early: VecDeque::new(),
            events: VecDeque::new(),
            rates: std::array::from_fn(|_| TokenBucket::of(MAX_RATE, now)),
            drops: Drops::default(),
            alive_at: None,
        }
    }

    /// What is listened to.
    #[must_use]
    pub fn tuned(&self) -> &Tuned {
        &self.tuned
    }

    /// Whether a session is heard.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.places.iter().any(|place| place.session.is_some())
    }

    /// Casters that are on air: they have not ended, and beacons come. With what each says, none of a foreign sender.
    pub fn on_air(&self, now: Instant) -> impl Iterator<Item = (u8, Option<&Beacon>)> {
        let places = (0..).zip(&self.places);
        places.filter_map(move |(caster, place)| {
            let session = place.session.as_ref().filter(|_| !place.is_free(now))?;
            Some((caster, session.beacon.as_ref()))
        })
    }

    /// When a beacon or a packet of a session came last.
    #[must_use]
    pub fn alive_at(&self) -> Option<Instant> {
        self.alive_at
    }

    /// Somebody sends here what the key does not open.
    #[must_use]
    pub fn is_of_another_key(&self) -> bool {
        use DropReason::{BeaconForged, BeaconNotOpened, BeforeBeacon, GrantForged};
        let of_another = [BeaconForged, BeaconNotOpened, BeforeBeacon, GrantForged];
        let count = of_another.iter().map(|r| self.drops.get(*r)).sum::<u64>();
        !self.has_session() && (count > 0 || !self.early.is_empty())
    }

    /// A datagram came, from this address.
    pub fn handle_datagram(
        &mut self,
        channel: Channel,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        unix_ms: u64,
    ) {
        let result = match channel {
            Channel::Beacon => self.handle_beacon(source, datagram, now, unix_ms),
            _ => self.handle_packet(channel, source, datagram, now, unix_ms),
        };
        match result {
            Err(reason) => self.drops.count(reason),
            Ok(()) if self.has_session() => self.alive_at = Some(now),
            Ok(()) => {}
        }
    }

    fn handle_beacon(
        &mut self,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        unix_ms: u64,
    ) -> Result<(), DropReason> {
        let Tuned::Station(station) = &self.tuned else {
            return Err(DropReason::BeaconMalformed);
        };
        if !self.rates[2].take(1, now) {
            return Err(DropReason::Rate);
        }
        let beacon = Beacon::decode(datagram, station).map_err(|e| match e {
            BeaconError::Wire(_) => DropReason::BeaconMalformed,
            BeaconError::NotOpened => DropReason::BeaconNotOpened,
            BeaconError::Forged => DropReason::BeaconForged,
            BeaconError::Grant => DropReason::GrantForged,
        })?;
        if beacon.source != source {
            return Err(DropReason::BeaconSource);
        }
        if beacon.time_ms.abs_diff(unix_ms) > CLOCK_TOLERANCE_MS {
            return Err(DropReason::BeaconTime);
        }
        if let Some(grant) = &beacon.grant
            && grant.expires_ms() <= unix_ms
        {
            return Err(DropReason::GrantExpired);
        }
        let caster = self.place_of(beacon.caster(station), &beacon, now)?;
        match &mut self.places[caster].session {
            Some(session)
                if session
                    .beacon
                    .as_ref()
                    .is_some_and(|b| b.session == beacon.session) =>
            {
                let told = Self::goes_on(session, beacon, source, now)?;
                let caster = caster as u8;
                if let Some(beacon) = told.changed {
                    let beacon = Some(beacon);
                    self.events.push_back(Event::Station { caster, beacon });
                }
                if told.has_ended {
                    self.events.push_back(Event::Ended { caster });
                }
                Ok(())
            }
            Some(session)
                if is_of_same_key(session, &beacon) && !gives_way(session, &beacon, now) =>
            {
                Err(DropReason::BeaconOlder)
            }
            // what has ended is not begun
            _ if beacon.has_ended => Ok(()),
            _ => {
                self.begin(caster, Some(beacon), source, now, unix_ms);
                Ok(())
            }
        }
    }

    /// The place of a caster: the one that it has, or one that is free.
    fn place_of(
        &self,
        caster: &PeerId,
        beacon: &Beacon,
        now: Instant,
    ) -> Result<usize, DropReason> {
        if beacon.grant.is_none() {
            return Ok(0);
        }
        let granted = &self.places[1..];
        let is_his = |place: &Place| {
            let beacon = place.session.as_ref().and_then(|s| s.beacon.as_ref());
            let grant = beacon.and_then(|b| b.grant.as_ref());
            grant.is_some_and(|grant| grant.caster() == caster)
        };
        let his = granted.iter().position(is_his);
        let unused = || granted.iter().position(|place| place.session.is_none());
        let free = || granted.iter().position(|place| place.is_free(now));
        let place = his.or_else(unused).or_else(free);
        place.map(|at| at + 1).ok_or(DropReason::CastersFull)
    }

    /// Another beacon of a session that is heard.
    fn goes_on(
        session: &mut Session,
        beacon: Beacon,
        source: Ipv6Addr,
        now: Instant,
    ) -> Result<Told, DropReason> {
        let is_known = session.sources.contains_key(&source);
        if !is_known && session.sources.len() >= MAX_SOURCES {
            return Err(DropReason::OtherSource);
        }
        let latest = session.sources.entry(source).or_insert((0, now));
        if beacon.time_ms < latest.0 {
            return Err(DropReason::BeaconOlder);
        }
        *latest = (beacon.time_ms, now);
        if session.reference.abs_diff(beacon.next_index) > MAX_DISTANCE {
            session.reference = beacon.next_index;
        }
        let before = session.beacon.as_ref();
        let same = |a: &Beacon, b: &Beacon| {
            (&a.name, &a.title, a.is_talking) == (&b.name, &b.title, b.is_talking)
        };
        let has_changed = !before.is_some_and(|before| same(before, &beacon));
        let told = Told {
            has_ended: beacon.has_ended && before.is_some_and(|before| !before.has_ended),
            changed: has_changed.then(|| Box::new(beacon.clone())),
        };
        session.beacon = Some(beacon);
        Ok(told)
    }

    /// A session begins, with a beacon or the first packet of a foreign sender.
    fn begin(
        &mut self,
        caster: usize,
        beacon: Option<Beacon>,
        source: Ipv6Addr,
        now: Instant,
        unix_ms: u64,
    ) {
        let read_key = match &self.tuned {
            Tuned::Station(station) => station.read_key(),
            Tuned::Unsigned(_) => None,
        };
        let cipher = match (read_key, &beacon) {
            (Some(read_key), Some(beacon)) => Some(Cipher::of_session(read_key, &beacon.session)),
            _ => None,
        };
        let time = beacon.as_ref().map_or(0, |b| b.time_ms);
        let place = &mut self.places[caster];
        place.session = Some(Session {
            number: self.sessions,
            ssrc: beacon.as_ref().map_or(0, |b| b.ssrc),
            reference: beacon.as_ref().map_or(0, |b| b.next_index),
            beacon: beacon.clone(),
            cipher,
            timestamp: None,
            sources: BTreeMap::from([(source, (time, now))]),
        });
        place.loss.restart();
        self.sessions += 1;
        let caster = caster as u8;
        let beacon = beacon.map(Box::new);
        self.events.push_back(Event::Station { caster, beacon });
        for early in std::mem::take(&mut self.early) {
            let Early {
                channel,
                source,
                datagram,
                arrival,
            } = early;
            if let Err(reason) = self.handle_packet(channel, source, &datagram, arrival, unix_ms) {
                self.drops.count(reason);
            }
        }
    }

    fn handle_packet(
        &mut self,
        channel: Channel,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        unix_ms: u64,
    ) -> Result<(), DropReason> {
        let payload_type = match &self.tuned {
            Tuned::Station(_) => rtp::PAYLOAD_TYPE,
            Tuned::Unsigned(description) => description.payload_type,
        };
        let (header, length) = RtpHeader::read(datagram).map_err(|_| DropReason::Malformed)?;
        if header.payload_type != payload_type {
            return Err(DropReason::PayloadType);
        }
        self.look_at_foreign_source(&header, source, now, unix_ms);
        let is_of = |place: &Place| {
            let session = place.session.as_ref();
            session.is_some_and(|s| s.ssrc == header.ssrc && s.sources.contains_key(&source))
        };
        let caster = self.places.iter().position(is_of);
        let lane = usize::from(channel == Channel::Copy);
        let rate = match caster {
            Some(caster) => &mut self.places[caster].rates[lane],
            None => &mut self.rates[lane],
        };
        if !rate.take(1, now) {
            return Err(DropReason::Rate);
        }
        let Some(caster) = caster else {
            if self.has_session() {
                return Err(DropReason::OtherSource);
            }
            return self.keep_early(channel, source, datagram, now);
        };
        let place = &mut self.places[caster];
        let Some(session) = &mut place.session else {
            return Err(DropReason::OtherSource);
        };
        if session.expires_ms().is_some_and(|at| at <= unix_ms) {
            place.session = None;
            let caster = caster as u8;
            self.events.push_back(Event::Ended { caster });
            return Err(DropReason::GrantExpired);
        }
        let index = extend_sequence(session.reference, header.sequence);
        let opened = match &session.cipher {
            Some(cipher) => cipher
                .open(datagram, length, header.ssrc, index)
                .map_err(|_| DropReason::NotOpened)?,
            None => datagram.get(length..).unwrap_or_default().to_vec(),
        };
        let payload = header.without_padding(&opened);
        let payload = payload.map_err(|_| DropReason::Malformed)?.to_vec();
        let samples = opus::samples(&payload).ok_or(DropReason::NotOpus)?;
        match place.loss.packet(index, channel == Channel::Copy) {
            Arrival::New => {}
            Arrival::Duplicate => return Err(DropReason::Duplicate),
            Arrival::TooOld => return Err(DropReason::Expired),
        }
        session.reference = session.reference.max(index + 1);
        // far from 0, so that an earlier packet has a timestamp as well
        let reference = session.timestamp.unwrap_or(1 << 40);
        let timestamp = extend_timestamp(reference, header.timestamp);
        session.timestamp = Some(timestamp);
        self.events.push_back(Event::Sound(SoundPacket {
            caster: caster as u8,
            session: session.number,
            index,
            timestamp,
            samples,
            payload,
            arrival: now,
        }));
        Ok(())
    }

    /// A foreign sender: the first is kept while it sends.
    fn look_at_foreign_source(
        &mut self,
        header: &RtpHeader,
        source: Ipv6Addr,
        now: Instant,
        unix_ms: u64,
    ) {
        let Tuned::Unsigned(_) = self.tuned else {
            return;
        };
        let session = self.places[0].session.as_ref();
        if session.is_none_or(|session| session.is_silent(now)) {
            self.begin(0, None, source, now, unix_ms);
            if let Some(session) = &mut self.places[0].session {
                session.ssrc = header.ssrc;
                session.reference = u64::from(header.sequence) + (1 << 16);
            }
        }
        if let Some(session) = &mut self.places[0].session
            && session.ssrc == header.ssrc
            && let Some(entry) = session.sources.get_mut(&source)
        {
            entry.1 = now;
        }
    }

    fn keep_early(
        &mut self,
        channel: Channel,
        source: Ipv6Addr,
        datagram: &[u8],
        arrival: Instant,
    ) -> Result<(), DropReason> {
        if self.early.len() >= MAX_EARLY {
            // the newest are of more use: they are what is played next
            self.early.pop_front();
            self.drops.count(DropReason::BeforeBeacon);
        }
        if datagram.len() > rtp::MAX_PACKET {
            return Err(DropReason::BeforeBeacon);
        }
        self.early.push_back(Early {
            channel,
            source,
            datagram: datagram.to_vec(),
            arrival,
        });
        Ok(())
    }

    /// What is to be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Decides what time decides.
    pub fn handle_timeout(&mut self, now: Instant) {
        for place in &mut self.places {
            place.loss.poll(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        let next = self.places.iter().map(|place| place.loss.next());
        next.fold(self.places[0].loss.next(), Instant::min)
    }

    /// Whether the copy group is to be joined.
    #[must_use]
    pub fn wants_copy(&self) -> bool {
        let wants = self.places.iter().any(|place| place.loss.wants_copy());
        wants && self.tuned.copy_group().is_some()
    }

    /// Packets of all sessions so far.
    #[must_use]
    pub fn loss(&self) -> LossCount {
        let of_each = self.places.iter().map(|place| place.loss.total());
        of_each.fold(LossCount::default(), LossCount::plus)
    }

    /// A packet was of no use to who plays or records.
    pub fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// What was dropped.
    #[must_use]
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }
}

/// What a further beacon of a session changes.
struct Told {
    changed: Option<Box<Beacon>>,
    has_ended: bool,
}

/// Whether this beacon is of the caster that has the session. By grants, another one takes the place of who has gone.
fn is_of_same_key(session: &Session, beacon: &Beacon) -> bool {
    let caster = |b: &Beacon| b.grant.as_ref().map(|grant| *grant.caster());
    let current = session.beacon.as_ref();
    current.is_some_and(|current| caster(current) == caster(beacon))
}

/// Whether the session that is heard gives way to the one of this beacon.
fn gives_way(session: &Session, beacon: &Beacon, now: Instant) -> bool {
    let Some(current) = &session.beacon else {
        return true;
    };
    let is_later = (beacon.started_ms, beacon.session) > (current.started_ms, current.session);
    is_later || session.is_silent(now) || current.has_ended
}
