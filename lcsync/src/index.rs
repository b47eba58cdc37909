//! The index of a share: its root, and for each channel the block that is sent there.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use librecast::channel::ChannelId;
use thiserror::Error;

use crate::block::{BlockHash, BlockRef};
use crate::groups::{Found, Groups, Located};
use crate::layout::{Cut, Layout, Piece};
use crate::listing::{self, Entry};
use crate::scan::{Scan, Stamp};
use crate::tree::{Root, RootKind, Stream};

/// Why a path could not be indexed or a block not be read.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The path itself.
    #[error("{path}: {source}")]
    Path {
        /// Which.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// More bytes than there are numbers.
    #[error("the files are too large")]
    TooLarge,
    /// A file is no longer what it was when it was indexed.
    #[error("a file has changed since it was indexed")]
    Changed,
    /// No such block.
    #[error("no such block")]
    Unknown,
}

/// Hashes of blocks by what they are made of, kept from one version of a share to the next.
#[derive(Debug, Default)]
pub struct HashCache(HashMap<[u8; 16], BlockHash>);

/// Everything that is needed to serve a share.
#[derive(Debug)]
pub struct Index {
    /// What was found on disk.
    pub scan: Scan,
    /// Name of the root node.
    pub root: BlockRef,
    /// Modes and times.
    pub metadata: Stream,
    layout: Layout,
    groups: Groups,
    /// Root node, hash nodes, listing and metadata; their places are behind the content.
    nodes: Vec<Vec<u8>>,
}

/// An index while it is put together.
struct Assembly {
    content: u64,
    blocks: Vec<Located>,
    nodes: Vec<Vec<u8>>,
}

impl Index {
    /// Reads and hashes everything below `path`, except what `cache` knows. `key` is the share's key, or empty.
    pub fn build(path: &Path, key: &[u8], cache: &mut HashCache) -> Result<Self, IndexError> {
        let error = |source| IndexError::Path {
            path: path.display().to_string(),
            source,
        };
        Self::of(Scan::of(path).map_err(error)?, key, cache)
    }

    /// The index of what a scan has found.
    pub fn of(mut scan: Scan, key: &[u8], cache: &mut HashCache) -> Result<Self, IndexError> {
        loop {
            let layout = Layout::new(&scan.entries).ok_or(IndexError::TooLarge)?;
            let cuts = layout.cuts(&scan.entries);
            match hash_all(&scan, &layout, &cuts, cache) {
                Ok(leaves) => return Self::assemble(scan, layout, &leaves, key),
                Err(unreadable) => {
                    for (n, source) in &unreadable {
                        let path = scan.path_of(*n).display().to_string();
                        if !matches!(scan.kind, RootKind::Folder) {
                            let source = io::Error::new(source.kind(), source.to_string());
                            return Err(IndexError::Path { path, source });
                        }
                        tracing::warn!("left out: {path}: {source}");
                    }
                    scan.remove(&unreadable.into_keys().collect());
                }
            }
        }
    }

    fn assemble(
        scan: Scan,
        layout: Layout,
        leaves: &[BlockRef],
        key: &[u8],
    ) -> Result<Self, IndexError> {
        let mut assembly = Assembly::new(leaves);
        let content = assembly.add_stream_nodes(leaves);
        let folder = scan.kind == RootKind::Folder;
        let (entries, listing) = if folder {
            let blocks = listing::encode(&scan.entries);
            (scan.entries.len() as u64, assembly.add_stream(blocks))
        } else {
            (0, Stream::default())
        };
        // a file's only entry is the root itself
        let described = if folder {
            &scan.metadata[..]
        } else {
            &scan.metadata[..1]
        };
        let metadata = assembly.add_stream(listing::encode_metadata(described));
        let root = Root {
            kind: scan.kind,
            entries,
            listing,
            content,
        }
        .encode();
        Ok(Self {
            root: assembly.add_node(root),
            metadata,
            layout,
            groups: Groups::new(key, assembly.blocks).ok_or(IndexError::TooLarge)?,
            nodes: assembly.nodes,
            scan,
        })
    }

    /// The block that belongs on a channel, and how fast it is sent there.
    #[must_use]
    pub fn find(&self, channel: ChannelId) -> Option<Found> {
        self.groups.find(channel)
    }

