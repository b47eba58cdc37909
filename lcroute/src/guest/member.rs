//! A guest that is a member: a whole node, in memory, between its lc0 and the host's network.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use lcroute_control::config::Config;
use lcroute_engine::CarrySettings;
use lcroute_engine::topology::TopologyConfig;
use lcroute_mapping::Status;
use lcroute_node::{Epochs, LC0, Members, Node, NodeConfig, Output, Revocations, Settings, Uses};
use lcroute_overlay::{CarrierId, Connections, Disclosure};
use lcroute_signalling::{CarrierEvent, Carriers, IceEvent, IceServers, PathChange};
use lcroute_webrtc::WebRtc;
use librecast::cert::{CertError, Chain, GroupPrefix, Member, Token};
use librecast::channel::SharePrefix;
use librecast::id::{NetworkId, PeerId, SecretKey};
use librecast::reach::Room;
use librecast::time::{UnixTime, WallClock};
use librecast_program::cli::{Exit, ExitError, MDNS_RULE};
use librecast_program::guest_state::{GuestState, HelperState, StateFile};
use librecast_program::helper::is_helper;
use librecast_program::state_lock::StateLock;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use super::group::{self, Group};
use super::helpers::{Decision, Helpers, Standing};
use super::interface::Interface;
use super::lc0::MTU;
use super::leaf::LOOKING;
use super::mapped::{self, Hints, Mapped};
use super::readable::watched;
use super::text::{Owner, OwnerStart, Places, port_of};
use crate::commands::hint;
use crate::drops::{DropReason, Drops};
use crate::links::{self, Links, UDP_CALLS, handle_carrier, hello_epoch, seed};
use crate::netlink;
use crate::port_mapping;
use crate::relays;
use crate::servers::{proxy, servers};
use crate::state::StateDir;
use crate::udp;

/// Capacity of the channel between node and carriers, in messages. Chosen.
const MESSAGES: usize = 256;
/// Name of the share of `lcsync send`.
const SENT_FILES: &str = "files";
/// Bound of packets to leaves in bits per second, where there is no member to wait behind them: what
/// a fast Ethernet carries several times over. Queues in the paths lower it.
const PUBLIC_RATE: u64 = 1_000_000_000;

/// Who the guest is.
#[derive(Debug)]
pub struct Identity {
    key: Arc<SecretKey>,
    chain: Chain,
    member: Member,
    incarnation: u32,
    /// Keeps other processes from the same key.
    _lock: Option<StateLock>,
}

impl Identity {
    /// Returns the identity of a guest by this token: that of `state`, else one of the run.
    pub fn new(token: &Token, name: &str, state: Option<PathBuf>) -> anyhow::Result<Self> {
        let now = UnixTime::now();
        let not_accepted = |e: &dyn std::fmt::Display| {
            let message = format!("the token is not accepted: {e}");
            ExitError::new(Exit::NotPermitted, message)
        };
        let (key, chain, incarnation, lock) = match state {
            Some(folder) => {
                let state = StateDir::new(folder);
                let key = state.node_key_or_new()?;
                let lock = StateLock::take(state.path(), "lcroute guest")?;
                let chain = token.join(key.peer_id(), name, now);
                let incarnation = state.next_incarnation()?.number;
                (key, chain, incarnation, Some(lock))
            }
            None => {
                let key = SecretKey::generate();
                let chain = token.join_ephemeral(key.peer_id(), name, now);
                (key, chain, 1, None)
            }
        };
        let chain = chain.map_err(|e| not_accepted(&e))?;
        let member = chain.verify(&token.network(), now);
        Ok(Self {
            member: member.map_err(|e| not_accepted(&e))?,
            key: Arc::new(key),
            chain,
            incarnation,
            _lock: lock,
        })
    }

    /// Returns the identity of a node with this state.
    pub fn of_state(
        key: SecretKey,
        (network, chain): (&NetworkId, Chain),
        incarnation: u32,
        lock: StateLock,
    ) -> Result<Self, CertError> {
        Ok(Self {
            member: chain.verify(network, UnixTime::now())?,
            key: Arc::new(key),
            chain,
            incarnation,
            _lock: Some(lock),
        })
    }

    /// Returns the guest as a member.
    pub fn member(&self) -> &Member {
        &self.member
    }
}

