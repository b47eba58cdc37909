//! Two overlays in one process and thread, with a link between them; datagrams pass in memory.

#![allow(dead_code, reason = "each program takes what it needs")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lcroute_overlay::{CarrierId, Event, Identity, Limits, Overlay, OverlayConfig, Presence};
use lcroute_webrtc::{WebRtc, WebRtcConfig};
use librecast::cert::{Chain, Grant};
use librecast::id::{LinkId, SecretKey};
use librecast::time::{UnixTime, WallClock};

/// Bytes of the data header, a message's first part.
pub const HEADER: usize = 32;

/// A node, and its received messages.
pub struct Node {
    pub overlay: Overlay<WebRtc>,
    pub addr: SocketAddr,
    pub link: Option<LinkId>,
    pub received: u64,
}

fn identity(network: &SecretKey) -> anyhow::Result<Identity> {
    let (issuer, node) = (SecretKey::generate(), SecretKey::generate());
    let grant = Grant::new("node", (0, u64::MAX));
    let issuing = Grant {
        name: String::new(),
        ..grant.clone()
    };
    let chain = Chain::sign(network, (&issuer, issuing), (node.peer_id(), grant))?;
    Ok(Identity::new(Arc::new(node), network.peer_id(), chain))
}

fn node(network: &SecretKey, addr: &str, media: bool) -> anyhow::Result<Node> {
    let now = Instant::now();
    let identity = identity(network)?;
    let webrtc = WebRtcConfig {
        control: identity.speaks().control,
        epoch: now,
        unix_now: UnixTime::now(),
        reproducible: false,
        seed: [1; 32],
        mtu: 1280,
        media,
        limits: lcroute_webrtc::Limits::default(),
    };
    let config = OverlayConfig {
        seed: *identity.peer_id().public_key(),
        identity,
        clock: WallClock::new(UnixTime::now),
        epoch: now,
        limits: Limits::default(),
    };
    let addr = addr.parse()?;
    let mut webrtc = WebRtc::new(webrtc, now)?;
    webrtc.set_local_candidates(vec![addr], now);
    let overlay = Overlay::new(config, webrtc, now);
    Ok(Node {
        overlay,
        addr,
        link: None,
        received: 0,
    })
}

/// Passes datagrams from `a` to `b`.
pub fn shuttle(a: &mut Node, b: &mut Node) -> bool {
    let now = Instant::now();
    let mut moved = false;
    while let Some(transmit) = a.overlay.connections_mut().poll_transmit() {
        moved = true;
        let (to, datagram) = (transmit.to, &transmit.contents);
        b.overlay
            .connections_mut()
            .handle_datagram(a.addr, to, datagram, transmit.ecn, now);
    }
    while let Some(event) = a.overlay.poll_event(now) {
        moved = true;
        match event {
            Event::LinkUp { link, .. } => a.link = Some(link),
            Event::LinkDown { .. } => a.link = None,
            Event::Data { .. } => a.received += 1,
            Event::Signal { bytes, .. } => {
                let from = a.overlay.peer_id();
                b.overlay.handle_signal(CarrierId(0), from, &bytes, now);
            }
            Event::Control { .. }
            | Event::PeerRefused { .. }
            | Event::KeyConflict(_)
            | Event::Revocation { .. }
            | Event::DirectFailure { .. }
            | Event::AddressesChanged
            | Event::RoundTrip { .. } => {}
        }
    }
    if a.overlay.next_timeout().is_some_and(|at| at <= now) {
        a.overlay.handle_timeout(now);
    }
    moved
}

/// Links two nodes, by the media lane or by data channels.
pub fn connect(media: bool) -> anyhow::Result<(Node, Node)> {
    let network = SecretKey::generate();
    let (mut a, mut b) = (
        node(&network, "10.0.0.1:7000", media)?,
        node(&network, "10.0.0.2:7000", media)?,
    );
    let ids = [&a, &b].map(|n| n.overlay.peer_id());
    let now = Instant::now();
    for (overlay, other) in [(&mut a.overlay, ids[1]), (&mut b.overlay, ids[0])] {
        overlay.set_wanted(BTreeSet::from([other]), now);
        overlay.handle_presence(CarrierId(0), Presence::Online(other), now);
    }
    while a.link.is_none() || b.link.is_none() {
        shuttle(&mut a, &mut b);
        shuttle(&mut b, &mut a);
        anyhow::ensure!(now.elapsed() < Duration::from_secs(30), "no link");
    }
    Ok((a, b))
}
