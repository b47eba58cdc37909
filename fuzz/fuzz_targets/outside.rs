//! A host where two keys may call: datagrams of anybody to its port, with right and wrong hints;
//! texts of contacts, and frames of the program for streams.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use lcroute_fuzz::pieces;
use lcroute_outside::pairs::{Pairs, PairsConfig, PairsOutput, Intent};
use lcroute_outside::share::Share;
use lcroute_overlay::{CarrierId, CarrierKind, OpenRecord, SPEAKS};
use lcroute_webrtc::{WebRtc, WebRtcConfig};
use libfuzzer_sys::fuzz_target;
use librecast::id::SecretKey;
use librecast::open::Statement;
use librecast::outside::{ContactText, FromOutside, Frame, ToOutside, read_frame};
use librecast::pair::PairSecret;
use librecast::time::{Instant, UnixTime, WallClock};

const NOON: UnixTime = UnixTime::from_secs(1_800_000_000);
const LAN: CarrierId = CarrierId(7);

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn host(now: Instant) -> Pairs {
    let config = WebRtcConfig {
        control: SPEAKS.control,
        epoch: now,
        unix_now: NOON,
        reproducible: true,
        seed: [1; 32],
        mtu: 1_400,
        media: true,
        limits: lcroute_webrtc::Limits::default(),
    };
    let share = Share::new(WebRtc::new(config, now).expect("a certificate"));
    share.webrtc().set_local_candidates(vec![address(1)], now);
    let config = PairsConfig {
        clock: WallClock::new(|| NOON),
        epoch: now,
        seed: [2; 32],
        rate: 1_000_000,
    };
    Pairs::new(config, share, now)
}

fn address(n: u8) -> SocketAddr {
    ([192, 0, 2, n], 7_000).into()
}

fn texts(bytes: &[u8]) {
    if let Ok(Some((frame, length))) = read_frame(bytes) {
        assert!(length <= bytes.len());
        if let Frame::Line(line) = frame {
            let _ = serde_json::from_slice::<ToOutside>(line);
            let _ = serde_json::from_slice::<FromOutside>(line);
        }
    }
    // a forged statement or record of an open key
    assert!(Statement::verify(bytes, &key(1).peer_id(), NOON).is_err());
    assert!(OpenRecord::open((&key(1).peer_id(), 7), bytes, NOON).is_err());
    if let Ok(contact) = String::from_utf8_lossy(bytes).parse::<ContactText>() {
        assert_eq!(contact.to_string().parse::<ContactText>().expect("itself"), contact);
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("outside"), |data: &[u8]| {
    let mut now = Instant::now();
    let mut pairs = host(now);
    let secrets = [2, 3].map(|n| PairSecret::agree(&key(1), &key(n).peer_id()).expect("a secret"));
    for secret in &secrets {
        let wish = Intent { waits: true, seeks: false };
        assert!(pairs.set(secret.clone(), wish, now));
    }
    let mut nodes = Vec::new();
    while let Some(output) = pairs.poll_output() {
        if let PairsOutput::Start(started) = output {
            nodes.push((started.node, started.other));
        }
    }
    while pairs.poll_transmit().is_some() {}
    for piece in pieces(data).take(32) {
        texts(piece);
        let Some(([what, n], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        let secret = &secrets[usize::from(*n) % secrets.len()];
        let (node, other) = nodes[usize::from(*n) % nodes.len()];
        let hint = secret.network(secret.period(NOON)).expect("a network").hint;
        match what % 4 {
            0 => pairs.handle_datagram(address(9), address(1), bytes, now),
            1 => {
                let datagram = [&[0xc1], &hint[..], bytes].concat();
                pairs.handle_datagram(address(9), address(1), &datagram, now);
            }
            2 => pairs.handle_signal(node, (LAN, other), bytes, now),
            _ => pairs.handle_record(node, (LAN, CarrierKind::Lan), bytes, now),
        }
        now += Duration::from_millis(200);
        pairs.handle_timeout(now);
        while pairs.poll_output().is_some() {}
        // nobody has shown that it is one of the two
        assert!(pairs.poll_transmit().is_none());
    }
});
