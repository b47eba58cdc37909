//! Messages of a link's control channel.
//!
//! A channel message is a batch of elements, at most 16 KiB in all: type (1 byte), length of the
//! value (2 bytes), value. Receivers skip unknown types, and bytes behind a HELLO's known fields.

use std::net::Ipv6Addr;

use bytes::Bytes;
use librecast::cert::GroupPrefix;
use librecast::id::{OriginId, PeerId};
use librecast::mld::MAX_SOURCES;
use librecast::wire::{Reader, WireError, Writer};

use crate::lsdb::{Lsa, Summary};
use crate::source_filter::SourceFilter;
use crate::topology::LinkRequest;

/// Longest message in bytes, sent or accepted.
pub const MAX_MESSAGE: usize = 16 << 10;
/// Initial capacity of a message in bytes: an LSA or two.
const INITIAL_CAPACITY: usize = 512;

/// Type of an element: this router's HELLO, first on a link.
const TYPE_HELLO: u8 = 1;
/// Joins and SourceActive of a group on a tree.
const TYPE_JOIN_STATE: u8 = 2;
/// Join state of the neighbour that was not kept.
const TYPE_REFUSAL: u8 = 3;
/// Part of the content of the link state database.
const TYPE_SUMMARY: u8 = 4;
/// A link state advertisement.
const TYPE_LSA: u8 = 5;
/// A message from router to router.
const TYPE_ROUTED: u8 = 6;
/// Comparison of join state.
const TYPE_AUDIT: u8 = 7;
/// Whether this router needs the link.
const TYPE_LINK_REQUEST: u8 = 8;
/// Joins of a leaf.
const TYPE_LEAF_JOIN: u8 = 9;
/// Other routers for a leaf.
const TYPE_LEAF_OFFER: u8 = 10;
/// Rendezvous epochs of the network.
const TYPE_EPOCHS: u8 = 11;
/// Bytes before an element: type and length.
const ELEMENT_HEADER: usize = 3;
/// Buckets into which an audit sorts the join state of a link.
pub const AUDIT_BUCKETS: usize = 256;
/// Form of an audit: one digest of all join state.
const AUDIT_DIGEST: u8 = 0;
/// A digest of each bucket.
const AUDIT_BUCKET_DIGESTS: u8 = 1;
/// Buckets whose join state is sent again.
const AUDIT_RESET: u8 = 2;
/// Longest payload of a [`Routed`] message in bytes.
pub const MAX_ROUTED: usize = MAX_MESSAGE - ELEMENT_HEADER - ROUTED_HEADER;
/// Bytes of a routed message before its payload.
const ROUTED_HEADER: usize = 18;
/// Longest value of an EPOCHS element in bytes.
pub const MAX_EPOCHS: usize = MAX_MESSAGE - ELEMENT_HEADER;
/// Flag of a LEAF OFFER: the router sends the leaf's packets to asking groups.
const FLAG_UPLINK: u8 = 2;
const FLAG_ISOLATED: u8 = 4;
/// Flag of a LEAF OFFER: another router serves the leaf better.
const FLAG_SPARE: u8 = 8;
/// Most routers that a LEAF OFFER names.
pub const MAX_OFFERED: usize = 4;
/// Longest prefix in bytes: two before the address.
const MAX_PREFIX_LEN: usize = 18;

/// Join state: the group is joined.
const FLAG_JOIN: u8 = 0x01;
/// Join state: SourceActive.
const FLAG_SOURCE_ACTIVE: u8 = 0x02;
/// With a Join: every source except those listed.
const FLAG_EXCLUDE: u8 = 0x04;
/// With a Join: only the sources listed. Neither flag: every source.
const FLAG_INCLUDE: u8 = 0x08;

/// In the first byte of a prefix: a length follows. Without it, the prefix is a single group.
const HAS_LENGTH: u8 = 0x80;

/// Writes a prefix without the bytes that it shares with `last`, the prefix before it.
fn encode_prefix(prefix: &GroupPrefix, w: &mut Writer, last: &mut [u8; 16]) {
    let (octets, len) = (prefix.addr().octets(), prefix.prefix_len());
    let bytes = &octets[..usize::from(len).div_ceil(8)];
    let same = bytes.iter().zip(&*last).take_while(|(a, b)| a == b);
    let shared = same.count();
    // at most 16
    let first = shared as u8;
    if len == 128 {
        w.u8(first);
    } else {
        w.u8(first | HAS_LENGTH).u8(len);
    }
    w.put(&bytes[shared..]);
    *last = octets;
}

