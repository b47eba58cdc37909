//! Keys of nodes as raw public keys of TLS (RFC 7250), without certificates.

use std::fmt;
use std::sync::Arc;

use librecast::id::{PeerId, derive};
use librecast::outside::PortSecret;
use librecast::reach::Base58;
use quinn::crypto::{CryptoError, HmacKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};
use zeroize::Zeroizing;

/// ALPN protocol (RFC 7301). A stream's own protocol is agreed later, when the peer is known.
const ALPN: &[u8] = b"lcroute/1";
/// ALPN protocol with framed streams: their end carries its reason.
const ALPN_FRAMED: &[u8] = b"lcroute/2";
/// An ed25519 public key's SubjectPublicKeyInfo, before the key (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
/// Signed text for [`ResetKey`], behind 64 spaces: the daemon signs texts in the form of TLS 1.3,
/// and no handshake has this one (RFC 8446 §4.4.3).
const RESET_CONTEXT: &[u8] = b"TLS 1.3, lcroute stateless reset\0";

/// The same for the port of links outside of this host's networks.
const PORT_CONTEXT: &[u8] = b"TLS 1.3, lcroute outside port\0";

/// Returns the secret that chooses this port: the same at each start.
pub fn port_secret(signer: &dyn Sign) -> Result<PortSecret, String> {
    let message = [&[b' '; 64][..], PORT_CONTEXT].concat();
    let signature = Zeroizing::new(signer.sign(&message)?);
    let secret = derive("lcroute 2026 port secret", &[signature.as_slice()]);
    Ok(PortSecret(Base58(secret)))
}

/// Signer of TLS messages.
pub trait Sign: Send + Sync + fmt::Debug {
    /// Returns the signature, or the reason for which there is none.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], String>;
}

#[derive(Debug, Clone)]
struct NodeKey {
    peer: PeerId,
    signer: Arc<dyn Sign>,
}

impl SigningKey for NodeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let is_offered = offered.contains(&SignatureScheme::ED25519);
        is_offered.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(&self.peer).into())
    }
}

impl Signer for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.signer.sign(message).map_err(Error::General)?;
        Ok(signature.to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

fn spki(peer: &PeerId) -> Vec<u8> {
    [&SPKI_PREFIX[..], peer.public_key()].concat()
}

/// Returns the protocols that both sides may choose, the best first.
fn protocols() -> Vec<Vec<u8>> {
    vec![ALPN_FRAMED.to_vec(), ALPN.to_vec()]
}

pub fn is_framed(protocol: Option<&[u8]>) -> bool {
    protocol == Some(ALPN_FRAMED)
}

/// Returns the owner of a key.
pub fn peer_of(spki: &[u8]) -> Option<PeerId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    PeerId::from_public_key(key).ok()
}

/// Verifier of any node's key, or of one alone.
#[derive(Debug)]
struct RawKeys {
    expected: Option<PeerId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKeys {
    fn new(expected: Option<PeerId>) -> Self {
        Self {
            expected,
            algorithms: aws_lc_rs::default_provider().signature_verification_algorithms,
        }
    }

    fn check(&self, key: &CertificateDer<'_>) -> Result<(), Error> {
        let bad =
            Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure);
        let peer = peer_of(key).ok_or_else(|| bad.clone())?;
        match self.expected.is_none_or(|expected| expected == peer) {
            true => Ok(()),
            false => Err(bad),
        }
    }
}

/// The methods in which the verifiers of both sides do not differ.
macro_rules! raw_ed25519_alone {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let key = SubjectPublicKeyInfoDer::from(key.as_ref());
            verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for RawKeys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(key).map(|()| ServerCertVerified::assertion())
    }

    raw_ed25519_alone!();
}

impl ClientCertVerifier for RawKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(key).map(|()| ClientCertVerified::assertion())
    }

    raw_ed25519_alone!();
}

/// The secret of this node's stateless resets (RFC 9000 §10.3.2). It survives a restart of the
/// program, so that other nodes notice at once that their connections are gone.
pub struct ResetKey(Zeroizing<[u8; 32]>);

impl ResetKey {
    /// Derives it from a signature that only this program gets; ed25519 is deterministic.
    pub fn new(signer: &dyn Sign) -> Result<Self, String> {
        let message = [&[b' '; 64][..], RESET_CONTEXT].concat();
        let signature = Zeroizing::new(signer.sign(&message)?);
        let key = derive("lcroute 2026 stateless reset", &[signature.as_slice()]);
        Ok(Self(Zeroizing::new(key)))
    }

