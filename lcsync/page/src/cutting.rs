//! Chosen files of a browser, cut into blocks from slices that the page reads one after the other.

use std::collections::{BTreeSet, HashMap};
use std::ops::{Deref, Range};

use lcsync::block::{BlockRef, MAX_BLOCK};
use lcsync::gear::next_length;
use lcsync::layout::{Layout, Part};
use lcsync::listing::{Entry, Kind, Metadata, compare_paths};
use lcsync::outline::{Described, Leaves, Outline};
use lcsync::tree::RootKind;
use serde::{Deserialize, Serialize};

/// Most bytes that are read at once. Chosen: a phone reads them in some tens of milliseconds.
const READ: u64 = 8 * MAX_BLOCK as u64;
/// Permissions of sent files, and of their folder: a browser knows none.
const MODES: (u16, u16) = (0o644, 0o755);

/// A file that the user has chosen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// Its name: no two are equal.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Milliseconds since 1970 of its last change.
    pub modified: i64,
}

/// A part of a chosen file, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Slice {
    /// Number of the file.
    pub file: usize,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes.
    pub length: usize,
}

/// Blocks of cut parts, by the numbers of their files.
pub type Known = HashMap<Vec<usize>, Vec<BlockRef>>;

/// A version of the files, without their contents.
#[derive(Debug)]
pub struct Sent {
    outline: Outline,
    /// Number of the chosen file of each entry.
    numbers: Vec<usize>,
}

impl Deref for Sent {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        &self.outline
    }
}

impl Sent {
    /// Returns the slices of a stretch of the content.
    pub fn slices(&self, at: u64, length: u64) -> Vec<Slice> {
        slices(self.layout(), &self.numbers, at..at + length)
    }
}

fn slices(layout: &Layout, numbers: &[usize], stretch: Range<u64>) -> Vec<Slice> {
    let slice = |piece: lcsync::layout::Piece| Slice {
        file: numbers[piece.file],
        offset: piece.offset,
        length: piece.length,
    };
    let length = stretch.end - stretch.start;
    layout.pieces(stretch.start, length).map(slice).collect()
}

/// A version under construction.
#[derive(Debug)]
pub struct Cutting {
    entries: Vec<Entry>,
    /// Of the folder, then of each entry.
    metadata: Vec<Metadata>,
    numbers: Vec<usize>,
    is_incomplete: bool,
    layout: Layout,
    parts: Vec<Part>,
    /// Number of the part that is cut.
    part: usize,
    /// Offset in it of the first byte of `buffer`.
    at: u64,
    buffer: Vec<u8>,
    /// Its blocks before that.
    cut: Vec<BlockRef>,
}

impl Cutting {
    /// Begins with all files but the lost ones.
    ///
    /// # Errors
    /// They are too large.
    pub fn new(files: &[Chosen], lost: &BTreeSet<usize>) -> Result<Self, String> {
        let mut numbers: Vec<usize> = (0..files.len()).filter(|n| !lost.contains(n)).collect();
        let path = |n: usize| files[n].name.as_bytes();
        numbers.sort_by(|a, b| compare_paths(path(*a), path(*b)));
        let entry = |n: &usize| Entry {
            path: path(*n).to_vec(),
            kind: Kind::File {
                size: files[*n].size,
                executable: false,
            },
        };
        let entries: Vec<Entry> = numbers.iter().map(entry).collect();
        let of_file = |n: &usize| metadata(MODES.0, files[*n].modified);
        let folder = metadata(MODES.1, 0);
        let layout = Layout::new(&entries).ok_or("The files are too large.")?;
        Ok(Self {
            metadata: std::iter::once(folder)
                .chain(numbers.iter().map(of_file))
                .collect(),
            parts: layout.parts(&entries),
            is_incomplete: !lost.is_empty(),
            entries,
            numbers,
            layout,
            part: 0,
            at: 0,
            buffer: Vec::new(),
            cut: Vec::new(),
        })
    }

    fn files_of(&self, part: Part) -> Vec<usize> {
        let pieces = self.layout.pieces(part.start, part.length);
        pieces.map(|piece| self.numbers[piece.file]).collect()
    }

    /// Returns the slices to be read next; none: all parts are cut.
    pub fn next_read(&mut self, known: &Known) -> Option<Vec<Slice>> {
        while let Some(part) = self.parts.get(self.part).copied() {
            let read = self.at + self.buffer.len() as u64;
            if read > 0 || !known.contains_key(&self.files_of(part)) {
                let from = part.start + read;
                let stretch = from..from + (part.length - read).min(READ);
                return Some(slices(&self.layout, &self.numbers, stretch));
            }
            self.part += 1;
        }
        None
    }

