//! `lcroute sim`: arguments and output.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lcroute_sim::scenario::{MAX_NODES, Policy, Scenario, Span};
use lcroute_sim::{
    At, AudienceFigures, Nanos, Outcome, Population, SECOND, Subject, Trace, audience, compare,
    comparison_table, explain, library, max_leaves, measure, run_script, script, table,
};
use librecast_program::cli::{Exit, ExitError};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  lcroute sim --scenario chat --nodes 200 --seed 7
  lcroute sim --scenario bad-day --seeds 20       seeds 1 to 20
  lcroute sim --scenario bad-links --nodes 30     whole nodes: NAT, loss, one-way paths
  lcroute sim --scenario chat --print > my.toml   every key, to be changed
  lcroute sim --scenario my.toml
  lcroute sim --replay trace.toml
  lcroute sim --measure 10,100 --policy regular   the figures of docs/routing-measured.md
  lcroute sim --compare-topologies 100            mesh, regular, tree and fractal beside each other
  lcroute sim --scenario audience --leaves 100000 what routers pay for listeners that are leaves

Exit code 1: a rule was broken. The seed and a short trace that replays are printed.";

/// Maximum number of nodes of a measured mesh.
const MAX_MESH: u32 = 100;
/// The scenario that measures leaves instead of running a script.
const AUDIENCE: &str = "audience";
/// Default number of routers and of leaves of `audience`. Chosen: 500 links per router.
const AUDIENCE_SIZE: (u32, u32) = (400, 100_000);
/// Default number of links of a node: the daemon's.
const DEGREE: u8 = 8;

/// Arguments of `lcroute sim`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A name (see --list) or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "zipf")]
    scenario: String,
    #[command(flatten)]
    changes: Changes,
    /// How many leaves the scenario `audience` has [default: 100000]
    #[arg(long, value_name = "N")]
    leaves: Option<u32>,
    /// So many runs, with seeds from the scenario's on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Run a trace again
    #[arg(long, value_name = "FILE", conflicts_with = "scenario")]
    replay: Option<PathBuf>,
    /// Where to write the trace of a broken rule
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Measure networks of N nodes: the figures of docs/routing-measured.md
    #[arg(long, value_name = "N,..", value_delimiter = ',', conflicts_with_all = ["scenario", "replay"])]
    measure: Vec<u32>,
    /// Measure each topology policy in networks of N nodes, at the same places; --policy for one alone
    #[arg(long, value_name = "N,..", value_delimiter = ',', conflicts_with_all = ["scenario", "replay", "measure"])]
    compare_topologies: Vec<u32>,
    /// Number of threads, at most one for each processor [default: one each]; the result is the same
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Print the scenario with every key, and do nothing
    #[arg(long)]
    print: bool,
    /// Print the names of scenarios, and do nothing
    #[arg(long)]
    list: bool,
}

/// Limits threads to the processors: more would take time from the rest while waiting for work.
fn threads(asked: Option<u16>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    asked.map_or(cores, |threads| cores.min(threads.into()))
}

/// Changes of a scenario by the command line.
#[derive(Debug, Args)]
struct Changes {
    /// How many nodes
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
    /// All that is random
    #[arg(long)]
    seed: Option<u64>,
    /// Which links there are: mesh, regular, tree, fractal or auto
    #[arg(long)]
    policy: Option<Policy>,
    /// Links of a node
    #[arg(long, value_name = "K")]
    degree: Option<u8>,
    /// How long the workloads go on, such as 2m
    #[arg(long, value_name = "D")]
    duration: Option<Span>,
    /// Share of data messages that links lose
    #[arg(long)]
    loss: Option<f64>,
    /// Simulate whole nodes: certificates, signalling, ICE, DTLS and lanes as well as routers
    #[arg(long)]
    whole: bool,
}

impl Changes {
    fn apply(&self, scenario: &mut Scenario) {
        fn set<T: Copy>(to: &mut T, value: Option<T>) {
            *to = value.unwrap_or(*to);
        }
        set(&mut scenario.nodes, self.nodes);
        set(&mut scenario.seed, self.seed);
        set(&mut scenario.topology.policy, self.policy);
        set(&mut scenario.topology.degree, self.degree);
        set(&mut scenario.duration, self.duration);
        set(&mut scenario.links.loss, self.loss);
        scenario.whole |= self.whole;
    }
}

