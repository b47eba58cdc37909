//! Certificates.

use std::fmt;
use std::sync::Arc;

use rtc_crypto::{RTCCrypto, SecretVec, SigningKey};
use rtc_shared::error::{Error, Result};
use rustls_pki_types::CertificateDer;

use crate::observer::Observer;

/// The certificate of one end, with its key.
#[derive(Clone)]
pub struct Certificate {
    /// One certificate, DER.
    pub certificate: Vec<CertificateDer<'static>>,
    /// PKCS #8, DER. `None` cannot be exported, and permits no handshake.
    pub(crate) key: Option<Arc<SecretVec>>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl Certificate {
    /// Makes a certificate; its key must be exportable.
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

    /// Returns the same certificate, with an observer of its connections.
    #[must_use]
    pub fn observed_by(&self, observer: Arc<dyn Observer>) -> Self {
        let observer = Some(observer);
        Self {
            observer,
            ..self.clone()
        }
    }

    /// Converts a certificate of `dimpl`.
    #[cfg(test)]
    pub(crate) fn of(made: dimpl::DtlsCertificate) -> Self {
        Self {
            certificate: vec![made.certificate.into()],
            key: Some(Arc::new(SecretVec::new(made.private_key))),
            observer: None,
        }
    }

    /// Fails: certificates are not kept in files.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn from_pem(_: &str, _: &dyn RTCCrypto) -> Result<Self> {
        Err(Error::InvalidPEM("no PEM here".to_owned()))
    }

    /// Fails: certificates are not kept in files.
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
