//! The offer of a helper to the caster of a station: its free places for leaves, the number of those
//! that it has, and its addresses.
//!
//! ```text
//! version 8 = 4 | room 16 | leaves 16 | count 8 (at most 16) x candidate
//! ```
//!
//! It travels as a routed message from neighbour to neighbour; the link proves its sender.

use librecast::wire::{Reader, WireError, Writer};

use crate::description::{Candidate, read_candidates, write_candidates};

/// Version of the format.
const VERSION: u8 = 4;

/// A helper's offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HelperOffer {
    /// Free places for leaves.
    pub room: u16,
    /// Number of leaves that have links with it, by its own word.
    pub leaves: u16,
    /// Addresses of its links.
    pub candidates: Vec<Candidate>,
}

impl HelperOffer {
    /// Returns its bytes. Addresses beyond their bound are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).u16(self.room).u16(self.leaves);
        write_candidates(&self.candidates, &mut w);
        w.into_vec()
    }

    /// Reads it; bytes behind it are ignored.
    ///
    /// # Errors
    /// It is cut off, of another version, or has an address that no host has.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        Ok(Self {
            room: r.u16()?,
            leaves: r.u16()?,
            candidates: read_candidates(&mut r)?,
        })
    }
}

#[cfg(test)]
mod tests {
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
    fn an_offer_comes_back_with_as_many_addresses_as_it_has_room_for() {
        for count in [0, 1, MAX_CANDIDATES, MAX_CANDIDATES + 3] {
            let candidates = (1..).map(candidate).take(count).collect::<Vec<_>>();
            let offer = HelperOffer {
                room: 500,
                leaves: 12,
                candidates: candidates.clone(),
            };
            let read = HelperOffer::decode(&offer.encode()).unwrap();
            assert_eq!((read.room, read.leaves), (500, 12));
            assert_eq!(read.candidates, candidates[..count.min(MAX_CANDIDATES)]);
        }
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        let offer = HelperOffer {
            room: 258,
            leaves: 5,
            candidates: vec![candidate(7_000)],
        };
        let expected = [4, 1, 2, 0, 5, 1, 3, 4, 203, 0, 113, 7, 0x1b, 0x58];
        assert_eq!(offer.encode(), expected);
        let other = [&[3], &expected[1..]].concat();
        let read = HelperOffer::decode(&other);
        assert!(matches!(read, Err(WireError::Version(3))));
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
