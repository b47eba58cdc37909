//! Handshake settings of `rtc`.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rtc_crypto::RTCCryptoProvider;
use rtc_shared::error::{Error, Result};
use rustls_pki_types::CertificateDer;

use crate::cipher_suite::CipherSuiteId;
use crate::crypto::Certificate;
use crate::extension::extension_use_srtp::SrtpProtectionProfile;

/// Checks the certificate of the peer, DER. The second list is empty.
pub type VerifyPeerCertificateFn =
    Arc<dyn Fn(&[Vec<u8>], &[CertificateDer<'static>]) -> Result<()> + Send + Sync>;

/// Bound of a handshake datagram, in bytes: fits any path. Chosen: that of str0m.
const MTU: usize = 1_150;
/// Interval from a flight to its first repetition, plus or minus a quarter; doubled each time.
/// Chosen: one second (RFC 9147 5.8.2) is too long for a link.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(200);
/// Bound of repetitions; the caller has its own timeout.
const FLIGHT_RETRIES: usize = 8;
/// Bound of queued received records and datagrams. Chosen: a fragmented flight and its successors.
const RECEIVE_QUEUE: usize = 64;
/// Bound of queued records to send.
const SEND_QUEUE: usize = 64;

/// A server's request for a certificate: always required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthType {
    /// Any; [`ConfigBuilder::with_verify_peer_certificate`] checks it.
    RequireAnyClientCert,
}

/// Use of the extended master secret (RFC 7627): always required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendedMasterSecretType {
    /// A peer without it is refused.
    Require,
}

/// State shared by all handshakes of a peer connection.
pub struct HandshakeConfig {
    pub(crate) dtls: Arc<dimpl::Config>,
    pub(crate) certificate: Certificate,
    pub(crate) verify: Option<VerifyPeerCertificateFn>,
}

/// Builder of a [`HandshakeConfig`]. Methods without effect exist because `rtc` calls them.
#[derive(Default)]
pub struct ConfigBuilder {
    certificate: Option<Certificate>,
    verify: Option<VerifyPeerCertificateFn>,
}

impl ConfigBuilder {
    /// No effect: `dimpl` uses aws-lc-rs, like the rest of this workspace.
    #[must_use]
    pub fn with_crypto_provider(self, _: Arc<dyn RTCCryptoProvider>) -> Self {
        self
    }

    /// Sets the certificate, the first of the list.
    #[must_use]
    pub fn with_certificates(mut self, certificates: Vec<Certificate>) -> Self {
        self.certificate = certificates.into_iter().next();
        self
    }

    /// No effect: `dimpl` offers all its profiles.
    #[must_use]
    pub fn with_srtp_protection_profiles(self, _: Vec<SrtpProtectionProfile>) -> Self {
        self
    }

    /// No effect: `dimpl` has its own suites.
    #[must_use]
    pub fn with_cipher_suites(self, _: Vec<CipherSuiteId>) -> Self {
        self
    }

    /// No effect: a certificate is always required.
    #[must_use]
    pub fn with_client_auth(self, _: ClientAuthType) -> Self {
        self
    }

    /// No effect: chains are not verified, only [`Self::with_verify_peer_certificate`] counts.
    #[must_use]
    pub fn with_insecure_skip_verify(self, _: bool) -> Self {
        self
    }

    /// No effect: weak signatures are refused.
    #[must_use]
    pub fn with_insecure_verification(self, _: bool) -> Self {
        self
    }

    /// Sets the check of the peer's certificate, made before the handshake ends.
    #[must_use]
    pub fn with_verify_peer_certificate(mut self, verify: Option<VerifyPeerCertificateFn>) -> Self {
        self.verify = verify;
        self
    }

    /// No effect: it is always required.
    #[must_use]
    pub fn with_extended_master_secret(self, _: ExtendedMasterSecretType) -> Self {
        self
    }

    /// No effect: `dimpl` has its own window.
    #[must_use]
    pub fn with_replay_protection_window(self, _: usize) -> Self {
        self
    }

    /// Returns the configuration.
    ///
    /// # Errors
    ///
    /// There is no certificate, or no key of it.
    pub fn build(self, _is_client: bool, _: Option<()>) -> Result<HandshakeConfig> {
        let certificate = self.certificate.ok_or(Error::ErrNonCertificate)?;
        if certificate.key.is_none() || certificate.certificate.is_empty() {
            return Err(Error::ErrNonCertificate);
        }
        let observer = certificate.observer.as_ref();
        let dtls = match observer.and_then(|observer| observer.seed()) {
            seed @ Some(_) => Arc::new(settings(seed)?),
            None => common_settings()?,
        };
        Ok(HandshakeConfig {
            dtls,
            certificate,
            verify: self.verify,
        })
    }
}

/// Returns the settings that all handshakes share: `dimpl` tests every algorithm of its provider
/// whenever it makes some, which costs as much as several handshakes.
fn common_settings() -> Result<Arc<dimpl::Config>> {
    static COMMON: OnceLock<Arc<dimpl::Config>> = OnceLock::new();
    if let Some(common) = COMMON.get() {
        return Ok(common.clone());
    }
    let made = Arc::new(settings(None)?);
    Ok(COMMON.get_or_init(|| made).clone())
}

/// Makes settings; a seed makes the random numbers of a handshake predictable.
fn settings(seed: Option<u64>) -> Result<dimpl::Config> {
    let mut dtls = dimpl::Config::builder()
        .mtu(MTU)
        .max_queue_rx(RECEIVE_QUEUE)
        .max_queue_tx(SEND_QUEUE)
        .require_client_certificate(true)
        // ICE's checks have verified the peer's address
        .use_server_cookie(false)
        .flight_start_rto(FLIGHT_INTERVAL)
        .flight_retries(FLIGHT_RETRIES);
    if let Some(seed) = seed {
        dtls = dtls.dangerously_set_rng_seed(seed);
    }
    dtls.build()
        .map_err(|error| Error::Other(error.to_string()))
}

impl fmt::Debug for HandshakeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeConfig").finish_non_exhaustive()
    }
}

impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder").finish_non_exhaustive()
    }
}
