//! Sealing of packets with unique nonces, and packing of entries.

use librecast::id::derive;
use zeroize::Zeroizing;

use crate::entry::Entry;
use crate::packet::{Packet, ROOM, Seal};

/// Seals packets. Nonces are derived from a secret seed and a count: unpredictable and unique.
#[derive(Debug)]
pub(crate) struct Sealer {
    pub(crate) seal: Seal,
    seed: Zeroizing<[u8; 32]>,
    count: u64,
}

impl Sealer {
    pub(crate) fn new(seal: Seal, seed: &[u8; 32]) -> Self {
        Self {
            seal,
            seed: Zeroizing::new(derive("librecast 2026 log nonces", &[seed])),
            count: 0,
        }
    }

    pub(crate) fn seal(&mut self, packet: &Packet) -> Option<Vec<u8>> {
        self.count += 1;
        let count = self.count.to_be_bytes();
        let nonce = derive("librecast 2026 log nonce", &[&self.seed[..], &count]);
        self.seal.seal(packet, nonce.first_chunk()?)
    }
}

/// Entries of one packet, as many as fit.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    entries: Vec<Entry>,
    bytes: usize,
}

impl Packing {
    /// Adds the entry if it fits; returns whether it did.
    pub(crate) fn add(&mut self, entry: &Entry) -> bool {
        let fits = self.bytes + entry.size() <= ROOM;
        if fits {
            self.bytes += entry.size();
            self.entries.push(entry.clone());
        }
        fits
    }

    /// None if it has no entry.
    pub(crate) fn finish(self) -> Option<Packet> {
        (!self.entries.is_empty()).then_some(Packet::Entries(self.entries))
    }
}
