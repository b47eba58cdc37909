//! Links of a rate, with a queue in front.

use std::time::Duration;

use lcsync::packet::WIRE_SIZE;

/// Sends what waits in a queue, and has no room for more than that.
#[derive(Clone, Copy)]
pub struct Link {
    packet: Duration,
    queue: Duration,
    free: Duration,
}

impl Link {
    /// `rate` in bits per second, `queue` in bytes.
    pub fn new(rate: u64, queue: u64) -> Self {
        let takes = |bytes: u64| Duration::from_nanos(bytes * 8 * 1_000_000_000 / rate);
        Self {
            packet: takes(WIRE_SIZE),
            queue: takes(queue),
            free: Duration::ZERO,
        }
    }

    pub fn has_room(&self, time: Duration) -> bool {
        self.free <= time + self.queue
    }

    /// When a packet that comes now is through.
    pub fn pass(&mut self, time: Duration) -> Duration {
        self.free = self.free.max(time) + self.packet;
        self.free
    }
}
