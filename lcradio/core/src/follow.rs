//! A listener that follows the clock of one caster: its questions, and the time of each sample.
//!
//! ```text
//! beacon "together" -> Asking --answer--> InStep --no answer for 60 s--> Free
//!                         └--no answer for 1.5 s--> Free --answer--> InStep
//! ```

use std::collections::VecDeque;

use librecast::bucket::{Rate, TokenBucket};
use librecast::id::{PeerId, derive};
use librecast::time::{Duration, Instant};

use crate::beacon::{BeaconError, SessionId};
use crate::clock::{self, Answer, Estimate, Exchange, seconds_between};
use crate::drops::DropReason;
use crate::rtp::CLOCK_RATE;
use crate::station::{ClockGroups, Station};

/// Questions at the beginning, and the time between two of them.
const FIRST: (u32, Duration) = (10, Duration::from_millis(50));
/// Questions after them until the skew is known, within 15 s, and the time between two of them.
const SETTLING: (u32, Duration) = (60, Duration::from_millis(250));
/// Time between two questions later.
const INTERVAL: Duration = Duration::from_secs(2);
/// Most own questions that an answer may be to.
const MAX_ASKED: usize = 16;
/// Silence at the beginning, in which answers come.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Time after the last answer in which its clock is good: 1 ms at 20 ppm of error.
const HOLDS: Duration = Duration::from_secs(60);
/// Most answers that are decoded: a caster sends ten a second, over some interfaces.
const MAX_RATE: Rate = Rate::per_second(40, 40);

/// The time of each sample by this host's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aim {
    /// A moment at which `timestamp` and `fraction` of a sample shall sound.
    at: Instant,
    timestamp: u32,
    fraction: f64,
    /// Samples that shall sound in a second of this host's clock.
    rate: f64,
    /// Delay between the caster and the loudspeakers.
    play_after: Duration,
    /// The shortest round trip.
    round_trip: Duration,
}

impl Aim {
    /// Returns by how many samples the one that shall sound at `at` is after `position`.
    pub(crate) fn ahead_of(&self, position: u64, at: Instant) -> f64 {
        let since = seconds_between(at, self.at);
        // within 12 hours
        let apart = self.timestamp.wrapping_sub(position as u32) as i32;
        f64::from(apart) + self.fraction + since * self.rate
    }

    /// Returns the excess speed over this host's clock, in parts per million.
    pub(crate) fn ppm(&self) -> f64 {
        (self.rate / f64::from(CLOCK_RATE) - 1.0) * 1e6
    }

    /// Returns the delay between the caster and the loudspeakers.
    #[must_use]
    pub fn play_after(&self) -> Duration {
        self.play_after
    }

    /// Returns the shortest round trip: half of it bounds the error by a path that is longer in
    /// one direction.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }
}

/// What a listener of a caster follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Following {
    /// Its own buffer.
    Free,
    /// Nothing yet: the caster's clock is asked for.
    Asking,
    /// The caster's clock.
    InStep(Aim),
}

/// Questions to one session of a caster, and its clock.
#[derive(Debug)]
pub(crate) struct Follower {
    caster: PeerId,
    session: SessionId,
    groups: ClockGroups,
    seed: [u8; 32],
    begun: Instant,
    asked: u32,
    ask_at: Instant,
    /// Numbers and times of questions.
    open: VecDeque<(u64, Instant)>,
    estimate: Estimate,
    answered: Option<(Answer, Instant)>,
    rate: TokenBucket,
}

impl Follower {
    /// Begins to ask. `seed` is random: others cannot guess the numbers of questions.
    pub(crate) fn new(
        caster: PeerId,
        session: SessionId,
        station: &Station,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        Self {
            groups: station.clock_groups(&caster),
            caster,
            session,
            seed,
            begun: now,
            asked: 0,
            ask_at: now,
            open: VecDeque::new(),
            estimate: Estimate::new(now),
            answered: None,
            rate: TokenBucket::of(MAX_RATE, now),
        }
    }