fn decode_prefix(r: &mut Reader<'_>, last: &mut [u8; 16]) -> Result<GroupPrefix, WireError> {
    let first = r.u8()?;
    let len = if first & HAS_LENGTH == 0 {
        128
    } else {
        r.u8()?
    };
    if len > 128 {
        return Err(WireError::Bad("prefix length"));
    }
    let bytes = usize::from(len).div_ceil(8);
    let shared = usize::from(first & !HAS_LENGTH);
    let more = bytes.checked_sub(shared);
    let more = r.take(more.ok_or(WireError::Bad("shared bytes"))?)?;
    let mut octets = [0; 16];
    octets[..shared].copy_from_slice(&last[..shared]);
    octets[shared..bytes].copy_from_slice(more);
    let prefix =
        GroupPrefix::around(Ipv6Addr::from(octets), len).ok_or(WireError::Bad("group prefix"))?;
    *last = prefix.addr().octets();
    Ok(prefix)
}

/// The whole join state of a neighbour for (root, prefix); it replaces the earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinState {
    /// The tree.
    pub root: OriginId,
    /// Groups.
    pub prefix: GroupPrefix,
    /// Join: listeners lie beyond the sender of this message, with the merged source filter.
    pub join: Option<SourceFilter>,
    /// SourceActive: beyond the sender of this message are senders, or watchers of joins.
    pub source_active: bool,
}

/// The kind of a routed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RoutedKind {
    /// A sealed signalling message.
    Signal,
    /// To be answered with the same payload.
    Echo,
    /// The answer.
    EchoReply,
    /// A member asks an issuer for a new certificate.
    Renew,
    /// The issuer's answer.
    Renewed,
    /// A sender asks a router to announce parts of what it sends.
    Carry,
    /// The router's answer.
    Carried,
    /// A helper of a station offers its places for leaves.
    HelperOffer,
    /// A kind that this version does not know; it is passed on.
    Other(u8),
}

impl RoutedKind {
    fn code(self) -> u8 {
        match self {
            Self::Signal => 1,
            Self::Echo => 2,
            Self::EchoReply => 3,
            Self::Renew => 4,
            Self::Renewed => 5,
            Self::Carry => 6,
            Self::Carried => 7,
            Self::HelperOffer => 8,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Signal,
            2 => Self::Echo,
            3 => Self::EchoReply,
            4 => Self::Renew,
            5 => Self::Renewed,
            6 => Self::Carry,
            7 => Self::Carried,
            8 => Self::HelperOffer,
            other => Self::Other(other),
        }
    }
}

/// A message from router to router over the control channels between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    /// The destination.
    pub destination: OriginId,
    /// The source, as the message claims: only the payload can prove it.
    pub source: OriginId,
    /// Number of routers that may still pass it on.
    pub hop_limit: u8,
    /// Its kind.
    pub kind: RoutedKind,
    /// At most [`MAX_ROUTED`] bytes.
    pub payload: Bytes,
}

/// Comparison of the join state that one end of a link advertised and the other received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audit {
    /// XOR of the digests of all join state that the sender advertised.
    Digest(u64),
    /// The answer to a digest that differs: for each bucket, the XOR of all join state that its
    /// sender received.
    BucketDigests(Box<[u64; AUDIT_BUCKETS]>),
    /// Buckets whose advertised join state is void; it follows anew. Bit n is bucket n.
    Reset([u64; AUDIT_BUCKETS / 64]),
}

/// A leaf's join of one group; it replaces the earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafJoin {
    /// The group.
    pub group: GroupPrefix,
    /// The sources; none: the join ends.
    pub join: Option<SourceFilter>,
}

/// A router's offer to a leaf.
///
/// `flags 8 | groups 16 | room 16 | others 8 (at most 4) x key 256`; bit 1 of the flags is `uplink`,
/// bit 2 `isolated`, bit 3 `spare`, receivers ignore the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeafOffer {
    /// The router sends the leaf's packets to asking groups.
    pub uplink: bool,
    /// The router has no link with another router.
    pub isolated: bool,
    /// The router serves only leaves that no other router serves.
    pub spare: bool,
    /// Groups that a leaf may join.
    pub groups: u16,
    /// Free places for leaves.
    pub room: u16,
    /// Other routers that a leaf may use.
    pub others: Vec<PeerId>,
}

