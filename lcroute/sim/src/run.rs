//! A run from begin to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::action::Script;
use crate::minimize::{LATER, minimize};
use crate::model::Violation;
use crate::population::Population;
use crate::scenario::Scenario;
use crate::simulation::Simulation;
use crate::statistics::Statistics;
use crate::time::{Nanos, SECOND};
use crate::trace::Trace;

/// Time after the last action for packets to arrive.
const TAIL: Nanos = 10 * SECOND;

/// Results of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Number of nodes.
    pub nodes: u32,
    /// Its seed.
    pub seed: u64,
    /// Virtual time in seconds.
    pub seconds: f64,
    /// Counts.
    pub statistics: Statistics,
    /// Drops of whole nodes, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub drops: BTreeMap<&'static str, u64>,
    /// Expelled nodes.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub expelled: BTreeSet<u32>,
    /// A hash of all events: equal for all runs of a scenario.
    #[serde(serialize_with = "hex")]
    pub log: u64,
    /// The broken rule, if any.
    pub violation: Option<Violation>,
    /// The trace that replays it.
    #[serde(skip)]
    pub trace: Option<Trace>,
}

fn hex<S: serde::Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&format_args!("{value:016x}"))
}

/// Runs a script in the network of a scenario until a time, by default a little longer than the
/// script. `progress` receives virtual time and end, once per virtual second. The number of threads
/// does not change the results.
pub fn run_script(
    scenario: &Arc<Scenario>,
    population: &Arc<Population>,
    script: Script,
    until: Option<Nanos>,
    threads: usize,
    progress: &mut dyn FnMut(Nanos, Nanos),
) -> Outcome {
    let mut simulation = Simulation::new(scenario.clone(), population.clone(), script, threads);
    let end = until.unwrap_or(simulation.end() + TAIL);
    while simulation.now() < end && simulation.violation.is_none() {
        progress(simulation.now(), end);
        simulation.run_until((simulation.now() + SECOND).min(end));
    }
    Outcome {
        nodes: scenario.nodes,
        seed: scenario.seed,
        seconds: simulation.now() as f64 / SECOND as f64,
        statistics: simulation.statistics(),
        drops: simulation.drops(),
        expelled: simulation.revoked.keys().copied().collect(),
        log: simulation.log(),
        violation: simulation.violation.clone(),
        trace: None,
    }
}

/// Shortens the script that broke a rule to a trace that replays.
pub fn explain(
    scenario: &Arc<Scenario>,
    population: &Arc<Population>,
    script: &Script,
    outcome: &Outcome,
) -> Option<Trace> {
    let violation = outcome.violation.as_ref()?;
    let events = outcome.statistics.events;
    let short = minimize(scenario, population, script, violation, events);
    let until = Some(violation.at + LATER);
    let again = run_script(
        scenario,
        population,
        short.clone(),
        until,
        1,
        &mut |_, _| (),
    );
    Some(Trace::new(scenario, &short, &again.violation?))
}
