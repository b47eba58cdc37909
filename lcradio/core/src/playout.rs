//! The playout buffer, which adapts to the network's delay and the caster's clock.
//!
//! ```text
//! timestamps        played | position | waits in the buffer | newest
//!                          |<-- delay: since the earliest arrival of the position's sound -->|
//! ```
//!
//! The *transit* of a packet is its arrival less its timestamp; the shortest of the last 10 s is
//! the network's best, and *jitter* is the excess. The delay is held at the target: the 99th
//! percentile of jitter and a frame. It rises at once, by stretched sound, and falls by 1 ms/s.
//! Resampling by at most 500 ppm, inaudible, follows the caster's clock: [`Playout::speed_ppm`].
//!
//! A longer route, or a short stop of a live source, lengthens the transit of all packets. If every
//! packet of 100 ms comes too late, the shortest transit is forgotten.
//!
//! In step with other listeners, the position follows the caster's clock: [`Playout::follow`].

use librecast::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

use crate::clock::shift;
use crate::follow::{Aim, Following};
use crate::packet::SoundPacket;
use crate::rtp::CLOCK_RATE;
use crate::step::{Step, StepState};

/// Samples of a frame: 20 ms.
pub const FRAME: u32 = CLOCK_RATE / 50;
/// Most packets in the buffer: a second of 20-ms packets.
pub const MAX_BUFFERED: usize = 50;
/// The least target: two packets of 20 ms. Chosen.
const MIN_TARGET: Duration = Duration::from_millis(40);
/// The greatest target that follows jitter. Chosen.
const MAX_TARGET: Duration = Duration::from_millis(400);
/// The least target of a call: two packets of 10 ms.
const MIN_CALL_TARGET: Duration = Duration::from_millis(20);
/// Time for which jitter is remembered.
const JITTER_TIME: Duration = Duration::from_secs(10);
/// Most packets with remembered jitter: 200 a second.
const MAX_JITTER: usize = 2_000;
/// Time constant of the average that resampling follows.
const DRIFT_TIME: f64 = 30.0;
/// Most that the player resamples by, in parts per million.
const MAX_PPM: f64 = 500.0;
/// Delay above the target that is not drift: the host slept, or its sound device stopped. More than
/// any target, less than the buffer.
const RESYNC: Duration = Duration::from_millis(500);
/// Frames concealed while nothing arrives, before silence: 100 ms, as in NetEQ and libopus.
const MAX_CONCEALED: u32 = 5;
/// Time of only late packets after which the network counts as slower: the time of concealment.
const LATE: Duration = Duration::from_millis(100);
/// Time without packets after which the next one begins anew.
const STALLED: Duration = Duration::from_secs(2);

/// Time without a lead after which a listener in step follows the target. Chosen: a device that is
/// opened knows its delay after a second.
const LEADLESS: Duration = Duration::from_secs(3);
/// Time between two looks at the delay that a listener in step needs.
const LOOK: Duration = Duration::from_secs(1);
/// Time whose packets count for it. A burst after a stop of this host counts for two looks.
const LOOK_TIME: Duration = Duration::from_secs(2);
/// Share of packets that come in time by that delay, in hundredths: copies may come later.
const IN_TIME: usize = 75;
/// Looks in a row after which a listener is behind the others, or in step again.
const LOOKS: u32 = 3;
/// Shorter need in which a listener that was behind plays in step again. Chosen.
const CATCHES_UP: Duration = Duration::from_millis(10);

/// The delay that a listener requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// The delay that the network needs.
    Auto,
    /// The shortest: 40 ms, at any loss.
    Quick,
    /// 200 ms at least.
    Safe,
    /// This delay.
    Fixed(Duration),
    /// That of calls: 20 ms at least, with packets of 10 ms. Pauses of speech are shortened.
    Call,
}

/// The bounds that differ between a station and a call.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pace {
    /// Samples of a frame.
    frame: u32,
    /// Microseconds by which the target falls in a second.
    falls: u32,
    /// Time constant of the average that resampling follows, in seconds.
    drift_time: f64,
    max_ppm: f64,
    /// Delay above the target that is skipped.
    resync: Duration,
    /// Frames concealed while nothing arrives.
    max_concealed: u32,
}

