//! The packets of a caster, and their times.
//!
//! | to | port | content | when |
//! |---|---|---|---|
//! | the group | 5004 | packets | at once |
//! | the copy group | 5004 | the same packets | 40 ms later |
//! | the group | 5006 | a beacon | each second, and at a change |
//! | the group of answers | 5006 | its clock, if listeners play in step | 100 ms after a question |
//! | the group | 5005 | the sender's report, of a public station | each 5 s |
//! | ff0e::2:7ffe | 9875 | an announcement, of a public station | each 5 s, and at the end |

use librecast::time::{Duration, Instant, UnixTime};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

use librecast::drops::Drops;
use librecast::id::derive;
use librecast::wire::WireError;

use crate::answers::Answers;
use crate::beacon::{Beacon, Begun, Profile, SessionId, is_showable};
use crate::clock::PLAY_AFTER_MS;
use crate::drops::DropReason;
use crate::grant::Grant;
use crate::rtcp::{REPORT_INTERVAL, SenderReport};
use crate::rtp::{self, RtpHeader};
use crate::sap::{ANNOUNCE_INTERVAL, Announcement};
use crate::sdp;
use crate::srtp::{Cipher, MAX_INDEX};
use crate::station::{ClockGroups, Station, StationKey};

/// Delay of the copy: longer than most bursts of loss (RFC 7198, 2.2).
pub const COPY_DELAY: Duration = Duration::from_millis(40);
/// Time between two beacons.
pub const BEACON_INTERVAL: Duration = Duration::from_secs(1);
/// Beacons at the end: some may be lost.
const LAST_BEACONS: u32 = 3;
/// Time between two of the last beacons. Chosen.
const LAST_INTERVAL: Duration = Duration::from_millis(50);
/// Longest payload in bytes: with header and tag it is a packet.
pub const MAX_PAYLOAD: usize = rtp::MAX_PACKET - rtp::HEADER - crate::srtp::TAG;
/// Largest difference of clocks in beacons, so that a recording of a station is not taken for it.
pub(crate) const CLOCK_TOLERANCE_MS: u64 = 3_600_000;

/// The parameters of a caster.
#[derive(Debug, Clone)]
pub struct CasterConfig {
    /// Anybody may listen. With a grant, its station decides.
    pub is_public: bool,
    /// The grant, if the key is not the station's.
    pub grant: Option<Grant>,
    /// The station's name.
    pub name: String,
    /// The present title.
    pub title: String,
    /// The kind of sound.
    pub profile: Profile,
    /// Channels: 1 or 2.
    pub channels: u8,
    /// Delay of listeners in step behind this caster, 20 to 800 ms; none: they do not play in step.
    pub together: Option<Duration>,
    /// Random bytes of each run: source of session id, SSRC and first numbers.
    pub seed: [u8; 32],
    /// The wall clock at the start of this run.
    pub started: UnixTime,
}

/// A datagram to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmit {
    /// A packet, to the group.
    Packet(Vec<u8>),
    /// The same later, to the copy group.
    Copy(Vec<u8>),
    /// [`Caster::beacon`] for each source address.
    Beacon,
    /// [`Caster::report`].
    Report,
    /// [`Caster::announcement`] for each source address.
    Announcement,
    /// [`Caster::answer`], to the group of answers.
    Answer,
}

/// One run of a station.
#[derive(Debug)]
pub struct Caster {
    key: StationKey,
    station: Station,
    config: CasterConfig,
    session: SessionId,
    ssrc: u32,
    cipher: Option<Cipher>,
    next_index: u64,
    next_timestamp: u64,
    /// The next packet is the first after a pause.
    is_after_pause: bool,
    is_talking: bool,
    is_away: bool,
    sent: (u32, u32),
    outgoing: VecDeque<Transmit>,
    copies: VecDeque<(Instant, Vec<u8>)>,
    beacon_at: Instant,
    announcement_at: Instant,
    report_at: Instant,
    /// Datagrams sealed under the station's key.
    sealed: u64,
    answers: Option<Answers>,
    /// Last beacons still to be sent, once it has ended.
    ends: Option<u32>,
}

