//! A participant of a call. Up to eight talk, any number listen, and nobody owns it.
//!
//! ```text
//! lcc1...      seed 256: a secret, with which its holders talk
//! station      the private station of the key derive("lcradio 2026 call", seed)
//! participant  a key of this run, with a grant by the station's key for a day
//!
//! Looking --1.3 s--> Talks --of more than eight, one of the last--> Full --a place is free--> Talks
//!               └--eight others--> Full       after a sleep it looks anew
//! Listens: by choice
//! ```
//!
//! Each participant decides by the beacons of the others: a packet has no other authority here.
//! A participant that talks already keeps the place. Of those that began at once, the earliest stay.
//!
//! A muted participant sends beacons alone. Packets are 10 ms, without copies: repair is in the
//! next packet (FEC), which arrives before its turn.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv6Addr;

use librecast::drops::Drops;
use librecast::id::{PeerId, derive};
use librecast::text::{self, TextError, TextKind};
use librecast::time::{Duration, Instant, UnixTime};
use librecast::wire::WireError;
use zeroize::Zeroizing;

use crate::beacon::{Profile, showable};
use crate::caster::{Caster, CasterConfig, Transmit};
use crate::drops::DropReason;
use crate::grant::Grant;
use crate::listener::{Channel, Event, Listener, MAX_CASTERS, Own, SILENCE};
use crate::loss::LossCount;
use crate::packet::SoundPacket;
use crate::station::{BEACON_PORT, MEDIA_PORT, Station, StationKey};

/// Time in which the beacons of all who talk arrive: they send one each second.
const LOOK: Duration = Duration::from_millis(1_300);
/// Time after the begin of talking in which a participant gives way to earlier ones.
const SETTLES: Duration = Duration::from_secs(5);
/// Longest wait before a free place is taken: others may wait, too. Chosen.
const MAX_WAIT_MS: u32 = 3_000;
/// Validity of a grant for oneself, and the age at which it is renewed.
const GRANT_MS: u64 = 24 * 3_600_000;
const RENEWS: Duration = Duration::from_secs(12 * 3_600);
/// Silence after which a participant has left: a link that flaps is up again before. Its place is
/// free for others after [`SILENCE`].
const LEAVES: Duration = Duration::from_secs(10);
/// Silence after which a participant's quality is poor: two beacons are missing, one comes each
/// second.
const POOR: Duration = Duration::from_millis(2_500);
/// Time between two looks at participants that are silent.
const TICK: Duration = Duration::from_millis(250);
/// Keys that one participant ignores, at most. Chosen: a hostile one can make many.
const MAX_IGNORED: usize = 256;

/// The secret of a call: wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct CallKey(Zeroizing<[u8; 32]>);

impl CallKey {
    /// Makes a call of random bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*seed))
    }

    /// Returns its text, `lcc1...`: a secret.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        text::encode(TextKind::Call, &self.0[..])
    }

    /// Decodes its text.
    ///
    /// # Errors
    /// The text is of another kind, or damaged.
    pub fn decode(line: &str) -> Result<Self, TextError> {
        let bytes = text::decode(TextKind::Call, line, 32)?;
        let seed = <[u8; 32]>::try_from(&bytes[..]);
        let seed = seed.map_err(|_| TextError::Damaged(TextKind::Call))?;
        Ok(Self(Zeroizing::new(seed)))
    }

    fn station_key(&self) -> StationKey {
        let seed = Zeroizing::new(derive("lcradio 2026 call", &[&self.0[..]]));
        StationKey::from_seed(&seed)
    }

    /// Returns the station with which all sound of the call is heard.
    pub fn station(&self) -> Station {
        self.station_key().station(false)
    }
}

librecast::debug_by_name!(CallKey);

/// The parameters of a participant.
#[derive(Debug, Clone)]
pub struct CallConfig {
    /// Its name: made showable if it is not.
    pub name: String,
    /// It talks, if there is a place.
    pub talks: bool,
    /// It begins muted.
    pub is_muted: bool,
    /// Random bytes of each run.
    pub seed: [u8; 32],
}

/// The place of this participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It receives the beacons of the others first.
    Looking,
    /// It has a place.
    Talks,
    /// Eight others talk. It takes a place that becomes free.
    Full,
    /// It only listens.
    Listens,
    /// It has left.
    Left,
}

