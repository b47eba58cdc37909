//! The engine's settings at its start, and those of each link.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use librecast::cert::{GroupPrefix, Member};
use librecast::id::{NodeAddresses, OriginId};
use librecast::mapped;

use crate::classify::{CarriedScopes, is_link_scope};
use crate::ipv4_network::Ipv4Network;
use crate::private::PrivatePrefix;

/// The policy that decides on links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKind {
    /// A mesh of up to 8 nodes, regular above; a mesh again at 6.
    #[default]
    Auto,
    /// A link with every node.
    Mesh,
    /// A random regular graph.
    Regular,
    /// One tree: a link that fails parts the network until another one is there.
    Tree,
    /// Cells of cells.
    Fractal,
}

/// `[topology]` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopologyConfig {
    /// The policy.
    pub policy: PolicyKind,
    /// Links of a node under the policy regular; 2 to 64, values outside are clamped.
    pub degree: u8,
}

impl Default for TopologyConfig {
    fn default() -> Self {
        Self {
            policy: PolicyKind::Auto,
            degree: 8,
        }
    }
}

/// Settings of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Config {
    /// The addresses of this network's nodes.
    pub network: Ipv4Network,
    /// The address that this node had in its previous run.
    pub kept: Option<Ipv4Addr>,
    /// This node takes an address. Without one it receives IPv4 but does not send.
    pub assigns: bool,
}

/// Settings of this node.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node as its certificate describes it: its programs may send from its addresses only.
    pub member: Member,
    /// Raised at every start of the daemon and persisted by the shell.
    pub incarnation: u32,
    /// MTU of `lc0` in bytes: reports and queries are built to fit.
    pub mtu: u16,
    /// Groups of scope 2 that are carried.
    pub link_scope_groups: Vec<Ipv6Addr>,
    /// This node's certificate chain, as it presents it to other nodes.
    pub chain: Bytes,
    /// This node holds an issuer's key: it renews certificates.
    pub can_issue: bool,
    /// Paths may lead through this node; else it is a stub router (RFC 8770), and a rendezvous
    /// point only if no other router can be.
    pub transits: bool,
    /// Groups whose tree has its root at this node.
    pub announce: Vec<GroupPrefix>,
    /// Groups for which a program on this host watches joins before it sends.
    pub watch: Vec<GroupPrefix>,
    /// Unicast between node addresses is carried.
    pub unicast: bool,
    /// IPv4 is carried for this host; `None`: it is not, and this node only passes IPv4 packets on.
    pub ipv4: Option<Ipv4Config>,
    /// Private prefixes and their secrets.
    pub private: Vec<PrivatePrefix>,
    /// The uplink, and the carrying for other senders.
    pub carry: CarrySettings,
    /// Links to make.
    pub topology: TopologyConfig,
    /// Seed of all randomness of the engine: report jitter and hash keys.
    pub seed: u64,
    /// Bounds of the tables.
    pub limits: Limits,
}

/// Senders for whom a router announces parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consent {
    /// Senders of groups with listeners here; neighbours, as long as one copy is
    /// passed on.
    #[default]
    Joined,
    /// For every member.
    Any,
    /// For nobody.
    No,
}

/// The uplink, by the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CarrySettings {
    /// Bits a second that this host can send. 0: one copy, wherever a carrier is found.
    pub upload: Option<u64>,
    /// The senders whose parts this router carries.
    pub consent: Consent,
    /// Bits a second that this router forwards for others. `None`: no limit.
    pub pass_on: Option<u64>,
}

/// A router at the other end of a link, as its verified certificate describes it.
#[derive(Debug, Clone)]
pub struct Neighbor {
    /// Its member data.
    pub member: Member,
}

/// Bounds of every table that other nodes or hosts can fill.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Groups joined by programs on this host.
    pub groups: usize,
    /// Reporters tracked per group on `lc0`.
    pub reporters: usize,
    /// Reporters tracked per group on a LAN; with more, only an unanswered query ends a group.
    pub lan_reporters: usize,
    /// Groups reported on a LAN: switches have small tables.
    pub lan_reports: usize,
    /// (root, group) entries that this router keeps of one neighbour.
    pub join_states_per_neighbor: usize,
    /// Source addresses in all filters of one neighbour.
    pub sources_per_neighbor: usize,
    /// SourceActive prefixes of one neighbour.
    pub prefixes_per_neighbor: usize,
    /// Flows without a listener that are remembered.
    pub flows: usize,
    /// Packets buffered for the first listener, of one flow.
    pub buffered_packets: usize,
    /// Bytes buffered for the first listener, of all flows.
    pub buffered_bytes: usize,
    /// Sequence numbers that a duplicate window covers: at least 4,096, in multiples of 64.
    pub duplicate_window: usize,
    /// Routers with stored certificates.
    pub routers: usize,
    /// Revocations that are kept.
    pub revocations: usize,
    /// Routers, this one included, up to which a router sends SourceActive for everything: every
    /// source knows its listeners.
    pub small_network: usize,
    /// Routers up to which a router sends on its own source tree, for shortest paths.
    pub source_trees: usize,
    /// Leaves at a time.
    pub leaves: usize,
    /// Bits a second for packets to all leaves together.
    pub leaf_bits_per_second: u64,
}

