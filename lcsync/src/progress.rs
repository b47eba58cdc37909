//! How far a transfer is: a bar on a terminal, JSON lines on request, else silence.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;

/// Between two JSON lines.
const JSON_INTERVAL: Duration = Duration::from_secs(1);
/// Between two changes of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// A transfer at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Snapshot {
    /// Bytes of verified blocks.
    pub done: u64,
    /// Bytes to be fetched in all.
    pub total: u64,
    /// Loss, 0 to 1.
    pub loss: f64,
    /// Channels held.
    pub channels: usize,
}

/// Where progress is shown.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    json: bool,
    shown: Instant,
    shown_done: u64,
}

impl Progress {
    /// A bar if stderr is a terminal and neither `quiet` nor `json` is set.
    #[must_use]
    pub fn new(json: bool, quiet: bool, now: Instant) -> Self {
        let bar = (!json && !quiet && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template(
                "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
            );
            let bar = ProgressBar::new(0);
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            json,
            shown: now,
            shown_done: 0,
        }
    }

    /// Shows a snapshot, if it is time to.
    pub fn show(&mut self, snapshot: &Snapshot, now: Instant) {
        let interval = if self.json {
            JSON_INTERVAL
        } else {
            BAR_INTERVAL
        };
        let elapsed = now.saturating_duration_since(self.shown);
        if elapsed < interval {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_length(snapshot.total);
            bar.set_position(snapshot.done);
            bar.set_message(format!(
                "loss {:.1} %, {} channels",
                snapshot.loss * 100.0,
                snapshot.channels
            ));
        }
        let rate =
            snapshot.done.saturating_sub(self.shown_done) as f64 * 8.0 / elapsed.as_secs_f64();
        self.event(&json!({
            "event": "progress", "bytes": snapshot.done, "total_bytes": snapshot.total, "rate_bps": rate as u64,
            "loss": (snapshot.loss * 1e4).round() / 1e4, "channels": snapshot.channels,
        }));
        (self.shown, self.shown_done) = (now, snapshot.done);
    }

    /// Prints one JSON line, if JSON is wanted.
    pub fn event(&self, event: &serde_json::Value) {
        if self.json {
            let mut out = std::io::stdout().lock();
            // a reader that went away is no reason to stop a transfer
            let _ = writeln!(out, "{event}").and_then(|()| out.flush());
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Prints a line on stdout. A reader that went away is no reason to stop half-way.
pub fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Bytes for people.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}
