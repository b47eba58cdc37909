//! Two nodes as the daemon runs them: real UDP sockets on loopback, a real server with its STUN.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_overlay::{Event, Identity, Limits, Overlay, OverlayConfig, Presence};
use lcroute_signalling::server::Server;
use lcroute_signalling::{CarrierEvent, Carriers};
use lcroute_webrtc::{Ecn, WebRtc, WebRtcConfig};
use librecast::cert::{Chain, Grant};
use librecast::id::{LinkId, SecretKey};
use librecast::time::{UnixTime, WallClock};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

fn identity(network: &SecretKey, key: &Arc<SecretKey>) -> Identity {
    let issuer = SecretKey::from_seed(&[50; 32]);
    let grant = Grant::new("node", (0, u64::MAX));
    let issuing = Grant {
        name: String::new(),
        ..grant.clone()
    };
    let chain = Chain::sign(network, (&issuer, issuing), (key.peer_id(), grant));
    Identity::new(key.clone(), network.peer_id(), chain.unwrap())
}

/// A node's loop: echoes control messages, and reports its events.
struct Node {
    overlay: Overlay<WebRtc>,
    socket: UdpSocket,
    addr: SocketAddr,
    carriers: Carriers,
    events: mpsc::Receiver<CarrierEvent>,
    seen: mpsc::Sender<Event>,
}

impl Node {
    async fn new(
        ip: IpAddr,
        (seed, media): (u8, bool),
        server: SocketAddr,
        seen: mpsc::Sender<Event>,
    ) -> Self {
        let network = SecretKey::from_seed(&[51; 32]);
        let key = Arc::new(SecretKey::from_seed(&[seed; 32]));
        let now = Instant::now();
        let identity = identity(&network, &key);
        let webrtc = WebRtcConfig {
            control: identity.speaks().control,
            epoch: now,
            unix_now: UnixTime::now(),
            reproducible: false,
            seed: [seed; 32],
            mtu: 1280,
            media,
            limits: lcroute_webrtc::Limits::default(),
        };
        let config = OverlayConfig {
            identity,
            clock: WallClock::new(UnixTime::now),
            epoch: now,
            seed: [seed; 32],
            limits: Limits::default(),
        };
        let socket = UdpSocket::bind((ip, 0)).await.unwrap();
        let addr = socket.local_addr().unwrap();
        let mut webrtc = WebRtc::new(webrtc, now).unwrap();
        webrtc.set_local_candidates(vec![addr], now);
        webrtc.set_stun_servers(vec![server], now);
        let overlay = Overlay::new(config, webrtc, now);
        let (sender, events) = mpsc::channel(64);
        let mut carriers = Carriers::new(key, network.peer_id(), sender);
        carriers.set_servers(&[format!("ws://{server}")], None);
        Self {
            overlay,
            socket,
            addr,
            carriers,
            events,
            seen,
        }
    }

    async fn run(mut self) {
        let mut buffer = [0; 2_048];
        loop {
            if self.flush().await.is_err() {
                return;
            }
            let at = self
                .overlay
                .next_timeout()
                .unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    let (n, from) = received.unwrap();
                    let (datagram, now) = (&buffer[..n], Instant::now());
                    self.overlay.connections_mut().handle_datagram(from, self.addr, datagram, Ecn::None, now);
                }
                Some(event) = self.events.recv() => match event {
                    CarrierEvent::Relay(..) | CarrierEvent::Doors => {}
                    CarrierEvent::Presence(carrier, presence) => {
                        let now = Instant::now();
                        if let Presence::Online(peer) = presence {
                            self.overlay.set_wanted(BTreeSet::from([peer]), now);
                        }
                        self.overlay.handle_presence(carrier, presence, now);
                    }
                    CarrierEvent::Signal { carrier, from, bytes } => {
                        self.overlay.handle_signal(carrier, from, &bytes, Instant::now());
                    }
                    CarrierEvent::Record { .. } | CarrierEvent::RecordGone { .. } => {}
                },
                () = tokio::time::sleep_until(at.into()) => self.overlay.handle_timeout(Instant::now()),
            }
        }
    }

    async fn flush(&mut self) -> Result<(), ()> {
        loop {
            while let Some(transmit) = self.overlay.connections_mut().poll_transmit() {
                self.socket
                    .send_to(&transmit.contents, transmit.to)
                    .await
                    .unwrap();
            }
            let now = Instant::now();
            let Some(event) = self.overlay.poll_event(now) else {
                break;
            };
            match &event {
                Event::Signal { to, bytes, .. } => self.carriers.send(*to, bytes),
                Event::LinkUp { link, .. } => {
                    self.overlay.send_control(*link, b"hello", now).unwrap();
                    self.overlay
                        .send_data(*link, [&[0x10], &[7; 1_311]], now)
                        .unwrap();
                }
                _ => {}
            }
            self.seen.send(event).await.map_err(|_| ())?;
        }
        Ok(())
    }
}

async fn meet(ip: IpAddr, media: bool) {
    let server = Server::bind(SocketAddr::new(ip, 0), None).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.run(std::future::pending()));
    let mut seen = Vec::new();
    for seed in [1, 2] {
        let (sender, receiver) = mpsc::channel(64);
        tokio::spawn(Node::new(ip, (seed, media), address, sender).await.run());
        seen.push(receiver);
    }
    for events in &mut seen {
        let (mut link, mut control, mut data) = (None::<LinkId>, None, None);
        let wait = async {
            while link.is_none() || control.is_none() || data.is_none() {
                match events.recv().await.unwrap() {
                    Event::LinkUp { link: up, .. } => link = Some(up),
                    Event::Control { message, .. } => control = Some(message),
                    Event::Data { message, .. } => data = Some(message),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait)
            .await
            .expect("a link and its messages");
        assert_eq!(control, Some(Bytes::from_static(b"hello")));
        assert_eq!(data.map(|d| d.len()), Some(1_312));
    }
}

#[tokio::test]
async fn two_nodes_meet_over_ipv4() {
    for media in [true, false] {
        meet(Ipv4Addr::LOCALHOST.into(), media).await;
    }
}

#[tokio::test]
async fn two_nodes_meet_over_ipv6() {
    for media in [true, false] {
        meet(Ipv6Addr::LOCALHOST.into(), media).await;
    }
}
