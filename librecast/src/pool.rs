//! Buffers that are split into packets, and reused once the packets are gone.
//!
//! A packet is a part of a shared buffer: no allocation per packet, and no copy on its way. Reused
//! buffers stay in the processor's caches, where fresh ones would cost page faults.

use std::collections::VecDeque;
use std::fmt;

use bytes::BytesMut;

/// The full buffers of one maker of packets; the buffer in use is elsewhere.
pub struct Pool {
    /// Full buffers, oldest first; some of their packets may still exist.
    full: VecDeque<BytesMut>,
    size: usize,
    most: usize,
}

impl Pool {
    /// Makes a pool of up to `most` buffers of `size` bytes; allocates none before it is needed.
    pub fn new(size: usize, most: usize) -> Self {
        Self {
            full: VecDeque::new(),
            size,
            most,
        }
    }

    /// Makes room for `length` bytes in an empty `buffer`: from its rest, from its freed packets,
    /// or from another buffer. Fill it and `split` the filled part off.
    pub fn make_room(&mut self, buffer: &mut BytesMut, length: usize) {
        debug_assert!(buffer.is_empty(), "what was filled is split off");
        if buffer.try_reclaim(length) {
            return;
        }
        let last = std::mem::replace(buffer, self.next(length));
        self.full.push_back(last);
    }

    /// Returns the oldest buffer if all its packets are gone, else a new one.
    fn next(&mut self, length: usize) -> BytesMut {
        if let Some(mut oldest) = self.full.pop_front() {
            if oldest.try_reclaim(length) {
                return oldest;
            }
            if self.full.len() + 1 < self.most {
                self.full.push_front(oldest);
            }
        }
        BytesMut::with_capacity(self.size.max(length))
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("full", &self.full.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;

    use super::*;

    fn packet(pool: &mut Pool, buffer: &mut BytesMut, byte: u8) -> Bytes {
        pool.make_room(buffer, 100);
        assert!(buffer.capacity() >= 100);
        buffer.resize(100, byte);
        buffer.split().freeze()
    }

    #[test]
    fn buffers_are_used_again_once_their_packets_are_gone() {
        let (mut pool, mut buffer) = (Pool::new(1_000, 4), BytesMut::new());
        let mut places = HashSet::new();
        for round in 0..100 {
            // three buffers' worth at a time
            let mut next = |n| packet(&mut pool, &mut buffer, n);
            let packets: Vec<_> = (0..30).map(&mut next).collect();
            for (n, packet) in packets.iter().enumerate() {
                assert_eq!(packet[..], [n as u8; 100]);
                let new = places.insert(packet.as_ptr());
                assert!(!new || round < 5, "memory of its own in round {round}");
            }
        }
    }

    #[test]
    fn a_packet_that_stays_keeps_its_bytes_and_costs_its_buffer_at_most() {
        let (mut pool, mut buffer) = (Pool::new(1_000, 4), BytesMut::new());
        let kept = packet(&mut pool, &mut buffer, 77);
        for n in 0..=200 {
            drop(packet(&mut pool, &mut buffer, n));
            assert!(pool.full.len() <= 4);
        }
        assert_eq!(kept[..], [77; 100]);
    }

    #[test]
    fn a_large_one_gets_room_as_well() {
        let (mut pool, mut buffer) = (Pool::new(1_000, 2), BytesMut::new());
        pool.make_room(&mut buffer, 70_000);
        assert!(buffer.capacity() >= 70_000);
        pool.make_room(&mut buffer, 10);
        assert!(buffer.capacity() >= 10);
    }
}
