//! Scenario files: parameters of a simulation.
//!
//! ```toml
//! nodes = 200
//! seed = 7
//! duration = "2m"
//!
//! [topology]
//! policy = "regular"
//! degree = 8
//!
//! [links]
//! latency = { kind = "plane", side = "60ms", floor = "1ms" }
//! loss = 0.01
//!
//! [churn]
//! restarts_per_node_hour = 2.0
//!
//! [[workload]]
//! kind = "zipf"
//! groups = 100
//!
//! [[event]]
//! kind = "kill"
//! at = "30s"
//! share = 0.05
//! ```
//!
//! Every key is optional, an unknown one is an error. `lcroute sim --print` shows all values.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use librecast::units;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::{Nanos, nanos};

/// Bound of nodes in a simulation: that of a router's database.
pub const MAX_NODES: u32 = 4_096;
/// Bound of whole nodes: each link costs as much as a real one.
pub const MAX_WHOLE: u32 = 256;

/// A length of time, written as `500ms` or `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Makes a length from milliseconds.
    pub const fn ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// Makes a length from seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(crate) fn nanos(self) -> Nanos {
        nanos(self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds > 0.0 && seconds < 1.0 {
            write!(f, "{}ms", seconds * 1e3)
        } else {
            write!(f, "{seconds}s")
        }
    }
}

impl FromStr for Span {
    type Err = units::UnitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        units::parse_duration(text).map(Self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A scenario file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Number of nodes, 1 to 4,096.
    pub nodes: u32,
    /// Seed of all randomness.
    pub seed: u64,
    /// Time from the start of the first node to the workloads.
    pub warm_up: Span,
    /// Time within which all nodes start.
    pub starts: Span,
    /// Time of workloads and churn.
    pub duration: Span,
    /// Time without changes before the final check; at least 20 s.
    pub settle: Span,
    /// Whether all leave at the end, and no state may remain.
    pub leave: bool,
    /// Bound of probes in the final check.
    pub probes: u32,
    /// Choice of links.
    pub topology: Topology,
    /// Properties of links.
    pub links: Links,
    /// Nodes that stop and start.
    pub churn: Churn,
    /// Whether nodes are whole: they make links by sealed messages, ICE, DTLS and lanes over
    /// datagrams. Otherwise they are routers, with links made by the simulator.
    pub whole: bool,
    /// Certificates of whole nodes.
    pub certificates: Certificates,
    /// Bounds of the routers' tables.
    pub limits: LimitsTable,
    /// Defect of the nodes, to make the checks fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defect: Option<Defect>,
    /// Load by programs.
    #[serde(rename = "workload")]
    pub workloads: Vec<Workload>,
    /// Events of the network.
    #[serde(rename = "event")]
    pub events: Vec<Event>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            nodes: 20,
            seed: 1,
            warm_up: Span::seconds(20),
            starts: Span::seconds(10),
            duration: Span::seconds(60),
            settle: Span::seconds(240),
            leave: true,
            probes: 200,
            topology: Topology::default(),
            links: Links::default(),
            churn: Churn::default(),
            whole: false,
            certificates: Certificates::default(),
            limits: LimitsTable::default(),
            defect: None,
            workloads: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// `[topology]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// Rule for links.
    pub policy: Policy,
    /// Links of a node under the policy `regular`.
    pub degree: u8,
    /// Share of nodes with certificates for roots of shared trees.
    pub core: f64,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            policy: Policy::Auto,
            degree: 8,
            core: 1.0,
        }
    }
}

/// A topology policy of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// All nodes with all nodes.
    Mesh,
    /// A random regular graph.
    Regular,
    /// `mesh` up to 8 nodes, `regular` above.
    Auto,
    /// One tree.
    Tree,
    /// Cells of cells.
    Fractal,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mesh => "mesh",
            Self::Regular => "regular",
            Self::Auto => "auto",
            Self::Tree => "tree",
            Self::Fractal => "fractal",
        })
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mesh" => Ok(Self::Mesh),
            "regular" => Ok(Self::Regular),
            "auto" => Ok(Self::Auto),
            "tree" => Ok(Self::Tree),
            "fractal" => Ok(Self::Fractal),
            _ => Err("write mesh, regular, tree, fractal or auto".into()),
        }
    }
}

