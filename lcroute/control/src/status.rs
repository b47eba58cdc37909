//! The JSON forms of `status`, `peers`, `groups`, `lan`, `routes` and `members`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lcroute_engine::topology::PolicyKind;
use lcroute_node::Privacy;
use lcroute_overlay::{CLOCK_DIFFERS, KeyConflict, LinkInfo};
use librecast::id::PeerId;
use librecast::time::{UnixTime, utc};
use librecast_program::units::{count, short};
use serde::{Deserialize, Serialize};

/// State of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not ready yet.
    Starting,
    /// No link yet.
    Connecting,
    /// At least one link.
    Connected,
    /// Revoked: the network's nodes make no more links with this node.
    Expelled,
    /// Ended by a stop message.
    Stopping,
}

impl State {
    /// Returns the name for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Expelled => "expelled",
            Self::Stopping => "stopping",
        }
    }
}

/// Whether this host's firewall admits multicast that arrives on the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inbound {
    /// Not tried yet.
    Unknown,
    /// UDP that arrives on the interface reaches programs.
    Open,
    /// UDP that arrives on the interface does not reach programs.
    Blocked,
    /// The kernel has no route for groups on the interface: programs neither send nor receive.
    #[serde(rename = "no_route")]
    NoRoute,
}

/// `status --json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its PeerId.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Labels of its certificate.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Bound of its token, until an issuer has counted this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_uses: Option<u32>,
    /// Its address on the network.
    pub address: Ipv6Addr,
    /// Its IPv4 address, if IPv4 is carried and it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The network's public key.
    pub network: PeerId,
    /// Number of the network's rendezvous epoch, which each expulsion increases by one.
    #[serde(default)]
    pub epoch: u32,
    /// Name of the interface.
    pub tun: String,
    /// Whether UDP that arrives on it reaches programs.
    pub inbound: Inbound,
    /// Its state.
    pub state: State,
    /// Another host that runs with this node's key.
    #[serde(default)]
    pub key_conflict: Option<KeyConflict>,
    /// Version of the running program; a newer one may be installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Private prefixes.
    #[serde(default)]
    pub private: Vec<PrivateStatus>,
    /// Number of connected signalling servers.
    #[serde(default)]
    pub signal_servers: usize,
    /// Where other nodes find this one.
    #[serde(default)]
    pub doors: Vec<Door>,
    /// Relay in use, and the number of known ones.
    #[serde(default)]
    pub relay: Relay,
    /// The router's port mapping.
    #[serde(default)]
    pub mapping: Mapping,
    /// Links with routers that are up.
    pub peers: usize,
    /// Leaves, and their bound.
    #[serde(default)]
    pub leaves: Leaves,
    /// How its uplink is used.
    #[serde(default)]
    pub uplink: Uplink,
    /// The topology policy.
    #[serde(default)]
    pub topology: PolicyKind,
    /// Number of known groups, those of remote listeners included.
    pub groups: usize,
    /// Counters since the start.
    pub counters: Counters,
}

/// The share of the uplink that this node's multicast takes, and the routers that carry it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Uplink {
    /// `[network] upload`, bits a second.
    pub upload: Option<u64>,
    /// Bits a second of own multicast, all copies together, in the last second that was measured.
    pub sent: u64,
    /// Mean number of copies of an own packet then.
    pub copies: f64,
    /// The uplink is slow, or was within the last ten minutes.
    pub short: bool,
    /// Own groups that other routers carry.
    pub carried: Vec<CarriedGroups>,
    /// Parts of own groups for which no carrier is found.
    pub waiting: usize,
    /// Routers that were asked and do not carry.
    pub refusals: Vec<CarryRefusal>,
    /// Groups that this router carries for others.
    pub carries: Vec<CarriedGroups>,
}

/// Groups that a router carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarriedGroups {
    /// The carrier of own groups, or the sender of groups that are carried here: its name.
    pub name: String,
    /// Prefixes of the groups.
    pub prefixes: Vec<String>,
}

/// A router that was asked to carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarryRefusal {
    /// Its name.
    pub name: String,
    /// Why not, as it fits behind the name.
    pub why: String,
}

