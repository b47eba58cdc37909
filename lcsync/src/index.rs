//! The index of a share: its root, and the block of each channel.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use librecast::channel::ChannelId;
use thiserror::Error;

use crate::block::BlockRef;
use crate::folder::Folder;
use crate::groups::{Carried, Found, Groups, Located};
use crate::layout::Layout;
pub use crate::leaves::HashCache;
use crate::leaves::{PieceReader, leaves_of, read_piece};
use crate::listing::{self, Entry, Kind};
use crate::place::Place;
use crate::scan::Scan;
use crate::tree::{Root, RootKind, Stream};

/// Reason why a path could not be indexed or a block not be read.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The shared path cannot be read.
    #[error("{path}: {error}")]
    Path {
        /// The path for users.
        path: String,
        /// The system's error.
        error: io::Error,
    },
    /// Longer in sum than a file can be.
    #[error("the files are too large")]
    TooLarge,
    /// A listing that receivers refuse.
    #[error("nobody could fetch it: {0}")]
    Listing(String),
    /// A file has changed since it was indexed.
    #[error("a file has changed since it was indexed")]
    Changed,
    /// The index has no block with this hash.
    #[error("no such block")]
    Unknown,
}

/// All data for serving a share.
#[derive(Debug)]
pub struct Index {
    /// The scan of the files.
    pub scan: Scan,
    /// Name of the root node.
    pub root: BlockRef,
    /// Stream of modes and times.
    pub metadata: Stream,
    layout: Layout,
    /// The folder, directly in the scan's root, with files that are not whole yet.
    partial: Option<String>,
    groups: Groups,
    /// Root node, hash nodes, listing and metadata; their places are after the content.
    nodes: Vec<Vec<u8>>,
}

/// Further scans of files that change while they are read.
const LOOKS: usize = 2;

/// An index under construction.
struct Assembly {
    content: u64,
    blocks: Vec<Located>,
    nodes: Vec<Vec<u8>>,
}

impl Index {
    /// Reads and hashes all below `path` that `cache` lacks. `key` is the share's key, or empty.
    pub fn build(path: &Path, key: &[u8], cache: &mut HashCache) -> Result<Self, IndexError> {
        let error = |error| IndexError::Path {
            path: path.display().to_string(),
            error,
        };
        Self::of(Scan::of(path).map_err(error)?, key, cache)
    }

    /// Makes the index of a scan. Changed files are scanned again; those that keep changing are
    /// taken as they are.
    pub fn of(mut scan: Scan, key: &[u8], cache: &mut HashCache) -> Result<Self, IndexError> {
        let mut looks = 0;
        loop {
            let layout = Layout::new(&scan.entries).ok_or(IndexError::TooLarge)?;
            let unreadable = match leaves_of(&scan, &layout, cache, looks < LOOKS) {
                Ok(leaves) => return Self::assemble(scan, layout, &leaves, &leaves, key),
                Err(unreadable) => unreadable,
            };
            let mut gone = BTreeSet::new();
            for (n, error) in unreadable {
                if looks < LOOKS && scan.look_again(n).unwrap_or(false) {
                    continue;
                }
                let path = scan.name_of(n);
                if !matches!(scan.kind, RootKind::Folder) {
                    return Err(IndexError::Path { path, error });
                }
                tracing::warn!("left out: {path}: {error}");
                gone.insert(n);
            }
            scan.remove(&gone);
            looks += 1;
        }
    }

    /// Makes the index of a known tree without reading its files, for a receiver. Files are below
    /// `scan`'s root or, while incomplete, in the folder `partial`; reading shows missing ones.
    pub fn known(
        scan: Scan,
        leaves: &[BlockRef],
        partial: String,
        key: &[u8],
    ) -> Result<Self, IndexError> {
        let layout = Layout::new(&scan.entries).ok_or(IndexError::TooLarge)?;
        let content: u64 = leaves.iter().map(|l| u64::from(l.length)).sum();
        if content != layout.length() {
            return Err(IndexError::Changed);
        }
        // blocks of a stretch may be missing here
        let index = Self::assemble(scan, layout, leaves, &[], key)?;
        Ok(Self {
            partial: Some(partial),
            ..index
        })
    }

