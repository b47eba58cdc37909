//! A line of lossy links with a bulk flow that fills it and a live flow beside it, for each code of
//! repair. The lanes are those of `lcroute-webrtc`; the links are simulated.
//!
//! ```text
//!   sender ══ lane ── rate, queue, delay, loss ── lane ══ router ══ ... ══ listener
//!              \_____ reports: delay, loss _____/
//! ```
//!
//! The bulk flow is a fountain: any packet is useful, so the number of different packets counts.
//! With the code `bats` it is a BATS code of real bytes: innovative packets that decode count.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use lcroute_webrtc::{BareLane, Limits};
use librecast::random::{Random, mix};
use librecast::simulated::{Bottleneck, Network, Path};
use librecast::time::Instant;
use serde::Serialize;

use crate::bats::{self, BATCH, Decoder, Encoder, Recoder, Undecoded};
use crate::time::Clock;

/// Rate of each link, in bits a second. Chosen: a home's uplink.
const RATE: f64 = 20e6;
/// Time to empty a full queue before a link. Chosen: a home router's.
const QUEUE: Duration = Duration::from_millis(100);
/// Latency of a link, one way. Chosen: hosts of one country.
const DELAY: Duration = Duration::from_millis(10);
/// Time for all windows to find their size. Chosen.
const SETTLE: Duration = Duration::from_secs(5);
/// Offered rate of the bulk flow, as a share of the link's. Chosen: enough to fill the first link.
const OFFERED: f64 = 1.25;
/// Bytes of a message of the bulk flow: data header, and the longest packet of `lc0`.
const BULK_BYTES: usize = 32 + MTU as usize;
/// Bytes of a message of the live flow: data header, and a packet of sound. Chosen.
const LIVE_BYTES: usize = 32 + 200;
/// MTU of `lc0` in bytes: the least of IPv6 (RFC 8200 §5).
const MTU: u16 = 1_280;
/// Overhead of a message in its own datagram, in bytes: chunk, RTP, tag.
const LANE_BYTES: usize = 2 + 12 + 16;
/// Overhead of a datagram, in bytes: UDP, IPv6.
const UDP_BYTES: usize = 48;
/// Interval of the live flow's packets: that of speech.
const LIVE_EVERY: Duration = Duration::from_millis(20);
/// Least interval of a lane's timers. Chosen: a turn of a busy daemon.
const TURN: Duration = Duration::from_micros(100);
/// Bytes of a message with the flow's group, its number, and its sending time in nanoseconds.
const GROUP: usize = 32 + 39;
const NUMBER: std::ops::Range<usize> = 72..80;
const SENT: std::ops::Range<usize> = 80..88;
/// Bytes of a message of a batch with its coefficients, and its symbol.
const COEFFICIENTS: std::ops::Range<usize> = 88..88 + BATCH;
const SYMBOL: std::ops::Range<usize> = COEFFICIENTS.end..BULK_BYTES;
/// Source symbols of an object. Chosen: the most of an `lcsync` block.
const SYMBOLS: usize = 1_024;
/// Last byte of the bulk flow's group.
const BULK: u8 = 1;
/// Last byte of the live flow's group.
const LIVE: u8 = 2;

/// Repair of a flow on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// No repair.
    None,
    /// Lanes resend packets that arrive in time, or send symbols, if data leaves room.
    Resend,
    /// Lanes do nothing; the flow is a BATS code, which routers recode.
    Bats,
}

/// Code that was tried and dropped.
const TRIED: &str = "bulk";

impl Code {
    /// All codes.
    pub const ALL: [Self; 3] = [Self::None, Self::Resend, Self::Bats];

    /// Returns its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Resend => "resend",
            Self::Bats => "bats",
        }
    }

    fn limits(self) -> Limits {
        let limits = Limits::default();
        match self {
            Self::None | Self::Bats => Limits {
                media_repair: Duration::ZERO,
                ..limits
            },
            Self::Resend => limits,
        }
    }

    /// Returns the share that arrives with full windows and repair of exactly the losses.
    fn bound(self, subject: &LineSubject) -> f64 {
        let links = match self {
            Self::None => subject.links,
            // of endless batches
            Self::Resend | Self::Bats => 1,
        };
        (1.0 - subject.loss).powi(i32::try_from(links).unwrap_or(i32::MAX))
    }
}

