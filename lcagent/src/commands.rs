//! The operator's verbs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::cli::{Exit, ExitError};
use librecast::id::PeerId;
use librecast::keyfile::public_key;
use serde_json::json;

use crate::agent::policy::Pattern;
use crate::agent::shell::default_state_dir;
use crate::agent::unix_now;
use crate::certificate::Certificate;
use crate::cli::print_line;
use crate::datagram::JobId;
use crate::envelope::MAX_PAYLOAD;
use crate::operator::core::{Event, Fate};
use crate::operator::known::{Book, Entry};
use crate::operator::print::{Printer, Style, clean};
use crate::operator::rolling::Rolling;
use crate::operator::shell::{self, Options, Outcome, Session};
use crate::record::{How, JobState, Record};
use crate::request::{Run, What};

/// `exec` and `script`.
pub(crate) fn run(
    options: &Options,
    run: Run,
    rolling: Rolling,
    style: Style,
) -> anyhow::Result<Exit> {
    let mut session = Session::open(options)?;
    let what = What::Run(run);
    let mut printer = Printer::new(style);
    if !rolling.picks() {
        return step(&mut session, options, &what, &[], &mut printer, true);
    }
    let steps = rolling.steps(session.known(options)?);
    for (n, nodes) in steps.iter().enumerate() {
        let last = n + 1 == steps.len();
        let exit = step(&mut session, options, &what, nodes, &mut printer, last)?;
        if exit != Exit::Ok && !last {
            printer.fold()?;
            let left: usize = steps[n + 1..].iter().map(Vec::len).sum();
            eprintln!(
                "lcagent: stopped after step {} of {}: {left} nodes were not asked",
                n + 1,
                steps.len()
            );
        }
        if exit != Exit::Ok || last {
            return Ok(exit);
        }
    }
    eprintln!(
        "lcagent: no known node is selected by {}: `lcagent nodes` meets them",
        options.selector
    );
    Ok(Exit::Unreachable)
}

/// `result`.
pub(crate) fn result(options: &Options, job: JobId, style: Style) -> anyhow::Result<Exit> {
    carry_out(options, &What::Result(job), style)
}

/// `cancel`.
pub(crate) fn cancel(options: &Options, job: JobId, style: Style) -> anyhow::Result<Exit> {
    carry_out(options, &What::Cancel(job), style)
}

/// `revoke`.
pub(crate) fn revoke(options: &Options, key: &str, style: Style) -> anyhow::Result<Exit> {
    carry_out(options, &What::Revoke(public_key(key)?), style)
}

/// `certify`.
pub(crate) fn certify(
    operator: &str,
    ttl: Duration,
    commands: &[String],
    key: Option<&Path>,
    json: bool,
) -> anyhow::Result<Exit> {
    let usage = |message: String| ExitError::new(Exit::Usage, message);
    let operator = public_key(operator)?;
    let patterns = commands
        .iter()
        .map(|c| Pattern::parse(c).ok_or_else(|| usage("an empty pattern allows nothing".into())))
        .collect::<Result<Vec<_>, _>>()?;
    let key = shell::load_key(&shell::key_file(key))?;
    let now = unix_now();
    let not_after = now.saturating_add(ttl.as_secs());
    let certificate = Certificate::sign(&key, &operator, now, not_after, &patterns)
        .map_err(|e| usage(e.to_string()))?;
    if json {
        print_line(json!({
            "certificate": certificate.to_string(),
            "operator": operator,
            "not_after": not_after,
        }))?;
    } else {
        print_line(certificate)?;
    }
    Ok(Exit::Ok)
}

fn carry_out(options: &Options, what: &What, style: Style) -> anyhow::Result<Exit> {
    let mut session = Session::open(options)?;
    let mut printer = Printer::new(style);
    step(&mut session, options, what, &[], &mut printer, true)
}

/// One command for the nodes in `only`, or for all that are selected. `last`: no other follows.
fn step(
    session: &mut Session,
    options: &Options,
    what: &What,
    only: &[Entry],
    printer: &mut Printer,
    last: bool,
) -> anyhow::Result<Exit> {
    let outcome = session.carry_out(options, what, only, |job, event| printer.event(job, event))?;
    let mut fates = outcome.fates.as_slice();
    if outcome.interrupted.is_some() {
        // who was cut short by us is no news
        fates = &[];
    }
    if last {
        printer.fold()?;
    }
    printer.end(fates)?;
    Ok(exit(options, &outcome))
}