/// `[links]`: properties of all links; only latency differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Links {
    /// One-way latency.
    pub latency: Latency,
    /// Greatest addition to the latency of a message, uniform.
    pub jitter: Span,
    /// Share of lost data messages; control messages are delayed instead.
    pub loss: f64,
    /// Rate in each direction, such as `100M` bits per second.
    #[serde(deserialize_with = "rate")]
    pub bandwidth: u64,
    /// Longest queue before a link; data above it is lost.
    pub queue: Span,
    /// Share of node pairs without a possible link.
    pub no_direct: f64,
    /// Share of whole-node pairs with datagrams in one direction only.
    pub unidirectional: f64,
    /// Share of whole nodes behind a NAT. All are behind a firewall that admits only answers.
    pub behind_nat: f64,
    /// Interval of reports of a link's round trip.
    pub rtt_interval: Span,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            latency: Latency::Plane {
                side: Span::ms(60),
                floor: Span::ms(1),
            },
            jitter: Span::ms(1),
            loss: 0.0,
            bandwidth: 100_000_000,
            queue: Span::ms(100),
            no_direct: 0.0,
            unidirectional: 0.0,
            behind_nat: 0.0,
            rtt_interval: Span::seconds(10),
        }
    }
}

fn rate<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Rate {
        Bits(u64),
        Text(String),
    }
    match Rate::deserialize(d)? {
        Rate::Bits(bits) if bits > 0 => Ok(bits),
        Rate::Bits(_) => Err(serde::de::Error::custom("a rate of 0")),
        Rate::Text(text) => units::parse_rate(&text).map_err(serde::de::Error::custom),
    }
}

/// One-way latency of links.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Latency {
    /// Nodes are spread uniformly in a square; a link's latency is its length plus `floor`.
    Plane {
        /// Side of the square.
        side: Span,
        /// Addition for every link.
        floor: Span,
    },
    /// Nodes have given places, in units of the side; otherwise the same.
    Places {
        /// Side of the square.
        side: Span,
        /// Addition for every link.
        floor: Span,
        /// Place of each node, east and south of the corner.
        places: Vec<(f64, f64)>,
    },
    /// Each link has its own.
    Uniform {
        /// Least latency.
        low: Span,
        /// Greatest latency.
        high: Span,
    },
    /// All links have the same.
    Constant {
        /// Latency of every link.
        value: Span,
    },
}

/// `[certificates]`: node 0 issues and renews them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// Validity of nodes' certificates by the hosts' clocks, with a day of tolerance.
    pub valid: Span,
    /// Bound of the token by which all nodes but 0 join; `None`: node 0 signs each certificate.
    pub token: Option<u32>,
    /// Whether members by that token are ephemeral: forgotten some minutes after they have gone.
    pub ephemeral: bool,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            valid: Span::seconds(365 * 86_400),
            token: None,
            ephemeral: false,
        }
    }
}

/// `[churn]`: each node on its own, at random times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Churn {
    /// Restarts of a node per hour.
    pub restarts_per_node_hour: f64,
    /// Share of restarts that are crashes, without a goodbye.
    pub crash_share: f64,
    /// Mean time between stop and start.
    pub away: Span,
    /// Silent failures of a node's links per hour.
    pub broken_links_per_node_hour: f64,
}

impl Default for Churn {
    fn default() -> Self {
        Self {
            restarts_per_node_hour: 0.0,
            crash_share: 0.5,
            away: Span::seconds(20),
            broken_links_per_node_hour: 0.0,
        }
    }
}

/// `[limits]`: bounds for tests to reach; the engine's own by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTable {
    /// Bound of (root, group) entries of a neighbour at a router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_states_per_neighbor: Option<usize>,
    /// Routers up to which every source knows the listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub small_network: Option<usize>,
    /// Routers up to which every source has its own tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_trees: Option<usize>,
}

/// A defect of the simulated nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defect {
    /// One in 200 packets is written into `lc0` twice.
    DoubleDelivery,
    /// One in 50 control messages gets lost on a live link.
    LostControl,
    /// One in 200 messages of a link is sent three times.
    Echo,
}

