//! The groups of a share: the block of each channel, in little memory.
//!
//! Sorted arrays instead of a hash map: a million groups take tens of megabytes. Channels are
//! hashes, so their first bits give the place, up to a short binary search.

use librecast::channel::{ChannelId, block_channel};

use crate::block::{BlockHash, BlockRef};
use crate::carrying::{self, CarrierNumber};
use crate::stretch::{STRETCH, Stretch};

/// Channels of each block: layer 0 at the normal rate, 1 for slow receivers, 2 for repair.
pub const LAYERS: u8 = 3;
/// Number of the channel of a block at a carrier, after those of the layers. It is of layer 0.
const CARRIED: u8 = LAYERS;
/// Channels of each block, that one included.
const NUMBERS: u32 = LAYERS as u32 + 1;

/// Content of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A block.
    Block {
        /// Its hash and length.
        block: BlockRef,
        /// 0: at the normal rate, 1: slowly, 2: repair symbols.
        layer: u8,
    },
    /// Consecutive blocks, at a higher rate.
    Stretch(Stretch),
}

/// The block of a symbol of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// The block and its place.
    pub located: Located,
    /// Number of its first symbol on that channel.
    pub first: u32,
    /// First number after this block.
    pub end: u32,
}

/// A block and its place, a number that only the caller interprets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Located {
    hash: BlockHash,
    /// Number of the place, for the caller.
    pub place: u64,
    length: u32,
}

impl Located {
    /// `block` is at `place`.
    #[must_use]
    pub fn new(block: BlockRef, place: u64) -> Self {
        Self {
            hash: block.hash,
            place,
            length: block.length,
        }
    }

    /// The block.
    pub fn block(&self) -> BlockRef {
        BlockRef {
            hash: self.hash,
            length: self.length,
        }
    }
}

/// All channels of a share but the root channel.
#[derive(Debug, Default)]
pub struct Groups {
    /// In order.
    channels: Vec<ChannelId>,
    /// For each channel: number of the block, times [`NUMBERS`], plus the layer.
    numbers: Vec<u32>,
    /// Each block once.
    blocks: Vec<Located>,
    /// Start of the channels with each value of the first bits, and the end of the last.
    starts: Vec<u32>,
    /// Bits of a channel after the first ones.
    low_bits: u32,
    /// The content's leaves in order, as numbers of blocks; empty without stretches.
    leaves: Vec<u32>,
    /// Channels of stretches in order, and the first leaf of each.
    stretches: Vec<(ChannelId, u32)>,
}

/// Mean number of channels with equal first bits.
const BUCKET: usize = 8;

impl Groups {
    /// Makes the groups of these blocks under the share's key, and of stretches of `leaves`, which
    /// are among them. With a carrier, those of its own as well. `None` if they are too many to be
    /// numbered. Of equal blocks, the lowest place counts.
    #[must_use]
    pub fn new(
        key: &[u8],
        mut blocks: Vec<Located>,
        leaves: &[BlockRef],
        carrier: Option<CarrierNumber>,
    ) -> Option<Self> {
        blocks.sort_unstable();
        blocks.dedup_by_key(|b| b.hash);
        blocks.shrink_to_fit();
        u32::try_from(blocks.len()).ok()?.checked_mul(NUMBERS)?;
        let mut pairs: Vec<(ChannelId, u32)> = (0..)
            .zip(&blocks)
            .flat_map(|(n, located)| {
                let hash = located.hash;
                let layers =
                    (0..LAYERS).map(move |layer| (block_channel(key, &hash.0, layer), layer));
                let own = carrier.map(|number| (carrying::channel(key, &hash, number), CARRIED));
                let all = layers.chain(own);
                all.map(move |(channel, layer)| (channel, n * NUMBERS + u32::from(layer)))
            })
            .collect();
        pairs.sort_unstable();
        pairs.dedup_by_key(|(channel, _)| *channel);
        let buckets = (pairs.len() / BUCKET).next_power_of_two().max(2);
        let low_bits = ChannelId::BITS - buckets.ilog2();
        let start = |n| pairs.partition_point(|(channel, _)| channel >> low_bits < n) as u32;
        Some(Self {
            starts: (0..=buckets as u64).map(start).collect(),
            low_bits,
            channels: pairs.iter().map(|(channel, _)| *channel).collect(),
            numbers: pairs.iter().map(|(_, number)| *number).collect(),
            leaves: numbers_of(leaves, &blocks)?,
            stretches: channels_of_stretches(key, leaves),
            blocks,
        })
    }

    /// Returns the content of a channel.
    #[must_use]
    pub fn find(&self, channel: ChannelId) -> Option<Found> {
        if let Some((located, layer)) = self.locate(channel) {
            let block = located.block();
            return Some(Found::Block { block, layer });
        }
        let blocks: Vec<BlockRef> = self.leaves_of(channel)?.map(|l| l.block()).collect();
        Stretch::of(&blocks).map(Found::Stretch)
    }

