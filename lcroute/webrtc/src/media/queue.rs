//! Messages that wait for the window: a fair queue per flow, short and fresh (FQ-CoDel, RFC 8290).
//!
//! ```text
//! push --> flow by origin, source, group --was idle--> new --turn ends--> old --empty--> idle
//! pop: new before old, a quantum of bytes each; CoDel and the time bound drop from the head
//! ```
//!
//! A flow that sends less than its share enters the list of new flows and goes first. A flood in
//! one group thus leaves the latency of other groups unchanged. No message waits longer than the
//! bound: dropping late messages helps newer ones most.

use librecast::time::{Duration, Instant};
use std::collections::VecDeque;
use std::hash::Hasher as _;

use super::codel::{Codel, Limits};

/// Slots of flows. Two flows in a slot share its turn. Chosen: FQ-CoDel has 1,024 (RFC 8290 5.2.2).
const FLOWS: usize = 256;
/// Slots for a flow to choose from; it shares one only if all are taken. Chosen: RFC 8290 has one.
const WAYS: usize = 8;
/// Bytes of a flow's turn.
const QUANTUM: usize = 1_500;
/// Bytes that may wait at any rate of the link. Chosen.
const MIN_LIMIT_BYTES: usize = 64 * 1024;
/// Bound of waiting bytes at the highest rates. Chosen.
const MAX_LIMIT_BYTES: usize = 4 << 20;
/// Cost of a message beside its bytes, in bytes.
const OVERHEAD: usize = 64;
/// Bound of buffers kept for later messages. Chosen.
const SPARE_BUFFERS: usize = 64;
/// Bound of a kept buffer, in bytes: a full packet.
const MAX_SPARE_BYTES: usize = 2_048;
/// Messages for which an idle flow keeps room. Chosen.
const IDLE_ROOM: usize = 16;
/// Bytes that may wait at a link of an unknown rate. Chosen: two packets.
const LEAST_WAITING: usize = 2 * QUANTUM;
/// Time without a departure after which a queue is its peer's alone. Chosen: a few times as long as a
/// message waits.
const STANDS: Duration = Duration::from_millis(100);
/// Least delay of a wake-up that is this process's fault. Chosen: twice the pacer's tick.
const STALL: Duration = Duration::from_millis(2);
/// Bytes of a message with its origin, which hosts of a LAN share, and its addresses
/// (docs/protocol.md).
const ORIGIN: std::ops::Range<usize> = 12..20;
const ADDRESSES: std::ops::Range<usize> = 32 + 8..32 + 40;
/// Bytes with source and destination of an IPv4 packet, if the data header announces one.
const ADDRESSES_IPV4: std::ops::Range<usize> = 32 + 12..32 + 20;
/// First byte of such a data header.
const HEADER_OF_IPV4: u8 = 0x14;

#[derive(Debug)]
pub(crate) struct FairQueue {
    seed: u64,
    bound: Duration,
    limits: Limits,
    flows: Vec<Flow>,
    /// Flows in the order of their turns: those that were idle, and the rest.
    new: VecDeque<usize>,
    old: VecDeque<usize>,
    bytes: usize,
    /// When a message left last, or came into the empty queue.
    moved: Option<Instant>,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Flow {
    /// Hash of origin, source and group of its first message, while listed.
    key: u64,
    messages: VecDeque<Message>,
    bytes: usize,
    /// Rest of its turn in bytes, negative after an excess.
    credit: isize,
    /// Whether one of the lists has it.
    listed: bool,
    codel: Codel,
}

#[derive(Debug)]
struct Message {
    since: Instant,
    bytes: Vec<u8>,
}

/// Messages dropped at the head: expired, from a standing queue, and above the bound of bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) expired: u64,
    pub(crate) standing: u64,
    pub(crate) overflow: u64,
}

