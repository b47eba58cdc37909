//! Control messages in the media lane: reliable and in order, without SCTP, which turns a few lost
//! packets into seconds of silence.
//!
//! ```text
//! send --cut into segments--> queue --window--> under way --acknowledged--> gone
//!                                               |    ^
//!                                               \----/ resent: after 1.5 round trips, 3 later ones
//!                                                      at high loss a copy follows at once
//! ```
//!
//! Segments and acknowledgements are messages of the lane (payload.rs, kind 0), distinguished from
//! data by their first byte. While the lane is stalled the control channel carries them as well.
//!
//! ```text
//! segment:         0x01 | flags 8 (bit 0: last of its message) | sequence 32 | 1 to 1,024 bytes
//! acknowledgement: 0x02 | sequence 32: all below arrived | map 128: its first bit is the sequence
//!                  after that one, which is missing
//! ```
//!
//! Sequences count up from 0 in each direction; only their low 32 bits travel. The receiver of a
//! segment acknowledges it at once, at most once in a turn.

use librecast::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use librecast::wire::{Reader, WireError};

use crate::config::ROUTED_QUEUE;
use lcroute_lane::extend;
use lcroute_overlay::SendError;

/// Kind of an element: a segment.
const SEGMENT: u8 = 1;
/// Kind of an element: an acknowledgement.
const ACKNOWLEDGEMENT: u8 = 2;
/// Flag of a segment: it ends a message.
const LAST: u8 = 1;
/// Bound of a segment's message bytes: it fits the narrowest path with all headers.
const SEGMENT_SIZE: usize = 1_024;
/// Bound of a message, in bytes.
const MAX_MESSAGE: usize = 65_536;
/// Segments in flight: at first, at least, at most. An acknowledgement's map covers the last.
const WINDOW: (f64, f64, f64) = (16.0, 8.0, 128.0);
/// Bound of segments received ahead of the expected one: more than any window.
const MAX_EARLY: u64 = 256;
/// Round trip before the first measurement.
const FIRST_TRIP: Duration = Duration::from_millis(100);
/// Least and longest pause before a segment is resent.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Excess over twice the shortest round trip above which the window shrinks.
const STANDING: Duration = Duration::from_millis(30);
/// Later segments that must have arrived before one counts as lost (RFC 9002, 6.1.1).
const PACKET_THRESHOLD: u64 = 3;
/// Unanswered tries in a row after which intervals grow. Chosen.
const BACKOFF_TRIES: u32 = 4;
/// Segments resent at a time from then on. Chosen.
const BACKOFF_SEGMENTS: usize = 4;
/// Share of lost packets from which on segments are copied at once. From adr/packets.md.
const COPY_LOSS: f64 = 0.03;
/// Bound of segments in flight for copies. Chosen: more would take the place of data.
const MAX_COPIED_SEGMENTS: usize = 16;
/// Least and longest time before a copy; between them, an eighth of the round trip. Chosen.
const COPY_AFTER: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(15));
/// Time without an answer after which the lane counts as stalled.
const STALLED: Duration = Duration::from_secs(1);
/// Interval of retries without a path.
const NO_PATH: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Lane,
    /// The SCTP control channel.
    Channel,
}

#[derive(Debug, Clone)]
struct Segment {
    bytes: Bytes,
    last: bool,
}

#[derive(Debug)]
struct Sent {
    segment: Segment,
    /// Time of the last transmission (except copies), number of transmissions, order of the last
    /// one.
    at: Instant,
    count: u32,
    order: u64,
    copied: bool,
    /// Later ones have arrived: it is due at once.
    missed: bool,
    on_channel: bool,
    acknowledged: bool,
}

