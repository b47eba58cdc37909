//! The index of a share on disk: its outline, and reads of its files.

use std::collections::BTreeSet;
use std::io;
use std::ops::Deref;
use std::path::Path;

use librecast::channel::ChannelId;
use thiserror::Error;

use crate::block::BlockRef;
use crate::carrying::CarrierNumber;
use crate::folder::Folder;
use crate::groups::Located;
use crate::layout::Layout;
pub use crate::leaves::HashCache;
use crate::leaves::{PieceReader, leaves_of, read_piece};
use crate::outline::{Described, Leaves, Outline, OutlineError};
use crate::place::Place;
use crate::scan::Scan;
use crate::tree::RootKind;

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
    /// Nobody could fetch it.
    #[error(transparent)]
    Outline(#[from] OutlineError),
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
    outline: Outline,
    /// The folder, directly in the scan's root, with files that are not whole yet.
    partial: Option<String>,
}

impl Deref for Index {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        &self.outline
    }
}

/// Further scans of files that change while they are read.
const LOOKS: usize = 2;

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
            let layout = Layout::new(&scan.entries).ok_or(OutlineError::TooLarge)?;
            let unreadable = match leaves_of(&scan, &layout, cache, looks < LOOKS) {
                Ok(leaves) => return Self::assemble(scan, layout, all_in_stretches(&leaves), key),
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
    /// `carrier`: its number, if it carries.
    pub fn known(
        scan: Scan,
        leaves: &[BlockRef],
        partial: String,
        key: &[u8],
        carrier: Option<CarrierNumber>,
    ) -> Result<Self, IndexError> {
        let layout = Layout::new(&scan.entries).ok_or(OutlineError::TooLarge)?;
        let content: u64 = leaves.iter().map(|l| u64::from(l.length)).sum();
        if content != layout.length() {
            return Err(IndexError::Changed);
        }
        // blocks of a stretch may be missing here
        let leaves = Leaves {
            all: leaves,
            in_stretches: &[],
            carrier,
        };
        let index = Self::assemble(scan, layout, leaves, key)?;
        Ok(Self {
            partial: Some(partial),
            ..index
        })
    }

    fn assemble(
        scan: Scan,
        layout: Layout,
        leaves: Leaves<'_>,
        key: &[u8],
    ) -> Result<Self, IndexError> {
        let described = Described {
            kind: scan.kind,
            entries: &scan.entries,
            metadata: &scan.metadata,
            incomplete: scan.unread > 0,
        };
        Ok(Self {
            outline: Outline::new(described, layout, leaves, key)?,
            partial: None,
            scan,
        })
    }

    /// Reads a channel's block and verifies it: a file may have changed since.
    pub fn read(&self, channel: ChannelId) -> Result<Vec<u8>, IndexError> {
        let (located, _) = self.groups.locate(channel).ok_or(IndexError::Unknown)?;
        self.read_located(located)
    }

    /// Reads a located block and verifies it.
    pub fn read_located(&self, located: Located) -> Result<Vec<u8>, IndexError> {
        if let Some(node) = self.node(located) {
            return Ok(node.to_vec());
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

fn all_in_stretches(leaves: &[BlockRef]) -> Leaves<'_> {
    Leaves {
        all: leaves,
        in_stretches: leaves,
        carrier: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockHash;
    use crate::cut::tests::{cut, noise};
    use crate::groups::Found;
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
