//! The configuration file: every key optional, an unknown key an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use glob::Pattern;
use lcroute_engine::Ipv4Network;
use lcroute_engine::topology::PolicyKind;
use lcroute_node::{CarrySettings, Consent, MAX_ANNOUNCED};
use lcroute_overlay::server::PER_ADDRESS;
use librecast::cert::{GroupPrefix, SourcePrefix};
use librecast::id::NetworkId;
use librecast::outside::Place;
use librecast::reach::{MAX_BOOTSTRAP, MAX_NAME, Room};
use librecast::{igmp, mapped};
use librecast_program::cli::ExitError;
use librecast_program::keyfile;
use librecast_program::metrics::Listen;
use serde::Deserialize;

use crate::streams::{Serve, Who, who};

mod exposure;
mod players;
mod relay;
mod users;
mod written;

pub use exposure::{Exposure, Silent};
pub use players::{Players, StationText};
pub use relay::{Leg, Relay, TurnUrl};
pub use written::{Reread, Written};

/// Path of the configuration if the command line names none.
pub const DEFAULT_PATH: &str = "/etc/lcroute/lcroute.toml";
/// The interface that programs see.
pub const DEFAULT_TUN: &str = "lc0";
/// MTU of `lc0` in bytes: the least that IPv6 allows (RFC 8200 5).
const DEFAULT_MTU: u16 = 1280;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This node's name for `join` and `init`; default: the host's name.
    pub name: Option<String>,
    /// Keys and membership.
    pub state_dir: Option<PathBuf>,
    /// Path of the control socket.
    pub control: Option<PathBuf>,
    /// Log filter, such as `info`.
    pub log: Option<String>,
    /// The interface.
    pub tun: Tun,
    /// Signalling carriers.
    pub signal: Signal,
    /// A Matrix room as a carrier.
    pub matrix: Matrix,
    /// Links.
    pub ice: Ice,
    /// Relays for links that cannot be made otherwise.
    pub relay: Relay,
    /// Groups and packets that are carried.
    pub network: Network,
    /// LANs that this node is a gateway of.
    #[serde(deserialize_with = "lans")]
    pub lan: Vec<Lan>,
    /// Groups whose packets are sealed from end to end.
    #[serde(deserialize_with = "private")]
    pub private: Privates,
    /// Protocols that other nodes may speak with servers of this host.
    pub serve: Vec<Serve>,
    /// The program for streams.
    pub streams: Streams,
    /// Keys outside of this host's networks.
    outside: Outside,
    /// The topology policy.
    pub topology: Topology,
    /// Transport of live packets.
    pub live: Live,
    /// Leaves: listeners that do not route.
    pub leaf: Leaf,
    /// Pages that show the network.
    pub web: Web,
    /// Groups and stations for players.
    pub players: Players,
    /// The metrics server.
    pub metrics: librecast_program::metrics::Config,
    /// The keys that the file sets.
    #[serde(skip)]
    pub written: Written,
}

/// `[streams]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// Address of its own metrics. Off by default.
    pub metrics: Option<Listen>,
}

/// Bound of all streams outside of this host's networks, in megabits a second. Chosen.
const OUTSIDE_MBIT: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// `[outside]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outside {
    /// Signalling servers where this host waits and looks for them.
    pub meet: Vec<Place>,
    /// Whether they are found by the DHT, too.
    pub dht: bool,
    /// Megabits a second of all of them together.
    pub mbit: NonZeroU32,
}

impl Default for Outside {
    fn default() -> Self {
        Self {
            meet: Vec::new(),
            dht: false,
            mbit: OUTSIDE_MBIT,
        }
    }
}

/// `[tun]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tun {
    /// Interface name.
    #[serde(deserialize_with = "interface_name")]
    pub name: String,
    /// `tun` or `tap`.
    pub mode: TunMode,
    /// Bytes, at least 1280.
    #[serde(deserialize_with = "mtu")]
    pub mtu: u16,
    /// Groups that go to the interface if a program names none.
    pub routes: Routes,
    /// Whether many packets cross in one system call, if the kernel supports it.
    pub offload: bool,
    /// Whether IPv4 groups are carried, and the addresses of nodes.
    pub ipv4: Option<Ipv4>,
}

impl Default for Tun {
    fn default() -> Self {
        Self {
            name: DEFAULT_TUN.into(),
            mode: TunMode::Tap,
            mtu: DEFAULT_MTU,
            routes: Routes::All(true),
            offload: true,
            ipv4: None,
        }
    }
}

/// `ipv4 = true | false | "10.77.0.0/16"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected true, false or private addresses such as \"10.77.0.0/16\""
)]
pub enum Ipv4 {
    /// Whether IPv4 is carried, with addresses that follow from the network.
    Carried(bool),
    /// IPv4 with these addresses, which all nodes must name.
    In(#[serde(deserialize_with = "ipv4_network")] Ipv4Network),
}

fn ipv4_network<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Ipv4Network, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// Whether the kernel accepts this name for an interface.
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    // "%d" makes the kernel choose a number; "all" and "default" are not interfaces in /proc.
    let byte = |byte: u8| byte.is_ascii_graphic() && !b"/%:".contains(&byte);
    let reserved = ["all", "default", ".", ".."].contains(&name);
    (1..=15).contains(&name.len()) && name.bytes().all(byte) && !reserved
}

fn check_interface_name(name: &str) -> Result<(), String> {
    match is_interface_name(name) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is not an interface name: 1 to 15 visible ASCII characters without / % :"
        )),
    }
}

fn interface_name<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let name = String::deserialize(d)?;
    check_interface_name(&name).map_err(serde::de::Error::custom)?;
    Ok(name)
}

fn mtu<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    let mtu = u16::deserialize(d)?;
    // below 1280 the kernel removes IPv6 from the interface, memberships included
    if (DEFAULT_MTU..=9_000).contains(&mtu) {
        Ok(mtu)
    } else {
        Err(serde::de::Error::custom(
            "mtu must lie between 1280 and 9000",
        ))
    }
}

/// Kind of interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunMode {
    /// Raw IPv6 packets, point to point.
    Tun,
    /// Ethernet frames, as on a LAN card.
    Tap,
}