impl FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|code| code.name() == text);
        found.ok_or_else(|| {
            let codes = Self::ALL.map(Self::name).join(", ");
            match text {
                TRIED => format!("`{TRIED}` was tried, and not taken (adr/packets.md): {codes}"),
                _ => format!("`{text}` is none of {codes}"),
            }
        })
    }
}

/// Parameters of a simulated line.
#[derive(Debug, Clone, Copy)]
pub struct LineSubject {
    /// Links in a row.
    pub links: u32,
    /// Share of datagrams that each link loses, in both directions.
    pub loss: f64,
    /// Seed of the first run.
    pub seed: u64,
    /// Number of runs, each with the next seed.
    pub seeds: u64,
    /// Time in each run for which packets are counted.
    pub counted: Duration,
}

/// Results of a code on a line: means of all runs.
#[derive(Debug, Clone, Serialize)]
pub struct LineFigures {
    /// Links in a row.
    pub links: u32,
    /// Share of datagrams that each link loses.
    pub loss: f64,
    /// Seed of the first run.
    pub seed: u64,
    /// Number of runs.
    pub seeds: u64,
    /// Repair of the flow.
    pub code: &'static str,
    /// Share of the bulk flow that arrives, relative to a lossless link. For a BATS code without
    /// coefficients, and without packets beyond the symbols that decoding needs.
    pub share: f64,
    /// Least and greatest share of a run.
    pub share_range: [f64; 2],
    /// Share that loss alone leaves.
    pub bound: f64,
    /// Datagrams per link for each packet that arrives at the end.
    pub cost: f64,
    /// Packets resent, and symbols, as a share of these datagrams.
    pub repair: f64,
    /// Share of the live flow's packets that arrive.
    pub live_share: f64,
    /// Decoded objects of a BATS code, all equal to the sent bytes.
    pub decoded: u64,
    /// Packets needed for decoding, per symbol of an object.
    pub needed: f64,
    /// Median latency of the live flow, in ms.
    pub live_p50_ms: f64,
    /// 99th percentile of it, in ms.
    pub live_p99_ms: f64,
}

/// Measures a line with one code; `None` if the crypto provider fails.
#[must_use]
pub fn line(subject: &LineSubject, code: Code) -> Option<LineFigures> {
    let mut counts = Counts::default();
    let mut shares = Vec::new();
    for seed in subject.seed..=subject.seed.saturating_add(subject.seeds.max(1) - 1) {
        let one = Line::new(subject, code, seed)?.run();
        shares.push(one.share(code, subject.counted));
        counts.add(one);
    }
    counts.delays.sort_unstable();
    let runs = shares.len() as f64;
    let percentile = |share: usize| {
        let at = counts.delays.len() * share / 100;
        let delay = counts.delays.get(at).or(counts.delays.last());
        delay.map_or(0.0, |delay| *delay as f64 / 1e6)
    };
    let carried = counts.datagrams as f64;
    Some(LineFigures {
        links: subject.links,
        loss: subject.loss,
        seed: subject.seed,
        seeds: shares.len() as u64,
        code: code.name(),
        share: shares.iter().sum::<f64>() / runs,
        share_range: [
            shares.iter().copied().fold(f64::INFINITY, f64::min),
            shares.iter().copied().fold(0.0, f64::max),
        ],
        bound: code.bound(subject),
        decoded: counts.decoded,
        needed: counts.needed(),
        cost: carried / f64::from(subject.links) / (counts.arrived as f64).max(1.0),
        repair: counts.repair as f64 / carried.max(1.0),
        live_share: counts.delays.len() as f64 / (counts.live_sent as f64).max(1.0),
        live_p50_ms: percentile(50),
        live_p99_ms: percentile(99),
    })
}

/// Counts of a run, for packets sent while it counts.
#[derive(Debug, Default)]
struct Counts {
    arrived: u64,
    /// Datagrams towards the listener on all links, including lost ones; those for repair.
    datagrams: u64,
    repair: u64,
    /// Decoded objects, and the packets that they needed.
    decoded: u64,
    decoded_of: u64,
    live_sent: u64,
    /// Latencies in nanoseconds.
    delays: Vec<u64>,
}

impl Counts {
    fn share(&self, code: Code, counted: Duration) -> f64 {
        let bits = (BULK_BYTES + LANE_BYTES + UDP_BYTES) as f64 * 8.0;
        let useful = match code {
            Code::Bats => {
                SYMBOL.len() as f64 / (BULK_BYTES - COEFFICIENTS.start) as f64 / self.needed()
            }
            _ => 1.0,
        };
        self.arrived as f64 * useful * bits / counted.as_secs_f64() / RATE
    }

