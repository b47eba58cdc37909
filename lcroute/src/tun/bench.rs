//! Work on super-packets for `benches/tun.rs`; not part of any interface.

use bytes::Bytes;

use super::coalesce::{Runs, headers, headers_len};
use super::offload::Offload;

/// A super-packet as read from the kernel, and its datagrams.
#[derive(Debug)]
pub struct Train {
    offload: Offload,
    packet: Vec<u8>,
    datagrams: Vec<Bytes>,
    runs: Runs,
}

impl Train {
    /// Creates one of `count` datagrams with `payload` bytes each.
    #[must_use]
    pub fn new(count: usize, payload: u16) -> Self {
        let mut first = vec![0x60, 0, 0, 0, 0, 0, 17, 1];
        first.resize(24, 0xfd);
        let headers_len = headers_len(&first);
        first.resize(headers_len, 0xff);
        first.resize(headers_len + usize::from(payload), 0x5a);
        let same = vec![Bytes::from(first); count];
        let mut packet = headers(&same).to_vec();
        for datagram in &same {
            packet.extend_from_slice(&datagram[headers_len..]);
        }
        let mut train = Self {
            offload: Offload::of_datagrams(headers_len, payload),
            packet,
            datagrams: Vec::new(),
            runs: Runs::default(),
        };
        train.datagrams = train.split();
        train
    }

    /// Splits the super-packet as after a read from `lc0`.
    pub fn split(&mut self) -> Vec<Bytes> {
        let mut datagrams = Vec::with_capacity(64);
        let mut packet = self.packet.clone();
        // It is well formed: no datagram is skipped.
        let _ = self.offload.unpack(&mut packet, &mut |parts: [&[u8]; 2]| {
            datagrams.push(Bytes::from(parts.concat()));
        });
        datagrams
    }

    /// Coalesces the datagrams as before a write to `lc0`; returns the number of writes.
    pub fn coalesce(&mut self) -> usize {
        let mut writes = 0;
        let mut write = |run: &[Bytes]| {
            writes += usize::from(headers(run)[6] == 17);
        };
        for datagram in &self.datagrams {
            self.runs.push(datagram.clone(), &mut write);
        }
        self.runs.flush(&mut write);
        writes
    }
}
