//! STUN servers and relays of a program: their addresses, and the stream to the relay in use.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use lcroute_overlay::server::RelayCredentials;
use lcroute_webrtc::WebRtc;
use lcroute_webrtc::relay::{RelayOffer, StreamCommand, StreamEvent, mint};
use librecast::private_file;
use librecast::signalling::stun_name;
use librecast::time::{Instant, UnixTime};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep_until;

use crate::look_up;
use crate::proxy::Proxy;
use crate::relay_stream::{RelayTarget, STREAM_QUEUE, carry};

/// Time between look-ups of addresses, which change.
const LOOKUP: Duration = Duration::from_secs(60);
/// Time until the next look-up while a name does not resolve.
const RETRY: Duration = Duration::from_secs(3);
/// Validity of credentials made from a secret.
const MINTED: Duration = Duration::from_secs(86_400);
/// Use of such credentials: half of their validity.
const USED: Duration = Duration::from_secs(43_200);
/// Most bytes of a file with a password or a secret.
const MAX_SECRET: u64 = 1_024;
/// Commands that wait. Chosen: some turns of a full stream.
const COMMANDS: usize = 1_024;

/// Something new about STUN servers and relays.
#[derive(Debug)]
pub enum IceEvent {
    /// Addresses of STUN servers.
    Stun(Vec<SocketAddr>),
    /// Usable relays.
    Relays(Vec<RelayOffer>),
    /// An event of a stream to a relay.
    Stream(u64, StreamEvent),
}

impl IceEvent {
    /// Hands it to the connections.
    pub fn hand_to(self, webrtc: &mut WebRtc, now: Instant) {
        match self {
            Self::Stun(servers) => webrtc.set_stun_servers(servers, now),
            Self::Relays(offers) => webrtc.set_relays(offers, now),
            Self::Stream(stream, event) => webrtc.handle_relay_stream(stream, event, now),
        }
    }
}

/// Servers that a program uses.
#[derive(Debug, Default)]
pub struct IcePlan {
    /// Names of STUN servers.
    pub stun: Vec<String>,
    /// Signalling servers, whose relays it uses once they offer them.
    pub servers: Vec<String>,
    /// The proxy to signalling servers and relays.
    pub proxy: Option<Proxy>,
    /// Relays of the configuration.
    pub relays: Vec<Turn>,
    /// The login for these relays.
    pub login: Login,
    /// The warning where no relay is known, if links need one.
    pub lack: Option<&'static str>,
}

/// A relay of the configuration.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Its URL.
    pub url: String,
    /// `HOST:PORT` for datagrams, if it takes them.
    pub udp: Option<String>,
    /// The target of streams.
    pub target: RelayTarget,
    /// Whether streams are used.
    pub stream: bool,
}

/// A login for relays of the configuration.
#[derive(Debug, Default)]
pub struct Login {
    /// The user.
    pub user: Option<String>,
    /// The file with the user's password.
    pub password_file: Option<PathBuf>,
    /// The file with the secret from which credentials are made; it comes first.
    pub secret_file: Option<PathBuf>,
}

/// The task for STUN servers and relays; ends when dropped.
#[derive(Debug)]
pub struct IceServers {
    // as many as changes of our own configuration and carriers
    plans: mpsc::UnboundedSender<IcePlan>,
    /// Credentials of signalling servers, by their URLs.
    offered: watch::Sender<BTreeMap<String, RelayCredentials>>,
    commands: mpsc::Sender<StreamCommand>,
    task: JoinHandle<()>,
}

impl Drop for IceServers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl IceServers {
    /// Starts the task without any server; to be called within a tokio runtime.
    pub fn start() -> (Self, mpsc::Receiver<IceEvent>) {
        let (plans, planned) = mpsc::unbounded_channel();
        let (offered, offers) = watch::channel(BTreeMap::new());
        let (commands, received) = mpsc::channel(COMMANDS);
        let (told, events) = mpsc::channel(STREAM_QUEUE);
        let task = tokio::spawn(Task::new(offers, told).run(planned, received));
        let servers = Self {
            plans,
            offered,
            commands,
            task,
        };
        (servers, events)
    }

    /// Sets the servers in use.
    pub fn set(&self, plan: IcePlan) {
        let is_used = |url: &String| plan.servers.contains(url);
        self.offered.send_if_modified(|offered| {
            offered.retain(|url, _| is_used(url));
            false
        });
        // the task lives as long as this handle
        let _ = self.plans.send(plan);
    }

