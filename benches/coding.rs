//! RaptorQ over a block of 256 KiB: repair symbols, and decoding from them.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use librecast::coding::{Decoder, Encoder, Progress, SYMBOL_SIZE};

const BLOCK: usize = 256 << 10;

fn block() -> Vec<u8> {
    (0..BLOCK).map(|at| ((at * 31) >> 3) as u8).collect()
}

fn encode(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("coding");
    bench.throughput(Throughput::Bytes(BLOCK as u64));
    bench.bench_function("encode 256 KiB, all as repair symbols", |bench| {
        bench.iter_batched(
            block,
            |block| {
                let mut encoder = Encoder::new(block).unwrap();
                let symbols = encoder.symbols();
                let mut out = Vec::with_capacity(BLOCK);
                for esi in symbols..2 * symbols {
                    encoder.symbol(esi, &mut out).unwrap();
                }
                out
            },
            BatchSize::LargeInput,
        );
    });
    for lost in [5, 100] {
        let received = received(lost);
        bench.bench_function(format!("decode 256 KiB, {lost} % lost"), |bench| {
            bench.iter(|| black_box(decode(&received)));
        });
    }
}

/// Returns the symbols that arrive if `lost` percent of the source symbols do not.
fn received(lost: u32) -> Vec<(u32, Vec<u8>)> {
    let mut encoder = Encoder::new(block()).unwrap();
    let symbols = encoder.symbols();
    let arrives = move |esi: &u32| *esi >= symbols || esi * 37 % 100 >= lost;
    (0..3 * symbols)
        .filter(arrives)
        .map(|esi| {
            let mut symbol = Vec::with_capacity(SYMBOL_SIZE);
            encoder.symbol(esi, &mut symbol).unwrap();
            (esi, symbol)
        })
        .collect()
}

fn decode(received: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut decoder = Decoder::new(BLOCK).unwrap();
    for (esi, symbol) in received {
        if let Progress::Decoded(block) = decoder.receive(*esi, symbol).unwrap() {
            return block;
        }
    }
    panic!("not decoded from {} symbols", received.len());
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = encode
}
criterion_main!(benches);
