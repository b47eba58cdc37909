//! DTLS records at every stage of a handshake, on both sides, which any host can send.
#![no_main]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use lcroute_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use rtc::crypto::SignatureScheme;
use rtc::dtls::config::{ConfigBuilder, HandshakeConfig};
use rtc::dtls::endpoint::Endpoint;
use rtc::peer_connection::certificate::{CertificateParams, RTCCertificate};
use rtc::shared::TransportProtocol;

/// As `rtc` configures it: both sides show certificates.
static CONFIGS: LazyLock<[Arc<HandshakeConfig>; 2]> = LazyLock::new(|| {
    let provider = rtc::crypto::default_provider().unwrap();
    [false, true].map(|client| {
        let scheme = SignatureScheme::EcdsaP256Sha256;
        let params = CertificateParams::default();
        let made = RTCCertificate::generate(provider.crypto(), scheme, params).unwrap();
        let builder = ConfigBuilder::default().with_certificates(vec![made.dtls_certificate]);
        Arc::new(builder.build(client, None).unwrap())
    })
});

fuzz_target!(init: lcroute_fuzz::seeds::write("dtls"), |data: &[u8]| {
    let Some(([stage, side], data)) = data.split_first_chunk() else {
        return;
    };
    let mut now = Instant::now();
    let addresses = ["192.0.2.1:1", "192.0.2.2:1"].map(|a| a.parse::<SocketAddr>().unwrap());
    let server = Endpoint::new(addresses[0], TransportProtocol::UDP, Some(CONFIGS[0].clone()));
    let client = Endpoint::new(addresses[1], TransportProtocol::UDP, None);
    let mut ends = [server, client];
    ends[1].connect(now, addresses[0], CONFIGS[1].clone(), None).unwrap();
    let mut last = [BytesMut::new(), BytesMut::new()];
    for turn in 1..=usize::from(stage % 9) {
        let (from, to) = (turn % 2, (turn + 1) % 2);
        while let Some(transmit) = ends[from].poll_transmit() {
            last[to] = transmit.message.clone();
            let _ = ends[to].read(now, addresses[from], None, transmit.message);
        }
    }
    let (to, from) = (usize::from(side & 1), usize::from(!side & 1));
    for piece in pieces(data).take(32) {
        let Some(([how, wait], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        now += Duration::from_millis(u64::from(*wait) * 10);
        let datagram = match how & 1 {
            0 => BytesMut::from(bytes),
            // the last genuine datagram, changed somewhere
            _ => {
                let mut genuine = last[to].clone();
                let at = usize::from(how >> 1) * genuine.len() / 128;
                for (old, new) in genuine[at..].iter_mut().zip(bytes) {
                    *old ^= new;
                }
                genuine
            }
        };
        let _ = ends[to].read(now, addresses[from], None, datagram);
        let _ = ends[to].handle_timeout(addresses[from], now);
        while let Some(transmit) = ends[to].poll_transmit() {
            if how & 2 == 0 {
                let _ = ends[from].read(now, addresses[to], None, transmit.message);
            }
        }
    }
});
