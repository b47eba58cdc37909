//! Packets that members of a space send to its group, at most 1,155 bytes.
//!
//! ```text
//!   version 1 = 1 | space 8 | nonce 24 | tag 16 | sealed: kind 1, contents     with a read key
//!   version 1 = 1 | space 8 | kind 1, contents                                 public
//!
//!   entries  n x entry (entry.rs)
//!   heads    flags 1 | digest 8 | n x (author 8 | first 4 | last 4 | hash 16 | flags 1)
//!   want     n x (author 8 | first 4 | length 1 | bitmap)     lowest bit of the bitmap: `first`
//!   request  body <= 1000
//!   presence one, of an author (presence.rs)
//! ```
//!
//! The seal is XSalsa20-Poly1305 under a key derived from the read key; the nonce is random.

use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit, Nonce, Tag, XSalsa20Poly1305};
use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::entry::{AuthorId, ENTRY_OVERHEAD, Entry, EntryError, EntryHash, MAX_BODY};
use crate::presence::Presence;
use crate::space::Space;

/// Version of packets, their first byte.
const VERSION: u8 = 1;

/// Version and space.
const HEADER: usize = 1 + 8;

/// Nonce and tag.
const SEAL: usize = 24 + 16;

/// Longest packet, in bytes: one longest entry. With UDP, IPv6 and a private prefix it fits into
/// 1,280.
pub const MAX_PACKET: usize = HEADER + SEAL + 1 + ENTRY_OVERHEAD + MAX_BODY;

/// Bytes of a packet's contents after the kind.
pub(crate) const ROOM: usize = MAX_PACKET - HEADER - SEAL - 1;

/// Bytes of a head.
const HEAD: usize = 8 + 4 + 4 + 16 + 1;

/// Most heads in a packet.
pub(crate) const HEADS_IN_PACKET: usize = (ROOM - 1 - 8) / HEAD;

/// Most numbers that one want names for an author.
pub(crate) const WANTED_AT_ONCE: u32 = 256;

/// Most wants in a packet, if each has full length.
pub(crate) const WANTS_IN_PACKET: usize = ROOM / (8 + 4 + 1 + WANTED_AT_ONCE as usize / 8);

/// Kind of a packet, first byte of the sealed part (docs/protocol.md §12): entries of any authors.
const KIND_ENTRIES: u8 = 1;
/// Kind: last numbers of the sender's logs.
const KIND_HEADS: u8 = 2;
/// Kind: numbers that the sender lacks.
const KIND_WANT: u8 = 3;
/// Kind: request to the owner, without a grant yet.
const KIND_REQUEST: u8 = 4;
/// Kind: presence of an author.
const KIND_PRESENCE: u8 = 5;

/// Flag of heads: the sender asks for waiting requests.
const ASKS_FOR_REQUESTS: u8 = 1;

/// Flag of a head: its author signed two histories.
const IN_CONFLICT: u8 = 1;

/// Extent of an author's log at the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The author.
    pub author: AuthorId,
    /// Its first number.
    pub first: u32,
    /// Its last number without a gap before it, or `first - 1`.
    pub last: u32,
    /// Hash of that entry; zeros where there is none.
    pub hash: EntryHash,
    /// The author signed two histories, and the log ends before they part.
    pub in_conflict: bool,
}

/// Numbers of an author's log that the sender lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The author of the log.
    pub author: AuthorId,
    /// The number of the lowest bit of the first byte.
    pub first: u32,
    /// One bit for each number, at most 32 bytes.
    pub bitmap: Vec<u8>,
}

impl Want {
    /// Returns a want with the first numbers of `missing`, which ascends.
    pub(crate) fn of(author: AuthorId, missing: impl Iterator<Item = u32>) -> Option<Self> {
        let mut missing = missing.peekable();
        let first = *missing.peek()?;
        let mut bitmap = Vec::new();
        for at in missing.map(|number| number - first) {
            if at >= WANTED_AT_ONCE {
                break;
            }
            let (byte, bit) = (at as usize / 8, at % 8);
            bitmap.resize(byte + 1, 0);
            bitmap[byte] |= 1 << bit;
        }
        Some(Self {
            author,
            first,
            bitmap,
        })
    }