impl Uplink {
    /// One line for people; none where there is nothing to tell.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        if !self.short && self.carries.is_empty() && self.carried.is_empty() {
            return None;
        }
        let mut parts = Vec::new();
        if !self.short && !self.carried.is_empty() {
            let carriers = self.carried.iter();
            let carriers = carriers.map(|c| format!("{} of {}", c.prefixes.len(), c.name));
            let carriers: Vec<_> = carriers.collect();
            parts.push(format!(
                "several paths for what is sent, with parts by way of other nodes: {}",
                carriers.join(", ")
            ));
        }
        if self.short {
            let of = self.upload.filter(|upload| *upload > 0);
            let of = of.map_or(String::new(), |upload| {
                format!(" of {}bit/s", short(upload as f64))
            });
            let sent = short(self.sent as f64);
            parts.push(format!("{sent}bit/s{of}, {:.1} copies", self.copies));
            let names: Vec<_> = self.carried.iter().map(|c| c.name.as_str()).collect();
            parts.push(match names.as_slice() {
                [] => "nobody carries: see `lcroute doctor`".to_owned(),
                names => format!("carried by {}", names.join(", ")),
            });
        }
        for carried in &self.carries {
            let parts_of = count(carried.prefixes.len(), "part");
            parts.push(format!("carries {parts_of} for {}", carried.name));
        }
        Some(parts.join("; "))
    }
}

/// Listeners that do not route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaves {
    /// Number linked with this node.
    pub linked: usize,
    /// Bound: `[leaf] max`.
    pub max: usize,
}

/// Describes another host with this node's key, and the remedy.
#[must_use]
pub fn key_conflict(conflict: &KeyConflict) -> String {
    format!(
        "another host has this node's key: {}; on one of the two: {NEW_KEY}",
        conflict.place()
    )
}

/// Clocks of other nodes compared with this host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clocks {
    /// No link fails because of clocks.
    Agree,
    /// Most nodes differ from this host by more than a day.
    ThisDiffers(String),
    /// A few nodes differ from this host by more than a day.
    OthersDiffer(String),
}

/// Compares the number of nodes refused because of a clock with the number of linked ones.
#[must_use]
pub fn clocks(peers: &[Peer], unix_now: UnixTime) -> Clocks {
    let differs = |peer: &&Peer| peer.reason.as_deref() == Some(CLOCK_DIFFERS);
    let differing: Vec<_> = peers.iter().filter(differs).map(Peer::shown).collect();
    let linked = peers
        .iter()
        .filter(|peer| peer.state == "connected")
        .count();
    match differing.len() {
        0 => Clocks::Agree,
        n if n > linked => Clocks::ThisDiffers(format!(
            "this host's clock says {}, and differs by more than a day from {}",
            utc(unix_now.as_secs()),
            count(n, "other node"),
        )),
        _ => Clocks::OthersDiffer(format!(
            "clocks differ by more than a day from this host's: {}",
            differing.join(", ")
        )),
    }
}

/// Remedy for a key conflict.
pub const NEW_KEY: &str =
    "lcroute leave, then lcroute join with a new token: it comes back as another node";

/// Where other nodes find this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// `server`, `lan`, `spool`, `dht` or `matrix`.
    pub kind: String,
    /// The URL of a signalling server, the interface of a LAN, a folder, or `mainline`.
    pub at: String,
    /// Whether it is usable: a server is connected, nodes of the DHT answer, the room has this
    /// node's record.
    pub open: bool,
    /// A note for users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// State of relays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Relay {
    /// Number of known relays.
    pub offered: usize,
    /// The one in use.
    pub url: Option<String>,
    /// The address that it allocated for this node.
    pub address: Option<SocketAddr>,
    /// Whether it is reached by a stream (TCP, TLS) instead of UDP.
    pub stream: bool,
    /// Reason for the last failure.
    pub failure: Option<String>,
    /// Whether the one in use refused the address of a member.
    #[serde(default)]
    pub refuses_peers: bool,
    /// Whether members that `[ice] disclose` does not name are linked only over relays.
    #[serde(default)]
    pub only: bool,
}

/// The router's mapping of this node's UDP port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The router's address and port.
    pub address: Option<SocketAddr>,
    /// Its protocol.
    pub by: Option<Protocol>,
    /// Reason for a missing mapping.
    pub failure: Option<String>,
}

/// A protocol for port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// RFC 6887.
    #[serde(rename = "pcp")]
    Pcp,
    /// RFC 6886.
    #[serde(rename = "nat-pmp")]
    NatPmp,
    /// UPnP Internet Gateway Device.
    #[serde(rename = "upnp")]
    Upnp,
}

impl Protocol {
    /// Returns the name for users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        }
    }
}

