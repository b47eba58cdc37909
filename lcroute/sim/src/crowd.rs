//! The cost of greedy leaves and members for other nodes: one network with and without them.
//!
//! ```text
//!   ... at rest ──> leaves at router 1: groups, sources, changes, reconnects, at full speed
//!                   members 2 and 3: together nearly as many groups as a neighbour keeps
//!                   all other nodes: streams with listeners, and a new listener each second
//! ```

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use bytes::Bytes;
use lcroute_engine::control::{Batch, Element, LeafJoin};
use lcroute_engine::{Limits, SourceFilter};
use librecast::cert::GroupPrefix;

use crate::measure::{Bench, REST, Subject};
use crate::scenario::Policy;
use crate::shard::FIRST_LEAF_LINK;
use crate::statistics::JOIN_STATE;
use crate::time::{MILLISECOND, Nanos, SECOND};

/// The router with the leaves.
const ROUTER: u32 = 1;
/// Members with very many groups.
const GREEDY: [u32; 2] = [2, 3];
/// Groups of each greedy member. Chosen: both nearly fill a neighbour's bound. Above it, routers
/// without links to them could not distinguish their joins from the rest behind that neighbour.
const GREEDY_GROUPS: u32 = 8_000;
/// Interval of each stream's packets.
const PERIOD: Nanos = 20 * MILLISECOND;
/// Streams, each from another router.
const STREAMS: u32 = 3;
/// Listeners of each stream.
const LISTENERS: u32 = 5;

#[derive(Debug, Default)]
struct Others {
    /// Packets of streams delivered to listeners.
    delivered: usize,
    /// The longest gap of a stream at a listener.
    gap: Nanos,
    /// Time from a join to its first packet, summed over joins.
    joining: Nanos,
    /// Joins without a packet.
    deaf: usize,
    /// Bytes of control messages, without join state.
    bytes: u64,
}

fn group(n: u32) -> Ipv6Addr {
    Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 7, (n >> 16) as u16, n as u16)
}

fn leaf_joins(joins: impl Iterator<Item = (Ipv6Addr, Option<SourceFilter>)>) -> Vec<Bytes> {
    let mut batch = Batch::default();
    for (group, join) in joins {
        let group = GroupPrefix::group(group);
        batch.push(&Element::LeafJoin(LeafJoin { group, join }));
    }
    batch.finish()
}

/// Returns a leaf's messages of one second: the most changes allowed, half with invented sources.
fn changes(bench: &Bench, leaf: u32, second: u32) -> Vec<Bytes> {
    let network = bench.simulation.population.address(0).segments();
    let source = |n: u32| {
        let [a, b, c, ..] = network;
        Ipv6Addr::new(a, b, c, 0, 0, 1, (n >> 16) as u16, n as u16)
    };
    let joins = (0..32).flat_map(|k| {
        let n = (leaf * 64 + second) * 32 + k;
        let before = group(0x10_0000 + n.saturating_sub(32));
        let filter = match k % 2 {
            0 => Some(SourceFilter::all()),
            _ => SourceFilter::include((0..16).map(|s| source(n * 16 + s))),
        };
        // it keeps its groups as long as permitted
        let ends = (second % 4 == 3).then_some((before, None));
        ends.into_iter().chain([(group(0x10_0000 + n), filter)])
    });
    leaf_joins(joins)
}

