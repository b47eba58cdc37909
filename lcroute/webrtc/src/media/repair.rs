//! Repair at the sender: when to resend a payload, or to send a symbol.
//!
//! ```text
//! off --loss--> on: payloads are kept for the budget --a minute without loss--> off
//!               |-- round trips fit the budget: missing payloads are resent
//!               \-- they do not: every few packets a symbol over the last ones (window_code.rs)
//! ```
//!
//! - A resend is a new packet with its own index, so loss and delay are measured as for any packet,
//!   and it may be resent again. If few rounds fit the budget, several copies go at once.
//! - A packet counts as lost when three later ones have arrived, or one sent 2 ms later. Packets
//!   that arrive after that raise these bounds.
//! - Repair is at most half of the data, within the room that data leaves (lane.rs).

use lcroute_lane::{MAX_SOURCES, MAX_SPAN, Report, put_resent, put_symbol};
use librecast::gf256::Sum;
use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

use bytes::BytesMut;

use super::history::History;

/// Time after the last loss for which payloads are kept.
const ON: Duration = Duration::from_secs(60);
/// Later packets that must have arrived before a packet counts as lost.
const PACKET_THRESHOLD: u64 = 3;
/// A packet counts as lost if one sent this time later has arrived. Chosen.
const DISTANCE: Duration = Duration::from_millis(2);
/// Interval after which the measured reordering is halved.
const REORDER_FADE: Duration = Duration::from_secs(5);
/// Bound of lost packets that are watched for a late arrival.
const MOST_WATCHED: usize = 256;
/// Bound of remembered indices of packets that need no repair (path probes).
const MOST_PASSED_OVER: usize = 16;
/// Bound of payloads that wait to be resent.
const MOST_WAITING: usize = 4_096;
/// Time from a loss to its report, beside the round trip.
const FEEDBACK: Duration = Duration::from_millis(2);
/// Time after a packet at which its report is missing, beside the round trip. Chosen.
const MISSED: Duration = Duration::from_millis(5);
/// Time before the end of the budget at which the last try is made.
const SPARE: Duration = Duration::from_millis(1);
/// Interval of requested reports while repair is on.
const ASK_EVERY: Duration = Duration::from_millis(1);
/// Bound of repair per byte of data.
const SHARE: f64 = 0.5;
/// Bound of saved repair bytes. Chosen.
const SAVED: f64 = 65_536.0;
/// Share of packets that may stay lost: further copies stop below it.
const RESIDUE: f64 = 0.000_5;
/// Bound of copies of a packet. Chosen.
const MOST_COPIES: u32 = 3;
/// Bound of first copies as a share of the data.
const COPIES_SHARE: f64 = 0.45;
/// Packets for a measurement of loss.
const PROOF: u64 = 100;
/// Loss below which a code costs more than it repairs.
const LEAST_LOSS: f64 = 0.000_5;
/// Loss above which a code is better than one resend.
const CODE_LOSS: f64 = 0.08;
/// Packets within the budget from which on a code is better than one resend. Chosen.
const FILLED: usize = 32;
/// Strength of a code above the average loss, in standard deviations.
const MARGIN: f64 = 3.0;
/// Bound of bytes summed for symbols, per second: a fraction of a core.
const MOST_SUMMED: f64 = 1e9;

#[derive(Debug)]
pub(crate) struct Repair {
    budget: Duration,
    /// Payloads are kept until this time.
    on_until: Option<Instant>,
    history: History,
    /// Packets below this index have been judged.
    judged: u64,
    /// Lost packets that reports have counted.
    known_lost: u64,
    is_reported: bool,
    /// Indices of the last packets that need no repair.
    passed_over: VecDeque<u64>,
    watched: VecDeque<Watched>,
    /// Measured reordering, and the time of its last change.
    reorder: Duration,
    reordered: Instant,
    /// Payloads to be sent again.
    waiting: VecDeque<u64>,
    /// Remaining copies of the first of them.
    copies: u32,
    /// Round trip, and mean deviation of single ones.
    rtt: Duration,
    deviation: Duration,
    coding: bool,
    probe: bool,
    /// Bytes that repair may use.
    saved: f64,
    asked: Instant,
    loss: Loss,
    code: Code,
    /// Packets resent, and symbols sent.
    pub(crate) resent: u64,
    pub(crate) symbols: u64,
}

