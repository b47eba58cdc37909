//! Entries, and their form on the wire and on disk.
//!
//! ```text
//!   author 8 | number 4 | first 4 | time 6 | kind 1 | previous 16 | length 2 | body | signature 64
//! ```
//!
//! The author signs owner, author's key, and all fields before the signature. `previous` is the
//! hash of the author's entry before this one: a signature on one entry covers its whole history.

use std::fmt;

use librecast::id::{PeerId, SecretKey, derive};
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

/// Longest body of an entry, in bytes: with all headers and the seal it fits into IPv6's least MTU.
pub const MAX_BODY: usize = 1_000;

/// Bytes of an entry without its body.
pub(crate) const ENTRY_OVERHEAD: usize = 8 + 4 + 4 + 6 + 1 + 16 + 2 + 64;

const SIGNATURE_CONTEXT: &str = "librecast 2026 log entry";

/// Largest time of an entry, in 48 bits: milliseconds since 1970, until the year 10889.
const MAX_TIME: u64 = (1 << 48) - 1;

/// Hash of an entry: the first half of a BLAKE3.
pub(crate) type EntryHash = [u8; 16];

/// An author's name within a space: 64 bits of a hash of both keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorId(pub u64);

impl AuthorId {
    /// Returns the name of the author with this key, in the space of this owner.
    pub fn of(owner: &PeerId, author: &PeerId) -> Self {
        let parts = [&owner.public_key()[..], author.public_key()];
        let hash = derive("librecast 2026 log author", &parts);
        Self(u64::from_be_bytes(
            *hash.first_chunk().expect("a hash has 32 bytes"),
        ))
    }

    /// Returns the name of the office of this author, its second log, in the space of this owner.
    pub fn of_office(owner: &PeerId, author: &PeerId) -> Self {
        let parts = [&owner.public_key()[..], author.public_key()];
        let hash = derive("librecast 2026 log office", &parts);
        Self(u64::from_be_bytes(
            *hash.first_chunk().expect("a hash has 32 bytes"),
        ))
    }
}

impl fmt::Display for AuthorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for AuthorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reason why bytes are not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EntryError {
    /// They violate the format.
    #[error(transparent)]
    Format(#[from] WireError),
    /// The body is longer than [`MAX_BODY`].
    #[error("the body has {0} bytes, at most {MAX_BODY} fit")]
    TooLong(usize),
}

/// One entry of an author's log. [`Entry::is_signed_by`] checks the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The author of the log.
    pub author: AuthorId,
    /// Its place in that log, from 1 without gaps.
    pub number: u32,
    /// First number of the log, as its author states it: earlier entries have expired.
    pub first: u32,
    /// When it was written, as its author states it: milliseconds since 1970.
    pub time: u64,
    /// Kind of the body; the log itself uses [`GRANT_KIND`](crate::GRANT_KIND) in the owner's log.
    pub kind: u8,
    /// Hash of the entry before; zeros in the first.
    pub previous: EntryHash,
    /// At most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
    /// ed25519.
    pub signature: [u8; 64],
}

impl Entry {
    /// Signs an entry, and sets its `author`, unless that is the key's office, and `signature`.
    pub(crate) fn sign(mut self, owner: &PeerId, key: &SecretKey) -> Result<Self, EntryError> {
        let author = key.peer_id();
        if self.author != AuthorId::of_office(owner, &author) {
            self.author = AuthorId::of(owner, &author);
        }
        let message = self.signed(owner, &author)?;
        self.signature = key.sign(SIGNATURE_CONTEXT, &message);
        Ok(self)
    }

    /// Whether `author` has signed it for the space of `owner`, for one of its two logs there.
    pub fn is_signed_by(&self, owner: &PeerId, author: &PeerId) -> bool {
        let Ok(message) = self.signed(owner, author) else {
            return false;
        };
        let own = [
            AuthorId::of(owner, author),
            AuthorId::of_office(owner, author),
        ];
        own.contains(&self.author)
            && author
                .verify(SIGNATURE_CONTEXT, &message, &self.signature)
                .is_ok()
    }

    fn signed(&self, owner: &PeerId, author: &PeerId) -> Result<Vec<u8>, EntryError> {
        let mut w = Writer::new();
        w.put(owner.public_key()).put(author.public_key());
        self.write_fields(&mut w)?;
        Ok(w.into_vec())
    }

