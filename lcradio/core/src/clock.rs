//! The clock of a caster, for listeners in step: questions, answers, and the estimate.
//!
//! ```text
//! listener  asked ─┐                         ┌─ came
//!                  └─► QUESTION    ANSWER ───┘            to UDP port 5006 of two groups
//! caster              received ─► sent
//!
//! QUESTION  version 8 = 1 | kind 8 = 16 | number 64
//! ANSWER    version 8 = 1 | kind 8 = 17 | session 128 | play_after 16 | timestamp 32 | made 64
//!           | pace 32 | sent 64 | count 8 <= 32 | count x (number 64 | received 64)
//!           | signature 512
//! version 8 = 2 | salt 128 | either of them, sealed | tag 128         of a private station
//! ```
//!
//! Only the caster joins the group of questions. Times are nanoseconds of the session by the
//! caster's clock, `play_after` is milliseconds. The sample `timestamp` was made at `made`; sound
//! is made faster than the caster's clock by `pace`, in parts per 10^9.

use std::collections::VecDeque;

use librecast::id::PeerId;
use librecast::time::{Duration, Instant};
use librecast::wire::{Reader, WireError, Writer};

use crate::beacon::{BeaconError, SessionId, open_sealed, seal_for};
use crate::station::{Station, StationKey};

const VERSION: u8 = 1;
const QUESTION: u8 = 16;
const ANSWER: u8 = 17;
const CONTEXT: &str = "lcradio 2026 clock";
/// Most questions in an answer: it fits in a packet.
pub(crate) const MAX_ANSWERED: usize = 32;
/// Delays between caster and loudspeakers in milliseconds. The greatest is the buffer's.
pub(crate) const PLAY_AFTER_MS: std::ops::RangeInclusive<u16> = 20..=800;
/// Most that a caster's pace differs from its clock, in parts per 10^9: a microphone's, generously.
const MAX_PACE_PPB: i32 = 1_000_000;
/// Most that two clocks differ in speed, as a ratio: the bound of resampling.
const MAX_SKEW: f64 = 500e-6;
/// Longest round trip in seconds: the error of the estimate is up to half of it.
const MAX_ROUND_TRIP: f64 = 1.0;
/// Time for which exchanges count, in seconds. Measured: temperature changes a skew in minutes.
const MEMORY: f64 = 120.0;
/// Most exchanges that count: ten at once, four a second for 15 s, then each 2 s.
const MAX_EXCHANGES: usize = 160;
/// Weight of the previous skew, in seconds: exchanges of a shorter time do not change it.
/// Simulated.
const PRIOR: f64 = 1.0;

/// Writes a question.
pub(crate) fn question(number: u64, station: &Station, salt: [u8; 16]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION).u8(QUESTION).u64(number);
    seal_for(station, salt, w.into_vec())
}

/// Reads the number of a question.
pub(crate) fn read_question(datagram: &[u8], station: &Station) -> Result<u64, BeaconError> {
    let plain = open_sealed(datagram, station)?;
    let mut r = Reader::new(&plain);
    head(&mut r, QUESTION)?;
    let number = r.u64()?;
    r.finish()?;
    Ok(number)
}

fn head(r: &mut Reader<'_>, expected: u8) -> Result<(), WireError> {
    match (r.u8()?, r.u8()?) {
        (VERSION, kind) if kind == expected => Ok(()),
        (VERSION, _) => Err(WireError::Bad("kind")),
        (version, _) => Err(WireError::Version(version)),
    }
}

/// Answers to several questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub session: SessionId,
    pub play_after_ms: u16,
    pub timestamp: u32,
    pub made_ns: u64,
    pub pace_ppb: i32,
    pub sent_ns: u64,
    /// Numbers of questions, and their arrivals.
    pub received: Vec<(u64, u64)>,
}

