//! `bare-relay`: the limit for comparison with lcroute. It carries UDP multicast from one TUN to
//! other TUNs, without routing, groups or control.
//!
//! ```text
//! TUN ─ read until empty ─ 26-byte header ─ AES-128-GCM in place ─ one UDP_SEGMENT send ─┐
//! TUN ─ one USO write per run of a flow ─ open in place ─ UDP_GRO, several units a call ─┘
//! ```
//!
//! Not for use: the key is in this file, and there is no replay protection.

mod receive;
mod transmit;
mod tun;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_lc_rs::aead::{AES_128_GCM, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use clap::Parser;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes before the sealed packet, as in lcroute's own data header.
const HEADER: usize = 26;
const TAG: usize = 16;
/// IPv6 and UDP.
const PACKET_HEADER: usize = 48;
/// Maximum number of bytes, and of datagrams, that the kernel accepts in one send or write.
const RUN_BYTES: usize = 65_000;
const RUN: usize = 50;
/// Packets read at once after which more are expected: a nap gathers a larger batch than a poll.
const BUSY: usize = 8;
const NAP: Duration = Duration::from_micros(50);

/// Carries UDP multicast from a TUN to others like it, encrypted; a yardstick, not for use.
#[derive(Debug, Parser)]
#[command(name = "bare-relay")]
struct Args {
    /// The TUN it makes.
    #[arg(long, default_value = "relay0")]
    tun: String,
    /// Own UDP address.
    #[arg(long)]
    bind: SocketAddr,
    /// Where everything goes; may be given several times.
    #[arg(long = "peer")]
    peers: Vec<SocketAddr>,
}

/// State that both directions share.
struct Shared {
    tun: std::fs::File,
    socket: Socket,
    state: UdpSocketState,
    key: LessSafeKey,
}

/// Runs the program.
pub fn main() -> ExitCode {
    match relay(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn relay(args: &Args) -> Result<()> {
    let socket = Socket::new(
        Domain::for_address(args.bind),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20));
    let _ = setsockopt(&socket, sockopt::SndBufForce, &(8 << 20));
    socket
        .bind(&args.bind.into())
        .with_context(|| args.bind.to_string())?;
    let shared = Arc::new(Shared {
        tun: tun::open(&args.tun).with_context(|| format!("TUN {}", args.tun))?,
        state: UdpSocketState::new(UdpSockRef::from(&socket))?,
        socket,
        key: key()?,
    });
    let receiving = Arc::clone(&shared);
    let receiver = std::thread::spawn(move || receive::run(&receiving));
    let sender = std::thread::spawn({
        let peers = args.peers.clone();
        move || transmit::run(&shared, peers)
    });
    sender.join().ok().context("the sending thread")??;
    receiver.join().ok().context("the receiving thread")?
}

fn key() -> Result<LessSafeKey> {
    let key = UnboundKey::new(&AES_128_GCM, &[0x42; 16]).ok();
    Ok(LessSafeKey::new(key.context("AES-128-GCM")?))
}

/// Returns the nonce: the header's first bytes, a counter and the sender's id.
fn nonce(header: &[u8]) -> Option<Nonce> {
    let bytes: [u8; NONCE_LEN] = header.get(..NONCE_LEN)?.try_into().ok()?;
    Some(Nonce::assume_unique_for_key(bytes))
}
