//! The keys of a link's media: from its own DTLS (RFC 5764) to session keys (RFC 3711, 4.3).
//!
//! DTLS hands the SRTP master keys to a connection's observer, [`KeyTap`]. It also notes authentic
//! records, to attribute panics of the stack, and filters SCTP (sctp.rs).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rtc::crypto::{BlockCipherAlgorithm, CryptoError, RTCCrypto};
use rtc::srtp::protection_profile::ProtectionProfile;
use rtc_dtls::observer::{Observer, ProtocolVersion, SrtpKeys, SrtpProfile};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::sctp::Watch;

/// Label of the key derivation (RFC 3711 4.3.2): the key of SRTP.
const SRTP_ENCRYPTION: u8 = 0;
/// The salt of SRTP.
const SRTP_SALT: u8 = 2;
/// The key of SRTCP.
const SRTCP_ENCRYPTION: u8 = 3;
/// The salt of SRTCP.
const SRTCP_SALT: u8 = 5;
/// The SSRC of a direction; an own label, beyond those of RFC 3711.
const SSRC: u8 = 0x80;

/// Bytes of a master key (RFC 7714 §12).
const KEY: usize = 16;
/// Bytes of a master salt (RFC 7714 §12).
const SALT: usize = 12;
/// Bytes of a master salt of AES-CM (RFC 3711 8.2).
const CM_SALT: usize = 14;

/// Master key and salt of one direction, AEAD_AES_128_GCM.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct MasterKey {
    pub(crate) key: [u8; 16],
    pub(crate) salt: [u8; 12],
}

/// Keys of both directions.
#[derive(Debug, Clone)]
pub(crate) struct LinkKeys {
    pub(crate) sending: MasterKey,
    pub(crate) receiving: MasterKey,
}

/// Key and salt with which a page's browser opens what this end sends, by the negotiated profile.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct TrackKeys {
    #[zeroize(skip)]
    pub(crate) profile: ProtectionProfile,
    pub(crate) key: Vec<u8>,
    pub(crate) salt: Vec<u8>,
}

/// Keys that seal packets of one direction.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct SessionKeys {
    pub(crate) rtp_key: [u8; 16],
    pub(crate) rtp_salt: [u8; 12],
    pub(crate) rtcp_key: [u8; 16],
    pub(crate) rtcp_salt: [u8; 12],
    /// Known to both sides: it finds the link of a report from an unknown address.
    pub(crate) ssrc: u32,
}

impl MasterKey {
    /// Derives the session keys; the key derivation rate is 0.
    pub(crate) fn session(&self, crypto: &dyn RTCCrypto) -> Result<SessionKeys, CryptoError> {
        let block = |label| derive(crypto, self, label);
        Ok(SessionKeys {
            rtp_key: block(SRTP_ENCRYPTION)?,
            rtp_salt: first(&block(SRTP_SALT)?),
            rtcp_key: block(SRTCP_ENCRYPTION)?,
            rtcp_salt: first(&block(SRTCP_SALT)?),
            ssrc: u32::from_be_bytes(first(&block(SSRC)?)),
        })
    }
}

/// Returns the first 16 bytes of AES-CM keystream under `label` (RFC 3711, section 4.3.3).
fn derive(crypto: &dyn RTCCrypto, master: &MasterKey, label: u8) -> Result<[u8; 16], CryptoError> {
    let mut block = [0; 16];
    block[..12].copy_from_slice(&master.salt);
    block[7] ^= label;
    crypto.block_encrypt(BlockCipherAlgorithm::Aes128, &master.key, &mut block)?;
    Ok(block)
}

fn first<const N: usize>(block: &[u8; 16]) -> [u8; N] {
    std::array::from_fn(|i| block[i])
}

librecast::debug_by_name!(TrackKeys);

librecast::debug_by_name!(MasterKey);

/// Observer of one connection's DTLS.
#[derive(Default)]
pub(crate) struct KeyTap {
    /// Seed of the randomness in DTLS that is not secret; `None`: the system's.
    seed: Option<u64>,
    /// Set after the handshake, with the peer's certificate verified; `None` inside: unusable keys.
    keys: OnceLock<Option<LinkKeys>>,
    /// Set with `keys`.
    track: OnceLock<TrackKeys>,
    /// Whether a record with application data has been authenticated since
    /// [`KeyTap::forget_opened`].
    opened: AtomicBool,
    watch: Mutex<Watch>,
    /// Packets kept from the stack.
    left_out: AtomicU32,
    /// Whether a test passes all packets to the stack.
    #[cfg(test)]
    unwatched: AtomicBool,
    /// Replacement of sealed plaintext, in tests.
    #[cfg(test)]
    forge: Mutex<Option<Forge>>,
}

