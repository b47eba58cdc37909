//! The listing of a folder: an entry for each file, folder and symbolic link, parents first.
//!
//! An entry: kind (1 byte: 0 file, 1 folder, 2 symbolic link; 0x80 set if the owner may execute the
//! file), bytes shared with the previous path (2), length of the rest (2), the rest, then for a
//! file its size (8), for a link the length (2) and bytes of its target. Order is that of
//! [`compare_paths`], and strict: no path comes twice.
//!
//! Beside it, not covered by the root hash, goes the metadata stream for `-a`: per entry, and first
//! for the root itself, mode (2), mtime seconds (8, signed) and nanoseconds (4).

use std::cmp::Ordering;

use librecast::plain::clean;
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::block::MAX_BLOCK;

/// Longest path in bytes (PATH_MAX of Linux, without the zero).
pub const MAX_PATH: usize = 4095;
/// Longest name in bytes (NAME_MAX of Linux).
pub const MAX_NAME: usize = 255;
/// Longest listing in bytes; a longer one is refused, not held in memory.
pub const MAX_LISTING: u64 = 256 << 20;
/// Most entries of a listing.
pub const MAX_ENTRIES: u64 = 1 << 24;
/// Most bytes of all paths for each byte of a listing, as shared prefixes multiply.
const PATHS_PER_BYTE: usize = 64;
/// Further bytes of paths in any listing.
const FREE_PATHS: usize = 1 << 20;
/// Bytes of one entry in the metadata stream.
pub const METADATA_SIZE: usize = 14;
/// Prefix of lcsync's own partial transfers: never listed, never taken.
pub const PARTIAL_PREFIX: &str = ".lcsync-partial";

/// A path below the shared folder: plain names joined with `/`.
pub type Path = Vec<u8>;

/// Kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A folder.
    Folder,
    /// A symbolic link.
    Link {
        /// Its target, as written in it.
        target: Vec<u8>,
    },
    /// A device, FIFO or socket: only in local copies, never in a share.
    Node(Node),
}

/// A device, FIFO or socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its kind: the file type bits of its mode.
    pub file_type: u32,
    /// Number of a device, else 0.
    pub device: u64,
}

/// One thing in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the root.
    pub path: Path,
    /// File, folder or link.
    pub kind: Kind,
}

/// Mode and time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Permission bits (07777).
    pub mode: u16,
    /// Seconds of the modification time since 1970.
    pub mtime: i64,
    /// Its nanoseconds, below 10^9.
    pub nanos: u32,
}

/// Reason why a listing was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListingError {
    /// It violates the format.
    #[error("listing: {0}")]
    Wire(#[from] WireError),
    /// An invalid path, or one that leads out.
    #[error("listing: the name {0:?} is not acceptable")]
    Name(String),
    /// Not in order, without its folder, or twice.
    #[error("listing: {0:?} is out of place")]
    Order(String),
    /// The number of entries differs from that in the root node.
    #[error("listing: {found} entries, the root says {expected}")]
    Count {
        /// Entries in the listing.
        found: u64,
        /// Entries that the root node counts.
        expected: u64,
    },
}

/// Whether `name` can be one component of a path: no `.`, `..`, `/`, NUL, no name of lcsync's own.
#[must_use]
pub fn is_plain_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= MAX_NAME
        && !name.contains(&b'/')
        && !name.contains(&0)
        && !name.starts_with(PARTIAL_PREFIX.as_bytes())
}

/// Compares by component: a folder comes directly before its entries.
#[must_use]
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    a.split(|c| *c == b'/').cmp(b.split(|c| *c == b'/'))
}

/// Returns the folder of `path`, `None` at the top.
#[must_use]
pub fn parent_of(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|c| *c == b'/').map(|at| &path[..at])
}

/// Returns a path for users, with control characters as rsync prints them (`\#033`), so that a name
/// neither controls the terminal nor reorders text.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    let mut shown = String::new();
    for c in String::from_utf8_lossy(path).chars() {
        match c.is_ascii_control() {
            true => shown += &format!("\\#{:03o}", u32::from(c)),
            false => shown.push(c),
        }
    }
    clean(&shown)
}

/// Whether a link at `path` with this target stays in the shared folder. `..` may come only first:
/// there it climbs real folders; after a name, which may be another link, it may not.
#[must_use]
pub fn link_stays_inside(path: &[u8], target: &[u8]) -> bool {
    if target.is_empty() || target.first() == Some(&b'/') || target.contains(&0) {
        return false;
    }
    let mut depth = path.iter().filter(|c| **c == b'/').count();
    let mut descending = false;
    target.split(|c| *c == b'/').all(|part| match part {
        b"" | b"." => true,
        b".." if descending || depth == 0 => false,
        b".." => {
            depth -= 1;
            true
        }
        _ => {
            descending = true;
            true
        }
    })
}