    /// Returns the numbers of the bitmap.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        let bits = self.bitmap.iter().zip(0_u32..).flat_map(|(byte, at)| {
            let set = (0..8).filter(move |bit| byte >> bit & 1 == 1);
            set.map(move |bit| at * 8 + bit)
        });
        bits.filter_map(|at| self.first.checked_add(at))
    }
}

/// Contents of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Entries, of any authors.
    Entries(Vec<Entry>),
    /// Extent of the sender's logs.
    Heads {
        /// The sender asks for requests that wait.
        asks_for_requests: bool,
        /// Digest of all heads of the sender, equal for equal logs.
        digest: u64,
        /// The heads that fit, the latest changes first.
        heads: Vec<Head>,
    },
    /// Numbers that the sender lacks.
    Wants(Vec<Want>),
    /// A request without a grant yet; opaque to the log.
    Request(Vec<u8>),
    /// An author is present. No member stores it.
    Presence(Presence),
}

impl Packet {
    fn write(&self, w: &mut Writer) -> Result<(), EntryError> {
        match self {
            Self::Entries(entries) => {
                w.u8(KIND_ENTRIES);
                for entry in entries {
                    w.put(&entry.encode()?);
                }
            }
            Self::Heads {
                asks_for_requests,
                digest,
                heads,
            } => {
                let flags = u8::from(*asks_for_requests) * ASKS_FOR_REQUESTS;
                w.u8(KIND_HEADS).u8(flags).u64(*digest);
                for head in heads {
                    w.u64(head.author.0).u32(head.first).u32(head.last);
                    w.put(&head.hash);
                    w.u8(u8::from(head.in_conflict) * IN_CONFLICT);
                }
            }
            Self::Wants(wants) => {
                w.u8(KIND_WANT);
                for want in wants {
                    w.u64(want.author.0).u32(want.first);
                    w.u8(want.bitmap.len() as u8).put(&want.bitmap);
                }
            }
            Self::Request(body) => {
                w.u8(KIND_REQUEST).put(body);
            }
            Self::Presence(presence) => {
                w.u8(KIND_PRESENCE);
                let written = presence.write(w);
                written.ok_or(EntryError::TooLong(presence.body.len()))?;
            }
        }
        Ok(())
    }

    fn read(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            KIND_ENTRIES => {
                let mut entries = Vec::new();
                while !r.is_empty() {
                    entries.push(Entry::read(&mut r)?);
                }
                Ok(Self::Entries(entries))
            }
            KIND_HEADS => Ok(Self::read_heads(&mut r)?),
            KIND_WANT => {
                let mut wants = Vec::new();
                while !r.is_empty() {
                    wants.push(read_want(&mut r)?);
                }
                Ok(Self::Wants(wants))
            }
            KIND_REQUEST if r.rest().len() <= MAX_BODY => Ok(Self::Request(r.rest().to_vec())),
            KIND_REQUEST => Err(EntryError::TooLong(r.rest().len())),
            KIND_PRESENCE => {
                let presence = Presence::read(&mut r)?;
                r.finish()?;
                Ok(Self::Presence(presence))
            }
            _ => Err(WireError::Bad("kind").into()),
        }
    }

    fn read_heads(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let flags = r.u8()?;
        let digest = r.u64()?;
        let mut heads = Vec::new();
        while !r.is_empty() {
            let author = AuthorId(r.u64()?);
            let (first, last) = (r.u32()?, r.u32()?);
            let hash = r.array()?;
            let in_conflict = r.u8()? & IN_CONFLICT != 0;
            if first == 0 || last < first - 1 {
                return Err(WireError::Bad("head"));
            }
            heads.push(Head {
                author,
                first,
                last,
                hash,
                in_conflict,
            });
        }
        Ok(Self::Heads {
            asks_for_requests: flags & ASKS_FOR_REQUESTS != 0,
            digest,
            heads,
        })
    }
}