    fn write_fields(&self, w: &mut Writer) -> Result<(), EntryError> {
        if self.body.len() > MAX_BODY {
            return Err(EntryError::TooLong(self.body.len()));
        }
        let time = self.time.min(MAX_TIME).to_be_bytes();
        w.u64(self.author.0).u32(self.number).u32(self.first);
        w.put(&time[2..]).u8(self.kind).put(&self.previous);
        w.bytes16(&self.body)?;
        Ok(())
    }

    /// Encodes it.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let mut w = Writer::new();
        self.write_fields(&mut w)?;
        w.put(&self.signature);
        Ok(w.into_vec())
    }

    /// Decodes an entry that fills these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut reader = Reader::new(bytes);
        let entry = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(entry)
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, EntryError> {
        let author = AuthorId(r.u64()?);
        let (number, first) = (r.u32()?, r.u32()?);
        let time: [u8; 6] = r.array()?;
        let kind = r.u8()?;
        let previous = r.array()?;
        let body = r.bytes16()?;
        let signature = r.array()?;
        if body.len() > MAX_BODY {
            return Err(EntryError::TooLong(body.len()));
        }
        if number == 0 || first == 0 || first > number {
            return Err(WireError::Bad("number").into());
        }
        let [a, b, c, d, e, f] = time;
        Ok(Self {
            author,
            number,
            first,
            time: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            kind,
            previous,
            body: body.to_vec(),
            signature,
        })
    }

    /// Returns the `previous` of the next entry, a hash that covers the signature, too.
    pub(crate) fn hash(&self) -> EntryHash {
        let bytes = self.encode().unwrap_or_default();
        let hash = derive("librecast 2026 log history", &[&bytes]);
        *hash.first_chunk().expect("a hash has 32 bytes")
    }

    pub(crate) fn size(&self) -> usize {
        ENTRY_OVERHEAD + self.body.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn entry(body: &[u8]) -> Entry {
        Entry {
            author: AuthorId(0),
            number: 3,
            first: 2,
            time: 1_790_000_000_123,
            kind: 7,
            previous: [5; 16],
            body: body.to_vec(),
            signature: [0; 64],
        }
    }

    #[test]
    fn an_entry_comes_back_from_its_bytes_and_only_as_signed() {
        let (owner, author) = (key(1).peer_id(), key(2));
        let signed = entry(b"hello").sign(&owner, &author).unwrap();
        let bytes = signed.encode().unwrap();
        assert_eq!(bytes.len(), signed.size());
        let back = Entry::decode(&bytes).unwrap();
        assert_eq!(back, signed);
        assert!(back.is_signed_by(&owner, &author.peer_id()));
        assert!(!back.is_signed_by(&author.peer_id(), &author.peer_id()));
        assert!(!back.is_signed_by(&owner, &owner));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let Ok(changed) = Entry::decode(&changed) else {
                continue;
            };
            assert!(
                !changed.is_signed_by(&owner, &author.peer_id()),
                "byte {at}"
            );
        }
    }

    #[test]
    fn golden_bytes() {
        let signed = entry(b"hello").sign(&key(1).peer_id(), &key(2)).unwrap();
        let hash = derive("golden", &[&signed.encode().unwrap()]);
        let hex: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "9c79c5940964f416");
    }

    #[test]
    fn longest_body_fits_and_one_byte_more_does_not() {
        let owner = key(1).peer_id();
        assert!(entry(&[0; MAX_BODY]).sign(&owner, &key(2)).is_ok());
        let refused = entry(&[0; MAX_BODY + 1]).sign(&owner, &key(2));
        assert_eq!(refused, Err(EntryError::TooLong(MAX_BODY + 1)));
    }

    #[test]
    fn number_zero_and_a_first_beyond_it_are_refused() {
        let signed = entry(b"").sign(&key(1).peer_id(), &key(2)).unwrap();
        for (number, first) in [(0, 0), (3, 0), (3, 4)] {
            let bad = Entry {
                number,
                first,
                ..signed.clone()
            };
            let refused = Entry::decode(&bad.encode().unwrap());
            assert_eq!(refused, Err(WireError::Bad("number").into()));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1_200)) {
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode().unwrap(), bytes);
            }
        }
    }
}
