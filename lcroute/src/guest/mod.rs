//! A guest: a program on an `lc0` of its own, without root and daemon.
//!
//! ```text
//!   program ── sockets ── lc0        in a user and network namespace of its own
//!                          │ TUN
//!                        guest ── links of a leaf ── routers      on the host's network
//! ```
//! Files: `namespace` (the processes inside), `lc0` (its listeners), `leaf` (the node).

mod lc0;
pub mod leaf;
mod namespace;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lcroute_engine::control::RefusalReason;
use lcroute_engine::{LEAF_GROUPS, LinkRefusal, SourceFilter};
use librecast::cert::{GroupPrefix, Token};
use librecast::id::{NodeAddresses, SecretKey};
use librecast::time::UnixTime;
use librecast_program::cli::{Exit, ExitError};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::lc0::Listeners;
use self::leaf::{Common, LeafEvent, LeafShell};
use self::namespace::Running;
use crate::commands::hint;
use crate::tun::{Device, Mode, Prefix, Settings};

/// Name of the interface.
const INTERFACE: &str = "lc0";
/// MTU of the interface: the smallest of IPv6, as links of leaves have it.
const MTU: u16 = 1_280;
/// Packets queued for the guest. Chosen: as the daemon's, so that no report is lost.
const TX_QUEUE_LEN: u32 = 10_000;
/// Interval of looks at addresses, drops and the state.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time without a link after which the user is told so. Chosen: what anybody waits for.
const LOOKING: Duration = Duration::from_secs(2);
/// Time from one look to the next after which the process was suspended: joins may be lost.
const SUSPENDED: Duration = Duration::from_secs(3);
/// Packets of programs read in one turn. Chosen.
const READ_AT_ONCE: usize = 64;

/// Options of a guest.
#[derive(Debug)]
pub struct Options {
    /// The token, of a leaf.
    pub token: Token,
    /// The program.
    pub command: Command,
    /// Whether the program is a shell: refused groups do not end it.
    pub is_shell: bool,
    /// Name of the host's own lc0, which leads to no router.
    pub host_interface: String,
    /// Groups that go to lc0 if a program names no interface.
    pub routes: Vec<Prefix>,
}

/// Runs the program, and returns its exit code. Must be called while the process has one thread.
pub fn run(options: Options) -> anyhow::Result<u8> {
    let key = SecretKey::generate();
    let network = options.token.network();
    let addresses = NodeAddresses::derive(&network, &key.peer_id());
    let settings = Settings {
        name: INTERFACE.to_owned(),
        mode: Mode::Tun,
        mtu: MTU,
        tx_queue_len: TX_QUEUE_LEN,
        address: addresses.address,
        link_local: addresses.link_local,
        routes: options.routes,
        closed: Vec::new(),
        offload: false,
        ipv4: None,
        ipv4_routes: Vec::new(),
    };
    let (device, running) = namespace::start(&settings, options.command)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let signals = signals()?;
        let prefixes = options.token.invitation().grant().prefixes.clone();
        let common = Common::new(options.token, &options.host_interface).await;
        let common = Arc::new(common);
        let now = Instant::now();
        let mut guest = Guest {
            leaf: LeafShell::start(common.clone(), key, "guest").await?,
            common,
            listeners: Listeners::new(now),
            device,
            overruns: 0,
            prefixes,
            is_shell: options.is_shell,
            joined: BTreeSet::new(),
            refused: None,
            told: Told::default(),
            alone_since: Some(now),
            was_linked: false,
            looked_at: now,
        };
        let result = guest.carry(&running, &signals).await;
        guest.leaf.close();
        for (reason, count) in guest.listeners.drops() {
            tracing::info!(reason, count, "dropped");
        }
        result
    });
    namespace::end_all();
    runtime.shutdown_background();
    result
}

/// Takes the signals that are for the program.
fn signals() -> anyhow::Result<AsyncFd<SignalFd>> {
    let set: SigSet = [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGHUP,
    ]
    .into_iter()
    .collect();
    set.thread_block()?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(watch(SignalFd::with_flags(&set, flags)?)?)
}

/// Messages that the user has had.
#[derive(Debug, Default)]
struct Told {
    looking: bool,
    sent: bool,
    groups: bool,
    room: bool,
    refusal: bool,
}