/// `[[workload]]`: load by programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Workload {
    /// Groups of very different popularity with joins and leaves, some with source filters.
    Zipf {
        /// Number of groups.
        #[serde(default = "Workload::groups")]
        groups: u32,
        /// Exponent of popularity: the k-th group is joined in proportion to 1/k^exponent.
        #[serde(default = "Workload::exponent")]
        exponent: f64,
        /// Mean number of a node's memberships.
        #[serde(default = "Workload::memberships")]
        memberships: f64,
        /// Mean length of a membership.
        #[serde(default = "Workload::lasts")]
        lasts: Span,
        /// Share of joins with sources.
        #[serde(default = "Workload::filtered")]
        filtered: f64,
        /// Senders of a group.
        #[serde(default = "Workload::senders")]
        senders: u32,
        /// Packets a second, over all senders and groups.
        #[serde(default = "Workload::rate")]
        rate: f64,
    },
    /// Receivers fetch blocks; each block has a group below its server's announced prefix.
    Lcsync {
        /// Number of servers; each announces a prefix.
        #[serde(default = "Workload::one")]
        servers: u32,
        /// Receivers of each server.
        #[serde(default = "Workload::receivers")]
        receivers: u32,
        /// Blocks of each server.
        #[serde(default = "Workload::blocks")]
        blocks: u32,
        /// Simultaneous memberships of a receiver.
        #[serde(default = "Workload::window")]
        window: u32,
        /// Time of a receiver with a block.
        #[serde(default = "Workload::block_time")]
        block_time: Span,
    },
    /// Rooms in which each member sends to all.
    Chat {
        /// Number of rooms.
        #[serde(default = "Workload::rooms")]
        rooms: u32,
        /// Members of a room.
        #[serde(default = "Workload::members")]
        members: u32,
        /// Mean interval of a member's packets.
        #[serde(default = "Workload::pause")]
        pause: Span,
    },
    /// Every node joins one group and sends to it.
    Discovery {
        /// Interval of a node's packets.
        #[serde(default = "Workload::interval")]
        interval: Span,
    },
    /// Steady streams to many listeners.
    Stream {
        /// Number of groups, each with one source.
        #[serde(default = "Workload::one")]
        groups: u32,
        /// Share of nodes that listen to each.
        #[serde(default = "Workload::share")]
        listeners: f64,
        /// Interval of packets.
        #[serde(default = "Workload::period")]
        period: Span,
        /// Whether groups are source-specific.
        #[serde(default)]
        source_specific: bool,
    },
}

impl Workload {
    fn groups() -> u32 {
        100
    }
    fn exponent() -> f64 {
        1.0
    }
    fn memberships() -> f64 {
        3.0
    }
    fn lasts() -> Span {
        Span::seconds(60)
    }
    fn filtered() -> f64 {
        0.2
    }
    fn senders() -> u32 {
        2
    }
    fn rate() -> f64 {
        50.0
    }
    fn one() -> u32 {
        1
    }
    fn receivers() -> u32 {
        8
    }
    fn blocks() -> u32 {
        128
    }
    fn window() -> u32 {
        16
    }
    fn block_time() -> Span {
        Span::seconds(1)
    }
    fn rooms() -> u32 {
        4
    }
    fn members() -> u32 {
        8
    }
    fn pause() -> Span {
        Span::seconds(2)
    }
    fn interval() -> Span {
        Span::seconds(30)
    }
    fn share() -> f64 {
        0.5
    }
    fn period() -> Span {
        Span::ms(100)
    }
}

/// `[[event]]`: an event of the network; times count from the start of the workloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A share of the nodes crashes at once, permanently.
    Kill {
        /// Time of the event.
        at: Span,
        /// Share of all nodes.
        share: f64,
    },
    /// A share of the nodes is cut off from the rest for a time.
    Partition {
        /// Time of the event.
        at: Span,
        /// Share of all nodes.
        share: f64,
        /// Length of the event.
        lasts: Span,
    },
    /// A share of the nodes except node 0 is switched off for a time.
    Absence {
        /// Time of the event.
        at: Span,
        /// Share of all nodes.
        share: f64,
        /// Length of the event.
        lasts: Span,
    },
    /// The network's key expels a share of the nodes except node 0.
    Revoke {
        /// Time of the event.
        at: Span,
        /// Share of all nodes.
        share: f64,
    },
    /// The clocks of all hosts are advanced.
    Clocks {
        /// Time of the event.
        at: Span,
        /// Advance of the clocks.
        by: Span,
    },
    /// The signalling server is unreachable for a time.
    Server {
        /// Time of the event.
        at: Span,
        /// Length of the event.
        lasts: Span,
    },
}

