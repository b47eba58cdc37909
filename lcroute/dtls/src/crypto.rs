//! Certificates.

use std::fmt;
use std::sync::Arc;

use rtc_crypto::{RTCCrypto, SecretVec, SigningKey};
use rtc_shared::error::{Error, Result};
use rustls_pki_types::CertificateDer;

use crate::observer::Observer;

/// What one end shows in handshakes, and the key to it.
#[derive(Clone)]
pub struct Certificate {
    /// DER, one.
    pub certificate: Vec<CertificateDer<'static>>,
    /// PKCS #8, DER. None: it cannot be had, and no handshake can be made with it.
    pub(crate) key: Option<Arc<SecretVec>>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Certificate {
    /// A certificate with a key that can be exported.
    #[must_use]
    pub fn from_signing_key(
        certificate: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
    ) -> Self {
        let exported = key.to_pkcs8_der().ok().flatten();
        Self {
            certificate,
            key: exported.map(Arc::new),
            observer: None,
        }
    }

    /// The same, for connections that `observer` sees.
    #[must_use]
    pub fn observed_by(&self, observer: Arc<dyn Observer>) -> Self {
        let observer = Some(observer);
        Self {
            observer,
            ..self.clone()
        }
    }

    /// One of `dimpl`'s.
    #[cfg(test)]
    pub(crate) fn of(made: dimpl::DtlsCertificate) -> Self {
        Self {
            certificate: vec![made.certificate.into()],
            key: Some(Arc::new(SecretVec::new(made.private_key))),
            observer: None,
        }
    }

    /// Nobody here keeps certificates in files.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn from_pem(_: &str, _: &dyn RTCCrypto) -> Result<Self> {
        Err(Error::InvalidPEM("no PEM here".to_owned()))
    }

    /// Nobody here keeps certificates in files.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn serialize_pem(&self) -> Result<String> {
        Err(Error::InvalidPEM("no PEM here".to_owned()))
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.certificate == other.certificate
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}