    /// Keeps the credentials for the relay of a signalling server.
    pub fn offered(&self, url: String, credentials: RelayCredentials) {
        self.offered.send_if_modified(|offered| {
            let is_new = offered.get(&url) != Some(&credentials);
            offered.insert(url, credentials);
            is_new
        });
    }

    /// Returns where commands for streams go; a full channel loses datagrams, as networks do.
    pub fn commands(&self) -> &mpsc::Sender<StreamCommand> {
        &self.commands
    }
}

struct Task {
    plan: IcePlan,
    offered: watch::Receiver<BTreeMap<String, RelayCredentials>>,
    /// Relays of the configuration, with their credentials.
    configured: Vec<(Turn, RelayCredentials)>,
    /// Credentials made from the secret, and when.
    minted: Option<(Instant, RelayCredentials)>,
    /// Addresses by names, and names that did not resolve.
    addresses: BTreeMap<String, Vec<SocketAddr>>,
    failed: BTreeSet<String>,
    looked: JoinSet<(String, io::Result<Vec<SocketAddr>>)>,
    next_look: Instant,
    /// Since when links lack a relay, and whether the log says so.
    lacks: Option<(Instant, bool)>,
    stun: Vec<SocketAddr>,
    relays: Vec<RelayOffer>,
    /// Targets of streams, by the offer's URL.
    targets: BTreeMap<String, RelayTarget>,
    /// The stream to the relay in use.
    stream: Option<(u64, mpsc::Sender<Bytes>)>,
    told: mpsc::Sender<IceEvent>,
}

impl Task {
    fn new(
        offered: watch::Receiver<BTreeMap<String, RelayCredentials>>,
        told: mpsc::Sender<IceEvent>,
    ) -> Self {
        Self {
            plan: IcePlan::default(),
            offered,
            configured: Vec::new(),
            minted: None,
            addresses: BTreeMap::new(),
            failed: BTreeSet::new(),
            looked: JoinSet::new(),
            next_look: Instant::now() + LOOKUP,
            lacks: None,
            stun: Vec::new(),
            relays: Vec::new(),
            targets: BTreeMap::new(),
            stream: None,
            told,
        }
    }

    async fn run(
        mut self,
        mut plans: mpsc::UnboundedReceiver<IcePlan>,
        mut commands: mpsc::Receiver<StreamCommand>,
    ) {
        loop {
            tokio::select! {
                plan = plans.recv() => {
                    let Some(plan) = plan else { return };
                    (self.plan, self.minted, self.lacks) = (plan, None, None);
                    self.look();
                }
                Ok(()) = self.offered.changed() => self.look_up(false),
                Some(command) = commands.recv() => {
                    self.execute(command).await;
                    continue;
                }
                Some(Ok((name, found))) = self.looked.join_next() => self.note(name, found),
                () = sleep_until(self.next_look.into()) => self.look(),
            }
            self.tell().await;
        }
    }

    /// Looks up all names anew, and reads logins.
    fn look(&mut self) {
        self.next_look = Instant::now() + LOOKUP;
        self.configured.clear();
        for turn in self.plan.relays.clone() {
            match self.credentials() {
                Ok(credentials) => self.configured.push((turn, credentials)),
                Err(e) => tracing::warn!("[relay] {}: {e:#}", turn.url),
            }
        }
        self.look_up(true);
        self.tell_lack();
    }

    /// Returns the signalling servers with relays, by the names for datagrams. A proxy that hides
    /// this host from servers resolves their names.
    fn offered(&self) -> Vec<(String, Option<String>, RelayCredentials)> {
        let hides = self.plan.proxy.as_ref().is_some_and(Proxy::hides);
        let offered = self.offered.borrow();
        let servers = self.plan.servers.iter().filter_map(|url| {
            let (credentials, name) = offered.get(url).zip(stun_name(url))?;
            Some((
                url.clone(),
                Some(name).filter(|_| !hides),
                credentials.clone(),
            ))
        });
        servers.collect()
    }

    /// Looks up names: all, or new ones.
    fn look_up(&mut self, all: bool) {
        let relays = self
            .configured
            .iter()
            .filter_map(|(turn, _)| turn.udp.clone());
        let names = self.plan.stun.iter().cloned().chain(relays);
        let offered = self.offered().into_iter();
        let names = names.chain(offered.filter_map(|(_, name, _)| name));
        let names: BTreeSet<String> = names.collect();
        self.addresses.retain(|name, _| names.contains(name));
        self.failed.retain(|name| names.contains(name));
        for name in names {
            let is_known = self.addresses.contains_key(&name);
            if is_known && !all {
                continue;
            }
            self.addresses.entry(name.clone()).or_default();
            self.looked.spawn(async move {
                let found = look_up(&name).await;
                (name, found)
            });
        }
    }

