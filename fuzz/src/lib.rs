//! The common code of the fuzz targets.

pub mod seeds;

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use lcroute_overlay::{Identity, Overlay, OverlayConfig, SPEAKS};
use lcroute_webrtc::{WebRtc, WebRtcConfig};
use librecast::cert::{Chain, Grant};
use librecast::id::{PeerId, SecretKey};
use librecast::time::{WallClock, UnixTime};

/// The time in the network of the targets, Unix seconds.
pub const TODAY: u64 = 1_800_000_000;

/// Splits an input into pieces, each after its length in 16 bits; the last one may be shorter.
pub fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        data = rest;
        Some(piece)
    })
}

/// Returns a key, the same for each number.
pub fn key(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

/// Returns the network's key.
pub fn network() -> PeerId {
    key(1).peer_id()
}

/// Returns a certificate chain of node `n`.
pub fn chain(n: u8) -> Chain {
    let grant = |name| Grant::new(name, (TODAY - 86_400, TODAY + 86_400));
    let node = key(n).peer_id();
    Chain::sign(&key(1), (&key(2), grant("")), (node, grant("node"))).unwrap()
}

/// Returns member `n` of the network; nodes 10 and 11 are made once.
pub fn identity(n: u8) -> Identity {
    static MADE: LazyLock<[Identity; 2]> =
        LazyLock::new(|| [10, 11].map(|n| Identity::new(Arc::new(key(n)), network(), chain(n))));
    MADE[usize::from(n - 10)].clone()
}

/// Makes the links of member `n` at `address`, with or without the media lane.
pub fn overlay(n: u8, address: SocketAddr, media: bool, now: Instant) -> Overlay<WebRtc> {
    let webrtc = WebRtcConfig {
        control: SPEAKS.control,
        epoch: now,
        unix_now: UnixTime::from_secs(TODAY),
        reproducible: true,
        seed: [7; 32],
        mtu: 1_280,
        media,
        limits: lcroute_webrtc::Limits::default(),
    };
    let config = OverlayConfig {
        identity: identity(n),
        clock: WallClock::new(|| UnixTime::from_secs(TODAY)),
        epoch: now,
        seed: [n; 32],
        limits: lcroute_overlay::Limits::default(),
    };
    let mut webrtc = WebRtc::new(webrtc, now).unwrap();
    webrtc.set_local_candidates(vec![address], now);
    Overlay::new(config, webrtc, now)
}

/// Returns CRC32c, the checksum of SCTP (RFC 9260, appendix A).
pub fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
    let all = bytes.iter();
    !all.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}
