//! Bodies of entries.
//!
//! ```text
//! an author's own log:
//!   message (1):  part header | part of MLS PrivateMessage { version 8 = 1 | id 64 | content }
//!   refresh (2):  sealed box to the group key { version 8 = 1 | urgent 8 | key package }
//!   leave   (3):  nothing
//!   history (4):  part header | part of { version 8 = 1 | n 16 | n x { author 256 | box } | AES-128-GCM
//!                 { content } }; box: sealed box of the key 128 to the author; of the owner alone
//!   device gone (8), read (9): `vouch.rs`; device text (10): `network.rs`
//!   file    (5):  a sealed file, also for holders: `file`
//! the owner's log, under the group key:
//!   commit  (16): part header | part of { version 8 = 1 | heads | MLS commit }
//!   tree    (17): part header | part of AES-128-GCM { version 8 = 1 | heads | ratchet tree }
//!   welcome (18): author 256 | sealed box to it { version 8 = 1 | tree key 128 | MLS Welcome }
//!   terms   (19): version 8 = 1 | keep 64 (seconds, 0: for ever) | history 64 (seconds, 0: none, all
//!                 ones: all) | later fields; holders read it too
//!   deputy in the group's network (20), lines into it (21, also in offices): `network.rs`
//!
//!   offices (255): version 8 = 1 | n x { author 256 | last number 32 | silence 32 (seconds) }
//! all logs with commits:
//!   handover (22): version 8 = 1 | place 8 of the one that takes over
//!   term (254):   version 8 = 1 | term 32 | place 8 and number 32 of the entry that it goes on from |
//!                 epoch 64
//!
//! part header: epoch 64 | part 16 (from 0) | parts 16
//! heads: n 16 | n x { author 256 | number 32 }
//! ```
//!
//! The epoch is the one that seals a message, that a commit ends, or that a tree begins. Parts of
//! one message, commit or tree have consecutive numbers. In messages, the upper 32 bits of the epoch
//! are the term of the commit that began it. The log encrypts each entry once more, so
//! that only readers and holders see headers.

use std::collections::BTreeMap;

use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::MAX_MEMBERS;
use crate::event::Entry;

/// Bytes of an entry's body.
pub const MAX_BODY: usize = 1_000;
/// Bytes of a part header.
const PART_HEADER: usize = 12;
/// Parts of a message: 64 KiB of content is padded to 80 KiB, which takes 84.
const MAX_MESSAGE_PARTS: u16 = 90;
/// Parts of a commit or tree: 1,000 members take 140 and 290 (measured: 98 KB, 250 KB).
const MAX_OWNER_PARTS: u16 = 640;
/// Version of bodies, the first byte of each.
const VERSION: u8 = 1;

/// Kinds of entries; this crate ignores unknown ones.
pub mod kind {
    /// Part of a message.
    pub const MESSAGE: u8 = 1;
    /// A member asks for a new leaf.
    pub const REFRESH: u8 = 2;
    /// A member leaves.
    pub const LEAVE: u8 = 3;
    /// Part of what was said before, for newcomers.
    pub const HISTORY: u8 = 4;
    /// A device asks the owner to remove another one of its person.
    pub const DEVICE_GONE: u8 = 8;
    /// How far a person has read, for its other devices.
    pub const READ: u8 = 9;
    /// A device says to the one in office that it made a text for another one.
    pub const DEVICE_TEXT: u8 = 10;
    /// A file of a message, also for holders.
    pub const FILE: u8 = 5;
    /// Part of a commit.
    pub const COMMIT: u8 = 16;
    /// Part of a ratchet tree.
    pub const TREE: u8 = 17;
    /// A Welcome for one member.
    pub const WELCOME: u8 = 18;
    /// Terms of the group, also for holders.
    pub const TERMS: u8 = 19;
    /// A deputy's certificate in the group's own network.
    pub const NETWORK_DEPUTY: u8 = 20;
    /// Keys of invitations that lead into the group's own network.
    pub const NETWORK_LINES: u8 = 21;
    /// The one in office names the one that commits from here on.
    pub const HANDOVER: u8 = 22;
    /// A term of an office: its log has the commits from here on. The entry log reads it too.
    pub const TERM: u8 = 254;
    /// The list of deputies, in the owner's log. The entry log reads it too.
    pub const OFFICES: u8 = 255;
}

