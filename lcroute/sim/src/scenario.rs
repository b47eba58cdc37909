//! Scenario files: what is simulated.
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
//! Every key is optional, an unknown one is an error. `lcroute sim --print` shows all with their values.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use librecast::units;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::{Nanos, nanos};

/// Most nodes of a simulation: the bound of a router's database.
pub const MAX_NODES: u32 = 4_096;
/// Most whole ones: each link costs as much as a real one.
pub const MAX_WHOLE: u32 = 256;

/// A length of time, written as `500ms` or `2m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// So many milliseconds.
    #[must_use]
    pub const fn ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// So many seconds.
    #[must_use]
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

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// How many nodes, 1 to 4,096.
    pub nodes: u32,
    /// All that is random.
    pub seed: u64,
    /// From the start of the first node to the workloads.
    pub warm_up: Span,
    /// Within this time all nodes start.
    pub starts: Span,
    /// How long workloads and churn go on.
    pub duration: Span,
    /// Time without any change before everything is checked; at least 20 s.
    pub settle: Span,
    /// Whether at the end all leave, and all state must go.
    pub leave: bool,
    /// Probes of the final check at most.
    pub probes: u32,
    /// Which links there are.
    pub topology: Topology,
    /// What they are like.
    pub links: Links,
    /// Nodes that go and come.
    pub churn: Churn,
    /// Whether nodes are simulated whole: they make links themselves, by sealed messages, ICE, DTLS and lanes over
    /// datagrams. Else they are routers, and the simulator makes their links.
    pub whole: bool,
    /// Certificates of whole nodes.
    pub certificates: Certificates,
    /// Bounds of the routers' tables.
    pub limits: LimitsTable,
    /// A defect that the simulated nodes get, to see the checks fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defect: Option<Defect>,
    /// What programs do.
    #[serde(rename = "workload")]
    pub workloads: Vec<Workload>,
    /// What happens to the network.
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
    /// Who links to whom.
    pub policy: Policy,
    /// Links of a node, with the policy `regular`.
    pub degree: u8,
    /// Share of nodes whose certificate lets them be roots of shared trees.
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
    /// Everybody with everybody.
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

/// `[links]`: all links are alike but for their latency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Links {
    /// One way.
    pub latency: Latency,
    /// Up to so much is added to the latency of each message, evenly.
    pub jitter: Span,
    /// Share of data messages that is lost; control messages come later instead.
    pub loss: f64,
    /// In each direction, such as `100M` bits per second.
    #[serde(deserialize_with = "rate")]
    pub bandwidth: u64,
    /// Longest queue before a link; data beyond it is lost.
    pub queue: Span,
    /// Share of pairs of nodes between which no link can be made.
    pub no_direct: f64,
    /// Share of pairs of whole nodes between which datagrams pass in one direction only.
    pub unidirectional: f64,
    /// Share of whole nodes before which a NAT stands. A firewall that lets in answers only stands before all.
    pub behind_nat: f64,
    /// Between two reports of a link's round trip time.
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

/// Latency of links, one way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Latency {
    /// Nodes lie evenly in a square; a link has the latency of its length, and `floor` in addition.
    Plane {
        /// Of the square.
        side: Span,
        /// Of every link.
        floor: Span,
    },
    /// Nodes lie where it says, in units of the side: the same for these places.
    Places {
        /// Of the square.
        side: Span,
        /// Of every link.
        floor: Span,
        /// Of each node, east and south of the corner.
        places: Vec<(f64, f64)>,
    },
    /// Each link for itself.
    Uniform {
        /// At least.
        low: Span,
        /// At most.
        high: Span,
    },
    /// All alike.
    Constant {
        /// Of every link.
        value: Span,
    },
}

/// `[certificates]`: node 0 issues and renews them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Certificates {
    /// How long those of nodes are valid, on the hosts' clocks; a day more is allowed.
    pub valid: Span,
    /// All nodes but node 0 come by one token, which is for so many; none: node 0 signs each certificate itself.
    pub token: Option<u32>,
    /// Who came by that token is forgotten some minutes after it has gone.
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

/// `[churn]`: each node for itself, at random times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Churn {
    /// How often a node goes and comes again.
    pub restarts_per_node_hour: f64,
    /// Share of those that crash instead of saying goodbye.
    pub crash_share: f64,
    /// How long a node stays away, on average.
    pub away: Span,
    /// How often one of a node's links dies without a word.
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

