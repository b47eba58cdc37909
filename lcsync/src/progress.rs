//! Progress of a transfer: a bar on a terminal, JSON lines on request, else nothing.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use librecast_program::cli::{self, note};
use librecast_program::units::count;
use serde_json::json;

/// Interval of JSON lines.
const JSON_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of changes of the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// Time of waiting after which it is printed once, even without a terminal.
const WAIT_NOTICE: Duration = Duration::from_secs(2);
/// Template of the bar while the size is unknown.
const TEXT: &str = "{msg}";
/// Template of the bar.
const BAR: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";

/// State of a transfer.
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

/// Output of progress.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// Present template of the bar.
    template: &'static str,
    json: bool,
    quiet: bool,
    started: Instant,
    shown: Instant,
    shown_done: u64,
    waiting_said: bool,
    /// Nodes that receive, and nodes that have left, as shown last.
    receivers: (usize, usize),
}

impl Progress {
    /// Makes a bar if stderr is a terminal and neither `quiet` nor `json` is set.
    #[must_use]
    pub fn new(json: bool, quiet: bool, now: Instant) -> Self {
        let bar = !json && !quiet && std::io::stderr().is_terminal();
        Self {
            bar: bar.then(|| ProgressBar::new(0)),
            template: "",
            json,
            quiet,
            started: now,
            shown: now,
            shown_done: 0,
            waiting_said: false,
            receivers: (0, 0),
        }
    }

    /// Shows, at intervals, that no server was found yet.
    pub fn wait(&mut self, share: &str, interfaces: &str, left: Duration, now: Instant) {
        if !self.is_time(now) {
            return;
        }
        let seconds = left.as_secs_f64().ceil();
        let line = format!("waiting for {share} on {interfaces}; gives up in {seconds} s");
        let patient =
            now.saturating_duration_since(self.started) < WAIT_NOTICE && left > WAIT_NOTICE;
        if self.bar.is_some() {
            self.set_template(TEXT);
            self.set_message(line);
        } else if !self.json && !self.quiet && !patient && !self.waiting_said {
            self.waiting_said = true;
            note(line);
        }
        self.event(&json!({
            "event": "waiting", "share": share, "interfaces": interfaces, "gives_up_s": seconds,
        }));
        self.shown = now;
    }

    /// Shows a snapshot, at intervals.
    pub fn show(&mut self, snapshot: &Snapshot, now: Instant) {
        if !self.is_time(now) {
            return;
        }
        let elapsed = now.saturating_duration_since(self.shown);
        let loss = snapshot.loss * 100.0;
        let channels = snapshot.channels;
        // the template last: it is drawn with the present values
        let (message, template) = match snapshot.total {
            0 => ("reading what there is".to_owned(), TEXT),
            _ => (format!("loss {loss:.1} %, {channels} channels"), BAR),
        };
        self.set_message(message);
        if let Some(bar) = &self.bar {
            bar.set_length(snapshot.total);
        }
        self.set_template(template);
        if let Some(bar) = &self.bar {
            bar.set_position(snapshot.done);
        }
        let rate =
            snapshot.done.saturating_sub(self.shown_done) as f64 * 8.0 / elapsed.as_secs_f64();
        self.event(&json!({
            "event": "progress", "bytes": snapshot.done, "total_bytes": snapshot.total, "rate_bps": rate as u64,
            "loss": (snapshot.loss * 1e4).round() / 1e4, "channels": channels,
        }));
        (self.shown, self.shown_done) = (now, snapshot.done);
    }

    /// Shows the progress of a local copy, at intervals: bytes done and in all, files copied.
    pub fn show_copying(&mut self, (done, total): (u64, u64), files: usize, now: Instant) {
        if self.bar.is_none() || !self.is_time(now) {
            return;
        }
        self.set_message(format!("{files} files copied"));
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
        self.set_template(BAR);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
        self.shown = now;
    }

    /// Shows how many nodes receive and have left, and the sent bytes; without a terminal, only
    /// changes of these nodes.
    pub fn show_sending(&mut self, receivers: (usize, usize), sent: u64) {
        let (present, left) = receivers;
        let nodes = count(present, "node");
        let verb = if present == 1 { "receives" } else { "receive" };
        let have = if left == 1 { "has" } else { "have" };
        let sent = HumanBytes(sent);
        let line = format!("{nodes} {verb}, {left} {have} left; {sent} sent; Ctrl-C ends it");
        if self.bar.is_some() {
            self.set_template(TEXT);
            self.set_message(line);
        } else if !self.quiet && self.receivers != receivers {
            note(line);
        }
        self.receivers = receivers;
    }

    /// Prints a line on stdout, past the bar.
    pub fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print_line(line)),
            None => print_line(line),
        }
    }

    fn is_time(&self, now: Instant) -> bool {
        let interval = if self.json {
            JSON_INTERVAL
        } else {
            BAR_INTERVAL
        };
        now.saturating_duration_since(self.shown) >= interval
    }

    /// Sets the template, and restarts the measured speed.
    fn set_template(&mut self, template: &'static str) {
        let Some(bar) = self.bar.as_ref().filter(|_| self.template != template) else {
            return;
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.reset();
        self.template = template;
    }

    fn set_message(&self, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message);
        }
    }

    /// Prints one JSON line, if JSON is wanted.
    pub fn event(&self, event: &serde_json::Value) {
        if self.json {
            print_line(&event.to_string());
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Removes the bar before further output.
impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Prints a line on stdout. A closed pipe does not stop a transfer.
pub fn print_line(line: &str) {
    let _ = cli::print_line(line);
}

/// Formats bytes for users.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}
