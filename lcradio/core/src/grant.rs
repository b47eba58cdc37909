//! Grants: a station's key permits another key to cast for it until a time.
//!
//! ```text
//! in beacons and announcements   caster 256 | expires 64 | signature 512
//! lcb1...                        the same | station 256 | read key 256, of a private station
//! signed                         group 128 | caster 256 | expires 64
//! ```
//!
//! The group belongs to the private or to the public station of a key: a grant holds for one of
//! them. The expiry is in Unix milliseconds. A grant cannot be revoked before it expires.

use librecast::id::PeerId;
use librecast::text::{self, TextError, TextKind};
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::station::{Station, StationKey};

const CONTEXT: &str = "lcradio 2026 grant";
/// Bytes of a grant in beacons.
pub(crate) const GRANT: usize = 32 + 8 + 64;

/// The permission of another key to cast. For a private station it has the read key: a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    station: Station,
    caster: PeerId,
    expires_ms: u64,
    signature: [u8; 64],
}

/// The reason why a grant is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GrantError {
    /// The text is of another kind, or damaged.
    #[error(transparent)]
    Text(#[from] TextError),
    /// It does not fit the format.
    #[error("grant: {0}")]
    Wire(#[from] WireError),
    /// The station that it names has not signed it.
    #[error("grant: of another station, or forged")]
    Forged,
}

fn signed(station: &Station, caster: &PeerId, expires_ms: u64) -> Vec<u8> {
    let mut w = Writer::new();
    w.ipv6(station.group()).put(caster.public_key());
    w.u64(expires_ms);
    w.into_vec()
}

impl Grant {
    /// Permits `caster` to cast for this key's public or private station until `expires_ms`.
    #[must_use]
    pub fn new(key: &StationKey, is_public: bool, caster: &PeerId, expires_ms: u64) -> Self {
        let station = key.station(is_public);
        let signature = key.sign(CONTEXT, &signed(&station, caster, expires_ms));
        Self {
            station,
            caster: *caster,
            expires_ms,
            signature,
        }
    }

    /// Returns the station.
    pub fn station(&self) -> &Station {
        &self.station
    }

    /// Returns the caster's key.
    pub fn caster(&self) -> &PeerId {
        &self.caster
    }

    /// Returns its end in Unix milliseconds.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms
    }

    /// Returns its text, `lcb1...`; a private station's is a secret.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(GRANT + 64));
        bytes.extend_from_slice(&self.write());
        bytes.extend_from_slice(&self.station.to_bytes());
        text::encode(TextKind::CastingGrant, &bytes)
    }

    /// Decodes its text.
    ///
    /// # Errors
    /// The text is of another kind, damaged, or not signed by the station.
    pub fn decode(line: &str) -> Result<Self, GrantError> {
        let damaged = TextError::Damaged(TextKind::CastingGrant);
        let bytes = text::decode(TextKind::CastingGrant, line, GRANT + 64)?;
        let (grant, station) = bytes.split_at_checked(GRANT).ok_or(damaged)?;
        let station = Station::from_bytes(station).ok_or(damaged)?;
        Self::read(grant, &station)
    }

    /// Encodes it for beacons and announcements.
    pub(crate) fn write(&self) -> [u8; GRANT] {
        let mut bytes = [0; GRANT];
        bytes[..32].copy_from_slice(self.caster.public_key());
        bytes[32..40].copy_from_slice(&self.expires_ms.to_be_bytes());
        bytes[40..].copy_from_slice(&self.signature);
        bytes
    }

    /// Decodes it from them; does not check its expiry.
    pub(crate) fn read(bytes: &[u8], station: &Station) -> Result<Self, GrantError> {
        let mut r = Reader::new(bytes);
        let caster = r.array()?;
        let caster = PeerId::from_public_key(caster).map_err(|_| WireError::Bad("caster"))?;
        let (expires_ms, signature) = (r.u64()?, r.array()?);
        r.finish()?;
        let signed = signed(station, &caster, expires_ms);
        let verified = station.key().verify(CONTEXT, &signed, &signature);
        verified.map_err(|_| GrantError::Forged)?;
        Ok(Self {
            station: station.clone(),
            caster,
            expires_ms,
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> StationKey {
        StationKey::from_seed(&[1; 32])
    }

    fn grant(is_public: bool) -> Grant {
        let caster = StationKey::from_seed(&[2; 32]).station(true);
        Grant::new(&key(), is_public, caster.key(), 1_800_000_000_000)
    }

    #[test]
    fn a_grant_comes_back_from_its_text_and_from_beacons() {
        for is_public in [true, false] {
            let grant = grant(is_public);
            let text = grant.encode();
            assert_eq!(Grant::decode(&format!("{}\n", *text)), Ok(grant.clone()));
            assert!(Grant::decode(&text[..text.len() - 1]).is_err());
            let station = key().station(is_public);
            assert_eq!(Grant::read(&grant.write(), &station), Ok(grant));
        }
        let station = key().station(true).encode();
        let told = Grant::decode(&station).unwrap_err().to_string();
        assert_eq!(told, "this is a station (lcr1), not a grant to cast (lcb1)");
    }

    #[test]
    fn the_form_is_frozen() {
        assert_eq!(*grant(true).encode(), PUBLIC);
    }

    const PUBLIC: &str = "lcb12smQ28CCaK6TfxrGbb62a57vhynZWzwg54Ju7xa8ve8nhtUJt3nxvSmaU3UDYmAT2Bbbb2rSGkDtFQCnC9R2UcHihqZGyz86EKcWGARFHD6yeYFhuvmkiyhNioQZEgP7t63ab6TKeBus18jWN4Xx6iiRf8mZ1SYAH365SKj36o13hNxL4akUZ5d74s5eHMf";

    #[test]
    fn a_grant_is_for_one_station_one_caster_and_one_time() {
        let bytes = grant(true).write();
        let station = key().station(true);
        let others = [
            key().station(false),
            StationKey::from_seed(&[3; 32]).station(true),
        ];
        for other in others {
            assert_eq!(Grant::read(&bytes, &other), Err(GrantError::Forged));
        }
        for at in 0..bytes.len() {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(Grant::read(&changed, &station).is_err(), "byte {at}");
            assert!(Grant::read(&bytes[..at], &station).is_err());
        }
        // the holder of a grant can grant nothing
        let caster = StationKey::from_seed(&[2; 32]);
        let mut passed_on = Grant::new(&caster, true, station.key(), u64::MAX);
        passed_on.station = station.clone();
        let passed_on = Grant::read(&passed_on.write(), &station);
        assert_eq!(passed_on, Err(GrantError::Forged));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Grant::read(&bytes, &key().station(true)).is_err());
        }
    }
}
