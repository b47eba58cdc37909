//! What `rtc` sets for a handshake.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rtc_crypto::RTCCryptoProvider;
use rtc_shared::error::{Error, Result};
use rustls_pki_types::CertificateDer;

use crate::cipher_suite::CipherSuiteId;
use crate::crypto::Certificate;
use crate::extension::extension_use_srtp::SrtpProtectionProfile;

/// Checks the certificate of the far side, DER. The second list is empty.
pub type VerifyPeerCertificateFn =
    Arc<dyn Fn(&[Vec<u8>], &[CertificateDer<'static>]) -> Result<()> + Send + Sync>;

/// Longest datagram of a handshake. Chosen: that of str0m, for which `dimpl` is made; with UDP and IPv6 it fits any path.
const MTU: usize = 1_150;
/// From a flight to its first repetition, give or take a quarter; then twice as long. Chosen: RFC 9147 5.8.2 has a second,
/// which a link that is awaited cannot wait.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(200);
/// Repetitions: who calls ends what takes too long.
const FLIGHT_RETRIES: usize = 8;
/// Records of a datagram, and datagrams out of order, that wait. Chosen: a flight in pieces, and what follows it.
const RECEIVE_QUEUE: usize = 64;
/// Records that wait to be taken.
const SEND_QUEUE: usize = 64;

/// What a server asks of a client: always a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuthType {
    /// Any, which [`ConfigBuilder::with_verify_peer_certificate`] looks at.
    RequireAnyClientCert,
}

/// Whether the extended master secret (RFC 7627) is asked for: always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendedMasterSecretType {
    /// Who has none is refused.
    Require,
}

/// What all handshakes of one peer connection have in common.
pub struct HandshakeConfig {
    pub(crate) dtls: Arc<dimpl::Config>,
    pub(crate) certificate: Certificate,
    pub(crate) verify: Option<VerifyPeerCertificateFn>,
}

/// Makes a [`HandshakeConfig`]. What has no effect is there as `rtc` calls it.
#[derive(Default)]
pub struct ConfigBuilder {
    certificate: Option<Certificate>,
    verify: Option<VerifyPeerCertificateFn>,
}

impl ConfigBuilder {
    /// No effect: `dimpl` has aws-lc-rs, as all that this workspace seals by.
    #[must_use]
    pub fn with_crypto_provider(self, _: Arc<dyn RTCCryptoProvider>) -> Self {
        self
    }

    /// The first is shown.
    #[must_use]
    pub fn with_certificates(mut self, certificates: Vec<Certificate>) -> Self {
        self.certificate = certificates.into_iter().next();
        self
    }

    /// No effect: all that `dimpl` has.
    #[must_use]
    pub fn with_srtp_protection_profiles(self, _: Vec<SrtpProtectionProfile>) -> Self {
        self
    }

    /// No effect: there is none to choose.
    #[must_use]
    pub fn with_cipher_suites(self, _: Vec<CipherSuiteId>) -> Self {
        self
    }

    /// No effect: a certificate is always required.
    #[must_use]
    pub fn with_client_auth(self, _: ClientAuthType) -> Self {
        self
    }

    /// No effect: nobody's chain is looked at, only [`Self::with_verify_peer_certificate`] counts.
    #[must_use]
    pub fn with_insecure_skip_verify(self, _: bool) -> Self {
        self
    }

    /// No effect: no weak signature is taken.
    #[must_use]
    pub fn with_insecure_verification(self, _: bool) -> Self {
        self
    }

    /// What looks at the certificate of the far side, before the handshake is over.
    #[must_use]
    pub fn with_verify_peer_certificate(mut self, verify: Option<VerifyPeerCertificateFn>) -> Self {
        self.verify = verify;
        self
    }

    /// No effect: always.
    #[must_use]
    pub fn with_extended_master_secret(self, _: ExtendedMasterSecretType) -> Self {
        self
    }

    /// No effect: `dimpl` has a window of its own.
    #[must_use]
    pub fn with_replay_protection_window(self, _: usize) -> Self {
        self
    }

    /// All that there is to know.
    ///
    /// # Errors
    ///
    /// Without a certificate, or its key.
    pub fn build(self, _is_client: bool, _: Option<()>) -> Result<HandshakeConfig> {
        let certificate = self.certificate.ok_or(Error::ErrNonCertificate)?;
        if certificate.key.is_none() || certificate.certificate.is_empty() {
            return Err(Error::ErrNonCertificate);
        }
        let mut dtls = dimpl::Config::builder()
            .mtu(MTU)
            .max_queue_rx(RECEIVE_QUEUE)
            .max_queue_tx(SEND_QUEUE)
            .require_client_certificate(true)
            // ICE has shown by its checks that the far side is where it says
            .use_server_cookie(false)
            .flight_start_rto(FLIGHT_INTERVAL)
            .flight_retries(FLIGHT_RETRIES);
        let observer = certificate.observer.as_ref();
        if let Some(seed) = observer.and_then(|observer| observer.seed()) {
            dtls = dtls.dangerously_set_rng_seed(seed);
        }
        let dtls = dtls
            .build()
            .map_err(|error| Error::Other(error.to_string()))?;
        Ok(HandshakeConfig {
            dtls: Arc::new(dtls),
            certificate,
            verify: self.verify,
        })
    }
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