impl Caster {
    /// Begins a session of a station.
    ///
    /// # Errors
    /// A name or title that cannot be shown, a grant of another key, or a delay out of bounds.
    pub fn new(key: StationKey, mut config: CasterConfig, now: Instant) -> Result<Self, WireError> {
        if !is_showable(&config.name) || !is_showable(&config.title) {
            return Err(WireError::Bad("name or title"));
        }
        let station = match &config.grant {
            None => key.station(config.is_public),
            Some(grant) if *grant.caster() == key.id() => grant.station().clone(),
            Some(_) => return Err(WireError::Bad("grant")),
        };
        let play_after = |after: Duration| {
            let ms = u16::try_from(after.as_millis()).ok();
            let ms = ms.filter(|ms| PLAY_AFTER_MS.contains(ms));
            ms.ok_or(WireError::Bad("delay of listeners in step"))
        };
        let play_after = config.together.map(play_after).transpose()?;
        config.is_public = station.is_public();
        let part = |name: &str| derive("lcradio 2026 session", &[&config.seed, name.as_bytes()]);
        let mut session = SessionId::default();
        session.copy_from_slice(&part("id")[..16]);
        let word = |name| {
            let [a, b, c, d, ..] = part(name);
            u32::from_be_bytes([a, b, c, d])
        };
        let cipher = station.read_key();
        let cipher = cipher.map(|read_key| Cipher::of_session(read_key, &session));
        Ok(Self {
            ssrc: word("ssrc"),
            cipher,
            // below 2^15: a listener that joins at once sees no rollover (RFC 3711, 3.3.1)
            next_index: u64::from(word("sequence") >> 17),
            next_timestamp: word("timestamp").into(),
            is_after_pause: true,
            is_talking: false,
            is_away: false,
            sent: (0, 0),
            outgoing: VecDeque::new(),
            copies: VecDeque::new(),
            beacon_at: now,
            announcement_at: now,
            report_at: now + REPORT_INTERVAL,
            sealed: 0,
            answers: play_after.map(|ms| Answers::new(ms, now)),
            ends: None,
            key,
            station,
            config,
            session,
        })
    }

    /// Returns the station.
    pub fn station(&self) -> &Station {
        &self.station
    }

    /// Sends an Opus packet of `samples` at 48 kHz. False if too long, or without free numbers.
    pub fn send(&mut self, payload: &[u8], samples: u32, now: Instant) -> bool {
        if payload.len() > MAX_PAYLOAD || self.next_index > MAX_INDEX || self.ends.is_some() {
            return false;
        }
        let header = RtpHeader {
            marker: std::mem::take(&mut self.is_after_pause),
            payload_type: rtp::PAYLOAD_TYPE,
            sequence: self.next_index as u16,
            timestamp: self.next_timestamp as u32,
            ssrc: self.ssrc,
            padded: false,
        };
        let packet = match &self.cipher {
            Some(cipher) => cipher.seal(&header, self.next_index, payload),
            None => [&header.write()[..], payload].concat(),
        };
        self.next_index += 1;
        if let Some(answers) = &mut self.answers {
            answers.sent(self.next_timestamp, now);
        }
        self.next_timestamp += u64::from(samples);
        let (packets, bytes) = self.sent;
        self.sent = (
            packets.wrapping_add(1),
            bytes.wrapping_add(payload.len() as u32),
        );
        self.copies.push_back((now + COPY_DELAY, packet.clone()));
        self.outgoing.push_back(Transmit::Packet(packet));
        true
    }

    /// Sends nothing for `samples`: the next packet is later by them.
    pub fn pause(&mut self, samples: u64) {
        self.next_timestamp += samples;
        self.is_after_pause = true;
    }

    /// Sets another title, with a beacon at once.
    ///
    /// # Errors
    /// It cannot be shown.
    pub fn set_title(&mut self, title: &str, now: Instant) -> Result<(), WireError> {
        if !is_showable(title) {
            return Err(WireError::Bad("title"));
        }
        if self.config.title != title {
            title.clone_into(&mut self.config.title);
            self.beacon_at = now;
        }
        Ok(())
    }

