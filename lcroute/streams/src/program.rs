//! The background program: a service, or started by a verb until no program needs it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use lcroute_control::config::Config;
use lcroute_control::settings::Common;
use lcroute_control::status;
use lcroute_control::streams::{Access, Serve};
use lcroute_control::system::{SystemRequest, SystemSignals};
use lcroute_control::{Request, outside_of, sign_of};
use librecast::id::SecretKey;
use librecast::outside::{Plan, PortSecret};
use librecast::stream::socket_of;
use librecast_program::book::{Book, HOST_BOOK};
use librecast_program::cli::{Exit, ExitError, init_logging, to_join};
use librecast_program::{keyfile, metrics, service};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::SigSet;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

use crate::daemon::{AskError, Daemon};
use crate::host::{Host, Offer, Served};
use crate::identity::port_secret;
use crate::local;
use crate::network::{Network, Own};
use crate::outside::{Keys, Outside};
use crate::registry::Destination;

/// Interval between attempts to reach the daemon. Chosen: a restart takes some tenths of a second.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Time limit at the start for the daemon, its interface and the port.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Wait at the start after which it is logged.
const NOTICE_AFTER: Duration = Duration::from_secs(2);
/// Absence of the daemon after which a program that a verb started ends.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of looks at the host's address book: who is removed from it loses his streams.
const BOOK_INTERVAL: Duration = Duration::from_millis(500);
/// MTU of an interface without a readable one.
const DEFAULT_MTU: u16 = 1_280;

