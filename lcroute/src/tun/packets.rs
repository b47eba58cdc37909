//! Packets that were read, in buffers that many share.

use bytes::{Bytes, BytesMut};
use librecast::pool::Pool;

/// The size of a buffer.
const BUFFER: usize = 64 << 10;

/// So many of them hold the packets of a turn.
const BUFFERS: usize = 8;

/// Where packets go that were read.
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
    /// A packet of two parts.
    pub(crate) fn put(&mut self, parts: [&[u8]; 2]) -> Bytes {
        let length = parts[0].len() + parts[1].len();
        self.pool.make_room(&mut self.room, length);
        self.room.extend_from_slice(parts[0]);
        self.room.extend_from_slice(parts[1]);
        self.room.split().freeze()
    }
}
