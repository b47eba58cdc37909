//! The keys of a link's media: from its own DTLS (RFC 5764) to those of each packet (RFC 3711, 4.3).
//!
//! `rtc` exports the SRTP master keys when a handshake is over, but hands them to nobody. It derives
//! session keys from them through the crypto provider of the connection, so a provider that listens
//! learns them: [`KeyTap`]. AES blocks are encrypted one by one for nothing else. It also sees which records of
//! DTLS were genuine (who is to be blamed for what the stack does with one), and keeps SCTP from the stack that
//! it does not deal well with (sctp.rs).

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtc::crypto::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CbcAlgorithm, CbcCipher,
    CryptoAlgorithm, CryptoError, HashAlgorithm, HmacAlgorithm, KeyExchangeAlgorithm, Mac,
    PublicKey, RTCCrypto, RTCCryptoProvider, RTCRandom, SignatureScheme, SigningKey, StreamCipher,
    StreamCipherAlgorithm,
};
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
/// The SSRC of a direction; a label of our own, beyond those of RFC 3711.
const SSRC: u8 = 0x80;

/// Where the additional data of a DTLS record has its type, and that of application data (RFC 5246, 6.2.3.3).
const RECORD_TYPE: usize = 8;
/// Type of a record of application data (RFC 5246 6.2.1).
const APPLICATION_DATA: u8 = 23;

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

/// What packets of one direction are sealed with.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct SessionKeys {
    pub(crate) rtp_key: [u8; 16],
    pub(crate) rtp_salt: [u8; 12],
    pub(crate) rtcp_key: [u8; 16],
    pub(crate) rtcp_salt: [u8; 12],
    /// Both sides know it: an answer finds its link even from an address that nobody knows.
    pub(crate) ssrc: u32,
}

impl MasterKey {
    /// The keys derived from it; the key derivation rate is 0.
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

/// The first 16 bytes of AES-CM keystream under `label` (RFC 3711, section 4.3.3).
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

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// A crypto provider for one connection that keeps the SRTP master keys it sees.
pub(crate) struct KeyTap {
    inner: Arc<dyn RTCCryptoProvider>,
    crypto: TappedCrypto,
}

struct TappedCrypto {
    inner: Arc<dyn RTCCryptoProvider>,
    /// In the order of their first use: ours, then theirs.
    seen: Mutex<Vec<MasterKey>>,
    /// Keys were derived: the handshake is over, and the certificate of the far side the one that was told.
    finished: AtomicBool,
    records: Arc<Records>,
}

/// What is known of the records of a connection.
#[derive(Default)]
struct Records {
    /// One with application data has been authenticated since [`KeyTap::forget_opened`].
    opened: AtomicBool,
    watch: Mutex<Watch>,
    /// Packets that the stack did not get to see.
    left_out: AtomicU32,
    /// Tests want to see what the stack makes of them.
    #[cfg(test)]
    unwatched: AtomicBool,
    /// What tests put in the place of what is sealed.
    #[cfg(test)]
    forge: Mutex<Option<Forge>>,
}

/// Changes the plain text of a record that is about to be sealed.
#[cfg(test)]
pub(crate) type Forge = Box<dyn FnMut(&mut [u8]) + Send>;

/// A cipher of which it is known what it opens.
struct TappedAead {
    inner: Box<dyn AeadCipher>,
    records: Arc<Records>,
}

impl KeyTap {
    pub(crate) fn new(inner: Arc<dyn RTCCryptoProvider>) -> Self {
        let crypto = TappedCrypto {
            inner: inner.clone(),
            seen: Mutex::new(Vec::new()),
            finished: AtomicBool::new(false),
            records: Arc::default(),
        };
        Self { inner, crypto }
    }

    /// Whether a record with application data was opened since the call below, in a session whose
    /// handshake is over: its sender has the certificate that was told by signalling.
    pub(crate) fn has_opened(&self) -> bool {
        let opened = self.crypto.records.opened.load(Ordering::Relaxed);
        opened && self.crypto.finished.load(Ordering::Relaxed)
    }

    /// What was opened so far does not count.
    pub(crate) fn forget_opened(&self) {
        self.crypto.records.opened.store(false, Ordering::Relaxed);
    }

