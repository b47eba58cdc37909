//! Packets in flight: sent, and neither reported nor lost.

use lcroute_lane::micros;
use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

use super::round::Usage;

/// Bound of packets in flight. Chosen: bounds the memory of a link, 8 bytes a packet.
const MAX_PACKETS: usize = 65_000;
/// Reports requested per window without loss. Chosen.
const REPORTS_PER_WINDOW: f64 = 8.0;
/// Factor on the floor of loss for additional reports. Chosen: reports get lost, too.
const REPORTS_BY_LOSS: f64 = 4.0;

/// Window in bytes below which a flow that uses less than half of it requests no reports. Chosen:
/// in longer ones an eighth is several thin packets.
const SHORT_WINDOW: f64 = 16_384.0;
/// Time without a report after which one is requested. Chosen: above the receiver's interval, and
/// early enough that packets in flight do not count as lost.
const REPORT_MISSED: Duration = Duration::from_millis(170);

#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Time in microseconds of the sender's clock, modulo 2^32.
    at: u32,
    bytes: u16,
}

/// Packets in flight, and the state of the window's use.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// Origin of the sender's clock.
    began: Instant,
    /// Packets from index `first` on; the next one sent has index `next`.
    packets: VecDeque<Sent>,
    first: u64,
    next: u64,
    bytes: u64,
    /// Bytes since the last packet that requested a report.
    unmarked: u64,
    /// Whether a packet has waited for the window since the last report.
    blocked: bool,
    /// Time of the last report, or of the first packet in flight.
    progress: Instant,
    /// When a missing report was last requested.
    asked: Instant,
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
            asked: now,
        }
    }

    /// Returns the bytes in flight.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.next
    }

    /// Returns the time of the last report, or of the first packet in flight.
    pub(crate) fn progress(&self) -> Instant {
        self.progress
    }

    /// Whether `pending` more bytes fit into a window of `window` bytes.
    pub(crate) fn fits(&self, pending: usize, window: f64) -> bool {
        ((self.bytes + pending as u64) as f64) < window && self.packets.len() < MAX_PACKETS
    }

    /// Notes that a packet waits for the window.
    pub(crate) fn block(&mut self) {
        self.blocked = true;
    }

    /// Notes a sent path probe: it takes no window and may get lost.
    pub(crate) fn push_probe(&mut self, index: u64, now: Instant) {
        if self.packets.is_empty() {
            self.first = index;
            self.progress = now;
        }
        self.push(index, 0, now);
    }

    /// Notes a sent packet; indices count up by one.
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

    /// Whether the next packet, of about `bytes`, should request a report: several times in a
    /// window, so that a short one does not wait for the receiver's timer.
    pub(crate) fn asks_for_report(&mut self, bytes: usize, floor: f64, window: f64) -> bool {
        self.unmarked += bytes as u64;
        let reports = REPORTS_PER_WINDOW;
        // half of a window is free: nothing waits for it
        let in_flight = (self.bytes + bytes as u64) as f64;
        if window < SHORT_WINDOW && in_flight * 2.0 < window {
            return false;
        }
        let asks = self.unmarked as f64 * reports * (1.0 + REPORTS_BY_LOSS * floor) >= window;
        if asks {
            self.unmarked = 0;
        }
        asks
    }

    /// Whether a report is missing; the next question follows after the same time.
    pub(crate) fn misses_report(&mut self, now: Instant) -> bool {
        let since = self.progress.max(self.asked);
        let misses = self.bytes > 0 && now >= since + REPORT_MISSED;
        if misses {
            self.asked = now;
        }
        misses
    }

    /// Returns the sender's clock, in microseconds modulo 2^32.
    pub(crate) fn clock(&self, now: Instant) -> u32 {
        micros(now, self.began)
    }

    pub(crate) fn sent_at(&self, index: u64) -> Option<u32> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.packets.get(at).map(|sent| sent.at)
    }

    /// Removes reported packets up to `highest`; returns the use of a window of `window` bytes.
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

    pub(crate) fn clear(&mut self, now: Instant) {
        self.packets.clear();
        self.bytes = 0;
        self.progress = now;
    }
}
