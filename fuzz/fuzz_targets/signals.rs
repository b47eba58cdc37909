//! Signalling: any bytes, and envelopes that a member has signed and sealed, with chain and payload
//! of the input. Connection requests, offers and answers reach the WebRTC stack.
#![no_main]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crypto_box::aead::OsRng;
use crypto_box::{PublicKey, SecretKey as BoxKey};
use lcroute_fuzz::{TODAY, chain, key, network, overlay, pieces};
use lcroute_overlay::{CarrierId, Event, Presence};
use libfuzzer_sys::fuzz_target;
use librecast::wire::Writer;

const CARRIER: CarrierId = CarrierId(1);
/// The place of the sender's session in an envelope.
const SESSION: std::ops::Range<usize> = 106..114;

fuzz_target!(init: lcroute_fuzz::seeds::write("signals"), |data: &[u8]| {
    let Some((mode, data)) = data.split_first() else {
        return;
    };
    let mut now = Instant::now();
    // the node with the smaller id offers: both cases are tried
    let (own, peer) = if mode & 1 == 0 { (10, 11) } else { (11, 10) };
    let address = "192.0.2.1:7000".parse().unwrap();
    let mut overlay = overlay(own, address, true, now);
    overlay.set_wanted(BTreeSet::from([key(peer).peer_id()]), now);
    overlay.handle_presence(CARRIER, Presence::Online(key(peer).peer_id()), now);
    let their_box = BoxKey::from(*key(peer).x25519());
    let our_box = PublicKey::from(key(own).peer_id().x25519().unwrap());
    let mut session = [0; 8];
    let mut attempt = [0; 32];
    for (sequence, piece) in (1..).zip(pieces(data).take(16)) {
        while overlay.connections_mut().poll_transmit().is_some() {}
        while let Some(event) = overlay.poll_event(now) {
            if let Event::Signal { bytes, .. } = event
                && let Ok(envelope) = their_box.unseal(&bytes)
            {
                session.copy_from_slice(&envelope[SESSION]);
                // an offer ends with flags, attempt, description
                let chain = usize::from(u16::from_be_bytes([envelope[131], envelope[132]]));
                if envelope[1] == 2 && let Some(bytes) = envelope.get(136 + chain..168 + chain) {
                    attempt.copy_from_slice(bytes);
                }
            }
        }
        let Some(([how, kind], payload)) = piece.split_first_chunk() else {
            continue;
        };
        now += Duration::from_millis(u64::from(how >> 3) * 100);
        let sealed = match how & 7 {
            0 => payload.to_vec(),
            1 => our_box.seal(&mut OsRng, payload).unwrap(),
            how => {
                let mut w = Writer::new();
                w.u8(2).u8(kind % 8).put(key(peer).peer_id().public_key());
                w.put(key(own).peer_id().public_key()).put(network().public_key());
                w.u64(TODAY).u64(9).u64(sequence).put(&session).u8(4);
                let mut payload = payload.to_vec();
                // an answer to the offer
                if how == 7 && payload.len() > 33 {
                    payload[1..33].copy_from_slice(&attempt);
                }
                let chain = match how {
                    2 => payload.clone(),
                    _ => chain(peer).encode(),
                };
                if w.bytes16(&chain).is_err() || w.bytes16(&payload).is_err() {
                    continue;
                }
                let signature = key(peer).sign("lcroute 2026 signal", w.as_slice());
                w.put(&signature);
                our_box.seal(&mut OsRng, w.as_slice()).unwrap()
            }
        };
        overlay.handle_signal(CARRIER, key(peer).peer_id(), &sealed, now);
        if overlay.next_timeout().is_some_and(|at| at <= now) {
            overlay.handle_timeout(now);
        }
    }
    while overlay.connections_mut().poll_transmit().is_some() {}
    assert!(!overlay.drops().contains_key("webrtc_panic"), "the fence is for what nobody knows of");
});
