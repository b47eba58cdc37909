//! A guest: a program on an `lc0` of its own, without root and daemon.
//!
//! ```text
//!   program ── sockets ── lc0        in a user and network namespace of its own
//!                          │ TUN
//!                        guest ── links ── routers, members      on the host's network
//! ```
//! Where no namespace may be made, programs of ours have a socket pair in place of the TUN; lcgroup
//! always has, as it shares the pair among its programs.
//!
//! Files: `namespace` (the processes inside), `interface` (lc0), `readable` (waiting for descriptors). By a leaf's
//! token `listener`, with `lc0` (its listeners) and `leaf` (the node); by a member's token or a code
//! `member`, a whole node, with `mapped` (its port at the router) in a network of its own, and `group` in that of
//! a group. By a text `text_listener`, a leaf once `text` has found the network;
//! `helpers` decides which routers the caster of a station names.

pub mod group;
mod helpers;
mod interface;
mod lc0;
pub mod leaf;
mod listener;
mod mapped;
pub mod member;
mod namespace;
mod readable;
pub mod text;
pub mod text_listener;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lcroute_signalling::proxy::Proxy;
use librecast::cert::Token;
use librecast::id::{NodeAddresses, SecretKey};
use librecast_program::cli::{Exit, ExitError};
use librecast_program::guest;
use librecast_program::guest_state::STATE_FD;
use librecast_program::uplink::{Micros, UPLINK_FD, UplinkPage};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use tokio::io::unix::AsyncFd;

use self::interface::Interface;
use self::listener::Listener;
use self::member::{MemberShell, OfCode};
use self::namespace::Running;
use self::readable::{watch, watched};
use self::text_listener::{ListenerStart, TextListener};
use crate::tun::{Mode, Prefix, Settings};
use crate::uplink::Uplink;

/// Name of the interface.
const INTERFACE: &str = "lc0";
/// Packets queued for the guest. Chosen: as the daemon's, so that no report is lost.
const TX_QUEUE_LEN: u32 = 10_000;
/// Interval of looks at addresses, drops and the state.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time from one look to the next after which the process was suspended: joins may be lost.
const SUSPENDED: Duration = Duration::from_secs(3);
/// Packets of programs read in one turn. Chosen.
const READ_AT_ONCE: usize = 64;

/// Options of a guest.
#[derive(Debug)]
pub struct Options {
    /// What the guest is in the network.
    pub role: Role,
    /// The program.
    pub command: Command,
    /// Whether the program is a shell: refused groups do not end it.
    pub is_shell: bool,
    /// Name of the host's own lc0, which leads to no router.
    pub host_interface: String,
    /// The way of a leaf to signalling servers.
    pub proxy: Option<Proxy>,
    /// Groups that go to lc0 if a program names no interface.
    pub routes: Vec<Prefix>,
}

/// What a guest is in the network.
#[derive(Debug)]
pub enum Role {
    /// A leaf, by its token.
    Leaf(Box<Token>),
    /// A member.
    Member(Box<member::Start>),
    /// A leaf of the network that a text leads to, and what the program is told.
    Text(Box<ListenerStart>, Box<OfCode>),
}

/// Runs the program, and returns its exit code. Must be called while the process has one thread.
pub fn run(mut options: Options) -> anyhow::Result<u8> {
    let key = SecretKey::generate();
    let addresses = match &options.role {
        Role::Leaf(token) => NodeAddresses::derive(&token.network(), &key.peer_id()),
        Role::Member(start) => start.identity.member().addresses,
        // a leaf's address is seen by its own programs alone
        Role::Text(start, _) => NodeAddresses::derive(&start.text.meeting(), &key.peer_id()),
    };
    match options.role {
        Role::Leaf(_) | Role::Text(..) => options.command.env(guest::ROLE, guest::LEAF),
        Role::Member(_) => options.command.env(guest::ROLE, guest::MEMBER),
    };
    let told = match &options.role {
        Role::Leaf(_) => None,
        Role::Member(start) => start.code.as_ref(),
        Role::Text(_, told) => Some(&**told),
    };
    if let Some(code) = told {
        let fd = code.file.fd();
        inherit(fd)?;
        options.command.env(STATE_FD, fd.as_raw_fd().to_string());
    }
    let page = match &options.role {
        Role::Member(_) => Some(page(&mut options.command)?),
        Role::Leaf(_) | Role::Text(..) => None,
    };
    let mut theirs = None;
    if let Role::Member(start) = &mut options.role
        && let Some(owner) = start.owner.as_mut().filter(|owner| owner.dht.is_some())
    {
        let (ours, signer) = UnixDatagram::pair()?;
        inherit(signer.as_fd())?;
        let number = signer.as_raw_fd().to_string();
        options.command.env(guest::SIGN_FD, number);
        (owner.signer, theirs) = (Some(ours), Some(signer));
    }
    let settings = Settings {
        name: INTERFACE.to_owned(),
        mode: Mode::Tun,
        mtu: lc0::MTU,
        tx_queue_len: TX_QUEUE_LEN,
        address: addresses.address,
        link_local: addresses.link_local,
        routes: options.routes,
        closed: Vec::new(),
        offload: false,
        ipv4: None,
        ipv4_routes: Vec::new(),
    };
    let packets = match &mut options.role {
        Role::Member(start) => start.group.as_mut().and_then(|group| group.packets.take()),
        _ => None,
    };
    if let Some(packets) = &packets {
        inherit(packets.as_fd())?;
    }
    // before a program runs that may be ended; it starts with none blocked
    let signals = block_signals()?;
    let (device, running) = match packets.is_some() {
        true => start_with_pair(&mut options.command, &addresses)?,
        false => start(&settings, &mut options.command, &addresses)?,
    };
    let uplink = page.map(|mut page| {
        let index = page.set_interface(device.index());
        Uplink::new(index.map(|()| page))
    });
    drop((theirs, packets));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let signals = watch(signals)?;
        let node = match options.role {
            Role::Leaf(token) => {
                let ways = (&*options.host_interface, options.proxy);
                let listener = Listener::start(*token, key, ways, options.is_shell);
                GuestNode::Leaf(Box::new(listener.await?))
            }
            Role::Member(start) => GuestNode::Member(Box::new(MemberShell::start(*start).await?)),
            Role::Text(start, _) => {
                GuestNode::Text(Box::new(TextListener::start(*start, options.is_shell)))
            }
        };
        let mut guest = Guest {
            node,
            device,
            uplink,
            overruns: 0,
            looked_at: Instant::now(),
        };
        let result = guest.carry(&running, &signals).await;
        guest.close().await;
        result
    });
    namespace::end_all();
    runtime.shutdown_background();
    result
}

