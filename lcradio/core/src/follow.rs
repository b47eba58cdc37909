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
/// Most answers that are verified: a caster sends ten a second.
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
    pub fn play_after(&self) -> Duration {
        self.play_after
    }

    /// Returns the shortest round trip: half of it bounds the error by a path that is longer in
    /// one direction.
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }
}

/// The clock that a playout follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Following {
    /// Its own buffer.
    Free,
    /// Nothing yet: the caster's clock is asked for.
    Asking,
    /// The caster's clock.
    InStep(Aim),
}

fn drop_reason(error: BeaconError) -> DropReason {
    match error {
        BeaconError::NotOpened => DropReason::ClockNotOpened,
        BeaconError::Forged | BeaconError::Grant => DropReason::ClockForged,
        BeaconError::Wire(_) => DropReason::ClockMalformed,
    }
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
        let read = Answer::read(datagram, station).map_err(drop_reason)?;
        let asked = &read.answer.received;
        let is_open = |(open, _): &(u64, Instant)| asked.iter().any(|(number, _)| number == open);
        if read.answer.session != self.session || !self.open.iter().any(is_open) {
            return Err(DropReason::ClockOther);
        }
        // after it: an answer without an open number costs no verification, and no honest answer
        if !self.rate.take(1, now) {
            return Err(DropReason::ClockRate);
        }
        let mut answer = read.verify(&self.caster).map_err(drop_reason)?;
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
            // its times cannot be
            return Err(DropReason::ClockOther);
        }
        // a session has one delay: each other one would let loudspeakers begin anew
        if let Some((first, _)) = &self.answered {
            answer.play_after_ms = first.play_after_ms;
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::SoundPacket;
    use crate::playout::{FRAME, Frame, Latency, Playout};
    use crate::station::StationKey;

    const SESSION: SessionId = [3; 16];

    fn key() -> StationKey {
        StationKey::from_seed(&[1; 32])
    }

    /// A follower that has asked once, and the number of its question.
    fn asked(now: Instant) -> (Follower, u64) {
        let station = key().station(true);
        let mut follower = Follower::new(key().id(), SESSION, &station, [5; 32], now);
        let question = follower.poll_question(&station, now).unwrap();
        let number = clock::read_question(&question, &station).unwrap();
        (follower, number)
    }

    fn answer(number: u64) -> Answer {
        Answer {
            session: SESSION,
            play_after_ms: 150,
            timestamp: 0,
            made_ns: 1_000_000_000,
            pace_ppb: 0,
            sent_ns: 2_000_000_000,
            received: vec![(number, 2_000_000_000)],
        }
    }

    #[test]
    fn an_answer_counts_once_for_its_own_question_and_session() {
        let (now, station) = (Instant::now(), key().station(true));
        let (mut follower, number) = asked(now);
        let handle = |follower: &mut Follower, answer: &Answer, key: &StationKey| {
            let datagram = answer.encode(key, &station, [0; 16]);
            follower.handle_answer(&datagram, &station, now + Duration::from_millis(10))
        };
        let later = Answer {
            session: [4; 16],
            ..answer(number)
        };
        let member = StationKey::from_seed(&[2; 32]);
        for (wrong, key, reason) in [
            (answer(number ^ 1), key(), DropReason::ClockOther),
            (later, key(), DropReason::ClockOther),
            (answer(number), member, DropReason::ClockForged),
        ] {
            assert_eq!(handle(&mut follower, &wrong, &key), Err(reason));
        }
        assert_eq!(follower.following(now), Following::Asking);
        assert_eq!(handle(&mut follower, &answer(number), &key()), Ok(()));
        assert!(matches!(follower.following(now), Following::InStep(_)));
        let again = handle(&mut follower, &answer(number), &key());
        assert_eq!(again, Err(DropReason::ClockOther));
    }

    #[test]
    fn the_delay_of_a_sessions_first_answer_stays() {
        let (now, station) = (Instant::now(), key().station(true));
        let (mut follower, number) = asked(now);
        let later = now + Duration::from_millis(60);
        let question = follower.poll_question(&station, later).unwrap();
        let second = clock::read_question(&question, &station).unwrap();
        for (number, play_after_ms) in [(number, 150), (second, 700)] {
            let answer = Answer {
                play_after_ms,
                ..answer(number)
            };
            let datagram = answer.encode(&key(), &station, [0; 16]);
            let came = later + Duration::from_millis(5);
            assert_eq!(follower.handle_answer(&datagram, &station, came), Ok(()));
            let Following::InStep(aim) = follower.following(came) else {
                panic!("not in step");
            };
            assert_eq!(aim.play_after(), Duration::from_millis(150));
        }
    }

    #[test]
    fn without_a_lead_a_playout_keeps_the_last_one_and_then_follows_its_target() {
        let (begun, station) = (Instant::now(), key().station(true));
        let (mut follower, number) = asked(begun);
        let datagram = answer(number).encode(&key(), &station, [0; 16]);
        assert_eq!(follower.handle_answer(&datagram, &station, begun), Ok(()));
        let following = follower.following(begun);
        let at = |ms| begun + Duration::from_millis(ms);
        let lead = Some(Duration::from_millis(40));
        let mut playout = Playout::new(Latency::Auto, begun);
        playout.follow(following, lead, at(0));
        for (ms, lead, in_step) in [
            (20, None, true),
            (3_000, None, true),
            (3_020, None, false),
            (4_000, lead, true),
            (4_020, None, true),
        ] {
            playout.follow(following, lead, at(ms));
            assert_eq!(playout.step().is_some(), in_step, "{ms}");
            assert_eq!(playout.is_leadless(), !in_step, "{ms}");
        }
        // a device that never knows its delay
        let mut playout = Playout::new(Latency::Auto, begun);
        playout.follow(following, None, at(0));
        assert!(!playout.is_leadless());
        playout.follow(following, None, at(3_000));
        assert!(playout.is_leadless() && playout.step().is_none());
    }

    #[test]
    fn a_listener_asks_often_at_first_and_each_two_seconds_later_and_never_twice_alike() {
        let (begun, station) = (Instant::now(), key().station(true));
        let mut follower = Follower::new(key().id(), SESSION, &station, [5; 32], begun);
        let mut numbers = std::collections::BTreeSet::new();
        let mut count = |follower: &mut Follower, until_ms: u64| {
            let mut asked = 0;
            while follower.next_timeout() <= begun + Duration::from_millis(until_ms) {
                let now = follower.next_timeout();
                let question = follower.poll_question(&station, now).unwrap();
                assert!(numbers.insert(question));
                asked += 1;
            }
            asked
        };
        assert_eq!(count(&mut follower, 460), 10);
        assert_eq!(count(&mut follower, 15_500), 60);
        let minute = count(&mut follower, 75_500);
        assert!((29..=31).contains(&minute), "{minute}");
        assert!(follower.open.len() <= MAX_ASKED);
    }

    proptest! {
        /// A caster by a grant may be hostile, too: it signs any figures.
        #[test]
        fn any_signed_figures_play_frames_of_bounded_length(
            answers in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), -1_000_000..=1_000_000_i32), 1..8),
            near in any::<bool>(),
        ) {
            let (begun, station) = (Instant::now(), key().station(true));
            let mut now = begun;
            let mut follower = Follower::new(key().id(), SESSION, &station, [5; 32], now);
            let mut playout = Playout::new(Latency::Auto, now);
            for (n, (made_ns, sent_ns, received_ns, timestamp, pace_ppb)) in answers.into_iter().enumerate() {
                let question = follower.poll_question(&station, now).unwrap();
                let number = clock::read_question(&question, &station).unwrap();
                let received_ns = if near { sent_ns } else { received_ns };
                let answer = Answer { made_ns, sent_ns, timestamp, pace_ppb, received: vec![(number, received_ns)], ..answer(number) };
                now += Duration::from_millis(300);
                let datagram = answer.encode(&key(), &station, [0; 16]);
                let _ = follower.handle_answer(&datagram, &station, now);
                for packet in 0..15_u64 {
                    let index = n as u64 * 15 + packet;
                    playout.push(SoundPacket {
                        caster: 0,
                        session: 1,
                        index,
                        timestamp: (1 << 40) + index * u64::from(FRAME),
                        samples: FRAME,
                        payload: vec![0; 4],
                        arrival: now,
                    });
                    playout.follow(follower.following(now), Some(Duration::ZERO), now);
                    let frame = playout.poll_frame(now);
                    if let Frame::Lost { samples, .. } | Frame::Silence { samples } = frame {
                        prop_assert!((1..=FRAME).contains(&samples));
                    }
                    prop_assert!(playout.speed_ppm().abs() <= 500.0);
                    now += Duration::from_millis(20);
                }
            }
        }
    }
}
