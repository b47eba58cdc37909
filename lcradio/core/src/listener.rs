//! A listener: accepts the station's sound among all datagrams of its groups.
//!
//! ```text
//! nothing --beacon--> session --later beacon, or another one after 5 s without any--> next session
//! ```
//!
//! Up to [`MAX_CASTERS`] casters are played at once, each with its key and one session: the
//! station's key, and keys by grants. Packets before the first beacon wait for it. A session may
//! have a source address per interface. A foreign sender's first source is kept while it sends.

use librecast::time::{Duration, Instant, UnixTime};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::{Rate, TokenBucket};
use librecast::drops::Drops;
use librecast::id::PeerId;

use crate::beacon::{self, Beacon, BeaconError, Begun, SessionId};
use crate::caster::CLOCK_TOLERANCE_MS;
use crate::drops::DropReason;
use crate::loss::{Arrival, Loss, LossCount};
use crate::opus;
use crate::packet::SoundPacket;
use crate::rtp::{self, RtpHeader, extend_sequence, extend_timestamp};
use crate::sdp::Description;
use crate::srtp::Cipher;
use crate::station::{self, Station};

/// Most casters of a station at once: its own key, with a reserved place, and seven by grants.
pub const MAX_CASTERS: usize = 8;
/// Most packets a second of a caster, and of all unknown sources: 5-ms packets.
const MAX_RATE: Rate = Rate::per_second(200, 200);
/// Most beacons of a caster on air. Chosen: it sends one a second from each of its addresses.
const BEACONS: Rate = Rate::per_second(20, 40);
/// Most packets that wait for the first beacon: a second of 20-ms packets, and some copies.
const MAX_EARLY: usize = 64;
/// Most addresses of one caster.
const MAX_SOURCES: usize = 8;
/// Silence of a session or foreign sender after which another one replaces it.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);
/// Largest difference of packet and beacon numbers, unless this listener slept.
const MAX_DISTANCE: u64 = 1_000;

/// The station of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tuned {
    /// A station with signed beacons.
    Station(Station),
    /// A foreign sender without signatures.
    Unsigned(Description),
}

impl Tuned {
    /// Returns the group of packets.
    pub fn group(&self) -> Ipv6Addr {
        match self {
            Self::Station(station) => station.group(),
            Self::Unsigned(description) => description.group,
        }
    }

    /// Returns the group of copies; foreign senders have none.
    pub fn copy_group(&self) -> Option<Ipv6Addr> {
        match self {
            Self::Station(station) => Some(station.copy_group()),
            Self::Unsigned(_) => None,
        }
    }

    /// Returns the UDP port of packets.
    pub fn media_port(&self) -> u16 {
        match self {
            Self::Station(_) => station::MEDIA_PORT,
            Self::Unsigned(description) => description.port,
        }
    }
}

/// The destination of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The group, port of packets.
    Media,
    /// The copy group, port of packets.
    Copy,
    /// The group, port of beacons.
    Beacon,
}

/// An event of a listener. Casters are numbered from 0, the station's own key, to [`MAX_CASTERS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session began, or its description changed.
    Station {
        /// The caster.
        caster: u8,
        /// The description; none for a foreign sender.
        beacon: Option<Box<Beacon>>,
    },
    /// Sound, in the order of arrival.
    Sound(SoundPacket),
    /// A caster has ended its session, or its grant has expired.
    Ended {
        /// The caster.
        caster: u8,
    },
}

/// The present session of a caster.
#[derive(Debug)]
struct Session {
    number: u32,
    beacon: Option<Beacon>,
    ssrc: u32,
    cipher: Option<Cipher>,
    /// The packet number expected about now.
    reference: u64,
    /// The timestamp about now, extended.
    timestamp: Option<u64>,
    /// The latest beacon's time for each source; arrival of it, or of a foreign packet.
    sources: BTreeMap<Ipv6Addr, (u64, Instant)>,
    /// The interface of its verified beacons, and the arrival of the last one there.
    interface: (u32, Instant),
}

impl Session {
    /// Notes a verified beacon that no earlier one repeats. Another interface takes the place of
    /// the present one once that is silent.
    fn came_by(&mut self, interface: u32, now: Instant) {
        let (current, heard_at) = self.interface;
        if interface == current || now.saturating_duration_since(heard_at) > SILENCE {
            self.interface = (interface, now);
        }
    }

