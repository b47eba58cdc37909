//! `mld-watch`: prints every JOIN, PART and query that it receives, like programs that send only to
//! present listeners.
//!
//! Two kinds of such programs exist, and this one can be either:
//! - with a raw ICMPv6 socket (default), which needs a member of ff02::16 on this host;
//! - with an AF_PACKET socket (`--packet`), which expects Ethernet frames with exactly the 8-byte
//!   hop-by-hop header of MLD and reads nothing else.
//!
//! The parser is written from RFC 9777 and shares nothing with the one under test.

use std::io::{Read, Write};
use std::net::Ipv6Addr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use nix::libc;
use nix::net::if_::if_nametoindex;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::sniffer::sniffer;

/// The hop-by-hop header of MLD: next header ICMPv6, router alert, padding.
const HOP_BY_HOP: [u8; 8] = [0x3a, 0, 5, 2, 0, 0, 1, 0];
const ETHERNET: usize = 14;
const IPV6: usize = 40;
const REPORT_V2: u8 = 143;
const QUERY: u8 = 130;

/// Prints each JOIN, PART and query heard on an interface as a JSON line, until it is stopped.
#[derive(Debug, Parser)]
#[command(name = "mld-watch")]
struct Args {
    /// The interface.
    #[arg(long, default_value = "lc0")]
    interface: String,
    /// Sniff Ethernet frames instead of using a raw ICMPv6 socket.
    #[arg(long)]
    packet: bool,
}

/// The program.
pub fn main() -> ExitCode {
    lcroute_demo::programs::run(watch)
}

fn watch(args: &Args) -> Result<()> {
    let index = if_nametoindex(args.interface.as_str()).context(args.interface.clone())?;
    let socket = if args.packet {
        sniffer(index, libc::ETH_P_ALL)?
    } else {
        raw(&args.interface, index)?
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", json!({"watching": args.interface}))?;
    out.flush()?;
    let mut buffer = vec![0; 65_536];
    loop {
        let length = (&socket).read(&mut buffer)?;
        let bytes = &buffer[..length];
        let message = if args.packet {
            icmpv6_in_frame(bytes)
        } else {
            Some(bytes)
        };
        for change in message.and_then(changes).unwrap_or_default() {
            writeln!(out, "{change}")?;
        }
        if let Some(mut query) = message.and_then(query) {
            if args.packet {
                query["source"] = json!(address(&bytes[ETHERNET + 8..ETHERNET + 24]));
                query["hop_limit"] = json!(bytes[ETHERNET + 7]);
            }
            writeln!(out, "{query}")?;
        }
        out.flush()?;
    }
}

fn raw(interface: &str, index: u32) -> Result<Socket> {
    let socket =
        Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).context("raw socket")?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.join_multicast_v6(&"ff02::16".parse()?, index)?;
    Ok(socket)
}

fn icmpv6_in_frame(frame: &[u8]) -> Option<&[u8]> {
    let is_ipv6 = frame.get(12..ETHERNET)? == [0x86, 0xdd];
    let headers = frame.get(ETHERNET + IPV6..ETHERNET + IPV6 + HOP_BY_HOP.len())?;
    (is_ipv6 && headers == HOP_BY_HOP).then_some(())?;
    frame.get(ETHERNET + IPV6 + HOP_BY_HOP.len()..)
}

/// Returns the changes in a report (RFC 9777 §5.2); `None` for any other message.
fn changes(message: &[u8]) -> Option<Vec<serde_json::Value>> {
    (*message.first()? == REPORT_V2).then_some(())?;
    let records = u16::from_be_bytes(message.get(6..8)?.try_into().ok()?);
    let mut rest = message.get(8..)?;
    let mut found = Vec::new();
    for _ in 0..records {
        let sources = usize::from(u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?));
        let aux = usize::from(*rest.get(1)?) * 4;
        let group = address(rest.get(4..20)?)?;
        let listed = rest.get(20..20 + 16 * sources)?;
        let listed: Vec<Ipv6Addr> = listed.chunks_exact(16).filter_map(address).collect();
        let (record, change) = meaning(*rest.first()?, listed.is_empty());
        found.push(json!({"change": change, "record": record, "group": group, "sources": listed}));
        rest = rest.get(20 + 16 * sources + aux..)?;
    }
    Some(found)
}

/// Returns a query of version 2 (RFC 9777 §5.1), or of version 1 without the later fields.
fn query(message: &[u8]) -> Option<serde_json::Value> {
    (*message.first()? == QUERY).then_some(())?;
    let group = address(message.get(8..24)?)?;
    let response = u16::from_be_bytes(message.get(4..6)?.try_into().ok()?);
    let mut found = json!({"query": group, "max_response": response});
    if let [flags, interval, ..] = message.get(24..)? {
        found["robustness"] = json!(flags & 7);
        found["interval"] = json!(interval);
    }
    Some(found)
}

fn meaning(record: u8, no_sources: bool) -> (&'static str, &'static str) {
    match (record, no_sources) {
        (1, true) => ("IS_IN", "PART"),
        (1, false) => ("IS_IN", "JOIN"),
        (2, _) => ("IS_EX", "JOIN"),
        (3, true) => ("TO_IN", "PART"),
        (3, false) => ("TO_IN", "JOIN"),
        (4, _) => ("TO_EX", "JOIN"),
        (5, _) => ("ALLOW", "JOIN"),
        (6, _) => ("BLOCK", "PART"),
        _ => ("unknown", "unknown"),
    }
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    Some(<[u8; 16]>::try_from(bytes).ok()?.into())
}