impl Scenario {
    /// Parses the text of a file called `file`; errors name file, line and key.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|e| at_line(file, text, &e))?;
        scenario.validate().map_err(|e| format!("{file}: {e}"))?;
        Ok(scenario)
    }

    /// Checks that the scenario can be simulated.
    pub fn validate(&self) -> Result<(), String> {
        let share = |name: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} = {value}: a share lies between 0 and 1"))
            }
        };
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return Err(format!("nodes = {}: 1 to {MAX_NODES}", self.nodes));
        }
        if self.settle < Span::seconds(20) {
            return Err(format!("settle = {}: at least 20s", self.settle));
        }
        share("links.loss", self.links.loss)?;
        if self.links.loss > 0.9 {
            return Err("links.loss: at most 0.9".into());
        }
        if let Latency::Places { places, .. } = &self.links.latency {
            if places.len() != self.nodes as usize {
                return Err(format!(
                    "links.latency.places: {} for {} nodes",
                    places.len(),
                    self.nodes
                ));
            }
            for (x, y) in places {
                share("links.latency.places: east", *x)?;
                share("links.latency.places: south", *y)?;
            }
        }
        share("links.no_direct", self.links.no_direct)?;
        share("links.unidirectional", self.links.unidirectional)?;
        share("links.behind_nat", self.links.behind_nat)?;
        if self.whole && self.nodes > MAX_WHOLE {
            return Err(format!(
                "nodes = {}: 1 to {MAX_WHOLE} whole ones",
                self.nodes
            ));
        }
        share("churn.crash_share", self.churn.crash_share)?;
        share("topology.core", self.topology.core)?;
        for event in &self.events {
            if let Event::Kill { share: s, .. }
            | Event::Partition { share: s, .. }
            | Event::Absence { share: s, .. }
            | Event::Revoke { share: s, .. } = event
            {
                share("event.share", *s)?;
            }
            let whole = matches!(
                event,
                Event::Revoke { .. } | Event::Clocks { .. } | Event::Server { .. }
            );
            if whole && !self.whole {
                return Err(
                    "events revoke, clocks and server happen to whole nodes: whole = true".into(),
                );
            }
        }
        for workload in &self.workloads {
            if let Workload::Stream { listeners, .. } = workload {
                share("workload.listeners", *listeners)?;
            }
            if let Workload::Zipf { filtered, .. } = workload {
                share("workload.filtered", *filtered)?;
            }
        }
        Ok(())
    }

    /// Returns the file's text with every key.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario consists of tables, numbers and strings")
    }
}

/// Describes an error of a TOML file, with its line and key.
pub(crate) fn at_line(file: &str, text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text[..start].matches('\n').count() + 1;
    let source = text.lines().nth(line - 1).unwrap_or_default();
    let key = source.split('=').next().unwrap_or_default().trim();
    let key = key.trim_matches(['[', ']']);
    format!("{file}:{line}: {key}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_read_as_it_was_written() {
        for (name, scenario) in crate::library::all() {
            let text = scenario.to_toml();
            let again = Scenario::parse(name, &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert_eq!(again, scenario);
            assert_eq!(scenario.validate(), Ok(()), "{name}");
        }
    }

    #[test]
    fn unknown_keys_are_errors_that_name_file_line_and_key() {
        let error = |text: &str| Scenario::parse("s.toml", text).unwrap_err();
        assert!(error("nodes = 3\nsede = 7\n").starts_with("s.toml:2: sede: unknown field"));
        let nested = [
            "[topology]\ndegre = 3\n",
            "[links]\nlatency = { kind = \"constant\", value = \"1ms\", x = 1 }\n",
            "[[workload]]\nkind = \"chat\"\nroms = 3\n",
            "[[workload]]\nkind = \"chess\"\n",
            "[[event]]\nkind = \"kill\"\nat = \"1s\"\nshare = 0.1\nlasts = \"2s\"\n",
        ];
        for text in nested {
            assert!(error(text).contains("unknown"), "{}", error(text));
        }
    }

    #[test]
    fn impossible_values_are_refused() {
        let bad = [
            "nodes = 0",
            "nodes = 5000",
            "settle = \"1s\"",
            "duration = 5",
            "[links]\nloss = 1.5",
            "[links]\nbandwidth = \"fast\"",
            "[[event]]\nkind = \"kill\"\nat = \"1s\"\nshare = 2.0",
        ];
        for text in bad {
            assert!(Scenario::parse("s.toml", text).is_err(), "{text}");
        }
        assert_eq!(Scenario::parse("s.toml", "").unwrap(), Scenario::default());
    }
}
