//! Cuts of a large file into blocks, by content: an insertion changes only the blocks around it.
//!
//! ```text
//!  last cut       MIN_BLOCK                              MAX_BLOCK
//!     |--------------|======== candidates ==================|
//!                             ^ the largest hash of the 64 bytes before it: the next cut
//! ```
//!
//! The hash is a gear hash: `hash = 2 * hash + GEAR[byte]` modulo 2^64, which forgets a byte after
//! 64 more. Of equal hashes, the last one counts. The rest of a file that fits a block is its last
//! block. These rules are part of the format: all sharers of equal bytes must get one root hash.
//! docs/adr/lcsync.md explains why the largest hash is taken.

use std::sync::LazyLock;

use crate::block::MAX_BLOCK;

/// Bytes of the shortest block, except a file's last. Longer blocks need less data beside them; a
/// wider choice finds cuts again sooner.
pub(crate) const MIN_BLOCK: usize = 112 << 10;
/// Bytes that a hash covers.
pub(crate) const SPAN: usize = 64;

pub(crate) static GEAR: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let mut bytes = [0; 256 * 8];
    blake3::Hasher::new_derive_key("lcsync 2026 cuts")
        .finalize_xof()
        .fill(&mut bytes);
    let mut table = [0; 256];
    for (value, bytes) in table.iter_mut().zip(bytes.as_chunks().0) {
        *value = u64::from_be_bytes(*bytes);
    }
    table
});

/// Returns the length of the first block of these bytes; more of the file follows them.
#[must_use]
pub fn next_length(bytes: &[u8; MAX_BLOCK]) -> usize {
    let gear = &*GEAR;
    let step = |hash: u64, byte: &u8| (hash << 1).wrapping_add(gear[usize::from(*byte)]);
    let mut hash = bytes[MIN_BLOCK - SPAN..MIN_BLOCK].iter().fold(0, step);
    let (mut largest, mut length) = (hash, MIN_BLOCK);
    for (n, byte) in bytes[MIN_BLOCK..].iter().enumerate() {
        hash = step(hash, byte);
        if hash >= largest {
            (largest, length) = (hash, MIN_BLOCK + n + 1);
        }
    }
    length
}