/// Whether a block of listing is cut before this path, from [`MIN_CUT`] bytes on. So a new or
/// removed entry changes only the blocks around it.
fn is_cut_point(path: &[u8]) -> bool {
    let [a, b, ..] = *blake3::hash(path).as_bytes();
    u16::from_be_bytes([a, b]) & 0x3ff == 0
}
/// Least bytes of a part of a listing. Chosen.
const MIN_CUT: usize = 32 << 10;

/// Encodes a listing of these entries, which must be in order, in blocks.
#[must_use]
pub fn encode(entries: &[Entry]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut block = Writer::new();
    let mut previous: &[u8] = &[];
    for entry in entries {
        // the longest entry has two paths and a few bytes
        let full = block.len() + 2 * MAX_PATH + 16 > MAX_BLOCK;
        if full || (block.len() >= MIN_CUT && is_cut_point(&entry.path)) {
            blocks.push(std::mem::take(&mut block).into_vec());
            previous = &[];
        }
        write_entry(&mut block, entry, previous);
        previous = &entry.path;
    }
    if !block.is_empty() {
        blocks.push(block.into_vec());
    }
    blocks
}

fn write_entry(w: &mut Writer, entry: &Entry, previous: &[u8]) {
    let shared = previous
        .iter()
        .zip(&entry.path)
        .take_while(|(a, b)| a == b)
        .count();
    let kind = match &entry.kind {
        Kind::File { executable, .. } => u8::from(*executable) << 7,
        Kind::Folder => 1,
        Kind::Link { .. } => 2,
        // a scan for a share has none
        Kind::Node(_) => 0,
    };
    let rest = &entry.path[shared..];
    w.u8(kind)
        .u16(shared as u16)
        .u16(rest.len() as u16)
        .put(rest);
    match &entry.kind {
        Kind::File { size, .. } => {
            w.u64(*size);
        }
        Kind::Folder => {}
        Kind::Link { target } => {
            w.u16(target.len() as u16).put(target);
        }
        Kind::Node(_) => {
            w.u64(0);
        }
    }
}

/// Returns the reason why receivers refuse a listing of these entries and this length, if they do.
#[must_use]
pub fn too_large(entries: &[Entry], bytes: u64) -> Option<String> {
    let count = entries.len() as u64;
    if count > MAX_ENTRIES {
        return Some(format!("{count} entries, and {MAX_ENTRIES} are the most"));
    }
    if bytes > MAX_LISTING {
        return Some(format!(
            "{bytes} bytes of names, and {MAX_LISTING} are the most"
        ));
    }
    let paths: u64 = entries.iter().map(|e| e.path.len() as u64).sum();
    let most = most_path_bytes(bytes as usize) as u64;
    (paths > most).then(|| {
        format!(
            "paths of {paths} bytes together, and {most} are the most for names as long as these"
        )
    })
}

/// Most bytes of all paths in a listing of this length.
const fn most_path_bytes(listing: usize) -> usize {
    listing * PATHS_PER_BYTE + FREE_PATHS
}

/// Parses a whole listing. Memory is in proportion to the paths, which are bounded.
pub fn decode(bytes: &[u8], expected: u64) -> Result<Vec<Entry>, ListingError> {
    let mut r = Reader::new(bytes);
    let mut entries: Vec<Entry> = Vec::new();
    // the folders of the previous entry, with itself if it is one
    let mut open: Vec<Path> = Vec::new();
    let mut path_bytes = 0;
    let most = most_path_bytes(bytes.len());
    while !r.is_empty() {
        let previous = entries.last().map_or(&[][..], |e| &e.path);
        let entry = read_entry(&mut r, previous)?;
        let name = || shown(&entry.path);
        if entries.len() as u64 == expected {
            return Err(ListingError::Count {
                found: expected + 1,
                expected,
            });
        }
        if !entries.is_empty() && compare_paths(previous, &entry.path) != Ordering::Less {
            return Err(ListingError::Order(name()));
        }
        if let Some(parent) = parent_of(&entry.path) {
            while open.last().is_some_and(|folder| folder != parent) {
                open.pop();
            }
            if open.is_empty() {
                return Err(ListingError::Order(name()));
            }
        }
        if entry.kind == Kind::Folder {
            if parent_of(&entry.path).is_none() {
                open.clear();
            }
            open.push(entry.path.clone());
        }
        path_bytes += entry.path.len();
        if path_bytes > most {
            return Err(WireError::Bad("paths: too many").into());
        }
        entries.push(entry);
    }
    if entries.len() as u64 != expected {
        return Err(ListingError::Count {
            found: entries.len() as u64,
            expected,
        });
    }
    Ok(entries)
}