    fn needed(&self) -> f64 {
        match self.decoded {
            // without a decoded object no packet is useful
            0 => f64::INFINITY,
            decoded => self.decoded_of as f64 / (decoded * SYMBOLS as u64) as f64,
        }
    }

    fn add(&mut self, one: Self) {
        self.arrived += one.arrived;
        self.datagrams += one.datagrams;
        self.repair += one.repair;
        self.decoded += one.decoded;
        self.decoded_of += one.decoded_of;
        self.live_sent += one.live_sent;
        self.delays.extend(one.delays);
    }
}

/// An end of a link; even ones send towards the listener.
struct End {
    lane: BareLane,
    out: Bottleneck<Instant>,
    /// Earliest time of its next timers.
    rested: Instant,
}

/// A flow with a BATS code: the same object endlessly, for one listener after another.
struct Coded {
    encoder: Encoder,
    hash: [u8; 32],
    /// Unsent packets of the last batch.
    waiting: Vec<bats::Packet>,
    batch: u32,
    recoders: Vec<Recoder>,
    decoder: Decoder,
    /// Last batch of decoded objects.
    used: Option<u32>,
    newest: u32,
}

impl Coded {
    fn new(subject: &LineSubject, seed: u64) -> Option<Self> {
        let mut random = Random::stream(seed, &[1]);
        let symbol = |_| random.bytes(SYMBOL.len());
        let source: Vec<Vec<u8>> = (0..SYMBOLS).map(symbol).collect();
        let hash = Decoder::hash(&source);
        let recoder = |link| Recoder::new(SYMBOL.len(), subject.loss, mix(seed ^ mix(link)));
        Some(Self {
            encoder: Encoder::new(source)?,
            hash,
            waiting: Vec::new(),
            batch: 0,
            recoders: (1..subject.links)
                .map(|link| recoder(link.into()))
                .collect(),
            decoder: Decoder::new(SYMBOLS, SYMBOL.len(), hash),
            used: None,
            newest: 0,
        })
    }

    /// Returns the sender's next packet.
    fn next(&mut self) -> Option<bats::Packet> {
        if self.waiting.is_empty() {
            self.waiting = self.encoder.batch(self.batch);
            self.waiting.reverse();
            self.batch += 1;
        }
        self.waiting.pop()
    }

    /// Handles a packet at the listener.
    fn arrive(&mut self, packet: &bats::Packet, counts: &mut Counts) {
        if self.used.is_some_and(|used| packet.batch <= used)
            || self.decoder.add(packet) != bats::Added::Innovative
        {
            return;
        }
        counts.arrived += 1;
        self.newest = self.newest.max(packet.batch);
        match self.decoder.decode() {
            Err(Undecoded::Rank) => return,
            Err(Undecoded::Wrong) => {}
            Ok(_) => {
                counts.decoded += 1;
                counts.decoded_of += self.decoder.rank() as u64;
            }
        }
        self.decoder = Decoder::new(SYMBOLS, SYMBOL.len(), self.hash);
        self.used = Some(self.newest);
    }
}

fn write_packet(message: &mut [u8], packet: &bats::Packet) {
    message[NUMBER].copy_from_slice(&u64::from(packet.batch).to_be_bytes());
    message[COEFFICIENTS].copy_from_slice(&packet.coefficients);
    message[SYMBOL].copy_from_slice(&packet.symbol);
}

fn read_packet(message: &[u8]) -> Option<bats::Packet> {
    Some(bats::Packet {
        batch: read(message, NUMBER)?.try_into().ok()?,
        coefficients: message.get(COEFFICIENTS)?.try_into().ok()?,
        symbol: message.get(SYMBOL)?.to_vec(),
    })
}

struct Line {
    clock: Clock,
    now: Instant,
    ends: Vec<End>,
    /// Network between numbered ends; a datagram names its destination.
    network: Network<Instant, usize, (usize, Bytes)>,
    until: Instant,
    next_bulk: Instant,
    next_live: Instant,
    number: u64,
    seen: BTreeSet<u64>,
    /// `None`: packets of the flow have only a number.
    coded: Option<Coded>,
    counts: Counts,
}