impl Arguments {
    fn load(&self) -> Result<Scenario, ExitError> {
        let name = &self.scenario;
        let usage = |e| ExitError::new(Exit::Usage, e);
        let mut scenario = match library::find(name) {
            Some(scenario) => scenario,
            None if Path::new(name).exists() => {
                Scenario::parse(name, &read(Path::new(name))?).map_err(usage)?
            }
            None => {
                let message =
                    format!("{name}: no such file, and no scenario of this name (--list)");
                return Err(ExitError::new(Exit::Usage, message));
            }
        };
        self.changes.apply(&mut scenario);
        scenario.validate().map_err(usage)?;
        Ok(scenario)
    }
}

fn read(path: &Path) -> Result<String, ExitError> {
    let failed = |e| ExitError::new(Exit::Usage, format!("{}: {e}", path.display()));
    std::fs::read_to_string(path).map_err(failed)
}

/// Runs the simulator, with results on standard output.
pub fn run(arguments: &Arguments, json: bool) -> anyhow::Result<Exit> {
    if arguments.list {
        for (name, _) in library::all() {
            print_line(name)?;
        }
        print_line(AUDIENCE)?;
        return Ok(Exit::Ok);
    }
    if let Some(path) = &arguments.replay {
        let usage = |e| ExitError::new(Exit::Usage, e);
        let trace = Trace::parse(&path.display().to_string(), &read(path)?).map_err(usage)?;
        return replay(&trace, threads(arguments.threads), json);
    }
    if !arguments.measure.is_empty() {
        return measure_all(arguments, json);
    }
    if !arguments.compare_topologies.is_empty() {
        return compare_all(arguments, json);
    }
    if arguments.scenario == AUDIENCE {
        return measure_audience(arguments, json);
    }
    if arguments.leaves.is_some() {
        let message = "--leaves: of --scenario audience alone";
        return Err(ExitError::new(Exit::Usage, message).into());
    }
    let scenario = arguments.load()?;
    if arguments.print {
        print_line(scenario.to_toml().trim_end())?;
        return Ok(Exit::Ok);
    }
    let population = Arc::new(Population::of(&scenario));
    let mut exit = Exit::Ok;
    for seed in scenario.seed..=scenario.seed.saturating_add(arguments.seeds - 1) {
        let scenario = Arc::new(Scenario {
            seed,
            ..scenario.clone()
        });
        let script = script(&scenario);
        let bar = Bar::new(json);
        let mut progress = |now, end| bar.show(now, end);
        let threads = threads(arguments.threads);
        let outcome = run_script(
            &scenario,
            &population,
            script.clone(),
            None,
            threads,
            &mut progress,
        );
        drop(bar);
        print_outcome(&outcome, json)?;
        if outcome.violation.is_some() {
            exit = Exit::Failed;
            hint("looking for the shortest script that does it");
            if let Some(trace) = explain(&scenario, &population, &script, &outcome) {
                print_trace(&trace, arguments.trace.as_deref())?;
            }
        }
    }
    Ok(exit)
}

fn measure_all(arguments: &Arguments, json: bool) -> anyhow::Result<Exit> {
    let policies = [Policy::Mesh, Policy::Regular];
    let mut subjects = subjects(arguments, ("--measure", &arguments.measure), &policies)?;
    // one policy after the other, each from small to large networks
    subjects.sort_by_key(|subject| subject.policy != Policy::Mesh);
    let all = run_each(subjects, arguments, json, measure);
    let broken = all.iter().any(|f| f.broken_rule.is_some());
    let text = match json {
        true => serde_json::to_string(&all)?,
        false => table(&all),
    };
    conclude(text, broken)
}

fn compare_all(arguments: &Arguments, json: bool) -> anyhow::Result<Exit> {
    let policies = [Policy::Mesh, Policy::Regular, Policy::Tree, Policy::Fractal];
    let sizes = ("--compare-topologies", &arguments.compare_topologies[..]);
    let subjects = subjects(arguments, sizes, &policies)?;
    let all = run_each(subjects, arguments, json, compare);
    let broken = all.iter().any(|f| f.broken_rule.is_some());
    let text = match json {
        true => serde_json::to_string(&all)?,
        false => comparison_table(&all),
    };
    conclude(text, broken)
}

