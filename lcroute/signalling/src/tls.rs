//! TLS of the signalling server: certificates from PEM files, trust from the system (or `SSL_CERT_FILE`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// Files of a TLS server.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain in PEM.
    pub cert: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// What a server does with connections before it reads from them.
    ///
    /// # Errors
    /// The files cannot be read, or have no certificate and its key.
    pub fn acceptor(&self) -> io::Result<tokio_rustls::TlsAcceptor> {
        let (config, _) = server(self)?;
        Ok(config.into())
    }
}

/// The certificate that a server shows; it can be renewed while it runs.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    fn load(files: TlsFiles) -> io::Result<Self> {
        let current = RwLock::new(read(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again; connections made from now on see what they hold.
    pub fn reload(&self) -> io::Result<()> {
        let new = read(&self.files)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

fn read(files: &TlsFiles) -> io::Result<Arc<CertifiedKey>> {
    let bad = |path: &Path, e: &dyn std::fmt::Display| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{}: {e}", path.display()),
        )
    };
    let unreadable = |path: &Path, e: pem::Error| match e {
        pem::Error::NoItemsFound => bad(path, &"nothing of the right kind in PEM form"),
        pem::Error::Io(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            io::Error::new(e.kind(), format!("{}: {e}", path.display()))
        }
        e => bad(path, &e),
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect)
        .map_err(|e| unreadable(&files.cert, e))?;
    if chain.is_empty() {
        return Err(bad(&files.cert, &"no certificate in PEM form"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| unreadable(&files.key, e))?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|e| bad(&files.cert, &e))?;
    Ok(Arc::new(key))
}

pub(super) fn server(files: &TlsFiles) -> io::Result<(Arc<ServerConfig>, Arc<Certificate>)> {
    let certificate = Arc::new(Certificate::load(files.clone())?);
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(certificate.clone());
    Ok((Arc::new(config), certificate))
}

pub(super) fn client() -> io::Result<Arc<ClientConfig>> {
    // some certificates of a system may be unreadable: the others still count
    let trusted = rustls_native_certs::load_native_certs().certs;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let config = match verifier {
        Ok(usual) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { usual, trusted })),
        // a system without any: the error comes with the handshake
        Err(_) => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

/// The usual checks, and one more way to pass: a self-signed certificate that is itself among the trusted ones.
///
/// What `openssl req -x509` makes calls itself an authority; as a server's certificate the usual checks
/// refuse it, whoever trusts it.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usual = self
            .usual
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        // only this finding is forgiven: expired stays expired
        let authority = |e: &rustls::Error| match e {
            rustls::Error::InvalidCertificate(CertificateError::Other(e)) => {
                e.to_string().contains("CaUsedAsEndEntity")
            }
            _ => false,
        };
        match usual {
            Err(e) if authority(&e) && self.trusted.iter().any(|known| known == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
