//! The files of a share, and which parts of them the page has.

use std::collections::{BTreeSet, HashMap, VecDeque};

use lcsync::block::{BlockHash, BlockRef};
use lcsync::listing::{Kind, shown};
use lcsync::receive::tree::Tree;
use serde::Serialize;

/// Most bytes of files that are fetched and not whole. Chosen: browsers hold them without harm.
pub const MAX_BYTES: u64 = 1_000_000_000;
/// Most files of a share that a page shows.
pub const MAX_FILES: usize = 1_000;

/// A part of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// Number of the file.
    pub file: usize,
    /// Offset in the file.
    pub offset: u64,
    /// Verified bytes.
    pub bytes: Vec<u8>,
}

/// A file, for the page.
#[derive(Debug, Serialize)]
pub struct File {
    /// Its path, harmless to show.
    name: String,
    /// Its name as a download, which is not hidden.
    download: String,
    size: u64,
    /// Bytes that the page has.
    got: u64,
    /// Whether the user has asked for it.
    wanted: bool,
    /// Offsets of the pieces that the page has.
    #[serde(skip)]
    pieces: BTreeSet<u64>,
}

impl File {
    fn is_missing(&self) -> bool {
        self.wanted && self.got < self.size
    }
}

/// Returns a name without folders that no program reads as its configuration.
fn download(name: &str) -> String {
    let flat = name.replace('/', "_");
    match flat.strip_prefix(['.', '-']) {
        Some(rest) => format!("_{rest}"),
        None => flat,
    }
}

/// All files of a version.
#[derive(Debug)]
pub struct Files {
    tree: Tree,
    files: Vec<File>,
    /// Numbers of files by their entries.
    of_entry: HashMap<usize, usize>,
    /// Places of each block in the stream.
    places: HashMap<BlockHash, Vec<u64>>,
    pieces: VecDeque<Piece>,
}

impl Files {
    /// Returns the files of a tree; `name`: that of a single file.
    ///
    /// # Errors
    /// There are too many for a page.
    pub fn new(tree: Tree, name: &str) -> Result<Self, String> {
        if tree.files() > MAX_FILES {
            return Err(format!(
                "{} files were sent, and a page takes {MAX_FILES} at most: on a host `lcsync receive` takes them all.",
                tree.files()
            ));
        }
        let mut files = Vec::new();
        let mut of_entry = HashMap::new();
        for (entry, found) in tree.entries.iter().enumerate() {
            let Kind::File { size, .. } = found.kind else {
                continue;
            };
            of_entry.insert(entry, files.len());
            let path = shown(&found.path);
            let name = if path.is_empty() { name } else { &path };
            files.push(File {
                name: name.to_owned(),
                download: download(name),
                size,
                got: 0,
                wanted: false,
                pieces: BTreeSet::new(),
            });
        }
        let mut places: HashMap<BlockHash, Vec<u64>> = HashMap::new();
        let mut at = 0;
        for leaf in &tree.leaves {
            places.entry(leaf.hash).or_default().push(at);
            at += u64::from(leaf.length);
        }
        Ok(Self {
            tree,
            files,
            of_entry,
            places,
            pieces: VecDeque::new(),
        })
    }

    /// Returns the files, for the page.
    pub fn all(&self) -> &[File] {
        &self.files
    }

    /// Returns whether something of the share is not a file, and left out.
    pub fn has_others(&self) -> bool {
        let is_left_out = |kind: &Kind| !matches!(kind, Kind::File { .. } | Kind::Folder);
        self.tree.is_incomplete() || self.tree.entries.iter().any(|e| is_left_out(&e.kind))
    }

    /// Asks for files by their numbers; those that are whole are asked for anew.
    ///
    /// # Errors
    /// They are too large for a page.
    pub fn want(&mut self, numbers: &[usize]) -> Result<(), String> {
        let size = |n: &usize| self.files.get(*n).map_or(0, |file| file.size);
        let missing = self.files.iter().filter(|file| file.is_missing());
        let bytes: u64 = numbers.iter().map(size).sum();
        if missing.map(|file| file.size).sum::<u64>() + bytes > MAX_BYTES {
            return Err(
                "A page holds at most 1 GB at a time: take the files one by one, or on a host `lcsync receive`, which has no such limit.".into(),
            );
        }
        for n in numbers {
            if let Some(file) = self.files.get_mut(*n)
                && !file.is_missing()
            {
                (file.wanted, file.got) = (true, 0);
                file.pieces.clear();
            }
        }
        Ok(())
    }

    /// Returns the blocks that wanted files lack, and all blocks.
    pub fn missing(&self) -> (Vec<BlockRef>, &[BlockRef]) {
        let mut at = 0;
        let mut wanted = Vec::new();
        for leaf in &self.tree.leaves {
            let length = u64::from(leaf.length);
            let mut pieces = self.tree.layout.pieces(at, length);
            if pieces.any(|piece| self.lacks(piece.file, piece.offset)) {
                wanted.push(*leaf);
            }
            at += length;
        }
        (wanted, &self.tree.leaves)
    }

    fn lacks(&self, entry: usize, offset: u64) -> bool {
        let file = self.of_entry.get(&entry).map(|n| &self.files[*n]);
        file.is_some_and(|file| file.is_missing() && !file.pieces.contains(&offset))
    }

    /// Takes a verified block.
    pub fn take(&mut self, block: BlockRef, bytes: &[u8]) {
        for at in self.places.get(&block.hash).into_iter().flatten() {
            for piece in self.tree.layout.pieces(*at, u64::from(block.length)) {
                let Some(number) = self.of_entry.get(&piece.file) else {
                    continue;
                };
                let file = &mut self.files[*number];
                let begin = usize::try_from(piece.at - at).unwrap_or(usize::MAX);
                let Some(part) = bytes.get(begin..begin.saturating_add(piece.length)) else {
                    continue;
                };
                if !file.is_missing() || file.pieces.contains(&piece.offset) {
                    continue;
                }
                file.pieces.insert(piece.offset);
                file.got += part.len() as u64;
                self.pieces.push_back(Piece {
                    file: *number,
                    offset: piece.offset,
                    bytes: part.to_vec(),
                });
            }
        }
    }

    /// Returns the next piece for the page.
    pub fn poll_piece(&mut self) -> Option<Piece> {
        self.pieces.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_neither_hidden_nor_an_option() {
        for (name, saved) in [
            ("a/b.c", "a_b.c"),
            (".ssh/authorized_keys", "_ssh_authorized_keys"),
            ("-rf", "_rf"),
        ] {
            assert_eq!(download(name), saved);
        }
    }
}
