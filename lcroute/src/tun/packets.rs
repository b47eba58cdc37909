//! Shared buffers of read packets.

use bytes::{Bytes, BytesMut};
use librecast::pool::Pool;

/// Size of a buffer in bytes.
const BUFFER: usize = 64 << 10;

/// Buffers in the pool: enough for the packets of a turn.
const BUFFERS: usize = 8;

/// The buffers for read packets.
#[derive(Debug)]
pub(crate) struct Packets {
    pool: Pool,
    room: BytesMut,
}

impl Default for Packets {
    fn default() -> Self {
        Self {
            pool: Pool::new(BUFFER, BUFFERS),
            room: BytesMut::new(),
        }
    }
}

impl Packets {
    /// Stores a packet of two parts.
    pub(crate) fn put(&mut self, parts: [&[u8]; 2]) -> Bytes {
        let length = parts[0].len() + parts[1].len();
        self.pool.make_room(&mut self.room, length);
        self.room.extend_from_slice(parts[0]);
        self.room.extend_from_slice(parts[1]);
        self.room.split().freeze()
    }
}
