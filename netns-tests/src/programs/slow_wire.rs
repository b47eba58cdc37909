//! `slow-wire`: joins two interfaces to one wire that delays and loses frames. The kernels of many
//! hosts have no `netem`.
//!
//! ```text
//!   LAN ── A ── reads ─► loss ─► delay, jitter ─► writes ── B ── host       and the other way round
//! ```

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use librecast::random::Random;
use librecast::units::parse_duration;
use nix::libc;
use nix::net::if_::if_nametoindex;
use socket2::Socket;

use super::sniffer::sniffer;

/// A frame with the header of `PACKET_VNET_HDR`.
const FRAME: usize = 10 + 65_536;

/// Joins two interfaces to one wire, until it is stopped.
#[derive(Debug, Parser)]
#[command(name = "slow-wire")]
struct Args {
    /// One end.
    a: String,
    /// The other end.
    b: String,
    /// Time that each frame takes.
    #[arg(long, value_parser = parse_duration)]
    delay: Duration,
    /// Most additional time; frames do not overtake.
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    jitter: Duration,
    /// Share of lost frames in each direction.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
}

/// The program.
pub fn main() -> ExitCode {
    lcroute_demo::programs::run(join)
}

fn join(args: &Args) -> Result<()> {
    let (a, b) = (open(&args.a)?, open(&args.b)?);
    println!("joined");
    let (delay, jitter, loss) = (args.delay, args.jitter, args.loss);
    thread::scope(|scope| {
        for (seed, from, to) in [(1, &a, &b), (2, &b, &a)] {
            let (frames, waiting) = channel();
            scope.spawn(move || write(to, &waiting));
            scope.spawn(move || {
                let (mut random, mut buffer) = (Random::new(seed), vec![0; FRAME]);
                while let Ok(length) = std::io::Read::read(&mut &*from, &mut buffer) {
                    let at = Instant::now() + delay + jitter.mul_f64(random.unit());
                    if !random.chance(loss) && frames.send((at, buffer[..length].to_vec())).is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    Ok(())
}

fn write(to: &Socket, waiting: &Receiver<(Instant, Vec<u8>)>) {
    for (at, frame) in waiting {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // lost like any frame, for example while the interface is down
        let _ = to.send(&frame);
    }
}

/// Opens an interface for frames that come in, with their offloads.
fn open(name: &str) -> Result<Socket> {
    let index = if_nametoindex(name).with_context(|| name.to_owned())?;
    let socket = sniffer(index, libc::ETH_P_ALL)?;
    socket.set_nonblocking(false)?;
    for option in [libc::PACKET_VNET_HDR, libc::PACKET_IGNORE_OUTGOING] {
        let (on, fd) = (1_i32, std::os::fd::AsRawFd::as_raw_fd(&socket));
        // SAFETY: an open socket, and a number of the given size
        let result = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_PACKET,
                option,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        nix::errno::Errno::result(result).with_context(|| format!("option {option}"))?;
    }
    Ok(socket)
}
