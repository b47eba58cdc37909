//! Lines about the file and about this host's changes: one for each change of state.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::said::print;

/// Wait for a grant after which it is reported. Chosen: most grants come at once.
const GRANT_WAIT: Duration = Duration::from_secs(3);

/// State of this host's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// They are on their way.
    Sent,
    /// They wait for a grant.
    Waits,
    /// Nothing more can be appended.
    Failed(String),
}

/// The last reported states.
#[derive(Debug)]
pub struct Reports {
    is_json: bool,
    state: State,
    /// Time from which drafts wait for a grant.
    waits_since: Option<Instant>,
    /// Problem of the file.
    problem: Option<String>,
}

impl Reports {
    pub fn new(is_json: bool) -> Self {
        Self {
            is_json,
            state: State::Sent,
            waits_since: None,
            // success is reported once
            problem: Some(String::new()),
        }
    }

    /// Prints a line: this text, or this value as JSON.
    pub fn print(&self, text: &str, value: impl FnOnce() -> Value) -> anyhow::Result<()> {
        print(self.is_json, text, value)
    }

    /// Reports whether the file is equal to the notes, or why not.
    pub fn file(&mut self, path: &Path, problem: Option<String>) -> anyhow::Result<()> {
        if self.problem == problem {
            return Ok(());
        }
        let path = path.display().to_string();
        let words = problem.as_deref().unwrap_or("equal to the notes");
        self.print(
            &format!("{path}: {words}"),
            || json!({"event": "file", "file": path, "problem": problem}),
        )?;
        self.problem = problem;
        Ok(())
    }

    /// Reports the state of `waiting` changes. `failed`: why none can be sent any more. `folder`:
    /// that of the changes.
    pub fn changes(
        &mut self,
        waiting: usize,
        is_granted: bool,
        failed: Option<String>,
        folder: &Path,
        now: Instant,
    ) -> anyhow::Result<()> {
        let state = match (failed, waiting) {
            (Some(failed), _) => State::Failed(failed),
            (None, 1..) if !is_granted => {
                let since = *self.waits_since.get_or_insert(now);
                match now.saturating_duration_since(since) >= GRANT_WAIT {
                    true => State::Waits,
                    false => return Ok(()),
                }
            }
            _ => State::Sent,
        };
        self.waits_since.take_if(|_| state == State::Sent);
        if state == self.state {
            return Ok(());
        }
        let (name, words) = match &state {
            State::Sent => ("sent", "who presents lets you write: all is sent".to_owned()),
            State::Waits => ("waits", "what you save is kept here until who presents lets you write; what others write still comes".to_owned()),
            State::Failed(why) => ("failed", format!("nothing more can be written: {why}. What you save is kept in {}, and sent to nobody", folder.display())),
        };
        self.print(
            &words,
            || json!({"event": name, "changes": waiting, "says": words}),
        )?;
        self.state = state;
        Ok(())
    }
}
