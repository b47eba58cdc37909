//! The operator's subcommands.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::id::PeerId;
use librecast::plain::clean;
use librecast::time::UnixTime;
use librecast_program::book;
use librecast_program::cli::{Exit, ExitError};
use librecast_program::keyfile::public_key;
use librecast_program::units::{count, utc};
use serde_json::json;

use crate::agent::shell::default_state_dir;
use crate::certificate::{Certificate, MAX_CERTIFICATE};
use crate::datagram::{JobId, JobName};
use crate::envelope::MAX_PAYLOAD;
use crate::operator::core::{Event, Fate, NodeFate, Sender};
use crate::operator::known::{Book, Entry};
use crate::operator::print::{
    Printer, Style, complain, complaint, print_line, shared_label, tell_of_stranger,
};
use crate::operator::rolling::Rolling;
use crate::operator::shell::{self, Options, Outcome, Session};
use crate::pattern::Pattern;
use crate::record::{Ending, JobState, NodeInfo, Record};
use crate::request::{Run, What};

/// `exec` and `script`.
pub(crate) fn run(
    options: &Options,
    run: Run,
    rolling: Rolling,
    style: Style,
) -> anyhow::Result<Exit> {
    run.check_bounds()
        .map_err(|e| ExitError::new(Exit::Usage, format!("{e}; a file or --stdin takes more")))?;
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
            let were = if left == 1 { "was" } else { "were" };
            complain(format_args!(
                "stopped after step {} of {}: {} {were} not asked",
                n + 1,
                steps.len(),
                count(left, "node")
            ));
        }
        if exit != Exit::Ok || last {
            return Ok(exit);
        }
    }
    complain(format_args!(
        "no known node is selected by {}: `lcagent nodes` meets them",
        options.selector
    ));
    Ok(Exit::Unreachable)
}

/// `result`.
pub(crate) fn result(options: &Options, job: &JobName, style: Style) -> anyhow::Result<Exit> {
    let mut session = Session::open(options)?;
    let what = What::Result(find(&mut session, options, job)?);
    let mut printer = Printer::new(style);
    step(&mut session, options, &what, &[], &mut printer, true)
}

/// `cancel`.
pub(crate) fn cancel(options: &Options, job: &JobName, style: Style) -> anyhow::Result<Exit> {
    let mut session = Session::open(options)?;
    let job = find(&mut session, options, job)?;
    order(
        &mut session,
        options,
        &What::Cancel(job),
        "cancelled",
        style,
    )
}

/// `revoke`.
pub(crate) fn revoke(options: &Options, key: &str, style: Style) -> anyhow::Result<Exit> {
    let what = What::Revoke(public_key(key)?);
    let mut session = Session::open(options)?;
    order(&mut session, options, &what, "revoked", style)
}

/// Runs a command without output; prints the nodes that succeeded.
fn order(
    session: &mut Session,
    options: &Options,
    what: &What,
    done: &str,
    style: Style,
) -> anyhow::Result<Exit> {
    let mut printer = Printer::new(style);
    let outcome = session.carry_out(options, what, &[], |job, event| printer.event(job, event))?;
    let fates = match outcome.interrupted {
        None => outcome.fates.as_slice(),
        Some(_) => &[],
    };
    printer.end(fates)?;
    let names: Vec<&str> = fates
        .iter()
        .filter(|node| node.fate == Fate::Answered(Record::Done))
        .map(|node| node.name.as_str())
        .collect();
    if style != Style::Json && !names.is_empty() {
        let on = count(names.len(), "node");
        print_line(format_args!("{done} on {on}: {}", names.join(", ")))?;
    }
    Ok(exit(options, &outcome))
}

