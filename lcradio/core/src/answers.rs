//! Answers of a caster to questions for its clock, and the clock of its sound.
//!
//! ```text
//! questions -> rates -> pending --100 ms--> an answer to up to 32 of them
//! packets   -> SoundClock: sample -> time
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use librecast::bucket::{Bucket, Rate, TokenBucket};
use librecast::drops::Drops;
use librecast::time::{Duration, Instant};

use crate::beacon::{BeaconError, SessionId};
use crate::clock::{Answer, MAX_ANSWERED, read_question, seconds_between, shift};
use crate::drops::DropReason;
use crate::rtp::CLOCK_RATE;
use crate::station::Station;

/// Wait for further questions before an answer: at most ten answers a second. Chosen.
const GATHER: Duration = Duration::from_millis(100);
/// Most questions of all listeners: 100 in step, and some that begin.
const ALL: Rate = Rate::per_second(50, 200);
/// Most questions of one source: a listener that begins asks as many.
const OF_SOURCE: Rate = Rate::per_second(4, 40);
/// Most sources whose rates are remembered.
const MAX_SOURCES: usize = 1_024;
/// Most questions that wait for an answer: the burst of all.
const MAX_PENDING: usize = 200;
/// Time after which a question is not answered: its listener has asked again. Chosen.
const EXPIRES: Duration = Duration::from_secs(2);

/// Time between two corrections of the sound's clock.
const CORRECTION: Duration = Duration::from_secs(1);
/// Share of a measured error that a correction removes: a loop of second order, damped critically.
const PHASE_GAIN: f64 = 0.2;
/// Change of the pace by an error of a second, for each correction.
const PACE_GAIN: f64 = 0.01;
/// Largest error in seconds that is drift. A larger one is a pause of the source. A frame, chosen.
const MAX_DRIFT: f64 = 0.02;
/// Most that the sound's pace differs from this host's clock.
const MAX_PACE: f64 = 500e-6;

/// The time at which each sample was made, from the times at which packets were sent.
///
/// Waiting only delays packets, so the least late packet of a second counts.
#[derive(Debug)]
struct SoundClock {
    /// A sample, and when it was made.
    timestamp: u64,
    made: Instant,
    /// Excess speed over this host's clock.
    pace: f64,
    /// The least lateness since the last correction, in seconds.
    least: Option<f64>,
    corrected_at: Instant,
    is_first: bool,
}

impl SoundClock {
    fn new(timestamp: u64, made: Instant) -> Self {
        Self {
            timestamp,
            made,
            pace: 0.0,
            least: None,
            corrected_at: made,
            is_first: true,
        }
    }

    /// Returns when a sample is made.
    fn made(&self, timestamp: u64) -> Instant {
        let samples = timestamp.wrapping_sub(self.timestamp) as i64;
        let seconds = samples as f64 / f64::from(CLOCK_RATE) / (1.0 + self.pace);
        shift(self.made, seconds)
    }

    /// Notes that the packet with this timestamp was sent.
    fn sent(&mut self, timestamp: u64, now: Instant) {
        let made = self.made(timestamp);
        let late = seconds_between(now, made);
        let least = self.least.map_or(late, |least| least.min(late));
        self.least = Some(least);
        if now.saturating_duration_since(self.corrected_at) < CORRECTION {
            return;
        }
        let is_step = least.abs() > MAX_DRIFT;
        let share = if is_step || self.is_first {
            1.0
        } else {
            PHASE_GAIN
        };
        (self.timestamp, self.made) = (timestamp, shift(made, share * least));
        if share < 1.0 {
            self.pace = (self.pace - PACE_GAIN * least).clamp(-MAX_PACE, MAX_PACE);
        }
        (self.is_first, self.least, self.corrected_at) = (false, None, now);
    }
}

