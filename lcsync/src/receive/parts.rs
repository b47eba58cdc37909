//! The blocks of one file, which is written in place or in order instead of under a name.

use crate::block::BlockRef;
use crate::layout::Layout;

/// A file's part of a block: all of it, except for small files that share a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The block.
    pub block: BlockRef,
    /// Offset in the block.
    pub from: usize,
    /// Length in bytes; never 0.
    pub length: usize,
    /// Offset in the file.
    pub at: u64,
}

impl Part {
    /// Whether the block has nothing else.
    pub fn is_whole(&self) -> bool {
        self.length == self.block.length as usize
    }

    /// Takes it from the bytes of its block.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.from..self.from + self.length]
    }
}

/// Returns the parts of the only file of `layout`, in order; `leaves` are the blocks of the whole
/// content stream.
pub fn parts(layout: &Layout, leaves: &[BlockRef]) -> Vec<Part> {
    let mut start = 0;
    let part = |block: &BlockRef| {
        let here = start;
        start += u64::from(block.length);
        let piece = layout.pieces(here, block.length.into()).next()?;
        Some(Part {
            block: *block,
            from: (piece.at - here) as usize,
            length: piece.length,
            at: piece.offset,
        })
    };
    leaves.iter().filter_map(part).collect()
}
