//! Reports from receiver to sender: the highest packet, missing packets, and times of arrival.
//!
//! ```text
//! RTCP APP (type 204, subtype 1), after its header with the reporter's SSRC, all under SRTCP:
//! name "lcfb" | highest index 64 | packets received 64 | settled 64 | lost 64
//! | congested 64 | time of the report 32
//! | samples 8 | words 8 | zero 16
//! | samples x { index: highest minus this 32 | age 32 }
//! | words x 64: bit 63 of the first is the highest index, the next bits those below
//! ```
//!
//! All packets below index `settled` have had 30 ms to be overtaken; `lost` of them have not
//! arrived. `congested` packets had the mark of a filling queue (ECN CE, RFC 3168). Times are
//! microseconds of the receiver's clock, modulo 2^32; an age is the time from arrival to report.
//! The first sample is the highest packet. Counts are totals, so a lost report only costs time.

use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};
use librecast::wire::{Reader, WireError};

use crate::replay::ReplayWindow;

/// Name of our APP packets (RFC 3550 6.7).
const NAME: &[u8; 4] = b"lcfb";
/// Bound of delay samples in a report. Chosen.
pub const MAX_SAMPLES: usize = 16;
/// Bound of 64-packet words in the bitmap of a report. Chosen.
pub const MAX_WORDS: usize = 16;
/// Longest time from a packet to its report.
const EVERY: Duration = Duration::from_millis(20);
/// The same while few packets come and none is missing. Chosen: below the 250 ms after which
/// senders count packets as lost.
const EVERY_CALM: Duration = Duration::from_millis(150);
/// Packets and bytes that are few. Chosen: a thin flow of sound; above, reports show queues in
/// time.
const FEW_PACKETS: u32 = 8;
const FEW_BYTES: usize = 4_000;
/// Time without a missing or marked packet before reports wait. Chosen.
const CALM: Duration = Duration::from_secs(1);
/// Packets after which a report goes at once.
const MOST_PACKETS: u32 = 256;
/// Packets after a gap that trigger a report, for repair. RFC 9002 6.1.1: the packet threshold.
const GAP_PACKETS: u32 = 3;
/// Time after a gap that triggers a report, for repair. From adr/packets.md.
const GAP_WAIT: Duration = Duration::from_millis(2);
/// Interval from the report of a gap to its repetition. Chosen: the first one may get lost.
const GAP_REPEAT_INTERVAL: Duration = Duration::from_millis(4);
/// Least interval of reports of gaps. Chosen.
const GAP_REPORT_INTERVAL: Duration = Duration::from_millis(1);
/// Reports before the last that the bitmap covers once more while there are gaps.
const OVERLAP: usize = 4;

/// Time after a later packet at which a missing packet counts as lost. From adr/packets.md.
const REORDER_TIMEOUT: Duration = Duration::from_millis(30);
/// Interval of judgements of such packets. Chosen.
const SETTLE_INTERVAL: Duration = Duration::from_millis(5);

/// A report, as the sender of the media reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Highest index received.
    pub highest: u64,
    /// Packets received, in all.
    pub received: u64,
    /// Index below which packets are judged.
    pub settled: u64,
    /// Those below `settled` that have not come, in all.
    pub lost: u64,
    /// Packets that arrived with a CE mark.
    pub ce: u64,
    /// Receiver's clock, in microseconds.
    pub time: u32,
    /// Times of arrival; the first is of the highest packet.
    pub samples: Vec<Sample>,
    /// Bitmap, downwards from the highest index.
    pub words: Vec<u64>,
}