    /// Returns the block of symbol `number` of a channel.
    pub fn carried(&self, channel: ChannelId, number: u32) -> Option<Carried> {
        if let Some((located, _)) = self.locate(channel) {
            let (first, end) = (0, u32::MAX);
            return Some(Carried {
                located,
                first,
                end,
            });
        }
        let Found::Stretch(stretch) = self.find(channel)? else {
            return None;
        };
        let span = stretch.span_at(number)?;
        let block = stretch.blocks()[span.index];
        Some(Carried {
            located: self.leaves_of(channel)?.find(|l| l.block() == block)?,
            first: span.first,
            end: span.first + span.symbols,
        })
    }

    /// Whether some blocks are also sent in stretches.
    pub fn has_stretches(&self) -> bool {
        !self.stretches.is_empty()
    }

    /// Returns the leaves of a stretch.
    fn leaves_of(&self, channel: ChannelId) -> Option<impl Iterator<Item = Located>> {
        let at = self
            .stretches
            .binary_search_by_key(&channel, |(channel, _)| *channel);
        let first = self.stretches[at.ok()?].1 as usize;
        let end = self.leaves.len().min(first + STRETCH);
        let numbers = &self.leaves[first..end];
        Some(numbers.iter().map(|n| self.blocks[*n as usize]))
    }

    /// Returns the block of a channel with its place, and the layer.
    #[must_use]
    pub fn locate(&self, channel: ChannelId) -> Option<(Located, u8)> {
        let bucket = (channel >> self.low_bits) as usize;
        let (start, end) = (*self.starts.get(bucket)?, *self.starts.get(bucket + 1)?);
        let (start, end) = (start as usize, end as usize);
        let at = self.channels[start..end].binary_search(&channel).ok()?;
        let number = self.numbers[start + at];
        let layer = (number % NUMBERS) as u8 % CARRIED;
        Some((self.blocks[(number / NUMBERS) as usize], layer))
    }

    /// All channels, in order.
    pub fn channels(&self) -> &[ChannelId] {
        &self.channels
    }

    /// Number of different blocks.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

/// Returns the index of each leaf in `blocks`, which are in order.
fn numbers_of(leaves: &[BlockRef], blocks: &[Located]) -> Option<Vec<u32>> {
    let number = |leaf: &BlockRef| {
        let at = blocks.binary_search_by_key(&leaf.hash, |b| b.hash).ok()?;
        u32::try_from(at).ok()
    };
    leaves.iter().map(number).collect()
}

fn channels_of_stretches(key: &[u8], leaves: &[BlockRef]) -> Vec<(ChannelId, u32)> {
    let firsts = (0..).step_by(STRETCH);
    let mut all: Vec<(ChannelId, u32)> = leaves
        .chunks(STRETCH)
        .zip(firsts)
        .filter_map(|(chunk, first)| Some((Stretch::of(chunk)?.channel(key), first)))
        .collect();
    all.sort_unstable();
    all.dedup_by_key(|(channel, _)| *channel);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn every_block_is_found_on_its_channels_and_in_its_stretch_and_nothing_else_is(
            seeds in proptest::collection::vec(0..50u8, 0..60), others in proptest::collection::vec(any::<u64>(), 20), key in "[a-z]{0,3}"
        ) {
            let blocks: Vec<Located> = (0..)
                .zip(&seeds)
                .map(|(place, seed)| Located::new(BlockRef::of(&vec![*seed; usize::from(*seed) + 1]), place))
                .collect();
            let leaves: Vec<BlockRef> = blocks.iter().map(Located::block).collect();
            let groups = Groups::new(key.as_bytes(), blocks.clone(), &leaves, None).unwrap();
            let mut model = BTreeMap::new();
            for located in &blocks {
                for layer in 0..LAYERS {
                    let channel = block_channel(key.as_bytes(), &located.block().hash.0, layer);
                    model.entry(channel).or_insert((*located, layer));
                }
            }
            prop_assert_eq!(groups.blocks() * usize::from(LAYERS), model.len());
            prop_assert!(groups.channels().iter().eq(model.keys()));
            for (channel, found) in &model {
                prop_assert_eq!(groups.locate(*channel), Some(*found));
                let (block, layer) = (found.0.block(), found.1);
                prop_assert_eq!(groups.find(*channel), Some(Found::Block { block, layer }));
                prop_assert_eq!(groups.carried(*channel, 7).map(|c| (c.located, c.first)), Some((found.0, 0)));
            }
            for stretch in leaves.chunks(STRETCH).filter_map(Stretch::of) {
                let channel = stretch.channel(key.as_bytes());
                for span in stretch.spans() {
                    let carried = groups.carried(channel, span.first).unwrap();
                    prop_assert_eq!(carried.located.block(), stretch.blocks()[span.index]);
                    prop_assert_eq!((carried.first, carried.end), (span.first, span.first + span.symbols));
                }
                prop_assert_eq!(groups.carried(channel, stretch.symbols()), None);
                prop_assert_eq!(groups.find(channel), Some(Found::Stretch(stretch)));
            }
            for channel in others.into_iter().filter(|c| !model.contains_key(c)) {
                prop_assert_eq!(groups.find(channel), None);
            }
        }
    }
}