/// A packet that counts as lost.
#[derive(Debug)]
struct Watched {
    index: u64,
    /// Whether no later packet showed its loss.
    tail: bool,
}

/// Loss by the peer's reports, and its distribution.
#[derive(Debug, Default)]
struct Loss {
    share: Option<f64>,
    settled: u64,
    lost: u64,
    /// Number of losses, and of bursts.
    losses: f64,
    runs: f64,
    last: Option<u64>,
}

#[derive(Debug, Default)]
struct Code {
    /// Symbols per packet, and packets per symbol.
    rate: f64,
    window: usize,
    /// Number of due symbols.
    credit: f64,
    /// When packets without a symbol get one at the latest.
    due: Option<Instant>,
    seed: u16,
    sum: Sum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Resend(u64),
    Symbol,
}

impl Repair {
    /// Makes the state; repair may deliver up to `budget` after the first transmission, 0 is off.
    pub(crate) fn new(budget: Duration, now: Instant) -> Self {
        Self {
            budget,
            on_until: None,
            history: History::new(budget),
            judged: 0,
            known_lost: 0,
            is_reported: false,
            passed_over: VecDeque::new(),
            watched: VecDeque::new(),
            reorder: Duration::ZERO,
            reordered: now,
            waiting: VecDeque::new(),
            copies: 0,
            rtt: Duration::ZERO,
            deviation: Duration::ZERO,
            coding: false,
            probe: false,
            saved: SAVED / 4.0,
            asked: now,
            loss: Loss::default(),
            code: Code::default(),
            resent: 0,
            symbols: 0,
        }
    }

    /// Notes the first transmission of data, in packet `index`.
    pub(crate) fn sent(&mut self, index: u64, payload: &[u8], now: Instant) {
        if self.on_until.is_none() {
            return;
        }
        self.history.sent(index, payload, now);
        self.saved = (self.saved + payload.len() as f64 * SHARE).min(SAVED);
        if self.coding && self.code.rate > 0.0 {
            self.code.credit = (self.code.credit + self.code.rate).min(MAX_SOURCES as f64);
            self.code.due.get_or_insert(now + self.budget / 3);
        }
    }

    /// Notes that the packet by [`Self::write`] has the index `index`.
    pub(crate) fn repaired(&mut self, index: u64, work: Work, bytes: usize, now: Instant) {
        self.saved -= bytes as f64;
        match work {
            Work::Resend(number) => {
                self.history.sent_again(index, Some(number), now);
                self.resent += 1;
            }
            Work::Symbol => {
                self.history.sent_again(index, None, now);
                self.symbols += 1;
            }
        }
    }

    /// Notes packet `index`, which needs no repair if it gets lost.
    pub(crate) fn passed_over(&mut self, index: u64, now: Instant) {
        if self.budget.is_zero() {
            return;
        }
        if self.passed_over.len() == MOST_PASSED_OVER {
            self.passed_over.pop_front();
        }
        self.passed_over.push_back(index);
        if self.on_until.is_some() {
            self.history.sent_again(index, None, now);
        }
    }

    /// Whether the last packet of a turn should request a report.
    pub(crate) fn asks_for_report(&mut self, now: Instant) -> bool {
        let on = self.on_until.is_some() && !self.coding;
        let wants = on && now >= self.asked + ASK_EVERY;
        if wants {
            self.asked = now;
        }
        wants
    }

