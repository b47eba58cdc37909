//! Bytes from outside in any order and form: no panic, bounded tables, no harm to other nodes.

use crate::common;

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use common::{KERNEL, addresses, config, group, join, neighbor, start, udp};
use lcroute_engine::control::{Batch, Element, JoinState, MAX_MESSAGE, RefusalReason};
use lcroute_engine::header::{DataHeader, Payload};
use lcroute_engine::{Config, Engine, LC0, Limits, Output, SourceFilter, Tables};
use librecast::cert::GroupPrefix;
use librecast::id::{LinkId, OriginId};
use librecast::mld::{self, Record, RecordType};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    groups: 20,
    reporters: 3,
    join_states_per_neighbor: 15,
    sources_per_neighbor: 40,
    prefixes_per_neighbor: 5,
    flows: 10,
    buffered_packets: 4,
    buffered_bytes: 1_000,
    duplicate_window: 4_096,
    ..Limits::DEFAULT
};

const HELLO: Element = Element::Hello {
    incarnation: 1,
    salt: 7,
};

#[derive(Debug, Clone)]
enum Input {
    Local(Vec<u8>),
    Data(u32, Vec<u8>),
    Control(u32, Vec<u8>),
    Up(u32, u16),
    Down(u32),
    Overflow,
    Start,
    Listed(Vec<Ipv6Addr>),
    Wait(u64),
}

fn any_group() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        8 => (0u16..40).prop_map(group),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits | 0xff << 120)),
        1 => Just(common::MDNS),
    ]
}

fn any_source() -> impl Strategy<Value = Ipv6Addr> {
    prop_oneof![
        8 => (1u16..5).prop_map(|n| addresses(n).address),
        2 => (1u16..5).prop_map(|n| addresses(n).link_local),
        1 => any::<u128>().prop_map(Ipv6Addr::from_bits),
    ]
}

fn any_report() -> impl Strategy<Value = Vec<u8>> {
    let sources = prop::collection::vec(any_source(), 0..6);
    let record = (1u8..=6, any_group(), sources, any::<bool>()).prop_map(|(kind, g, s, many)| {
        let times = if many { 30 } else { 1 };
        let sources = s.iter().cycle().take(s.len() * times).copied();
        // distinct sources, so that bounds are reached
        let sources = sources
            .enumerate()
            .map(|(i, s)| Ipv6Addr::from_bits(s.to_bits() + i as u128));
        Record::new(RecordType::from_code(kind).unwrap(), g, sources.collect())
    });
    let reporter = prop_oneof![
        5 => Just(KERNEL),
        1 => (0u16..6).prop_map(|n| addresses(n).link_local),
        1 => Just(Ipv6Addr::UNSPECIFIED),
    ];
    (reporter, prop::collection::vec(record, 1..4))
        .prop_map(|(from, records)| mld::report_packets(from, &records, 9_000).remove(0))
}

fn any_element() -> impl Strategy<Value = Element> {
    let root = || (1u16..5).prop_map(|n| addresses(n).origin);
    let filter = prop_oneof![
        Just(None),
        Just(Some(SourceFilter::all())),
        prop::collection::vec(any_source(), 1..20).prop_map(SourceFilter::include),
        prop::collection::vec(any_source(), 1..20).prop_map(|s| Some(SourceFilter::exclude(s))),
    ];
    let prefix = || {
        (any_group(), prop_oneof![4 => Just(128u8), 1 => 8u8..=128])
            .prop_map(|(g, len)| GroupPrefix::around(g, len).unwrap())
    };
    let join_state = (root(), prefix(), filter, any::<bool>()).prop_map(
        |(root, prefix, join, source_active)| {
            Element::JoinState(JoinState {
                root,
                prefix,
                join,
                source_active,
            })
        },
    );
    let refusal = (root(), prefix()).prop_map(|(root, prefix)| Element::Refusal {
        reason: RefusalReason::TooManyGroups,
        root,
        prefix,
    });
    prop_oneof![8 => join_state, 2 => refusal, 1 => Just(HELLO)]
}