const STATION: Pace = Pace {
    frame: FRAME,
    falls: 1_000,
    drift_time: DRIFT_TIME,
    max_ppm: MAX_PPM,
    resync: RESYNC,
    max_concealed: MAX_CONCEALED,
};

/// 5 ms/s, by 0.5 %: speech sounds the same. libopus conceals a pause (DTX) by quiet noise, of which
/// a packet comes each 400 ms.
const CALL: Pace = Pace {
    frame: FRAME / 2,
    falls: 5_000,
    drift_time: 4.0,
    max_ppm: 5_000.0,
    resync: Duration::from_millis(150),
    max_concealed: 50,
};

impl Latency {
    fn bound(self, target: Duration) -> Duration {
        match self {
            Self::Auto => target.clamp(MIN_TARGET, MAX_TARGET),
            Self::Quick => MIN_TARGET,
            Self::Safe => target.clamp(Duration::from_millis(200), MAX_TARGET),
            Self::Fixed(target) => target,
            Self::Call => target.clamp(MIN_CALL_TARGET, MAX_TARGET),
        }
    }

    fn pace(self) -> Pace {
        if self == Self::Call { CALL } else { STATION }
    }

    /// Returns the samples of a frame, at 48 kHz.
    #[must_use]
    pub fn frame(self) -> u32 {
        self.pace().frame
    }
}

/// The next frame. Its length is in samples at 48 kHz.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opus, to be decoded.
    Packet(SoundPacket),
    /// A missing packet: to be concealed, or made from the next one (FEC).
    Lost {
        /// Its length.
        samples: u32,
        /// Opus of the packet after it, if it has arrived.
        next: Option<Vec<u8>>,
    },
    /// Silence.
    Silence {
        /// Its length.
        samples: u32,
    },
}

/// Metrics of the buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PlayoutStats {
    /// Buffered sound, from the position to the end of the newest packet.
    pub buffered: Duration,
    /// The intended delay.
    pub target: Duration,
    /// Frames that were due before their packets arrived.
    pub underruns: u64,
    /// Frames that were concealed.
    pub concealed: u64,
    /// Frames by which sound was stretched, to raise the delay.
    pub stretched: u64,
    /// Number of times that the position was reset.
    pub resyncs: u64,
}

impl PlayoutStats {
    /// Returns the metrics of several buffers: the longest buffer and delay, and sums.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            buffered: self.buffered.max(other.buffered),
            target: self.target.max(other.target),
            underruns: self.underruns + other.underruns,
            concealed: self.concealed + other.concealed,
            stretched: self.stretched + other.stretched,
            resyncs: self.resyncs + other.resyncs,
        }
    }
}

/// The buffer of a listener.
#[derive(Debug)]
pub struct Playout {
    latency: Latency,
    epoch: Instant,
    buffer: BTreeMap<u64, SoundPacket>,
    session: Option<u32>,
    /// Timestamp of the next frame.
    position: u64,
    /// Number of the last packet played.
    played: Option<u64>,
    newest_arrival: Instant,
    /// Arrival, transit in microseconds.
    transits: VecDeque<(Instant, i64)>,
    target: Duration,
    /// Arrival of the first of consecutive late packets.
    late_since: Option<Instant>,
    /// The target when the delay last reached it.
    reached: Duration,
    measured_at: Instant,
    /// Average of the delay above the target, in seconds.
    excess: f64,
    polled_at: Option<Instant>,
    /// Frames concealed in a row with an empty buffer.
    empty: u32,
    /// The caster has ended.
    has_ended: bool,
    follows: Follows,
    /// The begin of the present time without a lead.
    leadless_since: Option<Instant>,
    /// It follows the target as the lead is not known.
    is_leadless: bool,
    stats: PlayoutStats,
}

/// The clock that the position follows.
#[derive(Debug)]
enum Follows {
    /// The target.
    Target,
    /// Nothing yet: silence.
    Nothing,
    Step(Box<StepPlayout>),
}

