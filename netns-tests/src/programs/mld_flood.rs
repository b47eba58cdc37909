//! `mld-flood`: MLD messages that no kernel would send, from hosts that do not exist.
//!
//! Written from RFC 9777 and RFC 2710; shares nothing with the code under test.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use nix::libc;
use nix::net::if_::if_nametoindex;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::dice::Dice;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// Next header, length 0, router alert, padding.
const HOP_BY_HOP: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];
/// Records of a report: fit 1,280 bytes.
const RECORDS: usize = 60;

/// Sends MLD messages; prints how many as a JSON line at the end.
#[derive(Debug, Parser)]
#[command(name = "mld-flood")]
struct Args {
    /// What is sent.
    what: What,
    /// The interface.
    #[arg(long, default_value = "lan0")]
    interface: String,
    /// Random groups of this /64.
    #[arg(long, default_value = "ff1e::")]
    prefix: Ipv6Addr,
    /// Groups from this file instead, one a line.
    #[arg(long)]
    groups: Option<PathBuf>,
    /// Different sources: fe80::f:1 and so on.
    #[arg(long, default_value_t = 1)]
    sources: u32,
    /// Messages in all.
    #[arg(long)]
    count: u64,
    /// Messages a second; 0: as fast as possible.
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Reports that join.
    Join,
    /// What is no MLD message, or none that may be acted on.
    Malformed,
    /// General queries, of a querier that says a robustness of 2 and an interval of a second.
    Query,
}

/// The program.
pub fn main() -> ExitCode {
    lcroute_demo::programs::run(flood)
}

fn flood(args: &Args) -> Result<()> {
    let index = if_nametoindex(args.interface.as_str()).context(args.interface.clone())?;
    // with IPPROTO_RAW this program writes the IPv6 header
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(255)))?;
    socket.set_multicast_if_v6(index)?;
    let groups = match &args.groups {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| file.display().to_string())?
            .lines()
            .map(str::parse)
            .collect::<Result<Vec<Ipv6Addr>, _>>()?,
        None => Vec::new(),
    };
    let mut maker = Maker {
        args,
        groups,
        next: 0,
        dice: Dice::new(0x3d1),
    };
    let began = Instant::now();
    let mut sent = 0_u64;
    for number in 0..args.count {
        if args.rate > 0 {
            let due = Duration::from_secs_f64(number as f64 / args.rate as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let (destination, packet) = maker.packet(number);
        let to = SocketAddrV6::new(destination, 0, 0, index);
        match socket.send_to(&packet, &to.into()) {
            Ok(_) => sent += 1,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    println!("{}", json!({"sent": sent}));
    Ok(())
}

struct Maker<'a> {
    args: &'a Args,
    groups: Vec<Ipv6Addr>,
    next: usize,
    dice: Dice,
}

impl Maker<'_> {
    /// Returns destination and whole IPv6 packet.
    fn packet(&mut self, number: u64) -> (Ipv6Addr, Vec<u8>) {
        let source = (number % u64::from(self.args.sources.max(1))) as u16 + 1;
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xf, source);
        match self.args.what {
            What::Join => {
                let report = self.report();
                (
                    ALL_MLDV2_ROUTERS,
                    packet(source, ALL_MLDV2_ROUTERS, 1, report),
                )
            }
            What::Query => {
                let mut query = vec![130, 0, 0, 0, 0, 100, 0, 0];
                query.extend([0; 16]);
                query.extend([2, 1, 0, 0]);
                // lower than any address from a hardware address
                let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
                (ALL_NODES, packet(source, ALL_NODES, 1, query))
            }
            What::Malformed => (ALL_MLDV2_ROUTERS, self.malformed(source)),
        }
    }

    fn group(&mut self) -> Ipv6Addr {
        if self.groups.is_empty() {
            let prefix = u128::from(self.args.prefix);
            return Ipv6Addr::from(prefix | u128::from(self.dice.roll()));
        }
        self.next = (self.next + 1) % self.groups.len();
        self.groups[self.next]
    }

    fn report(&mut self) -> Vec<u8> {
        let mut report = vec![143, 0, 0, 0, 0, 0, 0, RECORDS as u8];
        for _ in 0..RECORDS {
            // CHANGE_TO_EXCLUDE_MODE, no auxiliary data, no sources
            report.extend([4, 0, 0, 0]);
            report.extend(self.group().octets());
        }
        report
    }

    fn malformed(&mut self, source: Ipv6Addr) -> Vec<u8> {
        let routers = ALL_MLDV2_ROUTERS;
        let mut report = self.report();
        let roll = self.dice.roll() as usize;
        match roll % 6 {
            // more records, sources or auxiliary data than the message has
            0 => report[6..8].copy_from_slice(&[0xff, 0xff]),
            1 => report[10..12].copy_from_slice(&[0xff, 0xff]),
            2 => report[9] = 0xff,
            3 => report.truncate(8 + roll % 1_000),
            // a hop limit that routers may have decremented
            4 => return packet(source, routers, 64, report),
            _ => {
                let afar = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 9);
                return packet(afar, routers, 1, report);
            }
        }
        packet(source, routers, 1, report)
    }
}

/// Returns IPv6 header, router alert and the message with its checksum.
fn packet(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, mut icmp: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, destination, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let length = (HOP_BY_HOP.len() + icmp.len()) as u16;
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, hop_limit]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(HOP_BY_HOP);
    packet.extend(icmp);
    packet
}

fn checksum(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> u16 {
    let mut bytes = [source.octets(), destination.octets()].concat();
    bytes.extend((icmp.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(icmp);
    let words = bytes.chunks(2);
    let mut sum: u32 = words
        .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
