//! The loop that every packet goes through: one thread, no locks.
//!
//! ```text
//!            lc0 ---> engine ---> overlay ---> UDP
//!            lc0 <--- engine <--- overlay <--- UDP
//! ```
//!
//! Each turn reads a batch from every source that is ready, lets engine and overlay decide, and writes
//! what they say. Nothing here waits but the one `poll`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_engine::{Engine, Neighbor, Output};
use lcroute_overlay::{CarrierId, Event, LinkId, Overlay, Presence, SendError};
use librecast::cert::Member;
use librecast::id::{NodeAddresses, PeerId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::control::{Answer, Request};
use crate::inbound_probe::InboundProbe;
use crate::lone::Lone;
use crate::status::{Counters, Group, Inbound, Peer, State, Status};
use crate::waker::Waker;
use crate::{netlink, tun, udp};

/// Packets read from lc0 in one turn, before the links get theirs.
const TUN_BATCH: usize = 128;
/// System calls in one turn that receive from links: they must not starve what is to be sent.
const UDP_CALLS: usize = 4;
/// Datagrams of links after which packets are handed on: while they are in the processor's caches.
const UDP_BATCH: usize = 32;
/// Messages of the slow side that may wait.
const INBOX: usize = 1_024;
/// Of these so many are read in one turn: packets come first.
const INBOX_BATCH: usize = 64;
/// How often the interface's counters are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Changes of addresses come in bursts: they are looked at once.
const SETTLE: Duration = Duration::from_millis(200);
/// Stands for a local address that the kernel did not tell.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What the slow side tells the loop.
#[derive(Debug)]
pub enum Message {
    /// Who can be reached over a carrier.
    Presence(CarrierId, Presence),
    /// A sealed signalling message.
    Signal(CarrierId, Option<PeerId>, Vec<u8>),
    /// Addresses of STUN servers.
    StunServers(Vec<SocketAddr>),
    /// A question of the control socket.
    Ask(Request, oneshot::Sender<Answer>),
    /// Settings that can change while running.
    Reconfigure(Reconfigure),
    /// Leave the network.
    Stop(End),
}

/// What a reload can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconfigure {
    /// Routes of lc0.
    pub routes: Vec<librecast::cert::GroupPrefix>,
    /// Groups of scope 2 that are carried.
    pub link_scope_groups: Vec<std::net::Ipv6Addr>,
    /// Interfaces whose addresses are used.
    pub interfaces: Vec<String>,
}

/// How the loop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// lc0 goes away.
    Stop,
    /// lc0 stays, with the joins of programs, for the binary that is executed next.
    Exec,
}

/// Where the slow side puts its messages.
#[derive(Debug, Clone)]
pub struct Inbox {
    messages: mpsc::Sender<Message>,
    reload: mpsc::Sender<Reload>,
    waker: Waker,
}

/// A wish to reload: by exec or by reading the file; the answer tells how it went.
#[derive(Debug)]
pub struct Reload {
    /// Execute the binary anew: the answer says whether it may, and who asked sends the [`Message::Stop`].
    pub exec: bool,
    /// What became of it.
    pub done: oneshot::Sender<Result<(), String>>,
}

impl Inbox {
    /// An inbox, and the ends at which its messages come out.
    pub fn new(waker: Waker) -> (Self, mpsc::Receiver<Message>, mpsc::Receiver<Reload>) {
        let (messages, received) = mpsc::channel(INBOX);
        let (reload, reloads) = mpsc::channel(1);
        (
            Self {
                messages,
                reload,
                waker,
            },
            received,
            reloads,
        )
    }

    /// Hands a message over; waits while the loop is behind. False when the loop has ended.
    pub async fn send(&self, message: Message) -> bool {
        let sent = self.messages.send(message).await.is_ok();
        self.waker.wake();
        sent
    }

    /// Asks the daemon.
    pub async fn ask(&self, request: Request) -> Answer {
        let stopping = || Answer::Error("the daemon is stopping".into());
        if let Request::Reload { exec } = request {
            let (done, result) = oneshot::channel();
            if self.reload.send(Reload { exec, done }).await.is_err() {
                return stopping();
            }
            return match result.await {
                Ok(Ok(())) => Answer::Ok(serde_json::json!({})),
                Ok(Err(e)) => Answer::Error(e),
                Err(_) => stopping(),
            };
        }
        let (answer, answered) = oneshot::channel();
        if !self.send(Message::Ask(request, answer)).await {
            return stopping();
        }
        answered.await.unwrap_or_else(|_| stopping())
    }
}