/// The position in step, and the delay that this host needs.
#[derive(Debug)]
struct StepPlayout {
    step: Step,
    needed: Duration,
    looked_at: Instant,
    /// Looks in a row that contradict `is_behind`.
    looks: u32,
    /// It needs more than the caster's delay, and plays by the target.
    is_behind: bool,
}

fn micros(samples: u64) -> i64 {
    (samples as i64).wrapping_mul(1_000) / (i64::from(CLOCK_RATE) / 1_000)
}

impl Playout {
    /// An empty buffer.
    #[must_use]
    pub fn new(latency: Latency, now: Instant) -> Self {
        Self {
            latency,
            epoch: now,
            buffer: BTreeMap::new(),
            session: None,
            position: 0,
            played: None,
            newest_arrival: now,
            transits: VecDeque::new(),
            target: latency.bound(Duration::ZERO),
            late_since: None,
            reached: latency.bound(Duration::ZERO),
            measured_at: now,
            excess: 0.0,
            polled_at: None,
            empty: 0,
            has_ended: false,
            follows: Follows::Target,
            leadless_since: None,
            is_leadless: false,
            stats: PlayoutStats::default(),
        }
    }

    /// Sets another delay.
    pub fn set_latency(&mut self, latency: Latency) {
        self.latency = latency;
        self.target = latency.bound(self.target);
    }

    /// Follows the caster's clock, or no longer. `lead` is the time between the request of a frame
    /// and its sound; none: it is not known yet, or no longer. Then the last one counts for a while.
    pub fn follow(&mut self, following: Following, lead: Option<Duration>, now: Instant) {
        self.leadless_since = match lead {
            Some(_) => None,
            None => Some(self.leadless_since.unwrap_or(now)),
        };
        let is_long = |since| now.saturating_duration_since(since) >= LEADLESS;
        let for_long = self.leadless_since.is_some_and(is_long);
        self.is_leadless = for_long && matches!(following, Following::InStep(_));
        let last = match &self.follows {
            Follows::Step(playout) => Some(playout.step.lead),
            Follows::Target | Follows::Nothing => None,
        };
        let (aim, lead) = match (following, lead.or(last)) {
            (Following::InStep(aim), Some(lead)) if !for_long => (aim, lead),
            _ if self.is_leadless || following == Following::Free => {
                self.follows = Follows::Target;
                return;
            }
            _ => {
                self.follows = Follows::Nothing;
                return;
            }
        };
        if !matches!(self.follows, Follows::Step(_)) {
            self.follows = Follows::Step(Box::new(StepPlayout {
                step: Step::new(aim, lead),
                needed: Duration::ZERO,
                looked_at: now,
                looks: 0,
                is_behind: false,
            }));
        }
        let Follows::Step(playout) = &mut self.follows else {
            return;
        };
        (playout.step.aim, playout.step.lead) = (aim, lead);
        if now.saturating_duration_since(playout.looked_at) < LOOK {
            return;
        }
        let needed = self.needed(&aim, lead, now);
        if let (Some([most, least]), Follows::Step(playout)) = (needed, &mut self.follows) {
            playout.look(most, least, now);
        }
    }

    /// Returns whether it is not in step only because the lead is not known.
    pub fn is_leadless(&self) -> bool {
        self.is_leadless
    }

    /// Returns the delays behind the caster with which most packets of the last seconds come in
    /// time, and with which one does; none while that is not known.
    fn needed(&self, aim: &Aim, lead: Duration, now: Instant) -> Option<[Duration; 2]> {
        let lately = |at| now.saturating_duration_since(at) <= LOOK_TIME;
        let transits = self.transits.iter().filter(|(at, _)| lately(*at));
        // a burst is luck: arrivals of a second tell
        let (first, _) = transits.clone().next()?;
        if now.saturating_duration_since(*first) < LOOK {
            return None;
        }
        let mut transits: Vec<i64> = transits.map(|(_, transit)| *transit).collect();
        transits.sort_unstable();
        let most = (transits.len() - 1) * IN_TIME / 100;
        Some([transits[most], transits[0]].map(|transit| {
            // the arrival of the position's packet, with this transit
            let since = transit + micros(self.position);
            let came = shift(self.epoch, since as f64 / 1e6);
            let late = aim.ahead_of(self.position, came) / f64::from(CLOCK_RATE);
            let needed = aim.play_after().as_secs_f64() + late + lead.as_secs_f64();
            Duration::from_secs_f64(needed.clamp(0.0, 10.0))
        }))
    }

