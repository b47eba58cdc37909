//! The page's interface to one network.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use lcroute_sim::scenario::Scenario;
use lcroute_sim::{Action, Live, Nanos, Sight, What};
use serde::Serialize;

/// In nanoseconds.
const MILLISECOND: f64 = 1e6;
/// Bytes of payload in a stream's packet.
const BYTES: u16 = 200;
/// Shortest period of a stream, in milliseconds.
const FASTEST: f64 = 1.0;

fn millis(at: Nanos) -> f64 {
    at as f64 / MILLISECOND
}

fn nanos(millis: f64) -> Nanos {
    (millis * MILLISECOND) as Nanos
}

/// A program that sends periodically.
#[derive(Debug)]
struct Stream {
    period: Nanos,
    next: Nanos,
}

/// Key of a router's advertisement to a neighbour: router, neighbour, root and group.
type Advertised = (u32, u32, u32, Ipv6Addr);

/// A network of routers, and the programs that send in it.
#[derive(Debug)]
pub struct World {
    live: Live,
    nodes: u32,
    streams: BTreeMap<(u32, Ipv6Addr), Stream>,
    /// Whether listeners, and whether senders, are on the advertising router's side.
    advertised: BTreeMap<Advertised, (bool, bool)>,
}

/// An event, in milliseconds of virtual time.
#[derive(Debug, Serialize)]
struct Event {
    at: f64,
    node: u32,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arrives: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Network {
    now: f64,
    runs: Vec<bool>,
    links: Vec<Link>,
    cuts: Vec<(u32, u32)>,
    /// The broken rule of the model, which stops the time.
    violation: Option<String>,
}

#[derive(Debug, Serialize)]
struct Link {
    ends: [u32; 2],
    up: [bool; 2],
    alive: bool,
    latency: f64,
}

#[derive(Debug, Serialize)]
struct Group {
    joined: Vec<bool>,
    sends: Vec<bool>,
    /// As each router knows them.
    roots: Vec<Option<u32>>,
    /// Edges of the tree, in the direction of packets.
    edges: Vec<(u32, u32)>,
}

impl World {
    /// Creates a network without running nodes from the text of a scenario file.
    pub fn new(scenario: &str) -> Result<Self, String> {
        let scenario = Scenario::parse("scenario", scenario)?;
        Ok(Self {
            nodes: scenario.nodes,
            live: Live::new(scenario),
            streams: BTreeMap::new(),
            advertised: BTreeMap::new(),
        })
    }

    /// Executes a line of a script, without its time.
    pub fn act(&mut self, line: &str) -> Result<(), String> {
        self.act_at(self.live.now(), line.parse()?)
    }

    fn act_at(&mut self, at: Nanos, action: Action) -> Result<(), String> {
        self.live.act(at, action)
    }

    /// Sends to a group from a node every `period` ms from now on; a `period` of 0 stops it.
    pub fn stream(&mut self, node: u32, group: &str, period: f64) -> Result<(), String> {
        let group: Ipv6Addr = group
            .parse()
            .map_err(|_| format!("{group} is no address"))?;
        let next = self.live.now();
        if period > 0.0 {
            let period = nanos(period.max(FASTEST));
            self.streams.insert((node, group), Stream { period, next });
        } else {
            self.streams.remove(&(node, group));
        }
        Ok(())
    }

    /// Runs until `end` ms since the start, or until a rule is broken; returns the reached time.
    pub fn run_until(&mut self, end: f64) -> f64 {
        let end = nanos(end);
        let next = |(key, stream): (&(u32, Ipv6Addr), &Stream)| (stream.next, *key);
        while let Some((at, (node, group))) = self.streams.iter().map(next).min()
            && at <= end
        {
            // this detects a node that does not exist
            if self.act_at(at, Action::Send(node, group, BYTES)).is_err() {
                self.streams.remove(&(node, group));
            } else if let Some(stream) = self.streams.get_mut(&(node, group)) {
                stream.next += stream.period;
            }
        }
        self.live.run_until(end);
        millis(self.live.now())
    }

    /// The events since the last call, as JSON.
    pub fn events(&mut self) -> String {
        let mut events = Vec::new();
        for sight in self.live.take_sights() {
            self.tell(sight, &mut events);
        }
        json(&events)
    }