/// Packets and bytes since the start. Bytes on links are those of multicast packets and data
/// headers, without WebRTC, UDP and IP.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Packets read from the interface: from this host's programs and kernel.
    pub tun_rx_packets: u64,
    /// Their bytes.
    pub tun_rx_bytes: u64,
    /// Packets written into the interface.
    pub tun_tx_packets: u64,
    /// Their bytes.
    pub tun_tx_bytes: u64,
    /// Data messages received over links.
    pub link_rx_packets: u64,
    /// Their bytes.
    pub link_rx_bytes: u64,
    /// Data messages sent over links, one for each link.
    pub link_tx_packets: u64,
    /// Their bytes.
    pub link_tx_bytes: u64,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// One element of `peers --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Peer {
    /// Its PeerId.
    pub peer_id: PeerId,
    /// Its name, once its certificate is known.
    pub name: Option<String>,
    /// Its address on the network.
    pub address: Ipv6Addr,
    /// Whether it is a leaf: a listener that does not route.
    #[serde(default)]
    pub leaf: bool,
    /// `connecting`, `connected`, `lost` or `refused`.
    pub state: String,
    /// The present link.
    #[serde(flatten)]
    pub link: LinkInfo,
    /// UDP payload bytes sent to it.
    pub tx_bytes: u64,
    /// UDP payload bytes received from it.
    pub rx_bytes: u64,
    /// Carrier of signalling for the present link: `server`, `overlay`, `lan`, `spool`, `text`, or
    /// `straight` (its last known address).
    pub carrier: Option<String>,
    /// Seconds in this state.
    pub since_s: u64,
    /// Reason for `lost` or `refused`.
    pub reason: Option<String>,
}

impl Peer {
    /// Returns its name, or its short PeerId.
    pub fn shown(&self) -> String {
        let name = self.name.clone();
        name.unwrap_or_else(|| short_id(&self.peer_id))
    }
}

/// Returns the end of a PeerId, enough to distinguish it within a network.
#[must_use]
pub fn short_id(peer: &PeerId) -> String {
    let id = peer.to_string();
    // all begin with the same letters
    let start = id.len().saturating_sub(SHORT_ID);
    format!("...{}", &id[start..])
}

/// Letters of a short PeerId. Chosen: 46 bits, more than a network of thousands needs.
const SHORT_ID: usize = 8;

/// One element of `groups --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    /// The group.
    pub group: IpAddr,
    /// Whether a program on this host has joined.
    pub local: bool,
    /// Links over which it is wanted.
    pub links: Vec<PeerId>,
    /// Number of this node's leaves that have joined.
    #[serde(default)]
    pub leaves: usize,
    /// Senders of the last minute, as far as this node saw.
    pub sources: Vec<IpAddr>,
    /// Packets forwarded or delivered.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// `sealed`: of a private prefix whose key this node has; `no_key`: without that key.
    #[serde(default)]
    pub private: Option<Privacy>,
    /// Reason of a neighbour for refusing our join state.
    pub refused: Option<String>,
    /// The router that carries this node's packets to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_by: Option<String>,
}

/// A private prefix of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateStatus {
    /// The prefix.
    pub prefix: String,
    /// Whether this node can seal and open it; otherwise nothing of it leaves or enters.
    pub has_key: bool,
    /// Whether hosts of LANs have it in clear.
    pub lans: bool,
}

/// One element of `lan --json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Lan {
    /// The interface.
    pub interface: String,
    /// `forwarder`, `standby`, `listening`, or `off`.
    pub role: String,
    /// Description of a problem.
    pub problem: Option<String>,
    /// Remedy for the problem.
    #[serde(default)]
    pub remedy: Option<String>,
    /// MLD querier: `self`, or an address.
    pub querier: Option<String>,
    /// IGMP querier: `self`, or an address; none if no IPv4 groups are carried.
    #[serde(default)]
    pub querier_ipv4: Option<String>,
    /// A setting of the switch that joins may need to arrive at this host.
    #[serde(default)]
    pub note: Option<String>,
    /// Its forwarder: `self`, or a PeerId.
    pub forwarder: Option<String>,
    /// Prefixes of its hosts.
    pub prefixes: Vec<String>,
    /// Number of groups that are reported to it, with listeners elsewhere.
    pub groups: usize,
    /// Groups that its hosts have joined.
    pub listeners: Vec<LanListener>,
    /// Its hosts that sent within the last minute.
    pub sources: Vec<LanSource>,
    /// Private prefixes whose groups its hosts have in clear.
    #[serde(default)]
    pub in_clear: Vec<String>,
    /// The segment that it is a part of.
    #[serde(default)]
    pub segment: Option<LanSegment>,
    /// Packets from and to it, MLD messages, and drops by reason.
    pub counters: BTreeMap<String, u64>,
}