/// Both directions of a link's control messages.
#[derive(Debug)]
pub(crate) struct Reliable {
    capacity: usize,
    /// Bytes queued and in flight.
    bytes: usize,
    queue: VecDeque<Segment>,
    /// Routed messages, which go when the queue is empty, and their bytes.
    routed: VecDeque<Bytes>,
    routed_bytes: usize,
    under_way: VecDeque<Sent>,
    /// Sequence of the first segment in flight.
    first: u64,
    window: f64,
    /// Segments sent so far, including resends.
    order: u64,
    /// Unanswered tries in a row.
    tries: u32,
    answered_at: Instant,
    trip: Option<(Duration, Duration)>,
    /// Assumed round trip before that.
    first_trip: Duration,
    shortest: Duration,
    shrunk_at: Option<Instant>,
    not_before: Instant,
    /// Whether the lane is stalled, so that the channel is used as well.
    stalled: bool,
    /// Share of our packets lost, measured by the lane.
    loss: f64,
    due: bool,

    expected: u64,
    early: BTreeMap<u64, Segment>,
    partial: BytesMut,
    arrived: VecDeque<Bytes>,
    /// Whether an acknowledgement is due on each transport.
    owes: [bool; 2],
}

impl Reliable {
    /// Makes the state, with at most `capacity` bytes queued.
    pub(crate) fn new(capacity: usize, now: Instant) -> Self {
        Self {
            capacity,
            bytes: 0,
            queue: VecDeque::new(),
            routed: VecDeque::new(),
            routed_bytes: 0,
            under_way: VecDeque::new(),
            first: 0,
            window: WINDOW.0,
            order: 0,
            tries: 0,
            answered_at: now,
            trip: None,
            first_trip: FIRST_TRIP,
            shortest: Duration::MAX,
            shrunk_at: None,
            not_before: now,
            stalled: false,
            loss: 0.0,
            due: false,
            expected: 0,
            early: BTreeMap::new(),
            partial: BytesMut::new(),
            arrived: VecDeque::new(),
            owes: [false; 2],
        }
    }

    /// Whether a message of the lane is a segment or an acknowledgement.
    pub(crate) fn is_ours(message: &[u8]) -> bool {
        matches!(message.first(), Some(&(SEGMENT | ACKNOWLEDGEMENT)))
    }

