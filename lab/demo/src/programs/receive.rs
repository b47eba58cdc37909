//! `mc-recv`: joins one or many groups, and counts datagrams and sources.
//!
//! Prints a JSON line as soon as it has joined, and one after each change, at most 20 a second.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::inbox::{Inbox, Received};
use super::latencies::Latencies;
use super::payload::Header;
use super::syscalls::{cpu_seconds, join_source, monotonic_ns};

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
    /// Take trains of datagrams that the kernel has coalesced (UDP_GRO).
    #[arg(long)]
    gro: bool,
}

/// Minimum length of a pause between two datagrams, in nanoseconds.
const PAUSE_NS: u64 = 100_000_000;
/// Maximum number of stored pauses; later ones are ignored.
const MAX_PAUSES: usize = 256;

/// Runs the program.
pub fn main() -> ExitCode {
    super::run(receive)
}

fn receive(args: &Args) -> Result<()> {
    let interface = match &args.interface {
        Some(name) => if_nametoindex(name.as_str()).context(name.clone())?,
        None => 0,
    };
    let socket = open(args, interface)?;
    let mut inbox = Inbox::new();
    let mut tally = Tally::new();
    tally.report()?;
    let mut joined = true;
    loop {
        read_all(&socket, &mut inbox, &mut tally).context("receiving")?;
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
    // If permitted, a large buffer avoids losses of bursts in the program's own socket.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20));
    socket.set_recv_hoplimit_v6(true)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    if args.gro {
        setsockopt(&socket, sockopt::UdpGroSegment, &true).context("UDP_GRO")?;
    }
    let address = if args.groups == 1 {
        args.group
    } else {
        Ipv6Addr::UNSPECIFIED
    };
    socket.bind(&SocketAddrV6::new(address, args.port, 0, interface).into())?;
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

/// Reads until no datagram comes for 20 ms, or for 50 ms at most.
fn read_all(socket: &Socket, inbox: &mut Inbox, tally: &mut Tally) -> io::Result<()> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(50) {
        let mut now = None;
        let got = inbox.receive(socket, |datagram| {
            tally.count(&datagram, *now.get_or_insert_with(monotonic_ns));
        });
        match got {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            other => other?,
        }
    }
    Ok(())
}

/// The counts of received datagrams.
struct Tally {
    joined_ns: u64,
    packets: u64,
    unique: u64,
    bytes: u64,
    foreign: u64,
    largest: usize,
    senders: Runs<Ipv6Addr, u64>,
    groups: BTreeSet<Ipv6Addr>,
    last_group: Option<Ipv6Addr>,
    hop_limits: Runs<i32, u64>,
    /// A bit for each sequence number, per sender process.
    seen: Runs<u64, Vec<u64>>,
    first_ns: Option<u64>,
    last_ns: u64,
    latencies: Latencies,
    pauses: Vec<f64>,
    reported: (u64, Instant),
}

/// A small map for keys that come in long runs: the last one is checked first.
struct Runs<K, V>(Vec<(K, V)>, usize);

impl<K: PartialEq, V: Default> Runs<K, V> {
    fn entry(&mut self, key: K) -> &mut V {
        let Runs(entries, last) = self;
        if entries.get(*last).is_none_or(|(known, _)| *known != key) {
            *last = entries
                .iter()
                .position(|(known, _)| *known == key)
                .unwrap_or_else(|| {
                    entries.push((key, V::default()));
                    entries.len() - 1
                });
        }
        &mut entries[*last].1
    }
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
            senders: Runs(Vec::new(), 0),
            groups: BTreeSet::new(),
            last_group: None,
            hop_limits: Runs(Vec::new(), 0),
            seen: Runs(Vec::new(), 0),
            first_ns: None,
            last_ns: 0,
            latencies: Latencies::default(),
            pauses: Vec::new(),
            reported: (0, Instant::now()),
        }
    }

    fn count(&mut self, datagram: &Received, now: u64) {
        let before = self.first_ns.map(|_| self.last_ns);
        let pause = now.saturating_sub(before.unwrap_or(now));
        if pause >= PAUSE_NS && self.pauses.len() < MAX_PAUSES {
            self.pauses.push(pause as f64 / 1e6);
        }
        self.first_ns.get_or_insert(now);
        self.last_ns = now;
        self.packets += 1;
        self.bytes += datagram.bytes.len() as u64;
        self.largest = self.largest.max(datagram.bytes.len());
        if let Some(hops) = datagram.hops {
            *self.hop_limits.entry(hops) += 1;
        }
        *self.senders.entry(datagram.from) += 1;
        let Some(header) = Header::read(datagram.bytes) else {
            self.foreign += 1;
            return;
        };
        if self.last_group != Some(header.group) {
            self.last_group = Some(header.group);
            self.groups.insert(header.group);
        }
        self.latencies
            .add(now.saturating_sub(header.sent_ns) / 1_000);
        self.unique += u64::from(self.is_new(header));
    }

    fn is_new(&mut self, header: Header) -> bool {
        let seen = self.seen.entry(header.run);
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
        let first = self.first_ns.unwrap_or(self.joined_ns);
        let senders: BTreeMap<Ipv6Addr, u64> = self.senders.0.iter().copied().collect();
        let hop_limits: BTreeSet<i32> = self.hop_limits.0.iter().map(|(hops, _)| *hops).collect();
        let line = json!({
            "packets": self.packets,
            "unique": self.unique,
            "duplicates": self.packets - self.foreign - self.unique,
            "foreign": self.foreign,
            "bytes": self.bytes,
            "largest": self.largest,
            "senders": senders,
            "groups": self.groups.len(),
            "hop_limits": hop_limits,
            "join_to_first_ms": self.first_ns.map(|first| (first - self.joined_ns) as f64 / 1e6),
            "seconds": self.last_ns.saturating_sub(first) as f64 / 1e9,
            "latency_us": self.latencies.summary(),
            "pauses_ms": self.pauses,
            "cpu_s": cpu_seconds(),
        });
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }
}
