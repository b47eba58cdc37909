//! Cipher suite 1 of RFC 9420 (X25519, AES-128-GCM, SHA-256, Ed25519), by AWS-LC and ed25519-dalek.
//!
//! mls-rs-crypto-awslc is not used: it pins one version of aws-lc-rs, and so would hold back TLS
//! and SRTP. The RFCs' vectors and openmls as a member (`tests/`) test this one.

use aws_lc_rs::{aead, agreement, digest, hkdf, hmac};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use mls_rs_core::crypto::{
    CipherSuite, CipherSuiteProvider, CryptoProvider, HpkeCiphertext, HpkePsk, HpkePublicKey,
    HpkeSecretKey, SignaturePublicKey, SignatureSecretKey,
};
use mls_rs_core::error::IntoAnyError;
use mls_rs_crypto_hpke::context::{ContextR, ContextS};
use mls_rs_crypto_hpke::dhkem::DhKem;
use mls_rs_crypto_hpke::hpke::{Hpke, HpkeError};
use mls_rs_crypto_traits::{
    AeadId, AeadType, DhType, KdfId, KdfType, KemId, KemType, SamplingMethod,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::random::Random;

/// The cipher suite of our groups (RFC 9420 §17.1: MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519).
pub(crate) const SUITE: CipherSuite = CipherSuite::CURVE25519_AES128;
/// Length of an ed25519 seed, an X25519 key and a SHA-256 digest in bytes.
const LENGTH: usize = 32;
/// Length of an AES-128 key in bytes.
pub(crate) const AEAD_KEY: usize = 16;
/// Length of a nonce of AES-GCM in bytes.
pub(crate) const AEAD_NONCE: usize = 12;

/// The nonce for keys that seal once.
pub(crate) const NO_NONCE: [u8; AEAD_NONCE] = [0; AEAD_NONCE];

/// Why a primitive failed.
#[derive(Debug, Error)]
pub enum CryptoError {
    /// An unfit key, nonce or length, or a shared secret of zeros.
    #[error("unusable key or length")]
    Input,
    /// A ciphertext was changed, or is for another key.
    #[error("does not open")]
    Open,
    /// A signature does not verify.
    #[error("signature does not verify")]
    Signature,
    /// HPKE (RFC 9180).
    #[error(transparent)]
    Hpke(#[from] HpkeError),
}

impl IntoAnyError for CryptoError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(self.into())
    }
}

/// The provider of a group; its randomness is the group's.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    random: Random,
}

impl Provider {
    pub fn new(random: Random) -> Self {
        Self { random }
    }

    fn hpke(&self) -> Hpke<DhKem<X25519, HkdfSha256>, HkdfSha256, Aes128Gcm> {
        Hpke::new(self.kem(), HkdfSha256, Some(Aes128Gcm))
    }

    fn kem(&self) -> DhKem<X25519, HkdfSha256> {
        let id = KemId::DhKemX25519Sha256;
        let dh = X25519(self.random.clone());
        DhKem::new(dh, HkdfSha256, id as u16, id.n_secret())
    }
}

/// Seals `data` with AES-128-GCM; the tag is at the end.
pub(crate) fn seal(
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let mut sealed = data.to_vec();
    aead_key(key)?
        .seal_in_place_append_tag(nonce_of(nonce)?, aead::Aad::from(aad), &mut sealed)
        .map_err(|_| CryptoError::Input)?;
    Ok(sealed)
}

/// Opens the output of [`seal`].
pub(crate) fn open(
    key: &[u8],
    nonce: &[u8],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let mut data = Zeroizing::new(sealed.to_vec());
    let length = aead_key(key)?
        .open_in_place(nonce_of(nonce)?, aead::Aad::from(aad), &mut data)
        .map_err(|_| CryptoError::Open)?
        .len();
    data.truncate(length);
    Ok(data)
}

fn aead_key(key: &[u8]) -> Result<aead::LessSafeKey, CryptoError> {
    let key = aead::UnboundKey::new(&aead::AES_128_GCM, key).map_err(|_| CryptoError::Input)?;
    Ok(aead::LessSafeKey::new(key))
}

fn nonce_of(nonce: &[u8]) -> Result<aead::Nonce, CryptoError> {
    aead::Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::Input)
}

/// The seed in a signature key: 32 bytes, or 64 with the public key, as other providers write it.
fn signing_key(secret: &SignatureSecretKey) -> Result<SigningKey, CryptoError> {
    let (seed, rest) = secret
        .as_bytes()
        .split_first_chunk::<LENGTH>()
        .ok_or(CryptoError::Input)?;
    let key = SigningKey::from_bytes(seed);
    let matches = rest.is_empty() || rest == key.verifying_key().as_bytes();
    matches.then_some(key).ok_or(CryptoError::Input)
}

