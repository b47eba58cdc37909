//! `lcroute leaf`: many listeners without routing in one process, without lc0 and daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use lcroute_control::config::Config;
use lcroute_control::system::{room_for_clients, stop_signal};
use lcroute_engine::{LeafState, LinkRefusal, SourceFilter};
use librecast::cert::Token;
use librecast::id::{PeerId, SecretKey};
use librecast::mapped;
use librecast::plain::clean;
use librecast_program::cli::{Exit, ExitError};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::up::token_of_environment;
use super::{hint, membership, multicast_group, print_line};
use crate::guest::leaf::{self as guest_leaf, Common, LeafEvent, LeafShell, MAX_ADDRESSES};
use crate::servers::proxy;

/// Most listeners of one process: each has sockets for its addresses and one for a server.
const MAX_LISTENERS: u32 = 4_096;
/// Listeners that start at a time: each handshake takes milliseconds of a processor.
const STARTING: usize = 16;
/// Time after which a slow listener no longer delays the next.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
/// Time without a link after which standard error has the reason.
const QUIET: Duration = Duration::from_secs(2);
/// Capacity of the channel of output lines.
const LINES: usize = 4_096;
/// Bytes of a UDP header (RFC 768).
const UDP_HEADER: usize = 8;

/// Options of the listeners.
#[derive(Debug, Args)]
pub struct LeafOptions {
    /// A group such as ff1e::42 or 239.1.2.3
    #[arg(value_parser = multicast_group)]
    group: IpAddr,
    /// How many listeners
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LISTENERS)))]
    count: u32,
    /// A token of `lcroute invite --leaf`, or - to read it from standard input [default: from LCROUTE_TOKEN or LCROUTE_TOKEN_FILE]
    #[arg(long)]
    token: Option<String>,
    /// Print no packets, but at the end what each listener has heard: how many, the longest gap, how many came again
    #[arg(long)]
    summary: bool,
}

/// Statistics of one listener.
#[derive(Debug, Default)]
struct Heard {
    packets: u64,
    last: Option<Duration>,
    /// Longest time between two packets.
    longest_gap: Duration,
    /// With a summary: hashes of recent packets, to find repetitions; and of earlier ones.
    seen: BTreeSet<u64>,
    seen_before: BTreeSet<u64>,
    repeated: u64,
}

/// Hashes in each of both sets. Chosen: some minutes of 50/s.
const SEEN: usize = 16_384;

impl Heard {
    fn note(&mut self, packet: &Packet, remember: bool) {
        self.packets += 1;
        let gap = self.last.map(|last| packet.at.saturating_sub(last));
        self.longest_gap = self.longest_gap.max(gap.unwrap_or_default());
        self.last = Some(packet.at);
        if remember {
            let mut hasher = DefaultHasher::new();
            (packet.from, packet.port, &packet.payload).hash(&mut hasher);
            let hash = hasher.finish();
            let is_new = !self.seen_before.contains(&hash) && self.seen.insert(hash);
            self.repeated += u64::from(!is_new);
            if self.seen.len() >= SEEN {
                self.seen_before = std::mem::take(&mut self.seen);
            }
        }
    }
}

