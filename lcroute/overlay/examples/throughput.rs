//! How much one link carries: two overlays in one process and one thread, datagrams handed over in
//! memory, 1,200-byte messages through the data channel for some seconds.
//!
//! `cargo run --release -p lcroute-overlay --example throughput [SECONDS]`

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

const MESSAGE: usize = 1_200;

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

fn node(network: &SecretKey, addr: &str) -> anyhow::Result<Node> {
    let config = OverlayConfig {
        identity: identity(network)?,
        clock: unix_now,
        seed: 1,
        mtu: 1280,
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
        b.overlay
            .handle_datagram(a.addr, transmit.to, &transmit.contents, now);
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

fn main() -> anyhow::Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |s| s.parse())?;
    let network = SecretKey::generate();
    let (mut a, mut b) = (
        node(&network, "10.0.0.1:7000")?,
        node(&network, "10.0.0.2:7000")?,
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
    println!("link after {:?}", now.elapsed());
    let link = a.link.context("the link is up")?;
    let body = [0x5a; MESSAGE - 32];
    let (began, mut sent, mut full) = (Instant::now(), 0_u64, 0_u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..64 {
            match a
                .overlay
                .send_data(link, [&[0x10; 32], &body], Instant::now())
            {
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
    let took = began.elapsed().as_secs_f64();
    let rate = b.received as f64 * MESSAGE as f64 * 8.0 / took / 1e6;
    println!(
        "sent {sent}, refused {full}, received {}: {rate:.0} Mbit/s",
        b.received
    );
    Ok(())
}
