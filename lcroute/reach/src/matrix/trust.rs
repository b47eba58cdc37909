//! Verification of a homeserver's certificate, with texts for failures.
//!
//! The authorities are those of this host, or of the file in `SSL_CERT_FILE`; none can be bypassed.

use std::error::Error;
use std::io;
use std::sync::Arc;

use librecast::time::utc;
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// The TLS configuration of a client.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) config: ClientConfig,
    /// The reason for which some authorities could not be read.
    incomplete: Option<String>,
}

impl Trust {
    /// Reads the authorities. A host without any can still use `http:`.
    pub(super) fn load() -> Result<Self, rustls::Error> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        let none = (taken == 0).then(|| "this host knows no authority".to_owned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config,
            incomplete: found.errors.first().map(ToString::to_string).or(none),
        })
    }

    /// Returns why the certificate of `server` (a URL) is refused, if that is the error.
    pub(super) fn refusal(&self, error: &(dyn Error + 'static), server: &str) -> Option<String> {
        let rustls::Error::InvalidCertificate(why) = of_tls(error)? else {
            return None;
        };
        let why = match why {
            // a bad signature: an authority was replaced under the same name
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                let incomplete = self.incomplete.as_deref();
                let incomplete = incomplete.map(|why| format!(" ({why})"));
                format!(
                    "is of no authority that this host trusts: add that one to those of the host, or name its file by SSL_CERT_FILE{}",
                    incomplete.unwrap_or_default()
                )
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("has another name than {server}")
            }
            CertificateError::ExpiredContext { not_after, .. } => {
                format!("has expired: {}", utc(not_after.as_secs()))
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                format!("is good from {} on", utc(not_before.as_secs()))
            }
            // an error of the library below, without its own variant
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "is an authority's: a server's has basicConstraints=CA:FALSE".to_owned()
            }
            other => format!("does not count: {other}"),
        };
        Some(format!("the homeserver's certificate {why}"))
    }
}

/// Returns the TLS error within this one: I/O errors wrap it, but do not have it as their source.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let of_io = error.downcast_ref::<io::Error>();
        next = match of_io.and_then(io::Error::get_ref) {
            Some(within) => Some(within),
            None => error.source(),
        };
    }
    None
}