/// An output of a listener.
#[derive(Debug)]
enum Line {
    Heard(u32, Packet),
    State(u32, LeafState, usize, Option<PeerId>),
    Refused(u32, Ipv6Addr, &'static str),
    /// No router gives it a link.
    NoLink(u32, LinkRefusal),
    /// The network has revoked the token.
    Expelled,
    /// Reason for its end.
    Failed(u32, String),
}

/// A datagram of the group.
#[derive(Debug)]
struct Packet {
    from: IpAddr,
    group: IpAddr,
    port: u16,
    payload: Vec<u8>,
    at: Duration,
}

/// State that listeners share.
#[derive(Debug)]
struct Shared {
    leaves: Arc<Common>,
    group: Ipv6Addr,
    begun: Instant,
    lines: mpsc::Sender<Line>,
}

/// Listens until SIGINT or SIGTERM.
pub fn run(config: &Config, options: &LeafOptions, json: bool) -> anyhow::Result<Exit> {
    if config.exposure().direct().is_err() {
        let message = "[ice] policy = \"relay\": a leaf links with routers directly, which would show them this host's addresses";
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    let token = token(options)?;
    let files = room_for_clients();
    if options.count as usize * (MAX_ADDRESSES + 1) > files * 2 {
        let message = format!(
            "--count {}: the limit of open files allows {}; ulimit -n",
            options.count,
            files * 2 / (MAX_ADDRESSES + 1)
        );
        return Err(ExitError::new(Exit::Failed, message).into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let proxy = proxy(config).map_err(|e| ExitError::new(Exit::Usage, format!("{e:#}")))?;
    let result = runtime.block_on(async {
        let (lines, printed) = mpsc::channel(LINES);
        let servers = token.signal.join(", ");
        let shared = Arc::new(Shared {
            leaves: Arc::new(Common::new(token, &config.tun.name, proxy).await),
            group: mapped::name_of(options.group),
            begun: Instant::now(),
            lines,
        });
        let count = options.count;
        tokio::spawn(async move {
            let starting = Arc::new(Semaphore::new(STARTING));
            for n in 0..count {
                let Ok(turn) = starting.clone().acquire_owned().await else {
                    return;
                };
                tokio::spawn(listen(n, shared.clone(), turn));
            }
        });
        show(options, &servers, printed, json).await
    });
    runtime.shutdown_background();
    result
}

/// Returns the token, which must be for leaves.
fn token(options: &LeafOptions) -> anyhow::Result<Token> {
    let text = match &options.token {
        Some(token) => membership::read_token(token)?,
        None => token_of_environment()?.ok_or_else(|| {
            let message = "--token -, or LCROUTE_TOKEN or LCROUTE_TOKEN_FILE: a token of `lcroute invite --leaf`";
            ExitError::new(Exit::Usage, message)
        })?,
    };
    let token = guest_leaf::with_servers(guest_leaf::token(&text)?)?;
    if !token.invitation().grant().leaf {
        let message = "the token makes routers, not leaves: `lcroute invite --leaf --groups P` prints one for leaves";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    Ok(token)
}

/// Prints the outputs of listeners.
async fn show(
    options: &LeafOptions,
    servers: &str,
    mut lines: mpsc::Receiver<Line>,
    json: bool,
) -> anyhow::Result<Exit> {
    let mut stop = std::pin::pin!(stop_signal()?);
    let many = options.count > 1;
    if !json {
        let who = if many {
            format!("{} leaves", options.count)
        } else {
            "a leaf".to_owned()
        };
        hint(format_args!(
            "{who}, listening to {}; Ctrl-C ends",
            options.group
        ));
    }
    let mut heard: BTreeMap<u32, Heard> = BTreeMap::new();
    let mut quiet = std::pin::pin!(tokio::time::sleep(QUIET));
    let mut is_quiet = !json;
    let (mut was_linked, mut told_refusal) = (false, false);
    loop {
        let line = tokio::select! {
            () = &mut stop => break,
            () = &mut quiet, if is_quiet => {
                is_quiet = false;
                hint(format_args!(
                    "no link yet: waiting for a router of the network at {servers}; does one run there, and does this host reach it?"
                ));
                continue;
            }
            line = lines.recv() => line,
        };
        match line {
            None => break,
            Some(Line::Heard(n, packet)) => {
                let of_leaf = heard.entry(n).or_default();
                of_leaf.note(&packet, options.summary);
                if !options.summary {
                    print_packet(n, &packet, (many, json))?;
                }
            }
            Some(Line::State(n, state, links, router)) if json => {
                was_linked |= links > 0;
                print_line(json!({ "leaf": n, "state": state, "links": links, "router": router }))?;
            }
            Some(Line::State(n, state, links, _)) => {
                was_linked |= links > 0;
                is_quiet &= links == 0;
                tracing::info!(leaf = n, ?state, links, "leaf");
            }
            Some(Line::Refused(n, group, reason)) => {
                let group = mapped::shown(group);
                if json {
                    print_line(json!({ "leaf": n, "group": group, "refused": reason }))?;
                }
                if reason == "not_permitted" {
                    let message = format!(
                        "{group}: the token does not let a leaf join it, or the network does not carry it"
                    );
                    return Err(ExitError::new(Exit::NotPermitted, message).into());
                }
                hint(format_args!(
                    "leaf {n}: {group}: refused ({reason}); asked for again"
                ));
            }
            Some(Line::NoLink(n, refusal)) => {
                if json {
                    print_line(json!({ "leaf": n, "refused": refusal }))?;
                }
                let message = guest_leaf::no_link(refusal);
                if !was_linked {
                    return Err(ExitError::new(Exit::NotPermitted, message).into());
                }
                if !std::mem::replace(&mut told_refusal, true) {
                    hint(format_args!("leaf {n}: {message}; trying on"));
                }
            }
            Some(Line::Expelled) => {
                let message = "revoked: the network takes no leaf by this token any more; ask for a new one (`lcroute invite --leaf`)";
                return Err(ExitError::new(Exit::NotPermitted, message).into());
            }
            Some(Line::Failed(n, why)) => {
                return Err(anyhow::anyhow!("leaf {n}: {why}"));
            }
        }
    }
    if options.summary {
        for (n, heard) in &heard {
            print_heard(*n, heard, json)?;
        }
    }
    let all = heard.values().map(|heard| heard.packets).sum::<u64>();
    let each = || (0..options.count).map(|n| heard.get(&n).map_or(0, |heard| heard.packets));
    let (least, most) = (each().min().unwrap_or(0), each().max().unwrap_or(0));
    if json {
        print_line(
            json!({ "leaves": options.count, "packets": all, "least": least, "most": most }),
        )?;
    } else if many {
        hint(format_args!(
            "{all} packets heard, {least} to {most} by each"
        ));
    }
    Ok(Exit::Ok)
}

fn print_heard(n: u32, heard: &Heard, json: bool) -> std::io::Result<()> {
    let gap = heard.longest_gap.as_millis() as u64;
    let Heard {
        packets, repeated, ..
    } = heard;
    match json {
        true => print_line(json!({
            "leaf": n, "packets": packets, "longest_gap_ms": gap, "repeated": repeated,
        })),
        false => print_line(format_args!(
            "{n}  {packets} packets, longest gap {gap} ms, {repeated} repeated"
        )),
    }
}

fn print_packet(n: u32, packet: &Packet, (many, json): (bool, bool)) -> std::io::Result<()> {
    let text = String::from_utf8_lossy(&packet.payload);
    if json {
        return print_line(json!({
            "leaf": n, "at_ms": packet.at.as_millis() as u64, "group": packet.group, "from": packet.from,
            "port": packet.port, "bytes": packet.payload.len(), "text": text,
        }));
    }
    let shown = clean(text.trim_end());
    match many {
        true => print_line(format_args!("{n}  {}  {shown}", packet.from)),
        false => print_line(format_args!("{}  {shown}", packet.from)),
    }
}

/// Runs one listener until its end.
async fn listen(n: u32, shared: Arc<Shared>, turn: OwnedSemaphorePermit) {
    let lines = shared.lines.clone();
    match Listener::new(n, shared, turn).await {
        Ok(mut listener) => while listener.step().await {},
        // the program ends once the channel is closed
        Err(e) => drop(lines.send(Line::Failed(n, format!("{e:#}"))).await),
    }
}

struct Listener {
    n: u32,
    shared: Arc<Shared>,
    leaf: LeafShell,
    shown: Option<(LeafState, usize, Option<PeerId>)>,
    /// The reason for which no router gives it a link, as last sent.
    refusal: Option<LinkRefusal>,
    /// Its place among starting listeners, with the latest time to release it.
    turn: Option<(OwnedSemaphorePermit, Instant)>,
}

impl Listener {
    async fn new(n: u32, shared: Arc<Shared>, turn: OwnedSemaphorePermit) -> anyhow::Result<Self> {
        let name = format!("leaf-{n}");
        let key = SecretKey::generate();
        let mut leaf = LeafShell::start(shared.leaves.clone(), key, &name).await?;
        let now = Instant::now();
        leaf.node().join(shared.group, SourceFilter::all(), now);
        Ok(Self {
            n,
            shared,
            leaf,
            shown: None,
            refusal: None,
            turn: Some((turn, now + STARTS_WITHIN)),
        })
    }

    async fn step(&mut self) -> bool {
        if !self.flush().await {
            return false;
        }
        let links = self.leaf.node().links();
        self.turn
            .take_if(|(_, until)| links >= 2 || Instant::now() >= *until);
        self.leaf.wait().await;
        true
    }

    /// Processes all pending outputs; returns false once the channel is closed.
    async fn flush(&mut self) -> bool {
        while let Some(event) = self.leaf.poll() {
            let line = match event {
                LeafEvent::Packet(packet) => {
                    let at = self.shared.begun.elapsed();
                    let Some(packet) = datagram_of(&packet, at) else {
                        continue;
                    };
                    Line::Heard(self.n, packet)
                }
                LeafEvent::Refused(group, reason) => Line::Refused(self.n, group, reason.name()),
                LeafEvent::Expelled => {
                    // the other router closes its link as well
                    let alone = Line::State(self.n, self.leaf.node().state(), 0, None);
                    if self.shared.lines.send(alone).await.is_err() {
                        return false;
                    }
                    Line::Expelled
                }
            };
            if self.shared.lines.send(line).await.is_err() {
                return false;
            }
        }
        let node = self.leaf.node();
        let now = (node.state(), node.links(), node.active());
        let refusal = node.refusal();
        if std::mem::replace(&mut self.refusal, refusal) != refusal
            && let Some(refusal) = refusal
            && self
                .shared
                .lines
                .send(Line::NoLink(self.n, refusal))
                .await
                .is_err()
        {
            return false;
        }
        if self.shown.replace(now) == Some(now) {
            return true;
        }
        let line = Line::State(self.n, now.0, now.1, now.2);
        self.shared.lines.send(line).await.is_ok()
    }
}

/// Returns the datagram in a packet; `None` for another protocol, or a fragment.
fn datagram_of(packet: &[u8], at: Duration) -> Option<Packet> {
    let (from, group, udp): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        6 if packet.get(6) == Some(&17) => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let group: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (source.into(), group.into(), packet.get(40..)?)
        }
        4 if packet.get(9) == Some(&17) => {
            let header = usize::from(packet.first()? & 0xf) * 4;
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let group: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (source.into(), group.into(), packet.get(header..)?)
        }
        _ => return None,
    };
    let port: [u8; 2] = udp.get(..2)?.try_into().ok()?;
    Some(Packet {
        from,
        group,
        port: u16::from_be_bytes(port),
        payload: udp.get(UDP_HEADER..)?.to_vec(),
        at,
    })
}

#[cfg(test)]
mod tests {
    use librecast::ipv6::udp_packet;

    use super::*;

    #[test]
    fn a_datagram_is_read_and_what_is_none_is_left_out() {
        let [source, group] = ["fd00::1", "ff1e::42"].map(|a| a.parse().unwrap());
        let packet = udp_packet(source, group, (14_244, 1), b"hello");
        let read = datagram_of(&packet, Duration::ZERO).unwrap();
        assert_eq!((read.from, read.group), (source.into(), group.into()));
        assert_eq!(read.payload, b"hello");
        for n in 0..UDP_HEADER + 40 {
            assert!(datagram_of(&packet[..n], Duration::ZERO).is_none(), "{n}");
        }
        let mut icmp = packet.clone();
        icmp[6] = 58;
        assert!(datagram_of(&icmp, Duration::ZERO).is_none());
    }
}