impl Answer {
    pub(crate) fn encode(&self, key: &StationKey, station: &Station, salt: [u8; 16]) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u8(ANSWER).put(&self.session);
        w.u16(self.play_after_ms).u32(self.timestamp);
        w.u64(self.made_ns).u32(self.pace_ppb as u32);
        let received = &self.received[..self.received.len().min(MAX_ANSWERED)];
        w.u64(self.sent_ns).u8(received.len() as u8);
        for (number, at) in received {
            w.u64(*number).u64(*at);
        }
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        seal_for(station, salt, w.into_vec())
    }

    /// Reads an answer of any sender.
    pub(crate) fn read(datagram: &[u8], station: &Station) -> Result<Unverified, BeaconError> {
        let plain = open_sealed(datagram, station)?;
        let (signed, signature) = plain.split_last_chunk::<64>().ok_or(WireError::Truncated)?;
        let mut r = Reader::new(signed);
        head(&mut r, ANSWER)?;
        let session = r.array()?;
        let play_after_ms = r.u16()?;
        if !PLAY_AFTER_MS.contains(&play_after_ms) {
            return Err(WireError::Bad("play_after").into());
        }
        let (timestamp, made_ns) = (r.u32()?, r.u64()?);
        let pace_ppb = r.u32()? as i32;
        if !(-MAX_PACE_PPB..=MAX_PACE_PPB).contains(&pace_ppb) {
            return Err(WireError::Bad("pace").into());
        }
        let sent_ns = r.u64()?;
        let count = usize::from(r.u8()?);
        if count > MAX_ANSWERED {
            return Err(WireError::Bad("count").into());
        }
        let received = (0..count).map(|_| Ok((r.u64()?, r.u64()?)));
        let received = received.collect::<Result<_, WireError>>()?;
        r.finish()?;
        let answer = Self {
            session,
            play_after_ms,
            timestamp,
            made_ns,
            pace_ppb,
            sent_ns,
            received,
        };
        Ok(Unverified {
            answer,
            signature: *signature,
            signed: signed.to_vec(),
        })
    }
}

/// An answer whose signature was not verified: that takes time.
#[derive(Debug)]
pub(crate) struct Unverified {
    pub answer: Answer,
    signed: Vec<u8>,
    signature: [u8; 64],
}

impl Unverified {
    /// Returns the answer if it is this caster's.
    pub(crate) fn verify(self, caster: &PeerId) -> Result<Answer, BeaconError> {
        caster
            .verify(CONTEXT, &self.signed, &self.signature)
            .map_err(|_| BeaconError::Forged)?;
        Ok(self.answer)
    }
}

/// Returns `a` less `b` in seconds.
pub(crate) fn seconds_between(a: Instant, b: Instant) -> f64 {
    let later = a.saturating_duration_since(b).as_secs_f64();
    let earlier = b.saturating_duration_since(a).as_secs_f64();
    later - earlier
}

/// Adds seconds, which may be negative.
pub(crate) fn shift(at: Instant, seconds: f64) -> Instant {
    let by = Duration::from_secs_f64(seconds.abs().min(1e6));
    match seconds < 0.0 {
        true => at.checked_sub(by).unwrap_or(at),
        false => at + by,
    }
}

/// Four times: of the question at both ends, of the answer at both ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    pub asked: Instant,
    pub received_ns: u64,
    pub sent_ns: u64,
    pub came: Instant,
}

/// The estimate of a caster's clock, by the shortest times of both directions.
///
/// Delays only lengthen a time. So the lead of the caster's clock is below a line through the
/// least forward times, and above one through the least backward times. Both lines have the slope
/// of the skew: the slope at which they are furthest apart. The estimate is the middle between
/// them; a path that takes longer in one direction falsifies it by half of the difference.
#[derive(Debug)]
pub(crate) struct Estimate {
    epoch: Instant,
    /// Local time, and the caster's lead plus the transit time; in seconds.
    forward: VecDeque<(f64, f64)>,
    /// Local time, and the caster's lead less the transit time; in seconds.
    backward: VecDeque<(f64, f64)>,
    /// Seconds that the caster's clock gains in a second of this host's.
    skew: f64,
    /// Local time in seconds, and the caster's lead there.
    lead: (f64, f64),
}