/// Runs the network, and counts for `seconds`.
fn run(nodes: u32, seconds: u32, is_crowded: bool) -> Others {
    let mut bench = Bench::new(
        Subject {
            nodes,
            policy: Policy::Regular,
            degree: 4,
            seed: 1,
        },
        1,
    );
    bench.run(REST);
    let leaves = Limits::default().leaves as u32;
    let member = bench.simulation.population.leaf();
    // neither the leaves' router nor a greedy member
    let other = |n: u32| 4 + n % (nodes - 4);
    let streams: Vec<_> = (0..STREAMS).map(|n| (other(n), bench.group())).collect();
    for (n, (_, group)) in (0..).zip(&streams) {
        for listener in 0..LISTENERS {
            bench.join(other(n + 1 + 2 * listener), *group);
        }
        // a program on the leaves' router
        bench.join(ROUTER, *group);
    }
    bench.run(5 * SECOND);
    let before = bench.simulation.statistics().control;
    if is_crowded {
        for (turn, node) in (1..).zip(GREEDY) {
            let first = turn << 24;
            let groups: Vec<_> = (first..first + GREEDY_GROUPS).map(group).collect();
            bench.simulation.join_all(node, &groups);
        }
        for leaf in 0..leaves {
            let link = FIRST_LEAF_LINK + leaf;
            let up =
                |router: &mut crate::router::RouterAlone, now| router.leaf_up(link, &member, now);
            bench.simulation.alone(ROUTER, up);
        }
    }
    let mut others = Others::default();
    let mut heard: BTreeMap<(u32, u64), Vec<Nanos>> = BTreeMap::new();
    let mut joined = Vec::new();
    let mut streams_of = BTreeMap::new();
    bench.simulation.watch_deliveries();
    for second in 0..seconds {
        let fresh = bench.group();
        let (speaker, listener) = (other(2 * second), other(2 * second + 5));
        for tick in 0..SECOND / PERIOD {
            if is_crowded {
                // each leaf has its own tick
                for leaf in (tick as u32..leaves).step_by((SECOND / PERIOD) as usize) {
                    let (link, churns) = (FIRST_LEAF_LINK + leaf, (leaf + second) % 8 == 0);
                    let messages = changes(&bench, leaf, second);
                    bench.simulation.alone(ROUTER, |router, now| {
                        if churns {
                            router.link_down(link, now);
                            router.leaf_up(link, &member, now);
                        }
                        for message in &messages {
                            router.control(link, message, now);
                        }
                    });
                }
            }
            if tick == 10 {
                joined.push((listener, fresh, bench.simulation.now()));
                bench.join(listener, fresh);
            }
            let fresh = (u64::MAX, (speaker, fresh));
            for (stream, (from, group)) in (0..).zip(streams.clone()).chain([fresh]) {
                let number = bench.simulation.send(from, group, 100, false);
                streams_of.insert(number, (stream, group));
            }
            bench.run(PERIOD);
        }
    }
    bench.run(2 * SECOND);
    let mut first: BTreeMap<(u32, Ipv6Addr), Nanos> = BTreeMap::new();
    for delivery in bench.simulation.take_deliveries() {
        let Some((stream, group)) = streams_of.get(&delivery.number) else {
            continue;
        };
        if *stream == u64::MAX {
            first.entry((delivery.node, *group)).or_insert(delivery.at);
        } else {
            others.delivered += 1;
            let times = heard.entry((delivery.node, *stream)).or_default();
            times.push(delivery.at);
        }
    }
    let gaps = heard
        .values()
        .flat_map(|times| times.windows(2).map(|two| two[1] - two[0]));
    others.gap = gaps.max().unwrap_or_default();
    for (listener, group, at) in joined {
        match first.get(&(listener, group)) {
            Some(heard) => others.joining += heard - at,
            None => others.deaf += 1,
        }
    }
    let since = bench.simulation.statistics().control.since(&before);
    others.bytes = since.element_bytes.iter().sum::<u64>() - since.element_bytes[JOIN_STATE];
    assert_eq!(bench.simulation.violation, None);
    others
}

/// Asserts that all results stay within 5 % of those without greedy nodes.
fn harms_nobody(nodes: u32, seconds: u32) {
    let without = run(nodes, seconds, false);
    let with = run(nodes, seconds, true);
    println!("without {without:?}\nwith    {with:?}");
    let is_near = |with: u64, without: u64| with * 100 <= without * 105;
    assert_eq!((without.deaf, with.deaf), (0, 0));
    assert!(with.delivered * 100 >= without.delivered * 95);
    assert!(is_near(with.gap, without.gap));
    assert!(is_near(with.joining, without.joining));
    assert!(is_near(with.bytes, without.bytes));
}

#[test]
fn leaves_and_members_that_do_all_they_can_harm_nobody() {
    harms_nobody(16, 4);
}

#[test]
#[ignore = "long: `make test-all`"]
fn hundreds_of_leaves_that_do_all_they_can_for_a_minute_harm_nobody() {
    harms_nobody(40, 60);
}