/// How well another participant is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Its beacons come, and its sound.
    Good,
    /// Beacons or packets of sound are missing.
    Poor,
    /// It has been silent long enough for others to take its place.
    Reconnecting,
}

/// Another participant that talks, or could.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// Its place, from 0, as its packets name it.
    pub place: u8,
    /// Its key of this call.
    pub key: PeerId,
    /// Its name, which it chose itself; with a number if another has the same.
    pub name: String,
    /// It sends no sound.
    pub is_muted: bool,
    /// It keeps its place, and hears nobody.
    pub is_away: bool,
    /// Its sound is not heard here, by this user's choice.
    pub is_ignored: bool,
    /// How well it is received; no event tells a change.
    pub quality: Quality,
}

/// An event of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEvent {
    /// A participant came.
    Came(Participant),
    /// A participant is muted or away, or no longer.
    Changed(Participant),
    /// A participant has left, or gave no sign of life for 10 s.
    Left(Participant),
    /// Sound of the participant in this place, in the order of arrival.
    Sound(SoundPacket),
    /// The place of this participant has changed.
    Standing(Standing),
}

/// One participant of a call.
pub struct Call {
    key: StationKey,
    station: Station,
    config: CallConfig,
    listener: Listener,
    own: PeerId,
    caster: Option<Caster>,
    standing: Standing,
    /// It keeps its place, and hears nobody.
    is_away: bool,
    /// When its timers ran last, by both clocks: that of a host that sleeps may stand still.
    ran: Option<(Instant, UnixTime)>,
    /// When the standing is decided.
    decides_at: Instant,
    /// The time of entering, and those who talked before.
    entered: Option<(Instant, BTreeSet<PeerId>)>,
    entries: u64,
    renews_at: Instant,
    known: Vec<Participant>,
    ignored: BTreeSet<PeerId>,
    tick_at: Instant,
    events: VecDeque<CallEvent>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("standing", &self.standing)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// Joins a call.
    #[must_use]
    pub fn new(key: &CallKey, mut config: CallConfig, now: Instant) -> Self {
        config.name = showable(config.name.trim());
        let key = key.station_key();
        let station = key.station(false);
        let own = Self::own_key(&config.seed).id();
        let (standing, decides_at) = match config.talks {
            true => (Standing::Looking, now + LOOK),
            false => (Standing::Listens, now + LOOK),
        };
        Self {
            listener: Listener::of_call(station.clone(), now),
            own,
            caster: None,
            standing,
            is_away: false,
            ran: None,
            decides_at,
            entered: None,
            entries: 0,
            renews_at: now + RENEWS,
            known: Vec::new(),
            ignored: BTreeSet::new(),
            tick_at: now,
            events: VecDeque::new(),
            key,
            station,
            config,
        }
    }

    fn own_key(seed: &[u8; 32]) -> StationKey {
        let seed = Zeroizing::new(derive("lcradio 2026 participant", &[seed]));
        StationKey::from_seed(&seed)
    }

    /// Returns the station of this call; all its packets belong to it.
    pub fn station(&self) -> &Station {
        &self.station
    }

    /// Returns the name of this participant, as others see it.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Returns the place of this participant.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Returns whether this participant sends no sound, by its own choice.
    pub fn is_muted(&self) -> bool {
        self.config.is_muted
    }

    /// Returns whether sound is sent.
    pub fn sends_sound(&self) -> bool {
        self.standing == Standing::Talks && !self.config.is_muted && !self.is_away
    }

    /// Returns the other participants that can talk, by their places.
    pub fn participants(&self) -> impl Iterator<Item = &Participant> {
        self.known.iter()
    }

    /// Returns the packets of the others, by their numbers.
    pub fn loss(&self) -> LossCount {
        self.listener.loss()
    }

    /// Returns the dropped packets.
    pub fn drops(&self) -> &Drops<DropReason> {
        self.listener.drops()
    }

    /// Counts a packet that came too late to be played.
    pub fn count_expired(&mut self) {
        self.listener.count(DropReason::Expired);
    }