impl Estimate {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            forward: VecDeque::new(),
            backward: VecDeque::new(),
            skew: 0.0,
            lead: (0.0, 0.0),
        }
    }

    /// Counts an exchange; false if it cannot be true.
    pub(crate) fn add(&mut self, exchange: Exchange) -> bool {
        let asked = seconds_between(exchange.asked, self.epoch);
        let came = seconds_between(exchange.came, self.epoch);
        let (received, sent) = (
            exchange.received_ns as f64 / 1e9,
            exchange.sent_ns as f64 / 1e9,
        );
        let round_trip = (came - asked) - (sent - received);
        if sent < received || !(0.0..=MAX_ROUND_TRIP).contains(&round_trip) {
            return false;
        }
        self.forward.push_back((asked, received - asked));
        self.backward.push_back((came, sent - came));
        for times in [&mut self.forward, &mut self.backward] {
            while times.len() > MAX_EXCHANGES
                || times.front().is_some_and(|(at, _)| came - at > MEMORY)
            {
                times.pop_front();
            }
        }
        if !self.fit(came) {
            // this host slept, as its clock stood still: earlier times are of another clock
            let newest = self.forward.len() - 1;
            self.forward.drain(..newest);
            let newest = self.backward.len() - 1;
            self.backward.drain(..newest);
            self.fit(came);
        }
        true
    }

    /// Returns both lines at local time `at` for a skew.
    fn lines(&self, skew: f64, at: f64) -> (f64, f64) {
        let above = self.forward.iter().map(|(t, y)| y - skew * (t - at));
        let below = self.backward.iter().map(|(t, y)| y - skew * (t - at));
        (
            above.fold(f64::INFINITY, f64::min),
            below.fold(f64::NEG_INFINITY, f64::max),
        )
    }

    /// Fits skew and lead at local time `at`; false if no clock has these times.
    fn fit(&mut self, at: f64) -> bool {
        let apart = |skew: f64| {
            let (above, below) = self.lines(skew, at);
            above - below - PRIOR * (skew - self.skew).abs()
        };
        // concave: a ternary search finds the greatest
        let (mut low, mut high) = (-MAX_SKEW, MAX_SKEW);
        while high - low > 1e-9 {
            let third = (high - low) / 3.0;
            match apart(low + third) < apart(high - third) {
                true => low += third,
                false => high -= third,
            }
        }
        let skew = low.midpoint(high);
        let (above, below) = self.lines(skew, at);
        if above < below {
            return false;
        }
        self.skew = skew;
        self.lead = (at, above.midpoint(below));
        true
    }

    /// Returns this host's time at which the caster's clock shows this second, and how many seconds
    /// of the caster a second of this host has.
    pub(crate) fn local(&self, caster: f64) -> (f64, f64) {
        let ((at, lead), speed) = (self.lead, 1.0 + self.skew);
        (at + (caster - at - lead) / speed, speed)
    }

    /// Returns the shortest round trip in seconds.
    pub(crate) fn round_trip(&self) -> f64 {
        let (above, below) = self.lines(self.skew, self.lead.0);
        above - below
    }

    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
mod tests {
    use librecast::random::Random;
    use proptest::prelude::*;

    use super::*;

    const SALT: [u8; 16] = [9; 16];

    fn key() -> StationKey {
        StationKey::from_seed(&[1; 32])
    }

    fn decode(datagram: &[u8], station: &Station, caster: &PeerId) -> Result<Answer, BeaconError> {
        Answer::read(datagram, station)?.verify(caster)
    }