/// Changes the plaintext of a record before it is sealed.
#[cfg(test)]
pub(crate) type Forge = Box<dyn FnMut(&mut [u8]) + Send>;

impl KeyTap {
    /// Makes the observer; `seed` is for randomness in DTLS that is not secret.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Whether a record with application data was opened since [`Self::forget_opened`], after the
    /// handshake: its sender has the certificate of the signed description.
    pub(crate) fn has_opened(&self) -> bool {
        self.opened.load(Ordering::Relaxed) && self.keys.get().is_some()
    }

    /// Resets [`Self::has_opened`].
    pub(crate) fn forget_opened(&self) {
        self.opened.store(false, Ordering::Relaxed);
    }

    /// Returns and resets the number of SCTP packets kept from the stack.
    pub(crate) fn take_left_out(&self) -> u32 {
        self.left_out.swap(0, Ordering::Relaxed)
    }

    /// Passes all packets to the stack from now on.
    #[cfg(test)]
    pub(crate) fn unwatch(&self) {
        self.unwatched.store(true, Ordering::Relaxed);
    }

    /// Passes plaintext through `forge` before it is sealed, from now on.
    #[cfg(test)]
    pub(crate) fn forge(&self, forge: Forge) {
        *self.forge.lock().unwrap() = Some(forge);
    }

    /// Returns the keys, once the handshake is over.
    pub(crate) fn keys(&self) -> Option<LinkKeys> {
        self.keys.get()?.clone()
    }