/// The state of a guest.
#[derive(Debug)]
struct Guest {
    leaf: LeafShell,
    common: Arc<Common>,
    listeners: Listeners,
    device: Device,
    /// Packets that the kernel could not pass to this process.
    overruns: u64,
    /// Groups that the token permits.
    prefixes: Vec<GroupPrefix>,
    is_shell: bool,
    /// Groups that programs have joined, and that the token permits.
    joined: BTreeSet<Ipv6Addr>,
    /// A group outside of the token, or that the network does not carry, and the time of its join.
    refused: Option<(Ipv6Addr, Instant)>,
    told: Told,
    /// Since when no link is up.
    alone_since: Option<Instant>,
    was_linked: bool,
    looked_at: Instant,
}

impl Guest {
    /// Carries packets and joins until the program's end, and returns its exit code.
    async fn carry(
        &mut self,
        running: &Running,
        signals: &AsyncFd<SignalFd>,
    ) -> anyhow::Result<u8> {
        let lc0 = watched(&self.device)?;
        let end = watched(running)?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            self.flush()?;
            let next = self.listeners.next_timeout();
            let next = next.unwrap_or_else(|| Instant::now() + LOOK_EVERY);
            tokio::select! {
                ready = end.readable() => {
                    ready?.clear_ready();
                    if let Some(code) = running.ended() {
                        return Ok(code);
                    }
                }
                ready = signals.readable() => {
                    ready?.clear_ready();
                    forward(signals.get_ref(), running)?;
                }
                ready = lc0.readable() => {
                    let mut ready = ready?;
                    if !self.read()? {
                        ready.clear_ready();
                    }
                }
                () = tokio::time::sleep_until(next.into()) => {
                    self.listeners.handle_timeout(Instant::now());
                }
                _ = look.tick() => self.look().await?,
                () = self.leaf.wait() => {}
            }
        }
    }

    /// Reads packets of programs; returns false once there are none.
    fn read(&mut self) -> anyhow::Result<bool> {
        let (listeners, now) = (&mut self.listeners, Instant::now());
        for _ in 0..READ_AT_ONCE {
            let read = self
                .device
                .read(&mut |packet| listeners.handle_packet(&packet, now));
            if !read? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes on all that is pending: joins to the leaf, packets and queries to lc0.
    fn flush(&mut self) -> anyhow::Result<()> {
        for (group, filter) in self.listeners.take_changes() {
            self.change(group, filter);
        }
        while let Some(event) = self.leaf.poll() {
            match event {
                LeafEvent::Packet(packet) => self.device.queue(packet),
                LeafEvent::Refused(group, reason) => self.handle_refusal(group, reason),
                LeafEvent::Expelled => {
                    return Err(refused(
                        "revoked: the network takes no guest by this token any more; ask for a new one (`lcroute invite --leaf`)",
                    ));
                }
            }
        }
        self.device.flush();
        for query in self.listeners.take_queries() {
            // while the interface is down nobody listens
            let _ = self.device.write(&query);
        }
        Ok(())
    }

    /// Changes a group's join; `None`: nobody listens any more.
    fn change(&mut self, group: Ipv6Addr, filter: Option<SourceFilter>) {
        let now = Instant::now();
        let Some(filter) = filter else {
            self.joined.remove(&group);
            self.refused.take_if(|(refused, _)| *refused == group);
            self.leaf.node().part(group, now);
            return;
        };
        if !self.prefixes.iter().any(|prefix| prefix.contains(group)) {
            self.refuse(group);
            return;
        }
        if self.leaf.node().join(group, filter, now) {
            self.joined.insert(group);
        } else if !std::mem::replace(&mut self.told.groups, true) {
            hint(format_args!(
                "{group} is not joined: a guest has {LEAF_GROUPS} groups at most"
            ));
        }
    }

    fn handle_refusal(&mut self, group: Ipv6Addr, reason: RefusalReason) {
        if reason == RefusalReason::NotPermitted {
            self.joined.remove(&group);
            self.refuse(group);
        } else if !std::mem::replace(&mut self.told.room, true) {
            let reason = reason.name();
            hint(format_args!(
                "{group}: the router has no room for it ({reason}); asking again"
            ));
        }
    }

    fn refuse(&mut self, group: Ipv6Addr) {
        if self.is_shell || !self.joined.is_empty() {
            hint(outside(group));
        }
        self.refused.get_or_insert((group, Instant::now()));
    }

    /// Follows the host's addresses, the kernel's drops, and the token's validity.
    async fn look(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let pause = now - std::mem::replace(&mut self.looked_at, now);
        let overruns = self.device.overruns()?;
        if std::mem::replace(&mut self.overruns, overruns) != overruns || pause >= SUSPENDED {
            self.listeners.query_again(now);
        }
        if let Err(e) = self.leaf.review_addresses().await {
            tracing::warn!("addresses of this host: {e:#}");
        }
        if self.common.token.invitation().grant().not_after <= UnixTime::now().as_secs() {
            return Err(refused(
                "the token has expired: ask for a new one (`lcroute invite --leaf`)",
            ));
        }
        if let Some((group, at)) = self.refused
            && at + LOOK_EVERY <= now
            && self.joined.is_empty()
            && !self.is_shell
        {
            return Err(refused(&outside(group)));
        }
        if let Some(group) = self.listeners.sent
            && !std::mem::replace(&mut self.told.sent, true)
        {
            hint(format_args!(
                "what the program sends, to {group} first, goes nowhere: by a leaf's token a guest only receives"
            ));
        }
        self.tell_state(now)
    }

    /// Tells the user that no link is up, and that one is up again. Who never had one is refused if
    /// all routers say so; a guest that has heard something waits for room.
    fn tell_state(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.leaf.node().links() > 0 {
            (self.alone_since, self.was_linked) = (None, true);
            let told = &mut self.told;
            if std::mem::take(&mut told.looking) | std::mem::take(&mut told.refusal) {
                hint("linked");
            }
            return Ok(());
        }
        if let Some(refusal) = self.leaf.node().refusal() {
            let message = no_link(refusal);
            if !self.was_linked {
                return Err(refused(message));
            }
            if !std::mem::replace(&mut self.told.refusal, true) {
                hint(format_args!("{message}; trying on"));
            }
            return Ok(());
        }
        let since = *self.alone_since.get_or_insert(now);
        if since + LOOKING > now || std::mem::replace(&mut self.told.looking, true) {
            return Ok(());
        }
        let servers = self.common.token.signal.join(", ");
        if self.leaf.has_server() {
            hint(format_args!(
                "looking for a router: {servers} answers, but no router of the network with room for a leaf is there; does one run, and do both clocks agree?"
            ));
        } else {
            hint(format_args!(
                "looking for a router: {servers} does not answer; does it run, and does this host reach it?"
            ));
        }
        Ok(())
    }
}

fn no_link(refusal: LinkRefusal) -> &'static str {
    match refusal {
        LinkRefusal::NoRoom => {
            "no router has room for another leaf: try later, or ask the network for more routers or a larger `[leaf] max`"
        }
        LinkRefusal::ClockDiffers => {
            "the clocks of this host and of the routers differ by more than a day: set this one right (`timedatectl`)"
        }
    }
}

fn outside(group: Ipv6Addr) -> String {
    format!("{group}: the token does not let a guest join it, or the network does not carry it")
}

fn refused(message: &str) -> anyhow::Error {
    ExitError::new(Exit::NotPermitted, message).into()
}

/// Returns a descriptor of the same file for waiting.
fn watched(file: &impl AsFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    watch(file.as_fd().try_clone_to_owned()?)
}

fn watch<T: AsRawFd>(file: T) -> std::io::Result<AsyncFd<T>> {
    // SAFETY: callers pass owners of a descriptor, which stays open until they are dropped
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?)
}

/// Passes on signals that somebody sent to this process; a terminal sends its own to the program.
fn forward(signals: &SignalFd, running: &Running) -> anyhow::Result<()> {
    while let Some(info) = signals.read_signal()? {
        let number = i32::try_from(info.ssi_signo)?;
        if info.ssi_code <= 0 {
            running.signal(Signal::try_from(number)?);
        }
    }
    Ok(())
}
