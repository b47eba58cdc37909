//! Comparison of a share with DEST, and assembly of its files.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use nix::libc;
use nix::sys::stat::{FileStat, fstat};

use super::modes::Modes;
use super::moved::{Candidate, Moved, other_files};
use crate::block::{BlockHash, BlockRef, MAX_BLOCK};
use crate::cut::zeroes;
use crate::layout::{Layout, Piece};
use crate::listing::{Entry, Kind, parent_of, shown};
use crate::local::content::write_sparse;
use crate::place::{Found, Place, system_time};

/// Most partial files kept open.
const MAX_OPEN: usize = 64;
/// Most whole files that wait to be renamed into place together.
const MAX_FINISHED: usize = 20_000;
/// Most files flushed to disk one by one; more share one sync of the file system.
const MAX_SYNCED_ALONE: usize = 8;

/// A block of the content stream.
#[derive(Debug, Clone, Copy)]
struct Leaf {
    start: u64,
    block: BlockRef,
    found: Option<Preference>,
}

/// Place in which a block's pieces were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preference {
    /// All in the files at DEST.
    Dest,
    /// In partial files, if they exist, else at DEST.
    Staged,
    /// At DEST if the file has its right size, else in partial files.
    RightSize,
    /// At another path below DEST.
    Moved,
}

/// A file of the listing.
#[derive(Debug, Clone, Copy, Default)]
struct FileState {
    /// Size of the regular file at DEST.
    dest: Option<u64>,
    /// A folder is at its path.
    in_the_way: bool,
    /// A partial file existed.
    staged: bool,
    /// Its partial file was opened for writing.
    opened: bool,
    /// DEST has it, byte for byte.
    current: bool,
    /// Bytes to be fetched.
    missing: u64,
    /// The partial file is whole.
    whole: bool,
}

/// The plan, and its progress.
#[derive(Debug)]
pub struct Plan<'a> {
    entries: &'a [Entry],
    modes: Modes<'a>,
    layout: Layout,
    leaves: Vec<Leaf>,
    files: Vec<FileState>,
    wanted: HashMap<BlockHash, Vec<usize>>,
    /// Device and inode of files at DEST, as they were compared.
    compared: RefCell<HashMap<usize, (u64, u64)>>,
    open: HashMap<usize, File>,
    finished: Vec<usize>,
    moved: Moved,
    /// Files at DEST are being copied from, and must not be replaced yet.
    copying: bool,
    /// Pages of zeroes become holes.
    pub sparse: bool,
    force: bool,
    /// Folders are made, and entries in the way removed.
    cleared: bool,
    /// Folders were made; their names are not on disk yet.
    made_folders: bool,
    /// Files made, in order.
    pub installed: Vec<usize>,
    /// Entries that could not be made, with the reason.
    pub failures: Vec<String>,
}

/// Last files opened for reading: pieces come in order.
#[derive(Default)]
struct Readers {
    dest: Option<(usize, File)>,
    staged: Option<(usize, File)>,
    moved: Option<(usize, File)>,
}

impl<'a> Plan<'a> {
    /// Compares DEST with the wanted entries. `layout` and `leaves` describe the whole content
    /// stream. Without a `place`, DEST is empty.
    pub fn compare(
        entries: &'a [Entry],
        modes: Modes<'a>,
        (layout, leaves): (Layout, &[BlockRef]),
        place: Option<&mut Place>,
    ) -> anyhow::Result<Self> {
        let mut start = 0;
        let mut leaves: Vec<Leaf> = leaves
            .iter()
            .map(|block| {
                let leaf = Leaf {
                    start,
                    block: *block,
                    found: None,
                };
                start += u64::from(block.length);
                leaf
            })
            .collect();
        anyhow::ensure!(start == layout.length(), "listing and content do not agree");
        leaves.retain(|leaf| {
            let mut pieces = layout.pieces(leaf.start, leaf.block.length.into());
            pieces.next().is_some()
        });
        let mut plan = Self {
            entries,
            modes,
            layout,
            leaves,
            files: vec![FileState::default(); entries.len()],
            wanted: HashMap::new(),
            compared: RefCell::default(),
            open: HashMap::new(),
            finished: Vec::new(),
            moved: Moved::default(),
            copying: false,
            sparse: false,
            force: false,
            cleared: false,
            made_folders: false,
            installed: Vec::new(),
            failures: Vec::new(),
        };
        if let Some(place) = place {
            plan.look(place)?;
            plan.find_leaves(place);
            plan.find_moved(place);
        }
        plan.sort_out();
        Ok(plan)
    }

