//! `udp-flood`: garbage for a UDP port, with forged sources.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::dice::Dice;

/// Packets of one system call.
const BATCH: usize = 64;
const BATCHES: usize = 64;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Sends garbage of every kind that a port of ICE, DTLS and SRTP has to tell apart; prints one JSON
/// line at the end.
#[derive(Debug, Parser)]
#[command(name = "udp-flood")]
struct Args {
    /// The port to flood.
    target: SocketAddrV4,
    /// Forged sources; by default every packet comes from another one.
    #[arg(long)]
    source: Vec<SocketAddrV4>,
    /// One of the kinds only, by number.
    #[arg(long)]
    kind: Option<usize>,
    /// ICMP errors instead: the sources have no such port, as if the target had sent them
    /// something.
    #[arg(long)]
    unreachable: bool,
    /// Packets a second; 0: as fast as possible.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// The program.
pub fn main() -> ExitCode {
    lcroute_demo::programs::run(flood)
}

fn flood(args: &Args) -> Result<()> {
    // with IPPROTO_RAW this program writes the IP header
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    socket.set_send_buffer_size(4 << 20)?;
    let to = [Some(SockaddrIn::from(args.target)); BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut dice = Dice::new(0x9e37_79b9_7f4a_7c15);
    let batches: Vec<_> = (0..BATCHES).map(|n| batch(args, n, &mut dice)).collect();
    let (began, mut sent) = (Instant::now(), 0_u64);
    let mut batches = batches.iter().cycle();
    while began.elapsed().as_secs_f64() < args.seconds {
        if args.rate > 0 {
            let due = Duration::from_secs_f64(sent as f64 / args.rate as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let Some(packets) = batches.next() else { break };
        let slices: Vec<_> = packets.iter().map(|p| [IoSlice::new(p)]).collect();
        let flags = MsgFlags::empty();
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, to, [], flags) {
            Ok(results) => sent += results.count() as u64,
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EPERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({"sent": sent, "seconds": seconds}));
    Ok(())
}

fn batch(args: &Args, number: usize, dice: &mut Dice) -> Vec<Vec<u8>> {
    let packet = |n: usize| {
        let n = number * BATCH + n;
        let source = match args.source.as_slice() {
            [] => source(dice),
            sources => sources[n % sources.len()],
        };
        if args.unreachable {
            return refusal(source, args.target, &payload(dice, REFUSED));
        }
        let kind = args.kind.unwrap_or(n) % KINDS.len();
        datagram(source, args.target, &payload(dice, KINDS[kind]))
    };
    (0..BATCH).map(packet).collect()
}

/// Beginning, least and greatest length of a payload.
type Kind = (&'static [u8], usize, usize);

const KINDS: [Kind; 11] = [
    // STUN: cut off, a request for an unknown user, an unsolicited response
    (b"\x00\x01\x00\x20\x21\x12\xa4\x42", 8, 60),
    (
        b"\x00\x01\x00\x0c\x21\x12\xa4\x42lcfloodlcflo\x00\x06\x00\x08abcd:efg",
        32,
        32,
    ),
    (b"\x01\x01\x00\x00\x21\x12\xa4\x42", 20, 20),
    // DTLS: a handshake, and encrypted data
    (
        b"\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x2f",
        60,
        60,
    ),
    (
        b"\x17\xfe\xfd\x00\x01\x00\x01\x00\x00\x00\x07\x00\x57",
        100,
        100,
    ),
    // RTP, RTCP
    (b"\x80\x60", 12, 1_300),
    (b"\x81\xcc\x00\x10", 60, 100),
    // unknown to RFC 7983, one byte, empty
    (b"\xff", 1, 1_400),
    (b"\x80", 1, 1),
    (b"", 0, 0),
    // a call of an open key with a wrong cookie
    (b"\xc2", 49, 49),
];

/// Payload of a refused datagram: a STUN request that was never sent.
const REFUSED: Kind = (b"\x00\x01\x00\x50\x21\x12\xa4\x42", 100, 100);

/// Returns a random address of 203.0.113.0/24 or 192.0.2.0/24 (documentation) and a random port.
fn source(dice: &mut Dice) -> SocketAddrV4 {
    let roll = dice.roll();
    let net = if roll & 1 == 0 {
        [203, 0, 113]
    } else {
        [192, 0, 2]
    };
    let port = (roll >> 16) as u16 | 1;
    SocketAddrV4::new([net[0], net[1], net[2], (roll >> 8) as u8].into(), port)
}

fn payload(dice: &mut Dice, (head, least, most): Kind) -> Vec<u8> {
    let size = least + dice.roll() as usize % (most - least + 1);
    let mut payload = head[..head.len().min(size)].to_vec();
    dice.fill(&mut payload, size);
    payload
}

/// Returns an ICMP error of `from` about a datagram with this payload from `to`.
fn refusal(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    // destination unreachable, port unreachable; checksum, unused
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(datagram(to, from, payload));
    let words = error.chunks(2).map(|word| match *word {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        _ => u32::from(word[0]) << 8,
    });
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    error[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    ip_packet(1, *from.ip(), *to.ip(), &error)
}

fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = (UDP_HEADER + payload.len()) as u16;
    let mut datagram = Vec::new();
    // UDP over IPv4 needs no checksum
    for word in [from.port(), to.port(), length, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend_from_slice(payload);
    ip_packet(17, *from.ip(), *to.ip(), &datagram)
}

/// The kernel writes the header's checksum.
fn ip_packet(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; IP_HEADER];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&((IP_HEADER + payload.len()) as u16).to_be_bytes());
    packet[8..10].copy_from_slice(&[64, protocol]);
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet.extend_from_slice(payload);
    packet
}
