//! Packets in flight: what was sent and is not known to have arrived or to be lost.

use librecast::time::Instant;
use std::collections::VecDeque;

use super::round::Usage;
use crate::media::feedback::micros;

/// Most packets in flight. Chosen: bounds the memory of a link, 8 bytes a packet.
const MAX_PACKETS: usize = 65_000;
/// Reports asked for in a window, where no packets get lost. Chosen.
const REPORTS_PER_WINDOW: f64 = 8.0;
/// How the floor of loss raises that number: so many times the floor more. Chosen: reports get lost, too.
const REPORTS_BY_LOSS: f64 = 4.0;

/// A packet in flight.
#[derive(Debug, Clone, Copy)]
struct Sent {
    /// When, in microseconds of the sender's clock, modulo 2^32.
    at: u32,
    bytes: u16,
}

/// What is in flight, and what the sender of it waits for.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The sender's clock counts from here.
    began: Instant,
    /// Packets from index `first` on; the next one sent has index `next`.
    packets: VecDeque<Sent>,
    first: u64,
    next: u64,
    bytes: u64,
    /// Bytes since the last packet that asked for a report.
    unmarked: u64,
    /// A packet had to wait for the window since the last report.
    blocked: bool,
    /// When the last report came, or what is in flight began.
    progress: Instant,
}

impl InFlight {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            packets: VecDeque::new(),
            first: 0,
            next: 0,
            bytes: 0,
            unmarked: 0,
            blocked: false,
            progress: now,
        }
    }

    /// Bytes in flight.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Index of the packet that goes out next.
    pub(crate) fn next_index(&self) -> u64 {
        self.next
    }

    /// When the last report came, or what is in flight began.
    pub(crate) fn progress(&self) -> Instant {
        self.progress
    }

    /// Whether `pending` more bytes fit into a window of `window` bytes.
    pub(crate) fn fits(&self, pending: usize, window: f64) -> bool {
        ((self.bytes + pending as u64) as f64) < window && self.packets.len() < MAX_PACKETS
    }

    /// A packet had to wait for the window.
    pub(crate) fn block(&mut self) {
        self.blocked = true;
    }

    /// A probe of the path goes out: it fills nothing and may get lost.
    pub(crate) fn push_probe(&mut self, index: u64, now: Instant) {
        if self.packets.is_empty() {
            self.first = index;
            self.progress = now;
        }
        self.push(index, 0, now);
    }

    /// A packet goes out; indices count up by one.
    pub(crate) fn push_packet(&mut self, index: u64, bytes: u16, now: Instant) {
        if self.bytes == 0 {
            // probes, if any
            self.packets.clear();
            self.first = index;
            self.progress = now;
        }
        self.push(index, bytes, now);
    }

    fn push(&mut self, index: u64, bytes: u16, now: Instant) {
        let at = self.clock(now);
        self.packets.push_back(Sent { at, bytes });
        self.next = index + 1;
        self.bytes += u64::from(bytes);
    }

    /// Whether the packet that goes out next, of about `bytes`, should ask for a report: several times in a window, so
    /// that a short one does not wait for the receiver's timer.
    pub(crate) fn asks_for_report(&mut self, bytes: usize, floor: f64, window: f64) -> bool {
        self.unmarked += bytes as u64;
        let reports = REPORTS_PER_WINDOW;
        let asks = self.unmarked as f64 * reports * (1.0 + REPORTS_BY_LOSS * floor) >= window;
        if asks {
            self.unmarked = 0;
        }
        asks
    }

    /// The sender's clock, in microseconds modulo 2^32.
    pub(crate) fn clock(&self, now: Instant) -> u32 {
        micros(now, self.began)
    }

    /// When a packet was sent that is still in flight.
    pub(crate) fn sent_at(&self, index: u64) -> Option<u32> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.packets.get(at).map(|sent| sent.at)
    }

    /// A report tells of packets up to `highest`: takes them away. Returns how a window of `window` bytes was used.
    pub(crate) fn take(&mut self, highest: u64, window: f64, now: Instant) -> Usage {
        self.progress = now;
        let before = self.bytes;
        while self.first <= highest
            && let Some(sent) = self.packets.pop_front()
        {
            self.bytes -= u64::from(sent.bytes);
            self.first += 1;
        }
        let blocked = std::mem::take(&mut self.blocked);
        Usage {
            in_flight: before as f64,
            passed: (before - self.bytes) as f64,
            limited: blocked || before as f64 * 2.0 >= window,
            blocked,
        }
    }

    /// Counts all that is in flight as lost.
    pub(crate) fn clear(&mut self, now: Instant) {
        self.packets.clear();
        self.bytes = 0;
        self.progress = now;
    }
}
