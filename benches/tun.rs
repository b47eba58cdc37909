//! Super-packets at `lc0`: 50 datagrams of 1,200 bytes taken apart, and put together.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lcroute::bench::Train;

const DATAGRAMS: usize = 50;

fn tun(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("tun");
    bench.throughput(Throughput::Elements(DATAGRAMS as u64));
    let mut train = Train::new(DATAGRAMS, 1_200).expect("datagrams");
    assert_eq!(train.split().len(), DATAGRAMS);
    assert_eq!(train.coalesce(), 1);
    bench.bench_function("split a super-packet", |bench| {
        bench.iter(|| train.split());
    });
    bench.bench_function("coalesce datagrams", |bench| {
        bench.iter(|| train.coalesce());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = tun
}
criterion_main!(benches);
