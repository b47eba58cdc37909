//! Which bytes of which files the content stream of a share consists of, and where it is cut into blocks.

use crate::block::MAX_BLOCK;
use crate::listing::{Entry, Kind};

/// A pack of small files may end from here on.
const MIN_PACK: usize = 64 << 10;

/// The files of a share, laid end to end in the order of the listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    files: Vec<FileSpan>,
    length: u64,
}

/// Where a file that is not empty lies in the content stream.
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
    /// Where in the file.
    pub offset: u64,
    /// How many bytes; never 0.
    pub length: usize,
}

/// A block of the content stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Where in the stream.
    pub start: u64,
    /// Bytes, at most [`MAX_BLOCK`].
    pub length: usize,
}

impl Layout {
    /// The layout of these entries; `None` if the sizes add up to more than 2^63 - 1, the longest that a file can be.
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

    /// Bytes of the content stream.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The pieces of files that lie in `start .. start + length` of the stream.
    pub fn pieces(&self, start: u64, length: usize) -> impl Iterator<Item = Piece> + '_ {
        let end = start + length as u64;
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
                }
            })
    }

    /// Where this program cuts the stream when it shares. A file larger than a block begins one and has its
    /// blocks for itself; smaller ones are packed. A pack ends when it is full, or from 64 KiB on after a
    /// file whose name says so: a file that comes, goes or grows then changes the packs around it only.
    #[must_use]
    pub fn cuts(&self, entries: &[Entry]) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let mut pack = Cut {
            start: 0,
            length: 0,
        };
        let close = |cuts: &mut Vec<Cut>, pack: &mut Cut| {
            if pack.length > 0 {
                cuts.push(*pack);
            }
            *pack = Cut {
                start: pack.start + pack.length as u64,
                length: 0,
            };
        };
        for span in &self.files {
            if span.size > MAX_BLOCK as u64 {
                close(&mut cuts, &mut pack);
                let mut left = span.size;
                while left > 0 {
                    pack.length = left.min(MAX_BLOCK as u64) as usize;
                    left -= pack.length as u64;
                    close(&mut cuts, &mut pack);
                }
                continue;
            }
            if pack.length + span.size as usize > MAX_BLOCK {
                close(&mut cuts, &mut pack);
            }
            pack.length += span.size as usize;
            if pack.length >= MIN_PACK && ends_pack(&entries[span.file].path) {
                close(&mut cuts, &mut pack);
            }
        }
        close(&mut cuts, &mut pack);
        cuts
    }
}

/// One path in 64.
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

    fn cuts_of(sizes: &[u64]) -> Vec<Cut> {
        let entries = entries(sizes);
        Layout::new(&entries).unwrap().cuts(&entries)
    }

    #[test]
    fn many_small_files_need_few_blocks() {
        let cuts = cuts_of(&[1024; 100_000]);
        assert!(cuts.len() < 1_200, "{}", cuts.len());
    }

    #[test]
    fn a_file_in_front_changes_few_packs() {
        let lengths = |cuts: &[Cut]| cuts.iter().map(|c| c.length).collect::<Vec<_>>();
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
        let old = lengths(&Layout::new(&old).unwrap().cuts(&old));
        let new = lengths(&Layout::new(&new).unwrap().cuts(&new));
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

    proptest! {
        #[test]
        fn cuts_and_pieces_cover_everything_once(
            sizes in proptest::collection::vec(prop_oneof![Just(0), 1..5000u64, 200_000..300_000u64, 500_000..900_000u64], 0..40)
        ) {
            let entries = entries(&sizes);
            let layout = Layout::new(&entries).unwrap();
            let mut seen = vec![0; sizes.len()];
            let mut at = 0;
            for cut in layout.cuts(&entries) {
                prop_assert!(cut.length > 0 && cut.length <= MAX_BLOCK);
                prop_assert_eq!(cut.start, at);
                at += cut.length as u64;
                let mut total = 0;
                for piece in layout.pieces(cut.start, cut.length) {
                    prop_assert_eq!(piece.offset, seen[piece.file]);
                    seen[piece.file] += piece.length as u64;
                    total += piece.length;
                }
                prop_assert_eq!(total, cut.length);
            }
            prop_assert_eq!(at, layout.length());
            prop_assert_eq!(seen, sizes);
        }
    }
}