/// Reason why join state was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The neighbour's bound for entries is reached.
    TooManyGroups,
    /// The neighbour's bound for source addresses is reached.
    TooManySources,
    /// A Join for a prefix instead of one group.
    JoinedPrefix,
    /// A leaf's certificate does not let it join the group, or the group is not carried.
    NotPermitted,
    /// A reason that this version does not know.
    Other(u8),
}

impl RefusalReason {
    /// The name shown in `groups`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooManyGroups => "too_many_groups",
            Self::TooManySources => "too_many_sources",
            Self::JoinedPrefix => "joined_prefix",
            Self::NotPermitted => "not_permitted",
            Self::Other(_) => "other",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::TooManyGroups => 1,
            Self::TooManySources => 2,
            Self::JoinedPrefix => 3,
            Self::NotPermitted => 5,
            Self::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::TooManyGroups,
            2 => Self::TooManySources,
            3 => Self::JoinedPrefix,
            5 => Self::NotPermitted,
            other => Self::Other(other),
        }
    }
}

/// One element of a control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// The first element on a link: the incarnation of its sender.
    Hello {
        /// Raised at every start of the daemon.
        incarnation: u32,
        /// Key of the digests by which this link's join state is audited.
        salt: u64,
    },
    /// Join state of the sender.
    JoinState(JoinState),
    /// The sender did not keep this join state.
    Refusal {
        /// The reason.
        reason: RefusalReason,
        /// The tree.
        root: OriginId,
        /// The groups.
        prefix: GroupPrefix,
    },
    /// Part of the content of the sender's database.
    Summary(Summary),
    /// An LSA.
    Lsa(Lsa),
    /// A message from router to router.
    Routed(Routed),
    /// Part of the audit of this link's join state.
    Audit(Audit),
    /// Whether the sender wants this link.
    LinkRequest(LinkRequest),
    /// A join of a leaf.
    LeafJoin(LeafJoin),
    /// An offer to a leaf, at once and every 30 s.
    LeafOffer(LeafOffer),
    /// Rendezvous epochs ([`librecast::epoch`]), each behind its length (16 bits): at most
    /// [`MAX_EPOCHS`] bytes. Their secrets are for members only, so they are in no LSA.
    Epochs(Bytes),
}

/// Encodes elements, in order, into messages.
pub fn encode<'a>(elements: impl IntoIterator<Item = &'a Element>) -> Vec<Bytes> {
    let mut batch = Batch::default();
    elements.into_iter().for_each(|element| batch.push(element));
    batch.finish()
}

/// Decodes a message; one error makes all of it void.
pub fn decode(message: &[u8]) -> Result<Vec<Element>, WireError> {
    if message.len() > MAX_MESSAGE {
        return Err(WireError::Bad("message length"));
    }
    let mut r = Reader::new(message);
    let mut elements = Vec::new();
    while !r.is_empty() {
        let kind = r.u8()?;
        let mut value = Reader::new(r.bytes16()?);
        match kind {
            TYPE_HELLO => elements.push(decode_hello(value)?),
            TYPE_JOIN_STATE => decode_join_state(value, &mut elements)?,
            TYPE_REFUSAL => decode_refusal(value, &mut elements)?,
            TYPE_SUMMARY => elements.push(Element::Summary(Summary::decode(&mut value)?)),
            TYPE_LSA => elements.push(Element::Lsa(Lsa::decode(&mut value)?)),
            TYPE_ROUTED => elements.push(decode_routed(value)?),
            TYPE_AUDIT => elements.push(decode_audit(value)?),
            TYPE_LINK_REQUEST => elements.push(decode_link_request(value)?),
            TYPE_LEAF_JOIN => decode_leaf_join(value, &mut elements)?,
            TYPE_LEAF_OFFER => elements.push(decode_leaf_offer(value)?),
            TYPE_EPOCHS => {
                elements.push(Element::Epochs(Bytes::copy_from_slice(value.rest())));
            }
            _ => {}
        }
    }
    Ok(elements)
}

fn decode_hello(mut r: Reader<'_>) -> Result<Element, WireError> {
    Ok(Element::Hello {
        incarnation: r.u32()?,
        salt: r.u64()?,
    })
}

