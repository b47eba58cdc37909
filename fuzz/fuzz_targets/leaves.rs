//! A router with leaves that send anything: control messages of the input, and many joins. Its
//! programs and its neighbour stay served, and its state stays bounded.
#![no_main]

#[path = "../../lcroute/engine/tests/common/mod.rs"]
mod common;

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Rights;
use lcroute_engine::control::{Batch, Element, LeafJoin};
use lcroute_engine::header::DataHeader;
use lcroute_engine::{Limits, Neighbor, Output, SourceFilter};
use lcroute_fuzz::pieces;
use libfuzzer_sys::fuzz_target;
use librecast::cert::{GroupPrefix, Member};
use librecast::id::{LinkId, OriginId};
use librecast::ipv6::udp_packet;

/// Leaves; their links come after that of the neighbour.
const LEAVES: u16 = 4;
const FIRST: u32 = 10;

fn leaf(n: u16) -> Neighbor {
    let rights = Rights {
        core: false,
        leaf: true,
        uplink: true,
        invitation: Some((9, None)),
        prefixes: vec!["ff1e::/16".parse().expect("a prefix")],
        ..Rights::default()
    };
    let member: Member = common::restricted(100 + n, &rights).1.member;
    Neighbor { member }
}

/// Makes joins of four bytes each: group, number of sources, kind, or its end.
fn joins(bytes: &[u8]) -> Vec<Bytes> {
    let mut batch = Batch::default();
    for join in bytes.chunks_exact(4) {
        let [high, low, kind, n] = [join[0], join[1], join[2], join[3]];
        let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, u16::from(high), u16::from(low));
        let source = |s| Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, u16::from(n), s);
        let sources = (0..u16::from(n % 20)).map(source);
        let join = match kind % 4 {
            0 => None,
            1 => Some(SourceFilter::all()),
            2 => SourceFilter::include(sources),
            _ => Some(SourceFilter::exclude(sources)),
        };
        let group = GroupPrefix::group(group);
        batch.push(&Element::LeafJoin(LeafJoin { group, join }));
    }
    batch.finish()
}

fuzz_target!(init: lcroute_fuzz::seeds::write("leaves"), |data: &[u8]| {
    let mut now = Instant::now();
    let mut config = common::config(1);
    config.limits = Limits { groups: 40, flows: 10, leaves: usize::from(LEAVES) - 1, ..Limits::default() };
    let mut engine = common::engine(config, now);
    engine.handle_start(now);
    engine.handle_link_up(LinkId(2), common::neighbor(2), now);
    let mut others = [common::engine(common::config(2), now)];
    others[0].handle_start(now);
    others[0].handle_link_up(LinkId(1), common::neighbor(1), now);
    common::exchange(&mut engine, &mut others, now);
    // one more than permitted
    for n in 0..LEAVES {
        engine.handle_link_up(LinkId(FIRST + u32::from(n)), leaf(n), now);
    }
    let own = common::group(0x777);
    engine.handle_local_packet(common::join(own).into(), now);
    for piece in pieces(data).take(64) {
        let Some(([what, wait], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        now += Duration::from_millis(u64::from(*wait) * 10);
        let n = u16::from(what >> 6);
        let link = LinkId(FIRST + u32::from(n));
        match what % 8 {
            0 => engine.handle_control(link, bytes, now),
            1 => engine.handle_data(link, Bytes::copy_from_slice(bytes), now),
            2 => {
                engine.handle_link_down(link, now);
                engine.handle_link_up(link, leaf(n), now);
            }
            // packets to asking groups, from whatever address
            4 => {
                let mut group = common::group(u16::from(*wait % 4)).segments();
                group[1] = 0x7570;
                let from = common::addresses(2).address;
                let packet = udp_packet(from, group.into(), (1, 1), bytes);
                let header = DataHeader { incarnation: 0, ..common::header(OriginId(0), 0) };
                let message = [&header.encode()[..], &packet].concat();
                engine.handle_data(link, message.into(), now);
            }
            3 => {
                let group = common::group(u16::from(*wait));
                let packet = common::udp(common::addresses(1).address, group, bytes);
                engine.handle_local_packet(packet.into(), now);
            }
            _ => {
                for message in joins(bytes) {
                    engine.handle_control(link, &message, now);
                }
            }
        }
        if engine.next_timeout().is_some_and(|(at, _)| at <= now) {
            engine.handle_timeout(now);
        }
        while let Some(output) = others[0].poll_output() {
            if let Output::Control { message, .. } = output {
                engine.handle_control(LinkId(2), &message, now);
            }
        }
        let mut told = 0;
        while let Some(output) = engine.poll_output() {
            told += 1;
            assert!(told < 10_000, "it says no end of things: {output:?}");
            match output {
                Output::Control { link: LinkId(2), message } => {
                    others[0].handle_control(LinkId(1), &message, now);
                }
                Output::Control { message, .. } => {
                    assert!(lcroute_engine::control::decode(&message).is_ok());
                }
                _ => {}
            }
        }
    }
});
