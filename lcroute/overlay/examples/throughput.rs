//! How much one link carries: two overlays in one process and one thread, datagrams handed over in
//! memory, 1,200-byte messages through each lane for some seconds.
//!
//! `cargo run --release -p lcroute-overlay --example throughput [SECONDS [BYTES]]`

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use lcroute_overlay::{
    CarrierId, Event, Identity, Limits, LinkId, Overlay, OverlayConfig, Presence,
};
use librecast::cert::{Certificate, Chain, Grant, GroupPrefix, Kind};
use librecast::id::SecretKey;

const HEADER: usize = 32;

struct Node {
    overlay: Overlay,
    addr: SocketAddr,
    link: Option<LinkId>,
    received: u64,
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_secs())
}

fn identity(network: &SecretKey) -> anyhow::Result<Identity> {
    let (issuer, node) = (SecretKey::generate(), SecretKey::generate());
    let grant = Grant {
        not_before: 0,
        not_after: u64::MAX,
        core: false,
        name: String::new(),
        labels: BTreeMap::new(),
        prefixes: vec![GroupPrefix::ALL],
    };
    let id = network.peer_id();
    let issued = Certificate::sign(Kind::Issuer, id, issuer.peer_id(), grant.clone(), network)?;
    let member = Certificate::sign(Kind::Node, id, node.peer_id(), grant, &issuer)?;
    Ok(Identity::new(
        Arc::new(node),
        id,
        Chain::new(vec![issued, member])?,
    ))
}

fn node(network: &SecretKey, addr: &str, media: bool) -> anyhow::Result<Node> {
    let config = OverlayConfig {
        identity: identity(network)?,
        clock: unix_now,
        seed: 1,
        mtu: 1280,
        media,
        limits: Limits::default(),
    };
    let addr = addr.parse()?;
    let now = Instant::now();
    let mut overlay = Overlay::new(config, now)?;
    overlay.set_local_candidates(vec![addr], now);
    Ok(Node {
        overlay,
        addr,
        link: None,
        received: 0,
    })
}

/// Hands over what `a` has for `b`.
fn shuttle(a: &mut Node, b: &mut Node) -> bool {
    let now = Instant::now();
    let mut moved = false;
    while let Some(transmit) = a.overlay.poll_transmit() {
        moved = true;
        let (to, datagram) = (transmit.to, &transmit.contents);
        b.overlay
            .handle_datagram(a.addr, to, datagram, transmit.ecn, now);
    }
    while let Some(event) = a.overlay.poll_event() {
        moved = true;
        match event {
            Event::LinkUp { link, .. } => a.link = Some(link),
            Event::LinkDown { .. } => a.link = None,
            Event::Data { .. } => a.received += 1,
            Event::Signal { bytes, .. } => {
                b.overlay.handle_signal(CarrierId(0), None, &bytes, now);
            }
            Event::Control { .. } | Event::PeerRefused { .. } => {}
        }
    }
    if a.overlay.poll_timeout().is_some_and(|at| at <= now) {
        a.overlay.handle_timeout(now);
    }
    moved
}

/// CPU time of this process, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n| -> f64 {
        let field = fields.split_whitespace().nth(n);
        field.and_then(|f| f.parse().ok()).unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn connect(media: bool) -> anyhow::Result<(Node, Node)> {
    let network = SecretKey::generate();
    let (mut a, mut b) = (
        node(&network, "10.0.0.1:7000", media)?,
        node(&network, "10.0.0.2:7000", media)?,
    );
    let ids = [&a, &b].map(|n| n.overlay.peer_id());
    let now = Instant::now();
    a.overlay
        .handle_presence(CarrierId(0), Presence::Online(ids[1]), now);
    b.overlay
        .handle_presence(CarrierId(0), Presence::Online(ids[0]), now);
    while a.link.is_none() || b.link.is_none() {
        shuttle(&mut a, &mut b);
        shuttle(&mut b, &mut a);
        anyhow::ensure!(now.elapsed() < Duration::from_secs(30), "no link");
    }
    Ok((a, b))
}

fn measure(media: bool, size: usize, seconds: u64) -> anyhow::Result<()> {
    let (mut a, mut b) = connect(media)?;
    let link = a.link.context("the link is up")?;
    let body = vec![0x5a; size.saturating_sub(HEADER)];
    let (began, used) = (Instant::now(), cpu());
    let (mut sent, mut full) = (0_u64, 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        let now = Instant::now();
        for _ in 0..64 {
            match a.overlay.send_data(link, [&[0x10; HEADER], &body], now) {
                Ok(()) => sent += 1,
                Err(_) => {
                    full += 1;
                    break;
                }
            }
        }
        shuttle(&mut a, &mut b);
        shuttle(&mut b, &mut a);
    }
    let (took, used) = (began.elapsed().as_secs_f64(), cpu() - used);
    let bytes = b.received as f64 * size as f64;
    let lane = if media { "media" } else { "data" };
    println!(
        "{lane}: {:.0} Mbit/s, {:.0} packets/s of {size} bytes; {:.2} CPU s/GB for both sides, \
         {:.0} Mbit/s per CPU second; {sent} sent, {} received, {full} refused, drops {:?}",
        bytes * 8.0 / took / 1e6,
        b.received as f64 / took,
        used / (bytes / 1e9),
        bytes * 8.0 / used / 1e6,
        b.received,
        a.overlay.drops(),
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |s| s.parse())?;
    let size = std::env::args().nth(2).map_or(Ok(1_200), |s| s.parse())?;
    for media in [false, true] {
        measure(media, size, seconds)?;
    }
    Ok(())
}