/// What the loop is made of.
#[derive(Debug)]
pub struct Parts {
    /// lc0.
    pub device: tun::Device,
    /// How lc0 shall be.
    pub settings: tun::Settings,
    /// The one UDP socket.
    pub socket: udp::Socket,
    /// Tells of changes to the host's network.
    pub monitor: netlink::Monitor,
    /// Decides where packets go.
    pub engine: Engine,
    /// Carries them.
    pub overlay: Overlay,
    /// Messages of the slow side.
    pub inbox: mpsc::Receiver<Message>,
    /// Sealed messages for peers.
    pub outbox: mpsc::Sender<(PeerId, Bytes)>,
    /// Wakes the loop.
    pub waker: Waker,
    /// Tells the slow side that addresses of this host have changed.
    pub moved: Arc<Notify>,
    /// Who we are.
    pub member: Member,
    /// Our network.
    pub network: PeerId,
    /// Interfaces whose addresses are used; empty for all.
    pub interfaces: Vec<String>,
}

/// The running daemon's fast side.
#[derive(Debug)]
pub struct PacketLoop {
    parts: Parts,
    port: u16,
    links: BTreeMap<LinkId, PeerId>,
    /// A full mesh: everybody who has been heard of.
    wanted: BTreeSet<PeerId>,
    /// Taken by links; the engine counts everything else.
    sent_packets: u64,
    sent_bytes: u64,
    drops: BTreeMap<&'static str, u64>,
    lone: Lone,
    outgoing: Outgoing,
    started: Instant,
    next_tick: Instant,
    inbound: InboundProbe,
    host_changed: Option<Instant>,
    hosts: Vec<SocketAddr>,
    overruns: u64,
    end: Option<End>,
}

impl PacketLoop {
    /// Ready to run.
    pub fn new(parts: Parts, now: Instant) -> std::io::Result<Self> {
        Ok(Self {
            port: parts.socket.port()?,
            parts,
            links: BTreeMap::new(),
            wanted: BTreeSet::new(),
            sent_packets: 0,
            sent_bytes: 0,
            drops: BTreeMap::new(),
            lone: Lone::default(),
            outgoing: Outgoing::default(),
            started: now,
            next_tick: now + TICK,
            inbound: InboundProbe::default(),
            host_changed: None,
            hosts: Vec::new(),
            overruns: 0,
            end: None,
        })
    }

    /// Carries packets until told to stop; gives lc0 back. Whatever ends it, peers hear of it.
    pub fn run(mut self) -> anyhow::Result<(End, tun::Device)> {
        let ended = self.carry();
        let now = Instant::now();
        self.parts.overlay.shutdown(now);
        self.deliver(now);
        let end = ended?;
        tracing::info!("leaving: {end:?}");
        Ok((end, self.parts.device))
    }

    fn carry(&mut self) -> anyhow::Result<End> {
        let mut now = Instant::now();
        self.update_candidates(now);
        self.overruns = self.parts.device.overruns().unwrap_or(0);
        self.parts.engine.handle_start(now);
        self.deliver(now);
        self.probe_inbound(now);
        loop {
            let ready = self.wait(now)?;
            now = Instant::now();
            if ready.tun {
                self.read_tun(now)?;
            }
            if ready.udp {
                self.read_udp(now);
            }
            if ready.waker {
                // each message is followed by a wake: what is not seen now wakes again
                self.parts.waker.clear();
                self.read_inbox(now);
            }
            if ready.monitor {
                self.read_monitor(now)?;
            }
            self.run_timers(now);
            self.deliver(now);
            if let Some(end) = self.end {
                return Ok(end);
            }
        }
    }

