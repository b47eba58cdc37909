//! `mc-send`: sends datagrams to a group, or to many in turn.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::net::if_::if_nametoindex;
use serde_json::json;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::payload::{HEADER, Header};
use super::syscalls::monotonic_ns;

/// Sends datagrams to a multicast group; prints one JSON line at the end.
#[derive(Debug, Parser)]
#[command(name = "mc-send")]
struct Args {
    /// The (first) group.
    group: Ipv6Addr,
    /// How many consecutive groups, sent to in turn.
    #[arg(long, default_value_t = 1)]
    groups: u32,
    /// UDP port.
    #[arg(long, default_value_t = 5001)]
    port: u16,
    /// Bytes of a datagram.
    #[arg(long, default_value_t = 1200)]
    size: usize,
    /// How many datagrams in all.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Datagrams per second; 0: as fast as possible.
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// Send through this interface, not where the route leads.
    #[arg(long)]
    interface: Option<String>,
    /// Multicast hop limit; the kernel's default (1) if not given.
    #[arg(long)]
    hops: Option<u32>,
    /// Be a member of the group as well, and report what came back from others (or as an echo).
    #[arg(long)]
    member: bool,
}

/// The program.
pub fn main() -> ExitCode {
    super::run(send)
}

fn send(args: &Args) -> Result<()> {
    ensure!(
        (HEADER..=65_000).contains(&args.size),
        "--size must be {HEADER}..65000"
    );
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(name) = &args.interface {
        socket.set_multicast_if_v6(if_nametoindex(name.as_str()).context(name.clone())?)?;
    }
    if let Some(hops) = args.hops {
        socket.set_multicast_hops_v6(hops)?;
    }
    if args.member {
        socket.bind(&SocketAddrV6::new(args.group, args.port, 0, 0).into())?;
        socket.set_multicast_loop_v6(false)?;
        socket.join_multicast_v6(&args.group, 0)?;
    }
    let to = |group| SockAddr::from(SocketAddrV6::new(group, args.port, 0, 0));
    let targets: Vec<(Ipv6Addr, SockAddr)> = super::groups_from(args.group, args.groups)
        .map(|group| (group, to(group)))
        .collect();
    let run = monotonic_ns() ^ (u64::from(std::process::id()) << 40);
    let mut datagram = crate::lab::noise(run, args.size);

    let start = Instant::now();
    let mut errors = 0_u64;
    let mut targets = targets.iter().cycle();
    for sequence in 0..args.count {
        let (group, to) = targets.next().context("--groups must not be 0")?;
        pace(start, sequence, args.rate);
        Header {
            run,
            sequence,
            sent_ns: monotonic_ns(),
            group: *group,
        }
        .write(&mut datagram);
        errors += u64::from(socket.send_to(&datagram, to).is_err());
    }
    let seconds = start.elapsed().as_secs_f64();
    let echoes = if args.member { drain(&socket)? } else { 0 };
    println!(
        "{}",
        json!({"sent": args.count - errors, "errors": errors, "seconds": seconds, "received": echoes})
    );
    Ok(())
}

/// Sleeps until datagram `sequence` is due. Above 2,000 a second it lets half a millisecond of
/// them go at once: a process cannot wake up more often without burning a core.
fn pace(start: Instant, sequence: u64, rate: u64) {
    if rate == 0 {
        return;
    }
    let due = Duration::from_nanos(sequence.saturating_mul(1_000_000_000) / rate);
    let early = due.saturating_sub(start.elapsed());
    let slack = if rate > 2_000 {
        Duration::from_micros(500)
    } else {
        Duration::ZERO
    };
    if early > slack {
        std::thread::sleep(early);
    }
}

/// Counts what arrives within half a second of silence.
fn drain(mut socket: &Socket) -> Result<u64> {
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 2048];
    let mut count = 0;
    while socket.read(&mut buffer).is_ok() {
        count += 1;
    }
    Ok(count)
}
