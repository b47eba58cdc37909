//! Questions and answers about a caster's clock: a caster in step, and a listener that follows it.
//! Each piece: whether it is a question, the time, the datagram.
#![no_main]

use std::net::Ipv6Addr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lcradio_core::{
    BEACON_PORT, Caster, CasterConfig, FRAME, Profile, StationKey, Transmit, Tuned, TunedStation,
};
use lcroute_fuzz::TODAY;
use libfuzzer_sys::fuzz_target;
use librecast::time::UnixTime;

const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fuzz_target!(init: lcroute_fuzz::seeds::write("radio_clock"), |data: &[u8]| {
    let key = || StationKey::from_seed(&[1; 32]);
    let Some((which, data)) = data.split_first() else {
        return;
    };
    let (station, mut now) = (key().station(which % 2 == 0), *EPOCH);
    let time = UnixTime::from_millis(TODAY * 1_000);
    let config = CasterConfig {
        is_public: station.is_public(),
        grant: None,
        name: "fuzz".to_owned(),
        title: String::new(),
        profile: Profile::Voice,
        channels: 1,
        together: Some(Duration::from_millis(150)),
        seed: [2; 32],
        started: time,
    };
    let mut caster = Caster::new(key(), config, now).unwrap();
    let mut listener = TunedStation::new(Tuned::Station(station.clone()), now);
    listener.play_in_step([3; 32]);
    let beacon = caster.beacon(SOURCE, time).unwrap();
    listener.handle_datagram((station.group(), BEACON_PORT), SOURCE, &beacon, now, time);
    while listener.poll_event(now).is_some() {}
    let groups = caster.clock_groups().unwrap();
    caster.send(&[31 << 3], FRAME, now);
    for piece in lcroute_fuzz::pieces(data) {
        let [kind, ms, datagram @ ..] = piece else {
            continue;
        };
        now += Duration::from_millis(u64::from(*ms) * 4);
        let answers = (groups.answers, BEACON_PORT);
        match kind % 2 {
            0 => caster.handle_question(datagram, SOURCE, now),
            _ => listener.handle_datagram(answers, SOURCE, datagram, now, time),
        }
        while let Some((_, _, question)) = listener.poll_question(now) {
            caster.handle_question(&question, SOURCE, now);
        }
        while let Some(transmit) = caster.poll_transmit(now) {
            if let Transmit::Answer = transmit {
                let answer = caster.answer(now).unwrap();
                listener.handle_datagram(answers, SOURCE, &answer, now, time);
            }
        }
        let _ = listener.following(0, now);
    }
});
