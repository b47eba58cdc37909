//! The program: sockets, timers, and the conversation with the program for streams.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::BytesMut;
use lcroute_netlink::{host_addresses, lan_interfaces};
use lcroute_overlay::{CarrierKind, Connections, Presence};
use lcroute_signalling::{CarrierEvent, Datagram, IceEvent, IcePlan, IceServers, Sockets, batch};
use lcroute_webrtc::{WebRtc, WebRtcConfig, common_epoch};
use librecast::id::{PeerId, SecretKey};
use librecast::open_item::RECORD_LEN;
use librecast::outside::{
    Frame, FromOutside, PairPlan, PairState, Place, Plan, Status, ToOutside, line_frame,
    packet_frame, read_frame,
};
use librecast::pair::PairSecret;
use librecast::reach::{Base58, FromReach};
use librecast::signalling::stun_name;
use librecast::time::{Instant, UnixTime, WallClock};
use librecast_program::cli::Exit;
use librecast_program::service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, sleep_until, timeout};

use crate::arrived::Arrived;
use crate::carriers::{DHT, Finding, LAN};
use crate::items::Items;
use crate::mapping::{Mappings, settings};
use crate::pairs::{Intent, OpenDay, Pairs, PairsConfig, PairsOutput};
use crate::port::{Facts, reached};
use crate::share::Share;

/// Pause after a failed accept, most likely for want of file descriptors.
const RETRY: Duration = Duration::from_millis(500);
/// Interval of looks at this host's addresses.
const LOOK: Duration = Duration::from_secs(5);
/// Datagrams that wait to be handled. Chosen.
const DATAGRAMS: usize = 512;
/// Datagrams handled before their packets leave. Chosen.
const AT_ONCE: usize = 64;
/// Most addresses that are used; each has a socket. Chosen: as many as a record has.
const MAX_ADDRESSES: usize = 8;
/// Frames that wait for the program for streams. Chosen: 10 ms of 100 Mbit/s.
const FRAMES: usize = 1_024;
/// MTU of packets, in bytes: QUIC finds out how much the path takes.
const MTU: u16 = 1_400;
/// Time for the last datagrams at the end.
const GOODBYE: Duration = Duration::from_millis(500);
/// Time for the end of all; the router has a second of it to delete the mapping.
const END: Duration = Duration::from_millis(1_500);

/// Where the program for streams comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum From<'a> {
    /// Standard input is the connection; the program ends with it.
    Stdin,
    /// It connects to the service manager's socket, or else to this one.
    Socket(&'a Path),
}

pub(crate) fn run(from: From<'_>) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (stop, stopped) = watch::channel(false);
        let serving = async {
            match from {
                From::Stdin => {
                    let stream = io::stdin().as_fd().try_clone_to_owned()?;
                    let stream = std::os::unix::net::UnixStream::from(stream);
                    stream.set_nonblocking(true)?;
                    converse(UnixStream::from_std(stream)?, stopped).await
                }
                From::Socket(path) => serve(path, stopped).await,
            }
        };
        tokio::pin!(serving);
        service::ready();
        let ended = tokio::select! {
            ended = &mut serving => ended,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        service::stopping();
        if ended.is_ok() && stop.send(true).is_ok() {
            // links end with a goodbye
            let _ = timeout(END, serving).await;
        }
        ended.map(|()| Exit::Ok)
    })
}

/// Serves the program for streams, one at a time.
async fn serve(path: &Path, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let listener = match service::listening_socket() {
        Some(inherited) => {
            let listener = std::os::unix::net::UnixListener::from(inherited);
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)?
        }
        None => bind_at(path).with_context(|| path.display().to_string())?,
    };
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!("{}: {e}", path.display());
                    sleep(RETRY).await;
                    continue;
                }
            },
            _ = stopped.changed() => return Ok(()),
        };
        let refused = async {
            // one that comes meanwhile is closed, and comes again
            while let Ok((second, _)) = listener.accept().await {
                drop(second);
            }
        };
        tokio::select! {
            ended = converse(stream, stopped.clone()) => ended?,
            () = refused => {}
        }
        if *stopped.borrow() {
            return Ok(());
        }
    }
}

/// Opens a socket for this user.
fn bind_at(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode)?;
    Ok(listener)
}