    /// How many different blocks there are; each has a channel in every layer.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.groups.blocks()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layout.length()
    }

    /// The bytes of a channel's block, verified: a file may have changed since.
    pub fn read(&self, channel: ChannelId) -> Result<Vec<u8>, IndexError> {
        let (located, _) = self.groups.locate(channel).ok_or(IndexError::Unknown)?;
        if let Some(node) = located.place.checked_sub(self.layout.length()) {
            return Ok(self.nodes[node as usize].clone());
        }
        let block = located.block();
        let mut reader = PieceReader::new(&self.scan);
        let length = block.length as usize;
        let mut bytes = Vec::with_capacity(length);
        for piece in self.layout.pieces(located.place, length) {
            reader
                .read(piece, &mut bytes)
                .map_err(|_| IndexError::Changed)?;
        }
        if BlockRef::of(&bytes) != block {
            return Err(IndexError::Changed);
        }
        Ok(bytes)
    }
}

impl Assembly {
    fn new(leaves: &[BlockRef]) -> Self {
        let mut assembly = Self {
            content: 0,
            blocks: Vec::with_capacity(leaves.len()),
            nodes: Vec::new(),
        };
        for leaf in leaves {
            let located = Located::new(*leaf, assembly.content);
            assembly.blocks.push(located);
            assembly.content += u64::from(leaf.length);
        }
        assembly
    }

    fn add_node(&mut self, bytes: Vec<u8>) -> BlockRef {
        let block = BlockRef::of(&bytes);
        let place = self.content + self.nodes.len() as u64;
        self.blocks.push(Located::new(block, place));
        self.nodes.push(bytes);
        block
    }

    fn add_stream_nodes(&mut self, leaves: &[BlockRef]) -> Stream {
        let (stream, nodes) = Stream::build(leaves);
        for (_, bytes) in nodes {
            self.add_node(bytes);
        }
        stream
    }

    fn add_stream(&mut self, blocks: Vec<Vec<u8>>) -> Stream {
        let leaves: Vec<BlockRef> = blocks.into_iter().map(|b| self.add_node(b)).collect();
        self.add_stream_nodes(&leaves)
    }
}

/// Files that could not be read, by their number in the scan.
type Unreadable = BTreeMap<usize, io::Error>;

/// Hashes all cuts, on all processors. The error names the files that could not be read.
fn hash_all(
    scan: &Scan,
    layout: &Layout,
    cuts: &[Cut],
    cache: &mut HashCache,
) -> Result<Vec<BlockRef>, Unreadable> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Unreadable::new());
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(cuts.len().max(1));
    let known = &*cache;
    let work = || {
        let mut found = Vec::new();
        let mut reader = PieceReader::new(scan);
        let mut bytes = Vec::new();
        while let Some(n) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < cuts.len()) {
            let key = cache_key(scan, layout, cuts[n]);
            let hash = known
                .0
                .get(&key)
                .copied()
                .map_or_else(|| hash_cut(&mut reader, layout, cuts[n], &mut bytes), Ok);
            match hash {
                Ok(hash) => found.push((n, key, hash)),
                // the others are read all the same: what else cannot be is to be known at once
                Err(files) => failed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(files),
            }
        }
        found
    };
    let found: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
            .collect()
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !failed.is_empty() {
        cache
            .0
            .extend(found.into_iter().map(|(_, key, hash)| (key, hash)));
        return Err(failed);
    }
    let mut leaves: Vec<BlockRef> = cuts
        .iter()
        .map(|c| BlockRef {
            hash: BlockHash::default(),
            length: c.length as u32,
        })
        .collect();
    cache.0 = found
        .into_iter()
        .map(|(n, key, hash)| {
            leaves[n].hash = hash;
            (key, hash)
        })
        .collect();
    Ok(leaves)
}

fn hash_cut(
    reader: &mut PieceReader<'_>,
    layout: &Layout,
    cut: Cut,
    bytes: &mut Vec<u8>,
) -> Result<BlockHash, Unreadable> {
    bytes.clear();
    let mut failed = Unreadable::new();
    for piece in layout.pieces(cut.start, cut.length) {
        if let Err(e) = reader.read(piece, bytes) {
            failed.insert(piece.file, e);
        }
    }
    if failed.is_empty() {
        Ok(BlockHash::of(bytes))
    } else {
        Err(failed)
    }
}

/// Files with their versions, and places in them.
fn cache_key(scan: &Scan, layout: &Layout, cut: Cut) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for piece in layout.pieces(cut.start, cut.length) {
        let Entry { path, .. } = &scan.entries[piece.file];
        let stamp: &Stamp = &scan.stamps[piece.file];
        let text = format!(
            "{} {:?} {} {} ",
            path.len(),
            stamp,
            piece.offset,
            piece.length
        );
        hasher.update(text.as_bytes()).update(path);
    }
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    key
}

/// Reads pieces; keeps the last file open.
struct PieceReader<'a> {
    scan: &'a Scan,
    open: Option<(usize, File)>,
}

impl<'a> PieceReader<'a> {
    fn new(scan: &'a Scan) -> Self {
        Self { scan, open: None }
    }

