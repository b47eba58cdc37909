//! Packets of a presenter's camera, which its key signed all the same; files of frames.
#![no_main]

use std::time::{Duration, Instant};

use lcroute_fuzz::pieces;
use lcstudio_core::{
    CameraPacket, CameraSize, CameraSpace, CameraWatch, Ivf, Layer, MAX_CAMERA_SIDE, MAX_FRAME, SessionKey, TrackName,
    Vp8, Vp8Layers,
};
use libfuzzer_sys::fuzz_target;
use librecast_log::Seal;

/// Bytes of a signature.
const SIGNATURE: usize = 64;
/// Address of the sender.
const SOURCE: std::net::Ipv6Addr = std::net::Ipv6Addr::LOCALHOST;

fuzz_target!(init: lcroute_fuzz::seeds::write("vp8_payload"), |data: &[u8]| {
    let key = SessionKey::from_seed(&[7; 32]);
    let owner = key.track_key(&TrackName::Camera);
    let space = key.session().space(owner.peer_id());
    let seal = Seal::new(&space);
    let groups = CameraSpace::new(&space);
    let groups = Layer::ALL.map(|layer| groups.group(layer));
    let mut now = Instant::now();
    let mut watch = CameraWatch::new(&space, true, now);
    watch.want_large(true, now);
    let (mut run, mut numbers) = (0, [0; 2]);
    for (at, message) in pieces(data).enumerate() {
        now += Duration::from_millis(20);
        let unsigned = [&[0; SIGNATURE][..], message].concat();
        let contents = match CameraPacket::decode(&unsigned) {
            Ok(packet) => {
                let contents = packet.sign(&owner);
                assert_eq!(CameraPacket::decode(&contents), Ok(packet));
                contents
            }
            Err(_) => unsigned,
        };
        let Some(datagram) = seal.seal_contents(contents, &[1; 24]) else {
            return;
        };
        watch.handle_datagram(groups[at % groups.len()], SOURCE, &datagram, now);
        while let Some(frame) = watch.poll_frame() {
            assert!(!frame.bytes.is_empty() && frame.bytes.len() <= MAX_FRAME);
            if frame.run != run {
                (run, numbers) = (frame.run, [0; 2]);
            }
            let number = &mut numbers[usize::from(frame.picture == CameraSize::Large)];
            assert!(frame.number > *number);
            *number = frame.number;
            let size = Vp8::decode(&frame.bytes).unwrap().size;
            assert_eq!(size, frame.size);
            assert!(size.is_none_or(|(width, height)| width.max(height) <= MAX_CAMERA_SIDE));
        }
        let _ = (watch.joined_groups().count(), watch.next_timeout());
    }
    watch.handle_datagram(groups[0], SOURCE, data, now);
    // the user's own pipe
    let mut layers = Vp8Layers::default();
    for frame in pieces(data) {
        if let Ok(vp8) = Vp8::decode(frame) {
            layers.is_base(&vp8, frame);
        }
    }
    if let Some((header, rest)) = data.split_first_chunk()
        && let Ok(ivf) = Ivf::decode(header)
        && let Some((header, _)) = rest.split_first_chunk()
    {
        let _ = ivf.frame(header);
    }
});