fn read_entry(r: &mut Reader<'_>, previous: &[u8]) -> Result<Entry, ListingError> {
    let kind = r.u8()?;
    let shared = previous
        .get(..r.u16()?.into())
        .ok_or(WireError::Bad("shared length"))?;
    let rest = r.bytes16()?;
    if shared.len() + rest.len() > MAX_PATH {
        return Err(WireError::Bad("path length").into());
    }
    let path = [shared, rest].concat();
    if !path.split(|c| *c == b'/').all(is_plain_name) {
        return Err(ListingError::Name(shown(&path)));
    }
    let kind = match kind {
        0 | 0x80 => Kind::File {
            size: r.u64()?,
            executable: kind == 0x80,
        },
        1 => Kind::Folder,
        2 => {
            let target = r.bytes16()?;
            if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
                return Err(WireError::Bad("link target").into());
            }
            Kind::Link {
                target: target.to_vec(),
            }
        }
        _ => return Err(WireError::Bad("kind of entry").into()),
    };
    Ok(Entry { path, kind })
}

/// Encodes a metadata stream in blocks.
#[must_use]
pub fn encode_metadata(all: &[Metadata]) -> Vec<Vec<u8>> {
    all.chunks(MAX_BLOCK / METADATA_SIZE)
        .map(|part| {
            let mut w = Writer::new();
            for m in part {
                w.u16(m.mode & 0o7777).u64(m.mtime as u64).u32(m.nanos);
            }
            w.into_vec()
        })
        .collect()
}