/// Time of arrival of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Index of the packet.
    pub index: u64,
    /// Microseconds before the report.
    pub age: u32,
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// It is not of our form.
    pub fn read(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.array::<4>()? != *NAME {
            return Err(WireError::Bad("name"));
        }
        let (highest, received) = (r.u64()?, r.u64()?);
        let (settled, lost, ce) = (r.u64()?, r.u64()?, r.u64()?);
        let time = r.u32()?;
        let (samples, words) = (usize::from(r.u8()?), usize::from(r.u8()?));
        r.u16()?;
        if samples > MAX_SAMPLES || words > MAX_WORDS {
            return Err(WireError::Bad("count"));
        }
        let mut sample = || {
            let index = highest.checked_sub(u64::from(r.u32()?));
            let index = index.ok_or(WireError::Bad("sample"))?;
            let age = r.u32()?;
            Ok::<_, WireError>(Sample { index, age })
        };
        let samples = (0..samples).map(|_| sample()).collect::<Result<_, _>>()?;
        let words = (0..words).map(|_| r.u64()).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Self {
            highest,
            received,
            settled,
            lost,
            ce,
            time,
            samples,
            words,
        })
    }

    /// Whether packet `index` has arrived, by the bitmap.
    pub fn came(&self, index: u64) -> bool {
        let below = self.highest.checked_sub(index);
        let word = below.and_then(|n| Some((self.words.get(usize::try_from(n / 64).ok()?)?, n)));
        word.is_some_and(|(word, n)| word << (n % 64) >> 63 != 0)
    }

    /// Appends the report.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_slice(NAME);
        out.put_u64(self.highest);
        out.put_u64(self.received);
        out.put_u64(self.settled);
        out.put_u64(self.lost);
        out.put_u64(self.ce);
        out.put_u32(self.time);
        let samples = &self.samples[..self.samples.len().min(MAX_SAMPLES)];
        let words = &self.words[..self.words.len().min(MAX_WORDS)];
        // both are at most 16
        out.put_slice(&[samples.len() as u8, words.len() as u8, 0, 0]);
        for sample in samples {
            let below = self.highest.saturating_sub(sample.index);
            out.put_u32(u32::try_from(below).unwrap_or(u32::MAX));
            out.put_u32(sample.age);
        }
        words.iter().for_each(|word| out.put_u64(*word));
    }
}

/// The receiver's side: records arrivals, and decides when to report.
#[derive(Debug)]
pub struct Reporter {
    began: Instant,
    received: u64,
    ce: u64,
    newest: Option<(u64, Instant)>,
    samples: Vec<(u64, Instant)>,
    unreported: u32,
    unreported_bytes: usize,
    /// When the first of these came, and the last packet that was missing or marked.
    unreported_since: Instant,
    unrest: Instant,
    /// One packet in this number is sampled.
    stride: u32,
    due: Option<Instant>,
    /// Highest indices of the last reports, in order.
    reported: [u64; OVERLAP],
    /// Whether gaps are reported early.
    gaps: bool,
    /// Packets since an unreported gap.
    gap: Option<u32>,
    reported_at: Instant,
    settled: u64,
    lost: u64,
    /// Highest indices of the last 30 ms.
    marks: VecDeque<(Instant, u64)>,
}

impl Reporter {
    /// Makes the reporter; with `gaps` it reports missing packets early, for repair.
    pub fn new(gaps: bool, now: Instant) -> Self {
        Self {
            began: now,
            received: 0,
            ce: 0,
            newest: None,
            samples: Vec::with_capacity(MAX_SAMPLES),
            unreported: 0,
            unreported_bytes: 0,
            unreported_since: now,
            unrest: now,
            stride: 1,
            due: None,
            reported: [0; OVERLAP],
            gaps,
            gap: None,
            reported_at: now,
            settled: 0,
            lost: 0,
            marks: VecDeque::new(),
        }
    }

    /// Notes a packet of `bytes`, which may request a report with `marker`; returns whether one is
    /// due.
    pub fn handle(
        &mut self,
        (index, bytes): (u64, usize),
        marker: bool,
        congested: bool,
        now: Instant,
    ) -> bool {
        self.received += 1;
        self.ce += u64::from(congested);
        let next = self.newest.map_or(index, |(newest, _)| newest + 1);
        if index != next || congested {
            self.unrest = now;
        }
        if self.gaps {
            self.look_for_gap(index, now);
        }
        if self.newest.is_none() {
            // packets sent before this side was ready are not judged (RFC 3550 A.3)
            self.settled = index;
        }
        if self.newest.is_none_or(|(newest, _)| index > newest) {
            self.newest = Some((index, now));
        }
        if self.unreported.is_multiple_of(self.stride) {
            self.sample(index, now);
        }
        if self.unreported == 0 {
            self.unreported_since = now;
        }
        self.unreported += 1;
        self.unreported_bytes += bytes;
        let wait = if self.may_wait(now) {
            EVERY_CALM
        } else {
            EVERY
        };
        let due = self.due_by(self.unreported_since + wait);
        marker || self.unreported >= MOST_PACKETS || now >= due
    }

