//! The control thread, for work that may block: names, WebSockets, control socket, signals.
//!
//! One thread with tokio, which the [`Inbox`] and a channel back connect to the packet loop.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use lcroute_control::REACH_GROUP;
use lcroute_control::config::{Config, Reread, Written};
use lcroute_control::settings::Overrides;
use lcroute_control::streams::{Who, resolved};
use lcroute_control::system::{SystemRequest, SystemSignals, room_for_clients};
use lcroute_mapping::PortMapping;
use lcroute_node::{PrivateKeys, Settings};
use lcroute_overlay::{CarrierId, Disclosure, Presence, Published, Sought, Trusted};
use lcroute_signalling::proxy::Proxy;
use lcroute_signalling::{
    CarrierEvent, Carriers, IcePlan, IceServers, PathChange, ReachProgram, ReachSocket, server,
};
use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast_program::book::{Book, HOST_BOOK};
use librecast_program::metrics;
use librecast_program::service;
use nix::unistd::{AccessFlags, access};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::control_server::{ControlSocket, bind};
use crate::inbox::{End, Inbox, Message, Reconfigure, Reload};
use crate::keeper::Keeper;
use crate::netlink;
use crate::port_mapping;
use crate::private;
use crate::relays::{self, NO_RELAY};
use crate::servers::{account, proxy, served_relay, servers};
use crate::udp;

/// The parts of the control thread.
#[derive(Debug)]
pub struct ControlThread {
    /// Messages to the packet loop.
    pub inbox: Inbox,
    /// Requests to reload.
    pub reloads: mpsc::Receiver<Reload>,
    /// Sealed messages for peers.
    pub sealed: mpsc::Receiver<(PeerId, Bytes)>,
    /// This node's presence record.
    pub record: watch::Receiver<Option<Published>>,
    /// Peers that this node looks for.
    pub seeking: watch::Receiver<Sought>,
    /// Socket for the program for a DHT and a room, if either is used.
    pub reach: PathBuf,
    /// The UDP port of all links.
    pub port: u16,
    /// STUN servers and relays.
    pub ice: IceServers,
    /// Notified when addresses of this host have changed.
    pub moved: Arc<Notify>,
    /// Notified when signalling servers may have become reachable or unreachable.
    pub path_changed: Arc<Notify>,
    /// The metrics server, if configured.
    pub metrics: Option<metrics::Server>,
    /// The daemon's sockets for programs of this host.
    pub sockets: Vec<ControlSocket>,
    /// Signals of the system.
    pub signals: SystemSignals,
    /// The signalling server inside this daemon.
    pub server: Signalling,
    /// This node's key, which authenticates it to servers.
    pub key: Arc<SecretKey>,
    /// Our network.
    pub network: NetworkId,
    /// The writer of the state directory.
    pub keeper: Keeper,
    /// Signalling servers of the membership.
    pub token_servers: Vec<String>,
    /// The present configuration.
    pub config: Config,
    /// Path from which it is read again.
    pub config_path: Option<PathBuf>,
    /// Flags that override it.
    pub overrides: Overrides,
    /// The binary, for its next execution.
    pub program: PathBuf,
}

