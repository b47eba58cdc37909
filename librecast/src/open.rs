//! Open keys: any holder of such a key K finds its host, and calls it.
//!
//! ```text
//! statement  version 8 = 1 | K 256 | D 256 | until 64 (unix seconds) | signature 512 by K
//! room       derive("lcroute 2026 open room", K | period 64), where D waits
//! name       derive("lcroute 2026 open name", K | period 64), of its record on LANs
//! seal       derive("lcroute 2026 open seal", K | period 64), of that record
//! tag        first 120 bits of derive("lcroute 2026 open call", K | period 64 | G), of a first call
//! ```
//!
//! D is a key of one day, for which the host's program for links needs no other key. A caller makes
//! a key G for each call; G and D are a pair ([`crate::pair`]). The true keys are proven later, by
//! the streams over the link.

use crate::id::{PeerId, SecretKey, derive};
use crate::pair::{PERIOD, Periods};
use crate::time::UnixTime;
use crate::wire::{Reader, WireError, Writer};

/// Context of the signature (domain separation).
const CONTEXT: &str = "lcroute 2026 open key";
/// Version of the format.
const VERSION: u8 = 1;
/// Bytes of a statement.
pub const STATEMENT_LEN: usize = 1 + 32 + 32 + 8 + 64;
/// Seconds for which a statement may be valid: its period, a day around it for clocks, and another.
const LONGEST: u64 = 4 * PERIOD;

/// The day's key of an open key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// The open key.
    pub open: PeerId,
    /// The key of the day.
    pub day_key: PeerId,
    /// End of its validity, in unix seconds.
    pub until: u64,
}

/// Returns the periods of an open key.
pub fn periods(open: &PeerId) -> Periods {
    Periods::of(&derive("lcroute 2026 open period", &[open.public_key()]))
}

/// Returns the end of a statement for a period: clocks may differ by a day.
pub fn until(open: &PeerId, period: u64) -> u64 {
    periods(open).start(period).saturating_add(2 * PERIOD)
}

fn of_period(context: &str, open: &PeerId, period: u64) -> [u8; 32] {
    derive(context, &[open.public_key(), &period.to_be_bytes()])
}

/// Returns the room of an open key at servers.
pub fn room(open: &PeerId, period: u64) -> [u8; 32] {
    of_period("lcroute 2026 open room", open, period)
}

/// Returns the name of its record.
pub fn name(open: &PeerId, period: u64) -> [u8; 32] {
    of_period("lcroute 2026 open name", open, period)
}

/// Returns the key that seals its record.
#[must_use]
pub fn seal(open: &PeerId, period: u64) -> [u8; 32] {
    of_period("lcroute 2026 open seal", open, period)
}

/// Bytes of the tag of a first call.
pub const TAG_LEN: usize = 15;

/// Returns the tag of a first call by `caller`: others get no answer from the key's host.
pub fn call_tag(open: &PeerId, period: u64, caller: &[u8; 32]) -> [u8; TAG_LEN] {
    let parts: [&[u8]; 3] = [open.public_key(), &period.to_be_bytes(), caller];
    let hash = derive("lcroute 2026 open call", &parts);
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&hash[..TAG_LEN]);
    tag
}

impl Statement {
    fn head(&self) -> Writer {
        let mut w = Writer::new();
        w.u8(VERSION)
            .put(self.open.public_key())
            .put(self.day_key.public_key())
            .u64(self.until);
        w
    }

    /// Signs it by the open key; none if it is another's, or valid for too long.
    #[must_use]
    pub fn sign(&self, key: &SecretKey, time: UnixTime) -> Option<[u8; STATEMENT_LEN]> {
        let latest = time.as_secs().saturating_add(LONGEST);
        if key.peer_id() != self.open || self.until > latest {
            return None;
        }
        let mut w = self.head();
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        w.into_vec().try_into().ok()
    }