    /// Handles a report; `rtt` is the path's round trip, `rate` the arriving bytes a second.
    pub(crate) fn handle(&mut self, report: &Report, rtt: Duration, rate: f64, now: Instant) {
        if self.budget.is_zero() || report.words.is_empty() {
            return;
        }
        self.rtt = rtt;
        if report.lost > self.known_lost && self.on_until.is_some() {
            self.on_until = Some(now + ON);
        }
        self.known_lost = report.lost.max(self.known_lost);
        self.note_trip(report, now);
        self.loss.measure(report);
        self.coding = self.wants_code();
        self.find_overtaken(report, now);
        let oldest = (report.highest + 1).saturating_sub(report.words.len() as u64 * 64);
        if !std::mem::replace(&mut self.is_reported, true) {
            // packets from before the peer was ready are not loss (RFC 3550 A.3)
            self.judged = report.settled;
        }
        // no report will cover older packets
        self.judged = self.judged.max(oldest);
        while self.judged <= report.highest {
            if report.came(self.judged) {
                self.history.came(self.judged);
            } else if self.passed_over.contains(&self.judged) {
                // its loss does not matter
            } else if self.is_lost(self.judged, report.highest) {
                self.lose(self.judged, false, now);
            } else {
                break;
            }
            self.judged += 1;
        }
        self.history.forget(rtt, now);
        if self.on_until.is_some_and(|until| until < now) {
            self.turn_off();
        }
        self.adapt(rate);
    }

    /// Measures the deviation of this report's round trip.
    fn note_trip(&mut self, report: &Report, now: Instant) {
        let Some(sample) = report.samples.first() else {
            return;
        };
        if let Some(sent) = self.history.sent_at(sample.index) {
            let trip = now.saturating_duration_since(sent);
            let trip = trip.saturating_sub(Duration::from_micros(sample.age.into()));
            self.deviation = (self.deviation * 7 + trip.abs_diff(self.rtt)) / 8;
        }
    }

    /// Whether a code is better than resends: those are too late, or only one fits while a flow
    /// that fills a window has high loss.
    fn wants_code(&self) -> bool {
        // hysteresis
        let slack = if self.coding { 2 * FEEDBACK } else { FEEDBACK };
        let much = if self.coding {
            CODE_LOSS * 0.7
        } else {
            CODE_LOSS
        };
        let round = self.rtt + slack + self.reorder;
        let lossy = self.loss.share.is_some_and(|share| share > much);
        round > self.budget || 2 * round > self.budget && lossy && self.history.len() >= FILLED
    }

    /// Drops everything kept for repair.
    fn turn_off(&mut self) {
        self.history.clear();
        self.on_until = None;
        (self.watched, self.waiting) = (VecDeque::new(), VecDeque::new());
        (self.copies, self.code) = (0, Code::default());
    }

    fn is_lost(&self, index: u64, highest: u64) -> bool {
        let later = highest - index >= PACKET_THRESHOLD;
        let times = (self.history.sent_at(index), self.history.sent_at(highest));
        let (Some(sent), Some(newest)) = times else {
            return later;
        };
        let distance = newest.saturating_duration_since(sent);
        if self.reorder.is_zero() {
            later || distance >= DISTANCE
        } else {
            distance >= self.reorder
        }
    }

    /// Counts packet `index` as lost.
    fn lose(&mut self, index: u64, tail: bool, now: Instant) {
        // a packet that no report shows as missing may be late, as after a pause of a host
        if !tail {
            self.on_until = Some(now + ON);
        }
        self.loss.note(index);
        if self.watched.len() == MOST_WATCHED {
            self.watched.pop_front();
        }
        self.watched.push_back(Watched { index, tail });
        if let Some(number) = self.history.lost(index)
            && !self.coding
            && self.waiting.len() < MOST_WAITING
        {
            self.waiting.push_back(number);
        }
    }

    /// Finds packets that have arrived after counting as lost: they measure the reordering.
    fn find_overtaken(&mut self, report: &Report, now: Instant) {
        if now >= self.reordered + REORDER_FADE {
            self.reordered = now;
            self.reorder /= 2;
            if self.reorder < DISTANCE / 4 {
                self.reorder = Duration::ZERO;
            }
        }
        let oldest = (report.highest + 1).saturating_sub(report.words.len() as u64 * 64);
        let (history, highest) = (&mut self.history, report.highest);
        let (mut reorder, mut found) = (self.reorder, false);
        self.watched.retain(|watched| {
            let index = watched.index;
            if index < oldest || index > highest {
                return index > highest;
            }
            if !report.came(index) {
                return true;
            }
            history.came(index);
            if !watched.tail
                && let (Some(sent), Some(newest)) =
                    (history.sent_at(index), history.sent_at(highest))
            {
                let distance = newest.saturating_duration_since(sent);
                (reorder, found) = (reorder.max(distance + distance / 4), true);
            }
            false
        });
        if found {
            self.reordered = now;
            self.reorder = reorder.min(self.budget);
        }
    }