impl ControlThread {
    /// Works until the packet loop has ended.
    pub async fn run(mut self, mut ended: oneshot::Receiver<End>) {
        let sockets = self.serve_sockets();
        self.server.start();
        let (events, mut carrier_events) = mpsc::channel(256);
        let mut running = self.start(events).await;
        let end = loop {
            tokio::select! {
                end = &mut ended => break end.unwrap_or(End::Stop),
                request = self.signals.next() => match request {
                    SystemRequest::Stop => {
                        self.inbox.send(Message::Stop(End::Stop)).await;
                    }
                    SystemRequest::Exec => match self.may_exec() {
                        Ok(_) => { self.inbox.send(Message::Stop(End::Exec)).await; }
                        Err(e) => tracing::error!("going on as before: {e}"),
                    },
                    SystemRequest::Reload => { self.reload(&mut running).await.ok(); }
                },
                Some(request) = self.reloads.recv() => {
                    let result = match request.exec {
                        // the control socket continues after its answer
                        true => self.may_exec(),
                        false => self.reload(&mut running).await,
                    };
                    // the asker may have closed its connection
                    let _ = request.done.send(result);
                }
                () = self.moved.notified() => {
                    running.carriers.path_changed(PathChange::Addresses);
                    running.ports.moved();
                    let carriers = &mut running.carriers;
                    set_slow_carriers(carriers, self.port, &self.config, &self.inbox).await;
                }
                Ok(()) = self.record.changed() => {
                    let record = self.record.borrow_and_update().clone();
                    record.into_iter().for_each(|record| running.carriers.publish(record));
                }
                Ok(()) = self.seeking.changed() => {
                    running.carriers.seek(self.seeking.borrow_and_update().clone());
                }
                () = self.path_changed.notified() => {
                    running.carriers.path_changed(PathChange::Links);
                }
                Some((to, bytes)) = self.sealed.recv() => running.carriers.send(to, &bytes),
                true = self.keeper.next() => {
                    self.keeper.write();
                    // this node may have renewed certificates
                    self.set_servers(&mut running.carriers);
                }
                Some(event) = carrier_events.recv() => match event {
                    CarrierEvent::Doors => {
                        self.inbox.send(doors(&running.carriers)).await;
                    }
                    CarrierEvent::Relay(url, credentials) => self.ice.offered(url, credentials),
                    event => { self.inbox.send(Message::Carrier(event)).await; }
                },
                status = running.ports.changed() => {
                    let status = port_mapping::shown(&status);
                    self.inbox.send(Message::Mapping(status)).await;
                }
            }
        };
        // the last outputs of the loop
        self.keeper.write();
        running.end(end, self.config_path.as_deref()).await;
        for socket in sockets {
            socket.abort();
            // dropping the task removes the socket's file
            let _ = socket.await;
        }
    }

    /// Serves the daemon's sockets, each in a task.
    fn serve_sockets(&mut self) -> Vec<JoinHandle<()>> {
        let sockets = std::mem::take(&mut self.sockets).into_iter();
        let serve = |socket: ControlSocket| {
            let inbox = self.inbox.clone();
            tokio::spawn(async move {
                if let Err(e) = socket.serve(inbox).await {
                    tracing::error!("control socket: {e}");
                }
            })
        };
        sockets.map(serve).collect()
    }

    /// Starts carriers and the port mapping.
    async fn start(&self, events: mpsc::Sender<CarrierEvent>) -> Running {
        let mut running = Running {
            carriers: Carriers::new(self.key.clone(), self.network, events),
            ports: port_mapping::start(self.port, &self.key, &self.config),
            first: self.config.written.clone(),
        };
        self.apply(&mut running).await;
        running
    }

    /// Applies the configuration to running parts.
    async fn apply(&self, running: &mut Running) {
        let carriers = &mut running.carriers;
        self.set_servers(carriers);
        let said_by = (&self.config, self.token_servers.as_slice());
        set_reach(carriers, &self.reach, said_by, &self.inbox).await;
        set_slow_carriers(carriers, self.port, &self.config, &self.inbox).await;
        let servers = servers(&self.config, &self.token_servers);
        let hides = self.config.exposure().hides();
        self.ice.set(IcePlan {
            lack: hides.then_some(NO_RELAY),
            ..relays::plan(&self.config, servers, said_proxy(&self.config))
        });
    }

    /// Reads the configuration again; returns what has changed.
    async fn reload(&mut self, running: &mut Running) -> Result<Reread, String> {
        service::reloading();
        let before = self.config.written.clone();
        let result = reread(
            &mut self.config,
            self.config_path.as_deref(),
            &self.overrides,
            &mut self.server,
        );
        let result = match result.await {
            Err(e) => {
                tracing::error!("configuration kept as it was: {e}");
                Err(e)
            }
            Ok((private, closed)) => {
                self.apply(running).await;
                if let Err(e) = serve_metrics(&mut self.metrics, &self.config, &self.inbox) {
                    tracing::error!("{e:#}");
                }
                running
                    .ports
                    .configure(port_mapping::settings(&self.config));
                let changed = Message::Reconfigure(Box::new(reconfigure(&self.config, private)));
                self.inbox.send(changed).await;
                let mut told = self.config.written.reread(&before, &running.first);
                told.withhold("[[private]]", closed);
                tracing::info!("{told}");
                Ok(told)
            }
        };
        service::ready();
        result
    }