    /// Returns when it last gave a sign of life.
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

/// The place of a caster, for successive sessions, with the same key or, by grants, another.
#[derive(Debug)]
struct Place {
    session: Option<Session>,
    loss: Loss,
    /// For packets, and for copies.
    rates: [TokenBucket; 2],
    /// For beacons from its addresses: forged ones from others leave it alone.
    beacons: TokenBucket,
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
            beacons: TokenBucket::of(BEACONS, now),
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

/// Most sessions of a call without a place that are known.
const MAX_REFUSED: usize = 64;
/// Most casters of a call whose last beacon's time is known, so that a recorded one holds no place.
/// Chosen: 128 times the places.
const MAX_HEARD: usize = 1_024;

/// A caster of a call, whose own packets come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Own {
    pub key: PeerId,
    pub ssrc: u32,
}

/// A listener of one station.
#[derive(Debug)]
pub struct Listener {
    tuned: Tuned,
    /// In a call, no place is reserved.
    is_call: bool,
    own: Option<Own>,
    /// In a call, sessions without a place: begin and id, and the last beacon.
    refused: BTreeMap<PeerId, (Begun, Instant)>,
    /// In a call, the time of the last beacon of each caster, also after it has left.
    heard: BTreeMap<PeerId, u64>,
    places: [Place; MAX_CASTERS],
    sessions: u32,
    early: VecDeque<Early>,
    events: VecDeque<Event>,
    /// For packets, copies and beacons of unknown casters.
    rates: [TokenBucket; 3],
    drops: Drops<DropReason>,
    alive_at: Option<Instant>,
}

impl Listener {
    /// Makes a listener without sessions.
    #[must_use]
    pub fn new(tuned: Tuned, now: Instant) -> Self {
        Self {
            tuned,
            is_call: false,
            own: None,
            refused: BTreeMap::new(),
            heard: BTreeMap::new(),
            places: std::array::from_fn(|_| Place::new(now)),
            sessions: 0,
            early: VecDeque::new(),
            events: VecDeque::new(),
            rates: std::array::from_fn(|_| TokenBucket::of(MAX_RATE, now)),
            drops: Drops::default(),
            alive_at: None,
        }
    }

    /// Makes a listener of a call: all places are equal.
    pub(crate) fn of_call(station: Station, now: Instant) -> Self {
        Self {
            is_call: true,
            ..Self::new(Tuned::Station(station), now)
        }
    }

    /// Sets the caster of this participant, which is not played.
    pub(crate) fn set_own(&mut self, own: Option<Own>) {
        self.own = own;
    }

    /// Returns its station.
    pub fn tuned(&self) -> &Tuned {
        &self.tuned
    }

    /// Returns whether there is a session.
    pub fn has_session(&self) -> bool {
        self.places.iter().any(|place| place.session.is_some())
    }

    fn session(&self, session: &SessionId) -> Option<&Session> {
        let mut sessions = self
            .places
            .iter()
            .filter_map(|place| place.session.as_ref());
        sessions.find(|known| {
            let beacon = known.beacon.as_ref();
            beacon.is_some_and(|b| b.session == *session)
        })
    }

    /// Returns whether a verified beacon of this session came from this address.
    pub(crate) fn is_source_of(&self, session: &SessionId, source: Ipv6Addr) -> bool {
        let known = self.session(session);
        known.is_some_and(|known| known.sources.contains_key(&source))
    }

    /// Returns the interface of this session's verified beacons.
    pub(crate) fn interface_of(&self, session: &SessionId) -> Option<u32> {
        Some(self.session(session)?.interface.0)
    }

    /// Returns the casters on air with their descriptions, none for a foreign sender.
    pub fn on_air(&self, now: Instant) -> impl Iterator<Item = (u8, Option<&Beacon>)> {
        let places = (0..).zip(&self.places);
        places.filter_map(move |(caster, place)| {
            let session = place.session.as_ref().filter(|_| !place.is_free(now))?;
            Some((caster, session.beacon.as_ref()))
        })
    }

