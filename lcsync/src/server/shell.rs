//! `lcsync share`: the sockets, files and threads around the server's core.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::announce::Announcer;
use librecast::channel::{LCSYNC_PORT, SharePrefix, carrier_number, channel_of};
use librecast::coding::{Encoder, SYMBOL_SIZE};
use librecast::events::{SHARE_CHANGED, SHARE_READY, SHARE_VANISHED, TARGET};
use librecast::listener::MldListener;
use librecast::listener_v1::V1Listener;
use librecast::socket::{Interface, SendSocket, interfaces, multicast_interfaces};
use librecast_program::cli::{Exit, ExitError, is_journal, note};
use librecast_program::interrupt;
use librecast_program::metrics::{Listen, Page, Served};
use librecast_program::service::{self, Service};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::time::TimeSpec;

use super::channel::{Channel, Rates, Terms};
use super::config::{self, ShareOptions};
use super::core::{Carrying, Drops, Output};
use super::hosted::Server;
use super::meeting::Meeting;
use super::metrics;
use super::overlay::{Overlay, Shared};
use super::rescan::{self, Kept, Update, Vanished, Watched};
use super::rivals::Rival;
use super::status::{self, Status};
use super::status_socket::StatusSocket;
use super::uplink::UplinkGate;
use crate::block::{BlockHash, BlockRef};
use crate::carrying::Width;
use crate::catalogue::{self, Listed};
use crate::groups::Carried;
use crate::packet::{SYMBOL_PACKET, Symbol, encode_catalogue};
use crate::sealing::{SALT, SEALED_PACKET, Sealer, ShareKey, group_key};
use crate::stretch::STRETCH;

/// Default rate of a channel, in bits per second: a window of 128 fills more than a gigabit. A
/// block then takes 1/7 s, which is long beside the 10 ms between JOINs of different receivers.
const CHANNEL_RATE: u64 = 15_000_000;
/// Least number of channels that share a limit over all.
const CHANNELS_UNDER_LIMIT: u64 = 4;
/// Least rate of a channel, in bits per second.
const MIN_CHANNEL_RATE: u64 = 64_000;
/// Divisor of the rate for channels of the slow layer.
const SLOWER: u64 = 10;
/// Hop limit of packets: a few routers beyond the host's own network.
const HOP_LIMIT: u8 = 8;
/// Interval between two searches for interfaces.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(1);
/// Blocks cached with their encoders: more than are usually sent at once.
const CACHED_BLOCKS: usize = 192;
/// Most MLD messages read in a turn; the rest waits in the socket.
const MESSAGES_PER_TURN: usize = 256;
/// Interval of log messages about reports without effect.
const DROPS_INTERVAL: Duration = Duration::from_secs(60);
/// First 16 bits of the groups of all shares.
const CHANNELS: u16 = 0xff1e;
/// Most packets sent before MLD is read again.
const OUTPUTS_PER_TURN: usize = 16;
/// Longest time of sending in a turn, so that a blocked interface delays little else.
const MAX_SEND_TIME: Duration = Duration::from_millis(100);
/// Longest MLD message: one that fits an Ethernet jumbo frame.
const MESSAGE_SIZE: usize = 9_216;

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// The shares.
    pub shares: Shares,
    /// Interfaces; empty for all.
    pub interfaces: Vec<String>,
    /// Bits per second over all channels.
    pub limit: Option<u64>,
    /// Address for metrics, in place of the file's.
    pub metrics: Option<Listen>,
}

/// Source of the list of shares.
#[derive(Debug)]
pub enum Shares {
    /// The command line.
    Given(Vec<ShareOptions>),
    /// This file; SIGHUP reads it again.
    File(PathBuf),
}

impl Shares {
    /// Whether members of a group are told of a share once it is read.
    fn are_offered(&self) -> bool {
        let has_group = |shares: &[ShareOptions]| shares.iter().any(|s| s.lcgroup.is_some());
        match self {
            Self::Given(shares) => has_group(shares),
            Self::File(file) => config::read(file).is_ok_and(|(shares, _)| has_group(&shares)),
        }
    }

    fn read(&self) -> anyhow::Result<(Vec<Watched>, Option<Listen>)> {
        match self {
            Self::Given(shares) => Ok((config::named(shares)?, None)),
            Self::File(file) => {
                let shown = || file.display().to_string();
                let (shares, metrics) = config::read(file)?;
                Ok((config::named(&shares).with_context(shown)?, metrics))
            }
        }
    }
}

/// Requests of signals.
#[derive(Debug, Default)]
pub(super) struct Asked {
    stop: AtomicBool,
    reload: AtomicBool,
    /// A scan of the files, now.
    rescan: Arc<AtomicBool>,
}