    /// Computes the code's strength from the loss.
    fn adapt(&mut self, rate: f64) {
        let loss = self.loss.share.unwrap_or(0.0);
        if !self.coding || loss < LEAST_LOSS || self.on_until.is_none() {
            (self.code.rate, self.code.credit, self.code.due) = (0.0, 0.0, None);
            return;
        }
        let mut window = self.history.len().clamp(1, MAX_SOURCES);
        self.code.rate = strength(loss, self.loss.burst(), window);
        let most = (MOST_SUMMED / (rate * self.code.rate).max(1.0)) as usize;
        if window > most.max(16) {
            window = most.max(16);
            self.code.rate = strength(loss, self.loss.burst(), window);
        }
        self.code.window = window;
    }

    /// Returns the time of the next [`Self::poll`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.on_until?;
        if self.coding {
            return self.code.due;
        }
        // by then a report should have arrived, with time left
        let soon = self.rtt + 4 * self.deviation + self.reorder;
        let late = self.budget.saturating_sub(SPARE);
        let at = self.history.sent_at(self.judged)?;
        (soon + FEEDBACK <= late).then(|| at + late.min(soon + MISSED))
    }

    /// Resends packets without a report. The first one must go even if the window is shut: it
    /// requests the report that would open it (RFC 8985, section 7).
    pub(crate) fn poll(&mut self, now: Instant) {
        self.probe = !self.coding && self.deadline().is_some_and(|due| due <= now);
        while !self.coding && self.deadline().is_some_and(|due| due <= now) {
            if !self.passed_over.contains(&self.judged) {
                self.lose(self.judged, true, now);
            }
            self.judged += 1;
        }
    }

    /// Whether the next packet must go out.
    pub(crate) fn takes_probe(&mut self) -> bool {
        std::mem::take(&mut self.probe)
    }

    /// Postpones repair that was due and found no room.
    pub(crate) fn defer(&mut self, now: Instant) {
        if let Some(due) = &mut self.code.due {
            *due = (*due).max(now + MISSED);
        }
    }

    pub(crate) fn next(&mut self, now: Instant) -> Option<Work> {
        while let Some(&number) = self.waiting.front() {
            let Some(payload) = self.history.wanted(number, now) else {
                self.waiting.pop_front();
                self.copies = 0;
                continue;
            };
            if self.saved < payload.bytes.len() as f64 {
                return None;
            }
            if self.copies == 0 {
                let left = (payload.at + self.budget).saturating_duration_since(now);
                self.copies = self.copies_for(left);
            }
            self.copies -= 1;
            if self.copies == 0 {
                self.waiting.pop_front();
            }
            return Some(Work::Resend(number));
        }
        let code = &mut self.code;
        let due = code.credit >= 1.0 || code.due.is_some_and(|due| due <= now);
        if !due || self.history.len() == 0 || self.saved < 0.0 {
            return None;
        }
        code.credit = (code.credit - 1.0).max(-1.0);
        code.due = None;
        Some(Work::Symbol)
    }

    /// Returns the number of copies for a remaining time of `left`.
    fn copies_for(&self, left: Duration) -> u32 {
        let loss = self.loss.share.unwrap_or(0.0).clamp(0.01, 0.5);
        let round = (self.rtt + FEEDBACK).as_secs_f64();
        let rounds = (left.as_secs_f64() / round) as i32;
        let enough = |copies: u32| loss.powi(1 + copies as i32 + rounds) <= RESIDUE;
        let most = ((COPIES_SHARE / loss) as u32).clamp(1, MOST_COPIES);
        (1..most).find(|copies| enough(*copies)).unwrap_or(most)
    }

    pub(crate) fn write(&mut self, work: Work, packet: &mut BytesMut, now: Instant) {
        match work {
            Work::Resend(number) => {
                if let Some(payload) = self.history.wanted(number, now) {
                    put_resent(packet, payload.index);
                    packet.extend_from_slice(&payload.bytes);
                }
            }
            Work::Symbol => {
                self.code.seed = self.code.seed.wrapping_add(1);
                let sources = self.history.last(self.code.window.max(1), MAX_SPAN);
                let sources = sources.map(|payload| (payload.index, &payload.bytes[..]));
                put_symbol(packet, self.code.seed, sources, &mut self.code.sum);
            }
        }
    }
}

