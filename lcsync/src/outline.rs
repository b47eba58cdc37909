//! The blocks of a share without its files: the root node, the nodes below it, and the place of
//! each block.

use librecast::channel::ChannelId;
use thiserror::Error;

use crate::block::BlockRef;
use crate::carrying::CarrierNumber;
use crate::groups::{Carried, Found, Groups, Located};
use crate::layout::Layout;
use crate::listing::{self, Entry, Kind, Metadata};
use crate::tree::{Root, RootKind, Stream};

/// Reason why nobody could fetch a share.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OutlineError {
    /// Longer in sum than a file can be, or too many blocks.
    #[error("the files are too large")]
    TooLarge,
    /// A listing that receivers refuse.
    #[error("nobody could fetch it: {0}")]
    Listing(String),
}

/// The entries of a share.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    /// A folder, or a file.
    pub kind: RootKind,
    /// In the order of the listing.
    pub entries: &'a [Entry],
    /// Of the root, then of each entry.
    pub metadata: &'a [Metadata],
    /// Whether parts of the folder could not be read.
    pub incomplete: bool,
}

/// The blocks of the content, in order.
#[derive(Debug, Clone, Copy)]
pub struct Leaves<'a> {
    /// All of them.
    pub all: &'a [BlockRef],
    /// Blocks that are also sent in stretches: all, or none.
    pub in_stretches: &'a [BlockRef],
    /// The carrier that passes them on, if it is one.
    pub carrier: Option<CarrierNumber>,
}

/// All that a server announces of a share, and all its blocks but those of the content.
#[derive(Debug)]
pub struct Outline {
    /// Name of the root node.
    pub root: BlockRef,
    /// Stream of modes and times.
    pub metadata: Stream,
    pub(crate) layout: Layout,
    pub(crate) groups: Groups,
    /// Root node, hash nodes, listing and metadata; their places are after the content.
    nodes: Vec<Vec<u8>>,
    files: u64,
}

/// An outline under construction.
struct Assembly {
    content: u64,
    blocks: Vec<Located>,
    nodes: Vec<Vec<u8>>,
}

impl Outline {
    /// Makes the outline of these entries and the blocks of their content. `key` is the share's
    /// key, or empty.
    ///
    /// # Errors
    /// Nobody could fetch it.
    pub fn new(
        described: Described<'_>,
        layout: Layout,
        leaves: Leaves<'_>,
        key: &[u8],
    ) -> Result<Self, OutlineError> {
        let entries = described.entries;
        let mut assembly = Assembly::new(leaves.all);
        let content = assembly.add_stream_nodes(leaves.all);
        let folder = described.kind == RootKind::Folder;
        let (count, listing) = if folder {
            let blocks = listing::encode(entries);
            let bytes = blocks.iter().map(|b| b.len() as u64).sum();
            if let Some(why) = listing::too_large(entries, bytes) {
                return Err(OutlineError::Listing(why));
            }
            (entries.len() as u64, assembly.add_stream(blocks))
        } else {
            (0, Stream::default())
        };
        // a file's only entry is the root itself
        let metadata = if folder {
            described.metadata
        } else {
            &described.metadata[..1]
        };
        let metadata = assembly.add_stream(listing::encode_metadata(metadata));
        let root = Root {
            kind: described.kind,
            entries: count,
            listing,
            content,
            incomplete: folder && described.incomplete,
        }
        .encode();
        let is_file = |e: &&Entry| matches!(e.kind, Kind::File { .. });
        Ok(Self {
            root: assembly.add_node(root),
            metadata,
            layout,
            groups: Groups::new(key, assembly.blocks, leaves.in_stretches, leaves.carrier)
                .ok_or(OutlineError::TooLarge)?,
            nodes: assembly.nodes,
            files: entries.iter().filter(is_file).count() as u64,
        })
    }

    /// Returns the content of a channel.
    pub fn find(&self, channel: ChannelId) -> Option<Found> {
        self.groups.find(channel)
    }

    /// Returns the block of symbol `number` of a channel.
    pub fn carried(&self, channel: ChannelId, number: u32) -> Option<Carried> {
        self.groups.carried(channel, number)
    }

    /// Whether blocks are also sent in stretches.
    pub fn has_stretches(&self) -> bool {
        self.groups.has_stretches()
    }

    /// Whether the channel's block lists other blocks, which receivers can join only after it.
    pub fn is_list(&self, channel: ChannelId) -> bool {
        let located = self.groups.locate(channel);
        located.is_some_and(|(located, _)| self.node(located).is_some())
    }

    /// Returns the bytes of a block that is not content.
    pub fn node(&self, located: Located) -> Option<&[u8]> {
        let number = located.place.checked_sub(self.layout.length())?;
        let node = self.nodes.get(usize::try_from(number).ok()?)?;
        Some(node)
    }

    /// Positions of the files in the content.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of different blocks; each has a channel in every layer.
    pub fn blocks(&self) -> usize {
        self.groups.blocks()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.layout.length()
    }

    /// Number of files.
    pub fn files(&self) -> u64 {
        self.files
    }
}

impl Assembly {
    fn new(leaves: &[BlockRef]) -> Self {
        let mut assembly = Self {
            content: 0,
            blocks: Vec::with_capacity(leaves.len()),
            nodes: Vec::new(),
        };
        for leaf in leaves {
            let located = Located::new(*leaf, assembly.content);
            assembly.blocks.push(located);
            assembly.content += u64::from(leaf.length);
        }
        assembly
    }

    fn add_node(&mut self, bytes: Vec<u8>) -> BlockRef {
        let block = BlockRef::of(&bytes);
        let place = self.content + self.nodes.len() as u64;
        self.blocks.push(Located::new(block, place));
        self.nodes.push(bytes);
        block
    }

    fn add_stream_nodes(&mut self, leaves: &[BlockRef]) -> Stream {
        let (stream, nodes) = Stream::build(leaves);
        for (_, bytes) in nodes {
            self.add_node(bytes);
        }
        stream
    }

    fn add_stream(&mut self, blocks: Vec<Vec<u8>>) -> Stream {
        let leaves: Vec<BlockRef> = blocks.into_iter().map(|b| self.add_node(b)).collect();
        self.add_stream_nodes(&leaves)
    }
}