/// The clock of a caster in step, and the questions for it.
#[derive(Debug)]
pub(crate) struct Answers {
    play_after_ms: u16,
    /// The begin of the session's time.
    epoch: Instant,
    sound: Option<SoundClock>,
    all: TokenBucket,
    sources: BTreeMap<Ipv6Addr, Bucket>,
    /// Numbers and arrivals.
    pending: VecDeque<(u64, Instant)>,
    /// Those of the present answer, which goes out on each interface.
    answering: Vec<(u64, Instant)>,
    answer_at: Option<Instant>,
    drops: Drops<DropReason>,
}

impl Answers {
    pub(crate) fn new(play_after_ms: u16, now: Instant) -> Self {
        Self {
            play_after_ms,
            epoch: now,
            sound: None,
            all: TokenBucket::of(ALL, now),
            sources: BTreeMap::new(),
            pending: VecDeque::new(),
            answering: Vec::new(),
            answer_at: None,
            drops: Drops::default(),
        }
    }

    /// Notes that the packet with this timestamp was sent.
    pub(crate) fn sent(&mut self, timestamp: u64, now: Instant) {
        let sound = self.sound.get_or_insert(SoundClock::new(timestamp, now));
        sound.sent(timestamp, now);
    }

    pub(crate) fn handle_question(
        &mut self,
        datagram: &[u8],
        station: &Station,
        source: Ipv6Addr,
        now: Instant,
    ) {
        if let Err(reason) = self.take(datagram, station, source, now) {
            self.drops.count(reason);
        }
    }