    fn set_servers(&self, carriers: &mut Carriers) {
        set_servers(carriers, &self.keeper, &self.config, &self.token_servers);
    }

    /// Whether the next image would start; otherwise this one must not end.
    fn may_exec(&self) -> Result<Reread, String> {
        let held = Held {
            port: self.port,
            signal: self.config.signal.listen.filter(|_| self.server.is_bound()),
            metrics: self.metrics.as_ref().map(|server| server.listen().clone()),
        };
        let check = || -> anyhow::Result<()> {
            let next = self
                .overrides
                .apply(Config::load(self.config_path.as_deref())?);
            private::load(&next.private.prefixes)?;
            private::load_segments(&next.private.segments)?;
            proxy(&next)?;
            access(&self.program, AccessFlags::X_OK)
                .with_context(|| self.program.display().to_string())?;
            held.leaves_free(&next)
        };
        check()
            .map(|()| Reread::default())
            .map_err(|e| format!("{e:#}"))
    }
}

/// Parts that follow the configuration.
struct Running {
    carriers: Carriers,
    ports: PortMapping,
    /// The keys that the file set at the start.
    first: Written,
}

impl Running {
    /// Ends all parts. The next image has the same port; without a router it cannot end the
    /// mapping.
    async fn end(self, end: End, config_path: Option<&Path>) {
        let next = (end == End::Exec).then(|| Config::load(config_path).ok());
        let keeps = next
            .flatten()
            .is_some_and(|next| next.exposure().router().is_ok());
        let ports = self.ports;
        let give_back = async {
            if !keeps {
                ports.end().await;
            }
        };
        tokio::join!(self.carriers.end(), give_back);
    }
}

fn set_servers(carriers: &mut Carriers, keeper: &Keeper, config: &Config, token: &[String]) {
    // an unreadable chain proves nothing
    let chain = config.relay.ask.then(|| keeper.chain().ok());
    carriers.set_chain(chain.flatten());
    carriers.set_servers(&servers(config, token), said_proxy(config));
}

/// Returns the proxy; none with a warning if its login cannot be read any more.
fn said_proxy(config: &Config) -> Option<Proxy> {
    proxy(config).unwrap_or_else(|e| {
        tracing::warn!("{e:#}");
        None
    })
}

/// Sets the DHT and the room, if configured.
async fn set_reach(
    carriers: &mut Carriers,
    path: &Path,
    (config, token): (&Config, &[String]),
    inbox: &Inbox,
) {
    // requests to them reveal this host's addresses, to members as well
    let bootstrap = config.exposure().dht().ok();
    let account = account(config, token).unwrap_or_else(|e| {
        tracing::error!("without a Matrix room: {e:#}");
        None
    });
    let open = || -> anyhow::Result<ReachProgram> {
        Ok(ReachProgram::Service(ReachSocket {
            listener: bind(path, REACH_GROUP, true)?,
            path: path.to_owned(),
        }))
    };
    match carriers.set_reach(bootstrap, account.as_ref(), open) {
        Ok(gone) => {
            for carrier in gone {
                inbox.send(down(carrier)).await;
            }
        }
        Err(e) => tracing::error!("without DHT and Matrix room: {e:#}"),
    }
}