impl Line {
    fn new(subject: &LineSubject, code: Code, seed: u64) -> Option<Self> {
        let clock = Clock::new();
        let now = clock.instant(0);
        let mut ends = Vec::new();
        for link in 0..subject.links {
            let seed = mix(seed ^ mix(u64::from(link) + 1));
            let lanes = BareLane::pair(&code.limits(), MTU, seed, now)?;
            ends.extend(lanes.map(|lane| End {
                lane,
                out: Bottleneck::new(RATE, QUEUE, now),
                rested: now,
            }));
        }
        let path = Path {
            delay: DELAY,
            loss: subject.loss,
            ..Path::default()
        };
        Some(Self {
            clock,
            now,
            ends,
            network: Network::new(path, seed),
            until: now + SETTLE + subject.counted,
            next_bulk: now,
            next_live: now,
            number: 0,
            seen: BTreeSet::new(),
            coded: match code {
                Code::Bats => Some(Coded::new(subject, seed)?),
                _ => None,
            },
            counts: Counts::default(),
        })
    }

    fn run(mut self) -> Counts {
        let mut repaired_before = None;
        loop {
            self.now = self.next_at();
            if self.now >= self.until {
                break;
            }
            if self.is_counting() && repaired_before.is_none() {
                repaired_before = Some(self.repaired());
            }
            self.turn();
        }
        self.counts.repair = self.repaired() - repaired_before.unwrap_or_default();
        self.counts
    }

    fn is_counting(&self) -> bool {
        self.now >= self.clock.instant(0) + SETTLE
    }

    fn repaired(&self) -> u64 {
        let each = self.ends.iter().step_by(2).map(|end| end.lane.repaired());
        each.map(|info| info.media_resent + info.media_symbols)
            .sum()
    }

    fn next_at(&self) -> Instant {
        let timers = self.ends.iter().filter_map(End::due);
        let arrival = self.network.next_timeout();
        let next = timers.chain(arrival).fold(self.next_bulk, Instant::min);
        next.min(self.next_live).max(self.now)
    }

    /// Runs everything due at one moment.
    fn turn(&mut self) {
        let now = self.now;
        while let Some((at, datagram)) = self.network.poll(now) {
            let mut messages = Vec::new();
            let lane = &mut self.ends[at].lane;
            lane.handle_datagram(&datagram, now, &mut |message| messages.push(message));
            for message in messages {
                self.pass_on(at, &message);
            }
            self.flush(at);
        }
        if self.next_bulk <= now {
            let bits = (BULK_BYTES + LANE_BYTES + UDP_BYTES) as f64 * 8.0;
            self.next_bulk = now + Duration::from_secs_f64(bits / RATE / OFFERED);
            self.say(BULK, BULK_BYTES);
        }
        if self.next_live <= now {
            self.next_live = now + LIVE_EVERY;
            self.counts.live_sent += u64::from(self.is_counting());
            self.say(LIVE, LIVE_BYTES);
        }
        for at in 0..self.ends.len() {
            let end = &mut self.ends[at];
            if end.due().is_some_and(|due| due <= now) {
                end.lane.handle_timeout(now);
                end.rested = now + TURN;
                self.flush(at);
            }
        }
    }

    /// Sends a packet from the sender.
    fn say(&mut self, group: u8, bytes: usize) {
        let mut message = vec![0; bytes];
        message[GROUP] = group;
        message[NUMBER].copy_from_slice(&self.number.to_be_bytes());
        let packet = self.coded.as_mut().filter(|_| group == BULK);
        if let Some(packet) = packet.and_then(Coded::next) {
            write_packet(&mut message, &packet);
        }
        let sent = self.clock.nanos(self.now);
        message[SENT].copy_from_slice(&sent.to_be_bytes());
        self.number += 1;
        self.ends[0].lane.send(&message, self.now);
        self.flush(0);
    }

    /// Handles a message at an end: forwards it over the next link, or counts it at the listener.
    fn pass_on(&mut self, at: usize, message: &[u8]) {
        if let Some(coded) = &mut self.coded
            && message.get(GROUP) == Some(&BULK)
            && let Some(packet) = read_packet(message)
        {
            if let Some(recoder) = coded.recoders.get_mut(at / 2) {
                let mut onwards = message.to_vec();
                for packet in recoder.handle(&packet) {
                    write_packet(&mut onwards, &packet);
                    self.ends[at + 1].lane.send(&onwards, self.now);
                }
                self.flush(at + 1);
            } else if read(message, SENT) >= Some(SETTLE.as_nanos() as u64) {
                coded.arrive(&packet, &mut self.counts);
            }
            return;
        }
        if let Some(next) = self.ends.get_mut(at + 1) {
            next.lane.send(message, self.now);
            return self.flush(at + 1);
        }
        let (Some(number), Some(sent)) = (read(message, NUMBER), read(message, SENT)) else {
            return;
        };
        if sent < SETTLE.as_nanos() as u64 || !self.seen.insert(number) {
            return;
        }
        match message[GROUP] {
            LIVE => self.counts.delays.push(self.clock.nanos(self.now) - sent),
            _ => self.counts.arrived += 1,
        }
    }

