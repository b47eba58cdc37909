//! A malicious member, for tests: starts handshakes of streams as fast as it can, completes none,
//! closes half of them with the first packet, and sends invalid packets in between.
//!
//! ```text
//! handshake-flood FROM TO          addresses of nodes on lc0; LCROUTE_CONTROL as for lcroute
//! ```

use std::error::Error;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use librecast::channel::STREAM_PORT;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// Handshakes, and invalid packets, of one burst.
const BURST: usize = 20;
/// Time between bursts: 2,000 handshakes a second, 200 times the limit of a node.
const INTERVAL: Duration = Duration::from_millis(10);
/// Time after which a handshake is abandoned: longer than the server's signature takes.
const LEFT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let addresses: Vec<Ipv6Addr> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let control = std::env::var_os("LCROUTE_CONTROL").map(PathBuf::from);
    let (&[from, to], Some(control)) = (&addresses[..], control) else {
        eprintln!("handshake-flood FROM TO, and LCROUTE_CONTROL");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread();
    let flooded = { runtime }
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(flood(from, to, &control)));
    match flooded {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("handshake-flood: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn flood(from: Ipv6Addr, to: Ipv6Addr, control: &Path) -> Result<(), Box<dyn Error>> {
    // the daemon carries streams while this is open
    let mut registered = UnixStream::connect(lcroute_control::sign_of(control))?;
    registered.write_all(b"{\"cmd\":\"streams\"}\n")?;
    let socket = UdpSocket::bind((from, STREAM_PORT))?;
    let noise = socket.try_clone()?;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime)?;
    let client = client()?;
    let to = SocketAddr::new(IpAddr::V6(to), STREAM_PORT);
    let mut ticks = tokio::time::interval(INTERVAL);
    println!("flooding");
    for round in 0_u64.. {
        ticks.tick().await;
        for n in 0..BURST {
            let connecting = endpoint.connect_with(client.clone(), to, "flood")?;
            match n % 2 {
                // its first packet closes it
                0 => drop(connecting),
                _ => drop(tokio::spawn(tokio::time::timeout(LEFT, connecting))),
            }
            // resembles a packet of a connection, a first packet, and neither
            let mut packet = [(round + n as u64) as u8; 1_200];
            packet[0] = [0x40, 0xc0, 0x00][n % 3];
            // the queue may be full
            let _ = noise.send_to(&packet, to);
        }
    }
    Ok(())
}

/// Returns a client that accepts any server, and offers no key.
fn client() -> Result<ClientConfig, Box<dyn Error>> {
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_protocol_versions(&[&rustls::version::TLS13])?;
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"lcroute/1".to_vec()];
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(
        config,
    )?)))
}

/// A verifier that accepts any raw public key.
#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