    fn assemble(
        scan: Scan,
        layout: Layout,
        leaves: &[BlockRef],
        in_stretches: &[BlockRef],
        key: &[u8],
    ) -> Result<Self, IndexError> {
        let mut assembly = Assembly::new(leaves);
        let content = assembly.add_stream_nodes(leaves);
        let folder = scan.kind == RootKind::Folder;
        let (entries, listing) = if folder {
            let blocks = listing::encode(&scan.entries);
            let bytes = blocks.iter().map(|b| b.len() as u64).sum();
            if let Some(why) = listing::too_large(&scan.entries, bytes) {
                return Err(IndexError::Listing(why));
            }
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
            incomplete: folder && scan.unread > 0,
        }
        .encode();
        Ok(Self {
            root: assembly.add_node(root),
            metadata,
            layout,
            partial: None,
            groups: Groups::new(key, assembly.blocks, in_stretches).ok_or(IndexError::TooLarge)?,
            nodes: assembly.nodes,
            scan,
        })
    }

    /// Returns the content of a channel.
    pub fn find(&self, channel: ChannelId) -> Option<Found> {
        self.groups.find(channel)
    }

    /// Returns the block of symbol `number` of a channel.
    pub fn carried(&self, channel: ChannelId, number: u32) -> Option<Carried> {
        self.groups.carried(channel, number)
    }

    /// Whether blocks are also sent in stretches.
    pub fn has_stretches(&self) -> bool {
        self.groups.has_stretches()
    }

    /// Whether the channel's block lists other blocks, which receivers can join only after it.
    pub fn is_list(&self, channel: ChannelId) -> bool {
        let located = self.groups.locate(channel);
        located.is_some_and(|(located, _)| located.place >= self.layout.length())
    }

    /// Number of different blocks; each has a channel in every layer.
    pub fn blocks(&self) -> usize {
        self.groups.blocks()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.layout.length()
    }

    /// Number of files.
    pub fn files(&self) -> u64 {
        let is_file = |e: &&Entry| matches!(e.kind, Kind::File { .. });
        self.scan.entries.iter().filter(is_file).count() as u64
    }

    /// Reads a channel's block and verifies it: a file may have changed since.
    pub fn read(&self, channel: ChannelId) -> Result<Vec<u8>, IndexError> {
        let (located, _) = self.groups.locate(channel).ok_or(IndexError::Unknown)?;
        self.read_located(located)
    }

    /// Reads a located block and verifies it.
    pub fn read_located(&self, located: Located) -> Result<Vec<u8>, IndexError> {
        if let Some(node) = located.place.checked_sub(self.layout.length()) {
            return Ok(self.nodes[node as usize].clone());
        }
        let block = located.block();
        let mut bytes = Vec::with_capacity(block.length as usize);
        let whole = self.read_whole(located.place, block, &mut bytes);
        if whole.is_ok() && BlockRef::of(&bytes) == block {
            return Ok(bytes);
        }
        let partial = self.partial.as_deref().ok_or(IndexError::Changed)?;
        self.read_partial(partial, located.place, block, &mut bytes)
            .map_err(|_| IndexError::Changed)?;
        if BlockRef::of(&bytes) != block {
            return Err(IndexError::Changed);
        }
        Ok(bytes)
    }

    fn read_whole(&self, place: u64, block: BlockRef, out: &mut Vec<u8>) -> io::Result<()> {
        let mut reader = PieceReader::new(&self.scan, false);
        self.layout
            .pieces(place, block.length.into())
            .try_for_each(|piece| reader.read(piece, out))
    }

