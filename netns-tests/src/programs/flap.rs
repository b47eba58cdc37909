//! `mc-flap`: joins a group and leaves it, again and again.

use std::net::Ipv6Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

/// Joins and leaves a multicast group in turn; prints one JSON line at the end, when it has left.
#[derive(Debug, Parser)]
#[command(name = "mc-flap")]
struct Args {
    /// The group.
    group: Ipv6Addr,
    /// Joins a second, and as many leaves.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// How long.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// The program.
pub fn main() -> ExitCode {
    lcroute_demo::programs::run(flap)
}

fn flap(args: &Args) -> Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    let (began, mut joins) = (Instant::now(), 0_u32);
    let half = Duration::from_secs(1) / (2 * args.rate.max(1));
    while began.elapsed().as_secs_f64() < args.seconds {
        socket.join_multicast_v6(&args.group, 0)?;
        joins += 1;
        wait_until(began + half * (2 * joins - 1));
        socket.leave_multicast_v6(&args.group, 0)?;
        wait_until(began + half * (2 * joins));
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({"joins": joins, "seconds": seconds}));
    Ok(())
}

fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}