    /// How many packets of SCTP the stack did not get to see since this was asked before.
    pub(crate) fn take_left_out(&self) -> u32 {
        self.crypto.records.left_out.swap(0, Ordering::Relaxed)
    }

    /// The stack gets to see everything from now on.
    #[cfg(test)]
    pub(crate) fn unwatch(&self) {
        let unwatched = &self.crypto.records.unwatched;
        unwatched.store(true, Ordering::Relaxed);
    }

    /// What is sealed from now on is what this makes of it.
    #[cfg(test)]
    pub(crate) fn forge(&self, forge: Forge) {
        let mut place = self.crypto.records.forge.lock().unwrap();
        *place = Some(forge);
    }

    /// The keys, once the handshake is over.
    pub(crate) fn keys(&self) -> Option<LinkKeys> {
        let seen = self
            .crypto
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match seen.as_slice() {
            [sending, receiving] => Some(LinkKeys {
                sending: sending.clone(),
                receiving: receiving.clone(),
            }),
            _ => None,
        }
    }
}

impl fmt::Debug for KeyTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyTap")
    }
}

impl RTCCryptoProvider for KeyTap {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        &self.crypto
    }

    fn random(&self) -> &dyn RTCRandom {
        self.inner.random()
    }
}

impl TappedCrypto {
    /// The first block under a master key is that of label 0: the salt as it is, and zeros, of which
    /// other profiles than AEAD_AES_128_GCM (a salt of 14 bytes, a key of 32) have fewer.
    fn see(&self, key: &[u8], block: &[u8]) {
        self.finished.store(true, Ordering::Relaxed);
        let (Ok(key), Ok(block)) = (key.try_into(), <[u8; 16]>::try_from(block)) else {
            return;
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.iter().all(|master| master.key != key) && block[12..] == [0; 4] {
            let salt = first(&block);
            seen.push(MasterKey { key, salt });
        }
    }
}

impl RTCCrypto for TappedCrypto {
    fn supports(&self, algorithm: CryptoAlgorithm) -> bool {
        self.inner.crypto().supports(algorithm)
    }

    fn hash(&self, algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.inner.crypto().hash(algorithm, data)
    }

    fn block_encrypt(
        &self,
        algorithm: BlockCipherAlgorithm,
        key: &[u8],
        block: &mut [u8],
    ) -> Result<(), CryptoError> {
        self.see(key, block);
        self.inner.crypto().block_encrypt(algorithm, key, block)
    }

    fn new_hmac(&self, algorithm: HmacAlgorithm, key: &[u8]) -> Result<Box<dyn Mac>, CryptoError> {
        self.inner.crypto().new_hmac(algorithm, key)
    }

