//! Packets of a presenter's screen, which its key signed all the same.
#![no_main]

use std::time::{Duration, Instant};

use lcroute_fuzz::pieces;
use lcstudio_core::{MAX_SIDE, ScreenPacket, ScreenWatch, SessionKey, TrackName};
use libfuzzer_sys::fuzz_target;
use librecast_log::Seal;

/// Bytes of a signature.
const SIGNATURE: usize = 64;
/// Address of the sender.
const SOURCE: std::net::Ipv6Addr = std::net::Ipv6Addr::LOCALHOST;

fuzz_target!(init: lcroute_fuzz::seeds::write("screen_part"), |data: &[u8]| {
    let key = SessionKey::from_seed(&[7; 32]);
    let owner = key.track_key(&TrackName::Screen);
    let space = key.session().space(owner.peer_id());
    let seal = Seal::new(&space);
    let mut now = Instant::now();
    let mut watch = ScreenWatch::new(&space, now);
    for message in pieces(data) {
        now += Duration::from_millis(20);
        let unsigned = [&[0; SIGNATURE][..], message].concat();
        let contents = match ScreenPacket::decode(&unsigned) {
            Ok(packet) => {
                let contents = packet.sign(&owner);
                assert_eq!(ScreenPacket::decode(&contents), Ok(packet));
                contents
            }
            Err(_) => unsigned,
        };
        let Some(datagram) = seal.seal_contents(contents, &[1; 24]) else {
            return;
        };
        watch.handle_datagram(SOURCE, &datagram, now);
        while let Some(change) = watch.poll_change() {
            let (width, height) = change.screen;
            assert!(width.max(height) <= MAX_SIDE);
            let area = change.area;
            assert!(u32::from(area.x) + u32::from(area.width) <= u32::from(width));
            assert!(u32::from(area.y) + u32::from(area.height) <= u32::from(height));
            assert_eq!(change.picture.size(), (area.width.into(), area.height.into()));
        }
        let _ = watch.joined_groups(now);
    }
    watch.handle_datagram(SOURCE, data, now);
});
