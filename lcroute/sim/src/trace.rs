//! A run as a file for replay: scenario and script.

use serde::{Deserialize, Serialize};

use crate::action::{Script, line, parse_line};
use crate::model::Violation;
use crate::scenario::{Scenario, at_line};
use crate::time::{At, Nanos, SECOND};

/// A trace file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Description of the broken rule.
    #[serde(default)]
    violation: String,
    /// End of the run, in seconds.
    until: String,
    /// Actions, one per line.
    script: Vec<String>,
    /// Its scenario; the script contains workloads, churn and events.
    pub scenario: Scenario,
}

impl Trace {
    /// Makes a trace of a script and the rule that it broke.
    pub fn new(scenario: &Scenario, script: &Script, violation: &Violation) -> Self {
        let Violation {
            rule,
            at,
            node,
            text,
        } = violation;
        Self {
            violation: format!("{} node {node}: {rule}: {text}", At(*at)),
            ..Self::of(scenario, script, at.saturating_add(SECOND))
        }
    }

    /// Makes a trace of a script that ran until a time without a violation.
    pub fn of(scenario: &Scenario, script: &Script, until: Nanos) -> Self {
        Self {
            violation: String::new(),
            until: At(until).to_string(),
            script: script.iter().map(line).collect(),
            scenario: scenario.clone(),
        }
    }

    /// Parses the text of a file called `file`.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let trace: Self = toml::from_str(text).map_err(|e| at_line(file, text, &e))?;
        let usage = |e: String| format!("{file}: {e}");
        trace.scenario.validate().map_err(usage)?;
        trace.until().map_err(usage)?;
        let script = trace.script().map_err(usage)?;
        let beyond = |node: u32| node >= trace.scenario.nodes;
        if let Some((at, action)) = script.iter().find(|(_, a)| a.nodes().any(beyond)) {
            return Err(usage(format!("{} {action}: no such node", At(*at))));
        }
        Ok(trace)
    }

    /// Returns its actions in order of time.
    pub fn script(&self) -> Result<Script, String> {
        let lines = self.script.iter().map(|text| parse_line(text));
        let mut script = lines.collect::<Result<Script, _>>()?;
        script.sort_by_key(|(at, _)| *at);
        Ok(script)
    }

    /// Returns the end of the run.
    pub fn until(&self) -> Result<Nanos, String> {
        Ok(self.until.parse::<At>()?.0)
    }

    /// Returns the file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a trace consists of tables, numbers and strings")
    }
}