    fn take(
        &mut self,
        datagram: &[u8],
        station: &Station,
        source: Ipv6Addr,
        now: Instant,
    ) -> Result<(), DropReason> {
        let number = read_question(datagram, station).map_err(|error| match error {
            BeaconError::NotOpened => DropReason::ClockNotOpened,
            _ => DropReason::ClockMalformed,
        })?;
        if self.pending.iter().any(|(pending, _)| *pending == number) {
            return Err(DropReason::Duplicate);
        }
        self.expire(now);
        self.answer_at.get_or_insert(now + GATHER);
        // after it: noise from hosts without the station's text uses none of the rates
        if self.pending.len() >= MAX_PENDING || !self.is_within_rates(source, now) {
            return Err(DropReason::ClockRate);
        }
        self.pending.push_back((number, now));
        Ok(())
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, at)) = self.pending.front()
            && now.saturating_duration_since(*at) > EXPIRES
        {
            self.pending.pop_front();
            self.drops.count(DropReason::Expired);
        }
    }

    fn is_within_rates(&mut self, source: Ipv6Addr, now: Instant) -> bool {
        if !self.sources.contains_key(&source) && self.sources.len() >= MAX_SOURCES {
            let burst = OF_SOURCE.burst();
            self.sources
                .retain(|_, bucket| bucket.left(OF_SOURCE, now) < burst);
            if self.sources.len() >= MAX_SOURCES {
                return false;
            }
        }
        let bucket = self.sources.entry(source);
        let bucket = bucket.or_insert_with(|| Bucket::full(now));
        // a refused question uses none of its source's rate
        bucket.left(OF_SOURCE, now) > 0 && self.all.take(1, now) && bucket.take(OF_SOURCE, 1, now)
    }

    /// Returns whether an answer is due, which [`answer`](Self::answer) then makes. Its questions
    /// wait no longer, even if no interface has a listener and nothing is sent.
    pub(crate) fn poll(&mut self, now: Instant) -> bool {
        if self.answer_at.is_none_or(|at| now < at) {
            return false;
        }
        self.answer_at = None;
        self.expire(now);
        if self.sound.is_none() {
            // nothing can be played: listeners ask again
            self.pending.clear();
        }
        let count = self.pending.len().min(MAX_ANSWERED);
        self.answering = self.pending.drain(..count).collect();
        if !self.pending.is_empty() {
            self.answer_at = Some(now + GATHER);
        }
        !self.answering.is_empty()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.answer_at
    }

    /// Makes the answer that is sent at `now`.
    pub(crate) fn answer(&self, session: SessionId, now: Instant) -> Option<Answer> {
        let sound = self.sound.as_ref()?;
        let ns = |at: Instant| {
            let since = at.saturating_duration_since(self.epoch).as_nanos();
            u64::try_from(since).unwrap_or(u64::MAX)
        };
        let received = self.answering.iter();
        let received = received.map(|(number, at)| (*number, ns(*at))).collect();
        Some(Answer {
            session,
            play_after_ms: self.play_after_ms,
            timestamp: sound.timestamp as u32,
            made_ns: ns(sound.made),
            pace_ppb: (sound.pace * 1e9) as i32,
            sent_ns: ns(now),
            received,
        })
    }

    pub(crate) fn drops(&self) -> &Drops<DropReason> {
        &self.drops
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
mod tests {
    use librecast::random::Random;

    use super::*;
    use crate::clock::question;
    use crate::station::StationKey;

    fn station() -> Station {
        StationKey::from_seed(&[1; 32]).station(false)
    }

    fn source(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, n)
    }

    #[test]
    fn the_sounds_clock_is_a_sources_own_whatever_delays_its_packets() {
        for ppm in [0.0, 100.0, -150.0] {
            let (begun, mut random) = (Instant::now(), Random::new(1));
            let mut clock = SoundClock::new(0, begun);
            let true_time = |n: u64| shift(begun, n as f64 * 0.02 / (1.0 + ppm / 1e6));
            let mut worst = 0.0_f64;
            for n in 0..50 * 300 {
                // up to 15 ms late, but each second some packet is almost punctual
                let late = 0.015 * random.unit().powi(4);
                clock.sent(n * 960, shift(true_time(n), late));
                if n > 50 * 60 {
                    let error = seconds_between(clock.made(n * 960), true_time(n));
                    worst = worst.max(error.abs());
                }
            }
            assert!(worst < 100e-6, "{ppm} ppm: {worst}");
            assert!((clock.pace * 1e6 - ppm).abs() < 3.0, "{}", clock.pace);
        }
    }

    #[test]
    fn after_a_pause_of_its_source_the_sounds_clock_steps_within_two_seconds() {
        let begun = Instant::now();
        let mut clock = SoundClock::new(0, begun);
        let at = |n: u64| begun + Duration::from_millis(20 * n + if n > 500 { 150 } else { 0 });
        for n in 0..700 {
            clock.sent(n * 960, at(n));
        }
        let error = seconds_between(clock.made(699 * 960), at(699));
        assert!(error.abs() < 1e-6, "{error}");
    }

    #[test]
    fn questions_leave_although_no_answer_is_sent_or_polled_for() {
        let (begun, station) = (Instant::now(), station());
        let mut answers = Answers::new(150, begun);
        answers.sent(0, begun);
        let mut number = 0;
        let mut ask = |answers: &mut Answers, now| {
            number += 1;
            let datagram = question(number, &station, [0; 16]);
            let from = source(number as u16);
            answers.handle_question(&datagram, &station, from, now);
        };
        // no interface with a listener: no answer is made
        let mut now = begun;
        for _ in 0..2 * MAX_PENDING {
            ask(&mut answers, now);
            now += Duration::from_millis(25);
            answers.poll(now);
        }
        assert_eq!(answers.drops.get(DropReason::ClockRate), 0);
        assert!(answers.pending.len() <= MAX_ANSWERED);
        // more than one answer holds: each batch leaves, and arms the next
        let mut answered = 0;
        for _ in 0..2 * MAX_ANSWERED {
            ask(&mut answers, now);
        }
        while let Some(at) = answers.next_timeout() {
            now = at;
            assert!(answers.poll(now) && answers.answering.len() <= MAX_ANSWERED);
            answered += answers.answering.len();
        }
        assert!(answered >= 2 * MAX_ANSWERED, "{answered}");
        // the caster was stopped: old questions give way to a new one
        now += Duration::from_secs(10);
        for _ in 0..MAX_PENDING {
            ask(&mut answers, now);
        }
        assert_eq!(answers.pending.len(), MAX_PENDING);
        now += Duration::from_secs(10);
        ask(&mut answers, now);
        assert_eq!(answers.pending.len(), 1);
        assert_eq!(answers.drops.get(DropReason::Expired), MAX_PENDING as u64);
        assert_eq!(answers.drops.get(DropReason::ClockRate), 0);
        assert!(answers.poll(now + GATHER));
    }

    #[test]
    fn each_question_is_answered_once_and_of_a_flood_no_more_than_the_rates_allow() {
        let (begun, station) = (Instant::now(), station());
        let mut answers = Answers::new(150, begun);
        answers.sent(0, begun);
        let ask = |answers: &mut Answers, number: u64, from: u16, now| {
            let datagram = question(number, &station, [0; 16]);
            answers.handle_question(&datagram, &station, source(from), now);
        };
        ask(&mut answers, 1, 1, begun);
        ask(&mut answers, 1, 1, begun);
        assert!(!answers.poll(begun + GATHER / 2));
        assert!(answers.poll(begun + GATHER));
        let answer = answers.answer([0; 16], begun + GATHER).unwrap();
        assert_eq!(answer.received, [(1, 0)]);
        // the same on another interface, sent later
        let again = answers.answer([0; 16], begun + GATHER * 2).unwrap();
        assert_eq!(again.received, answer.received);
        assert!(again.sent_ns > answer.sent_ns && !answers.poll(begun + GATHER * 3));
        assert_eq!(answers.drops.get(DropReason::Duplicate), 1);
        // one source floods for 10 s
        let count = |answers: &mut Answers, from: &mut dyn FnMut(u64) -> u16, begun: Instant| {
            let mut answered = 0;
            for n in 0..10_000_u64 {
                let now = begun + Duration::from_millis(n);
                ask(answers, 100 + n, from(n), now);
                assert!(answers.pending.len() <= MAX_PENDING);
                assert!(answers.sources.len() <= MAX_SOURCES);
                if answers.poll(now) {
                    answered += answers.answer([0; 16], now).unwrap().received.len();
                }
            }
            answered
        };
        let of_one = count(&mut answers, &mut |_| 2, begun + Duration::from_secs(1));
        assert!((70..=80).contains(&of_one), "{of_one}");
        // another is answered all the same
        let later = begun + Duration::from_secs(11);
        ask(&mut answers, 7, 3, later);
        assert!(answers.pending.iter().any(|(number, _)| *number == 7));
        // forged sources: the rate of all
        let begins = begun + Duration::from_secs(60);
        let of_many = count(&mut answers, &mut |n| n as u16, begins);
        assert!((600..=700).contains(&of_many), "{of_many}");
        assert!(answers.drops.get(DropReason::ClockRate) > 10_000);
        // the rate of all refuses: a source keeps its own
        let late = begins + Duration::from_secs(20);
        for n in 0..ALL.burst() {
            ask(&mut answers, 50_000 + n, 5_000 + n as u16, late);
        }
        for n in 0..OF_SOURCE.burst() {
            ask(&mut answers, 60_000 + n, 8, late);
        }
        let later = late + Duration::from_secs(1);
        while let Some(at) = answers.next_timeout() {
            answers.poll(at);
        }
        for n in 0..OF_SOURCE.burst() {
            ask(&mut answers, 70_000 + n, 8, later);
        }
        assert_eq!(answers.pending.len() as u64, OF_SOURCE.burst());
        let noise = [7; 40];
        answers.handle_question(&noise, &station, source(9), begun + Duration::from_secs(90));
        assert_eq!(answers.drops.get(DropReason::ClockMalformed), 1);
    }
}
