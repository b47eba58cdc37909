//! Blocks: content-addressed pieces of a share.

use std::fmt;

pub use librecast::coding::MAX_BLOCK;

/// BLAKE3 of a block's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct BlockHash(pub [u8; 32]);

impl BlockHash {
    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Parses 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        blake3::Hash::from_hex(text)
            .ok()
            .map(|h| Self(*h.as_bytes()))
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Name of a block of 1 to [`MAX_BLOCK`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockRef {
    /// BLAKE3 of its bytes.
    pub hash: BlockHash,
    /// Its length in bytes.
    pub length: u32,
}

impl BlockRef {
    /// Names `bytes`. Longer blocks than [`MAX_BLOCK`] do not exist.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        debug_assert!(!bytes.is_empty() && bytes.len() <= MAX_BLOCK);
        Self {
            hash: BlockHash::of(bytes),
            length: bytes.len() as u32,
        }
    }
}