/// Starts the program in a namespace; where none may be made, a program of ours with a socket pair.
fn start(
    settings: &Settings,
    command: &mut Command,
    addresses: &NodeAddresses,
) -> anyhow::Result<(Interface, Running)> {
    let refused = match namespace::start(settings, command) {
        Ok((device, running)) => return Ok((Interface::Tun(Box::new(device)), running)),
        Err(e) if e.exit == Exit::NotPermitted => e,
        Err(e) => return Err(e.into()),
    };
    if !interface::is_own(command) {
        let message =
            format!("{refused} (lcsync, lcradio, lcstudio, lcgroup and lcagent need none)");
        return Err(ExitError::new(refused.exit, message).into());
    }
    tracing::info!("without a namespace of its own: {refused}");
    start_with_pair(command, addresses)
}

fn start_with_pair(
    command: &mut Command,
    addresses: &NodeAddresses,
) -> anyhow::Result<(Interface, Running)> {
    let (device, theirs) = interface::pair(command, addresses)?;
    inherit(theirs.as_fd())?;
    let running = namespace::start_here(command)?;
    Ok((device, running))
}

/// Makes the file in which the program reads how long its packets wait.
fn page(command: &mut Command) -> anyhow::Result<UplinkPage> {
    let page = UplinkPage::in_memory(0)?;
    inherit(page.fd())?;
    command.env(UPLINK_FD, page.fd().as_raw_fd().to_string());
    Ok(page)
}

/// Keeps a descriptor open in the program.
fn inherit(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// Takes the signals that are for the program.
fn block_signals() -> anyhow::Result<SignalFd> {
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
    Ok(SignalFd::with_flags(&set, flags)?)
}

/// The node outside.
#[derive(Debug)]
enum GuestNode {
    Leaf(Box<Listener>),
    Member(Box<MemberShell>),
    Text(Box<TextListener>),
}

impl GuestNode {
    fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        match self {
            Self::Leaf(leaf) => leaf.handle_packet(packet, now),
            Self::Member(member) => member.handle_packet(packet, now),
            Self::Text(leaf) => leaf.handle_packet(packet, now),
        }
    }

    fn flush(&mut self, device: &mut Interface) -> anyhow::Result<()> {
        match self {
            Self::Leaf(leaf) => leaf.flush(device),
            Self::Member(member) => {
                member.flush(device);
                Ok(())
            }
            Self::Text(leaf) => leaf.flush(device),
        }
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Leaf(leaf) => {
                leaf.wait().await;
                Ok(())
            }
            Self::Member(member) => member.wait().await,
            Self::Text(leaf) => leaf.wait().await,
        }
    }

    async fn look(&mut self, lost: bool) -> anyhow::Result<()> {
        match self {
            Self::Leaf(leaf) => leaf.look(lost).await,
            Self::Member(member) => member.look(lost),
            Self::Text(leaf) => leaf.look(lost).await,
        }
    }
}

/// The state of a guest.
#[derive(Debug)]
struct Guest {
    node: GuestNode,
    device: Interface,
    /// Where the program learns how long its packets wait; a leaf sends none.
    uplink: Option<Uplink>,
    /// Packets that the kernel could not pass to this process.
    overruns: u64,
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
            self.node.flush(&mut self.device)?;
            if let (GuestNode::Member(member), Some(uplink)) = (&mut self.node, &mut self.uplink) {
                uplink.tell(member.connections_mut(), Instant::now());
            }
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
                _ = look.tick() => self.look().await?,
                result = self.node.wait() => result?,
            }
        }
    }

    /// Reads packets of programs; returns false once there are none.
    fn read(&mut self) -> anyhow::Result<bool> {
        let (node, now) = (&mut self.node, Instant::now());
        for _ in 0..READ_AT_ONCE {
            let read = self
                .device
                .read(&mut |packet| node.handle_packet(packet, now));
            if !read? {
                if let Some(uplink) = &mut self.uplink {
                    uplink.counted(Micros::now());
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notices lost joins, and has the node look around.
    async fn look(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let pause = now - std::mem::replace(&mut self.looked_at, now);
        let overruns = self.device.overruns()?;
        let more = std::mem::replace(&mut self.overruns, overruns) != overruns;
        self.node.look(more || pause >= SUSPENDED).await
    }

    async fn close(self) {
        let Self {
            node, mut device, ..
        } = self;
        if device.lost() > 0 {
            tracing::info!(
                count = device.lost(),
                "packets that the program was too slow for"
            );
        }
        match node {
            GuestNode::Leaf(mut leaf) => leaf.close(),
            GuestNode::Member(member) => member.close(&mut device).await,
            GuestNode::Text(mut leaf) => leaf.close(),
        }
    }
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