/// `routes = true | false | [PREFIX...]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected true, false or a list of prefixes such as [\"ff1e::/16\"]"
)]
pub enum Routes {
    /// The scopes 8 and e, or none.
    All(bool),
    /// These prefixes.
    Some(#[serde(deserialize_with = "prefixes")] Vec<GroupPrefix>),
}

impl Routes {
    /// The prefixes to route to the interface.
    #[must_use]
    pub fn prefixes(&self) -> Vec<GroupPrefix> {
        match self {
            Self::All(false) => Vec::new(),
            Self::Some(list) => list.clone(),
            Self::All(true) => of_scopes(&[8, 0xe]),
        }
    }
}

/// Returns all groups of these scopes that are well-known, transient, or of a unicast prefix.
fn of_scopes(scopes: &[u16]) -> Vec<GroupPrefix> {
    let prefix = |high: u16| GroupPrefix::new(Ipv6Addr::new(high, 0, 0, 0, 0, 0, 0, 0), 16).ok();
    let kinds = scopes
        .iter()
        .flat_map(|scope| [0xff00, 0xff10, 0xff30].map(|kind| kind | scope));
    kinds.filter_map(prefix).collect()
}

fn prefixes<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<GroupPrefix>, D::Error> {
    let list = Vec::<String>::deserialize(d)?;
    let mut all = Vec::new();
    for text in &list {
        let prefixes = GroupPrefix::all_of(text);
        all.extend(prefixes.map_err(|e| serde::de::Error::custom(format!("`{text}`: {e}")))?);
    }
    Ok(all)
}

/// Returns 239.0.0.0/8 without 239.255.0.0/16: SSDP and sACN stay on the LAN of their devices.
fn ipv4_routes() -> Vec<GroupPrefix> {
    let prefix = |(second, len): (u8, u8)| {
        let first = mapped::name(Ipv4Addr::new(239, second, 0, 0));
        GroupPrefix::new(first, mapped::PREFIX_LEN + len).ok()
    };
    // 239.0/9, 239.128/10, 239.192/11 and so on
    let parts = (9..=16).map(|len: u8| (!(0xff_u8 >> (len - 9)), len));
    parts.filter_map(prefix).collect()
}

/// `[signal]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signal {
    /// `ws://HOST:PORT` or `wss://HOST:PORT`, in addition to the token's.
    #[serde(deserialize_with = "signal_urls")]
    pub servers: Vec<String>,
    /// Address of a signalling server that the daemon runs.
    pub listen: Option<SocketAddr>,
    /// Whether to find nodes on the LANs of this host by multicast DNS.
    lan: bool,
    /// A folder shared with other nodes, which find each other by files in it.
    spool: Option<PathBuf>,
    /// Whether to keep presence records in a DHT, and search it for absent members.
    dht: bool,
    /// Nodes for joining the DHT, `HOST:PORT`; default: well-known ones of BitTorrent.
    #[serde(deserialize_with = "dht_nodes")]
    dht_bootstrap: Vec<String>,
    /// A SOCKS5 proxy, such as Tor's, for connections to signalling servers.
    pub socks: Option<SocketAddr>,
    /// A web proxy that passes connections to signalling servers and relays, `http://HOST:PORT`;
    /// default: from the environment.
    #[serde(deserialize_with = "web_proxy")]
    pub https_proxy: Option<String>,
    /// A file with `USER:PASSWORD` for it.
    pub https_proxy_login: Option<PathBuf>,
    /// Most connections that a signalling server takes from one IPv4 address or IPv6 /64.
    pub per_address: NonZeroU32,
}

impl Signal {
    /// Returns nodes for joining the DHT; an empty list stands for well-known ones.
    #[must_use]
    pub fn dht_entries(&self) -> &[String] {
        &self.dht_bootstrap
    }
}

impl Default for Signal {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            listen: None,
            lan: true,
            spool: None,
            dht: false,
            dht_bootstrap: Vec::new(),
            socks: None,
            https_proxy: None,
            https_proxy_login: None,
            per_address: const { NonZeroU32::new(PER_ADDRESS).unwrap() },
        }
    }
}

impl Signal {
    /// Returns the bound per address: of the command line, or of the configuration.
    pub fn per_address(&self, flag: Option<u32>) -> usize {
        flag.unwrap_or(self.per_address.get()) as usize
    }
}

/// `[matrix]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Matrix {
    /// The server of this node's account: `https://HOST` or `https://HOST:PORT`.
    #[serde(deserialize_with = "homeserver")]
    pub homeserver: Option<String>,
    /// The room; default: the token's, if it names one.
    pub room: Option<Room>,
    /// The account, `@NAME:SERVER`; default: the access token's.
    #[serde(deserialize_with = "matrix_user")]
    pub user: Option<String>,
    /// File with the account's access token.
    #[serde(rename = "token-file")]
    pub token_file: Option<PathBuf>,
}

fn homeserver<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(d)?;
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let authority = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let printable = text.len() <= MAX_NAME && text.bytes().all(|b| b.is_ascii_graphic());
    match authority {
        Some(authority)
            if printable && !authority.contains('/') && is_authority(authority, false) =>
        {
            Ok(Some(text))
        }
        _ => Err(serde::de::Error::custom(format!(
            "`{text}`: write it as https://HOST or https://HOST:PORT"
        ))),
    }
}

fn matrix_user<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(d)?;
    let parts = text.strip_prefix('@').and_then(|rest| rest.split_once(':'));
    let printable = text.len() <= MAX_NAME && text.bytes().all(|b| b.is_ascii_graphic());
    match parts {
        Some((name, server)) if printable && !name.is_empty() && !server.is_empty() => {
            Ok(Some(text))
        }
        _ => Err(serde::de::Error::custom(format!(
            "`{text}`: write it as @NAME:SERVER"
        ))),
    }
}

/// Parses `ws://HOST:PORT` or `wss://HOST:PORT`, with or without a path.
pub fn signal_url(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("ws://")
        .or_else(|| text.strip_prefix("wss://"));
    let authority = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let printable = text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
    match authority {
        Some(authority) if printable && is_authority(authority, false) => Ok(text.to_owned()),
        _ => Err("write it as ws://HOST:7117 or wss://HOST:7117".into()),
    }
}

/// Whether this is `HOST` or `HOST:PORT`; IPv6 addresses in brackets.
fn is_authority(text: &str, needs_port: bool) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((ip, port)) if ip.parse::<Ipv6Addr>().is_ok() => (ip, port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_fits = match port.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|port| port != 0),
        None => port.is_empty() && !needs_port,
    };
    !host.is_empty() && !host.contains(['@', '?', '#']) && port_fits
}

fn signal_urls<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<String>::deserialize(d)?;
    for url in &list {
        signal_url(url).map_err(|e| serde::de::Error::custom(format!("`{url}`: {e}")))?;
    }
    Ok(list)
}

