//! Cost of a key per symbol: sealing and opening, beside writing and parsing plain symbols.
//!
//! `cargo bench -p benches --features criterion --bench sealing`

#![allow(missing_docs, reason = "criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lcsync::block::BlockRef;
use lcsync::opener::Opener;
use lcsync::packet::{SYMBOL_PACKET, Symbol, encode_record};
use lcsync::record::Record;
use lcsync::sealing::{SALT, SEALED_PACKET, Sealer, ShareKey};
use lcsync::tree::{ROOT_SIZE, Stream};
use librecast::coding::SYMBOL_SIZE;
use librecast_program::keyfile::SharedKey;

const DATA: [u8; SYMBOL_SIZE] = [7; SYMBOL_SIZE];
const SYMBOL: Symbol<'static> = Symbol {
    server: 1,
    sequence: 2,
    channel: 3,
    block_length: 262_144,
    esi: 4,
    data: &DATA,
};

fn key() -> Arc<ShareKey> {
    Arc::new(ShareKey::new(Arc::new(SharedKey::from_bytes([1; 32])), "n"))
}

fn record() -> Record {
    Record {
        server: 1,
        generation: 1,
        root: BlockRef::of(&[0; ROOT_SIZE]),
        metadata: Stream::default(),
        channel_rate: 1,
        slow_rate: 0,
        total_rate: 0,
        max_channels: 1,
        carries: None,
        authentication: Vec::new(),
        sending: Vec::new(),
    }
}

fn append(out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&DATA);
    true
}

fn symbols(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("one symbol");
    bench.throughput(Throughput::Bytes(SYMBOL_SIZE as u64));
    let mut sealer = Sealer::new(key(), 1, [2; SALT]);
    let mut out = Vec::with_capacity(2 * SEALED_PACKET);
    bench.bench_function("plain: write", |bench| {
        bench.iter(|| {
            out.clear();
            SYMBOL.write_header(&mut out);
            black_box(append(&mut out))
        });
    });
    assert_eq!(out.len(), SYMBOL_PACKET);
    let plain = out.clone();
    bench.bench_function("sealed: write", |bench| {
        bench.iter(|| {
            out.clear();
            black_box(sealer.seal_symbol(1, &SYMBOL, &mut out, append))
        });
    });
    assert_eq!(out.len(), SEALED_PACKET);
    let now = Instant::now();
    let mut open = Opener::new(None);
    bench.bench_function("plain: parse", |bench| {
        bench.iter(|| black_box(open.open(3, &plain, now).is_ok()));
    });
    let mut opener = Opener::new(Some(key()));
    let said = sealer
        .seal_record(&encode_record(&record()).unwrap())
        .unwrap();
    opener.open(0, &said, now).unwrap();
    bench.bench_function("sealed: parse", |bench| {
        bench.iter(|| assert!(opener.open(3, &out, now).is_ok()));
    });
    let mut forged = out.clone();
    forged[500] ^= 1;
    bench.bench_function("forged: refuse", |bench| {
        bench.iter(|| assert!(opener.open(3, &forged, now).is_err()));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = symbols
}
criterion_main!(benches);