    /// Mutes this participant, or lets it talk.
    pub fn set_muted(&mut self, is_muted: bool, now: Instant) {
        self.config.is_muted = is_muted;
        if let Some(caster) = &mut self.caster {
            caster.set_talking(!is_muted, now);
        }
    }

    /// Keeps the place without hearing or sending sound, or takes part again.
    pub fn set_away(&mut self, is_away: bool, now: Instant) {
        self.is_away = is_away;
        if is_away {
            self.listener.pause();
        }
        if let Some(caster) = &mut self.caster {
            caster.set_away(is_away, now);
        }
        if !is_away && self.standing == Standing::Full {
            self.decides_at = now + LOOK + self.wait();
        }
    }

    /// Returns whether it keeps its place, and hears nobody.
    pub fn is_away(&self) -> bool {
        self.is_away
    }

    /// Ignores the sound of the participant in this place, or hears it again, for this call.
    /// Returns the participant, if there is one.
    pub fn set_ignored(&mut self, place: u8, is_ignored: bool) -> Option<&Participant> {
        let mut known = self.known.iter_mut();
        let known = known.find(|known| known.place == place)?;
        if !is_ignored {
            self.ignored.remove(&known.key);
        } else if self.ignored.len() < MAX_IGNORED {
            self.ignored.insert(known.key);
        }
        known.is_ignored = self.ignored.contains(&known.key);
        Some(known)
    }

    /// Sends an Opus packet of `samples` at 48 kHz; false if nobody hears this participant.
    pub fn send(&mut self, payload: &[u8], samples: u32, now: Instant) -> bool {
        if !self.sends_sound() {
            self.skip(samples);
            return false;
        }
        let caster = self.caster.as_mut();
        caster.is_some_and(|caster| caster.send(payload, samples, now))
    }

    /// Sends nothing for `samples`.
    pub fn skip(&mut self, samples: u32) {
        if let Some(caster) = &mut self.caster {
            caster.pause(samples.into());
        }
    }

    /// Leaves the call: ends the own grant by last beacons.
    pub fn leave(&mut self, now: Instant) {
        self.standing = Standing::Left;
        if let Some(caster) = &mut self.caster {
            caster.end(now);
        }
    }

    /// Returns whether it has left, and all is sent.
    pub fn has_left(&self) -> bool {
        let has_ended = self.caster.as_ref().is_none_or(Caster::has_ended);
        self.standing == Standing::Left && has_ended
    }

    /// Handles a datagram to this group and port; ignores other groups and ports.
    pub fn handle_datagram(
        &mut self,
        (group, port): (Ipv6Addr, u16),
        source: Ipv6Addr,
        datagram: &[u8],
        now: Instant,
        time: UnixTime,
    ) {
        let channel = match port {
            MEDIA_PORT => Channel::Media,
            BEACON_PORT => Channel::Beacon,
            _ => return,
        };
        if group != self.station.group() || self.standing == Standing::Left || self.is_away {
            return;
        }
        self.listener
            .handle_datagram(channel, source, datagram, now, time);
    }

    /// Runs the timers that are due.
    pub fn handle_timeout(&mut self, now: Instant, time: UnixTime) {
        self.listener.handle_timeout(now);
        let last = self.ran.replace((now, time));
        let has_slept = last.is_some_and(|(at, wall)| {
            let ms = time.as_millis().saturating_sub(wall.as_millis());
            now.saturating_duration_since(at)
                .max(Duration::from_millis(ms))
                > SILENCE
        });
        if has_slept {
            self.look_anew(now);
        }
        if now >= self.tick_at {
            self.tick_at = now + TICK;
        }
        if now >= self.renews_at {
            self.renews_at = now + RENEWS;
            let grant = self.grant(time);
            if let Some(caster) = &mut self.caster {
                caster.renew(grant);
            }
        }
        self.take_sound();
        self.look_at_others(now);
        self.decide(now, time);
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) or
    /// [`poll_transmit`](Self::poll_transmit) is due.
    pub fn next_timeout(&self) -> Instant {
        let decides = match self.standing {
            Standing::Looking | Standing::Full => Some(self.decides_at),
            Standing::Talks | Standing::Listens | Standing::Left => None,
        };
        let caster = self.caster.as_ref().and_then(Caster::next_timeout);
        let times = [decides, caster, Some(self.listener.next_timeout())];
        let next = times.into_iter().flatten().min();
        next.map_or(self.tick_at, |next| next.min(self.tick_at))
    }

