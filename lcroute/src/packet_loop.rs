//! The packet loop: one thread, no locks.
//!
//! ```text
//!            lc0 ---> node ---> UDP
//!            lc0 <--- node <--- UDP
//! ```
//!
//! Each turn reads a batch from every ready descriptor, hands it to the node, and writes the node's
//! outputs. The loop makes no decisions, and blocks only in `poll`.

mod answers;
mod segments;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_control::config::Lan;
use lcroute_control::status::{Inbound, Mapping};
use lcroute_engine::topology::PolicyKind;
use lcroute_node::{LC0, Node, Output, PingId};
use lcroute_overlay::{CarrierKind, Published, Sought, TEXT_CARRIER};
use lcroute_signalling::Door;
use lcroute_webrtc::WebRtc;
use librecast::events;
use librecast::id::PeerId;
use librecast::time::UnixTime;
use librecast_program::service::Service;
use librecast_program::uplink::Micros;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use smallvec::SmallVec;
use tokio::sync::{Notify, mpsc, watch};

use crate::drops::{DropReason, Drops};
use crate::inbound_probe::InboundProbe;
use crate::inbox::{End, Message, Reconfigure};
use crate::keeper::Kept;
use crate::lan::Lans;
use crate::links::{Links, UDP_CALLS, handle_carrier};
use crate::read_batching::ReadBatching;
use crate::state::Texts;
use crate::uplink::Uplink;
use crate::waker::Waker;
use crate::{netlink, tun, udp};

use answers::Asker;

/// Packets read from lc0 in one turn.
const TUN_BATCH: usize = 128;
/// Datagrams of links after which packets are handed on, while the processor's caches hold them.
const UDP_BATCH: usize = 32;
/// Messages of the control thread read in one turn: packets come first.
const INBOX_BATCH: usize = 64;
/// Time in one turn for these messages: each may begin a link, and packets wait meanwhile. Chosen:
/// a quarter of the time that a packet may wait for its link.
const INBOX_TIME: Duration = Duration::from_millis(5);
/// Time for which datagrams wait unread before this node counts as behind. Chosen: longer than a
/// burst takes.
const BEHIND_AFTER: Duration = Duration::from_millis(50);
/// Hello intervals between two looks at the interface's counters: one second.
const TICK: u32 = 3;
/// Wait after a change of addresses, as changes come in bursts.
const SETTLE: Duration = Duration::from_millis(200);
/// Wait before a failed repair of lc0 is tried again. Chosen: fills no journal.
const REPAIR_AGAIN: Duration = Duration::from_secs(60);
/// Least time between two warnings about packets from foreign addresses. Chosen.
const FOREIGN_SOURCE_AGAIN: Duration = Duration::from_secs(3_600);

/// The components of the loop.
#[derive(Debug)]
pub struct Parts {
    pub device: tun::Device,
    /// The desired settings of lc0.
    pub settings: tun::Settings,
    /// Where programs learn how long their packets wait.
    pub uplink: Uplink,
    pub links: Links,
    /// Reports changes to the host's network.
    pub monitor: netlink::Monitor,
    /// The node, which makes all decisions.
    pub node: Node<WebRtc>,
    /// Messages of the control thread.
    pub inbox: mpsc::Receiver<Message>,
    /// Sealed messages for peers.
    pub outbox: mpsc::Sender<(PeerId, Bytes)>,
    /// Wakes the loop.
    pub waker: Waker,
    /// Notifies the control thread that addresses of this host have changed.
    pub moved: Arc<Notify>,
    /// Notified when links fall silent, or come while no signalling server is connected.
    pub path_changed: Arc<Notify>,
    /// Receives everything that must outlive the daemon.
    pub keep: mpsc::UnboundedSender<Kept>,
    /// This node's presence record.
    pub record: watch::Sender<Option<Published>>,
    /// The peers that this node looks for.
    pub seeking: watch::Sender<Sought>,
    /// Presence records that were pasted into earlier runs.
    pub texts: Texts,
    /// Interfaces whose addresses are used; empty for all.
    pub interfaces: Vec<String>,
    /// Most leaves at a time.
    pub max_leaves: usize,
    /// The topology policy.
    pub policy: PolicyKind,
    /// LANs that this node is a gateway of.
    pub lans: Vec<Lan>,
}