    /// Queues a message; ignores an empty one.
    pub(crate) fn send(&mut self, message: &[u8], now: Instant) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLarge);
        }
        if self.bytes + message.len() > self.capacity {
            return Err(SendError::QueueFull);
        }
        self.enqueue(Bytes::copy_from_slice(message), now);
        Ok(())
    }

    /// Queues a routed message, to go when the queue is empty; its sender repeats it if lost.
    pub(crate) fn send_routed(&mut self, message: &[u8]) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLarge);
        }
        if self.routed_bytes + message.len() > ROUTED_QUEUE {
            return Err(SendError::QueueFull);
        }
        self.routed_bytes += message.len();
        self.routed.push_back(Bytes::copy_from_slice(message));
        Ok(())
    }

    /// Cuts a message into segments.
    fn enqueue(&mut self, mut rest: Bytes, now: Instant) {
        if self.bytes == 0 {
            self.answered_at = now;
        }
        self.bytes += rest.len();
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(SEGMENT_SIZE));
            let last = rest.is_empty();
            self.queue.push_back(Segment { bytes, last });
        }
    }

    /// Returns the next segment, of a routed message if the queue is empty.
    fn next_segment(&mut self, now: Instant) -> Option<Segment> {
        if self.queue.is_empty()
            && let Some(message) = self.routed.pop_front()
        {
            self.routed_bytes -= message.len();
            self.enqueue(message, now);
        }
        self.queue.pop_front()
    }

    /// Handles a segment or an acknowledgement from `transport`. An error is a protocol violation.
    pub(crate) fn handle(
        &mut self,
        message: &Bytes,
        transport: Transport,
        now: Instant,
    ) -> Result<(), WireError> {
        let mut r = Reader::new(message);
        match r.u8()? {
            SEGMENT => {
                let (flags, sequence) = (r.u8()?, r.u32()?);
                let bytes = message.slice(message.len() - r.rest().len()..);
                if bytes.is_empty() || bytes.len() > SEGMENT_SIZE {
                    return Err(WireError::Bad("segment"));
                }
                self.owes[transport as usize] = true;
                let last = flags & LAST != 0;
                self.handle_segment(sequence, &Segment { bytes, last })
            }
            ACKNOWLEDGEMENT => {
                let (next, map) = (r.u32()?, u128::from_be_bytes(r.array()?));
                r.finish()?;
                self.handle_acknowledgement(next, map, transport, now)
            }
            _ => Err(WireError::Bad("type")),
        }
    }

    fn handle_segment(&mut self, low: u32, segment: &Segment) -> Result<(), WireError> {
        let sequence = extend(low, u32::BITS, self.expected);
        if sequence < self.expected || sequence >= self.expected + MAX_EARLY {
            return Ok(());
        }
        if sequence > self.expected {
            // a copy: the input shares its buffer with about forty packets, and may wait long
            let bytes = Bytes::copy_from_slice(&segment.bytes);
            let last = segment.last;
            self.early
                .entry(sequence)
                .or_insert(Segment { bytes, last });
            return Ok(());
        }
        self.take_in(segment)?;
        while let Some(segment) = self.early.remove(&self.expected) {
            self.take_in(&segment)?;
        }
        Ok(())
    }

    /// Handles the next segment in order.
    fn take_in(&mut self, segment: &Segment) -> Result<(), WireError> {
        self.expected += 1;
        if self.partial.len() + segment.bytes.len() > MAX_MESSAGE {
            return Err(WireError::Bad("message length"));
        }
        self.partial.extend_from_slice(&segment.bytes);
        if segment.last {
            self.arrived.push_back(self.partial.split().freeze());
        }
        Ok(())
    }

    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.arrived.pop_front()
    }

    fn handle_acknowledgement(
        &mut self,
        low: u32,
        map: u128,
        transport: Transport,
        now: Instant,
    ) -> Result<(), WireError> {
        let next = extend(low, u32::BITS, self.first);
        let sent = self.first + self.under_way.len() as u64;
        if next > sent {
            return Err(WireError::Bad("acknowledgement"));
        }
        let came = |sequence: u64| {
            let at = sequence.checked_sub(next + 1);
            sequence < next || at.is_some_and(|at| at < 128 && map & (1 << (127 - at)) != 0)
        };
        let (mut acknowledged, mut latest) = (0, None);
        for (at, sent) in self.under_way.iter_mut().enumerate() {
            if sent.acknowledged || !came(self.first + at as u64) {
                continue;
            }
            sent.acknowledged = true;
            acknowledged += 1;
            if sent.count == 1 {
                latest = latest.max(Some((sent.order, sent.at)));
            }
        }
        while self.under_way.front().is_some_and(|s| s.acknowledged) {
            if let Some(sent) = self.under_way.pop_front() {
                self.bytes -= sent.segment.bytes.len();
                self.first += 1;
            }
        }
        if acknowledged == 0 {
            return Ok(());
        }
        self.tries = 0;
        if transport == Transport::Lane {
            (self.answered_at, self.stalled) = (now, false);
        }
        if let Some((order, at)) = latest {
            self.measure(now.saturating_duration_since(at), acknowledged, now);
            self.miss(order);
        }
        Ok(())
    }

    /// Handles a round trip, and the number of segments that it acknowledged.
    fn measure(&mut self, sample: Duration, acknowledged: u32, now: Instant) {
        self.trip = Some(match self.trip {
            None => (sample, sample / 2),
            Some((trip, spread)) => (
                (trip * 7 + sample) / 8,
                (spread * 3 + trip.abs_diff(sample)) / 4,
            ),
        });
        self.shortest = self.shortest.min(sample);
        if sample <= self.shortest * 2 + STANDING {
            self.window = (self.window + f64::from(acknowledged)).min(WINDOW.2);
        } else if self.shrunk_at.is_none_or(|at| now >= at + sample) {
            self.window = (self.window * 0.7).max(WINDOW.1);
            self.shrunk_at = Some(now);
        }
    }

    /// Counts segments sent well before an acknowledged one as lost.
    fn miss(&mut self, order: u64) {
        for sent in &mut self.under_way {
            if !sent.acknowledged && sent.order + PACKET_THRESHOLD <= order {
                sent.missed = true;
                self.due = true;
            }
        }
    }

    /// Whether [`Self::poll`] has output.
    pub(crate) fn has_output(&self) -> bool {
        self.due || self.owes != [false; 2] || self.has_new()
    }

    fn has_new(&self) -> bool {
        let waits = !self.queue.is_empty() || !self.routed.is_empty();
        waits && (self.under_way.len() as f64) < self.window
    }

    /// Whether [`Self::deadline`] has passed, so that there is output.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.due |= self.deadline().is_some_and(|at| at <= now);
        self.due
    }

    /// Returns the time of the next resend; `None` if one is due already.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.due || self.under_way.is_empty() {
            return None;
        }
        let (pause, copy) = (self.pause(), self.copy_after());
        let due = self.under_way.iter().filter_map(|s| s.due(pause, copy));
        due.min().map(|at| at.max(self.not_before))
    }

    /// Sets the assumed round trip until the first measurement.
    pub(crate) fn expect_trip(&mut self, trip: Duration) {
        self.first_trip = trip;
    }

    /// Postpones resends: there is no path.
    pub(crate) fn postpone(&mut self, now: Instant) {
        self.not_before = now + NO_PATH;
        self.due = false;
    }

    /// Handles a new path: its round trip is unknown.
    pub(crate) fn path_changed(&mut self, now: Instant) {
        (self.trip, self.shortest) = (None, Duration::MAX);
        (self.tries, self.not_before) = (0, now);
        (self.answered_at, self.stalled) = (now, false);
    }

    /// Writes the due output in two parts. `loss` is the share of our packets that get lost.
    pub(crate) fn poll(
        &mut self,
        loss: f64,
        now: Instant,
        out: &mut dyn FnMut(Transport, [&[u8]; 2]),
    ) {
        (self.loss, self.due) = (loss, false);
        self.acknowledge(out);
        if !self.under_way.is_empty() && now >= self.answered_at + STALLED {
            self.stalled = true;
        }
        self.send_again(now, out);
        while self.has_new()
            && let Some(segment) = self.next_segment(now)
        {
            let mut sent = Sent {
                segment,
                at: now,
                count: 1,
                order: self.order,
                copied: false,
                missed: false,
                on_channel: false,
                acknowledged: false,
            };
            self.order += 1;
            let sequence = self.first + self.under_way.len() as u64;
            sent.write(sequence, self.stalled, out);
            self.under_way.push_back(sent);
        }
    }

    fn acknowledge(&mut self, out: &mut dyn FnMut(Transport, [&[u8]; 2])) {
        let owes = std::mem::take(&mut self.owes);
        if owes == [false; 2] {
            return;
        }
        let next = self.expected;
        let early = self.early.range(next + 1..=next + 128);
        let map = early.fold(0, |map, (sequence, _)| {
            map | 1_u128 << (127 - (sequence - next - 1))
        });
        let mut message = [ACKNOWLEDGEMENT; 21];
        message[1..5].copy_from_slice(&(next as u32).to_be_bytes());
        message[5..].copy_from_slice(&map.to_be_bytes());
        for transport in [Transport::Lane, Transport::Channel] {
            if owes[transport as usize] {
                out(transport, [&message, &[]]);
            }
        }
    }

    fn send_again(&mut self, now: Instant, out: &mut dyn FnMut(Transport, [&[u8]; 2])) {
        let (pause, copy) = (self.pause(), self.copy_after());
        let backs_off = self.tries >= BACKOFF_TRIES;
        let mut most = if backs_off {
            BACKOFF_SEGMENTS
        } else {
            usize::MAX
        };
        for (n, sent) in self.under_way.iter_mut().enumerate() {
            if sent.due(pause, copy).is_none_or(|at| now < at) {
                continue;
            }
            let waited = sent.at + pause <= now;
            if !waited && !sent.missed {
                sent.copied = true;
            } else {
                self.tries += u32::from(n == 0 && waited);
                sent.at = now;
                sent.missed = false;
                if most == 0 {
                    // it waits for an answer
                    continue;
                }
                most -= 1;
                (sent.count, sent.order) = (sent.count + 1, self.order);
                sent.copied = false;
                self.order += 1;
            }
            sent.write(self.first + n as u64, self.stalled, out);
        }
    }

    /// Returns the pause before a segment is resent.
    fn pause(&self) -> Duration {
        let first = (self.first_trip, self.first_trip / 8);
        let (trip, spread) = self.trip.unwrap_or(first);
        let pause = (trip * 3 / 2).max(trip + spread * 4);
        let doublings = self.tries.saturating_sub(BACKOFF_TRIES).min(6);
        pause.max(PAUSE.0).min(PAUSE.1) * 3_u32.pow(doublings) / 2_u32.pow(doublings)
    }

    /// Returns the time after which a copy follows, if copies pay off.
    fn copy_after(&self) -> Option<Duration> {
        let few = self.under_way.len() <= MAX_COPIED_SEGMENTS && self.tries <= BACKOFF_TRIES;
        let trip = self.trip.map_or(self.first_trip, |(trip, _)| trip);
        (few && self.loss >= COPY_LOSS).then(|| (trip / 8).clamp(COPY_AFTER.0, COPY_AFTER.1))
    }
}

