//! Throughput of one link: two overlays in one process and thread, datagrams passed in memory,
//! 1,200-byte messages through each lane for some seconds.
//!
//! `cargo run --release -p benches --features criterion --bin throughput [SECONDS [BYTES]]`

#![allow(clippy::disallowed_methods, reason = "what is measured is real time")]

use std::time::{Duration, Instant};

use anyhow::Context;

mod pair;

use pair::{HEADER, connect, shuttle};

/// Returns the CPU time of this process, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n| -> f64 {
        let field = fields.split_whitespace().nth(n);
        field.and_then(|f| f.parse().ok()).unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn measure(media: bool, size: usize, seconds: u64) -> anyhow::Result<()> {
    let (mut a, mut b) = connect(media)?;
    let link = a.link.context("the link is up")?;
    let body = vec![0x5a; size.saturating_sub(HEADER)];
    let (began, used) = (Instant::now(), cpu());
    let (mut sent, mut full) = (0_u64, 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        let now = Instant::now();
        for _ in 0..64 {
            match a.overlay.send_data(link, [&[0x10; HEADER], &body], now) {
                Ok(()) => sent += 1,
                Err(_) => {
                    full += 1;
                    break;
                }
            }
        }
        shuttle(&mut a, &mut b);
        shuttle(&mut b, &mut a);
    }
    let (took, used) = (began.elapsed().as_secs_f64(), cpu() - used);
    let bytes = b.received as f64 * size as f64;
    let lane = if media { "media" } else { "data" };
    println!(
        "{lane}: {:.0} Mbit/s, {:.0} packets/s of {size} bytes; {:.2} CPU s/GB for both sides, \
         {:.0} Mbit/s per CPU second; {sent} sent, {} received, {full} refused, drops {:?}",
        bytes * 8.0 / took / 1e6,
        b.received as f64 / took,
        used / (bytes / 1e9),
        bytes * 8.0 / used / 1e6,
        b.received,
        a.overlay.drops(),
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |s| s.parse())?;
    let size = std::env::args().nth(2).map_or(Ok(1_200), |s| s.parse())?;
    for media in [false, true] {
        measure(media, size, seconds)?;
    }
    Ok(())
}