    fn new_stream_cipher(
        &self,
        algorithm: StreamCipherAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn StreamCipher>, CryptoError> {
        self.inner.crypto().new_stream_cipher(algorithm, key)
    }

    fn new_aead(
        &self,
        algorithm: AeadAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn AeadCipher>, CryptoError> {
        let inner = self.inner.crypto().new_aead(algorithm, key)?;
        let records = self.records.clone();
        Ok(Box::new(TappedAead { inner, records }))
    }

    fn new_cbc(
        &self,
        algorithm: CbcAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn CbcCipher>, CryptoError> {
        self.inner.crypto().new_cbc(algorithm, key)
    }

    fn start_key_exchange(
        &self,
        algorithm: KeyExchangeAlgorithm,
    ) -> Result<Box<dyn ActiveKeyExchange>, CryptoError> {
        self.inner.crypto().start_key_exchange(algorithm)
    }

    fn generate_signing_key(
        &self,
        scheme: SignatureScheme,
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.inner.crypto().generate_signing_key(scheme)
    }

    fn import_signing_key(
        &self,
        scheme: SignatureScheme,
        pkcs8_der: &[u8],
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.inner.crypto().import_signing_key(scheme, pkcs8_der)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: PublicKey<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.inner
            .crypto()
            .verify_signature(scheme, public_key, message, signature)
    }
}

impl Records {
    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the stack may see a packet of the far side.
    fn admits(&self, packet: &[u8]) -> bool {
        #[cfg(test)]
        if self.unwatched.load(Ordering::Relaxed) {
            return true;
        }
        let admitted = self.watch().admits(packet);
        if !admitted {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }
}

impl AeadCipher for TappedAead {
    fn tag_len(&self) -> usize {
        self.inner.tag_len()
    }

    fn seal_in_place(
        &mut self,
        nonce: &[u8],
        aad: &[u8],
        text: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), CryptoError> {
        #[cfg(test)]
        if let Some(forge) = self.records.forge.lock().unwrap().as_mut()
            && aad.get(RECORD_TYPE) == Some(&APPLICATION_DATA)
        {
            forge(text);
        }
        if aad.get(RECORD_TYPE) == Some(&APPLICATION_DATA) {
            self.records.watch().sent(text);
        }
        self.inner.seal_in_place(nonce, aad, text, tag)
    }

    fn open_in_place(
        &mut self,
        nonce: &[u8],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        self.inner.open_in_place(nonce, aad, text, tag)?;
        if aad.get(RECORD_TYPE) == Some(&APPLICATION_DATA) {
            self.records.opened.store(true, Ordering::Relaxed);
            if !self.records.admits(text) {
                // then the record is dropped as a forged one is
                return Err(CryptoError::AuthenticationFailed);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc::crypto::default_provider;
    use rtc::srtp::context::Context;
    use rtc::srtp::protection_profile::ProtectionProfile;

    #[test]
    fn keys_are_learned_from_the_contexts_that_the_stack_makes() {
        let tap = KeyTap::new(default_provider().unwrap());
        assert!(tap.keys().is_none());
        for side in [1, 2] {
            let (key, salt) = ([side; 16], [side + 10; 12]);
            let profile = ProtectionProfile::AeadAes128Gcm;
            Context::new(&key, &salt, profile, None, None, tap.crypto()).unwrap();
        }
        let keys = tap.keys().unwrap();
        assert_eq!((keys.sending.key, keys.sending.salt), ([1; 16], [11; 12]));
        assert_eq!(
            (keys.receiving.key, keys.receiving.salt),
            ([2; 16], [12; 12])
        );
    }

    #[test]
    fn only_a_genuine_record_with_application_data_after_the_handshake_counts_as_opened() {
        let tap = KeyTap::new(default_provider().unwrap());
        tap.unwatch();
        let key = [7; 16];
        let gcm = || tap.crypto().new_aead(AeadAlgorithm::Aes128Gcm, &key);
        let (mut ours, mut theirs) = (gcm().unwrap(), gcm().unwrap());
        let mut open = |kind: u8, spoil: bool| {
            let aad = [0, 1, 0, 0, 0, 0, 0, 1, kind, 254, 253, 0, 4];
            let (mut text, mut tag) = ([1; 4], [0; 16]);
            theirs
                .seal_in_place(&[0; 12], &aad, &mut text, &mut tag)
                .unwrap();
            text[0] ^= u8::from(spoil);
            let opened = ours.open_in_place(&[0; 12], &aad, &mut text, &tag);
            assert_eq!(opened.is_err(), spoil);
            tap.has_opened()
        };
        assert!(!open(APPLICATION_DATA, false), "the handshake is not over");
        tap.forget_opened();
        let profile = ProtectionProfile::AeadAes128Gcm;
        Context::new(&key, &[8; 12], profile, None, None, tap.crypto()).unwrap();
        assert!(!open(22, false), "a record of the handshake");
        assert!(!open(APPLICATION_DATA, true), "a forged one");
        assert!(open(APPLICATION_DATA, false));
        tap.forget_opened();
        assert!(!tap.has_opened());
    }

    #[test]
    fn other_profiles_give_no_keys() {
        let tap = KeyTap::new(default_provider().unwrap());
        let profile = ProtectionProfile::Aes128CmHmacSha1_80;
        for side in [1, 2] {
            let (key, salt) = ([side; 16], [side + 10; 14]);
            Context::new(&key, &salt, profile, None, None, tap.crypto()).unwrap();
        }
        assert!(tap.keys().is_none());
    }

    /// RFC 3711, appendix B.3, with the last two bytes of its salt zero as they are for GCM.
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