    /// Takes the bytes of these slices.
    pub fn take(&mut self, bytes: &[u8], known: &mut Known) {
        let Some(part) = self.parts.get(self.part).copied() else {
            return;
        };
        self.buffer.extend_from_slice(bytes);
        let mut from = 0;
        loop {
            let (rest, left) = (&self.buffer[from..], part.length - self.at);
            let length = match rest.first_chunk::<MAX_BLOCK>() {
                _ if rest.is_empty() => break,
                Some(full) if left > MAX_BLOCK as u64 => next_length(full),
                _ if rest.len() as u64 == left => rest.len(),
                _ => break,
            };
            self.cut.push(BlockRef::of(&rest[..length]));
            from += length;
            self.at += length as u64;
        }
        self.buffer.drain(..from);
        if self.at == part.length {
            debug_assert!(self.buffer.is_empty(), "reads end with their part");
            known.insert(self.files_of(part), std::mem::take(&mut self.cut));
            self.part += 1;
            self.at = 0;
        }
    }

    /// Returns the bytes that are read, of all.
    pub fn progress(&self) -> (u64, u64) {
        let before = self.parts.get(self.part).map(|part| part.start);
        let all = self.layout.length();
        let read = before.map(|start| start + self.at + self.buffer.len() as u64);
        (read.unwrap_or(all), all)
    }

    /// Returns the version, once all parts are cut.
    ///
    /// # Errors
    /// Nobody could fetch it.
    pub fn finish(self, known: &Known) -> Result<Sent, String> {
        let parts = self.parts.iter().map(|part| self.files_of(*part));
        let blocks = parts.filter_map(|files| known.get(&files));
        let leaves: Vec<BlockRef> = blocks.flatten().copied().collect();
        let described = Described {
            kind: RootKind::Folder,
            entries: &self.entries,
            metadata: &self.metadata,
            incomplete: self.is_incomplete,
        };
        let leaves = Leaves {
            all: &leaves,
            in_stretches: &[],
            carrier: None,
        };
        let outline = Outline::new(described, self.layout.clone(), leaves, b"");
        Ok(Sent {
            outline: outline.map_err(|e| format!("These files cannot be sent: {e}."))?,
            numbers: self.numbers,
        })
    }
}

fn metadata(mode: u16, modified: i64) -> Metadata {
    Metadata {
        mode,
        mtime: modified.div_euclid(1_000),
        nanos: modified.rem_euclid(1_000) as u32 * 1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(name: &str, bytes: &[u8]) -> Chosen {
        Chosen {
            name: name.into(),
            size: bytes.len() as u64,
            modified: 1_800_000_000_250,
        }
    }

    /// Cuts all; returns the version and the bytes that were read.
    fn cut(files: &[(&str, Vec<u8>)], lost: &BTreeSet<usize>, known: &mut Known) -> (Sent, u64) {
        let all: Vec<Chosen> = files.iter().map(|(n, bytes)| chosen(n, bytes)).collect();
        let mut cutting = Cutting::new(&all, lost).unwrap();
        let mut read = 0;
        while let Some(slices) = cutting.next_read(known) {
            let bytes = |slice: &Slice| {
                let from = usize::try_from(slice.offset).unwrap();
                files[slice.file].1[from..from + slice.length].to_vec()
            };
            let bytes: Vec<u8> = slices.iter().flat_map(bytes).collect();
            assert!(bytes.len() as u64 <= READ);
            read += bytes.len() as u64;
            cutting.take(&bytes, known);
        }
        (cutting.finish(known).unwrap(), read)
    }

    fn noise(seed: u32, length: u32) -> Vec<u8> {
        let step = |n: u32| (n.wrapping_mul(2_654_435_761) ^ seed).rotate_left(n % 31) as u8;
        (0..length).map(step).collect()
    }

    #[test]
    fn slices_make_the_tree_that_lcsync_makes_of_the_files() {
        let files = [
            ("video.mp4", noise(1, 5_000_000)),
            ("a.txt", noise(2, 700)),
            ("empty", Vec::new()),
            ("z.jpg", noise(3, 262_144)),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in &files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let cache = &mut lcsync::index::HashCache::default();
        let index = lcsync::index::Index::build(folder.path(), b"", cache).unwrap();
        let (sent, read) = cut(&files, &BTreeSet::new(), &mut Known::default());
        assert_eq!((sent.root, sent.files()), (index.root, 4));
        assert_eq!(read, 5_000_000 + 700 + 262_144);
    }

    #[test]
    fn a_lost_file_is_left_out_and_others_are_not_read_again() {
        let files = [
            ("a", noise(1, 3_000_000)),
            ("b", noise(2, 2_000_000)),
            ("c", noise(3, 10)),
        ];
        let mut known = Known::default();
        let (whole, _) = cut(&files, &BTreeSet::new(), &mut known);
        let (rest, read) = cut(&files, &BTreeSet::from([1]), &mut known);
        assert_ne!(rest.root, whole.root);
        assert_eq!((rest.files(), rest.bytes(), read), (2, 3_000_010, 0));
    }
}
