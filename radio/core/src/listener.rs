//! What a listener takes for the station's sound, from all that comes to its groups.
//!
//! ```text
//! nothing --beacon--> session --later beacon, or another one after 5 s without any--> next session
//! ```
//!
//! Packets that came before the first beacon wait for it. A session may come from several addresses at once: one caster on
//! several interfaces. A foreign sender has no beacons: the first source that is heard is kept while it sends.

use librecast::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::{Rate, TokenBucket};
use librecast::drops::Drops;

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

/// Most packets in a second: 5-ms packets.
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

/// What a listener is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session began, or changed what it says of itself; none of a foreign sender.
    Station(Option<Beacon>),
    /// Sound, in the order of arrival.
    Sound(SoundPacket),
    /// The caster has ended the session.
    Ended,
}

/// What is heard now.
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
    session: Option<Session>,
    sessions: u32,
    early: VecDeque<Early>,
    events: VecDeque<Event>,
    loss: Loss,
    rates: [TokenBucket; 3],
    drops: Drops<DropReason>,
    alive_at: Option<Instant>,
}

impl Listener {
    /// Nothing is heard yet.
    #[must_use]
    pub fn new(tuned: Tuned, now: Instant) -> Self {
        let bucket = || TokenBucket::of(MAX_RATE, now);
        Self {
            tuned,
            session: None,
            sessions: 0,
            early: VecDeque::new(),
            events: VecDeque::new(),
            loss: Loss::new(now),
            rates: [bucket(), bucket(), bucket()],
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
        self.session.is_some()
    }

    /// When a beacon or a packet of the session came last.
    #[must_use]
    pub fn alive_at(&self) -> Option<Instant> {
        self.alive_at
    }

    /// Somebody sends here what the key does not open.
    #[must_use]
    pub fn is_of_another_key(&self) -> bool {
        use DropReason::{BeaconForged, BeaconNotOpened, BeforeBeacon};
        let of_another = [BeaconForged, BeaconNotOpened, BeforeBeacon].map(|r| self.drops.get(r));
        let count = of_another.iter().sum::<u64>();
        self.session.is_none() && (count > 0 || !self.early.is_empty())
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
        let rate = match channel {
            Channel::Media => &mut self.rates[0],
            Channel::Copy => &mut self.rates[1],
            Channel::Beacon => &mut self.rates[2],
        };
        let result = if !rate.take(1, now) {
            Err(DropReason::Rate)
        } else if channel == Channel::Beacon {
            self.handle_beacon(source, datagram, now, unix_ms)
        } else {
            self.handle_packet(channel, source, datagram, now)
        };
        match result {
            Err(reason) => self.drops.count(reason),
            Ok(()) if self.session.is_some() => self.alive_at = Some(now),
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
        let beacon = Beacon::decode(datagram, station).map_err(|e| match e {
            BeaconError::Wire(_) => DropReason::BeaconMalformed,
            BeaconError::NotOpened => DropReason::BeaconNotOpened,
            BeaconError::Forged => DropReason::BeaconForged,
        })?;
        if beacon.source != source {
            return Err(DropReason::BeaconSource);
        }
        if beacon.time_ms.abs_diff(unix_ms) > CLOCK_TOLERANCE_MS {
            return Err(DropReason::BeaconTime);
        }
        match &mut self.session {
            Some(session)
                if session
                    .beacon
                    .as_ref()
                    .is_some_and(|b| b.session == beacon.session) =>
            {
                Self::goes_on(session, beacon, source, now, &mut self.events)
            }
            Some(session) if !gives_way(session, &beacon, now) => Err(DropReason::BeaconOlder),
            // what has ended is not begun
            _ if beacon.has_ended => Ok(()),
            _ => {
                self.begin(Some(beacon), source, now);
                Ok(())
            }
        }
    }

    /// Another beacon of the session that is heard.
    fn goes_on(
        session: &mut Session,
        beacon: Beacon,
        source: Ipv6Addr,
        now: Instant,
        events: &mut VecDeque<Event>,
    ) -> Result<(), DropReason> {
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
        let told = session.beacon.as_ref();
        let same = |a: &Beacon, b: &Beacon| {
            (&a.name, &a.title, a.is_talking) == (&b.name, &b.title, b.is_talking)
        };
        let has_ended = beacon.has_ended && told.is_some_and(|told| !told.has_ended);
        if !told.is_some_and(|told| same(told, &beacon)) {
            events.push_back(Event::Station(Some(beacon.clone())));
        }
        if has_ended {
            events.push_back(Event::Ended);
        }
        session.beacon = Some(beacon);
        Ok(())
    }

    /// A session begins, with a beacon or the first packet of a foreign sender.
    fn begin(&mut self, beacon: Option<Beacon>, source: Ipv6Addr, now: Instant) {
        let read_key = match &self.tuned {
            Tuned::Station(station) => station.read_key(),
            Tuned::Unsigned(_) => None,
        };
        let cipher = match (read_key, &beacon) {
            (Some(read_key), Some(beacon)) => Some(Cipher::of_session(read_key, &beacon.session)),
            _ => None,
        };
        let time = beacon.as_ref().map_or(0, |b| b.time_ms);
        self.session = Some(Session {
            number: self.sessions,
            ssrc: beacon.as_ref().map_or(0, |b| b.ssrc),
            reference: beacon.as_ref().map_or(0, |b| b.next_index),
            beacon: beacon.clone(),
            cipher,
            timestamp: None,
            sources: BTreeMap::from([(source, (time, now))]),
        });
        self.sessions += 1;
        self.loss.restart();
        self.events.push_back(Event::Station(beacon));
        for early in std::mem::take(&mut self.early) {
            let Early {
                channel,
                source,
                datagram,
                arrival,
            } = early;
            if let Err(reason) = self.handle_packet(channel, source, &datagram, arrival) {
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
    ) -> Result<(), DropReason> {
        let payload_type = match &self.tuned {
            Tuned::Station(_) => rtp::PAYLOAD_TYPE,
            Tuned::Unsigned(description) => description.payload_type,
        };
        let (header, length) = RtpHeader::read(datagram).map_err(|_| DropReason::Malformed)?;
        if header.payload_type != payload_type {
            return Err(DropReason::PayloadType);
        }
        self.look_at_foreign_source(&header, source, now);
        let Some(session) = &mut self.session else {
            return self.keep_early(channel, source, datagram, now);
        };
        if header.ssrc != session.ssrc || !session.sources.contains_key(&source) {
            return Err(DropReason::OtherSource);
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
        match self.loss.packet(index, channel == Channel::Copy) {
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
    fn look_at_foreign_source(&mut self, header: &RtpHeader, source: Ipv6Addr, now: Instant) {
        let Tuned::Unsigned(_) = self.tuned else {
            return;
        };
        let silent = |session: &Session| {
            let alive = session.alive();
            alive.is_none_or(|at| now.saturating_duration_since(at) > SILENCE)
        };
        if self.session.as_ref().is_none_or(silent) {
            self.begin(None, source, now);
            if let Some(session) = &mut self.session {
                session.ssrc = header.ssrc;
                session.reference = u64::from(header.sequence) + (1 << 16);
            }
        }
        if let Some(session) = &mut self.session
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
        self.loss.poll(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.loss.next()
    }

    /// Whether the copy group is to be joined.
    #[must_use]
    pub fn wants_copy(&self) -> bool {
        self.loss.wants_copy() && self.tuned.copy_group().is_some()
    }

    /// Packets of all sessions so far.
    #[must_use]
    pub fn loss(&self) -> LossCount {
        self.loss.total()
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

/// Whether the session that is heard gives way to the one of this beacon.
fn gives_way(session: &Session, beacon: &Beacon, now: Instant) -> bool {
    let Some(current) = &session.beacon else {
        return true;
    };
    let is_later = (beacon.started_ms, beacon.session) > (current.started_ms, current.session);
    let alive = session.alive();
    let silent = alive.is_none_or(|at| now.saturating_duration_since(at) > SILENCE);
    is_later || silent || current.has_ended
}
