//! A leaf with its sockets and signalling: the node of a guest, and of each listener of
//! `lcroute leaf`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use lcroute_engine::LinkRefusal;
use lcroute_engine::control::RefusalReason;
use lcroute_node::{LeafConfig, LeafNode, LeafNodeOutput};
use lcroute_overlay::{CarrierId, Presence};
use lcroute_signalling::proxy::Proxy;
use lcroute_signalling::{
    CarrierEvent, Carriers, Datagram, IceEvent, IcePlan, IceServers, Sockets, batch,
};
use lcroute_webrtc::{Ecn, WebRtc, WebRtcConfig};
use librecast::cert::{Chain, Token};
use librecast::id::SecretKey;
use librecast::reach::Room;
use librecast::signalling::stun_name;
use librecast::time::{UnixTime, WallClock};
use librecast_program::cli::{Exit, ExitError};
use tokio::sync::mpsc;

use super::lc0::MTU;
use crate::links::{hello_epoch, seed};
use crate::netlink;

/// Time without a link, or without the network, after which the user of a guest is told so. Chosen:
/// what anybody waits for.
pub const LOOKING: Duration = Duration::from_secs(2);
/// Most addresses of this host that a leaf uses.
pub const MAX_ADDRESSES: usize = 3;
/// Datagrams queued for one leaf. Chosen.
const DATAGRAMS: usize = 256;
/// Datagrams handled before their packets leave. Chosen.
const AT_ONCE: usize = 32;
/// Time without a link after which a leaf asks its servers for their relay. Chosen: a link over a
/// direct path takes less, and audiences at rest ask for none.
const RELAY_AFTER: Duration = Duration::from_secs(3);

/// Returns the token in a text, which must be valid now.
pub fn token(text: &str) -> Result<Token, ExitError> {
    let token: Token = text
        .parse()
        .map_err(|e| ExitError::new(Exit::Usage, format!("{e}")))?;
    let key = SecretKey::generate().peer_id();
    let chain = token.join(key, "guest", UnixTime::now());
    chain.map_err(|e| {
        let message = format!("the token is not accepted: {e}");
        ExitError::new(Exit::NotPermitted, message)
    })?;
    Ok(token)
}

/// Leaves only signalling servers in the token: a leaf finds routers by nothing else.
pub fn with_servers(mut token: Token) -> Result<Token, ExitError> {
    token.signal.retain(|url| Room::of_uri(url).is_none());
    if token.signal.is_empty() {
        let message = "the token names no signalling server, and a leaf finds routers by nothing else: `lcroute invite --signal URL`";
        return Err(ExitError::new(Exit::Usage, message));
    }
    Ok(token)
}

/// Returns the sentence for a leaf that no router gives a link.
pub fn no_link(refusal: LinkRefusal) -> &'static str {
    match refusal {
        LinkRefusal::NoRoom => {
            "no router has room for another leaf: try later, or ask the network for more routers or a larger `[leaf] max`"
        }
        LinkRefusal::ClockDiffers => {
            "the clocks of this host and of the routers differ by more than a day: set this one right (`timedatectl`)"
        }
    }
}

/// State that leaves of one process share.
#[derive(Debug)]
pub struct Common {
    /// The token.
    pub token: Token,
    /// The host's interface that is no way to a router.
    own_interface: String,
    /// The way to signalling servers.
    proxy: Option<Proxy>,
    stun: Vec<SocketAddr>,
    epoch: Instant,
}

impl Common {
    /// Looks up the servers of the token, unless a proxy must hide this host from them.
    /// `own_interface`: lc0 of the host.
    pub async fn new(token: Token, own_interface: &str, proxy: Option<Proxy>) -> Self {
        let stun = match proxy.as_ref().is_some_and(Proxy::hides) {
            true => Vec::new(),
            false => stun_servers(&token.signal).await,
        };
        Self {
            own_interface: own_interface.to_owned(),
            proxy,
            stun,
            epoch: hello_epoch(),
            token,
        }
    }

    /// Returns the addresses of this host for links.
    fn addresses(&self) -> std::io::Result<Vec<IpAddr>> {
        let mut addresses = netlink::host_addresses(&[&self.own_interface], None)?;
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }
}

