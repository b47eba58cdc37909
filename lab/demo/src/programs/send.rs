//! `mc-send`: sends datagrams to one group, or to many in turn.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::payload::{HEADER, Header};
use super::syscalls::{cpu_seconds, monotonic_ns, sleep_until};

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
    /// Connect the socket to the group, as programs do that send fast.
    #[arg(long, conflicts_with = "member")]
    connect: bool,
    /// Hand this many datagrams to the kernel at once (UDP_SEGMENT).
    #[arg(long, value_name = "DATAGRAMS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    gso: u16,
}

/// Runs the program.
pub fn main() -> ExitCode {
    super::run(send)
}

fn send(args: &Args) -> Result<()> {
    ensure!(
        (HEADER..=65_000).contains(&args.size),
        "--size must be {HEADER}..65000"
    );
    ensure!(args.groups > 0, "--groups must not be 0");
    let train = usize::from(args.gso);
    ensure!(
        train * args.size <= 65_000,
        "--gso {train} of --size {} are more than 65,000 bytes",
        args.size
    );
    let socket = open(args)?;
    let to = |group| SockAddr::from(SocketAddrV6::new(group, args.port, 0, 0));
    let targets: Vec<(Ipv6Addr, SockAddr)> = super::groups_from(args.group, args.groups)
        .map(|group| (group, to(group)))
        .collect();
    if args.connect {
        ensure!(args.groups == 1, "--connect is for one group");
        socket.connect(&to(args.group)).context("connect")?;
    }
    let run = monotonic_ns() ^ (u64::from(std::process::id()) << 40);
    let mut datagrams = crate::lab::noise(run, args.size * train);

    let (start, cpu) = (monotonic_ns(), cpu_seconds());
    let mut errors = 0_u64;
    let mut sequence = 0;
    for (group, to) in targets.iter().cycle() {
        if sequence >= args.count {
            break;
        }
        pace(start, sequence, args.rate);
        let now = monotonic_ns();
        let mut length = 0;
        let first = sequence;
        for datagram in datagrams.chunks_exact_mut(args.size) {
            if sequence >= args.count {
                break;
            }
            Header {
                run,
                sequence,
                sent_ns: now,
                group: *group,
            }
            .write(datagram);
            sequence += 1;
            length += args.size;
        }
        let taken = if args.connect {
            socket.send(&datagrams[..length])
        } else {
            socket.send_to(&datagrams[..length], to)
        };
        if taken.is_err() {
            errors += sequence - first;
        }
    }
    let (end, cpu) = (monotonic_ns(), cpu_seconds() - cpu);
    let echoes = if args.member { drain(&socket)? } else { 0 };
    println!(
        "{}",
        json!({
            "sent": args.count - errors,
            "errors": errors,
            "seconds": (end - start) as f64 / 1e9,
            "received": echoes,
            "cpu_s": cpu,
        })
    );
    Ok(())
}

fn open(args: &Args) -> Result<Socket> {
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
    if args.connect {
        // As fast senders do; without the permission the option has no effect.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &(4 << 20));
        socket.set_multicast_loop_v6(false)?;
    }
    if args.gso > 1 {
        let size = i32::try_from(args.size).context("--size")?;
        setsockopt(&socket, sockopt::UdpGsoSegment, &size).context("UDP_SEGMENT")?;
    }
    Ok(socket)
}

/// Sleeps until datagram `sequence` is due. Above 2,000 a second it wakes up every half millisecond
/// and sends all that is due: more wake-ups would use a whole core.
fn pace(start: u64, sequence: u64, rate: u64) {
    if rate == 0 {
        return;
    }
    let after = u128::from(sequence) * 1_000_000_000 / u128::from(rate);
    let due = start.saturating_add(u64::try_from(after).unwrap_or(u64::MAX));
    let now = monotonic_ns();
    if due > now {
        let slack = if rate > 2_000 { 500_000 } else { 0 };
        sleep_until(due.max(now + slack));
    }
}

/// Counts datagrams until half a second of silence.
fn drain(mut socket: &Socket) -> Result<u64> {
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffer = [0; 2048];
    let mut count = 0;
    while socket.read(&mut buffer).is_ok() {
        count += 1;
    }
    Ok(count)
}