    /// Whether nothing that has come makes a report urgent.
    fn may_wait(&self, now: Instant) -> bool {
        let are_few = self.unreported < FEW_PACKETS && self.unreported_bytes < FEW_BYTES;
        are_few && now >= self.unrest + CALM
    }

    /// Schedules a report soon if packets before `index` are missing.
    fn look_for_gap(&mut self, index: u64, now: Instant) {
        if let Some(packets) = &mut self.gap {
            *packets += 1;
            if *packets == GAP_PACKETS {
                let at = now.max(self.reported_at + GAP_REPORT_INTERVAL);
                self.due_by(at);
            }
        } else if index > self.newest.map_or(0, |(newest, _)| newest + 1) {
            self.gap = Some(1);
            self.due_by(now.max(self.reported_at) + GAP_WAIT);
        }
    }

    fn due_by(&mut self, at: Instant) -> Instant {
        let due = self.due.map_or(at, |due| due.min(at));
        self.due = Some(due);
        due
    }

    /// Keeps samples that spread evenly over the unreported packets.
    fn sample(&mut self, index: u64, now: Instant) {
        if self.samples.len() == MAX_SAMPLES - 1 {
            let mut nth = 0;
            self.samples.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
            self.stride *= 2;
        }
        self.samples.push((index, now));
    }

    /// Returns the time of the next report.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Skips a report; the next one covers everything.
    pub fn skip(&mut self) {
        self.due = None;
        self.samples.clear();
        (self.unreported, self.unreported_bytes, self.stride) = (0, 0, 1);
    }

    /// Returns the report of all arrivals; `None` without any since the last.
    pub fn report(&mut self, seen: &ReplayWindow, now: Instant) -> Option<Report> {
        self.due.take()?;
        (self.unreported, self.unreported_bytes, self.stride) = (0, 0, 1);
        let (highest, at) = self.newest?;
        let sample = |(index, at): (u64, Instant)| Sample {
            index,
            age: micros(now, at),
        };
        let mut samples = vec![sample((highest, at))];
        // a sample before a jump of billions does not show the present delay
        let near = |(index, _): &(u64, Instant)| highest - index < u64::from(u32::MAX);
        samples.extend(self.samples.drain(..).filter(near).map(sample));
        let [before, .., last] = self.reported;
        let gap = self.gap.take().is_some();
        let from = if self.gaps && (gap || seen.missing(before, highest) > 0) {
            before
        } else {
            last
        };
        let fresh = highest.saturating_sub(from).div_ceil(64) + 1;
        self.reported.rotate_left(1);
        self.reported[OVERLAP - 1] = highest;
        self.reported_at = now;
        if gap {
            self.due = Some(now + GAP_REPEAT_INTERVAL);
        }
        self.settle(highest, seen, now);
        let words = (0..fresh.min(MAX_WORDS as u64)).map(|w| word(seen, highest, w * 64));
        Some(Report {
            highest,
            received: self.received,
            settled: self.settled,
            lost: self.lost,
            ce: self.ce,
            time: micros(now, self.began),
            samples,
            words: words.collect(),
        })
    }

    /// Judges packets after [`REORDER_TIMEOUT`].
    fn settle(&mut self, highest: u64, seen: &ReplayWindow, now: Instant) {
        let last = self.marks.back();
        if last.is_none_or(|(at, _)| now >= *at + SETTLE_INTERVAL) {
            self.marks.push_back((now, highest));
        }
        while let Some((at, index)) = self.marks.front().copied()
            && now >= at + REORDER_TIMEOUT
        {
            self.lost += seen.missing(self.settled, index);
            self.settled = self.settled.max(index + 1);
            self.marks.pop_front();
        }
    }
}

