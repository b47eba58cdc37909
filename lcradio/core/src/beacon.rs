//! Beacons: signed descriptions of a station, each second and at changes, to UDP port 5006.
//!
//! ```text
//! version 8 = 1 | station 256 | session 128 | started 64 | time 64 | source 128 | ssrc 32 | roc 32
//! | seq 16 | profile 8 | channels 8 | flags 8 | name text8 | title text8 | grant bytes16
//! | signature 512
//! version 8 = 2 | salt 128 | the above, sealed | tag 128         of a private station
//! ```
//!
//! Flags: 1 talks, 2 ended, 4 in step, 8 away; listeners ignore others. Times are Unix milliseconds.
//! A beacon names its source address and the SSRC: other packets are not played. Rollover counter and sequence are the next packet's, for listeners that join later.
//! It is signed by the station's key, or by a caster with the [`Grant`] in the beacon.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce, Tag};
use librecast::id::{PeerId, derive};
use librecast::plain::{clean, is_plain, shorten};
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::grant::{Grant, GrantError};
use crate::srtp::TAG;
use crate::station::{Station, StationKey};

/// Version of a public station's beacon, its first byte.
const PLAIN: u8 = 1;
/// Version of a private station's beacon, its first byte.
const SEALED: u8 = 2;
const CONTEXT: &str = "lcradio 2026 beacon";
const TALKS: u8 = 1;
/// Flag of a beacon: the session has ended.
const ENDED: u8 = 2;
/// Flag of a beacon: listeners play in step, by the caster's clock.
const TOGETHER: u8 = 4;
/// Flag of a beacon: a participant of a call keeps its place, and hears nobody.
const AWAY: u8 = 8;
/// Longest name or title in bytes: its length has one byte.
pub const MAX_TEXT: usize = 255;

/// The kind of a station's sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Speech: one channel, repaired from the next packet (in-band FEC).
    Voice,
    /// Other sound: two channels.
    Music,
}

impl Profile {
    /// Returns its name on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Music => "music",
        }
    }
}

/// A run of a caster: 128 random bits.
pub type SessionId = [u8; 16];

/// Begin and id of a session: of two sessions the later one is greater.
pub(crate) type Begun = (u64, SessionId);

/// A station's description of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// This run of the caster.
    pub session: SessionId,
    /// Begin of the session; of two sessions the later one is played.
    pub started_ms: u64,
    /// Time of the beacon.
    pub time_ms: u64,
    /// Source of packets and beacons.
    pub source: Ipv6Addr,
    /// SSRC of the packets.
    pub ssrc: u32,
    /// Number of the next packet, 48 bits.
    pub next_index: u64,
    /// The kind of sound.
    pub profile: Profile,
    /// Channels of the sound: 1 or 2.
    pub channels: u8,
    /// The caster talks.
    pub is_talking: bool,
    /// The last beacon: no packets follow.
    pub has_ended: bool,
    /// Listeners play in step: the caster answers questions for its clock.
    pub is_together: bool,
    /// The participant of a call keeps its place, and hears nobody.
    pub is_away: bool,
    /// The station's name.
    pub name: String,
    /// The present title.
    pub title: String,
    /// The grant, if the caster's key is not the station's.
    pub grant: Option<Grant>,
}

/// The reason why a beacon is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BeaconError {
    /// It does not fit the format.
    #[error("beacon: {0}")]
    Wire(#[from] WireError),
    /// Sealed by another key, or plain for a private station.
    #[error("beacon: the station's key does not open it")]
    NotOpened,
    /// Of another station, or not signed by its key.
    #[error("beacon: of another station, or forged")]
    Forged,
    /// Its grant is of another station, or forged.
    #[error("beacon: its grant is of another station, or forged")]
    Grant,
}

impl From<GrantError> for BeaconError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::Wire(error) => error.into(),
            GrantError::Text(_) | GrantError::Forged => Self::Grant,
        }
    }
}

