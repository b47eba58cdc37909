//! The engine's work for each packet: at the sender the joins, at the receiver the duplicate window
//! and the joins of local programs.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../lcroute/engine/tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{KERNEL, addresses, config, group, neighbor, start, udp};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lcroute_engine::{Engine, Output};
use librecast::id::LinkId;
use librecast::mld::{self, Record, RecordType};

/// Packets between two reads of the clock.
const BATCH: usize = 64;
const PAYLOAD: usize = 1_200;

/// Two nodes with a link; programs on the second have joined groups.
struct Pair {
    sender: Engine,
    listener: Engine,
    now: Instant,
    packets: Vec<Bytes>,
    next: usize,
}

/// The links at both ends.
const TO_LISTENER: LinkId = LinkId(2);
const TO_SENDER: LinkId = LinkId(1);

impl Pair {
    fn new(groups: u16) -> Self {
        let now = start();
        let (mut sender, mut listener) = (
            common::engine(config(1), now),
            common::engine(config(2), now),
        );
        sender.handle_start(now);
        listener.handle_start(now);
        sender.handle_link_up(TO_LISTENER, neighbor(2), now);
        listener.handle_link_up(TO_SENDER, neighbor(1), now);
        let joins: Vec<Record> = (0..groups)
            .map(|n| Record::new(RecordType::ChangeToExclude, group(n), Vec::new()))
            .collect();
        for report in mld::report_packets(KERNEL, &joins, 1280) {
            listener.handle_local_packet(report.into(), now);
        }
        let from: Ipv6Addr = addresses(1).address;
        let packet = |n| Bytes::from(udp(from, group(n), &[0x5a; PAYLOAD]));
        let mut pair = Self {
            sender,
            listener,
            now,
            packets: (0..groups).map(packet).collect(),
            next: 0,
        };
        pair.settle();
        pair
    }

    /// Runs both nodes for ten seconds of their time.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.now += Duration::from_millis(10);
            let others = std::slice::from_mut(&mut self.listener);
            common::exchange(&mut self.sender, others, self.now);
        }
    }

    /// Sends to all groups in turn; returns the engine's time and the packets sent.
    fn send(&mut self) -> (Duration, Vec<Bytes>) {
        let batch: Vec<Bytes> = (0..BATCH)
            .map(|at| self.packets[(self.next + at) % self.packets.len()].clone())
            .collect();
        self.next += BATCH;
        let mut sent = Vec::with_capacity(BATCH);
        let began = Instant::now();
        for packet in batch {
            self.sender.handle_local_packet(packet, self.now);
            while let Some(output) = self.sender.poll_output() {
                sent.push(output);
            }
        }
        let took = began.elapsed();
        let message = |output| match output {
            Output::Data { header, packet, .. } => Bytes::from([&header[..], &packet].concat()),
            other => panic!("{other:?}"),
        };
        let messages: Vec<Bytes> = sent.into_iter().map(message).collect();
        assert_eq!(messages.len(), BATCH, "every group is wanted");
        (took, messages)
    }

    fn receive(&mut self, messages: Vec<Bytes>) -> Duration {
        let mut delivered = 0;
        let began = Instant::now();
        for message in messages {
            self.listener.handle_data(TO_SENDER, message, self.now);
            while let Some(output) = self.listener.poll_output() {
                delivered += usize::from(matches!(black_box(output), Output::Local { .. }));
            }
        }
        let took = began.elapsed();
        assert_eq!(delivered, BATCH, "every packet is new and joined");
        took
    }
}

/// The time of `iterations` packets, measured in batches.
fn batches(iterations: u64, mut batch: impl FnMut() -> Duration) -> Duration {
    let count = iterations.div_ceil(BATCH as u64);
    let sum: Duration = (0..count).map(|_| batch()).sum();
    sum.mul_f64(iterations as f64 / (count * BATCH as u64) as f64)
}

/// Time of one lookup in a standard hash map on this machine, for comparison.
fn machine(criterion: &mut Criterion) {
    let map: std::collections::HashMap<Ipv6Addr, u64> =
        (0..2_000).map(|n| (group(n), n.into())).collect();
    let mut next = 0;
    criterion.bench_function("machine/hash map lookup, 2,000 entries", |bench| {
        bench.iter(|| {
            next = (next + 1) % 2_000;
            *black_box(&map).get(&group(next)).unwrap()
        });
    });
}

fn engine(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("engine");
    bench.throughput(Throughput::Elements(1));
    for groups in [1, 100, 2_000] {
        let mut pair = Pair::new(groups);
        bench.bench_function(BenchmarkId::new("forward, groups", groups), |bench| {
            bench.iter_custom(|iterations| batches(iterations, || pair.send().0));
        });
        let mut pair = Pair::new(groups);
        bench.bench_function(BenchmarkId::new("receive, groups", groups), |bench| {
            bench.iter_custom(|iterations| {
                batches(iterations, || {
                    let (_, messages) = pair.send();
                    pair.receive(messages)
                })
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = machine, engine
}
criterion_main!(benches);