/// The last number that counts, for each author.
pub type Heads = BTreeMap<PeerId, u32>;

/// A part of a message, commit or tree that exceeds an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Epoch of the whole.
    pub epoch: u64,
    /// Its index, from 0.
    pub part: u16,
    /// The number of parts.
    pub parts: u16,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// Reads a body of `kind`.
    ///
    /// # Errors
    /// [`WireError`] if `body` breaks the format or its bounds.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Self, WireError> {
        let most = if kind == kind::MESSAGE {
            MAX_MESSAGE_PARTS
        } else {
            MAX_OWNER_PARTS
        };
        let mut r = Reader::new(body);
        let (epoch, part, parts) = (r.u64()?, r.u16()?, r.u16()?);
        if part >= parts || parts > most || body.len() > MAX_BODY {
            return Err(WireError::Bad("part"));
        }
        Ok(Self {
            epoch,
            part,
            parts,
            bytes: r.rest(),
        })
    }
}

/// Cuts `whole` into bodies of entries.
pub(crate) fn cut(epoch: u64, whole: &[u8]) -> Vec<Vec<u8>> {
    let chunks = whole.chunks(MAX_BODY - PART_HEADER);
    let parts = chunks.len() as u16;
    let body = |(part, chunk): (usize, &[u8])| {
        let mut w = Writer::new();
        w.u64(epoch).u16(part as u16).u16(parts).put(chunk);
        w.into_vec()
    };
    chunks.enumerate().map(body).collect()
}

/// The received parts of one whole, in memory only: after a restart the log delivers them again.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// Number of the first entry.
    pub first: u32,
    /// When the first entry was read (ms since 1970).
    pub began: u64,
    pub epoch: u64,
    next: u16,
    parts: u16,
    bytes: Zeroizing<Vec<u8>>,
}

/// The result of adding a part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Assembled {
    /// Parts are missing.
    More,
    /// The whole.
    Whole(Zeroizing<Vec<u8>>),
    /// The part does not continue the earlier ones.
    Broken,
}

impl Assembly {
    /// Bytes to reserve for the whole of `part`.
    pub fn room_of(part: &Part<'_>) -> usize {
        usize::from(part.parts) * (MAX_BODY - PART_HEADER)
    }

    /// Bytes reserved.
    pub fn room(&self) -> usize {
        usize::from(self.parts) * (MAX_BODY - PART_HEADER)
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds the next part to `slot` at `now`.
    pub fn take(slot: &mut Option<Self>, number: u32, part: &Part<'_>, now: UnixTime) -> Assembled {
        let began = part.part == 0;
        let whole = match slot {
            Some(open) if !began => {
                let continues =
                    (open.epoch, open.next, open.parts) == (part.epoch, part.part, part.parts);
                if !continues {
                    *slot = None;
                    return Assembled::Broken;
                }
                open.next += 1;
                debug_assert!(
                    open.next <= open.parts,
                    "the decoder refuses part {}",
                    part.part
                );
                open.bytes.extend_from_slice(part.bytes);
                open.next == open.parts
            }
            _ if began => {
                let mut bytes = Vec::with_capacity(Self::room_of(part));
                bytes.extend_from_slice(part.bytes);
                *slot = Some(Self {
                    first: number,
                    began: now.as_millis(),
                    epoch: part.epoch,
                    next: 1,
                    parts: part.parts,
                    bytes: bytes.into(),
                });
                part.parts == 1
            }
            _ => return Assembled::Broken,
        };
        match slot.take_if(|_| whole) {
            Some(open) => Assembled::Whole(open.bytes),
            None => Assembled::More,
        }
    }
}

/// A commit, assembled from its parts.
#[derive(Debug, PartialEq, Eq)]
pub struct CommitBody<'a> {
    /// Authors whose head moved since the last commit, with the last number that counts.
    pub heads: Heads,
    /// MLS PrivateMessage.
    pub commit: &'a [u8],
}

impl<'a> CommitBody<'a> {
    /// Decodes the bytes.
    ///
    /// # Errors
    /// [`WireError`] if the bytes break the format.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (heads, commit) = decode_heads(bytes)?;
        Ok(Self { heads, commit })
    }
}