/// Sets the carriers of presence records, by the configuration and the present LANs.
async fn set_slow_carriers(carriers: &mut Carriers, port: u16, config: &Config, inbox: &Inbox) {
    let (exposure, tun) = (config.exposure(), &config.tun.name);
    let only = &config.ice.interfaces;
    let only = (!only.is_empty()).then_some(only.as_slice());
    // records on them reveal this host's addresses to all members
    let lans = exposure.lans().ok().map(|()| {
        let found = netlink::lan_interfaces(&[tun], only);
        found.unwrap_or_else(|e| {
            tracing::warn!("interfaces of this host: {e}");
            BTreeSet::new()
        })
    });
    let gone = [
        carriers.set_lan(lans, port),
        carriers.set_spool(exposure.spool().ok()),
    ];
    inbox.send(doors(carriers)).await;
    for carrier in gone.into_iter().flatten() {
        inbox.send(down(carrier)).await;
    }
}

/// Starts, moves or stops the metrics server, by the configuration.
pub fn serve_metrics(
    running: &mut Option<metrics::Server>,
    config: &Config,
    inbox: &Inbox,
) -> anyhow::Result<()> {
    let inbox = inbox.clone();
    let source = move || {
        let seen = inbox.observe().ok_or(metrics::Unavailable)?;
        Ok(crate::metrics::page(&seen))
    };
    let listen = config.metrics.listen.as_ref();
    metrics::Server::change(running, listen, "lcroute", source).with_context(|| {
        let shown = listen.map(ToString::to_string).unwrap_or_default();
        format!("[metrics] listen = {shown:?}")
    })
}

fn down(carrier: CarrierId) -> Message {
    Message::Carrier(CarrierEvent::Presence(carrier, Presence::CarrierDown))
}

fn doors(carriers: &Carriers) -> Message {
    Message::Doors(carriers.doors(), carriers.outer_address())
}

/// Reads the configuration again; on an error nothing changes.
async fn reread(
    config: &mut Config,
    path: Option<&Path>,
    overrides: &Overrides,
    server: &mut Signalling,
) -> Result<(PrivateKeys, Vec<String>), String> {
    let new = overrides.apply(Config::load(path).map_err(|e| e.to_string())?);
    let private = private::load_and_tell(&new.private).map_err(|e| e.to_string())?;
    proxy(&new).map_err(|e| format!("{e:#}"))?;
    if new.signal.listen != config.signal.listen {
        server
            .change(&new, config)
            .await
            .map_err(|e| format!("{e:#}"))?;
    }
    *config = new;
    Ok(private)
}

/// The signalling server inside this daemon, if `[signal] listen` is set.
#[derive(Debug, Default)]
pub struct Signalling {
    bound: Option<server::Server>,
    running: Option<JoinHandle<()>>,
}

impl Signalling {
    /// Binds its port.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let Some(listen) = config.signal.listen else {
            return Ok(Self::default());
        };
        let bound = server::Server::bind(listen, None).await.with_context(|| {
            let other = "if lcroute-signal.service runs here, have servers = [\"ws://[::1]:7117\"] in its place";
            format!("[signal] listen = \"{listen}\" ({other})")
        })?;
        let bound = bound
            .with_max_clients(room_for_clients())
            .with_per_address(config.signal.per_address(None))
            .with_relay(served_relay(&config.relay));
        Ok(Self {
            bound: Some(bound),
            running: None,
        })
    }

    /// Whether it has its port.
    fn is_bound(&self) -> bool {
        self.bound.is_some() || self.running.is_some()
    }

    fn start(&mut self) {
        if let Some(server) = self.bound.take() {
            self.running = Some(tokio::spawn(server.run(std::future::pending())));
        }
    }

    /// Moves or stops the server; if the new address is taken, it stays as it was.
    async fn change(&mut self, new: &Config, old: &Config) -> anyhow::Result<()> {
        // the new address may be the old one in another family
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        let result = match Self::bind(new).await {
            Ok(bound) => {
                *self = bound;
                Ok(())
            }
            Err(e) => {
                *self = Self::bind(old).await?;
                Err(e)
            }
        };
        self.start();
        result
    }
}

/// The ports of this process, which are free for its next image.
#[derive(Debug, Default)]
struct Held {
    /// The UDP port of all links.
    port: u16,
    /// The address of the signalling server.
    signal: Option<SocketAddr>,
    /// The address of the metrics.
    metrics: Option<metrics::Listen>,
}