fn decode_link_request(mut r: Reader<'_>) -> Result<Element, WireError> {
    Ok(Element::LinkRequest(match r.u8()? & 3 {
        3 => LinkRequest::Trial,
        1 => LinkRequest::Keep,
        _ => LinkRequest::Release,
    }))
}

fn decode_routed(mut r: Reader<'_>) -> Result<Element, WireError> {
    Ok(Element::Routed(Routed {
        destination: OriginId(r.u64()?),
        source: OriginId(r.u64()?),
        hop_limit: r.u8()?,
        kind: RoutedKind::from_code(r.u8()?),
        payload: Bytes::copy_from_slice(r.rest()),
    }))
}

fn decode_audit(mut r: Reader<'_>) -> Result<Element, WireError> {
    let audit = match r.u8()? {
        AUDIT_DIGEST => Audit::Digest(r.u64()?),
        AUDIT_BUCKET_DIGESTS => {
            let mut buckets = Box::new([0; AUDIT_BUCKETS]);
            for bucket in buckets.iter_mut() {
                *bucket = r.u64()?;
            }
            Audit::BucketDigests(buckets)
        }
        AUDIT_RESET => {
            let mut bits = [0; AUDIT_BUCKETS / 64];
            for word in &mut bits {
                *word = r.u64()?;
            }
            Audit::Reset(bits)
        }
        _ => return Err(WireError::Bad("audit")),
    };
    Ok(Element::Audit(audit))
}

fn decode_join_state(mut r: Reader<'_>, elements: &mut Vec<Element>) -> Result<(), WireError> {
    let root = OriginId(r.u64()?);
    let mut last = [0; 16];
    while !r.is_empty() {
        let flags = r.u8()?;
        let prefix = decode_prefix(&mut r, &mut last)?;
        let join = if flags & FLAG_JOIN == 0 {
            None
        } else {
            Some(decode_filter(&mut r, flags)?)
        };
        let source_active = flags & FLAG_SOURCE_ACTIVE != 0;
        elements.push(Element::JoinState(JoinState {
            root,
            prefix,
            join,
            source_active,
        }));
    }
    Ok(())
}

fn decode_leaf_join(mut r: Reader<'_>, elements: &mut Vec<Element>) -> Result<(), WireError> {
    let mut last = [0; 16];
    while !r.is_empty() {
        let flags = r.u8()?;
        let group = decode_prefix(&mut r, &mut last)?;
        let join = match flags & FLAG_JOIN {
            0 => None,
            _ => Some(decode_filter(&mut r, flags)?),
        };
        elements.push(Element::LeafJoin(LeafJoin { group, join }));
    }
    Ok(())
}

fn decode_leaf_offer(mut r: Reader<'_>) -> Result<Element, WireError> {
    let (flags, groups, room) = (r.u8()?, r.u16()?, r.u16()?);
    let count = usize::from(r.u8()?);
    if count > MAX_OFFERED {
        return Err(WireError::Bad("number of routers"));
    }
    let key = |r: &mut Reader<'_>| {
        PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("router's key"))
    };
    let others = (0..count)
        .map(|_| key(&mut r))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Element::LeafOffer(LeafOffer {
        uplink: flags & FLAG_UPLINK != 0,
        isolated: flags & FLAG_ISOLATED != 0,
        spare: flags & FLAG_SPARE != 0,
        groups,
        room,
        others,
    }))
}

fn decode_filter(r: &mut Reader<'_>, flags: u8) -> Result<SourceFilter, WireError> {
    let excludes = match (flags & FLAG_EXCLUDE != 0, flags & FLAG_INCLUDE != 0) {
        (false, false) => return Ok(SourceFilter::all()),
        (true, true) => return Err(WireError::Bad("filter")),
        (excludes, _) => excludes,
    };
    let count = usize::from(r.u8()?);
    if count > MAX_SOURCES {
        return Err(WireError::Bad("source count"));
    }
    let sources = (0..count).map(|_| r.ipv6());
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    if excludes {
        return Ok(SourceFilter::exclude(sources));
    }
    SourceFilter::include(sources).ok_or(WireError::Bad("empty INCLUDE"))
}

fn decode_refusal(mut r: Reader<'_>, elements: &mut Vec<Element>) -> Result<(), WireError> {
    let root = OriginId(r.u64()?);
    let mut last = [0; 16];
    while !r.is_empty() {
        let reason = RefusalReason::from_code(r.u8()?);
        let prefix = decode_prefix(&mut r, &mut last)?;
        elements.push(Element::Refusal {
            reason,
            root,
            prefix,
        });
    }
    Ok(())
}

