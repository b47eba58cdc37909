//! Presence: a message of an author who is present. Members neither store nor repair it.
//!
//! ```text
//!   author 8 | time 6 | length 1 | body <= 200 | signature 64
//! ```
//!
//! The author signs owner, author's key, and all fields before the signature. His times rise, so
//! that none counts twice. They are near the reader's clock, so that a recording expires.

use librecast::id::{PeerId, SecretKey};
use librecast::wire::{Reader, WireError, Writer};

use crate::entry::AuthorId;

/// Longest body of presence, in bytes. Chosen: a name and a place.
pub const MAX_PRESENCE: usize = 200;

const SIGNATURE_CONTEXT: &str = "librecast 2026 log presence";

/// Largest time, in 48 bits, as in entries.
const MAX_TIME: u64 = (1 << 48) - 1;

/// Present state of an author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The author.
    pub author: AuthorId,
    /// Its clock: milliseconds since 1970, more each time.
    pub time: u64,
    /// At most [`MAX_PRESENCE`] bytes.
    pub body: Vec<u8>,
    /// ed25519.
    pub signature: [u8; 64],
}

impl Presence {
    /// None if the body is too long.
    pub(crate) fn sign(owner: &PeerId, key: &SecretKey, time: u64, body: &[u8]) -> Option<Self> {
        let author = key.peer_id();
        let mut presence = Self {
            author: AuthorId::of(owner, &author),
            time: time.min(MAX_TIME),
            body: body.to_vec(),
            signature: [0; 64],
        };
        let message = presence.signed(owner, &author)?;
        presence.signature = key.sign(SIGNATURE_CONTEXT, &message);
        Some(presence)
    }

    pub(crate) fn is_signed_by(&self, owner: &PeerId, author: &PeerId) -> bool {
        let message = self.signed(owner, author);
        message.is_some_and(|message| {
            self.author == AuthorId::of(owner, author)
                && author
                    .verify(SIGNATURE_CONTEXT, &message, &self.signature)
                    .is_ok()
        })
    }

    fn signed(&self, owner: &PeerId, author: &PeerId) -> Option<Vec<u8>> {
        let mut w = Writer::new();
        w.put(owner.public_key()).put(author.public_key());
        self.write_fields(&mut w)?;
        Some(w.into_vec())
    }

    fn write_fields(&self, w: &mut Writer) -> Option<()> {
        let length = u8::try_from(self.body.len()).ok()?;
        if self.body.len() > MAX_PRESENCE || self.time > MAX_TIME {
            return None;
        }
        w.u64(self.author.0).put(&self.time.to_be_bytes()[2..]);
        w.u8(length).put(&self.body);
        Some(())
    }

    /// None if the body is too long.
    pub(crate) fn write(&self, w: &mut Writer) -> Option<()> {
        self.write_fields(w)?;
        w.put(&self.signature);
        Some(())
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let author = AuthorId(r.u64()?);
        let [a, b, c, d, e, f]: [u8; 6] = r.array()?;
        let length = usize::from(r.u8()?);
        if length > MAX_PRESENCE {
            return Err(WireError::Bad("presence"));
        }
        Ok(Self {
            author,
            time: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            body: r.take(length)?.to_vec(),
            signature: r.array()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let (owner, key) = (
            SecretKey::from_seed(&[1; 32]),
            SecretKey::from_seed(&[2; 32]),
        );
        let owner = owner.peer_id();
        let presence = Presence::sign(&owner, &key, 1_790_000_000_000, b"here").unwrap();
        let mut w = Writer::new();
        presence.write(&mut w).unwrap();
        let bytes = w.into_vec();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let golden = concat!(
            "2dc362fb955b8d2c01a0c4506c000468657265",
            "e8f4ed632b6977b1aa6e257f719675f52326d71d8a97ddf04f8269796c53519f",
            "0e2ecdf45a05f5abfea67d53eb3971e919ff0b304c19e493a72b7bff4938830d"
        );
        assert_eq!(hex, golden);
        let mut reader = Reader::new(&bytes);
        assert_eq!(Presence::read(&mut reader), Ok(presence));
        assert!(reader.is_empty());
    }

    #[test]
    fn it_is_signed_by_its_author_for_this_space() {
        let [owner, author, other] = [1, 2, 3].map(|n| SecretKey::from_seed(&[n; 32]));
        let [owner_id, author_id, other_id] = [&owner, &author, &other].map(SecretKey::peer_id);
        let presence = Presence::sign(&owner_id, &author, 5, b"here").unwrap();
        assert!(presence.is_signed_by(&owner_id, &author_id));
        assert!(!presence.is_signed_by(&owner_id, &other_id));
        assert!(!presence.is_signed_by(&other_id, &author_id));
        for changed in [
            Presence {
                time: 6,
                ..presence.clone()
            },
            Presence {
                body: b"there".to_vec(),
                ..presence.clone()
            },
        ] {
            assert!(!changed.is_signed_by(&owner_id, &author_id));
        }
        let long = [0; MAX_PRESENCE + 1];
        assert_eq!(Presence::sign(&owner_id, &author, 5, &long), None);
    }
}