/// The segment of a LAN: several LANs that are one for their hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanSegment {
    /// Its name.
    pub name: String,
    /// Whether this node's certificate permits it.
    pub permitted: bool,
    /// The Ethernet address under which its other LANs' hosts appear here.
    pub virtual_mac: String,
    /// Addresses of hosts heard here.
    pub here: usize,
    /// Addresses elsewhere that hosts here use.
    pub elsewhere: usize,
    /// Its other LANs.
    pub lans: Vec<LanElsewhere>,
    /// Addresses of this LAN's default router that another LAN has as well.
    pub routers: Vec<IpAddr>,
    /// Other addresses that are here, and on another LAN as well.
    pub conflicts: Vec<LanConflict>,
    /// Whether programs on this host are in the segment.
    #[serde(default)]
    pub programs: bool,
    /// Why they are not.
    #[serde(default)]
    pub programs_problem: Option<String>,
    /// Whether this host seals its packets for the other gateways, by a key of `[[private]]`.
    #[serde(default)]
    pub sealed: bool,
    /// Description of a problem.
    pub problem: Option<String>,
    /// Remedy for the problem.
    pub remedy: Option<String>,
}

/// Another LAN of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanElsewhere {
    /// Name of its gateway.
    pub node: String,
    /// PeerId of its gateway.
    pub peer_id: PeerId,
    /// Its IPv4 prefixes.
    pub prefixes: Vec<String>,
    /// Round trip to its gateway, in milliseconds; none: a LAN of this node.
    pub rtt_ms: Option<u64>,
}

/// An address that two LANs of a segment have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanConflict {
    /// The address.
    pub address: IpAddr,
    /// Name of the other LAN's gateway.
    pub node: String,
}

/// One element of the answer to `{"cmd": "lanhost"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanHost {
    /// The interface to the LAN.
    pub interface: String,
    /// The segment.
    pub segment: String,
    /// Where the host is, as seen there.
    pub place: LanPlace,
    /// Its Ethernet address, if it is here.
    pub mac: Option<String>,
    /// Name of the gateway of its LAN, if it is elsewhere.
    pub node: Option<String>,
}

/// Where a host of a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LanPlace {
    /// On this LAN.
    Here,
    /// On another LAN.
    Behind,
    /// On both.
    Conflict,
    /// On another LAN, with an address that this LAN keeps for a host of its own.
    Kept,
    /// Nobody answers.
    Nobody,
    /// The question is under way.
    Asked,
    /// Another gateway of this LAN knows it.
    Standby,
}

/// A group that hosts of a LAN have joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LanListener {
    /// The group.
    pub group: IpAddr,
    /// Number of hosts; beyond 64, all others count as one.
    pub hosts: usize,
}

/// A sending host of a LAN.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LanSource {
    /// Its address.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: String,
    /// Packets forwarded.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One element of `routes --json`: a reachable node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Route {
    /// Its PeerId.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Its address on the network.
    pub address: Ipv6Addr,
    /// Its IPv4 address, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// The neighbour on the path; the node itself if there is a link.
    pub via: PeerId,
    /// Number of links on the path.
    pub hops: u16,
    /// Sum of their costs, in units of 100 µs, at least 10 a link.
    pub cost: u32,
    /// Number of the node's links, as far as known.
    pub links: u16,
}

/// The answer to `{"cmd": "watch"}`, once a second.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Look {
    /// The daemon's status.
    pub status: Status,
    /// Its links and attempted links.
    pub peers: Vec<Peer>,
    /// Its groups.
    pub groups: Vec<Group>,
    /// LANs that it is a gateway of.
    pub lans: Vec<Lan>,
    /// The network around it.
    #[serde(flatten)]
    pub network: lcroute_node::Look,
}

/// The answer to a ping.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pong {
    /// Its PeerId.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Its address on the network.
    pub address: Ipv6Addr,
    /// Number of links on the path, by present routes.
    pub hops: u16,
    /// Length of the echoed message.
    pub bytes: usize,
    /// Round trip in milliseconds; null: timeout.
    pub rtt_ms: Option<f64>,
}