/// Parses a whole metadata stream of `expected` items.
pub fn decode_metadata(bytes: &[u8], expected: u64) -> Result<Vec<Metadata>, WireError> {
    if expected.checked_mul(METADATA_SIZE as u64) != Some(bytes.len() as u64) {
        return Err(WireError::Bad("length of metadata"));
    }
    let mut r = Reader::new(bytes);
    let mut all = Vec::with_capacity(bytes.len() / METADATA_SIZE);
    while !r.is_empty() {
        let m = Metadata {
            mode: r.u16()?,
            mtime: r.u64()? as i64,
            nanos: r.u32()?,
        };
        if m.mode > 0o7777 || m.nanos >= 1_000_000_000 {
            return Err(WireError::Bad("metadata"));
        }
        all.push(m);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn file(path: &str) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::File {
                size: 1,
                executable: false,
            },
        }
    }
    fn folder(path: &str) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::Folder,
        }
    }
    fn raw(entries: &[Entry]) -> Result<Vec<Entry>, ListingError> {
        decode(&encode(entries).concat(), entries.len() as u64)
    }

    #[test]
    fn names_do_not_command_the_terminal() {
        assert_eq!(shown("ü b".as_bytes()), "ü b");
        assert_eq!(shown(b"a\x1b[31m\n\xff"), "a\\#033[31m\\#012\u{fffd}");
        assert_eq!(shown("\u{9b}31m".as_bytes()), "\u{fffd}31m");
        assert_eq!(shown("a\u{202e}gpj.exe".as_bytes()), "a\u{fffd}gpj.exe");
    }

    #[test]
    fn order_keeps_folders_together() {
        let entries = [
            folder("a"),
            folder("a/b"),
            file("a/b/x"),
            file("a/c"),
            file("a.txt"),
        ];
        assert_eq!(raw(&entries).unwrap(), entries);
        assert!(matches!(
            raw(&[file("a.txt"), folder("a")]),
            Err(ListingError::Order(_))
        ));
        assert!(matches!(
            raw(&[folder("a"), folder("a")]),
            Err(ListingError::Order(_))
        ));
    }

    #[test]
    fn long_paths_of_few_bytes_each_are_refused_before_they_fill_memory() {
        let deep: Vec<Entry> = (1..=15)
            .map(|n| folder(&vec!["d".repeat(255); n].join("/")))
            .collect();
        let inside = |n: usize| {
            file(&format!(
                "{}/{n:05}",
                String::from_utf8_lossy(&deep[14].path)
            ))
        };
        let some: Vec<Entry> = deep.iter().cloned().chain((0..50).map(inside)).collect();
        assert_eq!(raw(&some).unwrap(), some);
        let many: Vec<Entry> = deep
            .iter()
            .cloned()
            .chain((0..20_000).map(inside))
            .collect();
        let refused = raw(&many);
        assert!(
            matches!(refused, Err(ListingError::Wire(_))),
            "76 MB of 0.4"
        );
        let bytes = encode(&many).concat().len() as u64;
        assert!(too_large(&many, bytes).unwrap().starts_with("paths of"));
        assert!(too_large(&[], MAX_LISTING + 1).is_some());
    }

    #[test]
    fn an_entry_without_its_folder_is_refused() {
        assert!(matches!(raw(&[file("a/b")]), Err(ListingError::Order(_))));
        assert!(matches!(
            raw(&[file("a"), file("a/b")]),
            Err(ListingError::Order(_))
        ));
        let link = Entry {
            path: b"l".to_vec(),
            kind: Kind::Link {
                target: b"/etc".to_vec(),
            },
        };
        assert!(matches!(
            raw(&[link, file("l/passwd")]),
            Err(ListingError::Order(_))
        ));
        assert!(
            raw(&[
                folder("a"),
                folder("a/b"),
                file("a/b/c"),
                folder("a/d"),
                file("a/d/e")
            ])
            .is_ok()
        );
        assert!(raw(&[folder("a"), folder("a/b"), folder("c"), file("c/b")]).is_ok());
        assert!(raw(&[folder("a"), folder("a/b"), folder("c"), file("c/b/x")]).is_err());
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for bad in [
            "..",
            ".",
            "a/../b",
            "/a",
            "a//b",
            "a/",
            "",
            "a\0b",
            ".lcsync-partial",
        ] {
            let entries = [folder("a"), file(bad)];
            assert!(raw(&entries).is_err(), "{bad:?}");
        }
        assert!(raw(&[file(&"x".repeat(256))]).is_err());
    }

    #[test]
    fn links_may_point_inside_only() {
        assert!(link_stays_inside(b"a/l", b"../b"));
        assert!(link_stays_inside(b"a/b/l", b"./../../c/d"));
        for (path, target) in [
            ("l", ".."),
            ("a/l", "../../x"),
            ("l", "/etc/passwd"),
            ("l", "a/../../b"),
            ("z", "a/b/link-to-the-top/.."),
            ("l", ""),
        ] {
            assert!(
                !link_stays_inside(path.as_bytes(), target.as_bytes()),
                "{path} {target}"
            );
        }
    }

    #[test]
    fn an_inserted_entry_changes_few_blocks() {
        let mut entries: Vec<Entry> = (0..20_000).map(|i| file(&format!("file-{i:06}"))).collect();
        let before = encode(&entries);
        entries.insert(100, file("file-000099x"));
        let after = encode(&entries);
        assert!(before.len() > 5, "{}", before.len());
        let shared = after.iter().filter(|b| before.contains(b)).count();
        assert!(shared + 2 >= after.len(), "{shared} of {}", after.len());
    }

    fn listings() -> impl Strategy<Value = Vec<Entry>> {
        let name = proptest::collection::vec(
            prop_oneof![Just(b'a'), Just(b'b'), Just(b'.'), Just(200)],
            1..6,
        );
        let path = proptest::collection::vec(name, 1..5);
        let leaf = (any::<u64>(), any::<bool>(), any::<bool>());
        proptest::collection::vec((path, leaf), 0..60).prop_map(|items| {
            let mut tree: BTreeMap<Vec<Vec<u8>>, Kind> = BTreeMap::new();
            for (path, (size, executable, link)) in items {
                if !path.iter().all(|n| is_plain_name(n)) || tree.contains_key(&path) {
                    continue;
                }
                if (1..path.len()).any(|n| tree.get(&path[..n]).is_some_and(|k| *k != Kind::Folder))
                {
                    continue;
                }
                for n in 1..path.len() {
                    tree.insert(path[..n].to_vec(), Kind::Folder);
                }
                let kind = if link {
                    Kind::Link {
                        target: b"x/y".to_vec(),
                    }
                } else {
                    Kind::File { size, executable }
                };
                tree.insert(path, kind);
            }
            tree.into_iter()
                .map(|(path, kind)| Entry {
                    path: path.join(&b'/'),
                    kind,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn listing_round_trip(entries in listings()) {
            prop_assert_eq!(raw(&entries), Ok(entries));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), expected in 0..100u64) {
            let _ = decode(&bytes, expected);
            let _ = decode_metadata(&bytes, expected);
        }

        #[test]
        fn damaged_listings_stay_safe(entries in listings(), at in any::<usize>(), value in any::<u8>()) {
            let mut bytes = encode(&entries).concat();
            prop_assume!(!bytes.is_empty());
            let at = at % bytes.len();
            bytes[at] = value;
            if let Ok(decoded) = decode(&bytes, entries.len() as u64) {
                for entry in decoded {
                    prop_assert!(entry.path.split(|c| *c == b'/').all(is_plain_name));
                }
            }
        }

        #[test]
        fn metadata_round_trip(all in proptest::collection::vec((0..0o10000u16, any::<i64>(), 0..1_000_000_000u32), 0..50)) {
            let all: Vec<Metadata> = all.into_iter().map(|(mode, mtime, nanos)| Metadata { mode, mtime, nanos }).collect();
            prop_assert_eq!(decode_metadata(&encode_metadata(&all).concat(), all.len() as u64), Ok(all));
        }
    }
}