    /// Keeps the addresses of a name. One that does not resolve any more keeps those that it had.
    fn note(&mut self, name: String, found: io::Result<Vec<SocketAddr>>) {
        let Some(known) = self.addresses.get_mut(&name) else {
            return;
        };
        match found {
            Ok(mut found) => {
                // a server on this host would report a loopback address, and relay there
                found.retain(|at| !at.ip().is_loopback());
                *known = found;
                self.failed.remove(&name);
            }
            Err(e) => {
                self.next_look = self.next_look.min(Instant::now() + RETRY);
                if !self.failed.contains(&name) {
                    tracing::warn!("{name}: {e}: tried again");
                    self.failed.insert(name);
                }
            }
        }
    }

    /// Tells the owner what has changed.
    async fn tell(&mut self) {
        let stun = self.plan.stun.iter();
        let stun = stun.filter_map(|name| self.addresses.get(name)).flatten();
        let stun = BTreeSet::from_iter(stun.copied()).into_iter().collect();
        if self.stun != stun {
            self.stun.clone_from(&stun);
            // the owner may have gone
            let _ = self.told.send(IceEvent::Stun(stun)).await;
        }
        let relays = self.offers();
        if self.relays != relays {
            self.relays.clone_from(&relays);
            let _ = self.told.send(IceEvent::Relays(relays)).await;
        }
    }

    /// Returns all usable relays, and notes their targets.
    fn offers(&mut self) -> Vec<RelayOffer> {
        self.targets.clear();
        let mut offers = Vec::new();
        let addresses = &self.addresses;
        let known = |name: &Option<String>| -> Vec<SocketAddr> {
            let known = name.as_ref().and_then(|name| addresses.get(name));
            known.cloned().unwrap_or_default()
        };
        for (turn, credentials) in &self.configured {
            let (url, udp) = (turn.url.clone(), known(&turn.udp));
            if udp.is_empty() && !turn.stream {
                continue;
            }
            self.targets.insert(url.clone(), turn.target.clone());
            offers.push(RelayOffer {
                url,
                udp,
                stream: turn.stream,
                credentials: credentials.clone(),
                renews: false,
            });
        }
        for (url, name, credentials) in self.offered() {
            let udp = known(&name);
            if udp.is_empty() && self.plan.proxy.is_none() {
                continue;
            }
            let target = RelayTarget::of_signalling(&url, self.plan.proxy.clone());
            offers.push(RelayOffer {
                url: url.clone(),
                udp,
                stream: target.is_some(),
                credentials,
                renews: true,
            });
            self.targets.extend(target.map(|target| (url, target)));
        }
        offers
    }

    /// Warns once that links are impossible, after servers have had a minute to offer their relays.
    fn tell_lack(&mut self) {
        let Some(warning) = self.plan.lack.filter(|_| self.relays.is_empty()) else {
            self.lacks = None;
            return;
        };
        let now = Instant::now();
        let (since, is_told) = self.lacks.get_or_insert((now, false));
        if *since + LOOKUP <= now && !std::mem::replace(is_told, true) {
            tracing::warn!("{warning}");
        }
    }

    fn credentials(&mut self) -> anyhow::Result<RelayCredentials> {
        let login = &self.plan.login;
        if let Some(secret) = &login.secret_file {
            let fresh = self.minted.as_ref().filter(|(at, _)| at.elapsed() < USED);
            if let Some((_, credentials)) = fresh {
                return Ok(credentials.clone());
            }
            let user = login.user.as_deref().unwrap_or("lcroute");
            let until = (UnixTime::now() + MINTED).as_secs();
            let minted = mint(read(secret)?.as_bytes(), user, until);
            self.minted = Some((Instant::now(), minted.clone()));
            return Ok(minted);
        }
        match (&login.user, &login.password_file) {
            (Some(user), Some(password)) => Ok(RelayCredentials {
                user: user.clone(),
                password: read(password)?,
            }),
            _ => anyhow::bail!("set user and password_file, or secret_file"),
        }
    }

