//! Asks the router to map this node's UDP port: by PCP, else NAT-PMP, else UPnP.
//!
//! ```text
//!           no router, or switched off
//!        ┌────────────────────────────┐
//!        ▼                            │
//!      idle ── addresses changed ──▶ asks ── mapped ──▶ holds ── every 20 min, addresses changed ──▶ asks
//!                                     ▲│                 │
//!                  1, 2, 4 … 30 min   └┘ refused         └── the daemon ends: gives it back
//! ```
//!
//! A router's answers are untrusted, and bounded in time and bytes.

pub mod http;
pub mod upnp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context, anyhow};
use crab_nat::pcp::{self, BaseMapRequest, Nonce};
use crab_nat::{
    InternetProtocol, PortMapping as Crab, PortMappingOptions, PortMappingType, TimeoutConfig,
    natpmp,
};
use lcroute_control::config::{Config, Silent};
use lcroute_control::status::{Mapping as Status, Protocol};
use librecast::id::{SecretKey, derive};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::inbox::{Inbox, Message};
use crate::netlink::{self, Gateway};

/// Requested lifetime of a mapping, in seconds (RFC 6886 §3.3).
const LIFETIME: u32 = 7_200;
/// Time before a renewal: less than half of the lifetime, as a restarted router loses its mappings.
const RENEW: Duration = Duration::from_secs(1_200);
/// Least time before a renewal, even for shorter lifetimes.
const RENEW_MIN: Duration = Duration::from_secs(60);
/// Shortest and longest pause after failures.
const PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(1_800));
/// Wait after a change of addresses, which precedes that of routes.
const SETTLE: Duration = Duration::from_secs(1);
/// Least time between requests to the same router after changes of addresses.
const AGAIN: Duration = Duration::from_secs(30);
/// Timeout for deleting a mapping at the daemon's end.
const END: Duration = Duration::from_secs(1);
/// Timeout for one protocol.
const PROTOCOL: Duration = Duration::from_secs(10);
/// Timeouts of 0.25, 0.5 and 1 s.
const UDP_TRIES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};

/// Returns the router to ask, by the configuration.
pub fn router(config: &Config) -> Result<Gateway, netlink::NoGateway> {
    let only = &config.ice.interfaces;
    let only = (!only.is_empty()).then_some(only.as_slice());
    netlink::gateway(&[&config.tun.name], only)
}

/// Whether an address of a router may be offered; a private one may, for hosts behind that NAT.
pub fn offerable(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    !(first == 0 || first >= 224 || ip.is_loopback() || ip.is_link_local())
}

enum Input {
    Configure(Box<Config>),
    Moved,
    End(oneshot::Sender<()>),
}

/// The task that maps the port; ends when dropped, without deleting the mapping.
#[derive(Debug)]
pub struct PortMapping {
    inputs: mpsc::Sender<Input>,
    task: JoinHandle<()>,
}

impl Drop for PortMapping {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PortMapping {
    /// Starts to ask, if the configuration permits it.
    pub fn start(inbox: Inbox, port: u16, key: &SecretKey, config: &Config) -> Self {
        let (inputs, received) = mpsc::channel(16);
        // the same after a crash: a router refuses a mapping to another nonce (RFC 6887 §11.3)
        let secret = key.sign("lcroute 2026 port mapping", &port.to_be_bytes());
        let task = Task {
            inbox,
            port,
            secret: derive("lcroute 2026 port mapping", &[&secret]),
            config: config.clone(),
            gateway: None,
            held: None,
            failures: 0,
            asked: None,
            due: Some(Instant::now()),
            told: Status::default(),
        };
        let task = tokio::spawn(task.run(received));
        Self { inputs, task }
    }

    /// Applies a new configuration.
    pub async fn configure(&self, config: &Config) {
        self.tell(Input::Configure(Box::new(config.clone()))).await;
    }

    /// Handles a change of this host's addresses.
    pub async fn moved(&self) {
        self.tell(Input::Moved).await;
    }

    /// Deletes the mapping, within a timeout; after a mere drop the next run finds it again.
    pub async fn end(self) {
        let (done, ended) = oneshot::channel();
        self.tell(Input::End(done)).await;
        let _ = timeout(END, ended).await;
    }

