//! The tree of hashes from the root hash down to the data.
//!
//! ```text
//! ROOTHASH -> root node -> listing stream: names, kinds, sizes, in order (see `listing`)
//!                       -> content stream: the bytes of all files, in the same order
//! stream   -> (depth d) hash nodes, d levels -> leaf blocks, whose bytes in order are the stream
//! ```
//!
//! Small files share leaf blocks, as the content of all files is one stream. A leaf may have any
//! length up to a block's, so the sharer chooses the cuts. Each block is named by its parent, and
//! its hash is verified before it is parsed.

use std::collections::HashMap;

use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::block::{BlockHash, BlockRef, MAX_BLOCK};

/// Version of root nodes and of all below them.
const VERSION: u8 = 1;
/// Most levels of hash nodes: 5,957^4 blocks are more than any disk holds.
const MAX_DEPTH: u8 = 4;
/// Bytes of one child in a hash node: hash, block length, span.
const CHILD_SIZE: usize = 32 + 4 + 8;
/// Most children of a hash node.
pub const MAX_CHILDREN: usize = MAX_BLOCK / CHILD_SIZE;
/// Length of a root node.
pub const ROOT_SIZE: usize = 12 + 2 * STREAM_SIZE;
/// Length of a stream's description.
pub const STREAM_SIZE: usize = 8 + 1 + 4 + 32;

/// Divisor of a stream's length: its most leaves are this part, one for each file, and one.
const LEAST_LEAF: u64 = 4096;
/// Most repetitions for each different leaf (the zeroes of sparse files).
const REPEATS: u64 = 16;
/// Further repetitions in any stream.
const FREE_REPEATS: u64 = 1 << 20;
/// Most bytes of a stream's different hash nodes; more are refused.
const MAX_NODES: u64 = 1 << 30;

/// Reason why a stream's leaves cannot be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TreeError {
    /// A hash node is invalid.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A hash node is missing.
    #[error("a hash node is missing")]
    Missing,
    /// More than the share's size can need, or than fit into memory.
    #[error("the share has too many blocks for its size")]
    TooMany,
}

/// Kind of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootKind {
    /// One file; its name is not part of the tree.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A folder's content.
    Folder,
}

/// The node that the root hash names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Whether the content stream is one file.
    pub kind: RootKind,
    /// Entries in the listing; 0 for a file.
    pub entries: u64,
    /// The list of entries; empty for a file.
    pub listing: Stream,
    /// Stream of the files' bytes.
    pub content: Stream,
    /// Whether parts of the folder could not be read, and are missing in the listing.
    pub incomplete: bool,
}

/// A sequence of bytes, cut into blocks below `depth` levels of hash nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stream {
    /// Bytes of the stream.
    pub length: u64,
    /// Levels of hash nodes above the leaves.
    pub depth: u8,
    /// The topmost block; none in an empty stream.
    pub top: Option<BlockRef>,
}

/// A child of a hash node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Child {
    /// Hash and length of the child.
    pub block: BlockRef,
    /// Bytes of the stream below it; a leaf's own length.
    pub span: u64,
}

impl Root {
    /// Encodes it, in at most 256 KiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let (kind, flags) = match self.kind {
            RootKind::File { executable } => (0, u8::from(executable)),
            RootKind::Folder => (1, u8::from(self.incomplete) << 1),
        };
        w.u8(VERSION).u8(kind).u8(flags).u8(0).u64(self.entries);
        self.listing.write(&mut w);
        self.content.write(&mut w);
        w.into_vec()
    }

    /// Parses a root node that fills `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let (kind, flags) = (r.u8()?, r.u8()?);
        let kind = match (kind, flags) {
            (0, flags @ 0..=1) => RootKind::File {
                executable: flags == 1,
            },
            (1, 0 | 2) => RootKind::Folder,
            _ => return Err(WireError::Bad("kind of root")),
        };
        if r.u8()? != 0 {
            return Err(WireError::Bad("reserved byte"));
        }
        let entries = r.u64()?;
        let root = Self {
            kind,
            entries,
            listing: Stream::read(&mut r)?,
            content: Stream::read(&mut r)?,
            incomplete: kind == RootKind::Folder && flags == 2,
        };
        r.finish()?;
        // an entry takes at least six bytes
        let file = matches!(kind, RootKind::File { .. });
        if (file && (entries != 0 || root.listing.length != 0))
            || entries > root.listing.length / 6
            || (entries == 0) != (root.listing.length == 0)
        {
            return Err(WireError::Bad("number of entries"));
        }
        Ok(root)
    }
}

impl Stream {
    /// Appends the 45 bytes of the description.
    pub fn write(&self, w: &mut Writer) {
        let (hash, length) = self
            .top
            .map_or((BlockHash::default(), 0), |t| (t.hash, t.length));
        w.u64(self.length).u8(self.depth).u32(length).put(&hash.0);
    }