/// Returns whether a name or title can be shown: short, and plain.
#[must_use]
pub fn is_showable(text: &str) -> bool {
    text.len() <= MAX_TEXT && is_plain(text)
}

/// Makes a name or title showable: whole letters of its beginning, line ends as blanks, deceptive
/// characters as U+FFFD.
#[must_use]
pub fn showable(text: &str) -> String {
    shorten(&clean(&text.replace(['\r', '\n', '\t'], " ")), MAX_TEXT)
}

impl Beacon {
    /// Returns the signing key: the caster's, or the station's own.
    pub(crate) fn caster<'a>(&'a self, station: &'a Station) -> &'a PeerId {
        let granted = self.grant.as_ref().map(Grant::caster);
        granted.unwrap_or(station.key())
    }

    /// Returns the signed datagram; for a private station sealed, under a key unique to `salt`.
    ///
    /// # Errors
    /// A name or title that cannot be shown.
    pub fn encode(
        &self,
        key: &StationKey,
        station: &Station,
        salt: [u8; 16],
    ) -> Result<Vec<u8>, WireError> {
        let mut w = Writer::new();
        w.u8(PLAIN).put(station.key().public_key());
        w.put(&self.session).u64(self.started_ms).u64(self.time_ms);
        w.ipv6(self.source).u32(self.ssrc);
        w.u32((self.next_index >> 16) as u32)
            .u16(self.next_index as u16);
        w.u8(match self.profile {
            Profile::Voice => 1,
            Profile::Music => 2,
        });
        let talks = if self.is_talking { TALKS } else { 0 };
        let ended = if self.has_ended { ENDED } else { 0 };
        let together = if self.is_together { TOGETHER } else { 0 };
        let away = if self.is_away { AWAY } else { 0 };
        w.u8(self.channels).u8(talks | ended | together | away);
        for text in [&self.name, &self.title] {
            if !is_showable(text) {
                return Err(WireError::Bad("text"));
            }
            w.text8(text)?;
        }
        let grant = self.grant.as_ref().map(Grant::write);
        w.bytes16(grant.as_ref().map_or(&[], |grant| &grant[..]))?;
        let signature = key.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        Ok(seal_for(station, salt, w.into_vec()))
    }

    /// Decodes a datagram, with all checks but those of time and source.
    ///
    /// # Errors
    /// It does not fit the format, cannot be opened, or is not the station's.
    pub fn decode(datagram: &[u8], station: &Station) -> Result<Self, BeaconError> {
        Self::decode_plain(&open_sealed(datagram, station)?, station)
    }

    /// Decodes the contents of an opened datagram.
    pub(crate) fn decode_plain(bytes: &[u8], station: &Station) -> Result<Self, BeaconError> {
        let (signed, signature) = bytes.split_last_chunk::<64>().ok_or(WireError::Truncated)?;
        let mut r = Reader::new(signed);
        r.version(PLAIN)?;
        if r.array::<32>()? != *station.key().public_key() {
            return Err(BeaconError::Forged);
        }
        let beacon = Self {
            session: r.array()?,
            started_ms: r.u64()?,
            time_ms: r.u64()?,
            source: r.ipv6()?,
            ssrc: r.u32()?,
            next_index: u64::from(r.u32()?) << 16 | u64::from(r.u16()?),
            profile: match r.u8()? {
                1 => Profile::Voice,
                2 => Profile::Music,
                _ => return Err(WireError::Bad("profile").into()),
            },
            channels: match r.u8()? {
                channels @ 1..=2 => channels,
                _ => return Err(WireError::Bad("channels").into()),
            },
            is_talking: false,
            has_ended: false,
            is_together: false,
            is_away: false,
            name: String::new(),
            title: String::new(),
            grant: None,
        };
        let flags = r.u8()?;
        let (name, title) = (r.text8()?, r.text8()?);
        if !is_showable(name) || !is_showable(title) {
            return Err(WireError::Bad("text").into());
        }
        let grant = match r.bytes16()? {
            [] => None,
            grant => Some(Grant::read(grant, station)?),
        };
        r.finish()?;
        let beacon = Self {
            is_talking: flags & TALKS != 0,
            has_ended: flags & ENDED != 0,
            is_together: flags & TOGETHER != 0,
            is_away: flags & AWAY != 0,
            name: name.to_owned(),
            title: title.to_owned(),
            grant,
            ..beacon
        };
        beacon
            .caster(station)
            .verify(CONTEXT, signed, signature)
            .map_err(|_| BeaconError::Forged)?;
        Ok(beacon)
    }
}