/// Serves until stopped.
pub fn share(options: Options) -> anyhow::Result<Exit> {
    let open = || MldListener::open().map_err(explain_socket);
    // members hear of no share that this host may not serve
    let listener = options.shares.are_offered().then(open).transpose()?;
    let (watched, metrics) = options.shares.read()?;
    let wake = Arc::new(EventFd::from_flags(
        EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
    )?);
    let asked = Arc::new(Asked::default());
    catch_signals(&wake, &asked)?;
    let listener = listener.map_or_else(open, Ok)?;
    let announcer = Announcer::start()?;
    let (lists, wanted) = channel();
    let rescan = Arc::clone(&asked.rescan);
    let updates = rescan::start(wanted, Kept::of_user(), waker(&wake), rescan)?;
    warn_of_unknown(&options.interfaces)?;
    let mut shell = Shell::new(options, listener, lists, Some(announcer))?;
    shell.service = Service::of_environment();
    shell.awaited = Some(watched.iter().map(|w| w.prefix).collect());
    shell.metrics = Some(Served::new("lcsync", waker(&wake)));
    shell.answer_status(&wake);
    shell.serve_metrics(metrics)?;
    shell.set_shares(watched, Instant::now());
    shell.run(&updates, &wake, &asked)?;
    Ok(Exit::Ok)
}

/// Ends the loop's wait.
fn waker(wake: &Arc<EventFd>) -> impl Fn() + Send + Sync + 'static {
    let wake = Arc::clone(wake);
    move || {
        // a full counter wakes as well
        let _ = wake.write(1);
    }
}

/// Warns of missing interfaces: they may come later, as `lc0` does, or be misspelt.
fn warn_of_unknown(names: &[String]) -> anyhow::Result<()> {
    let known = interfaces()?;
    for name in names {
        if !known.values().any(|i| i.name == *name) {
            tracing::warn!("there is no interface {name:?} yet: waiting for it");
        }
    }
    Ok(())
}

fn catch_signals(wake: &Arc<EventFd>, asked: &Arc<Asked>) -> anyhow::Result<()> {
    let (wake, asked) = (Arc::clone(wake), Arc::clone(asked));
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    interrupt::on_signals(&signals, move |signal| {
        if signal == Signal::SIGHUP {
            asked.reload.store(true, Ordering::SeqCst);
        } else {
            asked.stop.store(true, Ordering::SeqCst);
        }
        // a full counter wakes as well
        let _ = wake.write(1);
    })?;
    Ok(())
}

pub(super) fn explain_socket(error: std::io::Error) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        let program = std::env::current_exe().unwrap_or_else(|_| "lcsync".into());
        let message = format!(
            "sharing watches MLD on a raw ICMPv6 socket, which needs CAP_NET_RAW: run as root, or once \
             `sudo setcap cap_net_raw+ep {}`",
            program.display()
        );
        return ExitError::new(Exit::NotPermitted, message).into();
    }
    anyhow::Error::new(error).context("raw ICMPv6 socket")
}

/// Returns the rates of channels that share a limit over all, if there is one.
fn rates_under(limit: Option<u64>) -> Rates {
    let shared = limit.map(|l| (l / CHANNELS_UNDER_LIMIT).max(MIN_CHANNEL_RATE));
    let channel = shared.map_or(CHANNEL_RATE, |r| r.min(CHANNEL_RATE));
    Rates {
        channel,
        slow: channel / SLOWER,
        // channels under a limit are slower
        stretch: limit.is_none().then_some(channel * STRETCH as u64),
        total: limit,
    }
}

/// The part of a shell that passes on the blocks of a receiver in this process.
struct Carrier {
    overlay: Overlay,
    shared: Arc<Shared>,
    overdue: Sender<BlockRef>,
    width: Width,
    looked_at: Instant,
}

pub(super) struct Shell {
    options: Options,
    /// Whether reports of programs on this host do not count.
    ignores_own: bool,
    /// Shares that are served, or will be.
    shares: BTreeMap<SharePrefix, Watched>,
    /// Shares whose files may only seem to be gone.
    vanished: BTreeMap<SharePrefix, Vanished>,
    lists: Sender<Vec<Watched>>,
    /// `None` in a network of its own, which lcroute of this host does not know.
    announcer: Option<Announcer>,
    listener: MldListener,
    /// `None`: hosts of MLDv1 are not served.
    v1: Option<V1Listener>,
    server: Server,
    id: u32,
    interfaces: BTreeMap<u32, Interface>,
    sockets: BTreeMap<u32, SendSocket>,
    /// Packets that wait in lcroute.
    uplink: UplinkGate,
    /// Passes blocks on; `None`: a server, or a receiver that serves on.
    carrier: Option<Carrier>,
    blocks: BlockCache,
    /// Sealers of the shares with a key.
    sealers: BTreeMap<SharePrefix, Sealer>,
    /// Sockets for other servers of the same shares.
    meeting: Meeting,
    packets: Vec<u8>,
    /// Bytes sent so far, without headers, for another thread.
    sent: Arc<AtomicU64>,
    drops_shown: Drops,
    /// When reports without effect may be logged again.
    drops_at: Instant,
    sent_shown: u64,
    service: Service,
    /// Shares without a version, while the service manager waits for them.
    awaited: Option<BTreeSet<SharePrefix>>,
    /// `None` in a receiver that serves on.
    metrics: Option<Served>,
    status: Option<StatusSocket>,
}