fn web_proxy<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(d)?;
    let problem = match text.strip_prefix("http://") {
        Some(at) if at.contains('@') => "the user and password belong into https_proxy_login",
        Some(at) if is_authority(at.strip_suffix('/').unwrap_or(at), true) => {
            return Ok(Some(text));
        }
        _ => "write it as http://HOST:PORT",
    };
    Err(serde::de::Error::custom(problem))
}

fn dht_nodes<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let list = stun_servers(d)?;
    // a host name has at most 253 characters
    if list.len() > MAX_BOOTSTRAP || list.iter().any(|name| name.len() > 260) {
        let message = format!("at most {MAX_BOOTSTRAP} nodes, with names of 253 characters");
        return Err(serde::de::Error::custom(message));
    }
    Ok(list)
}

fn stun_servers<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<String>::deserialize(d)?;
    match list.iter().find(|name| !is_authority(name, true)) {
        Some(name) => Err(serde::de::Error::custom(format!(
            "`{name}`: write it as HOST:PORT"
        ))),
        None => Ok(list),
    }
}

/// `[ice]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ice {
    /// More STUN servers, `HOST:PORT`; every signalling server is one already.
    #[serde(deserialize_with = "stun_servers")]
    stun: Vec<String>,
    /// The UDP port of all links; 0 lets the system choose.
    pub port: u16,
    /// Interfaces whose addresses are used; empty: all.
    pub interfaces: Vec<String>,
    /// Whether to ask the router to map the port.
    map_port: bool,
    /// The paths of links to members that `disclose` does not name.
    policy: IcePolicy,
    /// Members to which this host discloses its addresses although the policy is `relay`.
    #[serde(deserialize_with = "disclosed")]
    disclose: Vec<Who>,
}

/// The paths that links may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IcePolicy {
    /// The best path.
    #[default]
    All,
    /// Relays alone: the peer does not learn this host's addresses.
    Relay,
}

/// Refuses node names: a node chooses its own name.
fn disclosed<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Who>, D::Error> {
    let texts = Vec::<String>::deserialize(d)?;
    let list = who(&texts).map_err(serde::de::Error::custom)?;
    match list.iter().find(|who| matches!(who, Who::Name(_))) {
        Some(Who::Name(name)) => Err(serde::de::Error::custom(format!(
            "`{name}`: a node chooses its name itself; write label:key=value, book:NAME or a PeerId"
        ))),
        _ => Ok(list),
    }
}

impl Default for Ice {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            port: 0,
            interfaces: Vec::new(),
            map_port: true,
            policy: IcePolicy::default(),
            disclose: Vec::new(),
        }
    }
}

/// `[leaf]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Leaf {
    /// Most links with leaves at a time; 0: none. A leaf has two, with two routers.
    #[serde(deserialize_with = "max_leaves")]
    pub max: u16,
    /// Bound for packets to all leaves together, in Mbit/s.
    pub mbit: NonZeroU32,
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            max: 512,
            mbit: NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// Most links with leaves that can be configured: each takes about 200 kB of memory.
const MAX_LEAVES: u16 = 4_096;

fn max_leaves<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u16, D::Error> {
    let max = u16::deserialize(d)?;
    if max > MAX_LEAVES {
        let message = format!("at most {MAX_LEAVES} links with leaves");
        return Err(serde::de::Error::custom(message));
    }
    Ok(max)
}

/// `[web]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// Address at which `lcroute web` serves its pages.
    pub listen: SocketAddr,
    /// Host names of the pages, beside localhost and addresses.
    pub names: Vec<String>,
    /// Whether to report this node's groups to nodes that watch the network.
    pub report: bool,
    /// Whether to make invitations for pages whose user has the code of `lcroute web --code`.
    pub invite: bool,
    /// Whether users with the pages' key may read and write in this host's groups of lcgroup.
    pub groups: bool,
    /// Certificates of the pages' TLS, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Their key, PEM.
    pub tls_key: Option<PathBuf>,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 7180),
            names: Vec::new(),
            report: false,
            invite: false,
            groups: false,
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// `[live]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Live {
    /// Whether to offer the media lane (SRTP); otherwise data channels carry everything.
    pub media: bool,
    /// Longest wait of a packet for a slow link, in milliseconds.
    pub queue_ms: u16,
    /// Largest delay of a packet by repair, in milliseconds; 0: no repair.
    pub repair_ms: u16,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            media: true,
            queue_ms: 20,
            repair_ms: 25,
        }
    }
}

/// `[network]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Settings for a purpose; explicit settings override it.
    pub profile: Option<Profile>,
    unicast: Option<bool>,
    /// Groups of this node, which is the root of their tree.
    #[serde(deserialize_with = "announced")]
    pub announce: Vec<GroupPrefix>,
    /// Groups whose listeners local programs need to know (by MLD reports) before they send.
    #[serde(deserialize_with = "watched")]
    pub watch: Vec<GroupPrefix>,
    /// Groups of scope 2 that are carried, such as `ff02::fb`.
    #[serde(deserialize_with = "link_scope_groups")]
    link_scope_groups: Vec<Ipv6Addr>,
    /// Bits a second that this host can send; 0: one copy, wherever a router carries. Not set: found out.
    #[serde(deserialize_with = "upload")]
    pub upload: Option<u64>,
    /// The senders for which this router carries groups.
    pub carry: Carry,
    /// Bits a second that this router forwards for others.
    #[serde(deserialize_with = "pass_on")]
    pub pass_on: Option<u64>,
}

/// The IPv4 equivalents: all hosts (UDP only), OSPF (two), RIP, VRRP, mDNS, LLMNR.
const LAN_GROUPS_IPV4: [Ipv4Addr; 7] = [
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(224, 0, 0, 5),
    Ipv4Addr::new(224, 0, 0, 6),
    Ipv4Addr::new(224, 0, 0, 9),
    Ipv4Addr::new(224, 0, 0, 18),
    Ipv4Addr::new(224, 0, 0, 251),
    Ipv4Addr::new(224, 0, 0, 252),
];

/// `[network] carry`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carry {
    /// Senders of groups that something here listens to; neighbours, as long as one copy is passed on.
    #[default]
    Joined,
    /// Every member.
    Any,
    /// Nobody.
    No,
}

/// `profile = "lan"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A network of friends: lc0 resembles a LAN as far as possible.
    Lan,
}

/// Groups of scope 2 for discovery on a LAN: all nodes (UDP only), OSPF (two), RIPng, SSDP, VRRP,
/// mDNS, CoAP, LLMNR, Babel, Syncthing.
const LAN_GROUPS: [Ipv6Addr; 11] = [
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 5),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 6),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 9),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfd),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 6),
    Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0, 0x8384),
];

