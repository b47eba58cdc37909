//! The offer of a helper to the caster of a station: its free places for leaves, those that it has,
//! and its addresses.
//!
//! ```text
//! version 8 = 3 | room 16 | count 16 (at most 512) x leaf 64 | count 8 (at most 16) x candidate
//! leaf                      first 8 bytes of its PeerId's public key
//! ```
//!
//! It travels as a routed message from neighbour to neighbour; the link proves its sender.

use std::collections::BTreeSet;

use librecast::id::PeerId;
use librecast::wire::{Reader, WireError, Writer};

use crate::description::{Candidate, read_candidates, write_candidates};

/// Version of the format.
const VERSION: u8 = 3;
/// Leaves of an offer: as many as a router takes ([`crate::Limits::leaves`]).
const MAX_LEAVES: u16 = 512;

/// A leaf, in fewer bytes: they suffice to tell leaves of a station apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeafTag(u64);

impl LeafTag {
    /// Returns the tag of the leaf with this key.
    #[must_use]
    pub fn of(leaf: &PeerId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *leaf.public_key();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// A helper's offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HelperOffer {
    /// Free places for leaves.
    pub room: u16,
    /// Leaves that have links with it.
    pub leaves: BTreeSet<LeafTag>,
    /// Addresses of its links.
    pub candidates: Vec<Candidate>,
}

impl HelperOffer {
    /// Returns its bytes. Leaves and addresses beyond their bounds are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        let leaves = self.leaves.iter().take(MAX_LEAVES.into());
        let count = u16::try_from(leaves.len()).unwrap_or(MAX_LEAVES);
        w.u8(VERSION).u16(self.room).u16(count);
        leaves.for_each(|leaf| {
            w.u64(leaf.0);
        });
        write_candidates(&self.candidates, &mut w);
        w.into_vec()
    }

    /// Reads it; bytes behind it are ignored.
    ///
    /// # Errors
    /// It is cut off, of another version, has too many leaves, or an address that no host has.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let (room, count) = (r.u16()?, r.u16()?);
        if count > MAX_LEAVES {
            return Err(WireError::Bad("number of leaves"));
        }
        let leaves = (0..count).map(|_| Ok(LeafTag(r.u64()?)));
        Ok(Self {
            room,
            leaves: leaves.collect::<Result<_, WireError>>()?,
            candidates: read_candidates(&mut r)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use proptest::prelude::*;

    use super::*;
    use crate::CandidateKind;
    use crate::description::MAX_CANDIDATES;

    fn candidate(port: u16) -> Candidate {
        Candidate {
            kind: CandidateKind::Mapped,
            addr: ([203, 0, 113, 7], port).into(),
        }
    }

    #[test]
    fn an_offer_comes_back_with_as_many_leaves_and_addresses_as_it_has_room_for() {
        for (leaves, count) in [
            (0, 0),
            (1, 1),
            (512, MAX_CANDIDATES),
            (515, MAX_CANDIDATES + 3),
        ] {
            let candidates = (1..).map(candidate).take(count).collect::<Vec<_>>();
            let offer = HelperOffer {
                room: 500,
                leaves: (0..leaves).map(LeafTag).collect(),
                candidates: candidates.clone(),
            };
            let read = HelperOffer::decode(&offer.encode()).unwrap();
            assert_eq!(read.room, 500);
            assert!(
                read.leaves
                    .into_iter()
                    .eq((0..leaves.min(512)).map(LeafTag))
            );
            assert_eq!(read.candidates, candidates[..count.min(MAX_CANDIDATES)]);
        }
    }

    #[test]
    fn a_tag_is_the_beginning_of_a_key() {
        let peer = SecretKey::from_seed(&[1; 32]).peer_id();
        assert_eq!(LeafTag::of(&peer).0.to_be_bytes(), peer.public_key()[..8]);
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        let offer = HelperOffer {
            room: 258,
            leaves: BTreeSet::from([LeafTag(0x0506_0708_090a_0b0c)]),
            candidates: vec![candidate(7_000)],
        };
        let expected = [
            3, 1, 2, 0, 1, 5, 6, 7, 8, 9, 10, 11, 12, 1, 3, 4, 203, 0, 113, 7, 0x1b, 0x58,
        ];
        assert_eq!(offer.encode(), expected);
        let other = [&[2], &expected[1..]].concat();
        let read = HelperOffer::decode(&other);
        assert!(matches!(read, Err(WireError::Version(2))));
        let many = [&[3, 0, 0, 2, 1], &[0; 600 * 8][..]].concat();
        assert!(matches!(HelperOffer::decode(&many), Err(WireError::Bad(_))));
        for cut in 0..expected.len() {
            assert!(HelperOffer::decode(&expected[..cut]).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_offer_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(offer) = HelperOffer::decode(&bytes) {
                prop_assert!(offer.candidates.len() <= MAX_CANDIDATES);
            }
        }
    }
}