    /// Blocks to be fetched.
    pub fn wanted(&self) -> impl Iterator<Item = BlockRef> + '_ {
        // in stream order, so that files become whole one after the other
        let mut seen = HashSet::new();
        self.leaves
            .iter()
            .filter(|l| l.found.is_none() && self.wanted.contains_key(&l.block.hash))
            .map(|l| l.block)
            .filter(move |b| seen.insert(b.hash))
    }

    /// Missing packs of files that may be unchanged; fetching a pack shows which of them are.
    pub fn uncertain(&self) -> Vec<BlockRef> {
        let has_candidate = |leaf: &&Leaf| {
            self.layout
                .pieces(leaf.start, leaf.block.length.into())
                .any(|p| self.is_whole(p) && self.has_right_size(p.file))
        };
        self.leaves
            .iter()
            .filter(|l| l.found.is_none())
            .filter(has_candidate)
            .map(|l| l.block)
            .collect()
    }

    /// Compares the files in a pack with those at DEST, without writing.
    pub fn settle(&mut self, block: BlockRef, bytes: &[u8], place: &mut Place) {
        for n in self.wanted.get(&block.hash).cloned().unwrap_or_default() {
            for (piece, part) in self.parts(n, bytes) {
                if self.is_whole(piece) && self.has_right_size(piece.file) {
                    self.files[piece.file].current = self.is_at_dest(piece, part, place);
                }
            }
        }
    }

    /// Entries that are files and differ at DEST.
    pub fn changed_files(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.files.len()).filter(|n| {
            matches!(self.entries[*n].kind, Kind::File { .. }) && !self.files[*n].current
        })
    }

    /// Assembles files from present blocks. With `force`, full folders may give way to files.
    pub fn begin(&mut self, place: &mut Place, force: bool) -> anyhow::Result<()> {
        self.force = force;
        self.copying = true;
        self.copy_found(place)?;
        self.copying = false;
        for n in self.changed_files().collect::<Vec<_>>() {
            if self.files[n].missing == 0 && !self.files[n].whole {
                self.finish_file(n, place)?;
            }
        }
        Ok(())
    }

    /// Writes a wanted block.
    pub fn put(&mut self, block: BlockRef, bytes: &[u8], place: &mut Place) -> anyhow::Result<()> {
        for n in self.wanted.remove(&block.hash).unwrap_or_default() {
            for (piece, part) in self.parts(n, bytes) {
                self.put_piece(piece, part, place)?;
            }
        }
        Ok(())
    }

    /// Whether the partial files are of no more use: all whole ones have been renamed.
    pub fn is_placed(&self) -> bool {
        self.wanted.is_empty()
            && self.installed.len() == self.files.iter().filter(|f| f.whole).count()
    }

    /// Renames whole files into place; must be called at the end once more.
    pub fn flush(&mut self, place: &mut Place) -> anyhow::Result<()> {
        if !std::mem::replace(&mut self.cleared, true) {
            self.make_folders(place)?;
            self.clear_the_way(place)?;
        }
        let few = self.finished.len() <= MAX_SYNCED_ALONE && !self.made_folders;
        if !few {
            self.open.clear();
            place.sync()?;
        }
        for n in std::mem::take(&mut self.finished) {
            let path = &self.entries[n].path;
            if few && let Some(file) = self.open.get(&n) {
                file.sync_all()?;
            }
            self.open.remove(&n);
            match place.install(path) {
                Ok(()) => {
                    self.installed.push(n);
                    if few {
                        place.sync_parent(path)?;
                    }
                }
                Err(e) => self.failures.push(format!("{}: {e}", shown(path))),
            }
        }
        if !few {
            // this also writes renames to disk
            place.sync()?;
            self.made_folders = false;
        }
        Ok(())
    }

    /// Makes all folders; not before files are whole, so that an interruption changes nothing.
    fn make_folders(&mut self, place: &mut Place) -> io::Result<()> {
        for (n, entry) in self.entries.iter().enumerate() {
            if entry.kind != Kind::Folder {
                continue;
            }
            let mode = self.modes.bits(n, &entry.kind, None);
            let result = match place.look(&entry.path)? {
                Some(Found::Folder) => Ok(()),
                None => {
                    self.made_folders = true;
                    place.make_folder(&entry.path, mode)
                }
                Some(_) => place
                    .make_way(&entry.path, false)
                    .and_then(|()| place.make_folder(&entry.path, mode)),
            };
            if let Err(e) = result {
                self.failures.push(format!("{}: {e}", shown(&entry.path)));
            }
        }
        Ok(())
    }

    /// Removes folders at paths of files.
    fn clear_the_way(&mut self, place: &mut Place) -> io::Result<()> {
        for n in self.changed_files().collect::<Vec<_>>() {
            let path = &self.entries[n].path;
            if self.files[n].in_the_way
                && place.look(path)? == Some(Found::Folder)
                && let Err(e) = place.make_way(path, self.force)
            {
                let name = shown(path);
                self.failures.push(format!(
                    "{name}: in the way is a folder: {e} (--delete removes it)"
                ));
            }
        }
        Ok(())
    }

    /// Returns for each entry whether it is a file just made, with mode and time.
    pub fn made(&self) -> Vec<bool> {
        let mut made = vec![false; self.entries.len()];
        self.installed.iter().for_each(|n| made[*n] = true);
        made
    }

    /// Modes and times of the entries.
    #[must_use]
    pub fn modes(&self) -> Modes<'a> {
        self.modes
    }

    /// Bytes that the new files will take on disk, without holes and present parts.
    pub fn room_needed(&self, place: &mut Place) -> u64 {
        let mut holes = vec![0; self.files.len()];
        for leaf in self.leaves.iter().filter(|l| l.block == zeroes()) {
            let pieces = self.layout.pieces(leaf.start, leaf.block.length.into());
            pieces.for_each(|piece| holes[piece.file] += piece.length as u64);
        }
        let of = |n: usize| {
            let staged = self.files[n]
                .staged
                .then(|| place_of(place, &self.entries[n]));
            self.size_of(n)
                .saturating_sub(holes[n])
                .saturating_sub(staged.flatten().unwrap_or(0))
        };
        self.changed_files().map(of).fold(0, u64::saturating_add)
    }

    fn look(&mut self, place: &mut Place) -> io::Result<()> {
        let staged = place.staged_names().unwrap_or_default();
        // nothing is below these: with 100,000 files, it saves time not to look
        let mut absent: HashSet<&[u8]> = HashSet::new();
        for (n, entry) in self.entries.iter().enumerate() {
            let below_nothing = parent_of(&entry.path).is_some_and(|p| absent.contains(p));
            let found = match entry.kind {
                Kind::Link { .. } => continue,
                _ if below_nothing => None,
                _ => place.look(&entry.path)?,
            };
            if entry.kind == Kind::Folder {
                if found != Some(Found::Folder) {
                    absent.insert(&entry.path);
                }
                continue;
            }
            let file = &mut self.files[n];
            match found {
                Some(Found::File(size)) => file.dest = Some(size),
                Some(Found::Folder) => file.in_the_way = true,
                _ => {}
            }
            file.staged = !staged.is_empty() && staged.contains(&Place::staged_name(&entry.path));
        }
        Ok(())
    }

    fn find_leaves(&mut self, place: &mut Place) {
        let mut readers = Readers::default();
        let mut bytes = Vec::new();
        for n in 0..self.leaves.len() {
            let leaf = self.leaves[n];
            let tries = [Preference::Dest, Preference::Staged, Preference::RightSize];
            self.leaves[n].found = tries.into_iter().find(|preference| {
                self.worth_trying(leaf, *preference)
                    && self.read_leaf(leaf, *preference, place, &mut readers, &mut bytes)
                    && BlockHash::of(&bytes) == leaf.block.hash
            });
        }
    }

    /// Searches other files at DEST for missing blocks of large files (packs are not found there).
    fn find_moved(&mut self, place: &mut Place) {
        let here: HashSet<BlockHash> = self
            .leaves
            .iter()
            .filter(|l| l.found.is_some())
            .map(|l| l.block.hash)
            .collect();
        let mut missing = HashSet::new();
        let mut lacking = BTreeSet::new();
        for leaf in self.leaves.iter().filter(|l| l.found.is_none()) {
            let length = leaf.block.length.into();
            let large = self
                .layout
                .pieces(leaf.start, length)
                .find(|p| self.size_of(p.file) > MAX_BLOCK as u64);
            if let Some(piece) = large {
                lacking.insert(piece.file);
                if !here.contains(&leaf.block.hash) {
                    missing.insert(leaf.block);
                }
            }
        }
        if missing.is_empty() {
            return;
        }
        self.moved = Moved::find(self.candidates(&lacking, place), missing, place);
        for leaf in self.leaves.iter_mut().filter(|l| l.found.is_none()) {
            leaf.found = self.moved.has(leaf.block.hash).then_some(Preference::Moved);
        }
    }

    /// Files at DEST that may contain missing blocks: old versions, and files not in the share.
    fn candidates(&self, lacking: &BTreeSet<usize>, place: &mut Place) -> Vec<Candidate> {
        let own = lacking.iter().filter_map(|n| {
            Some(Candidate {
                rank: 0,
                path: self.entries[*n].path.clone(),
                size: self.files[*n].dest?,
            })
        });
        let mut candidates: Vec<Candidate> = own.collect();
        // DEST of a single file may be a folder full of other files
        if self.entries.len() > 1 {
            let known = self.entries.iter().map(|e| &e.path[..]).collect();
            let sizes = lacking.iter().map(|n| self.size_of(*n)).collect();
            candidates.extend(other_files(place, &known, &sizes));
        }
        candidates
    }

    fn size_of(&self, file: usize) -> u64 {
        match self.entries[file].kind {
            Kind::File { size, .. } => size,
            _ => 0,
        }
    }

    fn worth_trying(&self, leaf: Leaf, preference: Preference) -> bool {
        let pieces = self.layout.pieces(leaf.start, leaf.block.length.into());
        if pieces.map(|p| p.length as u64).sum::<u64>() < leaf.block.length.into() {
            // the pack has unwanted files, which are not at DEST
            return false;
        }
        let mut pieces = self.layout.pieces(leaf.start, leaf.block.length.into());
        match preference {
            Preference::Dest => pieces.all(|p| {
                self.files[p.file]
                    .dest
                    .is_some_and(|size| size >= p.offset + p.length as u64)
            }),
            Preference::Staged => pieces.any(|p| self.files[p.file].staged),
            Preference::Moved => self.moved.has(leaf.block.hash),
            Preference::RightSize => {
                let mut both = (false, false);
                for p in pieces {
                    both.0 |= self.files[p.file].staged;
                    both.1 |= self.has_right_size(p.file);
                }
                both == (true, true)
            }
        }
    }

    fn has_right_size(&self, file: usize) -> bool {
        matches!(self.entries[file].kind, Kind::File { size, .. } if self.files[file].dest == Some(size))
    }

    /// Whether a piece is taken from DEST, and not from a partial file.
    fn is_from_dest(&self, file: usize, preference: Preference) -> bool {
        match preference {
            Preference::Dest => true,
            Preference::Moved => false,
            Preference::Staged => !self.files[file].staged,
            Preference::RightSize => self.has_right_size(file) || !self.files[file].staged,
        }
    }

    fn read_leaf(
        &self,
        leaf: Leaf,
        preference: Preference,
        place: &mut Place,
        readers: &mut Readers,
        bytes: &mut Vec<u8>,
    ) -> bool {
        bytes.clear();
        if preference == Preference::Moved {
            let read = self
                .moved
                .read(leaf.block, place, &mut readers.moved, bytes);
            return read.is_ok();
        }
        self.layout
            .pieces(leaf.start, leaf.block.length.into())
            .all(|piece| {
                let start = bytes.len();
                bytes.resize(start + piece.length, 0);
                let dest = self.is_from_dest(piece.file, preference);
                self.read_piece(piece, dest, place, readers, &mut bytes[start..])
                    .is_ok()
            })
    }

    fn read_piece(
        &self,
        piece: Piece,
        dest: bool,
        place: &mut Place,
        readers: &mut Readers,
        out: &mut [u8],
    ) -> io::Result<()> {
        let slot = if dest {
            &mut readers.dest
        } else {
            &mut readers.staged
        };
        if slot.as_ref().is_none_or(|(n, _)| *n != piece.file) {
            let path = &self.entries[piece.file].path;
            let file = if dest {
                let file = place.open_file(path)?;
                self.compare_same(piece.file, &fstat(&file)?)?;
                Some(file)
            } else {
                place.open_staged(path)?
            };
            *slot = Some((piece.file, file.ok_or(io::ErrorKind::NotFound)?));
        }
        match slot {
            Some((_, file)) => file.read_exact_at(out, piece.offset),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Checks that all pieces of a file at DEST come from one file.
    fn compare_same(&self, n: usize, found: &FileStat) -> io::Result<()> {
        let identity = (found.st_dev, found.st_ino);
        let mut compared = self.compared.borrow_mut();
        match *compared.entry(n).or_insert(identity) == identity {
            true => Ok(()),
            false => Err(replaced()),
        }
    }

    /// Checks, before its mode is set, that this is entry `n`, of a file the compared one.
    pub fn check_same(&self, n: usize, found: &FileStat) -> io::Result<()> {
        let is_same = match (&self.entries[n].kind, found.st_mode & libc::S_IFMT) {
            (Kind::Folder, libc::S_IFDIR) | (Kind::Link { .. }, libc::S_IFLNK) => true,
            // nothing was read of it
            (Kind::File { size: 0, .. }, libc::S_IFREG) => found.st_size == 0,
            (Kind::File { .. }, libc::S_IFREG) => {
                let compared = self.compared.borrow();
                compared.get(&n) == Some(&(found.st_dev, found.st_ino))
            }
            _ => false,
        };
        match is_same {
            true => Ok(()),
            false => Err(replaced()),
        }
    }

    /// Sets which files are as they should be, and how much the rest lacks.
    fn sort_out(&mut self) {
        for (n, entry) in self.entries.iter().enumerate() {
            self.files[n].current =
                matches!(entry.kind, Kind::File { size, .. } if self.files[n].dest == Some(size));
        }
        for (n, leaf) in self.leaves.iter().enumerate() {
            for piece in self.layout.pieces(leaf.start, leaf.block.length.into()) {
                let from_dest = leaf.found.is_some_and(|p| self.is_from_dest(piece.file, p));
                let file = &mut self.files[piece.file];
                file.current &= from_dest;
                if leaf.found.is_none() {
                    file.missing += piece.length as u64;
                }
            }
            if leaf.found.is_none() {
                self.wanted.entry(leaf.block.hash).or_default().push(n);
            }
        }
    }

    /// Copies present blocks to files that change: from old versions, or from elsewhere.
    fn copy_found(&mut self, place: &mut Place) -> anyhow::Result<()> {
        let mut readers = Readers::default();
        let mut bytes = Vec::new();
        for n in 0..self.leaves.len() {
            let leaf = self.leaves[n];
            let Some(preference) = leaf.found else {
                continue;
            };
            let length = leaf.block.length.into();
            let twin = self.wanted.contains_key(&leaf.block.hash);
            let as_they_should_be = self
                .layout
                .pieces(leaf.start, length)
                .all(|p| self.files[p.file].current);
            if !twin && as_they_should_be {
                continue;
            }
            let read = self.read_leaf(leaf, preference, place, &mut readers, &mut bytes);
            let moved = preference == Preference::Moved;
            if !read || BlockHash::of(&bytes) != leaf.block.hash {
                anyhow::ensure!(moved, "files at DEST change while they are read");
                self.miss(n);
                continue;
            }
            for (piece, part) in self.parts(n, &bytes) {
                if !self.files[piece.file].current
                    && (moved || self.is_from_dest(piece.file, preference))
                {
                    self.write(piece, part, place)?;
                }
            }
            if twin {
                let copy = std::mem::take(&mut bytes);
                self.put(leaf.block, &copy, place)?;
            }
        }
        Ok(())
    }

    /// Wants leaf `n` again, as the file that contained it was replaced.
    fn miss(&mut self, n: usize) {
        let leaf = &mut self.leaves[n];
        leaf.found = None;
        self.wanted.entry(leaf.block.hash).or_default().push(n);
        for piece in self.layout.pieces(leaf.start, leaf.block.length.into()) {
            self.files[piece.file].missing += piece.length as u64;
        }
    }

    /// Splits the bytes of leaf `n` into pieces.
    fn parts<'b>(&self, n: usize, bytes: &'b [u8]) -> Vec<(Piece, &'b [u8])> {
        let start = self.leaves[n].start;
        self.layout
            .pieces(start, bytes.len() as u64)
            .filter_map(|piece| {
                let from = (piece.at - start) as usize;
                Some((piece, bytes.get(from..from + piece.length)?))
            })
            .collect()
    }

    fn put_piece(&mut self, piece: Piece, part: &[u8], place: &mut Place) -> anyhow::Result<()> {
        if self.is_whole(piece)
            && self.has_right_size(piece.file)
            && self.is_at_dest(piece, part, place)
        {
            // its neighbours in the pack have changed, but not this file
            self.files[piece.file].current = true;
            self.files[piece.file].missing = 0;
            return Ok(());
        }
        self.write(piece, part, place)?;
        let file = &mut self.files[piece.file];
        file.missing = file.missing.saturating_sub(part.len() as u64);
        if file.missing == 0 {
            self.finish_file(piece.file, place)?;
        }
        Ok(())
    }

    fn is_whole(&self, piece: Piece) -> bool {
        matches!(self.entries[piece.file].kind, Kind::File { size, .. } if size == piece.length as u64)
    }

    fn is_at_dest(&self, piece: Piece, part: &[u8], place: &mut Place) -> bool {
        let mut there = vec![0; part.len()];
        let mut readers = Readers::default();
        self.read_piece(piece, true, place, &mut readers, &mut there)
            .is_ok()
            && there == part
    }

    /// Makes holes of whole blocks of zeroes; with `sparse`, of each page of zeroes.
    fn write(&mut self, piece: Piece, part: &[u8], place: &mut Place) -> io::Result<()> {
        let (whole, old) = (self.is_whole(piece), self.files[piece.file].staged);
        let sparse = self.sparse || part.len() == MAX_BLOCK && BlockRef::of(part) == zeroes();
        let file = self.staged_file(piece.file, whole, place)?;
        if !sparse {
            return file.write_all_at(part, piece.offset);
        }
        write_sparse(file, part, piece.offset, old)?;
        match whole {
            // it may end with a hole
            true => file.set_len(part.len() as u64),
            false => Ok(()),
        }
    }

    /// Returns the partial file; `whole`: all of it will be written.
    fn staged_file(&mut self, n: usize, whole: bool, place: &mut Place) -> io::Result<&File> {
        if !self.open.contains_key(&n) && self.open.len() >= MAX_OPEN {
            // whole ones wait for their flush, the rest can be opened again
            let finished = &self.finished;
            self.open
                .retain(|n, _| finished.len() <= MAX_SYNCED_ALONE && finished.contains(n));
        }
        match self.open.entry(n) {
            std::collections::hash_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::hash_map::Entry::Vacant(free) => {
                let size = match self.entries[n].kind {
                    Kind::File { size, .. } => size,
                    _ => 0,
                };
                // a new one gets its length from the written bytes
                let file = &mut self.files[n];
                let size = (file.staged || !whole && !file.opened).then_some(size);
                file.opened = true;
                Ok(free.insert(place.stage(&self.entries[n].path, size)?))
            }
        }
    }

    /// Sets mode and time of a partial file that has all its bytes.
    fn finish_file(&mut self, n: usize, place: &mut Place) -> anyhow::Result<()> {
        let existing = match self.files[n].dest {
            Some(_) => place.metadata(&self.entries[n].path).ok().map(|m| m.mode),
            None => None,
        };
        let mode = self.modes.bits(n, &self.entries[n].kind, existing);
        let time = self.modes.exact(n).map(system_time);
        let file = self.staged_file(n, false, place)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode.into()))?;
        if let Some(time) = time {
            file.set_modified(time)?;
        }
        self.files[n].whole = true;
        self.finished.push(n);
        if self.finished.len() >= MAX_FINISHED && !self.copying {
            self.flush(place)?;
        }
        Ok(())
    }
}