    pub(crate) fn groups(&self) -> ClockGroups {
        self.groups
    }

    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    pub(crate) fn next_timeout(&self) -> Instant {
        self.ask_at
    }

    /// Returns the question that is due, to be sent at once.
    pub(crate) fn poll_question(&mut self, station: &Station, now: Instant) -> Option<Vec<u8>> {
        if now < self.ask_at {
            return None;
        }
        self.asked = self.asked.saturating_add(1);
        let hash = derive(
            "lcradio 2026 question",
            &[&self.seed, &self.asked.to_be_bytes()],
        );
        let [a, b, c, d, e, f, g, h, ..] = hash;
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let mut salt = [0; 16];
        salt.copy_from_slice(&hash[8..24]);
        if self.open.len() >= MAX_ASKED {
            self.open.pop_front();
        }
        self.open.push_back((number, now));
        self.ask_at = now
            + match self.asked {
                asked if asked < FIRST.0 => FIRST.1,
                asked if asked < FIRST.0 + SETTLING.0 => SETTLING.1,
                _ => INTERVAL,
            };
        Some(clock::question(number, station, salt))
    }

    /// Handles a datagram of the group of answers.
    pub(crate) fn handle_answer(
        &mut self,
        datagram: &[u8],
        station: &Station,
        now: Instant,
    ) -> Result<(), DropReason> {
        if !self.rate.take(1, now) {
            return Err(DropReason::ClockRate);
        }
        let answer =
            Answer::decode(datagram, station, &self.caster).map_err(|error| match error {
                BeaconError::NotOpened => DropReason::ClockNotOpened,
                BeaconError::Forged | BeaconError::Grant => DropReason::ClockForged,
                BeaconError::Wire(_) => DropReason::ClockMalformed,
            })?;
        if answer.session != self.session {
            return Err(DropReason::ClockOther);
        }
        let mut is_ours = false;
        for (number, received_ns) in &answer.received {
            let Some(at) = self.open.iter().position(|(open, _)| open == number) else {
                continue;
            };
            // each counts once
            let Some((_, asked)) = self.open.remove(at) else {
                continue;
            };
            is_ours |= self.estimate.add(Exchange {
                asked,
                received_ns: *received_ns,
                sent_ns: answer.sent_ns,
                came: now,
            });
        }
        if !is_ours {
            return Err(DropReason::ClockOther);
        }
        let is_newer = |(last, _): &(Answer, Instant)| answer.sent_ns >= last.sent_ns;
        if self.answered.as_ref().is_none_or(is_newer) {
            self.answered = Some((answer, now));
        }
        Ok(())
    }

    pub(crate) fn following(&self, now: Instant) -> Following {
        let Some((answer, at)) = &self.answered else {
            let waited = now.saturating_duration_since(self.begun);
            return match waited < PATIENCE {
                true => Following::Asking,
                false => Following::Free,
            };
        };
        if now.saturating_duration_since(*at) > HOLDS {
            return Following::Free;
        }
        let play_after = Duration::from_millis(answer.play_after_ms.into());
        let plays = answer.made_ns as f64 / 1e9 + play_after.as_secs_f64();
        let (local, speed) = self.estimate.local(plays);
        let rate = f64::from(CLOCK_RATE) * (1.0 + f64::from(answer.pace_ppb) / 1e9) * speed;
        // of a moment near this one, as instants before the epoch may not exist
        let ahead = (seconds_between(*at, self.estimate.epoch()) - local) * rate;
        Following::InStep(Aim {
            at: *at,
            timestamp: answer.timestamp.wrapping_add(ahead.floor() as i64 as u32),
            fraction: ahead - ahead.floor(),
            rate,
            play_after,
            round_trip: Duration::from_secs_f64(self.estimate.round_trip().max(0.0)),
        })
    }
}
