//! Cuts of a large file into blocks, as [`gear`](crate::gear) has them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::block::{BlockRef, MAX_BLOCK};
use crate::gear::next_length;

/// Bytes read at once.
const BUFFER: usize = 8 * MAX_BLOCK;

/// A block of zeroes, as in sparse files.
static ZEROES: LazyLock<BlockRef> = LazyLock::new(|| BlockRef::of(&[0; MAX_BLOCK]));

/// A whole block of zeroes.
#[must_use]
pub fn zeroes() -> BlockRef {
    *ZEROES
}

/// Cuts a file from some offset on, block by block.
#[derive(Debug)]
pub struct Cutter<'a> {
    file: &'a File,
    size: u64,
    at: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer in the file.
    buffered: u64,
    /// Offset up to which the file is known to have no hole.
    data_until: u64,
}

impl<'a> Cutter<'a> {
    /// Takes the first `size` bytes of `file` as the whole of it.
    #[must_use]
    pub fn new(file: &'a File, size: u64) -> Self {
        Self {
            file,
            size,
            at: 0,
            buffer: Vec::new(),
            buffered: 0,
            data_until: 0,
        }
    }

    /// Offset of the next block.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Continues at `at`, as if a cut were there.
    pub fn seek(&mut self, at: u64) {
        self.at = at;
    }

    /// Returns the next block; `None` at the end. A file that has become shorter is an error.
    pub fn next_block(&mut self) -> io::Result<Option<BlockRef>> {
        let left = self.size.saturating_sub(self.at);
        if left == 0 {
            return Ok(None);
        }
        // in zeroes all hashes are equal, and the last one counts
        if left > MAX_BLOCK as u64 && self.is_hole()? {
            self.at += MAX_BLOCK as u64;
            return Ok(Some(zeroes()));
        }
        let bytes = self.fill(left.min(MAX_BLOCK as u64) as usize)?;
        let length = match bytes.first_chunk() {
            Some(full) if left > MAX_BLOCK as u64 => next_length(full),
            _ => bytes.len(),
        };
        let block = BlockRef::of(&bytes[..length]);
        self.at += length as u64;
        Ok(Some(block))
    }

    /// Returns the next `length` bytes.
    fn fill(&mut self, length: usize) -> io::Result<&[u8]> {
        let start = self.at.wrapping_sub(self.buffered);
        let have = |start: u64| start.saturating_add(length as u64) <= self.buffer.len() as u64;
        if !have(start) {
            let most = (self.size - self.at).min(BUFFER as u64) as usize;
            self.buffer.resize(most, 0);
            self.file.read_exact_at(&mut self.buffer, self.at)?;
            self.buffered = self.at;
        }
        let start = (self.at - self.buffered) as usize;
        Ok(&self.buffer[start..start + length])
    }

    /// Whether the next full block is a hole of the file, if the file system has holes.
    fn is_hole(&mut self) -> io::Result<bool> {
        if self.at < self.data_until {
            return Ok(false);
        }
        let from = i64::try_from(self.at).map_err(|_| Errno::EOVERFLOW)?;
        let data = match lseek(self.file, from, Whence::SeekData) {
            Ok(at) => at.unsigned_abs(),
            // no more data, or a file that has become shorter, which its read will show
            Err(Errno::ENXIO) if self.file.metadata()?.len() >= self.size => self.size,
            Err(_) => self.at,
        };
        if data >= self.at + MAX_BLOCK as u64 {
            return Ok(true);
        }
        let hole = lseek(self.file, data.cast_signed(), Whence::SeekHole);
        self.data_until = hole.map_or(self.size, i64::unsigned_abs);
        Ok(false)
    }
}

/// Bytes above which a file is cut in regions, on several processors.
pub const REGION: u64 = 64 << 20;

/// A block of a file and where it begins.
pub type At = (u64, BlockRef);

/// Cuts the region from `from`, a multiple of [`REGION`]; its last block may end beyond it.
pub fn cut_region(file: &File, size: u64, from: u64) -> io::Result<Vec<At>> {
    let mut cutter = Cutter::new(file, size);
    cutter.seek(from);
    let mut blocks = Vec::new();
    while cutter.at() < size.min(from.saturating_add(REGION)) {
        let at = cutter.at();
        blocks.extend(cutter.next_block()?.map(|block| (at, block)));
    }
    Ok(blocks)
}

