//! Comparison of topology policies on the same nodes at the same places.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use crate::action::Action;
use crate::measure::{Bench, Outage, REST, Subject, WINDOW};
use crate::random::Draw as _;
use crate::scenario::Policy;
use crate::time::{MILLISECOND, Nanos, SECOND};

/// Time after [`REST`] before control bytes are counted. Chosen: most trials of near links are
/// over, and a thousand nodes take minutes of processor time.
const SETTLE: Nanos = 300 * SECOND;
/// Virtual time per step of waiting. Chosen: a phone draws again within about a second.
const STEP: Nanos = SECOND;
/// Sources for path stretch, as in the model of reference.
const SOURCES: usize = 40;
/// Groups with listeners. Chosen: enough for a mean.
const GROUPS: usize = 8;
/// Listeners of each group, at random nodes. Chosen.
const LISTENERS: usize = 20;
/// Time from a mass death to the second count of pieces.
const AFTER: Nanos = 5 * SECOND;
/// Time for restarted nodes to regain their places.
const RECOVERY: Nanos = 60 * SECOND;

/// Share of the survivors of a mass death in the largest piece of the network.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Joined {
    /// Before any new link.
    pub before: f64,
    /// Five seconds later.
    pub after: f64,
}

/// Results of a policy on a network.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Comparison {
    /// Number of nodes.
    pub nodes: u32,
    /// The policy, with its degree if it has one.
    pub policy: String,
    /// Seed of all randomness.
    pub seed: u64,
    /// Mean number of a node's links.
    pub links_mean: f64,
    /// Greatest number of a node's links.
    pub links_max: usize,
    /// Mean one-way latency of a link.
    pub link_ms: f64,
    /// Latency of the shortest path, relative to a direct link.
    pub stretch_path: f64,
    /// The same over a shared tree.
    pub stretch_shared: f64,
    /// Sum of the latencies of all links that a packet to twenty listeners crosses.
    pub listeners_ms: f64,
    /// Number of these links.
    pub listeners_sends: f64,
    /// Copies of such a packet that leave its sender, on the mean.
    pub sender_copies: f64,
    /// Control bytes per node and second at rest, five minutes after all have started.
    pub rest_bytes: f64,
    /// The same with two restarts per node and hour.
    pub churn_bytes: f64,
    /// Outage of listeners when a router on the tree dies.
    pub node_death: Outage,
    /// 5 % of all nodes die at once.
    pub of_5_percent: Joined,
    /// 20 % of all nodes die at once.
    pub of_20_percent: Joined,
    /// The 20 % of nodes around one place die at once.
    pub of_region: Joined,
    /// A broken rule of the simulation.
    pub broken_rule: Option<String>,
}

/// Measures a policy; `progress` receives the name of each part.
pub fn compare(subject: Subject, threads: usize, progress: &mut dyn FnMut(&str)) -> Comparison {
    let mut comparing = Comparing::new(subject, threads);
    while let Some(part) = comparing.part() {
        progress(part.name());
        comparing.step();
    }
    let Comparing {
        mut bench,
        mut figures,
        ..
    } = comparing;
    bench.run(RECOVERY);
    progress("deaths");
    let (group, source) = bench.join_half();
    figures.node_death = bench.node_deaths(source, group);
    progress("churn");
    figures.churn_bytes = bench.churn();
    figures.broken_rule = bench.simulation.violation.map(|v| format!("{v:?}"));
    figures
}

/// A comparison in steps, so that a page can draw in between. It omits single deaths and churn; all
/// other results equal those of [`compare`] exactly.
#[derive(Debug)]
pub struct Comparing {
    bench: Bench,
    figures: Comparison,
    shared: Shared,
    /// Remaining parts, in reverse order.
    parts: Vec<Part>,
}