    fn wait(&self, now: Instant) -> anyhow::Result<Ready> {
        let p = &self.parts;
        let mut due = self.next_tick;
        let timers = [
            p.engine.poll_timeout().map(|(at, _)| at),
            p.overlay.poll_timeout(),
            self.host_changed,
        ];
        for at in timers.into_iter().flatten() {
            due = due.min(at);
        }
        let wait = due.saturating_duration_since(now);
        // rounded up: waking a little early would spin until the timer is due
        let ms = u16::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u16::MAX);
        let mut fds = [
            PollFd::new(p.device.as_fd(), PollFlags::POLLIN),
            PollFd::new(p.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(p.waker.as_fd(), PollFlags::POLLIN),
            PollFd::new(p.monitor.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::from(ms)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(anyhow::Error::new(e).context("poll")),
        }
        let ready = |i: usize| fds[i].revents().is_some_and(|r| !r.is_empty());
        Ok(Ready {
            tun: ready(0),
            udp: ready(1),
            waker: ready(2),
            monitor: ready(3),
        })
    }

    fn read_tun(&mut self, now: Instant) -> anyhow::Result<()> {
        let Parts { device, engine, .. } = &mut self.parts;
        let mut packets = 0;
        let most = if self.lone.is_lone(now) { 1 } else { TUN_BATCH };
        // what is not to be carried costs as well
        for _ in 0..most {
            let read = device.read(&mut |packet| {
                engine.handle_local_packet(packet, now);
                packets += 1;
            });
            match read {
                Ok(true) if packets < TUN_BATCH => {}
                Ok(true) => break,
                Ok(false) => {
                    self.lone.drained(packets);
                    break;
                }
                Err(e) => {
                    // nothing to carry packets with any more
                    let name = &self.parts.settings.name;
                    return Err(anyhow::Error::new(e).context(format!(
                        "{name} was deleted by somebody; start lcroute again"
                    )));
                }
            }
        }
        Ok(())
    }

    fn read_udp(&mut self, now: Instant) {
        let mut waiting = 0;
        for _ in 0..UDP_CALLS {
            let units = self.parts.socket.receive().unwrap_or_else(|e| {
                tracing::debug!("udp receive: {e}");
                *self.drops.entry("udp_receive_error").or_default() += 1;
                0
            });
            for unit in 0..units {
                for datagram in self.parts.socket.unit(unit) {
                    waiting += 1;
                    let to = SocketAddr::new(datagram.to.unwrap_or(UNKNOWN), self.port);
                    let (from, ecn) = (datagram.from, datagram.ecn);
                    let overlay = &mut self.parts.overlay;
                    overlay.handle_datagram(from, to, datagram.content, ecn, now);
                }
                if waiting >= UDP_BATCH {
                    waiting = 0;
                    self.hand_on(now);
                }
            }
            if units < udp::UNITS {
                return;
            }
        }
    }

    fn read_monitor(&mut self, now: Instant) -> anyhow::Result<()> {
        let changes = self.parts.monitor.drain(self.parts.device.index())?;
        if changes.device || changes.host {
            self.host_changed.get_or_insert(now + SETTLE);
        }
        Ok(())
    }

    fn read_inbox(&mut self, now: Instant) {
        for _ in 0..INBOX_BATCH {
            let Ok(message) = self.parts.inbox.try_recv() else {
                return;
            };
            match message {
                Message::Presence(carrier, presence) => {
                    if let Presence::Online(peer) = presence
                        && self.wanted.insert(peer)
                    {
                        self.parts.overlay.set_wanted(self.wanted.clone(), now);
                    }
                    self.parts.overlay.handle_presence(carrier, presence, now);
                }
                Message::Signal(carrier, from, bytes) => {
                    self.parts.overlay.handle_signal(carrier, from, &bytes, now);
                }
                Message::StunServers(servers) => self.parts.overlay.set_stun_servers(servers, now),
                Message::Ask(request, answer) => {
                    // who asked may have gone
                    let _ = answer.send(self.answer(request, now));
                }
                Message::Reconfigure(new) => self.reconfigure(new, now),
                Message::Stop(end) => self.end = Some(end),
            }
        }
        // there may be more
        self.parts.waker.wake();
    }

    fn reconfigure(&mut self, new: Reconfigure, now: Instant) {
        self.parts.settings.routes = new.routes.into_iter().map(tun::Prefix::from).collect();
        self.parts
            .engine
            .set_link_scope_groups(&new.link_scope_groups, now);
        self.parts.interfaces = new.interfaces;
        self.probe_inbound(now);
        self.host_changed = Some(now);
    }

    fn run_timers(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.parts.engine.poll_timeout().map(|(at, _)| at)) {
            self.parts.engine.handle_timeout(now);
        }
        if is_due(self.parts.overlay.poll_timeout()) {
            self.parts.overlay.handle_timeout(now);
        }
        if is_due(self.host_changed) {
            self.host_changed = None;
            self.repair(now);
            self.update_candidates(now);
        }
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            self.check_overruns(now);
            self.parts.socket.count_overflow();
            if self.inbound.look(now) {
                self.report_inbound();
            }
        }
    }

    fn probe_inbound(&mut self, now: Instant) {
        let p = &mut self.parts;
        if let Err(e) = self
            .inbound
            .start(&mut p.device, p.member.addresses.address, now)
        {
            tracing::debug!("probe of the host's firewall: {e}");
        }
    }

    fn report_inbound(&self) {
        let name = &self.parts.settings.name;
        match self.inbound.verdict() {
            Inbound::Blocked => tracing::warn!(
                "this host's firewall drops UDP that arrives on {name}: programs here receive nothing; `lcroute status` shows the rule"
            ),
            Inbound::Open | Inbound::Unknown => {
                tracing::debug!("this host lets in what arrives on {name}");
            }
        }
    }

    /// Puts back what somebody took from lc0: addresses, routes.
    fn repair(&mut self, now: Instant) {
        match self.parts.device.ensure(&self.parts.settings) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(
                    "{}: addresses and routes set anew",
                    self.parts.settings.name
                );
                // reports sent meanwhile had no valid source
                self.parts.engine.handle_tx_queue_overflow(now);
            }
            Err(e) => tracing::warn!("{}: {e}", self.parts.settings.name),
        }
    }

    fn update_candidates(&mut self, now: Instant) {
        let p = &mut self.parts;
        let only = (!p.interfaces.is_empty()).then_some(p.interfaces.as_slice());
        match netlink::host_addresses(&[&p.settings.name], only) {
            Ok(addresses) => {
                let reachable = |ip: &IpAddr| ip.is_ipv4() || p.socket.has_ipv6();
                let host = addresses.into_iter().filter(reachable);
                let host: Vec<_> = host.map(|ip| SocketAddr::new(ip, self.port)).collect();
                if host != self.hosts {
                    p.moved.notify_one();
                    self.hosts.clone_from(&host);
                }
                p.overlay.set_local_candidates(host, now);
            }
            Err(e) => tracing::warn!("addresses of this host: {e}"),
        }
    }

    /// Reports that lc0 lost towards us are asked for again.
    fn check_overruns(&mut self, now: Instant) {
        let overruns = self.parts.device.overruns().unwrap_or(self.overruns);
        if overruns > self.overruns {
            *self.drops.entry("tun_overrun").or_default() += overruns - self.overruns;
            self.parts.engine.handle_tx_queue_overflow(now);
        }
        self.overruns = overruns;
    }

    /// Ends a turn: everything that engine and overlay have for one another and for the outside, until
    /// both are silent.
    fn deliver(&mut self, now: Instant) {
        loop {
            let mut silent = !self.hand_on(now);
            while let Some(transmit) = self.parts.overlay.poll_transmit() {
                silent = false;
                let way = udp::Way {
                    to: transmit.to,
                    from: transmit.from.map(|from| from.ip()),
                    ecn: transmit.ecn,
                    dont_fragment: transmit.dont_fragment,
                };
                let (socket, drops) = (&mut self.parts.socket, &mut self.drops);
                self.outgoing.push(way, &transmit.contents, socket, drops);
            }
            if silent {
                break;
            }
        }
        self.parts.device.flush();
        self.outgoing.flush(&mut self.parts.socket, &mut self.drops);
    }

    /// What engine and overlay have for one another and for lc0. False: nothing.
    fn hand_on(&mut self, now: Instant) -> bool {
        let mut something = false;
        while let Some(event) = self.parts.overlay.poll_event() {
            something = true;
            self.handle_event(event, now);
        }
        while let Some(output) = self.parts.engine.poll_output() {
            something = true;
            self.handle_output(output, now);
        }
        something
    }

    fn handle_output(&mut self, output: Output, now: Instant) {
        match output {
            Output::Data {
                links,
                header,
                packet,
            } => {
                for link in links.iter() {
                    let sent =
                        self.parts
                            .overlay
                            .send_data(LinkId(link.0), [&header, &packet], now);
                    self.count_sent(sent, header.len() + packet.len());
                }
            }
            Output::Control { link, message } => {
                let link = LinkId(link.0);
                if let Err(e) = self.parts.overlay.send_control(link, &message, now)
                    && e != SendError::NoSuchLink
                {
                    // control is hard state: a link that cannot carry it is made anew
                    self.parts
                        .overlay
                        .close_link(link, "control channel is stuck", now);
                }
            }
            Output::Local { packet } => self.parts.device.queue(packet),
            Output::LocalMld { packet } => {
                if let Err(e) = self.parts.device.write_mld(&packet) {
                    tracing::debug!("write to lc0: {e}");
                    *self.drops.entry("tun_write_error").or_default() += 1;
                }
            }
            Output::LinkFault { link, reason } => {
                self.parts.overlay.close_link(LinkId(link.0), reason, now);
            }
        }
    }

    fn count_sent(&mut self, sent: Result<(), SendError>, bytes: usize) {
        match sent {
            Ok(()) => {
                self.sent_packets += 1;
                self.sent_bytes += bytes as u64;
            }
            Err(e) => {
                let reason = match e {
                    SendError::NoSuchLink => "no_such_link",
                    SendError::QueueFull => "queue_full",
                    SendError::TooLarge => "too_large",
                };
                *self.drops.entry(reason).or_default() += 1;
            }
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::LinkUp { link, member } => {
                self.links.insert(link, member.peer);
                let NodeAddresses {
                    address,
                    link_local,
                    origin,
                } = member.addresses;
                let neighbor = Neighbor {
                    origin,
                    address,
                    link_local,
                    may_send: member.prefixes,
                };
                self.parts
                    .engine
                    .handle_link_up(lcroute_engine::LinkId(link.0), neighbor, now);
            }
            Event::LinkDown { link, .. } => {
                self.links.remove(&link);
                self.parts
                    .engine
                    .handle_link_down(lcroute_engine::LinkId(link.0), now);
            }
            Event::Control { link, message } => {
                self.parts
                    .engine
                    .handle_control(lcroute_engine::LinkId(link.0), &message, now);
            }
            Event::Data { link, message } => {
                self.parts
                    .engine
                    .handle_data(lcroute_engine::LinkId(link.0), message, now);
            }
            Event::Signal { to, bytes, .. } => {
                // signalling repeats itself: a full queue costs time, not a link
                if self.parts.outbox.try_send((to, bytes)).is_err() {
                    *self.drops.entry("signal_queue_full").or_default() += 1;
                }
            }
            // the overlay has logged it, and `peers` shows it
            Event::PeerRefused { .. } | Event::DirectFailure { .. } => {}
        }
    }

    fn answer(&self, request: Request, now: Instant) -> Answer {
        let value = match request {
            Request::Status => serde_json::to_value(self.status(now)),
            Request::Peers => serde_json::to_value(self.peers()),
            Request::Groups => serde_json::to_value(self.groups()),
            Request::Reload { .. } => return Answer::Error("not a question".into()),
        };
        value.map_or_else(|e| Answer::Error(e.to_string()), Answer::Ok)
    }

    fn counters(&self) -> Counters {
        let p = &self.parts;
        let engine = p.engine.counters();
        let (tun, udp) = (p.device.counters(), p.socket.counters());
        let edges = [
            ("tun_not_ipv6", tun.not_ipv6),
            ("tun_truncated", tun.truncated),
            ("tun_bad_offload", tun.bad_offload),
            ("tun_write_error", tun.write_error),
            ("udp_receive_error", udp.receive),
            ("udp_receive_overflow", udp.overflow),
            ("udp_unreachable", udp.unreachable),
            ("udp_too_big", udp.too_big),
            ("udp_congested", udp.congested),
            ("udp_send_error", udp.other),
        ];
        let tables = [&engine.drops, p.overlay.drops(), &self.drops];
        let counted = tables
            .into_iter()
            .flatten()
            .map(|(reason, n)| (*reason, *n));
        let mut drops = BTreeMap::new();
        for (reason, n) in counted.chain(edges).filter(|(_, n)| *n > 0) {
            *drops.entry(reason.to_owned()).or_default() += n;
        }
        Counters {
            tun_rx_packets: engine.tun_rx_packets,
            tun_rx_bytes: engine.tun_rx_bytes,
            tun_tx_packets: engine.tun_tx_packets,
            tun_tx_bytes: engine.tun_tx_bytes,
            link_rx_packets: engine.link_rx_packets,
            link_rx_bytes: engine.link_rx_bytes,
            link_tx_packets: self.sent_packets,
            link_tx_bytes: self.sent_bytes,
            drops,
        }
    }

    fn status(&self, now: Instant) -> Status {
        let p = &self.parts;
        Status {
            peer_id: p.member.peer,
            name: p.member.name.clone(),
            address: p.member.addresses.address,
            network: p.network,
            tun: p.settings.name.clone(),
            inbound: self.inbound.verdict(),
            state: match self.end {
                Some(_) => State::Stopping,
                None if self.links.is_empty() => State::Connecting,
                None => State::Connected,
            },
            uptime_s: now.duration_since(self.started).as_secs(),
            peers: self.links.len(),
            groups: p.engine.group_count(),
            counters: self.counters(),
        }
    }

    fn peers(&self) -> Vec<Peer> {
        self.parts
            .overlay
            .peers()
            .into_iter()
            .map(|p| Peer {
                peer_id: p.peer_id,
                name: p.name,
                address: NodeAddresses::derive(&self.parts.network, &p.peer_id).address,
                state: lower(&p.state),
                rtt_ms: p.rtt_ms,
                loss: p.loss,
                lane: lower(&p.lane),
                path_mtu: p.path_mtu,
                congested_packets: p.congested_packets,
                repair: p.repair,
                tx_bytes: p.tx_bytes,
                rx_bytes: p.rx_bytes,
                since_s: p.since_s,
                reason: p.reason.map(str::to_owned),
            })
            .collect()
    }

    fn groups(&self) -> Vec<Group> {
        let peer = |link: &lcroute_engine::LinkId| self.links.get(&LinkId(link.0)).copied();
        self.parts
            .engine
            .snapshot()
            .groups
            .into_iter()
            .map(|g| Group {
                group: g.group,
                local: g.local,
                links: g.links.iter().filter_map(peer).collect(),
                sources: g.sources,
                packets: g.packets,
                bytes: g.bytes,
                refused: g
                    .refused
                    .first()
                    .map(|(_, reason)| reason.name().to_owned()),
            })
            .collect()
    }
}