impl Network {
    /// Whether unicast between node addresses is carried: this opens the host's ports to members.
    #[must_use]
    pub fn unicast(&self) -> bool {
        self.unicast.unwrap_or(self.profile == Some(Profile::Lan))
    }

    /// The uplink, as the router takes it.
    #[must_use]
    pub fn carry(&self) -> CarrySettings {
        let consent = match self.carry {
            Carry::Joined => Consent::Joined,
            Carry::Any => Consent::Any,
            Carry::No => Consent::No,
        };
        CarrySettings {
            upload: self.upload,
            consent,
            pass_on: self.pass_on,
        }
    }

    /// Returns the groups of scope 2 that are carried.
    #[must_use]
    pub fn link_scope_groups(&self) -> Vec<Ipv6Addr> {
        let mut groups = self.link_scope_groups.clone();
        if self.profile == Some(Profile::Lan) {
            groups.extend(LAN_GROUPS);
            groups.extend(LAN_GROUPS_IPV4.map(mapped::name));
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

fn link_scope_groups<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Ipv6Addr>, D::Error> {
    let list = Vec::<IpAddr>::deserialize(d)?;
    if let Some(name) = list
        .iter()
        .find(|group| matches!(group, IpAddr::V6(g) if mapped::is_group_name(*g)))
    {
        let message = format!("`{name}` is reserved for IPv4; write groups of IPv4 with dots");
        return Err(serde::de::Error::custom(message));
    }
    let list: Vec<_> = list.into_iter().map(mapped::name_of).collect();
    let reserved = |group: &Ipv6Addr| {
        if let Some(group) = mapped::ipv4(*group) {
            return [igmp::ALL_ROUTERS, igmp::ALL_IGMPV3_ROUTERS].contains(&group);
        }
        // all routers, MLDv2 routers: these stay on the host
        let low = group.segments();
        low[0] == 0xff02 && low[1..7] == [0; 6] && matches!(low[7], 2 | 0x16)
    };
    for group in &list {
        if !group.is_multicast() || group.segments()[0] & 0xf != 2 {
            let group = mapped::shown(*group);
            return Err(serde::de::Error::custom(format!(
                "`{group}` is not a group of scope 2 (ffx2::, 224.0.0.x)"
            )));
        }
        if reserved(group) {
            return Err(serde::de::Error::custom(format!(
                "`{}` is never carried",
                mapped::shown(*group)
            )));
        }
    }
    Ok(list)
}

/// Most prefixes that one node watches.
const MAX_WATCHED: usize = 64;

fn announced<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<GroupPrefix>, D::Error> {
    some_prefixes(d, MAX_ANNOUNCED)
}

fn watched<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<GroupPrefix>, D::Error> {
    some_prefixes(d, MAX_WATCHED)
}

fn some_prefixes<'de, D: serde::Deserializer<'de>>(
    d: D,
    most: usize,
) -> Result<Vec<GroupPrefix>, D::Error> {
    let mut list = prefixes(d)?;
    list.sort_unstable();
    list.dedup();
    if list.len() > most {
        let message = format!("{} prefixes: at most {most}", list.len());
        return Err(serde::de::Error::custom(message));
    }
    Ok(list)
}

/// `[[lan]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lan {
    /// The interface, or a shell pattern: each matching interface is on a LAN of its own.
    #[serde(deserialize_with = "interface_names")]
    pub interface: String,
    /// Groups that are carried.
    #[serde(default = "Lan::groups", deserialize_with = "prefixes")]
    pub groups: Vec<GroupPrefix>,
    /// Whether its hosts may send into the network.
    #[serde(default = "Lan::yes")]
    pub send: bool,
    /// Whether its hosts receive packets of the network.
    #[serde(default = "Lan::yes")]
    pub receive: bool,
    /// Addresses of its hosts; empty: the prefixes that are on link.
    #[serde(default, deserialize_with = "sources")]
    pub sources: Vec<SourcePrefix>,
    /// Bound for packets of its hosts together, in bits a second.
    #[serde(default = "Lan::rate", deserialize_with = "rate")]
    pub rate: u64,
    /// Bound for packets that are sent into it, in bits a second.
    #[serde(default = "Lan::rate", deserialize_with = "rate")]
    pub rate_out: u64,
    /// Rank among gateways: the greatest serves, all else being equal.
    #[serde(default)]
    pub priority: u8,
    /// Link-local messages that gateways repeat on other links.
    #[serde(default)]
    pub reflect: Vec<Reflected>,
    /// Whether its hosts get a prefix for their addresses.
    #[serde(default)]
    pub advertise: bool,
    /// Name of the segment: all LANs with it are one LAN for their hosts.
    #[serde(default, deserialize_with = "segment")]
    pub segment: Option<String>,
    /// A free address of the LAN to which its router sends packets for the segment's other subnets.
    #[serde(default)]
    pub router: Option<Ipv4Addr>,
    /// Bound for broadcast and link-local groups of a segment that leave it, in bits a second.
    #[serde(default = "Lan::broadcast", deserialize_with = "rate")]
    pub broadcast: u64,
}

/// `reflect = ["mdns"]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reflected {
    /// Multicast DNS, for service discovery.
    Mdns,
}

/// Most LANs of one node: the bound of an advertisement.
pub const MAX_LANS: usize = 8;

/// Longest pattern, in bytes. Chosen: interface names have at most 15 characters.
const MAX_PATTERN: usize = 64;

/// Whether this text stands for several names.
fn is_pattern(names: &str) -> bool {
    names.contains(['*', '?', '['])
}

fn interface_names<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let names = String::deserialize(d)?;
    if !is_pattern(&names) {
        check_interface_name(&names).map_err(serde::de::Error::custom)?;
    } else if names.len() > MAX_PATTERN {
        let message = format!("a pattern of more than {MAX_PATTERN} characters");
        return Err(serde::de::Error::custom(message));
    } else if let Err(e) = Pattern::new(&names) {
        let message = format!("`{names}` is not a pattern: {}", e.msg);
        return Err(serde::de::Error::custom(message));
    }
    Ok(names)
}

impl Lan {
    /// Whether it carries IPv4 groups.
    #[must_use]
    pub fn has_ipv4_groups(&self) -> bool {
        self.groups.iter().any(|prefix| prefix.as_ipv4().is_some())
    }