/// Most members that are told apart. Chosen: as many as a network has.
const MAX_SEEN: usize = 4_096;

/// What a guest by a code knows of it.
#[derive(Debug)]
pub struct OfCode {
    /// What the program inside is told.
    pub state: GuestState,
    /// Where it is told.
    pub file: StateFile,
}

/// Parts of the start.
#[derive(Debug)]
pub struct Start {
    /// The network.
    pub network: NetworkId,
    /// Its signalling servers.
    pub signal: Vec<String>,
    /// Its rendezvous epochs.
    pub epochs: Epochs,
    /// The guest's identity.
    pub identity: Identity,
    /// The code, if the network is one of a code.
    pub code: Option<OfCode>,
    /// The text that leads to the network, if this is its owner's.
    pub owner: Option<OwnerStart>,
    /// The group, if the network is one of a group.
    pub group: Option<group::Start>,
    /// The router that may be asked to map the port, if others have to reach it.
    pub mapping: Option<lcroute_mapping::Settings>,
    /// The user's configuration.
    pub config: Config,
}

/// Returns the rendezvous epochs that a token names.
pub fn epochs_of(token: &Token) -> Epochs {
    let mut epochs = Epochs::new(token.network());
    if let Some((number, secret)) = &token.epoch {
        epochs.set_of_token(*number, secret.clone());
    }
    epochs
}

/// The node with its sockets and carriers.
#[derive(Debug)]
pub struct MemberShell {
    node: Node<WebRtc>,
    links: Links,
    readable: AsyncFd<OwnedFd>,
    /// Packets for lc0.
    drops: Drops,
    carriers: Carriers,
    carrier_events: mpsc::Receiver<CarrierEvent>,
    /// STUN servers and relays, and news about them.
    ice: IceServers,
    ice_events: mpsc::Receiver<IceEvent>,
    /// Whether nodes are looked for on LANs.
    on_lans: bool,
    servers: Vec<String>,
    host_interface: String,
    code: Option<OfCode>,
    owner: Option<Owner>,
    /// Helpers of the owner's station.
    helpers: Helpers,
    /// Place of this host among its helpers.
    standing: Standing,
    group: Option<Group>,
    mapped: Option<Mapped>,
    /// Other members that are or were here.
    seen: BTreeSet<PeerId>,
    /// Members present and left that the program inside knows.
    told: (usize, usize, Option<HelperState>),
    /// Since when no link is up.
    alone_since: Option<Instant>,
    told_looking: bool,
}