/// Returns the operator's job of this name; asks nodes if the name is not whole.
fn find(session: &mut Session, options: &Options, name: &JobName) -> anyhow::Result<JobId> {
    if let JobName::Whole(job) = name {
        return Ok(*job);
    }
    let mut found = BTreeSet::new();
    session.carry_out(options, &What::Jobs, &[], |_, event| {
        if let Event::Said {
            record: Record::Job(state),
            ..
        } = event
        {
            found.extend(name.matches(state.job).then_some(state.job));
        }
        Ok(())
    })?;
    let all: Vec<String> = found.iter().map(ToString::to_string).collect();
    match (found.first(), all.len()) {
        (Some(job), 1) => Ok(*job),
        (None, _) => {
            let message = format!("no job of ours begins with {name}: `lcagent jobs` shows them");
            Err(ExitError::new(Exit::Failed, message).into())
        }
        _ => {
            let message = format!("{name} is the beginning of {}", all.join(", "));
            Err(ExitError::new(Exit::Usage, message).into())
        }
    }
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
    if let Some(long) = commands.iter().find(|c| c.len() > usize::from(u8::MAX)) {
        let start: String = long.chars().take(24).collect();
        let message = format!("--command {start:?}...: {} bytes; at most 255", long.len());
        return Err(usage(message).into());
    }
    let patterns = commands
        .iter()
        .map(|c| Pattern::parse(c).ok_or_else(|| usage("an empty pattern allows nothing".into())))
        .collect::<Result<Vec<_>, _>>()?;
    let key = shell::load_key(&shell::key_file(key))?;
    let now = UnixTime::now().as_secs();
    let not_after = now.saturating_add(ttl.as_secs());
    let certificate =
        Certificate::sign(&key, &operator, now, not_after, &patterns).map_err(|e| {
            usage(format!(
                "{e}: a certificate with all patterns has at most {MAX_CERTIFICATE} bytes"
            ))
        })?;
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

/// Runs one command for the nodes in `only`, or for all selected ones. `last`: no other follows.
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
        // nodes that our own signal cut short are no news
        fates = &[];
    }
    if last {
        printer.fold()?;
    }
    printer.end(fates)?;
    match exit(options, &outcome) {
        Exit::Ok if printer.has_cut() => Ok(Exit::Failed),
        exit => Ok(exit),
    }
}