    fn answer() -> Answer {
        Answer {
            session: [3; 16],
            play_after_ms: 150,
            timestamp: 0xffff_ff00,
            made_ns: 1_000_000_001,
            pace_ppb: -40_000,
            sent_ns: 1_500_000_000,
            received: vec![(7, 1_400_000_000), (u64::MAX, 1_450_000_000)],
        }
    }

    #[test]
    fn questions_and_answers_come_back_and_a_changed_byte_is_noticed() {
        let key = key();
        for public in [true, false] {
            let station = key.station(public);
            let asked = question(0x0102_0304_0506_0708, &station, SALT);
            assert_eq!(
                read_question(&asked, &station).unwrap(),
                0x0102_0304_0506_0708
            );
            let datagram = answer().encode(&key, &station, SALT);
            let decoded = decode(&datagram, &station, &key.id());
            assert_eq!(decoded, Ok(answer()));
            for at in 0..datagram.len() {
                let mut changed = datagram.clone();
                changed[at] ^= 1;
                assert!(decode(&changed, &station, &key.id()).is_err());
                assert!(decode(&datagram[..at], &station, &key.id()).is_err());
            }
            // a member signs as itself, and a question is not an answer
            let member = StationKey::from_seed(&[2; 32]);
            let forged = answer().encode(&member, &station, SALT);
            let refused = decode(&forged, &station, &key.id());
            assert_eq!(refused, Err(BeaconError::Forged));
            assert!(decode(&asked, &station, &key.id()).is_err());
            assert!(read_question(&datagram, &station).is_err());
        }
    }

    #[test]
    fn the_largest_answer_fits_in_a_packet_and_figures_out_of_bounds_are_refused() {
        let (key, station) = (key(), key().station(false));
        let encoded = |answer: Answer| answer.encode(&key, &station, SALT);
        let whole = encoded(Answer {
            received: vec![(1, 2); MAX_ANSWERED + 5],
            ..answer()
        });
        assert!(whole.len() <= crate::rtp::MAX_PACKET, "{}", whole.len());
        let whole = decode(&whole, &station, &key.id()).unwrap();
        assert_eq!(whole.received.len(), MAX_ANSWERED);
        for wrong in [
            Answer {
                play_after_ms: 19,
                ..answer()
            },
            Answer {
                play_after_ms: 801,
                ..answer()
            },
            Answer {
                pace_ppb: 1_000_001,
                ..answer()
            },
            Answer {
                pace_ppb: i32::MIN,
                ..answer()
            },
        ] {
            assert!(decode(&encoded(wrong), &station, &key.id()).is_err());
        }
    }

    /// A caster's clock that leads by `ahead` seconds and gains `skew`, over a path.
    struct Clocks {
        ahead: f64,
        skew: f64,
        /// Seconds that the path takes there and back, and at most longer.
        path: (f64, f64),
        jitter: f64,
        random: Random,
        epoch: Instant,
    }

    impl Clocks {
        fn new(skew: f64, path: (f64, f64), jitter: f64, seed: u64) -> Self {
            Self {
                ahead: 10.0,
                skew,
                path,
                jitter,
                random: Random::new(seed),
                epoch: Instant::now(),
            }
        }

        fn caster(&self, at: f64) -> f64 {
            at + self.ahead + self.skew * at
        }

        fn exchange(&mut self, at: f64) -> Exchange {
            let ns = |seconds: f64| (seconds * 1e9) as u64;
            let there = at + self.path.0 + self.jitter * self.random.unit();
            let sent = there + 0.1 * self.random.unit();
            let back = sent + self.path.1 + self.jitter * self.random.unit();
            Exchange {
                asked: shift(self.epoch, at),
                received_ns: ns(self.caster(there)),
                sent_ns: ns(self.caster(sent)),
                came: shift(self.epoch, back),
            }
        }

        /// Error of the estimate at a local time, in milliseconds.
        fn error_ms(&self, estimate: &Estimate, at: f64) -> f64 {
            (estimate.local(self.caster(at)).0 - at) * 1e3
        }
    }

