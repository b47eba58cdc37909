//! A whole router: control messages and data of two neighbours, packets of its own host.
#![no_main]

#[path = "../../lcroute/engine/tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_engine::{Limits, Output};
use lcroute_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use librecast::id::LinkId;

fuzz_target!(init: lcroute_fuzz::seeds::write("engine"), |data: &[u8]| {
    let mut now = Instant::now();
    let mut config = common::config(1);
    config.limits = Limits { groups: 20, flows: 10, ..Limits::default() };
    config.unicast = true;
    config.ipv4 = Some(lcroute_engine::Ipv4Config {
        network: "10.77.0.0/16".parse().unwrap(),
        kept: None,
        assigns: true,
    });
    let mut engine = common::engine(config, now);
    engine.handle_start(now);
    for n in [2, 3] {
        engine.handle_link_up(LinkId(u32::from(n)), common::neighbor(n), now);
    }
    let mut others = [2, 3].map(|n| common::engine(common::config(n), now));
    // they do not know each other
    for other in &mut others {
        other.handle_start(now);
        other.handle_link_up(LinkId(1), common::neighbor(1), now);
    }
    common::exchange(&mut engine, &mut others, now);
    for piece in pieces(data).take(64) {
        let Some(([what, wait], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        now += Duration::from_millis(u64::from(*wait) * 10);
        let link = LinkId(2 + u32::from(what >> 7));
        match what % 4 {
            0 => engine.handle_control(link, bytes, now),
            1 => engine.handle_data(link, Bytes::copy_from_slice(bytes), now),
            2 => engine.handle_local_packet(Bytes::copy_from_slice(bytes), now),
            _ => common::exchange(&mut engine, &mut others, now),
        }
        if engine.next_timeout().is_some_and(|(at, _)| at <= now) {
            engine.handle_timeout(now);
        }
        let mut told = 0;
        while let Some(output) = engine.poll_output() {
            told += 1;
            assert!(told < 10_000, "it says no end of things: {output:?}");
            if let Output::Control { message, .. } = output {
                assert!(lcroute_engine::control::decode(&message).is_ok());
            }
        }
    }
});