impl Shell {
    pub(super) fn new(
        options: Options,
        listener: MldListener,
        lists: Sender<Vec<Watched>>,
        announcer: Option<Announcer>,
    ) -> anyhow::Result<Self> {
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
        let [a, b, c, d, seed @ ..] = random;
        let id = u32::from_be_bytes([a, b, c, d]);
        let rates = rates_under(options.limit);
        let v1 = V1Listener::open(CHANNELS)
            // a sandbox may allow no packet socket, and hardly any network has such hosts
            .inspect_err(|e| tracing::info!("hosts with MLDv1 only are not heard: {e}"))
            .ok();
        Ok(Self {
            v1,
            options,
            ignores_own: false,
            shares: BTreeMap::new(),
            vanished: BTreeMap::new(),
            lists,
            announcer,
            listener,
            server: Server::new(id, rates, u64::from_be_bytes(seed), Instant::now()),
            id,
            interfaces: BTreeMap::new(),
            sockets: BTreeMap::new(),
            uplink: UplinkGate::default(),
            carrier: None,
            blocks: BlockCache::default(),
            sealers: BTreeMap::new(),
            meeting: Meeting::new(Instant::now()),
            packets: Vec::new(),
            sent: Arc::default(),
            drops_shown: Drops::default(),
            drops_at: Instant::now(),
            sent_shown: 0,
            service: Service::default(),
            awaited: None,
            metrics: None,
            status: None,
        })
    }

