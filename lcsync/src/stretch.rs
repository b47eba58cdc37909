//! Stretches: consecutive blocks on one channel, one after the other, at [`STRETCH`] times its
//! rate.
//!
//! A receiver with a fast enough link joins them instead of their blocks. A burst takes as long as
//! that of one block, for a fraction of groups and reports. They have only source symbols, numbered
//! through all blocks; a receiver that loses some joins the repair channels of these blocks.

use librecast::channel::{ChannelId, block_channel};
use librecast::coding::SYMBOL_SIZE;
use librecast::id::derive;

use crate::block::BlockRef;

/// Leaves of the content in a stretch, and its rate in channels of the normal layer
/// (adr/lcsync.md). 16 blocks of 256 KiB at 240 Mbit/s take 1/7 s, as one block at 15 Mbit/s.
pub const STRETCH: usize = 16;
/// The layer of a block's repair channel: the normal rate, repair symbols only, few at a time.
pub const REPAIR_LAYER: u8 = 2;
/// The layer of stretches.
pub const STRETCH_LAYER: u8 = 3;
/// Entry in a record's list of channels: stretches are sent. A block has it by a chance of 2^-64.
pub const OFFER_CHANNEL: ChannelId = 2;

/// The different blocks of consecutive leaves, in the order of sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    blocks: Vec<BlockRef>,
}

/// The part of a stretch's symbols from one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Index of the block.
    pub index: usize,
    /// Number of its first symbol.
    pub first: u32,
    /// Number of its symbols.
    pub symbols: u32,
}

impl Stretch {
    /// Makes one of at most [`STRETCH`] leaves; `None` if they have less than two different blocks.
    #[must_use]
    pub fn of(leaves: &[BlockRef]) -> Option<Self> {
        debug_assert!(leaves.len() <= STRETCH);
        let mut blocks: Vec<BlockRef> = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            if !blocks.contains(leaf) {
                blocks.push(*leaf);
            }
        }
        (blocks.len() > 1).then_some(Self { blocks })
    }

    /// Returns its channel under the share's key.
    pub fn channel(&self, key: &[u8]) -> ChannelId {
        let hashes: Vec<&[u8]> = self.blocks.iter().map(|b| &b.hash.0[..]).collect();
        block_channel(key, &derive("lcsync 2026 stretch", &hashes), STRETCH_LAYER)
    }

    /// Its blocks.
    pub fn blocks(&self) -> &[BlockRef] {
        &self.blocks
    }

    /// Symbols of all its blocks.
    pub fn symbols(&self) -> u32 {
        self.blocks.iter().map(symbols_of).sum()
    }

    /// Returns the block with the symbol of this number.
    pub fn span_at(&self, number: u32) -> Option<Span> {
        self.spans()
            .find(|span| (span.first..span.first + span.symbols).contains(&number))
    }

    /// Returns the numbers of each block, in order.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let mut first = 0;
        self.blocks.iter().enumerate().map(move |(index, block)| {
            let span = Span {
                index,
                first,
                symbols: symbols_of(block),
            };
            first += span.symbols;
            span
        })
    }
}

/// Source symbols of a block.
#[must_use]
pub fn symbols_of(block: &BlockRef) -> u32 {
    block.length.div_ceil(SYMBOL_SIZE as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_leaves_are_sent_once_and_a_lone_block_is_no_stretch() {
        let [one, two] = [1, 2].map(|n| BlockRef::of(&[n; 2_000]));
        assert_eq!(Stretch::of(&[one, one, one]), None);
        assert_eq!(Stretch::of(&[]), None);
        let stretch = Stretch::of(&[one, two, one, two]).unwrap();
        assert_eq!(stretch.blocks(), &[one, two]);
        assert_eq!(stretch, Stretch::of(&[one, two]).unwrap());
    }

    #[test]
    fn channels_of_stretches_are_frozen() {
        let leaves = [1, 2].map(|n| BlockRef::of(&[n; 1_000]));
        let stretch = Stretch::of(&leaves).unwrap();
        assert_eq!(stretch.channel(b""), 14_930_623_927_756_669_688);
        assert_ne!(stretch.channel(b""), stretch.channel(b"key"));
    }

    proptest! {
        #[test]
        fn every_number_is_of_one_block(lengths in proptest::collection::vec(1..70_000_u32, 2..=STRETCH)) {
            let leaves: Vec<BlockRef> = lengths
                .iter()
                .enumerate()
                .map(|(n, length)| BlockRef { length: *length, ..BlockRef::of(&[n as u8]) })
                .collect();
            let stretch = Stretch::of(&leaves).unwrap();
            let mut next = 0;
            for span in stretch.spans() {
                prop_assert_eq!(span.first, next);
                for number in [span.first, span.first + span.symbols - 1] {
                    prop_assert_eq!(stretch.span_at(number), Some(span));
                }
                next += span.symbols;
            }
            prop_assert_eq!(next, stretch.symbols());
            prop_assert_eq!(stretch.span_at(next), None);
        }
    }
}