    async fn execute(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Open { stream, url } => {
                self.open(stream, self.targets.get(&url).cloned());
            }
            // blocking at this point fills the channel of commands, which drops
            StreamCommand::Send { stream, contents } => {
                if let Some((_, queue)) = self.stream.as_ref().filter(|(open, _)| *open == stream) {
                    let _ = queue.send(contents).await;
                }
            }
            // after its queued messages
            StreamCommand::Close { stream } => {
                drop(self.stream.take_if(|(open, _)| *open == stream));
            }
        }
    }

    /// Opens a stream in place of the previous one. A stream without a target ends at once.
    fn open(&mut self, number: u64, target: Option<RelayTarget>) {
        let (messages, mut waiting) = mpsc::channel(STREAM_QUEUE);
        let (events, mut happened) = mpsc::channel(STREAM_QUEUE);
        let told = self.told.clone();
        tokio::spawn(async move {
            while let Some(event) = happened.recv().await {
                if told.send(IceEvent::Stream(number, event)).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            if let Some(target) = target
                && let Err(e) = carry(&target, &mut waiting, &events).await
            {
                tracing::debug!("relay {}: {e}", target.host);
            }
            // the owner may have gone
            let _ = events.send(StreamEvent::Closed).await;
        });
        self.stream = Some((number, messages));
    }
}

/// Returns the first line of a file that only its owner can read.
fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = private_file::read(path, MAX_SECRET)
        .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    let text = std::str::from_utf8(&bytes)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(plan: IcePlan) -> (Task, watch::Sender<BTreeMap<String, RelayCredentials>>) {
        let (offered, offers) = watch::channel(BTreeMap::new());
        let mut task = Task::new(offers, mpsc::channel(9).0);
        task.plan = plan;
        (task, offered)
    }

    fn credentials() -> RelayCredentials {
        RelayCredentials {
            user: "1:a".into(),
            password: "b".into(),
        }
    }

    async fn offers(task: &mut Task) -> Vec<RelayOffer> {
        task.look();
        while let Some(Ok((name, found))) = task.looked.join_next().await {
            task.note(name, found);
        }
        task.offers()
    }

    #[tokio::test]
    async fn relays_are_offered_while_their_server_is_used_and_has_an_address() {
        let (there, here) = ("wss://192.0.2.1:7117", "ws://[::1]:7117");
        let (mut task, offered) = task(IcePlan {
            servers: vec![there.to_owned(), here.to_owned()],
            ..IcePlan::default()
        });
        for url in [there, here, "ws://192.0.2.9"] {
            offered.send_modify(|offered| drop(offered.insert(url.into(), credentials())));
        }
        let found = offers(&mut task).await;
        let [offer] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((offer.url.as_str(), offer.stream), (there, true));
        assert_eq!(offer.udp, ["192.0.2.1:7117".parse().unwrap()]);
        task.plan = IcePlan::default();
        assert!(offers(&mut task).await.is_empty());
        assert!(task.addresses.is_empty(), "forgotten");
    }

    #[tokio::test]
    async fn a_proxy_that_hides_this_host_leads_to_relays_by_streams_alone() {
        let proxy = Proxy::Socks("192.0.2.9:1080".parse().unwrap());
        let url = "wss://192.0.2.1:7117";
        let (mut task, offered) = task(IcePlan {
            servers: vec![url.to_owned()],
            proxy: Some(proxy.clone()),
            ..IcePlan::default()
        });
        offered.send_modify(|offered| drop(offered.insert(url.into(), credentials())));
        let found = offers(&mut task).await;
        assert!(found[0].udp.is_empty() && found[0].stream, "{found:?}");
        assert_eq!(task.targets[url].proxy, Some(proxy));
        assert!(task.addresses.is_empty(), "no name is looked up");
    }

    #[tokio::test]
    async fn a_name_that_resolves_no_more_keeps_its_addresses_and_is_looked_up_soon() {
        let name = "192.0.2.1:3478";
        let (mut task, _offered) = task(IcePlan {
            stun: vec![name.to_owned()],
            ..IcePlan::default()
        });
        offers(&mut task).await;
        let known = task.addresses.clone();
        assert_eq!(known[name].len(), 1);
        task.note(name.to_owned(), Err(io::ErrorKind::TimedOut.into()));
        assert_eq!(task.addresses, known);
        assert!(task.next_look <= Instant::now() + RETRY);
    }

    #[tokio::test]
    async fn links_that_need_a_relay_wait_a_minute_before_the_warning() {
        let (mut task, _offered) = task(IcePlan {
            lack: Some("none"),
            ..IcePlan::default()
        });
        task.look();
        let (since, is_told) = task.lacks.unwrap();
        assert!(!is_told);
        task.lacks = Some((since - LOOKUP, false));
        task.look();
        assert!(task.lacks.unwrap().1);
    }
}