    fn tell(&mut self, sight: Sight, events: &mut Vec<Event>) {
        let Sight { at, node, what } = sight;
        let mut event = Event {
            at: millis(at),
            node,
            kind: "",
            to: None,
            arrives: None,
            root: None,
            group: None,
            number: None,
        };
        match what {
            What::Start => event.kind = "start",
            What::End => {
                self.advertised.retain(|(from, ..), _| *from != node);
                event.kind = "end";
            }
            What::LinkUp(to) => (event.kind, event.to) = ("link_up", Some(to)),
            What::LinkDown(to) => {
                let gone = |(from, peer, ..): &Advertised| (*from, *peer) == (node, to);
                self.advertised.retain(|key, _| !gone(key));
                (event.kind, event.to) = ("link_down", Some(to));
            }
            What::JoinState {
                to,
                arrives,
                root,
                group,
                join,
                source_active,
            } => {
                let key = (node, to, root, group);
                let (joined, active) = self.advertised.remove(&key).unwrap_or_default();
                if join || source_active {
                    self.advertised.insert(key, (join, source_active));
                }
                for (before, after, kinds) in [
                    (joined, join, ["part", "join"]),
                    (active, source_active, ["quiet", "active"]),
                ] {
                    if before != after {
                        events.push(Event {
                            kind: kinds[usize::from(after)],
                            to: Some(to),
                            arrives: Some(millis(arrives)),
                            root: Some(root),
                            group: Some(group),
                            ..event
                        });
                    }
                }
                return;
            }
            What::LinkState { to, arrives } => {
                event.kind = "link_state";
                (event.to, event.arrives) = (Some(to), Some(millis(arrives)));
            }
            What::Send { number, group } => {
                event.kind = "send";
                (event.number, event.group) = (Some(number), Some(group));
            }
            What::Forward {
                to,
                arrives,
                number,
                group,
            } => {
                event.kind = "forward";
                (event.to, event.arrives) = (Some(to), arrives.map(millis));
                (event.number, event.group) = (Some(number), Some(group));
            }
            What::Deliver { number, group } => {
                event.kind = "deliver";
                (event.number, event.group) = (Some(number), Some(group));
            }
        }
        events.push(event);
    }

    /// Current nodes and links, as JSON.
    #[must_use]
    pub fn network(&self) -> String {
        let links = self.live.links().into_iter().map(|link| Link {
            ends: link.ends,
            up: link.up,
            alive: link.alive,
            latency: millis(link.latency),
        });
        let broken =
            |v: &lcroute_sim::Violation| format!("node {}: {}: {}", v.node, v.rule, v.text);
        json(&Network {
            now: millis(self.live.now()),
            runs: (0..self.nodes).map(|node| self.live.runs(node)).collect(),
            links: links.collect(),
            cuts: self.live.cuts().collect(),
            violation: self.live.violation().map(broken),
        })
    }

    /// Members and senders of a group, and its tree, as JSON.
    pub fn group(&self, group: &str) -> Result<String, String> {
        let group: Ipv6Addr = group
            .parse()
            .map_err(|_| format!("{group} is no address"))?;
        let (mut roots, mut edges) = (Vec::new(), Vec::new());
        for node in 0..self.nodes {
            let view = self.live.group(node, group);
            roots.push(view.as_ref().map(|view| view.root));
            let joined_by = view.map(|view| view.joined_by).unwrap_or_default();
            edges.extend(joined_by.into_iter().map(|to| (node, to)));
        }
        let each = |f: &dyn Fn(u32) -> bool| (0..self.nodes).map(f).collect();
        Ok(json(&Group {
            joined: each(&|node| self.live.has_joined(node, group)),
            sends: each(&|node| self.streams.contains_key(&(node, group))),
            roots,
            edges,
        }))
    }

    /// All actions so far, as a file for `lcroute sim --replay`.
    #[must_use]
    pub fn trace(&self) -> String {
        self.live.trace().to_toml()
    }

    /// A hash of all events so far and their content, in hexadecimal digits.
    #[must_use]
    pub fn log(&self) -> String {
        format!("{:016x}", self.live.log())
    }
}

pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