fn lower(state: &impl std::fmt::Debug) -> String {
    format!("{state:?}").to_lowercase()
}

struct Ready {
    tun: bool,
    udp: bool,
    waker: bool,
    monitor: bool,
}

/// Datagrams of equal size for one destination leave in one system call.
#[derive(Debug, Default)]
struct Outgoing {
    way: Option<udp::Way>,
    segment: usize,
    count: usize,
    buffer: Vec<u8>,
}

/// The kernel takes 64 segments of at most 64 KiB in all.
const MAX_SEGMENTS: usize = 50;
const MAX_BATCH: usize = 60_000;

impl Outgoing {
    fn push(
        &mut self,
        way: udp::Way,
        datagram: &[u8],
        socket: &mut udp::Socket,
        drops: &mut BTreeMap<&'static str, u64>,
    ) {
        let fits = self.way == Some(way)
            && datagram.len() <= self.segment
            && self.count < MAX_SEGMENTS
            && self.buffer.len() + datagram.len() <= MAX_BATCH
            // only the last segment may be short
            && self.buffer.len() == self.count * self.segment;
        if !fits {
            self.flush(socket, drops);
            self.way = Some(way);
            self.segment = datagram.len();
        }
        self.buffer.extend_from_slice(datagram);
        self.count += 1;
    }

    fn flush(&mut self, socket: &mut udp::Socket, drops: &mut BTreeMap<&'static str, u64>) {
        if let Some(way) = self.way.take() {
            let segment = (self.count > 1).then_some(self.segment);
            if let Err(e) = socket.send(&way, segment, &self.buffer) {
                tracing::debug!("udp send to {}: {e}", way.to);
                *drops.entry("udp_send_error").or_default() += self.count as u64;
            }
        }
        self.count = 0;
        self.buffer.clear();
    }
}