    /// The others have given the place of a host that slept to somebody else, perhaps.
    fn look_anew(&mut self, now: Instant) {
        match self.standing {
            Standing::Talks => {
                self.caster = None;
                self.decides_at = now + LOOK;
                self.set_standing(Standing::Looking);
            }
            Standing::Looking => self.decides_at = now + LOOK,
            Standing::Full => self.decides_at = now + LOOK + self.wait(),
            Standing::Listens | Standing::Left => {}
        }
    }

    fn grant(&self, time: UnixTime) -> Grant {
        let expires_ms = time.as_millis().saturating_add(GRANT_MS);
        Grant::new(&self.key, false, &self.own, expires_ms)
    }

    fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
        self.events.push_back(CallEvent::Standing(standing));
    }

    /// Returns a pseudo-random time below the longest wait, another one for each entry.
    fn wait(&self) -> Duration {
        let count = self.entries.to_be_bytes();
        let [a, b, c, d, ..] = derive("lcradio 2026 call wait", &[&self.config.seed, &count]);
        let ms = u32::from_be_bytes([a, b, c, d]) % MAX_WAIT_MS;
        Duration::from_millis(ms.into())
    }

    /// Decides about the own place.
    fn decide(&mut self, now: Instant, time: UnixTime) {
        let placed = self.known.iter();
        let placed = placed.filter(|known| known.quality != Quality::Reconnecting);
        let is_full = placed.count() >= MAX_CASTERS;
        match self.standing {
            // it hears nobody
            Standing::Looking | Standing::Full if self.is_away => {
                self.decides_at = now + LOOK;
            }
            Standing::Looking if now >= self.decides_at => match is_full {
                true => self.wait_for_place(now),
                false => self.enter(now, time),
            },
            // a place that stays free for its time
            Standing::Full if is_full => self.decides_at = now + TICK + self.wait(),
            Standing::Full if now >= self.decides_at => self.enter(now, time),
            Standing::Talks if is_full && self.is_one_of_the_last(now) => {
                if let Some(caster) = &mut self.caster {
                    caster.end(now);
                }
                self.wait_for_place(now);
            }
            _ => {}
        }
    }

    fn wait_for_place(&mut self, now: Instant) {
        self.decides_at = now + TICK + self.wait();
        self.set_standing(Standing::Full);
    }

    /// Takes a place.
    fn enter(&mut self, now: Instant, time: UnixTime) {
        self.entries += 1;
        let count = self.entries.to_be_bytes();
        let config = CasterConfig {
            is_public: false,
            grant: Some(self.grant(time)),
            name: self.config.name.clone(),
            title: String::new(),
            profile: Profile::Voice,
            channels: 1,
            together: None,
            seed: derive("lcradio 2026 call entry", &[&self.config.seed, &count]),
            started: time,
        };
        let own = Self::own_key(&self.config.seed);
        // the name is showable and the grant is of this key
        let Ok(mut caster) = Caster::new(own, config, now) else {
            return self.set_standing(Standing::Listens);
        };
        caster.set_talking(!self.config.is_muted, now);
        caster.set_away(self.is_away, now);
        self.listener.set_own(Some(Own {
            key: self.own,
            ssrc: caster.ssrc(),
        }));
        let before = self.known.iter().map(|known| known.key);
        self.entered = Some((now, before.collect()));
        self.caster = Some(caster);
        self.set_standing(Standing::Talks);
    }

    /// Returns whether eight others have the places: those that talked before, and those that
    /// began earlier of all that began at the same time.
    fn is_one_of_the_last(&self, now: Instant) -> bool {
        let (Some((at, before)), Some(caster)) = (&self.entered, &self.caster) else {
            return false;
        };
        if now.saturating_duration_since(*at) > SETTLES {
            return false;
        }
        let begun = caster.begun();
        let others = self.listener.contenders(now);
        let earlier = others.filter(|(key, other)| before.contains(key) || *other < begun);
        earlier.count() >= MAX_CASTERS
    }

    /// Passes received sound on.
    fn take_sound(&mut self) {
        while let Some(event) = self.listener.poll_event() {
            // the rest follows from who is on air
            let Event::Sound(packet) = event else {
                continue;
            };
            let is_ignored = |known: &Participant| known.place == packet.caster && known.is_ignored;
            if !self.known.iter().any(is_ignored) {
                self.events.push_back(CallEvent::Sound(packet));
            }
        }
    }

    /// Notes participants that came, left, or are muted or away.
    fn look_at_others(&mut self, now: Instant) {
        let others = self.listener.on_air(now).filter_map(|(place, beacon)| {
            let beacon = beacon?;
            Some((place, *beacon.caster(&self.station), beacon))
        });
        let others: Vec<_> = others.collect();
        let (events, listener) = (&mut self.events, &self.listener);
        self.known.retain_mut(|known| {
            let reception = listener.reception(known.place, &known.key, now);
            let Some((silence, loses)) = reception.filter(|(silence, _)| *silence <= LEAVES) else {
                events.push_back(CallEvent::Left(known.clone()));
                return false;
            };
            known.quality = if silence > SILENCE {
                Quality::Reconnecting
            } else if silence > POOR || loses {
                Quality::Poor
            } else {
                Quality::Good
            };
            true
        });
        let mut new = Vec::new();
        for (place, key, beacon) in others {
            let (is_muted, is_away) = (!beacon.is_talking, beacon.is_away);
            let known = self.known.iter_mut().find(|known| known.key == key);
            match known {
                // the name stays: another participant might take it
                Some(known) if (known.is_muted, known.is_away) != (is_muted, is_away) => {
                    (known.is_muted, known.is_away) = (is_muted, is_away);
                    events.push_back(CallEvent::Changed(known.clone()));
                }
                Some(_) => {}
                None => new.push(Participant {
                    place,
                    key,
                    name: beacon.name.trim().to_owned(),
                    is_muted,
                    is_away,
                    is_ignored: self.ignored.contains(&key),
                    quality: Quality::Good,
                }),
            }
        }
        for mut participant in new {
            participant.name = self.numbered(&participant.name);
            let came = CallEvent::Came(participant.clone());
            self.events.push_back(came);
            self.known.push(participant);
            self.known.sort_by_key(|known| known.place);
        }
    }

    /// Returns a name with a number, if this participant or another has the same.
    fn numbered(&self, name: &str) -> String {
        let name = if name.is_empty() { "somebody" } else { name };
        let is_taken = |shown: &str| {
            let names = self.known.iter().map(|known| known.name.as_str());
            let mut names = names.chain([self.config.name.as_str()]);
            names.any(|other| other == shown)
        };
        let numbers = (2..).map(|number| format!("{name} ({number})"));
        let mut shown = std::iter::once(name.to_owned()).chain(numbers);
        shown.find(|shown| !is_taken(shown)).unwrap_or_default()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self, now: Instant) -> Option<CallEvent> {
        if self.events.is_empty() {
            self.take_sound();
            self.look_at_others(now);
        }
        self.events.pop_front()
    }

    /// Returns the next datagram to be sent now: a packet, or a beacon.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let caster = self.caster.as_mut()?;
        while let Some(transmit) = caster.poll_transmit(now) {
            match transmit {
                Transmit::Packet(_) | Transmit::Beacon => return Some(transmit),
                // nobody joins the group of copies
                Transmit::Copy(_) => {}
                Transmit::Report | Transmit::Announcement | Transmit::Answer => {}
            }
        }
        None
    }

    /// Returns the beacon for this source address.
    ///
    /// # Errors
    /// It has no place.
    pub fn beacon(&mut self, source: Ipv6Addr, time: UnixTime) -> Result<Vec<u8>, WireError> {
        let caster = self.caster.as_mut();
        let caster = caster.ok_or(WireError::Bad("place"))?;
        caster.beacon(source, time)
    }

    /// Returns the beacon by which it would leave at this time, for a sender that may be ended
    /// before it can ask for one.
    ///
    /// # Errors
    /// It has no place.
    pub fn farewell(&mut self, source: Ipv6Addr, time: UnixTime) -> Result<Vec<u8>, WireError> {
        let caster = self.caster.as_mut();
        let caster = caster.ok_or(WireError::Bad("place"))?;
        caster.last_beacon(source, time)
    }
}