/// Joins regions to the cuts of one run through the file. From the end of each, it cuts on into the
/// next, until a cut is one of that region: after a few blocks.
pub fn join_regions(file: &File, size: u64, regions: &[Vec<At>]) -> io::Result<Vec<BlockRef>> {
    let mut cutter = Cutter::new(file, size);
    let mut blocks = Vec::new();
    while cutter.at() < size {
        let region = usize::try_from(cutter.at() / REGION).unwrap_or(usize::MAX);
        let known = regions.get(region).map_or(&[][..], |r| r);
        match known.binary_search_by_key(&cutter.at(), |(at, _)| *at) {
            Ok(from) => {
                for (at, block) in &known[from..] {
                    blocks.push(*block);
                    cutter.seek(at + u64::from(block.length));
                }
            }
            Err(_) => blocks.extend(cutter.next_block()?),
        }
    }
    Ok(blocks)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::gear::{GEAR, MIN_BLOCK, SPAN};
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::io::Write;

    /// Bytes that do not repeat.
    pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new()
            .update(&seed.to_be_bytes())
            .finalize_xof()
            .fill(&mut out);
        out
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// Cuts as the head of `gear` describes it, one candidate after the other.
    fn model(mut bytes: &[u8]) -> Vec<BlockRef> {
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let hash = |at: usize| {
                bytes[at - SPAN..at].iter().fold(0_u64, |h, b| {
                    h.wrapping_mul(2).wrapping_add(GEAR[usize::from(*b)])
                })
            };
            let length = if bytes.len() <= MAX_BLOCK {
                bytes.len()
            } else {
                (MIN_BLOCK..=MAX_BLOCK).max_by_key(|at| hash(*at)).unwrap()
            };
            blocks.push(BlockRef::of(&bytes[..length]));
            bytes = &bytes[length..];
        }
        blocks
    }

    pub(crate) fn cut(bytes: &[u8]) -> Vec<BlockRef> {
        let file = file(bytes);
        let mut cutter = Cutter::new(&file, bytes.len() as u64);
        std::iter::from_fn(|| cutter.next_block().unwrap()).collect()
    }

    #[test]
    fn cuts_are_frozen() {
        let lengths: Vec<u32> = cut(&noise(1, 1 << 20)).iter().map(|b| b.length).collect();
        assert_eq!(
            lengths,
            [184_276, 152_345, 180_631, 203_235, 232_781, 95_308]
        );
    }

    #[test]
    fn holes_are_cut_as_the_zeroes_that_they_are() {
        let sparse = tempfile::tempfile().unwrap();
        let size = 5 << 20;
        sparse.set_len(size).unwrap();
        sparse.write_all_at(&noise(2, 700_000), 1_300_000).unwrap();
        sparse.write_all_at(b"end", size - 900_000).unwrap();
        let mut bytes = vec![0; size as usize];
        sparse.read_exact_at(&mut bytes, 0).unwrap();
        let mut cutter = Cutter::new(&sparse, size);
        let blocks: Vec<_> = std::iter::from_fn(|| cutter.next_block().unwrap()).collect();
        assert_eq!(blocks, cut(&bytes));
    }

    #[test]
    fn a_file_that_has_become_shorter_is_an_error() {
        for shorter in [0, 1_000_000, 2_000_000] {
            let file = file(&noise(3, 3_000_000));
            file.set_len(shorter).unwrap();
            let mut cutter = Cutter::new(&file, 3_000_000);
            assert!((0..100).any(|_| cutter.next_block().is_err()), "{shorter}");
        }
    }

    #[test]
    fn regions_join_to_what_one_run_gives() {
        let file = tempfile::tempfile().unwrap();
        let size = 2 * REGION + 12_345;
        // noise up to a hole across the border of two regions, then repeated bytes
        file.write_all_at(&noise(4, 60 << 20), 0).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&noise(5, 20 << 20), 70 << 20).unwrap();
        file.write_all_at(&[7; 30 << 20], 90 << 20).unwrap();
        let mut cutter = Cutter::new(&file, size);
        let one_run: Vec<_> = std::iter::from_fn(|| cutter.next_block().unwrap()).collect();
        let regions: Vec<_> = (0..3)
            .map(|n| cut_region(&file, size, n * REGION).unwrap())
            .collect();
        assert!(join_regions(&file, size, &regions).unwrap() == one_run);
    }

    /// Noise, runs of one byte, and repeated bytes.
    fn contents() -> impl Strategy<Value = Vec<u8>> {
        let part =
            (any::<u64>(), 1..400_000_usize, 0..3u8).prop_map(|(seed, length, kind)| match kind {
                0 => noise(seed, length),
                1 => vec![seed as u8; length],
                _ => noise(seed, 1 + seed as usize % 100)
                    .into_iter()
                    .cycle()
                    .take(length)
                    .collect(),
            });
        proptest::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn any_content_is_covered_once_in_blocks_of_allowed_lengths(bytes in contents()) {
            let blocks = cut(&bytes);
            let mut at = 0;
            for (n, block) in blocks.iter().enumerate() {
                let length = block.length as usize;
                prop_assert!(length <= MAX_BLOCK && (length >= MIN_BLOCK || n + 1 == blocks.len()));
                prop_assert_eq!(*block, BlockRef::of(&bytes[at..at + length]));
                at += length;
            }
            prop_assert_eq!(at, bytes.len());
        }

        #[test]
        fn it_is_cut_as_described(bytes in contents()) {
            prop_assert_eq!(cut(&bytes), model(&bytes));
        }

        #[test]
        fn after_an_insertion_the_same_blocks_follow(seed in any::<u64>(), inserted in 1..300_000_usize) {
            let old = noise(seed, 8 << 20);
            let new = [&noise(!seed, inserted)[..], &old].concat();
            let known: HashSet<BlockRef> = cut(&old).into_iter().collect();
            let fresh: u64 = cut(&new).iter().filter(|b| !known.contains(b)).map(|b| u64::from(b.length)).sum();
            prop_assert!(fresh < (inserted + (5 << 20)) as u64, "{}", fresh);
        }
    }
}
