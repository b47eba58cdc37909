//! The links of a whole node, the daemon's or a guest's: connections, the UDP socket, its addresses,
//! and the carriers' events.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lcroute_control::config::Config;
use lcroute_node::Node;
use lcroute_signalling::CarrierEvent;
use lcroute_webrtc::relay::StreamCommand;
use lcroute_webrtc::{WebRtc, WebRtcConfig, common_epoch};
use librecast::time::UnixTime;
use tokio::sync::mpsc;

use crate::drops::{DropReason, Drops};
use crate::netlink;
use crate::outgoing::Outgoing;
use crate::udp;

/// Most receiving system calls in one turn; the bound leaves time to send.
pub const UDP_CALLS: usize = 4;
/// Stands for a local address that the kernel did not report.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The UDP socket of all links, and the stream to a relay.
#[derive(Debug)]
pub struct Links {
    socket: udp::Socket,
    port: u16,
    outgoing: Outgoing,
    relay_commands: mpsc::Sender<StreamCommand>,
    /// Addresses of this host.
    hosts: Vec<SocketAddr>,
    drops: Drops,
}

impl Links {
    /// Takes a socket.
    pub fn new(
        socket: udp::Socket,
        relay_commands: mpsc::Sender<StreamCommand>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            port: socket.port()?,
            socket,
            outgoing: Outgoing::default(),
            relay_commands,
            hosts: Vec::new(),
            drops: Drops::default(),
        })
    }

    /// Returns the socket.
    pub fn socket(&self) -> &udp::Socket {
        &self.socket
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the addresses of this host.
    pub fn hosts(&self) -> &[SocketAddr] {
        &self.hosts
    }

    /// Returns the drops of the socket, and on the way to it.
    pub fn drops(&self) -> [&Drops; 2] {
        [&self.drops, self.socket.drops()]
    }

    /// Counts the kernel's drops. The caller must ask before its 32-bit counter wraps.
    pub fn count_overflow(&mut self) {
        self.socket.count_overflow();
    }

    /// Receives units of datagrams with one system call, for [`Self::hand_to`]; 0: none are ready.
    pub fn receive(&mut self) -> usize {
        self.socket.receive().unwrap_or_else(|e| {
            tracing::debug!("udp receive: {e}");
            self.drops.count(DropReason::UdpReceiveError);
            0
        })
    }

    /// Hands the datagrams of a unit to the connections; returns their number.
    pub fn hand_to(&self, unit: usize, webrtc: &mut WebRtc, now: Instant) -> usize {
        let mut count = 0;
        for datagram in self.socket.unit(unit) {
            let to = SocketAddr::new(datagram.to.unwrap_or(UNKNOWN), self.port);
            webrtc.handle_datagram(datagram.from, to, datagram.content, datagram.ecn, now);
            count += 1;
        }
        count
    }

    /// Takes ICMP errors about sent datagrams.
    pub fn take_errors(&mut self, webrtc: &mut WebRtc, now: Instant) {
        let socket = &mut self.socket;
        socket.take_errors(&mut |error| webrtc.handle_unreachable(error, now));
    }

    /// Takes all that the connections send; returns whether there was something.
    pub fn send(&mut self, webrtc: &mut WebRtc) -> bool {
        let mut something = false;
        while let Some(transmit) = webrtc.poll_transmit() {
            something = true;
            let way = udp::Destination {
                to: transmit.to,
                from: transmit.from.map(|from| from.ip()),
                ecn: transmit.ecn,
                dont_fragment: transmit.dont_fragment,
            };
            let (socket, drops) = (&mut self.socket, &mut self.drops);
            self.outgoing.push(way, &transmit.contents, socket, drops);
        }
        while let Some(command) = webrtc.poll_relay_stream() {
            if self.relay_commands.try_send(command).is_err() {
                self.drops.count(DropReason::RelayQueueFull);
            }
        }
        something
    }

    /// Ends a turn: sends the last batch, and reports datagrams that this host refused.
    pub fn flush(&mut self, webrtc: &mut WebRtc, now: Instant) {
        self.outgoing.flush(&mut self.socket, &mut self.drops);
        for udp::Refused {
            to,
            size,
            datagrams,
        } in self.socket.take_refused()
        {
            webrtc.handle_unsent(to, size, datagrams, now);
        }
    }

    /// Follows the addresses of this host, without those of `own_interface`, on the interfaces `only`
    /// if it is given; returns whether they have changed.
    pub fn review(
        &mut self,
        own_interface: &str,
        only: Option<&[String]>,
        webrtc: &mut WebRtc,
        now: Instant,
    ) -> std::io::Result<bool> {
        let addresses = netlink::host_addresses(&[own_interface], only)?;
        let reachable = |ip: &IpAddr| ip.is_ipv4() || self.socket.has_ipv6();
        let hosts = addresses.into_iter().filter(reachable);
        let hosts: Vec<_> = hosts.map(|ip| SocketAddr::new(ip, self.port)).collect();
        let has_changed = hosts != self.hosts;
        if has_changed {
            self.hosts.clone_from(&hosts);
        }
        webrtc.set_local_candidates(hosts, now);
        Ok(has_changed)
    }
}

/// Returns connections with the bounds of this configuration.
pub fn webrtc(config: &Config, mtu: u16, epoch: Instant) -> anyhow::Result<WebRtc> {
    let live = &config.live;
    let webrtc = WebRtcConfig {
        media: live.media,
        limits: lcroute_webrtc::Limits {
            media_queue: Duration::from_millis(live.queue_ms.into()),
            media_repair: Duration::from_millis(live.repair_ms.into()),
            ..Default::default()
        },
        ..WebRtcConfig::new(mtu, epoch, UnixTime::now(), seed()?)
    };
    Ok(WebRtc::new(webrtc, Instant::now())?)
}

/// Returns a seed of the system's randomness.
pub fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
    Ok(seed)
}

/// Returns the hosts' common hello epoch. A new process is often interrupted between reading the
/// two clocks, and would keep that error. So the quickest of five readings counts.
pub fn hello_epoch() -> Instant {
    let readings = (0..5).map(|_| {
        let before = Instant::now();
        let epoch = common_epoch(before, UnixTime::now());
        (before.elapsed(), epoch)
    });
    let quickest = readings.min_by_key(|(took, _)| *took);
    quickest.map_or_else(Instant::now, |(_, epoch)| epoch)
}

/// Hands an event of a carrier to the node.
pub fn handle_carrier(node: &mut Node<WebRtc>, event: CarrierEvent, now: Instant) {
    match event {
        CarrierEvent::Presence(carrier, presence) => node.handle_presence(carrier, presence, now),
        CarrierEvent::Record {
            carrier,
            kind,
            name,
            sealed,
        } => drop(node.handle_record((carrier, kind), name, &sealed, now)),
        CarrierEvent::RecordGone { carrier, name } => node.handle_record_gone(carrier, name, now),
        CarrierEvent::Signal {
            carrier,
            from,
            bytes,
        } => node.handle_signal(carrier, from, &bytes, now),
        // of the carriers' owner
        CarrierEvent::Doors | CarrierEvent::Relay(..) => {}
    }
}
