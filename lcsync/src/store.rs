//! A server's hashes on disk: after a restart, only changed files are hashed.
//!
//! ```text
//! <folder>/<32 hexadecimal digits of the shared path's hash>.index, mode 0600:
//! "lcsync index" | version 32 = 1 | entries x { key 128 | blocks 32 | blocks x block }
//! | BLAKE3 of all before 256                block: hash 256 | length 32
//! ```
//!
//! A key is a hash over device, inode, size, mtime and ctime of the blocks' files. A store is only
//! a cache: without it, or if its file is damaged, everything is hashed again.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use librecast::wire::{Reader, WireError, Writer};
use nix::unistd::geteuid;

use crate::block::{BlockHash, BlockRef, MAX_BLOCK};
use crate::folder::open_named;
use crate::leaves::{HashCache, Known};

const MAGIC: &[u8; 12] = b"lcsync index";
/// Version of the format, and of the rules of cutting.
const VERSION: u32 = 1;
/// Bytes of the hash at the end.
const CHECK: usize = 32;
/// Longest valid file, in bytes.
const MAX_SIZE: u64 = 2 << 30;
/// Most shared paths stored; the ones not shared for longest are removed.
const MAX_FILES: usize = 64;

/// A folder that stores hashes.
#[derive(Debug, Clone)]
pub struct Store(PathBuf);