    /// Returns the silence of this caster's session in this place, unless it has ended, and whether
    /// its packets get lost.
    pub(crate) fn reception(
        &self,
        place: u8,
        caster: &PeerId,
        now: Instant,
    ) -> Option<(Duration, bool)> {
        let place = self.places.get(usize::from(place))?;
        let session = place.session.as_ref().filter(|s| !s.has_ended())?;
        let (Tuned::Station(station), Some(beacon)) = (&self.tuned, &session.beacon) else {
            return None;
        };
        let alive = session
            .alive()
            .filter(|_| beacon.caster(station) == caster)?;
        Some((now.saturating_duration_since(alive), place.loss.is_poor()))
    }

    /// Returns when the last beacon or packet of a session arrived.
    pub fn alive_at(&self) -> Option<Instant> {
        self.alive_at
    }

    /// Returns whether a sender is here that this key does not open.
    pub fn is_of_another_key(&self) -> bool {
        use DropReason::{BeaconForged, BeaconNotOpened, BeforeBeacon, GrantForged};
        let of_another = [BeaconForged, BeaconNotOpened, BeforeBeacon, GrantForged];
        let count = of_another.iter().map(|r| self.drops.get(*r)).sum::<u64>();
        !self.has_session() && (count > 0 || !self.early.is_empty())
    }

    /// Handles a datagram from this address, on a host with one interface.
    pub fn handle_datagram(
        &mut self,
        channel: Channel,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        time: UnixTime,
    ) {
        self.handle_datagram_by(0, channel, source, datagram, now, time);
    }

    /// Handles a datagram that came by this interface.
    pub(crate) fn handle_datagram_by(
        &mut self,
        interface: u32,
        channel: Channel,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        time: UnixTime,
    ) {
        let result = match channel {
            Channel::Beacon => self.handle_beacon(interface, source, datagram, now, time),
            _ => self.handle_packet(channel, source, datagram, now, time),
        };
        match result {
            Err(reason) => self.drops.count(reason),
            Ok(()) if self.has_session() => self.alive_at = Some(now),
            Ok(()) => {}
        }
    }