    /// Returns the state of playout in step; none if it follows no clock.
    #[must_use]
    pub fn step(&self) -> Option<StepState> {
        let Follows::Step(playout) = &self.follows else {
            return None;
        };
        Some(StepState {
            is_set: playout.step.is_set,
            is_behind: playout.is_behind,
            error: playout.step.error(),
            play_after: playout.step.aim.play_after(),
            needed: playout.needed,
        })
    }

    /// Ends the session: the buffer is played, then silence.
    pub fn end(&mut self) {
        self.has_ended = true;
    }

    /// Takes a packet; false if it is too late, or too far ahead.
    pub fn push(&mut self, packet: SoundPacket) -> bool {
        let now = packet.arrival;
        let is_idle = now.saturating_duration_since(self.newest_arrival) > STALLED;
        if self.session != Some(packet.session) || is_idle && self.buffer.is_empty() {
            self.restart(&packet);
        }
        self.newest_arrival = now;
        self.measure(&packet);
        if packet.timestamp + u64::from(packet.samples) <= self.position {
            if !self.is_held() {
                self.handle_late(now);
            }
            return false;
        }
        self.late_since = None;
        let ahead = packet.timestamp.saturating_sub(self.position);
        let longest = MAX_BUFFERED as u64 * u64::from(FRAME);
        if ahead > longest || self.buffer.len() >= MAX_BUFFERED {
            // a jump of the caster's timestamps, or a player that stopped
            if ahead > longest && self.buffer.is_empty() {
                self.restart(&packet);
                self.buffer.insert(packet.timestamp, packet);
                return true;
            }
            return false;
        }
        self.buffer.insert(packet.timestamp, packet);
        true
    }

    /// Returns whether the caster's clock holds the position.
    fn is_held(&self) -> bool {
        matches!(&self.follows, Follows::Step(playout) if !playout.is_behind)
    }

    /// Handles a late packet. A burst after a queue does not raise the delay.
    fn handle_late(&mut self, now: Instant) {
        let since = *self.late_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= LATE {
            self.transits.retain(|(at, _)| *at >= since);
            // forgotten transits had raised it
            self.target = self.latency.bound(Duration::ZERO);
            self.late_since = None;
        }
    }

    /// Begins anew with this packet.
    fn restart(&mut self, packet: &SoundPacket) {
        if self.session.is_some() {
            self.stats.resyncs += 1;
        }
        self.session = Some(packet.session);
        self.has_ended = false;
        self.position = packet.timestamp;
        self.played = None;
        self.buffer.clear();
        self.transits.clear();
        self.late_since = None;
        self.excess = 0.0;
        self.newest_arrival = packet.arrival;
        if let Follows::Step(playout) = &mut self.follows {
            playout.step.is_set = false;
        }
    }