impl Store {
    /// Folder of systemd, else `$XDG_CACHE_HOME/lcsync`, `/var/cache/lcsync` or `~/.cache/lcsync`.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        // systemd names several, if the unit does
        if let Some(folders) = variable("CACHE_DIRECTORY") {
            return std::env::split_paths(&folders).next().map(Self);
        }
        let caches = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
            (Some(caches), _) => caches.into(),
            (None, _) if geteuid().is_root() => "/var/cache".into(),
            (None, home) => Path::new(&home?).join(".cache"),
        };
        caches.is_absolute().then(|| Self(caches.join("lcsync")))
    }

    /// Loads the hashes of a shared path; none, with a warning, if the file is unusable.
    #[must_use]
    pub fn load(&self, shared: &Path) -> HashCache {
        let path = self.file_of(shared);
        let loaded = read_own(&path).and_then(|bytes| {
            bytes.map_or_else(
                || Ok(HashCache::default()),
                |b| decode(&b).map_err(io::Error::other),
            )
        });
        loaded.unwrap_or_else(|e| {
            tracing::warn!("{}: {e}: everything is hashed again", path.display());
            HashCache::default()
        })
    }

    /// Saves the hashes of a shared path in a whole file, or not at all.
    pub fn save(&self, shared: &Path, cache: &HashCache) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(&encode(cache))?;
        file.as_file().sync_data()?;
        file.persist(self.file_of(shared))?;
        File::open(&self.0)?.sync_all()?;
        self.remove_oldest()
    }

    fn file_of(&self, shared: &Path) -> PathBuf {
        let hash = blake3::hash(shared.as_os_str().as_bytes()).to_hex();
        self.0.join(format!("{}.index", &hash[..32]))
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for item in fs::read_dir(&self.0)? {
            let path = item?.path();
            if path.extension().is_some_and(|e| e == "index") {
                files.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        files.sort_unstable();
        let surplus = files.len().saturating_sub(MAX_FILES);
        files
            .iter()
            .take(surplus)
            .try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// Reads a file of this user: another user's could name false blocks.
fn read_own(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open_named(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let meta = file.metadata()?;
    if meta.uid() != geteuid().as_raw() {
        return Err(io::Error::other("belongs to somebody else"));
    }
    if meta.len() > MAX_SIZE {
        return Err(io::Error::other("too large"));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn encode(cache: &HashCache) -> Vec<u8> {
    let mut w = Writer::new();
    w.put(MAGIC).u32(VERSION);
    for (key, known) in cache.known.iter().filter(|(_, known)| known.settled) {
        w.put(key).u32(known.blocks.len() as u32);
        for block in &known.blocks {
            w.put(&block.hash.0).u32(block.length);
        }
    }
    let mut bytes = w.into_vec();
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<HashCache, WireError> {
    let at = bytes
        .len()
        .checked_sub(CHECK)
        .ok_or(WireError::Bad("length"))?;
    let (content, check) = bytes.split_at(at);
    if blake3::hash(content).as_bytes() != check {
        return Err(WireError::Bad("hash at its end: it is damaged"));
    }
    let mut r = Reader::new(content);
    if r.array()? != *MAGIC {
        return Err(WireError::Bad("first bytes: it is no index"));
    }
    if r.u32()? != VERSION {
        return Err(WireError::Bad("version: it is of another lcsync"));
    }
    let mut cache = HashCache::default();
    while !r.is_empty() {
        let key = r.array()?;
        let known = Known {
            blocks: read_blocks(&mut r)?,
            settled: true,
        };
        cache.known.insert(key, known);
    }
    Ok(cache)
}

fn read_blocks(r: &mut Reader<'_>) -> Result<Box<[BlockRef]>, WireError> {
    let count = r.u32()?;
    (0..count)
        .map(|_| {
            let hash = BlockHash(r.array()?);
            match r.u32()? {
                length if length > 0 && length as usize <= MAX_BLOCK => {
                    Ok(BlockRef { hash, length })
                }
                _ => Err(WireError::Bad("length of block")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn caches() -> impl Strategy<Value = HashCache> {
        let block = (any::<[u8; 32]>(), 1..=MAX_BLOCK as u32).prop_map(|(hash, length)| BlockRef {
            hash: BlockHash(hash),
            length,
        });
        let known = proptest::collection::vec(block, 0..5).prop_map(|blocks| Known {
            blocks: blocks.into(),
            settled: true,
        });
        proptest::collection::hash_map(any::<[u8; 16]>(), known, 0..8).prop_map(|known| HashCache {
            known,
            fresh: false,
        })
    }

    proptest! {
        #[test]
        fn what_is_saved_is_loaded(cache in caches()) {
            prop_assert_eq!(decode(&encode(&cache)), Ok(cache));
        }

        #[test]
        fn any_damage_is_noticed(cache in caches(), at in any::<usize>(), bit in 0..8u8, cut in any::<usize>()) {
            let mut bytes = encode(&cache);
            prop_assert!(decode(&bytes[..cut % bytes.len()]).is_err());
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn what_has_a_right_hash_and_wrong_content_is_refused_or_read(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            bytes.splice(0..0, MAGIC.iter().copied().chain(VERSION.to_be_bytes()));
            let check = blake3::hash(&bytes);
            bytes.extend_from_slice(check.as_bytes());
            if let Ok(cache) = decode(&bytes) {
                prop_assert!(encode(&cache).len() <= bytes.len());
            }
        }
    }

    fn one_entry() -> HashCache {
        let known = Known {
            blocks: [BlockRef::of(b"x")].into(),
            settled: true,
        };
        HashCache {
            known: [([1; 16], known)].into(),
            fresh: false,
        }
    }

    #[test]
    fn each_path_has_its_own_and_only_the_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store(dir.path().join("a/b"));
        let (here, there) = (Path::new("/here"), Path::new("/there"));
        assert_eq!(store.load(here), HashCache::default());
        store.save(here, &one_entry()).unwrap();
        assert_eq!(store.load(here), one_entry());
        assert_eq!(store.load(there), HashCache::default());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store.0), mode(&store.file_of(here))), (0o700, 0o600));
        fs::write(store.file_of(here), b"damaged").unwrap();
        assert_eq!(store.load(here), HashCache::default());
        assert_eq!(fs::read_dir(&store.0).unwrap().count(), 1);
    }

    #[test]
    fn what_was_read_just_after_a_change_is_not_saved() {
        let mut cache = one_entry();
        for known in cache.known.values_mut() {
            known.settled = false;
        }
        assert_eq!(decode(&encode(&cache)), Ok(HashCache::default()));
    }

    #[test]
    fn no_more_paths_are_remembered_than_there_is_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store(dir.path().to_path_buf());
        for n in 0..MAX_FILES + 5 {
            store
                .save(Path::new(&format!("/{n}")), &one_entry())
                .unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), MAX_FILES);
    }
}