/// Part of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Nodes start, and links settle.
    Settle,
    /// Control bytes are counted.
    Rest,
    /// Latencies of links and paths.
    Paths,
    /// Packets to twenty listeners of a group.
    Shared,
    /// One in twenty nodes dies, all at once.
    FivePercent,
    /// One in five nodes dies.
    TwentyPercent,
    /// One in five nodes dies, all around one place.
    Region,
    /// Dead nodes restart, and links settle.
    Return,
}

impl Part {
    /// Returns its name for users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Settle => "coming to rest",
            Self::Rest => "control bytes",
            Self::Paths => "stretch",
            Self::Shared => "packets to 20 listeners",
            Self::FivePercent => "5 % die",
            Self::TwentyPercent => "20 % die",
            Self::Region => "a region dies",
            Self::Return => "the dead return",
        }
    }
}

impl Comparing {
    /// Makes a network of stopped nodes.
    #[must_use]
    pub fn new(subject: Subject, threads: usize) -> Self {
        let steps = |part, time: Nanos| vec![part; (time / STEP) as usize];
        let mut parts = vec![Part::Region];
        parts.extend(steps(Part::Return, RECOVERY));
        parts.push(Part::TwentyPercent);
        parts.extend(steps(Part::Return, RECOVERY));
        parts.push(Part::FivePercent);
        parts.extend([Part::Shared; GROUPS]);
        parts.extend([Part::Paths, Part::Rest]);
        parts.extend(steps(Part::Settle, REST + SETTLE));
        let policy = match subject.policy {
            Policy::Regular => format!("regular {}", subject.degree),
            policy => policy.to_string(),
        };
        Self {
            bench: Bench::new(subject, threads),
            figures: Comparison {
                nodes: subject.nodes,
                policy,
                seed: subject.seed,
                ..Comparison::default()
            },
            shared: Shared::default(),
            parts,
        }
    }

    /// Returns the part of the next step; `None` at the end.
    pub fn part(&self) -> Option<Part> {
        self.parts.last().copied()
    }

    /// Returns the number of remaining steps.
    pub fn left(&self) -> usize {
        self.parts.len()
    }

    /// Performs the next step.
    pub fn step(&mut self) {
        let (bench, figures) = (&mut self.bench, &mut self.figures);
        match self.parts.pop() {
            None => {}
            Some(Part::Settle | Part::Return) => bench.run(STEP),
            Some(Part::Rest) => {
                figures.rest_bytes = bench.control_bytes(WINDOW);
                (figures.links_mean, figures.links_max) = bench.links();
                bench.simulation.act(Action::Calm);
                bench.run(15 * SECOND);
            }
            Some(Part::Paths) => {
                figures.link_ms = link_ms(bench);
                figures.stretch_path = path_stretch(bench);
            }
            Some(Part::Shared) => {
                self.shared.add(bench);
                self.shared.write(figures);
                if self.part() != Some(Part::Shared) {
                    self.bench.end_calm();
                }
            }
            Some(Part::FivePercent) => figures.of_5_percent = share_dies(bench, 0.05),
            Some(Part::TwentyPercent) => figures.of_20_percent = share_dies(bench, 0.20),
            Some(Part::Region) => {
                let count = share(bench, 0.20);
                let victims = region(bench, count);
                figures.of_region = mass_death(bench, victims);
            }
        }
    }

    /// Returns the results so far; the rest is zero.
    pub fn figures(&self) -> &Comparison {
        &self.figures
    }

    /// Returns the links between running nodes, each once.
    pub fn links(&self) -> Vec<[u32; 2]> {
        let links = self.bench.simulation.links.iter();
        let up = links.filter(|l| l.alive && l.up == [true; 2]);
        up.map(|l| l.ends).collect()
    }

    /// Returns the nodes' places in the unit square.
    pub fn places(&self) -> &[(f64, f64)] {
        self.bench.simulation.map.places()
    }
}

fn share(bench: &Bench, share: f64) -> usize {
    (f64::from(bench.nodes) * share).round() as usize
}

