//! Input of a node without a server: presence records with a member's seal, and sealed messages
//! directly from an address, whole or in parts. Both contain the input's bytes.
#![no_main]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crypto_box::aead::OsRng;
use crypto_box::PublicKey;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit, Nonce, XSalsa20Poly1305};
use lcroute_fuzz::{TODAY, key, network, overlay, pieces};
use lcroute_overlay::{CarrierKind, MAX_RECORD};
use lcroute_webrtc::Ecn;
use libfuzzer_sys::fuzz_target;
use librecast::id::derive;

/// Bytes of nonce and tag.
const BOX: usize = 24 + 16;
const KINDS: [CarrierKind; 3] = [CarrierKind::Lan, CarrierKind::Spool, CarrierKind::Text];

/// Makes a record with these bytes in its box; the part before the signature may be signed.
fn record(is_signed: bool, bytes: &[u8]) -> Vec<u8> {
    let network = network();
    let mut record = bytes.to_vec();
    if is_signed {
        let text = [network.public_key(), bytes].concat();
        record.extend(key(11).sign("lcroute 2026 presence record", &text));
    }
    let length = if record.len() <= MAX_RECORD / 2 - BOX { MAX_RECORD / 2 } else { MAX_RECORD };
    record.resize(length - BOX, 0);
    let day = (TODAY / 86_400).to_be_bytes();
    let secret = derive("lcroute 2026 record seal", &[network.public_key(), &day]);
    let nonce = [7; 24];
    let cipher = XSalsa20Poly1305::new(&secret.into());
    let tag = cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), b"", &mut record);
    [&nonce, &tag.unwrap()[..], &record].concat()
}

/// Makes a datagram of the network, with this body after the tag.
fn straight(body: &[u8]) -> Vec<u8> {
    let tag = derive("lcroute 2026 straight", &[network().public_key(), body]);
    [&[0xc0], &tag[..8], body].concat()
}

fuzz_target!(init: lcroute_fuzz::seeds::write("presence"), |data: &[u8]| {
    let mut now = Instant::now();
    let address: SocketAddr = "192.0.2.1:7000".parse().unwrap();
    let mut overlay = overlay(10, address, true, now);
    overlay.set_wanted(BTreeSet::from([key(11).peer_id()]), now);
    let our_box = PublicKey::from(key(10).peer_id().x25519().unwrap());
    for piece in pieces(data).take(32) {
        let Some(([how, from], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        now += Duration::from_millis(u64::from(how >> 4) * 100);
        match how & 7 {
            0 => {
                let _ = overlay.handle_record(CarrierKind::Lan, bytes, |_| true, now);
            }
            how @ 1..4 => {
                let kind = KINDS[usize::from(*from) % 3];
                let taken = overlay.handle_record(kind, &record(how != 1, bytes), |_| true, now);
                assert!(taken.is_err() || taken.is_ok_and(|(peer, _)| peer == key(11).peer_id()), "whose is it?");
            }
            how => {
                let body = match how {
                    // a part, or a whole message, from a host that knows the network
                    4 | 5 => bytes.to_vec(),
                    // one that opens
                    _ => [&[1][..], &our_box.seal(&mut OsRng, bytes).unwrap()].concat(),
                };
                let from = SocketAddr::new([198, 51, 100, *from].into(), 7_000);
                let datagram = straight(&body);
                let webrtc = overlay.connections_mut();
                webrtc.handle_datagram(from, address, &Bytes::from(datagram), Ecn::None, now);
            }
        }
        if overlay.next_timeout().is_some_and(|at| at <= now) {
            overlay.handle_timeout(now);
        }
        let mut sent = 0;
        while let Some(transmit) = overlay.connections_mut().poll_transmit() {
            sent += 1;
            let to = transmit.to.ip();
            assert!(!to.is_loopback() && !to.is_unspecified() && !to.is_multicast(), "to {to}");
        }
        assert!(sent <= 500, "{sent} datagrams at once");
        while overlay.poll_event(now).is_some() {}
    }
    let panics = overlay.drops().get("webrtc_panic").copied();
    assert_eq!(panics, None, "the fence is for what nobody knows of");
});