/// Terms of a group, stated by its owner. The last ones count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time in seconds for which entries are kept; 0 for ever.
    pub keep: u64,
    /// Newcomers get what was said in these last seconds; 0: nothing, `u64::MAX`: all.
    pub history: u64,
}

impl Terms {
    /// Decodes the body of an entry; none for a later version.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut r = Reader::new(body);
        let version = r.u8().ok()?;
        let keep = r.u64().ok()?;
        let history = r.u64().ok()?;
        (version == VERSION).then_some(Self { keep, history })
    }

    /// The body of an entry.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u64(self.keep).u64(self.history);
        w.into_vec()
    }
}

/// The highest head of each author in commits that the owner made before `time` (ms since 1970).
/// `log`: entries of the owner's log, in order.
pub fn heads_before<'a>(log: impl Iterator<Item = Entry<'a>>, time: u64) -> Heads {
    let (mut all, mut slot) = (Heads::new(), None);
    let commits = log.filter(|entry| entry.kind == kind::COMMIT && entry.time < time);
    for entry in commits {
        let Ok(part) = Part::decode(entry.kind, entry.body) else {
            continue;
        };
        let now = UnixTime::from_millis(entry.time);
        if let Assembled::Whole(whole) = Assembly::take(&mut slot, entry.number, &part, now)
            && let Ok((heads, _)) = decode_heads(&whole)
        {
            for (author, head) in heads {
                let highest = all.entry(author).or_default();
                *highest = head.max(*highest);
            }
        }
    }
    all
}

/// Decodes heads; returns the remaining bytes too.
pub(crate) fn decode_heads(bytes: &[u8]) -> Result<(Heads, &[u8]), WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    let n = r.u16()?;
    if usize::from(n) > MAX_MEMBERS {
        return Err(WireError::Bad("number of heads"));
    }
    let mut heads = Heads::new();
    for _ in 0..n {
        let author = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("author"))?;
        heads.insert(author, r.u32()?);
    }
    Ok((heads, r.rest()))
}

/// Encodes heads and `rest` for [`decode_heads`].
pub(crate) fn encode_heads(heads: &Heads, rest: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION).u16(heads.len() as u16);
    for (author, number) in heads {
        w.put(author.public_key()).u32(*number);
    }
    w.put(rest);
    w.into_vec()
}

/// The plaintext of a message's PrivateMessage.
pub(crate) fn encode_message(id: u64, content: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut w = Writer::from(Vec::with_capacity(content.len() + 9));
    w.u8(VERSION).u64(id).put(content);
    w.into_vec().into()
}

/// Id and content of a message.
pub(crate) fn decode_message(plain: &[u8]) -> Result<(u64, &[u8]), WireError> {
    let mut r = Reader::new(plain);
    r.version(VERSION)?;
    Ok((r.u64()?, r.rest()))
}

/// The plaintext of a refresh.
pub(crate) fn encode_refresh(urgent: bool, key_package: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION).u8(urgent.into()).put(key_package);
    w.into_vec()
}

/// Whether a refresh is urgent, and its key package.
pub(crate) fn decode_refresh(bytes: &[u8]) -> Result<(bool, &[u8]), WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    Ok((r.u8()? != 0, r.rest()))
}

/// The plaintext of a welcome's box.
pub(crate) fn encode_welcome(tree_key: &[u8; 16], welcome: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut w = Writer::from(Vec::with_capacity(welcome.len() + 17));
    w.u8(VERSION).put(tree_key).put(welcome);
    w.into_vec().into()
}

/// Key of the tree, and the MLS Welcome.
pub(crate) fn decode_welcome(bytes: &[u8]) -> Result<(Zeroizing<[u8; 16]>, &[u8]), WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    Ok((r.array()?.into(), r.rest()))
}

