//! How a share's tree comes: which blocks are needed next, and what they make.
//!
//! ```text
//! record -> root node -> listing: hash nodes, bytes -> metadata: the same -> content: hash nodes -> tree
//! ```

use std::collections::{HashMap, HashSet};

use librecast::wire::WireError;
use thiserror::Error;

use super::tree::Tree;
use crate::block::{BlockHash, BlockRef};
use crate::layout::Layout;
use crate::listing::{self, Entry, Kind, ListingError, MAX_ENTRIES, MAX_LISTING, METADATA_SIZE};
use crate::record::Record;
use crate::tree::{Descent, Root, RootKind, Stream, TreeError};

/// Why a tree is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadTree {
    /// The root node is none.
    #[error("root node")]
    Root(#[source] WireError),
    /// The listing is none.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// Modes and times are none.
    #[error(transparent)]
    Metadata(WireError),
    /// Hash nodes lead nowhere.
    #[error(transparent)]
    Nodes(#[from] TreeError),
    /// No path comes twice, so no block of a listing does.
    #[error("the listing repeats itself")]
    Repetition,
    /// Not as many modes and times as entries.
    #[error("metadata and listing do not agree")]
    Contradiction,
    /// More entries than are held in memory.
    #[error("a listing of {0} entries is too long")]
    Entries(u64),
    /// A longer listing than is held in memory.
    #[error("a listing of {0} bytes is too large")]
    Bytes(u64),
    /// Files that add up to more than any disk holds.
    #[error("sizes beyond all numbers")]
    Sizes,
}

impl BadTree {
    /// Whether nobody can follow what the server says; else it is only too much.
    #[must_use]
    pub fn is_nonsense(&self) -> bool {
        !matches!(self, Self::Entries(_) | Self::Bytes(_) | Self::Sizes)
    }
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// These blocks are needed, which may be none.
    Blocks(Assembly, Vec<BlockRef>),
    /// The tree is whole.
    Tree(Record, Tree),
}

/// A tree that has come in part.
#[derive(Debug)]
pub struct Assembly {
    record: Record,
    stage: Stage,
    /// What has come of the blocks that are needed.
    blocks: HashMap<BlockHash, Vec<u8>>,
}

#[derive(Debug)]
enum Stage {
    Root,
    /// Hash nodes of a stream are needed.
    Nodes(Tree, Part, Descent),
    /// The bytes of a stream are needed.
    Bytes(Tree, Part, Vec<BlockRef>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Listing,
    Metadata,
    Content,
}

impl Assembly {
    /// The tree of this record: its root node is needed first.
    #[must_use]
    pub fn begin(record: Record) -> Next {
        let root = record.root;
        Next::Blocks(Self::new(record, Stage::Root), vec![root])
    }

    fn new(record: Record, stage: Stage) -> Self {
        Self {
            record,
            stage,
            blocks: HashMap::new(),
        }
    }

    /// Whether what is needed now is named in the record itself: nothing proves that there is such a thing.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        match &self.stage {
            Stage::Root => true,
            Stage::Nodes(_, part, _) | Stage::Bytes(_, part, _) => *part == Part::Metadata,
        }
    }

    /// A block has come.
    pub fn take(&mut self, block: BlockRef, bytes: Vec<u8>) {
        self.blocks.insert(block.hash, bytes);
    }

    /// All blocks that were needed have come.
    pub fn advance(self) -> Result<Next, BadTree> {
        let Self {
            record,
            stage,
            blocks,
        } = self;
        let bytes_of = |hash: &BlockHash| blocks.get(hash).map(Vec::as_slice);
        match stage {
            Stage::Root => {
                let bytes = bytes_of(&record.root.hash).ok_or(TreeError::Missing)?;
                begin_tree(record, Root::decode(bytes).map_err(BadTree::Root)?)
            }
            Stage::Nodes(tree, part, mut descent) => {
                descent.take(bytes_of)?;
                descend(record, tree, part, descent)
            }
            Stage::Bytes(mut tree, part, leaves) => {
                let mut bytes = Vec::new();
                for leaf in leaves {
                    bytes.extend_from_slice(bytes_of(&leaf.hash).ok_or(TreeError::Missing)?);
                }
                let entries = tree.root.entries;
                if part == Part::Listing {
                    tree.entries = listing::decode(&bytes, entries)?;
                    begin_stream(record, tree, Part::Metadata)
                } else {
                    let metadata = listing::decode_metadata(&bytes, entries + 1);
                    tree.metadata = metadata.map_err(BadTree::Metadata)?;
                    begin_stream(record, tree, Part::Content)
                }
            }
        }
    }
}

fn begin_tree(record: Record, root: Root) -> Result<Next, BadTree> {
    if root.entries > MAX_ENTRIES {
        return Err(BadTree::Entries(root.entries));
    }
    let mut tree = Tree {
        root,
        entries: Vec::new(),
        metadata: Vec::new(),
        leaves: Vec::new(),
        layout: Layout::default(),
    };
    match root.kind {
        RootKind::File { executable } => {
            tree.entries.push(Entry {
                path: Vec::new(),
                kind: Kind::File {
                    size: root.content.length,
                    executable,
                },
            });
            begin_stream(record, tree, Part::Metadata)
        }
        RootKind::Folder if root.listing.length > MAX_LISTING => {
            Err(BadTree::Bytes(root.listing.length))
        }
        RootKind::Folder => begin_stream(record, tree, Part::Listing),
    }
}

fn begin_stream(record: Record, tree: Tree, part: Part) -> Result<Next, BadTree> {
    let root = &tree.root;
    let (stream, files): (Stream, u64) = match part {
        Part::Listing => (root.listing, 0),
        Part::Metadata => (record.metadata, 0),
        Part::Content => (root.content, root.entries),
    };
    let expected = (root.entries + 1) * METADATA_SIZE as u64;
    if part == Part::Metadata && stream.length != expected {
        return Err(BadTree::Contradiction);
    }
    descend(record, tree, part, Descent::new(&stream, files))
}

fn descend(
    record: Record,
    mut tree: Tree,
    part: Part,
    mut descent: Descent,
) -> Result<Next, BadTree> {
    if let Some(nodes) = descent.wanted()? {
        let stage = Stage::Nodes(tree, part, descent);
        return Ok(Next::Blocks(Assembly::new(record, stage), nodes));
    }
    let leaves = descent.leaves()?;
    if part == Part::Content {
        tree.leaves = leaves;
        tree.layout = Layout::new(&tree.entries).ok_or(BadTree::Sizes)?;
        return Ok(Next::Tree(record, tree));
    }
    let different: HashSet<BlockHash> = leaves.iter().map(|l| l.hash).collect();
    if part == Part::Listing && different.len() != leaves.len() {
        return Err(BadTree::Repetition);
    }
    let stage = Stage::Bytes(tree, part, leaves.clone());
    Ok(Next::Blocks(Assembly::new(record, stage), leaves))
}
