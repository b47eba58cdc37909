//! Grants: keys that may append, in the owner's log.
//!
//! ```text
//!   n x (author's key 32 | not before 6 | expires 6 | last number 4)
//! ```

use librecast::id::PeerId;
use librecast::wire::{Reader, WireError, Writer};

/// Kind of the entries in the owner's log that hold grants.
pub const GRANT_KIND: u8 = 0;

/// Bytes of a grant.
const GRANT_LENGTH: usize = 32 + 6 + 6 + 4;

/// Most grants in one entry's body.
pub const GRANTS_IN_ENTRY: usize = crate::MAX_BODY / GRANT_LENGTH;

/// Most difference between clocks of authors, in milliseconds: a day.
pub(crate) const CLOCK_TOLERANCE: u64 = 86_400_000;

/// An author's right to append. A later grant for the same key replaces it, and so can end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The author's key.
    pub author: PeerId,
    /// Earliest time of its entries: milliseconds since 1970.
    pub not_before: u64,
    /// Latest time of its entries: milliseconds since 1970.
    pub expires: u64,
    /// The last number that counts; `u32::MAX` if there is no end yet.
    pub last: u32,
}

impl Grant {
    /// Whether an entry of this number and time is within it, with a day's tolerance for clocks.
    pub fn admits(&self, number: u32, time: u64) -> bool {
        number <= self.last
            && time.saturating_add(CLOCK_TOLERANCE) >= self.not_before
            && time <= self.expires.saturating_add(CLOCK_TOLERANCE)
    }

    /// Encodes the body of an entry with these grants, at most [`GRANTS_IN_ENTRY`].
    #[must_use]
    pub fn encode(grants: &[Self]) -> Vec<u8> {
        let mut w = Writer::new();
        for grant in grants {
            w.put(grant.author.public_key());
            w.put(&grant.not_before.to_be_bytes()[2..]);
            w.put(&grant.expires.to_be_bytes()[2..]);
            w.u32(grant.last);
        }
        w.into_vec()
    }

    /// Decodes the grants of an entry's body.
    ///
    /// # Errors
    /// [`WireError`]; also for an invalid key.
    pub fn decode(body: &[u8]) -> Result<Vec<Self>, WireError> {
        let mut reader = Reader::new(body);
        let mut grants = Vec::new();
        while !reader.is_empty() {
            grants.push(Self::read(&mut reader)?);
        }
        Ok(grants)
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let author =
            PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("author's key"))?;
        let (not_before, expires): ([u8; 6], [u8; 6]) = (r.array()?, r.array()?);
        let last = r.u32()?;
        Ok(Self {
            author,
            not_before: u48(not_before),
            expires: u48(expires),
            last,
        })
    }
}

fn u48([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

    const DAY: u64 = 86_400_000;

    fn grant(n: u8) -> Grant {
        Grant {
            author: SecretKey::from_seed(&[n; 32]).peer_id(),
            not_before: 10 * DAY,
            expires: 20 * DAY,
            last: 5,
        }
    }

    #[test]
    fn grants_come_back_from_a_full_body() {
        let grants: Vec<_> = (0..GRANTS_IN_ENTRY).map(|n| grant(n as u8)).collect();
        let body = Grant::encode(&grants);
        assert!(body.len() <= crate::MAX_BODY);
        assert_eq!(Grant::decode(&body), Ok(grants));
        assert!(Grant::decode(&body[1..]).is_err());
    }

    #[test]
    fn a_grant_ends_with_its_last_number_and_its_time() {
        let g = grant(1);
        assert!(g.admits(1, 10 * DAY) && g.admits(5, 20 * DAY));
        assert!(g.admits(1, 9 * DAY) && g.admits(1, 21 * DAY));
        assert!(!g.admits(6, 15 * DAY));
        assert!(!g.admits(1, 9 * DAY - 1) && !g.admits(1, 21 * DAY + 1));
    }
}
