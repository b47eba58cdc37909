//! `lcroute run`: starts all parts, and stops them in the right order.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use lcroute_control::config::{Config, Topology, TunMode};
use lcroute_control::settings::{Common, Overrides};
use lcroute_control::system::SystemSignals;
use lcroute_control::{Access, keys_of, reach_of, sign_of, view_of};
use lcroute_engine::Ipv4Config;
use lcroute_engine::topology::TopologyConfig;
use lcroute_node::{Keep, Node, NodeConfig};
use lcroute_overlay::Sought;
use lcroute_signalling::IceServers;
use librecast::cert::Member;
use librecast::events;
use librecast::id::SecretKey;
use librecast::time::{UnixTime, WallClock};
use librecast_program::cli::{Exit, ExitError, is_journal};
use librecast_program::state_lock::StateLock;
use librecast_program::uplink::UplinkPage;
use librecast_program::{arguments, service};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::clock::{self, Waited};
use crate::commands::print_line;
use crate::control_server::ControlSocket;
use crate::control_thread::{ControlThread, Signalling, serve_metrics, settings};
use crate::inbox::{End, Inbox, Message};
use crate::inviter::Inviter;
use crate::keeper::{Keeper, Kept};
use crate::links::{self, Links, hello_epoch, seed};
use crate::packet_loop::{PacketLoop, Parts};
use crate::state::{Identity, StateDir};
use crate::uplink::Uplink;
use crate::waker::Waker;
use crate::{netlink, private, servers, tun, udp};

/// Capacity of the channel of sealed messages to the control thread.
const OUTBOX: usize = 1_024;
/// Length of lc0's queue in packets: the default of 500 loses bursts of joins.
const TX_QUEUE_LEN: u32 = 10_000;

/// Environment variable with lc0's descriptor for the next image of this process.
const DEVICE_FD: &str = "LCROUTE_DEVICE_FD";

/// Runs the daemon until it ends.
pub fn run(common: &Common, config: Config, overrides: Overrides) -> anyhow::Result<Exit> {
    let program = std::env::current_exe().context("own path")?;
    let config = overrides.apply(config);
    let state = StateDir::of(common, &config);
    // before the lock: a missing membership is an error
    let found = state.identity_now(UnixTime::now())?;
    let _lock = StateLock::take(state.path(), "lcroute")?;
    private::close(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // before anything that a signal would leave behind
    let mut signals = {
        let _context = runtime.enter();
        SystemSignals::new()?
    };
    let identity = match found {
        Ok(identity) => identity,
        Err(_) => match runtime.block_on(clock::wait(&state, &mut signals))? {
            Waited::Good(identity) => *identity,
            Waited::End(End::Exec) => return Err(exec(&program, None)),
            Waited::End(End::Stop | End::Expelled) => return Ok(Exit::Ok),
        },
    };
    if identity.member.leaf {
        let message = "this node is a leaf, which listens and does not route: `lcroute leaf GROUP`";
        return Err(ExitError::new(Exit::NotPermitted, message).into());
    }
    let (control, packet) = assemble(
        common, &config, overrides, &state, identity, signals, &runtime,
    )?;
    let (ended, on_end) = oneshot::channel();
    let control = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            runtime.block_on(control.run(on_end));
            // a pending name lookup must not delay the end
            runtime.shutdown_background();
        })?;
    announce_ready(&config, &packet);
    let result = PacketLoop::new(packet, Instant::now()).run();
    // the control thread may have panicked, and thus ended
    let end = result.as_ref().map_or(End::Stop, |(end, _)| *end);
    let _ = ended.send(end);
    let control_ended = control.join();
    let (end, device) = result?;
    if control_ended.is_err() {
        anyhow::bail!("the control thread panicked; see the log above");
    }
    match end {
        End::Stop => {
            service::stopping();
            device.close().context(config.tun.name.clone())?;
            // after `lcroute leave` programs use the LAN again
            if state.membership()?.is_none() {
                private::open(&config)?;
            }
            Ok(Exit::Ok)
        }
        End::Expelled => {
            service::stopping();
            device.close().context(config.tun.name.clone())?;
            // a membership left on disk is expelled at the next start as well
            if let Err(e) = state.forget_membership().and_then(|()| state.forget()) {
                tracing::warn!("{e:#}");
            }
            let message = "expelled from the network: the next start joins anew, by the token, as another member";
            Err(ExitError::new(Exit::NotPermitted, message).into())
        }
        End::Exec => {
            // the interface never loses its reader, so programs keep their joins
            let device = device.keep().context(config.tun.name)?;
            tracing::info!("executing {} anew", program.display());
            service::reloading();
            Err(exec(&program, Some(&device)))
        }
    }
}

/// Executes the next image, with lc0 if this one has it open.
fn exec(program: &Path, device: Option<&OwnedFd>) -> anyhow::Error {
    let mut command = std::process::Command::new(program);
    if let Some((name, given)) = arguments::given().split_first() {
        // `up` has already used the token, which must not appear again
        let given = given
            .iter()
            .filter(|argument| !arguments::is_secret(argument));
        command.arg0(name).args(given);
    }
    if let Some(device) = device {
        command.env(DEVICE_FD, device.as_raw_fd().to_string());
    }
    anyhow::Error::new(command.exec()).context(program.display().to_string())
}

