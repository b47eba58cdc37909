//! Datagrams for a node, at every stage of a link with a peer: invented, or genuine and changed,
//! from the peer's address or another one.
#![no_main]

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lcroute_fuzz::{key, overlay, pieces};
use lcroute_overlay::{CarrierId, Event, Overlay, Presence};
use lcroute_webrtc::{Ecn, Unreachable, WebRtc};
use libfuzzer_sys::fuzz_target;
use librecast::id::LinkId;

const CARRIER: CarrierId = CarrierId(1);

struct Node {
    overlay: Overlay<WebRtc>,
    address: SocketAddr,
    link: Option<LinkId>,
    /// Datagrams on their way to it.
    inbox: VecDeque<Vec<u8>>,
}

fn node(n: u8, media: bool, now: Instant) -> Node {
    let address = SocketAddr::new([192, 0, 2, n].into(), 7_000);
    let overlay = overlay(n, address, media, now);
    let (link, inbox) = (None, VecDeque::new());
    Node {
        overlay,
        address,
        link,
        inbox,
    }
}

/// Passes the output of node `a` to `b`.
fn collect(nodes: &mut [Node; 2], a: usize, now: Instant) {
    loop {
        while let Some(transmit) = nodes[a].overlay.connections_mut().poll_transmit() {
            nodes[1 - a].inbox.push_back(transmit.contents.to_vec());
        }
        let Some(event) = nodes[a].overlay.poll_event(now) else {
            return;
        };
        match event {
            Event::Signal { bytes, .. } => {
                let from = nodes[a].overlay.peer_id();
                let other = &mut nodes[1 - a].overlay;
                other.handle_signal(CARRIER, from, &bytes, now);
            }
            Event::LinkUp { link, .. } => nodes[a].link = Some(link),
            Event::LinkDown { .. } => nodes[a].link = None,
            _ => {}
        }
    }
}

/// One step of the genuine exchange.
fn step(nodes: &mut [Node; 2], now: Instant) {
    for a in [0, 1] {
        collect(nodes, a, now);
        let from = nodes[1 - a].address;
        let (to, inbox) = (nodes[a].address, std::mem::take(&mut nodes[a].inbox));
        for datagram in inbox {
            nodes[a]
                .overlay
                .connections_mut()
                .handle_datagram(from, to, &datagram, Ecn::None, now);
        }
        if nodes[a].overlay.next_timeout().is_some_and(|at| at <= now) {
            nodes[a].overlay.handle_timeout(now);
        }
        collect(nodes, a, now);
    }
}

fuzz_target!(init: lcroute_fuzz::seeds::write("datagrams"), |data: &[u8]| {
    let Some(([mode, stage], data)) = data.split_first_chunk() else {
        return;
    };
    let mut now = Instant::now();
    let mut nodes = [10, 11].map(|n| node(n, mode & 2 == 0, now));
    let victim = usize::from(mode & 1);
    for (a, n) in [(0, 11), (1, 10)] {
        let peer = key(n).peer_id();
        nodes[a].overlay.set_wanted(BTreeSet::from([peer]), now);
        nodes[a].overlay.handle_presence(CARRIER, Presence::Online(peer), now);
    }
    for _ in 0..stage % 48 {
        step(&mut nodes, now);
        now += Duration::from_millis(10);
    }
    for piece in pieces(data).take(32) {
        let Some(([how, at], bytes)) = piece.split_first_chunk() else {
            continue;
        };
        collect(&mut nodes, 0, now);
        collect(&mut nodes, 1, now);
        let to = nodes[victim].address;
        let from = match how & 8 {
            0 => nodes[1 - victim].address,
            _ => SocketAddr::new([192, 0, 2, 99].into(), 7_000),
        };
        let datagram = match how & 3 {
            0 => bytes.to_vec(),
            // a genuine one, changed or cut
            1 | 2 => {
                let mut genuine = nodes[victim].inbox.pop_front().unwrap_or_default();
                let at = usize::from(*at) * genuine.len() / 256;
                if how & 3 == 1 {
                    genuine[at..].iter_mut().zip(bytes).for_each(|(old, new)| *old ^= new);
                } else {
                    genuine.truncate(at);
                    genuine.extend_from_slice(bytes);
                }
                genuine
            }
            _ => {
                if let Some(link) = nodes[1 - victim].link {
                    let overlay = &mut nodes[1 - victim].overlay;
                    let _ = match how & 16 {
                        0 => overlay.send_control(link, bytes, now),
                        _ => overlay.send_data(link, [&[0x10], bytes], now),
                    };
                }
                step(&mut nodes, now);
                now += Duration::from_millis(u64::from(*at) * 4);
                step(&mut nodes, now);
                continue;
            }
        };
        let webrtc = nodes[victim].overlay.connections_mut();
        webrtc.handle_datagram(from, to, &datagram, Ecn::None, now);
        if how & 32 != 0 {
            let error = Unreachable { remote: from, is_refusal: true, quoted: bytes };
            webrtc.handle_unreachable(&error, now);
        }
        collect(&mut nodes, victim, now);
    }
    for node in &nodes {
        let panics = node.overlay.drops().get("webrtc_panic").copied();
        assert_eq!(panics, None, "the fence is for what nobody knows of");
    }
});