/// Seals a datagram if the station is private; the salt is of this datagram alone.
pub(crate) fn seal_for(station: &Station, salt: [u8; 16], plain: Vec<u8>) -> Vec<u8> {
    match station.read_key() {
        None => plain,
        Some(read_key) => seal(read_key, salt, plain),
    }
}

/// Opens a datagram if the station is private.
pub(crate) fn open_sealed<'a>(
    datagram: &'a [u8],
    station: &Station,
) -> Result<Cow<'a, [u8]>, BeaconError> {
    match (station.read_key(), datagram.first()) {
        (Some(read_key), _) => Ok(open(read_key, datagram)?.into()),
        (None, Some(&SEALED)) => Err(BeaconError::NotOpened),
        (None, _) => Ok(datagram.into()),
    }
}

/// Returns the cipher of one beacon; the key depends on the salt, so the nonce may be constant.
fn cipher(read_key: &[u8; 32], salt: &[u8; 16]) -> Aes128Gcm {
    let key = Zeroizing::new(derive("lcradio 2026 beacon seal", &[read_key, salt]));
    Aes128Gcm::new(key[..16].into())
}

fn seal(read_key: &[u8; 32], salt: [u8; 16], plain: Vec<u8>) -> Vec<u8> {
    let mut sealed = plain;
    let tag = cipher(read_key, &salt)
        .encrypt_in_place_detached(&Nonce::default(), &[SEALED], &mut sealed)
        .expect("a beacon is shorter than what GCM takes");
    [&[SEALED], &salt[..], &sealed, &tag].concat()
}