    fn transit(&self, timestamp: u64, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.epoch).as_micros() as i64;
        since.wrapping_sub(micros(timestamp))
    }

    fn shortest(&self) -> Option<i64> {
        self.transits.iter().map(|(_, transit)| *transit).min()
    }

    /// Follows jitter: up at once, down slowly.
    fn measure(&mut self, packet: &SoundPacket) {
        let now = packet.arrival;
        let transit = self.transit(packet.timestamp, now);
        while let Some((at, _)) = self.transits.front()
            && (now.saturating_duration_since(*at) > JITTER_TIME
                || self.transits.len() >= MAX_JITTER)
        {
            self.transits.pop_front();
        }
        self.transits.push_back((now, transit));
        let Some(shortest) = self.shortest() else {
            return;
        };
        let mut jitter: Vec<i64> = self.transits.iter().map(|(_, t)| t - shortest).collect();
        let rank = (jitter.len() - 1) * 99 / 100;
        let (_, percentile, _) = jitter.select_nth_unstable(rank);
        let needed = Duration::from_micros(u64::try_from(*percentile).unwrap_or(0));
        let frame = Duration::from_micros(micros(packet.samples.into()).unsigned_abs());
        let needed = self.latency.bound(needed + frame);
        let since = now.saturating_duration_since(self.measured_at);
        self.measured_at = now;
        let falls = since * self.latency.pace().falls / 1_000_000;
        let lowered = self.target.saturating_sub(falls);
        self.target = self.latency.bound(needed.max(lowered));
    }

    /// Returns how late the position is played, relative to the shortest transit.
    fn delay(&self, now: Instant) -> Option<i64> {
        Some(self.transit(self.position, now) - self.shortest()?)
    }

    /// Returns the next frame; call it whenever the player needs one. In step, `now` is the time at
    /// which it sounds.
    pub fn poll_frame(&mut self, now: Instant) -> Frame {
        let pace = self.latency.pace();
        let silence = Frame::Silence {
            samples: pace.frame,
        };
        match &self.follows {
            Follows::Step(playout) if !playout.is_behind => return self.poll_in_step(now),
            Follows::Nothing => {
                self.keep_newest();
                return silence;
            }
            Follows::Step(_) | Follows::Target => {}
        }
        let since = self.polled_at.replace(now);
        let Some(delay) = self.delay(now) else {
            return silence;
        };
        let stalled = now.saturating_duration_since(self.newest_arrival) > STALLED;
        if stalled && self.buffer.is_empty() {
            return silence;
        }
        let target = self.target.as_micros() as i64;
        let excess = delay - target;
        let skips = excess > pace.resync.as_micros() as i64;
        if skips {
            self.skip(excess);
        } else if self.played.is_none() && excess < 0 {
            return silence;
        } else if excess < -self.tolerated(excess) {
            // the delay shall grow: the buffer stays as it is
            self.stats.stretched += 1;
            return self.lost(pace.frame, None);
        } else if let Some(since) = since {
            let passed = now.saturating_duration_since(since).as_secs_f64();
            let weight = (passed / pace.drift_time).min(1.0);
            self.excess += (excess as f64 / 1e6 - self.excess) * weight;
        }
        if self.latency == Latency::Call && !skips {
            self.shorten_pause(excess);
        }
        self.next_frame()
    }

    /// Skips the part of a pause before the next packet by which the delay is above the target.
    fn shorten_pause(&mut self, excess: i64) {
        let frame = u64::from(self.latency.frame());
        let Some((&next, packet)) = self.buffer.first_key_value() else {
            return;
        };
        let is_pause = self.played.is_some_and(|played| played + 1 == packet.index);
        if is_pause && next > self.position && excess > micros(frame) {
            let samples = excess.unsigned_abs() * u64::from(CLOCK_RATE / 1_000) / 1_000;
            self.position = next.min(self.position + samples);
            self.excess = 0.0;
        }
    }

    /// Drops the oldest packets of a full buffer while nothing is played.
    fn keep_newest(&mut self) {
        while self.buffer.len() >= MAX_BUFFERED - 1 {
            self.buffer.pop_first();
        }
        if let Some((&first, _)) = self.buffer.first_key_value() {
            self.position = first;
        }
    }

    /// Returns the frame that sounds at `at`.
    fn poll_in_step(&mut self, at: Instant) -> Frame {
        let Follows::Step(playout) = &mut self.follows else {
            return Frame::Silence { samples: FRAME };
        };
        let step = &mut playout.step;
        let late = step.aim.ahead_of(self.position, at);
        if step.is_set && step.hold(late, at) {
            return self.next_frame();
        }
        step.is_set = false;
        // the first packet that is still in time; before it, silence up to the sample
        let wanted = self.position.saturating_add_signed(late.round() as i64);
        self.buffer = self.buffer.split_off(&wanted);
        let first = self.buffer.first_key_value().map(|(at, _)| *at);
        let wait = first.map(|first| first - wanted);
        let wait = match wait {
            Some(wait) if wait <= u64::from(FRAME) => wait as u32,
            _ => {
                self.position = wanted + u64::from(FRAME);
                return self.between(FRAME);
            }
        };
        if self.played.is_some() {
            self.stats.resyncs += 1;
        }
        self.position = wanted + u64::from(wait);
        step.set(at);
        match wait {
            0 => self.next_frame(),
            wait => self.between(wait),
        }
    }

    /// Returns a frame before sound that is not due yet.
    fn between(&mut self, samples: u32) -> Frame {
        match self.played {
            Some(_) if !self.buffer.is_empty() => self.lost(samples, None),
            _ => Frame::Silence { samples },
        }
    }

    /// Returns the delay's tolerated deficit in microseconds: a quarter of a frame below a risen
    /// target, as copies would come too late; else a frame, left to resampling.
    fn tolerated(&mut self, excess: i64) -> i64 {
        let frame = self.latency.frame();
        let (frame, little) = (micros(frame.into()), micros(u64::from(frame) / 4));
        self.reached = match excess >= -little {
            true => self.target,
            false => self.reached.min(self.target),
        };
        let risen = self.target.saturating_sub(self.reached).as_micros() as i64;
        if risen >= little { little } else { frame }
    }

    /// Skips the sound of the time that the host slept.
    fn skip(&mut self, excess: i64) {
        self.stats.resyncs += 1;
        self.position += excess.unsigned_abs() * u64::from(CLOCK_RATE / 1_000) / 1_000;
        self.excess = 0.0;
        self.drop_passed();
    }

    fn drop_passed(&mut self) {
        while let Some(first) = self.buffer.first_entry()
            && first.get().timestamp + u64::from(first.get().samples) <= self.position
        {
            first.remove();
        }
    }

    fn lost(&mut self, samples: u32, next: Option<Vec<u8>>) -> Frame {
        self.stats.concealed += 1;
        Frame::Lost { samples, next }
    }

    fn next_frame(&mut self) -> Frame {
        let pace = self.latency.pace();
        let frame = pace.frame;
        self.drop_passed();
        let Some((&timestamp, packet)) = self.buffer.first_key_value() else {
            self.position += u64::from(frame);
            self.empty += 1;
            if self.has_ended || self.empty > pace.max_concealed {
                return Frame::Silence { samples: frame };
            }
            self.stats.underruns += 1;
            return self.lost(frame, None);
        };
        self.empty = 0;
        if timestamp <= self.position {
            let end = timestamp + u64::from(packet.samples);
            self.played = Some(packet.index);
            self.position = end;
            return match self.buffer.pop_first() {
                Some((_, packet)) => Frame::Packet(packet),
                None => self.lost(frame, None),
            };
        }
        // at most 20 ms: fits, as it is cut to a frame
        let missing = (timestamp - self.position).min(frame.into()) as u32;
        let index = packet.index;
        let is_last_missing = timestamp - self.position <= u64::from(frame);
        self.position += u64::from(missing);
        if self.played.is_some_and(|played| played + 1 == index) {
            // the caster paused
            return match self.latency {
                Latency::Call => self.lost(missing, None),
                _ => Frame::Silence { samples: missing },
            };
        }
        let next = is_last_missing.then(|| self.buffer.get(&timestamp).map(|p| p.payload.clone()));
        self.lost(missing, next.flatten())
    }

    /// Returns by how much to play faster than the player's clock, in parts per million.
    pub fn speed_ppm(&self) -> f64 {
        if let Follows::Step(playout) = &self.follows
            && !playout.is_behind
        {
            return playout.step.ppm().clamp(-MAX_PPM, MAX_PPM);
        }
        // removes the excess within the time of the average
        let pace = self.latency.pace();
        (self.excess / pace.drift_time * 1e6).clamp(-pace.max_ppm, pace.max_ppm)
    }

    /// Returns the metrics.
    pub fn stats(&self) -> PlayoutStats {
        let end = self.buffer.last_key_value();
        let end = end.map_or(self.position, |(at, p)| at + u64::from(p.samples));
        let waiting = end.saturating_sub(self.position);
        PlayoutStats {
            buffered: Duration::from_micros(micros(waiting).unsigned_abs()),
            target: self.target,
            ..self.stats
        }
    }
}

