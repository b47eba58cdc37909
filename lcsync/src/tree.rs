//! The tree of hashes from the root hash down to the data.
//!
//! ```text
//! ROOTHASH -> root node -> listing stream: names, kinds, sizes, in order (see `listing`)
//!                       -> content stream: the bytes of all files, one after the other in that order
//! stream   -> (depth d) hash nodes, d levels -> leaf blocks, whose bytes in order are the stream
//! ```
//!
//! Small files share leaf blocks, because the content of all files is one stream; a leaf may have any length up
//! to a block's, so the sharer is free in where it cuts. Every block is found by what its parent says of it:
//! nothing is parsed before its hash has been verified.

use librecast::wire::{Reader, WireError, Writer};

use crate::block::{BlockHash, BlockRef, MAX_BLOCK};

/// Version of root nodes and of all below them.
const VERSION: u8 = 1;
/// Levels of hash nodes: 5,957^4 blocks are more than any disk holds.
const MAX_DEPTH: u8 = 4;
/// Bytes of one child in a hash node: hash, block length, span.
const CHILD_SIZE: usize = 32 + 4 + 8;
/// Children of a hash node at most.
pub const MAX_CHILDREN: usize = MAX_BLOCK / CHILD_SIZE;
/// Length of a root node.
pub const ROOT_SIZE: usize = 12 + 2 * STREAM_SIZE;
/// Length of a stream's description.
pub const STREAM_SIZE: usize = 8 + 1 + 4 + 32;

/// What is shared.
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
    /// File or folder.
    pub kind: RootKind,
    /// Entries in the listing; 0 for a file.
    pub entries: u64,
    /// What is there; empty for a file.
    pub listing: Stream,
    /// The files' bytes.
    pub content: Stream,
    /// A folder of which not everything could be read: what is not in the listing may be there all the same.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// The block.
    pub block: BlockRef,
    /// Bytes of the stream below it; a leaf's own length.
    pub span: u64,
}

impl Root {
    /// The node's bytes.
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

    /// Parses a root node, which takes up the whole of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            VERSION => {}
            other => return Err(WireError::Version(other)),
        }
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

    /// Builds the hash nodes above `leaves`; gives the stream and all nodes' bytes.
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

/// Parses a hash node: `depth` levels (itself included) above the leaves, `span` bytes of stream below it.
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
            let mut level: Vec<Child> = stream
                .top
                .map(|block| Child {
                    block,
                    span: stream.length,
                })
                .into_iter()
                .collect();
            for depth in (1..=stream.depth).rev() {
                level = level
                    .iter()
                    .flat_map(|c| {
                        let (_, bytes) = nodes.iter().find(|(b, _)| *b == c.block).unwrap();
                        assert_eq!(BlockRef::of(bytes), c.block);
                        decode_node(bytes, depth, c.span).unwrap()
                    })
                    .collect();
            }
            assert_eq!(level.iter().map(|c| c.block).collect::<Vec<_>>(), leaves);
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