/// Builds messages of at most [`MAX_MESSAGE`] bytes from elements. Consecutive elements of one type
/// and root share element header and root; consecutive groups share the bytes that they begin with.
#[derive(Debug, Default)]
pub struct Batch {
    messages: Vec<Bytes>,
    current: Vec<u8>,
    open: Option<Open>,
}

/// The element that can still grow.
#[derive(Debug)]
struct Open {
    kind: u8,
    /// None in joins of leaves, which have no trees.
    root: Option<OriginId>,
    start: usize,
    /// The address of its last entry.
    last: [u8; 16],
}

impl Batch {
    /// Appends one element.
    pub fn push(&mut self, element: &Element) {
        match element {
            Element::Hello { incarnation, salt } => {
                self.append_whole(TYPE_HELLO, |w| {
                    w.u32(*incarnation).u64(*salt);
                });
            }
            Element::Summary(summary) => self.append_whole(TYPE_SUMMARY, |w| summary.encode(w)),
            Element::Lsa(lsa) => self.append_whole(TYPE_LSA, |w| lsa.encode(w)),
            Element::Routed(routed) => self.append_whole(TYPE_ROUTED, |w| {
                w.u64(routed.destination.0).u64(routed.source.0);
                w.u8(routed.hop_limit).u8(routed.kind.code());
                w.put(&routed.payload);
            }),
            Element::Audit(audit) => self.append_whole(TYPE_AUDIT, |w| encode_audit(audit, w)),
            Element::LinkRequest(request) => {
                let bits = match request {
                    LinkRequest::Release => 0,
                    LinkRequest::Keep => 1,
                    LinkRequest::Trial => 3,
                };
                self.append_whole(TYPE_LINK_REQUEST, |w| {
                    w.u8(bits);
                });
            }
            Element::JoinState(state) => {
                let (flags, sources) = encode_filter(&state.join, state.source_active);
                let entry = (flags, &state.prefix, sources.as_slice());
                self.append(TYPE_JOIN_STATE, Some(state.root), entry);
            }
            Element::LeafJoin(LeafJoin { group, join }) => {
                let (flags, sources) = encode_filter(join, false);
                let entry = (flags, group, sources.as_slice());
                self.append(TYPE_LEAF_JOIN, None, entry);
            }
            Element::LeafOffer(offer) => self.append_whole(TYPE_LEAF_OFFER, |w| {
                let others = &offer.others[..offer.others.len().min(MAX_OFFERED)];
                let isolated = u8::from(offer.isolated) * FLAG_ISOLATED;
                let spare = u8::from(offer.spare) * FLAG_SPARE;
                let flags = (u8::from(offer.uplink) * FLAG_UPLINK) | isolated | spare;
                w.u8(flags).u16(offer.groups).u16(offer.room);
                w.u8(others.len() as u8);
                for other in others {
                    w.put(other.public_key());
                }
            }),
            Element::Epochs(epochs) => self.append_whole(TYPE_EPOCHS, |w| {
                w.put(epochs);
            }),
            Element::Refusal {
                reason,
                root,
                prefix,
            } => {
                self.append(TYPE_REFUSAL, Some(*root), (reason.code(), prefix, &[]));
            }
        }
    }

    /// The finished messages; none if nothing was pushed.
    #[must_use]
    pub fn finish(mut self) -> Vec<Bytes> {
        self.close(self.current.len());
        self.messages
    }

    /// Appends an entry: a byte, a prefix, and `rest`.
    fn append(
        &mut self,
        kind: u8,
        root: Option<OriginId>,
        (first, prefix, rest): (u8, &GroupPrefix, &[u8]),
    ) {
        let longest = MAX_PREFIX_LEN + 1 + rest.len();
        let grows = |open: &Open| open.kind == kind && open.root == root;
        let has_room = self.current.len() + longest <= MAX_MESSAGE;
        let open = self.open.take().filter(|open| has_room && grows(open));
        let mut open = open.unwrap_or_else(|| Open {
            kind,
            root,
            start: self.begin(kind, size_of::<OriginId>() + longest),
            last: [0; 16],
        });
        let is_new = self.current.len() == open.start + ELEMENT_HEADER;
        self.write(|w| {
            if let Some(root) = root.filter(|_| is_new) {
                w.u64(root.0);
            }
            w.u8(first);
            encode_prefix(prefix, w, &mut open.last);
            w.put(rest);
        });
        set_length(&mut self.current, open.start);
        self.open = Some(open);
    }