    /// Whether its interface is a pattern of names.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        is_pattern(&self.interface)
    }

    /// Whether it is on the interface of this name.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        match self.is_pattern() {
            // parsing checked the pattern
            true => Pattern::new(&self.interface).is_ok_and(|pattern| pattern.matches(name)),
            false => self.interface == name,
        }
    }

    /// Returns why keys of this section exclude each other.
    fn contradiction(&self) -> Option<&'static str> {
        let has_ipv4_sources = self.sources.iter().any(|prefix| is_ipv4(*prefix));
        if self.segment.is_none() && has_ipv4_sources {
            return Some("IPv4 prefixes in `sources` are for a LAN with `segment`");
        }
        if self.segment.is_none() && self.router.is_some() {
            return Some("`router` is for a LAN with `segment`");
        }
        let reflects = self.segment.is_some() && self.reflects_mdns();
        reflects.then_some("a segment carries multicast DNS as it is: leave out `reflect`")
    }

    /// Whether multicast DNS is reflected from and to other links.
    #[must_use]
    pub fn reflects_mdns(&self) -> bool {
        self.reflect.contains(&Reflected::Mdns)
    }

    fn groups() -> Vec<GroupPrefix> {
        of_scopes(&[8, 0xe])
    }

    fn yes() -> bool {
        true
    }

    fn rate() -> u64 {
        100_000_000
    }

    fn broadcast() -> u64 {
        5_000_000
    }
}

fn lans<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<Lan>, D::Error> {
    let lans = Vec::<Lan>::deserialize(d)?;
    if lans.len() > MAX_LANS {
        let message = format!("{} LANs: at most {MAX_LANS}", lans.len());
        return Err(serde::de::Error::custom(message));
    }
    for (at, lan) in lans.iter().enumerate() {
        if lans[..at]
            .iter()
            .any(|other| other.interface == lan.interface)
        {
            let message = format!("`{}` is given twice", lan.interface);
            return Err(serde::de::Error::custom(message));
        }
        if let Some(problem) = lan.contradiction() {
            let message = format!("`{}`: {problem}", lan.interface);
            return Err(serde::de::Error::custom(message));
        }
    }
    Ok(lans)
}

fn sources<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<SourcePrefix>, D::Error> {
    let list = Vec::<String>::deserialize(d)?;
    let parse = |s: &String| match ipv4_source(s).map_or_else(|| s.parse(), Ok) {
        Ok(prefix) if prefix.prefix_len() >= 16 => Ok(prefix),
        Ok(_) => Err(serde::de::Error::custom(format!("`{s}`: at least 16 bits"))),
        Err(e) => Err(serde::de::Error::custom(format!("`{s}`: {e}"))),
    };
    list.iter().map(parse).collect::<Result<_, D::Error>>()
}

/// Returns a prefix of IPv4, as one of mapped addresses (RFC 4291 §2.5.5.2).
fn ipv4_source(text: &str) -> Option<SourcePrefix> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    let address: Ipv4Addr = address.parse().ok()?;
    let length: u8 = length.parse().ok().filter(|length| *length <= 32)?;
    SourcePrefix::new(address.to_ipv6_mapped(), MAPPED_LEN + length).ok()
}

/// Length of the prefix of mapped IPv4 addresses (RFC 4291 §2.5.5.2).
const MAPPED_LEN: u8 = 96;

/// Whether it is a prefix of IPv4.
#[must_use]
pub fn is_ipv4(prefix: SourcePrefix) -> bool {
    as_ipv4(&prefix).is_some()
}

/// Returns address and length of a prefix of IPv4.
#[must_use]
pub fn as_ipv4(prefix: &SourcePrefix) -> Option<(Ipv4Addr, u8)> {
    let length = prefix.prefix_len().checked_sub(MAPPED_LEN)?;
    Some((prefix.addr().to_ipv4_mapped()?, length))
}

fn segment<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(d)?;
    match is_segment_name(&name) {
        true => Ok(Some(name)),
        false => Err(serde::de::Error::custom(format!(
            "`{name}`: 1 to 63 visible characters, as a label of certificates"
        ))),
    }
}

/// Longest name of a segment in bytes, as of a label.
const MAX_SEGMENT_NAME: usize = 63;

/// Whether it can be the name of a segment: the value of a certificate's label.
#[must_use]
pub fn is_segment_name(name: &str) -> bool {
    (1..=MAX_SEGMENT_NAME).contains(&name.len()) && librecast::plain::is_name(name)
}

/// A rate, or `0`.
fn upload<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(d)?;
    if text.trim() == "0" {
        return Ok(Some(0));
    }
    let parsed = librecast_program::units::parse_rate(&text);
    let error = |e| serde::de::Error::custom(format!("`{text}`: {e}, or 0 for one copy always"));
    parsed.map(Some).map_err(error)
}

fn pass_on<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    rate(d).map(Some)
}

fn rate<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    let text = String::deserialize(d)?;
    librecast_program::units::parse_rate(&text)
        .map_err(|e| serde::de::Error::custom(format!("`{text}`: {e}")))
}

/// All `[[private]]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privates {
    /// Those with `prefix`.
    pub prefixes: Vec<Private>,
    /// Those with `segment`.
    pub segments: Vec<SealedSegment>,
}

impl Privates {
    /// Whether nothing is private.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.segments.is_empty()
    }

    /// Resolves relative key files against the configuration's folder.
    fn resolve(&mut self, folder: &Path) {
        for private in &mut self.prefixes {
            private.resolve(folder);
        }
        for SealedSegment { keyfile, next, .. } in &mut self.segments {
            resolve([Some(keyfile), next.as_mut()], folder);
        }
    }
}

/// `[[private]]` of a segment: its gateways seal all packets for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSegment {
    /// The segment's name.
    pub segment: String,
    /// The gateways' shared key, made by `lcroute keygen`, or `credential:NAME`.
    pub keyfile: PathBuf,
    /// The next key, which opens packets already.
    pub next: Option<PathBuf>,
}

/// `[[private]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivateTable {
    #[serde(default, deserialize_with = "some_prefix")]
    prefix: Option<GroupPrefix>,
    #[serde(default, deserialize_with = "segment")]
    segment: Option<String>,
    keyfile: Option<PathBuf>,
    next: Option<PathBuf>,
    #[serde(default)]
    lans: bool,
}

/// `[[private]]` of a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Private {
    /// Its groups.
    pub prefix: GroupPrefix,
    /// The members' shared key, made by `lcroute keygen`, or `credential:NAME`; without it this
    /// host sends and receives nothing of the prefix.
    pub keyfile: Option<PathBuf>,
    /// The next key, which opens packets already.
    pub next: Option<PathBuf>,
    /// Whether hosts of LANs send to these groups and receive them, in clear.
    pub lans: bool,
}