impl Held {
    /// Returns an error if another program has a port that the next image needs.
    fn leaves_free(&self, next: &Config) -> anyhow::Result<()> {
        let port = next.ice.port;
        if port != 0 && port != self.port {
            udp::Socket::open(port).with_context(|| format!("[ice] port = {port}"))?;
        }
        // the new address may be the old one in another family
        let own = self.signal.map(|own| own.port());
        if let Some(listen) = next.signal.listen.filter(|new| own != Some(new.port())) {
            let tcp = TcpListener::bind(listen);
            let udp = tcp.and_then(|tcp| UdpSocket::bind(tcp.local_addr()?));
            udp.with_context(|| format!("[signal] listen = \"{listen}\""))?;
        }
        if let Some(metrics::Listen::Tcp(listen)) = &next.metrics.listen
            && !matches!(&self.metrics, Some(metrics::Listen::Tcp(own)) if own.port() == listen.port())
        {
            TcpListener::bind(listen)
                .with_context(|| format!("[metrics] listen = \"{listen}\""))?;
        }
        Ok(())
    }
}

/// Returns the node's settings.
pub fn settings(config: &Config, private: PrivateKeys) -> Settings {
    Settings {
        link_scope_groups: config.network.link_scope_groups(),
        announce: config.network.announce.clone(),
        watch: config.network.watch.clone(),
        unicast: config.network.unicast(),
        private,
        report: config.web.report,
        carry: config.network.carry(),
        disclosure: disclosure(config),
    }
}

/// Returns the members to which this host discloses its addresses.
fn disclosure(config: &Config) -> Disclosure {
    let exposure = config.exposure();
    if !exposure.hides() {
        return Disclosure::Everybody;
    }
    let overruled = exposure.overruled();
    if !overruled.is_empty() {
        let keys = overruled.join(", ");
        tracing::info!(
            "[ice] policy = \"relay\": not used, as others would learn of this host: {keys}"
        );
    }
    let book = Book::load(Path::new(HOST_BOOK)).unwrap_or_else(|e| {
        tracing::error!("without the address book: {e}");
        Book::default()
    });
    let (nodes, unknown) = resolved(exposure.disclosed().to_vec(), &book);
    for name in unknown {
        tracing::warn!(
            "[ice] disclose: `book:{name}` is nobody: {HOST_BOOK} has no such name or purpose"
        );
    }
    let trusted = nodes.into_iter().filter_map(|who| match who {
        Who::Peer(peer) => Some(Trusted::Node(peer)),
        Who::Label(key, value) => Some(Trusted::Label(key, value)),
        Who::Name(_) | Who::Book(_) => None,
    });
    Disclosure::Only(trusted.collect())
}

fn reconfigure(config: &Config, private: PrivateKeys) -> Reconfigure {
    Reconfigure {
        routes: config.routes(),
        closed: config.closed(),
        interfaces: config.ice.interfaces.clone(),
        lans: config.lan.clone(),
        node: settings(config, private),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_another_program_keeps_this_image_and_its_own_ports_do_not() {
        let taken = udp::Socket::open(0).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        let (mut links, mut signal, mut pages) =
            (Config::default(), Config::default(), Config::default());
        links.ice.port = taken.port().unwrap();
        signal.signal.listen = Some(at);
        pages.metrics.listen = Some(metrics::Listen::Tcp(at));
        let other = Held::default();
        assert!(other.leaves_free(&Config::default()).is_ok());
        for (next, key) in [
            (&links, "[ice] port"),
            (&signal, "[signal] listen"),
            (&pages, "[metrics] listen"),
        ] {
            let refused = format!("{:#}", other.leaves_free(next).unwrap_err());
            assert!(refused.contains(key), "{refused}");
        }
        let own = Held {
            port: links.ice.port,
            signal: Some(at),
            metrics: Some(metrics::Listen::Tcp(at)),
        };
        for next in [&links, &signal, &pages] {
            assert!(own.leaves_free(next).is_ok());
        }
    }
}