fn encoded(elements: &[Element]) -> Vec<u8> {
    let mut batch = Batch::default();
    elements.iter().for_each(|e| batch.push(e));
    batch.finish().pop().unwrap_or_default().to_vec()
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => (any_source(), any_group()).prop_map(|(s, g)| udp(s, g, &[0; 100])),
        3 => any_report(),
        1 => prop::collection::vec(any::<u8>(), 0..120),
    ]
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let header = (1u16..4, any::<u32>(), 0u64..1 << 48, any::<bool>()).prop_map(
        |(n, incarnation, sequence, right)| {
            let origin = addresses(n).origin;
            let root = if right { origin } else { OriginId(9) };
            let incarnation = if right { 1 } else { incarnation };
            DataHeader {
                payload: Payload::Ipv6,
                flags: 0,
                hop_limit: 3,
                root,
                origin,
                incarnation,
                sequence,
            }
        },
    );
    prop_oneof![
        4 => (header, any_packet()).prop_map(|(h, p)| [&h.encode()[..], &p].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..120),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    let link = || 0u32..4;
    let elements = prop::collection::vec(any_element(), 0..20).prop_map(|mut elements| {
        elements.retain(|e| !matches!(e, Element::Hello { .. }));
        encoded(&elements)
    });
    let any_elements = prop::collection::vec(any_element(), 0..20).prop_map(|e| encoded(&e));
    prop_oneof![
        6 => any_packet().prop_map(Input::Local),
        4 => (link(), any_message()).prop_map(|(l, m)| Input::Data(l, m)),
        8 => (link(), elements).prop_map(|(l, m)| Input::Control(l, m)),
        1 => (link(), any_elements).prop_map(|(l, m)| Input::Control(l, m)),
        1 => (link(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(l, m)| Input::Control(l, m)),
        4 => (link(), 2u16..4).prop_map(|(l, n)| Input::Up(l, n)),
        1 => link().prop_map(Input::Down),
        1 => Just(Input::Overflow),
        1 => Just(Input::Start),
        1 => prop::collection::vec(any_group(), 0..3).prop_map(Input::Listed),
        3 => (0u64..20_000).prop_map(Input::Wait),
    ]
}

fn apply(engine: &mut Engine, input: &Input, now: &mut Instant) {
    match input {
        Input::Local(packet) => engine.handle_local_packet(packet.clone().into(), *now),
        Input::Data(link, message) => {
            engine.handle_data(LinkId(*link), message.clone().into(), *now);
        }
        Input::Control(link, message) => engine.handle_control(LinkId(*link), message, *now),
        Input::Up(link, n) => {
            engine.handle_link_up(LinkId(*link), neighbor(*n), *now);
            let hello = encoded(&[HELLO]);
            engine.handle_control(LinkId(*link), &hello, *now);
        }
        Input::Down(link) => engine.handle_link_down(LinkId(*link), *now),
        Input::Overflow => engine.handle_lost_reports(LC0, *now),
        Input::Start => engine.handle_start(*now),
        Input::Listed(groups) => engine.set_link_scope_groups(groups, *now),
        Input::Wait(ms) => wait(engine, Duration::from_millis(*ms), now),
    }
}

/// Runs timers in order: each call has the requested time, and makes progress.
fn wait(engine: &mut Engine, time: Duration, now: &mut Instant) {
    let end = *now + time;
    let mut calls = 0;
    while let Some((at, kind)) = engine.next_timeout().filter(|(at, _)| *at <= end) {
        *now = at.max(*now);
        engine.handle_timeout(*now);
        drain(engine);
        calls += 1;
        assert!(calls < 20_000, "timer {kind:?} spins");
    }
    *now = end;
}

fn drain(engine: &mut Engine) {
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Control { message, .. } | Output::RoutedControl { message, .. } => {
                assert!(message.len() <= MAX_MESSAGE);
            }
            Output::Data { links, .. } => assert!(!links.is_empty()),
            Output::LocalMld { packet } => {
                assert!(packet.len() <= 1280);
                mld::parse_packet(&packet).unwrap();
            }
            _ => {}
        }
    }
}