/// Returns networks of each size of `option`, with each of these policies or the requested one.
fn subjects(
    arguments: &Arguments,
    (option, sizes): (&str, &[u32]),
    policies: &[Policy],
) -> anyhow::Result<Vec<Subject>> {
    let changes = &arguments.changes;
    let policies = changes
        .policy
        .as_ref()
        .map_or(policies, std::slice::from_ref);
    let mut all = Vec::new();
    for &nodes in sizes {
        if !(4..=MAX_NODES).contains(&nodes) {
            let message = format!("{option} {nodes}: 4 to {MAX_NODES} nodes");
            return Err(ExitError::new(Exit::Usage, message).into());
        }
        let few = |policy: &&Policy| **policy != Policy::Mesh || nodes <= MAX_MESH;
        all.extend(policies.iter().filter(few).map(|policy| Subject {
            nodes,
            policy: *policy,
            degree: changes.degree.unwrap_or(DEGREE),
            seed: changes.seed.unwrap_or(1),
        }));
    }
    Ok(all)
}

fn run_each<T>(
    subjects: Vec<Subject>,
    arguments: &Arguments,
    json: bool,
    run: impl Fn(Subject, usize, &mut dyn FnMut(&str)) -> T,
) -> Vec<T> {
    let run_one = |subject: Subject| {
        let (policy, nodes) = (subject.policy, subject.nodes);
        let bar = Bar::spinner(json);
        let mut progress = |what: &str| bar.say(&format!("{policy} {nodes}: {what}"));
        run(subject, threads(arguments.threads), &mut progress)
    };
    subjects.into_iter().map(run_one).collect()
}

/// Prints the results; a broken rule makes the program fail.
fn conclude(text: String, broken: bool) -> anyhow::Result<Exit> {
    print_line(text)?;
    Ok(if broken { Exit::Failed } else { Exit::Ok })
}

fn measure_audience(arguments: &Arguments, json: bool) -> anyhow::Result<Exit> {
    let changes = &arguments.changes;
    let usage = |message: String| Err(ExitError::new(Exit::Usage, message).into());
    if arguments.print || arguments.seeds > 1 || arguments.trace.is_some() {
        return usage(format!(
            "--scenario {AUDIENCE} is measured: without --print, --seeds and --trace"
        ));
    }
    if changes.duration.is_some() || changes.loss.is_some() || changes.whole {
        return usage(format!(
            "--scenario {AUDIENCE}: without --duration, --loss and --whole"
        ));
    }
    let nodes = changes.nodes.unwrap_or(AUDIENCE_SIZE.0);
    if !(2..=MAX_NODES).contains(&nodes) {
        return usage(format!("--nodes {nodes}: 2 to {MAX_NODES} nodes"));
    }
    let (leaves, most) = (
        arguments.leaves.unwrap_or(AUDIENCE_SIZE.1),
        max_leaves(nodes),
    );
    if leaves > most {
        return usage(format!(
            "--leaves {leaves}: {nodes} routers serve {most} at most"
        ));
    }
    let subject = Subject {
        nodes,
        policy: changes.policy.unwrap_or(Policy::Auto),
        degree: changes.degree.unwrap_or(DEGREE),
        seed: changes.seed.unwrap_or(1),
    };
    let bar = Bar::spinner(json);
    let mut progress = |what: &str| bar.say(what);
    let figures = audience(subject, leaves, threads(arguments.threads), &mut progress);
    drop(bar);
    print_audience(&figures, json)?;
    let complete = figures.packets_sent == figures.packets_expected;
    Ok(match figures.broken_rule.is_none() && complete {
        true => Exit::Ok,
        false => Exit::Failed,
    })
}

fn print_audience(figures: &AudienceFigures, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(print_line(serde_json::to_string(figures)?)?);
    }
    let bytes = |b: lcroute_sim::RouterBytes| format!("{:.1}, {:.1}", b.coming, b.listening);
    let rows = [
        ("routers", figures.nodes.to_string()),
        (
            "leaves",
            format!("{}, {} links", figures.leaves, figures.leaf_links),
        ),
        (
            "between routers, none",
            format!("{} B/s a router", bytes(figures.without_audience)),
        ),
        (
            "between routers, all",
            format!("{} B/s a router", bytes(figures.with_audience)),
        ),
        ("of none", format!("{:.1} %", figures.ratio * 100.0)),
        (
            "router to leaf",
            format!("{:.1} B/s a leaf", figures.bytes_to_leaf),
        ),
        (
            "packets to leaves",
            format!("{} of {}", figures.packets_sent, figures.packets_expected),
        ),
        (
            "rules",
            figures.broken_rule.clone().unwrap_or("all hold".into()),
        ),
    ];
    for (name, value) in rows {
        print_line(format_args!("{name:<24} {value}"))?;
    }
    Ok(())
}

