//! Comparison of a file's bytes with those of another, and update to equality.
//!
//! Both files are local, so they are compared and not hashed: docs/adr/lcsync.md.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rustix::fs::{FallocateFlags, fallocate, ioctl_ficlone};

/// Least bytes of a write or a hole: a page of memory, and a block of most file systems.
const PAGE: usize = 4 << 10;
/// Bytes read at once: two buffers of it fit a processor's cache.
pub const PIECE: usize = 128 << 10;
/// Bytes that a thread takes at once.
const REGION: u64 = 4 << 20;
/// Most threads: more make a disk seek.
const MAX_THREADS: usize = 8;

/// Options of writing.
pub struct Writing<'a> {
    /// Zeroes become holes.
    pub sparse: bool,
    /// Called with the number of bytes before each write; may wait.
    pub meter: &'a (dyn Fn(u64) + Sync),
}

/// Whether the first `size` bytes of two files are equal. `report` gets the progress now and then.
pub fn is_same(a: &File, b: &File, size: u64, report: &mut dyn FnMut(u64)) -> io::Result<bool> {
    let differs = AtomicBool::new(false);
    in_regions(size, report, &|from, until| {
        let mut buffers = Buffers::default();
        let mut at = from;
        while at < until && !differs.load(Ordering::Relaxed) {
            let (of_a, of_b) = buffers.take(until - at);
            a.read_exact_at(of_a, at)?;
            if read_up_to(b, of_b, at)? < of_b.len() || of_a != of_b {
                differs.store(true, Ordering::Relaxed);
            }
            at += of_a.len() as u64;
        }
        Ok(())
    })?;
    Ok(!differs.into_inner())
}

/// Makes `to` equal to `from` without writing equal pages; returns the bytes written.
pub fn update(
    from: &File,
    to: &File,
    size: u64,
    how: &Writing<'_>,
    report: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    let there = to.metadata()?.len();
    if there > size {
        to.set_len(size)?;
    }
    let written = AtomicU64::new(0);
    in_regions(size, report, &|start, end| {
        let mut buffers = Buffers::default();
        let mut at = start;
        while at < end {
            let (new, old) = buffers.take(end - at);
            from.read_exact_at(new, at)?;
            let known = if at < there {
                read_up_to(to, old, at)?
            } else {
                0
            };
            let old = &old[..known];
            if new != old {
                for (offset, run) in differing(new, old) {
                    let bytes = write_run(to, run, at + offset, offset < known as u64, how)?;
                    written.fetch_add(bytes, Ordering::Relaxed);
                }
            }
            at += new.len() as u64;
        }
        Ok(())
    })?;
    if there < size {
        // it may end with a hole
        to.set_len(size)?;
    }
    Ok(written.into_inner())
}

/// Fills the empty file `to` from `from`, of at most one piece: faster than the kernel for a few
/// KiB.
pub fn fill_small(from: &File, to: &File, size: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.resize(size as usize, 0);
    from.read_exact_at(buffer, 0)?;
    to.write_all_at(buffer, 0)
}

/// Makes the empty file `to` a clone of `from`, which shares its bytes, if the file system can.
pub fn clone(from: &File, to: &File) -> bool {
    ioctl_ficlone(to, from).is_ok()
}

/// Returns the number of threads that copy.
pub fn threads() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    processors.min(MAX_THREADS)
}

/// Writes, and makes holes of pages of zeroes; `is_old`: the file may have other bytes.
pub fn write_sparse(to: &File, bytes: &[u8], at: u64, is_old: bool) -> io::Result<()> {
    let how = Writing {
        sparse: true,
        meter: &|_| {},
    };
    let mut at = at;
    for piece in bytes.chunks(PIECE) {
        for (offset, run) in differing(piece, &[]) {
            write_run(to, run, at + offset, is_old, &how)?;
        }
        at += piece.len() as u64;
    }
    Ok(())
}

/// Writes pages, or makes a hole of them; returns the bytes written.
fn write_run(to: &File, run: &[u8], at: u64, is_old: bool, how: &Writing<'_>) -> io::Result<u64> {
    if how.sparse && is_zero(run) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // beyond the end is nothing to punch
        if !is_old || fallocate(to, hole, at, run.len() as u64).is_ok() {
            return Ok(0);
        }
    }
    (how.meter)(run.len() as u64);
    to.write_all_at(run, at)?;
    Ok(run.len() as u64)
}

/// Returns runs of pages of `new` that differ from `old`. A run has only zeroes, or no page of
/// them.
fn differing<'a>(new: &'a [u8], old: &'a [u8]) -> impl Iterator<Item = (u64, &'a [u8])> {
    let same = |at: usize, page: &[u8]| old.get(at..at + page.len()) == Some(page);
    let mut at = 0;
    std::iter::from_fn(move || {
        let page = |at: usize| &new[at..new.len().min(at + PAGE)];
        while at < new.len() && same(at, page(at)) {
            at += PAGE;
        }
        if at >= new.len() {
            return None;
        }
        let (from, zero) = (at, is_zero(page(at)));
        while at < new.len() && !same(at, page(at)) && is_zero(page(at)) == zero {
            at += PAGE;
        }
        at = at.min(new.len());
        Some((from as u64, &new[from..at]))
    })
}

pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROES: [u8; PIECE] = [0; PIECE];
    bytes == &ZEROES[..bytes.len()]
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read_at(&mut buffer[have..], at + have as u64) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

/// One piece of each of two files.
#[derive(Default)]
struct Buffers {
    bytes: Vec<u8>,
}

impl Buffers {
    fn take(&mut self, left: u64) -> (&mut [u8], &mut [u8]) {
        let length = left.min(PIECE as u64) as usize;
        self.bytes.resize(2 * length, 0);
        self.bytes.split_at_mut(length)
    }
}

/// Runs `work` for all bytes up to `size`, on several processors for large files.
fn in_regions(
    size: u64,
    report: &mut dyn FnMut(u64),
    work: &(dyn Fn(u64, u64) -> io::Result<()> + Sync),
) -> io::Result<()> {
    let regions = size.div_ceil(REGION);
    // asking for the number of processors takes longer than reading a small file
    if regions <= 1 {
        return work(0, size);
    }
    let threads = (threads() as u64).min(regions);
    let next = AtomicU64::new(0);
    let run = |report: &mut dyn FnMut(u64)| {
        loop {
            let region = next.fetch_add(1, Ordering::Relaxed);
            if region >= regions {
                return Ok(());
            }
            let from = region * REGION;
            report(from);
            work(from, size.min(from + REGION)).inspect_err(|_| {
                // the other threads can stop
                next.store(regions, Ordering::Relaxed);
            })?;
        }
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|_| scope.spawn(|| run(&mut |_| {})))
            .collect();
        let own = run(report);
        others.into_iter().fold(own, |result, other| {
            let other = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result.and(other)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    const PLAIN: Writing<'static> = Writing {
        sparse: false,
        meter: &|_| {},
    };
    const SPARSE: Writing<'static> = Writing {
        sparse: true,
        ..PLAIN
    };

    proptest! {
        #[test]
        fn an_update_ends_with_the_same_bytes(
            sizes in (0_usize..40_000, 0_usize..40_000),
            changed in proptest::collection::vec((0_usize..40_000, any::<bool>()), 0..6),
            sparse: bool,
        ) {
            let new: Vec<u8> = (0..sizes.0).map(|n| (n / 5_000 % 2 * (n % 251)) as u8).collect();
            let mut old = new.clone();
            old.resize(sizes.1, 7);
            for (at, zero) in changed {
                if let Some(byte) = old.get_mut(at) {
                    *byte = if zero { 0 } else { byte.wrapping_add(1) };
                }
            }
            let (from, to) = (file(&new), file(&old));
            let how = if sparse { SPARSE } else { PLAIN };
            let same = new == old;
            let size = new.len() as u64;
            prop_assert_eq!(old.len() == new.len() && is_same(&from, &to, size, &mut |_| {}).unwrap(), same);
            let written = update(&from, &to, size, &how, &mut |_| {}).unwrap();
            prop_assert_eq!(content(&to), new);
            prop_assert!(!same || written == 0);
        }
    }

    #[test]
    fn one_byte_of_many_costs_a_page() {
        let mut bytes: Vec<u8> = (0..3 * REGION).map(|n| (n % 251) as u8).collect();
        let old = file(&bytes);
        bytes[2 * REGION as usize + 77] ^= 1;
        let new = file(&bytes);
        let size = bytes.len() as u64;
        assert!(!is_same(&new, &old, size, &mut |_| {}).unwrap());
        assert_eq!(
            update(&new, &old, size, &PLAIN, &mut |_| {}).unwrap(),
            PAGE as u64
        );
        assert!(is_same(&new, &old, size, &mut |_| {}).unwrap());
    }

    #[test]
    fn zeroes_become_holes_where_that_is_wanted() {
        let size = 2 * REGION;
        let zeroes = file(&[]);
        zeroes.set_len(size).unwrap();
        let blocks = |to: &File| to.metadata().unwrap().blocks();
        let old = vec![1; size as usize];
        let (filled, punched, new) = (file(&old), file(&old), file(&[]));
        update(&zeroes, &filled, size, &PLAIN, &mut |_| {}).unwrap();
        assert_eq!(
            update(&zeroes, &punched, size, &SPARSE, &mut |_| {}).unwrap(),
            0
        );
        assert_eq!(
            update(&zeroes, &new, size, &SPARSE, &mut |_| {}).unwrap(),
            0
        );
        assert!(content(&punched) == content(&filled) && content(&new) == content(&filled));
        assert!(blocks(&filled) * 512 >= size && blocks(&punched) + blocks(&new) < 64);
    }

    #[test]
    fn a_file_that_became_shorter_is_an_error_and_a_target_that_did_is_filled() {
        let (short, long) = (file(&[1; 10]), file(&[1; 20]));
        assert!(is_same(&short, &long, 20, &mut |_| {}).is_err());
        assert!(update(&short, &long, 20, &PLAIN, &mut |_| {}).is_err());
        let (short, long) = (file(&[1; 10]), file(&[1; 20]));
        assert!(!is_same(&long, &short, 20, &mut |_| {}).unwrap());
        update(&long, &short, 20, &PLAIN, &mut |_| {}).unwrap();
        assert_eq!(content(&short), [1; 20]);
    }
}
