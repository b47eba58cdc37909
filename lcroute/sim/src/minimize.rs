//! Shortest scripts that break the same rule (delta debugging, Zeller and Hildebrandt 2002).

use std::sync::Arc;

use crate::action::{Action, Script};
use crate::model::{Rule, Violation};
use crate::population::Population;
use crate::scenario::Scenario;
use crate::simulation::Simulation;
use crate::time::{Nanos, SECOND};

/// Bound of runs.
const RUNS: u32 = 2_000;
/// Bound of events in all runs: a multiple of the first run's, and an addition.
const EVENTS: (u64, u64) = (60, 2_000_000);
/// The multiple for whole nodes: an event costs ten times as much.
const EVENTS_WHOLE: u64 = 10;
/// Time by which a shortened script may break the rule later.
pub const LATER: Nanos = 10 * SECOND;

struct Minimizer<'a> {
    scenario: &'a Arc<Scenario>,
    population: &'a Arc<Population>,
    rule: Rule,
    end: Nanos,
    runs: u32,
    events: u64,
    script: Script,
}

/// Removes the actions of `script` that are not needed to break the rule of `violation`; `events`
/// is the number of events in the first run.
pub fn minimize(
    scenario: &Arc<Scenario>,
    population: &Arc<Population>,
    script: &Script,
    violation: &Violation,
    events: u64,
) -> Script {
    let until = script.partition_point(|(at, _)| *at <= violation.at);
    let mut minimizer = Minimizer {
        scenario,
        population,
        rule: violation.rule,
        end: violation.at + LATER,
        runs: RUNS,
        events: if scenario.whole {
            events * EVENTS_WHOLE
        } else {
            events * EVENTS.0 + EVENTS.1
        },
        script: script[..until].to_vec(),
    };
    minimizer.without_nodes();
    minimizer.in_chunks();
    minimizer.script
}

impl Minimizer<'_> {
    fn is_spent(&self) -> bool {
        self.runs == 0 || self.events == 0
    }

    /// Keeps the shorter script if it still breaks the rule.
    fn try_script(&mut self, script: Script) -> bool {
        if self.is_spent() || script.len() == self.script.len() {
            return false;
        }
        self.runs -= 1;
        let mut simulation =
            Simulation::new(self.scenario.clone(), self.population.clone(), script, 1);
        simulation.run_until(self.end);
        self.events = self.events.saturating_sub(simulation.statistics().events);
        let broken = simulation.violation.as_ref().map(|v| v.rule) == Some(self.rule);
        if broken {
            self.script = simulation.into_script();
        }
        broken
    }

    /// Removes all actions of nodes: half of the nodes first, then fewer.
    fn without_nodes(&mut self) {
        let mut chunk = self.scenario.nodes.div_ceil(2);
        loop {
            let mut first = 0;
            while first < self.scenario.nodes && !self.is_spent() {
                let of = |action: &Action| {
                    action
                        .node()
                        .is_some_and(|n| (first..first + chunk).contains(&n))
                };
                let rest = self.script.iter().filter(|(_, a)| !of(a));
                let rest = rest.cloned().collect();
                self.try_script(rest);
                first += chunk;
            }
            if chunk <= 1 {
                return;
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// Removes chunks of the script, from half its length down to one line, while any is removable.
    fn in_chunks(&mut self) {
        let mut chunk = self.script.len().div_ceil(2).max(1);
        loop {
            let mut shorter = false;
            let mut first = 0;
            while first < self.script.len() && !self.is_spent() {
                let mut rest = self.script.clone();
                rest.drain(first..(first + chunk).min(rest.len()));
                if self.try_script(rest) {
                    shorter = true;
                } else {
                    first += chunk;
                }
            }
            if self.is_spent() || chunk == 1 && !shorter {
                return;
            }
            chunk = chunk.div_ceil(2);
        }
    }
}