impl StepPlayout {
    /// Decides whether the caster's delay is enough for this host.
    fn look(&mut self, needed: Duration, least: Duration, now: Instant) {
        (self.needed, self.looked_at) = (needed, now);
        let play_after = self.step.aim.play_after();
        let bound = match self.is_behind {
            true => play_after.saturating_sub(CATCHES_UP),
            false => play_after,
        };
        if (needed > bound) == self.is_behind {
            self.looks = 0;
            return;
        }
        self.looks += 1;
        // nothing comes in time: it plays at once
        let is_silent = !self.is_behind && least > bound;
        if self.looks < LOOKS && !is_silent {
            return;
        }
        self.looks = 0;
        self.is_behind = !self.is_behind;
        self.step = Step::new(self.step.aim, self.step.lead);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_TIME: Duration = Duration::from_millis(20);

    /// Plays for half a minute; from 5 s on each 25th packet is later by `late`.
    fn play(late: Duration) -> PlayoutStats {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        let begun = Instant::now();
        let mut playout = Playout::new(Latency::Auto, begun);
        let mut packets: Vec<SoundPacket> = (0..1_500_u32)
            .map(|n| {
                let late = late * u32::from(n > 250 && n % 25 == 0);
                packet_of(n, begun + FRAME_TIME * n + late)
            })
            .collect();
        packets.sort_by_key(|packet| packet.arrival);
        let mut packets = packets.into_iter().peekable();
        for n in 0..1_400 {
            let at = begun + FRAME_TIME * n + Duration::from_millis(1);
            while let Some(packet) = packets.next_if(|packet| packet.arrival <= at) {
                playout.push(packet);
            }
            playout.poll_frame(at);
        }
        playout.stats()
    }

    /// Returns the packet of this number.
    fn packet_of(n: u32, arrival: Instant) -> SoundPacket {
        SoundPacket {
            caster: 0,
            session: 1,
            index: n.into(),
            timestamp: u64::from(n * FRAME),
            samples: FRAME,
            payload: vec![0; 40],
            arrival,
        }
    }

    /// Returns the lost packets of 25 s, each later by `transit` of its number.
    fn lost(latency: Latency, transit: impl Fn(u32) -> Duration) -> u32 {
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        let begun = Instant::now();
        let mut playout = Playout::new(latency, begun);
        let mut lost = 0;
        let mut packets = (0..1_250_u32)
            .map(|n| (n, begun + FRAME_TIME * n + transit(n)))
            .peekable();
        for n in 0..1_300 {
            let at = begun + FRAME_TIME * n + Duration::from_millis(1);
            while let Some((n, arrival)) = packets.next_if(|(_, arrival)| *arrival <= at) {
                lost += u32::from(!playout.push(packet_of(n, arrival)));
            }
            playout.poll_frame(at);
        }
        lost
    }

    #[test]
    fn when_all_packets_take_longer_a_listener_loses_some_of_them_and_not_those_of_ten_seconds() {
        for latency in [
            Latency::Quick,
            Latency::Fixed(Duration::from_millis(60)),
            Latency::Auto,
            Latency::Safe,
        ] {
            for ms in [10, 45, 60, 100, 190, 300] {
                let longer = Duration::from_millis(ms);
                let once = lost(latency, |n| longer * u32::from(n > 500));
                assert!(
                    once <= 12 + ms as u32 / 20,
                    "{latency:?} {ms} ms: {once} lost"
                );
                let twice = lost(latency, |n| {
                    longer * u32::from(n > 500) + longer * u32::from(n > 900)
                });
                assert!(
                    twice <= 24 + ms as u32 / 10,
                    "{latency:?} {ms} ms: {twice} lost"
                );
            }
            // 3 ms more in each second, too fast for resampling
            let drifts = lost(latency, |n| Duration::from_micros(60) * n);
            assert!(drifts <= 60, "{latency:?}: {drifts} lost");
        }
    }

    #[test]
    fn a_queue_that_empties_at_once_changes_no_delay() {
        // each second nothing arrives for 150 ms, and then all at once
        let queue = |n: u32| FRAME_TIME * 7_u32.saturating_sub((n + 25) % 50);
        let quick = lost(Latency::Quick, queue);
        assert!((100..180).contains(&quick), "{quick} lost");
    }

    #[test]
    fn a_target_that_rises_by_less_than_a_frame_is_reached_at_once() {
        let stats = play(Duration::from_millis(38));
        // 38 ms and a frame; it was 40 ms before
        assert_eq!(stats.target, Duration::from_millis(58), "{stats:?}");
        assert_eq!((stats.stretched, stats.resyncs), (1, 0), "{stats:?}");
    }

    #[test]
    fn what_is_within_the_target_changes_nothing() {
        let stats = play(Duration::from_millis(15));
        assert_eq!(stats.target, Duration::from_millis(40), "{stats:?}");
        assert_eq!((stats.stretched, stats.resyncs), (0, 0), "{stats:?}");
    }

    /// Plays a call of half a minute: of each second the last 300 ms are a pause. Each second packet
    /// of the sixth second is later by 60 ms. Returns the delay of each packet, by its time.
    fn play_call(pauses: bool) -> (Vec<(Duration, Duration)>, PlayoutStats) {
        const STEP: Duration = Duration::from_millis(10);
        #[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
        let begun = Instant::now();
        let mut playout = Playout::new(Latency::Call, begun);
        let sent = (0..3_000_u32).filter(|n| !pauses || n % 100 < 70);
        let packets = sent.zip(0_u64..).map(|(n, index)| SoundPacket {
            caster: 0,
            session: 1,
            index,
            timestamp: u64::from(n * 480),
            samples: 480,
            payload: vec![0; 40],
            arrival: begun
                + STEP * n
                + Duration::from_millis(60) * u32::from((500..600).contains(&n) && n % 2 == 0),
        });
        let mut packets: Vec<SoundPacket> = packets.collect();
        packets.sort_by_key(|packet| packet.arrival);
        let mut packets = packets.into_iter().peekable();
        let (mut delays, mut owed) = (Vec::new(), 0.0);
        for n in 0..2_990 {
            let at = begun + STEP * n + Duration::from_millis(1);
            while let Some(packet) = packets.next_if(|packet| packet.arrival <= at) {
                playout.push(packet);
            }
            owed += 480.0 * (1.0 + playout.speed_ppm() / 1e6);
            while owed > 0.0 {
                let samples = match playout.poll_frame(at) {
                    Frame::Packet(packet) => {
                        let sent = Duration::from_micros(packet.timestamp * 1_000 / 48);
                        delays.push((STEP * n, (STEP * n).saturating_sub(sent)));
                        packet.samples
                    }
                    Frame::Lost { samples, .. } | Frame::Silence { samples } => samples,
                };
                owed -= f64::from(samples);
            }
        }
        (delays, playout.stats())
    }

    #[test]
    fn a_call_is_as_late_as_it_must_and_no_longer() {
        for pauses in [true, false] {
            let (delays, stats) = play_call(pauses);
            let between = |from: u64, to: u64| {
                let [from, to] = [from, to].map(Duration::from_secs);
                let within = delays.iter().filter(|(at, _)| (from..to).contains(at));
                within
                    .map(|(_, delay)| delay.as_millis())
                    .collect::<Vec<_>>()
            };
            let most = |delays: Vec<u128>| delays.into_iter().max().unwrap_or(0);
            assert!(most(between(2, 5)) <= 30, "{pauses}: {:?}", between(2, 5));
            let late = between(7, 9).into_iter().min().unwrap_or(0);
            assert!(late >= 50, "{pauses}: {late} ms");
            // forgotten after 10 s, then 5 ms/s
            assert_eq!(stats.target, MIN_CALL_TARGET, "{stats:?}");
            let end = most(between(28, 30));
            assert!(end <= if pauses { 30 } else { 45 }, "{pauses}: {end} ms");
            assert_eq!(stats.resyncs, 0, "{stats:?}");
        }
    }
}