    async fn tell(&self, input: Input) {
        // the task lives as long as this handle
        let _ = self.inputs.send(input).await;
    }
}

struct Task {
    inbox: Inbox,
    port: u16,
    secret: [u8; 32],
    config: Config,
    gateway: Option<Gateway>,
    held: Option<Held>,
    failures: u32,
    asked: Option<Instant>,
    /// Time of the next request to the router.
    due: Option<Instant>,
    told: Status,
}

/// A mapping of a router.
#[derive(Debug)]
struct Held {
    address: SocketAddrV4,
    by: By,
    until: Instant,
    renew: Duration,
}

#[derive(Debug)]
enum By {
    /// PCP or NAT-PMP.
    Udp(Box<Crab>),
    Upnp(upnp::Mapping),
}

impl Task {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            let input = match self.due {
                Some(due) => tokio::select! {
                    input = inputs.recv() => input,
                    () = sleep_until(due) => {
                        // inputs take precedence
                        tokio::select! {
                            input = inputs.recv() => {
                                self.due = Some(Instant::now());
                                input
                            }
                            () = self.ask() => continue,
                        }
                    }
                },
                None => inputs.recv().await,
            };
            match input {
                Some(Input::Configure(config)) => self.configure(*config).await,
                Some(Input::Moved) => self.handle_moved(Instant::now()),
                Some(Input::End(done)) => {
                    self.give_back().await;
                    // the caller may have given up
                    let _ = done.send(());
                    return;
                }
                None => return,
            }
        }
    }

    async fn configure(&mut self, config: Config) {
        let ice = |config: &Config| (config.exposure().router(), config.ice.interfaces.clone());
        if ice(&config) != ice(&self.config) {
            self.give_back().await;
            self.due = Some(Instant::now());
            self.failures = 0;
        }
        self.config = config;
    }

    /// Handles a change of addresses; another network may have the same ones.
    fn handle_moved(&mut self, now: Instant) {
        let earliest = match router(&self.config).ok() {
            found if found != self.gateway => {
                self.failures = 0;
                now + SETTLE
            }
            None => return,
            Some(_) => (now + SETTLE).max(self.asked.map_or(now, |asked| asked + AGAIN)),
        };
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    async fn ask(&mut self) {
        let now = Instant::now();
        if let Err(silent) = self.config.exposure().router() {
            self.due = None;
            let why = match silent {
                Silent::Off => "[ice] map_port = false",
                Silent::Hidden => "[ice] policy = \"relay\"",
            };
            return self.tell(Some(why.into())).await;
        }
        let gateway = match router(&self.config) {
            Ok(gateway) => gateway,
            Err(e) => {
                (self.gateway, self.held, self.due) = (None, None, None);
                return self.tell(Some(e.to_string())).await;
            }
        };
        if self.gateway.replace(gateway) != Some(gateway) {
            // of another network, whose router is out of reach
            self.held = None;
        }
        self.asked = Some(now);
        let failure = match self.renew_or_map(gateway).await {
            Ok(held) => {
                self.failures = 0;
                self.due = Some(Instant::now() + held.renew);
                self.held = Some(held);
                None
            }
            Err(e) => {
                self.held.take_if(|held| held.until <= Instant::now());
                let pause = PAUSES.0 * 2_u32.saturating_pow(self.failures.min(8));
                self.failures += 1;
                self.due = Some(Instant::now() + pause.min(PAUSES.1));
                Some(format!("{e:#}"))
            }
        };
        self.tell(failure).await;
    }

    async fn renew_or_map(&mut self, gateway: Gateway) -> anyhow::Result<Held> {
        if let Some(held) = &mut self.held {
            match timeout(PROTOCOL, renew(&mut held.by, gateway, self.port)).await {
                Ok(Ok(held)) => return Ok(held),
                Ok(Err(e)) => tracing::debug!("the mapped port is not renewed: {e:#}"),
                Err(_) => tracing::debug!("the mapped port is not renewed in time"),
            }
        }
        let nonce = nonce(&self.secret, gateway);
        let mut failures = Vec::new();
        for protocol in Protocol::ALL {
            let asked = timeout(PROTOCOL, map(protocol, gateway, self.port, nonce));
            match asked.await.unwrap_or_else(|_| Err(anyhow!("no end"))) {
                Ok(held) => return Ok(held),
                Err(e) => failures.push(format!("{}: {e:#}", protocol.name())),
            }
        }
        Err(anyhow!("{}", failures.join("; ")))
    }

    async fn give_back(&mut self) {
        let Some(held) = self.held.take() else { return };
        let result = match held.by {
            By::Udp(crab) => crab.try_drop().await.map_err(|(e, _)| e.into()),
            By::Upnp(mapping) => mapping.end().await,
        };
        match result {
            Ok(()) => tracing::debug!("{} given back", held.address),
            Err(e) => tracing::debug!("{} not given back: {e:#}", held.address),
        }
    }

    /// Sends the status to the packet loop, if it has changed.
    async fn tell(&mut self, failure: Option<String>) {
        let held = self.held.as_ref();
        let status = Status {
            address: held.map(|held| SocketAddr::V4(held.address)),
            by: held.map(|held| held.by.protocol()),
            failure: failure.filter(|_| held.is_none()),
        };
        if status == self.told {
            return;
        }
        match (status.address, status.by, &status.failure) {
            (Some(address), Some(by), _) => {
                tracing::info!(
                    "the router maps {address} to UDP port {}, by {}",
                    self.port,
                    by.name()
                );
            }
            (_, _, Some(why)) => tracing::debug!("no port is mapped: {why}"),
            _ => {}
        }
        self.told = status.clone();
        self.inbox.send(Message::Mapping(status)).await;
    }
}