#[derive(Clone, Debug)]
struct X25519(Random);

impl X25519 {
    fn private(secret: &HpkeSecretKey) -> Result<agreement::PrivateKey, CryptoError> {
        agreement::PrivateKey::from_private_key(&agreement::X25519, secret)
            .map_err(|_| CryptoError::Input)
    }
}

impl DhType for X25519 {
    type Error = CryptoError;

    fn dh(&self, secret: &HpkeSecretKey, public: &HpkePublicKey) -> Result<Vec<u8>, CryptoError> {
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, public.as_ref());
        // refuses a result of zeros, as RFC 9180 §7.1.4 demands
        agreement::agree(
            &Self::private(secret)?,
            peer,
            CryptoError::Input,
            |shared| Ok(shared.to_vec()),
        )
    }

    fn generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), CryptoError> {
        let secret = HpkeSecretKey::from(self.0.clone().array::<LENGTH>().to_vec());
        let public = self.to_public(&secret)?;
        Ok((secret, public))
    }

    fn to_public(&self, secret: &HpkeSecretKey) -> Result<HpkePublicKey, CryptoError> {
        let public = Self::private(secret)?
            .compute_public_key()
            .map_err(|_| CryptoError::Input)?;
        Ok(public.as_ref().to_vec().into())
    }

    fn bitmask_for_rejection_sampling(&self) -> SamplingMethod {
        SamplingMethod::HpkeWithoutBitmask
    }

    fn secret_key_size(&self) -> usize {
        LENGTH
    }

    fn public_key_size(&self) -> usize {
        LENGTH
    }

    fn public_key_validate(&self, key: &HpkePublicKey) -> Result<(), CryptoError> {
        (key.len() == LENGTH)
            .then_some(())
            .ok_or(CryptoError::Input)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct HkdfSha256;

/// Bytes of an output of HKDF.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl KdfType for HkdfSha256 {
    type Error = CryptoError;

    fn kdf_id(&self) -> u16 {
        KdfId::HkdfSha256 as u16
    }

    fn expand(&self, prk: &[u8], info: &[u8], length: usize) -> Result<Vec<u8>, CryptoError> {
        let mut output = vec![0; length];
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, prk)
            .expand(&[info], Length(length))
            .and_then(|okm| okm.fill(&mut output))
            .map_err(|_| CryptoError::Input)?;
        Ok(output)
    }

    fn extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Ok(hmac_sha256(salt, ikm))
    }

    fn extract_size(&self) -> usize {
        LENGTH
    }
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, data).as_ref().to_vec()
}

#[derive(Clone, Debug)]
pub(crate) struct Aes128Gcm;

impl AeadType for Aes128Gcm {
    type Error = CryptoError;

    fn aead_id(&self) -> u16 {
        AeadId::Aes128Gcm as u16
    }

    fn seal(
        &self,
        key: &[u8],
        data: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        seal(key, nonce, aad.unwrap_or_default(), data)
    }

    fn open(
        &self,
        key: &[u8],
        sealed: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        open(key, nonce, aad.unwrap_or_default(), sealed).map(|data| data.to_vec())
    }

    fn key_size(&self) -> usize {
        AEAD_KEY
    }

    fn nonce_size(&self) -> usize {
        AEAD_NONCE
    }
}

impl CryptoProvider for Provider {
    type CipherSuiteProvider = Self;

    fn supported_cipher_suites(&self) -> Vec<CipherSuite> {
        vec![SUITE]
    }

    fn cipher_suite_provider(&self, suite: CipherSuite) -> Option<Self> {
        (suite == SUITE).then(|| self.clone())
    }
}

impl CipherSuiteProvider for Provider {
    type Error = CryptoError;
    type HpkeContextS = ContextS<HkdfSha256, Aes128Gcm>;
    type HpkeContextR = ContextR<HkdfSha256, Aes128Gcm>;

    fn cipher_suite(&self) -> CipherSuite {
        SUITE
    }

    fn hash(&self, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Ok(digest::digest(&digest::SHA256, data).as_ref().to_vec())
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Ok(hmac_sha256(key, data))
    }

    fn aead_seal(
        &self,
        key: &[u8],
        data: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        seal(key, nonce, aad.unwrap_or_default(), data)
    }

