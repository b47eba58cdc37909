//! Assembly of a share's tree: the next needed blocks, and their content.
//!
//! ```text
//! record -> root node -> listing: hash nodes, bytes -> metadata: same -> content: hash nodes -> tree
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

/// Reason why a tree is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadTree {
    /// The root node is invalid.
    #[error("root node")]
    Root(#[source] WireError),
    /// The listing is invalid.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// Modes and times are invalid.
    #[error(transparent)]
    Metadata(WireError),
    /// Hash nodes lead nowhere.
    #[error(transparent)]
    Nodes(#[from] TreeError),
    /// A listing repeats a block, although no path may repeat.
    #[error("the listing repeats itself")]
    Repetition,
    /// The numbers of metadata and entries differ.
    #[error("metadata and listing do not agree")]
    Contradiction,
    /// More entries than fit into memory.
    #[error("a listing of {0} entries is too long")]
    Entries(u64),
    /// A longer listing than fits into memory.
    #[error("a listing of {0} bytes is too large")]
    Bytes(u64),
    /// Files larger in sum than any disk.
    #[error("sizes beyond all numbers")]
    Sizes,
}

impl BadTree {
    /// Whether it is invalid; else it is only too large.
    #[must_use]
    pub fn is_nonsense(&self) -> bool {
        !matches!(self, Self::Entries(_) | Self::Bytes(_) | Self::Sizes)
    }
}

/// The next step.
#[derive(Debug)]
pub enum Next {
    /// These blocks are needed, which may be none.
    Blocks(Assembly, Vec<BlockRef>),
    /// The tree is whole.
    Tree(Record, Tree),
}

/// A tree received in part.
#[derive(Debug)]
pub struct Assembly {
    record: Record,
    stage: Stage,
    /// Received ones of the needed blocks.
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
    /// Begins the tree of this record, with its root node.
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

    /// Whether the record itself names the needed blocks: nothing proves that they exist.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        match &self.stage {
            Stage::Root => true,
            Stage::Nodes(_, part, _) | Stage::Bytes(_, part, _) => *part == Part::Metadata,
        }
    }

    /// Stores a received block.
    pub fn take(&mut self, block: BlockRef, bytes: Vec<u8>) {
        self.blocks.insert(block.hash, bytes);
    }

    /// Continues when all needed blocks are received.
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
