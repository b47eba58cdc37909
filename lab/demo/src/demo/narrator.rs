//! Output of the demo: numbered steps for people, one JSON line a step for programs.

use std::io::{IsTerminal, Write, stdout};
use std::time::Instant;

use anyhow::{Error, Result};
use serde_json::{Map, Value, json};

/// Prints steps and the summary.
#[derive(Debug)]
pub struct Narrator {
    json: bool,
    colour: bool,
    begin: Instant,
    steps: usize,
}

/// A step in progress.
#[derive(Debug)]
pub struct Step<'a> {
    narrator: &'a Narrator,
    facts: Map<String, Value>,
    events: Vec<Value>,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";

impl Narrator {
    /// Returns a narrator, with colour only on a terminal without `NO_COLOR` (no-color.org).
    pub fn new(json: bool) -> Narrator {
        let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = !json && !asked_not_to && stdout().is_terminal();
        Narrator {
            json,
            colour,
            begin: Instant::now(),
            steps: 0,
        }
    }

    /// Prints text before the first step; not for programs.
    pub fn introduce(&self, title: &str, picture: &str) {
        self.print(&format!("\n{}\n\n{picture}", self.painted(BOLD, title)));
    }

    /// Announces a step, runs it, and reports it.
    pub fn step(&mut self, title: &str, work: impl FnOnce(&mut Step) -> Result<()>) -> Result<()> {
        self.steps += 1;
        let begin = Instant::now();
        let number = self.painted(GREEN, &format!("{:2}", self.steps));
        self.print(&format!("\n{number}  {}", self.painted(BOLD, title)));
        let mut step = Step {
            narrator: self,
            facts: Map::new(),
            events: Vec::new(),
        };
        let done = work(&mut step);
        let Step { facts, events, .. } = step;
        if self.json && done.is_ok() {
            self.line(&json!({
                "step": self.steps,
                "title": title,
                "ok": true,
                "seconds": seconds(begin),
                "facts": facts,
                "events": events,
            }));
        }
        done.map_err(|error| error.context(format!("step {}, \"{title}\"", self.steps)))
    }

    /// Prints the end of a successful demo.
    pub fn summarize(&self, lines: &[String]) {
        let all = format!(
            "{} steps in {:.1} s",
            self.steps,
            self.begin.elapsed().as_secs_f64()
        );
        self.print(&format!(
            "\n{}  {all}",
            self.painted(GREEN, "All of it worked.")
        ));
        for line in lines {
            self.print(&format!("    {line}"));
        }
        self.print("");
        if self.json {
            let summary = json!({"ok": true, "steps": self.steps, "seconds": seconds(self.begin), "text": lines});
            self.line(&json!({"summary": summary}));
        }
    }

    /// Prints the end of a failed demo.
    pub fn fail(&self, error: &Error) {
        eprintln!("\nThe demo failed.  {error:#}");
        if self.json {
            let summary = json!({"ok": false, "steps": self.steps, "seconds": seconds(self.begin), "error": format!("{error:#}")});
            self.line(&json!({"summary": summary}));
        }
    }

    fn print(&self, text: &str) {
        if !self.json {
            self.line(&text);
        }
    }

    /// Prints a line; a closed output (`lcroute demo | head`) does not end the demo.
    fn line(&self, text: &dyn std::fmt::Display) {
        let mut out = stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

impl Step<'_> {
    /// Prints a line about the step.
    pub fn say(&self, text: &str) {
        self.narrator.print(&format!("    {text}"));
    }

    /// Prints a command of the step.
    pub fn command(&self, host: &str, command: &str) {
        let line = format!("{host:<11}$ {command}");
        self.narrator
            .print(&format!("    {}", self.narrator.painted(DIM, &line)));
    }

    /// Adds a number or a list for programs.
    pub fn fact(&mut self, name: &str, value: impl Into<Value>) {
        self.facts.insert(name.to_owned(), value.into());
    }

    /// Adds an event that happened now, for programs: its name, and `details`, an object.
    pub fn event(&mut self, name: &str, details: Value) {
        let mut event = details;
        event["event"] = name.into();
        event["at"] = seconds(self.narrator.begin).into();
        self.events.push(event);
    }
}

fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}

/// Returns `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
