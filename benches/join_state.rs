//! The cost of join state: changes a second, and memory for a million entries.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

#[path = "../lcroute/engine/tests/common/mod.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{addresses, config, neighbor, start};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lcroute_engine::control::{Batch, Element, JoinState};
use lcroute_engine::{Config, Engine, Limits, Output, SourceFilter};
use librecast::cert::GroupPrefix;
use librecast::id::LinkId;

/// Counts allocated bytes.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A router between two neighbours: joins of 3 are advertised to 2.
struct Middle {
    engine: Engine,
    others: [Engine; 2],
    now: Instant,
}

impl Middle {
    fn new() -> Self {
        let now = start();
        let limits = Limits {
            join_states_per_neighbor: 2_000_000,
            small_network: 0,
            ..Limits::DEFAULT
        };
        let root = Config {
            announce: vec![GroupPrefix::ALL],
            ..config(2)
        };
        let middle = Config {
            limits,
            ..config(1)
        };
        let mut all = Self {
            engine: common::engine(middle, now),
            others: [common::engine(root, now), common::engine(config(3), now)],
            now,
        };
        for n in [2, 3] {
            all.engine
                .handle_link_up(LinkId(n.into()), neighbor(n), now);
            all.others[usize::from(n) - 2].handle_link_up(LinkId(1), neighbor(1), now);
        }
        for _ in 0..1_000 {
            all.now += Duration::from_millis(10);
            common::exchange(&mut all.engine, &mut all.others, all.now);
        }
        all
    }

    /// Neighbour 3 sends these; returns the router's time, and the number of messages sent.
    fn receive(&mut self, messages: &[Bytes]) -> (Duration, usize) {
        let mut sent = 0;
        let began = Instant::now();
        for message in messages {
            self.engine.handle_control(LinkId(3), message, self.now);
            while let Some(output) = self.engine.poll_output() {
                sent += usize::from(matches!(black_box(output), Output::Control { .. }));
            }
        }
        (began.elapsed(), sent)
    }
}

fn group(n: u32) -> Ipv6Addr {
    let [high, low] = [(n >> 16) as u16, n as u16];
    Ipv6Addr::new(0xff1e, 7, 0, 0, 0, 0, high, low)
}

fn messages(groups: std::ops::Range<u32>, wanted: bool) -> Vec<Bytes> {
    let mut batch = Batch::default();
    for n in groups {
        batch.push(&Element::JoinState(JoinState {
            root: addresses(2).origin,
            prefix: GroupPrefix::group(group(n)),
            join: wanted.then(SourceFilter::all),
            source_active: false,
        }));
    }
    batch.finish()
}

const CHANGES: u32 = 1_000;

fn join_state(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("join_state");
    bench.throughput(Throughput::Elements(u64::from(CHANGES) * 2));
    let mut middle = Middle::new();
    let joins = messages(0..CHANGES, true);
    let leaves = messages(0..CHANGES, false);
    bench.bench_function("join and leave, passed on", |bench| {
        bench.iter_custom(|iterations| {
            let mut took = Duration::ZERO;
            for _ in 0..iterations {
                for messages in [&joins, &leaves] {
                    let (time, sent) = middle.receive(messages);
                    took += time;
                    assert!(sent > 0, "it is advertised to the root");
                }
            }
            took
        });
    });
    bench.finish();
    million(&mut middle);
}

/// A million groups that one neighbour joins and that are advertised to another.
fn million(middle: &mut Middle) {
    const ENTRIES: u32 = 1_000_000;
    let before = ALLOCATED.load(Ordering::Relaxed);
    for first in (0..ENTRIES).step_by(10_000) {
        middle.receive(&messages(first..first + 10_000, true));
    }
    let grown = ALLOCATED.load(Ordering::Relaxed) - before;
    let entries = middle.engine.tables().join_states;
    assert!(entries >= ENTRIES as usize);
    println!(
        "join_state/memory       {entries} entries: {} MiB, {} bytes each",
        grown >> 20,
        grown / entries
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = join_state
}
criterion_main!(benches);
