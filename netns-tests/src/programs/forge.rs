//! `lcsync-forge`: a LAN host that answers each datagram of an lcsync server with forged ones.
//!
//! It needs no knowledge of the share: groups, numbers and lengths are those of received datagrams.
//! The formats are written from docs/protocol.md §9 and share nothing with the code under test.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use nix::libc;
use nix::net::if_::if_nametoindex;
use serde_json::json;
use socket2::SockRef;

use super::dice::Dice;
use super::sniffer::sniffer;

const PORT: u16 = 14242;
const HEADERS: usize = 14 + 40 + 8;
const UDP: u8 = 17;
const RECORD: u8 = 1;
const SYMBOL: u8 = 2;
const SYMBOL_HEADER: usize = 28;
const SYMBOL_PACKET: usize = SYMBOL_HEADER + 1024;
/// The forged server number.
const FORGED_SERVER: [u8; 4] = *b"fake";

/// Forges datagrams of lcsync until it is stopped; prints how many as a JSON line, now and then.
#[derive(Debug, Parser)]
#[command(name = "lcsync-forge")]
struct Args {
    /// What is forged.
    what: What,
    /// The interface.
    #[arg(long, default_value = "lan0")]
    interface: String,
    /// Forgeries for each datagram received.
    #[arg(long, default_value_t = 2)]
    times: u32,
    /// Uses the server's own number instead of another.
    #[arg(long)]
    imitate: bool,
    /// Uses another number in each datagram.
    #[arg(long, conflicts_with = "imitate")]
    many: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Symbols of the right form with wrong bytes.
    Symbols,
    /// Newer records with a root hash that nobody has.
    Roots,
    /// What is not a datagram of lcsync at all, or contradicts its channel.
    Garbage,
}

/// The program.
pub fn main() -> ExitCode {
    lcroute_demo::programs::run(forge)
}

fn forge(args: &Args) -> Result<()> {
    let index = if_nametoindex(args.interface.as_str()).context(args.interface.clone())?;
    // not ETH_P_ALL: excludes own datagrams
    let mut ear = sniffer(index, libc::ETH_P_IPV6).context("packet socket")?;
    let mouth = UdpSocket::bind("[::]:0")?;
    SockRef::from(&mouth).set_multicast_if_v6(index)?;
    let mut forger = Forger {
        args,
        dice: Dice::new(0x51ab),
        sequence: 0,
    };
    let mut out = std::io::stdout().lock();
    let mut frame = vec![0; 80_000];
    let mut count = 0_u64;
    loop {
        let length = ear.read(&mut frame)?;
        let Some((group, payload)) = lcsync_datagram(&frame[..length]) else {
            continue;
        };
        // coalesced datagrams arrive as one frame
        for received in payload.chunks(SYMBOL_PACKET) {
            for _ in 0..args.times {
                let Some(forged) = forger.answer(received) else {
                    continue;
                };
                let to = SocketAddrV6::new(group, PORT, 0, index);
                // a full queue does not end the program
                if mouth.send_to(&forged, to).is_ok() {
                    count += 1;
                    if count.is_power_of_two() {
                        writeln!(out, "{}", json!({"forged": count}))?;
                        out.flush()?;
                    }
                }
            }
        }
    }
}

/// Returns group and payload of an lcsync datagram in an Ethernet frame.
fn lcsync_datagram(frame: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    let udp = *frame.get(20)? == UDP;
    let port = u16::from_be_bytes(frame.get(56..58)?.try_into().ok()?);
    let group = Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(38..54)?).ok()?);
    (udp && port == PORT && group.is_multicast()).then_some(())?;
    Some((group, frame.get(HEADERS..)?))
}

struct Forger<'a> {
    args: &'a Args,
    dice: Dice,
    sequence: u32,
}

impl Forger<'_> {
    fn answer(&mut self, received: &[u8]) -> Option<Vec<u8>> {
        let kind = *received.get(1)?;
        match (self.args.what, kind) {
            (What::Symbols, SYMBOL) => self.symbol(received),
            (What::Roots, RECORD) => self.root(received),
            (What::Garbage, RECORD | SYMBOL) => Some(self.garbage(received)),
            _ => None,
        }
    }

    fn server(&mut self, received: &[u8]) -> Option<[u8; 4]> {
        if self.args.imitate {
            return received.get(4..8)?.try_into().ok();
        }
        Some(if self.args.many {
            (self.dice.roll() as u32).to_be_bytes()
        } else {
            FORGED_SERVER
        })
    }

    /// Returns wrong bytes under another valid id of the block.
    fn symbol(&mut self, received: &[u8]) -> Option<Vec<u8>> {
        let server = self.server(received)?;
        let length = u32::from_be_bytes(received.get(20..24)?.try_into().ok()?);
        let symbols = length.div_ceil(1024).max(1);
        let roll = self.dice.roll() as u32;
        let id = if roll & 1 == 0 {
            (roll >> 1) % symbols
        } else {
            symbols + roll % 1_000_000
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut forged = received.get(..SYMBOL_HEADER)?.to_vec();
        forged[4..8].copy_from_slice(&server);
        forged[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        forged[24..28].copy_from_slice(&id.to_be_bytes());
        self.dice.fill(&mut forged, SYMBOL_PACKET);
        Some(forged)
    }

    /// Returns a newer generation with another root hash, equal in every record.
    fn root(&mut self, received: &[u8]) -> Option<Vec<u8>> {
        let server = self.server(received)?;
        let mut forged = received.to_vec();
        forged.get_mut(4..8)?.copy_from_slice(&server);
        let generation = u64::from_be_bytes(forged.get(8..16)?.try_into().ok()?) + 1_000_000;
        forged[8..16].copy_from_slice(&generation.to_be_bytes());
        forged.get_mut(16..48)?.fill(0xaa);
        Some(forged)
    }

    fn garbage(&mut self, received: &[u8]) -> Vec<u8> {
        let roll = self.dice.roll() as usize;
        let at = roll >> 8;
        let mut bytes = received.to_vec();
        match roll % 6 {
            // cut short, or with bytes after its end
            0 => bytes.truncate(at % received.len()),
            1 => self.dice.fill(&mut bytes, received.len() + 1 + at % 64),
            // another version, another type, unknown flags
            2 => bytes[at % 4] ^= 0x55,
            // symbols of another channel, of too long a block, or of another length
            3 if bytes[1] == SYMBOL => bytes[12 + at % 12] ^= 0xff,
            // lengths inside a record
            3 => bytes.iter_mut().skip(48 + at % 80).for_each(|b| *b = 0xff),
            4 => {
                bytes.clear();
                self.dice.fill(&mut bytes, at % 1_200);
            }
            _ => bytes = vec![1, (at % 4) as u8],
        }
        bytes
    }
}