    /// Returns the key of this node's connection ids: it resets no others.
    pub fn connection_ids(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] =
            derive("lcroute 2026 connection ids", &[self.0.as_slice()]);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(&derive(
            "lcroute 2026 reset token",
            &[self.0.as_slice(), data],
        ));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let mut expected = [0; 32];
        HmacKey::sign(self, data, &mut expected);
        // timing is not observable: resets are only made with it
        match expected == signature {
            true => Ok(()),
            false => Err(CryptoError),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Identity {
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// Returns the identity of `peer`, whose key `signer` has.
    pub fn new(peer: PeerId, signer: Arc<dyn Sign>) -> Self {
        let key = Arc::new(NodeKey { peer, signer });
        let public = CertificateDer::from(spki(&peer));
        Self {
            key: Arc::new(CertifiedKey::new(vec![public], key)),
        }
    }

    /// Returns the settings for connections from any node. There is no resumption.
    pub fn server(&self) -> Result<ServerConfig, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = config.with_client_cert_verifier(Arc::new(RawKeys::new(None)));
        let keys = AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = config.with_cert_resolver(Arc::new(keys));
        config.alpn_protocols = protocols();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// Returns the settings for a connection to the node of this key.
    pub fn client(&self, to: PeerId) -> Result<ClientConfig, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = config.dangerous();
        let config = config.with_custom_certificate_verifier(Arc::new(RawKeys::new(Some(to))));
        let keys = AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = config.with_client_cert_resolver(Arc::new(keys));
        config.alpn_protocols = protocols();
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;
    use rustls::{ClientConnection, HandshakeKind, ServerConnection};

    use super::*;

    /// The key itself, in place of the daemon.
    struct Key(SecretKey);

    impl fmt::Debug for Key {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Key")
        }
    }

    impl Sign for Key {
        fn sign(&self, message: &[u8]) -> Result<[u8; 64], String> {
            self.0.sign_tls13(message).ok_or_else(|| "no".into())
        }
    }

    #[test]
    fn resets_are_the_same_after_a_restart_and_another_nodes_are_not() {
        let token = |seed: u8, id: &[u8]| {
            let key = ResetKey::new(&Key(SecretKey::from_seed(&[seed; 32]))).unwrap();
            let mut token = [0; 32];
            HmacKey::sign(&key, id, &mut token);
            assert!(key.verify(id, &token).is_ok() && key.verify(b"none", &token).is_err());
            (key.connection_ids(), token)
        };
        assert_eq!(token(1, b"id"), token(1, b"id"));
        let (ids, reset) = token(2, b"id");
        assert_ne!((ids, reset), token(1, b"id"));
        assert_ne!(ids, token(1, b"id").0);
        assert_ne!(reset, token(2, b"other").1);
    }

    fn identity(seed: u8) -> (PeerId, Identity) {
        let key = SecretKey::from_seed(&[seed; 32]);
        let peer = key.peer_id();
        (peer, Identity::new(peer, Arc::new(Key(key))))
    }

    /// Runs a handshake; returns its kind, and the number of tickets that the server sent after it.
    fn connect(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
    ) -> (Option<HandshakeKind>, u32) {
        let name = ServerName::try_from("node").unwrap();
        let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        while client.wants_write() || server.wants_write() {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            client.write_tls(&mut there).unwrap();
            server.read_tls(&mut there.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            server.write_tls(&mut back).unwrap();
            client.read_tls(&mut back.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
        (client.handshake_kind(), client.tls13_tickets_received())
    }

    /// A ticket must not readmit an expelled node, or one that lost a label.
    #[test]
    fn a_connection_is_never_resumed_nor_sends_data_before_the_handshake() {
        let (peer, node) = identity(1);
        let (_, other) = identity(2);
        let server = Arc::new(node.server().unwrap());
        assert_eq!(server.max_early_data_size, 0);
        // a client of another make, which would resume
        let mut client = other.client(peer).unwrap();
        assert!(!client.enable_early_data);
        client.resumption = Resumption::in_memory_sessions(8);
        let client = Arc::new(client);
        for _ in 0..2 {
            let (kind, tickets) = connect(&client, &server);
            assert_eq!((kind, tickets), (Some(HandshakeKind::Full), 0));
        }
    }
}
