//! Relays on the control thread: their addresses, and the stream to the one in use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use lcroute_control::config::{Leg, Relay, TurnUrl};
use lcroute_overlay::server::RelayCredentials;
use lcroute_signalling::proxy::Proxy;
use lcroute_signalling::relay_stream::{RelayStreams, RelayTarget, StreamPort};
use lcroute_webrtc::relay::{RelayOffer, StreamCommand, mint};
use librecast::private_file;
use librecast::signalling::stun_name;
use librecast::time::UnixTime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::inbox::{Inbox, Message};

/// Time between lookups of addresses.
const LOOKUP: Duration = Duration::from_secs(60);
/// Validity of credentials made from a secret.
const MINTED: Duration = Duration::from_secs(86_400);
/// Use of such credentials: half of their validity.
const USED: Duration = Duration::from_secs(43_200);
/// Most bytes of a file with a password or a secret.
const MAX_SECRET: u64 = 1_024;

/// The warning where links need a relay, and none is known.
pub const NO_RELAY: &str = "no relay is known, and [ice] policy = \"relay\" allows no other path: nobody but members of `disclose` can be \
     linked; name one in [relay] turn, or use a signalling server that relays";

/// A message to the task.
#[derive(Debug)]
pub enum Input {
    /// A signalling server offers its relay.
    Offered(String, RelayCredentials),
    /// The present configuration.
    Configure {
        /// Signalling servers.
        servers: Vec<String>,
        /// The proxy to them.
        proxy: Option<Proxy>,
        /// `[relay]`
        relay: Relay,
        /// Whether some links use only relays.
        hides: bool,
    },
}

/// The task for relays; ends when dropped.
#[derive(Debug)]
pub struct Relays {
    inputs: mpsc::Sender<Input>,
    task: JoinHandle<()>,
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relays {
    /// Starts the task, without any relay.
    pub fn start(inbox: Inbox, commands: mpsc::Receiver<StreamCommand>) -> Self {
        let (inputs, received) = mpsc::channel(16);
        let (streams, mut happened) = RelayStreams::new();
        let to = inbox.clone();
        tokio::spawn(async move {
            while let Some((number, event)) = happened.recv().await {
                to.send(Message::RelayStream(number, event)).await;
            }
        });
        let task = Task {
            inbox,
            offered: BTreeMap::new(),
            servers: Vec::new(),
            proxy: None,
            config: Relay::default(),
            hides: false,
            lacks: 0,
            minted: None,
            told: Vec::new(),
            targets: BTreeMap::new(),
            streams,
        };
        let task = tokio::spawn(task.run(received, commands));
        Self { inputs, task }
    }

    /// Sends a message to the task.
    pub async fn tell(&self, input: Input) {
        // the task lives as long as this handle
        let _ = self.inputs.send(input).await;
    }
}

struct Task {
    inbox: Inbox,
    offered: BTreeMap<String, RelayCredentials>,
    servers: Vec<String>,
    proxy: Option<Proxy>,
    config: Relay,
    hides: bool,
    /// Offers in a row without a relay, while links need one.
    lacks: u32,
    /// Credentials made from the secret, and when.
    minted: Option<(Instant, RelayCredentials)>,
    told: Vec<RelayOffer>,
    /// Targets of streams, by the offer's URL.
    targets: BTreeMap<String, RelayTarget>,
    streams: RelayStreams,
}

impl Task {
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut commands: mpsc::Receiver<StreamCommand>,
    ) {
        let mut lookup = tokio::time::interval(LOOKUP);
        loop {
            tokio::select! {
                Some(input) = inputs.recv() => {
                    match input {
                        Input::Offered(url, credentials) => drop(self.offered.insert(url, credentials)),
                        Input::Configure { servers, proxy, relay, hides } => {
                            self.offered.retain(|url, _| servers.contains(url));
                            self.minted = None;
                            (self.servers, self.proxy, self.config) = (servers, proxy, relay);
                            (self.hides, self.lacks) = (hides, 0);
                        }
                    }
                    self.offer().await;
                }
                _ = lookup.tick() => {
                    self.offer().await;
                    self.tell_lack();
                }
                Some(command) = commands.recv() => self.execute(command).await,
                else => return,
            }
        }
    }

    async fn execute(&mut self, command: StreamCommand) {
        match command {
            StreamCommand::Open { stream, url } => {
                self.streams.open(stream, self.targets.get(&url).cloned());
            }
            // blocking at this point fills the channel of commands, which drops and counts
            StreamCommand::Send { stream, contents } => {
                if let Some(queue) = self.streams.queue(stream) {
                    let _ = queue.send(contents).await;
                }
            }
            StreamCommand::Close { stream } => self.streams.close(stream),
        }
    }

    /// Warns once that links are impossible, after servers have had a minute to offer their relays.
    fn tell_lack(&mut self) {
        self.lacks = match self.hides && self.told.is_empty() {
            true => self.lacks.saturating_add(1),
            false => 0,
        };
        if self.lacks == 2 {
            tracing::warn!("{NO_RELAY}");
        }
    }