/// The packet loop with its state.
#[derive(Debug)]
pub struct PacketLoop {
    parts: Parts,
    /// Pings without an answer yet.
    askers: BTreeMap<PingId, Asker>,
    drops: Drops,
    read_batching: ReadBatching,
    lans: Lans,
    started: Instant,
    /// Programs for streams on this host: one, or briefly two.
    stream_programs: u32,
    next_tick: Instant,
    inbound: InboundProbe,
    host_changed: Option<Instant>,
    /// Where other nodes find this one.
    doors: Vec<Door>,
    mapping: Mapping,
    overruns: u64,
    /// Since when datagrams of links wait unread.
    unread_since: Option<Instant>,
    foreign_sources: ForeignSources,
    service: Service,
    end: Option<End>,
}

/// Packets of local programs from addresses that are not the node's.
#[derive(Debug, Default)]
struct ForeignSources {
    /// Packets dropped, as of the last look.
    dropped: u64,
    told: Option<Instant>,
}

impl PacketLoop {
    /// Creates the loop.
    pub fn new(parts: Parts, now: Instant) -> Self {
        let lans = Lans::new(vec![parts.links.port()]);
        Self {
            parts,
            askers: BTreeMap::new(),
            drops: Drops::default(),
            read_batching: ReadBatching::default(),
            lans,
            started: now,
            stream_programs: 0,
            next_tick: now,
            inbound: InboundProbe::default(),
            host_changed: None,
            doors: Vec::new(),
            mapping: Mapping::default(),
            overruns: 0,
            unread_since: None,
            foreign_sources: ForeignSources::default(),
            service: Service::of_environment(),
            end: None,
        }
    }

    /// Carries packets until a stop message or an error; notifies peers; returns lc0.
    pub fn run(mut self) -> anyhow::Result<(End, tun::Device)> {
        let ended = self.carry();
        let now = Instant::now();
        self.parts.node.shutdown(now);
        self.deliver(now);
        let end = ended?;
        let reason = match end {
            End::Stop => "told to stop",
            End::Expelled => "expelled",
            End::Exec => "executing the binary anew",
        };
        tracing::info!(
            target: events::TARGET,
            message_id = events::DOWN.id,
            lcroute_tun = self.parts.settings.name.as_str(),
            lcroute_reason = reason,
            "leaving: {reason}"
        );
        Ok((end, self.parts.device))
    }

    fn carry(&mut self) -> anyhow::Result<End> {
        let mut now = Instant::now();
        self.update_candidates(now);
        self.overruns = self.parts.device.overruns().unwrap_or(0);
        self.parts.node.start(now);
        for sealed in std::mem::take(&mut self.parts.texts).iter() {
            take_text(&mut self.parts.node, sealed, now);
        }
        let lans = std::mem::take(&mut self.parts.lans);
        self.lans.configure(&lans, &mut self.parts.node, now);
        self.deliver(now);
        self.probe_inbound(now);
        loop {
            let ready = self.wait(now)?;
            now = Instant::now();
            if !ready.tun || self.read_tun(now)? {
                self.parts.uplink.counted(Micros::now());
            }
            if ready.udp_error {
                self.read_udp_errors(now);
            }
            let drained = !ready.udp || self.read_udp(now);
            self.note_drained(drained, now);
            if ready.lan {
                self.lans.read(&mut self.parts.node, &mut self.drops, now);
            }
            if ready.waker {
                // each message is followed by a wake: one not read now wakes the loop again
                self.parts.waker.clear();
                self.read_inbox(now);
            }
            if ready.monitor {
                self.read_monitor(now)?;
            }
            self.run_timers(now);
            self.lans.update_virtual_macs(&self.parts.node);
            self.deliver(now);
            let Parts { uplink, node, .. } = &mut self.parts;
            uplink.tell(node.connections_mut(), now);
            self.service.alive(now);
            if let Some(end) = self.end {
                return Ok(end);
            }
        }
    }

