//! Records of open keys on LANs and in DHTs ([`librecast::open`], [`librecast::open_item`]).
//!
//! ```text
//! nonce 192 | secret box (XSalsa20-Poly1305) under the key of the period:
//!   statement 1096 | count 8 | count x candidate (as in a description)
//!   | ed25519 signature 512 by the day's key over all above | zeros to 472 bytes
//! ```
//!
//! Only a holder of the open key can open it, and only its owner can make one.

use librecast::id::{PeerId, SecretKey};
use librecast::open::{STATEMENT_LEN, Statement, name, seal};
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};

use crate::description::{Candidate, read_candidates, write_candidates};
use crate::record::MAX_RECORD;
use crate::sealed;

/// Context of the signature (domain separation).
const CONTEXT: &str = "lcroute 2026 open record";
const _: () = assert!(MAX_RECORD == librecast::open_item::RECORD_LEN);
/// Length of the sealed content in bytes: all records look alike.
const LENGTH: usize = MAX_RECORD - sealed::OVERHEAD;
/// Most addresses, so that the longest ones fit. Chosen: as many as a host uses.
const MAX_ADDRESSES: usize = 8;

/// Where an open key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRecord {
    /// The day's key.
    pub day: Statement,
    /// Its addresses.
    pub candidates: Vec<Candidate>,
}

impl OpenRecord {
    /// Seals a record of a period by the day's key and its statement; returns its name, too.
    ///
    /// # Errors
    /// It does not fit.
    pub fn seal(
        (open, period): (&PeerId, u64),
        (key, statement): (&SecretKey, &[u8; STATEMENT_LEN]),
        candidates: &[Candidate],
        nonce: [u8; sealed::NONCE],
    ) -> Result<([u8; 32], Vec<u8>), WireError> {
        let mut w = Writer::new();
        w.put(statement);
        let count = candidates.len().min(MAX_ADDRESSES);
        write_candidates(&candidates[..count], &mut w);
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        let mut bytes = w.into_vec();
        if bytes.len() > LENGTH {
            return Err(WireError::Bad("open record"));
        }
        bytes.resize(LENGTH, 0);
        let sealed = sealed::seal(&seal(open, period), &nonce, bytes);
        Ok((name(open, period), sealed))
    }

    /// Opens and verifies a record of a period.
    ///
    /// # Errors
    /// It is not of this key and period, or is malformed.
    pub fn open(
        (open, period): (&PeerId, u64),
        sealed: &[u8],
        time: UnixTime,
    ) -> Result<Self, WireError> {
        if sealed.len() != MAX_RECORD {
            return Err(WireError::Bad("length of an open record"));
        }
        let bytes = sealed::open(&seal(open, period), sealed);
        let bytes = bytes.ok_or(WireError::Bad("seal of an open record"))?;
        let mut r = Reader::new(&bytes);
        let statement: [u8; STATEMENT_LEN] = r.array()?;
        let candidates = read_candidates(&mut r)?;
        let signed = &bytes[..bytes.len() - r.rest().len()];
        let signature: [u8; 64] = r.array()?;
        if r.rest().iter().any(|byte| *byte != 0) {
            return Err(WireError::Bad("padding"));
        }
        let day = Statement::verify(&statement, open, time)?;
        let verified = day.day_key.verify(CONTEXT, signed, &signature);
        verified.map_err(|_| WireError::Bad("signature"))?;
        Ok(Self { day, candidates })
    }
}

#[cfg(test)]
mod tests {
    use librecast::open::{periods, until};
    use proptest::prelude::*;

    use super::*;
    use crate::description::tests::description;
    use crate::tests::key;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn sealed(candidates: &[Candidate]) -> (u64, Vec<u8>) {
        let open = key(1).peer_id();
        let period = periods(&open).at(NOW);
        let statement = Statement {
            open,
            day_key: key(2).peer_id(),
            until: until(&open, period),
        };
        let signed = statement.sign(&key(1), NOW).unwrap();
        let sealed = OpenRecord::seal((&open, period), (&key(2), &signed), candidates, [7; 24]);
        let (name, sealed) = sealed.unwrap();
        assert_eq!(name, librecast::open::name(&open, period));
        (period, sealed)
    }

    proptest! {
        #[test]
        fn a_record_comes_back_and_all_have_one_length(d in description()) {
            let (period, sealed) = sealed(&d.candidates);
            prop_assert_eq!(sealed.len(), MAX_RECORD);
            let open = key(1).peer_id();
            let opened = OpenRecord::open((&open, period), &sealed, NOW).unwrap();
            let count = d.candidates.len().min(MAX_ADDRESSES);
            prop_assert_eq!(&opened.candidates, &d.candidates[..count]);
            prop_assert_eq!(opened.day.day_key, key(2).peer_id());
            prop_assert!(OpenRecord::open((&open, period + 1), &sealed, NOW).is_err());
            prop_assert!(OpenRecord::open((&key(3).peer_id(), period), &sealed, NOW).is_err());
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0_usize..MAX_RECORD, by in 1_u8..) {
            let (period, mut sealed) = sealed(&[]);
            sealed[at] ^= by;
            let opened = OpenRecord::open((&key(1).peer_id(), period), &sealed, NOW);
            prop_assert!(opened.is_err());
        }

        #[test]
        fn any_content_under_the_seal_is_refused(
            content in prop::collection::vec(any::<u8>(), LENGTH),
        ) {
            // a holder of the open key can seal anything
            let open = key(1).peer_id();
            let sealed = sealed::seal(&seal(&open, 7), &[1; 24], content);
            prop_assert!(OpenRecord::open((&open, 7), &sealed, NOW).is_err());
        }
    }
}
