//! docs/reference.md equals the programs' output; `make reference` writes it. The dashboard and the
//! alert rules in packaging/ name existing metrics. The first steps of a user need no
//! world either.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod first_steps;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use librecast::events::EVENTS;
use librecast_program::metrics::{Description, PROCESS};

const FILE: &str = "docs/reference.md";
const CATALOG: &str = "systemd/lcroute.catalog";

fn at(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

#[test]
fn the_reference_and_the_journals_catalog_are_what_the_programs_say() {
    for (file, made) in [(FILE, reference()), (CATALOG, catalog())] {
        if std::env::var_os("REFERENCE").is_some_and(|v| v == "write") {
            std::fs::write(at(file), &made).unwrap();
            continue;
        }
        let there = std::fs::read_to_string(at(file)).unwrap_or_default();
        for (n, (made, there)) in made.lines().zip(there.lines()).enumerate() {
            assert_eq!(made, there, "{file}:{}: stale; run `make reference`", n + 1);
        }
        assert!(made == there, "{file} is stale; run `make reference`");
    }
}

#[test]
fn lcroute_lists_the_verbs_of_programs_that_it_executes_with_the_same_words() {
    let lcroute = lcroute::command();
    let programs = [lcroute_web::command(), lcroute_streams::command()];
    for verb in programs.iter().flat_map(clap::Command::get_subcommands) {
        let listed = lcroute.find_subcommand(verb.get_name()).unwrap();
        let about = |verb: &clap::Command| verb.get_about().map(ToString::to_string);
        assert_eq!(about(listed), about(verb));
    }
}

/// Returns the catalog: the texts of `journalctl -x` below entries.
fn catalog() -> String {
    let mut out =
        String::from("# Made by `make reference`; installed in /usr/lib/systemd/catalog.\n");
    for event in EVENTS {
        let fields: Vec<String> = event.fields.iter().map(|f| format!("{f}=@{f}@")).collect();
        let _ = write!(
            out,
            "\n-- {}\nSubject: {}\nDefined-By: lcroute\n\n{}\n\n{}\n",
            event.id,
            event.name,
            event.meaning,
            fields.join("\n"),
        );
    }
    out
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_and_reasons_that_exist() {
    let known: BTreeSet<&str> = tables()
        .iter()
        .flat_map(|(_, t)| t.iter().map(|d| d.name))
        .collect();
    for file in ["packaging/grafana.json", "packaging/alerts.yml"] {
        let text = std::fs::read_to_string(at(file)).unwrap();
        let named = metrics_in(&text);
        assert!(named.len() > 10, "{file}: {named:?}");
        for name in &named {
            assert!(known.contains(name.as_str()), "{file}: there is no {name}");
        }
    }
    let dashboard = std::fs::read_to_string(at("packaging/grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let asked = |p: &&serde_json::Value| {
        p["targets"]
            .as_array()
            .is_some_and(|t| t.iter().all(|t| t["expr"].is_string()))
    };
    let rows = panels.iter().filter(|p| p["type"] == "row").count();
    assert_eq!(panels.iter().filter(asked).count() + rows, panels.len());
    // reasons without a pattern
    let text = std::fs::read_to_string(at("packaging/alerts.yml")).unwrap();
    let reasons: BTreeSet<&str> = reasons()
        .iter()
        .flat_map(|(_, list)| list.iter().map(|(name, _)| *name))
        .collect();
    let mut seen = 0;
    for part in text.split("reason=").skip(1) {
        let value = part.trim_start_matches('~').split('"').nth(1).unwrap();
        for reason in value.split('|').filter(|r| !r.contains('*')) {
            assert!(reasons.contains(reason), "no reason {reason}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen}");
}

/// Returns words that begin like our metrics, and are not parts of other words.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |w: &&str| {
        let prefixes = ["lcroute_", "lcsync_", "lcagent_", "process_"];
        prefixes.iter().any(|p| w.starts_with(p))
    };
    words.filter(ours).map(str::to_owned).collect()
}

fn tables() -> [(&'static str, &'static [Description]); 7] {
    [
        ("lcroute", lcroute::metrics::TABLE),
        ("lcroute signal", lcroute::metrics::signal::TABLE),
        ("lcroute-streams", lcroute_streams::metrics::TABLE),
        ("lcroute-web", lcroute_web::metrics::TABLE),
        ("lcsync share", lcsync::server::metrics::TABLE),
        ("lcagent run", lcagent::agent::metrics::TABLE),
        ("each of them", PROCESS),
    ]
}

type Reasons = Vec<(&'static str, &'static str)>;

fn reasons() -> Vec<(&'static str, Reasons)> {
    vec![
        (
            "lcroute: `lcroute_drops_total{reason}`, `drops` of `lcroute status --json`",
            lcroute::drops::reasons(),
        ),
        (
            "lcroute-streams: `lcroute_streams_refused_total{reason}`",
            lcroute_streams::metrics::Refused::TABLE.to_vec(),
        ),
        (
            "lcroute-web: `lcroute_players_closed_total{reason}`",
            librecast::drops::list::<lcroute_web::metrics::CloseReason>(),
        ),
        (
            "lcroute-outside: `drops` of `lcroute outside --json`, beside drops of links",
            librecast::drops::list::<lcroute_outside::drops::DropReason>(),
        ),
        (
            "lcsync: `lcsync_reports_dropped_total{reason}`",
            lcsync::server::metrics::REASONS.to_vec(),
        ),
        (
            "lcagent: `lcagent_commands_refused_total{reason}`",
            lcagent::agent::metrics::REFUSALS.to_vec(),
        ),
        (
            "lcagent: `lcagent_drops_total{reason}`",
            lcagent::agent::metrics::REASONS.to_vec(),
        ),
        (
            "lcgroup: `drops` of `lcgroup status --json`",
            librecast::drops::list::<librecast_log::DropReason>(),
        ),
        (
            "lcradio: `drops` of `lcradio listen --json`",
            librecast::drops::list::<lcradio_core::DropReason>(),
        ),
        (
            "lcstudio: `drops` of `lcstudio attend --json`",
            librecast::drops::list::<lcstudio_core::DropReason>(),
        ),
    ]
}

fn reference() -> String {
    let mut out = String::from(
        "# Reference\n\n\
         Every verb and flag, configuration key, metric, drop reason and journal entry. Made from the programs by `make reference`; a test\n\
         fails when it is not what they say. What to do when something is wrong: [troubleshooting.md](troubleshooting.md).\n\n\
         - [Command lines](#command-lines): [lcroute](#lcroute), [lcsync](#lcsync), [lcagent](#lcagent), [lcgroup](#lcgroup), [lcradio](#lcradio), [lcstudio](#lcstudio)\n\
         - [Configuration](#configuration)\n\
         - [Metrics](#metrics)\n\
         - [Drop reasons](#drop-reasons)\n\
         - [Journal](#journal)\n\
         - [Checks of `lcroute doctor`](#checks-of-lcroute-doctor)\n\n\
         Sizes take `k M G` (powers of 1000) and `Ki Mi Gi`; rates are bits per second; durations are like `500ms 2s 5m 24h 7d`. Exit codes of all:\n\
         0 done, 1 failed, 2 wrong usage or configuration, 3 timed out or not reachable, 4 not permitted, 130 and 143 interrupted.\n\n\
         ## Command lines\n\n",
    );
    // the verbs of lcroute-lab, lcroute-web and lcroute-streams appear under lcroute
    for command in [
        lcroute_lab::lcroute(),
        lcroute_outside::command(),
        lcroute_reach::command(),
        lcsync::command(),
        lcagent::command(),
        lcgroup::command(),
        lcradio::command(),
        lcstudio::command(),
    ] {
        verb(&mut out, &command, "", 3);
    }
    out += "## Configuration\n\nTOML; every key is optional where nothing else is said, an unknown one is an error.\n\n";
    for (path, parse) in FILES {
        configuration(&mut out, path, parse);
    }
    out += "## Metrics\n\n`[metrics] listen` (or `lcsync share --metrics`; `[streams] metrics` of lcroute-streams, `[players] metrics` of lcroute-web) serves these at `/metrics`, as OpenMetrics 1.0, to \
            any host that reaches it. The units of lcsync and lcagent let them use unix sockets and IPv6; lcsync's talks to this host and its links alone (`IPAddressAllow=` in a \
            drop-in lets others in). `packaging/alerts.yml` has alert rules, `packaging/grafana.json` a dashboard.\n\n";
    for (program, table) in tables() {
        let _ = writeln!(
            out,
            "### {program}\n\n| metric | kind | labels | what it says |\n|---|---|---|---|"
        );
        for d in table {
            let labels = d.labels.join(", ");
            let _ = writeln!(
                out,
                "| `{}` | {} | {labels} | {} |",
                d.name,
                d.kind.name(),
                cell(d.help)
            );
        }
        out.push('\n');
    }
    out += "## Drop reasons\n\n";
    for (title, list) in reasons() {
        let _ = writeln!(out, "### {title}\n\n| reason | what it means |\n|---|---|");
        for (name, meaning) in list {
            let _ = writeln!(out, "| `{name}` | {} |", cell(meaning));
        }
        out.push('\n');
    }
    out += "## Journal\n\n`journalctl MESSAGE_ID=...` finds them; `-o json` shows their fields. What others can cause is told at most once in five seconds in \
            the long run.\n\n| entry | MESSAGE_ID | fields | what it means |\n|---|---|---|---|\n";
    for event in EVENTS {
        let fields: Vec<String> = event.fields.iter().map(|f| format!("`{f}`")).collect();
        let _ = writeln!(
            out,
            "| {} | `{}` | {} | {} |",
            event.name,
            event.id,
            fields.join(" "),
            cell(event.meaning)
        );
    }
    out += "\n## Checks of `lcroute doctor`\n\n`--json`: `{\"ok\": bool, \"checks\": [{\"name\", \"state\", \"detail\", \"remedy\"}]}`; `state` is `ok`, `warn`, `fail` or \
            `skipped`, `remedy` is null where there is nothing to do. Exit code 1 if one fails.\n\n| check | what is looked at |\n|---|---|\n";
    for (name, what) in lcroute::DOCTOR_CHECKS {
        let _ = writeln!(out, "| `{name}` | {} |", cell(what));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Writes a command, its arguments, and its verbs.
fn verb(out: &mut String, command: &clap::Command, above: &str, level: usize) {
    let name = format!("{above}{}", command.get_name());
    let heading = "#".repeat(level);
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let _ = writeln!(out, "{heading} {name}\n\n{}\n", about.replace('\n', " "));
    let arguments: Vec<&clap::Arg> = command
        .get_arguments()
        .filter(|a| !a.is_hide_set() && !matches!(a.get_id().as_str(), "help" | "version"))
        .collect();
    if !arguments.is_empty() {
        out.push_str("| argument | what it says |\n|---|---|\n");
        for a in arguments {
            let _ = writeln!(out, "| `{}` | {} |", cell(&spelled(a)), cell(&told(a)));
        }
        out.push('\n');
    }
    for below in command.get_subcommands() {
        if !below.is_hide_set() && below.get_name() != "help" {
            verb(
                out,
                below,
                &format!("{name} "),
                level.max(3) + 1 - usize::from(level > 3),
            );
        }
    }
}

/// `-i, --interval DURATION`
fn spelled(a: &clap::Arg) -> String {
    let names: Vec<String> = a
        .get_short()
        .map(|s| format!("-{s}"))
        .into_iter()
        .chain(a.get_long().map(|l| format!("--{l}")))
        .collect();
    let values = a.get_value_names().unwrap_or_default();
    let values: Vec<&str> = values.iter().map(|v| v.as_str()).collect();
    let takes = a.get_action().takes_values();
    let many = if matches!(a.get_action(), clap::ArgAction::Append) {
        "..."
    } else {
        ""
    };
    match (names.is_empty(), takes) {
        (true, _) => format!("{}{many}", values.join(" ")),
        (false, true) => format!("{} {}{many}", names.join(", "), values.join(" ")),
        (false, false) => names.join(", "),
    }
}

fn told(a: &clap::Arg) -> String {
    let mut text = a.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = a
        .get_default_values()
        .iter()
        .map(|v| v.to_string_lossy())
        .collect();
    if a.get_action().takes_values() && !defaults.is_empty() {
        let _ = write!(text, " [default: {}]", defaults.join(" "));
    }
    if let Some(variable) = a.get_env() {
        let _ = write!(text, " [environment: {}]", variable.to_string_lossy());
    }
    text
}

/// Returns a parser's error for an unknown key, which names all keys.
type Refuse = fn(&str) -> String;

/// Configuration files.
const FILES: [(&str, Refuse); 3] = [
    ("/etc/lcroute/lcroute.toml", |text| {
        let read = lcroute_control::config::Config::parse("f", text);
        read.map(drop).map_err(|e| e.to_string()).unwrap_err()
    }),
    (
        "lcsync.toml (`lcsync share --config`), /etc/lcsync/NAME.toml",
        |text| {
            let file = tempfile(text);
            let read = lcsync::server::config::read(&file);
            let _ = std::fs::remove_file(&file);
            read.map(drop).map_err(|e| e.to_string()).unwrap_err()
        },
    ),
    ("/etc/lcagent/lcagent.toml", |text| {
        let read = lcagent::agent::config::Config::parse("f", text);
        read.map(drop).map_err(|e| e.to_string()).unwrap_err()
    }),
];

/// Their keys: `# file PATH`, then for each table its heading, required content behind `+`, and a
/// line `KEY | DEFAULT | DESCRIPTION` for each key.
const CONFIGURATION: &str = include_str!("configuration.txt");

/// `[name]`, or `[[name]]`; keys with default and description.
#[derive(Default)]
struct Table {
    heading: &'static str,
    /// Other required content of the table.
    with: String,
    keys: Vec<[&'static str; 3]>,
}

/// Returns the tables of the file at `path`.
fn tables_of(path: &str) -> Vec<Table> {
    let mut files = CONFIGURATION.split("# file ");
    let rows = files.find_map(|file| file.strip_prefix(path)).unwrap();
    let mut tables = Vec::<Table>::new();
    for line in rows.lines().filter(|line| !line.is_empty()) {
        if line.starts_with('[') || tables.is_empty() {
            tables.push(Table::default());
        }
        let table = tables.last_mut().unwrap();
        if line.starts_with('[') {
            table.heading = line;
        } else if let Some(needed) = line.strip_prefix("+ ") {
            let _ = writeln!(table.with, "{needed}");
        } else {
            let mut parts = line.splitn(3, " | ");
            let row = std::array::from_fn(|_| parts.next().unwrap_or_else(|| panic!("{line}")));
            table.keys.push(row);
        }
    }
    tables
}

fn tempfile(text: &str) -> PathBuf {
    let file = std::env::temp_dir().join(format!("reference-{}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    file
}

/// Writes the keys of this file, complete by the parser's error for an unknown key.
fn configuration(out: &mut String, path: &str, parse: fn(&str) -> String) {
    let _ = writeln!(out, "### {path}\n");
    let tables = tables_of(path);
    for table in &tables {
        let answer = parse(&format!(
            "{}\n{}no_such_key = 1\n",
            table.heading, table.with
        ));
        let (_, expected) = answer
            .split_once("unknown field `no_such_key`, expected ")
            .unwrap_or_else(|| panic!("{answer}"));
        let here: BTreeSet<&str> = table.keys.iter().map(|[key, ..]| *key).collect();
        let is_table = |key: &&str| {
            let mut headings = tables.iter().map(|t| t.heading.trim_matches(['[', ']']));
            table.heading.is_empty() && !here.contains(key) && headings.any(|h| h == *key)
        };
        let mut known: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
        known.retain(|key| !is_table(key));
        assert_eq!(here, known, "{path} {}", table.heading);
        let title = if table.heading.is_empty() {
            "at the top"
        } else {
            table.heading
        };
        let _ = writeln!(
            out,
            "| `{title}` | where it is not set | what it says |\n|---|---|---|"
        );
        for [key, default, says] in &table.keys {
            let _ = writeln!(out, "| `{key}` | {} | {} |", cell(default), cell(says));
        }
        out.push('\n');
    }
}