    fn handle_beacon(
        &mut self,
        interface: u32,
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        time: UnixTime,
    ) -> Result<(), DropReason> {
        let Tuned::Station(station) = &self.tuned else {
            return Err(DropReason::BeaconMalformed);
        };
        let reason = |e| match e {
            BeaconError::Wire(_) => DropReason::BeaconMalformed,
            BeaconError::NotOpened => DropReason::BeaconNotOpened,
            BeaconError::Forged => DropReason::BeaconForged,
            BeaconError::Grant => DropReason::GrantForged,
        };
        // a host without the key of a private station uses up nothing
        let plain = beacon::open_sealed(datagram, station).map_err(reason)?;
        let is_from = |place: &Place| {
            let session = place.session.as_ref();
            session.is_some_and(|session| session.sources.contains_key(&source))
        };
        let rate = match self.places.iter().position(is_from) {
            Some(caster) => &mut self.places[caster].beacons,
            None => &mut self.rates[2],
        };
        if !rate.take(1, now) {
            return Err(DropReason::Rate);
        }
        let beacon = Beacon::decode_plain(&plain, station).map_err(reason)?;
        if beacon.source != source {
            return Err(DropReason::BeaconSource);
        }
        if beacon.time_ms.abs_diff(time.as_millis()) > CLOCK_TOLERANCE_MS {
            return Err(DropReason::BeaconTime);
        }
        if let Some(grant) = &beacon.grant
            && grant.expires_ms() <= time.as_millis()
        {
            return Err(DropReason::GrantExpired);
        }
        let caster = beacon.caster(station);
        if self.own.is_some_and(|own| own.key == *caster) {
            return Err(DropReason::Own);
        }
        let key = *caster;
        if self.is_call {
            let is_placed = self.places.iter().any(|place| {
                let placed = place.session.as_ref().and_then(|s| s.beacon.as_ref());
                placed.is_some_and(|b| b.session == beacon.session && *b.caster(station) == key)
            });
            let last = self.heard.get(&key).copied();
            // those of a session in its place are compared for each source
            if !is_placed && last.is_some_and(|last| beacon.time_ms <= last) {
                return Err(DropReason::BeaconOlder);
            }
            let latest = beacon.time_ms.max(last.unwrap_or(0));
            remember(&mut self.heard, key, latest);
        }
        let caster = match self.place_of(&key, &beacon, station, now) {
            Ok(place) => place,
            Err(reason) => {
                self.refuse(key, &beacon, now);
                return Err(reason);
            }
        };
        self.refused.remove(&key);
        match &mut self.places[caster].session {
            Some(session)
                if session
                    .beacon
                    .as_ref()
                    .is_some_and(|b| b.session == beacon.session) =>
            {
                let told = Self::goes_on(session, beacon, (interface, source), now)?;
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
            // an ended session is not begun
            _ if beacon.has_ended => Ok(()),
            _ => {
                self.begin(caster, Some(beacon), (interface, source), now, time);
                Ok(())
            }
        }
    }

    /// Notes a session of a call without a place.
    fn refuse(&mut self, key: PeerId, beacon: &Beacon, now: Instant) {
        let is_known = |at: Instant| now.saturating_duration_since(at) <= SILENCE;
        self.refused.retain(|_, (_, at)| is_known(*at));
        if beacon.has_ended {
            self.refused.remove(&key);
        } else if self.is_call
            && (self.refused.len() < MAX_REFUSED || self.refused.contains_key(&key))
        {
            let begun = (beacon.started_ms, beacon.session);
            self.refused.insert(key, (begun, now));
        }
    }

    /// Returns the casters of a call, with and without a place.
    pub(crate) fn contenders(&self, now: Instant) -> impl Iterator<Item = (PeerId, Begun)> {
        let placed = self.on_air(now).filter_map(|(_, beacon)| {
            let (Tuned::Station(station), Some(beacon)) = (&self.tuned, beacon) else {
                return None;
            };
            Some((*beacon.caster(station), (beacon.started_ms, beacon.session)))
        });
        let is_known = move |at: Instant| now.saturating_duration_since(at) <= SILENCE;
        let refused = self.refused.iter();
        let refused = refused.filter(move |(_, (_, at))| is_known(*at));
        placed.chain(refused.map(|(key, (begun, _))| (*key, *begun)))
    }

    /// Returns the place of a caster: its own, or a free one.
    fn place_of(
        &self,
        caster: &PeerId,
        beacon: &Beacon,
        station: &Station,
        now: Instant,
    ) -> Result<usize, DropReason> {
        if beacon.grant.is_none() && !self.is_call {
            return Ok(0);
        }
        let reserved = usize::from(!self.is_call);
        let granted = &self.places[reserved..];
        let is_his = |place: &Place| {
            let beacon = place.session.as_ref().and_then(|s| s.beacon.as_ref());
            beacon.is_some_and(|beacon| beacon.caster(station) == caster)
        };
        let his = granted.iter().position(is_his);
        let unused = || granted.iter().position(|place| place.session.is_none());
        let free = || granted.iter().position(|place| place.is_free(now));
        let place = his.or_else(unused).or_else(free);
        place.map(|at| at + reserved).ok_or(DropReason::CastersFull)
    }

    /// Handles a further beacon of a session.
    fn goes_on(
        session: &mut Session,
        beacon: Beacon,
        (interface, source): (u32, Ipv6Addr),
        now: Instant,
    ) -> Result<Told, DropReason> {
        let is_known = session.sources.contains_key(&source);
        if !is_known && session.sources.len() >= MAX_SOURCES {
            return Err(DropReason::OtherSource);
        }
        let newest = session.sources.values().map(|(time, _)| *time).max();
        let newest = newest.unwrap_or(0);
        let alive = session.alive().unwrap_or(now);
        let latest = session.sources.entry(source).or_insert((0, alive));
        if beacon.time_ms < latest.0 {
            return Err(DropReason::BeaconOlder);
        }
        let is_later = beacon.time_ms > latest.0;
        latest.0 = beacon.time_ms;
        if beacon.time_ms > newest {
            // a repeated beacon is not a sign of life
            latest.1 = now;
        }
        if is_later {
            session.came_by(interface, now);
        }
        if beacon.time_ms < newest {
            // another interface's later one came before
            return Ok(Told::default());
        }
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

    /// Begins a session, with a beacon or the first packet of a foreign sender.
    fn begin(
        &mut self,
        caster: usize,
        beacon: Option<Beacon>,
        (interface, source): (u32, Ipv6Addr),
        now: Instant,
        time: UnixTime,
    ) {
        let read_key = match &self.tuned {
            Tuned::Station(station) => station.read_key(),
            Tuned::Unsigned(_) => None,
        };
        let cipher = match (read_key, &beacon) {
            (Some(read_key), Some(beacon)) => Some(Cipher::of_session(read_key, &beacon.session)),
            _ => None,
        };
        let sent_ms = beacon.as_ref().map_or(0, |b| b.time_ms);
        let place = &mut self.places[caster];
        place.session = Some(Session {
            number: self.sessions,
            ssrc: beacon.as_ref().map_or(0, |b| b.ssrc),
            reference: beacon.as_ref().map_or(0, |b| b.next_index),
            beacon: beacon.clone(),
            cipher,
            timestamp: None,
            sources: BTreeMap::from([(source, (sent_ms, now))]),
            interface: (interface, now),
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
            if let Err(reason) = self.handle_packet(channel, source, &datagram, arrival, time) {
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
        time: UnixTime,
    ) -> Result<(), DropReason> {
        let payload_type = match &self.tuned {
            Tuned::Station(_) => rtp::PAYLOAD_TYPE,
            Tuned::Unsigned(description) => description.payload_type,
        };
        let (header, length) = RtpHeader::read(datagram).map_err(|_| DropReason::Malformed)?;
        if header.payload_type != payload_type {
            return Err(DropReason::PayloadType);
        }
        if self.own.is_some_and(|own| own.ssrc == header.ssrc) {
            return Err(DropReason::Own);
        }
        self.look_at_foreign_source(&header, source, now, time);
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
        if session
            .expires_ms()
            .is_some_and(|at| at <= time.as_millis())
        {
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

    /// Begins the session of a foreign sender; its first source is kept while it sends.
    fn look_at_foreign_source(
        &mut self,
        header: &RtpHeader,
        source: Ipv6Addr,
        now: Instant,
        time: UnixTime,
    ) {
        let Tuned::Unsigned(_) = self.tuned else {
            return;
        };
        let session = self.places[0].session.as_ref();
        if session.is_none_or(|session| session.is_silent(now)) {
            self.begin(0, None, (0, source), now, time);
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
            // the newest are more useful: they are played next
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

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Updates the decisions about the copy.
    pub fn handle_timeout(&mut self, now: Instant) {
        for place in &mut self.places {
            place.loss.poll(now);
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) must be called.
    pub fn next_timeout(&self) -> Instant {
        let next = self.places.iter().map(|place| place.loss.next());
        next.fold(self.places[0].loss.next(), Instant::min)
    }

    /// Returns whether the copy group shall be joined.
    pub fn wants_copy(&self) -> bool {
        let wants = self.places.iter().any(|place| place.loss.wants_copy());
        wants && self.tuned.copy_group().is_some()
    }

    /// Groups are left for a while: packets until the next one that comes are not lost.
    pub fn pause(&mut self) {
        for place in &mut self.places {
            place.loss.restart();
        }
    }

    /// Returns the packet counts of all sessions so far.
    pub fn loss(&self) -> LossCount {
        let of_each = self.places.iter().map(|place| place.loss.total());
        of_each.fold(LossCount::default(), LossCount::plus)
    }

    /// Counts a packet that was of no use for playing or recording.
    pub fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    /// Returns the drops.
    pub fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }
}

/// Remembers the time of a caster's last beacon; the caster with the earliest one gives way.
fn remember(heard: &mut BTreeMap<PeerId, u64>, key: PeerId, time_ms: u64) {
    if heard.len() >= MAX_HEARD && !heard.contains_key(&key) {
        let earliest = heard.iter().min_by_key(|(_, time)| **time);
        if let Some(earliest) = earliest.map(|(key, _)| *key) {
            heard.remove(&earliest);
        }
    }
    heard.insert(key, time_ms);
}

/// The changes by a further beacon of a session.
#[derive(Default)]
struct Told {
    changed: Option<Box<Beacon>>,
    has_ended: bool,
}

/// Returns whether this beacon is of the session's key. By grants, another may replace it.
fn is_of_same_key(session: &Session, beacon: &Beacon) -> bool {
    let caster = |b: &Beacon| b.grant.as_ref().map(|grant| *grant.caster());
    let current = session.beacon.as_ref();
    current.is_some_and(|current| caster(current) == caster(beacon))
}

/// Returns whether the session of this beacon replaces the present one.
fn gives_way(session: &Session, beacon: &Beacon, now: Instant) -> bool {
    let Some(current) = &session.beacon else {
        return true;
    };
    let is_later = (beacon.started_ms, beacon.session) > (current.started_ms, current.session);
    is_later || session.is_silent(now) || current.has_ended
}
