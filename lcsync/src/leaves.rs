//! Blocks of a share's content: read, cut and hashed on all processors, except known ones.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use crate::block::BlockRef;
use crate::cut::{At, REGION, cut_region, join_regions};
use crate::layout::{Layout, Part, Piece};
use crate::scan::{Files, Scan};

/// Hash over the files, with their versions, of some blocks.
pub type Key = [u8; 16];

/// Known blocks by their files, kept between versions of a share and, by `store`, between runs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HashCache {
    pub(crate) known: HashMap<Key, Known>,
    /// Whether it has new hashes.
    pub(crate) fresh: bool,
}

/// The blocks of a pack or a large file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) blocks: Box<[BlockRef]>,
    /// Whether the files were older than a clock tick when read: their times show later changes.
    pub(crate) settled: bool,
}

/// Files that could not be read, by their number in the scan.
pub type Unreadable = BTreeMap<usize, io::Error>;

/// Returns the blocks of the content stream in order. The error names files that could not be read;
/// if `exact`, those that have changed since the scan, too.
pub fn leaves_of(
    scan: &Scan,
    layout: &Layout,
    cache: &mut HashCache,
    exact: bool,
) -> Result<Vec<BlockRef>, Unreadable> {
    let began = SystemTime::now();
    let parts = layout.parts(&scan.entries);
    let keys: Vec<Key> = parts.iter().map(|p| key_of(scan, layout, *p)).collect();
    let unknown: Vec<usize> = (0..parts.len())
        .filter(|n| !cache.known.contains_key(&keys[*n]))
        .collect();
    cache.fresh |= !unknown.is_empty();
    let (fresh, failed) = hash_parts(scan, layout, &parts, &unknown, exact);
    for (n, blocks) in fresh {
        let mut pieces = layout.pieces(parts[n].start, parts[n].length);
        let known = Known {
            blocks: blocks.into(),
            settled: pieces.all(|p| scan.stamps[p.file].is_older_than(began)),
        };
        cache.known.insert(keys[n], known);
    }
    if !failed.is_empty() {
        return Err(failed);
    }
    let mut current = HashMap::with_capacity(keys.len());
    let mut leaves = Vec::new();
    for key in keys {
        if let Some(known) = cache
            .known
            .remove(&key)
            .or_else(|| current.get(&key).cloned())
        {
            leaves.extend_from_slice(&known.blocks);
            current.insert(key, known);
        }
    }
    cache.known = current;
    Ok(leaves)
}

/// A region of a large file, or a pack.
#[derive(Debug, Clone, Copy)]
struct Task {
    part: usize,
    /// Offset in the file.
    from: u64,
}

/// Cuts and hashes these parts; returns the blocks of each readable one.
fn hash_parts(
    scan: &Scan,
    layout: &Layout,
    parts: &[Part],
    those: &[usize],
    exact: bool,
) -> (BTreeMap<usize, Vec<BlockRef>>, Unreadable) {
    let tasks: Vec<Task> = those
        .iter()
        .flat_map(|part| {
            let regions = parts[*part].length.div_ceil(REGION);
            (0..regions).map(|n| Task {
                part: *part,
                from: n * REGION,
            })
        })
        .collect();
    let (mut done, mut failed) = perform(scan, layout, parts, &tasks, exact);
    let mut fresh = BTreeMap::new();
    for n in those {
        let part = parts[*n];
        let regions: Vec<Vec<At>> = done.remove(n).unwrap_or_default().into_values().collect();
        let blocks = match (part.file, &regions[..]) {
            (Some(file), [_, _, ..]) if !failed.contains_key(&file) => {
                let mut reader = PieceReader::new(scan, exact);
                let opened = reader.open(file);
                opened.and_then(|f| join_regions(f, part.length, &regions))
            }
            _ => Ok(regions.into_iter().flatten().map(|(_, b)| b).collect()),
        };
        match (blocks, part.file) {
            (Ok(blocks), _) => {
                fresh.insert(*n, blocks);
            }
            (Err(e), file) => failed.extend(file.map(|file| (file, e))),
        }
    }
    // unreadable parts have no blocks, or not all
    let whole = |n: &usize| {
        let mut pieces = layout.pieces(parts[*n].start, parts[*n].length);
        pieces.all(|p| !failed.contains_key(&p.file))
    };
    fresh.retain(|n, _| whole(n));
    (fresh, failed)
}