fn open(read_key: &[u8; 32], datagram: &[u8]) -> Result<Vec<u8>, BeaconError> {
    let mut r = Reader::new(datagram);
    match r.u8()? {
        SEALED => {}
        PLAIN => return Err(BeaconError::NotOpened),
        version => return Err(WireError::Version(version).into()),
    }
    let salt = r.array()?;
    let (sealed, tag) = r
        .rest()
        .split_last_chunk::<TAG>()
        .ok_or(WireError::Truncated)?;
    let mut plain = sealed.to_vec();
    cipher(read_key, &salt)
        .decrypt_in_place_detached(
            &Nonce::default(),
            &[SEALED],
            &mut plain,
            Tag::from_slice(tag),
        )
        .map_err(|_| BeaconError::NotOpened)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;
    use crate::srtp::MAX_INDEX;

    #[test]
    fn a_text_is_cut_between_letters_and_what_deceives_is_replaced() {
        let whole = "می\u{200c}خواهم 👩\u{200d}👧";
        assert_eq!(showable(whole), whole);
        assert_eq!(
            showable("one\ntwo\u{1b}[2J\u{202e}x"),
            "one two\u{fffd}[2J\u{fffd}x"
        );
        for (begin, letter) in [
            ("", "ü"),
            ("x", "ü"),
            ("", "e\u{301}"),
            ("xy", "👩\u{200d}👧"),
            ("", "क\u{93e}"),
        ] {
            let cut = showable(&format!("{begin}{}", letter.repeat(200)));
            let letters = (cut.len() - begin.len()) / letter.len();
            assert_eq!(
                cut,
                format!("{begin}{}", letter.repeat(letters)),
                "{letter:?}"
            );
            assert!(
                is_showable(&cut) && cut.len() + letter.len() > MAX_TEXT,
                "{letter:?}: {}",
                cut.len()
            );
        }
        let marks = format!("e{}", "\u{301}".repeat(500));
        assert!(showable(&marks).len() > 250);
    }

    fn beacon() -> Beacon {
        Beacon {
            session: [3; 16],
            started_ms: 1_800_000_000_000,
            time_ms: 1_800_000_005_000,
            source: "fd01::5".parse().unwrap(),
            ssrc: 0x0102_0304,
            next_index: 0x0001_0000_fffe,
            profile: Profile::Voice,
            channels: 1,
            is_talking: true,
            has_ended: false,
            is_together: false,
            is_away: false,
            name: "Büro".into(),
            title: "Morning".into(),
            grant: None,
        }
    }

    fn granted(is_public: bool) -> (StationKey, Beacon) {
        let caster = StationKey::from_seed(&[2; 32]);
        let grant = Grant::new(&key(), is_public, &caster.id(), 1_900_000_000_000);
        let beacon = Beacon {
            grant: Some(grant),
            ..beacon()
        };
        (caster, beacon)
    }

    fn key() -> StationKey {
        StationKey::from_seed(&[1; 32])
    }

    fn encoded(public: bool) -> Vec<u8> {
        let key = key();
        beacon()
            .encode(&key, &key.station(public), [9; 16])
            .unwrap()
    }

    #[test]
    fn beacons_are_frozen() {
        assert_eq!(HEXLOWER.encode(&encoded(true)), PUBLIC);
        assert_eq!(HEXLOWER.encode(&encoded(false)), PRIVATE);
    }

    const PUBLIC: &str = "01c10f4adae834bab5ddabdf6c0cfaa47a3c0e8dde120b35d706def6735fba97b303030303030303030303030303030303000001a3185c\
        5000000001a3185c6388fd0100000000000000000000000000050102030400010000fffe0101010542c3bc726f074d6f726e696e670000\
        a16ae2e4006865a8177a292d3de78908a7157ee8a918f4646506e1b9cceeb7cd4e528a06f12c0c5c1bde8a45cf22846acdebb12a3b3a2b\
        ffaba3155fade08d00";
    const PRIVATE: &str = "02090909090909090909090909090909091ac5718423b2fa53d355b7358251b38a89a985711df6ae2902ae401e7b5e8570ccfea22c24dc\
        45af432d9b7ccb30f4cd87a1e46527d53bfdf238ad94d7da6a7a66a2d937434ccde06e11dbcc665cefcc5d8f752e105774f1cde009fe05\
        15b04334b604421986f16deb716754f47d25b100e5976e9652d72c336290538d88993119e54a857e3aec9911936fa7de0ce2f601348d0a\
        aacc0825c21342c4edd2b49c46a376ff2a4330596f626091d332b73de4989dc89d611375187c16a7361e";

    #[test]
    fn flags_come_back_and_others_are_ignored() {
        let key = key();
        let station = key.station(true);
        let together = Beacon {
            is_together: true,
            is_away: true,
            ..beacon()
        };
        let datagram = together.encode(&key, &station, [0; 16]).unwrap();
        assert_eq!(Beacon::decode(&datagram, &station), Ok(together));
        // flags of later versions, with this one
        let at = 1 + 32 + 16 + 8 + 8 + 16 + 4 + 6 + 2;
        let signed = datagram.len() - 64;
        assert_eq!(datagram[at], TALKS | TOGETHER | AWAY);
        let mut later = datagram[..signed].to_vec();
        later[at] |= 0xf0;
        let signature = key.sign(CONTEXT, &later);
        later.extend(signature);
        let decoded = Beacon::decode(&later, &station).unwrap();
        assert!(decoded.is_together && decoded.is_away && decoded.is_talking);
        assert!(!decoded.has_ended);
    }

    #[test]
    fn a_beacon_comes_back_for_its_station_and_for_no_other() {
        for public in [true, false] {
            let datagram = encoded(public);
            let station = key().station(public);
            assert_eq!(Beacon::decode(&datagram, &station), Ok(beacon()));
            let other = StationKey::from_seed(&[2; 32]).station(public);
            let refused = Beacon::decode(&datagram, &other).unwrap_err();
            let expected = match public {
                true => BeaconError::Forged,
                false => BeaconError::NotOpened,
            };
            assert_eq!(refused, expected);
            let otherwise = key().station(!public);
            assert_eq!(
                Beacon::decode(&datagram, &otherwise),
                Err(BeaconError::NotOpened)
            );
            for at in 0..datagram.len() {
                let mut changed = datagram.clone();
                changed[at] ^= 1;
                assert!(Beacon::decode(&changed, &station).is_err(), "byte {at}");
                assert!(Beacon::decode(&datagram[..at], &station).is_err());
            }
        }
    }

    #[test]
    fn who_opens_a_private_station_still_cannot_sign_for_it() {
        // the read key with another signing key
        let listener = key().station(false);
        let forger = StationKey::from_seed(&[2; 32]);
        let forged = beacon().encode(&forger, &listener, [9; 16]).unwrap();
        assert_eq!(Beacon::decode(&forged, &listener), Err(BeaconError::Forged));
    }

    #[test]
    fn who_has_a_grant_signs_for_the_station_and_nobody_by_the_grant_of_another() {
        for public in [true, false] {
            let station = key().station(public);
            let (caster, granted) = granted(public);
            let signed = |key: &StationKey, beacon: &Beacon| {
                let datagram = beacon.encode(key, &station, [9; 16]).unwrap();
                Beacon::decode(&datagram, &station)
            };
            assert_eq!(signed(&caster, &granted), Ok(granted.clone()));
            // each beacon contains the grant: it is useless without the caster's key
            let thief = StationKey::from_seed(&[3; 32]);
            assert_eq!(signed(&thief, &granted), Err(BeaconError::Forged));
            assert_eq!(signed(&caster, &beacon()), Err(BeaconError::Forged));
            let of_thief = Grant::new(&thief, public, &thief.id(), u64::MAX);
            let forged = Beacon {
                grant: Some(of_thief),
                ..beacon()
            };
            assert_eq!(signed(&thief, &forged), Err(BeaconError::Grant));
            // for the other station of the same key
            let other = Grant::new(&key(), !public, &caster.id(), u64::MAX);
            let other = Beacon {
                grant: Some(other),
                ..beacon()
            };
            assert_eq!(signed(&caster, &other), Err(BeaconError::Grant));
            let datagram = granted.encode(&caster, &station, [9; 16]).unwrap();
            for at in 0..datagram.len() {
                let mut changed = datagram.clone();
                changed[at] ^= 1;
                assert!(Beacon::decode(&changed, &station).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_name_that_cannot_be_shown_is_refused() {
        let key = key();
        let longest = "x".repeat(MAX_TEXT);
        for (name, fits) in [
            (longest.as_str(), true),
            ("a\u{202e}b", false),
            ("a\nb", false),
        ] {
            let beacon = Beacon {
                name: name.to_owned(),
                ..beacon()
            };
            let datagram = beacon.encode(&key, &key.station(false), [9; 16]);
            assert_eq!(datagram.is_ok(), fits, "{name:?}");
        }
        let longest = Beacon {
            title: "y".repeat(MAX_TEXT),
            name: longest,
            ..granted(false).1
        };
        let datagram = longest.encode(&key, &key.station(false), [9; 16]).unwrap();
        assert!(
            datagram.len() <= crate::rtp::MAX_PACKET,
            "{}",
            datagram.len()
        );
    }

    #[test]
    fn numbers_of_packets_have_48_bits() {
        let last = Beacon {
            next_index: MAX_INDEX,
            ..beacon()
        };
        let key = key();
        let station = key.station(true);
        let datagram = last.encode(&key, &station, [0; 16]).unwrap();
        assert_eq!(Beacon::decode(&datagram, &station), Ok(last));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0_u8..4) {
            let bytes = [&[version], &bytes[..]].concat();
            for public in [true, false] {
                prop_assert!(Beacon::decode(&bytes, &key().station(public)).is_err());
            }
        }
    }
}