fn share_dies(bench: &mut Bench, of_all: f64) -> Joined {
    let count = share(bench, of_all);
    let victims = bench.random.sample(bench.nodes as usize, count);
    mass_death(bench, victims)
}

fn link_ms(bench: &Bench) -> f64 {
    let links = bench.simulation.links.iter();
    let up = links.filter(|l| l.alive && l.up == [true; 2]);
    let (sum, count) = up.fold((0, 0), |(sum, n), l| (sum + l.latency, n + 1));
    sum as f64 / f64::from(count.max(1)) / MILLISECOND as f64
}

fn path_stretch(bench: &mut Bench) -> f64 {
    let nodes = bench.nodes;
    let sources = bench.random.sample(nodes as usize, SOURCES);
    let (mut path, mut direct) = (0, 0);
    for source in sources {
        let far = bench.simulation.latencies(source);
        for node in (0..nodes).filter(|node| *node != source) {
            // a node that is cut off has no path: it counts among the pieces
            if far[node as usize] < Nanos::MAX {
                path += far[node as usize];
                direct += bench.simulation.map.latency(source, node);
            }
        }
    }
    path as f64 / direct.max(1) as f64
}

/// Sums over groups with a shared tree.
#[derive(Debug, Default)]
struct Shared {
    groups: u32,
    path: Nanos,
    direct: Nanos,
    sends: u64,
    own: u64,
    crossed: Nanos,
}

impl Shared {
    /// Adds listeners of another group, and sends them a packet.
    fn add(&mut self, bench: &mut Bench) {
        let (source, group) = (bench.node(), bench.group());
        for node in bench.random.sample(bench.nodes as usize, LISTENERS) {
            bench.join(node, group);
        }
        bench.run(3 * SECOND);
        // the first packets of a flow find the listeners
        bench.simulation.send(source, group, 100, false);
        bench.run(3 * SECOND);
        let before = bench.packets();
        bench.simulation.watch_deliveries();
        bench.simulation.send(source, group, 8, false);
        bench.run(2 * SECOND);
        for delivery in bench.simulation.take_deliveries() {
            if delivery.node != source {
                self.path += delivery.at - delivery.sent;
                self.direct += bench.simulation.map.latency(source, delivery.node);
            }
        }
        for (link, now) in bench.packets().iter().enumerate() {
            let old = before.get(link).copied().unwrap_or_default();
            let packets: u64 = (0..2).map(|side| now[side].saturating_sub(old[side])).sum();
            self.sends += packets;
            let ends = bench.simulation.links[link].ends;
            let own = (0..2).filter(|side| ends[*side] == source);
            self.own += own
                .map(|side| now[side].saturating_sub(old[side]))
                .sum::<u64>();
            self.crossed += packets * bench.simulation.links[link].latency;
        }
        self.groups += 1;
    }

    fn write(&self, figures: &mut Comparison) {
        let groups = f64::from(self.groups.max(1));
        figures.stretch_shared = self.path as f64 / self.direct.max(1) as f64;
        figures.listeners_sends = self.sends as f64 / groups;
        figures.sender_copies = self.own as f64 / groups;
        figures.listeners_ms = self.crossed as f64 / groups / MILLISECOND as f64;
    }
}

fn region(bench: &mut Bench, count: usize) -> Vec<u32> {
    let middle = bench.node();
    let mut all: Vec<u32> = (0..bench.nodes).collect();
    all.sort_by_key(|node| match *node {
        node if node == middle => 0,
        node => bench.simulation.map.latency(middle, node),
    });
    all.truncate(count);
    all
}

/// Makes nodes die at once, counts the pieces, and restarts them.
fn mass_death(bench: &mut Bench, victims: Vec<u32>) -> Joined {
    let dead: BTreeSet<u32> = victims.iter().copied().collect();
    for node in &victims {
        bench.simulation.act(Action::Crash(*node));
    }
    let before = largest_piece(bench, &dead);
    bench.run(AFTER);
    let after = largest_piece(bench, &dead);
    for node in victims {
        bench.simulation.act(Action::Start(node));
    }
    Joined { before, after }
}