/// `[limits]`: bounds that a test may want to reach; the engine's own by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsTable {
    /// (root, group) entries that one neighbour may keep at a router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_states_per_neighbor: Option<usize>,
    /// Routers of a network in which every source knows who listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub small_network: Option<usize>,
    /// Routers of a network in which every source has a tree of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_trees: Option<usize>,
}

/// What is wrong with the simulated nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defect {
    /// One in 200 packets is written into `lc0` twice.
    DoubleDelivery,
    /// One in 50 control messages vanishes although the link lives.
    LostControl,
    /// One in 200 messages of a link is sent twice more.
    Echo,
}

/// `[[workload]]`: what programs do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Workload {
    /// Groups of very different popularity; programs join and leave, some with source filters.
    Zipf {
        /// How many groups.
        #[serde(default = "Workload::groups")]
        groups: u32,
        /// The k-th group is joined in proportion to 1/k^exponent.
        #[serde(default = "Workload::exponent")]
        exponent: f64,
        /// Groups that a node has joined at a time, on average.
        #[serde(default = "Workload::memberships")]
        memberships: f64,
        /// How long a membership lasts, on average.
        #[serde(alias = "hold", default = "Workload::lasts")]
        lasts: Span,
        /// Share of joins that name sources.
        #[serde(default = "Workload::filtered")]
        filtered: f64,
        /// Nodes that send to a group.
        #[serde(default = "Workload::senders")]
        senders: u32,
        /// Packets a second, all senders and groups together.
        #[serde(default = "Workload::rate")]
        rate: f64,
    },
    /// Receivers fetch blocks, each of which has a group below the announced prefix of their server.
    Lcsync {
        /// How many servers; each announces a prefix.
        #[serde(default = "Workload::one")]
        servers: u32,
        /// Receivers of each.
        #[serde(default = "Workload::receivers")]
        receivers: u32,
        /// Blocks of each.
        #[serde(default = "Workload::blocks")]
        blocks: u32,
        /// Groups that a receiver has joined at a time.
        #[serde(default = "Workload::window")]
        window: u32,
        /// How long a receiver stays with a block.
        #[serde(default = "Workload::block_time")]
        block_time: Span,
    },
    /// Rooms in which everybody speaks to everybody.
    Chat {
        /// How many rooms.
        #[serde(default = "Workload::rooms")]
        rooms: u32,
        /// Members of each.
        #[serde(default = "Workload::members")]
        members: u32,
        /// Between two packets of one member, on average.
        #[serde(default = "Workload::pause")]
        pause: Span,
    },
    /// Every node joins one group and sends to it.
    Discovery {
        /// Between two packets of one node.
        #[serde(default = "Workload::interval")]
        interval: Span,
    },
    /// Steady streams to many listeners.
    Stream {
        /// How many groups, each with one source.
        #[serde(default = "Workload::one")]
        groups: u32,
        /// Share of the nodes that listen to each.
        #[serde(default = "Workload::share")]
        listeners: f64,
        /// Between two packets.
        #[serde(default = "Workload::period")]
        period: Span,
        /// Source-specific groups.
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

/// `[[event]]`: what happens to the network, counted from the start of the workloads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A share of the nodes crashes at once, for good.
    Kill {
        /// When.
        at: Span,
        /// Of all nodes.
        share: f64,
    },
    /// A share of the nodes is cut off from the others for a time.
    Partition {
        /// When.
        at: Span,
        /// Of all nodes.
        share: f64,
        /// For how long.
        lasts: Span,
    },
    /// A share of the nodes is switched off for a time, node 0 not.
    Absence {
        /// When.
        at: Span,
        /// Of all nodes.
        share: f64,
        /// For how long.
        lasts: Span,
    },
    /// A share of the nodes is expelled by the network's key, node 0 not.
    Revoke {
        /// When.
        at: Span,
        /// Of all nodes.
        share: f64,
    },
    /// The clocks of all hosts are put forward.
    Clocks {
        /// When.
        at: Span,
        /// By how much.
        by: Span,
    },
    /// The signalling server cannot be reached for a time.
    Server {
        /// When.
        at: Span,
        /// For how long.
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

    /// What cannot be simulated.
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

    /// The file's text, with every key.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a scenario consists of tables, numbers and strings")
    }
}

/// An error of a TOML file with its line and key.
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