    /// Reads the 45 bytes of a description.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (length, depth, block) = (r.u64()?, r.u8()?, r.u32()?);
        let hash = BlockHash(r.array()?);
        if length == 0 {
            let empty = depth == 0 && block == 0 && hash == BlockHash::default();
            return if empty {
                Ok(Self::default())
            } else {
                Err(WireError::Bad("empty stream"))
            };
        }
        let fits = match depth {
            0 => u64::from(block) == length && block as usize <= MAX_BLOCK,
            1..=MAX_DEPTH => is_node_size(block as usize),
            _ => false,
        };
        if !fits {
            return Err(WireError::Bad("stream"));
        }
        Ok(Self {
            length,
            depth,
            top: Some(BlockRef {
                hash,
                length: block,
            }),
        })
    }

    /// Builds the hash nodes above `leaves`; returns the stream and all nodes' bytes.
    #[must_use]
    pub fn build(leaves: &[BlockRef]) -> (Self, Vec<(BlockRef, Vec<u8>)>) {
        let mut nodes = Vec::new();
        let mut level: Vec<Child> = leaves
            .iter()
            .map(|l| Child {
                block: *l,
                span: l.length.into(),
            })
            .collect();
        let mut depth = 0;
        while level.len() > 1 {
            depth += 1;
            level = level
                .chunks(MAX_CHILDREN)
                .map(|children| {
                    let bytes = encode_node(children);
                    let block = BlockRef::of(&bytes);
                    nodes.push((block, bytes));
                    Child {
                        block,
                        span: children.iter().map(|c| c.span).sum(),
                    }
                })
                .collect();
        }
        let stream = level.first().map_or_else(Self::default, |top| Self {
            length: top.span,
            depth,
            top: Some(top.block),
        });
        (stream, nodes)
    }
}

/// The way from a stream's top down to its leaves, level by level. Repeated nodes are held once, so
/// that memory is in proportion to the received bytes.
#[derive(Debug)]
pub struct Descent {
    /// Levels of hash nodes from `level` on.
    depth: u8,
    /// The different nodes of the reached level.
    level: Vec<Child>,
    /// For each level above, and each node on it: its children, as indices in the next level.
    above: Vec<Vec<Box<[u32]>>>,
    /// Bytes of hash nodes.
    bytes: u64,
    most_leaves: u64,
    free_repeats: u64,
}

impl Descent {
    /// Begins at the top of a stream with the bytes of this number of files.
    #[must_use]
    pub fn new(stream: &Stream, files: u64) -> Self {
        let top = stream.top.map(|block| Child {
            block,
            span: stream.length,
        });
        Self {
            depth: stream.depth,
            level: top.into_iter().collect(),
            above: Vec::new(),
            bytes: 0,
            most_leaves: (stream.length / LEAST_LEAF)
                .saturating_add(files)
                .saturating_add(1),
            free_repeats: FREE_REPEATS,
        }
    }

    /// Returns the next needed hash nodes; `None` once the leaves are known.
    pub fn wanted(&mut self) -> Result<Option<Vec<BlockRef>>, TreeError> {
        if self.depth == 0 {
            return Ok(None);
        }
        self.bytes += self
            .level
            .iter()
            .map(|c| u64::from(c.block.length))
            .sum::<u64>();
        if self.bytes > MAX_NODES {
            return Err(TreeError::TooMany);
        }
        Ok(Some(self.level.iter().map(|c| c.block).collect()))
    }

    /// Takes the bytes of the needed nodes.
    pub fn take<'n>(
        &mut self,
        node: impl Fn(&BlockHash) -> Option<&'n [u8]>,
    ) -> Result<(), TreeError> {
        let mut below = Vec::new();
        let mut numbers: HashMap<Child, u32> = HashMap::new();
        let mut nodes = Vec::with_capacity(self.level.len());
        for child in &self.level {
            let bytes = node(&child.block.hash).ok_or(TreeError::Missing)?;
            let children = decode_node(bytes, self.depth, child.span)?.into_iter();
            let numbered = children.map(|child| {
                *numbers.entry(child).or_insert_with(|| {
                    below.push(child);
                    (below.len() - 1) as u32
                })
            });
            nodes.push(numbered.collect());
        }
        self.above.push(nodes);
        self.level = below;
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    /// Returns the leaves, in order.
    pub fn leaves(self) -> Result<Vec<BlockRef>, TreeError> {
        let mut counts = vec![1_u64; self.level.len()];
        for nodes in self.above.iter().rev() {
            let sum = |children: &[u32]| {
                let counts = children.iter().map(|n| counts[*n as usize]);
                counts.fold(0_u64, u64::saturating_add)
            };
            counts = nodes.iter().map(|children| sum(children)).collect();
        }
        let all = counts.first().copied().unwrap_or(0);
        let different = self.level.len() as u64;
        if all > self.most_leaves || all > different * REPEATS + self.free_repeats {
            return Err(TreeError::TooMany);
        }
        // each node has a child: no level is longer than the last
        let mut order: Vec<u32> = (0..counts.len() as u32).collect();
        for nodes in &self.above {
            let children = order.iter().flat_map(|n| &nodes[*n as usize]);
            order = children.copied().collect();
        }
        let leaves = order.into_iter().map(|n| self.level[n as usize].block);
        Ok(leaves.collect())
    }
}