/// Opens the socket; without a configured port on that of the last run, if it is free.
fn open_socket(port: u16, state: &StateDir) -> anyhow::Result<udp::Socket> {
    if port != 0 {
        return udp::Socket::open(port).with_context(|| format!("[ice] port = {port}"));
    }
    let last = state.port().and_then(|port| match udp::Socket::open(port) {
        Ok(socket) => Some(socket),
        Err(e) => {
            tracing::warn!(
                "UDP port {port} of the last run: {e}; texts of this node are good no more"
            );
            None
        }
    });
    let socket = last.map_or_else(|| udp::Socket::open(0), Ok)?;
    state.store_port(socket.port()?);
    Ok(socket)
}

/// Binds the daemon's sockets for programs of this host; only the control socket is required.
fn bind_sockets(
    control: &Path,
    config: &Config,
    state: &StateDir,
    key: &Arc<SecretKey>,
) -> anyhow::Result<Vec<ControlSocket>> {
    let inviter = config.web.invite.then(|| Inviter::new(config, state));
    let inviter = inviter.transpose()?.map(Arc::new);
    let bound = ControlSocket::bind(control, Access::Control)?.inviting(inviter.clone());
    // users of the control socket can also look there
    let view = ControlSocket::bind(&view_of(control), Access::View)
        .inspect_err(|e| tracing::warn!("nobody may look without the right to control: {e:#}"))
        .map(|view| view.inviting(inviter));
    let sign = ControlSocket::bind(&sign_of(control), Access::Streams)
        .inspect_err(|e| tracing::warn!("no streams: {e:#}"))
        .map(|sign| sign.signing(key.clone()));
    let keys = ControlSocket::bind(&keys_of(control), Access::Keys)
        .inspect_err(|e| tracing::warn!("no program gives keys of private prefixes: {e:#}"));
    let others = [view, sign, keys].into_iter().filter_map(Result::ok);
    Ok(std::iter::once(bound).chain(others).collect())
}

/// Returns the node's configuration, with its memory of earlier runs.
fn node_config(
    config: &Config,
    state: &StateDir,
    identity: &Identity,
    incarnation: u32,
    epoch: Instant,
) -> anyhow::Result<NodeConfig> {
    // its login may be unreadable: better known now
    servers::proxy(config).map_err(|e| ExitError::new(Exit::Usage, format!("{e:#}")))?;
    let network = identity.membership.network;
    let mut members = state.members();
    members.note(&identity.member, UnixTime::now());
    Ok(NodeConfig {
        network,
        key: identity.key.clone(),
        chain: identity.chain.clone(),
        member: identity.member.clone(),
        incarnation,
        mtu: config.tun.mtu,
        transits: true,
        ipv4: config.ipv4_network(&network).map(|network| Ipv4Config {
            network,
            kept: state.ipv4(),
            assigns: true,
        }),
        settings: settings(config, private::load_and_tell(&config.private)?.0),
        topology: topology(&config.topology),
        revocations: state.revocations(&network, UnixTime::now())?,
        epochs: state.epochs(&network, UnixTime::now())?,
        members,
        uses: state.uses(),
        clock: WallClock::new(UnixTime::now),
        epoch,
        aead: Some(private::aead),
        seed: seed()?,
        limits: lcroute_engine::Limits {
            leaves: config.leaf.max.into(),
            leaf_bits_per_second: u64::from(config.leaf.mbit.get()) * 1_000_000,
            ..Default::default()
        },
        overlay_limits: overlay_limits(config),
    })
}