/// An output of a leaf for its owner.
#[derive(Debug)]
pub enum LeafEvent {
    /// A packet of a joined group.
    Packet(Bytes),
    /// The active router refused a join.
    Refused(Ipv6Addr, RefusalReason),
    /// The network has revoked the token.
    Expelled,
}

/// Waits for news about relays; for ever, while none is asked for.
async fn next_event(relays: &mut Option<(IceServers, mpsc::Receiver<IceEvent>)>) -> IceEvent {
    if let Some((_, events)) = relays
        && let Some(event) = events.recv().await
    {
        return event;
    }
    std::future::pending().await
}

/// The leaf.
#[derive(Debug)]
pub struct LeafShell {
    common: Arc<Common>,
    node: LeafNode<WebRtc>,
    sockets: Sockets,
    datagrams: mpsc::Receiver<Datagram>,
    carriers: Carriers,
    /// Servers that are or were connected.
    connected: BTreeSet<CarrierId>,
    needs_servers: bool,
    events: mpsc::Receiver<CarrierEvent>,
    chain: Chain,
    /// Since when no link is up.
    alone_since: Option<Instant>,
    /// Relays of the signalling servers, once no direct path has led to a router.
    relays: Option<(IceServers, mpsc::Receiver<IceEvent>)>,
}

impl LeafShell {
    /// Starts a leaf with this key.
    pub async fn start(common: Arc<Common>, key: SecretKey, name: &str) -> anyhow::Result<Self> {
        let key = Arc::new(key);
        let chain = common.token.join(key.peer_id(), name, UnixTime::now())?;
        let network = common.token.network();
        let now = Instant::now();
        let webrtc = WebRtcConfig::new(MTU, common.epoch, UnixTime::now(), seed()?);
        let mut webrtc = WebRtc::new(webrtc, now)?;
        webrtc.set_stun_servers(common.stun.clone(), now);
        let config = LeafConfig {
            network,
            key: key.clone(),
            chain: chain.clone(),
            clock: WallClock::new(UnixTime::now),
            epoch: common.epoch,
            seed: seed()?,
        };
        let (sender, events) = mpsc::channel(DATAGRAMS);
        let (sockets, datagrams) = Sockets::new(DATAGRAMS);
        let mut carriers = Carriers::of_leaf(key, network, sender);
        carriers.set_servers(&common.token.signal, common.proxy.clone());
        let mut leaf = Self {
            node: LeafNode::new(config, webrtc, now),
            common,
            sockets,
            datagrams,
            carriers,
            connected: BTreeSet::new(),
            needs_servers: true,
            events,
            chain,
            alone_since: Some(now),
            relays: None,
        };
        leaf.review_addresses()?;
        Ok(leaf)
    }

    /// Returns the node.
    pub fn node(&mut self) -> &mut LeafNode<WebRtc> {
        &mut self.node
    }

    /// Returns whether a signalling server has answered.
    pub fn has_server(&self) -> bool {
        !self.connected.is_empty()
    }

    /// Follows the host's addresses: keeps sockets of those that are left, opens those of new ones.
    pub fn review_addresses(&mut self) -> anyhow::Result<()> {
        let addresses = self.common.addresses()?;
        let before = self.sockets.addresses().len();
        self.sockets.retain(&addresses);
        let mut changed = self.sockets.addresses().len() != before;
        for ip in addresses {
            if !self.sockets.has(ip) {
                let opened = self.sockets.open((ip, 0));
                opened.with_context(|| format!("UDP socket of {ip}"))?;
                changed = true;
            }
        }
        if !changed {
            return Ok(());
        }
        if before > 0 && self.needs_servers {
            // a connection from an address that is gone is silent for long
            self.set_servers(false);
            self.set_servers(true);
        }
        let candidates = self.sockets.addresses().collect();
        let connections = self.node.connections_mut();
        connections.set_local_candidates(candidates, Instant::now());
        Ok(())
    }

    /// Returns the next output for the owner; sends all pending datagrams and signals.
    pub fn poll(&mut self) -> Option<LeafEvent> {
        loop {
            self.send_all();
            let output = self.node.poll_output(Instant::now());
            if output.is_none() {
                self.send_all();
            }
            match output? {
                LeafNodeOutput::Packet { packet } => return Some(LeafEvent::Packet(packet)),
                LeafNodeOutput::Refused { group, reason } => {
                    return Some(LeafEvent::Refused(group, reason));
                }
                LeafNodeOutput::Expelled => return Some(LeafEvent::Expelled),
                LeafNodeOutput::Signal { to, bytes } => self.carriers.send(to, &bytes),
                LeafNodeOutput::Servers(needed) => {
                    self.needs_servers = needed;
                    self.set_servers(needed);
                }
            }
        }
    }