impl Limits {
    /// The daemon's limits.
    pub const DEFAULT: Self = Self {
        groups: 16_384,
        reporters: 16,
        lan_reporters: 64,
        lan_reports: 1_024,
        join_states_per_neighbor: 16_384,
        sources_per_neighbor: 65_536,
        prefixes_per_neighbor: 256,
        flows: 4_096,
        buffered_packets: 8,
        buffered_bytes: 4 << 20,
        duplicate_window: 8_192,
        routers: 4_096,
        revocations: 4_096,
        small_network: 32,
        source_trees: 8,
        leaves: 512,
        leaf_bits_per_second: 50_000_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The source of all queries and reports that the engine writes into `lc0`: fe80:: and "lcrouter"
/// in ASCII. It is the same on every node, as it never leaves the host. It is not the node's
/// link-local address, so that remote joins differ from local ones.
pub const ROUTER_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6c63, 0x726f, 0x7574, 0x6572);

/// This node, shared by all parts.
#[derive(Debug)]
pub(crate) struct Node {
    /// The configuration, with later changes.
    pub config: Config,
    /// The id of this router.
    pub own: OriginId,
    /// Source addresses that local senders may use.
    pub sources: NodeSources,
    /// Groups that are carried.
    pub scopes: CarriedScopes,
    /// Groups to which hosts of this node's LANs may send: it watches their joins.
    pub lan_groups: Vec<GroupPrefix>,
    /// A program of this host accepts streams, so their unicast is carried.
    pub streams: bool,
}

impl Node {
    pub(crate) fn new(config: Config) -> Self {
        let addresses = &config.member.addresses;
        Self {
            own: addresses.origin,
            sources: NodeSources::of_node(addresses),
            scopes: CarriedScopes::new(&config.link_scope_groups, config.ipv4.is_some()),
            lan_groups: Vec::new(),
            streams: false,
            config,
        }
    }
}

impl Node {
    /// Whether an address belongs to a node of the network, or is link-local.
    pub(crate) fn is_of_network(&self, address: Ipv6Addr) -> bool {
        let own = self.config.member.addresses.address;
        own.segments()[..3] == address.segments()[..3] || address.is_unicast_link_local()
    }
}

/// Source addresses of a node's packets.
#[derive(Debug, Clone, Copy)]
pub struct NodeSources {
    address: Ipv6Addr,
    link_local: Ipv6Addr,
    /// The name of its IPv4 address.
    ipv4: Option<Ipv6Addr>,
}

impl NodeSources {
    pub(crate) fn of_node(node: &NodeAddresses) -> Self {
        Self {
            address: node.address,
            link_local: node.link_local,
            ipv4: None,
        }
    }

    /// The same with the name of an IPv4 address.
    #[must_use]
    pub(crate) fn with_ipv4(self, ipv4: Option<Ipv6Addr>) -> Self {
        Self { ipv4, ..self }
    }

    pub(crate) fn ipv4(self) -> Option<Ipv6Addr> {
        self.ipv4
    }

    /// Whether a packet to `group` may come from `source`: the link-local address only in scope 2.
    pub(crate) fn allows(&self, source: Ipv6Addr, group: Ipv6Addr) -> bool {
        source == self.address
            || source == self.link_local && is_link_scope(group)
            || Some(source) == self.ipv4 && mapped::is_group_name(group)
    }

    /// Whether unicast to `to` may come from `source`: between addresses of one kind.
    pub(crate) fn allows_unicast(&self, source: Ipv6Addr, to: Ipv6Addr) -> bool {
        if mapped::is_host_name(to) {
            Some(source) == self.ipv4
        } else if to.is_unicast_link_local() {
            source == self.link_local
        } else {
            source == self.address
        }
    }

    /// The sources that packets to `group` may come from.
    pub(crate) fn present(&self, group: Ipv6Addr) -> Vec<Ipv6Addr> {
        if mapped::is_group_name(group) {
            self.ipv4.into_iter().collect()
        } else if is_link_scope(group) {
            vec![self.address, self.link_local]
        } else {
            vec![self.address]
        }
    }
}
