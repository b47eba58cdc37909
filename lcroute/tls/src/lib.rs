//! TLS of the signalling server, its clients, and the server of pages: PEM certificates, trust from
//! the system (or `SSL_CERT_FILE`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// ALPN protocol (RFC 7301) of WebSockets and pages, as browsers and web servers use it.
pub const HTTP_1: &[u8] = b"http/1.1";
/// ALPN protocol of relay clients (RFC 7443); ours sends none, as browsers do.
const TURN: &[u8] = b"stun.turn";

/// Files of a TLS server.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain in PEM.
    pub cert: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Returns the acceptor for a server's connections.
    ///
    /// # Errors
    /// The files cannot be read, or contain no certificate with its key.
    pub fn acceptor(&self) -> io::Result<tokio_rustls::TlsAcceptor> {
        let (config, _) = server(self)?;
        Ok(config.into())
    }
}

/// The certificate of a server, which can be renewed while it runs.
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

    /// Reads the files again, for later connections.
    ///
    /// # Errors
    /// As [`TlsFiles::acceptor`]; the old certificate stays.
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

/// Returns the configuration of a server with these files, and its certificate, to be renewed.
///
/// # Errors
/// The files cannot be read, or contain no certificate with its key.
pub fn server(files: &TlsFiles) -> io::Result<(Arc<ServerConfig>, Arc<Certificate>)> {
    let certificate = Arc::new(Certificate::load(files.clone())?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(certificate.clone());
    config.alpn_protocols = [HTTP_1, TURN].map(<[u8]>::to_vec).into();
    Ok((Arc::new(config), certificate))
}

/// Returns the configuration of a client with these ALPN protocols, or none.
///
/// # Errors
/// The cryptography supports no version of TLS.
pub fn client(protocols: &[&[u8]]) -> io::Result<Arc<ClientConfig>> {
    // unreadable certificates of a system are skipped
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
        // a system without certificates: the handshake reports the error
        Err(_) => builder.with_root_certificates(RootCertStore::empty()),
    };
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Returns why a server's certificate was refused, for users, if that ended a connection.
#[must_use]
pub fn refusal(error: &io::Error) -> Option<&'static str> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(why) = error else {
        return None;
    };
    match why {
        // the second: of an authority with the name of a trusted one, and another key
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Some("its certificate is not trusted")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some("its certificate is for another name")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Some("its certificate has expired")
        }
        _ => is_authority(error).then_some("its certificate is not trusted"),
    }
}

/// Whether a certificate was refused as that of an authority.
fn is_authority(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(e)) => {
            e.to_string().contains("CaUsedAsEndEntity")
        }
        _ => false,
    }
}

/// The usual checks, except that a self-signed certificate passes if it is trusted itself.
///
/// `openssl req -x509` makes certificates that are authorities; the usual checks refuse them as a
/// server's certificate, even if trusted.
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
        match usual {
            // accepts only this error: an expired certificate is still refused
            Err(e) if is_authority(&e) && self.trusted.iter().any(|known| known == end_entity) => {
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

/// Returns the provider with the browsers' preference: post-quantum key exchange first.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let hybrid = aws_lc_rs::kx_group::X25519MLKEM768;
    provider
        .kx_groups
        .retain(|group| group.name() != hybrid.name());
    provider.kx_groups.insert(0, hybrid);
    Arc::new(provider)
}

#[cfg(test)]
mod tests {
    use rustls::server::Acceptor;
    use rustls::{ClientConnection, NamedGroup};

    use super::*;

    /// Chromium's properties of a WebSocket, not all and not in its order (docs/wire.md).
    #[test]
    fn the_hello_of_a_websocket_names_host_protocol_and_groups_as_a_browsers_does() {
        let name = ServerName::try_from("meet.example").unwrap();
        let mut client = ClientConnection::new(client(&[HTTP_1]).unwrap(), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut hello.as_slice()).unwrap();
        let accepted = acceptor.accept().unwrap().unwrap();
        let hello = accepted.client_hello();
        assert_eq!(hello.server_name(), Some("meet.example"));
        let protocols: Vec<_> = hello.alpn().unwrap().collect();
        assert_eq!(protocols, [b"http/1.1"]);
        let groups = [
            NamedGroup::X25519MLKEM768,
            NamedGroup::X25519,
            NamedGroup::secp256r1,
            NamedGroup::secp384r1,
        ];
        assert_eq!(hello.named_groups(), Some(&groups[..]));
    }

    #[test]
    fn a_server_says_http_1_to_browsers_and_lets_in_who_asks_for_a_relay_or_nothing() {
        let file = |name: &str| {
            let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../signalling/tests/data");
            tests.join(name)
        };
        let (cert, key) = (file("cert.pem"), file("key.pem"));
        let (server, _) = server(&TlsFiles { cert, key }).unwrap();
        let chosen = |protocols: &[&[u8]]| {
            let name = ServerName::try_from("meet.example").unwrap();
            let mut client = ClientConnection::new(client(protocols).unwrap(), name).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            let mut server = rustls::ServerConnection::new(server.clone()).unwrap();
            server.read_tls(&mut hello.as_slice()).unwrap();
            server.process_new_packets().map_err(drop)?;
            Ok(server.alpn_protocol().map(<[u8]>::to_vec))
        };
        assert_eq!(chosen(&[b"h2", HTTP_1]), Ok(Some(HTTP_1.to_vec())));
        assert_eq!(chosen(&[TURN]), Ok(Some(TURN.to_vec())));
        assert_eq!(chosen(&[]), Ok(None));
        assert_eq!(chosen(&[b"h2"]), Err(()), "as a web server without it");
    }
}