    /// Sends an end's datagrams to the other end of its link.
    fn flush(&mut self, at: usize) {
        let counting = self.is_counting();
        let end = &mut self.ends[at];
        for datagram in end.lane.poll_transmits(self.now) {
            let Some(through) = end.out.pass(datagram.len() + UDP_BYTES, self.now) else {
                continue;
            };
            self.counts.datagrams += u64::from(counting && at.is_multiple_of(2));
            let other = at ^ 1;
            self.network.send(at, other, (other, datagram), through);
        }
    }
}

impl End {
    /// Returns the time of its next timers.
    fn due(&self) -> Option<Instant> {
        let due = self.lane.next_timeout()?;
        Some(due.max(self.rested))
    }
}

fn read(message: &[u8], range: std::ops::Range<usize>) -> Option<u64> {
    let bytes = message.get(range)?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

/// Returns the table of results, a row for each code.
#[must_use]
pub fn line_table(all: &[LineFigures]) -> String {
    let mut text = String::new();
    if let Some(first) = all.first() {
        let _ = writeln!(
            text,
            "{} links, {} Mbit/s, {} ms one way, {} % lost on each, both ways; {} run{}",
            first.links,
            RATE / 1e6,
            DELAY.as_millis(),
            first.loss * 100.0,
            first.seeds,
            if first.seeds == 1 { "" } else { "s" },
        );
    }
    text.push_str(
        "code     share (least, most)     bound  datagrams/link  of them repair  live: share  p50 ms  p99 ms\n",
    );
    for f in all {
        let _ = writeln!(
            text,
            "{:<8} {:.3} ({:.3}, {:.3})    {:.3}  {:>14.3}  {:>13.1}%  {:>11.4}  {:>6.1}  {:>6.1}{}",
            f.code,
            f.share,
            f.share_range[0],
            f.share_range[1],
            f.bound,
            f.cost,
            f.repair * 100.0,
            f.live_share,
            f.live_p50_ms,
            f.live_p99_ms,
            match f.decoded {
                0 => String::new(),
                decoded => format!(
                    "  {decoded} objects decoded, each of {:.4} x its symbols",
                    f.needed
                ),
            },
        );
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(links: u32, loss: f64, seconds: u64, code: Code) -> LineFigures {
        let subject = LineSubject {
            links,
            loss,
            seed: 1,
            seeds: 1,
            counted: Duration::from_secs(seconds),
        };
        line(&subject, code).unwrap()
    }

    #[test]
    fn without_repair_each_link_takes_its_share() {
        let subject = LineSubject {
            links: 2,
            loss: 0.05,
            seed: 1,
            seeds: 16,
            counted: Duration::from_secs(4),
        };
        let f = line(&subject, Code::None).unwrap();
        assert!((0.83..0.91).contains(&f.share), "{f:?}");
        assert_eq!(f.repair, 0.0);
        assert!((0.86..0.92).contains(&f.live_share), "{f:?}");
    }

    #[test]
    fn recoded_batches_bring_what_the_last_link_lets_through_and_decode() {
        let [none, bats] = [Code::None, Code::Bats].map(|code| figures(3, 0.2, 4, code));
        assert!(bats.decoded >= 2, "{bats:?}");
        assert!((1.0..1.02).contains(&bats.needed), "{bats:?}");
        assert!(bats.share > none.share * 1.1, "{bats:?} {none:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() {
        let all = || Code::ALL.map(|code| figures(2, 0.05, 1, code));
        assert_eq!(format!("{:?}", all()), format!("{:?}", all()));
    }

    #[test]
    fn codes_have_names() {
        for code in Code::ALL {
            assert_eq!(code.name().parse(), Ok(code));
        }
        for wrong in ["", "None"] {
            assert!(wrong.parse::<Code>().is_err(), "{wrong}");
        }
        let tried = "bulk".parse::<Code>().unwrap_err();
        assert!(
            tried.contains("was tried") && tried.contains("adr/packets.md"),
            "{tried}"
        );
    }
}