/// `jobs`.
pub(crate) fn jobs(options: &Options, json: bool) -> anyhow::Result<Exit> {
    let mut session = Session::open(options)?;
    let mut jobs: BTreeMap<JobId, Vec<(Sender, JobState)>> = BTreeMap::new();
    // nodes list the latest job first: this orders jobs of one second
    let (mut told, mut places) = (BTreeMap::new(), BTreeMap::new());
    let outcome = session.carry_out(options, &What::Jobs, &[], |_, event| {
        match event {
            Event::Said {
                id,
                record: Record::Job(state),
            } => {
                let nodes = jobs.entry(state.job).or_default();
                nodes.push((*id, state.clone()));
                let place: &mut usize = told.entry(*id).or_default();
                *place += 1;
                // the highest place counts: a node may know fewer jobs
                let last = places.entry(state.job.to_string()).or_insert(*place);
                *last = (*last).max(*place);
            }
            other => tell_of_stranger(other),
        }
        Ok(())
    })?;
    for NodeFate { id, name, fate } in &outcome.fates {
        let name = label(id, name, &outcome);
        if let Some(complaint) = complaint(fate) {
            complain(format_args!("{name}: {complaint}"));
        }
    }
    let mut rows: Vec<serde_json::Value> = jobs
        .values_mut()
        .filter_map(|nodes| job_row(nodes, &outcome))
        .collect();
    // the latest first
    let place = |row: &serde_json::Value| places.get(&cell(row, "job"));
    rows.sort_by_key(|row| (Reverse(row["started"].as_u64()), place(row)));
    if json {
        print_line(serde_json::Value::from(rows))?;
    } else {
        let length = telling(&rows);
        let mut table = vec![
            ["JOB", "AGE", "RUNNING", "OK", "FAILED", "NODES", "COMMAND"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for row in &rows {
            let age = UnixTime::now()
                .as_secs()
                .saturating_sub(row["started"].as_u64().unwrap_or_default());
            let job: String = cell(row, "job").chars().take(length).collect();
            let mut cells = vec![job, span(age)];
            cells.extend(["running", "ok", "failed"].map(|key| cell(row, key)));
            cells.extend([names_of(row), cell(row, "command")]);
            table.push(cells);
        }
        print_table(&table)?;
    }
    Ok(exit(options, &outcome))
}

/// Returns the node's name, with its address if another host has the same key.
fn label(id: &Sender, name: &str, outcome: &Outcome) -> String {
    match (outcome.sharing.get(id), id.stream) {
        (Some(address), Some(stream)) => shared_label(name, address, stream),
        _ => name.to_owned(),
    }
}

/// Returns the number of digits that distinguish the names of all jobs.
fn telling(rows: &[serde_json::Value]) -> usize {
    let names: Vec<String> = rows.iter().map(|row| cell(row, "job")).collect();
    let distinct = |length: &usize| {
        let cut: BTreeSet<&str> = names
            .iter()
            .filter_map(|name| name.get(..*length))
            .collect();
        cut.len() == names.len()
    };
    (JobName::SHORT..16).find(distinct).unwrap_or(16)
}

/// Returns names of a job's nodes, as many as a table shows.
fn names_of(row: &serde_json::Value) -> String {
    /// Names shown in one row. Chosen: they fit a terminal of 80 columns.
    const MOST: usize = 4;
    let nodes = row["nodes"].as_array().into_iter().flatten();
    let names: Vec<String> = nodes.map(|node| cell(node, "node")).collect();
    match names.len() {
        0..=MOST => names.join(","),
        all => format!("{},+{}", names[..MOST - 1].join(","), all + 1 - MOST),
    }
}

fn job_row(nodes: &mut [(Sender, JobState)], outcome: &Outcome) -> Option<serde_json::Value> {
    let name = |id: &Sender| {
        let answered = outcome.answered.iter().find(|(key, _)| *key == id.key);
        answered.map(|(_, node)| label(id, &node.name, outcome))
    };
    nodes.sort_by_key(|(id, _)| name(id));
    let (_, first) = nodes.first()?;
    let count =
        |wanted: fn(Option<Ending>) -> bool| nodes.iter().filter(|n| wanted(n.1.how)).count();
    let running = count(|how| how.is_none());
    let ok = count(|how| how == Some(Ending::Exited(0)));
    let node = |(id, state): &(Sender, JobState)| {
        json!({
            "node": name(id),
            "id": id.key,
            "state": state.how.map_or("running", Ending::name),
            "code": state.how.map(Ending::code),
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

/// `nodes`: each row at once, or one document at the end.
pub(crate) fn nodes(options: &Options, json: bool) -> anyhow::Result<Exit> {
    let mut session = Session::open(options)?;
    if json {
        let (rows, outcome) = ask_nodes(&mut session, options, |_, _| Ok(()))?;
        print_line(serde_json::Value::from(rows))?;
        return Ok(exit(options, &outcome));
    }
    let mut table = Table::default();
    table.widen(&NODE_COLUMNS.map(str::to_owned));
    for entry in session.known(options)? {
        table.widen(&node_cells(&known_row(&entry)));
    }
    let mut shown = BTreeSet::new();
    let mut show = |id: Sender, row: &serde_json::Value| {
        if shown.is_empty() {
            table.widen(&node_cells(row));
            table.row(&NODE_COLUMNS.map(str::to_owned))?;
        }
        match shown.insert(id) {
            true => table.row(&node_cells(row)),
            false => Ok(()),
        }
    };
    let (rows, outcome) = ask_nodes(&mut session, options, &mut show)?;
    // rows of silent nodes
    let ids = outcome.fates.iter().map(|node| node.id);
    ids.zip(&rows).try_for_each(|(id, row)| show(id, row))?;
    Ok(exit(options, &outcome))
}

/// `nodes --watch`: one round each `every`, until a signal.
pub(crate) fn watch(mut options: Options, every: Duration, json: bool) -> anyhow::Result<Exit> {
    // a round ends before the next one begins
    options.timeout = options.timeout.min(every);
    let mut session = Session::open(&options)?;
    let mut next = Instant::now();
    loop {
        next = (next + every).max(Instant::now());
        let at = UnixTime::now();
        let (rows, outcome) = ask_nodes(&mut session, &options, |_, _| Ok(()))?;
        if let Some(exit) = outcome.interrupted {
            return Ok(exit);
        }
        if json {
            for mut row in rows {
                row["at"] = at.as_secs().into();
                print_line(&row)?;
            }
        } else {
            if std::io::stdout().is_terminal() {
                // home, and clear to the end of the screen
                write!(librecast_program::standard::output(), "\x1b[H\x1b[J")?;
            }
            print_nodes(&rows)?;
        }
        if let Some(exit) = session.pause(next)? {
            return Ok(exit);
        }
    }
}

/// Returns the facts of all selected nodes, ordered by name, with rows for silent known ones.
/// `came` gets each answer at once.
fn ask_nodes(
    session: &mut Session,
    options: &Options,
    mut came: impl FnMut(Sender, &serde_json::Value) -> io::Result<()>,
) -> anyhow::Result<(Vec<serde_json::Value>, Outcome)> {
    let known = session.known(options)?;
    let known: BTreeMap<PeerId, Entry> = known.into_iter().map(|e| (e.key, e)).collect();
    let is_accepted = |id: &PeerId| known.get(id).is_some_and(|e| e.accepted);
    let mut answered: BTreeMap<Sender, NodeInfo> = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    let outcome = session.carry_out(options, &What::Facts, &[], |_, event| {
        tell_of_stranger(event);
        match event {
            Event::Appeared {
                id, node, address, ..
            } => {
                answered.insert(*id, node.clone());
                addresses.insert(*id, *address);
            }
            Event::Said { id, record } if record.is_last() && *record != Record::NotSelected => {
                if let Some(node) = answered.get(id) {
                    let fate = Fate::Answered(record.clone());
                    let accepted = is_accepted(&id.key);
                    let mut row = row(&id.key, &node.name, &fate, &node.labels, accepted);
                    let mut others = addresses.keys().filter(|other| *other != id);
                    if others.any(|other| other.key == id.key) {
                        note_shared(&mut row, addresses.get(id));
                    }
                    came(*id, &row)?;
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    for NodeFate { name, fate, .. } in &outcome.fates {
        // a row does not contain the reason
        let refused = matches!(fate, Fate::Answered(Record::Refused(_)));
        if let Some(complaint) = complaint(fate).filter(|_| refused) {
            complain(format_args!("{name}: {complaint}"));
        }
    }
    let none = BTreeMap::new();
    let row = |NodeFate { id, name, fate }: &NodeFate| {
        // silent nodes: the labels of their last answer
        let noted = known.get(&id.key).map(|e| &e.labels);
        let labels = answered.get(id).map(|node| &node.labels).or(noted);
        let accepted = is_accepted(&id.key);
        let mut row = row(&id.key, name, fate, labels.unwrap_or(&none), accepted);
        note_shared(&mut row, outcome.sharing.get(id));
        row
    };
    Ok((outcome.fates.iter().map(row).collect(), outcome))
}

/// Notes the address of a node that shares its key.
fn note_shared(row: &mut serde_json::Value, address: Option<&Ipv6Addr>) {
    if let Some(address) = address {
        row["shares_key_at"] = address.to_string().into();
    }
}

/// Returns the row of a node that has not answered yet.
fn known_row(entry: &Entry) -> serde_json::Value {
    let Entry {
        key, name, labels, ..
    } = entry;
    row(key, name, &Fate::Silent, labels, entry.accepted)
}

fn row(
    id: &PeerId,
    name: &str,
    fate: &Fate,
    labels: &BTreeMap<String, String>,
    accepted: bool,
) -> serde_json::Value {
    let state = match fate {
        Fate::Answered(Record::Facts(_)) => "up",
        Fate::Answered(_) => "refused",
        Fate::Unfinished => "unfinished",
        Fate::Silent => "silent",
    };
    let mut row = json!({ "name": name, "id": id, "state": state, "labels": labels });
    if accepted {
        row["accepted"] = true.into();
    }
    if let Fate::Answered(Record::Facts(facts)) = fate {
        for (name, value) in facts {
            // facts must not override fields that this program fills
            if [
                "name",
                "id",
                "state",
                "labels",
                "at",
                "accepted",
                "shares_key_at",
            ]
            .contains(&name.as_str())
            {
                continue;
            }
            // numbers where they are numbers
            let number = value.parse::<u64>().map(serde_json::Value::from);
            row[name] = number.unwrap_or_else(|_| value.clone().into());
        }
    }
    row
}

const NODE_COLUMNS: [&str; 7] = [
    "NAME",
    "STATE",
    "LABELS",
    "OS",
    "UPTIME",
    "ACCEPTED",
    "ADDRESSES",
];

fn print_nodes(rows: &[serde_json::Value]) -> io::Result<()> {
    let mut table = vec![NODE_COLUMNS.map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|row| node_cells(row).to_vec()));
    print_table(&table)
}

fn node_cells(row: &serde_json::Value) -> [String; 7] {
    let labels = row["labels"].as_object();
    let pairs = labels
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
    let accepted = row["accepted"] == true;
    [
        cell(row, "name"),
        cell(row, "state"),
        clean(&pairs.collect::<Vec<_>>().join(",")),
        cell(row, "os"),
        row["uptime_s"].as_u64().map(span).unwrap_or_default(),
        if accepted { "yes" } else { "no" }.to_owned(),
        match row["shares_key_at"].as_str() {
            Some(address) => format!("{} (shares its key: {address})", cell(row, "addresses")),
            None => cell(row, "addresses"),
        },
    ]
}

fn cell(row: &serde_json::Value, key: &str) -> String {
    match &row[key] {
        serde_json::Value::String(s) => clean(s),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Formats seconds for people.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Prints lines of equally many cells in aligned columns.
fn print_table(table: &[Vec<String>]) -> io::Result<()> {
    let mut columns = Table::default();
    table.iter().for_each(|cells| columns.widen(cells));
    table.iter().try_for_each(|cells| columns.row(cells))
}

/// A table with rows that are shown one by one.
#[derive(Default)]
struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Makes the columns as wide as these cells.
    fn widen(&mut self, cells: &[String]) {
        self.widths.resize(cells.len().max(self.widths.len()), 0);
        for (width, cell) in self.widths.iter_mut().zip(cells) {
            *width = cell.chars().count().max(*width);
        }
    }

    fn row(&mut self, cells: &[String]) -> io::Result<()> {
        self.widen(cells);
        let cells = cells
            .iter()
            .zip(&self.widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        print_line(cells.collect::<Vec<_>>().join("  ").trim_end())
    }
}

/// `nodes --accept`.
pub(crate) fn accept(options: &Options, names: &[String], json: bool) -> anyhow::Result<Exit> {
    let dir = options
        .state_dir
        .clone()
        .unwrap_or_else(shell::default_state_dir);
    let names: Result<Vec<String>, ExitError> = names.iter().map(|name| book::node(name)).collect();
    let accepted = Book::open(dir)?.accept(&options.channel, &names?)?;
    if json {
        let row = |e: &Entry| json!({ "name": e.name, "id": e.key, "accepted": true });
        let rows: Vec<_> = accepted.iter().map(row).collect();
        print_line(serde_json::Value::from(rows))?;
    } else {
        for entry in &accepted {
            print_line(format_args!("accepted {} {}", entry.name, entry.key))?;
        }
    }
    Ok(Exit::Ok)
}

/// `nodes --forget`.
pub(crate) fn forget(options: &Options, name: &str) -> anyhow::Result<Exit> {
    let dir = options
        .state_dir
        .clone()
        .unwrap_or_else(shell::default_state_dir);
    if Book::open(dir)?.forget(&options.channel, &book::node(name)?)? {
        return Ok(Exit::Ok);
    }
    let message = format!("no node {name:?} is known on channel {:?}", options.channel);
    Err(ExitError::new(Exit::Failed, message).into())
}

/// 1 (a node failed) takes precedence over 3 (a node is missing).
fn exit(options: &Options, outcome: &Outcome) -> Exit {
    if let Some(exit) = outcome.interrupted {
        return exit;
    }
    if outcome.fates.is_empty() {
        complain(format_args!(
            "no node answers (asked: {})",
            options.selector
        ));
        return Exit::Unreachable;
    }
    let failed = |fate: &Fate| match fate {
        Fate::Answered(Record::Ended(ended)) => ended.how != Ending::Exited(0),
        Fate::Answered(last) => matches!(last, Record::Refused(_)),
        Fate::Silent | Fate::Unfinished => false,
    };
    // of hosts with one key, the intended node is unknown
    if !outcome.sharing.is_empty() || outcome.fates.iter().any(|node| failed(&node.fate)) {
        return Exit::Failed;
    }
    let missing = |fate: &Fate| matches!(fate, Fate::Silent | Fate::Unfinished);
    if outcome.fates.iter().any(|node| missing(&node.fate)) {
        return Exit::Unreachable;
    }
    Exit::Ok
}

/// Reads a script, which must name its interpreter.
pub(crate) fn read_script(file: &Path) -> anyhow::Result<Vec<u8>> {
    let script = fs::read(file).with_context(|| file.display().to_string())?;
    let wrong = if !script.starts_with(b"#!") {
        Some("a script begins with #! and its interpreter".to_owned())
    } else if script.len() > MAX_PAYLOAD {
        let length = script.len();
        Some(format!(
            "{length} bytes; a script has at most {MAX_PAYLOAD}"
        ))
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
            print_line(&line)?;
            continue;
        }
        // a line that a crash cut short is shown as it is
        let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line) else {
            print_line(clean(&line))?;
            continue;
        };
        let text = |key: &str| clean(entry[key].as_str().unwrap_or_default());
        let time = utc(entry["time"].as_u64().unwrap_or_default());
        let who = match text("name") {
            name if name.is_empty() => text("operator"),
            name => name,
        };
        let job = text("job");
        print_line(format_args!(
            "{time} {job} {who} {}: {}",
            text("event"),
            text("what")
        ))?;
    }
    Ok(Exit::Ok)
}
