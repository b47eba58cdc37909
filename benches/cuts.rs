//! Cuts of large files: speed on one core, mean length, and cost of a second sync, beside cuts at
//! fixed places and the `fastcdc` crate.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::time::Instant;

use fastcdc::v2020::{FastCDC, Normalization};
use lcsync::block::{BlockRef, MAX_BLOCK};
use lcsync::cut::Cutter;
use librecast::random::Random;

const SIZE: usize = 1 << 30;
const CHANGES: usize = 10;

type Rule = Box<dyn Fn(&[u8]) -> Vec<BlockRef>>;

/// Bytes that do not repeat.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    Random::new(seed).bytes(length)
}

fn ours(bytes: &[u8]) -> Vec<BlockRef> {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.write_all(bytes).unwrap();
    let file = File::open(file.path()).unwrap();
    let start = Instant::now();
    let mut cutter = Cutter::new(&file, bytes.len() as u64);
    let blocks = std::iter::from_fn(|| cutter.next_block().unwrap()).collect();
    let rate = bytes.len() as f64 / 1e9 / start.elapsed().as_secs_f64();
    print!("[{rate:.2} GB/s read, cut and hashed] ");
    blocks
}

fn fast(least: usize, average: usize, level: Normalization) -> Rule {
    Box::new(move |bytes| {
        let start = Instant::now();
        let chunks = FastCDC::with_level(bytes, least << 10, average << 10, MAX_BLOCK, level);
        let blocks = chunks
            .map(|c| BlockRef::of(&bytes[c.offset..c.offset + c.length]))
            .collect();
        let rate = bytes.len() as f64 / 1e9 / start.elapsed().as_secs_f64();
        print!("[{rate:.2} GB/s] ");
        blocks
    })
}

/// Bytes of blocks that only the second version has, with hash nodes, per cent.
fn cost(old: &[BlockRef], new: &[BlockRef]) -> f64 {
    let old: HashSet<&BlockRef> = old.iter().collect();
    let fresh = new.iter().filter(|b| !old.contains(b));
    let bytes: u64 = fresh.map(|b| u64::from(b.length)).sum();
    let nodes = 44 * new.len() as u64;
    (bytes + nodes) as f64 / SIZE as f64 * 100.0
}

fn main() {
    // cargo's own arguments are ignored
    let mut rules: Vec<(String, Rule)> = vec![
        ("largest hash (lcsync)".into(), Box::new(ours)),
        (
            "fixed".into(),
            Box::new(|b| b.chunks(MAX_BLOCK).map(BlockRef::of).collect()),
        ),
    ];
    let levels = [(0, Normalization::Level0), (1, Normalization::Level1)];
    for (least, average) in [(64, 128), (96, 128), (128, 128), (96, 192)] {
        for (n, level) in levels {
            let name = format!("fastcdc {least}/{average}/256 level {n}");
            rules.push((name, fast(least, average, level)));
        }
    }
    let old = noise(1, SIZE);
    let mut changed = old.clone();
    for n in 0..CHANGES {
        let length = SIZE / 100 / CHANGES;
        let at = SIZE / CHANGES * n + 7_654_321 * (n + 1) % (SIZE / CHANGES - length);
        changed[at..at + length].copy_from_slice(&noise(100 + n as u64, length));
    }
    // a whole number of blocks would favour fixed cuts
    let inserted = [noise(2, (1 << 20) + 1), old.clone()].concat();
    for (name, rule) in rules {
        print!("{name}: ");
        let blocks = rule(&old);
        let mean = SIZE as f64 / blocks.len() as f64 / 1024.0;
        let (a, b) = (
            cost(&blocks, &rule(&changed)),
            cost(&blocks, &rule(&inserted)),
        );
        println!(
            "mean {mean:.0} KiB; second sync after 10 changes of 1 % {a:.2} %, after 1 MiB in front {b:.2} %"
        );
    }
}