    fn aead_open(
        &self,
        key: &[u8],
        sealed: &[u8],
        aad: Option<&[u8]>,
        nonce: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        open(key, nonce, aad.unwrap_or_default(), sealed)
    }

    fn aead_key_size(&self) -> usize {
        AEAD_KEY
    }

    fn aead_nonce_size(&self) -> usize {
        AEAD_NONCE
    }

    fn kdf_extract(&self, salt: &[u8], ikm: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        Ok(hmac_sha256(salt, ikm).into())
    }

    fn kdf_expand(
        &self,
        prk: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        HkdfSha256.expand(prk, info, length).map(Zeroizing::new)
    }

    fn kdf_extract_size(&self) -> usize {
        LENGTH
    }

    fn hpke_seal(
        &self,
        to: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        data: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        Ok(self.hpke().seal(to, info, None, aad, data)?)
    }

    fn hpke_seal_psk(
        &self,
        to: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        data: &[u8],
        psk: HpkePsk<'_>,
    ) -> Result<HpkeCiphertext, CryptoError> {
        Ok(self.hpke().seal(to, info, Some(psk), aad, data)?)
    }

    fn hpke_open(
        &self,
        sealed: &HpkeCiphertext,
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        Ok(self.hpke().open(sealed, secret, public, info, None, aad)?)
    }

    fn hpke_open_psk(
        &self,
        sealed: &HpkeCiphertext,
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
        info: &[u8],
        aad: Option<&[u8]>,
        psk: HpkePsk<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        Ok(self
            .hpke()
            .open(sealed, secret, public, info, Some(psk), aad)?)
    }

    fn hpke_setup_s(
        &self,
        to: &HpkePublicKey,
        info: &[u8],
    ) -> Result<(Vec<u8>, Self::HpkeContextS), CryptoError> {
        Ok(self.hpke().setup_sender(to, info, None)?)
    }

    fn hpke_setup_r(
        &self,
        kem_output: &[u8],
        secret: &HpkeSecretKey,
        public: &HpkePublicKey,
        info: &[u8],
    ) -> Result<Self::HpkeContextR, CryptoError> {
        Ok(self
            .hpke()
            .setup_receiver(kem_output, secret, public, info, None)?)
    }

    /// DeriveKeyPair of RFC 9180 §7.1.3, which extracts before it expands.
    fn kem_derive(&self, ikm: &[u8]) -> Result<(HpkeSecretKey, HpkePublicKey), CryptoError> {
        Ok(self.hpke().derive(ikm)?)
    }

    fn kem_generate(&self) -> Result<(HpkeSecretKey, HpkePublicKey), CryptoError> {
        Ok(self.hpke().generate()?)
    }

    fn kem_public_key_validate(&self, key: &HpkePublicKey) -> Result<(), CryptoError> {
        self.kem()
            .public_key_validate(key)
            .map_err(|_| CryptoError::Input)
    }

    fn random_bytes(&self, out: &mut [u8]) -> Result<(), CryptoError> {
        use crypto_box::aead::rand_core::RngCore as _;
        self.random.clone().fill_bytes(out);
        Ok(())
    }

    fn signature_key_generate(
        &self,
    ) -> Result<(SignatureSecretKey, SignaturePublicKey), CryptoError> {
        let seed = Zeroizing::new(self.random.clone().array::<LENGTH>());
        let key = SigningKey::from_bytes(&seed);
        let public = key.verifying_key().to_bytes().to_vec();
        Ok((SignatureSecretKey::new_slice(&seed[..]), public.into()))
    }

    fn signature_key_derive_public(
        &self,
        secret: &SignatureSecretKey,
    ) -> Result<SignaturePublicKey, CryptoError> {
        let public = signing_key(secret)?.verifying_key().to_bytes();
        Ok(public.to_vec().into())
    }

    fn sign(&self, secret: &SignatureSecretKey, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        Ok(signing_key(secret)?.sign(data).to_vec())
    }

    fn verify(
        &self,
        public: &SignaturePublicKey,
        signature: &[u8],
        data: &[u8],
    ) -> Result<(), CryptoError> {
        let public = <[u8; LENGTH]>::try_from(public.as_ref()).map_err(|_| CryptoError::Input)?;
        let public = VerifyingKey::from_bytes(&public).map_err(|_| CryptoError::Input)?;
        let signature = Signature::from_slice(signature).map_err(|_| CryptoError::Signature)?;
        // strict: no malleable signatures, no keys of small order
        public
            .verify_strict(data, &signature)
            .map_err(|_| CryptoError::Signature)
    }
}
