//! A share's tree, or the wanted part of it, without the data.

use thiserror::Error;

use crate::block::BlockRef;
use crate::layout::Layout;
use crate::listing::{Entry, Kind, Metadata, shown};
use crate::tree::{Root, RootKind};

/// Reason why a part of a share cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoPart {
    /// Nothing is at this path.
    #[error("the share has no {0}")]
    Missing(String),
    /// A link is at this path.
    #[error("{0} is a link: fetch what it leads to")]
    Link(String),
    /// No folder, so nothing is in it.
    #[error("the share is a single file")]
    File,
}

/// Content of a share.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The root node.
    pub root: Root,
    /// In the order of the listing; a shared file has no name yet.
    pub entries: Vec<Entry>,
    /// Of the root, then of each entry.
    pub metadata: Vec<Metadata>,
    /// The blocks of the content stream, in order.
    pub leaves: Vec<BlockRef>,
    /// Positions of the files in that stream.
    pub layout: Layout,
}

impl Tree {
    /// Reduces a folder to the entries at `path`, as if that were shared.
    pub fn choose(&mut self, path: &[u8]) -> Result<(), NoPart> {
        if self.root.kind != RootKind::Folder {
            return Err(NoPart::File);
        }
        let name = || shown(path);
        let of_path = |entry: &Entry| entry.path == path;
        let at = self.entries.iter().position(of_path);
        let at = at.ok_or_else(|| NoPart::Missing(name()))?;
        let (chosen, cut) = match &self.entries[at].kind {
            Kind::Folder => {
                let below = [path, b"/"].concat();
                let inside = |entry: &&Entry| entry.path.starts_with(&below);
                let count = self.entries[at + 1..].iter().take_while(inside).count();
                (at + 1..at + 1 + count, below.len())
            }
            Kind::File { executable, .. } => {
                let kind = RootKind::File {
                    executable: *executable,
                };
                self.root.kind = kind;
                (at..at + 1, 0)
            }
            Kind::Link { .. } | Kind::Node(_) => return Err(NoPart::Link(name())),
        };
        let layout = std::mem::take(&mut self.layout);
        self.layout = layout.of(&chosen);
        // the first one is the root's
        self.metadata = self.metadata[at + 1..=chosen.end].to_vec();
        self.entries = self.entries[chosen].to_vec();
        for entry in &mut self.entries {
            entry.path.drain(..cut);
        }
        Ok(())
    }

    /// Number of files, without links and folders.
    #[must_use]
    pub fn files(&self) -> usize {
        let is_file = |e: &&Entry| matches!(e.kind, Kind::File { .. });
        self.entries.iter().filter(is_file).count()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match entry.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        });
        sizes.sum()
    }

    /// Whether it is a folder that lacks entries of the share.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.root.kind == RootKind::Folder && self.root.incomplete
    }

    /// Whether it is a folder with all entries of the share.
    #[must_use]
    pub fn is_whole_folder(&self) -> bool {
        self.root.kind == RootKind::Folder && !self.root.incomplete
    }
}