    fn append_whole(&mut self, kind: u8, value: impl FnOnce(&mut Writer)) {
        self.open = None;
        let mut start = self.begin(kind, 0);
        self.write(value);
        if self.current.len() > MAX_MESSAGE {
            self.close(start);
            start = 0;
        }
        set_length(&mut self.current, start);
    }

    /// Begins an element, in a new message if `least` bytes have no room; returns its start.
    fn begin(&mut self, kind: u8, least: usize) -> usize {
        if self.current.len() + ELEMENT_HEADER + least > MAX_MESSAGE {
            self.close(self.current.len());
        }
        if self.current.capacity() == 0 {
            self.current.reserve(INITIAL_CAPACITY);
        }
        let start = self.current.len();
        self.current.extend_from_slice(&[kind, 0, 0]);
        start
    }

    fn write(&mut self, value: impl FnOnce(&mut Writer)) {
        let mut writer = Writer::from(std::mem::take(&mut self.current));
        value(&mut writer);
        self.current = writer.into_vec();
    }

    /// Ends the message at `end`, in a buffer of its exact size: it may wait long.
    fn close(&mut self, end: usize) {
        self.open = None;
        if end > 0 {
            self.messages
                .push(Bytes::copy_from_slice(&self.current[..end]));
            self.current.drain(..end);
        }
    }
}

/// Writes the length of the element that began at `start` and reaches to the end.
fn set_length(message: &mut [u8], start: usize) {
    // MAX_MESSAGE bounds it far below 2^16
    let length = (message.len() - start - ELEMENT_HEADER) as u16;
    message[start + 1..start + ELEMENT_HEADER].copy_from_slice(&length.to_be_bytes());
}

fn encode_audit(audit: &Audit, w: &mut Writer) {
    let (kind, words): (u8, &[u64]) = match audit {
        Audit::Digest(digest) => (AUDIT_DIGEST, std::slice::from_ref(digest)),
        Audit::BucketDigests(buckets) => (AUDIT_BUCKET_DIGESTS, buckets.as_slice()),
        Audit::Reset(bits) => (AUDIT_RESET, bits),
    };
    w.u8(kind);
    for word in words {
        w.u64(*word);
    }
}