/// Talks with one program for streams until it has gone.
async fn converse(stream: UnixStream, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let (read, write) = stream.into_split();
    let mut conversation = Conversation::new(write)?;
    let ended = tokio::select! {
        ended = conversation.run(read) => ended,
        _ = stopped.changed() => Ok(()),
    };
    conversation.goodbye().await;
    match ended {
        Ok(()) => tracing::info!("the program for streams has gone"),
        Err(e) => tracing::warn!("the program for streams: {e:#}"),
    }
    Ok(())
}

/// Addresses of this host for links, and its LANs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Here {
    addresses: Vec<IpAddr>,
    lans: BTreeSet<String>,
}

impl Here {
    /// Reads them, without those of the interfaces `exclude`.
    fn look(exclude: &[String]) -> io::Result<Self> {
        let exclude: Vec<_> = exclude.iter().map(String::as_str).collect();
        let mut addresses = host_addresses(&exclude, None)?;
        addresses.truncate(MAX_ADDRESSES);
        Ok(Self {
            addresses,
            lans: lan_interfaces(&exclude, None)?,
        })
    }
}

/// All state while one program for streams is connected.
struct Conversation {
    pairs: Pairs,
    share: Share,
    finding: Finding,
    told: mpsc::Receiver<Arrived>,
    plan: Option<Plan>,
    plans: BTreeMap<PeerId, PairPlan>,
    here: Here,
    sockets: Sockets,
    /// They have been opened at a port of the own key, as others call.
    is_fixed: bool,
    mappings: Mappings,
    datagrams: mpsc::Receiver<Datagram>,
    /// The servers answer STUN and relay on the same port.
    ice: IceServers,
    ice_events: mpsc::Receiver<IceEvent>,
    urls: BTreeSet<String>,
    frames: mpsc::Sender<Vec<u8>>,
    writer: JoinHandle<io::Result<()>>,
    changed: BTreeSet<PeerId>,
    said: BTreeMap<PeerId, PairState>,
    status: Option<Status>,
    /// This host's key, if it is open.
    open: Option<PeerId>,
    /// Its items in the DHT.
    items: Items,
    /// Callers have changed since they were told.
    guests_changed: bool,
    dht: Option<String>,
}

impl Conversation {
    fn new(write: OwnedWriteHalf) -> anyhow::Result<Self> {
        let now = Instant::now();
        let epoch = common_epoch(now, UnixTime::now());
        let webrtc = WebRtcConfig::new(MTU, epoch, UnixTime::now(), seed()?);
        let share = Share::new(WebRtc::new(webrtc, now)?);
        let config = PairsConfig {
            clock: WallClock::new(UnixTime::now),
            epoch,
            seed: seed()?,
            rate: u64::MAX,
        };
        let (finding, told) = Finding::new();
        let (ice, ice_events) = IceServers::start();
        let (sockets, datagrams) = Sockets::new(DATAGRAMS);
        let (frames, waiting) = mpsc::channel(FRAMES);
        Ok(Self {
            pairs: Pairs::new(config, share.clone(), now),
            share,
            finding,
            told,
            plan: None,
            plans: BTreeMap::new(),
            here: Here::default(),
            sockets,
            is_fixed: false,
            mappings: Mappings::default(),
            datagrams,
            ice,
            ice_events,
            urls: BTreeSet::new(),
            frames,
            writer: tokio::spawn(write_frames(write, waiting)),
            changed: BTreeSet::new(),
            said: BTreeMap::new(),
            status: None,
            open: None,
            items: Items::default(),
            guests_changed: false,
            dht: None,
        })
    }