    /// Its number in packets.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Returns the count of bytes sent so far, without headers.
    pub(super) fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }

    /// Opens the socket for `lcsync status`, if it has a folder.
    pub(super) fn answer_status(&mut self, wake: &Arc<EventFd>) {
        self.status = StatusSocket::of_this_process(waker(wake));
    }

    /// Ignores JOINs from this host from now on.
    pub(super) fn ignore_own_host(&mut self) {
        self.ignores_own = true;
    }

    /// Passes blocks on from now on, and tells `overdue` of those that others await for too long.
    pub(super) fn carry(
        &mut self,
        overlay: Overlay,
        shared: Arc<Shared>,
        overdue: Sender<BlockRef>,
    ) {
        self.carrier = Some(Carrier {
            overlay,
            shared,
            overdue,
            width: Width::default(),
            looked_at: Instant::now(),
        });
    }

    /// Looks at blocks that others await, and now and then at the width of the uplink.
    fn look_at_carried(&mut self, now: Instant) {
        let Some(carrier) = &mut self.carrier else {
            return;
        };
        let longest = carrier.shared.longest_awaited.load(Ordering::Relaxed);
        let is_due = now.saturating_duration_since(carrier.looked_at) >= INTERFACES_INTERVAL;
        if is_due {
            carrier.looked_at = now;
        }
        for prefix in self.shares.keys() {
            let longest = Duration::from_millis(longest);
            for block in self.server.overdue(*prefix, longest, now) {
                // the receiver has ended
                let _ = carrier.overdue.send(block);
            }
            let alone = carrier.shared.alone.load(Ordering::Relaxed);
            self.server.set_alone(*prefix, alone, now);
            if is_due {
                let width = carrier.width.look(self.server.last_capacity());
                self.server.set_width(*prefix, width);
                carrier.shared.width.store(width, Ordering::Relaxed);
            }
        }
        let joined = self.server.joined_channels();
        carrier.shared.joined.store(joined, Ordering::Relaxed);
    }

    pub(super) fn run(
        &mut self,
        updates: &Receiver<Update>,
        wake: &EventFd,
        asked: &Asked,
    ) -> anyhow::Result<()> {
        let mut interfaces_at = Instant::now();
        let mut message = vec![0; MESSAGE_SIZE];
        while !asked.stop.load(Ordering::SeqCst) {
            let now = Instant::now();
            self.service.alive(now);
            if asked.reload.swap(false, Ordering::SeqCst) {
                service::reloading();
                self.reload(now);
                service::ready();
                asked.rescan.store(true, Ordering::SeqCst);
            }
            if now >= interfaces_at {
                self.look_at_interfaces(now)?;
                interfaces_at = now + INTERFACES_INTERVAL;
            }
            self.take_updates(updates, now)?;
            if let Some(metrics) = &self.metrics {
                metrics.answer(|| self.page());
            }
            if let Some(socket) = &self.status {
                socket.answer(|| self.status());
            }
            self.receive(&mut message)?;
            self.look_at_carried(now);
            let more = self.send_due();
            let sent = self.server.symbols_sent().total() * SYMBOL_SIZE as u64;
            self.sent.store(sent, Ordering::Relaxed);
            if more {
                continue;
            }
            let due = self
                .server
                .next_timeout()
                .map_or(interfaces_at, |t| t.min(interfaces_at));
            wait(&self.listener, self.v1.as_ref(), wake, due)?;
        }
        service::stopping();
        self.show_sent();
        Ok(())
    }

    /// Reads the configuration again; after an error, the old one stays.
    fn reload(&mut self, now: Instant) {
        match self.options.shares.read() {
            Ok((watched, metrics)) => {
                self.set_shares(watched, now);
                if let Err(e) = self.serve_metrics(metrics) {
                    tracing::error!("{e:#}");
                }
            }
            Err(e) => tracing::error!("{e:#}; going on with what was shared before"),
        }
    }

    /// Serves metrics at the address of the command line, or else of the file.
    fn serve_metrics(&mut self, file: Option<Listen>) -> anyhow::Result<()> {
        let listen = self.options.metrics.clone().or(file);
        let Some(served) = &mut self.metrics else {
            return Ok(());
        };
        let shown = || listen.as_ref().map(ToString::to_string).unwrap_or_default();
        served
            .listen(listen.as_ref())
            .with_context(|| format!("[metrics] listen = {:?}", shown()))
    }

    fn status(&self) -> Status {
        let interfaces = self.interfaces.iter();
        let names = interfaces.map(|(index, interface)| (*index, interface.name.as_str()));
        let (shares, seed) = (self.shares.values(), self.ignores_own);
        let shares = shares.map(|watched| (watched, self.vanished.get(&watched.prefix)));
        let now = Instant::now();
        let mut status = status::status(&self.server, shares, &names.collect(), seed, now);
        for share in &mut status.shares {
            let watched = self.shares.values().find(|w| w.name == share.name);
            let rivals = watched.map(|w| self.meeting.rivals(w.prefix, now));
            for rival in rivals.into_iter().flatten() {
                let on = self.interfaces.get(&rival.interface);
                let on = on.map_or("?", |i| i.name.as_str());
                share.rivals.push(status::Rival::of(rival, on, now));
            }
            let remedy = watched.filter(|_| !share.rivals.is_empty());
            share.remedy = remedy.map(|w| status::remedy(w).to_owned());
        }
        status
    }

    fn page(&self) -> Page {
        let (mut shares, now) = (Vec::new(), Instant::now());
        for (prefix, share) in self.server.shares() {
            if let Some(watched) = self.shares.get(prefix) {
                let index = &share.index;
                shares.push(metrics::Share {
                    name: &watched.name,
                    generation: share.generation,
                    bytes: index.bytes(),
                    blocks: index.blocks() as u64,
                    left_out: index.scan.left_out() as u64,
                    rivals: self.meeting.rivals(*prefix, now).count() as u64,
                });
            }
        }
        let pending = self.shares.len().saturating_sub(shares.len());
        let counts = (pending, self.vanished.len());
        metrics::page(&self.server, self.interfaces.len(), &shares, counts)
    }

    /// Shares these from now on. Unchanged shares continue.
    pub(super) fn set_shares(&mut self, watched: Vec<Watched>, now: Instant) {
        let before = std::mem::take(&mut self.shares);
        self.shares = watched.iter().map(|w| (w.prefix, w.clone())).collect();
        for (prefix, old) in &before {
            if !self.shares.get(prefix).is_some_and(|w| w.is_same(old)) {
                tracing::info!("lc:{} is not shared any more", old.name);
                self.server.remove_share(*prefix, now);
                self.sealers.remove(prefix);
                self.meeting.remove(*prefix);
                self.vanished.remove(prefix);
            }
        }
        for (prefix, watched) in &self.shares {
            let terms = Terms {
                limit: watched.limit,
                sealed: watched.key.is_some(),
            };
            self.server.set_terms(*prefix, terms, now);
        }
        self.restrict();
        self.list_shares();
        let listed = self.shares.values().filter(|w| w.listed);
        let asked = listed.map(|w| catalogue::prefix(group_key(w.key.as_deref())));
        let prefixes = self.shares.keys().copied().chain(asked);
        let overlay = self.carrier.as_ref().map(|carrier| &carrier.overlay);
        // packets of the origin take no way over here
        let announced = |p: SharePrefix| match overlay {
            Some(overlay) => p.of_carrier(overlay.address),
            None => (p.address(), 64),
        };
        let prefixes: BTreeSet<_> = prefixes.map(announced).collect();
        if let Some(announcer) = &self.announcer {
            announcer.set(prefixes.into_iter().collect());
        }
        // the thread ends with the process
        let _ = self.lists.send(watched);
    }

    /// Sets the interfaces of each share.
    fn restrict(&mut self) {
        for (prefix, watched) in &self.shares {
            let only = &watched.interfaces;
            let indices = self.interfaces.values().filter(|i| only.contains(&i.name));
            let indices = (!only.is_empty()).then(|| indices.map(|i| i.index).collect());
            self.server.restrict(*prefix, indices);
        }
    }

    /// Puts listed shares into the catalogues of their interfaces, for holders of their key.
    fn list_shares(&mut self) {
        let mut lists: BTreeMap<(SharePrefix, u32), Vec<Listed>> = BTreeMap::new();
        for (prefix, share) in self.server.shares() {
            let Some(watched) = self.shares.get(prefix).filter(|w| w.listed) else {
                continue;
            };
            let listed = Listed {
                name: watched.name.clone(),
                root: share.index.root.hash,
                generation: share.generation,
                bytes: share.index.bytes(),
                files: share.index.files(),
            };
            let at = catalogue::prefix(group_key(watched.key.as_deref()));
            let only = &watched.interfaces;
            for interface in self.interfaces.values() {
                if only.is_empty() || only.contains(&interface.name) {
                    let list = lists.entry((at, interface.index)).or_default();
                    list.push(listed.clone());
                }
            }
        }
        let datagrams = |list: Vec<Listed>| {
            let parts = catalogue::parts(&list).unwrap_or_default();
            parts.iter().map(|part| encode_catalogue(part)).collect()
        };
        let lists = lists.into_iter().map(|(at, list)| (at, datagrams(list)));
        self.server.set_catalogues(lists.collect());
    }

    fn take_updates(&mut self, updates: &Receiver<Update>, now: Instant) -> anyhow::Result<()> {
        while let Ok(update) = updates.try_recv() {
            match update {
                Update::Share {
                    watched,
                    share,
                    earlier,
                    first,
                } => {
                    let wanted = self.shares.get(&watched.prefix);
                    if !wanted.is_some_and(|w| w.is_same(&watched)) {
                        continue;
                    }
                    let root = share.index.root.hash;
                    let (event, says) = match first {
                        true => (SHARE_READY, "is served"),
                        false => (SHARE_CHANGED, "has changed"),
                    };
                    tracing::info!(
                        target: TARGET,
                        message_id = event.id,
                        lcsync_share = watched.name.as_str(),
                        lcsync_root = %root,
                        lcsync_generation = share.generation,
                        lcsync_bytes = share.index.bytes(),
                        "lc:{} {says}: {root}: {} bytes in {} blocks",
                        watched.name,
                        share.index.bytes(),
                        share.index.blocks()
                    );
                    if let Some(key) = &watched.key {
                        self.seal(watched.prefix, key)?;
                        if watched.listed {
                            let of_list = Arc::new(key.of_name(catalogue::NAME));
                            self.seal(catalogue::prefix(group_key(Some(key))), &of_list)?;
                        }
                    }
                    let version = (share.generation, root);
                    self.meeting.publish(&watched, earlier, version, now);
                    self.server.set_share(watched.prefix, share, now);
                    self.list_shares();
                    if first {
                        let mut out = librecast_program::standard::output();
                        writeln!(out, "lc:{} {root}", watched.name)?;
                        out.flush()?;
                    } else if !self.ignores_own && self.announcer.is_some() && !is_journal() {
                        // the journal has the event above; `send` prints it itself
                        note(format_args!(
                            "lc:{} has a new version: {root}",
                            watched.name
                        ));
                    }
                    self.is_there(watched.prefix);
                }
                Update::Rescanned(prefix) => self.server.handle_rescan(prefix),
                Update::Vanished(prefix, vanished) => self.take_vanished(prefix, vanished),
                Update::Carried(prefix, had) => {
                    if let Some(Carrier { overlay, width, .. }) = &mut self.carrier {
                        let number = carrier_number(overlay.address);
                        let width = width.look(None);
                        let carrying = Carrying::new(overlay.interface, number, width, had);
                        self.server.set_carrying(prefix, carrying);
                    }
                }
                Update::Came(prefix, block) => self.server.handle_block(prefix, block, now),
                Update::Failed(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes that the files of a share are not published, or are again.
    fn take_vanished(&mut self, prefix: SharePrefix, vanished: Option<Vanished>) {
        let Some(watched) = self.shares.get(&prefix) else {
            return;
        };
        let Some(vanished) = vanished else {
            self.vanished.remove(&prefix);
            return;
        };
        let served = self.server.share_of(prefix.address()).is_some();
        let still = match served {
            true => "still serving the last version",
            false => "nothing is served",
        };
        let (name, why) = (&watched.name, &vanished.why);
        tracing::warn!(
            target: TARGET,
            message_id = SHARE_VANISHED.id,
            lcsync_share = name.as_str(),
            lcsync_reason = why.as_str(),
            "lc:{name}: {}: {why}; {still}: {}",
            watched.path.display(),
            vanished.remedy()
        );
        self.vanished.insert(prefix, vanished);
        // the manager need not wait until a disk is mounted
        self.is_there(prefix);
    }

    /// Seals all packets of the share from now on.
    fn seal(&mut self, prefix: SharePrefix, key: &Arc<ShareKey>) -> anyhow::Result<()> {
        if let Entry::Vacant(place) = self.sealers.entry(prefix) {
            let mut salt = [0; SALT];
            getrandom::fill(&mut salt).map_err(|e| anyhow::anyhow!("random numbers: {e}"))?;
            place.insert(Sealer::new(Arc::clone(key), self.id, salt));
        }
        Ok(())
    }

    /// Reports readiness once each share has a version.
    fn is_there(&mut self, share: SharePrefix) {
        if let Some(awaited) = &mut self.awaited {
            awaited.remove(&share);
            if awaited.is_empty() {
                self.awaited = None;
                service::ready();
            }
        }
    }

    /// Sends the manager a line for its status.
    fn tell_manager(&mut self) {
        let shares = match self.shares.len() {
            1 => "1 share".to_owned(),
            n => format!("{n} shares"),
        };
        let what = match (&self.awaited, self.server.joined_channels()) {
            (Some(awaited), _) => format!("hashing {} of them", awaited.len()),
            (None, 0) => "nobody listens".to_owned(),
            (None, _) => "sending".to_owned(),
        };
        self.service.status(format!("{shares}, {what}"));
    }

    fn look_at_interfaces(&mut self, now: Instant) -> anyhow::Result<()> {
        let mut found = multicast_interfaces(&self.options.interfaces)?;
        // queries need a link-local address, and so do reports of the host itself
        found.retain(|_, i| i.link_local().is_some());
        self.uplink.open();
        for index in self.interfaces.keys().filter(|i| !found.contains_key(i)) {
            self.listener.unwatch(*index);
            if let Some(v1) = &mut self.v1 {
                v1.unwatch(*index);
            }
        }
        let mut watched = BTreeMap::new();
        for (index, interface) in &found {
            // the kernel forgets memberships of an interface that was away
            if let Err(e) = self.listener.watch(*index) {
                tracing::warn!("{}: cannot watch MLD: {e}", interface.name);
                continue;
            }
            if let Some(Err(e)) = self.v1.as_mut().map(|v1| v1.watch(*index)) {
                tracing::debug!("{}: MLDv1: {e}", interface.name);
            }
            if let Some(address) = interface.link_local() {
                watched.insert(*index, address);
            }
            if self.interfaces.get(index) != Some(interface) {
                tracing::info!("watching {}", interface.name);
            }
        }
        let old = &self.interfaces;
        self.sockets
            .retain(|index, _| found.contains_key(index) && old.get(index) == found.get(index));
        let is_other = self.interfaces != found;
        self.interfaces = found;
        self.server.set_interfaces(&watched, now);
        self.restrict();
        if is_other {
            self.list_shares();
        }
        // no further message might come to reveal the loss
        let mut lost = self.listener.take_lost()?;
        if let Some(v1) = &mut self.v1 {
            lost = lost.saturating_add(v1.take_lost()?);
        }
        if lost > 0 {
            self.server.handle_lost(lost, now);
        }
        self.meet(now)?;
        self.tell_manager();
        self.show_drops();
        if self.server.joined_channels() == 0 {
            self.show_sent();
        }
        Ok(())
    }

    /// Receives records of other servers of these shares, and sends this one's, while members
    /// exist.
    fn meet(&mut self, now: Instant) -> anyhow::Result<()> {
        let found = self.meeting.receive(now);
        for (share, rival) in found.context("socket of other servers")? {
            self.warn_of(share, &rival);
        }
        for channel in self.meeting.follow(self.server.roots(), now) {
            if let Some(datagram) = self.server.record_for_servers(channel) {
                self.perform(Output::Record { channel, datagram });
            }
        }
        Ok(())
    }

    fn warn_of(&self, share: SharePrefix, rival: &Rival) {
        let Some(watched) = self.shares.get(&share) else {
            return;
        };
        let interface = self.interfaces.get(&rival.interface);
        let on = interface.map_or("?", |i| i.name.as_str());
        tracing::warn!(
            "lc:{}: {} on {on} publishes something else under its name and key, {} (a copied host?): receivers take whichever \
             is newer. {}",
            watched.name,
            rival.address,
            rival.root,
            status::remedy(watched)
        );
    }

    /// Logs the bytes sent, without headers, each time that the last member has left.
    fn show_sent(&mut self) {
        let sent = self.server.symbols_sent();
        let symbols = sent.total();
        if symbols != self.sent_shown {
            let bytes = symbols * SYMBOL_SIZE as u64;
            tracing::info!("sent {symbols} symbols, {bytes} bytes, since the start");
            tracing::debug!("symbols by what for: {sent:?}");
            self.sent_shown = symbols;
        }
    }

    fn show_drops(&mut self) {
        let drops = self.server.drops();
        let now = Instant::now();
        // neighbours can cause these at any rate
        if drops != self.drops_shown && now >= self.drops_at {
            self.drops_at = now + DROPS_INTERVAL;
            let lost = drops.lost - self.drops_shown.lost;
            if lost > 0 {
                tracing::warn!("{lost} MLD reports lost, asking everybody");
            }
            tracing::info!("reports without effect: {drops:?}");
            self.drops_shown = drops;
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        let mut lost = 0;
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.listener.receive(buffer).context("raw ICMPv6 socket")? else {
                break;
            };
            lost += message.lost;
            let interface = self.interfaces.get(&message.interface);
            if self.ignores_own && interface.is_some_and(|i| i.addresses.contains(&message.source))
            {
                continue;
            }
            let bytes = &buffer[..message.length.min(buffer.len())];
            let now = Instant::now();
            self.server.handle_mld(
                message.interface,
                message.source,
                message.hop_limit,
                bytes,
                now,
            );
        }
        if lost > 0 {
            self.server.handle_lost(lost, Instant::now());
        }
        self.receive_v1()
    }

    fn receive_v1(&mut self) -> anyhow::Result<()> {
        let Some(v1) = &mut self.v1 else {
            return Ok(());
        };
        for _ in 0..MESSAGES_PER_TURN {
            let Some(received) = v1.receive().context("packet socket")? else {
                break;
            };
            let interface = received.interface;
            match received.message {
                Ok((source, message)) => {
                    self.server
                        .handle_message(interface, source, message, Instant::now());
                }
                Err(_) => self.server.handle_malformed(),
            }
        }
        Ok(())
    }

    /// Sends due packets; returns true if more are due.
    fn send_due(&mut self) -> bool {
        let start = Instant::now();
        for _ in 0..OUTPUTS_PER_TURN {
            let now = Instant::now();
            if let Some(held) = self.uplink.holds() {
                self.server
                    .hold(held.interface, held.wait, now + held.time, now);
            }
            match self.server.poll_output(now) {
                Some(output) => self.perform(output),
                None => return false,
            }
            if start.elapsed() >= MAX_SEND_TIME {
                break;
            }
        }
        true
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Query {
                interface,
                source,
                destination,
                message,
            } => {
                if let Err(e) = self.listener.send(interface, source, destination, &message) {
                    tracing::debug!("query on interface {interface}: {e}");
                }
            }
            Output::Record { channel, datagram } => {
                let sealer = sealer_of(&mut self.sealers, channel.group);
                let sealed = match sealer {
                    Some(sealer) => sealer.seal_record(&datagram),
                    None => Some(datagram),
                };
                if let Some(datagram) = sealed {
                    let size = datagram.len();
                    self.packets = datagram;
                    self.send(channel, size);
                }
            }
            Output::Symbols {
                channel,
                sequence,
                ids,
            } => self.send_symbols(channel, sequence, &ids),
        }
    }

    fn send_symbols(&mut self, channel: Channel, sequence: u32, ids: &[u32]) {
        let Some(share) = self.server.share_of(channel.group) else {
            return;
        };
        let id = channel_of(channel.group);
        let generation = share.generation;
        let mut sealer = sealer_of(&mut self.sealers, channel.group);
        self.packets.clear();
        let mut carried: Option<Carried> = None;
        for (n, esi) in ids.iter().enumerate() {
            let same = carried.filter(|c| (c.first..c.end).contains(esi));
            let Some(of) = same.or_else(|| share.index.carried(id, *esi)) else {
                return;
            };
            carried = Some(of);
            let block = of.located.block();
            let encoder = self
                .blocks
                .get(block.hash, || share.index.read_located(of.located));
            let encoder = match encoder {
                Ok(encoder) => encoder,
                Err(e) => {
                    tracing::debug!("block {}: {e}", block.hash);
                    self.server.handle_block_gone(channel, Instant::now());
                    return;
                }
            };
            let symbol = Symbol {
                server: self.id,
                sequence: sequence.wrapping_add(n as u32),
                channel: id,
                block_length: block.length,
                esi: *esi,
                data: &[],
            };
            // the schedule's ids are in range
            let mut write = |out: &mut Vec<u8>| encoder.symbol(*esi - of.first, out).is_ok();
            let written = match &mut sealer {
                Some(sealer) => sealer.seal_symbol(generation, &symbol, &mut self.packets, write),
                None => {
                    symbol.write_header(&mut self.packets);
                    write(&mut self.packets)
                }
            };
            if !written {
                return;
            }
        }
        let size = if sealer.is_some() {
            SEALED_PACKET
        } else {
            SYMBOL_PACKET
        };
        self.send(channel, size);
    }

    /// Sends the datagrams of `size` bytes in `packets`.
    fn send(&mut self, channel: Channel, size: usize) {
        let Channel { interface, group } = channel;
        let socket = match self.sockets.entry(interface) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                match SendSocket::open(interface, group, LCSYNC_PORT, HOP_LIMIT) {
                    Ok(socket) => place.insert(socket),
                    Err(e) => {
                        tracing::debug!("socket on interface {interface}: {e}");
                        return;
                    }
                }
            }
        };
        // before: lcroute may read them before this process goes on
        self.uplink.sent(interface);
        if let Err(e) = socket.send(group, &self.packets, size) {
            tracing::debug!("sending on interface {interface}: {e}");
            let full = matches!(
                e.raw_os_error(),
                Some(nix::libc::ENOBUFS | nix::libc::EAGAIN)
            );
            // its source address may be gone
            if !full {
                self.sockets.remove(&interface);
            }
        }
    }
}