impl Private {
    fn resolve(&mut self, folder: &Path) {
        resolve([self.keyfile.as_mut(), self.next.as_mut()], folder);
    }
}

/// Resolves relative key files against a folder.
fn resolve(files: [Option<&mut PathBuf>; 2], folder: &Path) {
    for file in files.into_iter().flatten() {
        if !keyfile::is_credential(file) {
            *file = folder.join(&file);
        }
    }
}

/// Most private prefixes of one node: each sent or joined group is searched among them.
const MAX_PRIVATE: usize = 64;

fn some_prefix<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<GroupPrefix>, D::Error> {
    let text = String::deserialize(d)?;
    let prefix: GroupPrefix = text
        .parse()
        .map_err(|e| serde::de::Error::custom(format!("`{text}`: {e}")))?;
    match prefix.as_ipv4() {
        Some(_) => Err(serde::de::Error::custom(format!(
            "`{text}`: packets of IPv4 groups are not sealed"
        ))),
        None => Ok(Some(prefix)),
    }
}

fn private<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Privates, D::Error> {
    use serde::de::Error;
    let list = Vec::<PrivateTable>::deserialize(d)?;
    if list.len() > MAX_PRIVATE {
        let message = format!("{} private prefixes: at most {MAX_PRIVATE}", list.len());
        return Err(Error::custom(message));
    }
    let twice = |what: &dyn std::fmt::Display| Error::custom(format!("`{what}` is given twice"));
    let mut private = Privates::default();
    for table in list {
        let PrivateTable {
            prefix,
            segment,
            keyfile,
            next,
            lans,
        } = table;
        match (prefix, segment) {
            (Some(prefix), None) => {
                if private.prefixes.iter().any(|p| p.prefix == prefix) {
                    return Err(twice(&prefix));
                }
                private.prefixes.push(Private {
                    prefix,
                    keyfile,
                    next,
                    lans,
                });
            }
            (None, Some(segment)) => {
                if private.segments.iter().any(|s| s.segment == segment) {
                    return Err(twice(&segment));
                }
                if lans {
                    let message = "`lans` is for a `prefix`: hosts have a segment always";
                    return Err(Error::custom(message));
                }
                let missing = || Error::custom("a segment needs a `keyfile`");
                private.segments.push(SealedSegment {
                    segment,
                    keyfile: keyfile.ok_or_else(missing)?,
                    next,
                });
            }
            _ => return Err(Error::custom("name `prefix` or `segment`, one of them")),
        }
    }
    Ok(private)
}

/// `[topology]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// The topology policy.
    pub policy: PolicyKind,
    /// Number of links of a node under `regular`.
    #[serde(deserialize_with = "degree")]
    pub degree: u8,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            policy: PolicyKind::Auto,
            degree: 8,
        }
    }
}

/// Permitted degrees. With two links a network is one ring, which two dead nodes cut in half.
const DEGREES: std::ops::RangeInclusive<u8> = 2..=64;

fn degree<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u8, D::Error> {
    let degree = u64::deserialize(d)?;
    match u8::try_from(degree) {
        Ok(degree) if DEGREES.contains(&degree) => Ok(degree),
        _ => Err(serde::de::Error::custom("degree must lie between 2 and 64")),
    }
}

impl Config {
    /// Reads `path`; without it the default file, if that exists.
    pub fn load(path: Option<&Path>) -> Result<Self, ExitError> {
        let (path, required) = match path {
            Some(path) => (path, true),
            None => (Path::new(DEFAULT_PATH), false),
        };
        if !required && matches!(path.try_exists(), Ok(false)) {
            return Ok(Self::default());
        }
        use librecast_program::config::{parse, read_text};
        let (file, text) = (path.display().to_string(), read_text(path)?);
        let mut config: Self = parse(&file, &text)?;
        config.written = Written::from(parse::<toml::Table>(&file, &text)?);
        let folder = path.parent().unwrap_or(Path::new(""));
        config.private.resolve(folder);
        if let Some(file) = config.matrix.token_file.as_mut()
            && !keyfile::is_credential(file)
        {
            *file = folder.join(&file);
        }
        Ok(config)
    }

    /// Returns the groups that go to lc0 if a program names no interface. Private prefixes among
    /// them have routes of their own, as the routes that close them are longer.
    #[must_use]
    pub fn routes(&self) -> Vec<GroupPrefix> {
        let mut routes = self.tun.routes.prefixes();
        if self.network.profile == Some(Profile::Lan) && self.tun.routes == Routes::All(true) {
            routes.extend(of_scopes(&[5]));
        }
        if self.tun.routes == Routes::All(true) && self.carries_ipv4() {
            routes.extend(ipv4_routes());
        }
        let is_longer = |prefix: &GroupPrefix| {
            routes.iter().any(|route| route.covers(prefix)) && !routes.contains(prefix)
        };
        let private: Vec<_> = self.closed().into_iter().filter(is_longer).collect();
        routes.extend(private);
        routes
    }

    /// Returns the groups that programs reach only by lc0.
    #[must_use]
    pub fn closed(&self) -> Vec<GroupPrefix> {
        self.private
            .prefixes
            .iter()
            .map(|private| private.prefix)
            .collect()
    }

    /// Whether IPv4 is carried for this host.
    #[must_use]
    pub fn carries_ipv4(&self) -> bool {
        match self.tun.ipv4 {
            None => self.network.profile == Some(Profile::Lan),
            Some(ipv4) => ipv4 != Ipv4::Carried(false),
        }
    }

    /// Returns the addresses of nodes of a network, if IPv4 is carried.
    #[must_use]
    pub fn ipv4_network(&self, network: &NetworkId) -> Option<Ipv4Network> {
        let network = match self.tun.ipv4 {
            Some(Ipv4::In(network)) => network,
            _ => Ipv4Network::of(network),
        };
        self.carries_ipv4().then_some(network)
    }

