//! `lcgroup-forge`: a malicious holder of a group. It sends changed entries of other authors,
//! answers wants with unsigned entries, and sends heads of unknown entries and authors.

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
    AuthorId, ENTRY_LOG_PORT, Entry, Head, Packet, ReadKey, Space, decode_sealed, seal_packet,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Time between two forged heads.
const INTERVAL: Duration = Duration::from_millis(100);

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
    lcroute_demo::programs::run(run)
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
        digest: 0,
        told: 0,
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
    // a lost forgery does no harm
    let _ = send.send(group, lie, lie.len());
}

struct Forger {
    space: Space,
    random: Random,
    seen: Vec<Entry>,
    /// Digest of the last received heads.
    digest: u64,
    told: usize,
}

impl Forger {
    /// Returns a forged reply to a packet: its entries, changed.
    fn answer(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let entries = match decode_sealed(&self.space, bytes)? {
            Packet::Entries(entries) => entries,
            Packet::Heads { digest, .. } => {
                self.digest = digest;
                return None;
            }
            Packet::Wants(wants) => {
                let wanted = wants.iter().flat_map(|want| {
                    let numbers = want.numbers();
                    numbers.map(|number| (want.author, number))
                });
                let false_ones = wanted.take(9).map(unsigned).collect();
                return self.seal(&Packet::Entries(false_ones));
            }
            Packet::Request(_) | Packet::Presence(_) => return None,
        };
        let mut entry = entries.into_iter().next()?;
        // its own forgeries come back to it
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

    /// Returns false heads: unknown authors, a copied digest, too short, unknown entries.
    fn invent(&mut self) -> Option<Vec<u8>> {
        self.told += 1;
        let (digest, heads) = match self.told % 3 {
            0 => (self.digest, Vec::new()),
            1 => {
                let unknown = Head {
                    author: AuthorId(self.random.next()),
                    first: 1,
                    last: 9,
                    hash: [0; 16],
                    in_conflict: false,
                };
                (self.random.next(), vec![unknown])
            }
            _ => (self.random.next(), self.false_head().into_iter().collect()),
        };
        self.seal(&Packet::Heads {
            asks_for_requests: false,
            digest,
            heads,
        })
    }

    fn false_head(&mut self) -> Option<Head> {
        let at = self.random.index(self.seen.len());
        let author = self.seen.get(at)?.author;
        Some(Head {
            author,
            first: 1,
            last: self.random.below(200) as u32,
            hash: [self.random.next() as u8; 16],
            in_conflict: self.random.chance(0.5),
        })
    }

    fn seal(&mut self, packet: &Packet) -> Option<Vec<u8>> {
        let nonce = self.random.bytes(24);
        seal_packet(&self.space, packet, nonce.first_chunk()?)
    }
}

/// Returns an entry of this number without its author's signature.
fn unsigned((author, number): (AuthorId, u32)) -> Entry {
    Entry {
        author,
        number,
        first: 1,
        time: 0,
        kind: 16,
        previous: [0; 16],
        body: b"false".to_vec(),
        signature: [1; 64],
    }
}