    fn wait(&mut self, now: Instant) -> anyhow::Result<Ready> {
        let p = &mut self.parts;
        let mut due = self.next_tick;
        let timers = [
            p.node.next_timeout(),
            self.host_changed,
            self.service.next_timeout(),
        ];
        for at in timers.into_iter().flatten() {
            due = due.min(at);
        }
        // to the nanosecond: peers with the same hello epoch are awake now, not up to 1 ms later
        let wait = TimeSpec::from_duration(due.saturating_duration_since(now));
        let mut fds = SmallVec::<[PollFd<'_>; 8]>::new();
        fds.extend([
            PollFd::new(p.device.as_fd(), PollFlags::POLLIN),
            PollFd::new(p.links.socket().as_fd(), PollFlags::POLLIN),
            PollFd::new(p.waker.as_fd(), PollFlags::POLLIN),
            PollFd::new(p.monitor.as_fd(), PollFlags::POLLIN),
        ]);
        let lans = self.lans.fds();
        fds.extend(lans.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match ppoll(&mut fds, Some(wait), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(anyhow::Error::new(e).context("poll")),
        }
        let ready = |i: usize| fds[i].revents().is_some_and(|r| !r.is_empty());
        Ok(Ready {
            tun: ready(0),
            udp: ready(1),
            udp_error: fds[1]
                .revents()
                .is_some_and(|r| r.contains(PollFlags::POLLERR)),
            waker: ready(2),
            monitor: ready(3),
            lan: (4..fds.len()).any(ready),
        })
    }

    /// Reads packets of programs; returns whether none wait any more.
    fn read_tun(&mut self, now: Instant) -> anyhow::Result<bool> {
        let Parts { device, node, .. } = &mut self.parts;
        let mut packets = 0;
        let most = if self.read_batching.is_single(now) {
            1
        } else {
            TUN_BATCH
        };
        // packets that the node drops cost time as well
        for _ in 0..most {
            let read = device.read(&mut |packet| {
                node.handle_local_packet(packet, now);
                packets += 1;
            });
            match read {
                Ok(true) if packets < TUN_BATCH => {}
                Ok(true) => break,
                Ok(false) => {
                    self.read_batching.drained(packets);
                    return Ok(true);
                }
                Err(e) => {
                    // without lc0 the daemon cannot carry packets
                    let name = &self.parts.settings.name;
                    return Err(anyhow::Error::new(e).context(format!(
                        "{name} was deleted by somebody; start lcroute again"
                    )));
                }
            }
        }
        Ok(false)
    }

    /// Reads datagrams of links; returns whether none wait any more.
    fn read_udp(&mut self, now: Instant) -> bool {
        let mut waiting = 0;
        for _ in 0..UDP_CALLS {
            let units = self.parts.links.receive();
            for unit in 0..units {
                let Parts { links, node, .. } = &mut self.parts;
                waiting += links.hand_to(unit, node.connections_mut(), now);
                if waiting >= UDP_BATCH {
                    waiting = 0;
                    self.hand_on(now);
                }
            }
            if units < udp::UNITS {
                return true;
            }
        }
        false
    }

    /// Tells the node whether it is behind: datagrams have waited unread for long.
    fn note_drained(&mut self, drained: bool, now: Instant) {
        if drained {
            if self.unread_since.take().is_some() {
                self.parts.node.set_behind(false, now);
            }
            return;
        }
        let since = *self.unread_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= BEHIND_AFTER {
            self.parts.node.set_behind(true, now);
        }
    }

    fn read_udp_errors(&mut self, now: Instant) {
        let Parts { links, node, .. } = &mut self.parts;
        links.take_errors(node.connections_mut(), now);
    }

    fn read_monitor(&mut self, now: Instant) -> anyhow::Result<()> {
        let changes = self.parts.monitor.drain(self.parts.device.index())?;
        if changes.device || changes.host {
            self.host_changed.get_or_insert(now + SETTLE);
        }
        Ok(())
    }

    fn read_inbox(&mut self, now: Instant) {
        let begun = Instant::now();
        for read in 0..INBOX_BATCH {
            if read > 0 && begun.elapsed() >= INBOX_TIME {
                break;
            }
            let Ok(message) = self.parts.inbox.try_recv() else {
                return;
            };
            match message {
                Message::Carrier(event) => handle_carrier(&mut self.parts.node, event, now),
                Message::Ice(event) => event.hand_to(self.parts.node.connections_mut(), now),
                Message::Doors(doors, outer) => {
                    self.doors = doors;
                    let webrtc = self.parts.node.connections_mut();
                    webrtc.set_outer(outer, now);
                }
                Message::Mapping(mapping) => {
                    let webrtc = self.parts.node.connections_mut();
                    webrtc.set_mapped(mapping.address, now);
                    self.mapping = mapping;
                }
                Message::Ask(request, answer) => self.answer(request, answer, now),
                Message::Observe(to) => {
                    // the asker may have closed its connection
                    let _ = to.send(self.observe(now));
                }
                Message::Withdraw(prefix) => self.parts.node.withdraw(prefix, now),
                Message::TakeBackSecrets(prefix) => {
                    // an empty list is always accepted
                    let _ = self.parts.node.give_secrets(prefix, Vec::new(), now);
                }
                Message::Streams(true) => self.set_stream_programs(self.stream_programs + 1, now),
                Message::Streams(false) => {
                    self.set_stream_programs(self.stream_programs.saturating_sub(1), now);
                }
                Message::Reconfigure(new) => self.reconfigure(*new, now),
                Message::Stop(end) => self.end = Some(end),
            }
        }
        // more messages may wait
        self.parts.waker.wake();
    }

    fn set_stream_programs(&mut self, count: u32, now: Instant) {
        self.stream_programs = count;
        let engine = self.parts.node.engine_mut(now);
        engine.set_streams(count > 0, now);
    }

    fn reconfigure(&mut self, new: Reconfigure, now: Instant) {
        let settings = &mut self.parts.settings;
        (settings.routes, settings.ipv4_routes) = tun::routes(&new.routes);
        (settings.closed, _) = tun::routes(&new.closed);
        if let Err(e) = tun::close(&settings.name, &settings.closed) {
            tracing::warn!("private prefixes: {e}");
        }
        self.parts.interfaces = new.interfaces;
        self.parts.node.configure(new.node, now);
        self.lans.configure(&new.lans, &mut self.parts.node, now);
        self.inbound.forget();
        self.probe_inbound(now);
        self.host_changed = Some(now);
    }

    fn run_timers(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.parts.node.next_timeout()) {
            self.parts.node.handle_timeout(now);
        }
        if is_due(self.host_changed) {
            self.host_changed = None;
            self.repair(now);
            self.update_candidates(now);
            self.lans.refresh(&mut self.parts.node, now);
        }
        if self.next_tick <= now {
            self.next_tick = self.parts.node.connections().next_hello(now, TICK);
            self.check_overruns(now);
            self.check_foreign_sources(now);
            let (lans, drops) = (&self.lans, &mut self.drops);
            lans.check_overruns(&mut self.parts.node, drops, now);
            self.lans.tell(&self.parts.node);
            self.parts.links.count_overflow();
            self.parts.node.update_round_trips(now);
            self.tell_manager();
            if self.inbound.is_due(now) {
                self.probe_inbound(now);
            }
            // a supervisor starts it again, and it joins as another member
            if self.parts.node.is_expelled() && self.parts.node.member().is_ephemeral() {
                self.end = Some(End::Expelled);
            }
        }
        if self.inbound.look(now) {
            self.report_inbound();
        }
    }

    fn probe_inbound(&mut self, now: Instant) {
        let p = &mut self.parts;
        if let Err(e) = self
            .inbound
            .start(&mut p.device, p.node.member().addresses.address, now)
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
            Inbound::NoRoute => tracing::warn!(
                "the kernel has no route for groups on {name}: programs here neither send nor receive; `lcroute doctor` says more"
            ),
            Inbound::Open | Inbound::Unknown => {
                tracing::debug!("this host lets in what arrives on {name}");
            }
        }
    }