impl By {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Upnp(_) => Protocol::Upnp,
            Self::Udp(crab) => match crab.mapping_type() {
                PortMappingType::NatPmp => Protocol::NatPmp,
                PortMappingType::Pcp { .. } => Protocol::Pcp,
            },
        }
    }
}

/// Returns the nonce that identifies this node to a PCP server; no other host can guess it.
fn nonce(secret: &[u8; 32], gateway: Gateway) -> Nonce {
    let parts = [gateway.local.octets(), gateway.address.octets()].concat();
    let hash = derive("lcroute 2026 PCP nonce", &[secret, &parts]);
    let word = |at: usize| u32::from_be_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]);
    [word(0), word(4), word(8)]
}

async fn map(
    protocol: Protocol,
    gateway: Gateway,
    port: u16,
    nonce: Nonce,
) -> anyhow::Result<Held> {
    let router = gateway.address.into();
    let internal = NonZeroU16::new(port).context("no port")?;
    let options = PortMappingOptions {
        external_port: Some(internal),
        lifetime_seconds: Some(LIFETIME),
        timeout_config: Some(UDP_TRIES),
    };
    let udp = InternetProtocol::Udp;
    let crab = match protocol {
        Protocol::Upnp => {
            let mapping = upnp::map(gateway, port, LIFETIME).await?;
            return Ok(Held::of_upnp(mapping));
        }
        Protocol::Pcp => {
            let request = BaseMapRequest::new(router, gateway.local.into(), udp, internal);
            pcp::port_mapping(request, Some(nonce), None, options).await?
        }
        Protocol::NatPmp => natpmp::port_mapping(router, udp, internal, options).await?,
    };
    Held::of_udp(crab).await
}

async fn renew(by: &mut By, gateway: Gateway, port: u16) -> anyhow::Result<Held> {
    match by {
        By::Udp(crab) => {
            crab.renew().await?;
            Held::of_udp((**crab).clone()).await
        }
        By::Upnp(mapping) => {
            mapping.renew(gateway.local, port, LIFETIME).await?;
            Ok(Held::of_upnp(mapping.clone()))
        }
    }
}

impl Held {
    /// Creates a mapping; with NAT-PMP it asks for the address first.
    async fn of_udp(crab: Crab) -> anyhow::Result<Self> {
        let external = match crab.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => external_ip.to_canonical(),
            PortMappingType::NatPmp => {
                let asked = natpmp::external_address(crab.gateway(), Some(UDP_TRIES));
                asked.await.unwrap_or(Ipv4Addr::UNSPECIFIED).into()
            }
        };
        let port = crab.external_port().get();
        let seconds = crab.lifetime().min(LIFETIME);
        match external {
            IpAddr::V4(ip) if offerable(ip) && seconds > 0 => Ok(Self {
                address: SocketAddrV4::new(ip, port),
                by: By::Udp(Box::new(crab)),
                until: Instant::now() + Duration::from_secs(seconds.into()),
                renew: renew_after(seconds),
            }),
            ip => {
                // an unusable address
                let _ = crab.try_drop().await;
                Err(anyhow!("it maps {ip} for {seconds} s"))
            }
        }
    }

    fn of_upnp(mapping: upnp::Mapping) -> Self {
        Self {
            address: mapping.external,
            by: By::Upnp(mapping),
            until: Instant::now() + Duration::from_secs(LIFETIME.into()),
            renew: renew_after(LIFETIME),
        }
    }
}

fn renew_after(seconds: u32) -> Duration {
    let half = Duration::from_secs(seconds.into()) / 2;
    half.clamp(RENEW_MIN, RENEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_nowhere_are_not_offered() {
        for (ip, expected) in [
            ("203.0.113.5", true),
            ("10.1.2.3", true),
            ("100.64.1.2", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("169.254.3.4", false),
            ("224.0.0.1", false),
            ("239.255.255.250", false),
            ("255.255.255.255", false),
            ("240.0.0.1", false),
        ] {
            assert_eq!(offerable(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn a_router_is_asked_neither_too_often_nor_too_seldom() {
        for (lifetime, renew) in [
            (0, 60),
            (1, 60),
            (600, 300),
            (7_200, 1_200),
            (u32::MAX, 1_200),
        ] {
            assert_eq!(renew_after(lifetime).as_secs(), renew);
        }
    }

    #[test]
    fn a_nonce_is_the_same_after_a_crash_and_different_elsewhere() {
        let at = |last| Gateway {
            address: Ipv4Addr::new(192, 168, 1, 1),
            local: Ipv4Addr::new(192, 168, 1, last),
            interface: 2,
        };
        assert_eq!(nonce(&[1; 32], at(2)), nonce(&[1; 32], at(2)));
        assert_ne!(nonce(&[1; 32], at(2)), nonce(&[1; 32], at(3)));
        assert_ne!(nonce(&[1; 32], at(2)), nonce(&[2; 32], at(2)));
    }
}