fn replaced() -> io::Error {
    io::Error::other("another file has come into its place meanwhile")
}

/// Bytes on disk of the partial file of an entry.
fn place_of(place: &mut Place, entry: &Entry) -> Option<u64> {
    let staged = place.open_staged(&entry.path).ok()??;
    Some(staged.metadata().ok()?.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::tests::{cut, noise};
    use crate::listing::Metadata;
    use std::collections::BTreeMap;
    use std::fs;

    /// A share: names and contents, in listing order.
    struct Sample {
        files: BTreeMap<&'static str, Vec<u8>>,
        entries: Vec<Entry>,
        metadata: Vec<Metadata>,
        blocks: HashMap<BlockHash, Vec<u8>>,
        leaves: Vec<BlockRef>,
    }

    impl Sample {
        fn new(files: &[(&'static str, Vec<u8>)]) -> Self {
            let files: BTreeMap<_, _> = files.iter().cloned().collect();
            let entries: Vec<Entry> = files
                .iter()
                .map(|(name, data)| Entry {
                    path: name.as_bytes().to_vec(),
                    kind: Kind::File {
                        size: data.len() as u64,
                        executable: false,
                    },
                })
                .collect();
            let mut stream: &[u8] = &files.values().flatten().copied().collect::<Vec<_>>();
            let (mut leaves, mut blocks) = (Vec::new(), HashMap::new());
            for part in Layout::new(&entries).unwrap().parts(&entries) {
                let (bytes, rest) = stream.split_at(part.length as usize);
                stream = rest;
                // a file that fits a block is one
                let mut at = 0;
                for block in cut(bytes) {
                    let bytes = &bytes[at..at + block.length as usize];
                    blocks.insert(block.hash, bytes.to_vec());
                    at += bytes.len();
                    leaves.push(block);
                }
            }
            let readable = Metadata {
                mode: 0o644,
                ..Metadata::default()
            };
            Self {
                metadata: vec![readable; entries.len()],
                files,
                entries,
                blocks,
                leaves,
            }
        }

        fn plan(&self, place: &mut Place) -> Plan<'_> {
            let modes = Modes::new(&self.metadata, false, 0o022);
            let layout = Layout::new(&self.entries).unwrap();
            Plan::compare(&self.entries, modes, (layout, &self.leaves), Some(place)).unwrap()
        }

        /// Transfers at most `most` blocks; returns the number of wanted ones.
        fn transfer(&self, place: &mut Place, most: usize) -> usize {
            let mut plan = self.plan(place);
            plan.begin(place, false).unwrap();
            let wanted: Vec<BlockRef> = plan.wanted().collect();
            for block in wanted.iter().take(most) {
                plan.put(*block, &self.blocks[&block.hash], place).unwrap();
            }
            if wanted.len() <= most {
                plan.flush(place).unwrap();
                assert_eq!(plan.failures, [""; 0]);
            }
            wanted.len()
        }

        fn check(&self, dest: &std::path::Path) {
            for (name, data) in &self.files {
                assert!(fs::read(dest.join(name)).unwrap() == *data, "{name}");
            }
        }
    }

    fn place() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let mut place = Place::open(dir.path()).unwrap();
        place.open_partial(b"").unwrap();
        (dir, place)
    }

    fn sample() -> Sample {
        Sample::new(&[
            ("a", noise(1, 3 * MAX_BLOCK + 77)),
            ("b", noise(2, 1_000)),
            ("c", Vec::new()),
            ("d", noise(3, 2_000)),
            ("e", noise(4, 2 * MAX_BLOCK)),
        ])
    }

    #[test]
    fn everything_is_fetched_once_and_then_nothing() {
        let (dir, mut place) = place();
        let sample = sample();
        assert_eq!(sample.transfer(&mut place, usize::MAX), sample.blocks.len());
        sample.check(dir.path());
        assert_eq!(sample.transfer(&mut place, usize::MAX), 0);
        assert_eq!(sample.plan(&mut place).changed_files().count(), 0);
    }

    #[test]
    fn an_interrupted_transfer_fetches_the_rest_only() {
        let sample = sample();
        let all = sample.blocks.len();
        for most in 0..all {
            let (dir, mut place) = place();
            assert_eq!(sample.transfer(&mut place, most), all);
            assert!(
                !dir.path().join("e").exists(),
                "nothing half-written is in place"
            );
            assert_eq!(sample.transfer(&mut place, usize::MAX), all - most);
            sample.check(dir.path());
        }
    }

    #[test]
    fn only_differing_blocks_are_fetched() {
        let (dir, mut place) = place();
        let mut old = noise(1, 3 * MAX_BLOCK + 77);
        old[MAX_BLOCK + 5] ^= 1;
        fs::write(dir.path().join("a"), &old).unwrap();
        fs::write(dir.path().join("e"), noise(4, MAX_BLOCK)).unwrap();
        let sample = sample();
        // one block of a, the pack, the second half of e
        let of_e = cut(&noise(4, 2 * MAX_BLOCK)).into_iter();
        let first = of_e.clone().scan(0, |end, b| {
            *end += b.length as usize;
            (*end <= MAX_BLOCK).then_some(())
        });
        let missing = 1 + 1 + of_e.len() - first.count();
        assert_eq!(sample.transfer(&mut place, usize::MAX), missing);
        sample.check(dir.path());
    }

    #[test]
    fn a_file_whose_neighbour_in_the_pack_changed_is_not_touched() {
        let (dir, mut place) = place();
        let sample = sample();
        sample.transfer(&mut place, usize::MAX);
        fs::write(dir.path().join("d"), noise(9, 2_000)).unwrap();
        let inode = fs::metadata(dir.path().join("b")).unwrap().ino();
        let mut plan = sample.plan(&mut place);
        let uncertain = plan.uncertain();
        assert_eq!((plan.changed_files().count(), uncertain.len()), (2, 1));
        plan.settle(uncertain[0], &sample.blocks[&uncertain[0].hash], &mut place);
        assert_eq!(plan.changed_files().collect::<Vec<_>>(), [3]);
        assert_eq!(sample.transfer(&mut place, usize::MAX), 1);
        assert_eq!(fs::metadata(dir.path().join("b")).unwrap().ino(), inode);
        sample.check(dir.path());
    }

    #[test]
    fn equal_blocks_are_fetched_once() {
        let (dir, mut place) = place();
        let twins = Sample::new(&[
            ("a", noise(1, 2 * MAX_BLOCK)),
            ("b", noise(1, 2 * MAX_BLOCK)),
            ("z", vec![0; 4 * MAX_BLOCK]),
        ]);
        // of one of the two, and one block of zeroes
        let different = cut(&noise(1, 2 * MAX_BLOCK)).len() + 1;
        assert_eq!(twins.transfer(&mut place, usize::MAX), different);
        twins.check(dir.path());
        fs::remove_file(dir.path().join("b")).unwrap();
        assert_eq!(
            twins.transfer(&mut place, usize::MAX),
            0,
            "its blocks are in the other file"
        );
        twins.check(dir.path());
    }

    #[test]
    fn blocks_behind_inserted_bytes_are_not_fetched_again() {
        let (dir, mut place) = place();
        let old = noise(1, 32 * MAX_BLOCK);
        fs::write(dir.path().join("a"), &old).unwrap();
        let new = [&noise(2, 1_000)[..], &old].concat();
        let sample = Sample::new(&[("a", new), ("b", noise(3, 10))]);
        let wanted = sample.transfer(&mut place, usize::MAX);
        assert!(wanted < 10, "{wanted} of {}", sample.leaves.len());
        sample.check(dir.path());
        assert_eq!(sample.plan(&mut place).changed_files().count(), 0);
    }

    #[test]
    fn a_large_file_under_another_name_is_copied_from_there() {
        let (dir, mut place) = place();
        let sample = sample();
        fs::create_dir_all(dir.path().join("old/deep")).unwrap();
        fs::write(dir.path().join("old/deep/x"), &sample.files["a"]).unwrap();
        fs::write(dir.path().join("old/y"), &sample.files["e"]).unwrap();
        assert_eq!(sample.transfer(&mut place, usize::MAX), 1, "the pack");
        sample.check(dir.path());
    }

    #[test]
    fn what_was_found_elsewhere_and_has_gone_is_fetched() {
        let (dir, mut place) = place();
        let sample = sample();
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, &sample.files["a"]).unwrap();
        let mut plan = sample.plan(&mut place);
        let before = plan.wanted().count();
        fs::remove_file(elsewhere).unwrap();
        plan.begin(&mut place, false).unwrap();
        let wanted: Vec<BlockRef> = plan.wanted().collect();
        assert_eq!(
            (before < wanted.len(), wanted.len()),
            (true, sample.blocks.len())
        );
        for block in wanted {
            plan.put(block, &sample.blocks[&block.hash], &mut place)
                .unwrap();
        }
        plan.flush(&mut place).unwrap();
        sample.check(dir.path());
    }

    #[test]
    fn what_a_transfer_takes_on_disk_is_known_before_it_begins() {
        let (dir, mut place) = place();
        let sample = sample();
        let all: u64 = sample.files.values().map(|f| f.len() as u64).sum();
        assert_eq!(sample.plan(&mut place).room_needed(&mut place), all);
        sample.transfer(&mut place, 1);
        let rest = sample.plan(&mut place).room_needed(&mut place);
        assert!(rest < all && rest > all / 2, "{rest} of {all}");
        sample.transfer(&mut place, usize::MAX);
        assert_eq!(sample.plan(&mut place).room_needed(&mut place), 0);
        fs::write(dir.path().join("b"), noise(9, 10)).unwrap();
        let pack = 1_000 + 2_000;
        assert!(sample.plan(&mut place).room_needed(&mut place) <= pack);
    }

    #[test]
    fn blocks_of_zeroes_become_holes_and_need_no_room() {
        let large = 64 * MAX_BLOCK;
        let mut words = vec![0; large];
        words[20 * MAX_BLOCK..][..5].copy_from_slice(b"words");
        let sample = Sample::new(&[("all", vec![0; MAX_BLOCK]), ("some", words)]);
        let (dir, mut place) = place();
        let needed = sample.plan(&mut place).room_needed(&mut place);
        assert!(needed <= 2 * MAX_BLOCK as u64, "{needed}");
        let blocks = |name| fs::metadata(dir.path().join(name)).unwrap().blocks() * 512;
        // the partial file's bytes of another version are replaced
        let old = place.stage(b"some", Some(large as u64)).unwrap();
        old.write_all_at(&noise(1, large), 0).unwrap();
        drop(old);
        sample.transfer(&mut place, usize::MAX);
        sample.check(dir.path());
        assert!(blocks("some") <= 2 * MAX_BLOCK as u64, "{}", blocks("some"));
        assert_eq!(blocks("all"), 0);
    }

    #[test]
    fn pages_of_zeroes_become_holes_for_who_asks() {
        let mut words = vec![0; 100_000];
        words[50_000..][..5].copy_from_slice(b"words");
        let sample = Sample::new(&[("f", words), ("g", vec![0; 10_000])]);
        for sparse in [false, true] {
            let (dir, mut place) = place();
            let mut plan = sample.plan(&mut place);
            plan.sparse = sparse;
            plan.begin(&mut place, false).unwrap();
            for block in plan.wanted().collect::<Vec<_>>() {
                plan.put(block, &sample.blocks[&block.hash], &mut place)
                    .unwrap();
            }
            plan.flush(&mut place).unwrap();
            sample.check(dir.path());
            let blocks = fs::metadata(dir.path().join("f")).unwrap().blocks() * 512;
            assert_eq!(blocks < 50_000, sparse, "{blocks}");
        }
    }

    #[test]
    fn only_the_file_that_was_compared_is_given_a_mode() {
        let (dir, mut place) = place();
        let sample = sample();
        sample.transfer(&mut place, usize::MAX);
        let plan = sample.plan(&mut place);
        let mut stat = |name: &str| place.open_entry(name.as_bytes()).unwrap().unwrap().stat();
        for n in 0..5 {
            let name = ["a", "b", "c", "d", "e"][n];
            plan.check_same(n, &stat(name).unwrap()).unwrap();
        }
        let at = |name| dir.path().join(name);
        // the same bytes in another file
        fs::copy(at("a"), at("mine")).unwrap();
        fs::rename(at("mine"), at("a")).unwrap();
        fs::write(at("c"), b"no longer empty").unwrap();
        fs::remove_file(at("b")).unwrap();
        fs::create_dir(at("b")).unwrap();
        for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert!(plan.check_same(n, &stat(name).unwrap()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_folder_in_the_way_fails_that_file_and_no_other() {
        let (dir, mut place) = place();
        fs::create_dir_all(dir.path().join("b/precious")).unwrap();
        let sample = sample();
        let mut plan = sample.plan(&mut place);
        plan.begin(&mut place, false).unwrap();
        for block in plan.wanted().collect::<Vec<_>>() {
            plan.put(block, &sample.blocks[&block.hash], &mut place)
                .unwrap();
        }
        plan.flush(&mut place).unwrap();
        assert!(!plan.failures.is_empty());
        assert!(dir.path().join("b/precious").exists());
        assert!(fs::read(dir.path().join("d")).unwrap() == sample.files["d"]);
    }
}