    /// Returns when the program for streams has gone.
    async fn run(&mut self, mut read: OwnedReadHalf) -> anyhow::Result<()> {
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        let mut look = interval(LOOK);
        loop {
            let at = self.pairs.next_timeout();
            let at = self.items.next_timeout().map_or(at, |item| item.min(at));
            tokio::select! {
                read = read.read_buf(&mut buffer) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    while let Some(length) = self.handle_frame(&buffer)? {
                        drop(buffer.split_to(length));
                    }
                }
                Some(datagram) = self.datagrams.recv() => self.handle_datagrams(datagram),
                Some(told) = self.told.recv() => self.handle_told(told),
                Some(event) = self.ice_events.recv() => {
                    event.hand_to(&mut self.share.webrtc(), Instant::now());
                }
                mapped = self.mappings.changed() => self.set_mapped(mapped),
                _ = look.tick() => {
                    self.review_addresses().await?;
                    self.say_status();
                }
                ended = &mut self.writer => return Ok(ended??),
                () = sleep_until(at.into()) => {
                    // datagrams that wait are not silence
                    tokio::task::yield_now().await;
                    if let Ok(datagram) = self.datagrams.try_recv() {
                        self.handle_datagrams(datagram);
                    }
                    self.pairs.handle_timeout(Instant::now());
                }
            }
            self.work();
        }
    }

    /// Handles the first frame; returns its length. None: it is incomplete.
    fn handle_frame(&mut self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        let Some((frame, length)) = read_frame(bytes)? else {
            return Ok(None);
        };
        match frame {
            Frame::Packet(key, packet) => self.pairs.send(&key, packet, Instant::now()),
            Frame::Line(line) => {
                let line = serde_json::from_slice(line).context("a line")?;
                self.handle_line(line);
            }
        }
        Ok(Some(length))
    }

    fn handle_line(&mut self, line: ToOutside) {
        let now = Instant::now();
        match line {
            ToOutside::Plan(plan) => {
                self.pairs.set_rate(plan.rate);
                self.plan = Some(plan);
                let keys = self.plans.keys().chain(&self.open).copied();
                for key in keys.collect::<Vec<_>>() {
                    self.review_places(&key);
                }
            }
            ToOutside::Pair(pair) => {
                let secret = PairSecret::of_bytes(pair.secret.0.into(), pair.own, pair.key);
                let (key, wish) = (
                    pair.key,
                    Intent {
                        waits: pair.waits,
                        seeks: pair.seeks,
                    },
                );
                self.plans.insert(key, pair);
                if !self.pairs.set(secret, wish, now) {
                    tracing::warn!("{key}: too many pairs");
                    self.plans.remove(&key);
                }
                self.review_places(&key);
                self.changed.insert(key);
            }
            ToOutside::Gone(key) => {
                self.plans.remove(&key);
                self.said.remove(&key);
                self.pairs.remove(&key, now);
            }
            ToOutside::Open(plan) => {
                let days = plan.days.into_iter().map(|day| OpenDay {
                    period: day.period,
                    key: Arc::new(SecretKey::from_seed(&day.seed.0)),
                    statement: day.statement.0,
                });
                let days: Vec<_> = days.collect();
                self.open = (!days.is_empty()).then_some(plan.own);
                self.items.set_used(plan.items);
                self.guests_changed = true;
                self.pairs.set_open(plan.own, days, now);
            }
            ToOutside::Item(item) => {
                if self.items.handle_item(item, now) {
                    self.hold_items();
                }
                return;
            }
        }
        self.review_mapping();
    }

    /// Returns the places of a pair, and whether it is sought.
    fn places(&self, key: &PeerId) -> (Vec<Place>, bool) {
        let pair = self.plans.get(key);
        let own = pair.map(|pair| &pair.places[..]).unwrap_or_default();
        let places = self.plan.as_ref().map(|plan| plan.places(own));
        let seeks = pair.is_some_and(|pair| pair.seeks);
        (places.unwrap_or_default(), seeks)
    }

    fn review_places(&mut self, key: &PeerId) {
        let (places, seeks) = self.places(key);
        self.finding.set_places(key, &places, seeks);
        self.set_ice_servers();
    }

    /// Asks the servers of all pairs for the address of this host, and for relays.
    fn set_ice_servers(&mut self) {
        let urls = self.finding.urls();
        if self.urls != urls {
            self.urls.clone_from(&urls);
            self.ice.set(IcePlan {
                stun: urls.iter().filter_map(|url| stun_name(url)).collect(),
                servers: urls.into_iter().collect(),
                ..IcePlan::default()
            });
        }
    }

    /// Handles a datagram, and those that wait behind it.
    fn handle_datagrams(&mut self, first: Datagram) {
        let now = Instant::now();
        for (from, at, datagram) in batch(first, &mut self.datagrams, AT_ONCE) {
            self.pairs.handle_datagram(from, at, &datagram, now);
        }
    }

    fn handle_told(&mut self, told: Arrived) {
        let now = Instant::now();
        match told {
            Arrived::Of(node, CarrierEvent::Presence(carrier, presence)) => {
                match presence {
                    Presence::CarrierDown => self.finding.note(node, carrier, false),
                    _ => self.finding.note(node, carrier, true),
                }
                if self.finding.is_open(node) {
                    if matches!(presence, Presence::CarrierUp | Presence::CarrierDown) {
                        self.say_status();
                    }
                    let event = CarrierEvent::Presence(carrier, presence);
                    return self.pairs.handle_room(node, event, now);
                }
                self.pairs.handle_presence(node, carrier, presence, now);
                let keys = self.plans.keys().copied();
                self.changed.extend(keys);
            }
            Arrived::Of(node, event @ CarrierEvent::Signal { .. })
                if self.finding.is_open(node) =>
            {
                self.pairs.handle_room(node, event, now);
            }
            Arrived::Of(
                node,
                CarrierEvent::Signal {
                    carrier,
                    from,
                    bytes,
                },
            ) => self.pairs.handle_signal(node, (carrier, from), &bytes, now),
            Arrived::Of(..) => {}
            Arrived::Room(own, event) => {
                if let Some(node) = self.finding.owner(&own) {
                    self.handle_told(Arrived::Of(node, event));
                }
            }
            Arrived::Relay(url, credentials) => self.ice.offered(url, credentials),
            Arrived::Dht(FromReach::Seen { key, value }) => {
                let dht = (DHT, CarrierKind::Dht);
                if let Some(room) = self.finding.called_at(&key.0) {
                    self.pairs.handle_open_record(room, dht, &value.0, now);
                }
                if let Some(node) = self.finding.named(&key.0) {
                    self.pairs.handle_record(node, dht, &value.0, now);
                }
            }
            Arrived::Dht(FromReach::State(state)) => {
                self.share.webrtc().set_outer(state.outer, now);
                self.finding.note_stored(state.held);
                let nodes = state.nodes;
                self.dht = Some(format!("{nodes} nodes, {} records held", state.held));
            }
            Arrived::Dht(_) => {}
            Arrived::Lan(event) => {
                if let Some((node, kind, sealed)) = self.finding.record_of(event) {
                    if self.finding.is_open(node) {
                        let lan = (LAN, kind);
                        return self.pairs.handle_open_record(node, lan, &sealed, now);
                    }
                    self.pairs.handle_record(node, (LAN, kind), &sealed, now);
                }
            }
        }
    }

    /// Does what is decided: starts and ends carriers, and sends.
    fn work(&mut self) {
        loop {
            self.send_all();
            let Some(output) = self.pairs.poll_output() else {
                self.send_all();
                break;
            };
            match output {
                PairsOutput::Start(started) => {
                    let (places, seeks) = self.places(&started.peer);
                    let is_first = self.finding.urls().is_empty() && self.sockets.port().is_none();
                    self.finding.start(&started, &places, seeks);
                    let names = self.pairs.names(started.node);
                    self.finding.set_names(started.node, &names);
                    self.set_ice_servers();
                    if is_first {
                        // the first pair needs sockets at once
                        self.open_sockets();
                    }
                    self.set_lans();
                }
                PairsOutput::End(node) => self.finding.end(node),
                PairsOutput::Signal { node, to, bytes } => self.finding.send(node, to, &bytes),
                PairsOutput::Record {
                    node,
                    record,
                    announced,
                } => {
                    self.finding.set_record(node, record, announced);
                    let names = self.pairs.names(node);
                    self.finding.set_names(node, &names);
                    self.set_dht();
                }
                PairsOutput::Packet { peer, packet } => {
                    let frame = packet_frame(&peer, &packet);
                    // the streams send again what finds no room
                    frame.map(|frame| self.frames.try_send(frame));
                }
                PairsOutput::Changed(peer) => {
                    self.changed.insert(peer);
                }
                PairsOutput::Enter(entered) => {
                    let (places, _) = self.places(&entered.open);
                    self.finding.enter(&entered, &places);
                    self.set_ice_servers();
                    if self.sockets.port().is_none() {
                        // the first one needs sockets at once
                        self.open_sockets();
                    }
                    self.set_lans();
                    self.set_dht();
                }
                PairsOutput::Leave(room) => {
                    self.finding.end(room);
                    self.items.end(room);
                    self.hold_items();
                }
                PairsOutput::Say { room, to, bytes } => self.finding.send(room, to, &bytes),
                PairsOutput::OpenRecord {
                    room,
                    open,
                    period,
                    record,
                    item,
                } => {
                    let item = item.and_then(|sealed| <[u8; RECORD_LEN]>::try_from(sealed).ok());
                    let item = item.map(Base58);
                    let now = Instant::now();
                    self.items.set_record(room, (open, period), item, now);
                    self.finding.set_record(room, record, true);
                }
                PairsOutput::Guests => self.guests_changed = true,
            }
        }
        // without room it is asked again
        while let Some(item) = self.items.poll(Instant::now()) {
            self.say(&FromOutside::Item(Box::new(item)));
        }
        if self.guests_changed {
            // without room it is said later
            let guests = FromOutside::Guests(self.pairs.guests());
            self.guests_changed = !self.say(&guests);
        }
        for peer in std::mem::take(&mut self.changed) {
            self.say_state(peer);
        }
    }

    fn say(&self, line: &FromOutside) -> bool {
        let frame = line_frame(line);
        frame.is_some_and(|frame| self.frames.try_send(frame).is_ok())
    }

    fn say_state(&mut self, key: PeerId) {
        let Some(state) = self.pairs.state(&key) else {
            return;
        };
        let name = match (state.linked, state.linking) {
            (true, _) => "linked",
            (false, true) => "linking",
            (false, false) => "waits",
        };
        let text = |kind: CarrierKind| serde_json::to_value(kind).ok()?.as_str().map(str::to_owned);
        let state = PairState {
            key,
            state: name.to_owned(),
            path: state.link.path.map(|path| path.name().to_owned()),
            rtt_ms: state.link.rtt_ms,
            found_by: state.found_by.and_then(text),
            by: self.finding.by(&key),
        };
        if self.said.get(&key) == Some(&state) {
            return;
        }
        // without room it is said with the next look
        if self.say(&FromOutside::State(state.clone())) {
            self.said.insert(key, state);
        }
    }

    fn say_status(&mut self) {
        self.changed.extend(self.pairs.peers().copied());
        let drops = self.pairs.drops().into_iter();
        let status = Status {
            drops: drops.map(|(name, n)| (name.to_owned(), n)).collect(),
            dht: self.dht.clone(),
            open_by: match self.open {
                Some(_) => self.finding.open_by(),
                None => Vec::new(),
            },
            reached: self.open.and_then(|_| self.reached()),
        };
        if self.status.as_ref() != Some(&status) && self.say(&FromOutside::Status(status.clone())) {
            self.status = Some(status);
        }
    }

    /// Returns where callers of the open key reach this host, or what to do.
    fn reached(&self) -> Option<String> {
        // another port comes once its links have ended
        let port = self.sockets.port().filter(|_| self.is_fixed)?;
        reached(&Facts {
            candidates: &self.share.webrtc().candidates(),
            port,
            called: self.pairs.is_called_from_afar(),
            has_server: self.finding.has_server(),
        })
    }

    /// Follows this host's addresses.
    async fn review_addresses(&mut self) -> anyhow::Result<()> {
        if self.plans.is_empty() && self.open.is_none() {
            self.sockets.retain(&[]);
            self.is_fixed = false;
            self.here = Here::default();
            self.finding.set_lans(None, 0);
            self.finding.set_dht(None);
            self.review_mapping();
            return Ok(());
        }
        let relays = self.share.webrtc().relay_status().url.is_some();
        for (node, ended) in self.finding.renew(relays) {
            self.handle_told(Arrived::Of(node, ended));
        }
        self.set_ice_servers();
        self.open_sockets();
        self.set_lans();
        self.set_dht();
        Ok(())
    }

    fn set_lans(&mut self) {
        let lan = self.plan.as_ref().is_some_and(|plan| plan.lan);
        let port = self.sockets.port().unwrap_or(0);
        let lans = lan.then(|| self.here.lans.clone());
        self.finding.set_lans(lans, port);
    }

    fn set_dht(&mut self) {
        let bootstrap = self.plan.as_ref().and_then(|plan| plan.dht.as_deref());
        self.finding.set_dht(bootstrap);
    }

    /// Brings the items of the open key into the DHT.
    fn hold_items(&mut self) {
        self.finding
            .set_items(self.items.items().cloned().collect());
        self.set_dht();
    }

    fn open_sockets(&mut self) {
        let exclude = self.plan.as_ref().map(|plan| plan.exclude.clone());
        let here = match Here::look(&exclude.unwrap_or_default()) {
            Ok(here) => here,
            Err(e) => return tracing::warn!("addresses of this host: {e}"),
        };
        if self.is_called() && !self.is_fixed && !self.pairs.has_links() {
            // a caller has any port: two calls from one port would disturb each other
            self.is_fixed = true;
            self.sockets.retain(&[]);
        }
        if here == self.here && self.sockets.addresses().len() == here.addresses.len() {
            return;
        }
        self.sockets.retain(&here.addresses);
        for ip in &here.addresses {
            if !self.sockets.has(*ip)
                && let Err(e) = self.open_socket(*ip)
            {
                // an address that is not ready yet is tried again
                tracing::debug!("UDP socket of {ip}: {e}");
            }
        }
        self.here = here;
        let candidates = self.sockets.addresses().collect();
        let now = Instant::now();
        self.share.webrtc().set_local_candidates(candidates, now);
        self.finding.addresses_changed();
        self.mappings.moved();
        self.review_mapping();
    }

    /// Returns whether somebody may call this host.
    fn is_called(&self) -> bool {
        self.open.is_some() || self.plans.values().any(|pair| pair.waits)
    }

    /// Has the router map the port while somebody may call it.
    fn review_mapping(&mut self) {
        let Some(plan) = &self.plan else { return };
        // routers map IPv4; another port comes once its links have ended
        let at = self.sockets.addresses().find(SocketAddr::is_ipv4);
        let port = at.map(|at| at.port()).filter(|_| self.is_fixed);
        let settings = settings(plan, self.is_called());
        if self.mappings.set(port, settings, plan.port.as_ref()) {
            self.set_mapped(None);
        }
    }

    fn set_mapped(&mut self, mapped: Option<SocketAddr>) {
        self.share.webrtc().set_mapped(mapped, Instant::now());
        self.say_status();
    }

    /// Opens a socket; at a port of the own key where others call, so that it can be forwarded.
    fn open_socket(&mut self, ip: IpAddr) -> io::Result<()> {
        let secret = self.plan.as_ref().and_then(|plan| plan.port.as_ref());
        let secret = secret.filter(|_| self.is_fixed);
        let known = self.sockets.port();
        let chosen = secret.iter().flat_map(|secret| secret.ports());
        // one for all addresses
        let ports = known.into_iter().chain(chosen);
        for port in ports {
            match self.sockets.open((ip, port)) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                opened => return opened,
            }
        }
        self.sockets.open((ip, 0))
    }

    fn send_all(&mut self) {
        while let Some(command) = self.share.poll_relay_stream() {
            // a full stream loses datagrams, as networks do
            let _ = self.ice.commands().try_send(command);
        }
        while let Some(transmit) = self.pairs.poll_transmit() {
            let (from, to) = (transmit.from, transmit.to);
            self.sockets.send(from, to, &transmit.contents);
        }
    }

    /// Ends all links, and says so to the others.
    async fn goodbye(&mut self) {
        self.pairs.shutdown(Instant::now());
        while self.pairs.poll_output().is_some() {}
        self.send_all();
        // best effort, like the mapping's end
        let goodbye = timeout(GOODBYE, self.finding.stop());
        let _ = tokio::join!(goodbye, self.mappings.end());
        self.writer.abort();
    }
}

/// Writes frames until the channel ends.
async fn write_frames(
    mut write: OwnedWriteHalf,
    mut frames: mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut batch = Vec::new();
    while let Some(frame) = frames.recv().await {
        batch.extend_from_slice(&frame);
        while batch.len() < 64 * 1024
            && let Ok(frame) = frames.try_recv()
        {
            batch.extend_from_slice(&frame);
        }
        write.write_all(&batch).await?;
        batch.clear();
    }
    Ok(())
}

fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
    Ok(seed)
}