    /// Reads from partial files, or from the files if a transfer has removed those.
    fn read_partial(
        &self,
        partial: &str,
        place: u64,
        block: BlockRef,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        out.clear();
        let mut partial = Folder::open(&self.scan.root)?.inner(partial.as_bytes())?;
        let mut reader = PieceReader::new(&self.scan, false);
        for piece in self.layout.pieces(place, block.length.into()) {
            let name = Place::staged_name(&self.scan.entries[piece.file].path);
            match partial.open_file(&name) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => reader.read(piece, out)?,
                staged => read_piece(&staged?, piece, out)?,
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;
    use crate::cut::tests::{cut, noise};
    use librecast::channel::block_channel;
    use std::fs;

    fn build(path: &Path) -> Index {
        Index::build(path, b"", &mut HashCache::default()).unwrap()
    }

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/big"), noise(7, 600_000)).unwrap();
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
    fn what_comes_into_the_place_of_a_file_is_neither_hashed_nor_sent_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("up")).unwrap();
        fs::write(at("secret"), b"secret").unwrap();
        let plant: [&dyn Fn(); 2] = [
            &|| std::os::unix::fs::symlink("../secret", at("up/f")).unwrap(),
            &|| nix::unistd::mkfifo(&at("up/f"), nix::sys::stat::Mode::S_IRWXU).unwrap(),
        ];
        for plant in plant {
            let _ = fs::remove_file(at("up/f"));
            fs::write(at("up/f"), b"secret").unwrap();
            let scan = Scan::of(&at("up")).unwrap();
            let served = build(&at("up"));
            let channel = block_channel(b"", &BlockHash::of(b"secret").0, 0);
            assert!(served.read(channel).is_ok());
            fs::remove_file(at("up/f")).unwrap();
            plant();
            let index = Index::of(scan, b"", &mut HashCache::default()).unwrap();
            assert_eq!((index.bytes(), index.scan.unread), (0, 1));
            assert!(matches!(served.read(channel), Err(IndexError::Changed)));
        }
    }

    #[test]
    fn a_file_that_changes_between_scan_and_hashing_is_shared_as_it_is_now() {
        let dir = sample();
        let scan = Scan::of(dir.path()).unwrap();
        fs::write(dir.path().join("small1"), "it was other words").unwrap();
        fs::write(dir.path().join("sub/new"), noise(3, 500_000)).unwrap();
        fs::rename(dir.path().join("sub/new"), dir.path().join("sub/big")).unwrap();
        let index = Index::of(scan, b"", &mut HashCache::default()).unwrap();
        assert_eq!(index.root, build(dir.path()).root);
        assert_eq!(index.scan.unread, 0);
    }

    #[test]
    fn every_channel_reads_back_its_block() {
        let dir = sample();
        let index = build(dir.path());
        for channel in index.groups.channels() {
            let block = BlockRef::of(&index.read(*channel).unwrap());
            assert!(
                matches!(index.find(*channel), Some(Found::Block { block: its, .. }) if its == block)
            );
        }
        // of the big file; pack, content node, listing, metadata, root
        let big = cut(&noise(7, 600_000)).len();
        assert_eq!(index.blocks(), big + 5);
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
        let old = cache.clone();
        fs::write(dir.path().join("small1"), "other").unwrap();
        let index = Index::build(dir.path(), b"", &mut cache).unwrap();
        assert_eq!(index.root, build(dir.path()).root);
        let kept = cache.known.keys().filter(|k| old.known.contains_key(*k));
        assert_eq!((kept.count(), cache.known.len()), (1, 2));
    }

    #[test]
    fn an_empty_folder_and_an_empty_file_can_be_shared() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(build(dir.path()).bytes(), 0);
        fs::write(dir.path().join("f"), b"").unwrap();
        assert_eq!(build(&dir.path().join("f")).bytes(), 0);
    }
}