    /// Restores addresses and routes of lc0 that another program removed.
    fn repair(&mut self, now: Instant) {
        match self.parts.device.ensure(&self.parts.settings) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(
                    "{}: addresses and routes set anew",
                    self.parts.settings.name
                );
                // reports sent in the meantime had no valid source
                let engine = self.parts.node.engine_mut(now);
                engine.handle_lost_reports(LC0, now);
                self.probe_inbound(now);
            }
            Err(e) => {
                let name = &self.parts.settings.name;
                tracing::warn!("{name}: {e}; tried again in {} s", REPAIR_AGAIN.as_secs());
                self.host_changed = Some(now + REPAIR_AGAIN);
                self.probe_inbound(now);
            }
        }
    }

    /// Sets or removes this node's IPv4 address on lc0, with the next look, due now.
    fn set_ipv4_address(&mut self, address: Option<Ipv4Addr>) {
        if let Some(ipv4) = &mut self.parts.settings.ipv4
            && ipv4.address != address
        {
            let name = &self.parts.settings.name;
            if let (Some(old), Some(new)) = (ipv4.address, address) {
                tracing::warn!(
                    "{name}: the IPv4 address is {new} now, as another node has {old}: restart programs that use that"
                );
            }
            ipv4.address = address;
            self.host_changed = Some(Instant::now());
        }
    }

    fn update_candidates(&mut self, now: Instant) {
        let p = &mut self.parts;
        let only = (!p.interfaces.is_empty()).then_some(p.interfaces.as_slice());
        let webrtc = p.node.connections_mut();
        match p.links.review(&p.settings.name, only, webrtc, now) {
            Ok(has_changed) if has_changed => p.moved.notify_one(),
            Ok(_) => {}
            Err(e) => tracing::warn!("addresses of this host: {e}"),
        }
    }

    /// Asks programs for their reports anew after lc0 lost packets towards this daemon.
    fn check_overruns(&mut self, now: Instant) {
        let overruns = self.parts.device.overruns().unwrap_or(self.overruns);
        if overruns > self.overruns {
            self.drops
                .add(DropReason::TunOverrun, overruns - self.overruns);
            let engine = self.parts.node.engine_mut(now);
            engine.handle_lost_reports(LC0, now);
        }
        self.overruns = overruns;
    }

    /// Warns of packets from foreign sources, such as another address of lc0.
    fn check_foreign_sources(&mut self, now: Instant) {
        let engine = self.parts.node.engine();
        let dropped = engine.dropped(lcroute_engine::DropReason::ForeignSource);
        let seen = &mut self.foreign_sources;
        let grown = dropped > std::mem::replace(&mut seen.dropped, dropped);
        let quiet = seen
            .told
            .is_some_and(|told| now < told + FOREIGN_SOURCE_AGAIN);
        if grown && !quiet {
            seen.told = Some(now);
            tracing::warn!(
                "programs send on {} from an address that is not this node's: dropped as foreign_source ({dropped} so far); `lcroute doctor` says more",
                self.parts.settings.name
            );
        }
    }

    /// Ends a turn: writes all outputs of the node until none is left.
    fn deliver(&mut self, now: Instant) {
        loop {
            let something = self.hand_on(now);
            let Parts { links, node, .. } = &mut self.parts;
            if !links.send(node.connections_mut()) && !something {
                break;
            }
        }
        self.parts.device.flush();
        self.lans.flush(&mut self.drops);
        let Parts { links, node, .. } = &mut self.parts;
        links.flush(node.connections_mut(), now);
    }

    /// Passes outputs of the node to lc0 and the control thread. Returns whether there was one.
    fn hand_on(&mut self, now: Instant) -> bool {
        let mut something = false;
        while let Some(output) = self.parts.node.poll_output(now) {
            something = true;
            self.handle_output(output);
        }
        something
    }

    fn handle_output(&mut self, output: Output) {
        match output {
            Output::Local { packet } => self.parts.device.queue(packet),
            Output::LocalMld { packet } => {
                if let Err(e) = self.parts.device.write(&packet) {
                    tracing::debug!("write to lc0: {e}");
                    self.drops.count(DropReason::TunWriteError);
                }
            }
            Output::Lan { interface, frame } => self.lans.send(interface, frame, &mut self.drops),
            Output::Signal { to, bytes } => {
                if self.parts.outbox.try_send((to, bytes)).is_err() {
                    self.drops.count(DropReason::SignalQueueFull);
                }
            }
            Output::Publish(record) => drop(self.parts.record.send_replace(Some(record))),
            Output::Seek(sought) => drop(self.parts.seeking.send_replace(sought)),
            // the control thread ends after this one
            Output::Keep(what) => drop(self.parts.keep.send(Kept::Node(what))),
            Output::Pong { ping, rtt } => {
                if let Some(asker) = self.askers.remove(&ping) {
                    asker.tell(rtt);
                }
            }
            Output::Ipv4Address(address) => self.set_ipv4_address(address),
            Output::PathSuspect => self.parts.path_changed.notify_one(),
        }
    }
}

/// Takes a pasted presence record; returns its peer, and its expiry in unix seconds.
fn take_text(node: &mut Node<WebRtc>, sealed: &[u8], now: Instant) -> Option<(PeerId, u64)> {
    // the newest record of a node counts, whatever its name
    let name = bs58::encode(sealed).into_string();
    let by = (TEXT_CARRIER, CarrierKind::Text);
    let (peer, until) = node.handle_record(by, name, sealed, now)?;
    let left = until.saturating_duration_since(now).as_secs();
    Some((peer, UnixTime::now().as_secs() + left))
}

struct Ready {
    tun: bool,
    udp: bool,
    udp_error: bool,
    waker: bool,
    monitor: bool,
    lan: bool,
}
