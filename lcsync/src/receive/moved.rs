//! Blocks at other places of DEST: behind inserted bytes, or in a file of another name.
//!
//! Files at DEST are cut by the share's rules, and the blocks are looked up among the missing ones.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::block::{BlockHash, BlockRef, MAX_BLOCK};
use crate::cut::Cutter;
use crate::listing::Path;
use crate::place::{Found, Place};

/// Most names looked at below DEST.
const MAX_NAMES: usize = 1 << 20;
/// Most bytes read for each missing one: a disk is only by a factor faster than a network.
const BYTES_PER_MISSING: u64 = 8;

/// A file at DEST that may contain missing blocks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// The lower, the likelier.
    pub rank: u8,
    /// Below DEST.
    pub path: Path,
    /// Length in bytes.
    pub size: u64,
}

/// Places of found blocks.
#[derive(Debug, Default)]
pub struct Moved {
    paths: Vec<Path>,
    at: HashMap<BlockHash, (usize, u64)>,
}

impl Moved {
    /// Searches these files for the missing blocks, the likeliest first.
    pub fn find(
        mut candidates: Vec<Candidate>,
        mut missing: HashSet<BlockRef>,
        place: &mut Place,
    ) -> Self {
        let bytes: u64 = missing.iter().map(|b| u64::from(b.length)).sum();
        let mut left = bytes.saturating_mul(BYTES_PER_MISSING);
        let mut moved = Self::default();
        candidates.sort_unstable();
        for candidate in candidates {
            if missing.is_empty() || candidate.size > left {
                continue;
            }
            left -= candidate.size;
            // an unreadable file has no blocks
            if let Ok(file) = place.open_file(&candidate.path) {
                let _ = moved.look_into(&file, candidate, &mut missing);
            }
        }
        moved
    }

    fn look_into(
        &mut self,
        file: &File,
        candidate: Candidate,
        missing: &mut HashSet<BlockRef>,
    ) -> io::Result<()> {
        let number = self.paths.len();
        self.paths.push(candidate.path);
        let mut cutter = Cutter::new(file, candidate.size);
        loop {
            let at = cutter.at();
            let Some(block) = cutter.next_block()? else {
                return Ok(());
            };
            if missing.remove(&block) {
                self.at.insert(block.hash, (number, at));
            }
        }
    }

    /// Whether a block was found.
    #[must_use]
    pub fn has(&self, block: BlockHash) -> bool {
        self.at.contains_key(&block)
    }

    /// Reads a found block without verifying it. `open` keeps the last file.
    pub fn read(
        &self,
        block: BlockRef,
        place: &mut Place,
        open: &mut Option<(usize, File)>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let (number, offset) = *self.at.get(&block.hash).ok_or(io::ErrorKind::NotFound)?;
        let file = match open.take() {
            Some((last, file)) if last == number => file,
            _ => place.open_file(&self.paths[number])?,
        };
        out.resize(block.length as usize, 0);
        open.insert((number, file)).1.read_exact_at(out, offset)
    }
}

/// Returns the files below DEST that are larger than a block, except `known` ones. `sizes` are
/// those of incomplete files: a file of equal size may be the old name of one.
pub fn other_files(
    place: &mut Place,
    known: &HashSet<&[u8]>,
    sizes: &HashSet<u64>,
) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut folders = vec![Vec::new()];
    let mut names = 0;
    while let Some(folder) = folders.pop() {
        for name in place.names(&folder).unwrap_or_default() {
            names += 1;
            if names > MAX_NAMES {
                return found;
            }
            let path = if folder.is_empty() {
                name
            } else {
                [&folder[..], b"/", &name].concat()
            };
            match place.look(&path) {
                Ok(Some(Found::Folder)) => folders.push(path),
                Ok(Some(Found::File(size)))
                    if size > MAX_BLOCK as u64 && !known.contains(&path[..]) =>
                {
                    let rank = if sizes.contains(&size) { 1 } else { 2 };
                    found.push(Candidate { rank, path, size });
                }
                _ => {}
            }
        }
    }
    found
}