    /// Sets whether the caster talks, with a beacon at once.
    pub fn set_talking(&mut self, is_talking: bool, now: Instant) {
        if self.is_talking != is_talking {
            self.is_talking = is_talking;
            self.beacon_at = now;
        }
    }

    /// Sets whether a participant of a call hears nobody, with a beacon at once.
    pub(crate) fn set_away(&mut self, is_away: bool, now: Instant) {
        if self.is_away != is_away {
            self.is_away = is_away;
            self.beacon_at = now;
        }
    }

    /// Replaces the grant by a later one for the same key and station.
    pub(crate) fn renew(&mut self, grant: Grant) {
        let is_same = *grant.caster() == self.key.id() && *grant.station() == self.station;
        if is_same && self.config.grant.is_some() {
            self.config.grant = Some(grant);
        }
    }

    /// Returns the SSRC of its packets.
    pub(crate) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Returns begin and id of its session: of two sessions the later one is greater.
    pub(crate) fn begun(&self) -> Begun {
        (self.config.started.as_millis(), self.session)
    }

    /// Ends the session by beacons and an announcement; copies that are due are still sent.
    pub fn end(&mut self, now: Instant) {
        if self.ends.is_none() {
            self.ends = Some(LAST_BEACONS);
            self.beacon_at = now;
            self.announcement_at = now;
        }
    }

    /// Returns whether the session has ended and all is sent.
    pub fn has_ended(&self) -> bool {
        self.ends == Some(0) && self.copies.is_empty() && self.outgoing.is_empty()
    }