    /// Appends the piece's bytes; a file that has become shorter is an error.
    fn read(&mut self, piece: Piece, out: &mut Vec<u8>) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|(n, _)| *n != piece.file) {
            self.open = Some((piece.file, File::open(self.scan.path_of(piece.file))?));
        }
        let start = out.len();
        out.resize(start + piece.length, 0);
        match &self.open {
            Some((_, file)) => file.read_exact_at(&mut out[start..], piece.offset),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::channel::block_channel;
    use std::fs;

    fn build(path: &Path) -> Index {
        Index::build(path, b"", &mut HashCache::default()).unwrap()
    }

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/big"), vec![7; 600_000]).unwrap();
        for n in 0..100 {
            fs::write(dir.path().join(format!("small{n}")), format!("content {n}")).unwrap();
        }
        dir
    }

    #[test]
    fn files_that_cannot_be_read_are_left_out_and_the_others_keep_their_places() {
        let dir = sample();
        let scan = Scan::of(dir.path()).unwrap();
        for n in (0..100).filter(|n| n % 3 != 0) {
            fs::remove_file(dir.path().join(format!("small{n}"))).unwrap();
        }
        fs::remove_file(dir.path().join("sub/big")).unwrap();
        let index = Index::of(scan, b"", &mut HashCache::default()).unwrap();
        let rest = Scan::of(dir.path()).unwrap();
        assert_eq!(index.scan.entries, rest.entries);
        let file = |scan: &Scan, n: usize| (scan.stamps[n], scan.metadata[n + 1]);
        assert!((0..34).all(|n| file(&index.scan, n) == file(&rest, n)));
        assert_eq!(index.scan.entries.len(), 34 + 1);
    }

    #[test]
    fn every_channel_reads_back_its_block() {
        let dir = sample();
        let index = build(dir.path());
        for channel in index.groups.channels() {
            let block = BlockRef::of(&index.read(*channel).unwrap());
            assert_eq!(index.find(*channel).unwrap().block, block);
        }
        // two of the three blocks of the big file are alike; pack, content node, listing, metadata, root
        assert_eq!(index.blocks(), 2 + 5);
    }

    #[test]
    fn root_hash_follows_content_names_and_kinds_not_times() {
        let (a, b) = (sample(), sample());
        let root = build(a.path()).root;
        assert_eq!(build(b.path()).root, root);
        fs::rename(b.path().join("small1"), b.path().join("renamed")).unwrap();
        assert_ne!(build(b.path()).root, root);
        fs::rename(b.path().join("renamed"), b.path().join("small1")).unwrap();
        assert_eq!(build(b.path()).root, root);
        fs::write(b.path().join("small1"), "other").unwrap();
        assert_ne!(build(b.path()).root, root);
    }

    #[test]
    fn a_files_root_hash_does_not_depend_on_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"same").unwrap();
        fs::write(dir.path().join("b"), b"same").unwrap();
        assert_eq!(
            build(&dir.path().join("a")).root,
            build(&dir.path().join("b")).root
        );
        fs::write(dir.path().join("b"), b"").unwrap();
        assert_ne!(
            build(&dir.path().join("a")).root,
            build(&dir.path().join("b")).root
        );
    }

    #[test]
    fn a_changed_file_is_noticed_when_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), b"before").unwrap();
        let index = build(dir.path());
        let channel = block_channel(b"", &BlockHash::of(b"before").0, 0);
        assert_eq!(index.read(channel).unwrap(), b"before");
        fs::write(dir.path().join("f"), b"behind").unwrap();
        assert!(matches!(index.read(channel), Err(IndexError::Changed)));
        fs::remove_file(dir.path().join("f")).unwrap();
        assert!(matches!(index.read(channel), Err(IndexError::Changed)));
    }

    #[test]
    fn a_second_version_hashes_only_what_changed() {
        let dir = sample();
        let mut cache = HashCache::default();
        Index::build(dir.path(), b"", &mut cache).unwrap();
        let old = cache.0.clone();
        fs::write(dir.path().join("small1"), "other").unwrap();
        let index = Index::build(dir.path(), b"", &mut cache).unwrap();
        assert_eq!(index.root, build(dir.path()).root);
        let kept = cache.0.keys().filter(|k| old.contains_key(*k)).count();
        assert_eq!((cache.0.len(), kept), (4, 3));
    }

    #[test]
    fn an_empty_folder_and_an_empty_file_can_be_shared() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(build(dir.path()).bytes(), 0);
        fs::write(dir.path().join("f"), b"").unwrap();
        assert_eq!(build(&dir.path().join("f")).bytes(), 0);
    }
}
