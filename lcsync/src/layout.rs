//! Layout of a share's content stream: its files, in packs of small ones and in large ones.

use std::ops::Range;

use crate::block::MAX_BLOCK;
use crate::listing::{Entry, Kind};

/// Bytes from which on a pack of small files may end.
const MIN_PACK: u64 = 64 << 10;

/// The files of a share, laid end to end in the order of the listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    files: Vec<FileSpan>,
    length: u64,
}

/// Position of a file, not empty, in the content stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileSpan {
    file: usize,
    start: u64,
    size: u64,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index of the file among the listing's entries.
    pub file: usize,
    /// Offset in the file.
    pub offset: u64,
    /// Length in bytes; never 0.
    pub length: usize,
    /// Offset in the stream.
    pub at: u64,
}

/// A part of the content stream that is cut into blocks on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Offset in the stream.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Its file, if larger than a block; else it is a pack of files, and one block.
    pub file: Option<usize>,
}

impl Layout {
    /// Makes the layout of these entries; `None` if the sizes exceed 2^63 - 1, the longest file.
    #[must_use]
    pub fn new(entries: &[Entry]) -> Option<Self> {
        let mut layout = Self::default();
        for (file, entry) in entries.iter().enumerate() {
            if let Kind::File { size, .. } = entry.kind
                && size > 0
            {
                layout.files.push(FileSpan {
                    file,
                    start: layout.length,
                    size,
                });
                layout.length = layout.length.checked_add(size)?;
                i64::try_from(layout.length).ok()?;
            }
        }
        Some(layout)
    }

    /// Reduces it to these entries, which are numbered from 0; the stream stays the same.
    #[must_use]
    pub fn of(mut self, chosen: &Range<usize>) -> Self {
        self.files.retain(|span| chosen.contains(&span.file));
        for span in &mut self.files {
            span.file -= chosen.start;
        }
        self
    }

    /// Bytes of the content stream.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the pieces of files in `start .. start + length` of the stream.
    pub fn pieces(&self, start: u64, length: u64) -> impl Iterator<Item = Piece> + '_ {
        let end = start + length;
        let first = self.files.partition_point(|f| f.start + f.size <= start);
        self.files[first..]
            .iter()
            .take_while(move |f| f.start < end)
            .map(move |f| {
                let from = start.max(f.start);
                let to = end.min(f.start + f.size);
                Piece {
                    file: f.file,
                    offset: from - f.start,
                    length: (to - from) as usize,
                    at: from,
                }
            })
    }

    /// Cuts the stream for sharing. A file larger than a block has its own blocks (see
    /// [`cut`](crate::cut)); smaller ones are packed. A pack ends when it is full or, from 64 KiB
    /// on, after a name with a certain hash. So a changed file changes only the packs around it.
    pub fn parts(&self, entries: &[Entry]) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut pack = Part {
            start: 0,
            length: 0,
            file: None,
        };
        let close = |parts: &mut Vec<Part>, pack: &mut Part| {
            if pack.length > 0 {
                parts.push(*pack);
            }
            *pack = Part {
                start: pack.start + pack.length,
                length: 0,
                file: None,
            };
        };
        for span in &self.files {
            if pack.length + span.size > MAX_BLOCK as u64 {
                close(&mut parts, &mut pack);
            }
            pack.length += span.size;
            let large = span.size > MAX_BLOCK as u64;
            pack.file = large.then_some(span.file);
            if large || (pack.length >= MIN_PACK && ends_pack(&entries[span.file].path)) {
                close(&mut parts, &mut pack);
            }
        }
        close(&mut parts, &mut pack);
        parts
    }
}

/// True for one path in 64.
fn ends_pack(path: &[u8]) -> bool {
    blake3::hash(path).as_bytes()[0] & 0x3f == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(sizes: &[u64]) -> Vec<Entry> {
        sizes
            .iter()
            .enumerate()
            .map(|(n, size)| Entry {
                path: format!("f{n:07}").into_bytes(),
                kind: Kind::File {
                    size: *size,
                    executable: false,
                },
            })
            .collect()
    }

    fn parts_of(entries: &[Entry]) -> Vec<Part> {
        Layout::new(entries).unwrap().parts(entries)
    }

    #[test]
    fn many_small_files_need_few_blocks() {
        let parts = parts_of(&entries(&[1024; 100_000]));
        assert!(parts.len() < 1_200, "{}", parts.len());
    }

    #[test]
    fn a_file_in_front_changes_few_packs() {
        let lengths = |parts: &[Part]| parts.iter().map(|p| p.length).collect::<Vec<_>>();
        let old = entries(&[1000; 5_000]);
        let mut new = old.clone();
        new.insert(
            0,
            Entry {
                path: b"a".to_vec(),
                kind: Kind::File {
                    size: 5,
                    executable: false,
                },
            },
        );
        let (old, new) = (lengths(&parts_of(&old)), lengths(&parts_of(&new)));
        let same = old
            .iter()
            .rev()
            .zip(new.iter().rev())
            .take_while(|(a, b)| a == b)
            .count();
        assert!(same + 4 >= old.len(), "{same} of {}", old.len());
    }

    #[test]
    fn sizes_beyond_all_numbers_are_refused() {
        for sizes in [[u64::MAX, 1], [1 << 62, 1 << 62]] {
            assert!(Layout::new(&entries(&sizes)).is_none());
        }
    }

    #[test]
    fn of_a_part_only_its_files_have_pieces() {
        let all = Layout::new(&entries(&[10, 0, 20, 30, 5])).unwrap();
        let part = all.clone().of(&(2..4));
        let pieces: Vec<_> = part
            .pieces(0, 65)
            .map(|p| (p.file, p.at, p.length))
            .collect();
        assert_eq!(pieces, [(0, 10, 20), (1, 30, 30)]);
        assert_eq!(part.pieces(0, 10).count(), 0);
        assert_eq!(part.length(), all.length());
        assert_eq!(all.clone().of(&(0..5)), all);
    }

    proptest! {
        #[test]
        fn parts_and_pieces_cover_everything_once(
            sizes in proptest::collection::vec(prop_oneof![Just(0), 1..5000u64, 200_000..300_000u64, 500_000..900_000u64], 0..40)
        ) {
            let entries = entries(&sizes);
            let layout = Layout::new(&entries).unwrap();
            let mut seen = vec![0; sizes.len()];
            let mut at = 0;
            for part in layout.parts(&entries) {
                let pieces: Vec<Piece> = layout.pieces(part.start, part.length).collect();
                match part.file {
                    Some(file) => prop_assert_eq!((pieces.len(), pieces[0].file), (1, file)),
                    None => prop_assert!(part.length > 0 && part.length <= MAX_BLOCK as u64),
                }
                prop_assert_eq!(part.start, at);
                at += part.length;
                prop_assert_eq!(pieces.iter().map(|p| p.length as u64).sum::<u64>(), part.length);
                for piece in pieces {
                    // parts are made of whole files
                    prop_assert_eq!((piece.offset, piece.length as u64), (0, sizes[piece.file]));
                    seen[piece.file] += piece.length as u64;
                }
            }
            prop_assert_eq!(at, layout.length());
            prop_assert_eq!(seen, sizes);
        }
    }
}
