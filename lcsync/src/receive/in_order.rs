//! A shared file on its way to a pipe: its blocks are fetched in a window, and leave in order.

use std::collections::HashMap;

use super::parts::Part;
use crate::block::{BlockHash, BlockRef};
use crate::cut::zeroes;
use crate::stretch::STRETCH;

/// Most blocks that are fetched or wait for earlier ones. Chosen: 64 MiB, 1/2 s at 1 Gbit/s.
const WINDOW: usize = 16 * STRETCH;
/// Blocks by which the window moves. Chosen: whole stretches, so that these can be joined.
const STEP: usize = 4 * STRETCH;

/// The parts of the file, the window, and its blocks.
#[derive(Debug)]
pub struct InOrder {
    parts: Vec<Part>,
    /// The next part to leave.
    next: usize,
    /// The first part behind the window.
    end: usize,
    held: HashMap<BlockHash, Vec<u8>>,
    /// Parts in the window, by block.
    uses: HashMap<BlockHash, usize>,
}

impl InOrder {
    /// Begins at the first part.
    pub fn new(parts: Vec<Part>) -> Self {
        Self {
            parts,
            next: 0,
            end: 0,
            held: HashMap::new(),
            uses: HashMap::new(),
        }
    }

    /// Moves the window if a step fits; returns the blocks to fetch, which may be none.
    pub fn advance(&mut self) -> Vec<BlockRef> {
        let mut blocks = Vec::new();
        while self.end + STEP <= self.next + WINDOW && self.end < self.parts.len() {
            let until = (self.end + STEP).min(self.parts.len());
            for part in &self.parts[self.end..until] {
                let uses = self.uses.entry(part.block.hash).or_default();
                *uses += 1;
                // zeroes are known, and others are held or under way
                if *uses == 1 && part.block != zeroes() {
                    blocks.push(part.block);
                }
            }
            self.end = until;
        }
        blocks
    }

    /// Stores a fetched block.
    pub fn take(&mut self, block: BlockRef, bytes: Vec<u8>) {
        if self.uses.contains_key(&block.hash) {
            self.held.insert(block.hash, bytes);
        }
    }

    /// Returns the next bytes of the file, if they have come.
    pub fn next_bytes(&mut self) -> Option<Vec<u8>> {
        let part = *self.parts.get(self.next).filter(|_| self.next < self.end)?;
        let hash = part.block.hash;
        let zero = part.block == zeroes();
        if !zero && !self.held.contains_key(&hash) {
            return None;
        }
        self.next += 1;
        let uses = self.uses.get_mut(&hash)?;
        *uses -= 1;
        let is_last = *uses == 0;
        if is_last {
            self.uses.remove(&hash);
        }
        if zero {
            return Some(vec![0; part.length]);
        }
        if is_last && part.is_whole() {
            return self.held.remove(&hash);
        }
        let bytes = self.held.get(&hash).map(|held| part.of(held).to_vec());
        if is_last {
            self.held.remove(&hash);
        }
        bytes
    }

    /// Whether all bytes have left.
    pub fn is_done(&self) -> bool {
        self.next == self.parts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MAX_BLOCK;

    /// A file of `count` blocks; the content repeats after `period` of them.
    fn parts(count: usize, period: usize) -> Vec<Part> {
        let bytes = |n: usize| (n % period).to_be_bytes().to_vec();
        let part = |n: usize| Part {
            block: match n % 7 {
                3 => zeroes(),
                _ => BlockRef::of(&bytes(n)),
            },
            from: 0,
            length: if n % 7 == 3 { MAX_BLOCK } else { 8 },
            at: 0,
        };
        (0..count).map(part).collect()
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_order_of_blocks_and_few_are_held() {
        for (count, period) in [(0, 1), (1, 1), (1_000, 1_000_000), (1_000, 3), (700, 300)] {
            let parts = parts(count, period);
            let mut order = InOrder::new(parts.clone());
            let mut out = Vec::new();
            while !order.is_done() {
                let mut blocks = order.advance();
                assert!(blocks.len() <= WINDOW);
                blocks.reverse();
                for block in blocks {
                    let n = parts.iter().position(|p| p.block == block).unwrap();
                    order.take(block, (n % period).to_be_bytes().to_vec());
                    assert!(order.held.len() <= WINDOW);
                }
                while let Some(bytes) = order.next_bytes() {
                    out.push(BlockRef::of(&bytes));
                }
            }
            assert!(out.into_iter().eq(parts.iter().map(|p| p.block)));
            assert!(order.held.is_empty() && order.uses.is_empty());
        }
    }

    #[test]
    fn nothing_is_asked_for_beyond_the_window_while_the_first_block_is_missing() {
        let parts = parts(10_000, 1_000_000);
        let mut order = InOrder::new(parts);
        let asked = order.advance();
        for block in &asked[1..] {
            order.take(*block, vec![0; 8]);
        }
        assert_eq!((order.next_bytes(), order.advance()), (None, Vec::new()));
    }

    #[test]
    fn a_small_file_leaves_without_its_neighbours_in_the_block() {
        let block = BlockRef::of(b"beforewordsafter");
        let part = Part {
            block,
            from: 6,
            length: 5,
            at: 0,
        };
        let mut order = InOrder::new(vec![part]);
        assert_eq!(order.advance(), [block]);
        order.take(block, b"beforewordsafter".to_vec());
        assert_eq!(order.next_bytes().unwrap(), b"words");
        assert!(order.is_done());
    }
}
