//! Sealing of packets with unique nonces, and packing of entries.

use std::collections::VecDeque;

use librecast::id::derive;
use zeroize::Zeroizing;

use crate::entry::Entry;
use crate::packet::{Packet, ROOM, Seal};

/// Last sent packets that the log recognises as its own, as multicast may return them.
const MAX_SENT: usize = 128;

/// Seals packets. Nonces are derived from a secret seed and a count: unpredictable and unique.
#[derive(Debug)]
pub(crate) struct Sealer {
    pub(crate) seal: Seal,
    seed: Zeroizing<[u8; 32]>,
    count: u64,
    /// Hashes of the last sealed packets.
    sent: VecDeque<[u8; 32]>,
}

impl Sealer {
    pub(crate) fn new(seal: Seal, seed: &[u8; 32]) -> Self {
        Self {
            seal,
            seed: Zeroizing::new(derive("librecast 2026 log nonces", &[seed])),
            count: 0,
            sent: VecDeque::new(),
        }
    }

    pub(crate) fn seal(&mut self, packet: &Packet) -> Option<Vec<u8>> {
        self.count += 1;
        let count = self.count.to_be_bytes();
        let nonce = derive("librecast 2026 log nonce", &[&self.seed[..], &count]);
        let bytes = self.seal.seal(packet, nonce.first_chunk()?)?;
        self.sent.push_back(hash(&bytes));
        if self.sent.len() > MAX_SENT {
            self.sent.pop_front();
        }
        Some(bytes)
    }

    /// Whether this member sealed these bytes lately.
    pub(crate) fn has_sealed(&self, bytes: &[u8]) -> bool {
        self.sent.contains(&hash(bytes))
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    derive("librecast 2026 log said", &[bytes])
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
        debug_assert!(
            fits || !self.entries.is_empty(),
            "the longest entry fits into a packet of its own"
        );
        fits
    }

    /// None if it has no entry.
    pub(crate) fn finish(self) -> Option<Packet> {
        (!self.entries.is_empty()).then_some(Packet::Entries(self.entries))
    }
}
