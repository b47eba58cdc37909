//! `mc-recv`: joins a group, or many, and counts what comes and from whom.
//!
//! Prints a JSON line as soon as it has joined, and one after each change, at most 20 a second.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{IoSliceMut, Write};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::payload::Header;
use super::syscalls::{join_source, monotonic_ns};

/// Joins a multicast group and counts; prints JSON lines until it is stopped.
#[derive(Debug, Parser)]
#[command(name = "mc-recv")]
struct Args {
    /// The (first) group.
    group: Ipv6Addr,
    /// How many consecutive groups to join, all with one socket.
    #[arg(long, default_value_t = 1)]
    groups: u32,
    /// UDP port.
    #[arg(long, default_value_t = 5001)]
    port: u16,
    /// Join for this source only (SSM); may be given several times.
    #[arg(long = "source")]
    sources: Vec<Ipv6Addr>,
    /// Join on this interface, not where the route leads.
    #[arg(long)]
    interface: Option<String>,
    /// End after this many datagrams.
    #[arg(long)]
    count: Option<u64>,
    /// Leave the group again after this many datagrams, but go on counting.
    #[arg(long)]
    leave_after: Option<u64>,
}

/// The program.
pub fn main() -> ExitCode {
    super::run(receive)
}

fn receive(args: &Args) -> Result<()> {
    let interface = match &args.interface {
        Some(name) => if_nametoindex(name.as_str()).context(name.clone())?,
        None => 0,
    };
    let socket = open(args, interface)?;
    let mut tally = Tally::new();
    tally.report()?;
    let mut joined = true;
    let mut buffer = vec![0; 65_536];
    loop {
        read_all(&socket, &mut buffer, &mut tally)?;
        tally.report_change()?;
        if joined && args.leave_after.is_some_and(|count| tally.packets >= count) {
            socket.leave_multicast_v6(&args.group, interface)?;
            joined = false;
        }
        if args.count.is_some_and(|count| tally.packets >= count) {
            return tally.report();
        }
    }
}

fn open(args: &Args, interface: u32) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_recv_buffer_size(8 << 20)?;
    // Where the program may, a burst must not be lost in its own socket.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20));
    socket.set_recv_hoplimit_v6(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let address = if args.groups == 1 {
        args.group
    } else {
        Ipv6Addr::UNSPECIFIED
    };
    socket.bind(&SocketAddrV6::new(address, args.port, 0, 0).into())?;
    for group in super::groups_from(args.group, args.groups) {
        if args.sources.is_empty() {
            socket
                .join_multicast_v6(&group, interface)
                .with_context(|| format!("joining {group}"))?;
        }
        for source in &args.sources {
            join_source(&socket, group, *source, interface)
                .with_context(|| format!("joining {group} from {source}"))?;
        }
    }
    Ok(socket)
}

/// Reads until nothing comes for 20 ms, or for 50 ms at most.
fn read_all(socket: &Socket, buffer: &mut [u8], tally: &mut Tally) -> Result<()> {
    let start = Instant::now();
    let mut control = nix::cmsg_space!(i32);
    while start.elapsed() < Duration::from_millis(50) {
        let mut slices = [IoSliceMut::new(buffer)];
        let got = recvmsg::<SockaddrIn6>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let message = match got {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error).context("receiving"),
        };
        let from = message.address.map(|address| address.ip());
        let hops = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
            _ => None,
        });
        let length = message.bytes;
        tally.count(&buffer[..length], from, hops);
    }
    Ok(())
}

/// What has come.
struct Tally {
    joined_ns: u64,
    packets: u64,
    unique: u64,
    bytes: u64,
    foreign: u64,
    largest: usize,
    senders: BTreeMap<Ipv6Addr, u64>,
    groups: BTreeSet<Ipv6Addr>,
    hop_limits: BTreeSet<i32>,
    seen: HashMap<u64, Vec<u64>>,
    first_ns: Option<u64>,
    last_ns: u64,
    latencies_us: Latencies,
    reported: (u64, Instant),
}

impl Tally {
    fn new() -> Tally {
        Tally {
            joined_ns: monotonic_ns(),
            packets: 0,
            unique: 0,
            bytes: 0,
            foreign: 0,
            largest: 0,
            senders: BTreeMap::new(),
            groups: BTreeSet::new(),
            hop_limits: BTreeSet::new(),
            seen: HashMap::new(),
            first_ns: None,
            last_ns: 0,
            latencies_us: Latencies::default(),
            reported: (0, Instant::now()),
        }
    }

    fn count(&mut self, datagram: &[u8], from: Option<Ipv6Addr>, hops: Option<i32>) {
        let now = monotonic_ns();
        self.first_ns.get_or_insert(now);
        self.last_ns = now;
        self.packets += 1;
        self.bytes += datagram.len() as u64;
        self.largest = self.largest.max(datagram.len());
        self.hop_limits.extend(hops);
        if let Some(from) = from {
            *self.senders.entry(from).or_default() += 1;
        }
        let Some(header) = Header::read(datagram) else {
            self.foreign += 1;
            return;
        };
        self.groups.insert(header.group);
        self.latencies_us
            .add(now.saturating_sub(header.sent_ns) / 1_000);
        self.unique += u64::from(self.is_new(header));
    }

    fn is_new(&mut self, header: Header) -> bool {
        let seen = self.seen.entry(header.run).or_default();
        let (word, bit) = (
            (header.sequence / 64) as usize,
            1_u64 << (header.sequence % 64),
        );
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        let new = seen[word] & bit == 0;
        seen[word] |= bit;
        new
    }

    fn report_change(&mut self) -> Result<()> {
        let (packets, when) = self.reported;
        if packets == self.packets || when.elapsed() < Duration::from_millis(50) {
            return Ok(());
        }
        self.report()
    }

    fn report(&mut self) -> Result<()> {
        self.reported = (self.packets, Instant::now());
        let latency = &self.latencies_us;
        let first = self.first_ns.unwrap_or(self.joined_ns);
        let line = json!({
            "packets": self.packets,
            "unique": self.unique,
            "duplicates": self.packets - self.foreign - self.unique,
            "foreign": self.foreign,
            "bytes": self.bytes,
            "largest": self.largest,
            "senders": self.senders,
            "groups": self.groups.len(),
            "hop_limits": self.hop_limits,
            "join_to_first_ms": self.first_ns.map(|first| (first - self.joined_ns) as f64 / 1e6),
            "seconds": self.last_ns.saturating_sub(first) as f64 / 1e9,
            "latency_us": {"p50": latency.quantile(50), "p99": latency.quantile(99), "max": latency.quantile(100)},
        });
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }
}

/// How often each latency came, in microseconds rounded down to two digits.
#[derive(Default)]
struct Latencies {
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Latencies {
    fn add(&mut self, micros: u64) {
        let step = 10_u64.pow(micros.max(1).ilog10().saturating_sub(1));
        *self.counts.entry(micros / step * step).or_default() += 1;
        self.total += 1;
    }

    fn quantile(&self, percent: u64) -> Option<u64> {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut passed = 0;
        let reaches = |(micros, count): (&u64, &u64)| {
            passed += count;
            (passed >= rank).then_some(*micros)
        };
        self.counts.iter().find_map(reaches)
    }
}
