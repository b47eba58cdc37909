//! Wanted blocks in their order, and the stretches that can bring them.

use std::collections::{BTreeMap, HashMap};

use librecast::channel::ChannelId;
use librecast::time::Instant;

use super::collector::Collector;
use super::stretches::{Candidate, Candidates, Joined, whole_stretches};
use crate::block::{BlockHash, BlockRef};
use crate::stretch::Stretch;

/// Most partly received blocks kept after the window shrank.
const MAX_PARKED: usize = 128;

/// A block, and its channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) block: BlockRef,
    pub(super) channel: ChannelId,
    /// Its place in the content; none: it is no content.
    pub(super) position: Option<u32>,
    /// Carriers that did not deliver it.
    pub(super) tries: u8,
}

/// The next block or stretch to join.
pub(super) enum Next {
    Block(u64),
    Stretch(Candidate),
}

/// Blocks to come that are not joined.
#[derive(Debug, Default)]
pub(super) struct WantedBlocks {
    by_order: BTreeMap<u64, Wanted>,
    order_of: HashMap<ChannelId, u64>,
    next_order: u64,
    /// Order from which on blocks are joined, then from the first again, as other receivers do.
    cursor: u64,
    candidates: Candidates,
    /// Symbols of blocks that were left.
    parked: BTreeMap<BlockHash, Collector>,
}

impl WantedBlocks {
    pub(super) fn len(&self) -> usize {
        self.by_order.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_order.is_empty()
    }

    pub(super) fn get(&self, order: u64) -> Option<&Wanted> {
        self.by_order.get(&order)
    }

    /// Returns the order of the block on this channel.
    pub(super) fn order_of(&self, channel: ChannelId) -> Option<u64> {
        self.order_of.get(&channel).copied()
    }

    /// Order of the next new block.
    pub(super) fn next_order(&self) -> u64 {
        self.next_order
    }

    /// Adds a block behind all others.
    pub(super) fn add(&mut self, block: BlockRef, channel: ChannelId, position: Option<u32>) {
        let order = self.next_order;
        let wanted = Wanted {
            block,
            channel,
            position,
            tries: 0,
        };
        self.by_order.insert(order, wanted);
        self.order_of.insert(channel, order);
        self.next_order += 1;
        self.check();
    }

    /// Asserts that only wanted blocks are found by their channels.
    fn check(&self) {
        debug_assert!(
            self.order_of.len() <= self.by_order.len(),
            "a block that was taken has no channel here"
        );
        debug_assert!(
            self.parked.len() <= MAX_PARKED,
            "parked symbols have a bound"
        );
    }

    /// Adds the stretches of a content with these leaves, of which `blocks` were added from `first`
    /// on. `key`: that of the share.
    pub(super) fn add_stretches(
        &mut self,
        first: u64,
        leaves: &[BlockRef],
        blocks: &[BlockRef],
        key: &[u8],
    ) {
        for (at, stretch) in whole_stretches(leaves, blocks) {
            self.candidates.add(Candidate {
                channel: stretch.channel(key),
                first: first + at as u64,
                blocks: stretch.blocks().len() as u64,
            });
        }
    }

    /// Adds a block again, on this channel, as the next one, with its symbols so far.
    pub(super) fn add_again(&mut self, order: u64, wanted: Wanted, collector: Option<Collector>) {
        self.cursor = self.cursor.min(order);
        self.order_of.insert(wanted.channel, order);
        self.by_order.insert(order, wanted);
        if let Some(collector) = collector
            && self.parked.len() < MAX_PARKED
            && collector.received() > 0
        {
            self.parked.insert(wanted.block.hash, collector);
        }
        self.check();
    }

    /// Forgets all blocks; orders go on.
    pub(super) fn clear(&mut self) {
        self.by_order.clear();
        self.order_of.clear();
        self.parked.clear();
        self.candidates = Candidates::default();
    }

    /// Moves all blocks to other channels.
    pub(super) fn set_channels(&mut self, channel_of: impl Fn(BlockRef) -> ChannelId) {
        self.order_of.clear();
        for (order, wanted) in &mut self.by_order {
            wanted.channel = channel_of(wanted.block);
            self.order_of.insert(wanted.channel, *order);
        }
        self.check();
    }

    /// Returns the first blocks, in their order.
    pub(super) fn first(&self) -> impl Iterator<Item = (u64, &Wanted)> {
        self.by_order.iter().map(|(order, wanted)| (*order, wanted))
    }

    /// Wants a block of no carrier any more.
    pub(super) fn take_over(&mut self, order: u64) {
        if let Some(wanted) = self.by_order.get_mut(&order) {
            wanted.tries = u8::MAX;
        }
    }

    /// Takes a block to be joined, with its earlier symbols.
    pub(super) fn take(&mut self, order: u64) -> Option<(Wanted, Option<Collector>)> {
        let wanted = self.by_order.remove(&order)?;
        self.cursor = order + 1;
        self.order_of.remove(&wanted.channel);
        Some((wanted, self.parked.remove(&wanted.block.hash)))
    }

    /// Takes a stretch to be joined, with earlier symbols of its blocks.
    pub(super) fn take_stretch(&mut self, candidate: Candidate, now: Instant) -> Option<Joined> {
        let stretch = self.whole(candidate)?;
        for order in candidate.first..candidate.first + candidate.blocks {
            if let Some(wanted) = self.by_order.remove(&order) {
                self.order_of.remove(&wanted.channel);
            }
        }
        self.cursor = candidate.first + candidate.blocks;
        self.check();
        Some(Joined::new(stretch, candidate.first, &mut self.parked, now))
    }

    /// Returns the next after the last block taken, and after the end the first one.
    pub(super) fn following(&self, stretching: bool) -> Option<Next> {
        let next = self.by_order.range(self.cursor..).next();
        let next = next.or_else(|| self.by_order.first_key_value());
        let order = next.map(|(order, _)| *order)?;
        let stretch = self.stretch_at(order).filter(|_| stretching);
        Some(stretch.map_or(Next::Block(order), Next::Stretch))
    }

    /// Whether no stretch is known.
    pub(super) fn has_no_stretch(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Returns the stretch on this channel, wanted as a whole or not.
    pub(super) fn candidate(&self, channel: ChannelId) -> Option<Candidate> {
        self.candidates.of(channel)
    }

    /// Returns the stretch of this block, if all its blocks are wanted.
    pub(super) fn stretch_at(&self, order: u64) -> Option<Candidate> {
        let candidate = self.candidates.at(order)?;
        self.whole(candidate).map(|_| candidate)
    }

    /// Returns a stretch if all its blocks are wanted.
    pub(super) fn whole(&self, candidate: Candidate) -> Option<Stretch> {
        let orders = candidate.first..candidate.first + candidate.blocks;
        let blocks: Vec<BlockRef> = self.by_order.range(orders).map(|(_, w)| w.block).collect();
        (blocks.len() as u64 == candidate.blocks).then(|| Stretch::of(&blocks))?
    }
}
