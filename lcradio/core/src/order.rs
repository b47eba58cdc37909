//! Packets in the order of their numbers, for a recording: waits for late ones, and reports gaps.

use librecast::time::{Duration, Instant};
use std::collections::BTreeMap;

use crate::packet::SoundPacket;

/// Time to wait for a missing packet: repairs and the copy have arrived by then.
pub const WAIT: Duration = Duration::from_secs(1);
/// Most packets that wait for one before them: 5 s of 20-ms packets.
const MAX_WAITING: usize = 256;

/// The next piece of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The packet after the last one.
    Packet(SoundPacket),
    /// A gap in the sound.
    Gap {
        /// Lost packets; 0 if the caster paused.
        packets: u64,
        /// Its length, in samples at 48 kHz.
        samples: u64,
    },
}

/// A buffer that orders packets, 256 at most.
#[derive(Debug, Default)]
pub struct Order {
    waiting: BTreeMap<(u32, u64), SoundPacket>,
    /// Session, number and timestamp without a gap.
    next: Option<(u32, u64, u64)>,
    last_arrival: Option<Instant>,
}

impl Order {
    /// Takes a packet; false if it is too late.
    pub fn push(&mut self, packet: SoundPacket) -> bool {
        let at = (packet.session, packet.index);
        if self
            .next
            .is_some_and(|(session, index, _)| at < (session, index))
        {
            return false;
        }
        self.waiting.insert(at, packet);
        true
    }

    /// Returns when [`poll`](Self::poll) has a piece at the latest, without further packets.
    pub fn next_timeout(&self) -> Option<Instant> {
        let (_, first) = self.waiting.first_key_value()?;
        Some(first.arrival + WAIT)
    }

    /// Returns the next piece, if it is known now.
    pub fn poll(&mut self, now: Instant) -> Option<Piece> {
        let (&(session, index), first) = self.waiting.first_key_value()?;
        let waited = now.saturating_duration_since(first.arrival) >= WAIT;
        let timestamp = first.timestamp;
        match self.next {
            Some((current, next, next_timestamp)) if current == session => {
                let is_next = index == next;
                if !is_next && !waited && self.waiting.len() < MAX_WAITING {
                    return None;
                }
                let samples = timestamp.saturating_sub(next_timestamp);
                if !is_next || samples > 0 {
                    self.next = Some((session, index, timestamp));
                    let packets = index - next;
                    return Some(Piece::Gap { packets, samples });
                }
            }
            // another session: only this host's clock shows the length of the silence
            Some(_) => {
                if !waited && self.waiting.len() < MAX_WAITING {
                    return None;
                }
                self.next = Some((session, index, timestamp));
                let silence = self.last_arrival.map_or(Duration::ZERO, |last| {
                    first.arrival.saturating_duration_since(last)
                });
                let samples = silence.as_micros() as u64 * 48 / 1_000;
                return Some(Piece::Gap {
                    packets: 0,
                    samples,
                });
            }
            None if !waited && self.waiting.len() < MAX_WAITING => return None,
            None => {}
        }
        let (_, packet) = self.waiting.pop_first()?;
        self.next = Some((session, index + 1, timestamp + u64::from(packet.samples)));
        self.last_arrival = Some(packet.arrival);
        Some(Piece::Packet(packet))
    }

    /// Returns the remaining pieces at the end, without waiting.
    pub fn finish(&mut self, now: Instant) -> Option<Piece> {
        self.poll(now + WAIT)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time needs a beginning")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(session: u32, index: u64, arrival: Instant) -> SoundPacket {
        SoundPacket {
            caster: 0,
            session,
            index,
            timestamp: 5_000 + index * 960,
            samples: 960,
            payload: vec![index as u8],
            arrival,
        }
    }

    fn numbers(order: &mut Order, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| order.poll(now))
            .map(|piece| match piece {
                Piece::Packet(packet) => packet.index,
                Piece::Gap { packets, samples } => {
                    assert_eq!(samples, packets * 960);
                    1_000 + packets
                }
            })
            .collect()
    }

    #[test]
    fn packets_come_in_order_and_what_never_came_is_named() {
        let now = Instant::now();
        let mut order = Order::default();
        for index in [1, 0, 2, 3, 6, 8] {
            assert!(order.push(packet(0, index, now)));
        }
        assert_eq!(
            numbers(&mut order, now),
            [] as [u64; 0],
            "an earlier one may come"
        );
        let later = now + WAIT;
        assert_eq!(order.next_timeout(), Some(later));
        assert!(order.push(packet(0, 5, later)));
        // 4 is missing: 5 waits for it from its own arrival on
        assert_eq!(numbers(&mut order, later), [0, 1, 2, 3]);
        let end = later + WAIT;
        assert_eq!(numbers(&mut order, end), [1_001, 5, 6, 1_001, 8]);
        assert!(!order.push(packet(0, 7, end)), "its turn has passed");
        assert!(order.push(packet(0, 9, end)));
        assert_eq!(numbers(&mut order, end), [9]);
    }

    #[test]
    fn a_pause_of_the_caster_is_a_gap_without_packets() {
        let now = Instant::now();
        let mut order = Order::default();
        order.push(packet(0, 0, now));
        let paused = SoundPacket {
            timestamp: 5_000 + 960 + 48_000,
            ..packet(0, 1, now + Duration::from_secs(1))
        };
        order.push(paused.clone());
        let later = now + 2 * WAIT;
        assert_eq!(order.poll(later), Some(Piece::Packet(packet(0, 0, now))));
        let gap = Piece::Gap {
            packets: 0,
            samples: 48_000,
        };
        assert_eq!(order.poll(later), Some(gap));
        assert_eq!(order.poll(later), Some(Piece::Packet(paused)));
    }

    #[test]
    fn another_session_follows_after_the_time_without_packets() {
        let now = Instant::now();
        let mut order = Order::default();
        order.push(packet(0, 7, now));
        let restart = now + Duration::from_secs(3);
        order.push(packet(1, 0, restart));
        assert!(matches!(order.poll(restart), Some(Piece::Packet(p)) if p.session == 0));
        let gap = Piece::Gap {
            packets: 0,
            samples: 3 * 48_000,
        };
        assert_eq!(order.finish(restart), Some(gap));
        assert!(matches!(order.finish(restart), Some(Piece::Packet(p)) if p.session == 1));
        assert!(!order.push(packet(0, 8, restart)), "of the session before");
    }

    proptest! {
        #[test]
        fn what_comes_in_any_order_comes_out_once_and_in_order(mut indexes in prop::collection::vec(0_u64..300, 1..400)) {
            let now = Instant::now();
            let mut order = Order::default();
            for index in &indexes {
                order.push(packet(0, *index, now));
            }
            let mut written = Vec::new();
            let mut end = 0;
            while let Some(piece) = order.finish(now) {
                match piece {
                    Piece::Packet(packet) => {
                        written.push(packet.index);
                        end = packet.timestamp + 960;
                    }
                    Piece::Gap { samples, .. } => end += samples,
                }
            }
            indexes.sort_unstable();
            indexes.dedup();
            prop_assert_eq!(end, 5_000 + 960 * (indexes.last().unwrap() + 1));
            prop_assert_eq!(written, indexes);
        }
    }
}
