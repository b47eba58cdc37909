//! A server's index: memory per group and time of a look-up, for a million groups.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::collections::HashMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use lcsync::block::{BlockHash, BlockRef, MAX_BLOCK};
use lcsync::groups::{Found, Groups, LAYERS, Located};
use lcsync::tree::Stream;

const GROUPS: u32 = 1_000_000;

/// Memory of this process, in bytes. The allocator frees parts of the measured size at once.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn blocks() -> Vec<BlockRef> {
    let block = |n: u32| BlockRef {
        hash: BlockHash::of(&n.to_be_bytes()),
        length: MAX_BLOCK as u32,
    };
    (0..GROUPS / u32::from(LAYERS)).map(block).collect()
}

fn find(criterion: &mut Criterion) {
    let leaves = blocks();
    let before = resident();
    let (_, nodes) = Stream::build(&leaves);
    let located = (0..).zip(&leaves).map(|(n, b)| Located::new(*b, n));
    let groups = Groups::new(b"", located.collect(), &leaves, None).unwrap();
    let bytes = (resident() - before) as f64 / f64::from(GROUPS);
    println!("{GROUPS} groups with the hash nodes above: {bytes:.0} bytes a group");
    // an order that no cache foresees
    let mut channels = groups.channels().to_vec();
    channels.sort_unstable_by_key(|c| c.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let before = resident();
    let map: HashMap<u64, Found> = channels
        .iter()
        .map(|c| (*c, groups.find(*c).unwrap()))
        .collect();
    let bytes = (resident() - before) as f64 / f64::from(GROUPS);
    println!("as a hash map without the hash nodes: {bytes:.0} bytes a group");
    let mut group = criterion.benchmark_group("one of a million groups");
    let mut order = channels.iter().cycle();
    group.bench_function("index", |bench| {
        bench.iter(|| black_box(&groups).find(*order.next().unwrap()).unwrap());
    });
    group.bench_function("hash map", |bench| {
        bench.iter(|| black_box(&map).get(order.next().unwrap()).unwrap().clone());
    });
    group.finish();
    drop(nodes);
}

criterion_group!(benches, find);
criterion_main!(benches);