impl MemberShell {
    /// Starts the node; to be called within a tokio runtime.
    pub async fn start(start: Start) -> anyhow::Result<Self> {
        let Start {
            network,
            signal,
            epochs,
            identity,
            code,
            mut owner,
            mut group,
            mapping,
            config,
        } = start;
        let now = Instant::now();
        // the configured port is the daemon's
        let port = match &group {
            Some(group) => group.port(),
            None => match &owner {
                Some(owner) => owner.port(),
                None => helper_port(identity.member()),
            },
        };
        let socket = udp::Socket::open(port);
        // another start of the same text may have its port
        let socket = socket.or_else(|_| udp::Socket::open(0));
        let socket = socket.context("UDP socket of links")?;
        let port = socket.port()?;
        let readable = watched(&socket)?;
        let (chain, key) = (identity.chain.clone(), identity.key.clone());
        let node_key = key.clone();
        let founds = code.as_ref().is_some_and(|code| code.state.founds) && owner.is_none();
        let is_public = code.as_ref().is_some_and(|code| code.state.code.is_empty());
        let kept = group.as_mut().map(|group| {
            group.state.store_port(port);
            (
                group.revocations.clone(),
                std::mem::take(&mut group.members),
            )
        });
        let mut kept: (Revocations, Members) = kept.unwrap_or_default();
        for withdrawn in owner.iter_mut().flat_map(|owner| owner.withdrawn.drain(..)) {
            kept.0.add(withdrawn, UnixTime::now());
        }
        let known = (network, epochs.clone(), kept);
        let node = node(known, identity, (&config, founds, is_public), now)?;
        let (sender, carrier_events) = mpsc::channel(MESSAGES);
        let is_server = |url: &&String| Room::of_uri(url).is_none();
        let urls: Vec<String> = signal.iter().filter(is_server).cloned().collect();
        // a code or a group names its own servers
        let named = match code.is_some() || group.is_some() {
            true => urls,
            false => servers(&config, &urls),
        };
        let on_lans = config.exposure().lans().is_ok();
        let dht = match &group {
            Some(group) => group.places.dht.clone(),
            None => owner.as_ref().and_then(|owner| owner.dht.clone()),
        };
        if named.is_empty() && !on_lans && dht.is_none() {
            let message = "[signal] lan = false, and no signalling server is named: there is no way to find others";
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        let mut carriers = Carriers::new(key, network, sender);
        carriers.set_chain(config.relay.ask.then_some(chain));
        let proxy = proxy(&config).map_err(|e| ExitError::new(Exit::Usage, format!("{e:#}")))?;
        let places = Places {
            servers: named.clone(),
            proxy: proxy.clone(),
            interface: config.tun.name.clone(),
            on_lans,
            dht,
        };
        let found = match places.dht {
            Some(_) => "on this LAN and by the DHT",
            None => "on this LAN alone",
        };
        let found = named.is_empty().then_some(found);
        let told = owner.is_some().then(|| Hints::new(found));
        let mapped = mapping.map(|settings| {
            let signs = owner.as_ref().map_or(&*node_key, |owner| &owner.signs);
            let secret = port_mapping::secret(signs, port);
            Mapped::start(port, secret, settings, told)
        });
        if is_helper(&node.member().labels) && named.is_empty() {
            hint(format_args!(
                "without a place listeners find it on this LAN alone, where the firewall of this host lets in UDP port {port}"
            ));
        }
        let own = (node.member().peer, port);
        let owner = owner.map(|owner| Owner::start(owner, own, &places));
        let group = group.map(|start| {
            let group = Group::start(start, &epochs, own)?;
            group.use_dht(&mut carriers);
            anyhow::Ok(group)
        });
        carriers.set_servers(&named, proxy.clone());
        let (ice, ice_events) = IceServers::start();
        ice.set(relays::plan(&config, named.clone(), proxy));
        let mut shell = Self {
            node,
            links: Links::new(socket, ice.commands().clone())?,
            readable,
            drops: Drops::default(),
            carriers,
            carrier_events,
            ice,
            ice_events,
            on_lans,
            servers: named,
            host_interface: config.tun.name.clone(),
            code,
            owner: owner.transpose()?,
            helpers: Helpers::default(),
            standing: Standing::Alone,
            group: group.transpose()?,
            mapped,
            seen: BTreeSet::new(),
            told: (0, 0, None),
            alone_since: Some(now),
            told_looking: false,
        };
        shell.review_addresses(now)?;
        shell.node.start(now);
        Ok(shell)
    }

    /// Handles a packet of a program or the kernel.
    pub fn handle_packet(&mut self, packet: Bytes, now: Instant) {
        self.node.handle_local_packet(packet, now);
    }

    /// Returns the node's connections.
    pub fn connections_mut(&mut self) -> &mut WebRtc {
        self.node.connections_mut()
    }

    /// Waits for the next input, and handles it. Cancellation loses none.
    pub async fn wait(&mut self) -> anyhow::Result<()> {
        let at = self.node.next_timeout();
        let at = at.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        tokio::select! {
            ready = self.readable.readable() => {
                let mut ready = ready?;
                if !receive(&mut self.links, self.node.connections_mut()) {
                    ready.clear_ready();
                }
            }
            Some(event) = self.ice_events.recv() => {
                event.hand_to(self.node.connections_mut(), Instant::now());
            }
            Some(event) = self.carrier_events.recv() => match event {
                CarrierEvent::Relay(url, credentials) => self.ice.offered(url, credentials),
                event => handle_carrier(&mut self.node, event, Instant::now()),
            },
            () = answer(&mut self.owner) => {}
            status = mapped::changed(&mut self.mapped) => self.handle_mapped(&status),
            event = group::wait(&mut self.group) => {
                if let Some(group) = &mut self.group {
                    group.handle(event, &mut self.node, Instant::now());
                }
            }
            () = tokio::time::sleep_until(at.into()) => self.node.handle_timeout(Instant::now()),
        }
        Ok(())
    }

    fn handle_mapped(&mut self, status: &Status) {
        let address = status.address.map(SocketAddr::V4);
        let webrtc = self.node.connections_mut();
        webrtc.set_mapped(address, Instant::now());
        if let Some(mapped) = &mut self.mapped {
            mapped.tell(status);
        }
        if let Some(group) = &mut self.group {
            group.set_mapped(status.public());
        }
    }

    /// Passes on all that is pending: packets to lc0, datagrams, messages for carriers.
    pub fn flush(&mut self, device: &mut Interface) {
        let now = Instant::now();
        loop {
            let mut silent = true;
            while let Some(output) = self.node.poll_output(now) {
                silent = false;
                self.handle_output(output, device);
            }
            if !self.links.send(self.node.connections_mut()) && silent {
                break;
            }
        }
        device.flush();
        self.links.flush(self.node.connections_mut(), now);
    }

    fn handle_output(&mut self, output: Output, device: &mut Interface) {
        match output {
            Output::Local { packet } => device.queue(packet),
            Output::LocalMld { packet } => {
                if device.write(&packet).is_err() {
                    self.drops.count(DropReason::TunWriteError);
                }
            }
            Output::Signal { to, bytes } => self.carriers.send(to, &bytes),
            Output::Publish(record) => self.carriers.publish(record),
            Output::PathSuspect => self.carriers.path_changed(PathChange::Links),
            Output::Keep(keep) => {
                if let Some(group) = &mut self.group {
                    group.keep(keep);
                }
            }
            // carriers of the network of a group may look for members by name
            Output::Seek(sought) => self.carriers.seek(sought),
            // a guest has no LAN, IPv4 or ping
            Output::Lan { .. } | Output::Ipv4Address(_) | Output::Pong { .. } => {}
        }
    }

    /// Follows the host's addresses and the membership; `lost`: joins may be lost.
    pub fn look(&mut self, lost: bool) -> anyhow::Result<()> {
        let now = Instant::now();
        if lost {
            self.node.engine_mut(now).handle_lost_reports(LC0, now);
        }
        if let Err(e) = self.review_addresses(now) {
            tracing::warn!("addresses of this host: {e:#}");
        }
        self.links.count_overflow();
        self.node.update_round_trips(now);
        self.review_owner(now);
        if is_helper(&self.node.member().labels) {
            self.node.offer_places(now);
        }
        if let Some(group) = &mut self.group {
            group.review(&mut self.node, now);
        }
        let has_expired = self.node.member().not_after <= UnixTime::now().as_secs();
        let ended = match (self.node.is_expelled(), has_expired, self.group.is_some()) {
            (true, _, true) => group::EXPELLED,
            (true, _, false) if is_helper(&self.node.member().labels) => {
                "the caster takes no help by this token any more"
            }
            (true, _, false) => {
                "expelled: the network takes no guest by this token any more; ask for a new one (`lcroute invite`)"
            }
            (false, true, true) => group::EXPIRED,
            (false, true, false) if is_helper(&self.node.member().labels) => {
                "the token has expired: ask for a new one (`lcradio invite`)"
            }
            (false, true, false) => "the token has expired: ask for a new one (`lcroute invite`)",
            (false, false, _) => "",
        };
        if !ended.is_empty() {
            if let Some(group) = &mut self.group {
                group.tell_end(ended);
            }
            return Err(refused(ended));
        }
        self.tell_program();
        self.tell_state(now);
        Ok(())
    }

    /// Follows helpers, has the record name those with room, and leaves listeners to them.
    fn review_owner(&mut self, now: Instant) {
        let Some(owner) = &mut self.owner else {
            return;
        };
        let Decision {
            records,
            spare,
            standing,
        } = self.helpers.look(self.node.offers());
        if std::mem::replace(&mut self.standing, standing) != standing {
            hint(match standing {
                Standing::Yields => {
                    "listeners reach a helper: new ones go to it, and come to this host if they do not reach it"
                }
                Standing::Beside => {
                    "a helper is here: listeners come to this host until one reaches it"
                }
                Standing::Alone => "no helper with room is here: listeners come to this host",
            });
        }
        let candidates = self.node.connections().candidates();
        owner.review(candidates, records, now);
        self.node
            .set_spare(spare, standing == Standing::Yields, now);
    }

    fn review_addresses(&mut self, now: Instant) -> anyhow::Result<()> {
        let (own, webrtc) = (&self.host_interface, self.node.connections_mut());
        let is_first = self.links.hosts().is_empty();
        let has_changed = self.links.review(own, None, webrtc, now)?;
        if self.on_lans {
            let lans = netlink::lan_interfaces(&[own], None)?;
            // it stays on: no records of it are gone
            let _: Option<CarrierId> = self.carriers.set_lan(Some(lans), self.links.port());
        }
        if has_changed && !is_first {
            self.carriers.path_changed(PathChange::Addresses);
            if let Some(mapped) = &self.mapped {
                mapped.moved();
            }
        }
        Ok(())
    }

    /// Reports present and former members to the program inside.
    fn tell_program(&mut self) {
        let Some(code) = &mut self.code else {
            return;
        };
        let own = self.node.member().peer;
        let members = self.node.members().into_iter();
        let others = members.filter(|member| member.peer_id != own && member.present);
        let others: BTreeSet<PeerId> = others.map(|member| member.peer_id).collect();
        for peer in &others {
            if self.seen.len() < MAX_SEEN {
                self.seen.insert(*peer);
            }
        }
        let left = self.seen.difference(&others).count();
        let present = others.len() + self.node.leaves();
        if code.state.helper.is_some() {
            let links = self.node.links().values();
            let is_caster = |member: &&Member| !is_helper(&member.labels);
            code.state.helper = Some(HelperState {
                leaves: self.node.leaves(),
                room: self.node.overlay().leaf_room(),
                casters: links.filter(is_caster).count(),
                sent_bytes: self.node.counters().link_tx_bytes,
            });
        }
        let told = (present, left, code.state.helper);
        if self.told == told {
            return;
        }
        self.told = told;
        (code.state.present, code.state.left) = (present, left);
        if let Err(e) = code.file.write(&code.state) {
            tracing::warn!("what the program is told: {e}");
        }
    }

    /// Tells the user that no link is up, and that one is up again.
    fn tell_state(&mut self, now: Instant) {
        if !self.node.links().is_empty() {
            self.alone_since = None;
            if std::mem::take(&mut self.told_looking) {
                hint("linked");
            }
            return;
        }
        let since = *self.alone_since.get_or_insert(now);
        // lcgroup tells it, and its owner may be alone
        if self.group.is_some() {
            return;
        }
        if since + LOOKING > now || std::mem::replace(&mut self.told_looking, true) {
            return;
        }
        let servers = self.servers.join(", ");
        let founds = self.code.as_ref().is_some_and(|code| code.state.founds);
        let code = self.code.as_ref().map(|code| !code.state.code.is_empty());
        let of_code = code == Some(true);
        let is_helper = is_helper(&self.node.member().labels);
        match (self.servers.is_empty(), self.node.servers() > 0) {
            // who founds waits for others, and for a server
            (true, _) | (_, true) if founds => self.told_looking = false,
            (false, false) => hint(format_args!(
                "looking for nodes on the LANs of this host; {servers} does not answer: does it run, and does this host reach it?"
            )),
            (true, _) if is_helper => hint(
                "waiting for the caster on the LANs of this host: does it cast? Beyond a LAN `lcradio invite --at HOST` names a server",
            ),
            (false, true) if is_helper => hint(format_args!(
                "waiting for the caster: {servers} answers, and it is not there: does it cast?"
            )),
            (true, _) if lcroute_signalling::is_mdns_taken() => hint(
                "looking for nodes on the LANs of this host, where another program has UDP port 5353 for itself: let it share the port (avahi-daemon: disallow-other-stacks=no)",
            ),
            (true, _) if of_code => hint(format_args!(
                "looking for nodes on the LANs of this host: is this the same LAN, does the other command still run, and are the words right? The firewalls of both hosts must let in UDP port 5353 (`{MDNS_RULE}`). Beyond a LAN a code names a server: WORDS@HOST"
            )),
            (true, _) if code.is_some() => hint(format_args!(
                "looking for nodes on the LANs of this host: does the first program still run? The firewalls of both hosts must let in UDP port 5353 (`{MDNS_RULE}`). Beyond a LAN a text names a server: TEXT@HOST"
            )),
            (true, _) => hint(format_args!(
                "looking for nodes on the LANs of this host: the token names no signalling server (`lcroute invite --signal URL`), and the firewalls of both hosts must let in UDP port 5353 (`{MDNS_RULE}`)"
            )),
            (false, true) if of_code => hint(format_args!(
                "looking for nodes: {servers} answers, and nobody is there under these words; does the other command still run, and are the words right?"
            )),
            (false, true) => hint(format_args!(
                "looking for nodes: {servers} answers, but no other node of the network is there; does one run, and do both clocks agree?"
            )),
        }
    }

    /// Ends all links, and sends the messages that say so.
    pub async fn close(mut self, device: &mut Interface) {
        self.node.shutdown(Instant::now());
        self.flush(device);
        for (reason, count) in self.node.drops() {
            tracing::info!(reason, count, "dropped");
        }
        let given_back = async {
            if let Some(mapped) = self.mapped {
                mapped.end().await;
            }
        };
        tokio::join!(self.carriers.end(), given_back);
        if let Some(owner) = self.owner {
            owner.end().await;
        }
        if let Some(group) = self.group {
            group.end().await;
        }
    }
}

/// Returns the port of a helper's links: the same at each start, so that it can be forwarded; 0: this
/// member is none.
fn helper_port(member: &Member) -> u16 {
    let invitation = member.invitation().filter(|_| is_helper(&member.labels));
    invitation.map_or(0, port_of)
}

async fn answer(owner: &mut Option<Owner>) {
    match owner {
        Some(owner) => owner.wait().await,
        None => std::future::pending().await,
    }
}

/// Receives datagrams of links; returns false once there are none.
fn receive(links: &mut Links, webrtc: &mut WebRtc) -> bool {
    let now = Instant::now();
    for _ in 0..UDP_CALLS {
        let units = links.receive();
        for unit in 0..units {
            links.hand_to(unit, webrtc, now);
        }
        if units == 0 {
            links.take_errors(webrtc, now);
            return false;
        }
    }
    true
}

fn node(
    (network, epochs, (revocations, members)): (NetworkId, Epochs, (Revocations, Members)),
    identity: Identity,
    (config, founds, is_public): (&Config, bool, bool),
    now: Instant,
) -> anyhow::Result<Node<WebRtc>> {
    let epoch = hello_epoch();
    let webrtc = links::webrtc(config, MTU, epoch)?;
    let mut members = members;
    members.note(&identity.member, UnixTime::now());
    let address = identity.member.addresses.address;
    let config = NodeConfig {
        network,
        key: identity.key,
        chain: identity.chain,
        member: identity.member,
        incarnation: identity.incarnation,
        mtu: MTU,
        transits: true,
        ipv4: None,
        settings: Settings {
            disclosure: Disclosure::Everybody,
            // who sends to many from a home has others carry, in sixteen parts of what is announced;
            // who receives passes blocks on
            announce: Vec::from_iter(match founds {
                true => sent_files(),
                false => passed_on(address),
            }),
            carry: CarrySettings {
                upload: founds.then_some(0),
                ..CarrySettings::default()
            },
            ..Settings::default()
        },
        topology: TopologyConfig {
            policy: config.topology.policy,
            degree: config.topology.degree,
        },
        revocations,
        epochs,
        members,
        uses: Uses::default(),
        clock: WallClock::new(UnixTime::now),
        epoch,
        seed: seed()?,
        aead: None,
        limits: lcroute_engine::Limits {
            leaf_bits_per_second: match is_public {
                true => PUBLIC_RATE,
                false => lcroute_engine::Limits::default().leaf_bits_per_second,
            },
            ..lcroute_engine::Limits::default()
        },
        overlay_limits: lcroute_overlay::Limits::default(),
    };
    Ok(Node::new(config, webrtc, now))
}

/// Returns the groups on which a receiver at `address` passes on what `lcsync send` shares.
fn passed_on(address: Ipv6Addr) -> Option<GroupPrefix> {
    let share = SharePrefix::of_name(b"", SENT_FILES);
    let (group, length) = share.of_carrier(address);
    GroupPrefix::new(group, length).ok()
}

/// Returns the groups of what `lcsync send` shares.
pub fn sent_files() -> Option<GroupPrefix> {
    let share = SharePrefix::of_name(b"", SENT_FILES);
    GroupPrefix::new(share.address(), 64).ok()
}

fn refused(message: &str) -> anyhow::Error {
    ExitError::new(Exit::NotPermitted, message).into()
}
