//! Packets of sound (RTP, Opus) for a listener of a public station, a private one, and a foreign
//! sender; the result is played and recorded. Each piece: channel and time, then the datagram.
#![no_main]

use librecast::time::UnixTime;

use std::net::Ipv6Addr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lcradio_core::{
    Caster, CasterConfig, Channel, Event, Frame, Latency, Listener, Order, Piece, Playout, Profile, StationKey, Tuned,
    read_description, samples,
};
use lcroute_fuzz::TODAY;
use libfuzzer_sys::fuzz_target;

const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
const FOREIGN: &[u8] = b"v=0\ns=x\nc=IN IP6 ff1e::9\nm=audio 5004 RTP/AVP 96\na=rtpmap:96 opus/48000/2\n";

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Returns a listener with a session, so that packets are decoded.
fn listener(is_public: bool) -> Listener {
    let key = || StationKey::from_seed(&[1; 32]);
    let time = UnixTime::from_millis(TODAY * 1_000);
    let config = CasterConfig {
        is_public,
        grant: None,
        name: "fuzz".to_owned(),
        title: String::new(),
        profile: Profile::Voice,
        channels: 1,
        together: None,
        seed: [2; 32],
        started: time,
    };
    let mut caster = Caster::new(key(), config, *EPOCH).unwrap();
    let beacon = caster.beacon(SOURCE, time).unwrap();
    let mut listener = Listener::new(Tuned::Station(key().station(is_public)), *EPOCH);
    listener.handle_datagram(Channel::Beacon, SOURCE, &beacon, *EPOCH, time);
    assert!(listener.has_session());
    listener
}

fuzz_target!(init: lcroute_fuzz::seeds::write("radio_packets"), |data: &[u8]| {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    let mut listener = match which % 3 {
        0 => listener(true),
        1 => listener(false),
        _ => Listener::new(Tuned::Unsigned(read_description(FOREIGN).unwrap()), *EPOCH),
    };
    let (mut playout, mut order) = (Playout::new(Latency::Auto, *EPOCH), Order::default());
    let mut now = *EPOCH;
    for piece in lcroute_fuzz::pieces(data) {
        let [channel, ms, datagram @ ..] = piece else {
            continue;
        };
        let channel = [Channel::Media, Channel::Copy, Channel::Beacon][usize::from(channel % 3)];
        now += Duration::from_millis(u64::from(*ms) * 4);
        listener.handle_datagram(channel, SOURCE, datagram, now, UnixTime::from_millis(TODAY * 1_000));
        listener.handle_timeout(now);
        while let Some(event) = listener.poll_event() {
            if let Event::Sound(packet) = event {
                assert_eq!(samples(&packet.payload), Some(packet.samples));
                playout.push(packet.clone());
                order.push(packet);
            }
        }
        if let Frame::Lost { samples, .. } | Frame::Silence { samples } = playout.poll_frame(now) {
            assert!((1..=960).contains(&samples));
        }
        while order.poll(now).is_some() {}
    }
    let mut written = None;
    while let Some(piece) = order.finish(now) {
        if let Piece::Packet(packet) = piece {
            let at = (packet.session, packet.index);
            assert!(written.is_none_or(|before| before < at));
            written = Some(at);
        }
    }
});