/// Why a node's name matches no single node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// No reachable node has this name.
    #[error("{0}: no node of this name, PeerId or address can be reached")]
    Nobody(String),
    /// Several nodes have this name.
    #[error("{0}: several nodes have this name; give a PeerId: {1}")]
    Several(String, String),
}

/// The known data of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its PeerId.
    pub peer_id: PeerId,
    /// Its name.
    pub name: String,
    /// Its address on the network.
    pub address: Ipv6Addr,
    /// Labels of its certificate.
    pub labels: BTreeMap<String, String>,
    /// Whether it is reachable now.
    pub present: bool,
    /// End of its certificate's validity, Unix seconds.
    pub not_after: u64,
    /// Whether unicast packets of streams are carried to it.
    pub streams: bool,
}

/// Returns the node with this name, PeerId or address.
pub fn find<'a>(routes: &'a [Route], node: &str) -> Result<&'a Route, NotFound> {
    let peer = node.parse::<PeerId>().ok();
    let address = node.parse::<Ipv6Addr>().ok();
    let exact = |r: &&Route| Some(r.peer_id) == peer || Some(r.address) == address;
    if let Some(route) = routes.iter().find(exact) {
        return Ok(route);
    }
    let named: Vec<_> = routes.iter().filter(|r| r.name == node).collect();
    match named.as_slice() {
        [] => Err(NotFound::Nobody(node.to_owned())),
        [route] => Ok(route),
        several => {
            let ids: Vec<_> = several.iter().map(|r| r.peer_id.to_string()).collect();
            Err(NotFound::Several(node.to_owned(), ids.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use librecast::id::{NodeAddresses, SecretKey};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_node_is_found_by_name_peer_id_and_address() {
        let id = |seed: u8| SecretKey::from_seed(&[seed; 32]).peer_id();
        let route = |seed: u8, name: &str| Route {
            ipv4: None,
            peer_id: id(seed),
            name: name.into(),
            address: NodeAddresses::derive(&id(9), &id(seed)).address,
            via: id(1),
            hops: 1,
            cost: 10,
            links: 1,
        };
        let routes = [route(1, "a"), route(2, "b"), route(3, "b")];
        assert_eq!(find(&routes, "a").unwrap().peer_id, id(1));
        for r in &routes {
            let by_id = find(&routes, &r.peer_id.to_string()).unwrap();
            let by_address = find(&routes, &r.address.to_string()).unwrap();
            assert_eq!((by_id.peer_id, by_address.peer_id), (r.peer_id, r.peer_id));
        }
        let several = find(&routes, "b").unwrap_err().to_string();
        assert!(several.contains(&id(2).to_string()) && several.contains(&id(3).to_string()));
        for nobody in ["c", "", "::1", &id(4).to_string()] {
            assert_eq!(
                find(&routes, nobody).err(),
                Some(NotFound::Nobody(nobody.into()))
            );
        }
    }

    /// Users' programs read these names.
    #[test]
    fn an_element_of_peers_has_these_names_and_forms() {
        let peer_id = SecretKey::from_seed(&[1; 32]).peer_id();
        let linked = format!(
            "{{\"address\":\"fd00::1\",\"carrier\":\"server\",\"congested_packets\":3,\"lane\":\"media\",\"leaf\":false,\
             \"loss\":0.25,\"media_repaired\":6,\"media_resent\":4,\"media_symbols\":5,\"name\":\"beta\",\"path\":\"reflexive\",\
             \"path_mtu\":1452,\"peer_id\":\"{peer_id}\",\"reason\":null,\"rtt_ms\":12.5,\"rx_bytes\":8,\"since_s\":9,\
             \"state\":\"connected\",\"tx_bytes\":7}}"
        );
        let refused = format!(
            "{{\"address\":\"fd00::1\",\"carrier\":null,\"congested_packets\":0,\"lane\":\"data\",\"leaf\":false,\"loss\":null,\
             \"media_repaired\":0,\"media_resent\":0,\"media_symbols\":0,\"name\":null,\"path\":null,\"path_mtu\":null,\
             \"peer_id\":\"{peer_id}\",\"reason\":\"revoked\",\"rtt_ms\":null,\"rx_bytes\":0,\"since_s\":0,\"state\":\"refused\",\
             \"tx_bytes\":0}}"
        );
        for text in [linked, refused] {
            let peer: Peer = serde_json::from_str(&text).unwrap();
            let again: Value = serde_json::to_value(&peer).unwrap();
            assert_eq!(again.to_string(), text);
        }
    }
}
