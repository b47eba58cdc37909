//! The share: a folder of random files; the seed determines each version.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lcsync::block::{BlockHash, BlockRef, MAX_BLOCK};
use lcsync::index::{HashCache, Index};
use lcsync::listing::Kind;
use lcsync::receive::tree::Tree;
use librecast::coding::SYMBOL_SIZE;
use librecast::random::Random;

const SMALL: [&str; 3] = ["folder/1", "folder/2", "folder/3"];

pub struct Content {
    pub index: Arc<Index>,
    /// Path and size, in the order of the listing.
    files: Vec<(String, u64)>,
    /// The bytes of all files.
    bytes: Vec<u8>,
    _dir: tempfile::TempDir,
}

/// Seed, blocks and version of a content.
type Name = (u64, usize, u64);

thread_local! {
    /// The last content of a test: its simulations differ in other things.
    static LAST: RefCell<Option<(Name, Rc<Content>)>> = const { RefCell::new(None) };
}

/// The blocks of a version, and the offsets of their bytes.
pub struct Blocks {
    pub leaves: Vec<BlockRef>,
    at: BTreeMap<BlockHash, usize>,
}

impl Content {
    /// Makes a file as long as this number of blocks, and small ones; each version changes a part.
    pub fn of(seed: u64, blocks: usize, version: u64) -> Rc<Self> {
        let name = (seed, blocks, version);
        LAST.with_borrow_mut(|last| {
            if let Some((_, content)) = last.as_ref().filter(|(of, _)| *of == name) {
                return Rc::clone(content);
            }
            // the files of the one before are gone first
            *last = None;
            let content = Rc::new(Self::new(seed, blocks, version));
            *last = Some((name, Rc::clone(&content)));
            content
        })
    }

    fn new(seed: u64, blocks: usize, version: u64) -> Self {
        let mut bytes = Random::new(seed).bytes(blocks * MAX_BLOCK);
        for n in 1..version as usize {
            let from = (bytes.len() / 8 * n) % bytes.len();
            let until = (from + bytes.len() / 4).min(bytes.len());
            bytes[from..until].iter_mut().for_each(|b| *b ^= n as u8);
        }
        let mut files = vec![("big".to_owned(), bytes.len() as u64)];
        files.extend(SMALL.map(|name| (name.to_owned(), 1_000)));
        bytes.extend(Random::stream(seed, &[version]).bytes(1_000 * SMALL.len()));
        let dir = tempfile::tempdir().unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + version);
        fs::create_dir(dir.path().join("folder")).unwrap();
        let mut rest = &bytes[..];
        for (name, size) in &files {
            let (own, others) = rest.split_at(*size as usize);
            fs::write(dir.path().join(name), own).unwrap();
            rest = others;
        }
        let names = files.iter().map(|(name, _)| name.as_str());
        for path in names.chain(["folder", ""]) {
            let file = File::open(dir.path().join(path)).unwrap();
            file.set_permissions(Permissions::from_mode(0o755)).unwrap();
            file.set_modified(time).unwrap();
        }
        let index = Index::build(dir.path(), b"", &mut HashCache::default()).unwrap();
        Self {
            index: Arc::new(index),
            files,
            bytes,
            _dir: dir,
        }
    }

    /// Length of the large file in full blocks.
    pub fn length(&self) -> usize {
        self.files[0].1 as usize / MAX_BLOCK
    }

    /// The blocks of the received tree, which must have just these files.
    pub fn blocks(&self, tree: &Tree) -> Blocks {
        let of_file = |e: &lcsync::listing::Entry| match e.kind {
            Kind::File { size, .. } => Some((String::from_utf8(e.path.clone()).unwrap(), size)),
            _ => None,
        };
        let files: Vec<_> = tree.entries.iter().filter_map(of_file).collect();
        assert_eq!(files, self.files);
        let (mut at, mut next) = (BTreeMap::new(), 0);
        for leaf in &tree.leaves {
            at.entry(leaf.hash).or_insert(next);
            next += leaf.length as usize;
        }
        assert_eq!(next, self.bytes.len());
        Blocks {
            leaves: tree.leaves.clone(),
            at,
        }
    }

    /// Whether these are the share's bytes of the block.
    pub fn has(&self, blocks: &Blocks, block: BlockRef, bytes: &[u8]) -> bool {
        let at = blocks.at[&block.hash];
        self.bytes[at..at + block.length as usize] == *bytes
    }
}

impl Blocks {
    /// Least number of symbols.
    pub fn symbols(&self) -> u32 {
        let symbols = |b: &BlockRef| b.length.div_ceil(SYMBOL_SIZE as u32);
        self.leaves.iter().map(symbols).sum()
    }
}