fn sealer_of(sealers: &mut BTreeMap<SharePrefix, Sealer>, group: Ipv6Addr) -> Option<&mut Sealer> {
    sealers.get_mut(&SharePrefix::of_group(group)?)
}

fn wait(
    listener: &MldListener,
    v1: Option<&V1Listener>,
    wake: &EventFd,
    until: Instant,
) -> anyhow::Result<()> {
    let timeout = until.saturating_duration_since(Instant::now());
    let mut fds = vec![
        PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        PollFd::new(wake.as_fd(), PollFlags::POLLIN),
    ];
    fds.extend(v1.map(|v1| PollFd::new(v1.as_fd(), PollFlags::POLLIN)));
    match ppoll(&mut fds, Some(TimeSpec::from_duration(timeout)), None) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    // empty if it was not the reason
    let _ = wake.read();
    Ok(())
}

/// Encoders of blocks that are being sent; a new one replaces the least recently used.
#[derive(Debug, Default)]
struct BlockCache {
    blocks: HashMap<BlockHash, (u64, Encoder)>,
    clock: u64,
}

impl BlockCache {
    fn get(
        &mut self,
        hash: BlockHash,
        read: impl FnOnce() -> Result<Vec<u8>, crate::index::IndexError>,
    ) -> anyhow::Result<&mut Encoder> {
        self.clock += 1;
        if !self.blocks.contains_key(&hash) {
            if self.blocks.len() >= CACHED_BLOCKS
                && let Some(oldest) = self
                    .blocks
                    .iter()
                    .min_by_key(|(_, (used, _))| *used)
                    .map(|(h, _)| *h)
            {
                self.blocks.remove(&oldest);
            }
            self.blocks
                .insert(hash, (self.clock, Encoder::new(read()?)?));
        }
        let (used, encoder) = self.blocks.get_mut(&hash).context("just inserted")?;
        *used = self.clock;
        Ok(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_group_are_known_before_members_hear_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lcsync.toml");
        for (line, is_offered) in [("lcgroup = \"team\"", true), ("listed = true", false)] {
            std::fs::write(&file, format!("[[share]]\npath = \".\"\n{line}\n")).unwrap();
            let (shares, _) = config::read(&file).unwrap();
            assert_eq!(Shares::Given(shares).are_offered(), is_offered);
            assert_eq!(Shares::File(file.clone()).are_offered(), is_offered);
        }
        let missing = folder.path().join("missing.toml");
        assert!(!Shares::File(missing).are_offered());
    }
}
