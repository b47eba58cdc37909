//! `lcgroup-forge`: a holder of a group that lies: it sends others' entries again, changed, and tells of entries that nobody has.

use std::io::Write;
use std::net::Ipv6Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use librecast::id::PeerId;
use librecast::random::Random;
use librecast::socket::{ReceiveSockets, SendSocket, interfaces};
use librecast::text::{self, TextKind};
use librecast_log::{
    ENTRY_LOG_PORT, Entry, Head, Packet, ReadKey, Space, decode_sealed, seal_packet,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Between two lies about heads.
const INTERVAL: Duration = Duration::from_millis(200);

/// Lies to a group until it is killed; says so first.
#[derive(Debug, Parser)]
#[command(name = "lcgroup-forge")]
struct Args {
    /// What `lcgroup hold --key` printed.
    key: String,
    /// The interface.
    #[arg(long, default_value = "lc0")]
    interface: String,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    lcroute_lab::programs::run(run)
}

fn run(args: &Args) -> Result<()> {
    let key = text::decode(TextKind::HoldingKey, &args.key, 64)?;
    let (owner, read_key) = key.split_at_checked(32).context("a short key")?;
    let owner = PeerId::from_public_key(owner.try_into()?)?;
    let read_key = ReadKey::new(read_key.try_into()?);
    let space = Space::new(owner, Some(read_key), Duration::ZERO);
    let group = space.group();
    let index = interfaces()?
        .into_values()
        .find(|i| i.name == args.interface)
        .with_context(|| format!("no interface {}", args.interface))?
        .index;
    let mut receive = ReceiveSockets::open(ENTRY_LOG_PORT)?;
    receive.join(group, index)?;
    let send = SendSocket::open(index, group, ENTRY_LOG_PORT, 8)?;
    let mut forger = Forger {
        space,
        random: Random::new(std::process::id().into()),
        seen: Vec::new(),
    };
    writeln!(std::io::stdout(), "lying")?;
    let mut next = Instant::now();
    loop {
        let mut lies = Vec::new();
        receive.receive(|datagram| lies.extend(forger.answer(datagram.payload)))?;
        if next <= Instant::now() {
            next = Instant::now() + INTERVAL;
            lies.extend(forger.invent());
        }
        for lie in lies {
            say(&send, group, &lie);
        }
        let mut fds: Vec<_> = receive
            .fds()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        poll(&mut fds, PollTimeout::try_from(INTERVAL)?)?;
    }
}

fn say(send: &SendSocket, group: Ipv6Addr, lie: &[u8]) {
    // lost lies are no harm
    let _ = send.send(group, lie, lie.len());
}

struct Forger {
    space: Space,
    random: Random,
    seen: Vec<Entry>,
}

impl Forger {
    /// What is said about a packet that came: its entries, changed.
    fn answer(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let Some(Packet::Entries(entries)) = decode_sealed(&self.space, bytes) else {
            return None;
        };
        let mut entry = entries.into_iter().next()?;
        // its own lies come back to it
        if self.seen.len() < 1_000 {
            self.seen.push(entry.clone());
        }
        match self.random.below(4) {
            0 => entry.signature[3] ^= 1,
            1 => entry.number += 1 + self.random.below(20) as u32,
            2 if !entry.body.is_empty() => entry.body[0] ^= 0x20,
            _ => return None,
        }
        self.seal(&Packet::Entries(vec![entry]))
    }

    /// Heads that are not true: too short, or with entries that nobody has.
    fn invent(&mut self) -> Option<Vec<u8>> {
        let at = self.random.index(self.seen.len());
        let author = self.seen.get(at)?.author;
        let head = Head {
            author,
            first: 1,
            last: self.random.below(200) as u32,
            hash: [self.random.next() as u8; 16],
            in_conflict: self.random.chance(0.5),
        };
        let digest = self.random.next();
        self.seal(&Packet::Heads {
            asks_for_requests: false,
            digest,
            heads: vec![head],
        })
    }

    fn seal(&mut self, packet: &Packet) -> Option<Vec<u8>> {
        let nonce = self.random.bytes(24);
        seal_packet(&self.space, packet, nonce.first_chunk()?)
    }
}