/// `jobs`.
pub(crate) fn jobs(options: &Options, json: bool) -> anyhow::Result<Exit> {
    let mut session = Session::open(options)?;
    let mut jobs: BTreeMap<JobId, Vec<(PeerId, JobState)>> = BTreeMap::new();
    let outcome = session.carry_out(options, &What::Jobs, &[], |_, event| {
        match event {
            Event::Said {
                id,
                record: Record::Job(state),
            } => {
                let nodes = jobs.entry(state.job).or_default();
                nodes.push((*id, state.clone()));
            }
            Event::Rejected { id, why } => eprintln!("lcagent: {id} is not believed: {why}"),
            _ => {}
        }
        Ok(())
    })?;
    for (_, name, fate) in &outcome.fates {
        if matches!(fate, Fate::Silent | Fate::Unfinished) {
            eprintln!("lcagent: {name}: no answer");
        }
    }
    let mut rows: Vec<serde_json::Value> = jobs
        .values()
        .filter_map(|nodes| job_row(nodes, &outcome))
        .collect();
    rows.sort_by_key(|row| row["started"].as_u64());
    if json {
        print_line(serde_json::Value::from(rows))?;
    } else {
        let mut table = vec![
            ["JOB", "AGE", "RUNNING", "OK", "FAILED", "COMMAND"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for row in &rows {
            let age = unix_now().saturating_sub(row["started"].as_u64().unwrap_or_default());
            let mut cells = vec![cell(row, "job"), span(age)];
            cells.extend(["running", "ok", "failed", "command"].map(|key| cell(row, key)));
            table.push(cells);
        }
        print_table(&table)?;
    }
    Ok(exit(options, &outcome))
}

fn job_row(nodes: &[(PeerId, JobState)], outcome: &Outcome) -> Option<serde_json::Value> {
    let (_, first) = nodes.first()?;
    let count = |wanted: fn(Option<How>) -> bool| nodes.iter().filter(|n| wanted(n.1.how)).count();
    let running = count(|how| how.is_none());
    let ok = count(|how| how == Some(How::Exited(0)));
    let node = |(id, state): &(PeerId, JobState)| {
        let heard = outcome.heard.iter().find(|(key, _)| key == id);
        json!({
            "node": heard.map(|(_, node)| node.name.clone()),
            "id": id,
            "state": state.how.map_or("running", How::name),
            "code": state.how.map(How::code),
        })
    };
    Some(json!({
        "job": first.job.to_string(),
        "started": first.at,
        "command": first.line,
        "running": running,
        "ok": ok,
        "failed": nodes.len() - running - ok,
        "nodes": nodes.iter().map(node).collect::<Vec<_>>(),
    }))
}

/// `nodes`.
pub(crate) fn nodes(options: &Options, json: bool) -> anyhow::Result<Exit> {
    let mut session = Session::open(options)?;
    let (rows, outcome) = ask_nodes(&mut session, options)?;
    if json {
        print_line(serde_json::Value::from(rows))?;
    } else {
        print_nodes(&rows)?;
    }
    Ok(exit(options, &outcome))
}

/// `nodes --watch`: a round each `every`, until a signal comes.
pub(crate) fn watch(mut options: Options, every: Duration, json: bool) -> anyhow::Result<Exit> {
    // the answers of a round are there before the next one begins
    options.timeout = options.timeout.min(every);
    let mut session = Session::open(&options)?;
    let mut next = Instant::now();
    loop {
        next = (next + every).max(Instant::now());
        let at = unix_now();
        let (rows, outcome) = ask_nodes(&mut session, &options)?;
        if let Some(exit) = outcome.interrupted {
            return Ok(exit);
        }
        if json {
            for mut row in rows {
                row["at"] = at.into();
                print_line(row)?;
            }
        } else {
            if std::io::stdout().is_terminal() {
                // home, and clear to the end of the screen
                write!(std::io::stdout(), "\x1b[H\x1b[J")?;
            }
            print_nodes(&rows)?;
        }
        if let Some(exit) = session.pause(next)? {
            return Ok(exit);
        }
    }
}

/// The facts of all selected nodes, a row each; also of known ones that are silent.
fn ask_nodes(
    session: &mut Session,
    options: &Options,
) -> anyhow::Result<(Vec<serde_json::Value>, Outcome)> {
    let outcome = session.carry_out(options, &What::Facts, &[], |_, event| {
        if let Event::Rejected { id, why } = event {
            eprintln!("lcagent: {id} is not believed: {why}");
        }
        Ok(())
    })?;
    let known = session.known(options)?;
    let none = BTreeMap::new();
    let row = |(id, name, fate): &(PeerId, String, Fate)| {
        let said = outcome.heard.iter().find(|(key, _)| key == id);
        // of silent ones, what they said last
        let noted = known.iter().find(|e| e.key == *id).map(|e| &e.labels);
        let labels = said.map(|(_, node)| &node.labels).or(noted);
        row(id, name, fate, labels.unwrap_or(&none))
    };
    Ok((outcome.fates.iter().map(row).collect(), outcome))
}

fn row(
    id: &PeerId,
    name: &str,
    fate: &Fate,
    labels: &BTreeMap<String, String>,
) -> serde_json::Value {
    let state = match fate {
        Fate::Answered(Record::Facts(_)) => "up",
        Fate::Answered(_) => "refused",
        Fate::Unfinished => "unfinished",
        Fate::Silent => "silent",
    };
    let mut row = json!({ "name": name, "id": id, "state": state, "labels": labels });
    if let Fate::Answered(Record::Facts(facts)) = fate {
        for (name, value) in facts {
            // no fact passes for what is known without the node's word
            if ["name", "id", "state", "labels", "at"].contains(&name.as_str()) {
                continue;
            }
            // numbers where they are numbers
            let number = value.parse::<u64>().map(serde_json::Value::from);
            row[name] = number.unwrap_or_else(|_| value.clone().into());
        }
    }
    row
}

fn print_nodes(rows: &[serde_json::Value]) -> std::io::Result<()> {
    let labels = |row: &serde_json::Value| -> String {
        let labels = row["labels"].as_object();
        let pairs = labels
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
        clean(&pairs.collect::<Vec<_>>().join(","))
    };
    let mut table = vec![
        ["NAME", "STATE", "LABELS", "OS", "UPTIME", "ADDRESSES"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for row in rows {
        table.push(vec![
            cell(row, "name"),
            cell(row, "state"),
            labels(row),
            cell(row, "os"),
            row["uptime_s"].as_u64().map(span).unwrap_or_default(),
            cell(row, "addresses"),
        ]);
    }
    print_table(&table)
}

fn cell(row: &serde_json::Value, key: &str) -> String {
    match &row[key] {
        serde_json::Value::String(s) => clean(s),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Seconds, for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Lines of equally many cells, the columns below each other.
fn print_table(table: &[Vec<String>]) -> std::io::Result<()> {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = table.iter().map(|r| r[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in table {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        print_line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// `nodes --forget`.
pub(crate) fn forget(options: &Options, name: &str) -> anyhow::Result<Exit> {
    let dir = options
        .state_dir
        .clone()
        .unwrap_or_else(shell::default_state_dir);
    if Book::open(dir)?.forget(&options.channel, name)? {
        return Ok(Exit::Ok);
    }
    let message = format!("no node {name:?} is known on channel {:?}", options.channel);
    Err(ExitError::new(Exit::Failed, message).into())
}

/// 1 if a node failed wins over 3 if one is missing.
fn exit(options: &Options, outcome: &Outcome) -> Exit {
    if let Some(exit) = outcome.interrupted {
        return exit;
    }
    if outcome.fates.is_empty() {
        eprintln!("lcagent: no node answers to {}", options.selector);
        return Exit::Unreachable;
    }
    let failed = |fate: &Fate| match fate {
        Fate::Answered(Record::Ended(ended)) => ended.how != How::Exited(0),
        Fate::Answered(last) => matches!(last, Record::Refused(_)),
        Fate::Silent | Fate::Unfinished => false,
    };
    if outcome.fates.iter().any(|(_, _, fate)| failed(fate)) {
        return Exit::Failed;
    }
    let missing = |fate: &Fate| matches!(fate, Fate::Silent | Fate::Unfinished);
    if outcome.fates.iter().any(|(_, _, fate)| missing(fate)) {
        return Exit::Unreachable;
    }
    Exit::Ok
}

/// A script, which says what is to read it.
pub(crate) fn read_script(file: &Path) -> anyhow::Result<Vec<u8>> {
    let script = fs::read(file).with_context(|| file.display().to_string())?;
    let wrong = if !script.starts_with(b"#!") {
        Some("a script begins with #! and its interpreter")
    } else if script.len() > MAX_PAYLOAD {
        Some("too long for a script")
    } else {
        None
    };
    match wrong {
        Some(why) => Err(ExitError::new(Exit::Usage, format!("{}: {why}", file.display())).into()),
        None => Ok(script),
    }
}

/// `log`.
pub(crate) fn log(state_dir: Option<PathBuf>, json: bool) -> anyhow::Result<Exit> {
    let path = state_dir
        .unwrap_or_else(default_state_dir)
        .join("audit.log");
    let file = fs::File::open(&path).map_err(|e| {
        let exit = match e.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::NotPermitted,
            _ => Exit::Failed,
        };
        ExitError::new(exit, format!("{}: {e}", path.display()))
    })?;
    for line in BufReader::new(file).lines() {
        let line = line?;
        if json {
            print_line(line)?;
            continue;
        }
        // a line that a crash cut short is shown as it is
        let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line) else {
            print_line(clean(&line))?;
            continue;
        };
        let text = |key: &str| clean(entry[key].as_str().unwrap_or_default());
        let (time, job, operator) = (&entry["time"], text("job"), text("operator"));
        print_line(format_args!(
            "{time} {job} {operator} {}: {}",
            text("event"),
            text("what")
        ))?;
    }
    Ok(Exit::Ok)
}