    /// Sends the offers to the packet loop, if they have changed.
    async fn offer(&mut self) {
        let mut offers = Vec::new();
        self.targets.clear();
        for turn in self.config.turn.clone() {
            match self.configured(&turn).await {
                Ok(offer) => offers.push(offer),
                Err(e) => tracing::warn!("[relay] {turn}: {e:#}"),
            }
        }
        for url in &self.servers {
            let Some((credentials, name)) = self.offered.get(url).zip(stun_name(url)) else {
                continue;
            };
            // a proxy hides this host from servers, and resolves their names
            let udp = match self.hides_from_servers() {
                true => Vec::new(),
                false => look_up(&name).await.unwrap_or_default(),
            };
            // a relay on this host's loopback gives unreachable addresses
            if udp.is_empty() && self.proxy.is_none() {
                continue;
            }
            let target = RelayTarget::of_signalling(url, self.proxy.clone());
            offers.push(RelayOffer {
                url: url.clone(),
                udp,
                stream: target.is_some(),
                credentials: credentials.clone(),
                renews: true,
            });
            self.targets
                .extend(target.map(|target| (url.clone(), target)));
        }
        if offers != self.told {
            self.told.clone_from(&offers);
            self.inbox.send(Message::Relays(offers)).await;
        }
    }

    fn hides_from_servers(&self) -> bool {
        self.proxy.as_ref().is_some_and(Proxy::hides)
    }

    async fn configured(&mut self, turn: &TurnUrl) -> anyhow::Result<RelayOffer> {
        let credentials = self.credentials()?;
        let url = turn.to_string();
        let udp = match turn.leg {
            // a proxy hides this host
            Leg::Any if self.hides_from_servers() => Vec::new(),
            Leg::Any | Leg::Udp => look_up(&turn.authority()).await?,
            Leg::Tcp | Leg::Tls => Vec::new(),
        };
        let target = RelayTarget {
            host: turn.host.clone(),
            ports: vec![StreamPort {
                port: turn.port,
                tls: turn.leg == Leg::Tls,
            }],
            proxy: self.proxy.clone(),
        };
        self.targets.insert(url.clone(), target);
        Ok(RelayOffer {
            url,
            udp,
            stream: turn.leg != Leg::Udp,
            credentials,
            renews: false,
        })
    }

    fn credentials(&mut self) -> anyhow::Result<RelayCredentials> {
        if let Some(secret) = self.config.secret_file.as_deref() {
            let fresh = self.minted.as_ref().filter(|(at, _)| at.elapsed() < USED);
            if let Some((_, credentials)) = fresh {
                return Ok(credentials.clone());
            }
            let user = self.config.user.as_deref().unwrap_or("lcroute");
            let minted = mint(
                read(secret)?.as_bytes(),
                user,
                (UnixTime::now() + MINTED).as_secs(),
            );
            self.minted = Some((Instant::now(), minted.clone()));
            return Ok(minted);
        }
        match (&self.config.user, self.config.password_file.as_deref()) {
            (Some(user), Some(password)) => Ok(RelayCredentials {
                user: user.clone(),
                password: read(password)?,
            }),
            _ => anyhow::bail!("set user and password_file, or secret_file"),
        }
    }
}

/// Returns the first line of a file that only its owner can read.
fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = private_file::read(path, MAX_SECRET)
        .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
    let text = std::str::from_utf8(&bytes)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

async fn look_up(name: &str) -> std::io::Result<Vec<SocketAddr>> {
    let mut found = lcroute_signalling::look_up(name).await?;
    found.retain(|a| !a.ip().is_loopback());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lcroute_control::config::Config;

    #[tokio::test]
    async fn a_proxy_leads_to_relays_by_streams_unless_their_url_says_udp() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        private_file::create(&secret, b"north").unwrap();
        let proxy: SocketAddr = "192.0.2.9:1080".parse().unwrap();
        for (url, streams, datagrams) in [
            ("turn:192.0.2.1:3478", true, false),
            ("turn:192.0.2.1:3478?transport=tcp", true, false),
            ("turns:192.0.2.1:5349", true, false),
            ("turn:192.0.2.1:3478?transport=udp", false, true),
        ] {
            let text = format!(
                "[relay]\nturn = [\"{url}\"]\nsecret_file = \"{}\"",
                secret.display()
            );
            let config = Config::parse("f", &text).unwrap().relay;
            let turn = config.turn[0].clone();
            let mut task = Task {
                inbox: Inbox::new(crate::waker::Waker::new().unwrap()).0,
                offered: BTreeMap::new(),
                servers: Vec::new(),
                proxy: Some(Proxy::Socks(proxy)),
                config,
                hides: true,
                lacks: 0,
                minted: None,
                told: Vec::new(),
                targets: BTreeMap::new(),
                streams: RelayStreams::new().0,
            };
            let offer = task.configured(&turn).await.unwrap();
            assert_eq!((offer.stream, !offer.udp.is_empty()), (streams, datagrams));
            let target = task.targets.get(&offer.url).unwrap();
            assert_eq!(target.proxy, Some(Proxy::Socks(proxy)));
        }
    }
}