/// All decoders of this module.
pub(crate) fn decode_any(kind: u8, bytes: &[u8]) {
    let _ = Part::decode(kind, bytes);
    let _ = CommitBody::decode(bytes);
    let _ = decode_message(bytes);
    let _ = decode_refresh(bytes);
    let _ = decode_welcome(bytes);
    let _ = Terms::decode(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    #[test]
    fn parts_have_these_bytes() {
        let bodies = cut(5, &[7; 990]);
        assert_eq!(bodies.len(), 2);
        assert_eq!(bodies[0].len(), MAX_BODY);
        assert_eq!(bodies[1], [0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 0, 2, 7, 7]);
    }

    #[test]
    fn heads_and_messages_have_these_bytes() {
        let author = SecretKey::from_seed(&[1; 32]).peer_id();
        let bytes = encode_heads(&Heads::from([(author, 9)]), b"commit");
        let expected = [
            &[1, 0, 1][..],
            author.public_key(),
            &[0, 0, 0, 9],
            b"commit",
        ]
        .concat();
        assert_eq!(bytes, expected);
        let read = CommitBody::decode(&bytes).unwrap();
        assert_eq!((read.heads[&author], read.commit), (9, &b"commit"[..]));
        assert_eq!(*encode_message(3, b"x"), [1, 0, 0, 0, 0, 0, 0, 0, 3, b'x']);
        assert_eq!(encode_refresh(true, b"x"), [1, 1, b'x']);
        assert_eq!(
            encode_welcome(&[4; 16], b"x")[..],
            [&[1][..], &[4; 16], b"x"].concat()
        );
    }

    #[test]
    fn terms_have_these_bytes_and_may_grow() {
        let (keep, history) = (86_400, u64::MAX);
        let terms = Terms { keep, history };
        let bytes = [&[1, 0, 0, 0, 0, 0, 1, 0x51, 0x80][..], &[0xff; 8]].concat();
        assert_eq!(terms.encode(), bytes);
        assert_eq!(Terms::decode(&bytes), Some(terms));
        assert_eq!(Terms::decode(&[&bytes[..], b"more"].concat()), Some(terms));
        for other in [&[][..], &bytes[..9], &[&[2], &bytes[1..]].concat()] {
            assert_eq!(Terms::decode(other), None);
        }
    }

    #[test]
    fn the_highest_heads_of_old_commits_are_found() {
        let [a, b] = [1, 2].map(|n| SecretKey::from_seed(&[n; 32]).peer_id());
        let commits = [
            (10, vec![(a, 3)]),
            (20, vec![(a, 5), (b, 1)]),
            (30, vec![(a, 9)]),
        ];
        let mut entries = Vec::new();
        for (epoch, (time, heads)) in commits.into_iter().enumerate() {
            // two parts
            let whole = encode_heads(&heads.into_iter().collect(), &[7; 1_500]);
            let bodies = cut(epoch as u64, &whole).into_iter();
            entries.extend(bodies.map(|body| (time, kind::COMMIT, body)));
            entries.push((time, kind::TREE, vec![0; 20]));
        }
        let log = entries
            .iter()
            .zip(1..)
            .map(|((time, kind, body), number)| Entry {
                author: a,
                number,
                time: *time,
                kind: *kind,
                body,
            });
        let heads = |time| heads_before(log.clone(), time);
        assert_eq!(heads(10), Heads::new());
        assert_eq!(heads(11), Heads::from([(a, 3)]));
        assert_eq!(heads(30), Heads::from([(a, 5), (b, 1)]));
        // without its first part a commit has no heads
        assert_eq!(heads_before(log.clone().skip(1), 20), Heads::new());
    }

    #[test]
    fn more_heads_than_members_are_refused() {
        let mut bytes = vec![1];
        bytes.extend((MAX_MEMBERS as u16 + 1).to_be_bytes());
        assert_eq!(
            CommitBody::decode(&bytes),
            Err(WireError::Bad("number of heads"))
        );
    }

    proptest! {
        #[test]
        fn a_whole_comes_back_from_its_parts(whole in proptest::collection::vec(any::<u8>(), 1..9_000)) {
            let (mut slot, bodies) = (None, cut(1, &whole));
            for (n, body) in bodies.iter().enumerate() {
                let part = Part::decode(kind::MESSAGE, body).unwrap();
                let taken = Assembly::take(&mut slot, n as u32 + 1, &part, UnixTime::from_millis(0));
                if n + 1 < bodies.len() {
                    prop_assert_eq!(taken, Assembled::More);
                } else {
                    prop_assert_eq!(taken, Assembled::Whole(whole.clone().into()));
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind: u8, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            decode_any(kind, &bytes);
        }
    }
}
