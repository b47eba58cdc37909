//! Cost of a topology change: a new graph and each tree in use. Cost of a packet: its edge.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lcroute_engine::graph::{Graph, Tree};
use librecast::id::OriginId;
use librecast::random::Random;

type Links = Vec<(OriginId, OriginId, u16)>;

/// Four random rings: eight links for each router, of 5 to 100 ms.
fn links(routers: usize) -> (Vec<OriginId>, Links) {
    let mut random = Random::new(7);
    let names: Vec<OriginId> = (0..routers).map(|_| OriginId(random.next())).collect();
    let mut links = Links::new();
    for _ in 0..4 {
        let mut ring = names.clone();
        ring.sort_by_cached_key(|_| random.next());
        for at in 0..routers {
            let cost = 50 + (random.next() % 950) as u16;
            links.push((ring[at], ring[(at + 1) % routers], cost));
        }
    }
    (names, links)
}

fn benches(c: &mut Criterion) {
    for routers in [100, 1_000, 4_000] {
        let (names, links) = links(routers);
        let graph = Arc::new(Graph::new(1, [], &links));
        let tree = Tree::compute(&graph, names[0]).unwrap();
        assert!(names.iter().all(|&x| tree.contains(x)));
        c.bench_with_input(BenchmarkId::new("graph", routers), &links, |b, links| {
            b.iter(|| Graph::new(1, [], black_box(links)));
        });
        c.bench_with_input(BenchmarkId::new("tree", routers), &graph, |b, graph| {
            let mut at = 0;
            b.iter(|| {
                at = (at + 1) % names.len();
                Tree::compute(black_box(graph), names[at])
            });
        });
        c.bench_with_input(BenchmarkId::new("edge", routers), &tree, |b, tree| {
            let mut at = 0;
            b.iter(|| {
                at = (at + 7) % names.len();
                black_box(tree).edge(names[3], names[at])
            });
        });
    }
}

criterion_group! {
    name = group;
    config = Criterion::default();
    targets = benches
}
criterion_main!(group);