fn replay(trace: &Trace, threads: usize, json: bool) -> anyhow::Result<Exit> {
    let scenario = Arc::new(trace.scenario.clone());
    let population = Arc::new(Population::of(&scenario));
    let usage = |e| ExitError::new(Exit::Usage, e);
    let script = trace.script().map_err(usage)?;
    let until = trace.until().map_err(usage)?;
    let until = Some(until);
    let outcome = run_script(
        &scenario,
        &population,
        script,
        until,
        threads,
        &mut |_, _| (),
    );
    print_outcome(&outcome, json)?;
    Ok(match outcome.violation {
        Some(_) => Exit::Failed,
        None => Exit::Ok,
    })
}

fn print_trace(trace: &Trace, path: Option<&Path>) -> anyhow::Result<()> {
    match path {
        None => hint(format_args!(
            "replay it with --replay FILE:\n{}",
            trace.to_toml()
        )),
        Some(path) => {
            std::fs::write(path, trace.to_toml())?;
            let path = path.display();
            hint(format_args!("replay it with: lcroute sim --replay {path}"));
        }
    }
    Ok(())
}

fn print_outcome(outcome: &Outcome, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(print_line(serde_json::to_string(outcome)?)?);
    }
    let s = &outcome.statistics;
    let rows = [
        ("nodes", outcome.nodes.to_string()),
        ("seed", outcome.seed.to_string()),
        ("virtual time", format!("{:.0} s", outcome.seconds)),
        ("events", s.events.to_string()),
        ("starts, ends", format!("{}, {}", s.starts, s.stops)),
        (
            "links made, broken",
            format!("{}, {}", s.links_made, s.links_broken),
        ),
        ("joins and leaves", s.joins.to_string()),
        (
            "packets sent, delivered",
            format!(
                "{}, {}, of which {} had to be",
                s.sent, s.delivered, s.required
            ),
        ),
        (
            "data messages, lost",
            format!("{}, {}", s.data_messages, s.lost),
        ),
        (
            "control messages, bytes",
            format!("{}, {}", s.control.messages, s.control.bytes),
        ),
        ("dropped by nodes", dropped(&outcome.drops)),
        ("log", format!("{:016x}", outcome.log)),
        (
            "rules",
            match &outcome.violation {
                None => "all hold".into(),
                Some(v) => format!(
                    "BROKEN at {} by node {}: {}: {}",
                    At(v.at),
                    v.node,
                    v.rule,
                    v.text
                ),
            },
        ),
    ];
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        print_line(format_args!("{name:<24} {value}"))?;
    }
    Ok(())
}

fn dropped(drops: &BTreeMap<&'static str, u64>) -> String {
    let each = drops.iter().map(|(reason, n)| format!("{reason} {n}"));
    let each: Vec<_> = each.collect();
    each.join(", ")
}

/// Writes a line to standard output: a closed output is an error, no panic.
fn print_line(line: impl std::fmt::Display) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn hint(line: impl std::fmt::Display) {
    // a missing reader of the hint does not invalidate the result
    let _ = writeln!(std::io::stderr(), "lcroute sim: {line}");
}

/// A progress bar on a terminal, else nothing.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(json: bool) -> Self {
        let shown = !json && std::io::stderr().is_terminal();
        Self(shown.then(|| {
            let bar = ProgressBar::new(0);
            let template = "{wide_bar} {pos}/{len} virtual seconds {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        }))
    }

    /// Shows the present activity instead of a percentage.
    fn spinner(json: bool) -> Self {
        let shown = !json && std::io::stderr().is_terminal();
        Self(shown.then(ProgressBar::new_spinner))
    }

    fn say(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.to_owned());
            bar.tick();
        }
    }

    fn show(&self, now: Nanos, end: Nanos) {
        if let Some(bar) = &self.0 {
            bar.set_length(end / SECOND);
            bar.set_position(now / SECOND);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