fn read_want(r: &mut Reader<'_>) -> Result<Want, WireError> {
    let author = AuthorId(r.u64()?);
    let first = r.u32()?;
    let length = usize::from(r.u8()?);
    if first == 0 || length == 0 || length > WANTED_AT_ONCE as usize / 8 {
        return Err(WireError::Bad("want"));
    }
    let bitmap = r.take(length)?.to_vec();
    Ok(Want {
        author,
        first,
        bitmap,
    })
}

/// Opens and seals the packets of one space: of the entry log, and of others beside it.
pub struct Seal {
    space: u64,
    cipher: Option<XSalsa20Poly1305>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seal of {:016x}", self.space)
    }
}

/// Reason why a packet is not one of this space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is of another space or version, or too long.
    Foreign,
    /// Another key sealed it.
    Unsealed,
    /// It has other contents.
    Malformed,
}

impl Seal {
    /// The seal of this space.
    #[must_use]
    pub fn new(space: &Space) -> Self {
        let key = space.packet_key();
        Self {
            space: space.id(),
            cipher: key.map(|key| XSalsa20Poly1305::new((&*key).into())),
        }
    }

    /// Returns the bytes of a packet. `nonce` must never be used twice.
    pub(crate) fn seal(&self, packet: &Packet, nonce: &[u8; 24]) -> Option<Vec<u8>> {
        let mut inner = Writer::new();
        packet.write(&mut inner).ok()?;
        self.seal_contents(inner.into_vec(), nonce)
    }

    /// Returns a packet with these contents. `nonce` must never be used twice.
    #[must_use]
    pub fn seal_contents(&self, mut contents: Vec<u8>, nonce: &[u8; 24]) -> Option<Vec<u8>> {
        let mut w = Writer::new();
        w.u8(VERSION).u64(self.space);
        if let Some(cipher) = &self.cipher {
            let nonce = Nonce::from(*nonce);
            let tag = cipher
                .encrypt_in_place_detached(&nonce, b"", &mut contents)
                .ok()?;
            w.put(&nonce).put(&tag);
        }
        w.put(&contents);
        Some(w.into_vec())
    }

    pub(crate) fn open(&self, bytes: &[u8]) -> Result<Packet, Refused> {
        let contents = self.open_contents(bytes)?;
        Packet::read(&contents).map_err(|_| Refused::Malformed)
    }

    /// Returns the contents of a packet.
    ///
    /// # Errors
    /// The packet is not of this space.
    pub fn open_contents(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let mut r = Reader::new(bytes);
        let head = (r.u8(), r.u64());
        if bytes.len() > MAX_PACKET || head != (Ok(VERSION), Ok(self.space)) {
            return Err(Refused::Foreign);
        }
        let Some(cipher) = &self.cipher else {
            return Ok(Zeroizing::new(r.rest().to_vec()));
        };
        let (Ok(nonce), Ok(tag)) = (r.array::<24>(), r.array::<16>()) else {
            return Err(Refused::Unsealed);
        };
        let mut contents = Zeroizing::new(r.rest().to_vec());
        let (nonce, tag) = (Nonce::from(nonce), Tag::from(tag));
        cipher
            .decrypt_in_place_detached(&nonce, b"", &mut contents, &tag)
            .map_err(|_| Refused::Unsealed)?;
        Ok(contents)
    }
}

/// Decodes the contents of an opened packet, after version and space. For tests and fuzzing.
pub fn decode(contents: &[u8]) -> Result<Packet, EntryError> {
    Packet::read(contents)
}

/// Opens a received packet of this space; `None` if it is none. For tests and fuzzing.
#[must_use]
pub fn decode_sealed(space: &Space, bytes: &[u8]) -> Option<Packet> {
    Seal::new(space).open(bytes).ok()
}

