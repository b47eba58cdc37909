//! Recently sent packets, for repair.

use librecast::time::{Duration, Instant};
use std::collections::VecDeque;

/// Bound of kept payload bytes: the budget of repair at 1 Gbit/s. From adr/packets.md.
const MAX_BYTES: usize = 3 << 20;
/// Bound of remembered packets. Chosen.
const MAX_PACKETS: usize = 16_384;
/// Time beyond budget and round trip for which packets are remembered.
const LONGER: Duration = Duration::from_millis(20);

/// The packets of one direction by index, and their payloads.
#[derive(Debug)]
pub(crate) struct History {
    /// Time after its first transmission for which a payload is useful.
    budget: Duration,
    /// Packets from index `first` on.
    packets: VecDeque<Packet>,
    first: u64,
    /// Payloads from number `first_payload` on, in order of their first transmission.
    payloads: VecDeque<Payload>,
    first_payload: u64,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    at: Instant,
    /// Number of its payload, if it had one.
    payload: Option<u64>,
}

/// The payload of a packet, and of its resends.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    /// The first packet with it, and its time.
    pub(crate) index: u64,
    pub(crate) at: Instant,
    /// Packets with it whose arrival is unknown.
    under_way: u32,
    delivered: bool,
}

impl History {
    pub(crate) fn new(budget: Duration) -> Self {
        Self {
            budget,
            packets: VecDeque::new(),
            first: 0,
            payloads: VecDeque::new(),
            first_payload: 0,
            bytes: 0,
            spare: Vec::new(),
        }
    }

    /// Drops everything, with its memory.
    pub(crate) fn clear(&mut self) {
        let budget = self.budget;
        *self = Self::new(budget);
    }

    /// Notes the first transmission of a payload, in packet `index`.
    pub(crate) fn sent(&mut self, index: u64, bytes: &[u8], now: Instant) {
        self.forget_payloads(bytes.len(), now);
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        self.bytes += copy.len();
        let number = self.first_payload + self.payloads.len() as u64;
        self.payloads.push_back(Payload {
            bytes: copy,
            index,
            at: now,
            under_way: 0,
            delivered: false,
        });
        self.sent_again(index, Some(number), now);
    }

    /// Notes packet `index` with an earlier payload, or without one.
    pub(crate) fn sent_again(&mut self, index: u64, payload: Option<u64>, now: Instant) {
        if self.packets.is_empty() {
            self.first = index;
        }
        if let Some(payload) = payload.and_then(|number| self.payload_mut(number)) {
            payload.under_way += 1;
        }
        self.packets.push_back(Packet { at: now, payload });
        if self.packets.len() > MAX_PACKETS {
            self.packets.pop_front();
            self.first += 1;
        }
    }

    /// Drops old entries; `rtt` is the path's round trip.
    pub(crate) fn forget(&mut self, rtt: Duration, now: Instant) {
        self.forget_payloads(0, now);
        let kept = self.budget + rtt + LONGER;
        while self.packets.front().is_some_and(|p| p.at + kept < now) {
            self.packets.pop_front();
            self.first += 1;
        }
    }

    fn forget_payloads(&mut self, room: usize, now: Instant) {
        while let Some(oldest) = self.payloads.front()
            && (oldest.at + self.budget < now || self.bytes + room > MAX_BYTES)
        {
            if let Some(payload) = self.payloads.pop_front() {
                self.first_payload += 1;
                self.bytes -= payload.bytes.len();
                self.spare.push(payload.bytes);
            }
        }
    }

    /// Returns the time at which packet `index` was sent.
    pub(crate) fn sent_at(&self, index: u64) -> Option<Instant> {
        self.packet(index).map(|packet| packet.at)
    }

    /// Notes the arrival of packet `index`.
    pub(crate) fn came(&mut self, index: u64) {
        let number = self.packet(index).and_then(|packet| packet.payload);
        if let Some(payload) = number.and_then(|number| self.payload_mut(number)) {
            payload.under_way = payload.under_way.saturating_sub(1);
            payload.delivered = true;
        }
    }

    /// Notes the loss of packet `index`. Returns its payload, unless delivered or still in flight.
    pub(crate) fn lost(&mut self, index: u64) -> Option<u64> {
        let number = self.packet(index)?.payload?;
        let payload = self.payload_mut(number)?;
        payload.under_way = payload.under_way.saturating_sub(1);
        (payload.under_way == 0 && !payload.delivered).then_some(number)
    }

    /// Returns a payload by its number while it is useful.
    pub(crate) fn wanted(&self, number: u64, now: Instant) -> Option<&Payload> {
        let at = usize::try_from(number.checked_sub(self.first_payload)?).ok()?;
        let payload = self.payloads.get(at)?;
        (!payload.delivered && now <= payload.at + self.budget).then_some(payload)
    }

    pub(crate) fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Returns the last `count` payloads, whose indices span at most `span`.
    pub(crate) fn last(&self, count: usize, span: u64) -> impl Iterator<Item = &Payload> + Clone {
        let newest = self.payloads.back().map_or(0, |payload| payload.index);
        let skip = self.payloads.len().saturating_sub(count);
        let last = self.payloads.range(skip..);
        last.skip_while(move |payload| payload.index + span <= newest)
    }

    fn packet(&self, index: u64) -> Option<&Packet> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.packets.get(at)
    }

    fn payload_mut(&mut self, number: u64) -> Option<&mut Payload> {
        let at = usize::try_from(number.checked_sub(self.first_payload)?).ok()?;
        self.payloads.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_millis(25);

    #[test]
    fn a_payload_is_wanted_until_one_of_its_packets_came() {
        let (mut h, now) = (History::new(BUDGET), Instant::now());
        h.sent(7, b"a", now);
        h.sent(8, b"b", now);
        assert_eq!(h.lost(7), Some(0));
        h.sent_again(9, Some(0), now);
        h.sent_again(10, Some(0), now);
        assert_eq!(h.lost(9), None, "another is under way");
        assert_eq!(h.lost(10), Some(0));
        assert_eq!(h.wanted(0, now).unwrap().bytes, b"a");
        assert!(h.wanted(0, now + BUDGET * 2).is_none(), "too late");
        h.came(7);
        assert!(h.wanted(0, now).is_none());
        assert_eq!(h.lost(6), None, "nobody knows it");
    }

    #[test]
    fn it_is_bounded_in_time_and_bytes() {
        let (mut h, start) = (History::new(BUDGET), Instant::now());
        for index in 0..100_000 {
            let now = start + Duration::from_micros(index);
            h.sent(index, &[1; 1_300], now);
            assert!(h.bytes <= MAX_BYTES && h.packets.len() <= MAX_PACKETS);
        }
        assert!(h.spare.len() <= 1, "buffers are used again");
        h.forget(BUDGET, start + Duration::from_secs(1));
        assert_eq!((h.bytes, h.len(), h.packets.len()), (0, 0, 0));
        h.clear();
        assert!(h.spare.is_empty());
    }

    #[test]
    fn the_last_payloads_are_near_each_other() {
        let (mut h, now) = (History::new(BUDGET), Instant::now());
        for index in (0..100).map(|n| n * 3) {
            h.sent(index, b"x", now);
            (1..3).for_each(|n| h.sent_again(index + n, None, now));
        }
        let last = |count, span| h.last(count, span).map(|p| p.index).collect::<Vec<_>>();
        assert_eq!(last(3, 192), [291, 294, 297]);
        assert_eq!(last(128, 10), [288, 291, 294, 297]);
    }
}
