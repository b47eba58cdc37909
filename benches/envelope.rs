//! Verification of commands: an attacker's possible load on an agent.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lcagent::answer::{Segment, seal};
use lcagent::datagram::{JobId, Kind};
use lcagent::envelope::{Command, Standing, open};
use lcagent::replay::ReplayWindow;
use librecast::id::SecretKey;
use librecast::time::UnixTime;

fn benches_of_envelopes(criterion: &mut Criterion) {
    let key = SecretKey::from_seed(&[1; 32]);
    let operator = key.peer_id();
    let command = Command {
        selector: "role=web,!site=berlin*".parse().unwrap(),
        issued: 1_800_000_000,
        not_after: 1_800_000_060,
        sequence: 1,
        nonce: [9; 16],
        payload: vec![7; 200],
    };
    let envelope = command.sign(&key).unwrap().envelope;
    let replay = ReplayWindow::new();
    let mut bench = criterion.benchmark_group("envelope");
    bench.throughput(Throughput::Elements(1));
    bench.bench_function("verify a command", |bench| {
        bench.iter(|| {
            open(
                black_box(&envelope),
                UnixTime::from_secs(1_800_000_000),
                |k, _| {
                    if *k == operator {
                        Standing::Listed
                    } else {
                        Standing::Unknown
                    }
                },
                &replay,
                || true,
            )
            .unwrap()
        });
    });
    let segment = seal(&key, JobId([3; 8]), None, 0, &[5; 300]);
    bench.bench_function("verify a segment of an answer", |bench| {
        bench.iter(|| {
            let (kind, r) = Kind::read(black_box(&segment)).unwrap();
            assert!(Segment::decode(&segment, kind, r).unwrap().verify());
        });
    });
    bench.bench_function("seal a segment of an answer", |bench| {
        bench.iter(|| seal(&key, JobId([3; 8]), None, 0, black_box(&[5; 300])));
    });
    bench.finish();
}

criterion_group!(benches, benches_of_envelopes);
criterion_main!(benches);