impl Sent {
    /// Writes it; on the reliable channel at most once.
    fn write(&mut self, sequence: u64, stalled: bool, out: &mut dyn FnMut(Transport, [&[u8]; 2])) {
        let mut header = [SEGMENT, 0, 0, 0, 0, 0];
        header[1] = if self.segment.last { LAST } else { 0 };
        header[2..].copy_from_slice(&(sequence as u32).to_be_bytes());
        out(Transport::Lane, [&header, &self.segment.bytes]);
        if stalled && !std::mem::replace(&mut self.on_channel, true) {
            out(Transport::Channel, [&header, &self.segment.bytes]);
        }
    }

    /// Returns the time of its next transmission: as a copy, or as lost.
    fn due(&self, pause: Duration, copy: Option<Duration>) -> Option<Instant> {
        if self.acknowledged {
            return None;
        }
        if self.missed {
            return Some(self.at);
        }
        let again = self.at + pause;
        let copy = copy.filter(|_| !self.copied).map(|copy| self.at + copy);
        Some(copy.map_or(again, |copy| copy.min(again)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::simulated::{Network, Path};
    use proptest::prelude::*;

    const CAPACITY: usize = 8 << 20;

    fn collect(end: &mut Reliable, now: Instant) -> Vec<(Transport, Bytes)> {
        let mut sent = Vec::new();
        end.poll(0.0, now, &mut |transport, parts| {
            sent.push((transport, Bytes::from(parts.concat())));
        });
        sent
    }

    #[test]
    fn golden_bytes() {
        let now = Instant::now();
        let (mut a, mut b) = (Reliable::new(CAPACITY, now), Reliable::new(CAPACITY, now));
        a.send(&[7; 1_025], now).unwrap();
        a.send(b"xy", now).unwrap();
        let sent = collect(&mut a, now);
        let bytes: Vec<_> = sent.iter().map(|(_, bytes)| bytes.clone()).collect();
        assert_eq!(bytes[0][..7], *b"\x01\x00\x00\x00\x00\x00\x07");
        assert_eq!(bytes[0].len(), 6 + 1_024);
        assert_eq!(bytes[1], &b"\x01\x01\x00\x00\x00\x01\x07"[..]);
        assert_eq!(bytes[2], &b"\x01\x01\x00\x00\x00\x02xy"[..]);
        b.handle(&bytes[2], Transport::Lane, now).unwrap();
        b.handle(&bytes[0], Transport::Lane, now).unwrap();
        assert_eq!(b.take(), None);
        let mut golden = b"\x02\x00\x00\x00\x01\x80".to_vec();
        golden.resize(21, 0);
        let acknowledgement = (Transport::Lane, Bytes::from(golden));
        let answer = collect(&mut b, now);
        assert_eq!(answer, std::slice::from_ref(&acknowledgement));
        a.handle(&acknowledgement.1, Transport::Lane, now).unwrap();
        assert_eq!((a.first, a.under_way.len(), a.bytes), (1, 2, 3));
        b.handle(&bytes[1], Transport::Lane, now).unwrap();
        assert_eq!(b.take().unwrap(), &[7; 1_025][..]);
        assert_eq!(b.take().unwrap(), &b"xy"[..]);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let now = Instant::now();
        let mut a = Reliable::new(CAPACITY, now);
        let mut ahead = vec![ACKNOWLEDGEMENT, 0, 0, 0, 1];
        ahead.resize(21, 0);
        for message in [
            &[][..],
            &[SEGMENT, 0, 0, 0, 0, 0],
            &[SEGMENT; 6 + SEGMENT_SIZE + 1],
            &[ACKNOWLEDGEMENT; 20],
            &[3; 30],
            &ahead,
        ] {
            let message = Bytes::copy_from_slice(message);
            assert!(
                a.handle(&message, Transport::Lane, now).is_err(),
                "{message:?}"
            );
        }
        // a message without an end
        let mut result = Ok(());
        for sequence in 0..=64_u32 {
            let mut segment = vec![SEGMENT, 0];
            segment.extend(sequence.to_be_bytes());
            segment.resize(6 + SEGMENT_SIZE, 9);
            assert!(result.is_ok());
            result = a.handle(&segment.into(), Transport::Lane, now);
        }
        assert!(result.is_err());
    }

    #[test]
    fn what_waits_is_bounded() {
        let now = Instant::now();
        let mut a = Reliable::new(100_000, now);
        assert_eq!(a.send(&[0; 65_537], now), Err(SendError::TooLarge));
        a.send(&[0; 65_536], now).unwrap();
        assert_eq!(a.send(&[0; 65_536], now), Err(SendError::QueueFull));
        // segments far ahead are not kept
        for sequence in (1..100_000_u32).rev() {
            let mut segment = vec![SEGMENT, LAST];
            segment.extend(sequence.to_be_bytes());
            segment.push(1);
            a.handle(&segment.into(), Transport::Lane, now).unwrap();
        }
        assert_eq!(a.early.len() as u64, MAX_EARLY - 1);
    }

    #[test]
    fn messages_of_others_wait_behind_our_own_in_a_small_queue() {
        let now = Instant::now();
        let mut a = Reliable::new(CAPACITY, now);
        let accepted = (0..100).filter(|_| a.send_routed(&[1; 4_096]).is_ok());
        assert_eq!(accepted.count(), ROUTED_QUEUE / 4_096);
        a.send(b"ours", now).unwrap();
        let (_, first) = collect(&mut a, now).swap_remove(0);
        assert_eq!(first, &b"\x01\x01\x00\x00\x00\x00ours"[..]);
        // room for the message that has left the queue
        a.send_routed(&[1; 4_096]).unwrap();
        assert!(a.routed_bytes <= ROUTED_QUEUE && a.bytes < CAPACITY);
    }

    /// Two ends, and a path with loss, delay and reordering.
    struct Pair {
        start: Instant,
        now: Duration,
        ends: [Reliable; 2],
        network: Network<Duration, usize, (usize, Bytes)>,
        sent: u64,
        sent_bytes: u64,
        came: Vec<(Duration, Bytes)>,
    }

    impl Pair {
        /// Makes a pair; `delay` and `jitter` in ms, `loss` per thousand.
        fn new(dice: u64, delay: u64, jitter: u64, loss: u64) -> Self {
            let start = Instant::now();
            let path = Path {
                delay: Duration::from_millis(delay),
                jitter: Duration::from_millis(jitter),
                loss: loss as f64 / 1_000.0,
                duplicates: 0.02,
            };
            Self {
                start,
                now: Duration::ZERO,
                ends: [0, 1].map(|_| Reliable::new(CAPACITY, start)),
                network: Network::new(path, dice),
                sent: 0,
                sent_bytes: 0,
                came: Vec::new(),
            }
        }

        fn at(&self) -> Instant {
            self.start + self.now
        }

        fn flush(&mut self) {
            for end in 0..2 {
                let (now, loss) = (self.at(), self.network.path.loss);
                if !self.ends[end].is_due(now) && !self.ends[end].has_output() {
                    continue;
                }
                let mut sent = Vec::new();
                self.ends[end].poll(loss, now, &mut |transport, parts| {
                    if transport == Transport::Lane {
                        sent.push(Bytes::from(parts.concat()));
                    }
                });
                for message in sent {
                    self.sent += 1;
                    self.sent_bytes += message.len() as u64;
                    let to = 1 - end;
                    self.network.send(end, to, (to, message), self.now);
                }
            }
        }

        /// Runs for `span`, or until nothing is in flight.
        fn run(&mut self, span: Duration) {
            let end = self.now + span;
            loop {
                self.flush();
                let timers = self.ends.iter().filter_map(Reliable::deadline);
                let timers = timers.map(|at| at - self.start);
                let arrival = self.network.next_timeout();
                let Some(next) = timers.chain(arrival).min().filter(|at| *at < end) else {
                    self.now = end;
                    return;
                };
                self.now = self.now.max(next);
                let now = self.at();
                while let Some((to, message)) = self.network.poll(self.now) {
                    self.ends[to]
                        .handle(&message, Transport::Lane, now)
                        .unwrap();
                    while let Some(message) = self.ends[to].take() {
                        assert_eq!(to, 1, "only one end sends");
                        self.came.push((self.now, message));
                    }
                }
            }
        }
    }

    #[test]
    fn all_messages_come_once_and_in_order_and_nothing_is_left() {
        for (dice, loss) in (0..24).zip([0, 10, 50, 200, 400].into_iter().cycle()) {
            let mut pair = Pair::new(dice, 1 + dice * 5 % 60, dice % 30, loss);
            let mut sent = Vec::new();
            for n in 0..300_u32 {
                let size = [1, 40, 200, 1_024, 5_000, 20_000][pair.network.random.index(6)];
                let mut message = n.to_be_bytes().to_vec();
                message.resize(size + 4, n as u8);
                let now = pair.at();
                pair.ends[0].send(&message, now).unwrap();
                sent.push(Bytes::from(message));
                let pause = pair.network.random.below(20);
                pair.run(Duration::from_millis(pause));
            }
            pair.run(Duration::from_secs(120));
            let came: Vec<_> = pair.came.iter().map(|(_, m)| m.clone()).collect();
            assert_eq!(came.len(), sent.len(), "dice {dice}, loss {loss}");
            assert!(came == sent, "dice {dice}, loss {loss}");
            let [a, b] = &pair.ends;
            assert!(a.bytes == 0 && a.under_way.is_empty() && a.queue.is_empty());
            assert!(b.early.is_empty() && b.partial.is_empty());
            assert!(a.deadline().is_none() && !a.has_output());
        }
    }

    /// Latencies of a message of 200 bytes every 200 ms, sorted, and packets sent for each.
    fn latencies(delay: u64, loss: u64) -> (Vec<Duration>, f64) {
        let mut pair = Pair::new(1, delay, 1, loss);
        let mut sent = Vec::new();
        for _ in 0..5_000 {
            let now = pair.at();
            sent.push(pair.now);
            pair.ends[0].send(&[1; 200], now).unwrap();
            pair.run(Duration::from_millis(200));
        }
        pair.run(Duration::from_secs(10));
        let took = pair
            .came
            .iter()
            .zip(&sent)
            .map(|((at, _), sent)| *at - *sent);
        let mut took: Vec<_> = took.collect();
        assert_eq!(took.len(), sent.len());
        took.sort_unstable();
        (took, pair.sent as f64 / 5_000.0)
    }

    #[test]
    fn loss_costs_a_message_round_trips_and_not_seconds() {
        for delay in [1, 10, 50] {
            for loss in [0, 10, 50, 200] {
                let (took, sent) = latencies(delay, loss);
                let (median, p99, worst) = (took[2_500], took[4_950], took[4_999]);
                println!(
                    "{delay} ms, {loss} of 1000 lost: {median:?} {p99:?} {worst:?}, {sent:.1} sent"
                );
                let trip = Duration::from_millis(delay + 2);
                assert!(median <= trip, "{median:?}");
                assert!(p99 <= trip * 5 + Duration::from_millis(20), "{p99:?}");
                assert!(worst <= trip * 20 + Duration::from_millis(100), "{worst:?}");
                assert!(sent <= if loss == 0 { 2.1 } else { 5.5 }, "{sent}");
            }
        }
    }

    #[test]
    fn a_long_burst_is_fast_and_an_outage_costs_little() {
        let mut pair = Pair::new(1, 25, 1, 0);
        let now = pair.at();
        for n in 0..200_u8 {
            pair.ends[0].send(&[n; 10_000], now).unwrap();
        }
        pair.run(Duration::from_secs(2));
        assert_eq!(pair.came.len(), 200, "2 MB in two seconds");
        // an outage of ten seconds
        pair.network.path.loss = 1.0;
        let (now, before) = (pair.at(), pair.sent_bytes);
        for n in 0..200_u8 {
            pair.ends[0].send(&[n; 10_000], now).unwrap();
        }
        pair.run(Duration::from_secs(10));
        let spent = pair.sent_bytes - before;
        assert!(spent < 1_000_000, "{spent} bytes into the void");
        pair.network.path.loss = 0.0;
        pair.run(Duration::from_secs(4));
        assert_eq!(pair.came.len(), 400);
    }

    #[test]
    fn where_the_lane_does_not_get_through_the_channel_does() {
        let start = Instant::now();
        let (mut a, mut b) = (
            Reliable::new(CAPACITY, start),
            Reliable::new(CAPACITY, start),
        );
        let (mut now, mut came, mut channel) = (start, 0, 0);
        for n in 0..100 {
            a.send(&[1; 2_000], now).unwrap();
            for _ in 0..100 {
                now += Duration::from_millis(1);
                if a.is_due(now) || a.has_output() {
                    for (transport, message) in collect(&mut a, now) {
                        if transport == Transport::Channel {
                            channel += 1;
                            b.handle(&message, transport, now).unwrap();
                        }
                    }
                }
                for (transport, message) in collect(&mut b, now) {
                    if transport == Transport::Channel {
                        a.handle(&message, transport, now).unwrap();
                    }
                }
                while b.take().is_some() {
                    came += 1;
                }
            }
            // a second of tries, then at once
            assert!(n < 15 || came == n + 1, "{came} of {}", n + 1);
        }
        assert_eq!(channel, 200, "each segment once");
        // and the lane again once it answers
        a.send(&[1; 10], now).unwrap();
        for (transport, message) in collect(&mut a, now) {
            assert!(b.handle(&message, transport, now).is_ok());
        }
        for (transport, message) in collect(&mut b, now) {
            a.handle(&message, transport, now).unwrap();
        }
        assert!(!a.stalled && a.bytes == 0);
    }

    proptest! {
        #[test]
        fn arbitrary_messages_do_not_panic(messages in prop::collection::vec(
            (0_u8..4, prop::collection::vec(any::<u8>(), 0..40)), 0..60)) {
            let now = Instant::now();
            let mut a = Reliable::new(CAPACITY, now);
            a.send(&[1; 5_000], now).unwrap();
            for (kind, mut body) in messages {
                if kind > 0 {
                    body.insert(0, kind);
                }
                if kind == ACKNOWLEDGEMENT {
                    body.resize(21, 0);
                }
                let _ = a.handle(&body.into(), Transport::Lane, now);
                collect(&mut a, now);
                while a.take().is_some() {}
                let _ = (a.deadline(), a.has_output());
            }
        }
    }
}