    /// Asks as a listener does; returns the errors until 100 s.
    fn errors(mut clocks: Clocks, loss: f64) -> Vec<(f64, f64)> {
        let mut estimate = Estimate::new(clocks.epoch);
        let (mut at, mut asked, mut errors) = (1.0, 0, Vec::new());
        while at < 101.0 {
            let exchange = clocks.exchange(at);
            if !clocks.random.chance(loss) {
                assert!(estimate.add(exchange));
                let came = seconds_between(exchange.came, clocks.epoch);
                errors.push((at - 1.0, clocks.error_ms(&estimate, came)));
            }
            asked += 1;
            at += match asked {
                ..10 => 0.05,
                10..70 => 0.25,
                _ => 2.0,
            };
        }
        errors
    }

    #[test]
    fn the_clock_is_known_to_a_fraction_of_a_millisecond_over_any_symmetric_path() {
        for skew in [200e-6, 0.0, -200e-6] {
            for path in [0.0001, 0.04] {
                for seed in 0..20 {
                    let clocks = Clocks::new(skew, (path, path), 0.003, seed);
                    let errors = errors(clocks, 0.05);
                    for (at, error) in &errors {
                        let most = if *at < 20.0 { 1.6 } else { 0.8 };
                        assert!(
                            error.abs() < most,
                            "{skew} {path} {seed}: {error:.3} ms after {at:.2} s"
                        );
                    }
                    let mut all: Vec<f64> = errors.iter().map(|(_, e)| e.abs()).collect();
                    all.sort_by(f64::total_cmp);
                    let median = all[all.len() / 2];
                    assert!(median < 0.3, "{skew} {path} {seed}: {median:.3} ms");
                }
            }
        }
    }

    #[test]
    fn a_path_that_is_longer_one_way_falsifies_it_by_half_of_that_and_no_more() {
        for path in [(0.005, 0.025), (0.025, 0.005)] {
            let expected = (path.1 - path.0) / 2.0 * 1e3;
            for (at, error) in errors(Clocks::new(100e-6, path, 0.001, 1), 0.0) {
                assert!(
                    (error.abs() - 10.0).abs() < 0.5 && error * expected > 0.0,
                    "{error:.3} ms after {at:.2} s"
                );
            }
        }
    }

    #[test]
    fn a_host_that_slept_begins_anew_and_times_that_cannot_be_do_not_count() {
        let mut clocks = Clocks::new(100e-6, (0.01, 0.01), 0.001, 1);
        let mut estimate = Estimate::new(clocks.epoch);
        for second in 1..60 {
            assert!(estimate.add(clocks.exchange(f64::from(second))));
        }
        for slept in [30.0, -5.0] {
            clocks.ahead += slept;
            assert!(estimate.add(clocks.exchange(60.0)));
            let error = clocks.error_ms(&estimate, 60.0);
            assert!(error.abs() < 1.0, "{error}");
        }
        let true_one = clocks.exchange(61.0);
        for (received_ns, sent_ns) in [
            (true_one.sent_ns + 1, true_one.sent_ns),
            (0, true_one.sent_ns),
            (0, u64::MAX),
        ] {
            let lie = Exchange {
                received_ns,
                sent_ns,
                ..true_one
            };
            assert!(!estimate.add(lie), "{lie:?}");
        }
        assert!(estimate.forward.len() <= MAX_EXCHANGES);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0_u8..4) {
            let bytes = [&[version], &bytes[..]].concat();
            let key = key();
            for public in [true, false] {
                let station = key.station(public);
                prop_assert!(decode(&bytes, &station, &key.id()).is_err());
                let number = read_question(&bytes, &station);
                prop_assert!(number.is_err() || bytes.len() == 10 && bytes[1] == QUESTION);
            }
        }
    }
}