/// Seals a packet of this space as a member does; `nonce` must be unique. For tests.
#[must_use]
pub fn seal_packet(space: &Space, packet: &Packet, nonce: &[u8; 24]) -> Option<Vec<u8>> {
    Seal::new(space).seal(packet, nonce)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;
    use crate::space::ReadKey;

    fn space(read_key: Option<u8>) -> Space {
        let owner = SecretKey::from_seed(&[1; 32]).peer_id();
        let key = read_key.map(|n| ReadKey::new([n; 32]));
        Space::new(owner, key, Duration::ZERO)
    }

    fn packets() -> Vec<Packet> {
        let author = AuthorId(7);
        let head = Head {
            author,
            first: 2,
            last: 9,
            hash: [3; 16],
            in_conflict: true,
        };
        let entry = Entry {
            author,
            number: 1,
            first: 1,
            time: 5,
            kind: 6,
            previous: [0; 16],
            body: vec![9; MAX_BODY],
            signature: [4; 64],
        };
        let want = Want::of(author, [3, 5, 258, 259, 300].into_iter()).unwrap();
        vec![
            Packet::Entries(vec![entry]),
            Packet::Heads {
                asks_for_requests: true,
                digest: 8,
                heads: vec![head; HEADS_IN_PACKET],
            },
            Packet::Wants(vec![want; WANTS_IN_PACKET]),
            Packet::Request(vec![1; MAX_BODY]),
            Packet::Presence(Presence {
                author,
                time: 1 << 47,
                body: vec![6; crate::presence::MAX_PRESENCE],
                signature: [7; 64],
            }),
        ]
    }

    #[test]
    fn packets_come_back_sealed_or_not_and_none_is_too_long() {
        for space in [space(None), space(Some(2))] {
            let seal = Seal::new(&space);
            for packet in packets() {
                let bytes = seal.seal(&packet, &[1; 24]).unwrap();
                assert!(bytes.len() <= MAX_PACKET);
                assert_eq!(seal.open(&bytes), Ok(packet));
            }
        }
    }

    #[test]
    fn who_has_no_read_key_neither_opens_nor_changes_a_packet() {
        let (ours, theirs) = (Seal::new(&space(Some(2))), Seal::new(&space(Some(3))));
        let bytes = ours.seal(&packets()[3], &[1; 24]).unwrap();
        assert_eq!(theirs.open(&bytes), Err(Refused::Foreign));
        for at in HEADER..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x80;
            assert_eq!(ours.open(&changed), Err(Refused::Unsealed), "byte {at}");
        }
        assert_eq!(ours.open(&bytes[..20]), Err(Refused::Unsealed));
    }

    #[test]
    fn a_kind_of_later_versions_is_refused_and_so_is_what_stands_behind_presence() {
        assert!(decode(&[6, 0, 0]).is_err());
        let seal = Seal::new(&space(None));
        let mut bytes = seal.seal(&packets()[4], &[1; 24]).unwrap();
        bytes.push(0);
        assert_eq!(seal.open(&bytes), Err(Refused::Malformed));
    }

    #[test]
    fn a_want_names_256_numbers_from_the_first() {
        let want = Want::of(AuthorId(1), [3, 5, 258, 259].into_iter()).unwrap();
        assert_eq!(want.numbers().collect::<Vec<_>>(), [3, 5, 258]);
        assert_eq!(Want::of(AuthorId(1), std::iter::empty()), None);
        let beyond = Want {
            author: AuthorId(1),
            first: u32::MAX,
            bitmap: vec![0xff],
        };
        assert_eq!(beyond.numbers().collect::<Vec<_>>(), [u32::MAX]);
    }

    proptest! {
        #[test]
        fn any_contents_are_a_packet_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1_300)) {
            let _ = decode(&bytes);
            let _ = decode_sealed(&space(None), &bytes);
        }
    }
}
