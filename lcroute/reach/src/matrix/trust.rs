//! Whom a homeserver's certificate is believed, and what is wrong with one, in words.
//!
//! Authorities are those of this host, or of the file that `SSL_CERT_FILE` names. There is no way around them.

use std::error::Error;
use std::io;
use std::sync::Arc;

use librecast::time::utc;
use rustls::{CertificateError, ClientConfig, RootCertStore};

/// What a client does with certificates.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) config: ClientConfig,
    /// Why authorities, or some of them, could not be read.
    incomplete: Option<String>,
}

impl Trust {
    /// Reads the authorities. A host without any still speaks `http:`.
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

    /// Why the certificate of this server, a URL, does not count, if that is what failed.
    pub(super) fn refusal(&self, error: &(dyn Error + 'static), server: &str) -> Option<String> {
        let rustls::Error::InvalidCertificate(why) = of_tls(error)? else {
            return None;
        };
        let why = match why {
            // a bad signature: an authority that was made anew under its old name
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
            // of the library above: it has no variant of its own
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                "is an authority's: a server's has basicConstraints=CA:FALSE".to_owned()
            }
            other => format!("does not count: {other}"),
        };
        Some(format!("the homeserver's certificate {why}"))
    }
}

/// The error of TLS in this one: errors of I/O wrap it, and do not name it as their source.
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