    /// Returns the keys of a track into a page, once the handshake is over.
    pub(crate) fn track_keys(&self) -> Option<TrackKeys> {
        self.track.get().cloned()
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

librecast::debug_by_name!(KeyTap);

/// Returns the keys for AEAD_AES_128_GCM, which the lane uses. DTLS 1.3 negotiates
/// AEAD_AES_256_GCM: half of each key serves. With DTLS 1.2 that profile gives no keys.
fn link_keys(keys: &SrtpKeys<'_>) -> Option<LinkKeys> {
    let length = match (keys.profile, keys.version) {
        (SrtpProfile::AEAD_AES_128_GCM, _) => KEY,
        (SrtpProfile::AEAD_AES_256_GCM, ProtocolVersion::DTLS1_3) => 2 * KEY,
        _ => return None,
    };
    let (masters, salts) = keys.material.split_at_checked(2 * length)?;
    let of = |side: usize| {
        Some(MasterKey {
            key: *masters.get(side * length..)?.first_chunk()?,
            salt: *salts.get(side * SALT..)?.first_chunk()?,
        })
    };
    let [client, server] = [of(0)?, of(1)?];
    Some(if keys.is_client {
        LinkKeys {
            sending: client,
            receiving: server,
        }
    } else {
        LinkKeys {
            sending: server,
            receiving: client,
        }
    })
}

/// Returns the keys of what this end sends, for any profile: a browser uses the negotiated one.
fn track_keys(keys: &SrtpKeys<'_>) -> Option<TrackKeys> {
    let (profile, key, salt) = match keys.profile {
        SrtpProfile::AEAD_AES_128_GCM => (ProtectionProfile::AeadAes128Gcm, KEY, SALT),
        SrtpProfile::AEAD_AES_256_GCM => (ProtectionProfile::AeadAes256Gcm, 2 * KEY, SALT),
        SrtpProfile::AES128_CM_SHA1_80 => (ProtectionProfile::Aes128CmHmacSha1_80, KEY, CM_SALT),
        _ => return None,
    };
    let side = usize::from(!keys.is_client);
    let (masters, salts) = keys.material.split_at_checked(2 * key)?;
    Some(TrackKeys {
        profile,
        key: masters.get(side * key..)?.get(..key)?.to_vec(),
        salt: salts.get(side * salt..)?.get(..salt)?.to_vec(),
    })
}

impl Observer for KeyTap {
    fn seed(&self) -> Option<u64> {
        self.seed
    }

    fn handle_keys(&self, keys: &SrtpKeys<'_>) {
        if let Some(track) = track_keys(keys) {
            let _ = self.track.set(track);
        }
        let _ = self.keys.set(link_keys(keys));
    }

    fn admits(&self, plain: &[u8]) -> bool {
        self.opened.store(true, Ordering::Relaxed);
        #[cfg(test)]
        if self.unwatched.load(Ordering::Relaxed) {
            return true;
        }
        let admitted = self.watch().admits(plain);
        if !admitted {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    fn seal(&self, plain: &mut [u8]) {
        #[cfg(test)]
        if let Some(forge) = self.forge.lock().unwrap().as_mut() {
            forge(plain);
        }
        self.watch().sent(plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::crypto::default_provider;

    fn keys(profile: SrtpProfile, version: ProtocolVersion, is_client: bool) -> Option<LinkKeys> {
        let tap = KeyTap::default();
        let length = profile.keying_material_len();
        let material: Vec<u8> = (0..length).map(|n| u8::try_from(n).unwrap()).collect();
        tap.handle_keys(&SrtpKeys {
            version,
            profile,
            material: &material,
            is_client,
        });
        tap.keys()
    }

    fn from(start: u8) -> [u8; 16] {
        std::array::from_fn(|n| start + u8::try_from(n).unwrap())
    }

    #[test]
    fn each_side_sends_by_its_own_half_of_the_keys() {
        let [short, long] = [SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AEAD_AES_256_GCM];
        for (profile, version, key, salt) in [
            (short, ProtocolVersion::DTLS1_2, 16, 32),
            (short, ProtocolVersion::DTLS1_3, 16, 32),
            (long, ProtocolVersion::DTLS1_3, 32, 64),
        ] {
            let client = keys(profile, version, true).unwrap();
            let server = keys(profile, version, false).unwrap();
            assert_eq!(client.sending, server.receiving);
            assert_eq!(client.receiving, server.sending);
            assert_eq!(
                (client.sending.key, server.sending.key),
                (from(0), from(key))
            );
            assert_eq!(client.sending.salt, from(salt)[..12]);
            assert_eq!(server.sending.salt, from(salt + 12)[..12]);
        }
    }

    #[test]
    fn a_track_is_sealed_by_any_profile() {
        for (profile, key, salt) in [
            (SrtpProfile::AEAD_AES_128_GCM, 16, 12),
            (SrtpProfile::AEAD_AES_256_GCM, 32, 12),
            (SrtpProfile::AES128_CM_SHA1_80, 16, 14),
        ] {
            let material: Vec<u8> = (0..100).collect();
            let material = &material[..profile.keying_material_len()];
            for (is_client, side) in [(true, 0), (false, 1)] {
                let keys = SrtpKeys {
                    version: ProtocolVersion::DTLS1_2,
                    profile,
                    material,
                    is_client,
                };
                let track = track_keys(&keys).unwrap();
                assert_eq!(track.key, material[side * key..][..key]);
                assert_eq!(track.salt, material[2 * key + side * salt..][..salt]);
            }
        }
    }

    #[test]
    fn other_profiles_give_no_keys() {
        let sha1 = SrtpProfile::AES128_CM_SHA1_80;
        assert!(keys(sha1, ProtocolVersion::DTLS1_3, true).is_none());
        // nor does the long one with DTLS 1.2
        let long = SrtpProfile::AEAD_AES_256_GCM;
        assert!(keys(long, ProtocolVersion::DTLS1_2, true).is_none());
    }

    #[test]
    fn only_a_record_after_the_handshake_counts_as_opened() {
        let tap = KeyTap::default();
        tap.unwatch();
        assert!(tap.admits(&[1; 4]));
        assert!(!tap.has_opened(), "the handshake is not over");
        tap.forget_opened();
        assert!(tap.keys.set(None).is_ok());
        assert!(!tap.has_opened());
        assert!(tap.admits(&[1; 4]));
        assert!(tap.has_opened());
        tap.forget_opened();
        assert!(!tap.has_opened());
    }

    /// RFC 3711, appendix B.3, with the last two bytes of its salt zero as in GCM.
    #[test]
    fn session_keys_are_those_of_the_rfc() {
        let provider = default_provider().unwrap();
        let mut block = [0; 16];
        block[..14].copy_from_slice(&[
            0x0e, 0xc6, 0x75, 0xad, 0x49, 0x8a, 0xfe, 0xeb, 0xb6, 0x96, 0x0b, 0x3a, 0xab, 0xe6,
        ]);
        let key = [
            0xe1, 0xf9, 0x7a, 0x0d, 0x3e, 0x01, 0x8b, 0xe0, 0xd6, 0x4f, 0xa3, 0x2c, 0x06, 0xde,
            0x41, 0x39,
        ];
        let crypto = provider.crypto();
        crypto
            .block_encrypt(BlockCipherAlgorithm::Aes128, &key, &mut block)
            .unwrap();
        assert_eq!(block[..4], [0xc6, 0x1e, 0x7a, 0x93]);
        let master = MasterKey { key, salt: [7; 12] };
        let keys = master.session(crypto).unwrap();
        let all = [keys.rtp_key, keys.rtcp_key];
        assert_ne!(all[0], all[1]);
        assert_ne!(keys.rtp_salt, keys.rtcp_salt);
    }
}