    /// Parses the text of a file called `file`; errors name file, line and key.
    pub fn parse(file: &str, text: &str) -> Result<Self, ExitError> {
        librecast_program::config::parse(file, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use librecast_program::cli::Exit;

    #[test]
    fn hosts_of_a_segment_may_be_limited_by_ipv4_and_ipv6() {
        let text = "[[lan]]\ninterface = \"lan0\"\nsegment = \"home\"\nsources = [\"192.168.1.64/26\", \"192.168.1.9\", \"2001:db8::/64\"]\n";
        let lan = Config::parse("f", text).unwrap().lan.remove(0);
        assert_eq!(
            (lan.segment.as_deref(), lan.broadcast),
            (Some("home"), 5_000_000)
        );
        let ipv4: Vec<_> = lan.sources.iter().map(as_ipv4).collect();
        let [a, b] = [
            Ipv4Addr::new(192, 168, 1, 64),
            Ipv4Addr::new(192, 168, 1, 9),
        ];
        assert_eq!(ipv4, [Some((a, 26)), Some((b, 32)), None]);
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            name = "alpha"
            state_dir = "/s"
            control = "/c"
            log = "debug"
            [tun]
            name = "lc1"
            mode = "tap"
            mtu = 1400
            routes = ["ff15::/16"]
            offload = false
            [signal]
            servers = ["ws://a:7117"]
            listen = "[::]:7117"
            [matrix]
            homeserver = "https://a.example:8448/"
            room = "!r:a.example"
            user = "@me:a.example"
            token-file = "matrix.token"
            [ice]
            stun = ["b:3478"]
            port = 7000
            interfaces = ["eth0"]
            policy = "relay"
            disclose = ["label:friend=yes", "book:friends"]
            [relay]
            serve = false
            private = true
            rate = "1M"
            rate_total = "2M"
            addresses = ["198.51.100.1"]
            turn = ["turn:relay.example:3478"]
            user = "u"
            password_file = "/p"
            secret_file = "/s"
            [network]
            link_scope_groups = ["ff02::fb"]
            unicast = true
            announce = ["ff1e:2::/32", "ff1e:1::/32", "ff1e:2::/32"]
            watch = ["ff00::/8"]
            [[private]]
            prefix = "ff1e:7::/32"
            keyfile = "team.key"
            next = "credential:next"
            lans = true
            [[serve]]
            protocol = "/ssh/1"
            to = "127.0.0.1:22"
            allow = ["label:role=admin", "beta"]
            [topology]
            policy = "regular"
            degree = 3
            [live]
            media = false
            queue_ms = 5
            repair_ms = 0
            [metrics]
            listen = "[::1]:9117"
        "#;
        let c = Config::parse("f", text).unwrap();
        assert_eq!(c.metrics.listen, "[::1]:9117".parse().ok());
        assert_eq!(Config::parse("f", "").unwrap().metrics.listen, None);
        assert_eq!((c.tun.mode, c.tun.offload), (TunMode::Tap, false));
        assert!(Config::parse("f", "").unwrap().tun.offload);
        assert_eq!(c.tun.routes.prefixes(), ["ff15::/16".parse().unwrap()]);
        assert_eq!(c.network.link_scope_groups().len(), 1);
        assert!(c.network.unicast() && !Config::parse("f", "").unwrap().network.unicast());
        let announced: Vec<_> = c.network.announce.iter().map(ToString::to_string).collect();
        assert_eq!(announced, ["ff1e:1::/32", "ff1e:2::/32"]);
        assert_eq!(c.network.watch, [GroupPrefix::ALL]);
        let lan = |more: &str| Config::parse("f", &format!("[network]\nprofile = \"lan\"\n{more}"));
        let friends = lan("link_scope_groups = [\"ff02::99\", \"ff02::fb\"]").unwrap();
        assert_eq!(
            friends.network.link_scope_groups().len(),
            LAN_GROUPS.len() + LAN_GROUPS_IPV4.len() + 1
        );
        // eight of them for IPv4
        assert!(friends.network.unicast() && friends.routes().len() == 9 + 8);
        assert!(friends.carries_ipv4());
        assert!(!lan("unicast = false").unwrap().network.unicast());
        assert_eq!(
            lan("[tun]\nroutes = [\"ff15::/16\"]")
                .unwrap()
                .routes()
                .len(),
            1
        );
        assert!(c.exposure().hides() && c.exposure().disclosed().len() == 2);
        assert!(!Config::parse("f", "").unwrap().exposure().hides());
        assert_eq!(c.serve[0].allow.len(), 2);
        let serve = |more: &str| {
            let text = format!("[[serve]]\nprotocol = \"/x\"\nto = \"127.0.0.1:22\"\n{more}");
            Config::parse("f", &text).map(|c| c.serve)
        };
        assert!(serve("").unwrap()[0].allow.is_empty(), "nobody by default");
        for bad in ["allow = [\"label:x\"]", "user = \"root\"", "allow_all = 1"] {
            assert_eq!(serve(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        let matrix = c.matrix.clone();
        assert_eq!(
            matrix.homeserver.as_deref(),
            Some("https://a.example:8448/")
        );
        assert_eq!(matrix.room.unwrap().as_str(), "!r:a.example");
        assert_eq!(matrix.user.as_deref(), Some("@me:a.example"));
        assert_eq!(matrix.token_file, Some("matrix.token".into()));
        let mut private = c.private.prefixes[0].clone();
        private.resolve(Path::new("/etc/lcroute"));
        assert_eq!(private.prefix, "ff1e:7::/32".parse().unwrap());
        assert_eq!(private.keyfile, Some("/etc/lcroute/team.key".into()));
        assert_eq!(private.next, Some("credential:next".into()));
        assert!(private.lans);
        let topology = (c.topology.policy, c.topology.degree);
        assert_eq!(topology, (PolicyKind::Regular, 3));
        let default = Config::parse("f", "").unwrap().topology;
        assert_eq!((default.policy, default.degree), (PolicyKind::Auto, 8));
        let expected = Live {
            media: false,
            queue_ms: 5,
            repair_ms: 0,
        };
        assert_eq!(c.live, expected);
        assert_eq!(
            Config::parse("f", "").unwrap().tun.routes.prefixes().len(),
            6
        );
        assert!(
            Config::parse("f", "[tun]\nroutes = false")
                .unwrap()
                .tun
                .routes
                .prefixes()
                .is_empty()
        );
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let cases = [
            ("name = \"a\"\n[tun]\nmtuu = 1400\n", "f:3: mtuu: "),
            ("[tun]\nmtu = 1000\n", "f:2: mtu: "),
            ("[tun]\nmode = \"l2\"\n", "f:2: mode: "),
            ("[tun]\nroutes = [\"fe80::/10\"]\n", "f:2: routes: "),
            ("[tun]\nipv4 = \"10.77.0.0/24\"\n", "f:2: ipv4: "),
            (
                "[network]\nlink_scope_groups = [\"239.1.2.3\"]\n",
                "f:2: link_scope_groups: ",
            ),
            (
                "[network]\nlink_scope_groups = [\"ff12::ffff:224.0.0.251\"]\n",
                "f:2: link_scope_groups: ",
            ),
            (
                "[network]\nlink_scope_groups = [\"224.0.0.22\"]\n",
                "f:2: link_scope_groups: ",
            ),
            (
                "[[lan]]\ninterface = \"lan0\"\nsegment = \"\"\n",
                "f:3: segment: ",
            ),
            (
                "[[lan]]\ninterface = \"lan0\"\nrouter = \"192.168.1.250\"\n",
                "f:1: lan: ",
            ),
            (
                "[[lan]]\ninterface = \"lan0\"\nsources = [\"192.168.1.64/26\"]\n",
                "f:1: lan: ",
            ),
            (
                "[[lan]]\ninterface = \"lan0\"\nsegment = \"home\"\nreflect = [\"mdns\"]\n",
                "f:1: lan: ",
            ),
            ("[[lan]]\ninterface = \"br-[*\"\n", "f:2: interface: "),
            (
                "[[lan]]\ninterface = \"lan0\"\ngroups = [\"10.1.0.0/16\"]\n",
                "f:3: groups: ",
            ),
            ("[[private]]\nprefix = \"239.1.0.0/16\"\n", "f:2: prefix: "),
            (
                "[network]\nlink_scope_groups = [\"ff02::2\"]\n",
                "f:2: link_scope_groups: ",
            ),
            ("[signal]\nservers = [\"http://a\"]\n", "f:2: servers: "),
            (
                "[signal]\ndht_bootstrap = [\"a:1\", \"b\"]\n",
                "f:2: dht_bootstrap: ",
            ),
            ("[matrix]\nhomeserver = \"a\"\n", "f:2: homeserver: "),
            ("[matrix]\nroom = \"#a\"\n", "f:2: room: "),
            ("[matrix]\nuser = \"me\"\n", "f:2: user: "),
            ("[metrics]\nlisten = \"x\"\n", "f:2: listen: "),
            ("[network]\nunicast = 1\n", "f:2: unicast: "),
            ("[network]\nannounce = [\"fe80::/10\"]\n", "f:2: announce: "),
            ("[network]\n\nwatch = [\"ff1e::1/16\"]\n", "f:3: watch: "),
            ("[topology]\npolicy = \"star\"\n", "f:2: policy: "),
            ("[topology]\ndegree = 1\n", "f:2: degree: "),
            ("[topology]\ndegree = 65\n", "f:2: degree: "),
            ("[topology]\ndegree = -3\n", "f:2: degree: "),
            ("[ice]\nstun = [\"no-port\"]\n", "f:2: stun: "),
            ("[ice]\npolicy = \"tor\"\n", "f:2: policy: "),
            ("[ice]\ndisclose = [\"beta\"]\n", "f:2: disclose: "),
            ("\n[nonsense]\n", "f:2: nonsense: "),
            ("name = \n", "f:1: name: "),
        ];
        for (text, start) in cases {
            let error = Config::parse("f", text).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(
                error.to_string().starts_with(start),
                "{error} should start with {start}"
            );
        }
    }

    #[test]
    fn ipv4_is_on_where_the_file_or_the_profile_says_so() {
        let of = |text: &str| Config::parse("f", text).unwrap();
        let network = librecast::id::SecretKey::from_seed(&[1; 32]).peer_id();
        let block = |config: &Config| config.ipv4_network(&network).map(|n| n.to_string());
        assert_eq!(block(&of("")), None);
        let derived = Ipv4Network::of(&network).to_string();
        let on = of("[tun]\nipv4 = true\n");
        assert_eq!(block(&on), Some(derived.clone()));
        assert_eq!(block(&of("[network]\nprofile = \"lan\"\n")), Some(derived));
        let off = of("[tun]\nipv4 = false\n[network]\nprofile = \"lan\"\n");
        assert_eq!((block(&off), off.routes().len()), (None, 9));
        let named = of("[tun]\nipv4 = \"10.77.0.0/16\"\n");
        assert_eq!(block(&named), Some("10.77.0.0/16".into()));
        let routes = on.routes();
        let shown = routes.iter().filter(|p| p.as_ipv4().is_some());
        let shown: Vec<_> = shown.map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "239.0.0.0/9",
                "239.128.0.0/10",
                "239.192.0.0/11",
                "239.224.0.0/12",
                "239.240.0.0/13",
                "239.248.0.0/14",
                "239.252.0.0/15",
                "239.254.0.0/16",
            ]
        );
        let chosen = of("[tun]\nipv4 = true\nroutes = [\"224.0.0.0/4\"]\n");
        assert_eq!(chosen.routes().len(), 3, "by their names inside");
    }

    #[test]
    fn signalling_urls_are_looked_at_before_they_are_used() {
        for good in [
            "ws://meet.example:7117",
            "wss://meet.example/path?x",
            "ws://10.0.0.1:7117/",
            "wss://[fd00::1]:7117",
            "ws://[fd00::1]",
        ] {
            assert_eq!(signal_url(good).as_deref(), Ok(good));
        }
        let long = format!("ws://{}", "h".repeat(260));
        for bad in [
            "http://x",
            "meet.example:7117",
            "ws://",
            "ws://:7117",
            "ws://a b",
            "ws://user@host:7117",
            "ws://host:99999",
            "ws://host:0",
            "ws://fd00::1",
            "ws://[fd00::zz]:7117",
            "ws://[fd00::1",
            "ws://h\u{e4}:1",
            &long,
        ] {
            assert!(signal_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_private_prefix_has_a_route_of_its_own_where_a_shorter_one_covers_it() {
        let with = |routes: &str| {
            let private =
                "[[private]]\nprefix = \"ff1e:7::/32\"\n[[private]]\nprefix = \"ff15:7::/32\"";
            let text = format!("[tun]\nroutes = {routes}\n{private}");
            Config::parse("f", &text).unwrap()
        };
        let shown = |prefixes: Vec<GroupPrefix>| -> Vec<String> {
            prefixes.iter().map(ToString::to_string).collect()
        };
        let closed = ["ff1e:7::/32", "ff15:7::/32"];
        assert_eq!(shown(with("false").closed()), closed);
        assert_eq!(shown(with("false").routes()), [""; 0]);
        assert!(shown(with("true").routes()).contains(&closed[0].into()));
        assert!(!shown(with("true").routes()).contains(&closed[1].into()));
        for routes in ["[\"ff1e:7::/32\"]", "[\"ff1e:7:1::/48\"]"] {
            assert_eq!(with(routes).routes().len(), 1, "{routes}");
        }
    }
}