    /// Waits for the next input, and handles it. Cancellation loses none.
    pub async fn wait(&mut self) {
        self.ask_for_relays();
        let at = self.node.next_timeout();
        let at = at.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        let at = at.min(
            self.alone_since
                .map_or(at, |since| since.max(Instant::now()) + RELAY_AFTER),
        );
        tokio::select! {
            event = next_event(&mut self.relays) => {
                event.hand_to(self.node.connections_mut(), Instant::now());
            }
            Some(datagram) = self.datagrams.recv() => self.handle_datagrams(datagram),
            Some(event) = self.events.recv() => self.handle_carrier(event),
            () = tokio::time::sleep_until(at.into()) => {
                // datagrams that wait are not silence
                tokio::task::yield_now().await;
                if let Ok(datagram) = self.datagrams.try_recv() {
                    self.handle_datagrams(datagram);
                }
                self.node.handle_timeout(Instant::now());
            }
        }
    }

    /// Handles a datagram, and those that wait behind it.
    fn handle_datagrams(&mut self, first: Datagram) {
        let now = Instant::now();
        for (from, at, datagram) in batch(first, &mut self.datagrams, AT_ONCE) {
            let connections = self.node.connections_mut();
            connections.handle_datagram(from, at, &datagram, Ecn::None, now);
        }
    }

    /// Ends all links, and sends the messages that say so.
    pub fn close(&mut self) {
        self.node.shutdown(Instant::now());
        while self.poll().is_some() {}
    }

    /// Asks servers for their relay after some time without a link.
    fn ask_for_relays(&mut self) {
        let now = Instant::now();
        if self.node.links() > 0 {
            self.alone_since = None;
            return;
        }
        let since = *self.alone_since.get_or_insert(now);
        if self.relays.is_some() || now < since + RELAY_AFTER {
            return;
        }
        let (relays, events) = IceServers::start();
        relays.set(IcePlan {
            servers: self.common.token.signal.clone(),
            proxy: self.common.proxy.clone(),
            ..IcePlan::default()
        });
        self.relays = Some((relays, events));
        self.carriers.set_chain(Some(self.chain.clone()));
    }

    fn handle_carrier(&mut self, event: CarrierEvent) {
        let now = Instant::now();
        match event {
            CarrierEvent::Presence(carrier, presence) => {
                self.connected.insert(carrier);
                self.node.handle_presence(carrier, presence, now);
            }
            CarrierEvent::Signal {
                carrier,
                from,
                bytes,
            } => self.node.handle_signal(carrier, from, &bytes, now),
            CarrierEvent::Relay(url, credentials) => {
                if let Some((relays, _)) = &self.relays {
                    relays.offered(url, credentials);
                }
            }
            CarrierEvent::Doors | CarrierEvent::Record { .. } | CarrierEvent::RecordGone { .. } => {
            }
        }
    }

    fn set_servers(&mut self, needed: bool) {
        if needed {
            let proxy = self.common.proxy.clone();
            self.carriers.set_servers(&self.common.token.signal, proxy);
            return;
        }
        self.carriers.set_servers(&[], None);
        let now = Instant::now();
        for carrier in std::mem::take(&mut self.connected) {
            self.node
                .handle_presence(carrier, Presence::CarrierDown, now);
        }
    }

    fn send_all(&mut self) {
        while let Some(transmit) = self.node.connections_mut().poll_transmit() {
            let (from, to) = (transmit.from, transmit.to);
            self.sockets.send(from, to, &transmit.contents);
        }
        while let Some(command) = self.node.connections_mut().poll_relay_stream() {
            if let Some((relays, _)) = &self.relays {
                // a full stream loses datagrams, as networks do
                let _ = relays.commands().try_send(command);
            }
        }
    }
}

async fn stun_servers(urls: &[String]) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for name in urls.iter().filter_map(|url| stun_name(url)) {
        match lcroute_signalling::look_up(&name).await {
            Ok(addresses) => found.extend(addresses),
            Err(e) => tracing::warn!("{name}: {e}"),
        }
    }
    found
}