    /// Reads and verifies a statement of this open key.
    ///
    /// # Errors
    /// It is malformed, of another key, not signed by it, or not valid at this time.
    pub fn verify(bytes: &[u8], open: &PeerId, time: UnixTime) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let mut key = || PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("key"));
        let (said, day_key) = (key()?, key()?);
        let statement = Self {
            open: said,
            day_key,
            until: r.u64()?,
        };
        let signature: [u8; 64] = r.array()?;
        if !r.rest().is_empty() || said != *open {
            return Err(WireError::Bad("statement"));
        }
        // clocks may differ by a day
        let now = time.as_secs();
        if statement.until.saturating_add(PERIOD) < now
            || statement.until > now.saturating_add(LONGEST)
        {
            return Err(WireError::Bad("time of a statement"));
        }
        let verified = open.verify(CONTEXT, statement.head().as_slice(), &signature);
        verified.map_err(|_| WireError::Bad("signature"))?;
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(&[n; 32])
    }

    fn statement() -> Statement {
        let open = key(1).peer_id();
        Statement {
            open,
            day_key: key(2).peer_id(),
            until: until(&open, periods(&open).at(NOW)),
        }
    }

    fn signed() -> [u8; STATEMENT_LEN] {
        statement().sign(&key(1), NOW).unwrap()
    }

    #[test]
    fn golden_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let open = key(1).peer_id();
        let signed = signed();
        assert_eq!(signed[0], 1);
        assert_eq!(&signed[1..33], open.public_key());
        assert_eq!(&signed[33..65], key(2).peer_id().public_key());
        assert_eq!(signed[65..73], statement().until.to_be_bytes());
        assert_eq!(
            [
                periods(&open).start(0).to_string(),
                hex(&room(&open, 7)),
                hex(&name(&open, 7)),
                hex(&seal(&open, 7)),
                hex(&signed[73..]),
            ],
            GOLDEN
        );
    }

    const GOLDEN: [&str; 5] = [
        "38369",
        "0e97a41f86b99b171bd68a233c82070817062468c9e9c2442d642ed3dba5023f",
        "de0cf34597c598fcebd58943c6039c61f409cc0657db51b7dbbd4a3f8c7c0f14",
        "b61bbf599342ee415e55d10158e7c46303d40880bc5ff485c7255491f9449650",
        "459a2ffc04113f44e42703547057446c79e64cd129f2c380abc8f66dd117661a\
         ffdb0438668517e3243778af810caad69968a76bc1ef619312c2d35548d16804",
    ];

    #[test]
    fn a_statement_is_of_its_key_alone_and_of_its_days() {
        let open = key(1).peer_id();
        assert_eq!(Statement::verify(&signed(), &open, NOW), Ok(statement()));
        Statement::verify(&signed(), &key(3).peer_id(), NOW).unwrap_err();
        for days in [-1_i64, 1] {
            let time = NOW.as_secs().checked_add_signed(days * 86_400).unwrap();
            Statement::verify(&signed(), &open, UnixTime::from_secs(time)).unwrap();
        }
        for days in [-4_i64, 4] {
            let time = NOW.as_secs().checked_add_signed(days * 86_400).unwrap();
            Statement::verify(&signed(), &open, UnixTime::from_secs(time)).unwrap_err();
        }
        assert_eq!(statement().sign(&key(3), NOW), None, "another's key");
        let long = Statement {
            until: NOW.as_secs() + LONGEST + 1,
            ..statement()
        };
        assert_eq!(long.sign(&key(1), NOW), None);
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(at in 0..STATEMENT_LEN, by in 1_u8..) {
            let mut bytes = signed();
            bytes[at] ^= by;
            prop_assert!(Statement::verify(&bytes, &key(1).peer_id(), NOW).is_err());
        }

        #[test]
        fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Statement::verify(&bytes, &key(1).peer_id(), NOW).is_err());
        }
    }
}
