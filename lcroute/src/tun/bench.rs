//! Work on super-packets for the bench `tun`; not part of any interface.

use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::ipv6;

use super::coalesce::{Runs, headers};
use super::offload::Offload;

/// A super-packet as read from the kernel, and its datagrams.
#[derive(Debug)]
pub struct Train {
    offload: Offload,
    packet: Vec<u8>,
    datagrams: Vec<Bytes>,
    runs: Runs<()>,
}

impl Train {
    /// Creates one of `count` datagrams with `payload` bytes each; `None` of none.
    #[must_use]
    pub fn new(count: usize, payload: u16) -> Option<Self> {
        let from = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
        let to = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, 2);
        let data = vec![0x5a; payload.into()];
        let same = vec![Bytes::from(ipv6::udp_packet(from, to, (5001, 1), &data)); count];
        let (headers, shape) = headers(&same)?;
        let mut packet = headers.to_vec();
        for datagram in &same {
            packet.extend_from_slice(&datagram[headers.len()..]);
        }
        let mut train = Self {
            offload: shape.offload(payload),
            packet,
            datagrams: Vec::new(),
            runs: Runs::default(),
        };
        train.datagrams = train.split();
        Some(train)
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
        let mut write = |(), run: &[Bytes]| {
            writes += usize::from(headers(run).is_some());
        };
        for datagram in &self.datagrams {
            self.runs.push((), datagram.clone(), &mut write);
        }
        self.runs.flush(&mut write);
        writes
    }
}