fn largest_piece(bench: &mut Bench, dead: &BTreeSet<u32>) -> f64 {
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    let pieces = (0..).zip(bench.simulation.pieces());
    for (_, piece) in pieces.filter(|(node, _)| !dead.contains(node)) {
        *sizes.entry(*piece).or_default() += 1;
    }
    let survivors: usize = sizes.values().sum();
    let largest = sizes.values().copied().max().unwrap_or(0);
    largest as f64 / survivors.max(1) as f64
}

/// Returns the results of all policies as a Markdown table.
#[must_use]
pub fn comparison_table(all: &[Comparison]) -> String {
    let mut text = String::from(
        "| | links (most) | link, ms | stretch: path, shared | 20 listeners: ms, sends, of the sender | control B/s: rest, churn | heard again p50, p99, ms | joined after 5 %, 20 %, a region die |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for f in all {
        let joined = [f.of_5_percent, f.of_20_percent, f.of_region].map(|joined| {
            let percent = |share: f64| (share * 1_000.0).floor() / 10.0;
            format!("{} -> {}", percent(joined.before), percent(joined.after))
        });
        // writing into a string cannot fail
        let _ = writeln!(
            text,
            "| {}, {} nodes | {:.1} ({}) | {:.1} | {:.2}, {:.2} | {:.0}, {:.0}, {:.1} | {:.0}, {:.0} | {:.0}, {:.0} | {} |",
            f.policy,
            f.nodes,
            f.links_mean,
            f.links_max,
            f.link_ms,
            f.stretch_path,
            f.stretch_shared,
            f.listeners_ms,
            f.listeners_sends,
            f.sender_copies,
            f.rest_bytes,
            f.churn_bytes,
            f.node_death.median_ms,
            f.node_death.p99_ms,
            joined.join("; "),
        );
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_differ_where_they_should() {
        let of = |policy| {
            let subject = Subject {
                nodes: 24,
                policy,
                degree: 4,
                seed: 1,
            };
            let figures = compare(subject, 1, &mut |_| ());
            assert_eq!(figures.broken_rule, None, "{policy}");
            assert!(figures.node_death.count > 0, "{policy}: {figures:?}");
            figures
        };
        let [mesh, regular, tree, fractal] =
            [Policy::Mesh, Policy::Regular, Policy::Tree, Policy::Fractal].map(of);
        assert_eq!(mesh.links_mean, 23.0);
        assert!((1.8..2.2).contains(&tree.links_mean), "{tree:?}");
        assert!(tree.stretch_path > regular.stretch_path);
        assert!(tree.stretch_path > fractal.stretch_path);
        assert!((0.99..1.001).contains(&mesh.stretch_path), "{mesh:?}");
        for figures in [&mesh, &regular, &fractal] {
            let all = [
                figures.of_5_percent,
                figures.of_20_percent,
                figures.of_region,
            ];
            assert!(all.iter().all(|joined| joined.after == 1.0), "{figures:?}");
        }
        assert_eq!(comparison_table(&[tree, fractal]).lines().count(), 4);
    }

    #[test]
    fn a_tree_is_parted_by_a_death_and_grows_together() {
        let subject = Subject {
            nodes: 24,
            policy: Policy::Tree,
            degree: 4,
            seed: 1,
        };
        let mut bench = Bench::new(subject, 1);
        bench.run(60 * SECOND);
        let links = |node: &u32| bench.simulation.node(*node).links.len();
        let victim = (0..bench.nodes).max_by_key(links);
        let joined = mass_death(&mut bench, victim.into_iter().collect());
        assert!(joined.before < 1.0, "{joined:?}");
        assert!(joined.after > joined.before, "{joined:?}");
    }
}