/// Runs until a signal, or, with `idle`, until no program of this host was connected for that time.
pub fn run(common: &Common, idle: Option<Duration>, own_key: bool) -> anyhow::Result<Exit> {
    let load_config = || match own_key {
        true => common.load_config_of_user(),
        false => common.load_config(),
    };
    let config = load_config()?;
    init_logging(common.log.as_deref().or(config.log.as_deref()), "info")?;
    let control = common.control_to_ask(&config);
    lcroute_control::system::room_for_clients();
    // a verb that starts this has blocked signals, to wait for its own
    SigSet::all().thread_unblock()?;
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build()?;
    runtime.block_on(async {
        let mut signals = SystemSignals::new()?;
        let control = match own_key {
            true => own_control(common, &config)?,
            false => control,
        };
        let daemon = Daemon::new(sign_of(&control));
        let socket = LocalSocket::open(&socket_of(&control))?;
        let (inside, keys) = match own_key {
            true => {
                // the key is in this process, as no daemon has it
                librecast_program::process::confine()?;
                let key = own_key_of(common, &config)?;
                (None, (key.peer_id(), Keys::Own(Arc::new(key))))
            }
            false => {
                let network = start(&daemon, idle.is_some()).await?;
                let peer = network.own().peer;
                (Some(network), (peer, Keys::Daemon(daemon.clone())))
            }
        };
        let port = port_secret(&keys.1)
            .inspect_err(|why| tracing::warn!("any UDP port for links outside: {why}"))
            .ok();
        let plan = outside_plan(&config, inside.as_deref(), port.clone());
        let starts = idle.is_some();
        let outside = Outside::new(keys.0, keys.1, outside_of(&control), plan, starts);
        let host = Host {
            abroad: Network::outside(&outside)?,
            inside,
            outside,
            hides: config.exposure().outside().is_err(),
        };
        let mut served = Offers::default();
        served.configure(&config, &host);
        let mut metrics = None;
        serve_metrics(&mut metrics, &config, &host)?;
        service::ready();
        if idle.is_some() {
            tell_starter()?;
        }
        let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
        let working = async {
            let inside = async {
                match &host.inside {
                    Some(network) => network.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::join!(
                inside,
                host.abroad.accept(),
                host.outside.serve(),
                local::serve(listener, host.clone())
            );
        };
        let registered = async {
            match &host.inside {
                Some(network) => stay_registered(&daemon, network, idle.is_some()).await,
                None => std::future::pending().await,
            }
        };
        // kept across turns: it measures time
        let unused = unused(&host, idle);
        tokio::pin!(unused);
        let mut book = interval(BOOK_INTERVAL);
        let mut book_seen = book_state();
        tokio::pin!(working, registered);
        let ended = loop {
            tokio::select! {
                () = &mut working => break Ok(Exit::Ok),
                failed = &mut registered => break Err(failed),
                () = &mut unused => break Ok(Exit::Ok),
                _ = book.tick() => {
                    // who was removed from the address book may not wait for a reload
                    let state = book_state();
                    if state != book_seen {
                        book_seen = state;
                        let again = served.config.clone();
                        served.configure(&again, &host);
                    }
                    // nobody reloads a program that a verb started
                    if own_key && let Ok(config) = load_config() && config != served.config {
                        let plan = outside_plan(&config, host.inside.as_deref(), port.clone());
                        host.outside.set_plan(plan);
                        served.configure(&config, &host);
                    }
                }
                request = signals.next() => match request {
                    SystemRequest::Stop | SystemRequest::Exec => break Ok(Exit::Ok),
                    SystemRequest::Reload => match load_config() {
                        Ok(config) => {
                            let inside = host.inside.as_deref();
                            let plan = outside_plan(&config, inside, port.clone());
                            host.outside.set_plan(plan);
                            served.configure(&config, &host);
                            if let Err(e) = serve_metrics(&mut metrics, &config, &host) {
                                tracing::error!("{e:#}");
                            }
                            service::ready();
                        }
                        Err(e) => tracing::error!("going on as before: {e:#}"),
                    },
                },
            }
        };
        service::stopping();
        // no further connections are accepted
        drop(socket);
        if let Some(network) = &host.inside {
            network.close().await;
        }
        host.abroad.close().await;
        ended
    })
}

fn serve_metrics(
    running: &mut Option<metrics::Server>,
    config: &Config,
    host: &Host,
) -> anyhow::Result<()> {
    let host = host.clone();
    let source = move || Ok(crate::metrics::page(&host.status()));
    let listen = config.streams.metrics.as_ref();
    metrics::Server::change(running, listen, "lcroute", source).with_context(|| {
        let shown = listen.map(ToString::to_string).unwrap_or_default();
        format!("[streams] metrics = {shown:?}")
    })
}

/// Reports readiness to the starting program, and then closes its output.
fn tell_starter() -> anyhow::Result<()> {
    let mut out = io::stdout();
    out.write_all(b"ready\n")?;
    out.flush()?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Opens the socket of streams, once the daemon, its interface and the port are available.
async fn start(daemon: &Daemon, is_started_by_verb: bool) -> anyhow::Result<Arc<Network>> {
    let until = Instant::now() + START_TIMEOUT;
    let mut notice = Some(Instant::now() + NOTICE_AFTER);
    loop {
        let failed = match own(daemon).await {
            Ok(own) => {
                let mtu = mtu_of(&own.interface);
                match Network::open_for(own, daemon.clone(), mtu) {
                    Ok(network) => return Ok(network),
                    Err(e) => e.context("UDP port of streams"),
                }
            }
            Err(AskError::NoDaemon(why)) if is_started_by_verb => {
                return Err(no_daemon(daemon, &why).into());
            }
            Err(AskError::NoDaemon(why) | AskError::Refused(why)) => no_daemon(daemon, &why).into(),
        };
        if Instant::now() >= until {
            return Err(failed);
        }
        if notice.is_some_and(|at| Instant::now() >= at) {
            notice = None;
            tracing::warn!(
                "waiting for {} s at most: {failed:#}",
                START_TIMEOUT.as_secs()
            );
        }
        sleep(RETRY_INTERVAL).await;
    }
}

fn no_daemon(daemon: &Daemon, why: &str) -> ExitError {
    match nix::unistd::access(daemon.path(), nix::unistd::AccessFlags::W_OK) {
        Err(nix::errno::Errno::EACCES) => {
            let message = format!(
                "{why}: this is for root and the service: systemctl enable --now lcroute-streams; after an upgrade systemctl restart lcroute gives it to the service"
            );
            ExitError::new(Exit::NotPermitted, message)
        }
        _ => {
            let message = format!("{why}: is `lcroute run` running, with this --control?");
            ExitError::new(Exit::Unreachable, message)
        }
    }
}

async fn own(daemon: &Daemon) -> Result<Own, AskError> {
    let status: status::Status = daemon.ask(&Request::Status).await?;
    Ok(Own {
        peer: status.peer_id,
        name: status.name,
        address: status.address,
        interface: status.tun,
    })
}

fn mtu_of(interface: &str) -> u16 {
    let path = Path::new("/sys/class/net").join(interface).join("mtu");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT_MTU)
}

/// Keeps this program registered with the daemon across restarts. Returns the reason for its end.
async fn stay_registered(
    daemon: &Daemon,
    network: &Network,
    is_started_by_verb: bool,
) -> anyhow::Error {
    let index = || nix::net::if_::if_nametoindex(network.own().interface.as_str()).ok();
    let (mut last_index, mut last_seen) = (index(), Instant::now());
    loop {
        if let Ok(mut connection) = daemon.register().await {
            match own(daemon).await {
                Ok(own) if own != *network.own() => {
                    return anyhow::anyhow!("this node is another one now: starting anew");
                }
                _ => {}
            }
            if last_index != index() {
                last_index = index();
                if let Err(e) = network.reopen() {
                    return anyhow::Error::new(e).context("UDP port of streams");
                }
            }
            // it sends nothing until it ends
            let _ = connection.read(&mut [0]).await;
            last_seen = Instant::now();
            tracing::info!("the daemon has gone; streams wait until it is back");
        }
        if is_started_by_verb && last_seen.elapsed() >= DAEMON_TIMEOUT {
            return anyhow::anyhow!("the daemon has gone");
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Waits until no program of this host was connected for `idle`; for ever without it.
async fn unused(host: &Host, idle: Option<Duration>) {
    let Some(idle) = idle else {
        return std::future::pending().await;
    };
    let mut clients = host.clients();
    loop {
        // the network holds the other end
        let _ = clients.wait_for(|count| *count == 0).await;
        tokio::select! {
            () = sleep(idle) => return,
            _ = clients.wait_for(|count| *count > 0) => {}
        }
    }
}

/// Returns the settings for keys outside of this host's networks.
fn outside_plan(config: &Config, inside: Option<&Network>, port: Option<PortSecret>) -> Plan {
    let outside = config.exposure().outside().cloned().unwrap_or_default();
    let lc0 = inside.map(|network| network.own().interface.clone());
    let mut exclude = vec![config.tun.name.clone()];
    exclude.extend(lc0.filter(|name| *name != config.tun.name));
    let without = config.exposure().without_servers_outside();
    if let Some(why) = without
        && config.serve.iter().any(|serve| serve.outside)
    {
        tracing::warn!("{why}");
    }
    Plan {
        exclude,
        meet: without.is_none().then_some(outside.meet),
        dht: outside.dht.then(|| config.signal.dht_entries().to_vec()),
        lan: config.exposure().lans().is_ok(),
        rate: u64::from(outside.mbit.get()) * 1_000_000,
        port,
        map_port: { config.exposure().router() }
            .is_ok()
            .then(|| config.ice.interfaces.clone()),
    }
}

/// Returns the place of the sockets of a user without a daemon: his state directory.
pub fn own_control(common: &Common, config: &Config) -> anyhow::Result<PathBuf> {
    let folder = common.state_dir(config);
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder);
    made.with_context(|| folder.display().to_string())?;
    Ok(folder.join("control.sock"))
}

/// Returns the key of a user without a daemon; makes one, and says so, if there is none.
fn own_key_of(common: &Common, config: &Config) -> anyhow::Result<SecretKey> {
    let path = common.state_dir(config).join("node.key");
    match path.symlink_metadata() {
        Ok(_) => Ok(keyfile::load_signing_key(&path)?),
        Err(_) => Ok(keyfile::make_secret_key(&path)?),
    }
}

/// Returns what changes with the host's address book.
fn book_state() -> Option<(std::time::SystemTime, u64)> {
    let meta = std::fs::metadata(HOST_BOOK).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// The services of the configuration.
#[derive(Debug, Default)]
struct Offers {
    config: Config,
    served: Vec<(Serve, Access, Served, watch::Sender<()>)>,
}

impl Offers {
    /// Applies a configuration; unchanged services keep their streams.
    fn configure(&mut self, config: &Config, host: &Host) {
        self.config = config.clone();
        let book = Book::of_host().unwrap_or_else(|e| {
            tracing::error!("without the address book: {e}");
            Book::default()
        });
        let names = book.contacts.iter();
        host.outside
            .set_names(names.map(|contact| (contact.key, contact.name.clone())));
        self.served
            .retain(|(serve, ..)| config.serve.contains(serve));
        for serve in &config.serve {
            if serve.anyone && !serve.outside {
                tracing::warn!("{}: anyone = true needs outside = true", serve.protocol);
            }
            let access = Access {
                all: serve.allow_all,
                nodes: serve.allow.clone(),
            };
            let (access, unknown) = access.resolved(&book);
            for name in unknown {
                tracing::warn!("{}: {HOST_BOOK} has no {name}", serve.protocol);
            }
            let places: Vec<_> = book.places(access.keys()).collect();
            let known = self.served.iter_mut().find(|(other, ..)| other == serve);
            if let Some((_, before, served, _)) = known {
                // the address book may have changed
                if *before != access {
                    served.amend(&access, &places);
                    *before = access;
                }
                continue;
            }
            let (alive, ended) = watch::channel(());
            let served = host.serve(&Offer {
                protocols: vec![serve.protocol.clone()],
                datagrams: false,
                access: access.clone(),
                places,
                outside: serve.outside && !host.hides,
                anyone: serve.anyone && serve.outside && !host.hides,
                destination: Destination::Server(serve.to.clone(), false),
                ended,
            });
            match served {
                Some(served) => self.served.push((serve.clone(), access, served, alive)),
                None => tracing::error!("{}: too many are served", serve.protocol),
            }
        }
    }
}

/// The socket for programs of this host; one bound here is removed at the end.
struct LocalSocket {
    listener: StdListener,
    bound: Option<PathBuf>,
}

impl LocalSocket {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let (listener, bound) = match service::listening_socket() {
            Some(inherited) => (StdListener::from(inherited), None),
            None => {
                let listener = bind(path).map_err(|e| not_bound(path, e))?;
                (listener, Some(path.to_owned()))
            }
        };
        listener.set_nonblocking(true)?;
        Ok(Self { listener, bound })
    }
}

fn bind(path: &Path) -> anyhow::Result<StdListener> {
    // many verbs may start one at once: the lock protects a socket that another has just bound
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let _lock = Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
    librecast::local::bind(path, "lcroute", true).map_err(|e| match e.kind() {
        io::ErrorKind::AddrInUse => anyhow::Error::msg("another program for streams answers there"),
        _ => e.into(),
    })
}

/// Returns the reason for which no program for streams can be started, with the remedy.
fn not_bound(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let shown = path.display();
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::PermissionDenied) => {
            let message = format!(
                "{shown}: {error}: root starts the program for streams: sudo systemctl enable --now lcroute-streams.socket; then {}",
                to_join("lcroute")
            );
            ExitError::new(Exit::NotPermitted, message).into()
        }
        Some(io::ErrorKind::NotFound) => {
            let message =
                format!("{shown}: {error}: is `lcroute run` running, with this --control?");
            ExitError::new(Exit::Unreachable, message).into()
        }
        _ => error.context(shown.to_string()),
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if let Some(path) = &self.bound {
            // the file may be removed already
            let _ = std::fs::remove_file(path);
        }
    }
}