fn check_bounds(engine: &Engine) {
    let snapshot = engine.snapshot();
    let tables = snapshot.tables;
    let links = snapshot.neighbors.len();
    assert!(tables.listener_groups <= LIMITS.groups);
    // of local programs: groups, groups with sources on a tree each, and flows
    let local = LIMITS.groups * (mld::MAX_SOURCES + 1) + LIMITS.flows;
    assert!(tables.join_states <= LIMITS.join_states_per_neighbor * links + local);
    assert!(tables.flows <= LIMITS.flows && tables.buffered_bytes <= LIMITS.buffered_bytes);
    assert!(tables.refused <= LIMITS.groups * links);
    assert!(tables.origins <= links);
    for neighbor in &snapshot.neighbors {
        assert!(neighbor.join_states <= LIMITS.join_states_per_neighbor);
        assert!(neighbor.sending_prefixes <= LIMITS.prefixes_per_neighbor);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn any_inputs_keep_the_bounds(inputs in prop::collection::vec(any_input(), 1..150)) {
        let mut now = start();
        let mut engine = common::engine(Config { limits: LIMITS, ..config(1) }, now);
        engine.handle_start(now);
        for input in &inputs {
            apply(&mut engine, input, &mut now);
            if matches!(input, Input::Wait(_)) {
                drain(&mut engine);
            }
            check_bounds(&engine);
        }
        for link in 0..4 {
            engine.handle_link_down(LinkId(link), now);
        }
        drain(&mut engine);
        wait(&mut engine, Duration::from_secs(600), &mut now);
        // the router itself
        let left = Tables { routers: 1, ..Tables::default() };
        prop_assert_eq!(engine.snapshot().tables, left);
    }
}

#[test]
fn a_flooding_neighbour_harms_nobody_else() {
    let mut now = start();
    let mut engine = common::engine(
        Config {
            announce: vec![GroupPrefix::ALL],
            ..config(1)
        },
        now,
    );
    engine.handle_start(now);
    let mut others = [2, 3].map(|n| common::engine(config(n), now));
    for (n, other) in (2..).zip(&mut others) {
        engine.handle_link_up(LinkId(n.into()), neighbor(n), now);
        other.handle_link_up(LinkId(1), neighbor(1), now);
    }
    for _ in 0..1_000 {
        now += Duration::from_millis(10);
        common::exchange(&mut engine, &mut others, now);
    }
    let root = addresses(1).origin;
    let wants = |g: Ipv6Addr| {
        let prefix = GroupPrefix::group(g);
        Element::JoinState(JoinState {
            root,
            prefix,
            join: Some(SourceFilter::all()),
            source_active: false,
        })
    };
    for batch in 0..100u16 {
        let group = |n: u16| Ipv6Addr::new(0xff1e, 7, 0, 0, 0, 0, batch, n);
        let elements: Vec<_> = (0..800).map(|n| wants(group(n))).collect();
        engine.handle_control(LinkId(2), &encoded(&elements), now);
        drain(&mut engine);
    }
    let limit = Limits::default().join_states_per_neighbor;
    let snapshot = engine.snapshot();
    assert_eq!(snapshot.neighbors[0].join_states, limit);
    assert_eq!(
        snapshot.counters.drops["join_refused"],
        (80_000 - limit) as u64
    );
    engine.handle_control(LinkId(3), &encoded(&[wants(group(1))]), now);
    engine.handle_local_packet(join(group(2)).into(), now);
    drain(&mut engine);
    engine.handle_local_packet(udp(addresses(1).address, group(1), b"x").into(), now);
    let Some(Output::Data { links, .. }) = engine.poll_output() else {
        panic!("no data")
    };
    assert_eq!(links[..], [LinkId(3)]);
}
