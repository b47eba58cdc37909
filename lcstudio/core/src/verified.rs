//! Packets whose signatures were verified: a repeated one costs no second check.

use std::collections::VecDeque;

use librecast::id::derive;

/// Packets that are remembered. Chosen: more than a second of a camera or screen, in 8 KiB.
const REMEMBERED: usize = 256;

/// The last packets whose signatures were verified.
#[derive(Debug, Default)]
pub(crate) struct Verified(VecDeque<[u8; 32]>);

impl Verified {
    /// Returns the hash of contents. A signature alone would not do: it does not bind the message.
    pub(crate) fn hash(contents: &[u8]) -> [u8; 32] {
        derive("lcstudio 2026 verified packet", &[contents])
    }

    pub(crate) fn contains(&self, hash: &[u8; 32]) -> bool {
        self.0.contains(hash)
    }

    /// Remembers contents; the earliest ones are forgotten.
    pub(crate) fn remember(&mut self, hash: [u8; 32]) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }
}