impl FairQueue {
    pub(crate) fn new(seed: u64, bound: Duration) -> Self {
        Self {
            seed,
            bound,
            limits: Limits::within(bound),
            flows: Vec::new(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            bytes: 0,
            moved: None,
            spare: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns the bytes that wait and may leave in time over a link of this rate, in bytes a second;
    /// 0: nothing leaves.
    pub(crate) fn waiting(&self, rate: f64, now: Instant) -> usize {
        let stands = |moved: Instant| now.saturating_duration_since(moved) > STANDS;
        let in_time = (rate * self.bound.as_secs_f64()) as usize;
        match self.moved {
            Some(moved) if !stands(moved) => self.bytes.min(in_time.max(LEAST_WAITING)),
            _ => 0,
        }
    }

    /// Queues a message; `rate` is the link's, in bytes a second.
    pub(crate) fn push(
        &mut self,
        parts: [&[u8]; 2],
        rate: f64,
        now: Instant,
        dropped: &mut Dropped,
    ) {
        if self.flows.is_empty() {
            self.flows.resize_with(FLOWS, Flow::default);
        }
        let most =
            ((rate * self.bound.as_secs_f64()) as usize).clamp(MIN_LIMIT_BYTES, MAX_LIMIT_BYTES);
        let key = self.key_of(parts);
        let at = self.place_of(key);
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(parts[0]);
        bytes.extend_from_slice(parts[1]);
        let flow = &mut self.flows[at];
        if !flow.listed {
            (flow.listed, flow.key) = (true, key);
            flow.credit = QUANTUM as isize;
            self.new.push_back(at);
        }
        if self.bytes == 0 {
            self.moved = Some(now);
        }
        flow.bytes += bytes.len() + OVERHEAD;
        self.bytes += bytes.len() + OVERHEAD;
        flow.messages.push_back(Message { since: now, bytes });
        self.drop_late(at, now, dropped);
        while self.bytes > most
            && let Some(longest) = self.longest()
        {
            // the flow that fills the queue loses a message
            self.discard_head(longest);
            dropped.overflow += 1;
        }
    }

    /// Moves the next message into `message`, and keeps its old buffer; returns false if none.
    pub(crate) fn pop(
        &mut self,
        message: &mut Vec<u8>,
        now: Instant,
        dropped: &mut Dropped,
    ) -> bool {
        loop {
            let is_new = !self.new.is_empty();
            let list = if is_new { &mut self.new } else { &mut self.old };
            let Some(at) = list.pop_front() else {
                return false;
            };
            if self.flows[at].credit <= 0 {
                self.flows[at].credit += QUANTUM as isize;
                self.old.push_back(at);
                continue;
            }
            self.drop_late(at, now, dropped);
            self.drop_standing(at, now, dropped);
            let Some(next) = self.take_head(at) else {
                if is_new {
                    // otherwise a flow that comes and goes would keep the old ones waiting
                    self.old.push_back(at);
                } else {
                    self.flows[at].retire();
                }
                continue;
            };
            self.flows[at].credit -= next.len() as isize;
            let list = if is_new { &mut self.new } else { &mut self.old };
            list.push_front(at);
            self.keep(std::mem::replace(message, next));
            self.moved = Some(now);
            return true;
        }
    }

    /// Deducts `late` from all waits: this process slept, and the link is not slow.
    pub(crate) fn forgive(&mut self, late: Duration, now: Instant) {
        if late < STALL || self.is_empty() {
            return;
        }
        for message in self.flows.iter_mut().flat_map(|flow| &mut flow.messages) {
            message.since = (message.since + late).min(now);
        }
    }

    /// Returns the flow with most bytes.
    fn longest(&self) -> Option<usize> {
        let listed = self.new.iter().chain(&self.old).copied();
        listed.max_by_key(|at| self.flows[*at].bytes)
    }

    fn drop_late(&mut self, at: usize, now: Instant, dropped: &mut Dropped) {
        while let Some(head) = self.flows[at].messages.front()
            && now.saturating_duration_since(head.since) > self.bound
        {
            self.discard_head(at);
            dropped.expired += 1;
        }
    }

    fn drop_standing(&mut self, at: usize, now: Instant, dropped: &mut Dropped) {
        loop {
            let flow = &mut self.flows[at];
            let Some(head) = flow.messages.front() else {
                return;
            };
            let waited = now.saturating_duration_since(head.since);
            let alone = flow.bytes <= QUANTUM;
            if !flow.codel.drops(&self.limits, waited, alone, now) {
                return;
            }
            self.discard_head(at);
            dropped.standing += 1;
        }
    }

    fn discard_head(&mut self, at: usize) {
        if let Some(bytes) = self.take_head(at) {
            self.keep(bytes);
        }
    }

    fn take_head(&mut self, at: usize) -> Option<Vec<u8>> {
        let flow = &mut self.flows[at];
        let Message { bytes, .. } = flow.messages.pop_front()?;
        flow.bytes -= bytes.len() + OVERHEAD;
        self.bytes -= bytes.len() + OVERHEAD;
        Some(bytes)
    }

    /// Keeps a buffer for later messages.
    fn keep(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS && bytes.capacity() <= MAX_SPARE_BYTES {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// Returns the flow's slot, or an idle one, or one of another flow.
    fn place_of(&self, key: u64) -> usize {
        // remainders are less than 256
        let first = (key % (FLOWS / WAYS) as u64) as usize * WAYS;
        let ways = &self.flows[first..first + WAYS];
        let own = ways.iter().position(|flow| flow.listed && flow.key == key);
        let way = own.or_else(|| ways.iter().position(|flow| !flow.listed));
        first + way.unwrap_or((key >> 32) as usize % WAYS)
    }

    fn key_of(&self, parts: [&[u8]; 2]) -> u64 {
        let mut head = [0; ADDRESSES.end];
        let (first, second) = head.split_at_mut(parts[0].len().min(ADDRESSES.end));
        first.copy_from_slice(&parts[0][..first.len()]);
        let rest = second.len().min(parts[1].len());
        second[..rest].copy_from_slice(&parts[1][..rest]);
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(&head[ORIGIN]);
        hasher.write(match head[0] {
            HEADER_OF_IPV4 => &head[ADDRESSES_IPV4],
            _ => &head[ADDRESSES],
        });
        hasher.finish()
    }
}

impl Flow {
    /// Makes it idle, and frees excess room.
    fn retire(&mut self) {
        self.listed = false;
        self.messages.shrink_to(IDLE_ROOM);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(group: u8, size: usize) -> Vec<u8> {
        let mut message = vec![0; size.max(ADDRESSES.end)];
        message[ADDRESSES.start + 16] = 0xff;
        message[ADDRESSES.end - 1] = group;
        message
    }

    #[test]
    fn flows_of_ipv4_are_told_apart_by_addresses_and_not_by_what_follows() {
        let queue = FairQueue::new(1, Duration::from_millis(20));
        let key = |at: usize, kind: u8| {
            let mut message = vec![0; ADDRESSES.end];
            message[0] = kind;
            message[at] = 7;
            queue.key_of([&message, &[]])
        };
        let same = |at, kind| key(at, kind) == key(1, kind);
        for at in ADDRESSES_IPV4 {
            assert!(!same(at, HEADER_OF_IPV4) && !same(at, 0x16), "{at}");
        }
        // identification and checksum; ports
        for at in [32 + 4, 32 + 10, 32 + 20, 32 + 24] {
            assert!(same(at, HEADER_OF_IPV4), "{at}");
        }
    }

    fn group(message: &[u8]) -> u8 {
        message[ADDRESSES.end - 1]
    }

    struct Bench {
        queue: FairQueue,
        now: Instant,
        dropped: Dropped,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                queue: FairQueue::new(1, Duration::from_millis(20)),
                now: Instant::now(),
                dropped: Dropped::default(),
            }
        }

        fn push(&mut self, message: &[u8], rate: f64) {
            let parts = message.split_at(message.len() / 3);
            let parts = [parts.0, parts.1];
            self.queue.push(parts, rate, self.now, &mut self.dropped);
        }

        fn pop(&mut self) -> Option<Vec<u8>> {
            let mut message = Vec::new();
            let found = self.queue.pop(&mut message, self.now, &mut self.dropped);
            found.then_some(message)
        }

        fn wait(&mut self, micros: u64) {
            self.now += Duration::from_micros(micros);
        }
    }

    #[test]
    fn a_flood_leaves_others_their_turns() {
        let mut b = Bench::new();
        for _ in 0..1_000 {
            b.push(&message(1, 1_200), 0.0);
        }
        assert!(b.dropped.overflow > 900, "the flood pays for itself");
        let before = b.dropped;
        for _ in 0..4 {
            b.push(&message(2, 100), 0.0);
        }
        let next: Vec<_> = (0..6).filter_map(|_| b.pop()).collect();
        let mine = next.iter().filter(|m| group(m) == 2).count();
        assert_eq!(mine, 4, "within the first six");
        assert_eq!(b.dropped.expired, before.expired);
    }

    #[test]
    fn a_sparse_flow_goes_first_whenever_it_comes() {
        let mut b = Bench::new();
        for n in 0..2_000 {
            for flood in 1..4 {
                b.push(&message(flood, 1_200), 1e6);
            }
            if n % 10 == 0 {
                b.push(&message(9, 200), 1e6);
            }
            let waits = n % 10 == 0;
            // the current flow continues to the end of its turn
            let served = [b.pop().unwrap(), b.pop().unwrap()];
            assert!(
                n == 0 || !waits || served.iter().any(|m| group(m) == 9),
                "{n}"
            );
            b.wait(2_000);
        }
    }

    #[test]
    fn flows_rarely_meet() {
        let mut b = Bench::new();
        for n in 0..100 {
            b.push(&message(n, 100), 1e9);
        }
        let taken = b.queue.flows.iter().filter(|flow| flow.listed).count();
        assert!(taken >= 98, "{taken}");
    }

    #[test]
    fn nobody_can_stay_new() {
        let mut b = Bench::new();
        for _ in 0..20 {
            b.push(&message(1, 1_200), 1e6);
        }
        let mut served = [0; 3];
        for _ in 0..300 {
            // always one message, and the next as soon as it is gone
            b.push(&message(2, 1_400), 1e6);
            b.push(&message(1, 1_200), 1e6);
            served[usize::from(group(&b.pop().unwrap()))] += 1;
        }
        assert!(served[1] > 100 && served[2] > 100, "{served:?}");
    }

    #[test]
    fn flows_share_by_bytes() {
        let mut b = Bench::new();
        for _ in 0..40 {
            b.push(&message(1, 1_200), 1e9);
            for _ in 0..4 {
                b.push(&message(2, 300), 1e9);
            }
        }
        let mut bytes = [0; 3];
        for _ in 0..100 {
            let message = b.pop().unwrap();
            bytes[usize::from(group(&message))] += message.len();
        }
        assert!(bytes[1].abs_diff(bytes[2]) <= 3_000, "{bytes:?}");
    }

    #[test]
    fn what_nobody_looked_at_in_time_is_not_late() {
        let mut b = Bench::new();
        b.push(&message(1, 100), 1e6);
        b.wait(15_000);
        b.push(&message(2, 100), 1e6);
        b.wait(30_000);
        b.queue.forgive(Duration::from_millis(30), b.now);
        // the first has waited 15 ms for the link, the second not at all
        b.wait(6_000);
        assert_eq!(group(&b.pop().unwrap()), 2);
        assert_eq!((b.pop(), b.dropped.expired), (None, 1));
    }

    #[test]
    fn what_is_late_is_dropped_from_the_head() {
        let mut b = Bench::new();
        for n in 0..10 {
            b.push(&[n; 100], 1e9);
            b.wait(4_000);
        }
        let kept: Vec<_> = std::iter::from_fn(|| b.pop()).collect();
        assert_eq!(
            kept.iter().map(|m| m[0]).collect::<Vec<_>>(),
            [5, 6, 7, 8, 9]
        );
        let late = Dropped {
            expired: 5,
            ..Dropped::default()
        };
        assert_eq!(b.dropped, late);
        assert!(b.queue.is_empty() && b.queue.old.is_empty());
    }

    #[test]
    fn a_slow_or_silent_link_holds_few_bytes() {
        let mut b = Bench::new();
        for _ in 0..30 {
            b.push(&message(1, 1_200), 1e6);
        }
        let all = b.queue.bytes;
        assert_eq!(b.queue.waiting(1e7, b.now), all);
        assert_eq!(b.queue.waiting(1e6, b.now), 20_000);
        assert_eq!(b.queue.waiting(1e3, b.now), LEAST_WAITING);
        b.wait(90_000);
        b.push(&message(2, 1_200), 1e6);
        assert!(b.pop().is_some());
        b.wait(90_000);
        b.push(&message(2, 1_200), 1e6);
        assert!(b.queue.waiting(1e7, b.now) > 0);
        b.wait(110_000);
        assert_eq!(b.queue.waiting(1e7, b.now), 0);
    }

    #[test]
    fn a_queue_that_stands_below_the_bound_is_shortened() {
        let mut b = Bench::new();
        for _ in 0..10 {
            b.push(&message(1, 1_200), 1e9);
        }
        // one arrives per departure: each would wait for 10 ms
        let mut waiting = 10;
        for _ in 0..1_000 {
            b.push(&message(1, 1_200), 1e9);
            b.wait(1_000);
            assert!(b.pop().is_some());
            let left = b.queue.flows.iter().map(|flow| flow.messages.len());
            waiting = left.sum();
        }
        assert!(b.dropped.standing > 3 && waiting < 7, "{waiting}");
        assert_eq!((b.dropped.expired, b.dropped.overflow), (0, 0));
    }

    #[test]
    fn the_bound_holds_for_any_sizes() {
        let mut b = Bench::new();
        for n in 0..5_000_u32 {
            let size = (n as usize * 7_919) % 9_000;
            b.push(&message(n as u8, size), 1e6);
            assert!(b.queue.bytes <= MIN_LIMIT_BYTES);
        }
        while b.pop().is_some() {}
        let q = &b.queue;
        assert!(q.is_empty() && q.new.is_empty() && q.old.is_empty());
        assert!(q.flows.iter().all(|flow| flow.bytes == 0 && !flow.listed));
        assert!(q.spare.len() <= SPARE_BUFFERS);
    }
}