/// The flags of an entry, and its list of sources.
fn encode_filter(join: &Option<SourceFilter>, source_active: bool) -> (u8, Vec<u8>) {
    let source_active = if source_active { FLAG_SOURCE_ACTIVE } else { 0 };
    let (mode, sources) = match join {
        None => return (source_active, Vec::new()),
        Some(filter) if filter.is_all() => return (source_active | FLAG_JOIN, Vec::new()),
        Some(SourceFilter::Include(sources)) => (FLAG_INCLUDE, sources),
        Some(SourceFilter::Exclude(sources)) => (FLAG_EXCLUDE, sources),
    };
    let mut w = Writer::new();
    // a SourceFilter holds at most MAX_SOURCES
    w.u8(sources.len() as u8);
    for source in sources {
        w.ipv6(*source);
    }
    (source_active | FLAG_JOIN | mode, w.into_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_prefix() -> impl Strategy<Value = GroupPrefix> {
        (any::<u128>(), 8u8..=128).prop_map(|(bits, len)| {
            GroupPrefix::around(Ipv6Addr::from_bits(bits | 0xff << 120), len).unwrap()
        })
    }

    fn any_filter() -> impl Strategy<Value = Option<SourceFilter>> {
        let sources = |n| prop::collection::vec(any::<u128>().prop_map(Ipv6Addr::from_bits), n);
        prop_oneof![
            Just(None),
            sources(0..=64).prop_map(SourceFilter::include),
            sources(0..=64).prop_map(|s| Some(SourceFilter::exclude(s))),
        ]
    }

    fn any_routed() -> impl Strategy<Value = Routed> {
        let payload = prop::collection::vec(any::<u8>(), 0..100);
        (
            any::<u64>(),
            any::<u64>(),
            any::<u8>(),
            any::<u8>(),
            payload,
        )
            .prop_map(|(to, from, hop_limit, kind, payload)| Routed {
                destination: OriginId(to),
                source: OriginId(from),
                hop_limit,
                kind: RoutedKind::from_code(kind),
                payload: payload.into(),
            })
    }

    fn any_element() -> impl Strategy<Value = Element> {
        let root = || (0u64..3).prop_map(OriginId);
        prop_oneof![
            (any::<u32>(), any::<u64>())
                .prop_map(|(incarnation, salt)| Element::Hello { incarnation, salt }),
            prop::sample::select(vec![
                LinkRequest::Release,
                LinkRequest::Trial,
                LinkRequest::Keep
            ])
            .prop_map(Element::LinkRequest),
            any::<u64>().prop_map(|digest| Element::Audit(Audit::Digest(digest))),
            any::<[u64; 4]>().prop_map(|bits| Element::Audit(Audit::Reset(bits))),
            any_routed().prop_map(Element::Routed),
            (root(), any_prefix(), any_filter(), any::<bool>()).prop_map(
                |(root, prefix, join, source_active)| {
                    Element::JoinState(JoinState {
                        root,
                        prefix,
                        join,
                        source_active,
                    })
                }
            ),
            (any_prefix(), any_filter())
                .prop_map(|(group, join)| Element::LeafJoin(LeafJoin { group, join })),
            (any::<u8>(), root(), any_prefix()).prop_map(|(code, root, prefix)| {
                Element::Refusal {
                    reason: RefusalReason::from_code(code),
                    root,
                    prefix,
                }
            }),
        ]
    }

    fn leaf_join(group: u16, join: Option<SourceFilter>) -> Element {
        let group = GroupPrefix::group(Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, group));
        Element::LeafJoin(LeafJoin { group, join })
    }

    #[test]
    fn what_leaves_and_routers_say_looks_like_this() {
        let key = librecast::id::SecretKey::from_seed(&[1; 32]).peer_id();
        let elements = [
            leaf_join(9, Some(SourceFilter::all())),
            leaf_join(10, None),
            Element::LeafOffer(LeafOffer {
                uplink: true,
                isolated: true,
                spare: true,
                groups: 64,
                room: 3,
                others: vec![key],
            }),
            Element::Refusal {
                reason: RefusalReason::NotPermitted,
                root: OriginId(0),
                prefix: GroupPrefix::ALL,
            },
        ];
        let mut bytes = vec![9, 0, 21]; // LEAF JOIN
        bytes.extend([
            0x01, 0, 0xff, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9,
        ]);
        bytes.extend([0x00, 15, 10]); // leaves; the first fifteen as before
        bytes.extend([10, 0, 38, 14, 0, 64, 0, 3, 1]); // LEAF OFFER
        bytes.extend(key.public_key());
        bytes.extend([3, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x80, 8, 0xff]);
        assert_eq!(encode(&elements), vec![bytes.clone()]);
        assert_eq!(decode(&bytes).unwrap(), elements);
        let five = [
            vec![10, 0, 166, 0, 0, 64, 0, 3, 5],
            [*key.public_key(); 5].concat(),
        ]
        .concat();
        assert!(decode(&five).is_err(), "more routers than are read");
    }

    fn joined(group: u16) -> Element {
        Element::JoinState(JoinState {
            root: OriginId(1),
            prefix: GroupPrefix::group(Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, group)),
            join: Some(SourceFilter::all()),
            source_active: false,
        })
    }

    #[test]
    fn golden_bytes() {
        let elements = [
            Element::Hello {
                incarnation: 7,
                salt: 9,
            },
            Element::JoinState(JoinState {
                root: OriginId(1),
                prefix: GroupPrefix::ALL,
                join: None,
                source_active: true,
            }),
            joined(9),
            joined(10),
            Element::Refusal {
                reason: RefusalReason::TooManyGroups,
                root: OriginId(1),
                prefix: GroupPrefix::ALL,
            },
            Element::Routed(Routed {
                destination: OriginId(2),
                source: OriginId(1),
                hop_limit: 64,
                kind: RoutedKind::Echo,
                payload: vec![7, 7].into(),
            }),
            Element::Audit(Audit::Digest(5)),
            Element::LinkRequest(LinkRequest::Keep),
            Element::Epochs(vec![0, 1, 9].into()),
        ];
        let mut bytes = vec![1, 0, 12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]; // HELLO
        bytes.extend([2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 1]); // JOIN STATE, length, root
        bytes.extend([0x02, 0x80, 8, 0xff]); // SourceActive for ff00::/8
        bytes.extend([0x01, 1, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]); // Join; 1 as before
        bytes.extend([0x01, 15, 10]); // Join; the first fifteen as before
        bytes.extend([3, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x80, 8, 0xff]); // REFUSAL
        bytes.extend([6, 0, 20]); // ROUTED
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 64, 2, 7, 7]);
        bytes.extend([7, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 5]); // AUDIT
        bytes.extend([8, 0, 1, 1]); // LINK REQUEST
        bytes.extend([11, 0, 3, 0, 1, 9]); // EPOCHS
        assert_eq!(encode(&elements), vec![bytes.clone()]);
        assert_eq!(decode(&bytes).unwrap(), elements);
    }

    #[test]
    fn unknown_types_are_skipped_and_hello_may_grow() {
        let mut bytes = vec![200, 0, 2, 9, 9];
        bytes.extend([1, 0, 14, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1]);
        let hello = Element::Hello {
            incarnation: 7,
            salt: 9,
        };
        assert_eq!(decode(&bytes).unwrap(), [hello]);
    }

    #[test]
    fn batched_join_state_is_small() {
        let two: usize = encode(&[joined(1), joined(2)]).iter().map(Bytes::len).sum();
        let one: usize = encode(&[joined(1)]).iter().map(Bytes::len).sum();
        assert_eq!((one, two - one), (29, 3));
        // groups that share nothing but ff1e
        let mut batch = Batch::default();
        for n in 0..100_u128 {
            let bits = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let group = Ipv6Addr::from_bits(0xff1e << 112 | bits >> 16);
            batch.push(&Element::JoinState(JoinState {
                root: OriginId(1),
                prefix: GroupPrefix::group(group),
                join: Some(SourceFilter::all()),
                source_active: false,
            }));
        }
        let all: usize = batch.finish().iter().map(Bytes::len).sum();
        assert!(all <= 16 * 100 + 13, "{all}");
    }

    #[test]
    fn long_batches_are_split() {
        let lsa = |n: u16| {
            Element::Lsa(Lsa {
                kind: 2,
                bytes: vec![n as u8; usize::from(n) * 7].into(),
            })
        };
        let longest = (MAX_MESSAGE - ELEMENT_HEADER - 1) / 7;
        let groups: Vec<_> = (0..20_000).map(joined).collect();
        let lsas: Vec<_> = (0..=longest as u16).step_by(97).map(lsa).collect();
        let both = (0..2_000).flat_map(|n| [joined(n), lsa(n)]);
        for elements in [groups, lsas, both.collect()] {
            let messages = encode(&elements);
            assert!(messages.len() > 1 && messages.iter().all(|m| m.len() <= MAX_MESSAGE));
            let read: Vec<_> = messages.iter().flat_map(|m| decode(m).unwrap()).collect();
            assert_eq!(read, elements);
        }
    }

    #[test]
    fn broken_messages_are_refused() {
        for bytes in [
            &[1, 0][..],                                               // no length
            &[1, 0, 3, 0, 0, 0],                                       // short HELLO
            &[2, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1],                     // no prefix
            &[2, 0, 13, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0x80, 8, 0xff, 0],  // INCLUDE{}
            &[2, 0, 13, 0, 0, 0, 0, 0, 0, 0, 1, 5, 0x80, 8, 0xff, 65], // 65 sources
            &[2, 0, 13, 0, 0, 0, 0, 0, 0, 0, 1, 13, 0x80, 8, 0xff, 0], // INCLUDE and EXCLUDE
            &[2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0x80, 8, 0xfe],     // not multicast
            &[2, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0x80, 7, 0xff],     // wider than multicast
            &[2, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0x81, 8],           // the first shares with none
            &[2, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 2, 17],                // more than there is
            &[3, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x80, 200, 0xff],   // prefix length
        ] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
        assert!(decode(&vec![0; MAX_MESSAGE + 1]).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(elements in prop::collection::vec(any_element(), 0..40)) {
            let messages = encode(&elements);
            let read: Vec<_> = messages.iter().flat_map(|m| decode(m).unwrap()).collect();
            prop_assert_eq!(read, elements);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn broken_valid_messages_never_panic(
            elements in prop::collection::vec(any_element(), 1..10), at: prop::sample::Index, to: u8,
        ) {
            for message in encode(&elements) {
                let mut message = message.to_vec();
                let i = at.index(message.len());
                message[i] = to;
                let _ = decode(&message);
                let _ = decode(&message[..i]);
            }
        }
    }
}
