//! Buffers that packets are cut from, and used again once those packets are gone.
//!
//! A packet is a part of a buffer that many share: no allocation for each, and no copy when it changes
//! hands. Buffers of one size also stay in the allocator's hands and in the processor's caches, where
//! fresh ones would cost page faults.

use std::collections::VecDeque;
use std::fmt;

use bytes::BytesMut;

/// The buffers of one place that makes packets.
pub struct Pool {
    /// The one that is being filled.
    current: Option<BytesMut>,
    /// Full ones, oldest first; packets of theirs may still be around.
    full: VecDeque<BytesMut>,
    size: usize,
    most: usize,
}

impl Pool {
    /// Buffers of `size` bytes, of which up to `most` are kept; none is made before it is needed.
    #[must_use]
    pub fn new(size: usize, most: usize) -> Self {
        Self {
            current: None,
            full: VecDeque::new(),
            size,
            most,
        }
    }

    /// An empty buffer with room for `length` bytes. Fill it and `split` off what was filled.
    pub fn room(&mut self, length: usize) -> &mut BytesMut {
        let current = match self.current.take() {
            Some(mut current) => {
                debug_assert!(current.is_empty(), "what was filled is split off");
                current.clear();
                if current.try_reclaim(length) {
                    current
                } else {
                    self.full.push_back(current);
                    self.next(length)
                }
            }
            None => self.next(length),
        };
        self.current.insert(current)
    }

    /// The oldest, if nothing of it is around any more, or a new one.
    fn next(&mut self, length: usize) -> BytesMut {
        if let Some(mut oldest) = self.full.pop_front() {
            if oldest.try_reclaim(length) {
                return oldest;
            }
            if self.full.len() < self.most {
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

    fn packet(pool: &mut Pool, byte: u8) -> Bytes {
        let room = pool.room(100);
        assert!(room.capacity() >= 100);
        room.resize(100, byte);
        room.split().freeze()
    }

    #[test]
    fn buffers_are_used_again_once_their_packets_are_gone() {
        let mut pool = Pool::new(1_000, 4);
        let mut places = HashSet::new();
        for round in 0..100 {
            // three buffers' worth at a time
            let packets: Vec<_> = (0..30).map(|n| packet(&mut pool, n)).collect();
            for (n, packet) in packets.iter().enumerate() {
                assert_eq!(packet[..], [n as u8; 100]);
                let new = places.insert(packet.as_ptr());
                assert!(!new || round < 5, "memory of its own in round {round}");
            }
        }
    }

    #[test]
    fn a_packet_that_stays_keeps_its_bytes_and_no_more_than_its_buffer() {
        let mut pool = Pool::new(1_000, 4);
        let kept = packet(&mut pool, 77);
        for n in 0..=200 {
            drop(packet(&mut pool, n));
            assert!(pool.full.len() <= 4);
        }
        assert_eq!(kept[..], [77; 100]);
    }

    #[test]
    fn a_large_one_gets_room_as_well() {
        let mut pool = Pool::new(1_000, 2);
        assert!(pool.room(70_000).capacity() >= 70_000);
        assert!(pool.room(10).capacity() >= 10);
    }
}