fn is_node_size(bytes: usize) -> bool {
    (CHILD_SIZE..=MAX_CHILDREN * CHILD_SIZE).contains(&bytes) && bytes.is_multiple_of(CHILD_SIZE)
}

fn encode_node(children: &[Child]) -> Vec<u8> {
    let mut w = Writer::new();
    for child in children {
        w.put(&child.block.hash.0)
            .u32(child.block.length)
            .u64(child.span);
    }
    w.into_vec()
}

/// Parses a hash node: `depth` levels (with itself) above the leaves, `span` bytes of stream below.
pub fn decode_node(bytes: &[u8], depth: u8, span: u64) -> Result<Vec<Child>, WireError> {
    if !is_node_size(bytes.len()) {
        return Err(WireError::Bad("size of hash node"));
    }
    let mut r = Reader::new(bytes);
    let mut children = Vec::with_capacity(bytes.len() / CHILD_SIZE);
    let mut total = 0_u64;
    while !r.is_empty() {
        let hash = BlockHash(r.array()?);
        let child = Child {
            block: BlockRef {
                hash,
                length: r.u32()?,
            },
            span: r.u64()?,
        };
        let length = child.block.length as usize;
        let fits = match depth {
            0 | 1 => length > 0 && length <= MAX_BLOCK && child.span == length as u64,
            _ => is_node_size(length) && child.span > 0,
        };
        if !fits {
            return Err(WireError::Bad("child of hash node"));
        }
        total = total
            .checked_add(child.span)
            .ok_or(WireError::Bad("span"))?;
        children.push(child);
    }
    if total != span {
        return Err(WireError::Bad("span"));
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf(n: u32) -> BlockRef {
        BlockRef {
            hash: BlockHash::of(&n.to_be_bytes()),
            length: n % MAX_BLOCK as u32 + 1,
        }
    }

    #[test]
    fn nodes_lead_to_all_leaves_in_order() {
        for count in [
            0,
            1,
            2,
            MAX_CHILDREN,
            MAX_CHILDREN + 1,
            2 * MAX_CHILDREN + 7,
        ] {
            let leaves: Vec<BlockRef> = (0..count as u32).map(leaf).collect();
            let (stream, nodes) = Stream::build(&leaves);
            assert_eq!(
                stream.length,
                leaves.iter().map(|l| u64::from(l.length)).sum::<u64>()
            );
            let nodes: HashMap<BlockHash, Vec<u8>> = nodes
                .into_iter()
                .map(|(b, bytes)| (b.hash, bytes))
                .collect();
            // those of the test may be a single byte long
            let mut descent = Descent::new(&stream, count as u64);
            while descent.wanted().unwrap().is_some() {
                descent
                    .take(|hash| nodes.get(hash).map(Vec::as_slice))
                    .unwrap();
            }
            assert_eq!(descent.leaves().unwrap(), leaves);
        }
    }

    #[test]
    fn a_span_that_does_not_add_up_is_refused() {
        let leaves: Vec<BlockRef> = (0..5).map(leaf).collect();
        let (stream, nodes) = Stream::build(&leaves);
        assert!(decode_node(&nodes[0].1, 1, stream.length).is_ok());
        assert!(decode_node(&nodes[0].1, 1, stream.length + 1).is_err());
        assert!(decode_node(&nodes[0].1[1..], 1, stream.length).is_err());
        assert!(decode_node(&[], 1, 0).is_err());
    }

    /// A stream with repeated nodes: for each level, from the leaves up, their number and children.
    fn repetitive(
        levels: &[(usize, usize)],
        leaf_length: u32,
    ) -> (Stream, HashMap<BlockHash, Vec<u8>>) {
        let mut nodes = HashMap::new();
        let mut level: Vec<Child> = (0..levels[0].0 as u32)
            .map(|n| Child {
                block: BlockRef {
                    length: leaf_length,
                    ..leaf(n)
                },
                span: leaf_length.into(),
            })
            .collect();
        for (different, children) in levels[1..].iter().chain([&(1, 1)]) {
            let above = (0..*different).map(|n| {
                let named: Vec<Child> = (0..*children)
                    .map(|c| level[(n * children + c) % level.len()])
                    .collect();
                let bytes = encode_node(&named);
                let block = BlockRef::of(&bytes);
                nodes.insert(block.hash, bytes);
                let span = named.iter().map(|c| c.span).fold(0, u64::wrapping_add);
                Child { block, span }
            });
            level = above.collect();
        }
        let stream = Stream {
            length: level[0].span,
            depth: levels.len() as u8,
            top: Some(level[0].block),
        };
        (stream, nodes)
    }

    /// Descends; returns the leaves (`None` if refused), and the bytes held and received.
    fn descend(
        stream: &Stream,
        nodes: &HashMap<BlockHash, Vec<u8>>,
    ) -> (Option<usize>, usize, usize) {
        let mut descent = Descent::new(stream, 0);
        descent.free_repeats = 100;
        let mut received = 0;
        while let Some(wanted) = descent.wanted().unwrap() {
            let mut hashes: Vec<BlockHash> = wanted.iter().map(|b| b.hash).collect();
            hashes.sort_unstable();
            hashes.dedup();
            received += hashes.iter().map(|h| nodes[h].len()).sum::<usize>();
            // a span that does not add up
            if descent
                .take(|hash| nodes.get(hash).map(Vec::as_slice))
                .is_err()
            {
                return (None, 0, received);
            }
        }
        let above = descent
            .above
            .iter()
            .flatten()
            .map(|c| size_of_val(&**c) + size_of_val(c));
        let held = above.sum::<usize>() + size_of_val(&*descent.level);
        let leaves = descent.leaves().ok().map(|l| size_of_val(&*l));
        (leaves, held, received)
    }

    #[test]
    fn nodes_that_repeat_without_end_are_refused_before_they_are_expanded() {
        let (stream, nodes) = repetitive(&[(2, 0), (2, 5_000), (2, 5_000), (1, 5_000)], 1);
        assert_eq!(descend(&stream, &nodes).0, None);
        let (stream, nodes) = repetitive(&[(2, 0), (2, 5_000), (2, 5_000), (1, 5_000)], 200_000);
        assert_eq!(descend(&stream, &nodes).0, None);
        // a sparse file of a terabyte with a tenth of it in use
        let (stream, nodes) = repetitive(&[(450_000, 0), (900, 5_000), (1, 900)], 250_000);
        assert!(descend(&stream, &nodes).0.is_some());
    }

    fn streams() -> impl Strategy<Value = Stream> {
        proptest::collection::vec(any::<u32>(), 0..20)
            .prop_map(|v| Stream::build(&v.into_iter().map(leaf).collect::<Vec<_>>()).0)
    }

    proptest! {
        #[test]
        fn root_round_trip(listing in streams(), content in streams(), folder in any::<bool>(), executable in any::<bool>()) {
            let root = if folder {
                Root { kind: RootKind::Folder, entries: listing.length.div_ceil(300), listing, content, incomplete: executable }
            } else {
                Root { kind: RootKind::File { executable }, entries: 0, listing: Stream::default(), content, incomplete: false }
            };
            prop_assume!(root.entries <= root.listing.length / 6);
            let bytes = root.encode();
            prop_assert_eq!(bytes.len(), ROOT_SIZE);
            prop_assert_eq!(Root::decode(&bytes), Ok(root));
            prop_assert!(Root::decode(&bytes[1..]).is_err());
        }

        #[test]
        fn memory_is_bounded_by_the_bytes_received(
            leaves in 1..50_usize,
            levels in proptest::collection::vec((1..5_usize, prop_oneof![1..9_usize, 1_000..MAX_CHILDREN]), 1..4),
            length in prop_oneof![Just(1_u32), 4096..MAX_BLOCK as u32],
        ) {
            let levels = [&[(leaves, 0)], &levels[..]].concat();
            let (stream, nodes) = repetitive(&levels, length);
            let (expanded, held, received) = descend(&stream, &nodes);
            prop_assert!(held <= 3 * received, "{} bytes held of {}", held, received);
            let most = REPEATS as usize * received + 100 * size_of::<BlockRef>();
            prop_assert!(expanded.is_none_or(|bytes| bytes <= most), "{:?} of {}", expanded, received);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), depth in any::<u8>(), span in any::<u64>()) {
            let _ = Root::decode(&bytes);
            let _ = decode_node(&bytes, depth, span);
        }

        #[test]
        fn damaged_roots_never_panic(content in streams(), at in 0..ROOT_SIZE, value in any::<u8>()) {
            let root = Root { kind: RootKind::File { executable: false }, entries: 0, listing: Stream::default(), content, incomplete: false };
            let mut bytes = root.encode();
            bytes[at] = value;
            if let Ok(decoded) = Root::decode(&bytes) {
                prop_assert_eq!(decoded.encode(), bytes);
            }
        }
    }
}