fn assemble(
    common: &Common,
    config: &Config,
    overrides: Overrides,
    state: &StateDir,
    identity: Identity,
    signals: SystemSignals,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<(ControlThread, Parts)> {
    let now = Instant::now();
    let control = common.control(config);
    let beside = control.clone();
    // first, so that a second daemon stops at this point
    let sockets = bind_sockets(&control, config, state, &identity.key)?;
    let waker = Waker::new()?;
    let moved = Arc::new(Notify::new());
    let path_changed = Arc::new(Notify::new());
    let (inbox, messages, reloads) = Inbox::new(waker.clone());
    let (outbox, sealed) = mpsc::channel(OUTBOX);
    let ice = start_ice(&inbox, runtime);
    let socket = open_socket(config.ice.port, state)?;
    let links = Links::new(socket, ice.commands().clone())?;
    let (record, records) = watch::channel(None);
    let (seeking, sought) = watch::channel(Sought::default());
    let (keep, kept) = mpsc::unbounded_channel();
    let incarnation = state.next_incarnation()?;
    if !incarnation.is_stored {
        let used = Keep::Incarnation(incarnation.number);
        keep.send(Kept::Node(used))?;
    }
    let texts = state.texts();
    let epoch = hello_epoch();
    let node = node_config(config, state, &identity, incarnation.number, epoch)?;
    let revocations = node.revocations.clone();
    let ipv4 = node.ipv4.map(|ipv4| ipv4.network);
    let node = Node::new(node, links::webrtc(config, config.tun.mtu, epoch)?, now);
    let server = runtime.block_on(Signalling::bind(config))?;
    let mut metrics = None;
    serve_metrics(&mut metrics, config, &inbox)?;
    let control = ControlThread {
        metrics,
        inbox,
        reloads,
        sealed,
        record: records,
        seeking: sought,
        reach: reach_of(&control),
        port: links.port(),
        ice,
        moved: moved.clone(),
        path_changed: path_changed.clone(),
        sockets,
        signals,
        server,
        key: identity.key,
        network: identity.membership.network,
        token_servers: identity.membership.signal.clone(),
        keeper: Keeper::new(
            state.clone(),
            identity.membership,
            revocations,
            texts.clone(),
            kept,
        ),
        config: config.clone(),
        config_path: common.config_path().map(Path::to_owned),
        overrides,
        program: std::env::current_exe().context("own path")?,
    };
    // last: an earlier failure leaves no interface behind
    let monitor = netlink::Monitor::open().context("netlink")?;
    let ipv4 = ipv4.map(|network| tun::Ipv4Settings {
        network,
        address: node.engine().ipv4_address(),
    });
    let settings = tun_settings(config, &identity.member, ipv4);
    let device = open_device(&settings).map_err(ExitError::from)?;
    let parts = Parts {
        uplink: Uplink::new(UplinkPage::beside(&beside, device.index())),
        device,
        settings,
        links,
        monitor,
        node,
        inbox: messages,
        outbox,
        waker,
        moved,
        path_changed,
        keep,
        record,
        seeking,
        texts,
        max_leaves: config.leaf.max.into(),
        policy: config.topology.policy,
        interfaces: config.ice.interfaces.clone(),
        lans: config.lan.clone(),
    };
    Ok((control, parts))
}

/// Starts the task for STUN servers and relays, which tells the packet loop.
fn start_ice(inbox: &Inbox, runtime: &tokio::runtime::Runtime) -> IceServers {
    let _context = runtime.enter();
    let (ice, mut told) = IceServers::start();
    let inbox = inbox.clone();
    tokio::spawn(async move {
        while let Some(event) = told.recv().await {
            if !inbox.send(Message::Ice(event)).await {
                return;
            }
        }
    });
    ice
}

/// Returns limits with room for leaves beside the network's peers.
fn overlay_limits(config: &Config) -> lcroute_overlay::Limits {
    let limits = lcroute_overlay::Limits::default();
    let leaves = usize::from(config.leaf.max);
    lcroute_overlay::Limits {
        peers: limits.peers + leaves,
        leaves,
        ..limits
    }
}

/// Returns the device of the previous image of this process, or a new or adopted one.
fn open_device(settings: &tun::Settings) -> Result<tun::Device, tun::Error> {
    let fd = std::env::var(DEVICE_FD).ok().and_then(|fd| fd.parse().ok());
    match fd.and_then(|fd| tun::Device::inherit(fd, settings)) {
        // the configuration names another device: this one stays as a crash would leave it
        None | Some(Err(tun::Error::Inherited { .. })) => tun::Device::open(settings),
        Some(device) => device,
    }
}

fn topology(config: &Topology) -> TopologyConfig {
    TopologyConfig {
        policy: config.policy,
        degree: config.degree,
    }
}

fn tun_settings(
    config: &Config,
    member: &Member,
    ipv4: Option<tun::Ipv4Settings>,
) -> tun::Settings {
    let (routes, ipv4_routes) = tun::routes(&config.routes());
    let (closed, _) = tun::routes(&config.closed());
    tun::Settings {
        ipv4,
        name: config.tun.name.clone(),
        mode: match config.tun.mode {
            TunMode::Tun => tun::Mode::Tun,
            TunMode::Tap => tun::Mode::Tap,
        },
        mtu: config.tun.mtu,
        tx_queue_len: TX_QUEUE_LEN,
        address: member.addresses.address,
        link_local: member.addresses.link_local,
        routes,
        closed,
        offload: config.tun.offload,
        ipv4_routes,
    }
}

/// Reports to the journal or standard output, and to systemd, that programs can use lc0.
fn announce_ready(config: &Config, parts: &Parts) {
    let member = parts.node.member();
    if is_journal() {
        tracing::info!(
            target: events::TARGET,
            message_id = events::UP.id,
            lcroute_tun = config.tun.name.as_str(),
            lcroute_address = %member.addresses.address,
            lcroute_peer = %member.peer,
            "ready: {} has {}, peer id {}",
            config.tun.name,
            member.addresses.address,
            member.peer
        );
        return service::ready();
    }
    // the parent process may not read it
    let _ = print_line(format_args!(
        "ready: {} has {} ({})",
        config.tun.name, member.addresses.address, member.name
    ));
    service::ready();
}