/// Returns the 64 bits from `below` under the highest index downwards.
fn word(seen: &ReplayWindow, highest: u64, below: u64) -> u64 {
    (0..64).fold(0, |word, n| {
        let index = highest.checked_sub(below + n);
        word << 1 | u64::from(index.is_some_and(|index| seen.was_seen(index)))
    })
}

/// Returns the microseconds from `earlier` to `later`, modulo 2^32.
pub fn micros(later: Instant, earlier: Instant) -> u32 {
    let micros = later.saturating_duration_since(earlier).as_micros();
    // the remainder fits
    (micros & u128::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let report = Report {
            highest: 0x102,
            received: 3,
            settled: 6,
            lost: 7,
            ce: 8,
            time: 4,
            samples: vec![Sample {
                index: 0x100,
                age: 5,
            }],
            words: vec![1 << 63],
        };
        let mut bytes = BytesMut::new();
        report.write(&mut bytes);
        let golden = [
            b"lcfb\0\0\0\0\0\0\x01\x02".as_slice(),
            &[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 6],
            &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8],
            &[0, 0, 0, 4, 1, 1, 0, 0],
            &[0, 0, 0, 2, 0, 0, 0, 5, 0x80, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes[..], golden);
        assert_eq!(Report::read(&bytes).unwrap(), report);
        assert_eq!(bytes.len() % 4, 0, "RTCP counts words");
    }

    #[test]
    fn a_report_tells_what_came_and_when() {
        let start = Instant::now();
        let (mut seen, mut reporter) = (ReplayWindow::new(16), Reporter::new(false, start));
        assert!(reporter.report(&seen, start).is_none());
        for (n, index) in [0, 1, 3, 2, 5].into_iter().enumerate() {
            seen.mark(index);
            let at = start + Duration::from_millis(n as u64);
            assert!(!reporter.handle((index, 1_200), false, false, at));
        }
        assert_eq!(reporter.deadline(), Some(start + EVERY));
        let report = reporter.report(&seen, start + EVERY).unwrap();
        assert_eq!(
            (report.highest, report.received, report.time),
            (5, 5, 20_000)
        );
        let newest = Sample {
            index: 5,
            age: 16_000,
        };
        assert_eq!(report.samples[0], newest);
        assert_eq!(report.words[0], 0b10_1111 << 58);
        assert!(reporter.report(&seen, start + EVERY).is_none());
    }

    #[test]
    fn a_thin_flow_is_reported_rarely_until_a_packet_is_missing() {
        let start = Instant::now();
        let (mut seen, mut reporter) = (ReplayWindow::new(16), Reporter::new(true, start));
        let at = |n: u64| start + Duration::from_millis(20) * n as u32;
        let mut run = |numbers: std::ops::Range<u64>, missing: u64, bytes| {
            let mut reports = 0;
            for n in numbers.filter(|n| *n != missing) {
                // the timer between two packets
                let due = reporter.deadline().filter(|due| *due <= at(n));
                reports += due.map_or(0, |due| usize::from(reporter.report(&seen, due).is_some()));
                seen.mark(n);
                if reporter.handle((n, bytes), false, false, at(n)) {
                    reports += usize::from(reporter.report(&seen, at(n)).is_some());
                }
            }
            reports
        };
        let none = u64::MAX;
        assert!(run(0..50, none, 250) >= 25, "a new path");
        let calm = run(50..450, none, 250);
        assert!((45..=55).contains(&calm), "{calm} reports of 400 packets");
        let after = run(450..490, 455, 250);
        assert!(after >= 20, "{after} reports after a loss");
        let long = run(490..590, none, 1_300);
        assert!(long >= 22, "{long} reports of 100 long packets");
    }

    #[test]
    fn what_was_sent_before_the_first_that_came_is_not_lost() {
        let mut now = Instant::now();
        let (mut seen, mut reporter) = (ReplayWindow::new(16), Reporter::new(false, now));
        let mut last = None;
        for index in [3, 4, 6, 7, 8] {
            seen.mark(index);
            reporter.handle((index, 1_200), true, false, now);
            last = reporter.report(&seen, now);
            now += REORDER_TIMEOUT + SETTLE_INTERVAL;
        }
        let report = last.unwrap();
        assert_eq!((report.settled, report.lost), (8, 1), "number 5");
    }

    #[test]
    fn what_is_late_is_not_lost() {
        let start = Instant::now();
        let (mut seen, mut reporter) = (ReplayWindow::new(16), Reporter::new(false, start));
        let mut report = None;
        for n in 0..400_u64 {
            // fifteen packets overtake every tenth one; every twentieth gets lost
            let index = match n % 10 {
                0 => n.saturating_sub(15) / 10 * 10,
                _ => n,
            };
            let now = start + Duration::from_millis(n);
            if index % 20 != 7 && seen.is_new(index) {
                seen.mark(index);
                if reporter.handle((index, 1_200), false, false, now) {
                    report = reporter.report(&seen, now);
                }
            }
        }
        let report = report.unwrap();
        assert!((330..380).contains(&report.settled), "{report:?}");
        assert!(report.lost.abs_diff(report.settled / 20) <= 1, "{report:?}");
    }

    #[test]
    fn many_packets_are_reported_at_once() {
        let start = Instant::now();
        let (mut seen, mut reporter) = (ReplayWindow::new(1_024), Reporter::new(false, start));
        let mut reports = 0;
        for n in 0..100_000_u64 {
            let now = start + Duration::from_micros(n * 2);
            seen.mark(n);
            if reporter.handle((n, 1_200), false, false, now) {
                let report = reporter.report(&seen, now).unwrap();
                assert!(report.words.len() <= MAX_WORDS && report.samples.len() > 7);
                reports += 1;
            }
        }
        assert_eq!(reports, 100_000 / 256);
        assert!(
            reporter.handle((100_000, 1_200), true, false, start),
            "a report that is asked for goes out at once"
        );
    }

    #[test]
    fn a_gap_is_told_soon_and_twice() {
        let start = Instant::now();
        let (mut seen, mut reporter) = (ReplayWindow::new(16), Reporter::new(true, start));
        let mut come = |reporter: &mut Reporter, index, after| {
            seen.mark(index);
            let now = start + after;
            let due = reporter.handle((index, 1_200), false, false, now);
            due.then(|| reporter.report(&seen, now)).flatten()
        };
        let ms = Duration::from_millis;
        assert_eq!(come(&mut reporter, 0, ms(100)), None);
        assert_eq!(come(&mut reporter, 2, ms(101)), None);
        assert_eq!(reporter.deadline(), Some(start + ms(101) + GAP_WAIT));
        assert_eq!(come(&mut reporter, 3, ms(101)), None);
        let report = come(&mut reporter, 4, ms(101)).unwrap();
        let came = [0, 1, 2, 3, 4, 5].map(|index| report.came(index));
        assert_eq!(came, [true, false, true, true, true, false]);
        assert_eq!(
            reporter.deadline(),
            Some(start + ms(101) + GAP_REPEAT_INTERVAL)
        );
        // not again at once
        (6..9).for_each(|index| assert_eq!(come(&mut reporter, index, ms(101)), None));
        assert_eq!(
            reporter.deadline(),
            Some(start + ms(101) + GAP_REPORT_INTERVAL)
        );
        let report = come(&mut reporter, 200, ms(102)).unwrap();
        assert!(
            report.came(2) && !report.came(1),
            "what was reported is reported again"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Report::read(&bytes);
            let _ = Report::read(&[&b"lcfb"[..], &bytes].concat());
        }

        #[test]
        fn reports_come_back(highest in 0_u64..1 << 48, received: u64, settled: u64, lost: u64, ce: u64, time: u32,
            samples in prop::collection::vec((0_u32.., any::<u32>()), 0..=MAX_SAMPLES),
            words in prop::collection::vec(any::<u64>(), 0..=MAX_WORDS)) {
            let samples = samples.into_iter()
                .map(|(below, age)| Sample { index: highest.saturating_sub(below.into()), age })
                .collect();
            let report = Report { highest, received, settled, lost, ce, time, samples, words };
            let mut bytes = BytesMut::new();
            report.write(&mut bytes);
            prop_assert_eq!(Report::read(&bytes).unwrap(), report);
        }
    }
}