    /// Returns the next datagram to be sent now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if now >= self.beacon_at && self.ends != Some(0) {
            self.beacon_at = now + BEACON_INTERVAL;
            if let Some(left) = &mut self.ends {
                self.beacon_at = now + LAST_INTERVAL;
                *left -= 1;
            }
            return Some(Transmit::Beacon);
        }
        if self.config.is_public && now >= self.announcement_at && self.ends != Some(0) {
            self.announcement_at = now + ANNOUNCE_INTERVAL;
            return Some(Transmit::Announcement);
        }
        if let Some(transmit) = self.outgoing.pop_front() {
            return Some(transmit);
        }
        if self.copies.front().is_some_and(|(at, _)| *at <= now) {
            let (_, packet) = self.copies.pop_front()?;
            return Some(Transmit::Copy(packet));
        }
        if let Some(answers) = &mut self.answers
            && answers.poll(now)
        {
            return Some(Transmit::Answer);
        }
        if self.config.is_public && now >= self.report_at && self.ends.is_none() {
            self.report_at = now + REPORT_INTERVAL;
            return Some(Transmit::Report);
        }
        None
    }

    /// Returns when [`poll_transmit`](Self::poll_transmit) must be called again.
    pub fn next_timeout(&self) -> Option<Instant> {
        let copy = self.copies.front().map(|(at, _)| *at);
        let beacon = (self.ends != Some(0)).then_some(self.beacon_at);
        let public = self.config.is_public && self.ends.is_none();
        let public = public.then_some(self.announcement_at.min(self.report_at));
        let answer = self.answers.as_ref().and_then(Answers::next_timeout);
        [copy, beacon, public, answer].into_iter().flatten().min()
    }

    /// Returns the beacon for this source address.
    ///
    /// # Errors
    /// None: name and title were checked when they were set.
    pub fn beacon(&mut self, source: Ipv6Addr, time: UnixTime) -> Result<Vec<u8>, WireError> {
        let beacon = Beacon {
            session: self.session,
            started_ms: self.config.started.as_millis(),
            time_ms: time.as_millis(),
            source,
            ssrc: self.ssrc,
            next_index: self.next_index,
            profile: self.config.profile,
            channels: self.config.channels,
            is_talking: self.is_talking,
            has_ended: self.ends.is_some(),
            is_together: self.answers.is_some(),
            is_away: self.is_away,
            name: self.config.name.clone(),
            title: self.config.title.clone(),
            grant: self.config.grant.clone(),
        };
        let salt = self.salt();
        beacon.encode(&self.key, &self.station, salt)
    }

    /// Returns the beacon with which the session would end at this time.
    pub(crate) fn last_beacon(
        &mut self,
        source: Ipv6Addr,
        time: UnixTime,
    ) -> Result<Vec<u8>, WireError> {
        let ends = self.ends.replace(0);
        let beacon = self.beacon(source, time);
        self.ends = ends;
        beacon
    }

    /// Returns the salt of the next sealed datagram.
    fn salt(&mut self) -> [u8; 16] {
        self.sealed += 1;
        let count = self.sealed.to_be_bytes();
        let hash = derive("lcradio 2026 salt", &[&self.config.seed, &count]);
        let mut salt = [0; 16];
        salt.copy_from_slice(&hash[..16]);
        salt
    }

    /// Returns the groups of its clock, if listeners play in step.
    pub fn clock_groups(&self) -> Option<ClockGroups> {
        let groups = self.station.clock_groups(&self.key.id());
        self.answers.is_some().then_some(groups)
    }

    /// Handles a datagram to the group of questions, which arrived at `now`.
    pub fn handle_question(&mut self, datagram: &[u8], source: Ipv6Addr, now: Instant) {
        if let Some(answers) = &mut self.answers {
            answers.handle_question(datagram, &self.station, source, now);
        }
    }

    /// Returns the answer to questions, to be sent at once: on each interface its own.
    pub fn answer(&mut self, now: Instant) -> Option<Vec<u8>> {
        let answer = self.answers.as_ref()?.answer(self.session, now)?;
        let salt = self.salt();
        Some(answer.encode(&self.key, &self.station, salt))
    }

    /// Returns the dropped questions.
    pub fn drops(&self) -> Option<&Drops<DropReason>> {
        self.answers.as_ref().map(Answers::drops)
    }

    /// Returns the sender's report.
    #[must_use]
    pub fn report(&self, time: UnixTime) -> Vec<u8> {
        let (packets, bytes) = self.sent;
        let mut name = [0; 8];
        name.copy_from_slice(&self.session[..8]);
        let report = SenderReport {
            ssrc: self.ssrc,
            time,
            timestamp: self.next_timestamp as u32,
            packets,
            bytes,
            name,
        };
        report.write()
    }

    /// Returns the announcement of a public station for this source address.
    #[must_use]
    pub fn announcement(&self, source: Ipv6Addr) -> Vec<u8> {
        let sdp = self.description(source);
        let hash = derive("lcradio 2026 announcement hash", &[sdp.as_bytes()]);
        let announcement = Announcement {
            // RFC 2974, 5: 0 is for old programs
            hash: u16::from_be_bytes([hash[0], hash[1]]).max(1),
            source: IpAddr::V6(source),
            is_deletion: self.ends.is_some(),
            description: sdp.as_bytes(),
        };
        announcement.write()
    }

    /// Returns the description of a public station, as a file for players (`.sdp`).
    pub fn description(&self, source: Ipv6Addr) -> String {
        let CasterConfig { name, profile, .. } = &self.config;
        let grant = self.config.grant.as_ref();
        sdp::describe(
            &self.key,
            grant,
            name,
            *profile,
            self.config.started.as_millis(),
            source,
        )
    }

    /// Returns whether a datagram is a beacon of a later session of this key, elsewhere or here.
    pub fn is_superseded_by(&self, datagram: &[u8], source: Ipv6Addr, time: UnixTime) -> bool {
        let Ok(beacon) = Beacon::decode(datagram, &self.station) else {
            return false;
        };
        let ours = (self.config.started.as_millis(), self.session);
        beacon.source == source
            && *beacon.caster(&self.station) == self.key.id()
            && !beacon.has_ended
            && beacon.time_ms.abs_diff(time.as_millis()) <= CLOCK_TOLERANCE_MS
            && (beacon.started_ms, beacon.session) > ours
    }
}