impl Loss {
    /// Handles a report's counts of judged packets.
    fn measure(&mut self, report: &Report) {
        let settled = report.settled.saturating_sub(self.settled);
        if settled < PROOF {
            return;
        }
        let lost = report.lost.saturating_sub(self.lost);
        (self.settled, self.lost) = (report.settled, report.lost);
        let share = (lost as f64 / settled as f64).min(1.0);
        // faster up than down
        let weight = |old| if share > old { 0.3 } else { 0.15 };
        self.share = Some(
            self.share
                .map_or(share, |old| old + (share - old) * weight(old)),
        );
    }

    fn note(&mut self, index: u64) {
        self.losses += 1.0;
        if self.last.is_none_or(|last| last + 1 != index) {
            self.runs += 1.0;
        }
        self.last = Some(index);
        if self.losses > 512.0 {
            (self.losses, self.runs) = (self.losses / 2.0, self.runs / 2.0);
        }
    }

    /// Returns the mean length of bursts of losses, in packets.
    fn burst(&self) -> f64 {
        (self.losses / self.runs.max(1.0)).clamp(1.0, 8.0)
    }
}

/// Returns the symbols per packet that a window needs: the loss and a margin for chance.
fn strength(loss: f64, burst: f64, window: usize) -> f64 {
    let loss = loss.min(0.5);
    let mut rate = loss / (1.0 - loss);
    for _ in 0..3 {
        let variance = burst * loss * (1.0 - loss) * (1.0 + rate) / window.max(1) as f64;
        rate = (loss + MARGIN * variance.sqrt()) / (1.0 - loss);
    }
    rate.min(SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lcroute_lane::Sample;

    const BUDGET: Duration = Duration::from_millis(25);
    const MS: Duration = Duration::from_millis(1);

    /// Makes a lane that has had a loss, over a path of this round trip.
    fn on(rtt: Duration) -> (Repair, Instant) {
        let now = Instant::now();
        let mut repair = Repair::new(BUDGET, now);
        repair.handle(&report(4, 0b1_0111), rtt, 0.0, now);
        assert!(repair.on_until.is_some() && repair.next(now).is_none());
        (repair, now)
    }

    /// Makes a report up to `highest`; bits of `came` are arrivals, bit 0 the highest.
    fn report(highest: u64, came: u64) -> Report {
        Report {
            highest,
            words: vec![came.reverse_bits()],
            samples: vec![Sample {
                index: highest,
                age: 0,
            }],
            ..Report::default()
        }
    }

    #[test]
    fn off_keeps_and_sends_nothing() {
        let now = Instant::now();
        let mut repair = Repair::new(Duration::ZERO, now);
        repair.sent(0, b"a", now);
        repair.handle(&report(9, 1), MS, 0.0, now);
        repair.sent(10, b"a", now);
        assert_eq!((repair.history.len(), repair.next(now)), (0, None));
        assert!(!repair.asks_for_report(now) && repair.deadline().is_none());
    }

    #[test]
    fn what_is_missing_is_sent_again_until_it_comes_or_is_too_late() {
        let (mut repair, start) = on(MS);
        (5..10).for_each(|index| repair.sent(index, &[index as u8; 9], start));
        let now = start + 2 * MS;
        repair.handle(&report(8, 0b1011), MS, 0.0, now);
        assert_eq!(repair.next(now), None, "two later packets are not enough");
        repair.handle(&report(9, 0b1_0111), MS, 0.0, now);
        let work = repair.next(now).unwrap();
        let mut packet = BytesMut::new();
        repair.write(work, &mut packet, now);
        assert_eq!(
            packet[..],
            *b"\x80\x04\0\0\0\x06\x06\x06\x06\x06\x06\x06\x06\x06\x06"
        );
        repair.repaired(10, work, 40, now);
        (11..15).for_each(|index| repair.sent(index, b"x", now));
        // the resend got lost as well
        let then = now + 2 * MS;
        repair.handle(&report(14, 0b10_1111), MS, 0.0, then);
        assert_eq!(repair.next(then), Some(work));
        repair.repaired(15, work, 40, then);
        (16..20).for_each(|index| repair.sent(index, b"x", then));
        let late = start + BUDGET + MS;
        repair.handle(&report(19, 0b10_1111), MS, 0.0, late);
        assert_eq!(repair.next(late), None);
        assert_eq!(repair.resent, 2);
    }

    #[test]
    fn what_turns_up_out_of_order_raises_the_wait() {
        let (mut repair, start) = on(MS);
        for index in 5..40 {
            repair.sent(index, b"x", start + MS / 2 * index as u32);
        }
        let now = start + 15 * MS;
        repair.handle(&report(12, 0b1111_0111), MS, 0.0, now);
        assert!(repair.next(now).is_some(), "9 is missing");
        repair.handle(&report(19, !0), MS, 0.0, now);
        assert!(repair.reorder >= 5 * MS);
        repair.handle(&report(29, !(1 << 8)), MS, 0.0, now);
        assert_eq!(repair.next(now), None, "21 may be overtaken by eight");
        repair.handle(&report(39, !(1 << 18)), MS, 0.0, now);
        assert!(repair.next(now).is_some(), "not by eighteen");
    }

    #[test]
    fn what_nobody_misses_does_not_turn_it_on() {
        let now = Instant::now();
        let mut repair = Repair::new(BUDGET, now);
        repair.passed_over(3, now);
        repair.handle(&report(9, 0b11_1011_1111), MS, 0.0, now);
        assert!(repair.on_until.is_none());
        repair.handle(&report(19, !(1 << 6)), MS, 0.0, now);
        assert!(repair.on_until.is_some(), "13 is data");
    }

    #[test]
    fn what_was_sent_before_the_peer_was_ready_does_not_turn_it_on() {
        let now = Instant::now();
        let mut repair = Repair::new(BUDGET, now);
        let first = Report {
            settled: 4,
            ..report(9, 0b11_1111)
        };
        repair.handle(&first, MS, 0.0, now);
        assert!(repair.on_until.is_none(), "0 to 3 came to nobody");
        repair.handle(&report(19, 0b1111_1101_1111_1111), MS, 0.0, now);
        assert!(repair.on_until.is_some());
    }

    #[test]
    fn half_of_the_data_at_most() {
        let (mut repair, now) = on(MS);
        (5..5_000).for_each(|index| repair.sent(index, &[0; 1_200], now));
        let mut bytes = 0;
        for n in 1..70 {
            repair.handle(&report(n * 64, 0b111), MS, 0.0, now);
            while let Some(work) = repair.next(now) {
                repair.repaired(5_000 + repair.resent, work, 1_200, now);
                bytes += 1_200;
            }
        }
        assert!(repair.resent > 10 && f64::from(bytes) < SAVED + 1_200.0);
    }

    #[test]
    fn few_rounds_mean_more_copies() {
        let (mut repair, _) = on(MS);
        for (loss, rtt, left, copies) in [
            (0.05, 1, 20, 1),
            (0.2, 1, 20, 1),
            (0.2, 1, 4, 2),
            (0.01, 20, 4, 1),
            (0.05, 20, 4, 2),
            (0.2, 20, 4, 2),
        ] {
            (repair.loss.share, repair.rtt) = (Some(loss), rtt * MS);
            assert_eq!(repair.copies_for(left * MS), copies, "{loss} {rtt}");
        }
    }

    #[test]
    fn a_code_is_as_strong_as_the_loss_wants() {
        for (loss, window, from, to) in [
            (0.01, 100, 0.02, 0.06),
            (0.05, 100, 0.09, 0.16),
            (0.2, 100, 0.35, 0.5),
            (0.2, 10, 0.5, 0.5),
        ] {
            let rate = strength(loss, 1.0, window);
            assert!((from..=to).contains(&rate), "{rate} at {loss}");
        }
        assert!(strength(0.05, 4.0, 100) > strength(0.05, 1.0, 100));
    }
}
