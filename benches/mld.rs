//! Parsing a full MLDv2 report, and the checksum of a packet's size.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::net::Ipv6Addr;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use librecast::checksum::Sum;
use librecast::mld::{self, Record, RecordType};

fn benches_of_mld(criterion: &mut Criterion) {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let record = |n| {
        let group = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0, n);
        Record::new(RecordType::ChangeToExclude, group, Vec::new())
    };
    for records in [1, 60] {
        let records: Vec<Record> = (0..records).map(record).collect();
        let report = mld::report_packets(source, &records, 1280).remove(0);
        let mut bench = criterion.benchmark_group("mld");
        bench.throughput(Throughput::Elements(records.len() as u64));
        bench.bench_function(format!("parse a report of {}", records.len()), |bench| {
            bench.iter(|| mld::parse_packet(black_box(&report)).unwrap());
        });
    }
    let packet = vec![0x5a; 1_208];
    let mut bench = criterion.benchmark_group("checksum");
    bench.throughput(Throughput::Bytes(packet.len() as u64));
    bench.bench_function("1,208 bytes", |bench| {
        bench.iter(|| Sum::default().bytes(black_box(&packet)).fold());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = benches_of_mld
}
criterion_main!(benches);