/// Blocks by part and region.
type Done = HashMap<usize, BTreeMap<u64, Vec<At>>>;

/// Performs the tasks on all processors.
fn perform(
    scan: &Scan,
    layout: &Layout,
    parts: &[Part],
    tasks: &[Task],
    exact: bool,
) -> (Done, Unreadable) {
    let next = AtomicUsize::new(0);
    let results = Mutex::new((Done::new(), Unreadable::new()));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut reader = PieceReader::new(scan, exact);
        let mut bytes = Vec::new();
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let part = parts[task.part];
            let result = match part.file {
                Some(file) => reader
                    .open(file)
                    .and_then(|f| cut_region(f, part.length, task.from))
                    .map_err(|e| Unreadable::from([(file, e)])),
                None => hash_pack(&mut reader, layout, part, &mut bytes).map(|b| vec![(0, b)]),
            };
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(blocks) => {
                    let regions = results.0.entry(task.part).or_default();
                    regions.insert(task.from, blocks);
                }
                // the rest is read all the same, to find all unreadable files at once
                Err(files) => results.1.extend(files),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers.min(tasks.len()) {
            scope.spawn(work);
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn hash_pack(
    reader: &mut PieceReader<'_>,
    layout: &Layout,
    part: Part,
    bytes: &mut Vec<u8>,
) -> Result<BlockRef, Unreadable> {
    bytes.clear();
    let mut failed = Unreadable::new();
    for piece in layout.pieces(part.start, part.length) {
        if let Err(e) = reader.read(piece, bytes) {
            failed.insert(piece.file, e);
        }
    }
    if failed.is_empty() {
        Ok(BlockRef::of(bytes))
    } else {
        Err(failed)
    }
}

/// Returns the key of a part, which consists of whole files.
fn key_of(scan: &Scan, layout: &Layout, part: Part) -> Key {
    let mut hasher = blake3::Hasher::new();
    for piece in layout.pieces(part.start, part.length) {
        hasher.update(&scan.stamps[piece.file].bytes());
    }
    let mut key = Key::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

/// Reads pieces; keeps the last file open.
#[derive(Debug)]
pub struct PieceReader<'a> {
    scan: &'a Scan,
    files: Files,
    exact: bool,
    open: Option<(usize, File)>,
}

impl<'a> PieceReader<'a> {
    /// Reads files of this scan; if `exact`, none that was written to since.
    #[must_use]
    pub fn new(scan: &'a Scan, exact: bool) -> Self {
        Self {
            scan,
            files: Files::default(),
            exact,
            open: None,
        }
    }

    /// Appends the piece's bytes; a file that has become shorter is an error.
    pub fn read(&mut self, piece: Piece, out: &mut Vec<u8>) -> io::Result<()> {
        read_piece(self.open(piece.file)?, piece, out)
    }

    fn open(&mut self, n: usize) -> io::Result<&File> {
        let file = match self.open.take() {
            Some((open, file)) if open == n => file,
            _ if self.exact => self.files.open(self.scan, n)?,
            _ => self.files.open_begin(self.scan, n)?,
        };
        Ok(&self.open.insert((n, file)).1)
    }
}

/// Appends the bytes of a piece of `file`.
pub fn read_piece(file: &File, piece: Piece, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.resize(start + piece.length, 0);
    file.read_exact_at(&mut out[start..], piece.offset)
}
